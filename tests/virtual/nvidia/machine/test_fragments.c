/* Which lane holds which element of a matrix, written down once more from reference/fragments.txt
 * (facts of the PTX ISA): each map below is one of its lines. Matrices of small integers, whose
 * sums are exact in any order, are dealt out to the lanes by the map, multiplied, collected by it,
 * and compared with the product. */
#include "kit.h"

struct cell {
    int row, col;
};
typedef struct cell (*map_fn)(int g, int t, int i);

#define MAP(name, r, c)                                                                            \
    static struct cell name(int g, int t, int i)                                                   \
    {                                                                                              \
        (void)g, (void)t, (void)i;                                                                 \
        return (struct cell){r, c};                                                                \
    }
MAP(a_m16n8k16_16, i == 0 || i == 1 || i == 4 || i == 5 ? g : g + 8,
    2 * t + (i & 1) + (i >= 4 ? 8 : 0))
MAP(b_m16n8k16_16, 2 * t + (i & 1) + (i >= 2 ? 8 : 0), g)
MAP(c_m16n8, i < 2 ? g : g + 8, 2 * t + (i & 1))
MAP(a_m16n8k8_16, i < 2 ? g : g + 8, 2 * t + (i & 1))
MAP(b_m16n8k8_16, 2 * t + i, g)
MAP(a_m16n8k4, i == 0 ? g : g + 8, t)
MAP(b_m16n8k4, t, g)
MAP(a_m16n8k8_tf32, i == 0 || i == 2 ? g : g + 8, i < 2 ? t : t + 4)
MAP(b_m16n8k8_tf32, i == 0 ? t : t + 4, g)
MAP(a_m16n8k16_8, i < 4 ? g : g + 8, 4 * t + (i & 3))
MAP(b_m16n8k16_8, 4 * t + (i & 3), g)
MAP(a_m16n8k32_8, i < 4 || (i >= 8 && i < 12) ? g : g + 8, 4 * t + (i & 3) + (i >= 8 ? 16 : 0))
MAP(b_m16n8k32_8, 4 * t + (i & 3) + (i >= 4 ? 16 : 0), g)
MAP(a_m8n8k16_8, g, 4 * t + i)
MAP(b_m8n8k16_8, 4 * t + i, g)
MAP(c_m8n8, g, 2 * t + i)
MAP(a_m8n8k4_f64, g, t)
MAP(b_m8n8k4_f64, t, g)

static const struct shape {
    const char *name, *types; /* of d, a, b and c */
    int m, n, k, bits, out;   /* bits of an element of a and b, and of c */
    map_fn a, b, c;
} shapes[] = {
    {"m16n8k16", "f32.f16.f16.f32", 16, 8, 16, 16, 32, a_m16n8k16_16, b_m16n8k16_16, c_m16n8},
    {"m16n8k16", "f16.f16.f16.f16", 16, 8, 16, 16, 16, a_m16n8k16_16, b_m16n8k16_16, c_m16n8},
    {"m16n8k16", "f32.bf16.bf16.f32", 16, 8, 16, 16, 32, a_m16n8k16_16, b_m16n8k16_16, c_m16n8},
    {"m16n8k8", "f32.f16.f16.f32", 16, 8, 8, 16, 32, a_m16n8k8_16, b_m16n8k8_16, c_m16n8},
    {"m16n8k8", "f32.bf16.bf16.f32", 16, 8, 8, 16, 32, a_m16n8k8_16, b_m16n8k8_16, c_m16n8},
    {"m16n8k4", "f32.tf32.tf32.f32", 16, 8, 4, 32, 32, a_m16n8k4, b_m16n8k4, c_m16n8},
    {"m16n8k8", "f32.tf32.tf32.f32", 16, 8, 8, 32, 32, a_m16n8k8_tf32, b_m16n8k8_tf32, c_m16n8},
    {"m16n8k16", "s32.s8.s8.s32", 16, 8, 16, 8, 32, a_m16n8k16_8, b_m16n8k16_8, c_m16n8},
    {"m16n8k16", "s32.u8.s8.s32", 16, 8, 16, 8, 32, a_m16n8k16_8, b_m16n8k16_8, c_m16n8},
    {"m16n8k16", "f32.e4m3.e4m3.f32", 16, 8, 16, 8, 32, a_m16n8k16_8, b_m16n8k16_8, c_m16n8},
    {"m16n8k32", "s32.s8.s8.s32", 16, 8, 32, 8, 32, a_m16n8k32_8, b_m16n8k32_8, c_m16n8},
    {"m16n8k32", "s32.s8.u8.s32", 16, 8, 32, 8, 32, a_m16n8k32_8, b_m16n8k32_8, c_m16n8},
    {"m16n8k32", "f32.e4m3.e5m2.f32", 16, 8, 32, 8, 32, a_m16n8k32_8, b_m16n8k32_8, c_m16n8},
    {"m16n8k32", "f32.e5m2.e4m3.f32", 16, 8, 32, 8, 32, a_m16n8k32_8, b_m16n8k32_8, c_m16n8},
    {"m8n8k16", "s32.s8.s8.s32", 8, 8, 16, 8, 32, a_m8n8k16_8, b_m8n8k16_8, c_m8n8},
    {"m8n8k16", "s32.u8.u8.s32", 8, 8, 16, 8, 32, a_m8n8k16_8, b_m8n8k16_8, c_m8n8},
    {"m8n8k4", "f64.f64.f64.f64", 8, 8, 4, 64, 64, a_m8n8k4_f64, b_m8n8k4_f64, c_m8n8},
    {"m16n8k4", "f64.f64.f64.f64", 16, 8, 4, 64, 64, a_m16n8k4, b_m16n8k4, c_m16n8},
};

/* The bits of a small integer, -4 to 4, in a type. */
static uint64_t encode(const char *type, int v)
{
    static const uint8_t e4m3[] = {0, 0x38, 0x40, 0x44, 0x48}, e5m2[] = {0, 0x3c, 0x40, 0x42, 0x44};
    static const uint16_t f16[] = {0, 0x3c00, 0x4000, 0x4200, 0x4400};
    double d = v;
    float f = (float)v;
    uint32_t single, sign = v < 0, size = (uint32_t)abs(v);
    uint64_t wide;
    memcpy(&single, &f, 4);
    memcpy(&wide, &d, 8);
    return !strcmp(type, "e4m3")              ? e4m3[size] | sign << 7
           : !strcmp(type, "e5m2")            ? e5m2[size] | sign << 7
           : !strcmp(type, "f16")             ? f16[size] | sign << 15
           : !strcmp(type, "bf16")            ? single >> 16
           : !strcmp(type, "f64")             ? wide
           : type[0] == 'f' || type[0] == 't' ? single
                                              : (uint32_t)v;
}

static double decode(const char *type, uint64_t bits)
{
    float f;
    double d;
    uint32_t low = (uint32_t)bits;
    memcpy(&f, &low, 4);
    memcpy(&d, &bits, 8);
    if (!strcmp(type, "f16")) { /* integers up to 2048 */
        int e = (int)(bits >> 10 & 31) - 25;
        double m = (double)((bits & 0x3ff) | 0x400) * (e < 0 ? 1.0 / (1 << -e) : (double)(1 << e));
        return !(bits & 0x7fff) ? 0 : bits & 0x8000 ? -m : m;
    }
    return !strcmp(type, "f64") ? d : type[0] == 'f' ? f : (double)(int32_t)low;
}

static uint64_t seed = 1;
static int small(bool positive)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    int v = (int)(seed >> 40) % 9;
    return positive ? v % 5 : v - 4;
}

/* Puts or gets element i of lane's fragment, `bits` wide, side by side from the low bits on. */
static void deal(uint8_t *fragments, int per_lane, int lane, int i, int bits, uint64_t value)
{
    memcpy(fragments + (lane * per_lane + i) * bits / 8, &value, (size_t)bits / 8);
}
static uint64_t collect(const uint8_t *fragments, int per_lane, int lane, int i, int bits)
{
    uint64_t v = 0;
    memcpy(&v, fragments + (lane * per_lane + i) * bits / 8, (size_t)bits / 8);
    return v;
}

/* Code that moves a lane's fragment between registers and memory. */
static size_t move_fragment(char *text, size_t n, const char *op, char name, int bytes, bool wide)
{
    int unit = wide ? 8 : 4;
    n += (size_t)sprintf(text + n, "mul.wide.u32 t, i, %d; add.u64 t, %c, t;\n", bytes, name);
    for (int k = 0; k < bytes / unit; k++) {
        if (op[0] == 'l')
            n += (size_t)sprintf(text + n, "ld.global.b%d r%c%d, [t + %d];\n", unit * 8, name, k,
                                 k * unit);
        else
            n += (size_t)sprintf(text + n, "st.global.b%d [t + %d], r%c%d;\n", unit * 8, k * unit,
                                 name, k);
    }
    return n;
}

static size_t list(char *text, size_t n, char name, int count)
{
    for (int k = 0; k < count; k++)
        n += (size_t)sprintf(text + n, "%sr%c%d", k ? ", " : "{", name, k);
    return n + (size_t)sprintf(text + n, "}");
}

static void product(const struct shape *s)
{
    static int a[16][32], b[32][8], c[16][8];
    char types[4][8], *at, text[8000], copy[64];
    snprintf(copy, sizeof copy, "%s", s->types);
    at = strtok(copy, ".");
    for (int k = 0; k < 4; k++, at = strtok(NULL, "."))
        snprintf(types[k], sizeof types[k], "%s", at);
    int na = s->m * s->k / 32, nb = s->k * s->n / 32, nc = s->m * s->n / 32;
    int bytes[3] = {na * s->bits / 8, nb * s->bits / 8, nc * s->out / 8};
    bool wide = s->bits == 64;
    size_t n = (size_t)sprintf(
        text,
        ".version 8.7\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 pa, .param "
        ".u64 "
        "pb, .param .u64 pc) {\n.reg .b64 a, b, c, t; .reg .b32 i; .reg .b%d ra<8>, rb<8>, "
        "rc<8>;\nld.param.u64 a, [pa]; ld.param.u64 b, [pb]; ld.param.u64 c, [pc]; mov.u32 i, "
        "%%tid.x;\n",
        wide ? 64 : 32);
    for (int k = 0; k < 3; k++)
        n = move_fragment(text, n, "ld", "abc"[k], bytes[k], wide);
    n += (size_t)sprintf(text + n, "mma.sync.aligned.%s.row.col.%s ", s->name, s->types);
    for (int k = 0; k < 4; k++) {
        n = list(text, n, "cabc"[k], bytes[(k + 2) % 3] / (wide ? 8 : 4));
        n += (size_t)sprintf(text + n, "%s", k < 3 ? ", " : ";\n");
    }
    n = move_fragment(text, n, "st", 'c', bytes[2], wide);
    sprintf(text + n, "ret; }\n");
    uint8_t fa[2048], fb[2048], fc[2048];
    for (int i = 0; i < s->m * s->k; i++)
        a[i / s->k][i % s->k] = small(types[1][0] == 'u');
    for (int i = 0; i < s->k * s->n; i++)
        b[i / s->n][i % s->n] = small(types[2][0] == 'u');
    for (int i = 0; i < s->m * s->n; i++)
        c[i / s->n][i % s->n] = small(false);
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < na; i++) {
            struct cell p = s->a(l / 4, l % 4, i);
            deal(fa, na, l, i, s->bits, encode(types[1], a[p.row][p.col]));
        }
        for (int i = 0; i < nb; i++) {
            struct cell p = s->b(l / 4, l % 4, i);
            deal(fb, nb, l, i, s->bits, encode(types[2], b[p.row][p.col]));
        }
        for (int i = 0; i < nc; i++) {
            struct cell p = s->c(l / 4, l % 4, i);
            deal(fc, nc, l, i, s->out, encode(types[3], c[p.row][p.col]));
        }
    }
    struct kit kit;
    kit_open(&kit, text);
    uint64_t pa = kit_buffer(&kit, (size_t)bytes[0] * 32, fa),
             pb = kit_buffer(&kit, (size_t)bytes[1] * 32, fb),
             pc = kit_buffer(&kit, (size_t)bytes[2] * 32, fc);
    assert_int_equal(KIT_RUN(&kit, "k", 1, 32, pa, pb, pc), VN_OK);
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < nc; i++) {
            struct cell p = s->c(l / 4, l % 4, i);
            int want = c[p.row][p.col];
            for (int k = 0; k < s->k; k++)
                want += a[p.row][k] * b[k][p.col];
            double got = decode(types[0], collect(kit_host(pc), nc, l, i, s->out));
            if (got != want)
                fail_msg("%s.%s: lane %d, element %d, row %d, column %d: %g, not %d", s->name,
                         s->types, l, i, p.row, p.col, got, want);
        }
    }
    kit_close(&kit);
}

static void products(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        product(&shapes[i]);
}

/* ldmatrix: the address of row r of matrix m comes from lane 8m + r; lane l receives row l / 4,
 * columns 2(l % 4) and + 1; .trans: rows 2(l % 4) and + 1, column l / 4. stmatrix is the same map
 * backwards. */
static void rows_of_eight(void **state)
{
    (void)state;
    for (int kind = 0; kind < 12; kind++) {
        bool store = kind >= 6, trans = kind % 2;
        int count = 1 << kind / 2 % 3;
        char text[4000], regs[64] = "";
        for (int k = 0; k < count; k++)
            sprintf(regs + strlen(regs), "%sx%d", k ? ", " : "{", k);
        size_t n = (size_t)sprintf(
            text, PTX_HEAD ".visible .entry k(.param .u64 p, .param .u64 q) {\n.reg .b64 a, b, t; "
                           ".reg .b32 i, z, y, x<4>; .shared .align 16 .b8 s[512];\nld.param.u64 "
                           "a, [p]; ld.param.u64 b, [q]; mov.u32 i, %%tid.x; mul.lo.u32 y, i, 16; "
                           "mul.wide.u32 t, i, 16; mov.u32 z, s; add.u32 z, z, y;\n");
        if (!store) /* from rows in shared memory to registers */
            n += (size_t)sprintf(text + n,
                                 "add.u64 a, a, t; add.u64 b, b, t; ld.global.v4.b32 {x0, x1, x2, "
                                 "x3}, [a]; st.shared.v4.b32 [z], {x0, x1, x2, x3}; "
                                 "bar.warp.sync -1;\nldmatrix.sync.aligned.m8n8.x%d%s.shared.b16 "
                                 "%s}, [z];\n st.global.v4.b32 [b], {x0, x1, x2, x3}; ret; }\n",
                                 count, trans ? ".trans" : "", regs);
        else
            n += (size_t)sprintf(text + n,
                                 "add.u64 a, a, t; add.u64 b, b, t; ld.global.v4.b32 {x0, x1, x2, "
                                 "x3}, [a]; st.shared.v4.b32 [z], {x0, x1, x2, x3}; bar.warp.sync "
                                 "-1;\nstmatrix.sync.aligned.m8n8.x%d%s.shared.b16 [z], %s};\n"
                                 "bar.warp.sync -1; ld.shared.v4.b32 {x0, x1, x2, x3}, [z]; "
                                 "st.global.v4.b32 [b], {x0, x1, x2, x3}; ret; }\n",
                                 count, trans ? ".trans" : "", regs);
        /* in: 32 rows of eight 16-bit elements, or 32 lanes of four registers */
        uint16_t in[256], zero[256] = {0};
        for (int k = 0; k < 256; k++)
            in[k] = (uint16_t)(k * 257 + 11);
        struct kit kit;
        kit_open(&kit, text);
        uint64_t a = kit_buffer(&kit, 512, in), b = kit_buffer(&kit, 512, zero);
        assert_int_equal(KIT_RUN(&kit, "k", 1, 32, a, b), VN_OK);
        const uint16_t *out = kit_host(b);
        for (int l = 0; l < 32; l++) {
            for (int m = 0; m < count; m++) {
                for (int h = 0; h < 2; h++) {
                    int row = trans ? 2 * (l % 4) + h : l / 4,
                        col = trans ? l / 4 : 2 * (l % 4) + h;
                    int memory = (8 * m + row) * 8 + col, registers = l * 8 + 2 * m + h;
                    uint16_t got = store ? out[memory] : out[registers];
                    uint16_t want = store ? in[registers] : in[memory];
                    if (got != want)
                        fail_msg("%s.x%d%s: lane %d, matrix %d, half %d: %04x, not %04x",
                                 store ? "stmatrix" : "ldmatrix", count, trans ? ".trans" : "", l,
                                 m, h, got, want);
                }
            }
        }
        kit_close(&kit);
    }
}

/* movmatrix: lane l's pair of row l / 4 becomes its pair of the transposed matrix. */
static void transposed(void **state)
{
    (void)state;
    struct kit kit;
    uint16_t in[64];
    for (int k = 0; k < 64; k++)
        in[k] = (uint16_t)(k * 521 + 3);
    kit_open(&kit, PTX_HEAD
             ".visible .entry k(.param .u64 p) {\n.reg .b64 a, t; .reg .b32 i, x;\n"
             "ld.param.u64 a, [p]; mov.u32 i, %tid.x; mul.wide.u32 t, i, 4; add.u64 a, a, t; "
             "ld.global.b32 x, [a]; movmatrix.sync.aligned.m8n8.trans.b16 x, x; st.global.b32 "
             "[a], x; ret; }\n");
    uint64_t a = kit_buffer(&kit, 128, in);
    assert_int_equal(KIT_RUN(&kit, "k", 1, 32, a), VN_OK);
    const uint16_t *out = kit_host(a);
    for (int k = 0; k < 64; k++)
        assert_int_equal(out[k], in[k % 8 * 8 + k / 8]);
    kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(rows_of_eight),
        cmocka_unit_test(transposed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
