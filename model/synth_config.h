/* synth_config.h: the released configurations synth knows by name. */
#ifndef MODEL_SYNTH_CONFIG_H
#define MODEL_SYNTH_CONFIG_H

#include <jansson.h>
#include <stdint.h>

/* A config.json of the named release; NULL for an unknown name. Owned. */
json_t *synth_named_config(const char *name);

#endif
