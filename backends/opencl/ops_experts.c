/* ops_experts.c: ops of kernels/experts.cl. */
#include "ops.h"

/* What the ops of a bank share. */
struct slots {
    const mh_tensor *experts, *map, *fault;
    int64_t resident;
};

static int64_t tokens_of(const struct slots *s)
{
    return s->experts->shape[0];
}

static void arg_slots(struct launch *l, const struct slots *s)
{
    arg_tensor(l, s->experts);
    arg_optional(l, s->map, s->fault);
    arg_long(l, s->map->rank ? s->map->shape[0] : s->resident);
    arg_long(l, s->resident);
    arg_long(l, s->experts->shape[1]);
}

/* The lists of kernel group_slots, in front of whatever else is in the scratch. */
static uint64_t list_bytes(const mh_tensor *experts, const mh_weight *w)
{
    uint64_t bytes =
        4 * (uint64_t)(mh_view_weight(w)->experts + 1 + experts->shape[0] * experts->shape[1]);
    return (bytes + 255) & ~UINT64_C(255);
}

static mh_status launch_lists(const struct run *run, const struct slots *s)
{
    struct launch l = launch_begin(run, KERNEL_group_slots, 0);
    arg_slots(&l, s);
    arg_scratch(&l, 0, 0);
    arg_fault(&l, s->fault);
    arg_long(&l, tokens_of(s));
    return launch_end(&l, 1, 1, 1);
}

/* For many tokens: lists, what `more` is, what kernel `many` wants. */
static uint64_t slots_bytes(const struct device *device, const mh_tensor *experts,
                            const mh_tensor *x, const mh_weight *w, uint64_t more)
{
    if (experts->shape[0] < FEW)
        return 0;
    int64_t slots = x->rank == 3 ? x->shape[1] : 1;
    return list_bytes(experts, w) + more +
           many_bytes(device, x->shape[0], slots, mh_view_weight(w)->in);
}

SCRATCH(experts_gate_up)
{
    const mh_op_experts_gate_up *o = (const void *)op;
    return slots_bytes(device, &o->experts, &o->x, o->gate, 0);
}

/* The shared experts of few tokens. */
struct shared {
    const mh_tensor *y;
    const mh_weight *gate, *up;
};

/* y is a tensor, or `y_bytes` of the scratch behind the lists; x has a row a token, or one a slot.
 * `shared` may be NULL. */
static mh_status launch_slots(const struct run *run, const struct slots *s, const mh_tensor *y,
                              uint64_t y_bytes, const mh_tensor *x, const mh_weight *weight,
                              const mh_weight *up, const struct shared *shared)
{
    const mh_weight_view *w = mh_view_weight(weight);
    int64_t slots = s->experts->shape[1];
    if (tokens_of(s) >= FEW) {
        uint64_t taken = list_bytes(s->experts, weight);
        mh_status status = launch_lists(run, s);
        return status ? status
                      : launch_many(run, &(struct many){.y = y,
                                                        .y_at = taken,
                                                        .x = x,
                                                        .w = weight,
                                                        .up = up,
                                                        .groups = s->resident,
                                                        .slots = slots,
                                                        .rows = w->out,
                                                        .lists = true,
                                                        .scratch_at = taken + y_bytes});
    }
    int64_t block = row_block(run->device, w->out, 0, slots * tokens_of(s));
    int64_t shared_out = shared ? mh_view_weight(shared->gate)->out : 0;
    int64_t more = blocks(blocks(shared_out, block), blocks(w->out, block));
    struct launch l = launch_begin(run, KERNEL_experts_linear, w->format);
    arg_tensor(&l, y);
    arg_tensor(&l, x);
    arg_int(&l, x->rank == 3);
    arg_slots(&l, s);
    arg_weight(&l, weight);
    arg_weight(&l, up ? up : weight);
    arg_int(&l, up != NULL);
    arg_fault(&l, s->fault);
    arg_long(&l, w->out);
    arg_long(&l, w->in);
    arg_tensor(&l, shared ? shared->y : x);
    arg_weight(&l, shared ? shared->gate : weight);
    arg_weight(&l, shared ? shared->up : weight);
    arg_long(&l, shared_out);
    arg_int(&l, (int)block);
    return launch_end(&l, blocks(w->out, block), slots + more, tokens_of(s));
}

ENCODE(experts_gate_up)
{
    const mh_op_experts_gate_up *o = (const void *)op;
    const struct slots s = {&o->experts, &o->expert_map, &o->fault,
                            mh_view_weight(o->gate)->experts};
    return launch_slots(run, &s, &o->y, 0, &o->x, o->gate, o->up, NULL);
}

mh_status launch_moe_up(const struct run *run, const mh_op_moe_gate_up *o)
{
    const struct slots s = {&o->experts, &o->expert_map, &o->fault,
                            mh_view_weight(o->gate)->experts};
    return launch_slots(run, &s, &o->y, 0, &o->x, o->gate, o->up,
                        &(struct shared){&o->shared_y, o->shared_gate, o->shared_up});
}

SCRATCH(experts_down)
{
    const mh_op_experts_down *o = (const void *)op;
    return slots_bytes(device, &o->experts, &o->x, o->w, 0);
}

ENCODE(experts_down)
{
    const mh_op_experts_down *o = (const void *)op;
    const struct slots s = {&o->experts, &o->expert_map, &o->fault, mh_view_weight(o->w)->experts};
    return launch_slots(run, &s, &o->y, 0, &o->x, o->w, NULL, NULL);
}

/* For many tokens the slots' outputs [T, k, D]. */
static uint64_t output_bytes(const mh_op_experts_down_combine *o)
{
    uint64_t slots = (uint64_t)(o->experts.shape[0] * o->experts.shape[1]);
    return (4 * slots * (uint64_t)o->y.shape[1] + 255) & ~UINT64_C(255);
}

SCRATCH(experts_down_combine)
{
    const mh_op_experts_down_combine *o = (const void *)op;
    return slots_bytes(device, &o->experts, &o->x, o->w, output_bytes(o));
}

static mh_status down_then_combine(const struct run *run, const mh_op_experts_down_combine *o,
                                   const struct slots *s)
{
    int64_t slots = o->experts.shape[1], size = o->y.shape[1];
    uint64_t y_at = list_bytes(&o->experts, o->w);
    mh_status status = launch_slots(run, s, NULL, output_bytes(o), &o->x, o->w, NULL, NULL);
    if (status)
        return status;
    struct launch l = launch_begin(run, KERNEL_combine, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->h);
    arg_scratch3(&l, y_at, slots * size, size);
    arg_tensor(&l, &o->weights);
    arg_optional(&l, &o->shared, &o->h);
    arg_optional(&l, &o->experts, &o->fault);
    arg_optional(&l, &o->expert_map, &o->fault);
    arg_fault(&l, &o->fault);
    arg_long(&l, size);
    arg_long(&l, slots);
    arg_long(&l, o->expert_map.rank ? o->expert_map.shape[0] : s->resident);
    arg_long(&l, s->resident);
    return launch_end(&l, blocks(size, 1024), o->y.shape[0], 1);
}

mh_status launch_down_combine(const struct run *run, const mh_op_experts_down_combine *o,
                              const mh_weight *shared_w)
{
    const mh_weight_view *w = mh_view_weight(o->w);
    const struct slots s = {&o->experts, &o->expert_map, &o->fault, w->experts};
    if (tokens_of(&s) >= FEW)
        return down_then_combine(run, o, &s);
    struct launch l = launch_begin(run, KERNEL_experts_down_combine, w->format);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->h);
    arg_tensor(&l, &o->x);
    arg_tensor(&l, &o->weights);
    arg_optional(&l, &o->shared, &o->h);
    arg_weight(&l, shared_w ? shared_w : o->w);
    arg_int(&l, shared_w != NULL);
    arg_long(&l, shared_w ? mh_view_weight(shared_w)->in : 0);
    arg_slots(&l, &s);
    arg_weight(&l, o->w);
    arg_fault(&l, &o->fault);
    arg_long(&l, w->out);
    arg_long(&l, w->in);
    int64_t tokens = tokens_of(&s);
    int64_t block = run->device->form == FORM_CPU ? row_block(run->device, w->out, 0, tokens) : 1;
    arg_int(&l, (int)block);
    return launch_end(&l, blocks(w->out, block), tokens, 1);
}

ENCODE(experts_down_combine)
{
    return launch_down_combine(run, (const void *)op, NULL);
}
