/* module.c: modules from PTX text, their functions and variables. */
#include "driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the JIT options ask for ---- */

struct jit_log {
    char *text;
    size_t room;
    void **written; /* where the length goes */
    bool verbose;   /* says what was made */
};

static void read_options(unsigned count, const CUjit_option *option, void **values,
                         struct jit_log *error, struct jit_log *info, void ***wall_time)
{
    *error = *info = (struct jit_log){0};
    *wall_time = NULL;
    for (unsigned i = 0; i < count; i++) {
        struct jit_log *log =
            option[i] == CU_JIT_ERROR_LOG_BUFFER || option[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
                ? error
                : info;
        if (option[i] == CU_JIT_ERROR_LOG_BUFFER || option[i] == CU_JIT_INFO_LOG_BUFFER) {
            log->text = values[i];
        } else if (option[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES ||
                   option[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES) {
            log->room = (unsigned)(uintptr_t)values[i];
            log->written = &values[i];
        } else if (option[i] == CU_JIT_WALL_TIME) {
            *wall_time = &values[i];
        } else if (option[i] == CU_JIT_LOG_VERBOSE) {
            info->verbose = (unsigned)(uintptr_t)values[i] != 0;
        }
    }
}

static void write_log(const struct jit_log *log, const char *text)
{
    size_t n = strlen(text);
    if (log->text && log->room) {
        snprintf(log->text, log->room, "%s", text);
        n = n < log->room ? n : log->room - 1;
    } else {
        n = 0;
    }
    if (log->written)
        *log->written = (void *)(uintptr_t)n;
}

/* What there is to say of what was parsed. */
static void write_made(const struct jit_log *log, const struct vn_module *parsed)
{
    char *text = NULL;
    size_t size;
    FILE *f = log->verbose ? open_memstream(&text, &size) : NULL;
    if (!f)
        return;
    for (size_t i = 0; i < vn_module_functions(parsed); i++) {
        const struct vn_function *info = vn_module_function(parsed, i);
        if (info->entry && info->defined)
            fprintf(f, "info: kernel '%s', %u bytes of shared memory\n", info->name,
                    info->shared_bytes);
    }
    if (!fclose(f))
        write_log(log, text);
    free(text);
}

/* ---- what the linker hands out: a mark, and the texts with their sizes ---- */

static const char link_mark[] = "//moehal-linked\n";

char *link_image_make(char *const *texts, const size_t *sizes, size_t count, size_t *bytes)
{
    char *image = NULL;
    FILE *f = open_memstream(&image, bytes);
    if (!f)
        return NULL;
    fputs(link_mark, f);
    for (size_t i = 0; i < count; i++) {
        fprintf(f, "//%zu\n", sizes[i]);
        fwrite(texts[i], 1, sizes[i], f);
    }
    fputc('\0', f);
    return fclose(f) ? NULL : image;
}

static bool is_linked(const char *image)
{
    return !strncmp(image, link_mark, sizeof link_mark - 1);
}

/* Parses and links the texts of such an image of `size` bytes. */
static struct vn_module *parse_linked(const char *image, size_t size, struct vn_diagnostic *why)
{
    enum { MOST = 1024 };
    struct vn_module *linked = NULL, **part = calloc(MOST, sizeof *part);
    const char *at = image + sizeof link_mark - 1, *end = image + size;
    size_t count = 0;
    bool ok = part != NULL;
    while (ok && at < end) {
        char *text;
        size_t n = at + 2 < end ? strtoul(at + 2, &text, 10) : 0;
        ok = n && *text == '\n' && n <= (size_t)(end - text - 1) && count < MOST &&
             (part[count] = vn_module_parse(text + 1, n, why));
        count += ok;
        at = ok ? text + 1 + n : end;
    }
    if (ok)
        linked = vn_module_link((const struct vn_module *const *)part, count, why);
    while (count)
        vn_module_release(part[--count]);
    free(part);
    return linked;
}

/* ---- parsing ---- */

static const char *not_ptx(const void *image)
{
    uint32_t magic;
    memcpy(&magic, image, 4);
    if (magic == 0x464c457f)
        return "a cubin (ELF) holds machine code of one GPU; a virtual device runs PTX: load the "
               "PTX "
               "text (nvcc -ptx)";
    if (magic == 0xba55ed50 || magic == 0x466243b1)
        return "a fat binary is not taken apart here; load the PTX text in it (nvcc -ptx, or "
               "cuobjdump -ptx)";
    if (!memcmp(image, "BC\xc0\xde", 4))
        return "NVVM bitcode needs a compiler; load PTX text";
    if (!memcmp(image, "!<ar", 4))
        return "an archive is not taken apart here; load PTX text";
    return NULL;
}

CUresult module_parse(const void *image, size_t bytes, unsigned options, const CUjit_option *option,
                      void **values, struct vn_module **parsed)
{
    struct jit_log error, info;
    void **wall_time;
    if (!image || (options && (!option || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < options; i++)
        if ((unsigned)option[i] >= CU_JIT_NUM_OPTIONS)
            return CUDA_ERROR_INVALID_VALUE;
    read_options(options, option, values, &error, &info, &wall_time);
    write_log(&info, "");
    write_log(&error, "");
    if (wall_time) /* a float in the place of the pointer: no compiler has run */
        *wall_time = NULL;
    if (!bytes && ((const char *)image)[0] == '\0') {
        write_log(&error, "the image is empty");
        return CUDA_ERROR_INVALID_IMAGE;
    }
    bool text = memchr(image, 0, 4) == NULL;
    const char *why = text || bytes >= 4 ? not_ptx(image)
                                         : "this is neither PTX text nor anything "
                                           "that is known";
    if (!why && !text)
        why = "this is no PTX text";
    if (why) {
        write_log(&error, why);
        return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "module: %s", why);
    }
    size_t size = bytes ? bytes : strlen(image);
    while (size && ((const char *)image)[size - 1] == '\0')
        size--;
    struct vn_diagnostic diagnostic = {0};
    *parsed = is_linked(image) ? parse_linked(image, size, &diagnostic)
                               : vn_module_parse(image, size, &diagnostic);
    if (*parsed) {
        write_made(&info, *parsed);
        return CUDA_SUCCESS;
    }
    char line[512];
    snprintf(line, sizeof line, "ptx, line %u, column %u: error: %s\n", diagnostic.line,
             diagnostic.column, diagnostic.text);
    write_log(&error, line);
    return refuse(strstr(diagnostic.text, "version") ? CUDA_ERROR_UNSUPPORTED_PTX_VERSION
                                                     : CUDA_ERROR_INVALID_PTX,
                  "module: %s", line);
}

/* ---- modules ---- */

void module_hold(CUmodule module)
{
    __atomic_add_fetch(&module->holders, 1, __ATOMIC_RELAXED);
}

void module_release(CUmodule module)
{
    if (__atomic_sub_fetch(&module->holders, 1, __ATOMIC_ACQ_REL))
        return;
    vn_image_destroy(module->image);
    size_t variables = vn_module_variables(module->parsed);
    for (size_t i = 0; module->addresses && i < variables; i++)
        if (module->addresses[i])
            vc_free(driver.map, module->addresses[i]);
    free(module->addresses);
    while (module->functions) {
        CUfunction f = module->functions;
        module->functions = f->next;
        vc_handle_remove(f);
        free(f);
    }
    vn_module_release(module->parsed);
    free(module);
}

static CUresult place_variables(CUmodule module)
{
    size_t count = vn_module_variables(module->parsed);
    module->addresses = calloc(count ? count : 1, sizeof module->addresses[0]);
    if (!module->addresses)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const struct vn_variable *v = vn_module_variable(module->parsed, i);
        CUdeviceptr address;
        if (v->linkage == VN_EXTERN || !v->size)
            continue;
        CUresult result = memory_alloc(module->context, v->size, VC_MODULE, v->name, 0, &address);
        if (result != CUDA_SUCCESS)
            return result;
        module->addresses[i] = address;
    }
    return CUDA_SUCCESS;
}

static CUresult make_functions(CUmodule module)
{
    for (size_t i = vn_module_functions(module->parsed); i-- > 0;) {
        const struct vn_function *info = vn_module_function(module->parsed, i);
        if (!info->entry || !info->defined)
            continue;
        CUfunction f = calloc(1, sizeof *f);
        if (!f || !vc_handle_add(f, HANDLE_FUNCTION)) {
            free(f);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        f->module = module;
        f->info = info;
        f->index = i;
        int rest = (48 << 10) - (int)info->shared_bytes;
        f->max_dynamic_shared = rest > 0 ? rest : 0;
        f->carveout = -1;
        f->next = module->functions;
        module->functions = f;
    }
    return CUDA_SUCCESS;
}

/* Takes `parsed`, also when it fails. */
CUresult module_create(CUcontext context, struct vn_module *parsed, CUmodule *out)
{
    uint32_t target = vn_module_target(parsed);
    if (target > (uint32_t)context->device->limits.capability) {
        vn_module_release(parsed);
        return refuse(CUDA_ERROR_INVALID_PTX, "module: .target sm_%u, and the device is sm_%d",
                      target, context->device->limits.capability);
    }
    CUmodule module = calloc(1, sizeof *module);
    if (!module) {
        vn_module_release(parsed);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    module->context = context;
    module->parsed = parsed;
    module->holders = 1;
    struct vn_diagnostic diagnostic = {0};
    CUresult result = place_variables(module);
    if (result == CUDA_SUCCESS)
        result = make_functions(module);
    if (result == CUDA_SUCCESS) {
        module->image = vn_image_create(parsed, driver.map, module->addresses, &diagnostic);
        if (!module->image)
            result = refuse(CUDA_ERROR_INVALID_PTX, "module: %s", diagnostic.text);
    }
    if (result == CUDA_SUCCESS && !vc_handle_add(module, HANDLE_MODULE))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS) {
        module_release(module);
        return result;
    }
    lock();
    module->next = context->modules;
    context->modules = module;
    unlock();
    *out = module;
    return CUDA_SUCCESS;
}

CUresult module_load_text(CUcontext context, const void *image, size_t bytes, unsigned options,
                          const CUjit_option *option, void **values, CUmodule *out)
{
    struct vn_module *parsed;
    struct jit_log error, info;
    void **wall_time;
    if (options && (!option || !values))
        return CUDA_ERROR_INVALID_VALUE;
    read_options(options, option, values, &error, &info,
                 &wall_time); /* before sizes are replaced */
    CUresult result = module_parse(image, bytes, options, option, values, &parsed);
    if (result != CUDA_SUCCESS)
        return result;
    result = module_create(context, parsed, out);
    if (result == CUDA_ERROR_INVALID_PTX)
        write_log(&error, last_refusal_text());
    return result;
}

static CUresult load(const char *name, CUmodule *out, const void *image, size_t bytes,
                     unsigned options, const CUjit_option *option, void **values)
{
    ENTER_CONTEXT(name, context);
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    return module_load_text(context, image, bytes, options, option, values, out);
}

CU_API CUresult cuModuleLoadData(CUmodule *out, const void *image)
{
    return load("cuModuleLoadData", out, image, 0, 0, NULL, NULL);
}

CU_API CUresult cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned options,
                                   CUjit_option *option, void **values)
{
    return load("cuModuleLoadDataEx", out, image, 0, options, option, values);
}

CU_API CUresult cuModuleLoadFatBinary(CUmodule *out, const void *image)
{
    return load("cuModuleLoadFatBinary", out, image, 0, 0, NULL, NULL);
}

CUresult module_read_file(const char *path, void **bytes, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return CUDA_ERROR_FILE_NOT_FOUND;
    char *text = NULL;
    size_t used = 0, room = 0;
    do {
        if (room - used < 4097) {
            room = room ? 2 * room : 1 << 16;
            char *grown = realloc(text, room);
            if (!grown) {
                free(text);
                fclose(f);
                return CUDA_ERROR_OUT_OF_MEMORY;
            }
            text = grown;
        }
        used += fread(text + used, 1, room - used - 4, f);
    } while (!feof(f) && !ferror(f));
    fclose(f);
    memset(text + used, 0, 4);
    *bytes = text;
    *size = used;
    return CUDA_SUCCESS;
}

CU_API CUresult cuModuleLoad(CUmodule *out, const char *path)
{
    void *text;
    size_t size;
    ENTER("cuModuleLoad");
    if (!out || !path)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = module_read_file(path, &text, &size);
    if (result != CUDA_SUCCESS)
        return result;
    result = load("", out, text, 0, 0, NULL, NULL);
    free(text);
    return result;
}

CU_API CUresult cuModuleUnload(CUmodule module)
{
    ENTER_CONTEXT("cuModuleUnload", context);
    if (!vc_handle_is(module, HANDLE_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    if (module->library)
        return CUDA_ERROR_NOT_PERMITTED;
    context_drain(module->context);
    vc_handle_remove(module);
    lock();
    for (CUmodule *at = &module->context->modules; *at; at = &(*at)->next)
        if (*at == module) {
            *at = module->next;
            break;
        }
    unlock();
    for (CUfunction f = module->functions; f; f = f->next)
        vc_handle_remove(f);
    module->unloaded = true;
    module_release(module);
    return CUDA_SUCCESS;
}

CU_API CUresult cuModuleGetLoadingMode(int *mode)
{
    ENTER("cuModuleGetLoadingMode");
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = 1; /* eager */
    return CUDA_SUCCESS;
}

CUresult module_function(CUmodule module, const char *name, CUfunction *out)
{
    for (CUfunction f = module->functions; f; f = f->next)
        if (!strcmp(f->info->name, name)) {
            *out = f;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

CU_API CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    ENTER_CONTEXT("cuModuleGetFunction", context);
    if (!out || !name || !*name)
        return CUDA_ERROR_INVALID_VALUE;
    if (!vc_handle_is(module, HANDLE_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    return module_function(module, name, out);
}

CU_API CUresult cuModuleGetFunctionCount(unsigned *count, CUmodule module)
{
    ENTER_CONTEXT("cuModuleGetFunctionCount", context);
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    if (!vc_handle_is(module, HANDLE_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    *count = 0;
    for (CUfunction f = module->functions; f; f = f->next)
        ++*count;
    return CUDA_SUCCESS;
}

CU_API CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned count, CUmodule module)
{
    ENTER_CONTEXT("cuModuleEnumerateFunctions", context);
    if (!functions)
        return CUDA_ERROR_INVALID_VALUE;
    if (!vc_handle_is(module, HANDLE_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    for (CUfunction f = module->functions; f && count; f = f->next, count--)
        *functions++ = f;
    return CUDA_SUCCESS;
}

CUresult module_variable(CUmodule module, const char *name, CUdeviceptr *address, size_t *bytes)
{
    size_t count = vn_module_variables(module->parsed);
    for (size_t i = 0; i < count; i++) {
        const struct vn_variable *v = vn_module_variable(module->parsed, i);
        if (!module->addresses[i] || strcmp(v->name, name))
            continue;
        if (address)
            *address = module->addresses[i];
        if (bytes)
            *bytes = v->size;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_FOUND;
}

CU_API CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module,
                                     const char *name)
{
    ENTER_CONTEXT("cuModuleGetGlobal", context);
    if (!name || (!address && !bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (!vc_handle_is(module, HANDLE_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    return module_variable(module, name, address, bytes);
}
