#include "crc64.h"

#include <string.h>

#define POLYNOMIAL UINT64_C(0xC96C5795D7870F42)

void crc64_begin(struct crc64 *c)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint64_t v = i;
        for (int bit = 0; bit < 8; bit++)
            v = v & 1 ? v >> 1 ^ POLYNOMIAL : v >> 1;
        c->table[0][i] = v;
    }
    for (int t = 1; t < 8; t++)
        for (uint32_t i = 0; i < 256; i++) {
            uint64_t v = c->table[t - 1][i];
            c->table[t][i] = v >> 8 ^ c->table[0][v & 255];
        }
    c->state = ~UINT64_C(0);
}

void crc64_add(struct crc64 *c, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    uint64_t s = c->state;
    for (; bytes >= 8; at += 8, bytes -= 8) {
        uint64_t word = 0;
        for (int i = 0; i < 8; i++)
            word |= (uint64_t)at[i] << 8 * i;
        s ^= word;
        uint64_t next = 0;
        for (int i = 0; i < 8; i++)
            next ^= c->table[7 - i][s >> 8 * i & 255];
        s = next;
    }
    for (; bytes; at++, bytes--)
        s = s >> 8 ^ c->table[0][(s ^ *at) & 255];
    c->state = s;
}

uint64_t crc64_value(const struct crc64 *c)
{
    return ~c->state;
}
