/* graph.c: ops as a graph of the driver's own, a chain of kernel nodes, whose parameters may
 * change. */
#include "nvidia.h"

struct graph {
    CUgraph graph;
    CUgraphExec exec;
    CUdeviceptr counters;
    uint32_t op_count;
    uint32_t *first; /* of each op, its first node; one more at the end */
    CUgraphNode *nodes;
};

/* Makes node `place`, behind the one before; of a graph that is made already, gives it its
 * parameters. */
static mh_status put_node(struct device *device, struct graph *graph, uint32_t place,
                          const CUDA_KERNEL_NODE_PARAMS *params)
{
    CUgraphNode *node = &graph->nodes[place];
    if (graph->exec)
        return device->cu->GraphExecKernelNodeSetParams(graph->exec, *node, params) ? MH_UNSUPPORTED
                                                                                    : MH_OK;
    return CU(device, GraphAddKernelNode(node, graph->graph, place ? node - 1 : NULL, place ? 1 : 0,
                                         params));
}

static mh_status put_user_kernel(struct device *device, struct graph *graph, uint32_t place,
                                 const mh_op_kernel *op)
{
    struct user_launch l;
    nv_user_launch(op, &l);
    return put_node(device, graph, place,
                    &(CUDA_KERNEL_NODE_PARAMS){l.function, op->grid[0], op->grid[1], op->grid[2],
                                               op->block[0], op->block[1], op->block[2],
                                               (unsigned int)op->shared_bytes, l.params, NULL});
}

static mh_status put_launch(struct device *device, struct graph *graph, uint32_t place,
                            struct launch *l)
{
    void *params[MAX_ARGS];
    CUfunction function;
    for (uint32_t j = 0; j < l->arg_count; j++)
        params[j] = &l->args[j];
    mh_status status = nv_function(device, l->kernel, l->format, &function);
    if (status)
        return status;
    return put_node(device, graph, place,
                    &(CUDA_KERNEL_NODE_PARAMS){function, l->grid[0], l->grid[1], l->grid[2],
                                               l->block, 1, 1, l->shared, params, NULL});
}

/* The nodes of op `index`, from first[index] on. first[index + 1] becomes where they end; of a
 * graph that is made already they must end where they did. */
static mh_status put_op(struct device *device, struct graph *graph, uint32_t index, const mh_op *op,
                        const mh_scratch *scratch)
{
    struct launch launches[MAX_LAUNCHES];
    struct launch_memory memory = {(CUdeviceptr)(uintptr_t)scratch->handle + scratch->offset,
                                   graph->counters};
    bool users = op->op == MH_OP_KERNEL;
    uint32_t count = users ? 1 : nv_plan(device, op, &memory, launches);
    uint32_t place = graph->first[index];
    if (graph->exec && place + count != graph->first[index + 1])
        return MH_UNSUPPORTED;
    graph->first[index + 1] = place + count;
    if (users)
        return put_user_kernel(device, graph, place, (const void *)op);
    mh_status status = MH_OK;
    for (uint32_t i = 0; i < count && !status; i++)
        status = put_launch(device, graph, place + i, &launches[i]);
    return status;
}

static void release(struct device *device, struct graph *graph)
{
    const mh_core *core = device->core;
    if (graph->exec)
        device->cu->GraphExecDestroy(graph->exec);
    if (graph->graph)
        device->cu->GraphDestroy(graph->graph);
    if (graph->counters)
        device->cu->MemFree(graph->counters);
    core->deallocate(core->context, graph->first);
    core->deallocate(core->context, graph->nodes);
    core->deallocate(core->context, graph);
}

static struct graph *allocate(const mh_core *core, uint32_t op_count)
{
    uint64_t nodes = (uint64_t)op_count * MAX_LAUNCHES;
    struct graph *graph = core->allocate(core->context, sizeof(*graph));
    if (!graph)
        return NULL;
    graph->op_count = op_count;
    graph->first = core->allocate(core->context, (op_count + UINT64_C(1)) * sizeof(uint32_t));
    graph->nodes = core->allocate(core->context, nodes * sizeof(CUgraphNode));
    if (graph->first && graph->nodes)
        return graph;
    core->deallocate(core->context, graph->first);
    core->deallocate(core->context, graph->nodes);
    core->deallocate(core->context, graph);
    return NULL;
}

static mh_status create(void *user, const mh_op *const *ops, const mh_scratch *scratch,
                        uint32_t count, void **out)
{
    struct device *device = user;
    const struct driver *cu = device->cu;
    if (!cu->GraphCreate || !cu->GraphAddKernelNode || !cu->GraphInstantiate || !cu->GraphLaunch ||
        !cu->GraphExecDestroy || !cu->GraphDestroy)
        return MH_UNSUPPORTED;
    mh_status status = nv_enter(device);
    if (status)
        return status;
    struct graph *graph = allocate(device->core, count);
    status = graph ? nv_counters_create(device, &graph->counters) : MH_OUT_OF_MEMORY;
    if (!status)
        status = CU(device, GraphCreate(&graph->graph, 0));
    for (uint32_t i = 0; i < count && !status; i++)
        status = put_op(device, graph, i, ops[i], &scratch[i]);
    if (!status)
        status = CU(device, GraphInstantiate(&graph->exec, graph->graph, 0));
    if (!status)
        *out = graph;
    else if (graph)
        release(device, graph);
    nv_leave(device);
    return status;
}

/* A driver without the call, or one that refuses, has the graph created anew. */
static mh_status update(void *user, void *handle, uint32_t index, const mh_op *op,
                        const mh_scratch *scratch)
{
    struct device *device = user;
    if (!device->cu->GraphExecKernelNodeSetParams || nv_enter(device))
        return MH_UNSUPPORTED;
    mh_status status = put_op(device, handle, index, op, scratch);
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

const mh_backend_graph nv_graph_group = {sizeof(nv_graph_group), create, launch, destroy, update};
