/* buffer.c: device memory, its accounting, and freeing it only when no work needs it. */
#include <string.h>

#include "hal.h"

/* ---- accounting ---- */

static void charge(mh_device *device, uint64_t bytes)
{
    pthread_mutex_lock(&device->lock);
    device->memory.used += bytes;
    device->memory.buffers++;
    if (device->memory.used > device->memory.peak)
        device->memory.peak = device->memory.used;
    pthread_mutex_unlock(&device->lock);
}

mh_status mh_device_memory(mh_device *device, mh_memory_info *out)
{
    if (!device)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_memory: device is NULL");
    mh_status status = hal_check_alive(device->runtime);
    uint64_t total = 0, available = 0;
    if (!status)
        status = hal_backend_status(device,
                                    device->table->memory_info(device->handle, &total, &available));
    if (status)
        return status;
    pthread_mutex_lock(&device->lock);
    mh_memory_info info = device->memory;
    pthread_mutex_unlock(&device->lock);
    info.total = total;
    info.available = available;
    return mh_struct_out(out, &info, sizeof(info));
}

/* ---- taking and giving back ---- */

static mh_status take(mh_device *device, uint64_t size, uint32_t kind, mh_buffer_view *view)
{
    *view = (mh_buffer_view){.size = size};
    if (!size)
        return MH_OK;
    mh_status status = device->table->buffer_create(device->handle, size, kind, view);
    if (status == MH_OUT_OF_MEMORY && atomic_load(&device->has_retired)) {
        hal_collect(device, NULL);
        status = device->table->buffer_create(device->handle, size, kind, view);
    }
    if (status)
        return hal_backend_status(device, status);
    view->size = size;
    charge(device, size);
    return MH_OK;
}

/* The memory goes back to the backend, whatever it was. The caller has made sure no work uses it.
 */
static void give_back(mh_device *device, mh_buffer *buffer)
{
    bool ours = buffer->generation == device->generation && hal_is_alive(device->runtime);
    if (buffer->kind == HAL_BUFFER_OBJECT) {
        buffer->destroy(device, buffer->view.handle, ours);
        return;
    }
    if (buffer->kind == MH_BUFFER_IMPORTED || buffer->kind == HAL_BUFFER_WRAPPED) {
        if (ours && buffer->kind == MH_BUFFER_IMPORTED)
            device->table->import->forget(device->handle, &buffer->view);
        else if (ours)
            device->table->wrap->forget(device->handle, &buffer->view);
        if (buffer->released)
            buffer->released(buffer->user);
    } else if (buffer->view.handle && ours) {
        device->table->buffer_destroy(device->handle, &buffer->view);
    }
    pthread_mutex_lock(&device->lock);
    if (buffer->kind == MH_BUFFER_IMPORTED) {
        device->memory.imported -= buffer->view.size;
    } else if (buffer->charged && ours) {
        device->memory.used -= buffer->charged;
        device->memory.buffers--;
    }
    pthread_mutex_unlock(&device->lock);
}

static bool in_flight(mh_device *device, uint64_t sequence)
{
    if (device->info.flags & MH_DEVICE_SYNCHRONOUS)
        return false;
    for (mh_stream *s = device->streams; s; s = s->next)
        if (s->encoder.generation == device->generation && s->last > s->completed &&
            s->completed < sequence)
            return true;
    return false;
}

void hal_collect_now(mh_device *device, mh_stream *stream)
{
    if (stream && stream->last > stream->completed)
        mh_stream_wait(stream, 0); /* a look; its error comes back at the next real call */
    mh_buffer *free_now = NULL;
    pthread_mutex_lock(&device->lock);
    for (mh_buffer **link = &device->retired; *link;) {
        mh_buffer *buffer = *link;
        if (in_flight(device, buffer->retired_at)) {
            link = &buffer->next_retired;
            continue;
        }
        *link = buffer->next_retired;
        buffer->next_retired = free_now;
        free_now = buffer;
    }
    atomic_store(&device->has_retired, device->retired != NULL);
    pthread_mutex_unlock(&device->lock);
    while (free_now) {
        mh_buffer *buffer = free_now;
        free_now = buffer->next_retired;
        give_back(device, buffer);
        hal_free(device->runtime, buffer);
    }
}

/* `buffer` has no owner any more: its memory is freed now, or when the work that may use it is
 * done. */
static void retire(mh_device *device, mh_buffer *buffer)
{
    pthread_mutex_lock(&device->lock);
    buffer->retired_at = device->sequence;
    bool wait = in_flight(device, buffer->retired_at) || atomic_load(&device->exchanging);
    if (wait) {
        buffer->next_retired = device->retired;
        device->retired = buffer;
        atomic_store(&device->has_retired, true);
    }
    pthread_mutex_unlock(&device->lock);
    if (!wait) {
        give_back(device, buffer);
        hal_free(device->runtime, buffer);
    }
}

static void wait_for_all(mh_device *device)
{
    for (mh_stream *s = device->streams; s; s = s->next)
        mh_stream_wait(s, MH_FOREVER);
}

void hal_retire(mh_device *device, uint32_t generation, void *handle,
                void (*destroy)(mh_device *device, void *handle, bool current))
{
    mh_buffer *note = hal_alloc(device->runtime, sizeof(*note));
    if (note) {
        note->kind = HAL_BUFFER_OBJECT;
        note->generation = generation;
        note->view.handle = handle;
        note->destroy = destroy;
        retire(device, note);
    } else { /* no memory even for the note */
        bool current = generation == device->generation && hal_is_alive(device->runtime);
        if (current)
            wait_for_all(device);
        destroy(device, handle, current);
    }
}

/* ---- the API ---- */

static mh_status new_buffer(mh_device *device, mh_buffer **out)
{
    mh_buffer *buffer = hal_alloc(device->runtime, sizeof(*buffer));
    if (!buffer)
        return MH_OUT_OF_MEMORY;
    atomic_init(&buffer->refs, 1);
    buffer->generation = device->generation;
    *out = buffer;
    return MH_OK;
}

mh_status mh_buffer_create(mh_device *device, uint64_t size, uint32_t kind, mh_buffer **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_buffer_create: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    if (kind > MH_BUFFER_HOST_VISIBLE)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_buffer_create: kind is %u, at most %u", kind, MH_BUFFER_HOST_VISIBLE);
    if (size > INT64_MAX)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_buffer_create: size is %llu, at most 2^63 - 1",
                        (unsigned long long)size);
    return hal_buffer_create(device, size, kind, out);
}

mh_status hal_buffer_create(mh_device *device, uint64_t size, uint32_t kind, mh_buffer **out)
{
    mh_status status = hal_check_device(device, device->generation, "device");
    mh_buffer *buffer;
    if (!status)
        status = new_buffer(device, &buffer);
    if (status)
        return status;
    buffer->kind = kind;
    status = take(device, size, kind, &buffer->view);
    if (status) {
        hal_free(device->runtime, buffer);
        return status;
    }
    buffer->charged = size;
    buffer->device = mh_device_retain(device);
    *out = buffer;
    return MH_OK;
}

/* Memory of the embedder's: the host's by import, the vendor's by wrap. */
struct foreign {
    const char *function;
    void *memory;
    uint64_t native;
    bool wrapped;
    uint64_t size;
    uint32_t flags;
    void (*released)(void *user);
    void *user;
};

static mh_status adopt(mh_device *device, const struct foreign *f, mh_buffer **out)
{
    const mh_backend_table *table = device->table;
    if (f->flags & ~(uint32_t)MH_IMPORT_READ_ONLY)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT, "%s: flags are 0x%x", f->function,
                        f->flags);
    if (f->wrapped ? !table->wrap : !table->import)
        return hal_fail(device->runtime, MH_UNSUPPORTED, "%s: device %s does not %s", f->function,
                        device->uri,
                        f->wrapped ? "take memory of a vendor's API" : "run on host memory");
    mh_status status = hal_check_device(device, device->generation, "device");
    mh_buffer *buffer;
    if (!status)
        status = new_buffer(device, &buffer);
    if (status)
        return status;
    status = f->wrapped ? table->wrap->buffer(device->handle, f->native, f->size, &buffer->view)
                        : table->import->import(device->handle, f->memory, f->size, &buffer->view);
    if (status) {
        hal_free(device->runtime, buffer);
        return hal_backend_status(device, status);
    }
    buffer->view.size = f->size;
    buffer->kind = f->wrapped ? HAL_BUFFER_WRAPPED : MH_BUFFER_IMPORTED;
    buffer->flags = f->flags;
    buffer->released = f->released;
    buffer->user = f->user;
    buffer->device = mh_device_retain(device);
    if (!f->wrapped) {
        pthread_mutex_lock(&device->lock);
        device->memory.imported += f->size;
        pthread_mutex_unlock(&device->lock);
    }
    *out = buffer;
    return MH_OK;
}

mh_status mh_buffer_import(mh_device *device, void *memory, uint64_t size, uint32_t flags,
                           void (*released)(void *user), void *user, mh_buffer **out)
{
    if (!device || !out || !memory)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_buffer_import: %s is NULL",
                       !device ? "device"
                       : !out  ? "out"
                               : "memory");
    *out = NULL;
    const struct foreign f = {"mh_buffer_import", memory, 0, false, size, flags, released, user};
    return adopt(device, &f, out);
}

mh_status mh_buffer_wrap(mh_device *device, uint64_t native, uint64_t size, uint32_t flags,
                         void (*released)(void *user), void *user, mh_buffer **out)
{
    if (!device || !out || !native || !size)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_buffer_wrap: %s is %s",
                       !device   ? "device"
                       : !out    ? "out"
                       : !native ? "native"
                                 : "size",
                       device && out ? "0" : "NULL");
    *out = NULL;
    const struct foreign f = {"mh_buffer_wrap", NULL, native, true, size, flags, released, user};
    return adopt(device, &f, out);
}

mh_buffer *mh_buffer_retain(mh_buffer *buffer)
{
    if (buffer)
        atomic_fetch_add_explicit(&buffer->refs, 1, memory_order_relaxed);
    return buffer;
}

void mh_buffer_release(mh_buffer *buffer)
{
    if (!buffer || atomic_fetch_sub_explicit(&buffer->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_device *device = buffer->device;
    retire(device, buffer);
    mh_device_release(device);
}

uint64_t mh_buffer_size(const mh_buffer *buffer)
{
    return buffer ? buffer->view.size : 0;
}

mh_device *mh_buffer_device(mh_buffer *buffer)
{
    return buffer ? buffer->device : NULL;
}

void *mh_buffer_host(mh_buffer *buffer)
{
    return buffer && buffer->generation == buffer->device->generation ? buffer->view.host : NULL;
}

mh_status hal_buffer_check(mh_buffer *buffer, uint64_t offset, uint64_t size, const char *function)
{
    if (!buffer)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: buffer is NULL", function);
    if (offset > buffer->view.size || size > buffer->view.size - offset)
        return hal_fail(buffer->device->runtime, MH_INVALID_ARGUMENT,
                        "%s: offset %llu + size %llu is beyond the buffer's %llu bytes", function,
                        (unsigned long long)offset, (unsigned long long)size,
                        (unsigned long long)buffer->view.size);
    return hal_check_device(buffer->device, buffer->generation, function);
}

static mh_status check_range(mh_buffer *buffer, uint64_t offset, const void *data, uint64_t size,
                             const char *function)
{
    if (buffer && !data && size)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: data is NULL", function);
    return hal_buffer_check(buffer, offset, size, function);
}

mh_status mh_buffer_write(mh_buffer *buffer, uint64_t offset, const void *data, uint64_t size)
{
    mh_status status = check_range(buffer, offset, data, size, "mh_buffer_write");
    if (status || !size)
        return status;
    if (buffer->flags & MH_IMPORT_READ_ONLY)
        return hal_fail(buffer->device->runtime, MH_INVALID_ARGUMENT,
                        "mh_buffer_write: the buffer was imported read-only");
    mh_copy copy = {.direction = MH_COPY_TO_DEVICE,
                    .to = buffer->view.handle,
                    .to_offset = offset,
                    .from = data,
                    .size = size};
    return hal_device_copy(buffer->device, &copy);
}

mh_status mh_buffer_read(mh_buffer *buffer, uint64_t offset, void *data, uint64_t size)
{
    mh_status status = check_range(buffer, offset, data, size, "mh_buffer_read");
    if (status || !size)
        return status;
    mh_copy copy = {.direction = MH_COPY_TO_HOST,
                    .to = data,
                    .from = buffer->view.handle,
                    .from_offset = offset,
                    .size = size};
    return hal_device_copy(buffer->device, &copy);
}

mh_status hal_device_copy(mh_device *device, const mh_copy *copy)
{
    mh_status status = MH_OK;
    pthread_mutex_lock(&device->transfer_lock);
    if (!device->transfer || device->transfer_generation != device->generation) {
        status = device->table->stream_create(device->handle, &device->transfer);
        device->transfer_generation = device->generation;
        if (status)
            device->transfer = NULL;
    }
    uint64_t mark = 0;
    if (!status)
        status = device->table->copy(device->transfer, copy);
    if (!status)
        status = device->table->mark(device->transfer, &mark);
    if (status)
        status = hal_backend_status(device, status);
    else
        status = hal_wait_status(device, device->table->wait(device->transfer, mark, MH_FOREVER));
    pthread_mutex_unlock(&device->transfer_lock);
    if (!status) {
        device->copies++;
        device->copied_bytes += copy->size;
    }
    return status;
}

/* ---- an encoder's arena ---- */

void hal_buffer_drop(mh_buffer *arena)
{
    if (!arena->view.handle)
        return;
    if (arena->flags & HAL_SUPPLIED) {
        arena->view = (mh_buffer_view){0};
        return;
    }
    mh_device *device = arena->device;
    mh_buffer *old = hal_alloc(device->runtime, sizeof(*old));
    if (old) {
        *old = *arena;
        retire(device, old);
    } else { /* no memory even for the note: wait instead */
        wait_for_all(device);
        give_back(device, arena);
    }
    arena->view = (mh_buffer_view){0};
    arena->charged = 0;
}

mh_status hal_buffer_grow(mh_buffer *arena, uint64_t size)
{
    if (size <= arena->view.size)
        return MH_OK;
    if (arena->flags & HAL_SUPPLIED)
        return hal_fail(arena->device->runtime, MH_OUT_OF_MEMORY,
                        "scratch: %llu bytes are needed, the buffer given has %llu",
                        (unsigned long long)size, (unsigned long long)arena->view.size);
    uint64_t grown = arena->view.size + arena->view.size / 2;
    if (grown < size)
        grown = size;
    hal_buffer_drop(arena);
    mh_status status = take(arena->device, grown, MH_BUFFER_DEVICE, &arena->view);
    if (status)
        arena->view = (mh_buffer_view){0};
    else
        arena->charged = grown;
    return status;
}
