/* copy.c: copies and fills. */
#include "driver.h"

#include <string.h>

/* ---- what they do, when their turn has come ---- */

/* From the first byte of a side to the last. */
static uint64_t span(uint64_t pitch, uint64_t slice, const struct copy *c)
{
    return (c->depth - 1) * slice + (c->height - 1) * pitch + c->width;
}

static bool empty(const struct copy *c)
{
    return !c->width || !c->height || !c->depth;
}

hipError_t copy_check(struct device *device, const struct copy *c)
{
    if (empty(c))
        return hipSuccess;
    hipError_t result =
        memory_check(device, c->from, span(c->from_pitch, c->from_slice, c), "a copy reads");
    if (result != hipSuccess)
        return result;
    return memory_check(device, c->to, span(c->to_pitch, c->to_slice, c), "a copy writes");
}

/* A side's device, or -1 on the host. */
static int side(uint64_t address)
{
    const struct vc_alloc *a = vc_find(driver.map, address);
    return a && a->device < VC_HOST ? a->device : -1;
}

static void count(struct device *device, const struct copy *c, double *ns)
{
    int target = side(c->to), source = side(c->from);
    uint64_t bytes = c->width * c->height * c->depth;
    const struct limits *l = &device->limits;
    enum driver_counter counter = COUNT_COPIES_ON;
    double rate = l->memory_clock_khz * 2e3 * l->bus_bits / 8 / 2;
    if (source < 0 && target >= 0)
        counter = COUNT_COPIES_IN, rate = 50e9;
    else if (target < 0 && source >= 0)
        counter = COUNT_COPIES_OUT, rate = 50e9;
    else if (source != target)
        counter = COUNT_COPIES_PEER, rate = 50e9;
    count_add((unsigned)device->ordinal, counter, 1);
    count_add((unsigned)device->ordinal, counter + 1, bytes);
    *ns = 2000 + (double)bytes / rate * 1e9;
}

hipError_t copy_run(struct device *device, const struct copy *c, double *ns)
{
    if (copy_check(device, c) != hipSuccess)
        return hipErrorIllegalAddress;
    if (empty(c))
        return hipSuccess;
    for (uint64_t z = 0; z < c->depth; z++)
        for (uint64_t y = 0; y < c->height; y++) {
            uint64_t to = c->to + z * c->to_slice + y * c->to_pitch;
            uint64_t from = c->from + z * c->from_slice + y * c->from_pitch;
            memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, c->width);
            vc_copy_marks(driver.map, to, from, c->width);
        }
    count(device, c, ns);
    return hipSuccess;
}

hipError_t fill_check(struct device *device, const struct fill *f)
{
    if (!f->width || !f->height || !f->depth)
        return hipSuccess;
    uint64_t bytes = (f->depth - 1) * f->slice + (f->height - 1) * f->pitch + f->width * f->element;
    return memory_check(device, f->to, bytes, "a memset of");
}

static void fill_row(void *to, uint32_t value, uint32_t element, uint64_t count)
{
    if (element == 1) {
        memset(to, (int)(value & 255), count);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        if (element == 2)
            ((uint16_t *)to)[i] = (uint16_t)value;
        else
            ((uint32_t *)to)[i] = value;
}

hipError_t fill_run(struct device *device, const struct fill *f, double *ns)
{
    uint64_t row = f->width * f->element;
    if (fill_check(device, f) != hipSuccess)
        return hipErrorIllegalAddress;
    for (uint64_t z = 0; z < f->depth; z++)
        for (uint64_t y = 0; y < f->height && row; y++) {
            uint64_t to = f->to + z * f->slice + y * f->pitch;
            fill_row((void *)(uintptr_t)to, f->value, f->element, f->width);
            vc_mark(driver.map, to, row);
        }
    uint64_t bytes = row * f->height * f->depth;
    count_add((unsigned)device->ordinal, COUNT_FILLS, 1);
    count_add((unsigned)device->ordinal, COUNT_FILL_BYTES, bytes);
    *ns = 2000 + (double)bytes * 1e-3;
    return hipSuccess;
}

/* ---- copies as calls ---- */

struct copy copy_linear(void *to, const void *from, uint64_t bytes)
{
    return (struct copy){.to = (uintptr_t)to,
                         .from = (uintptr_t)from,
                         .to_pitch = bytes,
                         .from_pitch = bytes,
                         .to_slice = bytes,
                         .from_slice = bytes,
                         .width = bytes,
                         .height = 1,
                         .depth = 1};
}

/* A copy that pageable memory has a part in is over when the call returns, as HIP's are. */
hipError_t copy_submit(struct device *device, const struct copy *copy, hipStream_t handle,
                       bool wait)
{
    hipStream_t stream;
    uint64_t ticket;
    hipError_t result = stream_resolve(device, handle, &stream);
    if (result != hipSuccess)
        return result;
    if (!empty(copy) && (!copy->to || !copy->from))
        return hipErrorInvalidValue;
    result = copy_check(stream->device, copy);
    if (result != hipSuccess)
        return result;
    struct op op = {.kind = OP_COPY, .copy = *copy};
    result = stream_submit(stream, &op, &ticket);
    if (result == hipSuccess && ticket &&
        (wait || memory_is_pageable(copy->to) || memory_is_pageable(copy->from)))
        result = stream_wait(stream, ticket);
    return result;
}

static hipError_t copy_call(const char *name, struct copy copy, int kind, hipStream_t stream,
                            bool wait)
{
    ENTER_DEVICE(name, device);
    if (kind < hipMemcpyHostToHost || kind > hipMemcpyDefault)
        return done(hipErrorInvalidMemcpyDirection);
    return done(copy_submit(device, &copy, stream, wait));
}

HIP_API hipError_t hipMemcpy(void *to, const void *from, size_t bytes, hipMemcpyKind kind)
{
    return copy_call("hipMemcpy", copy_linear(to, from, bytes), kind, NULL, true);
}

HIP_API hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, hipMemcpyKind kind,
                                  hipStream_t stream)
{
    return copy_call("hipMemcpyAsync", copy_linear(to, from, bytes), kind, stream, false);
}

HIP_API hipError_t hipMemcpyWithStream(void *to, const void *from, size_t bytes, hipMemcpyKind kind,
                                       hipStream_t stream)
{
    return copy_call("hipMemcpyWithStream", copy_linear(to, from, bytes), kind, stream, true);
}

HIP_API hipError_t hipMemcpy_spt(void *to, const void *from, size_t bytes, hipMemcpyKind kind)
{
    return copy_call("hipMemcpy", copy_linear(to, from, bytes), kind, hipStreamPerThread, true);
}

HIP_API hipError_t hipMemcpyAsync_spt(void *to, const void *from, size_t bytes, hipMemcpyKind kind,
                                      hipStream_t stream)
{
    return hipMemcpyAsync(to, from, bytes, kind, stream ? stream : hipStreamPerThread);
}

#define COPY(name, to_type, from_type, kind)                                                       \
    HIP_API hipError_t name(to_type to, from_type from, size_t bytes)                              \
    {                                                                                              \
        return copy_call(#name, copy_linear(to, from, bytes), kind, NULL, true);                   \
    }                                                                                              \
    HIP_API hipError_t name##Async(to_type to, from_type from, size_t bytes, hipStream_t stream)   \
    {                                                                                              \
        return copy_call(#name "Async", copy_linear(to, from, bytes), kind, stream, false);        \
    }
COPY(hipMemcpyHtoD, hipDeviceptr_t, void *, hipMemcpyHostToDevice)
COPY(hipMemcpyDtoH, void *, hipDeviceptr_t, hipMemcpyDeviceToHost)
COPY(hipMemcpyDtoD, hipDeviceptr_t, hipDeviceptr_t, hipMemcpyDeviceToDevice)

static hipError_t copy_peer(const char *name, void *to, int to_device, const void *from,
                            int from_device, size_t bytes, hipStream_t stream, bool wait)
{
    struct device *d;
    ENTER(name);
    if (device_of(to_device, &d) != hipSuccess || device_of(from_device, &d) != hipSuccess)
        return done(hipErrorInvalidDevice);
    return copy_call(name, copy_linear(to, from, bytes), hipMemcpyDefault, stream, wait);
}

HIP_API hipError_t hipMemcpyPeer(void *to, int to_device, const void *from, int from_device,
                                 size_t bytes)
{
    return copy_peer("hipMemcpyPeer", to, to_device, from, from_device, bytes, NULL, true);
}

HIP_API hipError_t hipMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                      size_t bytes, hipStream_t stream)
{
    return copy_peer("hipMemcpyPeerAsync", to, to_device, from, from_device, bytes, stream, false);
}

/* ---- rectangles ---- */

static hipError_t copy_2d(const char *name, void *to, size_t to_pitch, const void *from,
                          size_t from_pitch, size_t width, size_t height, int kind,
                          hipStream_t stream, bool wait)
{
    if (width > to_pitch || width > from_pitch)
        return done(hipErrorInvalidPitchValue);
    struct copy copy = {.to = (uintptr_t)to,
                        .from = (uintptr_t)from,
                        .to_pitch = to_pitch,
                        .from_pitch = from_pitch,
                        .width = width,
                        .height = height,
                        .depth = 1};
    return copy_call(name, copy, kind, stream, wait);
}

HIP_API hipError_t hipMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                               size_t width, size_t height, hipMemcpyKind kind)
{
    return copy_2d("hipMemcpy2D", to, to_pitch, from, from_pitch, width, height, kind, NULL, true);
}

HIP_API hipError_t hipMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                                    size_t width, size_t height, hipMemcpyKind kind,
                                    hipStream_t stream)
{
    return copy_2d("hipMemcpy2DAsync", to, to_pitch, from, from_pitch, width, height, kind, stream,
                   false);
}

static hipError_t param_2d(const char *name, const hip_Memcpy2D *p, hipStream_t stream, bool wait)
{
    ENTER(name);
    if (!p)
        return done(hipErrorInvalidValue);
    if (p->srcMemoryType == hipMemoryTypeArray || p->dstMemoryType == hipMemoryTypeArray)
        return done(refuse(hipErrorNotSupported, "%s: arrays", name));
    const char *from = p->srcMemoryType == hipMemoryTypeHost ? p->srcHost : p->srcDevice;
    char *to = p->dstMemoryType == hipMemoryTypeHost ? p->dstHost : p->dstDevice;
    size_t from_pitch = p->srcPitch ? p->srcPitch : p->WidthInBytes;
    size_t to_pitch = p->dstPitch ? p->dstPitch : p->WidthInBytes;
    return copy_2d(name, to + p->dstY * to_pitch + p->dstXInBytes, to_pitch,
                   from + p->srcY * from_pitch + p->srcXInBytes, from_pitch, p->WidthInBytes,
                   p->Height, hipMemcpyDefault, stream, wait);
}

HIP_API hipError_t hipMemcpyParam2D(const hip_Memcpy2D *p)
{
    return param_2d("hipMemcpyParam2D", p, NULL, true);
}

HIP_API hipError_t hipMemcpyParam2DAsync(const hip_Memcpy2D *p, hipStream_t stream)
{
    return param_2d("hipMemcpyParam2DAsync", p, stream, false);
}

HIP_API hipError_t hipDrvMemcpy2DUnaligned(const hip_Memcpy2D *p)
{
    return param_2d("hipDrvMemcpy2DUnaligned", p, NULL, true);
}

static uint64_t corner(const hipPitchedPtr *p, const hipPos *at)
{
    return (uintptr_t)p->ptr + (at->z * p->ysize + at->y) * p->pitch + at->x;
}

hipError_t copy_from_3d(const hipMemcpy3DParms *p, struct copy *out)
{
    if (!p)
        return hipErrorInvalidValue;
    if (p->srcArray || p->dstArray)
        return refuse(hipErrorNotSupported, "a copy of arrays");
    if (p->extent.width > p->srcPtr.pitch || p->extent.width > p->dstPtr.pitch)
        return hipErrorInvalidPitchValue;
    *out = (struct copy){.to = corner(&p->dstPtr, &p->dstPos),
                         .from = corner(&p->srcPtr, &p->srcPos),
                         .to_pitch = p->dstPtr.pitch,
                         .from_pitch = p->srcPtr.pitch,
                         .to_slice = p->dstPtr.pitch * p->dstPtr.ysize,
                         .from_slice = p->srcPtr.pitch * p->srcPtr.ysize,
                         .width = p->extent.width,
                         .height = p->extent.height,
                         .depth = p->extent.depth};
    return hipSuccess;
}

static hipError_t copy_3d(const char *name, const hipMemcpy3DParms *p, hipStream_t stream,
                          bool wait)
{
    struct copy copy;
    ENTER(name);
    hipError_t result = copy_from_3d(p, &copy);
    return result == hipSuccess ? copy_call(name, copy, p->kind, stream, wait) : done(result);
}

HIP_API hipError_t hipMemcpy3D(const hipMemcpy3DParms *p)
{
    return copy_3d("hipMemcpy3D", p, NULL, true);
}

HIP_API hipError_t hipMemcpy3DAsync(const hipMemcpy3DParms *p, hipStream_t stream)
{
    return copy_3d("hipMemcpy3DAsync", p, stream, false);
}

/* ---- fills ---- */

static hipError_t fill_call(const char *name, const struct fill *fill, hipStream_t handle,
                            bool wait)
{
    hipStream_t stream;
    uint64_t ticket;
    ENTER_DEVICE(name, device);
    hipError_t result = stream_resolve(device, handle, &stream);
    if (result == hipSuccess && fill->to % fill->element)
        result = hipErrorInvalidValue;
    if (result == hipSuccess)
        result = fill_check(stream->device, fill);
    if (result != hipSuccess)
        return done(result);
    struct op op = {.kind = OP_FILL, .fill = *fill};
    result = stream_submit(stream, &op, &ticket);
    if (result == hipSuccess && wait && ticket)
        result = stream_wait(stream, ticket);
    return done(result);
}

static hipError_t fill_linear(const char *name, void *to, uint32_t value, uint32_t element,
                              size_t count, hipStream_t stream, bool wait)
{
    if (count > SIZE_MAX / 4)
        return done(hipErrorInvalidValue);
    return fill_call(name,
                     &(struct fill){.to = (uintptr_t)to,
                                    .width = count,
                                    .height = 1,
                                    .depth = 1,
                                    .value = value,
                                    .element = element},
                     stream, wait);
}

#define FILL(name, type, element)                                                                  \
    HIP_API hipError_t name(hipDeviceptr_t to, type value, size_t count)                           \
    {                                                                                              \
        return fill_linear(#name, to, (uint32_t)value, element, count, NULL, true);                \
    }                                                                                              \
    HIP_API hipError_t name##Async(hipDeviceptr_t to, type value, size_t count,                    \
                                   hipStream_t stream)                                             \
    {                                                                                              \
        return fill_linear(#name "Async", to, (uint32_t)value, element, count, stream, false);     \
    }
FILL(hipMemset, int, 1)
FILL(hipMemsetD8, unsigned char, 1)
FILL(hipMemsetD16, unsigned short, 2)
FILL(hipMemsetD32, int, 4)

HIP_API hipError_t hipMemset_spt(void *to, int value, size_t bytes)
{
    return fill_linear("hipMemset", to, (uint32_t)value, 1, bytes, hipStreamPerThread, true);
}

static hipError_t fill_3d(const char *name, hipPitchedPtr to, int value, hipExtent extent,
                          hipStream_t stream, bool wait)
{
    if (extent.width > to.pitch)
        return done(hipErrorInvalidValue);
    return fill_call(name,
                     &(struct fill){.to = (uintptr_t)to.ptr,
                                    .pitch = to.pitch,
                                    .slice = to.pitch * to.ysize,
                                    .width = extent.width,
                                    .height = extent.height,
                                    .depth = extent.depth,
                                    .value = (uint32_t)value,
                                    .element = 1},
                     stream, wait);
}

static hipError_t fill_2d(const char *name, void *to, size_t pitch, int value, size_t width,
                          size_t height, hipStream_t stream, bool wait)
{
    hipPitchedPtr p = {to, pitch, width, height};
    return fill_3d(name, p, value, (hipExtent){width, height, 1}, stream, wait);
}

HIP_API hipError_t hipMemset2D(void *to, size_t pitch, int value, size_t width, size_t height)
{
    return fill_2d("hipMemset2D", to, pitch, value, width, height, NULL, true);
}

HIP_API hipError_t hipMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height,
                                    hipStream_t stream)
{
    return fill_2d("hipMemset2DAsync", to, pitch, value, width, height, stream, false);
}

HIP_API hipError_t hipMemset3D(hipPitchedPtr to, int value, hipExtent extent)
{
    return fill_3d("hipMemset3D", to, value, extent, NULL, true);
}

HIP_API hipError_t hipMemset3DAsync(hipPitchedPtr to, int value, hipExtent extent,
                                    hipStream_t stream)
{
    return fill_3d("hipMemset3DAsync", to, value, extent, stream, false);
}

/* ---- the forms for which the null stream is the thread's own ---- */

HIP_API hipError_t hipMemcpy2D_spt(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                                   size_t width, size_t height, hipMemcpyKind kind)
{
    return copy_2d("hipMemcpy2D", to, to_pitch, from, from_pitch, width, height, kind,
                   hipStreamPerThread, true);
}

HIP_API hipError_t hipMemcpy3D_spt(const hipMemcpy3DParms *p)
{
    return copy_3d("hipMemcpy3D", p, hipStreamPerThread, true);
}

HIP_API hipError_t hipMemset2D_spt(void *to, size_t pitch, int value, size_t width, size_t height)
{
    return fill_2d("hipMemset2D", to, pitch, value, width, height, hipStreamPerThread, true);
}

HIP_API hipError_t hipMemset3D_spt(hipPitchedPtr to, int value, hipExtent extent)
{
    return fill_3d("hipMemset3D", to, value, extent, hipStreamPerThread, true);
}

struct channel_desc {
    int x, y, z, w, kind;
};

HIP_API struct channel_desc hipCreateChannelDesc(int x, int y, int z, int w, int kind)
{
    return (struct channel_desc){x, y, z, w, kind};
}
