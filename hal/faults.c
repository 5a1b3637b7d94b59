/*
 * faults.c: the fault injection layer. It keeps a list of what it made, so that a device whose
 * backend cannot reset can still be lost and reset.
 */
#include <stdio.h>
#include <string.h>

#include "hal.h"

struct made_buffer {
    struct made_buffer *next;
    mh_buffer_view view;
    bool imported;
};

struct made_stream {
    struct layer *layer;
    void *below;
    struct made_stream *next;
};

struct layer {
    mh_backend_table table; /* the wrapped one; what device->table points to */
    mh_backend_scratch scratch;
    mh_backend_import import;
    mh_backend_reset reset;
    const mh_backend_table *below;
    void *device; /* below's */
    mh_runtime *runtime;
    mh_faults plan;
    mh_fault_report report;
    pthread_mutex_t lock; /* guards all that follows, and the report */
    bool lost;
    uint64_t used;
    struct made_buffer *buffers;
    struct made_stream *streams;
};

static const char *const call_names[MH_CALL_KINDS] = {
    "none", "memory_info", "buffer_create", "stream_create", "copy",  "mark",
    "wait", "supports",    "encode",        "import",        "reset",
};

const char *mh_call_name(uint32_t call)
{
    return call < MH_CALL_KINDS ? call_names[call] : "?";
}

static mh_status fail_lost(struct layer *l, const char *call)
{
    return hal_fail(l->runtime, MH_DEVICE_LOST, "%s: the device was lost (injected)", call);
}

/* Counts a call; *fails: it is the one to fail. Returns MH_DEVICE_LOST if the device is gone. */
static mh_status count(struct layer *l, uint32_t call, bool *fails)
{
    pthread_mutex_lock(&l->lock);
    uint64_t nth = ++l->report.calls[call];
    bool lost = l->lost;
    *fails = !lost && l->plan.call == call && l->plan.nth == nth;
    if (*fails) {
        l->report.fired++;
        l->lost = l->plan.status == MH_DEVICE_LOST;
    }
    pthread_mutex_unlock(&l->lock);
    return lost ? fail_lost(l, call_names[call]) : MH_OK;
}

/* Counts, and fails where the plan says so. */
static mh_status pass(struct layer *l, uint32_t call)
{
    bool fails;
    mh_status status = count(l, call, &fails);
    if (fails)
        status = hal_fail(l->runtime, l->plan.status, "%s: call %llu failed (injected)",
                          call_names[call], (unsigned long long)l->plan.nth);
    return status;
}

/* ---- memory ---- */

static mh_status memory_info(void *user, uint64_t *total, uint64_t *available)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_MEMORY_INFO);
    if (!status)
        status = l->below->memory_info(l->device, total, available);
    if (!status && l->plan.memory_limit) {
        pthread_mutex_lock(&l->lock);
        *total = l->plan.memory_limit;
        *available = l->plan.memory_limit - l->used;
        pthread_mutex_unlock(&l->lock);
    }
    return status;
}

/* Takes `size` of the limit. */
static mh_status charge(struct layer *l, uint64_t size)
{
    pthread_mutex_lock(&l->lock);
    uint64_t left = l->plan.memory_limit ? l->plan.memory_limit - l->used : UINT64_MAX;
    bool fits = size <= left;
    if (fits)
        l->used += l->plan.memory_limit ? size : 0;
    else
        l->report.fired++;
    pthread_mutex_unlock(&l->lock);
    return fits ? MH_OK
                : hal_fail(l->runtime, MH_OUT_OF_MEMORY,
                           "%llu bytes could not be had, %llu are left of %llu (injected)",
                           (unsigned long long)size, (unsigned long long)left,
                           (unsigned long long)l->plan.memory_limit);
}

static void keep(struct layer *l, struct made_buffer *made, const mh_buffer_view *view)
{
    made->view = *view;
    pthread_mutex_lock(&l->lock);
    made->next = l->buffers;
    l->buffers = made;
    pthread_mutex_unlock(&l->lock);
}

/* Everything below of one buffer; the lock is not held. */
static void destroy_made(struct layer *l, struct made_buffer *made)
{
    if (made->imported)
        l->below->import->forget(l->device, &made->view);
    else
        l->below->buffer_destroy(l->device, &made->view);
    hal_free(l->runtime, made);
}

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_BUFFER_CREATE);
    if (!status)
        status = charge(l, size);
    if (status)
        return status;
    struct made_buffer *made = hal_alloc(l->runtime, sizeof(*made));
    status = made ? l->below->buffer_create(l->device, size, kind, out) : MH_OUT_OF_MEMORY;
    if (!status) {
        keep(l, made, out);
        return MH_OK;
    }
    hal_free(l->runtime, made);
    pthread_mutex_lock(&l->lock);
    l->used -= l->plan.memory_limit ? size : 0;
    pthread_mutex_unlock(&l->lock);
    return status;
}

static mh_status import(void *user, void *memory, uint64_t size, mh_buffer_view *out)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_IMPORT);
    if (status)
        return status;
    struct made_buffer *made = hal_alloc(l->runtime, sizeof(*made));
    status = made ? l->below->import->import(l->device, memory, size, out) : MH_OUT_OF_MEMORY;
    if (status) {
        hal_free(l->runtime, made);
        return status;
    }
    made->imported = true;
    keep(l, made, out);
    return MH_OK;
}

static void let_go(struct layer *l, const mh_buffer_view *view, bool imported)
{
    pthread_mutex_lock(&l->lock);
    struct made_buffer **link = &l->buffers, *made;
    while ((*link)->view.handle != view->handle || (*link)->imported != imported)
        link = &(*link)->next;
    made = *link;
    *link = made->next;
    l->used -= l->plan.memory_limit && !imported ? view->size : 0;
    pthread_mutex_unlock(&l->lock);
    destroy_made(l, made);
}

static void buffer_destroy(void *layer, mh_buffer_view *view)
{
    let_go(layer, view, false);
}

static void forget(void *layer, mh_buffer_view *view)
{
    let_go(layer, view, true);
}

/* ---- streams ---- */

static mh_status stream_create(void *user, void **out)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_STREAM_CREATE);
    if (status)
        return status;
    struct made_stream *s = hal_alloc(l->runtime, sizeof(*s));
    status = s ? l->below->stream_create(l->device, &s->below) : MH_OUT_OF_MEMORY;
    if (status) {
        hal_free(l->runtime, s);
        return status;
    }
    s->layer = l;
    pthread_mutex_lock(&l->lock);
    s->next = l->streams;
    l->streams = s;
    pthread_mutex_unlock(&l->lock);
    *out = s;
    return MH_OK;
}

static void stream_destroy(void *user)
{
    struct made_stream *s = user;
    struct layer *l = s->layer;
    pthread_mutex_lock(&l->lock);
    struct made_stream **link = &l->streams;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    pthread_mutex_unlock(&l->lock);
    l->below->stream_destroy(s->below);
    hal_free(l->runtime, s);
}

static mh_status copy(void *user, const mh_copy *c)
{
    struct made_stream *s = user;
    mh_status status = pass(s->layer, MH_CALL_COPY);
    return status ? status : s->layer->below->copy(s->below, c);
}

static mh_status mark(void *user, uint64_t *sequence)
{
    struct made_stream *s = user;
    mh_status status = pass(s->layer, MH_CALL_MARK);
    return status ? status : s->layer->below->mark(s->below, sequence);
}

static mh_status wait_for(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    struct made_stream *s = user;
    mh_status status = pass(s->layer, MH_CALL_WAIT);
    return status ? status : s->layer->below->wait(s->below, sequence, timeout_ns);
}

/* ---- ops ---- */

static mh_status supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_SUPPORTS);
    return status ? status : l->below->supports(l->device, op, missing, reason);
}

static uint64_t op_scratch(void *user, const mh_op *op)
{
    struct layer *l = user;
    return l->below->scratch->op_scratch(l->device, op);
}

static mh_status encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    struct made_stream *s = user;
    struct layer *l = s->layer;
    bool fails;
    mh_status status = count(l, MH_CALL_ENCODE, &fails);
    if (fails && l->plan.status == MH_DEVICE_LOST)
        return MH_OK; /* swallowed; the next call tells */
    if (fails)
        status = hal_fail(l->runtime, l->plan.status, "encode: op %llu failed (injected)",
                          (unsigned long long)l->plan.nth);
    return status ? status : l->below->encode(s->below, op, scratch);
}

/* ---- life ---- */

static void drop_all(struct layer *l)
{
    while (l->streams) {
        struct made_stream *s = l->streams;
        l->streams = s->next;
        l->below->stream_destroy(s->below);
        hal_free(l->runtime, s);
    }
    while (l->buffers) {
        struct made_buffer *made = l->buffers;
        l->buffers = made->next;
        destroy_made(l, made);
    }
    l->used = 0;
}

/* No other call on the device is running: the lock is for the flags. */
static mh_status reset(void *user)
{
    struct layer *l = user;
    pthread_mutex_lock(&l->lock);
    bool fails = l->plan.call == MH_CALL_RESET && l->plan.nth == ++l->report.calls[MH_CALL_RESET];
    l->report.fired += fails;
    pthread_mutex_unlock(&l->lock);
    if (fails)
        return hal_fail(l->runtime, l->plan.status, "reset: call %llu failed (injected)",
                        (unsigned long long)l->plan.nth);
    drop_all(l);
    pthread_mutex_lock(&l->lock);
    l->lost = false;
    pthread_mutex_unlock(&l->lock);
    return l->below->reset ? l->below->reset->reset(l->device) : MH_OK;
}

static void device_close(void *user)
{
    struct layer *l = user;
    drop_all(l);
    l->below->device_close(l->device);
    pthread_mutex_destroy(&l->lock);
    hal_free(l->runtime, l);
}

mh_status hal_faults_wrap(mh_device *device, const mh_faults *faults)
{
    struct layer *l = hal_alloc(device->runtime, sizeof(*l));
    if (!l)
        return MH_OUT_OF_MEMORY;
    l->below = device->table;
    l->device = device->handle;
    l->runtime = device->runtime;
    l->plan = *faults;
    l->report.struct_size = sizeof(l->report);
    pthread_mutex_init(&l->lock, NULL);
    l->table = *device->table;
    l->table.device_close = device_close;
    l->table.memory_info = memory_info;
    l->table.buffer_create = buffer_create;
    l->table.buffer_destroy = buffer_destroy;
    l->table.stream_create = stream_create;
    l->table.stream_destroy = stream_destroy;
    l->table.copy = copy;
    l->table.mark = mark;
    l->table.wait = wait_for;
    l->table.supports = supports;
    l->table.encode = encode;
    l->scratch = (mh_backend_scratch){sizeof(l->scratch), op_scratch};
    l->import = (mh_backend_import){sizeof(l->import), import, forget};
    l->reset = (mh_backend_reset){sizeof(l->reset), reset};
    l->table.scratch = device->table->scratch ? &l->scratch : NULL;
    l->table.import = device->table->import ? &l->import : NULL;
    l->table.reset = &l->reset;
    /* Groups that the layer does not know would be handed its handles: they go missing. */
    l->table.graph = NULL;
    l->table.event = NULL;
    l->table.gate = NULL;
    l->table.wrap = NULL;
    l->table.module = NULL;
    l->table.counters = NULL;
    device->table = &l->table;
    device->handle = l;
    device->faults = l;
    return MH_OK;
}

mh_status mh_device_get_faults(mh_device *device, mh_fault_report *out)
{
    if (!device || !device->faults)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_get_faults: %s",
                       device ? "the device was opened without faults" : "device is NULL");
    struct layer *l = device->faults;
    pthread_mutex_lock(&l->lock);
    mh_fault_report report = l->report;
    pthread_mutex_unlock(&l->lock);
    return mh_struct_out(out, &report, sizeof(report));
}
