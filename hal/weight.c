/* weight.c: weights built from pieces, used in place where the device runs on host memory. */
#include <stdio.h>
#include <string.h>

#include "hal.h"

static int64_t units(int64_t size, uint32_t block)
{
    return (size + block - 1) / block;
}

/* ---- life ---- */

static mh_status check_params(mh_runtime *runtime, const mh_weight_params *p)
{
    mh_plane planes[MH_MAX_PLANES];
    if (!mh_format_planes(p->format, planes))
        return hal_fail(runtime, MH_INVALID_ARGUMENT, "mh_weight_params: format %u is unknown",
                        p->format);
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"experts", p->experts}, {"out", p->out}, {"in", p->in}};
    for (size_t i = 0; i < 3; i++)
        if (sizes[i].value < 1 || sizes[i].value > INT32_MAX)
            return hal_fail(runtime, MH_INVALID_ARGUMENT,
                            "mh_weight_params: %s is %lld, must be 1 to 2^31 - 1", sizes[i].name,
                            (long long)sizes[i].value);
    uint64_t bytes = mh_format_bytes(p->format, p->out, p->in), all;
    if (!bytes || __builtin_mul_overflow(bytes, (uint64_t)p->experts, &all) || all > INT64_MAX / 2)
        return hal_fail(runtime, MH_INVALID_ARGUMENT,
                        "mh_weight_params: %lld x %lld x %lld in %s is beyond 2^62 bytes",
                        (long long)p->experts, (long long)p->out, (long long)p->in,
                        mh_format_name(p->format));
    return MH_OK;
}

static void fill_view(mh_weight_view *view, const mh_weight_params *p)
{
    view->format = p->format;
    view->plane_count = mh_format_planes(p->format, view->plane);
    view->experts = p->experts;
    view->out = p->out;
    view->in = p->in;
    uint64_t offset = 0;
    for (uint32_t i = 0; i < view->plane_count; i++) {
        const mh_plane *plane = &view->plane[i];
        view->row_stride[i] = units(p->in, plane->cols) * plane->bytes;
        view->expert_stride[i] = units(p->out, plane->rows) * view->row_stride[i];
        view->offset[i] = offset;
        offset += (uint64_t)(view->expert_stride[i] * p->experts);
        offset = (offset + 255) & ~UINT64_C(255);
    }
}

mh_status mh_weight_create(mh_device *device, const mh_weight_params *params, mh_weight **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_weight_create: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    mh_weight_params p;
    mh_status status = hal_check_device(device, device->generation, "device");
    if (!status)
        status = mh_struct_in(&p, params, sizeof(p), "mh_weight_params");
    if (!status)
        status = check_params(device->runtime, &p);
    if (status)
        return status;
    mh_runtime *runtime = device->runtime;
    mh_weight *weight = hal_alloc(runtime, sizeof(*weight));
    if (!weight)
        return MH_OUT_OF_MEMORY;
    atomic_init(&weight->refs, 1);
    weight->device = mh_device_retain(device);
    weight->generation = device->generation;
    fill_view(&weight->view, &p);
    weight->block_rows = 1;
    for (uint32_t i = 0; i < weight->view.plane_count; i++)
        if (weight->view.plane[i].rows > weight->block_rows)
            weight->block_rows = weight->view.plane[i].rows;
    weight->blocks = units(p.out, (uint32_t)weight->block_rows);
    size_t label = p.label ? strlen(p.label) + 1 : 1;
    weight->label = hal_alloc(runtime, label);
    if (weight->label && p.label)
        memcpy(weight->label, p.label, label);
    *out = weight;
    if (weight->label)
        return MH_OK;
    mh_weight_release(weight);
    *out = NULL;
    return MH_OUT_OF_MEMORY;
}

mh_weight *mh_weight_retain(mh_weight *weight)
{
    if (weight)
        atomic_fetch_add_explicit(&weight->refs, 1, memory_order_relaxed);
    return weight;
}

/* In-place memory is the caller's to keep until the weight is gone and its last work done; the
 * bookkeeping here may go at once, since backends copy what they need of it when encoding. */
void mh_weight_release(mh_weight *weight)
{
    if (!weight || atomic_fetch_sub_explicit(&weight->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_device *device = weight->device;
    mh_buffer_release(weight->buffer);
    hal_free(device->runtime, weight->pointers);
    hal_free(device->runtime, weight->in_place);
    hal_free(device->runtime, weight->written);
    hal_free(device->runtime, weight->view.marks);
    hal_free(device->runtime, weight->label);
    hal_free(device->runtime, weight);
    mh_device_release(device);
}

/* The lists that writing needs; not made for weights that only serve questions. */
static mh_status prepare(mh_weight *weight)
{
    mh_runtime *runtime = weight->device->runtime;
    uint64_t experts = (uint64_t)weight->view.experts;
    if (!weight->written) {
        weight->written = hal_alloc(runtime, (experts * (uint64_t)weight->blocks + 7) / 8);
        if (!weight->written)
            return MH_OUT_OF_MEMORY;
    }
    if (!weight->in_place) {
        weight->in_place = hal_alloc(runtime, experts * sizeof(bool));
        if (!weight->in_place)
            return MH_OUT_OF_MEMORY;
    }
    if (!weight->pointers && hal_on_host_memory(weight->device)) {
        weight->pointers = hal_alloc(runtime, experts * weight->view.plane_count * sizeof(void *));
        if (!weight->pointers)
            return MH_OUT_OF_MEMORY;
        weight->view.host = weight->pointers;
    }
    if (!weight->view.marks && weight->block_rows > 1 && hal_on_host_memory(weight->device)) {
        weight->view.marks = hal_alloc(runtime, experts * (uint64_t)weight->blocks);
        if (!weight->view.marks)
            return MH_OUT_OF_MEMORY;
    }
    return MH_OK;
}

static mh_status take_buffer(mh_weight *weight)
{
    if (weight->buffer)
        return MH_OK;
    const mh_weight_view *v = &weight->view;
    uint32_t last = v->plane_count - 1;
    uint64_t bytes = v->offset[last] + (uint64_t)(v->expert_stride[last] * v->experts);
    mh_status status = hal_buffer_create(weight->device, bytes, MH_BUFFER_WEIGHT, &weight->buffer);
    if (!status)
        weight->view.buffer = &weight->buffer->view;
    return status;
}

/* ---- pieces ---- */

static mh_status bad_piece(mh_weight *weight, const char *field, int64_t value, const char *limit)
{
    return hal_fail(weight->device->runtime, MH_INVALID_ARGUMENT,
                    "weight '%s': piece: %s is %lld, %s", weight->label, field, (long long)value,
                    limit);
}

static mh_status check_piece(mh_weight *weight, const mh_weight_piece *p)
{
    const mh_weight_view *v = &weight->view;
    if (p->expert_begin < 0 || p->expert_count < 1 || p->expert_begin > v->experts ||
        p->expert_count > v->experts - p->expert_begin)
        return bad_piece(weight, "expert_begin + expert_count",
                         p->expert_begin + (p->expert_count & INT32_MAX),
                         "beyond the weight's experts, or empty");
    if (p->row_begin < 0 || p->row_count < 1 || p->row_begin > v->out ||
        p->row_count > v->out - p->row_begin)
        return bad_piece(weight, "row_begin + row_count", p->row_begin + (p->row_count & INT32_MAX),
                         "beyond the weight's rows, or empty");
    if (p->row_begin % weight->block_rows)
        return bad_piece(weight, "row_begin", p->row_begin, "not a multiple of the format's block");
    if (p->row_count % weight->block_rows && p->row_begin + p->row_count != v->out)
        return bad_piece(weight, "row_count", p->row_count, "not a multiple of the format's block");
    for (uint32_t i = 0; i < v->plane_count; i++) {
        if (!p->plane[i])
            return bad_piece(weight, "plane", i, "is NULL");
        if (p->expert_stride[i] < 0 || p->row_stride[i] < 0)
            return bad_piece(weight, "stride of plane", i, "is negative");
        if (p->row_stride[i] && p->row_stride[i] < v->row_stride[i])
            return bad_piece(weight, "row_stride", p->row_stride[i], "is less than a row's bytes");
    }
    if (p->flags & ~(uint32_t)MH_PIECE_STAYS)
        return bad_piece(weight, "flags", p->flags, "has unknown bits");
    return MH_OK;
}

/* One plane of one expert of a piece, and where it belongs in the device's buffer. */
struct strip {
    char *host;
    int64_t host_stride; /* bytes between rows in the caller's memory */
    uint64_t offset;     /* in the weight's buffer */
    int64_t row_bytes;
    int64_t rows;
};

static struct strip find_strip(const mh_weight *weight, const mh_weight_piece *p, int64_t e,
                               uint32_t plane)
{
    const mh_weight_view *v = &weight->view;
    struct strip s = {.row_bytes = v->row_stride[plane]};
    s.rows = units(p->row_count, v->plane[plane].rows);
    s.host_stride = p->row_stride[plane] ? p->row_stride[plane] : s.row_bytes;
    int64_t expert_stride =
        p->expert_stride[plane] ? p->expert_stride[plane] : s.rows * s.host_stride;
    s.host = (char *)(uintptr_t)p->plane[plane] + e * expert_stride;
    s.offset = v->offset[plane] + (uint64_t)((p->expert_begin + e) * v->expert_stride[plane] +
                                             p->row_begin / v->plane[plane].rows * s.row_bytes);
    return s;
}

static mh_status move_strip(mh_weight *weight, const struct strip *s, bool to_device)
{
    bool dense = s->host_stride == s->row_bytes;
    int64_t chunk = dense ? s->rows * s->row_bytes : s->row_bytes;
    for (int64_t r = 0; r < (dense ? 1 : s->rows); r++) {
        char *host = s->host + r * s->host_stride;
        uint64_t offset = s->offset + (uint64_t)(r * s->row_bytes);
        mh_status status = to_device
                               ? mh_buffer_write(weight->buffer, offset, host, (uint64_t)chunk)
                               : mh_buffer_read(weight->buffer, offset, host, (uint64_t)chunk);
        if (status)
            return status;
    }
    return MH_OK;
}

static bool fits_in_place(const mh_weight *weight, const mh_weight_piece *p)
{
    const mh_weight_view *v = &weight->view;
    if (!(p->flags & MH_PIECE_STAYS) || !hal_on_host_memory(weight->device) || p->row_begin ||
        p->row_count != v->out)
        return false;
    for (uint32_t i = 0; i < v->plane_count; i++)
        if (p->row_stride[i] && p->row_stride[i] != v->row_stride[i])
            return false;
    return true;
}

static void point_at(mh_weight *weight, int64_t expert, uint32_t plane, const void *data)
{
    weight->pointers[expert * weight->view.plane_count + plane] = data;
}

/* An expert that was used in place is to be written in part: its rows move to the device first. */
static mh_status move_out(mh_weight *weight, int64_t expert)
{
    mh_weight_piece whole = {
        .expert_begin = expert, .expert_count = 1, .row_count = weight->view.out};
    for (uint32_t i = 0; i < weight->view.plane_count; i++)
        whole.plane[i] = weight->pointers[expert * weight->view.plane_count + i];
    for (uint32_t i = 0; i < weight->view.plane_count; i++) {
        struct strip s = find_strip(weight, &whole, 0, i);
        mh_status status = move_strip(weight, &s, true);
        if (status)
            return status;
    }
    weight->in_place[expert] = false;
    return MH_OK;
}

static mh_status copy_expert(mh_weight *weight, const mh_weight_piece *p, int64_t e)
{
    int64_t expert = p->expert_begin + e;
    if (weight->in_place[expert]) {
        mh_status status = move_out(weight, expert);
        if (status)
            return status;
    }
    for (uint32_t i = 0; i < weight->view.plane_count; i++) {
        struct strip s = find_strip(weight, p, e, i);
        mh_status status = move_strip(weight, &s, true);
        if (status)
            return status;
        if (weight->pointers)
            point_at(weight, expert, i,
                     (char *)weight->buffer->view.host + weight->view.offset[i] +
                         expert * weight->view.expert_stride[i]);
    }
    return MH_OK;
}

static void note_written(mh_weight *weight, const mh_weight_piece *p)
{
    int64_t first = p->row_begin / weight->block_rows;
    int64_t count = units(p->row_count, (uint32_t)weight->block_rows);
    for (int64_t e = p->expert_begin; e < p->expert_begin + p->expert_count; e++)
        for (int64_t b = first; b < first + count; b++) {
            uint64_t bit = (uint64_t)(e * weight->blocks + b);
            weight->written[bit / 8] |= (uint8_t)(1u << bit % 8);
        }
}

static mh_status check_weight(mh_weight *weight, const char *function, bool sealed)
{
    if (!weight)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: weight is NULL", function);
    mh_status status = hal_check_device(weight->device, weight->generation, function);
    if (!status && weight->sealed != sealed)
        return hal_fail(weight->device->runtime, MH_WRONG_STATE, "%s: weight '%s' is %s", function,
                        weight->label, sealed ? "not sealed yet" : "sealed already");
    return status;
}

/* What a call is given: a weight in the right state and a piece of it. */
static mh_status take_piece(mh_weight *weight, const char *function, bool sealed,
                            const mh_weight_piece *piece, mh_weight_piece *p)
{
    mh_status status = check_weight(weight, function, sealed);
    if (!status)
        status = mh_struct_in(p, piece, sizeof(*p), "mh_weight_piece");
    return status ? status : check_piece(weight, p);
}

mh_status mh_weight_write(mh_weight *weight, const mh_weight_piece *piece)
{
    mh_weight_piece p = MH_INIT(mh_weight_piece);
    mh_status status = take_piece(weight, "mh_weight_write", false, piece, &p);
    if (!status)
        status = prepare(weight);
    if (status)
        return status;
    bool in_place = fits_in_place(weight, &p);
    if (!in_place)
        status = take_buffer(weight);
    for (int64_t e = 0; !status && e < p.expert_count; e++) {
        if (!in_place) {
            status = copy_expert(weight, &p, e);
            continue;
        }
        for (uint32_t i = 0; i < weight->view.plane_count; i++)
            point_at(weight, p.expert_begin + e, i, find_strip(weight, &p, e, i).host);
        weight->in_place[p.expert_begin + e] = true;
    }
    if (!status)
        note_written(weight, &p);
    return status;
}

mh_status mh_weight_replace(mh_weight *weight, const mh_weight_piece *piece)
{
    mh_weight_piece p = MH_INIT(mh_weight_piece);
    mh_status status = take_piece(weight, "mh_weight_replace", true, piece, &p);
    if (!status && (p.row_begin || p.row_count != weight->view.out))
        status = bad_piece(weight, "row_count", p.row_count, "not all rows of the experts");
    /* There the experts may be used in place, and more be known of them than their bytes. */
    if (!status && hal_on_host_memory(weight->device))
        status = hal_fail(weight->device->runtime, MH_UNSUPPORTED,
                          "mh_weight_replace: weight '%s' is on host memory", weight->label);
    for (int64_t e = 0; !status && e < p.expert_count; e++)
        status = copy_expert(weight, &p, e);
    return status;
}

mh_status mh_weight_seal(mh_weight *weight)
{
    mh_status status = check_weight(weight, "mh_weight_seal", false);
    if (status)
        return status;
    for (int64_t e = 0; e < weight->view.experts; e++)
        for (int64_t b = 0; b < weight->blocks; b++) {
            uint64_t bit = (uint64_t)(e * weight->blocks + b);
            if (!weight->written || !(weight->written[bit / 8] >> bit % 8 & 1))
                return hal_fail(weight->device->runtime, MH_WRONG_STATE,
                                "mh_weight_seal: weight '%s': row %lld of expert %lld was never "
                                "written",
                                weight->label, (long long)(b * weight->block_rows), (long long)e);
        }
    hal_free(weight->device->runtime, weight->written);
    weight->written = NULL;
    weight->sealed = true;
    return MH_OK;
}

mh_status mh_weight_read(mh_weight *weight, const mh_weight_piece *piece)
{
    mh_weight_piece p = MH_INIT(mh_weight_piece);
    mh_status status = take_piece(weight, "mh_weight_read", true, piece, &p);
    for (int64_t e = 0; !status && e < p.expert_count; e++)
        for (uint32_t i = 0; !status && i < weight->view.plane_count; i++) {
            struct strip s = find_strip(weight, &p, e, i);
            int64_t expert = p.expert_begin + e;
            if (!weight->in_place[expert]) {
                status = move_strip(weight, &s, false);
                continue;
            }
            const char *from = weight->pointers[expert * weight->view.plane_count + i];
            from += p.row_begin / weight->view.plane[i].rows * s.row_bytes;
            for (int64_t r = 0; r < s.rows; r++)
                memcpy(s.host + r * s.host_stride, from + r * s.row_bytes, (size_t)s.row_bytes);
        }
    return status;
}

mh_status mh_weight_get_info(mh_weight *weight, mh_weight_info *out)
{
    if (!weight)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_weight_get_info: weight is NULL");
    mh_weight_info info = {
        .struct_size = sizeof(info),
        .format = weight->view.format,
        .sealed = weight->sealed,
        .experts = weight->view.experts,
        .out = weight->view.out,
        .in = weight->view.in,
        .device_bytes = mh_buffer_size(weight->buffer),
    };
    for (int64_t e = 0; weight->in_place && e < weight->view.experts; e++)
        info.in_place += weight->in_place[e];
    return mh_struct_out(out, &info, sizeof(info));
}

mh_device *mh_weight_device(mh_weight *weight)
{
    return weight ? weight->device : NULL;
}
