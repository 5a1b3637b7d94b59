/* program.c: programs, built when the first op asks for one; from the cache where they lie there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl.h"

#define KERNEL(program, name)
#define PROGRAM(name, by_format) extern const char opencl_source_##name[];
#include "kernels.def"
#undef PROGRAM
#undef KERNEL
extern const char opencl_source_numerics[], opencl_source_weights[];

static const struct {
    const char *name, *source;
    bool by_format;
} programs[] = {
#define KERNEL(program, name)
#define PROGRAM(name, by_format) {#name, opencl_source_##name, by_format},
#include "kernels.def"
#undef PROGRAM
#undef KERNEL
};

static const struct {
    enum program_id program;
    const char *name;
} kernels[] = {
#define KERNEL(program, name) {PROGRAM_##program, #name},
#define PROGRAM(name, by_format)
#include "kernels.def"
#undef PROGRAM
#undef KERNEL
};

/* The compiler's words go to the log; its first line into the reason. */
static void tell_log(struct device *device, cl_program program, const char *name, char reason[192])
{
    const mh_core *core = device->core;
    size_t size = 0;
    device->cl->GetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size);
    char *log = size && size < (1 << 24) ? core->allocate(core->context, size + 1) : NULL;
    if (!log)
        return;
    log[0] = log[size] = 0;
    device->cl->GetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, size, log, NULL);
    char *line = strstr(log, "error");
    line = line ? line : log;
    snprintf(reason, 192, "the driver does not compile %s.cl: %.*s", name, (int)strcspn(line, "\n"),
             line);
    core->log(core->context, MH_LOG_WARNING, log);
    core->deallocate(core->context, log);
}

static cl_program from_source(struct device *device, const char *const *sources, cl_uint count,
                              const char *options, const char *name, char reason[192])
{
    const struct cl_api *cl = device->cl;
    const char *texts[4];
    cl_int code;
    memcpy(texts, sources, count * sizeof(*texts));
    cl_program program = cl->CreateProgramWithSource(device->context, count, texts, NULL, &code);
    if (program)
        code = cl->BuildProgram(program, 1, &device->id, options, NULL, NULL);
    if (!code)
        return program;
    snprintf(reason, 192, "the driver does not build %s.cl: %s", name,
             opencl_name(code) ? opencl_name(code) : "unknown error");
    if (program) {
        tell_log(device, program, name, reason);
        cl->ReleaseProgram(program);
    }
    return NULL;
}

/* ---- the cache: its key is everything the binary depends on ---- */

static void cache_key(const struct device *device, const char *const *sources, cl_uint count,
                      const char *options, char *key, size_t size)
{
    uint64_t hash = CACHE_HASH_START;
    for (cl_uint i = 0; i < count; i++)
        hash = cache_hash(hash, sources[i], strlen(sources[i]));
    snprintf(key, size, "%016llx|%s|%s|%s", (unsigned long long)hash, options, device->name,
             device->driver);
}

static cl_program from_cache(struct device *device, const char *key, const char *options)
{
    const struct cl_api *cl = device->cl;
    uint64_t bytes;
    unsigned char *binary = cache_read(&device->cache, key, &bytes);
    if (!binary)
        return NULL;
    const unsigned char *binaries[] = {binary};
    const size_t size = bytes;
    cl_int state = 0, code;
    cl_program program = cl->CreateProgramWithBinary(device->context, 1, &device->id, &size,
                                                     binaries, &state, &code);
    device->core->deallocate(device->core->context, binary);
    if (program && !code && !state)
        code = cl->BuildProgram(program, 1, &device->id, options, NULL, NULL);
    if (program && (code || state)) {
        cl->ReleaseProgram(program);
        program = NULL;
    }
    return program;
}

static void to_cache(struct device *device, const char *key, cl_program program)
{
    const mh_core *core = device->core;
    const struct cl_api *cl = device->cl;
    size_t size = 0;
    char reason[300], text[400];
    if (!device->cache.folder[0] ||
        cl->GetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof(size), &size, NULL) || !size)
        return;
    unsigned char *binary = core->allocate(core->context, size);
    if (!binary)
        return;
    if (!cl->GetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof(binary), &binary, NULL) &&
        !cache_write(&device->cache, key, binary, size, reason, sizeof(reason))) {
        snprintf(text, sizeof(text), "opencl: programs are not kept: %s", reason);
        core->log(core->context, MH_LOG_INFO, text);
    }
    core->deallocate(core->context, binary);
}

/* ---- kernels ---- */

static bool make_kernels(struct device *device, enum program_id id, mh_format format,
                         char reason[192])
{
    struct program *p = &device->programs[id][format];
    for (int k = 0; k < KERNEL_COUNT; k++) {
        cl_int code;
        size_t most = 0;
        if (kernels[k].program != id)
            continue;
        cl_kernel kernel = device->cl->CreateKernel(p->program, kernels[k].name, &code);
        device->kernels[k][format] = kernel;
        if (!kernel) {
            snprintf(reason, 192, "kernel %s: clCreateKernel: %s", kernels[k].name,
                     opencl_name(code) ? opencl_name(code) : "unknown error");
            return false;
        }
        device->cl->GetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE,
                                           sizeof(most), &most, NULL);
        if (most < device->lanes) {
            snprintf(reason, 192, "kernel %s: the device runs it with %zu work-items, it needs %u",
                     kernels[k].name, most, device->lanes);
            return false;
        }
    }
    return true;
}

static void drop(struct device *device, enum program_id id, mh_format format)
{
    struct program *p = &device->programs[id][format];
    for (int k = 0; k < KERNEL_COUNT; k++)
        if (kernels[k].program == id && device->kernels[k][format]) {
            device->cl->ReleaseKernel(device->kernels[k][format]);
            device->kernels[k][format] = NULL;
        }
    if (p->program)
        device->cl->ReleaseProgram(p->program);
    p->program = NULL;
}

static void build(struct device *device, enum program_id id, mh_format format)
{
    struct program *p = &device->programs[id][format];
    const char *sources[3] = {opencl_source_numerics};
    cl_uint count = 1;
    char options[256], key[600];
    if (programs[id].by_format)
        sources[count++] = opencl_source_weights;
    sources[count++] = programs[id].source;
    snprintf(options, sizeof(options), "%s -DFORMAT=%u", device->options, format);
    cache_key(device, sources, count, options, key, sizeof(key));
    p->program = from_cache(device, key, options);
    if (p->program && make_kernels(device, id, format, p->reason))
        return;
    drop(device, id, format);
    p->reason[0] = 0;
    p->program = from_source(device, sources, count, options, programs[id].name, p->reason);
    if (!p->program)
        return;
    if (!make_kernels(device, id, format, p->reason)) {
        drop(device, id, format);
        return;
    }
    to_cache(device, key, p->program);
}

void opencl_prepare(struct device *device, enum kernel_id kernel, mh_format format,
                    char reason[192])
{
    enum program_id id = kernels[kernel].program;
    if (!programs[id].by_format)
        format = 0;
    struct program *p = &device->programs[id][format];
    pthread_mutex_lock(&device->lock);
    if (!p->tried)
        build(device, id, format);
    p->tried = true;
    snprintf(reason, 192, "%s", p->reason);
    pthread_mutex_unlock(&device->lock);
}

void opencl_release_programs(struct device *device)
{
    for (int id = 0; id < PROGRAM_COUNT; id++)
        for (mh_format format = 0; format < FORMATS; format++)
            drop(device, (enum program_id)id, format);
}
