/* virtual.c: the exports that make a runtime virtual: counters, reports, settings. */
#define MOEHAL_VIRTUAL_API __attribute__((visibility("default")))
#include <moehal_virtual.h>

#include "driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

MOEHAL_VIRTUAL_API const char moehal_virtual_driver[] = "moehal virtual AMD driver";

/* ---- the counters' names ---- */

static const struct {
    const char *name, *meaning;
} of_driver[] = {
#define C(id, name, what) {name, what},
#include "driver_counters.def"
#undef C
};

static const struct {
    const char *name, *meaning;
    size_t offset; /* in struct va_counters */
} of_kernels[] = {
#define K(field, what) {#field, what, offsetof(struct va_counters, field)},
#include "kernel_counters.def"
#undef K
};

enum {
    OF_DRIVER = sizeof of_driver / sizeof of_driver[0],
    OF_KERNELS = sizeof of_kernels / sizeof of_kernels[0],
    OF_CLASSES = VA_CLASS_COUNT,
};

static uint64_t kernel_value(const struct va_counters *c, size_t offset)
{
    uint64_t value;
    memcpy(&value, (const char *)c + offset, sizeof value);
    return value;
}

static char class_names[OF_CLASSES][40];
static pthread_once_t class_once = PTHREAD_ONCE_INIT;

static void name_classes(void)
{
    for (unsigned i = 0; i < OF_CLASSES; i++)
        snprintf(class_names[i], sizeof class_names[i], "instructions_%s",
                 va_class_name((enum va_class)i));
}

/* ---- the counts ---- */

struct kernel_total {
    char *name;
    uint64_t launches;
    struct va_counters sum; /* its pcs are owned; their addresses are offsets in the text */
};

static struct totals {
    uint64_t value[DRIVER_COUNTERS];
    struct va_counters sum;
    struct kernel_total *kernel;
    size_t kernels, room;
} totals[VC_MAX_DEVICES];
static pthread_mutex_t totals_lock = PTHREAD_MUTEX_INITIALIZER;

void count_add(unsigned device, enum driver_counter counter, uint64_t n)
{
    pthread_mutex_lock(&totals_lock);
    uint64_t *value = &totals[device].value[counter];
    if (counter == COUNT_PEAK)
        *value = n > *value ? n : *value;
    else
        *value += n;
    pthread_mutex_unlock(&totals_lock);
}

static void add_counters(struct va_counters *sum, const struct va_counters *c)
{
    for (int i = 0; i < OF_KERNELS; i++) {
        uint64_t value =
            kernel_value(sum, of_kernels[i].offset) + kernel_value(c, of_kernels[i].offset);
        memcpy((char *)sum + of_kernels[i].offset, &value, sizeof value);
    }
    for (int i = 0; i < OF_CLASSES; i++)
        sum->by_class[i] += c->by_class[i];
}

static void add_pc(struct va_counters *sum, const struct va_pc_counters *c, uint64_t text)
{
    uint64_t low = 0, high = sum->pc_count, pc = c->pc - text;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (sum->pcs[middle].pc < pc)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == sum->pc_count || sum->pcs[low].pc != pc) {
        struct va_pc_counters *grown = realloc(sum->pcs, (sum->pc_count + 1) * sizeof *grown);
        if (!grown)
            return;
        sum->pcs = grown;
        memmove(grown + low + 1, grown + low, (sum->pc_count - low) * sizeof *grown);
        grown[low] = (struct va_pc_counters){.pc = pc};
        sum->pc_count++;
    }
    struct va_pc_counters *to = &sum->pcs[low];
    to->instructions += c->instructions;
    to->lanes += c->lanes;
    to->global_bytes += c->global_bytes;
    to->segments64 += c->segments64;
    to->segments128 += c->segments128;
    to->ideal64 += c->ideal64;
    to->lds_bytes += c->lds_bytes;
    to->lds_passes += c->lds_passes;
}

static struct kernel_total *kernel_find(struct totals *t, const char *name)
{
    for (size_t i = 0; i < t->kernels; i++)
        if (!strcmp(t->kernel[i].name, name))
            return &t->kernel[i];
    return NULL;
}

static struct kernel_total *kernel_make(struct totals *t, const char *name)
{
    struct kernel_total *k = kernel_find(t, name);
    if (k)
        return k;
    if (t->kernels == t->room) {
        size_t room = t->room ? 2 * t->room : 16;
        struct kernel_total *grown = realloc(t->kernel, room * sizeof *grown);
        if (!grown)
            return NULL;
        t->kernel = grown;
        t->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return NULL;
    t->kernel[t->kernels] = (struct kernel_total){.name = copy};
    return &t->kernel[t->kernels++];
}

void count_launch(hipFunction_t f, unsigned device, const struct va_counters *c)
{
    struct totals *t = &totals[device];
    uint64_t text = f->module->address + f->module->code->text_at;
    pthread_mutex_lock(&totals_lock);
    t->value[COUNT_LAUNCHES]++;
    add_counters(&t->sum, c);
    struct kernel_total *k = kernel_make(t, f->info->name);
    if (k) {
        k->launches++;
        add_counters(&k->sum, c);
        for (uint64_t i = 0; c->pcs && i < c->pc_count; i++)
            add_pc(&k->sum, &c->pcs[i], text);
    }
    pthread_mutex_unlock(&totals_lock);
}

MOEHAL_VIRTUAL_API int moehal_virtual_counter_at(unsigned index, const char **name,
                                                 const char **meaning)
{
    pthread_once(&class_once, name_classes);
    if (index < OF_DRIVER) {
        *name = of_driver[index].name;
        *meaning = of_driver[index].meaning;
    } else if (index < OF_DRIVER + OF_KERNELS) {
        *name = of_kernels[index - OF_DRIVER].name;
        *meaning = of_kernels[index - OF_DRIVER].meaning;
    } else if (index < OF_DRIVER + OF_KERNELS + OF_CLASSES) {
        *name = class_names[index - OF_DRIVER - OF_KERNELS];
        *meaning = "instructions of a class, a wave at a time";
    } else {
        return -1;
    }
    return 0;
}

static bool find_value(const struct va_counters *c, const char *name, uint64_t *value)
{
    pthread_once(&class_once, name_classes);
    for (int i = 0; i < OF_KERNELS; i++)
        if (!strcmp(of_kernels[i].name, name)) {
            *value = kernel_value(c, of_kernels[i].offset);
            return true;
        }
    for (unsigned i = 0; i < OF_CLASSES; i++)
        if (!strcmp(class_names[i], name)) {
            *value = c->by_class[i];
            return true;
        }
    return false;
}

static bool device_ok(int device)
{
    return device >= 0 && device < VC_MAX_DEVICES;
}

MOEHAL_VIRTUAL_API int moehal_virtual_counter(int device, const char *name, uint64_t *value)
{
    if (!device_ok(device) || !name || !value)
        return -1;
    pthread_mutex_lock(&totals_lock);
    const struct totals *t = &totals[device];
    bool found = find_value(&t->sum, name, value);
    for (int i = 0; i < OF_DRIVER && !found; i++)
        if ((found = !strcmp(of_driver[i].name, name)))
            *value = t->value[i];
    pthread_mutex_unlock(&totals_lock);
    return found ? 0 : -1;
}

MOEHAL_VIRTUAL_API int moehal_virtual_counters_reset(int device)
{
    if (!device_ok(device))
        return -1;
    pthread_mutex_lock(&totals_lock);
    struct totals *t = &totals[device];
    for (size_t i = 0; i < t->kernels; i++) {
        free(t->kernel[i].name);
        free(t->kernel[i].sum.pcs);
    }
    free(t->kernel);
    *t = (struct totals){0};
    pthread_mutex_unlock(&totals_lock);
    return 0;
}

MOEHAL_VIRTUAL_API int moehal_virtual_kernel_at(int device, unsigned index, const char **kernel,
                                                uint64_t *launches)
{
    int result = -1;
    if (!device_ok(device))
        return -1;
    pthread_mutex_lock(&totals_lock);
    if (index < totals[device].kernels) {
        *kernel = totals[device].kernel[index].name;
        if (launches)
            *launches = totals[device].kernel[index].launches;
        result = 0;
    }
    pthread_mutex_unlock(&totals_lock);
    return result;
}

MOEHAL_VIRTUAL_API int moehal_virtual_kernel_counter(int device, const char *kernel,
                                                     const char *name, uint64_t *value)
{
    if (!device_ok(device) || !kernel || !name || !value)
        return -1;
    pthread_mutex_lock(&totals_lock);
    const struct kernel_total *k = kernel_find(&totals[device], kernel);
    bool found = k && find_value(&k->sum, name, value);
    if (k && !found && !strcmp(name, "launches")) {
        *value = k->launches;
        found = true;
    }
    pthread_mutex_unlock(&totals_lock);
    return found ? 0 : -1;
}

/* By instruction: offsets in the text of the code object, as llvm-objdump prints them from its
 * beginning. */
MOEHAL_VIRTUAL_API char *moehal_virtual_kernel_lines(int device, const char *kernel)
{
    char *text = NULL;
    size_t size;
    if (!device_ok(device) || !kernel)
        return NULL;
    pthread_mutex_lock(&totals_lock);
    const struct kernel_total *k = kernel_find(&totals[device], kernel);
    FILE *f = k && k->sum.pc_count ? open_memstream(&text, &size) : NULL;
    if (f) {
        fprintf(f, "%8s %14s %14s %14s %12s %12s %12s %12s\n", "offset", "wave_instr", "lane_instr",
                "global_bytes", "segments64", "ideal64", "lds_bytes", "lds_passes");
        for (uint64_t i = 0; i < k->sum.pc_count; i++) {
            const struct va_pc_counters *c = &k->sum.pcs[i];
            fprintf(f,
                    "%8" PRIx64 " %14" PRIu64 " %14" PRIu64 " %14" PRIu64 " %12" PRIu64
                    " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "\n",
                    c->pc, c->instructions, c->lanes, c->global_bytes, c->segments64, c->ideal64,
                    c->lds_bytes, c->lds_passes);
        }
        fclose(f);
    }
    pthread_mutex_unlock(&totals_lock);
    return text;
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
