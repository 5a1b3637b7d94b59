/* stream.c: queues, copies, marks and waits, events. */
#include <string.h>
#include <time.h>

#include "nvidia.h"

/* ---- streams ---- */

mh_status nv_counters_create(struct device *device, CUdeviceptr *counters)
{
    mh_status status = CU(device, MemAlloc(counters, 4 * COUNTER_COUNT));
    if (!status && (status = CU(device, MemsetD32(*counters, 0, COUNTER_COUNT))))
        device->cu->MemFree(*counters);
    return status;
}

mh_status nv_stream_make(struct device *device, CUstream native, bool wrapped, void **out)
{
    const mh_core *core = device->core;
    struct stream *stream = core->allocate(core->context, sizeof(*stream));
    if (!stream)
        return MH_OUT_OF_MEMORY;
    stream->device = device;
    stream->stream = native;
    stream->wrapped = wrapped;
    mh_status status = nv_enter(device);
    if (!status) {
        if (!wrapped)
            status = CU(device, StreamCreate(&stream->stream, CU_STREAM_NON_BLOCKING));
        if (!status && (status = nv_counters_create(device, &stream->counters)) && !wrapped)
            device->cu->StreamDestroy(stream->stream);
        nv_leave(device);
    }
    if (status) {
        core->deallocate(core->context, stream);
        return status;
    }
    pthread_mutex_init(&stream->lock, NULL);
    *out = stream;
    return MH_OK;
}

mh_status nv_stream_create(void *device, void **out)
{
    return nv_stream_make(device, NULL, false, out);
}

void nv_stream_destroy(void *user)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    const mh_core *core = device->core;
    if (!nv_enter(device)) {
        for (uint32_t i = 0; i < stream->mark_count; i++)
            device->cu->EventDestroy(stream->marks[i].event);
        for (uint32_t i = 0; i < stream->spare_count; i++)
            device->cu->EventDestroy(stream->spare[i]);
        device->cu->MemFree(stream->counters);
        if (!stream->wrapped)
            device->cu->StreamDestroy(stream->stream);
        nv_leave(device);
    }
    pthread_mutex_destroy(&stream->lock);
    if (stream->marks)
        core->deallocate(core->context, stream->marks);
    if (stream->spare)
        core->deallocate(core->context, stream->spare);
    core->deallocate(core->context, stream);
}

mh_status nv_copy(void *user, const mh_copy *c)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    CUdeviceptr to = (CUdeviceptr)(uintptr_t)c->to + c->to_offset;
    CUdeviceptr from = (CUdeviceptr)(uintptr_t)c->from + c->from_offset;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    if (c->direction == MH_COPY_TO_DEVICE)
        status =
            nv_upload(device, to, (const char *)c->from + c->from_offset, c->size, stream->stream);
    else if (c->direction == MH_COPY_TO_HOST)
        status = CU(device,
                    MemcpyDtoHAsync((char *)c->to + c->to_offset, from, c->size, stream->stream));
    else
        status = CU(device, MemcpyDtoDAsync(to, from, c->size, stream->stream));
    nv_leave(device);
    return status;
}

/* ---- marks: a driver's event each, kept until it has been seen passed ---- */

/* Room for one more at the end of an array. */
static bool grow(const mh_core *core, void **array, uint32_t *room, uint32_t count, size_t size)
{
    if (count < *room)
        return true;
    uint32_t more = *room ? 2 * *room : 16;
    void *bigger = core->allocate(core->context, more * size);
    if (!bigger)
        return false;
    if (count)
        memcpy(bigger, *array, count * size);
    if (*array)
        core->deallocate(core->context, *array);
    *array = bigger;
    *room = more;
    return true;
}

/* Events of marks up to `passed` that nobody waits for become spare. Locked. */
static void recycle(struct stream *stream)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < stream->mark_count; i++) {
        struct mark mark = stream->marks[i];
        if (mark.sequence <= stream->passed && !mark.waiters &&
            stream->spare_count < stream->spare_room)
            stream->spare[stream->spare_count++] = mark.event;
        else
            stream->marks[kept++] = mark;
    }
    stream->mark_count = kept;
}

/* Looks at the oldest marks, so that a stream nobody waits for does not gather events. Locked. */
static void look_for_passed(struct stream *stream)
{
    for (uint32_t i = 0; i < stream->mark_count; i++) {
        if (stream->marks[i].sequence <= stream->passed)
            continue;
        if (stream->device->cu->EventQuery(stream->marks[i].event) != CUDA_SUCCESS)
            break;
        stream->passed = stream->marks[i].sequence;
    }
    recycle(stream);
}

static mh_status mark_locked(struct stream *stream, uint64_t *sequence)
{
    struct device *device = stream->device;
    mh_status status = MH_OK;
    CUevent event;
    if (stream->mark_count >= 16)
        look_for_passed(stream);
    if (!grow(device->core, (void **)&stream->marks, &stream->mark_room, stream->mark_count,
              sizeof(*stream->marks)) ||
        !grow(device->core, (void **)&stream->spare, &stream->spare_room,
              stream->spare_count + stream->mark_count, sizeof(*stream->spare)))
        return MH_OUT_OF_MEMORY;
    if (stream->spare_count)
        event = stream->spare[--stream->spare_count];
    else
        status = CU(device, EventCreate(&event, CU_EVENT_NO_TIMING));
    if (status)
        return status;
    status = CU(device, EventRecord(event, stream->stream));
    if (status) {
        device->cu->EventDestroy(event);
        return status;
    }
    *sequence = ++stream->last;
    stream->marks[stream->mark_count++] = (struct mark){*sequence, event, 0};
    return MH_OK;
}

mh_status nv_mark(void *user, uint64_t *sequence)
{
    struct stream *stream = user;
    mh_status status = nv_enter(stream->device);
    if (status)
        return status;
    pthread_mutex_lock(&stream->lock);
    status = mark_locked(stream, sequence);
    pthread_mutex_unlock(&stream->lock);
    nv_leave(stream->device);
    return status;
}

static struct mark *find_mark(struct stream *stream, uint64_t sequence)
{
    for (uint32_t i = 0; i < stream->mark_count; i++)
        if (stream->marks[i].sequence >= sequence)
            return &stream->marks[i];
    return NULL;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The driver has no wait with a limit: polls, first eagerly, then with short sleeps. */
static CUresult wait_event(struct device *device, CUevent event, uint64_t timeout_ns)
{
    if (timeout_ns == UINT64_MAX)
        return device->cu->EventSynchronize(event);
    uint64_t begin = now_ns();
    for (;;) {
        CUresult result = device->cu->EventQuery(event);
        uint64_t spent = now_ns() - begin;
        if (result != CUDA_ERROR_NOT_READY || spent >= timeout_ns)
            return result;
        if (spent > 100000)
            nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

mh_status nv_wait(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct stream *stream = user;
    struct device *device = stream->device;
    pthread_mutex_lock(&stream->lock);
    struct mark *mark = sequence > stream->passed ? find_mark(stream, sequence) : NULL;
    if (!mark) {
        pthread_mutex_unlock(&stream->lock);
        return MH_OK;
    }
    uint64_t reached = mark->sequence;
    CUevent event = mark->event;
    mark->waiters++;
    pthread_mutex_unlock(&stream->lock);

    CUresult result = CUDA_ERROR_NOT_READY;
    mh_status status = nv_enter(device);
    if (!status) {
        result = wait_event(device, event, timeout_ns);
        nv_leave(device);
    }
    pthread_mutex_lock(&stream->lock);
    find_mark(stream, reached)->waiters--;
    if (!status && result == CUDA_SUCCESS && reached > stream->passed)
        stream->passed = reached;
    recycle(stream);
    pthread_mutex_unlock(&stream->lock);
    if (!status && result == CUDA_ERROR_NOT_READY)
        return MH_TIMEOUT;
    return status ? status
                  : nv_check(device->instance, result, "cuEventSynchronize", __FILE__, __LINE__);
}

/* ---- ops ---- */

static mh_status launch_kernel(struct stream *stream, CUfunction function, const uint32_t grid[3],
                               const uint32_t block[3], uint32_t shared, void **params)
{
    return CU(stream->device, LaunchKernel(function, grid[0], grid[1], grid[2], block[0], block[1],
                                           block[2], shared, stream->stream, params, NULL));
}

static mh_status encode_plan(struct stream *stream, const mh_op *op, const mh_scratch *scratch)
{
    struct launch launches[MAX_LAUNCHES];
    struct launch_memory memory = {(CUdeviceptr)(uintptr_t)scratch->handle + scratch->offset,
                                   stream->counters};
    uint32_t count = nv_plan(stream->device, op, &memory, launches);
    mh_status status = MH_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        struct launch *l = &launches[i];
        void *params[MAX_ARGS];
        CUfunction function;
        for (uint32_t j = 0; j < l->arg_count; j++)
            params[j] = &l->args[j];
        status = nv_function(stream->device, l->kernel, l->format, &function);
        if (!status)
            status = launch_kernel(stream, function, l->grid, (uint32_t[]){l->block, 1, 1},
                                   l->shared, params);
    }
    return status;
}

mh_status nv_encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct stream *stream = user;
    mh_status status = nv_enter(stream->device);
    if (status)
        return status;
    if (op->op == MH_OP_KERNEL) {
        const mh_op_kernel *o = (const void *)op;
        struct user_launch l;
        nv_user_launch(o, &l);
        status = launch_kernel(stream, l.function, o->grid, o->block, (uint32_t)o->shared_bytes,
                               l.params);
    } else {
        status = encode_plan(stream, op, scratch);
    }
    nv_leave(stream->device);
    return status;
}

/* ---- events: a driver's each, ours or the embedder's ---- */

static mh_status event_create(void *user, void **out)
{
    struct device *device = user;
    CUevent event;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    status = CU(device, EventCreate(&event, 0));
    nv_leave(device);
    if (!status)
        *out = event;
    return status;
}

static void event_destroy(void *user, void *event)
{
    struct device *device = user;
    if (nv_enter(device))
        return;
    device->cu->EventDestroy(event);
    nv_leave(device);
}

static mh_status event_record(void *user, void *event)
{
    struct stream *stream = user;
    mh_status status = nv_enter(stream->device);
    if (status)
        return status;
    status = CU(stream->device, EventRecord(event, stream->stream));
    nv_leave(stream->device);
    return status;
}

static mh_status event_wait(void *user, void *event)
{
    struct stream *stream = user;
    mh_status status = nv_enter(stream->device);
    if (status)
        return status;
    status = CU(stream->device, StreamWaitEvent(stream->stream, event, 0));
    nv_leave(stream->device);
    return status;
}

static mh_status event_elapsed(void *user, void *begin, void *end, uint64_t *ns)
{
    struct device *device = user;
    float milliseconds = 0;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    status = CU(device, EventElapsedTime(&milliseconds, begin, end));
    nv_leave(device);
    *ns = milliseconds > 0 ? (uint64_t)((double)milliseconds * 1e6) : 0;
    return status;
}

const mh_backend_event nv_event_group = {sizeof(nv_event_group), event_create, event_destroy,
                                         event_record,           event_wait,   event_elapsed};

static mh_status wrap_event(void *user, uint64_t native, void **out)
{
    struct device *device = user;
    CUevent event = (CUevent)(uintptr_t)native;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    CUresult result = device->cu->EventQuery(event);
    nv_leave(device);
    if (result == CUDA_ERROR_INVALID_HANDLE)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "nvidia: 0x%llx is no event",
                    (unsigned long long)native);
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY)
        return nv_check(device->instance, result, "cuEventQuery", __FILE__, __LINE__);
    *out = event;
    return MH_OK;
}

static void forget_event(void *user, void *event)
{
    (void)user, (void)event;
}

static mh_status wait_wrapped(void *user, void *event, uint64_t timeout_ns)
{
    struct device *device = user;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    CUresult result = wait_event(device, event, timeout_ns);
    nv_leave(device);
    if (result == CUDA_ERROR_NOT_READY)
        return MH_TIMEOUT;
    return nv_check(device->instance, result, "cuEventSynchronize", __FILE__, __LINE__);
}

static mh_status native_event(void *user, void *event, uint64_t *native)
{
    (void)user;
    *native = (uintptr_t)event;
    return MH_OK;
}

const mh_backend_wrap_event nv_wrap_event_group = {sizeof(nv_wrap_event_group), wrap_event,
                                                   forget_event, wait_wrapped, native_event};
