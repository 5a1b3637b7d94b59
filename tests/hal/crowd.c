/* crowd.c: a transport to processes that are not there: they say what the test has put down, if
 * they are asked for counts, and nothing else. It says that it takes the memory of null devices. */
#include <string.h>

#include <moehal/transport.h>

enum { PROCESSES = 4, SELF = 2 };

MH_API uint32_t crowd_says[PROCESSES]; /* what is at SELF is not asked for */
uint32_t crowd_says[PROCESSES];
MH_API const void *crowd_saw; /* where the last gather was to leave all parts */
const void *crowd_saw;

static mh_status join(void **instance, uint32_t *process, uint32_t *processes, char *reason)
{
    (void)reason;
    *instance = NULL;
    *process = SELF;
    *processes = PROCESSES;
    return MH_OK;
}

static void leave(void *instance)
{
    (void)instance;
}

static mh_status gather(void *instance, void *all, const uint64_t *parts, char *reason)
{
    (void)instance, (void)reason;
    uint32_t *counts = all;
    crowd_saw = all;
    for (uint32_t p = 0; p < PROCESSES && parts[0] == sizeof(*counts); p++)
        counts[p] = p == SELF ? counts[p] : crowd_says[p];
    return MH_OK;
}

static void end(void *instance, int32_t exit_status)
{
    (void)instance, (void)exit_status;
}

static uint32_t takes(void *instance, const char *backend)
{
    (void)instance;
    return !strcmp(backend, "null");
}

static const mh_transport_table table = {
    .abi = MH_TRANSPORT_ABI,
    .struct_size = sizeof(table),
    .name = "crowd",
    .open = join,
    .close = leave,
    .gather = gather,
    .abort = end,
    .takes = takes,
};

MH_API const mh_transport_table *mh_transport_entry(void);
const mh_transport_table *mh_transport_entry(void)
{
    return &table;
}
