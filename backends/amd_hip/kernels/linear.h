/* linear.h: arguments of linear.hip. */
#ifndef AMD_LINEAR_H
#define AMD_LINEAR_H

#include "normed.h"

struct linear_arguments {
    struct view y, x, residual; /* mid: from head to head */
    struct weight w, up;        /* up.data NULL: no second matrix */
    i64 tokens, rows, columns;
    i64 head_rows, first_row; /* head h owns the rows from h * head_rows + first_row on */
    u32 flags, reserved;      /* ALIGNED_... */
};

struct norm_linear_arguments {
    struct view y, y2;
    struct normed normed;
    struct weight w, w2; /* w2: may be absent, then rows2 is 0 */
    i64 rows, rows2;
    u32 flags, reserved;
};

#endif
