// Kernels whose results test_kernels.c computes on the host. Compiled at -O0 and -O3, stripped:
//   clang-19 -x hip --offload-arch=gfx942 --cuda-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -O3 -s
typedef unsigned u32;
typedef unsigned long long u64;
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(256, 256))) void
#define INDEX (__builtin_amdgcn_workgroup_id_x() * 256 + __builtin_amdgcn_workitem_id_x())
#define SYNC()                                                                                     \
    do {                                                                                           \
        __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");                                     \
        __builtin_amdgcn_s_barrier();                                                              \
        __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");                                     \
    } while (0)

KERNEL axpy(float *y, const float *x, float a, int n)
{
    int i = INDEX;
    if (i < n)
        y[i] = a * x[i] + y[i];
}

KERNEL reduce(float *out, const float *x, int n)
{
    __attribute__((shared)) static float s[256];
    int t = __builtin_amdgcn_workitem_id_x();
    float v = 0;
    for (int i = INDEX; i < n; i += 1024)
        v += x[i];
    s[t] = v;
    SYNC();
    for (int k = 128; k; k >>= 1) {
        if (t < k)
            s[t] += s[t + k];
        SYNC();
    }
    if (!t)
        out[__builtin_amdgcn_workgroup_id_x()] = s[0];
}

KERNEL divide(float *q, double *dq, const float *a, const float *b, int n)
{
    int i = INDEX;
    if (i < n) {
        q[i] = a[i] / b[i];
        dq[i] = (double)a[i] / (double)b[i];
    }
}

KERNEL integers(u64 *o, const u32 *a, const u32 *b, int n)
{
    int i = INDEX;
    if (i >= n)
        return;
    u32 x = a[i], y = b[i] | 1;
    u64 w = ((u64)x << 32) | y;
    u64 r = x / y + x % y + (u64)((int)x / (int)y) + (w / (x | 1)) * 3 + w % (y | 7) +
            __builtin_popcount(x) + __builtin_clz(y) + (w >> (y & 63)) + ((long long)w >> (x & 63));
    r ^= (u64)x * y;
    r += (long long)(int)x * (int)y;
    r ^= __builtin_bitreverse32(x);
    for (u32 k = 0; k < (y & 15); k++)
        r = r * 6364136223846793005ull + k;
    o[i] = r;
}

__attribute__((device, noinline)) int fill(int a, int *local)
{
    for (int i = 0; i < 16; i++)
        local[i] = a * i;
    return local[a & 15];
}

KERNEL scratch(int *o, const int *a, int n)
{
    int i = INDEX, buf[16];
    if (i < n)
        o[i] = fill(a[i], buf) + buf[a[i] >> 4 & 15];
}

KERNEL atomics(u32 *o, u64 *p, float *f, const u32 *a, int n)
{
    int i = INDEX;
    if (i >= n)
        return;
    __atomic_fetch_add(&o[a[i] & 15], 1u, __ATOMIC_RELAXED);
    __atomic_fetch_add(&p[a[i] & 7], (u64)a[i], __ATOMIC_RELAXED);
    __atomic_fetch_max(&o[16 + (a[i] & 3)], a[i], __ATOMIC_RELAXED);
    __builtin_amdgcn_global_atomic_fadd_f32((__attribute__((address_space(1))) float *)&f[a[i] & 3], 1.0f);
}
