/* sample.h: arguments of sample.hip. */
#ifndef AMD_SAMPLE_H
#define AMD_SAMPLE_H

#include "arguments.h"

struct argmax_arguments {
    struct view y, logits;
    i64 count;
};

struct sample_arguments {
    struct view y, logits, params;
    struct view weights; /* scratch: a u32 a logit */
    i64 count;
};

#endif
