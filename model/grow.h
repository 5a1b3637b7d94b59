/* grow.h: arrays that grow, with every size checked. */
#ifndef MOEHAL_MODEL_GROW_H
#define MOEHAL_MODEL_GROW_H

#include <moehal/error.h>

/* Makes *array (malloc'd, may be NULL) hold at least `need` elements of `size` bytes, at least
 * doubling *capacity when it grows. MH_OUT_OF_MEMORY leaves the array as it was. */
mh_status mh_grow(void *array, uint64_t *capacity, uint64_t need, uint64_t size);

typedef struct mh_blob {
    uint8_t *data; /* owned */
    uint64_t bytes, capacity;
} mh_blob;

mh_status mh_blob_add(mh_blob *blob, const void *data, uint64_t bytes);

/* Puts a NUL behind the content, not counted in `bytes`; data is then a C string. */
mh_status mh_blob_terminate(mh_blob *blob);

#endif
