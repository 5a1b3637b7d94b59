/* launch.c: see launch.h. */
#include "launch.h"

static const char *const names[] = {
#define KERNEL(program, name) #name,
#define PROGRAM(name, by_format, sources)
#include "kernels.def"
#undef PROGRAM
#undef KERNEL
};

struct launch launch_begin(const struct run *run, enum kernel_id kernel, mh_format format)
{
    struct device *device = run->stream->device;
    pthread_mutex_lock(&device->lock);
    return (struct launch){.run = run, .id = kernel, .kernel = device->kernels[kernel][format]};
}

static void arg(struct launch *l, size_t size, const void *value)
{
    if (!l->code)
        l->code = l->run->stream->device->cl->SetKernelArg(l->kernel, l->next, size, value);
    l->next++;
}

static void arg_handle(struct launch *l, void *handle)
{
    cl_mem memory = handle;
    arg(l, sizeof(memory), &memory);
}

void arg_long4(struct launch *l, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t values[4] __attribute__((aligned(32))) = {a, b, c, d};
    arg(l, sizeof(values), values);
}

void arg_long(struct launch *l, int64_t value)
{
    arg(l, sizeof(value), &value);
}

void arg_int(struct launch *l, int32_t value)
{
    arg(l, sizeof(value), &value);
}

void arg_float(struct launch *l, float value)
{
    arg(l, sizeof(value), &value);
}

void arg_tensor(struct launch *l, const mh_tensor *t)
{
    int64_t size = bytes_of(t->dtype), stride[3] = {0};
    for (uint32_t i = 0; i < t->rank && i < 3; i++)
        stride[i] = t->stride[i] / size;
    arg_handle(l, mh_view_buffer(t->buffer)->handle);
    arg_long4(l, (int64_t)t->offset / size, stride[0], stride[1], stride[2]);
}

void arg_optional(struct launch *l, const mh_tensor *t, const mh_tensor *instead)
{
    arg_tensor(l, t->rank ? t : instead);
    arg_int(l, t->rank != 0);
}

void arg_weight(struct launch *l, const mh_weight *weight)
{
    const mh_weight_view *w = mh_view_weight(weight);
    arg_handle(l, w->buffer->handle);
    arg_long4(l, (int64_t)w->offset[0], w->expert_stride[0], w->row_stride[0], 0);
    if (w->plane_count > 1)
        arg_long4(l, (int64_t)w->offset[1], w->expert_stride[1], w->row_stride[1], 0);
    else
        arg_long4(l, 0, 0, 0, 0);
}

void arg_fault(struct launch *l, const mh_tensor *fault)
{
    arg_handle(l, mh_view_buffer(fault->buffer)->handle);
    arg_long(l, (int64_t)fault->offset / 4);
}

void arg_scratch3(struct launch *l, uint64_t offset, int64_t stride0, int64_t stride1)
{
    arg_handle(l, l->run->scratch->handle);
    arg_long4(l, (int64_t)(l->run->scratch->offset + offset) / 4, stride0, stride1, 0);
}

void arg_scratch(struct launch *l, uint64_t offset, int64_t columns)
{
    arg_scratch3(l, offset, columns, 0);
}

void arg_buffer(struct launch *l, const mh_buffer *buffer)
{
    arg_handle(l, mh_view_buffer(buffer)->handle);
}

mh_status launch_end(struct launch *l, int64_t x, int64_t y, int64_t z)
{
    struct stream *stream = l->run->stream;
    struct device *device = stream->device;
    const size_t local[3] = {device->lanes, 1, 1};
    const size_t global[3] = {(size_t)x * device->lanes, (size_t)y, (size_t)z};
    const char *call = "clSetKernelArg";
    if (!l->code) {
        call = "clEnqueueNDRangeKernel";
        l->code = device->cl->EnqueueNDRangeKernel(stream->queue, l->kernel, 3, NULL, global, local,
                                                   0, NULL, NULL);
    }
    pthread_mutex_unlock(&device->lock);
    return l->code ? CL_FAIL(device->core, call, l->code,
                             "%s: kernel %s, argument %u of groups "
                             "%lld x %lld x %lld",
                             device->name, names[l->id], l->next, (long long)x, (long long)y,
                             (long long)z)
                   : MH_OK;
}
