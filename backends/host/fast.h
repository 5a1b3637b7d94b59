/*
 * fast.h: products by the processor's bf16 units, for ops with MH_OP_FAST. Activations are rounded
 * to bf16, and weights that are not bf16 already; sums are f32. Denormals are flushed.
 *
 * A panel holds 48 outputs: for each 32 terms three tiles of 16 outputs, a tile being 16 rows of a
 * pair of terms of every output. What AMX's second operand wants, VDPBF16PS can read as well.
 */
#ifndef HOST_FAST_H
#define HOST_FAST_H

#include "panel.h"

#define FAST_TERMS 32 /* of a tile */
#define FAST_BLOCK 16 /* rows of activations at a time */

/* bf16 values of a converted row, and bytes of a panel. */
static inline int64_t fast_pitch(int64_t in)
{
    return (in + FAST_TERMS - 1) / FAST_TERMS * FAST_TERMS;
}

static inline uint64_t fast_panel_bytes(int64_t in)
{
    return (uint64_t)fast_pitch(in) * STRETCH * 2;
}

struct host_fast {
    const char *name;
    int64_t least; /* rows from which it beats the exact kernels */
    /* Around a thread's calls of `rows`. */
    void (*enter)(void);
    void (*leave)(void);
    void (*convert)(uint16_t *to, const float *x, int64_t in);
    void (*pack)(const struct matrix *m, int64_t begin, int64_t count, char *panel);
    /* Up to FAST_BLOCK rows, one after another in memory; FAST_BLOCK can be read. Meanwhile `next`
     * is fetched. */
    void (*rows)(const char *panel, int64_t in, const uint16_t *x, int64_t rows, struct ahead next,
                 float (*out)[STRETCH]);
};

extern const struct host_fast host_fast_amx, host_fast_bf16;

#endif
