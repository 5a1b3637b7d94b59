// Kernels that are wrong, one bug each. A comment "BUG check blocks threads shared-bytes" stands on the line
// that the report must name, or on each of the lines of which it must name one. Arguments: a holds n
// floats, written; b n floats, never written; c n ints, zero; n is 256.
#include <cassert>
#include <cstdint>
#include <cuda_pipeline.h>

#define ARGS float *a, float *b, int *c, int n
#define GLOBAL extern "C" __global__ void
#define TID int t = blockIdx.x * blockDim.x + threadIdx.x

GLOBAL read_past_end(ARGS) { TID;
    c[t % n] = (int)a[t]; // BUG out-of-bounds 2 160 0
}
GLOBAL write_past_end(ARGS) { TID;
    a[t + 1] = 1; // BUG out-of-bounds 1 256 0
}
GLOBAL read_before_start(ARGS) { TID;
    c[t] = (int)a[t - 1]; // BUG out-of-bounds 1 256 0
}
GLOBAL stride_error(ARGS) { TID;
    a[t * 4] = 0; // BUG out-of-bounds 1 128 0
}
GLOBAL unsigned_wrap(ARGS) { TID; unsigned i = (unsigned)t;
    a[i - 200u] = 0; // BUG out-of-bounds 1 256 0
}
GLOBAL null_pointer(ARGS) { float *p = n > 1000 ? a : nullptr;
    p[threadIdx.x] = 0; // BUG out-of-bounds 1 32 0
}
GLOBAL wild_pointer(ARGS) { float *p = (float *)(uintptr_t)(0x123456789000ull + n);
    c[0] = (int)p[threadIdx.x]; // BUG out-of-bounds 1 32 0
}
GLOBAL vector_over_end(ARGS) { TID; float4 *v = (float4 *)a;
    v[t] = make_float4(0, 0, 0, 0); // BUG out-of-bounds 1 65 0
}
GLOBAL atomic_past_end(ARGS) { TID;
    atomicAdd(&c[t + n - 16], 1); // BUG out-of-bounds 1 32 0
}
GLOBAL swapped_indices(ARGS) { int x = threadIdx.x, y = threadIdx.y;
    a[x * 32 + y] = 1; // BUG out-of-bounds 1 32x8 0
}
GLOBAL loop_bound(ARGS) {
    for (int i = threadIdx.x; i <= n; i += blockDim.x)
        a[i] = 2; // BUG out-of-bounds 1 32 0
}
GLOBAL shared_past_end(ARGS) { __shared__ int s[64]; int t = threadIdx.x;
    s[t] = t; // BUG out-of-bounds 1 96 0
    __syncthreads();
    c[t] = s[63 - t % 64];
}
GLOBAL dynamic_too_small(ARGS) { extern __shared__ int d[]; int t = threadIdx.x;
    d[t] = t; // BUG out-of-bounds 1 64 128
    __syncthreads();
    c[t] = d[t];
}
GLOBAL shared_negative(ARGS) { extern __shared__ int d[]; int t = threadIdx.x;
    d[t] = t;
    __syncthreads();
    c[t] = d[t - 16 + (n - 256)]; // BUG out-of-bounds 1 32 128
}
GLOBAL local_past_end(ARGS) { int l[4]; int t = threadIdx.x;
    for (int i = 0; i < 4; i++) l[i] = i + t;
    l[c[t] + n - 252] = 5; // BUG out-of-bounds 1 32 0
    c[t] = l[c[t] & 3];
}
GLOBAL misaligned_vector(ARGS) { float4 *v = (float4 *)(a + 1);
    v[threadIdx.x] = make_float4(1, 1, 1, 1); // BUG misaligned 1 32 0
}
GLOBAL misaligned_double(ARGS) { double *d = (double *)((char *)a + 4);
    d[threadIdx.x] = 1; // BUG misaligned 1 32 0
}
GLOBAL misaligned_shared(ARGS) { __shared__ __align__(16) char s[256]; int t = threadIdx.x;
    *(int *)(s + 4 * t + 2) = t; // BUG misaligned 1 32 0
    c[t] = s[t];
}
GLOBAL misaligned_atomic(ARGS) {
    atomicAdd((int *)((char *)c + 2), 1); // BUG misaligned 1 32 0
}
GLOBAL unwritten_global(ARGS) { TID;
    a[t] = b[t] + 1; // BUG uninitialised 1 256 0
}
GLOBAL unwritten_tail(ARGS) { TID;
    if (t < n - 1) b[t] = 1;
    __syncthreads();
    a[t] = b[t]; // BUG uninitialised 1 256 0
}
GLOBAL unwritten_shared(ARGS) { __shared__ float s[64]; int t = threadIdx.x;
    if (t < 32) s[t] = 1;
    __syncthreads();
    a[t] = s[t]; // BUG uninitialised 1 64 0
}
GLOBAL unwritten_local(ARGS) { float l[8]; int t = threadIdx.x;
    for (int i = 0; i < 7; i++) l[i] = i;
    a[t] = l[(c[t] + t) & 7]; // BUG uninitialised 1 32 0
}
GLOBAL race_no_barrier(ARGS) { __shared__ int s[64]; int t = threadIdx.x;
    s[t] = t; // BUG shared-race 1 64 0
    c[t] = s[63 - t]; // BUG shared-race 1 64 0
}
GLOBAL race_same_word(ARGS) { __shared__ int s; int t = threadIdx.x;
    s = t; // BUG shared-race 1 64 0
    __syncthreads();
    c[t] = s;
}
GLOBAL race_in_reduction(ARGS) { __shared__ float s[128]; int t = threadIdx.x;
    s[t] = a[t];
    __syncthreads();
    for (int k = 64; k; k /= 2)
        if (t < k) s[t] += s[t + k]; // BUG shared-race 1 128 0
    __syncthreads();
    a[t] = s[0];
}
GLOBAL race_loop_reuse(ARGS) { __shared__ float s[64]; int t = threadIdx.x; float sum = 0;
    for (int i = 0; i < 4; i++) {
        s[t] = a[i * 64 + t]; // BUG shared-race 1 64 0
        __syncthreads();
        sum += s[63 - t]; // BUG shared-race 1 64 0
    }
    a[t] = sum;
}
GLOBAL race_bytes(ARGS) { __shared__ unsigned char s[64]; int t = threadIdx.x;
    s[t / 2] = (unsigned char)t; // BUG shared-race 1 64 0
    __syncthreads();
    c[t] = s[t / 2];
}
GLOBAL race_warp_no_sync(ARGS) { __shared__ int s[32]; int t = threadIdx.x;
    s[t] = t; // BUG shared-race 1 32 0
    c[t] = s[(t + 1) % 32]; // BUG shared-race 1 32 0
}
GLOBAL race_init_beside_atomics(ARGS) { __shared__ int s; int t = threadIdx.x;
    if (t == 0)
        s = 0; // BUG shared-race 1 64 0
    if (t % 32 == 0)
        atomicAdd(&s, 1); // BUG shared-race 1 64 0
    __syncthreads();
    c[t] = s;
}
GLOBAL race_reset_beside_atomics(ARGS) { __shared__ int s; int t = threadIdx.x;
    if (t == 0) s = 0;
    __syncthreads();
    if (t % 32 == 0) atomicAdd(&s, 1); // BUG shared-race 1 96 0
    if (t == 64) c[0] = s, s = 0; // BUG shared-race 1 96 0
}
GLOBAL race_count_read_early(ARGS) { __shared__ int s; int t = threadIdx.x;
    if (t == 0) s = 0;
    __syncthreads();
    if (t % 32 == 0) atomicAdd(&s, 1); // BUG shared-race 1 96 0
    if (t == 64) c[t] = s; // BUG shared-race 1 96 0
}
GLOBAL race_lanes_of_a_loop(ARGS) { __shared__ int s[32]; int t = threadIdx.x;
    for (int i = 0; i < 4; i++)
        s[(t + i) % 32] = t; // BUG shared-race 1 32 0
    __syncthreads();
    c[t] = s[t];
}
GLOBAL race_blocks(ARGS) { int t = threadIdx.x;
    c[t] = blockIdx.x; // BUG global-race 2 32 0
}
GLOBAL race_counter(ARGS) {
    if (threadIdx.x == 0)
        c[0] = c[0] + 1; // BUG global-race 4 32 0
}
GLOBAL race_no_fence(ARGS) { volatile int *flag = c + 128;
    if (threadIdx.x == 0 && blockIdx.x == 0) {
        c[0] = 5; // BUG global-race 2 32 0
        *flag = 1;
    }
    if (threadIdx.x == 0 && blockIdx.x == 1) {
        for (int i = 0; i < 1000 && !*flag; i++) ;
        c[1] = c[0]; // BUG global-race 2 32 0
    }
}
GLOBAL async_no_wait(ARGS) { __shared__ __align__(16) float s[128]; int t = threadIdx.x;
    __pipeline_memcpy_async(&s[t * 4], &a[t * 4], 16);
    __pipeline_commit();
    __syncthreads();
    a[t] = s[t * 4]; // BUG async-copy 1 32 0
}
GLOBAL async_wait_one_short(ARGS) { __shared__ __align__(16) float s[256]; int t = threadIdx.x;
    __pipeline_memcpy_async(&s[t * 4], &a[t * 4], 16);
    __pipeline_commit();
    __pipeline_memcpy_async(&s[128 + t * 4], &a[128 + t * 4], 16);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    a[t] = s[128 + t * 4]; // BUG async-copy 1 32 0
}
GLOBAL barrier_in_branch(ARGS) { int t = threadIdx.x;
    if (t & 1)
        __syncthreads(); // BUG barrier 1 32 0
    else
        c[t] = t;
    c[t] += 1;
}
GLOBAL barrier_half_warp(ARGS) { int t = threadIdx.x;
    if (t & 1)
        asm volatile("barrier.sync 1, 64;"); // BUG deadlock 1 64 0
    c[t] = 1;
}
GLOBAL shuffle_absent_lane(ARGS) { int t = threadIdx.x, v = t;
    if (t < 16)
        v = __shfl_sync(0xffffffff, v, 3); // BUG deadlock 1 32 0
    else
        __syncthreads(); // BUG deadlock 1 32 0
    c[t] = v;
}
GLOBAL waits_forever(ARGS) { volatile int *flag = c;
    while (*flag == 0) ; // BUG timeout 1 32 0
    c[1] = 1;
}
GLOBAL failed_assertion(ARGS) { int t = threadIdx.x;
    assert(t < n - 240); // BUG assert 1 32 0
    c[t] = 1;
}
GLOBAL trap(ARGS) { int t = threadIdx.x;
    if (t == 7)
        __trap(); // BUG trap 1 32 0
    c[t] = 1;
}
GLOBAL heap_past_end(ARGS) { int *p = (int *)malloc(64); int t = threadIdx.x;
    p[15 + c[t]] = 1;
    p[16 + c[t]] = 2; // BUG out-of-bounds 1 1 0
    free(p);
}
GLOBAL heap_after_free(ARGS) { int *p = (int *)malloc(64);
    p[0] = n;
    free(p);
    c[0] = *(volatile int *)p; // BUG use-after-free 1 1 0
}
