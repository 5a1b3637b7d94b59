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

/* out[d] of four dots; vector j of a dot has stripes 16 j and up. */
static inline void fold_dots(vf a[FOLDED][STEP], float *out)
{
    vf dot[FOLDED];
    for (int d = 0; d < FOLDED; d++)
        dot[d] = v_add(v_add(a[d][0], a[d][2]), v_add(a[d][1], a[d][3]));
    vf v = fold_4(fold_8(dot[0], dot[2]), fold_8(dot[1], dot[3]));
    v = fold_2(v, v);
    store_fourths(fold_1(v, v), out);
}

/* The same where vectors 0 and 1 hold stripes 2 i and 2 i + 1 of the lower 32, 2 and 3 of the
 * upper: the last step is between vectors. */
static inline void fold_twos(vf a[FOLDED][STEP], float *out)
{
    vf by[2]; /* four lanes a dot */
    for (int b = 0; b < 2; b++) {
        vf dot[FOLDED];
        for (int d = 0; d < FOLDED; d++)
            dot[d] = v_add(a[d][b], a[d][b + 2]);
        by[b] = fold_4(fold_8(dot[0], dot[2]), fold_8(dot[1], dot[3]));
    }
    vf v = fold_2(by[0], by[1]); /* of each dot two lanes of even stripes, two of odd ones */
    v = fold_1(v, v);
    store_fourths(fold_2(v, v), out);
}

/* The same where vector b holds stripes 4 i + b: the steps 2 and 1 are between vectors. */
static inline void fold_fours(vf a[FOLDED][STEP], float *out)
{
    vf by[STEP]; /* four lanes a dot */
    for (int b = 0; b < STEP; b++)
        by[b] = fold_4(fold_8(a[0][b], a[2][b]), fold_8(a[1][b], a[3][b]));
    /* Of each dot the stripes 4 i + 0, 2, 1 and 3. */
    vf v = fold_1(fold_2(by[0], by[1]), fold_2(by[2], by[3]));
    v = fold_1(v, v);
    store_fourths(fold_2(v, v), out);
}

#else

#define FOLDED 1

static inline void fold_dots(vf a[FOLDED][STEP], float *out)
{
    *out = v_fold(a[0]);
}

static inline void fold_twos(vf a[FOLDED][STEP], float *out)
{
    fold_dots(a, out);
}

static inline void fold_fours(vf a[FOLDED][STEP], float *out)
{
    fold_dots(a, out);
}

#endif

#endif
