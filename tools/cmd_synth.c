#include <string.h>

#include <moehal-model/synth.h>

#include "tool.h"

static int run(int argc, char **argv)
{
    const char *name = NULL, *out = NULL, *dtype = "bf16";
    int64_t layers = 0, seed = 0;
    const struct option options[] = {
        {"out", OPTION_TEXT, &out, "DIR", "directory to write; must hold no checkpoint"},
        {"layers", OPTION_INTEGER, &layers, "N", "layers to make; default all", 1, 4096},
        {"dtype", OPTION_TEXT, &dtype, "bf16|f16|fp8",
         "of the weights; fp8: of the projections; default bf16"},
        {"seed", OPTION_INTEGER, &seed, "S", "of the generator; default 0", 0, 9007199254740991.0},
        {0},
    };
    int code = parse_options(&command_synth, options, argc, argv, &name, 1);
    if (code >= 0)
        return code;
    if (!name || !out)
        return usage_error(&command_synth, "%s is needed", name ? "--out DIR" : "NAME");
    if (strcmp(dtype, "bf16") && strcmp(dtype, "f16") && strcmp(dtype, "fp8"))
        return usage_error(&command_synth, "--dtype: '%s', must be bf16, f16 or fp8", dtype);
    struct progress progress = {.what = "writing", .bytes = true};
    mh_synth_params params = MH_INIT(mh_synth_params);
    params.name = name;
    params.out = out;
    params.layers = layers;
    params.dtype = !strcmp(dtype, "fp8")   ? MH_SYNTH_FP8
                   : !strcmp(dtype, "f16") ? MH_SYNTH_F16
                                           : MH_SYNTH_BF16;
    params.seed = (uint64_t)seed;
    params.progress = show_progress;
    params.user = &progress;
    catch_interrupt();
    mh_status status = mh_synth(&params);
    end_progress(&progress);
    return status ? report_failure(status) : EXIT_DONE;
}

const struct command command_synth = {
    "synth",
    "NAME --out DIR [options]",
    "a random checkpoint of a named shape: v3, v2-lite, v2, moonlight, or a config.json",
    "  moehal synth v2-lite --layers 4 --out /tmp/lite4\n"
    "  moehal synth v3 --layers 5 --dtype fp8 --out /tmp/v3-5",
    run,
};
