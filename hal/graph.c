#include <string.h>

#include "hal.h"

/* One launch, placed when it was recorded. The op struct follows the node in memory. */
struct node {
    struct node *next;
    uint64_t source; /* number of the recorded op that it came of */
    uint64_t scratch_offset, scratch_size;
    bool on_host;
    void *native;   /* the backend's graph of this node and those behind it */
    uint32_t count; /* of nodes in it */
    mh_op op;       /* the rest of the struct lies behind */
};

struct mh_graph {
    mh_encoder encoder; /* first */
    atomic_uint refs;
    bool sealed;
    struct node *first, **tail;
    mh_graph_info info;
};

mh_status mh_graph_create(mh_device *device, mh_graph **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_graph_create: %s is NULL",
                       device ? "out" : "device");
    *out = NULL;
    mh_status status = hal_check_device(device, device->generation, "device");
    if (status)
        return status;
    mh_graph *graph = hal_alloc(device->runtime, sizeof(*graph));
    if (!graph)
        return MH_OUT_OF_MEMORY;
    atomic_init(&graph->refs, 1);
    hal_encoder_init(&graph->encoder, device, true);
    graph->tail = &graph->first;
    graph->info.struct_size = sizeof(graph->info);
    *out = graph;
    return MH_OK;
}

mh_graph *mh_graph_retain(mh_graph *graph)
{
    if (graph)
        atomic_fetch_add_explicit(&graph->refs, 1, memory_order_relaxed);
    return graph;
}

/* Bytes of a node's op; a kernel's arguments lie behind it. */
static uint64_t size_of_op(const mh_op *op)
{
    uint64_t args = op->op == MH_OP_KERNEL ? ((const mh_op_kernel *)op)->arg_count : 0;
    return mh_op_size(op->op) + args * sizeof(mh_kernel_arg);
}

static void for_each_argument(const mh_op_kernel *op, bool retain)
{
    retain ? (void)mh_kernel_retain(op->kernel) : mh_kernel_release(op->kernel);
    for (uint32_t i = 0; i < op->arg_count; i++)
        if (op->args[i].kind == MH_ARG_TENSOR)
            retain ? (void)mh_buffer_retain(op->args[i].tensor.buffer)
                   : mh_buffer_release(op->args[i].tensor.buffer);
}

static void for_each_tensor(const mh_op_exchange *op, bool retain)
{
    const mh_tensor *tensors[] = {&op->y,      &op->x,       &op->experts, &op->owners,
                                  &op->source, &op->arrived, &op->count,   &op->fault};
    for (int i = 0; i < 8; i++)
        retain ? (void)mh_buffer_retain(tensors[i]->buffer) : mh_buffer_release(tensors[i]->buffer);
    retain ? (void)mh_comm_retain(op->comm) : mh_comm_release(op->comm);
}

/* Everything an op names, kept or let go; the encoder's own arena is not an object of its own. */
static void for_each_operand(mh_encoder *encoder, const mh_op *op, bool retain)
{
    const struct hal_op_info *info = hal_op_find(op->op);
    if (op->op == MH_OP_EXCHANGE) {
        for_each_tensor((const mh_op_exchange *)op, retain);
        return;
    }
    if (!info) {
        for_each_argument((const mh_op_kernel *)op, retain);
        return;
    }
    for (uint32_t i = 0; i < info->operand_count; i++) {
        const struct hal_operand *operand = &info->operands[i];
        if (operand->kind == HAL_WEIGHT) {
            mh_weight *weight = hal_weight_at(op, operand);
            retain ? (void)mh_weight_retain(weight) : mh_weight_release(weight);
            continue;
        }
        const mh_tensor *t = hal_tensor_at(op, operand);
        if (!t->rank || t->buffer == &encoder->arena)
            continue;
        retain ? (void)mh_buffer_retain(t->buffer) : mh_buffer_release(t->buffer);
    }
}

static void destroy_native(mh_device *device, void *handle, bool current)
{
    if (current)
        device->table->graph->destroy(device->handle, handle);
}

static void retire_native(mh_graph *graph, void *native)
{
    if (native)
        hal_retire(graph->encoder.device, graph->encoder.generation, native, destroy_native);
}

static void release_nodes(mh_graph *graph, struct node *node)
{
    mh_runtime *runtime = graph->encoder.device->runtime;
    while (node) {
        struct node *next = node->next;
        retire_native(graph, node->native);
        for_each_operand(&graph->encoder, &node->op, false);
        hal_free(runtime, (void *)(uintptr_t)node->op.label);
        hal_free(runtime, node);
        node = next;
    }
}

void mh_graph_release(mh_graph *graph)
{
    if (!graph || atomic_fetch_sub_explicit(&graph->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_runtime *runtime = mh_runtime_retain(graph->encoder.device->runtime);
    release_nodes(graph, graph->first);
    hal_encoder_finish(&graph->encoder);
    hal_free(runtime, graph);
    mh_runtime_release(runtime);
}

mh_encoder *mh_graph_encoder(mh_graph *graph)
{
    return graph ? &graph->encoder : NULL;
}

/* ---- recording ---- */

bool hal_graph_is_sealed(const mh_encoder *encoder)
{
    return ((const mh_graph *)encoder)->sealed;
}

mh_status hal_graph_count_op(mh_encoder *encoder)
{
    mh_graph *graph = (mh_graph *)encoder;
    if (graph->sealed)
        return hal_fail(encoder->device->runtime, MH_WRONG_STATE, "mh_encode: the graph is sealed");
    graph->info.ops++;
    return MH_OK;
}

mh_status hal_graph_reserve(mh_encoder *encoder, uint64_t arena_bytes)
{
    mh_graph *graph = (mh_graph *)encoder;
    if (arena_bytes > graph->info.scratch_bytes)
        graph->info.scratch_bytes = arena_bytes;
    return MH_OK;
}

mh_status hal_graph_add(mh_encoder *encoder, const mh_op *op, uint64_t scratch_offset,
                        uint64_t scratch_size, bool on_host)
{
    mh_graph *graph = (mh_graph *)encoder;
    mh_runtime *runtime = encoder->device->runtime;
    struct node *node = hal_alloc(runtime, offsetof(struct node, op) + size_of_op(op));
    if (!node)
        return MH_OUT_OF_MEMORY;
    memcpy((char *)node + offsetof(struct node, op), op, mh_op_size(op->op));
    if (op->op == MH_OP_KERNEL) {
        mh_op_kernel *copy = (mh_op_kernel *)&node->op;
        if (copy->arg_count)
            copy->args = memcpy(copy + 1, copy->args, copy->arg_count * sizeof(*copy->args));
    }
    node->op.label = NULL;
    if (op->label) {
        size_t length = strlen(op->label) + 1;
        char *label = hal_alloc(runtime, length);
        if (!label) {
            hal_free(runtime, node);
            return MH_OUT_OF_MEMORY;
        }
        node->op.label = memcpy(label, op->label, length);
    }
    node->source = graph->info.ops - 1;
    node->on_host = on_host;
    node->scratch_offset = scratch_offset;
    node->scratch_size = scratch_size;
    for_each_operand(encoder, &node->op, true);
    /* A segment is a run of native nodes, or one host op. */
    struct node *last =
        graph->first ? (struct node *)(void *)((char *)graph->tail - offsetof(struct node, next))
                     : NULL;
    if (!last || last->on_host || on_host)
        graph->info.segments++;
    *graph->tail = node; /* NOLINT(clang-analyzer-core.NullDereference): is of mh_graph_create */
    graph->tail = &node->next;
    *(on_host ? &graph->info.fallback : &graph->info.nodes) += 1;
    return hal_graph_reserve(encoder, scratch_offset + scratch_size);
}

static mh_scratch scratch_of(const mh_buffer *arena, const struct node *node)
{
    if (!node->scratch_size)
        return (mh_scratch){0};
    char *host = arena->view.host;
    return (mh_scratch){arena->view.handle, host ? host + node->scratch_offset : NULL,
                        node->scratch_offset, node->scratch_size};
}

/* The nodes from `first` up to the next one on the host as one graph of the device's own. */
static mh_status make_native(mh_graph *graph, struct node *first, uint32_t count)
{
    mh_device *device = graph->encoder.device;
    if (first->native) /* of a seal that failed further on */
        return MH_OK;
    const mh_op **ops = hal_alloc(device->runtime, count * sizeof(*ops));
    mh_scratch *scratch = hal_alloc(device->runtime, count * sizeof(*scratch));
    mh_status status = ops && scratch ? MH_OK : MH_OUT_OF_MEMORY;
    uint32_t i = 0;
    for (struct node *node = first; !status && i < count; node = node->next, i++) {
        ops[i] = &node->op;
        scratch[i] = scratch_of(&graph->encoder.arena, node);
    }
    if (!status)
        status = device->table->graph->create(device->handle, ops, scratch, count, &first->native);
    hal_free(device->runtime, scratch);
    hal_free(device->runtime, ops);
    if (status) {
        first->native = NULL;
        return status == MH_UNSUPPORTED ? MH_OK : hal_backend_status(device, status);
    }
    first->count = count;
    graph->info.native_segments++;
    return MH_OK;
}

static mh_status make_segments(mh_graph *graph)
{
    mh_status status = MH_OK;
    for (struct node *node = graph->first; !status && node;) {
        struct node *first = node;
        uint32_t count = 0;
        for (; node && !node->on_host; node = node->next)
            count++;
        if (count)
            status = make_native(graph, first, count);
        else
            node = node->next;
    }
    return status;
}

mh_status mh_graph_seal(mh_graph *graph)
{
    if (!graph)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_graph_seal: graph is NULL");
    mh_device *device = graph->encoder.device;
    mh_status status = hal_check_device(device, graph->encoder.generation, "graph");
    if (!status && graph->sealed)
        status = hal_fail(device->runtime, MH_WRONG_STATE, "mh_graph_seal: the graph is sealed");
    if (!status)
        status = hal_buffer_grow(&graph->encoder.arena, graph->info.scratch_bytes);
    if (!status && device->table->graph)
        status = make_segments(graph);
    if (!status)
        graph->sealed = true;
    return status;
}

/* ---- updating ---- */

/* What `op` becomes, recorded to the side, and the arena that it needs. */
static mh_status record_aside(mh_graph *graph, const mh_op *op, struct node **nodes,
                              uint64_t *arena)
{
    struct node *first = graph->first, **tail = graph->tail;
    mh_graph_info info = graph->info;
    graph->first = NULL;
    graph->tail = &graph->first;
    graph->info = (mh_graph_info){.struct_size = sizeof(info)};
    graph->sealed = false;
    mh_status status = mh_encode(&graph->encoder, op);
    *nodes = graph->first;
    *arena = graph->info.scratch_bytes;
    graph->first = first;
    graph->tail = tail;
    graph->info = info;
    graph->sealed = true;
    return status;
}

/* Do the nodes from `old` on that came of op `index` have the same form as all of `fresh`? */
static bool same_launches(const struct node *old, uint64_t index, const struct node *fresh)
{
    for (; old && old->source == index; old = old->next, fresh = fresh->next)
        if (!fresh || fresh->op.op != old->op.op || fresh->on_host != old->on_host)
            return false;
    return !fresh;
}

/* Exchanges what is at *at for the nodes `fresh`, as many, which take over their native graph.
 * Returns what was there. */
static struct node *exchange(mh_graph *graph, struct node **at, struct node *fresh)
{
    struct node *old = *at, *from = old, *to = fresh;
    for (;; from = from->next, to = to->next) {
        to->source = from->source;
        to->native = from->native;
        to->count = from->count;
        from->native = NULL;
        if (!to->next)
            break;
    }
    *at = fresh;
    to->next = from->next;
    from->next = NULL;
    if (graph->tail == &from->next)
        graph->tail = &to->next;
    return old;
}

static mh_status update_node(mh_graph *graph, void *native, uint32_t place, const struct node *node)
{
    const mh_backend_graph *group = graph->encoder.device->table->graph;
    mh_scratch scratch = scratch_of(&graph->encoder.arena, node);
    if (group->struct_size < sizeof(*group) || !group->update)
        return MH_UNSUPPORTED;
    return group->update(graph->encoder.device->handle, native, place, &node->op, &scratch);
}

/* Tells native graphs of the nodes that came of op `index`; one that does not take them is made
 * anew, or with `drop` left out, so that its nodes are encoded one by one. */
static mh_status update_native(mh_graph *graph, uint64_t index, bool drop)
{
    mh_status status = MH_OK;
    for (struct node *node = graph->first; !status && node;) {
        struct node *first = node;
        uint32_t count = first->native ? first->count : 1;
        bool taken = true;
        for (uint32_t place = 0; place < count; place++, node = node->next)
            if (first->native && taken && node->source == index)
                taken = !drop && !update_node(graph, first->native, place, node);
        if (taken)
            continue;
        retire_native(graph, first->native);
        first->native = NULL;
        graph->info.native_segments--;
        status = drop ? MH_OK : make_native(graph, first, count);
    }
    return status;
}

mh_status mh_graph_update(mh_graph *graph, uint64_t index, const mh_op *op)
{
    if (!graph)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_graph_update: graph is NULL");
    mh_device *device = graph->encoder.device;
    mh_status status = hal_check_device(device, graph->encoder.generation, "graph");
    if (status)
        return status;
    if (!graph->sealed)
        return hal_fail(device->runtime, MH_WRONG_STATE,
                        "mh_graph_update: the graph is not sealed");
    if (index >= graph->info.ops)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_graph_update: index is %llu, the graph has %llu ops",
                        (unsigned long long)index, (unsigned long long)graph->info.ops);
    struct node *fresh, **at = &graph->first;
    uint64_t arena;
    while (*at && (*at)->source != index)
        at = &(*at)->next;
    status = record_aside(graph, op, &fresh, &arena);
    if (!status && (!same_launches(*at, index, fresh) || arena > graph->info.scratch_bytes))
        status = hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                          "mh_graph_update: op %llu becomes other launches than the recorded one, "
                          "or needs more than the graph's %llu bytes of scratch",
                          (unsigned long long)index, (unsigned long long)graph->info.scratch_bytes);
    if (!status && fresh) {
        fresh = exchange(graph, at, fresh);
        status = update_native(graph, index, false);
        if (status) {
            fresh = exchange(graph, at, fresh);
            update_native(graph, index, true);
        }
    }
    release_nodes(graph, fresh);
    return status;
}

/* ---- launching ---- */

static mh_status launch_native(mh_stream *stream, struct node **first)
{
    mh_device *device = stream->encoder.device;
    struct node *node = *first;
    uint32_t count = node->count;
    mh_status status = hal_stream_cancelled(stream);
    if (status)
        return status;
    uint64_t number = atomic_fetch_add_explicit(&device->sequence, 1, memory_order_relaxed) + 1;
    atomic_store_explicit(&stream->last, number, memory_order_release);
    atomic_fetch_add_explicit(&device->native, count, memory_order_relaxed);
    atomic_fetch_add_explicit(&device->native_graphs, 1, memory_order_relaxed);
    status = hal_backend_status(device, device->table->graph->launch(stream->handle, node->native));
    while (--count)
        node = node->next;
    *first = node;
    return status;
}

mh_status mh_graph_launch(mh_graph *graph, mh_stream *stream)
{
    if (!graph)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_graph_launch: graph is NULL");
    mh_device *device = graph->encoder.device;
    mh_status status = hal_stream_check(stream);
    if (!status)
        status = hal_check_device(device, graph->encoder.generation, "graph");
    if (status)
        return status;
    if (!graph->sealed)
        return hal_fail(device->runtime, MH_WRONG_STATE,
                        "mh_graph_launch: the graph is not sealed");
    if (stream->encoder.device != device)
        return hal_fail(device->runtime, MH_INVALID_ARGUMENT,
                        "mh_graph_launch: the graph is on %s, the stream on %s", device->uri,
                        stream->encoder.device->uri);
    uint64_t begin = hal_timeline_begin(device);
    device->graph_launches++;
    for (struct node *node = graph->first; !status && node; node = node->next)
        status = node->native    ? launch_native(stream, &node)
                 : node->on_host ? hal_fallback_run(stream, &node->op)
                                 : hal_stream_native(stream, &graph->encoder, &node->op,
                                                     node->scratch_offset, node->scratch_size);
    hal_timeline_launch(device, graph->info.nodes + graph->info.fallback, begin);
    return status;
}

mh_status mh_graph_get_info(mh_graph *graph, mh_graph_info *out)
{
    if (!graph)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_graph_get_info: graph is NULL");
    return mh_struct_out(out, &graph->info, sizeof(graph->info));
}
