/*
 * move.cl: copy, cast, fill: any strides, rank 4 (missing dimensions lead, with size 1). Views here are
 * in bytes: offset apart, four strides. Groups: blocks of MOVE_BLOCK elements.
 */
#define MOVE_BLOCK 1024

#define F32 1
#define F16 2
#define BF16 3

/* Byte offset of element i. */
long place_of(long i, long4 shape, long4 stride)
{
    long w = i % shape.s3, rest = i / shape.s3;
    long z = rest % shape.s2;
    rest /= shape.s2;
    return rest / shape.s1 * stride.s0 + rest % shape.s1 * stride.s1 + z * stride.s2 + w * stride.s3;
}

ushort to_f16(float value)
{
    uint bits = as_uint(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
    if (rest > 0x7F800000)
        return 0x7E00;
    if (rest >= 0x477FF000) /* 65520 and above round to Inf */
        return (ushort)(sign | 0x7C00);
    if (rest < 0x38800000) { /* below 2^-14: the sum's last place is 2^-24 */
        float shifted = as_float(rest) + 0.5f;
        return (ushort)(sign | (as_uint(shifted) - 0x3F000000));
    }
    rest += 0xFFF + (rest >> 13 & 1);
    return (ushort)(sign | (rest - 0x38000000) >> 13);
}

KERNEL void copy(global uchar *y, const long y_at, const long4 y_stride, global const uchar *x,
                 const long x_at, const long4 x_stride, const long4 shape, const long count,
                 const int size)
{
    long begin = (long)get_group_id(0) * MOVE_BLOCK, end = min(begin + MOVE_BLOCK, count);
    for (long i = begin + LANE; i < end; i += LANES) {
        global uchar *to = y + y_at + place_of(i, shape, y_stride);
        global const uchar *from = x + x_at + place_of(i, shape, x_stride);
        if (size == 4)
            *(global uint *)to = *(global const uint *)from;
        else
            *(global ushort *)to = *(global const ushort *)from;
    }
}

KERNEL void cast(global uchar *y, const long y_at, const long4 y_stride, global const uchar *x,
                 const long x_at, const long4 x_stride, const long4 shape, const long count,
                 const int to_type, const int from_type)
{
    long begin = (long)get_group_id(0) * MOVE_BLOCK, end = min(begin + MOVE_BLOCK, count);
    for (long i = begin + LANE; i < end; i += LANES) {
        global uchar *to = y + y_at + place_of(i, shape, y_stride);
        global const uchar *from = x + x_at + place_of(i, shape, x_stride);
        if (to_type == from_type) {
            if (to_type == F32)
                *(global uint *)to = *(global const uint *)from;
            else
                *(global ushort *)to = *(global const ushort *)from;
            continue;
        }
        float value = from_type == F32    ? *(global const float *)from
                      : from_type == BF16 ? from_bf16(*(global const ushort *)from)
                                          : from_f16(*(global const ushort *)from);
        if (to_type == F32)
            *(global float *)to = value;
        else
            *(global ushort *)to = to_type == BF16 ? to_bf16(value) : to_f16(value);
    }
}

KERNEL void fill(global uchar *y, const long y_at, const long4 y_stride, const long4 shape,
                 const long count, const int bits, const int size)
{
    long begin = (long)get_group_id(0) * MOVE_BLOCK, end = min(begin + MOVE_BLOCK, count);
    for (long i = begin + LANE; i < end; i += LANES) {
        global uchar *to = y + y_at + place_of(i, shape, y_stride);
        if (size == 4)
            *(global uint *)to = (uint)bits;
        else
            *(global ushort *)to = (ushort)bits;
    }
}
