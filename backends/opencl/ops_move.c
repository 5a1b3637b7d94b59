/* ops_move.c: ops of kernels/move.cl. */
#include "ops.h"

#define MOVE_BLOCK 1024 /* as in move.cl */

static int64_t count_of(const mh_tensor *t)
{
    int64_t count = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        count *= t->shape[i];
    return count;
}

/* Buffer, offset and strides in bytes, as rank 4: missing dimensions lead. */
static void arg_bytes(struct launch *l, const mh_tensor *t)
{
    int64_t stride[4] = {0};
    for (uint32_t i = 0; i < t->rank; i++)
        stride[4 - t->rank + i] = t->stride[i];
    arg_buffer(l, t->buffer);
    arg_long(l, (int64_t)t->offset);
    arg_long4(l, stride[0], stride[1], stride[2], stride[3]);
}

static void arg_shape(struct launch *l, const mh_tensor *t)
{
    int64_t shape[4] = {1, 1, 1, 1};
    for (uint32_t i = 0; i < t->rank; i++)
        shape[4 - t->rank + i] = t->shape[i];
    arg_long4(l, shape[0], shape[1], shape[2], shape[3]);
    arg_long(l, count_of(t));
}

ENCODE(copy)
{
    const mh_op_copy *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_copy, 0);
    arg_bytes(&l, &o->y);
    arg_bytes(&l, &o->x);
    arg_shape(&l, &o->y);
    arg_int(&l, (int32_t)bytes_of(o->y.dtype));
    return launch_end(&l, blocks(count_of(&o->y), MOVE_BLOCK), 1, 1);
}

ENCODE(cast)
{
    const mh_op_cast *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_cast, 0);
    arg_bytes(&l, &o->y);
    arg_bytes(&l, &o->x);
    arg_shape(&l, &o->y);
    arg_int(&l, (int32_t)o->y.dtype);
    arg_int(&l, (int32_t)o->x.dtype);
    return launch_end(&l, blocks(count_of(&o->y), MOVE_BLOCK), 1, 1);
}

ENCODE(fill)
{
    const mh_op_fill *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_fill, 0);
    arg_bytes(&l, &o->y);
    arg_shape(&l, &o->y);
    arg_int(&l, (int32_t)o->bits);
    arg_int(&l, (int32_t)bytes_of(o->y.dtype));
    return launch_end(&l, blocks(count_of(&o->y), MOVE_BLOCK), 1, 1);
}
