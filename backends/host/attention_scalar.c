/*
 * attention_scalar.c: absorbed latent attention, the definition of numerics rule 3: segments of 256
 * keys, chunks of 64, both aligned to position 0, merged from left to right. Whole, or some of the
 * segments, and their merges.
 */
#include "cache.h"
#include "kernels.h"
#include "part.h"

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

static void attend(const struct head *h, int64_t keys, float *y, float *scratch)
{
    struct part all = {.o = scratch}, segment = {.o = scratch + h->latent};
    for (int64_t begin = 0; begin < keys; begin += SEGMENT) {
        attend_segment(h, begin, keys, begin ? &segment : &all);
        if (begin)
            part_merge(&all, &segment, h->latent);
    }
    part_finish(&all, y, h->latent);
}

struct job {
    const struct host_run *run;
    const mh_op_attention *op;
    const mh_op_attention_part *part; /* or NULL */
};

/* Row i of [T * heads]. */
static struct head head_at(const mh_op_attention *o, int64_t i, float *decoded)
{
    int64_t heads = o->y.shape[1], t = i / heads;
    return (struct head){.place = {&o->cache, &o->page_table, index_at(&o->slots, t)},
                         .q = row2(&o->q, t, i % heads),
                         .scale = o->scale,
                         .latent = o->y.shape[2],
                         .width = o->q.shape[2],
                         .decoded = decoded};
}

static void attend_heads(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const mh_op_attention *o = job->op;
    float *scratch = (float *)(void *)thread_scratch(job->run, thread);
    int64_t heads = o->y.shape[1];
    for (int64_t i = begin; i < end; i++) {
        int32_t position = index_at(&o->positions, i / heads);
        struct head head = head_at(o, i, scratch + 2 * o->y.shape[2]);
        int found = cache_check(&head.place, 0, position);
        if (!found)
            raise_fault(&o->fault);
        if (found == 1)
            attend(&head, (int64_t)position + 1, row2(&o->y, i / heads, i % heads), scratch);
    }
}

void K(attention)(const struct host_run *run, const mh_op *op)
{
    struct job job = {run, (const void *)op, NULL};
    const mh_op_attention *o = job.op;
    spread(run, o->y.shape[0] * o->y.shape[1], 64 * o->q.shape[2], attend_heads, &job);
}

/* ---- in parts ---- */

static void attend_parts(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct job *job = context;
    const mh_op_attention_part *o = job->part;
    int64_t heads = o->y.shape[1];
    for (int64_t i = begin; i < end; i++) {
        int32_t position = index_at(&o->positions, i / heads);
        struct head head = head_at(job->op, i, (float *)(void *)thread_scratch(job->run, thread));
        for (int64_t j = 0; j < o->y.shape[2]; j++) {
            int64_t first = (o->first + j * o->stride) * SEGMENT;
            int found = cache_check_segment(&head.place, first, position);
            if (!found)
                raise_fault(&o->fault);
            if (found != 1 || first > position)
                continue;
            struct part part = {.o = row3(&o->y, i / heads, i % heads, j)};
            attend_segment(&head, first, (int64_t)position + 1, &part);
            part_write_sums(&part, part.o + head.latent);
        }
    }
}

void K(attention_part)(const struct host_run *run, const mh_op *op)
{
    const mh_op_attention_part *o = (const void *)op;
    mh_op_attention whole = part_whole_op(o);
    struct job job = {run, &whole, o};
    spread(run, o->y.shape[0] * o->y.shape[1], 64 * o->q.shape[2], attend_parts, &job);
}
