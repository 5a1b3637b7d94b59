/* ops_rows.c: ops of kernels/rows.cl. */
#include "ops.h"

#define ROW_BLOCK 1024 /* as in rows.cl */

ENCODE(add)
{
    const mh_op_add *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_add, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->a);
    arg_tensor(&l, &o->b);
    arg_long(&l, o->y.shape[1]);
    return launch_end(&l, blocks(o->y.shape[1], ROW_BLOCK), o->y.shape[0], 1);
}

ENCODE(swiglu)
{
    const mh_op_swiglu *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_swiglu, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->gate);
    arg_tensor(&l, &o->up);
    arg_long(&l, o->y.shape[1]);
    return launch_end(&l, blocks(o->y.shape[1], ROW_BLOCK), o->y.shape[0], 1);
}

ENCODE(rmsnorm)
{
    const mh_op_rmsnorm *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_rmsnorm, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->x);
    arg_tensor(&l, &o->w);
    arg_tensor(&l, o->residual.rank ? &o->residual : &o->x);
    arg_optional(&l, &o->sum, &o->y);
    arg_long(&l, o->y.shape[1]);
    arg_float(&l, 1.0f / (float)o->y.shape[1]);
    arg_float(&l, o->eps);
    return launch_end(&l, o->y.shape[0], 1, 1);
}

ENCODE(combine)
{
    const mh_op_combine *o = (const void *)op;
    struct launch l = launch_begin(run, KERNEL_combine, 0);
    arg_tensor(&l, &o->y);
    arg_tensor(&l, &o->h);
    arg_tensor(&l, &o->e);
    arg_tensor(&l, &o->weights);
    arg_optional(&l, &o->shared, &o->h);
    arg_optional(&l, &o->experts, &o->fault);
    arg_optional(&l, &o->expert_map, &o->fault);
    arg_fault(&l, &o->fault);
    arg_long(&l, o->y.shape[1]);
    arg_long(&l, o->e.shape[1]);
    arg_long(&l, o->expert_count);
    arg_long(&l, o->resident_count ? o->resident_count : INT32_MAX);
    return launch_end(&l, blocks(o->y.shape[1], ROW_BLOCK), o->y.shape[0], 1);
}
