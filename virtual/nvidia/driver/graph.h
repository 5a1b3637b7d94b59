/* graph.h: graphs, executable graphs and captures. */
#ifndef VIRTUAL_NVIDIA_GRAPH_H
#define VIRTUAL_NVIDIA_GRAPH_H

#include "driver.h"

struct CUgraphNode_st {
    CUgraph graph;
    CUgraphNodeType type;
    struct op op;           /* empty for a child graph */
    CUgraph child;          /* owned */
    CUgraphNode *waits_for; /* nodes of the same graph */
    size_t waits;
    CUgraphNode copied_from; /* in a clone */
    void **param_pointers;   /* what cuGraphKernelNodeGetParams hands out */
    CUDA_MEMCPY3D asked;     /* of a copy: as it was given */
};

struct CUgraph_st {
    CUgraphNode *nodes; /* in the order of their making */
    size_t count, room;
    bool owned; /* by a child graph node: cannot be destroyed on its own */
};

/* A node with the op, which is taken; NULL: no memory, or a dependency that is not of the graph. */
CUgraphNode graph_add(CUgraph graph, CUgraphNodeType type, struct op *op,
                      const CUgraphNode *waits_for, size_t waits);
bool node_depends(CUgraphNode node, const CUgraphNode *waits_for, size_t waits);
CUgraph graph_make(void);
void graph_free(CUgraph graph);
CUgraph graph_clone(CUgraph graph);
void node_free(CUgraphNode node);

/* Replaces the op of what `node` became in the executable graph; takes the op. */
CUresult graph_exec_replace(CUgraphExec exec, CUgraphNode node, struct op *op);

struct run_node {
    CUgraphNode node; /* of the graph it was made from: a name, never followed */
    CUgraphNodeType type;
    struct op op;
    struct graph_run *child;
    bool disabled;
    size_t waits;
    size_t *wait; /* indices */
};

/* What a launch runs. Shared by the executable graph and the launches in queues; who changes it
 * while others hold it changes a copy. */
struct graph_run {
    int holders;
    CUcontext context;
    size_t count;
    struct run_node node[];
};

struct CUgraphExec_st {
    struct graph_run *run;
    cuuint64_t flags;
};

struct capture {
    CUgraph graph;
    CUstream origin;
    CUstreamCaptureMode mode;
    pthread_t thread;
    uint64_t id;
    bool invalid, into_existing;
    int streams;
};

#endif
