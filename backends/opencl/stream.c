/* stream.c: in-order queues. A mark is a marker command; the queue keeps those not yet seen passed.
 */
#include <string.h>
#include <time.h>

#include "opencl.h"

/* Takes over one reference of the queue. */
static mh_status make_stream(struct device *device, cl_command_queue queue, bool wrapped,
                             void **out)
{
    const mh_core *core = device->core;
    struct stream *stream = core->allocate(core->context, sizeof(*stream));
    if (!stream) {
        device->cl->ReleaseCommandQueue(queue);
        return MH_OUT_OF_MEMORY;
    }
    memset(stream, 0, sizeof(*stream));
    stream->device = device;
    stream->queue = queue;
    stream->dirty = stream->wrapped = wrapped;
    pthread_mutex_init(&stream->lock, NULL);
    *out = stream;
    return MH_OK;
}

/* With profiling, so that events have times; without where the device has none. */
cl_command_queue opencl_queue(struct device *device, cl_int *code)
{
    const struct cl_api *cl = device->cl;
    cl_command_queue queue =
        cl->CreateCommandQueue(device->context, device->id, CL_QUEUE_PROFILING_ENABLE, code);
    if (!queue && *code == CL_INVALID_QUEUE_PROPERTIES)
        queue = cl->CreateCommandQueue(device->context, device->id, 0, code);
    return queue;
}

mh_status opencl_stream_create(void *user, void **out)
{
    struct device *device = user;
    cl_int code = 0;
    cl_command_queue queue = opencl_queue(device, &code);
    return queue
               ? make_stream(device, queue, false, out)
               : CL_FAIL(device->core, "clCreateCommandQueue", code, "%s: no queue", device->name);
}

mh_status opencl_stream_of(struct device *device, cl_command_queue queue, void **out)
{
    cl_int code = device->cl->RetainCommandQueue(queue);
    return code ? CL_FAIL(device->core, "clRetainCommandQueue", code, "the queue")
                : make_stream(device, queue, true, out);
}

void opencl_stream_destroy(void *user)
{
    struct stream *stream = user;
    const mh_core *core = stream->device->core;
    for (uint32_t i = 0; i < stream->count; i++)
        stream->device->cl->ReleaseEvent(stream->points[i].event);
    stream->device->cl->ReleaseCommandQueue(stream->queue);
    pthread_mutex_destroy(&stream->lock);
    core->deallocate(core->context, stream->points);
    core->deallocate(core->context, stream);
}

static mh_status copy_whole(struct stream *stream, const mh_copy *c)
{
    const struct cl_api *cl = stream->device->cl;
    const mh_core *core = stream->device->core;
    cl_mem from = (cl_mem)(uintptr_t)c->from, to = c->to;
    cl_int code;
    switch (c->direction) {
    case MH_COPY_TO_DEVICE:
        code = cl->EnqueueWriteBuffer(stream->queue, to, CL_FALSE, c->to_offset, c->size,
                                      (const char *)c->from + c->from_offset, 0, NULL, NULL);
        return code ? CL_FAIL(core, "clEnqueueWriteBuffer", code, "a copy to the device") : MH_OK;
    case MH_COPY_TO_HOST:
        /* Blocking: whoever reads waits next, and a caller that gives up after some other failure
         * must not find its memory written later. */
        code = cl->EnqueueReadBuffer(stream->queue, from, CL_TRUE, c->from_offset, c->size,
                                     (char *)c->to + c->to_offset, 0, NULL, NULL);
        stream->dirty = code || stream->wrapped;
        return code ? CL_FAIL(core, "clEnqueueReadBuffer", code, "a copy to the host") : MH_OK;
    default:
        code = cl->EnqueueCopyBuffer(stream->queue, from, to, c->from_offset, c->to_offset, c->size,
                                     0, NULL, NULL);
        return code ? CL_FAIL(core, "clEnqueueCopyBuffer", code, "a copy on the device") : MH_OK;
    }
}

mh_status opencl_copy(void *user, const mh_copy *c)
{
    struct stream *stream = user;
    stream->dirty = true;
    return opencl_split_copy(stream, c, copy_whole);
}

/* ---- marks; the stream is locked ---- */

static bool has_room(struct stream *stream)
{
    const mh_core *core = stream->device->core;
    if (stream->count < stream->capacity)
        return true;
    uint32_t capacity = stream->capacity ? 2 * stream->capacity : 16;
    struct point *points = core->allocate(core->context, capacity * sizeof(*points));
    if (!points)
        return false;
    if (stream->count)
        memcpy(points, stream->points, stream->count * sizeof(*points));
    core->deallocate(core->context, stream->points);
    stream->points = points;
    stream->capacity = capacity;
    return true;
}

/* CL_COMPLETE, something above it while work is under way, or the error that ended it. */
static cl_int state_of(struct stream *stream, cl_event event)
{
    cl_int state = 0;
    cl_int code = stream->device->cl->GetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS,
                                                   sizeof(state), &state, NULL);
    if (code) /* what cannot be asked for must not be under way */
        stream->device->cl->Finish(stream->queue);
    return code ? code : state;
}

/* Forgets points that are passed. */
static void look(struct stream *stream)
{
    uint32_t done = 0;
    for (; done < stream->count; done++) {
        struct point *p = &stream->points[done];
        cl_int state = state_of(stream, p->event);
        if (state > CL_COMPLETE)
            break;
        if (state < 0 && !stream->error)
            stream->error = CL_FAIL(stream->device->core, "clGetEventInfo", state,
                                    "%s: work of a stream failed", stream->device->name);
        stream->passed = p->sequence;
        stream->device->cl->ReleaseEvent(p->event);
    }
    if (done) {
        stream->count -= done;
        memmove(stream->points, stream->points + done, stream->count * sizeof(struct point));
    }
}

/* A marker behind all that was enqueued, and room for it as a point. */
static mh_status put_marker(struct stream *stream, cl_event *event)
{
    const struct cl_api *cl = stream->device->cl;
    const mh_core *core = stream->device->core;
    mh_status status = has_room(stream) ? MH_OK : MH_OUT_OF_MEMORY;
    *event = NULL;
    cl_int code = status ? 0 : cl->EnqueueMarkerWithWaitList(stream->queue, 0, NULL, event);
    if (code)
        status = CL_FAIL(core, "clEnqueueMarkerWithWaitList", code, "a mark");
    code = status ? 0 : cl->Flush(stream->queue);
    if (code)
        status = CL_FAIL(core, "clFlush", code, "a mark");
    if (status) {
        if (*event)
            cl->ReleaseEvent(*event);
        cl->Finish(stream->queue); /* what cannot be waited for later must not be under way */
    }
    return status;
}

/* The marker is the stream's newest point, and belongs to it. */
static void keep_point(struct stream *stream, cl_event event)
{
    stream->points[stream->count++] = (struct point){++stream->marks, event};
    stream->dirty = stream->wrapped;
}

mh_status opencl_mark(void *user, uint64_t *sequence)
{
    struct stream *stream = user;
    cl_event event;
    mh_status status = MH_OK;
    pthread_mutex_lock(&stream->lock);
    if (stream->count)
        look(stream);
    if (stream->dirty) {
        status = put_marker(stream, &event);
        if (!status)
            keep_point(stream, event);
        *sequence = stream->marks;
    } else { /* no later than the last mark */
        *sequence = ++stream->marks;
        if (stream->count)
            stream->points[stream->count - 1].sequence = *sequence;
        else /* a later point has nothing to do with it */
            stream->passed = *sequence;
    }
    pthread_mutex_unlock(&stream->lock);
    return status;
}

mh_status opencl_marker(struct stream *stream, cl_event *event)
{
    pthread_mutex_lock(&stream->lock);
    mh_status status = put_marker(stream, event);
    if (!status && stream->dirty && !stream->device->cl->RetainEvent(*event))
        keep_point(stream, *event);
    pthread_mutex_unlock(&stream->lock);
    return status;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Is work up to the point under way? Then *event is the first mark at or behind it, retained, or
 * NULL where it cannot be; else *error is what became of it. */
static bool is_pending(struct stream *stream, uint64_t sequence, cl_event *event, mh_status *error)
{
    uint32_t i = 0;
    pthread_mutex_lock(&stream->lock);
    look(stream);
    while (i < stream->count && stream->points[i].sequence < sequence)
        i++;
    bool pending = i < stream->count && sequence > stream->passed;
    *event = pending ? stream->points[i].event : NULL;
    if (pending && stream->device->cl->RetainEvent(*event))
        *event = NULL;
    *error = stream->error;
    pthread_mutex_unlock(&stream->lock);
    return pending;
}

/* OpenCL waits for ever or not at all: a timeout is a wait in growing naps, and so is a wait that
 * the driver refuses. */
mh_status opencl_wait(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct stream *stream = user;
    const struct cl_api *cl = stream->device->cl;
    bool for_ever = timeout_ns == UINT64_MAX;
    uint64_t begin = timeout_ns && !for_ever ? now() : 0;
    long nap = 20000;
    cl_event event;
    mh_status error;
    while (is_pending(stream, sequence, &event, &error)) {
        bool waited = event && for_ever && !cl->WaitForEvents(1, &event);
        if (event)
            cl->ReleaseEvent(event);
        if (waited) /* work that failed is found by look */
            continue;
        if (!for_ever && (!timeout_ns || now() - begin >= timeout_ns))
            return MH_TIMEOUT;
        struct timespec t = {.tv_nsec = nap};
        nanosleep(&t, NULL);
        nap = nap < 500000 ? 2 * nap : 1000000;
    }
    return error;
}
