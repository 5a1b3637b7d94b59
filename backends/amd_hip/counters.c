/* counters.c: what a virtual GPU counts; hardware tells nothing to its users here. */
#include <dlfcn.h>

#include "amd.h"

typedef int counter_at(unsigned index, const char **name, const char **meaning);
typedef int counter(int device, const char *name, uint64_t *value);

static mh_status read_counter(void *user, uint32_t index, const char **name, uint64_t *value)
{
    struct device *device = user;
    const char *meaning;
    counter_at *at;
    counter *read;
    *(void **)&at = dlsym(device->instance->library, "moehal_virtual_counter_at");
    *(void **)&read = dlsym(device->instance->library, "moehal_virtual_counter");
    if (!device->instance->simulated || !at || !read || at(index, name, &meaning) ||
        read(device->ordinal, *name, value))
        return MH_NOT_FOUND;
    return MH_OK;
}

const mh_backend_counters amd_counters_group = {sizeof(amd_counters_group), read_counter};
