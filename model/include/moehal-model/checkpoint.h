/*
 * checkpoint.h: a model directory in Hugging Face's layout: config.json, and model.safetensors or
 * model.safetensors.index.json with its shards. Files are mapped, not read: a tensor's data lies in
 * the mapping, at whatever alignment the file has.
 *
 * Threads: a checkpoint is immutable; any thread. The files must not change while it is open.
 */
#ifndef MOEHAL_MODEL_CHECKPOINT_H
#define MOEHAL_MODEL_CHECKPOINT_H

#include <moehal-model/config.h>
#include <moehal-model/safetensors.h>

MH_BEGIN_DECLS

typedef struct mh_checkpoint mh_checkpoint;

/* Every size in the files is checked before it is used; what is wrong is MH_BAD_DATA, MH_NOT_FOUND
 * or MH_IO_ERROR naming file, tensor, value and limit. The caller owns *out, NULL on failure. */
MH_API mh_status mh_checkpoint_open(const char *dir, mh_checkpoint **out);
/* One safetensors file alone, without a config (mh_checkpoint_config gives NULL). */
MH_API mh_status mh_checkpoint_open_file(const char *path, mh_checkpoint **out);
MH_API mh_checkpoint *mh_checkpoint_retain(mh_checkpoint *checkpoint);
MH_API void mh_checkpoint_release(mh_checkpoint *checkpoint); /* NULL is allowed */

MH_API const mh_config *mh_checkpoint_config(const mh_checkpoint *checkpoint); /* borrowed */
MH_API const char *mh_checkpoint_dir(const mh_checkpoint *checkpoint);         /* borrowed */

/* All pointers are borrowed from the checkpoint. */
typedef struct mh_checkpoint_tensor {
    uint64_t struct_size;
    const char *name;
    const char *file; /* its path */
    uint32_t dtype;   /* MH_ST_BF16, ... */
    uint32_t rank;
    int64_t shape[4];
    const void *data; /* dense, row-major, any alignment */
    uint64_t bytes;
    uint64_t offset; /* of the data in the file */
} mh_checkpoint_tensor;

MH_API uint64_t mh_checkpoint_count(const mh_checkpoint *checkpoint);
/* The tensor of a place in the order of names; MH_NOT_FOUND past the last. */
MH_API mh_status mh_checkpoint_at(const mh_checkpoint *checkpoint, uint64_t index,
                                  mh_checkpoint_tensor *out);
MH_API mh_status mh_checkpoint_find(const mh_checkpoint *checkpoint, const char *name,
                                    mh_checkpoint_tensor *out);

/* Is every tensor of the graph there, with the shape the config says and a dtype moehal reads (FP8
 * with its scales)? The first that is not is named. */
MH_API mh_status mh_checkpoint_check(const mh_checkpoint *checkpoint);

/* Tensors that the main model does not use. RoPE tables of older releases count as neither. */
typedef struct mh_checkpoint_extras {
    uint64_t struct_size;
    uint64_t mtp;     /* of multi-token-prediction layers: recognised and left alone */
    uint64_t unknown; /* anything else */
    char first_unknown[128];
} mh_checkpoint_extras;

MH_API mh_status mh_checkpoint_get_extras(const mh_checkpoint *checkpoint,
                                          mh_checkpoint_extras *out);

MH_END_DECLS

#endif
