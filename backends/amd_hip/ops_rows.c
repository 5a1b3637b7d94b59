/* ops_rows.c: norms, sums, embedding rows, moves. */
#include "kernels/rows.h"

#include "kernels/move.h"
#include "plan.h"

enum { BLOCK = 256 };

static void rmsnorm(const struct rmsnorm_arguments *a, int64_t rows, struct launch *l)
{
    begin(l, KERNEL_rmsnorm, 0, BLOCK);
    l->grid[0] = rows;
    memcpy(l->arguments, a, sizeof(*a));
}

void launch_rmsnorm(struct view y, struct view x, const float *norm, int64_t rows, int64_t columns,
                    float eps, struct launch *l)
{
    rmsnorm(&(struct rmsnorm_arguments){.y = y,
                                        .x = x,
                                        .w = norm,
                                        .columns = columns,
                                        .inverse = 1.0f / (float)columns,
                                        .eps = eps},
            rows, l);
}

PLAN_OP(rmsnorm)
{
    int64_t columns = o->y.shape[1];
    rmsnorm(&(struct rmsnorm_arguments){.y = view(&o->y),
                                        .x = view(&o->x),
                                        .residual = view(&o->residual),
                                        .sum = view(&o->sum),
                                        .w = address(&o->w),
                                        .columns = columns,
                                        .inverse = 1.0f / (float)columns,
                                        .eps = o->eps},
            o->y.shape[0], l);
    return 1;
}

static uint32_t pointwise(const mh_tensor *y, const mh_tensor *a, const mh_tensor *b,
                          uint32_t swiglu, struct launch *l)
{
    begin(l, KERNEL_pointwise, 0, BLOCK);
    set_grid(l, ceil_div(y->shape[1], BLOCK), y->shape[0] < 65535 ? y->shape[0] : 65535, 1);
    ARGUMENTS(l, pointwise, .y = view(y), .a = view(a), .b = view(b), .rows = y->shape[0],
              .columns = y->shape[1], .swiglu = swiglu);
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

PLAN_OP(embed)
{
    const mh_weight_view *w = mh_view_weight(o->table);
    begin(l, KERNEL_embed, w->format, BLOCK);
    set_grid(l, o->y.shape[0], ceil_div(w->in, 2 * BLOCK), 1);
    ARGUMENTS(l, embed, .y = view(&o->y), .tokens = view(&o->tokens), .table = weight(w),
              .fault = address(&o->fault), .vocabulary = w->out, .columns = w->in);
    return 1;
}

/* ---- moves ---- */

/* Any type of four bytes is F32 to a kernel that moves it as it is. */
static uint32_t type_of(uint32_t dtype)
{
    return dtype == MH_F16 || dtype == MH_BF16 ? dtype : F32;
}

static uint32_t move(const mh_tensor *y, const mh_tensor *x, uint32_t bits, struct launch *l)
{
    struct move_arguments a = {.y = address(y),
                               .x = x ? address(x) : NULL,
                               .to = type_of(y->dtype),
                               .from = type_of(x ? x->dtype : y->dtype),
                               .fill = !x,
                               .bits = bits};
    int64_t count = 1;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t lead = MH_MAX_RANK - y->rank;
        a.size[i] = i < lead ? 1 : y->shape[i - lead];
        a.y_stride[i] = i < lead ? 0 : y->stride[i - lead];
        a.x_stride[i] = i < lead || !x ? 0 : x->stride[i - lead];
        count *= a.size[i];
    }
    begin(l, KERNEL_move, 0, BLOCK);
    l->grid[0] = ceil_div(count, 4 * BLOCK);
    memcpy(l->arguments, &a, sizeof(a));
    return 1;
}

PLAN_OP(copy)
{
    return move(&o->y, &o->x, 0, l);
}

PLAN_OP(cast)
{
    return move(&o->y, &o->x, 0, l);
}

PLAN_OP(fill)
{
    return move(&o->y, NULL, o->bits, l);
}
