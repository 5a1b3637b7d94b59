#include "pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

struct vg_pool {
    pthread_mutex_t turn; /* held by the caller of a run */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    int count, started;
    int wanted, left; /* of the run: workers still to begin, and to end */
    bool quit;
    void (*fn)(void *context, int worker);
    void *context;
    pthread_t thread[];
};

struct vg_pool *vg_pool_create(int threads)
{
    if (threads <= 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        threads = online > 0 ? (int)online : 1;
    }
    struct vg_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->thread[0]);
    if (!pool)
        return NULL;
    pool->count = threads;
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    return pool;
}

/* Takes workers of the run until none is left to begin. Called and returns with the lock held. */
static void take_workers(struct vg_pool *pool)
{
    while (pool->wanted > 0) {
        int worker = --pool->wanted;
        pthread_mutex_unlock(&pool->lock);
        pool->fn(pool->context, worker);
        pthread_mutex_lock(&pool->lock);
        if (!--pool->left)
            pthread_cond_signal(&pool->done);
    }
}

static void *thread_main(void *arg)
{
    struct vg_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    while (!pool->quit) {
        take_workers(pool);
        if (!pool->quit)
            pthread_cond_wait(&pool->work, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

void vg_pool_destroy(struct vg_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->turn);
    free(pool);
}

int vg_pool_threads(const struct vg_pool *pool)
{
    return pool->count;
}

void vg_pool_run(struct vg_pool *pool, int workers, void (*fn)(void *context, int worker),
                 void *context)
{
    pthread_mutex_lock(&pool->turn);
    pthread_mutex_lock(&pool->lock);
    /* Threads start when first needed; one that cannot be had is done without. */
    while (pool->started < workers - 1 && pool->started < pool->count - 1 &&
           !pthread_create(&pool->thread[pool->started], NULL, thread_main, pool))
        pool->started++;
    pool->fn = fn;
    pool->context = context;
    pool->wanted = pool->left = workers;
    if (workers > 1)
        pthread_cond_broadcast(&pool->work);
    take_workers(pool);
    while (pool->left)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->turn);
}
