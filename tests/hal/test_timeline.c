/* The timeline layer: what it writes is what ran, on a device that is synchronous, one that runs
 * late and one that leaves everything to the host; and it changes no result. */
#include <unistd.h>

#include "world.h"

static char path[64];

static char *read_all(void)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 1 << 20);
    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    unlink(path);
    return text;
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        n++;
    return n;
}

static mh_timeline *make(mh_runtime *runtime, uint32_t format)
{
    mh_timeline *timeline;
    snprintf(path, sizeof(path), "/tmp/moehal-timeline-XXXXXX");
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    OK(mh_timeline_create(runtime, path, format, &timeline));
    return timeline;
}

static mh_device *open_with(mh_runtime *runtime, const char *uri, mh_timeline *timeline)
{
    mh_device *device;
    mh_device_params params = MH_INIT(mh_device_params);
    params.timeline = timeline;
    OK(mh_device_open(runtime, uri, &params, &device));
    return device;
}

static mh_op_add add_one(mh_buffer *buffer)
{
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = op.a = f32_matrix(buffer, 0, 1, 1);
    op.b = f32_matrix(buffer, 256, 1, 1);
    op.base.layer = 3, op.base.label = "say \"seven\"\\\n";
    return op;
}

/* Three sums, two of them as a graph, launched twice: five in all. */
static void work(mh_device *device)
{
    mh_stream *stream;
    mh_buffer *buffer;
    mh_graph *graph;
    float zero = 0, one = 1, sum;
    OK(mh_stream_create(device, &stream));
    OK(mh_buffer_create(device, 512, 0, &buffer));
    OK(mh_buffer_write(buffer, 0, &zero, 4));
    OK(mh_buffer_write(buffer, 256, &one, 4));
    OK(mh_graph_create(device, &graph));
    mh_op_add op = add_one(buffer);
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    OK(mh_encode(mh_graph_encoder(graph), &op.base));
    OK(mh_encode(mh_graph_encoder(graph), &op.base));
    OK(mh_graph_seal(graph));
    OK(mh_graph_launch(graph, stream));
    OK(mh_graph_launch(graph, stream));
    OK(mh_stream_read(stream, buffer, 0, &sum, 4));
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_true(sum == 5);
    mh_graph_release(graph);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
}

static void everything_that_ran_is_there(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    static const char *const uris[] = {"host", "probe", "null"};
    w->control->native = 1u << MH_OP_ADD;
    (void)state;
    for (int d = 0; d < 3; d++) {
        mh_timeline *timeline = make(w->runtime, MH_TIMELINE_LINES);
        mh_device *device = open_with(w->runtime, uris[d], timeline);
        mh_device_counters counters = MH_INIT(mh_device_counters);
        uint64_t begin = mh_timeline_now(timeline);
        work(device);
        mh_timeline_span(timeline, "mine", begin);
        OK(mh_device_get_counters(device, &counters));
        mh_device_release(device);
        OK(mh_timeline_finish(timeline));
        mh_timeline_release(timeline);
        char *text = read_all();
        assert_int_equal(counters.native + counters.fallback, 5);
        assert_int_equal(count(text, "\"type\":\"op\""), 5);
        assert_int_equal(count(text, "\"layer\":3,\"label\":\"say \\\"seven\\\"\\\\\\u000a\""), 5);
        assert_int_equal(count(text, "\"type\":\"copy\""), counters.copies);
        assert_int_equal(count(text, "\"type\":\"launch\""), 2);
        assert_int_equal(count(text, "\"nodes\":2"), 2);
        assert_int_equal(count(text, "\"type\":\"span\",\"name\":\"mine\""), 1);
        assert_true(count(text, "\"type\":\"wait\"") > 0);
        assert_true(count(text, "\"bytes\":512") > 0); /* memory */
        /* Where an op fell back, it is the host that ran it. */
        char device_of_op[64];
        snprintf(device_of_op, sizeof(device_of_op),
                 "\"device\":\"%s:0\",\"stream\":", counters.fallback ? "host" : uris[d]);
        assert_true(count(text, device_of_op) >= 5);
        free(text);
    }
    world_free(w);
}

static void a_chrome_trace_is_closed(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_timeline *timeline = make(w->runtime, MH_TIMELINE_CHROME);
    mh_device *device = open_with(w->runtime, "host", timeline);
    (void)state;
    work(device);
    OK(mh_timeline_finish(timeline));
    work(device); /* too late */
    OK(mh_timeline_finish(timeline));
    mh_device_release(device);
    mh_timeline_release(timeline);
    char *text = read_all();
    assert_int_equal(count(text, "\"cat\":\"op\""), 5);
    /* The lanes: the spans of the whole, a device's launches, and two for each stream. */
    assert_int_equal(count(text, "\"name\":\"thread_name\""), 2 + 2 * 2);
    assert_int_equal(count(text, "\"tid\":1,\"args\":{\"name\":\"stream 1\"}"), 1);
    assert_int_equal(count(text, "\"tid\":2,\"args\":{\"name\":\"stream 1, waits\"}"), 1);
    assert_int_equal(count(text, "\"tid\":4,\"args\":{\"name\":\"stream 2, waits\"}"), 1);
    int in_lanes = 0;
    for (int lane = 0; lane <= 4; lane++) {
        char where[32];
        snprintf(where, sizeof(where), "\"pid\":1,\"tid\":%d,", lane);
        in_lanes += count(text, where);
    }
    assert_int_equal(count(text, "\"pid\":1,\"tid\":"), in_lanes);
    assert_int_equal(strncmp(text, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[", 39), 0);
    assert_string_equal(text + strlen(text) - 4, "\n]}\n");
    free(text);
    world_free(w);
}

/* The layer waits for each op: what that says is kept for the next wait of the user's, and sticks.
 */
static void an_asynchronous_error_is_told_by_the_next_wait(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_timeline *timeline = make(w->runtime, MH_TIMELINE_LINES);
    mh_device *device = open_with(w->runtime, "probe:0", timeline);
    mh_stream *stream;
    mh_buffer *buffer;
    (void)state;
    w->control->native = 1u << MH_OP_ADD;
    OK(mh_stream_create(device, &stream));
    OK(mh_buffer_create(device, 512, 0, &buffer));
    mh_op_add op = add_one(buffer);
    w->control->fail_wait = 1;
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    REFUSED(MH_DEVICE_LOST, mh_stream_wait(stream, MH_FOREVER), "a kernel faulted");
    REFUSED(MH_DEVICE_LOST, mh_encode(mh_stream_encoder(stream), &op.base), "a kernel faulted");
    OK(mh_device_reset(device));
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    work(device);
    mh_device_release(device);
    OK(mh_timeline_finish(timeline));
    mh_timeline_release(timeline);
    char *text = read_all();
    assert_int_equal(count(text, "\"type\":\"op\""), 5); /* the one that failed never ended */
    assert_int_equal(count(text, "\"done\":false"), 1);
    free(text);
    world_free(w);
}

static void bad_input(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_timeline *timeline;
    mh_runtime *other;
    mh_device *device;
    mh_device_params params = MH_INIT(mh_device_params);
    (void)state;
    REFUSED(MH_INVALID_ARGUMENT, mh_timeline_create(w->runtime, NULL, 1, &timeline), "path");
    REFUSED(MH_INVALID_ARGUMENT, mh_timeline_create(NULL, "x", 1, &timeline), "runtime");
    REFUSED(MH_INVALID_ARGUMENT, mh_timeline_create(w->runtime, "/tmp/x", 3, &timeline),
            "format is 3");
    REFUSED(MH_IO_ERROR, mh_timeline_create(w->runtime, "/nowhere/x", 1, &timeline), "/nowhere/x");
    assert_null(timeline);
    OK(mh_timeline_create(w->runtime, "/dev/full", MH_TIMELINE_CHROME, &timeline));
    mh_timeline_retain(timeline);
    mh_timeline_release(timeline);
    REFUSED(MH_IO_ERROR, mh_timeline_finish(timeline), "/dev/full");
    OK(mh_runtime_create(NULL, &other));
    params.timeline = timeline;
    REFUSED(MH_INVALID_ARGUMENT, mh_device_open(other, "host", &params, &device),
            "another runtime");
    mh_timeline_release(timeline);
    mh_timeline_release(NULL);
    mh_timeline_span(NULL, "nothing", 0);
    assert_int_equal(mh_timeline_now(NULL), 0);
    mh_runtime_release(other);
    world_free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_that_ran_is_there),
        cmocka_unit_test(a_chrome_trace_is_closed),
        cmocka_unit_test(an_asynchronous_error_is_told_by_the_next_wait),
        cmocka_unit_test(bad_input),
    };
    return WORLD_MAIN(tests);
}
