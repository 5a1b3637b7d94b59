/* cmd_devices.c: the doctor. */
#include <jansson.h>
#include <string.h>

#include "tool.h"

/* 2 x 3 times 3, small integers: any device must give exactly this. `how` says what ran it. */
static mh_status tiny_check(mh_device *device, char how[512])
{
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {10, 20, 30, 40, 50, 60};
    const int64_t shape[] = {2, 3};
    mh_buffer *buffer = NULL;
    mh_stream *stream = NULL;
    float y[6] = {0};
    mh_op_add add = MH_OP_INIT(add, ADD);
    mh_support support = MH_INIT(mh_support);
    mh_status status = mh_buffer_create(device, 768, MH_BUFFER_DEVICE, &buffer);
    if (!status)
        status = mh_stream_create(device, &stream);
    if (!status)
        status = mh_stream_write(stream, buffer, 0, a, sizeof(a));
    if (!status)
        status = mh_stream_write(stream, buffer, 256, b, sizeof(b));
    add.a = mh_tensor_make(buffer, 0, MH_F32, 2, shape);
    add.b = mh_tensor_make(buffer, 256, MH_F32, 2, shape);
    add.y = mh_tensor_make(buffer, 512, MH_F32, 2, shape);
    if (!status)
        status = mh_device_supports(device, &add.base, &support);
    bool exact = support.runs == MH_RUNS_NATIVE;
    mh_support fast = MH_INIT(mh_support);
    if (!status && !exact) {
        add.base.flags = MH_OP_FAST;
        status = mh_device_supports(device, &add.base, &fast);
    }
    if (!status)
        status = mh_encode(mh_stream_encoder(stream), &add.base);
    if (!status)
        status = mh_stream_read(stream, buffer, 512, y, sizeof(y));
    if (!status)
        status = mh_stream_wait(stream, MH_FOREVER);
    if (!exact && fast.runs == MH_RUNS_NATIVE)
        snprintf(how, 512, "computes with --profile fast; %s", support.reason);
    else
        snprintf(how, 512, "%s", exact ? "computes" : "copies; ops fall back to the host");
    for (int i = 0; !status && i < 6; i++)
        if (y[i] != a[i] + b[i])
            status = mh_fail(MH_INTERNAL, "computed %g + %g = %g", (double)a[i], (double)b[i],
                             (double)y[i]);
    mh_stream_release(stream);
    mh_buffer_release(buffer);
    return status;
}

struct verdict {
    bool pass;
    char text[768];
};

static struct verdict examine(mh_runtime *runtime, const char *uri)
{
    struct verdict v = {0};
    mh_device *device = NULL;
    mh_status status = mh_device_open(runtime, uri, NULL, &device);
    if (!status)
        status = tiny_check(device, v.text);
    v.pass = !status;
    if (status)
        snprintf(v.text, sizeof(v.text), "%s", mh_last_message());
    mh_device_release(device);
    return v;
}

static void print_row(json_t *list, const mh_backend_info *backend, const char *uri,
                      const mh_device_info *device, const struct verdict *v)
{
    bool is_virtual = device && device->flags & MH_DEVICE_IS_VIRTUAL;
    if (!list) {
        printf("%-4s  %-12s %s%s%s\n", v->pass ? "PASS" : "FAIL", uri, device ? device->name : "",
               is_virtual ? " (virtual)" : "", device ? "" : backend->description);
        printf("      %s\n", v->text);
        return;
    }
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:s}", "uri", uri,
                                          "backend", backend->name, "id", device ? device->id : "",
                                          "name", device ? device->name : "", "virtual", is_virtual,
                                          "pass", v->pass, "memory_bytes",
                                          device ? (json_int_t)device->memory_bytes : 0, "reason",
                                          v->text));
}

static void list_backend(mh_runtime *runtime, uint32_t index, const mh_backend_info *backend,
                         json_t *list)
{
    struct verdict v = {0};
    if (backend->status || !backend->device_count) {
        snprintf(v.text, sizeof(v.text), "%s", backend->status ? backend->reason : "no devices");
        print_row(list, backend, backend->name, NULL, &v);
    }
    for (uint32_t d = 0; d < backend->device_count; d++) {
        mh_device_info info = MH_INIT(mh_device_info);
        char uri[64];
        if (mh_runtime_device(runtime, index, d, &info))
            continue;
        snprintf(uri, sizeof(uri), "%s:%u", backend->name, d);
        v = examine(runtime, uri);
        print_row(list, backend, uri, &info, &v);
    }
}

static int run(int argc, char **argv)
{
    bool json = false, is_virtual = false;
    const struct option options[] = {
        {"virtual", OPTION_FLAG, &is_virtual, NULL, "the virtual GPUs"},
        {"json", OPTION_FLAG, &json, NULL, "one JSON array on stdout"},
        {0},
    };
    int code = parse_options(&command_devices, options, argc, argv, NULL, 0);
    if (code >= 0)
        return code;
    mh_runtime *runtime;
    mh_status status = mh_runtime_create(NULL, &runtime);
    if (status)
        return report_failure(status);
    json_t *list = json ? json_array() : NULL;
    mh_backend_info backend = MH_INIT(mh_backend_info);
    for (uint32_t b = 0; mh_runtime_backend(runtime, b, &backend) == MH_OK; b++) {
        list_backend(runtime, b, &backend, list);
        backend = MH_INIT(mh_backend_info);
    }
    if (list && !json_dumpf(list, stdout, JSON_INDENT(1)))
        putchar('\n');
    json_decref(list);
    mh_runtime_release(runtime);
    return EXIT_DONE;
}

const struct command command_devices = {
    "devices",
    "[--virtual] [--json]",
    "every backend and device: PASS, or the reason why not",
    "  moehal devices\n  moehal devices --json",
    run,
};
