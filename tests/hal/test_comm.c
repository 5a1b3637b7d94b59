/*
 * Collective operations: against sums, copies and choices made here; across host and probe, and
 * over processes, which are threads here (inside.c).
 */
#include <pthread.h>

#include "world.h"

enum { RANKS = 3, N = 5, D = 7, K = 3, SLOTS = N * K, EXPERTS = 6 };

static const uint32_t owners_of[EXPERTS] = {0, 2, 1, 1, 2, 0};

/* Ranks of each process. */
static uint32_t ways[][RANKS] = {{3}, {2, 1}, {1, 2}, {1, 1, 1}};

struct process {
    mh_transport *transport; /* NULL: of one process */
    mh_comm *comm;
    uint32_t first, count; /* its ranks */
};

struct party {
    struct world *w;
    mh_device *devices[RANKS];
    mh_stream *streams[RANKS];
    struct process processes[RANKS];
    uint32_t process_count;
    uint32_t cut_at; /* the gather that fails */
};

static char inside_path[1024];

/* ---- what every process does, each in a thread ---- */

typedef mh_status act_fn(struct party *p, struct process *self, const void *what);

struct actor {
    pthread_t thread;
    struct party *p;
    struct process *self;
    act_fn *act;
    const void *what;
    mh_status status;
    char message[256];
};

static void *act(void *user)
{
    struct actor *a = user;
    a->status = a->act(a->p, a->self, a->what);
    if (a->status)
        snprintf(a->message, sizeof(a->message), "%s", mh_last_message());
    return NULL;
}

/* All processes together; what each returns must be `status`, and the message have `part`. */
static void together(struct party *p, act_fn *fn, const void *what, mh_status status,
                     const char *part)
{
    struct actor actors[RANKS] = {0};
    for (uint32_t i = 0; i < p->process_count; i++) {
        actors[i] = (struct actor){.p = p, .self = &p->processes[i], .act = fn, .what = what};
        assert_int_equal(pthread_create(&actors[i].thread, NULL, act, &actors[i]), 0);
    }
    for (uint32_t i = 0; i < p->process_count; i++)
        pthread_join(actors[i].thread, NULL);
    for (uint32_t i = 0; i < p->process_count; i++)
        if (actors[i].status != status || !strstr(actors[i].message, part))
            fail_msg("process %u: status %u: %s", i, actors[i].status, actors[i].message);
}

static mh_status join(struct party *p, struct process *self, const void *what)
{
    void (*be)(uint32_t, uint32_t, uint32_t);
    (void)what;
    mh_status status = MH_OK;
    if (p->process_count > 1) {
        void *module = dlopen(inside_path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        *(void **)&be = dlsym(module, "inside_be");
        dlclose(module);
        be((uint32_t)(self - p->processes), p->process_count, p->cut_at);
        status = mh_transport_open(p->w->runtime, inside_path, &self->transport);
    }
    return status ? status
                  : mh_comm_create(p->streams + self->first, self->count, self->transport,
                                   &self->comm);
}

/* An operation, with the tensors of all ranks. */
struct call {
    uint32_t kind;
    const mh_tensor *y, *x, *experts;
    uint32_t root;
    const uint32_t *owners;
    int64_t expert_count;
    const mh_comm_rows *rows;
};

static mh_status perform_trip(mh_comm *comm, const struct call *c, uint32_t at)
{
    mh_comm_rows rows = MH_INIT(mh_comm_rows);
    rows.y = c->rows->y + at, rows.source = c->rows->source + at;
    rows.experts = c->rows->experts + at, rows.count = c->rows->count + at;
    rows.fault = c->rows->fault + at;
    return c->kind == MH_COMM_DISPATCH ? mh_comm_dispatch(comm, &rows, c->x + at, c->experts + at,
                                                          c->owners, c->expert_count)
                                       : mh_comm_return(comm, c->y + at, &rows);
}

static mh_status perform(struct party *p, struct process *self, const void *what)
{
    (void)p;
    const struct call *c = what;
    mh_comm *comm = self->comm;
    const uint32_t at = self->first;
    switch (c->kind) {
    case MH_COMM_BROADCAST:
        return mh_comm_broadcast(comm, c->x + at, c->root);
    case MH_COMM_ALL_GATHER:
        return mh_comm_all_gather(comm, c->y + at, c->x + at);
    case MH_COMM_ALL_REDUCE:
        return mh_comm_all_reduce(comm, c->y + at, c->x + at);
    case MH_COMM_REDUCE_SCATTER:
        return mh_comm_reduce_scatter(comm, c->y + at, c->x + at);
    case MH_COMM_DISPATCH:
    case MH_COMM_RETURN:
        return perform_trip(comm, c, at);
    default:
        return mh_comm_combine(comm, c->y + at, c->experts + at, c->owners, c->expert_count);
    }
}

#define DO(p, ...) together(p, perform, &(struct call){__VA_ARGS__}, MH_OK, "")

static struct party meet_until(const uint32_t *way, uint32_t cut_at)
{
    struct party p = {.w = world_make(0), .cut_at = cut_at};
    mh_device *devices[RANKS] = {p.w->probe, p.w->host, p.w->probe};
    for (int i = 0; i < RANKS; i++) {
        p.devices[i] = devices[i];
        OK(mh_stream_create(devices[i], &p.streams[i]));
    }
    for (uint32_t rank = 0; rank < RANKS; rank += way[p.process_count++])
        p.processes[p.process_count] =
            (struct process){.first = rank, .count = way[p.process_count]};
    together(&p, join, NULL, MH_OK, "");
    return p;
}

static struct party meet(const uint32_t *way)
{
    return meet_until(way, 0);
}

static void part(struct party *p)
{
    for (uint32_t i = 0; i < p->process_count; i++) {
        mh_comm_release(p->processes[i].comm);
        mh_transport_release(p->processes[i].transport);
    }
    for (int i = 0; i < RANKS; i++)
        mh_stream_release(p->streams[i]);
    world_free(p->w);
}

/* Whether it is the first of its process. */
static bool is_first(const struct party *p, uint32_t rank)
{
    for (uint32_t i = 0; i < p->process_count; i++)
        if (p->processes[i].first == rank)
            return true;
    return false;
}

/* ---- tensors ---- */

/* A tensor on every rank, holding 4-byte elements of `values`, if there are any. */
static void make(struct party *p, mh_tensor *t, mh_dtype dtype, uint32_t rank, const int64_t *shape,
                 const void *values)
{
    uint64_t bytes = mh_dtype_size(dtype);
    for (uint32_t i = 0; i < rank; i++)
        bytes *= (uint64_t)shape[i];
    for (int r = 0; r < RANKS; r++) {
        mh_buffer *buffer;
        OK(mh_buffer_create(p->devices[r], bytes + 4, 0, &buffer));
        t[r] = mh_tensor_make(buffer, 4, dtype, rank, shape);
        if (values)
            OK(mh_buffer_write(buffer, 4, (const char *)values + (uint64_t)r * bytes, bytes));
    }
}

static void drop(mh_tensor *t)
{
    for (int r = 0; r < RANKS; r++)
        mh_buffer_release(t[r].buffer);
}

static void assert_holds(const struct party *p, int rank, const mh_tensor *t, const void *want,
                         uint64_t bytes)
{
    char got[4096];
    assert_true(bytes <= sizeof(got));
    OK(mh_stream_wait(p->streams[rank], MH_FOREVER));
    OK(mh_buffer_read(t->buffer, t->offset, got, bytes));
    assert_memory_equal(got, want, bytes);
}

static uint32_t next(uint32_t *state)
{
    return *state = *state * 1664525 + 1013904223;
}

/* Values whose sum depends on the order of its terms. */
static float wild(uint32_t *state)
{
    float value = (float)(int32_t)next(state);
    return (next(state) & 1 ? value * 0x1p-20f : value) * (next(state) & 2 ? 0x1p-16f : 1);
}

/* ---- operations ---- */

static void gathering_and_broadcasting(void **state)
{
    struct party p = meet(*state);
    const int64_t less[] = {N, D}, more[] = {RANKS * N, D};
    uint32_t seed = 1, values[RANKS * N * D];
    for (int i = 0; i < RANKS * N * D; i++)
        values[i] = next(&seed);
    mh_tensor x[RANKS], y[RANKS];
    make(&p, x, MH_U32, 2, less, values);
    make(&p, y, MH_U32, 2, more, NULL);
    DO(&p, MH_COMM_ALL_GATHER, .y = y, .x = x);
    for (int r = 0; r < RANKS; r++)
        assert_holds(&p, r, &y[r], values, sizeof(values));
    for (uint32_t root = 0; root < RANKS; root++) {
        const uint32_t *own = values + root * N * D;
        OK(mh_buffer_write(x[root].buffer, 4, own, 4 * N * D));
        DO(&p, MH_COMM_BROADCAST, .x = x, .root = root);
        for (int r = 0; r < RANKS; r++)
            assert_holds(&p, r, &x[r], own, 4 * N * D);
    }
    uint64_t in = 0, out = 0;
    for (uint32_t i = 0; i < p.process_count; i++) {
        mh_comm_info info = MH_INIT(mh_comm_info);
        OK(mh_comm_get_info(p.processes[i].comm, &info));
        assert_int_equal(info.ranks, RANKS);
        assert_int_equal(info.first, p.processes[i].first);
        assert_int_equal(info.operations, 4);
        assert_int_equal(info.native, 0);
        in += info.bytes_in;
        out += info.bytes_out;
    }
    assert_int_equal(out, 6 * 4 * N * D);
    assert_int_equal(in, RANKS * sizeof(values) + 6 * 4 * N * D);
    drop(x);
    drop(y);
    part(&p);
}

static void sums_go_by_rank(void **state)
{
    struct party p = meet(*state);
    const int64_t more[] = {RANKS * N, D}, less[] = {N, D};
    enum { COUNT = RANKS * N * D };
    float values[RANKS * COUNT], want[COUNT];
    uint32_t seed = 7;
    int differ = 0;
    for (int i = 0; i < RANKS * COUNT; i++)
        values[i] = wild(&seed);
    for (int i = 0; i < COUNT; i++) {
        const float a = values[i], b = values[COUNT + i], c = values[2 * COUNT + i];
        volatile float first = a + b, other = b + c;
        want[i] = first + c;
        differ += want[i] != a + other;
    }
    assert_true(differ > 5); /* another order would show */
    mh_tensor x[RANKS], y[RANKS], part_of[RANKS];
    make(&p, x, MH_F32, 2, more, values);
    make(&p, y, MH_F32, 2, more, NULL);
    make(&p, part_of, MH_F32, 2, less, NULL);
    DO(&p, MH_COMM_REDUCE_SCATTER, .y = part_of, .x = x);
    for (int r = 0; r < RANKS; r++)
        assert_holds(&p, r, &part_of[r], want + r * N * D, 4 * N * D);
    DO(&p, MH_COMM_ALL_REDUCE, .y = y, .x = x);
    DO(&p, MH_COMM_ALL_REDUCE, .y = x, .x = x); /* in place */
    for (int r = 0; r < RANKS; r++) {
        assert_holds(&p, r, &y[r], want, sizeof(want));
        assert_holds(&p, r, &x[r], want, sizeof(want));
    }
    drop(x);
    drop(y);
    drop(part_of);
    part(&p);
}

static void bf16_is_rounded_once(void **state)
{
    struct party p = meet(*state);
    /* 1 + 2^-8 + 2^-8: each addition alone would round to 1. -0 stays; a tie goes to even; what is
     * too large becomes infinite; a NaN stays one. */
    const uint16_t values[RANKS][5] = {{0x3f80, 0x8000, 0x3f81, 0x7f7f, 0x7fc0},
                                       {0x3b80, 0x8000, 0x3b80, 0x7f7f, 0x3f80},
                                       {0x3b80, 0x8000, 0x0000, 0x0000, 0x3f80}};
    const uint16_t want[5] = {0x3f81, 0x8000, 0x3f82, 0x7f80, 0x7fc0};
    const int64_t shape[] = {5};
    mh_tensor x[RANKS];
    make(&p, x, MH_BF16, 1, shape, values);
    DO(&p, MH_COMM_ALL_REDUCE, .y = x, .x = x);
    for (int r = 0; r < RANKS; r++)
        assert_holds(&p, r, &x[r], want, sizeof(want));
    drop(x);
    part(&p);
}

static void slots_come_from_their_owners(void **state)
{
    struct party p = meet(*state);
    const int64_t shape[] = {N, K, D}, ids[] = {N, K};
    uint32_t seed = 3;
    for (int round = 0; round < 8; round++) {
        int32_t experts[RANKS * SLOTS];
        uint32_t values[RANKS * SLOTS * D], want[RANKS * SLOTS * D];
        for (int i = 0; i < RANKS * SLOTS * D; i++)
            values[i] = next(&seed);
        memcpy(want, values, sizeof(want));
        for (int i = 0; i < SLOTS; i++) {
            int32_t expert = round ? (int32_t)(next(&seed) >> 16) % EXPERTS : 3; /* all to one */
            if (round > 5 && i % 4 == 0)                                         /* nobody's */
                expert = i % 8 ? EXPERTS : -1;
            for (int r = 0; r < RANKS; r++) {
                /* only those of a process's first rank are read */
                experts[r * SLOTS + i] = is_first(&p, (uint32_t)r) ? expert : 77;
                if (expert >= 0 && expert < EXPERTS)
                    memcpy(want + (r * SLOTS + i) * D,
                           values + ((int)owners_of[expert] * SLOTS + i) * D, 4 * D);
            }
        }
        mh_tensor e[RANKS], choice[RANKS];
        make(&p, e, MH_F32, 3, shape, values);
        make(&p, choice, MH_I32, 2, ids, experts);
        DO(&p, MH_COMM_COMBINE, .y = e, .experts = choice, .owners = owners_of,
           .expert_count = EXPERTS);
        for (int r = 0; r < RANKS; r++)
            assert_holds(&p, r, &e[r], want + r * SLOTS * D, 4 * SLOTS * D);
        drop(e);
        drop(choice);
    }
    part(&p);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    struct party p = meet(ways[0]);
    const int64_t shape[] = {N, D}, ids[] = {N, D}, slots[] = {N, D, 2},
                  wide[] = {RANKS * N, D + 1};
    mh_comm *comm, *one = p.processes[0].comm;
    mh_stream *twice[] = {p.streams[0], p.streams[1], p.streams[0]};
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_create(p.streams, 0, NULL, &comm), "no streams");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_create(twice, 3, NULL, &comm),
            "streams[0] and streams[2]");
    mh_runtime *runtime;
    mh_device *host;
    mh_stream *strangers[] = {p.streams[1], NULL};
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.flags = MH_RUNTIME_NO_ENVIRONMENT;
    OK(mh_runtime_create(&params, &runtime));
    OK(mh_device_open(runtime, "host", NULL, &host));
    OK(mh_stream_create(host, &strangers[1]));
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_create(strangers, 2, NULL, &comm), "two runtimes");
    mh_stream_release(strangers[1]);
    mh_device_release(host);
    mh_runtime_release(runtime);

    mh_tensor x[RANKS], y[RANKS], e[RANKS], choice[RANKS], saved;
    make(&p, x, MH_F32, 2, shape, NULL);
    make(&p, y, MH_F32, 2, wide, NULL);
    make(&p, e, MH_F32, 3, slots, NULL);
    make(&p, choice, MH_I32, 2, ids, NULL);
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_broadcast(NULL, x, 0), "comm is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_broadcast(one, NULL, 0), "x is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_broadcast(one, x, RANKS), "root is 3 of 3");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_all_gather(one, y, x), "does not fit");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_reduce_scatter(one, x, y), "does not fit");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_all_reduce(one, y, x), "does not fit");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_all_reduce(one, choice, choice), "must be f32 or bf16");
    saved = x[1];
    x[1].buffer = x[0].buffer;
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_all_reduce(one, x, x), "x[1] is on probe:0");
    x[1] = saved;
    x[1].shape[0]--;
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_all_reduce(one, x, x), "x[1] has another");
    x[1] = saved;
    x[1].stride[0] += 4;
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_all_reduce(one, x, x), "x[1] is not dense");
    for (int r = 0; r < RANKS; r++) {
        x[r] = mh_tensor_slice(x[r], 0, 0, N);
        x[r].stride[0] = 4 * D;
        x[r].offset += 4; /* one element past the end */
    }
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_all_reduce(one, x, x), "beyond");
    uint32_t owners[] = {0, 1, RANKS};
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_combine(one, e, choice, owners, 3), "owners[2] is 3");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_combine(one, e, choice, owners, 0), "no experts");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_combine(one, x, choice, owners, 2), "f32 [T, k, D]");
    drop(x);
    drop(y);
    drop(e);
    drop(choice);
    part(&p);
}

/* A device that is lost in the middle: an error, and nothing is held or hangs. */
static void a_lost_device_is_told(void **state)
{
    (void)state;
    struct party p = meet(ways[0]);
    const int64_t shape[] = {N, D};
    mh_tensor x[RANKS];
    make(&p, x, MH_F32, 2, shape, NULL);
    p.w->control->fail_wait = 1;
    mh_comm *one = p.processes[0].comm;
    assert_int_not_equal(mh_comm_all_reduce(one, x, x), MH_OK);
    assert_int_not_equal(mh_comm_all_reduce(one, x, x), MH_OK); /* it stays lost */
    drop(x);
    part(&p);
}

/* ---- tokens to the owners of experts, and back ---- */

enum { ROWS = RANKS * SLOTS + 1, WIDE = 4 };

struct trip {
    int64_t capacity;
    int32_t experts[RANKS * SLOTS];                                            /* chosen */
    uint32_t need[RANKS];                                                      /* rows for each */
    int32_t source[RANKS * ROWS * 3], row_experts[RANKS * ROWS], count[RANKS]; /* what is to come */
    uint32_t fault[RANKS];
    mh_tensor x[RANKS], chosen[RANKS], e[RANKS];
    mh_tensor of[6][RANKS]; /* of the rows: y, source, experts, count, fault; and results */
    mh_comm_rows rows;
};

enum {
    AMPLE,
    ALL_TO_ONE,
    NONE_TO_ONE,
    NOBODYS,
    SOME_NOBODYS,
    JUST_ENOUGH,
    ONE_TOO_FEW,
    ONE,
    KINDS
};

static int32_t choose(int kind, uint32_t *seed)
{
    static const int32_t nobodys[] = {-1, EXPERTS, INT32_MIN, INT32_MAX};
    uint32_t random = next(seed) >> 16;
    if (kind == ALL_TO_ONE)
        return random & 1 ? 1 : 4;
    if (kind == NONE_TO_ONE)
        return random & 1 ? 1 : 5;
    if (kind == NOBODYS || (kind == SOME_NOBODYS && random % 3 == 0))
        return nobodys[random / 3 % 4];
    return (int32_t)(random % EXPERTS);
}

/* What is to come, by one pass over what was chosen. */
static void reckon(struct trip *t)
{
    memset(t->source, 0xff, sizeof(t->source));
    for (int i = 0; i < RANKS * t->capacity; i++)
        t->row_experts[i] = EXPERTS;
    for (int i = 0; i < RANKS * SLOTS; i++) {
        if (t->experts[i] < 0 || t->experts[i] >= EXPERTS)
            continue;
        uint32_t owner = owners_of[t->experts[i]];
        if (t->count[owner] == t->capacity) {
            t->fault[owner] = MH_OUT_OF_MEMORY;
            continue;
        }
        int64_t row = owner * t->capacity + t->count[owner]++;
        t->source[3 * row] = i / SLOTS;
        t->source[3 * row + 1] = i % SLOTS / K;
        t->source[3 * row + 2] = i % K;
        t->row_experts[row] = t->experts[i];
    }
}

static void fill(uint32_t *values, int count, uint32_t *seed)
{
    for (int i = 0; i < count; i++)
        values[i] = next(seed);
}

/* What goes on the way; y and e hold `values` first. */
static void pack(struct party *p, struct trip *t, int kind, mh_dtype dtype, uint32_t *seed,
                 const uint32_t *x, const uint32_t *values)
{
    memset(t, 0, sizeof(*t));
    for (int i = 0; i < RANKS * SLOTS; i++) {
        t->experts[i] = choose(kind, seed);
        if (t->experts[i] >= 0 && t->experts[i] < EXPERTS)
            t->need[owners_of[t->experts[i]]]++;
    }
    int64_t most = 0;
    for (int r = 0; r < RANKS; r++)
        most = t->need[r] > most ? t->need[r] : most;
    t->capacity = kind == JUST_ENOUGH   ? most
                  : kind == ONE_TOO_FEW ? most - 1
                  : kind == ONE         ? 1
                                        : ROWS;
    reckon(t);
    const int64_t n = t->capacity, tokens[] = {N, D}, ids[] = {N, K}, y[] = {n, D},
                  source[] = {n, 3}, experts[] = {n, 1}, one[] = {1}, e[] = {N, K, WIDE},
                  results[] = {n, WIDE};
    static const uint32_t no_faults[RANKS];
    make(p, t->x, dtype, 2, tokens, x);
    make(p, t->chosen, MH_I32, 2, ids, t->experts);
    make(p, t->e, MH_F32, 3, e, values);
    make(p, t->of[0], dtype, 2, y, values);
    make(p, t->of[1], MH_I32, 2, source, values);
    make(p, t->of[2], MH_I32, 2, experts, values);
    make(p, t->of[3], MH_I32, 1, one, values);
    make(p, t->of[4], MH_U32, 1, one, no_faults);
    make(p, t->of[5], MH_F32, 2, results, values + 1);
    t->rows = MH_INIT(mh_comm_rows);
    t->rows.y = t->of[0], t->rows.source = t->of[1], t->rows.experts = t->of[2];
    t->rows.count = t->of[3], t->rows.fault = t->of[4];
}

static void unpack(struct trip *t)
{
    drop(t->x);
    drop(t->chosen);
    drop(t->e);
    for (int i = 0; i < 6; i++)
        drop(t->of[i]);
}

static void assert_arrived(const struct party *p, const struct trip *t, const uint32_t *x,
                           const uint32_t *values)
{
    uint64_t size = mh_dtype_size(t->x->dtype) * D, n = (uint64_t)t->capacity;
    for (uint32_t r = 0; r < RANKS; r++) {
        char want[ROWS * 4 * D];
        memcpy(want, (const char *)values + r * n * size, n * size);
        for (uint64_t i = 0; i < (uint64_t)t->count[r]; i++) {
            const int32_t *from = t->source + 3 * (r * n + i);
            memcpy(want + i * size, (const char *)x + (uint64_t)(from[0] * N + from[1]) * size,
                   size);
        }
        assert_holds(p, (int)r, &t->rows.y[r], want, n * size);
        assert_holds(p, (int)r, &t->rows.source[r], t->source + 3 * r * n, 12 * n);
        assert_holds(p, (int)r, &t->rows.experts[r], t->row_experts + r * n, 4 * n);
        assert_holds(p, (int)r, &t->rows.count[r], &t->count[r], 4);
        assert_holds(p, (int)r, &t->rows.fault[r], &t->fault[r], 4);
    }
}

/* e holds `values` but where a row of results, values + 1, has come back to. */
static void assert_returned(const struct party *p, const struct trip *t, const uint32_t *values)
{
    uint32_t want[RANKS * SLOTS * WIDE];
    memcpy(want, values, sizeof(want));
    for (int64_t i = 0; i < RANKS * t->capacity; i++) {
        const int32_t *to = t->source + 3 * i;
        if (to[0] >= 0)
            memcpy(want + ((to[0] * N + to[1]) * K + to[2]) * WIDE, values + 1 + i * WIDE,
                   4 * WIDE);
    }
    for (int r = 0; r < RANKS; r++) {
        assert_holds(p, r, &t->e[r], want + r * SLOTS * WIDE, 4 * SLOTS * WIDE);
        assert_holds(p, r, &t->rows.fault[r], &t->fault[r], 4);
    }
}

static void tokens_go_to_owners_and_back(void **state)
{
    struct party p = meet(*state);
    uint32_t seed = 11, x[RANKS * N * D], values[RANKS * ROWS * D + 1];
    struct trip t;
    for (int round = 0; round < 4 * KINDS; round++) {
        const int kind = round % KINDS;
        fill(x, RANKS * N * D, &seed);
        fill(values, RANKS * ROWS * D + 1, &seed);
        pack(&p, &t, kind, round / KINDS % 2 ? MH_F32 : MH_BF16, &seed, x, values);
        /* the kinds are what they are called */
        const bool faulty = t.fault[0] || t.fault[1] || t.fault[2];
        assert_int_equal(faulty, kind == ONE_TOO_FEW || kind == ONE);
        assert_int_equal(t.need[1] == 0, kind >= ALL_TO_ONE && kind <= NOBODYS);
        assert_int_equal(t.need[2] == 0, kind == NOBODYS);
        DO(&p, MH_COMM_DISPATCH, .rows = &t.rows, .x = t.x, .experts = t.chosen,
           .owners = owners_of, .expert_count = EXPERTS);
        assert_arrived(&p, &t, x, values);
        t.rows.y = t.of[5];
        DO(&p, MH_COMM_RETURN, .rows = &t.rows, .y = t.e);
        assert_returned(&p, &t, values);
        unpack(&t);
    }
    part(&p);
}

/* Where a row says to go is only known on the devices: what cannot be sets a fault, of its rank. */
static void a_row_to_nowhere_is_a_fault(void **state)
{
    static const int32_t nowhere[][3] = {{RANKS, 0, 0},
                                         {-2, 0, 0},
                                         {0, -1, 0},
                                         {0, N, 0},
                                         {1, 0, -1},
                                         {1, 0, K},
                                         {2, INT32_MAX, INT32_MAX}};
    struct party p = meet(*state);
    uint32_t seed = 5, x[RANKS * N * D], values[RANKS * ROWS * D + 1];
    struct trip t;
    for (uint32_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
        const uint32_t holder = i % RANKS;
        fill(x, RANKS * N * D, &seed);
        fill(values, RANKS * ROWS * D + 1, &seed);
        pack(&p, &t, AMPLE, MH_F32, &seed, x, values);
        for (uint32_t r = 0; r < RANKS; r++) {
            int32_t *source = t.source + 3 * r * t.capacity;
            if (r == holder)
                memcpy(source, nowhere[i], sizeof(nowhere[i]));
            OK(mh_buffer_write(t.of[1][r].buffer, 4, source, 12 * (uint64_t)t.capacity));
            if (r == holder)
                memset(source, 0xff, sizeof(nowhere[i])); /* goes nowhere */
        }
        t.fault[holder] = MH_BAD_INDEX;
        t.rows.y = t.of[5];
        DO(&p, MH_COMM_RETURN, .rows = &t.rows, .y = t.e);
        assert_returned(&p, &t, values);
        unpack(&t);
    }
    part(&p);
}

static void rows_that_do_not_fit_are_named(void **state)
{
    struct party p = meet(*state);
    mh_comm *comm = p.processes[0].comm;
    uint32_t seed = 1, x[RANKS * N * D], values[RANKS * ROWS * D + 1], bad[EXPERTS] = {0, RANKS};
    struct trip t;
    fill(x, RANKS * N * D, &seed);
    fill(values, RANKS * ROWS * D + 1, &seed);
    pack(&p, &t, AMPLE, MH_F32, &seed, x, values);
    mh_comm_rows r = t.rows;
#define DISPATCH(what, part)                                                                       \
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_dispatch(comm, &r, t.x, t.chosen, what, EXPERTS), part)
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_dispatch(NULL, &r, t.x, t.chosen, owners_of, EXPERTS),
            "comm is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_dispatch(comm, NULL, t.x, t.chosen, owners_of, EXPERTS),
            "mh_comm_rows: is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_dispatch(comm, &r, t.e, t.chosen, owners_of, EXPERTS),
            "x must be [T, D]");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_dispatch(comm, &r, t.x, t.x, owners_of, EXPERTS),
            "experts i32 [T, k]");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_dispatch(comm, &r, t.x, t.chosen, owners_of, 1LL << 31),
            "expert_count is more than");
    DISPATCH(NULL, "no owners");
    DISPATCH(bad, "owners[1] is 3 of 3");
    r.y = t.of[5];
    DISPATCH(owners_of, "rows->y [capacity, D]");
    r = t.rows, r.source = t.of[2];
    DISPATCH(owners_of, "source i32 [capacity, 3]");
    r = t.rows, r.experts = t.of[1];
    DISPATCH(owners_of, "rows->experts must be i32 [capacity, 1]");
    r = t.rows, r.count = t.of[4];
    DISPATCH(owners_of, "count i32 [1]");
    r = t.rows, r.fault = t.of[3];
    DISPATCH(owners_of, "fault u32 [1]");
    r = t.rows, r.fault = NULL;
    DISPATCH(owners_of, "rows->fault is NULL");
    r = t.rows;
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_return(comm, t.e, &r), "e must be [T, k, D]");
    REFUSED(MH_INVALID_ARGUMENT, mh_comm_return(comm, NULL, &r), "e is NULL");
    unpack(&t);
    part(&p);
}

/* Many streams of one device are ranks like others. */
static void many_ranks(void **state)
{
    (void)state;
    enum { MANY = 100 };
    struct world *w = world_make(0);
    const int64_t one[] = {1};
    mh_stream *streams[MANY];
    mh_tensor x[MANY];
    mh_comm *comm;
    for (uint32_t r = 0; r < MANY; r++) {
        mh_buffer *buffer;
        OK(mh_stream_create(w->host, &streams[r]));
        OK(mh_buffer_create(w->host, 4, 0, &buffer));
        OK(mh_buffer_write(buffer, 0, &(float){(float)r}, 4));
        x[r] = mh_tensor_make(buffer, 0, MH_F32, 1, one);
    }
    OK(mh_comm_create(streams, MANY, NULL, &comm));
    OK(mh_comm_all_reduce(comm, x, x));
    OK(mh_comm_wait(comm, MH_FOREVER));
    for (uint32_t r = 0; r < MANY; r++) {
        float got;
        OK(mh_buffer_read(x[r].buffer, 0, &got, 4));
        assert_true(got == 4950); /* 0 + ... + 99 */
    }
    mh_comm_release(comm);
    for (uint32_t r = 0; r < MANY; r++) {
        mh_stream_release(streams[r]);
        mh_buffer_release(x[r].buffer);
    }
    world_free(w);
}

/* Every process is told, the next operation works again. */
static void a_cut_cable_is_told(void **state)
{
    struct party p = meet_until(*state, 2); /* the first asks for ranks */
    const int64_t shape[] = {N, D};
    const float values[RANKS * N * D] = {1, 2, 3};
    mh_tensor x[RANKS];
    make(&p, x, MH_F32, 2, shape, values);
    together(&p, perform, &(struct call){MH_COMM_ALL_REDUCE, .y = x, .x = x}, MH_IO_ERROR,
             "transport inside: the cable is cut");
    for (int r = 0; r < RANKS; r++)
        assert_holds(&p, r, &x[r], values + r * N * D, 4 * N * D);
    DO(&p, MH_COMM_BROADCAST, .x = x, .root = 0);
    for (int r = 0; r < RANKS; r++)
        assert_holds(&p, r, &x[r], values, 4 * N * D);
    drop(x);
    part(&p);
}

#define IN_WAY(test, way, name)                                                                    \
    {                                                                                              \
#test name, test, NULL, NULL, ways[way]                                                    \
    }
#define OVER_PROCESSES(test)                                                                       \
    IN_WAY(test, 1, ", 2 + 1"), IN_WAY(test, 2, ", 1 + 2"), IN_WAY(test, 3, ", 1 + 1 + 1")
#define ALL_WAYS(test) IN_WAY(test, 0, ""), OVER_PROCESSES(test)

int main(int argc, char **argv)
{
    snprintf(inside_path, sizeof(inside_path), "%s/inside.so", argc > 1 ? argv[1] : "");
    const struct CMUnitTest tests[] = {
        ALL_WAYS(gathering_and_broadcasting),
        ALL_WAYS(sums_go_by_rank),
        ALL_WAYS(bf16_is_rounded_once),
        ALL_WAYS(slots_come_from_their_owners),
        ALL_WAYS(tokens_go_to_owners_and_back),
        ALL_WAYS(a_row_to_nowhere_is_a_fault),
        cmocka_unit_test(what_does_not_fit_is_named),
        IN_WAY(rows_that_do_not_fit_are_named, 0, ""),
        cmocka_unit_test(many_ranks),
        cmocka_unit_test(a_lost_device_is_told),
        OVER_PROCESSES(a_cut_cable_is_told),
    };
    return WORLD_MAIN(tests);
}
