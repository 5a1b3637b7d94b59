/* memory.c: allocation of device and host memory; what an address is. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

/* Devices that may touch memory of `owner`: itself, and those with a context that enabled it. */
uint32_t memory_mask(const struct device *owner)
{
    uint32_t mask = 1u << owner->ordinal;
    for (CUcontext c = driver.contexts; c; c = c->next)
        if (c->peers >> owner->ordinal & 1)
            mask |= 1u << c->device->ordinal;
    return mask;
}

static uint64_t device_limit(const struct device *d)
{
    uint64_t limit = vc_faults_memory(driver.faults, (unsigned)d->ordinal);
    return d->memory < limit ? d->memory : limit;
}

static void note_peak(unsigned device)
{
    uint64_t used = vc_used(driver.map, device);
    count_most(device, COUNT_PEAK, used);
}

CUresult memory_alloc(CUcontext context, uint64_t bytes, enum vc_kind kind, const char *name,
                      uint64_t stream, CUdeviceptr *out)
{
    bool host = kind == VC_PINNED || kind == VC_MANAGED;
    struct device *device = context->device;
    unsigned ordinal = (unsigned)device->ordinal;
    if (!host) {
        uint64_t limit = device_limit(device),
                 used = vc_used(driver.map, ordinal) + device->physical;
        if (used > limit || bytes > limit - used)
            return refuse(CUDA_ERROR_OUT_OF_MEMORY,
                          "device %u: %llu bytes wanted, %llu of %llu are in use", ordinal,
                          (unsigned long long)bytes, (unsigned long long)used,
                          (unsigned long long)limit);
    }
    lock();
    uint32_t access = host ? ~0u : memory_mask(device);
    unlock();
    struct vc_alloc_info info = {
        .bytes = bytes,
        .align = 512,
        .device = host ? VC_HOST : ordinal,
        .kind = kind,
        .access = access,
        .owner = context,
        .stream = stream,
        .name = name,
    };
    uint64_t address = vc_alloc(driver.map, &info);
    if (!address)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!host) {
        count_add(ordinal, COUNT_ALLOCS, 1);
        note_peak(ordinal);
    }
    *out = address;
    return CUDA_SUCCESS;
}

/* A live allocation that begins at `address`, of one of the kinds in the mask. */
static CUresult begins_at(uint64_t address, uint32_t kinds, struct vc_alloc **out)
{
    struct vc_alloc *a = vc_find(driver.map, address);
    if (!a || !a->live || a->base != address || !(kinds >> a->kind & 1))
        return CUDA_ERROR_INVALID_VALUE;
    *out = a;
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
    ENTER_CONTEXT("cuMemAlloc", context);
    if (!out || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = capture_forbids(context, NULL);
    return result == CUDA_SUCCESS ? memory_alloc(context, bytes, VC_GLOBAL, NULL, 0, out) : result;
}

CU_API CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width, size_t height,
                                   unsigned element)
{
    ENTER_CONTEXT("cuMemAllocPitch", context);
    if (!out || !pitch || !width || !height || width > 0x7fffffff || height > 1u << 30 ||
        (element != 4 && element != 8 && element != 16))
        return CUDA_ERROR_INVALID_VALUE;
    *pitch = (width + 511) & ~(size_t)511;
    return memory_alloc(context, *pitch * height, VC_GLOBAL, NULL, 0, out);
}

CU_API CUresult cuMemAllocManaged(CUdeviceptr *out, size_t bytes, unsigned flags)
{
    ENTER_CONTEXT("cuMemAllocManaged", context);
    if (!out || !bytes || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    return memory_alloc(context, bytes, VC_MANAGED, NULL, 0, out);
}

CUresult memory_free_now(uint64_t address)
{
    struct vc_alloc *a;
    CUresult result = begins_at(address, 1u << VC_GLOBAL | 1u << VC_MANAGED | 1u << VC_POOLED, &a);
    if (result != CUDA_SUCCESS)
        return result;
    if (a->kind == VC_POOLED)
        pool_freed((CUmemoryPool)(uintptr_t)a->stream, a->size);
    return vc_free(driver.map, address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuMemFree_v2(CUdeviceptr address)
{
    ENTER_CONTEXT("cuMemFree", context);
    struct vc_alloc *a;
    if (!address)
        return CUDA_SUCCESS;
    CUresult result = begins_at(address, 1u << VC_GLOBAL | 1u << VC_MANAGED | 1u << VC_POOLED, &a);
    if (result == CUDA_SUCCESS)
        result = capture_forbids(context, NULL);
    if (result != CUDA_SUCCESS)
        return result;
    context_drain(vc_handle_is(a->owner, HANDLE_CONTEXT) ? a->owner : context);
    return memory_free_now(address);
}

CU_API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    ENTER_CONTEXT("cuMemGetAddressRange", context);
    const struct vc_alloc *a = vc_find(driver.map, address);
    if (!a || !a->live)
        return CUDA_ERROR_NOT_FOUND;
    if (base)
        *base = a->base;
    if (bytes)
        *bytes = a->size;
    return CUDA_SUCCESS;
}

/* ---- host memory ---- */

static CUresult host_alloc(CUcontext context, void **out, size_t bytes)
{
    CUdeviceptr address;
    if (!out || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = memory_alloc(context, bytes, VC_PINNED, NULL, 0, &address);
    if (result == CUDA_SUCCESS)
        *out = (void *)(uintptr_t)address;
    return result;
}

CU_API CUresult cuMemAllocHost_v2(void **out, size_t bytes)
{
    ENTER_CONTEXT("cuMemAllocHost", context);
    return host_alloc(context, out, bytes);
}

CU_API CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned flags)
{
    ENTER_CONTEXT("cuMemHostAlloc", context);
    if (flags & ~(unsigned)CU_MEMHOSTALLOC_FLAGS)
        return CUDA_ERROR_INVALID_VALUE;
    return host_alloc(context, out, bytes);
}

CU_API CUresult cuMemFreeHost(void *host)
{
    ENTER_CONTEXT("cuMemFreeHost", context);
    struct vc_alloc *a;
    CUresult result = begins_at((uintptr_t)host, 1u << VC_PINNED, &a);
    if (result != CUDA_SUCCESS)
        return result;
    context_drain(vc_handle_is(a->owner, HANDLE_CONTEXT) ? a->owner : context);
    return vc_free(driver.map, (uintptr_t)host) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuMemHostRegister_v2(void *host, size_t bytes, unsigned flags)
{
    ENTER_CONTEXT("cuMemHostRegister", context);
    if (!host || !bytes || flags & ~(unsigned)CU_MEMHOSTREGISTER_FLAGS)
        return CUDA_ERROR_INVALID_VALUE;
    if (vc_find(driver.map, (uintptr_t)host))
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    return vc_register(driver.map, host, bytes, ~0u, context)
               ? CUDA_SUCCESS
               : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CU_API CUresult cuMemHostUnregister(void *host)
{
    ENTER_CONTEXT("cuMemHostUnregister", context);
    context_drain(context);
    return vc_unregister(driver.map, host) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

static bool is_host_kind(const struct vc_alloc *a)
{
    return a && a->live && a->device == VC_HOST && a->kind != VC_MAPPED;
}

CU_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *host, unsigned flags)
{
    ENTER_CONTEXT("cuMemHostGetDevicePointer", context);
    if (!out || flags || !is_host_kind(vc_find(driver.map, (uintptr_t)host)))
        return CUDA_ERROR_INVALID_VALUE;
    *out = (uintptr_t)host;
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemHostGetFlags(unsigned *flags, void *host)
{
    ENTER_CONTEXT("cuMemHostGetFlags", context);
    const struct vc_alloc *a = vc_find(driver.map, (uintptr_t)host);
    if (!flags || !is_host_kind(a) || a->kind != VC_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = 2; /* mapped, as all of it is */
    return CUDA_SUCCESS;
}

/* ---- what an address is ---- */

bool memory_is_pageable(uint64_t address)
{
    return address - driver.map->base >= driver.map->bytes && !vc_find(driver.map, address);
}

CUresult memory_check(CUcontext context, uint64_t address, uint64_t bytes, bool host_allowed)
{
    if (!bytes)
        return CUDA_SUCCESS;
    if (memory_is_pageable(address))
        return host_allowed && address ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    const struct vc_alloc *a = vc_find(driver.map, address);
    unsigned device = (unsigned)context->device->ordinal;
    /* The driver copies between any two devices; kernels need peer access. */
    if (a && a->device < VC_HOST && a->kind != VC_MAPPED)
        device = a->device;
    if (vc_may_access(a, address, bytes, device))
        return CUDA_SUCCESS;
    /* Neighbouring mappings of one reserved range are one piece of memory. */
    while (a && a->kind == VC_MAPPED && a->live && address - a->base < a->size &&
           vc_may_access(a, address,
                         a->base + a->size - address < bytes ? a->base + a->size - address : bytes,
                         device)) {
        uint64_t here = a->base + a->size - address;
        if (here >= bytes)
            return CUDA_SUCCESS;
        address += here;
        bytes -= here;
        a = vc_find(driver.map, address);
    }
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult attribute_get(void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
    const struct vc_alloc *a = vc_find(driver.map, address);
    if (!a || !a->live || address - a->base >= a->size)
        return CUDA_ERROR_INVALID_VALUE;
    bool managed = a->kind == VC_MANAGED;
    bool host = a->device == VC_HOST && !managed && a->kind != VC_MAPPED;
    CUcontext owner = vc_handle_is(a->owner, HANDLE_CONTEXT) ? a->owner : NULL;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = owner;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)data = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!host && !managed)
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)data = (void *)(uintptr_t)address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
        *(unsigned *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = a->serial;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)data = managed;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = a->device < VC_HOST ? a->device : owner ? owner->device->ordinal : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = a->base;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = a->size;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(unsigned *)data = 1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        *(unsigned long long *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        *(int *)data = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *(CUmemoryPool *)data = a->kind == VC_POOLED ? (CUmemoryPool)(uintptr_t)a->stream : NULL;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}

CU_API CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute,
                                      CUdeviceptr address)
{
    ENTER("cuPointerGetAttribute");
    if (!data || attribute < 1 || attribute > 20)
        return CUDA_ERROR_INVALID_VALUE;
    return attribute_get(data, attribute, address);
}

static size_t attribute_size(CUpointer_attribute attribute)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
    case CU_POINTER_ATTRIBUTE_MAPPED:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        return 4;
    default:
        return 8;
    }
}

/* Of an address that is nobody's, everything is zero, without an error. */
CU_API CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **data,
                                       CUdeviceptr address)
{
    ENTER("cuPointerGetAttributes");
    if (!count || !attributes || !data)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        if (!data[i] || attributes[i] < 1 || attributes[i] > 20)
            return CUDA_ERROR_INVALID_VALUE;
        if (attribute_get(data[i], attributes[i], address) == CUDA_SUCCESS)
            continue;
        memset(data[i], 0, attribute_size(attributes[i]));
        if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
            *(int *)data[i] = CU_DEVICE_INVALID;
    }
    return CUDA_SUCCESS;
}

CU_API CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute,
                                      CUdeviceptr address)
{
    ENTER("cuPointerSetAttribute");
    const struct vc_alloc *a = vc_find(driver.map, address);
    if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !a || !a->live)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS; /* memory operations of the default stream are synchronous here */
}
