/*
 * ops_fused.c: whole steps of a layer. A step is several launches of the kernels of its parts, with
 * what lies between them in scratch memory: what groups cannot hand over inside a launch, the
 * queue's order does.
 */
#include "ops.h"

/* Scratch as a dense tensor [rows, columns] that begins `offset` bytes into it. */
static mh_tensor scratch_tensor(const struct run *run, mh_buffer_view *view, uint64_t offset,
                                int64_t rows, int64_t columns)
{
    *view = (mh_buffer_view){.handle = run->scratch->handle};
    return (mh_tensor){.buffer = (mh_buffer *)(void *)view,
                       .offset = run->scratch->offset + offset,
                       .dtype = MH_F32,
                       .rank = 2,
                       .shape = {rows, columns},
                       .stride = {4 * columns, 4}};
}

static uint64_t matrix_bytes(int64_t rows, int64_t columns)
{
    return ((uint64_t)(4 * rows * columns) + 255) & ~UINT64_C(255);
}

/* The same, with scratch that begins `taken` bytes later. */
static struct run run_behind(const struct run *run, uint64_t taken, mh_scratch *rest)
{
    struct run behind = *run;
    *rest = *run->scratch;
    rest->offset += taken;
    rest->size -= taken;
    behind.scratch = rest;
    return behind;
}

/* The normed rows. */
SCRATCH(norm_linear)
{
    const mh_op_norm_linear *o = (const void *)op;
    return matrix_bytes(o->x.shape[0], o->x.shape[1]) +
           many_bytes(device, o->x.shape[0], 1, o->x.shape[1]);
}

ENCODE(norm_linear)
{
    const mh_op_norm_linear *o = (const void *)op;
    mh_buffer_view view;
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    norm.y = scratch_tensor(run, &view, 0, o->x.shape[0], o->x.shape[1]);
    norm.x = o->x, norm.w = o->norm, norm.eps = o->eps;
    mh_op_linear first = MH_OP_INIT(linear, LINEAR), second = first;
    first.y = o->y, first.x = norm.y, first.w = o->w;
    second.y = o->y2, second.x = norm.y, second.w = o->w2;
    mh_status status = encode_rmsnorm(run, &norm.base);
    mh_scratch rest;
    const struct run behind = run_behind(run, matrix_bytes(o->x.shape[0], o->x.shape[1]), &rest);
    if (status)
        return status;
    if (o->w2 && o->x.shape[0] < FEW)
        return launch_linear(&behind, &(struct linear){.y = &o->y,
                                                       .x = &norm.y,
                                                       .w = o->w,
                                                       .up = o->w2,
                                                       .heads = 1,
                                                       .out = mh_view_weight(o->w)->out,
                                                       .y2 = &o->y2});
    status = encode_linear(&behind, &first.base);
    return status || !o->w2 ? status : encode_linear(&behind, &second.base);
}

static mh_op_mla_query query_of(const mh_op_mla_qkv *o)
{
    mh_op_mla_query query = MH_OP_INIT(mla_query, MLA_QUERY);
    query.y = o->y, query.q = o->q, query.table = o->table, query.positions = o->positions;
    query.fault = o->fault, query.w = o->w, query.head_rows = o->head_rows;
    return query;
}

SCRATCH(mla_qkv)
{
    const mh_op_mla_query query = query_of((const void *)op);
    return scratch_mla_query(device, &query.base);
}

ENCODE(mla_qkv)
{
    const mh_op_mla_qkv *o = (const void *)op;
    mh_op_mla_kv kv = MH_OP_INIT(mla_kv, MLA_KV);
    kv.cache = o->cache, kv.kv = o->kv, kv.norm = o->norm, kv.table = o->table;
    kv.positions = o->positions, kv.slots = o->slots, kv.page_table = o->page_table;
    kv.fault = o->fault, kv.eps = o->eps;
    const mh_op_mla_query query = query_of(o);
    mh_status status = encode_mla_kv(run, &kv.base);
    return status ? status : encode_mla_query(run, &query.base);
}

static mh_op_router_linear route_of(const mh_op_norm_router *o)
{
    mh_op_router_linear route = MH_OP_INIT(router_linear, ROUTER_LINEAR);
    route.experts = o->experts, route.weights = o->weights, route.x = o->y;
    route.bias = o->bias, route.w = o->w, route.rule = o->rule;
    return route;
}

SCRATCH(norm_router)
{
    const mh_op_norm_router *o = (const void *)op;
    const mh_op_router_linear route = route_of(o);
    return scratch_router_linear(device, &route.base);
}

ENCODE(norm_router)
{
    const mh_op_norm_router *o = (const void *)op;
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    norm.y = o->y, norm.x = o->x, norm.w = o->norm, norm.eps = o->eps;
    const mh_op_router_linear route = route_of(o);
    mh_status status = encode_rmsnorm(run, &norm.base);
    return status ? status : encode_router_linear(run, &route.base);
}

static mh_op_experts_gate_up routed_up(const mh_op_moe_gate_up *o)
{
    mh_op_experts_gate_up routed = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
    routed.y = o->y, routed.x = o->x, routed.experts = o->experts;
    routed.expert_map = o->expert_map, routed.fault = o->fault;
    routed.gate = o->gate, routed.up = o->up;
    return routed;
}

static mh_op_linear_swiglu shared_up(const mh_op_moe_gate_up *o)
{
    mh_op_linear_swiglu shared = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
    shared.y = o->shared_y, shared.x = o->x;
    shared.gate = o->shared_gate, shared.up = o->shared_up;
    return shared;
}

/* One after the other. */
SCRATCH(moe_gate_up)
{
    const mh_op_experts_gate_up routed = routed_up((const void *)op);
    const mh_op_linear_swiglu shared = shared_up((const void *)op);
    uint64_t first = scratch_experts_gate_up(device, &routed.base);
    uint64_t second = scratch_linear_swiglu(device, &shared.base);
    return first > second ? first : second;
}

ENCODE(moe_gate_up)
{
    const mh_op_moe_gate_up *o = (const void *)op;
    if (o->x.shape[0] < FEW)
        return launch_moe_up(run, o);
    const mh_op_experts_gate_up routed = routed_up(o);
    const mh_op_linear_swiglu shared = shared_up(o);
    mh_status status = encode_experts_gate_up(run, &routed.base);
    return status ? status : encode_linear_swiglu(run, &shared.base);
}

static mh_op_experts_down_combine routed_down(const mh_op_moe_down_combine *o)
{
    mh_op_experts_down_combine routed = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
    routed.y = o->y, routed.h = o->h, routed.x = o->x, routed.weights = o->weights;
    routed.experts = o->experts, routed.expert_map = o->expert_map;
    routed.fault = o->fault, routed.w = o->w;
    return routed;
}

/* For many tokens the shared experts' output, then what either product wants. */
SCRATCH(moe_down_combine)
{
    const mh_op_moe_down_combine *o = (const void *)op;
    if (o->y.shape[0] < FEW)
        return 0;
    const mh_op_experts_down_combine routed = routed_down(o);
    uint64_t first = many_bytes(device, o->y.shape[0], 1, mh_view_weight(o->shared_w)->in);
    uint64_t second = scratch_experts_down_combine(device, &routed.base);
    return matrix_bytes(o->y.shape[0], o->y.shape[1]) + (first > second ? first : second);
}

ENCODE(moe_down_combine)
{
    const mh_op_moe_down_combine *o = (const void *)op;
    mh_op_experts_down_combine routed = routed_down(o);
    routed.shared = o->shared_x;
    if (o->y.shape[0] < FEW)
        return launch_down_combine(run, &routed, o->shared_w);
    uint64_t taken = matrix_bytes(o->y.shape[0], o->y.shape[1]);
    mh_buffer_view view;
    mh_op_linear shared = MH_OP_INIT(linear, LINEAR);
    shared.y = scratch_tensor(run, &view, 0, o->y.shape[0], o->y.shape[1]);
    shared.x = o->shared_x, shared.w = o->shared_w;
    routed.shared = shared.y;
    mh_scratch rest;
    const struct run behind = run_behind(run, taken, &rest);
    mh_status status = encode_linear(&behind, &shared.base);
    return status ? status : encode_experts_down_combine(&behind, &routed.base);
}
