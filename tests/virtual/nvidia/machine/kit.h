/* What the machine's tests share: a map, a module from text, launches, and the findings of the last
 * one. */
#ifndef TESTS_VIRTUAL_NVIDIA_MACHINE_KIT_H
#define TESTS_VIRTUAL_NVIDIA_MACHINE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../../../virtual/common/memmap.h"
#include "../../../../virtual/common/report.h"
#include "../../../../virtual/nvidia/machine.h"

#define PTX_HEAD ".version 8.0\n.target sm_90\n.address_size 64\n"

struct kit_finding {
    char check[32], text[400];
    uint32_t line, other_line, block, thread;
    uint64_t address;
};

struct kit {
    struct vc_map *map;
    struct vg_pool *pool;
    struct vn_module *module;
    struct vn_image *image;
    struct kit_finding findings[16];
    unsigned finding_count;
    char printed[4096];
    size_t printed_size;
    struct vn_counters counters;
    struct vn_launch next; /* of the next launches: checks, schedule, grid and block but x, ... */
};

/* Both end the test when they fail. */
void kit_open(struct kit *kit, const char *ptx);
void kit_close(struct kit *kit);
uint64_t kit_buffer(struct kit *kit, size_t bytes, const void *contents); /* NULL: never written */
/* Arguments are 8 bytes each, cut to the parameters' sizes. */
enum vn_status kit_run(struct kit *kit, const char *kernel, uint32_t grid, uint32_t block,
                       unsigned count, const uint64_t *arguments);
#define KIT_RUN(kit, kernel, grid, block, ...)                                                     \
    kit_run(kit, kernel, grid, block, sizeof((uint64_t[]){__VA_ARGS__}) / 8,                       \
            (uint64_t[]){__VA_ARGS__})
static inline void *kit_host(uint64_t address)
{
    return (void *)(uintptr_t)address;
}
/* The first finding of this check, or NULL. */
const struct kit_finding *kit_found(const struct kit *kit, const char *check);
/* The line of the text on which `mark` is. */
uint32_t kit_line(const char *text, const char *mark);

#endif
