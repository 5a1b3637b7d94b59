/* FP8 without infinities and negative zero, as gfx942 has it. */
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
