/* table.c: the kernels of one form, by op id. */
#include "kernels.h"

const host_kernel JOIN(host_kernels, ISA)[] = {
#define MH_OP(value, NAME, name, kind, doc, operands) [value] = K(name),
#include <moehal/ops.def>
#undef MH_OP
};
