/*
 * in_place.h: weights that are read where they lie, and the inputs they meet: dots.c, block.c.
 * Lanes are stripes.
 */
#ifndef HOST_IN_PLACE_H
#define HOST_IN_PLACE_H

#include "../panel.h"
#include "simd.h"

/* AVX-512's inputs are laid out by K(order): in each term the parts of v_decode_part, padded to
 * whole stripes. AVX2's are as they are. Terms past the end are +0. */
static inline __attribute__((always_inline)) vf input_at(const float *x, int64_t in, int64_t term,
                                                         int part)
{
#ifndef __AVX512F__
    if ((term + 1) * STRIPES > in) {
        float padded[STRIPES] = {0};
        memcpy(padded, x + term * STRIPES, (size_t)(in - term * STRIPES) * 4);
        return v_load(padded + part * LANES);
    }
#else
    (void)in;
#endif
    return v_load(x + term * STRIPES + part * LANES);
}

/* Of 64 columns in their order those of the parts. */
static inline void place_parts(mh_format format, const float *x, vf to[STEP])
{
#ifdef __AVX512F__
    const vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const vi odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    for (int half = 0; by_pairs(format) && half < 2; half++) {
        vf a = v_load(x + 32 * half), b = v_load(x + 32 * half + 16);
        to[2 * half] = _mm512_permutex2var_ps(a, even, b);
        to[2 * half + 1] = _mm512_permutex2var_ps(a, odd, b);
    }
    for (int part = 0; by_fours(format) && part < STEP; part++) {
        const vi from =
            v_addi(_mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28),
                   v_set1i(part));
        to[part] =
            _mm512_mask_blend_ps(0xFF00, _mm512_permutex2var_ps(v_load(x), from, v_load(x + 16)),
                                 _mm512_permutex2var_ps(v_load(x + 32), from, v_load(x + 48)));
    }
    if (by_pairs(format) || by_fours(format))
        return;
#endif
    (void)format;
    for (int part = 0; part < STEP; part++)
        to[part] = v_load(x + LANES * part);
}

/* The last in % 64 weights of a row, by parts; absent ones are +0. */
static inline void last_weights(mh_format format, const struct weight_row *row, int64_t in,
                                float out[STRIPES])
{
    float w[STRIPES] = {0};
    vf parts[STEP];
    decode_columns(row, in / STRIPES * STRIPES, in % STRIPES, w);
    place_parts(format, w, parts);
    for (int part = 0; part < STEP; part++)
        v_store(out + LANES * part, parts[part]);
}

static inline int64_t format_bytes(mh_format format)
{
    return format == MH_FORMAT_F32 ? 4 : format == MH_FORMAT_FP8 ? 1 : 2;
}

/* v_decode's, of column k. */
static inline __attribute__((always_inline)) vf v_scale_at(mh_format format,
                                                           const struct weight_row *row, int64_t k)
{
    if (format != MH_FORMAT_FP8)
        return v_zero();
    float scale;
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): FP8 has scales */
    memcpy(&scale, row->scale + k / 128 * 4, 4);
    return v_mul(v_set1(scale), v_set1(FP8_BIAS));
}

/* FP8's general path. */
static inline float dot_generally(const struct weight_row *row, const float *x, int64_t in)
{
    float a[STRIPES] = {0}, w[STRIPES], terms[STRIPES];
    for (int64_t k = 0; k < in; k += STRIPES) {
        int64_t n = in - k < STRIPES ? in - k : STRIPES;
        decode_columns(row, k, n, w);
        for (int part = 0; part < STEP; part++) {
            float lanes[LANES];
            v_store(lanes, input_at(x, in, k / STRIPES, part));
            for (int i = 0; i < LANES; i++)
                terms[by_fours(MH_FORMAT_FP8) ? 4 * i + part : LANES * part + i] = lanes[i];
        }
        accumulate(a, terms, w, n);
    }
    return fold(a);
}

/* Whether v_decode takes the 128 rows that share their scales with `row`. To look for a NaN in each
 * dot would be a tenth of its time: it is looked for once, when weights are first used. */
static inline bool block_is_plain(const struct matrix *m, int64_t row)
{
    enum { UNKNOWN, PLAIN, OTHER };
    const mh_weight_view *w = m->w;
    int64_t begin = row / 128 * 128, end = w->out - begin < 128 ? w->out : begin + 128;
    uint8_t *mark = w->marks ? &w->marks[m->slot * ((w->out + 127) / 128) + row / 128] : NULL;
    uint8_t known = mark ? __atomic_load_n(mark, __ATOMIC_RELAXED) : UNKNOWN;
    if (known != UNKNOWN)
        return known == PLAIN;
    bool plain = true;
    for (int64_t r = begin; r < end && plain; r++) {
        struct weight_row one = weight_row(w, m->slot, r);
        plain = fp8_is_plain(&one, w->in);
    }
    if (mark)
        __atomic_store_n(mark, plain ? PLAIN : OTHER, __ATOMIC_RELAXED);
    return plain;
}

#endif
