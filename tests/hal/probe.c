#include "probe_impl.h"

#include <stdlib.h>
#include <string.h>

static struct probe_control control;
pthread_mutex_t probe_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t probe_gate_opened = PTHREAD_COND_INITIALIZER;

const mh_core *probe_core;
#define core probe_core

static mh_status init(const mh_core *given, void **instance)
{
    core = given;
    control.inits++;
    *instance = &control;
    return MH_OK;
}

static void fini(void *instance)
{
    (void)instance;
    control.finis++;
}

static mh_status device_info(void *instance, uint32_t index, mh_device_info *out)
{
    (void)instance;
    if (index > 1)
        return MH_NOT_FOUND;
    out->kind = MH_DEVICE_ACCELERATOR;
    out->flags = MH_DEVICE_BY_NAME_ONLY;
    strcpy(out->id, index ? "probe-broken" : "probe-0");
    strcpy(out->name, index ? "A broken probe" : "A probe for tests");
    if (index) {
        out->status = MH_VENDOR_ERROR;
        strcpy(out->reason, "fuse blown");
    }
    return MH_OK;
}

static mh_status device_open(void *instance, uint32_t index, const mh_backend_open *params,
                             void **out)
{
    (void)instance, (void)index;
    control.opens++;
    control.context = params->context;
    control.native_context = params->native_context;
    *out = calloc(1, sizeof(struct device));
    return *out ? MH_OK : MH_OUT_OF_MEMORY;
}

static void device_close(void *device)
{
    control.closes++;
    free(device);
}

static mh_status memory_info(void *device, uint64_t *total, uint64_t *available)
{
    *total = control.memory_limit;
    *available = control.memory_limit ? control.memory_limit - ((struct device *)device)->used : 0;
    return MH_OK;
}

static mh_status buffer_create(void *device, uint64_t size, uint32_t kind, mh_buffer_view *out)
{
    struct device *d = device;
    (void)kind;
    if (control.memory_limit && size > control.memory_limit - d->used)
        return FAIL(MH_OUT_OF_MEMORY, "probe: %llu bytes asked, %llu left",
                    (unsigned long long)size, (unsigned long long)(control.memory_limit - d->used));
    if (control.null_handles)
        return MH_OK;
    struct buffer *b = calloc(1, sizeof(*b));
    b->memory = malloc(size);
    memset(b->memory, 0xA5, size);
    d->used += size;
    b->next = d->buffers;
    d->buffers = b;
    control.live_buffers++;
    out->handle = b;
    return MH_OK;
}

static void free_buffer(struct buffer *b)
{
    control.live_buffers--;
    if (!b->wrapped)
        free(b->memory);
    free(b);
}

void probe_buffer_destroy(void *device, mh_buffer_view *view)
{
    struct device *d = device;
    struct buffer *b = view->handle, **link = &d->buffers;
    while (*link != b)
        link = &(*link)->next;
    *link = b->next;
    if (!b->wrapped)
        d->used -= view->size;
    if (b->pending)
        control.destroyed_in_flight++;
    free_buffer(b);
}

mh_status probe_stream_create(void *device, void **out)
{
    struct stream *s = calloc(1, sizeof(*s));
    s->device = device;
    s->tail = &s->first;
    s->next = s->device->streams;
    s->device->streams = s;
    *out = s;
    return MH_OK;
}

struct work *probe_push(struct stream *s)
{
    struct work *w = calloc(1, sizeof(*w));
    if (s->queue)
        s->queue->pushed++;
    *s->tail = w;
    s->tail = &w->next;
    return w;
}

/* ---- the kernels ---- */

static void resolve(struct work *w)
{
    const mh_tensor *tensors[3] = {0};
    if (w->op.base.op == MH_OP_ADD)
        tensors[0] = &w->op.add.y, tensors[1] = &w->op.add.a, tensors[2] = &w->op.add.b;
    else if (w->op.base.op == MH_OP_LINEAR)
        tensors[0] = &w->op.linear.y, tensors[1] = &w->op.linear.x;
    for (int i = 0; i < 3; i++)
        if (tensors[i])
            w->buffers[i] = mh_view_buffer(tensors[i]->buffer)->handle;
    if (w->op.base.op == MH_OP_KERNEL) {
        memcpy(w->args, w->op.kernel.args, w->op.kernel.arg_count * sizeof(*w->args));
        for (uint32_t i = 0, n = 0; i < w->op.kernel.arg_count; i++)
            if (w->args[i].kind == MH_ARG_TENSOR)
                w->buffers[n++] = mh_view_buffer(w->args[i].tensor.buffer)->handle;
    }
    if (w->op.base.op != MH_OP_LINEAR)
        return;
    w->weight = *mh_view_weight(w->op.linear.w);
    w->buffers[3] = w->weight.buffer->handle;
}

void probe_pend(struct work *w, int by)
{
    for (int i = 0; i < 4; i++)
        if (w->buffers[i])
            w->buffers[i]->pending += (uint64_t)by;
    if (w->copy.direction == MH_COPY_TO_DEVICE || w->copy.direction == MH_COPY_ON_DEVICE)
        ((struct buffer *)w->copy.to)->pending += (uint64_t)by;
    if (w->copy.direction == MH_COPY_TO_HOST || w->copy.direction == MH_COPY_ON_DEVICE)
        ((struct buffer *)(uintptr_t)w->copy.from)->pending += (uint64_t)by;
}

void probe_fill(struct work *w, const mh_op *op)
{
    memcpy(&w->op, op, op->struct_size < sizeof(w->op) ? op->struct_size : sizeof(w->op));
    resolve(w);
}

static float *at(const struct work *w, int operand, const mh_tensor *t, int64_t i, int64_t j)
{
    return (float *)(void *)(w->buffers[operand]->memory + t->offset + i * t->stride[0] +
                             j * t->stride[1]);
}

static void run_add(const struct work *w)
{
    const mh_op_add *o = &w->op.add;
    for (int64_t i = 0; i < o->y.shape[0]; i++)
        for (int64_t j = 0; j < o->y.shape[1]; j++)
            *at(w, 0, &o->y, i, j) = *at(w, 1, &o->a, i, j) + *at(w, 2, &o->b, i, j);
}

/* Rule 2 for f32 weights, written from docs/numerics.md. */
static void run_linear(const struct work *w)
{
    const mh_op_linear *o = &w->op.linear;
    const mh_weight_view *v = &w->weight;
    for (int64_t t = 0; t < o->y.shape[0]; t++)
        for (int64_t r = 0; r < v->out; r++) {
            const float *row = (const void *)(w->buffers[3]->memory + v->offset[0] +
                                              (uint64_t)(r * v->row_stride[0]));
            float a[64] = {0};
            for (int64_t k = 0; k < v->in; k++)
                a[k % 64] = __builtin_fmaf(*at(w, 1, &o->x, t, k), row[k], a[k % 64]);
            for (int h = 32; h; h /= 2)
                for (int j = 0; j < h; j++)
                    a[j] += a[j + h];
            *at(w, 0, &o->y, t, r) = a[0] + 0.0f;
        }
}

void probe_run(struct work *w)
{
    probe_pend(w, -1);
    if (w->copy.direction == MH_COPY_TO_DEVICE)
        memcpy(((struct buffer *)w->copy.to)->memory + w->copy.to_offset, w->copy.from,
               w->copy.size);
    else if (w->copy.direction == MH_COPY_TO_HOST)
        memcpy(w->copy.to, ((const struct buffer *)w->copy.from)->memory + w->copy.from_offset,
               w->copy.size);
    else if (w->copy.direction == MH_COPY_ON_DEVICE)
        memcpy(((struct buffer *)w->copy.to)->memory + w->copy.to_offset,
               ((const struct buffer *)w->copy.from)->memory + w->copy.from_offset, w->copy.size);
    else if (w->op.base.op == MH_OP_ADD)
        run_add(w);
    else if (w->op.base.op == MH_OP_LINEAR)
        run_linear(w);
    else if (w->op.base.op == MH_OP_KERNEL)
        probe_run_kernel(w);
    control.clock += 1000;
}

/* ---- the queue ---- */

static mh_status copy(void *stream, const mh_copy *c)
{
    struct stream *s = stream;
    if (s->device->lost)
        return FAIL(MH_DEVICE_LOST, "probe: unplugged");
    pthread_mutex_lock(&probe_lock);
    struct work *w = probe_push(s);
    w->copy = *c;
    probe_pend(w, 1);
    control.copied_bytes += c->size;
    pthread_mutex_unlock(&probe_lock);
    return MH_OK;
}

static mh_status mark(void *stream, uint64_t *sequence)
{
    struct stream *s = stream;
    pthread_mutex_lock(&probe_lock);
    *sequence = probe_push(s)->mark = ++s->next_mark;
    if (control.mark_backwards)
        *sequence = 1;
    pthread_mutex_unlock(&probe_lock);
    return MH_OK;
}

mh_status probe_advance(struct stream *s)
{
    struct work *w = s->first;
    mh_status status = MH_OK;
    if (w->mark)
        s->done = w->mark;
    else if (!probe_run_other(s, w, &status))
        probe_run(w);
    if (status)
        return status;
    s->first = w->next;
    if (!s->first)
        s->tail = &s->first;
    free(w);
    return MH_OK;
}

static mh_status wait_for(void *stream, uint64_t sequence, uint64_t timeout_ns)
{
    struct stream *s = stream;
    mh_status status = MH_OK;
    if (control.fail_wait && !--control.fail_wait)
        return FAIL(MH_VENDOR_ERROR, "probe: a kernel faulted");
    if (s->device->lost)
        return FAIL(MH_DEVICE_LOST, "probe: unplugged");
    pthread_mutex_lock(&probe_lock);
    if (s->done < sequence && control.gate_closed && timeout_ns != MH_FOREVER)
        status = MH_TIMEOUT;
    while (!status && s->done < sequence) {
        status = probe_advance(s);
        if (status == MH_TIMEOUT && timeout_ns == MH_FOREVER) {
            struct timespec soon; /* a test that passes an event tells nobody */
            clock_gettime(CLOCK_REALTIME, &soon);
            soon.tv_nsec = (soon.tv_nsec + 1000000) % 1000000000;
            soon.tv_sec += soon.tv_nsec < 1000000;
            pthread_cond_timedwait(&probe_gate_opened, &probe_lock, &soon);
            status = MH_OK;
        }
    }
    pthread_mutex_unlock(&probe_lock);
    return status;
}

static void free_stream(struct stream *s)
{
    while (s->first) {
        struct work *w = s->first;
        s->first = w->next;
        probe_pend(w, -1);
        probe_drop_other(w);
        free(w);
    }
    free(s);
}

static void stream_destroy(void *stream)
{
    struct stream *s = stream, **link = &s->device->streams;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    free_stream(s);
}

static mh_status supports(void *device, const mh_op *op, uint32_t *missing, char reason[192])
{
    (void)device;
    if (control.fickle)
        control.native ^= 1u << op->op;
    if (op->op == MH_OP_KERNEL) {
        const mh_op_kernel *k = (const void *)op;
        if (k->block[0] <= 64)
            return MH_OK;
        *missing = MH_MISSING_LIMIT;
        strcpy(reason, "block is larger than 64");
        return MH_OK;
    }
    if (control.native >> op->op & 1)
        return MH_OK;
    *missing = MH_MISSING_KERNEL;
    if (control.endless_reason)
        memset(reason, 'r', 191);
    else
        strcpy(reason, "the probe has no such kernel");
    return MH_OK;
}

static mh_status encode(void *stream, const mh_op *op, const mh_scratch *scratch)
{
    struct stream *s = stream;
    (void)scratch;
    if (control.lose_at && !--control.lose_at) {
        s->device->lost = 1;
        return FAIL(MH_DEVICE_LOST, "probe: unplugged at an op");
    }
    pthread_mutex_lock(&probe_lock);
    struct work *w = probe_push(s);
    probe_fill(w, op);
    probe_pend(w, 1);
    control.encodes++;
    pthread_mutex_unlock(&probe_lock);
    return control.refuse_encode ? MH_UNSUPPORTED : MH_OK;
}

static mh_status reset(void *device)
{
    struct device *d = device;
    while (d->streams) {
        struct stream *s = d->streams;
        d->streams = s->next;
        free_stream(s);
    }
    while (d->buffers) {
        struct buffer *b = d->buffers;
        d->buffers = b->next;
        free_buffer(b);
    }
    d->lost = 0;
    d->used = 0;
    return MH_OK;
}

static const mh_backend_reset reset_group = {sizeof(reset_group), reset};

static mh_backend_table table = {
    .struct_size = sizeof(table),
    .abi = MH_ABI,
    .name = "probe",
    .description = "runs late and fails on request",
    .init = init,
    .fini = fini,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .memory_info = memory_info,
    .buffer_create = buffer_create,
    .buffer_destroy = probe_buffer_destroy,
    .stream_create = probe_stream_create,
    .stream_destroy = stream_destroy,
    .copy = copy,
    .mark = mark,
    .wait = wait_for,
    .supports = supports,
    .encode = encode,
};

MH_API struct probe_control *probe_control(void);
struct probe_control *probe_control(void)
{
    return &control;
}

MH_API const mh_backend_table *mh_backend_entry(void);
const mh_backend_table *mh_backend_entry(void)
{
    table.reset = control.no_reset ? NULL : &reset_group;
    probe_set_groups(&table, control.groups);
    return &table;
}
