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

ENCODE(argmax)
{
    const mh_op_argmax *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_argmax, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->logits);
    arg_long(&l, o->logits.shape[1]);
    return launch_end(&l, o->y.shape[0], 1, 1);
}

/* Weights [T, vocabulary] as u32. */
SCRATCH(sample)
{
    const mh_op_sample *o = (const void *)op;
    (void)device;
    return 4 * (uint64_t)o->logits.shape[0] * (uint64_t)o->logits.shape[1];
}

ENCODE(sample)
{
    const mh_op_sample *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_sample, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->logits);
    arg_tensor(&l, &o->params);
    arg_scratch(&l, 0, o->logits.shape[1]);
    arg_long(&l, o->logits.shape[1]);
    return launch_end(&l, o->y.shape[0], 1, 1);
}
