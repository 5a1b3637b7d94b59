/* driver.h: what the files of the runtime share.
 *
 * One lock (driver.lock) guards every object: devices, streams and their queues, events, modules,
 * graphs. Nothing is executed under it. Work is put into a stream's queue as a command; each device
 * has a thread that takes commands whose turn has come and runs them, one at a time (queue.c). */
#ifndef VIRTUAL_AMD_DRIVER_H
#define VIRTUAL_AMD_DRIVER_H

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
#include "../loader/code_object.h"
#include "../machine.h"
#include "hip_abi.h"

/* ---- the state of the process ---- */

struct limits { /* of an MI300X, as published */
    int cus, waves_per_cu, lds, l2, clock_khz, memory_clock_khz, bus_bits;
    double flops_per_clock;  /* of a compute unit: f32 by VALU */
    double matrix_per_clock; /* of a compute unit: dense bf16 */
};

struct device { /* hipCtx_t too: a device has one context */
    int ordinal;
    struct limits limits;
    uint64_t memory;
    char name[64];
    _Atomic int error; /* hipError_t that sticks until hipDeviceReset */
    bool lost;
    uint32_t peers;      /* bit d: memory of device d may be used */
    hipStream_t streams; /* all of them */
    hipStream_t legacy;  /* the null stream */
    hipModule_t modules;
    hipMemPool_t default_pool, pool;
    uint64_t dispatch, queue; /* addresses: the AQL packet of the kernel that runs, amd_queue_t */
    struct vg_pool *workers;
    pthread_t thread;
    bool thread_started;
    uint32_t queued;       /* commands that are not done */
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
    bool count_on, count_pcs;
    enum va_schedule schedule;
    enum stream_order stream_order;
    uint64_t seed, time_limit_ms;
    _Atomic uint64_t drawn; /* of the seed's numbers, draw.h */
    int threads;
    bool lazy, held;               /* MOEHAL_VIRTUAL_START=awaited; nothing runs now */
    uint32_t seen[VC_MAX_DEVICES]; /* vr_reached of what the host has seen end */
    uint64_t next_id, ticket;      /* ids of objects; commands in order of submission */
};
extern struct driver driver;

hipError_t driver_start(void);
bool settings_read(void);
bool settings_checks(const char *list, unsigned *checks);
bool settings_schedule(const char *text);
bool settings_stream_order(const char *text);
bool settings_start(const char *text);

/* ---- calls ---- */

/* Every exported function begins with one of these and ends with `done`, which keeps the result for
 * hipGetLastError and returns it. ENTER: the runtime is started and no fault is wanted.
 * ENTER_DEVICE: besides, the thread's device, without an error that sticks. */
hipError_t call_enter(const char *name);
hipError_t call_device(const char *name, struct device **device);
void error_keep(hipError_t result);
static inline hipError_t done(hipError_t result)
{
    error_keep(result);
    return result;
}
/* A refusal that says why: to the log, and as the result. */
hipError_t refuse(hipError_t result, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *error_name(hipError_t error); /* NULL: none of ours */

#define ENTER(name)                                                                                \
    do {                                                                                           \
        hipError_t entered_ = call_enter(name);                                                    \
        if (entered_ != hipSuccess)                                                                \
            return done(entered_);                                                                 \
    } while (0)
#define ENTER_DEVICE(name, found)                                                                  \
    struct device *found;                                                                          \
    do {                                                                                           \
        hipError_t entered_ = call_device(name, &found);                                           \
        if (entered_ != hipSuccess)                                                                \
            return done(entered_);                                                                 \
    } while (0)

static inline void lock(void)
{
    pthread_mutex_lock(&driver.lock);
}

static inline void unlock(void)
{
    pthread_mutex_unlock(&driver.lock);
}

enum handle {
    HANDLE_STREAM = 1,
    HANDLE_EVENT,
    HANDLE_MODULE,
    HANDLE_FUNCTION,
    HANDLE_GRAPH,
    HANDLE_NODE,
    HANDLE_EXEC,
    HANDLE_POOL,
    HANDLE_CONTEXT,
};

struct device *device_current(void);
hipError_t device_of(int ordinal, struct device **out);
void device_set_error(struct device *device, hipError_t error);

/* ---- commands ---- */

struct copy { /* depth x height rows of width bytes */
    uint64_t to, from;
    uint64_t to_pitch, from_pitch, to_slice, from_slice;
    uint64_t width, height, depth;
};

struct fill { /* depth x height rows of width elements */
    uint64_t to, pitch, slice, width, height, depth;
    uint32_t value, element;
};

struct kernel_call {
    hipFunction_t function;
    uint32_t grid[3], block[3], last[3], dynamic_lds; /* last: lanes of the last workgroup */
    bool cooperative;
    void *args; /* the explicit ones, owned */
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
    struct device *device;
    union {
        struct kernel_call kernel;
        struct copy copy;
        struct fill fill;
        struct {
            hipHostFn_t fn;
            hipStreamCallback_t callback;
            hipStream_t stream;
            void *user;
        } host;
        hipEvent_t event; /* held */
        struct {
            uint64_t address, value, mask;
            unsigned flags;
            bool wide;
        } value;
        uint64_t address;    /* of memory to be freed */
        hipGraphExec_t exec; /* held */
    };
};

void op_release(struct op *op); /* with the lock held */
/* Holds what it names, with the lock held; false: out of memory. */
bool op_copy(struct op *to, const struct op *from);
/* Runs an op, on the calling thread, without the lock. *ns is its model time. */
hipError_t op_run(struct op *op, double *ns);

struct mark {           /* a place in a stream: done when the stream has done `ticket` */
    hipStream_t stream; /* held */
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

struct capture;

struct ihipStream_t {
    hipStream_t next; /* of the device */
    struct device *device;
    uint64_t id;
    unsigned flags;
    int priority, holders;
    bool legacy, per_thread;
    pthread_t thread;             /* of a per-thread stream */
    struct command *first, *last; /* first may be running */
    uint64_t submitted, done;     /* tickets */
    struct vr_ends ends;
    uint32_t after[VC_MAX_DEVICES]; /* what comes before: see struct va_launch */
    double time_ns;                 /* model time at which what is done ended */
    struct capture *capture;
    hipGraphNode_t *tips; /* in a capture: what the next node depends on */
    size_t tip_count;
};

/* Handles 0, 1 and 2 are resolved here. */
hipError_t stream_resolve(struct device *device, hipStream_t handle, hipStream_t *out);
hipError_t stream_create(struct device *device, unsigned flags, int priority, bool per_thread,
                         hipStream_t *out);
void stream_hold(hipStream_t stream);
void stream_release(hipStream_t stream); /* with the lock held */

/* Puts the op, which it takes, into the stream's queue, or into the graph that the stream's capture
 * builds. `ticket`, if not NULL, becomes the place in the queue; 0 if captured. */
hipError_t stream_submit(hipStream_t stream, struct op *op, uint64_t *ticket);
/* The same with the lock held and no capture; `after` (count of them) is waited for first. */
hipError_t queue_put(hipStream_t stream, struct op *op, const struct mark *after, unsigned count,
                     uint64_t *ticket);
bool stream_reached(hipStream_t stream, uint64_t ticket);
/* With the lock held: the host wants to know what became of the work; it knows that what the stream
 * had to do up to the ticket is done. */
void host_asks(void);
void host_sees(hipStream_t stream, uint64_t ticket);
/* Waits for the place and returns the device's error, if any. */
hipError_t stream_wait(hipStream_t stream, uint64_t ticket);
hipError_t stream_drain(hipStream_t stream);
bool stream_busy(hipStream_t stream); /* with the lock held; what the null stream waits for too */
void device_drain(struct device *device);

struct ihipEvent_t {
    struct device *device;
    unsigned flags;
    int holders;
    bool recorded;
    hipStream_t stream; /* held */
    uint64_t ticket;
    double time_ns;          /* once done */
    struct capture *capture; /* recorded in a capture, of this id: these nodes */
    uint64_t capture_id;
    hipGraphNode_t *nodes;
    size_t node_count;
};
void event_hold(hipEvent_t event);
void event_release(hipEvent_t event);
/* With the lock held: the event is at the stream's place `ticket`. */
void event_move(hipEvent_t event, hipStream_t stream, uint64_t ticket);

/* ---- modules ---- */

struct ihipModuleSymbol_t { /* a function */
    hipModule_t module;
    const struct vl_kernel *info;
    struct va_kernel kernel;
    struct va_registers registers;
    uint64_t kernarg; /* address of its arguments: a device runs one kernel at a time */
};

struct ihipModule_t {
    hipModule_t next; /* of the device */
    struct device *device;
    struct vl_code *code;
    struct va_code *text;
    uint64_t address;
    hipFunction_t functions; /* [code->kernel_count] */
    int holders;
};

hipError_t module_load(struct device *device, const void *image, size_t size, const char *what,
                       hipModule_t *out);
/* With the lock held: */
void module_hold(hipModule_t module);
void module_release(hipModule_t module);
hipError_t module_function(hipModule_t module, const char *name, hipFunction_t *out);
int function_occupancy(const struct ihipModuleSymbol_t *function, int threads, size_t dynamic_lds);
/* grid and block in lanes: `grid` need not be a multiple. */
hipError_t kernel_call_make(hipFunction_t function, const uint32_t lanes[3],
                            const uint32_t block[3], unsigned dynamic_lds, bool cooperative,
                            void **params, void **extra, struct kernel_call *out);
hipError_t kernel_run(struct device *device, const struct kernel_call *call, double *ns);

/* What hipcc's host code registered under an address: for the device. */
hipError_t registered_function(struct device *device, const void *host, hipFunction_t *out);
hipError_t registered_variable(struct device *device, const void *host, uint64_t *address,
                               uint64_t *bytes);

/* ---- memory ---- */

hipError_t memory_alloc(struct device *device, uint64_t bytes, enum vc_kind kind, const char *name,
                        uint64_t *out);
hipError_t memory_free_now(uint64_t address);
/* Whether all bytes lie in one live allocation that the device may touch, or in the program's own
 * memory. A report says why not. */
hipError_t memory_check(struct device *device, uint64_t address, uint64_t bytes, const char *what);
bool memory_is_pageable(uint64_t address);
hipError_t copy_submit(struct device *device, const struct copy *copy, hipStream_t handle,
                       bool wait);
hipError_t copy_check(struct device *device, const struct copy *copy);
hipError_t fill_check(struct device *device, const struct fill *fill);
hipError_t copy_run(struct device *device, const struct copy *copy, double *ns);
hipError_t fill_run(struct device *device, const struct fill *fill, double *ns);
struct copy copy_linear(void *to, const void *from, uint64_t bytes);
/* NULL, or not what is supported: hipErrorInvalidValue, hipErrorNotSupported. */
hipError_t copy_from_3d(const hipMemcpy3DParms *params, struct copy *out);

/* ---- graphs and captures ---- */

/* With the lock held, on a stream that captures: the op, which is taken, becomes a node. */
hipError_t capture_submit(hipStream_t stream, struct op *op);
/* *handled: the wait is a matter of captures, and done. */
hipError_t capture_wait(hipStream_t stream, hipEvent_t event, bool *handled);
hipError_t capture_record(hipStream_t stream, hipEvent_t event);
hipError_t exec_run(hipGraphExec_t exec, double *ns);
void exec_release(hipGraphExec_t exec);

/* ---- counters (exported by virtual.c) ---- */

enum driver_counter {
#define C(id, name, what) COUNT_##id,
#include "driver_counters.def"
#undef C
    DRIVER_COUNTERS
};
void count_add(unsigned device, enum driver_counter counter, uint64_t n);
void count_most(unsigned device, enum driver_counter counter, uint64_t n); /* a maximum */
void count_launch(hipFunction_t function, unsigned device, const struct va_counters *counters);

#endif
