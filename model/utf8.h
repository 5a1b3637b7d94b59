/* utf8.h: reading UTF-8 as Unicode 15, section 3.9 defines it (table 3-7). */
#ifndef MOEHAL_MODEL_UTF8_H
#define MOEHAL_MODEL_UTF8_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    MH_UTF8_CHARACTER, /* a whole character */
    MH_UTF8_INVALID,   /* bytes that no continuation can repair: a maximal subpart, or a stray */
    MH_UTF8_CUT,       /* the beginning of a character, ended by the end of the text */
} mh_utf8_kind;

/* Looks at the sequence beginning at `text` (bytes > 0); *length is what it takes, 1 to 4. */
mh_utf8_kind mh_utf8_next(const uint8_t *text, uint64_t bytes, uint32_t *length);

/* How many leading bytes are UTF-8; equals `bytes` for valid text. */
uint64_t mh_utf8_valid_prefix(const uint8_t *text, uint64_t bytes);

/* The code point of a whole, valid character. */
uint32_t mh_utf8_code(const uint8_t *text);

/* Unicode's White_Space property. */
bool mh_utf8_is_space(uint32_t code);

/* Writes `code` (a scalar value) and returns how many bytes it took, 1 to 4. */
uint32_t mh_utf8_put(uint32_t code, uint8_t out[4]);

#endif
