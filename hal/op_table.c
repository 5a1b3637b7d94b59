/* op_table.c: ops.def as data. */
#include <moehal/op.h>

#include "hal.h"

/* hal_dim as a constant; of a place behind the text, anything. */
#define DIM(shape, i)                                                                              \
    ((i) + 1 >= sizeof(shape)              ? 0                                                     \
     : (shape)[(i) % sizeof(shape)] <= '9' ? HAL_LETTERS + (shape)[(i) % sizeof(shape)] - '0'      \
                                           : (shape)[(i) % sizeof(shape)] - 'A')
#define OPERAND(op, field, kind, access, optional, dtypes, shape)                                  \
    {kind,                                                                                         \
     access,                                                                                       \
     optional,                                                                                     \
     dtypes,                                                                                       \
     (shape)[0] == '*' ? HAL_ANY_RANK : sizeof(shape) - 1,                                         \
     offsetof(mh_op_##op, field),                                                                  \
     {DIM(shape, 0), DIM(shape, 1), DIM(shape, 2), DIM(shape, 3)},                                 \
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

#undef MH_OUT
#undef MH_OPT_OUT
#undef MH_IN
#undef MH_OPT_IN
#undef MH_INOUT
#undef MH_OPT_WEIGHT
#undef MH_WEIGHT
#define MH_OUT(op, field, dtypes, shape)
#define MH_OPT_OUT(op, field, dtypes, shape)
#define MH_IN(op, field, dtypes, shape)
#define MH_OPT_IN(op, field, dtypes, shape)
#define MH_INOUT(op, field, dtypes, shape)
#define MH_OPT_WEIGHT(op, field, shape) offsetof(mh_op_##op, field),
#define MH_WEIGHT(op, field, shape) offsetof(mh_op_##op, field),
#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    static const uint16_t name##_weights[] = {operands 0};
#include <moehal/ops.def>
#undef MH_OP

const struct hal_op_info hal_op_infos[HAL_OP_LIMIT] = {
#define MH_OP(value, NAME, name, kind, doc, operands)                                              \
    [value] = {#name, sizeof(mh_op_##name), name##_operands,                                       \
               sizeof(name##_operands) / sizeof(name##_operands[0]), name##_weights},
#include <moehal/ops.def>
#undef MH_OP
};

const char *mh_op_name(mh_op_id op)
{
    const struct hal_op_info *info = hal_op_find(op);
    return info                   ? info->name
           : op == MH_OP_KERNEL   ? "kernel"
           : op == MH_OP_EXCHANGE ? "exchange"
                                  : "?";
}

uint64_t mh_op_size(mh_op_id op)
{
    const struct hal_op_info *info = hal_op_find(op);
    return info                   ? info->size
           : op == MH_OP_KERNEL   ? sizeof(mh_op_kernel)
           : op == MH_OP_EXCHANGE ? sizeof(mh_op_exchange)
                                  : 0;
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
