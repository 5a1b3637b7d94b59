/* placement.c: which rank gets which experts: as many on each as on the next, unless one's memory
 * does not hold them. */
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

static mh_status ask_room(const struct mh_model *model, uint32_t i, const struct model_sizes *sizes,
                          int64_t *room)
{
    mh_device *device = model->ranks[i].device;
    mh_device_info info = MH_INIT(mh_device_info);
    mh_memory_info memory = MH_INIT(mh_memory_info);
    mh_status status = mh_device_get_info(device, &info);
    if (!status)
        status = mh_device_memory(device, &memory);
    *room =
        model_room(model->config, sizes, memory.available, info.flags & MH_DEVICE_HOST_MEMORY, !i);
    return status;
}

/* ---- dealing ---- */

int64_t model_deal(const int64_t *room, uint32_t ranks, int64_t left, int64_t *counts)
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

static mh_status deal(struct mh_model *model, const int64_t *room)
{
    int64_t *begin = model->expert_begin; /* first begin[i + 1] is what rank i has */
    int64_t left = model_deal(room, model->world, model->config->n_routed_experts, begin + 1);
    if (left)
        return too_little(model, room, left);
    for (uint32_t i = 0; i < model->world; i++)
        begin[i + 1] += begin[i];
    return MH_OK;
}

mh_status model_place_experts(struct mh_model *model)
{
    struct model_sizes sizes;
    uint32_t processes = mh_transport_processes(model->transport);
    uint64_t *parts = calloc(processes, sizeof(*parts));
    int64_t *room = calloc(model->world, sizeof(*room));
    model->expert_begin = calloc(model->world + 1, sizeof(*model->expert_begin));
    mh_status status = MH_OK;
    if (!parts || !room || !model->expert_begin)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %u ranks", model->world);
    if (!status && model->config->n_routed_experts)
        status = model_measure(model->config, model->checkpoint, &sizes);
    for (uint32_t i = 0; !status && model->config->n_routed_experts && i < model->rank_count; i++)
        status = ask_room(model, i, &sizes, &room[model->first_rank + i]);
    for (uint32_t p = 0; !status && p < processes; p++)
        parts[p] = model->process_ranks[p] * sizeof(*room);
    if (!status && model->transport)
        status = mh_transport_gather(model->transport, room, parts);
    if (!status && model->world == 1)
        model->expert_begin[1] =
            model->config->n_routed_experts; /* or loading says what is missing */
    else if (!status)
        status = deal(model, room);
    for (uint32_t i = 0; !status && i < model->rank_count; i++) {
        const int64_t *begin = model->expert_begin + model->first_rank + i;
        model->ranks[i].expert_begin = begin[0];
        model->ranks[i].expert_count = begin[1] - begin[0];
    }
    free(parts);
    free(room);
    return status;
}
