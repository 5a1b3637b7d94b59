/*
 * core_graphs.c: what was recorded against what is encoded at once, launched again with other
 * inputs and with another step block. Ops may fall back here: replaying is what is tried.
 */
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum { ROWS = 5, WIDTH = 70, VOCABULARY = 90, DOUBLING = 2 /* the add's place in the chain */ };

/* A chain of ops with a weight, and the memory it works in. */
struct chain {
    struct core *c;
    mh_device *device;
    mh_buffer *memory;
    mh_weight *table, *head; /* of the embedding and of the logits: the same values */
    mh_step *step;
    mh_tensor h, x, y, logits;
    float norm[WIDTH];
};

static void release_weight(void *weight)
{
    mh_weight_release(weight);
}

static void release_step(void *step)
{
    mh_step_release(step);
}

static void release_graph(void *graph)
{
    mh_graph_release(graph);
}

static mh_tensor part(struct chain *m, uint64_t *at, int64_t rows, int64_t columns)
{
    const int64_t shape[] = {rows, columns};
    mh_tensor t = mh_tensor_make(m->memory, *at, MH_F32, 2, shape);
    *at += (4 * (uint64_t)(rows * columns) + 255) & ~UINT64_C(255);
    return t;
}

static void ops_of_weights(struct chain *m, mh_op_embed *embed, mh_op_linear *head)
{
    *embed = MH_OP_INIT(embed, EMBED);
    embed->y = m->h, embed->tokens = mh_step_tensor(m->step, MH_STEP_TOKENS);
    embed->table = m->table, embed->fault = mh_step_tensor(m->step, MH_STEP_FAULT);
    *head = MH_OP_INIT(linear, LINEAR);
    head->y = m->logits, head->x = m->h, head->w = m->head;
}

/* *weight, of one op, lives where that op runs: a backend may have a kernel for one and not the
 * other.
 */
static bool make_weight(struct chain *m, mh_weight **weight, uint32_t op)
{
    struct core *c = m->c;
    static float values[VOCABULARY * WIDTH];
    mh_support answer = MH_INIT(mh_support);
    mh_device *home = m->device;
    mh_op_embed embed;
    mh_op_linear head;
    mh_weight_params params = MH_INIT(mh_weight_params);
    params.format = MH_FORMAT_F32, params.experts = 1, params.out = VOCABULARY, params.in = WIDTH;
    TRY(mh_weight_create(home, &params, weight));
    ops_of_weights(m, &embed, &head);
    mh_status asked =
        mh_device_supports(m->device, op == MH_OP_EMBED ? &embed.base : &head.base, &answer);
    mh_weight_release(*weight);
    *weight = NULL;
    CHECK(!asked, "%s", mh_last_message());
    if (answer.weights_on_host)
        TRY(mh_device_host(m->device, &home));
    TRY(mh_weight_create(home, &params, weight));
    core_keep(c, release_weight, *weight);
    struct conf_random r = conf_random_of(c->suite->options->seed, "table");
    for (int i = 0; i < VOCABULARY * WIDTH; i++)
        values[i] = conf_uniform(&r);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = 1, piece.row_count = VOCABULARY, piece.plane[0] = values;
    TRY(mh_weight_write(*weight, &piece));
    TRY(mh_weight_seal(*weight));
    return true;
}

static bool make_chain(struct chain *m, struct core *c, mh_device *device)
{
    uint64_t at = 0;
    *m = (struct chain){.c = c, .device = device};
    m->memory = device ? core_buffer(c, device, 1 << 16) : NULL;
    if (!m->memory)
        return false;
    m->h = part(m, &at, ROWS, WIDTH);
    m->x = part(m, &at, ROWS, WIDTH);
    m->y = part(m, &at, 1, WIDTH);
    m->logits = part(m, &at, ROWS, VOCABULARY);
    for (int i = 0; i < WIDTH; i++)
        m->norm[i] = 0.5f + (float)(i % 7) / 8;
    mh_step_params params = MH_INIT(mh_step_params);
    params.rows = ROWS, params.slots = 1, params.pages = 1;
    TRY(mh_step_create(device, &params, &m->step));
    core_keep(c, release_step, m->step);
    TRY(mh_buffer_write(m->memory, m->y.offset, m->norm, sizeof(m->norm)));
    return make_weight(m, &m->table, MH_OP_EMBED) && make_weight(m, &m->head, MH_OP_LINEAR);
}

/* Tokens to embeddings, normed, doubled, to logits, to the next tokens. */
static mh_status encode_chain(struct chain *m, mh_encoder *encoder)
{
    mh_op_embed embed;
    mh_op_linear head;
    ops_of_weights(m, &embed, &head);
    mh_op_rmsnorm norm = MH_OP_INIT(rmsnorm, RMSNORM);
    const int64_t width[] = {WIDTH};
    norm.y = m->x, norm.x = m->h, norm.eps = 1e-6f;
    norm.w = mh_tensor_make(m->memory, m->y.offset, MH_F32, 1, width);
    mh_op_add add = MH_OP_INIT(add, ADD);
    add.y = m->h, add.a = m->x, add.b = m->h;
    mh_op_sample sample = MH_OP_INIT(sample, SAMPLE);
    sample.y = mh_step_tensor(m->step, MH_STEP_NEXT), sample.logits = m->logits;
    sample.params = mh_step_tensor(m->step, MH_STEP_SAMPLING);
    const mh_op *ops[] = {&embed.base, &norm.base, &add.base, &head.base, &sample.base};
    mh_status status = MH_OK;
    for (int i = 0; !status && i < 5; i++)
        status = mh_encode(encoder, ops[i]);
    return status;
}

static mh_status write_step(struct chain *m, mh_stream *stream, uint32_t salt)
{
    int32_t *tokens = mh_step_input(m->step, MH_STEP_TOKENS);
    mh_sampling *sampling = mh_step_input(m->step, MH_STEP_SAMPLING);
    for (uint32_t i = 0; i < ROWS; i++) {
        tokens[i] = (int32_t)((salt * 31 + i * 17) % VOCABULARY);
        sampling[i] = (mh_sampling){
            .temperature = i % 2 ? 0.8f : 0, .top_p = 65536, .seed = salt, .counter = i};
    }
    return mh_step_write(m->step, stream);
}

struct outcome {
    int32_t next[ROWS];
    uint32_t logits[ROWS * VOCABULARY];
};

static mh_status read_outcome(struct chain *m, mh_stream *stream, struct outcome *o)
{
    mh_status status = mh_step_read(m->step, stream, o->next, ROWS);
    return status ? status
                  : mh_buffer_read(m->memory, m->logits.offset, o->logits, sizeof(o->logits));
}

/* The same steps at once on the host, and by a graph on the device: equal bits each time. */
static bool recorded(struct core *c)
{
    struct chain mine, reference;
    mh_graph *graph;
    mh_device *device = core_device(c, NULL), *host;
    if (!device)
        return false;
    TRY(mh_device_host(device, &host));
    mh_stream *stream = core_stream(c, device), *host_stream = core_stream(c, host);
    if (!stream || !host_stream || !make_chain(&mine, c, device) ||
        !make_chain(&reference, c, host))
        return false;
    TRY(mh_graph_create(device, &graph));
    core_keep(c, release_graph, graph);
    TRY(encode_chain(&mine, mh_graph_encoder(graph)));
    REFUSES(MH_WRONG_STATE, mh_graph_launch(graph, stream));
    TRY(mh_graph_seal(graph));
    REFUSES(MH_WRONG_STATE, mh_graph_seal(graph));
    REFUSES(MH_WRONG_STATE, encode_chain(&mine, mh_graph_encoder(graph)));
    for (uint32_t salt = 1; salt <= 6; salt++) {
        struct outcome got = {{0}, {0}}, want = {{0}, {0}}, direct = {{0}, {0}};
        TRY(write_step(&mine, stream, salt));
        TRY(mh_graph_launch(graph, stream));
        TRY(read_outcome(&mine, stream, &got));
        TRY(write_step(&mine, stream, salt));
        TRY(encode_chain(&mine, mh_stream_encoder(stream)));
        TRY(read_outcome(&mine, stream, &direct));
        TRY(write_step(&reference, host_stream, salt));
        TRY(encode_chain(&reference, mh_stream_encoder(host_stream)));
        TRY(read_outcome(&reference, host_stream, &want));
        CHECK(!memcmp(&direct, &want, sizeof(want)),
              "step %u encoded at once differs from the host", salt);
        CHECK(!memcmp(&got, &want, sizeof(want)), "step %u by the graph differs from the host",
              salt);
    }
    return true;
}

/* Two launches in the queue at once: the second step is written behind the first. */
static bool pipelined(struct core *c)
{
    struct chain m;
    mh_graph *graph;
    mh_device *device = core_device(c, NULL);
    mh_stream *stream = device ? core_stream(c, device) : NULL;
    if (!stream || !make_chain(&m, c, device))
        return false;
    TRY(mh_graph_create(device, &graph));
    core_keep(c, release_graph, graph);
    TRY(encode_chain(&m, mh_graph_encoder(graph)));
    TRY(mh_graph_seal(graph));
    static struct outcome alone, behind;
    TRY(write_step(&m, stream, 9));
    TRY(mh_graph_launch(graph, stream));
    TRY(read_outcome(&m, stream, &alone));
    for (uint32_t salt = 2; salt <= 9; salt++) {
        TRY(write_step(&m, stream, salt));
        TRY(mh_graph_launch(graph, stream));
    }
    TRY(read_outcome(&m, stream, &behind));
    CHECK(!memcmp(&alone, &behind, sizeof(alone)), "a step behind seven others differs");
    return true;
}

static bool bad_index(struct core *c)
{
    struct chain m;
    struct outcome o = {{0}, {0}};
    mh_device *device = core_device(c, NULL);
    mh_stream *stream = device ? core_stream(c, device) : NULL;
    if (!stream || !make_chain(&m, c, device))
        return false;
    /* Every row is written once: a bad index leaves it as it is, and others read it. */
    TRY(write_step(&m, stream, 3));
    TRY(encode_chain(&m, mh_stream_encoder(stream)));
    TRY(read_outcome(&m, stream, &o));
    static const int32_t bad[] = {-1, VOCABULARY, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        TRY(write_step(&m, stream, 3));
        ((int32_t *)mh_step_input(m.step, MH_STEP_TOKENS))[2] = bad[i];
        TRY(mh_step_write(m.step, stream));
        TRY(encode_chain(&m, mh_stream_encoder(stream)));
        REFUSES(MH_BAD_INDEX, read_outcome(&m, stream, &o));
    }
    TRY(write_step(&m, stream, 3));
    TRY(encode_chain(&m, mh_stream_encoder(stream)));
    TRY(read_outcome(&m, stream, &o)); /* the next step is clean again */
    return true;
}

/* A graph keeps what it names; its owner may let go of everything at once. */
static bool keeps_operands(struct core *c)
{
    mh_graph *graph;
    mh_buffer *buffer, *out = core_buffer(c, c->device, 256);
    mh_device *device = core_device(c, NULL);
    mh_stream *stream = device ? core_stream(c, device) : NULL;
    uint32_t word = 0;
    if (!stream || !out)
        return false;
    const int64_t shape[] = {1};
    TRY(mh_graph_create(device, &graph));
    core_keep(c, release_graph, graph);
    TRY(mh_buffer_create(device, 256, 0, &buffer));
    mh_op_fill fill = MH_OP_INIT(fill, FILL);
    fill.y = mh_tensor_make(buffer, 0, MH_U32, 1, shape);
    fill.bits = 0xC0FFEE;
    char label[] = "borrowed";
    fill.base.label = label;
    mh_status status = mh_encode(mh_graph_encoder(graph), &fill.base);
    memset(label, 'x', sizeof(label) - 1);
    if (!status)
        status = mh_graph_seal(graph);
    mh_buffer *view = mh_buffer_retain(buffer);
    mh_buffer_release(buffer);
    if (!status)
        status = mh_graph_launch(graph, stream);
    if (!status)
        status = mh_stream_wait(stream, MH_FOREVER);
    if (!status)
        status = mh_buffer_read(view, 0, &word, 4);
    mh_buffer_release(view);
    CHECK(!status, "%s", mh_last_message());
    CHECK(word == 0xC0FFEE, "the graph filled %08x", word);
    TRY(mh_graph_launch(graph, stream)); /* only the graph knows the buffer now */
    TRY(mh_stream_wait(stream, MH_FOREVER));
    return true;
}

/* The op of a graph that doubles, as it was recorded and as it becomes. */
static mh_op_add doubling(struct chain *m, bool other)
{
    mh_op_add add = MH_OP_INIT(add, ADD);
    add.y = m->h, add.a = other ? m->h : m->x, add.b = m->h;
    return add;
}

/* Another operand in the middle, and back: as if it had been recorded so. What was launched before
 * keeps its own; what becomes other launches is refused. */
static bool updated(struct core *c)
{
    struct chain m;
    mh_graph *graph[2];
    struct outcome got[4];
    mh_device *device = core_device(c, NULL);
    mh_stream *stream = device ? core_stream(c, device) : NULL;
    if (!stream || !make_chain(&m, c, device))
        return false;
    memset(got, 0, sizeof(got));
    for (int other = 0; other < 2; other++) {
        mh_op_add add = doubling(&m, other);
        TRY(mh_graph_create(device, &graph[other]));
        core_keep(c, release_graph, graph[other]);
        TRY(encode_chain(&m, mh_graph_encoder(graph[other])));
        REFUSES(MH_WRONG_STATE, mh_graph_update(graph[other], DOUBLING, &add.base));
        TRY(mh_graph_seal(graph[other]));
        TRY(mh_graph_update(graph[other], DOUBLING, &add.base));
        TRY(write_step(&m, stream, 5));
        TRY(mh_graph_launch(graph[other], stream));
        TRY(read_outcome(&m, stream, &got[other]));
    }
    mh_op_add back = doubling(&m, false);
    mh_op_fill fill = MH_OP_INIT(fill, FILL);
    fill.y = m.h;
    REFUSES(MH_INVALID_ARGUMENT, mh_graph_update(graph[1], DOUBLING, &fill.base));
    REFUSES(MH_INVALID_ARGUMENT, mh_graph_update(graph[1], 5, &back.base));
    TRY(write_step(&m, stream, 5));
    TRY(mh_graph_launch(graph[1], stream)); /* is still the other one */
    TRY(read_outcome(&m, stream, &got[2]));
    TRY(mh_graph_update(graph[1], DOUBLING, &back.base));
    TRY(write_step(&m, stream, 5));
    TRY(mh_graph_launch(graph[1], stream));
    TRY(read_outcome(&m, stream, &got[3]));
    CHECK(memcmp(&got[0], &got[1], sizeof(got[0])), "another operand gives the same logits");
    CHECK(!memcmp(&got[1], &got[2], sizeof(got[1])),
          "an update that was refused changed the graph");
    CHECK(!memcmp(&got[0], &got[3], sizeof(got[0])), "what was updated back differs");

    uint32_t words[2];
    const int64_t one[] = {1};
    mh_buffer *memory = core_buffer(c, device, 512);
    mh_graph *filling;
    if (!memory)
        return false;
    TRY(mh_graph_create(device, &filling));
    core_keep(c, release_graph, filling);
    for (uint32_t i = 0; i < 2; i++) {
        fill.y = mh_tensor_make(memory, UINT64_C(256) * i, MH_U32, 1, one);
        fill.bits = 100 + i;
        TRY(i ? mh_graph_update(filling, 0, &fill.base)
              : mh_encode(mh_graph_encoder(filling), &fill.base));
        TRY(i ? MH_OK : mh_graph_seal(filling));
        TRY(mh_graph_launch(filling, stream));
    }
    TRY(mh_stream_wait(stream, MH_FOREVER));
    for (uint32_t i = 0; i < 2; i++) {
        TRY(mh_buffer_read(memory, UINT64_C(256) * i, &words[i], 4));
        CHECK(words[i] == 100 + i, "launch %u filled %u", i, words[i]);
    }
    return true;
}

const struct core_case core_graphs[] = {
    {"graphs/recorded", recorded},   {"graphs/pipelined", pipelined},
    {"graphs/bad-index", bad_index}, {"graphs/keeps-operands", keeps_operands},
    {"graphs/updated", updated},     {0},
};
