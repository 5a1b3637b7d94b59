/* transpose.h: a square of f32 (or of 32-bit words), LANES on a side, turned in registers. */
#ifndef HOST_TRANSPOSE_H
#define HOST_TRANSPOSE_H

#include "simd.h"

#ifdef __AVX512F__

/* Within each quarter of four 32-bit words: 4 x 4 of rows q .. q + 3. */
static inline void turn_quarters(__m512i a[4])
{
    __m512i ab_low = _mm512_unpacklo_epi32(a[0], a[1]), ab_high = _mm512_unpackhi_epi32(a[0], a[1]);
    __m512i cd_low = _mm512_unpacklo_epi32(a[2], a[3]), cd_high = _mm512_unpackhi_epi32(a[2], a[3]);
    a[0] = _mm512_unpacklo_epi64(ab_low, cd_low);
    a[1] = _mm512_unpackhi_epi64(ab_low, cd_low);
    a[2] = _mm512_unpacklo_epi64(ab_high, cd_high);
    a[3] = _mm512_unpackhi_epi64(ab_high, cd_high);
}

/* Words 4 c .. 4 c + 3 of rows r, r + 4, r + 8, r + 12: loads and blends, hardly a shuffle. */
static inline __m512i gather_quarter(const void *const row[16], int64_t at, int r, int c)
{
    __m512i v =
        _mm512_castsi128_si512(_mm_loadu_si128((const void *)((const char *)row[r] + at + 16 * c)));
    v = _mm512_inserti32x4(
        v, _mm_loadu_si128((const void *)((const char *)row[r + 4] + at + 16 * c)), 1);
    v = _mm512_inserti32x4(
        v, _mm_loadu_si128((const void *)((const char *)row[r + 8] + at + 16 * c)), 2);
    return _mm512_inserti32x4(
        v, _mm_loadu_si128((const void *)((const char *)row[r + 12] + at + 16 * c)), 3);
}

/* 16 words from byte `at` of 16 rows: out[c] has word c of every row. Four rows' lines are taken
 * whole before the next four's: rows a page apart share a set of the cache. */
static inline __attribute__((always_inline)) void transpose_rows(const void *const row[16],
                                                                 int64_t at, __m512i out[16])
{
    __m512i v[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++)
            v[c][r] = gather_quarter(row, at, r, c);
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        turn_quarters(v[c]);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            out[4 * c + r] = v[c][r];
    }
}

#endif

#endif
