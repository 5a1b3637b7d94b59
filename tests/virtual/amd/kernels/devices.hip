/* devices.hip: two kernels that meet over a flag: one puts words into memory and tells, the other
 * awaits that and takes them. Each pair is right or lacks one thing; test_devices.c says which. */
#include "device.h"

enum { FLAG = 256, BACK = 320, OUT = 512 };

#define SYSTEM __HIP_MEMORY_SCOPE_SYSTEM
#define AGENT __HIP_MEMORY_SCOPE_AGENT

DEVICE inline void put(u32 *m, u32 n)
{
    m[lane_x()] = n + lane_x();
}
DEVICE inline void get(u32 *m)
{
    m[OUT + lane_x()] = m[lane_x()];
}
#define TELL(order, scope)                                                                         \
    if (!lane_x())                                                                                 \
    __hip_atomic_store(&m[FLAG], n, order, scope)
#define AWAIT(order, scope)                                                                        \
    if (!lane_x())                                                                                 \
        while ((int)(__hip_atomic_load(&m[FLAG], order, scope) - n) < 0)                           \
    __builtin_amdgcn_s_sleep(1)
#define FENCE(order, scope) __builtin_amdgcn_fence(order, scope)
#define PAIR(name, send, take)                                                                     \
    KERNEL BOUNDS(128) send_##name(u32 *m, u32 n)                                                  \
    {                                                                                              \
        send;                                                                                      \
    }                                                                                              \
    KERNEL BOUNDS(128) take_##name(u32 *m, u32 n)                                                  \
    {                                                                                              \
        take;                                                                                      \
    }
#define SEND                                                                                       \
    put(m, n);                                                                                     \
    FENCE(__ATOMIC_RELEASE, "");                                                                   \
    barrier();                                                                                     \
    TELL(__ATOMIC_RELAXED, SYSTEM)
#define TAKE                                                                                       \
    AWAIT(__ATOMIC_RELAXED, SYSTEM);                                                               \
    FENCE(__ATOMIC_ACQUIRE, "");                                                                   \
    barrier();                                                                                     \
    get(m)

PAIR(right, SEND, TAKE)
PAIR(by_accesses, put(m, n); FENCE(__ATOMIC_RELEASE, ""); barrier();
     TELL(__ATOMIC_RELEASE, SYSTEM), AWAIT(__ATOMIC_ACQUIRE, SYSTEM); barrier(); get(m))
PAIR(by_an_atomic, put(m, n); FENCE(__ATOMIC_RELEASE, ""); barrier();
     if (!lane_x()) __hip_atomic_fetch_max(&m[FLAG], n, __ATOMIC_RELAXED, SYSTEM), TAKE)
PAIR(past_caches, __builtin_nontemporal_store(n + lane_x(), &m[lane_x()]);
     FENCE(__ATOMIC_RELEASE, ""); barrier();
     TELL(__ATOMIC_RELAXED, SYSTEM), AWAIT(__ATOMIC_RELAXED, SYSTEM); FENCE(__ATOMIC_ACQUIRE, "");
     barrier(); m[OUT + lane_x()] = __builtin_nontemporal_load(&m[lane_x()]))
/* A release for the own device besides takes nothing away. */
PAIR(both, put(m, n); FENCE(__ATOMIC_RELEASE, ""); FENCE(__ATOMIC_RELEASE, "agent"); barrier();
     TELL(__ATOMIC_RELAXED, SYSTEM), TAKE)
PAIR(no_release, put(m, n); barrier(); TELL(__ATOMIC_RELAXED, SYSTEM), TAKE)
PAIR(no_acquire, SEND, AWAIT(__ATOMIC_RELAXED, SYSTEM); barrier(); get(m))
PAIR(release_for_one, put(m, n); FENCE(__ATOMIC_RELEASE, "agent"); barrier();
     TELL(__ATOMIC_RELAXED, SYSTEM), TAKE)
PAIR(acquire_for_one, SEND, AWAIT(__ATOMIC_RELAXED, SYSTEM); FENCE(__ATOMIC_ACQUIRE, "agent");
     barrier(); get(m))
PAIR(store_for_one, put(m, n); FENCE(__ATOMIC_RELEASE, ""); barrier();
     TELL(__ATOMIC_RELAXED, AGENT), TAKE)
PAIR(load_for_one, SEND, AWAIT(__ATOMIC_RELAXED, AGENT); FENCE(__ATOMIC_ACQUIRE, ""); barrier();
     get(m))
PAIR(plain_flag, put(m, n); FENCE(__ATOMIC_RELEASE, ""); barrier();
     if (!lane_x()) m[FLAG] = n, TAKE)
/* The first wave releases, which does not wait for what the second has stored. */
PAIR(one_wave, put(m, n); barrier(); TELL(__ATOMIC_RELEASE, SYSTEM), TAKE)
PAIR(no_barrier_before, put(m, n); FENCE(__ATOMIC_RELEASE, "");
     TELL(__ATOMIC_RELAXED, SYSTEM), TAKE)
PAIR(no_barrier_behind, SEND, AWAIT(__ATOMIC_RELAXED, SYSTEM); FENCE(__ATOMIC_ACQUIRE, ""); get(m))
PAIR(told_early, FENCE(__ATOMIC_RELEASE, ""); barrier(); TELL(__ATOMIC_RELAXED, SYSTEM);
     put(m, n), TAKE)
PAIR(taken_early, SEND, u32 word = *(volatile u32 *)&m[lane_x()]; AWAIT(__ATOMIC_RELAXED, SYSTEM);
     FENCE(__ATOMIC_ACQUIRE, ""); barrier(); m[OUT + lane_x()] = word)
/* Each wave has waited; then one may write back, and has to wait for that. */
#define WRITE_BACK(wait)                                                                           \
    put(m, n);                                                                                     \
    asm volatile("s_waitcnt vmcnt(0)" ::: "memory");                                               \
    barrier();                                                                                     \
    if (!lane_x())                                                                                 \
    asm volatile("buffer_wbl2 sc0 sc1\n\t" wait                                                    \
                 "global_store_dword %0, %1, off sc0 sc1" ::"v"(&m[FLAG]),                         \
                 "v"(n)                                                                            \
                 : "memory")
PAIR(written_back, WRITE_BACK("s_waitcnt vmcnt(0)\n\t"), TAKE)
PAIR(not_waited, WRITE_BACK(""), TAKE)

/* Buffers that are used again, after the other side has said so, or not. */
#define BACK_FLAG(wanted)                                                                          \
    if (!lane_x())                                                                                 \
        while ((int)(__hip_atomic_load(&m[BACK], __ATOMIC_RELAXED, SYSTEM) - (wanted)) < 0)        \
            __builtin_amdgcn_s_sleep(1);                                                           \
    FENCE(__ATOMIC_ACQUIRE, "");                                                                   \
    barrier()
#define TAKE_AND_TELL                                                                              \
    TAKE;                                                                                          \
    FENCE(__ATOMIC_RELEASE, "");                                                                   \
    barrier();                                                                                     \
    if (!lane_x())                                                                                 \
    __hip_atomic_store(&m[BACK], n, __ATOMIC_RELAXED, SYSTEM)
PAIR(again, BACK_FLAG(n - 1); SEND, TAKE_AND_TELL)
PAIR(again_unasked, SEND, TAKE_AND_TELL)

/* Without flags. */
PAIR(plain, put(m, n), get(m))

/* Of two workgroups of one device the first tells the second. */
#define NEAR(name, how)                                                                            \
    KERNEL BOUNDS(128) near_##name(u32 *m, u32 n)                                                  \
    {                                                                                              \
        if (!block_x()) {                                                                          \
            put(m, n);                                                                             \
            FENCE(__ATOMIC_RELEASE, how);                                                          \
            barrier();                                                                             \
            TELL(__ATOMIC_RELAXED, AGENT);                                                         \
        } else {                                                                                   \
            AWAIT(__ATOMIC_RELAXED, AGENT);                                                        \
            FENCE(__ATOMIC_ACQUIRE, how);                                                          \
            barrier();                                                                             \
            get(m);                                                                                \
        }                                                                                          \
    }
NEAR(right, "agent")
NEAR(wrong, "workgroup")
