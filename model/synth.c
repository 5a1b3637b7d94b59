/*
 * synth.c: random checkpoints. Every value comes from a counter through an integer hash, and every
 * float step is exact or rounded once, so that a seed gives the same bytes everywhere.
 */
#include <moehal-model/synth.h>

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <moehal-model/checkpoint.h>

#include "json.h"
#include "synth_config.h"
#include "tensors.h"

#define SHARD_BYTES UINT64_C(5000000000)
#define BLOCK 128

struct entry {
    struct model_tensor tensor;
    bool fp8;
    uint64_t bytes; /* with scales */
};

struct synth {
    const mh_synth_params *params;
    json_t *json;
    mh_config config;
    bool made_directory;
    struct entry *entries;
    uint64_t count, room, total, done;
    uint64_t shards, shards_done;
    float *rows; /* BLOCK rows of the widest matrix */
    uint8_t *out;
};

/* ---- values ---- */

static uint64_t hash(uint64_t x)
{
    x += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

/* Four 16-bit uniforms make a good enough bell of the given deviation. */
static void normal_values(float *out, int64_t count, uint64_t key, uint64_t first, float deviation)
{
    float unit = deviation / 37837.22f; /* sqrt(4 * (2^32 - 1) / 12) */
    for (int64_t i = 0; i < count; i++) {
        uint64_t h = hash(key + first + (uint64_t)i);
        int32_t sum = (int32_t)(h & 0xFFFF) + (int32_t)(h >> 16 & 0xFFFF) +
                      (int32_t)(h >> 32 & 0xFFFF) + (int32_t)(h >> 48);
        out[i] = (float)(sum - 131070) * unit;
    }
}

static uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* A narrower format's bits, without the sign: `fraction` bits after those of the exponent, whose
 * least normal number is 2^least. Nearest even, of a magnitude that the format has. */
static uint32_t narrowed(float value, int fraction, int least)
{
    uint32_t bits, shift = 23 - (uint32_t)fraction;
    float magnitude = fabsf(value);
    memcpy(&bits, &magnitude, 4);
    if (bits < (uint32_t)(127 + least) << 23) { /* steps of 2^(least - fraction) */
        uint32_t added = (uint32_t)(150 + least - fraction) << 23; /* a step is its last place */
        float base;
        memcpy(&base, &added, 4);
        magnitude += base;
        memcpy(&bits, &magnitude, 4);
        return bits - added;
    }
    bits += (1u << (shift - 1)) - 1 + (bits >> shift & 1);
    return (bits - ((uint32_t)(126 + least) << 23)) >> shift;
}

/* Of a magnitude below 65520. */
static uint16_t to_f16(float value)
{
    return (uint16_t)((signbit(value) ? 0x8000u : 0) | narrowed(value, 10, -14));
}

/* What is neither FP8 nor f32. */
static void put_half(struct synth *s, int64_t i, float value)
{
    ((uint16_t *)(void *)s->out)[i] =
        s->params->dtype == MH_SYNTH_F16 ? to_f16(value) : to_bf16(value);
}

/* e4m3fn, of a magnitude of at most 448. */
static uint8_t to_fp8(float value)
{
    uint32_t code = narrowed(value, 3, -6);
    return (uint8_t)((signbit(value) ? 0x80u : 0) | (code > 0x7E ? 0x7E : code));
}

/* Values that keep activations in a sane range through any number of layers. */
static float deviation_of(const struct model_tensor *t)
{
    switch (t->id) {
    case TENSOR_EMBEDDING:
        return 1;
    case TENSOR_HEAD:
        return (float)(4 / sqrt((double)t->columns));
    case TENSOR_ROUTER:
        return (float)(1.5 / sqrt((double)t->columns));
    default:
        return (float)(1 / sqrt((double)t->columns));
    }
}

/* ---- the list of what is written ---- */

static mh_status add_entry(void *context, const struct model_tensor *tensor)
{
    struct synth *s = context;
    if (s->count == s->room) {
        uint64_t room = s->room ? 2 * s->room : 1024;
        struct entry *grown = realloc(s->entries, room * sizeof(*grown));
        if (!grown)
            return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a list of tensors");
        s->entries = grown;
        s->room = room;
    }
    struct entry *e = &s->entries[s->count++];
    *e = (struct entry){.tensor = *tensor};
    e->fp8 = s->params->dtype == MH_SYNTH_FP8 && tensor->may_be_fp8;
    e->bytes = model_tensor_bytes(tensor, e->fp8);
    if (__builtin_add_overflow(s->total, e->bytes, &s->total))
        return mh_fail(MH_BAD_DATA, "%s: wants more than 2^64 bytes", s->params->name);
    return MH_OK;
}

/* ---- writing one tensor ---- */

static mh_status append(struct synth *s, mh_safetensors_writer *w, const void *data, uint64_t bytes)
{
    mh_status status = mh_safetensors_append(w, data, bytes);
    s->done += bytes;
    if (!status && s->params->progress && s->params->progress(s->params->user, s->done, s->total))
        status = mh_fail(MH_CANCELLED, "synth was cancelled");
    return status;
}

static mh_status write_vector(struct synth *s, mh_safetensors_writer *w,
                              const struct model_tensor *t, uint64_t key)
{
    for (int64_t i = 0; i < t->rows; i++) {
        float uniform = (float)(hash(key + (uint64_t)i) >> 40) * 0x1p-24f;
        if (t->id == TENSOR_ROUTER_BIAS)
            s->rows[i] = 2.0f + 0.3f * uniform;
        else
            put_half(s, i, 0.5f + uniform);
    }
    if (t->id == TENSOR_ROUTER_BIAS)
        return append(s, w, s->rows, 4 * (uint64_t)t->rows);
    return append(s, w, s->out, 2 * (uint64_t)t->rows);
}

/* Scales of one block row; rows become bytes. */
static void quantise(struct synth *s, int64_t rows, int64_t columns, float *scales)
{
    for (int64_t b = 0; b * BLOCK < columns; b++) {
        int64_t end = (b + 1) * BLOCK < columns ? (b + 1) * BLOCK : columns;
        float most = 0;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = b * BLOCK; c < end; c++)
                /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): the caller has made them */
                most = fmaxf(most, fabsf(s->rows[r * columns + c]));
        scales[b] = most > 0 ? most / 448.0f : 1;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = b * BLOCK; c < end; c++)
                s->out[r * columns + c] = to_fp8(s->rows[r * columns + c] / scales[b]);
    }
}

static mh_status write_matrix(struct synth *s, mh_safetensors_writer *w, const struct entry *e,
                              uint64_t key)
{
    const struct model_tensor *t = &e->tensor;
    int64_t blocks = (t->columns + BLOCK - 1) / BLOCK;
    int64_t block_rows = (t->rows + BLOCK - 1) / BLOCK;
    float deviation = deviation_of(t);
    float *scales = e->fp8 ? malloc(sizeof(float) * (size_t)(blocks * block_rows)) : NULL;
    mh_status status = MH_OK;
    if (e->fp8 && !scales)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for scales");
    for (int64_t r = 0; !status && r < t->rows; r += BLOCK) {
        int64_t rows = t->rows - r < BLOCK ? t->rows - r : BLOCK, count = rows * t->columns;
        normal_values(s->rows, count, key, (uint64_t)(r * t->columns), deviation);
        if (e->fp8)
            quantise(s, rows, t->columns, scales + r / BLOCK * blocks);
        else
            for (int64_t i = 0; i < count; i++)
                put_half(s, i, s->rows[i]);
        status = append(s, w, s->out, (uint64_t)count * (e->fp8 ? 1 : 2));
    }
    if (!status && e->fp8)
        status = append(s, w, scales, 4 * (uint64_t)(blocks * block_rows));
    free(scales);
    return status;
}

/* ---- shards ---- */

static void shard_path(const struct synth *s, uint64_t shard, char *path, size_t size, bool whole)
{
    const char *dir = whole ? s->params->out : "", *slash = whole ? "/" : "";
    if (s->shards == 1)
        snprintf(path, size, "%s%smodel.safetensors", dir, slash);
    else
        snprintf(path, size, "%s%smodel-%05llu-of-%05llu.safetensors", dir, slash,
                 (unsigned long long)shard + 1, (unsigned long long)s->shards);
}

/* First entry of the shard after the one that begins at `first`. */
static uint64_t shard_end(const struct synth *s, uint64_t first)
{
    uint64_t bytes = 0, i = first;
    uint64_t most = s->params->shard_bytes ? s->params->shard_bytes : SHARD_BYTES;
    while (i < s->count && (i == first || bytes + s->entries[i].bytes <= most))
        bytes += s->entries[i++].bytes;
    return i;
}

static mh_status write_shard(struct synth *s, uint64_t first, uint64_t end)
{
    char path[4096];
    uint64_t used = 0;
    mh_safetensors_entry *list = calloc(2 * (end - first), sizeof(*list));
    char(*names)[160] = calloc(end - first, sizeof(*names));
    mh_safetensors_writer *w = NULL;
    mh_status status = MH_OK;
    if (!list || !names)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a shard's header");
    for (uint64_t i = first; !status && i < end; i++) {
        const struct entry *e = &s->entries[i];
        const struct model_tensor *t = &e->tensor;
        list[used++] = (mh_safetensors_entry){
            .name = t->name,
            .dtype = e->fp8                             ? MH_ST_F8_E4M3
                     : t->id == TENSOR_ROUTER_BIAS      ? MH_ST_F32
                     : s->params->dtype == MH_SYNTH_F16 ? MH_ST_F16
                                                        : MH_ST_BF16,
            .rank = t->columns ? 2 : 1,
            .shape = {t->rows, t->columns},
        };
        if (!e->fp8)
            continue;
        snprintf(names[i - first], sizeof(names[0]), "%s_scale_inv", t->name);
        list[used++] = (mh_safetensors_entry){
            .name = names[i - first],
            .dtype = MH_ST_F32,
            .rank = 2,
            .shape = {(t->rows + BLOCK - 1) / BLOCK, (t->columns + BLOCK - 1) / BLOCK}};
    }
    shard_path(s, s->shards_done, path, sizeof(path), true);
    if (!status)
        status = mh_safetensors_begin(path, list, used, &w);
    for (uint64_t i = first; !status && i < end; i++) {
        const struct entry *e = &s->entries[i];
        uint64_t key = hash(s->params->seed ^ hash(i));
        status =
            e->tensor.columns ? write_matrix(s, w, e, key) : write_vector(s, w, &e->tensor, key);
    }
    if (!status)
        status = mh_safetensors_finish(w);
    else
        mh_safetensors_abandon(w);
    free(list);
    free(names);
    s->shards_done += !status;
    return status;
}

static mh_status write_json(const char *dir, const char *name, const json_t *json)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (json && !json_dump_file(json, path, JSON_INDENT(2)))
        return MH_OK;
    return mh_fail(MH_IO_ERROR, "%s: could not be written: %s", path, strerror(errno));
}

static mh_status write_index(struct synth *s)
{
    json_t *map = json_object();
    uint64_t shard = 0;
    for (uint64_t first = 0, end; first < s->count; first = end, shard++) {
        char file[64], scale[160];
        end = shard_end(s, first);
        shard_path(s, shard, file, sizeof(file), false);
        for (uint64_t i = first; i < end; i++) {
            json_object_set_new(map, s->entries[i].tensor.name, json_string(file));
            snprintf(scale, sizeof(scale), "%s_scale_inv", s->entries[i].tensor.name);
            if (s->entries[i].fp8)
                json_object_set_new(map, scale, json_string(file));
        }
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)s->total,
                              "weight_map", map);
    mh_status status = write_json(s->params->out, "model.safetensors.index.json", index);
    json_decref(index);
    return status;
}

/* Everything written so far; none of it was there before. */
static void remove_all(const struct synth *s)
{
    static const char *const files[] = {"config.json", "model.safetensors.index.json"};
    char path[4096];
    for (uint64_t i = 0; i < s->shards_done; i++) {
        shard_path(s, i, path, sizeof(path), true);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", s->params->out, files[i]);
        unlink(path);
    }
    if (s->made_directory)
        rmdir(s->params->out);
}

static mh_status write_all(struct synth *s)
{
    mh_status status = MH_OK;
    for (uint64_t first = 0; first < s->count; first = shard_end(s, first))
        s->shards++;
    for (uint64_t first = 0, end; !status && first < s->count; first = end) {
        end = shard_end(s, first);
        status = write_shard(s, first, end);
    }
    if (!status && s->shards > 1)
        status = write_index(s);
    if (!status)
        status = write_json(s->params->out, "config.json", s->json);
    if (status)
        remove_all(s);
    return status;
}

/* ---- the rest ---- */

static mh_status read_config(struct synth *s)
{
    const mh_synth_params *p = s->params;
    char *text;
    uint64_t bytes;
    s->json = synth_named_config(p->name);
    if (!s->json) {
        mh_status status = model_read_file(p->name, 1 << 20, &text, &bytes);
        if (status)
            return status == MH_NOT_FOUND
                       ? mh_fail(MH_NOT_FOUND,
                                 "'%.200s': is none of v3, v2-lite, v2, moonlight, and "
                                 "no config.json of this name is there",
                                 p->name)
                       : status;
        status = model_parse_object(text, bytes, p->name, &s->json);
        free(text);
        if (status)
            return status;
    }
    if (p->layers)
        json_object_set_new(s->json, "num_hidden_layers", json_integer(p->layers));
    json_object_set_new(s->json, "num_nextn_predict_layers", json_integer(0)); /* none are made */
    if (p->dtype != MH_SYNTH_AS_GIVEN)
        json_object_del(s->json, "quantization_config");
    if (p->dtype == MH_SYNTH_F16)
        json_object_set_new(s->json, "torch_dtype", json_string("float16"));
    if (p->dtype == MH_SYNTH_FP8)
        json_object_set_new(s->json, "quantization_config",
                            json_pack("{s:s, s:s, s:s, s:[i,i]}", "activation_scheme", "dynamic",
                                      "fmt", "e4m3", "quant_method", "fp8", "weight_block_size",
                                      BLOCK, BLOCK));
    text = json_dumps(s->json, JSON_COMPACT);
    if (!text)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a config");
    s->config = MH_INIT(mh_config);
    mh_status status = mh_config_parse(text, strlen(text), p->name, &s->config);
    free(text);
    return status;
}

static bool belongs_to_a_checkpoint(const char *name)
{
    static const char *const endings[] = {".safetensors", ".safetensors.index.json"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t end = strlen(endings[i]);
        if (length >= end && !strcmp(name + length - end, endings[i]))
            return true;
    }
    return !strcmp(name, "config.json");
}

static mh_status refuse_checkpoint(const char *out)
{
    DIR *dir = opendir(out);
    mh_status status = MH_OK;
    if (!dir)
        return mh_fail(MH_IO_ERROR, "%s: %s", out, strerror(errno));
    for (struct dirent *e; !status && (e = readdir(dir));)
        if (belongs_to_a_checkpoint(e->d_name))
            status = mh_fail(MH_INVALID_ARGUMENT,
                             "%s/%s: is there already; choose another directory", out, e->d_name);
    closedir(dir);
    return status;
}

static mh_status prepare_directory(struct synth *s)
{
    const char *out = s->params->out;
    struct statvfs disk;
    s->made_directory = !mkdir(out, 0777);
    if (!s->made_directory && errno != EEXIST)
        return mh_fail(MH_IO_ERROR, "%s: %s", out, strerror(errno));
    mh_status status = refuse_checkpoint(out);
    if (!status && statvfs(out, &disk))
        status = mh_fail(MH_IO_ERROR, "%s: %s", out, strerror(errno));
    if (status)
        return status;
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (available >= s->total && available - s->total >= 1 << 20)
        return MH_OK;
    if (s->made_directory)
        rmdir(out);
    return mh_fail(MH_IO_ERROR, "%s: %llu bytes are needed, the disk has %llu", out,
                   (unsigned long long)s->total, (unsigned long long)available);
}

static mh_status make_buffers(struct synth *s)
{
    uint64_t most = 1;
    for (uint64_t i = 0; i < s->count; i++) {
        const struct model_tensor *t = &s->entries[i].tensor;
        uint64_t values = t->columns ? (uint64_t)t->columns * BLOCK : (uint64_t)t->rows;
        most = values > most ? values : most;
    }
    s->rows = malloc(most * sizeof(float));
    s->out = malloc(4 * most); /* a value has four bytes at most */
    return s->rows && s->out ? MH_OK
                             : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %llu values",
                                       (unsigned long long)most);
}

mh_status mh_synth(const mh_synth_params *params)
{
    mh_synth_params p;
    mh_status status = mh_struct_in(&p, params, sizeof(p), "mh_synth_params");
    if (status)
        return status;
    if (!p.name || !p.out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_synth_params: %s is NULL", p.name ? "out" : "name");
    if ((p.dtype > MH_SYNTH_FP8 && p.dtype != MH_SYNTH_F16) || p.layers < 0 || strlen(p.out) > 3900)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_synth_params: dtype %u, layers %lld or the length of out is "
                       "out of range",
                       p.dtype, (long long)p.layers);
    struct synth s = {.params = &p};
    status = read_config(&s);
    if (!status)
        status = model_for_each_tensor(&s.config, add_entry, &s);
    if (!status)
        status = prepare_directory(&s);
    if (!status)
        status = make_buffers(&s);
    if (!status)
        status = write_all(&s);
    json_decref(s.json);
    free(s.entries);
    free(s.rows);
    free(s.out);
    return status;
}

mh_status mh_synth_config(const char *name, int64_t layers, uint32_t dtype, mh_config *out)
{
    if (!name || layers < 0 || dtype > MH_SYNTH_F16)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_synth_config: name is NULL, or layers %lld or dtype %u out of range",
                       (long long)layers, dtype);
    const mh_synth_params p = {.name = name, .layers = layers, .dtype = dtype};
    struct synth s = {.params = &p};
    mh_status status = read_config(&s);
    if (!status)
        status = mh_struct_out(out, &s.config, sizeof(s.config));
    json_decref(s.json);
    return status;
}
