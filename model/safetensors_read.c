/*
 * safetensors_read.c: u64 length, JSON header {name: {dtype, shape, data_offsets}}, data. The data
 * must be covered exactly: no hole, no overlap, nothing past the end, as the format's own reader
 * demands.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "safetensors.h"

#define HEADER_LIMIT 100000000u /* bytes, the reference reader's own limit */

const char *mh_safetensors_dtype_name(uint32_t dtype)
{
    switch (dtype) {
#define MH_ST_DTYPE(value, NAME, bytes)                                                            \
    case value:                                                                                    \
        return #NAME;
#include <moehal-model/safetensors.def>
#undef MH_ST_DTYPE
    default:
        return "?";
    }
}

uint64_t mh_safetensors_dtype_size(uint32_t dtype)
{
    switch (dtype) {
#define MH_ST_DTYPE(value, NAME, bytes)                                                            \
    case value:                                                                                    \
        return bytes;
#include <moehal-model/safetensors.def>
#undef MH_ST_DTYPE
    default:
        return 0;
    }
}

static uint32_t dtype_by_name(const char *name)
{
#define MH_ST_DTYPE(value, NAME, bytes)                                                            \
    if (!strcmp(name, #NAME))                                                                      \
        return value;
#include <moehal-model/safetensors.def>
#undef MH_ST_DTYPE
    return 0;
}

static mh_status map_file(struct safetensors *f)
{
    struct stat info;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mh_fail(errno == ENOENT ? MH_NOT_FOUND : MH_IO_ERROR, "%s: %s", f->path,
                       strerror(errno));
    mh_status status = MH_OK;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode))
        status = mh_fail(MH_IO_ERROR, "%s: is not a file", f->path);
    else if (info.st_size < 8)
        status = mh_fail(MH_BAD_DATA, "%s: has %lld bytes, a safetensors file has at least 8",
                         f->path, (long long)info.st_size);
    if (!status) {
        f->size = (uint64_t)info.st_size;
        f->map = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (f->map == MAP_FAILED) {
            f->map = NULL;
            status = mh_fail(MH_IO_ERROR, "%s: could not be mapped: %s", f->path, strerror(errno));
        }
#ifdef MADV_HUGEPAGE
        /* Where the file system has large folios, weights are read up to a fifth faster. */
        if (f->map)
            madvise(f->map, f->size, MADV_HUGEPAGE);
#endif
    }
    close(fd);
    return status;
}

static mh_status bad(const struct safetensors *f, const char *name, const char *what)
{
    return mh_fail(MH_BAD_DATA, "%s: tensor '%.128s': %s", f->path, name, what);
}

/* data_offsets inside [0, limit], begin <= end. */
static mh_status read_offsets(const struct safetensors *f, const char *name, const json_t *entry,
                              uint64_t limit, uint64_t *begin, uint64_t *end)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *a = json_array_get(offsets, 0), *b = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(a) || !json_is_integer(b) ||
        json_integer_value(a) < 0 || json_integer_value(b) < json_integer_value(a))
        return bad(f, name, "data_offsets must be two rising integers");
    *begin = (uint64_t)json_integer_value(a);
    *end = (uint64_t)json_integer_value(b);
    if (*end > limit)
        return mh_fail(MH_BAD_DATA,
                       "%s: tensor '%.128s': data_offsets end at %llu, the data has %llu"
                       " bytes",
                       f->path, name, (unsigned long long)*end, (unsigned long long)limit);
    return MH_OK;
}

static mh_status read_tensor(const struct safetensors *f, const char *name, const json_t *entry,
                             uint64_t data_begin, mh_checkpoint_tensor *t)
{
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape");
    if (!json_is_object(entry))
        return bad(f, name, "its header entry is not an object");
    if (!json_is_string(dtype) || !(t->dtype = dtype_by_name(json_string_value(dtype))))
        return mh_fail(MH_BAD_DATA, "%s: tensor '%.128s': dtype '%.32s' is unknown", f->path, name,
                       json_is_string(dtype) ? json_string_value(dtype) : "(none)");
    if (!json_is_array(shape) || json_array_size(shape) > 4)
        return bad(f, name, "shape must be an array of at most 4 sizes");
    t->rank = (uint32_t)json_array_size(shape);
    uint64_t bytes = mh_safetensors_dtype_size(t->dtype), begin = 0, end = 0;
    for (uint32_t i = 0; i < t->rank; i++) {
        const json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return bad(f, name, "shape has a size that is not an integer of at least 0");
        t->shape[i] = json_integer_value(size);
        if (__builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes))
            return bad(f, name, "shape is beyond 2^64 bytes");
    }
    mh_status status = read_offsets(f, name, entry, f->size - data_begin, &begin, &end);
    if (status)
        return status;
    if (end - begin != bytes)
        return mh_fail(MH_BAD_DATA,
                       "%s: tensor '%.128s': shape and dtype want %llu bytes, "
                       "data_offsets hold %llu",
                       f->path, name, (unsigned long long)bytes, (unsigned long long)(end - begin));
    t->struct_size = sizeof(*t);
    t->file = f->path;
    t->bytes = bytes;
    t->offset = data_begin + begin;
    t->data = (const char *)f->map + t->offset;
    return MH_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mh_checkpoint_tensor *)a)->name, ((const mh_checkpoint_tensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const mh_checkpoint_tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    return p != q ? (p > q) - (p < q) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static mh_status check_cover(struct safetensors *f, uint64_t data_begin)
{
    const char *at = (const char *)f->map + data_begin;
    qsort(f->tensors, f->count, sizeof(*f->tensors), by_place);
    for (uint64_t i = 0; i < f->count; i++) {
        const mh_checkpoint_tensor *t = &f->tensors[i];
        if ((const char *)t->data < at)
            return bad(f, t->name, "its data overlaps another tensor's");
        if ((const char *)t->data > at)
            return bad(f, t->name, "a hole lies before its data");
        at += t->bytes;
    }
    if (at != (const char *)f->map + f->size)
        return mh_fail(MH_BAD_DATA, "%s: %lld bytes follow the last tensor", f->path,
                       (long long)((const char *)f->map + f->size - at));
    return MH_OK;
}

static mh_status read_header(struct safetensors *f)
{
    uint64_t length = 0;
    const unsigned char *bytes = f->map;
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)bytes[i] << 8 * i;
    if (length > HEADER_LIMIT || length > f->size - 8)
        return mh_fail(MH_BAD_DATA,
                       "%s: header length is %llu, the file has %llu bytes, the limit is "
                       "%u",
                       f->path, (unsigned long long)length, (unsigned long long)f->size,
                       HEADER_LIMIT);
    json_t *header;
    mh_status status = model_parse_object((const char *)bytes + 8, length, f->path, &header);
    if (status)
        return status;
    f->tensors = calloc(json_object_size(header) + 1, sizeof(*f->tensors));
    if (!f->tensors)
        status = mh_fail(MH_OUT_OF_MEMORY, "%s: no room for its %zu tensors", f->path,
                         json_object_size(header));
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (status || !strcmp(name, "__metadata__"))
            continue;
        mh_checkpoint_tensor *t = &f->tensors[f->count];
        status = read_tensor(f, name, entry, 8 + length, t);
        if (!status && !(t->name = strdup(name)))
            status = mh_fail(MH_OUT_OF_MEMORY, "%s: no room for a name", f->path);
        if (!status)
            f->count++;
    }
    json_decref(header);
    if (!status)
        status = check_cover(f, 8 + length);
    if (!status)
        qsort(f->tensors, f->count, sizeof(*f->tensors), by_name);
    return status;
}

mh_status safetensors_open(const char *path, struct safetensors *out)
{
    *out = (struct safetensors){.path = strdup(path)};
    mh_status status =
        out->path ? map_file(out) : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for a path");
    if (!status)
        status = read_header(out);
    if (status)
        safetensors_close(out);
    return status;
}

void safetensors_close(struct safetensors *f)
{
    for (uint64_t i = 0; i < f->count; i++)
        free((void *)(uintptr_t)f->tensors[i].name);
    free(f->tensors);
    if (f->map)
        munmap(f->map, f->size);
    free(f->path);
    *f = (struct safetensors){0};
}

const mh_checkpoint_tensor *safetensors_find(const struct safetensors *f, const char *name)
{
    mh_checkpoint_tensor key = {.name = name};
    return f->count ? bsearch(&key, f->tensors, f->count, sizeof(key), by_name) : NULL;
}
