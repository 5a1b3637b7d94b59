/*
 * hal.h: what the files of hal/ share. Not installed.
 *
 * Locks: a device's lock guards its lists and accounting only; it is never held over a backend call
 * that waits, or over a callback.
 */
#ifndef HAL_H
#define HAL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <moehal/backend.h>
#include <moehal/moehal.h>

/* ---- error.c ---- */
struct hal_vendor {
    const char *call;
    int32_t code;
    const char *name;
};
mh_status hal_fail_at(mh_runtime *runtime, const char *file, uint32_t line, mh_status status,
                      const struct hal_vendor *vendor, const char *format, ...) MH_PRINTF(6, 7);
#ifdef __clang_analyzer__ /* as mh_fail */
#define hal_fail(runtime, status, ...)                                                             \
    (hal_fail_at((runtime), __FILE__, __LINE__, (status), NULL, __VA_ARGS__), (status))
#else
#define hal_fail(runtime, status, ...)                                                             \
    hal_fail_at((runtime), __FILE__, __LINE__, (status), NULL, __VA_ARGS__)
#endif

/* ---- runtime.c, modules.c ---- */
struct hal_backend {
    const mh_backend_table *table; /* a copy of this library's size; NULL: could not be loaded */
    bool is_host;
    void *instance;
    mh_backend_info info;
};

struct mh_runtime {
    atomic_uint refs;
    mh_runtime_params params;
    /* A page that fork() zeroes in the child: how handles know that they are a copy. */
    const uint32_t *alive;
    mh_core core;
    struct hal_backend *backends;
    uint32_t backend_count;
    bool loading;              /* backends are tried: what they lack is no error */
    pthread_mutex_t lock;      /* guards what follows */
    struct hal_worker *worker; /* worker.c; NULL: not needed yet */
};

extern const mh_backend_table mh_host_backend; /* backends/host, linked in */

mh_status hal_load_backends(mh_runtime *runtime, const mh_runtime_params *params);
/* moehal/<name> in the folder of the library that holds this code; "" if that cannot be told. A
 * static library lies nowhere, so it is told the folder when it is built. */
void hal_folder_beside(char folder[PATH_MAX], const char *name);
void *hal_alloc(mh_runtime *runtime, uint64_t size); /* zeroed; NULL fails with a message */
void hal_free(mh_runtime *runtime, void *memory);
const char *hal_environment(mh_runtime *runtime, const char *name);
/* Fails in a child of fork(). */
mh_status hal_check_alive(mh_runtime *runtime);
static inline bool hal_is_alive(const mh_runtime *runtime)
{
    return *(volatile const uint32_t *)runtime->alive != 0;
}

/* ---- op_table.c ---- */
enum hal_access { HAL_IN = 1, HAL_OUT = 2 };
enum hal_operand_kind { HAL_TENSOR, HAL_WEIGHT };

struct hal_operand {
    uint8_t kind;
    uint8_t access;
    bool optional;
    uint8_t dtypes; /* bit d: dtype d is allowed */
    uint8_t rank;   /* of `shape`; HAL_ANY_RANK for "*" */
    uint16_t offset;
    uint8_t dim[MH_MAX_RANK]; /* of `shape`: hal_dim of each character */
    const char *name;
    const char *shape;
};

/* Sizes by name: of letters from 0, then the digits, which stand for themselves. */
#define HAL_LETTERS 26
#define HAL_DIMS (HAL_LETTERS + 10)
static inline uint32_t hal_dim(char name)
{
    return name <= '9' ? HAL_LETTERS + (uint32_t)(name - '0') : (uint32_t)(name - 'A');
}

#define HAL_ANY_RANK 0xff

struct hal_op_info {
    const char *name;
    uint64_t size;
    const struct hal_operand *operands;
    uint32_t operand_count;
    const uint16_t *weights; /* offsets of those operands, then 0 */
};

#define HAL_MAX_OPERANDS 11

/* The sets of dtypes in ops.def. */
#define HAL_BIT(name) (1u << MH_##name)
enum {
    ONLY_F32 = HAL_BIT(F32),
    ONLY_I32 = HAL_BIT(I32),
    ONLY_U32 = HAL_BIT(U32),
    F32_OR_BF16 = HAL_BIT(F32) | HAL_BIT(BF16),
    FLOATS = HAL_BIT(F32) | HAL_BIT(F16) | HAL_BIT(BF16),
    ANY = HAL_BIT(F32) | HAL_BIT(F16) | HAL_BIT(BF16) | HAL_BIT(I32) | HAL_BIT(U32),
};
#define HAL_OP_LIMIT 32 /* one past the largest id */

extern const struct hal_op_info hal_op_infos[HAL_OP_LIMIT];
/* NULL if unknown. */
static inline const struct hal_op_info *hal_op_find(mh_op_id op)
{
    return op < HAL_OP_LIMIT && hal_op_infos[op].name ? &hal_op_infos[op] : NULL;
}

/* mh_dtype_size, for the paths of every op. */
static inline uint64_t hal_dtype_size(mh_dtype dtype)
{
    switch (dtype) {
#define MH_DTYPE(value, NAME, name, bytes)                                                         \
    case value:                                                                                    \
        return bytes;
#include <moehal/dtypes.def>
#undef MH_DTYPE
    default:
        return 0;
    }
}

static inline mh_tensor *hal_tensor_at(const mh_op *op, const struct hal_operand *operand)
{
    return (mh_tensor *)((char *)(uintptr_t)op + operand->offset);
}
static inline mh_weight *hal_weight_at(const mh_op *op, const struct hal_operand *operand)
{
    return *(mh_weight **)((char *)(uintptr_t)op + operand->offset);
}

/* Room for any op struct. */
union hal_any_op {
    mh_op base;
#define MH_OP(value, NAME, name, kind, doc, operands) mh_op_##name name;
#include <moehal/ops.def>
#undef MH_OP
};

/* ---- device.c ---- */
struct mh_device {
    atomic_uint refs;
    mh_runtime *runtime;
    const mh_backend_table *table;
    void *handle;
    mh_device_params params;
    mh_device_info info;
    char uri[64];
    pthread_mutex_t lock;

    atomic_uint generation; /* counts resets */
    atomic_bool lost;
    mh_error cause; /* written once before lost is set */

    bool is_host;                        /* the backend linked in, under whatever layers */
    struct layer *faults;                /* faults.c; NULL: not asked for */
    struct hal_timeline_layer *timeline; /* timeline_layer.c; NULL: not asked for */
    mh_device *host;                     /* the companion, opened on first use */

    mh_memory_info memory;
    struct mh_stream *streams; /* live ones */
    /* Every piece of work gets the next number: a buffer released at number n may be freed when
     * each stream is idle or has passed n. */
    atomic_uint_fast64_t sequence;
    struct mh_buffer *retired;
    atomic_bool has_retired;
    /* Native communicators whose kernels may wait for a rank that is not launched yet: a backend
     * that is given memory back may wait for all kernels, so that happens where none of theirs
     * runs.
     */
    atomic_uint exchanging;

    pthread_mutex_t transfer_lock;
    void *transfer; /* the backend's stream for blocking copies, made at first use */
    uint32_t transfer_generation;

    /* Native launches: those of graphs and of streams that are gone; live streams have their own.
     */
    atomic_uint_fast64_t native, expanded, fallback, graph_launches, copies, copied_bytes,
        stream_waits, native_graphs, native_waits, thread_waits;
    atomic_uint_fast64_t fallbacks[HAL_OP_LIMIT];
};

static inline bool hal_on_host_memory(const mh_device *device)
{
    return device->info.flags & MH_DEVICE_HOST_MEMORY;
}
/* Alive, not lost, and `generation` is the device's own. `what` names the handle in the error. */
mh_status hal_refuse_device(mh_device *device, uint32_t generation, const char *what);
static inline mh_status hal_check_device(mh_device *device, uint32_t generation, const char *what)
{
    bool good = hal_is_alive(device->runtime) &&
                !atomic_load_explicit(&device->lost, memory_order_acquire) &&
                generation == atomic_load_explicit(&device->generation, memory_order_relaxed);
    return good ? MH_OK : hal_refuse_device(device, generation, what);
}
/* Passes a backend's status through; MH_DEVICE_LOST sticks. */
mh_status hal_lose_device(mh_device *device, mh_status status);
static inline mh_status hal_backend_status(mh_device *device, mh_status status)
{
    return status == MH_DEVICE_LOST ? hal_lose_device(device, status) : status;
}
/* As above for statuses of `wait`: every error but a timeout sticks. */
mh_status hal_wait_status(mh_device *device, mh_status status);

/* layer.c: a table that passes everything on to the one below; what device->table points to. */
struct hal_layer {
    mh_backend_table table;
    mh_backend_scratch scratch;
    mh_backend_import import;
    mh_backend_reset reset;
    mh_backend_graph graph;
    mh_backend_event event;
    mh_backend_gate gate;
    mh_backend_wrap wrap;
    mh_backend_wrap_event wrap_event;
    mh_backend_module module;
    mh_backend_counters counters;
    mh_backend_peer peer;
    const mh_backend_table *below;
    void *handle; /* below's device */
    mh_runtime *runtime;
    uint64_t stream_size;
    pthread_mutex_t lock;
    struct hal_layer_stream *streams;
};
struct hal_layer_stream { /* a layer's own may be longer: stream_size */
    struct hal_layer *layer;
    void *below;
    struct hal_layer_stream *next;
};
/* Puts the zeroed layer `l`, which begins a struct of hal_alloc's, on top of the device. */
void hal_layer_init(struct hal_layer *l, mh_device *device, uint64_t stream_size);
void hal_layer_finish(struct hal_layer *l); /* frees it */
mh_status hal_layer_add_stream(struct hal_layer *l, const uint64_t *native, void **out);
void hal_layer_drop_streams(struct hal_layer *l); /* forgets them: below has lost them */
void hal_layer_remove_stream(void *stream);

/* check.c: a layer that holds the backend's answers against backend.h. */
mh_status hal_check_wrap(mh_device *device);
/* faults.c: puts the layer between the device and its backend. */
mh_status hal_faults_wrap(mh_device *device, const mh_faults *faults);

/* timeline_layer.c: the same, above faults. */
mh_status hal_timeline_wrap(mh_device *device, mh_timeline *timeline);
/* Around the launch of a graph; without a timeline they do nothing. */
uint64_t hal_timeline_begin(const mh_device *device);
void hal_timeline_launch(const mh_device *device, uint64_t nodes, uint64_t begin);

/* ---- buffer.c ---- */
struct mh_buffer {
    mh_buffer_view view; /* first: backends see this */
    atomic_uint refs;
    uint32_t generation;
    mh_device *device;
    uint32_t kind;
    uint32_t flags;
    uint64_t charged; /* bytes counted in device->memory.used */
    void (*released)(void *user);
    void *user;
    struct mh_buffer *next_retired;
    uint64_t retired_at; /* device->sequence */
    /* A note of HAL_BUFFER_OBJECT: what to do with view.handle when its work is done. */
    void (*destroy)(mh_device *device, void *handle, bool current);
};

/* Kinds that nobody asks for: by mh_buffer_wrap, and notes of other things to be destroyed. */
#define HAL_BUFFER_WRAPPED 3u
#define HAL_BUFFER_OBJECT 4u

/* As mh_buffer_create, of any kind that backends know. */
mh_status hal_buffer_create(mh_device *device, uint64_t size, uint32_t kind, mh_buffer **out);

/* In an arena's flags: its memory is the embedder's. */
#define HAL_SUPPLIED 0x80000000u

/* Alive, current, and the range inside it. */
mh_status hal_buffer_check(mh_buffer *buffer, uint64_t offset, uint64_t size, const char *function);
/* A blocking copy outside any of the caller's streams. */
mh_status hal_device_copy(mh_device *device, const mh_copy *copy);

/* Calls destroy when the work enqueued so far is done. `current`: the handle's backend still knows
 * it; after a reset, or in a child of fork(), there is nothing left to destroy. */
void hal_retire(mh_device *device, uint32_t generation, void *handle,
                void (*destroy)(mh_device *device, void *handle, bool current));
/* Frees retired memory that no stream needs any more. Called by the owner of `stream`, whose
 * progress is looked at first, on the way to more work; or with NULL, where nothing waits for such
 * work. */
void hal_collect_now(mh_device *device, mh_stream *stream);
static inline void hal_collect(mh_device *device, mh_stream *stream)
{
    if (atomic_load_explicit(&device->has_retired, memory_order_relaxed) &&
        !(stream && atomic_load_explicit(&device->exchanging, memory_order_relaxed)))
        hal_collect_now(device, stream);
}
/* Makes `buffer` (a fixed object of an encoder, no references of its own) at least `size` bytes. */
mh_status hal_buffer_grow(mh_buffer *buffer, uint64_t size);
void hal_buffer_drop(mh_buffer *buffer); /* frees or retires its memory */

/* ---- kernel.c ---- */
struct mh_module {
    atomic_uint refs;
    uint32_t generation;
    mh_device *device;
    void *handle;
};

struct mh_kernel {
    mh_kernel_view view; /* first: backends see this */
    atomic_uint refs;
    mh_module *module;
};

/* ---- weight.c ---- */
struct mh_weight {
    mh_weight_view view; /* first: backends see this */
    atomic_uint refs;
    uint32_t generation;
    mh_device *device;
    char *label;
    mh_buffer *buffer;     /* NULL while nothing was copied */
    const void **pointers; /* [experts * planes], devices on host memory */
    bool *in_place;        /* [experts] */
    uint8_t *written;      /* bit a block row of every expert */
    int64_t block_rows;    /* rows a bit stands for */
    int64_t blocks;        /* bits an expert */
    bool sealed;
};

/* ---- encoders ---- */
/* What placing an op comes to: a native launch or a host op, after expansion. */
struct mh_encoder {
    mh_device *device;
    uint32_t generation;
    bool is_graph;
    mh_buffer arena;           /* scratch of ops and temporaries of expansions */
    mh_buffer *supplied;       /* whose memory the arena is, or NULL: its own */
    struct hal_fallback *host; /* made at the first fallback */
};

struct mh_stream {
    mh_encoder encoder; /* first */
    atomic_uint refs;
    void *handle;
    atomic_uint_fast64_t last;      /* device->sequence of its newest work */
    atomic_uint_fast64_t completed; /* everything up to this number is done */
    uint64_t marked, mark;          /* `mark`, if not 0, is behind everything up to `marked` */
    atomic_uint_fast64_t native;    /* launches; the thread that encodes is the only one to count */
    struct mh_stream *next, *previous;
    bool wrapped;          /* the embedder's queue: it may hold more than this library knows of */
    atomic_bool cancelled; /* asked for, not yet taken */
    uint32_t jobs;      /* of the runtime's thread, under its lock: the stream is held or awaited */
    atomic_uint failed; /* what a job for this stream came to, told by its next wait */
};

mh_status hal_encoder_init(mh_encoder *encoder, mh_device *device, bool is_graph);
void hal_encoder_finish(mh_encoder *encoder);
mh_status hal_stream_check(mh_stream *stream);
mh_status hal_stream_take_cancel(mh_stream *stream);
/* To be asked before every op. */
static inline mh_status hal_stream_cancelled(mh_stream *stream)
{
    bool cancelled = atomic_load_explicit(&stream->cancelled, memory_order_relaxed);
    return cancelled ? hal_stream_take_cancel(stream) : MH_OK;
}
/* One backend copy, counted. */
mh_status hal_stream_transfer(mh_stream *stream, const mh_copy *copy);

/* worker.c */
struct hal_job {
    struct hal_job *next;
    mh_stream *awaited; /* first its point `mark` is waited for; 0: nothing to wait for */
    uint64_t mark;
    mh_buffer *to, *from; /* then this copy is done; NULL: none */
    uint64_t to_offset, from_offset, size;
    mh_stream *held; /* last the gate that holds this stream is opened, and destroyed */
    void *gate;
};
mh_status hal_worker_submit(mh_runtime *runtime, const struct hal_job *job);
/* Until no job names the stream; NULL: until there is none at all. */
void hal_worker_drain(mh_runtime *runtime, const mh_stream *stream);
void hal_worker_stop(mh_runtime *runtime);
/* stream.c: holds `held`, which goes on when `job` (all but gate and held filled in) is done. */
mh_status hal_stream_hold(mh_stream *held, struct hal_job *job);
void hal_destroy_gate(mh_device *device, void *gate, bool current);

/* validate.c: the op as a caller gave it; a question needs no buffers and no sealed weights. *rows
 * is T, 1 for ops without rows. */
mh_status hal_validate(mh_device *device, const mh_op *op, bool question, int64_t *rows);
/* The same for a user's kernel. */
mh_status hal_validate_kernel(mh_device *device, const mh_op_kernel *op, bool question);
/* op_rules.c: what shapes alone cannot say. `dims` by letter, from 'A'. */
mh_status hal_check_rules(mh_runtime *runtime, const mh_op *op, const int64_t *dims);
bool hal_may_be_in_place(mh_op_id op, const struct hal_operand *output,
                         const struct hal_operand *other);
const char *hal_op_label(const mh_op *op, char *text, size_t size); /* "linear (layer 3, q_a)" */

/* expand.c: calls emit for every part of a fused op, in order; a part may be a fused op itself.
 * Temporaries lie in `arena` from byte `used`; emit gets where they end (256-aligned).
 * MH_NOT_FOUND (silent): not a fused op. */
typedef mh_status (*hal_emit_fn)(void *context, const mh_op *part, uint64_t used);
mh_status hal_expand(const mh_op *op, mh_buffer *arena, uint64_t used, hal_emit_fn emit,
                     void *context);

/* define.c: mh_core.define. */
mh_status hal_define(void *runtime, const mh_op *op);

/* fallback.c: runs `op` on the host in the stream's place, blocking. */
mh_status hal_fallback_run(mh_stream *stream, const mh_op *op);
void hal_fallback_free(struct hal_fallback *fallback);

/* graph.c */
mh_status hal_graph_add(mh_encoder *encoder, const mh_op *op, uint64_t scratch_offset,
                        uint64_t scratch_size, bool on_host);
mh_status hal_graph_reserve(mh_encoder *encoder, uint64_t arena_bytes);
bool hal_graph_is_sealed(const mh_encoder *encoder);
mh_status hal_graph_count_op(mh_encoder *encoder);
/* encode.c */
mh_status hal_encode_exchange(mh_encoder *encoder, const mh_op_exchange *op);
uint64_t hal_scratch_of(mh_device *device, const mh_op *op);
mh_status hal_stream_native(mh_stream *stream, mh_encoder *arena_owner, const mh_op *op,
                            uint64_t scratch_offset, uint64_t scratch_size);

#endif
