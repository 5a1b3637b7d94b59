/* FP8 without infinities and negative zero, as gfx942 has it; f16 by other ways of rounding; bits
 * of 2/pi. */
#include <math.h>

#include "lanes.h"

float va_fp8_value(uint32_t v, int exponent_bits)
{
    int mantissa_bits = 7 - exponent_bits, bias = exponent_bits == 4 ? 8 : 16;
    int e = (int)(v >> mantissa_bits) & ((1 << exponent_bits) - 1);
    int m = (int)v & ((1 << mantissa_bits) - 1);
    if (v == 0x80)
        return NAN;
    float f = e ? ldexpf((float)(m + (1 << mantissa_bits)), e - bias - mantissa_bits)
                : ldexpf((float)m, 1 - bias - mantissa_bits);
    return v & 0x80 ? -f : f;
}

/* To nearest even. hold: what is too large becomes the largest, else NaN, as infinities do. */
uint32_t va_to_fp8(float f, int exponent_bits, bool hold)
{
    int mantissa_bits = 7 - exponent_bits, bias = exponent_bits == 4 ? 8 : 16, e;
    uint32_t sign = signbit(f) ? 0x80 : 0;
    if (f - f != 0)
        return 0x80;
    if (f == 0)
        return 0;
    float m = frexpf(fabsf(f), &e); /* m in [0.5, 1) */
    int field = e - 1 + bias;       /* of the exponent */
    int shift = field >= 1 ? mantissa_bits + 1 : mantissa_bits + field;
    uint32_t v;
    if (shift < -1)
        return 0;
    float scaled = __builtin_roundevenf(ldexpf(m, shift));
    /* With the hidden bit, so that a carry moves into the exponent. */
    v = (uint32_t)scaled + (field >= 1 ? (uint32_t)(field - 1) << mantissa_bits : 0);
    if (v > 0x7f)
        return hold ? sign | 0x7f : 0x80;
    return v ? sign | v : 0;
}

/* Random bits are added to those that do not fit, and the sum is cut off: so the manual's chapter
 * on 8-bit formats. Its pseudocode (which seed bits: as many as are cut off, from the top) rounds
 * the sum to nearest instead, which would move even what fits. What is below the smallest normal
 * number is first brought to its scale, as AMD's host code does. */
uint32_t va_to_fp8_random(float f, uint32_t random, int exponent_bits, bool hold)
{
    int mantissa_bits = 7 - exponent_bits, bias = exponent_bits == 4 ? 8 : 16;
    int cut = 23 - mantissa_bits;
    uint32_t u, sign = signbit(f) ? 0x80 : 0;
    memcpy(&u, &f, 4);
    u &= 0x7fffffff;
    if (u >= 0x7f800000)
        return 0x80;
    int field = (int)(u >> 23) - 127 + bias; /* of the exponent */
    uint32_t significand = u >> 23 ? (u & 0x7fffff) | 0x800000 : 0;
    if (field < 1) {
        significand = field > -31 ? significand >> (1 - field) : 0;
        field = 1;
    }
    /* With the hidden bit, so that a carry moves into the exponent. */
    uint32_t v = (significand + (random >> (32 - cut))) >> cut;
    v += (uint32_t)(field - 1) << mantissa_bits;
    if (v > 0x7f)
        return hold ? sign | 0x7f : 0x80;
    return v ? sign | v : 0;
}

/* The fraction of 2/pi: its bits, the first one topmost. */
static const uint64_t two_over_pi[] = {
    0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561,
    0xb7246e3a424dd2e0, 0x06492eea09d1921c, 0xfe1deb1cb129a73e, 0xe88235f52ebb4484,
    0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b, 0x1ff897ffde05980f,
    0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d, 0x7527bac7ebe5f17b,
    0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b0000, 0x0000000000000000,
};

double va_two_over_pi(double a, uint32_t segment)
{
    uint64_t u;
    memcpy(&u, &a, 8);
    uint32_t exponent = u >> 52 & 2047, shift = segment * 53, words = sizeof two_over_pi / 8;
    if (exponent > 1077)
        shift += exponent - 1077;
    shift = shift > 1201 ? 1201 : shift; /* there are no more */
    uint32_t word = shift / 64, bit = shift % 64;
    uint64_t high = two_over_pi[word], low = word + 1 < words ? two_over_pi[word + 1] : 0;
    uint64_t bits = (bit ? high << bit | low >> (64 - bit) : high) >> 11;
    return ldexp((double)bits, (exponent >= 1968 ? 128 : 0) - 53 - (int)shift);
}

uint32_t va_half_rounded(double v, unsigned direction, bool hold)
{
    uint32_t sign = signbit(v) ? 0x8000 : 0;
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, 4);
    if (isnan(v))
        return sign | 0x7e00 | (u >> 13 & 0x3ff);
    if (isinf(v))
        return sign | 0x7c00;
    int e;
    frexp(v, &e);
    int step = v == 0 || e - 11 < -24 ? -24 : e - 11; /* of the last bit */
    double scaled = ldexp(fabs(v), -step), whole = floor(scaled), rest = scaled - whole;
    bool away = direction == 0   ? rest > 0.5 || (rest == 0.5 && fmod(whole, 2) != 0)
                : direction == 1 ? rest > 0 && !sign
                : direction == 2 ? rest > 0 && sign
                                 : false;
    /* The hidden bit of a normal number, and a carry, go into the exponent. */
    double bits = whole + away + (step + 24) * 1024.0;
    if (bits < 0x7c00)
        return sign | (uint32_t)bits;
    bool infinite = direction == 0 || (direction == 1 && !sign) || (direction == 2 && sign);
    return sign | (infinite && !hold ? 0x7c00 : 0x7bff);
}
