/*
 * A transport that is another one, but for one process, which is killed where it is told to be.
 *
 * MOEHAL_DYING_INNER: the other one's file; MOEHAL_DYING: "PROCESS open", "PROCESS close", or
 * "PROCESS N", at the Nth gather, of which the others wait for its part.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal/transport.h>

static const mh_transport_table *inner;
static uint32_t self;
static long gathers;

static void die_at(const char *place)
{
    const char *told = getenv("MOEHAL_DYING");
    char here[64];
    snprintf(here, sizeof(here), "%u %s", self, place);
    if (told && !strcmp(told, here))
        raise(SIGKILL);
}

static mh_status open_inner(void **instance, uint32_t *process, uint32_t *processes, char *reason)
{
    mh_status status = inner->open(instance, process, processes, reason);
    self = *process;
    if (!status)
        die_at("open");
    return status;
}

static void close_inner(void *instance)
{
    die_at("close");
    inner->close(instance);
}

static mh_status gather_inner(void *instance, void *all, const uint64_t *parts, char *reason)
{
    char place[32];
    snprintf(place, sizeof(place), "%ld", ++gathers);
    die_at(place);
    return inner->gather(instance, all, parts, reason);
}

static void abort_inner(void *instance, int32_t exit_status)
{
    inner->abort(instance, exit_status);
}

__attribute__((visibility("default"))) const mh_transport_table *mh_transport_entry(void);

const mh_transport_table *mh_transport_entry(void)
{
    static mh_transport_table table;
    const char *path = getenv("MOEHAL_DYING_INNER");
    void *module = path ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;
    void *symbol = module ? dlsym(module, MH_TRANSPORT_ENTRY) : NULL;
    mh_transport_entry_fn entry;
    if (!symbol)
        return NULL;
    memcpy(&entry, &symbol, sizeof(entry));
    inner = entry();
    table = *inner;
    table.name = "dying";
    table.open = open_inner, table.close = close_inner;
    table.gather = gather_inner, table.abort = abort_inner;
    return &table;
}
