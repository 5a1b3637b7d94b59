/* split.c: weights larger than a buffer of the device may be. */
#include <string.h>

#include "opencl.h"

mh_status opencl_split_create(struct device *device, uint64_t size, mh_buffer_view *out)
{
    const mh_core *core = device->core;
    uint64_t part = (device->most_bytes - SPLIT_OVERLAP) & ~UINT64_C(255);
    cl_int code = 0;
    if (device->most_bytes < 2 * SPLIT_OVERLAP || size > SPLIT_PIECES * part)
        return FAIL(core, MH_OUT_OF_MEMORY,
                    "%s: a weight of %llu bytes could not be had: at most %d pieces of %llu",
                    device->name, (unsigned long long)size, SPLIT_PIECES, (unsigned long long)part);
    struct split *split = core->allocate(core->context, sizeof(*split));
    if (!split)
        return MH_OUT_OF_MEMORY;
    *split = (struct split){.part = part};
    for (uint64_t at = 0; !code && at < size; at += part) {
        uint64_t left = size - at;
        split->piece[split->count] = device->cl->CreateBuffer(
            device->context, CL_MEM_READ_WRITE,
            left < part + SPLIT_OVERLAP ? left : part + SPLIT_OVERLAP, NULL, &code);
        split->count += !code;
    }
    pthread_mutex_lock(&device->split_lock);
    split->next = device->splits;
    device->splits = split;
    pthread_mutex_unlock(&device->split_lock);
    out->handle = split->piece[0];
    if (code) {
        opencl_split_destroy(device, split);
        return CL_FAIL(core, "clCreateBuffer", code, "%s: %llu bytes could not be had",
                       device->name, (unsigned long long)size);
    }
    return MH_OK;
}

struct split *opencl_split_find(struct device *device, const void *handle)
{
    pthread_mutex_lock(&device->split_lock);
    struct split *split = device->splits;
    while (split && split->piece[0] != handle)
        split = split->next;
    pthread_mutex_unlock(&device->split_lock);
    return split;
}

void opencl_split_destroy(struct device *device, struct split *split)
{
    pthread_mutex_lock(&device->split_lock);
    struct split **link = &device->splits;
    while (*link != split)
        link = &(*link)->next;
    *link = split->next;
    pthread_mutex_unlock(&device->split_lock);
    for (uint32_t i = 0; i < split->count; i++)
        device->cl->ReleaseMemObject(split->piece[i]);
    device->core->deallocate(device->core->context, split);
}

/* Writes go to every piece that has a byte; reads take it from the first that has it. */
static mh_status copy_pieces(struct stream *stream, const mh_copy *c, const struct split *split,
                             bool writes,
                             mh_status (*copy)(struct stream *stream, const mh_copy *c))
{
    uint64_t begin = writes ? c->to_offset : c->from_offset, end = begin + c->size;
    mh_status status = MH_OK;
    for (uint32_t i = 0; !status && i < split->count; i++) {
        uint64_t first = i * split->part, last = first + split->part + (writes ? SPLIT_OVERLAP : 0);
        uint64_t from = begin > first ? begin : first, to = end < last ? end : last;
        if (from >= to)
            continue;
        mh_copy piece = *c;
        piece.size = to - from;
        piece.to_offset = writes ? from - first : c->to_offset + (from - begin);
        piece.from_offset = writes ? c->from_offset + (from - begin) : from - first;
        if (writes)
            piece.to = split->piece[i];
        else
            piece.from = split->piece[i];
        status = copy(stream, &piece);
    }
    return status;
}

mh_status opencl_split_copy(struct stream *stream, const mh_copy *c,
                            mh_status (*copy)(struct stream *stream, const mh_copy *c))
{
    struct device *device = stream->device;
    const struct split *to =
        c->direction == MH_COPY_TO_HOST ? NULL : opencl_split_find(device, c->to);
    const struct split *from =
        c->direction == MH_COPY_TO_DEVICE ? NULL : opencl_split_find(device, c->from);
    return to     ? copy_pieces(stream, c, to, true, copy)
           : from ? copy_pieces(stream, c, from, false, copy)
                  : copy(stream, c);
}
