/*
 * decode.h: weights as f32 (numerics rule 1), 64 columns at a time so that the dot of rule 2 can
 * take them from there. Any alignment.
 */
#ifndef HOST_DECODE_H
#define HOST_DECODE_H

#include <moehal/backend.h>

#include "numerics.h"

/* One row of one expert's matrix. */
struct weight_row {
    mh_format format;
    const unsigned char *data;
    const unsigned char *scale; /* FP8: of the row's block row */
};

static inline struct weight_row weight_row(const mh_weight_view *w, int64_t expert, int64_t row)
{
    const void *const *planes = w->host + expert * w->plane_count;
    struct weight_row r = {.format = w->format};
    r.data = (const unsigned char *)planes[0] + row * w->row_stride[0];
    if (w->format == MH_FORMAT_FP8)
        r.scale = (const unsigned char *)planes[1] + row / 128 * w->row_stride[1];
    return r;
}

static inline float from_fp8(uint32_t byte, float scale)
{
    /* e4m3's exponent and fraction in f32's place, 2^120 too small; exact. NaN gets f32's top
     * exponent before the products: a loop that may skip a product is not vectorised. */
    uint32_t nan = (byte & 0x7F) == 0x7F ? 0x7F800000 : 0;
    float q = of_bits((byte & 0x80) << 24 | (byte & 0x7F) << 20 | nan) * 0x1p120f;
    return q * scale;
}

/* Columns [begin, begin + count) of a row, count <= 64 and begin a multiple of 64: an FP8 scale
 * holds for all of them. */
static inline void decode_columns(const struct weight_row *row, int64_t begin, int64_t count,
                                  float out[restrict STRIPES])
{
    switch (row->format) {
    case MH_FORMAT_F32:
        memcpy(out, row->data + 4 * begin, (size_t)count * 4);
        break;
    case MH_FORMAT_BF16:
    case MH_FORMAT_F16: {
        uint16_t halves[STRIPES];
        memcpy(halves, row->data + 2 * begin, (size_t)count * 2);
        if (row->format == MH_FORMAT_BF16)
            for (int64_t j = 0; j < count; j++)
                out[j] = from_bf16(halves[j]);
        else
            for (int64_t j = 0; j < count; j++)
                out[j] = from_f16(halves[j]);
        break;
    }
    default: {
        float scale;
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): FP8 has scales */
        memcpy(&scale, row->scale + begin / 128 * 4, 4);
        const unsigned char *bytes = row->data + begin;
        for (int64_t j = 0; j < count; j++)
            out[j] = from_fp8(bytes[j], scale);
    }
    }
}

static inline float dot_weight(const struct weight_row *row, const float *x, int64_t count)
{
    float a[STRIPES] = {0}, w[STRIPES];
    for (int64_t k = 0; k < count; k += STRIPES) {
        int64_t n = count - k < STRIPES ? count - k : STRIPES;
        decode_columns(row, k, n, w);
        accumulate(a, x + k, w, n);
    }
    return fold(a);
}

#endif
