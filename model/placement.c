/* placement.c: which rank gets which experts: by room, and by how often they are chosen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "tensors.h"

/* ---- room ---- */

struct measuring {
    const mh_config *config;
    const mh_checkpoint *checkpoint; /* or NULL */
    struct model_sizes *sizes;
};

static mh_status add_size(void *context, const struct model_tensor *tensor)
{
    const struct measuring *m = context;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    uint64_t *sum = tensor->expert >= 0         ? &m->sizes->experts
                    : tensor->id == TENSOR_HEAD ? &m->sizes->head
                                                : &m->sizes->others;
    uint64_t bytes = model_tensor_bytes(tensor, m->config->fp8);
    mh_status status = MH_OK;
    if (!tensor->columns) { /* f32 on every device */
        bytes = (4 * (uint64_t)tensor->rows + 255) & ~UINT64_C(255);
    } else if (m->checkpoint) {
        status = mh_checkpoint_find(m->checkpoint, tensor->name, &t);
        bytes = t.dtype == MH_ST_F8_E4M3 ? model_tensor_bytes(tensor, true) : t.bytes;
    }
    if (!status && __builtin_add_overflow(*sum, bytes, sum))
        return mh_fail(MH_BAD_DATA, "config: the model has more than 2^64 bytes");
    return status;
}

mh_status model_measure(const mh_config *config, const mh_checkpoint *checkpoint,
                        struct model_sizes *sizes)
{
    struct measuring measuring = {config, checkpoint, sizes};
    *sizes = (struct model_sizes){0};
    return model_for_each_tensor(config, add_size, &measuring);
}

int64_t model_room(const mh_config *config, const struct model_sizes *sizes, uint64_t memory,
                   bool on_host, bool has_head)
{
    int64_t count = config->n_routed_experts;
    uint64_t each = count ? sizes->experts / (uint64_t)count : 0, left = memory / 8;
    if (on_host || !memory || !each)
        return count;
    left = left < (uint64_t)64 << 20 ? (uint64_t)64 << 20 : left;
    left += sizes->others + (has_head ? sizes->head : 0);
    uint64_t fits = memory > left ? (memory - left) / each : 0;
    return fits < (uint64_t)count ? (int64_t)fits : count;
}

/* What a rank has room for; where it fetches, that is any number, and it gets so many places. */
static mh_status ask_room(struct mh_model *model, uint32_t i, const struct model_sizes *sizes,
                          int64_t places, int64_t *room)
{
    int64_t experts = model->config->n_routed_experts;
    mh_device *device = model->ranks[i].device;
    mh_device_info info = MH_INIT(mh_device_info);
    mh_memory_info memory = MH_INIT(mh_memory_info);
    mh_status status = mh_device_get_info(device, &info);
    if (!status)
        status = mh_device_memory(device, &memory);
    *room =
        model_room(model->config, sizes, memory.available, info.flags & MH_DEVICE_HOST_MEMORY, !i);
    if (status || !places || info.flags & MH_DEVICE_HOST_MEMORY || !experts)
        return status;
    if (!*room)
        return mh_fail(MH_OUT_OF_MEMORY, "experts: %s has no room for one of each layer",
                       mh_device_uri(device));
    model->ranks[i].places = places < 0 || places > *room ? *room : places;
    *room = experts;
    return MH_OK;
}

/* ---- dealing ---- */

/* Everyone the same; returns what is left over. */
static int64_t deal(const int64_t *room, uint32_t ranks, int64_t left, int64_t *counts)
{
    for (uint32_t i = 0; i < ranks; i++)
        counts[i] = 0;
    for (bool again = true; again && left;) {
        int64_t takers = 0, dealt = left;
        for (uint32_t i = 0; i < ranks; i++)
            takers += counts[i] < room[i];
        again = takers > 0;
        for (uint32_t i = 0; again && i < ranks; i++) {
            int64_t space = room[i] - counts[i];
            if (space <= 0)
                continue;
            int64_t share = (left + takers - 1) / takers;
            takers--;
            share = share < space ? share : space;
            counts[i] += share;
            left -= share;
        }
        again = again && left < dealt;
    }
    return left;
}

/* One layer's experts while they are placed. */
struct layer {
    int64_t experts;
    uint32_t ranks;
    int64_t *counts, *used; /* [ranks]: places, and those taken */
    double *sums;           /* [ranks]: what they have to do so far */
    double *weight;         /* [experts]: of all copies together */
    int64_t *copies, *order;
};

static double each(const struct layer *l, int64_t expert)
{
    return l->weight[expert] / (double)l->copies[expert];
}

/* One copy more of whichever has most to do, as often as there are places. */
static void add_copies(struct layer *l, int64_t extra)
{
    for (; extra > 0; extra--) {
        int64_t best = -1;
        for (int64_t e = 0; e < l->experts; e++)
            if (l->copies[e] < l->ranks && (best < 0 || each(l, e) > each(l, best)))
                best = e;
        if (best < 0)
            return;
        l->copies[best]++;
    }
}

/* By what a copy has to do, and among equals by number. */
static void put_in_order(struct layer *l)
{
    for (int64_t e = 0; e < l->experts; e++) {
        int64_t at = e;
        for (; at > 0 && each(l, l->order[at - 1]) < each(l, e); at--)
            l->order[at] = l->order[at - 1];
        l->order[at] = e;
    }
}

static bool *place_of(const struct placement *p, uint32_t rank, int64_t layer, int64_t expert)
{
    int64_t row = rank * p->config->num_hidden_layers + layer;
    return p->has + row * p->config->n_routed_experts + expert;
}

/* The rank with least to do that has a place and not this expert yet; `ranks`: none. */
static uint32_t least_busy(const struct placement *p, const struct layer *l, int64_t layer,
                           int64_t expert)
{
    uint32_t best = l->ranks;
    for (uint32_t r = 0; r < l->ranks; r++)
        if (l->used[r] < l->counts[r] && !placement_has(p, r, layer, expert) &&
            (best == l->ranks || l->sums[r] < l->sums[best]))
            best = r;
    return best;
}

/* Those with most to do first. There are places for all copies, so each expert's first finds one; a
 * later one goes without where every rank with a place left has its expert already. */
static void balance(struct placement *p, struct layer *l, int64_t layer, const uint64_t *load,
                    int64_t extra)
{
    uint64_t sum = 0;
    for (int64_t e = 0; load && e < l->experts; e++)
        sum += load[e];
    for (int64_t e = 0; e < l->experts; e++) {
        l->weight[e] = load && sum ? (double)load[e] : 1;
        l->copies[e] = 1;
    }
    for (uint32_t r = 0; r < l->ranks; r++)
        l->used[r] = 0, l->sums[r] = 0;
    add_copies(l, extra);
    put_in_order(l);
    for (int64_t i = 0; i < l->experts; i++) {
        int64_t e = l->order[i];
        for (int64_t copy = 0; copy < l->copies[e]; copy++) {
            uint32_t rank = least_busy(p, l, layer, e);
            if (rank == l->ranks)
                break;
            *place_of(p, rank, layer, e) = true;
            l->sums[rank] += each(l, e);
            l->used[rank]++;
        }
    }
}

static void place_in_order(struct placement *p, int64_t layer, const int64_t *counts)
{
    int64_t expert = 0;
    for (uint32_t r = 0; r < p->ranks; r++)
        for (int64_t i = 0; i < counts[r]; i++)
            *place_of(p, r, layer, expert++) = true;
}

static uint32_t copies_of(const struct placement *p, int64_t layer, int64_t expert)
{
    uint32_t copies = 0;
    for (uint32_t r = 0; r < p->ranks; r++)
        copies += placement_has(p, r, layer, expert);
    return copies;
}

static void place_layers(struct placement *p, struct layer *l, mh_expert_load *load, int64_t extra)
{
    for (int64_t i = 0; i < p->config->num_hidden_layers; i++) {
        if (!mh_config_is_moe(p->config, i))
            continue;
        if (load || extra)
            balance(p, l, i, mh_expert_load_layer(load, i), extra);
        else
            place_in_order(p, i, l->counts);
        for (int64_t e = 0; extra && e < l->experts; e++) {
            uint32_t copies = copies_of(p, i, e);
            p->groups = copies > p->groups ? copies : p->groups;
        }
    }
}

mh_status placement_make(struct placement *p, const mh_config *config, const int64_t *room,
                         uint32_t ranks, mh_expert_load *load, int64_t extra, int64_t *missing)
{
    size_t experts = (size_t)config->n_routed_experts, layers = (size_t)config->num_hidden_layers;
    int64_t spare = 0;
    *p = (struct placement){.config = config, .ranks = ranks, .groups = 1};
    mh_status status = model_check_load(load, config);
    if (status)
        return status;
    p->has = calloc(ranks * layers * experts + 1, sizeof(*p->has));
    struct layer l = {.experts = config->n_routed_experts, .ranks = ranks};
    int64_t *numbers = calloc(2 * experts + 2 * ranks, sizeof(*numbers));
    double *weights = calloc(experts + ranks, sizeof(*weights));
    if (!p->has || !numbers || !weights) {
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a placement");
    } else {
        l.counts = numbers, l.used = numbers + ranks;
        l.copies = l.used + ranks, l.order = l.copies + experts;
        l.sums = weights, l.weight = weights + ranks;
        *missing = deal(room, ranks, l.experts, l.counts);
        for (uint32_t r = 0; r < ranks; r++)
            spare += room[r] - l.counts[r];
        extra = *missing ? 0 : extra < spare ? extra : spare;
        if (extra)
            deal(room, ranks, l.experts + extra, l.counts);
        place_layers(p, &l, load, extra);
    }
    free(numbers);
    free(weights);
    return status;
}

void placement_free(struct placement *p)
{
    free(p->has);
    p->has = NULL;
}

/* ---- questions ---- */

bool placement_has(const struct placement *p, uint32_t rank, int64_t layer, int64_t expert)
{
    return *place_of(p, rank, layer, expert);
}

int64_t placement_count(const struct placement *p, uint32_t rank, int64_t layer)
{
    int64_t count = 0;
    for (int64_t e = 0; e < p->config->n_routed_experts; e++)
        count += placement_has(p, rank, layer, e);
    return count;
}

uint32_t placement_owner(const struct placement *p, int64_t layer, uint32_t group, int64_t expert)
{
    uint32_t copies = copies_of(p, layer, expert), turn = copies ? group % copies : 0;
    for (uint32_t r = 0; r < p->ranks; r++)
        if (placement_has(p, r, layer, expert) && !turn--)
            return r;
    return 0;
}

double placement_share(const struct placement *p, uint32_t rank, mh_expert_load *load)
{
    double share = 0, layers = 0;
    for (int64_t i = 0; i < p->config->num_hidden_layers; i++) {
        const uint64_t *counts = mh_expert_load_layer(load, i);
        double sum = 0, here = 0, count = (double)p->config->n_routed_experts;
        if (!mh_config_is_moe(p->config, i))
            continue;
        for (int64_t e = 0; counts && e < p->config->n_routed_experts; e++)
            sum += (double)counts[e];
        for (int64_t e = 0; e < p->config->n_routed_experts; e++)
            if (placement_has(p, rank, i, e))
                here += (counts && sum > 0 ? (double)counts[e] : 1) / copies_of(p, i, e);
        share += here / (sum > 0 ? sum : count);
        layers++;
    }
    return layers > 0 ? share / layers : 0;
}

/* ---- placing a model ---- */

static mh_status too_little(const struct mh_model *model, const int64_t *room, int64_t left)
{
    char list[256] = "";
    for (uint32_t i = 0; i < model->world; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%lld", i ? ", " : "", (long long)room[i]);
    }
    return mh_fail(
        MH_OUT_OF_MEMORY,
        "experts: %lld of a layer's %lld fit on no device: there is room for %s of them; "
        "with the host among the devices it takes the rest",
        (long long)left, (long long)model->config->n_routed_experts, list);
}

mh_status model_place_experts(struct mh_model *model, const mh_model_params *params)
{
    const mh_config *c = model->config;
    struct model_sizes sizes;
    uint32_t processes = mh_transport_processes(model->transport);
    uint64_t *parts = calloc(processes, sizeof(*parts));
    int64_t *room = calloc(model->world, sizeof(*room)), missing = 0;
    mh_status status = MH_OK;
    if (!parts || !room)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %u ranks", model->world);
    if (!status)
        status = model_measure(c, model->checkpoint, &sizes);
    for (uint32_t i = 0; !status && i < model->rank_count; i++)
        status = ask_room(model, i, &sizes, params->expert_places, &room[model->first_rank + i]);
    for (uint32_t p = 0; !status && p < processes; p++)
        parts[p] = model->process_ranks[p] * sizeof(*room);
    if (!status && model->transport)
        status = mh_transport_gather(model->transport, room, parts);
    if (!status && model->world == 1) /* loading says what is missing */
        room[0] = c->n_routed_experts;
    if (!status)
        status = placement_make(&model->placement, c, room, model->world, params->expert_load,
                                params->redundant, &missing);
    if (!status && missing)
        status = too_little(model, room, missing);
    free(parts);
    free(room);
    return status;
}
