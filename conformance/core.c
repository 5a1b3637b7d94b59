#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool core_fail(struct core *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->result->message, sizeof(c->result->message), format, args);
    va_end(args);
    return false;
}

bool core_fallback(struct core *c, const char *reason)
{
    c->fallback = true;
    return core_fail(c, "%s", reason);
}

void core_keep(struct core *c, void (*release)(void *), void *object)
{
    if (c->object_count == sizeof(c->objects) / sizeof(c->objects[0]))
        return; /* a case with more objects than that leaks, which the sanitizer tells */
    c->objects[c->object_count++] = (struct core_object){release, object};
}

void core_release_from(struct core *c, uint32_t first)
{
    while (c->object_count > first) {
        struct core_object *o = &c->objects[--c->object_count];
        o->release(o->object);
    }
}

static void release_buffer(void *buffer)
{
    mh_buffer_release(buffer);
}

static void release_stream(void *stream)
{
    mh_stream_release(stream);
}

static void release_device(void *device)
{
    mh_device_release(device);
}

mh_buffer *core_buffer(struct core *c, mh_device *device, uint64_t size)
{
    mh_buffer *buffer = NULL;
    if (mh_buffer_create(device, size, MH_BUFFER_DEVICE, &buffer))
        core_fail(c, "mh_buffer_create: %s", mh_last_message());
    else
        core_keep(c, release_buffer, buffer);
    return buffer;
}

mh_stream *core_stream(struct core *c, mh_device *device)
{
    mh_stream *stream = NULL;
    if (mh_stream_create(device, &stream))
        core_fail(c, "mh_stream_create: %s", mh_last_message());
    else
        core_keep(c, release_stream, stream);
    return stream;
}

mh_device *core_device(struct core *c, const mh_faults *faults)
{
    mh_device *device = NULL;
    mh_device_params params = MH_INIT(mh_device_params);
    params.faults = faults;
    params.threads = c->suite->options->threads;
    if (mh_device_open(c->suite->runtime, mh_device_uri(c->suite->device.device), &params, &device))
        core_fail(c, "mh_device_open: %s", mh_last_message());
    else
        core_keep(c, release_device, device);
    return device;
}

int core_enumerate(bool fast, int (*visit)(void *user, const struct core_case *core_case),
                   void *user)
{
    static const struct core_case *const groups[] = {core_memory,  core_weights, core_streams,
                                                     core_graphs,  core_faults,  core_models,
                                                     core_vectors, core_comm};
    static const struct core_case *const fast_groups[] = {core_fast, core_fast_fused};
    const struct core_case *const *chosen = fast ? fast_groups : groups;
    size_t count =
        fast ? sizeof(fast_groups) / sizeof(fast_groups[0]) : sizeof(groups) / sizeof(groups[0]);
    for (size_t g = 0; g < count; g++)
        for (const struct core_case *t = chosen[g]; t->name; t++) {
            int status = visit(user, t);
            if (status)
                return status;
        }
    return 0;
}

void core_run(struct conf_suite *s, const struct core_case *core_case, struct conf_result *result)
{
    struct core c = {.suite = s,
                     .device = s->device.device,
                     .stream = s->device.stream,
                     .random = conf_random_of(s->options->seed, core_case->name),
                     .limit = s->options->all_faults ? UINT32_MAX
                              : s->options->quick    ? 24
                                                     : 200,
                     .result = result};
    result->outcome = core_case->run(&c) ? CONF_PASSED : c.fallback ? CONF_FALLBACK : CONF_FAILED;
    core_release_from(&c, 0);
}
