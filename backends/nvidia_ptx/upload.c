/*
 * upload.c: large copies to the device by way of pinned memory, piece by piece: while one piece is
 * on its way the next is copied into the ring. The driver's own path for pageable memory holds the
 * caller until each piece has arrived.
 */
#include <string.h>

#include "nvidia.h"

/* Pieces not yet arrived, of all streams; a device has one ring, made when first wanted. */
struct upload {
    pthread_mutex_t lock;
    char *memory; /* UPLOAD_PIECES of UPLOAD_PIECE bytes, pinned */
    CUevent arrived[UPLOAD_PIECES];
    uint32_t next;
};

static void release(struct device *device, struct upload *u)
{
    for (uint32_t i = 0; i < UPLOAD_PIECES; i++)
        if (u->arrived[i])
            device->cu->EventDestroy(u->arrived[i]);
    if (u->memory)
        device->cu->MemFreeHost(u->memory);
    pthread_mutex_destroy(&u->lock);
    device->core->deallocate(device->core->context, u);
}

void nv_upload_close(struct device *device)
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
        CUresult result = device->cu->MemHostAlloc(
            (void **)&u->memory, (size_t)UPLOAD_PIECE * UPLOAD_PIECES, CU_HOST_PORTABLE);
        for (uint32_t i = 0; i < UPLOAD_PIECES && !result; i++)
            result = device->cu->EventCreate(&u->arrived[i], CU_EVENT_NO_TIMING);
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

static mh_status send(struct device *device, struct upload *u, CUdeviceptr to, const char *from,
                      uint64_t size, CUstream stream)
{
    mh_status status = MH_OK;
    for (uint64_t done = 0; done < size && !status; done += UPLOAD_PIECE) {
        uint64_t bytes = size - done < UPLOAD_PIECE ? size - done : UPLOAD_PIECE;
        uint32_t i = u->next++ % UPLOAD_PIECES;
        char *piece = u->memory + (uint64_t)i * UPLOAD_PIECE;
        status = CU(device, EventSynchronize(u->arrived[i]));
        if (status)
            break;
        memcpy(piece, from + done, bytes);
        status = CU(device, MemcpyHtoDAsync(to + done, piece, bytes, stream));
        if (!status)
            status = CU(device, EventRecord(u->arrived[i], stream));
    }
    return status;
}

mh_status nv_upload(struct device *device, CUdeviceptr to, const void *from, uint64_t size,
                    CUstream stream)
{
    struct upload *u = size >= UPLOAD_LEAST ? ring(device) : NULL;
    if (!u)
        return CU(device, MemcpyHtoDAsync(to, from, size, stream));
    pthread_mutex_lock(&u->lock);
    mh_status status = send(device, u, to, from, size, stream);
    pthread_mutex_unlock(&u->lock);
    return status;
}
