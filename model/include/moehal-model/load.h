/*
 * load.h: how often the tokens of a run chose each expert of each layer: counted by a session, kept
 * in a file, and read by whoever places experts.
 *
 * The file is JSON: {"experts": E, "layers": [null, [E counts], ...]}, null for a dense layer.
 * Threads: one at a time.
 */
#ifndef MOEHAL_MODEL_LOAD_H
#define MOEHAL_MODEL_LOAD_H

#include <moehal-model/config.h>

MH_BEGIN_DECLS

typedef struct mh_expert_load mh_expert_load;

/* All counts 0. The caller owns *out. */
MH_API mh_status mh_expert_load_create(const mh_config *config, mh_expert_load **out);
/* What is not a load of such a model is MH_BAD_DATA naming file, layer and value. */
MH_API mh_status mh_expert_load_read(const mh_config *config, const char *path,
                                     mh_expert_load **out);
/* The file appears whole or not at all (it is written as PATH.part and renamed). */
MH_API mh_status mh_expert_load_write(const mh_expert_load *load, const char *path);
MH_API void mh_expert_load_release(mh_expert_load *load); /* NULL is allowed */

/* The counts of a layer's experts, which may be changed; NULL of a dense layer, or of none. */
MH_API uint64_t *mh_expert_load_layer(mh_expert_load *load, int64_t layer);

MH_END_DECLS

#endif
