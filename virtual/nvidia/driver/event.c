/* event.c: events, and time between them.
 *
 * Time is the model's: each command takes what the device's published rates make of its counts
 * (op.c), streams run side by side. It is no measurement, of this machine or of any other. */
#include "driver.h"

#include <stdlib.h>

void event_hold(CUevent event)
{
    event->holders++;
}

void event_release(CUevent event)
{
    if (--event->holders)
        return;
    if (event->stream)
        stream_release(event->stream);
    free(event->nodes);
    context_release(event->context);
    free(event);
}

CU_API CUresult cuEventCreate(CUevent *out, unsigned flags)
{
    ENTER_CONTEXT("cuEventCreate", context);
    if (!out || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & CU_EVENT_INTERPROCESS)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuEventCreate: events between processes");
    CUevent event = calloc(1, sizeof *event);
    if (!event || !vc_handle_add(event, HANDLE_EVENT)) {
        free(event);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    event->context = context;
    event->flags = flags;
    event->holders = 1;
    lock();
    context->holders++;
    unlock();
    *out = event;
    return CUDA_SUCCESS;
}

CU_API CUresult cuEventDestroy_v2(CUevent event)
{
    ENTER("cuEventDestroy");
    if (!vc_handle_is(event, HANDLE_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    vc_handle_remove(event);
    lock();
    event->destroyed = true;
    event_release(event);
    unlock();
    return CUDA_SUCCESS;
}

static CUresult enter(const char *name, CUevent event, CUstream handle, bool per_thread,
                      CUstream *stream)
{
    ENTER_CONTEXT(name, context);
    if (!vc_handle_is(event, HANDLE_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    return stream_resolve(context, handle, per_thread, stream);
}

static CUresult record(CUevent event, CUstream handle, unsigned flags, bool per_thread)
{
    CUstream stream;
    CUresult result = enter("cuEventRecord", event, handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    if (stream->context != event->context)
        return CUDA_ERROR_INVALID_HANDLE;
    lock();
    if (stream->capture && !flags) {
        result = capture_record(stream, event);
    } else {
        struct op op = {.kind = OP_RECORD, .context = stream->context, .event = event};
        event_hold(event);
        if (stream->capture) {
            result = capture_submit(stream, &op);
        } else {
            event->capture = NULL;
            result = queue_put(stream, &op, NULL, NULL);
        }
    }
    unlock();
    return result;
}

CU_API CUresult cuEventRecord(CUevent event, CUstream stream)
{
    return record(event, stream, 0, false);
}

CU_API CUresult cuEventRecord_ptsz(CUevent event, CUstream stream)
{
    return record(event, stream, 0, true);
}

CU_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags)
{
    return record(event, stream, flags, false);
}

CU_API CUresult cuEventRecordWithFlags_ptsz(CUevent event, CUstream stream, unsigned flags)
{
    return record(event, stream, flags, true);
}

static CUresult wait_event(CUstream handle, CUevent event, unsigned flags, bool per_thread)
{
    CUstream stream;
    bool handled = false;
    CUresult result = enter("cuStreamWaitEvent", event, handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (flags > 1)
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    result = capture_wait(stream, event, flags, &handled);
    if (!handled && event->recorded) {
        struct op op = {.kind = OP_WAIT, .context = stream->context, .event = event};
        const struct mark after = {event->stream, event->ticket};
        event_hold(event);
        result = queue_put(stream, &op, &after, NULL);
    }
    unlock();
    return result;
}

CU_API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    return wait_event(stream, event, flags, false);
}

CU_API CUresult cuStreamWaitEvent_ptsz(CUstream stream, CUevent event, unsigned flags)
{
    return wait_event(stream, event, flags, true);
}

static CUresult host_enter(const char *name, CUevent event)
{
    ENTER(name);
    if (!vc_handle_is(event, HANDLE_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    return (CUresult)event->context->error;
}

CU_API CUresult cuEventQuery(CUevent event)
{
    CUresult result = host_enter("cuEventQuery", event);
    if (result != CUDA_SUCCESS)
        return result;
    lock();
    host_asks();
    bool done = !event->recorded || stream_reached(event->stream, event->ticket);
    if (done && event->recorded)
        host_sees(event->stream, event->ticket);
    result = (CUresult)event->context->error; /* after which nothing more runs, and all is reached */
    unlock();
    return result != CUDA_SUCCESS ? result : done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CU_API CUresult cuEventSynchronize(CUevent event)
{
    CUresult result = host_enter("cuEventSynchronize", event);
    if (result != CUDA_SUCCESS)
        return result;
    lock();
    uint64_t ticket = event->ticket;
    CUstream stream = event->recorded ? event->stream : NULL;
    if (stream) {
        stream_hold(stream);
        if (!stream_reached(stream, ticket))
            count_add((unsigned)event->context->device->ordinal, COUNT_SYNCS, 1);
        host_asks();
        while (!stream_reached(stream, ticket))
            pthread_cond_wait(&driver.work, &driver.lock);
        host_sees(stream, ticket);
        stream_release(stream);
    }
    result = (CUresult)event->context->error;
    unlock();
    return result;
}

static CUresult elapsed(float *ms, CUevent start, CUevent end)
{
    ENTER("cuEventElapsedTime");
    if (!ms)
        return CUDA_ERROR_INVALID_VALUE;
    if (!vc_handle_is(start, HANDLE_EVENT) || !vc_handle_is(end, HANDLE_EVENT) ||
        start->flags & CU_EVENT_DISABLE_TIMING || end->flags & CU_EVENT_DISABLE_TIMING ||
        start->context != end->context)
        return CUDA_ERROR_INVALID_HANDLE;
    lock();
    CUresult result = CUDA_SUCCESS;
    if (!start->recorded || !end->recorded)
        result = CUDA_ERROR_INVALID_HANDLE;
    else if (!stream_reached(start->stream, start->ticket) ||
             !stream_reached(end->stream, end->ticket))
        result = CUDA_ERROR_NOT_READY;
    else
        *ms = (float)((end->time_ns - start->time_ns) / 1e6);
    unlock();
    return result;
}

CU_API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    return elapsed(ms, start, end);
}

CU_API CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end)
{
    return elapsed(ms, start, end);
}
