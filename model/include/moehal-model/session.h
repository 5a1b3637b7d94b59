/*
 * session.h: sequences being read and written by a model: their cache, their positions, and the
 * graphs they share. A session begins with one sequence, number 0, and mh_session_run, _next,
 * _logits, _rewind and the like are about that one; more of them, and steps in which several take
 * part, are in the second half.
 *
 * Threads: one at a time, but for mh_session_cancel; sessions of one model are independent.
 */
#ifndef MOEHAL_MODEL_SESSION_H
#define MOEHAL_MODEL_SESSION_H

#include <moehal-model/model.h>

MH_BEGIN_DECLS

typedef struct mh_session mh_session;

/* Who has a model's cache, of the ranks it is on. SPLIT: positions are dealt out in segments of
 * 256, segment g to rank g mod ranks, so that each keeps and attends to its part of the keys; what
 * it finds goes to all (mh_comm_all_gather), who merge it in order: the bits of REPLICATED. */
enum { MH_ATTENTION_REPLICATED = 0, MH_ATTENTION_SPLIT = 1 };

typedef struct mh_session_params {
    uint64_t struct_size;
    mh_dtype kv_dtype; /* MH_F32 (also 0) or MH_BF16: of the latent cache */
    uint32_t reserved;
    int64_t context;         /* most positions of a sequence; 0: the model's own limit */
    int64_t chunk;           /* most tokens of one launch; 0: 512; at least `sequences` */
    mh_progress_fn progress; /* of runs of several tokens; may be NULL */
    void *progress_user;
    uint32_t sequences; /* most sequences at a time; 0: 1 */
    uint32_t reserved2;
    int64_t cache_tokens;        /* positions all sequences share; 0: sequences x context */
    mh_expert_load *expert_load; /* counts what tokens choose; borrowed, of this model. Or NULL */
    /* MH_ATTENTION_REPLICATED, _SPLIT. Split, every rank keeps as many pages, cache_tokens are what
     * all have together, and a sequence needs a page of the rank that has its next positions. A
     * launch has fewer tokens than `chunk` where what is exchanged of a long context would take
     * more than 256 MiB. */
    uint32_t attention;
    uint32_t reserved3;
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
 * one graph launch. On failure the sequence is as the last whole chunk left it. */
MH_API mh_status mh_session_run(mh_session *session, const int32_t *ids, uint64_t count,
                                const mh_session_outputs *outputs);

/* Sampling of the token that follows; takes effect from the next run. Default: temperature 0.
 * `counter` is ignored: it is the position. */
MH_API mh_status mh_session_set_sampling(mh_session *session, const mh_sampling *sampling);

/* The token chosen after the last run. MH_WRONG_STATE before the first run or after a rewind. */
MH_API mh_status mh_session_next(mh_session *session, int32_t *token);

/* The last token's logits, f32 [vocabulary]: of the session's last step only, else
 * MH_WRONG_STATE. */
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

/* 1 ends the run or step in progress before its next op, with MH_CANCELLED; if there is none, the
 * next one, once. What was cancelled leaves its sequences as they were. 0 withdraws a 1 that has
 * ended nothing yet. Any thread, and signal handlers; the session must not be released meanwhile.
 * NULL is allowed. */
MH_API void mh_session_cancel(mh_session *session, uint32_t cancel);

/* ---- several sequences ----
 *
 * A sequence is a small number, below mh_session_params.sequences, given by mh_sequence_add or
 * _fork and free again after mh_sequence_remove. Its cache is made of pages of 64 positions, which
 * forks share until one of them writes there. Nothing about a sequence's bits depends on which
 * others run beside it, or on which pages it has.
 */

/* An empty sequence, the lowest number that is free. MH_OUT_OF_MEMORY: all are in use. */
MH_API mh_status mh_sequence_add(mh_session *session, uint32_t *sequence);
MH_API mh_status mh_sequence_remove(mh_session *session, uint32_t sequence);
/* A new sequence that begins as the first `position` tokens of `from`, sampling included; at
 * `from`'s own position its next token too. Copies nothing: pages are shared. */
MH_API mh_status mh_sequence_fork(mh_session *session, uint32_t from, int64_t position,
                                  uint32_t *sequence);

/* What one sequence brings to a step. */
typedef struct mh_sequence_rows {
    uint64_t struct_size; /* that of the first counts for the whole array */
    uint32_t sequence;
    uint32_t reserved;
    const int32_t *ids; /* [count]: a prompt, part of one, or the one token chosen before */
    uint64_t count;
} mh_sequence_rows;

/* Appends tokens to several sequences at once, each at most one time; afterwards every one of them
 * has its next token and its last token's logits. Up to `chunk` tokens are one launch. All or
 * nothing: on failure every sequence is as it was. MH_OUT_OF_MEMORY: the cache has not enough free
 * pages; remove or rewind a sequence, and try again. */
MH_API mh_status mh_session_step(mh_session *session, const mh_sequence_rows *rows, uint64_t count);

/* As mh_session_set_sampling, _next, _logits, _position and _rewind. A removed or unknown sequence
 * is MH_INVALID_ARGUMENT, its position -1. */
MH_API mh_status mh_sequence_set_sampling(mh_session *session, uint32_t sequence,
                                          const mh_sampling *sampling);
MH_API mh_status mh_sequence_next(mh_session *session, uint32_t sequence, int32_t *token);
MH_API mh_status mh_sequence_logits(mh_session *session, uint32_t sequence, float *logits);
MH_API int64_t mh_sequence_position(const mh_session *session, uint32_t sequence);
MH_API mh_status mh_sequence_rewind(mh_session *session, uint32_t sequence, int64_t position);
/* The ids at positions [begin, begin + count). */
MH_API mh_status mh_sequence_tokens(const mh_session *session, uint32_t sequence, int64_t begin,
                                    int64_t count, int32_t *ids);

/* Writes a sequence to a file: tokens, cache, sampling and next token, with checksums and what
 * tells its model. The file appears whole or not at all (it is written as PATH.part and renamed).
 * MH_UNSUPPORTED where the cache is split and part of it is in another process. */
MH_API mh_status mh_sequence_save(mh_session *session, uint32_t sequence, const char *path);

/* The saved sequence takes this one's place, bit for bit. A file of another model, cache dtype or
 * profile is MH_INVALID_ARGUMENT, a damaged one MH_BAD_DATA, a cache without room MH_OUT_OF_MEMORY;
 * each names the reason and leaves the sequence as it was. Only a file that changes or fails while
 * it is read a second time leaves it empty. */
MH_API mh_status mh_sequence_restore(mh_session *session, uint32_t sequence, const char *path);

typedef struct mh_session_info {
    uint64_t struct_size;
    uint32_t sequences, sequences_used;
    int64_t context;           /* positions a sequence may have */
    int64_t page_tokens;       /* positions a page */
    int64_t pages, pages_free; /* of the cache; a shared page counts once */
    uint64_t page_bytes;       /* of all layers */
} mh_session_info;

MH_API mh_status mh_session_get_info(const mh_session *session, mh_session_info *out);

MH_END_DECLS

#endif
