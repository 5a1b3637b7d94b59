/* Litmus tests: what two threads may see of each other's stores, under many schedules. Block 0 runs
 * one side, block 1 the other; forbidden outcomes must never show, and the schedules must differ
 * enough for allowed ones to show. A message without release and acquire is a race, and is
 * reported. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_calls.h"
#include "moehal_virtual.h"

enum { RUNS = 150 };

struct litmus {
    const char *name, *left, *right; /* registers %x and %y, results in %p and %q */
    unsigned forbidden;              /* bit 2 p + q */
    unsigned some;                   /* of these at least two are seen */
    bool races;
};

#define ST(sem, at, value) "st." sem ".gpu.global.u32 [" at "], " value ";\n"
#define LD(sem, to, at) "ld." sem ".gpu.global.u32 " to ", [" at "];\n"

static const struct litmus litmus[] = {
    {"message passing, release and acquire", ST("relaxed", "%x", "1") ST("release", "%y", "1"),
     LD("acquire", "%p", "%y") LD("relaxed", "%q", "%x"), 1u << 2, 0xb, false},
    {"message passing, fences",
     ST("relaxed", "%x", "1") "fence.acq_rel.gpu;\n" ST("relaxed", "%y", "1"),
     LD("relaxed", "%p", "%y") "fence.acq_rel.gpu;\n" LD("relaxed", "%q", "%x"), 1u << 2, 0xb,
     false},
    {"message passing, plain data", "st.global.u32 [%x], 1;\n" ST("release", "%y", "1"),
     LD("acquire", "%p",
        "%y") "setp.eq.u32 %c, %p, 0;\nmov.u32 %q, 1;\n@%c bra D;\nld.global.u32 %q, [%x];\nD:\n",
     1u << 2, 0xa, false},
    {"message passing, nothing", "st.global.u32 [%x], 1;\nst.global.u32 [%y], 1;\n",
     "ld.global.u32 %p, [%y];\nld.global.u32 %q, [%x];\n", 0, 0, true},
    {"store buffering, fence.sc",
     ST("relaxed", "%x", "1") "fence.sc.gpu;\n" LD("relaxed", "%p", "%y"),
     ST("relaxed", "%y", "1") "fence.sc.gpu;\n" LD("relaxed", "%q", "%x"), 1u << 0, 0xe, false},
    {"two increments", "atom.relaxed.gpu.global.add.u32 %p, [%x], 1;\n",
     "atom.relaxed.gpu.global.add.u32 %q, [%x], 1;\n", 1u << 0 | 1u << 3, 0x6, false},
    {"coherence of one word", ST("relaxed", "%x", "1"),
     LD("relaxed", "%p", "%x") LD("relaxed", "%q", "%x"), 1u << 2, 0xb, false},
};

static void need(CUresult result, const char *what)
{
    if (result != CUDA_SUCCESS) {
        printf("Bail out! %s: error %d\n", what, (int)result);
        exit(1);
    }
}

static CUfunction build(const struct litmus *l)
{
    char text[4000];
    CUmodule module;
    CUfunction f;
    /* Both results are stored by the block that has them. A delay that depends on the run shifts
     * the sides. */
    snprintf(
        text, sizeof text,
        ".version 8.0\n.target sm_80\n.address_size 64\n"
        ".visible .entry litmus(.param .u64 memory, .param .u32 d0, .param .u32 d1)\n{\n"
        ".reg .b64 %%x, %%y, %%r;\n.reg .b32 %%p, %%q, %%b, %%d;\n.reg .pred %%c, %%s;\n"
        "ld.param.u64 %%x, [memory];\nadd.u64 %%y, %%x, 128;\nadd.u64 %%r, %%x, 256;\n"
        "mov.u32 %%p, 2;\nmov.u32 %%q, 2;\nmov.u32 %%b, %%tid.x;\n"
             "and.b32 %%d, %%b, 31;\nsetp.ne.u32 %%c, %%d, 0;\n@%%c ret;\nsetp.ne.u32 %%s, %%b, 0;\n"
        "@%%s bra R;\nld.param.u32 %%d, [d0];\nW0: sub.s32 %%d, %%d, 1;\nsetp.gt.s32 %%c, %%d, 0;\n"
        "@%%c bra W0;\n%sbra E;\n"
        "R:\nld.param.u32 %%d, [d1];\nW1: sub.s32 %%d, %%d, 1;\nsetp.gt.s32 %%c, %%d, 0;\n@%%c bra "
        "W1;\n%s"
        "E:\nsetp.eq.u32 %%c, %%p, 2;\n@!%%c st.global.u32 [%%r], %%p;\n"
        "setp.eq.u32 %%c, %%q, 2;\n@!%%c st.global.u32 [%%r+4], %%q;\nret;\n}\n",
        l->left, l->right);
    need(cuModuleLoadData(&module, text), l->name);
    need(cuModuleGetFunction(&f, module, "litmus"), l->name);
    return f;
}

static bool run(const struct litmus *l, CUdeviceptr memory)
{
    CUfunction f = build(l);
    unsigned seen = 0, kinds = 0;
    moehal_virtual_reports_clear();
    for (int i = 0; i < RUNS; i++) {
        char schedule[40];
        unsigned result[2], d0 = (unsigned)(i * 7919 % 400), d1 = (unsigned)(i * 104729 % 400);
        snprintf(schedule, sizeof schedule, "%s:%d", i % 2 ? "random" : "adversarial", i + 1);
        moehal_virtual_set("schedule", schedule);
        need(cuMemsetD8_v2(memory, 0, 512), l->name);
        void *params[] = {&memory, &d0, &d1};
        need(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, params, NULL), l->name);
        need(cuMemcpyDtoH_v2(result, memory + 256, 8), l->name);
        seen |= 1u << (2 * (result[0] & 1) + (result[1] & 1));
    }
    for (unsigned k = 0; k < 4; k++)
        kinds += seen >> k & l->some >> k & 1;
    bool races = moehal_virtual_report_count() != 0;
    bool good = !(seen & l->forbidden) && (!l->some || kinds >= 2) && races == l->races;
    const char *text = "";
    if (races && !l->races)
        moehal_virtual_report_at(0, NULL, NULL, &text, NULL);
    printf("%s: %s: outcomes %s%s%s%s%s %s\n", good ? "ok" : "not ok", l->name,
           seen & 1 ? "00 " : "", seen & 2 ? "01 " : "", seen & 4 ? "10 " : "",
           seen & 8 ? "11 " : "", races ? "and a report" : "", text);
    return good;
}

int main(void)
{
    CUcontext context;
    CUdeviceptr memory;
    int failed = 0;
    setenv("MOEHAL_VIRTUAL_CHECKS", "all", 1);
    setenv("MOEHAL_VIRTUAL_DEVICES", "1", 1);
    need(cuInit(0), "cuInit");
    need(cuCtxCreate_v2(&context, 0, 0), "cuCtxCreate");
    need(cuMemAlloc_v2(&memory, 512), "cuMemAlloc");
    moehal_virtual_reports_quiet(1);
    for (size_t i = 0; i < sizeof litmus / sizeof litmus[0]; i++)
        failed += !run(&litmus[i], memory);
    need(cuMemFree_v2(memory), "cuMemFree");
    need(cuCtxDestroy_v2(context), "cuCtxDestroy");
    return failed != 0;
}
