/*
 * stream.h: encoders, streams and events.
 *
 * A stream is an in-order queue of ops and copies of one device. A stream and a graph (graph.h) are
 * both encoders: mh_encode is the only way to run or record an op. Threads: a stream is used by one
 * thread at a time; different streams of a device from different threads are fine.
 */
#ifndef MOEHAL_STREAM_H
#define MOEHAL_STREAM_H

#include <moehal/buffer.h>
#include <moehal/weight.h>

MH_BEGIN_DECLS

typedef struct mh_encoder mh_encoder;
typedef struct mh_stream mh_stream;
typedef struct mh_event mh_event;

/* Checks the op (names the op, the argument, the value and the limit in its error), decides where
 * it runs and enqueues or records it. The op struct is read before the call returns; buffers and
 * weights it names are kept alive as long as needed. Where the device cannot run it, it is
 * expanded, or run on the host (counted; an error under MH_PLACEMENT_STRICT). */
MH_API mh_status mh_encode(mh_encoder *encoder, const mh_op *op);

/* Temporary memory of what is encoded from now on comes from `buffer`, a buffer of the encoder's
 * device that the encoder retains, instead of memory of its own (which grows as needed). Where it
 * is too small, mh_encode (for a graph, mh_graph_seal) fails with MH_OUT_OF_MEMORY naming the bytes
 * it takes. NULL goes back to own memory. Not on a sealed graph. */
MH_API mh_status mh_encoder_set_scratch(mh_encoder *encoder, mh_buffer *buffer);

MH_API mh_status mh_stream_create(mh_device *device, mh_stream **out);
/* A stream over the vendor's own queue (CUstream, hipStream_t, in-order cl_command_queue as an
 * integer), which the caller keeps alive as long as the stream and may go on using: moehal's work
 * is enqueued there in the order of the calls. MH_UNSUPPORTED where the backend cannot. */
MH_API mh_status mh_stream_wrap(mh_device *device, uint64_t native, mh_stream **out);
MH_API mh_stream *mh_stream_retain(mh_stream *stream);
MH_API void mh_stream_release(mh_stream *stream); /* NULL is allowed; work in flight completes */
MH_API mh_encoder *mh_stream_encoder(mh_stream *stream); /* borrowed, lives as the stream does */
MH_API mh_device *mh_stream_device(mh_stream *stream);   /* borrowed */

/* Copies in stream order. `data` must stay valid until the stream has passed this point. */
MH_API mh_status mh_stream_write(mh_stream *stream, mh_buffer *buffer, uint64_t offset,
                                 const void *data, uint64_t size);
MH_API mh_status mh_stream_read(mh_stream *stream, mh_buffer *buffer, uint64_t offset, void *data,
                                uint64_t size);
/* Between two buffers, of which one at least is on the stream's device and the other on any of the
 * runtime. In this stream's order alone: for work on the other device wait for an event of it. Goes
 * the way of mh_device_link, and where that is STAGED the caller waits for it. Ranges of one buffer
 * must not overlap. */
MH_API mh_status mh_stream_copy(mh_stream *stream, mh_buffer *to, uint64_t to_offset,
                                mh_buffer *from, uint64_t from_offset, uint64_t size);

/* Waits until everything enqueued so far is done; returns the first asynchronous error.
 * MH_TIMEOUT after timeout_ns nanoseconds; 0 polls. */
MH_API mh_status mh_stream_wait(mh_stream *stream, uint64_t timeout_ns);

/* 1 ends the mh_encode or mh_graph_launch in progress on this stream before its next op, with
 * MH_CANCELLED; if there is none, the next one, once. What is on the device already runs on. 0
 * withdraws a 1 that has ended nothing yet. Any thread, and signal handlers. */
MH_API void mh_stream_cancel(mh_stream *stream, uint32_t cancel);

/* An event marks a point of a stream. Recording again moves it. Threads: any, one at a time. */
MH_API mh_status mh_event_create(mh_device *device, mh_event **out);
/* An event over the vendor's own (CUevent, hipEvent_t, cl_event as an integer), which the caller
 * keeps alive as long as it and may go on recording: whoever waits for it waits for the point that
 * was recorded there last, by whom ever; if none was, for nothing. mh_event_record records into the
 * vendor's own; MH_UNSUPPORTED where that is one point for ever (cl_event), or where the backend
 * has none to wrap. */
MH_API mh_status mh_event_wrap(mh_device *device, uint64_t native, mh_event **out);
/* The vendor's own event of the recorded point, for the caller's queues to wait for. It remains
 * moehal's, and goes when this event is recorded again or released (a cl_event can be retained). A
 * wrapped one is the caller's. MH_UNSUPPORTED as above. */
MH_API mh_status mh_event_native(mh_event *event, uint64_t *native);
MH_API mh_event *mh_event_retain(mh_event *event);
MH_API void mh_event_release(mh_event *event); /* NULL is allowed */
MH_API mh_status mh_event_record(mh_event *event, mh_stream *stream);
/* Waits for the recorded point; MH_WRONG_STATE if never recorded, MH_TIMEOUT as above. */
MH_API mh_status mh_event_wait(mh_event *event, uint64_t timeout_ns);
/* Later work of `stream` begins after the event's point, on whichever device of the runtime that
 * is: by the device itself, or held until a thread of the runtime has seen the point. Where
 * the stream's backend can neither, the caller waits here; mh_device_counters says which it was. */
MH_API mh_status mh_stream_wait_event(mh_stream *stream, mh_event *event);
/* Nanoseconds between two events that have been waited for or polled as done; measured where the
 * host first saw each point passed unless the backend times its own streams. */
MH_API mh_status mh_event_elapsed(mh_event *begin, mh_event *end, uint64_t *ns);

MH_END_DECLS

#endif
