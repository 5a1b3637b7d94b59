/* tokenizer_impl.h: what the files of the tokenizer share. Private to model/. */
#ifndef MOEHAL_MODEL_TOKENIZER_IMPL_H
#define MOEHAL_MODEL_TOKENIZER_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>

#include <moehal-model/tokenizer.h>
#include <moehal/error.h>

#include "grow.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

/* Tables are sized by the greatest id, so one number in a broken file must not ask for gigabytes.
 * The largest vocabularies have some 260,000 tokens. */
#define MH_TOKEN_ID_LIMIT (1 << 24)

enum {
    MH_TOKEN_ADDED = 1,
    MH_TOKEN_SPECIAL = 2,
    MH_TOKEN_NORMALIZED = 4,
    MH_TOKEN_LSTRIP = 8, /* swallows the white space before it */
    MH_TOKEN_RSTRIP = 16,
};

typedef struct mh_token {
    const uint8_t *text;  /* the spelling in tokenizer.json, NUL-terminated; NULL: no such id */
    const uint8_t *bytes; /* what it decodes to */
    uint32_t text_size, byte_size;
    uint32_t flags;
} mh_token;

/* text -> id and (left id, right id) -> merge: open addressing, at most half full. */
typedef struct mh_text_slot {
    int32_t id;    /* -1: empty */
    uint32_t hash; /* of the text: most strangers are told apart here, without a miss */
} mh_text_slot;

typedef struct mh_text_table {
    mh_text_slot *slots; /* owned */
    uint64_t mask;
} mh_text_table;

typedef struct mh_merge {
    uint64_t pair; /* left << 32 | right; MH_NO_PAIR: empty */
    uint32_t rank;
    int32_t id;
} mh_merge;

#define MH_NO_PAIR UINT64_MAX

typedef struct mh_merge_table {
    mh_merge *slots; /* owned */
    uint64_t mask;
} mh_merge_table;

/* A pre-tokenizer is a list of stages, each run on every piece the one before it left. */
typedef enum { MH_STAGE_SPLIT, MH_STAGE_PREFIX_SPACE } mh_stage_kind;

typedef enum {
    MH_SPLIT_ISOLATED,
    MH_SPLIT_REMOVED,
    MH_SPLIT_CONTIGUOUS,
    MH_SPLIT_MERGED_WITH_PREVIOUS,
    MH_SPLIT_MERGED_WITH_NEXT,
} mh_split_behavior;

typedef struct mh_stage {
    mh_stage_kind kind;
    mh_split_behavior behavior;
    bool invert;
    struct pcre2_real_code_8 *pattern; /* owned */
} mh_stage;

struct mh_tokenizer {
    atomic_uint references;
    mh_token *tokens; /* by id. Owned */
    uint64_t token_count;
    uint8_t *texts; /* the memory behind the tokens' text and bytes. Owned */
    mh_text_table by_text;
    mh_merge_table merges;
    int32_t byte_ids[256]; /* the token that is this one byte, -1: none */
    bool ignore_merges, add_bos;
    int32_t bos, eos;
    mh_stage *stages; /* owned */
    uint64_t stage_count, stage_capacity;
    uint32_t *added_sizes; /* the distinct sizes of added tokens, longest first. Owned */
    uint64_t added_size_count;
    bool added_first[256]; /* bytes an added token begins with */
    char *chat_template;   /* owned */
};

typedef struct mh_piece {
    const uint8_t *text; /* borrowed */
    uint64_t bytes;
} mh_piece;

typedef struct mh_pieces {
    mh_piece *list; /* owned */
    uint64_t count, capacity;
} mh_pieces;

typedef struct mh_symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t previous, next;
} mh_symbol;

typedef struct mh_candidate {
    uint32_t rank;
    int32_t at, id;
} mh_candidate;

/* What one call of encode works in; everything owned. */
typedef struct mh_encode_work {
    int32_t *ids;
    uint64_t id_count, id_capacity;
    mh_pieces pieces, next_pieces;
    mh_blob prefixed;
    struct pcre2_real_match_data_8 *match;
    mh_symbol *symbols;
    uint64_t symbol_capacity;
    mh_candidate *heap;
    uint64_t heap_count, heap_capacity;
    mh_blob spelling;
} mh_encode_work;

/* tokenizer_table.c */
mh_status mh_text_table_init(mh_text_table *table, uint64_t count);
int32_t mh_text_table_find(const mh_text_table *table, const mh_token *tokens, const void *text,
                           uint64_t bytes);
/* -1, or the id that has the text already, and is left. */
int32_t mh_text_table_add(mh_text_table *table, const mh_token *tokens, int32_t id);
mh_status mh_merge_table_init(mh_merge_table *table, uint64_t count);
/* A pair given twice keeps the later rank, as in the library the files are made for. */
void mh_merge_table_add(mh_merge_table *table, int32_t left, int32_t right, uint32_t rank,
                        int32_t id);
const mh_merge *mh_merge_table_find(const mh_merge_table *table, int32_t left, int32_t right);

/* tokenizer_bytes.c: GPT-2's alphabet, a printable character for every byte. */
uint32_t mh_byte_character(uint8_t byte);
/* The byte a character stands for, -1 if none. */
int mh_character_byte(uint32_t code);

/* tokenizer_regex.c: a pattern as the `tokenizers` library reads it (Oniguruma, Ruby syntax),
 * compiled with PCRE2. `where` (file and field) begins every message. */
mh_status mh_pattern_compile(const char *where, const char *pattern,
                             struct pcre2_real_code_8 **out);
mh_status mh_literal_compile(const char *where, const char *literal,
                             struct pcre2_real_code_8 **out);
void mh_pattern_free(struct pcre2_real_code_8 *pattern);

/* tokenizer_split.c: leaves the pieces of `text` in work->pieces; empty ones are to be skipped. */
mh_status mh_pretokenize(const mh_tokenizer *tokenizer, mh_encode_work *work, const uint8_t *text,
                         uint64_t bytes);

/* tokenizer_added.c */
mh_status mh_added_index(mh_tokenizer *tokenizer);
typedef struct mh_added_match {
    uint64_t begin, end; /* with the white space it swallows */
    int32_t id;
} mh_added_match;
/* The leftmost, then longest added token in text[from, to) whose MH_TOKEN_NORMALIZED is
 * `normalized`. Bytes with a non-zero entry in `plain` (may be NULL) are never part of one. */
bool mh_added_find(const mh_tokenizer *tokenizer, const uint8_t *text, const uint8_t *plain,
                   uint64_t from, uint64_t to, bool normalized, mh_added_match *out);

/* tokenizer_bpe.c: appends the ids of one piece. */
mh_status mh_bpe(const mh_tokenizer *tokenizer, mh_encode_work *work, const uint8_t *text,
                 uint64_t bytes);
mh_status mh_push_id(mh_encode_work *work, int32_t id);

/* tokenizer_encode.c: mh_tokenizer_encode with a mark for each byte of text (see mh_added_find). */
mh_status mh_encode_marked(const mh_tokenizer *tokenizer, const uint8_t *text, const uint8_t *plain,
                           uint64_t bytes, uint32_t flags, int32_t **ids, uint64_t *count);

/* tokenizer_lists.c: model.vocab and model.merges of tokenizer.json. */
typedef struct mh_vocab_entry {
    const char *text; /* NUL-terminated, in `strings` */
    uint32_t size;
    int64_t id; /* of any value */
} mh_vocab_entry;

typedef struct mh_merge_entry {
    const char *text; /* left and right, with nothing between or behind */
    uint32_t size[2];
    uint32_t sides; /* while it is read */
} mh_merge_entry;

typedef struct mh_token_lists {
    char *strings;         /* owned */
    mh_vocab_entry *vocab; /* owned */
    uint64_t vocab_count, vocab_capacity;
    mh_merge_entry *merges; /* owned */
    uint64_t merge_count, merge_capacity;
} mh_token_lists;

struct json_t;
/* Reads the text of a tokenizer.json, text[bytes] being 0, into a zeroed *lists; *rest, owned, is
 * the file's object with both lists empty. Also after a failure the lists are to be freed. */
mh_status mh_token_lists_read(const char *file, const char *text, uint64_t bytes,
                              mh_token_lists *lists, struct json_t **rest);
void mh_token_lists_free(mh_token_lists *lists);

/* tokenizer_json.c: fills the tokenizer from the content of tokenizer.json at `path`. */
mh_status mh_tokenizer_json_load(mh_tokenizer *tokenizer, const char *path,
                                 const mh_token_lists *lists, struct json_t *rest);

/* tokenizer_pretokenizer.c: reads the `pre_tokenizer` of tokenizer.json. */
mh_status mh_pretokenizer_load(mh_tokenizer *tokenizer, const char *file,
                               const struct json_t *description);

#endif
