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
/* One of two: what follows is compiled once for both. */
#define PICK_WEIGHT(second, a, b)                                                                  \
    second ? b : a, second ? b##_1 : a##_1, second ? b##_2 : a##_2, second ? b##_3 : a##_3,        \
        second ? b##_part : a##_part, second ? b##_data : a##_data, second ? b##_scale : a##_scale
#define WEIGHT_ROW(name, expert, row) weight_row_of(PASS_WEIGHT(name), expert, row)

/* BLOCK rows of a matrix are a group's. */
#ifdef FORM_CPU
#define BLOCK 64
#else
#define BLOCK 4
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

#ifdef FORM_CPU
#define wide_uint uint16
#define as_wide as_float16
#define to_wide_uint convert_uint16
#define LOAD(type, pointer) VECTOR(global const, type, pointer, 0)
#else
#define wide_uint uint
#define as_wide as_float
#define to_wide_uint(value) ((uint)(value))
#define LOAD(type, pointer) (*(global const type *)(pointer))
#endif

/* Elements from k on, decoded. */
wide decode(weight_row row, long k)
{
#if FORMAT == F32
    return LOAD(float, row.data + 4 * k);
#elif FORMAT == BF16
    return as_wide(to_wide_uint(LOAD(ushort, row.data + 2 * k)) << 16);
#elif FORMAT == F16 && defined(FORM_CPU)
    /* Not as from_f16, whose product takes CPUs long where halves are denormals. */
    return vload_half16(0, (global const half *)(row.data + 2 * k));
#elif FORMAT == F16
    return from_f16(LOAD(ushort, row.data + 2 * k));
#else
    wide_uint byte = to_wide_uint(LOAD(uchar, row.data + k)), rest = byte & 0x7F;
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
    return from_f16(((global const ushort *)row.data)[k]);
#else
    uint byte = row.data[k], rest = byte & 0x7F;
    float q = as_float((byte & 0x80) << 24 | rest << 20 | (rest == 0x7F ? 0x7F800000u : 0));
    q = q * 0x1p120f;
    return q * row.scale[k / 128];
#endif
}

/* Up to 16 elements of a row, the rest +0. */
APART float16 decode_columns(weight_row row, long column, long columns)
{
    float part[16];
    if (column + 16 <= columns)
        return decode(row, column);
    COLD for (int i = 0; i < 16; i++)
        part[i] = column + i < columns ? decode_one(row, column + i) : 0.0f;
    return VECTOR(const, float, part, 0);
}
#else
#define decode_one decode
#define decode_columns(row, column, columns) decode(row, column)
#endif

/* ---- BLOCK rows from `row` on times one token: results[r] = row r . x, rule 2, for all lanes to
 * read after the call. Rows behind `last` give anything. ---- */

#ifdef FORM_CPU
#define TILE_SPACE 1

/* Rows side by side: each is the next of a stream of its own, so that the hardware sees a few long
 * streams; AHEAD bytes on they are prefetched, since it stops at each page. */
#define ABREAST 4
#define AHEAD 2048

#if defined(PREFETCH) && defined(__has_builtin)
#if __has_builtin(__builtin_prefetch)
#define FETCH(pointer) __builtin_prefetch((const void *)(size_t)(pointer), 0, 2)
#endif
#endif
#ifndef FETCH
#define FETCH(pointer)
#endif

/* Bytes of a weight. */
#if FORMAT == F32
#define WEIGHT_BYTES 4
#elif FORMAT == FP8
#define WEIGHT_BYTES 1
#else
#define WEIGHT_BYTES 2
#endif

/* The columns from `k` on, less than STRIPES, and the fold. */
APART float rest_of_dot(weight_row row, global const float *x, long k, long count, float *sums)
{
    COLD for (int j = 0; k < count; j++, k++)
        sums[j] = fma(x[k], decode_one(row, k), sums[j]);
    return fold_stripes(sums);
}

APART void dots_abreast(const weight_row *w, global const float *x, long count, float *dots)
{
    float16 a[ABREAST][4];
    long k = 0;
#pragma unroll
    for (int r = 0; r < ABREAST; r++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            a[r][j] = 0;
    for (; k + STRIPES <= count; k += STRIPES)
#pragma unroll
        for (int r = 0; r < ABREAST; r++) {
#pragma unroll
            for (int line = 0; line < STRIPES * WEIGHT_BYTES; line += 64)
                FETCH(w[r].data + k * WEIGHT_BYTES + AHEAD + line);
#pragma unroll
            for (int j = 0; j < 4; j++)
                a[r][j] = fma(VECTOR(global const, float, x + k, j), decode(w[r], k + 16 * j),
                              a[r][j]);
        }
#pragma unroll
    for (int r = 0; r < ABREAST; r++) {
        float sums[STRIPES];
        if (k == count) {
            dots[r] = fold_wide(a[r][0], a[r][1], a[r][2], a[r][3]);
            continue;
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            VECTOR(, float, sums, j) = a[r][j];
        dots[r] = rest_of_dot(w[r], x, k, count, sums);
    }
}

APART void rows_times(WEIGHT(w), long expert, long row, long last, global const float *x,
                      long count, local float *results, local float *space)
{
    for (long o = 0; o < BLOCK / ABREAST && row + o <= last; o++) {
        weight_row rows[ABREAST];
        float dots[ABREAST];
        for (int r = 0; r < ABREAST; r++)
            rows[r] = WEIGHT_ROW(w, expert, min(row + o + r * (BLOCK / ABREAST), last));
        dots_abreast(rows, x, count, dots);
        for (int r = 0; r < ABREAST; r++)
            results[o + r * (BLOCK / ABREAST)] = dots[r];
    }
}

#else
#define MOST_SUMS 32
#define MOST_TOKENS 8
#define TILE_SPACE (MOST_SUMS * PITCH) /* floats */

/* results[r * tokens + t] = rows[r] . x[t]; tokens is a constant where it is called, so that loops
 * unroll and sums stay in registers. */
__attribute__((always_inline)) void tile(const int tokens, const weight_row *w,
                                         global const float *const *x, long count,
                                         local float *results, local float *space)
{
    float a[MOST_SUMS];
#pragma unroll
    for (int i = 0; i < BLOCK * tokens; i++)
        a[i] = 0;
    for (long k = LANE; k < count; k += STRIPES) {
        float xs[MOST_TOKENS];
#pragma unroll
        for (int t = 0; t < tokens; t++)
            xs[t] = x[t][k];
#pragma unroll
        for (int r = 0; r < BLOCK; r++) {
            float row = decode(w[r], k);
#pragma unroll
            for (int t = 0; t < tokens; t++)
                a[r * tokens + t] = fma(xs[t], row, a[r * tokens + t]);
        }
    }
#pragma unroll
    for (int i = 0; i < BLOCK * tokens; i++)
        space[i * PITCH + LANE] = a[i];
    fold_upper(space, BLOCK * tokens);
    for (int i = LANE; i < BLOCK * tokens; i += LANES)
        results[i] = fold_8(space + i * PITCH, 1) + 0.0f;
    SYNC();
}

/* BLOCK rows from `row` on; `last` in the place of those behind it. */
void weight_rows(WEIGHT(w), weight_row *rows, long expert, long row, long last)
{
    for (int r = 0; r < BLOCK; r++)
        rows[r] = WEIGHT_ROW(w, expert, min(row + r, last));
}

void rows_times(WEIGHT(w), long expert, long row, long last, global const float *x, long count,
                local float *results, local float *space)
{
    weight_row rows[BLOCK];
    global const float *xs[] = {x};
    weight_rows(PASS_WEIGHT(w), rows, expert, row, last);
    tile(1, rows, xs, count, results, space);
}
#endif
