/* A backend that says yes to every op and does nothing: what is left is the core's own work. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <moehal/backend.h>

static mh_status init(const mh_core *core, void **instance)
{
    *instance = (void *)(uintptr_t)core;
#ifdef NO_LIBRARY
    return core->fail(core->context, __FILE__, __LINE__, MH_NOT_FOUND, NULL, 0, NULL, "%s",
                      "libvendor.so.1: not found");
#endif
    return MH_OK;
}

static void fini(void *instance)
{
    (void)instance;
}

static mh_status device_info(void *instance, uint32_t index, mh_device_info *out)
{
    (void)instance;
    if (index)
        return MH_NOT_FOUND;
    out->kind = MH_DEVICE_NONE;
    out->flags = MH_DEVICE_BY_NAME_ONLY | MH_DEVICE_SYNCHRONOUS;
    strcpy(out->id, "stub-0");
    strcpy(out->name, "A stub");
    return MH_OK;
}

static mh_status device_open(void *instance, uint32_t index, const mh_backend_open *params,
                             void **device)
{
    (void)index, (void)params;
    *device = instance;
    return MH_OK;
}

static void device_close(void *device)
{
    (void)device;
}

static mh_status memory_info(void *device, uint64_t *total, uint64_t *available)
{
    (void)device;
    *total = *available = 0;
    return MH_OK;
}

static mh_status buffer_create(void *device, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    (void)device, (void)kind;
    out->handle = aligned_alloc(256, (size + 255) & ~(uint64_t)255);
    return out->handle ? MH_OK : MH_OUT_OF_MEMORY;
}

static void buffer_destroy(void *device, mh_buffer_view *buffer)
{
    (void)device;
    free(buffer->handle);
}

static mh_status stream_create(void *device, void **stream)
{
    *stream = device;
    return MH_OK;
}

static void stream_destroy(void *stream)
{
    (void)stream;
}

static mh_status copy(void *stream, const mh_copy *c)
{
    (void)stream, (void)c;
    return MH_OK;
}

static mh_status mark(void *stream, uint64_t *sequence)
{
    static uint64_t last;
    (void)stream;
    *sequence = ++last;
    return MH_OK;
}

static mh_status wait_for(void *stream, uint64_t sequence, uint64_t timeout_ns)
{
    (void)stream, (void)sequence, (void)timeout_ns;
    return MH_OK;
}

static mh_status supports(void *device, const mh_op *op, uint32_t *missing, char reason[192])
{
    (void)device, (void)op, (void)missing, (void)reason;
    return MH_OK;
}

static mh_status encode(void *stream, const mh_op *op, const mh_scratch *scratch)
{
    (void)stream, (void)op, (void)scratch;
    return MH_OK;
}

#ifdef HALF_A_GROUP
static const mh_backend_graph half = {.struct_size = sizeof(half)};
#endif

static const mh_backend_table table = {
#ifdef NO_GROUPS /* the table as it was when it had no optional groups */
    .struct_size = offsetof(mh_backend_table, scratch),
#else
    .struct_size = sizeof(table),
#endif
    .abi = MH_ABI,
    .name = "stub",
    .description = "says yes and does nothing",
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
#ifdef HALF_A_GROUP
    .graph = &half,
#endif
};

MH_DEFINE_BACKEND(table)
