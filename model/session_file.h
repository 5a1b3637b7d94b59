/*
 * session_file.h: the file of a saved sequence. All numbers are little-endian.
 *
 *   0   "MOEHALSQ"
 *   8   u32 version, 1         12  u32 bytes of this header, 128
 *   16  u64 bytes of the file  24  u64 fingerprint of the model
 *   32  u32 dtype of the cache 36  u32 profile
 *   40  u32 layers             44  u32 values of a cache row (latent and rope)
 *   48  u32 vocabulary         52  u32 1: there is a next token
 *   56  u64 tokens             64  i32 the next token      68  u32 0
 *   72  f32 temperature, u32 top_p, u32 top_k, u32 0, u64 seed, of the sampling
 *   96  zeros                  120 u64 CRC-64/XZ of bytes 0 to 119
 *   128 i32 [tokens]: the ids
 *       dtype [layers, tokens, values]: the cache
 *       u64 CRC-64/XZ of everything from 128 to here
 *
 * Not installed.
 */
#ifndef SESSION_FILE_H
#define SESSION_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include <moehal/error.h>
#include <moehal/op.h>

#include "crc64.h"

#define SESSION_FILE_HEADER 128

struct session_file {
    uint64_t bytes, fingerprint, tokens;
    uint32_t dtype, profile, layers, values, vocabulary;
    bool has_next;
    int32_t next;
    mh_sampling sampling;
};

/* Bytes of the file with this content; 0 if that is more than a file can have. */
uint64_t session_file_size(const struct session_file *file);

void session_file_write_header(const struct session_file *file,
                               uint8_t header[SESSION_FILE_HEADER]);

/* `length` is that of the file. Everything is checked that can be without a model; errors name
 * `path`. */
mh_status session_file_read_header(const uint8_t header[SESSION_FILE_HEADER], uint64_t length,
                                   const char *path, struct session_file *out);

#endif
