#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hal.h"

void *hal_alloc(mh_runtime *runtime, uint64_t size)
{
    void *memory = size > SIZE_MAX ? NULL
                   : runtime->params.allocate
                       ? runtime->params.allocate(runtime->params.allocator_user, size ? size : 1)
                       : malloc(size ? size : 1);
    if (!memory)
        hal_fail(runtime, MH_OUT_OF_MEMORY, "host memory: %llu bytes could not be had",
                 (unsigned long long)size);
    else
        memset(memory, 0, size);
    return memory;
}

void hal_free(mh_runtime *runtime, void *memory)
{
    if (!memory)
        return;
    if (runtime->params.deallocate)
        runtime->params.deallocate(runtime->params.allocator_user, memory);
    else
        free(memory);
}

const char *hal_environment(mh_runtime *runtime, const char *name)
{
    return runtime->params.flags & MH_RUNTIME_NO_ENVIRONMENT ? NULL : getenv(name);
}

mh_status hal_check_alive(mh_runtime *runtime)
{
    if (hal_is_alive(runtime))
        return MH_OK;
    return hal_fail(runtime, MH_STALE_HANDLE,
                    "runtime: was made before fork(); the child must make its own");
}

/* ---- what backends are offered ---- */

static void *core_allocate(void *context, uint64_t size)
{
    return hal_alloc(context, size);
}

static void core_deallocate(void *context, void *memory)
{
    hal_free(context, memory);
}

static void core_log(void *context, uint32_t level, const char *text)
{
    mh_runtime *runtime = context;
    if (runtime->params.log)
        runtime->params.log(runtime->params.log_user, level, text);
}

static mh_status core_fail(void *context, const char *file, uint32_t line, mh_status status,
                           const char *vendor_call, int32_t vendor_code, const char *vendor_name,
                           const char *format, ...)
{
    struct hal_vendor vendor = {vendor_call, vendor_code, vendor_name};
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return hal_fail_at(context, file, line, status, &vendor, "%s", text);
}

static const char *core_environment(void *context, const char *name)
{
    return hal_environment(context, name);
}

/* ---- life ---- */

static mh_status check_params(const mh_runtime_params *params)
{
    if (!params->allocate != !params->deallocate)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_runtime_params: allocate and deallocate go together");
    if (params->module_count && !params->modules)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_runtime_params: modules is NULL, module_count %llu",
                       (unsigned long long)params->module_count);
    return MH_OK;
}

static void destroy(mh_runtime *runtime)
{
    mh_runtime_params params = runtime->params;
    bool alive = !runtime->alive || hal_is_alive(runtime);
    hal_worker_stop(runtime);
    pthread_mutex_destroy(&runtime->lock);
    for (uint32_t i = 0; i < runtime->backend_count; i++) {
        struct hal_backend *backend = &runtime->backends[i];
        if (backend->table && backend->instance && alive)
            backend->table->fini(backend->instance);
        hal_free(runtime, (void *)(uintptr_t)backend->table);
    }
    hal_free(runtime, runtime->backends);
    if (runtime->alive)
        munmap((void *)(uintptr_t)runtime->alive, (size_t)sysconf(_SC_PAGESIZE));
    if (params.deallocate)
        params.deallocate(params.allocator_user, runtime);
    else
        free(runtime);
}

static mh_status make_fork_mark(mh_runtime *runtime)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t *mark = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mark == MAP_FAILED)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: a page could not be had");
    madvise(mark, page, MADV_WIPEONFORK); /* an old kernel without it only loses the fork check */
    *mark = 1;
    runtime->alive = mark;
    return MH_OK;
}

mh_status mh_runtime_create(const mh_runtime_params *params, mh_runtime **out)
{
    if (!out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_runtime_create: out is NULL");
    *out = NULL;
    mh_runtime_params local = MH_INIT(mh_runtime_params);
    mh_status status = MH_OK;
    if (params)
        status = mh_struct_in(&local, params, sizeof(local), "mh_runtime_params");
    if (!status)
        status = check_params(&local);
    if (status)
        return status;
    mh_runtime *runtime = local.allocate ? local.allocate(local.allocator_user, sizeof(*runtime))
                                         : malloc(sizeof(*runtime));
    if (!runtime)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: %zu bytes could not be had",
                       sizeof(*runtime));
    memset(runtime, 0, sizeof(*runtime));
    atomic_init(&runtime->refs, 1);
    runtime->params = local;
    runtime->params.modules = NULL; /* borrowed for this call only */
    runtime->core = (mh_core){
        .struct_size = sizeof(mh_core),
        .context = runtime,
        .allocate = core_allocate,
        .deallocate = core_deallocate,
        .log = core_log,
        .fail = core_fail,
        .environment = core_environment,
        .define = hal_define,
    };
    pthread_mutex_init(&runtime->lock, NULL);
    status = make_fork_mark(runtime);
    runtime->loading = true;
    if (!status)
        status = hal_load_backends(runtime, &local);
    runtime->loading = false;
    if (status) {
        destroy(runtime);
        return status;
    }
    *out = runtime;
    return MH_OK;
}

mh_runtime *mh_runtime_retain(mh_runtime *runtime)
{
    if (runtime)
        atomic_fetch_add_explicit(&runtime->refs, 1, memory_order_relaxed);
    return runtime;
}

void mh_runtime_release(mh_runtime *runtime)
{
    if (runtime && atomic_fetch_sub_explicit(&runtime->refs, 1, memory_order_acq_rel) == 1)
        destroy(runtime);
}

mh_status mh_runtime_backend(mh_runtime *runtime, uint32_t index, mh_backend_info *out)
{
    if (!runtime)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_runtime_backend: runtime is NULL");
    if (index >= runtime->backend_count)
        return MH_NOT_FOUND;
    return mh_struct_out(out, &runtime->backends[index].info, sizeof(mh_backend_info));
}
