/* Scalar arithmetic of PTX, written without branches so that loops over lanes vectorise. */
#ifndef VIRTUAL_NVIDIA_EXEC_ARITH_H
#define VIRTUAL_NVIDIA_EXEC_ARITH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define VN_INLINE static inline __attribute__((always_inline, unused))
#define MIN(x, y) ((x) < (y) ? (x) : (y))
#define MAX(x, y) ((x) > (y) ? (x) : (y))

VN_INLINE uint32_t bits32(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
VN_INLINE float float32(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}
VN_INLINE uint64_t bits64(double x)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}
VN_INLINE double float64(uint64_t u)
{
    double x;
    memcpy(&x, &u, 8);
    return x;
}

__extension__ typedef unsigned __int128 uint128;
__extension__ typedef __int128 int128;

/* ---- integers ---- */

/* What the ISA leaves open (division by zero) is all ones, and the dividend. INT_MIN / -1 wraps. */
#define DIVISION(t, C, is_signed)                                                                  \
    VN_INLINE C div_##t(C a, C b)                                                                  \
    {                                                                                              \
        C safe = b == 0 || (is_signed && b == (C)-1) ? 1 : b;                                      \
        return b == 0 ? (C)-1 : is_signed && b == (C)-1 ? (C)(0 - (uint64_t)a) : (C)(a / safe);    \
    }                                                                                              \
    VN_INLINE C rem_##t(C a, C b)                                                                  \
    {                                                                                              \
        C safe = b == 0 || (is_signed && b == (C)-1) ? 1 : b;                                      \
        return b == 0 ? a : (C)(a % safe);                                                         \
    }
DIVISION(u16, uint16_t, 0)
DIVISION(s16, int16_t, 1)
DIVISION(u32, uint32_t, 0)
DIVISION(s32, int32_t, 1)
DIVISION(u64, uint64_t, 0)
DIVISION(s64, int64_t, 1)
#undef DIVISION

VN_INLINE int32_t sat_s32(int64_t x)
{
    return (int32_t)(x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x);
}
VN_INLINE int64_t sext24(int32_t x)
{
    return (int32_t)((uint32_t)x << 8) >> 8;
}
VN_INLINE uint32_t lo16(uint32_t x)
{
    return x & 0xffff;
}
VN_INLINE uint32_t hi16(uint32_t x)
{
    return x >> 16;
}
VN_INLINE int32_t slo16(uint32_t x)
{
    return (int16_t)x;
}
VN_INLINE int32_t shi16(uint32_t x)
{
    return (int32_t)x >> 16;
}
VN_INLINE uint32_t pack(uint32_t low, uint32_t high)
{
    return (low & 0xffff) | high << 16;
}
VN_INLINE uint32_t clz32(uint32_t x)
{
    return (uint32_t)__builtin_clz(x | (x == 0));
}
VN_INLINE uint32_t clz64(uint64_t x)
{
    return (uint32_t)__builtin_clzll(x | (x == 0));
}
VN_INLINE uint32_t popc32(uint32_t x)
{
    x -= x >> 1 & 0x55555555;
    x = (x & 0x33333333) + (x >> 2 & 0x33333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f;
    return x * 0x01010101u >> 24;
}
VN_INLINE uint32_t brev32(uint32_t x)
{
    x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
    x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
    x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(x);
}
VN_INLINE uint32_t bfe32(uint32_t a, uint32_t pos, uint32_t len, int is_signed)
{
    pos &= 0xff;
    len &= 0xff;
    uint32_t sign_at = pos + len - 1 > 31 ? 31 : pos + len - 1;
    uint32_t sign = is_signed && len ? a >> (sign_at & 31) & 1 : 0;
    uint32_t field = pos > 31 ? 0 : a >> (pos & 31);
    uint32_t avail = pos > 31 ? 0 : 32 - pos;
    uint32_t keep = len < avail ? len : avail;
    uint32_t mask = keep > 31 ? ~0u : (1u << (keep & 31)) - 1;
    return (field & mask) | (sign ? ~mask : 0);
}
VN_INLINE uint64_t bfe64(uint64_t a, uint32_t pos, uint32_t len, int is_signed)
{
    pos &= 0xff;
    len &= 0xff;
    uint32_t sign_at = pos + len - 1 > 63 ? 63 : pos + len - 1;
    uint64_t sign = is_signed && len ? a >> (sign_at & 63) & 1 : 0;
    uint64_t field = pos > 63 ? 0 : a >> (pos & 63);
    uint32_t avail = pos > 63 ? 0 : 64 - pos;
    uint32_t keep = len < avail ? len : avail;
    uint64_t mask = keep > 63 ? ~(uint64_t)0 : ((uint64_t)1 << (keep & 63)) - 1;
    return (field & mask) | (sign ? ~mask : 0);
}
VN_INLINE uint64_t bfi64(uint64_t a, uint64_t b, uint32_t pos, uint32_t len, uint32_t bits)
{
    pos &= 0xff;
    len &= 0xff;
    uint64_t ones = len > 63 ? ~(uint64_t)0 : ((uint64_t)1 << (len & 63)) - 1;
    uint64_t mask = pos >= bits ? 0 : ones << (pos & 63);
    return (b & ~mask) | ((pos >= bits ? 0 : a << (pos & 63)) & mask);
}
VN_INLINE uint32_t bmsk(uint32_t pos, uint32_t len, int wrap)
{
    if (wrap)
        pos &= 31, len &= 31;
    uint32_t ones = len > 31 ? ~0u : (1u << (len & 31)) - 1;
    return pos > 31 ? 0 : ones << (pos & 31);
}
VN_INLINE uint32_t prmt(uint32_t a, uint32_t b, uint32_t c)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t out = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t s = c >> 4 * i;
        uint32_t byte = (uint32_t)(both >> (s & 7) * 8) & 0xff;
        uint32_t sign = byte & 0x80 ? 0xff : 0;
        out |= (s & 8 ? sign : byte) << 8 * i;
    }
    return out;
}
VN_INLINE uint32_t prmt_mode(uint32_t a, uint32_t b, uint32_t c, int mode)
{
    static const uint16_t select[6][4] = {
        {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
        {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
        {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
    return prmt(a, b, select[mode][c & 3]);
}
VN_INLINE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t r = 0;
    r |= table & 0x01 ? ~a & ~b & ~c : 0;
    r |= table & 0x02 ? ~a & ~b & c : 0;
    r |= table & 0x04 ? ~a & b & ~c : 0;
    r |= table & 0x08 ? ~a & b & c : 0;
    r |= table & 0x10 ? a & ~b & ~c : 0;
    r |= table & 0x20 ? a & ~b & c : 0;
    r |= table & 0x40 ? a & b & ~c : 0;
    r |= table & 0x80 ? a & b & c : 0;
    return r;
}
VN_INLINE uint32_t dp4a(uint32_t a, uint32_t b, uint32_t c, int a_signed, int b_signed)
{
    for (uint32_t i = 0; i < 32; i += 8) {
        int32_t x = a_signed ? (int8_t)(a >> i) : (int32_t)(a >> i & 0xff);
        int32_t y = b_signed ? (int8_t)(b >> i) : (int32_t)(b >> i & 0xff);
        c += (uint32_t)(x * y);
    }
    return c;
}
VN_INLINE uint32_t dp2a(uint32_t a, uint32_t b, uint32_t c, int a_signed, int b_signed, uint32_t at)
{
    for (uint32_t i = 0; i < 2; i++) {
        int32_t x = a_signed ? (int16_t)(a >> 16 * i) : (int32_t)(a >> 16 * i & 0xffff);
        uint32_t byte = b >> (at + 8 * i) & 0xff;
        int32_t y = b_signed ? (int8_t)byte : (int32_t)byte;
        c += (uint32_t)(x * y);
    }
    return c;
}

/* ---- f32, f64 ---- */

VN_INLINE float ftz(float x)
{
    uint32_t u = bits32(x);
    return float32((u & 0x7f800000) ? u : u & 0x80000000);
}
VN_INLINE float qnan_f32(void)
{
    return float32(0x7fffffff);
}
VN_INLINE double qnan_f64(void)
{
    return float64(0x7ff8000000000000u);
}
VN_INLINE float nan32(float x)
{
    return x != x ? qnan_f32() : x;
}
VN_INLINE float saturate(float x)
{
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
VN_INLINE double saturate64(double x)
{
    return x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0;
}
/* NaN only if both are; -0 below +0. Ordered as integers, after the sign is folded. */
VN_INLINE float minmax_f32(float a, float b, int less)
{
    uint32_t ua = bits32(a), ub = bits32(b);
    int32_t ka = (int32_t)(ua ^ ((uint32_t)((int32_t)ua >> 31) >> 1));
    int32_t kb = (int32_t)(ub ^ ((uint32_t)((int32_t)ub >> 31) >> 1));
    int first = less ? ka < kb : ka > kb;
    float r = first ? a : b;
    r = a != a ? b : r;
    r = b != b ? a : r;
    return nan32(r);
}
VN_INLINE double minmax_f64(double a, double b, int less)
{
    uint64_t ua = bits64(a), ub = bits64(b);
    int64_t ka = (int64_t)(ua ^ ((uint64_t)((int64_t)ua >> 63) >> 1));
    int64_t kb = (int64_t)(ub ^ ((uint64_t)((int64_t)ub >> 63) >> 1));
    int first = less ? ka < kb : ka > kb;
    double r = first ? a : b;
    r = a != a ? b : r;
    r = b != b ? a : r;
    return a != a && b != b ? float64(bits64(b) | (uint64_t)1 << 51) : r;
}
/* Out of several NaNs hardware takes b's before c's before a's. */
VN_INLINE double fma_f64(double a, double b, double c)
{
    double r = fma(a, b, c);
    uint64_t nan = bits64(b != b ? b : c != c ? c : a);
    return c != c || b != b || a != a ? float64(nan | (uint64_t)1 << 51) : r;
}
VN_INLINE float xorsign(float r, float a, float b)
{
    return float32(bits32(r) | ((bits32(a) ^ bits32(b)) & 0x80000000));
}
VN_INLINE float div_approx(float a, float b)
{
    float r = a / b;
    float big = fabsf(b);
    float zero = float32((bits32(a) ^ bits32(b)) & 0x80000000);
    float beyond = fabsf(a) == INFINITY ? qnan_f32() : zero;
    return big > 0x1p126f && big < INFINITY && a == a ? beyond : r;
}
VN_INLINE float rsqrt(float a)
{
    return (float)(1.0 / sqrt((double)a));
}
VN_INLINE double rsqrt64(double a)
{
    return 1.0 / sqrt(a);
}
VN_INLINE double ftz64(double x)
{
    uint64_t u = bits64(x);
    return float64((u & 0x7ff0000000000000u) ? u : u & (uint64_t)1 << 63);
}
VN_INLINE double rcp_approx64(double a)
{
    return ftz64(float64(bits64(1.0 / ftz64(float64(bits64(a) & 0xffffffff00000000u))) &
                         0xffffffff00000000u));
}
VN_INLINE double rsqrt_approx64(double a)
{
    return ftz64(float64(bits64(1.0 / sqrt(ftz64(float64(bits64(a) & 0xffffffff00000000u)))) &
                         0xffffffff00000000u));
}

/* ---- approximate functions, in f64: well inside PTX's stated errors ---- */

VN_INLINE double exp2_core(double x) /* |x| < 1100 */
{
    double n = rint(x);
    double f = x - n;
    /* exp2 on [-0.5, 0.5]: the Taylor series in f ln 2 */
    double t = f * 0.693147180559945309417;
    double r = 1.0 / 3628800;
    r = r * t + 1.0 / 362880;
    r = r * t + 1.0 / 40320;
    r = r * t + 1.0 / 5040;
    r = r * t + 1.0 / 720;
    r = r * t + 1.0 / 120;
    r = r * t + 1.0 / 24;
    r = r * t + 1.0 / 6;
    r = r * t + 0.5;
    r = r * t + 1.0;
    r = r * t + 1.0;
    return r * float64((uint64_t)(int64_t)((int32_t)n + 1023) << 52);
}
/* In f32, with fma: within one unit in the last place, where PTX allows two. */
VN_INLINE float ex2_approx(float a)
{
    float x = a > 200.0f ? 200.0f : a < -200.0f ? -200.0f : a;
    x = a != a ? 0.0f : x;
    float n = rintf(x), f = x - n;
    float r = 1.5252734e-5f;
    r = fmaf(r, f, 1.5403530e-4f);
    r = fmaf(r, f, 1.3333558e-3f);
    r = fmaf(r, f, 9.6181291e-3f);
    r = fmaf(r, f, 5.5504109e-2f);
    r = fmaf(r, f, 2.4022651e-1f);
    r = fmaf(r, f, 6.9314718e-1f);
    r = fmaf(r, f, 1.0f);
    /* in two steps: a subnormal result is rounded by the second alone */
    int32_t e = (int32_t)n, half = e >> 1;
    r = r * float32((uint32_t)(half + 127) << 23) * float32((uint32_t)(e - half + 127) << 23);
    return a != a ? a : r;
}
VN_INLINE float lg2_approx(float a)
{
    uint64_t u = bits64((double)a); /* subnormal floats are normal doubles */
    int32_t e = (int32_t)(u >> 52 & 0x7ff) - 1023;
    uint64_t m = (u & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    double x = float64(m);
    int high = x > 1.41421356237309504880;
    x = high ? x * 0.5 : x;
    e += high;
    /* ln x = 2 atanh((x - 1) / (x + 1)) */
    double s = (x - 1.0) / (x + 1.0), z = s * s;
    double r = 1.0 / 13;
    r = r * z + 1.0 / 11;
    r = r * z + 1.0 / 9;
    r = r * z + 1.0 / 7;
    r = r * z + 1.0 / 5;
    r = r * z + 1.0 / 3;
    r = r * z + 1.0;
    float y = (float)((double)e + 2.0 * s * r * 1.44269504088896340736);
    y = a == INFINITY ? INFINITY : y;
    y = a == 0.0f ? -INFINITY : y;
    return a < 0.0f || a != a ? qnan_f32() : y;
}
VN_INLINE float sincos_core(float a, int quarter)
{
    double x = (double)a;
    double k = rint(x * 0.636619772367581343076);
    double r = (x - k * 1.57079632679489655800) - k * 6.12323399573676603587e-17;
    r = fabs(r) < 2.0 ? r : 0.0; /* so large that nothing is left of the argument */
    double z = r * r;
    double s = -1.0 / 39916800;
    s = s * z + 1.0 / 362880;
    s = s * z - 1.0 / 5040;
    s = s * z + 1.0 / 120;
    s = s * z - 1.0 / 6;
    s = s * z * r + r;
    double c = 1.0 / 479001600;
    c = c * z - 1.0 / 3628800;
    c = c * z + 1.0 / 40320;
    c = c * z - 1.0 / 720;
    c = c * z + 1.0 / 24;
    c = c * z - 0.5;
    c = c * z + 1.0;
    double low = k - 4.0 * floor(k * 0.25); /* k modulo 4, exact */
    low = low == low && low < 4.0 ? low : 0.0;
    int32_t q = (int32_t)low + quarter;
    double y = q & 1 ? c : s;
    y = q & 2 ? -y : y;
    return fabsf(a) < INFINITY ? (float)y : qnan_f32();
}
VN_INLINE float sin_approx(float a)
{
    float r = sincos_core(a, 0);
    return a == 0.0f ? a : r;
}
VN_INLINE float cos_approx(float a)
{
    return sincos_core(a, 1);
}
VN_INLINE float tanh_approx(float a)
{
    double x = (double)fabsf(a);
    double big = x > 20.0 ? 20.0 : x;
    big = a != a ? 0.0 : big;
    double e = exp2_core(big * 2.88539008177792681472);
    double t = 1.0 - 2.0 / (e + 1.0);
    double z = x * x;
    double small = x * (1.0 + z * (-1.0 / 3 + z * (2.0 / 15 + z * (-17.0 / 315))));
    float r = (float)(x < 0.125 ? small : t);
    return a != a ? a : copysignf(r, a);
}

/* ---- f16, bf16 ---- */

VN_INLINE float half_to_f32(uint32_t h)
{
    uint32_t sign = (h & 0x8000) << 16, rest = h & 0x7fff;
    uint32_t normal = (rest << 13) + 0x38000000;
    normal = rest >= 0x7c00 ? normal + 0x38000000 : normal;
    /* a subnormal: its integer value times 2^-24, exactly */
    uint32_t small = bits32((float)(int32_t)rest * 0x1p-24f);
    return float32(sign | (rest < 0x400 ? small : normal));
}
VN_INLINE uint32_t half_from_f32(float x)
{
    uint32_t u = bits32(x), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    uint32_t normal = (u + 0xfff + (u >> 13 & 1) - 0x38000000) >> 13;
    /* below 2^-14: adding 0.5 leaves the rounded bits at the end of the fraction */
    uint32_t small = bits32(float32(u) + 0.5f) - 0x3f000000;
    uint32_t r = u < 0x38800000 ? small : normal;
    r = u >= 0x477ff000 ? 0x7c00 : r;
    r = u > 0x7f800000 ? 0x7fff : r;
    return (u > 0x7f800000 ? 0 : sign) | r;
}
VN_INLINE float bf16_to_f32(uint32_t h)
{
    return float32(h << 16);
}
VN_INLINE uint32_t bf16_from_f32(float x)
{
    uint32_t u = bits32(x);
    uint32_t r = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : r;
}
/* The f32 next to x with an odd last bit unless x is exact: a later rounding to fewer bits is then
 * the right one. */
VN_INLINE float f32_odd(double x)
{
    float f = (float)x;
    double back = (double)f;
    uint32_t u = bits32(f);
    int inexact = back != x && x == x;
    int over = fabs(back) > fabs(x); /* away from zero: step back */
    uint32_t t = over ? u - 1 : u;
    return float32(inexact ? t | 1 : u);
}
/* a * b + c with the product exact in f64 and the sum rounded to odd. */
VN_INLINE double fma_odd(double p, double c)
{
    double s = p + c;
    double bb = s - p;
    double e = (p - (s - bb)) + (c - bb);
    uint64_t u = bits64(s);
    int toward_zero = (e < 0) != (s < 0);
    uint64_t t = toward_zero ? u - 1 : u;
    int inexact = e != 0.0 && e == e && fabs(s) < INFINITY;
    return float64(inexact && !(u & 1) ? t | 1 : u);
}
VN_INLINE uint32_t half_add(uint32_t a, uint32_t b)
{
    return half_from_f32(half_to_f32(a) + half_to_f32(b)); /* exact in f32 */
}
VN_INLINE uint32_t half_sub(uint32_t a, uint32_t b)
{
    return half_from_f32(half_to_f32(a) - half_to_f32(b));
}
VN_INLINE uint32_t half_mul(uint32_t a, uint32_t b)
{
    return half_from_f32(half_to_f32(a) * half_to_f32(b));
}
VN_INLINE uint32_t half_fma(uint32_t a, uint32_t b, uint32_t c)
{
    double p = (double)half_to_f32(a) * (double)half_to_f32(b);
    return half_from_f32(f32_odd(fma_odd(p, (double)half_to_f32(c))));
}
VN_INLINE uint32_t bf16_fma(uint32_t a, uint32_t b, uint32_t c)
{
    double p = (double)bf16_to_f32(a) * (double)bf16_to_f32(b);
    return bf16_from_f32(f32_odd(fma_odd(p, (double)bf16_to_f32(c))));
}
VN_INLINE uint32_t bf16_mul(uint32_t a, uint32_t b)
{
    double p = (double)bf16_to_f32(a) * (double)bf16_to_f32(b);
    return bf16_from_f32(f32_odd(p));
}
VN_INLINE uint32_t half_relu(uint32_t x)
{
    uint32_t r = x & 0x8000 ? 0 : x;
    return (x & 0x7fff) > 0x7c00 ? 0x7fff : r;
}
VN_INLINE uint32_t bf16_relu(uint32_t x)
{
    uint32_t r = x & 0x8000 ? 0 : x;
    return (x & 0x7fff) > 0x7f80 ? 0x7fff : r;
}
VN_INLINE uint32_t minmax16(uint32_t a, uint32_t b, uint32_t inf, int less, int nan)
{
    a &= 0xffff;
    b &= 0xffff;
    int32_t ka = (a & 0x8000) ? -(int32_t)(a & 0x7fff) - 1 : (int32_t)a;
    int32_t kb = (b & 0x8000) ? -(int32_t)(b & 0x7fff) - 1 : (int32_t)b;
    int na = (a & 0x7fff) > inf, nb = (b & 0x7fff) > inf;
    uint32_t r = (less ? ka < kb : ka > kb) ? a : b;
    r = na ? b : r;
    r = nb ? a : r;
    return (nan ? na | nb : na & nb) ? 0x7fff : r;
}
VN_INLINE uint32_t half_minmax(uint32_t a, uint32_t b, int less, int nan)
{
    return minmax16(a, b, 0x7c00, less, nan);
}
VN_INLINE uint32_t bf16_minmax(uint32_t a, uint32_t b, int less, int nan)
{
    return minmax16(a, b, 0x7f80, less, nan);
}
VN_INLINE uint32_t half_from_f64(double x)
{
    uint32_t nan = 0x7fff | (uint32_t)(bits64(x) >> 48 & 0x8000);
    return x != x ? nan : half_from_f32(f32_odd(x));
}
VN_INLINE uint32_t bf16_from_f64(double x)
{
    return bf16_from_f32(f32_odd(x));
}
/* Toward zero. */
VN_INLINE uint32_t half_from_f32_rz(float x)
{
    uint32_t u = bits32(x), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    uint32_t normal = (u - 0x38000000) >> 13;
    uint32_t small = (uint32_t)(float32(u < 0x38800000 ? u : 0) * 0x1p24f);
    uint32_t r = u < 0x38800000 ? small : normal;
    r = u >= 0x47800000 ? 0x7bff : r;
    r = u == 0x7f800000 ? 0x7c00 : r;
    r = u > 0x7f800000 ? 0x7fff : r;
    return (u > 0x7f800000 ? 0 : sign) | r;
}
VN_INLINE uint32_t bf16_from_f32_rz(float x)
{
    uint32_t u = bits32(x);
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : u >> 16;
}
VN_INLINE uint32_t tf32_from_f32(float x) /* to nearest, ties away */
{
    uint32_t u = bits32(x);
    uint32_t r = (u + 0x1000) & 0xffffe000;
    /* a NaN of small payload becomes infinity */
    return (u & 0x7fffffff) > 0x7fffefff ? u & 0xffffe000 : r;
}
VN_INLINE uint32_t tf32_from_f32_rn(float x)
{
    uint32_t u = bits32(x);
    uint32_t r = (u + 0xfff + (u >> 13 & 1)) & 0xffffe000;
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : (u & 0x7fffffff) == 0x7f800000 ? u : r;
}
VN_INLINE uint32_t tf32_from_f32_rz(float x)
{
    uint32_t u = bits32(x);
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : u & 0xffffe000;
}
/* x with the magnitude of an f16 (or bf16) infinity or above becomes the largest finite one. */
VN_INLINE uint32_t half_finite(uint32_t h)
{
    return (h & 0x7fff) == 0x7c00 ? (h & 0x8000) | 0x7bff : h;
}
VN_INLINE uint32_t bf16_finite(uint32_t h)
{
    return (h & 0x7fff) == 0x7f80 ? (h & 0x8000) | 0x7f7f : h;
}
VN_INLINE float relu32(float x)
{
    return x != x ? x : x > 0.0f ? x : 0.0f;
}

VN_INLINE uint32_t nan16(uint32_t x, uint32_t inf)
{
    return (x & 0x7fff) > inf ? 0x7fff : x;
}
VN_INLINE uint32_t nan16x2(uint32_t x, uint32_t inf)
{
    return pack(nan16(lo16(x), inf), nan16(hi16(x), inf));
}
VN_INLINE uint32_t half_ftz(uint32_t x)
{
    return x & 0x7c00 ? x : x & 0x8000;
}
VN_INLINE uint32_t half_sat(uint32_t x)
{
    uint32_t r = x & 0x8000 ? 0 : x > 0x3c00 ? 0x3c00 : x;
    return (x & 0x7fff) > 0x7c00 ? 0 : r;
}

/* ---- fp8 ---- */

/* man: stored fraction bits; bias; top: the largest finite code. Nearest even, saturating. */
VN_INLINE uint32_t fp8_from_f32(float x, uint32_t man, int32_t bias, uint32_t top)
{
    uint32_t u = bits32(x), sign = u >> 24 & 0x80;
    u &= 0x7fffffff;
    uint32_t shift = 23 - man;
    uint32_t rounded = u + (((uint32_t)1 << (shift - 1)) - 1) + (u >> shift & 1);
    uint32_t normal = (rounded >> shift) - ((uint32_t)(127 - bias) << man);
    /* below the smallest normal: fixed point with unit 2^(1 - bias - man); the sum rounds it */
    float unit = float32((uint32_t)(127 + (24 - bias - (int32_t)man)) << 23);
    uint32_t small = bits32(float32(u) + unit) - bits32(unit);
    uint32_t r = u < (uint32_t)(128 - bias) << 23 ? small : normal;
    r = r > top || u >= 0x7f800000 ? top : r;
    return u > 0x7f800000 ? 0x7f : sign | r;
}
VN_INLINE uint32_t e4m3_from_f32(float x)
{
    return fp8_from_f32(x, 3, 7, 0x7e);
}
VN_INLINE uint32_t e5m2_from_f32(float x)
{
    return fp8_from_f32(x, 2, 15, 0x7b);
}
VN_INLINE uint32_t e5m2_to_half(uint32_t x)
{
    uint32_t h = (x & 0xff) << 8;
    return (h & 0x7fff) > 0x7c00 ? 0x7fff : h;
}
VN_INLINE float e4m3_to_f32(uint32_t x)
{
    uint32_t sign = (x & 0x80) << 24, rest = x & 0x7f;
    uint32_t normal = (rest << 20) + ((uint32_t)(127 - 7) << 23);
    uint32_t small = bits32((float)(int32_t)rest * 0x1p-9f);
    uint32_t r = rest < 8 ? small : normal;
    return float32(rest == 0x7f ? 0x7fffffff : sign | r);
}
VN_INLINE uint32_t e4m3_to_half(uint32_t x)
{
    return half_from_f32(e4m3_to_f32(x));
}
VN_INLINE float e5m2_to_f32(uint32_t x)
{
    return half_to_f32(e5m2_to_half(x));
}

/* ---- float to integer: saturating ---- */

#define TO_INT(t, low, high, C)                                                                    \
    VN_INLINE C to_##t(double x)                                                                   \
    {                                                                                              \
        double y = x != x ? 0.0 : x;                                                               \
        y = y < (double)(low) ? (double)(low) : y;                                                 \
        y = y > (double)(high) ? (double)(high) : y;                                               \
        return (C)y;                                                                               \
    }
TO_INT(u8, 0, 255, uint8_t)
TO_INT(s8, -128, 127, int8_t)
TO_INT(u16, 0, 65535, uint16_t)
TO_INT(s16, -32768, 32767, int16_t)
TO_INT(u32, 0, 4294967295.0, uint32_t)
TO_INT(s32, -2147483648.0, 2147483647, int32_t)
#undef TO_INT
VN_INLINE int64_t to_s64(double x)
{
    double y = x != x || x >= 0x1p63 || x < -0x1p63 ? 0.0 : x;
    int64_t r = (int64_t)y;
    r = x >= 0x1p63 ? INT64_MAX : r;
    return x < -0x1p63 || x != x ? INT64_MIN : r;
}
VN_INLINE uint64_t to_u64(double x)
{
    double y = x != x || x >= 0x1p64 || x < 0.0 ? 0.0 : x;
    uint64_t r = (uint64_t)y;
    r = x != x ? (uint64_t)1 << 63 : r;
    return x >= 0x1p64 ? UINT64_MAX : r;
}
/* Integers that no f64 holds keep a sticky bit, so that one rounding remains. */
VN_INLINE double u64_odd(uint64_t a)
{
    uint64_t high = a >> 53 ? (a >> 11 | ((a & 0x7ff) != 0)) : 0;
    return a >> 53 ? (double)high * 2048.0 : (double)a;
}
VN_INLINE double s64_odd(int64_t a)
{
    double m = u64_odd(a < 0 ? 0 - (uint64_t)a : (uint64_t)a);
    return a < 0 ? -m : m;
}
/* From f64, hardware makes a NaN the integer with only the top bit; from f32 to 32 bits, 0. */
#define to64_u8 to_u8
#define to64_s8 to_s8
#define to64_u16 to_u16
#define to64_s16 to_s16
#define to64_u64 to_u64
#define to64_s64 to_s64
VN_INLINE uint32_t to64_u32(double x)
{
    return x != x ? 0x80000000u : to_u32(x);
}
VN_INLINE int32_t to64_s32(double x)
{
    return x != x ? INT32_MIN : to_s32(x);
}
VN_INLINE float f32_rz(double x) /* a double to f32 toward zero */
{
    float f = (float)x;
    uint32_t u = bits32(f);
    return float32(fabs((double)f) > fabs(x) ? u - 1 : u); /* a NaN is not above */
}

#define FROM_INT(t, C, odd)                                                                        \
    VN_INLINE float int_rz_##t(C a)                                                                \
    {                                                                                              \
        return f32_rz(odd(a));                                                                     \
    }                                                                                              \
    VN_INLINE uint32_t half_from_int_##t(C a)                                                      \
    {                                                                                              \
        return half_from_f64(odd(a));                                                              \
    }                                                                                              \
    VN_INLINE uint32_t bf16_from_int_##t(C a)                                                      \
    {                                                                                              \
        return bf16_from_f64(odd(a));                                                              \
    }
FROM_INT(u8, uint8_t, u64_odd)
FROM_INT(s8, int8_t, s64_odd)
FROM_INT(u16, uint16_t, u64_odd)
FROM_INT(s16, int16_t, s64_odd)
FROM_INT(u32, uint32_t, u64_odd)
FROM_INT(s32, int32_t, s64_odd)
FROM_INT(u64, uint64_t, u64_odd)
FROM_INT(s64, int64_t, s64_odd)
#undef FROM_INT

#endif
