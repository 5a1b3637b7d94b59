/*
 * The front end's checks: one good op of each kind, and what happens when one thing about it is
 * wrong. Each case names what the message must name.
 */
#include <math.h>

#include "world.h"

struct bench {
    struct world *w;
    mh_buffer *buffer;
    mh_weight *matrix, *bank, *unsealed;
    mh_stream *stream;
};

static mh_weight *weight(struct bench *b, int64_t experts, int64_t out, int64_t in, bool seal)
{
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = MH_FORMAT_F32, p.experts = experts, p.out = out, p.in = in;
    mh_weight *weight;
    OK(mh_weight_create(b->w->host, &p, &weight));
    float *zeros = calloc((size_t)(experts * out * in), 4);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = experts, piece.row_count = out, piece.plane[0] = zeros;
    if (seal) {
        OK(mh_weight_write(weight, &piece));
        OK(mh_weight_seal(weight));
    }
    free(zeros);
    return weight;
}

static struct bench open_bench(void)
{
    struct bench b = {.w = world_make(0)};
    OK(mh_buffer_create(b.w->host, 65536, 0, &b.buffer));
    OK(mh_stream_create(b.w->host, &b.stream));
    b.matrix = weight(&b, 1, 6, 8, true);
    b.bank = weight(&b, 4, 6, 8, true);
    b.unsealed = weight(&b, 1, 6, 8, false);
    return b;
}

static void close_bench(struct bench *b)
{
    mh_weight_release(b->matrix);
    mh_weight_release(b->bank);
    mh_weight_release(b->unsealed);
    mh_buffer_release(b->buffer);
    mh_stream_release(b->stream);
    world_free(b->w);
}

static mh_tensor tensor(struct bench *b, int place, mh_dtype dtype, uint32_t rank, int64_t x,
                        int64_t y, int64_t z)
{
    const int64_t shape[] = {x, y, z};
    return mh_tensor_make(b->buffer, (uint64_t)place * 1024, dtype, rank, shape);
}

static mh_op_linear linear(struct bench *b)
{
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    op.x = tensor(b, 0, MH_F32, 2, 3, 8, 0);
    op.y = tensor(b, 1, MH_F32, 2, 3, 6, 0);
    op.w = b->matrix;
    return op;
}

static void bad(struct bench *b, const mh_op *op, const char *part)
{
    REFUSED(MH_INVALID_ARGUMENT, mh_encode(mh_stream_encoder(b->stream), op), part);
}

static void good_op(struct bench *b, const mh_op *op)
{
    OK(mh_encode(mh_stream_encoder(b->stream), op));
}

#define BAD(op, part) bad(b, &(op).base, part)
#define GOOD(op) good_op(b, &(op).base)

static void tensors(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    mh_op_linear good = linear(b), op;
    GOOD(good);
    op = good, op.x.dtype = MH_BF16, BAD(op, "linear: x: dtype is bf16 (3), must be f32");
    op = good, op.x.dtype = 77, BAD(op, "x: dtype is ? (77)");
    op = good, op.x.rank = 3, BAD(op, "x: rank is 3, must be 2");
    op = good, op.x.rank = 9, BAD(op, "x: rank is 9");
    op = good, op.x = (mh_tensor){0}, BAD(op, "x: is absent");
    op = good, op.x.shape[1] = 7, BAD(op, "dimension 1 (I) is 8, must be 7 as in x");
    op = good, op.y.shape[0] = 4, BAD(op, "must be 4 as in y");
    op = good, op.x.shape[0] = op.y.shape[0] = -1, BAD(op, "dimension 0 (T) is -1");
    op = good, op.x.shape[0] = op.y.shape[0] = INT64_MAX, BAD(op, "2^31 - 1");
    op = good, op.x.stride[0] = 30, BAD(op, "x: stride 0 is 30");
    op = good, op.x.stride[0] = -32, BAD(op, "x: stride 0 is -32");
    op = good, op.x.stride[1] = 8, BAD(op, "stride of the last dimension is 8");
    op = good, op.x.stride[0] = INT64_MAX - 3, BAD(op, "x:");
    op = good, op.x.offset = 2, BAD(op, "x: offset is 2");
    op = good, op.x.offset = 65536 - 92, BAD(op, "x: ends at byte 65540 of a buffer of 65536");
    op = good, op.x.offset = UINT64_MAX - 3, BAD(op, "x:");
    op = good, op.x.buffer = NULL, BAD(op, "x: buffer is NULL");
    op = good, op.x.reserved[0] = 1, BAD(op, "x: reserved");
    op = good, op.x.reserved[1] = 1, op.w = NULL, BAD(op, "x: reserved");
    op = good, op.y.stride[0] = 4, BAD(op, "y: stride 0 is 4: its elements overlap");
    op = good, op.y.offset = op.x.offset + 16, BAD(op, "y: overlaps x");
    op = good, op.base.flags = 6, BAD(op, "flags are 0x6");
    mh_buffer *elsewhere;
    OK(mh_buffer_create(b->w->probe, 1024, 0, &elsewhere));
    op = good, op.x.buffer = elsewhere, BAD(op, "x: its buffer is on probe:0, the op on host:0");
    mh_buffer_release(elsewhere);
    /* No rows is no work. */
    op = good, op.x.shape[0] = op.y.shape[0] = 0, GOOD(op);
    close_bench(b);
}

static void weights(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    mh_op_linear good = linear(b), op;
    op = good, op.w = NULL, BAD(op, "w: is NULL");
    op = good, op.w = b->bank, BAD(op, "w: has 4 experts");
    op = good, op.w = b->unsealed, BAD(op, "is not sealed");
    mh_op_linear_swiglu gated = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
    gated.x = good.x, gated.y = good.y, gated.gate = gated.up = b->matrix;
    GOOD(gated);
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = MH_FORMAT_BF16, p.experts = 1, p.out = 6, p.in = 8;
    mh_weight *other;
    static const uint16_t zeros[48];
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = 1, piece.row_count = 6, piece.plane[0] = zeros;
    OK(mh_weight_create(b->w->host, &p, &other));
    OK(mh_weight_write(other, &piece));
    OK(mh_weight_seal(other));
    gated.up = other;
    BAD(gated, "gate is f32, up is bf16");
    mh_weight_release(other);
    close_bench(b);
}

static void scalars(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM), n;
    norm.x = tensor(b, 0, MH_F32, 2, 3, 8, 0);
    norm.y = tensor(b, 1, MH_F32, 2, 3, 8, 0);
    norm.w = tensor(b, 2, MH_F32, 1, 8, 0, 0);
    norm.eps = 1e-6f;
    GOOD(norm);
    n = norm, n.y = n.x, GOOD(n); /* in place */
    n = norm, n.eps = -1, BAD(n, "eps is -1");
    n = norm, n.eps = NAN, BAD(n, "eps");
    n = norm, n.residual = tensor(b, 3, MH_F32, 2, 3, 8, 0), BAD(n, "residual and sum");

    mh_op_router route = MH_OP_INIT(router, ROUTER), r;
    route.logits = tensor(b, 0, MH_F32, 2, 3, 8, 0);
    route.experts = tensor(b, 1, MH_I32, 2, 3, 2, 0);
    route.weights = tensor(b, 2, MH_F32, 2, 3, 2, 0);
    route.rule = (mh_router_rule){MH_ROUTER_SIGMOID, MH_GROUPS_TOP2, 4, 2, 1, 2.5f};
    GOOD(route);
    r = route, r.rule.scoring = 3, BAD(r, "scoring is 3");
    r = route, r.rule.groups = 3, BAD(r, "groups is 3, must divide E = 8");
    r = route, r.rule.top_groups = 5, BAD(r, "top_groups is 5");
    r = route, r.rule.groups = 8, r.rule.top_groups = 1, BAD(r, "k is 2");
    r = route, r.experts.shape[1] = r.weights.shape[1] = 9, r.rule.group_score = 0;
    r.experts.stride[0] = r.weights.stride[0] = 36, BAD(r, "k is 9, at most E = 8");

    mh_op_head_linear head = MH_OP_INIT(head_linear, HEAD_LINEAR), h;
    head.x = tensor(b, 0, MH_F32, 3, 2, 2, 8);
    head.y = tensor(b, 1, MH_F32, 3, 2, 2, 1);
    head.w = b->matrix, head.head_rows = 3, head.row_begin = 2, head.row_count = 1;
    GOOD(head);
    h = head, h.head_rows = 4, BAD(h, "must be H * head_rows = 2 * 4");
    h = head, h.head_rows = INT64_MAX, BAD(h, "head_rows");
    h = head, h.row_begin = 3, BAD(h, "rows 3 + 1");
    h = head, h.row_count = INT64_MAX, BAD(h, "are not inside");
    h = head, h.transposed = 1, BAD(h, "y: last dimension is 1, must be 8");

    mh_op_mla_query query = MH_OP_INIT(mla_query, MLA_QUERY), q; /* w [2 * 3, 8]: L = 8, N = 1 */
    query.q = tensor(b, 0, MH_F32, 3, 2, 2, 3);
    query.y = tensor(b, 1, MH_F32, 3, 2, 2, 10);
    query.table = tensor(b, 2, MH_F32, 2, 4, 2, 0);
    query.positions = tensor(b, 3, MH_I32, 1, 2, 0, 0);
    query.fault = tensor(b, 4, MH_U32, 1, 1, 0, 0);
    query.w = b->matrix, query.head_rows = 3;
    q = query, q.head_rows = 2, BAD(q, "must be H * head_rows = 2 * 2");
    q = query, q.head_rows = 0, BAD(q, "head_rows");
    q = query, q.head_rows = -3, BAD(q, "head_rows");

    mh_op_combine combine = MH_OP_INIT(combine, COMBINE), c;
    combine.y = tensor(b, 0, MH_F32, 2, 2, 8, 0);
    combine.h = tensor(b, 1, MH_F32, 2, 2, 8, 0);
    combine.e = tensor(b, 2, MH_F32, 3, 2, 2, 8);
    combine.weights = tensor(b, 3, MH_F32, 2, 2, 2, 0);
    combine.experts = tensor(b, 4, MH_I32, 2, 2, 2, 0);
    combine.fault = tensor(b, 5, MH_U32, 1, 1, 0, 0);
    c = combine, c.expert_count = 0, BAD(c, "expert_count is 0, must be at least 1");
    c = combine, c.experts = (mh_tensor){0}, c.expert_count = 4, BAD(c, "expert_count is 4");
    c = combine, c.expert_count = 4, c.resident_count = -1, BAD(c, "resident_count is -1");
    close_bench(b);
}

static void caches(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    mh_op_kv_write good = MH_OP_INIT(kv_write, KV_WRITE), op;
    good.cache = tensor(b, 0, MH_BF16, 3, 2, 4, 6);
    good.latent = tensor(b, 1, MH_F32, 2, 3, 4, 0);
    good.rope = tensor(b, 2, MH_F32, 2, 3, 2, 0);
    good.positions = tensor(b, 3, MH_I32, 1, 3, 0, 0);
    good.slots = tensor(b, 4, MH_I32, 1, 3, 0, 0);
    good.page_table = tensor(b, 5, MH_I32, 2, 1, 2, 0);
    good.fault = tensor(b, 6, MH_U32, 1, 1, 0, 0);
    static const int32_t positions[] = {0, 1, 2};
    OK(mh_buffer_write(b->buffer, 3 * 1024, positions, sizeof(positions)));
    GOOD(good);
    op = good, op.cache.dtype = MH_F16, BAD(op, "cache: dtype is f16 (2), must be f32 or bf16");
    op = good, op.rope.shape[1] = 3, BAD(op, "K is 6, must be L + R = 7");
    op = good, op.fault.shape[0] = 2, BAD(op, "fault: dimension 0 is 2, must be 1");
    op = good, op.fault = good.slots, BAD(op, "fault: dtype is i32");
    op = good, op.page_table.rank = 1, BAD(op, "page_table: rank is 1");

    mh_op_mla_kv fused = MH_OP_INIT(mla_kv, MLA_KV);
    fused.cache = good.cache, fused.kv = tensor(b, 1, MH_F32, 2, 3, 6, 0);
    fused.norm = tensor(b, 7, MH_F32, 1, 4, 0, 0), fused.table = tensor(b, 8, MH_F32, 2, 7, 2, 0);
    fused.positions = good.positions, fused.slots = good.slots;
    fused.page_table = good.page_table, fused.fault = good.fault;
    BAD(fused, "table has 7 positions, the cache has room for 8");
    fused.table = tensor(b, 8, MH_F32, 2, 8, 2, 0);
    GOOD(fused);
    close_bench(b);
}

/* Slices of one row may be written while others are read; slices that touch may not. */
static void interleaved_slices_do_not_overlap(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    mh_op_rope op = MH_OP_INIT(rope, ROPE);
    mh_tensor rows = tensor(b, 0, MH_F32, 3, 2, 3, 10); /* [T, H, 6 + 4] */
    op.x = mh_tensor_slice(rows, 2, 0, 4);
    op.table = tensor(b, 1, MH_F32, 2, 4, 4, 0);
    op.positions = tensor(b, 2, MH_I32, 1, 2, 0, 0);
    op.fault = tensor(b, 3, MH_U32, 1, 1, 0, 0);
    op.y = mh_tensor_slice(rows, 2, 6, 4);
    GOOD(op);
    op.y = mh_tensor_slice(rows, 2, 4, 4);
    GOOD(op);
    op.y = op.x; /* in place */
    GOOD(op);
    op.y = mh_tensor_slice(rows, 2, 3, 4);
    BAD(op, "y: overlaps x");
    op.y = mh_tensor_slice(rows, 2, 6, 4);
    op.y.offset += (uint64_t)rows.stride[1]; /* a head further: still other columns */
    op.y.shape[1] = op.x.shape[1] = 2;
    GOOD(op);
    op.y = op.x, op.y.offset += (uint64_t)rows.stride[1];
    BAD(op, "y: overlaps x");
    close_bench(b);
}

static void heads_and_copies(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    REFUSED(MH_INVALID_ARGUMENT, mh_encode(mh_stream_encoder(b->stream), NULL), "op: is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_encode(NULL, NULL), "encoder is NULL");
    mh_op unknown = {.struct_size = sizeof(unknown), .op = 999};
    REFUSED(MH_UNSUPPORTED, mh_encode(mh_stream_encoder(b->stream), &unknown), "id 999");
    unknown.op = MH_OP_LINEAR, unknown.struct_size = 4;
    REFUSED(MH_INVALID_ARGUMENT, mh_encode(mh_stream_encoder(b->stream), &unknown),
            "struct_size is 4");
    /* A longer op of a newer header is the same op as long as its tail is zero. */
    struct {
        mh_op_linear op;
        uint64_t tail;
    } newer = {linear(b), 0};
    newer.op.base.struct_size = sizeof(newer);
    GOOD(newer.op);
    newer.tail = 1;
    BAD(newer.op, "linear: byte");
    mh_op_copy copy = MH_OP_INIT(copy, COPY);
    copy.x = tensor(b, 0, MH_F32, 2, 3, 5, 0);
    copy.y = tensor(b, 1, MH_I32, 2, 3, 5, 0);
    BAD(copy, "y is i32, x is f32: use cast");
    copy.y = tensor(b, 1, MH_F32, 2, 5, 3, 0);
    BAD(copy, "dimension 0 is 5 in y, 3 in x");
    mh_op_sample sample = MH_OP_INIT(sample, SAMPLE);
    sample.logits = tensor(b, 0, MH_F32, 2, 1, 16, 0);
    sample.y = tensor(b, 1, MH_I32, 1, 1, 0, 0);
    sample.params = tensor(b, 2, MH_U32, 2, 1, 8, 0);
    GOOD(sample);
    sample.params.offset += 4;
    BAD(sample, "params: offset");
    close_bench(b);
}

/* Another format than the bench's f32. */
static mh_weight *bf16_weight(struct bench *b, int64_t experts, int64_t out, int64_t in)
{
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = MH_FORMAT_BF16, p.experts = experts, p.out = out, p.in = in;
    mh_weight *weight;
    void *zeros = calloc((size_t)(experts * out * in), 2);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = experts, piece.row_count = out, piece.plane[0] = zeros;
    OK(mh_weight_create(b->w->host, &p, &weight));
    OK(mh_weight_write(weight, &piece));
    OK(mh_weight_seal(weight));
    free(zeros);
    return weight;
}

static void fused_steps(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    mh_weight *other = bf16_weight(b, 1, 6, 8), *down = weight(b, 1, 8, 5, true);
    mh_op_norm_linear good = MH_OP_INIT(norm_linear, NORM_LINEAR), op;
    good.x = tensor(b, 0, MH_F32, 2, 3, 8, 0), good.norm = tensor(b, 1, MH_F32, 1, 8, 0, 0);
    good.y = tensor(b, 2, MH_F32, 2, 3, 6, 0), good.y2 = tensor(b, 3, MH_F32, 2, 3, 6, 0);
    good.w = good.w2 = b->matrix;
    good_op(b, &good.base);
    op = good, op.w2 = NULL;
    BAD(op, "w2 and y2 go together");
    op = good, op.y2 = (mh_tensor){0};
    BAD(op, "w2 and y2 go together");
    op.w2 = NULL;
    good_op(b, &op.base);
    op = good, op.w2 = other;
    BAD(op, "w is f32, w2 is bf16");
    op = good, op.eps = -1;
    BAD(op, "eps is -1");
    op = good, op.y2 = op.y;
    BAD(op, "y: overlaps y2");
    op = good, op.w = NULL;
    BAD(op, "w: is NULL");

    mh_op_moe_gate_up up = MH_OP_INIT(moe_gate_up, MOE_GATE_UP), wrong;
    up.y = tensor(b, 0, MH_F32, 3, 3, 2, 6), up.shared_y = tensor(b, 1, MH_F32, 2, 3, 6, 0);
    up.x = tensor(b, 2, MH_F32, 2, 3, 8, 0), up.experts = tensor(b, 3, MH_I32, 2, 3, 2, 0);
    up.fault = tensor(b, 4, MH_U32, 1, 1, 0, 0);
    up.gate = up.up = b->bank, up.shared_gate = up.shared_up = b->matrix;
    static const int32_t zeros[6];
    OK(mh_buffer_write(b->buffer, 3 * 1024, zeros, sizeof(zeros)));
    good_op(b, &up.base);
    wrong = up, wrong.shared_gate = other;
    BAD(wrong, "gate is f32, shared_gate is bf16");
    wrong = up, wrong.shared_up = other;
    BAD(wrong, "gate is f32, shared_up is bf16");
    wrong = up, wrong.shared_up = NULL;
    BAD(wrong, "shared_up: is NULL");
    wrong = up, wrong.shared_gate = down;
    BAD(wrong, "shared_gate: dimension 0 (N) is 8, must be 6");
    mh_weight_release(down);
    mh_weight_release(other);
    close_bench(b);
}

static void questions_need_no_memory(void **state)
{
    (void)state;
    struct bench bench = open_bench(), *b = &bench;
    mh_op_linear op = linear(b);
    mh_support s = MH_INIT(mh_support);
    op.x.buffer = op.y.buffer = NULL;
    op.w = b->unsealed;
    OK(mh_device_supports(b->w->host, &op.base, &s));
    assert_int_equal(s.runs, MH_RUNS_NATIVE);
    assert_int_equal(s.missing, MH_MISSING_NOTHING);
    op.base.flags = MH_OP_FAST;
    OK(mh_device_supports(b->w->host, &op.base, &s));
    assert_int_equal(s.runs, MH_RUNS_NATIVE);
    assert_int_equal(s.missing, MH_MISSING_NOTHING);
    op.base.flags = 0;
    mh_op_sample sample = MH_OP_INIT(sample, SAMPLE);
    sample.logits = mh_tensor_make(NULL, 0, MH_F32, 2, (const int64_t[]){1, 1 << 18});
    sample.y = mh_tensor_make(NULL, 0, MH_I32, 1, (const int64_t[]){1});
    sample.params = mh_tensor_make(NULL, 0, MH_U32, 2, (const int64_t[]){1, 8});
    OK(mh_device_supports(b->w->host, &sample.base, &s));
    sample.logits.shape[1]++;
    REFUSED(MH_INVALID_ARGUMENT, mh_device_supports(b->w->host, &sample.base, &s), "at most 2^18");
    op.x.shape[1] = 9;
    REFUSED(MH_INVALID_ARGUMENT, mh_device_supports(b->w->host, &op.base, &s), "as in x");
    close_bench(b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors),
        cmocka_unit_test(weights),
        cmocka_unit_test(scalars),
        cmocka_unit_test(caches),
        cmocka_unit_test(interleaved_slices_do_not_overlap),
        cmocka_unit_test(heads_and_copies),
        cmocka_unit_test(fused_steps),
        cmocka_unit_test(questions_need_no_memory),
    };
    return WORLD_MAIN(tests);
}
