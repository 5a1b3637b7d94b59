/*
 * outside.c: a program outside the tree that uses the core alone: version, errors in words, a
 * runtime with the backend modules named on its command line, devices and memory.
 */
#include <stdio.h>
#include <string.h>

#include <moehal/moehal.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "outside.c:%d: %s\n  last error: %s\n", __LINE__, #condition,          \
                    mh_last_message());                                                            \
            return 0;                                                                              \
        }                                                                                          \
    } while (0)

static int version_is_that_of_the_headers(void)
{
    char version[32];
    snprintf(version, sizeof(version), "%d.%d.%d", MH_VERSION_MAJOR, MH_VERSION_MINOR,
             MH_VERSION_PATCH);
    printf("moehal %s, ABI %u\n", mh_version(), (unsigned)mh_abi());
    REQUIRE(strcmp(mh_version(), version) == 0);
    REQUIRE(mh_abi() == MH_ABI);
    return 1;
}

/* Host first, then every module given; each loads. */
static int backends_are_listed(mh_runtime *runtime, char **modules)
{
    mh_backend_info info = MH_INIT(mh_backend_info);
    REQUIRE(mh_runtime_backend(runtime, 0, &info) == MH_OK);
    REQUIRE(strcmp(info.name, "host") == 0 && info.status == MH_OK && info.device_count == 1);
    for (uint32_t i = 0; modules[i]; i++) {
        info = MH_INIT(mh_backend_info);
        REQUIRE(mh_runtime_backend(runtime, i + 1, &info) == MH_OK);
        printf("%s: %s %s\n", info.path, info.name, info.reason);
        REQUIRE(strcmp(info.path, modules[i]) == 0);
        REQUIRE(info.status == MH_OK);
    }
    return 1;
}

static int an_unknown_device_is_an_error_in_words(mh_runtime *runtime)
{
    mh_device *device = NULL;
    mh_error error = MH_INIT(mh_error);
    REQUIRE(mh_device_open(runtime, "nowhere:0", NULL, &device) == MH_NOT_FOUND);
    REQUIRE(mh_last_error(&error) == MH_OK && error.status == MH_NOT_FOUND);
    REQUIRE(strstr(error.message, "nowhere:0"));
    printf("as it should: %s\n", error.message);
    return 1;
}

static int memory_is_accounted_for(mh_device *device)
{
    mh_buffer *buffer = NULL;
    mh_memory_info memory = MH_INIT(mh_memory_info);
    REQUIRE(mh_buffer_create(device, 4096, MH_BUFFER_DEVICE, &buffer) == MH_OK);
    REQUIRE(mh_device_memory(device, &memory) == MH_OK);
    REQUIRE(memory.used == 4096 && memory.buffers == 1);
    mh_buffer_release(buffer);
    REQUIRE(mh_device_memory(device, &memory) == MH_OK);
    REQUIRE(memory.used == 0 && memory.peak == 4096);
    return 1;
}

int main(int argc, char **argv)
{
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = (const char *const *)(argv + 1);
    params.module_count = (uint64_t)argc - 1;

    int ok = version_is_that_of_the_headers();
    ok = ok && mh_runtime_create(&params, &runtime) == MH_OK;
    ok = ok && backends_are_listed(runtime, argv + 1);
    ok = ok && an_unknown_device_is_an_error_in_words(runtime);
    ok = ok && mh_device_open(runtime, "host", NULL, &device) == MH_OK;
    ok = ok && memory_is_accounted_for(device);
    if (!ok)
        fprintf(stderr, "outside: failed; last error: %s\n", mh_last_message());
    mh_device_release(device);
    mh_runtime_release(runtime);
    return ok ? 0 : 1;
}
