/* attention_mma.h: arguments of attention_mma.hip. */
#ifndef AMD_ATTENTION_MMA_H
#define AMD_ATTENTION_MMA_H

#include "mla.h"

/* The shape that every DeepSeek model has, and a wave's share of it. */
enum { MMA_LATENT = 512, MMA_WIDTH = 576, MMA_ROWS = 16, MMA_WAVES = 4 };

struct attention_mma_arguments {
    struct cache cache; /* bf16 */
    struct view y, q;
    float *parts;  /* scratch: MMA_PART_FLOATS a part and wave */
    u32 *counters; /* one a workgroup of waves */
    i64 tokens, heads;
    u32 part_count, part_keys; /* 1: a workgroup takes all keys */
    float scale;               /* times log2 e */
    u32 reserved;
};

/* 512 columns of 16 rows; then maxima and sums. */
#define MMA_PART_FLOATS (MMA_LATENT * MMA_ROWS + 2 * 64)

#endif
