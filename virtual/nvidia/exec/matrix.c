#include "memory.h"
VN_HANDLER(ldmatrix){(void)w,(void)insn,(void)mask;}
VN_HANDLER(stmatrix){(void)w,(void)insn,(void)mask;}
VN_HANDLER(movmatrix){(void)w,(void)insn,(void)mask;}
VN_HANDLER(mma){(void)w,(void)insn,(void)mask;}
VN_HANDLER(wmma_load){(void)w,(void)insn,(void)mask;}
VN_HANDLER(wmma_store){(void)w,(void)insn,(void)mask;}
VN_HANDLER(cp_async){(void)w,(void)insn,(void)mask;}
VN_HANDLER(cp_async_commit){(void)w,(void)insn,(void)mask;}
VN_HANDLER(cp_async_wait){(void)w,(void)insn,(void)mask;}
