/* matrix.hip: one product by each kind of matrix instruction; one wave a tile, row-major A[M][K],
 * B[K][N], C[M][N]. Where elements lie in registers: AMD's matrix instruction calculator. */
#include "device.h"

typedef short short4v __attribute__((ext_vector_type(4)));
typedef half half4v __attribute__((ext_vector_type(4)));
typedef float float2v __attribute__((ext_vector_type(2)));
typedef float float16v __attribute__((ext_vector_type(16)));
typedef int int16v __attribute__((ext_vector_type(16)));
typedef double double4v __attribute__((ext_vector_type(4)));

/* 16 x 16: element r of lane l is row 4 (l / 16) + r, column l % 16. */
template <class V, class T> DEVICE inline void store16(T *c, V sum, int n)
{
    for (u32 r = 0; r < 4; r++)
        c[(16 * __builtin_amdgcn_workgroup_id_y() + 4 * (lane() / 16) + r) * (u32)n +
          16 * block_x() + lane() % 16] = sum[r];
}

/* 32 x 32: element r of lane l is row 8 (r / 4) + 4 (l / 32) + r % 4, column l % 32. */
template <class V, class T> DEVICE inline void store32(T *c, V sum, int n)
{
    for (u32 r = 0; r < 16; r++)
        c[(32 * __builtin_amdgcn_workgroup_id_y() + 8 * (r / 4) + 4 * (lane() / 32) + r % 4) * (u32)n +
          32 * block_x() + lane() % 32] = sum[r];
}

/* Element k of a lane's part of A and B: `each` in a row, then the next group of lanes. */
#define A(size, each, j) a[(size * __builtin_amdgcn_workgroup_id_y() + lane() % size) * (u32)n + (u32)k + each * (lane() / size) + (j)]
#define B(size, each, j) b[((u32)k + each * (lane() / size) + (j)) * (u32)n + size * block_x() + lane() % size]

KERNEL mfma_f32(float *c, const float *a, const float *b, int n)
{
    float4 sum = 0;
    for (int k = 0; k < n; k += 4)
        sum = __builtin_amdgcn_mfma_f32_16x16x4f32(A(16, 1, 0), B(16, 1, 0), sum, 0, 0, 0);
    store16(c, sum, n);
}

KERNEL mfma_xf32(float *c, const float *a, const float *b, int n)
{
    float4 sum = 0;
    for (int k = 0; k < n; k += 8) {
        float2v x = {A(16, 2, 0), A(16, 2, 1)}, y = {B(16, 2, 0), B(16, 2, 1)};
        sum = __builtin_amdgcn_mfma_f32_16x16x8_xf32(x, y, sum, 0, 0, 0);
    }
    store16(c, sum, n);
}

KERNEL mfma_bf16(float *c, const short *a, const short *b, int n)
{
    float4 sum = 0;
    for (int k = 0; k < n; k += 16) {
        short4v x, y;
        for (u32 j = 0; j < 4; j++) {
            x[j] = A(16, 4, j);
            y[j] = B(16, 4, j);
        }
        sum = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(x, y, sum, 0, 0, 0);
    }
    store16(c, sum, n);
}

KERNEL mfma_f16(float *c, const half *a, const half *b, int n)
{
    float16v sum = 0;
    for (int k = 0; k < n; k += 8) {
        half4v x, y;
        for (u32 j = 0; j < 4; j++) {
            x[j] = A(32, 4, j);
            y[j] = B(32, 4, j);
        }
        sum = __builtin_amdgcn_mfma_f32_32x32x8f16(x, y, sum, 0, 0, 0);
    }
    store32(c, sum, n);
}

KERNEL mfma_i8(int *c, const signed char *a, const signed char *b, int n)
{
    int16v sum = 0;
    for (int k = 0; k < n; k += 16) {
        u64 x = 0, y = 0;
        for (u32 j = 0; j < 8; j++) {
            x |= (u64)(u8)A(32, 8, j) << (8 * j);
            y |= (u64)(u8)B(32, 8, j) << (8 * j);
        }
        sum = __builtin_amdgcn_mfma_i32_32x32x16_i8((long)x, (long)y, sum, 0, 0, 0);
    }
    store32(c, sum, n);
}

KERNEL mfma_fp8(float *c, const u8 *a, const u8 *b, int n)
{
    float4 sum = 0;
    for (int k = 0; k < n; k += 32) {
        u64 x = 0, y = 0;
        for (u32 j = 0; j < 8; j++) {
            x |= (u64)A(16, 8, j) << (8 * j);
            y |= (u64)B(16, 8, j) << (8 * j);
        }
        sum = __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8((long)x, (long)y, sum, 0, 0, 0);
    }
    store16(c, sum, n);
}

/* f64: element r of lane l is row 4 r + l / 16, column l % 16. */
KERNEL mfma_f64(double *c, const double *a, const double *b, int n)
{
    double4v sum = 0;
    for (int k = 0; k < n; k += 4)
        sum = __builtin_amdgcn_mfma_f64_16x16x4f64(A(16, 1, 0), B(16, 1, 0), sum, 0, 0, 0);
    for (u32 r = 0; r < 4; r++)
        c[(16 * __builtin_amdgcn_workgroup_id_y() + 4 * r + lane() / 16) * (u32)n + 16 * block_x() +
          lane() % 16] = sum[r];
}

/* The sixteen small products at once: block i of A is a column of four, of B a row. */
KERNEL mfma_4x4(float *c, const float *a, const float *b)
{
    float4 sum = 0;
    sum = __builtin_amdgcn_mfma_f32_4x4x1f32(a[lane()], b[lane()], sum, 0, 0, 0);
    for (u32 r = 0; r < 4; r++)
        c[r * 64 + lane()] = sum[r];
}
