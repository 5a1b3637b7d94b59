/*
 * memory.c: where memory comes from. A handle is the device's address.
 *
 * Host-visible buffers are pinned. A large weight is mapped: it has addresses of its own and memory
 * of this device behind them, which is nobody else's to reach and goes back to the system with it.
 * Other buffers come from the device's pool: those that grow with a sequence or a batch come and go
 * in the middle of work, and to free plain memory may wait for all of the device. The rest, and all
 * where the driver or the device does not have these, is plain.
 */
#include "nvidia.h"

/* Memory that is not plain. */
struct region {
    struct region *next;
    CUdeviceptr at;
    uint64_t mapped; /* bytes; 0: from the pool */
};

mh_status nv_memory_info(void *user, uint64_t *total, uint64_t *available)
{
    struct device *device = user;
    size_t all = 0, left = 0;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    status = CU(device, MemGetInfo(&left, &all));
    nv_leave(device);
    *total = all;
    *available = left;
    return status;
}

/* ---- each kind ---- */

static CUresult map(struct device *device, uint64_t size, struct region *region)
{
    const struct driver *cu = device->cu;
    const CUmemAllocationProp want = {.type = CU_MEM_PINNED,
                                      .location = {CU_MEM_ON_DEVICE, device->ordinal}};
    const CUmemAccessDesc access = {want.location, CU_MEM_READ_WRITE};
    CUmemGenericAllocationHandle memory;
    size_t unit = 0;
    CUresult result = cu->MemGetAllocationGranularity(&unit, &want, 0);
    if (result)
        return result;
    uint64_t bytes = (size + unit - 1) / unit * unit;
    if ((result = cu->MemAddressReserve(&region->at, bytes, 0, 0, 0)))
        return result;
    if (!(result = cu->MemCreate(&memory, bytes, &want, 0))) {
        if (!(result = cu->MemMap(region->at, bytes, 0, memory, 0)) &&
            (result = cu->MemSetAccess(region->at, bytes, &access, 1)))
            cu->MemUnmap(region->at, bytes);
        cu->MemRelease(memory); /* the mapping, if there is one, holds it */
    }
    if (result)
        cu->MemAddressFree(region->at, bytes);
    else
        region->mapped = bytes;
    return result;
}

/* Any stream may use it at once. */
static CUresult take_pooled(struct device *device, uint64_t size, struct region *region)
{
    const struct driver *cu = device->cu;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&device->lock);
    if (!device->pool)
        result = cu->StreamCreate(&device->pool, CU_STREAM_NON_BLOCKING);
    pthread_mutex_unlock(&device->lock);
    if (!result)
        result = cu->MemAllocAsync(&region->at, size, device->pool);
    if (!result && (result = cu->StreamSynchronize(device->pool)))
        cu->MemFreeAsync(region->at, device->pool);
    return result;
}

static void give_back(struct device *device, const struct region *region)
{
    if (!region->mapped) {
        device->cu->MemFreeAsync(region->at, device->pool);
        return;
    }
    device->cu->MemUnmap(region->at, region->mapped);
    device->cu->MemAddressFree(region->at, region->mapped);
}

static CUresult take_region(struct device *device, uint64_t size,
                            CUresult (*take)(struct device *, uint64_t, struct region *),
                            CUdeviceptr *out)
{
    const mh_core *core = device->core;
    struct region *region = core->allocate(core->context, sizeof(*region));
    if (!region)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = take(device, size, region);
    if (result) {
        core->deallocate(core->context, region);
        return result;
    }
    pthread_mutex_lock(&device->lock);
    region->next = device->regions;
    device->regions = region;
    pthread_mutex_unlock(&device->lock);
    *out = region->at;
    return CUDA_SUCCESS;
}

static CUresult take_memory(struct device *device, uint64_t size, uint32_t kind, CUdeviceptr *out)
{
    const struct driver *cu = device->cu;
    bool maps = device->maps_memory && cu->MemGetAllocationGranularity && cu->MemAddressReserve &&
                cu->MemAddressFree && cu->MemCreate && cu->MemRelease && cu->MemMap &&
                cu->MemUnmap && cu->MemSetAccess;
    bool pools = device->pools_memory && cu->MemAllocAsync && cu->MemFreeAsync;
    CUresult result = CUDA_ERROR_NOT_SUPPORTED;
    if (kind == MH_BUFFER_WEIGHT && size >= LARGE_WEIGHT && maps)
        result = take_region(device, size, map, out);
    else if (kind == MH_BUFFER_DEVICE && pools)
        result = take_region(device, size, take_pooled, out);
    /* What a driver refuses to map or pool, plain memory serves; an error that stays comes back. */
    return result && result != CUDA_ERROR_OUT_OF_MEMORY ? cu->MemAlloc(out, size) : result;
}

/* ---- buffers ---- */

static mh_status take_pinned(struct device *device, uint64_t size, CUdeviceptr *out, void **host)
{
    mh_status status = CU(device, MemHostAlloc(host, size, CU_HOST_PORTABLE | CU_HOST_MAPPED));
    if (!status && (status = CU(device, MemHostGetDevicePointer(out, *host, 0)))) {
        device->cu->MemFreeHost(*host);
        *host = NULL;
    }
    return status;
}

mh_status nv_buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct device *device = user;
    CUdeviceptr memory = 0;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    if (kind == MH_BUFFER_HOST_VISIBLE) {
        status = take_pinned(device, size, &memory, &out->host);
    } else {
        CUresult result = take_memory(device, size, kind, &memory);
        if (result == CUDA_ERROR_OUT_OF_MEMORY) {
            size_t left = 0, all = 0;
            device->cu->MemGetInfo(&left, &all);
            status = FAIL(device->core, MH_OUT_OF_MEMORY,
                          "nvidia: %llu bytes could not be had, %zu of %zu are available",
                          (unsigned long long)size, left, all);
        } else {
            status = nv_check(device->instance, result, "cuMemAlloc", __FILE__, __LINE__);
        }
    }
    nv_leave(device);
    if (!status)
        out->handle = (void *)(uintptr_t)memory;
    return status;
}

/* Takes the region at an address off the list; NULL: it is plain memory. */
static struct region *take_off(struct device *device, CUdeviceptr at)
{
    pthread_mutex_lock(&device->lock);
    struct region **link = &device->regions;
    while (*link && (*link)->at != at)
        link = &(*link)->next;
    struct region *found = *link;
    if (found)
        *link = found->next;
    pthread_mutex_unlock(&device->lock);
    return found;
}

void nv_buffer_destroy(void *user, mh_buffer_view *buffer)
{
    struct device *device = user;
    CUdeviceptr memory = (CUdeviceptr)(uintptr_t)buffer->handle;
    if (nv_enter(device))
        return;
    struct region *region = buffer->host ? NULL : take_off(device, memory);
    if (region) {
        give_back(device, region);
        device->core->deallocate(device->core->context, region);
    } else if (buffer->host) {
        device->cu->MemFreeHost(buffer->host);
    } else {
        device->cu->MemFree(memory);
    }
    nv_leave(device);
}

void nv_memory_close(struct device *device)
{
    while (device->regions) {
        struct region *region = device->regions;
        device->regions = region->next;
        give_back(device, region);
        device->core->deallocate(device->core->context, region);
    }
    if (device->pool)
        device->cu->StreamDestroy(device->pool);
    device->pool = NULL;
}
