/* linear.c: linear, linear_add, linear_swiglu, head_linear, embed. Numerics rules 1 and 2. */
#include "decode.h"
#include "product.h"

/* ---- linear layers ---- */

static const float *linear_input(const mh_op *op, int64_t t)
{
    return row1(&((const mh_op_linear *)op)->x, t);
}

static void linear_finish(const mh_op *op, int64_t t, int64_t o, int64_t count, const float *dots)
{
    memcpy(row1(&((const mh_op_linear *)op)->y, t) + o, dots, (size_t)count * 4);
}

void K(linear)(const struct host_run *run, const mh_op *op)
{
    const mh_op_linear *l = (const void *)op;
    const mh_weight_view *w = mh_view_weight(l->w);
    struct product p = {op, {w}, {linear_finish}, w->in, w->out, .input = linear_input};
    p.inputs = l->y.shape[0], p.ids_per_input = p.group_count = 1;
    K(product)(run, &p, run->scratch);
}

static const float *add_input(const mh_op *op, int64_t t)
{
    return row1(&((const mh_op_linear_add *)op)->x, t);
}

static void add_finish(const mh_op *op, int64_t t, int64_t o, int64_t count, const float *dots)
{
    const mh_op_linear_add *l = (const void *)op;
    const float *residual = row1(&l->residual, t) + o;
    float *y = row1(&l->y, t) + o;
    for (int64_t i = 0; i < count; i++)
        y[i] = residual[i] + dots[i];
}

void K(linear_add)(const struct host_run *run, const mh_op *op)
{
    const mh_op_linear_add *l = (const void *)op;
    const mh_weight_view *w = mh_view_weight(l->w);
    struct product p = {op, {w}, {add_finish}, w->in, w->out, .input = add_input};
    p.inputs = l->y.shape[0], p.ids_per_input = p.group_count = 1;
    K(product)(run, &p, run->scratch);
}

static const float *swiglu_input(const mh_op *op, int64_t t)
{
    return row1(&((const mh_op_linear_swiglu *)op)->x, t);
}

static void gate_finish(const mh_op *op, int64_t t, int64_t o, int64_t count, const float *dots)
{
    memcpy(row1(&((const mh_op_linear_swiglu *)op)->y, t) + o, dots, (size_t)count * 4);
}

/* y holds the gate. */
static void up_finish(const mh_op *op, int64_t t, int64_t o, int64_t count, const float *dots)
{
    float *y = row1(&((const mh_op_linear_swiglu *)op)->y, t) + o;
    K(swiglu_row)(y, y, dots, count);
}

void K(linear_swiglu)(const struct host_run *run, const mh_op *op)
{
    const mh_op_linear_swiglu *l = (const void *)op;
    const mh_weight_view *gate = mh_view_weight(l->gate), *up = mh_view_weight(l->up);
    struct product p = {op,       {gate, up}, {gate_finish, up_finish},
                        gate->in, gate->out,  .input = swiglu_input};
    p.inputs = l->y.shape[0], p.ids_per_input = p.group_count = 1;
    K(product)(run, &p, run->scratch);
}

/* ---- per-head projections: head h of row t has id t * heads + h ---- */

static const float *head_input(const mh_op *op, int64_t id)
{
    const mh_op_head_linear *l = (const void *)op;
    return row2(&l->x, id / l->x.shape[1], id % l->x.shape[1]);
}

static void head_finish(const mh_op *op, int64_t id, int64_t o, int64_t count, const float *dots)
{
    const mh_op_head_linear *l = (const void *)op;
    memcpy(row2(&l->y, id / l->x.shape[1], id % l->x.shape[1]) + o, dots, (size_t)count * 4);
}

void K(head_linear)(const struct host_run *run, const mh_op *op)
{
    const mh_op_head_linear *l = (const void *)op;
    struct product p = {op, {mh_view_weight(l->w)}, {head_finish}, .input = head_input};
    p.in = l->x.shape[2], p.out = l->y.shape[2], p.transposed = l->transposed;
    p.group_count = l->x.shape[1], p.inputs = l->x.shape[0] * p.group_count;
    p.ids_per_input = 1, p.row_begin = l->row_begin, p.group_stride = l->head_rows;
    K(product)(run, &p, run->scratch);
}

/* ---- embedding ---- */

void K(embed)(const struct host_run *run, const mh_op *op)
{
    const mh_op_embed *o = (const void *)op;
    const mh_weight_view *table = mh_view_weight(o->table);
    (void)run;
    for (int64_t t = 0; t < o->y.shape[0]; t++) {
        int32_t token = index_at(&o->tokens, t);
        if (token < 0 || token >= table->out) {
            raise_fault(&o->fault);
            continue;
        }
        struct weight_row row = weight_row(table, 0, token);
        float *y = row1(&o->y, t);
        for (int64_t k = 0; k < table->in; k += STRIPES)
            decode_columns(&row, k, table->in - k < STRIPES ? table->in - k : STRIPES, y + k);
    }
}
