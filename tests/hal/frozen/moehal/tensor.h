/*
 * tensor.h: a view of device memory, by value. Activations, indices and caches are tensors;
 * weights are mh_weight (weight.h).
 */
#ifndef MOEHAL_TENSOR_H
#define MOEHAL_TENSOR_H

#include <moehal/base.h>

MH_BEGIN_DECLS

typedef uint32_t mh_dtype;
enum {
#define MH_DTYPE(value, NAME, name, bytes) MH_##NAME = value,
#include <moehal/dtypes.def>
#undef MH_DTYPE
};

typedef struct mh_buffer mh_buffer;

#define MH_MAX_RANK 4

/* Frozen layout. Element (i0, i1, ...) lies at offset + i0 * stride[0] + i1 * stride[1] + ... bytes
 * of the buffer; strides are not negative and the last dimension is dense unless an op says
 * otherwise. `buffer` is borrowed; the encoder keeps what it needs alive. A tensor of rank 0 is
 * "absent", the value of an optional operand. */
typedef struct mh_tensor {
    mh_buffer *buffer;
    uint64_t offset;
    mh_dtype dtype;
    uint32_t rank;
    int64_t shape[MH_MAX_RANK];
    int64_t stride[MH_MAX_RANK]; /* bytes */
    uint64_t reserved[2];        /* zero */
} mh_tensor;

/* A dense row-major tensor at byte `offset` of `buffer`; `shape` has `rank` dimensions. */
MH_API mh_tensor mh_tensor_make(mh_buffer *buffer, uint64_t offset, mh_dtype dtype, uint32_t rank,
                                const int64_t *shape);

/* `length` indices of dimension `dim` from `begin`: the same memory, a narrower view. */
MH_API mh_tensor mh_tensor_slice(mh_tensor tensor, uint32_t dim, int64_t begin, int64_t length);

/* Bytes of an element; 0 for an unknown dtype. */
MH_API uint64_t mh_dtype_size(mh_dtype dtype);
/* "f32"; "?" for an unknown dtype. */
MH_API const char *mh_dtype_name(mh_dtype dtype);

MH_END_DECLS

#endif
