/* placement.h: which rank has which experts. Not installed. */
#ifndef MODEL_PLACEMENT_H
#define MODEL_PLACEMENT_H

#include <stdbool.h>

#include <moehal-model/checkpoint.h>
#include <moehal-model/load.h>

/* load.c: is it of such a model? NULL is. */
mh_status model_check_load(const mh_expert_load *load, const mh_config *config);

/* Bytes of a model's tensors, as they go to devices. */
struct model_sizes {
    uint64_t experts; /* of all routed experts */
    uint64_t head, others;
};

/* checkpoint NULL: as the config has them. */
mh_status model_measure(const mh_config *config, const mh_checkpoint *checkpoint,
                        struct model_sizes *sizes);
/* How many experts of each layer there is room for, with an eighth of the memory, 64 MiB at least,
 * left for the cache and for what a step takes. Weights on host memory stay in the checkpoint's
 * mapping; memory 0 is not known. */
int64_t model_room(const mh_config *config, const struct model_sizes *sizes, uint64_t memory,
                   bool on_host, bool has_head);

/* An expert may be on several ranks. The rows of a step are then dealt out in `groups` parts, and
 * the copies of an expert take turns in serving them. */
struct placement {
    const mh_config *config;
    uint32_t ranks, groups; /* groups: most copies of any expert */
    bool *has;              /* [ranks, layers, experts] */
};

/* Every rank gets as many experts of a layer as the next, the first ones more; who has no room for
 * that takes what there is room for. `extra` more places go to copies of those that are chosen
 * most, as far as there is room. Without a load and copies experts go in order; else each goes to
 * the rank whose experts so far are chosen least. *missing: of a layer's experts, those that have
 * no place. load may be NULL: all alike. placement_free takes what is left of a failure too. */
mh_status placement_make(struct placement *placement, const mh_config *config, const int64_t *room,
                         uint32_t ranks, mh_expert_load *load, int64_t extra, int64_t *missing);
void placement_free(struct placement *placement);

bool placement_has(const struct placement *placement, uint32_t rank, int64_t layer, int64_t expert);
int64_t placement_count(const struct placement *placement, uint32_t rank, int64_t layer);
/* The rank that serves the expert to a group of rows. */
uint32_t placement_owner(const struct placement *placement, int64_t layer, uint32_t group,
                         int64_t expert);
/* Of what a token's layers choose, the part that a rank serves: 0 to 1, by `load`. */
double placement_share(const struct placement *placement, uint32_t rank, mh_expert_load *load);

/* The first row of a group of so many. */
static inline int64_t placement_row(int64_t rows, uint32_t group, uint32_t groups)
{
    return rows * group / groups;
}

#endif
