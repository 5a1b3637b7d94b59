/* rows.h: arguments of rows.hip. */
#ifndef AMD_ROWS_H
#define AMD_ROWS_H

#include "arguments.h"

struct rmsnorm_arguments {
    struct view y, x, residual, sum;
    const float *w;
    i64 columns;
    float inverse, eps; /* inverse: 1 / columns, rounded */
};

struct pointwise_arguments {
    struct view y, a, b;
    i64 rows, columns;
    u32 swiglu, reserved; /* else a sum */
};

struct embed_arguments {
    struct view y, tokens;
    struct weight table;
    u32 *fault;
    i64 vocabulary, columns;
};

#endif
