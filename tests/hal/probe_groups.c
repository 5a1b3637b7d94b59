/* probe_groups.c: the probe's optional groups, each as small as its contract allows. */
#include <stdlib.h>
#include <string.h>

#include "probe_impl.h"

static struct probe_control *control(void)
{
    return probe_control();
}

/* ---- what the queue meets of them ---- */

/* y[i] += a * x[i]: args y, x, a; as many i as there are threads. */
void probe_run_kernel(const struct work *w)
{
    const mh_op_kernel *op = &w->op.kernel;
    float a;
    memcpy(&a, w->args[2].value, 4);
    float *y = (float *)(void *)(w->buffers[0]->memory + w->args[0].tensor.offset);
    const float *x = (const void *)(w->buffers[1]->memory + w->args[1].tensor.offset);
    for (uint32_t i = 0; i < op->grid[0] * op->block[0]; i++)
        y[i] += a * x[i];
}

static void free_event(struct event *e)
{
    if (e->destroyed && !e->waits) {
        control()->live_objects--;
        free(e);
    }
}

/* The stream that has the event passes it first. */
static mh_status pass_event(struct event *e, uint64_t target)
{
    mh_status status = MH_OK;
    while (!status && e->at->passed < target)
        status = e->stream ? probe_advance(e->stream) : MH_TIMEOUT;
    return status;
}

int probe_run_other(struct stream *s, struct work *w, mh_status *status)
{
    (void)s;
    if (w->record) {
        w->record->at->passed++;
        w->record->when = control()->clock;
        w->record->waits--;
        free_event(w->record);
    } else if (w->wait) {
        *status = pass_event(w->wait, w->target);
        if (!*status) {
            w->wait->waits--;
            free_event(w->wait);
        }
    } else if (w->gate) {
        *status = w->gate->open ? MH_OK : MH_TIMEOUT;
    } else if (w->graph) {
        for (uint32_t i = 0; i < w->graph->count; i++)
            probe_run(&w->graph->works[i]);
        w->graph->pending--;
    } else {
        return 0;
    }
    return 1;
}

void probe_drop_other(struct work *w)
{
    struct event *e = w->record ? w->record : w->wait;
    if (e) {
        e->waits--;
        free_event(e);
    }
    if (w->graph) {
        for (uint32_t i = 0; i < w->graph->count; i++)
            probe_pend(&w->graph->works[i], -1);
        w->graph->pending--;
    }
}

/* ---- graphs ---- */

static mh_status graph_create(void *device, const mh_op *const *ops, const mh_scratch *scratch,
                              uint32_t count, void **graph)
{
    (void)device, (void)scratch;
    if (control()->no_graphs)
        return MH_UNSUPPORTED;
    struct graph *g = calloc(1, sizeof(*g));
    g->works = calloc(count, sizeof(*g->works));
    g->count = count;
    for (uint32_t i = 0; i < count; i++)
        probe_fill(&g->works[i], ops[i]);
    control()->live_objects++;
    *graph = g;
    return MH_OK;
}

static mh_status graph_launch(void *stream, void *graph)
{
    struct graph *g = graph;
    pthread_mutex_lock(&probe_lock);
    probe_push(stream)->graph = g;
    g->pending++;
    for (uint32_t i = 0; i < g->count; i++)
        probe_pend(&g->works[i], 1);
    control()->graph_launches++;
    pthread_mutex_unlock(&probe_lock);
    return MH_OK;
}

static void graph_destroy(void *device, void *graph)
{
    struct graph *g = graph;
    (void)device;
    if (g->pending)
        control()->destroyed_in_flight++;
    control()->live_objects--;
    free(g->works);
    free(g);
}

/* ---- events ---- */

static mh_status make_event(struct probe_event *at, void **event)
{
    struct event *e = calloc(1, sizeof(*e));
    e->at = at ? at : &e->own;
    control()->live_objects++;
    *event = e;
    return MH_OK;
}

static mh_status event_create(void *device, void **event)
{
    (void)device;
    return make_event(NULL, event);
}

static void event_destroy(void *device, void *event)
{
    (void)device;
    pthread_mutex_lock(&probe_lock);
    ((struct event *)event)->destroyed = 1;
    free_event(event);
    pthread_mutex_unlock(&probe_lock);
}

static mh_status event_record(void *stream, void *event)
{
    struct event *e = event;
    pthread_mutex_lock(&probe_lock);
    probe_push(stream)->record = e;
    e->stream = stream;
    e->at->recorded++;
    e->waits++;
    pthread_mutex_unlock(&probe_lock);
    return MH_OK;
}

static mh_status event_wait(void *stream, void *event)
{
    struct event *e = event;
    pthread_mutex_lock(&probe_lock);
    struct work *w = probe_push(stream);
    w->wait = e;
    w->target = e->at->recorded;
    e->waits++;
    pthread_mutex_unlock(&probe_lock);
    return MH_OK;
}

static mh_status event_elapsed(void *device, void *begin, void *end, uint64_t *ns)
{
    (void)device;
    *ns = ((struct event *)end)->when - ((struct event *)begin)->when;
    return MH_OK;
}

static mh_status wrap_event(void *device, uint64_t native, void **event)
{
    (void)device;
    return make_event((struct probe_event *)(uintptr_t)native, event);
}

static mh_status wait_wrapped(void *device, void *event, uint64_t timeout_ns)
{
    struct event *e = event;
    (void)device;
    pthread_mutex_lock(&probe_lock);
    mh_status status = e->at->passed < e->at->recorded ? MH_TIMEOUT : MH_OK;
    if (status && timeout_ns == MH_FOREVER)
        status = pass_event(e, e->at->recorded);
    pthread_mutex_unlock(&probe_lock);
    return status;
}

static mh_status native_event(void *device, void *event, uint64_t *native)
{
    (void)device;
    *native = (uintptr_t)((struct event *)event)->at;
    return MH_OK;
}

/* ---- gates ---- */

static mh_status gate_create(void *device, void **gate)
{
    (void)device;
    *gate = calloc(1, sizeof(struct gate));
    control()->live_objects++;
    return MH_OK;
}

static mh_status gate_hold(void *stream, void *gate)
{
    pthread_mutex_lock(&probe_lock);
    probe_push(stream)->gate = gate;
    pthread_mutex_unlock(&probe_lock);
    return MH_OK;
}

static void gate_open(void *device, void *gate)
{
    (void)device;
    pthread_mutex_lock(&probe_lock);
    ((struct gate *)gate)->open = 1;
    pthread_cond_broadcast(&probe_gate_opened);
    pthread_mutex_unlock(&probe_lock);
}

static void gate_destroy(void *device, void *gate)
{
    (void)device;
    pthread_mutex_lock(&probe_lock);
    control()->live_objects--;
    free(gate);
    pthread_mutex_unlock(&probe_lock);
}

/* ---- wrapping: a queue is a struct probe_queue, memory an address ---- */

static mh_status wrap_stream(void *device, uint64_t native, void **stream)
{
    mh_status status = probe_stream_create(device, stream);
    if (!status)
        ((struct stream *)*stream)->queue = (struct probe_queue *)(uintptr_t)native;
    return status;
}

static mh_status wrap_buffer(void *device, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    struct device *d = device;
    (void)size;
    struct buffer *b = calloc(1, sizeof(*b));
    b->memory = (char *)(uintptr_t)native;
    b->wrapped = 1;
    b->next = d->buffers;
    d->buffers = b;
    control()->live_buffers++;
    out->handle = b;
    return MH_OK;
}

/* ---- modules: an image is text, "kernels NAME NAME ..." ---- */

static mh_status module_load(void *device, const void *image, uint64_t size, const char *options,
                             char *log, uint64_t log_size, void **out)
{
    (void)device;
    static const char said[] = "line 1: expected 'kernels'";
    if (size < 8 || memcmp(image, "kernels ", 8)) {
        strncpy(log, said, log_size - 1);
        log[log_size - 1] = 0;
        return MH_BAD_DATA;
    }
    struct module *m = calloc(1, sizeof(*m));
    memcpy(m->names, (const char *)image + 8, size - 8);
    strncat(m->names, options, 64);
    control()->live_objects++;
    *out = m;
    return MH_OK;
}

static void module_unload(void *device, void *module)
{
    (void)device;
    control()->live_objects--;
    memset(module, 0xdd, sizeof(struct module));
    free(module);
}

static mh_status module_kernel(void *device, void *module, const char *name, void **out)
{
    struct module *m = module;
    (void)device;
    if (!strstr(m->names, name))
        return MH_NOT_FOUND;
    struct kernel *k = calloc(1, sizeof(*k));
    k->module = m;
    control()->live_objects++;
    *out = k;
    return MH_OK;
}

static void kernel_destroy(void *device, void *kernel)
{
    struct kernel *k = kernel;
    (void)device;
    if ((unsigned char)k->module->names[0] == 0xdd)
        control()->destroyed_in_flight++; /* its module went first */
    control()->live_objects--;
    free(k);
}

/* ---- counters ---- */

static mh_status read_counter(void *device, uint32_t index, const char **name, uint64_t *value)
{
    (void)device;
    if (index > 1)
        return MH_NOT_FOUND;
    *name = index ? "copied_bytes" : "encodes";
    *value = index ? control()->copied_bytes : control()->encodes;
    return MH_OK;
}

void probe_set_groups(mh_backend_table *table, uint32_t groups)
{
    static const mh_backend_graph graph = {sizeof(graph), graph_create, graph_launch,
                                           graph_destroy};
    static const mh_backend_event event = {sizeof(event), event_create, event_destroy,
                                           event_record,  event_wait,   event_elapsed};
    static const mh_backend_gate gate = {sizeof(gate), gate_create, gate_hold, gate_open,
                                         gate_destroy};
    static const mh_backend_wrap wrap = {sizeof(wrap), wrap_stream, wrap_buffer,
                                         probe_buffer_destroy};
    static const mh_backend_wrap_event wrapped = {sizeof(wrapped), wrap_event, event_destroy,
                                                  wait_wrapped, native_event};
    static const mh_backend_module module = {sizeof(module), module_load, module_unload,
                                             module_kernel, kernel_destroy};
    static const mh_backend_counters counters = {sizeof(counters), read_counter};
    table->graph = groups & PROBE_GRAPH ? &graph : NULL;
    table->event = groups & PROBE_EVENT ? &event : NULL;
    table->gate = groups & PROBE_GATE ? &gate : NULL;
    table->wrap = groups & PROBE_WRAP ? &wrap : NULL;
    table->wrap_event = groups & PROBE_WRAP_EVENT ? &wrapped : NULL;
    table->module = groups & PROBE_MODULE ? &module : NULL;
    table->counters = groups & PROBE_COUNTERS ? &counters : NULL;
}
