/*
 * bench_ops.c: how fast a device's own ops read and multiply: a linear layer of one row, and a
 * copy, for its memory; a linear layer of many rows for its arithmetic. Where a backend has better
 * kernels for its limits than these, this is the place to use them.
 */
#include <stdlib.h>

#include "bench.h"

#define ROWS 256

struct bench_ops {
    mh_stream *stream;
    mh_weight *weight; /* bf16 [out, in] */
    mh_buffer *memory; /* x, then y, of ROWS rows */
    mh_buffer *halves; /* what copy moves */
    int64_t out, in;
};

static mh_status create_weight(struct bench_ops *o, mh_device *device)
{
    mh_weight_params params = MH_INIT(mh_weight_params);
    params.format = MH_FORMAT_BF16, params.experts = 1, params.out = o->out, params.in = o->in;
    params.label = "bench";
    return mh_weight_create(device, &params, &o->weight);
}

static mh_status write_weight(struct bench_ops *o)
{
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.expert_count = 1, piece.row_count = o->out;
    uint16_t *values = malloc((size_t)(o->out * o->in) * 2);
    if (!values)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a weight");
    for (int64_t i = 0; i < o->out * o->in; i++)
        values[i] = (uint16_t)(0x3F00 + i % 64);
    piece.plane[0] = values;
    mh_status status = mh_weight_write(o->weight, &piece);
    if (!status)
        status = mh_weight_seal(o->weight);
    free(values);
    return status;
}

static mh_status fill(struct bench_ops *o, mh_buffer *buffer)
{
    mh_op_fill op = MH_OP_INIT(fill, FILL);
    const int64_t shape[] = {(int64_t)mh_buffer_size(buffer) / 4};
    op.y = mh_tensor_make(buffer, 0, MH_F32, 1, shape);
    op.bits = 0x3F800000;
    return mh_encode(mh_stream_encoder(o->stream), &op.base);
}

static mh_op_linear linear(struct bench_ops *o, int64_t rows)
{
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    const int64_t x[] = {rows, o->in}, y[] = {rows, o->out};
    op.x = mh_tensor_make(o->memory, 0, MH_F32, 2, x);
    op.y = mh_tensor_make(o->memory, (uint64_t)(ROWS * o->in * 4), MH_F32, 2, y);
    op.w = o->weight;
    op.base.label = "bench";
    return op;
}

/* A device without kernels of its own has no limits to speak of: the host's would be measured. */
static mh_status check_native(struct bench_ops *o, mh_device *device)
{
    mh_support answer = MH_INIT(mh_support);
    mh_op_linear op = linear(o, 1);
    mh_status status = mh_device_supports(device, &op.base, &answer);
    if (!status && answer.runs != MH_RUNS_NATIVE)
        status = MH_UNSUPPORTED;
    return status;
}

mh_status bench_ops_open(mh_device *device, struct bench_ops **out)
{
    struct bench_ops *o = calloc(1, sizeof(*o));
    mh_device_info info = MH_INIT(mh_device_info);
    *out = o;
    if (!o)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for limits");
    mh_status status = mh_device_get_info(device, &info);
    /* Software is slow: its figures are counts, not times. */
    bool small = info.flags & MH_DEVICE_IS_VIRTUAL;
    o->out = small ? 256 : 16384, o->in = small ? 256 : 8192;
    if (!status)
        status = mh_stream_create(device, &o->stream);
    if (!status)
        status = create_weight(o, device);
    if (!status)
        status = check_native(o, device);
    if (!status)
        status = write_weight(o);
    if (!status)
        status = mh_buffer_create(device, (uint64_t)(ROWS * (o->in + o->out) * 4), 0, &o->memory);
    if (!status)
        status = mh_buffer_create(device, (uint64_t)(o->out * o->in * 4), 0, &o->halves);
    if (!status)
        status = fill(o, o->memory);
    if (!status)
        status = fill(o, o->halves);
    return status ? status : mh_stream_wait(o->stream, MH_FOREVER);
}

void bench_ops_close(struct bench_ops *o)
{
    if (!o)
        return;
    mh_weight_release(o->weight);
    mh_buffer_release(o->memory);
    mh_buffer_release(o->halves);
    mh_stream_release(o->stream);
    free(o);
}

mh_status bench_time_op(mh_stream *stream, const mh_op *op, double *seconds)
{
    mh_status status = MH_OK;
    for (int64_t count = 1;; count *= 4) {
        double begin = now_seconds();
        for (int64_t i = 0; !status && i < count; i++)
            status = mh_encode(mh_stream_encoder(stream), op);
        if (!status)
            status = mh_stream_wait(stream, MH_FOREVER);
        double passed = now_seconds() - begin;
        *seconds = passed / (double)count;
        if (status || passed > 0.02)
            return status;
    }
}

mh_status bench_ops_read(struct bench_ops *o, double *GBps, const char **best)
{
    const int64_t shape[] = {o->out * o->in / 2};
    uint64_t half = (uint64_t)(o->out * o->in) * 2;
    mh_op_linear read = linear(o, 1);
    mh_op_copy copy = MH_OP_INIT(copy, COPY);
    copy.x = mh_tensor_make(o->halves, 0, MH_F32, 1, shape);
    copy.y = mh_tensor_make(o->halves, half, MH_F32, 1, shape);
    double reading, copying;
    mh_status status = bench_time_op(o->stream, &read.base, &reading);
    if (!status)
        status = bench_time_op(o->stream, &copy.base, &copying);
    if (status)
        return status;
    double read_rate = 1e-9 * (double)half / reading, copy_rate = 2e-9 * (double)half / copying;
    *best = read_rate > copy_rate ? "linear of one row" : "copy, both ways";
    *GBps = read_rate > copy_rate ? read_rate : copy_rate;
    return MH_OK;
}

mh_status bench_ops_fma(struct bench_ops *o, double *GFLOPS, const char **best)
{
    *GFLOPS = 0;
    for (int64_t rows = ROWS; rows >= ROWS / 4; rows /= 4) {
        mh_op_linear op = linear(o, rows);
        double seconds;
        mh_status status = bench_time_op(o->stream, &op.base, &seconds);
        if (status)
            return status;
        double rate = 2e-9 * (double)(rows * o->in * o->out) / seconds;
        if (rate > *GFLOPS)
            *GFLOPS = rate, *best = rows == ROWS ? "linear of 256 rows" : "linear of 64 rows";
    }
    return MH_OK;
}
