/* timeline.c: the file of a timeline, as a Chrome trace or as JSON lines. */
#include "timeline.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DEVICES 64 /* whose names are kept for JSON lines; later ones are numbers */

struct mh_timeline {
    atomic_uint refs;
    mh_runtime *runtime;
    uint32_t format;
    uint64_t start;
    char path[512];
    pthread_mutex_t lock; /* guards all that follows */
    FILE *file;           /* NULL: finished */
    mh_status status;     /* of writing */
    bool any;             /* an event is in the file */
    uint32_t devices;
    char uris[DEVICES][64];
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void timeline_quote(const char *text, char *to, size_t size)
{
    size_t used = 0;
    to[used++] = '"';
    for (const unsigned char *c = (const unsigned char *)text; *c && used + 8 < size; c++) {
        if (*c == '"' || *c == '\\')
            to[used++] = '\\';
        if (*c < 0x20 || *c >= 0x7f) /* bytes, whatever their encoding was meant to be */
            used += (size_t)snprintf(to + used, size - used, "\\u%04x", *c);
        else
            to[used++] = (char)*c;
    }
    to[used++] = '"';
    to[used] = 0;
}

/* ---- life ---- */

mh_status mh_timeline_create(mh_runtime *runtime, const char *path, uint32_t format,
                             mh_timeline **out)
{
    if (!runtime || !path || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_timeline_create: %s is NULL",
                       !runtime ? "runtime" : (path ? "out" : "path"));
    *out = NULL;
    if (format != MH_TIMELINE_CHROME && format != MH_TIMELINE_LINES)
        return hal_fail(runtime, MH_INVALID_ARGUMENT,
                        "mh_timeline_create: format is %u, must be 1 or 2", format);
    mh_timeline *t = hal_alloc(runtime, sizeof(*t));
    if (!t)
        return MH_OUT_OF_MEMORY;
    t->file = fopen(path, "we");
    if (!t->file) {
        mh_status status =
            hal_fail(runtime, MH_IO_ERROR, "%s: could not be created: %s", path, strerror(errno));
        hal_free(runtime, t);
        return status;
    }
    atomic_init(&t->refs, 1);
    t->runtime = mh_runtime_retain(runtime);
    t->format = format;
    t->start = now_ns();
    snprintf(t->path, sizeof(t->path), "%s", path);
    pthread_mutex_init(&t->lock, NULL);
    setvbuf(t->file, NULL, _IOFBF, 1 << 18);
    if (format == MH_TIMELINE_CHROME)
        fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[", t->file);
    timeline_add_lane(t, 0, 0, NULL);
    *out = t;
    return MH_OK;
}

mh_timeline *mh_timeline_retain(mh_timeline *t)
{
    if (t)
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

mh_status mh_timeline_finish(mh_timeline *t)
{
    if (!t)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_timeline_finish: timeline is NULL");
    pthread_mutex_lock(&t->lock);
    if (t->file) {
        if (t->format == MH_TIMELINE_CHROME)
            fputs("\n]}\n", t->file);
        bool failed = ferror(t->file);
        const char *why = "input/output error";
        if (fclose(t->file)) {
            failed = true;
            why = strerror(errno);
        }
        t->file = NULL;
        if (failed)
            t->status =
                hal_fail(t->runtime, MH_IO_ERROR, "%s: could not be written: %s", t->path, why);
    }
    mh_status status = t->status;
    pthread_mutex_unlock(&t->lock);
    return status;
}

void mh_timeline_release(mh_timeline *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    mh_runtime *runtime = t->runtime;
    mh_timeline_finish(t);
    pthread_mutex_destroy(&t->lock);
    hal_free(runtime, t);
    mh_runtime_release(runtime);
}

mh_runtime *timeline_runtime(const mh_timeline *t)
{
    return t->runtime;
}

uint64_t mh_timeline_now(const mh_timeline *t)
{
    return t ? now_ns() - t->start : 0;
}

/* ---- events ---- */

static void separate(mh_timeline *t)
{
    fputs(t->any && t->format == MH_TIMELINE_CHROME ? ",\n" : t->any ? "" : "\n", t->file);
    t->any = true;
}

static void put_name(mh_timeline *t, const char *kind, uint32_t device, uint32_t lane,
                     const char *name)
{
    char quoted[256];
    timeline_quote(name, quoted, sizeof(quoted));
    separate(t);
    fprintf(t->file, "{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":%s}}",
            kind, device, lane, quoted);
}

uint32_t timeline_add_device(mh_timeline *t, const mh_device *device)
{
    char name[256];
    pthread_mutex_lock(&t->lock);
    uint32_t number = ++t->devices;
    if (number <= DEVICES)
        snprintf(t->uris[number - 1], sizeof(t->uris[0]), "%s", device->uri);
    if (t->file && t->format == MH_TIMELINE_CHROME) {
        bool is_virtual = device->info.flags & MH_DEVICE_IS_VIRTUAL;
        snprintf(name, sizeof(name), "%s%s (%s)", device->uri, is_virtual ? " (virtual)" : "",
                 device->info.name);
        put_name(t, "process_name", number, 0, name);
    }
    pthread_mutex_unlock(&t->lock);
    timeline_add_lane(t, number, TIMELINE_LAUNCHES, "graph launches");
    return number;
}

void timeline_add_lane(mh_timeline *t, uint32_t device, uint32_t lane, const char *name)
{
    if (t->format != MH_TIMELINE_CHROME)
        return;
    pthread_mutex_lock(&t->lock);
    if (t->file && !name)
        put_name(t, "process_name", device, lane, "moehal");
    if (t->file)
        put_name(t, "thread_name", device, lane, name ? name : "spans");
    pthread_mutex_unlock(&t->lock);
}

static void put_chrome(mh_timeline *t, const struct timeline_event *e, const char *name,
                       uint64_t end)
{
    separate(t);
    fprintf(t->file,
            "{\"ph\":\"X\",\"cat\":\"%s\",\"name\":%s,\"pid\":%u,\"tid\":%u,\"ts\":%llu.%03llu,"
            "\"dur\":%llu.%03llu,\"args\":{%s}}",
            e->type, name, e->device, e->lane, (unsigned long long)e->begin / 1000,
            (unsigned long long)e->begin % 1000, (unsigned long long)(end - e->begin) / 1000,
            (unsigned long long)(end - e->begin) % 1000, *e->details ? e->details + 1 : "");
}

static void put_line(mh_timeline *t, const struct timeline_event *e, const char *name, uint64_t end)
{
    const char *uri = e->device && e->device <= DEVICES ? t->uris[e->device - 1] : "";
    fprintf(t->file, "{\"type\":\"%s\",\"name\":%s,\"device\":\"%s\",", e->type, name, uri);
    if (e->device && e->lane >= TIMELINE_STREAMS)
        fprintf(t->file, "\"stream\":%u,", (e->lane + 1) / 2);
    fprintf(t->file, "\"begin_ns\":%llu,\"ns\":%llu%s}\n", (unsigned long long)e->begin,
            (unsigned long long)(end - e->begin), e->details);
}

void timeline_put(mh_timeline *t, const struct timeline_event *e)
{
    uint64_t end = mh_timeline_now(t);
    char name[256];
    timeline_quote(e->name, name, sizeof(name));
    pthread_mutex_lock(&t->lock);
    if (t->file)
        (t->format == MH_TIMELINE_CHROME ? put_chrome : put_line)(t, e, name, end);
    pthread_mutex_unlock(&t->lock);
}

void timeline_put_memory(mh_timeline *t, uint32_t device, uint64_t bytes)
{
    uint64_t now = mh_timeline_now(t);
    pthread_mutex_lock(&t->lock);
    if (t->file && t->format == MH_TIMELINE_CHROME) {
        separate(t);
        fprintf(t->file,
                "{\"ph\":\"C\",\"name\":\"memory\",\"pid\":%u,\"tid\":0,\"ts\":%llu.%03llu,"
                "\"args\":{\"bytes\":%llu}}",
                device, (unsigned long long)now / 1000, (unsigned long long)now % 1000,
                (unsigned long long)bytes);
    } else if (t->file) {
        fprintf(t->file,
                "{\"type\":\"memory\",\"device\":\"%s\",\"begin_ns\":%llu,\"bytes\":%llu}\n",
                device <= DEVICES ? t->uris[device - 1] : "", (unsigned long long)now,
                (unsigned long long)bytes);
    }
    pthread_mutex_unlock(&t->lock);
}

void mh_timeline_span(mh_timeline *t, const char *name, uint64_t begin)
{
    const struct timeline_event e = {"span", name ? name : "", 0, 0, begin, ""};
    if (t)
        timeline_put(t, &e);
}
