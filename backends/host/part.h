/* part.h: a softmax over some of the keys, and how rule 3 merges two and ends the last. */
#ifndef HOST_PART_H
#define HOST_PART_H

#include "kernels.h"
#include "numerics.h"

#define CHUNK 64
#define SEGMENT 256

/* Softmax so far of a row over some keys: maximum, sum, and the weighted latent sum. */
struct part {
    float m, l;
    float *o; /* [latent] */
};

static inline void part_merge(struct part *left, const struct part *right, int64_t latent)
{
    float m = left->m > right->m ? left->m : right->m;
    float alpha = exp_exact(left->m - m), beta = exp_exact(right->m - m);
    float scaled = right->l * beta;
    left->l = fmaf(left->l, alpha, scaled);
    for (int64_t d = 0; d < latent; d++) {
        float other = right->o[d] * beta;
        left->o[d] = fmaf(left->o[d], alpha, other);
    }
    left->m = m;
}

/* y may be where the sum lies. */
static inline void part_finish(const struct part *all, float *y, int64_t latent)
{
    float r = rcp(all->l);
    for (int64_t d = 0; d < latent; d++) {
        float scaled = all->o[d] * r;
        y[d] = scaled + 0.0f;
    }
}

/* [m | l] as they are written: which NaN or zero was the largest is not told. */
static inline void part_write_sums(const struct part *part, float *to)
{
    to[0] = part->l != part->l ? part->l : part->m + 0.0f;
    to[1] = part->l;
}

/* The whole op over the same operands; of its output [T, heads, latent] are seen. */
static inline mh_op_attention part_whole_op(const mh_op_attention_part *o)
{
    mh_op_attention whole = {.y = o->y, .q = o->q, .cache = o->cache, .positions = o->positions};
    whole.slots = o->slots, whole.page_table = o->page_table, whole.scale = o->scale;
    whole.y.shape[2] = o->y.shape[3] - 2;
    return whole;
}

#endif
