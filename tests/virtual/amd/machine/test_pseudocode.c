/* Instructions against AMD's pseudocode: vectors that make_vectors.py made of it, one instruction a
 * kernel. The inputs are made here as there. Prints what is covered, what is skipped and why, and
 * what is implemented without an oracle. */
#include <ctype.h>
#include <math.h>
#include <unistd.h>

#include "machine_test.h"

enum { LANES = 64, GROUPS = 32, WORDS = 128, OPS = 2048 };

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
    char name[64], kind;
    int tolerance;
    unsigned a, b, c, d;
    uint32_t words[3];
    unsigned count;
};

static struct vc_map *map;
static uint32_t templates[2][WORDS];
static unsigned lengths[2];
static char covered[OPS][64];
static unsigned covered_count, failed;
static char detail[400];

/* Runs the template with the instruction in the place of its long s_nops. */
static bool run(const struct op *op, uint64_t in, uint64_t out, struct va_fault *fault)
{
    int which = op->kind == 's';
    uint32_t text[WORDS];
    memcpy(text, templates[which], sizeof text);
    for (unsigned k = 0; k < lengths[which]; k++)
        if (text[k] == 0xbf80000f) {
            memcpy(text + k, op->words, op->count * 4);
            break;
        }
    struct vc_alloc_info info = {
        .bytes = sizeof text, .align = 4096, .kind = VC_MODULE, .access = 1};
    uint64_t at = vc_alloc(map, &info), args = vc_alloc(map, &info);
    memcpy((void *)(uintptr_t)at, text, sizeof text);
    memcpy((void *)(uintptr_t)args, (uint64_t[]){in, out}, 16);
    struct va_code *code = va_code_create(at, lengths[which] * 4);
    struct va_kernel kernel = {.name = op->name,
                               .entry = at,
                               .rsrc1 = 3 | 0xf0 << 12 | 1 << 21 |
                                        1 << 23, /* 32 VGPRs, denormals, IEEE */
                               .rsrc2 = 2 << 1 | 1 << 7,
                               .rsrc3 = 7,
                               .properties = 1 << 3};
    struct va_launch l = {.code = code,
                          .kernel = &kernel,
                          .grid = {which ? GROUPS : 1, 1, 1},
                          .workgroup = {LANES, 1, 1},
                          .kernarg = args,
                          .map = map,
                          .checks = VA_CHECK_BOUNDS};
    enum va_status status = va_execute(&l, NULL, fault);
    va_code_release(code);
    vc_free(map, at);
    vc_free(map, args);
    return status == VA_OK;
}

static bool is_nan(uint64_t v, unsigned bits)
{
    return bits == 16   ? (v & 0x7fff) > 0x7c00
           : bits == 32 ? (v & 0x7fffffff) > 0x7f800000
                        : (v & INT64_MAX) > 0x7ff0000000000000;
}

/* The type of the result, from the name: NaNs are all alike. */
static unsigned float_bits(const char *name)
{
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
    if (strstr(op->name, "_pk_") && bits < 64) { /* by parts */
        for (unsigned at = 0; at < 32 * op->d; at += bits) {
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

static void check_vector(const struct op *op, FILE *f, uint64_t in, uint64_t out)
{
    static uint64_t source[4][LANES];
    uint32_t *put = (uint32_t *)(uintptr_t)in;
    const uint32_t *get = (const uint32_t *)(uintptr_t)out;
    unsigned width[] = {op->a, op->b, op->c, op->d ? op->d : 2};
    struct va_fault fault;
    seed(op->name);
    for (int l = 0; l < LANES; l++)
        for (int k = 0; k < 4; k++) {
            source[k][l] = operand(width[k]);
            put[k * 128 + l] = (uint32_t)source[k][l];
            put[k * 128 + 64 + l] = (uint32_t)(source[k][l] >> 32);
        }
    uint64_t vcc = next(), exec = next();
    exec |= next();
    memcpy(put + 512, &vcc, 8);
    memcpy(put + 514, &exec, 8);
    bool ran = run(op, in, out, &fault);
    unsigned wrong = 0;
    if (!ran)
        snprintf(detail, sizeof detail, "%s", fault.text);
    for (int l = 0; l <= LANES; l++) {
        unsigned long long want, mask, got;
        char line[128];
        if (!fgets(line, sizeof line, f) || sscanf(line, "%llx %llx", &want, &mask) != 2)
            fail_msg("%s: the vectors end", op->name);
        if (!ran)
            continue;
        if (l == LANES) { /* VCC, EXEC */
            unsigned long long v, e;
            memcpy(&v, get + 128, 8);
            memcpy(&e, get + 130, 8);
            if ((v != want || e != mask) && !wrong++)
                snprintf(detail, sizeof detail, "vcc %llx exec %llx, not %llx %llx", v, e, want,
                         mask);
            continue;
        }
        got = get[l] | (uint64_t)(op->d > 1 ? get[64 + l] : 0) << 32;
        if (!alike(op, got & mask, want & mask, mask) && !wrong++)
            snprintf(detail, sizeof detail,
                     "lane %d of %llx %llx %llx (old %llx): %llx, not %llx under %llx", l,
                     (unsigned long long)source[0][l], (unsigned long long)source[1][l],
                     (unsigned long long)source[2][l], (unsigned long long)source[3][l], got & mask,
                     want, mask);
    }
    if (!ran || wrong) {
        const char *why = ran ? meant(op) : NULL;
        printf("%s %s: %s: %u lanes: %s\n", why ? "meant:" : "FAILS:", op->name, detail, wrong,
               why ? why : "");
        failed += !why;
    }
}

static void check_scalar(const struct op *op, FILE *f, uint64_t in, uint64_t out)
{
    struct va_fault fault;
    uint64_t *put = (uint64_t *)(uintptr_t)in;
    const uint64_t *get = (const uint64_t *)(uintptr_t)out;
    unsigned wrong = 0;
    seed(op->name);
    next(); /* the immediate of SOPK, which is in the words */
    memset(put, 0, GROUPS * 64);
    for (int g = 0; g < GROUPS; g++) {
        put[8 * g] = operand(op->a ? op->a : 1);
        put[8 * g + 1] = operand(op->b ? op->b : 1);
        put[8 * g + 2] = operand(op->d ? op->d : 1);
        put[8 * g + 3] = next() & 1;
    }
    bool ran = run(op, in, out, &fault);
    if (!ran)
        snprintf(detail, sizeof detail, "%s", fault.text);
    for (int g = 0; g < GROUPS; g++) {
        unsigned long long want, mask, scc, exec;
        char line[128];
        if (!fgets(line, sizeof line, f) ||
            sscanf(line, "%llx %llx %llx %llx", &want, &mask, &scc, &exec) != 4)
            fail_msg("%s: the vectors end", op->name);
        if (ran &&
            (((get[8 * g] ^ want) & mask) || (get[8 * g + 1] & 1) != scc ||
             get[8 * g + 2] != exec) &&
            !wrong++)
            snprintf(
                detail, sizeof detail, "%llx, %llx: %llx scc %llx exec %llx, not %llx %llx %llx",
                (unsigned long long)put[8 * g], (unsigned long long)put[8 * g + 1],
                (unsigned long long)(get[8 * g] & mask), (unsigned long long)(get[8 * g + 1] & 1),
                (unsigned long long)get[8 * g + 2], want, scc, exec);
    }
    if (!ran || wrong) {
        printf("FAILS: %s: %s\n", op->name, detail);
        failed++;
    }
}

static void read_template(char *line)
{
    int which = line[9] == 's';
    char *at = line + 10;
    for (lengths[which] = 0; *at && lengths[which] < WORDS;) {
        while (isspace((unsigned char)*at))
            at++;
        if (*at)
            templates[which][lengths[which]++] = (uint32_t)strtoul(at, &at, 16);
    }
}

static const char *vectors;

static void test_all(void **unused)
{
    (void)unused;
    char line[2048], why[200];
    unsigned skipped = 0;
    FILE *f = fopen(vectors, "r");
    if (!f)
        fail_msg("%s: cannot be opened", vectors);
    map = vc_map_create(why);
    assert_non_null(map);
    struct vc_alloc_info info = {.bytes = 65536, .align = 4096, .kind = VC_MODULE, .access = 1};
    uint64_t in = vc_alloc(map, &info), out = vc_alloc(map, &info);
    while (fgets(line, sizeof line, f)) {
        struct op op = {0};
        if (!strncmp(line, "template", 8)) {
            read_template(line);
        } else if (!strncmp(line, "skip", 4)) {
            printf("skipped: %s", line + 5);
            skipped++;
        } else {
            int n = sscanf(line, "op %63s %c %d %u %u %u %u %x %x", op.name, &op.kind,
                           &op.tolerance, &op.a, &op.b, &op.c, &op.d, &op.words[0], &op.words[1]);
            assert_true(n >= 8);
            op.count = (unsigned)n - 7;
            snprintf(covered[covered_count++ % OPS], sizeof covered[0], "%s", op.name);
            memset((void *)(uintptr_t)out, 0, 65536);
            if (op.kind == 's')
                check_scalar(&op, f, in, out);
            else
                check_vector(&op, f, in, out);
        }
    }
    fclose(f);
    vc_map_destroy(map);
    printf("%u instructions covered, %u skipped, %u fail\n", covered_count, skipped, failed);
    assert_true(covered_count > 500);
    assert_int_equal(failed, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    vectors = argc > 1 ? argv[1] : "pseudocode.vectors";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
