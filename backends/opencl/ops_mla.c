/* ops_mla.c: ops of kernels/mla.cl and kernels/attention.cl. */
#include "ops.h"

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
                                  int64_t segments, int64_t step, int64_t first)
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
    int64_t heads = run->device->form == FORM_CPU ? 4 : 1; /* as in attention.cl */
    return launch_end(&l, blocks(o->q.shape[1], heads), o->q.shape[0], segments);
}

ENCODE(attention)
{
    const mh_op_attention *o = (const void *)op;
    return launch_attention(run, o, o->y.shape[2], 1, 0, 0);
}

ENCODE(attention_part)
{
    const mh_op_attention_part *o = (const void *)op;
    mh_op_attention whole = {.y = o->y, .q = o->q, .cache = o->cache, .positions = o->positions};
    whole.slots = o->slots, whole.page_table = o->page_table, whole.fault = o->fault;
    whole.scale = o->scale;
    return launch_attention(run, &whole, o->y.shape[3] - 2, o->y.shape[2], o->stride, o->first);
}

ENCODE(attention_merge)
{
    const mh_op_attention_merge *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_attention_merge, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->x);
    arg_tensor(&l, &o->positions);
    arg_fault(&l, &o->fault);
    arg_long(&l, o->y.shape[0]);
    arg_long(&l, o->y.shape[2]);
    arg_long(&l, o->parts);
    arg_long(&l, o->x.shape[2]);
    return launch_end(&l, o->y.shape[1], o->y.shape[0], 1);
}
