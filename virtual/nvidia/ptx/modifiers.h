#ifndef VIRTUAL_NVIDIA_PTX_MODIFIERS_H
#define VIRTUAL_NVIDIA_PTX_MODIFIERS_H

#include <stdint.h>

enum ptx_group {
    G_WIDTH,
    G_CMP,
    G_SIDE,
    G_WRAP,
    G_SHIFTAMT,
    G_ROUND,
    G_APPROX,
    G_FTZ,
    G_NOFTZ,
    G_SAT,
    G_SATFINITE,
    G_RELU,
    G_NANMODE,
    G_XORSIGN,
    G_ABS,
    G_OOB,
    G_CARRY,
    G_OP,
    G_SHFL,
    G_VOTE,
    G_PRMT,
    G_UNI,
    G_SYNC,
    G_BAROP,
    G_WARP,
    G_ALIGNED,
    G_SPACE,
    G_TO,
    G_SEM,
    G_MMIO,
    G_SCOPE,
    G_CACHE,
    G_NC,
    G_EVICT1,
    G_EVICT2,
    G_HINT,
    G_PREFETCH,
    G_VEC,
    G_LEVEL,
    G_ASYNC,
    G_GROUPOP,
    G_WMMA,
    G_MATRIX,
    G_SHAPE,
    G_LAYOUT,
    G_NUM,
    G_TRANS,
    G_GRIDDEP,
    G_POLICY,
    G_LAYOUT2,
    G_COUNT
};

#define GROUP(g) ((uint64_t)1 << G_##g)

struct ptx_modifier_info {
    const char *text;
    uint16_t group;
};

/* A modifier's id is its index + 1. */
extern const struct ptx_modifier_info ptx_modifiers[];
extern const uint16_t ptx_modifier_count;
uint16_t ptx_modifier_of(const char *text, uint32_t length); /* 0: none */
const char *ptx_modifier_text(uint16_t id);                  /* "" for 0 */

#endif
