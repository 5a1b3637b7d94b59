/* comm.c: collective operations, by way of host memory. The definition of what they compute. */
#include <string.h>

#include "comm_impl.h"

/* ---- life ---- */

static mh_status check_streams(mh_stream *const *streams, uint32_t count)
{
    if (!streams || !count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_comm_create: no streams given");
    for (uint32_t i = 0; i < count; i++) {
        mh_status status = hal_stream_check(streams[i]);
        if (status)
            return status;
        const mh_runtime *runtime = streams[i]->encoder.device->runtime;
        if (runtime != streams[0]->encoder.device->runtime)
            return mh_fail(MH_INVALID_ARGUMENT,
                           "mh_comm_create: streams[0] and streams[%u] are of two runtimes", i);
        for (uint32_t j = 0; j < i; j++)
            if (streams[i] == streams[j])
                return mh_fail(MH_INVALID_ARGUMENT,
                               "mh_comm_create: streams[%u] and streams[%u] are the same", j, i);
    }
    return MH_OK;
}

mh_status mh_comm_create(mh_stream *const *streams, uint32_t count, mh_transport *transport,
                         mh_comm **out)
{
    if (!out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_comm_create: out is NULL");
    *out = NULL;
    mh_status status = check_streams(streams, count);
    if (status)
        return status;
    mh_runtime *runtime = streams[0]->encoder.device->runtime;
    mh_comm *comm = hal_alloc(runtime, sizeof(*comm));
    if (!comm)
        return MH_OUT_OF_MEMORY;
    uint32_t processes = mh_transport_processes(transport);
    atomic_init(&comm->refs, 1);
    comm->runtime = mh_runtime_retain(runtime);
    comm->transport = mh_transport_retain(transport);
    comm->info.struct_size = sizeof(comm->info);
    comm->streams = hal_alloc(runtime, count * sizeof(*comm->streams));
    comm->counts = hal_alloc(runtime, processes * sizeof(*comm->counts));
    comm->parts = hal_alloc(runtime, processes * sizeof(*comm->parts));
    if (!comm->streams || !comm->counts || !comm->parts)
        status = MH_OUT_OF_MEMORY;
    for (uint32_t i = 0; !status && i < count; i++, comm->info.count++)
        comm->streams[i] = mh_stream_retain(streams[i]);
    if (!status)
        status = mh_transport_ranks(transport, count, comm->counts, &comm->info.first,
                                    &comm->info.ranks);
    if (status)
        mh_comm_release(comm);
    else
        *out = comm;
    return status;
}

mh_comm *mh_comm_retain(mh_comm *comm)
{
    if (comm)
        atomic_fetch_add_explicit(&comm->refs, 1, memory_order_relaxed);
    return comm;
}

void mh_comm_release(mh_comm *comm)
{
    if (!comm || atomic_fetch_sub_explicit(&comm->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_runtime *runtime = comm->runtime;
    mh_comm_wait(comm, MH_FOREVER); /* streams may still read the staging */
    comm_native_close(comm);
    for (uint32_t i = 0; i < comm->info.count; i++)
        mh_stream_release(comm->streams[i]);
    for (int i = 0; i < TURNS; i++)
        hal_free(runtime, comm->staging[i].data);
    hal_free(runtime, comm->streams);
    hal_free(runtime, comm->counts);
    hal_free(runtime, comm->parts);
    mh_transport_release(comm->transport);
    hal_free(runtime, comm);
    mh_runtime_release(runtime);
}

mh_status mh_comm_get_info(mh_comm *comm, mh_comm_info *out)
{
    if (!comm)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_comm_get_info: comm is NULL");
    comm_is_native(comm);
    return mh_struct_out(out, &comm->info, sizeof(comm->info));
}

/* ---- tensors ---- */

static bool is_dense(const mh_tensor *t)
{
    int64_t stride = (int64_t)mh_dtype_size(t->dtype);
    for (uint32_t i = t->rank; i-- > 0; stride *= t->shape[i])
        if (t->shape[i] > 1 && t->stride[i] != stride)
            return false;
    return true;
}

uint64_t comm_bytes(const mh_tensor *t)
{
    uint64_t bytes = mh_dtype_size(t->dtype);
    for (uint32_t i = 0; i < t->rank; i++)
        bytes *= (uint64_t)t->shape[i];
    return bytes;
}

mh_status comm_check_tensor(const mh_comm *comm, const char *function, const char *name,
                            uint32_t rank, const mh_tensor *t)
{
    const mh_device *device = comm->streams[rank]->encoder.device;
    uint64_t bytes = mh_dtype_size(t->dtype);
    if (!t->buffer || !bytes || !t->rank || t->rank > MH_MAX_RANK)
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                        "%s: %s[%u]: no buffer, or rank %u, or dtype %u", function, name, rank,
                        t->rank, t->dtype);
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->shape[i] < 0 ||
            (t->shape[i] && __builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes)))
            return hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                            "%s: %s[%u]: shape[%u] is %lld: out of range", function, name, rank, i,
                            (long long)t->shape[i]);
    if (!is_dense(t))
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: %s[%u] is not dense", function,
                        name, rank);
    if (t->buffer->device != device)
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: %s[%u] is on %s, the rank on %s",
                        function, name, rank, t->buffer->device->uri, device->uri);
    return MH_OK;
}

/* One tensor a rank, all alike. */
static mh_status check_tensors(const mh_comm *comm, const char *function, const char *name,
                               const mh_tensor *t)
{
    if (!comm || !t)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: %s is NULL", function, comm ? name : "comm");
    mh_status status = MH_OK;
    for (uint32_t r = 0; !status && r < comm->info.count; r++) {
        status = comm_check_tensor(comm, function, name, r, &t[r]);
        bool same = t[r].dtype == t->dtype && t[r].rank == t->rank;
        for (uint32_t i = 0; same && i < t->rank; i++)
            same = t[r].shape[i] == t->shape[i];
        if (!status && !same)
            status = hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                              "%s: %s[%u] has another dtype or shape than %s[0]", function, name, r,
                              name);
    }
    return status;
}

enum { EVERY_RANK = -1 };

/* A tensor of each rank, or that of `rank` alone. */
static mh_status check_of(const mh_comm *comm, const char *function, const char *name, int64_t rank,
                          const mh_tensor *t)
{
    if (rank == EVERY_RANK || !t)
        return check_tensors(comm, function, name, t);
    return comm_check_tensor(comm, function, name, (uint32_t)rank, t);
}

/* `more` has the shape of `less`, but `times` as many of its first dimension. */
static mh_status check_pair(const mh_comm *comm, const char *function, const char *name,
                            const mh_tensor *more, const mh_tensor *less, uint32_t times)
{
    bool good = more->dtype == less->dtype && more->rank == less->rank &&
                more->shape[0] == less->shape[0] * times;
    for (uint32_t i = 1; good && i < more->rank; i++)
        good = more->shape[i] == less->shape[i];
    return good ? MH_OK
                : hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                           "%s: %s: of %u ranks, its dtype or shape does not fit x", function, name,
                           comm->info.ranks);
}

static mh_status check_sum(const mh_comm *comm, const char *function, const mh_tensor *x)
{
    return x->dtype == MH_F32 || x->dtype == MH_BF16
               ? MH_OK
               : hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: x is %s, must be f32 or bf16",
                          function, mh_dtype_name(x->dtype));
}

static mh_status check_root(const mh_comm *comm, const char *function, uint32_t root)
{
    return root < comm->info.ranks
               ? MH_OK
               : hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: root is %u of %u ranks",
                          function, root, comm->info.ranks);
}

/* ---- bytes ---- */

/* Staging of this operation, `size` bytes. */
static mh_status take_staging(mh_comm *comm, uint64_t size, char **out)
{
    comm->turn = (comm->turn + 1) % TURNS;
    comm->info.operations++;
    if (comm->staging[comm->turn].size < size) {
        hal_free(comm->runtime, comm->staging[comm->turn].data);
        comm->staging[comm->turn].size = 0;
        comm->staging[comm->turn].data = hal_alloc(comm->runtime, size);
        if (!comm->staging[comm->turn].data)
            return MH_OUT_OF_MEMORY;
        comm->staging[comm->turn].size = size;
    }
    *out = comm->staging[comm->turn].data;
    return MH_OK;
}

static mh_status take(mh_comm *comm, uint32_t rank, const mh_tensor *t, uint64_t offset, char *to,
                      uint64_t bytes)
{
    comm->info.bytes_out += bytes;
    return mh_stream_read(comm->streams[rank], t->buffer, t->offset + offset, to, bytes);
}

static mh_status give(mh_comm *comm, uint32_t rank, const mh_tensor *t, uint64_t offset,
                      const char *from, uint64_t bytes)
{
    comm->info.bytes_in += bytes;
    return mh_stream_write(comm->streams[rank], t->buffer, t->offset + offset, from, bytes);
}

/* What was taken is there, and what was given by the operation before too; then, with comm->parts
 * set, what other processes took. */
static mh_status wait_all(mh_comm *comm, mh_status status, char *all)
{
    for (uint32_t r = 0; r < comm->info.count; r++) {
        mh_status waited = mh_stream_wait(comm->streams[r], MH_FOREVER);
        status = status ? status : waited;
    }
    if (!status && comm->transport)
        status = mh_transport_gather(comm->transport, all, comm->parts);
    return status;
}

/* Says that every rank has `bytes` for the others. */
static void part_alike(mh_comm *comm, uint64_t bytes)
{
    for (uint32_t p = 0; p < mh_transport_processes(comm->transport); p++)
        comm->parts[p] = bytes * comm->counts[p];
}

/* x of all ranks, one behind the other. */
static mh_status take_all(mh_comm *comm, const mh_tensor *x, char **out)
{
    uint64_t bytes = comm_bytes(x), all;
    if (__builtin_mul_overflow(bytes, comm->info.ranks, &all))
        return hal_fail(comm->runtime, MH_OUT_OF_MEMORY, "mh_comm: x of %llu bytes a rank",
                        (unsigned long long)bytes);
    mh_status status = take_staging(comm, all, out);
    if (status)
        return status;
    part_alike(comm, bytes);
    for (uint32_t r = 0; !status && r < comm->info.count; r++)
        status = take(comm, r, &x[r], 0, *out + (comm->info.first + r) * bytes, bytes);
    return wait_all(comm, status, *out);
}

/* The process that has a rank. */
static uint32_t process_of(const mh_comm *comm, uint32_t rank)
{
    uint32_t p = 0;
    for (; rank >= comm->counts[p]; p++)
        rank -= comm->counts[p];
    return p;
}

/* ---- operations ---- */

mh_status mh_comm_broadcast(mh_comm *comm, const mh_tensor *x, uint32_t root)
{
    char *staging;
    mh_status status = check_tensors(comm, "mh_comm_broadcast", "x", x);
    if (status)
        return status;
    status = check_root(comm, "mh_comm_broadcast", root);
    if (status)
        return status;
    if (comm_is_native(comm))
        return comm_native_run(comm, &(mh_comm_op){.kind = MH_COMM_BROADCAST, .root = root}, x, x,
                               NULL);
    uint64_t bytes = comm_bytes(x);
    uint32_t own = root - comm->info.first; /* one of ours if less than info.count */
    status = take_staging(comm, bytes, &staging);
    if (status)
        return status;
    for (uint32_t p = 0; p < mh_transport_processes(comm->transport); p++)
        comm->parts[p] = 0;
    comm->parts[process_of(comm, root)] = bytes;
    if (own < comm->info.count)
        status = take(comm, own, &x[own], 0, staging, bytes);
    status = wait_all(comm, status, staging);
    for (uint32_t r = 0; !status && r < comm->info.count; r++)
        if (r != own)
            status = give(comm, r, &x[r], 0, staging, bytes);
    return status;
}

/* Where the transport itself finds the only rank's y; NULL if staging has to help. */
static char *in_reach(const mh_comm *comm, const mh_tensor *y, const mh_tensor *x)
{
    if (!comm->transport || comm->info.count != 1 || y->buffer == x->buffer)
        return NULL;
    const mh_buffer *memory = y->buffer;
    if (memory->device->is_host)
        return (char *)memory->view.host + y->offset;
    if (transport_takes(comm->transport, memory->device))
        return (char *)memory->view.handle + y->offset; /* nvidia's and amd's device pointer */
    return NULL;
}

static mh_status gather_in_place(mh_comm *comm, const mh_tensor *y, const mh_tensor *x, char *all)
{
    uint64_t bytes = comm_bytes(x), own = y->offset + comm->info.first * bytes;
    comm->info.operations++;
    comm->info.bytes_out += bytes;
    comm->info.bytes_in += comm_bytes(y);
    part_alike(comm, bytes);
    return wait_all(
        comm, mh_stream_copy(comm->streams[0], y->buffer, own, x->buffer, x->offset, bytes), all);
}

mh_status mh_comm_all_gather(mh_comm *comm, const mh_tensor *y, const mh_tensor *x)
{
    char *all;
    mh_status status = check_tensors(comm, "mh_comm_all_gather", "x", x);
    if (!status)
        status = check_tensors(comm, "mh_comm_all_gather", "y", y);
    if (!status)
        status = check_pair(comm, "mh_comm_all_gather", "y", y, x, comm->info.ranks);
    if (!status && comm_is_native(comm))
        return comm_native_run(comm, &(mh_comm_op){.kind = MH_COMM_ALL_GATHER}, y, x, NULL);
    if (!status && (all = in_reach(comm, y, x)))
        return gather_in_place(comm, y, x, all);
    if (!status)
        status = take_all(comm, x, &all);
    for (uint32_t r = 0; !status && r < comm->info.count; r++)
        status = give(comm, r, &y[r], 0, all, comm_bytes(y));
    return status;
}

static float from_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/* Nearest, ties to even; a NaN stays one. */
static uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The sum of `ranks` arrays one behind the other, over the first of them. */
static void sum(char *all, uint32_t ranks, uint64_t bytes, mh_dtype dtype)
{
    uint64_t size = mh_dtype_size(dtype), count = bytes / size;
    for (uint64_t i = 0; i < count; i++) {
        float total = 0;
        uint16_t half;
        for (uint32_t r = 0; r < ranks; r++) {
            float value;
            const char *at = all + r * bytes + i * size;
            if (dtype == MH_F32) {
                memcpy(&value, at, 4);
            } else {
                memcpy(&half, at, 2);
                value = from_bf16(half);
            }
            total = r ? total + value : value;
        }
        if (dtype == MH_F32) {
            memcpy(all + i * size, &total, 4);
        } else {
            half = to_bf16(total);
            memcpy(all + i * size, &half, 2);
        }
    }
}

/* x has y's shape; where it is scattered, that of all ranks' y, one behind the other. */
static mh_status check_reduction(const mh_comm *comm, const char *function, const mh_tensor *y,
                                 const mh_tensor *x, bool scattered)
{
    mh_status status = check_tensors(comm, function, "x", x);
    if (!status)
        status = check_tensors(comm, function, "y", y);
    if (!status)
        status = check_pair(comm, function, "y", x, y, scattered ? comm->info.ranks : 1);
    return status ? status : check_sum(comm, function, x);
}

/* Sums all x in staging. */
static mh_status reduce(mh_comm *comm, const mh_tensor *x, char **all)
{
    mh_status status = take_all(comm, x, all);
    if (!status)
        sum(*all, comm->info.ranks, comm_bytes(x), x->dtype);
    return status;
}

mh_status mh_comm_all_reduce(mh_comm *comm, const mh_tensor *y, const mh_tensor *x)
{
    char *all;
    mh_status status = check_reduction(comm, "mh_comm_all_reduce", y, x, false);
    if (!status && comm_is_native(comm))
        return comm_native_run(comm, &(mh_comm_op){.kind = MH_COMM_ALL_REDUCE}, y, x, NULL);
    if (!status)
        status = reduce(comm, x, &all);
    for (uint32_t r = 0; !status && r < comm->info.count; r++)
        status = give(comm, r, &y[r], 0, all, comm_bytes(y));
    return status;
}

mh_status mh_comm_reduce_scatter(mh_comm *comm, const mh_tensor *y, const mh_tensor *x)
{
    char *all;
    mh_status status = check_reduction(comm, "mh_comm_reduce_scatter", y, x, true);
    if (!status && comm_is_native(comm))
        return comm_native_run(comm, &(mh_comm_op){.kind = MH_COMM_REDUCE_SCATTER}, y, x, NULL);
    if (!status)
        status = reduce(comm, x, &all);
    for (uint32_t r = 0; !status && r < comm->info.count; r++)
        status =
            give(comm, r, &y[r], 0, all + (comm->info.first + r) * comm_bytes(y), comm_bytes(y));
    return status;
}

/* ---- experts ---- */

struct slots {
    const int32_t *experts;
    const uint32_t *owners;
    int64_t expert_count, count; /* of experts, of slots */
    uint64_t bytes;              /* of a slot */
    uint64_t *places;            /* [count]: where in the staging: by processes, then in order */
};

/* The rank that slot i comes from; -1: none. */
static int64_t owner(const struct slots *s, int64_t i)
{
    int32_t expert = s->experts[i];
    return expert >= 0 && expert < s->expert_count ? (int64_t)s->owners[expert] : -1;
}

/* Finds every slot its place; what belongs to nobody has none. */
static void place_slots(const mh_comm *comm, const struct slots *s)
{
    uint64_t used = 0;
    uint32_t first = 0;
    for (uint32_t p = 0; p < mh_transport_processes(comm->transport); first += comm->counts[p++]) {
        uint64_t begin = used;
        for (int64_t i = 0; i < s->count; i++) {
            int64_t rank = owner(s, i) - first;
            if (rank < 0 || rank >= comm->counts[p])
                continue;
            s->places[i] = used;
            used += s->bytes;
        }
        comm->parts[p] = used - begin;
    }
}

/* Moves the slots that come from this process's rank, or those that come from others: those that
 * are side by side in both places together. */
static mh_status move_slots(mh_comm *comm, uint32_t rank, const mh_tensor *e, const struct slots *s,
                            char *staging, bool own)
{
    int64_t self = (int64_t)comm->info.first + rank;
    mh_status status = MH_OK;
    for (int64_t i = 0, next; !status && i < s->count; i = next) {
        next = i + 1;
        if (owner(s, i) < 0 || (owner(s, i) == self) != own)
            continue;
        while (next < s->count && owner(s, next) >= 0 && (owner(s, next) == self) == own &&
               s->places[next] == s->places[next - 1] + s->bytes)
            next++;
        uint64_t at = (uint64_t)i * s->bytes, bytes = (uint64_t)(next - i) * s->bytes;
        status = own ? take(comm, rank, e, at, staging + s->places[i], bytes)
                     : give(comm, rank, e, at, staging + s->places[i], bytes);
    }
    return status;
}

static mh_status check_owners(const mh_comm *comm, const char *name, const uint32_t *owners,
                              int64_t count)
{
    mh_status status = MH_OK;
    if (!owners || count < 1)
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: no experts, or no owners", name);
    for (int64_t i = 0; !status && i < count; i++)
        if (owners[i] >= comm->info.ranks)
            status =
                hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: owners[%lld] is %u of %u ranks",
                         name, (long long)i, owners[i], comm->info.ranks);
    return status;
}

static mh_status check_experts(const mh_comm *comm, const char *name, uint32_t rank,
                               const mh_tensor *e, const mh_tensor *experts, const uint32_t *owners,
                               int64_t count)
{
    if (!experts)
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: experts is NULL", name);
    mh_status status = comm_check_tensor(comm, name, "experts", rank, experts);
    if (!status &&
        (e->dtype != MH_F32 || e->rank != 3 || experts->dtype != MH_I32 || experts->rank != 2 ||
         e->shape[0] != experts->shape[0] || e->shape[1] != experts->shape[1]))
        status = hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                          "%s: e must be f32 [T, k, D], experts i32 [T, k]", name);
    return status ? status : check_owners(comm, name, owners, count);
}

mh_status mh_comm_combine(mh_comm *comm, const mh_tensor *e, const mh_tensor *experts,
                          const uint32_t *owners, int64_t expert_count)
{
    static const char name[] = "mh_comm_combine";
    char *staging;
    mh_status status = check_tensors(comm, name, "e", e);
    if (!status)
        status = check_experts(comm, name, 0, e, experts, owners, expert_count);
    if (status)
        return status;
    if (comm_is_native(comm)) {
        mh_comm_op op = {.kind = MH_COMM_COMBINE, .owners = owners, .expert_count = expert_count};
        for (uint32_t r = 1; !status && r < comm->info.count; r++)
            status = check_experts(comm, name, r, &e[r], &experts[r], owners, expert_count);
        return status ? status : comm_native_run(comm, &op, e, e, experts);
    }
    /* Slots, then their places, then the experts. */
    uint64_t slots = comm_bytes(e), ids = comm_bytes(experts), total = 3 * ids;
    int64_t count = experts->shape[0] * experts->shape[1];
    slots += slots & 4; /* places are of 8 bytes */
    if (__builtin_add_overflow(slots, total, &total))
        return hal_fail(comm->runtime, MH_OUT_OF_MEMORY, "mh_comm_combine: e of %llu bytes",
                        (unsigned long long)slots);
    status = take_staging(comm, total, &staging);
    if (status)
        return status;
    struct slots s = {.owners = owners, .expert_count = expert_count, .count = count};
    s.bytes = 4 * (uint64_t)e->shape[2];
    s.places = (uint64_t *)(void *)(staging + slots);
    int32_t *choice = (int32_t *)(void *)(s.places + count);
    s.experts = choice;
    status = mh_stream_read(comm->streams[0], experts->buffer, experts->offset, choice, ids);
    if (!status)
        status = mh_stream_wait(comm->streams[0], MH_FOREVER);
    if (status)
        return status;
    place_slots(comm, &s);
    for (uint32_t r = 0; !status && r < comm->info.count; r++)
        status = move_slots(comm, r, &e[r], &s, staging, true);
    status = wait_all(comm, status, staging);
    for (uint32_t r = 0; !status && r < comm->info.count; r++)
        status = move_slots(comm, r, &e[r], &s, staging, false);
    return status;
}

/* ---- tokens to the experts' owners, and back ---- */

#define SOURCE 3 /* rank, token, slot */

static const uint32_t no_room = MH_OUT_OF_MEMORY, bad_index = MH_BAD_INDEX;

static bool is_shaped(const mh_tensor *t, mh_dtype dtype, uint32_t rank, int64_t n0, int64_t n1)
{
    return t->dtype == dtype && t->rank == rank && t->shape[0] == n0 &&
           (rank < 2 || t->shape[1] == n1);
}

/* What both ways need of the rows: y, source and fault. */
static mh_status check_rows(const mh_comm *comm, const char *name, int64_t rank,
                            const mh_comm_rows *rows, mh_comm_rows *out)
{
    mh_status status = mh_struct_in(out, rows, sizeof(*out), "mh_comm_rows");
    if (!status)
        status = check_of(comm, name, "rows->y", rank, out->y);
    if (!status)
        status = check_of(comm, name, "rows->source", rank, out->source);
    if (!status)
        status = check_of(comm, name, "rows->fault", rank, out->fault);
    if (status)
        return status;
    if (out->y->rank != 2 || !is_shaped(out->source, MH_I32, 2, out->y->shape[0], SOURCE) ||
        !is_shaped(out->fault, MH_U32, 1, 1, 0))
        return hal_fail(
            comm->runtime, MH_INVALID_ARGUMENT,
            "%s: rows->y must be [capacity, D], source i32 [capacity, 3], fault u32 [1]", name);
    return comm_check_running(comm);
}

/* i32 `ids`, and behind them `rows`, of all ranks: a block each. */
struct blocks {
    char *data;
    uint64_t ids, rows, size; /* bytes, of a block */
    char *rest;               /* staging past the blocks, of `own` bytes for each own rank */
    uint64_t own;
};

static mh_status take_blocks(mh_comm *comm, const mh_tensor *ids, const mh_tensor *rows,
                             struct blocks *b)
{
    uint64_t all, rest;
    b->ids = comm_bytes(ids), b->rows = comm_bytes(rows);
    if (__builtin_add_overflow(b->ids, b->rows, &b->size) || b->size > UINT64_MAX - 3 ||
        __builtin_mul_overflow(b->size = (b->size + 3) & ~UINT64_C(3), comm->info.ranks, &all) ||
        __builtin_mul_overflow(b->own, comm->info.count, &rest) ||
        __builtin_add_overflow(all, rest, &rest))
        return hal_fail(comm->runtime, MH_OUT_OF_MEMORY, "mh_comm: rows of %llu bytes a rank",
                        (unsigned long long)b->rows);
    mh_status status = take_staging(comm, rest, &b->data);
    if (status)
        return status;
    b->rest = b->data + all;
    for (uint32_t p = 0; p < mh_transport_processes(comm->transport); p++)
        comm->parts[p] = b->size * comm->counts[p];
    for (uint32_t r = 0; !status && r < comm->info.count; r++) {
        char *block = b->data + (comm->info.first + r) * b->size;
        status = take(comm, r, &ids[r], 0, block, b->ids);
        if (!status)
            status = take(comm, r, &rows[r], 0, block + b->ids, b->rows);
    }
    return wait_all(comm, status, b->data);
}

/* What comes to one rank, as it is in the staging. */
struct arrivals {
    int32_t *source, *experts, *count;
    char *rows;
    int64_t capacity;
    bool full; /* something was left out */
};

/* Of one source, its tokens of `bytes` each. */
static void arrive(struct arrivals *a, uint32_t self, uint32_t rank, const struct slots *s,
                   int64_t k, const char *x)
{
    for (int64_t i = 0; i < s->count; i++) {
        int64_t n = *a->count;
        if (owner(s, i) != self)
            continue;
        a->full |= n == a->capacity;
        if (a->full)
            return;
        a->source[SOURCE * n] = (int32_t)rank;
        a->source[SOURCE * n + 1] = (int32_t)(i / k);
        a->source[SOURCE * n + 2] = (int32_t)(i % k);
        a->experts[n] = s->experts[i];
        memcpy(a->rows + (uint64_t)n * s->bytes, x + (uint64_t)(i / k) * s->bytes, s->bytes);
        ++*a->count;
    }
}

static mh_status give_arrivals(mh_comm *comm, uint32_t r, const mh_comm_rows *rows,
                               const struct arrivals *a, uint64_t row)
{
    uint64_t bytes = (uint64_t)*a->count * row;
    mh_status status =
        give(comm, r, &rows->source[r], 0, (char *)a->source, 4 * SOURCE * (uint64_t)a->capacity);
    if (!status)
        status = give(comm, r, &rows->experts[r], 0, (char *)a->experts, 4 * (uint64_t)a->capacity);
    if (!status)
        status = give(comm, r, &rows->count[r], 0, (char *)a->count, 4);
    if (!status && bytes)
        status = give(comm, r, &rows->y[r], 0, a->rows, bytes);
    if (!status && a->full)
        status = give(comm, r, &rows->fault[r], 0, (const char *)&no_room, 4);
    return status;
}

static mh_status check_dispatch(const mh_comm *comm, const char *name, int64_t rank,
                                const mh_comm_rows *rows, const mh_tensor *x,
                                const mh_tensor *experts, const uint32_t *owners,
                                int64_t expert_count)
{
    mh_status status = check_of(comm, name, "rows->experts", rank, rows->experts);
    if (!status)
        status = check_of(comm, name, "rows->count", rank, rows->count);
    if (!status)
        status = check_of(comm, name, "x", rank, x);
    if (!status)
        status = check_of(comm, name, "experts", rank, experts);
    if (status)
        return status;
    int64_t capacity = rows->y->shape[0];
    if (!is_shaped(rows->experts, MH_I32, 2, capacity, 1) ||
        !is_shaped(rows->count, MH_I32, 1, 1, 0))
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                        "%s: rows->experts must be i32 [capacity, 1], count i32 [1]", name);
    if (x->rank != 2 || experts->rank != 2 || experts->dtype != MH_I32 ||
        x->shape[0] != experts->shape[0] || rows->y->dtype != x->dtype ||
        rows->y->shape[1] != x->shape[1])
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                        "%s: x must be [T, D], experts i32 [T, k], rows->y [capacity, D] of x's "
                        "dtype",
                        name);
    if (capacity > INT32_MAX || x->shape[0] > INT32_MAX || experts->shape[1] > INT32_MAX ||
        expert_count > INT32_MAX)
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                        "%s: capacity, T, k or expert_count is more than %d", name, INT32_MAX);
    return check_owners(comm, name, owners, expert_count);
}

mh_status mh_comm_dispatch(mh_comm *comm, const mh_comm_rows *rows, const mh_tensor *x,
                           const mh_tensor *experts, const uint32_t *owners, int64_t expert_count)
{
    static const char name[] = "mh_comm_dispatch";
    mh_comm_rows to;
    mh_status status = check_rows(comm, name, EVERY_RANK, rows, &to);
    if (!status)
        status = check_dispatch(comm, name, EVERY_RANK, &to, x, experts, owners, expert_count);
    if (status)
        return status;
    if (comm_is_native(comm)) {
        mh_comm_op op = {.kind = MH_COMM_DISPATCH, .owners = owners, .rows = &to};
        op.expert_count = expert_count;
        status = comm_native_run(comm, &op, x, x, experts);
        if (status != MH_UNSUPPORTED)
            return status;
    }
    uint64_t capacity = (uint64_t)to.y->shape[0];
    struct blocks b = {.own = comm_bytes(to.y)};
    if (__builtin_add_overflow(b.own, 4 * (SOURCE + 1) * capacity + 4 + 3, &b.own))
        b.own = UINT64_MAX;
    b.own &= ~UINT64_C(3);
    status = take_blocks(comm, experts, x, &b);
    if (status)
        return status;
    struct slots s = {.owners = owners, .expert_count = expert_count};
    s.count = experts->shape[0] * experts->shape[1];
    s.bytes = mh_dtype_size(x->dtype) * (uint64_t)x->shape[1];
    for (uint32_t r = 0; !status && r < comm->info.count; r++) {
        struct arrivals a = {.capacity = (int64_t)capacity};
        a.source = (int32_t *)(void *)(b.rest + r * b.own);
        a.experts = a.source + SOURCE * capacity;
        a.count = a.experts + capacity;
        a.rows = (char *)(a.count + 1);
        memset(a.source, 0xff, 4 * SOURCE * capacity);
        for (uint64_t i = 0; i < capacity; i++)
            a.experts[i] = (int32_t)expert_count;
        *a.count = 0;
        for (uint32_t rank = 0; rank < comm->info.ranks; rank++) {
            const char *block = b.data + rank * b.size;
            s.experts = (const int32_t *)(const void *)block;
            arrive(&a, comm->info.first + r, rank, &s, experts->shape[1], block + b.ids);
        }
        status = give_arrivals(comm, r, &to, &a, s.bytes);
    }
    return status;
}

/* The rows that are in `holder`'s block, to the slots of this process; its own faults. */
static mh_status give_back(mh_comm *comm, const mh_tensor *e, const mh_comm_rows *rows,
                           uint32_t holder, const struct blocks *b)
{
    const char *block = b->data + holder * b->size;
    const int32_t *source = (const int32_t *)(const void *)block;
    uint64_t bytes = mh_dtype_size(e->dtype) * (uint64_t)e->shape[2];
    uint32_t own = holder - comm->info.first; /* one of ours if less than info.count */
    bool bad = false;
    mh_status status = MH_OK;
    for (int64_t i = 0; !status && i < rows->y->shape[0]; i++, source += SOURCE) {
        int64_t rank = source[0], token = source[1], slot = source[2];
        if (rank == -1)
            continue;
        if (rank < 0 || rank >= comm->info.ranks || token < 0 || token >= e->shape[0] || slot < 0 ||
            slot >= e->shape[1]) {
            bad = true;
            continue;
        }
        uint32_t to = (uint32_t)rank - comm->info.first;
        if (to < comm->info.count && bytes)
            status = give(comm, to, &e[to], (uint64_t)(token * e->shape[1] + slot) * bytes,
                          block + b->ids + (uint64_t)i * bytes, bytes);
    }
    if (!status && bad && own < comm->info.count)
        status = give(comm, own, &rows->fault[own], 0, (const char *)&bad_index, 4);
    return status;
}

static mh_status check_return(const mh_comm *comm, const char *name, int64_t rank,
                              const mh_comm_rows *rows, const mh_tensor *e)
{
    mh_status status = check_of(comm, name, "e", rank, e);
    if (!status && (e->rank != 3 || e->dtype != rows->y->dtype || e->shape[2] != rows->y->shape[1]))
        status = hal_fail(comm->runtime, MH_INVALID_ARGUMENT,
                          "%s: e must be [T, k, D], of the D and dtype of rows->y", name);
    return status;
}

mh_status mh_comm_return(mh_comm *comm, const mh_tensor *e, const mh_comm_rows *rows)
{
    static const char name[] = "mh_comm_return";
    mh_comm_rows from;
    struct blocks b = {0};
    mh_status status = check_rows(comm, name, EVERY_RANK, rows, &from);
    if (!status)
        status = check_return(comm, name, EVERY_RANK, &from, e);
    if (status)
        return status;
    if (comm_is_native(comm)) {
        mh_comm_op op = {.kind = MH_COMM_RETURN, .rows = &from};
        status = comm_native_run(comm, &op, e, e, NULL);
        if (status != MH_UNSUPPORTED)
            return status;
    }
    status = take_blocks(comm, from.source, from.y, &b);
    for (uint32_t holder = 0; !status && holder < comm->info.ranks; holder++)
        status = give_back(comm, e, &from, holder, &b);
    return status;
}

/* ---- one rank's part ---- */

mh_status comm_check_op(const mh_comm *comm, const char *function, uint32_t rank,
                        const mh_comm_op *op, mh_comm_rows *rows)
{
    uint32_t ranks = comm->info.ranks;
    bool pair = op->kind >= MH_COMM_ALL_GATHER && op->kind <= MH_COMM_REDUCE_SCATTER;
    bool trip = op->kind == MH_COMM_DISPATCH || op->kind == MH_COMM_RETURN;
    mh_status status = trip ? check_rows(comm, function, rank, op->rows, rows)
                            : comm_check_tensor(comm, function, "y", rank, &op->y);
    if (!status && pair)
        status = comm_check_tensor(comm, function, "x", rank, &op->x);
    if (status)
        return status;
    switch (op->kind) {
    case MH_COMM_BROADCAST:
        return check_root(comm, function, op->root);
    case MH_COMM_ALL_GATHER:
        return check_pair(comm, function, "y", &op->y, &op->x, ranks);
    case MH_COMM_ALL_REDUCE:
        status = check_pair(comm, function, "y", &op->x, &op->y, 1);
        return status ? status : check_sum(comm, function, &op->x);
    case MH_COMM_REDUCE_SCATTER:
        status = check_pair(comm, function, "y", &op->x, &op->y, ranks);
        return status ? status : check_sum(comm, function, &op->x);
    case MH_COMM_COMBINE:
        return check_experts(comm, function, rank, &op->y, &op->experts, op->owners,
                             op->expert_count);
    case MH_COMM_DISPATCH:
        return check_dispatch(comm, function, rank, rows, &op->x, &op->experts, op->owners,
                              op->expert_count);
    case MH_COMM_RETURN:
        return check_return(comm, function, rank, rows, &op->y);
    default:
        return hal_fail(comm->runtime, MH_INVALID_ARGUMENT, "%s: kind %u is unknown", function,
                        op->kind);
    }
}
