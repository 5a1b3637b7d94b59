/* hello.c: one op on whatever device there is. */
#include <stdio.h>

#include <moehal/moehal.h>

int main(void)
{
    static const float a[4] = {1, 2, 3, 4}, b[4] = {10, 20, 30, 40};
    const int64_t shape[] = {1, 4}; /* one row of four values */
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_stream *stream = NULL;
    mh_buffer *memory = NULL;
    float y[4] = {0};

    int ok = !mh_runtime_create(NULL, &runtime) &&
             !mh_device_open(runtime, "auto", NULL, &device) &&
             !mh_stream_create(device, &stream) &&
             !mh_buffer_create(device, 768, MH_BUFFER_DEVICE, &memory);

    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = mh_tensor_make(memory, 0, MH_F32, 2, shape);
    op.a = mh_tensor_make(memory, 256, MH_F32, 2, shape);
    op.b = mh_tensor_make(memory, 512, MH_F32, 2, shape);

    ok = ok && !mh_stream_write(stream, memory, 256, a, sizeof(a)) &&
         !mh_stream_write(stream, memory, 512, b, sizeof(b)) &&
         !mh_encode(mh_stream_encoder(stream), &op.base) &&
         !mh_stream_read(stream, memory, 0, y, sizeof(y)) && !mh_stream_wait(stream, MH_FOREVER);
    if (ok)
        printf("%s: %g %g %g %g\n", mh_device_uri(device), y[0], y[1], y[2], y[3]);
    else
        fprintf(stderr, "%s\n", mh_last_message());

    mh_buffer_release(memory); /* in any order: children keep their parents */
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok || y[3] != 44;
}
