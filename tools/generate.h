/* generate.h: the token loop that generate and chat share. */
#ifndef GENERATE_H
#define GENERATE_H

#include <sys/types.h>
#include <sha2.h>

#include "tool.h"

struct sampling_options {
    double temperature, top_p;
    int64_t top_k, seed, max_tokens;
    bool has_temperature, has_top_p, has_top_k, has_max_tokens;
};
#define SAMPLING_OPTIONS(s)                                                                        \
    {                                                                                              \
        "max-tokens",                                                                              \
        OPTION_INTEGER,                                                                            \
        &(s).max_tokens,                                                                           \
        "N",                                                                                       \
        "stop after N tokens; default 256",                                                        \
        1,                                                                                         \
        1 << 30,                                                                                   \
        &(s).has_max_tokens},                                                                      \
        {"temperature",                                                                            \
         OPTION_NUMBER,                                                                            \
         &(s).temperature,                                                                         \
         "T",                                                                                      \
         "0 is greedy; default: the model's generation_config.json",                               \
         0,                                                                                        \
         1e6,                                                                                      \
         &(s).has_temperature},                                                                    \
        {"top-p", OPTION_NUMBER, &(s).top_p, "P", "keep the likeliest tokens up to P", 0,          \
         1,       &(s).has_top_p},                                                                 \
        {"top-k", OPTION_INTEGER, &(s).top_k,    "K", "keep the K likeliest tokens; 0 is off",     \
         0,       INT32_MAX,      &(s).has_top_k},                                                 \
    {                                                                                              \
        "seed", OPTION_INTEGER, &(s).seed, "S", "of the generator; default 0", 0,                  \
            9007199254740991.0                                                                     \
    }

/* The options over the model's own defaults. */
mh_sampling choose_sampling(const struct sampling_options *options, const mh_config *config);

struct generation {
    /* in */
    mh_session *session;
    mh_tokenizer *tokenizer; /* may be NULL */
    const mh_config *config;
    mh_device *const *devices;
    uint64_t device_count;
    mh_timeline *timeline; /* or NULL */
    int64_t max_tokens;
    const char *echo; /* text to show before the first token, or NULL */
    bool stream;      /* text to stdout as it comes (ids without a tokenizer) */
    bool want_hash;   /* logit_hash of the tokens emitted */
    /* out */
    int32_t *ids; /* owned by the generation */
    uint64_t count;
    const char *stop; /* "length", "eos", "interrupted" */
    double prefill_seconds, decode_seconds, first_token_ms;
    uint64_t launches, graph_launches; /* of the decode steps */
    char logit_hash[65];
};

/* Reads the prompt and writes until eos, max_tokens or the end of the context. Appends to the
 * session; the last token written is in `ids` but not in the session. */
mh_status generate(struct generation *g, const int32_t *prompt, uint64_t count);
void generation_free(struct generation *g);

/* "host:0 (AMD EPYC), exact: ..." on stderr. */
void print_summary(const struct generation *g, const struct setup *setup, uint64_t prompt_tokens);

#endif
