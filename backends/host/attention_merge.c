/* attention_merge.c: rule 3's merges of segments that lie in memory, from left to right. */
#include "kernels.h"
#include "part.h"

struct job {
    const mh_op_attention_merge *op;
};

/* Segment g of row t and head h: [o | m | l]. */
static float *segment_at(const mh_op_attention_merge *o, int64_t t, int64_t h, int64_t g)
{
    return row3(&o->x, g % o->parts * o->y.shape[0] + t, h, g / o->parts);
}

static void merge_row(const mh_op_attention_merge *o, int64_t t, int64_t h, int64_t segments)
{
    int64_t latent = o->y.shape[2];
    float *y = row2(&o->y, t, h), *x = segment_at(o, t, h, 0);
    struct part all = {x[latent], x[latent + 1], y};
    memcpy(y, x, (size_t)latent * sizeof(*y));
    for (int64_t g = 1; g < segments; g++) {
        x = segment_at(o, t, h, g);
        part_merge(&all, &(struct part){x[latent], x[latent + 1], x}, latent);
    }
    part_finish(&all, y, latent);
}

static void merge_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_attention_merge *o = ((const struct job *)context)->op;
    int64_t heads = o->y.shape[1];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int32_t position = index_at(&o->positions, i / heads);
        if (position < 0 || position / SEGMENT >= o->parts * o->x.shape[2])
            raise_fault(&o->fault);
        else
            merge_row(o, i / heads, i % heads, position / SEGMENT + 1);
    }
}

void K(attention_merge)(const struct host_run *run, const mh_op *op)
{
    struct job job = {(const void *)op};
    const mh_op_attention_merge *o = job.op;
    int64_t segments = o->parts * o->x.shape[2];
    spread(run, o->y.shape[0] * o->y.shape[1], segments * o->y.shape[2], merge_rows, &job);
}
