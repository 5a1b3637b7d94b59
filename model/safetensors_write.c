/* safetensors_write.c: header first, then the tensors' bytes, then the rename that makes it real.
 */
#include <moehal-model/safetensors.h>

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mh_safetensors_writer {
    FILE *file;
    char *path, *temporary;
    uint64_t written, total;
};

void mh_safetensors_abandon(mh_safetensors_writer *w)
{
    if (!w)
        return;
    if (w->file)
        fclose(w->file);
    if (w->temporary)
        unlink(w->temporary);
    free(w->path);
    free(w->temporary);
    free(w);
}

/* Owns shape. */
static mh_status add_to_header(json_t *header, const mh_safetensors_entry *e, json_t *shape,
                               uint64_t begin, uint64_t end)
{
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", mh_safetensors_dtype_name(e->dtype),
                              "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
    if (!entry)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a header");
    if (json_object_set_new(header, e->name, entry))
        return mh_fail(MH_INVALID_ARGUMENT, "safetensors: the name '%.64s' is not UTF-8", e->name);
    return MH_OK;
}

static mh_status make_header(const mh_safetensors_entry *entries, uint64_t count, json_t **out,
                             uint64_t *total)
{
    *out = json_object();
    *total = 0;
    if (!*out)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a header");
    for (uint64_t i = 0; i < count; i++) {
        const mh_safetensors_entry *e = &entries[i];
        uint64_t bytes = mh_safetensors_dtype_size(e->dtype);
        json_t *shape = json_array();
        bool good = e->name && bytes && e->rank <= 4 && !json_object_get(*out, e->name) &&
                    strcmp(e->name, "__metadata__");
        for (uint32_t d = 0; good && d < e->rank; d++) {
            good = e->shape[d] >= 0 &&
                   !__builtin_mul_overflow(bytes, (uint64_t)e->shape[d], &bytes) &&
                   bytes < ((uint64_t)1 << 62) - *total;
            json_array_append_new(shape, json_integer(e->shape[d]));
        }
        if (!good) {
            json_decref(shape);
            return mh_fail(MH_INVALID_ARGUMENT,
                           "safetensors: entry %llu ('%.64s'): name, dtype or shape is not usable",
                           (unsigned long long)i, e->name ? e->name : "");
        }
        mh_status status = add_to_header(*out, e, shape, *total, *total + bytes);
        if (status)
            return status;
        *total += bytes;
    }
    return MH_OK;
}

static mh_status write_bytes(mh_safetensors_writer *w, const void *data, uint64_t bytes)
{
    if (!bytes || fwrite(data, 1, bytes, w->file) == bytes)
        return MH_OK;
    return mh_fail(MH_IO_ERROR, "%s: %s", w->temporary, strerror(errno));
}

static mh_status write_header(mh_safetensors_writer *w, const json_t *header)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a header");
    uint64_t length = strlen(text), padded = (length + 7) & ~UINT64_C(7);
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)(padded >> 8 * i);
    mh_status status = write_bytes(w, prefix, 8);
    if (!status)
        status = write_bytes(w, text, length);
    if (!status)
        status = write_bytes(w, "        ", padded - length);
    free(text);
    return status;
}

mh_status mh_safetensors_begin(const char *path, const mh_safetensors_entry *entries,
                               uint64_t count, mh_safetensors_writer **out)
{
    if (!path || !out || (count && !entries))
        return mh_fail(MH_INVALID_ARGUMENT, "mh_safetensors_begin: an argument is NULL");
    *out = NULL;
    json_t *header = NULL;
    mh_safetensors_writer *w = calloc(1, sizeof(*w));
    size_t length = strlen(path) + 16;
    if (w)
        w->path = strdup(path), w->temporary = malloc(length);
    if (!w || !w->path || !w->temporary) {
        if (w) {
            free(w->path);
            free(w->temporary);
        }
        free(w);
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a writer");
    }
    snprintf(w->temporary, length, "%s.part", path);
    mh_status status = make_header(entries, count, &header, &w->total);
    if (!status && !(w->file = fopen(w->temporary, "wb")))
        status = mh_fail(MH_IO_ERROR, "%s: %s", w->temporary, strerror(errno));
    if (!status)
        status = write_header(w, header);
    json_decref(header);
    if (status)
        mh_safetensors_abandon(w);
    else
        *out = w;
    return status;
}

mh_status mh_safetensors_append(mh_safetensors_writer *w, const void *data, uint64_t bytes)
{
    if (!w || (bytes && !data))
        return mh_fail(MH_INVALID_ARGUMENT, "mh_safetensors_append: an argument is NULL");
    if (bytes > w->total - w->written)
        return mh_fail(MH_WRONG_STATE, "%s: %llu bytes more than its header says", w->path,
                       (unsigned long long)(bytes - (w->total - w->written)));
    w->written += bytes;
    return write_bytes(w, data, bytes);
}

mh_status mh_safetensors_finish(mh_safetensors_writer *w)
{
    if (!w)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_safetensors_finish: writer is NULL");
    mh_status status = MH_OK;
    if (w->written != w->total)
        status = mh_fail(MH_WRONG_STATE, "%s: %llu of %llu bytes were written", w->path,
                         (unsigned long long)w->written, (unsigned long long)w->total);
    FILE *file = w->file;
    w->file = NULL;
    if (fclose(file) && !status)
        status = mh_fail(MH_IO_ERROR, "%s: %s", w->temporary, strerror(errno));
    if (!status && rename(w->temporary, w->path))
        status = mh_fail(MH_IO_ERROR, "%s: %s", w->path, strerror(errno));
    if (!status) {
        free(w->temporary);
        w->temporary = NULL;
    }
    mh_safetensors_abandon(w);
    return status;
}

mh_status mh_safetensors_write(const char *path, const mh_safetensors_entry *entries,
                               uint64_t count)
{
    mh_safetensors_writer *w;
    mh_status status = mh_safetensors_begin(path, entries, count, &w);
    for (uint64_t i = 0; !status && i < count; i++) {
        uint64_t bytes = mh_safetensors_dtype_size(entries[i].dtype);
        for (uint32_t d = 0; d < entries[i].rank; d++)
            bytes *= (uint64_t)entries[i].shape[d];
        status = mh_safetensors_append(w, entries[i].data, bytes);
        if (status)
            mh_safetensors_abandon(w);
    }
    return status ? status : mh_safetensors_finish(w);
}
