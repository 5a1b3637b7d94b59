/*
 * expand.c: fused ops as simpler ones, in the end as primitives, with equal bits under exact. A
 * port needs only the primitives for everything to run on its device.
 */
#include <string.h>

#include "hal.h"

struct expansion {
    const mh_op *op;
    mh_buffer *arena;
    uint64_t used;
    hal_emit_fn emit;
    void *context;
};

static mh_tensor temporary(struct expansion *x, uint32_t rank, int64_t a, int64_t b, int64_t c)
{
    const int64_t shape[] = {a, b, c};
    mh_tensor t = mh_tensor_make(x->arena, x->used, MH_F32, rank, shape);
    uint64_t bytes = 4 * (uint64_t)a * (uint64_t)b * (rank > 2 ? (uint64_t)c : 1);
    x->used += (bytes + 255) & ~UINT64_C(255);
    return t;
}

static mh_status emit(struct expansion *x, mh_op *part)
{
    part->flags = x->op->flags;
    part->layer = x->op->layer;
    part->label = x->op->label;
    return x->emit(x->context, part, x->used);
}

#define EMIT(op) emit(x, &(op).base)

/* [T, N] seen as [T, 1, N]. */
static mh_tensor as_one_head(mh_tensor t)
{
    t.rank = 3;
    t.shape[2] = t.shape[1], t.stride[2] = t.stride[1];
    t.shape[1] = 1, t.stride[1] = t.stride[0];
    return t;
}

static mh_status rmsnorm(struct expansion *x, const mh_op_rmsnorm *o)
{
    mh_op_add add = MH_OP_INIT(add, ADD);
    add.y = o->sum, add.a = o->x, add.b = o->residual;
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    norm.y = o->y, norm.x = o->sum, norm.w = o->w, norm.eps = o->eps;
    mh_status status = EMIT(add);
    return status ? status : EMIT(norm);
}

static mh_status linear_add(struct expansion *x, const mh_op_linear_add *o)
{
    mh_op_linear linear = MH_OP_INIT(linear, LINEAR);
    linear.y = temporary(x, 2, o->y.shape[0], o->y.shape[1], 0);
    linear.x = o->x, linear.w = o->w;
    mh_op_add add = MH_OP_INIT(add, ADD);
    add.y = o->y, add.a = o->residual, add.b = linear.y;
    mh_status status = EMIT(linear);
    return status ? status : EMIT(add);
}

static mh_status linear_swiglu(struct expansion *x, const mh_op_linear_swiglu *o)
{
    mh_op_linear gate = MH_OP_INIT(linear, LINEAR), up = gate;
    gate.x = up.x = o->x;
    gate.y = temporary(x, 2, o->y.shape[0], o->y.shape[1], 0);
    up.y = temporary(x, 2, o->y.shape[0], o->y.shape[1], 0);
    gate.w = o->gate, up.w = o->up;
    mh_op_swiglu swiglu = MH_OP_INIT(swiglu, SWIGLU);
    swiglu.y = o->y, swiglu.gate = gate.y, swiglu.up = up.y;
    mh_status status = EMIT(gate);
    if (!status)
        status = EMIT(up);
    return status ? status : EMIT(swiglu);
}

static mh_status mla_kv(struct expansion *x, const mh_op_mla_kv *o)
{
    int64_t rows = o->kv.shape[0], latent = o->norm.shape[0], rotary = o->table.shape[1];
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    norm.x = mh_tensor_slice(o->kv, 1, 0, latent);
    norm.y = temporary(x, 2, rows, latent, 0);
    norm.w = o->norm, norm.eps = o->eps;
    mh_op_rope rope = MH_OP_INIT(rope, ROPE);
    mh_tensor rotated = temporary(x, 2, rows, rotary, 0);
    rope.x = as_one_head(mh_tensor_slice(o->kv, 1, latent, rotary));
    rope.y = as_one_head(rotated);
    rope.table = o->table, rope.positions = o->positions, rope.fault = o->fault;
    mh_op_kv_write write = MH_OP_INIT(kv_write, KV_WRITE);
    write.cache = o->cache, write.latent = norm.y, write.rope = rotated;
    write.positions = o->positions, write.slots = o->slots;
    write.page_table = o->page_table, write.fault = o->fault;
    mh_status status = EMIT(norm);
    if (!status)
        status = EMIT(rope);
    return status ? status : EMIT(write);
}

static mh_status mla_query(struct expansion *x, const mh_op_mla_query *o)
{
    int64_t rotary = o->table.shape[1], nope = o->q.shape[2] - rotary;
    int64_t latent = o->y.shape[2] - rotary;
    mh_op_head_linear absorb = MH_OP_INIT(head_linear, HEAD_LINEAR);
    absorb.x = mh_tensor_slice(o->q, 2, 0, nope);
    absorb.y = mh_tensor_slice(o->y, 2, 0, latent);
    absorb.w = o->w, absorb.head_rows = o->head_rows, absorb.row_count = nope;
    absorb.transposed = 1;
    mh_op_rope rope = MH_OP_INIT(rope, ROPE);
    rope.x = mh_tensor_slice(o->q, 2, nope, rotary);
    rope.y = mh_tensor_slice(o->y, 2, latent, rotary);
    rope.table = o->table, rope.positions = o->positions, rope.fault = o->fault;
    mh_status status = EMIT(absorb);
    return status ? status : EMIT(rope);
}

static mh_status router_linear(struct expansion *x, const mh_op_router_linear *o)
{
    mh_op_linear linear = MH_OP_INIT(linear, LINEAR);
    linear.x = o->x, linear.w = o->w;
    linear.y = temporary(x, 2, o->x.shape[0], o->w->view.out, 0);
    mh_op_router router = MH_OP_INIT(router, ROUTER);
    router.experts = o->experts, router.weights = o->weights;
    router.logits = linear.y, router.bias = o->bias, router.rule = o->rule;
    mh_status status = EMIT(linear);
    return status ? status : EMIT(router);
}

static mh_status experts_down_combine(struct expansion *x, const mh_op_experts_down_combine *o)
{
    mh_op_experts_down down = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    down.x = o->x, down.experts = o->experts, down.expert_map = o->expert_map;
    down.w = o->w, down.fault = o->fault;
    down.y = temporary(x, 3, o->x.shape[0], o->x.shape[1], o->y.shape[1]);
    mh_op_combine combine = MH_OP_INIT(combine, COMBINE);
    combine.y = o->y, combine.h = o->h, combine.e = down.y;
    combine.weights = o->weights, combine.shared = o->shared;
    combine.experts = o->experts, combine.expert_map = o->expert_map, combine.fault = o->fault;
    combine.expert_count = o->expert_map.rank ? o->expert_map.shape[0] : o->w->view.experts;
    combine.resident_count = o->w->view.experts;
    mh_status status = EMIT(down);
    return status ? status : EMIT(combine);
}

static mh_status norm_linear(struct expansion *x, const mh_op_norm_linear *o)
{
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    norm.x = o->x, norm.w = o->norm, norm.eps = o->eps;
    norm.y = temporary(x, 2, o->x.shape[0], o->x.shape[1], 0);
    mh_op_linear first = MH_OP_INIT(linear, LINEAR), second = first;
    first.y = o->y, first.x = norm.y, first.w = o->w;
    second.y = o->y2, second.x = norm.y, second.w = o->w2;
    mh_status status = EMIT(norm);
    if (!status)
        status = EMIT(first);
    return status || !o->w2 ? status : EMIT(second);
}

static mh_status mla_qkv(struct expansion *x, const mh_op_mla_qkv *o)
{
    mh_op_mla_kv kv = MH_OP_INIT(mla_kv, MLA_KV);
    kv.cache = o->cache, kv.kv = o->kv, kv.norm = o->norm, kv.table = o->table;
    kv.positions = o->positions, kv.slots = o->slots, kv.page_table = o->page_table;
    kv.fault = o->fault, kv.eps = o->eps;
    mh_op_mla_query query = MH_OP_INIT(mla_query, MLA_QUERY);
    query.y = o->y, query.q = o->q, query.table = o->table, query.positions = o->positions;
    query.fault = o->fault, query.w = o->w, query.head_rows = o->head_rows;
    mh_status status = EMIT(kv);
    return status ? status : EMIT(query);
}

static mh_status norm_router(struct expansion *x, const mh_op_norm_router *o)
{
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    norm.y = o->y, norm.x = o->x, norm.w = o->norm, norm.eps = o->eps;
    mh_op_router_linear route = MH_OP_INIT(router_linear, ROUTER_LINEAR);
    route.experts = o->experts, route.weights = o->weights, route.x = o->y;
    route.bias = o->bias, route.w = o->w, route.rule = o->rule;
    mh_status status = EMIT(norm);
    return status ? status : EMIT(route);
}

static mh_status moe_gate_up(struct expansion *x, const mh_op_moe_gate_up *o)
{
    mh_op_experts_gate_up routed = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
    routed.y = o->y, routed.x = o->x, routed.experts = o->experts;
    routed.expert_map = o->expert_map, routed.fault = o->fault;
    routed.gate = o->gate, routed.up = o->up;
    mh_op_linear_swiglu shared = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
    shared.y = o->shared_y, shared.x = o->x;
    shared.gate = o->shared_gate, shared.up = o->shared_up;
    mh_status status = EMIT(routed);
    return status ? status : EMIT(shared);
}

static mh_status moe_down_combine(struct expansion *x, const mh_op_moe_down_combine *o)
{
    mh_op_linear shared = MH_OP_INIT(linear, LINEAR);
    shared.x = o->shared_x, shared.w = o->shared_w;
    shared.y = temporary(x, 2, o->y.shape[0], o->y.shape[1], 0);
    mh_op_experts_down_combine routed = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
    routed.y = o->y, routed.h = o->h, routed.x = o->x, routed.weights = o->weights;
    routed.shared = shared.y, routed.experts = o->experts, routed.expert_map = o->expert_map;
    routed.fault = o->fault, routed.w = o->w;
    mh_status status = EMIT(shared);
    return status ? status : EMIT(routed);
}

mh_status hal_expand(const mh_op *op, mh_buffer *arena, uint64_t used, hal_emit_fn emit_fn,
                     void *context)
{
    struct expansion expansion = {op, arena, used, emit_fn, context}, *x = &expansion;
    switch (op->op) {
    case MH_OP_RMSNORM:
        if (!((const mh_op_rmsnorm *)op)->residual.rank)
            return MH_NOT_FOUND;
        return rmsnorm(x, (const void *)op);
#define EXPAND(NAME, name)                                                                         \
    case MH_OP_##NAME:                                                                             \
        return name(x, (const void *)op);
        EXPAND(LINEAR_ADD, linear_add)
        EXPAND(LINEAR_SWIGLU, linear_swiglu)
        EXPAND(MLA_KV, mla_kv)
        EXPAND(MLA_QUERY, mla_query)
        EXPAND(ROUTER_LINEAR, router_linear)
        EXPAND(EXPERTS_DOWN_COMBINE, experts_down_combine)
        EXPAND(NORM_LINEAR, norm_linear)
        EXPAND(MLA_QKV, mla_qkv)
        EXPAND(NORM_ROUTER, norm_router)
        EXPAND(MOE_GATE_UP, moe_gate_up)
        EXPAND(MOE_DOWN_COMBINE, moe_down_combine)
#undef EXPAND
    default:
        return MH_NOT_FOUND;
    }
}
