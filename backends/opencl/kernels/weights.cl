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

/* Bytes of a weight. */
#if FORMAT == F32
#define WEIGHT_BYTES 4
#elif FORMAT == FP8
#define WEIGHT_BYTES 1
#else
#define WEIGHT_BYTES 2
#endif

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

/* Most rows of a matrix that are a group's (ops_linear.c, row_block). */
#ifdef FORM_CPU
#define MOST_ROWS 256
#else
#define MOST_ROWS TEAMS
#endif

typedef struct {
    global const uchar *data;
    global const float *scale; /* FP8: one for 128 columns */
} weight_row;

/* Not in the first buffer. */
APART global const uchar *later_byte_of(WEIGHT(w), long at)
{
    long i = at / w_part;
    return (i == 1 ? w_1 : i == 2 ? w_2 : w_3) + (at - i * w_part);
}

global const uchar *byte_of(WEIGHT(w), long at)
{
    return at < w_part ? w + at : later_byte_of(PASS_WEIGHT(w), at);
}

weight_row weight_row_of(WEIGHT(w), long expert, long row)
{
    weight_row r;
    r.data = byte_of(PASS_WEIGHT(w), w_data.s0 + expert * w_data.s1 + row * w_data.s2);
    r.scale = 0;
#if FORMAT == FP8
    r.scale = (global const float *)byte_of(
        PASS_WEIGHT(w), w_scale.s0 + expert * w_scale.s1 + row / 128 * w_scale.s2);
#endif
    return r;
}

#if FORMAT == FP8
#ifdef FORM_CPU
#define fp8_uint uint16
#define fp8_float float16
#define as_fp8_uint as_uint16
#define as_fp8_float as_float16
#define convert_fp8_float convert_float16
#else
#define fp8_uint uint8
#define fp8_float float8
#define as_fp8_uint as_uint8
#define as_fp8_float as_float8
#define convert_fp8_float convert_float8
#endif
/* e4m3. In f32's place the bits are the value times 2^-120. A device that is not exact (UNFIT) might
 * flush denormals there: a whole number is scaled instead. */
fp8_float from_fp8(fp8_uint byte)
{
    fp8_uint rest = byte & 0x7F;
    fp8_uint nan = select((fp8_uint)0, (fp8_uint)0x7F800000, rest == (fp8_uint)0x7F);
#ifdef UNFIT
    fp8_uint whole = (rest & 7) + min(rest & 0x78, (fp8_uint)8);
    fp8_float q = convert_fp8_float(whole) * as_fp8_float((max(rest >> 3, (fp8_uint)1) + 117) << 23);
#else
    fp8_float q = as_fp8_float(rest << 20) * 0x1p120f;
#endif
    return as_fp8_float(as_fp8_uint(q) | (byte & 0x80) << 24 | nan);
}
#endif

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
    wide_uint byte = to_wide_uint(LOAD(uchar, row.data + k));
#ifdef FORM_CPU
    return from_fp8(byte) * row.scale[k / 128];
#else
    return from_fp8((fp8_uint)byte).s0 * row.scale[k / 128];
#endif
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
    return from_fp8((fp8_uint)row.data[k]).s0 * row.scale[k / 128];
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

/* What load_raw wants of weights' addresses, together. */
int is_aligned(size_t addresses)
{
    return addresses % (WEIGHT_BYTES == 1 ? 8 : 16) == 0;
}

/* Elements k to k + 7, which lie in `raw`. */
float8 decode_raw(uint8 raw, weight_row row, long k)
{
#if FORMAT == F32
    return as_float8(raw);
#elif FORMAT == BF16
    return bf16_of_raw(raw);
#elif FORMAT == F16
    return (float8)(from_f16(raw.s0 & 0xFFFF), from_f16(raw.s0 >> 16), from_f16(raw.s1 & 0xFFFF),
                    from_f16(raw.s1 >> 16), from_f16(raw.s2 & 0xFFFF), from_f16(raw.s2 >> 16),
                    from_f16(raw.s3 & 0xFFFF), from_f16(raw.s3 >> 16));
#else
    return from_fp8(convert_uint8(as_uchar8(raw.s01))) * row.scale[k / 128];
#endif
}

float8 decode_some(weight_row row, long k, long many)
{
    FIRST_OF_8(many, decode(row, k + i))
}
#endif

/* ---- `block` rows from `row` on times one token: results[r] = row r . x, rule 2, for all lanes to
 * read after the call, and, if has_up, `more` the same of the other weight. Rows behind `last` give
 * anything. What follows is likely the block at next_row of next_expert. ---- */

#ifdef FORM_CPU
#define ROWS_SPACE 1

/* Rows side by side: each is the next of a stream of its own, so that the hardware sees a few long
 * streams. It fetches them by itself, but stops at each page: AHEAD bytes on they are prefetched,
 * from a row's end into the stream's next row. Where rows are as long as pages that is enough, and
 * prefetches beside all other bytes are in the hardware's way. */
#define ABREAST 4
#define AHEAD 1280
#define PAGE 4096

#if defined(PREFETCH) && defined(__has_builtin)
#if __has_builtin(__builtin_prefetch)
#define FETCH(pointer) __builtin_prefetch((const void *)(size_t)(pointer), 0, 2)
#endif
#endif
#ifndef FETCH
#define FETCH(pointer)
#endif

/* 32 columns as two vectors: the first and the last 16; of BF16 the even ones and the odd ones, so
 * that no weight is shuffled, and inputs are once for all rows. */
typedef struct {
    float16 first, second;
} columns_32;

columns_32 both(float16 first, float16 second)
{
    columns_32 c = {first, second};
    return c;
}

#if FORMAT == BF16
columns_32 decode_32(weight_row row, long k)
{
    uint16 pairs = VECTOR(global const, uint, row.data + 2 * k, 0);
    return both(as_float16(pairs << 16), as_float16(pairs & 0xFFFF0000u));
}

columns_32 as_decoded(float16 a, float16 b)
{
    return both((float16)(a.even, b.even), (float16)(a.odd, b.odd));
}

columns_32 in_order(float16 even, float16 odd)
{
    float16 a, b;
    a.even = even.lo, a.odd = odd.lo, b.even = even.hi, b.odd = odd.hi;
    return both(a, b);
}
#else
#define as_decoded both
#define in_order both
columns_32 decode_32(weight_row row, long k)
{
    return both(decode(row, k), decode(row, k + 16));
}
#endif

/* The columns from `k` on, less than STRIPES, and the fold. */
APART float rest_of_dot(weight_row row, global const float *x, long k, long count, float *sums)
{
    COLD for (int j = 0; k < count; j++, k++)
        sums[j] = fma(x[k], decode_one(row, k), sums[j]);
    return fold_stripes(sums);
}

/* Rule 2's fold: its upper two levels, then the others of four rows at once. */
float16 fold_to_16(float16 a0, float16 a1, float16 a2, float16 a3)
{
    columns_32 c = in_order(a0 + a2, a1 + a3);
    return c.first + c.second;
}

float4 fold_4_rows(float16 a, float16 b, float16 c, float16 d)
{
    float16 ab = (float16)(a.lo, b.lo) + (float16)(a.hi, b.hi);
    float16 cd = (float16)(c.lo, d.lo) + (float16)(c.hi, d.hi);
    float16 e = (float16)(ab.s0123, ab.s89ab, cd.s0123, cd.s89ab) +
                (float16)(ab.s4567, ab.scdef, cd.s4567, cd.scdef);
    float8 f = (float8)(e.s01, e.s45, e.s89, e.scd) + (float8)(e.s23, e.s67, e.sab, e.sef);
    return (f.even + f.odd) + 0.0f;
}

/* Adds the terms of columns k to `end`, a multiple of STRIPES on; beside them, if it `fetches`,
 * `next` is prefetched from its first column on: every second line, next to which the hardware
 * fetches the other. */
__attribute__((always_inline)) void add_terms(float16 (*a)[4], const weight_row *w,
                                              global const float *x, long k, long end,
                                              const int fetches, const weight_row *next)
{
    for (long ahead = 0; k < end; k += STRIPES, ahead += STRIPES)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            columns_32 in = as_decoded(VECTOR(global const, float, x + k, i),
                                       VECTOR(global const, float, x + k, i + 1));
#pragma unroll
            for (int r = 0; r < ABREAST; r++) {
#pragma unroll
                for (int at = 0; fetches && i == 0 && at < STRIPES * WEIGHT_BYTES; at += 128)
                    FETCH(next[r].data + ahead * WEIGHT_BYTES + at);
                columns_32 c = decode_32(w[r], k + 16 * i);
                a[r][i] = fma(in.first, c.first, a[r][i]);
                a[r][i + 1] = fma(in.second, c.second, a[r][i + 1]);
            }
        }
}

/* Products of four rows with x; `next` are those that follow. */
APART void dots_abreast(const weight_row *w, const weight_row *next, global const float *x,
                        long count, float *dots)
{
    float16 a[ABREAST][4];
    weight_row here[ABREAST];
    long k = count / STRIPES * STRIPES, turn = max(k - AHEAD / WEIGHT_BYTES, 0l);
#pragma unroll
    for (int r = 0; r < ABREAST; r++) {
#pragma unroll
        for (int j = 0; j < 4; j++)
            a[r][j] = 0;
        here[r].data = w[r].data + AHEAD;
        if (count * WEIGHT_BYTES >= PAGE) /* so that its page is looked up by then */
            FETCH(next[r].data);
    }
    if (count * WEIGHT_BYTES % PAGE)
        add_terms(a, w, x, 0, turn, 1, here);
    else
        add_terms(a, w, x, 0, turn, 0, here);
    add_terms(a, w, x, turn, k, 1, next);
    if (k == count) {
        float16 b[ABREAST];
#pragma unroll
        for (int r = 0; r < ABREAST; r++)
            b[r] = fold_to_16(a[r][0], a[r][1], a[r][2], a[r][3]);
        *(float4 *)dots = fold_4_rows(b[0], b[1], b[2], b[3]);
        return;
    }
#pragma unroll
    for (int r = 0; r < ABREAST; r++) {
        float sums[STRIPES];
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            columns_32 c = in_order(a[r][j], a[r][j + 1]);
            VECTOR(, float, sums, j) = c.first, VECTOR(, float, sums, j + 1) = c.second;
        }
        dots[r] = rest_of_dot(w[r], x, k, count, sums);
    }
}

/* A row of each stream: `begin` of the first, and as far into the others, which have `length` rows
 * each. Of two weights each has two streams. */
APART void stream_rows(WEIGHT(w), WEIGHT(up), int has_up, long expert, long begin, int length,
                       long last, weight_row *rows)
{
    int streams = has_up ? ABREAST / 2 : ABREAST;
    for (int r = 0; r < ABREAST; r++) {
        long row = min(begin + r % streams * length, last);
        rows[r] = r < streams ? WEIGHT_ROW(w, expert, row) : WEIGHT_ROW(up, expert, row);
    }
}

APART void rows_times(WEIGHT(w), WEIGHT(up), int has_up, long expert, long row, int block,
                      long last, long next_expert, long next_row, global const float *x, long count,
                      local float *results, local float *more, local float *space)
{
    int streams = has_up ? ABREAST / 2 : ABREAST, length = block / streams;
    /* Of whole blocks in one buffer the next row is a stride on; others are looked up, each. */
#if FORMAT == FP8
    int strides = 0; /* nor do scales change with each row */
#else
    int strides = min(w_part, up_part) == LONG_MAX && row + block <= last + 1;
#endif
    weight_row rows[2][ABREAST];
    stream_rows(PASS_WEIGHT(w), PASS_WEIGHT(up), has_up, expert, row, length, last, rows[0]);
    for (int o = 0; o < length && row + o <= last; o++) {
        float dots[ABREAST] __attribute__((aligned(16)));
        int ends = o + 1 == length;
        if (strides && !ends)
            for (int r = 0; r < ABREAST; r++)
                rows[(o + 1) % 2][r].data =
                    rows[o % 2][r].data + (r < streams ? w_data.s2 : up_data.s2);
        else
            stream_rows(PASS_WEIGHT(w), PASS_WEIGHT(up), has_up, ends ? next_expert : expert,
                        ends ? next_row : row + o + 1, length, last, rows[(o + 1) % 2]);
        dots_abreast(rows[o % 2], rows[(o + 1) % 2], x, count, dots);
        COLD for (int r = 0; r < ABREAST; r++) /* scattered they would take longer */
            (r < streams ? results : more)[o + r % streams * length] = dots[r];
    }
}

#else
#define MANY 8 /* tokens */
#define TILE_ROWS 4
#define SUMS (TILE_ROWS * MANY)
#define TILE_SPACE (SUMS * PITCH) /* floats */

/* results[r * MANY + t] = rows[r] . x[t]. A lane is a stripe. */
__attribute__((always_inline)) void tile(const weight_row *w, global const float *const *x,
                                         long count, local float *results, local float *space)
{
    float a[SUMS];
#pragma unroll
    for (int i = 0; i < SUMS; i++)
        a[i] = 0;
    for (long k = LANE; k < count; k += STRIPES) {
        float xs[MANY];
#pragma unroll
        for (int t = 0; t < MANY; t++)
            xs[t] = x[t][k];
#pragma unroll
        for (int r = 0; r < TILE_ROWS; r++) {
            float row = decode(w[r], k);
#pragma unroll
            for (int t = 0; t < MANY; t++)
                a[r * MANY + t] = fma(xs[t], row, a[r * MANY + t]);
        }
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++)
        space[i * PITCH + LANE] = a[i];
    fold_upper(space, SUMS);
    for (int i = LANE; i < SUMS; i += LANES)
        results[i] = fold_8(space + i * PITCH, 1) + 0.0f;
    SYNC();
}

#define ROWS_SPACE (TEAMS * PITCH)
#define DEEP 8 /* steps whose weights are on their way together */

/* Adds DEEP steps' terms, or fewer; `all` is a constant where it is called. */
__attribute__((always_inline)) float8 add_steps(const int all, float8 a, weight_row row,
                                                global const float *x, long k, long steps)
{
    uint8 raw[DEEP];
#pragma unroll
    for (int i = 0; i < DEEP; i++)
        raw[i] = load_raw(WEIGHT_BYTES,
                          row.data + WEIGHT_BYTES * (all || i < steps ? k + i * STRIPES : k));
    LOADED();
#pragma unroll
    for (int i = 0; i < DEEP; i++) {
        long at = all || i < steps ? k + i * STRIPES : k;
        float8 more = fma(load_8(x + at), decode_raw(raw[i], row, at), a);
        a = all || i < steps ? more : a;
    }
    return a;
}

/* A lane's eight stripes of row . x; its team has the others. */
float8 team_dot(weight_row row, global const float *x, long count)
{
    long k = LANE % TEAM * TEAM, steps = (count - k + STRIPES - TEAM) / STRIPES;
    float8 a = 0;
    if (is_aligned((size_t)row.data) && (size_t)x % 16 == 0) {
        for (; steps >= DEEP; steps -= DEEP, k += DEEP * STRIPES)
            a = add_steps(1, a, row, x, k, DEEP);
        if (steps > 0)
            a = add_steps(0, a, row, x, k, steps), k += steps * STRIPES;
    }
    for (; k < count; k += STRIPES)
        a = fma(load_some(x + k, count - k), decode_some(row, k, count - k), a);
    return a;
}

/* What teams have, folded: results[i] is team i's. */
void fold_rows(float8 a, local float *results, local float *space)
{
    put_stripes(space + LANE / TEAM * PITCH, a);
    fold_teams(space, TEAMS);
    if (LANE < TEAMS)
        results[LANE] = fold_8(space + LANE * PITCH, FOLDED) + 0.0f;
    SYNC();
}

/* A team has a row. */
void rows_times(WEIGHT(w), WEIGHT(up), int has_up, long expert, long row, int block, long last,
                long next_expert, long next_row, global const float *x, long count,
                local float *results, local float *more, local float *space)
{
    for (int side = 0; side <= has_up; side++) {
        weight_row from =
            weight_row_of(PICK_WEIGHT(side, w, up), expert, min(row + LANE / TEAM, last));
        fold_rows(team_dot(from, x, count), side ? more : results, space);
    }
}
#endif
