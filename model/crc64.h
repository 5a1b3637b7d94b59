/* crc64.h: CRC-64/XZ (ECMA-182, reflected), eight bytes at a time. Not installed. */
#ifndef MODEL_CRC64_H
#define MODEL_CRC64_H

#include <stddef.h>
#include <stdint.h>

struct crc64 {
    uint64_t table[8][256];
    uint64_t state;
};

void crc64_begin(struct crc64 *crc);
void crc64_add(struct crc64 *crc, const void *data, size_t bytes);
uint64_t crc64_value(const struct crc64 *crc);

#endif
