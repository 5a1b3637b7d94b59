/* graph.h: graphs: nodes with their dependencies. All under the driver's lock. */
#ifndef VIRTUAL_AMD_GRAPH_H
#define VIRTUAL_AMD_GRAPH_H

#include "driver.h"

struct hipGraphNode {
    hipGraph_t graph;
    hipGraphNodeType type;
    struct op op;
    hipGraph_t child;       /* of a node that is a graph: its own copy */
    hipGraphNode_t *before; /* what it depends on */
    size_t before_count;
    size_t index; /* while a graph is walked */
};

struct ihipGraph {
    hipGraphNode_t *nodes; /* in the order of their making: a node comes after what it was made to
                              depend on, but for hipGraphAddDependencies */
    size_t count, room;
};

struct exec_node {
    struct op op;
    hipGraphNode_t origin; /* compared, never followed */
    size_t *before, before_count;
};

struct hipGraphExec {
    struct exec_node *nodes; /* each after those it depends on */
    size_t count, room;
    int holders;
};

hipGraph_t graph_create(void); /* with a handle; NULL: out of memory */
void graph_destroy(hipGraph_t graph);
/* A node that takes the op, whether it succeeds or not. */
hipError_t graph_add(hipGraph_t graph, hipGraphNodeType type, struct op *op,
                     const hipGraphNode_t *before, size_t count, hipGraphNode_t *out);

#endif
