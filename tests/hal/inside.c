/* inside.c: a transport whose processes are threads of this one. One group of them at a time. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <moehal/transport.h>

enum { MOST = 8, PATIENCE_S = 60 };

struct member {
    uint32_t self, processes;
    uint32_t fail_at, gathers;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t met = PTHREAD_COND_INITIALIZER;
static uint32_t arrived;
static uint64_t meetings;
static struct {
    char *all;
    const uint64_t *parts;
} brought[MOST];
static _Thread_local struct member next;

/* What the next transport that this thread opens is: a process of how many, whose N-th gather from
 * then on fails (0: none). */
MH_API void inside_be(uint32_t process, uint32_t processes, uint32_t fail_at);
void inside_be(uint32_t process, uint32_t processes, uint32_t fail_at)
{
    next = (struct member){process, processes, fail_at, 0};
}

/* Waits for all; false: somebody has not come. */
static bool meet(uint32_t processes)
{
    struct timespec until;
    int error = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&lock);
    uint64_t before = meetings;
    if (++arrived == processes) {
        arrived = 0;
        meetings++;
        pthread_cond_broadcast(&met);
    }
    while (meetings == before && !error)
        error = pthread_cond_timedwait(&met, &lock, &until);
    bool all_came = meetings != before;
    arrived -= !all_came;
    pthread_mutex_unlock(&lock);
    return all_came;
}

static mh_status join(void **instance, uint32_t *process, uint32_t *processes, char *reason)
{
    struct member *m = malloc(sizeof(*m));
    if (!m || next.processes < 1 || next.processes > MOST) {
        strcpy(reason, "no memory, or too many processes");
        free(m);
        return MH_OUT_OF_MEMORY;
    }
    *m = next;
    *instance = m;
    *process = m->self;
    *processes = m->processes;
    return MH_OK;
}

static mh_status gather(void *instance, void *all, const uint64_t *parts, char *reason)
{
    struct member *m = instance;
    mh_status status = MH_OK;
    uint64_t at = 0;
    if (++m->gathers == m->fail_at) {
        strcpy(reason, "the cable is cut");
        return MH_IO_ERROR;
    }
    brought[m->self].all = all;
    brought[m->self].parts = parts;
    if (!meet(m->processes)) {
        strcpy(reason, "a process has not come");
        return MH_TIMEOUT;
    }
    for (uint32_t p = 0; p < m->processes; p++)
        if (memcmp(brought[p].parts, parts, m->processes * sizeof(*parts))) {
            sprintf(reason, "processes %u and %u gather other parts", m->self, p);
            status = MH_INTERNAL;
        }
    for (uint32_t p = 0; !status && p < m->processes; at += parts[p++])
        if (p != m->self)
            memcpy((char *)all + at, brought[p].all + at, parts[p]);
    if (!meet(m->processes)) {
        strcpy(reason, "a process has gone");
        return MH_TIMEOUT;
    }
    return status;
}

static void end(void *instance, int32_t exit_status)
{
    (void)instance;
    _Exit(exit_status);
}

static const mh_transport_table table = {
    .abi = MH_TRANSPORT_ABI,
    .struct_size = sizeof(table),
    .name = "inside",
    .open = join,
    .close = free,
    .gather = gather,
    .abort = end,
};

MH_API const mh_transport_table *mh_transport_entry(void);
const mh_transport_table *mh_transport_entry(void)
{
    return &table;
}
