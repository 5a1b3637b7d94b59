#include "json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

mh_status model_read_file(const char *path, uint64_t limit, char **text, uint64_t *bytes)
{
    FILE *file = fopen(path, "rb");
    struct stat info;
    *text = NULL;
    if (!file)
        return mh_fail(errno == ENOENT ? MH_NOT_FOUND : MH_IO_ERROR, "%s: %s", path,
                       strerror(errno));
    mh_status status = MH_OK;
    if (fstat(fileno(file), &info) || !S_ISREG(info.st_mode))
        status = mh_fail(MH_IO_ERROR, "%s: is not a file", path);
    else if ((uint64_t)info.st_size > limit)
        status = mh_fail(MH_BAD_DATA, "%s: has %lld bytes, at most %llu are read", path,
                         (long long)info.st_size, (unsigned long long)limit);
    else if (!(*text = malloc((size_t)info.st_size + 1)))
        status = mh_fail(MH_OUT_OF_MEMORY, "%s: no room for its %lld bytes", path,
                         (long long)info.st_size);
    else if (fread(*text, 1, (size_t)info.st_size, file) != (size_t)info.st_size)
        status = mh_fail(MH_IO_ERROR, "%s: could not be read", path);
    fclose(file);
    if (status) {
        free(*text);
        *text = NULL;
        return status;
    }
    (*text)[info.st_size] = 0;
    *bytes = (uint64_t)info.st_size;
    return MH_OK;
}

mh_status model_parse_object(const char *text, uint64_t bytes, const char *file, json_t **out)
{
    json_error_t error;
    *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!*out)
        return mh_fail(MH_BAD_DATA, "%s: not valid JSON: line %d, column %d: %s", file, error.line,
                       error.column, error.text);
    if (json_is_object(*out))
        return MH_OK;
    json_decref(*out);
    *out = NULL;
    return mh_fail(MH_BAD_DATA, "%s: is JSON, but not an object", file);
}
