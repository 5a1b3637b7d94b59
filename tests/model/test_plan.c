/*
 * What mh_plan says against what loading and a session take, and against the sizes of the releases.
 *
 * argv: MODEL_DIR
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <moehal-model/plan.h>
#include <moehal-model/session.h>
#include <moehal-model/synth.h>

#include "../../model/placement.h"

static const char *model_dir;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

enum { DEVICES = 3 };

static void take_what_was_planned(uint32_t attention)
{
    mh_runtime *runtime;
    mh_device *devices[DEVICES];
    mh_checkpoint *checkpoint;
    mh_model *model;
    mh_session *session;
    mh_plan_rank ranks[DEVICES];
    int64_t missing;
    OK(mh_runtime_create(NULL, &runtime));
    OK(mh_checkpoint_open(model_dir, &checkpoint));
    for (int i = 0; i < DEVICES; i++) {
        OK(mh_device_open(runtime, "host", NULL, &devices[i]));
        ranks[i] = MH_INIT(mh_plan_rank);
        ranks[i].flags = MH_DEVICE_HOST_MEMORY;
    }
    mh_plan_params params = MH_INIT(mh_plan_params);
    mh_session_params p = MH_INIT(mh_session_params);
    params.checkpoint = checkpoint;
    params.context = p.context = 1000;
    params.chunk = p.chunk = 100;
    params.kv_dtype = p.kv_dtype = MH_BF16;
    params.attention = p.attention = attention;
    OK(mh_plan(&params, ranks, DEVICES, &missing));
    assert_int_equal(missing, 0);
    OK(mh_model_load(checkpoint, devices, DEVICES, NULL, &model));
    uint64_t before[DEVICES];
    for (int i = 0; i < DEVICES; i++) {
        mh_memory_info memory = MH_INIT(mh_memory_info);
        OK(mh_device_memory(devices[i], &memory));
        before[i] = memory.used;
    }
    OK(mh_session_create(model, &p, &session));
    for (uint32_t i = 0; i < DEVICES; i++) {
        mh_memory_info memory = MH_INIT(mh_memory_info);
        int64_t count;
        OK(mh_device_memory(devices[i], &memory));
        uint64_t took = memory.used - before[i];
        uint64_t planned = ranks[i].cache_bytes + ranks[i].scratch_bytes;
        assert_true(took >= planned);
        assert_true(took - planned < 64 * 1024); /* a step's inputs */
        OK(mh_model_experts(model, i, 1, NULL, &count));
        assert_int_equal(count, ranks[i].experts);
        assert_int_equal(ranks[i].fits, 1);
    }
    mh_session_release(session);
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    for (int i = 0; i < DEVICES; i++)
        mh_device_release(devices[i]);
    mh_runtime_release(runtime);
}

static void a_session_takes_what_was_planned(void **state)
{
    (void)state;
    take_what_was_planned(MH_ATTENTION_REPLICATED);
    take_what_was_planned(MH_ATTENTION_SPLIT);
}

/* DeepSeek-V3 in FP8, by its published shape: 256 experts of 3 x 7168 x 2048 in 58 layers; with a
 * scale of 4 bytes for 128 x 128 values. */
enum { COUNT = 8, LAYERS = 58, EXPERTS = 256 };
#define VALUES (UINT64_C(3) * 7168 * 2048)
static const uint64_t v3_expert = VALUES + VALUES / (128 * 128) * 4;

static mh_plan_params v3_params(mh_config *config, int64_t context)
{
    mh_plan_params params = MH_INIT(mh_plan_params);
    *config = MH_INIT(mh_config);
    OK(mh_synth_config("v3", 0, MH_SYNTH_FP8, config));
    params.config = config;
    params.context = context;
    params.kv_dtype = MH_BF16;
    return params;
}

static int64_t plan_v3(const mh_plan_params *params, uint64_t gib, mh_plan_rank ranks[COUNT])
{
    int64_t missing;
    for (int i = 0; i < COUNT; i++) {
        ranks[i] = MH_INIT(mh_plan_rank);
        ranks[i].memory = gib << 30;
    }
    OK(mh_plan(params, ranks, COUNT, &missing));
    return missing;
}

static void v3_on_eight_devices(void **state)
{
    (void)state;
    const uint64_t expert = LAYERS * v3_expert;
    mh_config config;
    mh_plan_rank ranks[COUNT];
    mh_plan_params params = v3_params(&config, 4096);
    for (uint64_t gib = 80; gib <= 141; gib += 61) {
        int64_t missing = plan_v3(&params, gib, ranks), all = missing;
        uint64_t out = 0;
        for (int i = 0; i < COUNT; i++) {
            const mh_plan_rank *r = &ranks[i];
            all += r->experts;
            out += r->bytes_out;
            assert_int_equal(r->expert_bytes, expert * (uint64_t)r->experts);
            assert_int_equal(r->cache_bytes, UINT64_C(4096) * 576 * 2 * 61);
            /* The head is on the first alone. */
            assert_int_equal(ranks[0].weight_bytes - ranks[1].weight_bytes,
                             UINT64_C(129280) * 7168 * 2);
            /* Room: seven eighths of the memory, less what is not experts. */
            uint64_t rest = (gib << 30) / 8 * 7 - r->weight_bytes;
            assert_int_equal(r->room, (int64_t)(rest / expert));
            assert_true(r->experts <= r->room);
            assert_int_equal(r->fits, 1);
        }
        assert_int_equal(all, EXPERTS);
        if (gib == 80) { /* 8 x 80 GiB do not hold it, 8 x 141 do */
            assert_true(missing > 0);
        } else {
            assert_int_equal(missing, 0);
            assert_int_equal(ranks[7].experts, 32);
            /* 8 slots of 7168 f32 a layer leave their owners. */
            assert_int_equal(out, UINT64_C(58) * 8 * 4 * 7168);
            assert_int_equal(ranks[3].bytes_in, UINT64_C(58) * 8 * 4 * 7168 / 8 * 7);
        }
    }
}

/* The same devices, half as large: what does not fit is fetched, and each keeps an eighth of the
 * cache. */
static void v3_on_eight_smaller_devices(void **state)
{
    (void)state;
    mh_config config;
    mh_plan_rank ranks[COUNT];
    int64_t missing;
    mh_plan_params params = v3_params(&config, 8192);
    params.attention = MH_ATTENTION_SPLIT;
    for (int64_t wanted = -1; wanted <= 40; wanted += wanted < 0 ? 6 : 35) {
        params.expert_places = wanted;
        assert_int_equal(plan_v3(&params, 80, ranks), 0);
        for (int i = 0; i < COUNT; i++) {
            const mh_plan_rank *r = &ranks[i];
            assert_int_equal(r->experts, 32);
            assert_true(r->room < 32);
            assert_int_equal(r->places, wanted == 5 ? 5 : r->room);
            assert_int_equal(r->miss_bytes, v3_expert);
            assert_int_equal(r->expert_bytes, 58 * r->miss_bytes * (uint64_t)r->places);
            /* 32 segments of 256, four each. */
            assert_int_equal(r->cache_bytes, UINT64_C(4) * 256 * 576 * 2 * 61);
            /* Of every layer 128 heads x 4 segments x 514 values, and its slots. */
            uint64_t part = UINT64_C(61) * 4 * 128 * 4 * 514, slots = UINT64_C(58) * 8 * 4 * 7168;
            assert_int_equal(r->bytes_out, part + slots / 8);
            assert_int_equal(r->bytes_in, 7 * part + slots / 8 * 7);
        }
    }
    params.redundant = 1;
    assert_int_equal(mh_plan(&params, ranks, COUNT, &missing), MH_INVALID_ARGUMENT);
}

/* Copies, owners and room, by what they must be whatever the load. */
static void check_placement(const mh_config *c, mh_expert_load *load, const int64_t *room,
                            uint32_t ranks, int64_t extra)
{
    struct placement p;
    int64_t missing, places[64], spare = -c->n_routed_experts;
    OK(placement_make(&p, c, room, ranks, load, extra, &missing));
    assert_int_equal(missing, 0);
    for (uint32_t r = 0; r < ranks; r++)
        spare += room[r];
    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        int64_t all = 0;
        double most = 0, sum = 0;
        const uint64_t *counts = mh_expert_load_layer(load, l);
        for (uint32_t r = 0; r < ranks; r++) {
            places[r] = placement_count(&p, r, l);
            assert_true(places[r] <= room[r]);
            all += places[r];
        }
        if (!mh_config_is_moe(c, l)) {
            assert_int_equal(all, 0);
            continue;
        }
        assert_true(all <= c->n_routed_experts + (extra < spare ? extra : spare));
        for (int64_t e = 0; e < c->n_routed_experts; e++) {
            uint64_t holders = 0, served = 0;
            for (uint32_t r = 0; r < ranks; r++)
                holders |= (uint64_t)placement_has(&p, r, l, e) << r;
            for (uint32_t g = 0; g < p.groups; g++)
                served |= UINT64_C(1) << placement_owner(&p, l, g, e);
            assert_true(holders != 0); /* each is somewhere, and every copy serves some rows */
            assert_int_equal(holders, served);
            sum += counts ? (double)counts[e] : 0;
            most = counts && (double)counts[e] > most ? (double)counts[e] : most;
        }
        for (uint32_t r = 0; counts && !extra && r < ranks; r++) {
            double here = 0;
            for (int64_t e = 0; e < c->n_routed_experts; e++)
                here += placement_has(&p, r, l, e) ? (double)counts[e] : 0;
            /* Longest first, to the least busy: no rank is above the mean by more than one, where
             * there is room enough. */
            if (room[r] == c->n_routed_experts)
                assert_true(here <= sum / ranks + most);
        }
    }
    placement_free(&p);
}

static void placements_keep_their_promises(void **state)
{
    (void)state;
    mh_config c = MH_INIT(mh_config);
    mh_expert_load *load;
    OK(mh_synth_config("v2-lite", 4, MH_SYNTH_BF16, &c));
    OK(mh_expert_load_create(&c, &load));
    for (int64_t l = 0; l < 4; l++)
        for (int64_t e = 0; mh_expert_load_layer(load, l) && e < c.n_routed_experts; e++)
            mh_expert_load_layer(load, l)[e] = (uint64_t)(1000 / (1 + (e * 7 + l) % 64));
    const int64_t wide[] = {64, 64, 64, 64}, narrow[] = {10, 64, 20, 5}, tight[] = {16, 16, 16, 16};
    for (int64_t extra = 0; extra <= 300; extra += extra ? extra * 2 : 1)
        for (int i = 0; i < 2; i++) {
            check_placement(&c, i ? load : NULL, wide, 4, extra);
            check_placement(&c, i ? load : NULL, narrow, 4, extra);
            check_placement(&c, i ? load : NULL, tight, 4, extra);
            check_placement(&c, i ? load : NULL, wide, 1, extra);
        }
    /* Eight experts with as much to do as the fifty-six others: in order they are on one rank. */
    for (int64_t l = 0; l < 4; l++)
        for (int64_t e = 0; mh_expert_load_layer(load, l) && e < c.n_routed_experts; e++)
            mh_expert_load_layer(load, l)[e] = e < 8 ? 7 : 1;
    struct placement p;
    int64_t missing;
    OK(placement_make(&p, &c, wide, 4, load, 0, &missing));
    for (uint32_t r = 0; r < 4; r++)
        assert_true(placement_share(&p, r, load) == 0.25);
    placement_free(&p);
    OK(placement_make(&p, &c, wide, 4, NULL, 0, &missing));
    assert_true(placement_share(&p, 0, load) == (8 * 7 + 8) / 112.0);
    placement_free(&p);
    mh_expert_load_release(load);
}

static void what_is_wrong_is_told(void **state)
{
    (void)state;
    mh_config config = MH_INIT(mh_config);
    mh_plan_params params = MH_INIT(mh_plan_params);
    mh_plan_rank rank = MH_INIT(mh_plan_rank);
    int64_t missing;
    assert_int_equal(mh_plan(&params, &rank, 1, &missing), MH_INVALID_ARGUMENT);
    OK(mh_synth_config("v2-lite", 3, MH_SYNTH_BF16, &config));
    assert_int_equal(config.num_hidden_layers, 3);
    params.config = &config;
    assert_int_equal(mh_plan(&params, &rank, 0, &missing), MH_INVALID_ARGUMENT);
    assert_int_equal(mh_plan(&params, &rank, 65, &missing), MH_INVALID_ARGUMENT);
    assert_int_equal(mh_plan(&params, NULL, 1, &missing), MH_INVALID_ARGUMENT);
    params.context = 1 << 30;
    assert_int_equal(mh_plan(&params, &rank, 1, &missing), MH_INVALID_ARGUMENT);
    params.context = 0;
    params.kv_dtype = MH_I32;
    assert_int_equal(mh_plan(&params, &rank, 1, &missing), MH_INVALID_ARGUMENT);
    params.kv_dtype = MH_F32;
    rank.memory = 1000;
    OK(mh_plan(&params, &rank, 1, &missing));
    assert_int_equal(missing, config.n_routed_experts);
    assert_int_equal(rank.fits, 0);
    mh_config other = MH_INIT(mh_config);
    OK(mh_synth_config("moonlight", 4, MH_SYNTH_BF16, &other));
    OK(mh_expert_load_create(&other, &params.expert_load));
    assert_int_equal(mh_plan(&params, &rank, 1, &missing), MH_INVALID_ARGUMENT);
    mh_expert_load_release(params.expert_load);
    assert_int_equal(mh_synth_config("v2-lite", 0, 4, &config), MH_INVALID_ARGUMENT);
    assert_int_equal(mh_synth_config("v9", 0, 0, &config), MH_NOT_FOUND);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_takes_what_was_planned),
        cmocka_unit_test(v3_on_eight_devices),
        cmocka_unit_test(v3_on_eight_smaller_devices),
        cmocka_unit_test(placements_keep_their_promises),
        cmocka_unit_test(what_is_wrong_is_told),
    };
    if (argc != 2)
        return 2;
    model_dir = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
