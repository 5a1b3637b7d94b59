/* tokenizer_golden.h: files of strings, ids and decoded texts, one JSON object a line. */
#ifndef TOKENIZER_GOLDEN_H
#define TOKENIZER_GOLDEN_H

#include <jansson.h>

#include <moehal-model/tokenizer.h>

/* Fails the test, showing the text, unless `text` gives `ids`. */
void expect_ids(const mh_tokenizer *tokenizer, const char *name, const char *text, size_t bytes,
                const json_t *ids);

/* Fails the test unless the ids decode to `text`, whole and token by token. */
void expect_text(mh_tokenizer *tokenizer, const char *name, const json_t *ids, uint32_t flags,
                 const json_t *text);

/* Every line of the file both ways; returns how many there were. */
size_t expect_golden_file(mh_tokenizer *tokenizer, const char *path);

#endif
