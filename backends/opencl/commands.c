/* commands.c: graphs as command buffers (cl_khr_command_buffer), where the driver has them and
 * takes them; else graph.c enqueues kernel by kernel. */
#include <string.h>

#include "launch.h"

static const char *const names[] = {
#define SYMBOL(need, result, field, name, args) name,
#include "cl_command_buffer.def"
#undef SYMBOL
};

void opencl_find_commands(struct device *device, cl_platform_id platform)
{
    const struct cl_api *cl = device->cl;
    void *found[sizeof(names) / sizeof(names[0])];
    cl_bitfield capabilities = 0, required = 0;
    if (!opencl_has_extension(cl, device->id, "cl_khr_command_buffer"))
        return;
    cl->GetDeviceInfo(device->id, CL_DEVICE_COMMAND_BUFFER_CAPABILITIES_KHR, sizeof(capabilities),
                      &capabilities, NULL);
    if (cl->GetDeviceInfo(device->id, CL_DEVICE_COMMAND_BUFFER_REQUIRED_QUEUE_PROPERTIES_KHR,
                          sizeof(required), &required, NULL) ||
        required & ~(cl_bitfield)CL_QUEUE_PROFILING_ENABLE)
        return; /* queues that we do not have */
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        found[i] = cl->GetExtensionFunctionAddressForPlatform(platform, names[i]);
        if (!found[i])
            return;
    }
    _Static_assert(sizeof(device->commands) == sizeof(found), "a pointer for each name");
    memcpy(&device->commands, found, sizeof(found));
    device->simultaneous = capabilities & CL_COMMAND_BUFFER_CAPABILITY_SIMULTANEOUS_USE_KHR;
}

static cl_command_buffer_khr record(const struct graph *graph, cl_command_queue queue)
{
    struct device *device = graph->device;
    const struct cl_command_buffer_api *api = &device->commands;
    const cl_command_buffer_properties_khr properties[] = {
        CL_COMMAND_BUFFER_FLAGS_KHR, CL_COMMAND_BUFFER_SIMULTANEOUS_USE_KHR, 0};
    const size_t local[3] = {device->lanes, 1, 1};
    cl_int code = 0;
    cl_command_buffer_khr buffer =
        api->CreateCommandBufferKHR(1, &queue, device->simultaneous ? properties : NULL, &code);
    if (!buffer)
        return NULL;
    for (uint32_t i = 0; !code && i < graph->count; i++)
        code = api->CommandNDRangeKernelKHR(buffer, NULL, NULL, graph->nodes[i].kernel, 3, NULL,
                                            graph->nodes[i].global, local, 0, NULL, NULL, NULL);
    if (!code)
        code = api->FinalizeCommandBufferKHR(buffer);
    if (!code)
        return buffer;
    api->ReleaseCommandBufferKHR(buffer);
    return NULL;
}

void opencl_record_commands(struct graph *graph)
{
    struct device *device = graph->device;
    struct commands *c = &graph->commands;
    cl_int code;
    if (!device->commands.CreateCommandBufferKHR || !graph->count)
        return;
    cl_command_queue queue = opencl_queue(device, &code);
    if (!queue)
        return;
    for (uint32_t wanted = device->simultaneous ? 1 : 2; c->count < wanted; c->count++) {
        c->buffer[c->count] = record(graph, queue);
        if (!c->buffer[c->count])
            break;
    }
    device->cl->ReleaseCommandQueue(queue);
}

/* Is the launch that `*last` stands for over? Then it is forgotten. */
static bool is_over(struct device *device, cl_event *last)
{
    cl_int state = 0;
    if (*last && (device->cl->GetEventInfo(*last, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(state),
                                           &state, NULL) ||
                  state > CL_COMPLETE))
        return false;
    if (*last)
        device->cl->ReleaseEvent(*last);
    *last = NULL;
    return true;
}

bool opencl_launch_commands(struct graph *graph, struct stream *stream)
{
    struct device *device = graph->device;
    struct commands *c = &graph->commands;
    uint32_t i = 0;
    while (i < c->count && !is_over(device, &c->last[i]))
        i++;
    if (i == c->count ||
        device->commands.EnqueueCommandBufferKHR(1, &stream->queue, c->buffer[i], 0, NULL,
                                                 device->simultaneous ? NULL : &c->last[i]))
        return false;
    atomic_fetch_add(&device->commanded, 1);
    return true;
}

void opencl_release_commands(struct graph *graph)
{
    struct commands *c = &graph->commands;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->last[i])
            graph->device->cl->ReleaseEvent(c->last[i]);
        graph->device->commands.ReleaseCommandBufferKHR(c->buffer[i]);
    }
}

/* ---- which way graphs went ---- */

static mh_status read_counter(void *user, uint32_t index, const char **name, uint64_t *value)
{
    struct device *device = user;
    if (index > 1)
        return MH_NOT_FOUND;
    *name = index ? "graphs as command buffers" : "graphs kernel by kernel";
    *value = atomic_load(index ? &device->commanded : &device->replayed);
    return MH_OK;
}

const mh_backend_counters opencl_counters_group = {sizeof(opencl_counters_group), read_counter};
