/*
 * ops_fast.c: ops with MH_OP_FAST whose rows are many enough for the matrix units (gemm.hip). The
 * inputs are rounded to scratch first; pairs of a token and a slot are put in order by expert. What
 * does not come here runs its exact kernel, which is inside any bounds.
 */
#include "kernels/gemm.h"

#include "plan.h"

enum {
    LEAST_ROWS = 16, /* below, weights are read by the exact kernels as often */
    SMALL_TILE = 64,
    LARGE_TILE = 128,
    BLOCK = 256,
    GROUP_BLOCK = 1024,
};

struct fast {
    struct launch_memory *memory;
    struct launch *l;
    bool fnuz;      /* FP8 is multiplied as such; else as bf16 */
    uint32_t count; /* of launches */
};

static struct launch *next(struct fast *f)
{
    return &f->l[f->count++];
}

/* ---- what the kernels ask of shapes and alignment ---- */

static bool weight_fits(const mh_weight_view *w)
{
    return w->in % (w->format == MH_FORMAT_FP8 ? 16 : 8) == 0;
}

static bool fits(const mh_weight_view *w, const mh_tensor *x)
{
    return x->shape[0] >= LEAST_ROWS && weight_fits(w);
}

/* Whether 16 bytes of what lies there may be moved at once. */
static bool is_wide(struct view v)
{
    return ((uint64_t)(uintptr_t)v.at | (uint64_t)v.row | (uint64_t)v.mid) % 16 == 0;
}

/* ---- rows for the matrix units ---- */

/* Pairs of a token and a slot, put in order by expert: each has a place. */
struct pairs {
    uint32_t *order, *places;
    struct gemm_tile *tiles;
    uint32_t slots, tile, tile_count;
};

/* Rounds `columns` of x, [T, ...] or [T, heads, ...], to scratch, normed if `norm` is there: to
 * what FP8 weights are multiplied with, or bf16. pairs: x, [T, slots, ...], by their places. */
static struct gemm_rows round_rows(struct fast *f, int64_t columns, bool fp8, const mh_tensor *x,
                                   const mh_tensor *norm, float eps, const struct pairs *pairs)
{
    int64_t tokens = x->shape[0], heads = x->rank == 3 ? x->shape[1] : 1, count = tokens * heads;
    int64_t padded = GEMM_PADDED(columns), bytes = padded * (fp8 && f->fnuz ? 1 : 2);
    struct gemm_rows to = {.row = pairs ? bytes : heads * bytes,
                           .head = bytes,
                           .scale_head = tokens,
                           .scale_step = count};
    to.at = take_scratch(f->memory, (uint64_t)(count * bytes));
    if (fp8 && f->fnuz)
        to.scales = (void *)take_scratch(f->memory, (uint64_t)(count * padded / GEMM_PADDING * 4));
    struct launch *l = next(f);
    begin(l, fp8 ? KERNEL_gemm_input_fp8 : KERNEL_gemm_input_bf16, 0, BLOCK);
    set_grid(l, tokens, heads, 1);
    ARGUMENTS(l, gemm_input, .x = view(x), .norm = norm ? address(norm) : NULL, .to = to,
              .places = pairs ? pairs->places : NULL, .columns = columns,
              .inverse = 1.0f / (float)columns, .eps = eps,
              .flags =
                  tensor_aligned(x, 4) && (!norm || tensor_aligned(norm, 4)) ? ALIGNED_INPUTS : 0,
              .slots = (uint32_t)heads);
    return to;
}

static struct gemm_rows round_for(struct fast *f, const mh_weight_view *w, const mh_tensor *x,
                                  const mh_tensor *norm, float eps)
{
    return round_rows(f, w->in, w->format == MH_FORMAT_FP8, x, norm, eps, NULL);
}

/* ---- products ---- */

struct product {
    const mh_weight_view *w, *up;
    struct gemm_rows inputs;
    struct view y, residual;
    int64_t tokens, rows;
    int64_t heads, head_rows, first_row; /* heads 0: one product; else rows of inputs are theirs */
    int64_t columns;                     /* transposed: rows of weights a head; else 0 */
    const struct pairs *pairs;           /* NULL: rows as they are */
    bool by_token;                       /* of pairs: the inputs are a token's, for all its slots */
};

/* Rows of a workgroup: the larger tile reads weights half as often, where there are rows for it. */
static uint32_t tile_of(int64_t rows)
{
    return rows > SMALL_TILE ? LARGE_TILE : SMALL_TILE;
}

static void product(struct fast *f, const struct product *p)
{
    const struct pairs none = {.tile = p->columns ? LARGE_TILE : tile_of(p->tokens), .slots = 1};
    const struct pairs *pairs = p->pairs ? p->pairs : &none;
    uint32_t kernel = p->columns                  ? KERNEL_gemm_columns
                      : pairs->tile == LARGE_TILE ? KERNEL_gemm_128
                                                  : KERNEL_gemm_64;
    struct launch *l = next(f);
    begin(l, kernel, p->w->format, BLOCK);
    set_grid(l, p->pairs ? pairs->tile_count : ceil_div(p->tokens, pairs->tile),
             ceil_div(p->rows, p->up ? GEMM_ROWS / 2 : GEMM_ROWS), p->heads ? p->heads : 1);
    ARGUMENTS(l, gemm, .y = p->y, .residual = p->residual, .inputs = p->inputs, .w = weight(p->w),
              .up = weight(p->up), .order = pairs->order, .tiles = pairs->tiles, .rows = p->rows,
              .columns = p->columns ? p->columns : p->w->in, .head_rows = p->head_rows,
              .first_row = p->first_row, .tokens = (uint32_t)p->tokens, .slots = pairs->slots,
              .share = p->by_token ? pairs->slots : 0,
              .wide = is_wide(p->y) && is_wide(p->residual));
}

/* y = [residual +] w . x, or swiglu of w . x and up . x. */
static void rows(struct fast *f, const mh_weight_view *w, const mh_weight_view *up,
                 struct gemm_rows inputs, struct view y, struct view residual, int64_t tokens)
{
    product(f, &(struct product){.w = w,
                                 .up = up,
                                 .inputs = inputs,
                                 .y = y,
                                 .residual = residual,
                                 .tokens = tokens,
                                 .rows = w->out});
}

static bool linear(struct fast *f, const mh_tensor *y, const mh_tensor *x,
                   const mh_tensor *residual, const mh_weight *weight, const mh_weight *up)
{
    const mh_weight_view *w = mh_view_weight(weight);
    if (!fits(w, x))
        return false;
    rows(f, w, up ? mh_view_weight(up) : NULL, round_for(f, w, x, NULL, 0), view(y), view(residual),
         y->shape[0]);
    return true;
}

static bool norm_linear(struct fast *f, const mh_op_norm_linear *o)
{
    const mh_weight_view *w = mh_view_weight(o->w), *w2 = o->w2 ? mh_view_weight(o->w2) : NULL;
    if (!fits(w, &o->x) || (w2 && !weight_fits(w2)))
        return false;
    struct gemm_rows inputs = round_for(f, w, &o->x, &o->norm, o->eps);
    rows(f, w, NULL, inputs, view(&o->y), view(NULL), o->x.shape[0]);
    if (w2)
        rows(f, w2, NULL, inputs, view(&o->y2), view(NULL), o->x.shape[0]);
    return true;
}

static bool head_linear(struct fast *f, const mh_op_head_linear *o)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    if (o->transposed || !fits(w, &o->x))
        return false;
    /* A tile of FP8 has one scale for its 128 columns. */
    if (w->format == MH_FORMAT_FP8 &&
        (o->row_begin % GEMM_ROWS || (o->y.shape[1] > 1 && o->head_rows % GEMM_ROWS)))
        return false;
    product(f, &(struct product){.w = w,
                                 .inputs = round_for(f, w, &o->x, NULL, 0),
                                 .y = view(&o->y),
                                 .tokens = o->y.shape[0],
                                 .rows = o->row_count,
                                 .heads = o->y.shape[1],
                                 .head_rows = o->head_rows,
                                 .first_row = o->row_begin});
    return true;
}

/* ---- experts ---- */

struct routing {
    const mh_tensor *experts, *map, *fault;
};

static bool experts_fit(const mh_weight_view *w, const mh_tensor *x)
{
    return fits(w, x) && w->experts <= MAX_LDS / 8;
}

/* placed: their places are wanted too. */
static struct pairs group(struct fast *f, const mh_weight_view *w, const struct routing *r,
                          bool placed)
{
    int64_t slots = r->experts->shape[1], count = r->experts->shape[0] * slots;
    struct pairs p = {.slots = (uint32_t)slots, .tile = tile_of(count / w->experts)};
    p.tile_count = (uint32_t)(ceil_div(count, p.tile) + (w->experts < count ? w->experts : count));
    p.order = (void *)take_scratch(f->memory, 4 * (uint64_t)count);
    if (placed)
        p.places = (void *)take_scratch(f->memory, 4 * (uint64_t)count);
    p.tiles = (void *)take_scratch(f->memory, sizeof(struct gemm_tile) * p.tile_count);
    struct launch *l = next(f);
    begin(l, KERNEL_gemm_group, 0, GROUP_BLOCK);
    l->lds = (uint32_t)(4 * w->experts);
    ARGUMENTS(l, gemm_group, .choice = choice(r->experts, r->map, r->fault, w), .order = p.order,
              .places = p.places, .tiles = p.tiles, .pairs = (uint32_t)count, .slots = p.slots,
              .tile = p.tile, .tile_count = p.tile_count);
    return p;
}

/* Experts' outputs a slot, of inputs a slot. */
static void down(struct fast *f, const mh_weight_view *w, const mh_tensor *x,
                 const struct routing *r, struct view y)
{
    struct pairs pairs = group(f, w, r, true);
    product(f, &(struct product){
                   .w = w,
                   .inputs = round_rows(f, w->in, w->format == MH_FORMAT_FP8, x, NULL, 0, &pairs),
                   .y = y,
                   .rows = w->out,
                   .pairs = &pairs});
}

/* shared_y NULL: no shared experts. */
static bool gate_up(struct fast *f, const mh_tensor *y, const mh_tensor *x, const struct routing *r,
                    const mh_weight *gate, const mh_weight *up, const mh_tensor *shared_y,
                    const mh_weight *shared_gate, const mh_weight *shared_up)
{
    const mh_weight_view *w = mh_view_weight(gate);
    if (!experts_fit(w, x))
        return false;
    struct pairs pairs = group(f, w, r, false);
    struct gemm_rows inputs = round_for(f, w, x, NULL, 0);
    product(f, &(struct product){.w = w,
                                 .up = mh_view_weight(up),
                                 .inputs = inputs,
                                 .y = view(y),
                                 .rows = w->out,
                                 .pairs = &pairs,
                                 .by_token = true});
    if (shared_y)
        rows(f, mh_view_weight(shared_gate), mh_view_weight(shared_up), inputs, view(shared_y),
             view(NULL), x->shape[0]);
    return true;
}

static bool experts_down(struct fast *f, const mh_op_experts_down *o)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    if (!experts_fit(w, &o->x))
        return false;
    down(f, w, &o->x, &(struct routing){&o->experts, &o->expert_map, &o->fault}, view(&o->y));
    return true;
}

/* The products, then their sum: `combine` has its operands but for the products. */
static bool down_combine(struct fast *f, const mh_tensor *x, const struct routing *r,
                         const mh_weight *weight, const mh_tensor *shared_x,
                         const mh_weight *shared_weight, struct combine_arguments *combine,
                         int64_t tokens)
{
    const mh_weight_view *w = mh_view_weight(weight);
    const mh_weight_view *shared_w = shared_weight ? mh_view_weight(shared_weight) : NULL;
    int64_t slots = x->shape[1];
    if (!experts_fit(w, x) || (shared_w && !fits(shared_w, shared_x)))
        return false;
    combine->e = scratch_rows(f->memory, tokens * slots, w->out);
    combine->e.mid = combine->e.row;
    combine->e.row *= slots;
    down(f, w, x, r, combine->e);
    if (shared_w) {
        combine->shared = scratch_rows(f->memory, tokens, w->out);
        rows(f, shared_w, NULL, round_for(f, shared_w, shared_x, NULL, 0), combine->shared,
             view(NULL), tokens);
    }
    combine->choice = choice(r->experts, r->map, r->fault, w);
    combine->slots = slots;
    combine->columns = w->out;
    launch_combine(combine, tokens, next(f));
    return true;
}

static bool experts_down_combine(struct fast *f, const mh_op_experts_down_combine *o)
{
    return down_combine(f, &o->x, &(struct routing){&o->experts, &o->expert_map, &o->fault}, o->w,
                        NULL, NULL,
                        &(struct combine_arguments){.y = view(&o->y),
                                                    .h = view(&o->h),
                                                    .weights = view(&o->weights),
                                                    .shared = view(&o->shared)},
                        o->y.shape[0]);
}

static bool moe_down_combine(struct fast *f, const mh_op_moe_down_combine *o)
{
    return down_combine(f, &o->x, &(struct routing){&o->experts, &o->expert_map, &o->fault}, o->w,
                        &o->shared_x, o->shared_w,
                        &(struct combine_arguments){
                            .y = view(&o->y), .h = view(&o->h), .weights = view(&o->weights)},
                        o->y.shape[0]);
}

/* ---- any op ---- */

static bool plan(struct fast *f, const mh_op *op)
{
    switch (op->op) {
    case MH_OP_LINEAR: {
        const mh_op_linear *o = (const void *)op;
        return linear(f, &o->y, &o->x, NULL, o->w, NULL);
    }
    case MH_OP_LINEAR_ADD: {
        const mh_op_linear_add *o = (const void *)op;
        return linear(f, &o->y, &o->x, &o->residual, o->w, NULL);
    }
    case MH_OP_LINEAR_SWIGLU: {
        const mh_op_linear_swiglu *o = (const void *)op;
        return linear(f, &o->y, &o->x, NULL, o->gate, o->up);
    }
    case MH_OP_NORM_LINEAR:
        return norm_linear(f, (const void *)op);
    case MH_OP_HEAD_LINEAR:
        return head_linear(f, (const void *)op);
    case MH_OP_EXPERTS_GATE_UP: {
        const mh_op_experts_gate_up *o = (const void *)op;
        return gate_up(f, &o->y, &o->x, &(struct routing){&o->experts, &o->expert_map, &o->fault},
                       o->gate, o->up, NULL, NULL, NULL);
    }
    case MH_OP_MOE_GATE_UP: {
        const mh_op_moe_gate_up *o = (const void *)op;
        return gate_up(f, &o->y, &o->x, &(struct routing){&o->experts, &o->expert_map, &o->fault},
                       o->gate, o->up, &o->shared_y, o->shared_gate, o->shared_up);
    }
    case MH_OP_EXPERTS_DOWN:
        return experts_down(f, (const void *)op);
    case MH_OP_EXPERTS_DOWN_COMBINE:
        return experts_down_combine(f, (const void *)op);
    case MH_OP_MOE_DOWN_COMBINE:
        return moe_down_combine(f, (const void *)op);
    default:
        return false;
    }
}

uint32_t launch_head_columns(struct view y, const mh_tensor *x, const mh_weight_view *w,
                             int64_t heads, int64_t rows, int64_t head_rows, int64_t first_row,
                             struct launch_memory *memory, struct launch *l)
{
    struct fast f = {.memory = memory, .l = l};
    if (x->shape[0] < LEAST_ROWS || w->in % 4)
        return 0;
    /* A work-item's eight rows of FP8 have one scale. */
    if (w->format == MH_FORMAT_FP8 && (first_row % 8 || (heads > 1 && head_rows % 8)))
        return 0;
    product(&f, &(struct product){.w = w,
                                  .inputs = round_rows(&f, rows, false, x, NULL, 0, NULL),
                                  .y = y,
                                  .tokens = x->shape[0],
                                  .rows = w->in,
                                  .heads = heads,
                                  .head_rows = head_rows,
                                  .first_row = first_row,
                                  .columns = rows});
    return f.count;
}

uint32_t plan_fast(const struct device *device, const mh_op *op, struct launch_memory *memory,
                   struct launch *l)
{
    struct fast f = {.memory = memory, .l = l, .fnuz = device->units >= FNUZ};
    return op->flags & MH_OP_FAST && plan(&f, op) ? f.count : 0;
}
