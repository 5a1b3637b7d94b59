/* Which of the instruction sets that the machine was compiled for this processor has. */
#include <stdlib.h>

#include "exec.h"

extern const struct va_isa va_isa_base;
#ifdef VA_HAVE_AVX2
extern const struct va_isa va_isa_avx2, va_isa_avx512;
#endif

const struct va_isa *va_isa_choose(void)
{
    /* MOEHAL_VIRTUAL_ISA=base or avx2 holds it back: for tests, and for comparison. */
    const char *most = getenv("MOEHAL_VIRTUAL_ISA");
    bool base = most && !strcmp(most, "base"), avx2 = base || (most && !strcmp(most, "avx2"));
    (void)base, (void)avx2;
#ifdef VA_HAVE_AVX2
    if (!avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma"))
        return &va_isa_avx512;
    if (!base && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt"))
        return &va_isa_avx2;
#endif
    return &va_isa_base;
}
