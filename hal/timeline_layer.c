/*
 * timeline_layer.c: the layer that tells a timeline what the backend is asked to do, and for how
 * long. It has no graphs of the backend's own, so that each op is seen, and no gates or exchange:
 * the core does without, and what it does then is seen. Waits of a stream for an event end where
 * they begin.
 */
#include <stdio.h>
#include <string.h>

#include "timeline.h"

struct hal_timeline_layer {
    struct hal_layer base; /* first */
    mh_timeline *timeline;
    uint32_t number;           /* the device's */
    bool synchronous;          /* an op is done when encode returns */
    atomic_uint streams;       /* made so far */
    atomic_uint_fast64_t used; /* bytes of buffers */
};

struct lane {
    struct hal_layer_stream base; /* first */
    uint32_t number;
    atomic_uint failed; /* what waiting for an op said; the next wait's answer */
};

static struct hal_timeline_layer *layer_of(const struct lane *s)
{
    return (struct hal_timeline_layer *)s->base.layer;
}

static void put(struct lane *s, const char *type, const char *name, uint32_t lane, uint64_t begin,
                const char *details)
{
    const struct timeline_event e = {
        type,  name,    layer_of(s)->number, TIMELINE_STREAMS + 2 * (s->number - 1) + lane,
        begin, details,
    };
    timeline_put(layer_of(s)->timeline, &e);
}

/* ---- work ---- */

/* So that an op's end is its own. */
static mh_status settle(struct lane *s)
{
    uint64_t mark;
    if (layer_of(s)->synchronous)
        return MH_OK;
    mh_status status = s->base.layer->below->mark(s->base.below, &mark);
    if (!status)
        status = s->base.layer->below->wait(s->base.below, mark, MH_FOREVER);
    if (status)
        s->failed = status;
    return status;
}

/* ,"op":"linear","layer":3,"label":"q_proj","rows":1,"weights":"bf16 [3072, 2048]" */
static void describe(const mh_op *op, char *text, size_t size)
{
    char label[160] = "null";
    mh_operand info = MH_INIT(mh_operand);
    if (op->label)
        timeline_quote(op->label, label, sizeof(label));
    int used = snprintf(text, size, ",\"op\":\"%s\",\"layer\":%d,\"label\":%s", mh_op_name(op->op),
                        op->layer, label);
    bool rows = false;
    for (uint32_t i = 0; used < (int)size && !mh_op_operand(op->op, i, &info); i++) {
        const void *field = (const char *)op + info.offset;
        const mh_tensor *t = field;
        if (info.flags & MH_OPERAND_WEIGHT) {
            const mh_weight *weight = *(mh_weight *const *)field;
            const mh_weight_view *w = weight ? mh_view_weight(weight) : NULL;
            if (w)
                used +=
                    snprintf(text + used, size - (size_t)used, ",\"%s\":\"%s [%lld, %lld, %lld]\"",
                             info.name, mh_format_name(w->format), (long long)w->experts,
                             (long long)w->out, (long long)w->in);
        } else if (!rows && t->rank && info.shape[0] == 'T') {
            rows = true;
            used += snprintf(text + used, size - (size_t)used, ",\"rows\":%lld",
                             (long long)t->shape[0]);
        }
    }
}

static mh_status encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct lane *s = user;
    char name[128], details[512];
    uint64_t begin = mh_timeline_now(layer_of(s)->timeline);
    mh_status status = s->base.layer->below->encode(s->base.below, op, scratch);
    if (status || settle(s))
        return status;
    snprintf(name, sizeof(name), "%s%s%s", mh_op_name(op->op), op->label ? " " : "",
             op->label ? op->label : "");
    describe(op, details, sizeof(details));
    put(s, "op", name, 0, begin, details);
    return MH_OK;
}

static mh_status copy(void *user, const mh_copy *c)
{
    static const char *const names[] = {"?", "to device", "to host", "on device"};
    struct lane *s = user;
    char details[64];
    uint64_t begin = mh_timeline_now(layer_of(s)->timeline);
    mh_status status = s->base.layer->below->copy(s->base.below, c);
    if (status || settle(s))
        return status;
    snprintf(details, sizeof(details), ",\"bytes\":%llu", (unsigned long long)c->size);
    put(s, "copy", names[c->direction <= MH_COPY_ON_DEVICE ? c->direction : 0], 0, begin, details);
    return MH_OK;
}

static mh_status wait_for(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct lane *s = user;
    uint64_t begin = mh_timeline_now(layer_of(s)->timeline);
    mh_status status = s->failed;
    if (!status)
        status = s->base.layer->below->wait(s->base.below, sequence, timeout_ns);
    if (timeout_ns) /* a poll is no wait */
        put(s, "wait", "wait", 1, begin, status ? ",\"done\":false" : ",\"done\":true");
    return status;
}

static mh_status event_wait(void *user, void *event)
{
    struct lane *s = user;
    uint64_t begin = mh_timeline_now(layer_of(s)->timeline);
    mh_status status = s->base.layer->below->event->wait(s->base.below, event);
    if (status || settle(s))
        return status;
    put(s, "wait", "event", 0, begin, "");
    return MH_OK;
}

/* ---- streams ---- */

static mh_status name_lane(struct hal_timeline_layer *l, mh_status status, void **out)
{
    char name[32];
    if (status)
        return status;
    struct lane *s = *out;
    s->number = atomic_fetch_add(&l->streams, 1) + 1;
    snprintf(name, sizeof(name), "stream %u", s->number);
    timeline_add_lane(l->timeline, l->number, 2 * s->number - 1, name);
    snprintf(name, sizeof(name), "stream %u, waits", s->number);
    timeline_add_lane(l->timeline, l->number, 2 * s->number, name);
    return MH_OK;
}

static mh_status stream_create(void *user, void **out)
{
    return name_lane(user, hal_layer_add_stream(user, NULL, out), out);
}

static mh_status wrap_stream(void *user, uint64_t native, void **out)
{
    return name_lane(user, hal_layer_add_stream(user, &native, out), out);
}

/* ---- memory ---- */

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct hal_timeline_layer *l = user;
    mh_status status = l->base.below->buffer_create(l->base.handle, size, kind, out);
    if (!status)
        timeline_put_memory(l->timeline, l->number, atomic_fetch_add(&l->used, size) + size);
    return status;
}

static void buffer_destroy(void *user, mh_buffer_view *buffer)
{
    struct hal_timeline_layer *l = user;
    uint64_t size = buffer->size;
    l->base.below->buffer_destroy(l->base.handle, buffer);
    timeline_put_memory(l->timeline, l->number, atomic_fetch_sub(&l->used, size) - size);
}

/* ---- life ---- */

static mh_status reset(void *user)
{
    struct hal_timeline_layer *l = user;
    hal_layer_drop_streams(&l->base);
    l->used = 0;
    return l->base.below->reset->reset(l->base.handle);
}

static void device_close(void *user)
{
    struct hal_timeline_layer *l = user;
    l->base.below->device_close(l->base.handle);
    mh_timeline_release(l->timeline);
    hal_layer_finish(&l->base);
}

mh_status hal_timeline_wrap(mh_device *device, mh_timeline *timeline)
{
    if (timeline_runtime(timeline) != device->runtime)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_device_params: timeline is of another runtime");
    struct hal_timeline_layer *l = hal_alloc(device->runtime, sizeof(*l));
    if (!l)
        return MH_OUT_OF_MEMORY;
    l->timeline = mh_timeline_retain(timeline);
    l->number = timeline_add_device(timeline, device);
    l->synchronous = device->info.flags & MH_DEVICE_SYNCHRONOUS;
    hal_layer_init(&l->base, device, sizeof(struct lane));
    mh_backend_table *t = &l->base.table;
    t->device_close = device_close;
    t->buffer_create = buffer_create, t->buffer_destroy = buffer_destroy;
    t->stream_create = stream_create;
    t->copy = copy, t->wait = wait_for, t->encode = encode;
    t->graph = NULL, t->gate = NULL, t->peer = NULL;
    l->base.event.wait = event_wait;
    l->base.reset.reset = reset;
    l->base.wrap.stream = wrap_stream;
    device->timeline = l;
    return MH_OK;
}

uint64_t hal_timeline_begin(const mh_device *device)
{
    return device->timeline ? mh_timeline_now(device->timeline->timeline) : 0;
}

void hal_timeline_launch(const mh_device *device, uint64_t nodes, uint64_t begin)
{
    const struct hal_timeline_layer *l = device->timeline;
    char details[64];
    if (!l)
        return;
    snprintf(details, sizeof(details), ",\"nodes\":%llu", (unsigned long long)nodes);
    const struct timeline_event e = {
        "launch", "launch", l->number, TIMELINE_LAUNCHES, begin, details,
    };
    timeline_put(l->timeline, &e);
}
