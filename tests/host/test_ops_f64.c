/*
 * Ops that the independent vectors lack, against plain f64 arithmetic: every weight format, sizes
 * around the stripes' 64, rows apart, weights at odd addresses, pages in disorder, expert maps.
 *
 * The bound: a sum by rule 2 goes through at most K / 64 + 8 roundings, each of at most 2^-24 of
 * the sum of magnitudes (twice that is allowed here).
 */
#include "harness.h"

#include <math.h>
#include <string.h>

static const mh_format formats[] = {MH_FORMAT_F32, MH_FORMAT_F16, MH_FORMAT_BF16, MH_FORMAT_FP8};
static const int64_t sizes[] = {1, 3, 63, 64, 65, 130, 200};

static void near(double got, double want, double bound, const char *what)
{
    if (!(fabs(got - want) <= bound + 1e-37))
        fail_msg("%s: %.9g, must be %.9g within %.3g", what, got, want, bound);
}

struct sum {
    double value, magnitude;
    int64_t terms;
};

static void add_term(struct sum *s, double a, double b)
{
    s->value += a * b;
    s->magnitude += fabs(a * b);
    s->terms++;
}

static double bound_of(const struct sum *s)
{
    return (double)(s->terms / 64 + 9) * 0x1p-23 * s->magnitude;
}

/* Row `row` of `w` (row-major, `in` wide) with x[t]. */
static struct sum product(struct harness *h, const mh_tensor *x, int64_t t, const float *w,
                          int64_t row, int64_t in)
{
    struct sum s = {0};
    for (int64_t k = 0; k < in; k++)
        add_term(&s, *f32_at(h, x, t, k, 0), w[row * in + k]);
    return s;
}

static double swiglu(double g, double u)
{
    return g / (1 + exp(-g)) * u;
}

static void linears(struct harness *h)
{
    for (size_t f = 0; f < 4; f++)
        for (size_t n = 0; n < 7; n++)
            for (int64_t rows = 1; rows <= 6; rows += 5) {
                int64_t in = sizes[n], out = 2 + (int64_t)(n * 23 % 130);
                float *w, *u;
                mh_op_linear op = MH_OP_INIT(linear, LINEAR);
                op.w = make_weight(h, formats[f], 1, out, in, &w);
                op.x = make(h, MH_F32, 5, 2, rows, in, 0);
                op.y = make(h, MH_F32, 3, 2, rows, out, 0);
                mh_op_linear_add add = MH_OP_INIT(linear_add, LINEAR_ADD);
                add.x = op.x, add.w = op.w, add.y = make(h, MH_F32, 1, 2, rows, out, 0);
                add.residual = make(h, MH_F32, 0, 2, rows, out, 0);
                mh_op_linear_swiglu gated = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
                gated.x = op.x, gated.gate = op.w;
                gated.up = make_weight(h, formats[f], 1, out, in, &u);
                gated.y = make(h, MH_F32, 0, 2, rows, out, 0);
                RUN(h, op, op.y);
                RUN(h, add, add.y);
                RUN(h, gated, gated.y);
                for (int64_t t = 0; t < rows; t++)
                    for (int64_t o = 0; o < out; o++) {
                        struct sum s = product(h, &op.x, t, w, o, in);
                        struct sum up = product(h, &op.x, t, u, o, in);
                        double r = *f32_at(h, &add.residual, t, o, 0);
                        near(*f32_at(h, &op.y, t, o, 0), s.value, bound_of(&s), "linear");
                        near(*f32_at(h, &add.y, t, o, 0), s.value + r,
                             bound_of(&s) + 0x1p-22 * (fabs(r) + s.magnitude), "linear_add");
                        near(*f32_at(h, &gated.y, t, o, 0), swiglu(s.value, up.value),
                             bound_of(&s) * (1 + fabs(up.value)) * 2 +
                                 bound_of(&up) * (1 + fabs(s.value)) +
                                 1e-6 * fabs(s.value * up.value),
                             "linear_swiglu");
                    }
                harness_clear(h);
            }
}

static void head_projections(struct harness *h)
{
    enum { ROWS = 3, HEADS = 3, NOPE = 5, VALUE = 70, LATENT = 130 };
    for (size_t f = 0; f < 4; f++) {
        float *w;
        mh_op_head_linear up = MH_OP_INIT(head_linear, HEAD_LINEAR), down = up;
        up.w = down.w = make_weight(h, formats[f], 1, HEADS * (NOPE + VALUE), LATENT, &w);
        up.head_rows = down.head_rows = NOPE + VALUE;
        up.transposed = 1, up.row_count = NOPE;
        down.row_begin = NOPE, down.row_count = VALUE;
        up.x = make(h, MH_F32, 2, 3, ROWS, HEADS, NOPE);
        up.y = make(h, MH_F32, 1, 3, ROWS, HEADS, LATENT);
        down.x = make(h, MH_F32, 0, 3, ROWS, HEADS, LATENT);
        down.y = make(h, MH_F32, 7, 3, ROWS, HEADS, VALUE);
        RUN(h, up, up.y);
        RUN(h, down, down.y);
        for (int64_t t = 0; t < ROWS; t++)
            for (int64_t head = 0; head < HEADS; head++) {
                const float *rows = w + head * (NOPE + VALUE) * LATENT;
                for (int64_t c = 0; c < LATENT; c++) {
                    struct sum s = {0};
                    for (int64_t r = 0; r < NOPE; r++)
                        add_term(&s, *f32_at(h, &up.x, t, head, r), rows[r * LATENT + c]);
                    near(*f32_at(h, &up.y, t, head, c), s.value, bound_of(&s), "transposed");
                }
                for (int64_t r = 0; r < VALUE; r++) {
                    struct sum s = {0};
                    for (int64_t c = 0; c < LATENT; c++)
                        add_term(&s, *f32_at(h, &down.x, t, head, c),
                                 rows[(NOPE + r) * LATENT + c]);
                    near(*f32_at(h, &down.y, t, head, r), s.value, bound_of(&s), "head_linear");
                }
            }
        harness_clear(h);
    }
}

/* ---- attention over shuffled pages, several sequences ---- */

struct paged {
    mh_tensor cache, latent, rope, positions, slots, table;
};

enum { L = 20, R = 6, SLOTS = 2 };

static struct paged make_cache(struct harness *h, mh_dtype dtype, int64_t page, int64_t keys)
{
    const int slot_pages = (int)((keys + page - 1) / page) + 1, pages = SLOTS * slot_pages;
    struct paged p;
    p.cache = make(h, dtype, 0, 3, pages, page, L + R);
    p.table = make(h, MH_I32, 2, 2, SLOTS, slot_pages, 0);
    for (int i = 0; i < pages; i++) /* 37 divides no number of pages here: a shuffle */
        *i32_at(h, &p.table, i / slot_pages, i % slot_pages) = i * 37 % pages;
    p.latent = make(h, MH_F32, 3, 2, SLOTS * keys, L, 0);
    p.rope = make(h, MH_F32, 1, 2, SLOTS * keys, R, 0);
    p.positions = make(h, MH_I32, 0, 1, SLOTS * keys, 0, 0);
    p.slots = make(h, MH_I32, 0, 1, SLOTS * keys, 0, 0);
    for (int64_t i = 0; i < SLOTS * keys; i++) {
        *i32_at(h, &p.positions, i, 0) = (int32_t)(i / SLOTS);
        *i32_at(h, &p.slots, i, 0) = (int32_t)(i % SLOTS);
    }
    mh_op_kv_write op = MH_OP_INIT(kv_write, KV_WRITE);
    op.cache = p.cache, op.latent = p.latent, op.rope = p.rope, op.positions = p.positions;
    op.slots = p.slots, op.page_table = p.table, op.fault = h->fault;
    assert_int_equal(RUN(h, op, op.cache), 0);
    return p;
}

static double rounded(double value, mh_dtype dtype)
{
    float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (dtype == MH_BF16) {
        bits += 0x7FFF + (bits >> 16 & 1);
        bits &= 0xFFFF0000;
    }
    memcpy(&f, &bits, 4);
    return f;
}

static double key_at(struct harness *h, const struct paged *p, int slot, int64_t t, int64_t d)
{
    int64_t row = t * SLOTS + slot;
    return rounded(d < L ? *f32_at(h, &p->latent, row, d, 0) : *f32_at(h, &p->rope, row, d - L, 0),
                   p->cache.dtype);
}

static void check_head(struct harness *h, const struct paged *p, const mh_op_attention *op,
                       int64_t t, int64_t head)
{
    int slot = *i32_at(h, &op->slots, t, 0);
    int64_t keys = *i32_at(h, &op->positions, t, 0) + 1;
    double sum = 0, out[L] = {0}, most = -1e300, scores[700];
    for (int64_t k = 0; k < keys; k++) {
        scores[k] = 0;
        for (int64_t d = 0; d < L + R; d++)
            scores[k] += *f32_at(h, &op->q, t, head, d) * key_at(h, p, slot, k, d);
        scores[k] *= (double)op->scale;
        most = fmax(most, scores[k]);
    }
    for (int64_t k = 0; k < keys; k++) {
        double weight = exp(scores[k] - most);
        sum += weight;
        for (int64_t d = 0; d < L; d++)
            out[d] += weight * key_at(h, p, slot, k, d);
    }
    /* Weights are positive and keys at most 1: errors of scores (below 26) and sums stay small. */
    for (int64_t d = 0; d < L; d++)
        near(*f32_at(h, &op->y, t, head, d), out[d] / sum, 2e-5, "attention");
}

static void attention(struct harness *h)
{
    static const int32_t at[] = {0, 15, 16, 63, 64, 255, 256, 300, 511, 512, 600};
    for (int way = 0; way < 4; way++) {
        struct paged p = make_cache(h, way & 1 ? MH_BF16 : MH_F32, way & 2 ? 64 : 16, 601);
        mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
        op.q = make(h, MH_F32, 4, 3, 22, 2, L + R);
        op.y = make(h, MH_F32, 1, 3, 22, 2, L);
        op.positions = make(h, MH_I32, 0, 1, 22, 0, 0);
        op.slots = make(h, MH_I32, 0, 1, 22, 0, 0);
        for (int i = 0; i < 22; i++) {
            *i32_at(h, &op.positions, i, 0) = at[i / 2];
            *i32_at(h, &op.slots, i, 0) = i % 2;
        }
        op.cache = p.cache, op.page_table = p.table, op.fault = h->fault, op.scale = 0.7f;
        assert_int_equal(RUN(h, op, op.y), 0);
        for (int64_t t = 0; t < 22; t++)
            for (int64_t head = 0; head < 2; head++)
                check_head(h, &p, &op, t, head);
        harness_clear(h);
    }
}

/* ---- experts ---- */

static void experts(struct harness *h)
{
    enum { ROWS = 5, KEEP = 3, LOGICAL = 9, RESIDENT = 6, D = 70, I = 33 };
    for (size_t f = 0; f < 4; f++) {
        float *gate, *up, *down;
        mh_op_experts_gate_up a = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
        a.gate = make_weight(h, formats[f], RESIDENT, I, D, &gate);
        a.up = make_weight(h, formats[f], RESIDENT, I, D, &up);
        a.x = make(h, MH_F32, 1, 2, ROWS, D, 0);
        a.y = make(h, MH_F32, 2, 3, ROWS, KEEP, I);
        a.experts = make(h, MH_I32, 1, 2, ROWS, KEEP, 0);
        a.expert_map = make(h, MH_I32, 0, 1, LOGICAL, 0, 0);
        a.fault = h->fault;
        for (int e = 0; e < LOGICAL; e++) /* experts 2, 5 and 8 live elsewhere */
            *i32_at(h, &a.expert_map, e, 0) = e % 3 == 2 ? -1 : e / 3 * 2 + e % 3;
        for (int i = 0; i < ROWS * KEEP; i++) /* row 0: all to one expert */
            *i32_at(h, &a.experts, i / KEEP, i % KEEP) = i < KEEP ? 4 : (i * 5) % LOGICAL;
        mh_op_experts_down b = MH_OP_INIT(experts_down, EXPERTS_DOWN);
        b.w = make_weight(h, formats[f], RESIDENT, D, I, &down);
        b.x = a.y, b.experts = a.experts, b.expert_map = a.expert_map, b.fault = h->fault;
        b.y = make(h, MH_F32, 0, 3, ROWS, KEEP, D);
        float before = *f32_at(h, &a.y, 1, 1, 0);
        assert_int_equal(RUN(h, a, a.y), 0);
        assert_int_equal(RUN(h, b, b.y), 0);
        int absent = 0;
        for (int64_t t = 0; t < ROWS; t++)
            for (int64_t j = 0; j < KEEP; j++) {
                int32_t slot = *i32_at(h, &a.expert_map, *i32_at(h, &a.experts, t, j), 0);
                if (slot < 0) {
                    absent++; /* untouched: the harness saw the row of a.y[1][1], for one */
                    if (t == 1 && j == 1)
                        assert_true(*f32_at(h, &a.y, t, j, 0) == before);
                    continue;
                }
                for (int64_t r = 0; r < I; r++) {
                    struct sum g = product(h, &a.x, t, gate + (int64_t)slot * I * D, r, D);
                    struct sum u = product(h, &a.x, t, up + (int64_t)slot * I * D, r, D);
                    near(*f32_at(h, &a.y, t, j, r), swiglu(g.value, u.value),
                         bound_of(&g) * (1 + fabs(u.value)) * 2 +
                             bound_of(&u) * (1 + fabs(g.value)) + 1e-6 * fabs(g.value * u.value),
                         "experts_gate_up");
                }
                for (int64_t r = 0; r < D; r++) {
                    struct sum s = {0};
                    for (int64_t k = 0; k < I; k++)
                        add_term(&s, *f32_at(h, &b.x, t, j, k),
                                 down[((int64_t)slot * D + r) * I + k]);
                    near(*f32_at(h, &b.y, t, j, r), s.value, bound_of(&s), "experts_down");
                }
            }
        assert_true(absent > 2 && absent < ROWS * KEEP - 2);
        harness_clear(h);
    }
}

/* ---- values ---- */

static void formats_decode(struct harness *h)
{
    static uint8_t bytes[256];
    static uint16_t halves[65536];
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    for (int i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (int step = 0; step < 5; step++) {
        static const float scales[] = {1, 0.0123f, 3e-39f, 1e30f, 3e38f};
        float scale[2] = {scales[step], scales[step]};
        mh_weight_params p = MH_INIT(mh_weight_params);
        p.format = MH_FORMAT_FP8, p.experts = 1, p.out = 1, p.in = 256;
        mh_weight_piece piece = MH_INIT(mh_weight_piece);
        piece.expert_count = 1, piece.row_count = 1, piece.plane[0] = bytes, piece.plane[1] = scale;
        mh_op_embed op = MH_OP_INIT(embed, EMBED);
        OK(mh_weight_create(h->device, &p, &op.table));
        OK(mh_weight_write(op.table, &piece));
        OK(mh_weight_seal(op.table));
        op.tokens = make(h, MH_I32, 0, 1, 1, 0, 0);
        op.y = make(h, MH_F32, 0, 2, 1, 256, 0);
        op.fault = h->fault;
        RUN(h, op, op.y);
        for (int i = 0; i < 256; i++) {
            double q = (i & 0x78) ? ldexp(8 + (i & 7), (i >> 3 & 15) - 10) : ldexp(i & 7, -9);
            float want = (float)((i & 0x80 ? -q : q) * (double)scale[0]);
            float got = *f32_at(h, &op.y, 0, i, 0);
            if ((i & 0x7F) == 0x7F ? !isnan(got) : memcmp(&got, &want, 4) != 0)
                fail_msg("fp8 0x%02x * %g: %a, must be %a", i, (double)scale[0], (double)got,
                         (double)want);
        }
        mh_weight_release(op.table);
    }
    for (int f16 = 0; f16 < 2; f16++) {
        mh_op_cast op = MH_OP_INIT(cast, CAST);
        op.x = make(h, f16 ? MH_F16 : MH_BF16, 0, 1, 65536, 0, 0);
        memcpy(h->base + op.x.offset, halves, sizeof(halves));
        op.y = make(h, MH_F32, 0, 1, 65536, 0, 0);
        RUN(h, op, op.y);
        for (uint32_t i = 0; i < 65536; i++) {
            float got = *f32_at(h, &op.y, i, 0, 0), want;
            uint32_t bits = i << 16;
            binary16 half;
            memcpy(&half, &halves[i], 2);
            if (f16)
                want = (float)half;
            else
                memcpy(&want, &bits, 4);
            if (isnan(want) ? !isnan(got) : memcmp(&got, &want, 4) != 0)
                fail_msg("%s 0x%04x: %a, must be %a", f16 ? "f16" : "bf16", i, (double)got,
                         (double)want);
        }
        harness_clear(h);
    }
}

static void casts_round_to_nearest_even(struct harness *h)
{
    enum { COUNT = 200000 };
    mh_op_cast op = MH_OP_INIT(cast, CAST);
    op.x = make(h, MH_F32, 0, 1, COUNT, 0, 0);
    for (int64_t i = 0; i < COUNT; i++) {
        uint32_t bits = below(h, 1u << 16) << 16 | below(h, 1u << 16);
        if (i % 3 == 0)
            bits = (bits & 0xFFFF0000) | 0x8000; /* ties of bf16 */
        if (i % 3 == 1)
            bits = (bits & 0x807FFFFF) | (100 + below(h, 50)) << 23,
            bits &= i % 2 ? ~0u : 0xFFFFF000;
        memcpy(f32_at(h, &op.x, i, 0, 0), &bits, 4);
    }
    for (int f16 = 0; f16 < 2; f16++) {
        op.y = make(h, f16 ? MH_F16 : MH_BF16, 0, 1, COUNT, 0, 0);
        RUN(h, op, op.y);
        for (int64_t i = 0; i < COUNT; i++) {
            float x = *f32_at(h, &op.x, i, 0, 0);
            uint16_t got, want;
            memcpy(&got, h->base + op.y.offset + 2 * i, 2);
            binary16 half = (binary16)x;
            memcpy(&want, &half, 2);
            if (!f16) {
                /* The nearer of the two neighbours, by f64; the even one of equals. */
                uint32_t bits;
                memcpy(&bits, &x, 4);
                uint32_t low = bits & 0xFFFF0000, high = low + 0x10000;
                float below_x, above_x;
                memcpy(&below_x, &low, 4);
                memcpy(&above_x, &high, 4);
                double beyond = isinf(above_x) ? copysign(0x1p128, (double)x) : (double)above_x;
                double down = fabs((double)x - (double)below_x), up = fabs(beyond - (double)x);
                want =
                    (uint16_t)((down < up || (down == up && !(low >> 16 & 1)) ? low : high) >> 16);
                if (isinf(x))
                    want = (uint16_t)(bits >> 16);
            }
            if (isnan(x))
                want = f16 ? 0x7E00 : 0x7FC0;
            if (got != want)
                fail_msg("%s of %a: %04x, must be %04x", f16 ? "f16" : "bf16", (double)x, got,
                         want);
        }
    }
    harness_clear(h);
}

static void moving(struct harness *h)
{
    mh_op_copy copy = MH_OP_INIT(copy, COPY);
    copy.x = make(h, MH_F32, 3, 3, 4, 5, 6);
    copy.y = make(h, MH_F32, 1, 3, 4, 5, 6);
    RUN(h, copy, copy.y);
    mh_op_copy turned = copy; /* the transpose, by strides */
    turned.y = make(h, MH_F32, 0, 3, 6, 5, 4);
    mh_tensor target = turned.y;
    turned.y.shape[0] = 4, turned.y.shape[2] = 6;
    turned.y.stride[0] = target.stride[2], turned.y.stride[2] = target.stride[0];
    RUN(h, turned, turned.y);
    mh_op_fill fill = MH_OP_INIT(fill, FILL);
    fill.y = make(h, MH_BF16, 5, 2, 3, 7, 0);
    fill.bits = 0x12343F80;
    RUN(h, fill, fill.y);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 5; j++)
            for (int k = 0; k < 6; k++) {
                float want = *f32_at(h, &copy.x, i, j, k);
                assert_true(*f32_at(h, &copy.y, i, j, k) == want);
                assert_true(*f32_at(h, &target, k, j, i) == want);
            }
    for (int i = 0; i < 21; i++) {
        uint16_t got;
        memcpy(&got, h->base + fill.y.offset + i / 7 * fill.y.stride[0] + i % 7 * 2, 2);
        assert_int_equal(got, 0x3F80);
    }
    harness_clear(h);
}

#define TEST(body)                                                                                 \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_form(body);                                                                       \
    }
TEST(linears)
TEST(head_projections)
TEST(attention)
TEST(experts)
TEST(formats_decode)
TEST(casts_round_to_nearest_even)
TEST(moving)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linears),        cmocka_unit_test(test_head_projections),
        cmocka_unit_test(test_attention),      cmocka_unit_test(test_experts),
        cmocka_unit_test(test_formats_decode), cmocka_unit_test(test_casts_round_to_nearest_even),
        cmocka_unit_test(test_moving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
