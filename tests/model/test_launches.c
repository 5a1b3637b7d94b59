/*
 * What a decode step costs in launches: nine a layer, three for the rest, one graph.
 *
 * argv: MODEL_DIR...
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <moehal-model/session.h>

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

static int model_count;
static char **models;

static mh_device_counters counters(mh_device *device)
{
    mh_device_counters c = MH_INIT(mh_device_counters);
    OK(mh_device_get_counters(device, &c));
    return c;
}

static void count(const char *model_dir)
{
    static const int32_t prompt[] = {1, 2, 3};
    mh_runtime *runtime;
    mh_device *device;
    mh_checkpoint *checkpoint;
    mh_model *model;
    mh_session *session;
    mh_session_params params = MH_INIT(mh_session_params);
    params.context = 16;
    OK(mh_runtime_create(NULL, &runtime));
    OK(mh_device_open(runtime, "host", NULL, &device));
    OK(mh_checkpoint_open(model_dir, &checkpoint));
    OK(mh_model_load(checkpoint, &device, 1, NULL, &model));
    OK(mh_session_create(model, &params, &session));
    OK(mh_session_run(session, prompt, 3, NULL));
    mh_device_counters before = counters(device);
    OK(mh_session_run(session, prompt, 1, NULL));
    mh_device_counters after = counters(device);
    uint64_t layers = (uint64_t)mh_model_config(model)->num_hidden_layers;
    uint64_t least = mh_model_config(model)->q_lora_rank ? 9 : 8;
    uint64_t dense = (uint64_t)mh_model_config(model)->first_k_dense_replace;
    assert_true(dense < layers); /* else no expert is looked at */
    /* embedding; the layers; head with its norm, sampling */
    assert_int_equal(after.native - before.native, 1 + least * layers + 2);
    assert_int_equal(after.expanded, 0);
    assert_int_equal(after.fallback, 0);
    assert_int_equal(after.graph_launches - before.graph_launches, 1);
    mh_session_release(session);
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    mh_device_release(device);
    mh_runtime_release(runtime);
}

static void a_decode_step_has_nine_launches_a_layer(void **state)
{
    (void)state;
    for (int i = 0; i < model_count; i++)
        count(models[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decode_step_has_nine_launches_a_layer),
    };
    model_count = argc - 1;
    models = argv + 1;
    return argc > 1 ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
