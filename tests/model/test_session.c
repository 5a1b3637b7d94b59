/*
 * Sessions on the bundled model: what is refused, and what rewinding, the cache's dtype, chunks,
 * threads and sampling may and may not change.
 *
 * argv: MODEL_DIR NULL_MODULE
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moehal-model/session.h>

static const char *model_dir, *null_module;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)
#define REFUSED(status, call, part)                                                                \
    do {                                                                                           \
        assert_int_equal((call), (status));                                                        \
        if (!strstr(mh_last_message(), (part)))                                                    \
            fail_msg("message '%s' lacks '%s'", mh_last_message(), (part));                        \
    } while (0)

enum { VOCABULARY = 4096 };
static const int32_t prompt[] = {0, 717, 288, 258, 403, 12, 99, 1000, 31, 7};
enum { COUNT = sizeof(prompt) / sizeof(prompt[0]) };

struct world {
    mh_runtime *runtime;
    mh_device *device;
    mh_checkpoint *checkpoint;
    mh_model *model;
};

static struct world open_world(const char *uri, uint32_t threads, uint32_t placement)
{
    struct world w = {0};
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = &null_module, params.module_count = 1;
    params.flags = MH_RUNTIME_NO_ENVIRONMENT;
    mh_device_params device = MH_INIT(mh_device_params);
    device.threads = threads, device.placement = placement;
    OK(mh_runtime_create(&params, &w.runtime));
    OK(mh_device_open(w.runtime, uri, &device, &w.device));
    OK(mh_checkpoint_open(model_dir, &w.checkpoint));
    OK(mh_model_load(w.checkpoint, &w.device, 1, NULL, &w.model));
    return w;
}

static void close_world(struct world *w)
{
    mh_model_release(w->model);
    mh_checkpoint_release(w->checkpoint);
    mh_device_release(w->device);
    mh_runtime_release(w->runtime);
}

static mh_session *make(struct world *w, mh_dtype kv, int64_t chunk)
{
    mh_session *session;
    mh_session_params p = MH_INIT(mh_session_params);
    p.kv_dtype = kv, p.chunk = chunk, p.context = 100;
    OK(mh_session_create(w->model, &p, &session));
    return session;
}

static void bad_arguments_are_named(void **state)
{
    (void)state;
    struct world w = open_world("host", 1, 0);
    mh_session *session;
    mh_session_params p = MH_INIT(mh_session_params);
    p.context = 2049;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &p, &session), "2048");
    p.context = -1;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &p, &session), "-1");
    p.context = 20, p.kv_dtype = MH_F16;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &p, &session), "f16");
    p.kv_dtype = 0, p.chunk = -3;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &p, &session), "-3");
    p.chunk = 0;
    OK(mh_session_create(w.model, &p, &session));
    int32_t ids[21] = {0}, token;
    float *logits = malloc(VOCABULARY * sizeof(float));
    REFUSED(MH_WRONG_STATE, mh_session_next(session, &token), "nothing has run");
    REFUSED(MH_WRONG_STATE, mh_session_logits(session, logits), "nothing has run");
    REFUSED(MH_INVALID_ARGUMENT, mh_session_run(session, ids, 0, NULL), "no tokens");
    REFUSED(MH_INVALID_ARGUMENT, mh_session_run(session, ids, 21, NULL), "context of 20");
    ids[2] = VOCABULARY;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_run(session, ids, 3, NULL), "ids[2]: 4096");
    ids[2] = -1;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_run(session, ids, 3, NULL), "ids[2]: -1");
    assert_int_equal(mh_session_position(session), 0);
    OK(mh_session_run(session, ids, 2, NULL));
    REFUSED(MH_INVALID_ARGUMENT, mh_session_rewind(session, 3), "0 to 2");
    REFUSED(MH_INVALID_ARGUMENT, mh_session_rewind(session, -1), "0 to 2");
    OK(mh_session_rewind(session, 1));
    REFUSED(MH_WRONG_STATE, mh_session_next(session, &token), "nothing has run");
    mh_sampling sampling = {.temperature = -1};
    REFUSED(MH_INVALID_ARGUMENT, mh_session_set_sampling(session, &sampling), "-1");
    sampling.temperature = NAN;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_set_sampling(session, &sampling), "temperature");
    struct {
        mh_session_params known;
        uint64_t tail;
    } newer = {{.struct_size = sizeof(newer), .context = 20}, 1};
    mh_session *other;
    REFUSED(MH_INVALID_ARGUMENT, mh_session_create(w.model, &newer.known, &other),
            "mh_session_params");
    mh_device *many[65] = {w.device, NULL, w.device};
    mh_model *model;
    REFUSED(MH_INVALID_ARGUMENT, mh_model_load(w.checkpoint, many, 0, NULL, &model), "1 to 64");
    REFUSED(MH_INVALID_ARGUMENT, mh_model_load(w.checkpoint, many, 65, NULL, &model), "1 to 64");
    REFUSED(MH_INVALID_ARGUMENT, mh_model_load(w.checkpoint, many, 3, NULL, &model), "devices[1]");
    for (int i = 0; i < 64; i++)
        many[i] = w.device;
    REFUSED(MH_INVALID_ARGUMENT, mh_model_load(w.checkpoint, many, 64, NULL, &model),
            "64 devices given for the");
    free(logits);
    mh_session_release(session);
    close_world(&w);
}

static void logits_after(mh_session *session, const int32_t *ids, uint64_t count, float *logits)
{
    OK(mh_session_run(session, ids, count, NULL));
    OK(mh_session_logits(session, logits));
}

static void rewinding_leaves_no_trace(void **state)
{
    (void)state;
    struct world w = open_world("host", 2, 0);
    float want[VOCABULARY], got[VOCABULARY];
    mh_session *fresh = make(&w, MH_F32, 64), *used = make(&w, MH_F32, 3);
    logits_after(fresh, prompt, COUNT, want);
    static const int32_t other[] = {0, 717, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5};
    logits_after(used, other, 14, got);
    assert_true(memcmp(got, want, sizeof(want)) != 0);
    OK(mh_session_rewind(used, 2)); /* the first two are the same */
    logits_after(used, prompt + 2, COUNT - 2, got);
    assert_memory_equal(got, want, sizeof(want));
    mh_session_release(fresh);
    mh_session_release(used);
    close_world(&w);
}

static void a_bf16_cache_rounds_and_nothing_else(void **state)
{
    (void)state;
    struct world w = open_world("host", 2, 0);
    float f32[VOCABULARY], bf16[VOCABULARY], got[VOCABULARY];
    double most = 0;
    mh_session *session = make(&w, MH_F32, 64);
    logits_after(session, prompt, COUNT, f32);
    mh_session_release(session);
    for (int64_t chunk = 1; chunk <= 7; chunk += 3) {
        session = make(&w, MH_BF16, chunk);
        logits_after(session, prompt, COUNT, chunk == 1 ? bf16 : got);
        if (chunk > 1)
            assert_memory_equal(got, bf16, sizeof(bf16));
        mh_session_release(session);
    }
    for (int i = 0; i < VOCABULARY; i++)
        most = fmax(most, fabs((double)f32[i] - (double)bf16[i]));
    assert_true(most > 1e-4 && most < 0.5);
    close_world(&w);
}

static void write_tokens(struct world *w, int64_t chunk, uint64_t seed, int32_t tokens[20])
{
    mh_session *session = make(w, MH_F32, chunk);
    mh_sampling sampling = {.temperature = 1.1f, .top_p = 60000, .top_k = 300, .seed = seed};
    OK(mh_session_set_sampling(session, &sampling));
    OK(mh_session_run(session, prompt, COUNT, NULL));
    for (int i = 0; i < 20; i++) {
        OK(mh_session_next(session, &tokens[i]));
        OK(mh_session_run(session, &tokens[i], 1, NULL));
    }
    assert_int_equal(mh_session_position(session), COUNT + 20);
    mh_session_release(session);
}

static void sampling_depends_on_seed_and_position_alone(void **state)
{
    (void)state;
    int32_t want[20], got[20];
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct world w = open_world("host", threads, 0);
        if (threads == 1)
            write_tokens(&w, 64, 7, want);
        for (int64_t chunk = 1; chunk < 10; chunk += 4) {
            write_tokens(&w, chunk, 7, got);
            assert_memory_equal(got, want, sizeof(want));
        }
        write_tokens(&w, 64, 8, got);
        assert_true(memcmp(got, want, sizeof(want)) != 0);
        close_world(&w);
    }
    struct world w = open_world("null", 2, 0);
    write_tokens(&w, 64, 7, got);
    assert_memory_equal(got, want, sizeof(want));
    close_world(&w);
}

static void strict_names_the_op(void **state)
{
    (void)state;
    struct world w = open_world("null", 1, MH_PLACEMENT_STRICT);
    mh_session *session = make(&w, MH_F32, 64);
    REFUSED(MH_UNSUPPORTED, mh_session_run(session, prompt, COUNT, NULL), "embed (embed_tokens)");
    assert_int_equal(mh_session_position(session), 0);
    mh_session_release(session);
    close_world(&w);
    w = open_world("host", 1, MH_PLACEMENT_STRICT);
    session = make(&w, MH_F32, 64);
    OK(mh_session_run(session, prompt, COUNT, NULL));
    mh_session_release(session);
    close_world(&w);
}

static int cancel_at(void *user, uint64_t done, uint64_t total)
{
    (void)total;
    return done >= *(uint64_t *)user;
}

static void cancelling_stops_between_chunks(void **state)
{
    (void)state;
    struct world w = open_world("host", 1, 0);
    uint64_t at = 6;
    mh_session_params p = MH_INIT(mh_session_params);
    p.chunk = 3, p.context = 50, p.progress = cancel_at, p.progress_user = &at;
    mh_session *session;
    OK(mh_session_create(w.model, &p, &session));
    REFUSED(MH_CANCELLED, mh_session_run(session, prompt, COUNT, NULL), "6 of 10");
    assert_int_equal(mh_session_position(session), 6);
    at = 100; /* and on from there */
    float want[VOCABULARY], got[VOCABULARY];
    logits_after(session, prompt + 6, COUNT - 6, got);
    mh_session *fresh = make(&w, MH_F32, 64);
    logits_after(fresh, prompt, COUNT, want);
    assert_memory_equal(got, want, sizeof(want));
    mh_session_release(session);
    mh_session_release(fresh);
    close_world(&w);
}

/* A graph is kept for each number of rows; the memory their ops work in is one. */
static void graphs_share_their_scratch(void **state)
{
    (void)state;
    struct world w = open_world("host", 1, 0);
    mh_session *session = make(&w, MH_F32, 64);
    mh_memory_info first = MH_INIT(mh_memory_info), now = MH_INIT(mh_memory_info);
    float *want = malloc(VOCABULARY * sizeof(*want)), *got = malloc(VOCABULARY * sizeof(*got));
    logits_after(session, prompt, COUNT, want);
    OK(mh_device_memory(w.device, &first));
    for (uint64_t rows = COUNT - 1; rows; rows--) {
        OK(mh_session_rewind(session, 0));
        OK(mh_session_run(session, prompt, rows, NULL));
        OK(mh_device_memory(w.device, &now));
        assert_int_equal(now.used, first.used);
        assert_int_equal(now.buffers, first.buffers);
    }
    logits_after(session, prompt + 1, COUNT - 1, got);
    assert_memory_equal(got, want, VOCABULARY * sizeof(*got));
    mh_session_release(session);
    /* From little to much: what was too small is given back. */
    session = make(&w, MH_F32, 64);
    for (uint64_t rows = 1; rows <= COUNT; rows++) {
        OK(mh_session_rewind(session, 0));
        OK(mh_session_run(session, prompt, rows, NULL));
    }
    OK(mh_session_logits(session, got));
    assert_memory_equal(got, want, VOCABULARY * sizeof(*got));
    OK(mh_device_memory(w.device, &now));
    assert_int_equal(now.buffers, first.buffers);
    assert_true(now.used < first.used + first.used / 4);
    mh_session_release(session);
    free(want);
    free(got);
    close_world(&w);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    model_dir = argv[1];
    null_module = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_arguments_are_named),
        cmocka_unit_test(rewinding_leaves_no_trace),
        cmocka_unit_test(a_bf16_cache_rounds_and_nothing_else),
        cmocka_unit_test(sampling_depends_on_seed_and_position_alone),
        cmocka_unit_test(strict_names_the_op),
        cmocka_unit_test(cancelling_stops_between_chunks),
        cmocka_unit_test(graphs_share_their_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
