/* graph_exec.c: graphs made ready and launched: their nodes in an order that their edges allow. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

void exec_release(hipGraphExec_t exec)
{
    if (--exec->holders)
        return;
    for (size_t i = 0; i < exec->count; i++) {
        op_release(&exec->nodes[i].op);
        free(exec->nodes[i].before);
    }
    free(exec->nodes);
    free(exec);
}

static hipError_t exec_add(hipGraphExec_t exec, const struct op *op, hipGraphNode_t origin,
                           const size_t *before, size_t count, size_t *index)
{
    if (exec->count == exec->room) {
        size_t room = exec->room ? 2 * exec->room : 16;
        struct exec_node *grown = realloc(exec->nodes, room * sizeof *grown);
        if (!grown)
            return hipErrorOutOfMemory;
        exec->nodes = grown;
        exec->room = room;
    }
    struct exec_node *n = &exec->nodes[exec->count];
    *n = (struct exec_node){.origin = origin, .before_count = count};
    n->before = malloc((count + 1) * sizeof n->before[0]);
    if (!n->before || !op_copy(&n->op, op)) {
        free(n->before);
        return hipErrorOutOfMemory;
    }
    if (count)
        memcpy(n->before, before, count * sizeof before[0]);
    *index = exec->count++;
    return hipSuccess;
}

static hipError_t flatten(hipGraphExec_t exec, hipGraph_t graph, const size_t *first,
                          size_t first_count);

/* All of a child come after what its node depends on, and the node after them all. */
static hipError_t add_node(hipGraphExec_t exec, hipGraphNode_t node, const size_t *before,
                           size_t count)
{
    if (!node->child)
        return exec_add(exec, &node->op, node, before, count, &node->index);
    size_t begin = exec->count;
    hipError_t result = flatten(exec, node->child, before, count);
    if (result != hipSuccess)
        return result;
    size_t inside = exec->count - begin;
    size_t *all = malloc((inside + count + 1) * sizeof *all);
    if (!all)
        return hipErrorOutOfMemory;
    for (size_t i = 0; i < inside; i++)
        all[i] = begin + i;
    if (count)
        memcpy(all + inside, before, count * sizeof *all);
    result = exec_add(exec, &node->op, node, all, inside + count, &node->index);
    free(all);
    return result;
}

enum { NOT_YET = -1 };

static bool can_go(const struct hipGraphNode *node)
{
    for (size_t i = 0; i < node->before_count; i++)
        if (node->before[i]->index == (size_t)NOT_YET)
            return false;
    return node->index == (size_t)NOT_YET;
}

static hipError_t add_ready(hipGraphExec_t exec, hipGraphNode_t node, const size_t *first,
                            size_t first_count)
{
    size_t *before = malloc((node->before_count + first_count + 1) * sizeof *before);
    if (!before)
        return hipErrorOutOfMemory;
    for (size_t i = 0; i < node->before_count; i++)
        before[i] = node->before[i]->index;
    if (first_count)
        memcpy(before + node->before_count, first, first_count * sizeof *before);
    hipError_t result = add_node(exec, node, before, node->before_count + first_count);
    free(before);
    return result;
}

/* Each node after those it depends on; what is left over in the end is on a circle. */
static hipError_t flatten(hipGraphExec_t exec, hipGraph_t graph, const size_t *first,
                          size_t first_count)
{
    size_t placed = 0, before = NOT_YET;
    for (size_t i = 0; i < graph->count; i++)
        graph->nodes[i]->index = (size_t)NOT_YET;
    while (placed != before) {
        before = placed;
        for (size_t i = 0; i < graph->count; i++) {
            if (!can_go(graph->nodes[i]))
                continue;
            hipError_t result = add_ready(exec, graph->nodes[i], first, first_count);
            if (result != hipSuccess)
                return result;
            placed++;
        }
    }
    return placed == graph->count ? hipSuccess
                                  : refuse(hipErrorInvalidValue, "the graph has a circle");
}

static hipError_t instantiate(const char *name, hipGraphExec_t *out, hipGraph_t graph)
{
    ENTER_DEVICE(name, device);
    (void)device;
    if (!out || !vc_handle_is(graph, HANDLE_GRAPH))
        return done(hipErrorInvalidValue);
    hipGraphExec_t exec = calloc(1, sizeof *exec);
    if (!exec)
        return done(hipErrorOutOfMemory);
    exec->holders = 1;
    lock();
    hipError_t result = flatten(exec, graph, NULL, 0);
    if (result == hipSuccess && !vc_handle_add(exec, HANDLE_EXEC))
        result = hipErrorOutOfMemory;
    if (result != hipSuccess)
        exec_release(exec);
    else
        *out = exec;
    unlock();
    return done(result);
}

HIP_API hipError_t hipGraphInstantiate(hipGraphExec_t *out, hipGraph_t graph,
                                       hipGraphNode_t *error_node, char *text, size_t size)
{
    if (error_node)
        *error_node = NULL;
    if (text && size)
        text[0] = 0;
    return instantiate("hipGraphInstantiate", out, graph);
}

HIP_API hipError_t hipGraphInstantiateWithFlags(hipGraphExec_t *out, hipGraph_t graph,
                                                unsigned long long flags)
{
    return flags > 1 ? done(hipErrorInvalidValue)
                     : instantiate("hipGraphInstantiateWithFlags", out, graph);
}

HIP_API hipError_t hipGraphExecDestroy(hipGraphExec_t exec)
{
    ENTER("hipGraphExecDestroy");
    if (!vc_handle_is(exec, HANDLE_EXEC))
        return done(hipErrorInvalidValue);
    vc_handle_remove(exec);
    lock();
    exec_release(exec);
    unlock();
    return hipSuccess;
}

HIP_API hipError_t hipGraphLaunch(hipGraphExec_t exec, hipStream_t handle)
{
    hipStream_t stream;
    ENTER_DEVICE("hipGraphLaunch", device);
    if (!vc_handle_is(exec, HANDLE_EXEC))
        return done(hipErrorInvalidValue);
    hipError_t result = stream_resolve(device, handle, &stream);
    if (result != hipSuccess)
        return done(result);
    if (stream->capture)
        return done(refuse(hipErrorStreamCaptureUnsupported, "hipGraphLaunch in a capture"));
    lock();
    exec->holders++;
    unlock();
    struct op op = {.kind = OP_GRAPH, .exec = exec};
    return done(stream_submit(stream, &op, NULL));
}

/* ---- running ---- */

static bool free_to_run(const struct exec_node *node, const bool *ran)
{
    for (size_t i = 0; i < node->before_count; i++)
        if (!ran[node->before[i]])
            return false;
    return true;
}

/* By default in the order they lie in; MOEHAL_VIRTUAL_STREAMS=random and newest take others that
 * the edges allow. */
static size_t next_node(hipGraphExec_t exec, const bool *ran)
{
    size_t best = exec->count, found = 0;
    for (size_t i = 0; i < exec->count; i++) {
        if (ran[i] || !free_to_run(&exec->nodes[i], ran))
            continue;
        found++;
        if (driver.stream_order == ORDER_SUBMITTED)
            return i;
        if (driver.stream_order == ORDER_NEWEST || vc_draw(driver.seed, &driver.drawn) % found == 0)
            best = i;
    }
    return best;
}

hipError_t exec_run(hipGraphExec_t exec, double *ns)
{
    bool *ran = calloc(exec->count + 1, sizeof *ran);
    hipError_t result = ran ? hipSuccess : hipErrorOutOfMemory;
    for (size_t done_count = 0; done_count < exec->count && result == hipSuccess; done_count++) {
        size_t i = next_node(exec, ran);
        double took = 0;
        result = op_run(&exec->nodes[i].op, &took);
        ran[i] = true;
        *ns += took;
        count_add((unsigned)exec->nodes[i].op.device->ordinal, COUNT_GRAPH_NODES, 1);
    }
    free(ran);
    return result;
}
