#include "texts.h"

#include <stdio.h>
#include <stdlib.h>

const char *texts_null_module, *texts_isa;

static void open_form(struct world *w, const mh_device_params *device)
{
    setenv("MOEHAL_HOST_ISA", texts_isa, 1);
    mh_device **out = &w->devices[w->device_count];
    mh_status status = mh_device_open(w->runtime, "host", device, out);
    unsetenv("MOEHAL_HOST_ISA");
    if (status == MH_UNSUPPORTED ||
        status == MH_INVALID_ARGUMENT) { /* processor, or build, without */
        print_message("%s: not tried: %s\n", texts_isa, mh_last_message());
        status = mh_device_open(w->runtime, "host", device, out);
    }
    OK(status);
}

struct world open_world(const char *model_dir, const char *uris, uint32_t threads)
{
    struct world w = {0};
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = &texts_null_module, params.module_count = texts_null_module != NULL;
    params.flags = texts_isa ? 0 : MH_RUNTIME_NO_ENVIRONMENT;
    mh_device_params device = MH_INIT(mh_device_params);
    device.threads = threads;
    OK(mh_runtime_create(&params, &w.runtime));
    char uri[64], *rest = uri;
    snprintf(uri, sizeof(uri), "%s", uris);
    for (char *one; (one = strtok_r(rest, ",", &rest)); w.device_count++)
        if (texts_isa && !strcmp(one, "host"))
            open_form(&w, &device);
        else
            OK(mh_device_open(w.runtime, one, &device, &w.devices[w.device_count]));
    OK(mh_checkpoint_open(model_dir, &w.checkpoint));
    OK(mh_model_load(w.checkpoint, w.devices, w.device_count, NULL, &w.model));
    return w;
}

void close_world(struct world *w)
{
    mh_model_release(w->model);
    mh_checkpoint_release(w->checkpoint);
    for (uint32_t i = 0; i < w->device_count; i++)
        mh_device_release(w->devices[i]);
    mh_runtime_release(w->runtime);
}

mh_session *make_session(const struct world *w, uint32_t sequences, int64_t chunk, int64_t cache)
{
    mh_session *session;
    mh_session_params p = MH_INIT(mh_session_params);
    p.sequences = sequences, p.chunk = chunk, p.cache_tokens = cache, p.context = 200;
    OK(mh_session_create(w->model, &p, &session));
    return session;
}

mh_session_info info_of(const mh_session *session)
{
    mh_session_info info = MH_INIT(mh_session_info);
    OK(mh_session_get_info(session, &info));
    return info;
}

struct text make_text(uint64_t seed, uint64_t count)
{
    struct text t = {.count = count};
    for (uint64_t i = 0; i < count; i++)
        t.prompt[i] = (int32_t)((i * 2654435761u + seed * 40503u + 17) % VOCABULARY);
    t.sampling = (mh_sampling){.temperature = seed % 2 ? 0.9f : 0, .top_p = 62000, .seed = seed};
    t.logits = malloc(WRITTEN * VOCABULARY * sizeof(float));
    return t;
}

/* Alone: the expectation. */
void write_alone(const struct world *w, struct text *t)
{
    mh_session *session = make_session(w, 1, 64, 0);
    OK(mh_session_set_sampling(session, &t->sampling));
    OK(mh_session_run(session, t->prompt, t->count, NULL));
    for (int i = 0; i < WRITTEN; i++) {
        OK(mh_session_next(session, &t->want[i]));
        OK(mh_session_logits(session, t->logits + i * VOCABULARY));
        OK(mh_session_run(session, &t->want[i], 1, NULL));
    }
    mh_session_release(session);
}

mh_sequence_rows next_rows(struct writer *w, uint64_t most)
{
    mh_sequence_rows r = MH_INIT(mh_sequence_rows);
    r.sequence = w->sequence;
    r.ids = &w->token, r.count = 1;
    if (w->read < w->text->count) {
        r.ids = w->text->prompt + w->read;
        r.count = w->text->count - w->read < most ? w->text->count - w->read : most;
    }
    return r;
}

/* After a step in which the writer took part with `count` rows. */
void check_step(mh_session *session, struct writer *w, uint64_t count)
{
    float logits[VOCABULARY];
    if (w->read < w->text->count)
        w->read += count;
    if (w->read < w->text->count)
        return;
    OK(mh_sequence_next(session, w->sequence, &w->token));
    OK(mh_sequence_logits(session, w->sequence, logits));
    assert_int_equal(w->token, w->text->want[w->written]);
    assert_memory_equal(logits, w->text->logits + w->written * VOCABULARY, sizeof(logits));
    w->done = ++w->written == WRITTEN;
}

void start(mh_session *session, struct writer *w, const struct text *text, uint32_t sequence)
{
    *w = (struct writer){.text = text, .sequence = sequence, .started = true};
    OK(mh_sequence_set_sampling(session, sequence, &text->sampling));
}

void go_on(mh_session *session, const struct text *t, uint32_t sequence, uint64_t read)
{
    struct writer w;
    start(session, &w, t, sequence);
    w.read = read;
    while (!w.done) {
        mh_sequence_rows r = next_rows(&w, 1000);
        OK(mh_session_step(session, &r, 1));
        check_step(session, &w, r.count);
    }
}
