/* graph.c: ops as a graph of the driver's own, a chain of kernel nodes. */
#include "nvidia.h"

struct graph {
    CUgraph graph;
    CUgraphExec exec;
    CUdeviceptr counters;
};

static mh_status add_node(struct device *device, struct graph *graph, CUgraphNode *last,
                          const CUDA_KERNEL_NODE_PARAMS *params)
{
    CUgraphNode node;
    mh_status status =
        CU(device, GraphAddKernelNode(&node, graph->graph, last, *last ? 1 : 0, params));
    if (!status)
        *last = node;
    return status;
}

static mh_status add_user_kernel(struct device *device, struct graph *graph, CUgraphNode *last,
                                 const mh_op_kernel *op)
{
    struct user_launch l;
    nv_user_launch(op, &l);
    return add_node(device, graph, last,
                    &(CUDA_KERNEL_NODE_PARAMS){l.function, op->grid[0], op->grid[1], op->grid[2],
                                               op->block[0], op->block[1], op->block[2],
                                               (unsigned int)op->shared_bytes, l.params, NULL});
}

static mh_status add_op(struct device *device, struct graph *graph, CUgraphNode *last,
                        const mh_op *op, const mh_scratch *scratch)
{
    struct launch launches[MAX_LAUNCHES];
    if (op->op == MH_OP_KERNEL)
        return add_user_kernel(device, graph, last, (const void *)op);
    struct launch_memory memory = {(CUdeviceptr)(uintptr_t)scratch->handle + scratch->offset,
                                   graph->counters};
    uint32_t count = nv_plan(device, op, &memory, launches);
    mh_status status = MH_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        struct launch *l = &launches[i];
        void *params[MAX_ARGS];
        CUfunction function;
        for (uint32_t j = 0; j < l->arg_count; j++)
            params[j] = &l->args[j];
        status = nv_function(device, l->kernel, l->format, &function);
        if (!status)
            status =
                add_node(device, graph, last,
                         &(CUDA_KERNEL_NODE_PARAMS){function, l->grid[0], l->grid[1], l->grid[2],
                                                    l->block, 1, 1, l->shared, params, NULL});
    }
    return status;
}

static void release(struct device *device, struct graph *graph)
{
    if (graph->exec)
        device->cu->GraphExecDestroy(graph->exec);
    if (graph->graph)
        device->cu->GraphDestroy(graph->graph);
    if (graph->counters)
        device->cu->MemFree(graph->counters);
    device->core->deallocate(device->core->context, graph);
}

static mh_status create(void *user, const mh_op *const *ops, const mh_scratch *scratch,
                        uint32_t count, void **out)
{
    struct device *device = user;
    const struct driver *cu = device->cu;
    if (!cu->GraphCreate || !cu->GraphAddKernelNode || !cu->GraphInstantiate || !cu->GraphLaunch ||
        !cu->GraphExecDestroy || !cu->GraphDestroy)
        return MH_UNSUPPORTED;
    struct graph *graph = device->core->allocate(device->core->context, sizeof(*graph));
    mh_status status = graph ? nv_enter(device) : MH_OUT_OF_MEMORY;
    if (status) {
        if (graph)
            device->core->deallocate(device->core->context, graph);
        return status;
    }
    CUgraphNode last = NULL;
    status = nv_counters_create(device, &graph->counters);
    if (!status)
        status = CU(device, GraphCreate(&graph->graph, 0));
    for (uint32_t i = 0; i < count && !status; i++)
        status = add_op(device, graph, &last, ops[i], &scratch[i]);
    if (!status)
        status = CU(device, GraphInstantiate(&graph->exec, graph->graph, 0));
    if (status)
        release(device, graph);
    else
        *out = graph;
    nv_leave(device);
    return status;
}

static mh_status launch(void *user, void *graph)
{
    struct stream *stream = user;
    mh_status status = nv_enter(stream->device);
    if (status)
        return status;
    status = CU(stream->device, GraphLaunch(((struct graph *)graph)->exec, stream->stream));
    nv_leave(stream->device);
    return status;
}

static void destroy(void *user, void *graph)
{
    struct device *device = user;
    if (nv_enter(device))
        return;
    release(device, graph);
    nv_leave(device);
}

const mh_backend_graph nv_graph_group = {sizeof(nv_graph_group), create, launch, destroy};
