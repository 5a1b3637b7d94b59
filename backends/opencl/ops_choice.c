/* ops_choice.c: ops of kernels/router.cl and kernels/sample.cl. */
#include "ops.h"

mh_status launch_router(const struct run *run, const mh_tensor *experts, const mh_tensor *weights,
                        const mh_tensor *logits, uint64_t logits_at, int64_t count,
                        const mh_tensor *bias, const mh_router_rule *rule)
{
    struct launch l = launch_begin(run, KERNEL_router, 0);
    arg_tensor(&l, experts);
    arg_tensor(&l, weights);
    if (logits)
        arg_tensor(&l, logits);
    else
        arg_scratch(&l, logits_at, count);
    arg_optional(&l, bias, weights);
    arg_long(&l, count);
    arg_long(&l, experts->shape[1]);
    arg_int(&l, (int32_t)rule->scoring);
    arg_int(&l, (int32_t)rule->group_score);
    arg_long(&l, rule->groups);
    arg_long(&l, rule->top_groups);
    arg_int(&l, (int32_t)rule->normalise);
    arg_float(&l, rule->scaling);
    return launch_end(&l, experts->shape[0], 1, 1);
}

ENCODE(router)
{
    const mh_op_router *o = (const void *)op;
    return launch_router(run, &o->experts, &o->weights, &o->logits, 0, o->logits.shape[1], &o->bias,
                         &o->rule);
}

/* A row is cut into stretches, each of them one group's; a GPU's lane looks at one stretch's best.
 */
static int64_t stretch_of(const struct device *device, int64_t count)
{
    return 64 * blocks(count, 64 * (device->form == FORM_CPU ? 16 : 64));
}

/* What stands before a row's weights: a histogram, 64 bests. As in sample.cl, in words. */
#define HEAD (3 * 512 + 2 * 64)

static uint64_t head_bytes(const mh_tensor *logits)
{
    return 4 * HEAD * (uint64_t)logits->shape[0];
}

static mh_status launch_best(const struct run *run, const mh_tensor *logits)
{
    struct launch l = launch_begin(run, KERNEL_best, 0);
    int64_t count = logits->shape[1], stretch = stretch_of(run->device, count);
    arg_scratch(&l, 0, HEAD);
    arg_tensor(&l, logits);
    arg_long(&l, count);
    arg_long(&l, stretch);
    return launch_end(&l, blocks(count, stretch), logits->shape[0], 1);
}

SCRATCH(argmax)
{
    (void)device;
    return head_bytes(&((const mh_op_argmax *)op)->logits);
}

ENCODE(argmax)
{
    const mh_op_argmax *o = (const void *)op;
    int64_t count = o->logits.shape[1];
    mh_status status = launch_best(run, &o->logits);
    if (status)
        return status;
    struct launch l = launch_begin(run, KERNEL_argmax, 0);
    arg_tensor(&l, &o->y);
    arg_scratch(&l, 0, HEAD);
    arg_long(&l, blocks(count, stretch_of(run->device, count)));
    return launch_end(&l, o->y.shape[0], 1, 1);
}

/* Heads; then for each row [2, vocabulary] as u32: weights, and a list of tokens. */
SCRATCH(sample)
{
    const mh_tensor *logits = &((const mh_op_sample *)op)->logits;
    (void)device;
    return head_bytes(logits) + 8 * (uint64_t)(logits->shape[0] * logits->shape[1]);
}

static mh_status launch_weights(const struct run *run, const mh_op_sample *o)
{
    struct launch l = launch_begin(run, KERNEL_sample_weights, 0);
    int64_t count = o->logits.shape[1], stretch = stretch_of(run->device, count);
    arg_scratch(&l, 0, HEAD);
    arg_scratch(&l, head_bytes(&o->logits), 2 * count);
    arg_tensor(&l, &o->logits);
    arg_tensor(&l, &o->params);
    arg_long(&l, count);
    arg_long(&l, stretch);
    return launch_end(&l, blocks(count, stretch), o->logits.shape[0], 1);
}

ENCODE(sample)
{
    const mh_op_sample *o = (const void *)op;
    int64_t count = o->logits.shape[1];
    uint64_t weights_at = head_bytes(&o->logits);
    mh_status status = launch_best(run, &o->logits);
    if (!status)
        status = launch_weights(run, o);
    if (status)
        return status;
    struct launch l = launch_begin(run, KERNEL_sample, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->params);
    arg_scratch(&l, 0, HEAD);
    arg_scratch(&l, weights_at, 2 * count);
    arg_scratch(&l, weights_at + 4 * (uint64_t)count, 2 * count);
    arg_long(&l, count);
    arg_long(&l, blocks(count, stretch_of(run->device, count)));
    return launch_end(&l, o->y.shape[0], 1, 1);
}
