/*
 * test_native.c: operations that the devices do by themselves, against the same by way of host
 * memory (tests/hal/test_comm.c says what those are worth): the same bytes, around the results too,
 * whatever the sizes, alignments, blocks, chunks and windows; many on their way at once, and in
 * graphs. And ranks that do not come.
 *
 * Environment, all optional: MOEHAL_TEST_VENDOR, MOEHAL_TEST_RANKS, MOEHAL_TEST_SEED,
 * MOEHAL_TEST_ROUNDS, MOEHAL_TEST_SCHEDULES; MOEHAL_TEST_ONLY and _SKIP, patterns of tests;
 * MOEHAL_TEST_TIMEOUT_MS, of kernels that wait; MOEHAL_TEST_DRIVER, the virtual
 * driver, whose reports are failures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <dlfcn.h>

#include <moehal/moehal.h>

enum { MOST = 8, GUARD = 64, KINDS = 7, BATCH = 5, EXPERTS = 12 };

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

static mh_runtime *runtime;
static mh_device *devices[MOST];
static mh_stream *streams[MOST];
static uint32_t ranks, rounds;
static uint64_t seed;

static uint32_t draw(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % below);
}

static const char *text_of(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int open_all(void **state)
{
    (void)state;
    ranks = (uint32_t)atoi(text_of("MOEHAL_TEST_RANKS", "3"));
    rounds = (uint32_t)atoi(text_of("MOEHAL_TEST_ROUNDS", "6"));
    OK(mh_runtime_create(NULL, &runtime));
    for (uint32_t r = 0; r < ranks; r++) {
        char uri[64];
        snprintf(uri, sizeof(uri), "%s:%u", text_of("MOEHAL_TEST_VENDOR", "nvidia"), r);
        OK(mh_device_open(runtime, uri, NULL, &devices[r]));
    }
    return 0;
}

static void *of_driver(const char *symbol)
{
    void *library = dlopen(text_of("MOEHAL_TEST_DRIVER", ""), RTLD_NOW | RTLD_NOLOAD);
    return library ? dlsym(library, symbol) : NULL;
}

/* What the virtual driver has found. */
static uint64_t reports(void)
{
    uint64_t (*count)(void);
    void *symbol = of_driver("moehal_virtual_report_count");
    memcpy(&count, &symbol, sizeof(count));
    return symbol ? count() : 0;
}

static int close_all(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < ranks; r++)
        mh_device_release(devices[r]);
    mh_runtime_release(runtime);
    return 0;
}

static mh_comm *meet(const mh_comm_params *params)
{
    mh_comm *comm;
    for (uint32_t r = 0; r < ranks; r++)
        OK(mh_stream_create(devices[r], &streams[r]));
    OK(mh_comm_create(streams, ranks, NULL, &comm));
    OK(mh_comm_set(comm, params));
    return comm;
}

static void part(mh_comm *comm)
{
    mh_comm_release(comm);
    for (uint32_t r = 0; r < ranks; r++)
        mh_stream_release(streams[r]);
}

static mh_comm *meet_native(const mh_comm_params *params)
{
    mh_comm *comm = meet(params);
    mh_comm_info info = MH_INIT(mh_comm_info);
    OK(mh_comm_get_info(comm, &info));
    if (!info.native)
        fail_msg("not native: %s", info.reason);
    return comm;
}

/* ---- one operation, with what it works on, twice ---- */

enum { NATIVE, STAGED };

struct tensors {
    mh_tensor of[MOST];
    uint64_t bytes; /* of a buffer */
};

struct work {
    mh_comm_op op;
    struct tensors x[2], y[2], experts; /* by NATIVE and STAGED */
    struct tensors source[2], arrived[2], count[2], fault[2];
    uint32_t owners[EXPERTS];
};

/* What an operation may write. */
#define RESULTS(w, i)                                                                              \
    {                                                                                              \
        &(w)->y[i], &(w)->source[i], &(w)->arrived[i], &(w)->count[i], &(w)->fault[i]              \
    }
enum { RESULT_COUNT = 5 };

/* Numbers whose sum depends on the order of its terms, no NaN. */
static void fill(unsigned char *bytes, uint64_t count, mh_dtype dtype)
{
    for (uint64_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)draw(256);
    if (dtype == MH_F32)
        for (uint64_t i = 3; i < count; i += 4)
            bytes[i] = (unsigned char)(0x38 + draw(16) + (draw(2) << 7));
    if (dtype == MH_BF16)
        for (uint64_t i = 1; i < count; i += 2)
            bytes[i] = (unsigned char)(0x3c + draw(8) + (draw(2) << 7));
}

static void make(struct tensors *t, mh_dtype dtype, uint32_t rank, const int64_t *shape)
{
    uint64_t bytes = mh_dtype_size(dtype);
    static const uint64_t starts[] = {0, 16, 4, 8, 12};
    for (uint32_t i = 0; i < rank; i++)
        bytes *= (uint64_t)shape[i];
    t->bytes = bytes + 2 * GUARD;
    for (uint32_t r = 0; r < ranks; r++) {
        uint64_t offset = GUARD / 2 + (draw(2) ? 0 : starts[draw(5)]);
        if (mh_dtype_size(dtype) == 2 && !draw(4))
            offset += 2;
        mh_buffer *buffer;
        OK(mh_buffer_create(devices[r], t->bytes, 0, &buffer));
        t->of[r] = mh_tensor_make(buffer, offset, dtype, rank, shape);
        unsigned char *content = malloc(t->bytes);
        fill(content, t->bytes, dtype);
        OK(mh_buffer_write(buffer, 0, content, t->bytes));
        free(content);
    }
}

static unsigned char *content_of(const struct tensors *t, uint32_t rank)
{
    unsigned char *content = malloc(t->bytes);
    OK(mh_buffer_read(t->of[rank].buffer, 0, content, t->bytes));
    return content;
}

static void twin(struct tensors *to, const struct tensors *from)
{
    to->bytes = from->bytes;
    for (uint32_t r = 0; r < ranks; r++) {
        mh_buffer *buffer;
        unsigned char *content = content_of(from, r);
        OK(mh_buffer_create(devices[r], from->bytes, 0, &buffer));
        OK(mh_buffer_write(buffer, 0, content, from->bytes));
        free(content);
        to->of[r] = from->of[r];
        to->of[r].buffer = buffer;
    }
}

static void drop(struct tensors *t)
{
    for (uint32_t r = 0; r < ranks; r++)
        mh_buffer_release(t->of[r].buffer);
    memset(t, 0, sizeof(*t));
}

/* Sizes: odd ones, round ones, such as take several windows unless they are to be short. */
static bool brief;
/* Tokens of more slots than a warp has lanes, all of them more than a block's warps look at at
 * once. */
static bool crowded;

static int64_t length(void)
{
    switch (draw(brief ? 3 : 5)) {
    case 0:
        return 1 + draw(9);
    case 1:
        return 1 + draw(500);
    case 2:
        return 64 * (1 + draw(8));
    case 3:
        return 4 * (1 + draw(1500));
    default:
        return 1 + draw(6000);
    }
}

static void prepare_combine(struct work *w)
{
    int64_t slots[] = {1 + draw(6), 1 + draw(5), 1 + (length() - 1) % 900};
    make(&w->y[NATIVE], MH_F32, 3, slots);
    make(&w->experts, MH_I32, 2, slots);
    uint64_t count = (uint64_t)(slots[0] * slots[1]);
    int32_t *ids = malloc(4 * count);
    for (uint64_t i = 0; i < count; i++)
        ids[i] = (int32_t)draw(EXPERTS + 2) - 1; /* two of them are nobody's */
    for (uint32_t r = 0; r < ranks; r++)
        OK(mh_buffer_write(w->experts.of[r].buffer, w->experts.of[r].offset, ids, 4 * count));
    free(ids);
    for (int i = 0; i < EXPERTS; i++)
        w->owners[i] = draw(4) ? draw(ranks) : 0;
    w->op.owners = w->owners;
    w->op.expert_count = EXPERTS;
}

static void set(const mh_tensor *t, const int32_t *values, int64_t count)
{
    OK(mh_buffer_write(t->buffer, t->offset, values, 4 * (uint64_t)count));
}

/* What comes to `rank` of tokens is the host's; fault words begin as 0. */
static void make_rows(struct work *w, int64_t capacity)
{
    const int64_t source[] = {capacity, 3}, arrived[] = {capacity, 1}, one[] = {1};
    const int32_t none = 0;
    make(&w->source[NATIVE], MH_I32, 2, source);
    make(&w->arrived[NATIVE], MH_I32, 2, arrived);
    make(&w->count[NATIVE], MH_I32, 1, one);
    make(&w->fault[NATIVE], MH_U32, 1, one);
    for (uint32_t r = 0; r < ranks; r++)
        set(&w->fault[NATIVE].of[r], &none, 1);
}

/* Tokens, a row's length: few long ones, many short ones, none at all. */
static void draw_tokens(int64_t *tokens, int64_t *slots, int64_t *columns)
{
    if (crowded) {
        *tokens = 8, *slots = 33 + draw(4), *columns = 1 + draw(20);
        return;
    }
    switch (draw(6)) {
    case 0:
        *tokens = draw(3), *columns = length();
        break;
    case 1: /* more than there are chunks */
        *tokens = 250 + draw(300), *columns = draw(5);
        break;
    case 2: /* several windows */
        *tokens = 20 + draw(60), *columns = 1 + draw(300);
        break;
    default:
        *tokens = 1 + draw(20), *columns = 1 + (length() - 1) % 700;
    }
}

/* Each rank's tokens go anywhere, to few or to one, or it has none. */
static void prepare_dispatch(struct work *w, mh_dtype dtype)
{
    int64_t tokens, columns, slots = 1 + draw(draw(4) ? 5 : 40), most = 0;
    draw_tokens(&tokens, &slots, &columns);
    const int64_t x[] = {tokens, columns}, ids[] = {tokens, slots};
    int64_t need[MOST] = {0};
    int32_t *values = malloc(4 * (size_t)(tokens * slots + 1));
    for (int i = 0; i < EXPERTS; i++)
        w->owners[i] = draw(4) ? draw(ranks) : 0;
    make(&w->x[NATIVE], dtype, 2, x);
    make(&w->experts, MH_I32, 2, ids);
    for (uint32_t r = 0; r < ranks; r++) {
        static const int32_t nobodys[] = {-1, EXPERTS, INT32_MIN, INT32_MAX};
        const uint32_t kind = draw(5), one = draw(EXPERTS);
        for (int64_t i = 0; i < tokens * slots; i++) {
            const bool out = kind == 0 || (kind == 1 && draw(2));
            values[i] = out ? nobodys[draw(4)] : (int32_t)(kind == 2 ? one : draw(EXPERTS));
            if (!out)
                need[w->owners[values[i]]]++;
        }
        set(&w->experts.of[r], values, tokens * slots);
    }
    free(values);
    for (uint32_t r = 0; r < ranks; r++)
        most = need[r] > most ? need[r] : most;
    const int64_t capacities[] = {most,     most + draw(50), most ? most - 1 : 0, draw(9),
                                  most / 2, most + 1,        most + draw(1000),   most};
    const int64_t y[] = {capacities[draw(8)], columns};
    make(&w->y[NATIVE], dtype, 2, y);
    make_rows(w, y[0]);
    w->op.owners = w->owners;
    w->op.expert_count = EXPERTS;
}

/* Rows of some slots of all ranks, on any rank and in any order; and such as belong nowhere. */
static void prepare_return(struct work *w, mh_dtype dtype)
{
    int64_t tokens, columns, slots = 1 + draw(6);
    draw_tokens(&tokens, &slots, &columns);
    const int64_t e[] = {tokens, slots, columns}, all = tokens * slots * ranks;
    const int64_t y[] = {all / ranks * (1 + draw(3)) + draw(20), columns};
    int32_t *sources[MOST];
    make(&w->y[NATIVE], dtype, 3, e);
    make(&w->x[NATIVE], dtype, 2, y);
    make_rows(w, y[0]);
    for (uint32_t r = 0; r < ranks; r++) {
        sources[r] = malloc(12 * (size_t)y[0] + 1);
        memset(sources[r], 0xff, 12 * (size_t)y[0]);
    }
    const uint32_t dense = 1 + draw(4);
    for (int64_t i = 0; i < all && y[0]; i++) {
        int32_t *at = sources[draw(ranks)] + 3 * draw((uint32_t)y[0]);
        if (draw(dense) || at[0] != -1)
            continue;
        at[0] = (int32_t)(i / (tokens * slots));
        at[1] = (int32_t)(i / slots % tokens);
        at[2] = (int32_t)(i % slots);
    }
    for (uint32_t bad = draw(2) * draw(6); bad && y[0]; bad--) {
        int32_t *at = sources[draw(ranks)] + 3 * draw((uint32_t)y[0]);
        const int32_t nowhere[] = {(int32_t)ranks, -2, INT32_MAX, (int32_t)tokens, (int32_t)slots};
        const uint32_t which = draw(3);
        at[0] = at[0] == -1 && which ? 0 : at[0];
        at[which] = nowhere[which ? 2 + which : draw(3)];
    }
    for (uint32_t r = 0; r < ranks; r++) {
        set(&w->source[NATIVE].of[r], sources[r], 3 * y[0]);
        free(sources[r]);
    }
}

static void prepare(struct work *w, uint32_t kind)
{
    static const mh_dtype dtypes[] = {MH_F32, MH_BF16, MH_I32};
    bool sum = kind == MH_COMM_ALL_REDUCE || kind == MH_COMM_REDUCE_SCATTER;
    mh_dtype dtype = dtypes[draw(sum ? 2 : 3)];
    int64_t less[] = {1 + draw(3), length()}, more[] = {less[0] * ranks, less[1]};
    memset(w, 0, sizeof(*w));
    w->op = MH_INIT(mh_comm_op);
    w->op.kind = kind;
    w->op.phases = MH_COMM_SEND | MH_COMM_RECEIVE;
    w->op.root = draw(ranks);
    if (kind == MH_COMM_COMBINE) {
        prepare_combine(w);
    } else if (kind == MH_COMM_DISPATCH) {
        prepare_dispatch(w, dtype);
    } else if (kind == MH_COMM_RETURN) {
        prepare_return(w, dtype);
    } else {
        make(&w->y[NATIVE], dtype, 2, kind == MH_COMM_ALL_GATHER ? more : less);
        if (kind == MH_COMM_ALL_REDUCE && draw(2))
            w->x[NATIVE] = w->y[NATIVE]; /* in place */
        else if (kind != MH_COMM_BROADCAST)
            make(&w->x[NATIVE], dtype, 2, kind == MH_COMM_REDUCE_SCATTER ? more : less);
    }
    struct tensors *from[] = RESULTS(w, NATIVE), *to[] = RESULTS(w, STAGED);
    for (int i = 0; i < RESULT_COUNT; i++)
        if (from[i]->bytes)
            twin(to[i], from[i]);
    if (w->x[NATIVE].of[0].buffer == w->y[NATIVE].of[0].buffer)
        w->x[STAGED] = w->y[STAGED];
    else if (w->x[NATIVE].bytes)
        twin(&w->x[STAGED], &w->x[NATIVE]);
}

static void finish(struct work *w)
{
    for (int i = 0; i < 2; i++) {
        if (w->x[i].of[0].buffer != w->y[i].of[0].buffer && w->x[i].bytes)
            drop(&w->x[i]);
        struct tensors *results[] = RESULTS(w, i);
        for (int k = 0; k < RESULT_COUNT; k++)
            if (results[k]->bytes)
                drop(results[k]);
    }
    if (w->experts.bytes)
        drop(&w->experts);
}

/* Of a rank and those after it. */
static mh_comm_rows rows_of(const struct work *w, int which, uint32_t rank)
{
    mh_comm_rows rows = MH_INIT(mh_comm_rows);
    rows.y = (w->op.kind == MH_COMM_RETURN ? w->x : w->y)[which].of + rank;
    rows.source = w->source[which].of + rank, rows.experts = w->arrived[which].of + rank;
    rows.count = w->count[which].of + rank, rows.fault = w->fault[which].of + rank;
    return rows;
}

static mh_status run(mh_comm *comm, const struct work *w, int which)
{
    const mh_tensor *y = w->y[which].of, *x = w->x[which].of;
    const mh_comm_rows rows = rows_of(w, which, 0);
    switch (w->op.kind) {
    case MH_COMM_BROADCAST:
        return mh_comm_broadcast(comm, y, w->op.root);
    case MH_COMM_ALL_GATHER:
        return mh_comm_all_gather(comm, y, x);
    case MH_COMM_ALL_REDUCE:
        return mh_comm_all_reduce(comm, y, x);
    case MH_COMM_REDUCE_SCATTER:
        return mh_comm_reduce_scatter(comm, y, x);
    case MH_COMM_DISPATCH:
        return mh_comm_dispatch(comm, &rows, x, w->experts.of, w->owners, EXPERTS);
    case MH_COMM_RETURN:
        return mh_comm_return(comm, y, &rows);
    default:
        return mh_comm_combine(comm, y, w->experts.of, w->owners, EXPERTS);
    }
}

static void assert_same(const struct work *w, const char *what)
{
    static const char *const names[] = {"y", "source", "experts", "count", "fault"};
    const struct tensors *natives[] = RESULTS(w, NATIVE), *stageds[] = RESULTS(w, STAGED);
    for (uint32_t i = 0; i < RESULT_COUNT * ranks; i++) {
        const uint32_t k = i % RESULT_COUNT, r = i / RESULT_COUNT;
        if (!natives[k]->bytes)
            continue;
        unsigned char *native = content_of(natives[k], r), *staged = content_of(stageds[k], r);
        for (uint64_t at = 0; at < natives[k]->bytes; at++)
            if (native[at] != staged[at])
                fail_msg("%s: kind %u, rank %u of %u: byte %llu of %llu, of which %d are before "
                         "%s: %02x, must be %02x",
                         what, w->op.kind, r, ranks, (unsigned long long)at,
                         (unsigned long long)natives[k]->bytes, (int)natives[k]->of[r].offset,
                         names[k], native[at], staged[at]);
        free(native);
        free(staged);
    }
}

static mh_comm_params any_params(void)
{
    static const uint64_t chunks[] = {0, 256, 1024, 4096, 100000};
    mh_comm_params params = MH_INIT(mh_comm_params);
    params.capacity = 65536;
    params.timeout_ns = UINT64_C(1000000) * (uint64_t)atoi(text_of("MOEHAL_TEST_TIMEOUT_MS", "0"));
    params.chunk_bytes = chunks[draw(5)];
    params.blocks = draw(3) ? 1 + draw(6) : 0;
    return params;
}

/* What was done natively, done again by way of the host. */
static void compare(mh_comm *native, struct work *works, int count, int times, const char *what)
{
    mh_comm_params params = MH_INIT(mh_comm_params);
    params.staged = 1;
    OK(mh_comm_wait(native, MH_FOREVER));
    assert_int_equal(reports(), 0);
    part(native);
    mh_comm *staged = meet(&params);
    for (int k = 0; k < times; k++)
        for (int i = 0; i < count; i++)
            OK(run(staged, &works[i], STAGED));
    OK(mh_comm_wait(staged, MH_FOREVER));
    part(staged);
    for (int i = 0; i < count; i++) {
        assert_same(&works[i], what);
        finish(&works[i]);
    }
}

static void in_streams(uint32_t round)
{
    struct work works[BATCH];
    mh_comm_params params = any_params();
    for (uint32_t i = 0; i < BATCH; i++)
        prepare(&works[i], 1 + (BATCH * round + i) % KINDS);
    mh_comm *comm = meet_native(&params);
    for (int i = 0; i < BATCH; i++)
        OK(run(comm, &works[i], NATIVE));
    compare(comm, works, BATCH, 1, "streams");
}

/* Dispatches, with nothing between, and returns. */
static void in_a_row(bool crowd)
{
    struct work works[BATCH];
    mh_comm_params params = any_params();
    crowded = crowd;
    params.blocks = 1;
    for (uint32_t i = 0; i < BATCH; i++)
        prepare(&works[i], i < 3 ? MH_COMM_DISPATCH : MH_COMM_RETURN);
    mh_comm *comm = meet_native(&params);
    for (int i = 0; i < BATCH; i++)
        OK(run(comm, &works[i], NATIVE));
    compare(comm, works, BATCH, 1, "in a row");
    crowded = false;
}

static void many_at_once(void **state)
{
    (void)state;
    seed = (uint64_t)atoi(text_of("MOEHAL_TEST_SEED", "1"));
    for (uint32_t round = 0; round < rounds; round++)
        in_streams(round);
    in_a_row(true);
}

/* Each rank's graph has all operations, some of them in halves with another op between. */
static void record(mh_comm *comm, const struct work *works, mh_graph **graphs)
{
    const int64_t shape[] = {2, 8};
    mh_op_fill op = MH_OP_INIT(fill, FILL);
    for (uint32_t r = 0; r < ranks; r++) {
        mh_buffer *beside;
        OK(mh_graph_create(devices[r], &graphs[r]));
        OK(mh_buffer_create(devices[r], 64, 0, &beside));
        op.y = mh_tensor_make(beside, 0, MH_F32, 2, shape);
        for (int i = 0; i < BATCH; i++) {
            mh_comm_op own = works[i].op;
            own.y = works[i].y[NATIVE].of[r], own.x = works[i].x[NATIVE].of[r];
            own.experts = works[i].experts.of[r];
            const mh_comm_rows rows = rows_of(&works[i], NATIVE, r);
            own.rows = &rows;
            bool whole = own.kind == MH_COMM_ALL_REDUCE || own.kind == MH_COMM_REDUCE_SCATTER;
            if (!whole) {
                own.phases = MH_COMM_SEND;
                OK(mh_comm_encode(comm, r, mh_graph_encoder(graphs[r]), &own));
                OK(mh_encode(mh_graph_encoder(graphs[r]), &op.base));
                own.phases = MH_COMM_RECEIVE;
            }
            OK(mh_comm_encode(comm, r, mh_graph_encoder(graphs[r]), &own));
        }
        OK(mh_graph_seal(graphs[r]));
        mh_buffer_release(beside);
    }
}

static void in_graphs(uint32_t round)
{
    enum { LAUNCHES = 3 };
    struct work works[BATCH];
    mh_graph *graphs[MOST];
    mh_comm_params params = any_params();
    for (uint32_t i = 0; i < BATCH; i++)
        prepare(&works[i], 1 + (BATCH * round + i) % KINDS);
    mh_comm *comm = meet_native(&params);
    record(comm, works, graphs);
    for (int k = 0; k < LAUNCHES; k++)
        for (uint32_t r = 0; r < ranks; r++)
            OK(mh_graph_launch(graphs[r], streams[r]));
    mh_graph_info info = MH_INIT(mh_graph_info);
    OK(mh_graph_get_info(graphs[0], &info));
    assert_int_equal(info.native_segments, 1);
    for (uint32_t r = 0; r < ranks; r++)
        mh_graph_release(graphs[r]);
    compare(comm, works, BATCH, LAUNCHES, "graphs");
}

static void recorded(void **state)
{
    (void)state;
    seed = 77 + (uint64_t)atoi(text_of("MOEHAL_TEST_SEED", "1"));
    for (uint32_t round = 0; round < (rounds + 2) / 3; round++)
        in_graphs(round);
}

/* ---- schedules ---- */

static uint64_t counted(uint32_t rank, const char *name);

/* What the kernels did, which depends on when each of them went on. */
static uint64_t trace(void)
{
    uint64_t all = 0;
    for (uint32_t r = 0; r < ranks; r++)
        all = all * 1000003 + counted(r, "warp_instructions") + counted(r, "wave_instructions");
    return all;
}

/* Devices take turns as a seed says, races between them are looked for, and nothing begins before
 * the host waits: so the order of all that happens is the seed's. A round in streams, then graphs.
 */
static void schedules(void **state)
{
    (void)state;
    int (*tell)(const char *setting, const char *value);
    void *symbol = of_driver("moehal_virtual_set");
    memcpy(&tell, &symbol, sizeof(tell));
    uint32_t count = (uint32_t)atoi(text_of("MOEHAL_TEST_SCHEDULES", "4"));
    uint32_t first = (uint32_t)atoi(text_of("MOEHAL_TEST_SEED", "1"));
    if (!symbol || tell("checks", "default,global-races")) {
        print_message("not tried: the driver is not virtual, or does not look for races\n");
        return;
    }
    assert_int_equal(tell("start", "awaited"), 0);
    brief = true;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t traces[2], before = trace();
        char order[32];
        snprintf(order, sizeof(order), "%s:%u", i % 2 ? "random" : "adversarial", first + i);
        assert_int_equal(tell("schedule", order), 0);
        assert_int_equal(tell("count", i < 2 ? "on" : "off"), 0);
        for (int again = 0; again < (i < 2 ? 2 : 1); again++) {
            seed = first + i;
            in_streams(i);
            in_graphs(i);
            in_a_row(false);
            traces[again] = trace() - before;
            before = trace();
        }
        if (i < 2) {
            assert_int_not_equal(traces[0], 0);
            assert_int_equal(traces[0], traces[1]);
        }
    }
    brief = false;
    assert_int_equal(tell("count", "on"), 0);
    assert_int_equal(tell("checks", "default"), 0);
    assert_int_equal(tell("schedule", "round-robin"), 0);
    assert_int_equal(tell("start", "submitted"), 0);
}

/* ---- there and back ---- */

struct trip {
    struct tensors x, e, chosen;
    struct work rows; /* y and the tables, native alone */
};

static void record_trip(mh_comm *comm, struct trip *t, mh_graph **graphs)
{
    const int64_t shape[] = {2, 8};
    mh_op_fill op = MH_OP_INIT(fill, FILL);
    for (uint32_t r = 0; r < ranks; r++) {
        mh_comm_op own = MH_INIT(mh_comm_op);
        mh_buffer *beside;
        OK(mh_graph_create(devices[r], &graphs[r]));
        OK(mh_buffer_create(devices[r], 64, 0, &beside));
        op.y = mh_tensor_make(beside, 0, MH_F32, 2, shape);
        mh_encoder *encoder = mh_graph_encoder(graphs[r]);
        mh_comm_rows rows = rows_of(&t->rows, NATIVE, r);
        own.rows = &rows;
        own.owners = t->rows.owners, own.expert_count = EXPERTS;
        for (own.kind = MH_COMM_DISPATCH; own.kind <= MH_COMM_RETURN; own.kind++)
            for (own.phases = MH_COMM_SEND; own.phases <= MH_COMM_RECEIVE; own.phases++) {
                own.x = t->x.of[r], own.y = t->e.of[r], own.experts = t->chosen.of[r];
                OK(mh_comm_encode(comm, r, encoder, &own));
                OK(mh_encode(encoder, &op.base));
            }
        OK(mh_graph_seal(graphs[r]));
        mh_buffer_release(beside);
    }
}

/* Tokens that come back as they went are in every slot that has an owner, and in no other. */
static void what_goes_comes_back(void **state)
{
    (void)state;
    enum { LAUNCHES = 4, TOKENS = 23, SLOTS = 4, COLUMNS = 300 };
    const int64_t x[] = {TOKENS, COLUMNS}, e[] = {TOKENS, SLOTS, COLUMNS}, ids[] = {TOKENS, SLOTS},
                  y[] = {(int64_t)ranks * TOKENS * SLOTS, COLUMNS};
    struct trip t = {0};
    mh_graph *graphs[MOST];
    mh_comm_params params = any_params();
    seed = 5 + (uint64_t)atoi(text_of("MOEHAL_TEST_SEED", "1"));
    make(&t.x, MH_F32, 2, x);
    make(&t.e, MH_F32, 3, e);
    make(&t.chosen, MH_I32, 2, ids);
    make(&t.rows.y[NATIVE], MH_F32, 2, y);
    make_rows(&t.rows, y[0]);
    for (uint32_t i = 0; i < EXPERTS; i++)
        t.rows.owners[i] = i % ranks;
    mh_comm *comm = meet_native(&params);
    record_trip(comm, &t, graphs);
    for (int k = 0; k < LAUNCHES; k++) {
        uint32_t values[MOST][TOKENS][COLUMNS];
        int32_t chosen[MOST][TOKENS][SLOTS];
        static uint32_t got[TOKENS][SLOTS][COLUMNS], before[MOST][TOKENS][SLOTS][COLUMNS];
        for (uint32_t r = 0; r < ranks; r++) {
            fill((unsigned char *)values[r], sizeof(values[r]), MH_I32);
            for (int i = 0; i < TOKENS * SLOTS; i++)
                chosen[r][i / SLOTS][i % SLOTS] = (int32_t)draw(EXPERTS + 2) - 1;
            OK(mh_buffer_write(t.x.of[r].buffer, t.x.of[r].offset, values[r], sizeof(values[r])));
            set(&t.chosen.of[r], chosen[r][0], TOKENS * SLOTS);
            OK(mh_buffer_read(t.e.of[r].buffer, t.e.of[r].offset, before[r], sizeof(before[r])));
        }
        for (uint32_t r = 0; r < ranks; r++)
            OK(mh_graph_launch(graphs[r], streams[r]));
        OK(mh_comm_wait(comm, MH_FOREVER));
        for (uint32_t r = 0; r < ranks; r++) {
            OK(mh_buffer_read(t.e.of[r].buffer, t.e.of[r].offset, got, sizeof(got)));
            for (int i = 0; i < TOKENS * SLOTS; i++) {
                int token = i / SLOTS, slot = i % SLOTS, expert = chosen[r][token][slot];
                const uint32_t *want =
                    expert >= 0 && expert < EXPERTS ? values[r][token] : before[r][token][slot];
                if (memcmp(got[token][slot], want, sizeof(got[0][0])))
                    fail_msg("launch %d, rank %u of %u: token %d, slot %d, expert %d", k, r, ranks,
                             token, slot, expert);
            }
        }
    }
    assert_int_equal(reports(), 0);
    mh_graph_info info = MH_INIT(mh_graph_info);
    OK(mh_graph_get_info(graphs[0], &info));
    assert_int_equal(info.native_segments, 1);
    for (uint32_t r = 0; r < ranks; r++)
        mh_graph_release(graphs[r]);
    part(comm);
    t.rows.x[NATIVE] = t.x, t.rows.experts = t.chosen;
    finish(&t.rows);
    drop(&t.e);
}

/* ---- what it takes, of DeepSeek-V3's shapes ---- */

static uint64_t counted(uint32_t rank, const char *name)
{
    mh_device_counter counter = MH_INIT(mh_device_counter);
    for (uint32_t i = 0; !mh_device_read_counter(devices[rank], i, &counter); i++)
        if (!strcmp(counter.name, name))
            return counter.value;
    return 0;
}

/* Bytes that kernels store, all ranks together; atomics, of a word each, count as stores. */
static uint64_t stored(void)
{
    uint64_t sum = 0;
    for (uint32_t r = 0; r < ranks; r++)
        sum += counted(r, "store_bytes") - 4 * counted(r, "atomics");
    return sum;
}

/* Every byte of a slot goes to all other ranks, and there is put into its place; the rest is
 * signals. */
static void links_carry_what_they_must(void **state)
{
    (void)state;
    enum { K = 8, HIDDEN = 7168, OF = 256 };
    if (!stored()) {
        print_message("not tried: the device does not count what is stored\n");
        return;
    }
    for (int64_t tokens = 1; tokens <= 4; tokens *= 4) {
        const int64_t slots[] = {tokens, K, HIDDEN};
        struct tensors e, experts;
        mh_comm_params params = MH_INIT(mh_comm_params);
        uint32_t owners[OF];
        int32_t ids[4 * K];
        for (uint32_t i = 0; i < OF; i++)
            owners[i] = i * ranks / OF;
        for (int64_t i = 0; i < tokens * K; i++)
            ids[i] = (int32_t)draw(OF);
        make(&e, MH_F32, 3, slots);
        make(&experts, MH_I32, 2, slots);
        for (uint32_t r = 0; r < ranks; r++)
            OK(mh_buffer_write(experts.of[r].buffer, experts.of[r].offset, ids,
                               4 * K * (uint64_t)tokens));
        mh_comm *comm = meet_native(&params);
        mh_comm_info before = MH_INIT(mh_comm_info), after = MH_INIT(mh_comm_info);
        OK(mh_comm_get_info(comm, &before));
        uint64_t start = stored();
        OK(mh_comm_combine(comm, e.of, experts.of, owners, OF));
        OK(mh_comm_wait(comm, MH_FOREVER));
        uint64_t least = 4 * K * HIDDEN * (uint64_t)tokens * (ranks - 1);
        uint64_t over = stored() - start - least; /* what is put into place is local */
        OK(mh_comm_get_info(comm, &after));
        uint64_t signals = (over - least - 8 * ranks) / 4; /* each rank ends with two words */
        print_message(
            "combine of %lld tokens, %u ranks: %.4f of the least over links, %.1f signals "
            "and %.2f launches a token\n",
            (long long)tokens, ranks, (double)(over - 8 * ranks) / (double)least,
            (double)signals / (double)tokens,
            (double)(after.launches - before.launches) / (double)tokens);
        assert_true((double)over <= 1.05 * (double)least);
        assert_int_equal(after.launches - before.launches, ranks);
        part(comm);
        drop(&e);
        drop(&experts);
    }
}

/* What tokens of all ranks ask for, and what of it is on another rank: rows, and slots. */
struct asked {
    uint64_t slots[MOST], far_rows, far_slots; /* slots: of each owner */
};

static struct asked ask(const int32_t *ids, int64_t tokens, int64_t k, const uint32_t *owners)
{
    struct asked a = {0};
    for (uint32_t r = 0; r < ranks; r++)
        for (int64_t token = 0; token < tokens; token++) {
            uint32_t seen = 1u << r;
            for (int64_t j = 0; j < k; j++) {
                const uint32_t owner = owners[*ids++];
                a.slots[owner]++;
                a.far_slots += owner != r;
                a.far_rows += !(seen >> owner & 1);
                seen |= 1u << owner;
            }
        }
    return a;
}

/* Beside rows, which go once to a rank: the choices go to all ranks; a chunk is a count and a flag
 * to each other; and back, a slot is a mark and a block a flag. */
static void tokens_cross_links_once(void **state)
{
    (void)state;
    enum { K = 8, HIDDEN = 7168, OF = 256, ROW = 2 * HIDDEN };
    if (!stored()) {
        print_message("not tried: the device does not count what is stored\n");
        return;
    }
    for (int64_t tokens = 1; tokens <= 4; tokens *= 4) {
        const int64_t x[] = {tokens, HIDDEN}, ids[] = {tokens, K}, e[] = {tokens, K, HIDDEN},
                      y[] = {(int64_t)ranks * tokens * K, HIDDEN};
        const uint64_t all = (uint64_t)tokens * ranks, capacity = (uint64_t)y[0];
        struct work w = {0};
        struct tensors back;
        int32_t chosen[MOST * 4 * K];
        uint32_t owners[OF];
        for (uint32_t i = 0; i < OF; i++)
            owners[i] = i * ranks / OF;
        for (uint64_t i = 0; i < all * K; i++)
            chosen[i] = (int32_t)draw(OF);
        const struct asked a = ask(chosen, tokens, K, owners);
        make(&w.x[NATIVE], MH_BF16, 2, x);
        make(&w.y[NATIVE], MH_BF16, 2, y);
        make(&back, MH_BF16, 3, e);
        make(&w.experts, MH_I32, 2, ids);
        make_rows(&w, y[0]);
        for (uint32_t r = 0; r < ranks; r++)
            set(&w.experts.of[r], chosen + (int64_t)r * tokens * K, tokens * K);
        mh_comm_params params = MH_INIT(mh_comm_params);
        mh_comm *comm = meet_native(&params);
        mh_comm_info info = MH_INIT(mh_comm_info);
        OK(mh_comm_get_info(comm, &info));
        const mh_comm_rows rows = rows_of(&w, NATIVE, 0);
        uint64_t launches = info.launches, at = stored(), local = ranks * (capacity * 16 + 4 + 12);
        OK(mh_comm_dispatch(comm, &rows, w.x[NATIVE].of, w.experts.of, owners, OF));
        OK(mh_comm_wait(comm, MH_FOREVER));
        for (uint32_t r = 0; r < ranks; r++)
            local += a.slots[r] * ROW;
        const uint64_t own_tables = all * (4 * K + 8); /* a chunk a token here */
        const uint64_t sent = stored() - at - local - own_tables, least = a.far_rows * ROW;
        const uint64_t signals = (sent - least - (ranks - 1) * all * 4 * K) / 6; /* of 8 and 4 */
        OK(mh_comm_get_info(comm, &info));
        print_message("dispatch of %lld tokens a rank, %u ranks: %.4f of the least over links, "
                      "%.1f signals a token, %.2f launches a rank\n",
                      (long long)tokens, ranks, (double)sent / (double)least,
                      (double)signals / (double)all, (double)(info.launches - launches) / ranks);
        assert_true((double)sent <= 1.05 * (double)least);
        assert_int_equal(signals, 2 * (ranks - 1) * all);
        assert_int_equal(info.launches - launches, ranks);

        launches = info.launches, at = stored();
        OK(mh_comm_return(comm, back.of, &rows));
        OK(mh_comm_wait(comm, MH_FOREVER));
        const uint64_t returned = stored() - at - all * K * ROW - 8 * ranks;
        const uint64_t fewest = a.far_slots * ROW;
        OK(mh_comm_get_info(comm, &info));
        print_message("return of %lld tokens a rank, %u ranks: %.4f of the least over links, %.1f "
                      "signals a token, %.2f launches a rank\n",
                      (long long)tokens, ranks, (double)returned / (double)fewest,
                      (double)(returned - fewest) / 4 / (double)all,
                      (double)(info.launches - launches) / ranks);
        assert_true((double)returned <= 1.05 * (double)fewest);
        assert_int_equal(info.launches - launches, 2 * ranks);
        part(comm);
        finish(&w);
        drop(&back);
    }
}

/* ---- ranks that do not come ---- */

static struct work alone;

static void send_one(mh_comm *comm, uint32_t rank)
{
    mh_comm_op own = alone.op;
    const mh_comm_rows rows = rows_of(&alone, NATIVE, rank);
    own.y = alone.y[NATIVE].of[rank], own.x = alone.x[NATIVE].of[rank];
    own.experts = alone.experts.of[rank], own.rows = &rows;
    OK(mh_comm_encode(comm, rank, mh_stream_encoder(streams[rank]), &own));
}

static void assert_message_has(const char *text)
{
    if (!strstr(mh_last_message(), text))
        fail_msg("'%s' lacks '%s'", mh_last_message(), text);
}

static const uint32_t lonely[] = {MH_COMM_ALL_GATHER, MH_COMM_DISPATCH, MH_COMM_RETURN};
enum { LONELY = 3 };

static void is_named(uint32_t kind)
{
    mh_comm_params params = MH_INIT(mh_comm_params);
    params.timeout_ns = 2000000000; /* a busy machine must have begun the others */
    prepare(&alone, kind);
    mh_comm *comm = meet_native(&params);
    for (uint32_t r = 0; r + 1 < ranks; r++)
        send_one(comm, r);
    assert_int_equal(mh_comm_wait(comm, MH_FOREVER), MH_TIMEOUT);
    char last[64];
    snprintf(last, sizeof(last), "waited in vain for rank %u", ranks - 1);
    assert_message_has(last);
    assert_int_equal(run(comm, &alone, NATIVE), MH_WRONG_STATE);
    part(comm);
    finish(&alone);
}

static void a_rank_that_does_not_come_is_named(void **state)
{
    (void)state;
    for (int i = 0; i < LONELY; i++)
        is_named(lonely[i]);
}

static void a_stop_ends_the_wait(void **state)
{
    (void)state;
    for (int i = 0; i < LONELY; i++) {
        mh_comm_params params = MH_INIT(mh_comm_params);
        prepare(&alone, lonely[i]);
        mh_comm *comm = meet_native(&params);
        send_one(comm, 0);
        assert_int_equal(mh_comm_wait(comm, 5000000), MH_TIMEOUT);
        mh_comm_stop(comm);
        OK(mh_stream_wait(streams[0], MH_FOREVER));
        part(comm);
        finish(&alone);
    }
}

/* A driver that is given memory back may wait for all kernels, of which one waits for a rank that
 * has not come: so that is done when all have come. */
static void memory_goes_back_between_operations(void **state)
{
    (void)state;
    mh_comm_params params = MH_INIT(mh_comm_params);
    mh_device *last = devices[ranks - 1];
    mh_memory_info before = MH_INIT(mh_memory_info), after = before;
    mh_buffer *buffer;
    prepare(&alone, MH_COMM_ALL_GATHER);
    mh_comm *comm = meet_native(&params);
    OK(mh_buffer_create(last, 1 << 20, 0, &buffer));
    OK(mh_device_memory(last, &before));
    send_one(comm, 0);
    assert_int_equal(mh_comm_wait(comm, 5000000), MH_TIMEOUT);
    mh_buffer_release(buffer);
    for (uint32_t r = 1; r < ranks; r++)
        send_one(comm, r);
    OK(mh_device_memory(last, &after));
    assert_int_equal(after.used, before.used);
    OK(mh_comm_wait(comm, MH_FOREVER));
    OK(mh_device_memory(last, &after));
    assert_int_equal(after.used, before.used - (1 << 20));
    part(comm);
    finish(&alone);
}

/* All slots of a token go at once. */
static void slots_that_have_no_room_are_refused(void **state)
{
    (void)state;
    enum { SLOTS = 20000 };
    const int64_t x[] = {1, 4}, ids[] = {1, SLOTS};
    mh_comm_params params = MH_INIT(mh_comm_params);
    struct work w = {0};
    params.capacity = 65536;
    make(&w.x[NATIVE], MH_F32, 2, x);
    make(&w.y[NATIVE], MH_F32, 2, x);
    make(&w.experts, MH_I32, 2, ids);
    make_rows(&w, 1);
    mh_comm *comm = meet_native(&params);
    const mh_comm_rows rows = rows_of(&w, NATIVE, 0);
    assert_int_equal(mh_comm_dispatch(comm, &rows, w.x[NATIVE].of, w.experts.of, w.owners, EXPERTS),
                     MH_INVALID_ARGUMENT);
    assert_message_has("1 of 1 tokens go at once, each with 20000 slots");
    part(comm);
    finish(&w);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    mh_comm_params params = MH_INIT(mh_comm_params);
    prepare(&alone, MH_COMM_REDUCE_SCATTER);
    mh_comm *comm = meet_native(&params);
    mh_comm_op own = alone.op;
    own.y = alone.y[NATIVE].of[0], own.x = alone.x[NATIVE].of[0];
    mh_encoder *encoder = mh_stream_encoder(streams[0]);
    own.phases = MH_COMM_SEND;
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    assert_message_has("must be both of a sum");
    own.phases = 4;
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    own.phases = MH_COMM_SEND | MH_COMM_RECEIVE;
    assert_int_equal(mh_comm_encode(comm, 1, encoder, &own), MH_INVALID_ARGUMENT);
    assert_message_has("rank is 1");
    own.kind = MH_COMM_DISPATCH;
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    assert_message_has("mh_comm_rows: is NULL");
    struct work rows;
    prepare(&rows, MH_COMM_DISPATCH);
    mh_comm_rows here = rows_of(&rows, NATIVE, 0);
    own = rows.op;
    own.rows = &here, own.x = rows.x[NATIVE].of[0], own.experts = rows.experts.of[0];
    here.source = &rows.source[NATIVE].of[1];
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    assert_message_has("rows->source[0] is on");
    here.source = &rows.source[NATIVE].of[0], here.count = NULL;
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    assert_message_has("rows->count is NULL");
    here.count = &rows.count[NATIVE].of[0], own.owners = NULL;
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    assert_message_has("no owners");
    here.y = &rows.x[NATIVE].of[0], own.kind = MH_COMM_RETURN;
    own.y = rows.x[NATIVE].of[0];
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    finish(&rows);
    own = alone.op;
    own.y = alone.y[NATIVE].of[0], own.x = alone.x[NATIVE].of[0];
    own.kind = MH_COMM_REDUCE_SCATTER;
    own.y.shape[1]++;
    assert_int_equal(mh_comm_encode(comm, 0, encoder, &own), MH_INVALID_ARGUMENT);
    assert_int_equal(mh_comm_set(comm, &params), MH_WRONG_STATE);
    part(comm);
    params.staged = 1;
    comm = meet(&params);
    own = alone.op;
    assert_int_equal(mh_comm_encode(comm, 0, mh_stream_encoder(streams[0]), &own), MH_UNSUPPORTED);
    assert_message_has("as was asked for");
    part(comm);
    finish(&alone);
}

/* ---- ranks that are lost ---- */

/* The device that runs kernel `nth` of two operations of a kind: the others wait for its part. */
static void lose(int (*faults)(const char *list), uint32_t nth)
{
    mh_comm_params params = MH_INIT(mh_comm_params);
    struct timespec from, to;
    char fault[32];
    snprintf(fault, sizeof(fault), "ecc:%u", nth);
    prepare(&alone, lonely[nth % LONELY]);
    mh_comm *comm = meet_native(&params);
    clock_gettime(CLOCK_MONOTONIC, &from);
    assert_int_equal(faults(fault), 0);
    mh_status status = MH_OK;
    for (int i = 0; !status && i < 2; i++)
        status = run(comm, &alone, NATIVE);
    if (!status)
        status = mh_comm_wait(comm, MH_FOREVER);
    print_message("%s: %s\n", fault, mh_last_message());
    assert_int_equal(status, MH_DEVICE_LOST);
    assert_message_has(" is lost: "); /* which one, and why */
    part(comm);                       /* which waits for the others */
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_true(to.tv_sec - from.tv_sec < 10); /* the kernels' own patience is 60 s */
    assert_int_equal(faults(""), 0);
    finish(&alone);
}

static void a_lost_rank_ends_the_wait_of_all(void **state)
{
    (void)state;
    int (*faults)(const char *list);
    void *symbol = of_driver("moehal_virtual_faults");
    memcpy(&faults, &symbol, sizeof(faults));
    if (!symbol) {
        print_message("not tried: the driver is not virtual\n");
        return;
    }
    for (uint32_t nth = 1; nth <= 2 * ranks; nth++) {
        mh_error cause = MH_INIT(mh_error);
        lose(faults, nth);
        for (uint32_t r = 0; r < ranks; r++) {
            mh_status status =
                mh_device_error(devices[r], &cause) ? MH_OK : mh_device_reset(devices[r]);
            if (status == MH_UNSUPPORTED) /* AMD's: nothing of it can be used again */
                return;
            assert_int_equal(status, MH_OK);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(recorded),
        cmocka_unit_test(schedules),
        cmocka_unit_test(what_goes_comes_back),
        cmocka_unit_test(links_carry_what_they_must),
        cmocka_unit_test(tokens_cross_links_once),
        cmocka_unit_test(a_rank_that_does_not_come_is_named),
        cmocka_unit_test(a_stop_ends_the_wait),
        cmocka_unit_test(memory_goes_back_between_operations),
        cmocka_unit_test(slots_that_have_no_room_are_refused),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_lost_rank_ends_the_wait_of_all),
    };
    if (*text_of("MOEHAL_TEST_ONLY", ""))
        cmocka_set_test_filter(getenv("MOEHAL_TEST_ONLY"));
    if (*text_of("MOEHAL_TEST_SKIP", ""))
        cmocka_set_skip_filter(getenv("MOEHAL_TEST_SKIP"));
    return cmocka_run_group_tests(tests, open_all, close_all);
}
