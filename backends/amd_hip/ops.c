/* ops.c: any op as launches, its scratch, and what can be run. */
#include <stdio.h>

#include "plan.h"

/* The kernels' numbers are the core's. */
#define SAME(name, of_core) _Static_assert((int)(name) == (int)(of_core), #name)
SAME(BAD_INDEX, MH_BAD_INDEX);
SAME(OUT_OF_MEMORY, MH_OUT_OF_MEMORY);
SAME(F32, MH_F32);
SAME(F16, MH_F16);
SAME(BF16, MH_BF16);
SAME(F32, MH_FORMAT_F32);
SAME(F16, MH_FORMAT_F16);
SAME(BF16, MH_FORMAT_BF16);
SAME(FP8, MH_FORMAT_FP8);

static uint32_t plan(const struct device *device, const mh_op *op, struct launch_memory *memory,
                     struct launch *l)
{
    if (op->op == MH_OP_EXCHANGE)
        return plan_exchange((const void *)op, l);
    uint32_t count = has_products(device, op) ? plan_fast(device, op, memory, l) : 0;
    if (count)
        return count;
    switch (op->op) {
#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    case MH_OP_##NAME:                                                                             \
        return plan_##name(device, (const void *)op, memory, l);
#include <moehal/ops.def>
#undef MH_OP
    default:
        return NO_KERNEL;
    }
}

/* An op without rows has nothing to launch. */
uint32_t amd_plan(const struct device *device, const mh_op *op, const mh_scratch *scratch,
                  void *counters, struct launch out[MAX_LAUNCHES])
{
    struct launch_memory memory = {
        scratch->handle ? (char *)scratch->handle + scratch->offset : NULL, 0, counters};
    uint32_t count = plan(device, op, &memory, out);
    for (uint32_t i = 0; i < count; i++)
        if (!out[i].grid[0] || !out[i].grid[1] || !out[i].grid[2])
            return 0;
    return count;
}

uint64_t amd_scratch(void *device, const mh_op *op)
{
    struct launch launches[MAX_LAUNCHES];
    struct launch_memory memory = {0};
    plan(device, op, &memory, launches);
    return memory.used;
}

static mh_status limit(uint32_t *missing, char reason[192], const char *what, int64_t value,
                       int64_t most)
{
    *missing = MH_MISSING_LIMIT;
    snprintf(reason, 192, "amd: %s is %lld, the limit is %lld", what, (long long)value,
             (long long)most);
    return MH_OK;
}

static mh_status supports_kernel(const mh_op_kernel *o, uint32_t *missing, char reason[192])
{
    int64_t threads = (int64_t)o->block[0] * o->block[1] * o->block[2];
    if (threads > 1024)
        return limit(missing, reason, "the work-items of a workgroup", threads, 1024);
    if (o->shared_bytes > MAX_LDS)
        return limit(missing, reason, "LDS of a workgroup", (int64_t)o->shared_bytes, MAX_LDS);
    for (uint32_t i = 0; i < o->arg_count; i++)
        if (o->args[i].kind == MH_ARG_LOCAL) {
            *missing = MH_MISSING_KERNEL;
            snprintf(reason, 192, "amd: argument %u is local memory, which is OpenCL's", i);
            return MH_OK;
        }
    return MH_OK;
}

mh_status amd_supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    const struct device *device = user;
    struct launch launches[MAX_LAUNCHES];
    struct launch_memory memory = {0};
    if (op->op == MH_OP_KERNEL)
        return supports_kernel((const void *)op, missing, reason);
    uint32_t count = plan(device, op, &memory, launches);
    if (count == NO_KERNEL) {
        *missing = MH_MISSING_KERNEL;
        snprintf(reason, 192, "amd has no kernel for it yet");
        return MH_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct launch *l = &launches[i];
        int64_t most = UINT32_MAX / l->block; /* work-items of a dimension */
        if (l->lds > MAX_LDS)
            return limit(missing, reason, "LDS of a workgroup", l->lds, MAX_LDS);
        if (l->grid[0] > most)
            return limit(missing, reason, "the grid", l->grid[0], most);
        for (int d = 1; d < 3; d++)
            if (l->grid[d] > 65535)
                return limit(missing, reason, "the grid", l->grid[d], 65535);
    }
    return MH_OK;
}
