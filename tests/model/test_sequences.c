/*
 * Several sequences in a session: the bits of one do not depend on who runs beside it, on forks, on
 * pages or chunks; pages are shared until written, and none is lost; a step that fails leaves
 * everything as it was. Every expectation is a sequence that ran alone, in a session of its own.
 *
 * argv: MODEL_DIR NULL_MODULE
 */
#include <pthread.h>
#include <stdlib.h>

#include "texts.h"

static const char *model_dir;

enum { PAGE = 64, TEXTS = 5 };
static const uint64_t lengths[TEXTS] = {10, 3, 20, 70, 1};

/* Text 0 stays all the way; the others join at their times, write, leave, and join again. */
static void write_beside_others(const struct world *w, const struct text *texts, int64_t chunk,
                                uint64_t piece)
{
    mh_session *session = make_session(w, TEXTS, chunk, 0);
    struct writer writers[TEXTS] = {0};
    uint32_t turns = 0;
    start(session, &writers[0], &texts[0], 0);
    for (uint32_t turn = 0; turn < 36; turn++) {
        mh_sequence_rows rows[TEXTS];
        uint32_t who[TEXTS], count = 0;
        for (uint32_t i = 0; i < TEXTS; i++) {
            uint32_t sequence = 0;
            if (writers[i].done) {
                OK(mh_sequence_remove(session, writers[i].sequence));
                writers[i] = (struct writer){0};
                turns++;
            }
            if (!writers[i].started && turn % (i + 2) == 0) {
                OK(mh_sequence_add(session, &sequence));
                start(session, &writers[i], &texts[i], sequence);
            }
            if (!writers[i].started || (turn + i) % 4 == 3) /* pauses */
                continue;
            rows[count] = next_rows(&writers[i], piece);
            who[count++] = i;
        }
        if (!count)
            continue;
        OK(mh_session_step(session, rows, count));
        for (uint32_t i = 0; i < count; i++)
            check_step(session, &writers[who[i]], rows[i].count);
    }
    assert_true(turns >= TEXTS);
    mh_session_release(session);
}

static void batches_leave_no_trace(void **state)
{
    (void)state;
    struct text texts[TEXTS];
    texts_isa = "scalar"; /* and from there on others must say the same */
    struct world w = open_world(model_dir, "host", 1);
    for (uint32_t i = 0; i < TEXTS; i++) {
        texts[i] = make_text(i, lengths[i]);
        write_alone(&w, &texts[i]);
    }
    write_beside_others(&w, texts, 7, 1000); /* steps of several launches */
    close_world(&w);
    texts_isa = "avx2";
    w = open_world(model_dir, "host", 2);
    write_beside_others(&w, texts, 64, 5); /* prompts in pieces, beside decode steps */
    close_world(&w);
    texts_isa = "avx512";
    w = open_world(model_dir, "host", 3);
    write_beside_others(&w, texts, 64, 1000);
    close_world(&w);
    texts_isa = NULL;
    w = open_world(model_dir, "null", 2); /* rows padded to a multiple of 8 */
    write_beside_others(&w, texts, 20, 50);
    close_world(&w);
    w = open_world(model_dir, "null,host,host", 2); /* experts spread */
    write_beside_others(&w, texts, 20, 50);
    close_world(&w);
    for (uint32_t i = 0; i < TEXTS; i++)
        free(texts[i].logits);
}

/* ---- forks ---- */

static void forks_share_pages_until_they_write(void **state)
{
    (void)state;
    struct world w = open_world(model_dir, "host", 2);
    struct text a = make_text(2, 150), b;
    write_alone(&w, &a);
    b = make_text(2, 150);
    memcpy(b.prompt + 100, b.prompt + 3, 50 * sizeof(int32_t)); /* the same up to 100 */
    write_alone(&w, &b);
    close_world(&w);
    texts_isa = "avx2";
    w = open_world(model_dir, "host,null", 3); /* two caches to share and copy pages of */
    texts_isa = NULL;
    mh_session *session = make_session(&w, 4, 64, 0);
    mh_sequence_rows r = MH_INIT(mh_sequence_rows);
    r.ids = a.prompt, r.count = 149;
    OK(mh_session_step(session, &r, 1));
    int64_t pages = info_of(session).pages, used = pages - info_of(session).pages_free;
    assert_int_equal(used, 3);
    uint32_t fork, twin;
    OK(mh_sequence_fork(session, 0, 100, &fork));
    OK(mh_sequence_fork(session, 0, 149, &twin));
    assert_int_equal(mh_sequence_position(session, fork), 100);
    assert_int_equal(pages - info_of(session).pages_free, used); /* nothing was copied */
    int32_t token, same;
    OK(mh_sequence_next(session, 0, &token));
    OK(mh_sequence_next(session, twin, &same));
    assert_int_equal(token, same);
    REFUSED(MH_WRONG_STATE, mh_sequence_next(session, fork, &token), "nothing has run");

    go_on(session, &b, fork, 100); /* writes into a page that all three hold */
    go_on(session, &a, twin, 149);
    go_on(session, &a, 0, 149); /* unharmed by both */
    /* Page 0 is shared by three, page 1 by the first and its twin; the others are everybody's own.
     */
    assert_int_equal(pages - info_of(session).pages_free, 1 + 1 + 1 + 3);
    OK(mh_sequence_remove(session, 0));
    OK(mh_sequence_rewind(session, twin, 20));
    go_on(session, &a, twin, 20);
    int32_t ids[20];
    OK(mh_sequence_tokens(session, twin, 0, 20, ids));
    assert_memory_equal(ids, a.prompt, sizeof(ids));
    OK(mh_sequence_remove(session, fork));
    OK(mh_sequence_remove(session, twin));
    assert_int_equal(info_of(session).pages_free, pages);
    assert_int_equal(info_of(session).sequences_used, 0);
    mh_session_release(session);
    close_world(&w);
    free(a.logits);
    free(b.logits);
}

/* ---- what is refused, and what a failure leaves ---- */

static void a_full_cache_loses_nothing(void **state)
{
    (void)state;
    struct world w = open_world(model_dir, "host", 2);
    struct text a = make_text(4, 60), b = make_text(6, 60);
    write_alone(&w, &a);
    write_alone(&w, &b);
    mh_session *session = make_session(&w, 3, 64, 3 * PAGE);
    uint32_t second, third;
    OK(mh_sequence_add(session, &second));
    mh_sequence_rows rows[2] = {MH_INIT(mh_sequence_rows), MH_INIT(mh_sequence_rows)};
    rows[0].ids = a.prompt, rows[0].count = 60;
    rows[1].sequence = second, rows[1].ids = b.prompt, rows[1].count = 60;
    OK(mh_session_step(session, rows, 2));
    int32_t next;
    OK(mh_sequence_next(session, 0, &next));
    /* A copy and two more pages, with one free: both sequences stay where they are. */
    OK(mh_sequence_fork(session, 0, 60, &third));
    rows[0].sequence = third, rows[0].count = 10;
    rows[1].count = 9;
    REFUSED(MH_OUT_OF_MEMORY, mh_session_step(session, rows, 2), "needs 1 pages of 64 tokens");
    assert_int_equal(mh_sequence_position(session, third), 60);
    assert_int_equal(mh_sequence_position(session, second), 60);
    assert_int_equal(info_of(session).pages_free, 1);
    int32_t again;
    OK(mh_sequence_next(session, third, &again));
    assert_int_equal(next, again);
    OK(mh_sequence_remove(session, third));
    rows[0].sequence = 0;
    OK(mh_sequence_rewind(session, second, 30));
    go_on(session, &b, second, 30);
    OK(mh_sequence_remove(session, second));
    OK(mh_sequence_rewind(session, 0, 59));
    go_on(session, &a, 0, 59);
    mh_session_release(session);
    close_world(&w);
    free(a.logits);
    free(b.logits);
}

static void bad_arguments_are_named(void **state)
{
    (void)state;
    struct world w = open_world(model_dir, "host", 1);
    mh_session *session;
    mh_session_params p = MH_INIT(mh_session_params);
    p.context = 100, p.sequences = 100000;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &p, &session), "100000");
    p.sequences = 2, p.cache_tokens = 257;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &p, &session), "1 to 256");
    p.cache_tokens = -1;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &p, &session), "-1");
    p.cache_tokens = 0;
    OK(mh_session_create(w.model, &p, &session));
    uint32_t sequence = 9;
    int32_t ids[101] = {0}, token;
    float logits[VOCABULARY];
    OK(mh_sequence_add(session, &sequence));
    assert_int_equal(sequence, 1);
    REFUSED(MH_OUT_OF_MEMORY, mh_sequence_add(session, &sequence), "all 2");
    REFUSED(MH_OUT_OF_MEMORY, mh_sequence_fork(session, 0, 0, &sequence), "all 2");
    OK(mh_sequence_remove(session, 1));
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_remove(session, 1), "sequence 1 is not in use");
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_remove(session, 2),
            "sequence is 2, the session has 2");
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_fork(session, 0, 1, &sequence), "0 to 0");
    assert_int_equal(mh_sequence_position(session, 1), -1);
    OK(mh_sequence_add(session, &sequence));

    mh_sequence_rows rows[3] = {MH_INIT(mh_sequence_rows), MH_INIT(mh_sequence_rows),
                                MH_INIT(mh_sequence_rows)};
    rows[0].ids = rows[1].ids = rows[2].ids = ids;
    rows[0].count = rows[1].count = 1;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 0), "no rows");
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 3), "at most 2");
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 2), "in rows[0] and in rows[1]");
    rows[1].sequence = 7;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 2), "sequence is 7");
    rows[1].sequence = 1, rows[1].count = 101;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 2), "rows[1]: 101 tokens after 0");
    rows[1].count = 3, ids[2] = VOCABULARY;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 2), "ids[2]: 4096");
    rows[1].count = 0;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 2), "rows[1] has no tokens");
    rows[1].count = 1, rows[1].struct_size = 8;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_step(session, rows, 2), "another struct_size");
    rows[1].struct_size = rows[0].struct_size;
    assert_int_equal(mh_sequence_position(session, 0), 0);
    OK(mh_session_step(session, rows, 2));
    OK(mh_session_step(session, rows + 1, 1));
    REFUSED(MH_WRONG_STATE, mh_sequence_logits(session, 0, logits),
            "no part in the session's last");
    OK(mh_sequence_next(session, 0, &token));
    REFUSED(MH_INVALID_ARGUMENT, mh_sequence_tokens(session, 1, 1, 2, ids), "the sequence has 2");
    mh_session_release(session);
    close_world(&w);
}

/* ---- cancelling ---- */

struct canceller {
    mh_session *session;
    int at, seen;
};

static mh_status cancel_at_op(void *user, const mh_op *op)
{
    struct canceller *c = user;
    (void)op;
    if (c->seen++ == c->at)
        mh_session_cancel(c->session, 1);
    return MH_OK;
}

static void cancelled_steps_never_were(void **state)
{
    (void)state;
    struct world w = open_world(model_dir, "host", 2);
    struct text a = make_text(8, 40), b = make_text(10, 70);
    write_alone(&w, &a);
    write_alone(&w, &b);
    mh_session *session = make_session(&w, 3, 16, 0);
    uint32_t fork;
    mh_sequence_rows rows[2] = {MH_INIT(mh_sequence_rows), MH_INIT(mh_sequence_rows)};
    rows[0].ids = a.prompt, rows[0].count = 30;
    OK(mh_session_step(session, rows, 1));
    OK(mh_sequence_fork(session, 0, 0, &fork));
    rows[0].ids = a.prompt + 30, rows[0].count = 10;
    rows[1].sequence = fork, rows[1].ids = b.prompt, rows[1].count = 70;
    int64_t unused = info_of(session).pages_free;
    int32_t before, after;
    OK(mh_sequence_next(session, 0, &before));
    mh_session_cancel(session, 1);
    mh_session_cancel(session, 0); /* thought better of */
    OK(mh_session_step(session, rows + 1, 1));
    OK(mh_sequence_rewind(session, fork, 0));
    mh_session_cancel(session, 1); /* none runs: the next one ends, once */
    REFUSED(MH_CANCELLED, mh_session_step(session, rows, 2), "cancelled");
    for (int at = 0; at < 220; at += 31) { /* in the first launches and in later ones */
        struct canceller c = {session, at, 0};
        OK(mh_session_observe(session, cancel_at_op, &c));
        REFUSED(MH_CANCELLED, mh_session_step(session, rows, 2), "cancelled");
        assert_int_equal(c.seen, at + 1); /* at the very next op */
        assert_int_equal(mh_sequence_position(session, 0), 30);
        assert_int_equal(mh_sequence_position(session, fork), 0);
        assert_int_equal(info_of(session).pages_free, unused);
        OK(mh_sequence_next(session, 0, &after));
        assert_int_equal(before, after);
    }
    OK(mh_session_observe(session, NULL, NULL));
    go_on(session, &a, 0, 30);
    go_on(session, &b, fork, 0);
    mh_session_release(session);
    close_world(&w);
    free(a.logits);
    free(b.logits);
}

static void *cancel_soon(void *session)
{
    mh_session_cancel(session, 1);
    return NULL;
}

/* For the thread sanitizer, and for what must hold whenever the cancellation arrives. */
static void cancelling_from_another_thread(void **state)
{
    (void)state;
    struct world w = open_world(model_dir, "host", 2);
    struct text a = make_text(12, 100);
    write_alone(&w, &a);
    mh_session *session = make_session(&w, 1, 16, 0);
    for (int i = 0; i < 8; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, session), 0);
        mh_status status = mh_session_run(session, a.prompt, 100, NULL);
        pthread_join(thread, NULL);
        if (!status) { /* it came too late, and is for the next one */
            assert_int_equal(mh_session_position(session), 100);
            OK(mh_session_rewind(session, 0));
            REFUSED(MH_CANCELLED, mh_session_run(session, a.prompt, 100, NULL), "cancelled");
        }
        assert_int_equal(mh_session_position(session) % 16, 0); /* whole chunks */
        assert_true(mh_session_position(session) < 100);
        OK(mh_session_rewind(session, 0));
    }
    go_on(session, &a, 0, 0);
    mh_session_release(session);
    close_world(&w);
    free(a.logits);
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) /* MODEL_DIR NULL_MODULE [TESTS] */
        return 2;
    if (argc == 4)
        cmocka_set_test_filter(argv[3]);
    texts_null_module = argv[2];
    model_dir = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_leave_no_trace),
        cmocka_unit_test(forks_share_pages_until_they_write),
        cmocka_unit_test(a_full_cache_loses_nothing),
        cmocka_unit_test(bad_arguments_are_named),
        cmocka_unit_test(cancelled_steps_never_were),
        cmocka_unit_test(cancelling_from_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
