/* op_table.c: ops.def as data. */
#include <moehal/op.h>

#include "hal.h"

#define D(name) (1u << MH_##name)
enum {
    ONLY_F32 = D(F32),
    ONLY_I32 = D(I32),
    ONLY_U32 = D(U32),
    F32_OR_BF16 = D(F32) | D(BF16),
    FLOATS = D(F32) | D(F16) | D(BF16),
    ANY = D(F32) | D(F16) | D(BF16) | D(I32) | D(U32),
};

#define OPERAND(op, field, kind, access, optional, dtypes, shape)                                  \
    {kind,                                                                                         \
     access,                                                                                       \
     optional,                                                                                     \
     dtypes,                                                                                       \
     (shape)[0] == '*' ? HAL_ANY_RANK : sizeof(shape) - 1,                                         \
     offsetof(mh_op_##op, field),                                                                  \
     #field,                                                                                       \
     shape},
#define MH_OUT(op, field, dtypes, shape)                                                           \
    OPERAND(op, field, HAL_TENSOR, HAL_OUT, false, dtypes, shape)
#define MH_OPT_OUT(op, field, dtypes, shape)                                                       \
    OPERAND(op, field, HAL_TENSOR, HAL_OUT, true, dtypes, shape)
#define MH_IN(op, field, dtypes, shape) OPERAND(op, field, HAL_TENSOR, HAL_IN, false, dtypes, shape)
#define MH_OPT_IN(op, field, dtypes, shape)                                                        \
    OPERAND(op, field, HAL_TENSOR, HAL_IN, true, dtypes, shape)
#define MH_INOUT(op, field, dtypes, shape)                                                         \
    OPERAND(op, field, HAL_TENSOR, HAL_IN | HAL_OUT, false, dtypes, shape)
#define MH_OPT_WEIGHT(op, field, shape) OPERAND(op, field, HAL_WEIGHT, HAL_IN, true, 0, shape)
#define MH_WEIGHT(op, field, shape) OPERAND(op, field, HAL_WEIGHT, HAL_IN, false, 0, shape)

#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    static const struct hal_operand name##_operands[] = {operands};
#include <moehal/ops.def>
#undef MH_OP

enum { PRIMITIVE = 0, FUSED = 1 };

static const struct hal_op_info infos[] = {
#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    [value] = {#name, sizeof(mh_op_##name), kind, name##_operands,                                 \
               sizeof(name##_operands) / sizeof(name##_operands[0])},
#include <moehal/ops.def>
#undef MH_OP
};

_Static_assert(sizeof(infos) / sizeof(infos[0]) == HAL_OP_LIMIT, "HAL_OP_LIMIT");

const struct hal_op_info *hal_op_find(mh_op_id op)
{
    return op < HAL_OP_LIMIT && infos[op].name ? &infos[op] : NULL;
}

const char *mh_op_name(mh_op_id op)
{
    const struct hal_op_info *info = hal_op_find(op);
    return info ? info->name : op == MH_OP_KERNEL ? "kernel" : "?";
}

uint64_t mh_op_size(mh_op_id op)
{
    const struct hal_op_info *info = hal_op_find(op);
    return info ? info->size : op == MH_OP_KERNEL ? sizeof(mh_op_kernel) : 0;
}

mh_status mh_op_operand(mh_op_id op, uint32_t index, mh_operand *out)
{
    const struct hal_op_info *info = hal_op_find(op);
    if (!info || index >= info->operand_count)
        return MH_NOT_FOUND;
    const struct hal_operand *from = &info->operands[index];
    mh_operand operand = {
        .struct_size = sizeof(operand),
        .name = from->name,
        .shape = from->shape,
        .offset = from->offset,
        .flags = (from->access & HAL_IN ? MH_OPERAND_READ : 0) |
                 (from->access & HAL_OUT ? MH_OPERAND_WRITTEN : 0) |
                 (from->optional ? MH_OPERAND_OPTIONAL : 0) |
                 (from->kind == HAL_WEIGHT ? MH_OPERAND_WEIGHT : 0),
        .dtypes = from->dtypes,
    };
    return mh_struct_out(out, &operand, sizeof(operand));
}
