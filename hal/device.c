/* device.c: finding and opening devices, their counters and their errors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hal.h"

mh_status mh_runtime_device(mh_runtime *runtime, uint32_t backend, uint32_t index,
                            mh_device_info *out)
{
    if (!runtime)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_runtime_device: runtime is NULL");
    mh_status status = hal_check_alive(runtime);
    if (status)
        return status;
    if (backend >= runtime->backend_count || index >= runtime->backends[backend].info.device_count)
        return MH_NOT_FOUND;
    const struct hal_backend *b = &runtime->backends[backend];
    mh_device_info info = MH_INIT(mh_device_info);
    status = b->table->device_info(b->instance, index, &info);
    return status ? status : mh_struct_out(out, &info, sizeof(info));
}

/* ---- URIs ---- */

struct choice {
    uint32_t backend, index;
    mh_device_info info;
};

/* Higher is better for "auto"; 0: never. */
static int auto_rank(const struct hal_backend *backend, const mh_device_info *info)
{
    if (info->status || info->flags & (MH_DEVICE_IS_VIRTUAL | MH_DEVICE_BY_NAME_ONLY))
        return 0;
    if (info->kind == MH_DEVICE_GPU || info->kind == MH_DEVICE_ACCELERATOR)
        return 3;
    return backend->is_host ? 2 : 1;
}

/* A device may have several ids, with spaces between: where it is on a bus, and a UUID. */
static bool is_one_of(const char *text, const char *ids)
{
    size_t length = strlen(text);
    while (*ids) {
        size_t here = strcspn(ids, " ");
        if (here == length && !strncasecmp(ids, text, length))
            return true;
        ids += here + strspn(ids + here, " ");
    }
    return false;
}

/* Does TEXT of a URI mean this device? An index, an id, or a part of the name, in any case. */
static bool matches(const char *text, uint32_t index, const mh_device_info *info)
{
    if (!*text)
        return index == 0;
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (!*end && text[0] >= '0' && text[0] <= '9')
        return number == index;
    return is_one_of(text, info->id) || strcasestr(info->name, text);
}

static bool find(mh_runtime *runtime, const char *uri, struct choice *best)
{
    bool automatic = !strcmp(uri, "auto");
    size_t name_length = strcspn(uri, ":");
    const char *text = uri[name_length] ? uri + name_length + 1 : "";
    int best_rank = 0;
    for (uint32_t b = 0; b < runtime->backend_count; b++) {
        const struct hal_backend *backend = &runtime->backends[b];
        if (!backend->table || (!automatic && (strlen(backend->info.name) != name_length ||
                                               memcmp(backend->info.name, uri, name_length))))
            continue;
        for (uint32_t i = 0; i < backend->info.device_count; i++) {
            struct choice choice = {b, i, MH_INIT(mh_device_info)};
            if (backend->table->device_info(backend->instance, i, &choice.info))
                continue;
            int rank =
                automatic ? auto_rank(backend, &choice.info) : (int)matches(text, i, &choice.info);
            if (rank > best_rank) {
                best_rank = rank;
                *best = choice;
            }
        }
    }
    return best_rank > 0;
}

static mh_status nothing_matches(mh_runtime *runtime, const char *uri)
{
    char list[512] = "";
    size_t used = 0;
    size_t name_length = strcspn(uri, ":");
    for (uint32_t b = 0; b < runtime->backend_count; b++) {
        const struct hal_backend *backend = &runtime->backends[b];
        if (!backend->table && strlen(backend->info.name) == name_length &&
            !memcmp(backend->info.name, uri, name_length))
            return hal_fail(runtime, MH_NOT_FOUND, "device '%.64s': backend %s cannot be used: %s",
                            uri, backend->info.name, backend->info.reason);
        for (uint32_t i = 0; i < backend->info.device_count && used < sizeof(list) - 1; i++) {
            int n = snprintf(list + used, sizeof(list) - used, "%s%s:%u", used ? ", " : "",
                             backend->info.name, i);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    return hal_fail(runtime, MH_NOT_FOUND, "device '%.64s': nothing matches; there are: %s", uri,
                    used ? list : "none");
}

/* ---- life ---- */

static mh_status open_choice(mh_runtime *runtime, const struct choice *choice,
                             const mh_device_params *params, mh_device **out)
{
    const struct hal_backend *backend = &runtime->backends[choice->backend];
    if (choice->info.status)
        return hal_fail(runtime, choice->info.status, "device %s:%u: %s", backend->info.name,
                        choice->index, choice->info.reason);
    if (params->context != MH_CONTEXT_OWN && !backend->table->wrap)
        return hal_fail(runtime, MH_UNSUPPORTED,
                        "mh_device_params: context is %u, but %s works in contexts of its own only",
                        params->context, backend->info.name);
    mh_device *device = hal_alloc(runtime, sizeof(*device));
    if (!device)
        return MH_OUT_OF_MEMORY;
    mh_backend_open open = {.struct_size = sizeof(open),
                            .threads = params->threads,
                            .context = params->context,
                            .native_context = params->native_context};
    mh_status status =
        backend->table->device_open(backend->instance, choice->index, &open, &device->handle);
    if (status) {
        hal_free(runtime, device);
        return status;
    }
    atomic_init(&device->refs, 1);
    device->runtime = mh_runtime_retain(runtime);
    device->table = backend->table;
    device->params = *params;
    device->info = choice->info;
    device->memory.struct_size = sizeof(device->memory);
    snprintf(device->uri, sizeof(device->uri), "%s:%u", backend->info.name, choice->index);
    pthread_mutex_init(&device->lock, NULL);
    pthread_mutex_init(&device->transfer_lock, NULL);
    device->is_host = backend->is_host;
    device->params.faults = NULL;
    if (params->faults)
        status = hal_faults_wrap(device, params->faults);
    if (!status && params->checks & MH_CHECK_BACKEND)
        status = hal_check_wrap(device);
    if (!status && params->timeline)
        status = hal_timeline_wrap(device, params->timeline);
    if (status) {
        mh_device_release(device);
        return status;
    }
    *out = device;
    return MH_OK;
}

static mh_status check_faults(mh_runtime *runtime, const mh_faults *given, mh_faults *local)
{
    mh_status status = mh_struct_in(local, given, sizeof(*local), "mh_faults");
    if (status)
        return status;
    if (local->call >= MH_CALL_KINDS)
        return hal_fail(runtime, MH_INVALID_ARGUMENT, "mh_faults: call is %u, must be below %u",
                        local->call, MH_CALL_KINDS);
    if (local->call && (!local->nth || !local->status))
        return hal_fail(runtime, MH_INVALID_ARGUMENT, "mh_faults: %s is 0, must be %s",
                        local->nth ? "status" : "nth", local->nth ? "a failure" : "at least 1");
    return MH_OK;
}

static mh_status check_context(mh_runtime *runtime, const mh_device_params *p)
{
    if (p->context > MH_CONTEXT_WRAP)
        return hal_fail(runtime, MH_INVALID_ARGUMENT, "mh_device_params: context is %u, at most %u",
                        p->context, MH_CONTEXT_WRAP);
    if ((p->context == MH_CONTEXT_WRAP) != (p->native_context != 0))
        return hal_fail(runtime, MH_INVALID_ARGUMENT,
                        "mh_device_params: native_context is %s, context is %u",
                        p->native_context ? "given" : "0", p->context);
    if (p->checks & ~(uint32_t)MH_CHECK_BACKEND)
        return hal_fail(runtime, MH_INVALID_ARGUMENT,
                        "mh_device_params: checks is 0x%x, known is 0x%x", p->checks,
                        MH_CHECK_BACKEND);
    return MH_OK;
}

mh_status mh_device_open(mh_runtime *runtime, const char *uri, const mh_device_params *params,
                         mh_device **out)
{
    if (!runtime || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_open: %s is NULL",
                       runtime ? "out" : "runtime");
    *out = NULL;
    mh_device_params local = MH_INIT(mh_device_params);
    mh_status status = hal_check_alive(runtime);
    if (!status && params)
        status = mh_struct_in(&local, params, sizeof(local), "mh_device_params");
    if (status)
        return status;
    if (local.placement > MH_PLACEMENT_STRICT)
        return hal_fail(runtime, MH_INVALID_ARGUMENT,
                        "mh_device_params: placement is %u, at most %u", local.placement,
                        MH_PLACEMENT_STRICT);
    status = check_context(runtime, &local);
    if (status)
        return status;
    mh_faults faults;
    if (local.faults) {
        status = check_faults(runtime, local.faults, &faults);
        if (status)
            return status;
        local.faults = &faults;
    }
    if (local.threads > 4096)
        return hal_fail(runtime, MH_INVALID_ARGUMENT,
                        "mh_device_params: threads is %u, at most 4096", local.threads);
    if (!uri)
        uri = hal_environment(runtime, "MOEHAL_DEVICE");
    if (!uri || !*uri)
        uri = "auto";
    struct choice choice;
    if (!find(runtime, uri, &choice))
        return nothing_matches(runtime, uri);
    return open_choice(runtime, &choice, &local, out);
}

mh_device *mh_device_retain(mh_device *device)
{
    if (device)
        atomic_fetch_add_explicit(&device->refs, 1, memory_order_relaxed);
    return device;
}

/* The core's own stream is given back like any other; the next copy makes a new one. */
static void end_transfers(mh_device *device)
{
    pthread_mutex_lock(&device->transfer_lock);
    if (device->transfer && device->transfer_generation == device->generation)
        device->table->stream_destroy(device->transfer);
    device->transfer = NULL;
    pthread_mutex_unlock(&device->transfer_lock);
}

void mh_device_release(mh_device *device)
{
    if (!device || atomic_fetch_sub_explicit(&device->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_runtime *runtime = device->runtime;
    /* Streams retain the device, so none is left and nothing is in flight. */
    hal_collect(device, NULL);
    mh_device_release(device->host);
    if (hal_is_alive(runtime)) {
        end_transfers(device);
        device->table->device_close(device->handle);
    }
    pthread_mutex_destroy(&device->lock);
    pthread_mutex_destroy(&device->transfer_lock);
    hal_free(runtime, device);
    mh_runtime_release(runtime);
}

mh_runtime *mh_device_runtime(mh_device *device)
{
    return device ? device->runtime : NULL;
}

const char *mh_device_uri(const mh_device *device)
{
    return device ? device->uri : "";
}

mh_status mh_device_get_info(mh_device *device, mh_device_info *out)
{
    if (!device)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_get_info: device is NULL");
    return mh_struct_out(out, &device->info, sizeof(device->info));
}

mh_status mh_device_host(mh_device *device, mh_device **out)
{
    if (!device || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_host: %s is NULL",
                       device ? "out" : "device");
    if (device->is_host) {
        *out = device;
        return MH_OK;
    }
    mh_status status = MH_OK;
    pthread_mutex_lock(&device->lock);
    if (!device->host) {
        mh_device_params params = MH_INIT(mh_device_params);
        params.threads = device->params.threads;
        params.timeline = device->params.timeline;
        status = mh_device_open(device->runtime, "host", &params, &device->host);
    }
    *out = device->host;
    pthread_mutex_unlock(&device->lock);
    return status;
}

/* ---- counters ---- */

mh_status mh_device_get_counters(mh_device *device, mh_device_counters *out)
{
    if (!device)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_get_counters: device is NULL");
    pthread_mutex_lock(&device->lock);
    uint64_t native = device->native;
    for (const mh_stream *s = device->streams; s; s = s->next)
        native += s->native;
    pthread_mutex_unlock(&device->lock);
    mh_device_counters counters = {
        .struct_size = sizeof(counters),
        .native = native,
        .expanded = device->expanded,
        .fallback = device->fallback,
        .graph_launches = device->graph_launches,
        .copies = device->copies,
        .copied_bytes = device->copied_bytes,
        .stream_waits = device->stream_waits,
        .native_graphs = device->native_graphs,
        .native_waits = device->native_waits,
        .thread_waits = device->thread_waits,
    };
    return mh_struct_out(out, &counters, sizeof(counters));
}

mh_status mh_device_read_counter(mh_device *device, uint32_t index, mh_device_counter *out)
{
    if (!device)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_read_counter: device is NULL");
    mh_status status = hal_check_device(device, device->generation, "device");
    if (status)
        return status;
    if (!device->table->counters)
        return MH_NOT_FOUND;
    mh_device_counter counter = MH_INIT(mh_device_counter);
    status = device->table->counters->read(device->handle, index, &counter.name, &counter.value);
    return status ? hal_backend_status(device, status)
                  : mh_struct_out(out, &counter, sizeof(counter));
}

uint64_t mh_device_fallbacks(mh_device *device, mh_op_id op)
{
    return device && op < HAL_OP_LIMIT ? device->fallbacks[op] : 0;
}

/* ---- errors ---- */

mh_status hal_refuse_device(mh_device *device, uint32_t generation, const char *what)
{
    if (!hal_is_alive(device->runtime))
        return hal_check_alive(device->runtime);
    if (atomic_load_explicit(&device->lost, memory_order_acquire))
        return hal_fail(device->runtime, MH_DEVICE_LOST, "%s: device %s is lost: %s", what,
                        device->uri, device->cause.message);
    if (generation != atomic_load_explicit(&device->generation, memory_order_relaxed))
        return hal_fail(device->runtime, MH_STALE_HANDLE, "%s: was made before device %s was reset",
                        what, device->uri);
    return MH_OK;
}

mh_status hal_lose_device(mh_device *device, mh_status status)
{
    pthread_mutex_lock(&device->lock);
    if (!device->lost) {
        device->cause = MH_INIT(mh_error);
        if (mh_last_error(&device->cause) || device->cause.status != status) {
            device->cause = MH_INIT(mh_error);
            device->cause.status = status;
            snprintf(device->cause.message, sizeof(device->cause.message), "%s",
                     mh_status_text(status));
        }
        const mh_error *cause = &device->cause;
        struct hal_vendor vendor = {cause->vendor_call, cause->vendor_code, cause->vendor_name};
        hal_fail_at(NULL, cause->file, cause->line, MH_DEVICE_LOST, &vendor,
                    "device %s is lost: %s", device->uri, cause->message);
        atomic_store_explicit(&device->lost, true, memory_order_release);
    }
    pthread_mutex_unlock(&device->lock);
    return MH_DEVICE_LOST;
}

mh_status hal_wait_status(mh_device *device, mh_status status)
{
    return status == MH_OK || status == MH_TIMEOUT ? status : hal_lose_device(device, status);
}

mh_status mh_device_error(mh_device *device, mh_error *out)
{
    if (!device)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_error: device is NULL");
    if (!atomic_load_explicit(&device->lost, memory_order_acquire))
        return MH_NOT_FOUND;
    return mh_struct_out(out, &device->cause, sizeof(device->cause));
}

mh_status mh_device_reset(mh_device *device)
{
    if (!device)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_reset: device is NULL");
    mh_status status = hal_check_alive(device->runtime);
    if (status)
        return status;
    if (device->params.context != MH_CONTEXT_OWN)
        return hal_fail(device->runtime, MH_UNSUPPORTED,
                        "device %s: its context is not moehal's own, so it is not reset",
                        device->uri);
    if (!device->table->reset)
        return hal_fail(device->runtime, MH_UNSUPPORTED,
                        "device %s: its backend cannot reset a device; open it again", device->uri);
    hal_worker_drain(device->runtime, NULL);
    end_transfers(device);
    status = device->table->reset->reset(device->handle);
    if (status)
        return status;
    pthread_mutex_lock(&device->lock);
    atomic_fetch_add(&device->generation, 1);
    atomic_store_explicit(&device->lost, false, memory_order_release);
    device->memory.used = 0;
    device->memory.buffers = 0;
    pthread_mutex_unlock(&device->lock);
    hal_collect(device, NULL);
    return MH_OK;
}
