/* stream.c: queues, copies, marks and waits. */
#include <time.h>

#include "amd.h"

mh_status amd_counters_create(struct device *device, void **counters)
{
    mh_status status = HIP(device, Malloc(counters, 4 * COUNTER_COUNT));
    if (!status && (status = HIP(device, Memset(*counters, 0, 4 * COUNTER_COUNT))))
        device->hip->Free(*counters);
    return status;
}

mh_status amd_stream_create(void *user, void **out)
{
    struct device *device = user;
    const mh_core *core = device->core;
    struct stream *stream = core->allocate(core->context, sizeof(*stream));
    if (!stream)
        return MH_OUT_OF_MEMORY;
    stream->device = device;
    int before;
    mh_status status = amd_enter(device, &before);
    if (!status) {
        status = HIP(device, StreamCreateWithFlags(&stream->stream, hipStreamNonBlocking));
        if (!status && (status = amd_counters_create(device, &stream->counters)))
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

void amd_stream_destroy(void *user)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    for (int i = 0; i < MARKS; i++)
        if (stream->events[i])
            device->hip->EventDestroy(stream->events[i]);
    device->hip->Free(stream->counters);
    device->hip->StreamDestroy(stream->stream);
    pthread_mutex_destroy(&stream->lock);
    device->core->deallocate(device->core->context, stream);
}

/* HIP ends a copy that pageable memory has a part in before the call returns. */
mh_status amd_copy(void *user, const mh_copy *c)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    int kind = c->direction == MH_COPY_TO_DEVICE ? hipMemcpyHostToDevice
               : c->direction == MH_COPY_TO_HOST ? hipMemcpyDeviceToHost
                                                 : hipMemcpyDeviceToDevice;
    int before;
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    status = HIP(device,
                 MemcpyAsync((char *)c->to + c->to_offset, (const char *)c->from + c->from_offset,
                             c->size, kind, stream->stream));
    amd_leave(device, before);
    return status;
}

/* ---- ops ---- */

mh_status amd_encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    struct launch launches[MAX_LAUNCHES];
    int before;
    uint32_t count = amd_plan(device, op, scratch, stream->counters, launches);
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    for (uint32_t i = 0; i < count && !status; i++) {
        struct launch *l = &launches[i];
        void *params[] = {l->arguments};
        status = HIP(device, ModuleLaunchKernel(device->functions[l->kernel][l->format],
                                                (unsigned)l->grid[0], (unsigned)l->grid[1],
                                                (unsigned)l->grid[2], l->block, 1, 1, l->lds,
                                                stream->stream, params, NULL));
    }
    amd_leave(device, before);
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
static int wait_event(const struct device *device, hipEvent_t event, uint64_t timeout_ns)
{
    if (timeout_ns == UINT64_MAX)
        return device->hip->EventSynchronize(event);
    uint64_t begin = now_ns();
    for (;;) {
        int result = device->hip->EventQuery(event);
        if (result != hipErrorNotReady || now_ns() - begin >= timeout_ns)
            return result;
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

/* An event that has come round belongs to a later mark: to wait for it is to wait longer, no less.
 */
mh_status amd_wait(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    pthread_mutex_lock(&stream->lock);
    hipEvent_t event = stream->events[sequence % MARKS];
    bool passed = sequence <= stream->passed;
    pthread_mutex_unlock(&stream->lock);
    if (passed)
        return MH_OK;
    int result = wait_event(device, event, timeout_ns);
    if (result == hipErrorNotReady)
        return MH_TIMEOUT;
    if (result == hipSuccess) {
        pthread_mutex_lock(&stream->lock);
        if (sequence > stream->passed)
            stream->passed = sequence;
        pthread_mutex_unlock(&stream->lock);
    }
    return amd_check(device->instance, result, "hipEventSynchronize", __FILE__, __LINE__);
}
