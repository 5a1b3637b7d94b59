#include <string.h>

#include "hal.h"

const char *mh_format_name(mh_format format)
{
    switch (format) {
#define MH_FORMAT(value, NAME, name, planes)                                                       \
    case value:                                                                                    \
        return name;
#include <moehal/formats.def>
#undef MH_FORMAT
    default:
        return "?";
    }
}

uint32_t mh_format_planes(mh_format format, mh_plane planes[MH_MAX_PLANES])
{
#define MH_PLANE(rows, cols, bytes) {rows, cols, bytes, 0},
    switch (format) {
#define MH_FORMAT(value, NAME, name, list)                                                         \
    case value: {                                                                                  \
        static const mh_plane all[] = {list};                                                      \
        memcpy(planes, all, sizeof(all));                                                          \
        return sizeof(all) / sizeof(all[0]);                                                       \
    }
#include <moehal/formats.def>
#undef MH_FORMAT
    default:
        return 0;
    }
#undef MH_PLANE
}

uint64_t mh_format_bytes(mh_format format, int64_t out, int64_t in)
{
    mh_plane planes[MH_MAX_PLANES];
    uint32_t count = mh_format_planes(format, planes);
    uint64_t total = 0;
    if (out < 0 || in < 0)
        return 0;
    for (uint32_t p = 0; p < count; p++) {
        uint64_t rows = ((uint64_t)out + planes[p].rows - 1) / planes[p].rows;
        uint64_t cols = ((uint64_t)in + planes[p].cols - 1) / planes[p].cols;
        uint64_t bytes;
        if (__builtin_mul_overflow(rows, cols, &bytes) ||
            __builtin_mul_overflow(bytes, planes[p].bytes, &bytes) ||
            __builtin_add_overflow(total, bytes, &total) || total > INT64_MAX)
            return 0;
    }
    return total;
}
