/* basic.hip: kernels whose results test_kernels.c computes on the host too. */
#include "device.h"

/* ---- reductions and scans ---- */

KERNEL reduce_lds(float *out, const float *in, int n)
{
    SHARED float sum[256];
    float mine = 0;
    for (int i = (int)index_x(); i < n; i += 4 * 256)
        mine += in[i];
    sum[lane_x()] = mine;
    barrier();
    for (u32 half = 128; half; half /= 2) {
        if (lane_x() < half)
            sum[lane_x()] += sum[lane_x() + half];
        barrier();
    }
    if (!lane_x())
        out[block_x()] = sum[0];
}

KERNEL reduce_shuffle(float *out, const float *in)
{
    float value = in[index_x()];
    for (u32 step = 32; step; step /= 2)
        value += shuffle(value, lane() ^ step);
    if (!lane())
        out[index_x() / 64] = value;
}

/* By DPP: rows of 16, then the rows. */
KERNEL reduce_dpp(int *out, const int *in)
{
    int v = in[index_x()];
    v += __builtin_amdgcn_update_dpp(0, v, 0x111, 15, 15, true); /* row_shr:1 */
    v += __builtin_amdgcn_update_dpp(0, v, 0x112, 15, 15, true); /* row_shr:2 */
    v += __builtin_amdgcn_update_dpp(0, v, 0x114, 15, 14, true); /* row_shr:4 */
    v += __builtin_amdgcn_update_dpp(0, v, 0x118, 15, 12, true); /* row_shr:8 */
    v += __builtin_amdgcn_update_dpp(0, v, 0x142, 10, 15, false); /* row_bcast:15 */
    v += __builtin_amdgcn_update_dpp(0, v, 0x143, 12, 15, false); /* row_bcast:31 */
    if (lane() == 63)
        out[index_x() / 64] = v;
}

KERNEL scan_block(int *out, const int *in)
{
    SHARED int data[2][256];
    u32 t = lane_x(), side = 0;
    data[0][t] = in[index_x()];
    barrier();
    for (u32 step = 1; step < 256; step *= 2) {
        data[side ^ 1][t] = data[side][t] + (t >= step ? data[side][t - step] : 0);
        side ^= 1;
        barrier();
    }
    out[index_x()] = data[side][t];
}

/* ---- sort, top-k, histogram ---- */

KERNEL sort_bitonic(u32 *keys)
{
    SHARED u32 data[512];
    u32 t = lane_x();
    for (u32 i = t; i < 512; i += 256)
        data[i] = keys[block_x() * 512 + i];
    barrier();
    for (u32 k = 2; k <= 512; k *= 2)
        for (u32 j = k / 2; j; j /= 2) {
            u32 i = 2 * t - (t & (j - 1)), other = i + j;
            bool up = !(i & k);
            if ((data[i] > data[other]) == up) {
                u32 swap = data[i];
                data[i] = data[other];
                data[other] = swap;
            }
            barrier();
        }
    for (u32 i = t; i < 512; i += 256)
        keys[block_x() * 512 + i] = data[i];
}

/* The k largest of a row of n <= 256, one wave a row, ties to the lower index. */
KERNEL top_k(int *index, float *value, const float *in, int n, int k)
{
    const float *row = in + block_x() * (u32)n;
    float best[4];
    for (int i = 0; i < 4; i++) {
        int at = (int)lane() + 64 * i;
        best[i] = at < n ? row[at] : -__builtin_inff();
    }
    for (int found = 0; found < k; found++) {
        float v = -__builtin_inff();
        int at = 1 << 30;
        for (int i = 0; i < 4; i++)
            if (best[i] > v) {
                v = best[i];
                at = (int)lane() + 64 * i;
            }
        for (u32 step = 32; step; step /= 2) {
            float other = shuffle(v, lane() ^ step);
            int other_at = shuffle(at, lane() ^ step);
            if (other > v || (other == v && other_at < at)) {
                v = other;
                at = other_at;
            }
        }
        for (int i = 0; i < 4; i++)
            if (at == (int)lane() + 64 * i)
                best[i] = -__builtin_inff();
        if (!lane()) {
            index[block_x() * (u32)k + (u32)found] = at;
            value[block_x() * (u32)k + (u32)found] = v;
        }
    }
}

KERNEL histogram(u32 *bins, const u8 *in, int n)
{
    SHARED u32 local[64];
    if (lane_x() < 64)
        local[lane_x()] = 0;
    barrier();
    for (int i = (int)index_x(); i < n; i += 1024)
        __hip_atomic_fetch_add(&local[in[i] & 63], 1u, __ATOMIC_RELAXED,
                               __HIP_MEMORY_SCOPE_WORKGROUP);
    barrier();
    if (lane_x() < 64)
        atomic_add(&bins[lane_x()], local[lane_x()]);
}

/* ---- matrices and attention ---- */

KERNEL gemm_valu(float *c, const float *a, const float *b, int n)
{
    SHARED float left[16][17], right[16][17];
    u32 x = lane_x() % 16, y = lane_x() / 16;
    u32 row = __builtin_amdgcn_workgroup_id_y() * 16 + y, column = block_x() * 16 + x;
    float sum = 0;
    for (int k = 0; k < n; k += 16) {
        left[y][x] = a[row * (u32)n + (u32)k + x];
        right[y][x] = b[((u32)k + y) * (u32)n + column];
        barrier();
        for (int i = 0; i < 16; i++)
            sum = __builtin_fmaf(left[y][i], right[i][x], sum);
        barrier();
    }
    c[row * (u32)n + column] = sum;
}

/* softmax(q k) v of one query a workgroup of one wave: 64 values a head, `context` tokens. */
KERNEL attention(float *out, const float *q, const float *k, const float *v, int context)
{
    u32 head = block_x();
    float mine = q[head * 64 + lane()], most = -__builtin_inff(), sum = 0, result = 0;
    for (int t = 0; t < context; t++) {
        float score = mine * k[((u32)t * 4 + head) * 64 + lane()];
        for (u32 step = 32; step; step /= 2)
            score += shuffle(score, lane() ^ step);
        score *= 0.125f * 1.44269504f;
        float now = __builtin_fmaxf(most, score);
        float keep = __builtin_amdgcn_exp2f(most - now), weight = __builtin_amdgcn_exp2f(score - now);
        sum = sum * keep + weight;
        result = result * keep + weight * v[((u32)t * 4 + head) * 64 + lane()];
        most = now;
    }
    out[head * 64 + lane()] = result / sum;
}

/* ---- atomics ---- */

KERNEL atomics(u32 *words, u64 *wide, float *sums, double *doubles)
{
    u32 i = index_x();
    atomic_add(&words[0], 1u);
    __hip_atomic_fetch_min((int *)&words[1], (int)(500 - i), __ATOMIC_RELAXED,
                           __HIP_MEMORY_SCOPE_AGENT);
    __hip_atomic_fetch_max(&words[2], i * 7 % 1000, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    __hip_atomic_fetch_and(&words[3], ~(1u << (i & 15)), __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    __hip_atomic_fetch_or(&words[4], 1u << (i & 31), __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    __hip_atomic_fetch_xor(&words[5], i, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    atomic_add(&wide[0], (u64)i << 20);
    atomic_add(&sums[0], 0.5f);
    atomic_add(&doubles[0], 0.25);
    /* each number is taken once: exchanges go round */
    u32 expected = words[6], wanted;
    do
        wanted = expected + i;
    while (!__hip_atomic_compare_exchange_strong(&words[6], &expected, wanted, __ATOMIC_RELAXED,
                                                 __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT));
    if (__hip_atomic_exchange(&words[7], i + 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT) == 0)
        atomic_add(&words[8], 1u);
}

/* A lock that the workgroups take in turn. */
KERNEL locked(int *lock, int *value)
{
    if (lane_x())
        return;
    for (int i = 0; i < 4; i++) {
        int expected = 0;
        while (!__hip_atomic_compare_exchange_strong(lock, &expected, 1, __ATOMIC_ACQUIRE,
                                                     __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT))
            expected = 0;
        *value = *value * 3 + 1;
        __hip_atomic_store(lock, 0, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_AGENT);
    }
}

/* ---- LDS ---- */

KERNEL reverse_dynamic(int *data)
{
    extern SHARED int tile[];
    tile[lane_x()] = data[index_x()];
    barrier();
    data[index_x()] = tile[size_x() - 1 - lane_x()];
}

KERNEL swizzle(int *out, const int *in)
{
    int v = in[index_x()];
    out[index_x()] = __builtin_amdgcn_ds_swizzle(v, 0x041f) /* xor 1 */ +
                     1000 * __builtin_amdgcn_mov_dpp(v, 0x1b, 15, 15, true) /* quad_perm 3,2,1,0 */;
}

/* From global memory to LDS without a register between. (clang 19's builtin for it crashes at -O3.) */
KERNEL stage_direct(int *out, const int *in)
{
    SHARED int tile[64];
    u32 at = (u32)(u64)(__attribute__((address_space(3))) int *)tile;
    __asm__ volatile("v_readfirstlane_b32 s40, %1\n\ts_mov_b32 m0, s40\n\ts_nop 0\n\t"
                     "global_load_lds_dword %0, off\n\ts_waitcnt vmcnt(0)"
                     :
                     : "v"(in + index_x()), "v"(at)
                     : "memory", "s40");
    barrier();
    out[index_x()] = tile[63 - lane_x()];
}

/* ---- numbers ---- */

KERNEL integers(i64 *out, const i64 *a, const i64 *b)
{
    u32 i = index_x();
    i64 x = a[i], y = b[i], d = y ? y : 1;
    i64 *o = out + i * 10;
    o[0] = x * y;
    o[1] = x / d;
    o[2] = x % d;
    o[3] = (i64)((u64)x >> (y & 63));
    o[4] = x >> (y & 63);
    o[5] = __builtin_clzll((u64)x | 1) * 100 + __builtin_popcountll((u64)x);
    o[6] = (int)x / (int)(d ? (int)d ? (int)d : 1 : 1);
    o[7] = (i64)((u64)(u32)x * (u32)y >> 32);
    o[8] = x < y ? x : y;
    o[9] = (i64)__builtin_bitreverse32((u32)x) + (i64)(u32)__builtin_bswap32((u32)y);
}

KERNEL floats(float *out, const float *a, const float *b)
{
    u32 i = index_x();
    float x = a[i], y = b[i];
    float *o = out + i * 10;
    o[0] = x + y;
    o[1] = x * y;
    o[2] = x / y;
    o[3] = __builtin_fmaf(x, y, 1.0f);
    o[4] = __builtin_sqrtf(__builtin_fabsf(x));
    o[5] = __builtin_floorf(x) + __builtin_truncf(y);
    o[6] = __builtin_rintf(x);
    o[7] = (float)(int)x + (float)(u32)__builtin_fabsf(y);
    o[8] = __builtin_fminf(x, y) - __builtin_fmaxf(x, y);
    o[9] = (float)((half)x * (half)y);
}

KERNEL doubles(double *out, const double *a, const double *b)
{
    u32 i = index_x();
    double x = a[i], y = b[i];
    double *o = out + i * 5;
    o[0] = x + y;
    o[1] = x / y;
    o[2] = __builtin_fma(x, y, 1.0);
    o[3] = __builtin_sqrt(__builtin_fabs(x));
    o[4] = (double)(float)x + (double)(i64)y;
}

/* FP8 as gfx942 has it (FNUZ), there and back. */
KERNEL fp8(float *out, const float *in)
{
    u32 i = index_x();
    int packed = __builtin_amdgcn_cvt_pk_fp8_f32(in[i], in[i] * 0.5f, 0, false);
    packed = __builtin_amdgcn_cvt_pk_bf8_f32(in[i], -in[i], packed, true);
    out[4 * i] = __builtin_amdgcn_cvt_f32_fp8(packed, 0);
    out[4 * i + 1] = __builtin_amdgcn_cvt_f32_fp8(packed, 1);
    out[4 * i + 2] = __builtin_amdgcn_cvt_f32_bf8(packed, 2);
    out[4 * i + 3] = __builtin_amdgcn_cvt_f32_bf8(packed, 3);
}

/* ---- control flow, calls, scratch ---- */

DEVICE NOINLINE int collatz(u32 n)
{
    int steps = 0;
    while (n > 1) {
        n = n & 1 ? 3 * n + 1 : n / 2;
        steps++;
    }
    return steps;
}

DEVICE NOINLINE u32 fibonacci(u32 n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

KERNEL calls(int *out)
{
    u32 i = index_x();
    out[i] = collatz(i + 1) + 1000 * (int)fibonacci(i % 8);
}

KERNEL switches(int *out, const int *in)
{
    int v = in[index_x()], r = 0;
    for (int i = 0; i < v % 7 + 3; i++) {
        switch ((v + i) % 6) {
        case 0: r += 3; break;
        case 1: r *= 2; break;
        case 2: r -= v; continue;
        case 3: r ^= 0x55; break;
        case 4: if (r > 1000) goto out; r += i; break;
        default: r = -r; break;
        }
        if (r & 64)
            r++;
    }
out:
    out[index_x()] = r;
}

/* A local array with an index that is only known at run time. */
KERNEL scratch(int *out, const int *in)
{
    int local[32];
    u32 i = index_x();
    for (int k = 0; k < 32; k++)
        local[k] = in[(i + (u32)k) % 256];
    for (int k = 0; k < 32; k++) {
        int a = local[(local[k] + k) & 31];
        local[k & 15] += a;
    }
    int sum = 0;
    for (int k = 0; k < 32; k++)
        sum = sum * 31 + local[k];
    out[i] = sum;
}

/* ---- arguments, variables, the shape of the grid ---- */

struct box {
    char a;
    double b;
    short c[3];
    int *d;
};

KERNEL arguments(double *out, struct box box, char x, i64 y, half z)
{
    if (index_x())
        return;
    out[0] = box.a;
    out[1] = box.b;
    out[2] = box.c[0] + 10 * box.c[1] + 100 * box.c[2];
    out[3] = *box.d;
    out[4] = x;
    out[5] = (double)y;
    out[6] = (double)(float)z;
}

DEVICE int variable = 42;
DEVICE int array[8];
CONSTANT int coefficients[4] = {2, 3, 5, 7};
DEVICE int *chain = &array[3];

KERNEL variables(int *out)
{
    u32 i = lane_x();
    array[i] = coefficients[i & 3] * variable;
    barrier();
    if (!i) {
        *out = *chain;
        variable++;
    }
}

struct shape {
    u32 id, size, groups, grid;
};

KERNEL shape(u32 *out, u32 width, u32 height)
{
    u32 x = block_x() * size_x() + lane_x();
    u32 y = __builtin_amdgcn_workgroup_id_y() * __builtin_amdgcn_workgroup_size_y() +
            __builtin_amdgcn_workitem_id_y();
    u32 z = __builtin_amdgcn_workgroup_id_z() * __builtin_amdgcn_workgroup_size_z() +
            __builtin_amdgcn_workitem_id_z();
    out[(z * height + y) * width + x] = x + 100 * y + 10000 * z + 1000000 * size_x();
}

KERNEL copy4(float4 *out, const float4 *in, int n)
{
    for (int i = (int)index_x(); i < n; i += 256)
        out[i] = in[i] * 2.0f;
}

KERNEL trap_if(const int *in)
{
    if (in[index_x()] < 0)
        __builtin_trap();
}

KERNEL endless(int *flag)
{
    while (!__hip_atomic_load(flag, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM))
        __builtin_amdgcn_s_sleep(1);
}
