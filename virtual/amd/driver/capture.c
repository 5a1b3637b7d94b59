/* capture.c: streams that build a graph in place of running. A capture spreads to a stream that
 * waits for one of its events, and has to be joined again before its end. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

struct capture {
    uint64_t id;
    hipGraph_t graph;
    hipStream_t origin;
    bool invalid;
    int streams; /* that are in it */
};

static hipError_t set_tips(hipStream_t stream, const hipGraphNode_t *nodes, size_t count)
{
    hipGraphNode_t *copy = malloc((count + 1) * sizeof *copy);
    if (!copy)
        return hipErrorOutOfMemory;
    if (count)
        memcpy(copy, nodes, count * sizeof *copy);
    free(stream->tips);
    stream->tips = copy;
    stream->tip_count = count;
    return hipSuccess;
}

static void leave(hipStream_t stream)
{
    stream->capture->streams--;
    stream->capture = NULL;
    free(stream->tips);
    stream->tips = NULL;
    stream->tip_count = 0;
}

static hipGraphNodeType type_of(enum op_kind kind)
{
    switch (kind) {
    case OP_KERNEL:
        return hipGraphNodeTypeKernel;
    case OP_COPY:
        return hipGraphNodeTypeMemcpy;
    case OP_FILL:
        return hipGraphNodeTypeMemset;
    case OP_HOST:
        return hipGraphNodeTypeHost;
    default:
        return hipGraphNodeTypeEmpty;
    }
}

hipError_t capture_submit(hipStream_t stream, struct op *op)
{
    hipGraphNode_t node;
    if (type_of(op->kind) == hipGraphNodeTypeEmpty) {
        op_release(op);
        stream->capture->invalid = true;
        return hipErrorStreamCaptureUnsupported;
    }
    hipError_t result = graph_add(stream->capture->graph, type_of(op->kind), op, stream->tips,
                                  stream->tip_count, &node);
    return result == hipSuccess ? set_tips(stream, &node, 1) : result;
}

hipError_t capture_record(hipStream_t stream, hipEvent_t event)
{
    hipGraphNode_t *nodes = malloc((stream->tip_count + 1) * sizeof *nodes);
    if (!nodes)
        return hipErrorOutOfMemory;
    if (stream->tip_count)
        memcpy(nodes, stream->tips, stream->tip_count * sizeof *nodes);
    free(event->nodes);
    event->nodes = nodes;
    event->node_count = stream->tip_count;
    event->capture = stream->capture;
    event->capture_id = stream->capture->id;
    event->recorded = false;
    return hipSuccess;
}

/* The capture that an event belongs to, if it is still going on. */
static struct capture *capture_of(hipEvent_t event)
{
    if (!event->capture)
        return NULL;
    for (int d = 0; d < driver.count; d++)
        for (hipStream_t s = driver.device[d].streams; s; s = s->next)
            if (s->capture == event->capture && s->capture->id == event->capture_id)
                return s->capture;
    return NULL;
}

hipError_t capture_wait(hipStream_t stream, hipEvent_t event, bool *handled)
{
    struct capture *of = capture_of(event);
    *handled = of || stream->capture;
    if (!*handled)
        return hipSuccess;
    if (!of || (stream->capture && stream->capture != of)) {
        if (stream->capture)
            stream->capture->invalid = true;
        return of ? hipErrorStreamCaptureMerge : hipErrorStreamCaptureIsolation;
    }
    size_t count = stream->tip_count + event->node_count;
    hipGraphNode_t *both = malloc((count + 1) * sizeof *both);
    if (!both)
        return hipErrorOutOfMemory;
    if (stream->tip_count)
        memcpy(both, stream->tips, stream->tip_count * sizeof *both);
    if (event->node_count)
        memcpy(both + stream->tip_count, event->nodes, event->node_count * sizeof *both);
    if (!stream->capture) {
        stream->capture = of;
        of->streams++;
    }
    hipError_t result = set_tips(stream, both, count);
    free(both);
    return result;
}

static hipError_t enter(const char *name, hipStream_t handle, hipStream_t *stream)
{
    ENTER_DEVICE(name, device);
    return done(stream_resolve(device, handle, stream));
}

HIP_API hipError_t hipStreamBeginCapture(hipStream_t handle, int mode)
{
    hipStream_t stream;
    hipError_t result = enter("hipStreamBeginCapture", handle, &stream);
    if (result != hipSuccess)
        return result;
    if (mode < 0 || mode > hipStreamCaptureModeRelaxed)
        return done(hipErrorInvalidValue);
    if (stream->legacy)
        return done(hipErrorStreamCaptureUnsupported);
    struct capture *c = calloc(1, sizeof *c);
    if (!c || !(c->graph = graph_create())) {
        free(c);
        return done(hipErrorOutOfMemory);
    }
    lock();
    if (stream->capture) {
        graph_destroy(c->graph);
        free(c);
        result = hipErrorIllegalState;
    } else {
        c->id = ++driver.next_id;
        c->origin = stream;
        c->streams = 1;
        stream->capture = c;
    }
    unlock();
    return done(result);
}

/* Every other stream of the capture must have been waited for by the origin: its tips lie before
 * those of the origin. A node lies behind what it depends on. */
static bool joined(const struct capture *c)
{
    hipGraph_t g = c->graph;
    for (size_t i = 0; i < g->count; i++)
        g->nodes[i]->index = 0;
    for (size_t i = 0; i < c->origin->tip_count; i++)
        c->origin->tips[i]->index = 1;
    for (size_t i = g->count; i-- > 0;)
        for (size_t b = 0; g->nodes[i]->index && b < g->nodes[i]->before_count; b++)
            g->nodes[i]->before[b]->index = 1;
    for (int d = 0; d < driver.count; d++)
        for (hipStream_t s = driver.device[d].streams; s; s = s->next)
            for (size_t i = 0; s->capture == c && i < s->tip_count; i++)
                if (!s->tips[i]->index)
                    return false;
    return true;
}

static hipError_t end(hipStream_t stream, hipGraph_t *out)
{
    struct capture *c = stream->capture;
    *out = NULL;
    if (!c)
        return hipErrorIllegalState;
    if (c->origin != stream)
        return hipErrorStreamCaptureUnmatched;
    hipError_t result = c->invalid   ? hipErrorStreamCaptureInvalidated
                        : !joined(c) ? hipErrorStreamCaptureUnjoined
                                     : hipSuccess;
    for (int d = 0; d < driver.count; d++)
        for (hipStream_t s = driver.device[d].streams; s; s = s->next)
            if (s->capture == c)
                leave(s);
    if (result == hipSuccess)
        *out = c->graph;
    else
        graph_destroy(c->graph);
    free(c);
    return result;
}

HIP_API hipError_t hipStreamEndCapture(hipStream_t handle, hipGraph_t *out)
{
    hipStream_t stream;
    hipError_t result = enter("hipStreamEndCapture", handle, &stream);
    if (result != hipSuccess)
        return result;
    if (!out)
        return done(hipErrorInvalidValue);
    lock();
    result = end(stream, out);
    unlock();
    return done(result);
}

HIP_API hipError_t hipStreamGetCaptureInfo(hipStream_t handle, hipStreamCaptureStatus *status,
                                           unsigned long long *id)
{
    hipStream_t stream;
    hipError_t result = enter("hipStreamGetCaptureInfo", handle, &stream);
    if (result != hipSuccess)
        return result;
    if (!status)
        return done(hipErrorInvalidValue);
    lock();
    const struct capture *c = stream->capture;
    *status = !c           ? hipStreamCaptureStatusNone
              : c->invalid ? hipStreamCaptureStatusInvalidated
                           : hipStreamCaptureStatusActive;
    if (id && c)
        *id = c->id;
    unlock();
    return hipSuccess;
}

HIP_API hipError_t hipStreamIsCapturing(hipStream_t stream, hipStreamCaptureStatus *status)
{
    return hipStreamGetCaptureInfo(stream, status, NULL);
}

HIP_API hipError_t hipThreadExchangeStreamCaptureMode(hipStreamCaptureMode *mode)
{
    static _Thread_local hipStreamCaptureMode own = hipStreamCaptureModeGlobal;
    ENTER("hipThreadExchangeStreamCaptureMode");
    if (!mode || *mode > hipStreamCaptureModeRelaxed)
        return done(hipErrorInvalidValue);
    hipStreamCaptureMode was = own;
    own = *mode;
    *mode = was;
    return hipSuccess;
}
