/*
 * The bounds of the fast profile against kernels that keep them and kernels that do not: products
 * of bf16 operands summed in f32 in blocks, as matrix units do, and the same with a mistake each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"

enum mistake {
    NONE,
    BF16_OUTPUT,     /* rounds its result to bf16: allowed */
    DROPS_LAST_16,   /* of K */
    DROPS_ONE_BLOCK, /* 16 of K in the middle, in one tile only */
    FLIPS_ONE,       /* one element has its sign the wrong way */
    MIXES_ROWS,      /* two rows of w swapped */
    FP8_INSTEAD,     /* w with 3 bits of mantissa */
    LOSES_EXPERT,    /* one of the experts is not there */
};

enum { ROWS = 33, COLUMNS = 40 };

static uint32_t state;

static float uniform(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)((int32_t)(state >> 8) - (1 << 23)) * 0x1p-23f;
}

static float round_to(float value, int dropped_bits)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t half = (1u << (dropped_bits - 1)) - 1 + (bits >> dropped_bits & 1);
    bits = (bits + half) >> dropped_bits << dropped_bits;
    memcpy(&value, &bits, 4);
    return value;
}

static float product(const float *x, const float *w, int64_t k, enum mistake m, int64_t r,
                     int64_t c)
{
    float sum = 0;
    for (int64_t b = 0; b < k; b += 16) {
        float block = 0;
        bool dropped = (m == DROPS_LAST_16 && b + 16 >= k) ||
                       (m == DROPS_ONE_BLOCK && b / 16 == k / 32 && r < 16 && c < 16);
        for (int64_t i = b; i < k && i < b + 16 && !dropped; i++)
            block += x[i] * (m == FP8_INSTEAD ? round_to(w[i], 20) : w[i]);
        sum += block;
    }
    if (m == BF16_OUTPUT)
        sum = round_to(sum, 16);
    return m == FLIPS_ONE && r == 20 && c == 3 ? -sum : sum;
}

static bool judge(int64_t k, enum mistake m)
{
    float *x = malloc((size_t)(ROWS * k) * 4), *w = malloc((size_t)(COLUMNS * k) * 4);
    float *got = malloc(ROWS * COLUMNS * 4);
    double *exact = calloc(ROWS * COLUMNS, 8), *energy = calloc(ROWS * COLUMNS, 8);
    char message[256] = "";
    for (int64_t i = 0; i < ROWS * k; i++)
        x[i] = round_to(uniform(), 16);
    for (int64_t i = 0; i < COLUMNS * k; i++)
        w[i] = round_to(uniform(), 16);
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t c = 0; c < COLUMNS; c++) {
            int64_t row = m == MIXES_ROWS && c == 17 ? 18 : m == MIXES_ROWS && c == 18 ? 17 : c;
            for (int64_t i = 0; i < k; i++) {
                double term = (double)x[r * k + i] * (double)w[c * k + i];
                exact[r * COLUMNS + c] += term;
                energy[r * COLUMNS + c] += term * term;
            }
            got[r * COLUMNS + c] =
                m == LOSES_EXPERT ? 0 : product(x + r * k, w + row * k, k, m, r, c);
        }
    struct fast_product p = {ROWS, COLUMNS, got, exact, energy};
    bool within = conf_fast_within(&p, message, sizeof(message));
    assert_true(within || strstr(message, "tile at ["));
    free(x), free(w), free(got), free(exact), free(energy);
    return within;
}

static const int64_t depths[] = {64, 128, 576, 1408, 2048, 7168};

static void honest_kernels_pass(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
        assert_true(judge(depths[i], NONE));
        assert_true(judge(depths[i], BF16_OUTPUT));
    }
}

static void each_mistake_is_seen(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++)
        for (enum mistake m = DROPS_LAST_16; m <= LOSES_EXPERT; m++)

            if (judge(depths[i], m))
                fail_msg("mistake %d passes at K = %lld", m, (long long)depths[i]);
}

static void nothing_is_nothing(void **unused)
{
    (void)unused;
    float got[3] = {0, 0, 0};
    double exact[3] = {0}, energy[3] = {0};
    char message[256];
    struct fast_product p = {1, 3, got, exact, energy};
    assert_true(conf_fast_within(&p, message, sizeof(message)));
    got[1] = 1e-30f; /* out of no energy */
    assert_false(conf_fast_within(&p, message, sizeof(message)));
    got[1] = NAN;
    energy[1] = 1;
    assert_false(conf_fast_within(&p, message, sizeof(message)));
}

int main(void)
{
    state = 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_kernels_pass),
        cmocka_unit_test(each_mistake_is_seen),
        cmocka_unit_test(nothing_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
