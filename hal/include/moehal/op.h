/*
 * op.h: every op, one struct each. mh_encode (stream.h) is the only way to run one.
 *
 * Rules that hold for all:
 *  - T is the number of rows (tokens of a step, of one or several sequences). Activations are f32,
 *    indices i32. The last dimension of a tensor is dense; outer strides are free and a multiple of
 *    the element's size. Optional operands are absent at rank 0 (tensors) or NULL (weights).
 *  - Outputs do not overlap other operands, unless the op says "in place": then they may be the
 *    very same tensor.
 *  - Arithmetic is the exact profile of docs/numerics.md (the numbers of its rules are given) or,
 *    with MH_OP_FAST in flags, may be anything inside the fast profile's bounds.
 *  - What only the device can know is checked there: an index out of range leaves its row (or slot)
 *    untouched and sets the op's fault word, a u32 tensor of one element, to MH_BAD_INDEX.
 *  - A row whose sequence slot is -1 is padding: nothing is written for it, no fault. It keeps a
 *    valid token and position (0, say): ops that see no slots look at those.
 *  - Fused ops equal, bit for bit under exact, the primitives named as their expansion.
 * ops.def is the table of ids, names and operands; ids are permanent, an unknown one is
 * unsupported.
 */
#ifndef MOEHAL_OP_H
#define MOEHAL_OP_H

#include <moehal/tensor.h>

MH_BEGIN_DECLS

typedef struct mh_weight mh_weight;

typedef uint32_t mh_op_id;
enum {
#define MH_OP(value, NAME, name, kind, doc, operands) MH_OP_##NAME = value,
#include <moehal/ops.def>
#undef MH_OP
};

enum { MH_OP_FAST = 1u }; /* flags: the fast profile is allowed */

/* What every op struct begins with. `layer` is the model layer or -1, `label` a borrowed name or
 * NULL: both are only shown (errors, traces, fallback counts). */
typedef struct mh_op {
    uint64_t struct_size;
    mh_op_id op;
    uint32_t flags;
    int32_t layer;
    uint32_t reserved;
    const char *label;
} mh_op;

/* An op struct of the given name, zeroed, with its header filled: MH_OP_INIT(linear, LINEAR). */
#define MH_OP_INIT(name, NAME)                                                                     \
    ((mh_op_##name){.base = {sizeof(mh_op_##name), MH_OP_##NAME, 0, -1, 0, NULL}})

/* ---- embedding, norms, linear layers ---- */

/* y[t] = row tokens[t] of the table, decoded (rule 1). */
typedef struct mh_op_embed {
    mh_op base;
    mh_tensor y;      /* f32 [T, D] */
    mh_tensor tokens; /* i32 [T] */
    mh_weight *table; /* [vocabulary, D], any format */
    mh_tensor fault;  /* u32 [1] */
} mh_op_embed;

/* Rule 6. Without residual: y = norm(x). With: sum = fl(x + residual), y = norm(sum); `sum` is then
 * required and may be x or residual in place. Expansion with residual: add, rmsnorm. */
typedef struct mh_op_rmsnorm {
    mh_op base;
    mh_tensor y;        /* f32 [T, D]; in place of x allowed */
    mh_tensor x;        /* f32 [T, D] */
    mh_tensor w;        /* f32 [D] */
    mh_tensor residual; /* f32 [T, D], optional */
    mh_tensor sum;      /* f32 [T, D], with residual */
    float eps;
    uint32_t reserved;
} mh_op_rmsnorm;

/* y[t, o] = dot(x[t], w[o]), rule 2. */
typedef struct mh_op_linear {
    mh_op base;
    mh_tensor y;  /* f32 [T, out] */
    mh_tensor x;  /* f32 [T, in] */
    mh_weight *w; /* [out, in] */
} mh_op_linear;

/* y = fl(residual + linear(x)). Expansion: linear, add. */
typedef struct mh_op_linear_add {
    mh_op base;
    mh_tensor y;        /* f32 [T, out]; in place of residual allowed */
    mh_tensor x;        /* f32 [T, in] */
    mh_tensor residual; /* f32 [T, out] */
    mh_weight *w;       /* [out, in] */
} mh_op_linear_add;

/* y = swiglu(linear(x, gate), linear(x, up)), rules 2 and 5. Expansion: linear, linear, swiglu. */
typedef struct mh_op_linear_swiglu {
    mh_op base;
    mh_tensor y;     /* f32 [T, N] */
    mh_tensor x;     /* f32 [T, in] */
    mh_weight *gate; /* [N, in] */
    mh_weight *up;   /* [N, in], same format */
} mh_op_linear_swiglu;

/* y = fl(silu(gate) * up), rule 5. */
typedef struct mh_op_swiglu {
    mh_op base;
    mh_tensor y;    /* f32 [T, N]; in place of gate or up allowed */
    mh_tensor gate; /* f32 [T, N] */
    mh_tensor up;   /* f32 [T, N] */
} mh_op_swiglu;

/* y = fl(a + b). */
typedef struct mh_op_add {
    mh_op base;
    mh_tensor y; /* f32 [T, N]; in place of a or b allowed */
    mh_tensor a; /* f32 [T, N] */
    mh_tensor b; /* f32 [T, N] */
} mh_op_add;

/* ---- multi-head latent attention ----
 * H heads, L latent, R rope, N "nope" and V value dimensions. The cache holds pages of P tokens,
 * a row [latent | rope] a token. Sequence slot s keeps position p in row p mod P of page
 * page_table[s, p / P]. */

/* Adjacent pairs rotated by the row's position (rule 7). table[p] = cos of R/2 angles, then sin. */
typedef struct mh_op_rope {
    mh_op base;
    mh_tensor y;         /* f32 [T, H, R]; in place of x allowed */
    mh_tensor x;         /* f32 [T, H, R] */
    mh_tensor table;     /* f32 [positions, R] */
    mh_tensor positions; /* i32 [T] */
    mh_tensor fault;     /* u32 [1] */
} mh_op_rope;

/* The cache row of (slots[t], positions[t]) becomes [latent[t] | rope[t]], rounded to the cache's
 * dtype (rule 1). Two rows of one op do not name the same cache row. */
typedef struct mh_op_kv_write {
    mh_op base;
    mh_tensor cache;      /* f32 or bf16 [pages, P, L + R] */
    mh_tensor latent;     /* f32 [T, L] */
    mh_tensor rope;       /* f32 [T, R] */
    mh_tensor positions;  /* i32 [T] */
    mh_tensor slots;      /* i32 [T] */
    mh_tensor page_table; /* i32 [slots, pages a slot] */
    mh_tensor fault;      /* u32 [1] */
} mh_op_kv_write;

/* Rule 3, absorbed: y[t, h] = softmax over keys 0..positions[t] of scale * q[t, h] . row, times the
 * latent part of the rows. One form for decode and chunked prefill. */
typedef struct mh_op_attention {
    mh_op base;
    mh_tensor y;          /* f32 [T, H, L] */
    mh_tensor q;          /* f32 [T, H, L + R] */
    mh_tensor cache;      /* f32 or bf16 [pages, P, L + R] */
    mh_tensor positions;  /* i32 [T] */
    mh_tensor slots;      /* i32 [T] */
    mh_tensor page_table; /* i32 [slots, pages a slot] */
    mh_tensor fault;      /* u32 [1] */
    float scale;
    uint32_t reserved;
} mh_op_attention;

/* Rule 3 of some segments of 256 keys, which are not merged: y[t, h, j] is segment first + j *
 * stride, as [o | m | l]: the weighted latent sum [L], the maximum as fl(m + 0), or NaN where l is,
 * and the sum of exp. A segment that begins behind the row's position is left untouched, and with a
 * fault one with a page out of range; pages of other segments are not looked at. */
typedef struct mh_op_attention_part {
    mh_op base;
    mh_tensor y;          /* f32 [T, H, S, L + 2] */
    mh_tensor q;          /* f32 [T, H, L + R] */
    mh_tensor cache;      /* f32 or bf16 [pages, P, L + R] */
    mh_tensor positions;  /* i32 [T] */
    mh_tensor slots;      /* i32 [T] */
    mh_tensor page_table; /* i32 [slots, pages a slot] */
    mh_tensor fault;      /* u32 [1] */
    float scale;
    uint32_t reserved;
    int64_t first;
    int64_t stride;
} mh_op_attention_part;

/* Rule 3's merges and its end. x is what attention_part gives with `first` 0 to parts - 1 and a
 * stride of `parts`, one behind the other: segment g of row t is x[g % parts * T + t, h, g /
 * parts]. Segments 0 to positions[t] / 256 are merged. */
typedef struct mh_op_attention_merge {
    mh_op base;
    mh_tensor y;         /* f32 [T, H, L] */
    mh_tensor x;         /* f32 [parts * T, H, S, L + 2] */
    mh_tensor positions; /* i32 [T] */
    mh_tensor fault;     /* u32 [1] */
    int64_t parts;
} mh_op_attention_merge;

/* Per-head projections by kv_b, whose head h owns rows h * head_rows .. + head_rows - 1; of those,
 * rows row_begin .. + row_count - 1 are used. Rule 2.
 *  transposed = 0: y[t, h, r] = dot over in of x[t, h] and row r          x [T, H, in], y [T, H,
 * row_count] transposed = 1: y[t, h, c] = dot over r of x[t, h, r] and w[row r, c]  x [T, H,
 * row_count], y [T, H, in] */
typedef struct mh_op_head_linear {
    mh_op base;
    mh_tensor y;
    mh_tensor x;
    mh_weight *w; /* [H * head_rows, in] */
    int64_t head_rows;
    int64_t row_begin;
    int64_t row_count;
    uint32_t transposed;
    uint32_t reserved;
} mh_op_head_linear;

/* From the kv_a projection to the cache: latent normed (rule 6), rope part rotated, row written.
 * The table covers every position the cache has room for. Expansion: rmsnorm, rope, kv_write. */
typedef struct mh_op_mla_kv {
    mh_op base;
    mh_tensor cache;      /* f32 or bf16 [pages, P, L + R] */
    mh_tensor kv;         /* f32 [T, L + R] */
    mh_tensor norm;       /* f32 [L] */
    mh_tensor table;      /* f32 [positions, R] */
    mh_tensor positions;  /* i32 [T] */
    mh_tensor slots;      /* i32 [T] */
    mh_tensor page_table; /* i32 [slots, pages a slot] */
    mh_tensor fault;      /* u32 [1] */
    float eps;
    uint32_t reserved;
} mh_op_mla_kv;

/* From the q projection to attention's query: y[t, h] = [W_UK^T q_nope | rotated q_pe], with W_UK
 * the first N rows of each head of kv_b. A position out of range leaves the rotated part untouched.
 * Expansion: head_linear (transposed), rope. */
typedef struct mh_op_mla_query {
    mh_op base;
    mh_tensor y;         /* f32 [T, H, L + R] */
    mh_tensor q;         /* f32 [T, H, N + R] */
    mh_tensor table;     /* f32 [positions, R] */
    mh_tensor positions; /* i32 [T] */
    mh_tensor fault;     /* u32 [1] */
    mh_weight *w;        /* kv_b: [H * head_rows, L] */
    int64_t head_rows;   /* N + V */
} mh_op_mla_query;

/* ---- mixture of experts ----
 * E logical experts, k of them a row. Expert banks hold S resident experts; expert_map[e] says
 * which slot of the bank expert e has, -1 that it is elsewhere. Absent, it is the identity and E =
 * S. */

enum { MH_ROUTER_SIGMOID = 1, MH_ROUTER_SOFTMAX = 2 };
enum { MH_GROUPS_NONE = 0, MH_GROUPS_TOP2 = 1, MH_GROUPS_MAX = 2 };

/* Rule 8. */
typedef struct mh_router_rule {
    uint32_t scoring;     /* MH_ROUTER_SIGMOID (V3), MH_ROUTER_SOFTMAX (V2) */
    uint32_t group_score; /* MH_GROUPS_NONE: all experts are candidates */
    int64_t groups;       /* divides E; ignored with MH_GROUPS_NONE */
    int64_t top_groups;
    uint32_t normalise; /* norm_topk_prob */
    float scaling;      /* routed_scaling_factor; applied to all weights, last */
} mh_router_rule;

/* Experts in descending selection key, ties to the lowest index, and their weights. */
typedef struct mh_op_router {
    mh_op base;
    mh_tensor experts; /* i32 [T, k] */
    mh_tensor weights; /* f32 [T, k] */
    mh_tensor logits;  /* f32 [T, E] */
    mh_tensor bias;    /* f32 [E], optional: for selection only */
    mh_router_rule rule;
} mh_op_router;

/* Expansion: linear, router. */
typedef struct mh_op_router_linear {
    mh_op base;
    mh_tensor experts; /* i32 [T, k] */
    mh_tensor weights; /* f32 [T, k] */
    mh_tensor x;       /* f32 [T, D] */
    mh_tensor bias;    /* f32 [E], optional */
    mh_weight *w;      /* [E, D] */
    mh_router_rule rule;
} mh_op_router_linear;

/* y[t, j] = swiglu(gate_e x[t], up_e x[t]), e = experts[t, j]. Absent expert: slot untouched. */
typedef struct mh_op_experts_gate_up {
    mh_op base;
    mh_tensor y;          /* f32 [T, k, I] */
    mh_tensor x;          /* f32 [T, D] */
    mh_tensor experts;    /* i32 [T, k] */
    mh_tensor expert_map; /* i32 [E], optional */
    mh_tensor fault;      /* u32 [1] */
    mh_weight *gate;      /* bank [S, I, D] */
    mh_weight *up;        /* bank [S, I, D], same format */
} mh_op_experts_gate_up;

/* y[t, j] = down_e x[t, j]: outputs a slot, unsummed. Absent expert: slot untouched. */
typedef struct mh_op_experts_down {
    mh_op base;
    mh_tensor y;          /* f32 [T, k, D] */
    mh_tensor x;          /* f32 [T, k, I] */
    mh_tensor experts;    /* i32 [T, k] */
    mh_tensor expert_map; /* i32 [E], optional */
    mh_tensor fault;      /* u32 [1] */
    mh_weight *w;         /* bank [S, D, I] */
} mh_op_experts_down;

/* Rule 9: y = fl(h + acc), acc = shared (or +0) then fma over the slots in order. With `experts`
 * (and expert_map) given, a row with an absent or out-of-range expert is left untouched with a
 * fault. */
typedef struct mh_op_combine {
    mh_op base;
    mh_tensor y;            /* f32 [T, D]; in place of h allowed */
    mh_tensor h;            /* f32 [T, D] */
    mh_tensor e;            /* f32 [T, k, D] */
    mh_tensor weights;      /* f32 [T, k] */
    mh_tensor shared;       /* f32 [T, D], optional */
    mh_tensor experts;      /* i32 [T, k], optional */
    mh_tensor expert_map;   /* i32 [E], optional, only with experts */
    mh_tensor fault;        /* u32 [1] */
    int64_t expert_count;   /* E, with experts; 0 otherwise */
    int64_t resident_count; /* S of the bank the map points into; 0: map entries have no limit */
} mh_op_combine;

/* Expansion: experts_down, combine (with experts). */
typedef struct mh_op_experts_down_combine {
    mh_op base;
    mh_tensor y;          /* f32 [T, D]; in place of h allowed */
    mh_tensor h;          /* f32 [T, D] */
    mh_tensor x;          /* f32 [T, k, I] */
    mh_tensor weights;    /* f32 [T, k] */
    mh_tensor shared;     /* f32 [T, D], optional */
    mh_tensor experts;    /* i32 [T, k] */
    mh_tensor expert_map; /* i32 [E], optional */
    mh_tensor fault;      /* u32 [1] */
    mh_weight *w;         /* bank [S, D, I] */
} mh_op_experts_down_combine;

/* ---- whole steps of a layer: the least launches a decode step can have ---- */

/* y = linear(rmsnorm(x, norm), w), rules 6 and 2; with w2 also y2 = linear(of the same, w2).
 * Expansion: rmsnorm, linear, and linear again for y2. */
typedef struct mh_op_norm_linear {
    mh_op base;
    mh_tensor y;    /* f32 [T, out] */
    mh_tensor y2;   /* f32 [T, out of w2], with w2 */
    mh_tensor x;    /* f32 [T, in] */
    mh_tensor norm; /* f32 [in] */
    mh_weight *w;   /* [out, in] */
    mh_weight *w2;  /* [out of w2, in], optional, same format */
    float eps;
    uint32_t reserved;
} mh_op_norm_linear;

/* Both sides of attention from their projections: cache rows from kv, queries y from q. They do not
 * meet, so their order is free. Expansion: mla_kv, mla_query. */
typedef struct mh_op_mla_qkv {
    mh_op base;
    mh_tensor y;          /* f32 [T, H, L + R] */
    mh_tensor cache;      /* f32 or bf16 [pages, P, L + R] */
    mh_tensor q;          /* f32 [T, H, N + R] */
    mh_tensor kv;         /* f32 [T, L + R] */
    mh_tensor norm;       /* f32 [L] */
    mh_tensor table;      /* f32 [positions, R] */
    mh_tensor positions;  /* i32 [T] */
    mh_tensor slots;      /* i32 [T] */
    mh_tensor page_table; /* i32 [slots, pages a slot] */
    mh_tensor fault;      /* u32 [1] */
    mh_weight *w;         /* kv_b: [H * head_rows, L] */
    int64_t head_rows;    /* N + V */
    float eps;
    uint32_t reserved;
} mh_op_mla_qkv;

/* y = rmsnorm(x, norm), and the choice of experts from y. Expansion: rmsnorm, router_linear. */
typedef struct mh_op_norm_router {
    mh_op base;
    mh_tensor experts; /* i32 [T, k] */
    mh_tensor weights; /* f32 [T, k] */
    mh_tensor y;       /* f32 [T, D] */
    mh_tensor x;       /* f32 [T, D] */
    mh_tensor norm;    /* f32 [D] */
    mh_tensor bias;    /* f32 [E], optional */
    mh_weight *w;      /* [E, D] */
    mh_router_rule rule;
    float eps;
    uint32_t reserved;
} mh_op_norm_router;

/* Gate and up of the routed and of the shared experts: all weights of one format. Expansion:
 * experts_gate_up, linear_swiglu. */
typedef struct mh_op_moe_gate_up {
    mh_op base;
    mh_tensor y;            /* f32 [T, k, I] */
    mh_tensor shared_y;     /* f32 [T, N] */
    mh_tensor x;            /* f32 [T, D] */
    mh_tensor experts;      /* i32 [T, k] */
    mh_tensor expert_map;   /* i32 [E], optional */
    mh_tensor fault;        /* u32 [1] */
    mh_weight *gate;        /* bank [S, I, D] */
    mh_weight *up;          /* bank [S, I, D] */
    mh_weight *shared_gate; /* [N, D] */
    mh_weight *shared_up;   /* [N, D] */
} mh_op_moe_gate_up;

/* Down of the routed and of the shared experts, and rule 9: both weights of one format. Expansion:
 * linear (shared), experts_down_combine. */
typedef struct mh_op_moe_down_combine {
    mh_op base;
    mh_tensor y;          /* f32 [T, D]; in place of h allowed */
    mh_tensor h;          /* f32 [T, D] */
    mh_tensor x;          /* f32 [T, k, I] */
    mh_tensor shared_x;   /* f32 [T, N] */
    mh_tensor weights;    /* f32 [T, k] */
    mh_tensor experts;    /* i32 [T, k] */
    mh_tensor expert_map; /* i32 [E], optional */
    mh_tensor fault;      /* u32 [1] */
    mh_weight *w;         /* bank [S, D, I] */
    mh_weight *shared_w;  /* [D, N] */
} mh_op_moe_down_combine;

/* ---- choosing a token ---- */

/* y[t] = index of the largest logit by rule 8's key, lowest index among equals. */
typedef struct mh_op_argmax {
    mh_op base;
    mh_tensor y;      /* i32 [T] */
    mh_tensor logits; /* f32 [T, vocabulary] */
} mh_op_argmax;

/* One row's sampling parameters, as they lie in device memory (step.h). */
typedef struct mh_sampling {
    float temperature; /* 0: argmax */
    uint32_t top_p;    /* round(p * 65536); 65536 and above: off */
    uint32_t top_k;    /* 0: off */
    uint32_t reserved;
    uint64_t seed;    /* Philox key */
    uint64_t counter; /* Philox counter: the position of the row */
} mh_sampling;

/* Rule 10, top-k, then top-p, then Philox4x32-10. */
typedef struct mh_op_sample {
    mh_op base;
    mh_tensor y;      /* i32 [T] */
    mh_tensor logits; /* f32 [T, vocabulary] */
    mh_tensor params; /* u32 [T, 8]: mh_sampling a row */
} mh_op_sample;

/* ---- moving values ---- */

/* y = x: same dtype and shape, any strides (the last dimension too), any dtype. */
typedef struct mh_op_copy {
    mh_op base;
    mh_tensor y;
    mh_tensor x;
} mh_op_copy;

/* y = x in another of f32, f16, bf16: to nearest even; NaN becomes 0x7FC0 in bf16, 0x7E00 in f16.
 */
typedef struct mh_op_cast {
    mh_op base;
    mh_tensor y;
    mh_tensor x;
} mh_op_cast;

/* Every element becomes the low bytes of `bits`. */
typedef struct mh_op_fill {
    mh_op base;
    mh_tensor y;
    uint32_t bits;
    uint32_t reserved;
} mh_op_fill;

/* "linear"; "?" for an unknown id. */
MH_API const char *mh_op_name(mh_op_id op);
/* sizeof() of the op's struct as the library was built; 0 for an unknown id. */
MH_API uint64_t mh_op_size(mh_op_id op);

enum {
    MH_OPERAND_READ = 1u,
    MH_OPERAND_WRITTEN = 2u,
    MH_OPERAND_OPTIONAL = 4u, /* may be absent: rank 0, or NULL */
    MH_OPERAND_WEIGHT = 8u,   /* an mh_weight *, else an mh_tensor */
};

/* An operand of an op, as ops.def lists it: for whoever handles ops without knowing each. */
typedef struct mh_operand {
    uint64_t struct_size;
    const char *name;  /* of the field; static */
    const char *shape; /* a letter a dimension, or "*"; static; see ops.def */
    uint64_t offset;   /* of the field in the op's struct */
    uint32_t flags;    /* MH_OPERAND_READ, ... */
    uint32_t dtypes;   /* bit d: dtype d is allowed; 0 for a weight */
} mh_operand;

/* Operand `index`, in the order of ops.def; MH_NOT_FOUND past the last or for an unknown op. */
MH_API mh_status mh_op_operand(mh_op_id op, uint32_t index, mh_operand *out);

MH_END_DECLS

#endif
