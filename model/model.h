/* model.h: what model.c, graph.c and session.c share. Not installed. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>

#include <moehal-model/session.h>

#define MODEL_PAGE 64 /* tokens a page of the cache; the chunk of numerics rule 3 */
#define MODEL_DEVICES 64

/* Weights of a layer; what a layer does not have stays NULL or of rank 0. */
struct model_layer {
    mh_tensor attention_norm, q_a_norm, kv_a_norm, ffn_norm, router_bias; /* f32 */
    mh_weight *q, *q_a, *q_b, *kv_a, *kv_b, *o;
    mh_weight *gate, *up, *down; /* dense layers, or the shared experts */
    mh_weight *router;
    mh_weight *expert_gate, *expert_up, *expert_down; /* banks */
};

/* What one device holds: the whole model, or all of it but the experts of other ranks. Ranks past
 * the first have no head: every rank computes every hidden state, the first alone the logits. */
struct model_rank {
    mh_device *device;
    mh_buffer *params; /* norms and biases, f32, and the map of experts */
    mh_tensor final_norm;
    mh_weight *embedding, *head;
    struct model_layer *layers;
    int64_t expert_begin, expert_count; /* those that are here, in this order in the banks */
    mh_tensor expert_map;               /* i32 [E] of ops; of rank 0 where all are here */
};

struct mh_model {
    atomic_uint refs;
    mh_checkpoint *checkpoint;
    const mh_config *config;
    uint32_t profile;
    mh_transport *transport;    /* or NULL */
    uint32_t rank_count;        /* of this process */
    uint32_t first_rank, world; /* the number of its first, and how many there are in all */
    uint32_t *process_ranks;    /* [processes]: how many each has */
    int64_t *expert_begin;      /* [world + 1]: the first expert of a rank; behind the last, all */
    struct model_rank *ranks;
};

/* Operands of one step of `rows` tokens. */
struct model_step {
    int64_t rows;
    int64_t head_rows; /* the last so many rows get logits and a next token; may be 0 */
    mh_tensor tokens, positions, slots, page_table, sampling, next, fault;
    mh_tensor rope_table;    /* f32 [positions, R] */
    const mh_tensor *cache;  /* [layers]: [pages, P, L + R] */
    const mh_tensor *hidden; /* [layers + 1]: copies of the hidden states, or NULL */
    mh_tensor logits;        /* f32 [head_rows, vocabulary] */
    /* activations, [rows, ...] */
    mh_tensor h, x, q_a, q, kv, query, attended, values, ffn, shared, expert_ffn, experts, weights;
    bool spread;            /* experts are on several ranks, */
    mh_tensor expert_slots; /* which exchange these: f32 [rows, k, hidden] */
};

/* placement.c */
/* Bytes of a model's tensors, as they go to devices. */
struct model_sizes {
    uint64_t experts; /* of all routed experts */
    uint64_t head, others;
};

/* checkpoint NULL: as the config has them. */
mh_status model_measure(const mh_config *config, const mh_checkpoint *checkpoint,
                        struct model_sizes *sizes);
/* How many experts of each layer there is room for, with an eighth of the memory, 64 MiB at least,
 * left for the cache and for what a step takes. Weights on host memory stay in the checkpoint's
 * mapping; memory 0 is not known. */
int64_t model_room(const mh_config *config, const struct model_sizes *sizes, uint64_t memory,
                   bool on_host, bool has_head);
/* Everyone the same, the first ones more; who cannot take that takes what it can. Returns what is
 * left over. */
int64_t model_deal(const int64_t *room, uint32_t ranks, int64_t experts, int64_t *counts);
/* Fills expert_begin and the ranks' experts. Collective. */
mh_status model_place_experts(struct mh_model *model);

/* session.c: checks them and fills in what is left to us. */
mh_status model_session_params(const mh_config *config, mh_session_params *params);
/* session_pages.c: of one layer. */
uint64_t model_cache_bytes(const mh_config *config, mh_dtype dtype, int64_t pages);

/* Hands one op to whoever builds the graph; `slots` are the places its weights come from, in the
 * order of ops.def, NULL at the end. An op of NULL: here the ranks exchange `expert_slots`. */
typedef mh_status (*model_emit_fn)(void *context, const mh_op *op, mh_weight ***slots);

/* graph.c: the ops of a step, in order. */
mh_status model_build(struct mh_model *model, struct model_rank *rank,
                      const struct model_step *step, model_emit_fn emit, void *context);

/* Fills the activations of `step` as views of `buffer` (NULL: only shapes), for `rows` rows;
 * returns the bytes they take. */
uint64_t model_lay_out(const mh_config *config, mh_buffer *buffer, struct model_step *step);

#endif
