/*
 * numerics.h: the rules of docs/numerics.md that kernels share. Rounding steps are exactly those
 * written; the build forbids contraction.
 */
#ifndef HOST_NUMERICS_H
#define HOST_NUMERICS_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "f32 must be computed in f32; on 32-bit x86 build with -msse2 -mfpmath=sse"
#endif

#define STRIPES 64

static inline uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Rule 2: the fold of 64 stripes; destroys them. */
static inline float fold(float a[STRIPES])
{
    for (int j = 0; j < 32; j++)
        a[j] = a[j] + a[j + 32];
    for (int j = 0; j < 16; j++)
        a[j] = a[j] + a[j + 16];
    for (int j = 0; j < 8; j++)
        a[j] = a[j] + a[j + 8];
    for (int j = 0; j < 4; j++)
        a[j] = a[j] + a[j + 4];
    for (int j = 0; j < 2; j++)
        a[j] = a[j] + a[j + 2];
    return a[0] + a[1] + 0.0f;
}

/* Rule 2: a[j] = fma(x[k], w[k], a[j]) for the next `count` <= 64 terms. */
static inline void accumulate(float a[restrict STRIPES], const float *restrict x,
                              const float *restrict w, int64_t count)
{
    if (count == STRIPES) {
        for (int j = 0; j < STRIPES; j++)
            a[j] = fmaf(x[j], w[j], a[j]);
    } else {
        for (int64_t j = 0; j < count; j++)
            a[j] = fmaf(x[j], w[j], a[j]);
    }
}

static inline float dot(const float *x, const float *w, int64_t count)
{
    float a[STRIPES] = {0};
    for (int64_t k = 0; k < count; k += STRIPES)
        accumulate(a, x + k, w + k, count - k < STRIPES ? count - k : STRIPES);
    return fold(a);
}

/* Rule 4. */
static inline float rcp(float value)
{
    return 1.0f / value;
}

/* Rule 5. (Not named exp: that one is libm's, with other bits.) */
static inline float exp_exact(float x)
{
    if (x != x)
        return x;
    if (x > of_bits(0x42B17217))
        return INFINITY;
    if (x < -87.0f)
        return 0.0f;
    float t = fmaf(x, of_bits(0x3FB8AA3B), 12582912.0f);
    uint32_t i = bits_of(t) - 0x4B400000u;
    float n = t - 12582912.0f;
    float r = fmaf(n, -of_bits(0x3F317200), x);
    r = fmaf(n, -of_bits(0x35BFBE8E), r);
    float u = of_bits(0x39502BDA);
    u = fmaf(u, r, of_bits(0x3AB696C9));
    u = fmaf(u, r, of_bits(0x3C0888A6));
    u = fmaf(u, r, of_bits(0x3D2AAA7A));
    u = fmaf(u, r, of_bits(0x3E2AAAAB));
    u = fmaf(u, r, of_bits(0x3F000000));
    float square = r * r;
    float p = fmaf(square, u, r) + 1.0f;
    return of_bits(bits_of(p) + (i << 23));
}

static inline float sigmoid(float x)
{
    float z = -x;
    if (z > 87.0f)
        z = 87.0f;
    return rcp(1.0f + exp_exact(z));
}

static inline float swiglu(float gate, float up)
{
    float silu = gate * sigmoid(gate);
    return silu * up;
}

/* Rule 8: an integer that orders floats, -0 as +0, NaN below everything. */
static inline uint32_t selection_key(float value)
{
    uint32_t bits = bits_of(value);
    if (value != value)
        return 0;
    if (bits == 0x80000000u)
        bits = 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Rule 1. */
static inline uint16_t to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if (value != value)
        return 0x7FC0;
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline float from_bf16(uint16_t half)
{
    return of_bits((uint32_t)half << 16);
}

static inline float from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7FFF;
    /* 2^112 moves the exponent's bias and makes halves' denormals normal, exactly. */
    float value = of_bits(rest << 13) * 0x1p112f;
    /* Inf and NaN keep the product and get f32's top exponent: loops stay free of branches. */
    uint32_t special = rest >= 0x7C00 ? 0x7F800000 : 0;
    return of_bits(bits_of(value) | special | sign);
}

static inline uint16_t to_f16(float value)
{
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
    if (rest > 0x7F800000)
        return 0x7E00;
    if (rest >= 0x477FF000) /* 65520 and above round to Inf */
        return (uint16_t)(sign | 0x7C00);
    if (rest < 0x38800000) { /* below 2^-14: the sum's last place is 2^-24 */
        float shifted = of_bits(rest) + 0.5f;
        return (uint16_t)(sign | (bits_of(shifted) - 0x3F000000));
    }
    rest += 0xFFF + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

#endif
