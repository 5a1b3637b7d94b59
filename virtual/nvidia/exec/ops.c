#include "ops.h"

#include "../machine.h"

#define OP(name, cls) {#name, VN_CLASS_##cls, 0},
#define E1(name, cls, D, A, expr) OP(name, cls)
#define E2(name, cls, D, A, B, expr) OP(name, cls)
#define E3(name, cls, D, A, B, C, expr) OP(name, cls)
#define CMP(name, A, expr) OP(name, INTEGER)
const struct vn_op_info vn_ops[VN_OP_COUNT] = {
#include "element.def"
#include "ops.def"
#define R1(name, cls, R, D, A, expr) OP(name, cls)
#define R2(name, cls, R, T, expr) OP(name, cls)
#define R3(name, cls, R, T, expr) OP(name, cls)
#include "rounded.def"
#undef R1
#undef R2
#undef R3
};
#undef OP

const char *vn_class_name(enum vn_class c)
{
    static const char *const names[] = {
#define C(id, name) [VN_CLASS_##id] = name,
#include "../classes.def"
#undef C
    };
    return (unsigned)c < VN_CLASS_COUNT ? names[c] : "?";
}
