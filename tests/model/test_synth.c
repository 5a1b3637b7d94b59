/*
 * Random checkpoints: the same bytes everywhere, clean by the checker, values in their ranges, FP8
 * that stands for the bf16 values, shards, refusals that leave nothing behind, and a model that
 * computes sane numbers.
 *
 * argv: GOLDEN_DIR (for the shapes of its configs)
 */
#include <jansson.h>
#include <math.h>
#include <sha256.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <moehal-model/session.h>
#include <moehal-model/synth.h>

#include "../../model/synth_config.h"
#include "support.h"

static char shape_v3[4096], shape_v2_lite[4096];

static mh_synth_params params_of(const char *name, const char *out, uint32_t dtype)
{
    mh_synth_params p = MH_INIT(mh_synth_params);
    p.name = name;
    p.out = out;
    p.dtype = dtype;
    p.seed = 7;
    return p;
}

static char *synth(const char *name, uint32_t dtype, uint64_t seed)
{
    char *dir = test_make_dir();
    mh_synth_params p = params_of(name, dir, dtype);
    p.seed = seed;
    OK(mh_synth(&p));
    return dir;
}

static mh_checkpoint *open_clean(const char *dir)
{
    mh_checkpoint *cp;
    mh_checkpoint_extras extras = MH_INIT(mh_checkpoint_extras);
    OK(mh_checkpoint_open(dir, &cp));
    OK(mh_checkpoint_check(cp));
    OK(mh_checkpoint_get_extras(cp, &extras));
    assert_true(!extras.mtp && !extras.unknown);
    return cp;
}

static mh_checkpoint_tensor find(const mh_checkpoint *cp, const char *name)
{
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_find(cp, name, &t));
    return t;
}

/* ---- bytes ---- */

static void assert_hash(const char *dir, const char *want)
{
    uint64_t bytes;
    char got[SHA256_DIGEST_STRING_LENGTH];
    void *file = test_read(test_path(dir, "model.safetensors"), &bytes);
    SHA256Data(file, bytes, got);
    free(file);
    assert_string_equal(got, want);
}

/* Written on x86-64, alike by gcc and clang, unoptimised and at -O3 for AVX-512. */
static void a_seed_gives_the_same_bytes_everywhere(void **state)
{
    (void)state;
    char *bf16 = synth(shape_v2_lite, MH_SYNTH_BF16, 7), *fp8 = synth(shape_v3, MH_SYNTH_FP8, 7);
    char *other = synth(shape_v2_lite, MH_SYNTH_BF16, 8);
    assert_hash(bf16, "d5ce4dffb73003114159b28dbff7d3251ccf097462b67abde9fb7865b4944ad8");
    assert_hash(fp8, "46d67d494497745aaf0ea5e01f08da624e99ed4637d09e5802f5755279d86ef1");
    uint64_t a_bytes, b_bytes;
    void *a = test_read(test_path(bf16, "model.safetensors"), &a_bytes);
    void *b = test_read(test_path(other, "model.safetensors"), &b_bytes);
    assert_int_equal(a_bytes, b_bytes);
    assert_int_not_equal(memcmp(a, b, a_bytes), 0);
    free(a);
    free(b);
    test_remove_dir(bf16);
    test_remove_dir(fp8);
    test_remove_dir(other);
}

static void clean_and_as_configured(void **state)
{
    (void)state;
    char *dir = test_make_dir();
    mh_synth_params p = params_of(shape_v3, dir, MH_SYNTH_FP8);
    p.layers = 2;
    p.shard_bytes = 1; /* beyond the size that is given, hence not read */
    p.struct_size = offsetof(mh_synth_params, shard_bytes);
    OK(mh_synth(&p));
    assert_true(test_exists(test_path(dir, "model.safetensors")));
    mh_checkpoint *cp = open_clean(dir);
    const mh_config *c = mh_checkpoint_config(cp);
    assert_int_equal(c->num_hidden_layers, 2);
    assert_int_equal(c->first_k_dense_replace, 1);
    assert_int_equal(c->hidden_size, 192);
    assert_true(c->fp8 && c->rope_yarn && c->rope_factor == 40);
    assert_int_equal(find(cp, "model.layers.1.self_attn.kv_b_proj.weight").dtype, MH_ST_F8_E4M3);
    assert_int_equal(find(cp, "model.layers.1.mlp.gate.weight").dtype, MH_ST_BF16);
    assert_int_equal(find(cp, "lm_head.weight").dtype, MH_ST_BF16);
    mh_checkpoint_release(cp);
    test_remove_dir(dir);
}

/* ---- values ---- */

static float bf16_at(const void *data, int64_t i)
{
    uint16_t bits;
    float value;
    memcpy(&bits, (const char *)data + 2 * i, 2);
    uint32_t wide = (uint32_t)bits << 16;
    memcpy(&value, &wide, 4);
    return value;
}

static float f16_at(const void *data, int64_t i)
{
    uint16_t bits;
    memcpy(&bits, (const char *)data + 2 * i, 2);
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return (float)(bits & 0x8000 ? -magnitude : magnitude);
}

/* The same values as bf16's but for rounding, some of them denormal. */
static void f16_holds_the_same_values(void **state)
{
    (void)state;
    char *f16 = synth(shape_v2_lite, MH_SYNTH_F16, 7),
         *bf16 = synth(shape_v2_lite, MH_SYNTH_BF16, 7);
    mh_checkpoint *a = open_clean(f16), *b = open_clean(bf16);
    mh_checkpoint_tensor x = MH_INIT(mh_checkpoint_tensor), y = x;
    int64_t small = 0;
    assert_int_equal(mh_checkpoint_count(a), mh_checkpoint_count(b));
    for (uint64_t t = 0; t < mh_checkpoint_count(a); t++) {
        OK(mh_checkpoint_at(a, t, &x));
        y = find(b, x.name);
        assert_int_equal(x.dtype, MH_ST_F16);
        assert_int_equal(x.bytes, y.bytes);
        for (int64_t i = 0; i < (int64_t)(x.bytes / 2); i++) {
            float got = f16_at(x.data, i), near = bf16_at(y.data, i);
            /* Half a step of each. */
            if (fabsf(got - near) > fabsf(near) * (0x1p-8f + 0x1.1p-11f) + 0x1p-25f)
                fail_msg("%s: value %lld is %a, bf16 has %a", x.name, (long long)i, (double)got,
                         (double)near);
            small += fabsf(got) < 0x1p-14f;
        }
    }
    assert_true(small > 0);
    mh_checkpoint_release(a);
    mh_checkpoint_release(b);
    test_remove_dir(f16);
    test_remove_dir(bf16);
}

static float e4m3(uint8_t code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    float magnitude =
        exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return code & 0x80 ? -magnitude : magnitude;
}

static void assert_bell(const mh_checkpoint *cp, const char *name, double gain)
{
    mh_checkpoint_tensor t = find(cp, name);
    int64_t count = t.shape[0] * t.shape[1], beyond = 0;
    double want = gain / sqrt((double)t.shape[1]), sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) {
        double v = bf16_at(t.data, i);
        sum += v;
        squares += v * v;
        beyond += fabs(v) > want;
    }
    double mean = sum / (double)count, deviation = sqrt(squares / (double)count);
    double outside = (double)beyond / (double)count;
    /* 3 % is five standard errors of a deviation over 14,000 values; a normal has 31.7 % beyond. */
    if (fabs(mean) > 0.04 * want || fabs(deviation / want - 1) > 0.03 ||
        fabs(outside - 0.32) > 0.04)
        fail_msg("%s: mean %g, deviation %g of %g, %g beyond it", name, mean, deviation, want,
                 outside);
}

static void values_are_in_their_ranges(void **state)
{
    (void)state;
    char *dir = synth(shape_v3, MH_SYNTH_BF16, 7);
    mh_checkpoint *cp = open_clean(dir);
    assert_bell(cp, "model.layers.1.self_attn.o_proj.weight", 1);
    assert_bell(cp, "model.layers.1.mlp.experts.15.down_proj.weight", 1);
    assert_bell(cp, "model.layers.0.mlp.gate_proj.weight", 1);
    assert_bell(cp, "model.embed_tokens.weight", sqrt(192));
    assert_bell(cp, "lm_head.weight", 4);
    mh_checkpoint_tensor t = find(cp, "model.layers.2.input_layernorm.weight");
    double low = 9, high = 0;
    for (int64_t i = 0; i < t.shape[0]; i++) {
        low = fmin(low, bf16_at(t.data, i));
        high = fmax(high, bf16_at(t.data, i));
    }
    assert_true(low >= 0.5 && low < 0.55 && high <= 1.5 && high > 1.45);
    t = find(cp, "model.layers.1.mlp.gate.e_score_correction_bias");
    assert_int_equal(t.dtype, MH_ST_F32);
    for (int64_t i = 0; i < t.shape[0]; i++) {
        float bias;
        memcpy(&bias, (const char *)t.data + 4 * i, 4);
        assert_true(bias >= 2 && bias < 2.3f);
    }
    /* No tensor repeats another. */
    mh_checkpoint_tensor a = find(cp, "model.layers.1.mlp.experts.0.up_proj.weight");
    mh_checkpoint_tensor b = find(cp, "model.layers.1.mlp.experts.1.up_proj.weight");
    assert_int_not_equal(memcmp(a.data, b.data, a.bytes), 0);
    mh_checkpoint_release(cp);
    test_remove_dir(dir);
}

/* One tensor of the two checkpoints: q * scale within half a step of the bf16 value, and every
 * block of 128 x 128 uses the whole range up to 448. */
static void assert_stands_for(const mh_checkpoint_tensor *q, const mh_checkpoint_tensor *s,
                              const mh_checkpoint_tensor *plain)
{
    int64_t rows = q->shape[0], columns = q->shape[1], blocks = (columns + 127) / 128;
    float *most = calloc((size_t)(blocks * ((rows + 127) / 128)), sizeof(*most));
    double bias = 0, spread = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            float scale, code = e4m3(((const uint8_t *)q->data)[r * columns + c]);
            int64_t block = r / 128 * blocks + c / 128;
            memcpy(&scale, (const char *)s->data + 4 * block, 4);
            double want = bf16_at(plain->data, r * columns + c), error = code * scale - want;
            /* Half a step: 2^-4 of a normal code, 2^-10 of a small one; and bf16's own 2^-9. */
            double limit = fabs(want) * (0x1.02p-4 + 0x1p-9) + scale * 0x1p-10;
            if (fabs(error) > limit)
                fail_msg("%s [%lld, %lld]: %g for %g", q->name, (long long)r, (long long)c,
                         code * scale, want);
            most[block] = fmaxf(most[block], fabsf(code));
            bias += error * (want < 0 ? -1 : 1);
            spread += error * error;
        }
    /* Truncation instead of rounding would bias every magnitude by a whole deviation. */
    assert_true(fabs(bias) / (double)(rows * columns) <
                0.1 * sqrt(spread / (double)(rows * columns)));
    for (int64_t b = 0; b < blocks * ((rows + 127) / 128); b++)
        assert_true(most[b] == 448);
    free(most);
}

static void fp8_stands_for_the_same_values(void **state)
{
    (void)state;
    char *plain_dir = synth(shape_v3, MH_SYNTH_BF16, 7),
         *fp8_dir = synth(shape_v3, MH_SYNTH_FP8, 7);
    mh_checkpoint *plain = open_clean(plain_dir), *fp8 = open_clean(fp8_dir);
    mh_checkpoint_tensor q = MH_INIT(mh_checkpoint_tensor);
    uint64_t compared = 0;
    for (uint64_t i = 0; i < mh_checkpoint_count(fp8); i++) {
        char scale[160];
        OK(mh_checkpoint_at(fp8, i, &q));
        if (q.dtype != MH_ST_F8_E4M3)
            continue;
        snprintf(scale, sizeof(scale), "%s_scale_inv", q.name);
        mh_checkpoint_tensor s = find(fp8, scale), p = find(plain, q.name);
        assert_stands_for(&q, &s, &p);
        compared++;
    }
    assert_int_equal(compared, 4 * 5 + 3 + 3 * 17 * 3);
    mh_checkpoint_release(plain);
    mh_checkpoint_release(fp8);
    test_remove_dir(plain_dir);
    test_remove_dir(fp8_dir);
}

/* ---- shards ---- */

static void shards_hold_the_same(void **state)
{
    (void)state;
    char *whole_dir = synth(shape_v3, MH_SYNTH_FP8, 7), *dir = test_make_dir();
    mh_synth_params p = params_of(shape_v3, dir, MH_SYNTH_FP8);
    p.shard_bytes = 600000;
    OK(mh_synth(&p));
    mh_checkpoint *whole = open_clean(whole_dir), *parts = open_clean(dir);
    int files = test_count_files(dir);
    assert_true(files > 6); /* config, index, and these: */
    for (int i = 1; i <= files - 2; i++) {
        char name[64];
        struct stat info;
        snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", i, files - 2);
        assert_int_equal(stat(test_path(dir, name), &info), 0);
        assert_true(info.st_size < 600000 + 100000); /* with its header */
    }
    assert_int_equal(mh_checkpoint_count(parts), mh_checkpoint_count(whole));
    for (uint64_t i = 0; i < mh_checkpoint_count(whole); i++) {
        mh_checkpoint_tensor a = MH_INIT(mh_checkpoint_tensor), b = a;
        OK(mh_checkpoint_at(whole, i, &a));
        OK(mh_checkpoint_at(parts, i, &b));
        assert_string_equal(a.name, b.name);
        assert_int_equal(a.bytes, b.bytes);
        assert_memory_equal(a.data, b.data, a.bytes);
    }
    json_t *index = json_load_file(test_path(dir, "model.safetensors.index.json"), 0, NULL);
    assert_int_equal(json_object_size(json_object_get(index, "weight_map")),
                     mh_checkpoint_count(whole)); /* scales too */
    json_decref(index);
    mh_checkpoint_release(whole);
    mh_checkpoint_release(parts);
    test_remove_dir(whole_dir);
    test_remove_dir(dir);
}

/* ---- refusals ---- */

static void what_is_there_is_not_overwritten(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors",
                                        "model-00001-of-00009.safetensors",
                                        "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *dir = test_make_dir();
        mh_synth_params p = params_of(shape_v2_lite, dir, MH_SYNTH_BF16);
        test_write_text(test_path(dir, names[i]), "mine");
        test_write_text(test_path(dir, "tokenizer.json"), "welcome");
        test_failed(names[i], mh_synth(&p), MH_INVALID_ARGUMENT, names[i]);
        char *text = test_read(test_path(dir, names[i]), NULL);
        assert_string_equal(text, "mine");
        free(text);
        assert_int_equal(test_count_files(dir), 2);
        test_remove_dir(dir);
    }
}

struct watch {
    uint64_t calls, last, total, stop_at; /* bytes; stop_at 0: never */
};

static int watch(void *user, uint64_t done, uint64_t total)
{
    struct watch *w = user;
    assert_true(done > w->last && done <= total && (!w->calls || total == w->total));
    w->last = done;
    w->total = total;
    w->calls++;
    return w->stop_at && done >= w->stop_at;
}

static void progress_and_cancelling(void **state)
{
    (void)state;
    char *base = test_make_dir(), made[4096];
    snprintf(made, sizeof(made), "%s/made", base);
    struct watch w = {0};
    mh_synth_params p = params_of(shape_v2_lite, made, MH_SYNTH_BF16);
    p.progress = watch;
    p.user = &w;
    p.shard_bytes = 600000; /* cancelled with several files written */
    w.stop_at = 1500000;
    test_failed("cancelled", mh_synth(&p), MH_CANCELLED, "cancelled");
    assert_true(w.last >= 1500000 && w.last < w.total);
    assert_int_equal(test_count_files(base), 0); /* the folder too */
    p.out = base;
    w = (struct watch){.stop_at = 1500000};
    test_failed("cancelled", mh_synth(&p), MH_CANCELLED, "cancelled");
    assert_int_equal(test_count_files(base), 0); /* but one that was there stays */
    w = (struct watch){0};
    OK(mh_synth(&p));
    assert_int_equal(w.last, w.total);
    mh_checkpoint *cp = open_clean(base);
    uint64_t sum = 0;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    for (uint64_t i = 0; i < mh_checkpoint_count(cp); i++) {
        OK(mh_checkpoint_at(cp, i, &t));
        sum += t.bytes;
    }
    assert_int_equal(sum, w.total);
    mh_checkpoint_release(cp);
    test_remove_dir(base);
}

static void bad_parameters(void **state)
{
    (void)state;
    char *dir = test_make_dir();
    const mh_synth_params good = params_of(shape_v3, dir, MH_SYNTH_BF16);
    mh_synth_params p;
    test_failed("NULL", mh_synth(NULL), MH_INVALID_ARGUMENT, "params");
    p = good, p.struct_size = 0;
    test_failed("size", mh_synth(&p), MH_INVALID_ARGUMENT, "struct_size");
    p = good, p.out = NULL;
    test_failed("out", mh_synth(&p), MH_INVALID_ARGUMENT, "out");
    p = good, p.dtype = 2;
    test_failed("dtype", mh_synth(&p), MH_INVALID_ARGUMENT, "dtype 2");
    p = good, p.layers = -1;
    test_failed("layers", mh_synth(&p), MH_INVALID_ARGUMENT, "layers -1");
    p = good, p.layers = 1025;
    test_failed("layers", mh_synth(&p), MH_BAD_DATA, "num_hidden_layers|1025|1024");
    p = good, p.name = "v4";
    test_failed("name", mh_synth(&p), MH_NOT_FOUND, "'v4'|v2-lite|moonlight");
    p = good, p.name = test_path(dir, "config.txt");
    test_write_text(p.name, "{\"model_type\":\"llama\"}");
    test_failed("config", mh_synth(&p), MH_BAD_DATA, "config.txt|model_type|llama");
    p = good, p.out = test_path(dir, "config.txt");
    test_failed("file", mh_synth(&p), MH_IO_ERROR, "config.txt|Not a directory");
    p = good, p.out = test_path(dir, "a/b");
    test_failed("depth", mh_synth(&p), MH_IO_ERROR, "a/b|No such file");
    assert_int_equal(test_count_files(dir), 1);
    test_remove_dir(dir);
}

/* A whole V3 in bf16 is 1.34 TB: refused before a byte is written, unless the disk has them. */
static void the_disk_is_asked_first(void **state)
{
    (void)state;
    char *dir = test_make_dir();
    mh_synth_params p = params_of("v3", dir, MH_SYNTH_BF16);
    struct watch w = {.stop_at = 1};
    p.progress = watch;
    p.user = &w;
    mh_status status = mh_synth(&p);
    if (w.calls) {
        assert_int_equal(status, MH_CANCELLED);
        assert_int_equal(w.total / 1000000000, 1342);
    } else {
        test_failed("disk", status, MH_IO_ERROR, dir);
        test_failed("disk", status, MH_IO_ERROR, ": 1342| bytes are needed, the disk has ");
    }
    assert_int_equal(test_count_files(dir), 0);
    test_remove_dir(dir);
}

/* ---- the named shapes ---- */

static void the_releases_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t family, scoring, grouped, norm;
        int64_t experts_per_token, n_group, topk_group, positions, mtp;
        int32_t bos, eos;
        double scaling, eps, theta, mscale;
        double parameters; /* 10^9 */
    } releases[] = {
        {"v3", MH_FAMILY_V3, MH_SCORING_SIGMOID, 1, 1, 8, 8, 4, 163840, 1, 0, 1, 2.5, 1e-6, 10000,
         1.0, 671.026},
        {"v2-lite", MH_FAMILY_V2, MH_SCORING_SOFTMAX, 0, 0, 6, 1, 1, 163840, 0, 100000, 100001, 1,
         1e-6, 10000, 0.707, 15.706},
        {"v2", MH_FAMILY_V2, MH_SCORING_SOFTMAX, 1, 0, 6, 8, 3, 163840, 0, 100000, 100001, 16, 1e-6,
         10000, 0.707, 235.741},
        {"moonlight", MH_FAMILY_V3, MH_SCORING_SIGMOID, 0, 1, 6, 1, 1, 8192, 0, 163584, 163586,
         2.446, 1e-5, 50000, 0, 15.960},
    };
    for (size_t i = 0; i < sizeof(releases) / sizeof(releases[0]); i++) {
        json_t *json = synth_named_config(releases[i].name);
        char *text = json_dumps(json, 0);
        mh_config c = MH_INIT(mh_config);
        mh_config_sizes s = MH_INIT(mh_config_sizes);
        OK(mh_config_parse(text, strlen(text), releases[i].name, &c));
        OK(mh_config_get_sizes(&c, &s));
        assert_int_equal(c.family, releases[i].family);
        assert_int_equal(c.scoring, releases[i].scoring);
        assert_int_equal(c.grouped, releases[i].grouped);
        assert_int_equal(c.norm_topk_prob, releases[i].norm);
        assert_int_equal(c.num_experts_per_tok, releases[i].experts_per_token);
        assert_int_equal(c.n_group, releases[i].n_group);
        assert_int_equal(c.topk_group, releases[i].topk_group);
        assert_int_equal(c.max_position_embeddings, releases[i].positions);
        assert_int_equal(c.num_nextn_predict_layers, releases[i].mtp);
        assert_int_equal(c.bos_token_id, releases[i].bos);
        assert_int_equal(c.eos_token_ids[0], releases[i].eos);
        assert_true(c.routed_scaling_factor == releases[i].scaling);
        assert_true(c.rms_norm_eps == releases[i].eps && c.rope_theta == releases[i].theta);
        assert_true(c.rope_yarn == (releases[i].mscale != 0));
        assert_true(c.rope_mscale == releases[i].mscale);
        assert_true(c.rope_mscale_all_dim == releases[i].mscale);
        if (fabs(1e-9 * (double)s.parameters - releases[i].parameters) > 0.0005)
            fail_msg("%s: %llu parameters", releases[i].name, (unsigned long long)s.parameters);
        free(text);
        json_decref(json);
    }
    assert_null(synth_named_config("v4"));
}

/* ---- it computes ---- */

static void a_model_of_it_stays_sane(void **state)
{
    (void)state;
    char *dir = synth(shape_v3, MH_SYNTH_FP8, 7);
    mh_checkpoint *cp = open_clean(dir);
    mh_runtime *runtime;
    mh_device *device;
    mh_model *model;
    mh_session *session;
    OK(mh_runtime_create(NULL, &runtime));
    OK(mh_device_open(runtime, "host", NULL, &device));
    OK(mh_model_load(cp, &device, 1, NULL, &model));
    OK(mh_session_create(model, NULL, &session));
    static const int32_t ids[] = {0, 17, 4, 300, 511, 9, 9, 2};
    float logits[512];
    OK(mh_session_run(session, ids, 8, NULL));
    OK(mh_session_logits(session, logits));
    double squares = 0;
    for (int i = 0; i < 512; i++)
        squares += (double)logits[i] * logits[i];
    /* The head's gain is 4 on a normalised vector whose norm weights are about 1. */
    double deviation = sqrt(squares / 512);
    if (!(deviation > 2 && deviation < 8))
        fail_msg("the logits deviate by %g", deviation);
    mh_session_release(session);
    mh_model_release(model);
    mh_device_release(device);
    mh_runtime_release(runtime);
    mh_checkpoint_release(cp);
    test_remove_dir(dir);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    snprintf(shape_v3, sizeof(shape_v3), "%s/v3/config.json", argv[1]);
    snprintf(shape_v2_lite, sizeof(shape_v2_lite), "%s/v2-lite/config.json", argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_gives_the_same_bytes_everywhere),
        cmocka_unit_test(clean_and_as_configured),
        cmocka_unit_test(f16_holds_the_same_values),
        cmocka_unit_test(values_are_in_their_ranges),
        cmocka_unit_test(fp8_stands_for_the_same_values),
        cmocka_unit_test(shards_hold_the_same),
        cmocka_unit_test(what_is_there_is_not_overwritten),
        cmocka_unit_test(progress_and_cancelling),
        cmocka_unit_test(bad_parameters),
        cmocka_unit_test(the_disk_is_asked_first),
        cmocka_unit_test(the_releases_by_name),
        cmocka_unit_test(a_model_of_it_stays_sane),
    };
    return cmocka_run_group_tests_name("synth", tests, NULL, NULL);
}
