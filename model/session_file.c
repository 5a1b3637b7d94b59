/* session_file.c: the header of a saved sequence, written and read with every field checked. */
#include "session_file.h"

#include <string.h>

static const char magic[8] = {'M', 'O', 'E', 'H', 'A', 'L', 'S', 'Q'};

enum { VERSION = 1, CHECKSUM_AT = 120 };

/* ---- numbers ---- */

static void put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static uint64_t checksum(const uint8_t header[SESSION_FILE_HEADER])
{
    struct crc64 crc;
    crc64_begin(&crc);
    crc64_add(&crc, header, CHECKSUM_AT);
    return crc64_value(&crc);
}

uint64_t session_file_size(const struct session_file *f)
{
    uint64_t bytes = mh_dtype_size(f->dtype), ids;
    if (__builtin_mul_overflow(bytes, (uint64_t)f->values, &bytes) ||
        __builtin_mul_overflow(bytes, (uint64_t)f->layers, &bytes) ||
        __builtin_mul_overflow(bytes, f->tokens, &bytes) ||
        __builtin_mul_overflow(f->tokens, (uint64_t)4, &ids) ||
        __builtin_add_overflow(bytes, ids, &bytes) ||
        __builtin_add_overflow(bytes, (uint64_t)(SESSION_FILE_HEADER + 8), &bytes))
        return 0;
    return bytes;
}

/* ---- writing ---- */

void session_file_write_header(const struct session_file *f, uint8_t header[SESSION_FILE_HEADER])
{
    uint32_t temperature;
    memcpy(&temperature, &f->sampling.temperature, 4);
    memset(header, 0, SESSION_FILE_HEADER);
    memcpy(header, magic, sizeof(magic));
    put(header + 8, VERSION, 4);
    put(header + 12, SESSION_FILE_HEADER, 4);
    put(header + 16, f->bytes, 8);
    put(header + 24, f->fingerprint, 8);
    put(header + 32, f->dtype, 4);
    put(header + 36, f->profile, 4);
    put(header + 40, f->layers, 4);
    put(header + 44, f->values, 4);
    put(header + 48, f->vocabulary, 4);
    put(header + 52, f->has_next, 4);
    put(header + 56, f->tokens, 8);
    put(header + 64, (uint32_t)f->next, 4);
    put(header + 72, temperature, 4);
    put(header + 76, f->sampling.top_p, 4);
    put(header + 80, f->sampling.top_k, 4);
    put(header + 88, f->sampling.seed, 8);
    put(header + CHECKSUM_AT, checksum(header), 8);
}

/* ---- reading ---- */

static mh_status check_frame(const uint8_t *header, const char *path)
{
    uint64_t version = get(header + 8, 4), bytes = get(header + 12, 4);
    if (memcmp(header, magic, sizeof(magic)))
        return mh_fail(MH_BAD_DATA, "%s: is no saved sequence", path);
    if (version != VERSION)
        return mh_fail(MH_BAD_DATA, "%s: version is %llu, this library reads %d", path,
                       (unsigned long long)version, VERSION);
    if (bytes != SESSION_FILE_HEADER)
        return mh_fail(MH_BAD_DATA, "%s: header bytes is %llu, must be %d", path,
                       (unsigned long long)bytes, SESSION_FILE_HEADER);
    if (get(header + CHECKSUM_AT, 8) != checksum(header))
        return mh_fail(MH_BAD_DATA, "%s: the header's checksum does not match: it is damaged",
                       path);
    return MH_OK;
}

static mh_status check_fields(const struct session_file *f, uint32_t has_next, const char *path)
{
    const struct {
        const char *name;
        uint64_t value, least, most;
    } fields[] = {
        {"layers", f->layers, 1, 1 << 20},
        {"values of a cache row", f->values, 1, 1 << 24},
        {"vocabulary", f->vocabulary, 1, INT32_MAX},
        {"tokens", f->tokens, 0, INT32_MAX},
        {"next", has_next, 0, f->tokens ? 1 : 0},
        {"next token", (uint32_t)f->next, 0, has_next ? f->vocabulary - 1 : 0},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].value < fields[i].least || fields[i].value > fields[i].most)
            return mh_fail(MH_BAD_DATA, "%s: %s is %llu, must be %llu to %llu", path,
                           fields[i].name, (unsigned long long)fields[i].value,
                           (unsigned long long)fields[i].least, (unsigned long long)fields[i].most);
    if (f->dtype != MH_F32 && f->dtype != MH_BF16)
        return mh_fail(MH_BAD_DATA, "%s: the cache's dtype is %u, must be %d (f32) or %d (bf16)",
                       path, f->dtype, MH_F32, MH_BF16);
    if (!(f->sampling.temperature >= 0) || f->sampling.temperature > 1e6f)
        return mh_fail(MH_BAD_DATA, "%s: temperature is %g, must be 0 to 1e6", path,
                       (double)f->sampling.temperature);
    return MH_OK;
}

mh_status session_file_read_header(const uint8_t header[SESSION_FILE_HEADER], uint64_t length,
                                   const char *path, struct session_file *out)
{
    struct session_file f = {0};
    mh_status status = check_frame(header, path);
    if (status)
        return status;
    uint32_t has_next = (uint32_t)get(header + 52, 4);
    uint32_t temperature = (uint32_t)get(header + 72, 4);
    f.bytes = get(header + 16, 8);
    f.fingerprint = get(header + 24, 8);
    f.dtype = (uint32_t)get(header + 32, 4);
    f.profile = (uint32_t)get(header + 36, 4);
    f.layers = (uint32_t)get(header + 40, 4);
    f.values = (uint32_t)get(header + 44, 4);
    f.vocabulary = (uint32_t)get(header + 48, 4);
    f.has_next = has_next != 0;
    f.tokens = get(header + 56, 8);
    f.next = (int32_t)get(header + 64, 4);
    memcpy(&f.sampling.temperature, &temperature, 4);
    f.sampling.top_p = (uint32_t)get(header + 76, 4);
    f.sampling.top_k = (uint32_t)get(header + 80, 4);
    f.sampling.seed = get(header + 88, 8);
    status = check_fields(&f, has_next, path);
    if (status)
        return status;
    uint64_t needed = session_file_size(&f);
    if (f.bytes != needed || length != needed)
        return mh_fail(MH_BAD_DATA,
                       "%s: has %llu bytes, its header says %llu, and its content takes %llu", path,
                       (unsigned long long)length, (unsigned long long)f.bytes,
                       (unsigned long long)needed);
    *out = f;
    return MH_OK;
}
