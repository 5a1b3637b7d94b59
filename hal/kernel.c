/* kernel.c: modules and kernels of the embedder's own. How they run: encode.c. */
#include <stdio.h>
#include <string.h>

#include "hal.h"

#define OWN_LOG 4096 /* where the caller gives no room */

static mh_status refuse(mh_device *device, mh_status status, const char *log)
{
    char text[300];
    snprintf(text, sizeof(text), "%s", log);
    return hal_fail(device->runtime, status, "mh_module_load: %s: %s", device->uri,
                    *text ? text : "refused, and nothing said why");
}

static mh_status load(mh_device *device, const mh_module_params *p, mh_module *module)
{
    char own[OWN_LOG] = "";
    char *log = p->log ? p->log : own;
    uint64_t room = p->log ? p->log_size : sizeof(own);
    uint64_t size = p->size ? p->size : strlen(p->image);
    log[0] = 0;
    mh_status status = device->table->module->load(
        device->handle, p->image, size, p->options ? p->options : "", log, room, &module->handle);
    if (status == MH_BAD_DATA || status == MH_INVALID_ARGUMENT)
        return refuse(device, status, log);
    return hal_backend_status(device, status);
}

static mh_status check_params(mh_device *device, const mh_module_params *p)
{
    if (!p->image || (p->log && !p->log_size))
        return mh_fail(MH_INVALID_ARGUMENT, "mh_module_params: %s",
                       p->image ? "log is given, log_size is 0" : "image is NULL");
    if (!device->table->module)
        return hal_fail(device->runtime, MH_UNSUPPORTED,
                        "mh_module_load: device %s takes no kernels of one's own", device->uri);
    return hal_check_device(device, device->generation, "device");
}

mh_status mh_module_load(mh_device *device, const mh_module_params *params, mh_module **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_module_load: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    mh_module_params p;
    mh_status status = mh_struct_in(&p, params, sizeof(p), "mh_module_params");
    if (!status)
        status = check_params(device, &p);
    if (status)
        return status;
    mh_module *module = hal_alloc(device->runtime, sizeof(*module));
    if (!module)
        return MH_OUT_OF_MEMORY;
    status = load(device, &p, module);
    if (status) {
        hal_free(device->runtime, module);
        return status;
    }
    atomic_init(&module->refs, 1);
    module->generation = device->generation;
    module->device = mh_device_retain(device);
    *out = module;
    return MH_OK;
}

mh_module *mh_module_retain(mh_module *module)
{
    if (module)
        atomic_fetch_add_explicit(&module->refs, 1, memory_order_relaxed);
    return module;
}

static void unload(mh_device *device, void *handle, bool current)
{
    if (current)
        device->table->module->unload(device->handle, handle);
}

void mh_module_release(mh_module *module)
{
    if (!module || atomic_fetch_sub_explicit(&module->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_device *device = module->device;
    hal_retire(device, module->generation, module->handle, unload);
    hal_free(device->runtime, module);
    mh_device_release(device);
}

mh_status mh_kernel_create(mh_module *module, const char *name, mh_kernel **out)
{
    if (!module || !name || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_kernel_create: %s is NULL",
                       !module ? "module"
                       : !name ? "name"
                               : "out");
    *out = NULL;
    mh_device *device = module->device;
    mh_status status = hal_check_device(device, module->generation, "module");
    if (status)
        return status;
    mh_kernel *kernel = hal_alloc(device->runtime, sizeof(*kernel));
    if (!kernel)
        return MH_OUT_OF_MEMORY;
    status =
        device->table->module->kernel(device->handle, module->handle, name, &kernel->view.handle);
    if (status) {
        hal_free(device->runtime, kernel);
        if (status == MH_NOT_FOUND)
            return hal_fail(device->runtime, status, "mh_kernel_create: the module has no '%.200s'",
                            name);
        return hal_backend_status(device, status);
    }
    atomic_init(&kernel->refs, 1);
    kernel->module = mh_module_retain(module);
    *out = kernel;
    return MH_OK;
}

mh_kernel *mh_kernel_retain(mh_kernel *kernel)
{
    if (kernel)
        atomic_fetch_add_explicit(&kernel->refs, 1, memory_order_relaxed);
    return kernel;
}

static void destroy_kernel(mh_device *device, void *handle, bool current)
{
    if (current)
        device->table->module->kernel_destroy(device->handle, handle);
}

void mh_kernel_release(mh_kernel *kernel)
{
    if (!kernel || atomic_fetch_sub_explicit(&kernel->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_module *module = kernel->module;
    hal_retire(module->device, module->generation, kernel->view.handle, destroy_kernel);
    hal_free(module->device->runtime, kernel);
    mh_module_release(module);
}
