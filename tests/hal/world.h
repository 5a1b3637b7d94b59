/* world.h: a runtime with the probe backend (probe.h), for tests of the core. */
#ifndef WORLD_H
#define WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal/moehal.h>

#include "probe.h"

static char world_probe_path[1024], world_null_path[1024];

struct world {
    mh_runtime *runtime;
    mh_device *host, *probe;
    struct probe_control *control;
};

static inline void assert_message_has(const char *part)
{
    if (!strstr(mh_last_message(), part))
        fail_msg("message '%s' lacks '%s'", mh_last_message(), part);
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)
#define REFUSED(status, call, part)                                                                \
    do {                                                                                           \
        assert_int_equal((call), (status));                                                        \
        assert_message_has(part);                                                                  \
    } while (0)

static inline struct probe_control *world_control(void)
{
    void *module = dlopen(world_probe_path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    probe_control_fn control;
    *(void **)&control = dlsym(module, "probe_control");
    dlclose(module);
    return control();
}

/* With optional groups of the probe: PROBE_... */
static inline struct world *world_make_with(uint32_t placement, uint32_t groups)
{
    struct world *w = calloc(1, sizeof(*w));
    w->control = world_control();
    memset(w->control, 0, sizeof(*w->control));
    w->control->groups = groups;
    const char *modules[] = {world_probe_path, world_null_path};
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = modules;
    params.module_count = 2;
    params.flags = MH_RUNTIME_NO_ENVIRONMENT;
    OK(mh_runtime_create(&params, &w->runtime));
    mh_device_params device = MH_INIT(mh_device_params);
    device.placement = placement;
    device.threads = 2;
    OK(mh_device_open(w->runtime, "host", &device, &w->host));
    OK(mh_device_open(w->runtime, "probe:0", &device, &w->probe));
    return w;
}

static inline struct world *world_make(uint32_t placement)
{
    return world_make_with(placement, 0);
}

static inline void world_free(struct world *w)
{
    mh_device_release(w->host);
    mh_device_release(w->probe);
    mh_runtime_release(w->runtime);
    assert_int_equal(w->control->live_buffers, 0);
    assert_int_equal(w->control->live_objects, 0);
    assert_int_equal(w->control->destroyed_in_flight, 0);
    free(w);
}

static inline mh_tensor f32_matrix(mh_buffer *buffer, uint64_t offset, int64_t rows,
                                   int64_t columns)
{
    const int64_t shape[] = {rows, columns};
    return mh_tensor_make(buffer, offset, MH_F32, 2, shape);
}

static inline int world_main(int argc, char **argv, const struct CMUnitTest *tests, size_t count)
{
    if (argc != 3)
        return 2;
    snprintf(world_probe_path, sizeof(world_probe_path), "%s/probe.so", argv[1]);
    snprintf(world_null_path, sizeof(world_null_path), "%s", argv[2]);
    return _cmocka_run_group_tests(argv[0], tests, count, NULL, NULL);
}
#define WORLD_MAIN(tests) world_main(argc, argv, tests, sizeof(tests) / sizeof((tests)[0]))

#endif
