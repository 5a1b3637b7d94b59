/*
 * nvidia.c: NVIDIA GPUs through the driver library, opened at run time: libcuda.so.1, or what
 * MOEHAL_NVIDIA_DRIVER names, or with MOEHAL_VIRTUAL=1 the project's virtual GPU. Kernels are PTX
 * written by hand, in kernels/.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <symbols.h>

#include "nvidia.h"

static const struct symbol symbols[] = {
#define SYMBOL(need, result, field, name, version, args)                                           \
    SYMBOL_ENTRY(struct driver, need, field, name)
#include "driver.def"
#undef SYMBOL
};

static const int symbol_versions[] = {
#define SYMBOL(need, result, field, name, version, args) version,
#include "driver.def"
#undef SYMBOL
};

/* ---- failures ---- */

static mh_status status_of(CUresult result)
{
    if (result >= CUDA_ERROR_ILLEGAL_ADDRESS && result <= CUDA_ERROR_LAUNCH_FAILED + 1)
        return MH_DEVICE_LOST;
    switch (result) {
    case CUDA_SUCCESS:
        return MH_OK;
    case CUDA_ERROR_OUT_OF_MEMORY:
        return MH_OUT_OF_MEMORY;
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTAINED:
    case CUDA_ERROR_UNKNOWN:
        return MH_DEVICE_LOST;
    default:
        return MH_VENDOR_ERROR;
    }
}

mh_status nv_check(const struct instance *instance, CUresult result, const char *call,
                   const char *file, uint32_t line)
{
    const char *name = NULL, *text = NULL;
    char function[64];
    if (result == CUDA_SUCCESS)
        return MH_OK;
    instance->cu.GetErrorName(result, &name);
    instance->cu.GetErrorString(result, &text);
    snprintf(function, sizeof(function), "%.*s", (int)strcspn(call, "("), call);
    return instance->core->fail(instance->core->context, file, line, status_of(result), call,
                                result, name, "%s: %s", function, text ? text : "an unknown error");
}

mh_status nv_enter(struct device *device)
{
    return CU(device, CtxPushCurrent(device->context));
}

void nv_leave(struct device *device)
{
    CUcontext mine;
    device->cu->CtxPopCurrent(&mine);
}

/* ---- the library ---- */

/* The project's own virtual GPU: beside the folder of the backends where moehal is installed, or in
 * the build tree. */
static void find_virtual(char *path, size_t size)
{
    static const char *const places[] = {"../virtual/libcuda.so.1",
                                         "../../virtual/nvidia/libcuda.so.1"};
    Dl_info here;
    const char *slash = dladdr(symbols, &here) ? strrchr(here.dli_fname, '/') : NULL;
    int folder = slash ? (int)(slash + 1 - here.dli_fname) : 0;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, size, "%.*s%s", folder, slash ? here.dli_fname : "", places[i]);
        if (!access(path, R_OK))
            return;
    }
}

static void library_name(const mh_core *core, char *path, size_t size)
{
    const char *named = core->environment(core->context, "MOEHAL_NVIDIA_DRIVER");
    const char *simulated = core->environment(core->context, "MOEHAL_VIRTUAL");
    snprintf(path, size, "%s", named && *named ? named : "libcuda.so.1");
    if (!(named && *named) && simulated && *simulated && strcmp(simulated, "0"))
        find_virtual(path, size);
}

/* The driver's own answer to what a name means in a version of its interface, where it gives one;
 * else what was found by the name it exports stays. */
static void ask_for_versions(struct instance *instance)
{
    CUresult (*ask)(const char *name, void **function, int version, unsigned long long flags);
    void *found = dlsym(instance->library, "cuGetProcAddress");
    memcpy(&ask, &found, sizeof(ask));
    for (size_t i = 0; found && i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        const char *suffix = strstr(symbols[i].name, "_v");
        char name[64];
        void *function = NULL;
        snprintf(name, sizeof(name), "%.*s",
                 (int)(suffix ? (size_t)(suffix - symbols[i].name) : strlen(symbols[i].name)),
                 symbols[i].name);
        if (!ask(name, &function, symbol_versions[i], 0) && function)
            memcpy((char *)&instance->cu + symbols[i].offset, &function, sizeof(function));
    }
}

static mh_status start(struct instance *instance)
{
    const mh_core *core = instance->core;
    char reason[1024];
    char path[4096];
    const char *const libraries[] = {path, NULL};
    library_name(core, path, sizeof(path));
    instance->library = symbols_open(libraries, symbols, sizeof(symbols) / sizeof(symbols[0]),
                                     &instance->cu, reason, sizeof(reason));
    if (!instance->library)
        return FAIL(core, MH_NOT_FOUND, "%s", reason);
    ask_for_versions(instance);
    instance->simulated = dlsym(instance->library, "moehal_virtual_driver") != NULL;
    CUresult result = instance->cu.Init(0);
    const char *text = NULL;
    if (result == CUDA_ERROR_NO_DEVICE)
        return FAIL(core, MH_NOT_FOUND, "%s is there, but there is no NVIDIA GPU", libraries[0]);
    if (result) {
        instance->cu.GetErrorString(result, &text);
        return FAIL(core, MH_VENDOR_ERROR, "%s: cuInit: error %d, %s", libraries[0], result,
                    text ? text : "no text (is this the toolkit's stub?)");
    }
    mh_status status =
        CU(&(struct device){.instance = instance}, DriverGetVersion(&instance->version));
    if (!status && instance->version < 11040)
        status =
            FAIL(core, MH_UNSUPPORTED, "%s: the driver is for CUDA %d.%d, the kernels need 11.4",
                 libraries[0], instance->version / 1000, instance->version % 1000 / 10);
    if (!status)
        status = CU(&(struct device){.instance = instance}, DeviceGetCount(&instance->count));
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

static mh_status attribute(struct device *device, int which, uint32_t *out)
{
    int value = 0;
    mh_status status = CU(device, DeviceGetAttribute(&value, which, device->ordinal));
    *out = value > 0 ? (uint32_t)value : 0;
    return status;
}

/* What is asked of a device before it is opened. */
static mh_status look(struct instance *instance, uint32_t index, struct device *device)
{
    uint32_t major, minor;
    device->instance = instance;
    device->core = instance->core;
    device->cu = &instance->cu;
    mh_status status = CU(device, DeviceGet(&device->ordinal, (int)index));
    if (!status)
        status = attribute(device, CU_CAPABILITY_MAJOR, &major);
    if (!status)
        status = attribute(device, CU_CAPABILITY_MINOR, &minor);
    if (!status)
        status = attribute(device, CU_MULTIPROCESSORS, &device->multiprocessors);
    if (!status)
        status = attribute(device, CU_SHARED_PER_BLOCK_OPTIN, &device->shared_optin);
    if (status)
        return status;
    device->sm = 10 * major + minor;
    return MH_OK;
}

static mh_status describe(struct device *device, mh_device_info *out)
{
    size_t bytes = 0;
    unsigned char uuid[16];
    mh_status status = CU(device, DeviceGetName(out->name, sizeof(out->name), device->ordinal));
    if (!status)
        status = CU(device, DeviceTotalMem(&bytes, device->ordinal));
    if (!status)
        status = CU(device, DeviceGetPCIBusId(out->id, sizeof(out->id), device->ordinal));
    /* Parts of one GPU share its bus id; each has a UUID, written as nvidia-smi does. */
    if (!status && device->cu->DeviceGetUuid && !device->cu->DeviceGetUuid(uuid, device->ordinal)) {
        size_t used = strlen(out->id);
        used += (size_t)snprintf(out->id + used, sizeof(out->id) - used, " GPU");
        for (uint32_t i = 0; i < 16 && used + 4 < sizeof(out->id); i++)
            used +=
                (size_t)snprintf(out->id + used, sizeof(out->id) - used, "%s%02x",
                                 i == 0 || (i >= 4 && i <= 10 && i % 2 == 0) ? "-" : "", uuid[i]);
    }
    out->memory_bytes = bytes;
    return status;
}

static mh_status device_info(void *user, uint32_t index, mh_device_info *out)
{
    struct instance *instance = user;
    struct device device = {0};
    if (index >= (uint32_t)instance->count)
        return MH_NOT_FOUND;
    out->kind = MH_DEVICE_GPU;
    out->flags = instance->simulated ? MH_DEVICE_IS_VIRTUAL | MH_DEVICE_BY_NAME_ONLY : 0;
    snprintf(out->id, sizeof(out->id), "nvidia-%u", index);
    snprintf(out->driver, sizeof(out->driver), "CUDA %d.%d", instance->version / 1000,
             instance->version % 1000 / 10);
    mh_status status = look(instance, index, &device);
    if (!status)
        status = describe(&device, out);
    out->compute_units = device.multiprocessors;
    if (status) {
        out->status = status;
        snprintf(out->reason, sizeof(out->reason), "the driver does not describe it");
    } else if (!nv_has_kernels(device.sm)) {
        out->status = MH_UNSUPPORTED;
        snprintf(out->reason, sizeof(out->reason),
                 "compute capability %u.%u: the kernels need 8.0 or more", device.sm / 10,
                 device.sm % 10);
    }
    return MH_OK;
}

static mh_status open_context(struct device *device, const mh_backend_open *params)
{
    device->context_kind = params->context;
    switch (params->context) {
    case MH_CONTEXT_OWN: {
        CUcontext current;
        mh_status status = CU(device, CtxCreate(&device->context, 0, device->ordinal));
        if (!status)
            device->cu->CtxPopCurrent(&current); /* creation made it current */
        return status;
    }
    case MH_CONTEXT_PRIMARY:
        return CU(device, DevicePrimaryCtxRetain(&device->context, device->ordinal));
    case MH_CONTEXT_WRAP:
        device->context = (CUcontext)(uintptr_t)params->native_context;
        CUdevice ordinal = -1;
        mh_status status = nv_enter(device);
        if (status)
            return status;
        status = CU(device, CtxGetDevice(&ordinal));
        nv_leave(device);
        if (!status && ordinal != device->ordinal)
            status =
                FAIL(device->core, MH_INVALID_ARGUMENT,
                     "nvidia: native_context is of device %d, not %d", ordinal, device->ordinal);
        return status;
    default:
        return FAIL(device->core, MH_UNSUPPORTED, "nvidia: context %u is unknown", params->context);
    }
}

static void close_context(struct device *device)
{
    if (device->context_kind == MH_CONTEXT_OWN)
        device->cu->CtxDestroy(device->context);
    else if (device->context_kind == MH_CONTEXT_PRIMARY)
        device->cu->DevicePrimaryCtxRelease(device->ordinal);
}

static mh_status device_open(void *user, uint32_t index, const mh_backend_open *params, void **out)
{
    struct instance *instance = user;
    const mh_core *core = instance->core;
    struct device *device = core->allocate(core->context, sizeof(*device));
    if (!device)
        return MH_OUT_OF_MEMORY;
    mh_status status = look(instance, index, device);
    if (!status)
        status = attribute(device, CU_MEMORY_MAPS, &device->maps_memory);
    if (!status)
        status = attribute(device, CU_MEMORY_POOLS, &device->pools_memory);
    if (!status)
        status = open_context(device, params);
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
    if (!nv_enter(device)) {
        nv_upload_close(device);
        nv_unload_all(device);
        nv_memory_close(device);
        nv_leave(device);
    }
    close_context(device);
    pthread_mutex_destroy(&device->lock);
    device->core->deallocate(device->core->context, device);
}

/* Only a context of our own is ever destroyed; the core sees to it that nothing of it is used. */
static mh_status reset(void *user)
{
    struct device *device = user;
    if (device->context_kind != MH_CONTEXT_OWN)
        return FAIL(device->core, MH_UNSUPPORTED,
                    "nvidia: the context is not moehal's own, so it is not reset");
    if (!nv_enter(device)) {
        nv_upload_close(device);
        nv_memory_close(device);
        nv_leave(device);
    }
    device->cu->CtxDestroy(device->context);
    memset(device->modules, 0, sizeof(device->modules));
    memset(device->functions, 0, sizeof(device->functions));
    return open_context(device, &(mh_backend_open){.context = MH_CONTEXT_OWN});
}

/* ---- what the embedder made ---- */

static mh_status wrap_stream(void *user, uint64_t native, void **out)
{
    struct device *device = user;
    CUcontext context = NULL;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    if (native && device->cu->StreamGetCtx)
        status = CU(device, StreamGetCtx((CUstream)(uintptr_t)native, &context));
    nv_leave(device);
    if (!status && context && context != device->context)
        status =
            FAIL(device->core, MH_INVALID_ARGUMENT, "nvidia: the stream is of another context");
    if (!status)
        status = nv_stream_make(device, (CUstream)(uintptr_t)native, true, out);
    return status;
}

/* Memory that is mapped or of a pool may be no context's, but it is a device's. */
static mh_status wrap_buffer(void *user, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    struct device *device = user;
    CUcontext context = NULL;
    int ordinal = -1;
    (void)size;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    CUresult result = device->cu->PointerGetAttribute(&context, CU_POINTER_CONTEXT, native);
    if (!result && !context)
        result = device->cu->PointerGetAttribute(&ordinal, CU_POINTER_ORDINAL, native);
    nv_leave(device);
    if (result || (context ? context != device->context : ordinal != device->ordinal))
        return FAIL(device->core, MH_INVALID_ARGUMENT,
                    "nvidia: 0x%llx is no memory of this device's context",
                    (unsigned long long)native);
    out->handle = (void *)(uintptr_t)native;
    return MH_OK;
}

static void forget(void *device, mh_buffer_view *buffer)
{
    (void)device, (void)buffer;
}

static const mh_backend_scratch scratch_group = {sizeof(scratch_group), nv_scratch};
static const mh_backend_reset reset_group = {sizeof(reset_group), reset};
static const mh_backend_wrap wrap_group = {sizeof(wrap_group), wrap_stream, wrap_buffer, forget};

static const mh_backend_table table = {
    .struct_size = sizeof(table),
    .abi = MH_ABI,
    .name = "nvidia",
    .description = "NVIDIA GPUs, kernels in hand-written PTX",
    .init = init,
    .fini = fini,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .memory_info = nv_memory_info,
    .buffer_create = nv_buffer_create,
    .buffer_destroy = nv_buffer_destroy,
    .stream_create = nv_stream_create,
    .stream_destroy = nv_stream_destroy,
    .copy = nv_copy,
    .mark = nv_mark,
    .wait = nv_wait,
    .supports = nv_supports,
    .encode = nv_encode,
    .scratch = &scratch_group,
    .reset = &reset_group,
    .graph = &nv_graph_group,
    .event = &nv_event_group,
    .wrap = &wrap_group,
    .wrap_event = &nv_wrap_event_group,
    .module = &nv_module_group,
    .counters = &nv_counters_group,
    .peer = &nv_peer_group,
};

MH_DEFINE_BACKEND(table)
