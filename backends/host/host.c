/*
 * host.c: the host as a backend. Work is done when the call that enqueued it returns; memory is the
 * process's own, so buffers and weights are used in place.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "forms.h"

extern const mh_backend_table mh_host_backend;

struct instance {
    const mh_core *core;
};

struct device {
    const mh_core *core;
    struct pool *pool;
    struct host_form form;
};

struct stream {
    struct device *device;
    uint64_t marks;
};

#define FAIL(core, status, ...)                                                                    \
    (core)->fail((core)->context, __FILE__, __LINE__, (status), NULL, 0, NULL, __VA_ARGS__)

/* ---- the backend and its one device ---- */

static mh_status init(const mh_core *core, void **out)
{
    struct instance *instance = core->allocate(core->context, sizeof(*instance));
    if (!instance)
        return MH_OUT_OF_MEMORY;
    instance->core = core;
    *out = instance;
    return MH_OK;
}

static void fini(void *instance)
{
    const mh_core *core = ((struct instance *)instance)->core;
    core->deallocate(core->context, instance);
}

/* Those this process may run on; a machine too large for cpu_set_t counts as a whole. */
static uint32_t cores(void)
{
    cpu_set_t set;
    long count =
        sched_getaffinity(0, sizeof(set), &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    return count > 0 ? (uint32_t)count : 1;
}

/* "model name" of the first processor. */
static void read_name(char *name, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "CPU");
    while (file && fgets(line, sizeof(line), file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon)
            continue;
        snprintf(name, size, "%s", colon + 1 + strspn(colon + 1, " "));
        name[strcspn(name, "\n")] = 0;
        break;
    }
    if (file)
        fclose(file);
}

static mh_status memory_info(void *device, uint64_t *total, uint64_t *available)
{
    long page = sysconf(_SC_PAGESIZE), all = sysconf(_SC_PHYS_PAGES);
    long free_pages = sysconf(_SC_AVPHYS_PAGES);
    (void)device;
    *total = all > 0 ? (uint64_t)all * (uint64_t)page : 0;
    *available = free_pages > 0 ? (uint64_t)free_pages * (uint64_t)page : 0;
    return MH_OK;
}

static mh_status device_info(void *instance, uint32_t index, mh_device_info *out)
{
    uint64_t available;
    (void)instance;
    if (index)
        return MH_NOT_FOUND;
    out->kind = MH_DEVICE_CPU;
    out->flags = MH_DEVICE_HOST_MEMORY | MH_DEVICE_SYNCHRONOUS;
    out->compute_units = cores();
    memory_info(NULL, &out->memory_bytes, &available);
    snprintf(out->id, sizeof(out->id), "host-0");
    read_name(out->name, sizeof(out->name));
    return MH_OK;
}

static mh_status device_open(void *user, uint32_t index, const mh_backend_open *params, void **out)
{
    const mh_core *core = ((struct instance *)user)->core;
    (void)index;
    struct device *device = core->allocate(core->context, sizeof(*device));
    if (!device)
        return MH_OUT_OF_MEMORY;
    device->core = core;
    uint32_t threads = params->threads ? params->threads : cores();
    mh_status status = host_choose_form(core, &device->form);
    if (!status &&
        !(device->pool = pool_create(threads, core->allocate, core->deallocate, core->context)))
        status = FAIL(core, MH_OUT_OF_MEMORY, "host: %u threads could not be started", threads);
    if (status) {
        core->deallocate(core->context, device);
        return status;
    }
    *out = device;
    return MH_OK;
}

static void device_close(void *user)
{
    struct device *device = user;
    pool_destroy(device->pool);
    device->core->deallocate(device->core->context, device);
}

/* ---- memory: pages of our own, which the system makes zero as they are touched ---- */

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct device *device = user;
    (void)kind;
    void *memory = size > SIZE_MAX ? MAP_FAILED
                                   : mmap(NULL, size, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        uint64_t total, available;
        memory_info(device, &total, &available);
        return FAIL(device->core, MH_OUT_OF_MEMORY,
                    "host: %llu bytes could not be had, %llu are available",
                    (unsigned long long)size, (unsigned long long)available);
    }
    out->handle = out->host = memory;
    return MH_OK;
}

static void buffer_destroy(void *device, mh_buffer_view *buffer)
{
    (void)device;
    munmap(buffer->handle, buffer->size);
}

static mh_status import(void *device, void *memory, uint64_t size, mh_buffer_view *out)
{
    (void)device, (void)size;
    out->handle = out->host = memory;
    return MH_OK;
}

static void forget(void *device, mh_buffer_view *buffer)
{
    (void)device, (void)buffer;
}

/* ---- streams ---- */

static mh_status stream_create(void *user, void **out)
{
    struct device *device = user;
    struct stream *stream = device->core->allocate(device->core->context, sizeof(*stream));
    if (!stream)
        return MH_OUT_OF_MEMORY;
    stream->device = device;
    *out = stream;
    return MH_OK;
}

static void stream_destroy(void *user)
{
    struct stream *stream = user;
    stream->device->core->deallocate(stream->device->core->context, stream);
}

static mh_status copy(void *stream, const mh_copy *c)
{
    (void)stream;
    memmove((char *)c->to + c->to_offset, (const char *)c->from + c->from_offset, c->size);
    return MH_OK;
}

static mh_status mark(void *stream, uint64_t *sequence)
{
    *sequence = ++((struct stream *)stream)->marks;
    return MH_OK;
}

static mh_status wait_for(void *stream, uint64_t sequence, uint64_t timeout_ns)
{
    (void)stream, (void)sequence, (void)timeout_ns;
    return MH_OK;
}

/* ---- ops ---- */

/* All of them. Without bf16 units the fast profile is the exact kernels: inside any bounds. */
static mh_status supports(void *device, const mh_op *op, uint32_t *missing, char reason[192])
{
    (void)device, (void)op, (void)missing, (void)reason;
    return MH_OK;
}

static uint64_t op_scratch(void *user, const mh_op *op)
{
    struct device *device = user;
    union host_part part[HOST_PARTS];
    uint32_t count;
    uint64_t shared, per_thread, most = host_split_scalar(op, NULL, part, &count), own = most;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bytes = op_scratch(user, &part[i].base);
        most = own + bytes > most ? own + bytes : most;
    }
    host_scratch(op, &shared, &per_thread);
    return most + shared + per_thread * pool_threads(device->pool);
}

static mh_status encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct device *device = ((struct stream *)user)->device;
    struct host_run run = {
        .pool = device->pool, .fast = device->form.fast, .scratch = scratch->host};
    host_scratch(op, &run.shared, &run.per_thread);
    uint32_t mode = float_mode_enter();
    device->form.kernels[op->op](&run, op);
    float_mode_leave(mode);
    return MH_OK;
}

static const mh_backend_scratch scratch_group = {sizeof(scratch_group), op_scratch};
static const mh_backend_import import_group = {sizeof(import_group), import, forget};

const mh_backend_table mh_host_backend = {
    .struct_size = sizeof(mh_backend_table),
    .abi = MH_ABI,
    .name = "host",
    .description = "the definition of every op, in C",
    .init = init,
    .fini = fini,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .memory_info = memory_info,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .copy = copy,
    .mark = mark,
    .wait = wait_for,
    .supports = supports,
    .encode = encode,
    .scratch = &scratch_group,
    .import = &import_group,
};
