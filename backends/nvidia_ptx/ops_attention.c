/* ops_attention.c: rotation, the cache, attention. */
#include "plan.h"

/* ---- rope, cache, attention ---- */

PLAN_OP(rope)
{
    begin(l, KERNEL_rope, 0);
    set_grid(l, o->y.shape[0], o->y.shape[1], 1);
    l->block = 32;
    put_tensor(l, &o->y, 2);
    put_tensor(l, &o->x, 2);
    put_tensor(l, &o->table, 1);
    put_tensor(l, &o->positions, 1);
    put(l, address(&o->fault));
    put(l, (uint64_t)o->table.shape[0]);
    put(l, (uint64_t)o->y.shape[2]);
    return 1;
}

/* CACHE_PARAMS of cache.inc. */
void put_cache(struct launch *l, const mh_tensor *cache, const mh_tensor *positions,
               const mh_tensor *slots, const mh_tensor *pages, const mh_tensor *fault)
{
    put_tensor(l, cache, 2);
    put_tensor(l, positions, 1);
    put_tensor(l, slots, 1);
    put_tensor(l, pages, 1);
    put(l, address(fault));
    put(l, (uint64_t)cache->shape[0]);
    put(l, (uint64_t)cache->shape[1]);
    put(l, (uint64_t)pages->shape[0]);
    put(l, (uint64_t)pages->shape[1]);
}

/* MLA_KV_PARAMS. */
void put_mla_kv(struct launch *l, const mh_tensor *cache, const mh_tensor *kv,
                const mh_tensor *norm, const mh_tensor *table, float eps)
{
    int64_t latent = norm->shape[0];
    put_tensor(l, kv, 1);
    put(l, address(norm));
    put_tensor(l, table, 1);
    put(l, (uint64_t)table->shape[0]);
    put(l, (uint64_t)latent);
    put(l, (uint64_t)table->shape[1]);
    put(l, cache->dtype == MH_BF16);
    put_f32(l, 1.0f / (float)latent);
    put_f32(l, eps);
}

PLAN_OP(kv_write)
{
    begin(l, KERNEL_kv_write, 0);
    l->grid[0] = (uint32_t)o->latent.shape[0];
    put_cache(l, &o->cache, &o->positions, &o->slots, &o->page_table, &o->fault);
    put_tensor(l, &o->latent, 1);
    put_tensor(l, &o->rope, 1);
    put(l, (uint64_t)o->latent.shape[1]);
    put(l, (uint64_t)o->rope.shape[1]);
    put(l, o->cache.dtype == MH_BF16);
    return 1;
}

PLAN_OP(mla_kv)
{
    int64_t latent = o->norm.shape[0];
    begin(l, KERNEL_mla_kv, 0);
    l->grid[0] = (uint32_t)o->kv.shape[0];
    l->block = row_threads(latent);
    l->shared = (uint32_t)(4 * latent);
    put_cache(l, &o->cache, &o->positions, &o->slots, &o->page_table, &o->fault);
    put_mla_kv(l, &o->cache, &o->kv, &o->norm, &o->table, o->eps);
    return 1;
}

struct attention_shape {
    uint32_t heads_log2; /* heads of a block */
    uint32_t groups;
    uint32_t segments; /* blocks side by side; 1: a block walks all segments */
    uint64_t scratch;
};

/* Heads of a block share the reading of rows; fewer where that leaves multiprocessors idle. */
static uint32_t heads_log2(const struct device *device, const mh_op_attention *o, int64_t latent,
                           int64_t side_by_side)
{
    int64_t tokens = o->q.shape[0], heads = o->q.shape[1];
    uint32_t log2 = latent > 512; /* with one head a block a thread has one column */
    while (log2 < 3 && (latent <= 1024 || !log2) && (1 << log2) < heads &&
           staged_bytes(o->q.shape[2], 2u << log2) <= device->shared_optin / 2 &&
           ceil_div(heads, 2 << log2) * tokens * side_by_side >= device->multiprocessors)
        log2++;
    return log2;
}

/* Segments side by side only where heads and tokens alone leave multiprocessors idle. */
static struct attention_shape attention_shape(const struct device *device, const mh_op_attention *o)
{
    int64_t tokens = o->y.shape[0], heads = o->y.shape[1], latent = o->y.shape[2];
    int64_t keys = o->page_table.shape[1] * o->cache.shape[1];
    uint64_t segments = ceil_div(keys, 256);
    struct attention_shape s = {.segments = 1};
    int64_t wanted = 2 * (int64_t)device->multiprocessors;
    bool split = segments > 1 && segments <= 65535 && tokens * heads <= COUNTER_COUNT;
    /* How many of the segments are in use is not known here: 16 are taken for many. */
    int64_t side_by_side = split ? (segments < 16 ? (int64_t)segments : 16) : 1;
    s.heads_log2 = heads_log2(device, o, latent, side_by_side);
    s.groups = ceil_div(heads, 1 << s.heads_log2);
    s.scratch = (uint64_t)(tokens * heads) * segments * (uint64_t)((latent + 3) / 4 * 4 + 4) * 4;
    if (split && s.groups * tokens < wanted && s.scratch <= UINT64_C(512) << 20)
        s.segments = (uint32_t)segments;
    else
        s.scratch = 0;
    return s;
}

/* The kernel for so many heads a block; its grid is set. */
static void put_attention(struct launch *l, uint32_t heads_log2, const mh_op_attention *o,
                          int64_t latent, const struct launch_memory *memory)
{
    int64_t width = o->q.shape[2];
    begin(l, KERNEL_attention_h1 + heads_log2,
          o->cache.dtype == MH_BF16 ? MH_FORMAT_BF16 : MH_FORMAT_F32);
    /* A thread owns four columns, or one with one head; two heads leave registers for more threads,
     * which then share the scores. */
    uint32_t least = heads_log2 == 0 ? 512 : heads_log2 == 1 ? 256 : 128;
    l->block = ceil_div(latent, heads_log2 ? 4 : 1);
    l->block = l->block < least ? least : (l->block + 31) / 32 * 32;
    l->shared = (uint32_t)staged_bytes(width, 1u << heads_log2);
    put_cache(l, &o->cache, &o->positions, &o->slots, &o->page_table, &o->fault);
    put_tensor(l, &o->y, 2);
    put_tensor(l, &o->q, 2);
    put(l, memory->scratch);
    put(l, memory->counters);
    put(l, (uint64_t)o->q.shape[1]);
    put(l, (uint64_t)latent);
    put(l, (uint64_t)width);
    put_f32(l, o->scale);
    bool rows = width % 8 == 0 && tensor_aligned(&o->cache, width, 16);
    put(l, (rows ? 1 : 0) | (tensor_aligned(&o->q, width, 16) ? 2 : 0));
}

PLAN_OP(attention)
{
    struct attention_shape s = attention_shape(device, o);
    put_attention(l, s.heads_log2, o, o->y.shape[2], memory);
    set_grid(l, s.segments, s.groups, o->y.shape[0]);
    put(l, 0);
    put(l, 0);
    put(l, 0);
    return 1;
}

PLAN_OP(attention_part)
{
    mh_op_attention whole = {.y = o->y, .q = o->q, .cache = o->cache, .positions = o->positions};
    whole.slots = o->slots, whole.page_table = o->page_table, whole.fault = o->fault;
    whole.scale = o->scale;
    int64_t segments = o->y.shape[2], latent = o->y.shape[3] - 2;
    uint32_t log2 = heads_log2(device, &whole, latent, segments < 16 ? segments : 16);
    put_attention(l, log2, &whole, latent, memory);
    set_grid(l, segments, ceil_div(o->y.shape[1], 1 << log2), o->y.shape[0]);
    put(l, (uint64_t)o->y.stride[2]);
    put(l, (uint64_t)o->first);
    put(l, (uint64_t)o->stride);
    return 1;
}

PLAN_OP(attention_merge)
{
    int64_t latent = o->y.shape[2];
    begin(l, KERNEL_attention_merge, 0);
    set_grid(l, o->y.shape[0], o->y.shape[1], ceil_div(latent, l->block));
    put_tensor(l, &o->y, 2);
    put_tensor(l, &o->x, 3);
    put_tensor(l, &o->positions, 1);
    put(l, address(&o->fault));
    put(l, (uint64_t)o->y.shape[0]);
    put(l, (uint64_t)latent);
    put(l, (uint64_t)o->parts);
    put(l, (uint64_t)o->x.shape[2]);
    return 1;
}

uint64_t scratch_attention(const struct device *device, const mh_op_attention *o)
{
    return attention_shape(device, o).scratch;
}
