/* ops_attention.c: rotation, the cache, attention, projections by heads. */
#include "kernels/attention.h"
#include "kernels/attention_mma.h"

#include "plan.h"

enum { WAVE = 64 };

/* ---- rotation and the cache ---- */

static struct angles angles(const mh_tensor *table)
{
    return (struct angles){view(table), table->shape[0], table->shape[1]};
}

static struct cache cache(const mh_tensor *rows, const mh_tensor *positions, const mh_tensor *slots,
                          const mh_tensor *pages, const mh_tensor *fault)
{
    return (struct cache){.rows = view(rows),
                          .positions = view(positions),
                          .slots = view(slots),
                          .table = view(pages),
                          .fault = address(fault),
                          .pages = rows->shape[0],
                          .page_size = rows->shape[1],
                          .slot_count = pages->shape[0],
                          .slot_pages = pages->shape[1],
                          .bf16 = rows->dtype == MH_BF16};
}

static void rope(const struct rope_arguments *a, int64_t tokens, struct launch *l)
{
    begin(l, KERNEL_rope, 0, WAVE);
    set_grid(l, tokens, ceil_div(a->heads * a->angles.size / 2, WAVE), 1);
    memcpy(l->arguments, a, sizeof(*a));
}

PLAN_OP(rope)
{
    rope(&(struct rope_arguments){.y = view(&o->y),
                                  .x = view(&o->x),
                                  .positions = view(&o->positions),
                                  .angles = angles(&o->table),
                                  .fault = address(&o->fault),
                                  .heads = o->y.shape[1]},
         o->y.shape[0], l);
    return 1;
}

PLAN_OP(kv_write)
{
    begin(l, KERNEL_kv_write, 0, WAVE);
    l->grid[0] = o->latent.shape[0];
    ARGUMENTS(l, kv_write,
              .cache = cache(&o->cache, &o->positions, &o->slots, &o->page_table, &o->fault),
              .latent = view(&o->latent), .rope = view(&o->rope), .latent_size = o->latent.shape[1],
              .rope_size = o->rope.shape[1]);
    return 1;
}

static struct cache_row cache_row(const mh_tensor *kv, const mh_tensor *norm, float eps)
{
    int64_t latent = norm->shape[0];
    return (struct cache_row){view(kv), address(norm), latent, 1.0f / (float)latent, eps};
}

static void mla_kv(const struct mla_kv_arguments *a, int64_t tokens, struct launch *l)
{
    begin(l, KERNEL_mla_kv, 0, WAVE);
    l->grid[0] = tokens;
    memcpy(l->arguments, a, sizeof(*a));
}

PLAN_OP(mla_kv)
{
    mla_kv(&(struct mla_kv_arguments){.cache = cache(&o->cache, &o->positions, &o->slots,
                                                     &o->page_table, &o->fault),
                                      .angles = angles(&o->table),
                                      .row = cache_row(&o->kv, &o->norm, o->eps)},
           o->kv.shape[0], l);
    return 1;
}

/* ---- projections by heads ---- */

struct columns {
    const mh_tensor *y, *x;
    const mh_weight_view *w;
    int64_t rows, head_rows, first_row;
    bool fast, rotates, writes;
    struct mla_kv_arguments kv;
};

/* By the matrix units; the rotated part and the cache's rows are kernels of their own then. */
static uint32_t fast_columns(const struct columns *p, struct launch_memory *memory,
                             struct launch *l)
{
    int64_t tokens = p->y->shape[0], heads = p->y->shape[1];
    uint32_t count = launch_head_columns(view(p->y), p->x, p->w, heads, p->rows, p->head_rows,
                                         p->first_row, memory, l);
    if (count && p->rotates) {
        struct rope_arguments a = {.y = view(p->y),
                                   .x = view(p->x),
                                   .positions = p->kv.cache.positions,
                                   .angles = p->kv.angles,
                                   .fault = p->kv.cache.fault,
                                   .heads = heads};
        a.y.at = a.y.at ? a.y.at + 4 * p->w->in : NULL;
        a.x.at = a.x.at ? a.x.at + 4 * p->rows : NULL;
        rope(&a, tokens, &l[count++]);
    }
    if (count && p->writes)
        mla_kv(&p->kv, tokens, &l[count++]);
    return count;
}

static uint32_t head_columns(const struct columns *p, struct launch_memory *memory,
                             struct launch *l)
{
    uint32_t count = p->fast ? fast_columns(p, memory, l) : 0;
    if (count)
        return count;
    int64_t tokens = p->y->shape[0], columns = p->w->in;
    uint32_t log2 = tokens > 1;
    begin(l, KERNEL_head_columns_t1 + log2, p->w->format, WAVE);
    set_grid(l, ceil_div(columns, WAVE) + p->rotates + p->writes, p->y->shape[1],
             ceil_div(tokens, 1 << log2));
    l->lds = p->rows <= MAX_LDS / 8 ? (uint32_t)(4 * p->rows) << log2 : UINT32_MAX;
    ARGUMENTS(l, head_columns, .y = view(p->y), .x = view(p->x), .w = weight(p->w),
              .tokens = tokens, .rows = p->rows, .columns = columns, .head_rows = p->head_rows,
              .first_row = p->first_row, .kv = p->kv,
              .flags = columns % 8 == 0 ? ALIGNED_WEIGHTS : 0);
    return 1;
}

PLAN_OP(head_linear)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    if (o->transposed)
        return head_columns(&(struct columns){.y = &o->y,
                                              .x = &o->x,
                                              .w = w,
                                              .rows = o->row_count,
                                              .head_rows = o->head_rows,
                                              .first_row = o->row_begin,
                                              .fast = has_products(device, &o->base)},
                            memory, l);
    launch_head_rows(o, l);
    return 1;
}

PLAN_OP(mla_query)
{
    const struct cache places = {.positions = view(&o->positions), .fault = address(&o->fault)};
    return head_columns(&(struct columns){.y = &o->y,
                                          .x = &o->q,
                                          .w = mh_view_weight(o->w),
                                          .rows = o->q.shape[2] - o->table.shape[1],
                                          .head_rows = o->head_rows,
                                          .fast = has_products(device, &o->base),
                                          .rotates = true,
                                          .kv = {.cache = places, .angles = angles(&o->table)}},
                        memory, l);
}

PLAN_OP(mla_qkv)
{
    return head_columns(&(struct columns){.y = &o->y,
                                          .x = &o->q,
                                          .w = mh_view_weight(o->w),
                                          .rows = o->q.shape[2] - o->table.shape[1],
                                          .head_rows = o->head_rows,
                                          .fast = has_products(device, &o->base),
                                          .rotates = true,
                                          .writes = true,
                                          .kv = {.cache = cache(&o->cache, &o->positions, &o->slots,
                                                                &o->page_table, &o->fault),
                                                 .angles = angles(&o->table),
                                                 .row = cache_row(&o->kv, &o->norm, o->eps)}},
                        memory, l);
}

/* ---- attention ---- */

enum { ATTENTION_BLOCK = 256, STATIC_LDS = 12288, MOST_PARTS = 512 << 20, MOST_SEGMENTS = 65535 };

/* How an op is spread over workgroups. */
struct spread {
    uint32_t heads_log2; /* heads of a workgroup */
    int64_t groups;      /* of heads, and tiles of latent columns */
    int64_t segments;    /* workgroups side by side; 1: a workgroup walks all segments */
    uint64_t parts;      /* bytes of their results */
};

/* Heads of a workgroup share the reading of rows; fewer where that leaves compute units idle. */
static uint32_t heads_log2(const struct device *device, const mh_op_attention *o, int64_t tiles,
                           int64_t side_by_side)
{
    int64_t tokens = o->q.shape[0], heads = o->q.shape[1];
    uint32_t log2 = 0;
    while (log2 < 3 && 1 << log2 < heads &&
           QUERY_BYTES(o->q.shape[2], 2 << log2) <= MAX_LDS / 2 - STATIC_LDS &&
           ceil_div(heads, 2 << log2) * tiles * tokens * side_by_side >= device->compute_units)
        log2++;
    return log2;
}

/* Segments side by side only where heads and tokens alone do. How many of the segments are in use
 * is not known here: 16 are taken for many. */
static struct spread spread(const struct device *device, const mh_op_attention *o)
{
    int64_t tokens = o->y.shape[0], heads = o->y.shape[1], latent = o->y.shape[2];
    int64_t tiles = ceil_div(latent, TILE), units = device->compute_units;
    int64_t segments = ceil_div(o->page_table.shape[1] * o->cache.shape[1], SEGMENT);
    bool split =
        segments > 1 && segments <= MOST_SEGMENTS && tokens * heads * tiles <= COUNTER_COUNT;
    int64_t side_by_side = !split ? 1 : segments < 16 ? segments : 16;
    struct spread s = {.segments = 1};
    s.heads_log2 = heads_log2(device, o, tiles, side_by_side);
    s.groups = ceil_div(heads, 1 << s.heads_log2) * tiles;
    uint64_t parts = (uint64_t)(tokens * heads * tiles * segments) * 4 * PART_FLOATS(latent);
    if (split && s.groups * tokens < 2 * units && parts <= MOST_PARTS) {
        s.segments = segments;
        s.parts = parts;
    }
    return s;
}

static uint32_t cache_flags(const mh_tensor *rows, int64_t latent)
{
    uint64_t bits =
        (uint64_t)(uintptr_t)address(rows) | (uint64_t)rows->stride[0] | (uint64_t)rows->stride[1];
    uint64_t pair = rows->dtype == MH_BF16 ? 4 : 8;
    return (bits % 16 == 0 && rows->shape[2] % 8 == 0 ? ALIGNED_WEIGHTS : 0) |
           (bits % pair == 0 && latent % 2 == 0 ? PAIRS : 0);
}

/* Fast, of the shape that the matrix units' kernel has: false if it has not. Parts side by side
 * where rows alone leave compute units idle. */
static bool attention_mma(const struct device *device, const mh_op_attention *o,
                          struct launch_memory *memory, struct launch *l)
{
    enum { LEAST_HEADS = 4, PART_KEYS = 128 };
    int64_t tokens = o->y.shape[0], heads = o->y.shape[1];
    if (device->units < MATRIX || !(o->base.flags & MH_OP_FAST) || o->cache.dtype != MH_BF16 ||
        heads < LEAST_HEADS || o->y.shape[2] != MMA_LATENT || o->q.shape[2] != MMA_WIDTH ||
        !tensor_aligned(&o->cache, MMA_WIDTH) || !tensor_aligned(&o->q, MMA_WIDTH) ||
        !tensor_aligned(&o->y, MMA_LATENT))
        return false;
    int64_t groups = ceil_div(tokens * ceil_div(heads, MMA_ROWS), MMA_WAVES);
    int64_t keys = o->page_table.shape[1] * o->cache.shape[1], parts = ceil_div(keys, PART_KEYS);
    uint64_t bytes = (uint64_t)(groups * parts) * MMA_WAVES * MMA_PART_FLOATS * 4;
    if (groups >= device->compute_units || groups > COUNTER_COUNT || bytes > MOST_PARTS)
        parts = 1;
    begin(l, KERNEL_attention_mma, 0, WAVE * MMA_WAVES);
    set_grid(l, parts, groups, 1);
    ARGUMENTS(
        l, attention_mma,
        .cache = cache(&o->cache, &o->positions, &o->slots, &o->page_table, &o->fault),
        .y = view(&o->y), .q = view(&o->q),
        .parts = (void *)take_scratch(memory, parts > 1 ? bytes : 0), .counters = memory->counters,
        .tokens = tokens, .heads = heads, .part_count = (uint32_t)parts,
        .part_keys = parts > 1 ? PART_KEYS : (uint32_t)INT32_MAX, .scale = o->scale * 1.44269504f);
    return true;
}

/* An attention kernel's launch, but its grid. */
static void begin_attention(const mh_op_attention *o, uint32_t log2, struct launch *l)
{
    int64_t lds = QUERY_BYTES(o->q.shape[2], 1 << log2);
    begin(l, KERNEL_attention_h1 + log2, o->cache.dtype == MH_BF16 ? BF16 : F32, ATTENTION_BLOCK);
    l->lds = lds <= MAX_LDS - STATIC_LDS ? (uint32_t)lds : UINT32_MAX;
}

PLAN_OP(attention)
{
    if (attention_mma(device, o, memory, l))
        return 1;
    struct spread s = spread(device, o);
    int64_t latent = o->y.shape[2];
    begin_attention(o, s.heads_log2, l);
    set_grid(l, s.segments, s.groups, o->y.shape[0]);
    ARGUMENTS(l, attention,
              .cache = cache(&o->cache, &o->positions, &o->slots, &o->page_table, &o->fault),
              .y = view(&o->y), .q = view(&o->q), .parts = (void *)take_scratch(memory, s.parts),
              .counters = memory->counters, .heads = o->y.shape[1], .latent = latent,
              .width = o->q.shape[2], .segments = (uint32_t)s.segments,
              .flags = cache_flags(&o->cache, latent), .scale = o->scale);
    return 1;
}

PLAN_OP(attention_part)
{
    mh_op_attention whole = {.q = o->q, .cache = o->cache};
    int64_t heads = o->y.shape[1], segments = o->y.shape[2], latent = o->y.shape[3] - 2;
    int64_t tiles = ceil_div(latent, TILE);
    uint32_t log2 = heads_log2(device, &whole, tiles, segments < 16 ? segments : 16);
    begin_attention(&whole, log2, l);
    set_grid(l, segments, ceil_div(heads, 1 << log2) * tiles, o->y.shape[0]);
    ARGUMENTS(l, attention,
              .cache = cache(&o->cache, &o->positions, &o->slots, &o->page_table, &o->fault),
              .y = view(&o->y), .q = view(&o->q), .heads = heads, .latent = latent,
              .width = o->q.shape[2], .segments = 1, .flags = cache_flags(&o->cache, latent),
              .scale = o->scale, .y_segment = o->y.stride[2], .first = (uint32_t)o->first,
              .step = (uint32_t)o->stride);
    return 1;
}

PLAN_OP(attention_merge)
{
    int64_t latent = o->y.shape[2];
    begin(l, KERNEL_attention_merge, 0, ATTENTION_BLOCK);
    set_grid(l, ceil_div(latent, ATTENTION_BLOCK), o->y.shape[1], o->y.shape[0]);
    ARGUMENTS(l, attention_merge, .y = view(&o->y), .x = view(&o->x),
              .positions = view(&o->positions), .fault = address(&o->fault),
              .tokens = o->y.shape[0], .latent = latent, .x_segment = o->x.stride[2],
              .parts = (uint32_t)o->parts, .segments = (uint32_t)o->x.shape[2]);
    return 1;
}
