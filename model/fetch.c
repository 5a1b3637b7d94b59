#include "fetch.h"

#include <stdlib.h>
#include <string.h>

#include "tensors.h"

/* One matrix of an expert, in the checkpoint's mapping. */
struct fetch_source {
    const void *plane[2];
    uint64_t bytes;
};

/* ---- life ---- */

struct noting {
    struct mh_model *model;
    struct model_rank *rank;
};

static int matrix_of(const struct model_tensor *tensor)
{
    return tensor->id == TENSOR_EXPERT_GATE ? 0 : tensor->id == TENSOR_EXPERT_UP ? 1 : 2;
}

static mh_weight *bank_of(struct model_rank *rank, int64_t layer, int matrix)
{
    struct model_layer *l = &rank->layers[layer];
    return matrix == 0 ? l->expert_gate : matrix == 1 ? l->expert_up : l->expert_down;
}

static struct fetch_source *source_of(const struct mh_model *model, const struct fetch *f,
                                      int64_t layer, int64_t expert, int matrix)
{
    return f->sources + (layer * model->config->n_routed_experts + expert) * 3 + matrix;
}

static mh_status note_source(void *context, const struct model_tensor *tensor)
{
    const struct noting *n = context;
    if (tensor->expert < 0)
        return MH_OK;
    mh_weight_info info = MH_INIT(mh_weight_info);
    mh_checkpoint_tensor data, scale;
    mh_weight *bank = bank_of(n->rank, tensor->layer, matrix_of(tensor));
    if (!bank)
        return MH_OK;
    mh_device_info device = MH_INIT(mh_device_info);
    mh_status status = mh_weight_get_info(bank, &info);
    if (!status)
        status = mh_device_get_info(mh_weight_device(bank), &device);
    if (!status && device.flags & MH_DEVICE_HOST_MEMORY)
        status = mh_fail(MH_UNSUPPORTED,
                         "experts are to be fetched to %s, but it leaves them to the host",
                         mh_device_uri(n->rank->device));
    if (!status)
        status = model_find_matrix(n->model->checkpoint, tensor, info.format, &data, &scale);
    if (status)
        return status;
    *source_of(n->model, n->rank->fetch, tensor->layer, tensor->expert, matrix_of(tensor)) =
        (struct fetch_source){{data.data, scale.data}, data.bytes + scale.bytes};
    return MH_OK;
}

mh_status fetch_create(struct mh_model *model, struct model_rank *rank)
{
    size_t layers = (size_t)model->config->num_hidden_layers;
    size_t experts = (size_t)model->config->n_routed_experts;
    struct fetch *f = rank->fetch = calloc(1, sizeof(*f));
    if (f) {
        f->places = rank->places;
        size_t places = layers * (size_t)f->places;
        f->sources = calloc(layers * experts * 3, sizeof(*f->sources));
        f->expert_at = malloc(places * sizeof(*f->expert_at));
        f->used_at = calloc(places, sizeof(*f->used_at));
        f->map = malloc(experts * sizeof(*f->map));
    }
    if (!f || !f->sources || !f->expert_at || !f->used_at || !f->map)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a cache of experts");
    for (size_t l = 0; l < layers; l++) {
        int64_t slot = 0;
        for (int64_t e = 0; e < (int64_t)experts && slot < f->places; e++)
            if (placement_has(&model->placement, rank->number, (int64_t)l, e))
                f->expert_at[(int64_t)l * f->places + slot++] = (int32_t)e;
        while (slot < f->places)
            f->expert_at[(int64_t)l * f->places + slot++] = -1;
    }
    struct noting noting = {model, rank};
    return model_for_each_tensor(model->config, note_source, &noting);
}

void fetch_destroy(struct fetch *f)
{
    if (!f)
        return;
    free(f->sources);
    free(f->expert_at);
    free(f->used_at);
    free(f->map);
    free(f);
}

/* ---- fetching ---- */

static mh_status replace(struct mh_model *model, struct model_rank *rank, int64_t layer,
                         int64_t slot, int64_t expert)
{
    struct fetch *f = rank->fetch;
    int32_t *at = &f->expert_at[layer * f->places + slot];
    mh_status status = MH_OK;
    *at = -1; /* until all of it is there */
    for (int i = 0; !status && i < 3; i++) {
        const struct fetch_source *source = source_of(model, f, layer, expert, i);
        mh_weight *bank = bank_of(rank, layer, i);
        mh_weight_info info = MH_INIT(mh_weight_info);
        mh_weight_piece piece = MH_INIT(mh_weight_piece);
        status = mh_weight_get_info(bank, &info);
        piece.expert_begin = slot, piece.expert_count = 1, piece.row_count = info.out;
        piece.plane[0] = source->plane[0], piece.plane[1] = source->plane[1];
        if (!status)
            status = mh_weight_replace(bank, &piece);
        f->bytes_of_misses += source->bytes;
    }
    if (!status)
        *at = (int32_t)expert;
    return status;
}

/* The place that was used longest ago, but not in this turn; -1: all were. */
static int64_t oldest(const struct fetch *f, int64_t layer)
{
    const uint64_t *used = f->used_at + layer * f->places;
    int64_t best = -1;
    for (int64_t i = 0; i < f->places; i++)
        if (used[i] < f->turn && (best < 0 || used[i] < used[best]))
            best = i;
    return best;
}

mh_status fetch_round(struct mh_model *model, struct model_rank *rank, int64_t layer, bool *needed,
                      bool first, bool *some)
{
    struct fetch *f = rank->fetch;
    int64_t experts = model->config->n_routed_experts, base = layer * f->places, slot;
    mh_status status = MH_OK;
    f->turn++;
    *some = false;
    for (int64_t e = 0; e < experts; e++)
        f->map[e] = -1;
    for (int64_t i = 0; i < f->places; i++) { /* what is there stays there */
        int32_t e = f->expert_at[base + i];
        if (e < 0 || !needed[e])
            continue;
        f->map[e] = (int32_t)i;
        f->used_at[base + i] = f->turn;
        needed[e] = false, *some = true;
        f->hits += first;
    }
    for (int64_t e = 0; !status && e < experts; e++) {
        if (!needed[e] || (slot = oldest(f, layer)) < 0)
            continue;
        status = replace(model, rank, layer, slot, e);
        f->map[e] = (int32_t)slot;
        f->used_at[base + slot] = f->turn;
        needed[e] = false, *some = true;
        f->misses++;
    }
    const mh_tensor *map = &rank->layers[layer].expert_map;
    if (!status && *some)
        status = mh_buffer_write(map->buffer, map->offset, f->map, 4 * (uint64_t)experts);
    return status;
}
