/*
 * Random shapes through every op that multiplies: few rows and many, terms and outputs that fill no
 * vector, empty groups, all formats, odd addresses; among the values NaN, infinities, denormals,
 * and FP8's NaN and its largest scales. The scalar form is the definition; for_each_form holds the
 * others against it, bit for bit, and run() sees a write outside an output.
 */
#include "harness.h"

#include <math.h>
#include <string.h>

static const mh_format formats[] = {MH_FORMAT_F32, MH_FORMAT_F16, MH_FORMAT_BF16, MH_FORMAT_FP8};
static const int64_t rows_of[] = {1, 2, 3, 5, 8, 11, 12, 13, 16, 17, 20, 33};

static int64_t any_rows(struct harness *h)
{
    return rows_of[below(h, sizeof(rows_of) / sizeof(rows_of[0]))];
}

/* One value in `odds` becomes special. */
static void spoil(struct harness *h, const mh_tensor *t, uint32_t odds)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, 1e-40f, -1e-42f, 3e38f, -0.0f};
    for (int64_t i = 0; i < t->shape[0]; i++)
        for (int64_t j = 0; j < (t->rank > 1 ? t->shape[1] : 1); j++)
            for (int64_t k = 0; k < (t->rank > 2 ? t->shape[2] : 1); k++)
                if (!below(h, odds))
                    *f32_at(h, t, i, j, k) = special[below(h, 7)];
}

/* A weight, at times with special values in it. Its image: harness.c. */
static mh_weight *any_weight(struct harness *h, mh_format format, int64_t experts, int64_t out,
                             int64_t in)
{
    float *values;
    mh_weight *w = make_weight(h, format, experts, out, in, &values);
    int64_t count = experts * out * in;
    unsigned char *data = (unsigned char *)values + count * 4 + 1;
    if (format != MH_FORMAT_FP8 || below(h, 3))
        return w;
    data[below(h, (uint32_t)count)] = 0x7F;
    data[below(h, (uint32_t)count)] = 0xFF;
    float large = below(h, 2) ? 300.0f : NAN;
    memcpy(data + count + 1 + count % 2, &large, 4);
    return w;
}

static int64_t around(struct harness *h, int64_t most)
{
    static const int64_t borders[] = {1, 16, 48, 63, 64, 65, 96, 128, 130, 192, 256};
    int64_t size = below(h, 2) ? borders[below(h, 11)] : 1 + below(h, (uint32_t)most);
    return size < most ? size : most;
}

static mh_tensor values(struct harness *h, uint32_t rank, int64_t a, int64_t b, int64_t c)
{
    return make(h, MH_F32, below(h, 4), rank, a, b, c);
}

static void linear_layers(struct harness *h)
{
    for (int n = 0; n < 60; n++) {
        mh_format format = formats[n % 4];
        int64_t rows = any_rows(h), in = around(h, 300), out = around(h, 120);
        mh_op_linear op = MH_OP_INIT(linear, LINEAR);
        op.x = values(h, 2, rows, in, 0), op.y = values(h, 2, rows, out, 0);
        op.w = any_weight(h, format, 1, out, in);
        if (n % 3 == 0)
            spoil(h, &op.x, 200);
        RUN(h, op, op.y);
        mh_op_linear_add add = MH_OP_INIT(linear_add, LINEAR_ADD);
        add.x = op.x, add.residual = op.y, add.y = op.y, add.w = op.w;
        RUN(h, add, add.y);
        mh_op_linear_swiglu gated = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
        gated.x = op.x, gated.y = values(h, 2, rows, out, 0);
        gated.gate = op.w, gated.up = any_weight(h, format, 1, out, in);
        RUN(h, gated, gated.y);
        harness_clear(h);
    }
}

static void experts(struct harness *h)
{
    for (int n = 0; n < 40; n++) {
        mh_format format = formats[n % 4];
        int64_t rows = any_rows(h), k = 1 + below(h, 4), count = k + below(h, 6);
        int64_t in = around(h, 200), out = around(h, 100);
        mh_op_experts_gate_up up = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
        up.x = values(h, 2, rows, in, 0), up.y = values(h, 3, rows, k, out);
        up.experts = make(h, MH_I32, 1, 2, rows, k, 0), up.fault = h->fault;
        /* Some choices all fall on one expert, so that a group has many rows. */
        int64_t favourite = below(h, 3) ? -1 : (int64_t)below(h, (uint32_t)count);
        for (int64_t i = 0; i < rows * k; i++)
            *i32_at(h, &up.experts, i / k, i % k) = favourite >= 0 && below(h, 4)
                                                        ? (int32_t)favourite
                                                        : (int32_t)below(h, (uint32_t)count);
        up.gate = any_weight(h, format, count, out, in);
        up.up = any_weight(h, format, count, out, in);
        RUN(h, up, up.y);
        mh_op_experts_down down = MH_OP_INIT(experts_down, EXPERTS_DOWN);
        down.x = up.y, down.y = values(h, 3, rows, k, in), down.experts = up.experts;
        down.fault = h->fault, down.w = any_weight(h, format, count, in, out);
        RUN(h, down, down.y);
        mh_op_experts_down_combine both = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
        both.h = values(h, 2, rows, in, 0), both.y = both.h, both.x = up.y;
        both.weights = values(h, 2, rows, k, 0), both.experts = up.experts;
        both.fault = h->fault, both.w = down.w;
        RUN(h, both, both.y);
        harness_clear(h);
    }
}

static void heads(struct harness *h)
{
    for (int n = 0; n < 40; n++) {
        int64_t rows = any_rows(h), count = 1 + below(h, 5);
        int64_t latent = around(h, 150), part = around(h, 100), first = below(h, 40);
        if (n == 7) /* FP8's columns: a stretch of 48 that lies in the last in % 64 of them */
            latent = 150;
        mh_op_head_linear op = MH_OP_INIT(head_linear, HEAD_LINEAR);
        op.head_rows = first + part + below(h, 9), op.row_begin = first, op.row_count = part;
        op.w = any_weight(h, formats[n % 4], 1, count * op.head_rows, latent);
        op.transposed = (uint32_t)(n / 4 % 2);
        op.x = values(h, 3, rows, count, op.transposed ? part : latent);
        op.y = values(h, 3, rows, count, op.transposed ? latent : part);
        if (n % 3 == 0)
            spoil(h, &op.x, 300);
        RUN(h, op, op.y);
        harness_clear(h);
    }
}

/* Two sequences in pages out of order; prefill, decode, padding and a fault among the rows. */
static void attention(struct harness *h)
{
    for (int n = 0; n < 36; n++) {
        int64_t rows = any_rows(h), count = n % 3 ? 1 + below(h, 9) : 17 + below(h, 5);
        int64_t latent = around(h, 100), rotary = 2 * (1 + below(h, 12)), page = 16 + below(h, 30);
        int64_t most = n % 2 ? 620 : 90, pages = (most + page - 1) / page;
        mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
        op.q = values(h, 3, rows, count, latent + rotary), op.y = values(h, 3, rows, count, latent);
        op.cache = make(h, n % 4 < 2 ? MH_F32 : MH_BF16, 0, 3, 2 * pages, page, latent + rotary);
        for (int64_t i = 0; op.cache.dtype == MH_BF16 && i < 2 * pages * page; i++)
            for (int64_t k = 0; k < latent + rotary; k++) {
                float value = uniform(h);
                uint32_t bits;
                memcpy(&bits, &value, 4);
                uint16_t half = (uint16_t)(bits >> 16);
                memcpy(h->base + op.cache.offset +
                           (uint64_t)(i / page * op.cache.stride[0] +
                                      i % page * op.cache.stride[1] + 2 * k),
                       &half, 2);
            }
        if (n % 5 == 0 && op.cache.dtype == MH_F32)
            spoil(h, &op.cache, 5000);
        op.page_table = make(h, MH_I32, 0, 2, 2, pages, 0);
        for (int64_t i = 0; i < 2 * pages; i++)
            *i32_at(h, &op.page_table, i / pages, i % pages) =
                (int32_t)(2 * pages - 1 - (i % pages * 2 + i / pages));
        op.positions = make(h, MH_I32, 0, 1, rows, 0, 0),
        op.slots = make(h, MH_I32, 0, 1, rows, 0, 0);
        int32_t from = (int32_t)below(h, (uint32_t)(most - rows));
        for (int64_t t = 0; t < rows; t++) {
            *i32_at(h, &op.slots, t, 0) = t > rows / 2 ? 1 : 0;
            *i32_at(h, &op.positions, t, 0) =
                n % 4 == 3 ? (int32_t)below(h, (uint32_t)most) : from + (int32_t)t;
            if (!below(h, 30))
                *i32_at(h, &op.slots, t, 0) = -1;
            if (!below(h, 60))
                *i32_at(h, &op.positions, t, 0) = (int32_t)(pages * page);
        }
        op.fault = h->fault, op.scale = 0.3f;
        RUN(h, op, op.y);
        harness_clear(h);
    }
}

#define TEST(body)                                                                                 \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_form(body);                                                                       \
    }
TEST(linear_layers)
TEST(experts)
TEST(heads)
TEST(attention)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_layers),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
