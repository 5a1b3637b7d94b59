/* fast_bf16.c: packing for the bf16 units, and products by VDPBF16PS. Built for AVX-512 with BF16.
 */
#include "../fast.h"
#include "fast_pack.h"
#include "simd.h"
#include "transpose.h"

void fast_convert(uint16_t *to, const float *x, int64_t in)
{
    int64_t k = 0, end = fast_pitch(in);
    for (; k + 32 <= in; k += 32) {
        __m512bh pair = _mm512_cvtne2ps_pbh(v_load(x + k + 16), v_load(x + k));
        _mm512_storeu_si512(to + k, (__m512i)pair);
    }
    if (k == end)
        return;
    float rest[32] = {0};
    memcpy(rest, x + k, (size_t)(in - k) * 4);
    _mm512_storeu_si512(to + k, (__m512i)_mm512_cvtne2ps_pbh(v_load(rest + 16), v_load(rest)));
}

/* Columns k .. k + 31 of 16 rows as bf16 in `to`, absent ones 0. */
static void decode_rows(const struct weight_row rows[16], int64_t k, int64_t in,
                        uint16_t to[16][32])
{
    int64_t block = k / STRIPES * STRIPES, count = in - block < STRIPES ? in - block : STRIPES;
    for (int r = 0; r < 16; r++) {
        float w[STRIPES] = {0};
        if (rows[r].format == MH_FORMAT_BF16) {
            memset(to[r], 0, sizeof(to[r]));
            memcpy(to[r], rows[r].data + 2 * k, (size_t)(in - k < 32 ? in - k : 32) * 2);
            continue;
        }
        decode_columns(&rows[r], block, count, w);
        fast_convert(to[r], w + (k - block), 32);
    }
}

static void pack_tile(const struct weight_row rows[16], int64_t k, int64_t in, char *tile)
{
    const void *from[16];
    __m512i pair[16];
    uint16_t decoded[16][32];
    bool in_place = rows[0].format == MH_FORMAT_BF16 && k + 32 <= in;
    if (!in_place)
        decode_rows(rows, k, in, decoded);
    for (int r = 0; r < 16; r++)
        from[r] = in_place ? (const void *)(rows[r].data + 2 * k) : decoded[r];
    transpose_rows(from, 0, pair);
    for (int c = 0; c < 16; c++)
        _mm512_storeu_si512(tile + 64 * c, pair[c]);
}

/* 16 columns of one row, as bf16 in 32-bit words. */
static __m512i column_words(const struct matrix *m, int64_t k, int64_t begin, int64_t count)
{
    uint16_t halves[16] = {0};
    if (k >= m->in)
        return _mm512_setzero_si512();
    struct weight_row row = weight_row(m->w, m->slot, m->first + k);
    if (row.format == MH_FORMAT_BF16) {
        memcpy(halves, row.data + 2 * begin, (size_t)count * 2);
    } else {
        float w[STRIPES] = {0};
        int64_t block = begin / STRIPES * STRIPES; /* 16 columns do not cross such a border */
        decode_columns(&row, block, begin + count - block, w);
        uint16_t converted[32];
        fast_convert(converted, w + (begin - block), count);
        memcpy(halves, converted, (size_t)count * 2);
    }
    return v_from_u16(halves);
}

static void pack_tile_of_columns(const struct matrix *m, int64_t k, int64_t begin, int64_t count,
                                 char *tile)
{
    for (int c = 0; c < 16; c++) {
        __m512i low = column_words(m, k + 2 * c, begin, count);
        __m512i high = column_words(m, k + 2 * c + 1, begin, count);
        _mm512_storeu_si512(tile + 64 * c, _mm512_or_si512(low, v_shl(high, 16)));
    }
}

void fast_pack(const struct matrix *m, int64_t begin, int64_t count, char *panel)
{
    for (int64_t g = 0; g < count; g += 16) {
        int64_t n = count - g < 16 ? count - g : 16;
        struct weight_row rows[16];
        for (int r = 0; r < 16 && !m->transposed; r++) /* lanes past the end repeat the last row */
            rows[r] = weight_row(m->w, m->slot, m->first + begin + g + (r < n ? r : n - 1));
        char *tile = panel + g / 16 * 1024;
        for (int64_t k = 0; k < m->in; k += FAST_TERMS, tile += 3 * 1024) {
            if (m->transposed)
                pack_tile_of_columns(m, k, begin + g, n, tile);
            else
                pack_tile(rows, k, m->in, tile);
        }
    }
}

static inline __attribute__((always_inline)) void multiply(int rows, const char *panel, int64_t in,
                                                           const uint16_t *x, struct ahead next,
                                                           float (*out)[STRETCH])
{
    int64_t pitch = fast_pitch(in);
    vf a[8][3];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 3; v++)
            a[r][v] = v_zero();
    for (int64_t k = 0; k < pitch; k += FAST_TERMS, panel += 3 * 1024) {
        fetch(ahead_part(next, k / FAST_TERMS, pitch / FAST_TERMS));
        for (int c = 0; c < 16; c++) {
            __m512bh w[3];
            for (int v = 0; v < 3; v++)
                w[v] = (__m512bh)_mm512_loadu_si512(panel + 1024 * v + 64 * c);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                int pair;
                memcpy(&pair, x + r * pitch + k + 2 * c, 4);
                for (int v = 0; v < 3; v++)
                    a[r][v] = _mm512_dpbf16_ps(a[r][v], (__m512bh)_mm512_set1_epi32(pair), w[v]);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 3; v++)
            v_store(&out[r][16 * v], a[r][v]);
}

#define FOR_ROWS(rows)                                                                             \
    static void multiply_##rows(const char *panel, int64_t in, const uint16_t *x,                  \
                                struct ahead next, float(*out)[STRETCH])                           \
    {                                                                                              \
        multiply(rows, panel, in, x, next, out);                                                   \
    }
FOR_ROWS(1)
FOR_ROWS(2)
FOR_ROWS(3)
FOR_ROWS(4)
FOR_ROWS(5)
FOR_ROWS(6)
FOR_ROWS(7)
FOR_ROWS(8)

/* In blocks of one size, or nearly: a row alone waits for each of its products. */
static void multiply_rows(const char *panel, int64_t in, const uint16_t *x, int64_t rows,
                          struct ahead next, float (*out)[STRETCH])
{
    static void (*const multiply_some[])(const char *, int64_t, const uint16_t *, struct ahead,
                                         float(*)[STRETCH]) = {multiply_1, multiply_2, multiply_3,
                                                               multiply_4, multiply_5, multiply_6,
                                                               multiply_7, multiply_8};
    int64_t blocks = (rows + 7) / 8, begin = 0;
    for (int64_t b = 1; b <= blocks; b++) {
        int64_t end = rows * b / blocks;
        multiply_some[end - begin - 1](panel, in, x + begin * fast_pitch(in),
                                       ahead_part(next, b - 1, blocks), out + begin);
        begin = end;
    }
}

static void nothing(void)
{
}

const struct host_fast host_fast_bf16 = {"avx512bf16", 12,        nothing,      nothing,
                                         fast_convert, fast_pack, multiply_rows};
