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

/* What a row of inputs is: a token's, of a head if there are heads; or a pair of a token and a
 * slot, whose rows and scales follow each other. */
enum rows_of { HEADS, PAIRS };

/* Rounds `columns` of x, [T, ...] or [T, heads, ...], to scratch, normed if `norm` is there: to
 * what FP8 weights are multiplied with, or bf16. */
static struct gemm_rows round_rows(struct fast *f, int64_t columns, bool fp8, const mh_tensor *x,
                                   const mh_tensor *norm, float eps, enum rows_of kind)
{
    int64_t tokens = x->shape[0], heads = x->rank == 3 ? x->shape[1] : 1, count = tokens * heads;
    int64_t padded = GEMM_PADDED(columns), bytes = padded * (fp8 && f->fnuz ? 1 : 2);
    struct gemm_rows to = {.row = heads * bytes,
                           .head = bytes,
                           .scale_head = kind == HEADS ? tokens : 1,
                           .scale_step = count};
    to.at = take_scratch(f->memory, (uint64_t)(count * bytes));
    if (fp8 && f->fnuz)
        to.scales = (void *)take_scratch(f->memory, (uint64_t)(count * padded / GEMM_PADDING * 4));
    struct launch *l = next(f);
    begin(l, fp8 ? KERNEL_gemm_input_fp8 : KERNEL_gemm_input_bf16, 0, BLOCK);
    set_grid(l, tokens, heads, 1);
    ARGUMENTS(l, gemm_input, .x = view(x), .norm = norm ? address(norm) : NULL, .to = to,
              .scale_row = kind == HEADS ? 1 : heads, .columns = columns,
              .inverse = 1.0f / (float)columns, .eps = eps,
              .flags =
                  tensor_aligned(x, 4) && (!norm || tensor_aligned(norm, 4)) ? ALIGNED_INPUTS : 0);
    if (kind == PAIRS) {
        to.row = bytes;
        to.head = to.scale_head = 0;
    }
    return to;
}

static struct gemm_rows round_for(struct fast *f, const mh_weight_view *w, const mh_tensor *x,
                                  const mh_tensor *norm, float eps)
{
    return round_rows(f, w->in, w->format == MH_FORMAT_FP8, x, norm, eps, HEADS);
}

static struct gemm_rows round_pairs(struct fast *f, const mh_weight_view *w, const mh_tensor *x)
{
    return round_rows(f, w->in, w->format == MH_FORMAT_FP8, x, NULL, 0, PAIRS);
}

/* ---- products ---- */

struct product {
    const mh_weight_view *w, *up;
    struct gemm_rows inputs;
    struct view y, residual;
    int64_t tokens, rows;
    int64_t heads, head_rows, first_row; /* heads 0: one product; else rows of inputs are theirs */
    int64_t columns;                     /* transposed: rows of weights a head; else 0 */
    uint32_t *order;                     /* NULL: rows as they are */
    struct gemm_tile *tiles;
    uint32_t tile, tile_count;
    int64_t slots, share; /* 0: 1 */
};

/* Rows of a workgroup: the larger tile reads weights half as often, where there are rows for it. */
static uint32_t tile_of(int64_t rows)
{
    return rows > SMALL_TILE ? LARGE_TILE : SMALL_TILE;
}

static void product(struct fast *f, const struct product *p)
{
    uint32_t kernel = p->columns              ? KERNEL_gemm_columns
                      : p->tile == LARGE_TILE ? KERNEL_gemm_128
                                              : KERNEL_gemm_64;
    struct launch *l = next(f);
    begin(l, kernel, p->w->format, BLOCK);
    set_grid(l, p->tile_count ? p->tile_count : ceil_div(p->tokens, p->tile),
             ceil_div(p->rows, p->up ? GEMM_ROWS / 2 : GEMM_ROWS), p->heads ? p->heads : 1);
    ARGUMENTS(l, gemm, .y = p->y, .residual = p->residual, .inputs = p->inputs, .w = weight(p->w),
              .up = weight(p->up), .order = p->order, .tiles = p->tiles, .rows = p->rows,
              .columns = p->columns ? p->columns : p->w->in, .head_rows = p->head_rows,
              .first_row = p->first_row, .tokens = (uint32_t)p->tokens,
              .slots = (uint32_t)(p->slots ? p->slots : 1),
              .share = (uint32_t)(p->share ? p->share : 1),
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
                                 .rows = w->out,
                                 .tile = tile_of(tokens)});
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
                                 .first_row = o->row_begin,
                                 .tile = tile_of(o->y.shape[0])});
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

/* The pairs by expert: fills in the order and the tiles of what will be several products. */
static void group(struct fast *f, const struct routing *r, struct product *p)
{
    const mh_weight_view *w = p->w;
    int64_t slots = r->experts->shape[1], pairs = r->experts->shape[0] * slots;
    p->slots = slots;
    p->tile = tile_of(pairs / w->experts);
    p->tile_count =
        (uint32_t)(ceil_div(pairs, p->tile) + (w->experts < pairs ? w->experts : pairs));
    p->order = (void *)take_scratch(f->memory, 4 * (uint64_t)pairs);
    p->tiles = (void *)take_scratch(f->memory, sizeof(struct gemm_tile) * p->tile_count);
    struct launch *l = next(f);
    begin(l, KERNEL_gemm_group, 0, GROUP_BLOCK);
    l->lds = (uint32_t)(4 * w->experts);
    ARGUMENTS(l, gemm_group, .choice = choice(r->experts, r->map, r->fault, w), .order = p->order,
              .tiles = p->tiles, .pairs = (uint32_t)pairs, .slots = (uint32_t)slots,
              .tile = p->tile, .tile_count = p->tile_count);
}

/* x: whose rows `inputs` are, one a token or one a slot. */
static void experts(struct fast *f, const mh_weight_view *w, const mh_weight_view *up,
                    struct gemm_rows inputs, const mh_tensor *x, const struct routing *r,
                    struct view y)
{
    struct product p = {.w = w,
                        .up = up,
                        .inputs = inputs,
                        .y = y,
                        .rows = w->out,
                        .share = x->rank == 3 ? 1 : r->experts->shape[1]};
    group(f, r, &p);
    product(f, &p);
}

/* shared_y NULL: no shared experts. */
static bool gate_up(struct fast *f, const mh_tensor *y, const mh_tensor *x, const struct routing *r,
                    const mh_weight *gate, const mh_weight *up, const mh_tensor *shared_y,
                    const mh_weight *shared_gate, const mh_weight *shared_up)
{
    const mh_weight_view *w = mh_view_weight(gate);
    if (!experts_fit(w, x))
        return false;
    struct gemm_rows inputs = round_pairs(f, w, x);
    experts(f, w, mh_view_weight(up), inputs, x, r, view(y));
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
    experts(f, w, NULL, round_pairs(f, w, &o->x), &o->x,
            &(struct routing){&o->experts, &o->expert_map, &o->fault}, view(&o->y));
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
    experts(f, w, NULL, round_pairs(f, w, x), x, r, combine->e);
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
                                  .inputs = round_rows(&f, rows, false, x, NULL, 0, HEADS),
                                  .y = y,
                                  .tokens = x->shape[0],
                                  .rows = w->in,
                                  .heads = heads,
                                  .head_rows = head_rows,
                                  .first_row = first_row,
                                  .columns = rows,
                                  .tile = LARGE_TILE});
    return f.count;
}

uint32_t plan_fast(const struct device *device, const mh_op *op, struct launch_memory *memory,
                   struct launch *l)
{
    struct fast f = {.memory = memory, .l = l, .fnuz = device->units >= FNUZ};
    return op->flags & MH_OP_FAST && plan(&f, op) ? f.count : 0;
}
