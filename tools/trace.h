/* trace.h: a model's graph op by op: every value it writes, for `trace` and `diff`. */
#ifndef TRACE_H
#define TRACE_H

#include "tool.h"

/* One operand that an op wrote, dense. Borrowed for the call. */
struct trace_value {
    const char *name; /* "00012.layer.1.experts_gate_up.experts.y": unique, in order */
    const mh_op *op;
    uint64_t number; /* of the op, from 0 over all steps */
    uint32_t step;   /* 0: the prefill; then one a token */
    const char *operand;
    mh_dtype dtype;
    uint32_t rank;
    int64_t shape[MH_MAX_RANK];
    const void *data;
    uint64_t bytes;
    const int32_t *experts;           /* of [T, k, ...] outputs: [T, k]; else NULL */
    const int32_t *slots, *positions; /* of cache rows [T, ...]; else NULL */
};

typedef mh_status (*trace_visit_fn)(void *user, const struct trace_value *value);

/* What must be equal for two traces to be comparable. */
struct trace_key {
    uint8_t config[32]; /* SHA-256 of config.json */
    int32_t kv;         /* mh_dtype of the cache */
    int32_t *ids;
    uint64_t count;
};

/* Fills *key; ids NULL: some of the model's vocabulary, the same everywhere. Returns -1, or the
 * exit status after telling why. Release with free(key->ids). */
int trace_key_make(const struct command *command, const struct setup *setup, const char *ids,
                   struct trace_key *key);

/* Runs all but the last two ids as one step and those one by one; visits every value. */
mh_status trace_run(struct setup *setup, const struct trace_key *key, trace_visit_fn visit,
                    void *user, uint64_t *ops);

/* A trace in memory. */
struct trace;
struct trace *trace_create(void);
void trace_free(struct trace *trace);
mh_status trace_add(void *trace, const struct trace_value *value); /* a trace_visit_fn */
uint64_t trace_bytes(const struct trace *trace);
/* The value of that name, NULL if there is none; *bytes is its size. */
const void *trace_find(const struct trace *trace, const char *name, uint64_t *bytes);
mh_status trace_save(const struct trace *trace, const struct trace_key *key, const char *path);
/* Reads a trace and checks that it is one of this key. */
mh_status trace_load(const char *path, const struct trace_key *key, struct trace **out);

#endif
