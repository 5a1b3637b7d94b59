/*
 * panel.c: many rows times a matrix: what prefill does. Lanes are outputs, a block of rows times
 * three vectors of outputs fills the registers, and stripes come in bit-reversed order, so that
 * rule 2's fold is a binary counter: partial sums of level n wait for their sibling.
 */
#include "in_place.h"
#include "transpose.h"

#ifdef __AVX512F__
#define ROWS 8
#else
#define ROWS 4
#endif
#define PANEL (3 * LANES) /* outputs, the most */
#define KEYS (2 * LANES)  /* the same of a panel of attention's keys: 64 are whole panels */

/* Outputs of a panel that holds `count`, PANEL at most, of a matrix: whole vectors. */
static int64_t width_of(int64_t count)
{
    return count < PANEL ? (count + LANES - 1) / LANES * LANES : PANEL;
}

/* Floats from one stripe's weights to the next one's: not a multiple of a page's part, so that
 * stores down the stripes spread over the cache. */
static int64_t pitch_of(int64_t terms, int64_t width)
{
    return terms * width + 16;
}

static int64_t panel_floats(int64_t in, int64_t width)
{
    return pitch_of(permuted_floats(in) / STRIPES, width) * STRIPES;
}

/* Where stripe j comes in the order: its six bits reversed. */
static const unsigned char place[STRIPES] = {
    0,  32, 16, 48, 8,  40, 24, 56, 4,  36, 20, 52, 12, 44, 28, 60, 2,  34, 18, 50, 10, 42,
    26, 58, 6,  38, 22, 54, 14, 46, 30, 62, 1,  33, 17, 49, 9,  41, 25, 57, 5,  37, 21, 53,
    13, 45, 29, 61, 3,  35, 19, 51, 11, 43, 27, 59, 7,  39, 23, 55, 15, 47, 31, 63,
};

#ifdef __AVX512F__

void K(permute)(float *to, const float *x, int64_t in)
{
    static const float zeros[STRIPES];
    int64_t terms = permuted_floats(in) / STRIPES, whole = in / STRIPES;
    float last[STRIPES] = {0};
    memcpy(last, x + whole * STRIPES, (size_t)(in - whole * STRIPES) * 4);
    for (int64_t i = 0; i < terms; i += LANES) {
        __mmask16 there = terms - i < LANES ? (__mmask16)((1 << (terms - i)) - 1) : 0xFFFF;
        const void *rows[LANES];
        for (int64_t r = 0; r < LANES; r++)
            rows[r] = i + r < whole ? x + (i + r) * STRIPES : i + r < terms ? last : zeros;
        for (int j = 0; j < STRIPES; j += LANES) {
            __m512i stripe[LANES];
            transpose_rows(rows, 4 * j, stripe);
            for (int c = 0; c < LANES; c++)
                _mm512_mask_storeu_epi32(to + place[j + c] * terms + i, there, stripe[c]);
        }
    }
}

/* Term i of every stripe, of 16 decoded rows of 64. */
static void place_decoded(const float *decoded, int64_t pitch, float *panel)
{
    const void *rows[LANES];
    __m512i column[LANES];
    for (int r = 0; r < LANES; r++)
        rows[r] = decoded + r * STRIPES;
    for (int j = 0; j < STRIPES; j += LANES) {
        transpose_rows(rows, 4 * j, column);
        for (int c = 0; c < LANES; c++)
            _mm512_storeu_si512(panel + place[j + c] * pitch, column[c]);
    }
}

/* The same straight from bf16, which turn in pairs. */
static void place_bf16(const struct weight_row *row, int64_t i, int64_t pitch, float *panel)
{
    const void *rows[LANES];
    __m512i pair[LANES], high = _mm512_set1_epi32((int)0xFFFF0000);
    for (int r = 0; r < LANES; r++)
        rows[r] = row[r].data + 2 * i * STRIPES;
    for (int j = 0; j < STRIPES; j += 2 * LANES) {
        transpose_rows(rows, 2 * j, pair);
        for (int c = 0; c < LANES; c++) {
            _mm512_storeu_si512(panel + place[j + 2 * c] * pitch, v_shl(pair[c], 16));
            _mm512_storeu_si512(panel + place[j + 2 * c + 1] * pitch, v_and(pair[c], high));
        }
    }
}

#else

void K(permute)(float *to, const float *x, int64_t in)
{
    int64_t terms = permuted_floats(in) / STRIPES;
    for (int64_t i = 0; i < terms; i++)
        for (int j = 0; j < STRIPES; j++)
            to[place[j] * terms + i] = i * STRIPES + j < in ? x[i * STRIPES + j] : 0;
}

static void place_decoded(const float *decoded, int64_t pitch, float *panel)
{
    for (int j = 0; j < STRIPES; j++)
        for (int r = 0; r < LANES; r++)
            panel[place[j] * pitch + r] = decoded[r * STRIPES + j];
}

#endif

/* LANES rows into a panel `width` outputs wide. */
static void pack_rows(const struct weight_row rows[LANES], int64_t in, int64_t width, float *panel)
{
    int64_t terms = permuted_floats(in) / STRIPES, pitch = pitch_of(terms, width);
    float decoded[LANES * STRIPES];
    for (int64_t i = 0; i < terms; i++, panel += width) {
        int64_t k = i * STRIPES, n = in - k < STRIPES ? in - k : STRIPES;
#ifdef __AVX512F__
        if (n == STRIPES && rows[0].format == MH_FORMAT_BF16) {
            for (int r = 0; r < LANES; r++) { /* two steps on: rows are a page apart */
                __builtin_prefetch(rows[r].data + 2 * k + 256);
                __builtin_prefetch(rows[r].data + 2 * k + 320);
            }
            place_bf16(rows, i, pitch, panel);
            continue;
        }
#endif
        if (n < STRIPES)
            memset(decoded, 0, sizeof(decoded));
        for (int r = 0; r < LANES; r++)
            decode_columns(&rows[r], k, n, decoded + r * STRIPES);
        place_decoded(decoded, pitch, panel);
    }
}

/* ---- outputs that are columns: a row of weights is a term of one stripe ---- */

#define PARTS (STRETCH / LANES)

/* Vectors of the columns, from the first on, that v_decode takes of every row. */
static int64_t plain_vectors(const struct matrix *m, int64_t begin, int64_t count)
{
    int64_t whole = m->w->in / STRIPES * STRIPES - begin;
    whole = whole < 0 ? 0 : whole; /* all of them lie in the last in % 64 */
    if (m->w->format != MH_FORMAT_FP8)
        return count / LANES;
    for (int64_t row = m->first / 128 * 128; row < m->first + m->in; row += 128)
        if (!block_is_plain(m, row))
            return 0;
    return (whole < count ? whole : count) / LANES;
}

/* Columns of a matrix: `count` <= STRETCH of them from `begin` on, the first `plain` vectors of
 * which v_decode takes. */
struct columns {
    const struct matrix *m;
    int64_t begin, count, plain;
    struct weight_row first; /* its data from column `begin` on */
    int64_t next;            /* bytes on, what is read after these columns */
};

static struct columns columns_of(const struct matrix *m, int64_t begin, int64_t count)
{
    int64_t size = format_bytes(m->w->format);
    bool last = begin + count >= m->w->in;
    struct columns c = {m,
                        begin,
                        count,
                        plain_vectors(m, begin, count),
                        weight_row(m->w, m->slot, m->first),
                        last ? m->ahead - begin * size : count * size};
    c.first.data += begin * size;
    return c;
}

/* Vectors of row k that v_decode does not take; those past `count` are anything. */
static __attribute__((noinline)) void load_generally(const struct columns *c, int64_t k,
                                                     vf w[PARTS])
{
    struct weight_row row = weight_row(c->m->w, c->m->slot, c->m->first + k);
    int64_t from = c->begin / STRIPES * STRIPES, end = c->begin + c->count;
    float decoded[STRIPES + STRETCH] = {0};
    for (int64_t at = from; at < end; at += STRIPES)
        decode_columns(&row, at, end - at < STRIPES ? end - at : STRIPES, decoded + (at - from));
    for (int64_t v = c->plain; v < PARTS; v++)
        w[v] = v_load(decoded + (c->begin - from) + v * LANES);
}

/* Row k of the columns. What comes next is fetched: rows are far apart. Into the second cache, as
 * in dots.c. */
static inline __attribute__((always_inline)) void
load_columns(mh_format format, const struct columns *c, int64_t k, vf w[PARTS])
{
    const int64_t size = format_bytes(format);
    struct weight_row row = c->first;
    row.data += k * c->m->w->row_stride[0];
    if (format == MH_FORMAT_FP8)
        row.scale += ((c->m->first + k) / 128 - c->m->first / 128) * c->m->w->row_stride[1];
    __builtin_prefetch(row.data + c->next, 0, 2);
    __builtin_prefetch(row.data + c->next + STRETCH * size - 1, 0, 2);
#pragma GCC unroll 6
    for (int64_t v = 0; v < PARTS; v++)
        w[v] = v < c->plain ? v_decode(format, row.data, v * LANES,
                                       v_scale_at(format, &row, c->begin + v * LANES))
                            : v_zero();
    if (c->plain * LANES < c->count)
        load_generally(c, k, w);
}

/* A function of a format as one for each, whose loops know it. */
#define BY_FORMAT(fn, format, ...)                                                                 \
    switch (format) {                                                                              \
    case MH_FORMAT_F32:                                                                            \
        fn(MH_FORMAT_F32, __VA_ARGS__);                                                            \
        break;                                                                                     \
    case MH_FORMAT_BF16:                                                                           \
        fn(MH_FORMAT_BF16, __VA_ARGS__);                                                           \
        break;                                                                                     \
    case MH_FORMAT_F16:                                                                            \
        fn(MH_FORMAT_F16, __VA_ARGS__);                                                            \
        break;                                                                                     \
    default:                                                                                       \
        fn(MH_FORMAT_FP8, __VA_ARGS__);                                                            \
    }

static inline __attribute__((always_inline)) void
pack_rows_of(mh_format format, const struct columns *c, float *panel)
{
    int64_t terms = permuted_floats(c->m->in) / STRIPES;
    for (int64_t k = 0; k < terms * STRIPES; k++) {
        vf w[PARTS] = {v_zero()};
        if (k < c->m->in)
            load_columns(format, c, k, w);
        for (int64_t v = 0; v < PARTS; v++) {
            int64_t before = v * LANES / PANEL * PANEL, width = width_of(c->count - before);
            float *to = panel + before / PANEL * panel_floats(c->m->in, PANEL) + v * LANES % PANEL;
            if (v * LANES < c->count)
                v_store(to + place[k % STRIPES] * pitch_of(terms, width) + k / STRIPES * width,
                        k < c->m->in ? w[v] : v_zero());
        }
    }
}

static void pack_columns(const struct matrix *m, int64_t begin, int64_t count, float *panel)
{
    struct columns c = columns_of(m, begin, count);
    BY_FORMAT(pack_rows_of, m->w->format, &c, panel)
}

static inline __attribute__((always_inline)) void
dot_columns(mh_format format, const struct columns *c, const float *x, float *out)
{
    vf sums[6][PARTS];
    for (int s = 0; s < STRIPES; s++) {
        vf a[PARTS], w[PARTS];
        for (int v = 0; v < PARTS; v++)
            a[v] = v_zero();
        for (int64_t k = place[s]; k < c->m->in; k += STRIPES) {
            load_columns(format, c, k, w);
            for (int v = 0; v < PARTS; v++)
                a[v] = v_fma(v_set1(x[k]), w[v], a[v]);
        }
        int level = 0;
        for (; s >> level & 1; level++)
            for (int v = 0; v < PARTS; v++)
                a[v] = v_add(sums[level][v], a[v]);
        for (int v = 0; v < PARTS; v++) {
            if (s < STRIPES - 1)
                sums[level][v] = a[v];
            else
                v_store(out + v * LANES, v_add(a[v], v_zero()));
        }
    }
}

void K(dots_columns)(const struct matrix *m, int64_t begin, int64_t count, const float *x,
                     float *out)
{
    struct columns c = columns_of(m, begin, count);
    BY_FORMAT(dot_columns, m->w->format, &c, x, out)
}

/* ---- outputs that are rows ---- */

/* Lanes past the end repeat the last row; nobody reads them. */
static void pack_outputs(const struct matrix *m, int64_t begin, int64_t count, float *panel)
{
    for (int64_t g = 0; g < count; g += LANES) {
        struct weight_row rows[LANES];
        for (int64_t r = 0; r < LANES; r++)
            rows[r] =
                weight_row(m->w, m->slot, m->first + begin + (g + r < count ? g + r : count - 1));
        pack_rows(rows, m->in, width_of(count), panel + g);
    }
}

void K(panel_pack)(const struct matrix *m, int64_t begin, int64_t count, float *panel)
{
    int64_t size = panel_floats(m->in, PANEL);
    if (m->transposed)
        pack_columns(m, begin, count, panel);
    for (int64_t done = 0; !m->transposed && done < count; done += PANEL, panel += size)
        pack_outputs(m, begin + done, count - done < PANEL ? count - done : PANEL, panel);
}

void K(panel_keys)(const struct weight_row *keys, int64_t count, int64_t in, float *panel)
{
    int64_t size = panel_floats(in, KEYS);
    for (int64_t g = 0; g < count; g += LANES) {
        struct weight_row rows[LANES];
        for (int64_t r = 0; r < LANES; r++)
            rows[r] = keys[g + r < count ? g + r : count - 1];
        pack_rows(rows, in, KEYS, panel + g / KEYS * size + g % KEYS);
    }
}

/* a[r][v] = the sums of one stripe; rows <= ROWS and vectors are known when compiling. */
static inline __attribute__((always_inline)) void add_terms(int rows, int vectors, const float *w,
                                                            int64_t terms, const float *const *x,
                                                            int64_t from, vf a[ROWS][3])
{
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            a[r][v] = v_zero();
#pragma GCC unroll 2
    for (int64_t i = from; i < from + terms; i++, w += vectors * LANES) {
        vf weights[3];
        for (int v = 0; v < vectors; v++)
            weights[v] = v_load(w + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vf value = v_set1(x[r][i]);
            for (int v = 0; v < vectors; v++)
                a[r][v] = v_fma(value, weights[v], a[r][v]);
        }
    }
}

/* Row r's results go to out + r * out_pitch. Stripes come by fours: how far the counter carries
 * after three of them is known when compiling, and no branch is guessed wrong. What comes next is
 * fetched with each stripe a little: the processor waits when many lines are asked for at once. */
static inline __attribute__((always_inline)) void multiply(int rows, int vectors,
                                                           const float *panel, int64_t terms,
                                                           const float *const *x, struct ahead next,
                                                           float *out, int64_t out_pitch)
{
    vf sums[6][ROWS][3];
    int64_t pitch = pitch_of(terms, vectors * LANES);
    for (int four = 0; four < STRIPES; four += 4)
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            int s = four + q, level = 0;
            vf a[ROWS][3];
            fetch(ahead_part(next, s, STRIPES));
            add_terms(rows, vectors, panel + s * pitch, terms, x, s * terms, a);
            for (; level < 2 ? q >> level & 1 : s >> level & 1; level++)
                for (int r = 0; r < rows; r++)
                    for (int v = 0; v < vectors; v++)
                        a[r][v] = v_add(sums[level][r][v], a[r][v]);
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++) {
                    if (q < 3 || s < STRIPES - 1)
                        sums[level][r][v] = a[r][v];
                    else
                        v_store(out + r * out_pitch + v * LANES, v_add(a[r][v], v_zero()));
                }
        }
}

typedef void multiply_fn(const float *panel, int64_t terms, const float *const *x,
                         struct ahead next, float *out, int64_t out_pitch);

#define FOR_ROWS(rows, vectors)                                                                    \
    static __attribute__((noinline)) void multiply_##rows##_##vectors(                             \
        const float *panel, int64_t terms, const float *const *x, struct ahead next, float *out,   \
        int64_t out_pitch)                                                                         \
    {                                                                                              \
        multiply(rows, vectors, panel, terms, x, next, out, out_pitch);                            \
    }
#define FOR_VECTORS(vectors)                                                                       \
    FOR_ROWS(1, vectors) FOR_ROWS(2, vectors) FOR_ROWS(3, vectors) FOR_ROWS(4, vectors)
FOR_VECTORS(3)
FOR_VECTORS(2)
FOR_VECTORS(1)
#if ROWS == 8
#define MORE_FOR_VECTORS(vectors)                                                                  \
    FOR_ROWS(5, vectors) FOR_ROWS(6, vectors) FOR_ROWS(7, vectors) FOR_ROWS(8, vectors)
MORE_FOR_VECTORS(3)
MORE_FOR_VECTORS(2)
MORE_FOR_VECTORS(1)
#endif

/* A panel's outputs of up to ROW_BLOCK rows; by_rows: for 1 to ROWS rows. */
static void multiply_all(multiply_fn *const *by_rows, const float *panel, int64_t in,
                         const float *const *x, int64_t rows, struct ahead next, float *out,
                         int64_t out_pitch)
{
    int64_t steps = (rows + ROWS - 1) / ROWS;
    for (int64_t i = 0; i < steps; i++) {
        int64_t r = i * ROWS, count = rows - r < ROWS ? rows - r : ROWS;
        by_rows[count - 1](panel, permuted_floats(in) / STRIPES, x + r, ahead_part(next, i, steps),
                           out + r * out_pitch, out_pitch);
    }
}

#if ROWS == 8
#define BY_ROWS(v)                                                                                 \
    multiply_1_##v, multiply_2_##v, multiply_3_##v, multiply_4_##v, multiply_5_##v,                \
        multiply_6_##v, multiply_7_##v, multiply_8_##v
#else
#define BY_ROWS(v) multiply_1_##v, multiply_2_##v, multiply_3_##v, multiply_4_##v
#endif
static multiply_fn *const by_rows[][ROWS] = {{BY_ROWS(1)}, {BY_ROWS(2)}, {BY_ROWS(3)}};

void K(panel_rows)(const float *panel, int64_t in, int64_t count, const float *const *x,
                   int64_t rows, struct ahead next, float (*out)[STRETCH])
{
    int64_t panels = (count + PANEL - 1) / PANEL;
    for (int64_t i = 0; i < panels; i++, panel += panel_floats(in, PANEL)) {
        int64_t vectors = width_of(count - i * PANEL) / LANES;
        multiply_all(by_rows[vectors - 1], panel, in, x, rows, ahead_part(next, i, panels),
                     &out[0][i * PANEL], STRETCH);
    }
}

void K(panel_scores)(const float *panel, int64_t in, const float *const *x, int64_t rows,
                     float (*out)[STRIPES])
{
    for (int64_t o = 0; o < STRIPES; o += KEYS, panel += panel_floats(in, KEYS))
        multiply_all(by_rows[KEYS / LANES - 1], panel, in, x, rows, (struct ahead){NULL, 0},
                     &out[0][o], STRIPES);
}
