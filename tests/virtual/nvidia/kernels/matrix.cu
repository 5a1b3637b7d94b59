// Matrix products on the tensor cores and attention, as hand-written kernels do it.
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

extern "C" __global__ void gemm_tiled(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ float ta[16][16], tb[16][17];
    int row = blockIdx.y * 16 + threadIdx.y, col = blockIdx.x * 16 + threadIdx.x;
    float sum = 0;
    for (int k0 = 0; k0 < k; k0 += 16) {
        ta[threadIdx.y][threadIdx.x] = row < m && k0 + threadIdx.x < k ? a[row * k + k0 + threadIdx.x] : 0;
        tb[threadIdx.y][threadIdx.x] = col < n && k0 + threadIdx.y < k ? b[(k0 + threadIdx.y) * n + col] : 0;
        __syncthreads();
        for (int i = 0; i < 16; i++)
            sum += ta[threadIdx.y][i] * tb[i][threadIdx.x];
        __syncthreads();
    }
    if (row < m && col < n)
        c[row * n + col] = sum;
}

static __device__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ void copy_async(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from));
}

// C[m][n] = A[m][k] B[n][k]^T, bf16 with f32 sums; a warp makes 16 x 32, a block of 4 warps 32 x 64.
// Two stages of cp.async, ldmatrix, mma.m16n8k16.
extern "C" __global__ void gemm_mma(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int m, int n, int k)
{
    __shared__ __align__(16) __nv_bfloat16 sa[2][32][40], sb[2][64][40];
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    int row0 = blockIdx.y * 32, col0 = blockIdx.x * 64, wr = warp / 2 * 16, wc = warp % 2 * 32;
    float acc[4][4] = {};
    auto load = [&](int stage, int k0) {
        for (int i = t; i < 32 * 4; i += 128)
            copy_async(&sa[stage][i / 4][i % 4 * 8], a + (size_t)(row0 + i / 4) * k + k0 + i % 4 * 8);
        for (int i = t; i < 64 * 4; i += 128)
            copy_async(&sb[stage][i / 4][i % 4 * 8], b + (size_t)(col0 + i / 4) * k + k0 + i % 4 * 8);
        asm volatile("cp.async.commit_group;");
    };
    load(0, 0);
    for (int k0 = 0, stage = 0; k0 < k; k0 += 32, stage ^= 1) {
        if (k0 + 32 < k) {
            load(stage ^ 1, k0 + 32);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        __syncthreads();
        for (int kk = 0; kk < 32; kk += 16) {
            uint32_t ra[4], rb[4][2];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3])
                         : "r"(shared_address(&sa[stage][wr + lane % 16][kk + lane / 16 * 8])));
            for (int j = 0; j < 4; j++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                             : "=r"(rb[j][0]), "=r"(rb[j][1])
                             : "r"(shared_address(&sb[stage][wc + 8 * j + lane % 8][kk + lane / 8 % 2 * 8])));
            for (int j = 0; j < 4; j++)
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                             "{%8,%9}, {%0,%1,%2,%3};"
                             : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3])
                             : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[j][0]), "r"(rb[j][1]));
        }
        __syncthreads();
    }
    int g = lane / 4, q = lane % 4;
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 4; i++)
            c[(size_t)(row0 + wr + g + i / 2 * 8) * n + col0 + wc + 8 * j + 2 * q + i % 2] = acc[j][i];
    (void)m;
}

// The same by the wmma interface, f16.
extern "C" __global__ void gemm_wmma(const __half *a, const __half *b, float *c, int n, int k)
{
    using namespace nvcuda;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> fc;
    wmma::fill_fragment(fc, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 16) {
        wmma::load_matrix_sync(fa, a + (size_t)blockIdx.y * 16 * k + k0, k);
        wmma::load_matrix_sync(fb, b + (size_t)blockIdx.x * 16 * k + k0, k);
        wmma::mma_sync(fc, fa, fb, fc);
    }
    wmma::store_matrix_sync(c + (size_t)blockIdx.y * 16 * n + blockIdx.x * 16, fc, n, wmma::mem_row_major);
}

// int8 product by mma, one tile 16 x 8 x 32 a warp.
extern "C" __global__ void tile_s8(const signed char *a, const signed char *b, int *c)
{
    int lane = threadIdx.x, g = lane / 4, q = lane % 4;
    const int *pa = (const int *)a, *pb = (const int *)b;
    int a0 = pa[g * 8 + q], a1 = pa[(g + 8) * 8 + q], a2 = pa[g * 8 + q + 4], a3 = pa[(g + 8) * 8 + q + 4];
    int b0 = pb[g * 8 + q], b1 = pb[g * 8 + q + 4], d[4];
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%10,%10,%10,%10};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(0));
    for (int i = 0; i < 4; i++)
        c[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = d[i];
}

// Softmax attention of one query row a warp, online, head size 64.
extern "C" __global__ void attention(const float *q, const float *k, const float *v, float *out, int tokens, float scale)
{
    int lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    float q0 = q[row * 64 + lane] * scale, q1 = q[row * 64 + 32 + lane] * scale;
    float most = -INFINITY, sum = 0, o0 = 0, o1 = 0;
    for (int j = 0; j <= row && j < tokens; j++) {
        float s = q0 * k[j * 64 + lane] + q1 * k[j * 64 + 32 + lane];
        for (int offset = 16; offset; offset /= 2)
            s += __shfl_xor_sync(~0u, s, offset);
        float next = fmaxf(most, s), keep = __expf(most - next), p = __expf(s - next);
        sum = sum * keep + p;
        o0 = o0 * keep + p * v[j * 64 + lane];
        o1 = o1 * keep + p * v[j * 64 + 32 + lane];
        most = next;
    }
    out[row * 64 + lane] = o0 / sum;
    out[row * 64 + 32 + lane] = o1 / sum;
}

extern "C" __global__ void half_math(const __half2 *x, const __half2 *y, __half2 *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = __hfma2(x[i], y[i], __hadd2(x[i], __float2half2_rn(0.5f)));
}
