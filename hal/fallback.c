/*
 * fallback.c: one op run by the host in a device's place. What it touches is copied to host memory,
 * the host runs it there, what it wrote is copied back. Blocking, counted, never silent.
 */
#include <string.h>

#include "hal.h"

/* A stretch of a device buffer that the op touches, and its copy at `at` of the shadow. Operands in
 * one buffer share a stretch, so that those that overlap on the device overlap here too. */
struct stretch {
    mh_buffer *buffer;
    uint64_t begin, end;
    uint64_t at;
};

struct hal_fallback {
    mh_stream *stream; /* of the host device */
    void *allocation;
    char *memory; /* inside the allocation, aligned as device memory is */
    uint64_t capacity;
    mh_buffer *shadow; /* memory, imported by the host device */
};

void hal_fallback_free(struct hal_fallback *f)
{
    mh_runtime *runtime = mh_runtime_retain(f->stream->encoder.device->runtime);
    mh_buffer_release(f->shadow);
    mh_stream_release(f->stream);
    hal_free(runtime, f->allocation);
    hal_free(runtime, f);
    mh_runtime_release(runtime);
}

static mh_status prepare(mh_stream *stream, uint64_t bytes)
{
    mh_encoder *encoder = &stream->encoder;
    mh_runtime *runtime = encoder->device->runtime;
    mh_device *host;
    mh_status status = mh_device_host(encoder->device, &host);
    if (status)
        return status;
    if (!encoder->host) {
        encoder->host = hal_alloc(runtime, sizeof(*encoder->host));
        if (!encoder->host)
            return MH_OUT_OF_MEMORY;
        status = mh_stream_create(host, &encoder->host->stream);
        if (status) {
            hal_free(runtime, encoder->host);
            encoder->host = NULL;
            return status;
        }
    }
    struct hal_fallback *f = encoder->host;
    if (bytes <= f->capacity)
        return MH_OK;
    mh_buffer_release(f->shadow);
    f->shadow = NULL;
    hal_free(runtime, f->allocation);
    f->capacity = 0;
    f->allocation = hal_alloc(runtime, bytes + 255);
    if (!f->allocation)
        return MH_OUT_OF_MEMORY;
    f->memory = (char *)(((uintptr_t)f->allocation + 255) & ~(uintptr_t)255);
    status = mh_buffer_import(host, f->memory, bytes, 0, NULL, NULL, &f->shadow);
    if (!status)
        f->capacity = bytes;
    return status;
}

static uint64_t span_end(const mh_tensor *t)
{
    uint64_t end = t->offset + mh_dtype_size(t->dtype);
    for (uint32_t i = 0; i < t->rank; i++) {
        if (!t->shape[i])
            return t->offset;
        end += (uint64_t)(t->shape[i] - 1) * (uint64_t)t->stride[i];
    }
    return end;
}

static struct stretch *find_stretch(struct stretch *list, uint32_t count, const mh_buffer *buffer)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i].buffer == buffer)
            return &list[i];
    return NULL;
}

/* Gathers the stretches and their places; returns how many, and the bytes of all. */
static uint32_t gather(const mh_op *op, struct stretch *list, uint64_t *bytes)
{
    const struct hal_op_info *info = hal_op_find(op->op);
    uint32_t count = 0;
    for (uint32_t i = 0; i < info->operand_count; i++) {
        const mh_tensor *t = hal_tensor_at(op, &info->operands[i]);
        if (info->operands[i].kind != HAL_TENSOR || !t->rank)
            continue;
        uint64_t begin = t->offset & ~UINT64_C(255), end = span_end(t);
        struct stretch *s = find_stretch(list, count, t->buffer);
        if (!s) {
            s = &list[count++];
            *s = (struct stretch){t->buffer, begin, end, 0};
        }
        s->begin = begin < s->begin ? begin : s->begin;
        s->end = end > s->end ? end : s->end;
    }
    *bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        list[i].at = *bytes;
        *bytes += (list[i].end - list[i].begin + 255) & ~UINT64_C(255);
    }
    return count;
}

/* Copies that were begun are over, even if one of them failed: the memory may be given up. */
static mh_status finish(mh_stream *stream, mh_status status)
{
    mh_status waited = mh_stream_wait(stream, MH_FOREVER);
    return status ? status : waited;
}

static mh_status copy_in(mh_stream *stream, const struct stretch *list, uint32_t count)
{
    char *memory = stream->encoder.host->memory;
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < count; i++) {
        uint64_t size = list[i].end - list[i].begin;
        if (!size)
            continue;
        mh_copy copy = {.direction = MH_COPY_TO_HOST,
                        .to = memory + list[i].at,
                        .from = list[i].buffer->view.handle,
                        .from_offset = list[i].begin,
                        .size = size};
        status = hal_stream_transfer(stream, &copy);
    }
    return finish(stream, status);
}

static mh_status copy_out(mh_stream *stream, const mh_op *op, struct stretch *list, uint32_t count)
{
    const struct hal_op_info *info = hal_op_find(op->op);
    const char *memory = stream->encoder.host->memory;
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < info->operand_count; i++) {
        const mh_tensor *t = hal_tensor_at(op, &info->operands[i]);
        if (info->operands[i].kind != HAL_TENSOR || !t->rank || span_end(t) == t->offset ||
            !(info->operands[i].access & HAL_OUT))
            continue;
        const struct stretch *s = find_stretch(list, count, t->buffer);
        mh_copy copy = {.direction = MH_COPY_TO_DEVICE,
                        .to = t->buffer->view.handle,
                        .to_offset = t->offset,
                        .from = memory + s->at + (t->offset - s->begin),
                        .size = span_end(t) - t->offset};
        status = hal_stream_transfer(stream, &copy);
    }
    return finish(stream, status);
}

static void redirect(union hal_any_op *local, mh_buffer *shadow, struct stretch *list,
                     uint32_t count)
{
    const struct hal_op_info *info = hal_op_find(local->base.op);
    for (uint32_t i = 0; i < info->operand_count; i++) {
        mh_tensor *t = hal_tensor_at(&local->base, &info->operands[i]);
        if (info->operands[i].kind != HAL_TENSOR || !t->rank)
            continue;
        const struct stretch *s = find_stretch(list, count, t->buffer);
        t->offset = s->at + (t->offset - s->begin);
        t->buffer = shadow;
    }
}

mh_status hal_fallback_run(mh_stream *stream, const mh_op *op)
{
    mh_device *device = stream->encoder.device;
    struct stretch list[HAL_MAX_OPERANDS];
    uint64_t bytes;
    uint32_t count = gather(op, list, &bytes);
    mh_status status = hal_stream_cancelled(stream);
    if (!status)
        status = prepare(stream, bytes ? bytes : 256);
    if (!status)
        status = copy_in(stream, list, count);
    if (status)
        return status;
    union hal_any_op local;
    memcpy(&local, op, hal_op_find(op->op)->size);
    redirect(&local, stream->encoder.host->shadow, list, count);
    status = mh_encode(&stream->encoder.host->stream->encoder, &local.base);
    if (!status)
        status = mh_stream_wait(stream->encoder.host->stream, MH_FOREVER);
    if (!status)
        status = copy_out(stream, op, list, count);
    if (!status) {
        device->fallback++;
        device->fallbacks[op->op]++;
    }
    return status;
}
