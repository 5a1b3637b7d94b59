/* graph_nodes.c: nodes of each kind, made and changed by hand. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

static CUresult check_nodes(CUgraph graph, const CUgraphNode *waits_for, size_t waits)
{
    if (!vc_handle_is(graph, HANDLE_GRAPH) || (waits && !waits_for))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < waits; i++)
        if (!vc_handle_is(waits_for[i], HANDLE_NODE) || waits_for[i]->graph != graph)
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Takes the op. */
static CUresult add(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for, size_t waits,
                    CUgraphNodeType type, struct op *op)
{
    CUresult result = out ? check_nodes(graph, waits_for, waits) : CUDA_ERROR_INVALID_VALUE;
    lock();
    if (result == CUDA_SUCCESS) {
        *out = graph_add(graph, type, op, waits_for, waits);
        if (!*out)
            result = CUDA_ERROR_OUT_OF_MEMORY;
    } else {
        op_release(op);
    }
    unlock();
    return result;
}

/* Of the node itself; takes the op. */
static CUresult replace(CUgraphNode node, CUgraphNodeType type, struct op *op)
{
    lock();
    bool ok = vc_handle_is(node, HANDLE_NODE) && node->type == type;
    if (ok) {
        op->context = op->context ? op->context : node->op.context;
        op_release(&node->op);
        node->op = *op;
    } else {
        op_release(op);
    }
    unlock();
    return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult is_type(CUgraphNode node, CUgraphNodeType type)
{
    return vc_handle_is(node, HANDLE_NODE) && node->type == type ? CUDA_SUCCESS
                                                                 : CUDA_ERROR_INVALID_VALUE;
}

#define EXEC(exec)                                                                                 \
    do {                                                                                           \
        if (!vc_handle_is(exec, HANDLE_EXEC))                                                      \
            return CUDA_ERROR_INVALID_VALUE;                                                       \
    } while (0)
#define TRY(call)                                                                                  \
    do {                                                                                           \
        CUresult tried_ = (call);                                                                  \
        if (tried_ != CUDA_SUCCESS)                                                                \
            return tried_;                                                                         \
    } while (0)

/* ---- kernels ---- */

/* The first form has neither kern nor ctx: `newer` says whether they may be read. */
static CUresult kernel_op(const char *name, const CUDA_KERNEL_NODE_PARAMS *p, bool newer,
                          struct op *op)
{
    ENTER_CONTEXT(name, context);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    CUfunction f = p->func;
    if (!f && newer) {
        f = (CUfunction)p->kern;
        if (p->ctx) {
            if (!vc_handle_is(p->ctx, HANDLE_CONTEXT))
                return CUDA_ERROR_INVALID_CONTEXT;
            context = p->ctx;
        }
    }
    const unsigned grid[3] = {p->gridDimX, p->gridDimY, p->gridDimZ};
    const unsigned block[3] = {p->blockDimX, p->blockDimY, p->blockDimZ};
    *op = (struct op){.kind = OP_KERNEL};
    CUresult result = kernel_call_make(context, f, grid, block, p->sharedMemBytes, false,
                                       p->kernelParams, p->extra, &op->kernel);
    if (result == CUDA_SUCCESS)
        op->context = op->kernel.function->module->context;
    return result;
}

static CUresult add_kernel(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                           size_t waits, const CUDA_KERNEL_NODE_PARAMS *p, bool newer)
{
    struct op op;
    TRY(kernel_op("cuGraphAddKernelNode", p, newer, &op));
    return add(out, graph, waits_for, waits, CU_GRAPH_NODE_TYPE_KERNEL, &op);
}

CU_API CUresult cuGraphAddKernelNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                                     size_t waits, const CUDA_KERNEL_NODE_PARAMS *p)
{
    return add_kernel(out, graph, waits_for, waits, p, false);
}

CU_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph,
                                        const CUgraphNode *waits_for, size_t waits,
                                        const CUDA_KERNEL_NODE_PARAMS *p)
{
    return add_kernel(out, graph, waits_for, waits, p, true);
}

static CUresult set_kernel(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p, bool newer)
{
    struct op op;
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_KERNEL));
    TRY(kernel_op("cuGraphKernelNodeSetParams", p, newer, &op));
    return replace(node, CU_GRAPH_NODE_TYPE_KERNEL, &op);
}

CU_API CUresult cuGraphKernelNodeSetParams(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
    return set_kernel(node, p, false);
}

CU_API CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
    return set_kernel(node, p, true);
}

/* The parameters' addresses stay valid until the node changes. */
static CUresult get_kernel(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *p, bool newer)
{
    ENTER("cuGraphKernelNodeGetParams");
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_KERNEL));
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    const struct kernel_call *k = &node->op.kernel;
    const struct vn_function *info = k->function->info;
    void **pointers = realloc(node->param_pointers, (info->param_count + 1) * sizeof *pointers);
    if (!pointers)
        return CUDA_ERROR_OUT_OF_MEMORY;
    node->param_pointers = pointers;
    for (uint32_t i = 0; i < info->param_count; i++)
        pointers[i] = (char *)k->params + info->params[i].offset;
    CUDA_KERNEL_NODE_PARAMS q = {.func = k->function,
                                 .gridDimX = k->grid[0],
                                 .gridDimY = k->grid[1],
                                 .gridDimZ = k->grid[2],
                                 .blockDimX = k->block[0],
                                 .blockDimY = k->block[1],
                                 .blockDimZ = k->block[2],
                                 .sharedMemBytes = k->shared,
                                 .kernelParams = pointers,
                                 .ctx = node->op.context};
    memcpy(p, &q, newer ? sizeof q : offsetof(CUDA_KERNEL_NODE_PARAMS, kern));
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *p)
{
    return get_kernel(node, p, false);
}

CU_API CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *p)
{
    return get_kernel(node, p, true);
}

static CUresult exec_kernel(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p,
                            bool newer)
{
    struct op op;
    EXEC(exec);
    TRY(kernel_op("cuGraphExecKernelNodeSetParams", p, newer, &op));
    return graph_exec_replace(exec, node, &op);
}

CU_API CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                               const CUDA_KERNEL_NODE_PARAMS *p)
{
    return exec_kernel(exec, node, p, false);
}

CU_API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                                  const CUDA_KERNEL_NODE_PARAMS *p)
{
    return exec_kernel(exec, node, p, true);
}

static bool node_attribute(CUgraphNode node, int id, CUlaunchAttributeValue *value, bool set)
{
    if (is_type(node, CU_GRAPH_NODE_TYPE_KERNEL) != CUDA_SUCCESS || !value || id < 0 || id > 32)
        return false;
    if (!set)
        memset(value, 0, sizeof *value);
    if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) {
        if (set)
            node->op.kernel.cooperative = value->cooperative != 0;
        else
            value->cooperative = node->op.kernel.cooperative;
    }
    return true;
}

CU_API CUresult cuGraphKernelNodeGetAttribute(CUgraphNode node, int id,
                                              CUlaunchAttributeValue *value)
{
    ENTER("cuGraphKernelNodeGetAttribute");
    return node_attribute(node, id, value, false) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuGraphKernelNodeSetAttribute(CUgraphNode node, int id,
                                              const CUlaunchAttributeValue *value)
{
    ENTER("cuGraphKernelNodeSetAttribute");
    CUlaunchAttributeValue copy;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    copy = *value;
    return node_attribute(node, id, &copy, true) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- copies ---- */

static CUresult copy_op(const char *name, const CUDA_MEMCPY3D *p, CUcontext context, struct op *op)
{
    ENTER(name);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (!context)
        context = context_current();
    if (!vc_handle_is(context, HANDLE_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    *op = (struct op){.kind = OP_COPY, .context = context};
    return copy_from_3d(p, &op->copy);
}

CU_API CUresult cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                                     size_t waits, const CUDA_MEMCPY3D *p, CUcontext context)
{
    struct op op;
    TRY(copy_op("cuGraphAddMemcpyNode", p, context, &op));
    TRY(add(out, graph, waits_for, waits, CU_GRAPH_NODE_TYPE_MEMCPY, &op));
    (*out)->asked = *p;
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D *p)
{
    ENTER("cuGraphMemcpyNodeGetParams");
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_MEMCPY));
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    *p = node->asked;
    if (p->WidthInBytes)
        return CUDA_SUCCESS;
    const struct copy *c = &node->op.copy; /* a captured one: by address */
    *p = (CUDA_MEMCPY3D){.srcMemoryType = CU_MEMORYTYPE_UNIFIED,
                         .srcDevice = c->from,
                         .srcPitch = c->from_pitch,
                         .srcHeight = c->from_pitch ? c->from_slice / c->from_pitch : 0,
                         .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
                         .dstDevice = c->to,
                         .dstPitch = c->to_pitch,
                         .dstHeight = c->to_pitch ? c->to_slice / c->to_pitch : 0,
                         .WidthInBytes = c->width,
                         .Height = c->height,
                         .Depth = c->depth};
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *p)
{
    struct op op;
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_MEMCPY));
    TRY(copy_op("cuGraphMemcpyNodeSetParams", p, node->op.context, &op));
    TRY(replace(node, CU_GRAPH_NODE_TYPE_MEMCPY, &op));
    node->asked = *p;
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                               const CUDA_MEMCPY3D *p, CUcontext context)
{
    struct op op;
    EXEC(exec);
    TRY(copy_op("cuGraphExecMemcpyNodeSetParams", p, context, &op));
    return graph_exec_replace(exec, node, &op);
}

/* ---- memset ---- */

static CUresult fill_op(const char *name, const CUDA_MEMSET_NODE_PARAMS *p, CUcontext context,
                        struct op *op)
{
    ENTER(name);
    if (!p || (p->elementSize != 1 && p->elementSize != 2 && p->elementSize != 4) || !p->width ||
        !p->height || p->dst % p->elementSize ||
        (p->height > 1 && p->pitch < p->width * p->elementSize))
        return CUDA_ERROR_INVALID_VALUE;
    if (!context)
        context = context_current();
    if (!vc_handle_is(context, HANDLE_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    *op = (struct op){
        .kind = OP_FILL,
        .context = context,
        .fill = {p->dst, p->pitch, p->width, p->height, p->value, p->elementSize},
    };
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphAddMemsetNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                                     size_t waits, const CUDA_MEMSET_NODE_PARAMS *p,
                                     CUcontext context)
{
    struct op op;
    TRY(fill_op("cuGraphAddMemsetNode", p, context, &op));
    return add(out, graph, waits_for, waits, CU_GRAPH_NODE_TYPE_MEMSET, &op);
}

CU_API CUresult cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS *p)
{
    ENTER("cuGraphMemsetNodeGetParams");
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_MEMSET));
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    const struct fill *f = &node->op.fill;
    *p = (CUDA_MEMSET_NODE_PARAMS){f->to, f->pitch, f->value, f->element, f->width, f->height};
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *p)
{
    struct op op;
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_MEMSET));
    TRY(fill_op("cuGraphMemsetNodeSetParams", p, node->op.context, &op));
    return replace(node, CU_GRAPH_NODE_TYPE_MEMSET, &op);
}

CU_API CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                               const CUDA_MEMSET_NODE_PARAMS *p, CUcontext context)
{
    struct op op;
    EXEC(exec);
    TRY(fill_op("cuGraphExecMemsetNodeSetParams", p, context, &op));
    return graph_exec_replace(exec, node, &op);
}

/* ---- host functions ---- */

static CUresult host_op(const char *name, const CUDA_HOST_NODE_PARAMS *p, struct op *op)
{
    ENTER_CONTEXT(name, context);
    if (!p || !p->fn)
        return CUDA_ERROR_INVALID_VALUE;
    *op = (struct op){
        .kind = OP_HOST, .context = context, .host = {.fn = p->fn, .user = p->userData}};
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphAddHostNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                                   size_t waits, const CUDA_HOST_NODE_PARAMS *p)
{
    struct op op;
    TRY(host_op("cuGraphAddHostNode", p, &op));
    return add(out, graph, waits_for, waits, CU_GRAPH_NODE_TYPE_HOST, &op);
}

CU_API CUresult cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS *p)
{
    ENTER("cuGraphHostNodeGetParams");
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_HOST));
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    *p = (CUDA_HOST_NODE_PARAMS){node->op.host.fn, node->op.host.user};
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS *p)
{
    struct op op;
    TRY(host_op("cuGraphHostNodeSetParams", p, &op));
    return replace(node, CU_GRAPH_NODE_TYPE_HOST, &op);
}

CU_API CUresult cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                             const CUDA_HOST_NODE_PARAMS *p)
{
    struct op op;
    EXEC(exec);
    TRY(host_op("cuGraphExecHostNodeSetParams", p, &op));
    return graph_exec_replace(exec, node, &op);
}

/* ---- graphs in graphs, nothing, events ---- */

CU_API CUresult cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph graph,
                                         const CUgraphNode *waits_for, size_t waits, CUgraph child)
{
    ENTER("cuGraphAddChildGraphNode");
    struct op op = {.kind = OP_EMPTY};
    if (!vc_handle_is(child, HANDLE_GRAPH) || child == graph)
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    CUgraph clone = graph_clone(child);
    unlock();
    if (!clone)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = add(out, graph, waits_for, waits, CU_GRAPH_NODE_TYPE_GRAPH, &op);
    if (result != CUDA_SUCCESS) {
        graph_free(clone);
        return result;
    }
    clone->owned = true;
    (*out)->child = clone;
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph)
{
    ENTER("cuGraphChildGraphNodeGetGraph");
    TRY(is_type(node, CU_GRAPH_NODE_TYPE_GRAPH));
    if (!graph)
        return CUDA_ERROR_INVALID_VALUE;
    *graph = node->child;
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                                    size_t waits)
{
    ENTER("cuGraphAddEmptyNode");
    struct op op = {.kind = OP_EMPTY};
    return add(out, graph, waits_for, waits, CU_GRAPH_NODE_TYPE_EMPTY, &op);
}

static CUresult event_op(const char *name, enum op_kind kind, CUevent event, struct op *op)
{
    ENTER(name);
    if (!vc_handle_is(event, HANDLE_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    *op = (struct op){.kind = kind, .context = event->context, .event = event};
    lock();
    event_hold(event);
    unlock();
    return CUDA_SUCCESS;
}

#define EVENT_NODES(word, operation, node_type)                                                    \
    CU_API CUresult cuGraphAddEvent##word##Node(CUgraphNode *out, CUgraph graph,                   \
                                                const CUgraphNode *waits_for, size_t waits,        \
                                                CUevent event)                                     \
    {                                                                                              \
        struct op op;                                                                              \
        TRY(event_op("cuGraphAddEvent" #word "Node", operation, event, &op));                      \
        return add(out, graph, waits_for, waits, node_type, &op);                                  \
    }                                                                                              \
    CU_API CUresult cuGraphEvent##word##NodeGetEvent(CUgraphNode node, CUevent *event)             \
    {                                                                                              \
        ENTER("cuGraphEvent" #word "NodeGetEvent");                                                \
        TRY(is_type(node, node_type));                                                             \
        if (!event)                                                                                \
            return CUDA_ERROR_INVALID_VALUE;                                                       \
        *event = node->op.event;                                                                   \
        return CUDA_SUCCESS;                                                                       \
    }                                                                                              \
    CU_API CUresult cuGraphEvent##word##NodeSetEvent(CUgraphNode node, CUevent event)              \
    {                                                                                              \
        struct op op;                                                                              \
        TRY(event_op("cuGraphEvent" #word "NodeSetEvent", operation, event, &op));                 \
        return replace(node, node_type, &op);                                                      \
    }                                                                                              \
    CU_API CUresult cuGraphExecEvent##word##NodeSetEvent(CUgraphExec exec, CUgraphNode node,       \
                                                         CUevent event)                            \
    {                                                                                              \
        struct op op;                                                                              \
        EXEC(exec);                                                                                \
        TRY(event_op("cuGraphExecEvent" #word "NodeSetEvent", operation, event, &op));             \
        return graph_exec_replace(exec, node, &op);                                                \
    }

EVENT_NODES(Record, OP_RECORD, CU_GRAPH_NODE_TYPE_EVENT_RECORD)
EVENT_NODES(Wait, OP_WAIT, CU_GRAPH_NODE_TYPE_WAIT_EVENT)

/* ---- by one call for all kinds ---- */

static CUresult any_op(const char *name, const CUgraphNodeParams *p, struct op *op)
{
    *op = (struct op){.kind = OP_EMPTY};
    switch (p->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return kernel_op(name, &p->kernel, true, op);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return copy_op(name, &p->memcpy.copyParams, p->memcpy.copyCtx, op);
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return fill_op(name, &p->memset.set, p->memset.ctx, op);
    case CU_GRAPH_NODE_TYPE_HOST:
        return host_op(name, &p->host, op);
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        return event_op(name, OP_WAIT, p->event, op);
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        return event_op(name, OP_RECORD, p->event, op);
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return CUDA_SUCCESS;
    default:
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "%s: nodes of type %d", name, (int)p->type);
    }
}

static CUresult add_any(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for, size_t waits,
                        const CUgraphNodeParams *p)
{
    struct op op;
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->type == CU_GRAPH_NODE_TYPE_GRAPH)
        return cuGraphAddChildGraphNode(out, graph, waits_for, waits, p->graph.graph);
    TRY(any_op("cuGraphAddNode", p, &op));
    TRY(add(out, graph, waits_for, waits, p->type, &op));
    if (p->type == CU_GRAPH_NODE_TYPE_MEMCPY)
        (*out)->asked = p->memcpy.copyParams;
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphAddNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                               size_t waits, CUgraphNodeParams *p)
{
    return add_any(out, graph, waits_for, waits, p);
}

CU_API CUresult cuGraphAddNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *waits_for,
                                  const CUgraphEdgeData *data, size_t waits, CUgraphNodeParams *p)
{
    for (size_t i = 0; data && i < waits; i++)
        if (data[i].from_port || data[i].to_port || data[i].type)
            return refuse(CUDA_ERROR_NOT_SUPPORTED, "programmatic edges of graphs");
    return add_any(out, graph, waits_for, waits, p);
}

CU_API CUresult cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *p)
{
    struct op op;
    if (!p || is_type(node, p->type) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_VALUE;
    TRY(any_op("cuGraphNodeSetParams", p, &op));
    return replace(node, p->type, &op);
}

CU_API CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *p)
{
    struct op op;
    EXEC(exec);
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    TRY(any_op("cuGraphExecNodeSetParams", p, &op));
    return graph_exec_replace(exec, node, &op);
}
