/* user_kernels.c: kernels of users, from code objects. */
#include <stdio.h>
#include <string.h>

#include "amd.h"

struct user_module {
    hipModule_t module;
    char image[]; /* the runtime may read it as long as the module is there */
};

struct user_kernel {
    hipFunction_t function;
};

static mh_status load(void *user, const void *image, uint64_t size, const char *options, char *log,
                      uint64_t log_size, void **out)
{
    struct device *device = user;
    const mh_core *core = device->core;
    if (options && *options)
        return FAIL(core, MH_INVALID_ARGUMENT, "amd: nothing is compiled, so no options: %s",
                    options);
    /* The runtime is not told the size, and reads a header at least. */
    struct user_module *module = core->allocate(core->context, sizeof(*module) + size + 256);
    int before;
    mh_status status = module ? amd_enter(device, &before) : MH_OUT_OF_MEMORY;
    if (!status) {
        memcpy(module->image, image, size);
        memset(module->image + size, 0, 256);
        int result = device->hip->ModuleLoadData(&module->module, module->image);
        status = amd_check(device->instance, result, "hipModuleLoadData", __FILE__, __LINE__);
        if (result)
            snprintf(log, log_size, "hipModuleLoadData: %s", device->hip->GetErrorString(result));
        if (status == MH_VENDOR_ERROR || status == MH_UNSUPPORTED)
            status = MH_BAD_DATA;
        amd_leave(device, before);
    }
    if (status && module)
        core->deallocate(core->context, module);
    if (!status)
        *out = module;
    return status;
}

static void unload(void *user, void *module)
{
    struct device *device = user;
    device->hip->ModuleUnload(((struct user_module *)module)->module);
    device->core->deallocate(device->core->context, module);
}

static mh_status kernel(void *user, void *module, const char *name, void **out)
{
    struct device *device = user;
    struct user_kernel *made = device->core->allocate(device->core->context, sizeof(*made));
    if (!made)
        return MH_OUT_OF_MEMORY;
    int result = device->hip->ModuleGetFunction(&made->function,
                                                ((struct user_module *)module)->module, name);
    mh_status status =
        result == hipErrorNotFound
            ? FAIL(device->core, MH_NOT_FOUND, "amd: the module has no kernel '%s'", name)
            : amd_check(device->instance, result, "hipModuleGetFunction", __FILE__, __LINE__);
    if (status)
        device->core->deallocate(device->core->context, made);
    else
        *out = made;
    return status;
}

static void kernel_destroy(void *user, void *kernel)
{
    struct device *device = user;
    device->core->deallocate(device->core->context, kernel);
}

const mh_backend_module amd_module_group = {sizeof(amd_module_group), load, unload, kernel,
                                            kernel_destroy};

void amd_user_launch(const mh_op_kernel *op, struct user_launch *out)
{
    out->function = ((struct user_kernel *)mh_view_kernel(op->kernel)->handle)->function;
    for (uint32_t i = 0; i < op->arg_count; i++) {
        const mh_kernel_arg *arg = &op->args[i];
        if (arg->kind == MH_ARG_TENSOR)
            out->slots[i][0] = (uint64_t)(uintptr_t)mh_view_buffer(arg->tensor.buffer)->handle +
                               arg->tensor.offset;
        else
            memcpy(out->slots[i], arg->value, arg->size);
        out->params[i] = out->slots[i];
    }
}
