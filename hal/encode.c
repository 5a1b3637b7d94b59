/*
 * encode.c: where an op runs. Natively; else, if it is fused, as its parts; else on the host.
 */
#include <stdio.h>
#include <string.h>

#include "hal.h"

/* ---- asking ---- */

static mh_status backend_supports(mh_device *device, const mh_op *op, uint32_t *missing,
                                  char reason[192])
{
    reason[0] = 0;
    *missing = MH_MISSING_NOTHING;
    mh_status status =
        hal_backend_status(device, device->table->supports(device->handle, op, missing, reason));
    if (!status && *missing != MH_MISSING_NOTHING && !reason[0])
        snprintf(reason, 192, "the backend gives no reason");
    return status;
}

/* The weights of an op that live on the host make it run there. */
static bool has_weight_elsewhere(mh_device *device, const mh_op *op)
{
    for (const uint16_t *at = hal_op_find(op->op)->weights; *at; at++) {
        const mh_weight *weight = *(mh_weight *const *)(const void *)((const char *)op + *at);
        if (weight && weight->device != device)
            return true;
    }
    return false;
}

static mh_status runs_natively(mh_device *device, const mh_op *op, bool *native, char reason[192])
{
    uint32_t missing;
    mh_status status = backend_supports(device, op, &missing, reason);
    *native = !missing && !has_weight_elsewhere(device, op);
    if (!missing && !*native)
        snprintf(reason, 192, "its weights are on the host");
    return status;
}

struct question {
    mh_device *device;
    const mh_op *op;
    bool all_native;
    uint32_t weights_on_host; /* bit w: the op's weight w */
};

/* Which of the question's weights a part uses. */
static uint32_t weights_of(const struct question *q, const mh_op *part)
{
    const struct hal_op_info *whole = hal_op_find(q->op->op), *info = hal_op_find(part->op);
    uint32_t bits = 0, bit = 1;
    for (uint32_t i = 0; i < whole->operand_count; i++) {
        if (whole->operands[i].kind != HAL_WEIGHT)
            continue;
        const mh_weight *weight = hal_weight_at(q->op, &whole->operands[i]);
        for (uint32_t j = 0; weight && j < info->operand_count; j++)
            if (info->operands[j].kind == HAL_WEIGHT &&
                hal_weight_at(part, &info->operands[j]) == weight)
                bits |= bit;
        bit <<= 1;
    }
    return bits;
}

static mh_status ask_part(void *context, const mh_op *op, uint64_t used)
{
    struct question *q = context;
    uint32_t missing;
    char reason[192];
    mh_status status = backend_supports(q->device, op, &missing, reason);
    if (status || !missing)
        return status;
    status = hal_expand(op, NULL, used, ask_part, q);
    if (status != MH_NOT_FOUND)
        return status;
    q->all_native = false;
    q->weights_on_host |= weights_of(q, op);
    return MH_OK;
}

/* Can the host run it in the device's place? */
static mh_status ask_host(mh_device *device, const mh_op *op, mh_support *answer)
{
    mh_device *host;
    mh_status status = mh_device_host(device, &host);
    if (status)
        return status;
    uint32_t missing;
    char reason[192];
    status = backend_supports(host, op, &missing, reason);
    if (status || !missing)
        return status;
    answer->runs = MH_RUNS_NOWHERE;
    answer->missing = missing;
    memcpy(answer->reason, reason, sizeof(reason));
    return MH_OK;
}

static mh_status ask(mh_device *device, const mh_op *op, mh_support *answer)
{
    *answer = MH_INIT(mh_support);
    mh_status status = backend_supports(device, op, &answer->missing, answer->reason);
    if (status)
        return status;
    if (!answer->missing) {
        answer->runs = MH_RUNS_NATIVE;
        return MH_OK;
    }
    struct question question = {device, op, true, 0};
    status = hal_expand(op, NULL, 0, ask_part, &question);
    if (status == MH_NOT_FOUND) {
        answer->runs = MH_RUNS_ON_HOST;
        answer->weights_on_host = weights_of(&question, op);
        status = MH_OK;
    } else {
        answer->runs = question.all_native ? MH_RUNS_EXPANDED : MH_RUNS_ON_HOST;
        answer->weights_on_host = question.weights_on_host;
    }
    if (!status && answer->runs == MH_RUNS_ON_HOST)
        status = ask_host(device, op, answer);
    return status;
}

static __attribute__((cold)) mh_status read_other_op(mh_device *device, const mh_op **caller,
                                                     union hal_any_op *local)
{
    const mh_op *op = *caller;
    if (!op)
        return mh_fail(MH_INVALID_ARGUMENT, "op: is NULL");
    if (op->struct_size < sizeof(*op))
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "op: struct_size is %u, less than an op's head", (uint32_t)op->struct_size);
    const struct hal_op_info *info = hal_op_find(op->op);
    if (!info)
        return hal_fail(device->runtime, MH_UNSUPPORTED, "op: id %u is unknown to this library",
                        op->op);
    *caller = &local->base;
    return mh_struct_in(local, op, info->size, info->name);
}

/* Checks the head of the caller's op. *op becomes a copy of this library's version if it is of
 * another one. */
static inline mh_status read_op(mh_device *device, const mh_op **op, union hal_any_op *local)
{
    bool has_head = *op && (*op)->struct_size >= sizeof(**op);
    const struct hal_op_info *info = has_head ? hal_op_find((*op)->op) : NULL;
    return info && (*op)->struct_size == info->size ? MH_OK : read_other_op(device, op, local);
}

/* ---- kernels of the embedder's own: here or nowhere ---- */

static mh_status read_kernel(mh_device *device, const mh_op *op, bool question, mh_op_kernel *local,
                             char reason[192], uint32_t *missing)
{
    mh_status status = mh_struct_in(local, op, sizeof(*local), "kernel");
    if (!status)
        status = hal_validate_kernel(device, local, question);
    return status ? status : backend_supports(device, &local->base, missing, reason);
}

static mh_status ask_kernel(mh_device *device, const mh_op *op, mh_support *answer)
{
    mh_op_kernel local;
    *answer = MH_INIT(mh_support);
    mh_status status = read_kernel(device, op, true, &local, answer->reason, &answer->missing);
    answer->runs = answer->missing ? MH_RUNS_NOWHERE : MH_RUNS_NATIVE;
    return status;
}

mh_status mh_device_supports(mh_device *device, const mh_op *op, mh_support *out)
{
    if (!device)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_supports: device is NULL");
    union hal_any_op local;
    mh_support answer;
    int64_t rows;
    mh_status status = hal_check_device(device, device->generation, "device");
    if (!status && op && op->op == MH_OP_KERNEL) {
        status = ask_kernel(device, op, &answer);
        return status ? status : mh_struct_out(out, &answer, sizeof(answer));
    }
    if (!status)
        status = read_op(device, &op, &local);
    if (!status)
        status = hal_validate(device, op, true, &rows);
    if (!status)
        status = ask(device, op, &answer);
    return status ? status : mh_struct_out(out, &answer, sizeof(answer));
}

/* ---- placing ---- */

uint64_t hal_scratch_of(mh_device *device, const mh_op *op)
{
    uint64_t bytes =
        device->table->scratch ? device->table->scratch->op_scratch(device->handle, op) : 0;
    return (bytes + 255) & ~UINT64_C(255);
}

mh_status hal_stream_native(mh_stream *stream, mh_encoder *arena_owner, const mh_op *op,
                            uint64_t scratch_offset, uint64_t scratch_size)
{
    mh_device *device = stream->encoder.device;
    const mh_buffer_view *arena = &arena_owner->arena.view;
    mh_scratch scratch = {0};
    mh_status cancelled = hal_stream_cancelled(stream);
    if (cancelled)
        return cancelled;
    if (scratch_size)
        scratch =
            (mh_scratch){arena->handle, arena->host ? (char *)arena->host + scratch_offset : NULL,
                         scratch_offset, scratch_size};
    uint64_t number = atomic_fetch_add_explicit(&device->sequence, 1, memory_order_relaxed) + 1;
    atomic_store_explicit(&stream->last, number, memory_order_release);
    uint64_t launches = atomic_load_explicit(&stream->native, memory_order_relaxed);
    atomic_store_explicit(&stream->native, launches + 1, memory_order_relaxed);
    return hal_backend_status(device, device->table->encode(stream->handle, op, &scratch));
}

static mh_status place_native(mh_encoder *encoder, const mh_op *op, uint64_t base, uint64_t scratch)
{
    if (encoder->is_graph)
        return hal_graph_add(encoder, op, base, scratch, false);
    mh_status status = hal_buffer_grow(&encoder->arena, base + scratch);
    return status ? status : hal_stream_native((mh_stream *)encoder, encoder, op, base, scratch);
}

static mh_status place_on_host(mh_encoder *encoder, const mh_op *op, const char *reason)
{
    mh_device *device = encoder->device;
    char label[160];
    hal_op_label(op, label, sizeof(label));
    if (device->is_host)
        return hal_fail(device->runtime, MH_UNSUPPORTED, "%s: not on %s: %s", label, device->uri,
                        reason);
    if (device->params.placement == MH_PLACEMENT_STRICT)
        return hal_fail(device->runtime, MH_UNSUPPORTED,
                        "%s: would fall back to the host, which strict placement forbids; %s: %s",
                        label, device->uri, reason);
    const struct hal_op_info *info = hal_op_find(op->op);
    for (uint32_t i = 0; i < info->operand_count; i++)
        if (info->operands[i].kind == HAL_WEIGHT && hal_weight_at(op, &info->operands[i]) &&
            hal_weight_at(op, &info->operands[i])->device == device)
            return hal_fail(device->runtime, MH_UNSUPPORTED,
                            "%s: runs on the host, but its weight %s lives on %s: create it on "
                            "mh_device_host() (mh_support.weights_on_host)",
                            label, info->operands[i].name, device->uri);
    if (encoder->is_graph)
        return hal_graph_add(encoder, op, 0, 0, true);
    return hal_fallback_run((mh_stream *)encoder, op);
}

/* The parts of an expansion: first measured, since temporaries must not move between parts, then
 * placed. */
struct placing {
    mh_encoder *encoder;
    bool measuring;
    uint64_t arena; /* bytes that all parts together want */
};

static mh_status place_part(void *context, const mh_op *op, uint64_t used)
{
    struct placing *p = context;
    mh_device *device = p->encoder->device;
    bool native;
    char reason[192];
    mh_status status = runs_natively(device, op, &native, reason);
    if (status)
        return status;
    uint64_t scratch = native ? hal_scratch_of(device, op) : 0;
    p->arena = used + scratch > p->arena ? used + scratch : p->arena;
    if (native)
        return p->measuring ? MH_OK : place_native(p->encoder, op, used, scratch);
    status = hal_expand(op, &p->encoder->arena, used, place_part, p);
    if (status == MH_NOT_FOUND)
        status = p->measuring ? MH_OK : place_on_host(p->encoder, op, reason);
    return status;
}

static mh_status place(mh_encoder *encoder, const mh_op *op)
{
    mh_device *device = encoder->device;
    bool native;
    char reason[192];
    mh_status status = runs_natively(device, op, &native, reason);
    if (status)
        return status;
    if (native)
        return place_native(encoder, op, 0, hal_scratch_of(device, op));
    struct placing placing = {.encoder = encoder, .measuring = true};
    status = hal_expand(op, &encoder->arena, 0, place_part, &placing);
    if (status == MH_NOT_FOUND)
        return place_on_host(encoder, op, reason);
    if (!status)
        status = encoder->is_graph ? hal_graph_reserve(encoder, placing.arena)
                                   : hal_buffer_grow(&encoder->arena, placing.arena);
    if (status)
        return status;
    atomic_fetch_add_explicit(&device->expanded, 1, memory_order_relaxed);
    placing.measuring = false;
    return hal_expand(op, &encoder->arena, 0, place_part, &placing);
}

/* What is a launch of its own, on the device or nowhere. */
static mh_status place_alone(mh_encoder *encoder, const mh_op *op)
{
    mh_status status = encoder->is_graph ? hal_graph_count_op(encoder) : MH_OK;
    if (status)
        return status;
    if (!encoder->is_graph)
        hal_collect(encoder->device, (mh_stream *)encoder);
    return place_native(encoder, op, 0, hal_scratch_of(encoder->device, op));
}

static mh_status encode_kernel(mh_encoder *encoder, const mh_op *op)
{
    mh_device *device = encoder->device;
    mh_op_kernel local;
    uint32_t missing = MH_MISSING_NOTHING;
    char reason[192], label[160];
    mh_status status = read_kernel(device, op, false, &local, reason, &missing);
    if (!status && missing)
        status = hal_fail(device->runtime, MH_UNSUPPORTED, "%s: not on %s: %s",
                          hal_op_label(op, label, sizeof(label)), device->uri, reason);
    return status ? status : place_alone(encoder, &local.base);
}

mh_status hal_encode_exchange(mh_encoder *encoder, const mh_op_exchange *op)
{
    mh_device *device = encoder->device;
    uint32_t missing = MH_MISSING_NOTHING;
    char reason[192];
    mh_status status = hal_check_device(device, encoder->generation, "encoder");
    if (!status)
        status = backend_supports(device, &op->base, &missing, reason);
    if (!status && missing)
        status = hal_fail(device->runtime, MH_UNSUPPORTED, "exchange: not on %s: %s", device->uri,
                          reason);
    return status ? status : place_alone(encoder, &op->base);
}

mh_status mh_encode(mh_encoder *encoder, const mh_op *op)
{
    if (!encoder)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_encode: encoder is NULL");
    mh_device *device = encoder->device;
    union hal_any_op local;
    int64_t rows = 0;
    mh_status status = hal_check_device(device, encoder->generation, "encoder");
    if (!status && op && op->op == MH_OP_KERNEL)
        return encode_kernel(encoder, op);
    if (!status)
        status = read_op(device, &op, &local);
    if (!status)
        status = hal_validate(device, op, false, &rows);
    if (!status && encoder->is_graph)
        status = hal_graph_count_op(encoder);
    if (status || !rows)
        return status;
    if (!encoder->is_graph)
        hal_collect(device, (mh_stream *)encoder);
    return place(encoder, op);
}
