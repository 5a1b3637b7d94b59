/*
 * core_faults.c: each failure of a backend's call ends in an error: never a crash, a leak or a
 * hang; and once the device is back the model says the same. A sweep runs a small model again and
 * again, each time with one call of one kind failing; each time the injection must have fired.
 */
#include <stdlib.h>
#include <string.h>

#include "core_model.h"

static const struct core_story short_story = {.prompt = 5, .decoded = 2, .chunk = 4, .kv = MH_F32};

/* The story, and one look at the memory, as a caller would. */
static mh_status play(mh_device *device, mh_checkpoint *checkpoint, struct core_story *story)
{
    mh_memory_info info = MH_INIT(mh_memory_info);
    *story = short_story;
    mh_status status = mh_device_memory(device, &info);
    return status ? status : core_tell(device, checkpoint, story);
}

static bool same_story(const struct core_story *a, const struct core_story *b)
{
    return a->hash == b->hash && !memcmp(a->tokens, b->tokens, sizeof(a->tokens));
}

static bool nothing_is_left(struct core *c, mh_device *device)
{
    mh_memory_info info = MH_INIT(mh_memory_info);
    TRY(mh_device_memory(device, &info));
    CHECK(!info.used && !info.buffers && !info.imported,
          "%llu bytes in %llu buffers, %llu imported, are left behind",
          (unsigned long long)info.used, (unsigned long long)info.buffers,
          (unsigned long long)info.imported);
    return true;
}

/* How often a queue is looked at depends on how fast it is, and a look that fails tells nobody: the
 * next real wait does, if the device still fails then. */
static bool looks(mh_device *device, uint32_t call)
{
    mh_device_info info = MH_INIT(mh_device_info);
    return (call == MH_CALL_WAIT || call == MH_CALL_MARK) && !mh_device_get_info(device, &info) &&
           !(info.flags & MH_DEVICE_SYNCHRONOUS);
}

/* One injection: it fires, it is an error, nothing is left, and afterwards all is well. */
static bool inject(struct core *c, mh_checkpoint *checkpoint, mh_faults faults,
                   const struct core_story *want)
{
    struct core_story story;
    mh_fault_report report = MH_INIT(mh_fault_report);
    mh_error cause = MH_INIT(mh_error);
    const char *call = mh_call_name(faults.call);
    unsigned long long nth = faults.nth;
    mh_device *device = core_device(c, &faults);
    if (!device)
        return false;
    mh_status status = play(device, checkpoint, &story);
    TRY(mh_device_get_faults(device, &report));
    bool may_be_a_look = looks(device, faults.call);
    CHECK(report.fired == 1 || (may_be_a_look && !report.fired), "%s %llu: fired %llu times", call,
          nth, (unsigned long long)report.fired);
    CHECK(status || may_be_a_look, "%s %llu failed, and nobody was told", call, nth);
    CHECK(status || same_story(&story, want), "%s %llu failed, and the model tells another story",
          call, nth);
    if (!report.fired)
        return true;
    if (!mh_device_error(device, &cause))
        TRY(mh_device_reset(device));
    if (!nothing_is_left(c, device))
        return false;
    TRY(play(device, checkpoint, &story));
    CHECK(same_story(&story, want), "after %s %llu had failed the model tells another story", call,
          nth);
    return nothing_is_left(c, device);
}

/* Which calls a story makes. Calls of its last breath, when handles are let go, have nobody to tell
 * a failure to: they are not counted. */
static bool count_calls(struct core *c, mh_checkpoint *checkpoint, struct core_story *story,
                        uint64_t calls[MH_CALL_KINDS])
{
    const mh_faults none = MH_INIT(mh_faults);
    mh_fault_report report = MH_INIT(mh_fault_report);
    mh_device *device = core_device(c, &none);
    if (!device)
        return false;
    TRY(play(device, checkpoint, story));
    TRY(mh_device_get_faults(device, &report));
    memcpy(calls, report.calls, sizeof(report.calls));
    uint64_t last = calls[MH_CALL_WAIT];
    calls[MH_CALL_WAIT] = last > 1 ? last - 1 : 0;
    calls[MH_CALL_MARK] -= calls[MH_CALL_MARK] > 1;
    return true;
}

/* The i-th of `count` numbers to try out of 1 .. all: the first, the last, and seeded ones between;
 * or simply all. */
static uint64_t pick(struct core *c, uint64_t i, uint64_t count, uint64_t all)
{
    if (count == all)
        return i + 1;
    return i == 0 ? 1 : i == 1 ? all : 1 + conf_below(&c->random, (uint32_t)all);
}

static bool sweep(struct core *c, mh_status status, uint32_t only)
{
    struct core_story want;
    uint64_t calls[MH_CALL_KINDS];
    mh_checkpoint *checkpoint = core_checkpoint(c, MODEL_V3_FP8);
    uint32_t base;
    if (!checkpoint || !count_calls(c, checkpoint, &want, calls))
        return false;
    base = c->object_count;
    for (uint32_t kind = MH_CALL_MEMORY_INFO; kind < MH_CALL_RESET; kind++) {
        if (!calls[kind] || (only && kind != only))
            continue;
        uint64_t count = calls[kind] < c->limit ? calls[kind] : c->limit;
        for (uint64_t i = 0; i < count; i++) {
            uint64_t nth = pick(c, i, count, calls[kind]);
            mh_faults faults = {sizeof(faults), kind, status, nth, 0};
            if (!inject(c, checkpoint, faults, &want))
                return false;
            core_release_from(c, base);
        }
    }
    return true;
}

static bool calls_fail(struct core *c)
{
    c->limit = c->limit / 9 + 2; /* shared by the kinds */
    return sweep(c, MH_VENDOR_ERROR, 0);
}

static bool device_is_lost(struct core *c)
{
    c->limit = c->limit / 9 + 2;
    return sweep(c, MH_DEVICE_LOST, 0);
}

static bool memory_is_refused(struct core *c)
{
    return sweep(c, MH_OUT_OF_MEMORY, MH_CALL_BUFFER_CREATE);
}

/* Less memory than the model takes is an error that says so; as much as it takes is enough. */
static bool memory_ends(struct core *c)
{
    struct core_story want, story;
    mh_memory_info info = MH_INIT(mh_memory_info);
    mh_checkpoint *checkpoint = core_checkpoint(c, MODEL_V2_BF16);
    mh_device *device = core_device(c, NULL);
    if (!checkpoint || !device)
        return false;
    TRY(play(device, checkpoint, &want));
    TRY(mh_device_memory(device, &info));
    CHECK(info.peak > 1, "the model took %llu bytes", (unsigned long long)info.peak);
    uint32_t base = c->object_count;
    for (uint64_t i = 0; i < (c->limit < 200 ? c->limit : 200) / 4; i++) {
        mh_faults faults = MH_INIT(mh_faults);
        uint64_t drawn = 1 + conf_below(&c->random, (uint32_t)info.peak - 1);
        faults.memory_limit = i == 0 ? 1 : i == 1 ? info.peak - 1 : drawn;
        device = core_device(c, &faults);
        if (!device)
            return false;
        REFUSES(MH_OUT_OF_MEMORY, play(device, checkpoint, &story));
        if (!nothing_is_left(c, device))
            return false;
        core_release_from(c, base);
    }
    mh_faults enough = MH_INIT(mh_faults);
    enough.memory_limit = info.peak;
    device = core_device(c, &enough);
    if (!device)
        return false;
    TRY(play(device, checkpoint, &story));
    CHECK(same_story(&story, &want), "with just enough memory the model tells another story");
    return true;
}

/* ---- the host's own memory ---- */

struct allocator {
    uint64_t count, fails_at;
    int64_t live;
};

static void *allocate(void *user, uint64_t size)
{
    struct allocator *a = user;
    void *memory =
        __atomic_add_fetch(&a->count, 1, __ATOMIC_RELAXED) == a->fails_at ? NULL : malloc(size);
    __atomic_add_fetch(&a->live, memory != NULL, __ATOMIC_RELAXED);
    return memory;
}

static void deallocate(void *user, void *memory)
{
    __atomic_sub_fetch(&((struct allocator *)user)->live, memory != NULL, __ATOMIC_RELAXED);
    free(memory);
}

static mh_status play_with(struct allocator *a, struct core *c, mh_checkpoint *checkpoint,
                           struct core_story *story)
{
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.allocate = allocate, params.deallocate = deallocate, params.allocator_user = a;
    mh_status status = mh_runtime_create(&params, &runtime);
    if (!status)
        status = mh_device_open(runtime, mh_device_uri(c->device), NULL, &device);
    if (!status)
        status = play(device, checkpoint, story);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return status;
}

static bool host_memory_ends(struct core *c)
{
    struct core_story want, story;
    struct allocator counting = {0};
    mh_checkpoint *checkpoint = core_checkpoint(c, MODEL_V3_FP8);
    if (!checkpoint)
        return false;
    TRY(play_with(&counting, c, checkpoint, &want));
    CHECK(!counting.live, "%lld allocations were not given back", (long long)counting.live);
    uint64_t all = counting.count, count = all < c->limit ? all : c->limit;
    for (uint64_t i = 0; i < count; i++) {
        struct allocator a = {0};
        a.fails_at = pick(c, i, count, all);
        mh_status status = play_with(&a, c, checkpoint, &story);
        CHECK(!a.live, "allocation %llu failed: %lld others were not given back",
              (unsigned long long)a.fails_at, (long long)a.live);
        /* A backend whose module could not be loaded is listed with its reason: no device then. */
        CHECK(status == MH_OUT_OF_MEMORY || status == MH_NOT_FOUND || !status,
              "allocation %llu failed: %s", (unsigned long long)a.fails_at, mh_status_text(status));
        CHECK(status || same_story(&story, &want), "allocation %llu failed and changed the story",
              (unsigned long long)a.fails_at);
    }
    return true;
}

static bool stale_handles(struct core *c)
{
    mh_faults faults = {sizeof(faults), MH_CALL_COPY, MH_DEVICE_LOST, 2, 0};
    mh_device *device = core_device(c, &faults);
    mh_buffer *buffer = device ? core_buffer(c, device, 64) : NULL;
    mh_stream *stream = device ? core_stream(c, device) : NULL;
    mh_error cause = MH_INIT(mh_error);
    uint32_t word = 3;
    if (!buffer || !stream)
        return false;
    TRY(mh_buffer_write(buffer, 0, &word, 4));
    REFUSES(MH_DEVICE_LOST, mh_buffer_write(buffer, 0, &word, 4));
    TRY(mh_device_error(device, &cause));
    CHECK(strstr(cause.message, "injected"), "the cause is '%s'", cause.message);
    REFUSES(MH_DEVICE_LOST, mh_buffer_read(buffer, 0, &word, 4));
    TRY(mh_device_reset(device));
    REFUSES(MH_NOT_FOUND, mh_device_error(device, &cause));
    REFUSES(MH_STALE_HANDLE, mh_buffer_read(buffer, 0, &word, 4));
    REFUSES(MH_STALE_HANDLE, mh_stream_write(stream, buffer, 0, &word, 4));
    REFUSES(MH_STALE_HANDLE, mh_stream_wait(stream, MH_FOREVER));
    mh_buffer *fresh = core_buffer(c, device, 64);
    if (!fresh)
        return false;
    TRY(mh_buffer_write(fresh, 0, &word, 4));
    return true;
}

/* Without the layer: the backend resets, or says that it cannot. */
static bool reset_without_faults(struct core *c)
{
    mh_device *device = core_device(c, NULL);
    mh_buffer *buffer = device ? core_buffer(c, device, 64) : NULL;
    uint32_t word = 9;
    if (!buffer)
        return false;
    mh_status status = mh_device_reset(device);
    CHECK(!status || status == MH_UNSUPPORTED, "%s", mh_last_message());
    if (status)
        TRY(mh_buffer_write(buffer, 0, &word, 4));
    else
        REFUSES(MH_STALE_HANDLE, mh_buffer_write(buffer, 0, &word, 4));
    return true;
}

const struct core_case core_faults[] = {
    {"faults/calls-fail", calls_fail},
    {"faults/device-is-lost", device_is_lost},
    {"faults/memory-is-refused", memory_is_refused},
    {"faults/memory-ends", memory_ends},
    {"faults/host-memory-ends", host_memory_ends},
    {"faults/stale-handles", stale_handles},
    {"faults/reset", reset_without_faults},
    {0},
};
