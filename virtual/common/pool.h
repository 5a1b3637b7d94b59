/* Worker threads that outlive a launch. */
#ifndef VIRTUAL_COMMON_POOL_H
#define VIRTUAL_COMMON_POOL_H

struct vg_pool;

struct vg_pool *vg_pool_create(int threads); /* 0: one per online CPU */
void vg_pool_destroy(struct vg_pool *pool);
int vg_pool_threads(const struct vg_pool *pool);

/* Calls fn(context, worker) once for each worker in [0, workers) and returns when all have
 * returned. Callable from several threads at a time; calls then wait for each other. workers
 * is at most vg_pool_threads(). */
void vg_pool_run(struct vg_pool *pool, int workers, void (*fn)(void *context, int worker),
                 void *context);

#endif
