/*
 * bench_opencl.cl: reading memory and multiplying as fast as an OpenCL device can, to have limits that the
 * engine's own kernels are held against. Reading: a group has `bytes` of memory and leaves a digest.
 * FMA: a group makes `steps` steps. In some a group is one work-item with wide vectors, in others 64.
 * Further rows of the grid make them once more.
 */
#pragma OPENCL FP_CONTRACT OFF

/* ---- reading ---- */

uint fold(uint16 v)
{
    uint8 a = v.lo ^ v.hi;
    uint4 b = a.lo ^ a.hi;
    return b.x ^ b.y ^ b.z ^ b.w;
}

#define READ global const uint *memory, global uint *digest, const ulong bytes
#define MINE ((global const uint16 *)(memory + get_group_id(0) * (bytes / 4)))

#define STREAMS(name, count)                                                                       \
    kernel void name(READ)                                                                         \
    {                                                                                              \
        uint16 sum[count];                                                                         \
        ulong part = bytes / 64 / count;                                                           \
        for (int s = 0; s < count; s++)                                                            \
            sum[s] = 0;                                                                            \
        for (ulong i = 0; i < part; i++)                                                           \
            _Pragma("unroll") for (int s = 0; s < count; s++) sum[s] ^= MINE[s * part + i];        \
        for (int s = 1; s < count; s++)                                                            \
            sum[0] ^= sum[s];                                                                      \
        digest[get_group_id(0)] = fold(sum[0]);                                                    \
    }

STREAMS(read_one, 1)
STREAMS(read_four, 4)
STREAMS(read_eight, 8)

/* Four lines a step, and the memory two kilobytes ahead is asked for. */
kernel void read_ahead(READ)
{
    uint16 a = 0, b = 0, c = 0, d = 0;
    for (ulong i = 0; i + 4 <= bytes / 64; i += 4) {
        prefetch((global const uint *)(MINE + min(i + 32, bytes / 64 - 4)), 64);
        a ^= MINE[i], b ^= MINE[i + 1], c ^= MINE[i + 2], d ^= MINE[i + 3];
    }
    digest[get_group_id(0)] = fold(a ^ b ^ c ^ d);
}

/* 64 work-items side by side, each with eight loads under way. */
kernel __attribute__((reqd_work_group_size(64, 1, 1))) void read_lanes(READ)
{
    uint4 sum = 0;
    global const uint4 *from = (global const uint4 *)MINE;
    for (ulong i = get_local_id(0); i < bytes / 16; i += 64 * 8)
        _Pragma("unroll") for (int s = 0; s < 8; s++) sum ^= from[i + 64 * s];
    digest[get_global_id(0)] = sum.x ^ sum.y ^ sum.z ^ sum.w;
}

/* ---- multiplying ---- */

#define FMA global const float *memory, global float *sums, const ulong steps

/* `count` sums none of which waits for another; `unrolled` steps a turn of the loop, which itself
 * is to take nothing. Work-items begin with sums of their own: what all have alike, a compiler may
 * make once for several. */
#define CHAINS(name, type, count, unrolled)                                                        \
    kernel void name(FMA)                                                                          \
    {                                                                                              \
        type sum[count], x = memory[0], y = memory[1];                                             \
        _Pragma("unroll") for (int i = 0; i < count; i++) sum[i] = memory[get_local_id(0) + i];    \
        for (ulong step = 0; step < steps; step += unrolled)                                       \
            _Pragma("unroll") for (int n = 0; n < unrolled; n++)                                   \
                _Pragma("unroll") for (int i = 0; i < count; i++) sum[i] = fma(x, y, sum[i]);      \
        for (int i = 1; i < count; i++)                                                            \
            sum[0] += sum[i];                                                                      \
        sums[get_global_id(0)] = FIRST_##type(sum[0]);                                             \
    }

#define FIRST_float16(v) ((v).s0)
#define FIRST_float(v) (v)
CHAINS(fma_wide, float16, 12, 1)
CHAINS(fma_wider, float16, 24, 1)
CHAINS(fma_lanes, float, 16, 8)

/* The inner loop of a matrix product: 8 rows times 3 columns of 16, operands from the cache. */
kernel void fma_tile(FMA)
{
    float16 sum[24];
    _Pragma("unroll") for (int i = 0; i < 24; i++) sum[i] = 0;
    for (ulong step = 0; step < steps; step++) {
        global const float *w = memory + step % 16 * 48, *x = memory + 1024 + step % 16 * 8;
        float16 w0 = vload16(0, w), w1 = vload16(1, w), w2 = vload16(2, w);
        _Pragma("unroll") for (int r = 0; r < 8; r++)
        {
            float16 one = x[r];
            sum[3 * r] = fma(one, w0, sum[3 * r]);
            sum[3 * r + 1] = fma(one, w1, sum[3 * r + 1]);
            sum[3 * r + 2] = fma(one, w2, sum[3 * r + 2]);
        }
    }
    for (int i = 1; i < 24; i++)
        sum[0] += sum[i];
    sums[get_global_id(0)] = sum[0].s0;
}
