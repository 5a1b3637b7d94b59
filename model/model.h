/* model.h: what model.c, graph.c and session.c share. Not installed. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>

#include <moehal-model/session.h>

#include "placement.h"

struct model_tensor;

#define MODEL_PAGE 64 /* tokens a page of the cache; the chunk of numerics rule 3 */
#define MODEL_DEVICES 64
#define MODEL_SEGMENT 256 /* of numerics rule 3: what a split cache is dealt out in */

/* Weights of a layer; what a layer does not have stays NULL or of rank 0. */
struct model_layer {
    mh_tensor attention_norm, q_a_norm, kv_a_norm, ffn_norm, router_bias; /* f32 */
    mh_weight *q, *q_a, *q_b, *kv_a, *kv_b, *o;
    mh_weight *gate, *up, *down; /* dense layers, or the shared experts */
    mh_weight *router;
    mh_weight *expert_gate, *expert_up, *expert_down; /* banks */
    int64_t expert_count;                             /* that are here, in their order */
    mh_tensor expert_map; /* i32 [groups * E] of ops; of rank 0 where there is one rank */
};

/* What one device holds: the whole model, or all of it but the experts of other ranks. Ranks past
 * the first have no head: every rank computes every hidden state, the first alone the logits. */
struct model_rank {
    mh_device *device;
    mh_buffer *params; /* norms and biases, f32, and the maps of experts */
    mh_tensor final_norm;
    mh_weight *embedding, *head;
    struct model_layer *layers;
    uint32_t number; /* among all */
    int64_t places;  /* of a bank, where that is less than the experts of a layer; 0: it is not */
    struct fetch *fetch; /* then */
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
    struct placement placement;
    struct model_rank *ranks;
    bool split;         /* experts' outputs stay unsummed until all are there */
    bool fetches;       /* a rank of this process does */
    atomic_bool in_use; /* then: by a session */
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
    mh_tensor h, x, q_a, q, kv, query, attended, values, ffn, shared, expert_ffn, weights;
    mh_tensor experts;      /* i32 [layers, rows, k]: what they choose */
    bool split;             /* as of the model: */
    mh_tensor expert_slots; /* f32 [rows, k, hidden] */
    /* Of attention that is split among `parts` ranks: segments that a rank has, or 0; what it finds
     * of them, f32 [rows, heads, segments, latent + 2], and what all do, [parts * rows, ...]. */
    int64_t segments, parts;
    mh_tensor own_part, all_parts;
    mh_tensor writes; /* i32 [rows]: slots for what is written to the rank's cache */
};

/* placement.c: fills `placement`. Collective. */
mh_status model_place_experts(struct mh_model *model, const mh_model_params *params);

/* model.c: a matrix of this format and, of FP8, its scales. */
mh_status model_find_matrix(const mh_checkpoint *checkpoint, const struct model_tensor *tensor,
                            mh_format format, mh_checkpoint_tensor *data,
                            mh_checkpoint_tensor *scale);
/* session.c: checks them and fills in what is left to us. */
mh_status model_session_params(const mh_config *config, mh_session_params *params);
/* session_pages.c: of one layer. */
uint64_t model_cache_bytes(const mh_config *config, mh_dtype dtype, int64_t pages);

/* session.c: the most segments of a context that one of `parts` ranks has; what it finds of so many
 * for a token and layer; how many tokens then go in a launch. */
int64_t model_segments(int64_t context, int64_t parts);
int64_t model_part_bytes(const mh_config *config, int64_t segments);
int64_t model_split_chunk(const mh_config *config, int64_t segments, int64_t parts, int64_t chunk,
                          int64_t sequences);

/* Bytes of model_step's `experts`, for so many rows. */
uint64_t model_choices_bytes(const mh_config *config, int64_t rows);
/* A step's experts of one layer: i32 [rows, k]. */
mh_tensor model_layer_experts(const struct model_step *step, int64_t layer);

/* Hands one op to whoever builds the graph; `slots` are the places its weights come from, in the
 * order of ops.def, NULL at the end. Four are no ops: where all_parts must be there, where fetched
 * experts must, where a rank's own `expert_slots` are, and where those of all must be. */
typedef mh_status (*model_emit_fn)(void *context, const mh_op *op, mh_weight ***slots);

extern const mh_op model_gather, model_fetch, model_send, model_receive;

static inline bool model_is_mark(const mh_op *op)
{
    return op == &model_gather || op == &model_fetch || op == &model_send || op == &model_receive;
}

/* graph.c: the ops of a step, in order. */
mh_status model_build(struct mh_model *model, struct model_rank *rank,
                      const struct model_step *step, model_emit_fn emit, void *context);

/* Fills the activations of `step` as views of `buffer` (NULL: only shapes), for `rows` rows;
 * returns the bytes they take. */
uint64_t model_lay_out(const mh_config *config, mh_buffer *buffer, struct model_step *step);

#endif
