/* cmd_bench.c: how fast a model, an op, or a device's memory and arithmetic are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

/* ---- what the kinds of bench share ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(const double *values, int64_t count)
{
    double sorted[BENCH_ROUNDS];
    if (count < 1)
        return 0;
    memcpy(sorted, values, (size_t)count * sizeof(*values));
    qsort(sorted, (size_t)count, sizeof(*sorted), by_value);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

bool bench_goes_on(const struct bench_options *o, int64_t done, double begin)
{
    if (interrupted())
        return false;
    if (o->rounds)
        return done < o->rounds;
    return done < 3 || (done < 15 && now_seconds() - begin < 10);
}

uint32_t bench_threads(const struct bench_options *o, const mh_device_info *info)
{
    return o->setup.threads ? (uint32_t)o->setup.threads
                            : (info->compute_units ? info->compute_units : 1);
}

void bench_print_device(mh_device *device, const mh_device_info *info, uint32_t profile)
{
    bool is_virtual = info->flags & MH_DEVICE_IS_VIRTUAL;
    printf("%s%s (%s), %s%s\n", mh_device_uri(device), is_virtual ? " (virtual)" : "", info->name,
           profile == MH_PROFILE_FAST ? "fast" : "exact",
           is_virtual ? "; times are those of software, not of a GPU" : "");
}

json_t *bench_number(bool is, double value)
{
    return is && isfinite(value) ? json_real(value) : json_null();
}

int bench_print_json(json_t *object)
{
    int failed = !object || json_dumpf(object, stdout, JSON_REAL_PRECISION(6) | JSON_INDENT(2));
    if (!failed)
        putchar('\n');
    json_decref(object);
    return failed ? EXIT_FAILED : EXIT_DONE;
}

/* ---- bandwidth ---- */

static mh_status measure(const struct bench_options *o, struct limits *limits, double *read,
                         double *fma, int64_t *rounds)
{
    double reads[BENCH_ROUNDS], fmas[BENCH_ROUNDS], begin = now_seconds();
    mh_status status = MH_OK;
    for (*rounds = 0; !status && bench_goes_on(o, *rounds, begin); ++*rounds) {
        status = limits_read(limits, UINT64_C(1) << 29, &reads[*rounds]);
        if (!status)
            status = limits_fma(limits, &fmas[*rounds]);
    }
    *read = bench_median(reads, *rounds);
    *fma = bench_median(fmas, *rounds);
    return status;
}

static void print_bandwidth(const struct bench_options *o, mh_device *device,
                            const mh_device_info *info, const struct limits *limits, double read,
                            double fma, int64_t rounds)
{
    if (o->setup.json) {
        bench_print_json(json_pack(
            "{s:s, s:b, s:o, s:s, s:o, s:s, s:s, s:I}", "device", mh_device_uri(device), "virtual",
            !!(info->flags & MH_DEVICE_IS_VIRTUAL), "bandwidth_GBps",
            bench_number(limits_known(limits), read), "bandwidth_kernel", limits_best_read(limits),
            "fma_GFLOPS", bench_number(limits_known(limits), fma), "fma_kernel",
            limits_best_fma(limits), "limits", limits_how(limits), "rounds", (json_int_t)rounds));
        return;
    }
    bench_print_device(device, info, MH_PROFILE_EXACT);
    if (!limits_known(limits)) {
        printf("not measured: this device has no linear op of its own\n");
        return;
    }
    printf("read       %8.1f GB/s    %s\n", read, limits_best_read(limits));
    printf("FMA f32    %8.1f GFLOPS  %s\n", fma, limits_best_fma(limits));
    printf("measured with %s; medians of %lld rounds\n", limits_how(limits), (long long)rounds);
}

int bench_bandwidth(const struct bench_options *o)
{
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    struct limits *limits = NULL;
    mh_device_info info = MH_INIT(mh_device_info);
    mh_device_params params = MH_INIT(mh_device_params);
    params.threads = (uint32_t)o->setup.threads;
    double read = 0, fma = 0;
    int64_t rounds = 0;
    mh_status status = mh_runtime_create(NULL, &runtime);
    if (!status)
        status = mh_device_open(runtime, o->setup.device, &params, &device);
    if (!status)
        status = mh_device_get_info(device, &info);
    if (!status)
        status = limits_open(device, NULL, 0, bench_threads(o, &info), &limits);
    if (!status)
        status = measure(o, limits, &read, &fma, &rounds);
    if (!status && interrupted())
        status = mh_fail(MH_CANCELLED, "interrupted");
    if (!status)
        print_bandwidth(o, device, &info, limits, read, fma, rounds);
    limits_close(limits);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return status ? report_failure(status) : EXIT_DONE;
}

/* ---- the command ---- */

static int check_words(const char **words, const struct bench_options *o)
{
    bool model = words[0] && !strcmp(words[0], "model");
    bool bandwidth = words[0] && !strcmp(words[0], "bandwidth");
    bool op = words[0] && !strcmp(words[0], "op");
    if (!words[0])
        return usage_error(&command_bench, "what to measure is needed: model, op or bandwidth");
    if (!model && !bandwidth && !op)
        return usage_error(&command_bench, "'%s', must be model, op or bandwidth", words[0]);
    if (op && !words[1])
        return usage_error(&command_bench, "op: the name of one is needed; docs/ops.md lists them");
    if (!op && o->shape)
        return usage_error(&command_bench, "--shape is for bench op only");
    if (words[1] && !op)
        return usage_error(&command_bench, "'%s' is not expected here", words[1]);
    if (o->setup.timeline)
        return usage_error(&command_bench,
                           "--timeline: it would be measured too; use it with generate");
    if (!model && o->batch)
        return usage_error(&command_bench, "--batch is for bench model only");
    if (!model && (o->setup.model || o->against))
        return usage_error(&command_bench, "--%s is for bench model only",
                           o->setup.model ? "model" : "against");
    return -1;
}

static int run(int argc, char **argv)
{
    struct bench_options o = {.prefill = 512, .decode = 16};
    const char *words[2] = {NULL, NULL};
    const struct option options[] = {
        SETUP_OPTIONS(o.setup),
        {"against", OPTION_TEXT, &o.against, "DIR",
         "a second checkpoint, measured in turn with the first; ratios are printed"},
        {"prefill", OPTION_INTEGER, &o.prefill, "N", "tokens of the prompt; default 512; 0: none",
         0, 1 << 20},
        {"decode", OPTION_INTEGER, &o.decode, "N",
         "tokens decoded after it, a round; default 16; 0: none", 0, 1 << 20},
        {"batch", OPTION_TEXT, &o.batch, "N[,M]",
         "sequences that decode side by side; several sizes are measured in turn; default 1"},
        {"shape", OPTION_TEXT, &o.shape, "SHAPE",
         "of an op: v2-lite (default), v3, or sizes like fp8/T1.O576.I7168"},
        {"counters", OPTION_FLAG, &o.counters, NULL,
         "also what the device counts by itself, of one launch or decode step"},
        {"rounds", OPTION_INTEGER, &o.rounds, "N",
         "rounds to take the median of; default: 3 to 15, some ten seconds", 1, BENCH_ROUNDS},
        {0},
    };
    int code = parse_options(&command_bench, options, argc, argv, words, 2);
    if (code < 0)
        code = check_words(words, &o);
    if (code >= 0)
        return code;
    catch_interrupt();
    if (!strcmp(words[0], "op"))
        return bench_op(&o, words[1]);
    return strcmp(words[0], "model") ? bench_bandwidth(&o) : bench_model(&o);
}

const struct command command_bench = {
    "bench",
    "(model --model DIR [--against DIR] [--batch N,M] | op NAME | bandwidth) [options]",
    "speed, against what the machine can do, measured in the same run",
    "  moehal bench model --model models/fairy\n"
    "  moehal bench model --model DIR --prefill 0 --decode 64 --threads 2 --json\n"
    "  moehal bench model --model FP8-DIR --against BF16-DIR\n"
    "  moehal bench model --model DIR --prefill 0 --batch 1,8\n"
    "  moehal bench op linear --shape v3\n"
    "  moehal bench op experts_gate_up --shape bf16/T8.J6.D2048.I1408.S64.E64 --json\n"
    "  moehal bench bandwidth --device host",
    run,
};
