/*
 * Checkpoint folders: every golden one opens and checks clean; copies of them with one thing wrong
 * are refused by name; and a whole DeepSeek-V3 in sparse files, named from the release's own table.
 *
 * argv: GOLDEN_DIR MODELS_DIR
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moehal-model/checkpoint.h>

#include "support.h"

static const char *golden_dir, *models_dir;

/* ---- whole ---- */

static void golden_checkpoints_are_clean(void **state)
{
    (void)state;
    /* Numbers of tensors counted from the format's table: without scales a MoE layer of E experts
     * has 3 E + 3 + 1 (gate), + 1 (bias) beside the 9 of norms and attention (7 without q_lora). */
    static const struct {
        const char *name;
        int is_model;
        uint64_t count, mtp;
    } cases[] = {
        {"v3", 0, 3 + (9 + 3) + 4 * (9 + 48 + 3 + 2) + 6, 9 + 48 + 3 + 2 + 6},
        {"v3-fp8", 0, 3 + (9 + 3 + 8) + 2 * (9 + 5 + 2 * (24 + 3) + 2), 0},
        {"v2-lite", 0, 3 + (7 + 3) + 3 * (7 + 36 + 3 + 1), 0},
        {"v2", 0, 3 + (9 + 3) + 2 * (9 + 72 + 3 + 1), 0},
        {"moonlight", 0, 3 + (7 + 3) + 2 * (7 + 48 + 3 + 2), 0},
        /* The main model's embedding and head serve its MTP layer too. */
        {"fairy", 1, 3 + (9 + 3 + 8) + 6 * (9 + 5 + 2 * (48 + 3) + 2) + 4,
         9 + 5 + 2 * (48 + 3) + 2 + 4},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mh_checkpoint *cp;
        mh_checkpoint_extras extras = MH_INIT(mh_checkpoint_extras);
        OK(mh_checkpoint_open(test_path(cases[i].is_model ? models_dir : golden_dir, cases[i].name),
                              &cp));
        OK(mh_checkpoint_check(cp));
        OK(mh_checkpoint_get_extras(cp, &extras));
        if (mh_checkpoint_count(cp) != cases[i].count || extras.mtp != cases[i].mtp ||
            extras.unknown)
            fail_msg("%s: %llu tensors, %llu of MTP, %llu unknown (%s)", cases[i].name,
                     (unsigned long long)mh_checkpoint_count(cp), (unsigned long long)extras.mtp,
                     (unsigned long long)extras.unknown, extras.first_unknown);
        mh_checkpoint_release(cp);
    }
}

static mh_checkpoint *open_golden(const char *name)
{
    mh_checkpoint *cp;
    OK(mh_checkpoint_open(test_path(golden_dir, name), &cp));
    return cp;
}

static void tensors_by_name_and_by_place(void **state)
{
    (void)state;
    mh_checkpoint *cp = open_golden("v3");
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor), found = t, before = t;
    int shards[2] = {0, 0};
    for (uint64_t i = 0; i < mh_checkpoint_count(cp); i++) {
        OK(mh_checkpoint_at(cp, i, &t));
        OK(mh_checkpoint_find(cp, t.name, &found));
        assert_memory_equal(&found, &t, sizeof(t));
        assert_true(!i || strcmp(before.name, t.name) < 0);
        shards[strstr(t.file, "model-00002-of-00002") != NULL]++;
        before = t;
    }
    assert_true(shards[0] > 100 && shards[1] > 100);
    test_failed("past the end", mh_checkpoint_at(cp, mh_checkpoint_count(cp), &t), MH_NOT_FOUND,
                "v3");
    test_failed("no such", mh_checkpoint_find(cp, "model.layers.9.x", &t), MH_NOT_FOUND,
                "v3|'model.layers.9.x'");
    mh_checkpoint_tensor older = {.struct_size = offsetof(mh_checkpoint_tensor, dtype)};
    OK(mh_checkpoint_find(cp, "lm_head.weight", &older)); /* as much as there is room for */
    assert_string_equal(older.name, "lm_head.weight");
    assert_true(!older.dtype && !older.data && !older.bytes);
    older.struct_size = 0;
    test_failed("size", mh_checkpoint_find(cp, "lm_head.weight", &older), MH_INVALID_ARGUMENT,
                "struct_size|0");
    assert_non_null(strstr(mh_checkpoint_dir(cp), "v3"));
    assert_int_equal(mh_checkpoint_config(cp)->num_hidden_layers, 4);
    mh_checkpoint_release(cp);
}

static void *use_and_release(void *arg)
{
    mh_checkpoint *cp = arg;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < mh_checkpoint_count(cp); i++)
        if (!mh_checkpoint_at(cp, i, &t) && !mh_checkpoint_find(cp, t.name, &t))
            sum += *(const unsigned char *)t.data;
    mh_checkpoint_release(cp);
    return (void *)(uintptr_t)sum;
}

/* The last of several threads closes it, whichever that is. */
static void shared_by_threads(void **state)
{
    (void)state;
    mh_checkpoint *cp = open_golden("v2-lite");
    pthread_t threads[4];
    void *sums[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, use_and_release, mh_checkpoint_retain(cp)), 0);
    mh_checkpoint_release(cp);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], &sums[i]);
    for (int i = 1; i < 4; i++)
        assert_ptr_equal(sums[i], sums[0]);
    mh_checkpoint_release(NULL);
    assert_null(mh_checkpoint_retain(NULL));
}

/* ---- one thing wrong ---- */

enum change { DROP, RETYPE, RESHAPE, REPLACE, ADD };

static const struct changed {
    const char *golden;
    enum change change;
    const char *tensor;
    uint32_t dtype;
    int64_t rows, columns; /* of RESHAPE, REPLACE (zeros) and ADD; columns 0: a vector */
    mh_status want;
    const char *words;
} changes[] = {
    {"v2", DROP, "model.layers.2.self_attn.o_proj.weight", 0, 0, 0, MH_NOT_FOUND,
     "model.layers.2.self_attn.o_proj.weight|missing"},
    {"v2", DROP, "lm_head.weight", 0, 0, 0, MH_NOT_FOUND, "lm_head.weight|missing"},
    {"v2", DROP, "model.layers.1.mlp.experts.23.down_proj.weight", 0, 0, 0, MH_NOT_FOUND,
     "experts.23.down_proj"},
    {"v2", DROP, "model.layers.0.self_attn.q_a_layernorm.weight", 0, 0, 0, MH_NOT_FOUND,
     "q_a_layernorm"},
    {"moonlight", DROP, "model.layers.1.mlp.gate.e_score_correction_bias", 0, 0, 0, MH_NOT_FOUND,
     "layers.1.mlp.gate.e_score_correction_bias"},
    {"v2", RETYPE, "model.norm.weight", MH_ST_I16, 0, 0, MH_BAD_DATA,
     "model.safetensors|'model.norm.weight'|I16|BF16"},
    {"v2", RETYPE, "model.layers.0.mlp.up_proj.weight", MH_ST_U16, 0, 0, MH_BAD_DATA,
     "mlp.up_proj|U16|F8_E4M3"},
    {"v2", RETYPE, "model.layers.0.mlp.up_proj.weight", MH_ST_F16, 0, 0, MH_OK, ""},
    {"v2", RETYPE, "model.norm.weight", MH_ST_F16, 0, 0, MH_OK, ""},
    {"v2", REPLACE, "model.norm.weight", MH_ST_F32, 128, 0, MH_OK, ""},
    {"v2", REPLACE, "model.embed_tokens.weight", MH_ST_F8_E4M3, 320, 128, MH_BAD_DATA,
     "embed_tokens|F8_E4M3|must be"},
    {"v2", RESHAPE, "model.layers.0.mlp.up_proj.weight", 0, 128, 200, MH_BAD_DATA,
     "mlp.up_proj|[128, 200]|[200, 128]"},
    {"v2", RESHAPE, "model.layers.0.mlp.up_proj.weight", 0, 25600, 0, MH_BAD_DATA,
     "mlp.up_proj|[25600]|[200, 128]"},
    {"v2", RESHAPE, "model.norm.weight", 0, 128, 1, MH_BAD_DATA, "norm|[128, 1]|[128]"},
    {"v2", REPLACE, "model.layers.2.input_layernorm.weight", MH_ST_BF16, 127, 0, MH_BAD_DATA,
     "layers.2.input_layernorm|[127]|[128]"},
    {"moonlight", REPLACE, "model.layers.1.mlp.gate.e_score_correction_bias", MH_ST_BF16, 16, 0,
     MH_OK, ""},
    {"moonlight", RETYPE, "model.layers.1.mlp.gate.e_score_correction_bias", MH_ST_I32, 0, 0,
     MH_BAD_DATA, "e_score_correction_bias|I32"},
    {"v3-fp8", DROP, "model.layers.1.self_attn.kv_b_proj.weight_scale_inv", 0, 0, 0, MH_NOT_FOUND,
     "kv_b_proj.weight_scale_inv|missing"},
    {"v3-fp8", RETYPE, "model.layers.1.self_attn.kv_b_proj.weight_scale_inv", MH_ST_I32, 0, 0,
     MH_BAD_DATA, "kv_b_proj.weight_scale_inv|I32|F32"},
    {"v3-fp8", RESHAPE, "model.layers.0.mlp.up_proj.weight_scale_inv", 0, 3, 4, MH_BAD_DATA,
     "up_proj.weight_scale_inv|[3, 4]|[4, 3]"}, /* of 456 x 320 */
    {"v3-fp8", RETYPE, "model.layers.0.mlp.up_proj.weight", MH_ST_F8_E5M2, 0, 0, MH_BAD_DATA,
     "up_proj|F8_E5M2|F8_E4M3"},
    {"v3-fp8", RETYPE, "model.layers.0.mlp.up_proj.weight", MH_ST_I8, 0, 0, MH_BAD_DATA, "I8"},
    /* A projection may be of a plain type, whatever the config says; its scale is then unknown. */
    {"v3-fp8", REPLACE, "model.layers.0.mlp.up_proj.weight", MH_ST_BF16, 456, 320, MH_OK, ""},
    {"v2", ADD, "model.vision.weight", MH_ST_BF16, 4, 4, MH_OK, "model.vision.weight"},
    {"v2", ADD, "model.layers.3.input_layernorm.weight", MH_ST_BF16, 4, 0, MH_OK,
     "model.layers.3.input_layernorm.weight"}, /* beyond the last layer, but no MTP is announced */
    {"v2", ADD, "model.layers.1.self_attn.rotary_emb.inv_freq", MH_ST_F32, 4, 0, MH_OK, ""},
};

/* Writes a copy of a golden checkpoint with the one change. */
static void write_changed(const char *dir, const struct changed *c)
{
    mh_checkpoint *cp = open_golden(c->golden);
    uint64_t count = mh_checkpoint_count(cp), used = 0, hits = c->change == ADD;
    mh_safetensors_entry *entries = calloc(count + 1, sizeof(*entries));
    void *zeros = calloc(4, (size_t)(c->rows * (c->columns ? c->columns : 1)) + 1);
    const mh_safetensors_entry made = {
        c->tensor, c->dtype, c->columns ? 2 : 1, {c->rows, c->columns}, zeros};
    for (uint64_t i = 0; i < count; i++) {
        mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
        OK(mh_checkpoint_at(cp, i, &t));
        mh_safetensors_entry e = {t.name, t.dtype, t.rank, {t.shape[0], t.shape[1]}, t.data};
        bool hit = c->change != ADD && !strcmp(t.name, c->tensor);
        hits += hit;
        if (hit && c->change == DROP)
            continue;
        if (hit && c->change == RETYPE)
            e.dtype = c->dtype;
        if (hit && c->change == RESHAPE) {
            e.rank = c->columns ? 2 : 1;
            e.shape[0] = c->rows;
            e.shape[1] = c->columns;
        }
        entries[used++] = hit && c->change == REPLACE ? made : e;
    }
    if (c->change == ADD)
        entries[used++] = made;
    assert_int_equal(hits, 1);
    OK(mh_safetensors_write(test_path(dir, "model.safetensors"), entries, used));
    char from[4096];
    snprintf(from, sizeof(from), "%s/%s/config.json", golden_dir, c->golden);
    test_copy(from, test_path(dir, "config.json"));
    free(entries);
    free(zeros);
    mh_checkpoint_release(cp);
}

static void one_thing_wrong_is_named(void **state)
{
    (void)state;
    char *dir = test_make_dir();
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        const struct changed *c = &changes[i];
        mh_checkpoint *cp;
        mh_checkpoint_extras extras = MH_INIT(mh_checkpoint_extras);
        write_changed(dir, c);
        OK(mh_checkpoint_open(dir, &cp));
        mh_status status = mh_checkpoint_check(cp);
        if (c->want) {
            test_failed(c->tensor, status, c->want, dir);
            test_failed(c->tensor, status, c->want, c->words);
        } else {
            OK(status);
            OK(mh_checkpoint_get_extras(cp, &extras));
            assert_string_equal(extras.first_unknown, c->words);
            assert_int_equal(extras.unknown, *c->words != 0);
        }
        mh_checkpoint_release(cp);
    }
    test_remove_dir(dir);
}

/* ---- folders ---- */

#define SHARD_1 "model-00001-of-00002.safetensors"
#define SHARD_2 "model-00002-of-00002.safetensors"

static char *copy_of_v3(void)
{
    static const char *const files[] = {"config.json", SHARD_1, SHARD_2,
                                        "model.safetensors.index.json"};
    char *dir = test_make_dir();
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char from[4096];
        snprintf(from, sizeof(from), "%s/v3/%s", golden_dir, files[i]);
        test_copy(from, test_path(dir, files[i]));
    }
    return dir;
}

static void broken_indices(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        mh_status want;
        const char *words;
    } cases[] = {
        {"", MH_BAD_DATA, "index.json|not valid JSON"},
        {"[]", MH_BAD_DATA, "index.json|not an object"},
        {"{}", MH_BAD_DATA, "index.json|weight_map"},
        {"{\"weight_map\":[]}", MH_BAD_DATA, "index.json|weight_map"},
        {"{\"weight_map\":{\"x\":7}}", MH_BAD_DATA, "weight_map['x']|no string"},
        {"{\"weight_map\":{\"x\":\"\"}}", MH_BAD_DATA, "weight_map['x']|beside it"},
        {"{\"weight_map\":{\"x\":\"..\"}}", MH_BAD_DATA, "weight_map['x']|..|beside it"},
        {"{\"weight_map\":{\"x\":\"../v3/" SHARD_1 "\"}}", MH_BAD_DATA, "['x']|../v3|beside it"},
        {"{\"weight_map\":{\"x\":\"/tmp/" SHARD_1 "\"}}", MH_BAD_DATA, "['x']|/tmp|beside it"},
        {"{\"weight_map\":{\"x\":\"./" SHARD_1 "\"}}", MH_BAD_DATA, "['x']|beside it"},
        {"{\"weight_map\":{\"x\":\"model-00003.safetensors\"}}", MH_NOT_FOUND,
         "model-00003.safetensors|No such file"},
        {"{\"weight_map\":{\"x\":\"" SHARD_1 "\"}}", MH_BAD_DATA,
         "'x' is not in " SHARD_1 "|index.json"},
        {"{\"weight_map\":{\"lm_head.weight\":\"" SHARD_1
         "\",\"model.embed_tokens.weight\":\"" SHARD_1 "\"}}",
         MH_BAD_DATA, "'model.embed_tokens.weight' is not in " SHARD_1}, /* but in the other */
        {"{\"weight_map\":{\"x\":\"config.json\"}}", MH_BAD_DATA, "config.json|header length"},
    };
    char *dir = copy_of_v3();
    mh_checkpoint *cp;
    OK(mh_checkpoint_open(dir, &cp));
    mh_checkpoint_release(cp);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_write_text(test_path(dir, "model.safetensors.index.json"), cases[i].index);
        cp = (mh_checkpoint *)(uintptr_t)1;
        test_failed(cases[i].index, mh_checkpoint_open(dir, &cp), cases[i].want, cases[i].words);
        assert_null(cp);
    }
    /* With the second shard left out all is well until the tensors are counted. */
    test_write_text(test_path(dir, "model.safetensors.index.json"), "{\"weight_map\":{}}");
    OK(mh_checkpoint_open(dir, &cp));
    assert_int_equal(mh_checkpoint_count(cp), 0);
    test_failed("no tensors", mh_checkpoint_check(cp), MH_NOT_FOUND, "model.embed_tokens.weight");
    mh_checkpoint_release(cp);
    test_remove_dir(dir);
}

static void shards_that_are_missing_broken_or_twice_there(void **state)
{
    (void)state;
    char *dir = copy_of_v3();
    mh_checkpoint *cp;
    unlink(test_path(dir, SHARD_2));
    test_failed("missing shard", mh_checkpoint_open(dir, &cp), MH_NOT_FOUND,
                SHARD_2 "|No such file");
    test_write_text(test_path(dir, SHARD_2), "short");
    test_failed("short shard", mh_checkpoint_open(dir, &cp), MH_BAD_DATA, SHARD_2 "|5 bytes");
    uint64_t bytes;
    void *shard = test_read(test_path(dir, SHARD_1), &bytes);
    test_write(test_path(dir, SHARD_1), shard, bytes - 1);
    test_failed("truncated shard", mh_checkpoint_open(dir, &cp), MH_BAD_DATA,
                SHARD_1 "|data_offsets");
    free(shard);
    test_remove_dir(dir);

    dir = copy_of_v3();
    test_copy(test_path(dir, SHARD_1), test_path(dir, "twice.safetensors"));
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_open_file(test_path(dir, SHARD_1), &cp));
    OK(mh_checkpoint_at(cp, 0, &t));
    OK(mh_checkpoint_at(cp, 1, &t));
    char index[1024], first[256];
    snprintf(first, sizeof(first), "%s", t.name);
    OK(mh_checkpoint_at(cp, 0, &t));
    snprintf(index, sizeof(index),
             "{\"weight_map\":{\"%s\":\"" SHARD_1 "\",\"%s\":\"twice.safetensors\"}}", t.name,
             first);
    mh_checkpoint_release(cp);
    test_write_text(test_path(dir, "model.safetensors.index.json"), index);
    test_failed("in two shards", mh_checkpoint_open(dir, &cp), MH_BAD_DATA,
                "is also in|" SHARD_1 "|twice.safetensors");
    test_remove_dir(dir);
}

static void folders_that_hold_no_checkpoint(void **state)
{
    (void)state;
    char *dir = test_make_dir(), from[4096], *path = calloc(1, 5001);
    mh_checkpoint *cp = (mh_checkpoint *)(uintptr_t)1;
    test_failed("empty", mh_checkpoint_open(dir, &cp), MH_NOT_FOUND, "config.json");
    assert_null(cp);
    snprintf(from, sizeof(from), "%s/v2/config.json", golden_dir);
    test_copy(from, test_path(dir, "config.json"));
    test_failed("config only", mh_checkpoint_open(dir, &cp), MH_NOT_FOUND, "model.safetensors");
    memset(path, 'x', 5000);
    cp = (mh_checkpoint *)(uintptr_t)1;
    test_failed("long", mh_checkpoint_open(path, &cp), MH_INVALID_ARGUMENT, "too long");
    assert_null(cp); /* what a caller then releases */
    test_failed("NULL", mh_checkpoint_open(NULL, &cp), MH_INVALID_ARGUMENT, "dir");
    test_failed("NULL", mh_checkpoint_open(dir, NULL), MH_INVALID_ARGUMENT, "out");
    free(path);
    test_remove_dir(dir);
}

/* A single file has no config to be checked against. */
static void a_file_is_not_checked(void **state)
{
    (void)state;
    mh_checkpoint *cp;
    mh_checkpoint_extras extras = MH_INIT(mh_checkpoint_extras);
    char path[4096];
    snprintf(path, sizeof(path), "%s/v2/model.safetensors", golden_dir);
    OK(mh_checkpoint_open_file(path, &cp));
    assert_null(mh_checkpoint_config(cp));
    test_failed("check", mh_checkpoint_check(cp), MH_INVALID_ARGUMENT, "no config");
    test_failed("extras", mh_checkpoint_get_extras(cp, &extras), MH_INVALID_ARGUMENT, "extras");
    mh_checkpoint_release(cp);
}

/* ---- a whole DeepSeek-V3 ---- */

#define V3_SHARDS 163

/* Headers of the release, as its table has them; the data are holes of the file system. */
struct release {
    char *header[V3_SHARDS];
    size_t length[V3_SHARDS], room[V3_SHARDS];
    uint64_t data[V3_SHARDS];
    char *index;
    size_t index_length;
    uint64_t tensors, bytes;
    int layer;
};

static void put(struct release *r, const char *dtype, uint64_t rows, uint64_t columns,
                const char *name)
{
    char full[160], entry[384];
    uint64_t size = !strcmp(dtype, "F32") ? 4 : !strcmp(dtype, "BF16") ? 2 : 1;
    uint64_t bytes = rows * (columns ? columns : 1) * size;
    int shard = (int)(r->tensors % V3_SHARDS);
    if (r->layer >= 0)
        snprintf(full, sizeof(full), "model.layers.%d.%s", r->layer, name);
    else
        snprintf(full, sizeof(full), "%s", name);
    char shape[64];
    if (columns)
        snprintf(shape, sizeof(shape), "%llu,%llu", (unsigned long long)rows,
                 (unsigned long long)columns);
    else
        snprintf(shape, sizeof(shape), "%llu", (unsigned long long)rows);
    snprintf(entry, sizeof(entry),
             "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],"
             "\"data_offsets\":[%llu,%llu]}",
             r->length[shard] ? "," : "{", full, dtype, shape, (unsigned long long)r->data[shard],
             (unsigned long long)(r->data[shard] + bytes));
    size_t length = strlen(entry);
    if (r->length[shard] + length + 2 > r->room[shard]) {
        r->room[shard] = 2 * r->room[shard] + 4096;
        r->header[shard] = realloc(r->header[shard], r->room[shard]);
        assert_non_null(r->header[shard]);
    }
    memcpy(r->header[shard] + r->length[shard], entry, length + 1);
    r->length[shard] += length;
    r->data[shard] += bytes;
    r->index_length += (size_t)sprintf(r->index + r->index_length, "%s\"%s\":\"s%03d\"",
                                       r->tensors ? "," : "{\"weight_map\":{", full, shard);
    r->tensors++;
    r->bytes += bytes;
}

/* "+S": with its scales. */
static void put_fp8(struct release *r, uint64_t rows, uint64_t columns, const char *name)
{
    char full[96];
    snprintf(full, sizeof(full), "%s.weight", name);
    put(r, "F8_E4M3", rows, columns, full);
    snprintf(full, sizeof(full), "%s.weight_scale_inv", name);
    put(r, "F32", (rows + 127) / 128, (columns + 127) / 128, full);
}

static void put_mlp(struct release *r, const char *prefix, uint64_t width)
{
    char name[64];
    snprintf(name, sizeof(name), "%s.gate_proj", prefix);
    put_fp8(r, width, 7168, name);
    snprintf(name, sizeof(name), "%s.up_proj", prefix);
    put_fp8(r, width, 7168, name);
    snprintf(name, sizeof(name), "%s.down_proj", prefix);
    put_fp8(r, 7168, width, name);
}

static void put_layer(struct release *r, int layer)
{
    r->layer = layer;
    put(r, "BF16", 7168, 0, "input_layernorm.weight");
    put(r, "BF16", 7168, 0, "post_attention_layernorm.weight");
    put_fp8(r, 1536, 7168, "self_attn.q_a_proj");
    put(r, "BF16", 1536, 0, "self_attn.q_a_layernorm.weight");
    put_fp8(r, 24576, 1536, "self_attn.q_b_proj");
    put_fp8(r, 576, 7168, "self_attn.kv_a_proj_with_mqa");
    put(r, "BF16", 512, 0, "self_attn.kv_a_layernorm.weight");
    put_fp8(r, 32768, 512, "self_attn.kv_b_proj");
    put_fp8(r, 7168, 16384, "self_attn.o_proj");
    if (layer < 3) {
        put_mlp(r, "mlp", 18432);
    } else {
        put(r, "BF16", 256, 7168, "mlp.gate.weight");
        put(r, "F32", 256, 0, "mlp.gate.e_score_correction_bias");
        for (int e = 0; e < 256; e++) {
            char prefix[32];
            snprintf(prefix, sizeof(prefix), "mlp.experts.%d", e);
            put_mlp(r, prefix, 2048);
        }
        put_mlp(r, "mlp.shared_experts", 2048);
    }
    if (layer == 61) {
        put(r, "BF16", 7168, 14336, "eh_proj.weight");
        put(r, "BF16", 7168, 0, "enorm.weight");
        put(r, "BF16", 7168, 0, "hnorm.weight");
        put(r, "BF16", 129280, 7168, "embed_tokens.weight");
        put(r, "BF16", 7168, 0, "shared_head.norm.weight");
        put(r, "BF16", 129280, 7168, "shared_head.head.weight");
    }
    r->layer = -1;
}

static void make_release(struct release *r)
{
    *r = (struct release){.layer = -1, .index = malloc(16 << 20)};
    assert_non_null(r->index);
    put(r, "BF16", 129280, 7168, "model.embed_tokens.weight");
    put(r, "BF16", 129280, 7168, "lm_head.weight");
    put(r, "BF16", 7168, 0, "model.norm.weight");
    for (int i = 0; i < 62; i++)
        put_layer(r, i);
    memcpy(r->index + r->index_length, "}}", 3);
}

/* Returns 0 where this file system or process may not have files of this size. */
static int write_release(struct release *r, const char *dir)
{
    int done = 1;
    for (int s = 0; s < V3_SHARDS; s++) {
        char name[16];
        snprintf(name, sizeof(name), "s%03d", s);
        memcpy(r->header[s] + r->length[s], "}", 2);
        test_write_safetensors(test_path(dir, name), r->header[s], 0);
        done &= !truncate(test_path(dir, name), (off_t)(9 + r->length[s] + r->data[s]));
        free(r->header[s]);
    }
    test_write_text(test_path(dir, "model.safetensors.index.json"), r->index);
    free(r->index);
    return done;
}

static const char v3_config[] =
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"vocab_size\":129280,\"hidden_size\":7168,"
    "\"num_hidden_layers\":61,\"num_attention_heads\":128,\"q_lora_rank\":1536,"
    "\"kv_lora_rank\":512,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
    "\"intermediate_size\":18432,\"moe_intermediate_size\":2048,\"first_k_dense_replace\":3,"
    "\"n_routed_experts\":256,\"n_shared_experts\":1,\"num_experts_per_tok\":8,\"n_group\":8,"
    "\"topk_group\":4,\"routed_scaling_factor\":2.5,\"max_position_embeddings\":163840,"
    "\"num_nextn_predict_layers\":1}";

static void the_whole_release(void **state)
{
    (void)state;
    static struct release r;
    char *dir = test_make_dir();
    make_release(&r);
    assert_int_equal(r.tensors, 91991);
    assert_int_equal(r.bytes >> 30, 641);
    if (!write_release(&r, dir)) {
        test_remove_dir(dir);
        skip(); /* no sparse files of 4 GB here */
    }
    test_write_text(test_path(dir, "config.json"), v3_config);
    mh_checkpoint *cp;
    mh_checkpoint_extras extras = MH_INIT(mh_checkpoint_extras);
    OK(mh_checkpoint_open(dir, &cp));
    assert_int_equal(mh_checkpoint_count(cp), 91991);
    OK(mh_checkpoint_check(cp));
    OK(mh_checkpoint_get_extras(cp, &extras));
    assert_int_equal(extras.mtp, 1564);
    assert_int_equal(extras.unknown, 0);
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    OK(mh_checkpoint_find(cp, "model.layers.60.mlp.experts.255.down_proj.weight", &t));
    assert_int_equal(((const unsigned char *)t.data)[t.bytes - 1], 0); /* it can be read */
    mh_checkpoint_release(cp);
    test_remove_dir(dir);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    golden_dir = argv[1];
    models_dir = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_checkpoints_are_clean),
        cmocka_unit_test(tensors_by_name_and_by_place),
        cmocka_unit_test(shared_by_threads),
        cmocka_unit_test(one_thing_wrong_is_named),
        cmocka_unit_test(broken_indices),
        cmocka_unit_test(shards_that_are_missing_broken_or_twice_there),
        cmocka_unit_test(folders_that_hold_no_checkpoint),
        cmocka_unit_test(a_file_is_not_checked),
        cmocka_unit_test(the_whole_release),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
