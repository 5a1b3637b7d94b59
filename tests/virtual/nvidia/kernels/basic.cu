// Reductions, scans, sorts, atomics, locks, top-k, printf: plain CUDA C++ as people write it.
#include <cstdint>
#include <cstdio>
#include <cassert>

extern "C" __global__ void vector_add(const float *a, const float *b, float *c, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        c[i] = a[i] + b[i];
}

extern "C" __global__ void reduce_sum(const int *in, int n, long long *out)
{
    __shared__ long long part[32];
    long long sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += in[i];
    for (int offset = 16; offset; offset >>= 1)
        sum += __shfl_down_sync(~0u, sum, offset);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
        for (int offset = 16; offset; offset >>= 1)
            sum += __shfl_xor_sync(~0u, sum, offset);
        if (threadIdx.x == 0)
            atomicAdd((unsigned long long *)out, (unsigned long long)sum);
    }
}

extern "C" __global__ void reduce_max_tree(const float *in, float *out)
{
    extern __shared__ float tree[];
    unsigned t = threadIdx.x;
    tree[t] = in[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (unsigned s = blockDim.x / 2; s; s >>= 1) {
        if (t < s)
            tree[t] = fmaxf(tree[t], tree[t + s]);
        __syncthreads();
    }
    if (t == 0)
        out[blockIdx.x] = tree[0];
}

// Inclusive scan of a block, Hillis and Steele, two buffers.
extern "C" __global__ void scan_block(const int *in, int *out)
{
    __shared__ int buffer[2][1024];
    int t = threadIdx.x, from = 0;
    buffer[0][t] = in[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (int offset = 1; offset < (int)blockDim.x; offset *= 2) {
        int v = buffer[from][t];
        if (t >= offset)
            v += buffer[from][t - offset];
        buffer[1 - from][t] = v;
        from = 1 - from;
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + t] = buffer[from][t];
}

extern "C" __global__ void bitonic_sort(uint32_t *keys)
{
    extern __shared__ uint32_t k[];
    unsigned t = threadIdx.x, n = blockDim.x;
    k[t] = keys[blockIdx.x * n + t];
    __syncthreads();
    for (unsigned size = 2; size <= n; size *= 2)
        for (unsigned stride = size / 2; stride; stride /= 2) {
            unsigned other = t ^ stride;
            if (other > t) {
                bool up = (t & size) == 0;
                if ((k[t] > k[other]) == up) {
                    uint32_t x = k[t];
                    k[t] = k[other];
                    k[other] = x;
                }
            }
            __syncthreads();
        }
    keys[blockIdx.x * n + t] = k[t];
}

extern "C" __global__ void histogram(const unsigned char *in, int n, unsigned *bins)
{
    __shared__ unsigned local[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
        local[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&local[in[i]], 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
        atomicAdd(&bins[i], local[i]);
}

extern "C" __global__ void atomics(int *a, unsigned *b, unsigned long long *c, float *f, double *d)
{
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&a[0], t);
    atomicSub(&a[1], t);
    atomicMin(&a[2], -t);
    atomicMax(&a[3], t);
    atomicAnd(&b[0], ~(1u << (t % 32)));
    atomicOr(&b[1], 1u << (t % 31));
    atomicXor(&b[2], 1u << (t % 32));
    atomicInc(&b[3], 99u);
    atomicDec(&b[4], 99u);
    atomicMax(&c[0], (unsigned long long)t << 33);
    atomicAdd(&f[0], 0.5f);
    atomicAdd(&d[0], 0.25);
    unsigned long long seen = c[1], assumed;
    do { // a product by compare and swap
        assumed = seen;
        seen = atomicCAS(&c[1], assumed, assumed + 3);
    } while (seen != assumed);
    atomicExch(&a[4], 77);
}

// A spin lock taken by one lane at a time of every warp: needs lanes that can progress apart.
extern "C" __global__ void spin_lock(int *lock, volatile int *counter, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        bool done = false;
        while (!done) {
            if (atomicCAS(lock, 0, 1) == 0) {
                __threadfence();
                *counter = *counter + 1;
                __threadfence();
                atomicExch(lock, 0);
                done = true;
            }
        }
    }
}

// Blocks in a row: each waits for the one before it.
extern "C" __global__ void chained_blocks(volatile int *flags, int *order)
{
    if (threadIdx.x == 0) {
        if (blockIdx.x)
            while (!flags[blockIdx.x - 1])
                ;
        __threadfence();
        order[blockIdx.x] = blockIdx.x ? order[blockIdx.x - 1] + 2 : 1;
        __threadfence();
        flags[blockIdx.x] = 1;
    }
}

// The k largest of a row by repeated maximum, ties to the lower index.
extern "C" __global__ void top_k(const float *rows, int n, int k, float *values, int *indices)
{
    __shared__ float best[256];
    __shared__ int where[256];
    extern __shared__ float row[];
    int t = threadIdx.x;
    for (int i = t; i < n; i += blockDim.x)
        row[i] = rows[blockIdx.x * n + i];
    __syncthreads();
    for (int j = 0; j < k; j++) {
        float v = -INFINITY;
        int at = n;
        for (int i = t; i < n; i += blockDim.x)
            if (row[i] > v) {
                v = row[i];
                at = i;
            }
        best[t] = v;
        where[t] = at;
        __syncthreads();
        for (int s = blockDim.x / 2; s; s /= 2) {
            if (t < s && (best[t + s] > best[t] || (best[t + s] == best[t] && where[t + s] < where[t]))) {
                best[t] = best[t + s];
                where[t] = where[t + s];
            }
            __syncthreads();
        }
        if (t == 0) {
            values[blockIdx.x * k + j] = best[0];
            indices[blockIdx.x * k + j] = where[0];
            row[where[0]] = -INFINITY;
        }
        __syncthreads();
    }
}

__constant__ float coefficients[5] = {1, -0.5f, 0.25f, 2, -3};
__device__ int device_counter = 5;

extern "C" __global__ void constants(const float *x, float *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float v = 0;
        for (int j = 0; j < 5; j++)
            v = v * x[i] + coefficients[j];
        y[i] = v;
        atomicAdd(&device_counter, 1);
    }
}

__device__ __noinline__ int fibonacci(int n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

__device__ __noinline__ int op_add(int a, int b) { return a + b; }
__device__ __noinline__ int op_mul(int a, int b) { return a * b; }
__device__ int (*const operations[2])(int, int) = {op_add, op_mul};

// Recursion, calls through a table, an array in local memory, a switch.
extern "C" __global__ void calls(const int *in, int *out)
{
    int t = threadIdx.x, table[8];
    for (int i = 0; i < 8; i++)
        table[i] = in[i] * t;
    int v = fibonacci(t % 11) + operations[t & 1](t, 7) + table[in[t % 8] & 7];
    switch (t % 6) {
    case 0: v += 100; break;
    case 1: v -= 3; break;
    case 2: v *= 5; break;
    case 3: v ^= 0x55; break;
    case 5: v = -v; break;
    }
    out[t] = v;
}

extern "C" __global__ void prints(int n)
{
    if ((int)threadIdx.x < n)
        printf("thread %d of %s: %5.2f %llx %c%%\n", (int)threadIdx.x, "block", threadIdx.x * 0.5,
               0x123456789abcull + threadIdx.x, 'a' + threadIdx.x);
}

extern "C" __global__ void heap(int *out)
{
    int *p = (int *)malloc(sizeof(int) * (threadIdx.x + 1));
    if (!p) {
        out[threadIdx.x] = -1;
        return;
    }
    for (int i = 0; i <= (int)threadIdx.x; i++)
        p[i] = i;
    int sum = 0;
    for (int i = 0; i <= (int)threadIdx.x; i++)
        sum += p[i];
    out[threadIdx.x] = sum;
    free(p);
}

extern "C" __global__ void asserts(int limit)
{
    assert((int)threadIdx.x < limit);
}

extern "C" __global__ void doubles(const double *x, double *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = sqrt(x[i] * x[i] + 1) / (x[i] + 3) + fma(x[i], 2.0, -1.0);
}
