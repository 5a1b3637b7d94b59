/* tensors.h: the tensors of a checkpoint, by name and shape: one list for reading, checking and
 * making them. */
#ifndef MODEL_TENSORS_H
#define MODEL_TENSORS_H

#include <stdbool.h>

#include <moehal-model/config.h>

enum model_tensor_id {
    TENSOR_EMBEDDING,
    TENSOR_HEAD,
    TENSOR_FINAL_NORM,
    TENSOR_ATTENTION_NORM,
    TENSOR_FFN_NORM,
    TENSOR_Q,
    TENSOR_Q_A,
    TENSOR_Q_A_NORM,
    TENSOR_Q_B,
    TENSOR_KV_A,
    TENSOR_KV_A_NORM,
    TENSOR_KV_B,
    TENSOR_O,
    TENSOR_GATE, /* of a dense layer, or of the shared experts */
    TENSOR_UP,
    TENSOR_DOWN,
    TENSOR_ROUTER,
    TENSOR_ROUTER_BIAS,
    TENSOR_EXPERT_GATE,
    TENSOR_EXPERT_UP,
    TENSOR_EXPERT_DOWN,
};

struct model_tensor {
    enum model_tensor_id id;
    int64_t layer;   /* -1: none */
    int64_t expert;  /* -1: none */
    int64_t rows;    /* out; of a vector its length */
    int64_t columns; /* in; 0: a vector */
    bool may_be_fp8; /* a projection that FP8 releases quantise */
    char name[128];
};

typedef mh_status (*model_tensor_fn)(void *context, const struct model_tensor *tensor);

/* Calls fn for every tensor of the main model, in the order of its use; stops at the first failure.
 */
mh_status model_for_each_tensor(const mh_config *config, model_tensor_fn fn, void *context);

/* Bytes it takes in a checkpoint of bf16, or with fp8 in one of the FP8 releases, scales counted. */
uint64_t model_tensor_bytes(const struct model_tensor *tensor, bool fp8);

#endif
