/* stream.c: streams, events, host functions, values in memory. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_PRIORITY = 0, GREATEST_PRIORITY = -5 };

static CUresult stream_create(CUcontext context, unsigned flags, int priority, bool per_thread,
                              CUstream *out)
{
    CUstream s = calloc(1, sizeof *s);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->context = context;
    s->flags = flags;
    s->priority = priority > LEAST_PRIORITY      ? LEAST_PRIORITY
                  : priority < GREATEST_PRIORITY ? GREATEST_PRIORITY
                                                 : priority;
    s->holders = 1;
    s->per_thread = per_thread;
    s->thread = pthread_self();
    lock();
    s->id = ++driver.next_id;
    context->holders++;
    s->next = context->streams;
    context->streams = s;
    unlock();
    *out = s;
    return CUDA_SUCCESS;
}

static CUresult thread_stream(CUcontext context, CUstream *out)
{
    lock();
    for (CUstream s = context->streams; s; s = s->next)
        if (s->per_thread && pthread_equal(s->thread, pthread_self())) {
            unlock();
            *out = s;
            return CUDA_SUCCESS;
        }
    unlock();
    return stream_create(context, 0, 0, true, out);
}

CUresult stream_resolve(CUcontext context, CUstream handle, bool per_thread, CUstream *out)
{
    if (!handle)
        handle = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
    if (handle == CU_STREAM_PER_THREAD)
        return thread_stream(context, out);
    if (handle == CU_STREAM_LEGACY) {
        *out = context->legacy;
        return CUDA_SUCCESS;
    }
    if (!vc_handle_is(handle, HANDLE_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    *out = handle;
    return (CUresult)handle->context->error;
}

/* For calls on a stream: its own context counts, the current one is for the default streams. */
static CUresult enter_stream(const char *name, CUstream handle, bool per_thread, CUstream *out)
{
    ENTER_CONTEXT(name, context);
    return stream_resolve(context, handle, per_thread, out);
}

#define STREAM(name, handle, stream)                                                               \
    CUstream stream;                                                                               \
    do {                                                                                           \
        CUresult entered_ = enter_stream(name, handle, per_thread, &stream);                       \
        if (entered_ != CUDA_SUCCESS)                                                              \
            return entered_;                                                                       \
    } while (0)

/* Two exported functions for one: with the legacy default stream, and with the thread's. */
#define PAIR(name, ptsz, params, expression)                                                       \
    CU_API CUresult name params                                                                    \
    {                                                                                              \
        const bool per_thread = false;                                                             \
        return expression;                                                                         \
    }                                                                                              \
    CU_API CUresult ptsz params                                                                    \
    {                                                                                              \
        const bool per_thread = true;                                                              \
        return expression;                                                                         \
    }

static CUresult create(const char *name, CUstream *out, unsigned flags, int priority)
{
    ENTER_CONTEXT(name, context);
    if (!out || flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = stream_create(context, flags, priority, false, out);
    if (result == CUDA_SUCCESS && !vc_handle_add(*out, HANDLE_STREAM))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return result;
}

CU_API CUresult cuStreamCreate(CUstream *out, unsigned flags)
{
    return create("cuStreamCreate", out, flags, 0);
}

CU_API CUresult cuStreamCreateWithPriority(CUstream *out, unsigned flags, int priority)
{
    return create("cuStreamCreateWithPriority", out, flags, priority);
}

CU_API CUresult cuStreamDestroy_v2(CUstream handle)
{
    ENTER("cuStreamDestroy");
    if (!vc_handle_is(handle, HANDLE_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    vc_handle_remove(handle);
    lock();
    handle->destroyed = true; /* what is queued still runs */
    stream_release(handle);
    unlock();
    return CUDA_SUCCESS;
}

static CUresult synchronize(CUstream handle, bool per_thread)
{
    STREAM("cuStreamSynchronize", handle, stream);
    CUresult result = capture_forbids(stream->context, stream);
    return result == CUDA_SUCCESS ? stream_drain(stream) : result;
}
PAIR(cuStreamSynchronize, cuStreamSynchronize_ptsz, (CUstream handle),
     synchronize(handle, per_thread))

static CUresult query(CUstream handle, bool per_thread)
{
    STREAM("cuStreamQuery", handle, stream);
    CUresult result = capture_forbids(stream->context, stream);
    if (result != CUDA_SUCCESS)
        return result;
    lock();
    host_asks();
    bool busy = stream->first != NULL;
    for (CUstream s = stream->context->streams; stream->legacy && s; s = s->next)
        busy |= !(s->flags & CU_STREAM_NON_BLOCKING) && s->first;
    if (!busy)
        host_sees(stream, stream->done);
    result = (CUresult)stream->context->error;
    unlock();
    return result != CUDA_SUCCESS ? result : busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
PAIR(cuStreamQuery, cuStreamQuery_ptsz, (CUstream handle), query(handle, per_thread))

static CUresult get_priority(CUstream handle, int *priority, bool per_thread)
{
    STREAM("cuStreamGetPriority", handle, stream);
    if (!priority)
        return CUDA_ERROR_INVALID_VALUE;
    *priority = stream->priority;
    return CUDA_SUCCESS;
}
PAIR(cuStreamGetPriority, cuStreamGetPriority_ptsz, (CUstream handle, int *priority),
     get_priority(handle, priority, per_thread))

static CUresult get_flags(CUstream handle, unsigned *flags, bool per_thread)
{
    STREAM("cuStreamGetFlags", handle, stream);
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = stream->flags;
    return CUDA_SUCCESS;
}
PAIR(cuStreamGetFlags, cuStreamGetFlags_ptsz, (CUstream handle, unsigned *flags),
     get_flags(handle, flags, per_thread))

static CUresult get_id(CUstream handle, unsigned long long *id, bool per_thread)
{
    STREAM("cuStreamGetId", handle, stream);
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = stream->id;
    return CUDA_SUCCESS;
}
PAIR(cuStreamGetId, cuStreamGetId_ptsz, (CUstream handle, unsigned long long *id),
     get_id(handle, id, per_thread))

static CUresult get_context(CUstream handle, CUcontext *context, bool per_thread)
{
    STREAM("cuStreamGetCtx", handle, stream);
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    *context = stream->context;
    return CUDA_SUCCESS;
}
PAIR(cuStreamGetCtx, cuStreamGetCtx_ptsz, (CUstream handle, CUcontext *context),
     get_context(handle, context, per_thread))

static CUresult get_context_v2(CUstream handle, CUcontext *context, void **green, bool per_thread)
{
    if (green)
        *green = NULL;
    return get_context(handle, context, per_thread);
}
PAIR(cuStreamGetCtx_v2, cuStreamGetCtx_v2_ptsz, (CUstream handle, CUcontext *context, void **green),
     get_context_v2(handle, context, green, per_thread))

static CUresult get_device(CUstream handle, CUdevice *device, bool per_thread)
{
    STREAM("cuStreamGetDevice", handle, stream);
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = stream->context->device->ordinal;
    return CUDA_SUCCESS;
}
PAIR(cuStreamGetDevice, cuStreamGetDevice_ptsz, (CUstream handle, CUdevice *device),
     get_device(handle, device, per_thread))

/* ---- host functions ---- */

static CUresult host_function(CUstream handle, CUhostFn fn, void *user, bool per_thread)
{
    STREAM("cuLaunchHostFunc", handle, stream);
    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    struct op op = {.kind = OP_HOST, .host = {.fn = fn, .user = user}};
    return stream_submit(stream, &op, NULL);
}
PAIR(cuLaunchHostFunc, cuLaunchHostFunc_ptsz, (CUstream handle, CUhostFn fn, void *user),
     host_function(handle, fn, user, per_thread))

static CUresult callback(CUstream handle, CUstreamCallback fn, void *user, unsigned flags,
                         bool per_thread)
{
    STREAM("cuStreamAddCallback", handle, stream);
    if (!fn || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (stream->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    struct op op = {.kind = OP_CALLBACK, .host = {.callback = fn, .stream = handle, .user = user}};
    return stream_submit(stream, &op, NULL);
}
PAIR(cuStreamAddCallback, cuStreamAddCallback_ptsz,
     (CUstream handle, CUstreamCallback fn, void *user, unsigned flags),
     callback(handle, fn, user, flags, per_thread))

/* ---- values in memory ---- */

static CUresult value_op(const char *name, CUstream handle, CUdeviceptr address, uint64_t value,
                         unsigned flags, bool wide, bool wait, bool per_thread)
{
    STREAM(name, handle, stream);
    if (address % (wide ? 8 : 4) || (wait && (flags & ~(1u << 30)) > 3))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = memory_check(stream->context, address, wide ? 8 : 4, false);
    if (result != CUDA_SUCCESS)
        return result;
    struct op op = {.kind = wait ? OP_WAIT_VALUE : OP_WRITE_VALUE,
                    .value = {address, value, flags, wide}};
    return stream_submit(stream, &op, NULL);
}

#define VALUE(name, bits, type, wait)                                                              \
    PAIR(name##bits##_v2, name##bits##_v2_ptsz,                                                    \
         (CUstream handle, CUdeviceptr address, type value, unsigned flags),                       \
         value_op(#name #bits, handle, address, value, flags, bits == 64, wait, per_thread))

VALUE(cuStreamWaitValue, 32, cuuint32_t, true)
VALUE(cuStreamWaitValue, 64, cuuint64_t, true)
VALUE(cuStreamWriteValue, 32, cuuint32_t, false)
VALUE(cuStreamWriteValue, 64, cuuint64_t, false)

/* ---- hints ---- */

static CUresult attach(CUstream handle, CUdeviceptr address, size_t bytes, unsigned flags,
                       bool per_thread)
{
    STREAM("cuStreamAttachMemAsync", handle, stream);
    (void)bytes;
    const struct vc_alloc *a = vc_find(driver.map, address);
    return a && a->live && a->kind == VC_MANAGED && (flags == 1 || flags == 2 || flags == 4)
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}
PAIR(cuStreamAttachMemAsync, cuStreamAttachMemAsync_ptsz,
     (CUstream handle, CUdeviceptr address, size_t bytes, unsigned flags),
     attach(handle, address, bytes, flags, per_thread))
