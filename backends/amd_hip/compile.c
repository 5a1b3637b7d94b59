/*
 * compile.c: the kernels for a GPU that the module brings no code for, compiled by hipRTC for the
 * current device. It takes a minute or so; the results are kept on disk.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cache.h>

#include "amd.h"

#define FILE(name, units) extern const char amd_text_##name##_hip[]; /* embedded by the build */
#define HEADER(name, extension) extern const char amd_text_##name##_##extension[];
#include "files.def"
#undef HEADER
#undef FILE

static const char *const texts[FILE_COUNT] = {
#define FILE(name, units) amd_text_##name##_hip,
#include "files.def"
#undef FILE
};

static const char *const headers[] = {
#define HEADER(name, extension) amd_text_##name##_##extension,
#include "files.def"
#undef HEADER
};

static const char *const header_names[] = {
#define HEADER(name, extension) #name "." #extension,
#include "files.def"
#undef HEADER
};

enum { HEADERS = sizeof(headers) / sizeof(headers[0]) };

static const char *const options[] = {"-O3", "-std=c++17", "-ffp-contract=off"};

enum { OPTIONS = sizeof(options) / sizeof(options[0]) };

typedef struct _hiprtcProgram *hiprtcProgram;

struct amd_compiler {
    const struct device *device;
    void *library;
    struct cache cache;
    int major, minor;
    char target[64]; /* as amd_compiled_target says; "" before the first file */
#define SYMBOL SYMBOL_FIELD
#include "hiprtc.def"
#undef SYMBOL
};

static const struct symbol symbols[] = {
#define SYMBOL(need, result, field, name, args) SYMBOL_ENTRY(struct amd_compiler, need, field, name)
#include "hiprtc.def"
#undef SYMBOL
};

/* Why a GPU that the module has no code for cannot be used. */
static mh_status no_code(const struct device *device, const char *why)
{
    char name[256] = "?";
    device->hip->DeviceGetName(name, (int)sizeof(name), device->ordinal);
    return FAIL(device->core, MH_UNSUPPORTED,
                "amd: the kernels are for gfx942 (MI300), '%s' is another, and there is no hipRTC "
                "that compiles them for it: %s",
                name, why);
}

/* A library of its own since ROCm 5; before, and for long beside it, a part of the runtime. */
static void *open_library(const struct instance *instance, struct amd_compiler *c, char *reason,
                          size_t size)
{
    const void *inside = dlsym(instance->library, "hiprtcCreateProgram");
    const char *const libraries[] = {"libhiprtc.so",
                                     "libhiprtc.so.7",
                                     "libhiprtc.so.6",
                                     "libhiprtc.so.5",
                                     inside ? symbols_path(inside) : NULL,
                                     NULL};
    return symbols_open(libraries, symbols, sizeof(symbols) / sizeof(symbols[0]), c, reason, size);
}

mh_status amd_compiler_open(const struct device *device, struct amd_compiler **out)
{
    const mh_core *core = device->core;
    char reason[1024];
    struct amd_compiler *c = core->allocate(core->context, sizeof(*c));
    if (!c)
        return MH_OUT_OF_MEMORY;
    c->device = device;
    c->library = open_library(device->instance, c, reason, sizeof(reason));
    if (!c->library) {
        core->deallocate(core->context, c);
        return no_code(device, reason);
    }
    c->Version(&c->major, &c->minor);
    cache_open(&c->cache, core, "amd");
    *out = c;
    return MH_OK;
}

void amd_compiler_close(struct amd_compiler *c)
{
    const mh_core *core = c->device->core;
    symbols_close(c->library);
    core->deallocate(core->context, c);
}

/* ---- what came out ---- */

void amd_compiled_target(const void *code, uint64_t size, char target[64])
{
    static const char before[] = "amdgcn-amd-amdhsa--"; /* in the metadata */
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789:+-";
    const char *at = memmem(code, size, before, sizeof(before) - 1);
    const char *end = (const char *)code + size;
    size_t length = 0;
    for (at = at ? at + sizeof(before) - 1 : end; at + length < end && length < 63; length++)
        if (!memchr(letters, at[length], sizeof(letters) - 1))
            break;
    memcpy(target, at, length);
    target[length] = 0;
}

uint32_t amd_units_of(const char *target)
{
    static const struct {
        const char *target;
        uint32_t units;
    } those[] = {
        {"gfx90a", MATRIX}, {"gfx940", FNUZ},   {"gfx941", FNUZ},
        {"gfx942", FNUZ},   {"gfx950", MATRIX},
    };
    for (size_t i = 0; i < sizeof(those) / sizeof(those[0]); i++)
        if (!strncmp(target, those[i].target, strlen(those[i].target)))
            return those[i].units;
    return EXACT;
}

/* ---- a file ---- */

/* The first error in the compiler's log. */
static mh_status complain(const struct amd_compiler *c, hiprtcProgram program, int file, int result)
{
    const mh_core *core = c->device->core;
    size_t size = 0;
    char *log = NULL;
    const char *line = "it gives no reason";
    if (!c->GetProgramLogSize(program, &size) && size)
        log = core->allocate(core->context, size + 1);
    if (log && !c->GetProgramLog(program, log)) {
        log[size] = 0;
        line = strstr(log, "error:");
        while (line && line > log && line[-1] != '\n')
            line--;
        line = line ? line : log;
    }
    mh_status status =
        FAIL(core, MH_UNSUPPORTED, "amd: hipRTC %d.%d on %s.hip: %s: %.*s", c->major, c->minor,
             amd_file_name(file), c->GetErrorString(result), (int)strcspn(line, "\n"), line);
    core->deallocate(core->context, log);
    return status;
}

static mh_status compile(const struct amd_compiler *c, int file, void **code, uint64_t *size)
{
    const mh_core *core = c->device->core;
    char name[80];
    size_t bytes = 0;
    hiprtcProgram program = NULL;
    snprintf(name, sizeof(name), "%s.hip", amd_file_name(file));
    int result = c->CreateProgram(&program, texts[file], name, HEADERS, headers, header_names);
    if (result)
        return no_code(c->device, c->GetErrorString(result));
    mh_status status = MH_OK;
    result = c->CompileProgram(program, OPTIONS, options);
    if (!result)
        result = c->GetCodeSize(program, &bytes);
    if (result)
        status = complain(c, program, file, result);
    else if (!(*code = core->allocate(core->context, bytes)))
        status = MH_OUT_OF_MEMORY;
    else if ((result = c->GetCode(program, *code)))
        status = complain(c, program, file, result);
    if (status)
        core->deallocate(core->context, *code);
    c->DestroyProgram(&program);
    *size = bytes;
    return status;
}

mh_status amd_compile(struct amd_compiler *c, int file, void **code, uint64_t *size)
{
    const mh_core *core = c->device->core;
    char key[256], why[300], line[400];
    uint64_t hash = cache_hash(CACHE_HASH_START, texts[file], strlen(texts[file]));
    for (int i = 0; i < HEADERS; i++)
        hash = cache_hash(hash, headers[i], strlen(headers[i]));
    for (int i = 0; i < OPTIONS; i++)
        hash = cache_hash(hash, options[i], strlen(options[i]));
    snprintf(key, sizeof(key), "%016llx|%s|%s|hipRTC %d.%d|HIP %d", (unsigned long long)hash,
             amd_file_name(file), c->target, c->major, c->minor, c->device->instance->version);
    *code = c->target[0] ? cache_read(&c->cache, key, size) : NULL;
    if (*code)
        return MH_OK;
    mh_status status = compile(c, file, code, size);
    if (status)
        return status;
    if (!c->target[0])
        amd_compiled_target(*code, *size, c->target);
    else if (!cache_write(&c->cache, key, *code, *size, why, sizeof(why))) {
        snprintf(line, sizeof(line), "amd: compiled kernels are not kept: %s", why);
        core->log(core->context, MH_LOG_INFO, line);
    }
    return MH_OK;
}
