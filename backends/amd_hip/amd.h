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

enum {
    hipSuccess = 0,
    hipErrorOutOfMemory = 2,
    hipErrorNoDevice = 100,
    hipErrorInvalidDevice = 101,
    hipErrorNoBinaryForGpu = 209,
    hipErrorECCNotCorrectable = 214,
    hipErrorNotReady = 600,
    hipErrorIllegalAddress = 700,
    hipErrorLaunchTimeOut = 702,
    hipErrorAssert = 710,
    hipErrorLaunchFailure = 719,
    hipDeviceAttributeMultiprocessorCount = 63,
    hipStreamNonBlocking = 1,
    hipEventDisableTiming = 2,
    hipMemcpyHostToDevice = 1,
    hipMemcpyDeviceToHost = 2,
    hipMemcpyDeviceToDevice = 3,
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

enum { FORMATS = 5, TOKENS_MANY = 8 };

struct device {
    const mh_core *core;
    const struct instance *instance;
    const struct runtime *hip;
    int ordinal;
    hipModule_t module;
    hipFunction_t linear[FORMATS][2]; /* by format; for one token, for TOKENS_MANY */
};

enum { MARKS = 256 };

struct stream {
    struct device *device;
    hipStream_t stream;
    pthread_mutex_t lock;
    uint64_t last, passed;    /* marks */
    hipEvent_t events[MARKS]; /* mark n has event n % MARKS, made when first wanted */
};

/* The kernels' argument, as kernels/linear.hip has it. */
struct linear_arguments {
    const char *y, *x, *residual, *w, *scales;
    int64_t y_stride, x_stride, residual_stride, w_stride, scales_stride;
    int64_t tokens, rows, columns;
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

/* ---- ops.c ---- */

mh_status amd_load(struct device *device);
mh_status amd_supports(void *device, const mh_op *op, uint32_t *missing, char reason[192]);
mh_status amd_encode(void *stream, const mh_op *op, const mh_scratch *scratch);

/* ---- stream.c ---- */

mh_status amd_stream_create(void *device, void **out);
void amd_stream_destroy(void *stream);
mh_status amd_copy(void *stream, const mh_copy *copy);
mh_status amd_mark(void *stream, uint64_t *sequence);
mh_status amd_wait(void *stream, uint64_t sequence, uint64_t timeout_ns);

#endif
