#include <string.h>

#include <moehal/error.h>

#include "hal.h"

static uint64_t size_of(const void *versioned)
{
    uint64_t size;
    memcpy(&size, versioned, sizeof(size));
    return size;
}

mh_status mh_struct_in(void *local, const void *caller, uint64_t known, const char *name)
{
    memset(local, 0, known);
    if (!caller)
        return mh_fail(MH_INVALID_ARGUMENT, "%s: is NULL", name);
    uint64_t size = size_of(caller);
    if (size < sizeof(size))
        return mh_fail(MH_INVALID_ARGUMENT, "%s: struct_size is %llu, at least %zu is needed", name,
                       (unsigned long long)size, sizeof(size));
    if (size > known) {
        if (size - known > 4096)
            return mh_fail(MH_INVALID_ARGUMENT, "%s: struct_size is %llu, this library knows %llu",
                           name, (unsigned long long)size, (unsigned long long)known);
        const unsigned char *tail = (const unsigned char *)caller + known;
        for (uint64_t i = 0; i < size - known; i++)
            if (tail[i])
                return mh_fail(MH_INVALID_ARGUMENT,
                               "%s: byte %llu is set, but this library knows only %llu bytes", name,
                               (unsigned long long)(known + i), (unsigned long long)known);
        size = known;
    }
    memcpy(local, caller, size);
    memcpy(local, &known, sizeof(known));
    return MH_OK;
}

mh_status mh_struct_out(void *caller, const void *local, uint64_t known)
{
    if (!caller)
        return mh_fail(MH_INVALID_ARGUMENT, "out: is NULL");
    uint64_t size = size_of(caller);
    if (size < sizeof(size))
        return mh_fail(MH_INVALID_ARGUMENT, "out: struct_size is %llu, at least %zu is needed",
                       (unsigned long long)size, sizeof(size));
    uint64_t filled = size < known ? size : known;
    memcpy((char *)caller + sizeof(size), (const char *)local + sizeof(size),
           filled - sizeof(size));
    if (size > filled && size - filled <= 4096)
        memset((char *)caller + filled, 0, size - filled);
    return MH_OK;
}
