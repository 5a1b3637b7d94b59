/*
 * device.h: finding, opening and asking devices.
 *
 * A URI is BACKEND, BACKEND:INDEX or BACKEND:TEXT, where TEXT is a stable id of a device or a part
 * of its name ("host", "nvidia:0", "opencl:pocl"); or "auto": real GPUs first, then the host, then
 * OpenCL on a CPU. A virtual device, and the null backend, are chosen by name only.
 */
#ifndef MOEHAL_DEVICE_H
#define MOEHAL_DEVICE_H

#include <moehal/faults.h>
#include <moehal/op.h>
#include <moehal/timeline.h>
#include <moehal/runtime.h>

MH_BEGIN_DECLS

typedef struct mh_device mh_device;

enum { MH_DEVICE_CPU = 1, MH_DEVICE_GPU = 2, MH_DEVICE_ACCELERATOR = 3, MH_DEVICE_NONE = 4 };

enum {
    MH_DEVICE_IS_VIRTUAL = 1u,   /* a GPU in software; always called virtual in what is shown */
    MH_DEVICE_HOST_MEMORY = 2u,  /* kernels read the host's memory by the host's pointers */
    MH_DEVICE_BY_NAME_ONLY = 4u, /* never picked by "auto" */
    MH_DEVICE_SYNCHRONOUS = 8u,  /* work is done when the call that enqueued it returns */
};

typedef struct mh_device_info {
    uint64_t struct_size;
    mh_status status; /* MH_OK, or why this device cannot be opened */
    uint32_t kind;    /* MH_DEVICE_CPU, ... */
    uint32_t flags;   /* MH_DEVICE_IS_VIRTUAL, ... */
    uint32_t compute_units;
    uint64_t memory_bytes; /* 0: unknown */
    char id[64]; /* stable: bus id, UUID, or both with a space; unique within the backend */
    char name[128];
    char driver[64];  /* version of the vendor's driver, "" if none */
    char reason[256]; /* with a bad status: why, in words */
} mh_device_info;

/* Device `index` of backend `backend` (both counted from 0; mh_runtime_backend's order).
 * MH_NOT_FOUND past the last. A device that cannot be opened is listed with its reason. */
MH_API mh_status mh_runtime_device(mh_runtime *runtime, uint32_t backend, uint32_t index,
                                   mh_device_info *out);

enum { MH_PLACEMENT_AUTO = 0, MH_PLACEMENT_STRICT = 1 /* an op that falls back is an error */ };

/* Whose vendor context (CUcontext, hipCtx_t, cl_context) a device works in. */
enum {
    MH_CONTEXT_OWN = 0,     /* made for this device, and the only kind that is ever reset */
    MH_CONTEXT_PRIMARY = 1, /* the one the vendor's own runtime uses in this process */
    MH_CONTEXT_WRAP = 2,    /* native_context, the embedder's; it outlives the device */
};

enum { MH_CHECK_BACKEND = 1u /* a layer that holds what the backend answers against backend.h */ };

typedef struct mh_device_params {
    uint64_t struct_size;
    uint32_t placement;
    uint32_t threads;        /* host, and the host companion of other devices; 0: one a core */
    uint32_t context;        /* other than OWN: MH_UNSUPPORTED where the backend cannot */
    uint32_t checks;         /* MH_CHECK_BACKEND, or 0 */
    const mh_faults *faults; /* faults.h; NULL: no layer. Read before mh_device_open returns */
    uint64_t native_context; /* with MH_CONTEXT_WRAP */
    mh_timeline *timeline;   /* timeline.h, of the same runtime; kept. NULL: no layer */
} mh_device_params;

/* Opens a device. uri NULL: MOEHAL_DEVICE, else "auto". params may be NULL. Each call makes a
 * device of its own: its memory, streams and accounting are not shared with other opens. Failures:
 * MH_NOT_FOUND (nothing matches; the message lists what there is), or the reason the device is
 * listed with. The caller owns *out. */
MH_API mh_status mh_device_open(mh_runtime *runtime, const char *uri,
                                const mh_device_params *params, mh_device **out);
MH_API mh_device *mh_device_retain(mh_device *device);
MH_API void mh_device_release(mh_device *device); /* NULL is allowed */

MH_API mh_runtime *mh_device_runtime(mh_device *device);   /* borrowed */
MH_API const char *mh_device_uri(const mh_device *device); /* "host:0"; borrowed */
MH_API mh_status mh_device_get_info(mh_device *device, mh_device_info *out);

/* The device that runs what `device` cannot: the host, opened on first use. For a host device,
 * itself. Weights of ops that fall back live there (mh_support.weights_on_host). Borrowed. */
MH_API mh_status mh_device_host(mh_device *device, mh_device **out);

/* Memory, exact for moehal's own allocations; total and available are the backend's. */
typedef struct mh_memory_info {
    uint64_t struct_size;
    uint64_t total;     /* of the device; 0: unknown */
    uint64_t available; /* as the vendor's driver says; 0: unknown */
    uint64_t used;      /* held by this device's buffers and weights now */
    uint64_t peak;      /* the most `used` has been */
    uint64_t imported;  /* host memory used in place, not counted in `used` */
    uint64_t buffers;   /* live allocations */
} mh_memory_info;

MH_API mh_status mh_device_memory(mh_device *device, mh_memory_info *out);

/* What ran where since the device was opened. */
typedef struct mh_device_counters {
    uint64_t struct_size;
    uint64_t native;         /* ops handed to the backend (kernels enqueued or graph nodes) */
    uint64_t expanded;       /* fused ops replaced by their expansion */
    uint64_t fallback;       /* ops run by the host in the device's place */
    uint64_t graph_launches; /* mh_graph_launch */
    uint64_t copies;         /* transfers between host and device, fallback's included */
    uint64_t copied_bytes;
    uint64_t stream_waits;  /* waits between streams that had to block the caller */
    uint64_t native_graphs; /* segments of graphs launched as the device's own graph */
    uint64_t native_waits;  /* waits between streams that the device does by itself */
    uint64_t thread_waits;  /* waits and copies done by a thread of the runtime */
} mh_device_counters;

MH_API mh_status mh_device_get_counters(mh_device *device, mh_device_counters *out);

/* What a device counts of its own accord (a virtual GPU's memory traffic). Counters only grow: take
 * differences around what you measure, and wait for it first. */
typedef struct mh_device_counter {
    uint64_t struct_size;
    const char *name; /* static */
    uint64_t value;
} mh_device_counter;

/* Counter `index`, from 0; MH_NOT_FOUND past the last, or if the device counts nothing. */
MH_API mh_status mh_device_read_counter(mh_device *device, uint32_t index, mh_device_counter *out);

/* How often op has fallen back on this device; 0 for an unknown id. */
MH_API uint64_t mh_device_fallbacks(mh_device *device, mh_op_id op);

/* ---- what a device can do ---- */

enum { MH_RUNS_NATIVE = 1, MH_RUNS_EXPANDED = 2, MH_RUNS_ON_HOST = 3, MH_RUNS_NOWHERE = 4 };
enum {
    MH_MISSING_NOTHING = 0,
    MH_MISSING_DTYPE = 1,
    MH_MISSING_SHAPE = 2,
    MH_MISSING_LIMIT = 3,
    MH_MISSING_KERNEL = 4,
};

typedef struct mh_support {
    uint64_t struct_size;
    uint32_t runs;            /* where the op would run: MH_RUNS_NATIVE, ... */
    uint32_t missing;         /* why not natively */
    uint32_t weights_on_host; /* bit w: create this op's weight w, in the order of ops.def, on
                                 mh_device_host() */
    uint32_t reserved;
    char reason[192]; /* in words; "" when native */
} mh_support;

/* Where `op` would run on this device. Looks at shapes, dtypes, strides, offsets' alignment, weight
 * formats and the profile, never at addresses: tensors need no buffer and weights no content. Its
 * answer is final for every op that looks the same. An op that is wrong anywhere is
 * MH_INVALID_ARGUMENT, as mh_encode would say. */
MH_API mh_status mh_device_supports(mh_device *device, const mh_op *op, mh_support *out);

/* ---- errors and reset ---- */

/* The cause of MH_DEVICE_LOST: MH_OK and *out filled if the device is lost, MH_NOT_FOUND if not. */
MH_API mh_status mh_device_error(mh_device *device, mh_error *out);

/* Brings a lost device back. Buffers, weights, streams, events and graphs made before are stale:
 * every call with one returns MH_STALE_HANDLE; release them as usual. MH_UNSUPPORTED if the backend
 * cannot, with the reason. No other call on this device may be running. */
MH_API mh_status mh_device_reset(mh_device *device);

/* Of a device opened with faults: what was called, and what was made to fail. With faults a lost
 * device can be reset even where the backend has no reset of its own. */
MH_API mh_status mh_device_get_faults(mh_device *device, mh_fault_report *out);

MH_END_DECLS

#endif
