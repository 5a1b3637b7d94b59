/*
 * soak.c: many tokens through one session, with sequences that join, fork, are rewound, saved,
 * restored, cancelled and removed at random. Memory stays flat: after the warm-up the device's does
 * not grow, the process's by less than a mebibyte, and with the session the device's goes to the
 * byte; no page is lost; and a sequence that has been through it all writes what it writes alone.
 *
 * argv: MODEL_DIR TOKENS
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "texts.h"

enum { SEQUENCES = 8, ROWS = 40 };

struct soak {
    struct world world;
    mh_session *session;
    struct {
        bool in_use;
        int64_t position;
    } now[SEQUENCES]; /* what must be */
    bool cancelled;   /* and nothing has been ended by it yet */
    uint64_t random, tokens, steps, adds, forks, removes, rewinds, restores, cancels, full;
    char path[64];
};

static uint32_t next_random(struct soak *k, uint32_t below)
{
    k->random = k->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(k->random >> 33) % below;
}

static uint64_t device_bytes(const struct soak *k)
{
    mh_memory_info info = MH_INIT(mh_memory_info);
    OK(mh_device_memory(k->world.devices[0], &info));
    return info.used;
}

/* In KiB. */
static long process_memory(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &pages, &resident), 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* One step of whoever wants to; the cache may be full, or somebody cancels. */
static void step(struct soak *k)
{
    static int32_t ids[SEQUENCES][ROWS];
    mh_sequence_rows rows[SEQUENCES];
    uint32_t count = 0;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        int64_t room = 200 - k->now[i].position, n = 1;
        if (!k->now[i].in_use || !room || !next_random(k, 4))
            continue;
        if (!k->now[i].position || !next_random(k, 20))
            n = 1 + next_random(k, ROWS);
        n = n < room ? n : room;
        for (int64_t t = 0; t < n; t++)
            ids[i][t] = (int32_t)next_random(k, VOCABULARY);
        if (k->now[i].position && n == 1 && mh_sequence_next(k->session, i, ids[i]))
            ids[i][0] = 5; /* it was rewound */
        rows[count] = MH_INIT(mh_sequence_rows);
        rows[count].sequence = i, rows[count].ids = ids[i], rows[count].count = (uint64_t)n;
        tokens += rows[count++].count;
    }
    if (!count)
        return;
    if (!next_random(k, 30)) {
        mh_session_cancel(k->session, 1);
        k->cancelled = true;
    }
    mh_status status = mh_session_step(k->session, rows, count);
    if (status == MH_OUT_OF_MEMORY) { /* before anything runs that could be cancelled */
        k->full++;
    } else {
        assert_int_equal(status, k->cancelled ? MH_CANCELLED : MH_OK);
        k->cancels += k->cancelled;
        k->cancelled = false;
    }
    k->steps++;
    for (uint32_t i = 0; !status && i < count; i++)
        k->now[rows[i].sequence].position += (int64_t)rows[i].count;
    if (!status)
        k->tokens += tokens;
}

static void join_or_leave(struct soak *k)
{
    uint32_t i = next_random(k, SEQUENCES), made;
    if (!k->now[i].in_use) {
        OK(mh_sequence_add(k->session, &made));
        k->now[made].in_use = true, k->now[made].position = 0;
        k->adds++;
        return;
    }
    int64_t position = next_random(k, (uint32_t)k->now[i].position + 1);
    switch (next_random(k, 7)) {
    case 0:
        OK(mh_sequence_rewind(k->session, i, position));
        k->now[i].position = position;
        k->rewinds++;
        return;
    case 1:
    case 2:
        if (mh_sequence_fork(k->session, i, position, &made))
            return;
        k->now[made].in_use = true, k->now[made].position = position;
        k->forks++;
        return;
    case 3:
        OK(mh_sequence_save(k->session, i, k->path));
        made = next_random(k, SEQUENCES);
        if (!k->now[made].in_use)
            return;
        mh_status status = mh_sequence_restore(k->session, made, k->path);
        if (status == MH_OUT_OF_MEMORY) /* others hold the pages */
            return;
        OK(status);
        k->now[made].position = k->now[i].position;
        k->restores++;
        return;
    default:
        OK(mh_sequence_remove(k->session, i));
        k->now[i].in_use = false, k->now[i].position = 0;
        k->removes++;
    }
}

static void check(const struct soak *k)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        used += k->now[i].in_use;
        assert_int_equal(mh_sequence_position(k->session, i),
                         k->now[i].in_use ? k->now[i].position : -1);
    }
    mh_session_info info = info_of(k->session);
    assert_int_equal(info.sequences_used, used);
    assert_true(info.pages_free >= 0 && info.pages_free <= info.pages);
}

/* Everybody out: every page is back, and a text is written as if nothing had been. */
static void check_empty(struct soak *k, const struct text *text)
{
    for (uint32_t i = 0; i < SEQUENCES; i++)
        if (k->now[i].in_use) {
            OK(mh_sequence_remove(k->session, i));
            k->now[i].in_use = false, k->now[i].position = 0;
        }
    mh_session_info info = info_of(k->session);
    assert_int_equal(info.pages_free, info.pages);
    uint32_t sequence;
    OK(mh_sequence_add(k->session, &sequence));
    if (k->cancelled)
        assert_int_equal(mh_session_run(k->session, text->prompt, 1, NULL), MH_CANCELLED);
    k->cancelled = false;
    go_on(k->session, text, sequence, 0);
    OK(mh_sequence_remove(k->session, sequence));
}

static void run(struct soak *k, uint64_t tokens)
{
    for (uint64_t goal = k->tokens + tokens; k->tokens < goal;) {
        if (!next_random(k, 2))
            join_or_leave(k);
        step(k);
        check(k);
    }
}

static const char *model_dir;
static uint64_t tokens;

static void memory_stays_flat(void **state)
{
    (void)state;
    struct soak k = {.random = 1, .path = "soak.XXXXXX"};
    uint64_t part = tokens / 4;
    int fd = mkstemp(k.path);
    assert_true(fd >= 0);
    close(fd);
    k.world = open_world(model_dir, "host", 2);
    struct text text = make_text(1, 90);
    write_alone(&k.world, &text);
    uint64_t before = device_bytes(&k), device[4];
    /* Less than eight sequences may want: the cache runs full now and then. */
    k.session = make_session(&k.world, SEQUENCES, 32, 9 * 64);
    k.now[0].in_use = true;
    run(&k, part); /* warm: graphs, scratch and the allocator's own pools have their size */
    check_empty(&k, &text);
    device[0] = device_bytes(&k);
    long memory[4] = {process_memory()};
    for (int i = 1; i < 4; i++) {
        run(&k, part);
        check_empty(&k, &text);
        memory[i] = process_memory();
        device[i] = device_bytes(&k);
    }
    printf("%llu tokens in %llu steps: %llu joined, %llu forked, %llu left, %llu rewound, "
           "%llu restored, %llu cancelled, %llu met a full cache\n",
           (unsigned long long)k.tokens, (unsigned long long)k.steps, (unsigned long long)k.adds,
           (unsigned long long)k.forks, (unsigned long long)k.removes,
           (unsigned long long)k.rewinds, (unsigned long long)k.restores,
           (unsigned long long)k.cancels, (unsigned long long)k.full);
    printf("after each quarter, device: %llu %llu %llu %llu KiB; process: %ld %ld %ld %ld KiB\n",
           (unsigned long long)device[0] / 1024, (unsigned long long)device[1] / 1024,
           (unsigned long long)device[2] / 1024, (unsigned long long)device[3] / 1024, memory[0],
           memory[1], memory[2], memory[3]);
    mh_session_release(k.session);
    uint64_t left = device_bytes(&k) - before;
    free(text.logits);
    close_world(&k.world);
    unlink(k.path);
    if (left)
        fail_msg("the session left %llu bytes on the device", (unsigned long long)left);
    if (device[3] > device[0])
        fail_msg("the device's memory has grown by %llu bytes",
                 (unsigned long long)(device[3] - device[0]));
    if (memory[3] > memory[0] + 1024)
        fail_msg("the process's memory has grown by %ld KiB", memory[3] - memory[0]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_stays_flat)};
    if (argc != 3)
        return 2;
    model_dir = argv[1];
    tokens = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
