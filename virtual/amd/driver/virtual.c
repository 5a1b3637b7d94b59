/* virtual.c: the exports that make a runtime virtual: counters, reports, settings. */
#define MOEHAL_VIRTUAL_API __attribute__((visibility("default")))
#include <moehal_virtual.h>

#include "../../common/counters.h"
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

MOEHAL_VIRTUAL_API const char moehal_virtual_driver[] = "moehal virtual AMD driver";

/* ---- counters ---- */

static const struct vc_counter_name names[] = {
#define C(id, name, what) {name, what},
#include "driver_counters.def"
#undef C
#define K(field, what) {#field, what},
#include "kernel_counters.def"
#undef K
#define C(id, name) {"instructions_" name, "instructions of a class, a wave at a time"},
#include "../classes.def"
#undef C
};
_Static_assert(sizeof names / sizeof names[0] <= VC_MAX_COUNTERS, "room for all counters");
#define C(id, name) +1
_Static_assert(
#include "../classes.def"
    == VA_CLASS_COUNT, "a name for each class");
#undef C

static struct vc_counters counted = {
    .name = names,
    .own = DRIVER_COUNTERS,
    .count = sizeof names / sizeof names[0],
    .column = {"offset", "wave_instr", "lane_instr", "global_bytes", "segments64", "ideal64",
               "lds_bytes", "lds_passes"},
    .hexadecimal = true,
    .lock = PTHREAD_MUTEX_INITIALIZER,
};

void count_add(unsigned device, enum driver_counter counter, uint64_t n)
{
    vc_count_add(&counted, device, counter, n);
}

void count_most(unsigned device, enum driver_counter counter, uint64_t n)
{
    vc_count_most(&counted, device, counter, n);
}

void count_launch(hipFunction_t function, unsigned device, const struct va_counters *c)
{
    const uint64_t value[] = {
#define K(field, what) c->field,
#include "kernel_counters.def"
#undef K
#define C(id, name) c->by_class[VA_CLASS_##id],
#include "../classes.def"
#undef C
    };
    struct vc_place *place = c->pcs ? calloc(c->pc_count + 1, sizeof *place) : NULL;
    const struct vl_code *code = function->module->code;
    uint64_t text = function->module->address + code->text_at;
    for (uint64_t i = 0; place && i < c->pc_count; i++) {
        const struct va_pc_counters *l = &c->pcs[i];
        place[i] =
            (struct vc_place){.at = l->pc - text,
                              .value = {l->instructions, l->lanes, l->global_bytes, l->segments64,
                                        l->ideal64, l->lds_bytes, l->lds_passes}};
        const char *file;
        uint32_t line;
        if (vl_code_line(code, code->text_at + place[i].at, &file, &line))
            snprintf(place[i].source, sizeof place[i].source, "%.35s:%u", file, line);
    }
    count_add(device, COUNT_LAUNCHES, 1);
    vc_count_launch(&counted, device, function->info->name, value, place, c->pc_count);
    free(place);
}

MOEHAL_VIRTUAL_API int moehal_virtual_counter_at(unsigned index, const char **name,
                                                 const char **meaning)
{
    return vc_counter_at(&counted, index, name, meaning);
}

MOEHAL_VIRTUAL_API int moehal_virtual_counter(int device, const char *name, uint64_t *value)
{
    return vc_counter(&counted, device, NULL, name, value);
}

MOEHAL_VIRTUAL_API int moehal_virtual_counters_reset(int device)
{
    return vc_counters_reset(&counted, device);
}

MOEHAL_VIRTUAL_API int moehal_virtual_kernel_at(int device, unsigned index, const char **kernel,
                                                uint64_t *launches)
{
    return vc_kernel_at(&counted, device, index, kernel, launches);
}

MOEHAL_VIRTUAL_API int moehal_virtual_kernel_counter(int device, const char *kernel,
                                                     const char *name, uint64_t *value)
{
    return kernel ? vc_counter(&counted, device, kernel, name, value) : -1;
}

/* By instruction: offsets in the text of the code object, as llvm-objdump prints them from its
 * beginning; with the line of the source, if the object has it. */
MOEHAL_VIRTUAL_API char *moehal_virtual_kernel_lines(int device, const char *kernel)
{
    return vc_kernel_places(&counted, device, kernel);
}

/* ---- reports and settings ---- */

static bool started(void)
{
    return driver_start() == hipSuccess;
}

MOEHAL_VIRTUAL_API uint64_t moehal_virtual_report_count(void)
{
    return started() ? vc_reports_count(driver.reports) : 0;
}

MOEHAL_VIRTUAL_API int moehal_virtual_report_at(uint64_t index, const char **check,
                                                const char **json, const char **text,
                                                uint64_t *times)
{
    const char *c, *j, *x;
    uint64_t n;
    if (!started() || !vc_reports_at(driver.reports, index, &c, &j, &x, &n))
        return -1;
    if (check)
        *check = c;
    if (json)
        *json = j;
    if (text)
        *text = x;
    if (times)
        *times = n;
    return 0;
}

MOEHAL_VIRTUAL_API void moehal_virtual_reports_clear(void)
{
    if (started())
        vc_reports_clear(driver.reports);
}

MOEHAL_VIRTUAL_API void moehal_virtual_reports_quiet(int quiet)
{
    if (started())
        vc_reports_quiet(driver.reports, quiet != 0);
}

MOEHAL_VIRTUAL_API int moehal_virtual_faults(const char *list)
{
    char why[200];
    if (!started())
        return -1;
    if (vc_faults_set(driver.faults, list, why))
        return 0;
    vc_log(driver.reports, "moehal_virtual_faults: %s", why);
    return -1;
}

static bool set(const char *setting, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    bool number = *value && !*end;
    if (!strcmp(setting, "checks"))
        return settings_checks(value, &driver.checks);
    if (!strcmp(setting, "schedule"))
        return settings_schedule(value);
    if (!strcmp(setting, "streams"))
        return settings_stream_order(value);
    if (!strcmp(setting, "start"))
        return settings_start(value);
    if (!strcmp(setting, "time_limit_ms") && number)
        return driver.time_limit_ms = n, true;
    if (!strcmp(setting, "count") &&
        (!strcmp(value, "off") || !strcmp(value, "on") || !strcmp(value, "lines"))) {
        driver.count_on = strcmp(value, "off") != 0;
        driver.count_pcs = !strcmp(value, "lines");
        return true;
    }
    return false;
}

MOEHAL_VIRTUAL_API int moehal_virtual_set(const char *setting, const char *value)
{
    if (!setting || !value || !started())
        return -1;
    lock();
    bool ok = set(setting, value);
    unlock();
    return ok ? 0 : -1;
}
