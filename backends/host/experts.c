/*
 * experts.c: grouped expert products and their combination. Rules 2, 5 and 9. Slot j of row t has
 * id t * k + j; an expert's weights are read once for all the slots that chose it.
 */
#include "product.h"

/* Scratch: the grouping, then the product's, then the outputs of experts_down_combine. */
static char *after_grouping(const struct host_run *run, const mh_tensor *experts, int64_t slots)
{
    return run->scratch + grouping_bytes(experts->shape[0] * experts->shape[1], slots);
}

/* ---- gate and up ---- */

static const float *row_input(const mh_op *op, int64_t t)
{
    return row1(&((const mh_op_experts_gate_up *)op)->x, t);
}

static float *gate_up_output(const mh_op *op, int64_t id)
{
    const mh_op_experts_gate_up *o = (const void *)op;
    return row2(&o->y, id / o->y.shape[1], id % o->y.shape[1]);
}

static void gate_finish(const mh_op *op, int64_t id, int64_t o, int64_t count, const float *dots)
{
    memcpy(gate_up_output(op, id) + o, dots, (size_t)count * 4);
}

/* y holds the gate. */
static void up_finish(const mh_op *op, int64_t id, int64_t o, int64_t count, const float *dots)
{
    float *y = gate_up_output(op, id) + o;
    K(swiglu_row)(y, y, dots, count);
}

void K(experts_gate_up)(const struct host_run *run, const mh_op *op)
{
    const mh_op_experts_gate_up *o = (const void *)op;
    const mh_weight_view *gate = mh_view_weight(o->gate), *up = mh_view_weight(o->up);
    struct grouping by =
        K(group_by_expert)(&o->experts, &o->expert_map, gate->experts, &o->fault, run->scratch);
    struct product p = {op,       {gate, up}, {gate_finish, up_finish},
                        gate->in, gate->out,  .input = row_input};
    p.inputs = o->x.shape[0], p.ids_per_input = o->experts.shape[1];
    p.group_count = by.count, p.groups = by.groups, p.ids = by.ids;
    K(product)(run, &p, after_grouping(run, &o->experts, gate->experts));
}

/* ---- down ---- */

static const float *slot_input(const mh_op *op, int64_t id)
{
    const mh_op_experts_down *o = (const void *)op;
    return row2(&o->x, id / o->x.shape[1], id % o->x.shape[1]);
}

static void down_finish(const mh_op *op, int64_t id, int64_t o, int64_t count, const float *dots)
{
    const mh_op_experts_down *d = (const void *)op;
    memcpy(row2(&d->y, id / d->y.shape[1], id % d->y.shape[1]) + o, dots, (size_t)count * 4);
}

static void run_down(const struct host_run *run, const mh_op_experts_down *o)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    struct grouping by =
        K(group_by_expert)(&o->experts, &o->expert_map, w->experts, &o->fault, run->scratch);
    struct product p = {&o->base, {w}, {down_finish}, w->in, w->out, .input = slot_input};
    p.inputs = o->x.shape[0] * o->x.shape[1], p.ids_per_input = 1;
    p.group_count = by.count, p.groups = by.groups, p.ids = by.ids;
    K(product)(run, &p, after_grouping(run, &o->experts, w->experts));
}

void K(experts_down)(const struct host_run *run, const mh_op *op)
{
    run_down(run, (const void *)op);
}

/* ---- combine ---- */

/* Every expert of the row is here; else a fault. */
static bool row_is_whole(const mh_tensor *experts, const mh_tensor *map, int64_t count,
                         int64_t resident, const mh_tensor *fault, int64_t t)
{
    for (int64_t j = 0; j < experts->shape[1]; j++)
        if (expert_slot(map, count, resident, index_at2(experts, t, j)) < 0) {
            raise_fault(fault);
            return false;
        }
    return true;
}

static void combine_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_combine *o = context;
    int64_t k = o->e.shape[1], resident = o->resident_count ? o->resident_count : INT32_MAX;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        if (o->experts.rank &&
            !row_is_whole(&o->experts, &o->expert_map, o->expert_count, resident, &o->fault, t))
            continue;
        const float *h = row1(&o->h, t), *weights = row1(&o->weights, t);
        const float *shared = o->shared.rank ? row1(&o->shared, t) : NULL;
        float *y = row1(&o->y, t);
        for (int64_t d = 0; d < o->y.shape[1]; d++) {
            float acc = shared ? shared[d] : 0.0f;
            for (int64_t j = 0; j < k; j++)
                acc = fmaf(weights[j], row2(&o->e, t, j)[d], acc);
            y[d] = h[d] + acc;
        }
    }
}

void K(combine)(const struct host_run *run, const mh_op *op)
{
    const mh_op_combine *o = (const void *)op;
    spread(run, o->y.shape[0], o->y.shape[1] * o->e.shape[1], combine_rows, o);
}

/* Its expansion, with the experts' outputs in scratch. */
void K(experts_down_combine)(const struct host_run *run, const mh_op *op)
{
    const mh_op_experts_down_combine *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t rows = o->x.shape[0], k = o->x.shape[1];
    uint64_t offset =
        grouping_bytes(rows * k, w->experts) + product_shared(op, rows * k, rows * k, w->in, false);
    mh_buffer_view memory = {.host = run->scratch};
    mh_op_experts_down down = {.base = *op, .x = o->x, .experts = o->experts};
    down.y = f32_tensor(&memory, offset, 3, rows, k, w->out);
    down.expert_map = o->expert_map, down.fault = o->fault, down.w = o->w;
    run_down(run, &down);
    mh_op_combine combine = {.base = *op, .y = o->y, .h = o->h, .e = down.y};
    combine.weights = o->weights, combine.shared = o->shared, combine.experts = o->experts;
    combine.expert_map = o->expert_map, combine.fault = o->fault;
    combine.expert_count = combine.resident_count = w->experts;
    K(combine)(run, &combine.base);
}
