/*
 * probe.h: a backend for tests of the core. It runs nothing until it is waited for, so that a copy
 * whose source has gone or a buffer freed too early shows; and it fails on request.
 */
#ifndef PROBE_H
#define PROBE_H

#include <moehal/backend.h>

struct probe_control {
    uint32_t native;       /* bit per op id: supported (add, copy, fill, linear have kernels) */
    int gate_closed;       /* polls say "not done" and nothing runs; waiting for ever opens it */
    uint64_t lose_at;      /* the Nth encode from now loses the device; 0: never */
    uint64_t fail_wait;    /* the Nth wait from now returns a vendor error; 0: never */
    uint64_t memory_limit; /* bytes; 0: none */
    int no_reset;          /* read when the table is asked for */
    uint64_t live_buffers; /* now */
    uint64_t destroyed_in_flight; /* buffers destroyed while queued work named them */
    uint64_t inits, finis, opens, closes;
    uint64_t encodes, copied_bytes, clock; /* clock: ns, 1000 a piece of work */
    uint32_t groups;                       /* PROBE_...; read when the table is asked for */
    uint32_t context;                      /* of the newest open */
    uint64_t native_context;
    uint64_t live_objects; /* graphs, events, gates, modules, kernels */
    uint64_t graph_launches;
    int no_graphs; /* graph.create says MH_UNSUPPORTED */
    /* answers that cannot be */
    int mark_backwards, null_handles, fickle, refuse_encode, endless_reason;
};

enum {
    PROBE_GRAPH = 1,
    PROBE_EVENT = 2,
    PROBE_GATE = 4,
    PROBE_WRAP = 8,
    PROBE_MODULE = 16,
    PROBE_COUNTERS = 32,
    PROBE_WRAP_EVENT = 64,
    PROBE_ALL = 127
};

/* A vendor's event: how often it was recorded, how often its point was passed. */
struct probe_event {
    _Atomic uint64_t recorded, passed;
};

/* A vendor's queue, as far as a wrapped stream needs one. */
struct probe_queue {
    uint64_t pushed;
};

/* Exported by the module beside its entry. */
typedef struct probe_control *(*probe_control_fn)(void);

#endif
