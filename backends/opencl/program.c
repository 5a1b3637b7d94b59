/* program.c: programs, built when the first op asks for one; from the cache where they lie there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl.h"

#define MOST_SOURCES 12

#define SOURCE(name) extern const char opencl_source_##name[];
#define KERNEL(program, name)
#define PROGRAM(name, by_format, sources) sources
#include "kernels.def"
#undef SOURCE
#undef PROGRAM

static const struct {
    const char *name;
    bool by_format;
    const char *sources[MOST_SOURCES]; /* ended by NULL */
} programs[] = {
#define SOURCE(name) opencl_source_##name,
#define PROGRAM(name, by_format, sources) {#name, by_format, {sources NULL}},
#include "kernels.def"
#undef SOURCE
#undef PROGRAM
#undef KERNEL
};

static const struct {
    enum program_id program;
    const char *name;
} kernels[] = {
#define KERNEL(program, name) {PROGRAM_##program, #name},
#define PROGRAM(name, by_format, sources)
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
    const char *texts[MOST_SOURCES];
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

/* ---- entries: for each kernel that was checked a line "kernel: what is wrong with it", a NUL, the
 * binary ---- */

#define MOST_REASONS 4096

static void write_reasons(const struct device *device, enum program_id id, mh_format format,
                          char text[MOST_REASONS])
{
    size_t used = 0;
    text[0] = 0;
    for (int k = 0; k < KERNEL_COUNT; k++)
        if (kernels[k].program == id && device->checked[k][format] && used < MOST_REASONS - 256)
            used += (size_t)snprintf(text + used, MOST_REASONS - used, "%s: %s\n", kernels[k].name,
                                     device->broken[k][format]);
}

static void read_reasons(struct device *device, enum program_id id, mh_format format,
                         const char *text)
{
    for (; *text; text += strcspn(text, "\n"), text += *text == '\n')
        for (int k = 0; k < KERNEL_COUNT; k++) {
            size_t length = strlen(kernels[k].name);
            if (kernels[k].program != id || strncmp(text, kernels[k].name, length) ||
                strncmp(text + length, ": ", 2))
                continue;
            device->checked[k][format] = true;
            snprintf(device->broken[k][format], sizeof(device->broken[k][format]), "%.*s",
                     (int)strcspn(text + length + 2, "\n"), text + length + 2);
        }
}

static cl_program from_cache(struct device *device, enum program_id id, mh_format format,
                             const char *key, const char *options)
{
    const struct cl_api *cl = device->cl;
    uint64_t bytes;
    char *entry = cache_read(&device->cache, key, &bytes);
    const char *end = entry ? memchr(entry, 0, bytes) : NULL;
    cl_program program = NULL;
    if (end) {
        const unsigned char *binary = (const unsigned char *)end + 1;
        const size_t size = bytes - (size_t)((const char *)binary - entry);
        cl_int state = 0, code;
        program = cl->CreateProgramWithBinary(device->context, 1, &device->id, &size, &binary,
                                              &state, &code);
        if (program && !code && !state)
            code = cl->BuildProgram(program, 1, &device->id, options, NULL, NULL);
        if (program && (code || state)) {
            cl->ReleaseProgram(program);
            program = NULL;
        }
        if (program)
            read_reasons(device, id, format, entry);
    }
    device->core->deallocate(device->core->context, entry);
    return program;
}

/* Once the device is done: the driver may compile more for the binary than what has run. */
static void to_cache(struct device *device, enum program_id id, mh_format format, const char *key)
{
    const mh_core *core = device->core;
    const struct cl_api *cl = device->cl;
    cl_program program = device->programs[id][format].program;
    size_t size = 0, text;
    char reasons[MOST_REASONS], why[300], line[400];
    if (!device->cache.folder[0] ||
        cl->GetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof(size), &size, NULL) || !size)
        return;
    write_reasons(device, id, format, reasons);
    text = strlen(reasons) + 1;
    char *entry = core->allocate(core->context, text + size);
    if (!entry)
        return;
    memcpy(entry, reasons, text);
    unsigned char *binary = (unsigned char *)entry + text;
    if (!cl->GetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof(binary), &binary, NULL) &&
        !cache_write(&device->cache, key, entry, text + size, why, sizeof(why))) {
        snprintf(line, sizeof(line), "opencl: programs are not kept: %s", why);
        core->log(core->context, MH_LOG_INFO, line);
    }
    core->deallocate(core->context, entry);
}

/* ---- kernels ---- */

/* What is wrong here is no verdict of a check, and not kept with those: it may be right another
 * time. */
static void make_kernel(struct device *device, int k, mh_format format)
{
    char *broken = device->broken[k][format];
    const char *failed = "clCreateKernel";
    size_t most = 0;
    cl_int code;
    cl_kernel kernel = device->cl->CreateKernel(
        device->programs[kernels[k].program][format].program, kernels[k].name, &code);
    device->kernels[k][format] = kernel;
    if (kernel) {
        code = device->cl->GetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE,
                                                  sizeof(most), &most, NULL);
        failed = code ? "clGetKernelWorkGroupInfo" : NULL;
    }
    if (failed)
        snprintf(broken, BROKEN, "%s: %s", failed,
                 opencl_name(code) ? opencl_name(code) : "unknown error");
    else if (most < device->lanes)
        snprintf(broken, BROKEN, "the device runs it with %zu work-items, it needs %u", most,
                 device->lanes);
    else
        return;
    device->checked[k][format] = false;
}

static void describe(const struct device *device, enum program_id id, mh_format format,
                     const char **sources, cl_uint *count, char options[256], char key[600])
{
    for (*count = 0; programs[id].sources[*count]; ++*count)
        sources[*count] = programs[id].sources[*count];
    snprintf(options, 256, "%s -DFORMAT=%u", device->options, format);
    cache_key(device, sources, *count, options, key, 600);
}

bool opencl_is_near(const char *reason)
{
    return !strncmp(reason, NOT_EXACT, sizeof(NOT_EXACT) - 1);
}

/* A kernel against the definition, once for an entry of the cache; what is wrong is told and kept.
 * A check that could not be made is told too, but for this time only. */
static void check_kernel(struct device *device, enum kernel_id kernel, mh_format format)
{
    struct program *p = &device->programs[kernels[kernel].program][format];
    char *broken = device->broken[kernel][format], line[300];
    if (!p->program || broken[0] || device->checked[kernel][format])
        return;
    if (!opencl_check_kernel(device, kernel, format, broken))
        p->fresh = device->checked[kernel][format] = true;
    if (!broken[0] || (device->unfit[0] && opencl_is_near(broken)))
        return;
    snprintf(line, sizeof(line), "opencl: %s miscompiles kernel %s (format %u): %s", device->name,
             kernels[kernel].name, format, broken);
    device->core->log(device->core->context, MH_LOG_WARNING, line);
}

static void build(struct device *device, enum program_id id, mh_format format)
{
    struct program *p = &device->programs[id][format];
    const char *sources[MOST_SOURCES];
    char options[256], key[600];
    cl_uint count;
    describe(device, id, format, sources, &count, options, key);
    p->program = from_cache(device, id, format, key, options);
    p->fresh = !p->program;
    if (!p->program)
        p->program = from_source(device, sources, count, options, programs[id].name, p->reason);
    for (int k = 0; p->program && k < KERNEL_COUNT; k++)
        if (kernels[k].program == id)
            make_kernel(device, k, format);
    p->tried = true;
}

void opencl_prepare(struct device *device, enum kernel_id kernel, mh_format format, bool fast,
                    char reason[192])
{
    enum program_id id = kernels[kernel].program;
    if (!programs[id].by_format)
        format = 0;
    struct program *p = &device->programs[id][format];
    const char *broken = device->broken[kernel][format];
    pthread_mutex_lock(&device->build_lock);
    if (!p->tried)
        build(device, id, format);
    check_kernel(device, kernel, format);
    reason[0] = 0;
    if (p->reason[0])
        snprintf(reason, 192, "%s", p->reason);
    else if (broken[0] && !(fast && opencl_is_near(broken)))
        snprintf(reason, 192, "kernel %s: %s", kernels[kernel].name, broken);
    pthread_mutex_unlock(&device->build_lock);
}

cl_kernel opencl_clone(struct device *device, enum kernel_id kernel, mh_format format, cl_int *code)
{
    cl_program program = device->programs[kernels[kernel].program][format].program;
    return device->cl->CreateKernel(program, kernels[kernel].name, code);
}

static void drop(struct device *device, enum program_id id, mh_format format)
{
    for (int k = 0; k < KERNEL_COUNT; k++)
        if (kernels[k].program == id && device->kernels[k][format])
            device->cl->ReleaseKernel(device->kernels[k][format]);
    device->cl->ReleaseProgram(device->programs[id][format].program);
}

void opencl_release_programs(struct device *device)
{
    for (int id = 0; id < PROGRAM_COUNT; id++)
        for (mh_format format = 0; format < FORMATS; format++) {
            const struct program *p = &device->programs[id][format];
            const char *sources[MOST_SOURCES];
            char options[256], key[600];
            cl_uint count;
            if (!p->program)
                continue;
            describe(device, (enum program_id)id, format, sources, &count, options, key);
            if (p->fresh)
                to_cache(device, (enum program_id)id, format, key);
            drop(device, (enum program_id)id, format);
        }
}
