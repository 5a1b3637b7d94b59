/* experts.h: arguments of experts.hip. */
#ifndef AMD_EXPERTS_H
#define AMD_EXPERTS_H

#include "arguments.h"

/* Where experts are. */
struct choice {
    struct view experts;
    const int *map; /* may be NULL */
    u32 *fault;
    i64 count, resident; /* logical experts, and those of the bank */
};

struct experts_arguments {
    struct view y, x; /* x.mid 0: one a token, not one a slot */
    struct choice choice;
    struct weight w, up; /* up.data NULL: no second matrix */
    i64 tokens, slots, rows, columns;
    struct view shared_y; /* of the shared experts: same x, same columns; absent: none */
    struct weight shared_w, shared_up;
    i64 shared_rows;
    u32 flags, reserved;
};

struct down_combine_arguments {
    struct view y, h, x, weights;
    struct view shared, shared_x; /* one of them, or none */
    struct choice choice;
    struct weight w, shared_w;
    i64 slots, rows, columns, shared_columns;
    u32 waves, flags, shared_flags, reserved;
};

struct combine_arguments {
    struct view y, h, e, weights, shared;
    struct choice choice; /* experts.at NULL: not looked at */
    i64 slots, columns;
};

#endif
