/*
 * Fused ops equal their primitives bit for bit; and what only the device can know: indices out of
 * range leave their row untouched and set the fault word, padding rows leave theirs without one.
 */
#include "harness.h"

#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

static void same(struct harness *h, const mh_tensor *a, const mh_tensor *b, const char *what)
{
    for (int64_t i = 0; i < a->shape[0]; i++)
        for (int64_t j = 0; j < a->shape[1]; j++)
            for (int64_t k = 0; k < (a->rank > 2 ? a->shape[2] : 1); k++)
                if (memcmp(f32_at(h, a, i, j, k), f32_at(h, b, i, j, k), 4))
                    fail_msg("%s: [%d, %d, %d] is %a fused, %a by primitives", what, (int)i, (int)j,
                             (int)k, (double)*f32_at(h, a, i, j, k),
                             (double)*f32_at(h, b, i, j, k));
}

static void linears(struct harness *h)
{
    static const mh_format formats[] = {MH_FORMAT_F32, MH_FORMAT_F16, MH_FORMAT_BF16,
                                        MH_FORMAT_FP8};
    enum { T = 6, IN = 150, OUT = 37 };
    for (int f = 0; f < 4; f++) {
        float *values;
        mh_tensor x = make(h, MH_F32, 3, 2, T, IN, 0), residual = make(h, MH_F32, 1, 2, T, OUT, 0);
        mh_weight *w = make_weight(h, formats[f], 1, OUT, IN, &values);
        mh_weight *u = make_weight(h, formats[f], 1, OUT, IN, &values);
        mh_op_linear gate = MH_OP_INIT(linear, LINEAR), up = gate;
        gate.x = up.x = x, gate.w = w, up.w = u;
        gate.y = make(h, MH_F32, 0, 2, T, OUT, 0), up.y = make(h, MH_F32, 2, 2, T, OUT, 0);
        mh_op_add add = MH_OP_INIT(add, ADD);
        add.a = residual, add.b = gate.y, add.y = make(h, MH_F32, 0, 2, T, OUT, 0);
        mh_op_swiglu swiglu = MH_OP_INIT(swiglu, SWIGLU);
        swiglu.gate = gate.y, swiglu.up = up.y, swiglu.y = make(h, MH_F32, 0, 2, T, OUT, 0);
        mh_op_linear_add fused_add = MH_OP_INIT(linear_add, LINEAR_ADD);
        fused_add.x = x, fused_add.w = w, fused_add.residual = residual;
        fused_add.y = make(h, MH_F32, 5, 2, T, OUT, 0);
        mh_op_linear_swiglu fused = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
        fused.x = x, fused.gate = w, fused.up = u, fused.y = make(h, MH_F32, 0, 2, T, OUT, 0);
        RUN(h, gate, gate.y);
        RUN(h, up, up.y);
        RUN(h, add, add.y);
        RUN(h, swiglu, swiglu.y);
        RUN(h, fused_add, fused_add.y);
        RUN(h, fused, fused.y);
        same(h, &fused_add.y, &add.y, "linear_add");
        same(h, &fused.y, &swiglu.y, "linear_swiglu");
        fused_add.y = residual; /* in place */
        RUN(h, fused_add, fused_add.y);
        same(h, &fused_add.y, &add.y, "linear_add in place");
        harness_clear(h);
    }
}

static void norms(struct harness *h)
{
    enum { T = 4, D = 100 };
    mh_op_rmsnorm fused = MH_OP_INIT(rmsnorm, RMSNORM), plain = fused;
    fused.x = make(h, MH_F32, 3, 2, T, D, 0), fused.residual = make(h, MH_F32, 1, 2, T, D, 0);
    fused.w = plain.w = make(h, MH_F32, 0, 1, D, 0, 0);
    fused.sum = make(h, MH_F32, 0, 2, T, D, 0), fused.y = make(h, MH_F32, 7, 2, T, D, 0);
    fused.eps = plain.eps = 1e-5f;
    mh_op_add add = MH_OP_INIT(add, ADD);
    add.a = fused.x, add.b = fused.residual, add.y = make(h, MH_F32, 0, 2, T, D, 0);
    plain.x = add.y, plain.y = make(h, MH_F32, 0, 2, T, D, 0);
    RUN(h, fused, fused.sum, fused.y);
    RUN(h, add, add.y);
    RUN(h, plain, plain.y);
    same(h, &fused.sum, &add.y, "rmsnorm sum");
    same(h, &fused.y, &plain.y, "rmsnorm");
    plain.y = plain.x;
    RUN(h, plain, plain.y);
    same(h, &plain.y, &fused.y, "rmsnorm in place");
    mh_tensor sum = fused.sum, y = fused.y; /* right by now */
    fused.y = make(h, MH_F32, 2, 2, T, D, 0), fused.sum = fused.residual;
    RUN(h, fused, fused.sum, fused.y);
    same(h, &fused.sum, &sum, "rmsnorm sum in place of the residual");
    same(h, &fused.y, &y, "rmsnorm, sum in place of the residual");
    fused.residual = make(h, MH_F32, 3, 2, T, D, 0);
    add.b = fused.residual;
    RUN(h, add, add.y);
    plain.x = add.y, plain.y = make(h, MH_F32, 0, 2, T, D, 0);
    RUN(h, plain, plain.y);
    fused.sum = fused.x;
    RUN(h, fused, fused.sum, fused.y);
    same(h, &fused.sum, &add.y, "rmsnorm sum in place of x");
    same(h, &fused.y, &plain.y, "rmsnorm, sum in place of x");
    harness_clear(h);
}

/* ---- attention's surroundings ---- */

enum { ROWS = 6, HEADS = 2, LATENT = 70, ROPE = 6, NOPE = 9, VALUE = 4, PAGE = 4, PAGES = 5 };

struct mla {
    mh_op_mla_kv kv;
    mh_op_mla_query query;
};

/* Row 2 is padding; row 3 is past the pages; row 4 names no slot; row 5 meets a bad page. */
static struct mla make_mla(struct harness *h, mh_dtype dtype, mh_format format)
{
    static const int32_t positions[ROWS] = {0, 5, 0, 8, 1, 7}, slots[ROWS] = {0, 1, -1, 0, 2, 0};
    static const int32_t table[2][2] = {{3, PAGES}, {4, 0}};
    float *values;
    struct mla m = {MH_OP_INIT(mla_kv, MLA_KV), MH_OP_INIT(mla_query, MLA_QUERY)};
    m.kv.cache = make(h, dtype, 0, 3, PAGES, PAGE, LATENT + ROPE);
    m.kv.kv = make(h, MH_F32, 2, 2, ROWS, LATENT + ROPE, 0);
    m.kv.norm = make(h, MH_F32, 0, 1, LATENT, 0, 0);
    m.kv.table = make(h, MH_F32, 0, 2, 8, ROPE, 0);
    m.kv.positions = make(h, MH_I32, 0, 1, ROWS, 0, 0);
    m.kv.slots = make(h, MH_I32, 0, 1, ROWS, 0, 0);
    m.kv.page_table = make(h, MH_I32, 1, 2, 2, 2, 0);
    m.kv.fault = h->fault, m.kv.eps = 1e-6f;
    for (int i = 0; i < ROWS; i++) {
        *i32_at(h, &m.kv.positions, i, 0) = positions[i];
        *i32_at(h, &m.kv.slots, i, 0) = slots[i];
    }
    for (int i = 0; i < 4; i++)
        *i32_at(h, &m.kv.page_table, i / 2, i % 2) = table[i / 2][i % 2];
    m.query.q = make(h, MH_F32, 3, 3, ROWS, HEADS, NOPE + ROPE);
    m.query.y = make(h, MH_F32, 1, 3, ROWS, HEADS, LATENT + ROPE);
    m.query.table = m.kv.table, m.query.positions = m.kv.positions, m.query.fault = h->fault;
    m.query.w = make_weight(h, format, 1, HEADS * (NOPE + VALUE), LATENT, &values);
    m.query.head_rows = NOPE + VALUE;
    return m;
}

static void mla_form(struct harness *h, mh_dtype dtype, mh_format format)
{
    struct mla m = make_mla(h, dtype, format);
    const size_t cache_bytes = (size_t)(PAGES * m.kv.cache.stride[0]);
    mh_tensor cache = make(h, dtype, 0, 3, PAGES, PAGE, LATENT + ROPE);
    mh_tensor query = make(h, MH_F32, 1, 3, ROWS, HEADS, LATENT + ROPE);
    memcpy(h->base + cache.offset, h->base + m.kv.cache.offset, cache_bytes);
    memcpy(h->base + query.offset, h->base + m.query.y.offset,
           (size_t)(ROWS * query.stride[0])); /* what is untouched is the same */
    assert_int_equal(RUN(h, m.kv, m.kv.cache), MH_BAD_INDEX);
    assert_int_equal(RUN(h, m.query, m.query.y), MH_BAD_INDEX);

    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    norm.x = mh_tensor_slice(m.kv.kv, 1, 0, LATENT), norm.w = m.kv.norm, norm.eps = m.kv.eps;
    norm.y = make(h, MH_F32, 0, 2, ROWS, LATENT, 0);
    mh_op_rope rope = MH_OP_INIT(rope, ROPE);
    mh_tensor rotated = make(h, MH_F32, 0, 3, ROWS, 1, ROPE);
    rope.x = rotated, rope.x.offset = m.kv.kv.offset + 4 * LATENT;
    rope.x.stride[0] = m.kv.kv.stride[0];
    rope.y = rotated, rope.table = m.kv.table, rope.positions = m.kv.positions;
    rope.fault = h->fault;
    mh_op_kv_write write = MH_OP_INIT(kv_write, KV_WRITE);
    write.cache = cache, write.latent = norm.y, write.positions = m.kv.positions;
    write.rope = rotated, write.rope.rank = 2, write.rope.shape[1] = ROPE;
    write.rope.stride[1] = 4;
    write.slots = m.kv.slots, write.page_table = m.kv.page_table, write.fault = h->fault;
    RUN(h, norm, norm.y);
    RUN(h, rope, rope.y);
    assert_int_equal(RUN(h, write, write.cache), MH_BAD_INDEX);
    assert_memory_equal(h->base + m.kv.cache.offset, h->base + cache.offset, cache_bytes);

    mh_op_head_linear absorb = MH_OP_INIT(head_linear, HEAD_LINEAR);
    absorb.x = mh_tensor_slice(m.query.q, 2, 0, NOPE),
    absorb.y = mh_tensor_slice(query, 2, 0, LATENT);
    absorb.w = m.query.w, absorb.head_rows = m.query.head_rows, absorb.row_count = NOPE;
    absorb.transposed = 1;
    rope.x = mh_tensor_slice(m.query.q, 2, NOPE, ROPE);
    rope.y = mh_tensor_slice(query, 2, LATENT, ROPE);
    RUN(h, absorb, absorb.y);
    assert_int_equal(RUN(h, rope, rope.y), MH_BAD_INDEX);
    same(h, &m.query.y, &query, "mla_query");
    harness_clear(h);
}

static void mla_forms(struct harness *h)
{
    mla_form(h, MH_F32, MH_FORMAT_FP8);
    mla_form(h, MH_BF16, MH_FORMAT_BF16);
    mla_form(h, MH_F32, MH_FORMAT_F32);
    mla_form(h, MH_BF16, MH_FORMAT_F16);
}

/* Only rows 0 and 1 of make_mla are good; the cache and the outputs of the others stay as they
 * were. */
static void cache_faults(struct harness *h)
{
    struct mla m = make_mla(h, MH_F32, MH_FORMAT_FP8);
    static float before[PAGES * PAGE][LATENT + ROPE];
    memcpy(before, h->base + m.kv.cache.offset, sizeof(before));
    RUN(h, m.kv, m.kv.cache);
    int changed = 0;
    for (int i = 0; i < PAGES * PAGE; i++)
        changed += memcmp(before[i], f32_at(h, &m.kv.cache, i / PAGE, i % PAGE, 0),
                          sizeof(before[i])) != 0;
    assert_int_equal(changed, 2); /* row 0: page 3 row 0; row 1: page 0 row 1 */
    assert_true(memcmp(before[3 * PAGE], f32_at(h, &m.kv.cache, 3, 0, 0), sizeof(before[0])) != 0);
    assert_true(memcmp(before[1], f32_at(h, &m.kv.cache, 0, 1, 0), sizeof(before[0])) != 0);

    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    op.cache = m.kv.cache, op.positions = m.kv.positions, op.slots = m.kv.slots;
    op.page_table = m.kv.page_table, op.fault = h->fault, op.scale = 1;
    op.q = make(h, MH_F32, 0, 3, ROWS, HEADS, LATENT + ROPE);
    op.y = make(h, MH_F32, 2, 3, ROWS, HEADS, LATENT);
    for (int t = 0; t < ROWS; t++)
        for (int d = 0; d < HEADS * LATENT; d++)
            *f32_at(h, &op.y, t, d / LATENT, d % LATENT) = 1234;
    assert_int_equal(RUN(h, op, op.y), MH_BAD_INDEX);
    for (int t = 0; t < ROWS; t++)
        for (int d = 0; d < HEADS * LATENT; d++)
            assert_true((*f32_at(h, &op.y, t, d / LATENT, d % LATENT) == 1234) == (t > 1));
    /* Padding alone is no fault. */
    for (int t = 0; t < ROWS; t++)
        *i32_at(h, &op.slots, t, 0) = t < 2 ? t : -1;
    assert_int_equal(RUN(h, op, op.y), 0);
    harness_clear(h);
}

static void embed_faults(struct harness *h)
{
    static const int32_t tokens[] = {2, -1, 7, 0, INT32_MIN, INT32_MAX, 6};
    float *values;
    mh_op_embed op = MH_OP_INIT(embed, EMBED);
    op.table = make_weight(h, MH_FORMAT_BF16, 1, 7, 70, &values);
    op.tokens = make(h, MH_I32, 0, 1, 7, 0, 0);
    op.y = make(h, MH_F32, 4, 2, 7, 70, 0);
    op.fault = h->fault;
    for (int t = 0; t < 7; t++) {
        *i32_at(h, &op.tokens, t, 0) = tokens[t];
        *f32_at(h, &op.y, t, 69, 0) = 1234;
    }
    assert_int_equal(RUN(h, op, op.y), MH_BAD_INDEX);
    for (int t = 0; t < 7; t++) {
        bool good = tokens[t] >= 0 && tokens[t] < 7;
        float want = good ? values[tokens[t] * 70 + 69] : 1234;
        assert_true(*f32_at(h, &op.y, t, 69, 0) == want);
    }
    harness_clear(h);
}

/* ---- experts ---- */

static void expert_form(struct harness *h, mh_format format, bool shared, bool in_place)
{
    enum { T = 5, KEEP = 3, LOGICAL = 6, RESIDENT = 4, D = 50, I = 20 };
    static const int32_t map[LOGICAL] = {2, 0, -1, 3, 1, 99};
    static const int32_t chosen[T][KEEP] = {{0, 1, 3},
                                            {4, 2, 0},
                                            {1, 1, 1},
                                            {0, -5, 3},
                                            {5, 0, 1}}; /* absent, id and map out of range */
    float *values;
    mh_op_experts_down_combine fused = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
    fused.h = make(h, MH_F32, 1, 2, T, D, 0);
    if (shared)
        fused.shared = make(h, MH_F32, 2, 2, T, D, 0);
    fused.x = make(h, MH_F32, 1, 3, T, KEEP, I), fused.weights = make(h, MH_F32, 1, 2, T, KEEP, 0);
    fused.experts = make(h, MH_I32, 1, 2, T, KEEP, 0);
    fused.expert_map = make(h, MH_I32, 0, 1, LOGICAL, 0, 0);
    fused.w = make_weight(h, format, RESIDENT, D, I, &values);
    fused.fault = h->fault;
    fused.y = make(h, MH_F32, 0, 2, T, D, 0);
    for (int i = 0; i < LOGICAL; i++)
        *i32_at(h, &fused.expert_map, i, 0) = map[i];
    for (int i = 0; i < T * KEEP; i++)
        *i32_at(h, &fused.experts, i / KEEP, i % KEEP) = chosen[i / KEEP][i % KEEP];
    mh_op_experts_down down = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    down.x = fused.x, down.experts = fused.experts, down.expert_map = fused.expert_map;
    down.w = fused.w, down.fault = h->fault, down.y = make(h, MH_F32, 0, 3, T, KEEP, D);
    mh_op_combine combine = MH_OP_INIT(combine, COMBINE);
    combine.h = fused.h, combine.shared = fused.shared, combine.weights = fused.weights;
    combine.e = down.y, combine.experts = fused.experts, combine.expert_map = fused.expert_map;
    combine.fault = h->fault, combine.expert_count = LOGICAL, combine.resident_count = RESIDENT;
    combine.y = make(h, MH_F32, 0, 2, T, D, 0);
    for (int t = 0; t < T; t++)
        for (int d = 0; d < D; d++)
            *f32_at(h, &fused.y, t, d, 0) = *f32_at(h, &combine.y, t, d, 0) = 1234;
    assert_int_equal(RUN(h, fused, fused.y), MH_BAD_INDEX);
    assert_int_equal(RUN(h, down, down.y), MH_BAD_INDEX);
    assert_int_equal(RUN(h, combine, combine.y), MH_BAD_INDEX);
    same(h, &fused.y, &combine.y, "experts_down_combine");
    for (int t = 0; t < T; t++) /* rows 0 and 2 have all their experts */
        assert_true((*f32_at(h, &fused.y, t, 0, 0) != 1234) == (t == 0 || t == 2));
    if (in_place) {
        for (int t = 0; t < T; t++) /* rows without an expert keep h */
            for (int d = 0; d < D && (t == 0 || t == 2) == 0; d++)
                *f32_at(h, &combine.y, t, d, 0) = *f32_at(h, &fused.h, t, d, 0);
        fused.y = fused.h;
        assert_int_equal(RUN(h, fused, fused.y), MH_BAD_INDEX);
        same(h, &fused.y, &combine.y, "experts_down_combine in place");
    }
    harness_clear(h);
}

static void expert_forms(struct harness *h)
{
    expert_form(h, MH_FORMAT_FP8, true, false);
    expert_form(h, MH_FORMAT_BF16, false, true);
    expert_form(h, MH_FORMAT_F16, true, true);
    expert_form(h, MH_FORMAT_F32, false, false);
}

static void router_forms(struct harness *h)
{
    enum { T = 5, E = 24, KEEP = 4, D = 90 };
    for (int way = 0; way < 3; way++) {
        float *values;
        mh_op_router_linear fused = MH_OP_INIT(router_linear, ROUTER_LINEAR);
        fused.x = make(h, MH_F32, 1, 2, T, D, 0),
        fused.w = make_weight(h, MH_FORMAT_BF16, 1, E, D, &values);
        fused.rule = (mh_router_rule){
            way ? MH_ROUTER_SIGMOID : MH_ROUTER_SOFTMAX, (uint32_t)way, 6, 3, way == 1, 2.5f};
        if (way)
            fused.bias = make(h, MH_F32, 0, 1, E, 0, 0);
        fused.experts = make(h, MH_I32, 1, 2, T, KEEP, 0);
        fused.weights = make(h, MH_F32, 1, 2, T, KEEP, 0);
        mh_op_linear linear = MH_OP_INIT(linear, LINEAR);
        linear.x = fused.x, linear.w = fused.w, linear.y = make(h, MH_F32, 0, 2, T, E, 0);
        mh_op_router router = MH_OP_INIT(router, ROUTER);
        router.logits = linear.y, router.bias = fused.bias, router.rule = fused.rule;
        router.experts = make(h, MH_I32, 0, 2, T, KEEP, 0);
        router.weights = make(h, MH_F32, 0, 2, T, KEEP, 0);
        RUN(h, fused, fused.experts, fused.weights);
        RUN(h, linear, linear.y);
        RUN(h, router, router.experts, router.weights);
        same(h, &fused.weights, &router.weights, "router_linear");
        for (int i = 0; i < T * KEEP; i++)
            assert_int_equal(*i32_at(h, &fused.experts, i / KEEP, i % KEEP),
                             *i32_at(h, &router.experts, i / KEEP, i % KEEP));
        harness_clear(h);
    }
}

/* ---- the caller's floating-point mode ---- */

static void denormals_survive_the_callers_mode(struct harness *h)
{
#if defined(__SSE2__)
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.a = make(h, MH_F32, 0, 2, 1, 8, 0), op.b = make(h, MH_F32, 0, 2, 1, 8, 0);
    op.y = make(h, MH_F32, 0, 2, 1, 8, 0);
    for (int i = 0; i < 8; i++) {
        *f32_at(h, &op.a, 0, i, 0) = 0x1p-140f;
        *f32_at(h, &op.b, 0, i, 0) = 0x1p-140f;
    }
    uint32_t saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040); /* flush to zero, denormals are zero: what embedders set */
    RUN(h, op, op.y);
    uint32_t after = _mm_getcsr();
    _mm_setcsr(saved);
    assert_int_equal(after & 0x8040, 0x8040);
    uint32_t bits;
    memcpy(&bits, f32_at(h, &op.y, 0, 7, 0), 4);
    assert_int_equal(bits, 1u << (149 - 139));
    harness_clear(h);
#else
    (void)h;
#endif
}

#define TEST(body)                                                                                 \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_form(body);                                                                       \
    }
TEST(linears)
TEST(norms)
TEST(mla_forms)
TEST(cache_faults)
TEST(embed_faults)
TEST(expert_forms)
TEST(router_forms)
TEST(denormals_survive_the_callers_mode)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linears),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_mla_forms),
        cmocka_unit_test(test_cache_faults),
        cmocka_unit_test(test_embed_faults),
        cmocka_unit_test(test_expert_forms),
        cmocka_unit_test(test_router_forms),
        cmocka_unit_test(test_denormals_survive_the_callers_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
