/* router.c: the choice of experts, numerics rule 8. */
#include "kernels.h"
#include "numerics.h"
#include "product.h"

/* Of one row; all [E]. */
struct candidates {
    float *scores;    /* what weights are made from */
    float *selection; /* what experts are chosen by */
    uint8_t *out;     /* losing group, or already chosen */
};

struct job {
    const struct host_run *run;
    const mh_router_rule *rule;
    const mh_tensor *experts, *weights, *logits, *bias;
    int64_t count; /* E */
};

static void score_softmax(const float *logits, float *scores, int64_t count)
{
    float most = logits[0], ones[STRIPES], a[STRIPES] = {0};
    for (int64_t e = 1; e < count; e++)
        most = logits[e] > most ? logits[e] : most;
    for (int64_t e = 0; e < count; e++)
        scores[e] = exp_exact(logits[e] - most);
    for (int j = 0; j < STRIPES; j++)
        ones[j] = 1;
    for (int64_t e = 0; e < count; e += STRIPES)
        accumulate(a, scores + e, ones, count - e < STRIPES ? count - e : STRIPES);
    float r = rcp(fold(a));
    for (int64_t e = 0; e < count; e++)
        scores[e] = scores[e] * r;
}

/* The best of [begin, end) that is still in, by key, lowest index among equals; -1 if none. */
static int64_t best(const struct candidates *c, int64_t begin, int64_t end)
{
    int64_t found = -1;
    uint32_t found_key = 0;
    for (int64_t e = begin; e < end; e++) {
        uint32_t key = selection_key(c->selection[e]);
        if (!c->out[e] && (found < 0 || key > found_key)) {
            found = e;
            found_key = key;
        }
    }
    return found;
}

/* The sum of the two largest, or the largest; a group of one expert has only that one. */
static float group_score(const mh_router_rule *rule, struct candidates *c, int64_t begin,
                         int64_t end)
{
    int64_t first = best(c, begin, end);
    float score = c->selection[first];
    if (rule->group_score != MH_GROUPS_TOP2 || end - begin < 2)
        return score;
    c->out[first] = 1;
    int64_t second = best(c, begin, end);
    c->out[first] = 0;
    return score + c->selection[second];
}

/* Groups that lose are taken out; of equal ones the first stays. */
static void drop_groups(const mh_router_rule *rule, struct candidates *c, int64_t count,
                        float *group_scores)
{
    int64_t size = count / rule->groups;
    for (int64_t g = 0; g < rule->groups; g++)
        group_scores[g] = group_score(rule, c, g * size, (g + 1) * size);
    for (int64_t g = 0; g < rule->groups; g++) {
        int64_t better = 0;
        uint32_t key = selection_key(group_scores[g]);
        for (int64_t o = 0; o < rule->groups; o++) {
            uint32_t other = selection_key(group_scores[o]);
            better += other > key || (other == key && o < g);
        }
        if (better >= rule->top_groups)
            memset(c->out + g * size, 1, (size_t)size);
    }
}

static void choose(const mh_router_rule *rule, struct candidates *c, int64_t count, int64_t k,
                   int32_t *experts, float *weights)
{
    for (int64_t j = 0; j < k; j++) {
        int64_t e = best(c, 0, count);
        c->out[e] = 1;
        experts[j] = (int32_t)e;
        weights[j] = c->scores[e];
    }
    float factor = 1;
    if (rule->normalise) {
        float sum = weights[0];
        for (int64_t j = 1; j < k; j++)
            sum = sum + weights[j];
        factor = rcp(sum + 1e-20f);
    }
    for (int64_t j = 0; j < k; j++) {
        float w = rule->normalise ? weights[j] * factor : weights[j];
        weights[j] = w * rule->scaling;
    }
}

static void route_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const mh_router_rule *rule = job->rule;
    int64_t count = job->count, k = job->experts->shape[1];
    float *scratch = (float *)(void *)thread_scratch(job->run, thread);
    struct candidates c = {scratch, scratch + count, (uint8_t *)(scratch + 3 * count)};
    for (int64_t t = begin; t < end; t++) {
        const float *logits = row1(job->logits, t);
        if (rule->scoring == MH_ROUTER_SIGMOID)
            for (int64_t e = 0; e < count; e++)
                c.scores[e] = sigmoid(logits[e]);
        else
            score_softmax(logits, c.scores, count);
        const float *bias = job->bias->rank ? row1(job->bias, 0) : NULL;
        for (int64_t e = 0; e < count; e++)
            c.selection[e] = bias ? c.scores[e] + bias[e] : c.scores[e];
        memset(c.out, 0, (size_t)count);
        if (rule->group_score != MH_GROUPS_NONE)
            drop_groups(rule, &c, count, scratch + 2 * count);
        choose(rule, &c, count, k, address(job->experts, t), row1(job->weights, t));
    }
}

void K(router)(const struct host_run *run, const mh_op *op)
{
    const mh_op_router *o = (const void *)op;
    struct job job = {run,        &o->rule, &o->experts,       &o->weights,
                      &o->logits, &o->bias, o->logits.shape[1]};
    spread(run, o->experts.shape[0], 40 * job.count, route_rows, &job);
}

/* Its expansion, with the logits in scratch behind what linear wants. */
void K(router_linear)(const struct host_run *run, const mh_op *op)
{
    const mh_op_router_linear *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t rows = o->x.shape[0];
    mh_buffer_view memory = {.host = run->scratch};
    mh_op_linear linear = {.base = *op, .x = o->x, .w = o->w};
    linear.y =
        f32_tensor(&memory, product_shared(op, rows, rows, w->in, false), 2, rows, w->out, 0);
    K(linear)(run, &linear.base);
    mh_op_router route = {.base = *op, .experts = o->experts, .weights = o->weights};
    route.logits = linear.y, route.bias = o->bias, route.rule = o->rule;
    K(router)(run, &route.base);
}
