/* run_case.c: one op case on the device and, unless that is the device, on the host. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "suite.h"

/* ---- sides ---- */

mh_status conf_side_open(struct conf_side *side, mh_runtime *runtime, const char *uri,
                         uint32_t placement, uint32_t threads)
{
    mh_device_params params = MH_INIT(mh_device_params);
    params.placement = placement, params.threads = threads;
    params.checks = MH_CHECK_BACKEND;
    mh_status status = mh_device_open(runtime, uri, &params, &side->device);
    return status ? status : mh_stream_create(side->device, &side->stream);
}

void conf_side_close(struct conf_side *side)
{
    for (int i = 0; i < BUILD_OPERANDS; i++) {
        mh_buffer_release(side->buffers[i]);
        free(side->after[i]);
    }
    mh_stream_release(side->stream);
    mh_device_release(side->device);
    *side = (struct conf_side){0};
}

static mh_status make_room(struct conf_side *side, uint32_t i, uint64_t bytes)
{
    if (bytes <= side->room[i])
        return MH_OK;
    /* The first one just as large, so that a case alone shows who reads past its end. */
    uint64_t room = side->room[i] ? bytes + bytes / 2 + 4096 : bytes;
    mh_buffer_release(side->buffers[i]);
    free(side->after[i]);
    side->buffers[i] = NULL;
    side->room[i] = 0;
    side->after[i] = malloc(room);
    if (!side->after[i])
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %llu bytes",
                       (unsigned long long)room);
    mh_status status = mh_buffer_create(side->device, room, MH_BUFFER_DEVICE, &side->buffers[i]);
    if (!status)
        side->room[i] = room;
    return status;
}

mh_status conf_side_upload(struct conf_side *side, const struct conf_build *b)
{
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < b->buffer_count; i++) {
        status = make_room(side, i, b->bytes[i]);
        if (!status)
            status = mh_buffer_write(side->buffers[i], 0, b->image[i], b->bytes[i]);
    }
    return status;
}

mh_status conf_side_download(struct conf_side *side, const struct conf_build *b)
{
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < b->buffer_count; i++)
        status = mh_buffer_read(side->buffers[i], 0, side->after[i], b->bytes[i]);
    return status;
}

mh_status conf_side_run(struct conf_side *side, const struct conf_build *b, union conf_op *op,
                        mh_weight **weights)
{
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < b->weight_count; i++)
        status = conf_weight_create(&b->weights[i], side->device, true, &weights[i]);
    if (!status)
        status = conf_side_upload(side, b);
    if (status)
        return status;
    conf_op_for(b, side->buffers, weights, op);
    status = mh_encode(mh_stream_encoder(side->stream), &op->base);
    if (!status)
        status = mh_stream_wait(side->stream, MH_FOREVER);
    return status ? status : conf_side_download(side, b);
}

/* ---- judging ---- */

/* Everything but elements that the op may write is as it was; their bytes are masked in `image`,
 * which is a copy. */
static bool nothing_else_changed(const struct conf_build *b, uint8_t *const *after, char *message,
                                 size_t size)
{
    for (uint32_t i = 0; i < b->buffer_count; i++) {
        uint8_t *expected = malloc(b->bytes[i]);
        if (!expected)
            continue;
        memcpy(expected, b->image[i], b->bytes[i]);
        for (uint32_t o = 0; o < b->operand_count; o++) {
            const struct conf_operand *operand = &b->operands[o];
            uint64_t bytes = mh_dtype_size(operand->view.dtype);
            if (operand->buffer != i || !(operand->info.flags & MH_OPERAND_WRITTEN))
                continue;
            for (int64_t k = 0, n = conf_count(operand); k < n; k++) {
                uint64_t at = conf_element(operand, k);
                memcpy(expected + at, after[i] + at, bytes);
            }
        }
        uint64_t at = 0;
        bool same = !memcmp(expected, after[i], b->bytes[i]);
        while (!same && expected[at] == after[i][at])
            at++;
        free(expected);
        if (!same) {
            snprintf(message, size, "wrote outside its outputs, at byte %llu of buffer %u",
                     (unsigned long long)at, i);
            return false;
        }
    }
    return true;
}

static bool is_nan(mh_dtype dtype, const uint8_t *at)
{
    return (dtype == MH_F32 || dtype == MH_F16 || dtype == MH_BF16) &&
           isnan(conf_decode(dtype, at));
}

bool conf_same_bits(const struct conf_build *b, uint8_t *const *mine, uint8_t *const *other,
                    const char *whose, char *message, size_t size)
{
    for (uint32_t o = 0; o < b->operand_count; o++) {
        const struct conf_operand *operand = &b->operands[o];
        mh_dtype dtype = operand->view.dtype;
        uint64_t bytes = mh_dtype_size(dtype);
        if (!(operand->info.flags & MH_OPERAND_WRITTEN))
            continue;
        for (int64_t k = 0, n = conf_count(operand); k < n; k++) {
            uint64_t at = conf_element(operand, k);
            const uint8_t *a = mine[operand->buffer] + at, *h = other[operand->buffer] + at;
            uint32_t got = 0, wanted = 0;
            if (!memcmp(a, h, bytes) || (is_nan(dtype, a) && is_nan(dtype, h)))
                continue;
            memcpy(&got, a, bytes);
            memcpy(&wanted, h, bytes);
            bool real = dtype == MH_F32 || dtype == MH_BF16 || dtype == MH_F16;
            snprintf(message, size, "%s, element %lld of %lld: %08x (%.9g), %s has %08x (%.9g)",
                     operand->info.name, (long long)k, (long long)n, got,
                     real ? conf_decode(dtype, a) : (double)(int32_t)got, whose, wanted,
                     real ? conf_decode(dtype, h) : (double)(int32_t)wanted);
            return false;
        }
    }
    return true;
}

static bool matches_reference(struct conf_build *b, uint8_t *const *after, char *message,
                              size_t size)
{
    struct conf_reference reference;
    bool ok = conf_reference_make(&reference, b);
    if (!ok)
        snprintf(message, size, "no host memory for the reference");
    ok = ok && conf_reference_check(&reference, after, message, size);
    conf_reference_free(&reference);
    return ok;
}

/* ---- the case ---- */

static mh_status ask(struct conf_suite *s, const struct conf_build *b, struct conf_result *result,
                     mh_support *answer)
{
    mh_weight *weights[BUILD_WEIGHTS] = {0};
    union conf_op op;
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < b->weight_count; i++)
        status = conf_weight_create(&b->weights[i], s->device.device, false, &weights[i]);
    conf_op_for(b, NULL, weights, &op);
    if (!status)
        status = mh_device_supports(s->device.device, &op.base, answer);
    for (int i = 0; i < BUILD_WEIGHTS; i++)
        mh_weight_release(weights[i]);
    if (status)
        return status;
    result->expanded = answer->runs == MH_RUNS_EXPANDED;
    result->native = answer->runs == MH_RUNS_NATIVE || result->expanded;
    if (!result->native) {
        result->outcome = answer->runs == MH_RUNS_ON_HOST ? CONF_FALLBACK : CONF_MISSING;
        snprintf(result->message, sizeof(result->message), "%s", answer->reason);
    }
    return MH_OK;
}

static bool run_and_judge(struct conf_suite *s, struct conf_build *b, char *message, size_t size)
{
    mh_weight *mine[BUILD_WEIGHTS] = {0}, *theirs[BUILD_WEIGHTS] = {0};
    union conf_op op, other;
    bool ok = !conf_side_run(&s->device, b, &op, mine) &&
              (s->is_host || !conf_side_run(&s->host, b, &other, theirs));
    if (!ok) {
        snprintf(message, size, "%s", mh_last_message());
    } else {
        ok = nothing_else_changed(b, s->device.after, message, size);
        if (ok && !s->is_host)
            ok = conf_same_bits(b, s->device.after, s->host.after, "the host", message, size);
        if (ok && s->is_host)
            ok = matches_reference(b, s->device.after, message, size) &&
                 conf_check_relations(&s->device, b, &op, message, size);
    }
    for (int i = 0; i < BUILD_WEIGHTS; i++) {
        mh_weight_release(mine[i]);
        mh_weight_release(theirs[i]);
    }
    return ok;
}

void conf_run_case(struct conf_suite *s, const struct conf_case *c, struct conf_result *result)
{
    struct conf_build b;
    mh_support answer = MH_INIT(mh_support);
    static const char no_memory[] = "no host memory for the case";
    result->outcome = CONF_FAILED;
    if (!conf_build_make(&b, c)) {
        memcpy(result->message, no_memory, sizeof(no_memory));
    } else if (ask(s, &b, result, &answer)) {
        snprintf(result->message, sizeof(result->message), "%s", mh_last_message());
    } else if (result->native && run_and_judge(s, &b, result->message, sizeof(result->message))) {
        result->outcome = CONF_PASSED;
        result->message[0] = 0;
    }
    conf_build_free(&b);
}
