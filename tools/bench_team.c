/* bench_team.c: threads for measuring limits. They sleep between samples, so that what is measured
 * in between has the cores for itself, and meet at a spinning barrier before the clock starts. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "bench.h"

struct bench_team {
    uint32_t threads; /* the caller is one of them */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint64_t job; /* under lock; counts the runs */
    bool ending;
    bench_work_fn work;
    void *context;
    atomic_uint ready, done;
    struct bench_member {
        struct bench_team *team;
        pthread_t thread;
        uint32_t index;
        double begin;
    } members[];
};

static void spin(uint32_t turns)
{
    for (uint32_t i = 0; i < turns; i++)
        __asm__ volatile("" ::: "memory");
}

static void meet(atomic_uint *counter, uint32_t threads)
{
    atomic_fetch_add(counter, 1);
    while (atomic_load(counter) < threads)
        spin(20);
}

static void *member(void *user)
{
    struct bench_member *me = user;
    struct bench_team *team = me->team;
    for (uint64_t next = 1;; next++) {
        pthread_mutex_lock(&team->lock);
        while (team->job < next && !team->ending)
            pthread_cond_wait(&team->wake, &team->lock);
        bool ending = team->ending;
        pthread_mutex_unlock(&team->lock);
        if (ending)
            return NULL;
        meet(&team->ready, team->threads);
        me->begin = now_seconds();
        team->work(team->context, me->index);
        atomic_fetch_add(&team->done, 1);
    }
}

struct bench_team *bench_team_create(uint32_t threads)
{
    struct bench_team *team =
        calloc(1, sizeof(*team) + (threads - 1) * sizeof(struct bench_member));
    if (!team)
        return NULL;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    for (team->threads = 1; team->threads < threads; team->threads++) {
        struct bench_member *m = &team->members[team->threads - 1];
        m->team = team;
        m->index = team->threads;
        if (pthread_create(&m->thread, NULL, member, m)) {
            bench_team_free(team);
            return NULL;
        }
    }
    return team;
}

void bench_team_free(struct bench_team *team)
{
    if (!team)
        return;
    pthread_mutex_lock(&team->lock);
    team->ending = true;
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
    for (uint32_t i = 1; i < team->threads; i++)
        pthread_join(team->members[i - 1].thread, NULL);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->lock);
    free(team);
}

double bench_team_run(struct bench_team *team, bench_work_fn work, void *context)
{
    pthread_mutex_lock(&team->lock);
    team->work = work;
    team->context = context;
    atomic_store(&team->ready, 0);
    atomic_store(&team->done, 0);
    team->job++;
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
    meet(&team->ready, team->threads);
    double begin = now_seconds();
    work(context, 0);
    meet(&team->done, team->threads);
    double end = now_seconds();
    /* On a busy machine one thread may have done much before another was let in. */
    for (uint32_t i = 1; i < team->threads; i++)
        if (team->members[i - 1].begin < begin)
            begin = team->members[i - 1].begin;
    return end - begin;
}
