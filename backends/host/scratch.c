/* scratch.c: what ops want of temporary memory. The kernels lay it out in the order of these sums.
 */
#include "fast.h"
#include "panel.h"

static uint64_t whole_lines(uint64_t bytes)
{
    return (bytes + 63) & ~UINT64_C(63);
}

/* The inputs as dots want them: fast ones read several weights with each word. */
uint64_t product_ordered(int64_t inputs, int64_t in, bool transposed)
{
    return transposed ? 0 : 4 * (uint64_t)(inputs * ordered_floats(in));
}

/* The same; then the inputs permuted or as bf16, none where no group can have rows enough to be
 * repacked. Pages that nobody needs are not touched. */
uint64_t product_shared(const mh_op *op, int64_t rows, int64_t inputs, int64_t in, bool transposed)
{
    uint64_t exact =
        transposed || rows >= PANEL_ROWS ? 4 * (uint64_t)(inputs * permuted_floats(in)) : 0;
    int64_t listed = (rows > inputs ? rows : inputs) + FAST_BLOCK;
    uint64_t fast = op->flags & MH_OP_FAST ? 2 * (uint64_t)(listed * fast_pitch(in)) : 0;
    return product_ordered(inputs, in, transposed) + whole_lines(exact > fast ? exact : fast);
}

uint64_t product_per_thread(const mh_op *op, int64_t rows, int64_t in, bool transposed)
{
    return transposed || rows >= PANEL_ROWS || op->flags & MH_OP_FAST ? panel_bytes(in) : 0;
}

uint64_t grouping_bytes(int64_t ids, int64_t slots)
{
    int64_t groups = ids < slots ? ids : slots;
    return whole_lines(sizeof(struct group) * (uint64_t)groups) +
           2 * whole_lines(4 * (uint64_t)ids) + whole_lines(4 * (uint64_t)slots);
}

struct parts {
    uint64_t shared, thread;
};

static struct parts product_parts(const mh_op *op, int64_t rows, int64_t inputs, int64_t in,
                                  bool transposed)
{
    return (struct parts){product_shared(op, rows, inputs, in, transposed),
                          product_per_thread(op, rows, in, transposed)};
}

static struct parts linear_parts(const mh_op *op, const mh_tensor *x)
{
    return product_parts(op, x->shape[0], x->shape[0], x->shape[1], false);
}

static struct parts experts_parts(const mh_op *op, int64_t ids, int64_t inputs,
                                  const mh_weight_view *w)
{
    struct parts p = product_parts(op, ids, inputs, w->in, false);
    p.shared += grouping_bytes(ids, w->experts);
    return p;
}

static struct parts parts_of(const mh_op *op)
{
    switch (op->op) {
    case MH_OP_LINEAR:
        return linear_parts(op, &((const mh_op_linear *)op)->x);
    case MH_OP_LINEAR_ADD:
        return linear_parts(op, &((const mh_op_linear_add *)op)->x);
    case MH_OP_LINEAR_SWIGLU:
        return linear_parts(op, &((const mh_op_linear_swiglu *)op)->x);
    case MH_OP_HEAD_LINEAR: {
        const mh_op_head_linear *o = (const void *)op;
        return product_parts(op, o->x.shape[0], o->x.shape[0] * o->x.shape[1], o->x.shape[2],
                             o->transposed);
    }
    case MH_OP_MLA_QUERY: {
        const mh_op_mla_query *o = (const void *)op;
        return product_parts(op, o->q.shape[0], o->q.shape[0] * o->q.shape[1],
                             o->q.shape[2] - o->table.shape[1], true);
    }
    case MH_OP_EXPERTS_GATE_UP: {
        const mh_op_experts_gate_up *o = (const void *)op;
        return experts_parts(op, o->experts.shape[0] * o->experts.shape[1], o->x.shape[0],
                             mh_view_weight(o->gate));
    }
    case MH_OP_EXPERTS_DOWN: {
        const mh_op_experts_down *o = (const void *)op;
        int64_t ids = o->experts.shape[0] * o->experts.shape[1];
        return experts_parts(op, ids, ids, mh_view_weight(o->w));
    }
    case MH_OP_EXPERTS_DOWN_COMBINE: {
        const mh_op_experts_down_combine *o = (const void *)op;
        const mh_weight_view *w = mh_view_weight(o->w);
        int64_t ids = o->experts.shape[0] * o->experts.shape[1];
        struct parts p = experts_parts(op, ids, ids, w);
        p.shared += 4 * (uint64_t)(ids * w->out);
        return p;
    }
    case MH_OP_ATTENTION: {
        const mh_op_attention *o = (const void *)op;
        return (struct parts){
            .thread = attention_bytes(o->y.shape[0], o->y.shape[1], o->y.shape[2], o->q.shape[2])};
    }
    case MH_OP_ATTENTION_PART: {
        const mh_op_attention_part *o = (const void *)op;
        return (struct parts){.thread = attention_bytes(o->y.shape[0], o->y.shape[1],
                                                        o->y.shape[3] - 2, o->q.shape[2])};
    }
    case MH_OP_MLA_KV:
        return (struct parts){.thread = 4 * (uint64_t)((const mh_op_mla_kv *)op)->kv.shape[1]};
    case MH_OP_ROUTER:
        return (struct parts){.thread = 16 * (uint64_t)((const mh_op_router *)op)->logits.shape[1]};
    case MH_OP_ROUTER_LINEAR: {
        const mh_op_router_linear *o = (const void *)op;
        uint64_t experts = (uint64_t)mh_view_weight(o->w)->out;
        struct parts p = linear_parts(op, &o->x);
        p.shared += 4 * experts * (uint64_t)o->x.shape[0];
        p.thread = p.thread > 16 * experts ? p.thread : 16 * experts;
        return p;
    }
    case MH_OP_SAMPLE:
        return (struct parts){.shared = 8 * (uint64_t)((const mh_op_sample *)op)->logits.shape[1]};
    default:
        return (struct parts){0};
    }
}

void host_scratch(const mh_op *op, uint64_t *shared, uint64_t *per_thread)
{
    struct parts p = parts_of(op);
    *shared = whole_lines(p.shared);
    *per_thread = whole_lines(p.thread);
}
