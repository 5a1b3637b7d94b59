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

/* A graph, an event, a gate, a module, a kernel or exchange memory. */
struct made_object {
    struct made_object *next;
    void *handle;
    void (*destroy)(void *device, void *handle); /* below's */
};

struct layer {
    struct hal_layer base; /* first; its lock guards all that follows, and the report */
    mh_faults plan;
    mh_fault_report report;
    bool lost;
    uint64_t used;
    struct made_buffer *buffers;
    struct made_object *objects;  /* newest first: kernels before their modules */
    pthread_mutex_t streams_stay; /* while it is held none is destroyed */
};

static const char *const call_names[MH_CALL_KINDS] = {
    "none",      "memory_info",  "buffer_create", "stream_create", "copy",
    "mark",      "wait",         "supports",      "encode",        "import",
    "reset",     "graph.create", "graph.launch",  "event.record",  "event.wait",
    "gate.hold", "wrap.buffer",  "module.load",   "module.kernel", "wrap_event.event",
};

const char *mh_call_name(uint32_t call)
{
    return call < MH_CALL_KINDS ? call_names[call] : "?";
}

static mh_status fail_lost(struct layer *l, const char *call)
{
    return hal_fail(l->base.runtime, MH_DEVICE_LOST, "%s: the device was lost (injected)", call);
}

/* A failure that is injected leaves the device below alive: what a stream of it was given must not
 * outlive the memory that the caller now gives up. */
static void finish_below(struct layer *l, void *below)
{
    uint64_t sequence;
    if (!l->base.below->mark(below, &sequence))
        l->base.below->wait(below, sequence, MH_FOREVER);
}

/* Its kernels that wait for other devices end. */
static void stop_exchanges(struct layer *l)
{
    const mh_backend_peer *peer = l->base.below->peer;
    for (const struct made_object *o = l->objects; peer && o; o = o->next)
        if (o->destroy == peer->destroy)
            peer->stop(l->base.handle, o->handle);
}

/* A device that goes has no work: nobody waits for it any more. The lock is free meanwhile: what
 * holds a stream up may be a thread that needs it. */
static void finish_all(struct layer *l)
{
    pthread_mutex_lock(&l->streams_stay);
    pthread_mutex_lock(&l->base.lock);
    stop_exchanges(l);
    struct hal_layer_stream *s = l->base.streams;
    pthread_mutex_unlock(&l->base.lock);
    for (; s; s = s->next)
        finish_below(l, s->below);
    pthread_mutex_unlock(&l->streams_stay);
}

/* Counts a call; *fails: it is the one to fail. Returns MH_DEVICE_LOST if the device is gone. */
static mh_status count(struct layer *l, uint32_t call, bool *fails)
{
    pthread_mutex_lock(&l->base.lock);
    uint64_t nth = ++l->report.calls[call];
    bool lost = l->lost;
    *fails = !lost && l->plan.call == call && l->plan.nth == nth;
    if (*fails) {
        l->report.fired++;
        l->lost = l->plan.status == MH_DEVICE_LOST;
    }
    pthread_mutex_unlock(&l->base.lock);
    if (*fails && l->plan.status == MH_DEVICE_LOST)
        finish_all(l);
    return lost ? fail_lost(l, call_names[call]) : MH_OK;
}

/* Counts, and fails where the plan says so. */
static mh_status pass(struct layer *l, uint32_t call)
{
    bool fails;
    mh_status status = count(l, call, &fails);
    if (fails)
        status = hal_fail(l->base.runtime, l->plan.status, "%s: call %llu failed (injected)",
                          call_names[call], (unsigned long long)l->plan.nth);
    return status;
}

/* ---- memory ---- */

static mh_status memory_info(void *user, uint64_t *total, uint64_t *available)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_MEMORY_INFO);
    if (!status)
        status = l->base.below->memory_info(l->base.handle, total, available);
    if (!status && l->plan.memory_limit) {
        pthread_mutex_lock(&l->base.lock);
        *total = l->plan.memory_limit;
        *available = l->plan.memory_limit - l->used;
        pthread_mutex_unlock(&l->base.lock);
    }
    return status;
}

/* Takes `size` of the limit. */
static mh_status charge(struct layer *l, uint64_t size)
{
    pthread_mutex_lock(&l->base.lock);
    uint64_t left = l->plan.memory_limit ? l->plan.memory_limit - l->used : UINT64_MAX;
    bool fits = size <= left;
    if (fits)
        l->used += l->plan.memory_limit ? size : 0;
    else
        l->report.fired++;
    pthread_mutex_unlock(&l->base.lock);
    return fits ? MH_OK
                : hal_fail(l->base.runtime, MH_OUT_OF_MEMORY,
                           "%llu bytes could not be had, %llu are left of %llu (injected)",
                           (unsigned long long)size, (unsigned long long)left,
                           (unsigned long long)l->plan.memory_limit);
}

static void keep(struct layer *l, struct made_buffer *made, const mh_buffer_view *view)
{
    made->view = *view;
    pthread_mutex_lock(&l->base.lock);
    made->next = l->buffers;
    l->buffers = made;
    pthread_mutex_unlock(&l->base.lock);
}

/* Everything below of one buffer; the lock is not held. */
static void destroy_made(struct layer *l, struct made_buffer *made)
{
    if (made->imported)
        l->base.below->import->forget(l->base.handle, &made->view);
    else
        l->base.below->buffer_destroy(l->base.handle, &made->view);
    hal_free(l->base.runtime, made);
}

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_BUFFER_CREATE);
    if (!status)
        status = charge(l, size);
    if (status)
        return status;
    struct made_buffer *made = hal_alloc(l->base.runtime, sizeof(*made));
    status =
        made ? l->base.below->buffer_create(l->base.handle, size, kind, out) : MH_OUT_OF_MEMORY;
    if (!status) {
        keep(l, made, out);
        return MH_OK;
    }
    hal_free(l->base.runtime, made);
    pthread_mutex_lock(&l->base.lock);
    l->used -= l->plan.memory_limit ? size : 0;
    pthread_mutex_unlock(&l->base.lock);
    return status;
}

static mh_status import(void *user, void *memory, uint64_t size, mh_buffer_view *out)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_IMPORT);
    if (status)
        return status;
    struct made_buffer *made = hal_alloc(l->base.runtime, sizeof(*made));
    status =
        made ? l->base.below->import->import(l->base.handle, memory, size, out) : MH_OUT_OF_MEMORY;
    if (status) {
        hal_free(l->base.runtime, made);
        return status;
    }
    made->imported = true;
    keep(l, made, out);
    return MH_OK;
}

static void let_go(struct layer *l, const mh_buffer_view *view, bool imported)
{
    pthread_mutex_lock(&l->base.lock);
    struct made_buffer **link = &l->buffers, *made;
    while ((*link)->view.handle != view->handle || (*link)->imported != imported)
        link = &(*link)->next;
    made = *link;
    *link = made->next;
    l->used -= l->plan.memory_limit && !imported ? view->size : 0;
    pthread_mutex_unlock(&l->base.lock);
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

static struct layer *layer_of(void *stream)
{
    return (struct layer *)((struct hal_layer_stream *)stream)->layer;
}

static void *below_of(void *stream)
{
    return ((struct hal_layer_stream *)stream)->below;
}

static mh_status stream_create(void *user, void **out)
{
    mh_status status = pass(user, MH_CALL_STREAM_CREATE);
    return status ? status : hal_layer_add_stream(user, NULL, out);
}

static mh_status wrap_stream(void *user, uint64_t native, void **out)
{
    mh_status status = pass(user, MH_CALL_STREAM_CREATE);
    return status ? status : hal_layer_add_stream(user, &native, out);
}

static void stream_destroy(void *stream)
{
    struct layer *l = layer_of(stream);
    pthread_mutex_lock(&l->streams_stay);
    hal_layer_remove_stream(stream);
    pthread_mutex_unlock(&l->streams_stay);
}

static mh_status copy(void *stream, const mh_copy *c)
{
    struct layer *l = layer_of(stream);
    mh_status status = pass(l, MH_CALL_COPY);
    return status ? status : l->base.below->copy(below_of(stream), c);
}

static mh_status after_its_work(void *stream, mh_status status)
{
    if (status)
        finish_below(layer_of(stream), below_of(stream));
    return status;
}

static mh_status mark(void *stream, uint64_t *sequence)
{
    struct layer *l = layer_of(stream);
    mh_status status = after_its_work(stream, pass(l, MH_CALL_MARK));
    return status ? status : l->base.below->mark(below_of(stream), sequence);
}

static mh_status wait_for(void *stream, uint64_t sequence, uint64_t timeout_ns)
{
    struct layer *l = layer_of(stream);
    mh_status status = after_its_work(stream, pass(l, MH_CALL_WAIT));
    return status ? status : l->base.below->wait(below_of(stream), sequence, timeout_ns);
}

/* ---- ops ---- */

static mh_status supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_SUPPORTS);
    return status ? status : l->base.below->supports(l->base.handle, op, missing, reason);
}

/* As pass, for work: a loss is swallowed with it, and the next call tells. */
static mh_status pass_work(struct layer *l, uint32_t call, bool *swallowed)
{
    bool fails;
    mh_status status = count(l, call, &fails);
    *swallowed = fails && l->plan.status == MH_DEVICE_LOST;
    if (fails && !*swallowed)
        status = hal_fail(l->base.runtime, l->plan.status, "%s: %s %llu failed (injected)",
                          call_names[call], call == MH_CALL_ENCODE ? "op" : "call",
                          (unsigned long long)l->plan.nth);
    return status;
}

static mh_status encode(void *stream, const mh_op *op, const mh_scratch *scratch)
{
    struct layer *l = layer_of(stream);
    bool swallowed;
    mh_status status = pass_work(l, MH_CALL_ENCODE, &swallowed);
    return status || swallowed ? status : l->base.below->encode(below_of(stream), op, scratch);
}

/* ---- groups ---- */

/* Keeps what `status` says was made. */
static mh_status keep_object(struct layer *l, mh_status status, void *handle,
                             void (*destroy)(void *device, void *handle))
{
    struct made_object *made = status ? NULL : hal_alloc(l->base.runtime, sizeof(*made));
    if (!status && !made) {
        destroy(l->base.handle, handle);
        return MH_OUT_OF_MEMORY;
    }
    if (!status) {
        *made = (struct made_object){NULL, handle, destroy};
        pthread_mutex_lock(&l->base.lock);
        made->next = l->objects;
        l->objects = made;
        pthread_mutex_unlock(&l->base.lock);
    }
    return status;
}

static void drop_object(void *user, void *handle)
{
    struct layer *l = user;
    pthread_mutex_lock(&l->base.lock);
    struct made_object **link = &l->objects, *made;
    while ((*link)->handle != handle)
        link = &(*link)->next;
    made = *link;
    *link = made->next;
    pthread_mutex_unlock(&l->base.lock);
    made->destroy(l->base.handle, handle);
    hal_free(l->base.runtime, made);
}

static mh_status graph_create(void *user, const mh_op *const *ops, const mh_scratch *scratch,
                              uint32_t ops_count, void **graph)
{
    struct layer *l = user;
    const mh_backend_graph *below = l->base.below->graph;
    mh_status status = pass(l, MH_CALL_GRAPH_CREATE);
    if (!status)
        status = below->create(l->base.handle, ops, scratch, ops_count, graph);
    return keep_object(l, status, status ? NULL : *graph, below->destroy);
}

static mh_status graph_launch(void *stream, void *graph)
{
    struct layer *l = layer_of(stream);
    bool swallowed;
    mh_status status = pass_work(l, MH_CALL_GRAPH_LAUNCH, &swallowed);
    return status || swallowed ? status : l->base.below->graph->launch(below_of(stream), graph);
}

static mh_status event_create(void *user, void **event)
{
    struct layer *l = user;
    mh_status status = l->base.below->event->create(l->base.handle, event);
    return keep_object(l, status, status ? NULL : *event, l->base.below->event->destroy);
}

static mh_status event_record(void *stream, void *event)
{
    struct layer *l = layer_of(stream);
    mh_status status = pass(l, MH_CALL_EVENT_RECORD);
    return status ? status : l->base.below->event->record(below_of(stream), event);
}

static mh_status event_wait(void *stream, void *event)
{
    struct layer *l = layer_of(stream);
    mh_status status = pass(l, MH_CALL_EVENT_WAIT);
    return status ? status : l->base.below->event->wait(below_of(stream), event);
}

static mh_status gate_create(void *user, void **gate)
{
    struct layer *l = user;
    mh_status status = l->base.below->gate->create(l->base.handle, gate);
    return keep_object(l, status, status ? NULL : *gate, l->base.below->gate->destroy);
}

static mh_status gate_hold(void *stream, void *gate)
{
    struct layer *l = layer_of(stream);
    mh_status status = pass(l, MH_CALL_GATE_HOLD);
    return status ? status : l->base.below->gate->hold(below_of(stream), gate);
}

static mh_status wrap_buffer(void *user, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_BUFFER_WRAP);
    return status ? status : l->base.below->wrap->buffer(l->base.handle, native, size, out);
}

static mh_status wrap_event(void *user, uint64_t native, void **event)
{
    struct layer *l = user;
    const mh_backend_wrap_event *below = l->base.below->wrap_event;
    mh_status status = pass(l, MH_CALL_EVENT_WRAP);
    if (!status)
        status = below->event(l->base.handle, native, event);
    return keep_object(l, status, status ? NULL : *event, below->forget);
}

static mh_status wait_wrapped(void *user, void *event, uint64_t timeout_ns)
{
    struct layer *l = user;
    mh_status status = pass(l, MH_CALL_WAIT);
    return status ? status : l->base.below->wrap_event->wait(l->base.handle, event, timeout_ns);
}

static mh_status module_load(void *user, const void *image, uint64_t size, const char *options,
                             char *log, uint64_t log_size, void **module)
{
    struct layer *l = user;
    const mh_backend_module *below = l->base.below->module;
    mh_status status = pass(l, MH_CALL_MODULE_LOAD);
    if (!status)
        status = below->load(l->base.handle, image, size, options, log, log_size, module);
    return keep_object(l, status, status ? NULL : *module, below->unload);
}

static mh_status module_kernel(void *user, void *module, const char *name, void **kernel)
{
    struct layer *l = user;
    const mh_backend_module *below = l->base.below->module;
    mh_status status = pass(l, MH_CALL_KERNEL_CREATE);
    if (!status)
        status = below->kernel(l->base.handle, module, name, kernel);
    return keep_object(l, status, status ? NULL : *kernel, below->kernel_destroy);
}

static mh_status exchange_create(void *user, const mh_exchange_params *params, void **exchange)
{
    struct layer *l = user;
    const mh_backend_peer *below = l->base.below->peer;
    mh_status status = pass(l, MH_CALL_BUFFER_CREATE); /* memory is what it takes */
    if (!status)
        status = below->create(l->base.handle, params, exchange);
    return keep_object(l, status, status ? NULL : *exchange, below->destroy);
}

/* ---- life ---- */

static void drop_all(struct layer *l)
{
    while (l->base.streams)
        l->base.table.stream_destroy(l->base.streams);
    while (l->objects)
        drop_object(l, l->objects->handle);
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
    pthread_mutex_lock(&l->base.lock);
    bool fails = l->plan.call == MH_CALL_RESET && l->plan.nth == ++l->report.calls[MH_CALL_RESET];
    l->report.fired += fails;
    pthread_mutex_unlock(&l->base.lock);
    if (fails)
        return hal_fail(l->base.runtime, l->plan.status, "reset: call %llu failed (injected)",
                        (unsigned long long)l->plan.nth);
    drop_all(l);
    pthread_mutex_lock(&l->base.lock);
    l->lost = false;
    pthread_mutex_unlock(&l->base.lock);
    return l->base.below->reset ? l->base.below->reset->reset(l->base.handle) : MH_OK;
}

static void device_close(void *user)
{
    struct layer *l = user;
    drop_all(l);
    l->base.below->device_close(l->base.handle);
    pthread_mutex_destroy(&l->streams_stay);
    hal_layer_finish(&l->base);
}

mh_status hal_faults_wrap(mh_device *device, const mh_faults *faults)
{
    struct layer *l = hal_alloc(device->runtime, sizeof(*l));
    if (!l)
        return MH_OUT_OF_MEMORY;
    hal_layer_init(&l->base, device, sizeof(struct hal_layer_stream));
    pthread_mutex_init(&l->streams_stay, NULL);
    l->plan = *faults;
    l->report.struct_size = sizeof(l->report);
    mh_backend_table *t = &l->base.table;
    t->device_close = device_close;
    t->memory_info = memory_info;
    t->buffer_create = buffer_create;
    t->buffer_destroy = buffer_destroy;
    t->stream_create = stream_create;
    t->stream_destroy = stream_destroy;
    t->copy = copy;
    t->mark = mark;
    t->wait = wait_for;
    t->supports = supports;
    t->encode = encode;
    t->reset = &l->base.reset;
    l->base.reset.reset = reset;
    l->base.import.import = import, l->base.import.forget = forget;
    l->base.graph.create = graph_create, l->base.graph.launch = graph_launch;
    l->base.graph.destroy = drop_object;
    l->base.event.create = event_create, l->base.event.destroy = drop_object;
    l->base.event.record = event_record, l->base.event.wait = event_wait;
    l->base.gate.create = gate_create, l->base.gate.hold = gate_hold;
    l->base.gate.destroy = drop_object;
    l->base.wrap.stream = wrap_stream, l->base.wrap.buffer = wrap_buffer;
    l->base.wrap_event.event = wrap_event, l->base.wrap_event.forget = drop_object;
    l->base.wrap_event.wait = wait_wrapped;
    l->base.module.load = module_load, l->base.module.unload = drop_object;
    l->base.module.kernel = module_kernel, l->base.module.kernel_destroy = drop_object;
    l->base.peer.create = exchange_create, l->base.peer.destroy = drop_object;
    device->faults = l;
    return MH_OK;
}

mh_status mh_device_get_faults(mh_device *device, mh_fault_report *out)
{
    if (!device || !device->faults)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_get_faults: %s",
                       device ? "the device was opened without faults" : "device is NULL");
    struct layer *l = device->faults;
    pthread_mutex_lock(&l->base.lock);
    mh_fault_report report = l->report;
    pthread_mutex_unlock(&l->base.lock);
    return mh_struct_out(out, &report, sizeof(report));
}
