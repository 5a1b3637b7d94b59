/*
 * attention_scalar.c: absorbed latent attention, the definition of numerics rule 3: segments of 256
 * keys, chunks of 64, both aligned to position 0, merged from left to right. Whole, or some of the
 * segments, and their merges.
 */
#include "cache.h"
#include "kernels.h"
#include "numerics.h"

#define CHUNK 64
#define SEGMENT 256

/* Softmax so far over some keys: maximum, sum, and the weighted latent sum. */
struct part {
    float m, l;
    float *o; /* [latent] */
};

struct head {
    struct cache_place place;
    const float *q;
    float scale;
    int64_t latent, width; /* width = latent + rope */
    float *decoded;        /* [CHUNK, width], of bf16 caches */
};

/* Rows of the keys [begin, begin + count) as f32. */
static void load_keys(const struct head *h, int64_t begin, int64_t count, const float *rows[CHUNK])
{
    for (int64_t i = 0; i < count; i++) {
        const void *row = cache_row_unchecked(&h->place, begin + i);
        if (h->place.cache->dtype == MH_F32) {
            rows[i] = row;
            continue;
        }
        float *decoded = h->decoded + i * h->width;
        for (int64_t k = 0; k < h->width; k++)
            decoded[k] = from_bf16(((const uint16_t *)row)[k]);
        rows[i] = decoded;
    }
}

static void attend_chunk(const struct head *h, int64_t begin, int64_t count, bool first,
                         struct part *part)
{
    const float *rows[CHUNK];
    float scores[CHUNK] = {0}, p[CHUNK] = {0}, folded[CHUNK];
    load_keys(h, begin, count, rows);
    for (int64_t i = 0; i < count; i++)
        scores[i] = dot(h->q, rows[i], h->width) * h->scale;
    float m = scores[0];
    for (int64_t i = 1; i < count; i++)
        m = scores[i] > m ? scores[i] : m;
    if (!first)
        m = part->m > m ? part->m : m;
    for (int64_t i = 0; i < count; i++)
        p[i] = exp_exact(scores[i] - m);
    memcpy(folded, p, sizeof(folded));
    float sum = fold(folded);
    if (first) {
        memset(part->o, 0, (size_t)h->latent * sizeof(float));
        part->l = sum;
    } else {
        float alpha = exp_exact(part->m - m);
        part->l = fmaf(part->l, alpha, sum);
        for (int64_t d = 0; d < h->latent; d++)
            part->o[d] = part->o[d] * alpha;
    }
    part->m = m;
    for (int64_t i = 0; i < count; i++)
        for (int64_t d = 0; d < h->latent; d++)
            part->o[d] = fmaf(p[i], rows[i][d], part->o[d]);
}

/* The segment that begins there, of keys 0 to keys - 1. */
static void attend_segment(const struct head *h, int64_t begin, int64_t keys, struct part *into)
{
    int64_t end = keys < begin + SEGMENT ? keys : begin + SEGMENT;
    for (int64_t c = begin; c < end; c += CHUNK)
        attend_chunk(h, c, end - c < CHUNK ? end - c : CHUNK, c == begin, into);
}

static void merge(struct part *left, const struct part *right, int64_t latent)
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

static void finish(const struct part *all, float *y, int64_t latent)
{
    float r = rcp(all->l);
    for (int64_t d = 0; d < latent; d++) {
        float scaled = all->o[d] * r;
        y[d] = scaled + 0.0f;
    }
}

static void attend(const struct head *h, int64_t keys, float *y, float *scratch)
{
    struct part all = {.o = scratch}, segment = {.o = scratch + h->latent};
    for (int64_t begin = 0; begin < keys; begin += SEGMENT) {
        attend_segment(h, begin, keys, begin ? &segment : &all);
        if (begin)
            merge(&all, &segment, h->latent);
    }
    finish(&all, y, h->latent);
}

struct job {
    const struct host_run *run;
    const mh_op_attention *op;
};

static void attend_heads(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const mh_op_attention *o = job->op;
    float *scratch = (float *)(void *)thread_scratch(job->run, thread);
    int64_t heads = o->y.shape[1], latent = o->y.shape[2];
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / heads;
        int32_t position = index_at(&o->positions, t);
        struct head head = {.place = {&o->cache, &o->page_table, index_at(&o->slots, t)},
                            .q = row2(&o->q, t, i % heads),
                            .scale = o->scale,
                            .latent = latent,
                            .width = o->q.shape[2],
                            .decoded = scratch + 2 * latent};
        int found = cache_check(&head.place, 0, position);
        if (!found)
            raise_fault(&o->fault);
        if (found == 1)
            attend(&head, (int64_t)position + 1, row2(&o->y, t, i % heads), scratch);
    }
}

void K(attention)(const struct host_run *run, const mh_op *op)
{
    struct job job = {run, (const void *)op};
    const mh_op_attention *o = job.op;
    spread(run, o->y.shape[0] * o->y.shape[1], 64 * o->q.shape[2], attend_heads, &job);
}

/* ---- in parts ---- */

struct part_job {
    const struct host_run *run;
    const mh_op_attention_part *op;
};

static void attend_parts(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct part_job *job = context;
    const mh_op_attention_part *o = job->op;
    int64_t heads = o->y.shape[1], latent = o->y.shape[3] - 2;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / heads;
        int32_t position = index_at(&o->positions, t);
        struct head head = {.place = {&o->cache, &o->page_table, index_at(&o->slots, t)},
                            .q = row2(&o->q, t, i % heads),
                            .scale = o->scale,
                            .latent = latent,
                            .width = o->q.shape[2],
                            .decoded = (float *)(void *)thread_scratch(job->run, thread)};
        for (int64_t j = 0; j < o->y.shape[2]; j++) {
            int64_t first = (o->first + j * o->stride) * SEGMENT;
            int found = cache_check_segment(&head.place, first, position);
            if (!found)
                raise_fault(&o->fault);
            if (found != 1 || first > position)
                continue;
            float *y = row3(&o->y, t, i % heads, j);
            struct part part = {.o = y};
            attend_segment(&head, first, (int64_t)position + 1, &part);
            y[latent] = part_maximum(part.m, part.l), y[latent + 1] = part.l;
        }
    }
}

void K(attention_part)(const struct host_run *run, const mh_op *op)
{
    struct part_job job = {run, (const void *)op};
    const mh_op_attention_part *o = job.op;
    spread(run, o->y.shape[0] * o->y.shape[1], 64 * o->q.shape[2], attend_parts, &job);
}
