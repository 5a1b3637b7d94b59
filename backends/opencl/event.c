/* event.c: order between queues of a device, its clock, and gates: queues held by the host. */
#include <time.h>

#include "opencl.h"

/* A point of a queue; NULL until recorded. */
struct event {
    pthread_mutex_t lock;
    cl_event point;
    bool wrapped; /* the embedder's, this one for ever */
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
    cl_event point;
    if (event->wrapped)
        return FAIL(device->core, MH_UNSUPPORTED,
                    "a cl_event is one point for ever: record an event of moehal's own and take "
                    "its native one");
    mh_status status = opencl_marker(stream, &point);
    if (status)
        return status;
    pthread_mutex_lock(&event->lock);
    cl_event before = event->point;
    event->point = point;
    pthread_mutex_unlock(&event->lock);
    if (before)
        device->cl->ReleaseEvent(before);
    return MH_OK;
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

/* ---- the embedder's ---- */

static mh_status wrap_event(void *user, uint64_t native, void **out)
{
    struct device *device = user;
    cl_event point = (cl_event)(uintptr_t)native;
    cl_context context = NULL;
    cl_int code =
        device->cl->GetEventInfo(point, CL_EVENT_CONTEXT, sizeof(context), &context, NULL);
    if (code == CL_INVALID_EVENT)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the handle is no event");
    if (code)
        return CL_FAIL(device->core, "clGetEventInfo", code, "the event");
    if (context != device->context)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the event is another context's");
    struct event *event;
    mh_status status = create_event(device, (void **)&event);
    if (status)
        return status;
    code = device->cl->RetainEvent(point);
    if (code) {
        destroy_event(device, event);
        return CL_FAIL(device->core, "clRetainEvent", code, "the event");
    }
    event->point = point;
    event->wrapped = true;
    *out = event;
    return MH_OK;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* OpenCL has no wait with a limit: polls, with short sleeps. */
static mh_status wait_wrapped(void *user, void *handle, uint64_t timeout_ns)
{
    struct device *device = user;
    struct event *event = handle;
    cl_int state = 0;
    if (timeout_ns == UINT64_MAX)
        device->cl->WaitForEvents(1, &event->point); /* its state says what came of it */
    for (uint64_t begin = now_ns();;) {
        cl_int code = device->cl->GetEventInfo(event->point, CL_EVENT_COMMAND_EXECUTION_STATUS,
                                               sizeof(state), &state, NULL);
        if (code || state <= CL_COMPLETE)
            return !code && !state ? MH_OK
                                   : CL_FAIL(device->core, "clGetEventInfo", code ? code : state,
                                             "what the embedder's event stands for failed");
        if (now_ns() - begin >= timeout_ns)
            return MH_TIMEOUT;
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

static mh_status native_event(void *user, void *handle, uint64_t *native)
{
    (void)user;
    struct event *event = handle;
    pthread_mutex_lock(&event->lock);
    *native = (uintptr_t)event->point;
    pthread_mutex_unlock(&event->lock);
    return MH_OK;
}

const mh_backend_wrap_event opencl_wrap_event_group = {
    sizeof(opencl_wrap_event_group), wrap_event, destroy_event, wait_wrapped, native_event,
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
