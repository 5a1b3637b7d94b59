/*
 * tokenizer.h: text to token ids and back, as the `tokenizers` library does it for a byte-level BPE
 * described by a Hugging Face tokenizer.json.
 *
 * What is read: model BPE (merges in both spellings, ignore_merges), added_tokens (lstrip, rstrip,
 * special, normalized), pre_tokenizer Split, Digits, ByteLevel and sequences of these, decoder
 * ByteLevel. Nothing is built in for one model: patterns are the file's own. What cannot be carried
 * out (a normalizer, Unigram, byte_fallback, \w in a pattern, ...) is refused by name when loading
 * rather than tokenised differently. `truncation` and `padding` describe batches and are not used;
 * the post-processor is not run: BOS is added where tokenizer_config.json has add_bos_token.
 * Unicode classes are those of the PCRE2 that runs: characters younger than it count as unassigned.
 *
 * Text is UTF-8 and may hold NUL. A tokenizer never changes after it is loaded: any thread may use
 * it, several at once. A detokenizer belongs to one thread at a time.
 */
#ifndef MOEHAL_MODEL_TOKENIZER_H
#define MOEHAL_MODEL_TOKENIZER_H

#include <moehal/base.h>

MH_BEGIN_DECLS

typedef struct mh_tokenizer mh_tokenizer;
typedef struct mh_detokenizer mh_detokenizer;

enum {
    MH_ENCODE_BOS = 1u,   /* put BOS first if the tokenizer's configuration says so */
    MH_ENCODE_PLAIN = 2u, /* the text of an added token ("<|EOT|>") is ordinary text */
};

enum {
    MH_DECODE_SKIP_SPECIAL = 1u, /* leave out tokens marked special (BOS, EOS; not <think>) */
};

/* Reads DIR/tokenizer.json and, where present, DIR/tokenizer_config.json (add_bos_token, bos_token,
 * eos_token, chat_template) and DIR/chat_template.jinja, which wins over the configuration's.
 * *out is owned by the caller: mh_tokenizer_release().
 * MH_NOT_FOUND: no tokenizer.json; the message says what is there instead (a tiktoken file).
 * MH_UNSUPPORTED: the file asks for something moehal does not do. MH_BAD_DATA: the file is broken;
 * the message names file, field and value. MH_IO_ERROR, MH_OUT_OF_MEMORY. */
MH_API mh_status mh_tokenizer_load(const char *dir, mh_tokenizer **out);

/* Returns its argument; both accept NULL. */
MH_API mh_tokenizer *mh_tokenizer_retain(mh_tokenizer *tokenizer);
MH_API void mh_tokenizer_release(mh_tokenizer *tokenizer);

/* The greatest token id plus one, added tokens included. */
MH_API uint64_t mh_tokenizer_vocab_size(const mh_tokenizer *tokenizer);

/* The ids of tokenizer_config.json's bos_token and eos_token, -1 if it names none. */
MH_API int32_t mh_tokenizer_bos(const mh_tokenizer *tokenizer);
MH_API int32_t mh_tokenizer_eos(const mh_tokenizer *tokenizer);

/* 1 if MH_ENCODE_BOS puts a BOS first, else 0. */
MH_API uint32_t mh_tokenizer_adds_bos(const mh_tokenizer *tokenizer);

/* The id of a token by its spelling in tokenizer.json, -1 if there is none. That is the text itself
 * for an added token; in the vocabulary the byte alphabet of GPT-2 ("Ġthe" is " the"). */
MH_API int32_t mh_tokenizer_find(const mh_tokenizer *tokenizer, const char *token);

/* The spelling of a token in tokenizer.json, NULL if the id names none. Borrowed. */
MH_API const char *mh_tokenizer_token(const mh_tokenizer *tokenizer, int32_t id);

/* The model's own chat template (Jinja source), NULL if it has none. Borrowed. */
MH_API const char *mh_tokenizer_chat_template(const mh_tokenizer *tokenizer);

/* `bytes` bytes of UTF-8 at `text` (borrowed; may be NULL if `bytes` is 0) to ids. `flags`:
 * MH_ENCODE_*. *ids is owned by the caller: mh_model_free(); never NULL on success.
 * Time grows as n log n, whatever the text. MH_INVALID_ARGUMENT: the text is not UTF-8 (the message
 * names the byte offset) or longer than 1 GiB. */
MH_API mh_status mh_tokenizer_encode(const mh_tokenizer *tokenizer, const char *text,
                                     uint64_t bytes, uint32_t flags, int32_t **ids,
                                     uint64_t *count);

/* `count` ids (borrowed) to UTF-8. Bytes that form no character become U+FFFD, one for each longest
 * prefix of a character; an id that names no token gives nothing. `flags`: MH_DECODE_*. *text ends
 * with a NUL not counted in *bytes and is owned by the caller: mh_model_free(). `bytes` may be
 * NULL. */
MH_API mh_status mh_tokenizer_decode(const mh_tokenizer *tokenizer, const int32_t *ids,
                                     uint64_t count, uint32_t flags, char **text, uint64_t *bytes);

/* A decoder for tokens that arrive one by one: holds back an unfinished character, so that what it
 * hands out is always UTF-8 and in total what mh_tokenizer_decode gives. Retains the tokenizer. */
MH_API mh_status mh_detokenizer_create(mh_tokenizer *tokenizer, uint32_t flags,
                                       mh_detokenizer **out);
MH_API void mh_detokenizer_release(mh_detokenizer *detokenizer);

/* *text: what `id` completes, possibly nothing; NUL-terminated, borrowed until the next call. */
MH_API mh_status mh_detokenizer_push(mh_detokenizer *detokenizer, int32_t id, const char **text,
                                     uint64_t *bytes);

/* *text: what was held back (U+FFFD for an unfinished character, else nothing); as above. The
 * detokenizer is then as new. */
MH_API mh_status mh_detokenizer_finish(mh_detokenizer *detokenizer, const char **text,
                                       uint64_t *bytes);

/* Frees what moehal-model hands out as owned memory. NULL is allowed. */
MH_API void mh_model_free(void *memory);

MH_END_DECLS

#endif
