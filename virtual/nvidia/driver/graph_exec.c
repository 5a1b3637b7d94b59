/* graph_exec.c: executable graphs: made, changed, launched. */
#include "graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void graph_run_release(struct graph_run *run)
{
    if (--run->holders)
        return;
    for (size_t i = 0; i < run->count; i++) {
        op_release(&run->node[i].op);
        if (run->node[i].child)
            graph_run_release(run->node[i].child);
        free(run->node[i].wait);
    }
    free(run);
}

static struct graph_run *run_alloc(size_t count)
{
    struct graph_run *run = calloc(1, sizeof *run + count * sizeof run->node[0]);
    if (run)
        run->holders = 1;
    return run;
}

/* Nodes in an order in which each comes after those it waits for, else in that of their making. */
static CUgraphNode *sort_nodes(CUgraph graph)
{
    CUgraphNode *order = malloc((graph->count + 1) * sizeof *order);
    size_t done = 0, before;
    bool *placed = calloc(graph->count + 1, 1);
    if (!order || !placed)
        goto fail;
    do {
        before = done;
        for (size_t i = 0; i < graph->count; i++) {
            bool ready = !placed[i];
            for (size_t j = 0; ready && j < graph->nodes[i]->waits; j++) {
                size_t k = 0;
                while (k < done && order[k] != graph->nodes[i]->waits_for[j])
                    k++;
                ready = k < done;
            }
            if (ready) {
                order[done++] = graph->nodes[i];
                placed[i] = true;
            }
        }
    } while (done > before && done < graph->count);
    if (done < graph->count) /* a cycle */
        goto fail;
    free(placed);
    return order;
fail:
    free(placed);
    free(order);
    return NULL;
}

static struct graph_run *run_make(CUgraph graph, CUcontext context)
{
    CUgraphNode *order = sort_nodes(graph);
    struct graph_run *run = order ? run_alloc(graph->count) : NULL;
    for (size_t i = 0; run && i < graph->count; i++) {
        struct run_node *n = &run->node[i];
        CUgraphNode from = order[i];
        n->node = from;
        n->type = from->type;
        n->wait = malloc((from->waits + 1) * sizeof n->wait[0]);
        run->count = i + 1;
        if (!n->wait || !op_copy(&n->op, &from->op) ||
            (from->child && !(n->child = run_make(from->child, context)))) {
            graph_run_release(run);
            run = NULL;
            break;
        }
        if (!n->op.context)
            n->op.context = context;
        for (size_t j = 0; j < from->waits; j++)
            for (size_t k = 0; k < i; k++)
                if (order[k] == from->waits_for[j])
                    n->wait[n->waits++] = k;
    }
    if (run)
        run->context = context;
    free(order);
    return run;
}

static struct graph_run *run_copy(const struct graph_run *from)
{
    struct graph_run *run = run_alloc(from->count);
    for (size_t i = 0; run && i < from->count; i++) {
        struct run_node *to = &run->node[i];
        *to = from->node[i];
        to->wait = malloc((to->waits + 1) * sizeof to->wait[0]);
        run->count = i + 1;
        bool copied = op_copy(&to->op, &from->node[i].op);
        if (to->child)
            to->child->holders++;
        if (!copied || !to->wait) {
            graph_run_release(run);
            return NULL;
        }
        memcpy(to->wait, from->node[i].wait, to->waits * sizeof to->wait[0]);
    }
    if (run)
        run->context = from->context;
    return run;
}

/* The run of an executable graph, for changing: its own. */
static struct graph_run *run_own(CUgraphExec exec)
{
    if (exec->run->holders > 1) {
        struct graph_run *copy = run_copy(exec->run);
        if (!copy)
            return NULL;
        graph_run_release(exec->run);
        exec->run = copy;
    }
    return exec->run;
}

/* ---- running ---- */

/* How far one launch has come; the executable graph itself is not written, since it may be copied
 * to be changed at the same time. */
struct progress {
    bool done;
    double end_ns;
};

static bool node_ready(const struct run_node *n, const struct progress *progress, double *start)
{
    *start = 0;
    for (size_t i = 0; i < n->waits; i++) {
        const struct progress *other = &progress[n->wait[i]];
        if (!other->done)
            return false;
        if (other->end_ns > *start)
            *start = other->end_ns;
    }
    return true;
}

/* Which node is next: the first of those that may run; other orders on request, as among streams.
 * run->count if none may. */
static size_t next_node(const struct graph_run *run, const struct progress *progress, double *start)
{
    size_t best = run->count;
    uint64_t count = 0;
    double begins;
    for (size_t i = 0; i < run->count; i++) {
        if (progress[i].done || !node_ready(&run->node[i], progress, &begins))
            continue;
        count++;
        if (driver.stream_order == ORDER_RANDOM && vc_draw(driver.seed, &driver.drawn) % count)
            continue;
        best = i;
        *start = begins;
        if (driver.stream_order == ORDER_SUBMITTED)
            break;
    }
    return best;
}

CUresult graph_run_ops(struct graph_run *run, double *ns)
{
    struct progress *progress = calloc(run->count + 1, sizeof *progress);
    double last = 0, start = 0;
    size_t i;
    CUresult result = progress ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    while (result == CUDA_SUCCESS && (i = next_node(run, progress, &start)) < run->count) {
        struct run_node *n = &run->node[i];
        double took = 0;
        if (n->child)
            result = graph_run_ops(n->child, &took);
        else if (!n->disabled)
            result = op_run(&n->op, &took);
        count_add((unsigned)n->op.context->device->ordinal, COUNT_GRAPH_NODES, 1);
        progress[i] = (struct progress){.done = true, .end_ns = start + took};
        if (progress[i].end_ns > last)
            last = progress[i].end_ns;
    }
    free(progress);
    *ns = last;
    return result;
}

/* ---- making ---- */

static CUresult instantiate(CUgraphExec *out, CUgraph graph, cuuint64_t flags)
{
    ENTER_CONTEXT("cuGraphInstantiate", context);
    if (!out || flags & ~(cuuint64_t)CU_GRAPH_INSTANTIATE_FLAGS)
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & 4)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuGraphInstantiate: launches from the device");
    if (!vc_handle_is(graph, HANDLE_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    CUgraphExec exec = calloc(1, sizeof *exec);
    if (!exec)
        return CUDA_ERROR_OUT_OF_MEMORY;
    lock();
    exec->run = run_make(graph, context);
    unlock();
    exec->flags = flags;
    if (!exec->run || !vc_handle_add(exec, HANDLE_EXEC)) {
        free(exec);
        return CUDA_ERROR_INVALID_VALUE; /* a cycle */
    }
    *out = exec;
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph,
                                            unsigned long long flags)
{
    return instantiate(out, graph, flags);
}

CU_API CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph graph, CUgraphNode *error_node,
                                      char *log, size_t size)
{
    CUresult result = instantiate(out, graph, 0);
    if (error_node)
        *error_node = NULL;
    if (log && size)
        snprintf(log, size, "%s", result == CUDA_SUCCESS ? "" : "the graph has a cycle");
    return result;
}

static CUresult with_params(CUgraphExec *out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = instantiate(out, graph, params->flags);
    params->hErrNode_out = NULL;
    params->result_out = result == CUDA_SUCCESS ? 0 : result == CUDA_ERROR_INVALID_VALUE ? 2 : 1;
    return result;
}

CU_API CUresult cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph graph,
                                             CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    return with_params(out, graph, params);
}

CU_API CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *out, CUgraph graph,
                                                  CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    return with_params(out, graph, params);
}

#define EXEC(exec)                                                                                 \
    do {                                                                                           \
        if (!vc_handle_is(exec, HANDLE_EXEC))                                                      \
            return CUDA_ERROR_INVALID_VALUE;                                                       \
    } while (0)

CU_API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    ENTER("cuGraphExecDestroy");
    EXEC(exec);
    vc_handle_remove(exec);
    lock();
    graph_run_release(exec->run);
    unlock();
    free(exec);
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphExecGetFlags(CUgraphExec exec, cuuint64_t *flags)
{
    ENTER("cuGraphExecGetFlags");
    EXEC(exec);
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = exec->flags;
    return CUDA_SUCCESS;
}

/* ---- launching ---- */

/* Events waited for hold the whole launch back, events recorded stand at its end. */
static CUresult submit_events(const struct graph_run *run, CUstream stream, bool records)
{
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < run->count && result == CUDA_SUCCESS; i++) {
        const struct run_node *n = &run->node[i];
        if (n->child)
            result = submit_events(n->child, stream, records);
        if (n->op.kind != (records ? OP_RECORD : OP_WAIT) || n->disabled ||
            (!records && !n->op.event->recorded))
            continue;
        struct op op = {.kind = n->op.kind, .context = stream->context, .event = n->op.event};
        const struct mark after = {n->op.event->stream, n->op.event->ticket};
        event_hold(op.event);
        result = queue_put(stream, &op, records ? NULL : &after, NULL);
    }
    return result;
}

static CUresult launch(CUgraphExec exec, CUstream handle, bool per_thread)
{
    ENTER_CONTEXT("cuGraphLaunch", context);
    CUstream stream;
    EXEC(exec);
    CUresult result = stream_resolve(context, handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    lock();
    if (stream->capture) {
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    } else {
        result = submit_events(exec->run, stream, false);
        struct op op = {.kind = OP_GRAPH, .context = stream->context, .run = exec->run};
        exec->run->holders++;
        if (result == CUDA_SUCCESS)
            result = queue_put(stream, &op, NULL, NULL);
        else
            graph_run_release(exec->run);
        if (result == CUDA_SUCCESS)
            result = submit_events(exec->run, stream, true);
    }
    unlock();
    return result;
}

CU_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    return launch(exec, stream, false);
}

CU_API CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
    return launch(exec, stream, true);
}

static CUresult upload(CUgraphExec exec, CUstream handle, bool per_thread)
{
    ENTER_CONTEXT("cuGraphUpload", context);
    CUstream stream;
    EXEC(exec);
    CUresult result = stream_resolve(context, handle, per_thread, &stream);
    struct op op = {.kind = OP_EMPTY};
    return result == CUDA_SUCCESS ? stream_submit(stream, &op, NULL) : result;
}

CU_API CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    return upload(exec, stream, false);
}

CU_API CUresult cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream)
{
    return upload(exec, stream, true);
}

/* ---- changing ---- */

/* Replaces the op of the node that `node` became; takes the op. */
CUresult graph_exec_replace(CUgraphExec exec, CUgraphNode node, struct op *op)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    lock();
    struct graph_run *run = run_own(exec);
    for (size_t i = 0; run && i < run->count; i++) {
        struct run_node *n = &run->node[i];
        if (n->node != node || n->op.kind != op->kind)
            continue;
        op->context = n->op.context;
        op_release(&n->op);
        n->op = *op;
        op->kind = OP_EMPTY;
        result = CUDA_SUCCESS;
        break;
    }
    op_release(op);
    unlock();
    return result;
}

static struct run_node *exec_node(CUgraphExec exec, CUgraphNode node)
{
    struct graph_run *run = run_own(exec);
    for (size_t i = 0; run && i < run->count; i++)
        if (run->node[i].node == node)
            return &run->node[i];
    return NULL;
}

CU_API CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned enabled)
{
    ENTER("cuGraphNodeSetEnabled");
    EXEC(exec);
    lock();
    struct run_node *n = exec_node(exec, node);
    bool ok = n && n->type <= CU_GRAPH_NODE_TYPE_MEMSET;
    if (ok)
        n->disabled = !enabled;
    unlock();
    return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode node, unsigned *enabled)
{
    ENTER("cuGraphNodeGetEnabled");
    EXEC(exec);
    lock();
    const struct run_node *n = exec_node(exec, node);
    if (n && enabled)
        *enabled = !n->disabled;
    unlock();
    return n && enabled ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static bool same_waits(const struct run_node *a, const struct run_node *b)
{
    return a->waits == b->waits && !memcmp(a->wait, b->wait, a->waits * sizeof a->wait[0]);
}

static CUgraphExecUpdateResult compare(const struct graph_run *have, const struct graph_run *want,
                                       CUgraphNode *where)
{
    *where = NULL;
    if (have->count != want->count)
        return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (size_t i = 0; i < have->count; i++) {
        const struct run_node *a = &have->node[i], *b = &want->node[i];
        *where = b->node;
        if (a->type != b->type)
            return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
        if (!same_waits(a, b))
            return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        if (a->type == CU_GRAPH_NODE_TYPE_KERNEL &&
            a->op.kernel.function->module->context != b->op.kernel.function->module->context)
            return CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED;
        if (a->child) {
            CUgraphExecUpdateResult inner = compare(a->child, b->child, where);
            if (inner != CU_GRAPH_EXEC_UPDATE_SUCCESS)
                return inner;
        }
    }
    *where = NULL;
    return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

static CUresult update(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResult *result,
                       CUgraphNode *where)
{
    ENTER("cuGraphExecUpdate");
    EXEC(exec);
    if (!result || !vc_handle_is(graph, HANDLE_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    struct graph_run *want = run_make(graph, exec->run->context);
    *result = want ? compare(exec->run, want, where) : CU_GRAPH_EXEC_UPDATE_ERROR;
    if (*result == CU_GRAPH_EXEC_UPDATE_SUCCESS) {
        for (size_t i = 0; i < want->count; i++) { /* names and switches stay */
            want->node[i].node = exec->run->node[i].node;
            want->node[i].disabled = exec->run->node[i].disabled;
        }
        graph_run_release(exec->run);
        exec->run = want;
    } else if (want) {
        graph_run_release(want);
    }
    unlock();
    return *result == CU_GRAPH_EXEC_UPDATE_SUCCESS ? CUDA_SUCCESS
                                                   : CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
}

CU_API CUresult cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *where,
                                  CUgraphExecUpdateResult *result)
{
    CUgraphNode unused;
    return update(exec, graph, result, where ? where : &unused);
}

CU_API CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph,
                                     CUgraphExecUpdateResultInfo *info)
{
    if (!info)
        return CUDA_ERROR_INVALID_VALUE;
    *info = (CUgraphExecUpdateResultInfo){CU_GRAPH_EXEC_UPDATE_ERROR, NULL, NULL};
    return update(exec, graph, &info->result, &info->errorNode);
}
