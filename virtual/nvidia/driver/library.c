/* library.c: libraries and kernels, which belong to no context; the linker over PTX. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CUkern_st {
    CUkernel next;
    CUlibrary library;
    size_t index; /* of the function in the parsed module */
    const char *name;
};

struct CUlib_st {
    struct vn_module *parsed;
    CUkernel kernels;
};

/* The library's module in a context, made when first asked for. */
static CUresult library_module(CUlibrary library, CUcontext context, CUmodule *out)
{
    lock();
    CUmodule module = context->modules;
    while (module && module->library != library)
        module = module->next;
    unlock();
    if (module) {
        *out = module;
        return CUDA_SUCCESS;
    }
    CUresult result = module_create(context, vn_module_retain(library->parsed), out);
    if (result == CUDA_SUCCESS)
        (*out)->library = library;
    return result;
}

CUresult function_resolve(CUcontext context, CUfunction handle, CUfunction *out)
{
    if (vc_handle_is(handle, HANDLE_FUNCTION)) {
        *out = handle;
        return CUDA_SUCCESS;
    }
    CUkernel kernel = (CUkernel)handle;
    CUmodule module;
    if (!vc_handle_is(kernel, HANDLE_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = library_module(kernel->library, context, &module);
    return result == CUDA_SUCCESS ? module_function(module, kernel->name, out) : result;
}

static void library_free(CUlibrary library)
{
    while (library->kernels) {
        CUkernel k = library->kernels;
        library->kernels = k->next;
        vc_handle_remove(k);
        free(k);
    }
    vn_module_release(library->parsed);
    vc_handle_remove(library);
    free(library);
}

static CUresult load(const char *name, CUlibrary *out, const void *code, unsigned jit_count,
                     const CUjit_option *jit, void **jit_values, unsigned count)
{
    ENTER(name);
    struct vn_module *parsed;
    (void)count; /* how the library keeps the code is of no consequence here */
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = module_parse(code, 0, jit_count, jit, jit_values, &parsed);
    if (result != CUDA_SUCCESS)
        return result;
    CUlibrary library = calloc(1, sizeof *library);
    if (!library || !vc_handle_add(library, HANDLE_LIBRARY)) {
        vn_module_release(parsed);
        free(library);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    library->parsed = parsed;
    for (size_t i = vn_module_functions(parsed); i-- > 0;) {
        const struct vn_function *f = vn_module_function(parsed, i);
        if (!f->entry || !f->defined)
            continue;
        CUkernel k = calloc(1, sizeof *k);
        if (!k || !vc_handle_add(k, HANDLE_KERNEL)) {
            free(k);
            library_free(library);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        *k = (struct CUkern_st){library->kernels, library, i, f->name};
        library->kernels = k;
    }
    *out = library;
    return CUDA_SUCCESS;
}

CU_API CUresult cuLibraryLoadData(CUlibrary *out, const void *code, CUjit_option *jit,
                                  void **jit_values, unsigned jit_count, CUlibraryOption *options,
                                  void **values, unsigned count)
{
    (void)options;
    (void)values;
    return load("cuLibraryLoadData", out, code, jit_count, jit, jit_values, count);
}

CU_API CUresult cuLibraryLoadFromFile(CUlibrary *out, const char *path, CUjit_option *jit,
                                      void **jit_values, unsigned jit_count,
                                      CUlibraryOption *options, void **values, unsigned count)
{
    void *text;
    size_t size;
    (void)options;
    (void)values;
    ENTER("cuLibraryLoadFromFile");
    if (!path)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = module_read_file(path, &text, &size);
    if (result != CUDA_SUCCESS)
        return result;
    result = load("", out, text, jit_count, jit, jit_values, count);
    free(text);
    return result;
}

#define LIBRARY(library)                                                                           \
    do {                                                                                           \
        if (!vc_handle_is(library, HANDLE_LIBRARY))                                                \
            return CUDA_ERROR_INVALID_HANDLE;                                                      \
    } while (0)
#define KERNEL(kernel)                                                                             \
    do {                                                                                           \
        if (!vc_handle_is(kernel, HANDLE_KERNEL))                                                  \
            return CUDA_ERROR_INVALID_HANDLE;                                                      \
    } while (0)

CU_API CUresult cuLibraryUnload(CUlibrary library)
{
    ENTER("cuLibraryUnload");
    LIBRARY(library);
    for (;;) {
        CUmodule module = NULL;
        lock();
        for (CUcontext c = driver.contexts; c && !module; c = c->next)
            for (CUmodule *at = &c->modules; *at; at = &(*at)->next)
                if ((*at)->library == library) {
                    module = *at;
                    *at = module->next;
                    break;
                }
        unlock();
        if (!module)
            break;
        context_drain(module->context);
        vc_handle_remove(module);
        module_release(module);
    }
    library_free(library);
    return CUDA_SUCCESS;
}

CU_API CUresult cuLibraryGetKernel(CUkernel *out, CUlibrary library, const char *name)
{
    ENTER("cuLibraryGetKernel");
    LIBRARY(library);
    if (!out || !name)
        return CUDA_ERROR_INVALID_VALUE;
    for (CUkernel k = library->kernels; k; k = k->next)
        if (!strcmp(k->name, name)) {
            *out = k;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

CU_API CUresult cuLibraryGetKernelCount(unsigned *count, CUlibrary library)
{
    ENTER("cuLibraryGetKernelCount");
    LIBRARY(library);
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = 0;
    for (CUkernel k = library->kernels; k; k = k->next)
        ++*count;
    return CUDA_SUCCESS;
}

CU_API CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned count, CUlibrary library)
{
    ENTER("cuLibraryEnumerateKernels");
    LIBRARY(library);
    if (!kernels)
        return CUDA_ERROR_INVALID_VALUE;
    for (CUkernel k = library->kernels; k && count; k = k->next, count--)
        *kernels++ = k;
    return CUDA_SUCCESS;
}

CU_API CUresult cuLibraryGetModule(CUmodule *out, CUlibrary library)
{
    ENTER_CONTEXT("cuLibraryGetModule", context);
    LIBRARY(library);
    return out ? library_module(library, context, out) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult library_variable(const char *call, CUdeviceptr *address, size_t *bytes,
                                 CUlibrary library, const char *name)
{
    ENTER_CONTEXT(call, context);
    CUmodule module;
    LIBRARY(library);
    if (!name || (!address && !bytes))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = library_module(library, context, &module);
    return result == CUDA_SUCCESS ? module_variable(module, name, address, bytes) : result;
}

CU_API CUresult cuLibraryGetGlobal(CUdeviceptr *address, size_t *bytes, CUlibrary library,
                                   const char *name)
{
    return library_variable("cuLibraryGetGlobal", address, bytes, library, name);
}

CU_API CUresult cuKernelGetFunction(CUfunction *out, CUkernel kernel)
{
    ENTER_CONTEXT("cuKernelGetFunction", context);
    KERNEL(kernel);
    return out ? function_resolve(context, (CUfunction)kernel, out) : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuKernelGetLibrary(CUlibrary *out, CUkernel kernel)
{
    ENTER("cuKernelGetLibrary");
    KERNEL(kernel);
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = kernel->library;
    return CUDA_SUCCESS;
}

CU_API CUresult cuKernelGetName(const char **name, CUkernel kernel)
{
    ENTER("cuKernelGetName");
    KERNEL(kernel);
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    *name = kernel->name;
    return CUDA_SUCCESS;
}

CU_API CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *offset, size_t *size)
{
    ENTER("cuKernelGetParamInfo");
    KERNEL(kernel);
    const struct vn_function *f = vn_module_function(kernel->library->parsed, kernel->index);
    if (!offset || index >= f->param_count)
        return CUDA_ERROR_INVALID_VALUE;
    *offset = f->params[index].offset;
    if (size)
        *size = f->params[index].size;
    return CUDA_SUCCESS;
}

/* A kernel's attributes are those of its function in the device's primary context. */
static CUresult kernel_function(CUkernel kernel, CUdevice ordinal, CUfunction *out)
{
    struct device *device;
    KERNEL(kernel);
    CUresult result = device_of(ordinal, &device);
    if (result != CUDA_SUCCESS)
        return result;
    CUcontext context = context_current();
    if (!vc_handle_is(context, HANDLE_CONTEXT) || context->device != device)
        context = device->primary;
    return context ? function_resolve(context, (CUfunction)kernel, out)
                   : CUDA_ERROR_INVALID_CONTEXT;
}

CU_API CUresult cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel,
                                     CUdevice device)
{
    ENTER("cuKernelGetAttribute");
    CUfunction f;
    CUresult result = kernel_function(kernel, device, &f);
    return result == CUDA_SUCCESS ? function_attribute(f, attribute, value) : result;
}

CU_API CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel,
                                     CUdevice device)
{
    ENTER("cuKernelSetAttribute");
    CUfunction f;
    CUresult result = kernel_function(kernel, device, &f);
    return result == CUDA_SUCCESS ? function_set_attribute(f, attribute, value) : result;
}

CU_API CUresult cuKernelSetCacheConfig(CUkernel kernel, int config, CUdevice device)
{
    ENTER("cuKernelSetCacheConfig");
    CUfunction f;
    return config < 0 || config > 3 ? CUDA_ERROR_INVALID_VALUE
                                    : kernel_function(kernel, device, &f);
}

/* ---- the linker ---- */

enum { MAX_INPUTS = 1024 };

struct CUlinkState_st {
    struct vn_module *input[MAX_INPUTS];
    char *text[MAX_INPUTS];
    size_t size[MAX_INPUTS];
    size_t count;
    char *image; /* what cuLinkComplete hands out */
};

CU_API CUresult cuLinkCreate_v2(unsigned count, CUjit_option *options, void **values,
                                CUlinkState *out)
{
    ENTER_CONTEXT("cuLinkCreate", context);
    (void)values;
    if (!out || (count && !options))
        return CUDA_ERROR_INVALID_VALUE;
    CUlinkState state = calloc(1, sizeof *state);
    if (!state || !vc_handle_add(state, HANDLE_LINK)) {
        free(state);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = state;
    return CUDA_SUCCESS;
}

static CUresult link_add(CUlinkState state, CUjitInputType type, const void *data, size_t bytes,
                         unsigned count, CUjit_option *options, void **values)
{
    if (!vc_handle_is(state, HANDLE_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    if (state->image)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (!data || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_JIT_INPUT_PTX)
        return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "cuLinkAdd: inputs of type %d; only PTX text",
                      (int)type);
    if (state->count == MAX_INPUTS)
        return CUDA_ERROR_OUT_OF_MEMORY;
    char *text = malloc(bytes + 4);
    if (!text)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(text, data, bytes);
    memset(text + bytes, 0, 4);
    while (bytes && text[bytes - 1] == '\0')
        bytes--;
    CUresult result =
        module_parse(text, bytes, count, options, values, &state->input[state->count]);
    if (result != CUDA_SUCCESS) {
        free(text);
        return result;
    }
    state->text[state->count] = text;
    state->size[state->count++] = bytes;
    return CUDA_SUCCESS;
}

CU_API CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t bytes,
                                 const char *name, unsigned count, CUjit_option *options,
                                 void **values)
{
    ENTER("cuLinkAddData");
    (void)name;
    return link_add(state, type, data, bytes, count, options, values);
}

CU_API CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path,
                                 unsigned count, CUjit_option *options, void **values)
{
    ENTER("cuLinkAddFile");
    void *text;
    size_t bytes;
    if (!path)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = module_read_file(path, &text, &bytes);
    if (result != CUDA_SUCCESS)
        return result;
    result = link_add(state, type, text, bytes, count, options, values);
    free(text);
    return result;
}

/* Linked here for its errors; the image holds the texts, and may outlive the linker as a cubin may.
 */
CU_API CUresult cuLinkComplete(CUlinkState state, void **image, size_t *bytes)
{
    ENTER("cuLinkComplete");
    struct vn_diagnostic why = {0};
    if (!vc_handle_is(state, HANDLE_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!image || !state->count || state->image)
        return CUDA_ERROR_INVALID_VALUE;
    struct vn_module *linked =
        vn_module_link((const struct vn_module *const *)state->input, state->count, &why);
    if (!linked)
        return refuse(CUDA_ERROR_INVALID_PTX, "cuLinkComplete: %s", why.text);
    vn_module_release(linked);
    size_t size;
    state->image = link_image_make(state->text, state->size, state->count, &size);
    if (!state->image)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (bytes)
        *bytes = size;
    *image = state->image;
    return CUDA_SUCCESS;
}

CU_API CUresult cuLinkDestroy(CUlinkState state)
{
    ENTER("cuLinkDestroy");
    if (!vc_handle_is(state, HANDLE_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    vc_handle_remove(state);
    for (size_t i = 0; i < state->count; i++) {
        vn_module_release(state->input[i]);
        free(state->text[i]);
    }
    free(state->image);
    free(state);
    return CUDA_SUCCESS;
}
