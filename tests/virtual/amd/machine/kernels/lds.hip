// Exchanges in LDS that no builtin makes, and counters; 64 lanes. Compiled at -O3:
//   clang-19 -x hip --offload-arch=gfx942 --cuda-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -O3
// LDS begins as in[], ends as out[0..256); what lane l got back follows, four words a lane.
typedef unsigned u2 __attribute__((ext_vector_type(2)));
typedef unsigned u4 __attribute__((ext_vector_type(4)));
#define LANE __builtin_amdgcn_workitem_id_x()
#define KERNEL(name, ...)                                                                          \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(64, 64))) void name(             \
        unsigned *out, const unsigned *in, const unsigned *data)                                   \
    {                                                                                              \
        __attribute__((shared)) static unsigned lds[256];                                          \
        unsigned l = LANE, at, base = (unsigned)(unsigned long)(__attribute__((address_space(3))) unsigned *)lds; \
        for (int k = 0; k < 4; k++)                                                                \
            lds[64 * k + l] = in[64 * k + l];                                                      \
        __builtin_amdgcn_s_barrier();                                                              \
        unsigned x = data[2 * l], y = data[2 * l + 1];                                             \
        u4 r = {0, 0, 0, 0};                                                                       \
        u2 pair = {x, y};                                                                          \
        __VA_ARGS__;                                                                               \
        __builtin_amdgcn_s_barrier();                                                              \
        for (int k = 0; k < 4; k++) {                                                              \
            out[64 * k + l] = lds[64 * k + l];                                                     \
            out[256 + 4 * l + k] = r[k];                                                           \
        }                                                                                          \
    }
#define WAIT "\n s_waitcnt lgkmcnt(0)"
KERNEL(wrap, at = base + 4 * l; unsigned got;
       asm volatile("ds_wrap_rtn_b32 %0, %1, %2, %3 offset:256" WAIT : "=v"(got) : "v"(at), "v"(x), "v"(y) : "memory");
       r.x = got)
KERNEL(exchange2, at = base + 4 * l; u2 got;
       asm volatile("ds_wrxchg2_rtn_b32 %0, %1, %2, %3 offset0:64 offset1:128" WAIT : "=v"(got) : "v"(at), "v"(x), "v"(y) : "memory");
       r.xy = got)
KERNEL(exchange2_far, at = base + 4 * l; u2 got;
       asm volatile("ds_wrxchg2st64_rtn_b32 %0, %1, %2, %3 offset0:3 offset1:1" WAIT : "=v"(got) : "v"(at), "v"(x), "v"(y) : "memory");
       r.xy = got)
KERNEL(exchange2_wide, at = base + 8 * (l & 31); u2 swapped = pair.yx;
       if (l < 32) asm volatile("ds_wrxchg2_rtn_b64 %0, %1, %2, %3 offset0:0 offset1:64" WAIT : "=v"(r) : "v"(at), "v"(pair), "v"(swapped) : "memory"))
KERNEL(exchange2_wide_far, at = base + 8 * l; u2 swapped = pair.yx;
       asm volatile("ds_wrxchg2st64_rtn_b64 %0, %1, %2, %3 offset0:0 offset1:1" WAIT : "=v"(r) : "v"(at), "v"(pair), "v"(swapped) : "memory"))
KERNEL(exchange_marked, at = base + 8 * l + 3; u2 got;
       asm volatile("ds_condxchg32_rtn_b64 %0, %1, %2 offset:512" WAIT : "=v"(got) : "v"(at), "v"(pair) : "memory");
       r.xy = got; asm volatile("ds_nop"))
KERNEL(counters, unsigned a = 7, b = 7;
       if (l % 3 == 0)
           a = __builtin_amdgcn_ds_append((__attribute__((address_space(3))) int *)lds + 5);
       if (l >= 60)
           b = __builtin_amdgcn_ds_consume((__attribute__((address_space(3))) int *)lds + 200);
       r.x = a; r.y = b)
