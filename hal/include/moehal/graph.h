/*
 * graph.h: a list of ops recorded once and launched many times. What changes between launches lies
 * in device memory (step.h); scalars of ops are baked in.
 *
 * A graph is a list of segments: runs of ops the device executes by itself, and single ops that
 * fall back to the host. Threads: one at a time; a graph belongs to one device.
 */
#ifndef MOEHAL_GRAPH_H
#define MOEHAL_GRAPH_H

#include <moehal/stream.h>

MH_BEGIN_DECLS

typedef struct mh_graph mh_graph;

MH_API mh_status mh_graph_create(mh_device *device, mh_graph **out);
MH_API mh_graph *mh_graph_retain(mh_graph *graph);
MH_API void mh_graph_release(mh_graph *graph); /* NULL is allowed; also while launched work runs */

/* The encoder that records into this graph; borrowed. Ops are checked and placed as they are
 * recorded; buffers and weights they name are kept until the graph is gone. */
MH_API mh_encoder *mh_graph_encoder(mh_graph *graph);

/* Ends recording. MH_WRONG_STATE on a second call. */
MH_API mh_status mh_graph_seal(mh_graph *graph);

/* Puts `op` in the place of op `index` of a sealed graph, from 0 as they were recorded: other
 * buffers, weights, arguments or scalars of the same op with the same shapes. Launches that are
 * enqueued keep what was there. MH_INVALID_ARGUMENT where it would become other launches, or needs
 * more scratch, than what was recorded. After a failure the graph's ops are as they were. */
MH_API mh_status mh_graph_update(mh_graph *graph, uint64_t index, const mh_op *op);

/* Enqueues the whole graph on a stream of the same device. */
MH_API mh_status mh_graph_launch(mh_graph *graph, mh_stream *stream);

typedef struct mh_graph_info {
    uint64_t struct_size;
    uint64_t ops;      /* recorded by the caller */
    uint64_t nodes;    /* backend launches they became */
    uint64_t fallback; /* ops run by the host */
    uint64_t segments;
    uint64_t scratch_bytes;   /* what its ops take, of what is recorded so far */
    uint64_t native_segments; /* those that are graphs of the device's own; set by mh_graph_seal */
} mh_graph_info;

MH_API mh_status mh_graph_get_info(mh_graph *graph, mh_graph_info *out);

MH_END_DECLS

#endif
