// Tiled SGEMM as one writes it first: 64 x 64 tiles, 16 deep, 4 x 4 results a thread.
extern "C" __global__ void __launch_bounds__(256) gemm(const float *__restrict__ a, const float *__restrict__ b,
                                                       float *__restrict__ c, int n)
{
    __shared__ float as[16][64 + 4], bs[16][64];
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16, row = blockIdx.y * 64, col = blockIdx.x * 64;
    float sum[4][4] = {};
    for (int k = 0; k < n; k += 16) {
        for (int i = threadIdx.x; i < 1024; i += 256) {
            as[i % 16][i / 16] = a[(row + i / 16) * n + k + i % 16];
            bs[i / 64][i % 64] = b[(k + i / 64) * n + col + i % 64];
        }
        __syncthreads();
#pragma unroll
        for (int p = 0; p < 16; p++) {
            float x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i] = as[p][ty * 4 + i];
                y[i] = bs[p][tx * 4 + i];
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            c[(row + ty * 4 + i) * n + col + tx * 4 + j] = sum[i][j];
}

// One query a warp, keys and values of 64 elements, softmax in one pass.
extern "C" __global__ void __launch_bounds__(128) attention(const float *__restrict__ q, const float *__restrict__ k,
                                                            const float *__restrict__ v, float *__restrict__ o, int n)
{
    int lane = threadIdx.x % 32, row = blockIdx.x * 4 + threadIdx.x / 32;
    float2 qr = ((const float2 *)q)[row * 32 + lane], acc = {0, 0};
    float top = -1e30f, sum = 0;
    for (int i = 0; i < n; i++) {
        float2 kr = ((const float2 *)k)[i * 32 + lane];
        float s = qr.x * kr.x + qr.y * kr.y;
        for (int m = 16; m; m >>= 1)
            s += __shfl_xor_sync(0xffffffff, s, m);
        s *= 0.125f;
        float next = fmaxf(top, s), scale = __expf(top - next), w = __expf(s - next);
        float2 vr = ((const float2 *)v)[i * 32 + lane];
        acc.x = acc.x * scale + w * vr.x;
        acc.y = acc.y * scale + w * vr.y;
        sum = sum * scale + w;
        top = next;
    }
    acc.x /= sum;
    acc.y /= sum;
    ((float2 *)o)[row * 32 + lane] = acc;
}
