/*
 * ops.h: how each op is run. A file a family of kernels; each op has a function that puts its
 * kernels into a queue, a list of the kernels it needs, and where it wants any the bytes of its
 * scratch.
 */
#ifndef OPENCL_OPS_H
#define OPENCL_OPS_H

#include "launch.h"

#define ENCODE(name) mh_status encode_##name(const struct run *run, const mh_op *op)
#define SCRATCH(name) uint64_t scratch_##name(const struct device *device, const mh_op *op)

/* ops_rows.c */
ENCODE(add);
ENCODE(swiglu);
ENCODE(rmsnorm);
ENCODE(combine);
/* ops_move.c */
ENCODE(copy);
ENCODE(cast);
ENCODE(fill);
/* ops_mla.c */
ENCODE(rope);
ENCODE(kv_write);
ENCODE(mla_kv);
ENCODE(attention);
SCRATCH(attention);
ENCODE(attention_part);
ENCODE(attention_merge);
/* ops_linear.c */
ENCODE(embed);
ENCODE(linear);
SCRATCH(linear);
ENCODE(linear_add);
SCRATCH(linear_add);
ENCODE(linear_swiglu);
SCRATCH(linear_swiglu);
ENCODE(head_linear);
SCRATCH(head_linear);
ENCODE(mla_query);
SCRATCH(mla_query);
ENCODE(router_linear);
SCRATCH(router_linear);
/* ops_experts.c */
ENCODE(experts_gate_up);
SCRATCH(experts_gate_up);
ENCODE(experts_down);
SCRATCH(experts_down);
ENCODE(experts_down_combine);
SCRATCH(experts_down_combine);
/* ops_choice.c */
ENCODE(router);
ENCODE(argmax);
SCRATCH(argmax);
ENCODE(sample);
SCRATCH(sample);

/* ops_fused.c */
ENCODE(norm_linear);
SCRATCH(norm_linear);
ENCODE(mla_qkv);
SCRATCH(mla_qkv);
ENCODE(norm_router);
SCRATCH(norm_router);
ENCODE(moe_gate_up);
SCRATCH(moe_gate_up);
ENCODE(moe_down_combine);
SCRATCH(moe_down_combine);

/* Rows of a group, where a launch has `products` of a matrix of `rows` and of one of more_rows. On
 * a CPU such that its threads end together, and longer rather than shorter: a group costs by itself
 * about as much as four rows. */
int64_t row_block(const struct device *device, int64_t rows, int64_t more_rows, int64_t products);

/* From this many tokens on, kernels that read weights once for several of them. */
#define FEW 4

/* As in the kernels. */
#define MOST_LATENT 1024
#define MOST_EXPERTS 512

/* moe_gate_up of fewer tokens than FEW. */
mh_status launch_moe_up(const struct run *run, const mh_op_moe_gate_up *o);

/* experts_down_combine; for fewer tokens than FEW with shared_w, if that is not NULL, `shared` is
 * what it is multiplied by. */
mh_status launch_down_combine(const struct run *run, const mh_op_experts_down_combine *o,
                              const mh_weight *shared_w);

/* The router's kernel on logits anywhere: a tensor, or scratch from `logits_at` on. */
mh_status launch_router(const struct run *run, const mh_tensor *experts, const mh_tensor *weights,
                        const mh_tensor *logits, uint64_t logits_at, int64_t count,
                        const mh_tensor *bias, const mh_router_rule *rule);

/* The kernels of y = x w^T, for one head or several. */
struct linear {
    const mh_tensor *y, *x, *residual; /* y NULL: scratch, [T, out]; residual NULL: none */
    const mh_weight *w, *up;           /* up NULL: no SwiGLU */
    int64_t heads, out, head_rows, first;
    uint64_t y_bytes;    /* of the scratch, what y takes */
    const mh_tensor *y2; /* for fewer tokens than FEW: x times `up`; NULL: none */
};
mh_status launch_linear(const struct run *run, const struct linear *l);

/* ---- ops_many.c: kernel `many` ---- */

/* Its arguments (many.cl); x has as many rows a token as x[t, j] has j. */
struct many {
    const mh_tensor *y, *x, *residual; /* y NULL: scratch from y_at on, [T, slots, out] */
    const mh_weight *w, *up;           /* residual, up NULL: none */
    int64_t groups, slots, rows, head_rows, first; /* rows of a group of w */
    bool down, lists;
    uint64_t y_at, lists_at, scratch_at; /* in the scratch; many_bytes from scratch_at on */
};
/* For x [tokens, slots, in], or [tokens, in] with `slots` 1. */
uint64_t many_bytes(const struct device *device, int64_t tokens, int64_t slots, int64_t in);
mh_status launch_many(const struct run *run, const struct many *m);

#endif
