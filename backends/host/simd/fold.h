/* fold.h: rule 2's fold of the stripes of several dots at once. */
#ifndef HOST_FOLD_H
#define HOST_FOLD_H

#include "simd.h"

#ifdef __AVX512F__

#define FOLDED 4 /* dots at once */

/* Lanes h apart of a and of b added: where the index has bit h the sums of b, elsewhere those of a.
 * One shuffle for both: a + a' and b' + b are one addition once halves have changed places. */
static inline vf fold_8(vf a, vf b)
{
    return v_add(_mm512_mask_blend_ps(0xFF00, a, b), _mm512_shuffle_f32x4(a, b, 0x4E));
}

static inline vf fold_4(vf a, vf b)
{
    const vi other = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    return v_add(_mm512_mask_blend_ps(0xF0F0, a, b), _mm512_permutex2var_ps(a, other, b));
}

static inline vf fold_2(vf a, vf b)
{
    __m512d other = _mm512_shuffle_pd(_mm512_castps_pd(a), _mm512_castps_pd(b), 0x55);
    return v_add(_mm512_mask_blend_ps(0xCCCC, a, b), _mm512_castpd_ps(other));
}

static inline vf fold_1(vf a, vf b)
{
    const vi other = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
    return v_add(_mm512_mask_blend_ps(0xAAAA, a, b), _mm512_permutex2var_ps(a, other, b));
}

/* Lanes 0, 4, 8 and 12, and rule 2's last + 0. */
static inline void store_fourths(vf v, float *out)
{
    const vi lanes = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    __m128 four = _mm512_castps512_ps128(_mm512_permutexvar_ps(lanes, v));
    _mm_storeu_ps(out, _mm_add_ps(four, _mm_setzero_ps()));
}

/* out[d] of four dots after the step of 32: low[d] has stripes 0 to 15, high[d] 16 to 31. */
static inline void fold_dots(const vf low[FOLDED], const vf high[FOLDED], float *out)
{
    vf dot[FOLDED];
    for (int d = 0; d < FOLDED; d++)
        dot[d] = v_add(low[d], high[d]);
    vf v = fold_4(fold_8(dot[0], dot[2]), fold_8(dot[1], dot[3]));
    v = fold_2(v, v);
    store_fourths(fold_1(v, v), out);
}

/* The same where low[d] has the even stripes, high[d] the odd ones: the last step is between them.
 */
static inline void fold_twos(const vf low[FOLDED], const vf high[FOLDED], float *out)
{
    vf even = fold_4(fold_8(low[0], low[2]), fold_8(low[1], low[3]));
    vf odd = fold_4(fold_8(high[0], high[2]), fold_8(high[1], high[3]));
    vf v = fold_2(even, odd); /* of each dot two lanes of even stripes, two of odd ones */
    v = fold_1(v, v);
    store_fourths(fold_2(v, v), out);
}

/* The same where parts[p][d] has the stripes p, p + 4, p + 8, ... of dot d: the last two steps are
 * between them. */
static inline void fold_fours(const vf *const parts[4], float *out)
{
    vf v[4];
    for (int p = 0; p < 4; p++)
        v[p] = fold_4(fold_8(parts[p][0], parts[p][2]), fold_8(parts[p][1], parts[p][3]));
    vf w = fold_1(fold_2(v[0], v[1]), fold_2(v[2], v[3])); /* of each dot parts 0, 2, 1, 3 */
    w = fold_1(w, w);
    store_fourths(fold_2(w, w), out);
}

/* By the format's parts. But for fours, 0 and 1 have 2 and 3 added already: the step of 32. */
static inline __attribute__((always_inline)) void
fold_parts(mh_format format, const vf *const parts[STEP], float *out)
{
    if (by_fours(format))
        fold_fours(parts, out);
    else
        (by_pairs(format) ? fold_twos : fold_dots)(parts[0], parts[1], out);
}

#endif

#endif
