/*
 * simd.h: vectors of f32 as wide as the form being compiled has them, 16 lanes or 8. Every
 * operation rounds as its scalar does.
 */
#ifndef HOST_SIMD_H
#define HOST_SIMD_H

#include <immintrin.h>

#include "../decode.h"

#ifdef __AVX512F__

#define LANES 16
typedef __m512 vf;
typedef __m512i vi;

#define v_zero() _mm512_setzero_ps()
#define v_set1(x) _mm512_set1_ps(x)
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, v) _mm512_storeu_ps(p, v)
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_cast(a) _mm512_castsi512_ps(a)
#define v_set1i(x) _mm512_set1_epi32(x)
#define v_and(a, b) _mm512_and_si512(a, b)
#define v_shl(a, n) _mm512_slli_epi32(a, n)
#define v_from_u16(p) _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p)))
#define v_from_i8(p) _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(p)))
#define v_from_f16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p)))

#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_xor(a, b) _mm512_xor_si512(a, b)
#define v_or(a, b) _mm512_or_si512(a, b)
#define v_andnot(a, b) _mm512_andnot_si512(a, b)
#define v_sar(a, n) _mm512_srai_epi32(a, n)
#define v_max_unsigned(a, b) _mm512_max_epu32(a, b)
#define v_where_equal(a, b, yes, no) _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(a, b), no, yes)
#define v_where_greater(a, b, yes, no)                                                             \
    _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), no, yes)
#define v_bits(a) _mm512_castps_si512(a)
#define v_addi(a, b) _mm512_add_epi32(a, b)
#define v_subi(a, b) _mm512_sub_epi32(a, b)
/* Lane by lane: where a < b, and where a is a NaN, `yes`, else `no`. */
#define v_where_less(a, b, yes, no)                                                                \
    _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes)
#define v_where_nan(a, yes, no)                                                                    \
    _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), no, yes)

/* The lower and the upper eight lanes, added. */
static inline __m256 v_halves(vf a)
{
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}

/* The largest bytes so far, sign bits set: 0xFF is a NaN. */
static inline vi fp8_most(vi most, const unsigned char *bytes)
{
    vi b = _mm512_or_si512(_mm512_loadu_si512(bytes), _mm512_set1_epi8((char)0x80));
    return _mm512_max_epu8(most, b);
}

static inline bool fp8_has_nan(vi most)
{
    return _mm512_cmpeq_epi8_mask(most, _mm512_set1_epi8((char)0xFF));
}

#else

#define LANES 8
typedef __m256 vf;
typedef __m256i vi;

#define v_zero() _mm256_setzero_ps()
#define v_set1(x) _mm256_set1_ps(x)
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, v) _mm256_storeu_ps(p, v)
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_cast(a) _mm256_castsi256_ps(a)
#define v_set1i(x) _mm256_set1_epi32(x)
#define v_and(a, b) _mm256_and_si256(a, b)
#define v_shl(a, n) _mm256_slli_epi32(a, n)
#define v_from_u16(p) _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p)))
#define v_from_i8(p) _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p)))
#define v_from_f16(p) _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p)))

#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_div(a, b) _mm256_div_ps(a, b)
#define v_xor(a, b) _mm256_xor_si256(a, b)
#define v_or(a, b) _mm256_or_si256(a, b)
#define v_andnot(a, b) _mm256_andnot_si256(a, b)
#define v_sar(a, n) _mm256_srai_epi32(a, n)
#define v_max_unsigned(a, b) _mm256_max_epu32(a, b)
#define v_where_equal(a, b, yes, no) _mm256_blendv_epi8(no, yes, _mm256_cmpeq_epi32(a, b))
#define v_where_greater(a, b, yes, no) _mm256_blendv_epi8(no, yes, _mm256_cmpgt_epi32(a, b))
#define v_bits(a) _mm256_castps_si256(a)
#define v_addi(a, b) _mm256_add_epi32(a, b)
#define v_subi(a, b) _mm256_sub_epi32(a, b)
#define v_where_less(a, b, yes, no) _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#define v_where_nan(a, yes, no) _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, a, _CMP_UNORD_Q))

static inline vi fp8_most(vi most, const unsigned char *bytes)
{
    vi top = _mm256_set1_epi8((char)0x80);
    vi a = _mm256_or_si256(_mm256_loadu_si256((const void *)bytes), top);
    vi b = _mm256_or_si256(_mm256_loadu_si256((const void *)(bytes + 32)), top);
    return _mm256_max_epu8(most, _mm256_max_epu8(a, b));
}

static inline bool fp8_has_nan(vi most)
{
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(most, _mm256_set1_epi8((char)0xFF))) != 0;
}

#endif

/* Vectors of one step through all stripes. */
#define STEP (STRIPES / LANES)

/* Rule 2's fold of one dot's stripes; destroys them. */
static inline float v_fold(vf a[STEP])
{
    for (int h = STEP / 2; h; h /= 2)
        for (int j = 0; j < h; j++)
            a[j] = v_add(a[j], a[j + h]);
#ifdef __AVX512F__
    __m256 eight = v_halves(a[0]);
#else
    __m256 eight = a[0];
#endif
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    __m128 one = _mm_add_ss(two, _mm_movehdup_ps(two));
    return _mm_cvtss_f32(one) + 0.0f;
}

/* Rule 5. */
static inline vf v_exp(vf x)
{
    vf t = v_fma(x, v_set1(of_bits(0x3FB8AA3B)), v_set1(12582912.0f));
    vi i = v_subi(v_bits(t), v_set1i(0x4B400000));
    vf n = v_sub(t, v_set1(12582912.0f));
    vf r = v_fma(n, v_set1(-of_bits(0x3F317200)), x);
    r = v_fma(n, v_set1(-of_bits(0x35BFBE8E)), r);
    vf u = v_set1(of_bits(0x39502BDA));
    u = v_fma(u, r, v_set1(of_bits(0x3AB696C9)));
    u = v_fma(u, r, v_set1(of_bits(0x3C0888A6)));
    u = v_fma(u, r, v_set1(of_bits(0x3D2AAA7A)));
    u = v_fma(u, r, v_set1(of_bits(0x3E2AAAAB)));
    u = v_fma(u, r, v_set1(of_bits(0x3F000000)));
    vf p = v_add(v_fma(v_mul(r, r), u, r), v_set1(1));
    vf e = v_cast(v_addi(v_bits(p), v_shl(i, 23)));
    e = v_where_less(x, v_set1(-87), v_zero(), e);
    e = v_where_less(v_set1(of_bits(0x42B17217)), x, v_set1(INFINITY), e);
    return v_where_nan(x, x, e);
}

/* FP8's scale as v_decode wants it: times 2^120, which undoes the exponent's bias. */
#define FP8_BIAS 0x1p120f

/* Whether v_decode takes a row of FP8; of its last in % 64 bytes, which decode_columns decodes, it
 * does not say. */
static inline bool fp8_is_plain(const struct weight_row *row, int64_t in)
{
    vi most = v_set1i(0);
    bool plain = true;
    for (int64_t k = 0; k < in; k += 128) {
        float scale;
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): FP8 has scales */
        memcpy(&scale, row->scale + k / 128 * 4, 4);
        plain &= fabsf(scale) < 0x1p8f;
    }
    for (int64_t k = 0; k + STRIPES <= in; k += STRIPES)
        most = fp8_most(most, row->data + k);
    return plain && !fp8_has_nan(most);
}

/* LANES weights from column k of a row whose data begin at `data`. FP8: v_scale is the block's
 * scale times 2^120, finite, and no byte is NaN. */
static inline __attribute__((always_inline)) vf
v_decode(mh_format format, const unsigned char *data, int64_t k, vf v_scale)
{
    switch (format) {
    case MH_FORMAT_F32:
        return v_load((const float *)(const void *)(data + 4 * k));
    case MH_FORMAT_BF16:
        return v_cast(v_shl(v_from_u16(data + 2 * k), 16));
    case MH_FORMAT_F16:
        return v_from_f16(data + 2 * k);
    default: {
        vi bits = v_and(v_shl(v_from_i8(data + k), 20), v_set1i((int)0x87F00000));
        return v_mul(v_cast(bits), v_scale);
    }
    }
}

/* Of 64 columns, which a dot's vectors hold: `part` of them. AVX-512 takes bf16 by pairs, since a
 * word of memory holds two: parts 0 and 1 are the even and the odd columns of the first 32, 2 and 3
 * of the others. It takes FP8 by fours: part p is columns p, p + 4, p + 8, ... Else a part is
 * neighbours. */
static inline bool by_pairs(mh_format format)
{
    return LANES == 16 && format == MH_FORMAT_BF16;
}

static inline bool by_fours(mh_format format)
{
    return LANES == 16 && format == MH_FORMAT_FP8;
}

/* Part `part` of the 64 columns from k; as v_decode. */
static inline __attribute__((always_inline)) vf
v_decode_part(mh_format format, const unsigned char *data, int64_t k, int part, vf v_scale)
{
#ifdef __AVX512F__
    if (by_pairs(format)) {
        vi words = _mm512_loadu_si512(data + 2 * k + part / 2 * 64);
        return v_cast(part % 2 ? v_and(words, v_set1i((int)0xFFFF0000)) : v_shl(words, 16));
    }
    if (by_fours(format)) { /* to the top; there the sign stays and the rest goes down */
        vi top = _mm512_sll_epi32(_mm512_loadu_si512(data + k), _mm_cvtsi32_si128(24 - 8 * part));
        return v_mul(v_cast(v_and(v_sar(top, 4), v_set1i((int)0x87F00000))), v_scale);
    }
#endif
    return v_decode(format, data, k + LANES * part, v_scale);
}

/* All parts. */
static inline __attribute__((always_inline)) void
v_decode_parts(mh_format format, const unsigned char *data, int64_t k, vf v_scale, vf w[STEP])
{
#ifdef __AVX512F__
    if (by_fours(format)) { /* bytes become bf16 by shifts of two at a time, then as by pairs */
        vi odd = _mm512_loadu_si512(data + k), even;
        __asm__("" : "+v"(odd)); /* loaded once */
        even = _mm512_slli_epi16(odd, 8);
        for (int i = 0; i < 2; i++) {
            vi words = v_and(_mm512_srai_epi16(i ? odd : even, 4), v_set1i((int)0x87F087F0));
            w[i] = v_mul(v_cast(v_shl(words, 16)), v_scale);
            w[i + 2] = v_mul(v_cast(v_and(words, v_set1i((int)0xFFFF0000))), v_scale);
        }
        return;
    }
#endif
#pragma GCC unroll 8
    for (int part = 0; part < STEP; part++)
        w[part] = v_decode_part(format, data, k, part, v_scale);
}

#endif
