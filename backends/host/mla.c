/* mla.c: rope (rule 7), the cache's rows, and the fused forms around attention. */
#include "cache.h"
#include "kernels.h"
#include "numerics.h"
#include "product.h"

/* Rule 7 on one row of R values; y may be x. */
static void rotate(float *y, const float *x, const float *table, int64_t size)
{
    const float *cosines = table, *sines = table + size / 2;
    for (int64_t i = 0; i < size / 2; i++) {
        float x0 = x[2 * i], x1 = x[2 * i + 1], c = cosines[i], s = sines[i];
        float a = x1 * s, b = x1 * c;
        y[2 * i] = fmaf(x0, c, -a);
        y[2 * i + 1] = fmaf(x0, s, b);
    }
}

/* NULL, with a fault, if the position has no row in the table. */
static const float *angles(const mh_tensor *table, int32_t position, const mh_tensor *fault)
{
    if (position >= 0 && position < table->shape[0])
        return row1(table, position);
    raise_fault(fault);
    return NULL;
}

void K(rope)(const struct host_run *run, const mh_op *op)
{
    const mh_op_rope *o = (const void *)op;
    (void)run;
    for (int64_t t = 0; t < o->y.shape[0]; t++) {
        const float *table = angles(&o->table, index_at(&o->positions, t), &o->fault);
        for (int64_t h = 0; table && h < o->y.shape[1]; h++)
            rotate(row2(&o->y, t, h), row2(&o->x, t, h), table, o->y.shape[2]);
    }
}

static void store(void *row, mh_dtype dtype, int64_t at, const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (dtype == MH_BF16)
            ((uint16_t *)row)[at + i] = to_bf16(values[i]);
        else
            ((float *)row)[at + i] = values[i];
    }
}

void K(kv_write)(const struct host_run *run, const mh_op *op)
{
    const mh_op_kv_write *o = (const void *)op;
    (void)run;
    for (int64_t t = 0; t < o->latent.shape[0]; t++) {
        struct cache_place place = {&o->cache, &o->page_table, index_at(&o->slots, t)};
        void *row = cache_row(&place, index_at(&o->positions, t), &o->fault);
        if (!row)
            continue;
        store(row, o->cache.dtype, 0, row1(&o->latent, t), o->latent.shape[1]);
        store(row, o->cache.dtype, o->latent.shape[1], row1(&o->rope, t), o->rope.shape[1]);
    }
}

static void write_rows(const mh_op_mla_kv *o, float *scratch)
{
    int64_t latent = o->norm.shape[0], rotary = o->table.shape[1];
    for (int64_t t = 0; t < o->kv.shape[0]; t++) {
        int32_t position = index_at(&o->positions, t);
        const float *table = angles(&o->table, position, &o->fault);
        struct cache_place place = {&o->cache, &o->page_table, index_at(&o->slots, t)};
        void *row = table ? cache_row(&place, position, &o->fault) : NULL;
        if (!row)
            continue;
        const float *kv = row1(&o->kv, t);
        K(norm_row)(scratch, kv, row1(&o->norm, 0), latent, o->eps);
        rotate(scratch + latent, kv + latent, table, rotary);
        store(row, o->cache.dtype, 0, scratch, latent + rotary);
    }
}

void K(mla_kv)(const struct host_run *run, const mh_op *op)
{
    write_rows((const void *)op, (float *)(void *)thread_scratch(run, 0));
}

/* Head h of row t has id t * heads + h. */
static const float *query_input(const mh_op *op, int64_t id)
{
    const mh_op_mla_query *o = (const void *)op;
    return row2(&o->q, id / o->q.shape[1], id % o->q.shape[1]);
}

static void query_finish(const mh_op *op, int64_t id, int64_t at, int64_t count, const float *dots)
{
    const mh_op_mla_query *o = (const void *)op;
    int64_t t = id / o->q.shape[1], h = id % o->q.shape[1];
    memcpy(row2(&o->y, t, h) + at, dots, (size_t)count * 4);
    if (at)
        return;
    const float *table = angles(&o->table, index_at(&o->positions, t), &o->fault);
    int64_t rotary = o->table.shape[1], nope = o->q.shape[2] - rotary;
    if (table)
        rotate(row2(&o->y, t, h) + mh_view_weight(o->w)->in, query_input(op, id) + nope, table,
               rotary);
}

void K(mla_query)(const struct host_run *run, const mh_op *op)
{
    const mh_op_mla_query *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    struct product p = {op, {w}, {query_finish}, .input = query_input, .transposed = true};
    p.in = o->q.shape[2] - o->table.shape[1], p.out = w->in;
    p.group_count = o->q.shape[1], p.inputs = o->q.shape[0] * p.group_count;
    p.ids_per_input = 1, p.group_stride = o->head_rows;
    K(product)(run, &p, run->scratch);
}
