/* graph.c: graphs as programs build them. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

/* ---- nodes ---- */

hipGraph_t graph_create(void)
{
    hipGraph_t graph = calloc(1, sizeof *graph);
    if (graph && !vc_handle_add(graph, HANDLE_GRAPH)) {
        free(graph);
        return NULL;
    }
    return graph;
}

static void node_free(hipGraphNode_t node)
{
    vc_handle_remove(node);
    op_release(&node->op);
    if (node->child)
        graph_destroy(node->child);
    free(node->before);
    free(node);
}

void graph_destroy(hipGraph_t graph)
{
    vc_handle_remove(graph);
    for (size_t i = 0; i < graph->count; i++)
        node_free(graph->nodes[i]);
    free(graph->nodes);
    free(graph);
}

static bool depends(const struct hipGraphNode *node, const struct hipGraphNode *on)
{
    for (size_t i = 0; i < node->before_count; i++)
        if (node->before[i] == on)
            return true;
    return false;
}

static hipError_t add_edge(hipGraphNode_t node, hipGraphNode_t on)
{
    if (!vc_handle_is(on, HANDLE_NODE) || on->graph != node->graph || on == node)
        return hipErrorInvalidValue;
    if (depends(node, on))
        return hipSuccess;
    hipGraphNode_t *grown =
        realloc(node->before, (node->before_count + 1) * sizeof node->before[0]);
    if (!grown)
        return hipErrorOutOfMemory;
    node->before = grown;
    node->before[node->before_count++] = on;
    return hipSuccess;
}

static bool graph_grow(hipGraph_t graph)
{
    if (graph->count < graph->room)
        return true;
    size_t room = graph->room ? 2 * graph->room : 16;
    hipGraphNode_t *grown = realloc(graph->nodes, room * sizeof *grown);
    if (!grown)
        return false;
    graph->nodes = grown;
    graph->room = room;
    return true;
}

hipError_t graph_add(hipGraph_t graph, hipGraphNodeType type, struct op *op,
                     const hipGraphNode_t *before, size_t count, hipGraphNode_t *out)
{
    hipGraphNode_t node = graph_grow(graph) ? calloc(1, sizeof *node) : NULL;
    if (!node || !vc_handle_add(node, HANDLE_NODE)) {
        free(node);
        op_release(op);
        return hipErrorOutOfMemory;
    }
    node->graph = graph;
    node->type = type;
    node->op = *op;
    hipError_t result = count && !before ? hipErrorInvalidValue : hipSuccess;
    for (size_t i = 0; i < count && result == hipSuccess; i++)
        result = add_edge(node, before[i]);
    if (result != hipSuccess) {
        node_free(node);
        return result;
    }
    graph->nodes[graph->count++] = node;
    *out = node;
    return hipSuccess;
}

HIP_API hipError_t hipGraphCreate(hipGraph_t *out, unsigned flags)
{
    ENTER("hipGraphCreate");
    if (!out || flags)
        return done(hipErrorInvalidValue);
    *out = graph_create();
    return done(*out ? hipSuccess : hipErrorOutOfMemory);
}

HIP_API hipError_t hipGraphDestroy(hipGraph_t graph)
{
    ENTER("hipGraphDestroy");
    if (!vc_handle_is(graph, HANDLE_GRAPH))
        return done(hipErrorInvalidValue);
    lock();
    graph_destroy(graph);
    unlock();
    return hipSuccess;
}

/* ---- making nodes ---- */

HIP_API hipError_t hipGraphDestroyNode(hipGraphNode_t node);

static hipError_t add(const char *name, hipGraphNode_t *out, hipGraph_t graph,
                      const hipGraphNode_t *before, size_t count, hipGraphNodeType type,
                      struct op *op)
{
    hipError_t result = hipErrorInvalidValue;
    (void)name;
    op->device = device_current();
    lock();
    if (out && vc_handle_is(graph, HANDLE_GRAPH))
        result = graph_add(graph, type, op, before, count, out);
    else
        op_release(op);
    unlock();
    return done(result);
}

static hipError_t kernel_op(const hipKernelNodeParams *p, struct op *op)
{
    hipFunction_t f = p ? p->func : NULL;
    uint32_t lanes[3];
    if (!p)
        return hipErrorInvalidValue;
    hipError_t result = hipSuccess;
    if (!vc_handle_is(f, HANDLE_FUNCTION))
        result = registered_function(device_current(), p->func, &f);
    if (result != hipSuccess)
        return result;
    const uint32_t block[3] = {p->blockDim.x, p->blockDim.y, p->blockDim.z};
    lanes[0] = p->gridDim.x * block[0];
    lanes[1] = p->gridDim.y * block[1];
    lanes[2] = p->gridDim.z * block[2];
    *op = (struct op){.kind = OP_KERNEL, .device = f->module->device};
    return kernel_call_make(f, lanes, block, p->sharedMemBytes, false, p->kernelParams, p->extra,
                            &op->kernel);
}

HIP_API hipError_t hipGraphAddKernelNode(hipGraphNode_t *out, hipGraph_t graph,
                                         const hipGraphNode_t *before, size_t count,
                                         const hipKernelNodeParams *p)
{
    struct op op;
    ENTER_DEVICE("hipGraphAddKernelNode", device);
    (void)device;
    hipError_t result = kernel_op(p, &op);
    return result == hipSuccess ? add("hipGraphAddKernelNode", out, graph, before, count,
                                      hipGraphNodeTypeKernel, &op)
                                : done(result);
}

HIP_API hipError_t hipGraphAddMemcpyNode(hipGraphNode_t *out, hipGraph_t graph,
                                         const hipGraphNode_t *before, size_t count,
                                         const hipMemcpy3DParms *p)
{
    struct op op = {.kind = OP_COPY};
    ENTER_DEVICE("hipGraphAddMemcpyNode", device);
    hipError_t result = copy_from_3d(p, &op.copy);
    if (result == hipSuccess)
        result = copy_check(device, &op.copy);
    return result == hipSuccess ? add("hipGraphAddMemcpyNode", out, graph, before, count,
                                      hipGraphNodeTypeMemcpy, &op)
                                : done(result);
}

HIP_API hipError_t hipGraphAddMemcpyNode1D(hipGraphNode_t *out, hipGraph_t graph,
                                           const hipGraphNode_t *before, size_t count, void *to,
                                           const void *from, size_t bytes, hipMemcpyKind kind)
{
    struct op op = {.kind = OP_COPY, .copy = copy_linear(to, from, bytes)};
    ENTER_DEVICE("hipGraphAddMemcpyNode1D", device);
    if (kind > hipMemcpyDefault)
        return done(hipErrorInvalidMemcpyDirection);
    hipError_t result = to && from ? copy_check(device, &op.copy) : hipErrorInvalidValue;
    return result == hipSuccess ? add("hipGraphAddMemcpyNode1D", out, graph, before, count,
                                      hipGraphNodeTypeMemcpy1D, &op)
                                : done(result);
}

HIP_API hipError_t hipGraphAddMemsetNode(hipGraphNode_t *out, hipGraph_t graph,
                                         const hipGraphNode_t *before, size_t count,
                                         const hipMemsetParams *p)
{
    struct op op = {.kind = OP_FILL};
    ENTER_DEVICE("hipGraphAddMemsetNode", device);
    if (!p || (p->elementSize != 1 && p->elementSize != 2 && p->elementSize != 4))
        return done(hipErrorInvalidValue);
    op.fill = (struct fill){.to = (uintptr_t)p->dst,
                            .pitch = p->pitch,
                            .width = p->width,
                            .height = p->height,
                            .depth = 1,
                            .value = p->value,
                            .element = p->elementSize};
    hipError_t result = fill_check(device, &op.fill);
    return result == hipSuccess ? add("hipGraphAddMemsetNode", out, graph, before, count,
                                      hipGraphNodeTypeMemset, &op)
                                : done(result);
}

HIP_API hipError_t hipGraphAddHostNode(hipGraphNode_t *out, hipGraph_t graph,
                                       const hipGraphNode_t *before, size_t count,
                                       const hipHostNodeParams *p)
{
    ENTER("hipGraphAddHostNode");
    if (!p || !p->fn)
        return done(hipErrorInvalidValue);
    struct op op = {.kind = OP_HOST, .host = {.fn = p->fn, .user = p->userData}};
    return add("hipGraphAddHostNode", out, graph, before, count, hipGraphNodeTypeHost, &op);
}

HIP_API hipError_t hipGraphAddEmptyNode(hipGraphNode_t *out, hipGraph_t graph,
                                        const hipGraphNode_t *before, size_t count)
{
    struct op op = {.kind = OP_EMPTY};
    ENTER("hipGraphAddEmptyNode");
    return add("hipGraphAddEmptyNode", out, graph, before, count, hipGraphNodeTypeEmpty, &op);
}

/* A copy, node by node; indices are places in the original. NULL: out of memory. */
static hipGraph_t copy_graph(hipGraph_t from)
{
    hipGraph_t to = graph_create();
    bool fine = to != NULL;
    for (size_t i = 0; fine && i < from->count; i++) {
        hipGraphNode_t made;
        struct op op;
        from->nodes[i]->index = i;
        fine = op_copy(&op, &from->nodes[i]->op) &&
               graph_add(to, from->nodes[i]->type, &op, NULL, 0, &made) == hipSuccess;
        if (fine && from->nodes[i]->child)
            fine = (made->child = copy_graph(from->nodes[i]->child)) != NULL;
    }
    for (size_t i = 0; fine && i < from->count; i++)
        for (size_t b = 0; fine && b < from->nodes[i]->before_count; b++)
            fine =
                add_edge(to->nodes[i], to->nodes[from->nodes[i]->before[b]->index]) == hipSuccess;
    if (!fine && to) {
        graph_destroy(to);
        to = NULL;
    }
    return to;
}

HIP_API hipError_t hipGraphClone(hipGraph_t *out, hipGraph_t graph)
{
    ENTER("hipGraphClone");
    if (!out || !vc_handle_is(graph, HANDLE_GRAPH))
        return done(hipErrorInvalidValue);
    lock();
    *out = copy_graph(graph);
    unlock();
    return done(*out ? hipSuccess : hipErrorOutOfMemory);
}

HIP_API hipError_t hipGraphAddChildGraphNode(hipGraphNode_t *out, hipGraph_t graph,
                                             const hipGraphNode_t *before, size_t count,
                                             hipGraph_t child)
{
    struct op op = {.kind = OP_EMPTY};
    ENTER("hipGraphAddChildGraphNode");
    if (child == graph || !vc_handle_is(child, HANDLE_GRAPH))
        return done(hipErrorInvalidValue);
    hipError_t result =
        add("hipGraphAddChildGraphNode", out, graph, before, count, hipGraphNodeTypeGraph, &op);
    if (result != hipSuccess)
        return result;
    lock();
    (*out)->child = copy_graph(child);
    bool fine = (*out)->child != NULL;
    unlock();
    if (fine)
        return hipSuccess;
    hipGraphDestroyNode(*out);
    return done(hipErrorOutOfMemory);
}

HIP_API hipError_t hipGraphKernelNodeSetParams(hipGraphNode_t node, const hipKernelNodeParams *p)
{
    struct op op;
    ENTER_DEVICE("hipGraphKernelNodeSetParams", device);
    (void)device;
    if (!vc_handle_is(node, HANDLE_NODE) || node->type != hipGraphNodeTypeKernel)
        return done(hipErrorInvalidValue);
    hipError_t result = kernel_op(p, &op);
    if (result != hipSuccess)
        return done(result);
    lock();
    op_release(&node->op);
    node->op = op;
    unlock();
    return hipSuccess;
}

HIP_API hipError_t hipGraphExecKernelNodeSetParams(hipGraphExec_t exec, hipGraphNode_t node,
                                                   const hipKernelNodeParams *p)
{
    struct op op;
    ENTER_DEVICE("hipGraphExecKernelNodeSetParams", device);
    (void)device;
    if (!vc_handle_is(exec, HANDLE_EXEC))
        return done(hipErrorInvalidValue);
    size_t i = 0;
    while (i < exec->count && exec->nodes[i].origin != node)
        i++;
    if (i == exec->count || exec->nodes[i].op.kind != OP_KERNEL)
        return done(hipErrorInvalidValue);
    hipError_t result = kernel_op(p, &op);
    if (result != hipSuccess)
        return done(result);
    device_drain(exec->nodes[i].op.device); /* launches that are on their way keep what they had */
    lock();
    op_release(&exec->nodes[i].op);
    exec->nodes[i].op = op;
    unlock();
    return hipSuccess;
}

HIP_API hipError_t hipGraphDestroyNode(hipGraphNode_t node)
{
    ENTER("hipGraphDestroyNode");
    if (!vc_handle_is(node, HANDLE_NODE))
        return done(hipErrorInvalidValue);
    lock();
    hipGraph_t g = node->graph;
    size_t kept = 0;
    for (size_t i = 0; i < g->count; i++) {
        hipGraphNode_t n = g->nodes[i];
        size_t left = 0;
        for (size_t b = 0; b < n->before_count; b++)
            if (n->before[b] != node)
                n->before[left++] = n->before[b];
        n->before_count = left;
        if (n != node)
            g->nodes[kept++] = n;
    }
    g->count = kept;
    node_free(node);
    unlock();
    return hipSuccess;
}

/* ---- edges and questions ---- */

HIP_API hipError_t hipGraphAddDependencies(hipGraph_t graph, const hipGraphNode_t *from,
                                           const hipGraphNode_t *to, size_t count)
{
    ENTER("hipGraphAddDependencies");
    if (!vc_handle_is(graph, HANDLE_GRAPH) || (count && (!from || !to)))
        return done(hipErrorInvalidValue);
    hipError_t result = hipSuccess;
    lock();
    for (size_t i = 0; i < count && result == hipSuccess; i++)
        result = vc_handle_is(to[i], HANDLE_NODE) && to[i]->graph == graph
                     ? add_edge(to[i], from[i])
                     : hipErrorInvalidValue;
    unlock();
    return done(result);
}

HIP_API hipError_t hipGraphRemoveDependencies(hipGraph_t graph, const hipGraphNode_t *from,
                                              const hipGraphNode_t *to, size_t count)
{
    ENTER("hipGraphRemoveDependencies");
    if (!vc_handle_is(graph, HANDLE_GRAPH) || (count && (!from || !to)))
        return done(hipErrorInvalidValue);
    hipError_t result = hipSuccess;
    lock();
    for (size_t i = 0; i < count && result == hipSuccess; i++) {
        hipGraphNode_t n = to[i];
        result =
            vc_handle_is(n, HANDLE_NODE) && depends(n, from[i]) ? hipSuccess : hipErrorInvalidValue;
        for (size_t b = 0; result == hipSuccess && b < n->before_count; b++)
            if (n->before[b] == from[i])
                n->before[b--] = n->before[--n->before_count];
    }
    unlock();
    return done(result);
}

/* Gives up to *count of what there is, and how many there are; `out` NULL asks for the number. */
static hipError_t give(const hipGraphNode_t *from, size_t there, hipGraphNode_t *out, size_t *count)
{
    if (!count)
        return hipErrorInvalidValue;
    for (size_t i = 0; out && i < *count; i++)
        out[i] = i < there ? from[i] : NULL;
    *count = there;
    return hipSuccess;
}

static bool is_root(hipGraphNode_t node, hipGraphNode_t asked)
{
    (void)asked;
    return !node->before_count;
}

static bool comes_after(hipGraphNode_t node, hipGraphNode_t asked)
{
    return depends(node, asked);
}

static bool any(hipGraphNode_t node, hipGraphNode_t asked)
{
    (void)node, (void)asked;
    return true;
}

static hipError_t give_where(const char *name, hipGraph_t graph, hipGraphNode_t asked,
                             bool (*fits)(hipGraphNode_t node, hipGraphNode_t asked),
                             hipGraphNode_t *out, size_t *count)
{
    ENTER(name);
    if (!vc_handle_is(graph, HANDLE_GRAPH))
        return done(hipErrorInvalidValue);
    lock();
    hipGraphNode_t *found = calloc(graph->count + 1, sizeof *found);
    size_t n = 0;
    for (size_t i = 0; found && i < graph->count; i++)
        if (fits(graph->nodes[i], asked))
            found[n++] = graph->nodes[i];
    unlock();
    hipError_t result = found ? give(found, n, out, count) : hipErrorOutOfMemory;
    free(found);
    return done(result);
}

HIP_API hipError_t hipGraphGetNodes(hipGraph_t graph, hipGraphNode_t *out, size_t *count)
{
    return give_where("hipGraphGetNodes", graph, NULL, any, out, count);
}

HIP_API hipError_t hipGraphGetRootNodes(hipGraph_t graph, hipGraphNode_t *out, size_t *count)
{
    return give_where("hipGraphGetRootNodes", graph, NULL, is_root, out, count);
}

HIP_API hipError_t hipGraphNodeGetDependentNodes(hipGraphNode_t node, hipGraphNode_t *out,
                                                 size_t *count)
{
    if (driver_start() != hipSuccess || !vc_handle_is(node, HANDLE_NODE))
        return done(hipErrorInvalidValue);
    return give_where("hipGraphNodeGetDependentNodes", node->graph, node, comes_after, out, count);
}

HIP_API hipError_t hipGraphNodeGetDependencies(hipGraphNode_t node, hipGraphNode_t *out,
                                               size_t *count)
{
    ENTER("hipGraphNodeGetDependencies");
    if (!vc_handle_is(node, HANDLE_NODE))
        return done(hipErrorInvalidValue);
    return done(give(node->before, node->before_count, out, count));
}

HIP_API hipError_t hipGraphGetEdges(hipGraph_t graph, hipGraphNode_t *from, hipGraphNode_t *to,
                                    size_t *count)
{
    ENTER("hipGraphGetEdges");
    if (!count || !vc_handle_is(graph, HANDLE_GRAPH) || !from != !to)
        return done(hipErrorInvalidValue);
    size_t n = 0;
    lock();
    for (size_t i = 0; i < graph->count; i++)
        for (size_t b = 0; b < graph->nodes[i]->before_count; b++, n++)
            if (from && n < *count) {
                from[n] = graph->nodes[i]->before[b];
                to[n] = graph->nodes[i];
            }
    unlock();
    *count = n;
    return hipSuccess;
}

HIP_API hipError_t hipGraphNodeGetType(hipGraphNode_t node, hipGraphNodeType *type)
{
    ENTER("hipGraphNodeGetType");
    if (!type || !vc_handle_is(node, HANDLE_NODE))
        return done(hipErrorInvalidValue);
    *type = node->type;
    return hipSuccess;
}
