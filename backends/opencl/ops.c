/* ops.c: which op runs with which kernels. One function an op; those of a family stand together. */
#include "ops.h"

#include <stdio.h>

/* ---- the table ---- */

static const struct op_kernels {
    encode_fn encode;
    uint32_t count;
    enum kernel_id kernels[4];
} table[] = {
    [MH_OP_ADD] = {encode_add, 1, {KERNEL_add}},
    [MH_OP_SWIGLU] = {encode_swiglu, 1, {KERNEL_swiglu}},
    [MH_OP_RMSNORM] = {encode_rmsnorm, 1, {KERNEL_rmsnorm}},
    [MH_OP_COMBINE] = {encode_combine, 1, {KERNEL_combine}},
};

#define TABLE_SIZE (sizeof(table) / sizeof(table[0]))

/* ---- supports ---- */

static mh_status no(uint32_t *missing, uint32_t what, char reason[192], const char *text)
{
    *missing = what;
    snprintf(reason, 192, "%s", text);
    return MH_OK;
}

mh_status opencl_supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    struct device *device = user;
    if (op->op >= TABLE_SIZE || !table[op->op].encode)
        return no(missing, MH_MISSING_KERNEL, reason, "opencl has no kernel for it");
    if (device->unfit[0])
        return no(missing, MH_MISSING_KERNEL, reason, device->unfit);
    const struct op_kernels *k = &table[op->op];
    for (uint32_t i = 0; i < k->count; i++) {
        char why[192];
        opencl_prepare(device, k->kernels[i], opencl_format(op), why);
        if (why[0])
            return no(missing, MH_MISSING_KERNEL, reason, why);
    }
    return MH_OK;
}

mh_status opencl_encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    const struct run run = {user, scratch};
    return table[op->op].encode(&run, op);
}

uint64_t opencl_scratch(void *device, const mh_op *op)
{
    (void)device, (void)op;
    return 0;
}

mh_format opencl_format(const mh_op *op)
{
    mh_operand operand;
    (void)operand, (void)op;
    return 0;
}
