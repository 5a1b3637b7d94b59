/* ops.h: the functions that put an op's kernels into a queue, by family. */
#ifndef OPENCL_OPS_H
#define OPENCL_OPS_H

#include "launch.h"

typedef mh_status (*encode_fn)(const struct run *run, const mh_op *op);

/* ops_rows.c */
mh_status encode_add(const struct run *run, const mh_op *op);
mh_status encode_swiglu(const struct run *run, const mh_op *op);
mh_status encode_rmsnorm(const struct run *run, const mh_op *op);
mh_status encode_combine(const struct run *run, const mh_op *op);

/* The format of an op's weights, 0 if it has none. */
mh_format opencl_format(const mh_op *op);

#endif
