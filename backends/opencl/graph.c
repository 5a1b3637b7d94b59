/* graph.c: recorded launches. Each node has a cl_kernel of its own, so that a launch sets no
 * argument; where the driver has command buffers, a launch is one call. */
#include "launch.h"

static void destroy(void *device, void *user)
{
    struct graph *graph = user;
    const mh_core *core = graph->device->core;
    (void)device;
    opencl_release_commands(graph);
    for (uint32_t i = 0; i < graph->count; i++)
        graph->device->cl->ReleaseKernel(graph->nodes[i].kernel);
    core->deallocate(core->context, graph->nodes);
    core->deallocate(core->context, graph);
}

static mh_status create(void *user, const mh_op *const *ops, const mh_scratch *scratch,
                        uint32_t count, void **out)
{
    struct device *device = user;
    const mh_core *core = device->core;
    mh_status status = MH_OK;
    for (uint32_t i = 0; i < count; i++)
        if (ops[i]->op == MH_OP_KERNEL) /* has one set of arguments, its owner's */
            return MH_UNSUPPORTED;
    struct graph *graph = core->allocate(core->context, sizeof(*graph));
    if (!graph)
        return MH_OUT_OF_MEMORY;
    *graph = (struct graph){.device = device};
    for (uint32_t i = 0; !status && i < count; i++) {
        const struct run run = {device, NULL, graph, &scratch[i]};
        status = opencl_run(&run, ops[i]);
    }
    if (status) {
        destroy(device, graph);
        return status;
    }
    opencl_record_commands(graph);
    *out = graph;
    return MH_OK;
}

static mh_status launch(void *user, void *recorded)
{
    struct stream *stream = user;
    struct graph *graph = recorded;
    struct device *device = stream->device;
    stream->dirty = true;
    if (opencl_launch_commands(graph, stream))
        return MH_OK;
    atomic_fetch_add(&device->replayed, 1);
    const size_t local[3] = {device->lanes, 1, 1};
    for (uint32_t i = 0; i < graph->count; i++) {
        const struct node *node = &graph->nodes[i];
        cl_int code = device->cl->EnqueueNDRangeKernel(stream->queue, node->kernel, 3, NULL,
                                                       node->global, local, 0, NULL, NULL);
        if (code)
            return CL_FAIL(device->core, "clEnqueueNDRangeKernel", code,
                           "%s: launch %u of a graph's %u", device->name, i + 1, graph->count);
    }
    return MH_OK;
}

const mh_backend_graph opencl_graph_group = {sizeof(opencl_graph_group), create, launch, destroy};
