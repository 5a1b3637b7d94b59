/* conformance.c: the run: every case that the filter lets through, in order. */
#include "conformance.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "exclusions.h"

struct run {
    struct conf_suite suite;
    struct conf_exclusions exclusions;
    struct conf_summary *summary;
    uint64_t total;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool is_wanted(const struct run *run, const char *name)
{
    const char *filter = run->suite.options->filter;
    return !filter || !fnmatch(filter, name, 0);
}

static int report(struct run *run, struct conf_result *result, double began)
{
    struct conf_summary *summary = run->summary;
    const struct conf_options *options = run->suite.options;
    conf_exclusions_apply(&run->exclusions, result);
    result->seconds = now() - began;
    summary->cases++;
    summary->outcomes[result->outcome]++;
    summary->op_cases += result->op || options->fast; /* its cases are all of ops */
    summary->native += result->native;
    int stop = options->progress
                   ? options->progress(options->user, result, summary->cases, run->total)
                   : 0;
    summary->cancelled |= stop != 0;
    return stop;
}

static int visit_op(void *user, struct conf_case *c)
{
    struct run *run = user;
    char format[32];
    double began = now();
    if (!is_wanted(run, c->name))
        return 0;
    struct conf_result result = {.name = c->name, .op = c->op};
    result.format = conf_format_name(c, format);
    conf_run_case(&run->suite, c, &result);
    return report(run, &result, began);
}

static int visit_core(void *user, const struct core_case *core_case)
{
    struct run *run = user;
    double began = now();
    if (!is_wanted(run, core_case->name))
        return 0;
    struct conf_result result = {.name = core_case->name, .format = ""};
    core_run(&run->suite, core_case, &result);
    result.native = run->suite.options->fast && result.outcome != CONF_FALLBACK;
    return report(run, &result, began);
}

static int count_op(void *user, struct conf_case *c)
{
    struct run *run = user;
    run->total += is_wanted(run, c->name);
    return 0;
}

static int count_core(void *user, const struct core_case *core_case)
{
    struct run *run = user;
    run->total += is_wanted(run, core_case->name);
    return 0;
}

static void run_all(struct run *run)
{
    const struct conf_options *o = run->suite.options;
    struct conf_case one;
    if (!o->fast)
        conf_enumerate(o->seed, o->quick, count_op, run);
    core_enumerate(o->fast, count_core, run);
    /* A name that is none of the list's may still be a case: sizes of someone's model. */
    if (!o->fast && !run->total && o->filter && conf_case_parse(o->filter, &one)) {
        run->total = 1;
        one.seed = o->seed;
        visit_op(run, &one);
    } else if (!core_enumerate(o->fast, visit_core, run) && !o->fast) {
        conf_enumerate(o->seed, o->quick, visit_op, run);
    }
}

static mh_status open_sides(struct run *run)
{
    struct conf_suite *s = &run->suite;
    mh_status status = conf_side_open(&s->device, s->runtime, s->options->uri, MH_PLACEMENT_STRICT,
                                      s->options->threads);
    if (status)
        return status;
    s->is_host = !strncmp(mh_device_uri(s->device.device), "host:", 5);
    return s->is_host ? MH_OK
                      : conf_side_open(&s->host, s->runtime, "host", MH_PLACEMENT_STRICT,
                                       s->options->threads);
}

mh_status conf_run(mh_runtime *runtime, const struct conf_options *options,
                   struct conf_summary *summary)
{
    struct run run = {.suite = {.runtime = runtime, .options = options}, .summary = summary};
    double began = now();
    *summary = (struct conf_summary){0};
    mh_status status = open_sides(&run);
    if (!status)
        status = conf_exclusions_load(&run.exclusions, runtime,
                                      mh_device_uri(run.suite.device.device), options->exclusions);
    if (!status)
        run_all(&run);
    if (!status && !run.total)
        status = mh_fail(MH_INVALID_ARGUMENT, "--filter: no case is called '%s'", options->filter);
    conf_exclusions_free(&run.exclusions);
    conf_side_close(&run.suite.device);
    conf_side_close(&run.suite.host);
    summary->seconds = now() - began;
    return status;
}
