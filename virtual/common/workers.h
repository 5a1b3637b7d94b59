/* workers.h: threads that share a loop. */
#ifndef VIRTUAL_WORKERS_H
#define VIRTUAL_WORKERS_H

#include <stdint.h>

struct vc_workers;

/* `thread` is 0 (the caller) .. threads - 1. */
typedef void (*vc_item)(void *context, uint64_t item, unsigned thread);

/* `threads` counts the caller and is at least 1. Threads start when first needed. NULL: no memory. */
struct vc_workers *vc_workers_create(unsigned threads);
void vc_workers_destroy(struct vc_workers *workers);
unsigned vc_workers_count(const struct vc_workers *workers);

/* Runs items 0 .. items - 1, in order of their start, and returns when all are done. One call at a
 * time for each set of workers; a set per device. */
void vc_workers_run(struct vc_workers *workers, uint64_t items, vc_item fn, void *context);

#endif
