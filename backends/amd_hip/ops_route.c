/* ops_route.c: the choice of experts and of tokens. */
#include "kernels/router.h"
#include "kernels/sample.h"

#include "plan.h"

_Static_assert((int)GROUPS_NONE == MH_GROUPS_NONE && (int)GROUPS_TOP2 == MH_GROUPS_TOP2 &&
                   (int)GROUPS_MAX == MH_GROUPS_MAX,
               "as the core has them");

enum { WAVE = 64, MOST_IN_LDS = 32768, SAMPLE_BLOCK = 1024 };

/* ---- experts ---- */

static struct route route(const mh_tensor *experts, const mh_tensor *weights, const mh_tensor *bias,
                          int64_t count, const mh_router_rule *rule)
{
    return (struct route){.experts = view(experts),
                          .weights = view(weights),
                          .bias = address(bias),
                          .count = count,
                          .slots = experts->shape[1],
                          .groups = rule->groups,
                          .top_groups = rule->top_groups,
                          .softmax = rule->scoring == MH_ROUTER_SOFTMAX,
                          .group_score = rule->group_score,
                          .normalise = rule->normalise,
                          .scaling = rule->scaling};
}

/* LDS of `waves` that route rows at the same time. */
static uint32_t route_lds(int64_t count, int64_t waves)
{
    return count <= MAX_LDS ? (uint32_t)(ROUTE_BYTES(count) * waves) : UINT32_MAX;
}

static void launch_router(const struct route *r, struct view logits, int64_t tokens,
                          struct launch *l)
{
    begin(l, KERNEL_router, 0, WAVE);
    l->grid[0] = tokens;
    l->lds = route_lds(r->count, 1);
    ARGUMENTS(l, router, .route = *r, .logits = logits);
}

PLAN_OP(router)
{
    int64_t count = o->logits.shape[1];
    struct route r = route(&o->experts, &o->weights, &o->bias, count, &o->rule);
    launch_router(&r, view(&o->logits), o->experts.shape[0], l);
    return 1;
}

PLAN_OP(router_linear)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t tokens = o->experts.shape[0];
    struct route r = route(&o->experts, &o->weights, &o->bias, w->out, &o->rule);
    struct view logits = scratch_rows(memory, tokens, w->out);
    launch_linear(device, logits, view(&o->x), tensor_aligned(&o->x, w->in), w, tokens, l);
    launch_router(&r, logits, tokens, l + 1);
    return 2;
}

/* One launch where a few rows have room in LDS. */
PLAN_OP(norm_router)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t tokens = o->x.shape[0];
    uint32_t log2 = tokens_log2(tokens);
    struct route r = route(&o->experts, &o->weights, &o->bias, w->out, &o->rule);
    struct view logits = scratch_rows(memory, tokens, w->out);
    struct normed normed = plan_normed(device, &o->x, &o->norm, o->eps, w->out);
    int64_t lds = NORMED_BYTES(w->in, 1 << log2);
    uint32_t routes = route_lds(w->out, normed.waves);
    if (tokens > 8 || lds > MOST_IN_LDS || routes > MOST_IN_LDS) {
        launch_rmsnorm(view(&o->y), view(&o->x), address(&o->norm), tokens, w->in, o->eps, l);
        launch_linear(device, logits, view(&o->y), tensor_aligned(&o->y, w->in), w, tokens, l + 1);
        launch_router(&r, logits, tokens, l + 2);
        return 3;
    }
    begin(l, KERNEL_norm_router_t1 + log2, w->format, WAVE * (uint32_t)normed.waves);
    set_grid(l, ceil_div(w->out, 8 * normed.waves), tokens > 0, 1);
    l->lds = (uint32_t)lds > routes ? (uint32_t)lds : routes;
    ARGUMENTS(l, norm_router, .route = r, .normed = normed, .y = view(&o->y), .logits = logits,
              .w = weight(w), .counter = memory->counters, .flags = alignment(w, &o->x));
    return 1;
}

/* ---- tokens ---- */

PLAN_OP(argmax)
{
    begin(l, KERNEL_argmax, 0, SAMPLE_BLOCK);
    l->grid[0] = o->y.shape[0];
    ARGUMENTS(l, argmax, .y = view(&o->y), .logits = view(&o->logits), .count = o->logits.shape[1]);
    return 1;
}

PLAN_OP(sample)
{
    int64_t rows = o->y.shape[0], count = o->logits.shape[1];
    begin(l, KERNEL_sample, 0, SAMPLE_BLOCK);
    l->grid[0] = rows;
    ARGUMENTS(l, sample, .y = view(&o->y), .logits = view(&o->logits), .params = view(&o->params),
              .weights = scratch_rows(memory, rows, count), .count = count);
    return 1;
}
