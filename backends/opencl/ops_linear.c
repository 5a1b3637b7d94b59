/* ops_linear.c: ops of kernels/linear.cl. */
#include "ops.h"

/* As in linear.cl: rows and tokens of a group, columns of a group. */
static int64_t row_block(const struct device *device)
{
    return device->form == FORM_CPU ? 16 : 4;
}

static int64_t token_block(const struct device *device, bool many)
{
    return !many ? 1 : device->form == FORM_CPU ? 6 : 8;
}

#define COLUMN_BLOCK 64

mh_status launch_linear(const struct run *run, const struct linear *l)
{
    const struct device *device = run->device;
    const mh_weight_view *w = mh_view_weight(l->w);
    bool many = l->x->shape[0] >= FEW;
    struct launch k = launch_begin(run, many ? KERNEL_linear_many : KERNEL_linear, w->format);
    if (l->y)
        arg_tensor(&k, l->y);
    else
        arg_scratch(&k, 0, l->out);
    arg_tensor(&k, l->x);
    arg_tensor(&k, l->residual ? l->residual : l->x);
    arg_int(&k, l->residual != NULL);
    arg_weight(&k, l->w);
    arg_weight(&k, l->up ? l->up : l->w);
    arg_int(&k, l->up != NULL);
    arg_long(&k, l->out);
    arg_long(&k, w->in);
    arg_long(&k, l->head_rows);
    arg_long(&k, l->first);
    arg_long(&k, l->x->shape[0]);
    return launch_end(&k, blocks(l->out, row_block(device)),
                      blocks(l->x->shape[0], token_block(device, many)), l->heads);
}

ENCODE(linear)
{
    const mh_op_linear *o = (const void *)op;
    int64_t out = mh_view_weight(o->w)->out;
    return launch_linear(run, &(struct linear){&o->y, &o->x, NULL, o->w, NULL, 1, out, 0, 0});
}

ENCODE(linear_add)
{
    const mh_op_linear_add *o = (const void *)op;
    int64_t out = mh_view_weight(o->w)->out;
    return launch_linear(run,
                         &(struct linear){&o->y, &o->x, &o->residual, o->w, NULL, 1, out, 0, 0});
}

ENCODE(linear_swiglu)
{
    const mh_op_linear_swiglu *o = (const void *)op;
    int64_t out = mh_view_weight(o->gate)->out;
    return launch_linear(run, &(struct linear){&o->y, &o->x, NULL, o->gate, o->up, 1, out, 0, 0});
}

ENCODE(head_linear)
{
    const mh_op_head_linear *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t heads = o->y.shape[1];
    if (!o->transposed)
        return launch_linear(run, &(struct linear){&o->y, &o->x, NULL, o->w, NULL, heads,
                                                   o->row_count, o->head_rows, o->row_begin});
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

ENCODE(mla_query)
{
    const mh_op_mla_query *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
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
SCRATCH(router_linear)
{
    const mh_op_router_linear *o = (const void *)op;
    return 4 * (uint64_t)o->x.shape[0] * (uint64_t)mh_view_weight(o->w)->out;
}

ENCODE(router_linear)
{
    const mh_op_router_linear *o = (const void *)op;
    int64_t experts = mh_view_weight(o->w)->out;
    mh_status status =
        launch_linear(run, &(struct linear){NULL, &o->x, NULL, o->w, NULL, 1, experts, 0, 0});
    return status
               ? status
               : launch_router(run, &o->experts, &o->weights, NULL, 0, experts, &o->bias, &o->rule);
}
