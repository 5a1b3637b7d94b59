/* errors.c: what a failure tells, an index that only the device can know, a device that is lost. */
#include <stdio.h>
#include <string.h>

#include <moehal/moehal.h>

/* A shape that does not fit: refused before anything runs, with names and numbers. */
static int bad_shape(mh_stream *stream, mh_buffer *memory)
{
    const int64_t two[] = {2, 8}, three[] = {3, 8};
    mh_error error = MH_INIT(mh_error);
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = mh_tensor_make(memory, 0, MH_F32, 2, two);
    op.a = mh_tensor_make(memory, 256, MH_F32, 2, two);
    op.b = mh_tensor_make(memory, 512, MH_F32, 2, three);
    op.base.layer = 3, op.base.label = "residual"; /* shown in messages and traces */
    if (mh_encode(mh_stream_encoder(stream), &op.base) != MH_INVALID_ARGUMENT ||
        mh_last_error(&error))
        return 0;
    printf("%s (%s:%u)\n", error.message, error.file, error.line);
    return strstr(error.message, "layer 3, residual") != NULL;
}

/* A position beyond the table: its row stays as it was, and the fault word says so. */
static int bad_index(mh_stream *stream, mh_buffer *memory)
{
    const int64_t rows[] = {1, 1, 2}, table[] = {4, 2}, one[] = {1};
    const int32_t position = 9;
    uint32_t fault = 0;
    mh_op_rope op = MH_OP_INIT(rope, ROPE);
    op.y = mh_tensor_make(memory, 0, MH_F32, 3, rows);
    op.x = mh_tensor_make(memory, 256, MH_F32, 3, rows);
    op.table = mh_tensor_make(memory, 512, MH_F32, 2, table);
    op.positions = mh_tensor_make(memory, 768, MH_I32, 1, one);
    op.fault = mh_tensor_make(memory, 1024, MH_U32, 1, one);
    return !mh_buffer_write(memory, 768, &position, 4) &&
           !mh_buffer_write(memory, 1024, &fault, 4) &&
           !mh_encode(mh_stream_encoder(stream), &op.base) && !mh_stream_wait(stream, MH_FOREVER) &&
           !mh_buffer_read(memory, 1024, &fault, 4) && fault == MH_BAD_INDEX;
}

/* The first asynchronous error sticks; a reset makes older handles stale, not dangerous. */
static int lost(mh_runtime *runtime)
{
    mh_device *device = NULL;
    mh_buffer *before = NULL;
    mh_error cause = MH_INIT(mh_error);
    mh_faults faults = MH_INIT(mh_faults); /* injected here; hardware does it unasked */
    mh_device_params params = MH_INIT(mh_device_params);
    faults.call = MH_CALL_COPY, faults.status = MH_DEVICE_LOST, faults.nth = 1;
    params.faults = &faults;
    int ok = !mh_device_open(runtime, "host", &params, &device) &&
             !mh_buffer_create(device, 64, MH_BUFFER_DEVICE, &before) &&
             mh_buffer_write(before, 0, "x", 1) == MH_DEVICE_LOST &&
             !mh_device_error(device, &cause) && !mh_device_reset(device) &&
             mh_buffer_write(before, 0, "x", 1) == MH_STALE_HANDLE;
    printf("cause: %s\n", cause.message);
    mh_buffer_release(before);
    mh_device_release(device);
    return ok;
}

int main(void)
{
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_stream *stream = NULL;
    mh_buffer *memory = NULL;
    int ok = !mh_runtime_create(NULL, &runtime) && !mh_device_open(runtime, NULL, NULL, &device) &&
             !mh_stream_create(device, &stream) &&
             !mh_buffer_create(device, 4096, MH_BUFFER_DEVICE, &memory) &&
             bad_shape(stream, memory) && bad_index(stream, memory) && lost(runtime);
    mh_buffer_release(memory);
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok;
}
