/*
 * conformance.h: the suite that proves a backend. One device is held against the host, which is the
 * definition: op cases bit for bit, then the layers above (memory, weights, streams, graphs,
 * faults, whole models, several devices). The host itself is held against f64 references, the
 * independent vectors of vectors.c, and each fused op against its primitives.
 *
 * Cases have names, CASE = OP/FORMAT/SIZES/LAYOUT/VALUES/VARIANT (case.h), core cases GROUP/NAME.
 * A name and a seed give the same case everywhere. Op cases run strict: fallback is never a pass.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <stdbool.h>

#include <moehal/moehal.h>

enum conf_outcome {
    CONF_PASSED,
    CONF_FAILED,
    CONF_FALLBACK, /* the device would leave it to the host */
    CONF_MISSING,  /* neither device nor host can */
    CONF_EXCLUDED, /* did not pass, as the exclusions say */
    CONF_OUTCOMES
};

struct conf_result {
    const char *name;
    mh_op_id op;        /* 0: a core case */
    const char *format; /* of the op case: the matrix's column; else the group */
    enum conf_outcome outcome;
    bool native;       /* the device ran the ops, itself or as their expansions */
    bool expanded;     /* as its expansion */
    char message[600]; /* why it did not pass; "" otherwise */
    double seconds;
};

struct conf_options {
    const char *uri;
    const char *filter; /* glob over names; NULL: all */
    uint64_t seed;
    bool quick;
    bool fast;              /* the bounds of the fast profile, instead of exact bits */
    bool all_faults;        /* sweeps inject at every call, not at a seeded sample */
    uint32_t threads;       /* of host devices; 0: one a core */
    const char *exclusions; /* path; NULL: beside the backend's module (exclusions.h) */
    /* Called after each case; `total` is how many there are. Non-zero ends the run. */
    int (*progress)(void *user, const struct conf_result *result, uint64_t done, uint64_t total);
    void *user;
};

struct conf_summary {
    uint64_t cases, outcomes[CONF_OUTCOMES];
    uint64_t native; /* op cases the device ran */
    uint64_t op_cases;
    double seconds;
    bool cancelled;
};

/* Runs the suite. Returns a failure only where it could not be run at all (no such device, bad
 * exclusions, no case matches the filter); what cases say is in *summary and went to progress. */
mh_status conf_run(mh_runtime *runtime, const struct conf_options *options,
                   struct conf_summary *summary);

#endif
