/* launch.c: see launch.h. */
#include "launch.h"

#include <string.h>

static const char *const names[] = {
#define KERNEL(program, name) #name,
#define PROGRAM(name, by_format, sources)
#include "kernels.def"
#undef PROGRAM
#undef KERNEL
};

struct launch launch_begin(const struct run *run, enum kernel_id kernel, mh_format format)
{
    struct launch l = {.run = run, .id = kernel, .format = format};
    if (run->graph) {
        l.kernel = opencl_clone(run->device, kernel, format, &l.code);
        return l;
    }
    pthread_mutex_lock(&run->device->lock);
    l.kernel = run->device->kernels[kernel][format];
    return l;
}

static void arg(struct launch *l, size_t size, const void *value)
{
    if (!l->code)
        l->code = l->run->device->cl->SetKernelArg(l->kernel, l->next, size, value);
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
    const struct split *split = opencl_split_find(l->run->device, w->buffer->handle);
    for (uint32_t i = 0; i < SPLIT_PIECES; i++)
        arg_handle(l, split && i < split->count ? split->piece[i] : w->buffer->handle);
    arg_long(l, split ? (int64_t)split->part : INT64_MAX);
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

void arg_word(struct launch *l, uint64_t offset)
{
    arg_handle(l, l->run->scratch->handle);
    arg_long(l, (int64_t)(l->run->scratch->offset + offset) / 4);
}

void arg_buffer(struct launch *l, const mh_buffer *buffer)
{
    arg_handle(l, mh_view_buffer(buffer)->handle);
}

/* Room for one more node; the graph is the only one that grows. */
static bool has_room(struct graph *graph)
{
    const mh_core *core = graph->device->core;
    if (graph->count < graph->capacity)
        return true;
    uint32_t capacity = graph->capacity ? 2 * graph->capacity : 64;
    struct node *nodes = core->allocate(core->context, capacity * sizeof(*nodes));
    if (!nodes)
        return false;
    if (graph->count)
        memcpy(nodes, graph->nodes, graph->count * sizeof(*nodes));
    core->deallocate(core->context, graph->nodes);
    graph->nodes = nodes;
    graph->capacity = capacity;
    return true;
}

static mh_status record(struct launch *l, const size_t global[3])
{
    struct graph *graph = l->run->graph;
    bool kept = !l->code && has_room(graph);
    if (kept) {
        struct node *node = &graph->nodes[graph->count++];
        node->kernel = l->kernel;
        memcpy(node->global, global, sizeof(node->global));
    } else if (l->kernel) {
        l->run->device->cl->ReleaseKernel(l->kernel);
    }
    return kept || l->code ? MH_OK : MH_OUT_OF_MEMORY;
}

mh_status launch_end(struct launch *l, int64_t x, int64_t y, int64_t z)
{
    struct device *device = l->run->device;
    const size_t local[3] = {device->lanes, 1, 1};
    const size_t global[3] = {(size_t)x * device->lanes, (size_t)y, (size_t)z};
    const char *call = l->kernel ? "clSetKernelArg" : "clCreateKernel";
    mh_status status = MH_OK;
    if (l->run->graph) {
        status = record(l, global);
    } else {
        if (!l->code) {
            call = "clEnqueueNDRangeKernel";
            l->code = device->cl->EnqueueNDRangeKernel(l->run->queue, l->kernel, 3, NULL, global,
                                                       local, 0, NULL, NULL);
        }
        pthread_mutex_unlock(&device->lock);
    }
    if (l->code)
        return CL_FAIL(device->core, call, l->code,
                       "%s: kernel %s, argument %u of groups %lld x %lld x %lld", device->name,
                       names[l->id], l->next, (long long)x, (long long)y, (long long)z);
    return status;
}
