/* amd.h: what the files of this backend share. */
#ifndef AMD_H
#define AMD_H

#include <pthread.h>
#include <stdbool.h>

#include <moehal/backend.h>

#include <symbols.h>

/* ---- HIP, as much of it as is used ---- */

typedef struct ihipStream_t *hipStream_t;
typedef struct ihipEvent_t *hipEvent_t;
typedef struct ihipModule_t *hipModule_t;
typedef struct ihipModuleSymbol_t *hipFunction_t;
typedef struct ihipGraph *hipGraph_t;
typedef struct hipGraphNode *hipGraphNode_t;
typedef struct hipGraphExec *hipGraphExec_t;

typedef struct hipKernelNodeParams {
    uint32_t block[3];
    void **extra;
    void *function; /* of a module, too */
    uint32_t grid[3];
    void **params;
    unsigned lds_bytes;
} hipKernelNodeParams;

enum {
    hipSuccess = 0,
    hipErrorInvalidValue = 1,
    hipErrorOutOfMemory = 2,
    hipErrorInvalidSymbol = 13,
    hipErrorInvalidDeviceFunction = 98,
    hipErrorNoDevice = 100,
    hipErrorInvalidDevice = 101,
    hipErrorNoBinaryForGpu = 209,
    hipErrorECCNotCorrectable = 214,
    hipErrorInvalidHandle = 400,
    hipErrorNotFound = 500,
    hipErrorNotReady = 600,
    hipErrorIllegalAddress = 700,
    hipErrorLaunchTimeOut = 702,
    hipErrorPeerAccessAlreadyEnabled = 704,
    hipErrorAssert = 710,
    hipErrorLaunchFailure = 719,
    hipErrorUnknown = 999, /* a GPU that is gone, too */
    hipDeviceAttributeMultiprocessorCount = 63,
    hipDeviceAttributeWarpSize = 87,
    hipStreamNonBlocking = 1,
    hipEventDisableTiming = 2,
    hipHostMallocPortable = 1,
    hipHostMallocMapped = 2,
    hipHostMallocCoherent = 0x40000000,
    hipDeviceMallocFinegrained = 1, /* of hipExtMallocWithFlags */
    hipMemcpyHostToDevice = 1,
    hipMemcpyDeviceToHost = 2,
    hipMemcpyDeviceToDevice = 3,
    hipPointerDeviceOrdinal = 9, /* of hipPointerGetAttribute */
};

struct runtime {
#define SYMBOL SYMBOL_FIELD
#include "runtime.def"
#undef SYMBOL
};

/* ---- the objects ---- */

struct instance {
    const mh_core *core;
    void *library;
    struct runtime hip;
    int version, count;
    bool simulated;
};

/* Files of kernels/, a code object each. */
enum {
#define FILE(name, units) FILE_##name,
#include "files.def"
#undef FILE
    FILE_COUNT
};

enum { FORMATS = 5 }; /* 0 (none) and those of formats.def */

enum kernel_id {
#define KERNEL(file, name, formats) KERNEL_##name,
#include "kernels.def"
#undef KERNEL
    KERNEL_COUNT
};

/* What files.def asks of a GPU, in order. */
enum { EXACT, MATRIX, FNUZ /* with FP8 in gfx942's form */ };

struct device {
    const mh_core *core;
    const struct instance *instance;
    const struct runtime *hip;
    int ordinal;
    int64_t compute_units;
    char target[64]; /* gfx942, gfx90a:sramecc+:xnack-, ... */
    uint32_t units;  /* EXACT, ...: what of files.def is loaded */
    hipModule_t modules[FILE_COUNT];
    void *images[FILE_COUNT]; /* compiled at load, else NULL */
    hipFunction_t functions[KERNEL_COUNT][FORMATS];
    pthread_mutex_t lock;  /* making of the ring */
    struct upload *upload; /* upload.c; NULL: not made yet */
};

/* Counters of kernels whose last block does more: zero before and after. */
enum { COUNTER_COUNT = 65536 };

enum { MARKS = 256 };

struct stream {
    struct device *device;
    hipStream_t stream;
    bool wrapped;
    void *counters;
    pthread_mutex_t lock;
    uint64_t last, passed;    /* marks */
    hipEvent_t events[MARKS]; /* mark n has event n % MARKS, made when first wanted */
};

/* ---- ops.c: an op as launches ---- */

enum { MAX_LAUNCHES = 6, MAX_ARGUMENTS = 512, MAX_LDS = 65536 };

struct launch {
    enum kernel_id kernel;
    uint32_t format;
    int64_t grid[3];
    uint32_t block;
    uint32_t lds;                                                        /* bytes of dynamic LDS */
    unsigned char arguments[MAX_ARGUMENTS] __attribute__((aligned(16))); /* the kernel's struct */
};

/* What memory kernels get besides the op's own. */
struct launch_memory {
    char *scratch;      /* NULL: only asked how much */
    uint64_t used;      /* of scratch */
    uint32_t *counters; /* COUNTER_COUNT */
};

/* ---- failures ---- */

mh_status amd_check(const struct instance *instance, int result, const char *call, const char *file,
                    uint32_t line);
#define HIP(device, call)                                                                          \
    amd_check((device)->instance, (device)->hip->call, "hip" #call, __FILE__, __LINE__)
#define FAIL(core, status, ...)                                                                    \
    (core)->fail((core)->context, __FILE__, __LINE__, (status), NULL, 0, NULL, __VA_ARGS__)

/* The thread's device is the embedder's: ours in between. */
mh_status amd_enter(const struct device *device, int *before);
void amd_leave(const struct device *device, int before);

extern const mh_backend_counters amd_counters_group;
extern const mh_backend_event amd_event_group;
extern const mh_backend_wrap_event amd_wrap_event_group;
extern const mh_backend_graph amd_graph_group;
extern const mh_backend_module amd_module_group;
extern const mh_backend_peer amd_peer_group;

/* ---- modules.c: kernels ---- */

const char *amd_file_name(int file);
mh_status amd_load(struct device *device);
void amd_unload(struct device *device);

/* ---- compile.c: kernels for other GPUs, for the thread's device ---- */

struct amd_compiler;
mh_status amd_compiler_open(const struct device *device, struct amd_compiler **out);
void amd_compiler_close(struct amd_compiler *compiler);
/* The code of a file of kernels, to be freed with core->deallocate. */
mh_status amd_compile(struct amd_compiler *compiler, int file, void **code, uint64_t *size);
/* What a code object is for, as in gfx90a:sramecc+:xnack-; "" where it does not say. */
void amd_compiled_target(const void *code, uint64_t size, char target[64]);
uint32_t amd_units_of(const char *target);

/* ---- ops.c ---- */

/* The launches of a supported op, in order; 0 where there is nothing to do. */
uint32_t amd_plan(const struct device *device, const mh_op *op, const mh_scratch *scratch,
                  void *counters, struct launch out[MAX_LAUNCHES]);
mh_status amd_supports(void *device, const mh_op *op, uint32_t *missing, char reason[192]);
uint64_t amd_scratch(void *device, const mh_op *op);

/* ---- stream.c ---- */

mh_status amd_stream_create(void *device, void **out);
void amd_stream_destroy(void *stream);
mh_status amd_copy(void *stream, const mh_copy *copy);
mh_status amd_mark(void *stream, uint64_t *sequence);
mh_status amd_wait(void *stream, uint64_t sequence, uint64_t timeout_ns);
mh_status amd_encode(void *stream, const mh_op *op, const mh_scratch *scratch);
mh_status amd_counters_create(struct device *device, void **counters);
mh_status amd_stream_make(struct device *device, hipStream_t native, bool wrapped, void **out);

/* ---- upload.c ---- */

/* Enqueues a copy of host memory, which may change once this returns where it is large. */
mh_status amd_upload(struct device *device, void *to, const void *from, uint64_t size,
                     hipStream_t stream);
void amd_upload_close(struct device *device);

/* ---- user_kernels.c ---- */

/* A user's kernel with its arguments packed. */
struct user_launch {
    hipFunction_t function;
    uint64_t slots[MH_MAX_KERNEL_ARGS][2];
    void *params[MH_MAX_KERNEL_ARGS];
};
void amd_user_launch(const mh_op_kernel *op, struct user_launch *out);

#endif
