/* session.c: a session's life, and the sequences it holds. */
#include <stdlib.h>
#include <string.h>

#include "rope.h"
#include "session_impl.h"

/* ---- life ---- */

static mh_status make_rope(const mh_session *s, struct session_rank *r)
{
    const mh_config *c = s->model->config;
    int64_t positions = s->slot_pages * MODEL_PAGE;
    const int64_t shape[] = {positions, c->qk_rope_head_dim};
    uint64_t bytes = 4 * (uint64_t)(positions * c->qk_rope_head_dim);
    double *inv = malloc((size_t)(c->qk_rope_head_dim / 2) * sizeof(*inv));
    float *table = malloc(bytes);
    mh_status status = MH_OK;
    if (!inv || !table)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: %llu bytes for angles could not be had",
                         (unsigned long long)bytes);
    if (!status)
        status = mh_buffer_create(r->model->device, bytes, 0, &r->rope);
    if (!status) {
        mh_config_rope_frequencies(c, inv);
        mh_rope_table(inv, c->qk_rope_head_dim / 2, mh_config_rope_amplitude(c), positions, table);
        r->rope_table = mh_tensor_make(r->rope, 0, MH_F32, 2, shape);
        status = mh_buffer_write(r->rope, 0, table, bytes);
    }
    free(inv);
    free(table);
    return status;
}

static mh_status check_sequences(mh_session_params *p)
{
    if (!p->sequences)
        p->sequences = 1;
    if (p->sequences > 65536)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_session_params: sequences is %u, must be 1 to 65536", p->sequences);
    if (p->attention > MH_ATTENTION_SPLIT)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_params: attention is %u, must be 0 or 1",
                       p->attention);
    if (p->reserved || p->reserved2 || p->reserved3)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_params: a reserved field is not 0");
    int64_t most = p->sequences * ((p->context + MODEL_PAGE - 1) / MODEL_PAGE) * MODEL_PAGE;
    if (p->cache_tokens < 0 || (p->cache_tokens && p->cache_tokens > most))
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_session_params: cache_tokens is %lld, must be 1 to %lld, what %u "
                       "sequences may hold; or 0",
                       (long long)p->cache_tokens, (long long)most, p->sequences);
    return MH_OK;
}

mh_status model_session_params(const mh_config *c, mh_session_params *p)
{
    if (!p->kv_dtype)
        p->kv_dtype = MH_F32;
    if (p->kv_dtype != MH_F32 && p->kv_dtype != MH_BF16)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_session_params: kv_dtype is %s, must be f32 or bf16",
                       mh_dtype_name(p->kv_dtype));
    if (!p->context)
        p->context = c->max_position_embeddings;
    if (p->context < 1 || p->context > c->max_position_embeddings)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "context: %lld tokens, but the model's max_position_embeddings is %lld",
                       (long long)p->context, (long long)c->max_position_embeddings);
    if (!p->chunk)
        p->chunk = 512;
    if (p->chunk < 1 || p->chunk > 1 << 20)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_params: chunk is %lld, must be 1 to 2^20",
                       (long long)p->chunk);
    mh_status status = check_sequences(p);
    if (!status && p->chunk > p->sequences * p->context)
        p->chunk = p->sequences * p->context;
    if (!status && p->chunk < p->sequences)
        p->chunk = p->sequences;
    return status;
}

int64_t model_segments(int64_t context, int64_t parts)
{
    int64_t segments = (context + MODEL_SEGMENT - 1) / MODEL_SEGMENT;
    return (segments + parts - 1) / parts;
}

int64_t model_part_bytes(const mh_config *c, int64_t segments)
{
    return 4 * c->num_attention_heads * (c->kv_lora_rank + 2) * segments;
}

/* What ranks find of a long context takes room: fewer rows at once, that it stays below this. */
#define MOST_PART_BYTES (INT64_C(256) << 20)

int64_t model_split_chunk(const mh_config *c, int64_t segments, int64_t parts, int64_t chunk,
                          int64_t sequences)
{
    int64_t most = MOST_PART_BYTES / (model_part_bytes(c, segments) * (parts + 1));
    if (chunk <= most)
        return chunk;
    return most > sequences ? most : sequences;
}

static void split_attention(mh_session *s)
{
    s->shares = s->model->world;
    s->segments = model_segments(s->context, s->shares);
    s->chunk =
        model_split_chunk(s->model->config, s->segments, s->shares, s->chunk, s->sequence_count);
}

static void start_sequence(struct sequence *q)
{
    q->in_use = true;
    q->has_next = false;
    q->position = 0;
    q->sampling = (mh_sampling){.top_p = 65536};
}

static mh_status find_owners(mh_session *s)
{
    const struct placement *p = &s->model->placement;
    int64_t layers = p->config->num_hidden_layers, experts = p->config->n_routed_experts;
    s->owners = calloc((size_t)(layers * p->groups * experts), sizeof(*s->owners));
    if (!s->owners)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a session");
    uint32_t *at = s->owners;
    for (int64_t i = 0; i < layers; i++)
        for (uint32_t g = 0; g < p->groups; g++)
            for (int64_t e = 0; e < experts; e++)
                *at++ = placement_owner(p, i, g, e);
    return MH_OK;
}

mh_status session_meet(mh_session *s)
{
    mh_stream *streams[MODEL_DEVICES];
    const mh_config *c = s->model->config;
    mh_comm_params p = MH_INIT(mh_comm_params);
    mh_comm_info info = MH_INIT(mh_comm_info);
    mh_comm *comm;
    /* What a step exchanges at once, but not more than helps. */
    uint64_t slots = 4 * (uint64_t)(s->rows * c->num_experts_per_tok * c->hidden_size);
    struct model_step parts = {.rows = s->rows, .parts = 1};
    if (s->shares > 1)
        parts.segments = model_segments(s->context, s->shares);
    model_lay_out(c, NULL, &parts);
    uint64_t part = (uint64_t)(parts.all_parts.shape[0] * parts.all_parts.stride[0]);
    slots = part > slots ? part : slots;
    p.capacity = slots < 16 << 20 ? slots : 16 << 20;
    for (uint32_t i = 0; i < s->rank_count; i++)
        streams[i] = s->ranks[i].stream;
    mh_status status = mh_comm_create(streams, s->rank_count, s->model->transport, &comm);
    if (status)
        return status;
    status = mh_comm_set(comm, &p);
    if (!status)
        status = mh_comm_get_info(comm, &info);
    if (status) {
        mh_comm_release(comm);
        return status;
    }
    mh_comm_release(s->comm);
    s->comm = comm;
    s->linked = info.native && !s->model->fetches; /* the host fetches them */
    return MH_OK;
}

static mh_status make_ranks(mh_session *s)
{
    mh_model *model = s->model;
    mh_status status = MH_OK;
    s->rank_count = model->rank_count;
    s->ranks = calloc(s->rank_count, sizeof(*s->ranks));
    if (!s->ranks) {
        s->rank_count = 0;
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a session");
    }
    for (uint32_t i = 0; !status && i < s->rank_count; i++) {
        struct session_rank *r = &s->ranks[i];
        r->model = &model->ranks[i];
        /* Where kernels run on the host a graph is a list, recorded in less time than a row of
         * padding takes to compute; elsewhere graphs are compiled, so a few shapes have to do. */
        mh_device_info info = MH_INIT(mh_device_info);
        status = mh_device_get_info(r->model->device, &info);
        if (!(info.flags & MH_DEVICE_HOST_MEMORY))
            s->padded = true;
        if (!status)
            status = mh_stream_create(r->model->device, &r->stream);
    }
    if (!status && model->world > 1)
        status = find_owners(s);
    return status;
}

/* For steps that fetch, which allocate nothing. */
static mh_status make_room_for_choices(mh_session *s)
{
    const mh_config *c = s->model->config;
    s->chosen = calloc((size_t)(s->rows * c->num_experts_per_tok), sizeof(*s->chosen));
    s->needed = calloc((size_t)c->n_routed_experts, sizeof(*s->needed));
    if (!s->chosen || !s->needed)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %lld rows", (long long)s->rows);
    return MH_OK;
}

static void drop_ranks(mh_session *s)
{
    mh_comm_release(s->comm);
    for (uint32_t i = 0; i < s->rank_count; i++) {
        struct session_rank *r = &s->ranks[i];
        mh_step_release(r->step);
        mh_buffer_release(r->scratch);
        mh_buffer_release(r->activations);
        mh_buffer_release(r->cache);
        mh_buffer_release(r->rope);
        mh_stream_release(r->stream);
        free(r->cache_tensors);
    }
    free(s->chosen);
    free(s->needed);
    free(s->owners);
    free(s->ranks);
}

mh_status mh_session_create(mh_model *model, const mh_session_params *params, mh_session **out)
{
    if (!model || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_create: %s is NULL",
                       model ? "out" : "model");
    *out = NULL;
    mh_session_params p = MH_INIT(mh_session_params);
    mh_status status = MH_OK;
    if (params)
        status = mh_struct_in(&p, params, sizeof(p), "mh_session_params");
    if (!status)
        status = model_session_params(model->config, &p);
    if (status)
        return status;
    if (model->fetches && atomic_exchange(&model->in_use, true))
        return mh_fail(MH_WRONG_STATE,
                       "mh_session_create: the model fetches experts, and has a session already");
    mh_session *s = calloc(1, sizeof(*s));
    if (!s) {
        atomic_store(&model->in_use, false);
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a session");
    }
    atomic_init(&s->refs, 1);
    s->model = mh_model_retain(model);
    s->kv_dtype = p.kv_dtype;
    s->context = p.context, s->chunk = p.chunk, s->sequence_count = p.sequences;
    s->progress = p.progress, s->progress_user = p.progress_user;
    s->load = p.expert_load;
    s->shares = 1;
    if (p.attention == MH_ATTENTION_SPLIT && model->world > 1)
        split_attention(s);
    status = model_check_load(s->load, model->config);
    if (!status)
        status = make_ranks(s);
    s->rows = session_bucket(s, s->chunk);
    s->heads = session_bucket(s, s->sequence_count);
    if (!status && model->fetches)
        status = make_room_for_choices(s);
    if (!status && model->world > 1)
        status = session_meet(s);
    if (!status)
        status = session_pages_create(s, p.cache_tokens);
    for (uint32_t i = 0; !status && i < s->rank_count; i++)
        status = make_rope(s, &s->ranks[i]);
    if (!status)
        status = session_steps_create(s);
    if (status) {
        mh_session_release(s);
        return status;
    }
    start_sequence(&s->sequences[0]);
    *out = s;
    return MH_OK;
}

mh_session *mh_session_retain(mh_session *session)
{
    if (session)
        atomic_fetch_add_explicit(&session->refs, 1, memory_order_relaxed);
    return session;
}

void mh_session_release(mh_session *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    session_graphs_destroy(s);
    session_steps_destroy(s);
    session_pages_destroy(s);
    drop_ranks(s);
    atomic_store(&s->model->in_use, false);
    mh_model_release(s->model);
    free(s);
}

void mh_session_cancel(mh_session *s, uint32_t cancel)
{
    for (uint32_t i = 0; s && i < s->rank_count; i++)
        mh_stream_cancel(s->ranks[i].stream, cancel);
}

mh_status mh_session_observe(mh_session *s, mh_observe_fn observe, void *user)
{
    if (!s)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_observe: session is NULL");
    if (observe && s->model->split)
        return mh_fail(MH_UNSUPPORTED,
                       "mh_session_observe: the session is spread over %u devices, or fetches "
                       "experts",
                       s->model->world);
    s->observe = observe;
    s->observe_user = user;
    return MH_OK;
}

mh_status mh_session_get_info(const mh_session *s, mh_session_info *out)
{
    if (!s)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_get_info: session is NULL");
    const mh_tensor *layer = &s->ranks[0].cache_tensors[0];
    mh_session_info info = MH_INIT(mh_session_info);
    info.sequences = s->sequence_count;
    for (uint32_t i = 0; i < s->sequence_count; i++)
        info.sequences_used += s->sequences[i].in_use;
    info.context = s->context;
    info.page_tokens = MODEL_PAGE;
    info.pages = s->pages * s->shares;
    for (uint32_t i = 0; i < s->shares; i++)
        info.pages_free += s->free_counts[i];
    info.page_bytes = (uint64_t)(layer->stride[0] * s->model->config->num_hidden_layers);
    return mh_struct_out(out, &info, sizeof(info));
}

/* ---- sequences ---- */

struct sequence *session_find(const mh_session *s, uint32_t sequence, const char *function)
{
    if (!s)
        mh_fail(MH_INVALID_ARGUMENT, "%s: session is NULL", function);
    else if (sequence >= s->sequence_count)
        mh_fail(MH_INVALID_ARGUMENT, "%s: sequence is %u, the session has %u", function, sequence,
                s->sequence_count);
    else if (!s->sequences[sequence].in_use)
        mh_fail(MH_INVALID_ARGUMENT, "%s: sequence %u is not in use", function, sequence);
    else
        return &s->sequences[sequence];
    return NULL;
}

mh_status session_check_ids(const mh_session *s, const int32_t *ids, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= s->model->config->vocab_size)
            return mh_fail(MH_INVALID_ARGUMENT, "ids[%llu]: %d is outside the vocabulary of %lld",
                           (unsigned long long)i, ids[i], (long long)s->model->config->vocab_size);
    return MH_OK;
}

mh_status mh_sequence_add(mh_session *s, uint32_t *sequence)
{
    if (!s || !sequence)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_sequence_add: %s is NULL",
                       s ? "sequence" : "session");
    for (uint32_t i = 0; i < s->sequence_count; i++)
        if (!s->sequences[i].in_use) {
            start_sequence(&s->sequences[i]);
            *sequence = i;
            return MH_OK;
        }
    return mh_fail(MH_OUT_OF_MEMORY, "sequences: all %u of the session are in use",
                   s->sequence_count);
}

mh_status mh_sequence_remove(mh_session *s, uint32_t sequence)
{
    struct sequence *q = session_find(s, sequence, "mh_sequence_remove");
    if (!q)
        return MH_INVALID_ARGUMENT;
    session_pages_trim(s, q, 0);
    q->in_use = false;
    return MH_OK;
}

static mh_status check_position(const struct sequence *q, int64_t position, const char *function)
{
    if (position < 0 || position > q->position)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: position is %lld, must be 0 to %lld", function,
                       (long long)position, (long long)q->position);
    return MH_OK;
}

mh_status mh_sequence_fork(mh_session *s, uint32_t from, int64_t position, uint32_t *sequence)
{
    const struct sequence *q = session_find(s, from, "mh_sequence_fork");
    mh_status status = q ? check_position(q, position, "mh_sequence_fork") : MH_INVALID_ARGUMENT;
    if (!status)
        status = mh_sequence_add(s, sequence);
    if (status)
        return status;
    struct sequence *fork = &s->sequences[*sequence];
    session_pages_share(s, q, position, fork);
    memcpy(fork->ids, q->ids, (size_t)position * sizeof(*q->ids));
    fork->position = position;
    fork->sampling = q->sampling;
    if (position == q->position) {
        fork->has_next = q->has_next, fork->next = q->next;
        fork->logits_step = q->logits_step, fork->logits_row = q->logits_row;
    }
    return MH_OK;
}

mh_status mh_sequence_rewind(mh_session *s, uint32_t sequence, int64_t position)
{
    struct sequence *q = session_find(s, sequence, "mh_session_rewind");
    mh_status status = q ? check_position(q, position, "mh_session_rewind") : MH_INVALID_ARGUMENT;
    if (status)
        return status;
    if (position != q->position)
        q->has_next = false;
    q->position = position;
    session_pages_trim(s, q, position);
    return MH_OK;
}

mh_status mh_sequence_set_sampling(mh_session *s, uint32_t sequence, const mh_sampling *sampling)
{
    struct sequence *q = session_find(s, sequence, "mh_session_set_sampling");
    if (!q)
        return MH_INVALID_ARGUMENT;
    if (!sampling)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_set_sampling: sampling is NULL");
    if (!(sampling->temperature >= 0) || sampling->temperature > 1e6f)
        return mh_fail(MH_INVALID_ARGUMENT, "temperature: %g, must be 0 to 1e6",
                       (double)sampling->temperature);
    q->sampling = *sampling;
    return MH_OK;
}

static struct sequence *find_next(const mh_session *s, uint32_t sequence, const void *out,
                                  const char *function, mh_status *status)
{
    struct sequence *q = session_find(s, sequence, function);
    *status = MH_OK;
    if (!q)
        *status = MH_INVALID_ARGUMENT;
    else if (!out)
        *status = mh_fail(MH_INVALID_ARGUMENT, "%s: out is NULL", function);
    else if (!q->has_next)
        *status = mh_fail(MH_WRONG_STATE, "%s: nothing has run since the start or the last rewind",
                          function);
    return q;
}

mh_status mh_sequence_next(mh_session *s, uint32_t sequence, int32_t *token)
{
    mh_status status;
    const struct sequence *q = find_next(s, sequence, token, "mh_session_next", &status);
    if (!status)
        *token = q->next;
    return status;
}

mh_status mh_sequence_logits(mh_session *s, uint32_t sequence, float *logits)
{
    mh_status status;
    const struct sequence *q = find_next(s, sequence, logits, "mh_session_logits", &status);
    if (status)
        return status;
    if (q->logits_step != s->steps)
        return mh_fail(MH_WRONG_STATE,
                       "mh_session_logits: sequence %u had no part in the session's last step",
                       sequence);
    mh_tensor t = mh_tensor_slice(s->logits, 0, q->logits_row, 1);
    return mh_buffer_read(t.buffer, t.offset, logits, 4 * (uint64_t)t.shape[1]);
}

int64_t mh_sequence_position(const mh_session *s, uint32_t sequence)
{
    const struct sequence *q = session_find(s, sequence, "mh_sequence_position");
    return q ? q->position : -1;
}

mh_status mh_sequence_tokens(const mh_session *s, uint32_t sequence, int64_t begin, int64_t count,
                             int32_t *ids)
{
    const struct sequence *q = session_find(s, sequence, "mh_sequence_tokens");
    if (!q)
        return MH_INVALID_ARGUMENT;
    if (begin < 0 || count < 0 || begin > q->position || count > q->position - begin)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_sequence_tokens: %lld tokens from %lld, the sequence has %lld",
                       (long long)count, (long long)begin, (long long)q->position);
    if (count && !ids)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_sequence_tokens: ids is NULL");
    if (count)
        memcpy(ids, q->ids + begin, (size_t)count * sizeof(*ids));
    return MH_OK;
}

/* ---- sequence 0 ---- */

mh_status mh_session_set_sampling(mh_session *s, const mh_sampling *sampling)
{
    return mh_sequence_set_sampling(s, 0, sampling);
}

mh_status mh_session_next(mh_session *s, int32_t *token)
{
    return mh_sequence_next(s, 0, token);
}

mh_status mh_session_logits(mh_session *s, float *logits)
{
    return mh_sequence_logits(s, 0, logits);
}

int64_t mh_session_position(const mh_session *s)
{
    return s && s->sequences[0].in_use ? s->sequences[0].position : 0;
}

int64_t mh_session_context(const mh_session *s)
{
    return s ? s->context : 0;
}

mh_status mh_session_rewind(mh_session *s, int64_t position)
{
    return mh_sequence_rewind(s, 0, position);
}
