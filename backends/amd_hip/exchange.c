/* exchange.c: memory that GPUs of one process write into each other (kernels/exchange.hip). */
#include "kernels/exchange.h"

#include "plan.h"

/* Of the core's header and the kernels' own. */
_Static_assert((int)EXCHANGE_RANKS == (int)MH_EXCHANGE_RANKS, "ranks");
_Static_assert(EXCHANGE_BY_ROW == MH_EXCHANGE_BY_ROW, "rows");
_Static_assert(EXCHANGE_BY_EXPERT == MH_EXCHANGE_BY_EXPERT, "experts");
_Static_assert((int)EXCHANGE_CHUNKS == (int)MH_EXCHANGE_CHUNKS, "chunks");
_Static_assert((int)EXCHANGE_SLOTS == (int)MH_EXCHANGE_SLOTS, "slots");
_Static_assert(sizeof(struct exchange_memory) <= EXCHANGE_DATA, "layout");

struct exchange {
    struct device *device;
    mh_exchange_params params; /* with the choices made */
    struct exchange_memory *memory;
    struct exchange_host *host;
};

/* A workgroup's work-items, and sizes from which throughput counts and not latency. */
enum { THREADS = 512, FEW_THREADS = 256, LARGE = 1 << 20, WINDOW = 65536, TICK_NS = 10 };

static void release(struct exchange *x)
{
    struct device *device = x->device;
    if (x->host)
        device->hip->HostFree(x->host);
    if (x->memory)
        device->hip->Free(x->memory);
    device->core->deallocate(device->core->context, x);
}

/* What other devices write while a kernel here reads must be fine-grained. */
static mh_status take_memory(struct exchange *x)
{
    struct device *device = x->device;
    uint64_t bytes = EXCHANGE_DATA + 2 * x->params.capacity;
    void *memory = NULL, *host = NULL;
    mh_status status = HIP(device, ExtMallocWithFlags(&memory, bytes, hipDeviceMallocFinegrained));
    x->memory = memory;
    if (!status)
        status = HIP(device, Memset(memory, 0, EXCHANGE_DATA));
    if (!status)
        status = HIP(device, HostMalloc(&host, sizeof(*x->host),
                                        hipHostMallocPortable | hipHostMallocMapped |
                                            hipHostMallocCoherent));
    x->host = host;
    if (!status)
        *x->host = (struct exchange_host){0};
    return status;
}

static mh_status create(void *user, const mh_exchange_params *params, void **out)
{
    struct device *device = user;
    const struct runtime *hip = device->hip;
    int before;
    if (!hip->DeviceCanAccessPeer || !hip->DeviceEnablePeerAccess || !hip->ExtMallocWithFlags)
        return FAIL(device->core, MH_UNSUPPORTED,
                    "amd: this runtime has no peer access, or no fine-grained memory");
    struct exchange *x = device->core->allocate(device->core->context, sizeof(*x));
    if (!x)
        return MH_OUT_OF_MEMORY;
    x->device = device;
    x->params = *params;
    mh_exchange_params *p = &x->params;
    p->capacity = p->capacity ? (p->capacity + WINDOW - 1) / WINDOW * WINDOW : 16 << 20;
    /* A virtual GPU takes what time it takes. */
    if (!p->timeout_ns)
        p->timeout_ns = UINT64_C(1000000000) * (device->instance->simulated ? 60 : 8);
    mh_status status = amd_enter(device, &before);
    if (!status) {
        status = take_memory(x);
        if (!status)
            *out = x;
        else
            release(x);
        amd_leave(device, before);
    } else {
        device->core->deallocate(device->core->context, x);
    }
    return status;
}

/* This device is the thread's. */
static mh_status reach(const struct device *device, const struct device *other)
{
    int can = 0;
    mh_status status = HIP(device, DeviceCanAccessPeer(&can, device->ordinal, other->ordinal));
    if (status)
        return status;
    if (!can)
        return FAIL(device->core, MH_UNSUPPORTED, "amd: device %d has no peer access to device %d",
                    device->ordinal, other->ordinal);
    int result = device->hip->DeviceEnablePeerAccess(other->ordinal, 0);
    return result == hipErrorPeerAccessAlreadyEnabled
               ? MH_OK
               : amd_check(device->instance, result, "hipDeviceEnablePeerAccess", __FILE__,
                           __LINE__);
}

static mh_status join(void *user, void *exchange, void *const *all)
{
    struct device *device = user;
    struct exchange *x = exchange;
    void *ranks[EXCHANGE_RANKS] = {0};
    int before;
    mh_status status = amd_enter(device, &before);
    if (status)
        return status;
    for (uint32_t r = 0; !status && r < x->params.ranks; r++) {
        const struct exchange *other = all[r];
        ranks[r] = other->memory;
        if (r != x->params.rank)
            status = reach(device, other->device);
    }
    if (!status)
        status = HIP(device, Memcpy(x->memory->ranks, ranks, sizeof(ranks), hipMemcpyHostToDevice));
    amd_leave(device, before);
    return status;
}

static uint64_t capacity(void *device, void *exchange)
{
    (void)device;
    return ((const struct exchange *)exchange)->params.capacity;
}

static void state(void *device, void *exchange, mh_exchange_state *out)
{
    const struct exchange *x = exchange;
    uint64_t fault = __atomic_load_n(&x->host->fault, __ATOMIC_ACQUIRE);
    (void)device;
    out->failed = (uint32_t)(fault >> 63);
    out->source = fault >> 32 & 0xffff;
    out->epoch = (uint32_t)fault;
}

static void stop(void *device, void *exchange)
{
    (void)device;
    __atomic_store_n(&((struct exchange *)exchange)->host->stop, 1, __ATOMIC_RELEASE);
}

static void destroy(void *device, void *exchange)
{
    (void)device;
    release(exchange);
}

const mh_backend_peer amd_peer_group = {
    sizeof(amd_peer_group), create, join, capacity, state, stop, destroy};

/* ---- launches ---- */

static uint64_t bytes_of(const mh_tensor *t)
{
    uint64_t bytes = t->dtype == MH_F16 || t->dtype == MH_BF16 ? 2 : 4;
    for (uint32_t i = 0; i < t->rank; i++)
        bytes *= (uint64_t)t->shape[i];
    return bytes;
}

/* All ranks must choose alike, so this looks at sizes alone: few bytes are cut into as many chunks
 * as there are workgroups; many so that there is something on the way while the last is taken. */
static uint64_t chunk_of(const mh_exchange_params *p, uint64_t bytes)
{
    uint64_t chunk = p->chunk_bytes, least = (bytes + EXCHANGE_CHUNKS - 1) / EXCHANGE_CHUNKS;
    if (!chunk) {
        chunk = bytes > LARGE ? 64 << 10 : (bytes + p->blocks - 1) / p->blocks;
        chunk = chunk > 4096 ? chunk : 4096;
    }
    chunk = chunk > least ? chunk : least;
    return (chunk + 255) / 256 * 256;
}

/* What all kernels take; `all`: where units may begin and end. */
static struct exchange_arguments common(const mh_op_exchange *op, const struct launch *l,
                                        uint64_t chunk, uint64_t x, uint64_t y, uint64_t all)
{
    const struct exchange *e = op->exchange;
    const mh_exchange_params *p = &e->params;
    return (struct exchange_arguments){.own = e->memory,
                                       .host = e->host,
                                       .timeout = p->timeout_ns / TICK_NS,
                                       .capacity = p->capacity,
                                       .begin = op->begin,
                                       .end = op->end,
                                       .chunk = chunk,
                                       .row = op->row,
                                       .x = x,
                                       .y = y,
                                       .rank = p->rank,
                                       .ranks = p->ranks,
                                       .sends = op->phases & MH_EXCHANGE_SEND,
                                       .receives = op->phases & MH_EXCHANGE_RECEIVE,
                                       .unit = all % 4    ? 2
                                               : all % 16 ? 4
                                                          : 16,
                                       .blocks = (uint32_t)l->grid[0],
                                       .experts = address(&op->experts),
                                       .owners = address(&op->owners),
                                       .expert_count =
                                           op->owners.rank ? (uint32_t)op->owners.shape[0] : 0,
                                       .owner = op->owner,
                                       .threads = l->block};
}

static void plan_bytes(const mh_op_exchange *op, const mh_exchange_params *p, struct launch *l)
{
    bool sum = op->kind == MH_EXCHANGE_SUM;
    uint64_t bytes = op->end - op->begin, chunk = chunk_of(p, bytes);
    uint64_t chunks = (bytes + chunk - 1) / chunk, size = sum ? bytes_of(&op->x) : 0;
    uint64_t x = (uint64_t)(uintptr_t)address(&op->x) - op->x_begin;
    uint64_t y = (uint64_t)(uintptr_t)address(&op->y);
    begin(l, sum ? KERNEL_exchange_sum : KERNEL_exchange_move, 0,
          bytes > LARGE ? THREADS : FEW_THREADS);
    set_grid(l, (int64_t)(chunks < p->blocks ? chunks : p->blocks), 1, 1);
    struct exchange_arguments a =
        common(op, l, chunk, x, y, x | y | op->row | op->begin | op->end | size);
    a.size = size, a.stride = p->capacity / p->ranks / 256 * 256;
    a.bf16 = op->x.dtype == MH_BF16;
    memcpy(l->arguments, &a, sizeof(a));
}

/* Work-items of a team that moves a row, where a workgroup has so many rows: the more, the fewer.
 */
static uint32_t team_of(uint64_t rows, uint32_t block)
{
    uint32_t team = block;
    while (team > 64 && block / team < rows)
        team /= 2;
    return team;
}

static struct exchange_arguments column(const mh_op_exchange *op, const struct launch *l,
                                        uint64_t chunk)
{
    uint64_t x = (uint64_t)(uintptr_t)address(&op->x) + op->column;
    uint64_t y = (uint64_t)(uintptr_t)address(&op->y) + op->column;
    return common(op, l, chunk, x, y, x | y | op->row | op->width);
}

static void plan_dispatch(const mh_op_exchange *op, const mh_exchange_params *p, struct launch *l)
{
    uint64_t tokens = op->end - op->begin, chunks = (tokens + op->chunk - 1) / op->chunk;
    uint64_t slots = (uint64_t)op->experts.shape[1];
    begin(l, KERNEL_exchange_dispatch, 0, tokens * op->width > LARGE ? THREADS : FEW_THREADS);
    set_grid(l, (int64_t)(chunks < 1 ? 1 : chunks < p->blocks ? chunks : p->blocks), 1, 1);
    ARGUMENTS(l, dispatch, .e = column(op, l, op->chunk), .tokens = (uint64_t)op->experts.shape[0],
              .slots = slots, .width = op->width, .stride = p->capacity / p->ranks / 16 * 16,
              .choice_bytes = (4 * slots * op->chunk + 15) / 16 * 16,
              .source = address(&op->source), .arrived = address(&op->arrived),
              .count = address(&op->count), .fault = address(&op->fault),
              .most = (uint32_t)op->y.shape[0], .choices = !op->column, .part = op->part,
              .last = op->last, .team = team_of(op->chunk, l->block));
}

static void plan_return(const mh_op_exchange *op, const mh_exchange_params *p, struct launch *l)
{
    uint64_t slots = op->end - op->begin, blocks = p->blocks;
    begin(l, KERNEL_exchange_return, 0, slots * op->width > LARGE ? THREADS : FEW_THREADS);
    blocks = blocks < EXCHANGE_CHUNKS ? blocks : EXCHANGE_CHUNKS;
    blocks = blocks < slots ? blocks : slots;
    blocks = blocks ? blocks : 1;
    set_grid(l, (int64_t)blocks, 1, 1);
    ARGUMENTS(l, return, .e = column(op, l, 1), .width = op->width, .source = address(&op->source),
              .fault = address(&op->fault), .most = (uint32_t)op->x.shape[0],
              .tokens = (uint32_t)op->y.shape[0], .slots = (uint32_t)op->y.shape[1],
              .team = team_of((slots + blocks - 1) / blocks, l->block));
}

uint32_t plan_exchange(const mh_op_exchange *op, struct launch *l)
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
