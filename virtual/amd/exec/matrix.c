/* Matrix operations: D = A * B + C, dense. Element (i, j) of D lies in lane (i / 4 of the rows in
 * turn) + j, so that a row of D is a run of lanes of one register; see mfma-layouts.txt. */
#include "lanes.h"

bool VA_NAME(bind_matrix)(struct va_insn *insn);

enum element { E_F32, E_XF32, E_F16, E_BF16, E_I8, E_FP8, E_BF8, E_F64 };

struct form {
    uint16_t op;
    uint8_t m, n, k, blocks;
    uint8_t a, b; /* enum element */
};

#define F(name, m, n, k, blocks, a, b)                                                             \
    {                                                                                              \
        VA_VOP3P_v_mfma_##name, m, n, k, blocks, a, b                                              \
    }
static const struct form forms[] = {
    F(f32_16x16x8_xf32, 16, 16, 8, 1, E_XF32, E_XF32),
    F(f32_32x32x4_xf32, 32, 32, 4, 1, E_XF32, E_XF32),
    F(f32_32x32x1_2b_f32, 32, 32, 1, 2, E_F32, E_F32),
    F(f32_16x16x1_4b_f32, 16, 16, 1, 4, E_F32, E_F32),
    F(f32_4x4x1_16b_f32, 4, 4, 1, 16, E_F32, E_F32),
    F(f32_32x32x2_f32, 32, 32, 2, 1, E_F32, E_F32),
    F(f32_16x16x4_f32, 16, 16, 4, 1, E_F32, E_F32),
    F(f32_32x32x4_2b_f16, 32, 32, 4, 2, E_F16, E_F16),
    F(f32_16x16x4_4b_f16, 16, 16, 4, 4, E_F16, E_F16),
    F(f32_4x4x4_16b_f16, 4, 4, 4, 16, E_F16, E_F16),
    F(f32_32x32x8_f16, 32, 32, 8, 1, E_F16, E_F16),
    F(f32_16x16x16_f16, 16, 16, 16, 1, E_F16, E_F16),
    F(i32_32x32x4_2b_i8, 32, 32, 4, 2, E_I8, E_I8),
    F(i32_16x16x4_4b_i8, 16, 16, 4, 4, E_I8, E_I8),
    F(i32_4x4x4_16b_i8, 4, 4, 4, 16, E_I8, E_I8),
    F(i32_32x32x16_i8, 32, 32, 16, 1, E_I8, E_I8),
    F(i32_16x16x32_i8, 16, 16, 32, 1, E_I8, E_I8),
    F(f32_32x32x4_2b_bf16, 32, 32, 4, 2, E_BF16, E_BF16),
    F(f32_16x16x4_4b_bf16, 16, 16, 4, 4, E_BF16, E_BF16),
    F(f32_4x4x4_16b_bf16, 4, 4, 4, 16, E_BF16, E_BF16),
    F(f32_32x32x8_bf16, 32, 32, 8, 1, E_BF16, E_BF16),
    F(f32_16x16x16_bf16, 16, 16, 16, 1, E_BF16, E_BF16),
    F(f64_16x16x4_f64, 16, 16, 4, 1, E_F64, E_F64),
    F(f64_4x4x4_4b_f64, 4, 4, 4, 4, E_F64, E_F64),
    F(f32_16x16x32_bf8_bf8, 16, 16, 32, 1, E_BF8, E_BF8),
    F(f32_16x16x32_bf8_fp8, 16, 16, 32, 1, E_BF8, E_FP8),
    F(f32_16x16x32_fp8_bf8, 16, 16, 32, 1, E_FP8, E_BF8),
    F(f32_16x16x32_fp8_fp8, 16, 16, 32, 1, E_FP8, E_FP8),
    F(f32_32x32x16_bf8_bf8, 32, 32, 16, 1, E_BF8, E_BF8),
    F(f32_32x32x16_bf8_fp8, 32, 32, 16, 1, E_BF8, E_FP8),
    F(f32_32x32x16_fp8_bf8, 32, 32, 16, 1, E_FP8, E_BF8),
    F(f32_32x32x16_fp8_fp8, 32, 32, 16, 1, E_FP8, E_FP8),
};
#undef F

/* blgp: which lanes of B are read, for those forms that take it (not f64, where it is signs). */
static int b_lane(unsigned pattern, int l)
{
    switch (pattern) {
    case 0:
        return l;
    case 1: /* the first 32 lanes to all */
        return l & 31;
    case 2:
        return 32 | (l & 31);
    case 3: /* rotated by 16 */
        return (l + 16) & 63;
    default: /* 16 lanes to all */
        return (int)(pattern - 4) * 16 + (l & 15);
    }
}

/* The block whose A is read by block b. */
static unsigned a_block(const struct va_insn *i, unsigned b)
{
    unsigned group = 1u << i->abs; /* cbsz */
    return i->abs ? b / group * group + i->opsel % group : b;
}

static unsigned per_register(enum element e)
{
    return e == E_F16 || e == E_BF16 ? 2 : e == E_I8 || e == E_FP8 || e == E_BF8 ? 4 : 1;
}

/* Values of k that one lane holds: A and B are spread over 64 / (rows * blocks) groups of lanes. */
static unsigned k_of_lane(const struct form *f, unsigned rows)
{
    return f->k * rows * f->blocks / VA_LANES;
}

static float element(const uint32_t *r, unsigned l, unsigned part, enum element e)
{
    uint32_t v = r[l];
    switch (e) {
    case E_F16:
        return half_value(v >> 16 * part & 0xffff);
    case E_BF16:
        return float_of(part ? v & 0xffff0000 : v << 16);
    case E_FP8:
        return fp8_value(v >> 8 * part & 255, 4);
    case E_BF8:
        return fp8_value(v >> 8 * part & 255, 5);
    case E_XF32: { /* 8 bits of exponent, 10 of mantissa, to nearest even */
        uint32_t u = (v + 0xfff + (v >> 13 & 1)) & 0xffffe000;
        return float_of((v & 0x7f800000) == 0x7f800000 ? v : u);
    }
    default:
        return float_of(v);
    }
}

/* All of one operand as rows of 64 lanes, one for each k of a lane. */
static void expand(const uint32_t *r, unsigned count, enum element e, float (*to)[VA_LANES])
{
    unsigned per = per_register(e);
    for (unsigned k = 0; k < count; k++) {
        const uint32_t *from = r + k / per * VA_LANES;
        unsigned part = k % per;
        switch (e) {
        case E_BF16:
            FOR_LANES to[k][l] = float_of(part ? from[l] & 0xffff0000 : from[l] << 16);
            break;
        case E_F16:
            FOR_LANES to[k][l] = half_value(from[l] >> 16 * part & 0xffff);
            break;
        case E_F32:
            memcpy(to[k], from, sizeof to[k]);
            break;
        default:
            for (unsigned l = 0; l < VA_LANES; l++)
                to[k][l] = element(from, l, part, e);
        }
    }
}

/* d[0..n) += sum over k of a[k] * b[k][0..n), rounded at each step. */
VA_INLINE void add_products(float *d, const float *const *a, const float *const *b, unsigned count,
                            unsigned n)
{
#ifdef __AVX512F__
    if (n == 32) {
        __m512 x = _mm512_loadu_ps(d), y = _mm512_loadu_ps(d + 16);
        for (unsigned k = 0; k < count; k++) {
            __m512 s = _mm512_set1_ps(*a[k]);
            x = _mm512_fmadd_ps(s, _mm512_loadu_ps(b[k]), x);
            y = _mm512_fmadd_ps(s, _mm512_loadu_ps(b[k] + 16), y);
        }
        _mm512_storeu_ps(d, x);
        _mm512_storeu_ps(d + 16, y);
        return;
    }
    if (n == 16) {
        __m512 x = _mm512_loadu_ps(d);
        for (unsigned k = 0; k < count; k++)
            x = _mm512_fmadd_ps(_mm512_set1_ps(*a[k]), _mm512_loadu_ps(b[k]), x);
        _mm512_storeu_ps(d, x);
        return;
    }
#endif
    for (unsigned k = 0; k < count; k++)
        for (unsigned j = 0; j < n; j++)
            d[j] = __builtin_fmaf(*a[k], b[k][j], d[j]);
}

/* The register of row i of block b, and its first lane. */
VA_INLINE void row_place(const struct form *f, unsigned b, unsigned i, unsigned *reg,
                         unsigned *lane)
{
    if (f->m == 32) {
        *reg = 16 * b + 4 * (i / 8) + i % 4;
        *lane = 32 * (i / 4 % 2);
    } else if (f->m == 16) {
        *reg = 4 * b + i % 4;
        *lane = 16 * (i / 4);
    } else {
        *reg = i;
        *lane = 4 * b;
    }
}

static void copy_c(struct va_wave *w, const struct va_insn *i, uint32_t (*d)[VA_LANES],
                   bool is_float)
{
    if (i->c >= VA_V0) {
        memcpy(d, va_row(w, i->c), i->wd * sizeof d[0]);
        return;
    }
    uint32_t v = va_scalar(w, i, i->c);
    (void)is_float;
    for (unsigned k = 0; k < i->wd; k++)
        FOR_LANES d[k][l] = v;
}

static void run_float(struct va_wave *w, const struct va_insn *i)
{
    const struct form *f = i->form;
    unsigned ka = k_of_lane(f, f->m), kb = k_of_lane(f, f->n);
    _Alignas(64) float a[16][VA_LANES], b[16][VA_LANES];
    _Alignas(64) uint32_t d[32][VA_LANES];
    expand(va_row(w, i->a), ka, f->a, a);
    expand(va_row(w, i->b), kb, f->b, b);
    if (i->neg) {
        for (unsigned k = 0; k < kb; k++) {
            float t[VA_LANES];
            memcpy(t, b[k], sizeof t);
            for (int l = 0; l < VA_LANES; l++)
                b[k][l] = t[b_lane(i->neg, l)];
        }
    }
    copy_c(w, i, d, true);
    for (unsigned block = 0; block < f->blocks; block++) {
        unsigned from = a_block(i, block);
        for (unsigned r = 0; r < f->m; r++) {
            unsigned reg, lane;
            row_place(f, block, r, &reg, &lane);
            float *to = (float *)(void *)&d[reg][lane];
            const float *pa[32], *pb[32];
            for (unsigned k = 0; k < f->k; k++) {
                /* Groups of lanes hold runs of k; with blocks there is one run. */
                pa[k] = &a[k % ka][f->m * (f->blocks > 1 ? from : k / ka) + r];
                /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): no form has lanes without a k */
                pb[k] = b[k % kb] + f->n * (f->blocks > 1 ? block : k / kb);
            }
            add_products(to, pa, pb, f->k, f->n);
        }
    }
    memcpy(va_row(w, i->d), d, i->wd * sizeof d[0]);
}

static int32_t signed_byte(uint32_t word, unsigned at)
{
    return (int32_t)((word >> 8 * at & 255) ^ 128) - 128;
}

static void run_integer(struct va_wave *w, const struct va_insn *i)
{
    const struct form *f = i->form;
    unsigned ka = k_of_lane(f, f->m);
    _Alignas(64) uint32_t d[32][VA_LANES];
    const uint32_t *a = va_row(w, i->a), *b = va_row(w, i->b);
    copy_c(w, i, d, false);
    for (unsigned block = 0; block < f->blocks; block++) {
        unsigned from = a_block(i, block);
        for (unsigned r = 0; r < f->m; r++) {
            unsigned reg, lane;
            row_place(f, block, r, &reg, &lane);
            for (unsigned k = 0; k < f->k; k++) {
                unsigned group = k / ka, kk = k % ka;
                unsigned la = f->m * (f->blocks > 1 ? from : group) + r;
                int32_t x = signed_byte(a[kk / 4 * VA_LANES + la], kk % 4);
                for (unsigned j = 0; j < f->n; j++) {
                    unsigned lb = f->n * (f->blocks > 1 ? block : group) + j;
                    lb = (unsigned)b_lane(i->neg, (int)lb);
                    int32_t y = signed_byte(b[kk / 4 * VA_LANES + lb], kk % 4);
                    /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): copy_c filled it */
                    d[reg][lane + j] += (uint32_t)(x * y);
                }
            }
        }
    }
    if (i->clamp)
        va_not_implemented(w, i);
    memcpy(va_row(w, i->d), d, i->wd * sizeof d[0]);
}

VA_INLINE double pair(const uint32_t *r, unsigned l)
{
    return double_of(r[l] | (uint64_t)r[l + VA_LANES] << 32);
}

/* f64: 16x16x4 has (i, j) of D in pair i / 4 of lane 16 * (i % 4) + j, 4x4x4 in lane
 * 16 * i + 4 * block + j. */
static void run_double(struct va_wave *w, const struct va_insn *i)
{
    const struct form *f = i->form;
    const uint32_t *a = va_row(w, i->a), *b = va_row(w, i->b);
    _Alignas(64) uint32_t d[8][VA_LANES];
    bool big = f->m == 16;
    double sa = i->neg & 1 ? -1 : 1, sb = i->neg & 2 ? -1 : 1, sc = i->neg & 4 ? -1 : 1;
    double constant = i->c < VA_V0 ? double_of(va_scalar64(w, i, i->c, false)) : 0;
    for (unsigned block = 0; block < f->blocks; block++) {
        unsigned from = a_block(i, block);
        for (unsigned r = 0; r < f->m; r++) {
            for (unsigned j = 0; j < f->n; j++) {
                unsigned reg = big ? r / 4 : 0,
                         lane = big ? 16 * (r % 4) + j : 16 * r + 4 * block + j;
                double s = sc * (i->c < VA_V0 ? constant : pair(va_row(w, i->c + 2 * reg), lane));
                for (unsigned k = 0; k < f->k; k++) {
                    unsigned la = big ? 16 * k + r : 16 * k + 4 * from + r;
                    unsigned lb = big ? 16 * k + j : 16 * k + 4 * block + j;
                    s = __builtin_fma(sa * pair(a, la), sb * pair(b, lb), s);
                }
                d[2 * reg][lane] = (uint32_t)bits_of64(s);
                d[2 * reg + 1][lane] = (uint32_t)(bits_of64(s) >> 32);
            }
        }
    }
    memcpy(va_row(w, i->d), d, i->wd * sizeof d[0]);
}

static void run_matrix(struct va_wave *w, const struct va_insn *i)
{
    const struct form *f = i->form;
    w->worker->mfma_flops += 2ull * f->m * f->n * f->k * f->blocks;
    if (f->a == E_I8)
        run_integer(w, i);
    else if (f->a == E_F64)
        run_double(w, i);
    else
        run_float(w, i);
}

bool VA_NAME(bind_matrix)(struct va_insn *i)
{
    i->class = VA_CLASS_MFMA;
    for (size_t k = 0; k < sizeof forms / sizeof forms[0]; k++) {
        if (forms[k].op != i->op)
            continue;
        i->form = &forms[k];
        i->run = run_matrix;
        /* Broadcasts of A only where there are blocks, and among those that exist. */
        bool wide = 1u << i->abs > forms[k].blocks;
        return !(i->abs && wide);
    }
    return false;
}
