/*
 * What the core makes of a backend's optional groups: native graphs, events, gates and the
 * runtime's thread, wrapped queues and memory, contexts, counters; and the layer that checks a
 * backend's answers.
 */
#include "world.h"

enum { N = 64, BYTES = N * 4 };

static mh_device_counters counters(mh_device *device)
{
    mh_device_counters c = MH_INIT(mh_device_counters);
    OK(mh_device_get_counters(device, &c));
    return c;
}

static mh_buffer *make_buffer(mh_device *device, float value)
{
    mh_buffer *buffer;
    float values[N];
    for (int i = 0; i < N; i++)
        values[i] = value;
    OK(mh_buffer_create(device, BYTES, 0, &buffer));
    OK(mh_buffer_write(buffer, 0, values, BYTES));
    return buffer;
}

/* y = y + x, in a stream or a graph. */
static void add(mh_encoder *encoder, mh_buffer *y, mh_buffer *x)
{
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = op.a = f32_matrix(y, 0, 1, N), op.b = f32_matrix(x, 0, 1, N);
    OK(mh_encode(encoder, &op.base));
}

static void assert_holds(mh_buffer *buffer, float value)
{
    float values[N];
    OK(mh_buffer_read(buffer, 0, values, BYTES));
    for (int i = 0; i < N; i++)
        assert_true(values[i] == value);
}

static mh_device *open_probe(struct world *w, uint32_t checks, const mh_faults *faults)
{
    mh_device_params params = MH_INIT(mh_device_params);
    mh_device *device;
    params.checks = checks, params.faults = faults, params.threads = 1;
    OK(mh_device_open(w->runtime, "probe:0", &params, &device));
    return device;
}

/* ---- graphs ---- */

/* Three adds, of which the middle one may be no op of the device's: its own graphs are then two. */
static void launch_twice(struct world *w, mh_device *device, bool broken, uint64_t segments)
{
    mh_buffer *y = make_buffer(device, 1), *x = make_buffer(device, 2);
    mh_stream *stream;
    mh_graph *graph;
    OK(mh_stream_create(device, &stream));
    OK(mh_graph_create(device, &graph));
    mh_encoder *encoder = mh_graph_encoder(graph);
    add(encoder, y, x);
    if (broken) { /* the device knows no swiglu */
        mh_op_swiglu op = MH_OP_INIT(swiglu, SWIGLU);
        mh_buffer *other = make_buffer(device, 0);
        op.y = f32_matrix(other, 0, 1, N), op.gate = op.up = f32_matrix(x, 0, 1, N);
        OK(mh_encode(encoder, &op.base));
        mh_buffer_release(other);
    }
    add(encoder, y, x);
    add(encoder, y, x);
    OK(mh_graph_seal(graph));
    mh_graph_info info = MH_INIT(mh_graph_info);
    OK(mh_graph_get_info(graph, &info));
    assert_int_equal(info.native_segments, segments);
    mh_device_counters before = counters(device);
    uint64_t encodes = w->control->encodes;
    OK(mh_graph_launch(graph, stream));
    OK(mh_graph_launch(graph, stream));
    mh_buffer_release(x); /* the graph keeps what it names */
    mh_graph_release(graph);
    OK(mh_stream_wait(stream, MH_FOREVER));
    mh_device_counters after = counters(device);
    assert_int_equal(after.native - before.native, 6);
    assert_int_equal(after.native_graphs - before.native_graphs, 2 * segments);
    assert_int_equal(after.graph_launches - before.graph_launches, 2);
    assert_int_equal(w->control->encodes - encodes, segments ? 0 : 6);
    assert_holds(y, 13);
    mh_stream_release(stream);
    mh_buffer_release(y);
}

static void segments_become_native_graphs(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_GRAPH);
    w->control->native = 1u << MH_OP_ADD;
    launch_twice(w, w->probe, false, 1);
    launch_twice(w, w->probe, true, 2);
    assert_int_equal(w->control->graph_launches, 6);
    w->control->no_graphs = 1; /* then op by op, as without the group */
    launch_twice(w, w->probe, false, 0);
    world_free(w);
}

/* A backend that takes no updates: its graph is made anew while the old one is in flight, or, where
 * it takes no graphs any more, replaced by its ops. */
static void an_update_makes_a_native_graph_anew(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_GRAPH);
    w->control->native = 1u << MH_OP_ADD;
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_buffer *z = make_buffer(w->probe, 10);
    mh_graph *graph;
    mh_stream *stream;
    mh_graph_info info = MH_INIT(mh_graph_info);
    OK(mh_stream_create(w->probe, &stream));
    OK(mh_graph_create(w->probe, &graph));
    add(mh_graph_encoder(graph), y, x);
    add(mh_graph_encoder(graph), y, x);
    OK(mh_graph_seal(graph));
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = op.a = f32_matrix(y, 0, 1, N), op.b = f32_matrix(z, 0, 1, N);
    w->control->gate_closed = 1;
    OK(mh_graph_launch(graph, stream));
    OK(mh_graph_update(graph, 1, &op.base));
    mh_buffer_release(z);
    OK(mh_graph_get_info(graph, &info));
    assert_int_equal(info.native_segments, 1);
    OK(mh_graph_launch(graph, stream));
    assert_int_equal(w->control->destroyed_in_flight, 0);
    w->control->gate_closed = 0;
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_holds(y, 1 + 2 + 2 + 2 + 10);
    assert_int_equal(w->control->graph_launches, 2);
    w->control->no_graphs = 1;
    OK(mh_graph_update(graph, 0, &op.base));
    OK(mh_graph_get_info(graph, &info));
    assert_int_equal(info.native_segments, 0);
    OK(mh_graph_launch(graph, stream));
    mh_graph_release(graph);
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_holds(y, 17 + 10 + 10);
    assert_int_equal(w->control->graph_launches, 2);
    mh_stream_release(stream);
    mh_buffer_release(x);
    mh_buffer_release(y);
    world_free(w);
}

/* What is encoded behind a graph that is done is in flight, as ever. */
static void work_behind_a_native_graph_is_in_flight(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_GRAPH);
    w->control->native = 1u << MH_OP_ADD;
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_graph *graph;
    mh_stream *stream;
    OK(mh_stream_create(w->probe, &stream));
    OK(mh_graph_create(w->probe, &graph));
    add(mh_graph_encoder(graph), y, x);
    add(mh_graph_encoder(graph), y, x);
    OK(mh_graph_seal(graph));
    OK(mh_graph_launch(graph, stream));
    OK(mh_stream_wait(stream, MH_FOREVER));
    mh_graph_release(graph);
    w->control->gate_closed = 1;
    add(mh_stream_encoder(stream), y, x);
    mh_buffer_release(x);
    assert_int_equal(w->control->destroyed_in_flight, 0);
    w->control->gate_closed = 0;
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_holds(y, 7);
    mh_stream_release(stream);
    mh_buffer_release(y);
    world_free(w);
}

/* ---- events ---- */

static void a_device_waits_for_its_own_events(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_EVENT);
    w->control->native = 1u << MH_OP_ADD;
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_stream *one, *two;
    mh_event *begin, *end;
    uint64_t ns;
    OK(mh_stream_create(w->probe, &one));
    OK(mh_stream_create(w->probe, &two));
    OK(mh_event_create(w->probe, &begin));
    OK(mh_event_create(w->probe, &end));
    w->control->gate_closed = 1; /* nothing runs before somebody waits for ever */
    OK(mh_event_record(begin, one));
    add(mh_stream_encoder(one), y, x);
    add(mh_stream_encoder(one), y, x);
    OK(mh_event_record(end, one));
    OK(mh_stream_wait_event(two, end));
    mh_device_counters c = counters(w->probe);
    assert_int_equal(c.native_waits, 1);
    assert_int_equal(c.stream_waits, 0);
    add(mh_stream_encoder(two), x, y);
    OK(mh_stream_wait(two, MH_FOREVER)); /* runs `one` as far as the event */
    assert_holds(x, 7);
    OK(mh_event_wait(begin, MH_FOREVER));
    OK(mh_event_wait(end, MH_FOREVER));
    OK(mh_event_elapsed(begin, end, &ns));
    assert_int_equal(ns, 2000); /* by the probe's clock */
    w->control->gate_closed = 0;
    mh_event_release(begin);
    mh_event_release(end);
    mh_stream_release(one);
    mh_stream_release(two);
    mh_buffer_release(x);
    mh_buffer_release(y);
    world_free(w);
}

/* ---- between devices ---- */

/* Work of `late` waits for work of `early`, and takes what it made. With gates nothing blocks. */
static void chain(struct world *w, mh_device *early, mh_device *late, bool gates)
{
    mh_buffer *a = make_buffer(early, 1), *b = make_buffer(early, 2), *c = make_buffer(late, 0);
    mh_buffer *d = make_buffer(late, 10);
    mh_stream *one, *two;
    mh_event *event;
    uint32_t link;
    mh_device_counters before = counters(late);
    OK(mh_device_link(early, late, &link));
    assert_int_equal(link, gates ? MH_LINK_THREAD : MH_LINK_STAGED);
    OK(mh_stream_create(early, &one));
    OK(mh_stream_create(late, &two));
    OK(mh_event_create(early, &event));
    w->control->gate_closed = 1; /* polls say "not yet" */
    add(mh_stream_encoder(one), a, b);
    OK(mh_event_record(event, one));
    OK(mh_stream_wait_event(two, event));
    OK(mh_stream_copy(two, c, 0, a, 0, BYTES));
    add(mh_stream_encoder(two), c, d);
    if (gates) /* released with work in flight, like all else */
        mh_buffer_release(a);
    OK(mh_stream_wait(two, MH_FOREVER));
    w->control->gate_closed = 0;
    assert_holds(c, 13);
    mh_device_counters after = counters(late);
    assert_int_equal(after.thread_waits - before.thread_waits, gates ? 2 : 0);
    assert_int_equal(after.stream_waits - before.stream_waits, gates ? 0 : 1);
    mh_event_release(event);
    mh_stream_release(one);
    mh_stream_release(two);
    if (!gates)
        mh_buffer_release(a);
    mh_buffer_release(b);
    mh_buffer_release(c);
    mh_buffer_release(d);
}

static void a_thread_of_the_runtime_opens_gates(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_GATE | PROBE_EVENT);
    w->control->native = 1u << MH_OP_ADD;
    mh_device *other = open_probe(w, 0, NULL);
    for (int i = 0; i < 20; i++) {
        chain(w, other, w->probe, true);
        chain(w, w->probe, other, true);
    }
    mh_device_release(other);
    world_free(w);
}

static void a_stream_that_is_held_is_not_done(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_GATE | PROBE_EVENT);
    w->control->native = 1u << MH_OP_ADD;
    mh_device *other = open_probe(w, 0, NULL);
    mh_buffer *a = make_buffer(other, 1), *b = make_buffer(w->probe, 1);
    mh_stream *one, *two;
    mh_event *event;
    OK(mh_stream_create(other, &one));
    OK(mh_stream_create(w->probe, &two));
    OK(mh_event_create(other, &event));
    add(mh_stream_encoder(two), b, b);
    OK(mh_stream_wait(two, MH_FOREVER));
    w->control->gate_closed = 1;
    add(mh_stream_encoder(one), a, a);
    OK(mh_event_record(event, one));
    OK(mh_stream_wait_event(two, event));
    assert_int_equal(mh_stream_wait(two, 0), MH_TIMEOUT);
    OK(mh_stream_wait(two, MH_FOREVER));
    w->control->gate_closed = 0;
    mh_event_release(event);
    mh_stream_release(one);
    mh_stream_release(two);
    mh_buffer_release(a);
    mh_buffer_release(b);
    mh_device_release(other);
    world_free(w);
}

static void without_gates_the_caller_waits(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, 0);
    w->control->native = 1u << MH_OP_ADD;
    mh_device *other = open_probe(w, 0, NULL);
    chain(w, other, w->probe, false);
    assert_int_equal(counters(other).stream_waits, 1); /* the event's wait, counted there */
    mh_device_release(other);
    world_free(w);
}

/* Host memory is reached by the device's own copy; it stays until that is done. */
static void host_memory_is_copied_in_stream_order(void **state)
{
    (void)state;
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    w->control->native = 1u << MH_OP_ADD;
    mh_buffer *host = make_buffer(w->host, 5), *back = make_buffer(w->host, 0);
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 0), *far;
    mh_stream *stream;
    OK(mh_stream_create(w->probe, &stream));
    w->control->gate_closed = 1;
    OK(mh_stream_copy(stream, x, 0, host, 0, BYTES));
    mh_buffer_release(host);
    add(mh_stream_encoder(stream), y, x);
    OK(mh_stream_copy(stream, back, 0, y, 0, BYTES));
    OK(mh_stream_wait(stream, MH_FOREVER));
    w->control->gate_closed = 0;
    assert_holds(back, 6);
    assert_int_equal(counters(w->probe).stream_waits, 0);
    far = make_buffer(w->host, 0);
    REFUSED(MH_INVALID_ARGUMENT, mh_stream_copy(stream, far, 0, back, 0, BYTES),
            "the buffer is on host:0, the stream on probe:0");
    mh_buffer_release(far);
    mh_stream_release(stream);
    mh_buffer_release(back);
    mh_buffer_release(x);
    mh_buffer_release(y);
    world_free(w);
}

/* The wait of a held stream tells that what it waited for was lost. */
static void a_lost_device_lets_others_go_on(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_GATE);
    w->control->native = 1u << MH_OP_ADD;
    mh_faults faults = MH_INIT(mh_faults);
    /* After the buffer's write and two polls: the thread's wait. */
    faults.call = MH_CALL_WAIT, faults.nth = 4, faults.status = MH_VENDOR_ERROR;
    mh_device *other = open_probe(w, 0, &faults);
    mh_buffer *a = make_buffer(other, 1), *b = make_buffer(w->probe, 1);
    mh_stream *one, *two;
    mh_event *event;
    OK(mh_stream_create(other, &one));
    OK(mh_stream_create(w->probe, &two));
    OK(mh_event_create(other, &event));
    w->control->gate_closed = 1;
    add(mh_stream_encoder(one), a, a);
    OK(mh_event_record(event, one));
    OK(mh_stream_wait_event(two, event));
    add(mh_stream_encoder(two), b, b);
    REFUSED(MH_DEVICE_LOST, mh_stream_wait(two, MH_FOREVER), "on another device failed");
    w->control->gate_closed = 0;
    assert_int_equal(mh_device_error(other, &(mh_error){.struct_size = sizeof(mh_error)}), MH_OK);
    OK(mh_device_reset(other));
    mh_event_release(event);
    mh_stream_release(one);
    mh_stream_release(two);
    mh_buffer_release(a);
    mh_buffer_release(b);
    mh_device_release(other);
    world_free(w);
}

/* ---- wrapping ---- */

static int releases;

static void count_release(void *user)
{
    releases += user == &releases;
}

static void queues_and_memory_are_wrapped(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_WRAP);
    w->control->native = 1u << MH_OP_ADD;
    struct probe_queue queue = {0};
    float memory[N] = {0};
    mh_buffer *mine, *x = make_buffer(w->probe, 3);
    mh_stream *stream;
    mh_memory_info before = MH_INIT(mh_memory_info), after = before;
    OK(mh_device_memory(w->probe, &before));
    OK(mh_stream_wrap(w->probe, (uintptr_t)&queue, &stream));
    OK(mh_buffer_wrap(w->probe, (uintptr_t)memory, BYTES, 0, count_release, &releases, &mine));
    OK(mh_device_memory(w->probe, &after));
    assert_int_equal(after.used, before.used); /* not moehal's own */
    add(mh_stream_encoder(stream), mine, x);
    assert_true(queue.pushed > 0);
    w->control->gate_closed = 1;
    mh_buffer_release(mine);
    mh_stream_wait(stream, 0);
    assert_int_equal(releases, 0); /* its work is in flight */
    w->control->gate_closed = 0;
    OK(mh_stream_wait(stream, MH_FOREVER));
    mh_stream_release(stream);
    assert_int_equal(releases, 1);
    assert_true(memory[0] == 3 && memory[N - 1] == 3);

    OK(mh_buffer_wrap(w->probe, (uintptr_t)memory, BYTES, MH_IMPORT_READ_ONLY, NULL, NULL, &mine));
    REFUSED(MH_INVALID_ARGUMENT, mh_buffer_write(mine, 0, memory, 4), "read-only");
    mh_buffer_release(mine);
    REFUSED(MH_INVALID_ARGUMENT, mh_buffer_wrap(w->probe, 0, BYTES, 0, NULL, NULL, &mine),
            "native is 0");
    REFUSED(MH_UNSUPPORTED, mh_stream_wrap(w->host, 1, &stream), "no queues of a vendor's API");
    REFUSED(MH_UNSUPPORTED, mh_buffer_wrap(w->host, 1, 4, 0, NULL, NULL, &mine), "vendor's API");
    mh_buffer_release(x);
    world_free(w);
}

static mh_event *wrap_event(mh_device *device, struct probe_event *vendors)
{
    mh_event *event;
    OK(mh_event_wrap(device, (uintptr_t)vendors, &event));
    return event;
}

static void the_embedders_events_are_waited_for_and_recorded(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_EVENT | PROBE_WRAP_EVENT);
    w->control->native = 1u << MH_OP_ADD;
    struct probe_event vendors = {.recorded = 1}; /* on a queue of the embedder's */
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_stream *stream;
    mh_event *event = wrap_event(w->probe, &vendors), *own;
    uint64_t native = 0;
    OK(mh_stream_create(w->probe, &stream));
    assert_int_equal(mh_event_wait(event, 0), MH_TIMEOUT);
    OK(mh_stream_wait_event(stream, event));
    assert_int_equal(counters(w->probe).native_waits, 1);
    add(mh_stream_encoder(stream), y, x);
    assert_int_equal(mh_stream_wait(stream, 0), MH_TIMEOUT);
    vendors.recorded = 2; /* later than the wait: it is not for this one */
    vendors.passed = 1;
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_holds(y, 3);
    assert_int_equal(mh_event_wait(event, 0), MH_TIMEOUT); /* what is new is seen */
    vendors.passed = 2;
    OK(mh_event_wait(event, 0));

    w->control->gate_closed = 1;
    add(mh_stream_encoder(stream), y, x);
    OK(mh_event_record(event, stream)); /* into the embedder's own */
    assert_int_equal(vendors.recorded, 3);
    assert_int_equal(vendors.passed, 2);
    OK(mh_event_native(event, &native));
    assert_int_equal(native, (uintptr_t)&vendors);
    OK(mh_event_wait(event, MH_FOREVER));
    assert_int_equal(vendors.passed, 3);
    w->control->gate_closed = 0;

    OK(mh_event_create(w->probe, &own));
    REFUSED(MH_WRONG_STATE, mh_event_native(own, &native), "never recorded");
    OK(mh_event_record(own, stream));
    OK(mh_event_native(own, &native));
    assert_int_equal(((struct probe_event *)(uintptr_t)native)->recorded, 1);
    mh_event_release(own);
    mh_event_release(event);
    assert_int_equal(vendors.recorded, 3); /* left alone */
    mh_stream_release(stream);
    mh_buffer_release(x);
    mh_buffer_release(y);
    world_free(w);
}

/* Held until the point that was the last when it was asked for, whatever comes behind it. */
static void a_wrapped_event_holds_streams_of_other_devices(void **state)
{
    (void)state;
    struct world *w =
        world_make_with(MH_PLACEMENT_AUTO, PROBE_EVENT | PROBE_WRAP_EVENT | PROBE_GATE);
    w->control->native = 1u << MH_OP_ADD;
    mh_device *other = open_probe(w, 0, NULL);
    struct probe_event vendors = {.recorded = 1};
    mh_event *event = wrap_event(other, &vendors);
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_stream *stream;
    OK(mh_stream_create(w->probe, &stream));
    OK(mh_stream_wait_event(stream, event));
    add(mh_stream_encoder(stream), y, x);
    assert_int_equal(mh_stream_wait(stream, 0), MH_TIMEOUT);
    assert_int_equal(counters(w->probe).thread_waits, 1);
    vendors.recorded = 2;
    vendors.passed = 1;
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_holds(y, 3);
    mh_event_release(event);
    mh_stream_release(stream);
    mh_buffer_release(x);
    mh_buffer_release(y);
    mh_device_release(other);
    world_free(w);
}

static void events_that_cannot_be_wrapped(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_EVENT | PROBE_WRAP_EVENT);
    struct probe_event vendors = {0};
    mh_stream *stream;
    mh_event *event;
    uint64_t native;
    REFUSED(MH_INVALID_ARGUMENT, mh_event_wrap(w->probe, 0, &event), "native is 0");
    REFUSED(MH_INVALID_ARGUMENT, mh_event_wrap(NULL, 1, &event), "device is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_event_wrap(w->probe, 1, NULL), "out is NULL");
    REFUSED(MH_UNSUPPORTED, mh_event_wrap(w->host, 1, &event),
            "host:0 has no events of a vendor's API");
    assert_null(event);
    OK(mh_stream_create(w->host, &stream));
    OK(mh_event_create(w->host, &event));
    OK(mh_event_record(event, stream));
    REFUSED(MH_UNSUPPORTED, mh_event_native(event, &native), "host:0 has no events of a vendor's");
    mh_event_release(event);
    event = wrap_event(w->probe, &vendors);
    REFUSED(MH_INVALID_ARGUMENT, mh_event_native(event, NULL), "native is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_event_native(NULL, &native), "event is NULL");
    OK(mh_stream_wait_event(stream, event)); /* never recorded: nothing to wait for */
    mh_event_release(event);
    mh_stream_release(stream);
    world_free(w);
}

static void contexts_reach_the_backend(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_WRAP);
    mh_device_params params = MH_INIT(mh_device_params);
    mh_device *device;
    params.context = MH_CONTEXT_WRAP, params.native_context = 0x1234;
    OK(mh_device_open(w->runtime, "probe:0", &params, &device));
    assert_int_equal(w->control->context, MH_CONTEXT_WRAP);
    assert_int_equal(w->control->native_context, 0x1234);
    REFUSED(MH_UNSUPPORTED, mh_device_reset(device), "not moehal's own");
    mh_device_release(device);
    REFUSED(MH_UNSUPPORTED, mh_device_open(w->runtime, "host", &params, &device),
            "contexts of its own only");
    params.native_context = 0;
    REFUSED(MH_INVALID_ARGUMENT, mh_device_open(w->runtime, "probe:0", &params, &device),
            "native_context is 0, context is 2");
    params.context = MH_CONTEXT_PRIMARY;
    OK(mh_device_open(w->runtime, "probe:0", &params, &device));
    assert_int_equal(w->control->context, MH_CONTEXT_PRIMARY);
    mh_device_release(device);
    params.context = 3;
    REFUSED(MH_INVALID_ARGUMENT, mh_device_open(w->runtime, "probe:0", &params, &device),
            "context is 3, at most 2");
    params.context = MH_CONTEXT_OWN, params.checks = 2;
    REFUSED(MH_INVALID_ARGUMENT, mh_device_open(w->runtime, "probe:0", &params, &device),
            "checks is 0x2");
    world_free(w);
}

static void counters_are_read_by_number(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_COUNTERS);
    mh_device_counter before = MH_INIT(mh_device_counter), after = before;
    OK(mh_device_read_counter(w->probe, 1, &before));
    assert_string_equal(before.name, "copied_bytes");
    mh_buffer_release(make_buffer(w->probe, 1));
    OK(mh_device_read_counter(w->probe, 1, &after));
    assert_int_equal(after.value - before.value, BYTES);
    assert_int_equal(mh_device_read_counter(w->probe, 2, &after), MH_NOT_FOUND);
    assert_int_equal(mh_device_read_counter(w->host, 0, &after), MH_NOT_FOUND);
    world_free(w);
}

/* ---- layers ---- */

/* What a backend says of itself is no answer that cannot be. */
static void an_internal_error_is_the_backends_own(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, 0);
    mh_faults faults = MH_INIT(mh_faults);
    faults.call = MH_CALL_BUFFER_CREATE, faults.nth = 1, faults.status = MH_INTERNAL;
    mh_device *device = open_probe(w, MH_CHECK_BACKEND, &faults);
    mh_buffer *buffer;
    REFUSED(MH_INTERNAL, mh_buffer_create(device, 64, 0, &buffer), "call 1 failed (injected)");
    mh_device_release(device);
    world_free(w);
}

/* All of the above once more with both layers on top. */
static void layers_pass_groups_on(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_ALL);
    w->control->native = 1u << MH_OP_ADD;
    mh_faults faults = MH_INIT(mh_faults);
    mh_device *one = open_probe(w, MH_CHECK_BACKEND, &faults);
    mh_device *two = open_probe(w, MH_CHECK_BACKEND, NULL);
    launch_twice(w, one, true, 2);
    chain(w, one, two, true);
    chain(w, two, one, true);
    mh_fault_report report = MH_INIT(mh_fault_report);
    OK(mh_device_get_faults(one, &report));
    assert_int_equal(report.calls[MH_CALL_GRAPH_CREATE], 2);
    assert_int_equal(report.calls[MH_CALL_GRAPH_LAUNCH], 4);
    assert_int_equal(report.calls[MH_CALL_GATE_HOLD], 2);
    assert_true(report.calls[MH_CALL_EVENT_RECORD] >= 1);
    mh_device_release(one);
    mh_device_release(two);
    world_free(w);
}

static void an_injected_loss_takes_graphs_along(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_GRAPH);
    w->control->native = 1u << MH_OP_ADD;
    mh_faults faults = MH_INIT(mh_faults);
    faults.call = MH_CALL_GRAPH_LAUNCH, faults.nth = 1, faults.status = MH_DEVICE_LOST;
    mh_device *device = open_probe(w, 0, &faults);
    mh_buffer *y = make_buffer(device, 1);
    mh_stream *stream;
    mh_graph *graph;
    OK(mh_stream_create(device, &stream));
    OK(mh_graph_create(device, &graph));
    add(mh_graph_encoder(graph), y, y);
    OK(mh_graph_seal(graph));
    OK(mh_graph_launch(graph, stream)); /* swallowed */
    assert_int_equal(mh_stream_wait(stream, MH_FOREVER), MH_DEVICE_LOST);
    OK(mh_device_reset(device));
    REFUSED(MH_STALE_HANDLE, mh_graph_launch(graph, stream), "before device");
    mh_graph_release(graph);
    mh_stream_release(stream);
    mh_buffer_release(y);
    mh_device_release(device);
    world_free(w);
}

static void answers_that_cannot_be_are_named(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, 0);
    w->control->native = 1u << MH_OP_ADD;
    mh_device *device = open_probe(w, MH_CHECK_BACKEND, NULL);
    mh_buffer *buffer = make_buffer(device, 1), *other;
    mh_stream *stream;
    OK(mh_stream_create(device, &stream));
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = op.a = op.b = f32_matrix(buffer, 0, 1, N);

    w->control->null_handles = 1;
    REFUSED(MH_INTERNAL, mh_buffer_create(device, 64, 0, &other),
            "check: probe: buffer_create succeeds with handle NULL");
    w->control->null_handles = 0;

    OK(mh_stream_wait(stream, MH_FOREVER));
    w->control->mark_backwards = 1; /* what is done takes a new mark, which asks the device */
    REFUSED(MH_INTERNAL, mh_stream_wait(stream, MH_FOREVER), "probe: mark gives 1 after");
    w->control->mark_backwards = 0;

    w->control->fickle = 1;
    REFUSED(MH_INTERNAL, mh_encode(mh_stream_encoder(stream), &op.base), "it must be final");
    w->control->fickle = 0;

    w->control->endless_reason = 1, w->control->native = 0;
    mh_support support = MH_INIT(mh_support);
    REFUSED(MH_INTERNAL, mh_device_supports(device, &op.base, &support),
            "supports of add gives a reason that does not end");
    w->control->endless_reason = 0, w->control->native = 1u << MH_OP_ADD;

    w->control->refuse_encode = 1;
    REFUSED(MH_INTERNAL, mh_encode(mh_stream_encoder(stream), &op.base),
            "encode of add is unsupported, but supports said yes");
    w->control->refuse_encode = 0;
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    OK(mh_stream_wait(stream, MH_FOREVER));
    mh_stream_release(stream);
    mh_buffer_release(buffer);
    mh_device_release(device);
    world_free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_become_native_graphs),
        cmocka_unit_test(an_update_makes_a_native_graph_anew),
        cmocka_unit_test(work_behind_a_native_graph_is_in_flight),
        cmocka_unit_test(a_device_waits_for_its_own_events),
        cmocka_unit_test(a_thread_of_the_runtime_opens_gates),
        cmocka_unit_test(a_stream_that_is_held_is_not_done),
        cmocka_unit_test(without_gates_the_caller_waits),
        cmocka_unit_test(host_memory_is_copied_in_stream_order),
        cmocka_unit_test(a_lost_device_lets_others_go_on),
        cmocka_unit_test(queues_and_memory_are_wrapped),
        cmocka_unit_test(the_embedders_events_are_waited_for_and_recorded),
        cmocka_unit_test(a_wrapped_event_holds_streams_of_other_devices),
        cmocka_unit_test(events_that_cannot_be_wrapped),
        cmocka_unit_test(contexts_reach_the_backend),
        cmocka_unit_test(counters_are_read_by_number),
        cmocka_unit_test(layers_pass_groups_on),
        cmocka_unit_test(an_injected_loss_takes_graphs_along),
        cmocka_unit_test(an_internal_error_is_the_backends_own),
        cmocka_unit_test(answers_that_cannot_be_are_named),
    };
    return WORLD_MAIN(tests);
}
