/* load.c: counts of experts, in memory and in a file. */
#include <moehal-model/load.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "placement.h"

#define MOST_COUNT (UINT64_C(1) << 53) /* what every reader of JSON keeps */

struct mh_expert_load {
    int64_t layers, experts;
    bool *moe;        /* [layers] */
    uint64_t *counts; /* [layers, experts] */
};

mh_status mh_expert_load_create(const mh_config *config, mh_expert_load **out)
{
    if (!config || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_expert_load_create: %s is NULL",
                       config ? "out" : "config");
    *out = NULL;
    mh_expert_load *load = calloc(1, sizeof(*load));
    if (load) {
        load->layers = config->num_hidden_layers, load->experts = config->n_routed_experts;
        load->moe = calloc((size_t)load->layers + 1, sizeof(*load->moe));
        load->counts =
            calloc((size_t)load->layers * (size_t)load->experts + 1, sizeof(*load->counts));
    }
    if (!load || !load->moe || !load->counts) {
        mh_expert_load_release(load);
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for counts of experts");
    }
    for (int64_t i = 0; i < load->layers; i++)
        load->moe[i] = mh_config_is_moe(config, i) != 0;
    *out = load;
    return MH_OK;
}

void mh_expert_load_release(mh_expert_load *load)
{
    if (!load)
        return;
    free(load->moe);
    free(load->counts);
    free(load);
}

uint64_t *mh_expert_load_layer(mh_expert_load *load, int64_t layer)
{
    bool there = load && layer >= 0 && layer < load->layers && load->moe[layer];
    return there ? load->counts + layer * load->experts : NULL;
}

mh_status model_check_load(const mh_expert_load *load, const mh_config *config)
{
    bool same = !load || (load->layers == config->num_hidden_layers &&
                          load->experts == config->n_routed_experts);
    for (int64_t i = 0; load && same && i < load->layers; i++)
        same = load->moe[i] == (mh_config_is_moe(config, i) != 0);
    return same
               ? MH_OK
               : mh_fail(MH_INVALID_ARGUMENT,
                         "expert_load: of %lld layers with %lld experts, the model has %lld with "
                         "%lld, or others of them are dense",
                         (long long)load->layers, (long long)load->experts,
                         (long long)config->num_hidden_layers, (long long)config->n_routed_experts);
}

/* ---- the file ---- */

static mh_status read_layer(mh_expert_load *load, const char *path, int64_t layer,
                            const json_t *list)
{
    uint64_t *counts = mh_expert_load_layer(load, layer);
    if (!counts)
        return json_is_null(list)
                   ? MH_OK
                   : mh_fail(MH_BAD_DATA, "%s: layers[%lld] must be null: it is dense", path,
                             (long long)layer);
    if (!json_is_array(list) || json_array_size(list) != (size_t)load->experts)
        return mh_fail(MH_BAD_DATA, "%s: layers[%lld] must be a list of %lld counts", path,
                       (long long)layer, (long long)load->experts);
    for (int64_t e = 0; e < load->experts; e++) {
        const json_t *value = json_array_get(list, (size_t)e);
        json_int_t count = json_integer_value(value);
        if (!json_is_integer(value) || count < 0 || (uint64_t)count > MOST_COUNT)
            return mh_fail(MH_BAD_DATA,
                           "%s: layers[%lld][%lld] must be a whole number from 0 to 2^53", path,
                           (long long)layer, (long long)e);
        counts[e] = (uint64_t)count;
    }
    return MH_OK;
}

static mh_status read_object(mh_expert_load *load, const char *path, const json_t *object)
{
    const json_t *experts = json_object_get(object, "experts");
    const json_t *layers = json_object_get(object, "layers");
    if (!json_is_integer(experts) || json_integer_value(experts) != load->experts)
        return mh_fail(MH_BAD_DATA, "%s: experts must be %lld, as the model has", path,
                       (long long)load->experts);
    if (!json_is_array(layers) || json_array_size(layers) != (size_t)load->layers)
        return mh_fail(MH_BAD_DATA, "%s: layers must be a list of %lld, as the model has", path,
                       (long long)load->layers);
    mh_status status = MH_OK;
    for (int64_t i = 0; !status && i < load->layers; i++)
        status = read_layer(load, path, i, json_array_get(layers, (size_t)i));
    return status;
}

mh_status mh_expert_load_read(const mh_config *config, const char *path, mh_expert_load **out)
{
    char *text;
    uint64_t bytes;
    json_t *object = NULL;
    if (!path)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_expert_load_read: path is NULL");
    mh_status status = mh_expert_load_create(config, out);
    if (status)
        return status;
    status = model_read_file(path, 1 << 28, &text, &bytes);
    if (!status) {
        status = model_parse_object(text, bytes, path, &object);
        free(text);
    }
    if (!status)
        status = read_object(*out, path, object);
    json_decref(object);
    if (status) {
        mh_expert_load_release(*out);
        *out = NULL;
    }
    return status;
}

static void print_load(const mh_expert_load *load, FILE *file)
{
    fprintf(file, "{\"experts\": %lld, \"layers\": [", (long long)load->experts);
    for (int64_t i = 0; i < load->layers; i++) {
        const uint64_t *counts = load->counts + i * load->experts;
        fprintf(file, "%s\n", i ? "," : "");
        if (!load->moe[i])
            fputs("null", file);
        for (int64_t e = 0; load->moe[i] && e < load->experts; e++)
            fprintf(file, "%s%llu", e ? ", " : "[", (unsigned long long)counts[e]);
        if (load->moe[i])
            fputc(']', file);
    }
    fputs("\n]}\n", file);
}

mh_status mh_expert_load_write(const mh_expert_load *load, const char *path)
{
    char part[4096];
    if (!load || !path)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_expert_load_write: %s is NULL",
                       load ? "path" : "load");
    if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part))
        return mh_fail(MH_INVALID_ARGUMENT, "%.200s...: the path is too long", path);
    FILE *file = fopen(part, "w");
    if (!file)
        return mh_fail(MH_IO_ERROR, "%s: %s", part, strerror(errno));
    print_load(load, file);
    bool bad = ferror(file) != 0;
    bad = fclose(file) || bad;
    if (!bad && !rename(part, path))
        return MH_OK;
    mh_status status = mh_fail(MH_IO_ERROR, "%s: could not be written: %s", path, strerror(errno));
    remove(part);
    return status;
}
