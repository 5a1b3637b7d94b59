/* ops.c: which op needs which kernels, and what cannot be run. */
#include "ops.h"

#include <stdio.h>

static const struct op_kernels {
    mh_status (*encode)(const struct run *run, const mh_op *op);
    uint64_t (*scratch)(const struct device *device, const mh_op *op); /* NULL: none */
    enum kernel_id kernels[10]; /* all that it may use; then 0, the probe */
} table[] = {
#define OP(NAME, name, ...) [MH_OP_##NAME] = {encode_##name, NULL, {__VA_ARGS__}}
#define OP_WITH_SCRATCH(NAME, name, ...)                                                           \
    [MH_OP_##NAME] = {encode_##name, scratch_##name, {__VA_ARGS__}}
    OP(ADD, add, KERNEL_add),
    OP(SWIGLU, swiglu, KERNEL_swiglu),
    OP(RMSNORM, rmsnorm, KERNEL_rmsnorm),
    OP(COMBINE, combine, KERNEL_combine),
    OP(COPY, copy, KERNEL_copy),
    OP(CAST, cast, KERNEL_cast),
    OP(FILL, fill, KERNEL_fill),
    OP(ROPE, rope, KERNEL_rope),
    OP(KV_WRITE, kv_write, KERNEL_kv_write),
    OP(MLA_KV, mla_kv, KERNEL_mla_kv),
    OP_WITH_SCRATCH(ATTENTION, attention, KERNEL_attention, KERNEL_attention_merge),
    OP(ATTENTION_PART, attention_part, KERNEL_attention),
    OP(ATTENTION_MERGE, attention_merge, KERNEL_attention_merge),
    OP(EMBED, embed, KERNEL_embed),
    OP_WITH_SCRATCH(LINEAR, linear, KERNEL_linear, KERNEL_order, KERNEL_many),
    OP_WITH_SCRATCH(LINEAR_ADD, linear_add, KERNEL_linear, KERNEL_order, KERNEL_many),
    OP_WITH_SCRATCH(LINEAR_SWIGLU, linear_swiglu, KERNEL_linear, KERNEL_order, KERNEL_many),
    OP_WITH_SCRATCH(HEAD_LINEAR, head_linear, KERNEL_linear, KERNEL_order, KERNEL_many,
                    KERNEL_head_columns),
    OP_WITH_SCRATCH(MLA_QUERY, mla_query, KERNEL_head_columns, KERNEL_rope, KERNEL_order,
                    KERNEL_many),
    OP(ROUTER, router, KERNEL_router),
    OP_WITH_SCRATCH(ARGMAX, argmax, KERNEL_best, KERNEL_argmax),
    OP_WITH_SCRATCH(SAMPLE, sample, KERNEL_best, KERNEL_sample_weights, KERNEL_sample),
    OP_WITH_SCRATCH(ROUTER_LINEAR, router_linear, KERNEL_linear, KERNEL_order, KERNEL_many,
                    KERNEL_router),
    OP_WITH_SCRATCH(EXPERTS_GATE_UP, experts_gate_up, KERNEL_experts_linear, KERNEL_order,
                    KERNEL_many, KERNEL_group_slots),
    OP_WITH_SCRATCH(EXPERTS_DOWN, experts_down, KERNEL_experts_linear, KERNEL_order, KERNEL_many,
                    KERNEL_group_slots),
    OP_WITH_SCRATCH(EXPERTS_DOWN_COMBINE, experts_down_combine, KERNEL_experts_down_combine,
                    KERNEL_order, KERNEL_many, KERNEL_group_slots, KERNEL_combine),
    OP_WITH_SCRATCH(NORM_LINEAR, norm_linear, KERNEL_rmsnorm, KERNEL_linear, KERNEL_order,
                    KERNEL_many),
    OP_WITH_SCRATCH(MLA_QKV, mla_qkv, KERNEL_mla_kv, KERNEL_head_columns, KERNEL_rope, KERNEL_order,
                    KERNEL_many),
    OP_WITH_SCRATCH(NORM_ROUTER, norm_router, KERNEL_rmsnorm, KERNEL_linear, KERNEL_order,
                    KERNEL_many, KERNEL_router),
    OP_WITH_SCRATCH(MOE_GATE_UP, moe_gate_up, KERNEL_experts_linear, KERNEL_order, KERNEL_many,
                    KERNEL_group_slots, KERNEL_linear),
    OP_WITH_SCRATCH(MOE_DOWN_COMBINE, moe_down_combine, KERNEL_experts_down_combine, KERNEL_order,
                    KERNEL_many, KERNEL_group_slots, KERNEL_combine, KERNEL_linear),
#undef OP
#undef OP_WITH_SCRATCH
};

#define TABLE_SIZE (sizeof(table) / sizeof(table[0]))

/* The format of an op's weights, 0 if it has none. */
static mh_format format_of(const mh_op *op)
{
    mh_format format = 0;
    switch (op->op) {
#define MH_OUT(op, field, types, shape)
#define MH_INOUT(op, field, types, shape)
#define MH_IN(op, field, types, shape)
#define MH_OPT_OUT(op, field, types, shape)
#define MH_OPT_IN(op, field, types, shape)
#define MH_WEIGHT(op, field, shape) format = mh_view_weight(o->field)->format;
#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    case value: {                                                                                  \
        const mh_op_##name *o = (const void *)op;                                                  \
        (void)o;                                                                                   \
        operands break;                                                                            \
    }
#define MH_OPT_WEIGHT(op, field, shape)
#include <moehal/ops.def>
#undef MH_OPT_WEIGHT
#undef MH_OP
#undef MH_OUT
#undef MH_INOUT
#undef MH_IN
#undef MH_OPT_OUT
#undef MH_OPT_IN
#undef MH_WEIGHT
    default:
        break;
    }
    return format;
}

/* "" or the limit of a kernel that the op's shape is beyond. */
static void check_limits(const mh_op *op, char reason[192])
{
    int64_t latent = 0, experts = 0;
    reason[0] = 0;
    if (op->op == MH_OP_ATTENTION)
        latent = ((const mh_op_attention *)op)->y.shape[2];
    else if (op->op == MH_OP_ATTENTION_PART)
        latent = ((const mh_op_attention_part *)op)->y.shape[3] - 2;
    else if (op->op == MH_OP_ROUTER)
        experts = ((const mh_op_router *)op)->logits.shape[1];
    else if (op->op == MH_OP_ROUTER_LINEAR)
        experts = mh_view_weight(((const mh_op_router_linear *)op)->w)->out;
    else if (op->op == MH_OP_NORM_ROUTER)
        experts = mh_view_weight(((const mh_op_norm_router *)op)->w)->out;
    if (latent > MOST_LATENT)
        snprintf(reason, 192, "L is %lld, the kernel's local memory holds %d", (long long)latent,
                 MOST_LATENT);
    if (experts > MOST_EXPERTS)
        snprintf(reason, 192, "E is %lld, the kernel's local memory holds %d", (long long)experts,
                 MOST_EXPERTS);
}

mh_status opencl_supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    struct device *device = user;
    *missing = MH_MISSING_KERNEL;
    if (op->op == MH_OP_KERNEL) {
        reason[0] = 0;
        opencl_supports_kernel(device, (const mh_op_kernel *)op, reason);
        *missing = reason[0] ? MH_MISSING_LIMIT : MH_MISSING_NOTHING;
        return MH_OK;
    }
    if (op->op >= TABLE_SIZE || !table[op->op].encode) {
        snprintf(reason, 192, "opencl has no kernel for it");
        return MH_OK;
    }
    /* The fast profile has the same kernels; its bounds hold where exact cannot be kept. */
    bool computes = op->op != MH_OP_COPY && op->op != MH_OP_FILL, fast = op->flags & MH_OP_FAST;
    if (device->unfit[0] && computes && !fast) {
        snprintf(reason, 192, "%s", device->unfit);
        return MH_OK;
    }
    check_limits(op, reason);
    if (reason[0]) {
        *missing = MH_MISSING_LIMIT;
        return MH_OK;
    }
    for (int i = 0; table[op->op].kernels[i]; i++) {
        opencl_prepare(device, table[op->op].kernels[i], format_of(op), fast, reason);
        if (reason[0])
            return MH_OK;
    }
    *missing = MH_MISSING_NOTHING;
    return MH_OK;
}

mh_status opencl_run(const struct run *run, const mh_op *op)
{
    return table[op->op].encode(run, op);
}

mh_status opencl_encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct stream *stream = user;
    stream->dirty = true;
    const struct run run = {stream->device, stream->queue, NULL, scratch};
    return op->op == MH_OP_KERNEL ? opencl_encode_kernel(stream, (const mh_op_kernel *)op)
                                  : opencl_run(&run, op);
}

uint64_t opencl_scratch(void *device, const mh_op *op)
{
    return op->op < TABLE_SIZE && table[op->op].scratch ? table[op->op].scratch(device, op) : 0;
}
