/* device.c: start of the driver, devices and their attributes. */
#include "driver.h"
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

CUresult driver_start(void)
{
    CUresult result = CUDA_ERROR_NOT_INITIALIZED;
    char why[200];
    lock();
    if (driver.initialised) {
        unlock();
        return CUDA_SUCCESS;
    }
    if (!driver.reports)
        driver.reports = vc_reports_create("virtual NVIDIA");
    if (!driver.faults)
        driver.faults = vc_faults_create();
    if (!driver.map && !(driver.map = vc_map_create(why))) {
        fprintf(stderr, "virtual NVIDIA: %s\n", why);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (!driver.reports || !driver.faults) {
        result = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (settings_read()) {
        driver.initialised = true;
        result = CUDA_SUCCESS;
    } else {
        result = CUDA_ERROR_INVALID_VALUE;
    }
    unlock();
    return result;
}

CUresult device_of(CUdevice ordinal, struct device **out)
{
    if (ordinal < 0 || ordinal >= driver.count)
        return CUDA_ERROR_INVALID_DEVICE;
    *out = &driver.device[ordinal];
    return CUDA_SUCCESS;
}

#define DEVICE(ordinal, d)                                                                         \
    struct device *d;                                                                              \
    do {                                                                                           \
        CUresult found_ = device_of(ordinal, &d);                                                  \
        if (found_ != CUDA_SUCCESS)                                                                \
            return found_;                                                                         \
    } while (0)

CU_API CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER("cuDeviceGet");
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    DEVICE(ordinal, d);
    *device = d->ordinal;
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceGetCount(int *count)
{
    ENTER("cuDeviceGetCount");
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = driver.count;
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
    ENTER("cuDeviceGetName");
    DEVICE(device, d);
    if (!name || size <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)size, "%s", d->name);
    return CUDA_SUCCESS;
}

/* "VGPU" and the ordinal: the same in every process, as hardware's is. */
static CUresult get_uuid(CUuuid *uuid, CUdevice device)
{
    DEVICE(device, d);
    if (!uuid)
        return CUDA_ERROR_INVALID_VALUE;
    memset(uuid, 0, sizeof *uuid);
    memcpy(uuid->bytes, "moehal-virtual", 14);
    uuid->bytes[15] = (char)d->ordinal;
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    ENTER("cuDeviceGetUuid");
    return get_uuid(uuid, device);
}

CU_API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    ENTER("cuDeviceGetUuid");
    return get_uuid(uuid, device);
}

static uint64_t device_memory(const struct device *d)
{
    uint64_t limit = vc_faults_memory(driver.faults, (unsigned)d->ordinal);
    return d->memory < limit ? d->memory : limit;
}

CU_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    ENTER("cuDeviceTotalMem");
    DEVICE(device, d);
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = device_memory(d);
    return CUDA_SUCCESS;
}

CU_API CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    ENTER_CONTEXT("cuMemGetInfo", context);
    uint64_t all = device_memory(context->device);
    uint64_t used =
        vc_used(driver.map, (unsigned)context->device->ordinal) + context->device->physical;
    if (available)
        *available = all > used ? all - used : 0;
    if (total)
        *total = all;
    return CUDA_SUCCESS;
}

static int attribute_of(const struct device *d, int attribute)
{
    const struct limits *l = &d->limits;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
        return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
        return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
        return 0x7fffffff;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
        return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
        return 48 << 10;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
        return 64 << 10;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
        return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH:
        return 0x7fffffff;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
        return 65536;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
        return l->clock_khz;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
        return 512;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        return l->sms;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        return d->ordinal + 1;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
        return l->memory_clock_khz;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
        return l->bus_bits;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
        return l->l2;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
        return 32 * l->warps_per_sm;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
        return 2;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        return l->capability / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        return l->capability % 10;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
        return l->shared_per_sm;
    case CU_DEVICE_ATTRIBUTE_SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO:
        return l->capability == 80 || l->capability == 90 || l->capability == 100 ? 2 : 64;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        return l->shared_optin;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
        return l->blocks_per_sm;
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK:
        return 1 << 10;
    case CU_DEVICE_ATTRIBUTE_NUMA_ID:
    case CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID:
        return -1;
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_ECC_ENABLED:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS:
    case CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1:
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST:
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR:
        return 1;
    default: /* textures, clusters, interprocess handles, tensor maps and so on: not there */
        return 0;
    }
}

CU_API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    ENTER("cuDeviceGetAttribute");
    DEVICE(device, d);
    if (!value || attribute < 1 || attribute > CU_DEVICE_ATTRIBUTE_LAST)
        return CUDA_ERROR_INVALID_VALUE;
    *value = attribute_of(d, attribute);
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    ENTER("cuDeviceComputeCapability");
    DEVICE(device, d);
    if (!major || !minor)
        return CUDA_ERROR_INVALID_VALUE;
    *major = d->limits.capability / 10;
    *minor = d->limits.capability % 10;
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceGetPCIBusId(char *id, int size, CUdevice device)
{
    ENTER("cuDeviceGetPCIBusId");
    DEVICE(device, d);
    if (!id || size <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(id, (size_t)size, "0000:%02x:00.0", d->ordinal + 1);
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *id)
{
    ENTER("cuDeviceGetByPCIBusId");
    unsigned domain = 0, bus, slot, function = 0;
    if (!device || !id)
        return CUDA_ERROR_INVALID_VALUE;
    if (sscanf(id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
        domain = 0;
        if (sscanf(id, "%x:%x.%x", &bus, &slot, &function) < 2)
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (domain || slot || function || bus < 1 || bus > (unsigned)driver.count)
        return CUDA_ERROR_INVALID_DEVICE;
    *device = (CUdevice)bus - 1;
    return CUDA_SUCCESS;
}

static bool linked(CUdevice a, CUdevice b)
{
    return driver.links[a] >> b & 1;
}

CU_API CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
    ENTER("cuDeviceCanAccessPeer");
    DEVICE(device, d);
    DEVICE(peer, p);
    if (!can)
        return CUDA_ERROR_INVALID_VALUE;
    *can = linked(d->ordinal, p->ordinal);
    return CUDA_SUCCESS;
}

CU_API CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice from,
                                        CUdevice to)
{
    ENTER("cuDeviceGetP2PAttribute");
    DEVICE(from, a);
    DEVICE(to, b);
    if (!value || a == b || attribute < CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK ||
        attribute > CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED)
        return CUDA_ERROR_INVALID_VALUE;
    bool direct = attribute == CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED ||
                  attribute == CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED;
    *value = direct && linked(a->ordinal, b->ordinal);
    return CUDA_SUCCESS;
}
