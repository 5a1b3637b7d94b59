/* ops_experts.c: the choice of experts, their products, and what is made of them. */
#include "plan.h"

/* ---- the choice ---- */

/* ROUTER_PARAMS of router.inc. */
void put_router(struct launch *l, const mh_tensor *experts, const mh_tensor *weights,
                const mh_tensor *bias, int64_t count, const mh_router_rule *rule)
{
    put_tensor(l, experts, 1);
    put_tensor(l, weights, 1);
    put(l, address_or_0(bias));
    put(l, (uint64_t)count);
    put(l, (uint64_t)experts->shape[1]);
    put(l, rule->scoring == MH_ROUTER_SOFTMAX);
    put(l, rule->group_score);
    put(l, (uint64_t)rule->groups);
    put(l, (uint64_t)rule->top_groups);
    put(l, rule->normalise);
    put_f32(l, rule->scaling);
}

static void begin_router(struct launch *l, int64_t tokens, int64_t count, uint64_t logits,
                         uint64_t logits_row)
{
    begin(l, KERNEL_router, 0);
    l->grid[0] = (uint32_t)tokens;
    l->block = 32;
    l->shared = (uint32_t)(16 * count);
    put(l, logits);
    put(l, logits_row);
}

PLAN_OP(router)
{
    int64_t count = o->logits.shape[1];
    begin_router(l, o->experts.shape[0], count, address(&o->logits), (uint64_t)o->logits.stride[0]);
    put_router(l, &o->experts, &o->weights, &o->bias, count, &o->rule);
    return 1;
}

/* Logits go to scratch. */
PLAN_OP(router_linear)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t tokens = o->experts.shape[0];
    plan_logits(device, &o->x, w, tokens, memory->scratch, l);
    begin_router(l + 1, tokens, w->out, memory->scratch, 4 * (uint64_t)w->out);
    put_router(l + 1, &o->experts, &o->weights, &o->bias, w->out, &o->rule);
    return 2;
}

/* ---- grouped products ---- */

struct experts {
    const mh_tensor *y, *x, *experts, *map, *fault;
    const mh_weight_view *w, *up;
    const mh_tensor *shared_y; /* NULL: no shared experts */
    const mh_weight_view *shared_w, *shared_up;
};

static int64_t expert_count(const mh_tensor *map, const mh_weight_view *w)
{
    return map->rank ? map->shape[0] : w->experts;
}

static uint32_t experts(const struct device *device, const struct experts *p, struct launch *l)
{
    const mh_weight_view *w = p->w;
    int64_t tokens = p->experts->shape[0], slots = p->experts->shape[1];
    int64_t rows = p->shared_y && p->shared_w->out > w->out ? p->shared_w->out : w->out;
    /* A token's experts differ, so only tokens share one; a few do even when there are few. */
    uint32_t most = tokens == 1 ? 0 : tokens <= 8 ? 1 : 3;
    uint32_t log2 = tokens_log2(device, tokens, w->in, most);
    uint32_t count = warps(device, w->out, tokens * slots);
    uint32_t shared_tiles = p->shared_y ? ceil_div(tokens, 1 << log2) : 0;
    begin(l, KERNEL_experts_t1 + log2, w->format);
    set_grid(l, tokens * slots + shared_tiles, ceil_div(rows, 4 * count), 1);
    l->block = 32 * count;
    l->shared = (uint32_t)staged_bytes(w->in, 1u << log2);
    put_tensor(l, p->y, 2);
    put(l, address(p->x));
    put(l, (uint64_t)p->x->stride[0]);
    put(l, p->x->rank == 3 ? (uint64_t)p->x->stride[1] : 0);
    put_tensor(l, p->experts, 1);
    put(l, address_or_0(p->map));
    put(l, address(p->fault));
    put_bank(l, w);
    put(l, p->up ? plane(p->up, 0) : 0);
    put(l, p->up ? plane(p->up, 1) : 0);
    put(l, (uint64_t)(tokens * slots));
    put(l, (uint64_t)slots);
    put(l, (uint64_t)w->out);
    put(l, (uint64_t)w->in);
    put(l, (uint64_t)expert_count(p->map, w));
    put(l, (uint64_t)w->experts);
    put(l, alignment(w, p->x));
    put(l, columns_ahead(device, tokens * slots * w->out * (p->up ? 2 : 1), w));
    put(l, p->shared_y ? address(p->shared_y) : 0);
    put(l, p->shared_y ? (uint64_t)p->shared_y->stride[0] : 0);
    put(l, p->shared_y ? plane(p->shared_w, 0) : 0);
    put(l, p->shared_y ? plane(p->shared_w, 1) : 0);
    put(l, p->shared_y ? plane(p->shared_up, 0) : 0);
    put(l, p->shared_y ? plane(p->shared_up, 1) : 0);
    put(l, (uint64_t)tokens);
    put(l, p->shared_y ? (uint64_t)p->shared_w->out : 0);
    return 1;
}

PLAN_OP(experts_gate_up)
{
    return experts(device,
                   &(struct experts){.y = &o->y,
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
    return experts(device,
                   &(struct experts){.y = &o->y,
                                     .x = &o->x,
                                     .experts = &o->experts,
                                     .map = &o->expert_map,
                                     .fault = &o->fault,
                                     .w = mh_view_weight(o->w)},
                   l);
}

PLAN_OP(moe_gate_up)
{
    return experts(device,
                   &(struct experts){.y = &o->y,
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

static uint32_t down_combine(const struct device *device, const struct down_combine *p,
                             struct launch *l)
{
    const mh_weight_view *w = p->w, *shared = p->shared_w;
    int64_t slots = p->experts->shape[1];
    uint32_t terms = (uint32_t)slots + (shared ? 1 : 0);
    /* Four rows a quad: as many quads a block as leave a block for each multiprocessor. */
    int64_t quads = w->out * p->y->shape[0] / (4 * (int64_t)device->multiprocessors);
    quads = quads < 1 ? 1 : quads > 8 ? 8 : quads;
    begin(l, KERNEL_experts_down_combine, w->format);
    set_grid(l, p->y->shape[0], ceil_div(w->out, 4 * quads), 1);
    l->block = 32 * (terms < 16 ? terms : 16);
    uint64_t bytes = staged_bytes(w->in, 1) * (uint64_t)slots +
                     (shared ? staged_bytes(shared->in, 1) : 0) + 16 * terms * (uint64_t)quads;
    l->shared = bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
    put_tensor(l, p->y, 1);
    put_tensor(l, p->h, 1);
    put_tensor(l, p->x, 2);
    put_tensor(l, p->weights, 1);
    put(l, p->shared ? address_or_0(p->shared) : 0);
    put(l, p->shared && p->shared->rank ? (uint64_t)p->shared->stride[0] : 0);
    put_tensor(l, p->experts, 1);
    put(l, address_or_0(p->map));
    put(l, address(p->fault));
    put_bank(l, w);
    put(l, (uint64_t)slots);
    put(l, (uint64_t)w->out);
    put(l, (uint64_t)w->in);
    put(l, (uint64_t)expert_count(p->map, w));
    put(l, (uint64_t)w->experts);
    put(l, alignment(w, p->x) | (shared ? alignment(shared, p->shared_x) << 2 : 0));
    put(l, columns_ahead(device, w->out * terms, w));
    put(l, (uint64_t)quads);
    put(l, shared ? address(p->shared_x) : 0);
    put(l, shared ? (uint64_t)p->shared_x->stride[0] : 0);
    put(l, shared ? plane(shared, 0) : 0);
    put(l, shared ? (uint64_t)shared->row_stride[0] : 0);
    put(l, shared ? plane(shared, 1) : 0);
    put(l, shared && shared->plane_count > 1 ? (uint64_t)shared->row_stride[1] : 0);
    put(l, shared ? (uint64_t)shared->in : 0);
    return 1;
}

PLAN_OP(experts_down_combine)
{
    return down_combine(device,
                        &(struct down_combine){.y = &o->y,
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
    return down_combine(device,
                        &(struct down_combine){.y = &o->y,
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

PLAN_OP(combine)
{
    begin(l, KERNEL_combine, 0);
    set_grid(l, o->y.shape[0], ceil_div(o->y.shape[1], 128), 1);
    put_tensor(l, &o->y, 1);
    put_tensor(l, &o->h, 1);
    put_tensor(l, &o->e, 2);
    put_tensor(l, &o->weights, 1);
    put_tensor(l, &o->shared, 1);
    put_tensor(l, &o->experts, 1);
    put(l, address_or_0(&o->expert_map));
    put(l, address(&o->fault));
    put(l, (uint64_t)o->e.shape[1]);
    put(l, (uint64_t)o->y.shape[1]);
    put(l, (uint64_t)o->expert_count);
    put(l, o->resident_count ? (uint64_t)o->resident_count : INT32_MAX);
    return 1;
}
