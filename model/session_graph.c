/* session_graph.c: the graphs of a session's steps, kept by their shapes. */
#include <stdlib.h>
#include <string.h>

#include "fetch.h"
#include "session_impl.h"

int64_t session_bucket(const mh_session *s, int64_t rows)
{
    return s->padded && !s->observe && rows > 8 ? (rows + 7) / 8 * 8 : rows;
}

/* Logits of more rows than there are sequences have a buffer of their own. */
struct model_step session_operands(mh_session *s, const struct session_rank *r, int64_t rows,
                                   int64_t head_rows)
{
    const mh_config *c = s->model->config;
    struct model_step step = {.rows = rows, .head_rows = s->heads, .split = s->model->split};
    step.segments = s->segments, step.parts = s->shares;
    model_lay_out(c, r->activations, &step);
    step.head_rows = head_rows;
    if (head_rows > s->heads) {
        const int64_t shape[] = {head_rows, c->vocab_size};
        step.logits = mh_tensor_make(s->all_logits, 0, MH_F32, 2, shape);
    } else {
        step.logits = mh_tensor_slice(step.logits, 0, 0, head_rows ? head_rows : 1);
    }
    step.tokens = mh_tensor_slice(mh_step_tensor(r->step, MH_STEP_TOKENS), 0, 0, rows);
    step.positions = mh_tensor_slice(mh_step_tensor(r->step, MH_STEP_POSITIONS), 0, 0, rows);
    step.slots = mh_tensor_slice(mh_step_tensor(r->step, MH_STEP_SLOTS), 0, 0, rows);
    step.sampling = mh_tensor_slice(mh_step_tensor(r->step, MH_STEP_SAMPLING), 0, 0, rows);
    step.next = mh_tensor_slice(mh_step_tensor(r->step, MH_STEP_NEXT), 0, 0, rows);
    step.writes = mh_tensor_slice(mh_step_tensor(r->step, MH_STEP_WRITES), 0, 0, rows);
    step.page_table = mh_step_tensor(r->step, MH_STEP_PAGE_TABLE);
    step.fault = mh_step_tensor(r->step, MH_STEP_FAULT);
    step.rope_table = r->rope_table;
    step.cache = r->cache_tensors;
    return step;
}

mh_tensor session_hidden(mh_session *s, int64_t index, int64_t rows)
{
    const int64_t shape[] = {rows, s->model->config->hidden_size};
    uint64_t bytes = 4 * (uint64_t)(s->rows * shape[1]);
    return mh_tensor_make(s->hidden, bytes * (uint64_t)index, MH_F32, 2, shape);
}

/* Hands the ops of a step of this shape on one rank to `emit`. Only the first has outputs. */
static mh_status build(mh_session *s, struct session_rank *r, const struct session_graph *shape,
                       model_emit_fn emit, void *context)
{
    int64_t layers = s->model->config->num_hidden_layers;
    bool outputs = r == s->ranks;
    mh_tensor *copies = NULL;
    if (shape->hidden && outputs) {
        copies = calloc((size_t)layers + 1, sizeof(*copies));
        if (!copies)
            return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a graph");
        for (int64_t i = 0; i <= layers; i++)
            copies[i] = session_hidden(s, i, shape->rows);
    }
    struct model_step step = session_operands(s, r, shape->rows, outputs ? shape->head_rows : 0);
    step.hidden = copies;
    mh_status status = model_build(s->model, r->model, &step, emit, context);
    free(copies);
    return status;
}

/* ---- recording ---- */

static void release_parts(const mh_session *s, struct session_graph *g)
{
    for (uint32_t i = 0; g->parts && i < s->rank_count * g->part_count; i++)
        mh_graph_release(g->parts[i]);
    free(g->parts);
    *g = (struct session_graph){0};
}

/* Does a part end here, that the host may fetch experts, or exchange what ranks have found? */
static bool is_border(const mh_session *s, const mh_op *op)
{
    if (op == &model_gather)
        return true;
    return s->model->fetches ? op == &model_fetch || op == &model_send : op == &model_receive;
}

struct counting {
    const mh_session *session;
    uint32_t parts;
};

static mh_status count_part(void *context, const mh_op *op, mh_weight ***slots)
{
    struct counting *c = context;
    (void)slots;
    c->parts += is_border(c->session, op);
    return MH_OK;
}

static int64_t next_moe_layer(const mh_session *s, int64_t layer)
{
    do
        layer++;
    while (!mh_config_is_moe(s->model->config, layer));
    return layer;
}

/* What the ranks exchange of a layer for one group of rows, as one of them sees it. */
static mh_comm_op group_exchange(const mh_session *s, const struct model_step *step, int64_t layer,
                                 uint32_t group)
{
    int64_t count = s->model->config->n_routed_experts;
    uint32_t groups = s->model->placement.groups;
    int64_t first = placement_row(step->rows, group, groups);
    int64_t rows = placement_row(step->rows, group + 1, groups) - first;
    mh_comm_op op = MH_INIT(mh_comm_op);
    op.kind = MH_COMM_COMBINE;
    op.phases = MH_COMM_SEND | MH_COMM_RECEIVE;
    op.y = mh_tensor_slice(step->expert_slots, 0, first, rows);
    op.experts = mh_tensor_slice(model_layer_experts(step, layer), 0, first, rows);
    op.owners = s->owners + (layer * groups + group) * count;
    op.expert_count = count;
    return op;
}

struct recording {
    mh_session *session;
    struct session_rank *rank;
    mh_graph **at; /* the part that is being recorded */
    struct model_step step;
    int64_t layer; /* of the last exchange */
};

/* One of the exchange's two halves; only the last group's, which always has rows, are apart. */
static mh_status record_exchange(struct recording *r, uint32_t half)
{
    mh_session *s = r->session;
    uint32_t last = s->model->placement.groups - 1;
    mh_status status = MH_OK;
    if (half == MH_COMM_SEND)
        r->layer = next_moe_layer(s, r->layer);
    for (uint32_t g = half == MH_COMM_SEND ? 0 : last; !status && g <= last; g++) {
        mh_comm_op op = group_exchange(s, &r->step, r->layer, g);
        if (g == last)
            op.phases = half;
        if (op.y.shape[0])
            status = mh_comm_encode(s->comm, (uint32_t)(r->rank - s->ranks),
                                    mh_graph_encoder(*r->at), &op);
    }
    return status;
}

/* What the ranks find of their keys. */
static mh_status record_gather(const struct recording *r)
{
    mh_session *s = r->session;
    mh_comm_op op = MH_INIT(mh_comm_op);
    op.kind = MH_COMM_ALL_GATHER, op.phases = MH_COMM_SEND | MH_COMM_RECEIVE;
    op.y = r->step.all_parts, op.x = r->step.own_part;
    return mh_comm_encode(s->comm, (uint32_t)(r->rank - s->ranks), mh_graph_encoder(*r->at), &op);
}

static mh_status record(void *context, const mh_op *op, mh_weight ***slots)
{
    struct recording *r = context;
    (void)slots;
    if (!model_is_mark(op))
        return mh_encode(mh_graph_encoder(*r->at), op);
    if (r->session->linked && op == &model_gather)
        return record_gather(r);
    if (r->session->linked)
        return record_exchange(r, op == &model_send ? MH_COMM_SEND : MH_COMM_RECEIVE);
    return is_border(r->session, op) ? mh_graph_create(r->rank->model->device, ++r->at) : MH_OK;
}

/* Makes the rank's scratch hold `bytes`. A larger one takes the place of the one before and of the
 * graphs that are bound to that: they are recorded again when they are next asked for. */
static mh_status grow_scratch(mh_session *s, struct session_rank *r, uint64_t bytes)
{
    uint64_t size = mh_buffer_size(r->scratch);
    if (bytes <= size)
        return MH_OK;
    session_graphs_destroy(s);
    mh_buffer_release(r->scratch);
    r->scratch = NULL;
    return mh_buffer_create(r->model->device, bytes > size + size / 2 ? bytes : size + size / 2,
                            MH_BUFFER_DEVICE, &r->scratch);
}

/* Scratch for all of a rank's parts, and their seals. *fallback: ops that the host runs. */
static mh_status seal_parts(mh_session *s, struct session_rank *r, mh_graph **parts, uint32_t count,
                            uint64_t *fallback)
{
    mh_status status = MH_OK;
    uint64_t most = 0;
    for (uint32_t i = 0; !status && i < count; i++) {
        mh_graph_info info = MH_INIT(mh_graph_info);
        status = mh_graph_get_info(parts[i], &info);
        most = info.scratch_bytes > most ? info.scratch_bytes : most;
        *fallback += info.fallback;
    }
    if (!status)
        status = grow_scratch(s, r, most);
    for (uint32_t i = 0; !status && i < count; i++) {
        status = mh_encoder_set_scratch(mh_graph_encoder(parts[i]), r->scratch);
        if (!status)
            status = mh_graph_seal(parts[i]);
    }
    return status;
}

/* Attention writes nothing for a row of padding, nor for segments behind a row's position, but what
 * is behind it reads them: it is in no result, and should not be memory that nobody wrote either.
 */
static mh_status clear_activations(struct session_rank *r)
{
    mh_op_fill op = MH_OP_INIT(fill, FILL);
    const int64_t shape[] = {(int64_t)mh_buffer_size(r->activations) / 256, 64};
    op.y = mh_tensor_make(r->activations, 0, MH_F32, 2, shape);
    mh_status status = mh_encode(mh_stream_encoder(r->stream), &op.base);
    r->cleared = !status;
    return status;
}

/* Records into *g, which is not among the session's yet. */
static mh_status record_graph(mh_session *s, struct session_graph *g)
{
    const struct session_graph shape = *g;
    uint64_t fallback = 0;
    struct counting counting = {s, 1};
    mh_status status = s->linked ? MH_OK : build(s, s->ranks, g, count_part, &counting);
    if (status)
        return status;
    g->part_count = counting.parts;
    g->parts = calloc((size_t)s->rank_count * g->part_count, sizeof(*g->parts));
    if (!g->parts)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a graph");
    for (uint32_t i = 0; !status && i < s->rank_count; i++) {
        struct session_rank *r = &s->ranks[i];
        mh_graph **parts = g->parts + i * g->part_count;
        struct recording recording = {s, r, parts, session_operands(s, r, g->rows, 0), -1};
        status = mh_graph_create(r->model->device, parts);
        if (!status)
            status = build(s, r, g, record, &recording);
        if (!status)
            status = seal_parts(s, r, parts, g->part_count, &fallback);
        if (!status && (s->padded || s->segments) && !r->cleared)
            status = clear_activations(r);
    }
    /* The host would wait for one rank before it launches the next. */
    bool again = !status && s->linked && fallback;
    if (status || again)
        release_parts(s, g);
    if (!again)
        return status;
    s->linked = false;
    *g = shape;
    return record_graph(s, g);
}

static mh_status find_graph(mh_session *s, const struct session_graph *shape,
                            struct session_graph **out)
{
    struct session_graph *oldest = &s->graphs[0];
    for (int i = 0; i < SESSION_GRAPHS; i++) {
        struct session_graph *g = &s->graphs[i];
        if (g->parts && g->rows == shape->rows && g->head_rows == shape->head_rows &&
            g->segments == shape->segments && g->hidden == shape->hidden) {
            g->used = ++s->runs;
            *out = g;
            return MH_OK;
        }
        if (g->used < oldest->used)
            oldest = g;
    }
    struct session_graph made = *shape;
    mh_status status = record_graph(s, &made);
    if (status)
        return status;
    release_parts(s, oldest);
    *oldest = made;
    oldest->used = ++s->runs;
    *out = oldest;
    return MH_OK;
}

/* ---- launching ---- */

static mh_status run_observed(void *context, const mh_op *op, mh_weight ***slots)
{
    mh_session *s = context;
    mh_stream *stream = s->ranks[0].stream;
    (void)slots;
    mh_status status = mh_encode(mh_stream_encoder(stream), op);
    if (!status)
        status = mh_stream_wait(stream, MH_FOREVER);
    return status ? status : s->observe(s->observe_user, op);
}

/* Every rank gets what the others' experts of a layer gave, group by group of rows. */
static mh_status exchange(mh_session *s, int64_t rows, int64_t layer)
{
    mh_tensor slots[MODEL_DEVICES], experts[MODEL_DEVICES];
    mh_comm_op op = {0};
    mh_status status = MH_OK;
    for (uint32_t g = 0; !status && g < s->model->placement.groups; g++) {
        for (uint32_t i = 0; i < s->rank_count; i++) {
            struct model_step step = session_operands(s, &s->ranks[i], rows, 0);
            op = group_exchange(s, &step, layer, g);
            slots[i] = op.y;
            experts[i] = op.experts;
        }
        if (op.y.shape[0])
            status = mh_comm_combine(s->comm, slots, experts, op.owners, op.expert_count);
    }
    return status;
}

/* Every rank gets what all have found of their keys. */
static mh_status gather(mh_session *s, int64_t rows)
{
    mh_tensor own[MODEL_DEVICES], all[MODEL_DEVICES];
    for (uint32_t i = 0; i < s->rank_count; i++) {
        struct model_step step = session_operands(s, &s->ranks[i], rows, 0);
        own[i] = step.own_part, all[i] = step.all_parts;
    }
    return mh_comm_all_gather(s->comm, all, own);
}

static mh_status launch_part(mh_session *s, const struct session_graph *g, uint32_t rank,
                             uint32_t part)
{
    return mh_graph_launch(g->parts[rank * g->part_count + part], s->ranks[rank].stream);
}

static mh_status launch_all(mh_session *s, const struct session_graph *g, uint32_t part)
{
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < s->rank_count; i++)
        status = launch_part(s, g, i, part);
    return status;
}

/* Runs the part with a layer's experts on one rank, as often as it takes to have them all there. */
static mh_status run_fetched(mh_session *s, const struct session_graph *g, uint32_t rank,
                             uint32_t part, int64_t layer, int64_t count)
{
    struct mh_model *model = s->model;
    struct model_rank *r = &model->ranks[rank];
    int64_t experts = model->config->n_routed_experts;
    const int32_t *chosen = s->chosen;
    bool *needed = s->needed, some = true;
    mh_status status = MH_OK;
    memset(needed, 0, (size_t)experts * sizeof(*needed));
    for (int64_t i = 0; i < count; i++)
        if (chosen[i] >= 0 && chosen[i] < experts)
            needed[chosen[i]] |= placement_has(&model->placement, r->number, layer, chosen[i]);
    for (bool first = true; !status && some; first = false) {
        status = mh_stream_wait(s->ranks[rank].stream, MH_FOREVER);
        if (!status)
            status = fetch_round(model, r, layer, needed, first, &some);
        if (!status && some)
            status = launch_part(s, g, rank, part);
    }
    return status;
}

/* A layer's experts, where some ranks fetch them. */
static mh_status run_experts(mh_session *s, const struct session_graph *g, uint32_t part,
                             int64_t layer)
{
    struct model_step step = session_operands(s, &s->ranks[0], g->rows, 0);
    mh_tensor t = model_layer_experts(&step, layer);
    int64_t count = t.shape[0] * t.shape[1];
    mh_status status =
        mh_stream_read(s->ranks[0].stream, t.buffer, t.offset, s->chosen, 4 * (uint64_t)count);
    if (!status)
        status = mh_stream_wait(s->ranks[0].stream, MH_FOREVER);
    else
        mh_stream_wait(s->ranks[0].stream, MH_FOREVER);
    for (uint32_t i = 0; !status && i < s->rank_count; i++)
        status = s->model->ranks[i].fetch ? run_fetched(s, g, i, part, layer, count)
                                          : launch_part(s, g, i, part);
    return status;
}

mh_status session_launch(mh_session *s, int64_t rows, int64_t head_rows, bool hidden)
{
    struct session_graph shape = {.rows = rows, .head_rows = head_rows, .hidden = hidden},
                         *g = NULL;
    shape.segments = s->segments;
    if (s->observe)
        return build(s, s->ranks, &shape, run_observed, s);
    mh_status status = find_graph(s, &shape, &g);
    uint32_t part = 0;
    for (int64_t l = 0; !status && l < s->model->config->num_hidden_layers; l++) {
        if (g->part_count > 1 && s->segments) {
            status = launch_all(s, g, part++);
            if (!status)
                status = gather(s, rows);
        }
        if (status || g->part_count == 1 || !mh_config_is_moe(s->model->config, l))
            continue;
        status = launch_all(s, g, part++);
        if (!status && s->model->fetches)
            status = run_experts(s, g, part++, l);
        if (!status && s->comm)
            status = exchange(s, rows, l);
    }
    return status ? status : launch_all(s, g, part);
}

void session_graphs_destroy(mh_session *s)
{
    for (int i = 0; i < SESSION_GRAPHS; i++)
        release_parts(s, &s->graphs[i]);
}
