/*
 * bench_opencl.c: the limits of an OpenCL device, measured by kernels of its own (bench_opencl.cl),
 * as modules of the public API.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

extern const char bench_opencl_source[];

#define MOST_GROUPS 2048
#define LANES 64

/* Groups of one work-item with wide vectors, more than a processor has cores; or of many, to fill a
 * GPU several times. */
static const struct shape {
    const char *name, *what;
    uint32_t groups, lanes;
    uint64_t steps; /* of an FMA kernel */
    double flop;    /* of one work-item's step */
} reads[] = {{"read_one", "one stream", 512, 1, 0, 0},
             {"read_ahead", "one stream, prefetched", 512, 1, 0, 0},
             {"read_four", "four streams", 512, 1, 0, 0},
             {"read_eight", "eight streams", 512, 1, 0, 0},
             {"read_lanes", "64 work-items side by side", MOST_GROUPS, LANES, 0, 0}},
  fmas[] = {{"fma_wide", "12 chains of 16", 512, 1, 4096, 2.0 * 12 * 16},
            {"fma_wider", "24 chains of 16", 512, 1, 4096, 2.0 * 24 * 16},
            {"fma_tile", "matrix tile", 512, 1, 4096, 2.0 * 24 * 16},
            {"fma_lanes", "64 work-items with 16 chains", MOST_GROUPS, LANES, 256, 2.0 * 16}};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

struct bench_opencl {
    mh_stream *stream;
    mh_module *module;
    mh_kernel *read[COUNT(reads)], *fma[COUNT(fmas)];
    mh_buffer *memory, *out;
    uint64_t bytes; /* of memory that is read */
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
    const int64_t shape[] = {(int64_t)(o->bytes / 4)};
    op.y = mh_tensor_make(o->memory, 0, MH_F32, 1, shape);
    op.bits = 0x3A83126F; /* 0.001: sums stay finite */
    return mh_encode(mh_stream_encoder(o->stream), &op.base);
}

/* Beyond any cache. A GPU's memory is so fast that a launch should have more, where there is as
 * much. */
static uint64_t bytes_to_read(mh_device *device)
{
    mh_device_info info = MH_INIT(mh_device_info);
    uint64_t bytes = UINT64_C(1) << 29;
    if (!mh_device_get_info(device, &info) && info.kind == MH_DEVICE_GPU)
        while (bytes < UINT64_C(1) << 31 && bytes < info.memory_bytes / 16)
            bytes *= 2;
    return bytes;
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
    o->bytes = bytes_to_read(device);
    mh_status status = mh_module_load(device, &params, &o->module);
    if (!status)
        status = make_kernels(o, reads, COUNT(reads), o->read);
    if (!status)
        status = make_kernels(o, fmas, COUNT(fmas), o->fma);
    if (!status)
        status = mh_stream_create(device, &o->stream);
    if (!status)
        status = mh_buffer_create(device, o->bytes, 0, &o->memory);
    if (!status)
        status = mh_buffer_create(device, MOST_GROUPS * LANES * 4, 0, &o->out);
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

/* A kernel's arguments: what is read, what is written, `value`. */
static void set_args(const struct bench_opencl *o, uint64_t value, mh_kernel_arg args[3])
{
    args[0] = (mh_kernel_arg){
        .kind = MH_ARG_TENSOR, .access = MH_OPERAND_READ, .tensor = whole(o->memory)};
    args[1] = (mh_kernel_arg){
        .kind = MH_ARG_TENSOR, .access = MH_OPERAND_WRITTEN, .tensor = whole(o->out)};
    args[2] = (mh_kernel_arg){.kind = MH_ARG_VALUE, .size = sizeof(value)};
    memcpy(args[2].value, &value, sizeof(value));
}

static mh_op_kernel launch_of(mh_kernel *kernel, const struct shape *shape, mh_kernel_arg args[3])
{
    return (mh_op_kernel){.base = {sizeof(mh_op_kernel), MH_OP_KERNEL, 0, -1, 0, NULL},
                          .kernel = kernel,
                          .grid = {shape->groups, 1, 1},
                          .block = {shape->lanes, 1, 1},
                          .args = args,
                          .arg_count = 3};
}

mh_status bench_opencl_read(struct bench_opencl *o, double *GBps, const char **best)
{
    *GBps = 0;
    for (size_t i = 0; i < COUNT(reads); i++) {
        mh_kernel_arg args[3];
        set_args(o, o->bytes / reads[i].groups, args);
        mh_op_kernel op = launch_of(o->read[i], &reads[i], args);
        double seconds;
        mh_status status = bench_time_op(o->stream, &op.base, &seconds);
        if (status)
            return status;
        double rate = 1e-9 * (double)o->bytes / seconds;
        if (rate > *GBps)
            *GBps = rate, *best = reads[i].what;
    }
    return MH_OK;
}

/* Seconds that all groups take once. They are so many times in one launch, as rows of its grid,
 * that the launch itself takes nothing beside them. */
static mh_status time_rows(struct bench_opencl *o, mh_op_kernel *op, double *seconds)
{
    for (;; op->grid[1] *= 4) {
        double begin = now_seconds();
        mh_status status = mh_encode(mh_stream_encoder(o->stream), &op->base);
        if (!status)
            status = mh_stream_wait(o->stream, MH_FOREVER);
        double passed = now_seconds() - begin;
        *seconds = passed / op->grid[1];
        if (status || passed > 0.02)
            return status;
    }
}

mh_status bench_opencl_fma(struct bench_opencl *o, double *GFLOPS, const char **best)
{
    *GFLOPS = 0;
    for (size_t i = 0; i < COUNT(fmas); i++) {
        const struct shape *f = &fmas[i];
        mh_kernel_arg args[3];
        set_args(o, f->steps, args);
        mh_op_kernel op = launch_of(o->fma[i], f, args);
        double seconds;
        mh_status status = time_rows(o, &op, &seconds);
        if (status)
            return status;
        double rate = 1e-9 * f->flop * (double)(f->groups * f->lanes * f->steps) / seconds;
        if (rate > *GFLOPS)
            *GFLOPS = rate, *best = f->what;
    }
    return MH_OK;
}
