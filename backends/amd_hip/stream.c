/* stream.c: queues, copies, ops, marks and waits, events. */
#include <time.h>

#include "amd.h"

mh_status amd_counters_create(struct device *device, void **counters)
{
    mh_status status = HIP(device, Malloc(counters, 4 * COUNTER_COUNT));
    if (!status && (status = HIP(device, Memset(*counters, 0, 4 * COUNTER_COUNT))))
        device->hip->Free(*counters);
    return status;
}

mh_status amd_stream_make(struct device *device, hipStream_t native, bool wrapped, void **out)
{
    const mh_core *core = device->core;
    struct stream *stream = core->allocate(core->context, sizeof(*stream));
    if (!stream)
        return MH_OUT_OF_MEMORY;
    stream->device = device;
    stream->stream = native;
    stream->wrapped = wrapped;
    int before;
    mh_status status = amd_enter(device, &before);
    if (!status) {
        if (!wrapped)
            status = HIP(device, StreamCreateWithFlags(&stream->stream, hipStreamNonBlocking));
        if (!status && (status = amd_counters_create(device, &stream->counters)) && !wrapped)
            device->hip->StreamDestroy(stream->stream);
        amd_leave(device, before);
    }
    if (status) {
        core->deallocate(core->context, stream);
        return status;
    }
    pthread_mutex_init(&stream->lock, NULL);
    *out = stream;
    return MH_OK;
}

mh_status amd_stream_create(void *device, void **out)
{
    return amd_stream_make(device, NULL, false, out);
}

void amd_stream_destroy(void *user)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    for (int i = 0; i < MARKS; i++)
        if (stream->events[i])
            device->hip->EventDestroy(stream->events[i]);
    device->hip->Free(stream->counters);
    if (!stream->wrapped)
        device->hip->StreamDestroy(stream->stream);
    pthread_mutex_destroy(&stream->lock);
    device->core->deallocate(device->core->context, stream);
}

mh_status amd_copy(void *user, const mh_copy *c)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    char *to = (char *)c->to + c->to_offset;
    const char *from = (const char *)c->from + c->from_offset;
    int before;
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    if (c->direction == MH_COPY_TO_DEVICE)
        status = amd_upload(device, to, from, c->size, stream->stream);
    else
        status = HIP(device, MemcpyAsync(to, from, c->size,
                                         c->direction == MH_COPY_TO_HOST ? hipMemcpyDeviceToHost
                                                                         : hipMemcpyDeviceToDevice,
                                         stream->stream));
    amd_leave(device, before);
    return status;
}

/* ---- ops ---- */

static mh_status launch_kernel(struct stream *stream, hipFunction_t function,
                               const uint32_t grid[3], const uint32_t block[3], uint32_t lds,
                               void **params)
{
    return HIP(stream->device,
               ModuleLaunchKernel(function, grid[0], grid[1], grid[2], block[0], block[1], block[2],
                                  lds, stream->stream, params, NULL));
}

static mh_status encode_plan(struct stream *stream, const mh_op *op, const mh_scratch *scratch)
{
    struct device *device = stream->device;
    struct launch launches[MAX_LAUNCHES];
    uint32_t count = amd_plan(device, op, scratch, stream->counters, launches);
    mh_status status = MH_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        struct launch *l = &launches[i];
        uint32_t grid[] = {(uint32_t)l->grid[0], (uint32_t)l->grid[1], (uint32_t)l->grid[2]};
        void *params[] = {l->arguments};
        status = launch_kernel(stream, device->functions[l->kernel][l->format], grid,
                               (uint32_t[]){l->block, 1, 1}, l->lds, params);
    }
    return status;
}

mh_status amd_encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct stream *stream = user;
    int before;
    mh_status status = amd_enter(stream->device, &before);
    if (status)
        return status;
    if (op->op == MH_OP_KERNEL) {
        const mh_op_kernel *o = (const void *)op;
        struct user_launch l;
        amd_user_launch(o, &l);
        status = launch_kernel(stream, l.function, o->grid, o->block, (uint32_t)o->shared_bytes,
                               l.params);
    } else {
        status = encode_plan(stream, op, scratch);
    }
    amd_leave(stream->device, before);
    return status;
}

/* ---- marks: an event each, out of a ring. Who comes round to one that is still on its way waits
 * for it: the queue is then MARKS marks deep. ---- */

static mh_status mark_locked(struct stream *stream, uint64_t *sequence)
{
    struct device *device = stream->device;
    uint64_t next = stream->last + 1;
    hipEvent_t *event = &stream->events[next % MARKS];
    mh_status status = MH_OK;
    if (!*event)
        status = HIP(device, EventCreateWithFlags(event, hipEventDisableTiming));
    else if (next - MARKS > stream->passed)
        status = HIP(device, EventSynchronize(*event));
    if (!status && next > MARKS && next - MARKS > stream->passed)
        stream->passed = next - MARKS;
    if (!status)
        status = HIP(device, EventRecord(*event, stream->stream));
    if (!status)
        *sequence = stream->last = next;
    return status;
}

mh_status amd_mark(void *user, uint64_t *sequence)
{
    struct stream *stream = user;
    int before;
    mh_status status = amd_enter(stream->device, &before);
    if (status)
        return status;
    pthread_mutex_lock(&stream->lock);
    status = mark_locked(stream, sequence);
    pthread_mutex_unlock(&stream->lock);
    amd_leave(stream->device, before);
    return status;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The runtime has no wait with a limit: polls, with short sleeps. */
static mh_status wait_event(const struct device *device, hipEvent_t event, uint64_t timeout_ns)
{
    if (timeout_ns == UINT64_MAX)
        return HIP(device, EventSynchronize(event));
    uint64_t begin = now_ns();
    for (;;) {
        int result = device->hip->EventQuery(event);
        if (result != hipErrorNotReady)
            return amd_check(device->instance, result, "hipEventQuery", __FILE__, __LINE__);
        if (now_ns() - begin >= timeout_ns)
            return MH_TIMEOUT;
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

/* An event that has come round belongs to a later mark: to wait for it is to wait longer, no less.
 */
mh_status amd_wait(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct stream *stream = user;
    pthread_mutex_lock(&stream->lock);
    hipEvent_t event = stream->events[sequence % MARKS];
    bool passed = sequence <= stream->passed;
    pthread_mutex_unlock(&stream->lock);
    if (passed)
        return MH_OK;
    mh_status status = wait_event(stream->device, event, timeout_ns);
    if (!status) {
        pthread_mutex_lock(&stream->lock);
        if (sequence > stream->passed)
            stream->passed = sequence;
        pthread_mutex_unlock(&stream->lock);
    }
    return status;
}

/* ---- events: a runtime's each, ours or the embedder's ---- */

static mh_status event_create(void *user, void **out)
{
    struct device *device = user;
    hipEvent_t event;
    int before;
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    status = HIP(device, EventCreateWithFlags(&event, 0));
    amd_leave(device, before);
    if (!status)
        *out = event;
    return status;
}

static void event_destroy(void *user, void *event)
{
    struct device *device = user;
    device->hip->EventDestroy(event);
}

static mh_status event_record(void *user, void *event)
{
    struct stream *stream = user;
    int before;
    mh_status status = amd_enter(stream->device, &before);
    if (status)
        return status;
    status = HIP(stream->device, EventRecord(event, stream->stream));
    amd_leave(stream->device, before);
    return status;
}

static mh_status event_wait(void *user, void *event)
{
    struct stream *stream = user;
    int before;
    mh_status status = amd_enter(stream->device, &before);
    if (status)
        return status;
    status = HIP(stream->device, StreamWaitEvent(stream->stream, event, 0));
    amd_leave(stream->device, before);
    return status;
}

static mh_status event_elapsed(void *user, void *begin, void *end, uint64_t *ns)
{
    struct device *device = user;
    float milliseconds = 0;
    mh_status status = HIP(device, EventElapsedTime(&milliseconds, begin, end));
    *ns = milliseconds > 0 ? (uint64_t)((double)milliseconds * 1e6) : 0;
    return status;
}

const mh_backend_event amd_event_group = {
    sizeof(amd_event_group), event_create, event_destroy, event_record, event_wait, event_elapsed};

static mh_status wrap_event(void *user, uint64_t native, void **out)
{
    struct device *device = user;
    hipEvent_t event = (hipEvent_t)(uintptr_t)native;
    int before;
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    int result = device->hip->EventQuery(event);
    amd_leave(device, before);
    if (result == hipErrorInvalidHandle)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "amd: 0x%llx is no event",
                    (unsigned long long)native);
    if (result != hipSuccess && result != hipErrorNotReady)
        return amd_check(device->instance, result, "hipEventQuery", __FILE__, __LINE__);
    *out = event;
    return MH_OK;
}

static void forget_event(void *user, void *event)
{
    (void)user, (void)event;
}

static mh_status wait_wrapped(void *device, void *event, uint64_t timeout_ns)
{
    return wait_event(device, event, timeout_ns);
}

static mh_status native_event(void *user, void *event, uint64_t *native)
{
    (void)user;
    *native = (uintptr_t)event;
    return MH_OK;
}

const mh_backend_wrap_event amd_wrap_event_group = {sizeof(amd_wrap_event_group), wrap_event,
                                                    forget_event, wait_wrapped, native_event};
