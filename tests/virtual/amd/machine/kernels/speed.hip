// Kernels of the benchmark: streaming fma, a tiled GEMM without and with matrix operations. Compiled at -O3:
//   clang-19 -x hip --offload-arch=gfx942 --cuda-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -O3
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(256, 256))) void
#define LDS __attribute__((shared)) static
#define TID __builtin_amdgcn_workitem_id_x()
#define GROUP __builtin_amdgcn_workgroup_id_x()
#define SYNC()                                                                                     \
    do {                                                                                           \
        __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");                                     \
        __builtin_amdgcn_s_barrier();                                                              \
        __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");                                     \
    } while (0)
typedef float f4 __attribute__((ext_vector_type(4)));
typedef float f16v __attribute__((ext_vector_type(16)));
typedef short s4 __attribute__((ext_vector_type(4)));

// y = a * x + y, eight times over
KERNEL stream(float *__restrict y, const float *__restrict x, float a, int n)
{
    for (int i = GROUP * 256 + TID; i < n; i += 4096) {
        float v = y[i], u = x[i];
#pragma unroll
        for (int k = 0; k < 8; k++)
            v = __builtin_fmaf(a, u, v);
        y[i] = v;
    }
}

// C[n, n] = A[n, n] * B[n, n]: 32 x 32 of C a workgroup, by f32
KERNEL gemm(float *c, const float *a, const float *b, int n)
{
    LDS float as[32][33], bs[32][33];
    int tiles = n / 32, row = GROUP / tiles * 32, col = GROUP % tiles * 32, x = TID % 32, y = TID / 32;
    float sum[4] = {0, 0, 0, 0};
    for (int k = 0; k < n; k += 32) {
        for (int r = y; r < 32; r += 8) {
            as[r][x] = a[(row + r) * n + k + x];
            bs[r][x] = b[(k + r) * n + col + x];
        }
        SYNC();
#pragma unroll 8
        for (int q = 0; q < 32; q++)
            for (int s = 0; s < 4; s++)
                sum[s] += as[y + 8 * s][q] * bs[q][x];
        SYNC();
    }
    for (int s = 0; s < 4; s++)
        c[(row + y + 8 * s) * n + col + x] = sum[s];
}

// C[n, n] f32 = A[n, n] * B[n, n]^T, both bf16: 64 x 64 of C a workgroup, a 32 x 32 tile each wave
KERNEL gemm_bf16(float *c, const unsigned short *a, const unsigned short *b, int n)
{
    int tiles = n / 64, wave = TID / 64, lane = TID % 64;
    int row = GROUP / tiles * 64 + wave / 2 * 32, col = GROUP % tiles * 64 + wave % 2 * 32;
    f16v sum = {0};
    const unsigned short *pa = a + (row + lane % 32) * n + lane / 32 * 4;
    const unsigned short *pb = b + (col + lane % 32) * n + lane / 32 * 4;
    for (int k = 0; k < n; k += 8)
        sum = __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(*(const s4 *)(pa + k), *(const s4 *)(pb + k), sum, 0, 0, 0);
    for (int r = 0; r < 16; r++)
        c[(row + r / 4 * 8 + lane / 32 * 4 + r % 4) * n + col + lane % 32] = sum[r];
}
