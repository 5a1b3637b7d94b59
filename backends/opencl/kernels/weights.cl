/*
 * weights.cl: put after numerics.cl in programs that read weights of one format. FORMAT is the
 * value of moehal/formats.def. Numerics rules 1 and 2.
 *
 * A weight comes as up to four buffers and, for its data and its scales, {offset, stride of
 * experts, stride of rows} in bytes. Buffer i begins at byte i * part, and overlaps the next one:
 * no row is in two pieces. `wide` is what one work-item has at once: 16 elements of a row (cpu),
 * one (gpu).
 */
#define F32 1
#define F16 2
#define BF16 3
#define FP8 4

#define WEIGHT(name)                                                                               \
    global const uchar *name, global const uchar *name##_1, global const uchar *name##_2,          \
        global const uchar *name##_3, const long name##_part, const long4 name##_data,             \
        const long4 name##_scale
#define PASS_WEIGHT(name) name, name##_1, name##_2, name##_3, name##_part, name##_data, name##_scale
#define WEIGHT_ROW(name, expert, row) weight_row_of(PASS_WEIGHT(name), expert, row)
#define WEIGHT_ROWS(name, rows, expert, row, last)                                                 \
    weight_rows_of(PASS_WEIGHT(name), rows, expert, row, last)

/* A tile is ROWS rows by one token, or by MANY; a group has ROW_TILES tiles below each other. */
#define ROWS 4
#ifdef FORM_CPU
#define ROW_TILES 4
#define MANY 6
#else
#define ROW_TILES 1
#define MANY 8
#endif

typedef struct {
    global const uchar *data;
    global const float *scale; /* FP8: one for 128 columns */
} weight_row;

global const uchar *byte_of(WEIGHT(w), long at)
{
    if (at < w_part)
        return w + at;
    long i = at / w_part;
    return (i == 1 ? w_1 : i == 2 ? w_2 : w_3) + (at - i * w_part);
}

APART weight_row weight_row_of(WEIGHT(w), long expert, long row)
{
    weight_row r;
    r.data = byte_of(PASS_WEIGHT(w), w_data.s0 + expert * w_data.s1 + row * w_data.s2);
    r.scale = (global const float *)byte_of(
        PASS_WEIGHT(w), w_scale.s0 + expert * w_scale.s1 + row / 128 * w_scale.s2);
    return r;
}

/* ROWS rows from `row` on; `last` in the place of those behind it. */
APART void weight_rows_of(WEIGHT(w), weight_row *rows, long expert, long row, long last)
{
    for (int r = 0; r < ROWS; r++)
        rows[r] = WEIGHT_ROW(w, expert, min(row + r, last));
}

#ifdef FORM_CPU
#define wide_uint uint16
#define as_wide as_float16
#define as_wide_uint as_uint16
#define to_wide_uint convert_uint16
#define load(pointer) vload16(0, pointer)
#else
#define wide_uint uint
#define as_wide as_float
#define as_wide_uint as_uint
#define to_wide_uint(value) ((uint)(value))
#define load(pointer) (*(pointer))
#endif

/* Elements from k on, decoded. */
wide decode(weight_row row, long k)
{
#if FORMAT == F32
    return load((global const float *)row.data + k);
#elif FORMAT == BF16
    return as_wide(to_wide_uint(load((global const ushort *)row.data + k)) << 16);
#elif FORMAT == F16
    /* 2^112 moves the exponent's bias and makes halves' denormals normal. */
    wide_uint bits = to_wide_uint(load((global const ushort *)row.data + k));
    wide_uint rest = bits & 0x7FFF;
    wide value = as_wide(rest << 13) * 0x1p112f;
    wide_uint special = select((wide_uint)0, (wide_uint)0x7F800000, rest >= (wide_uint)0x7C00);
    return as_wide(as_wide_uint(value) | special | (bits & 0x8000) << 16);
#else
    wide_uint byte = to_wide_uint(load(row.data + k)), rest = byte & 0x7F;
    wide_uint nan = select((wide_uint)0, (wide_uint)0x7F800000, rest == (wide_uint)0x7F);
    wide q = as_wide((byte & 0x80) << 24 | rest << 20 | nan) * 0x1p120f;
    return q * row.scale[k / 128];
#endif
}

#ifdef FORM_CPU
/* One element. */
float decode_one(weight_row row, long k)
{
#if FORMAT == F32
    return ((global const float *)row.data)[k];
#elif FORMAT == BF16
    return from_bf16(((global const ushort *)row.data)[k]);
#elif FORMAT == F16
    uint bits = ((global const ushort *)row.data)[k], rest = bits & 0x7FFF;
    float value = as_float(rest << 13) * 0x1p112f;
    return as_float(as_uint(value) | (rest >= 0x7C00 ? 0x7F800000u : 0) | (bits & 0x8000) << 16);
#else
    uint byte = row.data[k], rest = byte & 0x7F;
    float q = as_float((byte & 0x80) << 24 | rest << 20 | (rest == 0x7F ? 0x7F800000u : 0));
    q = q * 0x1p120f;
    return q * row.scale[k / 128];
#endif
}
#else
#define decode_one decode
#endif

/* ---- a tile: `rows` weight rows times `tokens` inputs: tile_one, tile_many ----
 * results[r * tokens + t] = rows[r] . x[t], rule 2, for all lanes to read after the call.
 * rows and tokens are constants where it is called, so that loops unroll and sums stay in
 * registers; quarters is how many of a stripe's four sixteenths the cpu form takes at a time. */

#ifdef FORM_CPU
#define MOST_SUMS 24 /* rows * tokens * quarters */
#define MOST_ROWS_TOKENS 24
#else
#define MOST_SUMS 32 /* rows * tokens */
#endif
#define MOST_TOKENS 8

#ifdef FORM_CPU
#define TILE_SPACE 1

/* The columns from `k` on, less than STRIPES, and the fold. */
APART float rest_of_dot(weight_row row, global const float *x, long k, long count, float *sums)
{
    for (int j = 0; k < count; j++, k++)
        sums[j] = fma(x[k], decode_one(row, k), sums[j]);
    return fold_stripes(sums);
}

__attribute__((always_inline)) void tile(const int rows, const int tokens, const int quarters,
                                         const weight_row *w, global const float *const *x,
                                         long count, local float *results, local float *space)
{
    float sums[MOST_ROWS_TOKENS][STRIPES];
    long whole = count / STRIPES * STRIPES;
    for (int first = 0; first < 4; first += quarters) {
        float16 a[MOST_SUMS];
#pragma unroll
        for (int i = 0; i < rows * tokens * quarters; i++)
            a[i] = 0;
        for (long k = 16 * first; k < whole; k += STRIPES)
#pragma unroll
            for (int q = 0; q < quarters; q++) {
                float16 xs[MOST_TOKENS];
#pragma unroll
                for (int t = 0; t < tokens; t++)
                    xs[t] = vload16(0, x[t] + k + 16 * q);
#pragma unroll
                for (int r = 0; r < rows; r++) {
                    float16 row = decode(w[r], k + 16 * q);
#pragma unroll
                    for (int t = 0; t < tokens; t++)
                        a[(r * tokens + t) * quarters + q] =
                            fma(xs[t], row, a[(r * tokens + t) * quarters + q]);
                }
            }
#pragma unroll
        for (int i = 0; i < rows * tokens; i++)
#pragma unroll
            for (int q = 0; q < quarters; q++)
                vstore16(a[i * quarters + q], first + q, sums[i]);
    }
    for (int i = 0; i < rows * tokens; i++)
        results[i] = rest_of_dot(w[i / tokens], x[i % tokens], whole, count, sums[i]);
}

#else
#define TILE_SPACE (MOST_SUMS * STRIPES) /* floats */

__attribute__((always_inline)) void tile(const int rows, const int tokens, const int quarters,
                                         const weight_row *w, global const float *const *x,
                                         long count, local float *results, local float *space)
{
    float a[MOST_SUMS];
#pragma unroll
    for (int i = 0; i < rows * tokens; i++)
        a[i] = 0;
    for (long k = LANE; k < count; k += STRIPES) {
        float xs[MOST_TOKENS];
#pragma unroll
        for (int t = 0; t < tokens; t++)
            xs[t] = x[t][k];
#pragma unroll
        for (int r = 0; r < rows; r++) {
            float row = decode(w[r], k);
#pragma unroll
            for (int t = 0; t < tokens; t++)
                a[r * tokens + t] = fma(xs[t], row, a[r * tokens + t]);
        }
    }
#pragma unroll
    for (int i = 0; i < rows * tokens; i++)
        space[i * STRIPES + LANE] = a[i];
    SYNC();
    for (int h = STRIPES / 2; h; h /= 2) {
        for (int i = LANE; i < rows * tokens * h; i += LANES) {
            int at = i / h * STRIPES + i % h;
            space[at] = space[at] + space[at + h];
        }
        SYNC();
    }
    for (int i = LANE; i < rows * tokens; i += LANES)
        results[i] = space[i * STRIPES] + 0.0f;
    SYNC();
}
#endif

APART void tile_one(const weight_row *rows, global const float *const *x, long count,
                    local float *results, local float *space)
{
    tile(ROWS, 1, 4, rows, x, count, results, space);
}

APART void tile_many(const weight_row *rows, global const float *const *x, long count,
                     local float *results, local float *space)
{
    tile(ROWS, MANY, 1, rows, x, count, results, space);
}
