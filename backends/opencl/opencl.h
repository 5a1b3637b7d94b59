/*
 * opencl.h: what the files of the OpenCL backend share.
 *
 *   icd.c      the ICD loader, platforms and devices
 *   device.c   an opened device: context, limits, form, what the probe found
 *   program.c  building programs, the cache, handing out kernels
 *   stream.c   queues: copies, marks, waits
 *   launch.c   arguments of kernels, and their launch
 *   selfcheck.c  kernels against the definition, once
 *   ops.c      which op runs with which kernels (supports, encode)
 *   graph.c    recorded launches; commands.c: as command buffers; event.c: events; foreign.c: what
 * the embedder made
 */
#ifndef OPENCL_OPENCL_H
#define OPENCL_OPENCL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <moehal/backend.h>
#include <moehal/kernel.h>

#include "cache.h"
#include "cl.h"

struct stream;

struct cl_api {
#define SYMBOL(need, result, field, name, args) result(*field) args;
#include "cl.def"
#undef SYMBOL
};

/* cl_khr_command_buffer; all NULL where the driver does not have it. */
struct cl_command_buffer_api {
#define SYMBOL(need, result, field, name, args) result(*field) args;
#include "cl_command_buffer.def"
#undef SYMBOL
};

/* Failures go through the core. */
#define FAIL(core, status, ...)                                                                    \
    (core)->fail((core)->context, __FILE__, __LINE__, (status), NULL, 0, NULL, __VA_ARGS__)

/* A failure of a call of OpenCL, named by the call and its code. */
#define CL_FAIL(core, call, code, ...)                                                             \
    opencl_fail((core), __FILE__, __LINE__, (call), (code), __VA_ARGS__)

MH_PRINTF(6, 7)
mh_status opencl_fail(const mh_core *core, const char *file, uint32_t line, const char *call,
                      cl_int code, const char *format, ...);
const char *opencl_name(cl_int code); /* "CL_OUT_OF_RESOURCES" */
mh_status opencl_status(cl_int code);

/* ---- icd.c ---- */

/* A device of a platform; one that cannot be used has a status and a reason in info. */
struct entry {
    cl_platform_id platform;
    cl_device_id id;
    mh_device_info info;
};

/* One for each runtime. */
struct instance {
    const mh_core *core;
    struct cl_api cl;
    struct entry *entries;
    uint32_t count;
};

mh_status opencl_init(const mh_core *core, void **out);
void opencl_fini(void *instance);
mh_status opencl_device_info(void *instance, uint32_t index, mh_device_info *out);
bool opencl_has_extension(const struct cl_api *cl, cl_device_id id, const char *name);

/* ---- device.c ---- */

enum form { FORM_CPU, FORM_GPU };

/* Every kernel, in the order of kernels.def. */
enum kernel_id {
#define KERNEL(program, name) KERNEL_##name,
#define PROGRAM(name, by_format, sources)
#include "kernels.def"
#undef KERNEL
#undef PROGRAM
    KERNEL_COUNT
};

enum program_id {
#define KERNEL(program, name)
#define PROGRAM(name, by_format, sources) PROGRAM_##name,
#include "kernels.def"
#undef KERNEL
#undef PROGRAM
    PROGRAM_COUNT
};

#define BROKEN 160
#define FORMATS 5 /* weight formats by their value; 0 for programs that know none */

/* A program for one weight format. */
struct program {
    bool tried;
    bool fresh; /* its entry in the cache is not there, or lacks verdicts */
    cl_program program;
    char reason[192]; /* why the build failed */
};

/* A weight larger than a buffer may be: pieces that begin every `part` bytes, each with the first
 * SPLIT_OVERLAP bytes of the next, so that no row is in two. The first piece is the handle. A
 * device gives a quarter of its memory in one buffer at least: four pieces are enough. */
#define SPLIT_PIECES 4
#define SPLIT_OVERLAP (UINT64_C(1) << 20) /* longer than any row */
struct split {
    struct split *next;
    cl_mem piece[SPLIT_PIECES];
    uint32_t count;
    uint64_t part;
};

/* One for each mh_device_open. */
struct device {
    const mh_core *core;
    const struct cl_api *cl;
    cl_device_id id;
    cl_context context;
    char name[128], driver[64];
    uint64_t global_bytes;
    uint64_t most_bytes; /* of one buffer */
    uint32_t compute_units;
    uint32_t lanes; /* work-items of a group */
    enum form form;
    char options[160]; /* what every program is built with */
    char unfit[192];   /* why the exact profile is not supported; "" if it is */
    struct cl_command_buffer_api commands;
    bool simultaneous;               /* a command buffer may be enqueued while it is under way */
    atomic_uint_least64_t replayed;  /* graphs launched kernel by kernel */
    atomic_uint_least64_t commanded; /* graphs launched as command buffers */
    struct cache cache;
    pthread_mutex_t build_lock; /* programs */
    pthread_mutex_t lock;       /* kernels' arguments until they are enqueued */
    struct split *splits;       /* guarded by split_lock */
    pthread_mutex_t split_lock;
    struct program programs[PROGRAM_COUNT][FORMATS];
    cl_kernel kernels[KERNEL_COUNT][FORMATS];
    bool checked[KERNEL_COUNT][FORMATS];        /* against the definition */
    char broken[KERNEL_COUNT][FORMATS][BROKEN]; /* what is wrong with a kernel; "" if nothing */
};

mh_status opencl_open(void *instance, uint32_t index, const mh_backend_open *params, void **out);
void opencl_close(void *device);
mh_status opencl_memory_info(void *device, uint64_t *total, uint64_t *available);
mh_status opencl_buffer_create(void *device, uint64_t size, uint32_t kind, mh_buffer_view *out);
void opencl_buffer_destroy(void *device, mh_buffer_view *buffer);

/* split.c */
mh_status opencl_split_create(struct device *device, uint64_t size, mh_buffer_view *out);
/* The split whose first piece this is, else NULL. */
struct split *opencl_split_find(struct device *device, const void *handle);
void opencl_split_destroy(struct device *device, struct split *split);
/* A copy to or from a split, piece by piece, by `copy`. */
mh_status opencl_split_copy(struct stream *stream, const mh_copy *c,
                            mh_status (*copy)(struct stream *stream, const mh_copy *c));

/* probe.c: runs the probe kernel, adds what it asks for to device->options, or fills
 * device->unfit. */
mh_status opencl_probe(struct device *device);

/* ---- program.c ---- */

/* Makes `kernel` for weights of `format` (0: none) ready; "" in `reason` if it is, else why not.
 * For the fast profile it need not be exact. */
void opencl_prepare(struct device *device, enum kernel_id kernel, mh_format format, bool fast,
                    char reason[192]);
void opencl_release_programs(struct device *device);

/* Another cl_kernel of a prepared one, with arguments of its own. NULL, and the code, on failure.
 */
cl_kernel opencl_clone(struct device *device, enum kernel_id kernel, mh_format format,
                       cl_int *code);

/* What is wrong with a kernel, where it is only that its bits are not exact's. */
#define NOT_EXACT "not exact: "
bool opencl_is_near(const char *reason);

/* selfcheck.c: runs a kernel against the definition; "" in `reason` if the bits are the same. It
 * begins with NOT_EXACT where only they are not. A failure is one of the check itself: memory, the
 * queue; it says nothing of the kernel. */
mh_status opencl_check_kernel(struct device *device, enum kernel_id kernel, mh_format format,
                              char reason[BROKEN]);

/* ---- stream.c ---- */

/* A point in the queue that has not been seen passed yet. */
struct point {
    uint64_t sequence;
    cl_event event;
};

struct stream {
    struct device *device;
    cl_command_queue queue;
    bool wrapped; /* the embedder's own queue, which may hold work that we have not seen */
    bool dirty;   /* there may be work behind the last mark */
    pthread_mutex_t lock;
    uint64_t marks, passed;
    mh_status error; /* of work up to `passed` */
    struct point *points;
    uint32_t count, capacity;
};

mh_status opencl_stream_create(void *device, void **out);
/* An in-order queue as streams have it; NULL, and the code, on failure. */
cl_command_queue opencl_queue(struct device *device, cl_int *code);
/* On the embedder's queue. */
mh_status opencl_stream_of(struct device *device, cl_command_queue queue, void **out);
void opencl_stream_destroy(void *stream);
mh_status opencl_copy(void *stream, const mh_copy *copy);
mh_status opencl_mark(void *stream, uint64_t *sequence);
/* A marker behind all that was enqueued, for the caller to release. A mark right after it is the
 * same point, which costs nothing. */
mh_status opencl_marker(struct stream *stream, cl_event *event);
mh_status opencl_wait(void *stream, uint64_t sequence, uint64_t timeout_ns);

/* ---- graph.c, event.c, foreign.c: the optional groups ---- */

extern const mh_backend_graph opencl_graph_group;
extern const mh_backend_counters opencl_counters_group;
extern const mh_backend_event opencl_event_group;
extern const mh_backend_gate opencl_gate_group;
extern const mh_backend_import opencl_import_group;
extern const mh_backend_wrap opencl_wrap_group;
extern const mh_backend_wrap_event opencl_wrap_event_group;
extern const mh_backend_module opencl_module_group;

/* commands.c: fills device->commands where the driver has them. */
void opencl_find_commands(struct device *device, cl_platform_id platform);

/* The embedder's context in place of one of our own: is the device in it? */
mh_status opencl_wrap_context(struct device *device, const mh_backend_open *params);
/* A kernel of the embedder's as an op. */
void opencl_supports_kernel(struct device *device, const mh_op_kernel *op, char reason[192]);
mh_status opencl_encode_kernel(struct stream *stream, const mh_op_kernel *op);

/* ---- ops.c ---- */

mh_status opencl_supports(void *device, const mh_op *op, uint32_t *missing, char reason[192]);
mh_status opencl_encode(void *stream, const mh_op *op, const mh_scratch *scratch);
uint64_t opencl_scratch(void *device, const mh_op *op);

#endif
