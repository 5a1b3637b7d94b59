/* lanes.h: arithmetic of one lane. Written so that compilers make vectors of it. */
#ifndef VIRTUAL_AMD_EXEC_LANES_H
#define VIRTUAL_AMD_EXEC_LANES_H

#include <math.h>

#include "exec.h"

#define FOR_LANES _Pragma("GCC ivdep") for (int l = 0; l < VA_LANES; l++)
#define MIN(x, y) ((x) < (y) ? (x) : (y))
#define MAX(x, y) ((x) > (y) ? (x) : (y))
#define MED(x, y, z) MAX(MIN(x, y), MIN(MAX(x, y), z))

VA_INLINE float float_of(uint32_t v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}
VA_INLINE uint32_t bits_of(float f)
{
    uint32_t v;
    memcpy(&v, &f, 4);
    return v;
}
VA_INLINE double double_of(uint64_t v)
{
    double f;
    memcpy(&f, &v, 8);
    return f;
}
VA_INLINE uint64_t bits_of64(double f)
{
    uint64_t v;
    memcpy(&v, &f, 8);
    return v;
}

/* ---- f16 ---- */

VA_INLINE float half_value(uint32_t h)
{
    uint32_t m = (h & 0x7fff) << 13, sign = (h & 0x8000) << 16;
    float finite = float_of(m) * 0x1p112f;
    uint32_t special = 0x7f800000 | m;
    return float_of(((h & 0x7c00) == 0x7c00 ? special : bits_of(finite)) | sign);
}

VA_INLINE uint32_t half_bits(float f)
{
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    uint32_t normal = (a + 0xc8000fff + (a >> 13 & 1)) >> 13;
    uint32_t small = bits_of(float_of(a) + 0.5f) - 0x3f000000;
    uint32_t large = a > 0x7f800000 ? 0x7e00 | (a >> 13 & 0x3ff) : 0x7c00;
    uint32_t r = a >= 0x47800000 ? large : a < 0x38800000 ? small : normal;
    return r | sign;
}

/* With a direction of rounding as in MODE: 0 nearest, 1 up, 2 down, 3 toward zero. hold: what is
 * too large becomes the largest (FP16_OVFL). */
uint32_t va_half_rounded(double v, unsigned direction, bool hold);

VA_INLINE uint32_t half_toward_zero(float f)
{
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return sign | 0x7e00 | (a >> 13 & 0x3ff);
    if (a == 0x7f800000)
        return sign | 0x7c00;
    if (a >= 0x47800000)
        return sign | 0x7bff;
    if (a >= 0x38800000)
        return sign | ((a - 0x38000000) >> 13);
    if (a < 0x33800000)
        return sign;
    uint32_t shift = 126 - (a >> 23); /* 14 to 24 bits of the mantissa go */
    return sign | ((a & 0x7fffff) | 0x800000) >> shift;
}

VA_INLINE float rounded_half(float f, unsigned direction, bool hold)
{
    bool usual = !direction && !hold;
    return half_value(usual ? half_bits(f) : va_half_rounded((double)f, direction, hold));
}

/* The sum is rounded once: to odd in f64, then to f16. Toward a direction, all steps go there. */
VA_INLINE float half_fma(float a, float b, float c, unsigned direction)
{
    if (direction)
        return (float)((double)a * b + c);
    double p = (double)a * b, s = p + c, t = s - p;
    double e = (p - (s - t)) + (c - t);
    uint64_t u = bits_of64(s);
    if (e != 0 && !(u & 1) && (u & 0x7ff0000000000000) != 0x7ff0000000000000)
        u += ((e > 0) == (s > 0)) ? 1 : (uint64_t)-1;
    /* To f32 by odd rounding too: 24 bits are more than f16's 11 and two. */
    double odd = double_of(u);
    float f = (float)odd;
    double back = f;
    uint32_t v = bits_of(f);
    if (back != odd && back == back && !(v & 1) && (v & 0x7f800000) != 0x7f800000)
        v += ((back < odd) == (back > 0 || (back == 0 && odd > 0))) ? 1 : (uint32_t)-1;
    return float_of(v);
}

/* ---- f32, f64 ---- */

VA_INLINE int32_t f32_to_i32(float a)
{
    return a >= 0x1p31f ? INT32_MAX : a >= -0x1p31f ? (int32_t)a : a == a ? INT32_MIN : 0;
}
VA_INLINE uint32_t f32_to_u32(float a)
{
    return a >= 0x1p32f ? UINT32_MAX : a > 0 ? (uint32_t)(int64_t)a : 0;
}
VA_INLINE int32_t to_i32(double a)
{
    return a >= 0x1p31 ? INT32_MAX : a > -0x1p31 - 1 ? (int32_t)a : a == a ? INT32_MIN : 0;
}
VA_INLINE uint32_t to_u32(double a)
{
    return a >= 0x1p32 ? UINT32_MAX : a > 0 ? (uint32_t)(int64_t)a : 0;
}
VA_INLINE double round_even(double a)
{
    return __builtin_roundeven(a);
}
VA_INLINE float round_evenf(float a)
{
    return __builtin_roundevenf(a);
}
/* Of turns, not radians. */
VA_INLINE float turn_sin(float a)
{
    double t = (double)a - __builtin_roundeven((double)a);
    return t == 0 ? a * 0.0f : (float)sin(t * 6.283185307179586);
}
VA_INLINE float turn_cos(float a)
{
    double t = (double)a - __builtin_roundeven((double)a);
    return (float)cos(t * 6.283185307179586);
}
VA_INLINE int32_t exponent_of(double a)
{
    int e = 0;
    if (a == 0 || a - a != 0)
        return 0;
    frexp(a, &e);
    return e;
}
VA_INLINE double mantissa_of(double a)
{
    int e;
    return a - a != 0 ? a : frexp(a, &e);
}
VA_INLINE double scaled(double a, int32_t n)
{
    return ldexp(a, n > 10000 ? 10000 : n < -10000 ? -10000 : n);
}
VA_INLINE float scaledf(float a, int32_t n)
{
    return ldexpf(a, n > 10000 ? 10000 : n < -10000 ? -10000 : n);
}
VA_INLINE float half_scaled(float a, int16_t n)
{
    double v = ldexp((double)a, n > 100 ? 100 : n < -100 ? -100 : n);
    return (float)v;
}

/* Bits of 2/pi for the reduction of large arguments: 53 from the segment on. */
double va_two_over_pi(double a, uint32_t segment);

VA_INLINE bool signals(float a)
{
    uint32_t u = bits_of(a);
    return a != a && !(u & 0x400000);
}
VA_INLINE float quiet(float a)
{
    return float_of(bits_of(a) | 0x400000);
}
VA_INLINE float minimum(float a, float b, bool ieee)
{
    float r = a < b ? a : b < a ? b : float_of(bits_of(a) | bits_of(b));
    r = b != b ? a : r;
    r = a != a ? b : r;
    r = ieee && signals(b) ? quiet(b) : r;
    return ieee && signals(a) ? quiet(a) : r;
}
VA_INLINE float maximum(float a, float b, bool ieee)
{
    float r = a > b ? a : b > a ? b : float_of(bits_of(a) & bits_of(b));
    r = b != b ? a : r;
    r = a != a ? b : r;
    r = ieee && signals(b) ? quiet(b) : r;
    return ieee && signals(a) ? quiet(a) : r;
}
VA_INLINE float median(float a, float b, float c, bool ieee)
{
    float low = minimum(minimum(a, b, ieee), c, ieee), high = maximum(maximum(a, b, ieee), c, ieee);
    float r = high == a   ? maximum(b, c, ieee)
              : high == b ? maximum(a, c, ieee)
                          : maximum(a, b, ieee);
    return a != a || b != b || c != c ? low : r;
}
VA_INLINE bool signals64(double a)
{
    return a != a && !(bits_of64(a) & 0x8000000000000);
}
VA_INLINE double quiet64(double a)
{
    return double_of(bits_of64(a) | 0x8000000000000);
}
VA_INLINE double minimum64(double a, double b, bool ieee)
{
    double r = a < b ? a : b < a ? b : double_of(bits_of64(a) | bits_of64(b));
    r = b != b ? a : r;
    r = a != a ? b : r;
    r = ieee && signals64(b) ? quiet64(b) : r;
    return ieee && signals64(a) ? quiet64(a) : r;
}
VA_INLINE double maximum64(double a, double b, bool ieee)
{
    double r = a > b ? a : b > a ? b : double_of(bits_of64(a) & bits_of64(b));
    r = b != b ? a : r;
    r = a != a ? b : r;
    r = ieee && signals64(b) ? quiet64(b) : r;
    return ieee && signals64(a) ? quiet64(a) : r;
}

/* The special cases of a quotient c / b whose approximation is a. */
VA_INLINE double divide_fixup(double a, double b, double c)
{
    bool negative = __builtin_signbit(b) != __builtin_signbit(c);
    double inf = INFINITY;
    if (c != c)
        return quiet64(c);
    if (b != b)
        return quiet64(b);
    if ((b == 0 && c == 0) || (fabs(b) == inf && fabs(c) == inf))
        return -(double)NAN;
    if (b == 0 || fabs(c) == inf)
        return negative ? -inf : inf;
    int apart = (int)(bits_of64(c) >> 52 & 2047) - (int)(bits_of64(b) >> 52 & 2047);
    if (fabs(b) == inf || c == 0 || apart < -1075)
        return negative ? -0.0 : 0.0;
    return negative ? -fabs(a) : fabs(a);
}
VA_INLINE float divide_fixup_f32(float a, float b, float c)
{
    uint32_t sign = (bits_of(b) ^ bits_of(c)) & 0x80000000;
    float r = float_of((bits_of(a) & 0x7fffffff) | sign), inf = INFINITY;
    float ab = fabsf(b), ac = fabsf(c);
    int32_t apart = (int32_t)(bits_of(c) >> 23 & 255) - (int32_t)(bits_of(b) >> 23 & 255);
    r = ab == inf || c == 0 || apart < -150 ? float_of(sign) : r;
    r = b == 0 || ac == inf ? float_of(0x7f800000 | sign) : r;
    r = (b == 0 && c == 0) || (ab == inf && ac == inf) ? float_of(0xffc00000) : r;
    r = b != b ? quiet(b) : r;
    return c != c ? quiet(c) : r;
}

VA_INLINE int32_t to_norm(float a, float low, int32_t scale)
{
    float v = a > 1 ? 1 : a >= low ? a : a == a ? low : 0;
    return (int32_t)__builtin_roundevenf(v * (float)scale);
}

/* Rounded as MODE says. */
VA_INLINE uint32_t to_u8(float a)
{
    float r = __builtin_rintf(a);
    return r >= 255 ? 255 : r > 0 ? (uint32_t)r : 0;
}
VA_INLINE uint32_t with_byte(uint32_t old, uint32_t at, uint32_t byte)
{
    at = 8 * (at & 3);
    return (old & ~(255u << at)) | byte << at;
}

/* ---- integers ---- */

VA_INLINE int64_t sext24(uint32_t a)
{
    return (int32_t)(a << 8) >> 8;
}
VA_INLINE uint32_t reverse(uint32_t v)
{
    v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
    v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
    v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(v);
}
VA_INLINE uint32_t leading_signs(int32_t a)
{
    uint32_t v = (uint32_t)(a < 0 ? ~a : a);
    return v ? (uint32_t)__builtin_clz(v) : UINT32_MAX;
}
VA_INLINE int32_t field(int32_t a, uint32_t shift, uint32_t width)
{
    return width ? (int32_t)((uint32_t)(a >> shift) << (32 - width)) >> (32 - width) : 0;
}
VA_INLINE uint32_t lerp(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r = 0;
    for (int k = 0; k < 32; k += 8)
        r |= ((a >> k & 255) + (b >> k & 255) + (c >> k & 1)) >> 1 << k;
    return r;
}
VA_INLINE uint32_t sad8(uint32_t a, uint32_t b, bool masked)
{
    uint32_t r = 0;
    for (int k = 0; k < 32; k += 8) {
        int32_t x = a >> k & 255, y = b >> k & 255;
        r += masked && !y ? 0 : (uint32_t)(x > y ? x - y : y - x);
    }
    return r;
}
VA_INLINE uint32_t sad16(uint32_t a, uint32_t b)
{
    int32_t x = a & 0xffff, y = b & 0xffff, z = a >> 16, u = b >> 16;
    return (uint32_t)((x > y ? x - y : y - x) + (z > u ? z - u : u - z));
}
VA_INLINE uint64_t quad_sad(uint64_t a, uint32_t b, uint64_t c, bool masked)
{
    uint64_t r = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t s = sad8((uint32_t)(a >> 8 * k), b, masked) + (uint32_t)(c >> 16 * k & 0xffff);
        r |= (uint64_t)(s & 0xffff) << 16 * k;
    }
    return r;
}
VA_INLINE uint32_t permute(uint64_t data, uint32_t selector)
{
    uint32_t r = 0;
    for (int k = 0; k < 32; k += 8) {
        uint32_t s = selector >> k & 255, v;
        if (s >= 13)
            v = 255;
        else if (s == 12)
            v = 0;
        else if (s >= 8)
            v = data >> (16 * (s - 8) + 15) & 1 ? 255 : 0;
        else
            v = data >> 8 * s & 255;
        r |= v << k;
    }
    return r;
}
VA_INLINE uint32_t saturate_u8(int16_t v)
{
    return v < 0 ? 0 : v > 255 ? 255 : (uint32_t)v;
}
VA_INLINE int32_t saturate_i16(int32_t v)
{
    return v < -32768 ? -32768 : v > 32767 ? 32767 : v;
}
VA_INLINE float dot2(uint32_t a, uint32_t b, float c)
{
    float r = c + half_value(a & 0xffff) * half_value(b & 0xffff);
    return r + half_value(a >> 16) * half_value(b >> 16);
}
VA_INLINE int64_t dot2_i16(uint32_t a, uint32_t b)
{
    return (int64_t)(int16_t)a * (int16_t)b + (int64_t)(int16_t)(a >> 16) * (int16_t)(b >> 16);
}
VA_INLINE int64_t dot2_u16(uint32_t a, uint32_t b)
{
    return (int64_t)(a & 0xffff) * (b & 0xffff) + (int64_t)(a >> 16) * (b >> 16);
}
#define DOT(name, count, width, take)                                                              \
    VA_INLINE int64_t name(uint32_t a, uint32_t b)                                                 \
    {                                                                                              \
        int64_t r = 0;                                                                             \
        for (int k = 0; k < (count); k++)                                                          \
            r += (int64_t)take(a, k * (width)) * take(b, k * (width));                             \
        return r;                                                                                  \
    }
#define TAKE_I8(v, s) ((int8_t)((v) >> (s)))
#define TAKE_U8(v, s) ((v) >> (s)&255)
#define TAKE_I4(v, s) ((int32_t)((v) >> (s) << 28) >> 28)
#define TAKE_U4(v, s) ((v) >> (s)&15)
DOT(dot4_i8, 4, 8, TAKE_I8)
DOT(dot4_u8, 4, 8, TAKE_U8)
DOT(dot8_i4, 8, 4, TAKE_I4)
DOT(dot8_u4, 8, 4, TAKE_U4)

/* ---- cube maps ---- */

VA_INLINE int cube_axis(float x, float y, float z)
{
    return fabsf(z) >= fabsf(x) && fabsf(z) >= fabsf(y) ? 2 : fabsf(y) >= fabsf(x) ? 1 : 0;
}
VA_INLINE float cube_id(float x, float y, float z)
{
    int k = cube_axis(x, y, z);
    float m = k == 2 ? z : k == 1 ? y : x;
    return (float)(2 * k + (m < 0));
}
VA_INLINE float cube_sc(float x, float y, float z)
{
    int k = cube_axis(x, y, z);
    return k == 2 ? (z < 0 ? -x : x) : k == 1 ? x : x < 0 ? z : -z;
}
VA_INLINE float cube_tc(float x, float y, float z)
{
    int k = cube_axis(x, y, z);
    return k == 1 ? (y < 0 ? -z : z) : -y;
}
VA_INLINE float cube_ma(float x, float y, float z)
{
    int k = cube_axis(x, y, z);
    return 2.0f * (k == 2 ? z : k == 1 ? y : x);
}

/* ---- FP8 without infinities and negative zero: 4 bits of exponent with bias 8, or 5 with 16 ----
 */

float va_fp8_value(uint32_t v, int exponent_bits);
uint32_t va_to_fp8(float f, int exponent_bits, bool hold);

uint32_t va_to_fp8_random(float f, uint32_t random, int exponent_bits, bool hold);

VA_INLINE float fp8_value(uint32_t v, int exponent_bits)
{
    return va_fp8_value(v, exponent_bits);
}
VA_INLINE uint32_t to_fp8(float f, int exponent_bits, bool hold)
{
    return va_to_fp8(f, exponent_bits, hold);
}
/* ---- masks ---- */

VA_INLINE uint64_t mask_of(const uint32_t *t);
VA_INLINE void blend(uint32_t *d, const uint32_t *zero, const uint32_t *one, uint64_t mask);

#ifdef __AVX512F__
#include <immintrin.h>
VA_INLINE uint64_t mask_of(const uint32_t *t)
{
    uint64_t r = 0;
    for (int k = 0; k < 4; k++) {
        __m512i v = _mm512_load_si512(t + 16 * k);
        r |= (uint64_t)_mm512_test_epi32_mask(v, v) << 16 * k;
    }
    return r;
}
VA_INLINE void blend(uint32_t *d, const uint32_t *zero, const uint32_t *one, uint64_t mask)
{
    for (int k = 0; k < 4; k++)
        _mm512_store_si512(d + 16 * k, _mm512_mask_blend_epi32((__mmask16)(mask >> 16 * k),
                                                               _mm512_load_si512(zero + 16 * k),
                                                               _mm512_load_si512(one + 16 * k)));
}
#else
VA_INLINE uint64_t mask_of(const uint32_t *t)
{
    uint64_t r = 0;
    for (int l = 0; l < VA_LANES; l++)
        r |= (uint64_t)(t[l] != 0) << l;
    return r;
}
VA_INLINE void blend(uint32_t *d, const uint32_t *zero, const uint32_t *one, uint64_t mask)
{
    uint32_t low = (uint32_t)mask, high = (uint32_t)(mask >> 32);
    _Pragma("GCC ivdep") for (int l = 0; l < 32; l++) d[l] = low >> l & 1 ? one[l] : zero[l];
    _Pragma("GCC ivdep") for (int l = 0; l < 32; l++) d[l + 32] =
        high >> l & 1 ? one[l + 32] : zero[l + 32];
}
#endif

/* Tables of handlers of the parts, by row. */
#define VA_NAME2(part, isa) va_##part##_##isa
#define VA_NAME1(part, isa) VA_NAME2(part, isa)
#define VA_NAME(part) VA_NAME1(part, VA_ISA)

#endif
