/* ops_linear.c: linear layers, with a norm first or not. */
#include "kernels/linear.h"

#include "plan.h"

enum { ROWS_A_WAVE = 8 };

struct linear {
    struct view y, x, residual;
    bool x_aligned;
    const mh_weight_view *w, *up;
    int64_t tokens;
    int64_t heads, rows, head_rows, first_row; /* heads 0: all rows, of one */
};

static void plan_rows(const struct linear *p, struct launch *l)
{
    uint32_t log2 = tokens_log2(p->tokens);
    int64_t rows = p->heads ? p->rows : p->w->out;
    begin(l, KERNEL_linear_t1 + log2, p->w->format, 64);
    set_grid(l, ceil_div(rows, ROWS_A_WAVE), ceil_div(p->tokens, 1 << log2),
             p->heads ? p->heads : 1);
    ARGUMENTS(l, linear, .y = p->y, .x = p->x, .residual = p->residual, .w = weight(p->w),
              .up = weight(p->up), .tokens = p->tokens, .rows = rows, .columns = p->w->in,
              .head_rows = p->head_rows, .first_row = p->first_row,
              .flags =
                  (p->w->in % 8 == 0 ? ALIGNED_WEIGHTS : 0) | (p->x_aligned ? ALIGNED_INPUTS : 0));
}

void launch_linear(const struct device *device, struct view y, struct view x, bool x_aligned,
                   const mh_weight_view *w, int64_t tokens, struct launch *l)
{
    (void)device;
    plan_rows(&(struct linear){.y = y, .x = x, .x_aligned = x_aligned, .w = w, .tokens = tokens},
              l);
}

void launch_head_rows(const mh_op_head_linear *o, struct launch *l)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    plan_rows(&(struct linear){.y = view(&o->y),
                               .x = view(&o->x),
                               .x_aligned = tensor_aligned(&o->x, w->in),
                               .w = w,
                               .tokens = o->y.shape[0],
                               .heads = o->y.shape[1],
                               .rows = o->row_count,
                               .head_rows = o->head_rows,
                               .first_row = o->row_begin},
              l);
}

static uint32_t linear(const mh_tensor *y, const mh_tensor *x, const mh_tensor *residual,
                       const mh_weight *w, const mh_weight *up, struct launch *l)
{
    const mh_weight_view *first = mh_view_weight(w);
    plan_rows(&(struct linear){.y = view(y),
                               .x = view(x),
                               .residual = view(residual),
                               .x_aligned = tensor_aligned(x, first->in),
                               .w = first,
                               .up = up ? mh_view_weight(up) : NULL,
                               .tokens = y->shape[0]},
              l);
    return 1;
}

PLAN_OP(linear)
{
    return linear(&o->y, &o->x, NULL, o->w, NULL, l);
}

PLAN_OP(linear_add)
{
    return linear(&o->y, &o->x, &o->residual, o->w, NULL, l);
}

PLAN_OP(linear_swiglu)
{
    return linear(&o->y, &o->x, NULL, o->gate, o->up, l);
}

struct normed plan_normed(const struct device *device, const mh_tensor *x, const mh_tensor *norm,
                          float eps, int64_t rows)
{
    int64_t columns = x->shape[1], waves = 4;
    while (waves > 1 && ceil_div(rows, ROWS_A_WAVE * waves) < device->compute_units)
        waves /= 2;
    if (columns > 4096 && waves < 2) /* they share the norm of a long row */
        waves = 2;
    return (struct normed){view(x), address(norm),         x->shape[0], columns,
                           waves,   1.0f / (float)columns, eps};
}

/* A workgroup norms its tokens by itself, in LDS; where they have no room there, or are many, the
 * norm comes first, into scratch. */
PLAN_OP(norm_linear)
{
    const mh_weight_view *w = mh_view_weight(o->w), *w2 = o->w2 ? mh_view_weight(o->w2) : NULL;
    int64_t tokens = o->x.shape[0], rows2 = w2 ? w2->out : 0;
    uint32_t log2 = tokens_log2(tokens);
    int64_t lds = NORMED_BYTES(w->in, 1 << log2);
    if (tokens <= 8 && lds <= MAX_LDS / 2) {
        struct normed normed = plan_normed(device, &o->x, &o->norm, o->eps, w->out + rows2);
        begin(l, KERNEL_norm_linear_t1 + log2, w->format, 64 * (uint32_t)normed.waves);
        set_grid(l, ceil_div(w->out + rows2, ROWS_A_WAVE * normed.waves), tokens > 0, 1);
        l->lds = (uint32_t)lds;
        ARGUMENTS(l, norm_linear, .y = view(&o->y), .y2 = view(&o->y2), .normed = normed,
                  .w = weight(w), .w2 = weight(w2), .rows = w->out, .rows2 = rows2,
                  .flags = alignment(w, &o->x));
        return 1;
    }
    struct view normed = scratch_rows(memory, tokens, w->in);
    launch_rmsnorm(normed, view(&o->x), address(&o->norm), tokens, w->in, o->eps, l);
    launch_linear(device, view(&o->y), normed, w->in % 4 == 0, w, tokens, l + 1);
    if (w2)
        launch_linear(device, view(&o->y2), normed, w->in % 4 == 0, w2, tokens, l + 2);
    return w2 ? 3 : 2;
}
