/*
 * panel.h: a stretch of outputs of a matrix as f32, so laid out that lanes are outputs: by stripe,
 * in the order in which rule 2's fold wants them, then by term of the stripe. Inputs are laid out
 * in the same order. SIMD forms only.
 */
#ifndef HOST_PANEL_H
#define HOST_PANEL_H

#include "product.h"

/* Floats of a permuted input of `in` terms, and bytes of a panel. */
static inline int64_t permuted_floats(int64_t in)
{
    return (in + 63) / 64 * 64;
}

static inline uint64_t panel_bytes(int64_t in)
{
    return 64 * 4 * ((uint64_t)permuted_floats(in) / 64 * STRETCH + 64);
}

void K(permute)(float *to, const float *x, int64_t in);
void K(panel_pack)(const struct matrix *m, int64_t begin, int64_t count, float *panel);
/* out[i][r] = dot of input x[i], permuted, and output r of the panel; rows <= ROW_BLOCK. */
void K(panel_rows)(const float *panel, int64_t in, const float *const *x, int64_t rows,
                   float (*out)[STRETCH]);

#endif
