/*
 * timeline_layer.c: the layer that tells a timeline what the backend is asked to do, and for how
 * long. It has no graphs of the backend's own, so that each op is seen, and no events or gates: the
 * core does without, and what it does then is seen.
 */
#include <stdio.h>
#include <string.h>

#include "timeline.h"

struct hal_timeline_layer {
    mh_backend_table table; /* the wrapped one; what device->table points to */
    mh_backend_scratch scratch;
    mh_backend_import import;
    mh_backend_reset reset;
    mh_backend_wrap wrap;
    mh_backend_module module;
    mh_backend_counters counters;
    const mh_backend_table *below;
    void *device; /* below's */
    mh_runtime *runtime;
    mh_timeline *timeline;
    uint32_t number;      /* the device's */
    bool synchronous;     /* an op is done when encode returns */
    atomic_uint streams;  /* made so far */
    pthread_mutex_t lock; /* guards the list */
    struct lane *lanes;
    atomic_uint_fast64_t used; /* bytes of buffers */
};

struct lane {
    struct hal_timeline_layer *layer;
    void *below;
    uint32_t number;
    struct lane *next;
    atomic_uint failed; /* what waiting for an op said; the next wait's answer */
};

static void put(struct lane *s, const char *type, const char *name, uint32_t lane, uint64_t begin,
                const char *details)
{
    const struct timeline_event e = {
        type, name, s->layer->number, TIMELINE_STREAMS + 2 * (s->number - 1) + lane, begin, details,
    };
    timeline_put(s->layer->timeline, &e);
}

/* ---- work ---- */

/* So that an op's end is its own. */
static mh_status settle(struct lane *s)
{
    uint64_t mark;
    if (s->layer->synchronous)
        return MH_OK;
    mh_status status = s->layer->below->mark(s->below, &mark);
    if (!status)
        status = s->layer->below->wait(s->below, mark, MH_FOREVER);
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
    uint64_t begin = mh_timeline_now(s->layer->timeline);
    mh_status status = s->layer->below->encode(s->below, op, scratch);
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
    uint64_t begin = mh_timeline_now(s->layer->timeline);
    mh_status status = s->layer->below->copy(s->below, c);
    if (status || settle(s))
        return status;
    snprintf(details, sizeof(details), ",\"bytes\":%llu", (unsigned long long)c->size);
    put(s, "copy", names[c->direction <= MH_COPY_ON_DEVICE ? c->direction : 0], 0, begin, details);
    return MH_OK;
}

static mh_status mark(void *user, uint64_t *sequence)
{
    struct lane *s = user;
    return s->layer->below->mark(s->below, sequence);
}

static mh_status wait_for(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct lane *s = user;
    uint64_t begin = mh_timeline_now(s->layer->timeline);
    mh_status status = s->failed;
    if (!status)
        status = s->layer->below->wait(s->below, sequence, timeout_ns);
    if (timeout_ns) /* a poll is no wait */
        put(s, "wait", "wait", 1, begin, status ? ",\"done\":false" : ",\"done\":true");
    return status;
}

/* ---- streams ---- */

/* Keeps a new lane, or frees it where the stream below was refused. */
static mh_status keep_lane(struct hal_timeline_layer *l, struct lane *s, mh_status status,
                           void **out)
{
    char name[32];
    if (status) {
        hal_free(l->runtime, s);
        return status;
    }
    s->layer = l;
    pthread_mutex_lock(&l->lock);
    s->next = l->lanes;
    l->lanes = s;
    pthread_mutex_unlock(&l->lock);
    s->number = atomic_fetch_add(&l->streams, 1) + 1;
    snprintf(name, sizeof(name), "stream %u", s->number);
    timeline_add_lane(l->timeline, l->number, 2 * s->number - 1, name);
    snprintf(name, sizeof(name), "stream %u, waits", s->number);
    timeline_add_lane(l->timeline, l->number, 2 * s->number, name);
    *out = s;
    return MH_OK;
}

static mh_status stream_create(void *user, void **out)
{
    struct hal_timeline_layer *l = user;
    struct lane *s = hal_alloc(l->runtime, sizeof(*s));
    if (!s)
        return MH_OUT_OF_MEMORY;
    return keep_lane(l, s, l->below->stream_create(l->device, &s->below), out);
}

static mh_status wrap_stream(void *user, uint64_t native, void **out)
{
    struct hal_timeline_layer *l = user;
    struct lane *s = hal_alloc(l->runtime, sizeof(*s));
    if (!s)
        return MH_OUT_OF_MEMORY;
    return keep_lane(l, s, l->below->wrap->stream(l->device, native, &s->below), out);
}

static void stream_destroy(void *user)
{
    struct lane *s = user;
    struct hal_timeline_layer *l = s->layer;
    pthread_mutex_lock(&l->lock);
    struct lane **link = &l->lanes;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    pthread_mutex_unlock(&l->lock);
    l->below->stream_destroy(s->below);
    hal_free(l->runtime, s);
}

/* ---- memory ---- */

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct hal_timeline_layer *l = user;
    mh_status status = l->below->buffer_create(l->device, size, kind, out);
    if (!status)
        timeline_put_memory(l->timeline, l->number, atomic_fetch_add(&l->used, size) + size);
    return status;
}

static void buffer_destroy(void *user, mh_buffer_view *buffer)
{
    struct hal_timeline_layer *l = user;
    uint64_t size = buffer->size;
    l->below->buffer_destroy(l->device, buffer);
    timeline_put_memory(l->timeline, l->number, atomic_fetch_sub(&l->used, size) - size);
}

/* ---- passed on ---- */

static mh_status memory_info(void *user, uint64_t *total, uint64_t *available)
{
    struct hal_timeline_layer *l = user;
    return l->below->memory_info(l->device, total, available);
}

static mh_status supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    struct hal_timeline_layer *l = user;
    return l->below->supports(l->device, op, missing, reason);
}

static uint64_t op_scratch(void *user, const mh_op *op)
{
    struct hal_timeline_layer *l = user;
    return l->below->scratch->op_scratch(l->device, op);
}

static mh_status import(void *user, void *memory, uint64_t size, mh_buffer_view *out)
{
    struct hal_timeline_layer *l = user;
    return l->below->import->import(l->device, memory, size, out);
}

static void forget(void *user, mh_buffer_view *buffer)
{
    struct hal_timeline_layer *l = user;
    l->below->import->forget(l->device, buffer);
}

static mh_status wrap_buffer(void *user, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    struct hal_timeline_layer *l = user;
    return l->below->wrap->buffer(l->device, native, size, out);
}

static void wrap_forget(void *user, mh_buffer_view *buffer)
{
    struct hal_timeline_layer *l = user;
    l->below->wrap->forget(l->device, buffer);
}

static mh_status module_load(void *user, const void *image, uint64_t size, const char *options,
                             char *log, uint64_t log_size, void **module)
{
    struct hal_timeline_layer *l = user;
    return l->below->module->load(l->device, image, size, options, log, log_size, module);
}

static void module_unload(void *user, void *module)
{
    struct hal_timeline_layer *l = user;
    l->below->module->unload(l->device, module);
}

static mh_status module_kernel(void *user, void *module, const char *name, void **kernel)
{
    struct hal_timeline_layer *l = user;
    return l->below->module->kernel(l->device, module, name, kernel);
}

static void kernel_destroy(void *user, void *kernel)
{
    struct hal_timeline_layer *l = user;
    l->below->module->kernel_destroy(l->device, kernel);
}

/* After a reset nobody destroys what was before it. */
static void drop_lanes(struct hal_timeline_layer *l)
{
    while (l->lanes) {
        struct lane *s = l->lanes;
        l->lanes = s->next;
        hal_free(l->runtime, s);
    }
}

static mh_status reset(void *user)
{
    struct hal_timeline_layer *l = user;
    drop_lanes(l);
    l->used = 0;
    return l->below->reset->reset(l->device);
}

static mh_status read_counter(void *user, uint32_t index, const char **name, uint64_t *value)
{
    struct hal_timeline_layer *l = user;
    return l->below->counters->read(l->device, index, name, value);
}

static void device_close(void *user)
{
    struct hal_timeline_layer *l = user;
    l->below->device_close(l->device);
    drop_lanes(l);
    pthread_mutex_destroy(&l->lock);
    mh_timeline_release(l->timeline);
    hal_free(l->runtime, l);
}

/* ---- life ---- */

mh_status hal_timeline_wrap(mh_device *device, mh_timeline *timeline)
{
    const mh_backend_table *below = device->table;
    if (timeline_runtime(timeline) != device->runtime)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_device_params: timeline is of another runtime");
    struct hal_timeline_layer *l = hal_alloc(device->runtime, sizeof(*l));
    if (!l)
        return MH_OUT_OF_MEMORY;
    pthread_mutex_init(&l->lock, NULL);
    l->below = below;
    l->device = device->handle;
    l->runtime = device->runtime;
    l->timeline = mh_timeline_retain(timeline);
    l->number = timeline_add_device(timeline, device);
    l->synchronous = device->info.flags & MH_DEVICE_SYNCHRONOUS;
    l->scratch = (mh_backend_scratch){sizeof(l->scratch), op_scratch};
    l->import = (mh_backend_import){sizeof(l->import), import, forget};
    l->reset = (mh_backend_reset){sizeof(l->reset), reset};
    l->wrap = (mh_backend_wrap){sizeof(l->wrap), wrap_stream, wrap_buffer, wrap_forget};
    l->module = (mh_backend_module){
        sizeof(l->module), module_load, module_unload, module_kernel, kernel_destroy,
    };
    l->counters = (mh_backend_counters){sizeof(l->counters), read_counter};
    l->table = (mh_backend_table){
        .struct_size = sizeof(l->table),
        .abi = below->abi,
        .name = below->name,
        .description = below->description,
        .init = below->init,
        .fini = below->fini,
        .device_info = below->device_info,
        .device_open = below->device_open,
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
        .scratch = below->scratch ? &l->scratch : NULL,
        .import = below->import ? &l->import : NULL,
        .reset = below->reset ? &l->reset : NULL,
        .wrap = below->wrap ? &l->wrap : NULL,
        .module = below->module ? &l->module : NULL,
        .counters = below->counters ? &l->counters : NULL,
    };
    device->table = &l->table;
    device->handle = l;
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
