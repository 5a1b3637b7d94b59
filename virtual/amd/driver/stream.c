/* stream.c: streams, events, host functions, values in memory.
 *
 * Time between events is the model's: each command takes what the part's published rates make of
 * its counts (launch.c, copy.c), streams run side by side. It is no measurement of anything. */
#include "driver.h"

#include <stdlib.h>

hipError_t stream_create(struct device *device, unsigned flags, int priority, bool per_thread,
                         hipStream_t *out)
{
    hipStream_t s = calloc(1, sizeof *s);
    if (!s)
        return hipErrorOutOfMemory;
    s->device = device;
    s->flags = flags;
    s->priority = priority > 1 ? 1 : priority < -1 ? -1 : priority;
    s->holders = 1;
    s->per_thread = per_thread;
    s->thread = pthread_self();
    lock();
    s->id = ++driver.next_id;
    s->next = device->streams;
    device->streams = s;
    unlock();
    *out = s;
    return hipSuccess;
}

static hipError_t thread_stream(struct device *device, hipStream_t *out)
{
    lock();
    for (hipStream_t s = device->streams; s; s = s->next)
        if (s->per_thread && pthread_equal(s->thread, pthread_self())) {
            unlock();
            *out = s;
            return hipSuccess;
        }
    unlock();
    return stream_create(device, 0, 0, true, out);
}

hipError_t stream_resolve(struct device *device, hipStream_t handle, hipStream_t *out)
{
    if (handle == hipStreamPerThread)
        return thread_stream(device, out);
    if (!handle || handle == hipStreamLegacy) {
        *out = device->legacy;
        return hipSuccess;
    }
    if (!vc_handle_is(handle, HANDLE_STREAM))
        return hipErrorInvalidHandle;
    *out = handle;
    return (hipError_t)handle->device->error;
}

/* For calls on a stream: its own device counts, the current one is for the null stream. */
#define STREAM(name, handle, stream)                                                               \
    hipStream_t stream;                                                                            \
    do {                                                                                           \
        ENTER_DEVICE(name, device_);                                                               \
        hipError_t resolved_ = stream_resolve(device_, handle, &stream);                           \
        if (resolved_ != hipSuccess)                                                               \
            return done(resolved_);                                                                \
    } while (0)

static hipError_t create(const char *name, hipStream_t *out, unsigned flags, int priority)
{
    ENTER_DEVICE(name, device);
    if (!out || flags & ~(unsigned)hipStreamNonBlocking)
        return done(hipErrorInvalidValue);
    hipError_t result = stream_create(device, flags, priority, false, out);
    if (result == hipSuccess && !vc_handle_add(*out, HANDLE_STREAM))
        result = hipErrorOutOfMemory;
    return done(result);
}

HIP_API hipError_t hipStreamCreate(hipStream_t *out)
{
    return create("hipStreamCreate", out, 0, 0);
}

HIP_API hipError_t hipStreamCreateWithFlags(hipStream_t *out, unsigned flags)
{
    return create("hipStreamCreateWithFlags", out, flags, 0);
}

HIP_API hipError_t hipStreamCreateWithPriority(hipStream_t *out, unsigned flags, int priority)
{
    return create("hipStreamCreateWithPriority", out, flags, priority);
}

/* Waits for what is queued, as HIP does. */
HIP_API hipError_t hipStreamDestroy(hipStream_t handle)
{
    ENTER("hipStreamDestroy");
    if (!vc_handle_is(handle, HANDLE_STREAM))
        return done(hipErrorInvalidHandle);
    vc_handle_remove(handle);
    lock();
    uint64_t last = handle->submitted;
    unlock();
    stream_wait(handle, last);
    lock();
    stream_release(handle);
    unlock();
    return hipSuccess;
}

static hipError_t synchronize(const char *name, hipStream_t handle)
{
    STREAM(name, handle, stream);
    if (stream->capture)
        return done(hipErrorStreamCaptureUnsupported);
    return done(stream_drain(stream));
}

HIP_API hipError_t hipStreamSynchronize(hipStream_t handle)
{
    return synchronize("hipStreamSynchronize", handle);
}

static hipError_t query(const char *name, hipStream_t handle)
{
    STREAM(name, handle, stream);
    if (stream->capture)
        return done(hipErrorStreamCaptureUnsupported);
    lock();
    host_asks();
    bool busy = stream_busy(stream);
    if (!busy)
        host_sees(stream, stream->done);
    hipError_t result = (hipError_t)stream->device->error;
    unlock();
    return done(result != hipSuccess ? result : busy ? hipErrorNotReady : hipSuccess);
}

HIP_API hipError_t hipStreamQuery(hipStream_t handle)
{
    return query("hipStreamQuery", handle);
}

HIP_API hipError_t hipStreamGetPriority(hipStream_t handle, int *priority)
{
    STREAM("hipStreamGetPriority", handle, stream);
    if (!priority)
        return done(hipErrorInvalidValue);
    *priority = stream->priority;
    return hipSuccess;
}

HIP_API hipError_t hipStreamGetFlags(hipStream_t handle, unsigned *flags)
{
    STREAM("hipStreamGetFlags", handle, stream);
    if (!flags)
        return done(hipErrorInvalidValue);
    *flags = stream->flags;
    return hipSuccess;
}

HIP_API int hipGetStreamDeviceId(hipStream_t handle)
{
    hipStream_t stream;
    if (driver_start() != hipSuccess ||
        stream_resolve(device_current(), handle, &stream) != hipSuccess)
        return -1;
    return stream->device->ordinal;
}

/* ---- host functions ---- */

HIP_API hipError_t hipLaunchHostFunc(hipStream_t handle, hipHostFn_t fn, void *user)
{
    STREAM("hipLaunchHostFunc", handle, stream);
    if (!fn)
        return done(hipErrorInvalidValue);
    struct op op = {.kind = OP_HOST, .host = {.fn = fn, .user = user}};
    return done(stream_submit(stream, &op, NULL));
}

HIP_API hipError_t hipStreamAddCallback(hipStream_t handle, hipStreamCallback_t fn, void *user,
                                        unsigned flags)
{
    STREAM("hipStreamAddCallback", handle, stream);
    if (!fn || flags)
        return done(hipErrorInvalidValue);
    if (stream->capture)
        return done(hipErrorStreamCaptureUnsupported);
    struct op op = {.kind = OP_CALLBACK, .host = {.callback = fn, .stream = handle, .user = user}};
    return done(stream_submit(stream, &op, NULL));
}

/* ---- values in memory ---- */

static hipError_t value_op(const char *name, hipStream_t handle, struct op *op)
{
    STREAM(name, handle, stream);
    uint64_t bytes = op->value.wide ? 8 : 4;
    if (op->value.address % bytes || op->value.flags > hipStreamWaitValueNor)
        return done(hipErrorInvalidValue);
    hipError_t result = memory_check(stream->device, op->value.address, bytes, "a value of");
    return done(result == hipSuccess ? stream_submit(stream, op, NULL) : result);
}

#define WAIT_VALUE(name, type, is_wide)                                                            \
    HIP_API hipError_t name(hipStream_t stream, void *at, type value, unsigned flags, type mask)   \
    {                                                                                              \
        struct op op = {.kind = OP_WAIT_VALUE,                                                     \
                        .value = {(uintptr_t)at, value, mask, flags, is_wide}};                    \
        return value_op(#name, stream, &op);                                                       \
    }
WAIT_VALUE(hipStreamWaitValue32, uint32_t, false)
WAIT_VALUE(hipStreamWaitValue64, uint64_t, true)

#define WRITE_VALUE(name, type, is_wide)                                                           \
    HIP_API hipError_t name(hipStream_t stream, void *at, type value, unsigned flags)              \
    {                                                                                              \
        struct op op = {.kind = OP_WRITE_VALUE,                                                    \
                        .value = {(uintptr_t)at, value, ~(uint64_t)0, 0, is_wide}};                \
        return flags ? done(hipErrorInvalidValue) : value_op(#name, stream, &op);                  \
    }
WRITE_VALUE(hipStreamWriteValue32, uint32_t, false)
WRITE_VALUE(hipStreamWriteValue64, uint64_t, true)

/* ---- events ---- */

void event_hold(hipEvent_t event)
{
    event->holders++;
}

void event_release(hipEvent_t event)
{
    if (--event->holders)
        return;
    if (event->stream)
        stream_release(event->stream);
    free(event->nodes);
    free(event);
}

void event_move(hipEvent_t event, hipStream_t stream, uint64_t ticket)
{
    stream_hold(stream);
    if (event->stream)
        stream_release(event->stream);
    event->stream = stream;
    event->ticket = ticket;
    event->recorded = true;
    event->capture = NULL;
}

HIP_API hipError_t hipEventCreateWithFlags(hipEvent_t *out, unsigned flags)
{
    const unsigned scopes = 0xc0000000u; /* of the release: all memory is coherent here */
    ENTER_DEVICE("hipEventCreateWithFlags", device);
    if (!out || (flags & ~scopes) > 7)
        return done(hipErrorInvalidValue);
    if (flags & hipEventInterprocess)
        return done(refuse(hipErrorNotSupported, "hipEventCreate: events between processes"));
    hipEvent_t event = calloc(1, sizeof *event);
    if (!event || !vc_handle_add(event, HANDLE_EVENT)) {
        free(event);
        return done(hipErrorOutOfMemory);
    }
    event->device = device;
    event->flags = flags;
    event->holders = 1;
    *out = event;
    return hipSuccess;
}

HIP_API hipError_t hipEventCreate(hipEvent_t *out)
{
    return hipEventCreateWithFlags(out, 0);
}

HIP_API hipError_t hipEventDestroy(hipEvent_t event)
{
    ENTER("hipEventDestroy");
    if (!vc_handle_is(event, HANDLE_EVENT))
        return done(hipErrorInvalidHandle);
    vc_handle_remove(event);
    lock();
    event_release(event);
    unlock();
    return hipSuccess;
}

HIP_API hipError_t hipEventRecord(hipEvent_t event, hipStream_t handle)
{
    STREAM("hipEventRecord", handle, stream);
    if (!vc_handle_is(event, HANDLE_EVENT) || stream->device != event->device)
        return done(hipErrorInvalidHandle);
    hipError_t result;
    lock();
    if (stream->capture) {
        result = capture_record(stream, event);
    } else {
        struct op op = {.kind = OP_RECORD, .device = stream->device, .event = event};
        event_hold(event);
        result = queue_put(stream, &op, NULL, 0, NULL);
    }
    unlock();
    return done(result);
}

static hipError_t wait_event(const char *name, hipStream_t handle, hipEvent_t event, unsigned flags)
{
    bool handled = false;
    STREAM(name, handle, stream);
    if (!vc_handle_is(event, HANDLE_EVENT) || flags)
        return done(flags ? hipErrorInvalidValue : hipErrorInvalidHandle);
    lock();
    hipError_t result = capture_wait(stream, event, &handled);
    if (!handled && event->recorded) {
        struct op op = {.kind = OP_WAIT, .device = stream->device, .event = event};
        const struct mark after = {event->stream, event->ticket};
        event_hold(event);
        result = queue_put(stream, &op, &after, 1, NULL);
    }
    unlock();
    return done(result);
}

HIP_API hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event, unsigned flags)
{
    return wait_event("hipStreamWaitEvent", stream, event, flags);
}

HIP_API hipError_t hipEventSynchronize(hipEvent_t event)
{
    ENTER("hipEventSynchronize");
    if (!vc_handle_is(event, HANDLE_EVENT))
        return done(hipErrorInvalidHandle);
    lock();
    bool captured = event->capture != NULL;
    hipStream_t stream = event->recorded && !captured ? event->stream : NULL;
    uint64_t ticket = event->ticket;
    if (stream)
        stream_hold(stream); /* the event may move meanwhile */
    unlock();
    if (!stream)
        return done(captured ? hipErrorCapturedEvent : hipSuccess);
    hipError_t result = stream_wait(stream, ticket);
    lock();
    stream_release(stream);
    unlock();
    return done(result);
}

HIP_API hipError_t hipEventQuery(hipEvent_t event)
{
    ENTER("hipEventQuery");
    if (!vc_handle_is(event, HANDLE_EVENT))
        return done(hipErrorInvalidHandle);
    lock();
    host_asks();
    bool reached = !event->recorded || stream_reached(event->stream, event->ticket);
    if (reached && event->recorded && event->stream)
        host_sees(event->stream, event->ticket);
    hipError_t result = (hipError_t)event->device->error;
    unlock();
    return done(result != hipSuccess ? result : reached ? hipSuccess : hipErrorNotReady);
}

HIP_API hipError_t hipEventElapsedTime(float *ms, hipEvent_t begin, hipEvent_t end)
{
    ENTER("hipEventElapsedTime");
    if (!ms)
        return done(hipErrorInvalidValue);
    if (!vc_handle_is(begin, HANDLE_EVENT) || !vc_handle_is(end, HANDLE_EVENT) ||
        begin->flags & hipEventDisableTiming || end->flags & hipEventDisableTiming ||
        !begin->recorded || !end->recorded)
        return done(hipErrorInvalidHandle);
    lock();
    bool reached =
        stream_reached(begin->stream, begin->ticket) && stream_reached(end->stream, end->ticket);
    *ms = (float)((end->time_ns - begin->time_ns) * 1e-6);
    unlock();
    return done(reached ? hipSuccess : hipErrorNotReady);
}

/* ---- the forms for which 0 means the thread's own stream ---- */

static hipStream_t own(hipStream_t handle)
{
    return handle ? handle : hipStreamPerThread;
}

HIP_API hipError_t hipStreamSynchronize_spt(hipStream_t stream)
{
    return synchronize("hipStreamSynchronize", own(stream));
}

HIP_API hipError_t hipStreamQuery_spt(hipStream_t stream)
{
    return query("hipStreamQuery", own(stream));
}

HIP_API hipError_t hipStreamGetPriority_spt(hipStream_t stream, int *priority)
{
    return hipStreamGetPriority(own(stream), priority);
}

HIP_API hipError_t hipStreamGetFlags_spt(hipStream_t stream, unsigned *flags)
{
    return hipStreamGetFlags(own(stream), flags);
}

HIP_API hipError_t hipStreamWaitEvent_spt(hipStream_t stream, hipEvent_t event, unsigned flags)
{
    return wait_event("hipStreamWaitEvent", own(stream), event, flags);
}
