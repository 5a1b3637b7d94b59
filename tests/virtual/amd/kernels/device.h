/* device.h: what the test kernels need of HIP: no header of a toolkit is there when they are compiled
 * (clang -nogpuinc -nogpulib). */
#ifndef KERNELS_DEVICE_H
#define KERNELS_DEVICE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef _Float16 half;
typedef float float4 __attribute__((ext_vector_type(4)));

#define DEVICE __attribute__((device))
#define KERNEL extern "C" __attribute__((global)) void
#define SHARED __attribute__((shared))
#define CONSTANT __attribute__((constant))
#define NOINLINE __attribute__((noinline))
#define BOUNDS(n) __attribute__((amdgpu_flat_work_group_size(1, n)))

DEVICE inline u32 lane_x()
{
    return __builtin_amdgcn_workitem_id_x();
}
DEVICE inline u32 block_x()
{
    return __builtin_amdgcn_workgroup_id_x();
}
DEVICE inline u32 size_x()
{
    return __builtin_amdgcn_workgroup_size_x();
}
DEVICE inline u32 index_x()
{
    return block_x() * size_x() + lane_x();
}
/* Lane of the wave. */
DEVICE inline u32 lane()
{
    return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0));
}
DEVICE inline void barrier()
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
DEVICE inline float shuffle(float value, u32 from)
{
    return __builtin_bit_cast(
        float, __builtin_amdgcn_ds_bpermute((int)(from * 4), __builtin_bit_cast(int, value)));
}
DEVICE inline int shuffle(int value, u32 from)
{
    return __builtin_amdgcn_ds_bpermute((int)(from * 4), value);
}

template <class T> DEVICE inline T atomic_add(T *at, T value)
{
    return __hip_atomic_fetch_add(at, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

#endif
