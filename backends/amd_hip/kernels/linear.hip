/*
 * linear.hip: linear and linear_add.
 *
 * y[t, o] = [residual +] dot(x[t], w[o]), numerics rules 1 and 2: lane j of a wave of 64 is stripe j.
 * A kernel for each weight format and for 1 and 8 tokens a wave.
 * Launch: grid (rows / 4, tokens / TOKENS), block 256: a row of weights a wave, read once, in order,
 * 64 elements a step (128 bytes of bf16). No LDS. Compiled with -ffp-contract=off.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

#define DEVICE __attribute__((device)) static inline

struct arguments { /* as amd.h's struct linear_arguments; strides and rows in bytes */
    char *y;
    const char *x, *residual, *w, *scales;
    i64 y_stride, x_stride, residual_stride, w_stride, scales_stride;
    i64 tokens, rows, columns;
};

DEVICE u32 lane()
{
    return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0));
}

enum { F32 = 1, F16 = 2, BF16 = 3, FP8 = 4 };

/* e4m3: the bits as an f32 that is 2^120 too small; 0x7F and 0xFF are NaN. */
DEVICE float from_fp8(u32 q)
{
    u32 bits = (q & 0x80) << 24 | (q & 0x7f) << 20;
    float value = __builtin_bit_cast(float, bits) * 0x1p120f;
    return (q & 0x7f) == 0x7f ? __builtin_nanf("") : value;
}

template <int FORMAT> DEVICE float weight(const arguments &a, const char *row, const float *scales, i64 k)
{
    if (FORMAT == F32)
        return ((const float *)row)[k];
    if (FORMAT == F16)
        return (float)((const _Float16 *)row)[k];
    if (FORMAT == BF16)
        return __builtin_bit_cast(float, (u32)((const u16 *)row)[k] << 16);
    return from_fp8(((const u8 *)row)[k]) * scales[k / 128];
}

/* Rule 2's fold: a[j] + a[j + h]; what lanes from h on get is never used. */
DEVICE float fold(float sum)
{
    for (u32 h = 32; h; h /= 2) {
        int other = __builtin_amdgcn_ds_bpermute((int)((lane() + h) * 4), __builtin_bit_cast(int, sum));
        sum = sum + __builtin_bit_cast(float, other);
    }
    return sum + 0.0f;
}

template <int FORMAT, int TOKENS> DEVICE void linear(const arguments &a)
{
    i64 row = (i64)__builtin_amdgcn_workgroup_id_x() * 4 + __builtin_amdgcn_workitem_id_x() / 64;
    i64 first = (i64)__builtin_amdgcn_workgroup_id_y() * TOKENS;
    if (row >= a.rows)
        return;
    const char *w = a.w + row * a.w_stride;
    const float *scales = (const float *)(a.scales + row / 128 * a.scales_stride);
    const float *x[TOKENS];
    float sum[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        i64 token = first + t < a.tokens ? first + t : a.tokens - 1;
        x[t] = (const float *)(a.x + token * a.x_stride);
        sum[t] = 0;
    }
    for (i64 k = lane(); k < a.columns; k += 64) {
        float value = weight<FORMAT>(a, w, scales, k);
        for (int t = 0; t < TOKENS; t++)
            sum[t] = __builtin_fmaf(x[t][k], value, sum[t]);
    }
    for (int t = 0; t < TOKENS; t++)
        sum[t] = fold(sum[t]);
    if (lane())
        return;
    for (int t = 0; t < TOKENS && first + t < a.tokens; t++) {
        float value = sum[t];
        if (a.residual)
            value = ((const float *)(a.residual + (first + t) * a.residual_stride))[row] + value;
        ((float *)(a.y + (first + t) * a.y_stride))[row] = value;
    }
}

#define KERNEL(name, format, tokens)                                                               \
    extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, 256))) void   \
    name(arguments a)                                                                              \
    {                                                                                              \
        linear<format, tokens>(a);                                                                 \
    }

KERNEL(linear_f32_1, F32, 1)
KERNEL(linear_f32_8, F32, 8)
KERNEL(linear_f16_1, F16, 1)
KERNEL(linear_f16_8, F16, 8)
KERNEL(linear_bf16_1, BF16, 1)
KERNEL(linear_bf16_8, BF16, 8)
KERNEL(linear_fp8_1, FP8, 1)
KERNEL(linear_fp8_8, FP8, 8)
