/*
 * bench_opencl.c: the limits of an OpenCL device, measured by kernels of its own (bench_opencl.cl),
 * as modules of the public API.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

extern const char bench_opencl_source[];

#define GROUPS 512
#define GROUP_BYTES (UINT64_C(1) << 20) /* of reading; all of them are beyond any cache */
#define FMA_STEPS 65536

static const struct shape {
    const char *name, *what;
    uint32_t lanes;
    double flop; /* of one work-item's step */
} reads[] = {{"read_one", "one stream", 1, 0},
             {"read_ahead", "one stream, prefetched", 1, 0},
             {"read_four", "four streams", 1, 0},
             {"read_eight", "eight streams", 1, 0},
             {"read_lanes", "64 work-items side by side", 64, 0}},
  fmas[] = {{"fma_wide", "12 chains of 16", 1, 2.0 * 12 * 16},
            {"fma_wider", "24 chains of 16", 1, 2.0 * 24 * 16},
            {"fma_tile", "matrix tile", 1, 2.0 * 24 * 16},
            {"fma_lanes", "64 work-items with 16 chains", 64, 2.0 * 16}};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

struct bench_opencl {
    mh_stream *stream;
    mh_module *module;
    mh_kernel *read[COUNT(reads)], *fma[COUNT(fmas)];
    mh_buffer *memory, *out;
};

static mh_status make_kernels(struct bench_opencl *o, const struct shape *list, size_t count,
                              mh_kernel **out)
{
    mh_status status = MH_OK;
    for (size_t i = 0; !status && i < count; i++)
        status = mh_kernel_create(o->module, list[i].name, &out[i]);
    return status;
}

static mh_status fill(struct bench_opencl *o)
{
    mh_op_fill op = MH_OP_INIT(fill, FILL);
    const int64_t shape[] = {GROUPS * (GROUP_BYTES / 4)};
    op.y = mh_tensor_make(o->memory, 0, MH_F32, 1, shape);
    op.bits = 0x3A83126F; /* 0.001: sums stay finite */
    return mh_encode(mh_stream_encoder(o->stream), &op.base);
}

mh_status bench_opencl_open(mh_device *device, struct bench_opencl **out)
{
    struct bench_opencl *o = calloc(1, sizeof(*o));
    mh_module_params params = MH_INIT(mh_module_params);
    *out = o;
    if (!o)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for limits");
    params.image = bench_opencl_source;
    params.options = "-cl-std=CL1.2";
    mh_status status = mh_module_load(device, &params, &o->module);
    if (!status)
        status = make_kernels(o, reads, COUNT(reads), o->read);
    if (!status)
        status = make_kernels(o, fmas, COUNT(fmas), o->fma);
    if (!status)
        status = mh_stream_create(device, &o->stream);
    if (!status)
        status = mh_buffer_create(device, GROUPS * GROUP_BYTES, 0, &o->memory);
    if (!status)
        status = mh_buffer_create(device, GROUPS * 64 * 4, 0, &o->out);
    return status ? status : fill(o);
}

void bench_opencl_close(struct bench_opencl *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < COUNT(reads); i++)
        mh_kernel_release(o->read[i]);
    for (size_t i = 0; i < COUNT(fmas); i++)
        mh_kernel_release(o->fma[i]);
    mh_module_release(o->module);
    mh_buffer_release(o->memory);
    mh_buffer_release(o->out);
    mh_stream_release(o->stream);
    free(o);
}

static mh_tensor whole(mh_buffer *buffer)
{
    const int64_t shape[] = {(int64_t)(mh_buffer_size(buffer) / 4)};
    return mh_tensor_make(buffer, 0, MH_F32, 1, shape);
}

/* Seconds of one launch of all groups; `value` is the kernel's third argument. */
static mh_status time_kernel(struct bench_opencl *o, mh_kernel *kernel, uint32_t lanes,
                             uint64_t value, double *seconds)
{
    mh_kernel_arg args[] = {
        {.kind = MH_ARG_TENSOR, .access = MH_OPERAND_READ, .tensor = whole(o->memory)},
        {.kind = MH_ARG_TENSOR, .access = MH_OPERAND_WRITTEN, .tensor = whole(o->out)},
        {.kind = MH_ARG_VALUE, .size = sizeof(value)},
    };
    memcpy(args[2].value, &value, sizeof(value));
    mh_op_kernel op = {.base = {sizeof(op), MH_OP_KERNEL, 0, -1, 0, NULL},
                       .kernel = kernel,
                       .grid = {GROUPS, 1, 1},
                       .block = {lanes, 1, 1},
                       .args = args,
                       .arg_count = 3};
    return bench_time_op(o->stream, &op.base, seconds);
}

mh_status bench_opencl_read(struct bench_opencl *o, double *GBps, const char **best)
{
    *GBps = 0;
    for (size_t i = 0; i < COUNT(reads); i++) {
        double seconds;
        mh_status status = time_kernel(o, o->read[i], reads[i].lanes, GROUP_BYTES, &seconds);
        if (status)
            return status;
        double rate = 1e-9 * (double)(GROUPS * GROUP_BYTES) / seconds;
        if (rate > *GBps)
            *GBps = rate, *best = reads[i].what;
    }
    return MH_OK;
}

mh_status bench_opencl_fma(struct bench_opencl *o, double *GFLOPS, const char **best)
{
    *GFLOPS = 0;
    for (size_t i = 0; i < COUNT(fmas); i++) {
        uint64_t steps = FMA_STEPS / (fmas[i].lanes * 16);
        double seconds;
        mh_status status = time_kernel(o, o->fma[i], fmas[i].lanes, steps, &seconds);
        if (status)
            return status;
        double rate = 1e-9 * fmas[i].flop * (double)(GROUPS * fmas[i].lanes * steps) / seconds;
        if (rate > *GFLOPS)
            *GFLOPS = rate, *best = fmas[i].what;
    }
    return MH_OK;
}
