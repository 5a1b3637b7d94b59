/* fetch.h: banks with fewer places than a rank has experts, into which experts come from the
 * checkpoint's mapping when tokens choose them; the one used longest ago makes room. Not installed.
 */
#ifndef MODEL_FETCH_H
#define MODEL_FETCH_H

#include "model.h"

/* What one rank fetches. */
struct fetch {
    struct fetch_source *sources; /* [layers, experts, 3]: gate, up and down */
    int32_t *expert_at;           /* [layers, places]; -1: none */
    uint64_t *used_at;            /* [layers, places]: the turn it was last used in */
    uint64_t turn;
    int64_t places;
    int32_t *map;                           /* [experts]: what goes to the device */
    uint64_t hits, misses, bytes_of_misses; /* of experts that a layer of a step chose */
};

/* After the banks are sealed, with the first experts of each layer in their places. */
mh_status fetch_create(struct mh_model *model, struct model_rank *rank);
void fetch_destroy(struct fetch *fetch);

/* Brings as many of the experts that are needed [experts] into the layer's bank as it has places,
 * takes them off that list, and writes their places to the rank's map; *some: there were any. The
 * rank's stream has nothing to do meanwhile. `first`: of this layer in this step. */
mh_status fetch_round(struct mh_model *model, struct model_rank *rank, int64_t layer, bool *needed,
                      bool first, bool *some);

#endif
