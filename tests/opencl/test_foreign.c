/*
 * What the embedder made with OpenCL itself: its context, queue and buffers around moehal's ops,
 * its kernels as ops, its memory in place; native graphs, events and times. Against plain C.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal/moehal.h>

#include "../support/support.h"
#include "cl.h"
#include "symbols.h"

#define N 1000

struct vendor {
#define SYMBOL(need, result, field, name, args) result(*field) args;
#include "cl.def"
#undef SYMBOL
};

static const struct symbol symbols[] = {
#define SYMBOL(need, result, field, name, args) SYMBOL_ENTRY(struct vendor, need, field, name)
#include "cl.def"
#undef SYMBOL
};

static struct vendor cl;
static const char *module;
static mh_runtime *runtime;

struct foreign {
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    cl_mem memory;
    float values[2 * N];
    mh_device *device;
};

static void make(struct foreign *f)
{
    cl_platform_id platform;
    cl_int code = 0;
    memset(f, 0, sizeof(*f));
    assert_int_equal(cl.GetPlatformIDs(1, &platform, NULL), 0);
    assert_int_equal(cl.GetDeviceIDs(platform, CL_DEVICE_TYPE_EVERY, 1, &f->id, NULL), 0);
    f->context = cl.CreateContext(NULL, 1, &f->id, NULL, NULL, &code);
    assert_int_equal(code, 0);
    f->queue = cl.CreateCommandQueue(f->context, f->id, 0, &code);
    assert_int_equal(code, 0);
    f->memory = cl.CreateBuffer(f->context, CL_MEM_READ_WRITE, sizeof(f->values), NULL, &code);
    assert_int_equal(code, 0);
    for (int i = 0; i < 2 * N; i++)
        f->values[i] = (float)i / 8;
    assert_int_equal(cl.EnqueueWriteBuffer(f->queue, f->memory, CL_TRUE, 0, sizeof(f->values),
                                           f->values, 0, NULL, NULL),
                     0);
    mh_device_params params = MH_INIT(mh_device_params);
    params.context = MH_CONTEXT_WRAP;
    params.native_context = (uintptr_t)f->context;
    params.placement = MH_PLACEMENT_STRICT;
    OK(mh_device_open(runtime, "opencl:0", &params, &f->device));
}

static void drop(struct foreign *f)
{
    mh_device_release(f->device);
    cl.ReleaseMemObject(f->memory);
    cl.ReleaseCommandQueue(f->queue);
    cl.ReleaseContext(f->context); /* still there: the device only held it */
}

static mh_tensor row(mh_buffer *buffer, uint64_t offset)
{
    return mh_tensor_make(buffer, offset, MH_F32, 2, (const int64_t[]){1, N});
}

static mh_op_add sum_in_place(mh_buffer *buffer)
{
    mh_op_add add = MH_OP_INIT(add, ADD);
    add.y = add.a = row(buffer, 0);
    add.b = row(buffer, 4 * N);
    return add;
}

/* moehal's work lies between the embedder's own commands on the embedder's queue. */
static void wraps(void **state)
{
    struct foreign f;
    mh_stream *stream;
    mh_buffer *buffer;
    float got[N];
    (void)state;
    make(&f);
    OK(mh_stream_wrap(f.device, (uintptr_t)f.queue, &stream));
    OK(mh_buffer_wrap(f.device, (uintptr_t)f.memory, sizeof(f.values), 0, NULL, NULL, &buffer));
    mh_op_add add = sum_in_place(buffer);
    OK(mh_encode(mh_stream_encoder(stream), &add.base));
    assert_int_equal(
        cl.EnqueueReadBuffer(f.queue, f.memory, CL_TRUE, 0, sizeof(got), got, 0, NULL, NULL), 0);
    for (int i = 0; i < N; i++)
        assert_true(got[i] == f.values[i] + f.values[N + i]);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    drop(&f);
}

/* moehal waits for the embedder's event, which is held by a user event, and the embedder's queue
 * for the point that moehal recorded. */
static void events(void **state)
{
    struct foreign f;
    cl_int code = 0;
    mh_stream *stream;
    mh_buffer *buffer;
    mh_event *filled, *added;
    float values[2 * N], got[N] = {0};
    uint64_t native = 0;
    (void)state;
    make(&f);
    for (int i = 0; i < 2 * N; i++)
        values[i] = 5 * f.values[i];
    cl_event lock = cl.CreateUserEvent(f.context, &code), theirs = NULL;
    assert_int_equal(code, 0);
    code = cl.EnqueueWriteBuffer(f.queue, f.memory, CL_FALSE, 0, sizeof(values), values, 1, &lock,
                                 &theirs);
    assert_int_equal(code, 0);
    assert_int_equal(cl.Flush(f.queue), 0);
    OK(mh_stream_create(f.device, &stream));
    OK(mh_buffer_wrap(f.device, (uintptr_t)f.memory, sizeof(f.values), 0, NULL, NULL, &buffer));
    OK(mh_event_wrap(f.device, (uintptr_t)theirs, &filled));
    cl.ReleaseEvent(theirs); /* the wrapped one holds it */
    assert_int_equal(mh_event_wait(filled, 0), MH_TIMEOUT);
    test_failed("a wait with a limit", mh_event_wait(filled, 1000000), MH_TIMEOUT, "1000000");
    test_failed("a cl_event does not move", mh_event_record(filled, stream), MH_UNSUPPORTED,
                "one point");
    OK(mh_stream_wait_event(stream, filled));
    mh_op_add add = sum_in_place(buffer);
    OK(mh_encode(mh_stream_encoder(stream), &add.base));
    OK(mh_event_create(f.device, &added));
    assert_int_equal(mh_event_native(added, &native), MH_WRONG_STATE);
    OK(mh_event_record(added, stream));
    OK(mh_event_native(added, &native));
    cl_event ours = (cl_event)(uintptr_t)native;
    cl_command_queue reader = cl.CreateCommandQueue(f.context, f.id, 0, &code);
    assert_int_equal(code, 0);
    code = cl.EnqueueReadBuffer(reader, f.memory, CL_FALSE, 0, sizeof(got), got, 1, &ours, NULL);
    assert_int_equal(code, 0);
    assert_int_equal(cl.Flush(reader), 0);
    assert_int_equal(mh_stream_wait(stream, 0), MH_TIMEOUT);
    assert_int_equal(cl.SetUserEventStatus(lock, CL_COMPLETE), 0);
    assert_int_equal(cl.Finish(reader), 0);
    for (int i = 0; i < N; i++)
        assert_true(got[i] == values[i] + values[N + i]);
    OK(mh_event_wait(filled, MH_FOREVER));
    OK(mh_event_wait(added, MH_FOREVER));
    mh_event_release(filled);
    mh_event_release(added);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    cl.ReleaseEvent(lock);
    cl.ReleaseCommandQueue(reader);
    drop(&f);
}

static void refuses(void **state)
{
    struct foreign f, other;
    mh_stream *stream;
    mh_buffer *buffer;
    cl_int code = 0;
    (void)state;
    make(&f);
    make(&other);
    test_failed("a queue of another context",
                mh_stream_wrap(f.device, (uintptr_t)other.queue, &stream), MH_INVALID_ARGUMENT,
                "another context");
    test_failed("no queue", mh_stream_wrap(f.device, 0, &stream), MH_INVALID_ARGUMENT, "queue");
    cl_command_queue loose =
        cl.CreateCommandQueue(f.context, f.id, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &code);
    if (loose) {
        test_failed("out of order", mh_stream_wrap(f.device, (uintptr_t)loose, &stream),
                    MH_INVALID_ARGUMENT, "out of order");
        cl.ReleaseCommandQueue(loose);
    }
    test_failed("a buffer of another context",
                mh_buffer_wrap(f.device, (uintptr_t)other.memory, 64, 0, NULL, NULL, &buffer),
                MH_INVALID_ARGUMENT, "another context");
    test_failed(
        "a short buffer",
        mh_buffer_wrap(f.device, (uintptr_t)f.memory, sizeof(f.values) + 1, 0, NULL, NULL, &buffer),
        MH_INVALID_ARGUMENT, "8000|8001");
    cl_event foreign = cl.CreateUserEvent(other.context, &code), broken;
    mh_event *event;
    test_failed("an event of another context", mh_event_wrap(f.device, (uintptr_t)foreign, &event),
                MH_INVALID_ARGUMENT, "another context");
    cl.ReleaseEvent(foreign);
    broken = cl.CreateUserEvent(f.context, &code);
    OK(mh_event_wrap(f.device, (uintptr_t)broken, &event));
    cl.SetUserEventStatus(broken, -5);
    test_failed("work that failed", mh_event_wait(event, MH_FOREVER), MH_VENDOR_ERROR,
                "clGetEventInfo|CL_OUT_OF_RESOURCES");
    mh_event_release(event);
    cl.ReleaseEvent(broken);
    mh_device *device;
    mh_device_params params = MH_INIT(mh_device_params);
    params.context = MH_CONTEXT_PRIMARY;
    test_failed("a primary context", mh_device_open(runtime, "opencl:0", &params, &device),
                MH_UNSUPPORTED, "primary");
    drop(&other);
    drop(&f);
}

static const char source[] = "kernel void scale(global float *x, float by, local float *room)\n"
                             "{\n"
                             "    size_t i = get_global_id(0);\n"
                             "    room[get_local_id(0)] = x[i];\n"
                             "    barrier(CLK_LOCAL_MEM_FENCE);\n"
                             "    x[i] = room[get_local_id(0)] * by;\n"
                             "}\n";

static void own_kernels(void **state)
{
    struct foreign f;
    mh_module *loaded;
    mh_kernel *kernel;
    mh_stream *stream;
    mh_buffer *buffer;
    char log[256];
    float got[N], by = 3;
    (void)state;
    make(&f);
    mh_module_params params = MH_INIT(mh_module_params);
    params.image = "kernel void broken(global float *x) { x[0] = nothing; }";
    params.log = log, params.log_size = sizeof(log);
    test_failed("a kernel that does not compile", mh_module_load(f.device, &params, &loaded),
                MH_BAD_DATA, "nothing");
    assert_non_null(strstr(log, "nothing"));
    params.image = source;
    OK(mh_module_load(f.device, &params, &loaded));
    test_failed("a kernel that is not there", mh_kernel_create(loaded, "absent", &kernel),
                MH_NOT_FOUND, "absent");
    OK(mh_kernel_create(loaded, "scale", &kernel));
    OK(mh_stream_create(f.device, &stream));
    OK(mh_buffer_wrap(f.device, (uintptr_t)f.memory, sizeof(f.values), 0, NULL, NULL, &buffer));
    mh_kernel_arg args[] = {
        {.kind = MH_ARG_TENSOR,
         .access = MH_OPERAND_READ | MH_OPERAND_WRITTEN,
         .tensor = row(buffer, 0)},
        {.kind = MH_ARG_VALUE, .size = sizeof(by)},
        {.kind = MH_ARG_LOCAL, .size = 4 * 50},
    };
    memcpy(args[1].value, &by, sizeof(by));
    mh_op_kernel op = {.base = {sizeof(op), MH_OP_KERNEL, 0, -1, 0, NULL},
                       .kernel = kernel,
                       .grid = {N / 50, 1, 1},
                       .block = {50, 1, 1},
                       .args = args,
                       .arg_count = 3};
    OK(mh_encode(mh_stream_encoder(stream), &op.base));
    OK(mh_stream_wait(stream, MH_FOREVER));
    OK(mh_buffer_read(buffer, 0, got, sizeof(got)));
    for (int i = 0; i < N; i++)
        assert_true(got[i] == f.values[i] * by);
    op.block[0] = 1 << 30;
    test_failed("too large a group", mh_encode(mh_stream_encoder(stream), &op.base), MH_UNSUPPORTED,
                "work-items");
    op.block[0] = 50;
    args[0].tensor = row(buffer, 4);
    test_failed("an offset", mh_encode(mh_stream_encoder(stream), &op.base), MH_UNSUPPORTED,
                "offset");
    mh_kernel_release(kernel);
    mh_module_release(loaded);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    drop(&f);
}

static void memory_in_place(void **state)
{
    mh_device *device;
    mh_stream *stream;
    mh_buffer *buffer;
    (void)state;
    OK(mh_device_open(runtime, "opencl:0", NULL, &device));
    float *own = aligned_alloc(4096, 8192);
    for (int i = 0; i < 2 * N; i++)
        own[i] = (float)i;
    mh_status status = mh_buffer_import(device, own, 8000, 0, NULL, NULL, &buffer);
    if (status == MH_UNSUPPORTED) {
        assert_non_null(strstr(mh_last_message(), "share"));
    } else {
        OK(status);
        OK(mh_stream_create(device, &stream));
        mh_op_add add = sum_in_place(buffer);
        OK(mh_encode(mh_stream_encoder(stream), &add.base));
        OK(mh_stream_wait(stream, MH_FOREVER));
        float got[N];
        OK(mh_buffer_read(buffer, 0, got, sizeof(got)));
        for (int i = 0; i < N; i++)
            assert_true(got[i] == (float)(2 * i + N));
        mh_buffer_release(buffer);
        mh_stream_release(stream);
    }
    mh_device_release(device);
    free(own);
}

/* A graph launched twice, with events around it. */
static void graphs_and_times(void **state)
{
    mh_device *device;
    mh_stream *stream;
    mh_buffer *buffer;
    mh_graph *graph;
    mh_event *begin, *end;
    float values[2 * N], got[N];
    uint64_t ns = 0;
    (void)state;
    OK(mh_device_open(runtime, "opencl:0", NULL, &device));
    OK(mh_stream_create(device, &stream));
    OK(mh_buffer_create(device, sizeof(values), MH_BUFFER_DEVICE, &buffer));
    for (int i = 0; i < 2 * N; i++)
        values[i] = (float)i;
    OK(mh_buffer_write(buffer, 0, values, sizeof(values)));
    OK(mh_graph_create(device, &graph));
    mh_op_add add = sum_in_place(buffer);
    OK(mh_encode(mh_graph_encoder(graph), &add.base));
    OK(mh_encode(mh_graph_encoder(graph), &add.base));
    OK(mh_graph_seal(graph));
    OK(mh_event_create(device, &begin));
    OK(mh_event_create(device, &end));
    OK(mh_event_record(begin, stream));
    OK(mh_graph_launch(graph, stream));
    OK(mh_graph_launch(graph, stream));
    OK(mh_event_record(end, stream));
    OK(mh_event_wait(end, MH_FOREVER));
    OK(mh_event_elapsed(begin, end, &ns));
    assert_true(ns > 0 && ns < UINT64_C(60000000000));
    OK(mh_buffer_read(buffer, 0, got, sizeof(got)));
    for (int i = 0; i < N; i++)
        assert_true(got[i] == values[i] + 4 * values[N + i]);
    mh_event_release(begin);
    mh_event_release(end);
    mh_graph_release(graph);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    mh_device_release(device);
}

static bool has_command_buffers(void)
{
    cl_platform_id platform;
    cl_device_id id;
    char list[4096] = "";
    assert_int_equal(cl.GetPlatformIDs(1, &platform, NULL), 0);
    assert_int_equal(cl.GetDeviceIDs(platform, CL_DEVICE_TYPE_EVERY, 1, &id, NULL), 0);
    cl.GetDeviceInfo(id, CL_DEVICE_EXTENSIONS, sizeof(list) - 2, list, NULL);
    strcat(list, " ");
    return strstr(list, "cl_khr_command_buffer ") != NULL;
}

/* Launches that do not wait for each other, on two streams' queues in turn: a command buffer that
 * is still under way is not enqueued again. Where the driver has command buffers they are used. */
static void graphs_without_waiting(void **state)
{
    enum { LAUNCHES = 60 };
    mh_device *device;
    mh_stream *streams[2];
    mh_buffer *buffer;
    mh_graph *graph;
    float values[2 * N], got[N];
    (void)state;
    OK(mh_device_open(runtime, "opencl:0", NULL, &device));
    OK(mh_stream_create(device, &streams[0]));
    OK(mh_stream_create(device, &streams[1]));
    OK(mh_buffer_create(device, sizeof(values), MH_BUFFER_DEVICE, &buffer));
    for (int i = 0; i < 2 * N; i++)
        values[i] = (float)(i % 97);
    OK(mh_buffer_write(buffer, 0, values, sizeof(values)));
    OK(mh_graph_create(device, &graph));
    mh_op_add add = sum_in_place(buffer);
    for (int i = 0; i < 3; i++)
        OK(mh_encode(mh_graph_encoder(graph), &add.base));
    OK(mh_graph_seal(graph));
    for (int i = 0; i < LAUNCHES; i++) {
        OK(mh_graph_launch(graph, streams[i / (LAUNCHES / 2)]));
        if (i == LAUNCHES / 2 - 1)
            OK(mh_stream_wait(streams[0], MH_FOREVER));
    }
    OK(mh_stream_wait(streams[1], MH_FOREVER));
    OK(mh_buffer_read(buffer, 0, got, sizeof(got)));
    for (int i = 0; i < N; i++)
        assert_true(got[i] == values[i] + 3 * LAUNCHES * values[N + i]);
    mh_device_counter replayed = MH_INIT(mh_device_counter), whole = MH_INIT(mh_device_counter);
    OK(mh_device_read_counter(device, 0, &replayed));
    OK(mh_device_read_counter(device, 1, &whole));
    printf("%s: %u, %s: %u\n", replayed.name, (unsigned)replayed.value, whole.name,
           (unsigned)whole.value);
    assert_int_equal(replayed.value + whole.value, LAUNCHES);
    assert_int_equal(whole.value > 0, has_command_buffers());
    mh_graph_release(graph);
    mh_buffer_release(buffer);
    mh_stream_release(streams[0]);
    mh_stream_release(streams[1]);
    mh_device_release(device);
}

int main(int argc, char **argv)
{
    static const char *const libraries[] = {"libOpenCL.so.1", NULL};
    char reason[512];
    mh_device *device;
    module = argc > 1 ? argv[1] : "";
    if (!symbols_open(libraries, symbols, sizeof(symbols) / sizeof(symbols[0]), &cl, reason,
                      sizeof(reason))) {
        printf("SKIP: %s\n", reason);
        return 77;
    }
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = &module;
    params.module_count = 1;
    if (mh_runtime_create(&params, &runtime) ||
        mh_device_open(runtime, "opencl:0", NULL, &device)) {
        printf("SKIP: %s\n", mh_last_message());
        return 77;
    }
    mh_device_release(device);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wraps),
        cmocka_unit_test(events),
        cmocka_unit_test(refuses),
        cmocka_unit_test(own_kernels),
        cmocka_unit_test(memory_in_place),
        cmocka_unit_test(graphs_and_times),
        cmocka_unit_test(graphs_without_waiting),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mh_runtime_release(runtime);
    return failed;
}
