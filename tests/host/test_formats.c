/*
 * Every value of the narrow formats, and every border between two of them: casts of f32, f16 and
 * bf16 both ways, and tables of each weight format read through embed. The oracles are f64
 * arithmetic on the formats' definitions and the compiler's own f16.
 */
#include "harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* A 16-bit pattern of either format by its definition; Inf and NaN are the format's own. */
static double value_of(uint16_t half, bool f16)
{
    int width = f16 ? 10 : 7, bias = f16 ? 15 : 127, top = f16 ? 31 : 255;
    int exponent = half >> width & top, fraction = half & ((1 << width) - 1);
    double magnitude;
    if (exponent == top)
        magnitude = fraction ? NAN : INFINITY;
    else if (exponent)
        magnitude = ldexp((1 << width) + fraction, exponent - bias - width);
    else
        magnitude = ldexp(fraction, 1 - bias - width);
    return copysign(magnitude, half & 0x8000 ? -1.0 : 1.0);
}

static mh_tensor line(struct harness *h, mh_dtype dtype, int64_t count)
{
    return make(h, dtype, 0, 1, count, 0, 0);
}

static uint16_t half_at(const struct harness *h, const mh_tensor *t, int64_t i)
{
    uint16_t half;
    memcpy(&half, h->base + t->offset + i * t->stride[0], 2);
    return half;
}

static void expect_half(const struct harness *h, const mh_op_cast *op, int64_t i, uint32_t want,
                        double from)
{
    uint16_t got = half_at(h, &op->y, i);
    if (got != want)
        fail_msg("%s of %a: %04x, must be %04x", mh_dtype_name(op->y.dtype), from, got, want);
}

/* ---- both ways over all 65536 patterns ---- */

static void all_patterns(struct harness *h)
{
    for (int f16 = 0; f16 < 2; f16++) {
        mh_op_cast widen = MH_OP_INIT(cast, CAST), back = widen;
        widen.x = line(h, f16 ? MH_F16 : MH_BF16, 65536);
        back.x = widen.y = line(h, MH_F32, 65536);
        back.y = line(h, f16 ? MH_F16 : MH_BF16, 65536);
        for (int i = 0; i < 65536; i++) {
            uint16_t half = (uint16_t)i;
            memcpy(h->base + widen.x.offset + 2 * i, &half, 2);
        }
        RUN(h, widen, widen.y);
        RUN(h, back, back.y);
        for (int i = 0; i < 65536; i++) {
            double want = value_of((uint16_t)i, f16);
            float got = *f32_at(h, &widen.y, i, 0, 0);
            if (isnan(want) ? !isnan(got) : bits_of(got) != bits_of((float)want))
                fail_msg("%s %04x is %a, must be %a", f16 ? "f16" : "bf16", i, (double)got, want);
            expect_half(h, &back, i, isnan(want) ? (f16 ? 0x7E00 : 0x7FC0) : (uint32_t)i, want);
        }
        harness_clear(h);
    }
}

/* f16 to bf16 and back: values the other format may not have. */
static void from_one_narrow_format_to_the_other(struct harness *h)
{
    for (int f16 = 0; f16 < 2; f16++) {
        mh_op_cast op = MH_OP_INIT(cast, CAST);
        op.x = line(h, f16 ? MH_F16 : MH_BF16, 65536);
        op.y = line(h, f16 ? MH_BF16 : MH_F16, 65536);
        for (int i = 0; i < 65536; i++) {
            uint16_t half = (uint16_t)i;
            memcpy(h->base + op.x.offset + 2 * i, &half, 2);
        }
        RUN(h, op, op.y);
        for (int i = 0; i < 65536; i++) {
            double from = value_of((uint16_t)i, f16);
            uint16_t want;
            if (isnan(from)) {
                want = f16 ? 0x7FC0 : 0x7E00;
            } else if (f16) { /* the nearest of two neighbours in bf16, by f64 */
                uint32_t low = bits_of((float)from) >> 16;
                double down = fabs(from - value_of((uint16_t)low, false));
                double up = fabs(value_of((uint16_t)(low + 1), false) - from);
                want = (uint16_t)(isinf(from) || down < up || (down == up && !(low & 1)) ? low
                                                                                         : low + 1);
            } else {
                binary16 half = (binary16)from;
                memcpy(&want, &half, 2);
            }
            expect_half(h, &op, i, want, from);
        }
        harness_clear(h);
    }
}

/* ---- rounding: the middle of every two neighbours, and the f32 just below and above it ---- */

static void all_borders(struct harness *h)
{
    for (int f16 = 0; f16 < 2; f16++) {
        const int infinity = f16 ? 0x7C00 : 0x7F80;
        const int64_t count = (int64_t)infinity * 6;
        mh_op_cast op = MH_OP_INIT(cast, CAST);
        op.x = line(h, MH_F32, count);
        op.y = line(h, f16 ? MH_F16 : MH_BF16, count);
        for (int i = 0; i < infinity; i++) {
            double low = value_of((uint16_t)i, f16);
            /* What follows the largest value is where Inf would be, were it a number. */
            double high = i + 1 < infinity ? value_of((uint16_t)(i + 1), f16)
                                           : 2 * low - value_of((uint16_t)(i - 1), f16);
            float middle = (float)((low + high) / 2);
            assert_true((double)middle == (low + high) / 2);
            const float around[] = {nextafterf(middle, 0), middle, nextafterf(middle, INFINITY)};
            for (int k = 0; k < 6; k++)
                *f32_at(h, &op.x, 6 * i + k, 0, 0) = k < 3 ? around[k] : -around[k - 3];
        }
        RUN(h, op, op.y);
        for (int i = 0; i < infinity; i++)
            for (int k = 0; k < 6; k++) {
                int up = k % 3 == 2 || (k % 3 == 1 && i % 2);
                expect_half(h, &op, 6 * i + k, (uint32_t)(i + up) | (k < 3 ? 0 : 0x8000),
                            (double)*f32_at(h, &op.x, 6 * i + k, 0, 0));
            }
        harness_clear(h);
    }
}

/* A quarter of a million f32 patterns a round, four rounds, all exponents; f16 by the compiler. */
static void random_patterns(struct harness *h)
{
    enum { COUNT = 1 << 18 };
    for (int round = 0; round < 4; round++) {
        mh_op_cast op = MH_OP_INIT(cast, CAST);
        op.x = line(h, MH_F32, COUNT);
        op.y = line(h, MH_F16, COUNT);
        for (int i = 0; i < COUNT; i++) {
            uint32_t bits = below(h, 1u << 16) << 16 | below(h, 1u << 16);
            if (i % 2) /* where f16 has values */
                bits = (bits & 0x807FFFFF) | (100 + below(h, 46)) << 23;
            if (i % 97 == 0)
                bits |= 0x7F800000; /* NaN, whatever its payload */
            *f32_at(h, &op.x, i, 0, 0) = of_bits(bits);
        }
        RUN(h, op, op.y);
        for (int i = 0; i < COUNT; i++) {
            float from = *f32_at(h, &op.x, i, 0, 0);
            binary16 half = (binary16)from;
            uint16_t want;
            memcpy(&want, &half, 2);
            expect_half(h, &op, i, isnan(from) ? 0x7E00 : want, (double)from);
        }
        harness_clear(h);
    }
}

/* ---- tables ---- */

/* Reads all rows of a table made of `data`, used in place at an odd address. */
static void read_table(struct harness *h, mh_format format, int64_t rows, int64_t columns,
                       const void *data, size_t bytes, const float *scales, size_t scale_count,
                       mh_op_embed *op)
{
    unsigned char *image = malloc(bytes + 4 * scale_count + 3);
    memcpy(image + 1, data, bytes);
    unsigned char *scale_bytes = image + 1 + bytes + (bytes & 1 ? 1 : 0);
    if (scale_count)
        memcpy(scale_bytes, scales, 4 * scale_count);
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = format, p.experts = 1, p.out = rows, p.in = columns;
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.flags = MH_PIECE_STAYS, piece.expert_count = 1, piece.row_count = rows;
    piece.plane[0] = image + 1, piece.plane[1] = scale_bytes;
    *op = MH_OP_INIT(embed, EMBED);
    OK(mh_weight_create(h->device, &p, &op->table));
    OK(mh_weight_write(op->table, &piece));
    OK(mh_weight_seal(op->table));
    op->tokens = line(h, MH_I32, rows);
    for (int64_t i = 0; i < rows; i++) /* from the last to the first */
        *i32_at(h, &op->tokens, i, 0) = (int32_t)(rows - 1 - i);
    op->y = make(h, MH_F32, 3, 2, rows, columns, 0);
    op->fault = h->fault;
    assert_int_equal(RUN(h, *op, op->y), 0);
    mh_weight_release(op->table);
    free(image);
}

static void expect_entry(const struct harness *h, const mh_op_embed *op, int64_t row,
                         int64_t column, float want, const char *what)
{
    float got = *f32_at(h, &op->y, op->y.shape[0] - 1 - row, column, 0);
    if (isnan(want) ? !isnan(got) : bits_of(got) != bits_of(want))
        fail_msg("%s [%d, %d]: %a, must be %a", what, (int)row, (int)column, (double)got,
                 (double)want);
}

static void tables_of_halves(struct harness *h)
{
    static uint16_t halves[65536];
    for (int i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (int f16 = 0; f16 < 2; f16++) {
        mh_op_embed op;
        read_table(h, f16 ? MH_FORMAT_F16 : MH_FORMAT_BF16, 128, 512, halves, sizeof(halves), NULL,
                   0, &op);
        for (int i = 0; i < 65536; i++)
            expect_entry(h, &op, i / 512, i % 512, (float)value_of((uint16_t)i, f16),
                         f16 ? "f16" : "bf16");
        harness_clear(h);
    }
}

static void tables_of_f32(struct harness *h)
{
    enum { ROWS = 77, COLUMNS = 201 };
    static float values[ROWS * COLUMNS];
    mh_op_embed op;
    for (int i = 0; i < ROWS * COLUMNS; i++)
        values[i] = of_bits(below(h, 1u << 16) << 16 | below(h, 1u << 16));
    read_table(h, MH_FORMAT_F32, ROWS, COLUMNS, values, sizeof(values), NULL, 0, &op);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        expect_entry(h, &op, i / COLUMNS, i % COLUMNS, values[i], "f32");
    harness_clear(h);
}

/* All bytes under each of 3 x 3 scales of ragged blocks. In f64 the product is exact (4 by 24
 * bits, no exponent below -1074), so that it is rounded once, to denormals as well. */
static void tables_of_fp8(struct harness *h)
{
    enum { ROWS = 300, COLUMNS = 267 };
    static const float scales[3][9] = {
        {1, 0.0123f, 3e-39f, 1e30f, 3e38f, 0x1p-149f, 0.3333333f, 0x1.fffffep-100f, 0x1.fffffep7f},
        {-1, 0, -0.0f, 0x1p8f, 0x1.8p119f, -7e-45f, 1e-37f, -0.7f, 0x1.000002p0f},
        {INFINITY, NAN, -INFINITY, 0x1p127f, 0x1p-126f, 0x1p-140f, 448, 1 / 448.0f, 0x1p-120f}};
    static uint8_t bytes[ROWS * COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++) /* every byte in every block, 44 x 11 the least */
        bytes[i] = (uint8_t)(i % COLUMNS % 128 + i / COLUMNS * 11);
    for (int s = 0; s < 3; s++) {
        mh_op_embed op;
        int seen[9][256] = {{0}};
        read_table(h, MH_FORMAT_FP8, ROWS, COLUMNS, bytes, sizeof(bytes), scales[s], 9, &op);
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            int row = i / COLUMNS, column = i % COLUMNS, byte = bytes[i];
            int exponent = byte >> 3 & 15, fraction = byte & 7,
                block = row / 128 * 3 + column / 128;
            double q = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
            if ((byte & 0x7F) == 0x7F)
                q = NAN;
            char what[40];
            snprintf(what, sizeof(what), "fp8 %02x * %g", (unsigned)byte, (double)scales[s][block]);
            float want = (float)((byte & 0x80 ? -q : q) * (double)scales[s][block]);
            expect_entry(h, &op, row, column, want, what);
            seen[block][byte]++;
        }
        for (int i = 0; i < 9 * 256; i++)
            assert_true(seen[i / 256][i % 256] > 0);
        harness_clear(h);
    }
}

#define TEST(body)                                                                                 \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_form(body);                                                                       \
    }
TEST(all_patterns)
TEST(from_one_narrow_format_to_the_other)
TEST(all_borders)
TEST(random_patterns)
TEST(tables_of_halves)
TEST(tables_of_f32)
TEST(tables_of_fp8)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_patterns),
        cmocka_unit_test(test_from_one_narrow_format_to_the_other),
        cmocka_unit_test(test_all_borders),
        cmocka_unit_test(test_random_patterns),
        cmocka_unit_test(test_tables_of_halves),
        cmocka_unit_test(test_tables_of_f32),
        cmocka_unit_test(test_tables_of_fp8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
