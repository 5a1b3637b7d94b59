/* Where ops run: natively, expanded, on the host; in streams and in graphs; and what is counted. */
#include "world.h"

enum { ROWS = 3, IN = 70, OUT = 40 };

/* Buffers and weights for linear_add and its parts on one device. */
struct fixture {
    mh_device *device;
    mh_stream *stream;
    mh_buffer *buffer;
    mh_weight *weight;
    mh_op_linear_add op;
};

static float value(int64_t i)
{
    return (float)((i * 7919) % 1000 - 500) / 256;
}

static struct fixture make(mh_device *device, mh_device *weights_on)
{
    struct fixture f = {.device = device, .op = MH_OP_INIT(linear_add, LINEAR_ADD)};
    float x[ROWS * IN], residual[ROWS * OUT], w[OUT * IN];
    for (int i = 0; i < ROWS * IN; i++)
        x[i] = value(i);
    for (int i = 0; i < ROWS * OUT; i++)
        residual[i] = value(3 * i + 1);
    for (int i = 0; i < OUT * IN; i++)
        w[i] = value(5 * i + 2);
    OK(mh_stream_create(device, &f.stream));
    OK(mh_buffer_create(device, 4096, 0, &f.buffer));
    OK(mh_buffer_write(f.buffer, 0, x, sizeof(x)));
    OK(mh_buffer_write(f.buffer, 1024, residual, sizeof(residual)));
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = MH_FORMAT_F32, p.experts = 1, p.out = OUT, p.in = IN;
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = 1, piece.row_count = OUT, piece.plane[0] = w;
    OK(mh_weight_create(weights_on, &p, &f.weight));
    OK(mh_weight_write(f.weight, &piece));
    OK(mh_weight_seal(f.weight));
    f.op.x = f32_matrix(f.buffer, 0, ROWS, IN);
    f.op.residual = f32_matrix(f.buffer, 1024, ROWS, OUT);
    f.op.y = f32_matrix(f.buffer, 2048, ROWS, OUT);
    f.op.w = f.weight;
    f.op.base.layer = 7;
    f.op.base.label = "o_proj";
    return f;
}

static void drop(struct fixture *f)
{
    mh_weight_release(f->weight);
    mh_buffer_release(f->buffer);
    mh_stream_release(f->stream);
}

static void read_y(struct fixture *f, float y[ROWS * OUT])
{
    OK(mh_stream_read(f->stream, f->buffer, 2048, y, sizeof(float) * ROWS * OUT));
    OK(mh_stream_wait(f->stream, MH_FOREVER));
}

static void clear_y(struct fixture *f)
{
    static const float zeros[ROWS * OUT];
    OK(mh_buffer_write(f->buffer, 2048, zeros, sizeof(zeros)));
}

/* What the host makes of it, the definition. */
static void expected(struct world *w, float y[ROWS * OUT])
{
    struct fixture f = make(w->host, w->host);
    OK(mh_encode(mh_stream_encoder(f.stream), &f.op.base));
    read_y(&f, y);
    drop(&f);
}

static mh_device_counters counters(mh_device *device)
{
    mh_device_counters c = MH_INIT(mh_device_counters);
    OK(mh_device_get_counters(device, &c));
    return c;
}

static mh_support ask(mh_device *device, const mh_op *op)
{
    mh_support s = MH_INIT(mh_support);
    OK(mh_device_supports(device, op, &s));
    return s;
}

static void fused_ops_expand_before_they_fall_back(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    float want[ROWS * OUT], got[ROWS * OUT];
    expected(w, want);
    struct fixture f = make(w->probe, w->probe);
    w->control->native = 1u << MH_OP_LINEAR | 1u << MH_OP_ADD;
    assert_int_equal(ask(w->probe, &f.op.base).runs, MH_RUNS_EXPANDED);
    OK(mh_encode(mh_stream_encoder(f.stream), &f.op.base));
    read_y(&f, got);
    assert_memory_equal(got, want, sizeof(want));
    mh_device_counters c = counters(w->probe);
    assert_int_equal(c.native, 2);
    assert_int_equal(c.expanded, 1);
    assert_int_equal(c.fallback, 0);
    drop(&f);
    world_free(w);
}

static void what_is_missing_runs_on_the_host_and_is_counted(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    float want[ROWS * OUT], got[ROWS * OUT];
    mh_device *companion;
    expected(w, want);
    OK(mh_device_host(w->probe, &companion));
    struct fixture f = make(w->probe, companion);
    w->control->native = 1u << MH_OP_ADD;
    mh_support s = ask(w->probe, &f.op.base);
    assert_int_equal(s.runs, MH_RUNS_ON_HOST);
    assert_int_equal(s.weights_on_host, 1);
    assert_int_equal(s.missing, MH_MISSING_KERNEL);
    assert_string_equal(s.reason, "the probe has no such kernel");
    OK(mh_encode(mh_stream_encoder(f.stream), &f.op.base));
    read_y(&f, got);
    assert_memory_equal(got, want, sizeof(want));
    assert_int_equal(counters(w->probe).native, 1); /* the add */
    assert_int_equal(mh_device_fallbacks(w->probe, MH_OP_LINEAR), 1);
    assert_int_equal(mh_device_fallbacks(w->probe, MH_OP_LINEAR_ADD), 0);
    drop(&f);

    /* Where only the part without a weight is missing, the weight is the device's. */
    f = make(w->probe, w->probe);
    w->control->native = 1u << MH_OP_LINEAR;
    s = ask(w->probe, &f.op.base);
    assert_int_equal(s.runs, MH_RUNS_ON_HOST);
    assert_int_equal(s.weights_on_host, 0);
    w->control->native = 1u << MH_OP_ADD;
    drop(&f);

    /* A weight left on the device that cannot use it is an error that says where to put it. */
    f = make(w->probe, w->probe);
    REFUSED(MH_UNSUPPORTED, mh_encode(mh_stream_encoder(f.stream), &f.op.base), "mh_device_host()");
    assert_message_has("layer 7");
    drop(&f);
    world_free(w);
}

static mh_weight *filled(mh_device *device, int64_t experts, int64_t out, int64_t in)
{
    mh_weight_params p = MH_INIT(mh_weight_params);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    mh_weight *weight;
    float values[512];
    assert_true(experts * out * in <= 512);
    for (int i = 0; i < 512; i++)
        values[i] = value(7 * i + 3);
    p.format = MH_FORMAT_F32, p.experts = experts, p.out = out, p.in = in;
    piece.expert_count = experts, piece.row_count = out, piece.plane[0] = values;
    OK(mh_weight_create(device, &p, &weight));
    OK(mh_weight_write(weight, &piece));
    OK(mh_weight_seal(weight));
    return weight;
}

/* moe_down_combine is a linear layer and a fused op; that is two ops more. On a device that has
 * only linear the experts' weights live on the host, the shared ones do not. */
static void run_moe(mh_device *device, mh_device *experts_on, float y[16])
{
    enum { T = 2, K = 2, D = 8, I = 5, N = 7 };
    mh_buffer *buffer;
    mh_stream *stream;
    float values[256];
    const int32_t experts[T * K] = {0, 2, 1, 1};
    const int64_t slots[] = {T, K, I}, row[] = {T, K}, one[] = {1};
    mh_op_moe_down_combine op = MH_OP_INIT(moe_down_combine, MOE_DOWN_COMBINE);
    for (int i = 0; i < 256; i++)
        values[i] = value(11 * i);
    OK(mh_stream_create(device, &stream));
    OK(mh_buffer_create(device, 4096, 0, &buffer));
    OK(mh_buffer_write(buffer, 0, values, sizeof(values)));
    OK(mh_buffer_write(buffer, 2048, experts, sizeof(experts)));
    op.h = f32_matrix(buffer, 0, T, D), op.y = f32_matrix(buffer, 1024, T, D);
    op.x = mh_tensor_make(buffer, 256, MH_F32, 3, slots);
    op.shared_x = f32_matrix(buffer, 512, T, N), op.weights = f32_matrix(buffer, 768, T, K);
    op.experts = mh_tensor_make(buffer, 2048, MH_I32, 2, row);
    op.fault = mh_tensor_make(buffer, 3072, MH_U32, 1, one);
    op.w = filled(experts_on, 3, D, I), op.shared_w = filled(device, 1, D, N);
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    OK(mh_stream_read(stream, buffer, 1024, y, T * D * sizeof(float)));
    OK(mh_stream_wait(stream, MH_FOREVER));
    if (device != experts_on) {
        mh_support s = ask(device, &op.base);
        assert_int_equal(s.runs, MH_RUNS_ON_HOST);
        assert_int_equal(s.weights_on_host, 1); /* w, the first; not shared_w */
    }
    mh_weight_release(op.w);
    mh_weight_release(op.shared_w);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
}

static void parts_expand_again_and_weights_lie_apart(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    float want[16], got[16];
    mh_device *companion;
    w->control->native = 1u << MH_OP_LINEAR;
    OK(mh_device_host(w->probe, &companion));
    run_moe(w->host, w->host, want);
    run_moe(w->probe, companion, got);
    assert_memory_equal(got, want, sizeof(want));
    mh_device_counters c = counters(w->probe);
    assert_int_equal(c.native, 1);
    assert_int_equal(c.expanded, 1); /* counted for the op, not for its parts */
    assert_int_equal(c.fallback, 2);
    assert_int_equal(mh_device_fallbacks(w->probe, MH_OP_EXPERTS_DOWN), 1);
    assert_int_equal(mh_device_fallbacks(w->probe, MH_OP_COMBINE), 1);
    world_free(w);
}

static uint64_t used(mh_device *device)
{
    mh_memory_info info = MH_INIT(mh_memory_info);
    OK(mh_device_memory(device, &info));
    return info.used;
}

static void the_embedder_may_supply_the_scratch(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    float want[ROWS * OUT], got[ROWS * OUT];
    mh_buffer *small, *enough, *foreign;
    mh_graph *graph;
    expected(w, want);
    w->control->native = 1u << MH_OP_LINEAR | 1u << MH_OP_ADD; /* an expansion: 480 bytes of it */
    struct fixture f = make(w->probe, w->probe);
    mh_encoder *encoder = mh_stream_encoder(f.stream);
    OK(mh_buffer_create(w->probe, 256, 0, &small));
    OK(mh_buffer_create(w->probe, 512, 0, &enough));
    OK(mh_buffer_create(w->host, 512, 0, &foreign));
    REFUSED(MH_INVALID_ARGUMENT, mh_encoder_set_scratch(encoder, foreign), "on host:0");
    OK(mh_encoder_set_scratch(encoder, small));
    REFUSED(MH_OUT_OF_MEMORY, mh_encode(encoder, &f.op.base), "512 bytes are needed");
    uint64_t before = used(w->probe);
    OK(mh_encoder_set_scratch(encoder, enough));
    OK(mh_encode(encoder, &f.op.base));
    assert_int_equal(used(w->probe), before);
    read_y(&f, got);
    assert_memory_equal(got, want, sizeof(want));
    OK(mh_encoder_set_scratch(encoder, NULL));
    OK(mh_encode(encoder, &f.op.base));
    assert_int_equal(used(w->probe), before + 512);
    OK(mh_stream_wait(f.stream, MH_FOREVER));
    OK(mh_encoder_set_scratch(encoder, NULL)); /* gives its own back, and takes it anew */
    assert_int_equal(used(w->probe), before);
    OK(mh_encode(encoder, &f.op.base));
    assert_int_equal(used(w->probe), before + 512);
    OK(mh_stream_wait(f.stream, MH_FOREVER));

    OK(mh_graph_create(w->probe, &graph));
    OK(mh_encoder_set_scratch(mh_graph_encoder(graph), small));
    OK(mh_encode(mh_graph_encoder(graph), &f.op.base));
    REFUSED(MH_OUT_OF_MEMORY, mh_graph_seal(graph), "512 bytes are needed");
    OK(mh_encoder_set_scratch(mh_graph_encoder(graph), enough));
    OK(mh_graph_seal(graph));
    REFUSED(MH_WRONG_STATE, mh_encoder_set_scratch(mh_graph_encoder(graph), small), "sealed");
    mh_buffer_release(enough); /* the graph keeps it */
    clear_y(&f);
    OK(mh_graph_launch(graph, f.stream));
    read_y(&f, got);
    assert_memory_equal(got, want, sizeof(want));
    mh_graph_release(graph);
    mh_buffer_release(small);
    mh_buffer_release(foreign);
    drop(&f);
    world_free(w);
}

/* By half, at least: ops that need ever more do not make it anew each time. */
static void the_scratch_grows_ahead_of_the_need(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    w->control->native = 1u << MH_OP_LINEAR | 1u << MH_OP_ADD;
    struct fixture f = make(w->probe, w->probe);
    uint64_t before = used(w->probe);
    static const struct {
        int64_t rows;
        uint64_t scratch;
    } steps[] = {{5, 1024}, {6, 1024}, {8, 1536}, {9, 1536}, {20, 3328}};
    f.op.x.stride[0] = f.op.residual.stride[0] = 0; /* the same row again and again */
    f.op.residual.offset = 512, f.op.y.offset = 768;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        f.op.x.shape[0] = f.op.residual.shape[0] = f.op.y.shape[0] = steps[i].rows;
        OK(mh_encode(mh_stream_encoder(f.stream), &f.op.base));
        OK(mh_stream_wait(f.stream, MH_FOREVER));
        assert_int_equal(used(w->probe) - before, steps[i].scratch);
    }
    /* There is no room for it, and then there is. */
    OK(mh_encoder_set_scratch(mh_stream_encoder(f.stream), NULL));
    w->control->memory_limit = used(w->probe) + 3000;
    for (int i = 0; i < 2; i++)
        REFUSED(MH_OUT_OF_MEMORY, mh_encode(mh_stream_encoder(f.stream), &f.op.base), "");
    assert_int_equal(used(w->probe), before);
    w->control->memory_limit = 0;
    OK(mh_encode(mh_stream_encoder(f.stream), &f.op.base));
    assert_int_equal(used(w->probe) - before, 3328);
    OK(mh_stream_wait(f.stream, MH_FOREVER));
    drop(&f);
    world_free(w);
}

static void strict_forbids_falling_back(void **state)
{
    (void)state;
    struct world *w = world_make(MH_PLACEMENT_STRICT);
    mh_device *companion;
    OK(mh_device_host(w->probe, &companion));
    struct fixture f = make(w->probe, companion);
    w->control->native = 1u << MH_OP_ADD;
    REFUSED(MH_UNSUPPORTED, mh_encode(mh_stream_encoder(f.stream), &f.op.base),
            "linear (layer 7, o_proj)");
    assert_message_has("strict");
    assert_int_equal(counters(w->probe).fallback, 0);
    drop(&f);
    f = make(w->probe, w->probe);
    w->control->native |= 1u << MH_OP_LINEAR;
    OK(mh_encode(mh_stream_encoder(f.stream), &f.op.base));
    drop(&f);
    world_free(w);
}

static void graphs_replay_what_streams_do(void **state)
{
    (void)state;
    static const uint32_t native[] = {1u << MH_OP_LINEAR | 1u << MH_OP_ADD, 1u << MH_OP_ADD, 0};
    struct world *w = world_make(0);
    float want[ROWS * OUT], got[ROWS * OUT];
    mh_device *companion;
    expected(w, want);
    OK(mh_device_host(w->probe, &companion));
    for (int i = 0; i < 3; i++) {
        w->control->native = native[i];
        uint64_t before = counters(w->probe).graph_launches;
        struct fixture f = make(w->probe, i ? companion : w->probe);
        mh_graph *graph;
        OK(mh_graph_create(w->probe, &graph));
        OK(mh_encode(mh_graph_encoder(graph), &f.op.base));
        OK(mh_encode(mh_graph_encoder(graph), &f.op.base)); /* the same again */
        REFUSED(MH_WRONG_STATE, mh_graph_launch(graph, f.stream), "not sealed");
        OK(mh_graph_seal(graph));
        REFUSED(MH_WRONG_STATE, mh_graph_seal(graph), "sealed");
        REFUSED(MH_WRONG_STATE, mh_encode(mh_graph_encoder(graph), &f.op.base), "sealed");
        mh_graph_info info = MH_INIT(mh_graph_info);
        OK(mh_graph_get_info(graph, &info));
        assert_int_equal(info.ops, 2);
        assert_int_equal(info.nodes, 4 - 2 * i);
        assert_int_equal(info.fallback, 2 * i);
        assert_int_equal(info.segments, i ? 4 : 1); /* each host op is one of its own */
        /* The graph keeps what it names. */
        mh_weight_release(f.weight);
        mh_buffer *buffer = mh_buffer_retain(f.buffer);
        mh_buffer_release(f.buffer);
        f.weight = NULL;
        for (int launch = 0; launch < 3; launch++) {
            clear_y(&f);
            OK(mh_graph_launch(graph, f.stream));
            read_y(&f, got);
            assert_memory_equal(got, want, sizeof(want));
        }
        assert_int_equal(counters(w->probe).graph_launches - before, 3);
        assert_ptr_equal(mh_graph_retain(graph), graph);
        mh_graph_release(graph);              /* one owner is left */
        OK(mh_graph_launch(graph, f.stream)); /* released with work in flight */
        mh_graph_release(graph);
        mh_buffer_release(buffer);
        mh_stream_release(f.stream);
    }
    world_free(w);
}

static void a_device_lost_at_an_op_says_why(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    struct fixture f = make(w->probe, w->probe);
    w->control->native = 1u << MH_OP_LINEAR | 1u << MH_OP_ADD;
    w->control->lose_at = 2;
    REFUSED(MH_DEVICE_LOST, mh_encode(mh_stream_encoder(f.stream), &f.op.base),
            "unplugged at an op");
    REFUSED(MH_DEVICE_LOST, mh_encode(mh_stream_encoder(f.stream), &f.op.base), "is lost");
    OK(mh_device_reset(w->probe));
    REFUSED(MH_STALE_HANDLE, mh_encode(mh_stream_encoder(f.stream), &f.op.base), "reset");
    drop(&f);
    f = make(w->probe, w->probe);
    OK(mh_encode(mh_stream_encoder(f.stream), &f.op.base));
    float want[ROWS * OUT], got[ROWS * OUT];
    expected(w, want);
    read_y(&f, got);
    assert_memory_equal(got, want, sizeof(want));
    drop(&f);
    world_free(w);
}

static void the_step_block_goes_round(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_device *devices[] = {w->host, w->probe};
    for (int d = 0; d < 2; d++) {
        mh_step_params p = MH_INIT(mh_step_params);
        mh_step *step;
        mh_stream *stream;
        p.rows = 5, p.slots = 2, p.pages = 3;
        OK(mh_step_create(devices[d], &p, &step));
        OK(mh_stream_create(devices[d], &stream));
        assert_null(mh_step_input(step, MH_STEP_FAULT));
        assert_int_equal(mh_step_tensor(step, MH_STEP_ACCEPTED).shape[0], 1);
        assert_int_equal(mh_step_tensor(step, MH_STEP_FAULT).shape[0], 1);
        assert_int_equal(mh_step_tensor(step, MH_STEP_NEXT).shape[0], 5);
        assert_int_equal(mh_step_tensor(step, MH_STEP_PAGE_TABLE).shape[1], 3);
        for (int32_t n = 0; n < 5; n++) {
            int32_t got[5];
            int32_t *tokens = mh_step_input(step, MH_STEP_TOKENS);
            if (n)
                assert_int_equal(tokens[4], n - 1); /* values of the step before stay */
            for (int i = 0; i < 5; i++)
                tokens[i] = n;
            mh_tensor t = mh_step_tensor(step, MH_STEP_TOKENS);
            mh_tensor fault = mh_step_tensor(step, MH_STEP_FAULT);
            const uint32_t bad = MH_BAD_INDEX;
            OK(mh_step_write(step, stream));
            OK(mh_stream_read(stream, t.buffer, t.offset, got, sizeof(got)));
            OK(mh_step_read(step, stream, NULL, 0));
            assert_int_equal(got[0] + got[4], 2 * n);
            OK(mh_buffer_write(fault.buffer, fault.offset, &bad, 4));
            assert_int_equal(mh_step_read(step, stream, NULL, 0), MH_BAD_INDEX);
        }
        int32_t next[6];
        REFUSED(MH_INVALID_ARGUMENT, mh_step_read(step, stream, next, 6), "rows is 6");
        REFUSED(MH_INVALID_ARGUMENT, mh_step_read(step, stream, next, -1), "rows is -1");
        REFUSED(MH_INVALID_ARGUMENT, mh_step_read(step, stream, NULL, 1), "rows is 1");
        mh_step_release(step);
        mh_stream_release(stream);
    }
    world_free(w);
}

static void a_step_block_has_limits(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    static const int64_t bad[] = {0, -1, (1 << 20) + 1, INT64_MAX};
    mh_step *step;
    for (int i = 0; i < 4; i++) {
        mh_step_params p = MH_INIT(mh_step_params);
        p.rows = bad[i], p.slots = 1, p.pages = 1;
        REFUSED(MH_INVALID_ARGUMENT, mh_step_create(w->host, &p, &step), "rows is");
        p.rows = 1, p.slots = bad[i];
        REFUSED(MH_INVALID_ARGUMENT, mh_step_create(w->host, &p, &step), "slots is");
        p.slots = 1, p.pages = bad[i];
        REFUSED(MH_INVALID_ARGUMENT, mh_step_create(w->host, &p, &step), "must be 1 to 2^20");
    }
    world_free(w);
}

/* How many words of the scratch are ones behind a sampler that has less to put there. */
static int spoilt(struct world *w, uint32_t checks)
{
    enum { WORDS = 4096 };
    mh_device_params params = MH_INIT(mh_device_params);
    mh_op_sample op = MH_OP_INIT(sample, SAMPLE);
    mh_device *device;
    mh_stream *stream;
    mh_buffer *buffer, *scratch;
    uint32_t words[WORDS] = {0};
    int count = 0;
    params.checks = checks;
    OK(mh_device_open(w->runtime, "host:0", &params, &device));
    OK(mh_stream_create(device, &stream));
    OK(mh_buffer_create(device, 4096, 0, &buffer));
    OK(mh_buffer_create(device, sizeof(words), 0, &scratch));
    OK(mh_buffer_write(buffer, 0, words, 4096));
    OK(mh_buffer_write(scratch, 0, words, sizeof(words)));
    op.y = mh_tensor_make(buffer, 0, MH_I32, 1, (const int64_t[]){1});
    op.params = mh_tensor_make(buffer, 64, MH_U32, 2, (const int64_t[]){1, 8});
    op.logits = f32_matrix(buffer, 128, 1, 70);
    OK(mh_encoder_set_scratch(mh_stream_encoder(stream), scratch));
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    OK(mh_stream_read(stream, scratch, 0, words, sizeof(words)));
    OK(mh_stream_wait(stream, MH_FOREVER));
    for (int i = 0; i < WORDS; i++)
        count += words[i] == UINT32_MAX;
    mh_stream_release(stream);
    mh_buffer_release(scratch);
    mh_buffer_release(buffer);
    mh_device_release(device);
    return count;
}

static void scratch_holds_anything_where_backends_are_checked(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    assert_int_equal(spoilt(w, 0), 0);
    assert_true(spoilt(w, MH_CHECK_BACKEND) > 0);
    world_free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_ops_expand_before_they_fall_back),
        cmocka_unit_test(what_is_missing_runs_on_the_host_and_is_counted),
        cmocka_unit_test(parts_expand_again_and_weights_lie_apart),
        cmocka_unit_test(the_embedder_may_supply_the_scratch),
        cmocka_unit_test(the_scratch_grows_ahead_of_the_need),
        cmocka_unit_test(scratch_holds_anything_where_backends_are_checked),
        cmocka_unit_test(strict_forbids_falling_back),
        cmocka_unit_test(graphs_replay_what_streams_do),
        cmocka_unit_test(a_device_lost_at_an_op_says_why),
        cmocka_unit_test(the_step_block_goes_round),
        cmocka_unit_test(a_step_block_has_limits),
    };
    return WORLD_MAIN(tests);
}
