/* Races in global memory, between devices above all: pairs of kernels that clang has compiled
 * (kernels/devices.hip) meet over flags in memory that both use. Those that are right are never
 * reported, the others under every schedule; and a seed gives the same run again.
 *
 *   test_devices DIR */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <moehal_virtual.h>

#include "hip_calls.h"

hipError_t hipSetDevice(int device);
hipError_t hipDeviceEnablePeerAccess(int peer, unsigned flags);
hipError_t hipStreamCreateWithFlags(hipStream_t *out, unsigned flags);
hipError_t hipStreamSynchronize(hipStream_t stream);
hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event, unsigned flags);
hipError_t hipEventCreate(hipEvent_t *out);
hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream);
hipError_t hipEventQuery(hipEvent_t event);
hipError_t hipEventDestroy(hipEvent_t event);

#define ok(call) assert_int_equal(call, hipSuccess)

enum { DEVICES = 2, THREADS = 128, WORDS = 1024, OUT = 512, SCHEDULES = 9 };

static const char *folder;
static hipModule_t modules[DEVICES];
static hipStream_t streams[DEVICES];
static uint32_t *memory; /* of device 1 */

static int setup(void **state)
{
    char path[1000];
    void *raw;
    (void)state;
    moehal_virtual_reports_quiet(1);
    snprintf(path, sizeof path, "%s/devices.co", folder);
    for (int d = 0; d < DEVICES; d++) {
        ok(hipSetDevice(d));
        ok(hipStreamCreateWithFlags(&streams[d], hipStreamNonBlocking));
        ok(hipModuleLoad(&modules[d], path));
        ok(hipDeviceEnablePeerAccess(1 - d, 0));
    }
    ok(hipMalloc(&raw, 4 * WORDS));
    memory = raw;
    return 0;
}

static void launch(int device, unsigned blocks, const char *part, const char *name, uint32_t n)
{
    char kernel[64];
    hipFunction_t f;
    void *params[] = {&memory, &n};
    snprintf(kernel, sizeof kernel, "%s_%s", part, name);
    ok(hipSetDevice(device));
    ok(hipModuleGetFunction(&f, modules[device], kernel));
    ok(hipModuleLaunchKernel(f, blocks, 1, 1, THREADS, 1, 1, 0, streams[device], params, NULL));
}

static void wait_for_all(void)
{
    for (int d = 0; d < DEVICES; d++)
        ok(hipStreamSynchronize(streams[d]));
}

static void clear(void)
{
    ok(hipSetDevice(1));
    ok(hipMemset(memory, 0, 4 * WORDS));
    ok(hipDeviceSynchronize());
    moehal_virtual_reports_clear();
}

static void send_and_take(uint32_t n)
{
    launch(0, 1, "send", "again", n);
    launch(1, 1, "take", "again", n);
}

#define INSTRUCTIONS "wave_instructions"
#include "../seeds.h"

static void assert_taken(uint32_t n)
{
    uint32_t got[THREADS];
    ok(hipSetDevice(1));
    ok(hipMemcpy(got, memory + OUT, sizeof got, hipMemcpyDeviceToHost));
    for (uint32_t t = 0; t < THREADS; t++)
        assert_int_equal(got[t], n + t);
}

/* ---- flags ---- */

static const struct meeting {
    const char *name;
    bool race;
} meetings[] = {
    {"right", false},
    {"by_accesses", false},
    {"by_an_atomic", false},
    {"past_caches", false},
    {"both", false},
    {"written_back", false},
    {"no_release", true},
    {"no_acquire", true},
    {"release_for_one", true},
    {"acquire_for_one", true},
    {"store_for_one", true},
    {"load_for_one", true},
    {"plain_flag", true},
    {"one_wave", true},
    {"no_barrier_before", true},
    {"no_barrier_behind", true},
    {"told_early", true},
    {"taken_early", true},
    {"not_waited", true},
};

static void flags(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof meetings / sizeof meetings[0]; k++)
        for (int i = 0; i < SCHEDULES; i++) {
            const struct meeting *m = &meetings[k];
            const char *text = "", *check = "";
            schedule(i);
            clear();
            launch(0, 1, "send", m->name, 5);
            launch(1, 1, "take", m->name, 5);
            wait_for_all();
            bool found = moehal_virtual_report_count() != 0;
            if (found)
                moehal_virtual_report_at(0, &check, NULL, &text, NULL);
            if (found != m->race)
                fail_msg("%s, schedule %d: %s %s", m->name, i, found ? "reported" : "not", text);
            if (found && (strcmp(check, "global-race") || !strstr(text, ", device ")))
                fail_msg("%s, schedule %d: %s", m->name, i, text);
            if (!found)
                assert_taken(5);
        }
}

/* Of one device. */
static void near(void **state)
{
    (void)state;
    for (int wrong = 0; wrong < 2; wrong++)
        for (int i = 0; i < SCHEDULES; i++) {
            schedule(i);
            clear();
            launch(1, 2, "near", wrong ? "wrong" : "right", 3);
            wait_for_all();
            assert_int_equal(moehal_virtual_report_count() != 0, wrong);
        }
}

/* ---- a buffer that is used again ---- */

static void reuse(void **state)
{
    (void)state;
    for (int told = 0; told < 2; told++) {
        const char *name = told ? "again" : "again_unasked";
        int races = 0;
        for (int i = 0; i < SCHEDULES; i++) {
            schedule(i);
            clear();
            for (uint32_t n = 1; n <= 4; n++) {
                launch(0, 1, "send", name, n);
                launch(1, 1, "take", name, n);
            }
            wait_for_all();
            races += moehal_virtual_report_count() != 0;
        }
        /* None where all was sent before anything was taken. */
        assert_true(told ? races == 0 : races > 4);
    }
}

/* ---- without flags ---- */

enum edge { NOTHING, OTHER_EVENT, EVENT, SYNCHRONIZE, QUERY };

static void edge(enum edge edge, bool race)
{
    hipEvent_t event;
    clear();
    ok(hipSetDevice(0));
    ok(hipEventCreate(&event));
    if (edge == OTHER_EVENT)
        ok(hipEventRecord(event, streams[0]));
    launch(0, 1, "send", "plain", 7);
    if (edge != OTHER_EVENT)
        ok(hipEventRecord(event, streams[0]));
    if (edge == SYNCHRONIZE)
        ok(hipStreamSynchronize(streams[0]));
    while (edge == QUERY && hipEventQuery(event) == hipErrorNotReady) {
    }
    ok(hipSetDevice(1));
    if (edge == EVENT || edge == OTHER_EVENT)
        ok(hipStreamWaitEvent(streams[1], event, 0));
    launch(1, 1, "take", "plain", 7);
    wait_for_all();
    if ((moehal_virtual_report_count() != 0) != race)
        fail_msg("edge %d", (int)edge);
    ok(hipEventDestroy(event));
}

static void edges(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        schedule(i);
        edge(NOTHING, true);
        edge(OTHER_EVENT, true);
        edge(EVENT, false);
        edge(SYNCHRONIZE, false);
        edge(QUERY, false);
    }
}

static void seeds(void **state)
{
    (void)state;
    try_seeds();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags), cmocka_unit_test(near),  cmocka_unit_test(reuse),
        cmocka_unit_test(edges), cmocka_unit_test(seeds),
    };
    if (argc != 2)
        return 2;
    folder = argv[1];
    setenv("MOEHAL_VIRTUAL_CHECKS", "default,global-races", 1);
    setenv("MOEHAL_VIRTUAL_START", "awaited", 1);
    setenv("MOEHAL_VIRTUAL_DEVICES", "2", 1);
    return cmocka_run_group_tests(tests, setup, NULL);
}
