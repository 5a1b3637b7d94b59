/*
 * step.h: the step block: everything that varies between two launches of a model's graph, as device
 * operands. One buffer, these tensors in it, each beginning at a multiple of 256 bytes:
 *
 *   TOKENS     i32 [rows]         input token of a row
 *   POSITIONS  i32 [rows]         its position in its sequence, from 0
 *   SLOTS      i32 [rows]         its sequence slot; -1: the row is padding and writes nothing
 *   PAGE_TABLE i32 [slots, pages] page of the cache for each P tokens of a sequence
 *   SAMPLING   u32 [rows, 8]      mh_sampling (op.h)
 *   NEXT       i32 [rows]         output: the chosen token
 *   ACCEPTED   i32 [1]            output: how many of them count
 *   FAULT      u32 [1]            output: 0, or the status a kernel raised (MH_BAD_INDEX)
 *   WRITES     i32 [rows]         SLOTS as cache writes see it, where a device keeps some keys only
 *
 * The host writes the inputs in stream order from a ring of staging copies, so that a step may be
 * prepared while the one before runs. Threads: one at a time.
 */
#ifndef MOEHAL_STEP_H
#define MOEHAL_STEP_H

#include <moehal/stream.h>

MH_BEGIN_DECLS

typedef struct mh_step mh_step;

typedef uint32_t mh_step_part;
enum {
    MH_STEP_TOKENS,
    MH_STEP_POSITIONS,
    MH_STEP_SLOTS,
    MH_STEP_PAGE_TABLE,
    MH_STEP_SAMPLING,
    MH_STEP_NEXT,
    MH_STEP_ACCEPTED,
    MH_STEP_FAULT,
    MH_STEP_WRITES,
    MH_STEP_PARTS
};

typedef struct mh_step_params {
    uint64_t struct_size;
    int64_t rows;  /* most rows of a step, at least 1 */
    int64_t slots; /* sequence slots */
    int64_t pages; /* pages a slot */
} mh_step_params;

MH_API mh_status mh_step_create(mh_device *device, const mh_step_params *params, mh_step **out);
MH_API mh_step *mh_step_retain(mh_step *step);
MH_API void mh_step_release(mh_step *step); /* NULL is allowed */

/* The tensor of a part, whole; slice it to the rows of a graph. An unknown part gives rank 0. */
MH_API mh_tensor mh_step_tensor(mh_step *step, mh_step_part part);

/* Host memory of the next step's inputs, laid out as the tensor of that part; NULL for outputs.
 * Keeps the values of the step before. */
MH_API void *mh_step_input(mh_step *step, mh_step_part part);

/* Enqueues the inputs on the stream and clears FAULT and ACCEPTED. */
MH_API mh_status mh_step_write(mh_step *step, mh_stream *stream);

/* Enqueues reading the outputs back, waits, and returns the status of the fault word. `next` takes
 * `rows` ids; may be NULL with rows 0. */
MH_API mh_status mh_step_read(mh_step *step, mh_stream *stream, int32_t *next, int64_t rows);

MH_END_DECLS

#endif
