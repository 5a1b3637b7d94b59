/* trace_file.c: traces in memory and as safetensors files: one tensor a value, and three of the
 * key. */
#include <stdlib.h>
#include <string.h>

#include <moehal-model/safetensors.h>

#include "trace.h"

struct stored {
    char *name;
    uint32_t dtype, rank;
    int64_t shape[MH_MAX_RANK];
    void *data;
    uint64_t bytes;
};

struct trace {
    struct stored *values;
    uint64_t count, room, bytes;
};

struct trace *trace_create(void)
{
    return calloc(1, sizeof(struct trace));
}

void trace_free(struct trace *t)
{
    for (uint64_t i = 0; t && i < t->count; i++) {
        free(t->values[i].name);
        free(t->values[i].data);
    }
    if (t)
        free(t->values);
    free(t);
}

uint64_t trace_bytes(const struct trace *t)
{
    return t->bytes;
}

static mh_status add(struct trace *t, const char *name, uint32_t dtype, uint32_t rank,
                     const int64_t *shape, const void *data, uint64_t bytes)
{
    if (t->count == t->room) {
        uint64_t room = t->room ? 2 * t->room : 256;
        struct stored *grown = realloc(t->values, room * sizeof(*grown));
        if (!grown)
            return mh_fail(MH_OUT_OF_MEMORY, "no memory for a trace of %llu values",
                           (unsigned long long)room);
        t->values = grown;
        t->room = room;
    }
    struct stored *v = &t->values[t->count];
    *v = (struct stored){.name = strdup(name), .dtype = dtype, .rank = rank, .bytes = bytes};
    v->data = malloc(bytes + 1);
    t->count++;
    if (!v->name || !v->data)
        return mh_fail(MH_OUT_OF_MEMORY, "no memory for a trace");
    memcpy(v->data, data, bytes);
    memcpy(v->shape, shape, rank * sizeof(*shape));
    t->bytes += bytes;
    return MH_OK;
}

mh_status trace_add(void *trace, const struct trace_value *v)
{
    static const uint32_t dtypes[] = {0, MH_ST_F32, MH_ST_F16, MH_ST_BF16, MH_ST_I32, MH_ST_U32};
    return add(trace, v->name, dtypes[v->dtype], v->rank, v->shape, v->data, v->bytes);
}

/* Names begin with the op's number and come in order. */
const void *trace_find(const struct trace *t, const char *name, uint64_t *bytes)
{
    uint64_t low = 0, high = t->count;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (strncmp(t->values[middle].name, name, 5) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < t->count && !strncmp(t->values[low].name, name, 5); low++)
        if (!strcmp(t->values[low].name, name)) {
            *bytes = t->values[low].bytes;
            return t->values[low].data;
        }
    return NULL;
}

/* ---- files ---- */

static const char key_config[] = "key.config_sha256", key_ids[] = "key.ids", key_kv[] = "key.kv";

mh_status trace_save(const struct trace *t, const struct trace_key *key, const char *path)
{
    mh_safetensors_entry *entries = calloc(t->count + 3, sizeof(*entries));
    if (!entries)
        return mh_fail(MH_OUT_OF_MEMORY, "no memory for a trace of %llu values",
                       (unsigned long long)t->count);
    entries[0] = (mh_safetensors_entry){key_config, MH_ST_U8, 1, {32}, key->config};
    entries[1] = (mh_safetensors_entry){key_ids, MH_ST_I32, 1, {(int64_t)key->count}, key->ids};
    entries[2] = (mh_safetensors_entry){key_kv, MH_ST_I32, 1, {1}, &key->kv};
    for (uint64_t i = 0; i < t->count; i++) {
        const struct stored *v = &t->values[i];
        entries[i + 3] = (mh_safetensors_entry){v->name, v->dtype, v->rank, {0}, v->data};
        memcpy(entries[i + 3].shape, v->shape, sizeof(v->shape));
    }
    mh_status status = mh_safetensors_write(path, entries, t->count + 3);
    free(entries);
    return status;
}

/* The key's tensor; `bytes` 0: of any size. */
static mh_status find_key(mh_checkpoint *file, const char *path, const char *name, uint64_t bytes,
                          mh_checkpoint_tensor *out)
{
    *out = MH_INIT(mh_checkpoint_tensor);
    if (mh_checkpoint_find(file, name, out) || (bytes && out->bytes != bytes))
        return mh_fail(MH_BAD_DATA, "%s: is no trace: it has no %s", path, name);
    return MH_OK;
}

static mh_status check_key(mh_checkpoint *file, const char *path, const struct trace_key *key)
{
    mh_checkpoint_tensor config, ids, kv;
    mh_status status = find_key(file, path, key_config, 32, &config);
    if (!status)
        status = find_key(file, path, key_ids, 0, &ids);
    if (!status)
        status = find_key(file, path, key_kv, 4, &kv);
    if (status)
        return status;
    if (memcmp(config.data, key->config, 32))
        return mh_fail(MH_INVALID_ARGUMENT,
                       "%s: is a trace of another model: its config.json differs", path);
    int32_t dtype;
    memcpy(&dtype, kv.data, 4);
    if (dtype != key->kv)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: is a trace with a cache of %s, this one is of %s",
                       path, mh_dtype_name((mh_dtype)dtype), mh_dtype_name((mh_dtype)key->kv));
    if (ids.bytes != 4 * key->count || memcmp(ids.data, key->ids, ids.bytes))
        return mh_fail(MH_INVALID_ARGUMENT,
                       "%s: is a trace of %llu other ids: give --ids as it was recorded", path,
                       (unsigned long long)(ids.bytes / 4));
    return MH_OK;
}

mh_status trace_load(const char *path, const struct trace_key *key, struct trace **out)
{
    mh_checkpoint *file;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    mh_status status = mh_checkpoint_open_file(path, &file);
    if (status)
        return status;
    *out = trace_create();
    status = *out ? check_key(file, path, key) : mh_fail(MH_OUT_OF_MEMORY, "no memory for a trace");
    for (uint64_t i = 0; !status && !mh_checkpoint_at(file, i, &t); i++) {
        if (strncmp(t.name, "key.", 4))
            status = add(*out, t.name, t.dtype, t.rank, t.shape, t.data, t.bytes);
        t = MH_INIT(mh_checkpoint_tensor);
    }
    mh_checkpoint_release(file);
    if (status) {
        trace_free(*out);
        *out = NULL;
    }
    return status;
}
