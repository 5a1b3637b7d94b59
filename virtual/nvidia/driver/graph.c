/* graph.c: graphs as their maker sees them: nodes, edges, clones. */
#include "graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

CUgraph graph_make(void)
{
    CUgraph graph = calloc(1, sizeof *graph);
    if (graph && !vc_handle_add(graph, HANDLE_GRAPH)) {
        free(graph);
        return NULL;
    }
    return graph;
}

void node_free(CUgraphNode node)
{
    vc_handle_remove(node);
    op_release(&node->op);
    if (node->child)
        graph_free(node->child);
    free(node->waits_for);
    free(node->param_pointers);
    free(node);
}

void graph_free(CUgraph graph)
{
    vc_handle_remove(graph);
    for (size_t i = 0; i < graph->count; i++)
        node_free(graph->nodes[i]);
    free(graph->nodes);
    free(graph);
}

static bool waits_already(CUgraphNode node, CUgraphNode other)
{
    for (size_t i = 0; i < node->waits; i++)
        if (node->waits_for[i] == other)
            return true;
    return false;
}

bool node_depends(CUgraphNode node, const CUgraphNode *waits_for, size_t waits)
{
    CUgraphNode *grown = realloc(node->waits_for, (node->waits + waits + 1) * sizeof *grown);
    if (!grown)
        return false;
    node->waits_for = grown;
    for (size_t i = 0; i < waits; i++)
        if (!waits_already(node, waits_for[i]))
            node->waits_for[node->waits++] = waits_for[i];
    return true;
}

CUgraphNode graph_add(CUgraph graph, CUgraphNodeType type, struct op *op,
                      const CUgraphNode *waits_for, size_t waits)
{
    CUgraphNode node = calloc(1, sizeof *node);
    if (graph->count == graph->room) {
        size_t room = graph->room ? 2 * graph->room : 16;
        CUgraphNode *grown = realloc(graph->nodes, room * sizeof *grown);
        if (!grown)
            goto fail;
        graph->nodes = grown;
        graph->room = room;
    }
    if (!node || !node_depends(node, waits_for, waits) || !vc_handle_add(node, HANDLE_NODE))
        goto fail;
    node->graph = graph;
    node->type = type;
    node->op = *op;
    graph->nodes[graph->count++] = node;
    return node;
fail:
    op_release(op);
    if (node)
        free(node->waits_for);
    free(node);
    return NULL;
}

static size_t index_of(CUgraph graph, CUgraphNode node)
{
    size_t i = 0;
    while (i < graph->count && graph->nodes[i] != node)
        i++;
    return i;
}

CUgraph graph_clone(CUgraph graph)
{
    CUgraph clone = graph_make();
    for (size_t i = 0; clone && i < graph->count; i++) {
        CUgraphNode from = graph->nodes[i], to;
        struct op op;
        if (!op_copy(&op, &from->op) || !(to = graph_add(clone, from->type, &op, NULL, 0)))
            goto fail;
        to->copied_from = from;
        to->asked = from->asked;
        if (from->child && !(to->child = graph_clone(from->child)))
            goto fail;
        if (to->child)
            to->child->owned = true;
    }
    for (size_t i = 0; clone && i < graph->count; i++)
        for (size_t j = 0; j < graph->nodes[i]->waits; j++) {
            size_t k = index_of(graph, graph->nodes[i]->waits_for[j]);
            if (!node_depends(clone->nodes[i], &clone->nodes[k], 1))
                goto fail;
        }
    return clone;
fail:
    graph_free(clone);
    return NULL;
}

/* ---- calls ---- */

#define GRAPH(graph)                                                                               \
    do {                                                                                           \
        if (!vc_handle_is(graph, HANDLE_GRAPH))                                                    \
            return CUDA_ERROR_INVALID_VALUE;                                                       \
    } while (0)
#define NODE(node)                                                                                 \
    do {                                                                                           \
        if (!vc_handle_is(node, HANDLE_NODE))                                                      \
            return CUDA_ERROR_INVALID_VALUE;                                                       \
    } while (0)

CU_API CUresult cuGraphCreate(CUgraph *out, unsigned flags)
{
    ENTER("cuGraphCreate");
    if (!out || flags)
        return CUDA_ERROR_INVALID_VALUE;
    *out = graph_make();
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CU_API CUresult cuGraphDestroy(CUgraph graph)
{
    ENTER("cuGraphDestroy");
    GRAPH(graph);
    if (graph->owned)
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    graph_free(graph);
    unlock();
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphClone(CUgraph *out, CUgraph graph)
{
    ENTER("cuGraphClone");
    GRAPH(graph);
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    *out = graph_clone(graph);
    unlock();
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CU_API CUresult cuGraphNodeFindInClone(CUgraphNode *out, CUgraphNode node, CUgraph clone)
{
    ENTER("cuGraphNodeFindInClone");
    GRAPH(clone);
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < clone->count; i++)
        if (clone->nodes[i]->copied_from == node) {
            *out = clone->nodes[i];
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

CU_API CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
    ENTER("cuGraphNodeGetType");
    NODE(node);
    if (!type)
        return CUDA_ERROR_INVALID_VALUE;
    *type = node->type;
    return CUDA_SUCCESS;
}

/* Lists come with their length: of the room given, or of what there is when no room is given. */
static CUresult give(CUgraphNode *out, size_t *count, const CUgraphNode *nodes, size_t have)
{
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; out && i < *count; i++)
        out[i] = i < have ? nodes[i] : NULL;
    if (!out || *count > have)
        *count = have;
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    ENTER("cuGraphGetNodes");
    GRAPH(graph);
    return give(nodes, count, graph->nodes, graph->count);
}

CU_API CUresult cuGraphGetRootNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    ENTER("cuGraphGetRootNodes");
    GRAPH(graph);
    CUgraphNode *roots = malloc((graph->count + 1) * sizeof *roots);
    size_t n = 0;
    if (!roots)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < graph->count; i++)
        if (!graph->nodes[i]->waits)
            roots[n++] = graph->nodes[i];
    CUresult result = give(nodes, count, roots, n);
    free(roots);
    return result;
}

static void no_data(CUgraphEdgeData *data, size_t count)
{
    if (data)
        memset(data, 0, count * sizeof *data);
}

static CUresult edges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *data,
                      size_t *count)
{
    ENTER("cuGraphGetEdges");
    GRAPH(graph);
    size_t n = 0, room = count ? *count : 0;
    if (!count || !from != !to)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < graph->count; i++)
        for (size_t j = 0; j < graph->nodes[i]->waits; j++, n++)
            if (from && n < room) {
                from[n] = graph->nodes[i]->waits_for[j];
                to[n] = graph->nodes[i];
            }
    if (!from || room > n)
        *count = n;
    no_data(data, from ? *count : 0);
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count)
{
    return edges(graph, from, to, NULL, count);
}

CU_API CUresult cuGraphGetEdges_v2(CUgraph graph, CUgraphNode *from, CUgraphNode *to,
                                   CUgraphEdgeData *data, size_t *count)
{
    return edges(graph, from, to, data, count);
}

static CUresult dependencies(CUgraphNode node, CUgraphNode *out, CUgraphEdgeData *data,
                             size_t *count)
{
    ENTER("cuGraphNodeGetDependencies");
    NODE(node);
    CUresult result = give(out, count, node->waits_for, node->waits);
    if (result == CUDA_SUCCESS)
        no_data(data, out ? *count : 0);
    return result;
}

CU_API CUresult cuGraphNodeGetDependencies(CUgraphNode node, CUgraphNode *out, size_t *count)
{
    return dependencies(node, out, NULL, count);
}

CU_API CUresult cuGraphNodeGetDependencies_v2(CUgraphNode node, CUgraphNode *out,
                                              CUgraphEdgeData *data, size_t *count)
{
    return dependencies(node, out, data, count);
}

static CUresult dependents(CUgraphNode node, CUgraphNode *out, CUgraphEdgeData *data, size_t *count)
{
    ENTER("cuGraphNodeGetDependentNodes");
    NODE(node);
    CUgraph graph = node->graph;
    CUgraphNode *found = malloc((graph->count + 1) * sizeof *found);
    size_t n = 0;
    if (!found)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < graph->count; i++)
        if (waits_already(graph->nodes[i], node))
            found[n++] = graph->nodes[i];
    CUresult result = give(out, count, found, n);
    if (result == CUDA_SUCCESS)
        no_data(data, out ? *count : 0);
    free(found);
    return result;
}

CU_API CUresult cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode *out, size_t *count)
{
    return dependents(node, out, NULL, count);
}

CU_API CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode node, CUgraphNode *out,
                                                CUgraphEdgeData *data, size_t *count)
{
    return dependents(node, out, data, count);
}

static bool plain(const CUgraphEdgeData *data, size_t count)
{
    for (size_t i = 0; data && i < count; i++)
        if (data[i].from_port || data[i].to_port || data[i].type)
            return false;
    return true;
}

static CUresult change_edges(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
                             const CUgraphEdgeData *data, size_t count, bool add)
{
    ENTER("cuGraphAddDependencies");
    GRAPH(graph);
    if (!plain(data, count))
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "programmatic edges of graphs");
    if (count && (!from || !to))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        NODE(from[i]);
        NODE(to[i]);
        if (from[i]->graph != graph || to[i]->graph != graph || from[i] == to[i] ||
            waits_already(to[i], from[i]) == add)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; i++) {
        if (add && !node_depends(to[i], &from[i], 1))
            return CUDA_ERROR_OUT_OF_MEMORY;
        for (size_t j = 0; !add && j < to[i]->waits; j++)
            if (to[i]->waits_for[j] == from[i])
                to[i]->waits_for[j] = to[i]->waits_for[--to[i]->waits];
    }
    return CUDA_SUCCESS;
}

CU_API CUresult cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from,
                                       const CUgraphNode *to, size_t count)
{
    return change_edges(graph, from, to, NULL, count, true);
}

CU_API CUresult cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode *from,
                                          const CUgraphNode *to, const CUgraphEdgeData *data,
                                          size_t count)
{
    return change_edges(graph, from, to, data, count, true);
}

CU_API CUresult cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode *from,
                                          const CUgraphNode *to, size_t count)
{
    return change_edges(graph, from, to, NULL, count, false);
}

CU_API CUresult cuGraphRemoveDependencies_v2(CUgraph graph, const CUgraphNode *from,
                                             const CUgraphNode *to, const CUgraphEdgeData *data,
                                             size_t count)
{
    return change_edges(graph, from, to, data, count, false);
}

CU_API CUresult cuGraphDestroyNode(CUgraphNode node)
{
    ENTER("cuGraphDestroyNode");
    NODE(node);
    CUgraph graph = node->graph;
    lock();
    for (size_t i = 0; i < graph->count; i++)
        for (size_t j = 0; j < graph->nodes[i]->waits; j++)
            if (graph->nodes[i]->waits_for[j] == node)
                graph->nodes[i]->waits_for[j] =
                    graph->nodes[i]->waits_for[--graph->nodes[i]->waits];
    size_t at = index_of(graph, node);
    memmove(&graph->nodes[at], &graph->nodes[at + 1],
            (--graph->count - at) * sizeof graph->nodes[0]);
    node_free(node);
    unlock();
    return CUDA_SUCCESS;
}

static const char *type_name(CUgraphNodeType type)
{
    static const char *const names[] = {"kernel", "memcpy", "memset",     "host",
                                        "graph",  "empty",  "wait event", "record event"};
    return (size_t)type < sizeof names / sizeof names[0] ? names[type] : "?";
}

CU_API CUresult cuGraphDebugDotPrint(CUgraph graph, const char *path, unsigned flags)
{
    ENTER("cuGraphDebugDotPrint");
    GRAPH(graph);
    (void)flags;
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f)
        return CUDA_ERROR_INVALID_VALUE;
    fprintf(f, "digraph dot {\n");
    for (size_t i = 0; i < graph->count; i++) {
        CUgraphNode node = graph->nodes[i];
        fprintf(f, "  n%zu [label=\"%s %s\"];\n", i, type_name(node->type),
                node->type == CU_GRAPH_NODE_TYPE_KERNEL ? node->op.kernel.function->info->name
                                                        : "");
        for (size_t j = 0; j < node->waits; j++)
            fprintf(f, "  n%zu -> n%zu;\n", index_of(graph, node->waits_for[j]), i);
    }
    fprintf(f, "}\n");
    return fclose(f) ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_SUCCESS;
}
