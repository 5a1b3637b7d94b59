/* memory.c: memory of devices and of the host, what is known of a pointer, pools. */
#include "driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Who may touch memory of a device: it, and those that enabled access to it. */
static uint32_t access_mask(const struct device *owner)
{
    uint32_t mask = 1u << owner->ordinal;
    for (int i = 0; i < driver.count; i++)
        if (driver.device[i].peers >> owner->ordinal & 1)
            mask |= 1u << i;
    return mask;
}

static bool on_host(enum vc_kind kind)
{
    return kind == VC_PINNED || kind == VC_MANAGED;
}

hipError_t memory_alloc(struct device *device, uint64_t bytes, enum vc_kind kind, const char *name,
                        uint64_t *out)
{
    uint64_t limit = vc_faults_memory(driver.faults, (unsigned)device->ordinal);
    bool host = on_host(kind);
    *out = 0;
    if (!bytes)
        return hipSuccess;
    lock();
    uint64_t used = vc_used(driver.map, (unsigned)device->ordinal);
    if (limit > device->memory)
        limit = device->memory;
    if (!host && (bytes > limit || used > limit - bytes)) {
        unlock();
        return refuse(hipErrorOutOfMemory,
                      "out of memory: %" PRIu64 " bytes, device %d has %" PRIu64 " of %" PRIu64
                      " in use",
                      bytes, device->ordinal, used, limit);
    }
    *out = vc_alloc(driver.map, &(struct vc_alloc_info){
                                    .bytes = bytes,
                                    .align = 4096,
                                    .device = host ? VC_HOST : (unsigned)device->ordinal,
                                    .kind = kind,
                                    .access = host ? ~0u : access_mask(device),
                                    .owner = device,
                                    .name = name,
                                });
    unlock();
    if (!*out)
        return hipErrorOutOfMemory;
    if (!host) {
        count_add((unsigned)device->ordinal, COUNT_ALLOCS, 1);
        count_most((unsigned)device->ordinal, COUNT_PEAK, used + bytes);
    }
    return hipSuccess;
}

static hipError_t alloc(const char *name, void **out, size_t bytes, enum vc_kind kind)
{
    uint64_t address;
    ENTER_DEVICE(name, d);
    if (!out)
        return done(hipErrorInvalidValue);
    hipError_t result = memory_alloc(d, bytes, kind, NULL, &address);
    *out = (void *)(uintptr_t)address;
    return done(result);
}

HIP_API hipError_t hipMalloc(void **out, size_t bytes)
{
    return alloc("hipMalloc", out, bytes, VC_GLOBAL);
}

HIP_API hipError_t hipExtMallocWithFlags(void **out, size_t bytes, unsigned flags)
{
    if (flags > 2)
        return done(hipErrorInvalidValue);
    return alloc("hipExtMallocWithFlags", out, bytes, VC_GLOBAL);
}

HIP_API hipError_t hipMallocManaged(void **out, size_t bytes, unsigned flags)
{
    if (flags != hipMemAttachGlobal && flags != hipMemAttachHost)
        return done(hipErrorInvalidValue);
    return alloc("hipMallocManaged", out, bytes, VC_MANAGED);
}

#define ALLOC_HOST(name, params)                                                                   \
    HIP_API hipError_t name params                                                                 \
    {                                                                                              \
        return alloc(#name, out, bytes, VC_PINNED);                                                \
    }

ALLOC_HOST(hipHostMalloc, (void **out, size_t bytes, unsigned flags __attribute__((unused))))
ALLOC_HOST(hipHostAlloc, (void **out, size_t bytes, unsigned flags __attribute__((unused))))
ALLOC_HOST(hipMallocHost, (void **out, size_t bytes))
ALLOC_HOST(hipMemAllocHost, (void **out, size_t bytes))

static hipError_t alloc_pitch(const char *name, void **out, size_t *pitch, size_t width,
                              size_t rows)
{
    if (!out || !pitch || !width || !rows || width > SIZE_MAX / 2)
        return done(hipErrorInvalidValue);
    *pitch = (width + 255) & ~(size_t)255;
    if (rows > SIZE_MAX / *pitch)
        return done(hipErrorOutOfMemory);
    return alloc(name, out, *pitch * rows, VC_GLOBAL);
}

HIP_API hipError_t hipMallocPitch(void **out, size_t *pitch, size_t width, size_t height)
{
    return alloc_pitch("hipMallocPitch", out, pitch, width, height);
}

HIP_API hipError_t hipMemAllocPitch(hipDeviceptr_t *out, size_t *pitch, size_t width, size_t height,
                                    unsigned element)
{
    if (element != 4 && element != 8 && element != 16)
        return done(hipErrorInvalidValue);
    return alloc_pitch("hipMemAllocPitch", out, pitch, width, height);
}

HIP_API hipError_t hipMalloc3D(hipPitchedPtr *out, hipExtent extent)
{
    if (!out || !extent.height || extent.depth > SIZE_MAX / extent.height)
        return done(hipErrorInvalidValue);
    hipError_t result = alloc_pitch("hipMalloc3D", &out->ptr, &out->pitch, extent.width,
                                    extent.height * extent.depth);
    out->xsize = extent.width;
    out->ysize = extent.height;
    return result;
}

/* ---- freeing ---- */

static const struct vc_alloc *live_base(uint64_t address)
{
    const struct vc_alloc *a = vc_find(driver.map, address);
    return a && a->live && a->base == address ? a : NULL;
}

hipError_t memory_free_now(uint64_t address)
{
    return vc_free(driver.map, address) ? hipSuccess : hipErrorInvalidValue;
}

/* Freeing waits for the device: work that is queued may use the memory. */
static hipError_t free_kind(const char *name, void *pointer, bool host)
{
    ENTER(name);
    if (!pointer)
        return hipSuccess;
    const struct vc_alloc *a = live_base((uintptr_t)pointer);
    bool fits = a && (host ? a->kind == VC_PINNED
                           : a->kind == VC_GLOBAL || a->kind == VC_POOLED || a->kind == VC_MANAGED);
    if (!fits) {
        char where[200];
        vc_describe(driver.map, (uintptr_t)pointer, where, sizeof where);
        return done(refuse(hipErrorInvalidValue, "%s: %s", name, where));
    }
    for (int i = 0; i < driver.count; i++)
        if (atomic_load(&a->access) >> i & 1)
            device_drain(&driver.device[i]);
    return done(memory_free_now((uintptr_t)pointer));
}

HIP_API hipError_t hipFree(void *pointer)
{
    return free_kind("hipFree", pointer, false);
}

HIP_API hipError_t hipHostFree(void *pointer)
{
    return free_kind("hipHostFree", pointer, true);
}

HIP_API hipError_t hipFreeHost(void *pointer)
{
    return free_kind("hipFreeHost", pointer, true);
}

/* ---- the program's own memory ---- */

HIP_API hipError_t hipHostRegister(void *host, size_t bytes, unsigned flags)
{
    ENTER_DEVICE("hipHostRegister", d);
    if (!host || !bytes || flags & ~15u)
        return done(hipErrorInvalidValue);
    if (vc_find(driver.map, (uintptr_t)host))
        return done(hipErrorHostMemoryAlreadyRegistered);
    return done(vc_register(driver.map, host, bytes, ~0u, d) ? hipSuccess
                                                             : hipErrorHostMemoryAlreadyRegistered);
}

HIP_API hipError_t hipHostUnregister(void *host)
{
    ENTER("hipHostUnregister");
    return done(vc_unregister(driver.map, host) ? hipSuccess : hipErrorHostMemoryNotRegistered);
}

static const struct vc_alloc *host_memory(const void *pointer)
{
    const struct vc_alloc *a = vc_find(driver.map, (uintptr_t)pointer);
    return a && a->live && (a->kind == VC_PINNED || a->kind == VC_REGISTERED) ? a : NULL;
}

HIP_API hipError_t hipHostGetDevicePointer(void **out, void *host, unsigned flags)
{
    ENTER_DEVICE("hipHostGetDevicePointer", d);
    (void)d;
    if (!out || flags || !host_memory(host))
        return done(hipErrorInvalidValue);
    *out = host;
    return hipSuccess;
}

HIP_API hipError_t hipHostGetFlags(unsigned *flags, void *host)
{
    ENTER("hipHostGetFlags");
    if (!flags || !host_memory(host))
        return done(hipErrorInvalidValue);
    *flags = 0;
    return hipSuccess;
}

/* ---- checks ---- */

bool memory_is_pageable(uint64_t address)
{
    return address - driver.map->base >= driver.map->bytes && !vc_find(driver.map, address);
}

hipError_t memory_check(struct device *device, uint64_t address, uint64_t bytes, const char *what)
{
    const struct vc_alloc *a = vc_find(driver.map, address);
    char where[200], text[280];
    if (!bytes || (address && memory_is_pageable(address)))
        return hipSuccess;
    /* Copies between devices need no peer access: the runtime stages them. */
    if (a && vc_may_access(a, address, bytes, a->device < VC_HOST ? a->device : 0))
        return hipSuccess;
    vc_describe(driver.map, address, where, sizeof where);
    snprintf(text, sizeof text, "%s %" PRIu64 " bytes at %s", what, bytes, where);
    vc_report(driver.reports,
              &(struct vc_finding){.check = a && !a->live ? "use-after-free" : "out-of-bounds",
                                   .device = (unsigned)device->ordinal,
                                   .address = address,
                                   .bytes = bytes,
                                   .text = text});
    return hipErrorInvalidValue;
}

HIP_API hipError_t hipMemGetInfo(size_t *available, size_t *total)
{
    ENTER_DEVICE("hipMemGetInfo", d);
    uint64_t limit = vc_faults_memory(driver.faults, (unsigned)d->ordinal);
    uint64_t used = vc_used(driver.map, (unsigned)d->ordinal);
    limit = limit < d->memory ? limit : d->memory;
    if (available)
        *available = used < limit ? limit - used : 0;
    if (total)
        *total = d->memory;
    return hipSuccess;
}

/* ---- what is known of a pointer ---- */

static const struct vc_alloc *live_at(const void *pointer)
{
    const struct vc_alloc *a = vc_find(driver.map, (uintptr_t)pointer);
    return a && a->live && (uintptr_t)pointer - a->base < a->size ? a : NULL;
}

HIP_API hipError_t hipPointerGetAttributes(hipPointerAttribute_t *out, const void *pointer)
{
    ENTER("hipPointerGetAttributes");
    const struct vc_alloc *a = live_at(pointer);
    if (!out || !a)
        return done(hipErrorInvalidValue);
    bool host = a->device >= VC_HOST;
    const struct device *owner = a->owner;
    *out = (hipPointerAttribute_t){
        .memoryType = a->kind == VC_MANAGED ? hipMemoryTypeUnified
                      : host                ? hipMemoryTypeHost
                                            : hipMemoryTypeDevice,
        .device = host ? (owner ? owner->ordinal : 0) : a->device,
        .devicePointer = (void *)(uintptr_t)pointer,
        .hostPointer = host ? (void *)(uintptr_t)pointer : NULL,
        .isManaged = a->kind == VC_MANAGED,
    };
    return hipSuccess;
}

static hipError_t pointer_attribute(void *out, int which, hipDeviceptr_t pointer)
{
    const struct vc_alloc *a = live_at(pointer);
    hipPointerAttribute_t known = {0};
    if (!out)
        return hipErrorInvalidValue;
    hipError_t result = hipPointerGetAttributes(&known, pointer);
    if (result != hipSuccess)
        return result;
    switch (which) {
    case HIP_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)out = known.memoryType;
        return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(void **)out = known.devicePointer;
        return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_HOST_POINTER:
        *(void **)out = known.hostPointer;
        return known.hostPointer ? hipSuccess : hipErrorInvalidValue;
    case HIP_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned *)out = (unsigned)a->serial;
        return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_IS_MANAGED:
        *(bool *)out = known.isManaged != 0;
        return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)out = known.device;
        return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(uint64_t *)out = a->base;
        return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)out = a->size;
        return hipSuccess;
    case HIP_POINTER_ATTRIBUTE_MAPPED:
        *(bool *)out = true;
        return hipSuccess;
    default:
        return refuse(hipErrorNotSupported, "hipPointerGetAttribute: %d", which);
    }
}

HIP_API hipError_t hipPointerGetAttribute(void *out, int which, hipDeviceptr_t pointer)
{
    ENTER("hipPointerGetAttribute");
    return done(pointer_attribute(out, which, pointer));
}

HIP_API hipError_t hipDrvPointerGetAttributes(unsigned count, int *which, void **out,
                                              hipDeviceptr_t pointer)
{
    ENTER("hipDrvPointerGetAttributes");
    if (!count || !which || !out)
        return done(hipErrorInvalidValue);
    for (unsigned i = 0; i < count; i++) {
        hipError_t result = pointer_attribute(out[i], which[i], pointer);
        if (result != hipSuccess)
            return done(result);
    }
    return hipSuccess;
}

HIP_API hipError_t hipMemGetAddressRange(hipDeviceptr_t *base, size_t *bytes,
                                         hipDeviceptr_t pointer)
{
    ENTER("hipMemGetAddressRange");
    const struct vc_alloc *a = live_at(pointer);
    if (!a)
        return done(hipErrorInvalidDevicePointer);
    if (base)
        *base = (hipDeviceptr_t)(uintptr_t)a->base;
    if (bytes)
        *bytes = a->size;
    return hipSuccess;
}

HIP_API hipError_t hipMemPtrGetInfo(void *pointer, size_t *bytes)
{
    if (!bytes)
        return done(hipErrorInvalidValue);
    return hipMemGetAddressRange(NULL, bytes, pointer);
}

/* ---- advice: managed memory is everywhere at once here ---- */

static hipError_t managed(const char *name, const void *pointer, size_t bytes)
{
    ENTER(name);
    const struct vc_alloc *a = vc_find(driver.map, (uintptr_t)pointer);
    bool fine = a && a->live && a->kind == VC_MANAGED && bytes &&
                vc_may_access(a, (uintptr_t)pointer, bytes, 0);
    return done(fine ? hipSuccess : hipErrorInvalidValue);
}

HIP_API hipError_t hipMemPrefetchAsync(const void *pointer, size_t bytes, int ordinal,
                                       hipStream_t stream)
{
    (void)ordinal, (void)stream;
    return managed("hipMemPrefetchAsync", pointer, bytes);
}

HIP_API hipError_t hipMemAdvise(const void *pointer, size_t bytes, int advice, int ordinal)
{
    (void)advice, (void)ordinal;
    return managed("hipMemAdvise", pointer, bytes);
}

HIP_API hipError_t hipStreamAttachMemAsync(hipStream_t stream, void *pointer, size_t bytes,
                                           unsigned flags)
{
    (void)stream, (void)flags;
    return managed("hipStreamAttachMemAsync", pointer, bytes ? bytes : 1);
}

/* ---- pools: memory in stream order; what is freed is given back at once ---- */

struct ihipMemPoolHandle_t {
    struct device *device;
    uint64_t threshold;
    _Atomic uint64_t used, high;
};

static hipError_t default_pool(struct device *device, hipMemPool_t *out)
{
    lock();
    if (!device->default_pool) {
        hipMemPool_t pool = calloc(1, sizeof *pool);
        if (pool && !vc_handle_add(pool, HANDLE_POOL)) {
            free(pool);
            pool = NULL;
        }
        if (pool)
            pool->device = device;
        device->default_pool = device->pool = pool;
    }
    *out = device->default_pool;
    unlock();
    return *out ? hipSuccess : hipErrorOutOfMemory;
}

HIP_API hipError_t hipDeviceGetDefaultMemPool(hipMemPool_t *pool, int ordinal)
{
    struct device *d;
    ENTER("hipDeviceGetDefaultMemPool");
    hipError_t result = pool ? device_of(ordinal, &d) : hipErrorInvalidValue;
    return done(result == hipSuccess ? default_pool(d, pool) : result);
}

HIP_API hipError_t hipDeviceGetMemPool(hipMemPool_t *pool, int ordinal)
{
    hipError_t result = hipDeviceGetDefaultMemPool(pool, ordinal);
    if (result == hipSuccess)
        *pool = driver.device[ordinal].pool;
    return result;
}

HIP_API hipError_t hipDeviceSetMemPool(int ordinal, hipMemPool_t pool)
{
    struct device *d;
    ENTER("hipDeviceSetMemPool");
    hipError_t result = device_of(ordinal, &d);
    if (result != hipSuccess || !vc_handle_is(pool, HANDLE_POOL) || pool->device != d)
        return done(hipErrorInvalidValue);
    d->pool = pool;
    return hipSuccess;
}

static void pool_count(hipMemPool_t pool, uint64_t bytes)
{
    uint64_t used = atomic_fetch_add(&pool->used, bytes) + bytes;
    uint64_t high = pool->high;
    while (used > high && !atomic_compare_exchange_weak(&pool->high, &high, used))
        ;
}

static hipError_t pool_alloc(const char *name, void **out, size_t bytes, hipMemPool_t pool,
                             hipStream_t stream)
{
    uint64_t address;
    hipStream_t resolved;
    ENTER_DEVICE(name, d);
    hipError_t result = out ? stream_resolve(d, stream, &resolved) : hipErrorInvalidValue;
    if (result == hipSuccess && !pool) {
        lock();
        pool = d->pool;
        unlock();
        if (!pool)
            result = default_pool(d, &pool);
    }
    if (result == hipSuccess && !vc_handle_is(pool, HANDLE_POOL))
        result = hipErrorInvalidValue;
    if (result == hipSuccess)
        result = memory_alloc(pool->device, bytes, VC_POOLED, NULL, &address);
    if (result != hipSuccess)
        return done(result);
    pool_count(pool, bytes);
    *out = (void *)(uintptr_t)address;
    return hipSuccess;
}

HIP_API hipError_t hipMallocAsync(void **out, size_t bytes, hipStream_t stream)
{
    return pool_alloc("hipMallocAsync", out, bytes, NULL, stream);
}

HIP_API hipError_t hipMallocFromPoolAsync(void **out, size_t bytes, hipMemPool_t pool,
                                          hipStream_t stream)
{
    return pool_alloc("hipMallocFromPoolAsync", out, bytes, pool, stream);
}

HIP_API hipError_t hipFreeAsync(void *pointer, hipStream_t handle)
{
    hipStream_t stream;
    ENTER_DEVICE("hipFreeAsync", d);
    const struct vc_alloc *a = live_base((uintptr_t)pointer);
    hipError_t result = stream_resolve(d, handle, &stream);
    if (result != hipSuccess || !a || (a->kind != VC_POOLED && a->kind != VC_GLOBAL))
        return done(hipErrorInvalidValue);
    if (d->default_pool && a->kind == VC_POOLED)
        atomic_fetch_sub(&d->default_pool->used, a->size);
    struct op op = {.kind = OP_FREE, .address = (uintptr_t)pointer};
    return done(stream_submit(stream, &op, NULL));
}

static hipError_t pool_attribute(hipMemPool_t pool, int which, void *value, bool set)
{
    if (!vc_handle_is(pool, HANDLE_POOL) || !value)
        return hipErrorInvalidValue;
    switch (which) {
    case hipMemPoolReuseFollowEventDependencies:
    case hipMemPoolReuseAllowOpportunistic:
    case hipMemPoolReuseAllowInternalDependencies:
        if (!set)
            *(int *)value = 1; /* a hint: what is freed is never reused early here */
        return hipSuccess;
    case hipMemPoolAttrReleaseThreshold:
        if (set)
            pool->threshold = *(uint64_t *)value;
        else
            *(uint64_t *)value = pool->threshold;
        return hipSuccess;
    case hipMemPoolAttrReservedMemCurrent:
    case hipMemPoolAttrUsedMemCurrent:
        if (!set)
            *(uint64_t *)value = pool->used;
        return set ? hipErrorInvalidValue : hipSuccess;
    case hipMemPoolAttrReservedMemHigh:
    case hipMemPoolAttrUsedMemHigh:
        if (set)
            pool->high = *(uint64_t *)value ? pool->high : (uint64_t)pool->used;
        else
            *(uint64_t *)value = pool->high;
        return hipSuccess;
    default:
        return hipErrorInvalidValue;
    }
}

HIP_API hipError_t hipMemPoolSetAttribute(hipMemPool_t pool, int which, void *value)
{
    ENTER("hipMemPoolSetAttribute");
    return done(pool_attribute(pool, which, value, true));
}

HIP_API hipError_t hipMemPoolGetAttribute(hipMemPool_t pool, int which, void *value)
{
    ENTER("hipMemPoolGetAttribute");
    return done(pool_attribute(pool, which, value, false));
}

HIP_API hipError_t hipMemPoolTrimTo(hipMemPool_t pool, size_t bytes)
{
    (void)bytes;
    ENTER("hipMemPoolTrimTo");
    return done(vc_handle_is(pool, HANDLE_POOL) ? hipSuccess : hipErrorInvalidValue);
}
