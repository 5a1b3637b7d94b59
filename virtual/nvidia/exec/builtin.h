/* Functions of the device runtime: vprintf, __assertfail, malloc, free. */
#ifndef VIRTUAL_NVIDIA_EXEC_BUILTIN_H
#define VIRTUAL_NVIDIA_EXEC_BUILTIN_H

#include "exec.h"

void vn_builtin(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask, uint32_t builtin);

#endif
