// Conversions, one a kernel, of n values. Compiled at -O3:
//   clang-19 -x hip --offload-arch=gfx942 --cuda-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -O3
#define INDEX (__builtin_amdgcn_workgroup_id_x() * 256 + __builtin_amdgcn_workitem_id_x())
#define KERNEL(name, to, from, value)                                                              \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(256, 256))) void name(to *o, const from *a, int n) \
    {                                                                                              \
        int i = INDEX;                                                                             \
        if (i < n) {                                                                               \
            from x = a[i];                                                                         \
            o[i] = (value);                                                                        \
        }                                                                                          \
    }
KERNEL(f32_of_f16, float, _Float16, (float)x)
KERNEL(f16_of_f32, _Float16, float, (_Float16)x)
KERNEL(f32_of_fp8, float, unsigned, __builtin_amdgcn_cvt_f32_fp8(x, 0))
KERNEL(f32_of_bf8, float, unsigned, __builtin_amdgcn_cvt_f32_bf8(x, 0))
KERNEL(f32_of_fp8_byte3, float, unsigned, __builtin_amdgcn_cvt_f32_fp8(x << 24, 3))
KERNEL(f32_of_bf8_byte1, float, unsigned, __builtin_amdgcn_cvt_f32_bf8(x << 8, 1))
KERNEL(f32_of_fp8_pair, float, unsigned, __builtin_amdgcn_cvt_pk_f32_fp8(x << 24, true)[1])
KERNEL(f32_of_bf8_pair, float, unsigned, __builtin_amdgcn_cvt_pk_f32_bf8(x, false)[0])
KERNEL(fp8_of_f32, unsigned, float, (unsigned)__builtin_amdgcn_cvt_pk_fp8_f32(x, 0.0f, 0, false) & 255)
KERNEL(bf8_of_f32, unsigned, float, (unsigned)__builtin_amdgcn_cvt_pk_bf8_f32(x, 0.0f, 0, false) & 255)
KERNEL(fp8_of_f32_high, unsigned, float, (unsigned)__builtin_amdgcn_cvt_pk_fp8_f32(0.0f, x, 0, true) >> 24)
KERNEL(half_toward_zero, unsigned, float, __builtin_bit_cast(unsigned, __builtin_amdgcn_cvt_pkrtz(x, 0.0f)) & 0xffff)
KERNEL(f32_of_bf16, float, __bf16, (float)x)
KERNEL(bf16_of_f32, __bf16, float, (__bf16)x)

#define RANDOM(name, value)                                                                        \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(256, 256))) void name(           \
        unsigned *o, const float *a, const unsigned *seeds, int n)                                 \
    {                                                                                              \
        int i = INDEX;                                                                             \
        if (i < n) {                                                                               \
            float x = a[i];                                                                        \
            unsigned seed = seeds[i];                                                              \
            o[i] = (value);                                                                        \
        }                                                                                          \
    }
RANDOM(fp8_random, __builtin_amdgcn_cvt_sr_fp8_f32(x, seed, 0xa5a5a5a5, 2))
RANDOM(bf8_random, __builtin_amdgcn_cvt_sr_bf8_f32(x, seed, 0xa5a5a5a5, 0))
RANDOM(fp8_random_negative, ({
           unsigned r = 0xa5a5a5a5;
           asm volatile("v_cvt_sr_fp8_f32 %0, -|%1|, %2 op_sel:[0,0,1,1]" : "+v"(r) : "v"(x), "v"(seed));
           r;
       }))

// Bytes, by each way of rounding: the mode is left as it was.
#define BYTE(name, mode, value)                                                                    \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(256, 256))) void name(           \
        unsigned *o, const float *a, int n)                                                        \
    {                                                                                              \
        int i = INDEX;                                                                             \
        if (i < n) {                                                                               \
            float x = a[i];                                                                        \
            unsigned at = (unsigned)i, old = 0x11223344;                                           \
            __builtin_amdgcn_s_setreg(1 | 1 << 11, mode);                                          \
            value;                                                                                 \
            __builtin_amdgcn_s_setreg(1 | 1 << 11, 0);                                             \
            o[i] = old;                                                                            \
        }                                                                                          \
    }
#define PACK "v_cvt_pk_u8_f32 %0, %1, %2, %0"
#define ACCUMULATE "v_cvt_pkaccum_u8_f32 %0, %1, %2"
BYTE(byte_nearest, 0, asm volatile(PACK : "+v"(old) : "v"(x), "v"(at)))
BYTE(byte_up, 1, asm volatile(PACK : "+v"(old) : "v"(x), "v"(at)))
BYTE(byte_down, 2, asm volatile(PACK : "+v"(old) : "v"(x), "v"(at)))
BYTE(byte_toward_zero, 3, asm volatile(PACK : "+v"(old) : "v"(x), "v"(at)))
BYTE(byte_accumulated, 0, asm volatile(ACCUMULATE : "+v"(old) : "v"(x), "v"(at)))
