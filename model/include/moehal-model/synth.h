/* synth.h: random checkpoints of a named shape, for measurements and tests. */
#ifndef MOEHAL_MODEL_SYNTH_H
#define MOEHAL_MODEL_SYNTH_H

#include <moehal-model/config.h>

MH_BEGIN_DECLS

enum { MH_SYNTH_BF16 = 0, MH_SYNTH_FP8 = 1, MH_SYNTH_AS_GIVEN = 2, MH_SYNTH_F16 = 3 };

typedef struct mh_synth_params {
    uint64_t struct_size;
    const char *name; /* "v3", "v2-lite", "v2", "moonlight", or the path of a config.json */
    const char *out;  /* directory, made if need be; a checkpoint already there is refused */
    int64_t layers;   /* 0: all of the configuration's */
    uint32_t dtype;   /* MH_SYNTH_BF16, MH_SYNTH_FP8, MH_SYNTH_F16 */
    uint32_t reserved;
    uint64_t seed;
    /* Bytes written; non-zero ends with MH_CANCELLED and removes what was written. May be NULL. */
    int (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t shard_bytes; /* most a file holds, unless one tensor is larger; 0: 5 GB */
} mh_synth_params;

/* Writes config.json and safetensors files in the release's own format, the same bytes on every
 * machine for the same params. No tokenizer is made. */
MH_API mh_status mh_synth(const mh_synth_params *params);

/* The config of such a checkpoint, by the same names; nothing is written. With MH_SYNTH_AS_GIVEN a
 * config.json keeps its own quantisation, and named shapes are bf16. The caller sets
 * out->struct_size. */
MH_API mh_status mh_synth_config(const char *name, int64_t layers, uint32_t dtype, mh_config *out);

MH_END_DECLS

#endif
