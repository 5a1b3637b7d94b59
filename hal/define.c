/* define.c: an op by its definition, for backends that check their own kernels. */
#include <string.h>

#include "hal.h"

/* The host's kernels on one thread, made for this op alone. */
mh_status hal_define(void *context, const mh_op *op)
{
    mh_runtime *runtime = context;
    const mh_backend_table *host = &mh_host_backend;
    const mh_backend_open open = {.struct_size = sizeof(open), .threads = 1};
    void *instance = NULL, *device = NULL, *stream = NULL;
    mh_scratch scratch = {0};
    mh_status status = host->init(&runtime->core, &instance);
    if (!status)
        status = host->device_open(instance, 0, &open, &device);
    if (!status)
        status = host->stream_create(device, &stream);
    if (!status)
        scratch.size = host->scratch->op_scratch(device, op);
    if (scratch.size) {
        scratch.handle = scratch.host = hal_alloc(runtime, scratch.size);
        status = scratch.host ? MH_OK : MH_OUT_OF_MEMORY;
    }
    if (!status)
        status = host->encode(stream, op, &scratch);
    hal_free(runtime, scratch.host);
    if (stream)
        host->stream_destroy(stream);
    if (device)
        host->device_close(device);
    if (instance)
        host->fini(instance);
    return status;
}
