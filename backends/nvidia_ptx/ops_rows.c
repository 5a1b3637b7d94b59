/* ops_rows.c: norms, sums, moves, embedding rows, the choice of a token. */
#include "plan.h"

/* ---- rows: norms, sums, moves ---- */

PLAN_OP(rmsnorm)
{
    int64_t columns = o->y.shape[1];
    begin(l, KERNEL_rmsnorm, 0);
    l->grid[0] = (uint32_t)o->y.shape[0];
    l->block = row_threads(columns);
    l->shared = (uint32_t)(4 * columns);
    put_tensor(l, &o->y, 1);
    put_tensor(l, &o->x, 1);
    put(l, address(&o->w));
    put_tensor(l, &o->residual, 1);
    put_tensor(l, &o->sum, 1);
    put(l, (uint64_t)columns);
    put_f32(l, 1.0f / (float)columns);
    put_f32(l, o->eps);
    return 1;
}

static uint32_t pointwise(const mh_tensor *y, const mh_tensor *a, const mh_tensor *b,
                          uint64_t swiglu, struct launch *l)
{
    begin(l, KERNEL_pointwise, 0);
    set_grid(l, ceil_div(y->shape[1], 128), y->shape[0] < 65535 ? y->shape[0] : 65535, 1);
    put_tensor(l, y, 1);
    put_tensor(l, a, 1);
    put_tensor(l, b, 1);
    put(l, (uint64_t)y->shape[0]);
    put(l, (uint64_t)y->shape[1]);
    put(l, swiglu);
    return 1;
}

PLAN_OP(swiglu)
{
    return pointwise(&o->y, &o->gate, &o->up, 1, l);
}

PLAN_OP(add)
{
    return pointwise(&o->y, &o->a, &o->b, 0, l);
}

/* Address and four strides; missing dimensions lead. */
static void put_walk(struct launch *l, const mh_tensor *t)
{
    put(l, address(t));
    for (uint32_t i = 0; i < MH_MAX_RANK; i++)
        put(l, i < MH_MAX_RANK - t->rank ? 0 : (uint64_t)t->stride[i + t->rank - MH_MAX_RANK]);
}

static void walk(struct launch *l, enum kernel_id kernel, const mh_tensor *y, const mh_tensor *x)
{
    int64_t n[MH_MAX_RANK];
    begin(l, kernel, 0);
    for (uint32_t i = 0; i < MH_MAX_RANK; i++)
        n[i] = i < MH_MAX_RANK - y->rank ? 1 : y->shape[i + y->rank - MH_MAX_RANK];
    l->grid[0] = (uint32_t)(n[3] ? n[0] * n[1] * n[2] : 0);
    put_walk(l, y);
    put_walk(l, x);
    for (uint32_t i = 1; i < MH_MAX_RANK; i++)
        put(l, (uint64_t)n[i]);
}

PLAN_OP(copy)
{
    walk(l, KERNEL_copy_rows, &o->y, &o->x);
    put(l, o->y.dtype == MH_F16 || o->y.dtype == MH_BF16 ? 2 : 4);
    put(l, 0);
    put(l, 0);
    return 1;
}

PLAN_OP(fill)
{
    walk(l, KERNEL_copy_rows, &o->y, &o->y);
    put(l, o->y.dtype == MH_F16 || o->y.dtype == MH_BF16 ? 2 : 4);
    put(l, 1);
    put(l, o->bits);
    return 1;
}

PLAN_OP(cast)
{
    if (o->y.dtype == o->x.dtype && o->y.dtype == MH_F32) {
        walk(l, KERNEL_copy_rows, &o->y, &o->x);
        put(l, 4);
        put(l, 0);
        put(l, 0);
        return 1;
    }
    walk(l, o->y.dtype == o->x.dtype ? KERNEL_copy_rows : KERNEL_cast_rows, &o->y, &o->x);
    put(l, o->y.dtype == o->x.dtype ? 2 : o->y.dtype);
    put(l, o->y.dtype == o->x.dtype ? 0 : o->x.dtype);
    put(l, 0);
    return 1;
}

PLAN_OP(embed)
{
    const mh_weight_view *w = mh_view_weight(o->table);
    begin(l, KERNEL_embed, w->format);
    set_grid(l, o->y.shape[0], ceil_div(w->in, 128), 1);
    put_tensor(l, &o->y, 1);
    put_tensor(l, &o->tokens, 1);
    put_weight(l, w);
    put(l, address(&o->fault));
    put(l, (uint64_t)w->out);
    put(l, (uint64_t)w->in);
    return 1;
}

/* ---- choosing a token ---- */

PLAN_OP(argmax)
{
    begin(l, KERNEL_argmax, 0);
    l->grid[0] = (uint32_t)o->y.shape[0];
    l->block = 1024;
    put_tensor(l, &o->y, 1);
    put_tensor(l, &o->logits, 1);
    put(l, (uint64_t)o->logits.shape[1]);
    return 1;
}

PLAN_OP(sample)
{
    begin(l, KERNEL_sample, 0);
    l->grid[0] = (uint32_t)o->y.shape[0];
    l->block = 1024;
    put_tensor(l, &o->y, 1);
    put_tensor(l, &o->logits, 1);
    put_tensor(l, &o->params, 1);
    put(l, memory->scratch);
    put(l, (uint64_t)o->logits.shape[1]);
    return 1;
}
