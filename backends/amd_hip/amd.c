/*
 * amd.c: AMD GPUs through the HIP runtime, opened at run time: libamdhip64.so, or what
 * MOEHAL_AMD_RUNTIME names, or with MOEHAL_VIRTUAL=1 the project's virtual MI300X. Kernels are HIP,
 * in kernels/, compiled for gfx942 when moehal is built, for others by hipRTC (compile.c).
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "amd.h"

static const struct symbol symbols[] = {
#define SYMBOL(need, result, field, name, args) SYMBOL_ENTRY(struct runtime, need, field, name)
#include "runtime.def"
#undef SYMBOL
};

/* ---- failures ---- */

static mh_status status_of(int result)
{
    switch (result) {
    case hipSuccess:
        return MH_OK;
    case hipErrorOutOfMemory:
        return MH_OUT_OF_MEMORY;
    case hipErrorNoBinaryForGpu:
        return MH_UNSUPPORTED;
    case hipErrorECCNotCorrectable:
    case hipErrorIllegalAddress:
    case hipErrorLaunchTimeOut:
    case hipErrorAssert:
    case hipErrorLaunchFailure:
    case hipErrorUnknown:
        return MH_DEVICE_LOST;
    default:
        return MH_VENDOR_ERROR;
    }
}

mh_status amd_check(const struct instance *instance, int result, const char *call, const char *file,
                    uint32_t line)
{
    char function[64];
    if (result == hipSuccess)
        return MH_OK;
    snprintf(function, sizeof(function), "%.*s", (int)strcspn(call, "("), call);
    return instance->core->fail(instance->core->context, file, line, status_of(result), call,
                                result, instance->hip.GetErrorName(result), "%s: %s", function,
                                instance->hip.GetErrorString(result));
}

mh_status amd_enter(const struct device *device, int *before)
{
    mh_status status = HIP(device, GetDevice(before));
    if (!status && *before != device->ordinal)
        status = HIP(device, SetDevice(device->ordinal));
    return status;
}

void amd_leave(const struct device *device, int before)
{
    if (before != device->ordinal)
        device->hip->SetDevice(before);
}

/* ---- the library ---- */

/* The project's own virtual GPU: beside the folder of the backends where moehal is installed, or in
 * the build tree. */
static void find_virtual(char *path, size_t size)
{
    static const char *const places[] = {"../virtual/libamdhip64.so.5",
                                         "../../virtual/amd/libamdhip64.so.5"};
    Dl_info here;
    const char *slash = dladdr(symbols, &here) ? strrchr(here.dli_fname, '/') : NULL;
    int folder = slash ? (int)(slash + 1 - here.dli_fname) : 0;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, size, "%.*s%s", folder, slash ? here.dli_fname : "", places[i]);
        if (!access(path, R_OK))
            return;
    }
}

static void open_library(struct instance *instance, char *path, size_t path_size, char *reason,
                         size_t reason_size)
{
    const mh_core *core = instance->core;
    const char *named = core->environment(core->context, "MOEHAL_AMD_RUNTIME");
    const char *simulated = core->environment(core->context, "MOEHAL_VIRTUAL");
    const char *const any[] = {"libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6",
                               "libamdhip64.so.5", NULL};
    const char *const one[] = {path, NULL};
    bool chosen = named && *named;
    snprintf(path, path_size, "%s", chosen ? named : any[0]);
    if (!chosen && simulated && *simulated && strcmp(simulated, "0")) {
        find_virtual(path, path_size);
        chosen = true;
    }
    instance->library =
        symbols_open(chosen ? one : any, symbols, sizeof(symbols) / sizeof(symbols[0]),
                     &instance->hip, reason, reason_size);
}

static mh_status start(struct instance *instance)
{
    const mh_core *core = instance->core;
    const struct device none = {.instance = instance, .hip = &instance->hip};
    char reason[1024], path[4096];
    open_library(instance, path, sizeof(path), reason, sizeof(reason));
    if (!instance->library)
        return FAIL(core, MH_NOT_FOUND, "%s", reason);
    instance->simulated = dlsym(instance->library, "moehal_virtual_driver") != NULL;
    int result = instance->hip.Init(0);
    if (result == hipErrorNoDevice || result == hipErrorInvalidDevice) /* by version */
        return FAIL(core, MH_NOT_FOUND, "%s is there, but there is no AMD GPU",
                    symbols_path(dlsym(instance->library, "hipInit")));
    mh_status status = amd_check(instance, result, "hipInit(0)", __FILE__, __LINE__);
    if (!status)
        status = HIP(&none, RuntimeGetVersion(&instance->version));
    if (!status)
        status = HIP(&none, GetDeviceCount(&instance->count));
    return status;
}

static mh_status init(const mh_core *core, void **out)
{
    struct instance *instance = core->allocate(core->context, sizeof(*instance));
    if (!instance)
        return MH_OUT_OF_MEMORY;
    instance->core = core;
    mh_status status = start(instance);
    if (status) {
        symbols_close(instance->library);
        core->deallocate(core->context, instance);
        return status;
    }
    *out = instance;
    return MH_OK;
}

static void fini(void *user)
{
    struct instance *instance = user;
    symbols_close(instance->library);
    instance->core->deallocate(instance->core->context, instance);
}

/* ---- devices ---- */

/* What fails is the device's state, and no failure of the caller's. */
static void describe(const struct runtime *hip, int ordinal, mh_device_info *out)
{
    const char *function = "hipDeviceGetName";
    size_t bytes = 0;
    int units = 0, result = hip->DeviceGetName(out->name, (int)sizeof(out->name), ordinal);
    if (!result) {
        function = "hipDeviceTotalMem";
        result = hip->DeviceTotalMem(&bytes, ordinal);
    }
    if (!result) {
        function = "hipDeviceGetPCIBusId";
        result = hip->DeviceGetPCIBusId(out->id, (int)sizeof(out->id), ordinal);
    }
    if (!result) {
        function = "hipDeviceGetAttribute";
        result = hip->DeviceGetAttribute(&units, hipDeviceAttributeMultiprocessorCount, ordinal);
    }
    out->memory_bytes = bytes;
    out->compute_units = units > 0 ? (uint32_t)units : 0;
    out->status = status_of(result);
    if (result)
        snprintf(out->reason, sizeof(out->reason), "%s: %s", function, hip->GetErrorString(result));
}

static mh_status device_info(void *user, uint32_t index, mh_device_info *out)
{
    struct instance *instance = user;
    if (index >= (uint32_t)instance->count)
        return MH_NOT_FOUND;
    out->kind = MH_DEVICE_GPU;
    out->flags = instance->simulated ? MH_DEVICE_IS_VIRTUAL | MH_DEVICE_BY_NAME_ONLY : 0;
    snprintf(out->id, sizeof(out->id), "amd-%u", index);
    snprintf(out->driver, sizeof(out->driver), "HIP %d.%d", instance->version / 10000000,
             instance->version / 100000 % 100);
    describe(&instance->hip, (int)index, out);
    return MH_OK;
}

static mh_status device_open(void *user, uint32_t index, const mh_backend_open *params, void **out)
{
    struct instance *instance = user;
    const mh_core *core = instance->core;
    if (params->context == MH_CONTEXT_WRAP)
        return FAIL(core, MH_UNSUPPORTED,
                    "amd: a GPU has one context, which is the embedder's too: there is none to "
                    "wrap");
    struct device *device = core->allocate(core->context, sizeof(*device));
    if (!device)
        return MH_OUT_OF_MEMORY;
    device->core = core;
    device->instance = instance;
    device->hip = &instance->hip;
    device->ordinal = (int)index;
    int before, units = 0;
    mh_status status = amd_enter(device, &before);
    if (!status) {
        status = HIP(device, DeviceGetAttribute(&units, hipDeviceAttributeMultiprocessorCount,
                                                device->ordinal));
        device->compute_units = units;
        if (!status)
            status = amd_load(device);
        amd_leave(device, before);
    }
    if (status) {
        core->deallocate(core->context, device);
        return status;
    }
    pthread_mutex_init(&device->lock, NULL);
    *out = device;
    return MH_OK;
}

static void device_close(void *user)
{
    struct device *device = user;
    amd_upload_close(device);
    amd_unload(device);
    pthread_mutex_destroy(&device->lock);
    device->core->deallocate(device->core->context, device);
}

/* ---- memory ---- */

static mh_status memory_info(void *user, uint64_t *total, uint64_t *available)
{
    struct device *device = user;
    size_t all = 0, left = 0;
    int before;
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    status = HIP(device, MemGetInfo(&left, &all));
    amd_leave(device, before);
    *total = all;
    *available = left;
    return status;
}

/* A handle is the device's address. */
static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct device *device = user;
    void *memory = NULL;
    size_t left = 0, all = 0;
    int before;
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    int result = kind == MH_BUFFER_HOST_VISIBLE ? device->hip->HostMalloc(&memory, size, 0)
                                                : device->hip->Malloc(&memory, size);
    if (result == hipErrorOutOfMemory && !device->hip->MemGetInfo(&left, &all))
        status = FAIL(device->core, MH_OUT_OF_MEMORY,
                      "amd: %llu bytes could not be had, %zu of %zu are available",
                      (unsigned long long)size, left, all);
    else
        status = amd_check(device->instance, result,
                           kind == MH_BUFFER_HOST_VISIBLE ? "hipHostMalloc" : "hipMalloc", __FILE__,
                           __LINE__);
    amd_leave(device, before);
    if (!status) {
        out->handle = memory;
        out->host = kind == MH_BUFFER_HOST_VISIBLE ? memory : NULL;
    }
    return status;
}

static void buffer_destroy(void *user, mh_buffer_view *buffer)
{
    struct device *device = user;
    if (buffer->host)
        device->hip->HostFree(buffer->host);
    else
        device->hip->Free(buffer->handle);
}

/* ---- what the embedder made ---- */

static mh_status wrap_stream(void *device, uint64_t native, void **out)
{
    return amd_stream_make(device, (hipStream_t)(uintptr_t)native, true, out);
}

static mh_status wrap_buffer(void *user, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    struct device *device = user;
    void *memory = (void *)(uintptr_t)native;
    int ordinal = -1;
    (void)size;
    if (!device->hip->PointerGetAttribute)
        return FAIL(device->core, MH_UNSUPPORTED,
                    "amd: this runtime does not say whose memory is whose");
    int result = device->hip->PointerGetAttribute(&ordinal, hipPointerDeviceOrdinal, memory);
    if (result != hipSuccess && result != hipErrorInvalidValue)
        return amd_check(device->instance, result, "hipPointerGetAttribute", __FILE__, __LINE__);
    if (result || ordinal != device->ordinal)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "amd: 0x%llx is no memory of device %d",
                    (unsigned long long)native, device->ordinal);
    out->handle = memory;
    return MH_OK;
}

static void forget(void *device, mh_buffer_view *buffer)
{
    (void)device, (void)buffer;
}

static const mh_backend_wrap wrap_group = {sizeof(wrap_group), wrap_stream, wrap_buffer, forget};
static const mh_backend_scratch scratch_group = {sizeof(scratch_group), amd_scratch};

static const mh_backend_table table = {
    .struct_size = sizeof(table),
    .abi = MH_ABI,
    .name = "amd",
    .description = "AMD GPUs, kernels in HIP",
    .init = init,
    .fini = fini,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .memory_info = memory_info,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .stream_create = amd_stream_create,
    .stream_destroy = amd_stream_destroy,
    .copy = amd_copy,
    .mark = amd_mark,
    .wait = amd_wait,
    .supports = amd_supports,
    .encode = amd_encode,
    .scratch = &scratch_group,
    .graph = &amd_graph_group,
    .event = &amd_event_group,
    .wrap = &wrap_group,
    .wrap_event = &amd_wrap_event_group,
    .module = &amd_module_group,
    .counters = &amd_counters_group,
    .peer = &amd_peer_group,
};

MH_DEFINE_BACKEND(table)
