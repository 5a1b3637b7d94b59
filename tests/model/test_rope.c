/* The rotary table against libm in long double, and the released models' first angles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "../../model/rope.h"

static void check(const double *inv, int64_t half, double amplitude, int64_t positions)
{
    float *table = malloc(sizeof(float) * (size_t)(2 * half * positions));
    mh_rope_table(inv, half, amplitude, positions, table);
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < half; i++) {
            long double angle =
                (float)p * (float)inv[i]; /* rounded to f32, as the models have it */
            float c = (float)(cosl(angle) * amplitude), s = (float)(sinl(angle) * amplitude);
            float got_c = table[2 * half * p + i], got_s = table[2 * half * p + half + i];
            if (got_c != c || got_s != s)
                fail_msg("position %d, pair %d: %a %a, must be %a %a", (int)p, (int)i,
                         (double)got_c, (double)got_s, (double)c, (double)s);
        }
    free(table);
}

static void plain_angles(void **state)
{
    (void)state;
    double inv[8];
    for (int i = 0; i < 8; i++)
        inv[i] = pow(10000, -2.0 * i / 16);
    check(inv, 8, 1, 20000);
    for (int i = 0; i < 8; i++)
        inv[i] = pow(50000, -2.0 * i / 16);
    check(inv, 8, 1.25, 8192);
}

/* The longest context of V3: every position of the fastest pair and of a slow one. */
static void far_positions(void **state)
{
    (void)state;
    const double inv[] = {1, 0.7498942093324559};
    check(inv, 2, 1, 163840);
}

/* Angles near multiples of pi/2, where reduction loses most, up to the largest position allowed. */
static void hard_angles(void **state)
{
    (void)state;
    for (double n = 1; n < 1e7; n = n * 1.37 + 1) {
        float near = (float)(floor(n) * 1.57079632679489661923);
        const double inv[] = {(double)near};
        float table[4];
        mh_rope_table(inv, 1, 1, 2, table);
        float c = (float)cosl((long double)near), s = (float)sinl((long double)near);
        if (table[2] != c || table[3] != s)
            fail_msg("angle %a: %a %a, must be %a %a", (double)near, (double)table[2],
                     (double)table[3], (double)c, (double)s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_angles),
        cmocka_unit_test(far_positions),
        cmocka_unit_test(hard_angles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
