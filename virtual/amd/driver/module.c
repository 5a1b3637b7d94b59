/* module.c: code objects on a device: kernels, variables, attributes, occupancy. */
#include "driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void module_hold(hipModule_t module)
{
    module->holders++;
}

void module_release(hipModule_t module)
{
    if (--module->holders)
        return;
    for (hipModule_t *at = &module->device->modules; *at; at = &(*at)->next)
        if (*at == module) {
            *at = module->next;
            break;
        }
    for (size_t i = 0; module->functions && i < module->code->kernel_count; i++)
        if (module->functions[i].kernarg)
            vc_free(driver.map, module->functions[i].kernarg);
    va_code_release(module->text);
    if (module->address)
        vc_free(driver.map, module->address);
    vl_code_free(module->code);
    free(module->functions);
    free(module);
}

static hipError_t make_function(hipModule_t m, size_t index)
{
    hipFunction_t f = &m->functions[index];
    const struct vl_kernel *k = &m->code->kernels[index];
    const struct vl_descriptor *d = &k->descriptor;
    char name[80];
    f->module = m;
    f->info = k;
    f->kernel = (struct va_kernel){
        .name = k->name,
        .entry = m->address + k->entry,
        .rsrc1 = d->rsrc1,
        .rsrc2 = d->rsrc2,
        .rsrc3 = d->rsrc3,
        .properties = d->properties,
        .preload = (uint16_t)(d->preload_length | d->preload_offset << 7),
        .lds_bytes = d->group_segment,
        .scratch_bytes = d->private_segment,
        .dynamic_stack = k->dynamic_stack,
    };
    va_kernel_registers(&f->kernel, &f->registers);
    if (!k->kernarg_size)
        return hipSuccess;
    snprintf(name, sizeof name, "arguments of %s", k->name);
    return memory_alloc(m->device, k->kernarg_size, VC_MODULE, name, &f->kernarg);
}

static hipError_t make(hipModule_t m, const char *what)
{
    hipError_t result = memory_alloc(m->device, m->code->span, VC_MODULE, what, &m->address);
    if (result != hipSuccess)
        return result;
    vl_code_place(m->code, (void *)(uintptr_t)m->address, m->address);
    m->text = va_code_create(m->address + m->code->text_at, m->code->text_size & ~(uint64_t)3);
    m->functions = calloc(m->code->kernel_count + 1, sizeof m->functions[0]);
    if (!m->text || !m->functions)
        return hipErrorOutOfMemory;
    for (size_t i = 0; i < m->code->kernel_count; i++) {
        result = make_function(m, i);
        if (result != hipSuccess)
            return result;
    }
    return hipSuccess;
}

hipError_t module_load(struct device *device, const void *image, size_t size, const char *what,
                       hipModule_t *out)
{
    char why[VL_WHY];
    size_t picked;
    bool wrong_target;
    const void *elf = vl_image_pick(image, size, "gfx942", &picked, &wrong_target, why);
    struct vl_code *code = elf ? vl_code_parse(elf, picked, "gfx942", &wrong_target, why) : NULL;
    if (!code)
        return refuse(wrong_target ? hipErrorNoBinaryForGpu : hipErrorInvalidImage, "%s: %s", what,
                      why);
    hipModule_t m = calloc(1, sizeof *m);
    if (!m) {
        vl_code_free(code);
        return hipErrorOutOfMemory;
    }
    m->device = device;
    m->code = code;
    m->holders = 1;
    hipError_t result = make(m, what);
    lock();
    if (result == hipSuccess) {
        m->next = device->modules;
        device->modules = m;
        *out = m;
    } else {
        module_release(m);
    }
    unlock();
    return result;
}

static hipError_t load(struct device *device, const void *image, size_t size, const char *what,
                       hipModule_t *out)
{
    hipError_t result = module_load(device, image, size, what, out);
    if (result == hipSuccess && !vc_handle_add(*out, HANDLE_MODULE)) {
        lock();
        module_release(*out);
        unlock();
        return hipErrorOutOfMemory;
    }
    return result;
}

static hipError_t load_data(const char *name, hipModule_t *out, const void *image)
{
    char why[VL_WHY];
    ENTER_DEVICE(name, device);
    if (!out || !image)
        return done(hipErrorInvalidValue);
    size_t size = vl_image_size(image, why);
    if (!size)
        return done(refuse(hipErrorInvalidImage, "%s: %s", name, why));
    return done(load(device, image, size, "a module", out));
}

HIP_API hipError_t hipModuleLoadData(hipModule_t *out, const void *image)
{
    return load_data("hipModuleLoadData", out, image);
}

HIP_API hipError_t hipModuleLoadDataEx(hipModule_t *out, const void *image, unsigned count,
                                       int *options, void **values)
{
    (void)count, (void)options, (void)values; /* they are for compilers */
    return load_data("hipModuleLoadDataEx", out, image);
}

static hipError_t read_file(const char *path, void **bytes, size_t *size)
{
    struct stat about;
    FILE *f = fopen(path, "rb");
    if (!f)
        return refuse(hipErrorFileNotFound, "%s: %s", path, strerror(errno));
    *bytes = NULL;
    *size = fstat(fileno(f), &about) ? 0 : (size_t)about.st_size;
    hipError_t result = *size ? hipErrorOutOfMemory : hipErrorInvalidImage;
    if (*size && (*bytes = malloc(*size)))
        result = fread(*bytes, 1, *size, f) == *size ? hipSuccess : hipErrorInvalidImage;
    fclose(f);
    if (result != hipSuccess)
        free(*bytes);
    return result;
}

HIP_API hipError_t hipModuleLoad(hipModule_t *out, const char *path)
{
    void *bytes = NULL;
    size_t size = 0;
    ENTER_DEVICE("hipModuleLoad", device);
    if (!out || !path)
        return done(hipErrorInvalidValue);
    hipError_t result = read_file(path, &bytes, &size);
    if (result != hipSuccess)
        return done(result);
    result = load(device, bytes, size, path, out);
    free(bytes);
    return done(result);
}

HIP_API hipError_t hipModuleUnload(hipModule_t module)
{
    ENTER("hipModuleUnload");
    if (!vc_handle_is(module, HANDLE_MODULE))
        return done(hipErrorInvalidHandle);
    vc_handle_remove(module);
    for (size_t i = 0; i < module->code->kernel_count; i++)
        vc_handle_remove(&module->functions[i]);
    lock();
    module_release(module); /* what is queued holds it still */
    unlock();
    return hipSuccess;
}

hipError_t module_function(hipModule_t module, const char *name, hipFunction_t *out)
{
    const struct vl_kernel *k = vl_code_kernel(module->code, name);
    if (!k)
        return refuse(hipErrorNotFound, "no kernel %s in the module", name);
    *out = &module->functions[k - module->code->kernels];
    return hipSuccess;
}

HIP_API hipError_t hipModuleGetFunction(hipFunction_t *out, hipModule_t module, const char *name)
{
    ENTER_DEVICE("hipModuleGetFunction", device);
    (void)device;
    if (!out || !name)
        return done(hipErrorInvalidValue);
    if (!vc_handle_is(module, HANDLE_MODULE))
        return done(hipErrorInvalidHandle);
    hipError_t result = module_function(module, name, out);
    if (result == hipSuccess && !vc_handle_is(*out, HANDLE_FUNCTION) &&
        !vc_handle_add(*out, HANDLE_FUNCTION))
        result = hipErrorOutOfMemory;
    return done(result);
}

HIP_API hipError_t hipModuleGetGlobal(hipDeviceptr_t *address, size_t *bytes, hipModule_t module,
                                      const char *name)
{
    ENTER_DEVICE("hipModuleGetGlobal", device);
    (void)device;
    if (!name || !vc_handle_is(module, HANDLE_MODULE))
        return done(name ? hipErrorInvalidHandle : hipErrorInvalidValue);
    const struct vl_variable *v = vl_code_variable(module->code, name);
    if (!v)
        return done(refuse(hipErrorNotFound, "no variable %s in the module", name));
    if (address)
        *address = (hipDeviceptr_t)(uintptr_t)(module->address + v->at);
    if (bytes)
        *bytes = v->size;
    return hipSuccess;
}

HIP_API const char *hipKernelNameRef(hipFunction_t f)
{
    return vc_handle_is(f, HANDLE_FUNCTION) ? f->info->name : NULL;
}

/* ---- attributes ---- */

static int max_threads(const struct ihipModuleSymbol_t *f)
{
    return (int)(f->info->max_threads ? f->info->max_threads : 1024);
}

static hipError_t function_attribute(const struct ihipModuleSymbol_t *f, int which, int *value)
{
    const struct limits *l = &f->module->device->limits;
    switch (which) {
    case HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = max_threads(f);
        return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value = (int)f->kernel.lds_bytes;
        return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value = (int)f->kernel.scratch_bytes;
        return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_NUM_REGS:
        *value = (int)f->registers.total;
        return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_PTX_VERSION:
    case HIP_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = 94;
        return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
    case HIP_FUNC_ATTRIBUTE_CACHE_MODE_CA:
    case HIP_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        *value = 0;
        return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = l->lds - (int)f->kernel.lds_bytes;
        return hipSuccess;
    default:
        return hipErrorInvalidValue;
    }
}

HIP_API hipError_t hipFuncGetAttribute(int *value, int which, hipFunction_t f)
{
    ENTER_DEVICE("hipFuncGetAttribute", device);
    (void)device;
    if (!value || !vc_handle_is(f, HANDLE_FUNCTION))
        return done(value ? hipErrorInvalidDeviceFunction : hipErrorInvalidValue);
    return done(function_attribute(f, which, value));
}

HIP_API hipError_t hipFuncGetAttributes(hipFuncAttributes *out, const void *host)
{
    hipFunction_t f;
    ENTER_DEVICE("hipFuncGetAttributes", device);
    if (!out)
        return done(hipErrorInvalidValue);
    hipError_t result = registered_function(device, host, &f);
    if (result != hipSuccess)
        return done(result);
    *out = (hipFuncAttributes){
        .binaryVersion = 94,
        .localSizeBytes = f->kernel.scratch_bytes,
        .maxDynamicSharedSizeBytes = device->limits.lds - (int)f->kernel.lds_bytes,
        .maxThreadsPerBlock = max_threads(f),
        .numRegs = (int)f->registers.total,
        .ptxVersion = 94,
        .sharedSizeBytes = f->kernel.lds_bytes,
    };
    return hipSuccess;
}

static hipError_t hint(const char *name, const void *host, bool fine)
{
    hipFunction_t f;
    ENTER_DEVICE(name, device);
    hipError_t result = registered_function(device, host, &f);
    return done(result == hipSuccess && !fine ? hipErrorInvalidValue : result);
}

/* LDS is given whole to whoever asks: there is nothing to set. */
HIP_API hipError_t hipFuncSetAttribute(const void *host, int which, int value)
{
    return hint("hipFuncSetAttribute", host,
                value >= 0 && (which == hipFuncAttributeMaxDynamicSharedMemorySize ||
                               which == hipFuncAttributePreferredSharedMemoryCarveout));
}

HIP_API hipError_t hipFuncSetCacheConfig(const void *host, int config)
{
    return hint("hipFuncSetCacheConfig", host, config >= 0 && config <= 3);
}

HIP_API hipError_t hipFuncSetSharedMemConfig(const void *host, int config)
{
    return hint("hipFuncSetSharedMemConfig", host, config >= 0 && config <= 2);
}

/* ---- occupancy: a compute unit has four SIMDs of 512 registers a lane and at most 8 waves ---- */

int function_occupancy(const struct ihipModuleSymbol_t *f, int threads, size_t dynamic_lds)
{
    enum { SIMDS = 4, REGISTERS = 512, WAVES = 8, LDS_GRANULE = 512 };
    const struct limits *l = &f->module->device->limits;
    size_t lds = f->kernel.lds_bytes + dynamic_lds;
    if (threads <= 0 || threads > max_threads(f) || lds > (size_t)l->lds)
        return 0;
    int waves = (threads + 63) / 64;
    int registers = (int)f->registers.total;
    int waves_a_simd = registers ? REGISTERS / registers : WAVES;
    waves_a_simd = waves_a_simd > WAVES ? WAVES : waves_a_simd;
    int blocks = SIMDS * waves_a_simd / waves;
    lds = (lds + LDS_GRANULE - 1) & ~(size_t)(LDS_GRANULE - 1);
    int by_lds = lds ? (int)((size_t)l->lds / lds) : blocks;
    return by_lds < blocks ? by_lds : blocks;
}

static hipError_t occupancy(hipFunction_t f, int *blocks, int threads, size_t lds)
{
    if (!blocks || threads <= 0)
        return hipErrorInvalidValue;
    *blocks = function_occupancy(f, threads, lds);
    return hipSuccess;
}

static hipError_t best_block(hipFunction_t f, int *grid, int *block, size_t lds, int limit)
{
    int best = 0, most = max_threads(f);
    if (!grid || !block || limit < 0)
        return hipErrorInvalidValue;
    if (limit && limit < most)
        most = limit;
    *grid = *block = 0;
    for (int threads = (most + 63) / 64 * 64; threads > 0; threads -= 64) {
        int n = threads < most ? threads : most, blocks = function_occupancy(f, n, lds);
        if (blocks * n > best) {
            best = blocks * n;
            *block = n;
            *grid = blocks * f->module->device->limits.cus;
        }
    }
    return best ? hipSuccess : hipErrorInvalidValue;
}

/* By module function, or by the host address that hipcc's code knows. */
static hipError_t enter_function(const char *name, const void *handle, bool host,
                                 hipFunction_t *out)
{
    ENTER_DEVICE(name, device);
    if (host)
        return done(registered_function(device, handle, out));
    *out = (hipFunction_t)handle;
    return done(vc_handle_is(handle, HANDLE_FUNCTION) ? hipSuccess : hipErrorInvalidDeviceFunction);
}

#define OCCUPANCY(name, type, host)                                                                \
    HIP_API hipError_t name(int *blocks, type handle, int threads, size_t lds)                     \
    {                                                                                              \
        hipFunction_t f = NULL;                                                                    \
        hipError_t result = enter_function(#name, handle, host, &f);                               \
        return result == hipSuccess ? done(occupancy(f, blocks, threads, lds)) : result;           \
    }                                                                                              \
    HIP_API hipError_t name##WithFlags(int *blocks, type handle, int threads, size_t lds,          \
                                       unsigned flags)                                             \
    {                                                                                              \
        return flags > 1 ? done(hipErrorInvalidValue) : name(blocks, handle, threads, lds);        \
    }
OCCUPANCY(hipModuleOccupancyMaxActiveBlocksPerMultiprocessor, hipFunction_t, false)
OCCUPANCY(hipOccupancyMaxActiveBlocksPerMultiprocessor, const void *, true)

#define BEST_BLOCK(name, type, host)                                                               \
    HIP_API hipError_t name(int *grid, int *block, type handle, size_t lds, int limit)             \
    {                                                                                              \
        hipFunction_t f = NULL;                                                                    \
        hipError_t result = enter_function(#name, handle, host, &f);                               \
        return result == hipSuccess ? done(best_block(f, grid, block, lds, limit)) : result;       \
    }
BEST_BLOCK(hipModuleOccupancyMaxPotentialBlockSize, hipFunction_t, false)
BEST_BLOCK(hipOccupancyMaxPotentialBlockSize, const void *, true)

HIP_API hipError_t hipModuleOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block,
                                                                    hipFunction_t f, size_t lds,
                                                                    int limit, unsigned flags)
{
    return flags > 1 ? done(hipErrorInvalidValue)
                     : hipModuleOccupancyMaxPotentialBlockSize(grid, block, f, lds, limit);
}
