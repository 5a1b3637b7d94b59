/* checkpoint.c: a directory's config and tensors, over one file or many. */
#include <moehal-model/checkpoint.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "safetensors.h"
#include "tensors.h"

struct mh_checkpoint {
    atomic_uint refs;
    char *dir;
    mh_config config;
    bool has_config;
    struct safetensors *files;
    uint64_t file_count;
    const mh_checkpoint_tensor **tensors; /* by name */
    uint64_t count;
};

/* ---- files ---- */

static mh_status add_file(mh_checkpoint *cp, const char *path)
{
    struct safetensors *grown = realloc(cp->files, (cp->file_count + 1) * sizeof(*cp->files));
    if (!grown)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a shard");
    cp->files = grown;
    mh_status status = safetensors_open(path, &cp->files[cp->file_count]);
    if (!status)
        cp->file_count++;
    return status;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A shard's name is a plain file name: nothing leaves the directory. */
static bool is_plain(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

static mh_status open_shards(mh_checkpoint *cp, const char *index, const json_t *map)
{
    const char **names = calloc(json_object_size(map) + 1, sizeof(*names));
    size_t count = 0;
    const char *tensor;
    json_t *file;
    mh_status status = names ? MH_OK : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for shards");
    json_object_foreach((json_t *)(uintptr_t)map, tensor, file)
    {
        if (status)
            break;
        if (!json_is_string(file) || !is_plain(json_string_value(file)))
            status = mh_fail(MH_BAD_DATA,
                             "%s: weight_map['%.128s'] is %s%.64s, must be the name of "
                             "a file beside it",
                             index, tensor, json_is_string(file) ? "" : "no string",
                             json_is_string(file) ? json_string_value(file) : "");
        else
            names[count++] = json_string_value(file);
    }
    if (count)
        qsort(names, count, sizeof(*names), by_text);
    for (size_t i = 0; !status && i < count; i++) {
        char path[4096];
        if (i && !strcmp(names[i], names[i - 1]))
            continue;
        snprintf(path, sizeof(path), "%s/%s", cp->dir, names[i]);
        status = add_file(cp, path);
    }
    free(names);
    return status;
}

static const char *file_name(const struct safetensors *file)
{
    const char *slash = strrchr(file->path, '/');
    return slash ? slash + 1 : file->path;
}

static int by_file_name(const void *name, const void *file)
{
    return strcmp(name, file_name(file));
}

/* Every tensor of the index lies in the shard it names. The shards were opened in order of name. */
static mh_status check_index(const mh_checkpoint *cp, const char *index, const json_t *map)
{
    const char *tensor;
    json_t *file;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, file)
    {
        const char *name = json_string_value(file);
        const struct safetensors *shard =
            bsearch(name, cp->files, cp->file_count, sizeof(*cp->files), by_file_name);
        if (!safetensors_find(shard, tensor))
            return mh_fail(MH_BAD_DATA, "%s: tensor '%.128s' is not in %s, where %s puts it",
                           cp->dir, tensor, name, index);
    }
    return MH_OK;
}

static mh_status open_index(mh_checkpoint *cp, const char *index)
{
    char *text;
    uint64_t bytes;
    json_t *object;
    mh_status status = model_read_file(index, 256u << 20, &text, &bytes);
    if (status)
        return status;
    status = model_parse_object(text, bytes, index, &object);
    free(text);
    if (status)
        return status;
    const json_t *map = json_object_get(object, "weight_map");
    if (!json_is_object(map))
        status = mh_fail(MH_BAD_DATA, "%s: weight_map is missing or not an object", index);
    if (!status)
        status = open_shards(cp, index, map);
    if (!status)
        status = check_index(cp, index, map);
    json_decref(object);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const mh_checkpoint_tensor *const *)a)->name,
                  (*(const mh_checkpoint_tensor *const *)b)->name);
}

static mh_status merge(mh_checkpoint *cp)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < cp->file_count; i++)
        total += cp->files[i].count;
    cp->tensors = calloc(total + 1, sizeof(*cp->tensors));
    if (!cp->tensors)
        return mh_fail(MH_OUT_OF_MEMORY, "%s: no room for %llu tensors", cp->dir,
                       (unsigned long long)total);
    for (uint64_t i = 0; i < cp->file_count; i++)
        for (uint64_t j = 0; j < cp->files[i].count; j++)
            cp->tensors[cp->count++] = &cp->files[i].tensors[j];
    qsort(cp->tensors, cp->count, sizeof(*cp->tensors), by_name);
    for (uint64_t i = 1; i < cp->count; i++)
        if (!strcmp(cp->tensors[i]->name, cp->tensors[i - 1]->name))
            return mh_fail(MH_BAD_DATA, "%s: tensor '%.128s' is also in %s", cp->tensors[i]->file,
                           cp->tensors[i]->name, cp->tensors[i - 1]->file);
    return MH_OK;
}

/* ---- life ---- */

static mh_status make(const char *name, mh_checkpoint **out)
{
    mh_checkpoint *cp = calloc(1, sizeof(*cp));
    *out = NULL;
    if (!cp || !(cp->dir = strdup(name))) {
        free(cp);
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a checkpoint");
    }
    atomic_init(&cp->refs, 1);
    *out = cp;
    return MH_OK;
}

static mh_status finish(mh_status status, mh_checkpoint **cp)
{
    if (!status)
        status = merge(*cp);
    if (status) {
        mh_checkpoint_release(*cp);
        *cp = NULL;
    }
    return status;
}

mh_status mh_checkpoint_open(const char *dir, mh_checkpoint **out)
{
    char path[4096];
    if (out)
        *out = NULL;
    if (!dir || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_checkpoint_open: %s is NULL", dir ? "out" : "dir");
    if (strlen(dir) > sizeof(path) - 300)
        return mh_fail(MH_INVALID_ARGUMENT, "%.64s...: the path is too long", dir);
    mh_status status = make(dir, out);
    if (status)
        return status;
    (*out)->config.struct_size = sizeof((*out)->config);
    status = mh_config_load(dir, &(*out)->config);
    (*out)->has_config = true;
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", dir);
    if (!status && access(path, F_OK) == 0) {
        status = open_index(*out, path);
    } else if (!status) {
        snprintf(path, sizeof(path), "%s/model.safetensors", dir);
        status = add_file(*out, path);
    }
    return finish(status, out);
}

mh_status mh_checkpoint_open_file(const char *path, mh_checkpoint **out)
{
    if (out)
        *out = NULL;
    if (!path || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_checkpoint_open_file: %s is NULL",
                       path ? "out" : "path");
    mh_status status = make(path, out);
    return status ? status : finish(add_file(*out, path), out);
}

mh_checkpoint *mh_checkpoint_retain(mh_checkpoint *cp)
{
    if (cp)
        atomic_fetch_add_explicit(&cp->refs, 1, memory_order_relaxed);
    return cp;
}

void mh_checkpoint_release(mh_checkpoint *cp)
{
    if (!cp || atomic_fetch_sub_explicit(&cp->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint64_t i = 0; i < cp->file_count; i++)
        safetensors_close(&cp->files[i]);
    free(cp->files);
    free(cp->tensors);
    free(cp->dir);
    free(cp);
}

/* ---- looking ---- */

const mh_config *mh_checkpoint_config(const mh_checkpoint *cp)
{
    return cp && cp->has_config ? &cp->config : NULL;
}

const char *mh_checkpoint_dir(const mh_checkpoint *cp)
{
    return cp ? cp->dir : "";
}

uint64_t mh_checkpoint_count(const mh_checkpoint *cp)
{
    return cp ? cp->count : 0;
}

static const mh_checkpoint_tensor *find(const mh_checkpoint *cp, const char *name)
{
    mh_checkpoint_tensor key = {.name = name}, *at = &key;
    const mh_checkpoint_tensor **found =
        cp->count ? bsearch(&at, cp->tensors, cp->count, sizeof(at), by_name) : NULL;
    return found ? *found : NULL;
}

mh_status mh_checkpoint_at(const mh_checkpoint *cp, uint64_t index, mh_checkpoint_tensor *out)
{
    if (!cp || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_checkpoint_at: an argument is NULL");
    if (index >= cp->count)
        return mh_fail(MH_NOT_FOUND, "%s: tensor %llu, but there are %llu", cp->dir,
                       (unsigned long long)index, (unsigned long long)cp->count);
    return mh_struct_out(out, cp->tensors[index], sizeof(*out));
}

mh_status mh_checkpoint_find(const mh_checkpoint *cp, const char *name, mh_checkpoint_tensor *out)
{
    if (!cp || !name || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_checkpoint_find: an argument is NULL");
    const mh_checkpoint_tensor *tensor = find(cp, name);
    if (!tensor)
        return mh_fail(MH_NOT_FOUND, "%s: tensor '%.128s' is missing", cp->dir, name);
    return mh_struct_out(out, tensor, sizeof(*out));
}

/* ---- checking against the config ---- */

static mh_status has_shape(const mh_checkpoint_tensor *t, int64_t rows, int64_t columns)
{
    uint32_t rank = columns ? 2 : 1;
    if (t->rank == rank && t->shape[0] == rows && (!columns || t->shape[1] == columns))
        return MH_OK;
    char found[96] = "", wanted[64];
    for (uint32_t i = 0; i < t->rank; i++) {
        size_t used = strlen(found);
        snprintf(found + used, sizeof(found) - used, "%s%lld", i ? ", " : "",
                 (long long)t->shape[i]);
    }
    if (columns)
        snprintf(wanted, sizeof(wanted), "%lld, %lld", (long long)rows, (long long)columns);
    else
        snprintf(wanted, sizeof(wanted), "%lld", (long long)rows);
    return mh_fail(MH_BAD_DATA, "%s: tensor '%.128s': shape is [%s], config.json wants [%s]",
                   t->file, t->name, found, wanted);
}

static mh_status check_scales(const mh_checkpoint *cp, const mh_checkpoint_tensor *weight)
{
    char name[160];
    mh_checkpoint_tensor scale = MH_INIT(mh_checkpoint_tensor);
    snprintf(name, sizeof(name), "%s_scale_inv", weight->name);
    mh_status status = mh_checkpoint_find(cp, name, &scale);
    if (!status && scale.dtype != MH_ST_F32)
        status = mh_fail(MH_BAD_DATA, "%s: tensor '%.128s': dtype is %s, must be F32", scale.file,
                         scale.name, mh_safetensors_dtype_name(scale.dtype));
    return status
               ? status
               : has_shape(&scale, (weight->shape[0] + 127) / 128, (weight->shape[1] + 127) / 128);
}

static mh_status check_tensor(void *context, const struct model_tensor *wanted)
{
    const mh_checkpoint *cp = context;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    mh_status status = mh_checkpoint_find(cp, wanted->name, &t);
    if (status)
        return status;
    bool plain = t.dtype == MH_ST_F32 || t.dtype == MH_ST_BF16 || t.dtype == MH_ST_F16;
    bool fp8 = wanted->may_be_fp8 && t.dtype == MH_ST_F8_E4M3;
    if (!plain && !fp8)
        return mh_fail(MH_BAD_DATA, "%s: tensor '%.128s': dtype is %s, must be F32, F16, BF16%s",
                       t.file, t.name, mh_safetensors_dtype_name(t.dtype),
                       wanted->may_be_fp8 ? " or F8_E4M3" : "");
    status = has_shape(&t, wanted->rows, wanted->columns);
    return !status && fp8 ? check_scales(cp, &t) : status;
}

mh_status mh_checkpoint_check(const mh_checkpoint *cp)
{
    if (!cp || !cp->has_config)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_checkpoint_check: the checkpoint has no config");
    return model_for_each_tensor(&cp->config, check_tensor, (void *)(uintptr_t)cp);
}

/* ---- what the main model does not use ---- */

struct use {
    const mh_checkpoint *cp;
    uint64_t count;
    unsigned char *used;
};

static void mark(struct use *use, const char *name)
{
    mh_checkpoint_tensor key = {.name = name}, *at = &key;
    const mh_checkpoint_tensor **found =
        bsearch(&at, use->cp->tensors, use->cp->count, sizeof(at), by_name);
    if (found)
        use->used[found - use->cp->tensors] = 1;
}

static mh_status mark_tensor(void *context, const struct model_tensor *wanted)
{
    char scale[160];
    mark(context, wanted->name);
    snprintf(scale, sizeof(scale), "%s_scale_inv", wanted->name);
    mark(context, scale);
    return MH_OK;
}

static bool is_mtp(const mh_config *c, const char *name)
{
    static const char prefix[] = "model.layers.";
    char *end;
    if (strncmp(name, prefix, sizeof(prefix) - 1))
        return false;
    long long layer = strtoll(name + sizeof(prefix) - 1, &end, 10);
    return *end == '.' && layer >= c->num_hidden_layers &&
           layer < c->num_hidden_layers + c->num_nextn_predict_layers;
}

/* Older releases store what RoPE computes anyway. */
static bool is_rope_table(const char *name)
{
    static const char suffix[] = ".self_attn.rotary_emb.inv_freq";
    size_t length = strlen(name);
    return length >= sizeof(suffix) && !strcmp(name + length - (sizeof(suffix) - 1), suffix);
}

mh_status mh_checkpoint_get_extras(const mh_checkpoint *cp, mh_checkpoint_extras *out)
{
    if (!cp || !cp->has_config || !out)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_checkpoint_get_extras: an argument is NULL or has no config");
    mh_checkpoint_extras extras = MH_INIT(mh_checkpoint_extras);
    struct use use = {.cp = cp, .used = calloc(1, cp->count + 1)};
    if (!use.used)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a list");
    if (cp->count)
        model_for_each_tensor(&cp->config, mark_tensor, &use);
    for (uint64_t i = 0; i < cp->count; i++) {
        const char *name = cp->tensors[i]->name;
        if (use.used[i] || is_rope_table(name))
            continue;
        if (is_mtp(&cp->config, name))
            extras.mtp++;
        else if (!extras.unknown++)
            snprintf(extras.first_unknown, sizeof(extras.first_unknown), "%s", name);
    }
    free(use.used);
    return mh_struct_out(out, &extras, sizeof(extras));
}
