#include "forms.h"

#include <stdio.h>
#include <string.h>
#ifdef HOST_X86
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "fast.h"

/* `status`, which the core's fail returns too. */
#define FAIL(core, status, ...)                                                                    \
    ((core)->fail((core)->context, __FILE__, __LINE__, (status), NULL, 0, NULL, __VA_ARGS__),      \
     (status))

/* From the plainest to the best. */
struct option {
    const char *name;
    const void *what;
    bool usable, wanted; /* wanted: taken without being asked for */
};

static mh_status choose(const mh_core *core, const char *variable, const struct option *options,
                        int count, const struct option **out)
{
    const char *asked = core->environment(core->context, variable);
    char names[64] = "";
    for (int i = 0; i < count; i++) {
        size_t length = strlen(names);
        snprintf(names + length, sizeof(names) - length, "%s%s", i ? ", " : "", options[i].name);
    }
    *out = NULL;
    for (int i = 0; i < count; i++) {
        const struct option *o = &options[i];
        if (asked && *asked ? !strcmp(asked, o->name) : o->usable && o->wanted)
            *out = o;
    }
    if (!*out)
        return FAIL(core, MH_INVALID_ARGUMENT, "%s: '%s', this build has %s", variable, asked,
                    names);
    if (!(*out)->usable)
        return FAIL(core, MH_UNSUPPORTED, "%s: this processor has no %s", variable, asked);
    return MH_OK;
}

#ifdef HOST_X86

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool has_bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* The system must let the process use tiles; once granted it stays so. */
static bool has_amx(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    uint32_t a, b, c, d;
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    bool tiles = (d >> 24 & 1) && (d >> 22 & 1); /* AMX-TILE, AMX-BF16 */
    return has_bf16() && tiles && !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

#endif

mh_status host_choose_form(const mh_core *core, struct host_form *out)
{
    const struct option isas[] = {
        {"scalar", host_kernels_scalar, true, true},
#ifdef HOST_X86
        {"avx2", host_kernels_avx2, has_avx2(), true},
        {"avx512", host_kernels_avx512, has_avx512(), true},
#endif
    };
    const struct option *isa, *fast;
    mh_status status = choose(core, "MOEHAL_HOST_ISA", isas, sizeof(isas) / sizeof(isas[0]), &isa);
    if (status)
        return status;
    /* Intel's VDPBF16PS does half the multiply-adds of its f32 FMA (Sapphire Rapids, measured by
     * `moehal bench op linear`); AMD's does twice as many. */
    const struct option units[] = {
        {"none", NULL, true, true},
#ifdef HOST_X86
        {"avx512bf16", &host_fast_bf16, has_bf16(), !__builtin_cpu_is("intel")},
        {"amx", &host_fast_amx, has_amx(), true},
#endif
    };
    status = choose(core, "MOEHAL_HOST_FAST", units, sizeof(units) / sizeof(units[0]), &fast);
    *out = (struct host_form){isa->name, isa->what, status ? NULL : fast->what};
    if (strcmp(isa->name, "avx512"))
        out->fast = NULL; /* the bf16 units come with AVX-512 */
    return status;
}
