/* Races between devices, and the order in which devices proceed: small kernels that meet over flags
 * in memory that both use. Those that PTX's memory model orders are never reported, the others
 * under every schedule; and a seed gives the same run again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_calls.h"
#include "moehal_virtual.h"

#define ok(call) assert_int_equal(call, CUDA_SUCCESS)

enum { DEVICES = 3, THREADS = 64, BYTES = 1024, FLAG = 512, BACK = 640, OUT = 768 };

static CUcontext contexts[DEVICES];
static CUmodule modules[DEVICES];
static CUstream streams[DEVICES];
static CUdeviceptr memory; /* of device 1 */

static void on(int device)
{
    ok(cuCtxSetCurrent(contexts[device]));
}

static int setup(void **state)
{
    (void)state;
    moehal_virtual_reports_quiet(1);
    for (int d = 0; d < DEVICES; d++) {
        ok(cuCtxCreate_v2(&contexts[d], 0, d));
        ok(cuStreamCreate(&streams[d], CU_STREAM_NON_BLOCKING));
    }
    for (int d = 0; d < DEVICES; d++)
        for (int other = 0; other < DEVICES; other++)
            if (other != d) {
                on(d);
                ok(cuCtxEnablePeerAccess(contexts[other], 0));
            }
    on(1);
    ok(cuMemAlloc_v2(&memory, BYTES));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int d = DEVICES - 1; d >= 0; d--)
        ok(cuCtxDestroy_v2(contexts[d]));
    return 0;
}

/* `body` has %x, where this thread's word is, %m, the memory, %t, the thread, %n, a number; for its
 * use %a to %d, and %p. */
#define HEAD(name)                                                                                 \
    ".visible .entry " name "(.param .u64 memory, .param .u32 n)\n{\n.reg .b64 %m, %x, %y;\n"      \
    ".reg .b32 %t, %n, %a, %b, %c, %d;\n.reg .pred %p, %q;\nld.param.u64 %m, [memory];\n"          \
    "ld.param.u32 %n, [n];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %x, %t, 4;\nadd.u64 %x, %x, %m;\n"   \
    "setp.ne.u32 %q, %t, 0;\n"
#define TAIL "ret;\n}\n"
#define PUT "add.u32 %a, %n, %t;\nst.global.u32 [%x], %a;\n"
#define GET "ld.global.u32 %a, [%x];\nst.global.u32 [%x + 768], %a;\n"
#define BAR "bar.sync 0;\n"
#define FENCE(scope) "fence.acq_rel." scope ";\n"
#define TELL(how, where) "@!%q st." how ".global.u32 [%m + " where "], %n;\n"
#define AWAIT(how, where)                                                                          \
    "@%q bra MET" where ";\nPOLL" where ": ld." how ".global.u32 %b, [%m + " where "];\n"          \
    "setp.lt.u32 %p, %b, %n;\n@%p bra POLL" where ";\nMET" where ":\n"

static void load(const char *send, const char *take)
{
    char text[8000];
    snprintf(text, sizeof text, ".version 8.0\n.target sm_80\n.address_size 64\n%s%s%s%s%s%s",
             HEAD("send"), send, TAIL, HEAD("take"), take, TAIL);
    for (int d = 0; d < DEVICES; d++) {
        on(d);
        ok(cuModuleLoadData(&modules[d], text));
    }
}

static void unload(void)
{
    for (int d = 0; d < DEVICES; d++) {
        on(d);
        ok(cuModuleUnload(modules[d]));
    }
}

static void launch(int device, const char *name, uint32_t n)
{
    CUfunction f;
    void *params[] = {&memory, &n};
    on(device);
    ok(cuModuleGetFunction(&f, modules[device], name));
    ok(cuLaunchKernel(f, 1, 1, 1, THREADS, 1, 1, 0, streams[device], params, NULL));
}

static void wait_for_all(void)
{
    for (int d = 0; d < DEVICES; d++)
        ok(cuStreamSynchronize(streams[d]));
}

static void clear(void)
{
    on(1);
    ok(cuMemsetD8_v2(memory, 0, BYTES));
    ok(cuCtxSynchronize());
    moehal_virtual_reports_clear();
}

static void send_and_take(uint32_t n)
{
    launch(0, "send", n);
    launch(1, "take", n);
}

#define INSTRUCTIONS "warp_instructions"
#include "../seeds.h"

/* ---- flags ---- */

struct meeting {
    const char *name, *send, *take;
    bool race;
};

static const struct meeting meetings[] = {
    {"release and acquire", PUT BAR TELL("release.sys", "512"), AWAIT("acquire.sys", "512") BAR GET,
     false},
    {"fences", PUT BAR FENCE("sys") TELL("relaxed.sys", "512"),
     AWAIT("relaxed.sys", "512") FENCE("sys") BAR GET, false},
    {"an atomic", PUT BAR "@!%q red.release.sys.global.add.u32 [%m + 512], %n;\n",
     AWAIT("acquire.sys", "512") BAR GET, false},
    {"a relaxed store", PUT BAR TELL("relaxed.sys", "512"), AWAIT("acquire.sys", "512") BAR GET,
     true},
    {"a relaxed load", PUT BAR TELL("release.sys", "512"), AWAIT("relaxed.sys", "512") BAR GET,
     true},
    {"a store for one device", PUT BAR TELL("release.gpu", "512"),
     AWAIT("acquire.sys", "512") BAR GET, true},
    {"a load for one device", PUT BAR TELL("release.sys", "512"),
     AWAIT("acquire.gpu", "512") BAR GET, true},
    {"a plain flag", PUT BAR "@!%q st.global.u32 [%m + 512], %n;\n",
     AWAIT("acquire.sys", "512") BAR GET, true},
    {"no barrier before", PUT TELL("release.sys", "512"), AWAIT("acquire.sys", "512") BAR GET,
     true},
    {"no barrier behind", PUT BAR TELL("release.sys", "512"), AWAIT("acquire.sys", "512") GET,
     true},
    {"told too early", TELL("release.sys", "512") PUT, AWAIT("acquire.sys", "512") BAR GET, true},
    {"taken too early", PUT BAR TELL("release.sys", "512"),
     "ld.global.u32 %a, [%x];\n" AWAIT("acquire.sys", "512") BAR "st.global.u32 [%x + 768], %a;\n",
     true},
};

static void flags(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof meetings / sizeof meetings[0]; k++) {
        const struct meeting *m = &meetings[k];
        load(m->send, m->take);
        for (int i = 0; i < 9; i++) {
            uint32_t got[THREADS];
            schedule(i);
            clear();
            launch(0, "send", 5);
            launch(1, "take", 5);
            wait_for_all();
            const char *text = "";
            bool race = moehal_virtual_report_count() != 0;
            if (race)
                moehal_virtual_report_at(0, NULL, NULL, &text, NULL);
            if (race != m->race)
                fail_msg("%s, schedule %d: %s %s", m->name, i, race ? "reported" : "not", text);
            if (race &&
                (!strstr(text, "of kernel send, device 0") || !strstr(text, "[kernel take")) &&
                (!strstr(text, "of kernel take, device 1") || !strstr(text, "[kernel send")))
                fail_msg("%s, schedule %d: %s", m->name, i, text);
            on(1);
            ok(cuMemcpyDtoH_v2(got, memory + OUT, sizeof got));
            for (uint32_t t = 0; !race && t < THREADS; t++)
                assert_int_equal(got[t], 5 + t);
        }
        unload();
    }
}

/* ---- a buffer that is used again ---- */

#define SEND_AGAIN                                                                                 \
    "sub.u32 %n, %n, 1;\n" AWAIT("acquire.sys", "640") BAR                                         \
        "add.u32 %n, %n, 1;\n" PUT BAR TELL("release.sys", "512")
#define TAKE_AGAIN AWAIT("acquire.sys", "512") BAR GET BAR TELL("release.sys", "640")

static void reuse(void **state)
{
    (void)state;
    for (int told = 0; told < 2; told++) {
        /* Each send but the first waits, or does not, until what it overwrites has been taken. */
        load(told ? SEND_AGAIN : PUT BAR TELL("release.sys", "512"), TAKE_AGAIN);
        int races = 0;
        for (int i = 0; i < 9; i++) {
            schedule(i);
            clear();
            for (uint32_t n = 1; n <= 4; n++)
                launch(0, "send", n);
            for (uint32_t n = 1; n <= 4; n++)
                launch(1, "take", n);
            wait_for_all();
            races += moehal_virtual_report_count() != 0;
        }
        unload();
        /* None where all was sent before anything was taken. */
        assert_true(told ? races == 0 : races > 4);
    }
}

/* ---- without flags: events, streams, and what the host has seen ---- */

enum edge { NOTHING, EVENT, CHAIN, SYNCHRONIZE, QUERY, OTHER_EVENT };

static void edge(enum edge edge, bool race)
{
    CUevent event, second;
    clear();
    on(2);
    ok(cuEventCreate(&second, 0));
    on(0);
    ok(cuEventCreate(&event, 0));
    if (edge == OTHER_EVENT)
        ok(cuEventRecord(event, streams[0]));
    launch(0, "send", 7);
    if (edge != OTHER_EVENT)
        ok(cuEventRecord(event, streams[0]));
    if (edge == SYNCHRONIZE)
        ok(cuStreamSynchronize(streams[0]));
    while (edge == QUERY && cuEventQuery(event) == CUDA_ERROR_NOT_READY) {
    }
    if (edge == CHAIN) { /* by way of a third device */
        on(2);
        ok(cuStreamWaitEvent(streams[2], event, 0));
        launch(2, "none", 0);
        ok(cuEventRecord(second, streams[2]));
    }
    on(1);
    if (edge == EVENT || edge == OTHER_EVENT)
        ok(cuStreamWaitEvent(streams[1], event, 0));
    if (edge == CHAIN)
        ok(cuStreamWaitEvent(streams[1], second, 0));
    launch(1, "take", 7);
    wait_for_all();
    if ((moehal_virtual_report_count() != 0) != race)
        fail_msg("edge %d", (int)edge);
    ok(cuEventDestroy_v2(event));
    ok(cuEventDestroy_v2(second));
}

static void edges(void **state)
{
    (void)state;
    load(PUT TAIL HEAD("none"), GET);
    for (int i = 0; i < 3; i++) {
        schedule(i);
        edge(NOTHING, true);
        edge(OTHER_EVENT, true);
        edge(EVENT, false);
        edge(CHAIN, false);
        edge(SYNCHRONIZE, false);
        edge(QUERY, false);
    }
    unload();
}

static void seeds(void **state)
{
    (void)state;
    load(SEND_AGAIN, TAKE_AGAIN);
    try_seeds();
    unload();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags),
        cmocka_unit_test(reuse),
        cmocka_unit_test(edges),
        cmocka_unit_test(seeds),
    };
    setenv("MOEHAL_VIRTUAL_CHECKS", "default,global-races", 1);
    setenv("MOEHAL_VIRTUAL_START", "awaited", 1);
    setenv("MOEHAL_VIRTUAL_DEVICES", "3", 1);
    ok(cuInit(0));
    return cmocka_run_group_tests(tests, setup, teardown);
}
