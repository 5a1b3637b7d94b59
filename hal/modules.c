/* modules.c: finding and loading backends. */
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hal.h"

static mh_status add(mh_runtime *runtime, const char *path, struct hal_backend **out)
{
    uint32_t count = runtime->backend_count;
    struct hal_backend *grown = hal_alloc(runtime, (count + 1) * sizeof(*grown));
    if (!grown)
        return MH_OUT_OF_MEMORY;
    if (count)
        memcpy(grown, runtime->backends, count * sizeof(*grown));
    hal_free(runtime, runtime->backends);
    runtime->backends = grown;
    runtime->backend_count = count + 1;
    struct hal_backend *backend = &grown[count];
    backend->info.struct_size = sizeof(backend->info);
    snprintf(backend->info.path, sizeof(backend->info.path), "%s", path);
    *out = backend;
    return MH_OK;
}

MH_PRINTF(3, 4)
static void refuse(struct hal_backend *backend, mh_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(backend->info.reason, sizeof(backend->info.reason), format, args);
    va_end(args);
    backend->info.status = status;
    backend->table = NULL;
}

static const char *missing_function(const mh_backend_table *t)
{
#define NEED(name)                                                                                 \
    if (!t->name)                                                                                  \
        return #name;
    NEED(init)
    NEED(fini)
    NEED(device_info)
    NEED(device_open)
    NEED(device_close)
    NEED(memory_info)
    NEED(buffer_create)
    NEED(buffer_destroy)
    NEED(stream_create)
    NEED(stream_destroy)
    NEED(copy)
    NEED(mark)
    NEED(wait)
    NEED(supports)
    NEED(encode)
#undef NEED
    return NULL;
}

/* Groups are all or none. */
static const char *missing_of_group(const mh_backend_table *t)
{
#define NEED(group, name)                                                                          \
    if (t->group && !t->group->name)                                                               \
        return #group "." #name;
    NEED(scratch, op_scratch)
    NEED(import, import)
    NEED(import, forget)
    NEED(reset, reset)
    NEED(graph, create)
    NEED(graph, launch)
    NEED(graph, destroy)
    NEED(event, create)
    NEED(event, destroy)
    NEED(event, record)
    NEED(event, wait)
    NEED(event, elapsed)
    NEED(gate, create)
    NEED(gate, hold)
    NEED(gate, open)
    NEED(gate, destroy)
    NEED(wrap, stream)
    NEED(wrap, buffer)
    NEED(wrap, forget)
    NEED(wrap_event, event)
    NEED(wrap_event, forget)
    NEED(wrap_event, wait)
    NEED(wrap_event, native)
    NEED(module, load)
    NEED(module, unload)
    NEED(module, kernel)
    NEED(module, kernel_destroy)
    NEED(counters, read)
    NEED(peer, create)
    NEED(peer, join)
    NEED(peer, capacity)
    NEED(peer, state)
    NEED(peer, stop)
    NEED(peer, destroy)
#undef NEED
    if (t->wrap_event && !t->event)
        return "event, which wrap_event is for";
    return NULL;
}

static const char *duplicate_of(mh_runtime *runtime, const char *name)
{
    for (uint32_t i = 0; i < runtime->backend_count; i++)
        if (runtime->backends[i].table && !strcmp(runtime->backends[i].info.name, name))
            return runtime->backends[i].info.path;
    return NULL;
}

/* Initialises a backend and counts its devices; false if it was refused. */
static bool start(mh_runtime *runtime, struct hal_backend *backend, const mh_backend_table *table)
{
    const char *missing = missing_of_group(table);
    if (missing) {
        refuse(backend, MH_BAD_DATA, "its table has an optional group without its function %s",
               missing);
        return false;
    }
    snprintf(backend->info.name, sizeof(backend->info.name), "%s", table->name);
    snprintf(backend->info.description, sizeof(backend->info.description), "%s",
             table->description ? table->description : "");
    mh_status status = table->init(&runtime->core, &backend->instance);
    if (status) {
        backend->instance = NULL;
        refuse(backend, status, "%s", mh_last_message());
        return false;
    }
    backend->table = table;
    mh_device_info info = MH_INIT(mh_device_info);
    while (backend->info.device_count < 1024 &&
           table->device_info(backend->instance, backend->info.device_count, &info) == MH_OK) {
        backend->info.device_count++;
        info = MH_INIT(mh_device_info);
    }
    return true;
}

/* Bytes of a table that has no optional groups; groups behind its end are absent. */
#define FIRST_TABLE offsetof(mh_backend_table, scratch)

/* Checks what a table says and starts its backend. */
static void adopt(mh_runtime *runtime, struct hal_backend *backend, const mh_backend_table *table)
{
    /* The first three fields are the same in every ABI. */
    if (table->abi != MH_ABI) {
        refuse(backend, MH_ABI_MISMATCH, "it was built for MH_ABI %u, this library has MH_ABI %u",
               table->abi, MH_ABI);
        return;
    }
    if (table->struct_size < FIRST_TABLE || !table->name || !*table->name ||
        strchr(table->name, ':') || strlen(table->name) >= sizeof(backend->info.name)) {
        refuse(backend, MH_BAD_DATA,
               "its table has no usable name, or struct_size %llu, less than %zu",
               (unsigned long long)table->struct_size, FIRST_TABLE);
        return;
    }
    const char *missing = missing_function(table);
    if (missing) {
        refuse(backend, MH_BAD_DATA, "its table lacks the mandatory function %s", missing);
        return;
    }
    const char *other = duplicate_of(runtime, table->name);
    if (other) {
        refuse(backend, MH_INVALID_ARGUMENT, "a backend named %s is loaded already, from %s",
               table->name, *other ? other : "the library itself");
        return;
    }
    mh_backend_table *whole = hal_alloc(runtime, sizeof(*whole));
    if (!whole) {
        refuse(backend, MH_OUT_OF_MEMORY, "no memory for its table");
        return;
    }
    memcpy(whole, table, table->struct_size < sizeof(*whole) ? table->struct_size : sizeof(*whole));
    backend->is_host = table == &mh_host_backend;
    if (!start(runtime, backend, whole))
        hal_free(runtime, whole);
}

static mh_status load_module(mh_runtime *runtime, const char *path)
{
    struct hal_backend *backend;
    mh_status status = add(runtime, path, &backend);
    if (status)
        return status;
    const char *slash = strrchr(path, '/');
    snprintf(backend->info.name, sizeof(backend->info.name), "%.31s", slash ? slash + 1 : path);
    if (path[0] != '/') {
        refuse(backend, MH_INVALID_ARGUMENT, "%.256s: a module's path must be absolute", path);
        return MH_OK;
    }
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!module) {
        refuse(backend, MH_IO_ERROR, "%s", dlerror());
        return MH_OK;
    }
    mh_backend_entry_fn entry;
    *(void **)&entry = dlsym(module, MH_BACKEND_ENTRY);
    const mh_backend_table *table = entry ? entry() : NULL;
    if (table)
        adopt(runtime, backend, table);
    else
        refuse(backend, MH_BAD_DATA, "%.256s: exports no %s", path, MH_BACKEND_ENTRY);
    return MH_OK;
}

static int is_module(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && !strcmp(dot, ".so");
}

/* Every module of a folder, by name; a folder that is not there holds none. */
static mh_status load_folder(mh_runtime *runtime, const char *folder)
{
    struct dirent **entries;
    int count = folder[0] == '/' ? scandir(folder, &entries, is_module, alphasort) : -1;
    if (count < 0)
        return MH_OK;
    mh_status status = MH_OK;
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        int length = snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        if (!status && length < (int)sizeof(path))
            status = load_module(runtime, path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static mh_status load_folders(mh_runtime *runtime, const char *list)
{
    mh_status status = MH_OK;
    while (!status && *list) {
        size_t length = strcspn(list, ":");
        char folder[PATH_MAX];
        if (length && length < sizeof(folder)) {
            memcpy(folder, list, length);
            folder[length] = 0;
            status = load_folder(runtime, folder);
        }
        list += length + (list[length] == ':');
    }
    return status;
}

void hal_folder_beside(char folder[PATH_MAX], const char *name)
{
    folder[0] = 0;
#ifdef MH_MODULE_DIR
    snprintf(folder, PATH_MAX, "%s/%s", MH_MODULE_DIR, name);
#else
    Dl_info self;
    if (!dladdr((const void *)(uintptr_t)&mh_host_backend, &self) || !self.dli_fname)
        return;
    char *real = realpath(self.dli_fname, NULL);
    if (!real)
        return;
    *strrchr(real, '/') = 0;
    if (snprintf(folder, PATH_MAX, "%s/moehal/%s", real, name) >= PATH_MAX)
        folder[0] = 0;
    free(real);
#endif
}

mh_status hal_load_backends(mh_runtime *runtime, const mh_runtime_params *params)
{
    struct hal_backend *host;
    mh_status status = add(runtime, "", &host);
    if (!status)
        adopt(runtime, host, &mh_host_backend);
    for (uint64_t i = 0; !status && i < params->module_count; i++) {
        if (!params->modules[i])
            return mh_fail(MH_INVALID_ARGUMENT, "mh_runtime_params: modules[%llu] is NULL",
                           (unsigned long long)i);
        status = load_module(runtime, params->modules[i]);
    }
    const char *folders = hal_environment(runtime, "MOEHAL_BACKENDS");
    if (!status && folders)
        status = load_folders(runtime, folders);
    char beside[PATH_MAX];
    hal_folder_beside(beside, "backends");
    return status ? status : load_folder(runtime, beside);
}
