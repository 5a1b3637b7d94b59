/* counters.h: what a driver counts of each device, of each kernel and of each place in its code. */
#ifndef VIRTUAL_COUNTERS_H
#define VIRTUAL_COUNTERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memmap.h"

enum { VC_MAX_COUNTERS = 64, VC_COLUMNS = 7 };

struct vc_counter_name {
    const char *name, *meaning;
};

struct vc_place { /* a line of a kernel, or an offset in its code */
    uint64_t at, value[VC_COLUMNS];
    char source[48]; /* "file:line", if that is known besides */
};

struct vc_kernel_counts {
    char *name;
    uint64_t launches, value[VC_MAX_COUNTERS];
    struct vc_place *place; /* by rising `at` */
    size_t places;
};

/* One object a driver, static: the names and the table's form are given, the rest starts as 0. */
struct vc_counters {
    const struct vc_counter_name *name; /* the driver's own, then those of a launch */
    unsigned own, count;                /* how many of them, and of all */
    const char *column[1 + VC_COLUMNS]; /* the heading of places, and of their values */
    bool hexadecimal;                   /* places */
    pthread_mutex_t lock;
    struct vc_device_counts {
        uint64_t value[VC_MAX_COUNTERS];
        struct vc_kernel_counts *kernel; /* in the order of their first launch */
        size_t kernels;
    } device[VC_MAX_DEVICES];
};

void vc_count_add(struct vc_counters *c, unsigned device, unsigned counter, uint64_t n);
void vc_count_most(struct vc_counters *c, unsigned device, unsigned counter, uint64_t n);
/* Adds a launch: `value` has the count - own counters of a launch, `place` may be NULL. */
void vc_count_launch(struct vc_counters *c, unsigned device, const char *kernel,
                     const uint64_t *value, const struct vc_place *place, size_t places);

/* As the functions of moehal_virtual.h; `kernel` NULL: of the device. */
int vc_counter_at(const struct vc_counters *c, unsigned index, const char **name,
                  const char **meaning);
int vc_counter(struct vc_counters *c, int device, const char *kernel, const char *name,
               uint64_t *value);
int vc_counters_reset(struct vc_counters *c, int device);
int vc_kernel_at(struct vc_counters *c, int device, unsigned index, const char **kernel,
                 uint64_t *launches);
char *vc_kernel_places(struct vc_counters *c, int device, const char *kernel);

#endif
