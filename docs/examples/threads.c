/* threads.c: one device, a stream a thread. */
#include <pthread.h>
#include <stdio.h>

#include <moehal/moehal.h>

struct worker {
    mh_device *device;
    uint32_t number, got;
    mh_status status;
    char message[256]; /* errors are kept a thread: copy what you want to keep */
};

static void *work(void *user)
{
    struct worker *w = user;
    const int64_t shape[] = {1};
    mh_stream *stream = NULL;
    mh_buffer *buffer = NULL;
    mh_op_fill op = MH_OP_INIT(fill, FILL);
    w->status = mh_stream_create(w->device, &stream);
    if (!w->status)
        w->status = mh_buffer_create(w->device, 4, MH_BUFFER_DEVICE, &buffer);
    op.y = mh_tensor_make(buffer, 0, MH_U32, 1, shape);
    for (uint32_t i = 0; !w->status && i < 100; i++) {
        op.bits = 1000 * w->number + i;
        w->status = mh_encode(mh_stream_encoder(stream), &op.base);
    }
    if (!w->status)
        w->status = mh_stream_wait(stream, MH_FOREVER);
    if (!w->status)
        w->status = mh_buffer_read(buffer, 0, &w->got, 4);
    snprintf(w->message, sizeof(w->message), "%s", w->status ? mh_last_message() : "");
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    return NULL;
}

int main(void)
{
    enum { WORKERS = 4 };
    pthread_t threads[WORKERS];
    struct worker workers[WORKERS];
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    int ok = !mh_runtime_create(NULL, &runtime) && !mh_device_open(runtime, NULL, NULL, &device);
    int started = 0;
    for (uint32_t i = 0; ok && i < WORKERS; i++) {
        workers[i] = (struct worker){.device = device, .number = i};
        ok = !pthread_create(&threads[i], NULL, work, &workers[i]);
        started += ok;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        ok = ok && !workers[i].status && workers[i].got == 1000 * workers[i].number + 99;
        if (workers[i].status)
            fprintf(stderr, "%s\n", workers[i].message);
    }
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok;
}
