/* core_model.h: small whole models, for the cases that need one. */
#ifndef CONFORMANCE_CORE_MODEL_H
#define CONFORMANCE_CORE_MODEL_H

#include <moehal-model/session.h>

#include "core.h"

#define MODEL_VOCABULARY 211

enum core_model_kind { MODEL_V3_FP8, MODEL_V2_BF16 };

/* A random checkpoint, made in a temporary folder that is gone when this returns; kept. NULL with
 * the case failed. */
mh_checkpoint *core_checkpoint(struct core *c, enum core_model_kind kind);

/* How a model is run, and what came of it. */
struct core_story {
    uint64_t prompt, decoded; /* tokens */
    int64_t chunk;
    mh_dtype kv;
    float temperature;
    int32_t tokens[64];
    uint64_t hash; /* of the bits of every logit of the prompt's and the decoded tokens' rows */
};

/* Loads the checkpoint on the device, runs a story and releases everything. */
mh_status core_tell(mh_device *device, mh_checkpoint *checkpoint, struct core_story *story);

#endif
