/*
 * panel.h: a stretch of outputs of a matrix as f32, so laid out that lanes are outputs: by stripe,
 * in the order in which rule 2's fold wants them, then by term of the stripe. Inputs are laid out
 * in the same order. SIMD forms only.
 */
#ifndef HOST_PANEL_H
#define HOST_PANEL_H

#include "decode.h"
#include "product.h"

/* Bytes of a panel. */
static inline uint64_t panel_bytes(int64_t in)
{
    return 64 * 4 * ((uint64_t)permuted_floats(in) / 64 * STRETCH + 64);
}

/* Bytes of the panels of 64 keys. */
static inline uint64_t key_panel_bytes(int64_t in)
{
    return 64 * 4 * ((uint64_t)permuted_floats(in) / 64 * 64 + 64);
}

/* One row times outputs that are columns, in place; `out` has STRETCH places. */
void K(dots_columns)(const struct matrix *m, int64_t begin, int64_t count, const float *x,
                     float *out);

/* simd/block.c, AVX-512: K(dots) for three rows and more. */
void K(block_rows)(const struct matrix *m, int64_t begin, int64_t count, const float *const *x,
                   int64_t rows, const struct next *next, float (*out)[LONGEST]);

/* Memory that is wanted next. */
struct ahead {
    const unsigned char *at;
    int64_t bytes;
};

/* Part `part` of `parts`, in whole lines. */
static inline struct ahead ahead_part(struct ahead all, int64_t part, int64_t parts)
{
    int64_t begin = all.bytes * part / parts + 63, end = all.bytes * (part + 1) / parts + 63;
    return (struct ahead){all.at + begin / 64 * 64, end / 64 * 64 - begin / 64 * 64};
}

/* Into the second cache. */
static inline void fetch(struct ahead all)
{
    for (int64_t at = 0; at < all.bytes; at += 64)
        __builtin_prefetch(all.at + at, 0, 2);
}

void K(permute)(float *to, const float *x, int64_t in);
void K(panel_pack)(const struct matrix *m, int64_t begin, int64_t count, float *panel);
/* out[i][r] = dot of input x[i], permuted, and output r of the panel's `count`; rows <= ROW_BLOCK.
 * Meanwhile `next` is fetched. */
void K(panel_rows)(const float *panel, int64_t in, int64_t count, const float *const *x,
                   int64_t rows, struct ahead next, float (*out)[STRETCH]);

/* simd/attention.c: a block's most tokens and heads, and the bytes it wants. */
#define ATTENTION_TOKENS 8

static inline int64_t attention_heads(int64_t heads)
{
    return heads < 16 ? heads : 16;
}

static inline uint64_t attention_bytes(int64_t rows, int64_t heads, int64_t latent, int64_t width)
{
    uint64_t most =
        (uint64_t)((rows < ATTENTION_TOKENS ? rows : ATTENTION_TOKENS) * attention_heads(heads));
    return key_panel_bytes(width) + 4 * 64 * (uint64_t)width +
           most * (4 * (uint64_t)permuted_floats(width) + 8 * (uint64_t)latent + 64) + 6 * 64;
}

/* Attention's keys: up to 64 rows of the cache, its dtype as a format, as
 * panels; and their scores: out[i][t] = dot of x[i], permuted, and key t; rows <= ROW_BLOCK. */
void K(panel_keys)(const struct weight_row *keys, int64_t count, int64_t in, float *panel);
void K(panel_scores)(const float *panel, int64_t in, const float *const *x, int64_t rows,
                     float (*out)[STRIPES]);

#endif
