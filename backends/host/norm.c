/* norm.c: rmsnorm (rule 6), swiglu (rule 5), add. */
#include "kernels.h"
#include "numerics.h"

void K(norm_row)(float *y, const float *x, const float *w, int64_t size, float eps)
{
    float inverse = 1.0f / (float)size;
    float sum = dot(x, x, size);
    float mean = sum * inverse;
    float r = rcp(sqrtf(mean + eps));
    for (int64_t i = 0; i < size; i++) {
        float scaled = x[i] * r;
        y[i] = scaled * w[i];
    }
}

static void norm_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_rmsnorm *o = context;
    int64_t size = o->y.shape[1];
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = row1(&o->x, t);
        if (o->residual.rank) {
            const float *residual = row1(&o->residual, t);
            float *sum = row1(&o->sum, t);
            for (int64_t i = 0; i < size; i++)
                sum[i] = x[i] + residual[i];
            x = sum;
        }
        K(norm_row)(row1(&o->y, t), x, row1(&o->w, 0), size, o->eps);
    }
}

void K(rmsnorm)(const struct host_run *run, const mh_op *op)
{
    const mh_op_rmsnorm *o = (const void *)op;
    spread(run, o->y.shape[0], 3 * o->y.shape[1], norm_rows, o);
}

static void swiglu_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_swiglu *o = context;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *gate = row1(&o->gate, t), *up = row1(&o->up, t);
        float *y = row1(&o->y, t);
        K(swiglu_row)(y, gate, up, o->y.shape[1]);
    }
}

void K(swiglu)(const struct host_run *run, const mh_op *op)
{
    const mh_op_swiglu *o = (const void *)op;
    spread(run, o->y.shape[0], 30 * o->y.shape[1], swiglu_rows, o);
}

static void add_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_add *o = context;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *a = row1(&o->a, t), *b = row1(&o->b, t);
        float *y = row1(&o->y, t);
        for (int64_t i = 0; i < o->y.shape[1]; i++)
            y[i] = a[i] + b[i];
    }
}

void K(add)(const struct host_run *run, const mh_op *op)
{
    const mh_op_add *o = (const void *)op;
    spread(run, o->y.shape[0], o->y.shape[1], add_rows, o);
}
