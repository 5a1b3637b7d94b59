/* core_comm.c: what devices do together, against a reckoning from the definition: by way of host
 * memory, two streams of the device and one of the host; and the device with others of its backend,
 * which may write into each other's memory. Kinds of value are f32 and bf16; the host, which is the
 * definition, is held to the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "values.h"

enum { MOST = 3, TOKENS = 5, SLOTS = 3, WIDTH = 70, EXPERTS = 7, CAPACITY = 17, ROOM = 16384 };

/* A tensor on each rank: what it holds, and what it must hold afterwards. */
struct array {
    mh_dtype dtype;
    uint32_t rank;
    int64_t shape[3];
    uint64_t count;
    uint8_t have[MOST][ROOM], want[MOST][ROOM];
    mh_tensor of[MOST];
};

struct work {
    uint32_t ranks, root, owners[EXPERTS];
    mh_stream *streams[MOST];
    mh_device *devices[MOST];
    mh_dtype dtype;
    struct array x, y, experts, source, arrived, number, fault;
    uint8_t got[ROOM];
};

struct operation {
    void (*prepare)(struct core *c, struct work *w); /* shapes, contents, and what comes of them */
    mh_status (*run)(mh_comm *comm, const struct work *w);
    bool only_f32;
};

/* ---- contents ---- */

static void shape(struct array *t, mh_dtype dtype, int64_t a, int64_t b, int64_t d)
{
    t->dtype = dtype;
    t->rank = d ? 3 : b ? 2 : 1;
    t->shape[0] = a, t->shape[1] = b, t->shape[2] = d;
    t->count = (uint64_t)(a * (b ? b : 1) * (d ? d : 1));
}

static uint64_t bytes_of(const struct array *t)
{
    return t->count * mh_dtype_size(t->dtype);
}

/* Numbers whose sum depends on the order of its terms; else any bytes. */
static void fill(struct core *c, struct array *t, uint32_t ranks)
{
    for (uint32_t r = 0; r < ranks; r++)
        for (uint64_t i = 0; i < t->count; i++) {
            float value = conf_uniform(&c->random) * (float)(1 << conf_below(&c->random, 24));
            uint16_t half = conf_to_bf16(value);
            if (t->dtype == MH_BF16)
                memcpy(t->have[r] + 2 * i, &half, 2);
            else
                memcpy(t->have[r] + 4 * i, &value, 4);
        }
    memcpy(t->want, t->have, sizeof(t->want));
}

static float value_at(const struct array *t, uint32_t rank, uint64_t i)
{
    uint32_t bits = 0;
    float value;
    if (t->dtype == MH_BF16)
        memcpy((uint8_t *)&bits + 2, t->have[rank] + 2 * i, 2);
    else
        memcpy(&bits, t->have[rank] + 4 * i, 4);
    memcpy(&value, &bits, 4);
    return value;
}

static void put_sum(struct array *y, uint32_t rank, uint64_t at, const struct work *w, uint64_t i)
{
    float sum = value_at(&w->x, 0, i);
    for (uint32_t r = 1; r < w->ranks; r++)
        sum += value_at(&w->x, r, i);
    uint16_t half = conf_to_bf16(sum);
    if (y->dtype == MH_BF16)
        memcpy(y->want[rank] + 2 * at, &half, 2);
    else
        memcpy(y->want[rank] + 4 * at, &sum, 4);
}

static int32_t *ints(struct array *t, uint32_t rank)
{
    return (int32_t *)(void *)t->have[rank];
}

static int32_t *wanted(struct array *t, uint32_t rank)
{
    return (int32_t *)(void *)t->want[rank];
}

/* Some out of range; of each rank its own, or the same for all. */
static void choose(struct core *c, struct work *w, bool same)
{
    shape(&w->experts, MH_I32, TOKENS, SLOTS, 0);
    for (uint32_t r = 0; r < w->ranks; r++)
        for (int i = 0; i < TOKENS * SLOTS; i++)
            ints(&w->experts, r)[i] = same && r ? ints(&w->experts, 0)[i]
                                                : (int32_t)conf_below(&c->random, EXPERTS + 2) - 1;
    memcpy(w->experts.want, w->experts.have, sizeof(w->experts.want));
    for (int i = 0; i < EXPERTS; i++)
        w->owners[i] = conf_below(&c->random, w->ranks);
}

static uint32_t owner_of(const struct work *w, int32_t expert)
{
    return expert >= 0 && expert < EXPERTS ? w->owners[expert] : MOST;
}

static void copy_row(struct array *to, uint32_t to_rank, uint64_t at, const struct array *from,
                     uint32_t rank, uint64_t row)
{
    uint64_t bytes = WIDTH * mh_dtype_size(to->dtype);
    memcpy(to->want[to_rank] + at * bytes, from->have[rank] + row * bytes, bytes);
}

/* ---- operations ---- */

static void broadcast(struct core *c, struct work *w)
{
    shape(&w->y, w->dtype, TOKENS, WIDTH, 0);
    fill(c, &w->y, w->ranks);
    w->root = conf_below(&c->random, w->ranks);
    for (uint32_t r = 0; r < w->ranks; r++)
        memcpy(w->y.want[r], w->y.have[w->root], bytes_of(&w->y));
}

static void all_gather(struct core *c, struct work *w)
{
    shape(&w->x, w->dtype, TOKENS, WIDTH, 0);
    shape(&w->y, w->dtype, TOKENS * w->ranks, WIDTH, 0);
    fill(c, &w->x, w->ranks);
    fill(c, &w->y, w->ranks);
    for (uint32_t r = 0; r < w->ranks; r++)
        for (uint32_t from = 0; from < w->ranks; from++)
            memcpy(w->y.want[r] + from * bytes_of(&w->x), w->x.have[from], bytes_of(&w->x));
}

static void all_reduce(struct core *c, struct work *w)
{
    shape(&w->x, w->dtype, TOKENS, WIDTH, 0);
    shape(&w->y, w->dtype, TOKENS, WIDTH, 0);
    fill(c, &w->x, w->ranks);
    fill(c, &w->y, w->ranks);
    for (uint32_t r = 0; r < w->ranks; r++)
        for (uint64_t i = 0; i < w->y.count; i++)
            put_sum(&w->y, r, i, w, i);
}

static void reduce_scatter(struct core *c, struct work *w)
{
    shape(&w->x, w->dtype, TOKENS * w->ranks, WIDTH, 0);
    shape(&w->y, w->dtype, TOKENS, WIDTH, 0);
    fill(c, &w->x, w->ranks);
    fill(c, &w->y, w->ranks);
    for (uint32_t r = 0; r < w->ranks; r++)
        for (uint64_t i = 0; i < w->y.count; i++)
            put_sum(&w->y, r, i, w, r * w->y.count + i);
}

static void combine(struct core *c, struct work *w)
{
    shape(&w->y, MH_F32, TOKENS, SLOTS, WIDTH);
    fill(c, &w->y, w->ranks);
    choose(c, w, true);
    for (uint32_t r = 0; r < w->ranks; r++)
        for (uint64_t i = 0; i < TOKENS * SLOTS; i++) {
            uint32_t owner = owner_of(w, ints(&w->experts, 0)[i]);
            if (owner < MOST)
                copy_row(&w->y, r, i, &w->y, owner, i);
        }
}

static void make_rows(struct core *c, struct work *w)
{
    shape(&w->source, MH_I32, CAPACITY, 3, 0);
    shape(&w->arrived, MH_I32, CAPACITY, 1, 0);
    shape(&w->number, MH_I32, 1, 0, 0);
    shape(&w->fault, MH_U32, 1, 0, 0);
    fill(c, &w->source, w->ranks);
    fill(c, &w->arrived, w->ranks);
    fill(c, &w->number, w->ranks);
    memset(w->fault.have, 0, sizeof(w->fault.have));
    memset(w->fault.want, 0, sizeof(w->fault.want));
}

/* A row for each slot whose expert a rank has, as long as there is room. */
static void dispatch(struct core *c, struct work *w)
{
    shape(&w->x, w->dtype, TOKENS, WIDTH, 0);
    shape(&w->y, w->dtype, CAPACITY, WIDTH, 0);
    fill(c, &w->x, w->ranks);
    fill(c, &w->y, w->ranks);
    make_rows(c, w);
    choose(c, w, false);
    for (uint32_t r = 0; r < w->ranks; r++) {
        int32_t n = 0;
        for (uint32_t from = 0; from < w->ranks; from++)
            for (int32_t i = 0; i < TOKENS * SLOTS; i++) {
                int32_t expert = ints(&w->experts, from)[i];
                if (owner_of(w, expert) != r)
                    continue;
                if (n == CAPACITY) {
                    *wanted(&w->fault, r) = MH_OUT_OF_MEMORY;
                    continue;
                }
                int32_t source[] = {(int32_t)from, i / SLOTS, i % SLOTS};
                copy_row(&w->y, r, (uint64_t)n, &w->x, from, (uint64_t)(i / SLOTS));
                memcpy(wanted(&w->source, r) + 3 * n, source, sizeof(source));
                wanted(&w->arrived, r)[n++] = expert;
            }
        *wanted(&w->number, r) = n;
        for (; n < CAPACITY; n++) {
            memset(wanted(&w->source, r) + 3 * n, 0xff, 12);
            wanted(&w->arrived, r)[n] = EXPERTS;
        }
    }
}

/* Slots of all ranks, on whatever rank; a row in four is none. */
static void give_back(struct core *c, struct work *w)
{
    shape(&w->y, w->dtype, TOKENS, SLOTS, WIDTH);
    shape(&w->x, w->dtype, CAPACITY, WIDTH, 0);
    fill(c, &w->y, w->ranks);
    fill(c, &w->x, w->ranks);
    make_rows(c, w);
    memset(w->source.have, 0xff, sizeof(w->source.have));
    for (uint32_t slot = 0, n = 0; slot < w->ranks * TOKENS * SLOTS && n < w->ranks * CAPACITY;
         n++) {
        uint32_t r = n % w->ranks, row = n / w->ranks, to = slot / (TOKENS * SLOTS);
        if (!conf_below(&c->random, 4))
            continue;
        int32_t source[] = {(int32_t)to, (int32_t)(slot / SLOTS % TOKENS), (int32_t)(slot % SLOTS)};
        memcpy(ints(&w->source, r) + 3 * row, source, sizeof(source));
        copy_row(&w->y, to, slot % (TOKENS * SLOTS), &w->x, r, row);
        slot += 1 + conf_below(&c->random, 2);
    }
    memcpy(w->source.want, w->source.have, sizeof(w->source.want));
}

static mh_status run_broadcast(mh_comm *comm, const struct work *w)
{
    return mh_comm_broadcast(comm, w->y.of, w->root);
}

static mh_status run_all_gather(mh_comm *comm, const struct work *w)
{
    return mh_comm_all_gather(comm, w->y.of, w->x.of);
}

static mh_status run_all_reduce(mh_comm *comm, const struct work *w)
{
    return mh_comm_all_reduce(comm, w->y.of, w->x.of);
}

static mh_status run_reduce_scatter(mh_comm *comm, const struct work *w)
{
    return mh_comm_reduce_scatter(comm, w->y.of, w->x.of);
}

static mh_status run_combine(mh_comm *comm, const struct work *w)
{
    return mh_comm_combine(comm, w->y.of, w->experts.of, w->owners, EXPERTS);
}

static mh_comm_rows rows_of(const struct work *w, const struct array *y)
{
    mh_comm_rows rows = MH_INIT(mh_comm_rows);
    rows.y = y->of, rows.source = w->source.of, rows.experts = w->arrived.of;
    rows.count = w->number.of, rows.fault = w->fault.of;
    return rows;
}

static mh_status run_dispatch(mh_comm *comm, const struct work *w)
{
    const mh_comm_rows rows = rows_of(w, &w->y);
    return mh_comm_dispatch(comm, &rows, w->x.of, w->experts.of, w->owners, EXPERTS);
}

static mh_status run_return(mh_comm *comm, const struct work *w)
{
    const mh_comm_rows rows = rows_of(w, &w->x);
    return mh_comm_return(comm, w->y.of, &rows);
}

/* ---- ranks ---- */

static bool add_rank(struct core *c, struct work *w, mh_device *device)
{
    w->devices[w->ranks] = device;
    w->streams[w->ranks] = core_stream(c, device);
    return w->streams[w->ranks++] != NULL;
}

/* Those behind the device in its backend, "nvidia:1" after "nvidia:0"; else itself, opened again.
 */
static bool add_others(struct core *c, struct work *w)
{
    const char *uri = mh_device_uri(c->device), *colon = strrchr(uri, ':');
    mh_device_params params = MH_INIT(mh_device_params);
    params.threads = c->suite->options->threads;
    for (int next = 1; colon && w->ranks < MOST; next++) {
        char other[128];
        mh_device *device;
        snprintf(other, sizeof(other), "%.*s:%d", (int)(colon - uri), uri, atoi(colon + 1) + next);
        if (mh_device_open(c->suite->runtime, other, &params, &device))
            break;
        core_keep(c, (void (*)(void *))mh_device_release, device);
        if (!add_rank(c, w, device))
            return false;
    }
    for (bool alone = w->ranks == 1; alone && w->ranks < MOST;) {
        mh_device *again = core_device(c, NULL);
        if (!again || !add_rank(c, w, again))
            return false;
    }
    return true;
}

static bool upload(struct core *c, struct work *w, struct array *t)
{
    for (uint32_t r = 0; t->count && r < w->ranks; r++) {
        mh_buffer *buffer = core_buffer(c, w->devices[r], bytes_of(t));
        if (!buffer)
            return false;
        TRY(mh_buffer_write(buffer, 0, t->have[r], bytes_of(t)));
        t->of[r] = mh_tensor_make(buffer, 0, t->dtype, t->rank, t->shape);
    }
    return true;
}

static bool compare(struct core *c, struct work *w, struct array *t, const char *name)
{
    for (uint32_t r = 0; t->count && r < w->ranks; r++) {
        TRY(mh_buffer_read(t->of[r].buffer, 0, w->got, bytes_of(t)));
        for (uint64_t i = 0; i < bytes_of(t); i++)
            CHECK(w->got[i] == t->want[r][i],
                  "%s of rank %u of %u, %s: byte %llu of %llu is %02x, must be %02x", name, r,
                  w->ranks, mh_device_uri(w->devices[r]), (unsigned long long)i,
                  (unsigned long long)bytes_of(t), w->got[i], t->want[r][i]);
    }
    return true;
}

/* One operation, on ranks that are there. */
static bool once(struct core *c, struct work *w, const struct operation *o)
{
    struct array *all[] = {&w->x,       &w->y,      &w->experts, &w->source,
                           &w->arrived, &w->number, &w->fault};
    static const char *const names[] = {"x", "y", "experts", "source", "arrived", "count", "fault"};
    enum { ALL = sizeof(all) / sizeof(all[0]) };
    mh_comm *comm;
    o->prepare(c, w);
    for (int i = 0; i < ALL; i++)
        if (!upload(c, w, all[i]))
            return false;
    TRY(mh_comm_create(w->streams, w->ranks, NULL, &comm));
    core_keep(c, (void (*)(void *))mh_comm_release, comm);
    TRY(o->run(comm, w));
    TRY(mh_comm_wait(comm, MH_FOREVER));
    for (int i = 0; i < ALL; i++)
        if (!compare(c, w, all[i], names[i]))
            return false;
    return true;
}

static bool hold(struct core *c, const struct operation *o)
{
    static const mh_dtype dtypes[] = {MH_F32, MH_BF16};
    mh_device *host = c->suite->is_host ? c->device : c->suite->host.device;
    struct work *w = malloc(sizeof(*w));
    CHECK(w, "no memory");
    core_keep(c, free, w);
    for (int i = 0; i < 4; i++) {
        bool with_host = i % 2;
        uint32_t kept = c->object_count;
        memset(w, 0, sizeof(*w));
        w->dtype = dtypes[i / 2];
        if (o->only_f32 && i / 2)
            break;
        if (!add_rank(c, w, c->device) ||
            (with_host && (!add_rank(c, w, host) || !add_rank(c, w, c->device))) ||
            (!with_host && !add_others(c, w)) || !once(c, w, o))
            return false;
        core_release_from(c, kept);
    }
    return true;
}

#define CASE(name, prepare, only_f32)                                                              \
    static bool comm_##name(struct core *c)                                                        \
    {                                                                                              \
        static const struct operation o = {prepare, run_##name, only_f32};                         \
        return hold(c, &o);                                                                        \
    }
CASE(broadcast, broadcast, false)
CASE(all_gather, all_gather, false)
CASE(all_reduce, all_reduce, false)
CASE(reduce_scatter, reduce_scatter, false)
CASE(combine, combine, true)
CASE(dispatch, dispatch, false)
CASE(return, give_back, false)

const struct core_case core_comm[] = {
    {"comm/broadcast", comm_broadcast},   {"comm/all-gather", comm_all_gather},
    {"comm/all-reduce", comm_all_reduce}, {"comm/reduce-scatter", comm_reduce_scatter},
    {"comm/combine", comm_combine},       {"comm/dispatch", comm_dispatch},
    {"comm/return", comm_return},         {NULL, NULL}};
