/* ops_linear.c: ops of kernels/linear.cl. */
#include "ops.h"

int64_t row_block(const struct device *device, int64_t rows, int64_t more_rows, int64_t products)
{
    int64_t best = 8, least = INT64_MAX; /* a row for each of the gpu form's teams */
    if (device->form == FORM_GPU)
        return best;
    for (int64_t block = 256; block >= 64; block -= 16) {
        int64_t groups = (blocks(rows, block) + blocks(more_rows, block)) * products;
        int64_t time = blocks(groups, device->compute_units) * (block + 4);
        if (time < least)
            best = block, least = time;
    }
    return best;
}

#define COLUMN_BLOCK 64 /* columns of a group, as in linear.cl */

mh_status launch_linear(const struct run *run, const struct linear *l)
{
    const mh_weight_view *w = mh_view_weight(l->w);
    int64_t tokens = l->x->shape[0];
    if (tokens >= FEW)
        return launch_many(run, &(struct many){.y = l->y,
                                               .x = l->x,
                                               .residual = l->residual,
                                               .w = l->w,
                                               .up = l->up,
                                               .groups = l->heads,
                                               .slots = l->heads,
                                               .rows = l->out,
                                               .head_rows = l->head_rows,
                                               .first = l->first,
                                               .scratch_at = l->y ? 0 : l->y_bytes});
    int64_t out2 = l->y2 ? mh_view_weight(l->up)->out : 0;
    int64_t block = row_block(run->device, l->out, out2, tokens * l->heads);
    struct launch k = launch_begin(run, KERNEL_linear, w->format);
    if (l->y)
        arg_tensor(&k, l->y);
    else
        arg_scratch(&k, 0, l->out);
    arg_tensor(&k, l->x);
    arg_tensor(&k, l->residual ? l->residual : l->x);
    arg_int(&k, l->residual != NULL);
    arg_weight(&k, l->w);
    arg_weight(&k, l->up ? l->up : l->w);
    arg_int(&k, l->up && !l->y2);
    arg_long(&k, l->out);
    arg_long(&k, w->in);
    arg_long(&k, l->head_rows);
    arg_long(&k, l->first);
    arg_tensor(&k, l->y2 ? l->y2 : l->x);
    arg_long(&k, out2);
    arg_int(&k, (int)block);
    return launch_end(&k, blocks(l->out, block) + blocks(out2, block), tokens, l->heads);
}

static uint64_t scratch_of(const struct device *device, const mh_tensor *x, const mh_weight *w)
{
    return many_bytes(device, x->shape[0], 1, mh_view_weight(w)->in);
}

SCRATCH(linear)
{
    const mh_op_linear *o = (const void *)op;
    return scratch_of(device, &o->x, o->w);
}

ENCODE(linear)
{
    const mh_op_linear *o = (const void *)op;
    int64_t out = mh_view_weight(o->w)->out;
    return launch_linear(run, &(struct linear){&o->y, &o->x, NULL, o->w, NULL, 1, out, 0, 0});
}

SCRATCH(linear_add)
{
    const mh_op_linear_add *o = (const void *)op;
    return scratch_of(device, &o->x, o->w);
}

ENCODE(linear_add)
{
    const mh_op_linear_add *o = (const void *)op;
    int64_t out = mh_view_weight(o->w)->out;
    return launch_linear(run,
                         &(struct linear){&o->y, &o->x, &o->residual, o->w, NULL, 1, out, 0, 0});
}

SCRATCH(linear_swiglu)
{
    const mh_op_linear_swiglu *o = (const void *)op;
    return scratch_of(device, &o->x, o->gate);
}

ENCODE(linear_swiglu)
{
    const mh_op_linear_swiglu *o = (const void *)op;
    int64_t out = mh_view_weight(o->gate)->out;
    return launch_linear(run, &(struct linear){&o->y, &o->x, NULL, o->gate, o->up, 1, out, 0, 0});
}

SCRATCH(head_linear)
{
    const mh_op_head_linear *o = (const void *)op;
    return many_bytes(device, o->x.shape[0], o->x.shape[1], o->x.shape[2]);
}

/* Whether a product down the rows takes kernel `many`. */
static bool many_down(const struct device *device, const mh_tensor *x)
{
    return device->form == FORM_CPU && x->shape[0] >= FEW;
}

ENCODE(head_linear)
{
    const mh_op_head_linear *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t heads = o->y.shape[1];
    if (!o->transposed)
        return launch_linear(run, &(struct linear){&o->y, &o->x, NULL, o->w, NULL, heads,
                                                   o->row_count, o->head_rows, o->row_begin});
    if (many_down(run->device, &o->x))
        return launch_many(run, &(struct many){.y = &o->y,
                                               .x = &o->x,
                                               .w = o->w,
                                               .groups = heads,
                                               .slots = heads,
                                               .rows = o->row_count,
                                               .head_rows = o->head_rows,
                                               .first = o->row_begin,
                                               .down = true});
    struct launch l = launch_begin(run, KERNEL_head_columns, w->format);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->x);
    arg_tensor(&l, &o->x); /* no angles, no positions, nothing that may fault */
    arg_tensor(&l, &o->y);
    arg_weight(&l, o->w);
    arg_fault(&l, &o->y);
    arg_long(&l, w->in);
    arg_long(&l, o->row_count);
    arg_long(&l, o->head_rows);
    arg_long(&l, o->row_begin);
    arg_long(&l, 0);
    arg_long(&l, 0);
    return launch_end(&l, blocks(w->in, COLUMN_BLOCK), o->y.shape[0], heads);
}

/* Columns from `begin` on. */
static mh_tensor columns_from(const mh_tensor *t, int64_t begin, int64_t count)
{
    mh_tensor part = *t;
    part.offset += (uint64_t)(4 * begin);
    part.shape[2] = count;
    return part;
}

SCRATCH(mla_query)
{
    const mh_op_mla_query *o = (const void *)op;
    return many_bytes(device, o->q.shape[0], o->q.shape[1], o->q.shape[2] - o->table.shape[1]);
}

/* The projection of all tokens, then the rotation. */
static mh_status query_of_many(const struct run *run, const mh_op_mla_query *o)
{
    int64_t rotary = o->table.shape[1], rows = o->q.shape[2] - rotary;
    const mh_tensor x = columns_from(&o->q, 0, rows);
    mh_op_rope rope = MH_OP_INIT(rope, ROPE);
    rope.y = columns_from(&o->y, mh_view_weight(o->w)->in, rotary);
    rope.x = columns_from(&o->q, rows, rotary);
    rope.table = o->table, rope.positions = o->positions, rope.fault = o->fault;
    mh_status status = launch_many(run, &(struct many){.y = &o->y,
                                                       .x = &x,
                                                       .w = o->w,
                                                       .groups = o->y.shape[1],
                                                       .slots = o->y.shape[1],
                                                       .rows = rows,
                                                       .head_rows = o->head_rows,
                                                       .down = true});
    return status ? status : encode_rope(run, &rope.base);
}

ENCODE(mla_query)
{
    const mh_op_mla_query *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    if (many_down(run->device, &o->q))
        return query_of_many(run, o);
    struct launch l = launch_begin(run, KERNEL_head_columns, w->format);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->q);
    arg_tensor(&l, &o->table);
    arg_tensor(&l, &o->positions);
    arg_weight(&l, o->w);
    arg_fault(&l, &o->fault);
    arg_long(&l, w->in);
    arg_long(&l, o->q.shape[2] - o->table.shape[1]);
    arg_long(&l, o->head_rows);
    arg_long(&l, 0);
    arg_long(&l, o->table.shape[1]);
    arg_long(&l, o->table.shape[0]);
    return launch_end(&l, blocks(w->in, COLUMN_BLOCK), o->y.shape[0], o->y.shape[1]);
}

ENCODE(embed)
{
    const mh_op_embed *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->table);
    struct launch l = launch_begin(run, KERNEL_embed, w->format);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->tokens);
    arg_weight(&l, o->table);
    arg_fault(&l, &o->fault);
    arg_long(&l, w->out);
    arg_long(&l, w->in);
    return launch_end(&l, blocks(w->in, 1024), o->y.shape[0], 1);
}

/* Logits [T, E]. */
static uint64_t logit_bytes(const mh_tensor *x, const mh_weight *w)
{
    uint64_t bytes = 4 * (uint64_t)x->shape[0] * (uint64_t)mh_view_weight(w)->out;
    return (bytes + 255) & ~UINT64_C(255);
}

SCRATCH(router_linear)
{
    const mh_op_router_linear *o = (const void *)op;
    return logit_bytes(&o->x, o->w) + scratch_of(device, &o->x, o->w);
}

ENCODE(router_linear)
{
    const mh_op_router_linear *o = (const void *)op;
    int64_t experts = mh_view_weight(o->w)->out;
    mh_status status =
        launch_linear(run, &(struct linear){NULL, &o->x, NULL, o->w, NULL, 1, experts, 0, 0,
                                            logit_bytes(&o->x, o->w)});
    return status
               ? status
               : launch_router(run, &o->experts, &o->weights, NULL, 0, experts, &o->bias, &o->rule);
}
