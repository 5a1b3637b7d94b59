/* context.c: contexts, primary contexts, the stack of current ones. */
#include "driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STACK = 64 };

static _Thread_local struct {
    CUcontext at[STACK];
    int depth; /* at[depth - 1] is current; an entry may be NULL */
} stack;

CUcontext context_current(void)
{
    return stack.depth ? stack.at[stack.depth - 1] : NULL;
}

static CUresult push(CUcontext context)
{
    if (stack.depth == STACK)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stack.at[stack.depth++] = context;
    return CUDA_SUCCESS;
}

static CUresult check(CUcontext context)
{
    return vc_handle_is(context, HANDLE_CONTEXT) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

#define CHECK_CONTEXT(context)                                                                     \
    do {                                                                                           \
        CUresult checked_ = check(context);                                                        \
        if (checked_ != CUDA_SUCCESS)                                                              \
            return checked_;                                                                       \
    } while (0)

void context_set_error(CUcontext context, CUresult error)
{
    int none = CUDA_SUCCESS;
    atomic_compare_exchange_strong(&context->error, &none, (int)error);
}

void context_release(CUcontext context)
{
    if (!--context->holders)
        free(context);
}

CUresult context_create(struct device *device, unsigned flags, bool primary, CUcontext *out)
{
    if (device->lost)
        return CUDA_ERROR_UNKNOWN;
    CUcontext context = calloc(1, sizeof *context);
    CUstream legacy = calloc(1, sizeof *legacy);
    if (!context || !legacy || !vc_handle_add(context, HANDLE_CONTEXT)) {
        free(context);
        free(legacy);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    context->device = device;
    context->flags = flags;
    context->primary = primary;
    context->holders = 2; /* its existence and its legacy stream */
    context->limit[CU_LIMIT_STACK_SIZE] = 1024;
    context->limit[CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20;
    context->limit[CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
    context->limit[CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2;
    context->limit[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048;
    context->limit[CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64;
    context->heap.limit = 8 << 20;
    legacy->context = context;
    legacy->legacy = true;
    legacy->holders = 1;
    context->legacy = context->streams = legacy;
    lock();
    context->id = ++driver.next_id;
    legacy->id = ++driver.next_id;
    context->next = driver.contexts;
    driver.contexts = context;
    unlock();
    *out = context;
    return CUDA_SUCCESS;
}

/* ---- the end of a context ---- */

struct leaks {
    CUcontext context;
    uint64_t *base;
    size_t count, room;
    bool report;
};

static void note_leak(const struct vc_alloc *a, void *user)
{
    struct leaks *leaks = user;
    if (a->owner != leaks->context || a->kind == VC_MODULE)
        return;
    if (leaks->count == leaks->room) {
        size_t room = leaks->room ? 2 * leaks->room : 64;
        uint64_t *grown = realloc(leaks->base, room * sizeof *grown);
        if (!grown)
            return;
        leaks->base = grown;
        leaks->room = room;
    }
    leaks->base[leaks->count++] = a->base;
    if (!leaks->report)
        return;
    char text[160];
    snprintf(text, sizeof text,
             "%s of %" PRIu64 " bytes at 0x%" PRIx64 " (#%" PRIu64
             ") is still there when its context ends",
             a->kind == VC_HEAP ? "a kernel's malloc" : "an allocation", a->size, a->base,
             a->serial);
    vc_report(driver.reports,
              &(struct vc_finding){.check = "leak",
                                   .device = (unsigned)leaks->context->device->ordinal,
                                   .address = a->base,
                                   .bytes = a->size,
                                   .text = text});
}

static void release_memory(CUcontext context)
{
    struct leaks leaks = {.context = context, .report = !context->error};
    vc_each(driver.map, note_leak, &leaks);
    for (size_t i = 0; i < leaks.count; i++) {
        const struct vc_alloc *a = vc_find(driver.map, leaks.base[i]);
        if (a && a->kind == VC_REGISTERED)
            vc_unregister(driver.map, (void *)(uintptr_t)leaks.base[i]);
        else if (a && a->kind == VC_MAPPED)
            vc_unmap_file(driver.map, a->base, a->size);
        else
            vc_free(driver.map, leaks.base[i]);
    }
    free(leaks.base);
}

void context_destroy(CUcontext context)
{
    context_drain(context);
    vc_handle_remove(context);
    lock();
    context->destroyed = true;
    for (CUcontext *at = &driver.contexts; *at; at = &(*at)->next)
        if (*at == context) {
            *at = context->next;
            break;
        }
    unlock();
    while (context->modules) {
        CUmodule module = context->modules;
        vc_handle_remove(module);
        context->modules = module->next;
        module->unloaded = true;
        module_release(module);
    }
    release_memory(context);
    for (int i = 0; i < driver.count; i++)
        if (context->peers >> i & 1)
            vc_set_peer(driver.map, (unsigned)context->device->ordinal, (unsigned)i, false);
    lock();
    for (CUstream stream = context->streams, next; stream; stream = next) {
        next = stream->next;
        if (!stream->destroyed) {
            stream->destroyed = true;
            if (!stream->legacy)
                vc_handle_remove(stream);
            stream_release(stream);
        }
    }
    context_release(context);
    unlock();
}

/* ---- calls ---- */

static CUresult create_current(CUcontext *out, unsigned flags, CUdevice ordinal)
{
    struct device *device;
    CUresult result = device_of(ordinal, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!out || flags & ~CU_CTX_FLAGS_MASK || (flags & CU_CTX_SCHED_MASK) == 3)
        return CUDA_ERROR_INVALID_VALUE;
    if (stack.depth == STACK)
        return CUDA_ERROR_OUT_OF_MEMORY;
    result = context_create(device, flags, false, out);
    return result == CUDA_SUCCESS ? push(*out) : result;
}

CU_API CUresult cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice device)
{
    ENTER("cuCtxCreate");
    return create_current(out, flags, device);
}

CU_API CUresult cuCtxCreate_v3(CUcontext *out, void *affinity, int count, unsigned flags,
                               CUdevice device)
{
    ENTER("cuCtxCreate");
    if (affinity || count)
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuCtxCreate: execution affinity");
    return create_current(out, flags, device);
}

CU_API CUresult cuCtxCreate_v4(CUcontext *out, const CUctxCreateParams *params, unsigned flags,
                               CUdevice device)
{
    ENTER("cuCtxCreate");
    if (params &&
        (params->execAffinityParams || params->numExecAffinityParams || params->cigParams))
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "cuCtxCreate: execution affinity, graphics");
    return create_current(out, flags, device);
}

CU_API CUresult cuCtxDestroy_v2(CUcontext context)
{
    ENTER("cuCtxDestroy");
    CHECK_CONTEXT(context);
    if (context->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context_current() == context)
        stack.depth--;
    context_destroy(context);
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    ENTER("cuCtxPushCurrent");
    CHECK_CONTEXT(context);
    return push(context);
}

CU_API CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    ENTER("cuCtxPopCurrent");
    if (!stack.depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack.depth--;
    if (context)
        *context = stack.at[stack.depth];
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER("cuCtxSetCurrent");
    if (!context) { /* as a pop, without a word if there is none */
        if (stack.depth)
            stack.depth--;
        return CUDA_SUCCESS;
    }
    CHECK_CONTEXT(context);
    if (!stack.depth)
        return push(context);
    stack.at[stack.depth - 1] = context;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetCurrent(CUcontext *context)
{
    ENTER("cuCtxGetCurrent");
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    *context = context_current();
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetDevice(CUdevice *device)
{
    ENTER("cuCtxGetDevice");
    CUcontext context = context_current();
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    CHECK_CONTEXT(context);
    *device = context->device->ordinal;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext context)
{
    ENTER("cuCtxGetDevice");
    if (!context)
        context = context_current();
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    CHECK_CONTEXT(context);
    *device = context->device->ordinal;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetFlags(unsigned *flags)
{
    ENTER_CONTEXT("cuCtxGetFlags", context);
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = context->flags;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxSetFlags(unsigned flags)
{
    ENTER_CONTEXT("cuCtxSetFlags", context);
    if (flags & ~CU_CTX_FLAGS_MASK || (flags & CU_CTX_SCHED_MASK) == 3)
        return CUDA_ERROR_INVALID_VALUE;
    context->flags = flags;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
    ENTER("cuCtxGetId");
    if (!context)
        context = context_current();
    CHECK_CONTEXT(context);
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = context->id;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    ENTER("cuCtxGetApiVersion");
    if (!context)
        context = context_current();
    CHECK_CONTEXT(context);
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = 3020;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxSynchronize(void)
{
    ENTER_CONTEXT("cuCtxSynchronize", context);
    CUresult result = capture_forbids(context, NULL);
    if (result != CUDA_SUCCESS)
        return result;
    context_drain(context);
    return (CUresult)context->error;
}

CU_API CUresult cuCtxSynchronize_v2(CUcontext context)
{
    ENTER("cuCtxSynchronize");
    if (!context)
        context = context_current();
    CHECK_CONTEXT(context);
    context_drain(context);
    return (CUresult)context->error;
}

CU_API CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    ENTER_CONTEXT("cuCtxGetLimit", context);
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    if ((unsigned)limit >= CU_LIMIT_COUNT_HERE)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = context->limit[limit];
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    ENTER_CONTEXT("cuCtxSetLimit", context);
    if ((unsigned)limit >= CU_LIMIT_COUNT_HERE)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    if (limit == CU_LIMIT_STACK_SIZE && value > 512 << 10)
        return CUDA_ERROR_INVALID_VALUE;
    context->limit[limit] = value;
    if (limit == CU_LIMIT_MALLOC_HEAP_SIZE)
        context->heap.limit = value;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetCacheConfig(int *config)
{
    ENTER_CONTEXT("cuCtxGetCacheConfig", context);
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = 0;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxSetCacheConfig(int config)
{
    ENTER_CONTEXT("cuCtxSetCacheConfig", context);
    return config < 0 || config > 3 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetSharedMemConfig(int *config)
{
    ENTER_CONTEXT("cuCtxGetSharedMemConfig", context);
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = 1; /* banks of four bytes, as on every part since 2016 */
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxSetSharedMemConfig(int config)
{
    ENTER_CONTEXT("cuCtxSetSharedMemConfig", context);
    return config < 0 || config > 2 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CU_API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER_CONTEXT("cuCtxGetStreamPriorityRange", context);
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxResetPersistingL2Cache(void)
{
    ENTER_CONTEXT("cuCtxResetPersistingL2Cache", context);
    return CUDA_SUCCESS;
}

/* ---- primary contexts ---- */

static CUresult primary_retain(CUcontext *out, CUdevice ordinal)
{
    struct device *device;
    CUresult result = device_of(ordinal, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one_at_a_time);
    if (!device->primary)
        result = context_create(device, device->primary_flags, true, &device->primary);
    if (result == CUDA_SUCCESS) {
        device->primary_refs++;
        *out = device->primary;
    }
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

CU_API CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    ENTER("cuDevicePrimaryCtxRetain");
    return primary_retain(out, device);
}

static CUresult primary_end(CUdevice ordinal, bool reset)
{
    struct device *device;
    CUresult result = device_of(ordinal, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!device->primary)
        return reset ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    if (!reset && --device->primary_refs)
        return CUDA_SUCCESS;
    CUcontext ending = device->primary;
    device->primary = NULL;
    device->primary_refs = 0;
    context_destroy(ending);
    return CUDA_SUCCESS;
}

CU_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    ENTER("cuDevicePrimaryCtxRelease");
    return primary_end(device, false);
}

CU_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    ENTER("cuDevicePrimaryCtxReset");
    return primary_end(device, true);
}

CU_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice ordinal, unsigned flags)
{
    ENTER("cuDevicePrimaryCtxSetFlags");
    struct device *device;
    CUresult result = device_of(ordinal, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (flags & ~CU_CTX_FLAGS_MASK || (flags & CU_CTX_SCHED_MASK) == 3)
        return CUDA_ERROR_INVALID_VALUE;
    device->primary_flags = flags;
    if (device->primary)
        device->primary->flags = flags;
    return CUDA_SUCCESS;
}

CU_API CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned *flags, int *active)
{
    ENTER("cuDevicePrimaryCtxGetState");
    struct device *device;
    CUresult result = device_of(ordinal, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (flags)
        *flags = device->primary_flags;
    if (active)
        *active = device->primary != NULL;
    return CUDA_SUCCESS;
}

/* ---- peers ---- */

CU_API CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags)
{
    ENTER_CONTEXT("cuCtxEnablePeerAccess", context);
    CHECK_CONTEXT(peer);
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    unsigned mine = (unsigned)context->device->ordinal, theirs = (unsigned)peer->device->ordinal;
    if (mine == theirs)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!(driver.links[mine] >> theirs & 1))
        return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    if (context->peers >> theirs & 1)
        return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    lock();
    context->peers |= 1u << theirs;
    unlock();
    vc_set_peer(driver.map, mine, theirs, true);
    return CUDA_SUCCESS;
}

CU_API CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    ENTER_CONTEXT("cuCtxDisablePeerAccess", context);
    CHECK_CONTEXT(peer);
    unsigned mine = (unsigned)context->device->ordinal, theirs = (unsigned)peer->device->ordinal;
    if (!(context->peers >> theirs & 1))
        return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    context_drain(context);
    lock();
    context->peers &= ~(1u << theirs);
    unlock();
    vc_set_peer(driver.map, mine, theirs, false);
    return CUDA_SUCCESS;
}
