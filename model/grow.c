#include "grow.h"

#include <stdlib.h>
#include <string.h>

mh_status mh_grow(void *array, uint64_t *capacity, uint64_t need, uint64_t size)
{
    if (need <= *capacity)
        return MH_OK;
    uint64_t want = *capacity > UINT64_MAX / 2 ? need : 2 * *capacity;
    want = want < need ? need : want;
    want = want < 16 ? 16 : want;
    void *old, *grown = NULL;
    memcpy(&old, array, sizeof(old)); /* `array` is the address of a pointer of any type */
    if (want <= SIZE_MAX / size)
        grown = realloc(old, (size_t)(want * size));
    if (!grown)
        return mh_fail(MH_OUT_OF_MEMORY, "no memory for %llu elements of %llu bytes",
                       (unsigned long long)want, (unsigned long long)size);
    memcpy(array, &grown, sizeof(grown));
    *capacity = want;
    return MH_OK;
}

mh_status mh_blob_add(mh_blob *blob, const void *data, uint64_t bytes)
{
    if (bytes > UINT64_MAX - blob->bytes)
        return mh_fail(MH_OUT_OF_MEMORY, "text too long");
    mh_status status = mh_grow(&blob->data, &blob->capacity, blob->bytes + bytes, 1);
    if (status == MH_OK && bytes) {
        memcpy(blob->data + blob->bytes, data, (size_t)bytes);
        blob->bytes += bytes;
    }
    return status;
}

mh_status mh_blob_terminate(mh_blob *blob)
{
    mh_status status = mh_blob_add(blob, "", 1);
    if (status == MH_OK)
        blob->bytes--;
    return status;
}
