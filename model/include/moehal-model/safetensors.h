/* safetensors.h: writing tensors to a safetensors file. (Reading is checkpoint.h.) */
#ifndef MOEHAL_MODEL_SAFETENSORS_H
#define MOEHAL_MODEL_SAFETENSORS_H

#include <moehal/error.h>

MH_BEGIN_DECLS

/* dtypes as safetensors spells them */
enum {
#define MH_ST_DTYPE(value, NAME, bytes) MH_ST_##NAME = value,
#include <moehal-model/safetensors.def>
#undef MH_ST_DTYPE
};

MH_API const char *mh_safetensors_dtype_name(uint32_t dtype); /* "BF16"; "?" if unknown */
MH_API uint64_t mh_safetensors_dtype_size(uint32_t dtype);    /* bytes; 0 if unknown */

typedef struct mh_safetensors_entry {
    const char *name;
    uint32_t dtype;
    uint32_t rank;
    int64_t shape[4];
    const void *data; /* dense, row-major; not used by mh_safetensors_begin */
} mh_safetensors_entry;

/* Writes a whole file: to a temporary name beside it, then renamed, so that no half file is ever
 * seen under `path`. */
MH_API mh_status mh_safetensors_write(const char *path, const mh_safetensors_entry *entries,
                                      uint64_t count);

/* For data too big to hold: the header first, then every tensor's bytes in the order of `entries`.
 */
typedef struct mh_safetensors_writer mh_safetensors_writer;
MH_API mh_status mh_safetensors_begin(const char *path, const mh_safetensors_entry *entries,
                                      uint64_t count, mh_safetensors_writer **out);
MH_API mh_status mh_safetensors_append(mh_safetensors_writer *writer, const void *data,
                                       uint64_t bytes);
/* Ends and renames; MH_WRONG_STATE if bytes are missing. The writer is gone after it. */
MH_API mh_status mh_safetensors_finish(mh_safetensors_writer *writer);
/* Gives up: nothing is left on disk. NULL is allowed. */
MH_API void mh_safetensors_abandon(mh_safetensors_writer *writer);

MH_END_DECLS

#endif
