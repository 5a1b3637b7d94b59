/* versions.c: structs that grow at their ends, and the library that runs against the headers. */
#include <stdio.h>

#include <moehal/moehal.h>

int main(void)
{
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    printf("headers %d.%d.%d, library %s; ABI %u and %u\n", MH_VERSION_MAJOR, MH_VERSION_MINOR,
           MH_VERSION_PATCH, mh_version(), MH_ABI, mh_abi());
    int ok = mh_abi() == MH_ABI && !mh_runtime_create(NULL, &runtime);

    /* An older program's struct ends early: what it does not know is zero. */
    mh_device_params old = {.struct_size = offsetof(mh_device_params, threads)};
    old.threads = 5000; /* beyond its end, so not even looked at */
    ok = ok && !mh_device_open(runtime, "host", &old, &device);
    mh_device_release(device);

    /* A newer program asks for something this library does not know: refused, not ignored. */
    struct {
        mh_device_params known;
        uint64_t tail;
    } newer = {{.struct_size = sizeof(newer)}, 1};
    device = NULL;
    ok = ok && mh_device_open(runtime, "host", &newer.known, &device) == MH_INVALID_ARGUMENT;
    puts(mh_last_message());
    newer.tail = 0; /* unknown, but unused */
    ok = ok && !mh_device_open(runtime, "host", &newer.known, &device);

    /* Outputs are filled as far as the caller has room. */
    mh_memory_info room = {.struct_size = offsetof(mh_memory_info, used), .used = 77};
    ok = ok && !mh_device_memory(device, &room) && room.total > 0 && room.used == 77;
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok;
}
