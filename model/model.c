/* model.c: from a checkpoint's tensors to weights on a device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch.h"
#include "model.h"
#include "tensors.h"

/* ---- which tensor goes where ---- */

/* The weight a matrix belongs to; the tensors of all experts share one. NULL for vectors. */
static mh_weight **weight_slot(struct model_rank *rank, const struct model_tensor *t)
{
    struct model_layer *l = t->layer < 0 ? NULL : &rank->layers[t->layer];
    switch (t->id) {
    case TENSOR_EMBEDDING:
        return &rank->embedding;
    case TENSOR_HEAD:
        return &rank->head;
    case TENSOR_Q:
        return &l->q;
    case TENSOR_Q_A:
        return &l->q_a;
    case TENSOR_Q_B:
        return &l->q_b;
    case TENSOR_KV_A:
        return &l->kv_a;
    case TENSOR_KV_B:
        return &l->kv_b;
    case TENSOR_O:
        return &l->o;
    case TENSOR_GATE:
        return &l->gate;
    case TENSOR_UP:
        return &l->up;
    case TENSOR_DOWN:
        return &l->down;
    case TENSOR_ROUTER:
        return &l->router;
    case TENSOR_EXPERT_GATE:
        return &l->expert_gate;
    case TENSOR_EXPERT_UP:
        return &l->expert_up;
    case TENSOR_EXPERT_DOWN:
        return &l->expert_down;
    default:
        return NULL;
    }
}

/* The f32 tensor a vector becomes. NULL for matrices. */
static mh_tensor *vector_slot(struct model_rank *rank, const struct model_tensor *t)
{
    struct model_layer *l = t->layer < 0 ? NULL : &rank->layers[t->layer];
    switch (t->id) {
    case TENSOR_FINAL_NORM:
        return &rank->final_norm;
    case TENSOR_ATTENTION_NORM:
        return &l->attention_norm;
    case TENSOR_FFN_NORM:
        return &l->ffn_norm;
    case TENSOR_Q_A_NORM:
        return &l->q_a_norm;
    case TENSOR_KV_A_NORM:
        return &l->kv_a_norm;
    case TENSOR_ROUTER_BIAS:
        return &l->router_bias;
    default:
        return NULL;
    }
}

/* ---- tensors of the checkpoint ---- */

static mh_format format_of(uint32_t dtype)
{
    switch (dtype) {
    case MH_ST_F32:
        return MH_FORMAT_F32;
    case MH_ST_F16:
        return MH_FORMAT_F16;
    case MH_ST_BF16:
        return MH_FORMAT_BF16;
    case MH_ST_F8_E4M3:
        return MH_FORMAT_FP8;
    default:
        return 0;
    }
}

/* A matrix and, of FP8, its scales. */
static mh_status find_matrix(const mh_checkpoint *checkpoint, const char *name,
                             mh_checkpoint_tensor *data, mh_checkpoint_tensor *scale)
{
    char scale_name[160];
    *data = MH_INIT(mh_checkpoint_tensor);
    *scale = MH_INIT(mh_checkpoint_tensor);
    mh_status status = mh_checkpoint_find(checkpoint, name, data);
    if (status || data->dtype != MH_ST_F8_E4M3)
        return status;
    snprintf(scale_name, sizeof(scale_name), "%s_scale_inv", name);
    return mh_checkpoint_find(checkpoint, scale_name, scale);
}

mh_status model_find_matrix(const mh_checkpoint *checkpoint, const struct model_tensor *tensor,
                            mh_format format, mh_checkpoint_tensor *data,
                            mh_checkpoint_tensor *scale)
{
    mh_status status = find_matrix(checkpoint, tensor->name, data, scale);
    if (!status && format_of(data->dtype) != format)
        status =
            mh_fail(MH_BAD_DATA, "%s: tensor %s: dtype is %s, expert 0 has %s", data->file,
                    data->name, mh_safetensors_dtype_name(data->dtype), mh_format_name(format));
    return status;
}

/* ---- the passes over all weights ---- */

struct loading {
    struct mh_model *model;
    struct model_rank *rank; /* the one this pass is about */
    const mh_model_params *params;
    uint64_t done, total;
};

/* Where an expert is in its bank: they are there in order. */
static int64_t slot_of(const struct mh_model *model, const struct model_rank *rank,
                       const struct model_tensor *tensor)
{
    int64_t slot = 0;
    for (int64_t e = 0; e < tensor->expert; e++)
        slot += placement_has(&model->placement, rank->number, tensor->layer, e);
    return slot;
}

/* Does this tensor go to the rank? */
static bool is_wanted(const struct loading *loading, const struct model_tensor *tensor)
{
    const struct model_rank *rank = loading->rank;
    if (tensor->id == TENSOR_HEAD)
        return rank == loading->model->ranks;
    if (tensor->expert < 0)
        return true;
    bool has =
        placement_has(&loading->model->placement, rank->number, tensor->layer, tensor->expert);
    return has && (!rank->places || slot_of(loading->model, rank, tensor) < rank->places);
}

/* A weight without content, on the device, for questions. */
static mh_status describe(void *context, const struct model_tensor *tensor)
{
    struct loading *loading = context;
    struct model_rank *rank = loading->rank;
    mh_weight **slot = weight_slot(rank, tensor);
    mh_checkpoint_tensor data, scale;
    if (!slot || !is_wanted(loading, tensor))
        return MH_OK;
    mh_status status = find_matrix(loading->model->checkpoint, tensor->name, &data, &scale);
    if (status)
        return status;
    loading->total += data.bytes + scale.bytes;
    if (*slot)
        return MH_OK;
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = format_of(data.dtype);
    p.experts = tensor->expert < 0 ? 1 : rank->layers[tensor->layer].expert_count;
    if (tensor->expert >= 0 && rank->places && p.experts > rank->places)
        p.experts = rank->places;
    p.out = tensor->rows;
    p.in = tensor->columns;
    p.label = tensor->name;
    return mh_weight_create(rank->device, &p, slot);
}

static mh_status move_to_host(mh_device *device, mh_weight **slot)
{
    mh_device *host;
    mh_weight_info info = MH_INIT(mh_weight_info);
    mh_weight *moved;
    mh_status status = mh_device_host(device, &host);
    if (!status && mh_weight_device(*slot) == host)
        return MH_OK;
    if (!status)
        status = mh_weight_get_info(*slot, &info);
    if (status)
        return status;
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = info.format, p.experts = info.experts, p.out = info.out, p.in = info.in;
    status = mh_weight_create(host, &p, &moved);
    if (!status) {
        mh_weight_release(*slot);
        *slot = moved;
    }
    return status;
}

/* Where does this op run? Its weights go there. */
static mh_status ask(void *context, const mh_op *op, mh_weight ***slots)
{
    struct loading *loading = context;
    mh_support answer = MH_INIT(mh_support);
    mh_device *device = loading->rank->device;
    if (model_is_mark(op))
        return MH_OK;
    mh_status status = mh_device_supports(device, op, &answer);
    if (status)
        return status;
    if (answer.runs == MH_RUNS_NOWHERE)
        return mh_fail(MH_UNSUPPORTED, "%s: runs neither on %s nor on the host: %s",
                       mh_op_name(op->op), mh_device_uri(device), answer.reason);
    for (int i = 0; !status && slots[i]; i++)
        if (answer.weights_on_host >> i & 1)
            status = move_to_host(device, slots[i]);
    return status;
}

static mh_status decide_places(struct loading *loading, int64_t rows)
{
    struct mh_model *model = loading->model;
    const mh_config *c = model->config;
    const int64_t one_row[] = {rows, 8};
    const int64_t paged[] = {1, MODEL_PAGE, c->kv_lora_rank + c->qk_rope_head_dim};
    const int64_t angles[] = {MODEL_PAGE, c->qk_rope_head_dim};
    const int64_t single[] = {1, 1};
    struct model_step step = {.rows = rows, .split = model->split};
    step.head_rows = loading->rank == model->ranks;
    mh_tensor *cache = calloc((size_t)c->num_hidden_layers, sizeof(*cache));
    if (!cache)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %lld layers",
                       (long long)c->num_hidden_layers);
    for (int64_t i = 0; i < c->num_hidden_layers; i++)
        cache[i] = mh_tensor_make(NULL, 0, MH_F32, 3, paged);
    step.cache = cache;
    step.tokens = step.positions = step.slots = step.next =
        mh_tensor_make(NULL, 0, MH_I32, 1, one_row);
    step.sampling = mh_tensor_make(NULL, 0, MH_U32, 2, one_row);
    step.page_table = mh_tensor_make(NULL, 0, MH_I32, 2, single);
    step.fault = mh_tensor_make(NULL, 0, MH_U32, 1, single);
    step.rope_table = mh_tensor_make(NULL, 0, MH_F32, 2, angles);
    model_lay_out(c, NULL, &step);
    mh_status status = model_build(model, loading->rank, &step, ask, loading);
    free(cache);
    return status;
}

static mh_status report(struct loading *loading, uint64_t bytes)
{
    const mh_model_params *p = loading->params;
    loading->done += bytes;
    if (p->progress && p->progress(p->progress_user, loading->done, loading->total))
        return mh_fail(MH_CANCELLED, "loading was cancelled");
    return MH_OK;
}

static mh_status fill(void *context, const struct model_tensor *tensor)
{
    struct loading *loading = context;
    const struct model_rank *rank = loading->rank;
    mh_weight **slot = weight_slot(loading->rank, tensor);
    mh_weight_info info = MH_INIT(mh_weight_info);
    mh_checkpoint_tensor data = MH_INIT(mh_checkpoint_tensor), scale = data;
    if (!slot || !is_wanted(loading, tensor))
        return MH_OK;
    mh_status status = mh_weight_get_info(*slot, &info);
    if (!status)
        status = model_find_matrix(loading->model->checkpoint, tensor, info.format, &data, &scale);
    if (status)
        return status;
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.flags = MH_PIECE_STAYS;
    piece.expert_begin = tensor->expert < 0 ? 0 : slot_of(loading->model, rank, tensor);
    piece.expert_count = 1, piece.row_count = info.out;
    piece.plane[0] = data.data, piece.plane[1] = scale.data;
    status = mh_weight_write(*slot, &piece);
    if (!status)
        status = report(loading, data.bytes + scale.bytes);
    if (!status && (tensor->expert < 0 || piece.expert_begin + 1 == info.experts))
        status = mh_weight_seal(*slot);
    return status;
}

/* ---- norms and biases: small, f32 ---- */

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    uint32_t bits;
    float value;
    if (exponent == 31)
        bits = sign | 0x7f800000 | mantissa << 13;
    else if (exponent)
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    else {
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    memcpy(&value, &bits, 4);
    return value;
}

static void decode(float *to, const mh_checkpoint_tensor *t, int64_t count)
{
    const char *from = t->data;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = 0;
        uint16_t half;
        switch (t->dtype) {
        case MH_ST_F32:
            memcpy(&to[i], from + 4 * i, 4);
            break;
        case MH_ST_BF16:
            memcpy(&half, from + 2 * i, 2);
            bits = (uint32_t)half << 16;
            memcpy(&to[i], &bits, 4);
            break;
        default:
            memcpy(&half, from + 2 * i, 2);
            to[i] = half_to_float(half);
        }
    }
}

/* Two passes over the same list: first the places, then the values. */
struct params {
    struct mh_model *model;
    struct model_rank *rank;
    char *host; /* NULL: the first pass */
    uint64_t used;
};

/* A vector of 4-byte elements behind those before; its tensor, and in the second pass its values.
 */
static void *take_vector(struct params *p, mh_dtype dtype, int64_t count, mh_tensor *out)
{
    uint64_t at = p->used;
    p->used += (4 * (uint64_t)count + 255) & ~UINT64_C(255);
    if (!p->host)
        return NULL;
    *out = mh_tensor_make(p->rank->params, at, dtype, 1, &count);
    return p->host + at;
}

static mh_status place_vector(void *context, const struct model_tensor *tensor)
{
    struct params *p = context;
    mh_tensor *slot = vector_slot(p->rank, tensor);
    if (!slot)
        return MH_OK;
    float *to = take_vector(p, MH_F32, tensor->rows, slot);
    if (!to)
        return MH_OK;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    mh_status status = mh_checkpoint_find(p->model->checkpoint, tensor->name, &t);
    if (!status)
        decode(to, &t, tensor->rows);
    return status;
}

/* The slots of the experts that this rank serves, for each group of rows. */
static void place_map(struct params *p, int64_t layer)
{
    struct model_rank *rank = p->rank;
    const struct placement *placement = &p->model->placement;
    int64_t experts = p->model->config->n_routed_experts;
    int32_t *map =
        take_vector(p, MH_I32, experts * placement->groups, &rank->layers[layer].expert_map);
    for (uint32_t g = 0; map && g < placement->groups; g++, map += experts) {
        int32_t slot = 0;
        for (int64_t e = 0; e < experts; e++) {
            bool here = placement_has(placement, rank->number, layer, e);
            bool serves = here && placement_owner(placement, layer, g, e) == rank->number;
            map[e] = serves ? slot : -1;
            slot += here;
        }
    }
}

static mh_status place_all(struct params *p)
{
    p->used = 0;
    mh_status status = model_for_each_tensor(p->model->config, place_vector, p);
    const mh_config *c = p->model->config;
    for (int64_t i = 0; !status && p->model->split && i < c->num_hidden_layers; i++)
        if (mh_config_is_moe(c, i))
            place_map(p, i);
    return status;
}

static mh_status load_params(struct mh_model *model, struct model_rank *rank)
{
    struct params p = {.model = model, .rank = rank};
    mh_status status = place_all(&p);
    if (!status)
        status = mh_buffer_create(rank->device, p.used, MH_BUFFER_DEVICE, &rank->params);
    if (status)
        return status;
    p.host = calloc(1, p.used);
    if (!p.host)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: %llu bytes for norms could not be had",
                       (unsigned long long)p.used);
    status = place_all(&p);
    if (!status)
        status = mh_buffer_write(rank->params, 0, p.host, p.used);
    free(p.host);
    return status;
}

/* ---- the API ---- */

/* Everything is asked of every device before a weight is read. */
static mh_status load(struct mh_model *model, const mh_model_params *params)
{
    struct loading loading = {.model = model, .params = params};
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < model->rank_count; i++) {
        loading.rank = &model->ranks[i];
        status = load_params(model, loading.rank);
        if (!status)
            status = model_for_each_tensor(model->config, describe, &loading);
        if (!status)
            status = decide_places(&loading, 1);
        if (!status)
            status = decide_places(&loading, 64);
    }
    for (uint32_t i = 0; !status && i < model->rank_count; i++) {
        loading.rank = &model->ranks[i];
        status = model_for_each_tensor(model->config, fill, &loading);
        if (!status && loading.rank->places)
            status = fetch_create(model, loading.rank);
    }
    return status;
}

/* Where this process's devices are among all. */
static mh_status find_place(struct mh_model *model)
{
    uint32_t processes = mh_transport_processes(model->transport);
    model->process_ranks = calloc(processes, sizeof(*model->process_ranks));
    if (!model->process_ranks)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %u processes", processes);
    return mh_transport_ranks(model->transport, model->rank_count, model->process_ranks,
                              &model->first_rank, &model->world);
}

static mh_status make_ranks(struct mh_model *model, mh_device *const *devices)
{
    const mh_config *c = model->config;
    if (model->world > 1 && model->world > c->n_routed_experts)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_model_load: %u devices given for the %lld experts of a layer",
                       model->world, (long long)c->n_routed_experts);
    model->ranks = calloc(model->rank_count, sizeof(*model->ranks));
    if (!model->ranks)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a model");
    for (uint32_t i = 0; i < model->rank_count; i++) {
        struct model_rank *rank = &model->ranks[i];
        rank->device = mh_device_retain(devices[i]);
        rank->layers = calloc((size_t)c->num_hidden_layers, sizeof(*rank->layers));
        if (!rank->layers)
            return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for layers");
        rank->number = model->first_rank + i;
    }
    return MH_OK;
}

/* Where there is a place for each of a rank's experts, none is fetched. */
static void count_experts(struct mh_model *model, struct model_rank *rank)
{
    int64_t most = 0;
    for (int64_t i = 0; i < model->config->num_hidden_layers; i++) {
        struct model_layer *l = &rank->layers[i];
        if (mh_config_is_moe(model->config, i))
            l->expert_count = placement_count(&model->placement, rank->number, i);
        most = l->expert_count > most ? l->expert_count : most;
    }
    if (rank->places >= most)
        rank->places = 0;
    model->fetches |= rank->places != 0;
}

static mh_status check_devices(mh_device *const *devices, uint64_t count)
{
    if (!count || count > MODEL_DEVICES)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_model_load: %llu devices given, must be 1 to %d",
                       (unsigned long long)count, MODEL_DEVICES);
    for (uint64_t i = 0; i < count; i++)
        if (!devices[i])
            return mh_fail(MH_INVALID_ARGUMENT, "mh_model_load: devices[%llu] is NULL",
                           (unsigned long long)i);
    return MH_OK;
}

mh_status mh_model_load(mh_checkpoint *checkpoint, mh_device *const *devices, uint64_t device_count,
                        const mh_model_params *params, mh_model **out)
{
    if (!checkpoint || !devices || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_model_load: an argument is NULL");
    *out = NULL;
    mh_model_params p = MH_INIT(mh_model_params);
    mh_status status = check_devices(devices, device_count);
    if (!status && params)
        status = mh_struct_in(&p, params, sizeof(p), "mh_model_params");
    if (status)
        return status;
    if (p.profile > MH_PROFILE_FAST)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_model_params: profile is %u, at most %u", p.profile,
                       MH_PROFILE_FAST);
    if (p.redundant > 1 << 20)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_model_params: redundant is %u, at most 2^20",
                       p.redundant);
    if (p.expert_places < -1 || p.reserved || (p.expert_places && p.redundant))
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_model_params: expert_places is %lld, must be -1 or more, and not "
                       "together with redundant",
                       (long long)p.expert_places);
    struct mh_model *model = calloc(1, sizeof(*model));
    if (!model)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a model");
    atomic_init(&model->refs, 1);
    atomic_init(&model->in_use, false);
    model->checkpoint = mh_checkpoint_retain(checkpoint);
    model->config = mh_checkpoint_config(checkpoint);
    model->profile = p.profile;
    model->rank_count = (uint32_t)device_count;
    model->transport = mh_transport_retain(p.transport);
    status = find_place(model);
    if (!status)
        status = make_ranks(model, devices);
    if (!status)
        status = mh_checkpoint_check(model->checkpoint);
    if (!status)
        status = model_place_experts(model, &p);
    for (uint32_t i = 0; !status && i < model->rank_count; i++)
        count_experts(model, &model->ranks[i]);
    model->split = model->world > 1 || model->fetches;
    if (!status)
        status = load(model, &p);
    if (status)
        mh_model_release(model);
    else
        *out = model;
    return status;
}

mh_model *mh_model_retain(mh_model *model)
{
    if (model)
        atomic_fetch_add_explicit(&model->refs, 1, memory_order_relaxed);
    return model;
}

static mh_status drop(void *context, const struct model_tensor *tensor)
{
    mh_weight **slot = weight_slot(context, tensor);
    if (slot) {
        mh_weight_release(*slot);
        *slot = NULL;
    }
    return MH_OK;
}

void mh_model_release(mh_model *model)
{
    if (!model || atomic_fetch_sub_explicit(&model->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; model->ranks && i < model->rank_count; i++) {
        struct model_rank *rank = &model->ranks[i];
        if (rank->layers)
            model_for_each_tensor(model->config, drop, rank);
        fetch_destroy(rank->fetch);
        free(rank->layers);
        mh_buffer_release(rank->params);
        mh_device_release(rank->device);
    }
    free(model->ranks);
    free(model->process_ranks);
    placement_free(&model->placement);
    mh_transport_release(model->transport);
    mh_checkpoint_release(model->checkpoint);
    free(model);
}

const mh_config *mh_model_config(const mh_model *model)
{
    return model ? model->config : NULL;
}

uint32_t mh_model_ranks(const mh_model *model)
{
    return model ? model->world : 0;
}

mh_status mh_model_experts(const mh_model *model, uint32_t rank, int64_t layer, int32_t *experts,
                           int64_t *count)
{
    if (!model || !count || rank >= model->world || layer < 0 ||
        layer >= model->config->num_hidden_layers)
        return mh_fail(MH_INVALID_ARGUMENT,
                       "mh_model_experts: NULL given, or rank %u of %u, or layer %lld", rank,
                       model ? model->world : 0, (long long)layer);
    *count = 0;
    for (int64_t e = 0; e < model->config->n_routed_experts; e++) {
        if (!placement_has(&model->placement, rank, layer, e))
            continue;
        if (experts)
            experts[*count] = (int32_t)e;
        ++*count;
    }
    return MH_OK;
}

mh_status mh_model_get_fetches(const mh_model *model, mh_model_fetches *out)
{
    if (!model)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_model_get_fetches: model is NULL");
    mh_model_fetches sum = MH_INIT(mh_model_fetches);
    for (uint32_t i = 0; i < model->rank_count; i++) {
        const struct fetch *f = model->ranks[i].fetch;
        if (!f)
            continue;
        sum.ranks++;
        sum.places = !sum.places || f->places < sum.places ? f->places : sum.places;
        sum.hits += f->hits, sum.misses += f->misses, sum.bytes += f->bytes_of_misses;
    }
    return mh_struct_out(out, &sum, sizeof(sum));
}

mh_device *mh_model_device(const mh_model *model)
{
    return model ? model->ranks[0].device : NULL;
}
