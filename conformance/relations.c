/* relations.c: a fused op against the primitives that op.h names, written down once more here,
 * attention against its parts, and each row alone against the row among others. Bit for bit: both
 * are laws of docs/numerics.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

struct rerun {
    struct conf_side *side;
    const struct conf_build *b;
    mh_buffer *scratch;
    uint64_t used;
    mh_status status;
};

static mh_tensor temporary(struct rerun *x, int64_t a, int64_t b, int64_t c)
{
    const int64_t shape[] = {a, b, c};
    mh_tensor t = mh_tensor_make(x->scratch, x->used, MH_F32, c ? 3 : 2, shape);
    x->used += ((uint64_t)(a * b * (c ? c : 1)) * 4 + 255) & ~UINT64_C(255);
    return t;
}

static void encode(struct rerun *x, const mh_op *op)
{
    if (!x->status)
        x->status = mh_encode(mh_stream_encoder(x->side->stream), op);
}

/* ---- fused ops as primitives ---- */

static mh_tensor one_head(mh_tensor t)
{
    t.rank = 3;
    t.shape[2] = t.shape[1], t.stride[2] = t.stride[1];
    t.shape[1] = 1, t.stride[1] = t.stride[0];
    return t;
}

static void linear(struct rerun *x, mh_tensor y, mh_tensor input, mh_weight *w)
{
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    op.y = y, op.x = input, op.w = w;
    encode(x, &op.base);
}

static void add(struct rerun *x, mh_tensor y, mh_tensor a, mh_tensor b)
{
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = y, op.a = a, op.b = b;
    encode(x, &op.base);
}

static void rmsnorm(struct rerun *x, mh_tensor y, mh_tensor input, mh_tensor w, float eps)
{
    mh_op_rmsnorm op = MH_OP_INIT(rmsnorm, RMSNORM);
    op.y = y, op.x = input, op.w = w, op.eps = eps;
    encode(x, &op.base);
}

static void linear_swiglu(struct rerun *x, const mh_op_linear_swiglu *o)
{
    mh_op_swiglu op = MH_OP_INIT(swiglu, SWIGLU);
    op.y = o->y;
    op.gate = temporary(x, o->y.shape[0], o->y.shape[1], 0);
    op.up = temporary(x, o->y.shape[0], o->y.shape[1], 0);
    linear(x, op.gate, o->x, o->gate);
    linear(x, op.up, o->x, o->up);
    encode(x, &op.base);
}

static void mla_kv(struct rerun *x, const mh_op_mla_kv *o)
{
    int64_t rows = o->kv.shape[0], latent = o->norm.shape[0], rotary = o->table.shape[1];
    mh_op_kv_write write = MH_OP_INIT(kv_write, KV_WRITE);
    write.latent = temporary(x, rows, latent, 0);
    write.rope = temporary(x, rows, rotary, 0);
    rmsnorm(x, write.latent, mh_tensor_slice(o->kv, 1, 0, latent), o->norm, o->eps);
    mh_op_rope rope = MH_OP_INIT(rope, ROPE);
    rope.y = one_head(write.rope), rope.x = one_head(mh_tensor_slice(o->kv, 1, latent, rotary));
    rope.table = o->table, rope.positions = o->positions, rope.fault = o->fault;
    encode(x, &rope.base);
    write.cache = o->cache, write.positions = o->positions, write.slots = o->slots;
    write.page_table = o->page_table, write.fault = o->fault;
    encode(x, &write.base);
}

static void mla_query(struct rerun *x, const mh_op_mla_query *o)
{
    int64_t latent = o->y.shape[2] - o->table.shape[1], nope = o->q.shape[2] - o->table.shape[1];
    mh_op_head_linear absorb = MH_OP_INIT(head_linear, HEAD_LINEAR);
    absorb.y = mh_tensor_slice(o->y, 2, 0, latent), absorb.x = mh_tensor_slice(o->q, 2, 0, nope);
    absorb.w = o->w, absorb.head_rows = o->head_rows, absorb.row_count = nope;
    absorb.transposed = 1;
    encode(x, &absorb.base);
    mh_op_rope rope = MH_OP_INIT(rope, ROPE);
    rope.y = mh_tensor_slice(o->y, 2, latent, o->table.shape[1]);
    rope.x = mh_tensor_slice(o->q, 2, nope, o->table.shape[1]);
    rope.table = o->table, rope.positions = o->positions, rope.fault = o->fault;
    encode(x, &rope.base);
}

static void router_linear(struct rerun *x, const mh_op_router_linear *o, int64_t experts)
{
    mh_op_router op = MH_OP_INIT(router, ROUTER);
    op.logits = temporary(x, o->x.shape[0], experts, 0);
    linear(x, op.logits, o->x, o->w);
    op.experts = o->experts, op.weights = o->weights, op.bias = o->bias, op.rule = o->rule;
    encode(x, &op.base);
}

static void experts_down_combine(struct rerun *x, const mh_op_experts_down_combine *o,
                                 const struct conf_weight *w)
{
    mh_op_experts_down down = MH_OP_INIT(experts_down, EXPERTS_DOWN);
    down.y = temporary(x, o->y.shape[0], o->experts.shape[1], o->y.shape[1]);
    down.x = o->x, down.experts = o->experts, down.expert_map = o->expert_map;
    down.fault = o->fault, down.w = o->w;
    encode(x, &down.base);
    mh_op_combine op = MH_OP_INIT(combine, COMBINE);
    op.y = o->y, op.h = o->h, op.e = down.y, op.weights = o->weights, op.shared = o->shared;
    op.experts = o->experts, op.expert_map = o->expert_map, op.fault = o->fault;
    op.expert_count = o->expert_map.rank ? o->expert_map.shape[0] : w->experts;
    op.resident_count = w->experts;
    encode(x, &op.base);
}

static void norm_linear(struct rerun *x, const mh_op_norm_linear *o)
{
    mh_tensor normed = temporary(x, o->x.shape[0], o->x.shape[1], 0);
    rmsnorm(x, normed, o->x, o->norm, o->eps);
    linear(x, o->y, normed, o->w);
    if (o->w2)
        linear(x, o->y2, normed, o->w2);
}

static void mla_qkv(struct rerun *x, const mh_op_mla_qkv *o)
{
    const mh_op_mla_kv kv = {.cache = o->cache,
                             .kv = o->kv,
                             .norm = o->norm,
                             .table = o->table,
                             .positions = o->positions,
                             .slots = o->slots,
                             .page_table = o->page_table,
                             .fault = o->fault,
                             .eps = o->eps};
    const mh_op_mla_query query = {.y = o->y,
                                   .q = o->q,
                                   .table = o->table,
                                   .positions = o->positions,
                                   .fault = o->fault,
                                   .w = o->w,
                                   .head_rows = o->head_rows};
    mla_query(x, &query);
    mla_kv(x, &kv);
}

static void norm_router(struct rerun *x, const mh_op_norm_router *o, int64_t experts)
{
    const mh_op_router_linear route = {.experts = o->experts,
                                       .weights = o->weights,
                                       .x = o->y,
                                       .bias = o->bias,
                                       .w = o->w,
                                       .rule = o->rule};
    rmsnorm(x, o->y, o->x, o->norm, o->eps);
    router_linear(x, &route, experts);
}

static void moe_gate_up(struct rerun *x, const mh_op_moe_gate_up *o)
{
    const mh_op_linear_swiglu shared = {
        .y = o->shared_y, .x = o->x, .gate = o->shared_gate, .up = o->shared_up};
    linear_swiglu(x, &shared);
    mh_op_experts_gate_up op = MH_OP_INIT(experts_gate_up, EXPERTS_GATE_UP);
    op.y = o->y, op.x = o->x, op.experts = o->experts, op.expert_map = o->expert_map;
    op.fault = o->fault, op.gate = o->gate, op.up = o->up;
    encode(x, &op.base);
}

static void moe_down_combine(struct rerun *x, const mh_op_moe_down_combine *o,
                             const struct conf_weight *w)
{
    const mh_op_experts_down_combine routed = {
        .y = o->y,
        .h = o->h,
        .x = o->x,
        .weights = o->weights,
        .shared = temporary(x, o->y.shape[0], o->y.shape[1], 0),
        .experts = o->experts,
        .expert_map = o->expert_map,
        .fault = o->fault,
        .w = o->w,
    };
    linear(x, routed.shared, o->shared_x, o->shared_w);
    experts_down_combine(x, &routed, w);
}

/* Attention in three parts, of which the last may have no keys, and their merge. */
static void attention(struct rerun *x, const mh_op_attention *o)
{
    const int64_t parts = 3, rows = o->y.shape[0], heads = o->y.shape[1], latent = o->y.shape[2];
    const int64_t keys = o->page_table.shape[1] * o->cache.shape[1];
    const int64_t shape[] = {parts * rows, heads, (keys + 256 * parts - 1) / (256 * parts),
                             latent + 2};
    mh_tensor all = mh_tensor_make(x->scratch, x->used, MH_F32, 4, shape);
    mh_op_attention_part part = MH_OP_INIT(attention_part, ATTENTION_PART);
    part.q = o->q, part.cache = o->cache, part.positions = o->positions, part.slots = o->slots;
    part.page_table = o->page_table, part.fault = o->fault, part.scale = o->scale;
    part.stride = parts;
    for (; part.first < parts; part.first++) {
        part.y = mh_tensor_slice(all, 0, part.first * rows, rows);
        encode(x, &part.base);
    }
    mh_op_attention_merge merge = MH_OP_INIT(attention_merge, ATTENTION_MERGE);
    merge.y = o->y, merge.x = all, merge.positions = o->positions, merge.fault = o->fault;
    merge.parts = parts;
    encode(x, &merge.base);
}

/* False: nothing else to run. */
static bool encode_primitives(struct rerun *x, const union conf_op *op)
{
    switch (op->base.op) {
    case MH_OP_RMSNORM:
        if (!op->rmsnorm.residual.rank)
            return false;
        add(x, op->rmsnorm.sum, op->rmsnorm.x, op->rmsnorm.residual);
        rmsnorm(x, op->rmsnorm.y, op->rmsnorm.sum, op->rmsnorm.w, op->rmsnorm.eps);
        return true;
    case MH_OP_LINEAR_ADD: {
        mh_tensor y = temporary(x, op->linear_add.y.shape[0], op->linear_add.y.shape[1], 0);
        linear(x, y, op->linear_add.x, op->linear_add.w);
        add(x, op->linear_add.y, op->linear_add.residual, y);
        return true;
    }
    case MH_OP_LINEAR_SWIGLU:
        linear_swiglu(x, &op->linear_swiglu);
        return true;
    case MH_OP_ATTENTION:
        if (x->b->c->variant) /* what rows of padding and bad pages leave is another thing there */
            return false;
        attention(x, &op->attention);
        return true;
    case MH_OP_MLA_KV:
        mla_kv(x, &op->mla_kv);
        return true;
    case MH_OP_MLA_QUERY:
        mla_query(x, &op->mla_query);
        return true;
    case MH_OP_ROUTER_LINEAR:
        router_linear(x, &op->router_linear, x->b->c->dim['E']);
        return true;
    case MH_OP_EXPERTS_DOWN_COMBINE:
        experts_down_combine(x, &op->experts_down_combine, &x->b->weights[0]);
        return true;
    case MH_OP_NORM_LINEAR:
        norm_linear(x, &op->norm_linear);
        return true;
    case MH_OP_MLA_QKV:
        mla_qkv(x, &op->mla_qkv);
        return true;
    case MH_OP_NORM_ROUTER:
        norm_router(x, &op->norm_router, x->b->c->dim['E']);
        return true;
    case MH_OP_MOE_GATE_UP:
        moe_gate_up(x, &op->moe_gate_up);
        return true;
    case MH_OP_MOE_DOWN_COMBINE:
        moe_down_combine(x, &op->moe_down_combine,
                         conf_find_weight((struct conf_build *)(uintptr_t)x->b, "w"));
        return true;
    default:
        return false;
    }
}

/* ---- row by row ---- */

/* Rows of one op may write what another row reads only through the cache, and never do. */
static void encode_rows(struct rerun *x, const union conf_op *op)
{
    int64_t rows = x->b->c->dim['T'];
    for (int64_t t = 0; t < rows; t++) {
        union conf_op alone = *op;
        if (op->base.op == MH_OP_ATTENTION_MERGE) { /* the row of each part: they are rows apart */
            alone.attention_merge.x =
                mh_tensor_slice(op->attention_merge.x, 0, t, x->b->c->dim['N']);
            alone.attention_merge.x.stride[0] *= rows;
        }
        for (uint32_t i = 0; i < x->b->operand_count; i++) {
            const mh_operand *info = &x->b->operands[i].info;
            mh_tensor *view = (mh_tensor *)(void *)((char *)&alone + info->offset);
            if (info->shape[0] == 'T')
                *view = mh_tensor_slice(*view, 0, t, 1);
        }
        encode(x, &alone.base);
    }
}

/* ---- comparing ---- */

static bool rerun_agrees(struct rerun *x, uint8_t *const *first, const char *what, char *message,
                         size_t size)
{
    if (!x->status)
        x->status = mh_stream_wait(x->side->stream, MH_FOREVER);
    if (!x->status)
        x->status = conf_side_download(x->side, x->b);
    if (x->status) {
        snprintf(message, size, "%s: %s", what, mh_last_message());
        return false;
    }
    return conf_same_bits(x->b, first, x->side->after, what, message, size);
}

static uint64_t scratch_bytes(const struct conf_build *b)
{
    uint64_t bytes = 4096;
    for (uint32_t i = 0; i < b->operand_count; i++)
        bytes += 8 * ((uint64_t)conf_count(&b->operands[i]) + 64);
    bytes += 4 * (uint64_t)(b->c->dim['T'] * b->c->dim['J'] * b->c->dim['D']);
    bytes += 4 * (uint64_t)(b->c->dim['T'] * b->c->dim['E']);
    if (b->c->op == MH_OP_ATTENTION)
        bytes += 4 * (uint64_t)(b->c->dim['T'] * b->c->dim['H'] * (b->c->dim['L'] + 2)) *
                 (uint64_t)(b->c->dim['M'] * b->c->dim['P'] / 256 + 4);
    return bytes;
}

bool conf_check_relations(struct conf_side *side, const struct conf_build *b,
                          const union conf_op *op, char *message, size_t size)
{
    struct rerun x = {.side = side, .b = b};
    uint8_t *first[BUILD_OPERANDS];
    bool ok = true, rows = b->c->dim['T'] > 1;
    if (!b->c->dim['T'])
        return true;
    memcpy(first, side->after, sizeof(first));
    memset(side->after, 0, sizeof(side->after));
    for (uint32_t i = 0; ok && i < b->buffer_count; i++)
        ok = (side->after[i] = malloc(b->bytes[i]));
    if (ok && mh_buffer_create(side->device, scratch_bytes(b), MH_BUFFER_DEVICE, &x.scratch))
        ok = false;
    if (!ok)
        snprintf(message, size, "no memory to run the case again");
    if (ok)
        x.status = conf_side_upload(side, b);
    if (ok && encode_primitives(&x, op))
        ok = rerun_agrees(&x, first, "the op as its primitives", message, size);
    if (ok && rows) {
        x.status = conf_side_upload(side, b);
        encode_rows(&x, op);
        ok = rerun_agrees(&x, first, "the op row by row", message, size);
    }
    mh_buffer_release(x.scratch);
    for (uint32_t i = 0; i < b->buffer_count; i++)
        free(side->after[i]);
    memcpy(side->after, first, sizeof(first));
    return ok;
}
