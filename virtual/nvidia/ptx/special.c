#include "special.h"

#include <string.h>

static const struct {
    const char *name;
    int8_t components; /* 0: none; 3: .x .y .z (and .w, which is 0) */
    uint8_t first;
} specials[] = {
    {"%tid", 3, VN_TID_X},
    {"%ntid", 3, VN_NTID_X},
    {"%ctaid", 3, VN_CTAID_X},
    {"%nctaid", 3, VN_NCTAID_X},
    {"%clusterid", 3, VN_CTAID_X}, /* clusters of one block */
    {"%nclusterid", 3, VN_NCTAID_X},
    {"%laneid", 0, VN_LANEID},
    {"%warpid", 0, VN_WARPID},
    {"%nwarpid", 0, VN_NWARPID},
    {"%smid", 0, VN_SMID},
    {"%nsmid", 0, VN_NSMID},
    {"%gridid", 0, VN_GRIDID},
    {"%lanemask_eq", 0, VN_LANEMASK_EQ},
    {"%lanemask_le", 0, VN_LANEMASK_LE},
    {"%lanemask_lt", 0, VN_LANEMASK_LT},
    {"%lanemask_ge", 0, VN_LANEMASK_GE},
    {"%lanemask_gt", 0, VN_LANEMASK_GT},
    {"%envreg1", 0, VN_ENVREG1},
    {"%envreg2", 0, VN_ENVREG2},
    {"%clock", 0, VN_CLOCK},
    {"%clock_hi", 0, VN_CLOCK_HI},
    {"%clock64", 0, VN_CLOCK64},
    {"%globaltimer", 0, VN_GLOBALTIMER},
    {"%globaltimer_lo", 0, VN_GLOBALTIMER_LO},
    {"%globaltimer_hi", 0, VN_GLOBALTIMER_HI},
    {"%dynamic_smem_size", 0, VN_DYNAMIC_SMEM_SIZE},
    {"%total_smem_size", 0, VN_TOTAL_SMEM_SIZE},
    {"%aggr_smem_size", 0, VN_TOTAL_SMEM_SIZE},
    {"%cluster_ctarank", 0, VN_ZERO},
    {"%cluster_nctarank", 0, VN_ONE},
    {"%reserved_smem_offset_begin", 0, VN_ZERO},
    {"%reserved_smem_offset_end", 0, VN_ZERO},
    {"%reserved_smem_offset_cap", 0, VN_ZERO},
    {"%current_graph_exec", 0, VN_CURRENT_GRAPH_EXEC},
};

bool ptx_special_named(const char *name, uint32_t length, int component, uint32_t *special)
{
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        if (strlen(specials[i].name) != length || memcmp(specials[i].name, name, length))
            continue;
        if ((specials[i].components == 0) != (component < 0))
            return false;
        *special = component == 3 ? VN_ZERO
                                  : specials[i].first + (uint32_t)(component < 0 ? 0 : component);
        return true;
    }
    if (length == 14 && !memcmp(name, "%cluster_ctaid", 14) && component >= 0) {
        *special = VN_ZERO;
        return true;
    }
    if (length == 15 && !memcmp(name, "%cluster_nctaid", 15) && component >= 0) {
        *special = VN_ONE;
        return true;
    }
    /* %pm0..7 and their 64 bits, which a profiler sets up: zero here. */
    if ((length == 4 || (length == 7 && !memcmp(name + 4, "_64", 3))) && !memcmp(name, "%pm", 3) &&
        name[3] >= '0' && name[3] <= '7') {
        *special = length == 4 ? VN_ZERO : VN_CURRENT_GRAPH_EXEC;
        return true;
    }
    /* %envreg0..31: the driver's own, zero here. %reserved_smem_offset_0, _1 likewise. */
    bool digits = length > 7 && length <= 9 && !memcmp(name, "%envreg", 7);
    for (uint32_t i = 7; digits && i < length; i++)
        digits = name[i] >= '0' && name[i] <= '9';
    if (digits || (length == 23 && !memcmp(name, "%reserved_smem_offset_", 22))) {
        *special = VN_ZERO;
        return true;
    }
    return false;
}
