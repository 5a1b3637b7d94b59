/* move.c: copy, cast, fill: any strides, rank 1 to 4. */
#include "kernels.h"
#include "numerics.h"

struct walk {
    const mh_tensor *y, *x; /* x NULL: fill */
    uint32_t bits;
};

static uint64_t size_of(mh_dtype dtype)
{
    return dtype == MH_F16 || dtype == MH_BF16 ? 2 : 4;
}

static float load(const void *from, mh_dtype dtype)
{
    if (dtype == MH_F32)
        return *(const float *)from;
    return dtype == MH_BF16 ? from_bf16(*(const uint16_t *)from)
                            : from_f16(*(const uint16_t *)from);
}

static void store(void *to, mh_dtype dtype, float value)
{
    if (dtype == MH_F32)
        *(float *)to = value;
    else
        *(uint16_t *)to = dtype == MH_BF16 ? to_bf16(value) : to_f16(value);
}

static void move_one(const struct walk *w, char *to, const char *from)
{
    if (!w->x)
        memcpy(to, &w->bits, size_of(w->y->dtype));
    else if (w->x->dtype == w->y->dtype)
        memcpy(to, from, size_of(w->y->dtype));
    else
        store(to, w->y->dtype, load(from, w->x->dtype));
}

static void move(const struct walk *w, uint32_t dim, char *to, const char *from)
{
    if (dim == w->y->rank) {
        move_one(w, to, from);
        return;
    }
    for (int64_t i = 0; i < w->y->shape[dim]; i++)
        move(w, dim + 1, to + i * w->y->stride[dim], w->x ? from + i * w->x->stride[dim] : NULL);
}

static void move_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct walk *w = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        move(w, 1, address(w->y, i), w->x ? address(w->x, i) : NULL);
}

static void run_walk(const struct host_run *run, const struct walk *w)
{
    int64_t inner = 1;
    for (uint32_t i = 1; i < w->y->rank; i++)
        inner *= w->y->shape[i];
    if (w->y->rank == 0)
        move(w, 0, address(w->y, 0), w->x ? address(w->x, 0) : NULL);
    else
        spread(run, w->y->shape[0], inner, move_rows, w);
}

void K(copy)(const struct host_run *run, const mh_op *op)
{
    const mh_op_copy *o = (const void *)op;
    run_walk(run, &(struct walk){&o->y, &o->x, 0});
}

void K(cast)(const struct host_run *run, const mh_op *op)
{
    const mh_op_cast *o = (const void *)op;
    run_walk(run, &(struct walk){&o->y, &o->x, 0});
}

void K(fill)(const struct host_run *run, const mh_op *op)
{
    const mh_op_fill *o = (const void *)op;
    run_walk(run, &(struct walk){&o->y, NULL, o->bits});
}
