/* session_graph.c: the graphs of a session's steps, kept by their shapes. */
#include <stdlib.h>

#include "session_impl.h"

int64_t session_bucket(const mh_session *s, int64_t rows)
{
    return s->padded && !s->observe && rows > 8 ? (rows + 7) / 8 * 8 : rows;
}

/* Logits of more rows than there are sequences have a buffer of their own. */
struct model_step session_operands(mh_session *s, int64_t rows, int64_t head_rows)
{
    const mh_config *c = s->model->config;
    struct model_step step = {.rows = rows, .head_rows = s->heads};
    model_lay_out(c, s->activations, &step);
    step.head_rows = head_rows;
    if (head_rows > s->heads) {
        const int64_t shape[] = {head_rows, c->vocab_size};
        step.logits = mh_tensor_make(s->all_logits, 0, MH_F32, 2, shape);
    } else {
        step.logits = mh_tensor_slice(step.logits, 0, 0, head_rows ? head_rows : 1);
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
    return step;
}

mh_tensor session_hidden(mh_session *s, int64_t index, int64_t rows)
{
    const int64_t shape[] = {rows, s->model->config->hidden_size};
    uint64_t bytes = 4 * (uint64_t)(s->rows * shape[1]);
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
            copies[i] = session_hidden(s, i, rows);
    }
    struct model_step step = session_operands(s, rows, head_rows);
    step.hidden = copies;
    mh_status status = model_build(s->model, &step, emit, context);
    free(copies);
    return status;
}

static mh_status record(void *context, const mh_op *op, mh_weight ***slots)
{
    (void)slots;
    return mh_encode(context, op);
}

/* Makes s->scratch hold `bytes`. A larger one takes the place of the one before and of the graphs
 * that are bound to that: they are recorded again when they are next asked for. */
static mh_status grow_scratch(mh_session *s, uint64_t bytes)
{
    uint64_t size = mh_buffer_size(s->scratch);
    if (bytes <= size)
        return MH_OK;
    session_graphs_destroy(s);
    return mh_buffer_create(s->model->device, bytes > size + size / 2 ? bytes : size + size / 2,
                            MH_BUFFER_DEVICE, &s->scratch);
}

static mh_status give_scratch(mh_session *s, mh_graph *graph)
{
    mh_graph_info info = MH_INIT(mh_graph_info);
    mh_status status = mh_graph_get_info(graph, &info);
    if (!status)
        status = grow_scratch(s, info.scratch_bytes);
    return status ? status : mh_encoder_set_scratch(mh_graph_encoder(graph), s->scratch);
}

/* Records into *g, which is not among the session's yet. */
static mh_status record_graph(mh_session *s, struct session_graph *g)
{
    mh_status status = mh_graph_create(s->model->device, &g->graph);
    if (!status)
        status = build(s, g->rows, g->head_rows, g->hidden, record, mh_graph_encoder(g->graph));
    if (!status)
        status = give_scratch(s, g->graph);
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
    struct session_graph *oldest = &s->graphs[0];
    for (int i = 0; i < SESSION_GRAPHS; i++) {
        struct session_graph *g = &s->graphs[i];
        if (g->graph && g->rows == rows && g->head_rows == head_rows && g->hidden == hidden) {
            g->used = ++s->runs;
            *out = g->graph;
            return MH_OK;
        }
        if (g->used < oldest->used)
            oldest = g;
    }
    struct session_graph made = {.rows = rows, .head_rows = head_rows, .hidden = hidden};
    mh_status status = record_graph(s, &made);
    if (status)
        return status;
    mh_graph_release(oldest->graph);
    *oldest = made;
    oldest->used = ++s->runs;
    *out = oldest->graph;
    return MH_OK;
}

static mh_status run_observed(void *context, const mh_op *op, mh_weight ***slots)
{
    mh_session *s = context;
    (void)slots;
    mh_status status = mh_encode(mh_stream_encoder(s->stream), op);
    if (!status)
        status = mh_stream_wait(s->stream, MH_FOREVER);
    return status ? status : s->observe(s->observe_user, op);
}

mh_status session_launch(mh_session *s, int64_t rows, int64_t head_rows, bool hidden)
{
    if (s->observe)
        return build(s, rows, head_rows, hidden, run_observed, s);
    mh_graph *graph;
    mh_status status = find_graph(s, rows, head_rows, hidden, &graph);
    return status ? status : mh_graph_launch(graph, s->stream);
}

void session_graphs_destroy(mh_session *s)
{
    for (int i = 0; i < SESSION_GRAPHS; i++) {
        mh_graph_release(s->graphs[i].graph);
        s->graphs[i] = (struct session_graph){0};
    }
    mh_buffer_release(s->scratch);
    s->scratch = NULL;
}
