/*
 * null.c: the skeleton of a backend: every mandatory function, no kernels. Copy it, rename it, and
 * put your accelerator in place of the process's memory, function by function. Until a kernel
 * exists, the core runs that op on the host in the device's place, so the model speaks from the day
 * the copies work.
 *
 * Its device memory cannot be touched outside copy(): code that cheats and reads a device address
 * on the host crashes here, as it would on a real accelerator.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <moehal/backend.h>

/* One for each runtime: the vendor's library, opened, would be kept here. */
struct instance {
    const mh_core *core;
};

/* One for each mh_device_open: a vendor context. */
struct device {
    const mh_core *core;
    pthread_mutex_t lock; /* while memory is open for a copy */
};

/* An allocation, and the pages behind it. */
struct memory {
    char *pages;
    uint64_t bytes; /* whole pages */
};

/* An in-order queue. This one has finished everything by the time a call returns. */
struct stream {
    struct device *device;
    uint64_t marks;
};

/* Failures go through the core, with the vendor's own words where there are any. */
#define FAIL(core, status, call, code, name, ...)                                                  \
    (core)->fail((core)->context, __FILE__, __LINE__, (status), (call), (code), (name), __VA_ARGS__)

/* ---- 1, 2: the backend. Open the vendor's library here and return why in words if it is absent.
 */

static mh_status init(const mh_core *core, void **out)
{
    struct instance *instance = core->allocate(core->context, sizeof(*instance));
    if (!instance)
        return MH_OUT_OF_MEMORY;
    instance->core = core;
    *out = instance;
    return MH_OK;
}

static void fini(void *user)
{
    const mh_core *core = ((struct instance *)user)->core;
    core->deallocate(core->context, user);
}

/* ---- 3: what devices there are. One that cannot be opened is listed too: set status and reason.
 * Leave BY_NAME_ONLY out so that "auto" may pick a real accelerator, and SYNCHRONOUS unless your
 * queue finishes everything inside each call. */

static mh_status device_info(void *user, uint32_t index, mh_device_info *out)
{
    (void)user;
    if (index > 0)
        return MH_NOT_FOUND;
    out->kind = MH_DEVICE_NONE;
    out->flags = MH_DEVICE_BY_NAME_ONLY | MH_DEVICE_SYNCHRONOUS;
    out->compute_units = 0;
    out->memory_bytes = 0;
    snprintf(out->id, sizeof(out->id), "null-0");
    snprintf(out->name, sizeof(out->name), "no accelerator at all");
    return MH_OK;
}

/* ---- 4, 5: a context of one device. */

static mh_status device_open(void *user, uint32_t index, const mh_backend_open *params, void **out)
{
    const mh_core *core = ((struct instance *)user)->core;
    (void)index, (void)params;
    struct device *device = core->allocate(core->context, sizeof(*device));
    if (!device)
        return MH_OUT_OF_MEMORY;
    device->core = core;
    pthread_mutex_init(&device->lock, NULL);
    *out = device;
    return MH_OK;
}

static void device_close(void *user)
{
    struct device *device = user;
    pthread_mutex_destroy(&device->lock);
    device->core->deallocate(device->core->context, device);
}

/* ---- 6: bytes of device memory, all and free; 0 where the driver does not say. */

static mh_status memory_info(void *user, uint64_t *total, uint64_t *available)
{
    (void)user;
    *total = 0;
    *available = 0;
    return MH_OK;
}

/* ---- 7, 8: device memory, aligned to 256 bytes. `host` stays NULL unless the host may address it.
 */

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct device *device = user;
    const mh_core *core = device->core;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    (void)kind;
    struct memory *memory = core->allocate(core->context, sizeof(*memory));
    if (!memory)
        return MH_OUT_OF_MEMORY;
    memory->bytes = (size + page - 1) / page * page;
    memory->pages = mmap(NULL, memory->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory->pages == MAP_FAILED) {
        int code = errno;
        core->deallocate(core->context, memory);
        return FAIL(core, MH_OUT_OF_MEMORY, "mmap", code, NULL, "null: %llu bytes could not be had",
                    (unsigned long long)size);
    }
    out->handle = memory;
    return MH_OK;
}

static void buffer_destroy(void *user, mh_buffer_view *buffer)
{
    const mh_core *core = ((struct device *)user)->core;
    struct memory *memory = buffer->handle;
    munmap(memory->pages, memory->bytes);
    core->deallocate(core->context, memory);
}

/* ---- 9, 10: an in-order queue. */

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

/* ---- 11: copies in stream order, three directions. A real queue may return before it is done:
 * host memory stays valid until a later mark has been passed. */

static int open_memory(struct memory *memory, int protection)
{
    return mprotect(memory->pages, memory->bytes, protection);
}

static mh_status copy(void *user, const mh_copy *c)
{
    struct stream *stream = user;
    const mh_core *core = stream->device->core;
    int to_host = c->direction == MH_COPY_TO_HOST, from_host = c->direction == MH_COPY_TO_DEVICE;
    struct memory *to = to_host ? NULL : c->to;
    struct memory *from = from_host ? NULL : (struct memory *)(uintptr_t)c->from;
    mh_status status = MH_OK;
    pthread_mutex_lock(&stream->device->lock);
    if ((!from_host && open_memory(from, PROT_READ | PROT_WRITE)) ||
        (!to_host && open_memory(to, PROT_READ | PROT_WRITE)))
        status = FAIL(core, MH_VENDOR_ERROR, "mprotect", errno, NULL,
                      "null: memory could not be opened");
    else
        memmove((to_host ? (char *)c->to : to->pages) + c->to_offset,
                (from_host ? (const char *)c->from : from->pages) + c->from_offset, c->size);
    if (!from_host)
        open_memory(from, PROT_NONE);
    if (!to_host)
        open_memory(to, PROT_NONE);
    pthread_mutex_unlock(&stream->device->lock);
    return status;
}

/* ---- 12, 13: a point in the queue, and waiting for it. Asynchronous errors come back from wait.
 */

static mh_status mark(void *user, uint64_t *sequence)
{
    *sequence = ++((struct stream *)user)->marks;
    return MH_OK;
}

static mh_status wait_for(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    (void)user, (void)sequence, (void)timeout_ns;
    return MH_OK;
}

/* ---- 14, 15: kernels. Begin with the op `moehal generate` names most often in "fell back": say
 * yes for it here when dtype, shape and format are ones your kernel takes, and launch it in encode.
 */

static mh_status supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    (void)user, (void)op;
    *missing = MH_MISSING_KERNEL;
    snprintf(reason, 192, "null has no kernels");
    return MH_OK;
}

static mh_status encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    const mh_core *core = ((struct stream *)user)->device->core;
    (void)scratch;
    return FAIL(core, MH_INTERNAL, NULL, 0, NULL, "null: op %u was never supported", op->op);
}

static const mh_backend_table table = {
    .struct_size = sizeof(table),
    .abi = MH_ABI,
    .name = "null",
    .description = "the skeleton of a backend: no kernels",
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
};

MH_DEFINE_BACKEND(table)
