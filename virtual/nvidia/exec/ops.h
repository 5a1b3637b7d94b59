/* The instructions the machine executes: one op a handler. */
#ifndef VIRTUAL_NVIDIA_EXEC_OPS_H
#define VIRTUAL_NVIDIA_EXEC_OPS_H

#include <stdint.h>

enum vn_op {
#define OP(name, cls) VN_OP_##name,
#define E1(name, cls, D, A, expr) OP(name, cls)
#define E2(name, cls, D, A, B, expr) OP(name, cls)
#define E3(name, cls, D, A, B, C, expr) OP(name, cls)
#define CMP(name, A, expr) OP(name, INTEGER)
#include "element.def"
#include "ops.def"
#define R1(name, cls, R, D, A, expr) OP(name, cls)
#define R2(name, cls, R, T, expr) OP(name, cls)
#define R3(name, cls, R, T, expr) OP(name, cls)
#include "rounded.def"
#undef R1
#undef R2
#undef R3
#undef OP
    VN_OP_COUNT
};

struct vn_op_info {
    const char *name;
    uint8_t cls;   /* enum vn_class */
    uint8_t flops; /* a lane */
};

extern const struct vn_op_info vn_ops[VN_OP_COUNT];

#endif
