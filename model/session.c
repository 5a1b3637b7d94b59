/* session.c: a sequence, its cache and its graphs. */
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "rope.h"

/* Graphs are kept by what is baked into them; the last few are enough for prefill and decode. */
#define GRAPHS 4

struct cached_graph {
    mh_graph *graph;
    int64_t rows, head_rows;
    bool hidden;
    uint64_t used; /* when it last ran */
};

struct mh_session {
    atomic_uint refs;
    mh_model *model;
    mh_stream *stream;
    mh_step *step;
    int64_t context, chunk, pages;
    mh_progress_fn progress;
    void *progress_user;
    mh_sampling sampling;
    mh_observe_fn observe; /* NULL: steps are graphs */
    void *observe_user;

    mh_buffer *cache, *rope, *activations;
    mh_buffer *all_logits, *hidden; /* made when first asked for */
    mh_tensor *cache_tensors;       /* [layers] */
    mh_tensor rope_table;
    struct cached_graph graphs[GRAPHS];
    uint64_t runs;

    int64_t position;
    bool has_next; /* next and last_logits belong to the row at position - 1 */
    int32_t next;
    mh_tensor last_logits; /* f32 [1, vocabulary] */
};

/* ---- life ---- */

static mh_status make_cache(mh_session *s, mh_dtype dtype)
{
    const mh_config *c = s->model->config;
    int64_t row = c->kv_lora_rank + c->qk_rope_head_dim;
    const int64_t shape[] = {s->pages, MODEL_PAGE, row};
    uint64_t bytes = (uint64_t)(s->pages * MODEL_PAGE * row) * mh_dtype_size(dtype);
    bytes = (bytes + 255) & ~UINT64_C(255);
    s->cache_tensors = calloc((size_t)c->num_hidden_layers, sizeof(*s->cache_tensors));
    if (!s->cache_tensors)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a session");
    mh_status status =
        mh_buffer_create(s->model->device, bytes * (uint64_t)c->num_hidden_layers, 0, &s->cache);
    for (int64_t i = 0; !status && i < c->num_hidden_layers; i++)
        s->cache_tensors[i] = mh_tensor_make(s->cache, bytes * (uint64_t)i, dtype, 3, shape);
    return status;
}

static mh_status make_rope(mh_session *s)
{
    const mh_config *c = s->model->config;
    int64_t positions = s->pages * MODEL_PAGE;
    const int64_t shape[] = {positions, c->qk_rope_head_dim};
    uint64_t bytes = 4 * (uint64_t)(positions * c->qk_rope_head_dim);
    double *inv = malloc((size_t)(c->qk_rope_head_dim / 2) * sizeof(*inv));
    float *table = malloc(bytes);
    mh_status status = MH_OK;
    if (!inv || !table)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: %llu bytes for angles could not be had",
                         (unsigned long long)bytes);
    if (!status)
        status = mh_buffer_create(s->model->device, bytes, 0, &s->rope);
    if (!status) {
        mh_config_rope_frequencies(c, inv);
        mh_rope_table(inv, c->qk_rope_head_dim / 2, mh_config_rope_amplitude(c), positions, table);
        s->rope_table = mh_tensor_make(s->rope, 0, MH_F32, 2, shape);
        status = mh_buffer_write(s->rope, 0, table, bytes);
    }
    free(inv);
    free(table);
    return status;
}

static mh_status make_step(mh_session *s)
{
    mh_step_params p = MH_INIT(mh_step_params);
    p.rows = s->chunk, p.slots = 1, p.pages = s->pages;
    mh_status status = mh_step_create(s->model->device, &p, &s->step);
    if (status)
        return status;
    int32_t *table = mh_step_input(s->step, MH_STEP_PAGE_TABLE);
    for (int64_t i = 0; i < s->pages; i++)
        table[i] = (int32_t)i;
    struct model_step sizes = {.rows = s->chunk, .head_rows = 1};
    return mh_buffer_create(s->model->device, model_lay_out(s->model->config, NULL, &sizes), 0,
                            &s->activations);
}

static mh_status check_params(const mh_config *c, mh_session_params *p)
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
        p->chunk = 64;
    if (p->chunk < 1 || p->chunk > 1 << 20)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_params: chunk is %lld, must be 1 to 2^20",
                       (long long)p->chunk);
    if (p->chunk > p->context)
        p->chunk = p->context;
    return MH_OK;
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
        status = check_params(model->config, &p);
    if (status)
        return status;
    mh_session *s = calloc(1, sizeof(*s));
    if (!s)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a session");
    atomic_init(&s->refs, 1);
    s->model = mh_model_retain(model);
    s->context = p.context, s->chunk = p.chunk;
    s->pages = (p.context + MODEL_PAGE - 1) / MODEL_PAGE;
    s->progress = p.progress, s->progress_user = p.progress_user;
    s->sampling.top_p = 65536;
    status = mh_stream_create(model->device, &s->stream);
    if (!status)
        status = make_cache(s, p.kv_dtype);
    if (!status)
        status = make_rope(s);
    if (!status)
        status = make_step(s);
    if (status)
        mh_session_release(s);
    else
        *out = s;
    return status;
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
    for (int i = 0; i < GRAPHS; i++)
        mh_graph_release(s->graphs[i].graph);
    mh_step_release(s->step);
    mh_buffer_release(s->cache);
    mh_buffer_release(s->rope);
    mh_buffer_release(s->activations);
    mh_buffer_release(s->all_logits);
    mh_buffer_release(s->hidden);
    mh_stream_release(s->stream);
    free(s->cache_tensors);
    mh_model_release(s->model);
    free(s);
}

/* ---- graphs ---- */

static mh_status record(void *context, const mh_op *op, mh_weight **slots[3])
{
    (void)slots;
    return mh_encode(context, op);
}

/* Operands for a step of this many rows; logits of several rows have a buffer of their own. */
static struct model_step operands(mh_session *s, int64_t rows, int64_t head_rows,
                                  const mh_tensor *hidden)
{
    const mh_config *c = s->model->config;
    struct model_step step = {.rows = rows, .head_rows = 1};
    model_lay_out(c, s->activations, &step);
    step.head_rows = head_rows;
    if (head_rows > 1) {
        const int64_t shape[] = {head_rows, c->vocab_size};
        step.logits = mh_tensor_make(s->all_logits, 0, MH_F32, 2, shape);
    }
    step.tokens = mh_tensor_slice(mh_step_tensor(s->step, MH_STEP_TOKENS), 0, 0, rows);
    step.positions = mh_tensor_slice(mh_step_tensor(s->step, MH_STEP_POSITIONS), 0, 0, rows);
    step.slots = mh_tensor_slice(mh_step_tensor(s->step, MH_STEP_SLOTS), 0, 0, rows);
    step.sampling = mh_tensor_slice(mh_step_tensor(s->step, MH_STEP_SAMPLING), 0, 0, rows);
    step.next = mh_tensor_slice(mh_step_tensor(s->step, MH_STEP_NEXT), 0, 0, rows);
    step.page_table = mh_step_tensor(s->step, MH_STEP_PAGE_TABLE);
    step.fault = mh_step_tensor(s->step, MH_STEP_FAULT);
    step.rope_table = s->rope_table;
    step.cache = s->cache_tensors;
    step.hidden = hidden;
    return step;
}

static mh_tensor hidden_tensor(mh_session *s, int64_t index, int64_t rows)
{
    const int64_t shape[] = {rows, s->model->config->hidden_size};
    uint64_t bytes = 4 * (uint64_t)(s->chunk * shape[1]);
    return mh_tensor_make(s->hidden, bytes * (uint64_t)index, MH_F32, 2, shape);
}

/* Hands the ops of a step of this shape to `emit`. */
static mh_status build(mh_session *s, int64_t rows, int64_t head_rows, bool hidden,
                       model_emit_fn emit, void *context)
{
    int64_t layers = s->model->config->num_hidden_layers;
    mh_tensor *copies = NULL;
    if (hidden) {
        copies = calloc((size_t)layers + 1, sizeof(*copies));
        if (!copies)
            return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a graph");
        for (int64_t i = 0; i <= layers; i++)
            copies[i] = hidden_tensor(s, i, rows);
    }
    struct model_step step = operands(s, rows, head_rows, copies);
    mh_status status = model_build(s->model, &step, emit, context);
    free(copies);
    return status;
}

static mh_status record_graph(mh_session *s, struct cached_graph *g)
{
    mh_status status = mh_graph_create(s->model->device, &g->graph);
    if (!status)
        status = build(s, g->rows, g->head_rows, g->hidden, record, mh_graph_encoder(g->graph));
    if (!status)
        status = mh_graph_seal(g->graph);
    if (status) {
        mh_graph_release(g->graph);
        g->graph = NULL;
    }
    return status;
}

static mh_status find_graph(mh_session *s, int64_t rows, int64_t head_rows, bool hidden,
                            mh_graph **out)
{
    struct cached_graph *oldest = &s->graphs[0];
    for (int i = 0; i < GRAPHS; i++) {
        struct cached_graph *g = &s->graphs[i];
        if (g->graph && g->rows == rows && g->head_rows == head_rows && g->hidden == hidden) {
            g->used = ++s->runs;
            *out = g->graph;
            return MH_OK;
        }
        if (g->used < oldest->used)
            oldest = g;
    }
    mh_graph_release(oldest->graph);
    *oldest = (struct cached_graph){.rows = rows, .head_rows = head_rows, .hidden = hidden};
    mh_status status = record_graph(s, oldest);
    if (!status) {
        oldest->used = ++s->runs;
        *out = oldest->graph;
    }
    return status;
}

/* ---- running ---- */

static mh_status run_observed(void *context, const mh_op *op, mh_weight **slots[3])
{
    mh_session *s = context;
    (void)slots;
    mh_status status = mh_encode(mh_stream_encoder(s->stream), op);
    if (!status)
        status = mh_stream_wait(s->stream, MH_FOREVER);
    return status ? status : s->observe(s->observe_user, op);
}

/* Enqueues a step whose inputs are written. */
static mh_status launch(mh_session *s, int64_t rows, int64_t head_rows, bool hidden)
{
    if (s->observe)
        return build(s, rows, head_rows, hidden, run_observed, s);
    mh_graph *graph;
    mh_status status = find_graph(s, rows, head_rows, hidden, &graph);
    return status ? status : mh_graph_launch(graph, s->stream);
}

static void fill_inputs(mh_session *s, const int32_t *ids, int64_t rows)
{
    int32_t *tokens = mh_step_input(s->step, MH_STEP_TOKENS);
    int32_t *positions = mh_step_input(s->step, MH_STEP_POSITIONS);
    int32_t *slots = mh_step_input(s->step, MH_STEP_SLOTS);
    mh_sampling *sampling = mh_step_input(s->step, MH_STEP_SAMPLING);
    for (int64_t i = 0; i < rows; i++) {
        tokens[i] = ids[i];
        positions[i] = (int32_t)(s->position + i);
        slots[i] = 0;
        sampling[i] = s->sampling;
        sampling[i].counter = (uint64_t)(s->position + i);
    }
}

static mh_status read_tensor(mh_session *s, mh_tensor t, float *to)
{
    uint64_t bytes = 4 * (uint64_t)(t.shape[0] * t.shape[1]);
    return mh_stream_read(s->stream, t.buffer, t.offset, to, bytes);
}

/* One step; rows [first, first + rows) of the run's tokens. */
static mh_status run_chunk(mh_session *s, const int32_t *ids, int64_t first, int64_t rows,
                           int64_t head_rows, const mh_session_outputs *outputs)
{
    const mh_config *c = s->model->config;
    bool hidden = outputs->hidden != NULL;
    fill_inputs(s, ids + first, rows);
    s->has_next = false;
    mh_status status = mh_step_write(s->step, s->stream);
    if (!status)
        status = launch(s, rows, head_rows, hidden);
    struct model_step step = operands(s, rows, head_rows, NULL);
    if (!status && outputs->logits && head_rows) {
        int64_t row = first + rows - head_rows - (int64_t)outputs->logits_begin;
        status = read_tensor(s, step.logits, outputs->logits + row * c->vocab_size);
    }
    for (int64_t i = 0; !status && hidden && i <= c->num_hidden_layers; i++)
        status =
            read_tensor(s, hidden_tensor(s, i, rows), outputs->hidden[i] + first * c->hidden_size);
    int32_t *next = head_rows ? malloc((size_t)rows * sizeof(*next)) : NULL;
    if (!status && head_rows && !next)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %lld ids", (long long)rows);
    if (!status)
        status = mh_step_read(s->step, s->stream, next, next ? rows : 0);
    if (!status) {
        s->position += rows;
        s->has_next = head_rows > 0;
        if (next)
            s->next = next[rows - 1];
        if (head_rows)
            s->last_logits = mh_tensor_slice(step.logits, 0, head_rows - 1, 1);
    }
    free(next);
    return status;
}

static mh_status check_run(mh_session *s, const int32_t *ids, uint64_t count,
                           const mh_session_outputs *outputs)
{
    if (!ids || !count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_run: no tokens given");
    if (count > (uint64_t)(s->context - s->position))
        return mh_fail(MH_INVALID_ARGUMENT,
                       "prompt: %llu tokens after %lld do not fit into a context of %lld",
                       (unsigned long long)count, (long long)s->position, (long long)s->context);
    for (uint64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= s->model->config->vocab_size)
            return mh_fail(MH_INVALID_ARGUMENT, "ids[%llu]: %d is outside the vocabulary of %lld",
                           (unsigned long long)i, ids[i], (long long)s->model->config->vocab_size);
    if (outputs->logits && outputs->logits_begin >= count)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_session_outputs: logits_begin is %llu of %llu tokens",
                       (unsigned long long)outputs->logits_begin, (unsigned long long)count);
    return MH_OK;
}

/* Memory for outputs that most sessions never ask for. */
static mh_status make_outputs(mh_session *s, const mh_session_outputs *outputs)
{
    const mh_config *c = s->model->config;
    mh_device *device = s->model->device;
    mh_status status = MH_OK;
    if (outputs->logits && !s->all_logits)
        status =
            mh_buffer_create(device, 4 * (uint64_t)(s->chunk * c->vocab_size), 0, &s->all_logits);
    if (!status && outputs->hidden && !s->hidden)
        status = mh_buffer_create(
            device, 4 * (uint64_t)((c->num_hidden_layers + 1) * s->chunk * c->hidden_size), 0,
            &s->hidden);
    return status;
}

mh_status mh_session_run(mh_session *s, const int32_t *ids, uint64_t count,
                         const mh_session_outputs *outputs)
{
    if (!s)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_run: session is NULL");
    mh_session_outputs wanted = MH_INIT(mh_session_outputs);
    mh_status status = MH_OK;
    if (outputs)
        status = mh_struct_in(&wanted, outputs, sizeof(wanted), "mh_session_outputs");
    if (!status)
        status = check_run(s, ids, count, &wanted);
    if (!status)
        status = make_outputs(s, &wanted);
    int64_t total = (int64_t)count;
    for (int64_t first = 0; !status && first < total; first += s->chunk) {
        int64_t rows = total - first < s->chunk ? total - first : s->chunk;
        int64_t end = first + rows;
        int64_t head_rows = end == total ? 1 : 0;
        if (wanted.logits && end > (int64_t)wanted.logits_begin) {
            int64_t from = (int64_t)wanted.logits_begin;
            head_rows = end - (from > first ? from : first);
        }
        status = run_chunk(s, ids, first, rows, head_rows, &wanted);
        if (!status && s->progress && count > 1 &&
            s->progress(s->progress_user, (uint64_t)end, count))
            status = mh_fail(MH_CANCELLED, "the run was cancelled after %lld of %lld tokens",
                             (long long)end, (long long)total);
    }
    return status;
}

/* ---- the rest ---- */

mh_status mh_session_set_sampling(mh_session *s, const mh_sampling *sampling)
{
    if (!s || !sampling)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_set_sampling: %s is NULL",
                       s ? "sampling" : "session");
    if (!(sampling->temperature >= 0) || sampling->temperature > 1e6f)
        return mh_fail(MH_INVALID_ARGUMENT, "temperature: %g, must be 0 to 1e6",
                       (double)sampling->temperature);
    s->sampling = *sampling;
    return MH_OK;
}

static mh_status check_next(const mh_session *s, const void *out, const char *function)
{
    if (!s || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: %s is NULL", function, s ? "out" : "session");
    if (!s->has_next)
        return mh_fail(MH_WRONG_STATE, "%s: nothing has run since the start or the last rewind",
                       function);
    return MH_OK;
}

mh_status mh_session_next(mh_session *s, int32_t *token)
{
    mh_status status = check_next(s, token, "mh_session_next");
    if (!status)
        *token = s->next;
    return status;
}

mh_status mh_session_logits(mh_session *s, float *logits)
{
    mh_status status = check_next(s, logits, "mh_session_logits");
    if (!status)
        status = read_tensor(s, s->last_logits, logits);
    return status ? status : mh_stream_wait(s->stream, MH_FOREVER);
}

mh_status mh_session_observe(mh_session *s, mh_observe_fn observe, void *user)
{
    if (!s)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_observe: session is NULL");
    s->observe = observe;
    s->observe_user = user;
    return MH_OK;
}

int64_t mh_session_position(const mh_session *s)
{
    return s ? s->position : 0;
}

int64_t mh_session_context(const mh_session *s)
{
    return s ? s->context : 0;
}

mh_status mh_session_rewind(mh_session *s, int64_t position)
{
    if (!s)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_session_rewind: session is NULL");
    if (position < 0 || position > s->position)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_session_rewind: position is %lld, must be 0 to %lld",
                       (long long)position, (long long)s->position);
    if (position != s->position)
        s->has_next = false;
    s->position = position;
    return MH_OK;
}
