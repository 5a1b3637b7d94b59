/*
 * mini_tokenizer.h: model directories made on the fly. The mini tokenizer has one token a byte (id
 * = byte) and, from id 256, those of seven merges; tests/data/tokenizer/make_behaviours.py builds
 * the same one.
 */
#ifndef MINI_TOKENIZER_H
#define MINI_TOKENIZER_H

#include <jansson.h>

#include <moehal-model/tokenizer.h>

/* The content of its tokenizer.json, owned by the caller. */
json_t *mini_tokenizer(void);

/* Sets the field at a path of keys parted by dots; takes over `value`. */
void set_field(json_t *object, const char *path, json_t *value);

/* Appends {id, content, special, ...} to added_tokens. */
void add_token(json_t *tokenizer, int id, const char *text, int special);

/* A fresh empty directory (removed with its files by remove_dir). Owned: free(). */
char *make_dir(void);
void remove_dir(char *dir);
void write_file(const char *dir, const char *name, const char *text, size_t bytes);
void write_json(const char *dir, const char *name, const json_t *json);

/* Loads what the two descriptions say (config may be NULL); fails the test if it does not load. */
mh_tokenizer *load_mini(const json_t *tokenizer, const json_t *config);

/* The path of a file below the folder in the environment variable `root`. Owned: free(). */
char *data_path(const char *root, const char *name);

/* Reads a JSON file, fails the test if it cannot. */
json_t *read_json_file(const char *path);

#endif
