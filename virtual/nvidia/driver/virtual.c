/* virtual.c: the exports that make a driver virtual: counters, reports, settings. */
#define MOEHAL_VIRTUAL_API __attribute__((visibility("default")))
#include "../include/moehal_virtual.h"

#include "driver.h"
#include "settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

MOEHAL_VIRTUAL_API const char moehal_virtual_driver[] = "moehal virtual NVIDIA driver";

/* ---- the counters' names ---- */

struct counter_name {
    const char *name, *meaning;
    size_t offset; /* in struct vn_counters, for those of kernels */
};

static const struct counter_name of_driver[] = {
#define C(id, name, what) {name, what, 0},
#include "driver_counters.def"
#undef C
};

#define K(field, what)                                                                             \
    {                                                                                              \
#field, what, offsetof(struct vn_counters, field)                                          \
    }
static const struct counter_name of_kernels[] = {
    K(warp_instructions, "instructions issued, a warp at a time"),
    K(lane_instructions, "the same times their active lanes"),
    K(load_bytes, "bytes of global memory that loads asked for"),
    K(store_bytes, "and stores"),
    K(load_sectors, "sectors of 32 bytes that loads touched, an instruction at a time"),
    K(store_sectors, "and stores"),
    K(ideal_load_sectors, "the fewest sectors that could hold what loads asked for"),
    K(ideal_store_sectors, "and stores"),
    K(unique_load_sectors, "sectors read at least once in a launch"),
    K(unique_store_sectors, "and written"),
    K(unique_sectors, "and touched at all: the traffic that no cache can save"),
    K(shared_accesses, "instructions on shared memory"),
    K(shared_passes, "passes over its banks that they needed"),
    K(matrix_operations, "mma and wmma instructions"),
    K(matrix_flops, "their multiplications and additions"),
    K(float_operations, "those of the scalar pipes"),
    K(atomics, "atomic operations"),
    K(divergences, "branches at which lanes of a warp parted"),
    K(barriers, "barriers, a warp at a time"),
};
#undef K

enum {
    OF_DRIVER = sizeof of_driver / sizeof of_driver[0],
    OF_KERNELS = sizeof of_kernels / sizeof of_kernels[0],
    OF_CLASSES = VN_CLASS_COUNT,
};

static uint64_t kernel_value(const struct vn_counters *c, size_t offset)
{
    uint64_t value;
    memcpy(&value, (const char *)c + offset, sizeof value);
    return value;
}

/* "instructions_float" and so on, made once. */
static const char *class_counter(unsigned class)
{
    static char names[VN_CLASS_COUNT][40];
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&once);
    if (!names[class][0])
        snprintf(names[class], sizeof names[class], "instructions_%s",
                 vn_class_name((enum vn_class) class));
    pthread_mutex_unlock(&once);
    return names[class];
}

/* ---- the counts ---- */

struct kernel_total {
    char *name;
    uint64_t launches;
    struct vn_counters sum; /* its lines are owned */
};

static struct totals {
    uint64_t value[DRIVER_COUNTERS];
    struct vn_counters sum;
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

static void add_counters(struct vn_counters *sum, const struct vn_counters *c)
{
    for (int i = 0; i < OF_KERNELS; i++) {
        uint64_t value =
            kernel_value(sum, of_kernels[i].offset) + kernel_value(c, of_kernels[i].offset);
        memcpy((char *)sum + of_kernels[i].offset, &value, sizeof value);
    }
    for (int i = 0; i < OF_CLASSES; i++)
        sum->by_class[i] += c->by_class[i];
}

static void add_line(struct vn_counters *sum, const struct vn_line_counters *l)
{
    for (uint64_t i = 0; i < sum->line_count; i++) {
        struct vn_line_counters *to = &sum->lines[i];
        if (to->line != l->line)
            continue;
        to->warp_instructions += l->warp_instructions;
        to->lane_instructions += l->lane_instructions;
        to->global_bytes += l->global_bytes;
        to->global_sectors += l->global_sectors;
        to->ideal_sectors += l->ideal_sectors;
        to->bank_passes += l->bank_passes;
        to->divergences += l->divergences;
        return;
    }
    struct vn_line_counters *grown =
        realloc(sum->lines, (sum->line_count + 1) * sizeof sum->lines[0]);
    if (!grown)
        return;
    sum->lines = grown;
    sum->lines[sum->line_count] = *l;
    sum->lines[sum->line_count++].function = NULL; /* the module may go */
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

void count_launch(CUfunction function, unsigned device, const struct vn_counters *c)
{
    struct totals *t = &totals[device];
    pthread_mutex_lock(&totals_lock);
    t->value[COUNT_LAUNCHES]++;
    add_counters(&t->sum, c);
    struct kernel_total *k = kernel_make(t, function->info->name);
    if (k) {
        k->launches++;
        add_counters(&k->sum, c);
        for (uint64_t i = 0; c->lines && i < c->line_count; i++)
            add_line(&k->sum, &c->lines[i]);
    }
    pthread_mutex_unlock(&totals_lock);
}

MOEHAL_VIRTUAL_API int moehal_virtual_counter_at(unsigned index, const char **name,
                                                 const char **meaning)
{
    if (index < OF_DRIVER) {
        *name = of_driver[index].name;
        *meaning = of_driver[index].meaning;
    } else if (index < OF_DRIVER + OF_KERNELS) {
        *name = of_kernels[index - OF_DRIVER].name;
        *meaning = of_kernels[index - OF_DRIVER].meaning;
    } else if (index < OF_DRIVER + OF_KERNELS + OF_CLASSES) {
        *name = class_counter(index - OF_DRIVER - OF_KERNELS);
        *meaning = "instructions of a class, a warp at a time";
    } else {
        return -1;
    }
    return 0;
}

static bool find_kernel_value(const struct vn_counters *c, const char *name, uint64_t *value)
{
    for (int i = 0; i < OF_KERNELS; i++)
        if (!strcmp(of_kernels[i].name, name)) {
            *value = kernel_value(c, of_kernels[i].offset);
            return true;
        }
    for (unsigned i = 0; i < OF_CLASSES; i++)
        if (!strcmp(class_counter(i), name)) {
            *value = c->by_class[i];
            return true;
        }
    return false;
}

MOEHAL_VIRTUAL_API int moehal_virtual_counter(int device, const char *name, uint64_t *value)
{
    if (device < 0 || device >= VC_MAX_DEVICES || !name || !value)
        return -1;
    int result = -1;
    pthread_mutex_lock(&totals_lock);
    const struct totals *t = &totals[device];
    for (int i = 0; i < OF_DRIVER && result; i++)
        if (!strcmp(of_driver[i].name, name)) {
            *value = t->value[i];
            result = 0;
        }
    if (result && find_kernel_value(&t->sum, name, value))
        result = 0;
    pthread_mutex_unlock(&totals_lock);
    return result;
}

MOEHAL_VIRTUAL_API int moehal_virtual_counters_reset(int device)
{
    if (device < 0 || device >= VC_MAX_DEVICES)
        return -1;
    pthread_mutex_lock(&totals_lock);
    struct totals *t = &totals[device];
    for (size_t i = 0; i < t->kernels; i++) {
        free(t->kernel[i].name);
        free(t->kernel[i].sum.lines);
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
    if (device < 0 || device >= VC_MAX_DEVICES)
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
    if (device < 0 || device >= VC_MAX_DEVICES || !kernel || !name || !value)
        return -1;
    pthread_mutex_lock(&totals_lock);
    const struct kernel_total *k = kernel_find(&totals[device], kernel);
    bool found = k && find_kernel_value(&k->sum, name, value);
    if (k && !found && !strcmp(name, "launches")) {
        *value = k->launches;
        found = true;
    }
    pthread_mutex_unlock(&totals_lock);
    return found ? 0 : -1;
}

static int by_line(const void *a, const void *b)
{
    const struct vn_line_counters *x = a, *y = b;
    return x->line < y->line ? -1 : x->line > y->line;
}

MOEHAL_VIRTUAL_API char *moehal_virtual_kernel_lines(int device, const char *kernel)
{
    char *text = NULL;
    size_t size;
    if (device < 0 || device >= VC_MAX_DEVICES || !kernel)
        return NULL;
    pthread_mutex_lock(&totals_lock);
    struct kernel_total *k = kernel_find(&totals[device], kernel);
    FILE *f = k && k->sum.line_count ? open_memstream(&text, &size) : NULL;
    if (f) {
        qsort(k->sum.lines, k->sum.line_count, sizeof k->sum.lines[0], by_line);
        fprintf(f, "%8s %14s %14s %14s %12s %12s %12s %12s\n", "line", "warp_instr", "lane_instr",
                "global_bytes", "sectors", "ideal", "bank_passes", "divergences");
        for (uint64_t i = 0; i < k->sum.line_count; i++) {
            const struct vn_line_counters *l = &k->sum.lines[i];
            fprintf(f,
                    "%8u %14" PRIu64 " %14" PRIu64 " %14" PRIu64 " %12" PRIu64 " %12" PRIu64
                    " %12" PRIu64 " %12" PRIu64 "\n",
                    l->line, l->warp_instructions, l->lane_instructions, l->global_bytes,
                    l->global_sectors, l->ideal_sectors, l->bank_passes, l->divergences);
        }
        fclose(f);
    }
    pthread_mutex_unlock(&totals_lock);
    return text;
}

/* ---- reports and settings ---- */

static bool started(void)
{
    return driver_start() == CUDA_SUCCESS;
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
        return vn_checks_parse(value, &driver.checks);
    if (!strcmp(setting, "schedule"))
        return settings_schedule(value);
    if (!strcmp(setting, "streams"))
        return settings_stream_order(value);
    if (!strcmp(setting, "time_limit_ms") && number)
        return driver.time_limit_ms = n, true;
    if (!strcmp(setting, "fuse") && number)
        return driver.fuse = n != 0, true;
    if (!strcmp(setting, "count") &&
        (!strcmp(value, "off") || !strcmp(value, "on") || !strcmp(value, "lines"))) {
        driver.count_on = strcmp(value, "off") != 0;
        driver.count_lines = !strcmp(value, "lines");
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
