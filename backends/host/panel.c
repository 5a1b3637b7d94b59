/*
 * panel.c: many rows times a matrix: what prefill does. Lanes are outputs, a block of rows times
 * three vectors of outputs fills the registers, and stripes come in bit-reversed order, so that
 * rule 2's fold is a binary counter: partial sums of level n wait for their sibling.
 */
#include "panel.h"
#include "simd.h"
#include "transpose.h"

#ifdef __AVX512F__
#define ROWS 8
#else
#define ROWS 4
#endif
#define VECTORS 3
#define PANEL (VECTORS * LANES)

/* Floats from one stripe's weights to the next one's: not a multiple of a page's part, so that
 * stores down the stripes spread over the cache. */
static int64_t pitch_of(int64_t terms)
{
    return terms * PANEL + 16;
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
    int64_t terms = permuted_floats(in) / STRIPES, i = 0;
    for (; (i + LANES) * STRIPES <= in; i += LANES)
        for (int j = 0; j < STRIPES; j += LANES) {
            const void *rows[LANES];
            __m512i stripe[LANES];
            for (int r = 0; r < LANES; r++)
                rows[r] = x + (i + r) * STRIPES + j;
            transpose_rows(rows, 0, stripe);
            for (int c = 0; c < LANES; c++)
                _mm512_storeu_si512(to + place[j + c] * terms + i, stripe[c]);
        }
    for (; i < terms; i++)
        for (int j = 0; j < STRIPES; j++)
            to[place[j] * terms + i] = i * STRIPES + j < in ? x[i * STRIPES + j] : 0;
}

/* Term i of every stripe, of 16 decoded rows of 64. */
static void place_decoded(const float *decoded, int64_t i, int64_t pitch, float *panel)
{
    const void *rows[LANES];
    __m512i column[LANES];
    for (int r = 0; r < LANES; r++)
        rows[r] = decoded + r * STRIPES;
    for (int j = 0; j < STRIPES; j += LANES) {
        transpose_rows(rows, 4 * j, column);
        for (int c = 0; c < LANES; c++)
            _mm512_storeu_si512(panel + place[j + c] * pitch + i * PANEL, column[c]);
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
        float *to = panel + i * PANEL;
        for (int c = 0; c < LANES; c++) {
            _mm512_storeu_si512(to + place[j + 2 * c] * pitch, v_shl(pair[c], 16));
            _mm512_storeu_si512(to + place[j + 2 * c + 1] * pitch, v_and(pair[c], high));
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

static void place_decoded(const float *decoded, int64_t i, int64_t pitch, float *panel)
{
    for (int j = 0; j < STRIPES; j++)
        for (int r = 0; r < LANES; r++)
            panel[place[j] * pitch + i * PANEL + r] = decoded[r * STRIPES + j];
}

#endif

static void pack_rows(const struct matrix *m, int64_t begin, int64_t count, float *panel)
{
    int64_t terms = permuted_floats(m->in) / STRIPES, pitch = pitch_of(terms);
    struct weight_row rows[LANES];
    float decoded[LANES * STRIPES];
    for (int r = 0; r < LANES; r++) /* lanes past the end repeat the last row; nobody reads them */
        rows[r] = weight_row(m->w, m->slot, m->first + begin + (r < count ? r : count - 1));
    for (int64_t i = 0; i < terms; i++) {
        int64_t k = i * STRIPES, n = m->in - k < STRIPES ? m->in - k : STRIPES;
#ifdef __AVX512F__
        if (n == STRIPES && m->w->format == MH_FORMAT_BF16) {
            place_bf16(rows, i, pitch, panel);
            continue;
        }
#endif
        if (n < STRIPES)
            memset(decoded, 0, sizeof(decoded));
        for (int r = 0; r < LANES; r++)
            decode_columns(&rows[r], k, n, decoded + r * STRIPES);
        place_decoded(decoded, i, pitch, panel);
    }
}

/* Outputs are columns: a row of weights is a term of one stripe. */
static void pack_columns(const struct matrix *m, int64_t begin, int64_t count, float *panel)
{
    int64_t terms = permuted_floats(m->in) / STRIPES, pitch = pitch_of(terms);
    float decoded[STRIPES + PANEL] = {0};
    int64_t from = begin / STRIPES * STRIPES;
    for (int64_t k = 0; k < terms * STRIPES; k++) {
        float *to = panel + place[k % STRIPES] * pitch + k / STRIPES * PANEL;
        if (k >= m->in) {
            memset(to, 0, PANEL * 4);
            continue;
        }
        struct weight_row row = weight_row(m->w, m->slot, m->first + k);
        for (int64_t c = from; c < begin + count; c += STRIPES) {
            int64_t left = begin + count - c;
            decode_columns(&row, c, left < STRIPES ? left : STRIPES, decoded + (c - from));
        }
        memcpy(to, decoded + (begin - from), PANEL * 4);
    }
}

void K(panel_pack)(const struct matrix *m, int64_t begin, int64_t count, float *panel)
{
    int64_t size = pitch_of(permuted_floats(m->in) / STRIPES) * STRIPES;
    for (int64_t done = 0; done < count; done += PANEL, panel += size) {
        int64_t n = count - done < PANEL ? count - done : PANEL;
        if (m->transposed)
            pack_columns(m, begin + done, n, panel);
        else
            for (int64_t g = 0; g < n; g += LANES)
                pack_rows(m, begin + done + g, n - g < LANES ? n - g : LANES, panel + g);
    }
}

/* ROWS-many or fewer, known when compiling. */
static inline __attribute__((always_inline)) void
multiply(int rows, const float *panel, int64_t terms, const float *const *x, float (*out)[STRETCH])
{
    vf sums[6][ROWS][VECTORS];
    int64_t pitch = pitch_of(terms);
    for (int s = 0; s < STRIPES; s++) {
        const float *w = panel + s * pitch;
        vf a[ROWS][VECTORS];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < VECTORS; v++)
                a[r][v] = v_zero();
        for (int64_t i = 0; i < terms; i++, w += PANEL) {
            vf w0 = v_load(w), w1 = v_load(w + LANES), w2 = v_load(w + 2 * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                vf value = v_set1(x[r][s * terms + i]);
                a[r][0] = v_fma(value, w0, a[r][0]);
                a[r][1] = v_fma(value, w1, a[r][1]);
                a[r][2] = v_fma(value, w2, a[r][2]);
            }
        }
        int level = 0;
        for (; s >> level & 1; level++)
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < VECTORS; v++)
                    a[r][v] = v_add(sums[level][r][v], a[r][v]);
        if (s < STRIPES - 1) {
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < VECTORS; v++)
                    sums[level][r][v] = a[r][v];
            continue;
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < VECTORS; v++)
                v_store(&out[r][v * LANES], v_add(a[r][v], v_zero()));
    }
}

#define FOR_ROWS(rows)                                                                             \
    static __attribute__((noinline)) void multiply_##rows(                                         \
        const float *panel, int64_t terms, const float *const *x, float(*out)[STRETCH])            \
    {                                                                                              \
        multiply(rows, panel, terms, x, out);                                                      \
    }
FOR_ROWS(1)
FOR_ROWS(2)
FOR_ROWS(4)
#if ROWS > 4
FOR_ROWS(8)
#endif

static void multiply_rows(const float *panel, int64_t terms, const float *const *x, int64_t rows,
                          float (*out)[STRETCH])
{
#if ROWS > 4
    for (; rows >= 8; rows -= 8, x += 8, out += 8)
        multiply_8(panel, terms, x, out);
#endif
    for (; rows >= 4; rows -= 4, x += 4, out += 4)
        multiply_4(panel, terms, x, out);
    for (; rows >= 2; rows -= 2, x += 2, out += 2)
        multiply_2(panel, terms, x, out);
    if (rows)
        multiply_1(panel, terms, x, out);
}

void K(panel_rows)(const float *panel, int64_t in, const float *const *x, int64_t rows,
                   float (*out)[STRETCH])
{
    int64_t terms = permuted_floats(in) / STRIPES, size = pitch_of(terms) * STRIPES;
    for (int64_t o = 0; o < STRETCH; o += PANEL, panel += size)
        multiply_rows(panel, terms, x, rows, (float(*)[STRETCH]) & out[0][o]);
}
