#include "tokenizer_impl.h"

/* Bytes that are printable in Latin-1 stand for themselves; the other 68, in order, for U+0100 and
 * up: 0x00..0x20 (33 of them), 0x7f..0xa0 (34), 0xad. */
enum { SHIFTED = 0x100, AFTER_CONTROLS = 33, AFTER_DELETE = 33 + 34 };

uint32_t mh_byte_character(uint8_t byte)
{
    if (byte <= 0x20)
        return SHIFTED + byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return SHIFTED + AFTER_CONTROLS + (byte - 0x7fu);
    if (byte == 0xad)
        return SHIFTED + AFTER_DELETE;
    return byte;
}

int mh_character_byte(uint32_t code)
{
    if (code < SHIFTED)
        return mh_byte_character((uint8_t)code) == code ? (int)code : -1;
    code -= SHIFTED;
    if (code < AFTER_CONTROLS)
        return (int)code;
    if (code < AFTER_DELETE)
        return (int)(code - AFTER_CONTROLS + 0x7f);
    return code == AFTER_DELETE ? 0xad : -1;
}
