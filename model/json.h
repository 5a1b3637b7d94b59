/* json.h: reading JSON files of a model directory, with errors that name file and field. */
#ifndef MODEL_JSON_H
#define MODEL_JSON_H

#include <jansson.h>

#include <moehal/error.h>

/* Reads a whole file of at most `limit` bytes; owned (free), NUL-terminated. MH_NOT_FOUND if it is
 * not there. */
mh_status model_read_file(const char *path, uint64_t limit, char **text, uint64_t *bytes);

/* Parses an object; `file` names it in the error. */
mh_status model_parse_object(const char *text, uint64_t bytes, const char *file, json_t **out);

#endif
