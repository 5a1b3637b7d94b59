/*
 * backend.h: what a backend module implements. It exports one symbol, mh_backend_entry, and links
 * with nothing of moehal: what it needs of the core comes in struct mh_core.
 *
 * The front end has validated everything before a backend sees it: shapes, dtypes, strides, bounds,
 * overlap, ownership. A backend checks only what the device alone can know (op.h). A device's
 * functions may be called from several threads, a stream's from one at a time.
 * backends/null is the skeleton to copy; docs of each function say what the core builds on it.
 */
#ifndef MOEHAL_BACKEND_H
#define MOEHAL_BACKEND_H

#include <moehal/device.h>
#include <moehal/kernel.h>
#include <moehal/weight.h>

MH_BEGIN_DECLS

/* What the core offers a backend; valid from init to fini. */
typedef struct mh_core {
    uint64_t struct_size;
    void *context; /* first argument of the functions */
    void *(*allocate)(void *context, uint64_t size);
    void (*deallocate)(void *context, void *memory);
    void (*log)(void *context, uint32_t level, const char *text);
    /* Records a failure and returns `status`; vendor_call and vendor_name may be NULL. */
    mh_status (*fail)(void *context, const char *file, uint32_t line, mh_status status,
                      const char *vendor_call, int32_t vendor_code, const char *vendor_name,
                      const char *format, ...) MH_PRINTF(8, 9);
    /* An environment variable, or NULL where the runtime's policy forbids it. */
    const char *(*environment)(void *context, const char *name);
    /* Runs an op by its definition, on the host: views of its buffers and weights have `host` set.
     * For backends that check kernels which a vendor's compiler has just made. */
    mh_status (*define)(void *context, const mh_op *op);
} mh_core;

/* How a backend sees a buffer: every mh_buffer begins with this. */
typedef struct mh_buffer_view {
    void *handle;  /* the backend's own */
    uint64_t size; /* bytes */
    void *host;    /* where the host can address it, else NULL */
} mh_buffer_view;

static inline const mh_buffer_view *mh_view_buffer(const mh_buffer *buffer)
{
    return (const mh_buffer_view *)(const void *)buffer;
}

/* How a backend sees a weight: every mh_weight begins with this. Plane p of expert e, unit row r:
 *   host != NULL: host[e * plane_count + p] + r * row_stride[p]  (devices on host memory, always)
 *   else buffer:  offset[p] + e * expert_stride[p] + r * row_stride[p], offsets a multiple of 256
 */
typedef struct mh_weight_view {
    mh_format format;
    uint32_t plane_count;
    int64_t experts, out, in;
    mh_plane plane[MH_MAX_PLANES];
    const mh_buffer_view *buffer;
    uint64_t offset[MH_MAX_PLANES];
    int64_t expert_stride[MH_MAX_PLANES];
    int64_t row_stride[MH_MAX_PLANES];
    const void *const *host; /* any alignment */
    /* Formats with blocks of several rows, on host memory: a byte for each block row of each
     * expert, where a backend may keep what it found out about the weights. 0 when the weight is
     * sealed; any thread may write, so by atomic stores. Else NULL. */
    uint8_t *marks;
} mh_weight_view;

static inline const mh_weight_view *mh_view_weight(const mh_weight *weight)
{
    return (const mh_weight_view *)(const void *)weight;
}

enum { MH_COPY_TO_DEVICE = 1, MH_COPY_TO_HOST = 2, MH_COPY_ON_DEVICE = 3 };

/* `size` bytes; `to` or `from` is a buffer handle or, in its place, a host pointer. */
typedef struct mh_copy {
    uint32_t direction;
    uint32_t reserved;
    void *to; /* handle, or host pointer with MH_COPY_TO_HOST */
    uint64_t to_offset;
    const void *from; /* handle, or host pointer with MH_COPY_TO_DEVICE */
    uint64_t from_offset;
    uint64_t size;
} mh_copy;

/* Memory of the device for one op, at least what op_scratch asked; 256-byte aligned. It holds
 * anything. */
typedef struct mh_scratch {
    void *handle; /* buffer handle; NULL if size is 0 */
    void *host;   /* where the host can address it */
    uint64_t offset;
    uint64_t size;
} mh_scratch;

/* Optional group: temporary memory of ops. */
typedef struct mh_backend_scratch {
    uint64_t struct_size;
    /* Bytes encode wants for this op. Depends on what `supports` sees only. */
    uint64_t (*op_scratch)(void *device, const mh_op *op);
} mh_backend_scratch;

/* Optional group: host memory used in place (devices with MH_DEVICE_HOST_MEMORY). */
typedef struct mh_backend_import {
    uint64_t struct_size;
    mh_status (*import)(void *device, void *memory, uint64_t size, mh_buffer_view *out);
    void (*forget)(void *device, mh_buffer_view *buffer);
} mh_backend_import;

/* Optional group: bringing a lost device back. Everything of the device is gone after it but the
 * device itself; the core calls no destroy functions for what was there before. */
typedef struct mh_backend_reset {
    uint64_t struct_size;
    mh_status (*reset)(void *device);
} mh_backend_reset;

/* Optional group: graphs of the device's own, made once and launched many times. */
typedef struct mh_backend_graph {
    uint64_t struct_size;
    /* Prepares `count` > 0 supported ops, to be run in order by each launch; scratch[i] is op i's.
     * Ops and views do not outlive the call; the memory and kernels behind them stay where they are
     * until `destroy`. MH_UNSUPPORTED (no message needed): these cannot be had as a graph; the core
     * encodes them one by one at each launch. */
    mh_status (*create)(void *device, const mh_op *const *ops, const mh_scratch *scratch,
                        uint32_t count, void **graph);
    /* Enqueues it. A launch of the same graph may still be on its way, on this stream or another;
     * the core says nothing about their order then. */
    mh_status (*launch)(void *stream, void *graph);
    void (*destroy)(void *device, void *graph); /* after its launches are done */
    /* May be NULL, or lie behind struct_size. Op `index` of those that `create` was given becomes
     * `op` for later launches; those enqueued keep the old one. Whatever it returns but MH_OK, the
     * core creates the graph anew (no message needed). */
    mh_status (*update)(void *device, void *graph, uint32_t index, const mh_op *op,
                        const mh_scratch *scratch);
} mh_backend_graph;

/* Optional group: order between streams of one device without the host, and the device's clock. */
typedef struct mh_backend_event {
    uint64_t struct_size;
    mh_status (*create)(void *device, void **event);
    void (*destroy)(void *device, void *event);     /* also while a wait for it is enqueued */
    mh_status (*record)(void *stream, void *event); /* a point of the stream; again: moves it */
    /* Later work of `stream` begins after the point last recorded. Does not block the caller. */
    mh_status (*wait)(void *stream, void *event);
    /* Nanoseconds between two recorded points that are both passed. */
    mh_status (*elapsed)(void *device, void *begin, void *end, uint64_t *ns);
} mh_backend_event;

/* Optional group: a stream held by the host. The core builds on it waits and copies between
 * devices that do not block the caller: a thread of the runtime opens the gate. */
typedef struct mh_backend_gate {
    uint64_t struct_size;
    mh_status (*create)(void *device, void **gate); /* closed */
    /* Later work of `stream` begins after the gate is open. Does not block the caller. */
    mh_status (*hold)(void *stream, void *gate);
    /* For ever. Any thread, also while others use the device's streams. */
    void (*open)(void *device, void *gate);
    void (*destroy)(void *device, void *gate); /* open, and the streams it held have passed it */
} mh_backend_gate;

/* Optional group: what the embedder made with the vendor's own API. A backend that has it also
 * knows mh_backend_open.context. */
typedef struct mh_backend_wrap {
    uint64_t struct_size;
    /* `native` is the vendor's queue (CUstream, hipStream_t, cl_command_queue; 0 is the default
     * stream where there is one). stream_destroy leaves it alone. An out-of-order queue is
     * MH_INVALID_ARGUMENT. */
    mh_status (*stream)(void *device, uint64_t native, void **stream);
    /* `native` is the vendor's memory (device pointer, cl_mem) of at least `size` bytes; fills *out
     * as buffer_create does. Memory of another device or context is MH_INVALID_ARGUMENT. */
    mh_status (*buffer)(void *device, uint64_t native, uint64_t size, mh_buffer_view *out);
    void (*forget)(void *device, mh_buffer_view *buffer);
} mh_backend_wrap;

/* Optional group, for backends with the groups `wrap` and `event`: events of the vendor's own. */
typedef struct mh_backend_wrap_event {
    uint64_t struct_size;
    /* `native` is the vendor's (CUevent, hipEvent_t, cl_event). *event is for the functions of the
     * group `event`, except `destroy`; `record` there is MH_UNSUPPORTED where it is one point for
     * ever. What is no event of this device is MH_INVALID_ARGUMENT. */
    mh_status (*event)(void *device, uint64_t native, void **event);
    void (*forget)(void *device, void *event); /* leaves the vendor's alone */
    /* Waits for the point last recorded in a wrapped event, by whom ever; MH_TIMEOUT, 0 polls. */
    mh_status (*wait)(void *device, void *event, uint64_t timeout_ns);
    /* The vendor's own of an event, wrapped or recorded. */
    mh_status (*native)(void *device, void *event, uint64_t *native);
} mh_backend_wrap_event;

/* Optional group: kernels of the embedder's own (kernel.h). `supports`, op_scratch, `encode` and
 * graphs then also meet mh_op_kernel: `supports` checks its sizes and arguments against the
 * kernel's and the device's limits. */
typedef struct mh_backend_module {
    uint64_t struct_size;
    /* `image` is text or binary of the vendor's, `size` bytes (a NUL behind text is not counted);
     * `options` may be "". On failure `log` (log_size > 0 bytes, NUL-terminated) holds what the
     * vendor's compiler said; warnings may stand there on success. */
    mh_status (*load)(void *device, const void *image, uint64_t size, const char *options,
                      char *log, uint64_t log_size, void **module);
    void (*unload)(void *device, void *module); /* its kernels are destroyed, its work is done */
    mh_status (*kernel)(void *device, void *module, const char *name, void **kernel);
    void (*kernel_destroy)(void *device, void *kernel);
} mh_backend_module;

/* Optional group: what the device counts by itself, for a virtual device's memory traffic and the
 * like. Counters only grow; a reader takes differences around a launch that it waits for. */
typedef struct mh_backend_counters {
    uint64_t struct_size;
    /* Counter `index`, from 0; MH_NOT_FOUND past the last. *name is static. No work is running. */
    mh_status (*read)(void *device, uint32_t index, const char **name, uint64_t *value);
} mh_backend_counters;

/* Optional group: what devices of this backend exchange by writing into each other's memory, in one
 * process. Each rank of a communicator has exchange memory on its device: two buffers of `capacity`
 * bytes and what signals need; its layout is the backend's. `supports`, op_scratch, `encode` and
 * graphs then also meet mh_op_exchange. */
typedef struct mh_exchange_params {
    uint64_t struct_size;
    uint32_t rank, ranks; /* at most MH_EXCHANGE_RANKS */
    uint64_t capacity;    /* 0 in these: the backend's choice, the same on all devices */
    uint64_t timeout_ns;
    uint64_t chunk_bytes;
    uint32_t blocks; /* never 0 */
    uint32_t reserved;
} mh_exchange_params;

enum { MH_EXCHANGE_RANKS = 32 };

typedef struct mh_exchange_state {
    uint64_t struct_size;
    uint32_t failed; /* 1: a kernel gave up waiting for rank `source`, in operation `epoch` */
    uint32_t source;
    uint32_t epoch;
    uint32_t reserved;
} mh_exchange_state;

typedef struct mh_backend_peer {
    uint64_t struct_size;
    mh_status (*create)(void *device, const mh_exchange_params *params, void **exchange);
    /* Makes the others' memory reachable: all[r] is rank r's, of this backend and of as many
     * devices. MH_UNSUPPORTED, with the reason in words, if this device cannot write into it.
     * Called once, for each rank, before any operation. */
    mh_status (*join)(void *device, void *exchange, void *const *all);
    /* Bytes of an exchange buffer. */
    uint64_t (*capacity)(void *device, void *exchange);
    /* What kernels of this rank came to. Any thread; touches no stream. */
    void (*state)(void *device, void *exchange, mh_exchange_state *out);
    /* Kernels of this rank that wait, now or later, give up. Any thread; touches no stream. */
    void (*stop)(void *device, void *exchange);
    /* No kernel of any rank uses it any more. */
    void (*destroy)(void *device, void *exchange);
} mh_backend_peer;

/* The id lies apart from those of ops.def. */
#define MH_OP_EXCHANGE ((mh_op_id)0x10001)

enum {
    /* Rows of `row` bytes, of which each belongs to a rank. Bytes [begin, end) of them all: what
     * belongs to this rank goes from x to all others (and to y, unless it lies there), what belongs
     * to others comes to y. y holds all rows, x those from byte x_begin on. */
    MH_EXCHANGE_MOVE = 1,
    /* Pieces of `row` bytes, one for each rank in order; the last ones may be short or empty. y =
     * bytes [begin, end) of this rank's piece, summed over the ranks in order. x holds all pieces.
     * x may hold y as its own piece. Of f32 or bf16: sums in f32, rounded once. */
    MH_EXCHANGE_SUM = 2,
    /* mh_comm_dispatch of `tokens` [begin, end) of every rank, which are chunks of `chunk` tokens;
     * there are at most MH_EXCHANGE_CHUNKS chunks of all tokens. x is the tokens, `experts` their
     * choice; y, source, arrived, count and fault are mh_comm_rows. The parts of one dispatch are
     * counted by `part`; the first tells how many rows every chunk has for each rank. For each rank
     * there are capacity / ranks bytes, down to 16: of every chunk, its slots in i32, up to 16
     * bytes, and its rows, each up to 16 bytes. */
    MH_EXCHANGE_DISPATCH = 3,
    /* mh_comm_return of slots [begin, end) of e, which is y; x, source and fault are mh_comm_rows.
     * SEND and RECEIVE are launches of their own. At most MH_EXCHANGE_SLOTS; the buffer holds them, a row up to 16 bytes. */
    MH_EXCHANGE_RETURN = 4,
};

enum { MH_EXCHANGE_CHUNKS = 256, MH_EXCHANGE_SLOTS = 16384 };

enum { MH_EXCHANGE_SEND = 1, MH_EXCHANGE_RECEIVE = 2 };
/* Whose a row is, beside a rank's number: */
#define MH_EXCHANGE_BY_ROW 0xfffffffeu    /* row r is rank r's */
#define MH_EXCHANGE_BY_EXPERT 0xffffffffu /* owners[experts[row]]'s; nobody's if out of range */

/* One launch. All ranks run the same ones in the same order, with the same sizes. It waits for no
 * rank but in RECEIVE, and there for each to have begun the same launch. A launch that has the SEND
 * alone is followed, on the same stream, by its RECEIVE. */
typedef struct mh_op_exchange {
    mh_op base;
    void *exchange; /* this rank's */
    void *comm;     /* the core's */
    uint32_t kind;
    uint32_t phases;
    uint32_t owner; /* a rank, MH_EXCHANGE_BY_ROW or MH_EXCHANGE_BY_EXPERT */
    uint32_t reserved;
    mh_tensor y, x; /* dense; MOVE: of any dtype, sizes and addresses are multiples of its size */
    mh_tensor experts, owners; /* i32, of any shape; rank 0 where not needed */
    uint64_t row, begin, end, x_begin;
    /* DISPATCH and RETURN */
    mh_tensor source, arrived, count, fault;
    uint64_t column, width; /* which bytes of every row are moved; all have the same `row` */
    uint32_t chunk;
    uint32_t part;
    uint32_t last; /* 1: no part follows */
    uint32_t reserved2;
} mh_op_exchange;

typedef struct mh_backend_open {
    uint64_t struct_size;
    uint32_t threads;        /* host threads, 0: the backend's choice */
    uint32_t context;        /* MH_CONTEXT_OWN, or with the group `wrap` the others (device.h) */
    uint64_t native_context; /* with MH_CONTEXT_WRAP */
} mh_backend_open;

/* The table. The fifteen functions are mandatory, the groups may be NULL. */
/* Device memory that will hold one weight: only copied to and from, and read as that weight, so
 * that a backend may make it of several pieces. */
#define MH_BUFFER_WEIGHT 5u

typedef struct mh_backend_table {
    uint64_t struct_size;
    uint32_t abi; /* MH_ABI */
    uint32_t reserved;
    const char *name; /* of URIs: lower case, no ':' */
    const char *description;

    /* Opens the vendor's library and finds devices; called once a runtime. A library that is not
     * there is a failure with the reason in words. *instance goes to device_info and device_open.
     */
    mh_status (*init)(const mh_core *core, void **instance);
    void (*fini)(void *instance);
    /* Device `index`, from 0; MH_NOT_FOUND past the last (no message needed). */
    mh_status (*device_info)(void *instance, uint32_t index, mh_device_info *out);
    mh_status (*device_open)(void *instance, uint32_t index, const mh_backend_open *params,
                             void **device);
    void (*device_close)(void *device);
    /* Bytes of device memory, all and available; 0 where unknown. */
    mh_status (*memory_info)(void *device, uint64_t *total, uint64_t *available);
    /* `size` > 0 bytes aligned to 256; fills *out (size is set). MH_OUT_OF_MEMORY if there is none.
     * MH_BUFFER_DEVICE, MH_BUFFER_HOST_VISIBLE or MH_BUFFER_WEIGHT. */
    mh_status (*buffer_create)(void *device, uint64_t size, uint32_t kind, mh_buffer_view *out);
    /* Only when no work uses it any more. */
    void (*buffer_destroy)(void *device, mh_buffer_view *buffer);
    mh_status (*stream_create)(void *device, void **stream);
    void (*stream_destroy)(void *stream); /* after its work is done */
    /* Enqueues a copy. Host memory stays valid until a later mark has been passed. size > 0. */
    mh_status (*copy)(void *stream, const mh_copy *copy);
    /* Enqueues a point; *sequence is larger than any before it on this stream, from 1. */
    mh_status (*mark)(void *stream, uint64_t *sequence);
    /* Waits until the point is passed, at most timeout_ns (0 polls, UINT64_MAX for ever), else
     * MH_TIMEOUT. Returns an asynchronous error of the stream, which the core makes stick. Any
     * thread, also while another enqueues. */
    mh_status (*wait)(void *stream, uint64_t sequence, uint64_t timeout_ns);
    /* Can encode run this op? MH_OK and *missing = MH_MISSING_NOTHING: yes. Else what is missing
     * and why. Tensors may have no buffer and weights no content: look at neither. Final. */
    mh_status (*supports)(void *device, const mh_op *op, uint32_t *missing, char reason[192]);
    /* Enqueues a supported op. May not allocate. Neither the op nor the views of its buffers and
     * weights outlive the call; the memory behind them does, until the work is done. */
    mh_status (*encode)(void *stream, const mh_op *op, const mh_scratch *scratch);

    const mh_backend_scratch *scratch;
    const mh_backend_import *import;
    const mh_backend_reset *reset;
    const mh_backend_graph *graph;
    const mh_backend_event *event;
    const mh_backend_gate *gate;
    const mh_backend_wrap *wrap;
    const mh_backend_module *module;
    const mh_backend_counters *counters;
    const mh_backend_wrap_event *wrap_event;
    const mh_backend_peer *peer;
} mh_backend_table;

/* The one symbol of a module. The table is static. */
typedef const mh_backend_table *(*mh_backend_entry_fn)(void);
#define MH_BACKEND_ENTRY "mh_backend_entry"

/* Defines it: MH_DEFINE_BACKEND(my_table) */
#define MH_DEFINE_BACKEND(table)                                                                   \
    MH_API const mh_backend_table *mh_backend_entry(void);                                         \
    const mh_backend_table *mh_backend_entry(void)                                                 \
    {                                                                                              \
        return &(table);                                                                           \
    }

MH_END_DECLS

#endif
