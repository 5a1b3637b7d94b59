/* safetensors.h: reading one safetensors file. Not installed. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <moehal-model/checkpoint.h>

/* A mapped file and its tensors in the order of their names. */
struct safetensors {
    char *path;
    void *map;
    uint64_t size;
    mh_checkpoint_tensor *tensors; /* names owned, data in the map */
    uint64_t count;
};

mh_status safetensors_open(const char *path, struct safetensors *out);
void safetensors_close(struct safetensors *file);
/* NULL if there is none of this name. */
const mh_checkpoint_tensor *safetensors_find(const struct safetensors *file, const char *name);

#endif
