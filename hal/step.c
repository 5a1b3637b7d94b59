#include <stdlib.h>
#include <string.h>

#include "hal.h"

/* Staging copies of the inputs: a step may be prepared while the one before is on its way. */
#define RING 2

struct mh_step {
    atomic_uint refs;
    mh_device *device;
    mh_step_params params;
    mh_buffer *buffer;
    uint64_t offset[MH_STEP_PARTS + 1];
    char *staging[RING]; /* all parts; outputs are zero there */
    mh_event *sent[RING];
    bool on_its_way[RING];
    uint32_t current;
    char *outputs; /* NEXT to FAULT, as they were read */
};

static mh_tensor part_tensor(const mh_step *step, mh_step_part part, mh_dtype dtype, uint32_t rank,
                             int64_t a, int64_t b)
{
    const int64_t shape[] = {a, b};
    return mh_tensor_make(step->buffer, step->offset[part], dtype, rank, shape);
}

mh_tensor mh_step_tensor(mh_step *step, mh_step_part part)
{
    int64_t rows = step->params.rows;
    switch (part) {
    case MH_STEP_TOKENS:
    case MH_STEP_POSITIONS:
    case MH_STEP_SLOTS:
    case MH_STEP_NEXT:
    case MH_STEP_WRITES:
        return part_tensor(step, part, MH_I32, 1, rows, 0);
    case MH_STEP_PAGE_TABLE:
        return part_tensor(step, part, MH_I32, 2, step->params.slots, step->params.pages);
    case MH_STEP_SAMPLING:
        return part_tensor(step, part, MH_U32, 2, rows, 8);
    case MH_STEP_ACCEPTED:
        return part_tensor(step, part, MH_I32, 1, 1, 0);
    case MH_STEP_FAULT:
        return part_tensor(step, part, MH_U32, 1, 1, 0);
    default:
        return (mh_tensor){0};
    }
}

static uint64_t layout(mh_step *step)
{
    uint64_t offset = 0;
    for (mh_step_part part = 0; part < MH_STEP_PARTS; part++) {
        step->offset[part] = offset;
        mh_tensor t = mh_step_tensor(step, part);
        uint64_t bytes = 4;
        for (uint32_t i = 0; i < t.rank; i++)
            bytes *= (uint64_t)t.shape[i];
        offset = (offset + bytes + 255) & ~UINT64_C(255);
    }
    step->offset[MH_STEP_PARTS] = offset;
    return offset;
}

/* Of the outputs from `first` to FAULT: they are read as one copy, which costs what any does. */
static uint64_t output_bytes(const mh_step *step, mh_step_part first)
{
    return step->offset[MH_STEP_FAULT] + sizeof(uint32_t) - step->offset[first];
}

static mh_status check_params(mh_device *device, const mh_step_params *p)
{
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"rows", p->rows}, {"slots", p->slots}, {"pages", p->pages}};
    for (size_t i = 0; i < 3; i++)
        if (sizes[i].value < 1 || sizes[i].value > 1 << 20)
            return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                            "mh_step_params: %s is %lld, must be 1 to 2^20", sizes[i].name,
                            (long long)sizes[i].value);
    return MH_OK;
}

mh_status mh_step_create(mh_device *device, const mh_step_params *params, mh_step **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_step_create: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    mh_step_params p;
    mh_status status = mh_struct_in(&p, params, sizeof(p), "mh_step_params");
    if (!status)
        status = check_params(device, &p);
    if (status)
        return status;
    mh_step *step = hal_alloc(device->runtime, sizeof(*step));
    if (!step)
        return MH_OUT_OF_MEMORY;
    atomic_init(&step->refs, 1);
    step->device = mh_device_retain(device);
    step->params = p;
    uint64_t bytes = layout(step);
    status = mh_buffer_create(device, bytes, MH_BUFFER_DEVICE, &step->buffer);
    for (int i = 0; !status && i < RING; i++) {
        step->staging[i] = hal_alloc(device->runtime, bytes);
        status = step->staging[i] ? mh_event_create(device, &step->sent[i]) : MH_OUT_OF_MEMORY;
    }
    if (!status) {
        step->outputs = hal_alloc(device->runtime, output_bytes(step, MH_STEP_NEXT));
        status = step->outputs ? MH_OK : MH_OUT_OF_MEMORY;
    }
    if (status)
        mh_step_release(step);
    else
        *out = step;
    return status;
}

mh_step *mh_step_retain(mh_step *step)
{
    if (step)
        atomic_fetch_add_explicit(&step->refs, 1, memory_order_relaxed);
    return step;
}

void mh_step_release(mh_step *step)
{
    if (!step || atomic_fetch_sub_explicit(&step->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_device *device = step->device;
    for (int i = 0; i < RING; i++) {
        if (step->on_its_way[i])
            mh_event_wait(step->sent[i], MH_FOREVER); /* a copy may still read the staging */
        mh_event_release(step->sent[i]);
        hal_free(device->runtime, step->staging[i]);
    }
    hal_free(device->runtime, step->outputs);
    mh_buffer_release(step->buffer);
    hal_free(device->runtime, step);
    mh_device_release(device);
}

void *mh_step_input(mh_step *step, mh_step_part part)
{
    bool input = part < MH_STEP_NEXT || part == MH_STEP_WRITES;
    return step && input ? step->staging[step->current] + step->offset[part] : NULL;
}

mh_status mh_step_write(mh_step *step, mh_stream *stream)
{
    if (!step)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_step_write: step is NULL");
    uint32_t now = step->current, next = (now + 1) % RING;
    uint64_t bytes = step->offset[MH_STEP_PARTS];
    mh_status status = mh_stream_write(stream, step->buffer, 0, step->staging[now], bytes);
    if (status)
        return status;
    status = mh_event_record(step->sent[now], stream);
    if (status) { /* no event will tell when the copy has read the staging */
        mh_stream_wait(stream, MH_FOREVER);
        return status;
    }
    step->on_its_way[now] = true;
    if (step->on_its_way[next])
        status = mh_event_wait(step->sent[next], MH_FOREVER);
    if (status)
        return status;
    memcpy(step->staging[next], step->staging[now], bytes);
    step->current = next;
    return MH_OK;
}

mh_status mh_step_read(mh_step *step, mh_stream *stream, int32_t *next, int64_t rows)
{
    if (!step)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_step_read: step is NULL");
    if (rows < 0 || rows > step->params.rows || (rows && !next))
        return hal_fail(step->device->runtime, MH_INVALID_ARGUMENT,
                        "mh_step_read: rows is %lld, the step has %lld", (long long)rows,
                        (long long)step->params.rows);
    mh_step_part first = rows ? MH_STEP_NEXT : MH_STEP_FAULT;
    uint64_t bytes = output_bytes(step, first);
    mh_status status =
        mh_stream_read(stream, step->buffer, step->offset[first], step->outputs, bytes);
    mh_status waited = mh_stream_wait(stream, MH_FOREVER); /* whatever was begun writes there */
    status = status ? status : waited;
    uint32_t fault = 0;
    if (!status) {
        memcpy(&fault, step->outputs + bytes - sizeof(fault), sizeof(fault));
        if (rows)
            memcpy(next, step->outputs, (size_t)rows * sizeof(*next));
    }
    if (!status && fault)
        status = hal_fail(step->device->runtime, fault,
                          "step: a kernel met an index out of range (%s)", mh_status_text(fault));
    return status;
}
