/*
 * A model spread over three devices, one of which is lost at each of its ops, copies and waits in
 * turn: the step ends with an error that tells the cause, everything can be released, and nothing
 * hangs (the test's own time limit).
 *
 * argv: MODEL_DIR NULL_MODULE STRIDE; every STRIDE-th call is tried.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "few_tokens.h"

enum { DEVICES = 3 };
static const char *model_dir, *null_module;
static uint64_t stride;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

/* What came of it, with `faults` on one of the devices; the calls that device was asked for. */
static mh_status run(uint32_t victim, const mh_faults *faults, mh_fault_report *report,
                     int32_t tokens[TOKENS])
{
    static const char *const uris[DEVICES] = {"host", "null", "host"};
    mh_runtime *runtime;
    mh_device *devices[DEVICES];
    mh_checkpoint *checkpoint;
    mh_model *model = NULL;
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = &null_module, params.module_count = 1;
    params.flags = MH_RUNTIME_NO_ENVIRONMENT;
    OK(mh_runtime_create(&params, &runtime));
    for (uint32_t i = 0; i < DEVICES; i++) {
        mh_device_params p = MH_INIT(mh_device_params);
        p.threads = 1;
        p.faults = i == victim ? faults : NULL;
        OK(mh_device_open(runtime, uris[i], &p, &devices[i]));
    }
    OK(mh_checkpoint_open(model_dir, &checkpoint));
    mh_status status = mh_model_load(checkpoint, devices, DEVICES, NULL, &model);
    if (!status)
        status = write_some(model, tokens);
    if (status)
        assert_true(strlen(mh_last_message()) > 10);
    OK(mh_device_get_faults(devices[victim], report));
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    for (uint32_t i = 0; i < DEVICES; i++) {
        mh_memory_info info = MH_INIT(mh_memory_info);
        if (!mh_device_memory(devices[i], &info))
            assert_int_equal(info.used, 0);
        mh_device_release(devices[i]);
    }
    mh_runtime_release(runtime);
    return status;
}

static void each_device_lost_at_each_call(void **state)
{
    (void)state;
    static const uint32_t kinds[] = {MH_CALL_ENCODE, MH_CALL_COPY, MH_CALL_WAIT, MH_CALL_MARK};
    const mh_faults none = MH_INIT(mh_faults);
    int32_t want[TOKENS], got[TOKENS];
    uint64_t tried = 0;
    for (uint32_t d = 0; d < DEVICES; d++) {
        mh_fault_report calls = MH_INIT(mh_fault_report);
        OK(run(d, &none, &calls, d ? got : want));
        if (d)
            assert_memory_equal(got, want, sizeof(got));
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
            for (uint64_t nth = 1 + k % stride; nth <= calls.calls[kinds[k]]; nth += stride) {
                mh_faults faults = {sizeof(faults), kinds[k], MH_DEVICE_LOST, nth, 0};
                mh_fault_report report = MH_INIT(mh_fault_report);
                mh_status status = run(d, &faults, &report, got);
                assert_int_equal(report.fired, 1);
                /* The last of a session may be lost after its results were read. */
                if (!status)
                    assert_memory_equal(got, want, sizeof(got));
                else
                    assert_int_equal(status, MH_DEVICE_LOST);
                tried++;
            }
    }
    assert_true(tried > 50);
    print_message("%llu losses\n", (unsigned long long)tried);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    model_dir = argv[1];
    null_module = argv[2];
    stride = strtoull(argv[3], NULL, 10);
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_device_lost_at_each_call)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
