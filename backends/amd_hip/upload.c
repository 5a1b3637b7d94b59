/*
 * upload.c: large copies to the device by way of pinned memory, piece by piece: while one piece is
 * on its way the next is copied into the ring. The runtime's own path for pageable memory holds the
 * caller until each piece has arrived.
 */
#include <string.h>

#include "amd.h"

enum { UPLOAD_PIECE = 4 << 20, UPLOAD_PIECES = 4, UPLOAD_LEAST = 1 << 20 }; /* bytes */

/* Pieces not yet arrived, of all streams; a device has one ring, made when first wanted. */
struct upload {
    pthread_mutex_t lock;
    char *memory; /* UPLOAD_PIECES of UPLOAD_PIECE bytes, pinned */
    hipEvent_t arrived[UPLOAD_PIECES];
    uint32_t next;
};

static void release(struct device *device, struct upload *u)
{
    for (uint32_t i = 0; i < UPLOAD_PIECES; i++)
        if (u->arrived[i])
            device->hip->EventDestroy(u->arrived[i]);
    if (u->memory)
        device->hip->HostFree(u->memory);
    pthread_mutex_destroy(&u->lock);
    device->core->deallocate(device->core->context, u);
}

void amd_upload_close(struct device *device)
{
    if (device->upload)
        release(device, device->upload);
    device->upload = NULL;
}

/* NULL: no pinned memory is to be had, which is no failure. */
static struct upload *ring(struct device *device)
{
    pthread_mutex_lock(&device->lock);
    struct upload *u = device->upload;
    if (!u && (u = device->core->allocate(device->core->context, sizeof(*u)))) {
        int result =
            device->hip->HostMalloc((void **)&u->memory, (size_t)UPLOAD_PIECE * UPLOAD_PIECES, 0);
        for (uint32_t i = 0; i < UPLOAD_PIECES && !result; i++)
            result = device->hip->EventCreateWithFlags(&u->arrived[i], hipEventDisableTiming);
        pthread_mutex_init(&u->lock, NULL);
        if (result) {
            release(device, u);
            u = NULL;
        }
        device->upload = u;
    }
    pthread_mutex_unlock(&device->lock);
    return u;
}

static mh_status send(struct device *device, struct upload *u, void *to, const char *from,
                      uint64_t size, hipStream_t stream)
{
    mh_status status = MH_OK;
    for (uint64_t done = 0; done < size && !status; done += UPLOAD_PIECE) {
        uint64_t bytes = size - done < UPLOAD_PIECE ? size - done : UPLOAD_PIECE;
        uint32_t i = u->next++ % UPLOAD_PIECES;
        char *piece = u->memory + (uint64_t)i * UPLOAD_PIECE;
        status = HIP(device, EventSynchronize(u->arrived[i]));
        if (status)
            break;
        memcpy(piece, from + done, bytes);
        status = HIP(device,
                     MemcpyAsync((char *)to + done, piece, bytes, hipMemcpyHostToDevice, stream));
        if (!status)
            status = HIP(device, EventRecord(u->arrived[i], stream));
    }
    return status;
}

mh_status amd_upload(struct device *device, void *to, const void *from, uint64_t size,
                     hipStream_t stream)
{
    struct upload *u = size >= UPLOAD_LEAST ? ring(device) : NULL;
    if (!u)
        return HIP(device, MemcpyAsync(to, from, size, hipMemcpyHostToDevice, stream));
    pthread_mutex_lock(&u->lock);
    mh_status status = send(device, u, to, from, size, stream);
    pthread_mutex_unlock(&u->lock);
    return status;
}
