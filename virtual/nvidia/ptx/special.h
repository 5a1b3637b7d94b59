/* Special registers. Those below VN_SPECIAL_VECTORS are 32 u32 a warp, kept ready; the others are
 * read by an instruction of their own (op special, mode = the number). */
#ifndef VIRTUAL_NVIDIA_PTX_SPECIAL_H
#define VIRTUAL_NVIDIA_PTX_SPECIAL_H

#include <stdbool.h>
#include <stdint.h>

enum vn_special {
    VN_TID_X,
    VN_TID_Y,
    VN_TID_Z,
    VN_LANEID,
    VN_LANEMASK_EQ,
    VN_LANEMASK_LE,
    VN_LANEMASK_LT,
    VN_LANEMASK_GE,
    VN_LANEMASK_GT,
    VN_WARPID,
    VN_PER_WARP, /* those above differ between warps of a block; below, between blocks */
    VN_CTAID_X = VN_PER_WARP,
    VN_CTAID_Y,
    VN_CTAID_Z,
    VN_SMID,
    VN_PER_BLOCK, /* and the rest is the same for the whole launch */
    VN_NTID_X = VN_PER_BLOCK,
    VN_NTID_Y,
    VN_NTID_Z,
    VN_NCTAID_X,
    VN_NCTAID_Y,
    VN_NCTAID_Z,
    VN_NWARPID,
    VN_NSMID,
    VN_DYNAMIC_SMEM_SIZE,
    VN_TOTAL_SMEM_SIZE,
    VN_DYNAMIC_SHARED, /* where extern shared arrays begin */
    VN_ENVREG1,
    VN_ENVREG2, /* the address of a cooperative grid's workspace, upper half first */
    VN_ZERO,
    VN_ONE,
    VN_SPECIAL_VECTORS,
    VN_CLOCK = VN_SPECIAL_VECTORS,
    VN_CLOCK_HI,
    VN_GLOBALTIMER_LO,
    VN_GLOBALTIMER_HI,
    VN_SPECIAL_WIDE, /* 64 bits from here on */
    VN_CLOCK64 = VN_SPECIAL_WIDE,
    VN_GLOBALTIMER,
    VN_GRIDID,
    VN_CURRENT_GRAPH_EXEC,
    VN_SPECIAL_COUNT
};

/* component: 0..2 for .x, .y, .z, or -1. */
bool ptx_special_named(const char *name, uint32_t length, int component, uint32_t *special);

#endif
