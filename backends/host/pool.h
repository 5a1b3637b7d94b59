/* pool.h: a device's threads. */
#ifndef HOST_POOL_H
#define HOST_POOL_H

#include <stdint.h>

struct pool;

/* Items [begin, end) by thread `thread` (0 is the caller). */
typedef void (*pool_fn)(void *context, int64_t begin, int64_t end, uint32_t thread);

/* `threads` counts the caller. NULL if threads or memory could not be had. */
struct pool *pool_create(uint32_t threads, void *(*allocate)(void *, uint64_t),
                         void (*deallocate)(void *, void *), void *user);
void pool_destroy(struct pool *pool);
uint32_t pool_threads(const struct pool *pool);

/* Runs all items and returns when they are done. Items go to threads in an order that depends on
 * time: what an item computes must not depend on its thread. Callers take turns. */
void pool_run(struct pool *pool, int64_t items, pool_fn fn, void *context);

/* The caller's own floating-point mode is set to IEEE (nearest even, denormals kept) and restored:
 * embedders set flush-to-zero. */
uint32_t float_mode_enter(void);
void float_mode_leave(uint32_t saved);

#endif
