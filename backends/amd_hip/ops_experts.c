/* ops_experts.c: products of experts, and what is made of them. */
#include "kernels/experts.h"

#include "plan.h"

enum { ROWS_A_WAVE = 8, MOST_WAVES = 16, BLOCK = 256 };

struct choice choice(const mh_tensor *experts, const mh_tensor *map, const mh_tensor *fault,
                     const mh_weight_view *w)
{
    return (struct choice){view(experts), address(map), address(fault),
                           map->rank ? map->shape[0] : w->experts, w->experts};
}

/* ---- grouped products ---- */

struct experts {
    const mh_tensor *y, *x, *experts, *map, *fault;
    const mh_weight_view *w, *up;
    const mh_tensor *shared_y; /* NULL: no shared experts */
    const mh_weight_view *shared_w, *shared_up;
};

static uint32_t experts(const struct experts *p, struct launch *l)
{
    const mh_weight_view *w = p->w;
    int64_t tokens = p->experts->shape[0], slots = p->experts->shape[1];
    int64_t shared_rows = p->shared_y ? p->shared_w->out : 0;
    int64_t rows = shared_rows > w->out ? shared_rows : w->out;
    /* A token's experts differ, so only tokens share one; a few do even when there are few. */
    uint32_t log2 = tokens == 1 ? 0 : tokens <= 8 ? 1 : 3;
    begin(l, KERNEL_experts_t1 + log2, w->format, 64);
    set_grid(l, tokens * slots + (p->shared_y ? ceil_div(tokens, 1 << log2) : 0),
             ceil_div(rows, ROWS_A_WAVE), 1);
    ARGUMENTS(l, experts, .y = view(p->y), .x = view(p->x),
              .choice = choice(p->experts, p->map, p->fault, w), .w = weight(w),
              .up = weight(p->up), .tokens = tokens, .slots = slots, .rows = w->out,
              .columns = w->in, .shared_y = view(p->shared_y), .shared_w = weight(p->shared_w),
              .shared_up = weight(p->shared_up), .shared_rows = shared_rows,
              .flags = alignment(w, p->x));
    return 1;
}

PLAN_OP(experts_gate_up)
{
    return experts(&(struct experts){.y = &o->y,
                                     .x = &o->x,
                                     .experts = &o->experts,
                                     .map = &o->expert_map,
                                     .fault = &o->fault,
                                     .w = mh_view_weight(o->gate),
                                     .up = mh_view_weight(o->up)},
                   l);
}

PLAN_OP(experts_down)
{
    return experts(&(struct experts){.y = &o->y,
                                     .x = &o->x,
                                     .experts = &o->experts,
                                     .map = &o->expert_map,
                                     .fault = &o->fault,
                                     .w = mh_view_weight(o->w)},
                   l);
}

PLAN_OP(moe_gate_up)
{
    return experts(&(struct experts){.y = &o->y,
                                     .x = &o->x,
                                     .experts = &o->experts,
                                     .map = &o->expert_map,
                                     .fault = &o->fault,
                                     .w = mh_view_weight(o->gate),
                                     .up = mh_view_weight(o->up),
                                     .shared_y = &o->shared_y,
                                     .shared_w = mh_view_weight(o->shared_gate),
                                     .shared_up = mh_view_weight(o->shared_up)},
                   l);
}

/* ---- down and combine ---- */

struct down_combine {
    const mh_tensor *y, *h, *x, *weights, *shared, *experts, *map, *fault;
    const mh_weight_view *w;
    const mh_tensor *shared_x; /* NULL: `shared` is given, or absent */
    const mh_weight_view *shared_w;
};

/* A wave a term: a slot, or the shared experts. */
static uint32_t down_combine(const struct down_combine *p, struct launch *l)
{
    const mh_weight_view *w = p->w;
    int64_t terms = p->experts->shape[1] + (p->shared_x ? 1 : 0);
    begin(l, KERNEL_down_combine, w->format,
          64 * (uint32_t)(terms < MOST_WAVES ? terms : MOST_WAVES));
    set_grid(l, p->y->shape[0], ceil_div(w->out, ROWS_A_WAVE), 1);
    l->lds = terms < MAX_LDS ? (uint32_t)(4 * ROWS_A_WAVE * terms) : UINT32_MAX;
    ARGUMENTS(l, down_combine, .y = view(p->y), .h = view(p->h), .x = view(p->x),
              .weights = view(p->weights), .shared = view(p->shared), .shared_x = view(p->shared_x),
              .choice = choice(p->experts, p->map, p->fault, w), .w = weight(w),
              .shared_w = weight(p->shared_w), .slots = p->experts->shape[1], .rows = w->out,
              .columns = w->in, .shared_columns = p->shared_x ? p->shared_w->in : 0,
              .waves = l->block / 64, .flags = alignment(w, p->x),
              .shared_flags = p->shared_x ? alignment(p->shared_w, p->shared_x) : 0);
    return 1;
}

PLAN_OP(experts_down_combine)
{
    return down_combine(&(struct down_combine){.y = &o->y,
                                               .h = &o->h,
                                               .x = &o->x,
                                               .weights = &o->weights,
                                               .shared = &o->shared,
                                               .experts = &o->experts,
                                               .map = &o->expert_map,
                                               .fault = &o->fault,
                                               .w = mh_view_weight(o->w)},
                        l);
}

PLAN_OP(moe_down_combine)
{
    return down_combine(&(struct down_combine){.y = &o->y,
                                               .h = &o->h,
                                               .x = &o->x,
                                               .weights = &o->weights,
                                               .experts = &o->experts,
                                               .map = &o->expert_map,
                                               .fault = &o->fault,
                                               .w = mh_view_weight(o->w),
                                               .shared_x = &o->shared_x,
                                               .shared_w = mh_view_weight(o->shared_w)},
                        l);
}

void launch_combine(const struct combine_arguments *a, int64_t tokens, struct launch *l)
{
    begin(l, KERNEL_combine, 0, BLOCK);
    set_grid(l, tokens, ceil_div(a->columns, BLOCK), 1);
    memcpy(l->arguments, a, sizeof(*a));
}

PLAN_OP(combine)
{
    launch_combine(
        &(struct combine_arguments){.y = view(&o->y),
                                    .h = view(&o->h),
                                    .e = view(&o->e),
                                    .weights = view(&o->weights),
                                    .shared = view(&o->shared),
                                    .choice = {view(&o->experts), address(&o->expert_map),
                                               address(&o->fault), o->expert_count,
                                               o->resident_count ? o->resident_count : INT32_MAX},
                                    .slots = o->e.shape[1],
                                    .columns = o->y.shape[1]},
        o->y.shape[0], l);
    return 1;
}
