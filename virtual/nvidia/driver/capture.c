/* capture.c: what is submitted to a stream becomes a graph instead. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
static _Atomic int captures; /* in progress */

static CUgraphNodeType node_type(enum op_kind kind)
{
    switch (kind) {
    case OP_KERNEL:
        return CU_GRAPH_NODE_TYPE_KERNEL;
    case OP_COPY:
        return CU_GRAPH_NODE_TYPE_MEMCPY;
    case OP_FILL:
        return CU_GRAPH_NODE_TYPE_MEMSET;
    case OP_HOST:
        return CU_GRAPH_NODE_TYPE_HOST;
    case OP_RECORD:
        return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    case OP_WAIT:
        return CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    default:
        return CU_GRAPH_NODE_TYPE_EMPTY;
    }
}

static bool set_tips(CUstream stream, const CUgraphNode *nodes, size_t count, bool add)
{
    size_t old = add ? stream->tip_count : 0;
    CUgraphNode *grown = realloc(stream->tips, (old + count + 1) * sizeof *grown);
    if (!grown)
        return false;
    stream->tips = grown;
    stream->tip_count = old;
    for (size_t i = 0; i < count; i++) {
        size_t j = 0;
        while (j < stream->tip_count && grown[j] != nodes[i])
            j++;
        if (j == stream->tip_count)
            grown[stream->tip_count++] = nodes[i];
    }
    return true;
}

CUresult capture_submit(CUstream stream, struct op *op)
{
    struct capture *capture = stream->capture;
    if (capture->invalid) {
        op_release(op);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    if (op->kind == OP_FREE || op->kind == OP_CALLBACK || op->kind == OP_WRITE_VALUE ||
        op->kind == OP_WAIT_VALUE || op->kind == OP_GRAPH) {
        op_release(op);
        capture->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    CUgraphNode node =
        graph_add(capture->graph, node_type(op->kind), op, stream->tips, stream->tip_count);
    return node && set_tips(stream, &node, 1, false) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult capture_record(CUstream stream, CUevent event)
{
    if (stream->capture->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    CUgraphNode *nodes = malloc((stream->tip_count + 1) * sizeof *nodes);
    if (!nodes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(nodes, stream->tips, stream->tip_count * sizeof *nodes);
    free(event->nodes);
    event->nodes = nodes;
    event->node_count = stream->tip_count;
    event->capture = stream->capture;
    event->capture_id = stream->capture->id;
    return CUDA_SUCCESS;
}

/* Whether the capture in which the event was recorded is still going on. */
static struct capture *capture_of(CUevent event)
{
    if (!event->capture)
        return NULL;
    for (CUcontext c = driver.contexts; c; c = c->next)
        for (CUstream s = c->streams; s; s = s->next)
            if (s->capture == event->capture && s->capture->id == event->capture_id)
                return s->capture;
    return NULL;
}

CUresult capture_wait(CUstream stream, CUevent event, unsigned flags, bool *handled)
{
    struct capture *theirs = capture_of(event);
    *handled = true;
    if (event->capture && !theirs)
        return CUDA_ERROR_CAPTURED_EVENT;
    if (!theirs && !stream->capture) {
        *handled = false;
        return CUDA_SUCCESS;
    }
    if (!theirs) { /* recorded outside of what captures */
        if (flags) {
            struct op op = {.kind = OP_WAIT, .context = stream->context, .event = event};
            event_hold(event);
            return capture_submit(stream, &op);
        }
        stream->capture->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (stream->legacy)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture && stream->capture != theirs) {
        stream->capture->invalid = theirs->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    bool joins = !stream->capture;
    if (!set_tips(stream, event->nodes, event->node_count, !joins))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (joins) {
        stream->capture = theirs;
        stream_hold(stream);
    }
    return CUDA_SUCCESS;
}

CUresult capture_forbids(CUcontext context, CUstream stream)
{
    CUresult result = CUDA_SUCCESS;
    if (!captures)
        return CUDA_SUCCESS;
    lock();
    if (stream && stream->capture) {
        stream->capture->invalid = true;
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    for (CUcontext c = driver.contexts; c && result == CUDA_SUCCESS; c = c->next)
        for (CUstream s = c->streams; s && result == CUDA_SUCCESS; s = s->next) {
            struct capture *capture = s->capture;
            if (!capture)
                continue;
            bool mine = pthread_equal(capture->thread, pthread_self());
            if (stream && stream->legacy && c == context && !(s->flags & CU_STREAM_NON_BLOCKING))
                result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
            else if (!stream && thread_mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
                     ((capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                       (mine || thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL)) ||
                      (capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && mine)))
                result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
            if (result != CUDA_SUCCESS)
                capture->invalid = true;
        }
    unlock();
    return result;
}

/* ---- calls ---- */

static CUresult enter(const char *name, CUstream handle, bool per_thread, CUstream *stream)
{
    ENTER_CONTEXT(name, context);
    return stream_resolve(context, handle, per_thread, stream);
}

static CUresult begin(CUstream handle, CUgraph into, const CUgraphNode *after, size_t count,
                      CUstreamCaptureMode mode, bool per_thread)
{
    CUstream stream;
    CUresult result = enter("cuStreamBeginCapture", handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if ((unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED || (count && !after))
        return CUDA_ERROR_INVALID_VALUE;
    if (stream->legacy)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    struct capture *capture = calloc(1, sizeof *capture);
    CUgraph graph = into ? into : graph_make();
    if (!capture || !graph) {
        free(capture);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    lock();
    if (stream->capture || !set_tips(stream, after, count, false)) {
        result = CUDA_ERROR_ILLEGAL_STATE;
    } else {
        *capture = (struct capture){.graph = graph,
                                    .origin = stream,
                                    .mode = mode,
                                    .thread = pthread_self(),
                                    .id = ++driver.next_id,
                                    .into_existing = into != NULL};
        stream->capture = capture;
        stream_hold(stream);
        captures++;
    }
    unlock();
    if (result != CUDA_SUCCESS) {
        if (!into)
            graph_free(graph);
        free(capture);
    }
    return result;
}

CU_API CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    return begin(stream, NULL, NULL, 0, mode, false);
}

CU_API CUresult cuStreamBeginCapture_v2_ptsz(CUstream stream, CUstreamCaptureMode mode)
{
    return begin(stream, NULL, NULL, 0, mode, true);
}

static CUresult begin_into(CUstream stream, CUgraph graph, const CUgraphNode *after, size_t count,
                           CUstreamCaptureMode mode, bool per_thread)
{
    if (!vc_handle_is(graph, HANDLE_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    return begin(stream, graph, after, count, mode, per_thread);
}

CU_API CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph,
                                            const CUgraphNode *after, const CUgraphEdgeData *data,
                                            size_t count, CUstreamCaptureMode mode)
{
    (void)data;
    return begin_into(stream, graph, after, count, mode, false);
}

CU_API CUresult cuStreamBeginCaptureToGraph_ptsz(CUstream stream, CUgraph graph,
                                                 const CUgraphNode *after,
                                                 const CUgraphEdgeData *data, size_t count,
                                                 CUstreamCaptureMode mode)
{
    (void)data;
    return begin_into(stream, graph, after, count, mode, true);
}

/* Whether `node` is among `tips` or comes before one of them. */
static bool reached(CUgraphNode node, const CUgraphNode *tips, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (tips[i] == node || reached(node, tips[i]->waits_for, tips[i]->waits))
            return true;
    return false;
}

static bool joined(const struct capture *capture)
{
    for (CUcontext c = driver.contexts; c; c = c->next)
        for (CUstream s = c->streams; s; s = s->next)
            for (size_t i = 0; s->capture == capture && i < s->tip_count; i++)
                if (!reached(s->tips[i], capture->origin->tips, capture->origin->tip_count))
                    return false;
    return true;
}

static void leave(struct capture *capture)
{
    for (CUcontext c = driver.contexts; c; c = c->next)
        for (CUstream s = c->streams, next; s; s = next) {
            next = s->next;
            if (s->capture != capture)
                continue;
            s->capture = NULL;
            free(s->tips);
            s->tips = NULL;
            s->tip_count = 0;
            stream_release(s);
        }
    captures--;
}

static CUresult end(CUstream handle, CUgraph *graph, bool per_thread)
{
    CUstream stream;
    CUresult result = enter("cuStreamEndCapture", handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!graph)
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    struct capture *capture = stream->capture;
    *graph = NULL;
    if (!capture) {
        result = CUDA_ERROR_ILLEGAL_STATE;
    } else if (capture->origin != stream) {
        result = CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    } else if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
               !pthread_equal(capture->thread, pthread_self())) {
        result = CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    } else {
        if (capture->invalid)
            result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        else if (!joined(capture))
            result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
        leave(capture);
        if (result == CUDA_SUCCESS)
            *graph = capture->graph;
        else if (!capture->into_existing)
            graph_free(capture->graph);
        free(capture);
    }
    unlock();
    return result;
}

CU_API CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    return end(stream, graph, false);
}

CU_API CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *graph)
{
    return end(stream, graph, true);
}

static CUresult info(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
                     const CUgraphNode **nodes, const CUgraphEdgeData **data, size_t *count,
                     bool per_thread)
{
    CUstream stream;
    CUresult result = enter("cuStreamGetCaptureInfo", handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!status)
        return CUDA_ERROR_INVALID_VALUE;
    if (stream->legacy && capture_forbids(stream->context, stream) != CUDA_SUCCESS)
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    lock();
    const struct capture *capture = stream->capture;
    *status = !capture           ? CU_STREAM_CAPTURE_STATUS_NONE
              : capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                 : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    if (*status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
        if (id)
            *id = capture->id;
        if (graph)
            *graph = capture->graph;
        if (nodes)
            *nodes = stream->tips;
        if (data)
            *data = NULL;
        if (count)
            *count = stream->tip_count;
    }
    unlock();
    return CUDA_SUCCESS;
}

CU_API CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    return info(stream, status, NULL, NULL, NULL, NULL, NULL, false);
}

CU_API CUresult cuStreamIsCapturing_ptsz(CUstream stream, CUstreamCaptureStatus *status)
{
    return info(stream, status, NULL, NULL, NULL, NULL, NULL, true);
}

CU_API CUresult cuStreamGetCaptureInfo(CUstream stream, CUstreamCaptureStatus *status,
                                       cuuint64_t *id)
{
    return info(stream, status, id, NULL, NULL, NULL, NULL, false);
}

CU_API CUresult cuStreamGetCaptureInfo_ptsz(CUstream stream, CUstreamCaptureStatus *status,
                                            cuuint64_t *id)
{
    return info(stream, status, id, NULL, NULL, NULL, NULL, true);
}

CU_API CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus *status,
                                          cuuint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
                                          size_t *count)
{
    return info(stream, status, id, graph, nodes, NULL, count, false);
}

CU_API CUresult cuStreamGetCaptureInfo_v2_ptsz(CUstream stream, CUstreamCaptureStatus *status,
                                               cuuint64_t *id, CUgraph *graph,
                                               const CUgraphNode **nodes, size_t *count)
{
    return info(stream, status, id, graph, nodes, NULL, count, true);
}

CU_API CUresult cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus *status,
                                          cuuint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
                                          const CUgraphEdgeData **data, size_t *count)
{
    return info(stream, status, id, graph, nodes, data, count, false);
}

CU_API CUresult cuStreamGetCaptureInfo_v3_ptsz(CUstream stream, CUstreamCaptureStatus *status,
                                               cuuint64_t *id, CUgraph *graph,
                                               const CUgraphNode **nodes,
                                               const CUgraphEdgeData **data, size_t *count)
{
    return info(stream, status, id, graph, nodes, data, count, true);
}

static CUresult update_tips(CUstream handle, CUgraphNode *nodes, size_t count, unsigned flags,
                            bool per_thread)
{
    CUstream stream;
    CUresult result = enter("cuStreamUpdateCaptureDependencies", handle, per_thread, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || (count && !nodes))
        return CUDA_ERROR_INVALID_VALUE;
    lock();
    if (!stream->capture)
        result = CUDA_ERROR_ILLEGAL_STATE;
    for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++)
        if (!vc_handle_is(nodes[i], HANDLE_NODE) || nodes[i]->graph != stream->capture->graph)
            result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS &&
        !set_tips(stream, nodes, count, flags == CU_STREAM_ADD_CAPTURE_DEPENDENCIES))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    unlock();
    return result;
}

CU_API CUresult cuStreamUpdateCaptureDependencies(CUstream stream, CUgraphNode *nodes, size_t count,
                                                  unsigned flags)
{
    return update_tips(stream, nodes, count, flags, false);
}

CU_API CUresult cuStreamUpdateCaptureDependencies_ptsz(CUstream stream, CUgraphNode *nodes,
                                                       size_t count, unsigned flags)
{
    return update_tips(stream, nodes, count, flags, true);
}

CU_API CUresult cuStreamUpdateCaptureDependencies_v2(CUstream stream, CUgraphNode *nodes,
                                                     const CUgraphEdgeData *data, size_t count,
                                                     unsigned flags)
{
    (void)data;
    return update_tips(stream, nodes, count, flags, false);
}

CU_API CUresult cuStreamUpdateCaptureDependencies_v2_ptsz(CUstream stream, CUgraphNode *nodes,
                                                          const CUgraphEdgeData *data, size_t count,
                                                          unsigned flags)
{
    (void)data;
    return update_tips(stream, nodes, count, flags, true);
}

CU_API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    ENTER("cuThreadExchangeStreamCaptureMode");
    if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    CUstreamCaptureMode was = thread_mode;
    thread_mode = *mode;
    *mode = was;
    return CUDA_SUCCESS;
}
