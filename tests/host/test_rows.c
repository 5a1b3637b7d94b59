/*
 * Ops that work row by row, against plain f64 arithmetic: add, swiglu, rmsnorm, rope, combine,
 * experts_down_combine, and router_linear's choice. u = 2^-24 is the most one rounding adds,
 * relative to its result.
 */
#include "harness.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const double u = 0x1p-24;
static const int64_t sizes[] = {1, 3, 63, 64, 65, 127, 200};
enum { SIZES = 7 };

static void near(double got, double want, double bound, const char *what)
{
    if (!(fabs(got - want) <= bound + (double)FLT_MIN))
        fail_msg("%s: %.9g, must be %.9g within %.3g", what, got, want, bound);
}

static mh_tensor rows(struct harness *h, int64_t gap, int64_t count, int64_t size)
{
    return make(h, MH_F32, gap, 2, count, size, 0);
}

static double at(const struct harness *h, const mh_tensor *t, int64_t i, int64_t j)
{
    return (double)*f32_at(h, t, i, j, 0);
}

/* ---- elementwise ---- */

/* One rounding of an exact f64 sum of two f32 (their exponents are within 29 here) is f32's. */
static void sums(struct harness *h)
{
    for (int n = 0; n < SIZES; n++) {
        mh_op_add op = MH_OP_INIT(add, ADD), in_place;
        op.a = rows(h, 3, 200, sizes[n]), op.b = rows(h, 0, 200, sizes[n]);
        op.y = rows(h, 1, 200, sizes[n]);
        RUN(h, op, op.y);
        for (int64_t t = 0; t < 200; t++)
            for (int64_t i = 0; i < sizes[n]; i++) {
                float want = (float)(at(h, &op.a, t, i) + at(h, &op.b, t, i));
                assert_true(*f32_at(h, &op.y, t, i, 0) == want);
            }
        in_place = op, in_place.y = op.b;
        RUN(h, in_place, in_place.y);
        for (int64_t t = 0; t < 200; t++)
            assert_memory_equal(f32_at(h, &in_place.y, t, 0, 0), f32_at(h, &op.y, t, 0, 0),
                                (size_t)sizes[n] * 4);
        harness_clear(h);
    }
}

/* exp errs by an ulp (2 u), then come 1 + e, rcp and two products: below 10 u of the result. From
 * -87 down the sigmoid is that of -87. */
static void gates(struct harness *h)
{
    static const float special[] = {0,  -0.0f, 1e-30f, -1e-30f, 15,    -15,    86.9f, -86.9f,
                                    88, -88,   1000,   -1000,   1e30f, -1e30f, 0.5f,  -0.5f};
    for (int n = 0; n < SIZES; n++) {
        mh_op_swiglu op = MH_OP_INIT(swiglu, SWIGLU);
        op.gate = rows(h, 2, 17, sizes[n]), op.up = rows(h, 1, 17, sizes[n]);
        op.y = rows(h, 0, 17, sizes[n]);
        for (int64_t i = 0; i < 17 * sizes[n]; i++) {
            float *gate = f32_at(h, &op.gate, i / sizes[n], i % sizes[n], 0);
            *gate = i < 16 ? special[i] : *gate * 30;
        }
        RUN(h, op, op.y);
        for (int64_t t = 0; t < 17; t++)
            for (int64_t i = 0; i < sizes[n]; i++) {
                double g = at(h, &op.gate, t, i), up = at(h, &op.up, t, i);
                double want = g / (1 + exp(fmin(-g, 87))) * up;
                near(at(h, &op.y, t, i), want, 10 * u * fabs(want), "swiglu");
            }
        mh_op_swiglu in_place = op;
        in_place.y = op.gate;
        RUN(h, in_place, in_place.y);
        for (int64_t t = 0; t < 17; t++)
            assert_memory_equal(f32_at(h, &in_place.y, t, 0, 0), f32_at(h, &op.y, t, 0, 0),
                                (size_t)sizes[n] * 4);
        harness_clear(h);
    }
}

/* ---- norms ---- */

/* The sum of squares errs by K / 64 + 7 roundings at most, all terms being positive; halved by the
 * root. invD, two products and eps before it, root, rcp and two products after: 8 more. */
static void norms(struct harness *h)
{
    for (int n = 0; n < SIZES * 2; n++) {
        int64_t size = sizes[n / 2];
        mh_op_rmsnorm op = MH_OP_INIT(rmsnorm, RMSNORM);
        op.x = rows(h, 1, 60, size), op.w = make(h, MH_F32, 0, 1, size, 0, 0);
        op.y = rows(h, 2, 60, size), op.eps = n % 2 ? 1e-6f : 0.25f;
        if (n % 2) {
            op.residual = rows(h, 0, 60, size);
            op.sum = rows(h, 5, 60, size);
            RUN(h, op, op.y, op.sum);
        } else {
            RUN(h, op, op.y);
        }
        for (int64_t t = 0; t < 60; t++) {
            double squares = 0;
            for (int64_t i = 0; i < size; i++) {
                float x = (float)(at(h, &op.x, t, i) + (n % 2 ? at(h, &op.residual, t, i) : 0));
                squares += (double)x * (double)x;
                if (n % 2)
                    assert_true(*f32_at(h, &op.sum, t, i, 0) == x);
            }
            double r = 1 / sqrt(squares / (double)size + (double)op.eps);
            for (int64_t i = 0; i < size; i++) {
                double x = n % 2 ? at(h, &op.sum, t, i) : at(h, &op.x, t, i);
                double want = x * r * (double)*f32_at(h, &op.w, i, 0, 0);
                near(at(h, &op.y, t, i), want,
                     ((double)(size / 64) + 7 + 8 * 2) / 2 * u * fabs(want), "rmsnorm");
            }
        }
        harness_clear(h);
    }
}

/* ---- rope ---- */

/* A product and an fma: two roundings, of |x1 s| and of the result. */
static void rotations(struct harness *h)
{
    enum { T = 9, HEADS = 3, R = 10, POSITIONS = 50 };
    mh_op_rope op = MH_OP_INIT(rope, ROPE);
    op.x = make(h, MH_F32, 2, 3, T, HEADS, R), op.y = make(h, MH_F32, 1, 3, T, HEADS, R);
    op.table = rows(h, 3, POSITIONS, R), op.positions = make(h, MH_I32, 0, 1, T, 0, 0);
    op.fault = h->fault;
    for (int t = 0; t < T; t++) /* not in order, one twice, the first and the last */
        *i32_at(h, &op.positions, t, 0) = t == 3 ? 0 : t == 4 ? POSITIONS - 1 : (t / 2 * 17) % 40;
    assert_int_equal(RUN(h, op, op.y), 0);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < HEADS * (R / 2); i++) {
            int64_t head = i / (R / 2), pair = i % (R / 2);
            int32_t position = *i32_at(h, &op.positions, t, 0);
            double c = at(h, &op.table, position, pair);
            double s = at(h, &op.table, position, R / 2 + pair);
            double a = (double)*f32_at(h, &op.x, t, head, 2 * pair);
            double b = (double)*f32_at(h, &op.x, t, head, 2 * pair + 1);
            double bound = 2 * u * (fabs(a) + fabs(b));
            near((double)*f32_at(h, &op.y, t, head, 2 * pair), a * c - b * s, bound, "rope");
            near((double)*f32_at(h, &op.y, t, head, 2 * pair + 1), a * s + b * c, bound, "rope");
        }
    mh_op_rope in_place = op;
    in_place.y = op.x;
    RUN(h, in_place, in_place.y);
    for (int64_t t = 0; t < T; t++)
        for (int64_t head = 0; head < HEADS; head++)
            assert_memory_equal(f32_at(h, &op.x, t, head, 0), f32_at(h, &op.y, t, head, 0), R * 4);
    harness_clear(h);
}

/* ---- combine ---- */

/* k fmas and an addition: k + 1 roundings, each of at most the sum of magnitudes. */
static void combinations(struct harness *h)
{
    enum { T = 70, KEEP = 8, D = 65 };
    for (int way = 0; way < 4; way++) { /* with and without shared experts; in place of h */
        mh_op_combine op = MH_OP_INIT(combine, COMBINE);
        op.h = rows(h, 1, T, D), op.e = make(h, MH_F32, 3, 3, T, KEEP, D);
        op.weights = rows(h, 2, T, KEEP), op.fault = h->fault;
        if (way & 1)
            op.shared = rows(h, 4, T, D);
        mh_tensor before = rows(h, 0, T, D);
        op.y = way & 2 ? op.h : rows(h, 0, T, D);
        for (int64_t i = 0; i < T * D; i++)
            *f32_at(h, &before, i / D, i % D, 0) = *f32_at(h, &op.h, i / D, i % D, 0);
        assert_int_equal(RUN(h, op, op.y), 0);
        for (int64_t t = 0; t < T; t++)
            for (int64_t d = 0; d < D; d++) {
                double want = way & 1 ? at(h, &op.shared, t, d) : 0, sum = fabs(want);
                for (int64_t j = 0; j < KEEP; j++) {
                    double term = at(h, &op.weights, t, j) * (double)*f32_at(h, &op.e, t, j, d);
                    want += term, sum += fabs(term);
                }
                double residual = at(h, &before, t, d);
                near(at(h, &op.y, t, d), want + residual, (KEEP + 1) * u * (sum + fabs(residual)),
                     "combine");
            }
        harness_clear(h);
    }
}

/* As above, each e_j a sum by rule 2 of I / 64 + 8 roundings. */
static void down_and_combine(struct harness *h)
{
    static const mh_format formats[] = {MH_FORMAT_F32, MH_FORMAT_F16, MH_FORMAT_BF16,
                                        MH_FORMAT_FP8};
    enum { T = 6, KEEP = 4, E = 5, D = 67, I = 130 };
    for (int f = 0; f < 8; f++) { /* with a map that turns the experts around, and without */
        float *w;
        mh_op_experts_down_combine op = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
        op.h = rows(h, 1, T, D), op.x = make(h, MH_F32, 3, 3, T, KEEP, I);
        op.weights = rows(h, 2, T, KEEP), op.experts = make(h, MH_I32, 1, 2, T, KEEP, 0);
        op.w = make_weight(h, formats[f / 2], E, D, I, &w);
        op.y = rows(h, 0, T, D), op.fault = h->fault;
        if (f % 2)
            op.expert_map = make(h, MH_I32, 0, 1, E, 0, 0);
        for (int e = 0; f % 2 && e < E; e++)
            *i32_at(h, &op.expert_map, e, 0) = E - 1 - e;
        for (int i = 0; i < T * KEEP; i++) /* row 1: all to one expert */
            *i32_at(h, &op.experts, i / KEEP, i % KEEP) = i / KEEP == 1 ? 3 : i * 3 % E;
        assert_int_equal(RUN(h, op, op.y), 0);
        for (int64_t t = 0; t < T; t++)
            for (int64_t d = 0; d < D; d++) {
                double want = 0, sum = 0, residual = at(h, &op.h, t, d);
                for (int64_t i = 0; i < KEEP * I; i++) {
                    int64_t expert = *i32_at(h, &op.experts, t, i / I);
                    expert = f % 2 ? E - 1 - expert : expert;
                    double term = at(h, &op.weights, t, i / I) *
                                  (double)*f32_at(h, &op.x, t, i / I, i % I) *
                                  (double)w[(expert * D + d) * I + i % I];
                    want += term, sum += fabs(term);
                }
                near(at(h, &op.y, t, d), want + residual,
                     (KEEP + 1 + I / 64 + 8) * u * (sum + fabs(residual)), "experts_down_combine");
            }
        harness_clear(h);
    }
}

/* ---- router_linear ---- */

/* V3's rule without groups, in f64: the chosen have the best biased scores, in order, and the
 * weights are their unbiased ones, normalised. Logits err by 1e-6 at most here, scores by less. */
static void choices(struct harness *h)
{
    enum { T = 40, E = 33, KEEP = 5, D = 130 };
    float *w;
    mh_op_router_linear op = MH_OP_INIT(router_linear, ROUTER_LINEAR);
    op.x = rows(h, 1, T, D), op.w = make_weight(h, MH_FORMAT_BF16, 1, E, D, &w);
    op.bias = make(h, MH_F32, 0, 1, E, 0, 0);
    op.experts = make(h, MH_I32, 1, 2, T, KEEP, 0), op.weights = rows(h, 2, T, KEEP);
    op.rule = (mh_router_rule){MH_ROUTER_SIGMOID, MH_GROUPS_NONE, 0, 0, 1, 2.5f};
    RUN(h, op, op.experts, op.weights);
    for (int64_t t = 0; t < T; t++) {
        double score[E], total = 0, last = INFINITY;
        bool taken[E] = {false};
        for (int64_t e = 0; e < E; e++) {
            double logit = 0;
            for (int64_t k = 0; k < D; k++)
                logit += at(h, &op.x, t, k) * (double)w[e * D + k];
            score[e] = 1 / (1 + exp(-logit));
        }
        for (int64_t j = 0; j < KEEP; j++) {
            int32_t e = *i32_at(h, &op.experts, t, j);
            assert_true(e >= 0 && e < E && !taken[e]);
            taken[e] = true, total += score[e];
            double key = score[e] + (double)*f32_at(h, &op.bias, e, 0, 0);
            assert_true(key <= last + 2e-6);
            last = key;
        }
        for (int64_t e = 0; e < E; e++)
            if (!taken[e])
                assert_true(score[e] + (double)*f32_at(h, &op.bias, e, 0, 0) <= last + 2e-6);
        for (int64_t j = 0; j < KEEP; j++)
            near(at(h, &op.weights, t, j), score[*i32_at(h, &op.experts, t, j)] / total * 2.5, 1e-5,
                 "router_linear");
    }
    harness_clear(h);
}

/* ---- what lies behind ---- */

/* Operands that end where memory ends, whatever their size is in vectors and cache lines. */
static void nothing_behind_is_read(struct harness *h)
{
    enum { T = 3 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mh_buffer *buffer;
    assert_true(pages != MAP_FAILED && !mprotect(pages + page, page, PROT_NONE));
    OK(mh_buffer_import(h->device, pages, page, MH_IMPORT_READ_ONLY, NULL, NULL, &buffer));
    for (size_t i = 0; i < page / 4; i++)
        ((float *)(void *)pages)[i] = uniform(h);
    for (int n = 0; n < SIZES; n++) {
        const int64_t size = sizes[n], shape[] = {T, size}, last[] = {size};
        mh_tensor x = mh_tensor_make(buffer, page - (size_t)(T * size) * 4, MH_F32, 2, shape);
        mh_op_add sum = MH_OP_INIT(add, ADD);
        sum.a = sum.b = x, sum.y = rows(h, 1, T, size);
        RUN(h, sum, sum.y);
        mh_op_swiglu gate = MH_OP_INIT(swiglu, SWIGLU);
        gate.gate = gate.up = x, gate.y = rows(h, 1, T, size);
        RUN(h, gate, gate.y);
        mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
        norm.x = norm.residual = x, norm.y = rows(h, 1, T, size), norm.sum = rows(h, 1, T, size);
        norm.w = mh_tensor_make(buffer, page - (size_t)size * 4, MH_F32, 1, last);
        RUN(h, norm, norm.y, norm.sum);
        mh_op_argmax best = MH_OP_INIT(argmax, ARGMAX);
        best.logits = x, best.y = make(h, MH_I32, 0, 1, T, 0, 0);
        RUN(h, best, best.y);
        for (uint32_t scoring = MH_ROUTER_SIGMOID; scoring <= MH_ROUTER_SOFTMAX; scoring++) {
            mh_op_router route = MH_OP_INIT(router, ROUTER);
            route.rule = (mh_router_rule){scoring, MH_GROUPS_NONE, 0, 0, 1, 1};
            route.logits = x, route.bias = norm.w;
            route.experts = make(h, MH_I32, 1, 2, T, 1, 0), route.weights = rows(h, 2, T, 1);
            RUN(h, route, route.experts, route.weights);
        }
        harness_clear(h);
    }
    mh_buffer_release(buffer);
    munmap(pages, 2 * page);
}

#define TEST(body)                                                                                 \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_form(body);                                                                       \
    }
TEST(sums)
TEST(gates)
TEST(norms)
TEST(rotations)
TEST(combinations)
TEST(down_and_combine)
TEST(choices)
TEST(nothing_behind_is_read)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),         cmocka_unit_test(test_gates),
        cmocka_unit_test(test_norms),        cmocka_unit_test(test_rotations),
        cmocka_unit_test(test_combinations), cmocka_unit_test(test_down_and_combine),
        cmocka_unit_test(test_choices),      cmocka_unit_test(test_nothing_behind_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
