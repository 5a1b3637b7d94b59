/*
 * fused.c: the fused steps of a layer as the ops that have kernels of their own (op.h: expansions),
 * one after the other. What passes between them lies before their scratch.
 */
#include "kernels.h"

static mh_tensor temporary(mh_buffer *buffer, int64_t rows, int64_t columns)
{
    return (mh_tensor){.buffer = buffer,
                       .dtype = MH_F32,
                       .rank = 2,
                       .shape = {rows, columns},
                       .stride = {4 * columns, 4}};
}

static uint64_t temporary_bytes(const mh_op *op)
{
    if (op->op == MH_OP_NORM_LINEAR) {
        const mh_tensor *x = &((const mh_op_norm_linear *)op)->x;
        return (4 * (uint64_t)(x->shape[0] * x->shape[1]) + 63) & ~UINT64_C(63);
    }
    if (op->op == MH_OP_MOE_DOWN_COMBINE) {
        const mh_tensor *y = &((const mh_op_moe_down_combine *)op)->y;
        return (4 * (uint64_t)(y->shape[0] * y->shape[1]) + 63) & ~UINT64_C(63);
    }
    return 0;
}

static uint32_t split_norm_linear(const mh_op_norm_linear *o, mh_buffer *buffer,
                                  union host_part *part)
{
    mh_tensor normed = temporary(buffer, o->x.shape[0], o->x.shape[1]);
    part[0].rmsnorm = MH_OP_INIT(rmsnorm, RMSNORM);
    part[0].rmsnorm.y = normed, part[0].rmsnorm.x = o->x;
    part[0].rmsnorm.w = o->norm, part[0].rmsnorm.eps = o->eps;
    part[1].linear = MH_OP_INIT(linear, LINEAR);
    part[1].linear.y = o->y, part[1].linear.x = normed, part[1].linear.w = o->w;
    part[2].linear = MH_OP_INIT(linear, LINEAR);
    part[2].linear.y = o->y2, part[2].linear.x = normed, part[2].linear.w = o->w2;
    return o->w2 ? 3 : 2;
}

static uint32_t split_mla_qkv(const mh_op_mla_qkv *o, union host_part *part)
{
    mh_op_mla_kv *kv = &part[0].mla_kv;
    *kv = MH_OP_INIT(mla_kv, MLA_KV);
    kv->cache = o->cache, kv->kv = o->kv, kv->norm = o->norm, kv->table = o->table;
    kv->positions = o->positions, kv->slots = o->slots, kv->page_table = o->page_table;
    kv->fault = o->fault, kv->eps = o->eps;
    mh_op_mla_query *query = &part[1].mla_query;
    *query = MH_OP_INIT(mla_query, MLA_QUERY);
    query->y = o->y, query->q = o->q, query->table = o->table, query->positions = o->positions;
    query->fault = o->fault, query->w = o->w, query->head_rows = o->head_rows;
    return 2;
}

static uint32_t split_norm_router(const mh_op_norm_router *o, union host_part *part)
{
    part[0].rmsnorm = MH_OP_INIT(rmsnorm, RMSNORM);
    part[0].rmsnorm.y = o->y, part[0].rmsnorm.x = o->x;
    part[0].rmsnorm.w = o->norm, part[0].rmsnorm.eps = o->eps;
    mh_op_router_linear *route = &part[1].router_linear;
    *route = MH_OP_INIT(router_linear, ROUTER_LINEAR);
    route->experts = o->experts, route->weights = o->weights, route->x = o->y;
    route->bias = o->bias, route->w = o->w, route->rule = o->rule;
    return 2;
}

static uint32_t split_moe_gate_up(const mh_op_moe_gate_up *o, union host_part *part)
{
    mh_op_experts_gate_up *routed = &part[0].experts_gate_up;
    *routed = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
    routed->y = o->y, routed->x = o->x, routed->experts = o->experts;
    routed->expert_map = o->expert_map, routed->fault = o->fault;
    routed->gate = o->gate, routed->up = o->up;
    mh_op_linear_swiglu *shared = &part[1].linear_swiglu;
    *shared = MH_OP_INIT(linear_swiglu, LINEAR_SWIGLU);
    shared->y = o->shared_y, shared->x = o->x;
    shared->gate = o->shared_gate, shared->up = o->shared_up;
    return 2;
}

static uint32_t split_moe_down_combine(const mh_op_moe_down_combine *o, mh_buffer *buffer,
                                       union host_part *part)
{
    mh_op_linear *shared = &part[0].linear;
    *shared = MH_OP_INIT(linear, LINEAR);
    shared->y = temporary(buffer, o->y.shape[0], o->y.shape[1]);
    shared->x = o->shared_x, shared->w = o->shared_w;
    mh_op_experts_down_combine *routed = &part[1].experts_down_combine;
    *routed = MH_OP_INIT(experts_down_combine, EXPERTS_DOWN_COMBINE);
    routed->y = o->y, routed->h = o->h, routed->x = o->x, routed->weights = o->weights;
    routed->shared = shared->y, routed->experts = o->experts;
    routed->expert_map = o->expert_map, routed->fault = o->fault, routed->w = o->w;
    return 2;
}

uint64_t K(split)(const mh_op *op, mh_buffer *buffer, union host_part part[HOST_PARTS],
                  uint32_t *count)
{
    switch (op->op) {
    case MH_OP_NORM_LINEAR:
        *count = split_norm_linear((const void *)op, buffer, part);
        break;
    case MH_OP_MLA_QKV:
        *count = split_mla_qkv((const void *)op, part);
        break;
    case MH_OP_NORM_ROUTER:
        *count = split_norm_router((const void *)op, part);
        break;
    case MH_OP_MOE_GATE_UP:
        *count = split_moe_gate_up((const void *)op, part);
        break;
    case MH_OP_MOE_DOWN_COMBINE:
        *count = split_moe_down_combine((const void *)op, buffer, part);
        break;
    default:
        *count = 0;
    }
    for (uint32_t i = 0; i < *count; i++)
        part[i].base.flags = op->flags;
    return temporary_bytes(op);
}

static void run_parts(const struct host_run *run, const mh_op *op)
{
    mh_buffer_view view = {.handle = run->scratch, .host = run->scratch};
    union host_part part[HOST_PARTS];
    uint32_t count;
    uint64_t taken = K(split)(op, (mh_buffer *)(void *)&view, part, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct host_run one = {
            .pool = run->pool, .fast = run->fast, .scratch = run->scratch + taken};
        host_scratch(&part[i].base, &one.shared, &one.per_thread);
        JOIN(host_kernels, ISA)[part[i].base.op](&one, &part[i].base);
    }
}

void K(norm_linear)(const struct host_run *run, const mh_op *op)
{
    run_parts(run, op);
}

void K(mla_qkv)(const struct host_run *run, const mh_op *op)
{
    run_parts(run, op);
}

void K(norm_router)(const struct host_run *run, const mh_op *op)
{
    run_parts(run, op);
}

void K(moe_gate_up)(const struct host_run *run, const mh_op *op)
{
    run_parts(run, op);
}

void K(moe_down_combine)(const struct host_run *run, const mh_op *op)
{
    run_parts(run, op);
}
