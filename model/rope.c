/*
 * rope.c: cos and sin in f64 by moehal's own code, so that no libm decides the bits. The argument
 * is a f32 value of at most 2^24 (config.c allows no more positions): reduction by pi/2 in four
 * parts (Cody and Waite), of which the first three have 29 bits, so that their products with the
 * quotient, of 24, are exact; then Taylor series on [-pi/4, pi/4], whose first neglected terms are
 * below 2^-58.
 */
#include "rope.h"

static const double PIO2_1 = 0x1.921fb54p+0; /* 29 bits of pi/2 */
static const double PIO2_2 = 0x1.10b461p-30; /* the next 29 */
static const double PIO2_3 = 0x1.a626331p-58;
static const double PIO2_4 = 0x1.1701b839a252p-88;

static double sin_series(double r)
{
    double z = r * r;
    double u = 1.0 / 355687428096000.0;
    u = 1.0 / 1307674368000.0 - z * u;
    u = 1.0 / 6227020800.0 - z * u;
    u = 1.0 / 39916800.0 - z * u;
    u = 1.0 / 362880.0 - z * u;
    u = 1.0 / 5040.0 - z * u;
    u = 1.0 / 120.0 - z * u;
    u = 1.0 / 6.0 - z * u;
    return r - r * z * u;
}

static double cos_series(double r)
{
    double z = r * r;
    double u = 1.0 / 6402373705728000.0;
    u = 1.0 / 20922789888000.0 - z * u;
    u = 1.0 / 87178291200.0 - z * u;
    u = 1.0 / 479001600.0 - z * u;
    u = 1.0 / 3628800.0 - z * u;
    u = 1.0 / 40320.0 - z * u;
    u = 1.0 / 720.0 - z * u;
    u = 1.0 / 24.0 - z * u;
    u = 1.0 / 2.0 - z * u;
    return 1.0 - z * u;
}

static void sin_cos(double x, double *sine, double *cosine)
{
    int64_t n = (int64_t)(x * 0x1.45f306dc9c883p-1 + 0.5); /* x >= 0: nearest multiple of pi/2 */
    double r = x - (double)n * PIO2_1;
    r = r - (double)n * PIO2_2;
    r = r - (double)n * PIO2_3;
    r = r - (double)n * PIO2_4;
    double s = sin_series(r), c = cos_series(r);
    switch (n & 3) {
    case 0:
        *sine = s, *cosine = c;
        break;
    case 1:
        *sine = c, *cosine = -s;
        break;
    case 2:
        *sine = -s, *cosine = -c;
        break;
    default:
        *sine = -c, *cosine = s;
    }
}

void mh_rope_table(const double *inv, int64_t half, double amplitude, int64_t positions,
                   float *table)
{
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)p * (float)inv[i];
            double s, c;
            sin_cos((double)angle, &s, &c);
            table[2 * half * p + i] = (float)(c * amplitude);
            table[2 * half * p + half + i] = (float)(s * amplitude);
        }
}
