/*
 * Collective operations: against sums, copies and choices made here; across host and probe, and
 * over processes, which are threads here (inside.c).
 */
#include <pthread.h>

#include "world.h"

enum { RANKS = 3, N = 5, D = 7 };

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
};

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
    enum { K = 3, SLOTS = N * K, EXPERTS = 6 };
    struct party p = meet(*state);
    const int64_t shape[] = {N, K, D}, ids[] = {N, K};
    static const uint32_t owners[EXPERTS] = {0, 2, 1, 1, 2, 0};
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
                           values + ((int)owners[expert] * SLOTS + i) * D, 4 * D);
            }
        }
        mh_tensor e[RANKS], choice[RANKS];
        make(&p, e, MH_F32, 3, shape, values);
        make(&p, choice, MH_I32, 2, ids, experts);
        DO(&p, MH_COMM_COMBINE, .y = e, .experts = choice, .owners = owners,
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
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(a_lost_device_is_told),
        OVER_PROCESSES(a_cut_cable_is_told),
    };
    return WORLD_MAIN(tests);
}
