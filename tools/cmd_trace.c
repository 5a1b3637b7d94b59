/* cmd_trace.c: every value a model's graph writes, op by op, into a file. */
#include <stdlib.h>
#include <string.h>

#include "trace.h"

static int save(struct setup *setup, const char *ids, const char *path, bool json)
{
    struct trace_key key;
    uint64_t ops = 0;
    int code = trace_key_make(&command_trace, setup, ids, &key);
    if (code >= 0)
        return code;
    struct trace *trace = trace_create();
    mh_status status = trace ? MH_OK : mh_fail(MH_OUT_OF_MEMORY, "no memory for a trace");
    if (!status)
        status = trace_run(setup, &key, trace_add, trace, &ops);
    if (!status)
        status = trace_save(trace, &key, path);
    if (!status)
        printf(json ? "{\"device\": \"%s\", \"virtual\": %s, \"ops\": %llu, \"bytes\": %llu}\n"
                    : "%s%s: %llu ops, %llu bytes\n",
               mh_device_uri(setup->device),
               setup->info.flags & MH_DEVICE_IS_VIRTUAL ? (json ? "true" : " (virtual)")
                                                        : (json ? "false" : ""),
               (unsigned long long)ops, (unsigned long long)trace_bytes(trace));
    trace_free(trace);
    free(key.ids);
    return status ? report_failure(status) : EXIT_DONE;
}

static int run(int argc, char **argv)
{
    struct setup_options in = {0};
    const char *ids = NULL, *path = NULL;
    struct setup setup;
    const struct option options[] = {
        SETUP_OPTIONS(in),
        {"ids", OPTION_TEXT, &ids, "\"0 17 4\"",
         "the tokens; default eight that every machine takes"},
        {"save", OPTION_TEXT, &path, "FILE", "where to write the trace, a safetensors file"},
        {0},
    };
    int code = parse_options(&command_trace, options, argc, argv, NULL, 0);
    if (code >= 0)
        return code;
    if (!path)
        return usage_error(&command_trace, "--save FILE is needed");
    catch_interrupt();
    code = setup_open(&setup, &command_trace, &in);
    if (code < 0)
        code = save(&setup, ids, path, in.json);
    return setup_close(&setup, code);
}

const struct command command_trace = {
    "trace",
    "--model DIR --device URI --save FILE [options]",
    "every value a model's graph writes, op by op, as safetensors",
    "  moehal trace --model models/fairy --device host --save host.trace\n"
    "  moehal diff --model models/fairy --a nvidia:0 --against host.trace",
    run,
};
