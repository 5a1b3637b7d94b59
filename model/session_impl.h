/* session_impl.h: what the files of a session share. Not installed. */
#ifndef SESSION_IMPL_H
#define SESSION_IMPL_H

#include <moehal/comm.h>

#include "model.h"

/* Graphs are kept by what is baked into them: decode steps of a few sizes, and prefill. */
#define SESSION_GRAPHS 8

/* A step's graphs: of each rank one, or where the devices do not exchange by themselves its parts,
 * between which the host does it. */
struct session_graph {
    mh_graph **parts; /* [ranks * part_count]; NULL: nothing here */
    uint32_t part_count;
    int64_t rows, head_rows;
    int64_t segments;
    bool hidden;
    uint64_t used; /* when it last ran */
};

struct sequence {
    bool in_use;
    bool has_next; /* next was chosen at position - 1 */
    int32_t next;
    int64_t position;
    mh_sampling sampling;
    int32_t *pages; /* [pages a sequence]: -1 where there is none yet */
    int32_t *ids;   /* [context]: the tokens */
    uint64_t logits_step;
    int64_t logits_row; /* of session->logits, while session->steps is logits_step */
};

/* A page that a step takes for a sequence, in place of a shared one or of none (-1). */
struct page_change {
    uint32_t sequence;
    int32_t from, to;
    int64_t index;
};

/* What a session has on one device: ranks run the same rows over caches of their own. */
struct session_rank {
    struct model_rank *model;
    mh_stream *stream;
    mh_step *step;
    mh_buffer *cache, *rope, *activations;
    bool cleared; /* the activations, with the first graph, where steps have rows of padding */
    mh_tensor *cache_tensors; /* [layers] */
    mh_tensor rope_table;
    mh_buffer *scratch; /* of all graphs, which run one after the other; NULL: none needed yet */
};

struct mh_session {
    atomic_uint refs;
    mh_model *model;
    uint32_t rank_count;
    struct session_rank *ranks; /* [0] is whose results are read */
    mh_comm *comm;              /* between them; NULL with one */
    bool linked;                /* it is native, and graphs do it */
    uint32_t *owners;           /* [layers, groups, experts]: the rank that serves it */
    mh_expert_load *load;       /* the caller's, or NULL */
    int32_t *choices;           /* [layers, rows, k], with a load */
    int32_t *chosen; /* where experts are fetched, of a layer: [rows, k], and [experts] */
    bool *needed;
    mh_dtype kv_dtype;
    int64_t context;
    int64_t chunk;      /* most rows of a launch */
    int64_t rows;       /* chunk with its padding */
    int64_t heads;      /* rows of logits among the activations */
    int64_t slot_pages; /* pages a sequence */
    uint32_t shares;    /* ranks among which the cache is split; 1: each has all of it */
    int64_t segments;   /* that a rank attends to in the launch at hand, at most; 0: not split */
    bool padded;        /* graphs are kept for a few numbers of rows only */
    mh_progress_fn progress;
    void *progress_user;
    mh_observe_fn observe; /* NULL: steps are graphs */
    void *observe_user;

    mh_buffer *all_logits, *hidden; /* made when first asked for */
    struct session_graph graphs[SESSION_GRAPHS];
    uint64_t runs;

    uint32_t sequence_count;
    struct sequence *sequences;
    int32_t *page_tables, *ids; /* of all sequences */

    /* Pages of each share: a sequence's page is one of the share that has its positions. */
    int64_t pages;
    int64_t *free_counts;        /* [shares] */
    int32_t *free_pages;         /* [shares, pages]: stacks */
    uint32_t *page_refs;         /* [shares, pages] */
    struct page_change *changes; /* of the step that is being prepared or runs */
    int64_t change_count;

    int32_t *next_ids; /* [rows] */
    uint64_t steps;    /* launches so far */
    mh_tensor logits;  /* of the last one: f32 [head rows, vocabulary] */
};

/* session.c */
/* The sequence of that number, or NULL with an error that names the function. */
struct sequence *session_find(const mh_session *session, uint32_t sequence, const char *function);
mh_status session_check_ids(const mh_session *session, const int32_t *ids, uint64_t count);

/* session_pages.c: the cache's pages, counted by the sequences that hold them. */
mh_status session_pages_create(mh_session *session, int64_t cache_tokens);
void session_pages_destroy(mh_session *session);
/* Takes pages for `count` more positions and replaces a shared one that they begin in. Failing, it
 * leaves what it took before in `changes`, for session_pages_undo. */
mh_status session_pages_take(mh_session *session, uint32_t sequence, int64_t count);
mh_status session_pages_copy(mh_session *session); /* enqueues the copies of shared pages */
void session_pages_keep(mh_session *session);      /* the step is done */
void session_pages_undo(mh_session *session);      /* the step never was */
/* Lets go of what lies wholly behind `position`. */
void session_pages_trim(mh_session *session, struct sequence *sequence, int64_t position);
/* Are there pages for so many tokens, if this sequence had none? `what` is to have them. */
mh_status session_pages_check(const mh_session *session, const struct sequence *sequence,
                              int64_t tokens, const char *what);
/* The share that has a sequence's page of that index. */
static inline uint32_t session_share(const mh_session *session, int64_t index)
{
    return (uint32_t)(index / (MODEL_SEGMENT / MODEL_PAGE) % session->shares);
}

/* Does this rank have it? */
static inline bool session_has(const mh_session *session, const struct session_rank *rank,
                               int64_t index)
{
    return session->shares == 1 || session_share(session, index) == rank->model->number;
}
void session_pages_share(mh_session *session, const struct sequence *from, int64_t position,
                         struct sequence *to);

/* session_graph.c */
/* Rows that a launch of `rows` has, padding counted. Observers see none. */
int64_t session_bucket(const mh_session *session, int64_t rows);
/* session.c: the ranks' communicator, a new one where one has failed. Collective at first. */
mh_status session_meet(mh_session *session);

/* Of one rank. */
struct model_step session_operands(mh_session *session, const struct session_rank *rank,
                                   int64_t rows, int64_t head_rows);
mh_tensor session_hidden(mh_session *session, int64_t index, int64_t rows);
/* Enqueues a step whose inputs are written. */
mh_status session_launch(mh_session *session, int64_t rows, int64_t head_rows, bool hidden);
void session_graphs_destroy(mh_session *session);

/* session_step.c */
void session_steps_destroy(mh_session *session);
mh_status session_steps_create(mh_session *session);

#endif
