/*
 * timeline.h: a file that says what ran when: ops with their layers and labels, copies, waits,
 * graph launches, memory. A layer around the backend's table, put in when a device is opened with
 * mh_device_params.timeline; without it the table is the backend's own.
 *
 * The layer has ops encoded one by one, and on a device that works by itself it waits for each: the
 * durations of ops are their own, the gaps between them are not. One timeline may serve several
 * devices of a runtime. Threads: any.
 */
#ifndef MOEHAL_TIMELINE_H
#define MOEHAL_TIMELINE_H

#include <moehal/runtime.h>

MH_BEGIN_DECLS

typedef struct mh_timeline mh_timeline;

enum {
    /* Chrome's trace format, which Perfetto and chrome://tracing open: a process a device, a thread
     * a stream. */
    MH_TIMELINE_CHROME = 1,
    /* One JSON object a line: "type" (op, copy, wait, launch, span, memory), "device", "stream",
     * "begin_ns", "ns", and what is special to the type. */
    MH_TIMELINE_LINES = 2,
};

/* Creates the file. The caller owns *out. MH_IO_ERROR names the file. */
MH_API mh_status mh_timeline_create(mh_runtime *runtime, const char *path, uint32_t format,
                                    mh_timeline **out);
MH_API mh_timeline *mh_timeline_retain(mh_timeline *timeline);
MH_API void mh_timeline_release(mh_timeline *timeline); /* NULL is allowed; finishes */

/* Completes the file; what happens later is not written. MH_IO_ERROR if anything of it could not be
 * written. */
MH_API mh_status mh_timeline_finish(mh_timeline *timeline);

/* Nanoseconds since the timeline was created; 0 for NULL. */
MH_API uint64_t mh_timeline_now(const mh_timeline *timeline);
/* The caller's own: from `begin` until now, in a lane above the devices. They nest. NULL does
 * nothing. */
MH_API void mh_timeline_span(mh_timeline *timeline, const char *name, uint64_t begin);

MH_END_DECLS

#endif
