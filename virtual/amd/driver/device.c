/* device.c: devices, their attributes, peers, and the contexts of HIP's first API. */
#include "driver.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static _Thread_local int current;

struct device *device_current(void)
{
    return &driver.device[current < driver.count ? current : 0];
}

hipError_t device_of(int ordinal, struct device **out)
{
    if (ordinal < 0 || ordinal >= driver.count)
        return hipErrorInvalidDevice;
    *out = &driver.device[ordinal];
    return hipSuccess;
}

#define DEVICE(ordinal, d)                                                                         \
    struct device *d;                                                                              \
    do {                                                                                           \
        hipError_t found_ = device_of(ordinal, &d);                                                \
        if (found_ != hipSuccess)                                                                  \
            return done(found_);                                                                   \
    } while (0)

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return done(hipErrorInvalidValue);                                                     \
    } while (0)

HIP_API hipError_t hipGetDeviceCount(int *count)
{
    ENTER("hipGetDeviceCount");
    NEED(count);
    *count = driver.count;
    return hipSuccess;
}

HIP_API hipError_t hipSetDevice(int ordinal)
{
    ENTER("hipSetDevice");
    DEVICE(ordinal, d);
    current = d->ordinal;
    return hipSuccess;
}

HIP_API hipError_t hipGetDevice(int *ordinal)
{
    ENTER("hipGetDevice");
    NEED(ordinal);
    *ordinal = device_current()->ordinal;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceGet(hipDevice_t *out, int ordinal)
{
    ENTER("hipDeviceGet");
    NEED(out);
    DEVICE(ordinal, d);
    *out = d->ordinal;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceComputeCapability(int *major, int *minor, hipDevice_t ordinal)
{
    ENTER("hipDeviceComputeCapability");
    DEVICE(ordinal, d);
    (void)d;
    NEED(major && minor);
    *major = 9;
    *minor = 4;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceGetName(char *name, int size, hipDevice_t ordinal)
{
    ENTER("hipDeviceGetName");
    DEVICE(ordinal, d);
    NEED(name && size > 0);
    snprintf(name, (size_t)size, "%s", d->name);
    return hipSuccess;
}

HIP_API hipError_t hipDeviceGetUuid(hipUUID *uuid, hipDevice_t ordinal)
{
    ENTER("hipDeviceGetUuid");
    DEVICE(ordinal, d);
    NEED(uuid);
    memset(uuid, 0, sizeof *uuid);
    memcpy(uuid->bytes, "virtual-gfx942-", 15);
    uuid->bytes[15] = (char)('0' + d->ordinal);
    return hipSuccess;
}

HIP_API hipError_t hipDeviceGetPCIBusId(char *text, int size, int ordinal)
{
    ENTER("hipDeviceGetPCIBusId");
    DEVICE(ordinal, d);
    NEED(text && size >= 13);
    snprintf(text, (size_t)size, "0000:%02x:00.0", (unsigned)d->ordinal + 1);
    return hipSuccess;
}

HIP_API hipError_t hipDeviceGetByPCIBusId(int *ordinal, const char *text)
{
    unsigned domain, bus, slot, function;
    ENTER("hipDeviceGetByPCIBusId");
    NEED(ordinal && text);
    if (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4 || domain || slot ||
        function || bus < 1 || bus > (unsigned)driver.count)
        return done(hipErrorInvalidValue);
    *ordinal = (int)bus - 1;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceTotalMem(size_t *bytes, hipDevice_t ordinal)
{
    ENTER("hipDeviceTotalMem");
    DEVICE(ordinal, d);
    NEED(bytes);
    *bytes = d->memory;
    return hipSuccess;
}

static hipError_t attribute(const struct device *d, int which, int *value)
{
    const struct limits *l = &d->limits;
    switch (which) {
#define A(name, number, expression)                                                                \
    case number:                                                                                   \
        *value = expression;                                                                       \
        return hipSuccess;
#include "attributes.def"
#undef A
    default:
        return refuse(hipErrorInvalidValue, "hipDeviceGetAttribute: %d is not modelled", which);
    }
}

HIP_API hipError_t hipDeviceGetAttribute(int *value, int which, int ordinal)
{
    ENTER("hipDeviceGetAttribute");
    NEED(value);
    DEVICE(ordinal, d);
    return done(attribute(d, which, value));
}

HIP_API hipError_t hipGetDeviceProperties(hipDeviceProp_t *p, int ordinal)
{
    ENTER("hipGetDeviceProperties");
    NEED(p);
    DEVICE(ordinal, d);
    const struct limits *l = &d->limits;
    *p = (hipDeviceProp_t){
        .totalGlobalMem = d->memory,
        .sharedMemPerBlock = (size_t)l->lds,
        .regsPerBlock = 65536,
        .warpSize = 64,
        .maxThreadsPerBlock = 1024,
        .maxThreadsDim = {1024, 1024, 1024},
        .maxGridSize = {INT_MAX, 65536, 65536},
        .clockRate = l->clock_khz,
        .memoryClockRate = l->memory_clock_khz,
        .memoryBusWidth = l->bus_bits,
        .totalConstMem = INT_MAX,
        .major = 9,
        .minor = 4,
        .multiProcessorCount = l->cus,
        .l2CacheSize = l->l2,
        .maxThreadsPerMultiProcessor = 64 * l->waves_per_cu,
        .clockInstructionRate = 100000,
        .arch = (1u << 17) - 1 - (1u << 12) - (1u << 14) - (1u << 16), /* all but funnel shift,
                                                     surfaces and dynamic parallelism */
        .concurrentKernels = 1,
        .pciBusID = d->ordinal + 1,
        .maxSharedMemoryPerMultiProcessor = (size_t)l->lds,
        .canMapHostMemory = 1,
        .gcnArch = 942,
        .gcnArchName = "gfx942:sramecc+:xnack-",
        .cooperativeLaunch = 1,
        .memPitch = INT_MAX,
        .textureAlignment = 256,
        .texturePitchAlignment = 256,
        .ECCEnabled = 1,
        .isLargeBar = 1,
        .managedMemory = 1,
        .directManagedMemAccessFromHost = 1,
        .concurrentManagedAccess = 1,
    };
    snprintf(p->name, sizeof p->name, "%s", d->name);
    return hipSuccess;
}

HIP_API hipError_t hipChooseDevice(int *ordinal, const hipDeviceProp_t *wish)
{
    ENTER("hipChooseDevice");
    NEED(ordinal && wish);
    *ordinal = 0;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceSynchronize(void)
{
    ENTER_DEVICE("hipDeviceSynchronize", d);
    device_drain(d);
    return done((hipError_t)d->error);
}

/* ---- reset: what the device holds goes, its error too; the device remains ---- */

struct held {
    const struct device *device;
    uint64_t base[256];
    int count;
};

static void gather(const struct vc_alloc *a, void *context)
{
    struct held *held = context;
    if (a->owner == held->device && held->count < 256 && a->kind != VC_MODULE &&
        a->kind != VC_REGISTERED)
        held->base[held->count++] = a->base;
}

static hipError_t reset(struct device *d)
{
    struct held held = {.device = d};
    device_drain(d);
    lock();
    for (hipModule_t m = d->modules, next; m; m = next) {
        next = m->next;
        if (!vc_handle_is(m, HANDLE_MODULE))
            continue;
        vc_handle_remove(m);
        for (size_t i = 0; i < m->code->kernel_count; i++)
            vc_handle_remove(&m->functions[i]);
        module_release(m);
    }
    for (hipStream_t s = d->streams, next; s; s = next) {
        next = s->next;
        if (vc_handle_is(s, HANDLE_STREAM)) {
            vc_handle_remove(s);
            stream_release(s);
        }
    }
    unlock();
    do {
        held.count = 0;
        vc_each(driver.map, gather, &held);
        for (int i = 0; i < held.count; i++)
            vc_free(driver.map, held.base[i]);
    } while (held.count);
    d->error = hipSuccess;
    d->peers = 0;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceReset(void)
{
    ENTER("hipDeviceReset");
    return done(reset(device_current()));
}

HIP_API hipError_t hipDevicePrimaryCtxReset(hipDevice_t ordinal)
{
    ENTER("hipDevicePrimaryCtxReset");
    DEVICE(ordinal, d);
    return done(reset(d));
}

/* ---- settings that hardware has and a CPU has not: kept by nobody, refused if out of range ----
 */

#define HINT(name, params, condition)                                                              \
    HIP_API hipError_t name params                                                                 \
    {                                                                                              \
        ENTER(#name);                                                                              \
        return done((condition) ? hipSuccess : hipErrorInvalidValue);                              \
    }

HINT(hipDeviceSetCacheConfig, (int config), config >= 0 && config <= 3)
HINT(hipDeviceSetSharedMemConfig, (int config), config >= 0 && config <= 2)
HINT(hipCtxSetCacheConfig, (int config), config >= 0 && config <= 3)
HINT(hipCtxSetSharedMemConfig, (int config), config >= 0 && config <= 2)
HINT(hipDevicePrimaryCtxSetFlags, (hipDevice_t ordinal, unsigned flags),
     ordinal >= 0 && ordinal < driver.count && !(flags & ~0x1fu))
HINT(hipSetDeviceFlags, (unsigned flags), !(flags & ~0x1fu))
HINT(hipProfilerStart, (void), true)
HINT(hipProfilerStop, (void), true)

static hipError_t give(const char *name, int *out, int value)
{
    ENTER(name);
    NEED(out);
    *out = value;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceGetCacheConfig(int *config)
{
    return give("hipDeviceGetCacheConfig", config, 0);
}

HIP_API hipError_t hipDeviceGetSharedMemConfig(int *config)
{
    return give("hipDeviceGetSharedMemConfig", config, 1); /* banks of four bytes */
}

HIP_API hipError_t hipCtxGetCacheConfig(int *config)
{
    return give("hipCtxGetCacheConfig", config, 0);
}

HIP_API hipError_t hipCtxGetSharedMemConfig(int *config)
{
    return give("hipCtxGetSharedMemConfig", config, 1);
}

HIP_API hipError_t hipCtxGetFlags(unsigned *flags)
{
    return give("hipCtxGetFlags", (int *)flags, 0);
}

HIP_API hipError_t hipGetDeviceFlags(unsigned *flags)
{
    return give("hipGetDeviceFlags", (int *)flags, 0);
}

HIP_API hipError_t hipDeviceGetLimit(size_t *value, int limit)
{
    ENTER("hipDeviceGetLimit");
    NEED(value);
    if (limit != hipLimitMallocHeapSize && limit != hipLimitPrintfFifoSize)
        return done(hipErrorUnsupportedLimit);
    *value = 0; /* kernels have neither heap nor printf here */
    return hipSuccess;
}

HIP_API hipError_t hipDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER("hipDeviceGetStreamPriorityRange");
    if (least)
        *least = 1;
    if (greatest)
        *greatest = -1;
    return hipSuccess;
}

/* ---- peers ---- */

HIP_API hipError_t hipDeviceCanAccessPeer(int *can, int ordinal, int peer)
{
    ENTER("hipDeviceCanAccessPeer");
    NEED(can);
    DEVICE(ordinal, d);
    DEVICE(peer, p);
    *can = driver.links[d->ordinal] >> p->ordinal & 1;
    return hipSuccess;
}

static hipError_t set_peer(struct device *d, int peer, bool on)
{
    struct device *p;
    hipError_t result = device_of(peer, &p);
    if (result != hipSuccess || p == d)
        return hipErrorInvalidDevice;
    if (!(driver.links[d->ordinal] >> p->ordinal & 1))
        return on ? hipErrorPeerAccessUnsupported : hipErrorPeerAccessNotEnabled;
    lock();
    bool was = d->peers >> peer & 1;
    if (was != on) {
        d->peers ^= 1u << peer;
        vc_set_peer(driver.map, (unsigned)d->ordinal, (unsigned)peer, on);
    }
    unlock();
    if (was == on)
        return on ? hipErrorPeerAccessAlreadyEnabled : hipErrorPeerAccessNotEnabled;
    return hipSuccess;
}

HIP_API hipError_t hipDeviceEnablePeerAccess(int peer, unsigned flags)
{
    ENTER_DEVICE("hipDeviceEnablePeerAccess", d);
    NEED(!flags);
    return done(set_peer(d, peer, true));
}

HIP_API hipError_t hipDeviceDisablePeerAccess(int peer)
{
    ENTER_DEVICE("hipDeviceDisablePeerAccess", d);
    return done(set_peer(d, peer, false));
}

HIP_API hipError_t hipDeviceGetP2PAttribute(int *value, int which, int ordinal, int peer)
{
    ENTER("hipDeviceGetP2PAttribute");
    NEED(value && ordinal != peer && which >= 0 && which <= 3);
    DEVICE(ordinal, d);
    DEVICE(peer, p);
    int linked = driver.links[d->ordinal] >> p->ordinal & 1;
    *value = which == 1 || which == 2 ? linked : 0; /* access, atomics */
    return hipSuccess;
}

HIP_API hipError_t hipExtGetLinkTypeAndHopCount(int ordinal, int peer, uint32_t *type,
                                                uint32_t *hops)
{
    enum { LINK_XGMI = 4 };
    ENTER("hipExtGetLinkTypeAndHopCount");
    NEED(type && hops && ordinal != peer);
    DEVICE(ordinal, d);
    DEVICE(peer, p);
    if (!(driver.links[d->ordinal] >> p->ordinal & 1))
        return done(hipErrorInvalidValue);
    *type = LINK_XGMI;
    *hops = 1;
    return hipSuccess;
}

/* ---- contexts: one a device, so that they are names of devices ---- */

static hipError_t context_of(hipCtx_t context, struct device **out)
{
    for (int i = 0; i < driver.count; i++)
        if (context == (hipCtx_t)&driver.device[i]) {
            *out = &driver.device[i];
            return hipSuccess;
        }
    return hipErrorInvalidContext;
}

static _Thread_local int stack[64];
static _Thread_local int stacked;

HIP_API hipError_t hipCtxPushCurrent(hipCtx_t context)
{
    struct device *d;
    ENTER("hipCtxPushCurrent");
    hipError_t result = context_of(context, &d);
    if (result != hipSuccess || stacked == 64)
        return done(hipErrorInvalidContext);
    stack[stacked++] = current;
    current = d->ordinal;
    return hipSuccess;
}

HIP_API hipError_t hipCtxPopCurrent(hipCtx_t *context)
{
    ENTER("hipCtxPopCurrent");
    if (!stacked)
        return done(hipErrorInvalidContext);
    if (context)
        *context = (hipCtx_t)device_current();
    current = stack[--stacked];
    return hipSuccess;
}

HIP_API hipError_t hipCtxCreate(hipCtx_t *context, unsigned flags, hipDevice_t ordinal)
{
    ENTER("hipCtxCreate");
    NEED(context);
    DEVICE(ordinal, d);
    (void)flags;
    *context = (hipCtx_t)d;
    return hipCtxPushCurrent(*context);
}

HIP_API hipError_t hipCtxDestroy(hipCtx_t context)
{
    struct device *d;
    ENTER("hipCtxDestroy");
    hipError_t result = context_of(context, &d);
    if (result == hipSuccess && stacked && d == device_current())
        current = stack[--stacked];
    return done(result);
}

HIP_API hipError_t hipCtxSetCurrent(hipCtx_t context)
{
    struct device *d;
    ENTER("hipCtxSetCurrent");
    hipError_t result = context_of(context, &d);
    if (result == hipSuccess)
        current = d->ordinal;
    return done(result);
}

HIP_API hipError_t hipCtxGetCurrent(hipCtx_t *context)
{
    ENTER("hipCtxGetCurrent");
    NEED(context);
    *context = (hipCtx_t)device_current();
    return hipSuccess;
}

HIP_API hipError_t hipCtxGetDevice(hipDevice_t *ordinal)
{
    return give("hipCtxGetDevice", ordinal, driver_start() ? 0 : device_current()->ordinal);
}

HIP_API hipError_t hipCtxSynchronize(void)
{
    return hipDeviceSynchronize();
}

HIP_API hipError_t hipDevicePrimaryCtxRetain(hipCtx_t *context, hipDevice_t ordinal)
{
    ENTER("hipDevicePrimaryCtxRetain");
    NEED(context);
    DEVICE(ordinal, d);
    *context = (hipCtx_t)d;
    return hipSuccess;
}

HIP_API hipError_t hipDevicePrimaryCtxRelease(hipDevice_t ordinal)
{
    ENTER("hipDevicePrimaryCtxRelease");
    DEVICE(ordinal, d);
    (void)d;
    return hipSuccess;
}

HIP_API hipError_t hipDevicePrimaryCtxGetState(hipDevice_t ordinal, unsigned *flags, int *active)
{
    ENTER("hipDevicePrimaryCtxGetState");
    DEVICE(ordinal, d);
    if (flags)
        *flags = 0;
    if (active)
        *active = d->streams != NULL;
    return hipSuccess;
}

HIP_API hipError_t hipCtxGetApiVersion(hipCtx_t context, int *version)
{
    struct device *d;
    ENTER("hipCtxGetApiVersion");
    NEED(version);
    *version = 4;
    return done(context_of(context, &d));
}

HIP_API hipError_t hipCtxEnablePeerAccess(hipCtx_t peer, unsigned flags)
{
    struct device *d;
    ENTER("hipCtxEnablePeerAccess");
    hipError_t result = context_of(peer, &d);
    return result == hipSuccess ? hipDeviceEnablePeerAccess(d->ordinal, flags) : done(result);
}

HIP_API hipError_t hipCtxDisablePeerAccess(hipCtx_t peer)
{
    struct device *d;
    ENTER("hipCtxDisablePeerAccess");
    hipError_t result = context_of(peer, &d);
    return result == hipSuccess ? hipDeviceDisablePeerAccess(d->ordinal) : done(result);
}
