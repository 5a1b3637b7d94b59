/*
 * Several threads on one device, each with its own stream and buffers, sharing a weight: for the
 * thread sanitizer, and for the accounting that must come out even. On the null device every op
 * goes through the companion host, which the threads race to open.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "world.h"

enum { THREADS = 4, ROUNDS = 60, ROWS = 3, IN = 70, OUT = 20 };

struct shared {
    mh_device *device;
    mh_weight *weight;
    float want[ROWS * OUT];
    atomic_int bad;
};

static float value(int i)
{
    return (float)((i * 37) % 200 - 100) / 64;
}

static mh_status one_round(struct shared *s, float got[ROWS * OUT])
{
    float x[ROWS * IN];
    mh_buffer *buffer = NULL;
    mh_stream *stream = NULL;
    mh_event *event = NULL;
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    for (int i = 0; i < ROWS * IN; i++)
        x[i] = value(i);
    mh_status status = mh_stream_create(s->device, &stream);
    if (!status)
        status = mh_buffer_create(s->device, 2048, 0, &buffer);
    if (!status)
        status = mh_event_create(s->device, &event);
    if (!status)
        status = mh_buffer_write(buffer, 0, x, sizeof(x));
    op.x = f32_matrix(buffer, 0, ROWS, IN);
    op.y = f32_matrix(buffer, 1024, ROWS, OUT);
    op.w = s->weight;
    if (!status)
        status = mh_encode(mh_stream_encoder(stream), &op.base);
    if (!status)
        status = mh_event_record(event, stream);
    if (!status)
        status = mh_stream_read(stream, buffer, 1024, got, sizeof(float) * ROWS * OUT);
    if (!status)
        status = mh_event_wait(event, MH_FOREVER);
    if (!status)
        status = mh_stream_wait(stream, MH_FOREVER);
    mh_buffer_release(buffer);
    mh_event_release(event);
    mh_stream_release(stream);
    return status;
}

static void *work(void *user)
{
    struct shared *s = user;
    for (int i = 0; i < ROUNDS; i++) {
        float got[ROWS * OUT];
        if (one_round(s, got) || memcmp(got, s->want, sizeof(got)))
            atomic_fetch_add(&s->bad, 1);
    }
    return NULL;
}

static void on_device(struct world *w, const char *uri)
{
    struct shared s = {0};
    mh_device *home;
    float values[OUT * IN];
    pthread_t threads[THREADS];
    OK(mh_device_open(w->runtime, uri, NULL, &s.device));
    OK(mh_device_host(s.device, &home)); /* where a weight without a kernel lives */
    for (int i = 0; i < OUT * IN; i++)
        values[i] = value(3 * i + 1);
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = MH_FORMAT_F32, p.experts = 1, p.out = OUT, p.in = IN;
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = 1, piece.row_count = OUT, piece.plane[0] = values;
    OK(mh_weight_create(home, &p, &s.weight));
    OK(mh_weight_write(s.weight, &piece));
    OK(mh_weight_seal(s.weight));
    OK(one_round(&s, s.want));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &s), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&s.bad), 0);
    mh_device_counters counters = MH_INIT(mh_device_counters);
    OK(mh_device_get_counters(s.device, &counters));
    assert_int_equal(counters.native + counters.fallback, THREADS * ROUNDS + 1);
    mh_weight_release(s.weight);
    mh_memory_info info = MH_INIT(mh_memory_info);
    OK(mh_device_memory(s.device, &info));
    assert_int_equal(info.used, 0);
    assert_int_equal(info.buffers, 0);
    mh_device_release(s.device);
}

static void threads_share_a_device(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    on_device(w, "host");
    on_device(w, "null");
    world_free(w);
}

static void *open_companion(void *user)
{
    mh_device *host;
    return mh_device_host(user, &host) ? NULL : host;
}

static void the_companion_is_opened_once(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    pthread_t threads[THREADS];
    void *found[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_companion, w->probe), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], &found[i]);
    for (int i = 0; i < THREADS; i++)
        assert_true(found[i] && found[i] == found[0]);
    world_free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_a_device),
        cmocka_unit_test(the_companion_is_opened_once),
    };
    return WORLD_MAIN(tests);
}
