/* bugs.hip: a bug each. `// BUG check blocks threads lds` marks the line that must be reported, by the
 * word of the check; several marked lines of a kernel: any of them. Compiled at -O1 with line tables,
 * of which make_kernels.py writes bugs.txt: what is to be reported where, by offset in the text. */
#include "device.h"

/* data: 256 ints with i in data[i]; raw: 256 that nobody wrote; gone: freed; zero: 0. */
#define BUG(name) KERNEL name(int *data, int *raw, int *gone, int zero)

/* ---- bounds of global memory ---- */

BUG(read_past_end)
{
    data[lane_x()] = data[index_x() + 1]; // BUG out-of-bounds 4 64 0
}

BUG(write_past_end)
{
    data[index_x() * 2] = 1; // BUG out-of-bounds 4 64 0
}

BUG(read_before)
{
    data[lane_x()] = data[(int)lane_x() - 1 + zero]; // BUG out-of-bounds 1 64 0
}

BUG(write_before)
{
    data[zero - 1 - (int)lane_x()] = 3; // BUG out-of-bounds 1 64 0
}

BUG(read_far)
{
    data[lane_x()] = data[(1 << 24) + zero]; // BUG out-of-bounds 1 64 0
}

BUG(read_null)
{
    int *p = (int *)(u64)(u32)zero;
    data[lane_x()] = p[lane_x()]; // BUG out-of-bounds 1 64 0
}

BUG(write_null)
{
    int *p = (int *)(u64)(u32)zero;
    p[lane_x()] = 1; // BUG out-of-bounds 1 64 0
}

BUG(read_freed)
{
    data[lane_x()] = gone[lane_x()]; // BUG out-of-bounds 1 64 0
}

BUG(write_freed)
{
    gone[lane_x()] = 5; // BUG out-of-bounds 1 64 0
}

BUG(atomic_past_end)
{
    atomic_add(&data[192 + lane_x() * 2], 1); // BUG out-of-bounds 1 64 0
}

BUG(atomic_misaligned)
{
    atomic_add((int *)((char *)data + 2 + 4 * lane_x()), 1); // BUG misaligned 1 64 0
}

/* The last of four is past the end by its half. */
BUG(vector_past_end)
{
    float4 v = ((float4 *)((char *)data + 8))[lane_x()]; // BUG out-of-bounds 1 64 0
    data[lane_x()] = (int)(v.x + v.w);
}

BUG(byte_past_end)
{
    ((volatile u8 *)data)[1024 + zero + lane_x()] = 1; // BUG out-of-bounds 1 64 0
}

BUG(short_past_end)
{
    data[0] = ((volatile short *)data)[512 + zero]; // BUG out-of-bounds 1 64 0
}

BUG(wide_across_end)
{
    *(volatile u64 *)(data + 255 + zero) = 7; // BUG out-of-bounds 1 1 0
}

/* A loop that goes once too often. */
BUG(off_by_one)
{
    int sum = 0;
    for (int i = zero; i <= 256; i++)
        sum += data[i] * (i + (int)lane_x()); // BUG out-of-bounds 1 64 0
    raw[lane_x()] = sum;
}

/* A scalar load: the address is the same for all. */
BUG(scalar_past_end)
{
    raw[lane_x()] = data[256 + zero]; // BUG out-of-bounds 1 64 0
}

/* Beyond the kernel's own arguments. */
BUG(arguments_past_end)
{
    const __attribute__((address_space(4))) int *p =
        (const __attribute__((address_space(4))) int *)__builtin_amdgcn_kernarg_segment_ptr();
    data[lane_x()] = p[2000 + zero]; // BUG out-of-bounds 1 64 0
}

/* ---- what nobody wrote ---- */

BUG(uninitialised)
{
    data[lane_x()] = raw[lane_x()] + 1; // BUG uninitialised 1 64 0
}

BUG(half_initialised)
{
    if (lane_x() < 32)
        raw[lane_x()] = 1;
    barrier();
    data[lane_x()] = raw[63 - lane_x()] + 1; // BUG uninitialised 1 64 0
}

BUG(byte_initialised)
{
    ((volatile u8 *)raw)[4 * lane_x()] = 1;
    barrier();
    data[lane_x()] = ((volatile int *)raw)[lane_x()]; // BUG uninitialised 1 64 0
}

BUG(lds_uninitialised)
{
    SHARED volatile int tile[64];
    if (zero)
        tile[lane_x()] = 1;
    data[lane_x()] = tile[63 - lane_x()]; // BUG uninitialised-lds 1 64 0
}

BUG(lds_half_initialised)
{
    SHARED volatile int tile[128];
    tile[lane_x()] = 1;
    barrier();
    data[lane_x()] = tile[lane_x() * 2]; // BUG uninitialised-lds 1 64 0
}

/* ---- bounds of LDS and scratch ---- */

BUG(lds_past_end)
{
    SHARED volatile int tile[64];
    tile[lane_x()] = 1;
    barrier();
    data[lane_x()] = tile[lane_x() + 1000 + zero]; // BUG lds-out-of-bounds 1 64 0
}

BUG(lds_write_past_end)
{
    SHARED volatile int tile[64];
    tile[lane_x() * 64 + zero] = 1; // BUG lds-out-of-bounds 1 64 0
}

BUG(dynamic_lds_too_small)
{
    extern SHARED volatile int dynamic[];
    dynamic[lane_x() + zero] = 1; // BUG lds-out-of-bounds 1 256 512
}

BUG(lds_atomic_past_end)
{
    SHARED int tile[64];
    tile[lane_x()] = 0;
    barrier();
    __hip_atomic_fetch_add(&tile[lane_x() + 4096 + zero], 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP); // BUG lds-out-of-bounds 1 64 0
}

BUG(scratch_past_end)
{
    volatile int local[16];
    for (int i = 0; i < 16; i++)
        local[i] = data[i];
    data[lane_x()] = local[lane_x() + 100000 + zero]; // BUG scratch 1 64 0
}

BUG(scratch_write_past_end)
{
    volatile int local[16];
    for (int i = 0; i < 16; i++)
        local[(i << 16) + zero] = data[i]; // BUG scratch 1 64 0
    data[lane_x()] = local[0];
}

/* ---- races and barriers ---- */

BUG(race_read)
{
    SHARED volatile int tile[128];
    tile[lane_x()] = 0;
    barrier();
    tile[lane_x()] = (int)lane_x(); // BUG lds-race 1 128 0
    data[lane_x()] = tile[127 - lane_x()]; // BUG lds-race 1 128 0
}

BUG(race_write)
{
    SHARED volatile int one;
    one = (int)lane_x(); // BUG lds-race 1 128 0
    barrier();
    data[lane_x()] = one;
}

/* The barrier at the end of the round is not there. */
BUG(race_next_round)
{
    SHARED volatile int tile[128];
    for (int round = 0; round < 4; round++) {
        tile[lane_x()] = data[lane_x()] + round; // BUG lds-race 1 128 0
        barrier();
        data[lane_x()] = tile[127 - lane_x()]; // BUG lds-race 1 128 0
    }
}

/* Counted by atomics, set to zero beside them: no barrier after the first line. */
BUG(race_zero_then_count)
{
    SHARED int bins[64];
    if (lane_x() < 64)
        ((volatile int *)bins)[lane_x()] = 0; // BUG lds-race 1 128 0
    __hip_atomic_fetch_add(&bins[data[lane_x()] & 63], 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP); // BUG lds-race 1 128 0
    barrier();
    data[lane_x()] = ((volatile int *)bins)[lane_x() & 63];
}

/* The barrier before the counts are read is not there. */
BUG(race_count_then_read)
{
    SHARED int bins[64];
    if (lane_x() < 64)
        ((volatile int *)bins)[lane_x()] = 0;
    barrier();
    __hip_atomic_fetch_add(&bins[data[lane_x()] & 63], 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP); // BUG lds-race 1 128 0
    data[lane_x()] = ((volatile int *)bins)[lane_x() & 63]; // BUG lds-race 1 128 0
}

/* Nor the one before they are set to zero again. */
BUG(race_count_then_zero)
{
    SHARED float sum;
    if (lane_x() == 0)
        *(volatile float *)&sum = 0;
    barrier();
    __hip_atomic_fetch_add(&sum, 1.0f, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP); // BUG lds-race 1 128 0
    if (lane_x() == 64)
        *(volatile float *)&sum = 0; // BUG lds-race 1 128 0
    barrier();
    data[lane_x()] = (int)*(volatile float *)&sum;
}

/* A tree without a barrier between its steps. */
BUG(race_in_tree)
{
    SHARED volatile int sum[256];
    sum[lane_x()] = data[lane_x()];
    barrier();
    for (u32 half = 128; half; half /= 2)
        if (lane_x() < half)
            sum[lane_x()] += sum[lane_x() + half]; // BUG lds-race 1 256 0
    barrier();
    data[0] = sum[0];
}

/* One wave waits at one barrier, the other at another. */
BUG(two_barriers)
{
    if (__builtin_amdgcn_readfirstlane((int)lane_x()) < 64) {
        data[0] = 1;
        __builtin_amdgcn_s_barrier(); // BUG divergent-barrier 1 128 0
        data[1] = 2;
    } else {
        data[2] = 3;
        __builtin_amdgcn_s_barrier(); // BUG divergent-barrier 1 128 0
        data[3] = 4;
    }
}

/* ---- what does not end, or ends badly ---- */

BUG(traps)
{
    if (data[lane_x()] == 40)
        __builtin_trap(); // BUG trap 1 64 0
}

BUG(spins)
{
    while (!__hip_atomic_load(&data[0], __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT)) // BUG timeout 1 64 0
        __builtin_amdgcn_s_sleep(2); // BUG timeout 1 64 0
}

/* The wave that would raise the flag waits at the barrier. */
BUG(waits_for_the_waiting)
{
    SHARED int flag;
    if (!lane_x())
        __hip_atomic_store(&flag, 0, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    barrier();
    if (__builtin_amdgcn_readfirstlane((int)lane_x()) < 64)
        while (!__hip_atomic_load(&flag, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP)) // BUG timeout 1 128 0
            __builtin_amdgcn_s_sleep(2); // BUG timeout 1 128 0
    __builtin_amdgcn_s_barrier();
    __hip_atomic_store(&flag, 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
}

BUG(calls_null)
{
    typedef void (*function)(int *);
    function f = (function)(u64)(u32)(zero + 64);
    f(data); // BUG invalid-pc 1 64 0
}

/* ---- machine code: waits, registers, encodings ---- */

BUG(no_wait_vector)
{
    int v;
    __asm__ volatile("global_load_dword %0, %1, off\n\tv_add_u32 %0, %0, 1\n\ts_waitcnt vmcnt(0)" // BUG missing-wait 1 64 0
                     : "=&v"(v)
                     : "v"(data + lane_x())
                     : "memory");
    data[lane_x()] = v;
}

BUG(no_wait_scalar)
{
    int v;
    __asm__ volatile("s_load_dword %0, %1, 0x10\n\ts_add_i32 %0, %0, 1\n\ts_waitcnt lgkmcnt(0)" // BUG missing-wait 1 64 0
                     : "=&s"(v)
                     : "s"(data)
                     : "memory", "scc");
    data[lane_x()] = v;
}

BUG(no_wait_lds)
{
    SHARED int tile[64];
    int v;
    tile[lane_x()] = data[lane_x()];
    barrier();
    __asm__ volatile("ds_read_b32 %0, %1\n\tv_add_u32 %0, %0, 1\n\ts_waitcnt lgkmcnt(0)" // BUG missing-wait 1 64 0
                     : "=&v"(v)
                     : "v"((u32)(u64)(__attribute__((address_space(3))) int *)tile + 4 * lane_x())
                     : "memory");
    data[lane_x()] = v;
}

/* Waits for the first of two loads and reads the second. */
BUG(wait_too_short)
{
    int v, w;
    __asm__ volatile("global_load_dword %0, %2, off\n\tglobal_load_dword %1, %2, off offset:4\n\ts_waitcnt vmcnt(1)\n\tv_add_u32 %0, %0, %1\n\ts_waitcnt vmcnt(0)" // BUG missing-wait 1 64 0
                     : "=&v"(v), "=&v"(w)
                     : "v"(data + lane_x())
                     : "memory");
    data[lane_x()] = v + w;
}

/* The wrong counter. */
BUG(wait_for_other)
{
    int v;
    __asm__ volatile("global_load_dword %0, %1, off\n\ts_waitcnt lgkmcnt(0)\n\tv_add_u32 %0, %0, 1\n\ts_waitcnt vmcnt(0)" // BUG missing-wait 1 64 0
                     : "=&v"(v)
                     : "v"(data + lane_x())
                     : "memory");
    data[lane_x()] = v;
}

BUG(no_instruction)
{
    data[lane_x()] = 1;
    __asm__ volatile(".long 0xffffffff"); // BUG instruction 1 64 0
}

/* A matrix instruction that the virtual device does not have: said, not guessed. */
BUG(sparse_matrix)
{
    typedef half half4v __attribute__((ext_vector_type(4)));
    typedef half half8v __attribute__((ext_vector_type(8)));
    half4v a = (half)(float)lane_x();
    half8v b = (half)(float)zero;
    float4 c = 0;
    c = __builtin_amdgcn_smfmac_f32_16x16x32_f16(a, b, c, zero, 0, 0); // BUG instruction 1 64 0
    data[lane_x()] = (int)c.x;
}
