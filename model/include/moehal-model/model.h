/*
 * model.h: a checkpoint's weights on a device.
 *
 * Weights stay in the checkpoint's file mapping wherever the device runs on host memory; elsewhere
 * they are copied to it. An op the device cannot run keeps its weights on the host. Threads: a
 * model is immutable once loaded and may be shared by sessions of several threads.
 */
#ifndef MOEHAL_MODEL_MODEL_H
#define MOEHAL_MODEL_MODEL_H

#include <moehal/moehal.h>
#include <moehal-model/checkpoint.h>
#include <moehal-model/load.h>

MH_BEGIN_DECLS

typedef struct mh_model mh_model;

/* Called from time to time with the bytes done so far; a non-zero answer ends the work with
 * MH_CANCELLED. */
typedef int (*mh_progress_fn)(void *user, uint64_t done, uint64_t total);

enum { MH_PROFILE_EXACT = 0, MH_PROFILE_FAST = 1 };

typedef struct mh_model_params {
    uint64_t struct_size;
    uint32_t profile;        /* MH_PROFILE_EXACT, MH_PROFILE_FAST: of every session of this model */
    uint32_t redundant;      /* copies of a layer's busiest experts, beside the first; 0: none */
    mh_progress_fn progress; /* may be NULL */
    void *progress_user;
    mh_transport *transport;     /* joins processes that load the same; NULL: this one is alone */
    mh_expert_load *expert_load; /* how often experts are chosen; NULL: all alike */
    /* Not 0: a device with memory of its own keeps at most so many experts of a layer, -1: as many
     * as there is room for, and fetches others from the checkpoint's mapping when they are chosen,
     * in place of the one used longest ago. Its experts are then its share of all, however many
     * there is room for. Such a model has one session at a time. */
    int64_t expert_places;
    uint64_t reserved;
} mh_model_params;

/* Checks the checkpoint against its config and loads it for 1 to 64 devices of one runtime, of any
 * vendors. The routed experts of a layer are dealt out evenly, as far as an eighth of a device's
 * memory stays free; devices on host memory take any number. They go in order, or with an
 * expert_load, the same in all processes, so that each device has as much to do as the next;
 * `redundant` more places then hold copies, which serve different rows of a step. All else is on
 * every device, the head on the first alone. Sessions of the model run every token on all of them
 * and exchange what experts give (mh_comm_combine), with the bits of one device. With a transport
 * that goes for the devices of all processes: each loads the same checkpoint for its own devices,
 * and runs the same tokens in the same order. params may be NULL.
 * Under strict placement, an op a device cannot run is an error naming the op. The caller owns
 * *out; the model keeps the checkpoint and the devices. */
MH_API mh_status mh_model_load(mh_checkpoint *checkpoint, mh_device *const *devices,
                               uint64_t device_count, const mh_model_params *params,
                               mh_model **out);
MH_API mh_model *mh_model_retain(mh_model *model);
MH_API void mh_model_release(mh_model *model); /* NULL is allowed */

MH_API const mh_config *mh_model_config(const mh_model *model); /* borrowed */
/* How many devices of all processes the model is on, and how many routed experts of a layer rank
 * `rank` has: which ones, in order, goes to experts[], which may be NULL. */
MH_API uint32_t mh_model_ranks(const mh_model *model);
MH_API mh_status mh_model_experts(const mh_model *model, uint32_t rank, int64_t layer,
                                  int32_t *experts, int64_t *count);

/* Since the model was loaded, on devices of this process that fetch experts. */
typedef struct mh_model_fetches {
    uint64_t struct_size;
    uint64_t ranks;  /* that do */
    int64_t places;  /* of a layer, on the one that has least */
    uint64_t hits;   /* experts that a layer of a step chose, and that were there */
    uint64_t misses; /* that were fetched: */
    uint64_t bytes;  /* so many all together */
} mh_model_fetches;

MH_API mh_status mh_model_get_fetches(const mh_model *model, mh_model_fetches *out);
MH_API mh_device *mh_model_device(const mh_model *model); /* the first; borrowed */

MH_END_DECLS

#endif
