#include <time.h>

#include "hal.h"

struct mh_event {
    atomic_uint refs;
    mh_device *device;
    uint32_t generation;
    mh_stream *stream; /* where it was last recorded */
    uint64_t mark;
    void *native; /* the backend's event of the same point; NULL: it has none, or not yet */
    /* The embedder's: its point is what `native` says and nobody here knows. stream and mark are
     * then of one of our own, for whoever must wait for the point elsewhere. */
    bool wrapped;
    bool passed;
    uint64_t when; /* ns; the host's clock when the point was first seen passed */
};

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static mh_status make_event(mh_device *device, mh_event **out)
{
    mh_status status = hal_check_device(device, device->generation, "device");
    if (status)
        return status;
    mh_event *event = hal_alloc(device->runtime, sizeof(*event));
    if (!event)
        return MH_OUT_OF_MEMORY;
    atomic_init(&event->refs, 1);
    event->device = mh_device_retain(device);
    event->generation = device->generation;
    *out = event;
    return MH_OK;
}

mh_status mh_event_create(mh_device *device, mh_event **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_event_create: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    return make_event(device, out);
}

mh_status mh_event_wrap(mh_device *device, uint64_t native, mh_event **out)
{
    if (!device || !native || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_event_wrap: %s",
                       !device   ? "device is NULL"
                       : !native ? "native is 0"
                                 : "out is NULL");
    *out = NULL;
    const mh_backend_wrap_event *group = device->table->wrap_event;
    if (!group)
        return hal_fail(device->runtime, MH_UNSUPPORTED,
                        "mh_event_wrap: device %s has no events of a vendor's API", device->uri);
    mh_event *event;
    mh_status status = make_event(device, &event);
    if (status)
        return status;
    status = hal_backend_status(device, group->event(device->handle, native, &event->native));
    event->wrapped = !status;
    if (status)
        mh_event_release(event);
    else
        *out = event;
    return status;
}

mh_event *mh_event_retain(mh_event *event)
{
    if (event)
        atomic_fetch_add_explicit(&event->refs, 1, memory_order_relaxed);
    return event;
}

void mh_event_release(mh_event *event)
{
    if (!event || atomic_fetch_sub_explicit(&event->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_device *device = event->device;
    mh_stream_release(event->stream); /* one of our own may be waiting for `native` */
    if (event->native && event->generation == device->generation && hal_is_alive(device->runtime)) {
        if (event->wrapped)
            device->table->wrap_event->forget(device->handle, event->native);
        else
            device->table->event->destroy(device->handle, event->native);
    }
    hal_free(device->runtime, event);
    mh_device_release(device);
}

static mh_status poll_event(mh_event *event, uint64_t timeout_ns)
{
    mh_device *device = event->device;
    mh_status status = MH_OK;
    if (event->wrapped) { /* asked every time: the embedder may have recorded it again */
        status = hal_backend_status(
            device, device->table->wrap_event->wait(device->handle, event->native, timeout_ns));
        event->passed = false;
    } else if (!event->passed) {
        status = hal_wait_status(
            device, device->table->wait(event->stream->handle, event->mark, timeout_ns));
    }
    if (!status && !event->passed) {
        event->passed = true;
        event->when = now();
    }
    return status;
}

static mh_status check(mh_event *event, const char *function)
{
    if (!event)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: event is NULL", function);
    mh_status status = hal_check_device(event->device, event->generation, "event");
    if (!status && !event->wrapped && !event->stream)
        return hal_fail(event->device->runtime, MH_WRONG_STATE, "%s: the event was never recorded",
                        function);
    return status;
}

static mh_status record_native(mh_event *event, mh_stream *stream)
{
    mh_device *device = event->device;
    const mh_backend_event *group = device->table->event;
    mh_status status = MH_OK;
    if (!group)
        return MH_OK;
    if (!event->native)
        status = group->create(device->handle, &event->native);
    if (!status)
        status = group->record(stream->handle, event->native);
    return hal_backend_status(device, status);
}

mh_status mh_event_record(mh_event *event, mh_stream *stream)
{
    if (!event)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_event_record: event is NULL");
    mh_status status = hal_stream_check(stream);
    if (!status)
        status = hal_check_device(event->device, event->generation, "event");
    if (status)
        return status;
    if (stream->encoder.device != event->device)
        return hal_fail(event->device->runtime, MH_INVALID_ARGUMENT,
                        "mh_event_record: the event is on %s, the stream on %s", event->device->uri,
                        stream->encoder.device->uri);
    uint64_t mark;
    status = record_native(event, stream);
    if (event->wrapped)
        return status;
    if (!status)
        status =
            hal_backend_status(event->device, event->device->table->mark(stream->handle, &mark));
    if (status)
        return status;
    mh_stream_retain(stream);
    mh_stream_release(event->stream);
    event->stream = stream;
    event->mark = mark;
    event->passed = false;
    status = poll_event(event, 0);
    return status == MH_TIMEOUT ? MH_OK : status;
}

mh_status mh_event_wait(mh_event *event, uint64_t timeout_ns)
{
    mh_status status = check(event, "mh_event_wait");
    if (!status)
        status = poll_event(event, timeout_ns);
    if (status == MH_TIMEOUT && timeout_ns)
        mh_fail(MH_TIMEOUT, "mh_event_wait: not done after %llu ns",
                (unsigned long long)timeout_ns);
    return status;
}

/* A wrapped event's point as one of a stream: what the embedder records there later does not move
 * it. */
static mh_status take_point(mh_event *event)
{
    mh_device *device = event->device;
    mh_status status = event->stream ? MH_OK : mh_stream_create(device, &event->stream);
    if (!status)
        status = hal_backend_status(
            device, device->table->event->wait(event->stream->handle, event->native));
    if (!status)
        status =
            hal_backend_status(device, device->table->mark(event->stream->handle, &event->mark));
    return status;
}

mh_status mh_stream_wait_event(mh_stream *stream, mh_event *event)
{
    mh_status status = hal_stream_check(stream);
    if (!status)
        status = check(event, "mh_stream_wait_event");
    if (status)
        return status;
    if (stream->encoder.device->runtime != event->device->runtime)
        return hal_fail(event->device->runtime, MH_INVALID_ARGUMENT,
                        "mh_stream_wait_event: the event and the stream are of two runtimes");
    if (stream == event->stream)
        return MH_OK; /* in order already */
    status = poll_event(event, 0);
    if (status != MH_TIMEOUT)
        return status;
    mh_device *device = stream->encoder.device;
    if (event->native && device == event->device) {
        device->native_waits++;
        stream->last = atomic_fetch_add(&device->sequence, 1) + 1;
        return hal_backend_status(device,
                                  device->table->event->wait(stream->handle, event->native));
    }
    if (device->table->gate) {
        status = event->wrapped ? take_point(event) : MH_OK;
        if (status)
            return status;
        struct hal_job job = {.awaited = event->stream, .mark = event->mark};
        return hal_stream_hold(stream, &job);
    }
    event->device->stream_waits++;
    return poll_event(event, MH_FOREVER);
}

mh_status mh_event_native(mh_event *event, uint64_t *native)
{
    mh_status status = check(event, "mh_event_native");
    if (!status && !native)
        status = mh_fail(MH_INVALID_ARGUMENT, "mh_event_native: native is NULL");
    if (status)
        return status;
    mh_device *device = event->device;
    const mh_backend_wrap_event *group = device->table->wrap_event;
    if (!group)
        return hal_fail(device->runtime, MH_UNSUPPORTED,
                        "mh_event_native: device %s has no events of a vendor's API", device->uri);
    return hal_backend_status(device, group->native(device->handle, event->native, native));
}

mh_status mh_event_elapsed(mh_event *begin, mh_event *end, uint64_t *ns)
{
    mh_status status = check(begin, "mh_event_elapsed: begin");
    if (!status)
        status = check(end, "mh_event_elapsed: end");
    if (status)
        return status;
    if (!ns || !begin->passed || !end->passed)
        return hal_fail(begin->device->runtime, ns ? MH_WRONG_STATE : MH_INVALID_ARGUMENT,
                        "mh_event_elapsed: %s",
                        ns ? "both events must have been waited for" : "ns is NULL");
    if (begin->native && end->native && begin->device == end->device)
        return hal_backend_status(
            begin->device, begin->device->table->event->elapsed(begin->device->handle,
                                                                begin->native, end->native, ns));
    *ns = end->when > begin->when ? end->when - begin->when : 0;
    return MH_OK;
}
