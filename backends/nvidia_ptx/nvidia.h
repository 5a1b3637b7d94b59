/*
 * nvidia.h: what the files of the NVIDIA backend share. The driver library (libcuda.so.1) is opened
 * at run time; nothing of CUDA is needed to build this.
 */
#ifndef NVIDIA_H
#define NVIDIA_H

#include <pthread.h>
#include <stdbool.h>

#include <moehal/backend.h>

/* ---- the driver's ABI, as far as it is used ---- */

typedef int CUresult, CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef unsigned long long CUmemGenericAllocationHandle;

typedef struct CUDA_KERNEL_NODE_PARAMS {
    CUfunction function;
    unsigned int grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    void **params;
    void **extra;
} CUDA_KERNEL_NODE_PARAMS;

typedef struct CUmemLocation {
    int type, id;
} CUmemLocation;

typedef struct CUmemAllocationProp {
    int type, handle_types;
    CUmemLocation location;
    void *win32;
    unsigned char flags[8];
} CUmemAllocationProp;

typedef struct CUmemAccessDesc {
    CUmemLocation location;
    int flags;
} CUmemAccessDesc;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_ECC_UNCORRECTABLE = 214,
    CUDA_ERROR_INVALID_PTX = 218,
    CUDA_ERROR_NVLINK_UNCORRECTABLE = 220,
    CUDA_ERROR_CONTAINED = 226, /* of a GPU's memory or links */
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700, /* 700 to 720: a kernel died, the context with it */
    CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED = 704,
    CUDA_ERROR_LAUNCH_FAILED = 719,
    CUDA_ERROR_UNKNOWN = 999, /* a GPU that is gone from its bus, too */
};

enum {
    CU_THREADS_PER_BLOCK = 1, /* of cuDeviceGetAttribute */
    CU_SHARED_PER_BLOCK_OPTIN = 97,
    CU_MULTIPROCESSORS = 16,
    CU_CAPABILITY_MAJOR = 75,
    CU_CAPABILITY_MINOR = 76,
    CU_MEMORY_MAPS = 102, /* cuMemMap and its like */
    CU_MEMORY_POOLS = 115,
    CU_FUNC_THREADS = 0, /* of cuFuncGetAttribute */
    CU_FUNC_STATIC_SHARED = 1,
    CU_FUNC_MAX_DYNAMIC_SHARED = 8,
    CU_JIT_INFO_LOG_BUFFER = 3,
    CU_JIT_INFO_LOG_SIZE = 4,
    CU_JIT_ERROR_LOG_BUFFER = 5,
    CU_JIT_ERROR_LOG_SIZE = 6,
    CU_JIT_LOG_VERBOSE = 12,
    CU_POINTER_CONTEXT = 1,
    CU_POINTER_ORDINAL = 9,
    CU_MEM_PINNED = 1,
    CU_MEM_ON_DEVICE = 1,
    CU_MEM_READ_WRITE = 3,
    CU_EVENT_BLOCKING_SYNC = 1,
    CU_EVENT_NO_TIMING = 2,
    CU_STREAM_NON_BLOCKING = 1,
    CU_HOST_PORTABLE = 1,
    CU_HOST_MAPPED = 2,
};

struct driver {
#define SYMBOL(need, result, field, name, version, args) result(*field) args;
#include "driver.def"
#undef SYMBOL
};

/* ---- kernels (modules.c) ---- */

/* Files of kernels/, some once for each format that they read. */
enum family {
#define PLAIN(family) FAMILY_##family,
#define PLAIN_90 PLAIN
#define CACHE_TYPES PLAIN
#define FORMATS_OF PLAIN
#define FORMATS_90 PLAIN
#include "families.def"
#undef PLAIN
#undef PLAIN_90
#undef CACHE_TYPES
#undef FORMATS_OF
#undef FORMATS_90
    FAMILY_COUNT
};

enum { FORMATS = 5 }; /* 0 (none) and those of formats.def */

enum kernel_id {
#define KERNEL(family, name, shared) KERNEL_##name,
#include "kernels.def"
#undef KERNEL
    KERNEL_COUNT
};

/* ---- objects ---- */

struct instance {
    const mh_core *core;
    void *library;
    struct driver cu;
    int version;    /* of the driver, 13000 is 13.0 */
    bool simulated; /* the library is a virtual GPU */
    int count;
};

struct device {
    struct instance *instance;
    const mh_core *core;
    const struct driver *cu;
    CUdevice ordinal;
    CUcontext context;
    uint32_t context_kind; /* MH_CONTEXT_OWN, ... */
    uint32_t sm;           /* compute capability, 90 is 9.0 */
    uint32_t multiprocessors;
    uint32_t shared_optin; /* bytes of shared memory a block may have */
    uint32_t maps_memory, pools_memory;
    pthread_mutex_t lock;   /* loading of modules, making of the ring, the regions */
    struct upload *upload;  /* upload.c; NULL: not made yet */
    struct region *regions; /* memory.c */
    CUstream pool;          /* in whose order pooled memory is had; NULL: not made yet */
    CUmodule modules[FAMILY_COUNT][FORMATS];
    CUfunction functions[KERNEL_COUNT][FORMATS];
};

/* Counters of kernels whose last block does more (attention.ptx): zero before and after. */
enum { COUNTER_COUNT = 65536 };

struct mark {
    uint64_t sequence;
    CUevent event;
    uint32_t waiters;
};

struct stream {
    struct device *device;
    CUstream stream;
    bool wrapped;
    CUdeviceptr counters;
    pthread_mutex_t lock; /* of what follows */
    uint64_t last;        /* sequence of the newest mark */
    uint64_t passed;      /* every mark up to here has been seen passed */
    struct mark *marks;   /* in order; recycled from the front */
    uint32_t mark_count, mark_room;
    CUevent *spare;
    uint32_t spare_count, spare_room;
};

/* ---- failures ---- */

/* Status of a driver call; a failure is recorded with the call, its code and name. */
mh_status nv_check(const struct instance *instance, CUresult result, const char *call,
                   const char *file, uint32_t line);
#define CU(device, call)                                                                           \
    nv_check((device)->instance, (device)->instance->cu.call, "cu" #call, __FILE__, __LINE__)

#define FAIL(core, status, ...)                                                                    \
    (core)->fail((core)->context, __FILE__, __LINE__, (status), NULL, 0, NULL, __VA_ARGS__)

/* The device's context on this thread, and back to the embedder's. */
mh_status nv_enter(struct device *device);
void nv_leave(struct device *device);

/* ---- modules.c ---- */

/* The kernel, loaded with its family at first use; format 0 for families without. */
mh_status nv_function(struct device *device, enum kernel_id kernel, uint32_t format,
                      CUfunction *function);
/* Loads an image. log[] gets what the compiler says: what is wrong, or what it made. */
mh_status nv_load(struct device *device, const void *image, char *log, uint32_t log_size,
                  CUmodule *module);
void nv_unload_all(struct device *device);
bool nv_has_kernels(uint32_t sm);
/* The compute capability that the text serving this device is written for: 80, 89 or 90. */
uint32_t nv_text_sm(const struct device *device, enum family family, uint32_t format);
/* Bytes of dynamic shared memory that a block of the kernel may have. */
uint64_t nv_dynamic_shared(const struct device *device, enum kernel_id kernel);

/* ---- ops.c: an op as launches ---- */

enum { MAX_ARGS = 48, MAX_LAUNCHES = 6 };

struct launch {
    enum kernel_id kernel;
    uint32_t format;
    uint32_t grid[3];
    uint32_t block;
    uint32_t shared;
    uint32_t arg_count;
    uint64_t args[MAX_ARGS]; /* a slot of eight bytes each, whatever the kernel reads of it */
};

/* What memory kernels get besides the op's own. */
struct launch_memory {
    CUdeviceptr scratch, counters;
};

/* The launches of a supported op, in order; 0 where there is nothing to do. */
uint32_t nv_plan(const struct device *device, const mh_op *op, const struct launch_memory *memory,
                 struct launch out[MAX_LAUNCHES]);
mh_status nv_supports(void *device, const mh_op *op, uint32_t *missing, char reason[192]);
uint64_t nv_scratch(void *device, const mh_op *op);

/* ---- exchange.c ---- */

uint32_t nv_plan_exchange(const mh_op_exchange *op, struct launch *out);
extern const mh_backend_peer nv_peer_group;

/* ---- stream.c ---- */

mh_status nv_stream_create(void *device, void **stream);
void nv_stream_destroy(void *stream);
mh_status nv_copy(void *stream, const mh_copy *copy);
mh_status nv_mark(void *stream, uint64_t *sequence);
mh_status nv_wait(void *stream, uint64_t sequence, uint64_t timeout_ns);
mh_status nv_encode(void *stream, const mh_op *op, const mh_scratch *scratch);
mh_status nv_counters_create(struct device *device, CUdeviceptr *counters);
mh_status nv_stream_make(struct device *device, CUstream native, bool wrapped, void **out);
extern const mh_backend_event nv_event_group;
extern const mh_backend_wrap_event nv_wrap_event_group;

/* ---- memory.c ---- */

/* A weight of so many bytes is mapped: rounding up to the granularity, 2 MB, is a sixteenth at
 * most, and the calls that it takes are nothing beside the time to fill it. */
enum { LARGE_WEIGHT = 32 << 20 };

mh_status nv_memory_info(void *device, uint64_t *total, uint64_t *available);
mh_status nv_buffer_create(void *device, uint64_t size, uint32_t kind, mh_buffer_view *out);
void nv_buffer_destroy(void *device, mh_buffer_view *buffer);
/* Gives back what no end of a context would. In the device's context. */
void nv_memory_close(struct device *device);

/* ---- upload.c ---- */

enum { UPLOAD_PIECE = 4 << 20, UPLOAD_PIECES = 4, UPLOAD_LEAST = 1 << 20 }; /* bytes */

/* Enqueues a copy of host memory, which may change once this returns where it is large. */
mh_status nv_upload(struct device *device, CUdeviceptr to, const void *from, uint64_t size,
                    CUstream stream);
void nv_upload_close(struct device *device); /* in the device's context */

/* ---- graph.c, modules.c, counters.c: groups ---- */

extern const mh_backend_graph nv_graph_group;
extern const mh_backend_module nv_module_group;
extern const mh_backend_counters nv_counters_group;

/* A user's kernel with its launch checked and its arguments packed. */
struct user_launch {
    CUfunction function;
    uint32_t arg_count;
    uint64_t slots[MH_MAX_KERNEL_ARGS][2];
    void *params[MH_MAX_KERNEL_ARGS];
};
void nv_user_launch(const mh_op_kernel *op, struct user_launch *out);

#endif
