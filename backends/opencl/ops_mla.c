/* ops_mla.c: ops of kernels/mla.cl and kernels/attention.cl. */
#include "ops.h"

#define SEGMENT 256                     /* keys, as in attention.cl */
#define MOST_APART (UINT64_C(64) << 20) /* bytes of segments that wait to be merged */

static void arg_cache(struct launch *l, const mh_tensor *cache, const mh_tensor *page_table)
{
    arg_tensor(l, cache);
    arg_int(l, cache->dtype == MH_BF16);
    arg_long(l, cache->shape[0]);
    arg_long(l, cache->shape[1]);
    arg_tensor(l, page_table);
    arg_long(l, page_table->shape[0]);
    arg_long(l, page_table->shape[1]);
}

ENCODE(rope)
{
    const mh_op_rope *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_rope, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->x);
    arg_tensor(&l, &o->table);
    arg_tensor(&l, &o->positions);
    arg_fault(&l, &o->fault);
    arg_long(&l, o->y.shape[1]);
    arg_long(&l, o->y.shape[2]);
    arg_long(&l, o->table.shape[0]);
    return launch_end(&l, o->y.shape[0], 1, 1);
}

ENCODE(kv_write)
{
    const mh_op_kv_write *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_kv_write, 0);
    arg_cache(&l, &o->cache, &o->page_table);
    arg_tensor(&l, &o->latent);
    arg_tensor(&l, &o->rope);
    arg_tensor(&l, &o->positions);
    arg_tensor(&l, &o->slots);
    arg_fault(&l, &o->fault);
    arg_long(&l, o->latent.shape[1]);
    arg_long(&l, o->rope.shape[1]);
    return launch_end(&l, o->latent.shape[0], 1, 1);
}

ENCODE(mla_kv)
{
    const mh_op_mla_kv *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_mla_kv, 0);
    arg_cache(&l, &o->cache, &o->page_table);
    arg_tensor(&l, &o->kv);
    arg_tensor(&l, &o->norm);
    arg_tensor(&l, &o->table);
    arg_tensor(&l, &o->positions);
    arg_tensor(&l, &o->slots);
    arg_fault(&l, &o->fault);
    arg_long(&l, o->norm.shape[0]);
    arg_long(&l, o->table.shape[1]);
    arg_long(&l, o->table.shape[0]);
    arg_float(&l, 1.0f / (float)o->norm.shape[0]);
    arg_float(&l, o->eps);
    return launch_end(&l, o->kv.shape[0], 1, 1);
}

/* `step` 0: all segments; else of `segments` of them, each for itself. */
static mh_status launch_attention(const struct run *run, const mh_op_attention *o, int64_t latent,
                                  int64_t segments, int64_t step, int64_t first, bool marks)
{
    struct launch l = launch_begin(run, KERNEL_attention, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->q);
    arg_cache(&l, &o->cache, &o->page_table);
    arg_tensor(&l, &o->positions);
    arg_tensor(&l, &o->slots);
    arg_fault(&l, &o->fault);
    arg_long(&l, o->q.shape[1]);
    arg_long(&l, latent);
    arg_long(&l, o->q.shape[2]);
    arg_float(&l, o->scale);
    arg_long(&l, step);
    arg_long(&l, first);
    arg_int(&l, marks);
    int64_t heads = run->device->form == FORM_CPU ? 4 : 1; /* as in attention.cl */
    return launch_end(&l, blocks(o->q.shape[1], heads), o->q.shape[0], segments);
}

static mh_status launch_merge(const struct run *run, const mh_op_attention_merge *o, bool marked)
{
    struct launch l = launch_begin(run, KERNEL_attention_merge, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->x);
    arg_tensor(&l, &o->positions);
    arg_fault(&l, &o->fault);
    arg_long(&l, o->y.shape[0]);
    arg_long(&l, o->y.shape[2]);
    arg_long(&l, o->parts);
    arg_long(&l, o->x.shape[2]);
    arg_int(&l, marked);
    return launch_end(&l, o->y.shape[1], o->y.shape[0], 1);
}

/* gpu: the segments of few tokens are groups side by side, since heads alone are too few to hide
 * what memory takes. They lie in the scratch as those of attention_part. */
static bool segments_apart(const struct device *device, const mh_op_attention *o, mh_tensor *parts)
{
    const mh_tensor *y = &o->y;
    int64_t keys = o->cache.shape[1] * o->page_table.shape[1], each = y->shape[2] + 2;
    int64_t segments = blocks(keys, SEGMENT);
    *parts = (mh_tensor){
        .dtype = MH_F32,
        .rank = 4,
        .shape = {y->shape[0], y->shape[1], segments, each},
        .stride = {4 * y->shape[1] * segments * each, 4 * segments * each, 4 * each, 4}};
    return device->form == FORM_GPU && y->shape[0] < FEW && segments > 1 &&
           (uint64_t)(y->shape[0] * parts->stride[0]) <= MOST_APART;
}

SCRATCH(attention)
{
    mh_tensor parts;
    bool apart = segments_apart(device, (const void *)op, &parts);
    return apart ? (uint64_t)(parts.shape[0] * parts.stride[0]) : 0;
}

ENCODE(attention)
{
    const mh_op_attention *o = (const void *)op;
    mh_op_attention_merge merge = MH_OP_INIT(attention_merge, ATTENTION_MERGE);
    if (!segments_apart(run->device, o, &merge.x))
        return launch_attention(run, o, o->y.shape[2], 1, 0, 0, false);
    mh_buffer_view view = {.handle = run->scratch->handle};
    merge.x.buffer = (mh_buffer *)(void *)&view;
    merge.x.offset = run->scratch->offset;
    merge.y = o->y, merge.positions = o->positions, merge.fault = o->fault, merge.parts = 1;
    mh_op_attention parts = *o;
    parts.y = merge.x;
    mh_status status = launch_attention(run, &parts, o->y.shape[2], merge.x.shape[2], 1, 0, true);
    return status ? status : launch_merge(run, &merge, true);
}

ENCODE(attention_part)
{
    const mh_op_attention_part *o = (const void *)op;
    mh_op_attention whole = {.y = o->y, .q = o->q, .cache = o->cache, .positions = o->positions};
    whole.slots = o->slots, whole.page_table = o->page_table, whole.fault = o->fault;
    whole.scale = o->scale;
    return launch_attention(run, &whole, o->y.shape[3] - 2, o->y.shape[2], o->stride, o->first,
                            false);
}

ENCODE(attention_merge)
{
    return launch_merge(run, (const void *)op, false);
}
