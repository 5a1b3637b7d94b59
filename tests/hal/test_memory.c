/* Buffers, streams, events: accounting, lifetimes with work in flight, imports, limits. */
#include "world.h"

static uint64_t used(mh_device *device)
{
    mh_memory_info info = MH_INIT(mh_memory_info);
    OK(mh_device_memory(device, &info));
    return info.used;
}

static void accounting_is_exact(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_buffer *a, *b, *empty;
    OK(mh_buffer_create(w->probe, 1000, 0, &a));
    OK(mh_buffer_create(w->probe, 24, 0, &b));
    OK(mh_buffer_create(w->probe, 0, 0, &empty));
    assert_int_equal(used(w->probe), 1024);
    mh_buffer_release(a);
    assert_int_equal(used(w->probe), 24);
    mh_memory_info info = MH_INIT(mh_memory_info);
    OK(mh_device_memory(w->probe, &info));
    assert_int_equal(info.peak, 1024);
    assert_int_equal(info.buffers, 1);
    assert_int_equal(used(w->host), 0);
    w->control->memory_limit = 100;
    REFUSED(MH_OUT_OF_MEMORY, mh_buffer_create(w->probe, 77, 0, &a), "76 left");
    assert_int_equal(used(w->probe), 24);
    mh_buffer_release(b);
    mh_buffer_release(empty);
    world_free(w);
}

static void copies_reach_every_byte_and_no_other(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_device *devices[] = {w->host, w->probe};
    for (int d = 0; d < 2; d++) {
        mh_buffer *buffer, *other;
        mh_stream *stream;
        char out[16] = "";
        OK(mh_buffer_create(devices[d], 16, 0, &buffer));
        OK(mh_buffer_create(devices[d], 16, 0, &other));
        OK(mh_stream_create(devices[d], &stream));
        OK(mh_buffer_write(buffer, 0, "0123456789abcdef", 16));
        OK(mh_stream_write(stream, buffer, 3, "XYZ", 3));
        OK(mh_stream_copy(stream, other, 0, buffer, 0, 16));
        OK(mh_stream_read(stream, other, 0, out, 16));
        OK(mh_stream_wait(stream, MH_FOREVER));
        assert_memory_equal(out, "012XYZ6789abcdef", 16);
        REFUSED(MH_INVALID_ARGUMENT, mh_stream_write(stream, buffer, 14, "xyz", 3), "16 bytes");
        REFUSED(MH_INVALID_ARGUMENT, mh_buffer_read(buffer, UINT64_MAX, out, 2), "beyond");
        REFUSED(MH_INVALID_ARGUMENT, mh_stream_copy(stream, buffer, 0, buffer, 4, 8), "overlap");
        REFUSED(MH_INVALID_ARGUMENT, mh_stream_copy(stream, buffer, 4, buffer, 0, 8), "overlap");
        REFUSED(MH_INVALID_ARGUMENT, mh_buffer_copy(buffer, 4, buffer, 0, 8), "overlap");
        OK(mh_stream_copy(stream, buffer, 8, buffer, 0, 8)); /* side by side */
        OK(mh_buffer_copy(buffer, 0, buffer, 8, 8));
        mh_device_counters before = MH_INIT(mh_device_counters), after = before;
        OK(mh_device_get_counters(devices[d], &before));
        OK(mh_buffer_write(buffer, 0, "01234", 5));
        OK(mh_device_get_counters(devices[d], &after));
        assert_int_equal(after.copied_bytes, before.copied_bytes + 5);
        assert_int_equal(after.copies, before.copies + 1);
        mh_buffer *foreign;
        OK(mh_buffer_create(devices[1 - d], 16, 0, &foreign));
        REFUSED(MH_INVALID_ARGUMENT, mh_stream_write(stream, foreign, 0, "x", 1),
                mh_device_uri(devices[1 - d]));
        mh_buffer_release(foreign);
        mh_buffer_release(buffer);
        mh_buffer_release(other);
        mh_stream_release(stream);
    }
    world_free(w);
}

static void releasing_with_work_in_flight_is_legal(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_stream *stream;
    mh_buffer *a, *b;
    char out[4] = "";
    OK(mh_stream_create(w->probe, &stream));
    OK(mh_buffer_create(w->probe, 4, 0, &a));
    OK(mh_buffer_create(w->probe, 4, 0, &b));
    w->control->gate_closed = 1;
    OK(mh_stream_write(stream, a, 0, "abc", 4));
    OK(mh_stream_copy(stream, b, 0, a, 0, 4));
    mh_buffer_release(a);
    assert_int_equal(w->control->live_buffers, 2); /* still needed */
    assert_int_equal(used(w->probe), 8);
    OK(mh_stream_read(stream, b, 0, out, 4));
    assert_int_equal(mh_stream_wait(stream, 0), MH_TIMEOUT);
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_string_equal(out, "abc");
    w->control->gate_closed = 0;
    OK(mh_stream_read(stream, b, 0, out, 4)); /* the next call finds the memory free */
    assert_int_equal(w->control->live_buffers, 1);
    OK(mh_stream_wait(stream, MH_FOREVER));
    mh_buffer_release(b);
    mh_stream_release(stream);
    world_free(w);
}

/* A stream with newer work under way does not hold what it has passed. */
static void memory_goes_when_the_last_stream_has_passed(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_stream *a, *b;
    mh_buffer *x, *y, *z;
    OK(mh_stream_create(w->probe, &a));
    OK(mh_stream_create(w->probe, &b));
    OK(mh_buffer_create(w->probe, 4, 0, &x));
    OK(mh_buffer_create(w->probe, 4, 0, &y));
    OK(mh_buffer_create(w->probe, 4, 0, &z));
    w->control->gate_closed = 1;
    OK(mh_stream_write(b, y, 0, "abc", 4));
    OK(mh_stream_write(a, x, 0, "abc", 4));
    mh_buffer_release(x);
    OK(mh_stream_wait(a, MH_FOREVER));
    OK(mh_stream_write(a, z, 0, "abc", 4));
    assert_int_equal(w->control->live_buffers, 3); /* b may need it */
    OK(mh_stream_wait(b, MH_FOREVER));
    OK(mh_stream_write(b, y, 0, "abc", 4));
    assert_int_equal(w->control->live_buffers, 2);
    mh_buffer_release(y);
    mh_buffer_release(z);
    mh_stream_release(a);
    mh_stream_release(b);
    world_free(w);
}

static void released(void *user)
{
    ++*(int *)user;
}

static void imports_are_zero_copy_and_given_back_once(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_buffer *buffer;
    int count = 0;
    float values[4] = {1, 2, 3, 4};
    REFUSED(MH_UNSUPPORTED, mh_buffer_import(w->probe, values, 16, 0, NULL, NULL, &buffer),
            "host memory");
    OK(mh_buffer_import(w->host, values, 16, 0, released, &count, &buffer));
    assert_ptr_equal(mh_buffer_host(buffer), values);
    assert_int_equal(used(w->host), 0);
    mh_memory_info info = MH_INIT(mh_memory_info);
    OK(mh_device_memory(w->host, &info));
    assert_int_equal(info.imported, 16);
    OK(mh_buffer_write(buffer, 4, &(float){9}, 4));
    assert_true(values[1] == 9);
    mh_buffer_release(mh_buffer_retain(buffer));
    assert_int_equal(count, 0);
    mh_buffer_release(buffer);
    assert_int_equal(count, 1);
    OK(mh_buffer_import(w->host, values, 16, MH_IMPORT_READ_ONLY, NULL, NULL, &buffer));
    REFUSED(MH_INVALID_ARGUMENT, mh_buffer_write(buffer, 0, "x", 1), "read-only");
    mh_stream *stream;
    OK(mh_stream_create(w->host, &stream));
    mh_op_fill fill = MH_OP_INIT(fill, FILL);
    fill.y = f32_matrix(buffer, 0, 2, 2);
    REFUSED(MH_INVALID_ARGUMENT, mh_encode(mh_stream_encoder(stream), &fill.base), "read-only");
    mh_stream_release(stream);
    mh_buffer_release(buffer);
    world_free(w);
}

static void events_order_and_time(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_stream *a, *b;
    mh_event *before, *after;
    mh_buffer *buffer;
    uint64_t ns;
    OK(mh_stream_create(w->probe, &a));
    OK(mh_stream_create(w->probe, &b));
    OK(mh_event_create(w->probe, &before));
    OK(mh_event_create(w->probe, &after));
    OK(mh_buffer_create(w->probe, 4, 0, &buffer));
    REFUSED(MH_WRONG_STATE, mh_event_wait(before, 0), "never recorded");
    w->control->gate_closed = 1;
    OK(mh_event_record(before, a));
    OK(mh_stream_write(a, buffer, 0, "abc", 4));
    OK(mh_event_record(after, a));
    assert_int_equal(mh_event_wait(after, 0), MH_TIMEOUT);
    REFUSED(MH_WRONG_STATE, mh_event_elapsed(before, after, &ns), "waited for");
    char out[4] = "";
    OK(mh_stream_wait_event(b, after));
    OK(mh_stream_read(b, buffer, 0, out, 4));
    OK(mh_stream_wait(b, MH_FOREVER));
    assert_string_equal(out, "abc");
    OK(mh_event_wait(before, MH_FOREVER));
    OK(mh_event_wait(after, MH_FOREVER));
    OK(mh_event_elapsed(before, after, &ns));
    mh_device_counters counters = MH_INIT(mh_device_counters);
    OK(mh_device_get_counters(w->probe, &counters));
    assert_int_equal(counters.stream_waits, 1);
    assert_int_equal(counters.copies, 2);
    assert_int_equal(counters.copied_bytes, 8);
    mh_event_release(before);
    mh_event_release(after);
    mh_buffer_release(buffer);
    mh_stream_release(a);
    mh_stream_release(b);
    world_free(w);
}

static void a_lost_device_says_so_until_reset(void **state)
{
    (void)state;
    struct world *w = world_make(0);
    mh_stream *stream;
    mh_buffer *buffer, *fresh;
    mh_error cause = MH_INIT(mh_error);
    OK(mh_stream_create(w->probe, &stream));
    OK(mh_buffer_create(w->probe, 4, 0, &buffer));
    assert_int_equal(mh_device_error(w->probe, &cause), MH_NOT_FOUND);
    w->control->fail_wait = 1;
    assert_int_equal(mh_stream_wait(stream, MH_FOREVER), MH_DEVICE_LOST);
    assert_int_equal(mh_device_error(w->probe, &cause), MH_OK);
    assert_int_equal(cause.status, MH_VENDOR_ERROR);
    assert_int_equal(cause.vendor_code, 42);
    assert_string_equal(cause.vendor_call, "probeCall");
    assert_string_equal(cause.message, "probe: a kernel faulted");
    REFUSED(MH_DEVICE_LOST, mh_buffer_write(buffer, 0, "x", 1), "a kernel faulted");
    REFUSED(MH_DEVICE_LOST, mh_buffer_create(w->probe, 4, 0, &fresh), "a kernel faulted");
    OK(mh_device_reset(w->probe));
    assert_int_equal(mh_device_error(w->probe, &cause), MH_NOT_FOUND);
    REFUSED(MH_STALE_HANDLE, mh_buffer_write(buffer, 0, "x", 1), "reset");
    REFUSED(MH_STALE_HANDLE, mh_stream_wait(stream, MH_FOREVER), "reset");
    OK(mh_buffer_create(w->probe, 4, 0, &fresh));
    OK(mh_buffer_write(fresh, 0, "xyz", 4));
    assert_int_equal(used(w->probe), 4);
    mh_buffer_release(fresh);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    assert_int_equal(used(w->probe), 0);
    REFUSED(MH_UNSUPPORTED, mh_device_reset(w->host), "cannot reset");
    world_free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accounting_is_exact),
        cmocka_unit_test(copies_reach_every_byte_and_no_other),
        cmocka_unit_test(releasing_with_work_in_flight_is_legal),
        cmocka_unit_test(memory_goes_when_the_last_stream_has_passed),
        cmocka_unit_test(imports_are_zero_copy_and_given_back_once),
        cmocka_unit_test(events_order_and_time),
        cmocka_unit_test(a_lost_device_says_so_until_reset),
    };
    return WORLD_MAIN(tests);
}
