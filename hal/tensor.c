#include <moehal/tensor.h>

#include <string.h>

uint64_t mh_dtype_size(mh_dtype dtype)
{
    switch (dtype) {
#define MH_DTYPE(value, NAME, name, bytes)                                                         \
    case value:                                                                                    \
        return bytes;
#include <moehal/dtypes.def>
#undef MH_DTYPE
    default:
        return 0;
    }
}

const char *mh_dtype_name(mh_dtype dtype)
{
    switch (dtype) {
#define MH_DTYPE(value, NAME, name, bytes)                                                         \
    case value:                                                                                    \
        return name;
#include <moehal/dtypes.def>
#undef MH_DTYPE
    default:
        return "?";
    }
}

mh_tensor mh_tensor_make(mh_buffer *buffer, uint64_t offset, mh_dtype dtype, uint32_t rank,
                         const int64_t *shape)
{
    mh_tensor tensor = {.buffer = buffer, .offset = offset, .dtype = dtype, .rank = rank};
    uint64_t stride = mh_dtype_size(dtype);
    for (uint32_t i = rank; i-- > 0 && rank <= MH_MAX_RANK;) {
        tensor.shape[i] = shape[i];
        tensor.stride[i] = (int64_t)stride;
        stride *= (uint64_t)shape[i]; /* wraps for absurd shapes; mh_encode refuses those */
    }
    return tensor;
}

mh_tensor mh_tensor_slice(mh_tensor tensor, uint32_t dim, int64_t begin, int64_t length)
{
    if (dim < MH_MAX_RANK) {
        tensor.offset += (uint64_t)(begin * tensor.stride[dim]);
        tensor.shape[dim] = length;
    }
    return tensor;
}
