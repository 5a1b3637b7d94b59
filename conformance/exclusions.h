/*
 * exclusions.h: cases a backend is known not to pass. A file of lines `GLOB REASON`, # for
 * comments; it lies beside the backend's module, with .exclusions in place of .so. A case that
 * matches counts as excluded when it does not pass, and fails when it does: what has started to
 * pass leaves the file.
 */
#ifndef CONFORMANCE_EXCLUSIONS_H
#define CONFORMANCE_EXCLUSIONS_H

#include "conformance.h"

struct conf_exclusion {
    char *glob;
    char *reason;
    uint32_t line;
    uint64_t matched; /* cases so far */
};

struct conf_exclusions {
    char *text;
    char path[1024];
    struct conf_exclusion *list;
    uint32_t count;
};

/* No file is an empty list, unless `path` was asked for. */
mh_status conf_exclusions_load(struct conf_exclusions *x, mh_runtime *runtime, const char *uri,
                               const char *path);
void conf_exclusions_free(struct conf_exclusions *x);

/* Turns the outcome of a case into what the exclusions make of it. */
void conf_exclusions_apply(struct conf_exclusions *x, struct conf_result *result);

#endif
