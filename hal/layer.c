/*
 * layer.c: a backend's table wrapped in one that passes everything on. Layers (faults.c, check.c,
 * timeline_layer.c) begin with it and put functions of their own in its place; they stack, the last
 * one on top.
 */
#include "hal.h"

#define BELOW(user) (((struct hal_layer *)(user))->below)
#define DEVICE(user) (((struct hal_layer *)(user))->handle)
#define OF_STREAM(user) (((struct hal_layer_stream *)(user))->layer->below)
#define STREAM(user) (((struct hal_layer_stream *)(user))->below)

static mh_status memory_info(void *user, uint64_t *total, uint64_t *available)
{
    return BELOW(user)->memory_info(DEVICE(user), total, available);
}

static mh_status buffer_create(void *user, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    return BELOW(user)->buffer_create(DEVICE(user), size, kind, out);
}

static void buffer_destroy(void *user, mh_buffer_view *buffer)
{
    BELOW(user)->buffer_destroy(DEVICE(user), buffer);
}

/* ---- streams ---- */

mh_status hal_layer_add_stream(struct hal_layer *l, const uint64_t *native, void **out)
{
    struct hal_layer_stream *s = hal_alloc(l->runtime, l->stream_size);
    mh_status status = !s       ? MH_OUT_OF_MEMORY
                       : native ? l->below->wrap->stream(l->handle, *native, &s->below)
                                : l->below->stream_create(l->handle, &s->below);
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

static mh_status stream_create(void *user, void **out)
{
    return hal_layer_add_stream(user, NULL, out);
}

static mh_status wrap_stream(void *user, uint64_t native, void **out)
{
    return hal_layer_add_stream(user, &native, out);
}

void hal_layer_remove_stream(void *user)
{
    struct hal_layer_stream *s = user;
    struct hal_layer *l = s->layer;
    pthread_mutex_lock(&l->lock);
    struct hal_layer_stream **link = &l->streams;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    pthread_mutex_unlock(&l->lock);
    l->below->stream_destroy(s->below);
    hal_free(l->runtime, s);
}

static mh_status copy(void *user, const mh_copy *c)
{
    return OF_STREAM(user)->copy(STREAM(user), c);
}

static mh_status mark(void *user, uint64_t *sequence)
{
    return OF_STREAM(user)->mark(STREAM(user), sequence);
}

static mh_status wait_for(void *user, uint64_t sequence, uint64_t timeout_ns)
{
    return OF_STREAM(user)->wait(STREAM(user), sequence, timeout_ns);
}

static mh_status encode(void *user, const mh_op *op, const mh_scratch *scratch)
{
    return OF_STREAM(user)->encode(STREAM(user), op, scratch);
}

/* ---- ops ---- */

static mh_status supports(void *user, const mh_op *op, uint32_t *missing, char reason[192])
{
    return BELOW(user)->supports(DEVICE(user), op, missing, reason);
}

static uint64_t op_scratch(void *user, const mh_op *op)
{
    return BELOW(user)->scratch->op_scratch(DEVICE(user), op);
}

/* ---- groups ---- */

static mh_status import(void *user, void *memory, uint64_t size, mh_buffer_view *out)
{
    return BELOW(user)->import->import(DEVICE(user), memory, size, out);
}

static void forget_import(void *user, mh_buffer_view *buffer)
{
    BELOW(user)->import->forget(DEVICE(user), buffer);
}

/* After a reset nobody destroys what was before it. */
void hal_layer_drop_streams(struct hal_layer *l)
{
    while (l->streams) {
        struct hal_layer_stream *s = l->streams;
        l->streams = s->next;
        hal_free(l->runtime, s);
    }
}

static mh_status reset(void *user)
{
    hal_layer_drop_streams(user);
    return BELOW(user)->reset->reset(DEVICE(user));
}

static mh_status graph_create(void *user, const mh_op *const *ops, const mh_scratch *scratch,
                              uint32_t count, void **graph)
{
    return BELOW(user)->graph->create(DEVICE(user), ops, scratch, count, graph);
}

static mh_status graph_launch(void *user, void *graph)
{
    return OF_STREAM(user)->graph->launch(STREAM(user), graph);
}

static void graph_destroy(void *user, void *graph)
{
    BELOW(user)->graph->destroy(DEVICE(user), graph);
}

static mh_status event_create(void *user, void **event)
{
    return BELOW(user)->event->create(DEVICE(user), event);
}

static void event_destroy(void *user, void *event)
{
    BELOW(user)->event->destroy(DEVICE(user), event);
}

static mh_status event_record(void *user, void *event)
{
    return OF_STREAM(user)->event->record(STREAM(user), event);
}

static mh_status event_wait(void *user, void *event)
{
    return OF_STREAM(user)->event->wait(STREAM(user), event);
}

static mh_status event_elapsed(void *user, void *begin, void *end, uint64_t *ns)
{
    return BELOW(user)->event->elapsed(DEVICE(user), begin, end, ns);
}

static mh_status gate_create(void *user, void **gate)
{
    return BELOW(user)->gate->create(DEVICE(user), gate);
}

static mh_status gate_hold(void *user, void *gate)
{
    return OF_STREAM(user)->gate->hold(STREAM(user), gate);
}

static void gate_open(void *user, void *gate)
{
    BELOW(user)->gate->open(DEVICE(user), gate);
}

static void gate_destroy(void *user, void *gate)
{
    BELOW(user)->gate->destroy(DEVICE(user), gate);
}

static mh_status wrap_buffer(void *user, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    return BELOW(user)->wrap->buffer(DEVICE(user), native, size, out);
}

static void forget_wrapped(void *user, mh_buffer_view *buffer)
{
    BELOW(user)->wrap->forget(DEVICE(user), buffer);
}

static mh_status wrap_event(void *user, uint64_t native, void **event)
{
    return BELOW(user)->wrap_event->event(DEVICE(user), native, event);
}

static void forget_event(void *user, void *event)
{
    BELOW(user)->wrap_event->forget(DEVICE(user), event);
}

static mh_status wait_wrapped(void *user, void *event, uint64_t timeout_ns)
{
    return BELOW(user)->wrap_event->wait(DEVICE(user), event, timeout_ns);
}

static mh_status native_event(void *user, void *event, uint64_t *native)
{
    return BELOW(user)->wrap_event->native(DEVICE(user), event, native);
}

static mh_status module_load(void *user, const void *image, uint64_t size, const char *options,
                             char *log, uint64_t log_size, void **module)
{
    return BELOW(user)->module->load(DEVICE(user), image, size, options, log, log_size, module);
}

static void module_unload(void *user, void *module)
{
    BELOW(user)->module->unload(DEVICE(user), module);
}

static mh_status module_kernel(void *user, void *module, const char *name, void **kernel)
{
    return BELOW(user)->module->kernel(DEVICE(user), module, name, kernel);
}

static void kernel_destroy(void *user, void *kernel)
{
    BELOW(user)->module->kernel_destroy(DEVICE(user), kernel);
}

static mh_status read_counter(void *user, uint32_t index, const char **name, uint64_t *value)
{
    return BELOW(user)->counters->read(DEVICE(user), index, name, value);
}

static mh_status exchange_create(void *user, const mh_exchange_params *params, void **exchange)
{
    return BELOW(user)->peer->create(DEVICE(user), params, exchange);
}

static mh_status exchange_join(void *user, void *exchange, void *const *all)
{
    return BELOW(user)->peer->join(DEVICE(user), exchange, all);
}

static uint64_t exchange_capacity(void *user, void *exchange)
{
    return BELOW(user)->peer->capacity(DEVICE(user), exchange);
}

static void exchange_state(void *user, void *exchange, mh_exchange_state *out)
{
    BELOW(user)->peer->state(DEVICE(user), exchange, out);
}

static void exchange_stop(void *user, void *exchange)
{
    BELOW(user)->peer->stop(DEVICE(user), exchange);
}

static void exchange_destroy(void *user, void *exchange)
{
    BELOW(user)->peer->destroy(DEVICE(user), exchange);
}

/* ---- life ---- */

static void device_close(void *user)
{
    struct hal_layer *l = user;
    l->below->device_close(l->handle);
    hal_layer_finish(l);
}

void hal_layer_finish(struct hal_layer *l)
{
    hal_layer_drop_streams(l);
    pthread_mutex_destroy(&l->lock);
    hal_free(l->runtime, l);
}

static void set_groups(struct hal_layer *l)
{
    mh_backend_table *t = &l->table;
    const mh_backend_table *below = l->below;
    l->scratch = (mh_backend_scratch){sizeof(l->scratch), op_scratch};
    l->import = (mh_backend_import){sizeof(l->import), import, forget_import};
    l->reset = (mh_backend_reset){sizeof(l->reset), reset};
    l->graph = (mh_backend_graph){sizeof(l->graph), graph_create, graph_launch, graph_destroy};
    l->event = (mh_backend_event){sizeof(l->event), event_create, event_destroy,
                                  event_record,     event_wait,   event_elapsed};
    l->gate = (mh_backend_gate){sizeof(l->gate), gate_create, gate_hold, gate_open, gate_destroy};
    l->wrap = (mh_backend_wrap){sizeof(l->wrap), wrap_stream, wrap_buffer, forget_wrapped};
    l->wrap_event = (mh_backend_wrap_event){sizeof(l->wrap_event), wrap_event, forget_event,
                                            wait_wrapped, native_event};
    l->module = (mh_backend_module){sizeof(l->module), module_load, module_unload, module_kernel,
                                    kernel_destroy};
    l->counters = (mh_backend_counters){sizeof(l->counters), read_counter};
    l->peer =
        (mh_backend_peer){sizeof(l->peer), exchange_create, exchange_join,   exchange_capacity,
                          exchange_state,  exchange_stop,   exchange_destroy};
    t->scratch = below->scratch ? &l->scratch : NULL;
    t->import = below->import ? &l->import : NULL;
    t->reset = below->reset ? &l->reset : NULL;
    t->graph = below->graph ? &l->graph : NULL;
    t->event = below->event ? &l->event : NULL;
    t->gate = below->gate ? &l->gate : NULL;
    t->wrap = below->wrap ? &l->wrap : NULL;
    t->wrap_event = below->wrap_event ? &l->wrap_event : NULL;
    t->module = below->module ? &l->module : NULL;
    t->counters = below->counters ? &l->counters : NULL;
    t->peer = below->peer ? &l->peer : NULL;
}

void hal_layer_init(struct hal_layer *l, mh_device *device, uint64_t stream_size)
{
    l->below = device->table;
    l->handle = device->handle;
    l->runtime = device->runtime;
    l->stream_size = stream_size;
    pthread_mutex_init(&l->lock, NULL);
    l->table = (mh_backend_table){.struct_size = sizeof(l->table),
                                  .abi = l->below->abi,
                                  .name = l->below->name,
                                  .description = l->below->description,
                                  .init = l->below->init,
                                  .fini = l->below->fini,
                                  .device_info = l->below->device_info,
                                  .device_open = l->below->device_open};
    l->table.device_close = device_close;
    l->table.memory_info = memory_info;
    l->table.buffer_create = buffer_create;
    l->table.buffer_destroy = buffer_destroy;
    l->table.stream_create = stream_create;
    l->table.stream_destroy = hal_layer_remove_stream;
    l->table.copy = copy;
    l->table.mark = mark;
    l->table.wait = wait_for;
    l->table.supports = supports;
    l->table.encode = encode;
    set_groups(l);
    device->table = &l->table;
    device->handle = l;
}
