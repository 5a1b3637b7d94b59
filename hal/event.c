#include <time.h>

#include "hal.h"

struct mh_event {
    atomic_uint refs;
    mh_device *device;
    uint32_t generation;
    mh_stream *stream; /* where it was last recorded */
    uint64_t mark;
    void *native; /* the backend's event of the same point; NULL: it has none, or not yet */
    bool passed;
    uint64_t when; /* ns; the host's clock when the point was first seen passed */
};

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

mh_status mh_event_create(mh_device *device, mh_event **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_event_create: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
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
    if (event->native && event->generation == device->generation && hal_is_alive(device->runtime))
        device->table->event->destroy(device->handle, event->native);
    mh_stream_release(event->stream);
    hal_free(device->runtime, event);
    mh_device_release(device);
}

static mh_status poll_event(mh_event *event, uint64_t timeout_ns)
{
    if (event->passed)
        return MH_OK;
    mh_device *device = event->device;
    mh_status status = hal_wait_status(
        device, device->table->wait(event->stream->handle, event->mark, timeout_ns));
    if (!status) {
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
    if (!status && !event->stream)
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
        struct hal_job job = {.awaited = event->stream, .mark = event->mark};
        return hal_stream_hold(stream, &job);
    }
    event->device->stream_waits++;
    return poll_event(event, MH_FOREVER);
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
