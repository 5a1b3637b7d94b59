/*
 * worker.c: the runtime's thread, which does what a stream of one device has to wait for on
 * another: it waits for a point, copies if that is the job, and opens the gate that holds the
 * stream. Started by the first job.
 *
 * Jobs are done in the order they came. A job waits only for work that was enqueued before it, so
 * for gates of earlier jobs at most: the order cannot block itself.
 */
#include <signal.h>
#include <string.h>

#include "hal.h"

struct hal_worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a job more, a job less, or the end */
    struct hal_job *first, **tail;
    bool ending;
};

static void close_job(struct hal_job *job)
{
    mh_device *device = job->held->encoder.device;
    mh_runtime *runtime = device->runtime;
    device->table->gate->open(device->handle, job->gate);
    hal_retire(device, job->held->encoder.generation, job->gate, hal_destroy_gate);
    mh_buffer_release(job->to);
    mh_buffer_release(job->from);
    hal_free(runtime, job);
}

/* A held stream goes on whatever happened; its next wait tells. */
static void do_job(struct hal_job *job)
{
    mh_device *device = job->awaited->encoder.device;
    mh_status status = MH_OK;
    if (job->mark)
        status = hal_wait_status(device,
                                 device->table->wait(job->awaited->handle, job->mark, MH_FOREVER));
    if (!status && job->to)
        status = mh_buffer_copy(job->to, job->to_offset, job->from, job->from_offset, job->size);
    if (status)
        atomic_store(&job->held->failed, status);
}

static void *work(void *user)
{
    struct hal_worker *w = user;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct hal_job *job = w->first;
        if (!job && w->ending)
            break;
        if (!job) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        mh_stream *held = job->held, *awaited = job->awaited;
        pthread_mutex_unlock(&w->lock);
        do_job(job);
        pthread_mutex_lock(&w->lock);
        w->first = job->next;
        if (!w->first)
            w->tail = &w->first;
        pthread_mutex_unlock(&w->lock);
        close_job(job);
        pthread_mutex_lock(&w->lock);
        held->jobs--;
        awaited->jobs--;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* The embedder's signals are not for this thread. */
static mh_status start(struct hal_worker *w, mh_runtime *runtime)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? hal_fail(runtime, MH_OUT_OF_MEMORY, "a thread could not be started: %s",
                             strerror(failed))
                  : MH_OK;
}

static mh_status find(mh_runtime *runtime, struct hal_worker **out)
{
    mh_status status = MH_OK;
    pthread_mutex_lock(&runtime->lock);
    struct hal_worker *w = runtime->worker;
    if (!w) {
        w = hal_alloc(runtime, sizeof(*w));
        status = w ? MH_OK : MH_OUT_OF_MEMORY;
    }
    if (!status && !runtime->worker) {
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->changed, NULL);
        w->tail = &w->first;
        status = start(w, runtime);
        if (status)
            hal_free(runtime, w);
        else
            runtime->worker = w;
    }
    pthread_mutex_unlock(&runtime->lock);
    *out = w;
    return status;
}

mh_status hal_worker_submit(mh_runtime *runtime, const struct hal_job *given)
{
    struct hal_worker *w;
    mh_status status = find(runtime, &w);
    struct hal_job *job = status ? NULL : hal_alloc(runtime, sizeof(*job));
    if (!job)
        return status ? status : MH_OUT_OF_MEMORY;
    *job = *given;
    job->next = NULL;
    mh_buffer_retain(job->to);
    mh_buffer_retain(job->from);
    pthread_mutex_lock(&w->lock);
    job->held->jobs++;
    job->awaited->jobs++;
    *w->tail = job;
    w->tail = &job->next;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return MH_OK;
}

void hal_worker_drain(mh_runtime *runtime, const mh_stream *stream)
{
    pthread_mutex_lock(&runtime->lock);
    struct hal_worker *w = runtime->worker;
    pthread_mutex_unlock(&runtime->lock);
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    while (stream ? stream->jobs != 0 : w->first != NULL)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

void hal_worker_stop(mh_runtime *runtime)
{
    struct hal_worker *w = runtime->worker;
    if (!w)
        return;
    if (hal_is_alive(runtime)) { /* in a child of fork() there is no such thread */
        pthread_mutex_lock(&w->lock);
        w->ending = true;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        pthread_mutex_destroy(&w->lock);
        pthread_cond_destroy(&w->changed);
    }
    hal_free(runtime, w);
}
