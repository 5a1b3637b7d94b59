/* ops.c: any op as launches, its scratch, and what can be run. */
#include <stdio.h>

#include "plan.h"

static uint32_t plan(const struct device *device, const mh_op *op,
                     const struct launch_memory *memory, struct launch *l)
{
    uint64_t scratch;
    uint32_t count = plan_fast(device, op, memory, l, &scratch);
    if (count)
        return count;
    switch (op->op) {
#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    case MH_OP_##NAME:                                                                             \
        return plan_##name(device, (const void *)op, memory, l);
#include <moehal/ops.def>
#undef MH_OP
    default:
        return 0;
    }
}

/* An op without rows has nothing to launch. */
uint32_t nv_plan(const struct device *device, const mh_op *op, const struct launch_memory *memory,
                 struct launch out[MAX_LAUNCHES])
{
    if (op->op == MH_OP_EXCHANGE)
        return nv_plan_exchange((const void *)op, out);
    uint32_t count = plan(device, op, memory, out);
    for (uint32_t i = 0; i < count; i++)
        if (!out[i].grid[0] || !out[i].grid[1] || !out[i].grid[2])
            return 0;
    return count;
}

static uint64_t logits_bytes(int64_t tokens, const mh_weight *w)
{
    return 4 * (uint64_t)(tokens * mh_view_weight(w)->out);
}

uint64_t nv_scratch(void *device, const mh_op *op)
{
    struct launch launches[MAX_LAUNCHES];
    uint64_t fast;
    if (plan_fast(device, op, &(struct launch_memory){0}, launches, &fast))
        return fast;
    switch (op->op) {
    case MH_OP_ATTENTION:
        return scratch_attention(device, (const void *)op);
    case MH_OP_ROUTER_LINEAR: {
        const mh_op_router_linear *o = (const void *)op;
        return logits_bytes(o->experts.shape[0], o->w);
    }
    case MH_OP_NORM_ROUTER: {
        const mh_op_norm_router *o = (const void *)op;
        return logits_bytes(o->experts.shape[0], o->w);
    }
    case MH_OP_SAMPLE: {
        const mh_op_sample *o = (const void *)op;
        return 4 * (uint64_t)(o->logits.shape[0] * o->logits.shape[1]);
    }
    default:
        return 0;
    }
}

/* ---- what can be run: everything, within what a block's shared memory and a grid hold ---- */

static mh_status limit(uint32_t *missing, char reason[192], const char *what, uint64_t value,
                       uint64_t most)
{
    *missing = MH_MISSING_LIMIT;
    snprintf(reason, 192, "nvidia: %s is %llu, this device's limit is %llu", what,
             (unsigned long long)value, (unsigned long long)most);
    return MH_OK;
}

static mh_status supports_kernel(const struct device *device, const mh_op_kernel *o,
                                 uint32_t *missing, char reason[192])
{
    uint64_t threads = (uint64_t)o->block[0] * o->block[1] * o->block[2];
    if (threads > 1024)
        return limit(missing, reason, "threads of a block", threads, 1024);
    if (o->shared_bytes > device->shared_optin)
        return limit(missing, reason, "shared memory of a block", o->shared_bytes,
                     device->shared_optin);
    for (uint32_t i = 0; i < o->arg_count; i++)
        if (o->args[i].kind == MH_ARG_LOCAL) {
            *missing = MH_MISSING_KERNEL;
            snprintf(reason, 192, "nvidia: argument %u is local memory, which is OpenCL's", i);
            return MH_OK;
        }
    return MH_OK;
}

mh_status nv_supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    const struct device *device = user;
    struct launch launches[MAX_LAUNCHES];
    if (op->op == MH_OP_EXCHANGE) /* memory for it is there: so are the kernels */
        return MH_OK;
    if (op->op == MH_OP_KERNEL)
        return supports_kernel(device, (const void *)op, missing, reason);
    uint32_t count = plan(device, op, &(struct launch_memory){0}, launches);
    for (uint32_t i = 0; i < count; i++) {
        const struct launch *l = &launches[i];
        uint64_t shared = nv_dynamic_shared(device, l->kernel);
        if (l->shared > shared)
            return limit(missing, reason, "shared memory of a block", l->shared, shared);
        if (l->grid[1] > 65535 || l->grid[2] > 65535)
            return limit(missing, reason, "the grid", l->grid[1] > 65535 ? l->grid[1] : l->grid[2],
                         65535);
        bool attends = op->op == MH_OP_ATTENTION || op->op == MH_OP_ATTENTION_PART;
        uint32_t threads = attends ? 512 : 1024; /* its registers allow no more */
        if (l->block > threads)
            return limit(missing, reason, "threads of a block", l->block, threads);
    }
    return MH_OK;
}
