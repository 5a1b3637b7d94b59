// Kernels of the benchmark: streaming fma, a tiled GEMM without and with matrix operations, attention. Compiled
// at -O3:
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

// softmax(q k^T / 8) v: a workgroup a head, a wave a query (4 at a time), heads of 64 values; keys and values of
// 64 tokens at a time in LDS. In the first half of a round a lane has a token, in the second a value of the result.
KERNEL attention(float *out, const float *q, const float *k, const float *v, int queries, int context)
{
    LDS float keys[64][65], values[64][64], weights[4][64];
    int wave = TID / 64, lane = TID % 64, head = GROUP;
    q += head * queries * 64, out += head * queries * 64, k += head * context * 64, v += head * context * 64;
    for (int first = 0; first < queries; first += 4) {
        const float *mine = q + (first + wave) * 64;
        float most = -__builtin_inff(), sum = 0, result = 0;
        for (int t = 0; t < context; t += 64) {
            for (int r = wave; r < 64; r += 4) {
                keys[r][lane] = k[(t + r) * 64 + lane];
                values[r][lane] = v[(t + r) * 64 + lane];
            }
            SYNC();
            float score = 0;
#pragma unroll 16
            for (int c = 0; c < 64; c++)
                score = __builtin_fmaf(mine[c], keys[lane][c], score);
            score *= 0.125f * 1.44269504f;
            float now = score;
            for (int step = 32; step; step /= 2) {
                int other = __builtin_amdgcn_ds_bpermute((lane ^ step) * 4, __builtin_bit_cast(int, now));
                now = __builtin_fmaxf(now, __builtin_bit_cast(float, other));
            }
            now = __builtin_fmaxf(now, most);
            float keep = __builtin_amdgcn_exp2f(most - now);
            weights[wave][lane] = __builtin_amdgcn_exp2f(score - now);
            sum *= keep, result *= keep, most = now;
            SYNC();
#pragma unroll 16
            for (int c = 0; c < 64; c++) {
                sum += weights[wave][c];
                result = __builtin_fmaf(weights[wave][c], values[c][lane], result);
            }
            SYNC();
        }
        out[(first + wave) * 64 + lane] = result / sum;
    }
}
