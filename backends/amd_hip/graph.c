/* graph.c: ops as a graph of the runtime's own, a chain of kernel nodes. */
#include "amd.h"

struct graph {
    hipGraph_t graph;
    hipGraphExec_t exec;
    void *counters;
};

static mh_status add_node(struct device *device, struct graph *graph, hipGraphNode_t *last,
                          const hipKernelNodeParams *params)
{
    hipGraphNode_t node;
    int result = device->hip->GraphAddKernelNode(&node, graph->graph, last, *last ? 1 : 0, params);
    /* Early runtimes take only kernels of the program itself, none of a module. */
    if (result == hipErrorInvalidSymbol || result == hipErrorInvalidDeviceFunction)
        return MH_UNSUPPORTED;
    if (result == hipSuccess)
        *last = node;
    return amd_check(device->instance, result, "hipGraphAddKernelNode", __FILE__, __LINE__);
}

static mh_status add_user_kernel(struct device *device, struct graph *graph, hipGraphNode_t *last,
                                 const mh_op_kernel *op)
{
    struct user_launch l;
    amd_user_launch(op, &l);
    return add_node(device, graph, last,
                    &(hipKernelNodeParams){.function = l.function,
                                           .grid = {op->grid[0], op->grid[1], op->grid[2]},
                                           .block = {op->block[0], op->block[1], op->block[2]},
                                           .lds_bytes = (unsigned)op->shared_bytes,
                                           .params = l.params});
}

static mh_status add_op(struct device *device, struct graph *graph, hipGraphNode_t *last,
                        const mh_op *op, const mh_scratch *scratch)
{
    struct launch launches[MAX_LAUNCHES];
    if (op->op == MH_OP_KERNEL)
        return add_user_kernel(device, graph, last, (const void *)op);
    uint32_t count = amd_plan(device, op, scratch, graph->counters, launches);
    mh_status status = MH_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        struct launch *l = &launches[i];
        void *params[] = {l->arguments};
        status =
            add_node(device, graph, last,
                     &(hipKernelNodeParams){
                         .function = device->functions[l->kernel][l->format],
                         .grid = {(uint32_t)l->grid[0], (uint32_t)l->grid[1], (uint32_t)l->grid[2]},
                         .block = {l->block, 1, 1},
                         .lds_bytes = l->lds,
                         .params = params});
    }
    return status;
}

static void release(struct device *device, struct graph *graph)
{
    if (graph->exec)
        device->hip->GraphExecDestroy(graph->exec);
    if (graph->graph)
        device->hip->GraphDestroy(graph->graph);
    if (graph->counters)
        device->hip->Free(graph->counters);
    device->core->deallocate(device->core->context, graph);
}

static mh_status fill(struct device *device, struct graph *graph, const mh_op *const *ops,
                      const mh_scratch *scratch, uint32_t count)
{
    hipGraphNode_t last = NULL;
    mh_status status = amd_counters_create(device, &graph->counters);
    if (!status)
        status = HIP(device, GraphCreate(&graph->graph, 0));
    for (uint32_t i = 0; i < count && !status; i++)
        status = add_op(device, graph, &last, ops[i], &scratch[i]);
    if (!status)
        status = HIP(device, GraphInstantiate(&graph->exec, graph->graph, NULL, NULL, 0));
    return status;
}

static mh_status create(void *user, const mh_op *const *ops, const mh_scratch *scratch,
                        uint32_t count, void **out)
{
    struct device *device = user;
    const struct runtime *hip = device->hip;
    if (!hip->GraphCreate || !hip->GraphAddKernelNode || !hip->GraphInstantiate ||
        !hip->GraphLaunch || !hip->GraphExecDestroy || !hip->GraphDestroy)
        return MH_UNSUPPORTED;
    struct graph *graph = device->core->allocate(device->core->context, sizeof(*graph));
    if (!graph)
        return MH_OUT_OF_MEMORY;
    int before;
    mh_status status = amd_enter(device, &before);
    if (!status) {
        status = fill(device, graph, ops, scratch, count);
        amd_leave(device, before);
    }
    if (status)
        release(device, graph);
    else
        *out = graph;
    return status;
}

static mh_status launch(void *user, void *graph)
{
    struct stream *stream = user;
    int before;
    mh_status status = amd_enter(stream->device, &before);
    if (status)
        return status;
    status = HIP(stream->device, GraphLaunch(((struct graph *)graph)->exec, stream->stream));
    amd_leave(stream->device, before);
    return status;
}

static void destroy(void *device, void *graph)
{
    release(device, graph);
}

const mh_backend_graph amd_graph_group = {sizeof(amd_graph_group), create, launch, destroy};
