/* queue.c: streams' queues and the threads that work them off.
 *
 * A device's thread takes, among the first commands of its streams, one whose waits are over: by
 * default the one submitted first. MOEHAL_VIRTUAL_STREAMS=random or newest takes others, which is
 * as legal, and shows where a program lacks a wait. */
#include "driver.h"

#include "../../common/turns.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

void stream_hold(hipStream_t stream)
{
    stream->holders++;
}

void stream_release(hipStream_t stream)
{
    if (--stream->holders)
        return;
    for (hipStream_t *at = &stream->device->streams; *at; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            break;
        }
    free(stream->tips);
    free(stream);
}

bool stream_reached(hipStream_t stream, uint64_t ticket)
{
    return stream->done >= ticket;
}

void host_asks(void)
{
    if (driver.held)
        pthread_cond_broadcast(&driver.work);
    driver.held = false;
}

static bool anything_queued(void)
{
    for (int i = 0; i < driver.count; i++)
        if (driver.device[i].queued)
            return true;
    return false;
}

void host_sees(hipStream_t stream, uint64_t ticket)
{
    vr_wait_for(driver.seen, &stream->ends, ticket, (unsigned)stream->device->ordinal);
    if (!anything_queued())
        vr_forget(driver.seen);
}

static bool blocking(const struct ihipStream_t *stream)
{
    return !stream->legacy && !(stream->flags & hipStreamNonBlocking);
}

/* The null stream and the blocking ones wait for each other. */
static bool tied(const struct ihipStream_t *stream, const struct ihipStream_t *other)
{
    return other != stream && other->submitted > other->done &&
           ((stream->legacy && blocking(other)) || (blocking(stream) && other->legacy));
}

static struct command *command_create(hipStream_t stream, const struct mark *after, unsigned count)
{
    unsigned waits = count;
    for (hipStream_t other = stream->device->streams; other; other = other->next)
        waits += tied(stream, other);
    struct command *c = calloc(1, sizeof *c + waits * sizeof c->wait[0]);
    if (!c)
        return NULL;
    memcpy(c->after, driver.seen, sizeof c->after);
    for (unsigned i = 0; i < count; i++)
        c->wait[c->waits++] = after[i];
    for (hipStream_t other = stream->device->streams; other; other = other->next)
        if (tied(stream, other))
            c->wait[c->waits++] = (struct mark){other, other->submitted};
    for (unsigned i = 0; i < c->waits; i++)
        stream_hold(c->wait[i].stream);
    return c;
}

static bool value_reached(const struct op *op)
{
    uint64_t have, want = op->value.value;
    if (op->value.wide)
        have = __atomic_load_n((uint64_t *)(uintptr_t)op->value.address, __ATOMIC_ACQUIRE);
    else
        have = __atomic_load_n((uint32_t *)(uintptr_t)op->value.address, __ATOMIC_ACQUIRE);
    have &= op->value.mask;
    switch (op->value.flags) {
    case hipStreamWaitValueGte:
        return op->value.wide ? (int64_t)have >= (int64_t)want
                              : (int32_t)(uint32_t)have >= (int32_t)(uint32_t)want;
    case hipStreamWaitValueEq:
        return have == want;
    case hipStreamWaitValueAnd:
        return (have & want) != 0;
    default:
        return op->value.wide ? ~(have | want) != 0 : (uint32_t) ~(have | want) != 0;
    }
}

static bool ready(const struct command *c)
{
    for (unsigned i = 0; i < c->waits; i++)
        if (!stream_reached(c->wait[i].stream, c->wait[i].ticket))
            return false;
    return c->op.kind != OP_WAIT_VALUE || c->op.device->error || value_reached(&c->op);
}

/* The stream whose first command is to run. *poll: one waits for a value in memory. */
static hipStream_t pick(const struct device *device, bool *poll)
{
    hipStream_t best = NULL;
    unsigned count = 0;
    for (hipStream_t s = device->streams; s; s = s->next) {
        if (!s->first)
            continue;
        *poll |= s->first->op.kind == OP_WAIT_VALUE;
        if (!ready(s->first))
            continue;
        count++;
        if (driver.stream_order == ORDER_RANDOM) {
            if (vc_draw(driver.seed, &driver.drawn) % count == 0)
                best = s;
        } else if (!best ||
                   (driver.stream_order == ORDER_NEWEST ? s->first->ticket > best->first->ticket
                                                        : s->first->ticket < best->first->ticket)) {
            best = s;
        }
    }
    return best;
}

static void finish(hipStream_t stream, struct command *c, double ns)
{
    double start = stream->time_ns;
    for (unsigned i = 0; i < c->waits; i++)
        if (c->wait[i].stream->time_ns > start)
            start = c->wait[i].stream->time_ns;
    stream->time_ns = start + ns;
    if (c->op.kind == OP_RECORD && c->op.event->ticket == c->ticket)
        c->op.event->time_ns = stream->time_ns;
    stream->first = c->next;
    if (!stream->first)
        stream->last = NULL;
    stream->done = c->ticket;
    vr_ended(&stream->ends, c->ticket, (unsigned)stream->device->ordinal);
    if (!--stream->device->queued)
        vc_turns_leave((unsigned)stream->device->ordinal);
    for (unsigned i = 0; i < c->waits; i++)
        stream_release(c->wait[i].stream);
    op_release(&c->op);
    free(c);
    stream_release(stream);
    pthread_cond_broadcast(&driver.work);
}

/* What is known to be over; and whether the device takes turns now, turns.h. */
static void come_after(hipStream_t stream, struct command *c)
{
    struct device *device = stream->device;
    for (unsigned i = 0; i < c->waits; i++) {
        const struct ihipStream_t *other = c->wait[i].stream;
        vr_wait_for(stream->after, &other->ends, c->wait[i].ticket,
                    (unsigned)other->device->ordinal);
    }
    for (int d = 0; d < VC_MAX_DEVICES; d++)
        stream->after[d] = vr_later(c->after[d], stream->after[d]);
    device->after = stream->after;
    if (!(driver.checks & VA_CHECK_GLOBAL_RACES) || c->op.kind == OP_HOST ||
        c->op.kind == OP_CALLBACK)
        vc_turns_stand((unsigned)device->ordinal);
    else
        vc_turns_sit((unsigned)device->ordinal);
}

static void run_first(hipStream_t stream)
{
    struct command *c = stream->first;
    double ns = 0;
    hipError_t result = hipSuccess;
    struct device *device = stream->device;
    /* After an error nothing runs; a callback is told of it. */
    bool skip = device->error && c->op.kind != OP_CALLBACK && c->op.kind != OP_FREE;
    if (!skip) {
        come_after(stream, c);
        unlock();
        result = op_run(&c->op, &ns);
        lock();
    }
    if (result != hipSuccess)
        device_set_error(device, result);
    finish(stream, c, ns);
}

static void *device_thread(void *arg)
{
    struct device *device = arg;
    lock();
    for (;;) {
        bool poll = false;
        hipStream_t stream = driver.held ? NULL : pick(device, &poll);
        if (!stream && !driver.held)
            vc_turns_stand((unsigned)device->ordinal);
        if (stream) {
            run_first(stream);
        } else if (poll) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += 200000;
            if (until.tv_nsec >= 1000000000) {
                until.tv_nsec -= 1000000000;
                until.tv_sec++;
            }
            pthread_cond_timedwait(&driver.work, &driver.lock, &until);
        } else {
            pthread_cond_wait(&driver.work, &driver.lock);
        }
    }
    return NULL;
}

static hipError_t start_thread(struct device *device)
{
    if (device->thread_started)
        return hipSuccess;
    if (!device->workers)
        device->workers = vg_pool_create(driver.threads);
    if (!device->workers || pthread_create(&device->thread, NULL, device_thread, device))
        return hipErrorOutOfMemory;
    pthread_detach(device->thread);
    device->thread_started = true;
    return hipSuccess;
}

hipError_t queue_put(hipStream_t stream, struct op *op, const struct mark *after, unsigned count,
                     uint64_t *ticket)
{
    hipError_t result = start_thread(stream->device);
    struct command *c = result == hipSuccess ? command_create(stream, after, count) : NULL;
    if (!c) {
        op_release(op);
        return hipErrorOutOfMemory;
    }
    c->op = *op;
    c->ticket = stream->submitted = ++driver.ticket;
    if (stream->last)
        stream->last->next = c;
    else
        stream->first = c;
    stream->last = c;
    stream_hold(stream);
    driver.held |= driver.lazy && !anything_queued();
    stream->device->queued++;
    if (driver.checks & VA_CHECK_GLOBAL_RACES)
        vc_turns_sit((unsigned)stream->device->ordinal);
    if (op->kind == OP_RECORD)
        event_move(op->event, stream, c->ticket);
    if (ticket)
        *ticket = c->ticket;
    pthread_cond_broadcast(&driver.work);
    return hipSuccess;
}

hipError_t stream_submit(hipStream_t stream, struct op *op, uint64_t *ticket)
{
    op->device = stream->device;
    lock();
    hipError_t result = (hipError_t)stream->device->error;
    if (ticket)
        *ticket = 0;
    if (result != hipSuccess)
        op_release(op);
    else if (stream->capture)
        result = capture_submit(stream, op);
    else
        result = queue_put(stream, op, NULL, 0, ticket);
    unlock();
    return result;
}

/* ---- waiting, with the lock held ---- */

static void wait_for(hipStream_t stream, uint64_t ticket)
{
    if (!stream_reached(stream, ticket))
        count_add((unsigned)stream->device->ordinal, COUNT_SYNCS, 1);
    host_asks();
    while (!stream_reached(stream, ticket))
        pthread_cond_wait(&driver.work, &driver.lock);
    host_sees(stream, ticket);
}

hipError_t stream_wait(hipStream_t stream, uint64_t ticket)
{
    lock();
    wait_for(stream, ticket);
    unlock();
    return (hipError_t)stream->device->error;
}

bool stream_busy(hipStream_t stream)
{
    bool busy = stream->first != NULL;
    for (hipStream_t s = stream->device->streams; stream->legacy && s; s = s->next)
        busy |= blocking(s) && s->first;
    return busy;
}

/* What the null stream waits for, a wait for the null stream waits for too. */
hipError_t stream_drain(hipStream_t stream)
{
    struct device *device = stream->device;
    lock();
    stream_hold(stream);
    for (hipStream_t s = device->streams; s;) {
        hipStream_t next = s->next;
        if (s == stream || tied(stream, s)) {
            stream_hold(s);
            wait_for(s, s->submitted);
            next = s->next;
            stream_release(s);
        }
        s = next;
    }
    stream_release(stream);
    unlock();
    return (hipError_t)device->error;
}

static bool device_busy(const struct device *device)
{
    for (hipStream_t s = device->streams; s; s = s->next)
        if (s->first)
            return true;
    return false;
}

void device_drain(struct device *device)
{
    lock();
    if (device_busy(device))
        count_add((unsigned)device->ordinal, COUNT_SYNCS, 1);
    host_asks();
    while (device_busy(device))
        pthread_cond_wait(&driver.work, &driver.lock);
    for (hipStream_t s = device->streams; s; s = s->next)
        host_sees(s, s->done);
    unlock();
}
