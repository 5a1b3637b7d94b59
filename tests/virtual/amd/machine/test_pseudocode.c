/* Instructions against AMD's pseudocode: vectors that make_vectors.py made of it, one instruction a
 * kernel. The inputs are made here as there. What the pseudocode does not say is in test_lanes.c.
 * Prints what is covered, what is skipped and why, and what is implemented without an oracle. */
#include <math.h>

#include "../../../../virtual/amd/exec/exec.h"
#include "instruction.h"

enum { SHOWN = 24 }; /* lanes that a variant's vectors have */

static const uint32_t special[] = {
    0,          1,          0xffffffff, 0x80000000, 0x7fffffff, 0x3f800000, 0xbf800000, 0x7f800000,
    0xff800000, 0x7fc00000, 0x7fa00000, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0x3c003c00,
    0x7c00fc00, 0x7e007d00, 0x00010001, 0x3f000000, 0xc0200000, 0x4f000000, 0xcf000000, 0x7bff8400,
    0x000083ff, 0x55555555, 0xff00ff00, 31,         32};
static const uint64_t special64[] = {0,
                                     1,
                                     UINT64_MAX,
                                     1ull << 63,
                                     INT64_MAX,
                                     0x3ff0000000000000,
                                     0xbff0000000000000,
                                     0x7ff0000000000000,
                                     0xfff0000000000000,
                                     0x7ff8000000000000,
                                     0x7ff4000000000000,
                                     0x000fffffffffffff,
                                     0x0010000000000000,
                                     0x7fefffffffffffff,
                                     0x41dfffffffc00000,
                                     0xc1e0000000000000,
                                     0x3fe0000000000000,
                                     0x4004000000000000};

static uint64_t state;

static void seed(const char *name)
{
    state = 0xcbf29ce484222325;
    for (; *name; name++)
        state = (state ^ (uint8_t)*name) * 0x100000001b3;
    state |= 1;
}

static uint64_t next(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d;
}

static uint32_t word(void)
{
    uint64_t r = next();
    unsigned c = (unsigned)(r >> 60);
    if (c < 5)
        return special[(r >> 32) % (sizeof special / sizeof special[0])];
    if (c < 8)
        return r & 63;
    if (c < 12)
        return (uint32_t)((r & 0x807fffff) | (100 + (r >> 32 & 63)) << 23);
    return (uint32_t)r;
}

static uint64_t operand(unsigned width)
{
    if (width < 2)
        return word();
    uint64_t r = next(), more = next();
    unsigned c = (unsigned)(r >> 60);
    if (c < 5)
        return special64[(r >> 32) % (sizeof special64 / sizeof special64[0])];
    if (c < 8)
        return r & 63;
    if (c < 12)
        return (more & 0x800fffffffffffff) | (1000 + (r >> 32 & 63)) << 52;
    return more;
}

struct op {
    struct instruction instruction;
    const char *name; /* of the instruction */
    int tolerance;
    unsigned a, b, c, d;
    bool variant;
};

static unsigned vectors_count, failed;
static char detail[400];

static bool is_nan(uint64_t v, unsigned bits)
{
    return bits == 16   ? (v & 0x7fff) > 0x7c00
           : bits == 32 ? (v & 0x7fffffff) > 0x7f800000
                        : (v & INT64_MAX) > 0x7ff0000000000000;
}

/* The type of the result, from the name: NaNs are all alike. */
static unsigned float_bits(const char *full)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(full, "/"), full);
    static const char *const before[] = {"v_cvt_f16", "v_cvt_f32", "v_cvt_f64"};
    for (unsigned k = 0; k < 3; k++)
        if (!strncmp(name, before[k], 9))
            return 16u << k;
    if (!strncmp(name, "v_cvt", 5) || strstr(name, "frexp_exp"))
        return 0;
    if (strstr(name, "dot2_f32") || strstr(name, "dot2c_f32"))
        return 32;
    const char *end = name + strlen(name) - 4;
    return !strcmp(end, "_f16") ? 16 : !strcmp(end, "_f32") ? 32 : !strcmp(end, "_f64") ? 64 : 0;
}

static double value(uint64_t v, unsigned bits)
{
    float f;
    double d;
    if (bits == 64)
        return memcpy(&d, &v, 8), d;
    if (bits == 16) {
        int e = (int)(v >> 10 & 31);
        double m = e ? ldexp((double)(1024 + (v & 1023)), e - 25) : ldexp((double)(v & 1023), -24);
        return e == 31 ? INFINITY : v & 0x8000 ? -m : m;
    }
    uint32_t u = (uint32_t)v;
    return memcpy(&f, &u, 4), (double)f;
}

static bool alike(const struct op *op, uint64_t got, uint64_t want, uint64_t mask)
{
    unsigned bits = float_bits(op->name);
    if (((got ^ want) & mask) == 0)
        return true;
    if (!bits)
        return false;
    if (bits == 16 || (strstr(op->name, "_pk_") && bits < 64)) { /* by parts */
        for (unsigned at = 0; at < 32 * op->d && !op->tolerance; at += bits) {
            uint64_t one = (bits == 16 ? 0xffffull : 0xffffffffull), g = got >> at & one,
                     w = want >> at & one;
            if (g != w && !(is_nan(g, bits) && is_nan(w, bits)))
                return false;
        }
        return true;
    }
    if (is_nan(got, bits) && is_nan(want, bits))
        return true;
    if (!op->tolerance || is_nan(got, bits) || is_nan(want, bits))
        return false;
    double g = value(got, bits), w = value(want, bits);
    double relative = bits == 16 ? 0x1p-10 : bits == 32 ? 0x1p-21 : 0x1p-50;
    return g == w ||
           fabs(g - w) <= relative * fabs(w) +
                              (strstr(op->name, "sin") || strstr(op->name, "cos") ? 0x1p-12 : 0);
}

/* Differences from the pseudocode that are meant. */
static const char *meant(const struct op *op)
{
    if (strstr(op->name, "rndne"))
        return "a negative number that becomes zero keeps its sign, as in IEEE 754";
    if (strstr(op->name, "frexp_exp"))
        return "denormals are normalised and zero has exponent 0, as LLVM folds it";
    return !strncmp(op->name, "v_div_scale", 11) || !strncmp(op->name, "v_div_fmas", 10)
               ? "the manual's scaling of extreme quotients does not give correct division; ours "
                 "does"
               : NULL;
}

static void fill_vector(const struct op *op, uint64_t source[4][LANES])
{
    struct registers *r = instruction_registers();
    unsigned width[] = {op->a, op->b, op->c, op->d ? op->d : 2};
    seed(op->name);
    for (int l = 0; l < LANES; l++)
        for (int k = 0; k < 4; k++) {
            source[k][l] = operand(width[k]);
            r->in->vector.v[2 * k][l] = (uint32_t)source[k][l];
            r->in->vector.v[2 * k + 1][l] = (uint32_t)(source[k][l] >> 32);
        }
    r->in->vector.vcc = next();
    r->in->vector.exec = next();
    r->in->vector.exec |= next();
}

static void next_vector(const struct op *op, FILE *f, unsigned long long *a, unsigned long long *b)
{
    char line[128];
    if (!fgets(line, sizeof line, f) || sscanf(line, "%llx %llx", a, b) != 2)
        fail_msg("%s: the vectors end", op->name);
}

static void check_vector(const struct op *op, FILE *f)
{
    static uint64_t source[4][LANES];
    const struct registers *r = instruction_registers();
    struct va_fault fault;
    unsigned wrong = 0;
    unsigned long long want, mask;
    fill_vector(op, source);
    bool ran = instruction_run(&op->instruction, &fault);
    if (!ran)
        snprintf(detail, sizeof detail, "%s", fault.text);
    for (int l = 0; l < (op->variant ? SHOWN : LANES); l++) {
        uint64_t got = r->out->vector.v[0][l] | (uint64_t)(op->d > 1 ? r->out->vector.v[1][l] : 0)
                                                    << 32;
        next_vector(op, f, &want, &mask);
        if (ran && !alike(op, got & mask, want & mask, mask) && !wrong++)
            snprintf(detail, sizeof detail,
                     "lane %d of %llx %llx %llx (old %llx): %llx, not %llx under %llx", l,
                     (unsigned long long)source[0][l], (unsigned long long)source[1][l],
                     (unsigned long long)source[2][l], (unsigned long long)source[3][l],
                     (unsigned long long)(got & mask), want, mask);
    }
    next_vector(op, f, &want, &mask);
    if (ran && (r->out->vector.vcc != want || r->out->vector.exec != mask) && !wrong++)
        snprintf(detail, sizeof detail, "vcc %llx exec %llx, not %llx %llx",
                 (unsigned long long)r->out->vector.vcc, (unsigned long long)r->out->vector.exec,
                 want, mask);
    if (!ran || wrong) {
        const char *why = ran ? meant(op) : NULL;
        printf("%s %s: %s: %u lanes: %s\n", why ? "meant:" : "FAILS:", op->name, detail, wrong,
               why ? why : "");
        failed += !why;
    }
}

static void check_scalar(const struct op *op, FILE *f)
{
    struct va_fault fault;
    struct registers *r = instruction_registers();
    unsigned wrong = 0;
    seed(op->name);
    next(); /* the immediate of SOPK, which is in the words */
    memset(r->in->scalar, 0, sizeof r->in->scalar);
    for (int g = 0; g < GROUPS; g++) {
        uint64_t *put = r->in->scalar[g];
        put[0] = operand(op->a ? op->a : 1);
        put[1] = operand(op->b ? op->b : 1);
        put[2] = operand(op->d ? op->d : 1);
        put[3] = next() & 1;
    }
    bool ran = instruction_run(&op->instruction, &fault);
    if (!ran)
        snprintf(detail, sizeof detail, "%s", fault.text);
    for (int g = 0; g < GROUPS; g++) {
        const uint64_t *put = r->in->scalar[g], *get = r->out->scalar[g];
        unsigned long long want, mask, scc, exec;
        char line[128];
        if (!fgets(line, sizeof line, f) ||
            sscanf(line, "%llx %llx %llx %llx", &want, &mask, &scc, &exec) != 4)
            fail_msg("%s: the vectors end", op->name);
        if (ran && (((get[0] ^ want) & mask) || (get[1] & 1) != scc || get[2] != exec) && !wrong++)
            snprintf(detail, sizeof detail,
                     "%llx, %llx: %llx scc %llx exec %llx, not %llx %llx %llx",
                     (unsigned long long)put[0], (unsigned long long)put[1],
                     (unsigned long long)(get[0] & mask), (unsigned long long)(get[1] & 1),
                     (unsigned long long)get[2], want, scc, exec);
    }
    if (!ran || wrong) {
        printf("FAILS: %s: %s\n", op->name, detail);
        failed++;
    }
}

static const char *vectors;

static void read_op(const char *line, struct op *op)
{
    struct instruction *i = &op->instruction;
    char kind;
    int n = sscanf(line, "op %63s %c %d %x %u %u %u %u %x %x", i->name, &kind, &op->tolerance,
                   &i->mode, &op->a, &op->b, &op->c, &op->d, &i->words[0], &i->words[1]);
    assert_true(n >= 9);
    i->count = (unsigned)n - 8;
    i->scalar = kind == 's';
    op->name = i->name;
    op->variant = strchr(op->name, '/');
}

static void test_pseudocode(void **unused)
{
    (void)unused;
    char line[2048];
    unsigned skipped = 0;
    FILE *f = fopen(vectors, "r");
    if (!f)
        fail_msg("%s: cannot be opened", vectors);
    instruction_registers();
    while (fgets(line, sizeof line, f)) {
        struct op op = {0};
        if (!strncmp(line, "template", 8)) {
            instruction_template(line);
        } else if (!strncmp(line, "skip", 4)) {
            printf("skipped: %s", line + 5);
            skipped++;
        } else {
            read_op(line, &op);
            vectors_count++;
            instruction_covered(op.name);
            if (op.instruction.scalar)
                check_scalar(&op, f);
            else
                check_vector(&op, f);
        }
    }
    fclose(f);
    printf("%u vectors, %u instructions skipped, %u fail\n", vectors_count, skipped, failed);
    assert_true(vectors_count > 2500);
    assert_int_equal(failed, 0);
}

/* ---- what has no oracle ---- */

/* Those that another test asks about, and which. */
static const char *elsewhere(const char *name)
{
    static const char *const tests[][2] = {
        {"v_cvt_f32_fp8", "virtual amd conversions"},
        {"v_cvt_f32_bf8", "virtual amd conversions"},
        {"v_cvt_pk_f32_fp8", "virtual amd conversions"},
        {"v_cvt_pk_f32_bf8", "virtual amd conversions"},
        {"v_cvt_pk_fp8_f32", "virtual amd conversions"},
        {"v_cvt_pk_bf8_f32", "virtual amd conversions"},
        {"v_cvt_pkrtz_f16_f32", "virtual amd conversions"},
        {"v_cvt_sr_fp8_f32", "virtual amd conversions"},
        {"v_cvt_sr_bf8_f32", "virtual amd conversions"},
        {"v_cvt_pk_u8_f32", "virtual amd conversions"},
        {"v_cvt_pkaccum_u8_f32", "virtual amd conversions"},
        {"s_trap", "virtual amd machine, a bug each"},
        {"s_endpgm", "every kernel"},
    };
    for (size_t k = 0; k < sizeof tests / sizeof tests[0]; k++)
        if (!strcmp(tests[k][0], name))
            return tests[k][1];
    return NULL;
}

/* Outside of memory and of matrices. Exchanges between lanes are no memory. */
static bool wants_oracle(uint16_t op)
{
    const struct va_row *row = &va_rows[op];
    if (op == VA_DS_ds_swizzle_b32 || op == VA_DS_ds_permute_b32 || op == VA_DS_ds_bpermute_b32)
        return true;
    return row->encoding < VA_DS && row->encoding != VA_SMEM && !strstr(row->name, "mfma") &&
           !strstr(row->name, "smfmac");
}

static bool is_implemented(uint16_t op)
{
    const struct va_row *row = &va_rows[op];
    bool vector = row->encoding >= VA_VOP1;
    struct va_insn i = {.op = op,
                        .encoding = row->encoding,
                        .wd = row->d,
                        .wa = row->a,
                        .wb = row->b,
                        .wc = row->c,
                        .opsel_hi = 7,
                        .a = vector ? VA_V0 : 0,
                        .b = vector ? VA_V0 : 0,
                        .c = vector ? VA_V0 : 0,
                        .d = vector ? VA_V0 : 0,
                        .sd = VA_VCC};
    return va_isa_choose()->bind(&i);
}

/* ---- what is decoded and stops the launch: nothing but this ---- */

static const char *refused(const char *name)
{
    static const char *const known[][2] = {
        {"v_smfmac", "sparse matrices"},
        {"v_screen_partition", "screens"},
        {"s_setvskip", "skipped vector instructions"},
        {"s_cbranch_g_fork", "forks"},
        {"s_cbranch_i_fork", "forks"},
        {"s_cbranch_join", "forks"},
        {"s_rfe", "trap handlers"},
        {"s_setkill", "pixel shaders and debuggers"},
        {"s_sendmsghalt", "pixel shaders and debuggers"},
        {"s_endpgm_ordered", "pixel shaders and debuggers"},
        {"s_store", "scalar stores"},
        {"s_buffer_store", "scalar stores"},
        {"s_scratch", "scalar scratch"},
        {"s_atomic", "scalar atomics"},
        {"s_buffer_atomic", "scalar atomics"},
        {"s_atc_probe", "scalar caches"},
        {"s_dcache_discard", "scalar caches"},
        {"ds_gws", "the global data share"},
        {"buffer_load_format", "formats of pixels"},
        {"buffer_store_format", "formats of pixels"},
        {"tbuffer", "formats of pixels"},
        {"buffer_store_lds", "from LDS to memory"},
    };
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
        if (!strncmp(known[k][0], name, strlen(known[k][0])))
            return known[k][1];
    return NULL;
}

static void test_refused(void **unused)
{
    (void)unused;
    unsigned count = 0, unknown = 0;
    for (uint16_t op = 0; op < VA_OP_COUNT; op++) {
        const char *why = refused(va_rows[op].name);
        bool implemented = is_implemented(op);
        count += !implemented;
        if (implemented == !!why) {
            printf("%s: %s\n", va_rows[op].name, implemented ? "is not refused" : "is refused");
            unknown++;
        }
    }
    printf("%u of %u rows are not implemented\n", count, (unsigned)VA_OP_COUNT);
    assert_int_equal(unknown, 0);
}

static void test_oracles(void **unused)
{
    (void)unused;
    unsigned implemented = 0, without = 0;
    for (uint16_t op = 0; op < VA_OP_COUNT; op++) {
        const char *name = va_rows[op].name, *other = elsewhere(name);
        if (!wants_oracle(op))
            continue;
        if (!is_implemented(op)) {
            printf("not implemented: %s: %s\n", name, refused(name));
            continue;
        }
        implemented++;
        if (other) {
            printf("tested elsewhere: %s: %s\n", name, other);
        } else if (!instruction_is_covered(name)) {
            printf("implemented without any oracle: %s\n", name);
            without++;
        }
    }
    printf("%u implemented outside of memory and matrices, %u without any oracle\n", implemented,
           without);
    assert_true(implemented > 600);
    assert_int_equal(without, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pseudocode),
        cmocka_unit_test(test_across_lanes),
        cmocka_unit_test(test_dpp),
        cmocka_unit_test(test_sdwa),
        cmocka_unit_test(test_swizzle),
        cmocka_unit_test(test_permute),
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_flow),
        cmocka_unit_test(test_relative),
        cmocka_unit_test(test_machine_registers),
        cmocka_unit_test(test_no_effect),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_oracles), /* the last: of all that were asked */
    };
    vectors = argc > 1 ? argv[1] : "pseudocode.vectors";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
