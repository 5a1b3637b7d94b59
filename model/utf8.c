#include "utf8.h"

#include <string.h>

/* Length by lead byte, and the range of the second byte, which alone excludes overlong forms,
 * surrogates and what lies above U+10FFFF. */
static uint32_t lead(uint8_t byte, uint8_t *low, uint8_t *high)
{
    *low = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
    *high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
    if (byte < 0x80)
        return 1;
    if (byte >= 0xc2 && byte <= 0xdf)
        return 2;
    if (byte >= 0xe0 && byte <= 0xef)
        return 3;
    if (byte >= 0xf0 && byte <= 0xf4)
        return 4;
    return 0;
}

mh_utf8_kind mh_utf8_next(const uint8_t *text, uint64_t bytes, uint32_t *length)
{
    uint8_t low, high;
    uint32_t whole = lead(text[0], &low, &high);
    *length = 1;
    if (!whole)
        return MH_UTF8_INVALID;
    for (; *length < whole; ++*length) {
        if (*length == bytes)
            return MH_UTF8_CUT;
        if (text[*length] < low || text[*length] > high)
            return MH_UTF8_INVALID;
        low = 0x80;
        high = 0xbf;
    }
    return MH_UTF8_CHARACTER;
}

uint64_t mh_utf8_valid_prefix(const uint8_t *text, uint64_t bytes)
{
    uint64_t at = 0;
    while (at < bytes) {
        uint64_t word;
        if (bytes - at >= sizeof(word)) { /* most text is ASCII */
            memcpy(&word, text + at, sizeof(word));
            if (!(word & 0x8080808080808080u)) {
                at += sizeof(word);
                continue;
            }
        }
        uint32_t length;
        if (mh_utf8_next(text + at, bytes - at, &length) != MH_UTF8_CHARACTER)
            return at;
        at += length;
    }
    return at;
}

uint32_t mh_utf8_code(const uint8_t *text)
{
    if (text[0] < 0x80)
        return text[0];
    if (text[0] < 0xe0)
        return (text[0] & 0x1fu) << 6 | (text[1] & 0x3fu);
    if (text[0] < 0xf0)
        return (text[0] & 0xfu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
    return (text[0] & 0x7u) << 18 | (text[1] & 0x3fu) << 12 | (text[2] & 0x3fu) << 6 |
           (text[3] & 0x3fu);
}

bool mh_utf8_is_space(uint32_t code)
{
    return (code >= 0x9 && code <= 0xd) || code == 0x20 || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

uint32_t mh_utf8_put(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xc0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xe0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (code & 0x3f));
    return 4;
}
