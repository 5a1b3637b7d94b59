/*
 * What the embedder made with CUDA's or HIP's API: its stream and memory, and its events, which
 * moehal waits for and records, and moehal's, which the embedder's streams wait for. The two APIs
 * are alike to the name's beginning. argv: nvidia or amd, and the library; a virtual GPU's.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <moehal/moehal.h>

#include "../support/support.h"

#define N 16
#define DONE(call) assert_int_equal((call), 0)

static struct {
    int (*StreamCreate)(void **stream, unsigned flags);
    int (*StreamDestroy)(void *stream);
    int (*StreamSynchronize)(void *stream);
    int (*StreamWaitEvent)(void *stream, void *event, unsigned flags);
    int (*EventCreate)(void **event, unsigned flags);
    int (*EventDestroy)(void *event);
    int (*EventRecord)(void *event, void *stream);
    int (*EventQuery)(void *event);
    int (*LaunchHostFunc)(void *stream, void (*function)(void *), void *user);
    int (*MemAlloc)(void **memory, size_t bytes);
    int (*MemFree)(void *memory);
    int (*HostAlloc)(void **memory, size_t bytes, unsigned flags);
    int (*FreeHost)(void *memory);
    int (*ToDevice)(void *to, const void *from, size_t bytes, void *stream);
    int (*ToHost)(void *to, void *from, size_t bytes, void *stream);
} vendor;

static struct {
    void *to;
    const char *nvidia, *amd;
} symbols[] = {
    {&vendor.StreamCreate, "cuStreamCreate", "hipStreamCreateWithFlags"},
    {&vendor.StreamDestroy, "cuStreamDestroy_v2", "hipStreamDestroy"},
    {&vendor.StreamSynchronize, "cuStreamSynchronize", "hipStreamSynchronize"},
    {&vendor.StreamWaitEvent, "cuStreamWaitEvent", "hipStreamWaitEvent"},
    {&vendor.EventCreate, "cuEventCreate", "hipEventCreateWithFlags"},
    {&vendor.EventDestroy, "cuEventDestroy_v2", "hipEventDestroy"},
    {&vendor.EventRecord, "cuEventRecord", "hipEventRecord"},
    {&vendor.EventQuery, "cuEventQuery", "hipEventQuery"},
    {&vendor.LaunchHostFunc, "cuLaunchHostFunc", "hipLaunchHostFunc"},
    {&vendor.MemAlloc, "cuMemAlloc_v2", "hipMalloc"},
    {&vendor.MemFree, "cuMemFree_v2", "hipFree"},
    {&vendor.HostAlloc, "cuMemHostAlloc", "hipHostMalloc"},
    {&vendor.FreeHost, "cuMemFreeHost", "hipHostFree"},
    {&vendor.ToDevice, "cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync"},
    {&vendor.ToHost, "cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync"},
};

enum { NOT_READY = 600, NON_BLOCKING = 1, NO_TIMING = 2 }; /* in both */

static const char *uri;
static mh_runtime *runtime;
static mh_device *device;

/* ---- what holds the embedder's stream ---- */

struct lock {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool open;
};

static void hold(void *user)
{
    struct lock *l = user;
    pthread_mutex_lock(&l->mutex);
    while (!l->open)
        pthread_cond_wait(&l->changed, &l->mutex);
    pthread_mutex_unlock(&l->mutex);
}

static void open_lock(struct lock *l)
{
    pthread_mutex_lock(&l->mutex);
    l->open = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

#define CLOSED                                                                                     \
    {                                                                                              \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                    \
    }

/* ---- the embedder's things, and moehal over them ---- */

struct both {
    void *queue, *event, *memory;
    mh_stream *stream; /* of moehal's own */
    mh_buffer *buffer;
    mh_event *wrapped;
};

static void make(struct both *b, unsigned flags)
{
    DONE(vendor.StreamCreate(&b->queue, NON_BLOCKING));
    DONE(vendor.EventCreate(&b->event, flags));
    DONE(vendor.MemAlloc(&b->memory, 4 * 3 * N));
    OK(mh_stream_create(device, &b->stream));
    OK(mh_buffer_wrap(device, (uintptr_t)b->memory, 4 * 3 * N, 0, NULL, NULL, &b->buffer));
    OK(mh_event_wrap(device, (uintptr_t)b->event, &b->wrapped));
}

static void drop(struct both *b)
{
    mh_event_release(b->wrapped);
    mh_buffer_release(b->buffer);
    mh_stream_release(b->stream);
    DONE(vendor.EventQuery(b->event)); /* still there */
    DONE(vendor.MemFree(b->memory));
    DONE(vendor.EventDestroy(b->event));
    DONE(vendor.StreamDestroy(b->queue));
}

/* Sums of the second and the last third of the memory, in the first. */
static void add(struct both *b)
{
    const int64_t shape[] = {1, N};
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = mh_tensor_make(b->buffer, 0, MH_F32, 2, shape);
    op.a = mh_tensor_make(b->buffer, 4 * N, MH_F32, 2, shape);
    op.b = mh_tensor_make(b->buffer, 8 * N, MH_F32, 2, shape);
    OK(mh_encode(mh_stream_encoder(b->stream), &op.base));
}

static void fill(float values[3 * N], int by)
{
    for (int i = 0; i < 3 * N; i++)
        values[i] = (float)(i * by);
}

static void assert_sums(const float *sums, int by)
{
    for (int i = 0; i < N; i++)
        assert_true(sums[i] == (float)(by * (N + i)) + (float)(by * (2 * N + i)));
}

/* ---- tests ---- */

/* The embedder's queue fills the memory behind the lock, moehal adds when that is done, and a
 * second queue of the embedder's reads when moehal has: `how` it waits for that. */
static void in_turn(void (*how)(struct both *b, void *queue, void **event, mh_event **own))
{
    struct both b;
    struct lock lock = CLOSED;
    float *values, *got;
    void *pinned, *reader, *event = NULL;
    mh_event *own = NULL;
    make(&b, NO_TIMING);
    DONE(vendor.HostAlloc(&pinned, 4 * 4 * N, 0)); /* a copy to other memory waits */
    got = memset(pinned, 0, 4 * N);
    values = got + N;
    fill(values, 3);
    DONE(vendor.StreamCreate(&reader, NON_BLOCKING));
    DONE(vendor.LaunchHostFunc(b.queue, hold, &lock));
    DONE(vendor.ToDevice(b.memory, values, 4 * 3 * N, b.queue));
    DONE(vendor.EventRecord(b.event, b.queue));
    assert_int_equal(mh_event_wait(b.wrapped, 0), MH_TIMEOUT);
    test_failed("a wait with a limit", mh_event_wait(b.wrapped, 1000000), MH_TIMEOUT, "1000000");
    OK(mh_stream_wait_event(b.stream, b.wrapped));
    add(&b);
    how(&b, reader, &event, &own);
    DONE(vendor.ToHost(got, b.memory, 4 * N, reader));
    assert_int_equal(mh_stream_wait(b.stream, 0), MH_TIMEOUT);
    open_lock(&lock);
    DONE(vendor.StreamSynchronize(reader));
    assert_sums(got, 3);
    mh_event_release(own);
    if (event)
        DONE(vendor.EventDestroy(event));
    DONE(vendor.FreeHost(pinned));
    DONE(vendor.StreamDestroy(reader));
    drop(&b);
}

static void by_the_embedders_event(struct both *b, void *queue, void **event, mh_event **own)
{
    DONE(vendor.EventCreate(event, NO_TIMING));
    OK(mh_event_wrap(device, (uintptr_t)*event, own));
    OK(mh_event_record(*own, b->stream));
    assert_int_equal(vendor.EventQuery(*event), NOT_READY);
    DONE(vendor.StreamWaitEvent(queue, *event, 0));
}

static void by_moehals_event(struct both *b, void *queue, void **event, mh_event **own)
{
    uint64_t native = 0;
    (void)event;
    OK(mh_event_create(device, own));
    assert_int_equal(mh_event_native(*own, &native), MH_WRONG_STATE);
    OK(mh_event_record(*own, b->stream));
    OK(mh_event_native(*own, &native));
    assert_int_equal(vendor.EventQuery((void *)(uintptr_t)native), NOT_READY);
    DONE(vendor.StreamWaitEvent(queue, (void *)(uintptr_t)native, 0));
}

static void waits_and_records(void **state)
{
    (void)state;
    in_turn(by_the_embedders_event);
}

static void hands_out_its_own(void **state)
{
    (void)state;
    in_turn(by_moehals_event);
}

/* What the embedder records later is seen; and the same event moves from its queue to moehal's. */
static void events_move(void **state)
{
    struct both b;
    struct lock first = CLOSED, second = CLOSED;
    uint64_t native = 0, ns = UINT64_MAX;
    mh_event *end;
    (void)state;
    make(&b, 0);
    OK(mh_event_wait(b.wrapped, 0)); /* never recorded */
    DONE(vendor.LaunchHostFunc(b.queue, hold, &first));
    DONE(vendor.EventRecord(b.event, b.queue));
    assert_int_equal(mh_event_wait(b.wrapped, 0), MH_TIMEOUT);
    open_lock(&first);
    OK(mh_event_wait(b.wrapped, MH_FOREVER));
    DONE(vendor.LaunchHostFunc(b.queue, hold, &second));
    DONE(vendor.EventRecord(b.event, b.queue));
    assert_int_equal(mh_event_wait(b.wrapped, 0), MH_TIMEOUT);
    OK(mh_event_record(b.wrapped, b.stream));
    open_lock(&second);
    OK(mh_event_wait(b.wrapped, MH_FOREVER));
    DONE(vendor.StreamSynchronize(b.queue));
    OK(mh_event_native(b.wrapped, &native));
    assert_ptr_equal((void *)(uintptr_t)native, b.event);
    OK(mh_event_create(device, &end));
    OK(mh_event_record(end, b.stream));
    OK(mh_event_wait(end, MH_FOREVER));
    OK(mh_event_elapsed(b.wrapped, end, &ns)); /* the vendor's own, and moehal's */
    assert_true(ns < UINT64_C(60000000000));
    mh_event_release(end);
    drop(&b);
}

static void *open_later(void *lock)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    open_lock(lock);
    return NULL;
}

/* The host's stream is its caller: it waits until the point is passed. */
static void another_device_waits(void **state)
{
    struct both b;
    struct lock lock = CLOSED;
    pthread_t thread;
    mh_device *host;
    mh_stream *stream;
    (void)state;
    make(&b, NO_TIMING);
    OK(mh_device_open(runtime, "host", NULL, &host));
    OK(mh_stream_create(host, &stream));
    DONE(vendor.LaunchHostFunc(b.queue, hold, &lock));
    DONE(vendor.EventRecord(b.event, b.queue));
    DONE(pthread_create(&thread, NULL, open_later, &lock));
    OK(mh_stream_wait_event(stream, b.wrapped));
    DONE(vendor.EventQuery(b.event));
    DONE(pthread_join(thread, NULL));
    mh_stream_release(stream);
    mh_device_release(host);
    drop(&b);
}

static void what_is_no_event_is_refused(void **state)
{
    mh_event *event = NULL;
    uint64_t no_event[32] = {0};
    (void)state;
    test_failed("no event", mh_event_wrap(device, (uintptr_t)no_event, &event), MH_INVALID_ARGUMENT,
                "is no event");
    assert_null(event);
}

static bool find_vendor(const char *library, bool nvidia)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    for (size_t i = 0; handle && i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(handle, nvidia ? symbols[i].nvidia : symbols[i].amd);
        if (!symbol) {
            printf("%s: no %s\n", library, nvidia ? symbols[i].nvidia : symbols[i].amd);
            return false;
        }
        memcpy(symbols[i].to, &symbol, sizeof(symbol));
    }
    return handle;
}

/* CUDA's embedder and moehal share the device's primary context; HIP has one a device. */
static bool enter_primary_context(const char *library)
{
    int (*init)(unsigned), (*retain)(void **, int), (*set)(void *);
    void *handle = dlopen(library, RTLD_NOW), *context;
    *(void **)&init = dlsym(handle, "cuInit");
    *(void **)&retain = dlsym(handle, "cuDevicePrimaryCtxRetain");
    *(void **)&set = dlsym(handle, "cuCtxSetCurrent");
    return !init(0) && !retain(&context, 0) && !set(context);
}

int main(int argc, char **argv)
{
    mh_device_params params = MH_INIT(mh_device_params);
    bool nvidia = argc == 3 && !strcmp(argv[1], "nvidia");
    if (argc != 3 || !find_vendor(argv[2], nvidia) || (nvidia && !enter_primary_context(argv[2])))
        return 2;
    uri = nvidia ? "nvidia:0" : "amd:0";
    params.context = nvidia ? MH_CONTEXT_PRIMARY : MH_CONTEXT_OWN;
    if (mh_runtime_create(NULL, &runtime) || mh_device_open(runtime, uri, &params, &device)) {
        printf("%s\n", mh_last_message());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_and_records),
        cmocka_unit_test(hands_out_its_own),
        cmocka_unit_test(events_move),
        cmocka_unit_test(another_device_waits),
        cmocka_unit_test(what_is_no_event_is_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return failed;
}
