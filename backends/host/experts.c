/*
 * experts.c: grouped expert products and their combination. Rules 2, 5 and 9. An item is a stretch
 * of output rows of one slot, so that one token keeps all threads busy.
 */
#include "decode.h"
#include "kernels.h"

#define BLOCK 16 /* output rows an item */

static int64_t blocks(int64_t rows)
{
    return (rows + BLOCK - 1) / BLOCK;
}

static void gate_up_items(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_experts_gate_up *o = context;
    const mh_weight_view *gate = mh_view_weight(o->gate), *up = mh_view_weight(o->up);
    int64_t k = o->experts.shape[1], per_slot = blocks(gate->out);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / per_slot / k, j = i / per_slot % k, first = i % per_slot * BLOCK;
        int64_t slot =
            expert_slot(&o->expert_map, gate->experts, gate->experts, index_at2(&o->experts, t, j));
        if (slot == -2)
            raise_fault(&o->fault);
        if (slot < 0)
            continue;
        const float *x = row1(&o->x, t);
        float *y = row2(&o->y, t, j);
        for (int64_t r = first; r < gate->out && r < first + BLOCK; r++) {
            struct weight_row g = weight_row(gate, slot, r), u = weight_row(up, slot, r);
            y[r] = swiglu(dot_weight(&g, x, gate->in), dot_weight(&u, x, gate->in));
        }
    }
}

void K(experts_gate_up)(const struct host_run *run, const mh_op *op)
{
    const mh_op_experts_gate_up *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->gate);
    int64_t slots = o->experts.shape[0] * o->experts.shape[1];
    spread(run, slots * blocks(w->out), 2 * BLOCK * w->in, gate_up_items, o);
}

static void down_items(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_experts_down *o = context;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t k = o->experts.shape[1], per_slot = blocks(w->out);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / per_slot / k, j = i / per_slot % k, first = i % per_slot * BLOCK;
        int64_t slot =
            expert_slot(&o->expert_map, w->experts, w->experts, index_at2(&o->experts, t, j));
        if (slot == -2)
            raise_fault(&o->fault);
        if (slot < 0)
            continue;
        float *y = row2(&o->y, t, j);
        for (int64_t r = first; r < w->out && r < first + BLOCK; r++) {
            struct weight_row row = weight_row(w, slot, r);
            y[r] = dot_weight(&row, row2(&o->x, t, j), w->in);
        }
    }
}

void K(experts_down)(const struct host_run *run, const mh_op *op)
{
    const mh_op_experts_down *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t slots = o->experts.shape[0] * o->experts.shape[1];
    spread(run, slots * blocks(w->out), BLOCK * w->in, down_items, o);
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

static void down_combine_items(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_experts_down_combine *o = context;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t k = o->experts.shape[1], per_row = blocks(w->out);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / per_row, first = i % per_row * BLOCK;
        if (!row_is_whole(&o->experts, &o->expert_map, w->experts, w->experts, &o->fault, t))
            continue;
        const float *h = row1(&o->h, t), *weights = row1(&o->weights, t);
        const float *shared = o->shared.rank ? row1(&o->shared, t) : NULL;
        float *y = row1(&o->y, t);
        for (int64_t r = first; r < w->out && r < first + BLOCK; r++) {
            float acc = shared ? shared[r] : 0.0f;
            for (int64_t j = 0; j < k; j++) {
                int64_t slot = expert_slot(&o->expert_map, w->experts, w->experts,
                                           index_at2(&o->experts, t, j));
                struct weight_row row = weight_row(w, slot, r);
                acc = fmaf(weights[j], dot_weight(&row, row2(&o->x, t, j), w->in), acc);
            }
            y[r] = h[r] + acc;
        }
    }
}

void K(experts_down_combine)(const struct host_run *run, const mh_op *op)
{
    const mh_op_experts_down_combine *o = (const void *)op;
    const mh_weight_view *w = mh_view_weight(o->w);
    spread(run, o->y.shape[0] * blocks(w->out), BLOCK * w->in * o->experts.shape[1],
           down_combine_items, o);
}
