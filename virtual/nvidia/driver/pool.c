/* pool.c: memory in stream order: pools, allocation, free.
 *
 * An allocation is there when the call returns; a free happens when the stream gets to it. A pool
 * holds nothing back, so that what is used and what is reserved are the same; its threshold is kept
 * and answered. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

struct CUmemPoolHandle_st {
    struct device *device;
    uint64_t used, high, reserved_high, most; /* most: 0 no limit of its own */
    uint64_t threshold;
    int reuse[4];
    uint32_t access; /* other devices' */
    bool is_default;
};

static CUmemoryPool pool_make(struct device *device, uint64_t most, bool is_default)
{
    CUmemoryPool pool = calloc(1, sizeof *pool);
    if (!pool || !vc_handle_add(pool, HANDLE_POOL)) {
        free(pool);
        return NULL;
    }
    pool->device = device;
    pool->most = most;
    pool->is_default = is_default;
    for (int i = 1; i <= 3; i++)
        pool->reuse[i] = 1;
    return pool;
}

static CUresult default_pool(struct device *device, CUmemoryPool *out)
{
    lock();
    if (!device->default_pool)
        device->default_pool = device->pool = pool_make(device, 0, true);
    *out = device->default_pool;
    unlock();
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

void pool_freed(CUmemoryPool pool, uint64_t bytes)
{
    if (!vc_handle_is(pool, HANDLE_POOL))
        return;
    __atomic_sub_fetch(&pool->used, bytes, __ATOMIC_RELAXED);
}

static CUresult alloc(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream handle,
                      bool per_thread)
{
    ENTER_CONTEXT("cuMemAllocAsync", context);
    CUstream stream;
    if (!out || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = stream_resolve(context, handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (stream->capture)
        return refuse(CUDA_ERROR_NOT_SUPPORTED,
                      "cuMemAllocAsync in a capture: nodes that allocate");
    if (!pool) {
        result = default_pool(stream->context->device, &pool);
        if (result != CUDA_SUCCESS)
            return result;
        pool = stream->context->device->pool;
    } else if (!vc_handle_is(pool, HANDLE_POOL)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (pool->most && bytes > pool->most - pool->used)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* What frees are under way may make room. */
    result = memory_alloc(stream->context, bytes, VC_POOLED, NULL, (uintptr_t)pool, out);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        context_drain(stream->context);
        result = memory_alloc(stream->context, bytes, VC_POOLED, NULL, (uintptr_t)pool, out);
    }
    if (result != CUDA_SUCCESS)
        return result;
    vc_set_access(vc_find(driver.map, *out), 1u << pool->device->ordinal | pool->access);
    lock();
    pool->used += bytes;
    pool->high = pool->used > pool->high ? pool->used : pool->high;
    pool->reserved_high = pool->high > pool->reserved_high ? pool->high : pool->reserved_high;
    unlock();
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemAllocAsync(CUdeviceptr *out, size_t bytes, CUstream stream)
{
    return alloc(out, bytes, NULL, stream, false);
}

CU_API CUresult cuMemAllocAsync_ptsz(CUdeviceptr *out, size_t bytes, CUstream stream)
{
    return alloc(out, bytes, NULL, stream, true);
}

CU_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *out, size_t bytes, CUmemoryPool pool,
                                        CUstream stream)
{
    return pool ? alloc(out, bytes, pool, stream, false) : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *out, size_t bytes, CUmemoryPool pool,
                                             CUstream stream)
{
    return pool ? alloc(out, bytes, pool, stream, true) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult free_async(CUdeviceptr address, CUstream handle, bool per_thread)
{
    ENTER_CONTEXT("cuMemFreeAsync", context);
    CUstream stream;
    CUresult result = stream_resolve(context, handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    const struct vc_alloc *a = vc_find(driver.map, address);
    if (!a || !a->live || a->base != address || (a->kind != VC_POOLED && a->kind != VC_GLOBAL))
        return CUDA_ERROR_INVALID_VALUE;
    struct op op = {.kind = OP_FREE, .address = address};
    return stream_submit(stream, &op, NULL);
}

CU_API CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    return free_async(address, stream, false);
}

CU_API CUresult cuMemFreeAsync_ptsz(CUdeviceptr address, CUstream stream)
{
    return free_async(address, stream, true);
}

/* ---- pools ---- */

#define POOL(pool)                                                                                 \
    do {                                                                                           \
        if (!vc_handle_is(pool, HANDLE_POOL))                                                      \
            return CUDA_ERROR_INVALID_VALUE;                                                       \
    } while (0)

CU_API CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props)
{
    ENTER("cuMemPoolCreate");
    struct device *device;
    if (!out || !props || props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    if (props->handleTypes || props->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuMemPoolCreate: shared or host pools");
    CUresult result = device_of(props->location.id, &device);
    if (result != CUDA_SUCCESS)
        return result;
    *out = pool_make(device, props->maxSize, false);
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CU_API CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    ENTER("cuMemPoolDestroy");
    POOL(pool);
    if (pool->is_default)
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < driver.count; i++)
        if (driver.device[i].pool == pool)
            driver.device[i].pool = driver.device[i].default_pool;
    vc_handle_remove(pool);
    free(pool);
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    ENTER("cuMemPoolTrimTo");
    POOL(pool);
    (void)keep;
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    ENTER("cuMemPoolSetAttribute");
    POOL(pool);
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        pool->reuse[attribute] = *(int *)value;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        pool->threshold = *(cuuint64_t *)value;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: /* to be set to zero, which means back to what is now */
        if (*(cuuint64_t *)value)
            return CUDA_ERROR_INVALID_VALUE;
        *(attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? &pool->high : &pool->reserved_high) =
            pool->used;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CU_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    ENTER("cuMemPoolGetAttribute");
    POOL(pool);
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        *(int *)value = pool->reuse[attribute];
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        *(cuuint64_t *)value = pool->threshold;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        *(cuuint64_t *)value = pool->used;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        *(cuuint64_t *)value = pool->reserved_high;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        *(cuuint64_t *)value = pool->high;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

static void share_pooled(const struct vc_alloc *a, void *user)
{
    CUmemoryPool pool = user;
    if (a->kind == VC_POOLED && a->stream == (uintptr_t)pool)
        vc_set_access((struct vc_alloc *)a, 1u << pool->device->ordinal | pool->access);
}

CU_API CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *access, size_t count)
{
    ENTER("cuMemPoolSetAccess");
    POOL(pool);
    for (size_t i = 0; i < count; i++) {
        struct device *device;
        if (!access || access[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            device_of(access[i].location.id, &device) != CUDA_SUCCESS)
            return CUDA_ERROR_INVALID_VALUE;
        uint32_t bit = 1u << device->ordinal;
        if (device == pool->device) {
            if (access[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
                return CUDA_ERROR_INVALID_VALUE;
        } else if (!(driver.links[device->ordinal] >> pool->device->ordinal & 1)) {
            return CUDA_ERROR_INVALID_DEVICE;
        } else if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
            pool->access |= bit;
        } else if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_NONE) {
            pool->access &= ~bit;
        } else {
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    vc_each(driver.map, share_pooled, pool);
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool pool,
                                   CUmemLocation *location)
{
    ENTER("cuMemPoolGetAccess");
    POOL(pool);
    struct device *device;
    if (!flags || !location || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
        device_of(location->id, &device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_VALUE;
    bool may = device == pool->device || pool->access >> device->ordinal & 1;
    *flags = may ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice ordinal)
{
    ENTER("cuDeviceGetDefaultMemPool");
    struct device *device;
    CUresult result = device_of(ordinal, &device);
    if (result != CUDA_SUCCESS)
        return result;
    return pool ? default_pool(device, pool) : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice ordinal)
{
    ENTER("cuDeviceGetMemPool");
    struct device *device;
    CUresult result = device_of(ordinal, &device);
    if (result == CUDA_SUCCESS)
        result = pool ? default_pool(device, pool) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *pool = device->pool;
    return result;
}

CU_API CUresult cuDeviceSetMemPool(CUdevice ordinal, CUmemoryPool pool)
{
    ENTER("cuDeviceSetMemPool");
    struct device *device;
    CUmemoryPool unused;
    CUresult result = device_of(ordinal, &device);
    if (result == CUDA_SUCCESS)
        result = default_pool(device, &unused);
    if (result != CUDA_SUCCESS)
        return result;
    POOL(pool);
    if (pool->device != device)
        return CUDA_ERROR_INVALID_VALUE;
    device->pool = pool;
    return CUDA_SUCCESS;
}
