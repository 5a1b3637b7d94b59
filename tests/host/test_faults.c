/*
 * Indices that only the device can check, one bad kind at a time and large enough to be spread over
 * the threads: the rows concerned keep every byte, the other rows have what they have without any
 * bad row, the fault word says MH_BAD_INDEX. Slot -1 is padding: kept, and no fault.
 */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

static const int32_t extremes[] = {-1, INT32_MIN, INT32_MAX, -2};

/* The bytes of all rows t of a tensor [T, a, b], its gaps included. */
static unsigned char *copy_of(const struct harness *h, const mh_tensor *t)
{
    size_t size = (size_t)(t->shape[0] * t->stride[0]);
    unsigned char *copy = malloc(size);
    memcpy(copy, h->base + t->offset, size);
    return copy;
}

static void restore(const struct harness *h, const mh_tensor *t, const unsigned char *copy)
{
    memcpy(h->base + t->offset, copy, (size_t)(t->shape[0] * t->stride[0]));
}

/* Bad rows are as `before`, the others as `good`, which differs from `before` in each of them. */
static void expect_rows(const struct harness *h, const mh_tensor *t, const unsigned char *before,
                        const unsigned char *good, const bool *bad, const char *what)
{
    for (int64_t i = 0; i < t->shape[0]; i++) {
        size_t size = (size_t)t->stride[0], from = (size_t)i * size;
        const unsigned char *row = h->base + t->offset + from;
        assert_true(memcmp(before + from, good + from, size) != 0);
        if (memcmp(row, (bad[i] ? before : good) + from, size))
            fail_msg("%s: row %d, %s, %s", what, (int)i, bad[i] ? "bad" : "good",
                     bad[i] ? "was touched" : "is not what it is alone");
    }
}

/* Encodes without bad rows, then with values of `indices` (one a row, from `first`) made bad. */
static void spoil(struct harness *h, const mh_op *op, const mh_tensor *y, const mh_tensor *indices,
                  int32_t limit, bool padding, const char *what)
{
    const mh_tensor outputs[] = {*y, {0}};
    unsigned char *before = copy_of(h, y), *kept = copy_of(h, indices);
    assert_int_equal(run(h, op, outputs), 0);
    unsigned char *good = copy_of(h, y);
    for (int kind = 0; kind < 6; kind++) {
        int64_t count = indices->shape[0];
        int32_t value = kind < 4 ? extremes[kind] : limit + (kind - 4);
        bool *bad = calloc((size_t)count, sizeof(*bad)), fault = !(padding && value == -1);
        restore(h, y, before);
        restore(h, indices, kept);
        for (int64_t t = kind % 2; t < count; t += 3) {
            bad[t] = true;
            *i32_at(h, indices, t, indices->rank > 1 ? kind % indices->shape[1] : 0) = value;
        }
        assert_int_equal(run(h, op, outputs), fault ? MH_BAD_INDEX : 0);
        expect_rows(h, y, before, good, bad, what);
        free(bad);
    }
    restore(h, indices, kept);
    restore(h, y, before);
    free(before), free(kept), free(good);
}

static mh_tensor indices(struct harness *h, int64_t count, int64_t columns, int32_t limit)
{
    mh_tensor t = make(h, MH_I32, columns ? 2 : 0, columns ? 2 : 1, count, columns, 0);
    for (int64_t i = 0; i < count * (columns ? columns : 1); i++)
        *i32_at(h, &t, columns ? i / columns : i, columns ? i % columns : 0) =
            (int32_t)below(h, (uint32_t)limit);
    return t;
}

/* ---- tokens and positions ---- */

static void tokens(struct harness *h)
{
    float *values;
    mh_op_embed op = MH_OP_INIT(embed, EMBED);
    op.table = make_weight(h, MH_FORMAT_FP8, 1, 130, 300, &values);
    op.tokens = indices(h, 150, 0, 130), op.fault = h->fault;
    op.y = make(h, MH_F32, 3, 2, 150, 300, 0);
    spoil(h, &op.base, &op.y, &op.tokens, 130, false, "embed");
    harness_clear(h);
}

static void positions_of_rope(struct harness *h)
{
    mh_op_rope op = MH_OP_INIT(rope, ROPE);
    op.x = make(h, MH_F32, 1, 3, 64, 16, 64), op.y = make(h, MH_F32, 2, 3, 64, 16, 64);
    op.table = make(h, MH_F32, 0, 2, 20, 64, 0);
    op.positions = indices(h, 64, 0, 20), op.fault = h->fault;
    spoil(h, &op.base, &op.y, &op.positions, 20, false, "rope");
    harness_clear(h);
}

/* Only the rotated part is kept: the absorbed part knows no position. */
static void positions_of_mla_query(struct harness *h)
{
    enum { T = 30, HEADS = 4, N = 10, R = 8, LATENT = 70, V = 6 };
    float *values;
    mh_op_mla_query op = MH_OP_INIT(mla_query, MLA_QUERY);
    op.q = make(h, MH_F32, 1, 3, T, HEADS, N + R);
    op.table = make(h, MH_F32, 0, 2, 20, R, 0);
    op.positions = indices(h, T, 0, 20), op.fault = h->fault;
    op.w = make_weight(h, MH_FORMAT_BF16, 1, HEADS * (N + V), LATENT, &values);
    op.head_rows = N + V;
    op.y = make(h, MH_F32, 2, 3, T, HEADS, LATENT + R);
    unsigned char *before = copy_of(h, &op.y);
    assert_int_equal(RUN(h, op, op.y), 0);
    unsigned char *good = copy_of(h, &op.y);
    restore(h, &op.y, before);
    *i32_at(h, &op.positions, 4, 0) = -1, *i32_at(h, &op.positions, 29, 0) = 20;
    assert_int_equal(RUN(h, op, op.y), MH_BAD_INDEX);
    for (int64_t t = 0; t < T; t++)
        for (int64_t head = 0; head < HEADS; head++) {
            bool bad = t == 4 || t == 29;
            const float *row = f32_at(h, &op.y, t, head, 0);
            size_t from = (size_t)(t * op.y.stride[0] + head * op.y.stride[1]);
            assert_memory_equal(row, good + from, LATENT * 4);
            assert_memory_equal(row + LATENT, (bad ? before : good) + from + (size_t)LATENT * 4,
                                R * 4);
        }
    free(before), free(good);
    harness_clear(h);
}

/* ---- the cache ---- */

enum { SLOTS = 3, SLOT_PAGES = 4, PAGE = 16, PAGES = 13, L = 40, R = 10 };

struct pages {
    mh_tensor cache, table, positions, slots;
};

/* T rows, no two of which name one place: row t is position t / SLOTS of slot t % SLOTS. */
static struct pages make_pages(struct harness *h, mh_dtype dtype, int64_t count)
{
    struct pages p = {.cache = make(h, dtype, 0, 3, PAGES, PAGE, L + R),
                      .table = make(h, MH_I32, 1, 2, SLOTS, SLOT_PAGES, 0),
                      .positions = make(h, MH_I32, 0, 1, count, 0, 0),
                      .slots = make(h, MH_I32, 0, 1, count, 0, 0)};
    for (int i = 0; i < SLOTS * SLOT_PAGES; i++) /* page 0 is nobody's */
        *i32_at(h, &p.table, i / SLOT_PAGES, i % SLOT_PAGES) = 1 + i * 5 % 12;
    for (int64_t t = 0; t < count; t++) {
        *i32_at(h, &p.positions, t, 0) = (int32_t)(t / SLOTS);
        *i32_at(h, &p.slots, t, 0) = (int32_t)(t % SLOTS);
    }
    return p;
}

/* The place that row t names by the layout of op.h. */
static size_t place_of(const struct harness *h, const struct pages *p, int64_t t)
{
    int32_t position = *i32_at(h, &p->positions, t, 0);
    int32_t page = *i32_at(h, &p->table, *i32_at(h, &p->slots, t, 0), position / PAGE);
    return (size_t)(page * p->cache.stride[0] + position % PAGE * p->cache.stride[1]);
}

/* A writer of T rows: bad slots, positions and pages leave the cache alone, byte for byte, but for
 * the places of good rows. */
static void write_rows(struct harness *h, const mh_op *op, const struct pages *p, int64_t count,
                       const char *what)
{
    size_t row = (size_t)p->cache.stride[1], size = (size_t)(PAGES * p->cache.stride[0]);
    const mh_tensor outputs[] = {p->cache, {0}};
    unsigned char *before = copy_of(h, &p->cache), *want = malloc(size);
    assert_int_equal(run(h, op, outputs), 0);
    unsigned char *good = copy_of(h, &p->cache);
    for (int kind = 0; kind < 12; kind++) {
        int32_t value = extremes[kind % 4];
        const mh_tensor *spoiled = kind < 4 ? &p->slots : kind < 8 ? &p->positions : &p->table;
        int64_t victim = (kind * 7) % count, second = kind < 8 ? 0 : 2;
        if (kind == 3)
            value = SLOTS;
        if (kind == 7)
            value = SLOT_PAGES * PAGE;
        if (kind == 11)
            value = PAGES;
        memcpy(want, before, size);
        for (int64_t t = 0; t < count; t++) {
            bool hit = kind < 8
                           ? t == victim
                           : t % SLOTS == 1 && *i32_at(h, &p->positions, t, 0) / PAGE == second;
            if (!hit)
                memcpy(want + place_of(h, p, t), good + place_of(h, p, t), row);
        }
        int32_t *at = kind < 8 ? i32_at(h, spoiled, victim, 0) : i32_at(h, spoiled, 1, second);
        int32_t kept = *at;
        restore(h, &p->cache, before);
        *at = value;
        assert_int_equal(run(h, op, outputs), kind == 0 ? 0 : MH_BAD_INDEX); /* slot -1 */
        *at = kept;
        if (memcmp(h->base + p->cache.offset, want, size))
            fail_msg("%s: kind %d, value %d: the cache has other rows than it must", what, kind,
                     value);
    }
    free(before), free(good), free(want);
}

static void cache_writers(struct harness *h)
{
    enum { T = 120 };
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct pages p = make_pages(h, bf16 ? MH_BF16 : MH_F32, T);
        mh_op_kv_write write = MH_OP_INIT(kv_write, KV_WRITE);
        write.cache = p.cache, write.positions = p.positions, write.slots = p.slots;
        write.page_table = p.table, write.fault = h->fault;
        write.latent = make(h, MH_F32, 1, 2, T, L, 0), write.rope = make(h, MH_F32, 3, 2, T, R, 0);
        write_rows(h, &write.base, &p, T, "kv_write");
        mh_op_mla_kv fused = MH_OP_INIT(mla_kv, MLA_KV);
        fused.cache = p.cache, fused.positions = p.positions, fused.slots = p.slots;
        fused.page_table = p.table, fused.fault = h->fault, fused.eps = 1e-6f;
        fused.kv = make(h, MH_F32, 2, 2, T, L + R, 0), fused.norm = make(h, MH_F32, 0, 1, L, 0, 0);
        fused.table = make(h, MH_F32, 0, 2, SLOT_PAGES * PAGE, R, 0);
        write_rows(h, &fused.base, &p, T, "mla_kv");
        harness_clear(h);
    }
}

static mh_op_attention make_attention(struct harness *h, struct pages *p, int64_t count)
{
    mh_op_attention op = MH_OP_INIT(attention, ATTENTION);
    *p = make_pages(h, MH_F32, count);
    op.cache = p->cache, op.positions = p->positions, op.slots = p->slots;
    op.page_table = p->table, op.fault = h->fault, op.scale = 0.3f;
    op.q = make(h, MH_F32, 1, 3, count, 3, L + R), op.y = make(h, MH_F32, 2, 3, count, 3, L);
    return op;
}

static void readers(struct harness *h)
{
    enum { T = 96 };
    struct pages p;
    mh_op_attention op = make_attention(h, &p, T);
    spoil(h, &op.base, &op.y, &op.slots, SLOTS, true, "attention's slots");
    spoil(h, &op.base, &op.y, &op.positions, SLOT_PAGES * PAGE, false, "attention's positions");
    harness_clear(h);
}

/* A bad page is met by the positions that reach it, and by no others: later pages, which nobody
 * has given out yet, may hold anything. Nor are later keys of a page read: NaN there changes
 * nothing. */
static void pages_that_are_not_there(struct harness *h)
{
    enum { T = 96 };
    struct pages p;
    mh_op_attention op = make_attention(h, &p, T); /* positions 0 to 31: pages 0 and 1 */
    unsigned char *before = copy_of(h, &op.y);
    assert_int_equal(RUN(h, op, op.y), 0);
    unsigned char *good = copy_of(h, &op.y);
    bool bad[T] = {false};
    for (int page = 2; page < SLOT_PAGES; page++)
        for (int slot = 0; slot < SLOTS; slot++)
            *i32_at(h, &p.table, slot, page) = extremes[slot];
    restore(h, &op.y, before);
    assert_int_equal(RUN(h, op, op.y), 0);
    expect_rows(h, &op.y, before, good, bad, "attention with bad pages later on");
    for (int kind = 0; kind < 4; kind++)
        for (int page = 0; page < 2; page++) {
            int32_t kept = *i32_at(h, &p.table, 1, page);
            for (int t = 0; t < T; t++)
                bad[t] = t % SLOTS == 1 && t / SLOTS / PAGE >= page;
            *i32_at(h, &p.table, 1, page) = kind < 3 ? extremes[kind] : PAGES;
            restore(h, &op.y, before);
            assert_int_equal(RUN(h, op, op.y), MH_BAD_INDEX);
            expect_rows(h, &op.y, before, good, bad, "attention with a bad page");
            *i32_at(h, &p.table, 1, page) = kept;
        }
    for (int t = 0; t < T; t++) /* all rows look at position 20, NaN lies behind */
        *i32_at(h, &p.positions, t, 0) = 20;
    RUN(h, op, op.y);
    free(good);
    good = copy_of(h, &op.y);
    for (int slot = 0; slot < SLOTS; slot++)
        for (int at = 21 % PAGE; at < PAGE; at++)
            memset(f32_at(h, &op.cache, *i32_at(h, &p.table, slot, 1), at, 0), 0xFF, (L + R) * 4);
    restore(h, &op.y, before);
    assert_int_equal(RUN(h, op, op.y), 0);
    memset(bad, 0, sizeof(bad));
    expect_rows(h, &op.y, before, good, bad, "attention before NaN");
    free(before), free(good);
    harness_clear(h);
}

/* ---- experts ---- */

enum { ROWS = 12, KEEP = 3, LOGICAL = 7, RESIDENT = 5, D = 100, I = 40 };

/* Which (t, j) an op may not touch; the others are as `good`. */
static void expect_slots(const struct harness *h, const mh_tensor *y, const unsigned char *before,
                         const unsigned char *good, const mh_tensor *chosen, int32_t spoiled,
                         const char *what)
{
    for (int64_t i = 0; i < ROWS * KEEP; i++) {
        int64_t t = i / KEEP, j = i % KEEP;
        size_t from = (size_t)(t * y->stride[0] + j * y->stride[1]), size = (size_t)y->stride[1];
        bool bad = *i32_at(h, chosen, t, j) == spoiled;
        assert_true(memcmp(before + from, good + from, size) != 0);
        if (memcmp(h->base + y->offset + from, (bad ? before : good) + from, size))
            fail_msg("%s: slot %d of row %d, %s", what, (int)j, (int)t,
                     bad ? "bad, was touched" : "good, is not what it is alone");
    }
}

/* An id out of range, an expert elsewhere (no fault), a map entry out of range. */
static void spoil_experts(struct harness *h, const mh_op *op, const mh_tensor *y,
                          const mh_tensor *chosen, const mh_tensor *map, const char *what)
{
    const mh_tensor outputs[] = {*y, {0}};
    unsigned char *before = copy_of(h, y), *kept = copy_of(h, chosen);
    assert_int_equal(run(h, op, outputs), 0);
    unsigned char *good = copy_of(h, y);
    for (int kind = 0; kind < 5; kind++) {
        int32_t value = kind < 4 ? extremes[kind] : LOGICAL;
        for (int i = 0; i < ROWS * KEEP; i += 4)
            *i32_at(h, chosen, i / KEEP, i % KEEP) = value;
        restore(h, y, before);
        assert_int_equal(run(h, op, outputs), MH_BAD_INDEX);
        expect_slots(h, y, before, good, chosen, value, what);
        restore(h, chosen, kept);
    }
    for (int kind = 0; kind < 5; kind++) {
        int32_t expert = kind, there = *i32_at(h, map, expert, 0);
        *i32_at(h, map, expert, 0) = kind < 4 ? extremes[kind] : RESIDENT;
        restore(h, y, before);
        assert_int_equal(run(h, op, outputs), kind ? MH_BAD_INDEX : 0); /* -1 is elsewhere */
        expect_slots(h, y, before, good, chosen, expert, what);
        *i32_at(h, map, expert, 0) = there;
    }
    free(before), free(good), free(kept);
}

static void experts_and_their_map(struct harness *h)
{
    float *values;
    mh_op_experts_gate_up up = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
    up.x = make(h, MH_F32, 1, 2, ROWS, D, 0), up.y = make(h, MH_F32, 2, 3, ROWS, KEEP, I);
    up.experts = indices(h, ROWS, KEEP, LOGICAL), up.fault = h->fault;
    up.expert_map = indices(h, LOGICAL, 0, RESIDENT);
    up.gate = make_weight(h, MH_FORMAT_FP8, RESIDENT, I, D, &values);
    up.up = make_weight(h, MH_FORMAT_FP8, RESIDENT, I, D, &values);
    spoil_experts(h, &up.base, &up.y, &up.experts, &up.expert_map, "experts_gate_up");
    mh_op_experts_down down = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    down.x = up.y, down.experts = up.experts, down.expert_map = up.expert_map;
    down.fault = h->fault, down.y = make(h, MH_F32, 1, 3, ROWS, KEEP, D);
    down.w = make_weight(h, MH_FORMAT_F16, RESIDENT, D, I, &values);
    spoil_experts(h, &down.base, &down.y, &down.experts, &down.expert_map, "experts_down");
    harness_clear(h);
}

/* Without a map the bank's own size is the limit. One bad slot spoils a combined row. */
static void experts_without_a_map(struct harness *h)
{
    enum { MANY = 160 };
    float *values;
    mh_op_experts_down_combine op = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
    op.h = make(h, MH_F32, 1, 2, MANY, D, 0), op.y = make(h, MH_F32, 2, 2, MANY, D, 0);
    op.x = make(h, MH_F32, 0, 3, MANY, KEEP, I), op.weights = make(h, MH_F32, 0, 2, MANY, KEEP, 0);
    op.experts = indices(h, MANY, KEEP, RESIDENT), op.fault = h->fault;
    op.w = make_weight(h, MH_FORMAT_BF16, RESIDENT, D, I, &values);
    spoil(h, &op.base, &op.y, &op.experts, RESIDENT, false, "experts_down_combine");
    mh_op_combine sum = MH_OP_INIT(combine, COMBINE);
    sum.h = op.h, sum.y = op.y, sum.weights = op.weights, sum.experts = op.experts;
    sum.e = make(h, MH_F32, 0, 3, MANY, KEEP, D), sum.fault = h->fault;
    sum.expert_count = RESIDENT;
    spoil(h, &sum.base, &sum.y, &sum.experts, RESIDENT, false, "combine");
    harness_clear(h);
}

#define TEST(body)                                                                                 \
    static void test_##body(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_form(body);                                                                       \
    }
TEST(tokens)
TEST(positions_of_rope)
TEST(positions_of_mla_query)
TEST(cache_writers)
TEST(readers)
TEST(pages_that_are_not_there)
TEST(experts_and_their_map)
TEST(experts_without_a_map)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_positions_of_rope),
        cmocka_unit_test(test_positions_of_mla_query),
        cmocka_unit_test(test_cache_writers),
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_pages_that_are_not_there),
        cmocka_unit_test(test_experts_and_their_map),
        cmocka_unit_test(test_experts_without_a_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
