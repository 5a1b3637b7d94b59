#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* How long a thread spins before it sleeps: about the gap between two ops of a decode step. */
#define SPINS 4000

/* Of pool->state: the job's number, OPEN, and the workers inside. */
#define TICKET(state) ((state) >> 32)
#define OPEN ((uint_fast64_t)1 << 31)
#define INSIDE(state) ((state) & (OPEN - 1))

struct job {
    pool_fn fn;
    void *context;
    int64_t items;
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t index;
};

struct pool {
    uint32_t threads;
    void (*deallocate)(void *, void *);
    void *user;
    pid_t owner;          /* a child of fork() has no workers to join */
    pthread_mutex_t turn; /* one caller at a time */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint32_t sleepers; /* under lock */
    bool ending;
    struct job job;
    /* Which job this is, whether it takes workers still, and how many are in it. A worker that
     * comes too late stays out: on a busy machine nobody waits for one that never got a core. */
    atomic_uint_fast64_t state;
    atomic_int_fast64_t next;
    struct worker workers[];
};

uint32_t float_mode_enter(void)
{
#if defined(__SSE2__)
    uint32_t saved = _mm_getcsr();
    _mm_setcsr(0x1F80);
    return saved;
#else
    return 0;
#endif
}

void float_mode_leave(uint32_t saved)
{
#if defined(__SSE2__)
    _mm_setcsr(saved);
#else
    (void)saved;
#endif
}

static void relax(void)
{
#if defined(__SSE2__)
    _mm_pause();
#endif
}

/* Helpings shrink with what is left: few trips to the counter, and no thread waits long for the
 * last one. */
static void take_items(struct pool *pool, uint32_t thread)
{
    const struct job *job = &pool->job;
    int_fast64_t begin = atomic_load_explicit(&pool->next, memory_order_relaxed);
    while (begin < job->items) {
        int64_t share = (job->items - begin) / (2 * (int64_t)pool->threads);
        int64_t end = begin + (share > 1 ? share : 1);
        if (!atomic_compare_exchange_weak_explicit(&pool->next, &begin, end, memory_order_relaxed,
                                                   memory_order_relaxed))
            continue;
        job->fn(job->context, begin, end, thread);
        begin = atomic_load_explicit(&pool->next, memory_order_relaxed);
    }
}

/* Enters the current job if it is open and not the one this worker has done already. */
static bool enter_job(struct pool *pool, uint64_t *seen)
{
    uint_fast64_t state = atomic_load_explicit(&pool->state, memory_order_relaxed);
    while (state & OPEN && TICKET(state) != *seen)
        if (atomic_compare_exchange_weak_explicit(&pool->state, &state, state + 1,
                                                  memory_order_acquire, memory_order_relaxed)) {
            *seen = TICKET(state);
            return true;
        }
    return false;
}

/* False when the pool ends. */
static bool await_job(struct pool *pool, uint64_t *seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (enter_job(pool, seen))
            return true;
        relax();
    }
    bool entered = false;
    pthread_mutex_lock(&pool->lock);
    pool->sleepers++;
    while (!pool->ending && !(entered = enter_job(pool, seen)))
        pthread_cond_wait(&pool->wake, &pool->lock);
    pool->sleepers--;
    pthread_mutex_unlock(&pool->lock);
    return entered;
}

static void *work(void *user)
{
    struct worker *worker = user;
    struct pool *pool = worker->pool;
    uint64_t seen = 0;
    float_mode_enter();
    while (await_job(pool, &seen)) {
        take_items(pool, worker->index);
        atomic_fetch_sub_explicit(&pool->state, 1, memory_order_release);
    }
    return NULL;
}

struct pool *pool_create(uint32_t threads, void *(*allocate)(void *, uint64_t),
                         void (*deallocate)(void *, void *), void *user)
{
    struct pool *pool = allocate(user, sizeof(*pool) + threads * sizeof(pool->workers[0]));
    if (!pool)
        return NULL;
    memset(pool, 0, sizeof(*pool));
    pool->threads = 1;
    pool->deallocate = deallocate;
    pool->user = user;
    pool->owner = getpid();
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (uint32_t i = 1; i < threads; i++) {
        struct worker *worker = &pool->workers[i];
        worker->pool = pool;
        worker->index = i;
        if (pthread_create(&worker->thread, NULL, work, worker)) {
            pool_destroy(pool);
            return NULL;
        }
        pool->threads++;
    }
    return pool;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    if (pool->owner == getpid()) {
        pthread_mutex_lock(&pool->lock);
        pool->ending = true;
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
        for (uint32_t i = 1; i < pool->threads; i++)
            pthread_join(pool->workers[i].thread, NULL);
        pthread_mutex_destroy(&pool->turn);
        pthread_mutex_destroy(&pool->lock);
        pthread_cond_destroy(&pool->wake);
    }
    pool->deallocate(pool->user, pool);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->threads;
}

void pool_run(struct pool *pool, int64_t items, pool_fn fn, void *context)
{
    if (pool->threads == 1 || items < 2) {
        if (items)
            fn(context, 0, items, 0);
        return;
    }
    pthread_mutex_lock(&pool->turn);
    pool->job = (struct job){fn, context, items};
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    uint_fast64_t ticket = TICKET(atomic_load_explicit(&pool->state, memory_order_relaxed)) + 1;
    atomic_store_explicit(&pool->state, (ticket & UINT32_MAX) << 32 | OPEN, memory_order_release);
    pthread_mutex_lock(&pool->lock);
    if (pool->sleepers)
        pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    take_items(pool, 0);
    atomic_fetch_and_explicit(&pool->state, ~OPEN, memory_order_relaxed);
    for (int spins = 0; INSIDE(atomic_load_explicit(&pool->state, memory_order_acquire)); spins++) {
        relax();
        if (spins > SPINS)
            usleep(20);
    }
    pthread_mutex_unlock(&pool->turn);
}
