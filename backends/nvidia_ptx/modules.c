/*
 * modules.c: the PTX that lies in this module, loaded a family at a time when a kernel of it is
 * first wanted, and kernels of users. The driver keeps its own cache of what it compiled.
 */
#include <stdio.h>
#include <string.h>

#include "nvidia.h"

/* The texts, embedded by the build. */
#define TEXT(family, format, sm) extern const char nv_##family##_##format##_##sm[];
#define PLAIN(family) TEXT(family, 0, 80)
#define PLAIN_90(family) PLAIN(family) TEXT(family, 0, 90)
#define CACHE_TYPES(family) TEXT(family, 1, 80) TEXT(family, 3, 80)
#define FORMATS_OF(family)                                                                         \
    TEXT(family, 1, 80)                                                                            \
    TEXT(family, 2, 80) TEXT(family, 3, 80) TEXT(family, 4, 80) TEXT(family, 4, 89)
#define FORMATS_90(family)                                                                         \
    FORMATS_OF(family)                                                                             \
    TEXT(family, 1, 90) TEXT(family, 2, 90) TEXT(family, 3, 90) TEXT(family, 4, 90)
#include "families.def"
#undef PLAIN
#undef PLAIN_90
#undef CACHE_TYPES
#undef FORMATS_OF
#undef FORMATS_90

struct family_texts {
    const char *name;
    struct {
        const char *sm80, *sm89, *sm90; /* NULL: an older one serves */
    } text[FORMATS];
};

static const struct family_texts families[FAMILY_COUNT] = {
#define AT(family, format, least) .sm##least = nv_##family##_##format##_##least
#define PLAIN(family) {#family, {{AT(family, 0, 80)}}},
#define PLAIN_90(family) {#family, {{AT(family, 0, 80), AT(family, 0, 90)}}},
#define CACHE_TYPES(family)                                                                        \
    {#family, {[MH_FORMAT_F32] = {AT(family, 1, 80)}, [MH_FORMAT_BF16] = {AT(family, 3, 80)}}},
#define FORMATS_OF(family)                                                                         \
    {#family,                                                                                      \
     {[MH_FORMAT_F32] = {AT(family, 1, 80)},                                                       \
      [MH_FORMAT_F16] = {AT(family, 2, 80)},                                                       \
      [MH_FORMAT_BF16] = {AT(family, 3, 80)},                                                      \
      [MH_FORMAT_FP8] = {AT(family, 4, 80), AT(family, 4, 89)}}},
#define FORMATS_90(family)                                                                         \
    {#family,                                                                                      \
     {[MH_FORMAT_F32] = {AT(family, 1, 80), AT(family, 1, 90)},                                    \
      [MH_FORMAT_F16] = {AT(family, 2, 80), AT(family, 2, 90)},                                    \
      [MH_FORMAT_BF16] = {AT(family, 3, 80), AT(family, 3, 90)},                                   \
      [MH_FORMAT_FP8] = {AT(family, 4, 80), AT(family, 4, 89), AT(family, 4, 90)}}},
#include "families.def"
#undef PLAIN
#undef PLAIN_90
#undef CACHE_TYPES
#undef FORMATS_OF
#undef FORMATS_90
};

static const struct {
    const char *name;
    enum family family;
    uint32_t shared; /* bytes that are its own */
} kernels[KERNEL_COUNT] = {
#define KERNEL(family, name, shared) {#name, FAMILY_##family, shared},
#include "kernels.def"
#undef KERNEL
};

bool nv_has_kernels(uint32_t sm)
{
    return sm >= 80;
}

/* sm_90's texts are for its 227 KB of shared memory a block, which later consumer parts do not
 * have. PTX has mma of e4m3 since CUDA 12.4. */
uint32_t nv_text_sm(const struct device *device, enum family family, uint32_t format)
{
    enum { MMA_E4M3 = 12040, ROOM = 227 << 10 };
    uint32_t most = device->sm;
    if (device->shared_optin < ROOM && most > 89)
        most = 89;
    if (family == FAMILY_gemm && format == MH_FORMAT_FP8 && device->instance->version < MMA_E4M3)
        most = 80;
    if (most >= 90 && families[family].text[format].sm90)
        return 90;
    return most >= 89 && families[family].text[format].sm89 ? 89 : 80;
}

uint64_t nv_dynamic_shared(const struct device *device, enum kernel_id kernel)
{
    uint32_t own = kernels[kernel].shared;
    return device->shared_optin > own ? device->shared_optin - own : 0;
}

mh_status nv_load(struct device *device, const void *image, char *log, uint32_t log_size,
                  CUmodule *module)
{
    char made[4096] = "";
    int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_SIZE, CU_JIT_INFO_LOG_BUFFER,
                     CU_JIT_INFO_LOG_SIZE, CU_JIT_LOG_VERBOSE};
    void *values[] = {log, (void *)(uintptr_t)log_size, made, (void *)(uintptr_t)sizeof(made),
                      (void *)(uintptr_t)1};
    log[0] = 0;
    CUresult result = device->cu->ModuleLoadDataEx(module, image, 5, options, values);
    log[log_size - 1] = made[sizeof(made) - 1] = 0;
    if (!result)
        snprintf(log, log_size, "%s", made);
    return nv_check(device->instance, result, "cuModuleLoadDataEx", __FILE__, __LINE__);
}

static mh_status load_family(struct device *device, enum family family, uint32_t format)
{
    char log[4096], line[4200];
    uint32_t sm = nv_text_sm(device, family, format);
    const char *text = sm == 90   ? families[family].text[format].sm90
                       : sm == 89 ? families[family].text[format].sm89
                                  : families[family].text[format].sm80;
    mh_status status = nv_load(device, text, log, sizeof(log), &device->modules[family][format]);
    if (status)
        return FAIL(device->core, status, "nvidia: kernels/%s.ptx, format %u, sm_%u: %s",
                    families[family].name, format, sm,
                    *log ? log : "no log from the driver's compiler");
    snprintf(line, sizeof(line), "nvidia: kernels/%s.ptx, format %u, sm_%u: %s",
             families[family].name, format, sm, *log ? log : "its compiler said nothing");
    device->core->log(device->core->context, MH_LOG_DEBUG, line);
    return MH_OK;
}

static mh_status find_kernel(struct device *device, enum kernel_id kernel, uint32_t format,
                             CUfunction *out)
{
    enum family family = kernels[kernel].family;
    mh_status status = MH_OK;
    if (!device->modules[family][format])
        status = load_family(device, family, format);
    CUfunction function;
    int fixed = 0;
    if (!status)
        status = CU(device, ModuleGetFunction(&function, device->modules[family][format],
                                              kernels[kernel].name));
    if (!status)
        status = CU(device, FuncGetAttribute(&fixed, CU_FUNC_STATIC_SHARED, function));
    if (!status)
        status = CU(device, FuncSetAttribute(function, CU_FUNC_MAX_DYNAMIC_SHARED,
                                             (int)device->shared_optin - fixed));
    if (!status)
        *out = function;
    return status;
}

mh_status nv_function(struct device *device, enum kernel_id kernel, uint32_t format,
                      CUfunction *function)
{
    CUfunction *slot = &device->functions[kernel][format];
    *function = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (*function)
        return MH_OK;
    pthread_mutex_lock(&device->lock);
    mh_status status = MH_OK;
    if (!(*function = *slot)) {
        status = find_kernel(device, kernel, format, function);
        if (!status)
            __atomic_store_n(slot, *function, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&device->lock);
    return status;
}

void nv_unload_all(struct device *device)
{
    for (uint32_t i = 0; i < FAMILY_COUNT; i++)
        for (uint32_t j = 0; j < FORMATS; j++)
            if (device->modules[i][j])
                device->cu->ModuleUnload(device->modules[i][j]);
    memset(device->modules, 0, sizeof(device->modules));
    memset(device->functions, 0, sizeof(device->functions));
}

/* ---- kernels of users ---- */

struct user_module {
    CUmodule module;
};

struct user_kernel {
    CUfunction function;
};

static mh_status load(void *user, const void *image, uint64_t size, const char *options, char *log,
                      uint64_t log_size, void **out)
{
    struct device *device = user;
    const mh_core *core = device->core;
    if (options && *options)
        return FAIL(core, MH_INVALID_ARGUMENT, "nvidia: the driver's compiler takes no options: %s",
                    options);
    /* Text must end with a NUL for the driver; binaries know their size. */
    char *copy = core->allocate(core->context, size + 1);
    struct user_module *module = core->allocate(core->context, sizeof(*module));
    mh_status status = copy && module ? nv_enter(device) : MH_OUT_OF_MEMORY;
    if (!status) {
        memcpy(copy, image, size);
        copy[size] = 0;
        status = nv_load(device, copy, log, (uint32_t)(log_size < 65536 ? log_size : 65536),
                         &module->module);
        nv_leave(device);
        if (status == MH_VENDOR_ERROR)
            status = MH_BAD_DATA;
    }
    if (copy)
        core->deallocate(core->context, copy);
    if (status && module)
        core->deallocate(core->context, module);
    if (!status)
        *out = module;
    return status;
}

static void unload(void *user, void *module)
{
    struct device *device = user;
    if (!nv_enter(device)) {
        device->cu->ModuleUnload(((struct user_module *)module)->module);
        nv_leave(device);
    }
    device->core->deallocate(device->core->context, module);
}

static mh_status kernel(void *user, void *module, const char *name, void **out)
{
    struct device *device = user;
    struct user_kernel *made = device->core->allocate(device->core->context, sizeof(*made));
    mh_status status = made ? nv_enter(device) : MH_OUT_OF_MEMORY;
    if (!status) {
        CUresult result = device->cu->ModuleGetFunction(
            &made->function, ((struct user_module *)module)->module, name);
        if (result == CUDA_ERROR_NOT_FOUND)
            status =
                FAIL(device->core, MH_NOT_FOUND, "nvidia: the module has no kernel '%s'", name);
        else
            status = nv_check(device->instance, result, "cuModuleGetFunction", __FILE__, __LINE__);
        nv_leave(device);
    }
    if (status && made)
        device->core->deallocate(device->core->context, made);
    if (!status)
        *out = made;
    return status;
}

static void kernel_destroy(void *user, void *kernel)
{
    struct device *device = user;
    device->core->deallocate(device->core->context, kernel);
}

const mh_backend_module nv_module_group = {sizeof(nv_module_group), load, unload, kernel,
                                           kernel_destroy};

void nv_user_launch(const mh_op_kernel *op, struct user_launch *out)
{
    out->function = ((struct user_kernel *)mh_view_kernel(op->kernel)->handle)->function;
    out->arg_count = op->arg_count;
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
