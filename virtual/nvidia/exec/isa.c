/* Which compilation of the handlers this processor runs. */
#include <stdlib.h>

#include "exec.h"

extern const struct vn_isa vn_isa_base_table;
#ifdef VN_HAVE_AVX2
extern const struct vn_isa vn_isa_avx2_table;
#endif
#ifdef VN_HAVE_AVX512
extern const struct vn_isa vn_isa_avx512_table;
#endif

const struct vn_isa *vn_isa_choose(void)
{
    /* MOEHAL_VIRTUAL_ISA=base or avx2 holds it back: for tests, and for comparison. */
    const char *most = getenv("MOEHAL_VIRTUAL_ISA");
    bool base = most && !strcmp(most, "base"), avx2 = base || (most && !strcmp(most, "avx2"));
    (void)base, (void)avx2;
#ifdef VN_HAVE_AVX512
    if (!avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma"))
        return &vn_isa_avx512_table;
#endif
#ifdef VN_HAVE_AVX2
    if (!base && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt"))
        return &vn_isa_avx2_table;
#endif
    return &vn_isa_base_table;
}
