/*
 * dots.c: few rows times a matrix whose weights are read once, in place: what decode does.
 * Lanes are stripes. A row of weights is one stream; it serves up to TOKENS rows of activations,
 * whose stripes fill the registers.
 */
#include "../product.h"
#include "simd.h"

#ifdef __AVX512F__
#define TOKENS 4
#else
#define TOKENS 1
#endif

/* The last in % 64 terms; absent ones are +0 on both sides. */
static inline __attribute__((always_inline)) void add_tail(const struct weight_row *row, int tokens,
                                                           const float *const *x, int64_t in,
                                                           vf a[TOKENS][STEP])
{
    int64_t k = in / STRIPES * STRIPES;
    float w[STRIPES] = {0}, padded[STRIPES] = {0};
    decode_columns(row, k, in - k, w);
    for (int t = 0; t < tokens; t++) {
        memcpy(padded, x[t] + k, (size_t)(in - k) * 4);
        for (int j = 0; j < STEP; j++)
            a[t][j] = v_fma(v_load(padded + LANES * j), v_load(w + LANES * j), a[t][j]);
    }
}

/* False: this row needs FP8's general path. */
static inline __attribute__((always_inline)) bool dot_row(mh_format format, int tokens,
                                                          const struct weight_row *row,
                                                          const float *const *x, int64_t in,
                                                          float *out)
{
    vf a[TOKENS][STEP], scale = v_zero();
    vi most = v_set1i(0);
    bool plain = true;
    for (int t = 0; t < tokens; t++)
        for (int j = 0; j < STEP; j++)
            a[t][j] = v_zero();
    for (int64_t k = 0; k + STRIPES <= in; k += STRIPES) {
        if (format == MH_FORMAT_FP8) {
            float s;
            memcpy(&s, row->scale + k / 128 * 4, 4);
            plain &= fabsf(s) < 0x1p8f;
            scale = v_set1(s * FP8_BIAS);
            most = fp8_most(most, row->data + k);
        }
#pragma GCC unroll 8
        for (int j = 0; j < STEP; j++) {
            vf w = v_decode(format, row->data, k + LANES * j, scale);
            for (int t = 0; t < tokens; t++)
                a[t][j] = v_fma(v_load(x[t] + k + LANES * j), w, a[t][j]);
        }
    }
    if (in % STRIPES)
        add_tail(row, tokens, x, in, a);
    for (int t = 0; t < tokens; t++)
        out[t * STRETCH] = v_fold(a[t]);
    return format != MH_FORMAT_FP8 || (plain && !fp8_has_nan(most));
}

static inline __attribute__((always_inline)) void dot_rows(mh_format format, int tokens,
                                                           const struct matrix *m, int64_t begin,
                                                           int64_t count, const float *const *x,
                                                           float (*out)[STRETCH])
{
    for (int64_t o = 0; o < count; o++) {
        struct weight_row row = weight_row(m->w, m->slot, m->first + begin + o);
        if (dot_row(format, tokens, &row, x, m->in, &out[0][o]))
            continue;
        for (int t = 0; t < tokens; t++)
            out[t][o] = dot_weight(&row, x[t], m->in);
    }
}

#define FOR_TOKENS(tokens)                                                                         \
    static void dots_##tokens(const struct matrix *m, int64_t begin, int64_t count,                \
                              const float *const *x, float(*out)[STRETCH])                         \
    {                                                                                              \
        switch (m->w->format) {                                                                    \
        case MH_FORMAT_F32:                                                                        \
            dot_rows(MH_FORMAT_F32, tokens, m, begin, count, x, out);                              \
            break;                                                                                 \
        case MH_FORMAT_BF16:                                                                       \
            dot_rows(MH_FORMAT_BF16, tokens, m, begin, count, x, out);                             \
            break;                                                                                 \
        case MH_FORMAT_F16:                                                                        \
            dot_rows(MH_FORMAT_F16, tokens, m, begin, count, x, out);                              \
            break;                                                                                 \
        default:                                                                                   \
            dot_rows(MH_FORMAT_FP8, tokens, m, begin, count, x, out);                              \
        }                                                                                          \
    }
FOR_TOKENS(1)
#if TOKENS > 1
FOR_TOKENS(2)
FOR_TOKENS(4)
#endif

void K(dots)(const struct matrix *m, int64_t begin, int64_t count, const float *const *x,
             int64_t rows, float (*out)[STRETCH])
{
#if TOKENS > 1
    for (; rows >= 4; rows -= 4, x += 4, out += 4)
        dots_4(m, begin, count, x, out);
    for (; rows >= 2; rows -= 2, x += 2, out += 2)
        dots_2(m, begin, count, x, out);
#endif
    for (; rows; rows--, x++, out++)
        dots_1(m, begin, count, x, out);
}
