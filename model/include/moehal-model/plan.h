/*
 * plan.h: what a model takes of each of several devices, before anything is loaded. It comes from
 * the config alone, or with a checkpoint from the sizes of its tensors; no weight is read.
 */
#ifndef MOEHAL_MODEL_PLAN_H
#define MOEHAL_MODEL_PLAN_H

#include <moehal-model/model.h>

MH_BEGIN_DECLS

typedef struct mh_plan_params {
    uint64_t struct_size;
    const mh_config *config;         /* needed without a checkpoint */
    const mh_checkpoint *checkpoint; /* NULL: matrices in bf16, or in FP8 as the config says */
    mh_dtype kv_dtype;               /* as of mh_session_params, with one sequence */
    uint32_t redundant;              /* as of mh_model_params, */
    mh_expert_load *expert_load;     /* as this */
    int64_t context;
    int64_t chunk;
    int64_t expert_places; /* as of mh_model_params */
    uint32_t attention;    /* as of mh_session_params */
    uint32_t reserved;
} mh_plan_params;

/* In the flags of a rank: it is the first device of its process, which has the head. The first rank
 * is, without it too. */
#define MH_PLAN_FIRST 0x80000000u

/* A rank: a device of a process. The caller sets struct_size, the same in all, and what is given.
 */
typedef struct mh_plan_rank {
    uint64_t struct_size;
    /* given */
    uint64_t memory; /* bytes that are free; 0: not known, and no limit */
    uint32_t flags;  /* of the device: MH_DEVICE_HOST_MEMORY; MH_PLAN_FIRST */
    /* found */
    uint32_t fits;          /* 1: all of the below is within `memory` */
    int64_t room;           /* for how many experts of every layer, with what is kept free */
    int64_t experts;        /* of every layer, that it gets; the most of a layer */
    uint64_t weight_bytes;  /* all weights but routed experts */
    uint64_t expert_bytes;  /* in a file's mapping where the device runs on host memory */
    uint64_t cache_bytes;   /* of the context, or of this rank's part where attention is split */
    uint64_t scratch_bytes; /* activations of a chunk, angles; a backend may take more */
    /* A token at the end of the context: experts' outputs, chosen as the load says, or alike, and
     * where attention is split what the ranks find of their segments. */
    uint64_t bytes_out;  /* that leave this rank, counted once */
    uint64_t bytes_in;   /* that come from the others */
    int64_t places;      /* of a layer, for experts that are fetched; 0: all it has are there */
    uint64_t miss_bytes; /* to fetch an expert of a layer */
} mh_plan_rank;

/* Places experts as mh_model_load does and fills what is found. `missing`: how many experts of a
 * layer are left that no device has room for; loading would be refused then. */
MH_API mh_status mh_plan(const mh_plan_params *params, mh_plan_rank *ranks, uint32_t count,
                         int64_t *missing);

MH_END_DECLS

#endif
