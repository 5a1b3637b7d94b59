/* Every dense matrix instruction: operands laid out as mfma-layouts.txt says (evaluated here, not
 * copied into code), the result against a product in f64; with C and D in VGPRs and in AGPRs, with
 * constants as C, with broadcasts. */
#include <ctype.h>
#include <math.h>

#include "../../../../virtual/amd/isa/decode.h"
#include "machine_test.h"

static const char *folder, *layouts;

/* ---- the layouts' expressions ---- */

struct variables {
    int i, j, k, block;
};

static const char *at;
static const struct variables *vars;

static int sum(void);

static int factor(void)
{
    while (*at == ' ')
        at++;
    if (isdigit((unsigned char)*at))
        return (int)strtol(at, (char **)&at, 10);
    if (!strncmp(at, "floor", 5))
        at += 5;
    if (*at == '(') {
        at++;
        int v = sum();
        while (*at == ' ')
            at++;
        assert_int_equal(*at, ')');
        at++;
        return v;
    }
    if (!strncmp(at, "block", 5)) {
        at += 5;
        return vars->block;
    }
    char c = *at++;
    if (c != 'i' && c != 'j' && c != 'k')
        fail_msg("layout: %c", c);
    return c == 'i' ? vars->i : c == 'j' ? vars->j : vars->k;
}

static int term(void)
{
    int v = factor();
    for (;;) {
        while (*at == ' ')
            at++;
        if (*at == '*')
            at++, v *= factor();
        else if (*at == '/')
            at++, v /= factor();
        else if (*at == '%')
            at++, v %= factor();
        else
            return v;
    }
}

static int sum(void)
{
    int v = term();
    for (;;) {
        while (*at == ' ')
            at++;
        if (*at == '+')
            at++, v += term();
        else
            return v;
    }
}

static int evaluate(const char *text, const struct variables *v)
{
    at = text;
    vars = v;
    return sum();
}

/* Register and lowest bit: "expr", "expr.[hi : lo]", or "[hi : lo]" of a pair, which begins at lo.
 */
static int place(const char *text, const struct variables *v, int *bit)
{
    *bit = 0;
    if (*text == '[')
        return evaluate(strchr(text, ':') + 1, v);
    const char *part = strstr(text, ".[");
    int r = evaluate(text, v);
    if (part)
        *bit = evaluate(strchr(part, ':') + 1, v);
    return r;
}

struct form {
    char name[64], reg[3][96], lane[3][96]; /* A, B, C and D */
    int m, n, k, blocks, wa, wb, wc;
    bool broadcast_a, broadcast_b;
};

/* ---- numbers ---- */

static double float8(uint32_t v, int e_bits)
{
    int m_bits = 7 - e_bits, e = (int)(v >> m_bits) & ((1 << e_bits) - 1),
        bias = e_bits == 4 ? 8 : 16;
    double m = (double)(v & ((1u << m_bits) - 1)) / (1 << m_bits);
    double r = e ? ldexp(1 + m, e - bias) : ldexp(m, 1 - bias);
    return v & 0x80 ? -r : r;
}

static double number(uint64_t v, const char *type)
{
    float f;
    double d;
    uint32_t u = (uint32_t)v;
    if (!strcmp(type, "f64"))
        return memcpy(&d, &v, 8), d;
    if (!strcmp(type, "fp8") || !strcmp(type, "bf8"))
        return float8(u & 255, type[0] == 'f' ? 4 : 5);
    if (!strcmp(type, "i8"))
        return (int8_t)u;
    if (!strcmp(type, "bf16"))
        u <<= 16;
    if (!strcmp(type, "f16")) {
        double m = ldexp((double)((u & 1023) | 1024), (int)(u >> 10 & 31) - 25);
        return u & 0x8000 ? -m : m;
    }
    if (!strcmp(type, "xf32"))
        u = (u + 0xfff + (u >> 13 & 1)) & 0xffffe000;
    return memcpy(&f, &u, 4), (double)f;
}

/* A small normal number of the type. */
static uint64_t random_number(const char *type, uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    uint64_t r = *seed >> 24;
    if (!strcmp(type, "f64"))
        return (r << 24 & 0x800fffffff000000) | (0x3fdull + (r & 3)) << 52;
    if (!strcmp(type, "i8"))
        return r & 255;
    if (!strcmp(type, "fp8"))
        return (r & 0x87) | (6 + (r >> 8 & 3)) << 3;
    if (!strcmp(type, "bf8"))
        return (r & 0x83) | (14 + (r >> 8 & 3)) << 2;
    if (!strcmp(type, "f16"))
        return (r & 0x83ff) | (13 + (r >> 20 & 3)) << 10;
    if (!strcmp(type, "bf16"))
        return (r & 0x807f) | (125 + (r >> 20 & 3)) << 7;
    return (r & 0x807fffff) | (125 + (r >> 32 & 3)) << 23;
}

static int type_bits(const char *type)
{
    return !strcmp(type, "f64") ? 64 : strstr(type, "32") ? 32 : strstr(type, "16") ? 16 : 8;
}

/* ---- one instruction ---- */

enum { MOST = 32 };
static double a[16][MOST][MOST], b[16][MOST][MOST], c[16][MOST][MOST];
static uint32_t memory[36][64], result[32][64];

static void put(uint32_t *base, int reg, int bit, int lane, uint64_t v, int bits)
{
    uint32_t *p = base + reg * 64 + lane;
    if (bits == 64) {
        p[0] = (uint32_t)v;
        p[64] = (uint32_t)(v >> 32);
    } else {
        *p |= (uint32_t)v << bit;
    }
}

static void fill(const struct form *f, const char *ta, const char *tb, const char *td)
{
    uint64_t seed = 12345 + (uint64_t)strlen(f->name) * 977 + (uint64_t)f->k;
    int bit;
    memset(memory, 0, sizeof memory);
    for (int x = 0; x < f->blocks; x++)
        for (int i = 0; i < f->m; i++) {
            for (int k = 0; k < f->k; k++) {
                struct variables v = {i, i, k, x};
                uint64_t n = random_number(ta, &seed);
                a[x][i][k] = number(n, ta);
                int reg = place(f->reg[0], &v, &bit);
                put(memory[0], reg, bit, evaluate(f->lane[0], &v), n, type_bits(ta));
                n = random_number(tb, &seed);
                b[x][k][i] = number(n, tb);
                reg = place(f->reg[1], &v, &bit);
                put(memory[2], reg, bit, evaluate(f->lane[1], &v), n, type_bits(tb));
            }
            for (int j = 0; j < f->n; j++) {
                struct variables v = {i, j, 0, x};
                uint64_t n = td[0] == 'i' ? (seed = seed * 25214903917ull + 11, seed >> 40)
                                          : random_number(td, &seed);
                c[x][i][j] = td[0] == 'i' ? (double)(int32_t)n : number(n, td);
                int reg = place(f->reg[2], &v, &bit);
                put(memory[4], reg, bit, evaluate(f->lane[2], &v), n, type_bits(td));
            }
        }
}

/* Which block's A block x reads, and which column's block and lane of B: as cbsz, abid and blgp
 * ask. */
struct modifiers {
    unsigned cbsz, abid, blgp;
    bool agprs, constant;
};

static int a_of(const struct modifiers *mod, int block)
{
    return (block >> mod->cbsz << mod->cbsz) + (mod->cbsz ? (int)mod->abid : 0);
}

static void compare(const struct form *f, const struct modifiers *mod, const char *td)
{
    double relative = td[0] == 'i' ? 0 : !strcmp(td, "f64") ? 0x1p-48 : 0x1p-20;
    int bit;
    for (int x = 0; x < f->blocks; x++)
        for (int i = 0; i < f->m; i++)
            for (int j = 0; j < f->n; j++) {
                struct variables v = {i, j, 0, x};
                int reg = place(f->reg[2], &v, &bit), lane = evaluate(f->lane[2], &v);
                uint64_t raw = result[reg][lane];
                if (!strcmp(td, "f64"))
                    raw |= (uint64_t)result[reg + 1][lane] << 32;
                double got = td[0] == 'i' ? (double)(int32_t)raw : number(raw, td);
                double want = mod->constant ? (td[0] == 'i' ? 1 : 1.0) : c[x][i][j],
                       size = fabs(want);
                for (int k = 0; k < f->k; k++) {
                    double p = a[a_of(mod, x)][i][k] * b[x][k][j];
                    want += p;
                    size += fabs(p);
                }
                if (fabs(got - want) > relative * size)
                    fail_msg("%s%s cbsz %u: block %d, (%d, %d): %.9g, not %.9g", f->name,
                             mod->agprs ? " in AGPRs" : "", mod->cbsz, x, i, j, got, want);
            }
}

static void run(struct device *d, const struct form *f, const struct modifiers *mod)
{
    unsigned op = 0;
    while (op < VA_OP_COUNT && strcmp(va_rows[op].name, f->name) != 0)
        op++;
    if (op == VA_OP_COUNT)
        fail_msg("%s: not in the table", f->name);
    unsigned base_c = mod->constant ? (strstr(f->name, "_i32") ? 129u : 242u) : 256 + 8;
    uint32_t words[2] = {0xd3800000u | (uint32_t)va_rows[op].opcode << 16 |
                             (uint32_t)mod->agprs << 15 | mod->abid << 11 | mod->cbsz << 8 | 40,
                         (256 + 2) | (256 + 4) << 9 | base_c << 18 | mod->blgp << 29};
    const char *name = mod->agprs ? "matrix_a" : "matrix_v";
    uint32_t *text = (uint32_t *)(uintptr_t)(d->image + vl_code_kernel(d->object, name)->entry);
    while (text[0] != 0xbf80000f || text[1] != 0xbf80000f)
        text++;
    memcpy(text, words, 8);
    va_code_release(d->code);
    d->code = va_code_create(d->image + d->object->text_at, d->object->text_size & ~3ull);
    uint64_t args[2] = {device_upload(d, memory, sizeof memory), device_alloc(d, sizeof result)};
    device_run_clean(d, name, 1, 64, args, sizeof args);
    assert_int_equal(d->counters.mfma_flops, 2ull * (unsigned)(f->m * f->n * f->k * f->blocks));
    memcpy(result, (void *)(uintptr_t)args[1], sizeof result);
    memcpy(text, (uint32_t[]){0xbf80000f, 0xbf80000f}, 8);
    vc_free(d->map, args[0]);
    vc_free(d->map, args[1]);
}

static void check(struct device *d, const struct form *f)
{
    /* v_mfma_D_MxNxK[_blocks]_A[_B] */
    char td[8], ta[8], tb[8], copy[64];
    snprintf(copy, sizeof copy, "%s", f->name);
    sscanf(copy, "v_mfma_%7[^_]", td);
    char *last = strrchr(copy, '_');
    snprintf(tb, sizeof tb, "%s", last + 1);
    *last = 0;
    last = strrchr(copy, '_') + 1;
    snprintf(ta, sizeof ta, "%s", !strcmp(last, "fp8") || !strcmp(last, "bf8") ? last : tb);
    fill(f, ta, tb, td);
    for (int agprs = 0; agprs < 2; agprs++) {
        struct modifiers mod = {.agprs = agprs};
        run(d, f, &mod);
        compare(f, &mod, td);
    }
    struct modifiers constant = {.constant = true};
    run(d, f, &constant);
    compare(f, &constant, td);
    if (f->broadcast_a) {
        struct modifiers mod = {.cbsz = 1, .abid = 1};
        run(d, f, &mod);
        compare(f, &mod, td);
    }
}

/* ---- the file ---- */

static bool text_after(const char *line, const char *key, char *to)
{
    const char *p = strstr(line, key);
    if (!p)
        return false;
    snprintf(to, 96, "%s", p + strlen(key));
    to[strcspn(to, "\n")] = 0;
    return true;
}

static void test_layouts(void **state)
{
    (void)state;
    char line[512];
    unsigned checked = 0, sparse = 0;
    struct form f = {0};
    /* Every form stores 32 registers of D: some it has not written. */
    struct device d = {.checks = VA_CHECK_BOUNDS | VA_CHECK_WAITS};
    FILE *file = fopen(layouts, "r");
    if (!file)
        fail_msg("%s: cannot be opened", layouts);
    device_load(&d, folder, "matrix.co");
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "v_smfmac", 8)) {
            sparse++;
            f.name[0] = 0;
        } else if (!strncmp(line, "v_mfma", 6)) {
            memset(&f, 0, sizeof f);
            char cbsz[8], blgp[8];
            int n = sscanf(line,
                           "%63s opcode %*s M %d N %d K %d blocks %d cycles %*d GPRs A %d B %d C "
                           "%d D %*d cbsz/abid %7s "
                           "blgp %7s",
                           f.name, &f.m, &f.n, &f.k, &f.blocks, &f.wa, &f.wb, &f.wc, cbsz, blgp);
            assert_int_equal(n, 10);
            f.broadcast_a = !strcmp(cbsz, "True");
            f.broadcast_b = !strcmp(blgp, "True");
        } else if (f.name[0]) {
            text_after(line, "A[i][k] GPR: ", f.reg[0]);
            text_after(line, "A[i][k] Lane: ", f.lane[0]);
            text_after(line, "B[k][j] GPR: ", f.reg[1]);
            text_after(line, "B[k][j] Lane: ", f.lane[1]);
            text_after(line, "D[i][j] GPR: ", f.reg[2]);
            if (text_after(line, "D[i][j] Lane: ", f.lane[2])) {
                check(&d, &f);
                checked++;
            }
        }
    }
    fclose(file);
    device_close(&d);
    printf("%u dense forms checked; %u sparse ones are not implemented\n", checked, sparse);
    assert_int_equal(checked, 32);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layouts)};
    folder = argc > 1 ? argv[1] : ".";
    layouts = argc > 2 ? argv[2] : "mfma-layouts.txt";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
