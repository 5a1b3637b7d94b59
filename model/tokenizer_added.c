#include "tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include "utf8.h"

static int longest_first(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x < y) - (x > y);
}

mh_status mh_added_index(mh_tokenizer *tokenizer)
{
    uint64_t capacity = 0, count = 0;
    for (uint64_t id = 0; id < tokenizer->token_count; id++) {
        const mh_token *token = &tokenizer->tokens[id];
        if (!(token->flags & MH_TOKEN_ADDED))
            continue;
        mh_status status = mh_grow(&tokenizer->added_sizes, &capacity, count + 1, sizeof(uint32_t));
        if (status != MH_OK)
            return status;
        tokenizer->added_sizes[count++] = token->text_size;
        tokenizer->added_first[token->text[0]] = true;
    }
    if (count)
        qsort(tokenizer->added_sizes, count, sizeof(uint32_t), longest_first);
    for (uint64_t i = 0; i < count; i++)
        if (!i || tokenizer->added_sizes[i] != tokenizer->added_sizes[i - 1])
            tokenizer->added_sizes[tokenizer->added_size_count++] = tokenizer->added_sizes[i];
    return MH_OK;
}

static int32_t longest_at(const mh_tokenizer *tokenizer, const uint8_t *text, const uint8_t *plain,
                          uint64_t room, bool normalized)
{
    for (uint64_t i = 0; i < tokenizer->added_size_count; i++) {
        uint32_t size = tokenizer->added_sizes[i];
        if (size > room || (plain && memchr(plain, 1, size)))
            continue;
        int32_t id = mh_text_table_find(&tokenizer->by_text, tokenizer->tokens, text, size);
        uint32_t flags = id < 0 ? 0 : tokenizer->tokens[id].flags;
        if ((flags & MH_TOKEN_ADDED) && !!(flags & MH_TOKEN_NORMALIZED) == normalized)
            return id;
    }
    return -1;
}

static uint64_t before_space(const uint8_t *text, uint64_t from, uint64_t at)
{
    while (at > from) {
        uint64_t character = at - 1;
        while (character > from && (text[character] & 0xc0) == 0x80)
            character--;
        if (!mh_utf8_is_space(mh_utf8_code(text + character)))
            break;
        at = character;
    }
    return at;
}

static uint64_t after_space(const uint8_t *text, uint64_t at, uint64_t to)
{
    uint32_t length;
    while (at < to && mh_utf8_is_space(mh_utf8_code(text + at))) {
        mh_utf8_next(text + at, to - at, &length);
        at += length;
    }
    return at;
}

bool mh_added_find(const mh_tokenizer *tokenizer, const uint8_t *text, const uint8_t *plain,
                   uint64_t from, uint64_t to, bool normalized, mh_added_match *out)
{
    for (uint64_t at = from; at < to; at++) {
        if (!tokenizer->added_first[text[at]])
            continue;
        int32_t id =
            longest_at(tokenizer, text + at, plain ? plain + at : NULL, to - at, normalized);
        if (id < 0)
            continue;
        const mh_token *token = &tokenizer->tokens[id];
        *out = (mh_added_match){.begin = at, .end = at + token->text_size, .id = id};
        if (token->flags & MH_TOKEN_LSTRIP)
            out->begin = before_space(text, from, out->begin);
        if (token->flags & MH_TOKEN_RSTRIP)
            out->end = after_space(text, out->end, to);
        return true;
    }
    return false;
}
