/* vmm.c: addresses and memory apart: reserve, create, map, give access. Hints for managed memory.
 */
#include "driver.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GRANULARITY = 2 << 20 };

struct physical { /* what a generic allocation handle stands for */
    struct device *device;
    CUmemAllocationProp prop;
    uint64_t bytes;
    int fd;
    int holders; /* handles and mappings */
    int handles;
};

struct mapping {
    struct mapping *next;
    uint64_t address, bytes, offset;
    struct physical *memory;
};
static struct mapping *mappings; /* guarded by driver.lock */

static CUresult prop_device(const CUmemAllocationProp *prop, struct device **device)
{
    if (!prop || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    if (prop->requestedHandleTypes)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "memory shared between processes");
    if (prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "physical memory of the host");
    return device_of(prop->location.id, device);
}

CU_API CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
                                              int option)
{
    ENTER("cuMemGetAllocationGranularity");
    struct device *device;
    if (!granularity || option < 0 || option > 1)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = prop_device(prop, &device);
    if (result == CUDA_SUCCESS)
        *granularity = GRANULARITY;
    return result;
}

CU_API CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t align, CUdeviceptr at,
                                    unsigned long long flags)
{
    ENTER("cuMemAddressReserve");
    if (!out || !bytes || bytes % GRANULARITY || flags || (align & (align - 1)))
        return CUDA_ERROR_INVALID_VALUE;
    *out = vc_reserve(driver.map, bytes, align > GRANULARITY ? align : GRANULARITY, at);
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CU_API CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes)
{
    ENTER("cuMemAddressFree");
    if (!bytes || bytes % GRANULARITY)
        return CUDA_ERROR_INVALID_VALUE;
    return vc_unreserve(driver.map, address, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes,
                            const CUmemAllocationProp *prop, unsigned long long flags)
{
    ENTER("cuMemCreate");
    struct device *device;
    if (!out || !bytes || bytes % GRANULARITY || flags)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = prop_device(prop, &device);
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t limit = vc_faults_memory(driver.faults, (unsigned)device->ordinal);
    limit = device->memory < limit ? device->memory : limit;
    uint64_t used = vc_used(driver.map, (unsigned)device->ordinal) + device->physical;
    if (used > limit || bytes > limit - used)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct physical *p = calloc(1, sizeof *p);
    int fd = p ? memfd_create("virtual device memory", MFD_CLOEXEC) : -1;
    if (fd < 0 || ftruncate(fd, (off_t)bytes) || !vc_handle_add(p, HANDLE_PHYSICAL)) {
        if (fd >= 0)
            close(fd);
        free(p);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *p = (struct physical){device, *prop, bytes, fd, 1, 1};
    lock();
    device->physical += bytes;
    unlock();
    *out = (uintptr_t)p;
    return CUDA_SUCCESS;
}

static void physical_release(struct physical *p)
{
    if (--p->holders)
        return;
    p->device->physical -= p->bytes;
    close(p->fd);
    free(p);
}

static struct physical *physical_of(CUmemGenericAllocationHandle handle)
{
    struct physical *p = (struct physical *)(uintptr_t)handle;
    return vc_handle_is(p, HANDLE_PHYSICAL) ? p : NULL;
}

CU_API CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    ENTER("cuMemRelease");
    struct physical *p = physical_of(handle);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    if (!--p->handles)
        vc_handle_remove(p);
    physical_release(p);
    unlock();
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset,
                         CUmemGenericAllocationHandle handle, unsigned long long flags)
{
    ENTER("cuMemMap");
    struct physical *p = physical_of(handle);
    if (!p || !bytes || bytes % GRANULARITY || address % GRANULARITY || flags ||
        offset % GRANULARITY || offset > p->bytes || bytes > p->bytes - offset)
        return CUDA_ERROR_INVALID_VALUE;
    struct mapping *m = malloc(sizeof *m);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!vc_map_file(driver.map, address, bytes, p->fd, offset, (unsigned)p->device->ordinal,
                     NULL)) {
        free(m);
        return CUDA_ERROR_INVALID_VALUE;
    }
    lock();
    *m = (struct mapping){mappings, address, bytes, offset, p};
    mappings = m;
    p->holders++;
    unlock();
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    ENTER("cuMemUnmap");
    if (!bytes || bytes % GRANULARITY)
        return CUDA_ERROR_INVALID_VALUE;
    for (CUcontext c = driver.contexts; c; c = c->next)
        context_drain(c);
    if (!vc_unmap_file(driver.map, address, bytes))
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    for (struct mapping **at = &mappings; *at;) {
        struct mapping *m = *at;
        if (m->address < address || m->address >= address + bytes) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        physical_release(m->memory);
        free(m);
    }
    unlock();
    return CUDA_SUCCESS;
}

static struct mapping *mapping_at(uint64_t address)
{
    struct mapping *m = mappings;
    while (m && address - m->address >= m->bytes)
        m = m->next;
    return m;
}

CU_API CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc *access,
                               size_t count)
{
    ENTER("cuMemSetAccess");
    uint32_t give = 0, take = 0;
    if (!access || !count || !bytes || bytes % GRANULARITY)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        struct device *device;
        if (access[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            device_of(access[i].location.id, &device) != CUDA_SUCCESS)
            return CUDA_ERROR_INVALID_VALUE;
        if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ)
            return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuMemSetAccess: memory that is only read");
        *(access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? &give : &take) |=
            1u << device->ordinal;
    }
    CUresult result = CUDA_SUCCESS;
    lock();
    for (uint64_t at = address; at < address + bytes && result == CUDA_SUCCESS;) {
        const struct mapping *m = mapping_at(at);
        struct vc_alloc *a = m ? vc_find(driver.map, at) : NULL;
        if (!a || m->address != at || m->bytes > address + bytes - at) {
            result = CUDA_ERROR_INVALID_VALUE;
            break;
        }
        for (int d = 0; d < driver.count; d++)
            if (give >> d & 1 && d != m->memory->device->ordinal &&
                !(driver.links[d] >> m->memory->device->ordinal & 1))
                result = CUDA_ERROR_INVALID_DEVICE;
        if (result == CUDA_SUCCESS)
            vc_set_access(a, (a->access | give) & ~take);
        at += m->bytes;
    }
    unlock();
    return result;
}

CU_API CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location,
                               CUdeviceptr address)
{
    ENTER("cuMemGetAccess");
    struct device *device;
    if (!flags || !location || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
        device_of(location->id, &device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_VALUE;
    const struct vc_alloc *a = vc_find(driver.map, address);
    if (!a || !a->live || a->kind != VC_MAPPED)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = a->access >> device->ordinal & 1 ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                              : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                       CUmemGenericAllocationHandle handle)
{
    ENTER("cuMemGetAllocationPropertiesFromHandle");
    const struct physical *p = physical_of(handle);
    if (!prop || !p)
        return CUDA_ERROR_INVALID_VALUE;
    *prop = p->prop;
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    ENTER("cuMemRetainAllocationHandle");
    if (!handle)
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    const struct mapping *m = mapping_at((uintptr_t)address);
    if (m) {
        m->memory->holders++;
        if (!m->memory->handles++)
            vc_handle_add(m->memory, HANDLE_PHYSICAL);
        *handle = (uintptr_t)m->memory;
    }
    unlock();
    return m ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- managed memory: it is everywhere already, advice changes nothing ---- */

static CUresult advise(const char *name, CUdeviceptr address, size_t bytes, CUdevice ordinal)
{
    ENTER(name);
    struct device *device;
    const struct vc_alloc *a = vc_find(driver.map, address);
    if (!bytes || !a || !a->live || a->kind != VC_MANAGED || address - a->base > a->size ||
        bytes > a->size - (address - a->base))
        return CUDA_ERROR_INVALID_VALUE;
    return ordinal == CU_DEVICE_CPU ? CUDA_SUCCESS : device_of(ordinal, &device);
}

CU_API CUresult cuMemPrefetchAsync(CUdeviceptr address, size_t bytes, CUdevice device,
                                   CUstream stream)
{
    (void)stream;
    return advise("cuMemPrefetchAsync", address, bytes, device);
}

CU_API CUresult cuMemPrefetchAsync_ptsz(CUdeviceptr address, size_t bytes, CUdevice device,
                                        CUstream stream)
{
    (void)stream;
    return advise("cuMemPrefetchAsync", address, bytes, device);
}

static CUdevice location_device(CUmemLocation location)
{
    return location.type == CU_MEM_LOCATION_TYPE_DEVICE ? location.id : CU_DEVICE_CPU;
}

CU_API CUresult cuMemPrefetchAsync_v2(CUdeviceptr address, size_t bytes, CUmemLocation location,
                                      unsigned flags, CUstream stream)
{
    (void)stream;
    return flags ? CUDA_ERROR_INVALID_VALUE
                 : advise("cuMemPrefetchAsync", address, bytes, location_device(location));
}

CU_API CUresult cuMemPrefetchAsync_v2_ptsz(CUdeviceptr address, size_t bytes,
                                           CUmemLocation location, unsigned flags, CUstream stream)
{
    (void)stream;
    return flags ? CUDA_ERROR_INVALID_VALUE
                 : advise("cuMemPrefetchAsync", address, bytes, location_device(location));
}

CU_API CUresult cuMemAdvise(CUdeviceptr address, size_t bytes, int advice, CUdevice device)
{
    return advice < 1 || advice > 6 ? CUDA_ERROR_INVALID_VALUE
                                    : advise("cuMemAdvise", address, bytes, device);
}

CU_API CUresult cuMemAdvise_v2(CUdeviceptr address, size_t bytes, int advice,
                               CUmemLocation location)
{
    return advice < 1 || advice > 6
               ? CUDA_ERROR_INVALID_VALUE
               : advise("cuMemAdvise", address, bytes, location_device(location));
}
