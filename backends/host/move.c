/* move.c: copy, cast, fill: any strides, rank 1 to 4. */
#include "kernels.h"
#include "numerics.h"

/* Both tensors as rank 4: missing dimensions lead, with size 1. */
struct walk {
    const mh_tensor *y, *x; /* x NULL: fill */
    int64_t shape[MH_MAX_RANK], to[MH_MAX_RANK], from[MH_MAX_RANK];
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

static void move_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct walk *w = context;
    char *to = (char *)mh_view_buffer(w->y->buffer)->host + w->y->offset;
    const char *from =
        w->x ? (const char *)mh_view_buffer(w->x->buffer)->host + w->x->offset : NULL;
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        int64_t i = row / w->shape[1], j = row % w->shape[1];
        for (int64_t k = 0; k < w->shape[2]; k++)
            for (int64_t l = 0; l < w->shape[3]; l++)
                move_one(w, to + i * w->to[0] + j * w->to[1] + k * w->to[2] + l * w->to[3],
                         from ? from + i * w->from[0] + j * w->from[1] + k * w->from[2] +
                                    l * w->from[3]
                              : NULL);
    }
}

static void run_walk(const struct host_run *run, const mh_tensor *y, const mh_tensor *x,
                     uint32_t bits)
{
    struct walk w = {.y = y, .x = x, .shape = {1, 1, 1, 1}, .bits = bits};
    uint32_t lead = MH_MAX_RANK - y->rank;
    for (uint32_t i = 0; i < y->rank && lead + i < MH_MAX_RANK; i++) {
        w.shape[lead + i] = y->shape[i];
        w.to[lead + i] = y->stride[i];
        w.from[lead + i] = x ? x->stride[i] : 0;
    }
    if (w.shape[0] && w.shape[1])
        spread(run, w.shape[0] * w.shape[1], w.shape[2] * w.shape[3], move_rows, &w);
}

void K(copy)(const struct host_run *run, const mh_op *op)
{
    const mh_op_copy *o = (const void *)op;
    run_walk(run, &o->y, &o->x, 0);
}

void K(cast)(const struct host_run *run, const mh_op *op)
{
    const mh_op_cast *o = (const void *)op;
    run_walk(run, &o->y, &o->x, 0);
}

void K(fill)(const struct host_run *run, const mh_op *op)
{
    const mh_op_fill *o = (const void *)op;
    run_walk(run, &o->y, NULL, o->bits);
}
