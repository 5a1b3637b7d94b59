#include <string.h>

#include "hal.h"

mh_status hal_encoder_init(mh_encoder *encoder, mh_device *device, bool is_graph)
{
    encoder->device = mh_device_retain(device);
    encoder->generation = device->generation;
    encoder->is_graph = is_graph;
    encoder->arena.device = device; /* borrowed: the encoder holds it */
    encoder->arena.generation = device->generation;
    return MH_OK;
}

void hal_encoder_finish(mh_encoder *encoder)
{
    mh_device *device = encoder->device;
    if (encoder->host)
        hal_fallback_free(encoder->host);
    hal_buffer_drop(&encoder->arena);
    mh_buffer_release(encoder->supplied);
    mh_device_release(device);
}

mh_status mh_encoder_set_scratch(mh_encoder *encoder, mh_buffer *buffer)
{
    if (!encoder)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_encoder_set_scratch: encoder is NULL");
    mh_device *device = encoder->device;
    mh_status status = hal_check_device(device, encoder->generation, "encoder");
    if (!status && buffer)
        status = hal_check_device(device, buffer->generation, "scratch");
    if (status)
        return status;
    if (encoder->is_graph && hal_graph_is_sealed(encoder))
        return hal_fail(device->runtime, MH_WRONG_STATE,
                        "mh_encoder_set_scratch: the graph is sealed");
    if (buffer && (buffer->device != device || buffer->flags & MH_IMPORT_READ_ONLY))
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_encoder_set_scratch: the buffer is %s%s, the encoder on %s",
                        buffer->device != device ? "on " : "read-only on ", buffer->device->uri,
                        device->uri);
    hal_buffer_drop(&encoder->arena);
    mh_buffer_retain(buffer);
    mh_buffer_release(encoder->supplied);
    encoder->supplied = buffer;
    encoder->arena.flags = buffer ? HAL_SUPPLIED : 0;
    if (buffer)
        encoder->arena.view = buffer->view;
    return MH_OK;
}

mh_status hal_stream_check(mh_stream *stream)
{
    if (!stream)
        return mh_fail(MH_INVALID_ARGUMENT, "stream: is NULL");
    mh_status status =
        hal_check_device(stream->encoder.device, stream->encoder.generation, "stream");
    if (!status)
        hal_collect(stream->encoder.device, stream);
    return status;
}

static mh_status make_stream(mh_device *device, const uint64_t *native, mh_stream **out)
{
    mh_status status = hal_check_device(device, device->generation, "device");
    if (status)
        return status;
    mh_stream *stream = hal_alloc(device->runtime, sizeof(*stream));
    if (!stream)
        return MH_OUT_OF_MEMORY;
    atomic_init(&stream->refs, 1);
    status = native ? device->table->wrap->stream(device->handle, *native, &stream->handle)
                    : device->table->stream_create(device->handle, &stream->handle);
    if (status) {
        hal_free(device->runtime, stream);
        return hal_backend_status(device, status);
    }
    stream->wrapped = native != NULL;
    hal_encoder_init(&stream->encoder, device, false);
    pthread_mutex_lock(&device->lock);
    stream->next = device->streams;
    if (stream->next)
        stream->next->previous = stream;
    device->streams = stream;
    pthread_mutex_unlock(&device->lock);
    *out = stream;
    return MH_OK;
}

mh_status mh_stream_create(mh_device *device, mh_stream **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_stream_create: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    return make_stream(device, NULL, out);
}

mh_status mh_stream_wrap(mh_device *device, uint64_t native, mh_stream **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_stream_wrap: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    if (!device->table->wrap)
        return hal_fail(device->runtime, MH_UNSUPPORTED,
                        "mh_stream_wrap: device %s has no queues of a vendor's API", device->uri);
    return make_stream(device, &native, out);
}

mh_stream *mh_stream_retain(mh_stream *stream)
{
    if (stream)
        atomic_fetch_add_explicit(&stream->refs, 1, memory_order_relaxed);
    return stream;
}

void mh_stream_release(mh_stream *stream)
{
    if (!stream || atomic_fetch_sub_explicit(&stream->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_device *device = mh_device_retain(stream->encoder.device);
    mh_runtime *runtime = device->runtime;
    bool current = stream->encoder.generation == device->generation && hal_is_alive(runtime);
    if (current && !device->lost)
        mh_stream_wait(stream, MH_FOREVER);
    hal_worker_drain(runtime, stream);
    pthread_mutex_lock(&device->lock);
    if (stream->previous)
        stream->previous->next = stream->next;
    else
        device->streams = stream->next;
    if (stream->next)
        stream->next->previous = stream->previous;
    device->native += stream->native;
    pthread_mutex_unlock(&device->lock);
    hal_encoder_finish(&stream->encoder);
    if (current)
        device->table->stream_destroy(stream->handle);
    hal_collect(device, NULL);
    hal_free(runtime, stream);
    mh_device_release(device);
}

mh_encoder *mh_stream_encoder(mh_stream *stream)
{
    return stream ? &stream->encoder : NULL;
}

mh_device *mh_stream_device(mh_stream *stream)
{
    return stream ? stream->encoder.device : NULL;
}

void mh_stream_cancel(mh_stream *stream, uint32_t cancel)
{
    if (stream)
        atomic_store_explicit(&stream->cancelled, cancel != 0, memory_order_relaxed);
}

mh_status hal_stream_take_cancel(mh_stream *stream)
{
    if (!atomic_exchange_explicit(&stream->cancelled, false, memory_order_relaxed))
        return MH_OK;
    return mh_fail(MH_CANCELLED, "stream: cancelled");
}

/* ---- copies ---- */

mh_status hal_stream_transfer(mh_stream *stream, const mh_copy *copy)
{
    mh_device *device = stream->encoder.device;
    stream->last = atomic_fetch_add(&device->sequence, 1) + 1;
    device->copies++;
    device->copied_bytes += copy->size;
    return hal_backend_status(device, device->table->copy(stream->handle, copy));
}

void hal_destroy_gate(mh_device *device, void *gate, bool current)
{
    if (current)
        device->table->gate->destroy(device->handle, gate);
}

mh_status hal_stream_hold(mh_stream *held, struct hal_job *job)
{
    mh_device *device = held->encoder.device;
    const mh_backend_gate *group = device->table->gate;
    mh_status status = hal_backend_status(device, group->create(device->handle, &job->gate));
    if (status)
        return status;
    job->held = held;
    held->last = atomic_fetch_add(&device->sequence, 1) + 1;
    status = hal_backend_status(device, group->hold(held->handle, job->gate));
    if (!status)
        status = hal_worker_submit(device->runtime, job);
    if (status) { /* whatever it holds goes on */
        group->open(device->handle, job->gate);
        hal_retire(device, held->encoder.generation, job->gate, hal_destroy_gate);
    } else {
        device->thread_waits++;
    }
    return status;
}

enum { WRITTEN = 1, ANYWHERE = 2 /* on any device of the runtime */ };

static mh_status check_part(mh_stream *stream, mh_buffer *buffer, uint64_t offset, uint64_t size,
                            int how, const char *function)
{
    if (!buffer)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: buffer is NULL", function);
    mh_device *device = stream->encoder.device;
    bool reachable = how & ANYWHERE && buffer->device->runtime == device->runtime;
    if (buffer->device != device && !reachable)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "%s: the buffer is on %s, the stream on %s", function, buffer->device->uri,
                        device->uri);
    if (buffer->device != device || buffer->generation != stream->encoder.generation) {
        mh_status status = hal_check_device(buffer->device, buffer->generation, function);
        if (status)
            return status;
    }
    if (offset > buffer->view.size || size > buffer->view.size - offset)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "%s: offset %llu + size %llu is beyond the buffer's %llu bytes", function,
                        (unsigned long long)offset, (unsigned long long)size,
                        (unsigned long long)buffer->view.size);
    if (how & WRITTEN && buffer->flags & MH_IMPORT_READ_ONLY)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "%s: the buffer was imported read-only", function);
    return MH_OK;
}

mh_status mh_stream_write(mh_stream *stream, mh_buffer *buffer, uint64_t offset, const void *data,
                          uint64_t size)
{
    mh_status status = hal_stream_check(stream);
    if (!status)
        status = check_part(stream, buffer, offset, size, WRITTEN, "mh_stream_write");
    if (status || !size)
        return status;
    if (!data)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_stream_write: data is NULL");
    mh_copy copy = {.direction = MH_COPY_TO_DEVICE,
                    .to = buffer->view.handle,
                    .to_offset = offset,
                    .from = data,
                    .size = size};
    return hal_stream_transfer(stream, &copy);
}

mh_status mh_stream_read(mh_stream *stream, mh_buffer *buffer, uint64_t offset, void *data,
                         uint64_t size)
{
    mh_status status = hal_stream_check(stream);
    if (!status)
        status = check_part(stream, buffer, offset, size, 0, "mh_stream_read");
    if (status || !size)
        return status;
    if (!data)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_stream_read: data is NULL");
    mh_copy copy = {.direction = MH_COPY_TO_HOST,
                    .to = data,
                    .from = buffer->view.handle,
                    .from_offset = offset,
                    .size = size};
    return hal_stream_transfer(stream, &copy);
}

static void release_buffer(mh_device *device, void *buffer, bool current)
{
    (void)device, (void)current;
    mh_buffer_release(buffer);
}

/* `host` is memory of the host's: the device's own copy reaches it. It stays until that is done. */
static mh_status copy_with_host(mh_stream *stream, const mh_copy *copy, mh_buffer *host)
{
    mh_status status = hal_stream_transfer(stream, copy);
    if (!status)
        hal_retire(stream->encoder.device, stream->encoder.generation, mh_buffer_retain(host),
                   release_buffer);
    return status;
}

/* Between the stream's device and another one. */
static mh_status copy_across(mh_stream *stream, mh_buffer *to, uint64_t to_offset, mh_buffer *from,
                             uint64_t from_offset, uint64_t size)
{
    mh_device *device = stream->encoder.device;
    struct hal_job job = {.awaited = stream, .to = to, .from = from, .size = size};
    job.to_offset = to_offset, job.from_offset = from_offset;
    if (hal_on_host_memory(from->device) && !hal_on_host_memory(device)) {
        mh_copy copy = {.direction = MH_COPY_TO_DEVICE, .to = to->view.handle, .size = size};
        copy.to_offset = to_offset, copy.from = (char *)from->view.host + from_offset;
        return copy_with_host(stream, &copy, from);
    }
    if (hal_on_host_memory(to->device) && !hal_on_host_memory(device)) {
        mh_copy copy = {.direction = MH_COPY_TO_HOST, .from = from->view.handle, .size = size};
        copy.from_offset = from_offset, copy.to = (char *)to->view.host + to_offset;
        return copy_with_host(stream, &copy, to);
    }
    if (device->table->gate) {
        mh_status status =
            hal_backend_status(device, device->table->mark(stream->handle, &job.mark));
        return status ? status : hal_stream_hold(stream, &job);
    }
    device->stream_waits++;
    mh_status status = mh_stream_wait(stream, MH_FOREVER);
    return status ? status : mh_buffer_copy(to, to_offset, from, from_offset, size);
}

mh_status mh_stream_copy(mh_stream *stream, mh_buffer *to, uint64_t to_offset, mh_buffer *from,
                         uint64_t from_offset, uint64_t size)
{
    mh_status status = hal_stream_check(stream);
    if (status)
        return status;
    if (!to || !from)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_stream_copy: %s: buffer is NULL",
                       to ? "from" : "to");
    mh_device *device = stream->encoder.device;
    bool to_here = to->device == device, from_here = from->device == device;
    status = check_part(stream, to, to_offset, size, WRITTEN | (from_here ? ANYWHERE : 0),
                        "mh_stream_copy: to");
    if (!status)
        status = check_part(stream, from, from_offset, size, to_here ? ANYWHERE : 0,
                            "mh_stream_copy: from");
    if (status || !size)
        return status;
    if (!to_here || !from_here)
        return copy_across(stream, to, to_offset, from, from_offset, size);
    if (to == from && to_offset < from_offset + size && from_offset < to_offset + size)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_stream_copy: the ranges at %llu and %llu overlap (%llu bytes)",
                        (unsigned long long)to_offset, (unsigned long long)from_offset,
                        (unsigned long long)size);
    mh_copy copy = {.direction = MH_COPY_ON_DEVICE,
                    .to = to->view.handle,
                    .to_offset = to_offset,
                    .from = from->view.handle,
                    .from_offset = from_offset,
                    .size = size};
    return hal_stream_transfer(stream, &copy);
}

/* ---- waiting ---- */

/* A mark behind all that the stream has now. Whoever polls what is on its way needs one mark, and a
 * backend may have room for so many alone; once it is done, a new one shows that the device is
 * there. */
static mh_status mark_now(mh_stream *stream, uint64_t upto)
{
    mh_device *device = stream->encoder.device;
    if (stream->mark && stream->marked == upto && stream->completed != upto && !stream->wrapped)
        return MH_OK;
    mh_status status =
        hal_backend_status(device, device->table->mark(stream->handle, &stream->mark));
    stream->mark = status ? 0 : stream->mark;
    stream->marked = upto;
    return status;
}

mh_status mh_stream_wait(mh_stream *stream, uint64_t timeout_ns)
{
    if (!stream)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_stream_wait: stream is NULL");
    mh_device *device = stream->encoder.device;
    mh_status status = hal_check_device(device, stream->encoder.generation, "stream");
    if (status)
        return status;
    uint64_t upto = stream->last;
    bool idle = stream->completed == upto && !stream->wrapped;
    status = mark_now(stream, upto);
    if (!status)
        status =
            hal_wait_status(device, device->table->wait(stream->handle, stream->mark, timeout_ns));
    if (status == MH_TIMEOUT && idle)
        status = MH_OK; /* nothing but the mark is on its way */
    if (!status)
        stream->completed = upto;
    if (!status && atomic_load(&stream->failed))
        return hal_fail(device->runtime, atomic_load(&stream->failed),
                        "mh_stream_wait: what this stream waited for on another device failed");
    if (status == MH_TIMEOUT && timeout_ns)
        mh_fail(MH_TIMEOUT, "mh_stream_wait: not done after %llu ns",
                (unsigned long long)timeout_ns);
    return status;
}
