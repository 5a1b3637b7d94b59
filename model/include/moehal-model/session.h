/*
 * session.h: one sequence being read and written by a model: its cache, its graphs, its position.
 * Threads: one at a time; sessions of one model are independent.
 */
#ifndef MOEHAL_MODEL_SESSION_H
#define MOEHAL_MODEL_SESSION_H

#include <moehal-model/model.h>

MH_BEGIN_DECLS

typedef struct mh_session mh_session;

typedef struct mh_session_params {
    uint64_t struct_size;
    mh_dtype kv_dtype; /* MH_F32 (also 0) or MH_BF16: of the latent cache */
    uint32_t reserved;
    int64_t context;         /* most positions; 0: the model's own limit */
    int64_t chunk;           /* most tokens of one prefill step; 0: 64 */
    mh_progress_fn progress; /* of runs of several tokens; may be NULL */
    void *progress_user;
} mh_session_params;

/* Takes the cache and the activations. A context beyond the model's max_position_embeddings is
 * refused. params may be NULL. */
MH_API mh_status mh_session_create(mh_model *model, const mh_session_params *params,
                                   mh_session **out);
MH_API mh_session *mh_session_retain(mh_session *session);
MH_API void mh_session_release(mh_session *session); /* NULL is allowed */

/* What a run may hand out. Pointers may be NULL. */
typedef struct mh_session_outputs {
    uint64_t struct_size;
    /* f32 [count - logits_begin, vocabulary]: of the tokens from logits_begin on. NULL: only the
     * last token's logits are computed (mh_session_logits). */
    float *logits;
    uint64_t logits_begin;
    /* hidden[l], l = 0 .. layers: f32 [count, hidden size]. 0 is the embedding, l after layer l,
     * the last one after the final norm. */
    float *const *hidden;
} mh_session_outputs;

/* Appends tokens, in chunks. An id outside the vocabulary, or more tokens than the context has room
 * for, is refused before anything runs. outputs may be NULL. With count 1 this is a decode step:
 * one graph launch. On failure the position stays where the last whole chunk ended. */
MH_API mh_status mh_session_run(mh_session *session, const int32_t *ids, uint64_t count,
                                const mh_session_outputs *outputs);

/* Sampling of the token that follows; takes effect from the next run. Default: temperature 0.
 * `counter` is ignored: it is the position. */
MH_API mh_status mh_session_set_sampling(mh_session *session, const mh_sampling *sampling);

/* The token chosen after the last run. MH_WRONG_STATE before the first run or after a rewind. */
MH_API mh_status mh_session_next(mh_session *session, int32_t *token);

/* The last token's logits, f32 [vocabulary]. */
MH_API mh_status mh_session_logits(mh_session *session, float *logits);

MH_API int64_t mh_session_position(const mh_session *session); /* tokens so far */
MH_API int64_t mh_session_context(const mh_session *session);  /* room in all */

/* Called after each op of a step, when it is done; its operands may be read with mh_buffer_read. A
 * failure it returns ends the run. */
typedef mh_status (*mh_observe_fn)(void *user, const mh_op *op);

/* From the next run on ops are encoded one by one instead of as a graph, and `observe` sees each:
 * for traces and comparisons, slowly. NULL ends that. The bits are the same. */
MH_API mh_status mh_session_observe(mh_session *session, mh_observe_fn observe, void *user);

/* Forgets everything from `position` on; what comes next is as if it had never been. */
MH_API mh_status mh_session_rewind(mh_session *session, int64_t position);

MH_END_DECLS

#endif
