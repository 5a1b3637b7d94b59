/*
 * check.c: a layer that holds what a backend answers against backend.h: for whoever writes one. An
 * answer that cannot be is MH_INTERNAL, with the call, the answer and what it must be.
 */
#include <stdio.h>
#include <string.h>

#include "hal.h"

struct check_stream {
    struct hal_layer_stream base; /* first */
    uint64_t mark;                /* the newest */
};

#define LAYER(user) ((struct hal_layer *)(user))
#define WRONG(l, ...) hal_fail((l)->runtime, MH_INTERNAL, "check: " __VA_ARGS__)

/* Passes a status through if it is one. A failure's words are the backend's to give. */
static mh_status known(struct hal_layer *l, const char *call, mh_status status)
{
    if (status > MH_INTERNAL)
        return WRONG(l, "%s: %s returns status %u, which there is not", l->below->name, call,
                     status);
    return status;
}

static mh_status memory_info(void *user, uint64_t *total, uint64_t *available)
{
    struct hal_layer *l = user;
    mh_status status = known(l, "memory_info", l->below->memory_info(l->handle, total, available));
    if (!status && *total && *available > *total)
        return WRONG(l, "%s: memory_info says that %llu bytes of %llu are available",
                     l->below->name, (unsigned long long)*available, (unsigned long long)*total);
    return status;
}

static mh_status check_view(struct hal_layer *l, const char *call, const mh_buffer_view *view)
{
    if (!view->handle)
        return WRONG(l, "%s: %s succeeds with handle NULL", l->below->name, call);
    if ((uintptr_t)view->host % 256)
        return WRONG(l, "%s: %s gives host address %p, must be aligned to 256", l->below->name,
                     call, view->host);
    return MH_OK;
}

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct hal_layer *l = user;
    mh_status status =
        known(l, "buffer_create", l->below->buffer_create(l->handle, size, kind, out));
    if (status)
        return status;
    status = check_view(l, "buffer_create", out);
    if (status && out->handle)
        l->below->buffer_destroy(l->handle, out);
    return status;
}

/* ---- streams ---- */

static mh_status stream_create(void *user, void **out)
{
    struct hal_layer *l = user;
    mh_status status = known(l, "stream_create", hal_layer_add_stream(l, NULL, out));
    if (!status && !((struct hal_layer_stream *)*out)->below)
        return WRONG(l, "%s: stream_create succeeds with stream NULL", l->below->name);
    return status;
}

static mh_status copy(void *user, const mh_copy *c)
{
    struct check_stream *s = user;
    struct hal_layer *l = s->base.layer;
    return known(l, "copy", l->below->copy(s->base.below, c));
}

static mh_status mark(void *user, uint64_t *sequence)
{
    struct check_stream *s = user;
    struct hal_layer *l = s->base.layer;
    mh_status status = known(l, "mark", l->below->mark(s->base.below, sequence));
    if (status)
        return status;
    if (*sequence <= s->mark)
        return WRONG(l, "%s: mark gives %llu after %llu, must be larger", l->below->name,
                     (unsigned long long)*sequence, (unsigned long long)s->mark);
    s->mark = *sequence;
    return MH_OK;
}

static mh_status wait_for(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct check_stream *s = user;
    struct hal_layer *l = s->base.layer;
    mh_status status = known(l, "wait", l->below->wait(s->base.below, sequence, timeout_ns));
    if (status == MH_TIMEOUT && timeout_ns == MH_FOREVER)
        return WRONG(l, "%s: wait times out although it may take for ever", l->below->name);
    return status;
}

/* ---- ops ---- */

static mh_status ask(struct hal_layer *l, const mh_op *op, uint32_t *missing, char reason[192])
{
    const char *name = mh_op_name(op->op);
    *missing = MH_MISSING_NOTHING;
    memset(reason, '?', 192); /* an end that the backend forgets is not there by chance */
    reason[0] = 0;
    mh_status status = known(l, "supports", l->below->supports(l->handle, op, missing, reason));
    if (status)
        return status;
    if (*missing > MH_MISSING_KERNEL)
        return WRONG(l, "%s: supports of %s says that %u is missing, which there is not",
                     l->below->name, name, *missing);
    if (!memchr(reason, 0, 192))
        return WRONG(l, "%s: supports of %s gives a reason that does not end", l->below->name,
                     name);
    if (*missing && !reason[0])
        return WRONG(l, "%s: supports of %s gives no reason", l->below->name, name);
    return MH_OK;
}

static mh_status supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    struct hal_layer *l = user;
    uint32_t again;
    char text[192] = "";
    mh_status status = ask(l, op, missing, reason);
    if (!status)
        status = ask(l, op, &again, text);
    if (!status && again != *missing)
        return WRONG(l, "%s: supports of %s says first %u, then %u is missing: it must be final",
                     l->below->name, mh_op_name(op->op), *missing, again);
    return status;
}

/* Scratch holds anything: NaN, an index of nothing, a count that is too large. */
static mh_status spoil(struct check_stream *s, const mh_scratch *scratch)
{
    struct hal_layer *l = s->base.layer;
    char *host = scratch->host;
    mh_buffer_view arena = {scratch->handle, scratch->offset + scratch->size,
                            host ? host - scratch->offset : NULL};
    mh_op_fill fill = MH_OP_INIT(fill, FILL);
    const int64_t shape[] = {(int64_t)(scratch->size / 4)};
    uint32_t missing;
    char reason[192];
    if (!shape[0])
        return MH_OK;
    fill.y = mh_tensor_make((mh_buffer *)(void *)&arena, scratch->offset, MH_U32, 1, shape);
    fill.bits = UINT32_MAX;
    mh_status status = ask(l, &fill.base, &missing, reason);
    if (!status && !missing)
        status = known(l, "encode", l->below->encode(s->base.below, &fill.base, &(mh_scratch){0}));
    return status;
}

static mh_status encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct check_stream *s = user;
    struct hal_layer *l = s->base.layer;
    uint32_t missing;
    char reason[192];
    mh_status status = ask(l, op, &missing, reason);
    if (!status && missing)
        return WRONG(l, "%s: encode of %s is met, but supports says now: %s", l->below->name,
                     mh_op_name(op->op), reason);
    if (!status && l->below->scratch) {
        uint64_t bytes = l->below->scratch->op_scratch(l->handle, op);
        if (bytes > scratch->size)
            return WRONG(l, "%s: op_scratch of %s said %llu, now %llu", l->below->name,
                         mh_op_name(op->op), (unsigned long long)scratch->size,
                         (unsigned long long)bytes);
    }
    if (!status)
        status = spoil(s, scratch);
    if (!status)
        status = known(l, "encode", l->below->encode(s->base.below, op, scratch));
    if (status == MH_UNSUPPORTED)
        return WRONG(l, "%s: encode of %s is unsupported, but supports said yes", l->below->name,
                     mh_op_name(op->op));
    return status;
}

/* ---- groups ---- */

static mh_status graph_create(void *user, const mh_op *const *ops, const mh_scratch *scratch,
                              uint32_t count, void **graph)
{
    struct hal_layer *l = user;
    *graph = NULL;
    mh_status status =
        known(l, "graph.create", l->below->graph->create(l->handle, ops, scratch, count, graph));
    return status || *graph ? status
                            : WRONG(l, "%s: graph.create succeeds with NULL", l->below->name);
}

static mh_status event_create(void *user, void **event)
{
    struct hal_layer *l = user;
    *event = NULL;
    mh_status status = known(l, "event.create", l->below->event->create(l->handle, event));
    return status || *event ? status
                            : WRONG(l, "%s: event.create succeeds with NULL", l->below->name);
}

static mh_status wrap_buffer(void *user, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    struct hal_layer *l = user;
    mh_status status =
        known(l, "wrap.buffer", l->below->wrap->buffer(l->handle, native, size, out));
    return status || out->handle
               ? status
               : WRONG(l, "%s: wrap.buffer succeeds with handle NULL", l->below->name);
}

static mh_status wrap_event(void *user, uint64_t native, void **event)
{
    struct hal_layer *l = user;
    *event = NULL;
    mh_status status =
        known(l, "wrap_event.event", l->below->wrap_event->event(l->handle, native, event));
    return status || *event ? status
                            : WRONG(l, "%s: wrap_event.event succeeds with NULL", l->below->name);
}

static mh_status native_event(void *user, void *event, uint64_t *native)
{
    struct hal_layer *l = user;
    *native = 0;
    mh_status status =
        known(l, "wrap_event.native", l->below->wrap_event->native(l->handle, event, native));
    return status || *native ? status
                             : WRONG(l, "%s: wrap_event.native succeeds with 0", l->below->name);
}

mh_status hal_check_wrap(mh_device *device)
{
    struct hal_layer *l = hal_alloc(device->runtime, sizeof(*l));
    if (!l)
        return MH_OUT_OF_MEMORY;
    hal_layer_init(l, device, sizeof(struct check_stream));
    l->table.memory_info = memory_info;
    l->table.buffer_create = buffer_create;
    l->table.stream_create = stream_create;
    l->table.copy = copy;
    l->table.mark = mark;
    l->table.wait = wait_for;
    l->table.supports = supports;
    l->table.encode = encode;
    l->graph.create = graph_create;
    l->event.create = event_create;
    l->wrap.buffer = wrap_buffer;
    l->wrap_event.event = wrap_event, l->wrap_event.native = native_event;
    return MH_OK;
}
