/* ops_attention.c: rotation, the cache, attention, projections by heads. */
#include "kernels/mla.h"

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

PLAN_OP(rope)
{
    int64_t heads = o->y.shape[1];
    begin(l, KERNEL_rope, 0, WAVE);
    set_grid(l, o->y.shape[0], ceil_div(heads * o->y.shape[2] / 2, WAVE), 1);
    ARGUMENTS(l, rope, .y = view(&o->y), .x = view(&o->x), .positions = view(&o->positions),
              .angles = angles(&o->table), .fault = address(&o->fault), .heads = heads);
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

PLAN_OP(mla_kv)
{
    begin(l, KERNEL_mla_kv, 0, WAVE);
    l->grid[0] = o->kv.shape[0];
    ARGUMENTS(l, mla_kv,
              .cache = cache(&o->cache, &o->positions, &o->slots, &o->page_table, &o->fault),
              .angles = angles(&o->table), .row = cache_row(&o->kv, &o->norm, o->eps));
    return 1;
}

/* ---- projections by heads ---- */

struct columns {
    const mh_tensor *y, *x;
    const mh_weight_view *w;
    int64_t rows, head_rows, first_row;
    bool rotates, writes;
    struct mla_kv_arguments kv;
};

static uint32_t head_columns(const struct columns *p, struct launch *l)
{
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
                                              .first_row = o->row_begin},
                            l);
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
                                          .rotates = true,
                                          .kv = {.cache = places, .angles = angles(&o->table)}},
                        l);
}

PLAN_OP(mla_qkv)
{
    return head_columns(&(struct columns){.y = &o->y,
                                          .x = &o->q,
                                          .w = mh_view_weight(o->w),
                                          .rows = o->q.shape[2] - o->table.shape[1],
                                          .head_rows = o->head_rows,
                                          .rotates = true,
                                          .writes = true,
                                          .kv = {.cache = cache(&o->cache, &o->positions, &o->slots,
                                                                &o->page_table, &o->fault),
                                                 .angles = angles(&o->table),
                                                 .row = cache_row(&o->kv, &o->norm, o->eps)}},
                        l);
}

/* ---- attention ---- */

PLAN_OP(attention)
{
    (void)o, (void)l;
    return NO_KERNEL;
}
