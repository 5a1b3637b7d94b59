/*
 * Whole models against transformers (golden.safetensors, by tolerance) and against an independent
 * implementation of docs/numerics.md (exact.safetensors, bit for bit); with chunks of 1, 7, 64 and
 * all, 1 to 3 threads, by fallback on the null device, and with experts spread over devices.
 *
 * argv: GOLDEN_DIR MODEL_DIR NULL_MODULE full|quick. Quick, for sanitizers, takes the two shortest
 * prompts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal-model/session.h>

static const char *golden_dir, *model_dir, *null_module;
static bool quick;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

enum { MOST_DEVICES = 4 };

struct world {
    mh_runtime *runtime;
    mh_device *devices[MOST_DEVICES];
    uint32_t device_count;
    mh_checkpoint *checkpoint, *golden, *exact;
    const mh_config *config;
    mh_model *model;
};

static mh_checkpoint *open_file(const char *name)
{
    char path[4096];
    mh_checkpoint *file;
    snprintf(path, sizeof(path), "%s/%s", golden_dir, name);
    OK(mh_checkpoint_open_file(path, &file));
    return file;
}

/* `uris` with commas between. */
static struct world open_world(const char *uris, uint32_t threads)
{
    struct world w = {0};
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = &null_module;
    params.module_count = 1;
    params.flags = MH_RUNTIME_NO_ENVIRONMENT;
    mh_device_params device = MH_INIT(mh_device_params);
    device.threads = threads;
    OK(mh_runtime_create(&params, &w.runtime));
    char uri[64], *rest = uri;
    snprintf(uri, sizeof(uri), "%s", uris);
    for (char *one; (one = strtok_r(rest, ",", &rest)); w.device_count++)
        OK(mh_device_open(w.runtime, one, &device, &w.devices[w.device_count]));
    OK(mh_checkpoint_open(model_dir, &w.checkpoint));
    OK(mh_model_load(w.checkpoint, w.devices, w.device_count, NULL, &w.model));
    w.config = mh_model_config(w.model);
    w.golden = open_file("golden.safetensors");
    w.exact = open_file("exact.safetensors");
    return w;
}

static void close_world(struct world *w)
{
    mh_model_release(w->model);
    mh_checkpoint_release(w->checkpoint);
    mh_checkpoint_release(w->golden);
    mh_checkpoint_release(w->exact);
    for (uint32_t i = 0; i < w->device_count; i++)
        mh_device_release(w->devices[i]);
    mh_runtime_release(w->runtime);
}

/* Tensor "kind.prompt" or "kind.prompt.index"; its data copied to aligned memory. */
static void *get(const mh_checkpoint *file, const char *kind, int prompt, int index,
                 mh_checkpoint_tensor *t)
{
    char name[64];
    snprintf(name, sizeof(name), index < 0 ? "%s.%d" : "%s.%d.%d", kind, prompt, index);
    *t = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_find(file, name, t));
    void *copy = malloc(t->bytes);
    memcpy(copy, t->data, t->bytes);
    return copy;
}

static int prompts(const struct world *w)
{
    int count = 0;
    for (;; count++) {
        char name[32];
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        snprintf(name, sizeof(name), "prompt.%d", count);
        if (mh_checkpoint_find(w->golden, name, &t))
            return count;
    }
}

static int prompts_to_run(const struct world *w, int limit)
{
    int count = prompts(w);
    assert_true(count >= 4);
    return quick ? 2 : count < limit ? count : limit;
}

static mh_session *session_of(const struct world *w, int64_t chunk, int64_t context)
{
    mh_session *session;
    mh_session_params params = MH_INIT(mh_session_params);
    params.chunk = chunk;
    params.context = context;
    OK(mh_session_create(w->model, &params, &session));
    return session;
}

static void assert_bits(const float *got, const float *want, int64_t count, const char *what, int p)
{
    for (int64_t i = 0; i < count; i++)
        if (memcmp(&got[i], &want[i], 4) && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s, prompt %d: element %lld is %a, must be %a", what, p, (long long)i,
                     (double)got[i], (double)want[i]);
}

static void assert_near(const float *got, const float *want, int64_t count, double tolerance,
                        const char *what, int p)
{
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance))
            fail_msg("%s, prompt %d: element %lld is %.9g, transformers has %.9g", what, p,
                     (long long)i, (double)got[i], (double)want[i]);
}

static void check_hidden(const struct world *w, int p, const float *hidden, int64_t count)
{
    int64_t size = w->config->hidden_size;
    for (int l = 0; l <= w->config->num_hidden_layers; l++) {
        mh_checkpoint_tensor t;
        const float *last = hidden + ((int64_t)l * count + count - 1) * size;
        float *want = get(w->golden, "hidden", p, l, &t), *bits = get(w->exact, "hidden", p, l, &t);
        double most = 0;
        for (int64_t i = 0; i < size; i++)
            most = fmax(most, fabs((double)want[i]));
        assert_near(last, want, size, 1e-4 * most, "hidden", p);
        assert_bits(last, bits, size, "hidden", p);
        free(want);
        free(bits);
    }
}

/* Logits and hidden states of one prompt; `chunk` 0 means all at once. */
static void check_prompt(const struct world *w, int p, int64_t chunk)
{
    mh_checkpoint_tensor ids_t, logits_t;
    int32_t *ids = get(w->golden, "prompt", p, -1, &ids_t);
    float *want = get(w->golden, "logits", p, -1, &logits_t);
    float *bits = get(w->exact, "logits", p, -1, &logits_t);
    int64_t count = ids_t.shape[0], rows = logits_t.shape[0], layers = w->config->num_hidden_layers;
    int64_t size = w->config->hidden_size, vocabulary = w->config->vocab_size;
    float *logits = malloc(sizeof(float) * (size_t)(rows * vocabulary));
    float *values = malloc(sizeof(float) * (size_t)((layers + 1) * count * size));
    float **hidden = malloc(sizeof(*hidden) * (size_t)(layers + 1));
    for (int64_t l = 0; l <= layers; l++)
        hidden[l] = values + l * count * size;
    mh_session *session = session_of(w, chunk ? chunk : count, count);
    mh_session_outputs outputs = MH_INIT(mh_session_outputs);
    outputs.logits = logits;
    outputs.logits_begin = (uint64_t)(count - rows);
    outputs.hidden = hidden;
    OK(mh_session_run(session, ids, (uint64_t)count, &outputs));
    assert_int_equal(mh_session_position(session), count);
    assert_near(logits, want, rows * vocabulary, 2e-4, "logits", p);
    assert_bits(logits, bits, rows * vocabulary, "logits", p);
    check_hidden(w, p, values, count);
    /* Without outputs only the last row gets logits: the same ones. */
    OK(mh_session_rewind(session, 0));
    OK(mh_session_run(session, ids, (uint64_t)count, NULL));
    OK(mh_session_logits(session, logits));
    assert_bits(logits, bits + (rows - 1) * vocabulary, vocabulary, "last logits", p);
    mh_session_release(session);
    free(ids);
    free(want);
    free(bits);
    free(logits);
    free(values);
    free(hidden);
}

static bool is_eos(const mh_config *c, int32_t id)
{
    for (uint32_t i = 0; i < c->eos_count; i++)
        if (c->eos_token_ids[i] == id)
            return true;
    return false;
}

/* Up to the first eos, which is included. */
static void check_greedy(const struct world *w, int p)
{
    mh_checkpoint_tensor ids_t, greedy_t;
    int32_t *ids = get(w->golden, "prompt", p, -1, &ids_t), token;
    int32_t *want = get(w->golden, "greedy", p, -1, &greedy_t);
    mh_session *session = session_of(w, 64, ids_t.shape[0] + greedy_t.shape[0]);
    OK(mh_session_run(session, ids, (uint64_t)ids_t.shape[0], NULL));
    for (int64_t i = 0; i < greedy_t.shape[0]; i++) {
        OK(mh_session_next(session, &token));
        if (token != want[i])
            fail_msg("prompt %d: token %lld is %d, transformers has %d", p, (long long)i, token,
                     want[i]);
        if (is_eos(w->config, token))
            break;
        OK(mh_session_run(session, &token, 1, NULL));
    }
    mh_session_release(session);
    free(ids);
    free(want);
}

static void logits_hidden_states_and_continuations(void **state)
{
    (void)state;
    static const int64_t chunks[] = {0, 1, 7, 64};
    struct world w = open_world("host", 0);
    for (int p = 0; p < prompts_to_run(&w, 100); p++) {
        for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++)
            check_prompt(&w, p, chunks[c]);
        check_greedy(&w, p);
    }
    close_world(&w);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct world w = open_world("host", threads);
        for (int p = 0; p < prompts_to_run(&w, 3); p++)
            check_prompt(&w, p, 64);
        close_world(&w);
    }
}

static void null_gives_the_same_bits_by_fallback(void **state)
{
    (void)state;
    struct world w = open_world("null", 2);
    check_prompt(&w, 1, 0);
    check_prompt(&w, 1, 1);
    check_greedy(&w, 1);
    mh_device_counters counters = MH_INIT(mh_device_counters);
    OK(mh_device_get_counters(w.devices[0], &counters));
    assert_int_equal(counters.native, 0);
    assert_true(counters.expanded > 0 && counters.fallback > 0);
    assert_true(mh_device_fallbacks(w.devices[0], MH_OP_LINEAR) > 0);
    assert_int_equal(mh_device_fallbacks(w.devices[0], MH_OP_LINEAR_ADD), 0); /* it expands */
    close_world(&w);
}

/* With memory the host cannot touch, and an odd share of the experts. */
static void experts_on_several_devices(void **state)
{
    (void)state;
    static const char *const lists[] = {"host,host", "null,host,null", "host,null,host,host"};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        struct world w = open_world(lists[i], 2);
        check_prompt(&w, 1, 0);
        check_prompt(&w, 1, 1);
        check_greedy(&w, 1);
        for (uint32_t d = 0; d < w.device_count; d++) { /* each has experts, and its share */
            mh_device_counters counters = MH_INIT(mh_device_counters);
            OK(mh_device_get_counters(w.devices[d], &counters));
            assert_true(counters.native + counters.fallback > 0);
        }
        close_world(&w);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    golden_dir = argv[1];
    model_dir = argv[2];
    null_module = argv[3];
    quick = !strcmp(argv[4], "quick");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_hidden_states_and_continuations),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(null_gives_the_same_bits_by_fallback),
        cmocka_unit_test(experts_on_several_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
