/*
 * move.hip: copy, cast and fill: any strides, four dimensions. Launch: grid (elements / 1024),
 * block 256.
 */
#include "move.h"

#include "common.hiph"

DEVICE u16 to_f16(float value)
{
    return value != value ? 0x7E00 : __builtin_bit_cast(u16, (_Float16)value);
}

KERNEL(256) move(move_arguments a)
{
    i64 count = a.size[0] * a.size[1] * a.size[2] * a.size[3];
    i64 begin = group_x() * 1024, end = begin + 1024 < count ? begin + 1024 : count;
    for (i64 i = begin + thread(); i < end; i += 256) {
        i64 rest = i, to = 0, from = 0;
#pragma unroll
        for (int d = 3; d >= 0; d--) {
            i64 above = rest / a.size[d], at = rest - above * a.size[d];
            to += at * a.y_stride[d];
            from += at * a.x_stride[d];
            rest = above;
        }
        u32 bits = a.bits;
        if (!a.fill)
            bits = a.from == F32 ? *(const u32 *)(a.x + from) : *(const u16 *)(a.x + from);
        if (a.from != a.to) {
            float value = a.from == F32   ? bits_to_float(bits)
                          : a.from == F16 ? from_f16(bits)
                                          : from_bf16(bits);
            bits = a.to == F32   ? float_to_bits(value)
                   : a.to == F16 ? to_f16(value)
                                 : to_bf16(value);
        }
        if (a.to == F32)
            *(u32 *)(a.y + to) = bits;
        else
            *(u16 *)(a.y + to) = (u16)bits;
    }
}
