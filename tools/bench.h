/* bench.h: what the parts of `moehal bench` share. */
#ifndef BENCH_H
#define BENCH_H

#include <jansson.h>

#include "tool.h"

/* ---- bench_kernels.c: what the host's cores and memory can do, in the widest vectors they have.
 */
struct bench_kernels {
    const char *isa;
    struct bench_read {
        const char *name;
        uint64_t (*run)(const char *memory, uint64_t bytes); /* returns a digest, to be used */
    } read[4];
    struct bench_fma {
        const char *name;
        float (*run)(const float *memory); /* BENCH_FMA_FLOATS floats */
        double flop;                       /* of one call; a mul and an add are two */
    } fma[2];
};
#define BENCH_FMA_FLOATS 2048
const struct bench_kernels *bench_kernels(void);

/* ---- bench_team.c: threads that start together and are timed from the first to the last. */
struct bench_team;
typedef void (*bench_work_fn)(void *context, uint32_t index);
/* NULL: no memory, or no threads. */
struct bench_team *bench_team_create(uint32_t threads);
void bench_team_free(struct bench_team *team);
double bench_team_run(struct bench_team *team, bench_work_fn work, void *context); /* seconds */

/* ---- bench_limits.c: the limits of a device. Measured with the kernels above on the host, with
 * kernels of bench_opencl.c on OpenCL, and with ops of the device elsewhere. */
struct bench_span {
    const void *memory;
    uint64_t bytes;
};

struct limits;
/* `spans` is the memory whose reading is measured, borrowed; none: buffers of the device. `threads`
 * of the host. Close what it gives also after a failure. */
mh_status limits_open(mh_device *device, const struct bench_span *spans, uint64_t count,
                      uint32_t threads, struct limits **out);
void limits_close(struct limits *limits); /* NULL is allowed */
/* One sample: the best of all kernels. About `bytes` are read, further on each time. */
mh_status limits_read(struct limits *limits, uint64_t bytes, double *GBps);
mh_status limits_fma(struct limits *limits, double *GFLOPS);
/* False: this device has no kernels to measure with; limits are 0. */
bool limits_known(const struct limits *limits);
/* "avx512 kernels, 2 threads", "ops of the device"; and which was the best the last time. */
const char *limits_how(const struct limits *limits);
const char *limits_best_read(const struct limits *limits);
const char *limits_best_fma(const struct limits *limits);

/* ---- bench_ops.c: limits of a device whose memory the host does not read: what its own ops reach.
 */
struct bench_ops;
mh_status bench_ops_open(mh_device *device, struct bench_ops **out);
void bench_ops_close(struct bench_ops *ops); /* NULL is allowed */
mh_status bench_ops_read(struct bench_ops *ops, double *GBps, const char **best);
mh_status bench_ops_fma(struct bench_ops *ops, double *GFLOPS, const char **best);

/* Seconds of one op: the mean of enough of them. */
mh_status bench_time_op(mh_stream *stream, const mh_op *op, double *seconds);

/* ---- bench_opencl.c: limits of an OpenCL device, by kernels made for that. */
struct bench_opencl;
mh_status bench_opencl_open(mh_device *device, struct bench_opencl **out);
void bench_opencl_close(struct bench_opencl *opencl); /* NULL is allowed */
mh_status bench_opencl_read(struct bench_opencl *opencl, double *GBps, const char **best);
mh_status bench_opencl_fma(struct bench_opencl *opencl, double *GFLOPS, const char **best);

/* ---- bench_weights.c: what a step must read and compute, from the checkpoint's own tensors. */
struct bench_weights {
    /* bytes in the file, scales included; elements of matrices */
    double always_bytes, always_elements; /* of all layers, without routed experts */
    double expert_bytes, expert_elements; /* routed experts, all of them */
    double head_bytes, head_elements;
    double row_bytes; /* one row of the embedding */
};
void bench_weights(const mh_checkpoint *checkpoint, struct bench_weights *out);
/* Distinct experts of a layer that `rows` tokens are expected to want, if every expert is as likely
 * as any other; exactly k for one row. */
double bench_expected_experts(const mh_config *config, double rows);
/* Of a step of `rows` tokens that touches `experts` experts a layer. */
double bench_step_bytes(const struct bench_weights *w, const mh_config *config, double rows,
                        double experts);
/* Of reading `tokens` with the head computed once: 2 a weight and token. Attention's scores and
 * values are apart. */
double bench_prefill_flop(const struct bench_weights *w, const mh_config *config, double tokens);
double bench_attention_flop(const mh_config *config, double tokens);

/* ---- cmd_bench.c ---- */
struct bench_options {
    struct setup_options setup;
    const char *against, *batch, *shape;
    int64_t prefill, decode, rounds;
    bool counters;
};
/* ---- bench_counters.c: differences of the device's own counters */
#define BENCH_COUNTERS 64
struct bench_counters {
    uint32_t count;
    const char *name[BENCH_COUNTERS];
    uint64_t value[BENCH_COUNTERS];
};
void bench_counters_begin(mh_device *device, struct bench_counters *counters);
void bench_counters_end(mh_device *device, struct bench_counters *counters);
json_t *bench_counters_json(const struct bench_counters *counters);
void bench_counters_print(const struct bench_options *options,
                          const struct bench_counters *counters, const char *what);

/* Sides are interleaved round by round until there are enough of them. */
#define BENCH_ROUNDS 32
#define BENCH_MOST_SEQUENCES 256
/* Another round? Given how many are done and when the first began. */
bool bench_goes_on(const struct bench_options *options, int64_t done, double begin);
double bench_median(const double *values, int64_t count);
/* "host:0 (Intel ...), exact", with "(virtual)". */
void bench_print_device(mh_device *device, const mh_device_info *info, uint32_t profile);
uint32_t bench_threads(const struct bench_options *options, const mh_device_info *info);
int bench_model(const struct bench_options *options);
int bench_op(const struct bench_options *options, const char *name);
int bench_bandwidth(const struct bench_options *options);
json_t *bench_number(bool is, double value); /* or null */
/* Prints and frees it. */
int bench_print_json(json_t *object);

extern const struct command command_bench;

#endif
