/* driver.h: what the files of the driver share.
 *
 * One lock (driver.lock) guards every object: contexts, streams and their queues, events, graphs.
 * Nothing is executed under it. Work is put into a stream's queue as a command; each device has a
 * thread that takes commands whose turn has come and runs them, one at a time (queue.c). */
#ifndef VIRTUAL_NVIDIA_DRIVER_H
#define VIRTUAL_NVIDIA_DRIVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../../common/draw.h"
#include "../../common/faults.h"
#include "../../common/handles.h"
#include "../../common/memmap.h"
#include "../../common/pool.h"
#include "../../common/race.h"
#include "../../common/report.h"
#include "../machine.h"
#include "cuda_abi.h"

/* ---- the state of the process ---- */

struct limits {     /* of a device, by its compute capability */
    int capability; /* 90 */
    int sms, warps_per_sm, blocks_per_sm;
    int shared_per_sm, shared_optin; /* bytes */
    int l2, clock_khz, memory_clock_khz, bus_bits;
    double flops_per_clock;  /* of a multiprocessor: 2 x fp32 lanes */
    double matrix_per_clock; /* of a multiprocessor: dense bf16 */
};

struct device {
    int ordinal;
    struct limits limits;
    uint64_t memory;
    uint64_t physical; /* bytes of cuMemCreate */
    char name[64];

    CUcontext primary;
    int primary_refs;
    unsigned primary_flags;
    CUmemoryPool default_pool, pool;
    struct vg_pool *workers;
    bool lost;
    bool thread_started;
    pthread_t thread;
    uint64_t queued;       /* commands in its streams' queues */
    const uint32_t *after; /* of the stream that runs */
};

enum stream_order { ORDER_SUBMITTED, ORDER_RANDOM, ORDER_NEWEST };

struct driver {
    pthread_mutex_t lock;
    pthread_cond_t work; /* something was queued or finished */
    _Atomic bool initialised;
    int count;
    struct device device[VC_MAX_DEVICES];
    uint32_t links[VC_MAX_DEVICES]; /* bit p: can reach p directly */
    struct vc_map *map;
    struct vc_reports *reports;
    struct vc_faults *faults;
    /* from the environment, or from moehal_virtual_set */
    unsigned checks;
    bool count_on, count_lines, fuse;
    enum vn_schedule schedule;
    enum stream_order stream_order;
    uint64_t seed, time_limit_ms;
    _Atomic uint64_t drawn; /* of the seed's numbers, draw.h */
    int threads;
    bool lazy, held;               /* MOEHAL_VIRTUAL_START=awaited; nothing runs now */
    uint32_t seen[VC_MAX_DEVICES]; /* vr_reached of what the host has seen end */
    uint64_t next_id, ticket;      /* ids of objects; commands in order of submission */
    CUcontext contexts;            /* all of them */
};
extern struct driver driver;

/* The state above is made by cuInit; `why` is logged. */
CUresult driver_start(void);

/* ---- calls ---- */

/* Every exported function begins with one of these. ENTER: driver initialised, no fault wanted.
 * CONTEXT: besides, a current context without an error that sticks. */
CUresult call_enter(const char *name);
CUresult call_context(const char *name, CUcontext *context);
/* A refusal that says why: to the log, and as the result. */
const char *last_refusal_text(void);
void refusal_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define refuse(result, ...) (refusal_log(__VA_ARGS__), (result))

#define ENTER(name)                                                                                \
    do {                                                                                           \
        CUresult entered_ = call_enter(name);                                                      \
        if (entered_ != CUDA_SUCCESS)                                                              \
            return entered_;                                                                       \
    } while (0)
#define ENTER_CONTEXT(name, context)                                                               \
    CUcontext context;                                                                             \
    do {                                                                                           \
        CUresult entered_ = call_context(name, &context);                                          \
        if (entered_ != CUDA_SUCCESS)                                                              \
            return entered_;                                                                       \
    } while (0)

static inline void lock(void)
{
    pthread_mutex_lock(&driver.lock);
}

static inline void unlock(void)
{
    pthread_mutex_unlock(&driver.lock);
}

/* Types of common/handles.h. */
enum handle {
    HANDLE_CONTEXT = 1,
    HANDLE_MODULE,
    HANDLE_FUNCTION,
    HANDLE_LIBRARY,
    HANDLE_KERNEL,
    HANDLE_STREAM,
    HANDLE_EVENT,
    HANDLE_GRAPH,
    HANDLE_NODE,
    HANDLE_EXEC,
    HANDLE_POOL,
    HANDLE_LINK,
    HANDLE_PHYSICAL,
};

/* ---- contexts ---- */

struct CUctx_st {
    CUcontext next;
    struct device *device;
    uint64_t id;
    unsigned flags;
    bool primary, destroyed;
    _Atomic int error; /* CUresult that sticks */
    uint32_t peers;    /* bit d: memory of device d may be used */
    uint64_t limit[CU_LIMIT_COUNT_HERE];
    struct vn_heap heap;
    CUstream streams; /* all of them */
    CUstream legacy;
    CUmodule modules;
    int holders; /* of the structure: streams, modules and events that name it */
};

CUcontext context_current(void);
void context_set_error(CUcontext context, CUresult error);
/* Of one device: NULL out of memory. */
CUresult context_create(struct device *device, unsigned flags, bool primary, CUcontext *out);
/* Waits for its work, reports leaks, releases what it holds. */
void context_destroy(CUcontext context);
void context_release(CUcontext context); /* gives back one hold */
CUresult device_of(CUdevice ordinal, struct device **out);

/* ---- commands ---- */

struct copy { /* depth x height rows of width bytes */
    uint64_t to, from;
    uint64_t to_pitch, from_pitch, to_slice, from_slice;
    uint64_t width, height, depth;
};

struct fill {
    uint64_t to, pitch, width, height; /* width in elements */
    uint32_t value, element;
};

struct kernel_call {
    CUfunction function;
    uint32_t grid[3], block[3], shared;
    bool cooperative;
    void *params; /* a copy, owned */
};

enum op_kind {
    OP_EMPTY,
    OP_KERNEL,
    OP_COPY,
    OP_FILL,
    OP_HOST,
    OP_CALLBACK,
    OP_RECORD,
    OP_WAIT,
    OP_WRITE_VALUE,
    OP_WAIT_VALUE,
    OP_FREE,
    OP_GRAPH,
};

/* One piece of work: of a stream's queue, or of a node of a graph. */
struct op {
    enum op_kind kind;
    CUcontext context; /* whose device does it */
    union {
        struct kernel_call kernel;
        struct copy copy;
        struct fill fill;
        struct {
            CUhostFn fn;
            CUstreamCallback callback;
            CUstream stream;
            void *user;
        } host;
        CUevent event; /* held */
        struct {
            uint64_t address, value;
            unsigned flags;
            bool wide;
        } value;
        uint64_t address;      /* of memory to be freed */
        struct graph_run *run; /* held */
    };
    void *staged; /* bytes of pageable memory taken at submission, owned */
};

void op_release(struct op *op);
bool op_copy(struct op *to, const struct op *from); /* holds what it names; false: out of memory */

struct mark {        /* a place in a stream: done when the stream has done `ticket` */
    CUstream stream; /* held */
    uint64_t ticket;
};

struct command {
    struct command *next;
    uint64_t ticket;
    struct op op;
    uint32_t after[VC_MAX_DEVICES]; /* what the host had seen end */
    unsigned waits;
    struct mark wait[];
};

struct CUstream_st {
    CUstream next; /* of the context */
    CUcontext context;
    uint64_t id;
    unsigned flags;
    int priority;
    bool legacy, per_thread, destroyed;
    pthread_t thread; /* of a per-thread stream */
    int holders;
    struct command *first, *last; /* first may be running */
    bool running;
    uint64_t submitted, done; /* tickets */
    struct vr_ends ends;
    uint32_t after[VC_MAX_DEVICES]; /* what comes before: see struct vn_launch */
    double time_ns;                 /* model time at which what is done ended */
    struct capture *capture;
    CUgraphNode *tips; /* in a capture: what the next node depends on */
    size_t tip_count;
};

/* Handles 0, 1 and 2 are resolved here. `per_thread` says what 0 means. */
CUresult stream_resolve(CUcontext context, CUstream handle, bool per_thread, CUstream *out);
void stream_hold(CUstream stream);
/* With the lock held: the host wants to know what became of the work; it knows that what the stream
 * had done by then is over. */
void host_asks(void);
void host_sees(CUstream stream, uint64_t ticket);
void stream_release(CUstream stream); /* with the lock held */

/* Puts the op, which it takes, into the stream's queue, or into the graph that the stream's capture
 * builds. `ticket`, if not NULL, becomes the place in the queue; 0 if captured. */
CUresult stream_submit(CUstream stream, struct op *op, uint64_t *ticket);
/* The same with the lock held and no capture; `after` (may be NULL) is waited for first. */
CUresult queue_put(CUstream stream, struct op *op, const struct mark *after, uint64_t *ticket);
/* Waits for the place and returns the context's error, if any. */
CUresult stream_wait(CUstream stream, uint64_t ticket);
CUresult stream_drain(CUstream stream);
/* Everything of the context, or of the device. */
void context_drain(CUcontext context);
bool stream_reached(CUstream stream, uint64_t ticket);
void queue_stop(void);

/* Runs an op, on the calling thread. *ns is its model time. */
CUresult op_run(struct op *op, double *ns);

struct CUevent_st {
    CUcontext context;
    unsigned flags;
    int holders;
    bool destroyed, recorded;
    CUstream stream; /* held */
    uint64_t ticket;
    double time_ns;          /* once done */
    struct capture *capture; /* recorded in a capture, of this id: these nodes */
    uint64_t capture_id;
    CUgraphNode *nodes;
    size_t node_count;
};
void event_hold(CUevent event);
void event_release(CUevent event);

/* ---- modules ---- */

struct CUfunc_st {
    CUfunction next;
    CUmodule module;
    const struct vn_function *info;
    size_t index;
    int max_dynamic_shared, carveout;
};

struct CUmod_st {
    CUmodule next;
    CUcontext context;
    CUlibrary library; /* NULL: a module of its own */
    struct vn_module *parsed;
    struct vn_image *image;
    uint64_t *addresses;
    CUfunction functions;
    int holders;
    bool unloaded;
};

/* The bytes of a file and four zeros, to be freed. */
CUresult module_read_file(const char *path, void **bytes, size_t *size);
CUresult module_load_text(CUcontext context, const void *image, size_t bytes, unsigned options,
                          const CUjit_option *option, void **values, CUmodule *out);
/* PTX text or the reason why not. On success *parsed is the caller's. */
CUresult module_parse(const void *image, size_t bytes, unsigned options, const CUjit_option *option,
                      void **values, struct vn_module **parsed);
CUresult module_create(CUcontext context, struct vn_module *parsed, CUmodule *out);
void module_hold(CUmodule module);
void module_release(CUmodule module);
CUresult module_function(CUmodule module, const char *name, CUfunction *out);
CUresult module_variable(CUmodule module, const char *name, CUdeviceptr *address, size_t *bytes);
/* A function handle, or a kernel handle for the given context. */
CUresult function_resolve(CUcontext context, CUfunction handle, CUfunction *out);
CUresult kernel_call_make(CUcontext context, CUfunction handle, const unsigned grid[3],
                          const unsigned block[3], unsigned shared, bool cooperative, void **params,
                          void **extra, struct kernel_call *out);
CUresult function_attribute(CUfunction function, CUfunction_attribute attribute, int *value);
CUresult function_set_attribute(CUfunction function, CUfunction_attribute attribute, int value);
/* What the linker hands out as a "cubin", and module_parse takes: NUL-terminated, of *bytes + 1
 * with it, to be freed. */
char *link_image_make(char *const *texts, const size_t *sizes, size_t count, size_t *bytes);
int function_occupancy(const struct CUfunc_st *function, int threads, size_t dynamic_shared);

/* ---- memory ---- */

CUresult memory_alloc(CUcontext context, uint64_t bytes, enum vc_kind kind, const char *name,
                      uint64_t stream, CUdeviceptr *out);
uint32_t memory_mask(const struct device *owner); /* who may touch memory of this device */
bool copy_linear(struct copy *copy, uint64_t to, uint64_t from, uint64_t bytes);
CUresult copy_from_3d(const CUDA_MEMCPY3D *p, struct copy *copy);
/* Whether all bytes lie in one live allocation that device may touch, or in the program's own
 * memory. */
CUresult memory_check(CUcontext context, uint64_t address, uint64_t bytes, bool host_allowed);
bool memory_is_pageable(uint64_t address);
void pool_freed(CUmemoryPool pool, uint64_t bytes);
CUresult memory_free_now(uint64_t address);

/* ---- graphs and captures (their own declarations: graph.h) ---- */

/* With the lock held, on a stream that captures: the op, which is taken, becomes a node. */
CUresult capture_submit(CUstream stream, struct op *op);
/* *handled: the wait is a matter of captures, and done. */
CUresult capture_wait(CUstream stream, CUevent event, unsigned flags, bool *handled);
CUresult capture_record(CUstream stream, CUevent event);
/* The error of a call that waits for `stream` (NULL: for the context, or is unsafe otherwise) while
 * a capture is in progress that forbids it; the capture is then invalid. */
CUresult capture_forbids(CUcontext context, CUstream stream);
CUresult graph_run_ops(struct graph_run *run, double *ns);
void graph_run_release(struct graph_run *run);

CUresult proc_address(const char *name, void **out, int version, cuuint64_t flags,
                      CUdriverProcAddressQueryResult *status);

/* ---- counters of the driver (exported by virtual.c) ---- */

enum driver_counter {
#define C(id, name, what) COUNT_##id,
#include "driver_counters.def"
#undef C
    DRIVER_COUNTERS
};
void count_add(unsigned device, enum driver_counter counter, uint64_t n);
void count_most(unsigned device, enum driver_counter counter, uint64_t n); /* a maximum */
void count_launch(CUfunction function, unsigned device, const struct vn_counters *counters);

#endif
