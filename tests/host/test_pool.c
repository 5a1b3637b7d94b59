/*
 * The host backend's threads: every item runs once, whatever the number of threads, items and
 * callers; a caller waits for nobody who has not begun; a fork's child can let go of a pool.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool.h"

#define MOST 997
#define JOBS 8000

static void *take(void *user, uint64_t size)
{
    (void)user;
    return malloc(size);
}

static void give(void *user, void *memory)
{
    (void)user;
    free(memory);
}

static struct pool *open_pool(uint32_t threads)
{
    struct pool *pool = pool_create(threads, take, give, NULL);
    assert_non_null(pool);
    assert_int_equal(pool_threads(pool), threads);
    return pool;
}

/* Plain ints: a pool that ran an item twice at once, or returned early, also races (TSan). */
struct counts {
    int runs[MOST];
    uint32_t threads;
    bool bad_thread;
};

static void count(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    struct counts *c = context;
    if (thread >= c->threads)
        c->bad_thread = true;
    for (int64_t i = begin; i < end; i++)
        c->runs[i]++;
}

static bool runs_once(struct pool *pool, int64_t items)
{
    struct counts c = {.threads = pool_threads(pool)};
    pool_run(pool, items, count, &c);
    for (int64_t i = 0; i < MOST; i++)
        if (c.runs[i] != (i < items))
            return false;
    return !c.bad_thread;
}

static void every_item_runs_once(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 9; threads += 2) {
        struct pool *pool = open_pool(threads);
        for (int64_t items = 0; items <= MOST; items += items < 40 ? 1 : 87)
            assert_true(runs_once(pool, items));
        pool_destroy(pool);
    }
}

struct caller {
    struct pool *pool;
    int64_t first;
    bool good;
};

static void *call(void *user)
{
    struct caller *c = user;
    c->good = true;
    for (int64_t i = 0; i < 1000; i++)
        c->good = c->good && runs_once(c->pool, (c->first + i * 31) % MOST + 1);
    return NULL;
}

static void callers_take_turns(void **state)
{
    (void)state;
    struct pool *pool = open_pool(3);
    struct caller callers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        callers[i] = (struct caller){pool, i * 100, false};
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_true(callers[i].good);
    }
    pool_destroy(pool);
}

/* Workers sleep between the jobs and have to be woken: no job may be lost, none may hang. */
static void sleeping_workers_wake(void **state)
{
    (void)state;
    struct pool *pool = open_pool(4);
    for (int i = 0; i < 50; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        assert_true(runs_once(pool, MOST));
    }
    pool_destroy(pool);
}

struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t all;
    int here;
};

/* Comes back when two threads are inside. */
static void meet(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    struct meeting *m = context;
    (void)begin, (void)end, (void)thread;
    pthread_mutex_lock(&m->lock);
    if (++m->here >= 2)
        pthread_cond_broadcast(&m->all);
    while (m->here < 2)
        pthread_cond_wait(&m->all, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

/* A pool whose workers never came would wait for ever here (and the test's time limit end it). */
static void workers_do_take_part(void **state)
{
    (void)state;
    struct pool *pool = open_pool(2);
    for (int i = 0; i < 20; i++) {
        struct meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
        pool_run(pool, 2, meet, &m);
        assert_true(m.here >= 2);
    }
    pool_destroy(pool);
}

/* 16 threads on one core: a job that waits for threads the system has not run yet gives up its core
 * each time; one that does not is interrupted now and then. */
static void threads_that_do_not_run_hold_nobody_up(void **state)
{
    (void)state;
    cpu_set_t before, one;
    struct rusage begin, end;
    int core = 0;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    while (!CPU_ISSET(core, &before))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    struct pool *pool = open_pool(16);
    getrusage(RUSAGE_THREAD, &begin);
    for (int i = 0; i < JOBS; i++)
        assert_true(runs_once(pool, 64));
    getrusage(RUSAGE_THREAD, &end);
    pool_destroy(pool);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
    long given_up = end.ru_nvcsw - begin.ru_nvcsw + end.ru_nivcsw - begin.ru_nivcsw;
    print_message("%d jobs, %ld times off the core\n", JOBS, given_up);
    assert_true(given_up < JOBS);
}

static void a_child_lets_go_without_its_threads(void **state)
{
    (void)state;
    int status;
    struct pool *pool = open_pool(3);
    assert_true(runs_once(pool, MOST));
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        alarm(20); /* a join would never return */
        pool_destroy(pool);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(runs_once(pool, MOST));
    pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once),
        cmocka_unit_test(callers_take_turns),
        cmocka_unit_test(sleeping_workers_wake),
        cmocka_unit_test(workers_do_take_part),
        cmocka_unit_test(threads_that_do_not_run_hold_nobody_up),
        cmocka_unit_test(a_child_lets_go_without_its_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
