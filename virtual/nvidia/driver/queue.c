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

void stream_hold(CUstream stream)
{
    stream->holders++;
}

void stream_release(CUstream stream)
{
    if (--stream->holders)
        return;
    for (CUstream *at = &stream->context->streams; *at; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            break;
        }
    context_release(stream->context);
    free(stream);
}

bool stream_reached(CUstream stream, uint64_t ticket)
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

void host_sees(CUstream stream, uint64_t ticket)
{
    vr_wait_for(driver.seen, &stream->ends, ticket, (unsigned)stream->context->device->ordinal);
    if (!anything_queued())
        vr_forget(driver.seen);
}

static bool blocking(const struct CUstream_st *stream)
{
    return !stream->legacy && !(stream->flags & CU_STREAM_NON_BLOCKING);
}

/* The legacy stream and the blocking ones wait for each other. */
static bool waits_for(const struct CUstream_st *stream, const struct CUstream_st *other)
{
    return other != stream && other->submitted > other->done &&
           ((stream->legacy && blocking(other)) || (blocking(stream) && other->legacy));
}

static struct command *command_create(CUstream stream, const struct mark *after)
{
    unsigned waits = after != NULL;
    for (CUstream other = stream->context->streams; other; other = other->next)
        waits += waits_for(stream, other);
    struct command *c = calloc(1, sizeof *c + waits * sizeof c->wait[0]);
    if (!c)
        return NULL;
    memcpy(c->after, driver.seen, sizeof c->after);
    if (after)
        c->wait[c->waits++] = *after;
    for (CUstream other = stream->context->streams; other; other = other->next)
        if (waits_for(stream, other))
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
    switch (op->value.flags & 3) {
    case CU_STREAM_WAIT_VALUE_GEQ:
        return op->value.wide ? (int64_t)(have - want) >= 0
                              : (int32_t)((uint32_t)have - (uint32_t)want) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
        return have == want;
    case CU_STREAM_WAIT_VALUE_AND:
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
    return c->op.kind != OP_WAIT_VALUE || c->op.context->error || value_reached(&c->op);
}

static bool better(const struct command *a, const struct command *b)
{
    return driver.stream_order == ORDER_NEWEST ? a->ticket > b->ticket : a->ticket < b->ticket;
}

/* The stream whose first command is to run. *poll: one waits for a value in memory. */
static CUstream pick(const struct device *device, bool *poll)
{
    CUstream best = NULL;
    unsigned count = 0;
    for (CUcontext c = driver.contexts; c; c = c->next) {
        if (c->device != device)
            continue;
        for (CUstream s = c->streams; s; s = s->next) {
            if (!s->first)
                continue;
            if (s->first->op.kind == OP_WAIT_VALUE)
                *poll = true;
            if (!ready(s->first))
                continue;
            count++;
            if (driver.stream_order == ORDER_RANDOM) {
                if (vc_draw(driver.seed, &driver.drawn) % count == 0)
                    best = s;
            } else if (!best || better(s->first, best->first)) {
                best = s;
            }
        }
    }
    return best;
}

static void finish(CUstream stream, struct command *c, double ns)
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
    vr_ended(&stream->ends, c->ticket, (unsigned)stream->context->device->ordinal);
    if (!--stream->context->device->queued)
        vc_turns_leave((unsigned)stream->context->device->ordinal);
    for (unsigned i = 0; i < c->waits; i++)
        stream_release(c->wait[i].stream);
    op_release(&c->op);
    free(c);
    stream_release(stream);
    pthread_cond_broadcast(&driver.work);
}

/* What is known to be over; and whether the device takes turns now, turns.h. */
static void come_after(CUstream stream, struct command *c)
{
    struct device *device = stream->context->device;
    for (unsigned i = 0; i < c->waits; i++) {
        const struct CUstream_st *other = c->wait[i].stream;
        vr_wait_for(stream->after, &other->ends, c->wait[i].ticket,
                    (unsigned)other->context->device->ordinal);
    }
    for (int d = 0; d < VC_MAX_DEVICES; d++)
        stream->after[d] = vr_later(c->after[d], stream->after[d]);
    device->after = stream->after;
    if (!(driver.checks & VN_CHECK_GLOBAL_RACES) || c->op.kind == OP_HOST ||
        c->op.kind == OP_CALLBACK)
        vc_turns_stand((unsigned)device->ordinal);
    else
        vc_turns_sit((unsigned)device->ordinal);
}

static void run_first(CUstream stream)
{
    struct command *c = stream->first;
    double ns = 0;
    CUresult result = CUDA_SUCCESS;
    CUcontext context = c->op.context;
    /* After an error nothing runs; host functions and callbacks learn of it (a callback is told).
     */
    bool skip = context->error && c->op.kind != OP_CALLBACK && c->op.kind != OP_FREE;
    if (!skip) {
        come_after(stream, c);
        unlock();
        result = op_run(&c->op, &ns);
        lock();
    }
    if (result != CUDA_SUCCESS)
        context_set_error(context, result);
    finish(stream, c, ns);
}

static void *device_thread(void *arg)
{
    struct device *device = arg;
    lock();
    for (;;) {
        bool poll = false;
        CUstream stream = driver.held ? NULL : pick(device, &poll);
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

static CUresult start_thread(struct device *device)
{
    if (device->thread_started)
        return CUDA_SUCCESS;
    if (!device->workers)
        device->workers = vg_pool_create(driver.threads);
    if (!device->workers || pthread_create(&device->thread, NULL, device_thread, device))
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_detach(device->thread);
    device->thread_started = true;
    return CUDA_SUCCESS;
}

CUresult queue_put(CUstream stream, struct op *op, const struct mark *after, uint64_t *ticket)
{
    CUresult result = start_thread(stream->context->device);
    struct command *c = result == CUDA_SUCCESS ? command_create(stream, after) : NULL;
    if (!c) {
        op_release(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
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
    stream->context->device->queued++;
    if (driver.checks & VN_CHECK_GLOBAL_RACES)
        vc_turns_sit((unsigned)stream->context->device->ordinal);
    if (op->kind == OP_RECORD) {
        CUevent event = op->event;
        if (event->stream)
            stream_release(event->stream);
        stream_hold(stream);
        event->stream = stream;
        event->ticket = c->ticket;
        event->recorded = true;
    }
    if (ticket)
        *ticket = c->ticket;
    pthread_cond_broadcast(&driver.work);
    return CUDA_SUCCESS;
}

CUresult stream_submit(CUstream stream, struct op *op, uint64_t *ticket)
{
    op->context = stream->context;
    lock();
    CUresult result = (CUresult)stream->context->error;
    if (ticket)
        *ticket = 0;
    if (result != CUDA_SUCCESS)
        op_release(op);
    else if (stream->capture)
        result = capture_submit(stream, op);
    else
        result = queue_put(stream, op, NULL, ticket);
    unlock();
    return result;
}

CUresult stream_wait(CUstream stream, uint64_t ticket)
{
    CUcontext context = stream->context;
    lock();
    if (!stream_reached(stream, ticket))
        count_add((unsigned)context->device->ordinal, COUNT_SYNCS, 1);
    host_asks();
    while (!stream_reached(stream, ticket))
        pthread_cond_wait(&driver.work, &driver.lock);
    host_sees(stream, ticket);
    unlock();
    return (CUresult)context->error;
}

/* What the legacy stream waits for, a wait for the legacy stream waits for too. */
CUresult stream_drain(CUstream stream)
{
    CUcontext context = stream->context;
    lock();
    host_asks();
    stream_hold(stream);
    for (CUstream s = context->streams; s;) {
        if (s == stream || waits_for(stream, s)) {
            uint64_t ticket = s->submitted;
            stream_hold(s);
            if (!stream_reached(s, ticket))
                count_add((unsigned)context->device->ordinal, COUNT_SYNCS, 1);
            while (!stream_reached(s, ticket))
                pthread_cond_wait(&driver.work, &driver.lock);
            host_sees(s, ticket);
            CUstream next = s->next;
            stream_release(s);
            s = next;
        } else {
            s = s->next;
        }
    }
    CUresult result = (CUresult)context->error;
    stream_release(stream);
    unlock();
    return result;
}

static bool context_busy(CUcontext context)
{
    for (CUstream s = context->streams; s; s = s->next)
        if (s->first)
            return true;
    return false;
}

void context_drain(CUcontext context)
{
    lock();
    if (context_busy(context))
        count_add((unsigned)context->device->ordinal, COUNT_SYNCS, 1);
    host_asks();
    while (context_busy(context))
        pthread_cond_wait(&driver.work, &driver.lock);
    for (CUstream s = context->streams; s; s = s->next)
        host_sees(s, s->done);
    unlock();
}
