/* device.c: an opened device: its context, limits and memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl.h"

static cl_ulong number(const struct device *device, cl_uint what)
{
    cl_ulong value = 0; /* little-endian: a cl_uint fills its low half */
    device->cl->GetDeviceInfo(device->id, what, sizeof(value), &value, NULL);
    return value;
}

/* MOEHAL_OPENCL_MOST: as on a device that gives no more in one buffer. */
static mh_status lower_limit(struct device *device)
{
    const char *text = device->core->environment(device->core->context, "MOEHAL_OPENCL_MOST");
    char *end;
    if (!text || !*text)
        return MH_OK;
    unsigned long long most = strtoull(text, &end, 10);
    if (*end || most < 2 * SPLIT_OVERLAP)
        return FAIL(device->core, MH_INVALID_ARGUMENT,
                    "MOEHAL_OPENCL_MOST is '%.32s', must be bytes, %llu at least", text,
                    (unsigned long long)(2 * SPLIT_OVERLAP));
    device->most_bytes = most < device->most_bytes ? most : device->most_bytes;
    return MH_OK;
}

static mh_status choose_form(struct device *device, uint32_t kind)
{
    const char *named = device->core->environment(device->core->context, "MOEHAL_OPENCL_FORM");
    device->form = kind == MH_DEVICE_CPU ? FORM_CPU : FORM_GPU;
    if (named && *named) {
        if (strcmp(named, "cpu") && strcmp(named, "gpu"))
            return FAIL(device->core, MH_INVALID_ARGUMENT,
                        "MOEHAL_OPENCL_FORM is '%.32s', must be cpu or gpu", named);
        device->form = named[0] == 'c' ? FORM_CPU : FORM_GPU;
    }
    device->lanes = device->form == FORM_CPU ? 1 : 64;
    if (number(device, CL_DEVICE_MAX_WORK_GROUP_SIZE) < device->lanes)
        return FAIL(device->core, MH_UNSUPPORTED, "%s: work-groups of %llu, the kernels need %u",
                    device->name, (unsigned long long)number(device, CL_DEVICE_MAX_WORK_GROUP_SIZE),
                    device->lanes);
    if (number(device, CL_DEVICE_LOCAL_MEM_SIZE) < 16384)
        return FAIL(device->core, MH_UNSUPPORTED,
                    "%s: local memory of %llu bytes, the kernels need 16384", device->name,
                    (unsigned long long)number(device, CL_DEVICE_LOCAL_MEM_SIZE));
    return MH_OK;
}

static mh_status make_context(struct device *device, const struct entry *e)
{
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM,
                                                (cl_context_properties)e->platform, 0};
    cl_int code = 0;
    device->context = device->cl->CreateContext(properties, 1, &device->id, NULL, NULL, &code);
    return device->context
               ? MH_OK
               : CL_FAIL(device->core, "clCreateContext", code, "%s: no context", device->name);
}

static mh_status start(struct device *device, const struct entry *e, const mh_backend_open *params)
{
    mh_status status = params->context == MH_CONTEXT_OWN ? make_context(device, e)
                                                         : opencl_wrap_context(device, params);
    if (status)
        return status;
    device->global_bytes = e->info.memory_bytes;
    device->most_bytes = number(device, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    status = lower_limit(device);
    opencl_find_commands(device, e->platform);
    /* One at least, where the driver does not tell: no launch may be empty. */
    device->compute_units = e->info.compute_units ? e->info.compute_units : 1;
    if (!status)
        status = choose_form(device, e->info.kind);
    bool divides = number(device, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT;
    snprintf(device->options, sizeof(device->options),
             "-cl-std=CL1.2 -w%s -DFORM_%s=1 -DBAD_INDEX=%u%s",
             divides ? " -cl-fp32-correctly-rounded-divide-sqrt" : "",
             device->form == FORM_CPU ? "CPU" : "GPU", (unsigned)MH_BAD_INDEX,
             e->info.kind == MH_DEVICE_CPU ? " -DPREFETCH=1" : "");
    return status ? status : opencl_probe(device);
}

mh_status opencl_open(void *user, uint32_t index, const mh_backend_open *params, void **out)
{
    struct instance *in = user;
    const mh_core *core = in->core;
    const struct entry *e = &in->entries[index];
    struct device *device = core->allocate(core->context, sizeof(*device));
    if (!device)
        return MH_OUT_OF_MEMORY;
    memset(device, 0, sizeof(*device));
    device->core = core;
    device->cl = &in->cl;
    device->id = e->id;
    snprintf(device->name, sizeof(device->name), "%s", e->info.name);
    snprintf(device->driver, sizeof(device->driver), "%s", e->info.driver);
    pthread_mutex_init(&device->lock, NULL);
    pthread_mutex_init(&device->split_lock, NULL);
    pthread_mutex_init(&device->build_lock, NULL);
    cache_open(&device->cache, core, "opencl");
    mh_status status = start(device, e, params);
    if (status) {
        opencl_close(device);
        return status;
    }
    *out = device;
    return MH_OK;
}

void opencl_close(void *user)
{
    struct device *device = user;
    opencl_release_programs(device);
    if (device->context)
        device->cl->ReleaseContext(device->context);
    pthread_mutex_destroy(&device->build_lock);
    pthread_mutex_destroy(&device->split_lock);
    pthread_mutex_destroy(&device->lock);
    device->core->deallocate(device->core->context, device);
}

mh_status opencl_memory_info(void *user, uint64_t *total, uint64_t *available)
{
    struct device *device = user;
    *total = device->global_bytes;
    *available = 0;
    return MH_OK;
}

mh_status opencl_buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct device *device = user;
    cl_int code;
    if (size > device->most_bytes && kind == MH_BUFFER_WEIGHT)
        return opencl_split_create(device, size, out);
    if (size > device->most_bytes)
        return FAIL(device->core, MH_OUT_OF_MEMORY,
                    "%s: %llu bytes could not be had: the most in one buffer is %llu", device->name,
                    (unsigned long long)size, (unsigned long long)device->most_bytes);
    out->handle = device->cl->CreateBuffer(device->context, CL_MEM_READ_WRITE, size, NULL, &code);
    if (!out->handle)
        return CL_FAIL(device->core, "clCreateBuffer", code, "%s: %llu bytes could not be had",
                       device->name, (unsigned long long)size);
    return MH_OK;
}

void opencl_buffer_destroy(void *user, mh_buffer_view *buffer)
{
    struct device *device = user;
    struct split *split = opencl_split_find(device, buffer->handle);
    if (split)
        opencl_split_destroy(device, split);
    else
        device->cl->ReleaseMemObject(buffer->handle);
}
