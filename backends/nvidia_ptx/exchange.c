/* exchange.c: memory that GPUs of one process write into each other (kernels/exchange.ptx). */
#include <string.h>

#include "kernels/exchange.inc"
#include "plan.h"

struct exchange {
    struct device *device;
    mh_exchange_params params; /* with the choices made */
    CUdeviceptr memory;        /* as exchange.inc says */
    volatile uint64_t *host;   /* what kernels and the host tell each other */
    CUdeviceptr host_address;
};

enum { HOST_BYTES = 256 };
_Static_assert((int)EXCHANGE_CHUNKS == (int)MH_EXCHANGE_CHUNKS, "chunks");
_Static_assert((int)EXCHANGE_SLOTS == (int)MH_EXCHANGE_SLOTS, "slots");

/* A block's worth of threads, and sizes from which throughput counts and not latency. */
enum { THREADS = 512, FEW_THREADS = 256, LARGE = 1 << 20 };

static void release(struct exchange *x)
{
    struct device *device = x->device;
    if (x->host)
        device->cu->MemFreeHost((void *)(uintptr_t)x->host);
    if (x->memory)
        device->cu->MemFree(x->memory);
    device->core->deallocate(device->core->context, x);
}

/* Enqueued or not, a kernel that waits must never wait for one that is still to be loaded. */
static mh_status load_kernels(struct device *device)
{
    static const enum kernel_id kernels[] = {KERNEL_exchange_move, KERNEL_exchange_sum,
                                             KERNEL_exchange_dispatch, KERNEL_exchange_return};
    CUfunction function;
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < sizeof(kernels) / sizeof(kernels[0]); i++)
        status = nv_function(device, kernels[i], 0, &function);
    return status;
}

static mh_status create(void *user, const mh_exchange_params *params, void **out)
{
    struct device *device = user;
    const struct driver *cu = device->cu;
    if (!cu->DeviceCanAccessPeer || !cu->CtxEnablePeerAccess)
        return FAIL(device->core, MH_UNSUPPORTED, "nvidia: this driver has no peer access");
    struct exchange *x = device->core->allocate(device->core->context, sizeof(*x));
    mh_status status = x ? nv_enter(device) : MH_OUT_OF_MEMORY;
    if (status) {
        if (x)
            device->core->deallocate(device->core->context, x);
        return status;
    }
    x->device = device;
    x->params = *params;
    mh_exchange_params *p = &x->params;
    p->capacity = p->capacity ? (p->capacity + 65535) & ~UINT64_C(65535) : 16 << 20;
    /* A virtual GPU takes what time it takes. */
    if (!p->timeout_ns)
        p->timeout_ns = UINT64_C(1000000000) * (device->instance->simulated ? 60 : 8);
    void *host = NULL;
    status = CU(device, MemAlloc(&x->memory, EXCHANGE_DATA + 2 * p->capacity));
    if (!status)
        status = CU(device, MemsetD32(x->memory, 0, EXCHANGE_DATA / 4));
    if (!status)
        status = CU(device, MemHostAlloc(&host, HOST_BYTES, CU_HOST_PORTABLE | CU_HOST_MAPPED));
    x->host = host;
    if (!status) {
        memset(host, 0, HOST_BYTES);
        status = CU(device, MemHostGetDevicePointer(&x->host_address, host, 0));
    }
    if (!status)
        status = load_kernels(device);
    if (status)
        release(x);
    else
        *out = x;
    nv_leave(device);
    return status;
}

/* In this device's context. */
static mh_status reach(struct device *device, const struct device *other)
{
    int can = 0;
    mh_status status = CU(device, DeviceCanAccessPeer(&can, device->ordinal, other->ordinal));
    if (!status && !can)
        return FAIL(device->core, MH_UNSUPPORTED,
                    "nvidia: device %d has no peer access to device %d", device->ordinal,
                    other->ordinal);
    if (status)
        return status;
    CUresult result = device->cu->CtxEnablePeerAccess(other->context, 0);
    return result == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
               ? MH_OK
               : nv_check(device->instance, result, "cuCtxEnablePeerAccess", __FILE__, __LINE__);
}

static mh_status join(void *user, void *exchange, void *const *all)
{
    struct device *device = user;
    struct exchange *x = exchange;
    CUdeviceptr peers[MH_EXCHANGE_RANKS] = {0};
    mh_status status = nv_enter(device);
    if (status)
        return status;
    for (uint32_t r = 0; !status && r < x->params.ranks; r++) {
        const struct exchange *other = all[r];
        peers[r] = other->memory;
        if (r != x->params.rank)
            status = reach(device, other->device);
    }
    if (!status)
        status =
            CU(device, MemcpyHtoDAsync(x->memory + EXCHANGE_PEERS, peers, sizeof(peers), NULL));
    if (!status)
        status = CU(device, StreamSynchronize(NULL));
    nv_leave(device);
    return status;
}

static uint64_t capacity(void *device, void *exchange)
{
    (void)device;
    return ((struct exchange *)exchange)->params.capacity;
}

static void state(void *device, void *exchange, mh_exchange_state *out)
{
    const struct exchange *x = exchange;
    (void)device;
    uint64_t fault = __atomic_load_n(&x->host[EXCHANGE_FAULT / 8], __ATOMIC_ACQUIRE);
    out->failed = (uint32_t)(fault >> 63);
    out->source = fault >> 32 & 0xffff;
    out->epoch = (uint32_t)fault;
}

static void stop(void *device, void *exchange)
{
    (void)device;
    __atomic_store_n(&((struct exchange *)exchange)->host[EXCHANGE_STOP / 8], 1, __ATOMIC_RELEASE);
}

static void destroy(void *user, void *exchange)
{
    struct device *device = user;
    if (nv_enter(device))
        return;
    release(exchange);
    nv_leave(device);
}

const mh_backend_peer nv_peer_group = {
    sizeof(nv_peer_group), create, join, capacity, state, stop, destroy};

/* ---- launches ---- */

static uint64_t bytes_of(const mh_tensor *t)
{
    uint64_t bytes = 4u >> (t->dtype == MH_F16 || t->dtype == MH_BF16);
    for (uint32_t i = 0; i < t->rank; i++)
        bytes *= (uint64_t)t->shape[i];
    return bytes;
}

/* All ranks must choose alike, so this looks at sizes alone: few bytes are cut into as many pieces
 * as there are blocks; many so that there is something on the way while the last piece is taken. */
static uint64_t chunk_of(const mh_exchange_params *p, uint64_t bytes)
{
    uint64_t chunk = p->chunk_bytes;
    if (!chunk)
        chunk = bytes > LARGE ? 64 << 10 : (bytes + p->blocks - 1) / p->blocks;
    uint64_t least = (bytes + EXCHANGE_CHUNKS - 1) / EXCHANGE_CHUNKS;
    chunk = chunk > least ? chunk : least;
    chunk = chunk > 4096 || p->chunk_bytes ? chunk : 4096;
    return (chunk + 255) & ~UINT64_C(255);
}

/* What all kernels take. */
static void put_common(struct launch *l, const mh_op_exchange *op, uint64_t chunk, uint64_t x,
                       uint64_t y, uint64_t all)
{
    const struct exchange *e = op->exchange;
    put(l, e->memory);
    put(l, e->host_address);
    put(l, e->params.timeout_ns);
    put(l, e->params.capacity);
    put(l, op->begin);
    put(l, op->end);
    put(l, chunk);
    put(l, op->row);
    put(l, x);
    put(l, y);
    put(l, e->params.rank);
    put(l, e->params.ranks);
    put(l, op->phases);
    put(l, !(all & 15) ? 16 : !(all & 3) ? 4 : 2);
}

static void plan_bytes(const mh_op_exchange *op, const mh_exchange_params *p, struct launch *l)
{
    bool sum = op->kind == MH_EXCHANGE_SUM;
    uint64_t bytes = op->end - op->begin, chunk = chunk_of(p, bytes), size = bytes_of(&op->x);
    uint64_t chunks = (bytes + chunk - 1) / chunk;
    uint64_t from = address(&op->x) - op->x_begin, to = address(&op->y);
    /* A row's or a window's end is a unit's end. */
    uint64_t all = from | to | op->row | op->begin | op->end | (sum ? size : 0);
    begin(l, sum ? KERNEL_exchange_sum : KERNEL_exchange_move, 0);
    l->grid[0] = chunks < p->blocks ? (uint32_t)chunks : p->blocks;
    l->block = bytes > LARGE ? THREADS : FEW_THREADS;
    put_common(l, op, chunk, from, to, all);
    if (sum) {
        put(l, size);
        put(l, p->capacity / p->ranks & ~UINT64_C(255));
        put(l, op->x.dtype == MH_BF16);
    } else {
        put(l, address_or_0(&op->experts));
        put(l, address_or_0(&op->owners));
        put(l, op->owners.rank ? (uint64_t)op->owners.shape[0] : 0);
        put(l, op->owner);
    }
}

/* Threads of a team that moves a row, where a block has so many rows: the more, the fewer. */
static uint64_t team_of(uint64_t rows, uint32_t block)
{
    uint64_t team = block;
    while (team > 32 && block / team < rows)
        team /= 2;
    return team;
}

static uint64_t units(uint64_t bytes)
{
    return (bytes + 15) & ~UINT64_C(15);
}

static void plan_dispatch(const mh_op_exchange *op, const mh_exchange_params *p, struct launch *l)
{
    uint64_t tokens = op->end - op->begin, chunks = (tokens + op->chunk - 1) / op->chunk;
    uint64_t from = address(&op->x) + op->column, to = address(&op->y) + op->column;
    begin(l, KERNEL_exchange_dispatch, 0);
    l->grid[0] = (uint32_t)(chunks < 1 ? 1 : chunks < p->blocks ? chunks : p->blocks);
    l->block = tokens * op->width > LARGE ? THREADS : FEW_THREADS;
    put_common(l, op, op->chunk, from, to, from | to | op->row | op->width);
    put(l, address(&op->experts));
    put(l, address(&op->owners));
    put(l, (uint64_t)op->owners.shape[0]);
    put(l, (uint64_t)op->experts.shape[1]);
    put(l, (uint64_t)op->experts.shape[0]);
    put(l, address(&op->source));
    put(l, address(&op->arrived));
    put(l, address(&op->count));
    put(l, address(&op->fault));
    put(l, (uint64_t)op->y.shape[0]);
    put(l, op->width);
    put(l, units(op->width));
    put(l, p->capacity / p->ranks & ~UINT64_C(15));
    put(l, units(4 * (uint64_t)op->experts.shape[1] * op->chunk));
    put(l, !op->column);
    put(l, op->part);
    put(l, op->last);
    put(l, team_of(op->chunk, l->block));
}

static void plan_return(const mh_op_exchange *op, const mh_exchange_params *p, struct launch *l)
{
    uint64_t slots = op->end - op->begin, blocks = p->blocks;
    uint64_t from = address(&op->x) + op->column, to = address(&op->y) + op->column;
    begin(l, KERNEL_exchange_return, 0);
    l->block = slots * op->width > LARGE ? THREADS : FEW_THREADS;
    blocks = blocks < EXCHANGE_CHUNKS ? blocks : EXCHANGE_CHUNKS;
    blocks = blocks < slots ? blocks : slots;
    l->grid[0] = blocks ? (uint32_t)blocks : 1;
    put_common(l, op, 1, from, to, from | to | op->row | op->width);
    put(l, address(&op->source));
    put(l, address(&op->fault));
    put(l, (uint64_t)op->x.shape[0]);
    put(l, (uint64_t)op->y.shape[1]);
    put(l, (uint64_t)op->y.shape[0]);
    put(l, op->width);
    put(l, units(op->width));
    put(l, team_of((slots + l->grid[0] - 1) / l->grid[0], l->block));
}

uint32_t nv_plan_exchange(const mh_op_exchange *op, struct launch *l)
{
    const struct exchange *e = op->exchange;
    if (op->kind == MH_EXCHANGE_DISPATCH)
        plan_dispatch(op, &e->params, l);
    else if (op->kind == MH_EXCHANGE_RETURN)
        plan_return(op, &e->params, l);
    else
        plan_bytes(op, &e->params, l);
    return 1;
}
