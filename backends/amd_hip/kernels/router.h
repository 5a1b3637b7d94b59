/* router.h: arguments of router.hip. */
#ifndef AMD_ROUTER_H
#define AMD_ROUTER_H

#include "normed.h"

struct route {
    struct view experts, weights;
    const float *bias; /* may be NULL */
    i64 count, slots;  /* experts, and those that are chosen */
    i64 groups, top_groups;
    u32 softmax, group_score; /* GROUPS_... */
    u32 normalise;
    float scaling;
};

enum { GROUPS_NONE = 0, GROUPS_TOP2 = 1, GROUPS_MAX = 2 };

struct router_arguments {
    struct route route;
    struct view logits;
};

struct norm_router_arguments {
    struct route route;
    struct normed normed;
    struct view y, logits; /* logits: scratch */
    struct weight w;
    u32 *counter;
    u32 flags, reserved; /* ALIGNED_... */
};

#define ROUTE_BYTES(count) (16 * (count)) /* LDS of a wave */

#endif
