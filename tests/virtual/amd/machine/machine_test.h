/* machine_test.h: code objects run on the machine, without a runtime. */
#ifndef MACHINE_TEST_H
#define MACHINE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../../../virtual/amd/loader/code_object.h"
#include "../../../../virtual/amd/machine.h"

struct device {
    struct vc_map *map;
    struct vg_pool *pool;
    struct vl_code *object;
    struct va_code *code;
    uint64_t image;
    unsigned checks;
    enum va_schedule schedule;
    uint64_t seed, limit_ms;
    const _Atomic bool *stop;
    struct va_counters counters;
    struct va_fault fault;
    unsigned findings;
    char check[40], text[700]; /* of the first finding */
    uint32_t code_line;
};

static inline void device_report(void *context, const struct vc_finding *f)
{
    struct device *d = context;
    if (!d->findings++) {
        snprintf(d->check, sizeof d->check, "%s", f->check);
        snprintf(d->text, sizeof d->text, "%s", f->text);
        d->code_line = f->code_line;
    }
}

/* Opens the code object in folder/name; memory outlives it until device_close. */
static inline void device_load(struct device *d, const char *folder, const char *name)
{
    char path[4096], why[VL_WHY] = "";
    bool wrong_target;
    if (!d->map) {
        d->map = vc_map_create(why);
        assert_non_null(d->map);
    }
    va_code_release(d->code);
    vl_code_free(d->object);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: cannot be opened", path);
    char *bytes = malloc(1 << 22);
    assert_non_null(bytes);
    size_t size = fread(bytes, 1, 1 << 22, f);
    fclose(f);
    d->object = vl_code_parse(bytes, size, "gfx942", &wrong_target, why);
    free(bytes);
    if (!d->object)
        fail_msg("%s: %s", name, why);
    struct vc_alloc_info info = {
        .bytes = d->object->span, .align = 4096, .kind = VC_MODULE, .access = 1, .name = name};
    d->image = vc_alloc(d->map, &info);
    vl_code_place(d->object, (void *)(uintptr_t)d->image, d->image);
    d->code = va_code_create(d->image + d->object->text_at, d->object->text_size & ~3ull);
    assert_non_null(d->code);
}

static inline uint64_t device_alloc(struct device *d, uint64_t bytes)
{
    struct vc_alloc_info info = {.bytes = bytes, .align = 256, .kind = VC_GLOBAL, .access = 1};
    return vc_alloc(d->map, &info);
}

static inline uint64_t device_upload(struct device *d, const void *data, uint64_t bytes)
{
    uint64_t at = device_alloc(d, bytes);
    memcpy((void *)(uintptr_t)at, data, bytes);
    vc_mark(d->map, at, bytes);
    return at;
}

static inline void hidden_arguments(const struct vl_kernel *k, uint8_t *args, uint32_t groups,
                                    uint32_t lanes)
{
    for (uint32_t n = 0; n < k->arg_count; n++) {
        const struct vl_arg *a = &k->args[n];
        uint32_t v = a->kind == VL_ARG_BLOCK_COUNT_X  ? groups
                     : a->kind == VL_ARG_GROUP_SIZE_X ? lanes
                                                      : 1;
        if (a->kind >= VL_ARG_BLOCK_COUNT_X && a->kind <= VL_ARG_GROUP_SIZE_Z)
            memcpy(args + a->offset, &v, a->size < 4 ? a->size : 4);
    }
}

/* Runs `groups` workgroups of `lanes` lanes. */
static inline enum va_status device_run(struct device *d, const char *name, uint32_t groups,
                                        uint32_t lanes, const void *args, size_t bytes)
{
    const struct vl_kernel *k = vl_code_kernel(d->object, name);
    if (!k)
        fail_msg("no kernel %s", name);
    uint8_t kernarg[1024] = {0};
    assert_true(k->kernarg_size <= sizeof kernarg && bytes <= sizeof kernarg);
    memcpy(kernarg, args, bytes);
    hidden_arguments(k, kernarg, groups, lanes);
    struct vc_alloc_info info = {
        .bytes = sizeof kernarg, .align = 64, .kind = VC_MODULE, .access = 1, .name = "arguments"};
    uint64_t at = vc_alloc(d->map, &info);
    memcpy((void *)(uintptr_t)at, kernarg, sizeof kernarg);
    struct va_kernel kernel = {
        .name = name,
        .entry = d->image + k->entry,
        .rsrc1 = k->descriptor.rsrc1,
        .rsrc2 = k->descriptor.rsrc2,
        .rsrc3 = k->descriptor.rsrc3,
        .properties = k->descriptor.properties,
        .preload = (uint16_t)(k->descriptor.preload_length | k->descriptor.preload_offset << 7),
        .lds_bytes = k->descriptor.group_segment,
        .scratch_bytes = k->descriptor.private_segment,
        .dynamic_stack = k->dynamic_stack,
    };
    struct va_launch l = {
        .code = d->code,
        .kernel = &kernel,
        .grid = {groups, 1, 1},
        .workgroup = {lanes, 1, 1},
        .kernarg = at,
        .map = d->map,
        .pool = d->pool,
        .checks = d->checks,
        .count = true,
        .count_pcs = true,
        .schedule = d->schedule,
        .seed = d->seed,
        .time_limit_ms = d->limit_ms,
        .stop = d->stop,
        .sinks = {d, device_report},
    };
    d->findings = 0;
    d->check[0] = d->text[0] = 0;
    va_counters_free(&d->counters);
    enum va_status status = va_execute(&l, &d->counters, &d->fault);
    vc_free(d->map, at);
    return status;
}

/* As above; anything but a clean end is a failure. */
static inline void device_run_clean(struct device *d, const char *name, uint32_t groups,
                                    uint32_t lanes, const void *args, size_t bytes)
{
    enum va_status status = device_run(d, name, groups, lanes, args, bytes);
    if (status != VA_OK)
        fail_msg("%s", d->fault.text);
    if (d->findings)
        fail_msg("%s: %s", d->check, d->text);
}

static inline void device_close(struct device *d)
{
    va_counters_free(&d->counters);
    va_code_release(d->code);
    vl_code_free(d->object);
    vc_map_destroy(d->map);
    vg_pool_destroy(d->pool);
}

#endif
