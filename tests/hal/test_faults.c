/* The fault injection layer: what it counts, what it fails, and how a device comes back. */
#include "world.h"

static mh_device *open_with(mh_runtime *runtime, const char *uri, mh_faults faults)
{
    mh_device *device;
    mh_device_params params = MH_INIT(mh_device_params);
    faults.struct_size = sizeof(faults);
    params.faults = &faults;
    OK(mh_device_open(runtime, uri, &params, &device));
    return device;
}

static mh_fault_report report_of(mh_device *device)
{
    mh_fault_report report = MH_INIT(mh_fault_report);
    OK(mh_device_get_faults(device, &report));
    return report;
}

/* Two fills and a wait; MH_OK, or the first failure. */
static mh_status work(mh_device *device, uint32_t *word)
{
    mh_stream *stream = NULL;
    mh_buffer *buffer = NULL;
    const int64_t shape[] = {1};
    mh_op_fill op = MH_OP_INIT(fill, FILL);
    mh_status status = mh_stream_create(device, &stream);
    if (!status)
        status = mh_buffer_create(device, 256, 0, &buffer);
    op.y = mh_tensor_make(buffer, 0, MH_U32, 1, shape);
    for (op.bits = 7; !status && op.bits <= 8; op.bits++)
        status = mh_encode(mh_stream_encoder(stream), &op.base);
    if (!status)
        status = mh_stream_wait(stream, MH_FOREVER);
    if (!status)
        status = mh_buffer_read(buffer, 0, word, 4);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    return status;
}

static const char *const devices[] = {"host", "null", "probe"};

static void without_a_plan_it_only_counts(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_runtime *runtime = w->runtime;
    (void)state;
    for (int d = 0; d < 3; d++) {
        mh_device *device = open_with(runtime, devices[d], (mh_faults){0});
        uint32_t word = 0;
        OK(work(device, &word));
        assert_int_equal(word, 8);
        mh_fault_report r = report_of(device);
        assert_int_equal(r.fired, 0);
        assert_int_equal(r.calls[MH_CALL_ENCODE], d == 0 ? 2 : 0);
        assert_true(r.calls[MH_CALL_BUFFER_CREATE] >= 1 && r.calls[MH_CALL_SUPPORTS] >= 2);
        mh_device_release(device);
    }
    world_free(w);
}

static void the_nth_call_of_a_kind_fails_once(void **state)
{
    static const uint32_t kinds[] = {MH_CALL_BUFFER_CREATE, MH_CALL_STREAM_CREATE, MH_CALL_COPY,
                                     MH_CALL_MARK,          MH_CALL_SUPPORTS,      MH_CALL_ENCODE};
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_runtime *runtime = w->runtime;
    (void)state;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        mh_device *device = open_with(
            runtime, "host", (mh_faults){.call = kinds[k], .status = MH_VENDOR_ERROR, .nth = 1});
        uint32_t word = 0;
        assert_int_equal(work(device, &word), MH_VENDOR_ERROR);
        assert_non_null(strstr(mh_last_message(), mh_call_name(kinds[k])));
        assert_non_null(strstr(mh_last_message(), "injected"));
        assert_int_equal(report_of(device).fired, 1);
        OK(work(device, &word));
        assert_int_equal(word, 8);
        assert_int_equal(report_of(device).fired, 1);
        mh_device_release(device);
    }
    world_free(w);
}

static void a_device_lost_at_an_op_tells_at_the_wait_and_comes_back(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_runtime *runtime = w->runtime;
    (void)state;
    mh_device *device = open_with(
        runtime, "host", (mh_faults){.call = MH_CALL_ENCODE, .status = MH_DEVICE_LOST, .nth = 2});
    mh_buffer *before;
    uint32_t word = 0;
    OK(mh_buffer_create(device, 64, 0, &before));
    assert_int_equal(work(device, &word), MH_DEVICE_LOST);
    mh_error cause = MH_INIT(mh_error);
    OK(mh_device_error(device, &cause));
    assert_int_equal(work(device, &word), MH_DEVICE_LOST);
    OK(mh_device_reset(device));
    assert_int_equal(mh_buffer_read(before, 0, &word, 4), MH_STALE_HANDLE);
    mh_buffer_release(before);
    OK(work(device, &word));
    assert_int_equal(word, 8);
    mh_memory_info memory = MH_INIT(mh_memory_info);
    OK(mh_device_memory(device, &memory));
    assert_int_equal(memory.buffers, 0);
    mh_device_release(device);
    world_free(w);
}

static void memory_ends_where_the_limit_says(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_runtime *runtime = w->runtime;
    (void)state;
    mh_device *device = open_with(runtime, "host", (mh_faults){.memory_limit = 4096});
    mh_buffer *a, *b;
    mh_memory_info memory = MH_INIT(mh_memory_info);
    OK(mh_buffer_create(device, 3000, 0, &a));
    assert_int_equal(mh_buffer_create(device, 1097, 0, &b), MH_OUT_OF_MEMORY);
    assert_non_null(strstr(mh_last_message(), "1096 are left of 4096"));
    OK(mh_device_memory(device, &memory));
    assert_int_equal(memory.total, 4096);
    assert_int_equal(memory.available, 1096);
    OK(mh_buffer_create(device, 1096, 0, &b));
    mh_buffer_release(a);
    OK(mh_device_memory(device, &memory));
    assert_int_equal(memory.available, 3000);
    OK(mh_buffer_create(device, 3000, 0, &a));
    assert_int_equal(report_of(device).fired, 1);
    mh_buffer_release(a);
    mh_buffer_release(b);
    mh_device_release(device);
    world_free(w);
}

/* An import may begin where a buffer of the device does. */
static void imports_and_buffers_are_not_confused(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_runtime *runtime = w->runtime;
    (void)state;
    mh_device *device = open_with(runtime, "host", (mh_faults){0});
    mh_buffer *own, *view;
    uint32_t word = 5;
    OK(mh_buffer_create(device, 4096, 0, &own));
    OK(mh_buffer_import(device, mh_buffer_host(own), 4096, 0, NULL, NULL, &view));
    mh_buffer_release(view);
    OK(mh_buffer_write(own, 0, &word, 4));
    OK(mh_buffer_read(own, 0, &word, 4));
    mh_buffer_release(own);
    mh_device_release(device);
    world_free(w);
}

/* Of the two copies of a step's results the first fails, the second does not. */
static void a_step_that_cannot_be_read_says_so(void **state)
{
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    (void)state;
    mh_device *device = open_with(
        w->runtime, "host", (mh_faults){.call = MH_CALL_COPY, .nth = 1, .status = MH_VENDOR_ERROR});
    mh_step_params params = MH_INIT(mh_step_params);
    mh_step *step;
    mh_stream *stream;
    int32_t next[2];
    params.rows = 2, params.slots = params.pages = 1;
    OK(mh_step_create(device, &params, &step));
    OK(mh_stream_create(device, &stream));
    assert_int_equal(mh_step_read(step, stream, next, 2), MH_VENDOR_ERROR);
    assert_int_equal(report_of(device).fired, 1);
    mh_stream_release(stream);
    mh_step_release(step);
    mh_device_release(device);
    world_free(w);
}

static void bad_plans_are_refused(void **state)
{
    static const struct {
        mh_faults faults;
        const char *words;
    } bad[] = {
        {{.call = MH_CALL_KINDS, .nth = 1, .status = MH_VENDOR_ERROR}, "call is 20"},
        {{.call = MH_CALL_COPY, .nth = 0, .status = MH_VENDOR_ERROR}, "nth is 0"},
        {{.call = MH_CALL_COPY, .nth = 1}, "status is 0"},
    };
    struct world *w = world_make(MH_PLACEMENT_AUTO);
    mh_runtime *runtime = w->runtime;
    (void)state;
    for (int i = 0; i < 3; i++) {
        mh_device *device;
        mh_faults faults = bad[i].faults;
        faults.struct_size = sizeof(faults);
        mh_device_params params = MH_INIT(mh_device_params);
        params.faults = &faults;
        assert_int_equal(mh_device_open(runtime, "host", &params, &device), MH_INVALID_ARGUMENT);
        assert_non_null(strstr(mh_last_message(), bad[i].words));
    }
    assert_string_equal(mh_call_name(MH_CALL_KINDS), "?");
    assert_string_equal(mh_call_name(MH_CALL_RESET), "reset");
    mh_device *device;
    mh_fault_report report = MH_INIT(mh_fault_report);
    OK(mh_device_open(runtime, "host", NULL, &device));
    assert_int_equal(mh_device_get_faults(device, &report), MH_INVALID_ARGUMENT);
    mh_device_release(device);
    world_free(w);
}

static void every_operand_is_described(void **state)
{
    (void)state;
    uint32_t seen = 0;
    for (mh_op_id op = 0; op < 100; op++) {
        mh_operand operand = MH_INIT(mh_operand);
        for (uint32_t i = 0; mh_op_operand(op, i, &operand) == MH_OK; i++, seen++) {
            assert_true(operand.offset >= sizeof(mh_op) && operand.offset < mh_op_size(op));
            assert_true(strlen(operand.name) > 0 && strlen(operand.shape) > 0);
            assert_true(!operand.dtypes == !!(operand.flags & MH_OPERAND_WEIGHT));
        }
    }
#define ONE(...) +1
#define MH_OUT ONE
#define MH_OPT_OUT ONE
#define MH_IN ONE
#define MH_OPT_IN ONE
#define MH_INOUT ONE
#define MH_WEIGHT ONE
#define MH_OPT_WEIGHT ONE
#define MH_OP(value, NAME, name, kind, doc, operands) operands
    const uint32_t listed = 0
#include <moehal/ops.def>
        ;
#undef MH_OP
    assert_int_equal(seen, listed);
    mh_operand operand = MH_INIT(mh_operand);
    OK(mh_op_operand(MH_OP_EXPERTS_DOWN_COMBINE, 6, &operand));
    assert_string_equal(operand.name, "expert_map");
    assert_string_equal(operand.shape, "E");
    assert_int_equal(operand.offset, offsetof(mh_op_experts_down_combine, expert_map));
    assert_int_equal(operand.flags, MH_OPERAND_READ | MH_OPERAND_OPTIONAL);
    assert_int_equal(operand.dtypes, 1u << MH_I32);
    OK(mh_op_operand(MH_OP_KV_WRITE, 0, &operand));
    assert_int_equal(operand.flags, MH_OPERAND_READ | MH_OPERAND_WRITTEN);
    OK(mh_op_operand(MH_OP_LINEAR, 2, &operand));
    assert_int_equal(operand.flags, MH_OPERAND_READ | MH_OPERAND_WEIGHT);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_plan_it_only_counts),
        cmocka_unit_test(the_nth_call_of_a_kind_fails_once),
        cmocka_unit_test(a_device_lost_at_an_op_tells_at_the_wait_and_comes_back),
        cmocka_unit_test(memory_ends_where_the_limit_says),
        cmocka_unit_test(imports_and_buffers_are_not_confused),
        cmocka_unit_test(bad_plans_are_refused),
        cmocka_unit_test(a_step_that_cannot_be_read_says_so),
        cmocka_unit_test(every_operand_is_described),
    };
    return WORLD_MAIN(tests);
}
