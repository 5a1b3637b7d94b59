/* core_streams.c: order within a stream, between streams by events, lifetimes with work in flight.
 */
#include <string.h>

#include "core.h"

#define SIZE 100000

/* `steps` copies from buffer to buffer, each depending on the one before. */
static bool order(struct core *c)
{
    enum { BUFFERS = 5, STEPS = 60 };
    static uint8_t model[BUFFERS][SIZE], got[SIZE];
    mh_buffer *buffers[BUFFERS];
    mh_stream *stream = core_stream(c, c->device);
    for (int i = 0; i < BUFFERS; i++) {
        buffers[i] = core_buffer(c, c->device, SIZE);
        if (!stream || !buffers[i])
            return false;
        memset(model[i], 17 * i + 1, SIZE);
        TRY(mh_stream_write(stream, buffers[i], 0, model[i], SIZE));
    }
    /* What was enqueued reads the host's memory until it is done. */
    TRY(mh_stream_wait(stream, MH_FOREVER));
    for (int step = 0; step < STEPS; step++) {
        uint32_t from = conf_below(&c->random, BUFFERS),
                 to = (from + 1 + conf_below(&c->random, BUFFERS - 1)) % BUFFERS;
        uint64_t size = 1 + conf_below(&c->random, SIZE / 2), at = conf_below(&c->random, SIZE / 2);
        uint64_t source = conf_below(&c->random, SIZE / 2);
        TRY(mh_stream_copy(stream, buffers[to], at, buffers[from], source, size));
        memmove(model[to] + at, model[from] + source, size);
    }
    for (int i = 0; i < BUFFERS; i++) {
        TRY(mh_stream_read(stream, buffers[i], 0, got, SIZE));
        TRY(mh_stream_wait(stream, MH_FOREVER));
        CHECK(!memcmp(got, model[i], SIZE), "buffer %d is not what copies in order make it", i);
    }
    return true;
}

static bool events(struct core *c)
{
    static uint8_t one[SIZE], two[SIZE], got[SIZE];
    mh_stream *first = core_stream(c, c->device), *second = core_stream(c, c->device);
    mh_buffer *buffer = core_buffer(c, c->device, SIZE), *other = core_buffer(c, c->device, SIZE);
    mh_event *event = NULL;
    if (!first || !second || !buffer || !other)
        return false;
    TRY(mh_event_create(c->device, &event));
    mh_status never = mh_event_wait(event, 0);
    bool held = never == MH_WRONG_STATE;
    memset(two, 2, SIZE);
    for (int round = 0; held && round < 20; round++) {
        memset(one, round + 3, SIZE);
        held = !mh_stream_write(first, buffer, 0, two, SIZE) &&
               !mh_stream_write(first, buffer, 0, one, SIZE) && !mh_event_record(event, first) &&
               !mh_stream_wait_event(second, event) &&
               !mh_stream_copy(second, other, 0, buffer, 0, SIZE) &&
               !mh_stream_read(second, other, 0, got, SIZE) &&
               !mh_stream_wait(second, MH_FOREVER) && !memcmp(got, one, SIZE) &&
               !mh_event_wait(event, MH_FOREVER);
    }
    mh_event_release(event);
    CHECK(never == MH_WRONG_STATE, "an event that was never recorded: %s", mh_status_text(never));
    CHECK(held, "work after an event saw what was before it (or: %s)", mh_last_message());
    return true;
}

static bool events_across_devices(struct core *c)
{
    static uint8_t bytes[SIZE], got[SIZE];
    mh_device *again = core_device(c, NULL);
    mh_stream *mine = core_stream(c, c->device), *theirs = again ? core_stream(c, again) : NULL;
    mh_buffer *from = core_buffer(c, c->device, SIZE),
              *to = again ? core_buffer(c, again, SIZE) : NULL;
    mh_event *event;
    if (!mine || !theirs || !from || !to)
        return false;
    memset(bytes, 9, SIZE);
    TRY(mh_event_create(c->device, &event));
    mh_status status = mh_stream_write(mine, from, 0, bytes, SIZE);
    if (!status)
        status = mh_event_record(event, mine);
    if (!status)
        status = mh_stream_wait_event(theirs, event);
    if (!status) /* now the bytes are there; a copy between buffers asks no stream */
        status = mh_stream_wait(theirs, MH_FOREVER);
    if (!status)
        status = mh_buffer_copy(to, 0, from, 0, SIZE);
    if (!status)
        status = mh_buffer_read(to, 0, got, SIZE);
    mh_event_release(event);
    CHECK(!status, "%s", mh_last_message());
    CHECK(!memcmp(got, bytes, SIZE), "the other device saw other bytes");
    return true;
}

/* From the device to itself, opened again, and on to the host: each stream waits for the one before
 * and takes its bytes, without a wait of the caller's own between. */
static bool copies_across_devices(struct core *c)
{
    static uint8_t bytes[SIZE], got[SIZE];
    mh_device *devices[] = {c->device, core_device(c, NULL), NULL};
    mh_buffer *buffers[3] = {0};
    mh_event *event[2] = {0};
    mh_status status = MH_OK;
    if (!devices[1])
        return false;
    TRY(mh_device_host(c->device, &devices[2]));
    for (int i = 0; i < 3; i++)
        if (!(buffers[i] = core_buffer(c, devices[i], SIZE)))
            return false;
    for (int i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)conf_draw(&c->random);
    for (int i = 0; !status && i < 3; i++) {
        mh_stream *stream = core_stream(c, devices[i]);
        if (!stream)
            break;
        status = i ? mh_stream_wait_event(stream, event[i - 1])
                   : mh_stream_write(stream, buffers[0], 0, bytes, SIZE);
        if (!status && i)
            status = mh_stream_copy(stream, buffers[i], 0, buffers[i - 1], 0, SIZE);
        if (!status && i < 2)
            status = mh_event_create(devices[i], &event[i]);
        if (!status)
            status = i < 2 ? mh_event_record(event[i], stream)
                           : mh_stream_read(stream, buffers[i], 0, got, SIZE);
        if (!status && i == 2)
            status = mh_stream_wait(stream, MH_FOREVER);
    }
    mh_event_release(event[0]);
    mh_event_release(event[1]);
    CHECK(!status, "%s", mh_last_message());
    CHECK(!memcmp(got, bytes, SIZE), "other bytes arrived than were sent");
    return true;
}

static bool elapsed(struct core *c)
{
    mh_event *begin = NULL, *end = NULL;
    uint64_t ns = 0;
    mh_status status = mh_event_create(c->device, &begin);
    if (!status)
        status = mh_event_create(c->device, &end);
    if (!status)
        status = mh_event_record(begin, c->stream);
    if (!status)
        status = mh_event_record(end, c->stream);
    if (!status)
        status = mh_event_wait(end, MH_FOREVER);
    if (!status)
        status = mh_event_wait(begin, MH_FOREVER);
    if (!status)
        status = mh_event_elapsed(begin, end, &ns);
    mh_event_release(begin);
    mh_event_release(end);
    CHECK(!status, "%s", mh_last_message());
    CHECK(ns < 60000000000u, "%llu ns passed between two events in a row", (unsigned long long)ns);
    return true;
}

/* Memory outlives its handle while work needs it. */
static bool release_in_flight(struct core *c)
{
    static uint8_t bytes[SIZE], got[SIZE];
    mh_stream *stream = core_stream(c, c->device);
    mh_buffer *last = core_buffer(c, c->device, SIZE), *a;
    if (!stream || !last)
        return false;
    memset(bytes, 5, SIZE);
    for (int round = 0; round < 10; round++) {
        bytes[round] = (uint8_t)(100 + round);
        TRY(mh_buffer_create(c->device, SIZE, 0, &a));
        mh_status status = mh_stream_write(stream, a, 0, bytes, SIZE);
        if (!status)
            status = mh_stream_copy(stream, last, 0, a, 0, SIZE);
        mh_buffer_release(a);
        CHECK(!status, "%s", mh_last_message());
        TRY(mh_stream_read(stream, last, 0, got, SIZE));
        TRY(mh_stream_wait(stream, MH_FOREVER));
        CHECK(!memcmp(got, bytes, SIZE), "bytes of a released buffer did not arrive");
    }
    return true;
}

static bool polling(struct core *c)
{
    static uint8_t bytes[SIZE];
    mh_buffer *buffer = core_buffer(c, c->device, SIZE);
    mh_stream *stream = core_stream(c, c->device);
    if (!buffer || !stream)
        return false;
    TRY(mh_stream_wait(stream, 0)); /* nothing is under way */
    TRY(mh_stream_write(stream, buffer, 0, bytes, SIZE));
    mh_status status = MH_TIMEOUT;
    for (uint64_t tries = 0; status == MH_TIMEOUT && tries < 100000000; tries++)
        status = mh_stream_wait(stream, 0);
    CHECK(!status, "polling: %s", mh_status_text(status));
    return true;
}

const struct core_case core_streams[] = {
    {"streams/order", order},
    {"streams/events", events},
    {"streams/events-across-devices", events_across_devices},
    {"streams/copies-across-devices", copies_across_devices},
    {"streams/elapsed", elapsed},
    {"streams/release-in-flight", release_in_flight},
    {"streams/polling", polling},
    {0},
};
