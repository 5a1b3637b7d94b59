#include "probe.h"

#include <stdlib.h>
#include <string.h>

static struct probe_control control;

struct buffer {
    struct buffer *next; /* of its device: a reset takes all */
    char *memory;
    uint64_t pending; /* queued work that names it */
};

struct device {
    struct buffer *buffers;
    struct stream *streams;
    uint64_t used;
    int lost;
};

struct work {
    struct work *next;
    mh_copy copy;
    union {
        mh_op base;
        mh_op_add add;
        mh_op_copy copy;
        mh_op_fill fill;
        mh_op_linear linear;
    } op;
    /* What an op needs is resolved when it is encoded: neither it nor the views outlive that call.
     */
    struct buffer *buffers[4];
    mh_weight_view weight;
    uint64_t mark;
};

struct stream {
    struct stream *next;
    struct device *device;
    struct work *first, **tail;
    uint64_t next_mark, done;
};

static const mh_core *core;

#define FAIL(status, ...)                                                                          \
    core->fail(core->context, __FILE__, __LINE__, (status), "probeCall", 42, "PROBE_ERROR",        \
               __VA_ARGS__)

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
    (void)instance, (void)index, (void)params;
    control.opens++;
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
    free(b->memory);
    free(b);
}

static void buffer_destroy(void *device, mh_buffer_view *view)
{
    struct device *d = device;
    struct buffer *b = view->handle, **link = &d->buffers;
    while (*link != b)
        link = &(*link)->next;
    *link = b->next;
    d->used -= view->size;
    if (b->pending)
        control.destroyed_in_flight++;
    free_buffer(b);
}

static mh_status stream_create(void *device, void **out)
{
    struct stream *s = calloc(1, sizeof(*s));
    s->device = device;
    s->tail = &s->first;
    s->next = s->device->streams;
    s->device->streams = s;
    *out = s;
    return MH_OK;
}

static struct work *push(struct stream *s)
{
    struct work *w = calloc(1, sizeof(*w));
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
    if (w->op.base.op != MH_OP_LINEAR)
        return;
    w->weight = *mh_view_weight(w->op.linear.w);
    w->buffers[3] = w->weight.buffer->handle;
}

static void pend(struct work *w, int by)
{
    for (int i = 0; i < 4; i++)
        if (w->buffers[i])
            w->buffers[i]->pending += (uint64_t)by;
    if (w->copy.direction == MH_COPY_TO_DEVICE || w->copy.direction == MH_COPY_ON_DEVICE)
        ((struct buffer *)w->copy.to)->pending += (uint64_t)by;
    if (w->copy.direction == MH_COPY_TO_HOST || w->copy.direction == MH_COPY_ON_DEVICE)
        ((struct buffer *)(uintptr_t)w->copy.from)->pending += (uint64_t)by;
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

static void run(struct work *w)
{
    pend(w, -1);
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
}

/* ---- the queue ---- */

static mh_status copy(void *stream, const mh_copy *c)
{
    struct stream *s = stream;
    if (s->device->lost)
        return FAIL(MH_DEVICE_LOST, "probe: unplugged");
    struct work *w = push(s);
    w->copy = *c;
    pend(w, 1);
    return MH_OK;
}

static mh_status mark(void *stream, uint64_t *sequence)
{
    struct stream *s = stream;
    *sequence = push(s)->mark = ++s->next_mark;
    return MH_OK;
}

static mh_status wait_for(void *stream, uint64_t sequence, uint64_t timeout_ns)
{
    struct stream *s = stream;
    if (control.fail_wait && !--control.fail_wait)
        return FAIL(MH_VENDOR_ERROR, "probe: a kernel faulted");
    if (s->device->lost)
        return FAIL(MH_DEVICE_LOST, "probe: unplugged");
    if (s->done < sequence && control.gate_closed && timeout_ns != MH_FOREVER)
        return MH_TIMEOUT;
    while (s->done < sequence) {
        struct work *w = s->first;
        s->first = w->next;
        if (!s->first)
            s->tail = &s->first;
        if (w->mark)
            s->done = w->mark;
        else
            run(w);
        free(w);
    }
    return MH_OK;
}

static void free_stream(struct stream *s)
{
    while (s->first) {
        struct work *w = s->first;
        s->first = w->next;
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
    if (control.native >> op->op & 1)
        return MH_OK;
    *missing = MH_MISSING_KERNEL;
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
    struct work *w = push(s);
    memcpy(&w->op, op, op->struct_size < sizeof(w->op) ? op->struct_size : sizeof(w->op));
    resolve(w);
    pend(w, 1);
    return MH_OK;
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
    .buffer_destroy = buffer_destroy,
    .stream_create = stream_create,
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
    return &table;
}
