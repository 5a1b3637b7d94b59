/* copy.c: every kind of copy, and memset.
 *
 * Names end in _ptds or _ptsz where the default stream is the calling thread's own. A copy from
 * pageable host memory takes the bytes when it is submitted; one to pageable memory is waited for;
 * both are what CUDA's documentation allows a program to rely on, and no more. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

bool copy_linear(struct copy *copy, uint64_t to, uint64_t from, uint64_t bytes)
{
    *copy = (struct copy){.to = to, .from = from, .width = bytes, .height = 1, .depth = 1};
    return true;
}

/* The rows of the copy, packed. */
static void *stage(const struct copy *c)
{
    unsigned char *bytes = malloc(c->width * c->height * c->depth), *at = bytes;
    for (uint64_t z = 0; bytes && z < c->depth; z++)
        for (uint64_t y = 0; y < c->height; y++, at += c->width)
            memcpy(at, (const void *)(uintptr_t)(c->from + z * c->from_slice + y * c->from_pitch),
                   c->width);
    return bytes;
}

static uint64_t side_span(const struct copy *c, uint64_t pitch, uint64_t slice)
{
    return (c->depth - 1) * slice + (c->height - 1) * pitch + c->width;
}

struct call { /* how the copy was asked for */
    bool async, per_thread;
    CUstream stream;
};

static CUresult submit_copy(CUcontext context, struct copy *c, struct call call)
{
    CUstream stream;
    uint64_t ticket;
    struct op op = {.kind = OP_COPY, .copy = *c};
    if (!c->width || !c->height || !c->depth)
        return CUDA_SUCCESS;
    CUresult result = stream_resolve(context, call.stream, call.per_thread, &stream);
    if (result == CUDA_SUCCESS && !call.async)
        result = capture_forbids(context, stream);
    if (result == CUDA_SUCCESS)
        result = memory_check(context, c->to, side_span(c, c->to_pitch, c->to_slice), true);
    if (result == CUDA_SUCCESS)
        result = memory_check(context, c->from, side_span(c, c->from_pitch, c->from_slice), true);
    if (result != CUDA_SUCCESS)
        return result;
    bool captured = stream->capture != NULL;
    if (!captured && call.async && memory_is_pageable(c->from)) {
        op.staged = stage(c);
        if (!op.staged)
            return CUDA_ERROR_OUT_OF_MEMORY;
        op.copy.from = (uintptr_t)op.staged;
        op.copy.from_pitch = c->width;
        op.copy.from_slice = c->width * c->height;
    }
    bool wait = !captured && (!call.async || memory_is_pageable(c->to));
    result = stream_submit(stream, &op, &ticket);
    return result == CUDA_SUCCESS && wait ? stream_wait(stream, ticket) : result;
}

static CUresult linear(const char *name, uint64_t to, uint64_t from, size_t bytes, struct call call)
{
    ENTER_CONTEXT(name, context);
    struct copy c;
    copy_linear(&c, to, from, bytes);
    return submit_copy(context, &c, call);
}

/* A device pointer must not be the program's own memory. */
static CUresult device_pointer(uint64_t address, size_t bytes)
{
    return bytes && driver.initialised && memory_is_pageable(address) ? CUDA_ERROR_INVALID_VALUE
                                                                      : CUDA_SUCCESS;
}

static CUresult to_device(const char *name, CUdeviceptr to, const void *from, size_t bytes,
                          struct call call)
{
    CUresult result = device_pointer(to, bytes);
    CUresult entered = linear(name, to, (uintptr_t)from, result == CUDA_SUCCESS ? bytes : 0, call);
    return entered == CUDA_SUCCESS ? result : entered;
}

static CUresult to_host(const char *name, void *to, CUdeviceptr from, size_t bytes,
                        struct call call)
{
    CUresult result = device_pointer(from, bytes);
    CUresult entered = linear(name, (uintptr_t)to, from, result == CUDA_SUCCESS ? bytes : 0, call);
    return entered == CUDA_SUCCESS ? result : entered;
}

static CUresult on_device(const char *name, CUdeviceptr to, CUdeviceptr from, size_t bytes,
                          struct call call)
{
    CUresult result = device_pointer(to, bytes);
    if (result == CUDA_SUCCESS)
        result = device_pointer(from, bytes);
    CUresult entered = linear(name, to, from, result == CUDA_SUCCESS ? bytes : 0, call);
    return entered == CUDA_SUCCESS ? result : entered;
}

#define SYNC ((struct call){false, false, NULL})
#define SYNC_PT ((struct call){false, true, NULL})
#define ASYNC(stream) ((struct call){true, false, stream})
#define ASYNC_PT(stream) ((struct call){true, true, stream})

#define SYNC_PAIR(name, params, expression)                                                        \
    CU_API CUresult name params                                                                    \
    {                                                                                              \
        const struct call call = SYNC;                                                             \
        return expression;                                                                         \
    }                                                                                              \
    CU_API CUresult name##_ptds params                                                             \
    {                                                                                              \
        const struct call call = SYNC_PT;                                                          \
        return expression;                                                                         \
    }
#define ASYNC_PAIR(name, params, expression)                                                       \
    CU_API CUresult name params                                                                    \
    {                                                                                              \
        const struct call call = ASYNC(stream);                                                    \
        return expression;                                                                         \
    }                                                                                              \
    CU_API CUresult name##_ptsz params                                                             \
    {                                                                                              \
        const struct call call = ASYNC_PT(stream);                                                 \
        return expression;                                                                         \
    }

SYNC_PAIR(cuMemcpy, (CUdeviceptr to, CUdeviceptr from, size_t bytes),
          linear("cuMemcpy", to, from, bytes, call))
SYNC_PAIR(cuMemcpyHtoD_v2, (CUdeviceptr to, const void *from, size_t bytes),
          to_device("cuMemcpyHtoD", to, from, bytes, call))
SYNC_PAIR(cuMemcpyDtoH_v2, (void *to, CUdeviceptr from, size_t bytes),
          to_host("cuMemcpyDtoH", to, from, bytes, call))
SYNC_PAIR(cuMemcpyDtoD_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes),
          on_device("cuMemcpyDtoD", to, from, bytes, call))
ASYNC_PAIR(cuMemcpyAsync, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream),
           linear("cuMemcpyAsync", to, from, bytes, call))
ASYNC_PAIR(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream),
           to_device("cuMemcpyHtoDAsync", to, from, bytes, call))
ASYNC_PAIR(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream),
           to_host("cuMemcpyDtoHAsync", to, from, bytes, call))
ASYNC_PAIR(cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream),
           on_device("cuMemcpyDtoDAsync", to, from, bytes, call))

/* ---- between devices: the current context's stream does it ---- */

static CUresult peer(const char *name, CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                     CUcontext from_context, size_t bytes, struct call call)
{
    CUresult entered = call_enter(name);
    if (entered != CUDA_SUCCESS)
        return entered;
    if (!vc_handle_is(to_context, HANDLE_CONTEXT) || !vc_handle_is(from_context, HANDLE_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    /* The name was counted above. */
    return on_device("", to, from, bytes, call);
}

SYNC_PAIR(cuMemcpyPeer,
          (CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
           size_t bytes),
          peer("cuMemcpyPeer", to, to_context, from, from_context, bytes, call))
ASYNC_PAIR(cuMemcpyPeerAsync,
           (CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
            size_t bytes, CUstream stream),
           peer("cuMemcpyPeerAsync", to, to_context, from, from_context, bytes, call))

/* ---- two and three dimensions ---- */

static bool side(CUmemorytype type, const void *host, CUdeviceptr device, uint64_t *base)
{
    if (type == CU_MEMORYTYPE_HOST)
        *base = (uintptr_t)host;
    else if (type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED)
        *base = device;
    else
        return false; /* arrays are not there */
    return *base != 0;
}

CUresult copy_from_3d(const CUDA_MEMCPY3D *p, struct copy *c)
{
    uint64_t to, from;
    if (p->srcMemoryType == CU_MEMORYTYPE_ARRAY || p->dstMemoryType == CU_MEMORYTYPE_ARRAY)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "copies of arrays");
    if (!side(p->srcMemoryType, p->srcHost, p->srcDevice, &from) ||
        !side(p->dstMemoryType, p->dstHost, p->dstDevice, &to) || p->srcLOD || p->dstLOD)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t from_pitch = p->srcPitch ? p->srcPitch : p->srcXInBytes + p->WidthInBytes;
    uint64_t to_pitch = p->dstPitch ? p->dstPitch : p->dstXInBytes + p->WidthInBytes;
    uint64_t from_height = p->srcHeight ? p->srcHeight : p->srcY + p->Height;
    uint64_t to_height = p->dstHeight ? p->dstHeight : p->dstY + p->Height;
    if ((p->Height > 1 && (from_pitch < p->srcXInBytes + p->WidthInBytes ||
                           to_pitch < p->dstXInBytes + p->WidthInBytes)) ||
        (p->Depth > 1 && (from_height < p->srcY + p->Height || to_height < p->dstY + p->Height)))
        return CUDA_ERROR_INVALID_VALUE;
    *c = (struct copy){
        .from = from + p->srcZ * from_pitch * from_height + p->srcY * from_pitch + p->srcXInBytes,
        .to = to + p->dstZ * to_pitch * to_height + p->dstY * to_pitch + p->dstXInBytes,
        .from_pitch = from_pitch,
        .to_pitch = to_pitch,
        .from_slice = from_pitch * from_height,
        .to_slice = to_pitch * to_height,
        .width = p->WidthInBytes,
        .height = p->Height,
        .depth = p->Depth,
    };
    return CUDA_SUCCESS;
}

static CUresult copy_3d(const char *name, const CUDA_MEMCPY3D *p, struct call call)
{
    ENTER_CONTEXT(name, context);
    struct copy c;
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = copy_from_3d(p, &c);
    return result == CUDA_SUCCESS ? submit_copy(context, &c, call) : result;
}

static CUresult copy_2d(const char *name, const CUDA_MEMCPY2D *p, struct call call)
{
    if (!p)
        return copy_3d(name, NULL, call);
    CUDA_MEMCPY3D q = {
        .srcXInBytes = p->srcXInBytes,
        .srcY = p->srcY,
        .srcMemoryType = p->srcMemoryType,
        .srcHost = p->srcHost,
        .srcDevice = p->srcDevice,
        .srcPitch = p->srcPitch,
        .dstXInBytes = p->dstXInBytes,
        .dstY = p->dstY,
        .dstMemoryType = p->dstMemoryType,
        .dstHost = p->dstHost,
        .dstDevice = p->dstDevice,
        .dstPitch = p->dstPitch,
        .WidthInBytes = p->WidthInBytes,
        .Height = p->Height,
        .Depth = 1,
    };
    return copy_3d(name, &q, call);
}

static CUresult copy_3d_peer(const char *name, const CUDA_MEMCPY3D_PEER *p, struct call call)
{
    if (!p)
        return copy_3d(name, NULL, call);
    CUDA_MEMCPY3D q;
    _Static_assert(sizeof *p == sizeof q, "the two differ in the names of reserved fields");
    memcpy(&q, p, sizeof q);
    return copy_3d(name, &q, call);
}

SYNC_PAIR(cuMemcpy2D_v2, (const CUDA_MEMCPY2D *p), copy_2d("cuMemcpy2D", p, call))
SYNC_PAIR(cuMemcpy2DUnaligned_v2, (const CUDA_MEMCPY2D *p), copy_2d("cuMemcpy2DUnaligned", p, call))
SYNC_PAIR(cuMemcpy3D_v2, (const CUDA_MEMCPY3D *p), copy_3d("cuMemcpy3D", p, call))
SYNC_PAIR(cuMemcpy3DPeer, (const CUDA_MEMCPY3D_PEER *p), copy_3d_peer("cuMemcpy3DPeer", p, call))
ASYNC_PAIR(cuMemcpy2DAsync_v2, (const CUDA_MEMCPY2D *p, CUstream stream),
           copy_2d("cuMemcpy2DAsync", p, call))
ASYNC_PAIR(cuMemcpy3DAsync_v2, (const CUDA_MEMCPY3D *p, CUstream stream),
           copy_3d("cuMemcpy3DAsync", p, call))
ASYNC_PAIR(cuMemcpy3DPeerAsync, (const CUDA_MEMCPY3D_PEER *p, CUstream stream),
           copy_3d_peer("cuMemcpy3DPeerAsync", p, call))

/* ---- memset ---- */

static CUresult fill(const char *name, CUdeviceptr to, size_t pitch, unsigned value,
                     unsigned element, size_t width, size_t height, struct call call)
{
    ENTER_CONTEXT(name, context);
    CUstream stream;
    uint64_t ticket;
    if (!width || !height)
        return CUDA_SUCCESS;
    if (to % element || (height > 1 && pitch % element) || (height > 1 && pitch < width * element))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = stream_resolve(context, call.stream, call.per_thread, &stream);
    if (result == CUDA_SUCCESS && !call.async)
        result = capture_forbids(context, stream);
    if (result == CUDA_SUCCESS)
        result = memory_check(context, to, (height - 1) * pitch + width * element, false);
    if (result != CUDA_SUCCESS)
        return result;
    struct op op = {.kind = OP_FILL, .fill = {to, pitch, width, height, value, element}};
    result = stream_submit(stream, &op, &ticket);
    return result == CUDA_SUCCESS && !call.async ? stream_wait(stream, ticket) : result;
}

#define FILL(bits, type, bytes)                                                                    \
    SYNC_PAIR(cuMemsetD##bits##_v2, (CUdeviceptr to, type value, size_t n),                        \
              fill("cuMemsetD" #bits, to, 0, value, bytes, n, 1, call))                            \
    ASYNC_PAIR(cuMemsetD##bits##Async, (CUdeviceptr to, type value, size_t n, CUstream stream),    \
               fill("cuMemsetD" #bits "Async", to, 0, value, bytes, n, 1, call))                   \
    SYNC_PAIR(cuMemsetD2D##bits##_v2,                                                              \
              (CUdeviceptr to, size_t pitch, type value, size_t width, size_t height),             \
              fill("cuMemsetD2D" #bits, to, pitch, value, bytes, width, height, call))             \
    ASYNC_PAIR(                                                                                    \
        cuMemsetD2D##bits##Async,                                                                  \
        (CUdeviceptr to, size_t pitch, type value, size_t width, size_t height, CUstream stream),  \
        fill("cuMemsetD2D" #bits "Async", to, pitch, value, bytes, width, height, call))

FILL(8, unsigned char, 1)
FILL(16, unsigned short, 2)
FILL(32, unsigned, 4)
