/* memory.c: the embedder's own memory as a buffer, exact accounting, and scratch it supplies. */
#include <stdio.h>
#include <stdlib.h>

#include <moehal/moehal.h>

static void released(void *user)
{
    *(int *)user += 1; /* the memory is the embedder's again */
}

int main(void)
{
    float *mine = calloc(1024, sizeof(*mine));
    int given_back = 0;
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_stream *stream = NULL;
    mh_buffer *buffer = NULL, *imported = NULL, *scratch = NULL;
    mh_memory_info memory = MH_INIT(mh_memory_info);

    int ok = mine && !mh_runtime_create(NULL, &runtime) &&
             !mh_device_open(runtime, "host", NULL, &device) &&
             !mh_stream_create(device, &stream) &&
             !mh_buffer_create(device, 1000, MH_BUFFER_DEVICE, &buffer) &&
             !mh_buffer_create(device, 1 << 20, MH_BUFFER_DEVICE, &scratch);

    /* No copy: only on devices that run on host memory (MH_DEVICE_HOST_MEMORY). */
    ok = ok && !mh_buffer_import(device, mine, 4096, 0, released, &given_back, &imported);

    ok = ok && !mh_device_memory(device, &memory);
    if (ok)
        printf("%llu bytes in %llu buffers, %llu imported\n", (unsigned long long)memory.used,
               (unsigned long long)memory.buffers, (unsigned long long)memory.imported);
    ok = ok && memory.used == 1000 + (1 << 20) && memory.imported == 4096;

    /* Temporary memory of ops comes from here from now on, and never grows behind your back. */
    ok = ok && !mh_encoder_set_scratch(mh_stream_encoder(stream), scratch);

    /* Running out is a status with the figures in its message. */
    mh_buffer *huge = NULL;
    ok = ok &&
         mh_buffer_create(device, UINT64_C(1) << 60, MH_BUFFER_DEVICE, &huge) == MH_OUT_OF_MEMORY;
    if (ok)
        puts(mh_last_message());

    mh_buffer_release(imported);
    ok = ok && given_back == 1;
    mh_stream_release(stream);
    mh_buffer_release(scratch);
    mh_buffer_release(buffer);
    ok = ok && !mh_device_memory(device, &memory) && memory.used == 0 && memory.peak > 1 << 20;
    mh_device_release(device);
    mh_runtime_release(runtime);
    free(mine);
    return !ok;
}
