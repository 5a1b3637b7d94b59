/*
 * comm_native.c: collective operations by the devices themselves, which write into each other's
 * memory (mh_backend_peer). An operation is a list of launches (mh_op_exchange), the same on all
 * ranks; the host enqueues or records them and waits for nothing.
 */
#include <stdio.h>
#include <string.h>

#include "comm_impl.h"

/* Of a kernel; and bytes above which throughput counts and not latency, which then go in chunks of
 * so many. */
enum { BLOCKS = 32, LARGE = 1 << 20, CHUNK = 64 << 10 };

static mh_device *device_of(const mh_comm *comm, uint32_t rank)
{
    return comm->streams[rank]->encoder.device;
}

/* ---- deciding ---- */

/* Why it cannot be, as far as that is seen without asking the devices; "": it can. */
static void look(mh_comm *comm)
{
    char *reason = comm->info.reason;
    size_t size = sizeof(comm->info.reason);
    const char *backend = device_of(comm, 0)->table->name;
    if (comm->params.staged)
        snprintf(reason, size, "as was asked for");
    else if (comm->transport)
        snprintf(reason, size, "ranks are in several processes");
    else if (comm->info.count < 2 || comm->info.count > MH_EXCHANGE_RANKS)
        snprintf(reason, size, "%u ranks, must be 2 to %d", comm->info.count, MH_EXCHANGE_RANKS);
    for (uint32_t r = 0; !*reason && r < comm->info.count; r++) {
        const mh_device *device = device_of(comm, r);
        if (strcmp(device->table->name, backend))
            snprintf(reason, size, "%s and %s are of two backends", device_of(comm, 0)->uri,
                     device->uri);
        else if (!device->table->peer)
            snprintf(reason, size, "%s does not exchange with devices of its kind", device->uri);
        for (uint32_t i = 0; !*reason && i < r; i++)
            if (!strcmp(device_of(comm, i)->info.id, device->info.id))
                snprintf(reason, size, "ranks %u and %u are on one device, %s", i, r, device->uri);
    }
}

static mh_status open_ranks(mh_comm *comm)
{
    void *all[MH_EXCHANGE_RANKS];
    mh_exchange_params p = MH_INIT(mh_exchange_params);
    mh_status status = MH_OK;
    if (!comm->params.blocks)
        comm->params.blocks = BLOCKS;
    p.ranks = comm->info.count;
    p.capacity = comm->params.capacity, p.timeout_ns = comm->params.timeout_ns;
    p.chunk_bytes = comm->params.chunk_bytes, p.blocks = comm->params.blocks;
    comm->ranks = hal_alloc(comm->runtime, comm->info.count * sizeof(*comm->ranks));
    if (!comm->ranks)
        return MH_OUT_OF_MEMORY;
    for (uint32_t r = 0; !status && r < comm->info.count; r++) {
        mh_device *device = device_of(comm, r);
        p.rank = r;
        status = hal_check_device(device, comm->streams[r]->encoder.generation, "stream");
        if (!status)
            status = hal_backend_status(
                device, device->table->peer->create(device->handle, &p, &comm->ranks[r].exchange));
        if (status)
            comm->ranks[r].exchange = NULL;
        comm->ranks[r].generation = device->generation;
        all[r] = comm->ranks[r].exchange;
    }
    for (uint32_t r = 0; !status && r < comm->info.count; r++) {
        mh_device *device = device_of(comm, r);
        status = hal_backend_status(device, device->table->peer->join(device->handle, all[r], all));
    }
    if (!status)
        comm->capacity = device_of(comm, 0)->table->peer->capacity(device_of(comm, 0)->handle,
                                                                   comm->ranks[0].exchange);
    return status;
}

static void close_ranks(mh_comm *comm)
{
    for (uint32_t r = 0; comm->ranks && r < comm->info.count; r++) {
        mh_device *device = device_of(comm, r);
        if (comm->ranks[r].exchange && comm->ranks[r].generation == device->generation &&
            hal_is_alive(comm->runtime))
            device->table->peer->destroy(device->handle, comm->ranks[r].exchange);
    }
    hal_free(comm->runtime, comm->ranks);
    comm->ranks = NULL;
}

bool comm_is_native(mh_comm *comm)
{
    if (comm->decided)
        return comm->info.native;
    comm->decided = true;
    look(comm);
    if (*comm->info.reason)
        return false;
    if (open_ranks(comm)) {
        snprintf(comm->info.reason, sizeof(comm->info.reason), "%s", mh_last_message());
        close_ranks(comm);
        return false;
    }
    comm->info.native = 1;
    return true;
}

mh_status mh_comm_set(mh_comm *comm, const mh_comm_params *params)
{
    if (!comm)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_comm_set: comm is NULL");
    if (comm->decided || comm->info.operations)
        return hal_fail(comm->runtime, MH_WRONG_STATE,
                        "mh_comm_set: the communicator has been used");
    return mh_struct_in(&comm->params, params, sizeof(comm->params), "mh_comm_params");
}

/* ---- owners of experts, on the devices ---- */

static void free_owners(mh_comm *comm, struct comm_owners *o)
{
    for (uint32_t r = 0; o->buffers && r < comm->info.count; r++)
        mh_buffer_release(o->buffers[r]);
    hal_free(comm->runtime, o->buffers);
    hal_free(comm->runtime, o->owners);
    hal_free(comm->runtime, o);
}

/* The table of these owners; made once. */
static mh_status find_owners(mh_comm *comm, const uint32_t *owners, int64_t count,
                             struct comm_owners **out)
{
    uint64_t bytes = 4 * (uint64_t)count;
    for (struct comm_owners *o = comm->owners; o; o = o->next)
        if (o->count == count && !memcmp(o->owners, owners, bytes)) {
            *out = o;
            return MH_OK;
        }
    struct comm_owners *o = hal_alloc(comm->runtime, sizeof(*o));
    if (!o)
        return MH_OUT_OF_MEMORY;
    o->count = count;
    o->owners = hal_alloc(comm->runtime, bytes);
    o->buffers = hal_alloc(comm->runtime, comm->info.count * sizeof(*o->buffers));
    mh_status status = o->owners && o->buffers ? MH_OK : MH_OUT_OF_MEMORY;
    if (!status)
        memcpy(o->owners, owners, bytes);
    for (uint32_t r = 0; !status && r < comm->info.count; r++) {
        status = mh_buffer_create(device_of(comm, r), bytes, MH_BUFFER_DEVICE, &o->buffers[r]);
        if (!status)
            status = mh_buffer_write(o->buffers[r], 0, owners, bytes);
    }
    if (status) {
        free_owners(comm, o);
        return status;
    }
    o->next = comm->owners;
    comm->owners = o;
    *out = o;
    return MH_OK;
}

/* ---- memory that is given back between operations only ---- */

/* So many operations more, or fewer, are on their way. */
static void hold(mh_comm *comm, int more)
{
    for (uint32_t r = 0; r < comm->info.count; r++)
        atomic_fetch_add(&device_of(comm, r)->exchanging, more);
}

static void collect(mh_comm *comm)
{
    for (uint32_t r = 0; r < comm->info.count; r++)
        hal_collect(device_of(comm, r), NULL);
}

void comm_native_close(mh_comm *comm)
{
    while (comm->owners) {
        struct comm_owners *o = comm->owners;
        comm->owners = o->next;
        free_owners(comm, o);
    }
    close_ranks(comm);
    if (comm->holds) {
        hold(comm, -1);
        collect(comm);
    }
}

/* ---- launches ---- */

struct part {
    mh_comm *comm;
    mh_encoder *encoder;
    uint32_t rank;
    uint32_t phases;
    mh_op_exchange op;
};

/* Bytes [0, end) of what the op moves or sums, `most` a launch. The SEND of a first launch may come
 * alone; then the others come with the RECEIVE. */
static mh_status put(struct part *p, uint64_t end, uint64_t most)
{
    mh_status status = MH_OK;
    for (uint64_t at = 0; !status && at < end; at += most) {
        p->op.begin = at;
        p->op.end = end - at < most ? end : at + most;
        p->op.phases = at ? MH_EXCHANGE_SEND | MH_EXCHANGE_RECEIVE : p->phases;
        if (at && !(p->phases & MH_EXCHANGE_RECEIVE))
            break;
        status = hal_encode_exchange(p->encoder, &p->op);
        p->comm->info.launches += !status;
    }
    return status;
}

static mh_status put_move(struct part *p, uint32_t owner, uint64_t row, uint64_t bytes)
{
    p->op.kind = MH_EXCHANGE_MOVE;
    p->op.owner = owner, p->op.row = row;
    return put(p, row ? bytes : 0, p->comm->capacity);
}

/* Each rank's piece of x, `row` bytes but the last ones. */
static mh_status put_sum(struct part *p, uint64_t row)
{
    p->op.kind = MH_EXCHANGE_SUM;
    p->op.row = row;
    return put(p, row, p->comm->capacity / p->comm->info.ranks & ~UINT64_C(255));
}

/* Sums of pieces, a rank each, which then go to all. */
static mh_status put_all_reduce(struct part *p, const mh_tensor *y)
{
    uint64_t bytes = comm_bytes(y), ranks = p->comm->info.ranks;
    uint64_t row = (bytes + 16 * ranks - 1) / (16 * ranks) * 16, before = row * p->rank;
    p->op.y.offset += before < bytes ? before : bytes;
    mh_status status = put_sum(p, row);
    p->op.x = p->op.y = *y;
    return status ? status : put_move(p, MH_EXCHANGE_BY_ROW, row, bytes);
}

static uint64_t units(uint64_t bytes)
{
    return (bytes + 15) & ~UINT64_C(15);
}

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most)
{
    value = value < most ? value : most;
    return value > least ? value : least;
}

/* One part. What comes in a return is any block's, so that it is waited for by a launch of its own,
 * which begins when all that is sent has been. */
static mh_status put_part(struct part *p, uint32_t phases)
{
    mh_status status = MH_OK;
    bool apart = p->op.kind == MH_EXCHANGE_RETURN;
    for (uint32_t phase = MH_EXCHANGE_SEND; !status && phases; phase <<= 1) {
        p->op.phases = apart ? phases & phase : phases;
        phases &= ~p->op.phases;
        if (!p->op.phases)
            continue;
        status = hal_encode_exchange(p->encoder, &p->op);
        p->comm->info.launches += !status;
    }
    return status;
}

/* Items [0, end), `most` a part, of each column of the rows in turn. Nothing to move is a part too:
 * others wait for it, and so does a table. */
static mh_status put_rows(struct part *p, uint64_t end, uint64_t most, uint64_t width)
{
    const uint64_t row = p->op.row;
    mh_status status = MH_OK;
    bool more = true;
    for (p->op.part = 0; !status && more; p->op.part++) {
        p->op.width = row - p->op.column < width ? row - p->op.column : width;
        p->op.end = clamp(p->op.begin + most, 0, end);
        p->op.last = p->op.end == end && p->op.column + p->op.width == row;
        status = put_part(p, p->op.part ? MH_EXCHANGE_SEND | MH_EXCHANGE_RECEIVE : p->phases);
        more = !p->op.last && p->phases & MH_EXCHANGE_RECEIVE;
        p->op.column += p->op.end == end ? p->op.width : 0;
        p->op.begin = p->op.end == end ? 0 : p->op.end;
    }
    return status;
}

/* Each rank's part of a buffer takes whole chunks: of the choices of its tokens, and of its rows a
 * column as wide as there is room for. */
static mh_status put_dispatch(struct part *p, const mh_comm_op *op)
{
    const mh_comm_params *params = &p->comm->params;
    uint64_t tokens = (uint64_t)op->x.shape[0], slots = (uint64_t)op->experts.shape[1];
    uint64_t row = tokens ? mh_dtype_size(op->x.dtype) * (uint64_t)op->x.shape[1] : 0;
    uint64_t room = p->comm->capacity / p->comm->info.ranks & ~UINT64_C(15);
    uint64_t least = clamp((tokens + MH_EXCHANGE_CHUNKS - 1) / MH_EXCHANGE_CHUNKS, 1, tokens + 1);
    uint64_t chunk = params->chunk_bytes    ? params->chunk_bytes / (row + 1)
                     : tokens * row > LARGE ? CHUNK / (row + 1)
                                            : (tokens + params->blocks - 1) / params->blocks;
    chunk = clamp(clamp(chunk, 0, room / (4 * slots + row + 32)), least, tokens + 1);
    uint64_t choices = units(4 * slots * chunk);
    uint64_t width = room < choices ? 0 : clamp((room - choices) / chunk & ~UINT64_C(15), 0, row);
    if (room < choices || (row && !width))
        return hal_fail(p->comm->runtime, MH_INVALID_ARGUMENT,
                        "mh_comm_dispatch: %llu of %llu tokens go at once, each with %llu slots, "
                        "for which %llu bytes of the capacity are too few",
                        (unsigned long long)chunk, (unsigned long long)tokens,
                        (unsigned long long)slots, (unsigned long long)room);
    p->op.kind = MH_EXCHANGE_DISPATCH;
    p->op.chunk = (uint32_t)chunk;
    p->op.x = op->x, p->op.y = *op->rows->y, p->op.experts = op->experts;
    p->op.source = *op->rows->source, p->op.arrived = *op->rows->experts;
    p->op.count = *op->rows->count, p->op.fault = *op->rows->fault;
    p->op.row = row;
    uint64_t each = choices + units(width) * chunk;
    return put_rows(p, tokens, each ? room / each * chunk : tokens, width);
}

static mh_status put_return(struct part *p, const mh_comm_op *op)
{
    uint64_t all = (uint64_t)(op->y.shape[0] * op->y.shape[1]);
    uint64_t row = all ? mh_dtype_size(op->y.dtype) * (uint64_t)op->y.shape[2] : 0;
    uint64_t width = clamp(row, 0, p->comm->capacity);
    uint64_t most = p->comm->capacity / (units(width) + !width);
    p->op.kind = MH_EXCHANGE_RETURN;
    p->op.y = op->y, p->op.x = *op->rows->y;
    p->op.source = *op->rows->source, p->op.fault = *op->rows->fault;
    p->op.row = row;
    return put_rows(p, all, clamp(most, 1, MH_EXCHANGE_SLOTS), width);
}

static mh_status put_owners(struct part *p, const mh_comm_op *op)
{
    struct comm_owners *owners;
    mh_status status = find_owners(p->comm, op->owners, op->expert_count, &owners);
    if (!status)
        p->op.owners = mh_tensor_make(owners->buffers[p->rank], 0, MH_I32, 1, &op->expert_count);
    return status;
}

static mh_status put_op(struct part *p, const mh_comm_op *op)
{
    mh_status status = MH_OK;
    if (op->kind == MH_COMM_RETURN)
        return put_return(p, op);
    if (op->kind == MH_COMM_DISPATCH || op->kind == MH_COMM_COMBINE)
        status = put_owners(p, op);
    if (op->kind == MH_COMM_DISPATCH)
        return status ? status : put_dispatch(p, op);
    uint64_t bytes = comm_bytes(&op->y);
    p->op.y = op->y, p->op.x = op->x;
    switch (op->kind) {
    case MH_COMM_BROADCAST:
        p->op.x = op->y;
        return put_move(p, op->root, bytes, bytes);
    case MH_COMM_ALL_GATHER:
        p->op.x_begin = comm_bytes(&op->x) * p->rank;
        return put_move(p, MH_EXCHANGE_BY_ROW, comm_bytes(&op->x), bytes);
    case MH_COMM_ALL_REDUCE:
        return put_all_reduce(p, &op->y);
    case MH_COMM_REDUCE_SCATTER:
        return put_sum(p, bytes);
    default:
        p->op.x = op->y, p->op.experts = op->experts;
        return status ? status
                      : put_move(p, MH_EXCHANGE_BY_EXPERT, 4 * (uint64_t)op->y.shape[2], bytes);
    }
}

static mh_status encode(mh_comm *comm, uint32_t rank, mh_encoder *encoder, const mh_comm_op *op)
{
    struct part p = {comm, encoder, rank, op->phases, {.comm = comm}};
    p.op.base = (mh_op){.struct_size = sizeof(p.op), .op = MH_OP_EXCHANGE, .layer = -1};
    p.op.exchange = comm->ranks[rank].exchange;
    return put_op(&p, op);
}

/* ---- failures ---- */

void mh_comm_stop(mh_comm *comm)
{
    for (uint32_t r = 0; comm && comm->ranks && r < comm->info.count; r++) {
        mh_device *device = device_of(comm, r);
        if (comm->ranks[r].generation == device->generation)
            device->table->peer->stop(device->handle, comm->ranks[r].exchange);
        comm->stopped = true;
    }
}

mh_status comm_check_running(const mh_comm *comm)
{
    return comm->stopped ? hal_fail(comm->runtime, MH_WRONG_STATE,
                                    "mh_comm: it was stopped, or a rank of it has failed")
                         : MH_OK;
}

/* What kernels say. */
static mh_status check_states(mh_comm *comm)
{
    mh_status status = MH_OK;
    for (uint32_t r = 0; !status && comm->ranks && r < comm->info.count; r++) {
        mh_device *device = device_of(comm, r);
        mh_exchange_state state = MH_INIT(mh_exchange_state);
        if (comm->ranks[r].generation != device->generation)
            continue;
        device->table->peer->state(device->handle, comm->ranks[r].exchange, &state);
        if (state.failed)
            status =
                hal_fail(comm->runtime, MH_TIMEOUT,
                         "mh_comm: rank %u, %s, waited in vain for rank %u, %s, in operation "
                         "%u of the communicator",
                         r, device->uri, state.source,
                         state.source < comm->info.count ? device_of(comm, state.source)->uri : "?",
                         state.epoch);
    }
    return status;
}

/* All that is enqueued now, of all streams in turn, so that an error of one is seen while others
 * wait for it. */
static mh_status wait_in_turn(mh_comm *comm, uint64_t timeout_ns)
{
    uint64_t spent = 0;
    mh_status status = MH_TIMEOUT;
    for (uint64_t slice = 50000; status == MH_TIMEOUT; spent += slice) {
        if (spent >= timeout_ns && spent)
            return mh_fail(MH_TIMEOUT, "mh_comm_wait: not done after %llu ns",
                           (unsigned long long)timeout_ns);
        slice = spent < 10000000 ? 50000 : 1000000;
        slice = timeout_ns - spent < slice ? timeout_ns - spent : slice;
        status = MH_OK;
        for (uint32_t r = 0; r < comm->info.count && (!status || status == MH_TIMEOUT); r++) {
            mh_status waited = mh_stream_wait(comm->streams[r], status ? 0 : slice);
            status = waited ? waited : status;
        }
        if (!timeout_ns)
            return status;
    }
    return status;
}

mh_status mh_comm_wait(mh_comm *comm, uint64_t timeout_ns)
{
    if (!comm)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_comm_wait: comm is NULL");
    mh_status status = wait_in_turn(comm, timeout_ns);
    if (status == MH_TIMEOUT)
        return status;
    if (!status)
        status = check_states(comm);
    if (status && comm->ranks) {
        mh_error cause = MH_INIT(mh_error);
        mh_last_error(&cause);
        mh_comm_stop(comm);
        for (uint32_t r = 0; r < comm->info.count; r++)
            mh_stream_wait(comm->streams[r], MH_FOREVER);
        mh_fail(status, "%s", cause.message);
    }
    if (comm->holds)
        collect(comm);
    return status;
}

/* ---- operations ---- */

mh_status comm_native_run(mh_comm *comm, const mh_comm_op *op, const mh_tensor *y,
                          const mh_tensor *x, const mh_tensor *experts)
{
    mh_comm_rows rows;
    mh_status status = comm_check_running(comm);
    hold(comm, 1);
    for (uint32_t r = 0; !status && r < comm->info.count; r++) {
        mh_comm_op own = *op;
        own.phases = MH_COMM_SEND | MH_COMM_RECEIVE;
        own.y = y[r], own.x = x[r];
        if (experts)
            own.experts = experts[r];
        if (op->kind == MH_COMM_DISPATCH || op->kind == MH_COMM_RETURN) {
            rows = *op->rows;
            rows.y += r, rows.source += r, rows.fault += r;
            if (op->kind == MH_COMM_DISPATCH)
                rows.experts += r, rows.count += r;
            own.rows = &rows;
        }
        status = encode(comm, r, &comm->streams[r]->encoder, &own);
        if (status && r) /* the others wait for this one */
            mh_comm_stop(comm);
    }
    hold(comm, -1);
    comm->info.operations += status != MH_UNSUPPORTED;
    return status;
}

mh_status mh_comm_encode(mh_comm *comm, uint32_t rank, mh_encoder *encoder, const mh_comm_op *op)
{
    static const char name[] = "mh_comm_encode";
    mh_comm_op own;
    mh_comm_rows rows;
    if (!comm || !encoder)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: %s is NULL", name, comm ? "encoder" : "comm");
    mh_status status = mh_struct_in(&own, op, sizeof(own), "mh_comm_op");
    if (status)
        return status;
    if (!comm_is_native(comm))
        return hal_fail(comm->runtime, MH_UNSUPPORTED, "%s: the communicator is staged: %s", name,
                        comm->info.reason);
    if (rank >= comm->info.count || encoder->device != device_of(comm, rank))
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                        "%s: rank is %u of %u, or the encoder is not on its device", name, rank,
                        comm->info.count);
    bool sums = own.kind == MH_COMM_ALL_REDUCE || own.kind == MH_COMM_REDUCE_SCATTER;
    if (!own.phases || own.phases > (MH_COMM_SEND | MH_COMM_RECEIVE) ||
        (sums && own.phases != (MH_COMM_SEND | MH_COMM_RECEIVE)))
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: phases is %u%s", name, own.phases,
                        sums ? ", must be both of a sum" : "");
    status = comm_check_running(comm);
    if (!status)
        status = comm_check_op(comm, name, rank, &own, &rows);
    own.rows = &rows;
    comm->info.operations += !status && own.phases & MH_COMM_SEND;
    if (!status && !comm->holds) {
        comm->holds = true;
        hold(comm, 1);
    }
    return status ? status : encode(comm, rank, encoder, &own);
}
