/* transport.c: opening the module that joins processes, and calling it. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal/transport.h>

#include "comm_impl.h"

#define REASON 256
#define MOST_RANKS 65536u

struct mh_transport {
    atomic_uint refs;
    mh_runtime *runtime;
    const mh_transport_table *table;
    void *instance;
    uint32_t process, processes;
};

/* ---- finding ---- */

/* The first of `folders` with a module of this name. */
static bool find_in(const char *folders, const char *name, char path[PATH_MAX])
{
    while (folders && *folders) {
        size_t length = strcspn(folders, ":");
        int written = snprintf(path, PATH_MAX, "%.*s/moehal_%s.so", (int)length, folders, name);
        if (*folders == '/' && written < PATH_MAX) {
            FILE *file = fopen(path, "rb");
            if (file) {
                fclose(file);
                return true;
            }
        }
        folders += length + (folders[length] == ':');
    }
    return false;
}

static mh_status find(mh_runtime *runtime, const char *name, char path[PATH_MAX])
{
    char beside[PATH_MAX] = "";
    const char *folders = hal_environment(runtime, "MOEHAL_TRANSPORTS");
    if (*name == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return MH_OK;
    }
    if (strchr(name, '/') || !*name)
        return hal_fail(runtime, MH_INVALID_ARGUMENT,
                        "mh_transport_open: '%.256s': neither an absolute path nor a name", name);
    hal_folder_beside(beside, "transports");
    if (find_in(folders, name, path) || find_in(beside, name, path))
        return MH_OK;
    return hal_fail(
        runtime, MH_NOT_FOUND,
        "transport %.64s: no moehal_%.64s.so in MOEHAL_TRANSPORTS (%.256s) nor in %.256s", name,
        name, folders ? folders : "not set", beside);
}

static mh_status load(mh_runtime *runtime, const char *path, const mh_transport_table **out)
{
    mh_transport_entry_fn entry;
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!module)
        return hal_fail(runtime, MH_IO_ERROR, "%s", dlerror());
    *(void **)&entry = dlsym(module, MH_TRANSPORT_ENTRY);
    const mh_transport_table *t = entry ? entry() : NULL;
    if (!t)
        return hal_fail(runtime, MH_BAD_DATA, "%.256s: exports no %s", path, MH_TRANSPORT_ENTRY);
    if (t->abi != MH_TRANSPORT_ABI)
        return hal_fail(runtime, MH_ABI_MISMATCH,
                        "%.256s: was built for MH_TRANSPORT_ABI %u, this library has %u", path,
                        t->abi, MH_TRANSPORT_ABI);
    if (t->struct_size < offsetof(mh_transport_table, takes) || !t->name || !t->open || !t->close || !t->gather || !t->abort)
        return hal_fail(runtime, MH_BAD_DATA, "%.256s: its table lacks a function", path);
    *out = t;
    return MH_OK;
}

/* ---- life ---- */

mh_status mh_transport_open(mh_runtime *runtime, const char *name, mh_transport **out)
{
    char path[PATH_MAX], reason[REASON] = "";
    if (!runtime || !name || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_transport_open: %s is NULL",
                       !runtime ? "runtime"
                       : !name  ? "name"
                                : "out");
    *out = NULL;
    const mh_transport_table *table = NULL;
    mh_status status = find(runtime, name, path);
    if (!status)
        status = load(runtime, path, &table);
    if (status)
        return status;
    mh_transport *transport = hal_alloc(runtime, sizeof(*transport));
    if (!transport)
        return MH_OUT_OF_MEMORY;
    status = table->open(&transport->instance, &transport->process, &transport->processes, reason);
    if (!status && transport->process >= transport->processes) {
        table->close(transport->instance);
        status = MH_BAD_DATA;
        snprintf(reason, sizeof(reason), "says that it is process %u of %u", transport->process,
                 transport->processes);
    }
    if (status) {
        hal_free(runtime, transport);
        return hal_fail(runtime, status, "transport %.64s: %.255s", table->name, reason);
    }
    atomic_init(&transport->refs, 1);
    transport->runtime = mh_runtime_retain(runtime);
    transport->table = table;
    *out = transport;
    return MH_OK;
}

mh_transport *mh_transport_retain(mh_transport *transport)
{
    if (transport)
        atomic_fetch_add_explicit(&transport->refs, 1, memory_order_relaxed);
    return transport;
}

void mh_transport_release(mh_transport *transport)
{
    if (!transport || atomic_fetch_sub_explicit(&transport->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_runtime *runtime = transport->runtime;
    transport->table->close(transport->instance);
    hal_free(runtime, transport);
    mh_runtime_release(runtime);
}

/* ---- use ---- */

uint32_t mh_transport_process(const mh_transport *transport)
{
    return transport ? transport->process : 0;
}

uint32_t mh_transport_processes(const mh_transport *transport)
{
    return transport ? transport->processes : 1;
}

mh_status mh_transport_gather(mh_transport *transport, void *all, const uint64_t *parts)
{
    char reason[REASON] = "";
    if (!transport || !parts)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_transport_gather: %s is NULL",
                       transport ? "parts" : "transport");
    mh_status status = transport->table->gather(transport->instance, all, parts, reason);
    return status ? hal_fail(transport->runtime, status, "transport %.64s: %.255s",
                             transport->table->name, reason)
                  : MH_OK;
}

bool transport_takes(mh_transport *transport, const mh_device *device)
{
    const mh_transport_table *t = transport->table;
    const char *allowed = hal_environment(transport->runtime, "MOEHAL_GPU_AWARE");
    return allowed && !strcmp(allowed, "1") && t->struct_size >= sizeof(*t) && t->takes &&
           t->takes(transport->instance, device->table->name);
}

static mh_status gather_counts(mh_transport *transport, uint32_t *counts)
{
    uint64_t *parts = hal_alloc(transport->runtime, transport->processes * sizeof(*parts));
    if (!parts)
        return MH_OUT_OF_MEMORY;
    for (uint32_t p = 0; p < transport->processes; p++)
        parts[p] = sizeof(*counts);
    mh_status status = mh_transport_gather(transport, counts, parts);
    hal_free(transport->runtime, parts);
    uint32_t room = MOST_RANKS;
    for (uint32_t p = 0; !status && p < transport->processes; room -= counts[p++])
        if (!counts[p] || counts[p] > room)
            status =
                hal_fail(transport->runtime, MH_BAD_DATA,
                         "transport %.64s: process %u of %u says that it has %u ranks, must be "
                         "1 to %u",
                         transport->table->name, p, transport->processes, counts[p], room);
    return status;
}

mh_status mh_transport_ranks(mh_transport *transport, uint32_t own, uint32_t *counts,
                             uint32_t *first, uint32_t *all)
{
    if (!counts || !first || !all)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_transport_ranks: %s is NULL",
                       !counts  ? "counts"
                       : !first ? "first"
                                : "all");
    if (!own || own > MOST_RANKS)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_transport_ranks: own is %u, must be 1 to %u", own,
                       MOST_RANKS);
    uint32_t self = mh_transport_process(transport);
    counts[self] = own;
    mh_status status = transport ? gather_counts(transport, counts) : MH_OK;
    *first = *all = 0;
    for (uint32_t p = 0; !status && p < mh_transport_processes(transport); p++) {
        *first += p < self ? counts[p] : 0;
        *all += counts[p];
    }
    return status;
}

void mh_transport_abort(mh_transport *transport, int32_t exit_status)
{
    if (transport)
        transport->table->abort(transport->instance, exit_status);
}
