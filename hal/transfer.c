/* transfer.c: copies between buffers of any two devices of a runtime. */
#include <string.h>

#include "hal.h"

#define PIECE ((uint64_t)1 << 22) /* bytes staged at a time */

static mh_status check_pair(mh_device *from, mh_device *to, const char *function)
{
    if (from->runtime != to->runtime)
        return hal_fail(to->runtime, MH_INVALID_ARGUMENT, "%s: %s and %s are of two runtimes",
                        function, from->uri, to->uri);
    return MH_OK;
}

static uint32_t link_of(const mh_device *from, const mh_device *to)
{
    if (from == to)
        return MH_LINK_SAME;
    if (hal_on_host_memory(from) || hal_on_host_memory(to))
        return MH_LINK_HOST;
    return to->table->gate ? MH_LINK_THREAD : MH_LINK_STAGED;
}

mh_status mh_device_link(mh_device *from, mh_device *to, uint32_t *link)
{
    if (!from || !to || !link)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_device_link: %s is NULL",
                       !from ? "from"
                       : !to ? "to"
                             : "link");
    mh_status status = check_pair(from, to, "mh_device_link");
    if (!status)
        *link = link_of(from, to);
    return status;
}

static mh_status copy_on_device(mh_buffer *to, uint64_t to_offset, mh_buffer *from,
                                uint64_t from_offset, uint64_t size)
{
    if (to == from && to_offset < from_offset + size && from_offset < to_offset + size)
        return hal_fail(to->device->runtime, MH_INVALID_ARGUMENT,
                        "mh_buffer_copy: the ranges at %llu and %llu overlap (%llu bytes)",
                        (unsigned long long)to_offset, (unsigned long long)from_offset,
                        (unsigned long long)size);
    mh_copy copy = {.direction = MH_COPY_ON_DEVICE,
                    .to = to->view.handle,
                    .to_offset = to_offset,
                    .from = from->view.handle,
                    .from_offset = from_offset,
                    .size = size};
    return hal_device_copy(to->device, &copy);
}

static mh_status copy_staged(mh_buffer *to, uint64_t to_offset, mh_buffer *from,
                             uint64_t from_offset, uint64_t size)
{
    uint64_t piece = size < PIECE ? size : PIECE;
    void *staging = hal_alloc(to->device->runtime, piece);
    mh_status status = staging ? MH_OK : MH_OUT_OF_MEMORY;
    for (uint64_t done = 0; !status && done < size; done += piece) {
        uint64_t bytes = size - done < piece ? size - done : piece;
        status = mh_buffer_read(from, from_offset + done, staging, bytes);
        if (!status)
            status = mh_buffer_write(to, to_offset + done, staging, bytes);
    }
    hal_free(to->device->runtime, staging);
    return status;
}

mh_status mh_buffer_copy(mh_buffer *to, uint64_t to_offset, mh_buffer *from, uint64_t from_offset,
                         uint64_t size)
{
    mh_status status = hal_buffer_check(to, to_offset, size, "mh_buffer_copy: to");
    if (!status)
        status = hal_buffer_check(from, from_offset, size, "mh_buffer_copy: from");
    if (!status)
        status = check_pair(from->device, to->device, "mh_buffer_copy");
    if (status || !size)
        return status;
    if (to->flags & MH_IMPORT_READ_ONLY)
        return hal_fail(to->device->runtime, MH_INVALID_ARGUMENT,
                        "mh_buffer_copy: to was imported read-only");
    if (link_of(from->device, to->device) == MH_LINK_SAME)
        return copy_on_device(to, to_offset, from, from_offset, size);
    if (hal_on_host_memory(from->device))
        return mh_buffer_write(to, to_offset, (char *)from->view.host + from_offset, size);
    if (hal_on_host_memory(to->device))
        return mh_buffer_read(from, from_offset, (char *)to->view.host + to_offset, size);
    return copy_staged(to, to_offset, from, from_offset, size);
}
