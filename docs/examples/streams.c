/* streams.c: two queues, an event between them, and polling. */
#include <stdio.h>
#include <string.h>

#include <moehal/moehal.h>

int main(void)
{
    static char sent[1 << 16], got[1 << 16];
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_stream *producer = NULL, *consumer = NULL;
    mh_event *filled = NULL;
    mh_buffer *first = NULL, *second = NULL;
    memset(sent, 7, sizeof(sent));

    int ok = !mh_runtime_create(NULL, &runtime) && !mh_device_open(runtime, NULL, NULL, &device) &&
             !mh_stream_create(device, &producer) && !mh_stream_create(device, &consumer) &&
             !mh_event_create(device, &filled) &&
             !mh_buffer_create(device, sizeof(sent), MH_BUFFER_DEVICE, &first) &&
             !mh_buffer_create(device, sizeof(sent), MH_BUFFER_DEVICE, &second);

    /* The consumer's copy comes after the producer's write; the host waits for neither here. */
    ok = ok && !mh_stream_write(producer, first, 0, sent, sizeof(sent)) &&
         !mh_event_record(filled, producer) && !mh_stream_wait_event(consumer, filled) &&
         !mh_stream_copy(consumer, second, 0, first, 0, sizeof(sent)) &&
         !mh_stream_read(consumer, second, 0, got, sizeof(got));

    mh_buffer_release(first); /* work in flight keeps the memory */

    mh_status status = MH_TIMEOUT;
    while (ok && status == MH_TIMEOUT)
        status = mh_stream_wait(consumer, 0); /* 0 polls; do something useful meanwhile */
    ok = ok && !status && !memcmp(sent, got, sizeof(sent));
    puts(ok ? "arrived" : mh_last_message());

    mh_buffer_release(second);
    mh_event_release(filled);
    mh_stream_release(consumer);
    mh_stream_release(producer);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok;
}
