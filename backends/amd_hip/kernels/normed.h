/* normed.h: what norm.hiph needs. */
#ifndef AMD_NORMED_H
#define AMD_NORMED_H

#include "arguments.h"

struct normed {
    struct view x;
    const float *norm;
    i64 tokens, columns, waves; /* waves of a workgroup */
    float inverse, eps;         /* inverse: 1 / columns, rounded */
};

#define NORMED_BYTES(columns, tokens) (((columns) + 63) / 64 * 256 * (tokens))

#endif
