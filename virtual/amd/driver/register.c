/* register.c: what the host code that hipcc makes calls before main: fat binaries, and the host
 * addresses that stand for kernels and variables. A binary is loaded on a device when something of
 * it is first used there. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

struct fat_wrapper { /* __hip_fatbin_segment */
    uint32_t magic, version;
    const void *binary;
    void *unused;
};
enum { FAT_MAGIC = 0x48495046 }; /* "HIPF" */

struct fat {
    const void *binary;
    hipModule_t module[VC_MAX_DEVICES];
};

struct name {
    struct name *next;
    struct fat *fat;
    const void *host;
    char *name;
    bool variable;
};

static struct name *names; /* guarded by `loading` */
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

HIP_API void **register_binary(const void *data) __asm__("__hipRegisterFatBinary");
HIP_API void **register_binary(const void *data)
{
    const struct fat_wrapper *wrapper = data;
    struct fat *fat = wrapper->magic == FAT_MAGIC ? calloc(1, sizeof *fat) : NULL;
    if (fat)
        fat->binary = wrapper->binary;
    return (void **)fat;
}

static void add(void **handle, const void *host, const char *text, bool variable)
{
    struct name *n = handle ? calloc(1, sizeof *n) : NULL;
    if (!n || !(n->name = strdup(text))) {
        free(n);
        return;
    }
    n->fat = (struct fat *)handle;
    n->host = host;
    n->variable = variable;
    pthread_mutex_lock(&loading);
    n->next = names;
    names = n;
    pthread_mutex_unlock(&loading);
}

HIP_API void register_function(void **handle, const void *host, char *device_function,
                               const char *name, unsigned limit, void *tid, void *bid, void *block,
                               void *grid, int *size) __asm__("__hipRegisterFunction");
HIP_API void register_function(void **handle, const void *host, char *device_function,
                               const char *name, unsigned limit, void *tid, void *bid, void *block,
                               void *grid, int *size)
{
    (void)device_function, (void)limit, (void)tid, (void)bid, (void)block, (void)grid, (void)size;
    add(handle, host, name, false);
}

HIP_API void register_variable(void **handle, void *host, char *host_name, char *name, int external,
                               size_t size, int constant, int global) __asm__("__hipRegisterVar");
HIP_API void register_variable(void **handle, void *host, char *host_name, char *name, int external,
                               size_t size, int constant, int global)
{
    (void)host_name, (void)external, (void)size, (void)constant, (void)global;
    add(handle, host, name, true);
}

HIP_API void unregister_binary(void **handle) __asm__("__hipUnregisterFatBinary");
HIP_API void unregister_binary(void **handle)
{
    pthread_mutex_lock(&loading);
    for (struct name **at = &names, *n; (n = *at);) {
        if (n->fat != (struct fat *)handle) {
            at = &n->next;
            continue;
        }
        *at = n->next;
        free(n->name);
        free(n);
    }
    pthread_mutex_unlock(&loading);
    free(handle); /* its modules stay: the process ends */
}

static hipError_t find(struct device *device, const void *host, bool variable,
                       const struct name **found)
{
    char why[VL_WHY];
    const struct name *n = names;
    while (n && (n->host != host || n->variable != variable))
        n = n->next;
    if (!n)
        return variable ? hipErrorInvalidSymbol : hipErrorInvalidDeviceFunction;
    *found = n;
    if (n->fat->module[device->ordinal])
        return hipSuccess;
    size_t size = vl_image_size(n->fat->binary, why);
    if (!size)
        return refuse(hipErrorInvalidImage, "the program's fat binary: %s", why);
    return module_load(device, n->fat->binary, size, "the program's fat binary",
                       &n->fat->module[device->ordinal]);
}

hipError_t registered_function(struct device *device, const void *host, hipFunction_t *out)
{
    const struct name *n;
    pthread_mutex_lock(&loading);
    hipError_t result = find(device, host, false, &n);
    if (result == hipSuccess)
        result = module_function(n->fat->module[device->ordinal], n->name, out);
    pthread_mutex_unlock(&loading);
    return result;
}

hipError_t registered_variable(struct device *device, const void *host, uint64_t *address,
                               uint64_t *bytes)
{
    const struct name *n;
    pthread_mutex_lock(&loading);
    hipError_t result = find(device, host, true, &n);
    const struct vl_variable *v = NULL;
    if (result == hipSuccess) {
        hipModule_t m = n->fat->module[device->ordinal];
        v = vl_code_variable(m->code, n->name);
        *address = v ? m->address + v->at : 0;
        *bytes = v ? v->size : 0;
    }
    pthread_mutex_unlock(&loading);
    return result == hipSuccess && !v ? hipErrorInvalidSymbol : result;
}

/* ---- <<<...>>>: the configuration waits for the launch ---- */

struct configuration {
    dim3 grid, block;
    size_t lds;
    hipStream_t stream;
};
static _Thread_local struct configuration pushed[16];
static _Thread_local int depth;

HIP_API hipError_t push_configuration(dim3 grid, dim3 block, size_t lds,
                                      hipStream_t stream) __asm__("__hipPushCallConfiguration");
HIP_API hipError_t push_configuration(dim3 grid, dim3 block, size_t lds, hipStream_t stream)
{
    if (depth == 16)
        return done(hipErrorInvalidValue);
    pushed[depth++] = (struct configuration){grid, block, lds, stream};
    return hipSuccess;
}

HIP_API hipError_t pop_configuration(dim3 *grid, dim3 *block, size_t *lds,
                                     hipStream_t *stream) __asm__("__hipPopCallConfiguration");
HIP_API hipError_t pop_configuration(dim3 *grid, dim3 *block, size_t *lds, hipStream_t *stream)
{
    if (!depth)
        return done(hipErrorMissingConfiguration);
    const struct configuration *c = &pushed[--depth];
    *grid = c->grid;
    *block = c->block;
    *lds = c->lds;
    *stream = c->stream;
    return hipSuccess;
}

HIP_API const char *hipKernelNameRefByPtr(const void *host, hipStream_t stream)
{
    hipFunction_t f;
    (void)stream;
    if (driver_start() != hipSuccess ||
        registered_function(device_current(), host, &f) != hipSuccess)
        return NULL;
    return f->info->name;
}

/* ---- variables ---- */

HIP_API hipError_t hipGetSymbolAddress(void **out, const void *symbol)
{
    uint64_t address, bytes;
    ENTER_DEVICE("hipGetSymbolAddress", device);
    hipError_t result =
        out ? registered_variable(device, symbol, &address, &bytes) : hipErrorInvalidValue;
    if (result == hipSuccess)
        *out = (void *)(uintptr_t)address;
    return done(result);
}

HIP_API hipError_t hipGetSymbolSize(size_t *out, const void *symbol)
{
    uint64_t address, bytes;
    ENTER_DEVICE("hipGetSymbolSize", device);
    hipError_t result =
        out ? registered_variable(device, symbol, &address, &bytes) : hipErrorInvalidValue;
    if (result == hipSuccess)
        *out = bytes;
    return done(result);
}

static hipError_t copy_symbol(const char *name, const void *symbol, void *other, size_t bytes,
                              size_t offset, bool to, hipStream_t stream, bool wait)
{
    uint64_t address, size;
    ENTER_DEVICE(name, device);
    hipError_t result = registered_variable(device, symbol, &address, &size);
    if (result == hipSuccess && (offset > size || bytes > size - offset))
        result = hipErrorInvalidValue;
    if (result != hipSuccess)
        return done(result);
    void *at = (void *)(uintptr_t)(address + offset);
    struct copy copy = to ? copy_linear(at, other, bytes) : copy_linear(other, at, bytes);
    return done(copy_submit(device, &copy, stream, wait));
}

HIP_API hipError_t hipMemcpyToSymbol(const void *symbol, const void *from, size_t bytes,
                                     size_t offset, hipMemcpyKind kind)
{
    (void)kind;
    return copy_symbol("hipMemcpyToSymbol", symbol, (void *)from, bytes, offset, true, NULL, true);
}

HIP_API hipError_t hipMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset,
                                       hipMemcpyKind kind)
{
    (void)kind;
    return copy_symbol("hipMemcpyFromSymbol", symbol, to, bytes, offset, false, NULL, true);
}

HIP_API hipError_t hipMemcpyToSymbolAsync(const void *symbol, const void *from, size_t bytes,
                                          size_t offset, hipMemcpyKind kind, hipStream_t stream)
{
    (void)kind;
    return copy_symbol("hipMemcpyToSymbolAsync", symbol, (void *)from, bytes, offset, true, stream,
                       false);
}

HIP_API hipError_t hipMemcpyFromSymbolAsync(void *to, const void *symbol, size_t bytes,
                                            size_t offset, hipMemcpyKind kind, hipStream_t stream)
{
    (void)kind;
    return copy_symbol("hipMemcpyFromSymbolAsync", symbol, to, bytes, offset, false, stream, false);
}

HIP_API hipError_t hipMemcpyToSymbol_spt(const void *symbol, const void *from, size_t bytes,
                                         size_t offset, hipMemcpyKind kind)
{
    (void)kind;
    return copy_symbol("hipMemcpyToSymbol", symbol, (void *)from, bytes, offset, true,
                       hipStreamPerThread, true);
}

HIP_API hipError_t hipMemcpyFromSymbol_spt(void *to, const void *symbol, size_t bytes,
                                           size_t offset, hipMemcpyKind kind)
{
    (void)kind;
    return copy_symbol("hipMemcpyFromSymbol", symbol, to, bytes, offset, false, hipStreamPerThread,
                       true);
}
