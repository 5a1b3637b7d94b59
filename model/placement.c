/* placement.c: which rank gets which experts: as many on each as on the next, unless one's memory
 * does not hold them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "tensors.h"

/* Bytes of a checkpoint's tensors, as they go to devices. */
struct sizes {
    const mh_checkpoint *checkpoint;
    uint64_t experts; /* of all routed experts */
    uint64_t head, others;
};

static mh_status add_size(void *context, const struct model_tensor *tensor)
{
    struct sizes *sizes = context;
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    mh_status status = mh_checkpoint_find(sizes->checkpoint, tensor->name, &t);
    uint64_t *sum = tensor->expert >= 0         ? &sizes->experts
                    : tensor->id == TENSOR_HEAD ? &sizes->head
                                                : &sizes->others;
    *sum += t.bytes;
    return status;
}

/* How many experts of each layer a rank has room for, with an eighth of its memory, 64 MiB at
 * least, left for the cache and for what a step takes. Weights on host memory stay in the
 * checkpoint's mapping. */
static mh_status ask_room(const struct mh_model *model, uint32_t i, const struct sizes *sizes,
                          int64_t *room)
{
    int64_t count = model->config->n_routed_experts;
    mh_device *device = model->ranks[i].device;
    mh_device_info info = MH_INIT(mh_device_info);
    mh_memory_info memory = MH_INIT(mh_memory_info);
    mh_status status = mh_device_get_info(device, &info);
    if (!status)
        status = mh_device_memory(device, &memory);
    *room = count;
    uint64_t fixed = sizes->others + (i || model->first_rank ? 0 : sizes->head);
    uint64_t each = sizes->experts / (uint64_t)count, left = memory.available / 8;
    left = left < (uint64_t)64 << 20 ? (uint64_t)64 << 20 : left;
    if (status || info.flags & MH_DEVICE_HOST_MEMORY || !memory.available || !each)
        return status;
    fixed += left;
    uint64_t fits = memory.available > fixed ? (memory.available - fixed) / each : 0;
    if (fits < (uint64_t)count)
        *room = (int64_t)fits;
    return MH_OK;
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

/* Everyone the same, the last ones more; who cannot take that takes what it can. */
static mh_status deal(struct mh_model *model, int64_t *room)
{
    int64_t left = model->config->n_routed_experts, *begin = model->expert_begin;
    for (uint32_t i = 0; i <= model->world; i++)
        begin[i] = 0;
    for (bool again = true; again && left;) { /* begin[i + 1] is what rank i has */
        int64_t takers = 0, dealt = left;
        for (uint32_t i = 0; i < model->world; i++)
            takers += begin[i + 1] < room[i];
        again = takers > 0;
        for (uint32_t i = 0; again && i < model->world; i++) {
            int64_t space = room[i] - begin[i + 1];
            if (space <= 0)
                continue;
            int64_t share = (left + takers - 1) / takers;
            takers--;
            share = share < space ? share : space;
            begin[i + 1] += share;
            left -= share;
        }
        again = again && left < dealt;
    }
    if (left)
        return too_little(model, room, left);
    for (uint32_t i = 0; i < model->world; i++)
        begin[i + 1] += begin[i];
    return MH_OK;
}

mh_status model_place_experts(struct mh_model *model)
{
    struct sizes sizes = {.checkpoint = model->checkpoint};
    uint32_t processes = mh_transport_processes(model->transport);
    uint64_t *parts = calloc(processes, sizeof(*parts));
    int64_t *room = calloc(model->world, sizeof(*room));
    model->expert_begin = calloc(model->world + 1, sizeof(*model->expert_begin));
    mh_status status = MH_OK;
    if (!parts || !room || !model->expert_begin)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for %u ranks", model->world);
    if (!status && model->config->n_routed_experts)
        status = model_for_each_tensor(model->config, add_size, &sizes);
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
