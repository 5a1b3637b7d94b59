/* ops_linear.c: linear layers, with a norm first or not, and projections by heads. */
#include "plan.h"

/* ---- linear ---- */

struct linear {
    const mh_tensor *y, *x, *residual;
    const mh_weight_view *w, *up;
    int64_t tokens, rows, heads, head_rows, first_row;
};

static void plan_rows(const struct device *device, const struct linear *p, struct launch *l)
{
    uint32_t log2 = tokens_log2(device, p->tokens, p->w->in, 3);
    uint32_t tiles = ceil_div(p->tokens, 1 << log2);
    uint32_t count = warps(device, p->rows, (int64_t)tiles * p->heads);
    begin(l, KERNEL_linear_t1 + log2, p->w->format);
    set_grid(l, tiles, ceil_div(p->rows, 4 * count), p->heads);
    l->block = 32 * count;
    l->shared = (uint32_t)staged_bytes(p->w->in, 1u << log2);
    bool heads = p->y->rank == 3;
    put(l, address(p->y));
    put(l, (uint64_t)p->y->stride[0]);
    put(l, heads ? (uint64_t)p->y->stride[1] : 0);
    put(l, address(p->x));
    put(l, (uint64_t)p->x->stride[0]);
    put(l, heads ? (uint64_t)p->x->stride[1] : 0);
    put(l, p->residual ? address(p->residual) : 0);
    put(l, p->residual ? (uint64_t)p->residual->stride[0] : 0);
    put_weight(l, p->w);
    put(l, p->up ? plane(p->up, 0) : 0);
    put(l, p->up ? plane(p->up, 1) : 0);
    put(l, (uint64_t)p->tokens);
    put(l, (uint64_t)p->rows);
    put(l, (uint64_t)p->w->in);
    put(l, (uint64_t)p->head_rows);
    put(l, (uint64_t)p->first_row);
    put(l, alignment(p->w, p->x));
    put(l, columns_ahead(device, p->rows * p->heads * (p->up ? 2 : 1), p->w));
}

static uint32_t linear(const struct device *device, const mh_tensor *y, const mh_tensor *x,
                       const mh_tensor *residual, const mh_weight *w, const mh_weight *up,
                       struct launch *l)
{
    const mh_weight_view *view = mh_view_weight(w);
    plan_rows(device,
              &(struct linear){.y = y,
                               .x = x,
                               .residual = residual,
                               .w = view,
                               .up = up ? mh_view_weight(up) : NULL,
                               .tokens = y->shape[0],
                               .rows = view->out,
                               .heads = 1},
              l);
    return 1;
}

PLAN_OP(linear)
{
    return linear(device, &o->y, &o->x, NULL, o->w, NULL, l);
}

PLAN_OP(linear_add)
{
    return linear(device, &o->y, &o->x, &o->residual, o->w, NULL, l);
}

PLAN_OP(linear_swiglu)
{
    return linear(device, &o->y, &o->x, NULL, o->gate, o->up, l);
}

/* Logits of a router to an address. */
uint32_t plan_logits(const struct device *device, const mh_tensor *x, const mh_weight_view *w,
                     int64_t tokens, uint64_t logits, struct launch *l)
{
    mh_buffer_view memory = {(void *)(uintptr_t)logits, 4 * (uint64_t)(tokens * w->out), NULL};
    mh_tensor y = {.buffer = (mh_buffer *)(void *)&memory,
                   .dtype = MH_F32,
                   .rank = 2,
                   .shape = {tokens, w->out},
                   .stride = {4 * w->out, 4}};
    plan_rows(
        device,
        &(struct linear){.y = &y, .x = x, .w = w, .tokens = tokens, .rows = w->out, .heads = 1}, l);
    return 1;
}

/* ---- norm first: norm_linear.ptx ---- */

struct normed {
    const mh_tensor *x, *norm;
    const mh_weight_view *w, *w2;
    uint64_t y, y_row, y2, y2_row;
    float eps;
};

/* The parameters that norm_linear and norm_router share. */
static void plan_normed(const struct device *device, const struct normed *p,
                        enum kernel_id first_kernel, uint64_t shared_a_token, struct launch *l)
{
    int64_t tokens = p->x->shape[0], columns = p->w->in, rows2 = p->w2 ? p->w2->out : 0;
    uint32_t log2 = tokens_log2(device, tokens, columns, 3);
    uint32_t tiles = ceil_div(tokens, 1 << log2);
    /* Several warps share the norm of a long row, which takes time where rows are few. */
    uint32_t count = warps(device, p->w->out + rows2, tiles);
    count = shared_a_token ? 8 : columns > 4096 && count < 4 ? 4 : count;
    begin(l, first_kernel + log2, p->w->format);
    set_grid(l, tiles, ceil_div(p->w->out + rows2, 4 * count), 1);
    l->block = 32 * count;
    l->shared = (uint32_t)staged_bytes(columns, 1u << log2);
    if (l->shared < shared_a_token << log2)
        l->shared = (uint32_t)(shared_a_token << log2);
    put(l, p->y);
    put(l, p->y_row);
    put(l, p->y2);
    put(l, p->y2_row);
    put_tensor(l, p->x, 1);
    put(l, address(p->norm));
    put_weight(l, p->w);
    put(l, p->w2 ? plane(p->w2, 0) : 0);
    put(l, p->w2 ? plane(p->w2, 1) : 0);
    put(l, (uint64_t)tokens);
    put(l, (uint64_t)p->w->out);
    put(l, (uint64_t)rows2);
    put(l, (uint64_t)columns);
    put_f32(l, 1.0f / (float)columns);
    put_f32(l, p->eps);
    put(l, alignment(p->w, p->x));
    put(l, columns_ahead(device, p->w->out + rows2, p->w));
}

PLAN_OP(norm_linear)
{
    struct normed p = {.x = &o->x,
                       .norm = &o->norm,
                       .w = mh_view_weight(o->w),
                       .w2 = o->w2 ? mh_view_weight(o->w2) : NULL,
                       .y = address(&o->y),
                       .y_row = (uint64_t)o->y.stride[0],
                       .eps = o->eps};
    p.y2 = address_or_0(&o->y2);
    p.y2_row = o->y2.rank ? (uint64_t)o->y2.stride[0] : 0;
    plan_normed(device, &p, KERNEL_norm_linear_t1, 0, l);
    return 1;
}

PLAN_OP(norm_router)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    struct normed p = {.x = &o->x,
                       .norm = &o->norm,
                       .w = w,
                       .y = memory->scratch,
                       .y_row = 4 * (uint64_t)w->out,
                       .eps = o->eps};
    plan_normed(device, &p, KERNEL_norm_router_t1, 16 * (uint64_t)w->out, l);
    put_tensor(l, &o->y, 1);
    put(l, memory->counters);
    put_router(l, &o->experts, &o->weights, &o->bias, w->out, &o->rule);
    return 1;
}

/* ---- per-head projections ---- */

struct columns {
    const mh_tensor *y, *x;
    const mh_tensor *angles, *positions, *fault; /* NULL: nothing is rotated */
    const mh_op_mla_qkv *kv;                     /* NULL: no cache rows */
    const mh_weight_view *w;
    int64_t rows, head_rows, first_row;
};

static void put_zeros(struct launch *l, uint32_t count)
{
    while (count--)
        put(l, 0);
}

static uint32_t head_columns(const struct device *device, const struct columns *p, struct launch *l)
{
    enum { CACHE_ARGS = 14 }; /* CACHE_PARAMS */
    begin(l, KERNEL_head_columns, p->w->format);
    int64_t others = p->y->shape[0] * p->y->shape[1];
    if (ceil_div(p->w->in, l->block) * others < device->multiprocessors)
        l->block = 64; /* the norm of a cache row needs as many */
    set_grid(l, ceil_div(p->w->in, l->block) + (p->angles ? 1 : 0) + (p->kv ? 1 : 0),
             p->y->shape[1], p->y->shape[0]);
    int64_t floats = p->kv && p->w->in > p->rows ? p->w->in : p->rows;
    l->shared = (uint32_t)(4 * floats);
    put_tensor(l, p->y, 2);
    put_tensor(l, p->x, 2);
    put_weight(l, p->w);
    put(l, (uint64_t)p->rows);
    put(l, (uint64_t)p->w->in);
    put(l, (uint64_t)p->head_rows);
    put(l, (uint64_t)p->first_row);
    if (p->kv) {
        put_cache(l, &p->kv->cache, p->positions, &p->kv->slots, &p->kv->page_table, p->fault);
        put_mla_kv(l, &p->kv->cache, &p->kv->kv, &p->kv->norm, p->angles, p->kv->eps);
    } else if (p->angles) {
        uint32_t before = l->arg_count;
        put_zeros(l, 3);
        put_tensor(l, p->positions, 1);
        put_zeros(l, 4);
        put(l, address(p->fault));
        put_zeros(l, before + CACHE_ARGS - l->arg_count);
        put_zeros(l, 3);
        put_tensor(l, p->angles, 1);
        put(l, (uint64_t)p->angles->shape[0]);
        put(l, (uint64_t)p->w->in);
        put(l, (uint64_t)p->angles->shape[1]);
        put_zeros(l, 3);
    } else {
        put_zeros(l, CACHE_ARGS + 11);
    }
    return 1;
}

PLAN_OP(head_linear)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    if (o->transposed)
        return head_columns(device,
                            &(struct columns){.y = &o->y,
                                              .x = &o->x,
                                              .w = w,
                                              .rows = o->row_count,
                                              .head_rows = o->head_rows,
                                              .first_row = o->row_begin},
                            l);
    plan_rows(device,
              &(struct linear){.y = &o->y,
                               .x = &o->x,
                               .w = w,
                               .tokens = o->y.shape[0],
                               .rows = o->row_count,
                               .heads = o->y.shape[1],
                               .head_rows = o->head_rows,
                               .first_row = o->row_begin},
              l);
    return 1;
}

PLAN_OP(mla_query)
{
    return head_columns(device,
                        &(struct columns){.y = &o->y,
                                          .x = &o->q,
                                          .angles = &o->table,
                                          .positions = &o->positions,
                                          .fault = &o->fault,
                                          .w = mh_view_weight(o->w),
                                          .rows = o->q.shape[2] - o->table.shape[1],
                                          .head_rows = o->head_rows},
                        l);
}

PLAN_OP(mla_qkv)
{
    return head_columns(device,
                        &(struct columns){.y = &o->y,
                                          .x = &o->q,
                                          .angles = &o->table,
                                          .positions = &o->positions,
                                          .fault = &o->fault,
                                          .kv = o,
                                          .w = mh_view_weight(o->w),
                                          .rows = o->q.shape[2] - o->table.shape[1],
                                          .head_rows = o->head_rows},
                        l);
}
