/*
 * Attention split by sequence: a cache dealt out to several devices in segments of 256 keys gives
 * the logits of one device, bit for bit: decoding, rows of a launch on both sides of a border,
 * forks that write into a page they share, two sequences at once, after a cancelled step; and it is
 * saved and restored as if it were whole. The expectation is the host alone, with a cache that is
 * not split.
 *
 * argv: MODEL_DIR DEVICES...   a list with commas each; one of which a device is not there is left
 * out, and said
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moehal-model/session.h>

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

enum { MOST = 4, CONTEXT = 640, PROMPT = 509, FORK = 254, ROWS = 5, RESULTS = 6 };

struct world {
    mh_runtime *runtime;
    mh_device *devices[MOST];
    uint32_t count;
    mh_model *model;
    mh_session *session;
};

static const char *model_dir;
static int64_t vocabulary;
static int32_t ids[CONTEXT];
static float *expected; /* [RESULTS, vocabulary] */
static char begun[64] = "split-begun.XXXXXX", ended[64] = "split-ended.XXXXXX";

/* False: no such device here. */
static bool open_world(struct world *w, const char *list, uint32_t attention)
{
    char copy[160], *rest = copy;
    mh_checkpoint *checkpoint;
    mh_device_params device = MH_INIT(mh_device_params);
    mh_session_params p = MH_INIT(mh_session_params);
    *w = (struct world){0};
    OK(mh_runtime_create(NULL, &w->runtime));
    snprintf(copy, sizeof(copy), "%s", list);
    device.placement = MH_PLACEMENT_STRICT;
    for (char *uri; (uri = strtok_r(rest, ",", &rest)); w->count++) {
        assert_true(w->count < MOST);
        mh_status status = mh_device_open(w->runtime, uri, &device, &w->devices[w->count]);
        if (status == MH_NOT_FOUND || status == MH_UNSUPPORTED) {
            print_message("%s: not tried: %s\n", list, mh_last_message());
            return false;
        }
        OK(status);
    }
    OK(mh_checkpoint_open(model_dir, &checkpoint));
    vocabulary = mh_checkpoint_config(checkpoint)->vocab_size;
    OK(mh_model_load(checkpoint, w->devices, w->count, NULL, &w->model));
    mh_checkpoint_release(checkpoint);
    p.context = CONTEXT, p.sequences = 2, p.attention = attention;
    OK(mh_session_create(w->model, &p, &w->session));
    return true;
}

static void close_world(struct world *w)
{
    mh_session_release(w->session);
    mh_model_release(w->model);
    for (uint32_t i = 0; i < w->count; i++)
        mh_device_release(w->devices[i]);
    mh_runtime_release(w->runtime);
}

static void keep(mh_session *session, uint32_t sequence, float *logits)
{
    OK(mh_sequence_logits(session, sequence, logits));
}

/* From PROMPT positions of sequence 0 on. */
static void go_on(mh_session *session, float *logits, const char *path)
{
    mh_sequence_rows rows[2] = {MH_INIT(mh_sequence_rows), MH_INIT(mh_sequence_rows)};
    int32_t *at = ids + PROMPT;
    OK(mh_session_run(session, at++, 1, NULL));
    keep(session, 0, logits);
    OK(mh_session_run(session, at, ROWS, NULL)); /* 510 to 514 */
    keep(session, 0, logits + vocabulary);
    at += ROWS;
    OK(mh_sequence_fork(session, 0, FORK, &rows[1].sequence));
    rows[0].ids = at, rows[0].count = 1;
    rows[1].ids = at + 1, rows[1].count = ROWS; /* 254 to 258, of which 254 and 255 are shared */
    OK(mh_session_step(session, rows, 2));
    keep(session, 0, logits + 2 * vocabulary);
    keep(session, rows[1].sequence, logits + 3 * vocabulary);
    mh_session_cancel(session, 1);
    assert_int_equal(mh_session_step(session, rows, 2), MH_CANCELLED);
    assert_int_equal(mh_sequence_position(session, rows[1].sequence), FORK + ROWS);
    OK(mh_session_step(session, rows, 2));
    keep(session, 0, logits + 4 * vocabulary);
    keep(session, rows[1].sequence, logits + 5 * vocabulary);
    OK(mh_sequence_save(session, 0, path));
    OK(mh_sequence_remove(session, rows[1].sequence));
}

static void same_files(const char *a, const char *b)
{
    FILE *one = fopen(a, "rb"), *two = fopen(b, "rb");
    assert_true(one && two);
    int x, y;
    long at = 0;
    for (; (x = fgetc(one)) == (y = fgetc(two)) && x != EOF; at++)
        ;
    if (x != y)
        fail_msg("%s and %s differ at byte %ld", a, b, at);
    assert_true(at > 1000);
    fclose(one);
    fclose(two);
}

static void alone(void)
{
    struct world w;
    assert_true(open_world(&w, "host", MH_ATTENTION_REPLICATED));
    for (int i = 0; i < CONTEXT; i++)
        ids[i] = (int32_t)((i * 2654435761u + 17) % (uint32_t)vocabulary);
    expected = malloc(RESULTS * (size_t)vocabulary * sizeof(float));
    assert_non_null(expected);
    OK(mh_session_run(w.session, ids, PROMPT, NULL));
    OK(mh_sequence_save(w.session, 0, begun));
    go_on(w.session, expected, ended);
    close_world(&w);
}

static void compare(const char *devices, const float *logits)
{
    for (int i = 0; i < RESULTS; i++)
        if (memcmp(logits + i * vocabulary, expected + i * vocabulary,
                   (size_t)vocabulary * sizeof(float)))
            fail_msg("%s: result %d has other logits than the host alone", devices, i);
}

static void split(const char *devices)
{
    char path[64] = "split-again.XXXXXX";
    struct world w;
    mh_session_info info = MH_INIT(mh_session_info);
    float *logits = malloc(RESULTS * (size_t)vocabulary * sizeof(float));
    int file = mkstemp(path);
    assert_true(file >= 0 && logits);
    close(file);
    if (open_world(&w, devices, MH_ATTENTION_SPLIT)) {
        /* Two sequences of three segments of four pages: of the one that has most of them. */
        OK(mh_session_get_info(w.session, &info));
        assert_int_equal(info.pages, w.count * 2 * ((3 + w.count - 1) / w.count) * 4);
        OK(mh_sequence_restore(w.session, 0, begun));
        OK(mh_sequence_save(w.session, 0, path));
        same_files(path, begun);
        go_on(w.session, logits, path);
        compare(devices, logits);
        same_files(path, ended);
        if (!strncmp(devices, "host,host", 9)) { /* where so many rows take no time */
            OK(mh_session_rewind(w.session, 0));
            OK(mh_session_get_info(w.session, &info));
            assert_int_equal(info.pages_free, info.pages);
            OK(mh_session_run(w.session, ids, PROMPT, NULL));
            go_on(w.session, logits, path);
            compare(devices, logits);
            same_files(path, ended);
        }
        print_message("%s: as one\n", devices);
    }
    close_world(&w);
    unlink(path);
    free(logits);
}

static int argument_count;
static char **arguments;

static void a_split_cache_is_as_one(void **state)
{
    (void)state;
    alone();
    for (int i = 2; i < argument_count; i++)
        split(arguments[i]);
    free(expected);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_split_cache_is_as_one)};
    if (argc < 3)
        return 2;
    model_dir = argv[1], argument_count = argc, arguments = argv;
    int one = mkstemp(begun), two = mkstemp(ended);
    close(one);
    close(two);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(begun);
    unlink(ended);
    return failed;
}
