/* event.c: order between queues of a device, its clock, and gates: queues held by the host. */
#include "opencl.h"

/* A point of a queue; NULL until recorded. */
struct event {
    pthread_mutex_t lock;
    cl_event point;
};

/* The point, retained, or NULL. */
static cl_event point_of(struct device *device, struct event *event)
{
    pthread_mutex_lock(&event->lock);
    cl_event point = event->point;
    if (point && device->cl->RetainEvent(point))
        point = NULL;
    pthread_mutex_unlock(&event->lock);
    return point;
}

static mh_status create_event(void *user, void **out)
{
    const mh_core *core = ((struct device *)user)->core;
    struct event *event = core->allocate(core->context, sizeof(*event));
    if (!event)
        return MH_OUT_OF_MEMORY;
    pthread_mutex_init(&event->lock, NULL);
    event->point = NULL;
    *out = event;
    return MH_OK;
}

static void destroy_event(void *user, void *handle)
{
    struct device *device = user;
    struct event *event = handle;
    if (event->point)
        device->cl->ReleaseEvent(event->point);
    pthread_mutex_destroy(&event->lock);
    device->core->deallocate(device->core->context, event);
}

static mh_status record(void *user, void *handle)
{
    struct stream *stream = user;
    struct event *event = handle;
    struct device *device = stream->device;
    cl_event point = NULL;
    cl_int code = device->cl->EnqueueMarkerWithWaitList(stream->queue, 0, NULL, &point);
    if (code)
        return CL_FAIL(device->core, "clEnqueueMarkerWithWaitList", code, "an event");
    code = device->cl->Flush(stream->queue); /* others wait for it */
    pthread_mutex_lock(&event->lock);
    cl_event before = event->point;
    event->point = point;
    pthread_mutex_unlock(&event->lock);
    if (before)
        device->cl->ReleaseEvent(before);
    return code ? CL_FAIL(device->core, "clFlush", code, "an event") : MH_OK;
}

static mh_status wait_event(void *user, void *handle)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    cl_event point = point_of(device, handle);
    stream->dirty = true;
    if (!point)
        return MH_OK;
    cl_int code = device->cl->EnqueueBarrierWithWaitList(stream->queue, 1, &point, NULL);
    device->cl->ReleaseEvent(point);
    return code ? CL_FAIL(device->core, "clEnqueueBarrierWithWaitList", code, "a wait") : MH_OK;
}

static cl_int time_of(struct device *device, struct event *event, cl_ulong *ns)
{
    cl_event point = point_of(device, event);
    if (!point)
        return CL_INVALID_EVENT;
    /* The work before it is done, as the core knows; the point itself may be a moment behind. */
    cl_int code = device->cl->WaitForEvents(1, &point);
    if (!code)
        code = device->cl->GetEventProfilingInfo(point, CL_PROFILING_COMMAND_END, sizeof(*ns), ns,
                                                 NULL);
    device->cl->ReleaseEvent(point);
    return code;
}

static mh_status elapsed(void *user, void *begin, void *end, uint64_t *ns)
{
    struct device *device = user;
    cl_ulong from = 0, to = 0;
    cl_int code = time_of(device, begin, &from);
    if (!code)
        code = time_of(device, end, &to);
    if (code)
        return CL_FAIL(device->core, "clGetEventProfilingInfo", code, "the time between events");
    *ns = to > from ? to - from : 0;
    return MH_OK;
}

const mh_backend_event opencl_event_group = {
    sizeof(opencl_event_group), create_event, destroy_event, record, wait_event, elapsed,
};

/* ---- gates: user events, released when the queues they held have passed ---- */

static mh_status create_gate(void *user, void **out)
{
    struct device *device = user;
    cl_int code;
    *out = device->cl->CreateUserEvent(device->context, &code);
    return *out ? MH_OK : CL_FAIL(device->core, "clCreateUserEvent", code, "a gate");
}

static mh_status hold(void *user, void *gate)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    cl_event event = gate;
    stream->dirty = true;
    cl_int code = device->cl->EnqueueBarrierWithWaitList(stream->queue, 1, &event, NULL);
    if (!code)
        code = device->cl->Flush(stream->queue);
    return code ? CL_FAIL(device->core, "clEnqueueBarrierWithWaitList", code, "a gate") : MH_OK;
}

static void open_gate(void *user, void *gate)
{
    ((struct device *)user)->cl->SetUserEventStatus(gate, CL_COMPLETE);
}

static void destroy_gate(void *user, void *gate)
{
    ((struct device *)user)->cl->ReleaseEvent(gate);
}

const mh_backend_gate opencl_gate_group = {
    sizeof(opencl_gate_group), create_gate, hold, open_gate, destroy_gate,
};
