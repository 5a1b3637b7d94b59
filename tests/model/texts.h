/*
 * texts.h: prompts, what a model writes after them when it runs alone, and the same again inside a
 * session that others use.
 */
#ifndef TEXTS_H
#define TEXTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include <moehal-model/session.h>

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

enum { VOCABULARY = 4096, WRITTEN = 8, TEXTS_DEVICES = 4 }; /* of the bundled model; tokens after a prompt */

struct world {
    mh_runtime *runtime;
    mh_device *devices[TEXTS_DEVICES];
    uint32_t device_count;
    mh_checkpoint *checkpoint;
    mh_model *model;
};

extern const char *texts_null_module; /* for the device null; may be NULL */
/* The form of the host's kernels that open_world asks for; NULL, or one that this processor lacks
 * (said so): the best. */
extern const char *texts_isa;
/* `uris` with commas between. */
struct world open_world(const char *model_dir, const char *uris, uint32_t threads);
void close_world(struct world *w);
/* Sequences of 200 tokens. */
mh_session *make_session(const struct world *w, uint32_t sequences, int64_t chunk, int64_t cache);
mh_session_info info_of(const mh_session *session);

struct text {
    int32_t prompt[160];
    uint64_t count;
    mh_sampling sampling;
    int32_t want[WRITTEN];
    float *logits; /* [WRITTEN, VOCABULARY] */
};

struct text make_text(uint64_t seed, uint64_t count); /* greedy if the seed is even */
void write_alone(const struct world *w, struct text *t);

/* One text on its way through a session. */
struct writer {
    const struct text *text;
    uint32_t sequence;
    uint64_t read; /* of the prompt */
    int written;
    int32_t token;
    bool done, started;
};

void start(mh_session *session, struct writer *w, const struct text *text, uint32_t sequence);
/* What the writer brings to the next step: at most so much of its prompt, or its last token. */
mh_sequence_rows next_rows(struct writer *w, uint64_t most);
/* After a step with `count` rows of the writer: token and logits are those of the text alone. */
void check_step(mh_session *session, struct writer *w, uint64_t count);
/* The rest of a text, of whose prompt the sequence holds `read` tokens. */
void go_on(mh_session *session, const struct text *t, uint32_t sequence, uint64_t read);

#endif
