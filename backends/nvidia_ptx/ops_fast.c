/*
 * ops_fast.c: ops with MH_OP_FAST whose rows are many enough for the matrix units (gemm.ptx). The
 * inputs are rounded to scratch first; pairs of a token and a slot are put in order by expert. What
 * does not come here runs its exact kernel, which is inside any bounds.
 */
#include "plan.h"

enum {
    LEAST_ROWS = 16,    /* below, weights are read by dot.inc's kernels as often */
    TILE_COLUMNS = 128, /* gemm_body.inc */
    SMALL_TILE = 64,
    LARGE_TILE = 128,
};

/* Whether FP8 weights go to the matrix units as such. */
static bool takes_e4m3(const struct device *device, const mh_weight_view *w)
{
    return w->format == MH_FORMAT_FP8 && nv_text_sm(device, FAMILY_gemm, MH_FORMAT_FP8) >= 89;
}

struct fast {
    const struct device *device;
    struct launch *l;
    uint32_t count; /* of launches */
    uint64_t scratch, used, counters;
};

/* An address in scratch. */
static uint64_t take(struct fast *f, uint64_t bytes)
{
    uint64_t at = f->scratch + f->used;
    f->used += (bytes + 255) & ~UINT64_C(255);
    return at;
}

/* ---- what the kernels ask of shapes and alignment ---- */

static bool weight_fits(const struct device *device, const mh_weight_view *w)
{
    return w->in % (takes_e4m3(device, w) ? 16 : 8) == 0 && w->out % 2 == 0;
}

static bool pairs_aligned(const mh_tensor *t)
{
    uint64_t bits = address(t);
    for (uint32_t i = 0; i + 1 < t->rank; i++)
        bits |= (uint64_t)t->stride[i];
    return bits % 8 == 0;
}

/* ---- rows for the matrix units ---- */

struct input {
    uint64_t at, row; /* address, bytes a row */
};

static bool e4m3(const struct fast *f, const mh_weight_view *w)
{
    return takes_e4m3(f->device, w);
}

/* Rounds x, [T, in] or [T, slots, in], to scratch, normed if `norm` is there. */
static struct input round_rows(struct fast *f, const mh_weight_view *w, const mh_tensor *x,
                               const mh_tensor *norm, float eps)
{
    int64_t slots = x->rank == 3 ? x->shape[1] : 1;
    uint64_t blocks = ceil_div(w->in, 128);
    uint64_t row = e4m3(f, w) ? (blocks * 132 + 127) & ~UINT64_C(127) : blocks * 256;
    struct input in = {take(f, (uint64_t)(x->shape[0] * slots) * row), row};
    struct launch *l = begin(&f->l[f->count++], KERNEL_gemm_input, w->format);
    set_grid(l, x->shape[0], slots, 1);
    l->block = 256;
    l->shared = norm ? (uint32_t)(4 * w->in) : 0;
    put(l, address(x));
    put(l, (uint64_t)x->stride[0]);
    put(l, x->rank == 3 ? (uint64_t)x->stride[1] : 0);
    put(l, norm ? address(norm) : 0);
    put(l, in.at);
    put(l, in.row);
    put(l, (uint64_t)w->in);
    put_f32(l, 1.0f / (float)w->in);
    put_f32(l, eps);
    return in;
}

/* ---- products ---- */

struct product {
    const mh_weight_view *w, *up;
    struct input in;
    uint64_t y, y_row, y_j, residual, residual_row;
    int64_t count, rows;
    int64_t heads, head_rows, first_row; /* heads 0: one product; else rows of the input are too */
    uint64_t order, tiles;               /* 0: rows in order */
    uint32_t tile, tile_count;
    int64_t slots, share;
};

/* Bytes of gemm_body.inc's ring for a tile of so many rows. */
static uint32_t ring_bytes(const struct device *device, const mh_weight_view *w, uint32_t tile)
{
    uint32_t sm = nv_text_sm(device, FAMILY_gemm, w->format);
    uint32_t stages = tile == LARGE_TILE && sm >= 90 ? 6 : 3;
    return stages * ((tile + TILE_COLUMNS) * 128 + (takes_e4m3(device, w) ? 512 : 0));
}

/* Rows a block: the larger tile reads weights half as often, where there are rows for it. */
static uint32_t tile_of(const struct device *device, const mh_weight_view *w, int64_t rows)
{
    bool fits = ring_bytes(device, w, LARGE_TILE) <= nv_dynamic_shared(device, KERNEL_gemm_128);
    return rows > SMALL_TILE && fits ? LARGE_TILE : SMALL_TILE;
}

static void product(struct fast *f, const struct product *p)
{
    uint32_t kernel = p->tile == LARGE_TILE ? KERNEL_gemm_128 : KERNEL_gemm_64;
    struct launch *l = begin(&f->l[f->count++], kernel, p->w->format);
    int64_t heads = p->heads ? p->heads : 1;
    set_grid(l, p->tiles ? p->tile_count : ceil_div(p->count, p->tile),
             ceil_div(p->rows, p->up ? TILE_COLUMNS / 2 : TILE_COLUMNS), heads);
    l->block = 2 * p->tile;
    l->shared = ring_bytes(f->device, p->w, p->tile);
    put(l, p->y);
    put(l, p->y_row);
    put(l, p->y_j);
    put(l, p->residual);
    put(l, p->residual_row);
    put(l, p->in.at);
    put(l, p->in.row * (uint64_t)heads);
    put(l, p->in.row);
    put(l, plane(p->w, 0));
    put(l, (uint64_t)p->w->row_stride[0]);
    put(l, (uint64_t)p->w->expert_stride[0]);
    put(l, plane(p->w, 1));
    put(l, p->w->plane_count > 1 ? (uint64_t)p->w->row_stride[1] : 0);
    put(l, p->w->plane_count > 1 ? (uint64_t)p->w->expert_stride[1] : 0);
    put(l, p->up ? plane(p->up, 0) : 0);
    put(l, p->up ? plane(p->up, 1) : 0);
    put(l, p->order);
    put(l, p->tiles);
    put(l, (uint64_t)p->count);
    put(l, (uint64_t)p->rows);
    put(l, (uint64_t)p->w->in);
    put(l, (uint64_t)p->head_rows);
    put(l, (uint64_t)p->first_row);
    put(l, (uint64_t)(p->slots ? p->slots : 1));
    put(l, (uint64_t)(p->share ? p->share : 1));
}

/* y = [residual +] w . x, or swiglu of w . x and up . x. */
static void rows(struct fast *f, const mh_weight_view *w, const mh_weight_view *up, struct input in,
                 const mh_tensor *y, const mh_tensor *residual)
{
    product(f, &(struct product){.w = w,
                                 .up = up,
                                 .in = in,
                                 .y = address(y),
                                 .y_row = (uint64_t)y->stride[0],
                                 .residual = residual ? address(residual) : 0,
                                 .residual_row = residual ? (uint64_t)residual->stride[0] : 0,
                                 .count = y->shape[0],
                                 .rows = w->out,
                                 .tile = tile_of(f->device, w, y->shape[0])});
}

static bool linear(struct fast *f, const mh_tensor *y, const mh_tensor *x,
                   const mh_tensor *residual, const mh_weight *w, const mh_weight *up)
{
    const mh_weight_view *view = mh_view_weight(w);
    if (x->shape[0] < LEAST_ROWS || !weight_fits(f->device, view) ||
        !tensor_aligned(x, view->in, 16) || !pairs_aligned(y) ||
        (residual && !pairs_aligned(residual)))
        return false;
    rows(f, view, up ? mh_view_weight(up) : NULL, round_rows(f, view, x, NULL, 0), y, residual);
    return true;
}

static bool norm_linear(struct fast *f, const mh_op_norm_linear *o)
{
    const mh_weight_view *w = mh_view_weight(o->w), *w2 = o->w2 ? mh_view_weight(o->w2) : NULL;
    if (o->x.shape[0] < LEAST_ROWS || !weight_fits(f->device, w) ||
        (w2 && !weight_fits(f->device, w2)) || !tensor_aligned(&o->x, w->in, 16) ||
        !pairs_aligned(&o->y) || (w2 && !pairs_aligned(&o->y2)))
        return false;
    struct input in = round_rows(f, w, &o->x, &o->norm, o->eps);
    rows(f, w, NULL, in, &o->y, NULL);
    if (w2)
        rows(f, w2, NULL, in, &o->y2, NULL);
    return true;
}

/* y[t, h, c] = sum over r of x[t, h, r] w[row r of head h, c]: gemm_columns.ptx. */
static bool head_columns(struct fast *f, const mh_tensor *y, const mh_tensor *x,
                         const mh_weight *weight, int64_t rows, int64_t head_rows,
                         int64_t first_row)
{
    enum { TOKENS = 64, SHARED = 48 << 10 };
    const mh_weight_view *w = mh_view_weight(weight);
    if (y->shape[0] < LEAST_ROWS || w->in % 8 || !tensor_aligned(x, rows, 16) || !pairs_aligned(y))
        return false;
    struct launch *l = begin(&f->l[f->count++], KERNEL_gemm_columns, w->format);
    set_grid(l, ceil_div(y->shape[0], TOKENS), ceil_div(w->in, TILE_COLUMNS), y->shape[1]);
    l->shared = SHARED;
    put_tensor(l, y, 2);
    put_tensor(l, x, 2);
    put_weight(l, w);
    put(l, (uint64_t)y->shape[0]);
    put(l, (uint64_t)rows);
    put(l, (uint64_t)w->in);
    put(l, (uint64_t)head_rows);
    put(l, (uint64_t)first_row);
    return true;
}

/* The rotated part of a query, behind what head_columns makes of the rest. */
static bool query(struct fast *f, const mh_tensor *y, const mh_tensor *q, const mh_tensor *table,
                  const mh_tensor *positions, const mh_tensor *fault, const mh_weight *weight,
                  int64_t head_rows)
{
    int64_t width = table->shape[1], latent = y->shape[2] - width, rows = q->shape[2] - width;
    mh_op_rope rope = {.y = *y, .x = *q, .table = *table, .positions = *positions, .fault = *fault};
    rope.y.offset += 4 * (uint64_t)latent;
    rope.x.offset += 4 * (uint64_t)rows;
    rope.y.shape[2] = rope.x.shape[2] = width;
    if (!head_columns(f, y, q, weight, rows, head_rows, 0))
        return false;
    f->count += plan_rope(f->device, &rope, NULL, &f->l[f->count]);
    return true;
}

static bool mla_query(struct fast *f, const mh_op_mla_query *o)
{
    return query(f, &o->y, &o->q, &o->table, &o->positions, &o->fault, o->w, o->head_rows);
}

static bool mla_qkv(struct fast *f, const mh_op_mla_qkv *o)
{
    mh_op_mla_kv kv = {.cache = o->cache,
                       .kv = o->kv,
                       .norm = o->norm,
                       .table = o->table,
                       .positions = o->positions,
                       .slots = o->slots,
                       .page_table = o->page_table,
                       .fault = o->fault,
                       .eps = o->eps};
    if (!query(f, &o->y, &o->q, &o->table, &o->positions, &o->fault, o->w, o->head_rows))
        return false;
    f->count += plan_mla_kv(f->device, &kv, NULL, &f->l[f->count]);
    return true;
}

static bool head_linear(struct fast *f, const mh_op_head_linear *o)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t heads = o->y.shape[1];
    if (o->transposed)
        return head_columns(f, &o->y, &o->x, o->w, o->row_count, o->head_rows, o->row_begin);
    if (o->x.shape[0] < LEAST_ROWS || !weight_fits(f->device, w) || o->row_count % 2 ||
        !tensor_aligned(&o->x, w->in, 16) || !pairs_aligned(&o->y))
        return false;
    /* A tile of e4m3 has one scale for its 128 columns. */
    if (e4m3(f, w) && (o->row_begin % 128 || (heads > 1 && o->head_rows % 128)))
        return false;
    product(f, &(struct product){.w = w,
                                 .in = round_rows(f, w, &o->x, NULL, 0),
                                 .y = address(&o->y),
                                 .y_row = (uint64_t)o->y.stride[0],
                                 .y_j = (uint64_t)o->y.stride[1],
                                 .count = o->y.shape[0],
                                 .rows = o->row_count,
                                 .heads = heads,
                                 .head_rows = o->head_rows,
                                 .first_row = o->row_begin,
                                 .tile = tile_of(f->device, w, o->y.shape[0])});
    return true;
}

/* ---- experts ---- */

struct routing {
    const mh_tensor *experts, *map, *fault;
};

/* The pairs by expert: fills in the order and the tiles of what will be several products. */
static void group(struct fast *f, const mh_weight_view *w, const struct routing *r,
                  struct product *p)
{
    int64_t slots = r->experts->shape[1], pairs = r->experts->shape[0] * slots;
    p->slots = slots;
    p->tile = tile_of(f->device, w, pairs / w->experts);
    p->tile_count = ceil_div(pairs, p->tile) + (uint32_t)(w->experts < pairs ? w->experts : pairs);
    p->order = take(f, 4 * (uint64_t)pairs);
    p->tiles = take(f, 16 * (uint64_t)p->tile_count);
    struct launch *l = begin(&f->l[f->count++], KERNEL_gemm_group, w->format);
    l->block = 1024;
    l->shared = (uint32_t)(4 * w->experts + 4);
    put_tensor(l, r->experts, 1);
    put(l, address_or_0(r->map));
    put(l, address(r->fault));
    put(l, p->order);
    put(l, p->tiles);
    put(l, (uint64_t)pairs);
    put(l, (uint64_t)slots);
    put(l, (uint64_t)(r->map->rank ? r->map->shape[0] : w->experts));
    put(l, (uint64_t)w->experts);
    put(l, p->tile);
    put(l, p->tile_count);
}

static bool experts_fit(const struct device *device, const mh_weight_view *w, const mh_tensor *x)
{
    return x->shape[0] >= LEAST_ROWS && weight_fits(device, w) && tensor_aligned(x, w->in, 16) &&
           (uint64_t)w->experts * 4 + 4 <= nv_dynamic_shared(device, KERNEL_gemm_group);
}

static void experts(struct fast *f, const mh_weight_view *w, const mh_weight_view *up,
                    struct input in, const mh_tensor *x, const struct routing *r, uint64_t y,
                    uint64_t y_row, uint64_t y_slot)
{
    struct product p = {.w = w,
                        .up = up,
                        .in = in,
                        .y = y,
                        .y_row = y_row,
                        .y_j = y_slot,
                        .rows = w->out,
                        .share = x->rank == 3 ? 1 : r->experts->shape[1]};
    group(f, w, r, &p);
    product(f, &p);
}

static bool gate_up(struct fast *f, const mh_tensor *y, const mh_tensor *x, const struct routing *r,
                    const mh_weight *gate, const mh_weight *up, const mh_tensor *shared_y,
                    const mh_weight *shared_gate, const mh_weight *shared_up)
{
    const mh_weight_view *w = mh_view_weight(gate);
    if (!experts_fit(f->device, w, x) || !pairs_aligned(y) ||
        (shared_y &&
         (!pairs_aligned(shared_y) || !weight_fits(f->device, mh_view_weight(shared_gate)))))
        return false;
    struct input in = round_rows(f, w, x, NULL, 0);
    experts(f, w, mh_view_weight(up), in, x, r, address(y), (uint64_t)y->stride[0],
            (uint64_t)y->stride[1]);
    if (shared_y)
        rows(f, mh_view_weight(shared_gate), mh_view_weight(shared_up), in, shared_y, NULL);
    return true;
}

static bool experts_down(struct fast *f, const mh_op_experts_down *o)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    if (!experts_fit(f->device, w, &o->x) || !pairs_aligned(&o->y))
        return false;
    experts(f, w, NULL, round_rows(f, w, &o->x, NULL, 0), &o->x,
            &(struct routing){&o->experts, &o->expert_map, &o->fault}, address(&o->y),
            (uint64_t)o->y.stride[0], (uint64_t)o->y.stride[1]);
    return true;
}

/* A tensor in scratch. */
static mh_tensor scratch_tensor(struct fast *f, mh_buffer_view *view, uint32_t rank, int64_t a,
                                int64_t b, int64_t c)
{
    mh_tensor t = {.dtype = MH_F32, .rank = rank, .shape = {a, b, c}};
    uint64_t bytes = 4 * (uint64_t)(a * b * (rank == 3 ? c : 1));
    for (uint32_t i = rank, step = 4; i-- > 0;) {
        t.stride[i] = i + 1 == rank ? step : t.stride[i + 1] * t.shape[i + 1];
    }
    *view = (mh_buffer_view){(void *)(uintptr_t)take(f, bytes), bytes, NULL};
    t.buffer = (mh_buffer *)(void *)view;
    return t;
}

static bool down_combine(struct fast *f, const mh_tensor *y, const mh_tensor *h, const mh_tensor *x,
                         const mh_tensor *weights, const struct routing *r, const mh_weight *weight,
                         const mh_tensor *shared, const mh_tensor *shared_x,
                         const mh_weight *shared_weight)
{
    const mh_weight_view *w = mh_view_weight(weight);
    const mh_weight_view *shared_w = shared_weight ? mh_view_weight(shared_weight) : NULL;
    mh_buffer_view memory[2];
    mh_op_combine combine = {.y = *y,
                             .h = *h,
                             .weights = *weights,
                             .experts = *r->experts,
                             .expert_map = *r->map,
                             .fault = *r->fault,
                             .expert_count = r->map->rank ? r->map->shape[0] : (int64_t)w->experts,
                             .resident_count = w->experts};
    if (!experts_fit(f->device, w, x) ||
        (shared_w &&
         (!weight_fits(f->device, shared_w) || !tensor_aligned(shared_x, shared_w->in, 16))))
        return false;
    combine.e = scratch_tensor(f, &memory[0], 3, x->shape[0], x->shape[1], w->out);
    experts(f, w, NULL, round_rows(f, w, x, NULL, 0), x, r, address(&combine.e),
            (uint64_t)combine.e.stride[0], (uint64_t)combine.e.stride[1]);
    if (shared_w) {
        combine.shared = scratch_tensor(f, &memory[1], 2, x->shape[0], w->out, 0);
        rows(f, shared_w, NULL, round_rows(f, shared_w, shared_x, NULL, 0), &combine.shared, NULL);
    } else if (shared) {
        combine.shared = *shared;
    }
    f->count += plan_combine(f->device, &combine, NULL, &f->l[f->count]);
    return true;
}

/* ---- attention ---- */

static void put_attention(struct launch *l, const mh_op_attention *o)
{
    put_cache(l, &o->cache, &o->positions, &o->slots, &o->page_table, &o->fault);
    put_tensor(l, &o->y, 2);
    put_tensor(l, &o->q, 2);
}

/* A block has 64 rows, heads of one or several tokens; where these make few blocks, 16 heads of a
 * token, whose keys go to several blocks. */
static bool attention(struct fast *f, const mh_op_attention *o)
{
    enum { LATENT = 512, WIDTH = 576, ROWS = 64, TILE = 64, FEW = 16 };
    enum { SLOT = 9 * 8192, STATE = 2048, SHARED_FEW = 2 * SLOT + 8192 + 64 };
    uint32_t slots = nv_text_sm(f->device, FAMILY_attention_mma, 0) >= 90 ? 2 : 1;
    uint32_t shared = SLOT + slots * SLOT + STATE;
    int64_t tokens = o->y.shape[0], heads = o->y.shape[1];
    if (o->cache.dtype != MH_BF16 || o->y.shape[2] != LATENT || o->q.shape[2] != WIDTH ||
        tokens * heads < LEAST_ROWS ||
        SHARED_FEW > nv_dynamic_shared(f->device, KERNEL_attention_decode) ||
        !tensor_aligned(&o->cache, WIDTH, 16) || !tensor_aligned(&o->q, WIDTH, 16) ||
        !tensor_aligned(&o->y, LATENT, 16))
        return false;
    int64_t block_heads = heads < ROWS ? heads : ROWS, block_tokens = ROWS / block_heads;
    int64_t groups = ceil_div(heads, block_heads), multiprocessors = f->device->multiprocessors;
    struct launch *l = &f->l[f->count++];
    if (2 * groups * ceil_div(tokens, block_tokens) >= multiprocessors) {
        begin(l, KERNEL_attention_mma, 0);
        set_grid(l, groups, ceil_div(tokens, block_tokens), 1);
        l->block = 256;
        l->shared = shared;
        put_attention(l, o);
        put(l, (uint64_t)tokens);
        put(l, (uint64_t)heads);
        put(l, (uint64_t)block_heads);
        put(l, (uint64_t)block_tokens);
        put_f32(l, o->scale);
        return true;
    }
    int64_t tiles = ceil_div(o->page_table.shape[1] * o->cache.shape[1], TILE);
    groups = ceil_div(heads, FEW);
    /* A multiprocessor has one block at a time: no more than two rounds of them. */
    int64_t parts = 2 * multiprocessors / (groups * tokens);
    parts = parts < 1 ? 1 : parts < tiles ? parts : tiles;
    begin(l, KERNEL_attention_decode, 0);
    set_grid(l, parts, groups, tokens);
    l->block = 256;
    l->shared = SHARED_FEW;
    put_attention(l, o);
    put(l, parts > 1 ? take(f, (uint64_t)(tokens * groups * parts) * FEW * (LATENT + 2) * 4) : 0);
    put(l, f->counters);
    put(l, (uint64_t)heads);
    put_f32(l, o->scale);
    return true;
}

/* ---- any op ---- */

static bool plan(struct fast *f, const mh_op *op)
{
    switch (op->op) {
    case MH_OP_LINEAR: {
        const mh_op_linear *o = (const void *)op;
        return linear(f, &o->y, &o->x, NULL, o->w, NULL);
    }
    case MH_OP_LINEAR_ADD: {
        const mh_op_linear_add *o = (const void *)op;
        return linear(f, &o->y, &o->x, &o->residual, o->w, NULL);
    }
    case MH_OP_LINEAR_SWIGLU: {
        const mh_op_linear_swiglu *o = (const void *)op;
        return linear(f, &o->y, &o->x, NULL, o->gate, o->up);
    }
    case MH_OP_ATTENTION:
        return attention(f, (const void *)op);
    case MH_OP_NORM_LINEAR:
        return norm_linear(f, (const void *)op);
    case MH_OP_HEAD_LINEAR:
        return head_linear(f, (const void *)op);
    case MH_OP_MLA_QUERY:
        return mla_query(f, (const void *)op);
    case MH_OP_MLA_QKV:
        return mla_qkv(f, (const void *)op);
    case MH_OP_EXPERTS_GATE_UP: {
        const mh_op_experts_gate_up *o = (const void *)op;
        return gate_up(f, &o->y, &o->x, &(struct routing){&o->experts, &o->expert_map, &o->fault},
                       o->gate, o->up, NULL, NULL, NULL);
    }
    case MH_OP_MOE_GATE_UP: {
        const mh_op_moe_gate_up *o = (const void *)op;
        return gate_up(f, &o->y, &o->x, &(struct routing){&o->experts, &o->expert_map, &o->fault},
                       o->gate, o->up, &o->shared_y, o->shared_gate, o->shared_up);
    }
    case MH_OP_EXPERTS_DOWN:
        return experts_down(f, (const void *)op);
    case MH_OP_EXPERTS_DOWN_COMBINE: {
        const mh_op_experts_down_combine *o = (const void *)op;
        return down_combine(f, &o->y, &o->h, &o->x, &o->weights,
                            &(struct routing){&o->experts, &o->expert_map, &o->fault}, o->w,
                            &o->shared, NULL, NULL);
    }
    case MH_OP_MOE_DOWN_COMBINE: {
        const mh_op_moe_down_combine *o = (const void *)op;
        return down_combine(f, &o->y, &o->h, &o->x, &o->weights,
                            &(struct routing){&o->experts, &o->expert_map, &o->fault}, o->w, NULL,
                            &o->shared_x, o->shared_w);
    }
    default:
        return false;
    }
}

uint32_t plan_fast(const struct device *device, const mh_op *op, const struct launch_memory *memory,
                   struct launch *l, uint64_t *scratch)
{
    struct fast f = {
        .device = device, .l = l, .scratch = memory->scratch, .counters = memory->counters};
    *scratch = 0;
    if (!(op->flags & MH_OP_FAST) || !plan(&f, op))
        return 0;
    *scratch = f.used;
    return f.count;
}
