/* launch.h: putting a kernel with its arguments into a queue. */
#ifndef OPENCL_LAUNCH_H
#define OPENCL_LAUNCH_H

#include "opencl.h"

/* A launch that a graph keeps: its kernel has its arguments set once and for all. */
struct node {
    cl_kernel kernel;
    size_t global[3];
};

/* The same as a command buffer, or as two that take turns where one may not be enqueued while it is
 * under way. `count` 0: the driver has none, or does not take these launches. */
struct commands {
    cl_command_buffer_khr buffer[2];
    cl_event last[2]; /* of two: its last launch, or NULL */
    uint32_t count;
};

struct graph {
    struct device *device;
    struct node *nodes;
    uint32_t count, capacity;
    struct commands commands;
};

/* commands.c. Recording that fails leaves none. A launch answers false if nothing was enqueued. */
void opencl_record_commands(struct graph *graph);
bool opencl_launch_commands(struct graph *graph, struct stream *stream);
void opencl_release_commands(struct graph *graph);

/* Where an op's kernels go: into a queue, or into a graph. */
struct run {
    struct device *device;
    cl_command_queue queue;
    struct graph *graph; /* NULL: the queue */
    const mh_scratch *scratch;
};

/* From launch_begin to launch_end the device is locked: a cl_kernel has one set of arguments.
 * (Graphs have a cl_kernel of their own for each node, and lock nothing.) */
struct launch {
    const struct run *run;
    enum kernel_id id;
    mh_format format;
    cl_kernel kernel;
    cl_uint next; /* argument */
    cl_int code;  /* the first failure */
};

struct launch launch_begin(const struct run *run, enum kernel_id kernel, mh_format format);

/* The next arguments. Tensors: buffer, and view in elements {offset, strides}. An optional tensor
 * that is absent passes `instead`, and then 0 as a flag, else 1. A weight: buffer, then for data
 * and scale {offset, stride of experts, stride of rows, 0} in bytes. The fault word: buffer, place.
 */
void arg_tensor(struct launch *l, const mh_tensor *t);
void arg_optional(struct launch *l, const mh_tensor *t, const mh_tensor *instead);
void arg_weight(struct launch *l, const mh_weight *w);
void arg_fault(struct launch *l, const mh_tensor *fault);
/* Part of the scratch from `offset` bytes on, as a dense tensor of rows of `columns` elements of
 * four bytes; or with two outer strides. */
void arg_scratch(struct launch *l, uint64_t offset, int64_t columns);
void arg_scratch3(struct launch *l, uint64_t offset, int64_t stride0, int64_t stride1);
/* A word of the scratch: buffer, place. */
void arg_word(struct launch *l, uint64_t offset);
void arg_buffer(struct launch *l, const mh_buffer *buffer);
void arg_long(struct launch *l, int64_t value);
void arg_long4(struct launch *l, int64_t a, int64_t b, int64_t c, int64_t d);
void arg_int(struct launch *l, int32_t value);
void arg_float(struct launch *l, float value);

/* An op's kernels into a queue or a graph. */
mh_status opencl_run(const struct run *run, const mh_op *op);

/* Enqueues groups [x, y, z]. */
mh_status launch_end(struct launch *l, int64_t x, int64_t y, int64_t z);

static inline int64_t bytes_of(mh_dtype dtype)
{
    return dtype == MH_F16 || dtype == MH_BF16 ? 2 : 4;
}

/* How many blocks of `size` hold n. */
static inline int64_t blocks(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

#endif
