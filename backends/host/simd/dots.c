/*
 * dots.c: few rows times a matrix whose weights are read once, in place: what decode does.
 * Lanes are stripes. The stripes of ROWS dots fill the registers: for one row of activations as
 * many rows of weights are read side by side, for two half as many, for four of them one. Rows side
 * by side are far apart, each the next of a stream of its own, so that the hardware sees a few long
 * streams; AHEAD columns on they are prefetched, since it stops at each page.
 */
#include "../panel.h"
#include "fold.h"

#ifdef __AVX512F__
#define ROWS 4
#else
#define ROWS 1
#endif

/* Columns. Less comes too late, more is gone from the first cache when its turn comes. */
#define AHEAD 1024

/* How many weights a word of memory holds, where inputs come in that order: of 16 words the columns
 * that are first in theirs, then the second ones, ... 1: as they are. */
static inline int in_word(mh_format format)
{
#ifdef __AVX512F__
    return format == MH_FORMAT_FP8 ? 4 : format == MH_FORMAT_BF16 ? 2 : 1;
#else
    (void)format;
    return 1;
#endif
}

bool K(wants_order)(mh_format format)
{
    return in_word(format) > 1;
}

static inline __attribute__((always_inline)) void order_stripes(int each, float *to, const float *x)
{
    for (int j = 0; j < STRIPES; j++)
        to[j] = x[j / (16 * each) * 16 * each + j % 16 * each + j / 16 % each];
}

/* Padded to whole stripes. */
void K(order)(mh_format format, float *to, const float *x, int64_t in)
{
    float last[STRIPES] = {0};
    for (int64_t k = 0; k < in; k += STRIPES) {
        const float *from = x + k;
        if (in - k < STRIPES)
            from = memcpy(last, x + k, (size_t)(in - k) * 4);
        if (in_word(format) == 4)
            order_stripes(4, to + k, from);
        else if (in_word(format) == 2)
            order_stripes(2, to + k, from);
    }
}

/* Sums of `rows` rows of weights times `tokens` inputs; both are known when compiling. Dot d is row
 * d / tokens times input d % tokens. */
struct sums {
    vf a[ROWS][STEP];
};

/* The last in % 64 terms; absent ones are +0 on both sides. Inputs in order are padded already. */
static inline __attribute__((always_inline)) void add_tail(struct sums *s, mh_format format,
                                                           int rows, int tokens,
                                                           const struct weight_row *row,
                                                           const float *const *x, int64_t in)
{
    int64_t k = in / STRIPES * STRIPES;
    bool order = in_word(format) > 1;
    for (int r = 0; r < rows; r++) {
        float w[STRIPES] = {0}, ordered[STRIPES], padded[STRIPES] = {0};
        decode_columns(&row[r], k, in - k, w);
        if (order)
            K(order)(format, ordered, w, STRIPES);
        for (int t = 0; t < tokens; t++) {
            vf *a = s->a[r * tokens + t];
            memcpy(padded, x[t] + k, (size_t)(order ? STRIPES : in - k) * 4);
            for (int j = 0; j < STEP; j++)
                a[j] = v_fma(v_load(padded + LANES * j), v_load((order ? ordered : w) + LANES * j),
                             a[j]);
        }
    }
}

/* 64 columns of a row from column k. */
static inline __attribute__((always_inline)) void
fetch_weights(mh_format format, const struct weight_row *row, int64_t k, vf w[STEP])
{
    vf scale = v_zero();
    if (format == MH_FORMAT_FP8) {
        float f;
        memcpy(&f, row->scale + k / 128 * 4, 4);
        scale = v_mul(v_set1(f), v_set1(FP8_BIAS));
    }
#ifdef __AVX512F__
    if (format == MH_FORMAT_FP8)
        v_decode_fours(row->data + k, scale, w);
    if (format == MH_FORMAT_BF16)
        v_decode_twos(row->data + 2 * k, w);
    if (in_word(format) > 1)
        return;
#endif
#pragma GCC unroll 8
    for (int j = 0; j < STEP; j++)
        w[j] = v_decode(format, row->data, k + LANES * j, scale);
}

/* Rows of weights side by side, and those that come after them. */
struct abreast {
    struct weight_row row[ROWS];
    const unsigned char *then[ROWS];
};

/* sums[r * tokens + t]. FP8 is plain. */
static inline __attribute__((always_inline)) void dot_rows(mh_format format, int rows, int tokens,
                                                           const struct abreast *w,
                                                           const float *const *x, int64_t in,
                                                           float sums[ROWS])
{
    int64_t bytes = format == MH_FORMAT_F32 ? 4 : format == MH_FORMAT_FP8 ? 1 : 2;
    int64_t ahead = AHEAD * bytes,
            turn = in * bytes - ahead; /* from there on what is ahead is of the rows after */
    struct sums s;
    for (int d = 0; d < ROWS; d++)
        for (int j = 0; j < STEP; j++)
            s.a[d][j] = v_zero();
    for (int64_t k = 0; k + STRIPES <= in; k += STRIPES) {
        bool inside = k * bytes < turn;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const unsigned char *next = inside ? w->row[r].data + ahead : w->then[r] - turn;
            vf weights[STEP];
            for (int64_t line = 0; line < STRIPES * bytes; line += 64)
                __builtin_prefetch(next + k * bytes + line, 0, 3);
            fetch_weights(format, &w->row[r], k, weights);
#pragma GCC unroll 8
            for (int j = 0; j < STEP; j++)
                for (int t = 0; t < tokens; t++)
                    s.a[r * tokens + t][j] =
                        v_fma(v_load(x[t] + k + LANES * j), weights[j], s.a[r * tokens + t][j]);
        }
    }
    if (in % STRIPES)
        add_tail(&s, format, rows, tokens, w->row, x, in);
    if (in_word(format) == 4)
        fold_fours(s.a, sums);
    else if (in_word(format) == 2)
        fold_twos(s.a, sums);
    else
        fold_dots(s.a, sums);
}

/* FP8's general path. */
static float dot_generally(const struct weight_row *row, const float *x, int64_t in)
{
    float a[STRIPES] = {0}, w[STRIPES], ordered[STRIPES];
    const int each = in_word(MH_FORMAT_FP8);
    for (int64_t k = 0; k < in; k += STRIPES) {
        int64_t n = in - k < STRIPES ? in - k : STRIPES;
        decode_columns(row, k, n, w);
        for (int64_t j = 0; j < n; j++)
            ordered[j] = x[k + j % each * 16 + j / each];
        accumulate(a, ordered, w, n);
    }
    return fold(a);
}

/* Whether v_decode takes the 128 rows that share their scales with `row`. To look for a NaN in each
 * dot would be a tenth of its time: it is looked for once, when weights are first used. */
static bool block_is_plain(const struct matrix *m, int64_t row)
{
    enum { UNKNOWN, PLAIN, OTHER };
    const mh_weight_view *w = m->w;
    int64_t begin = row / 128 * 128, end = w->out - begin < 128 ? w->out : begin + 128;
    uint8_t *mark = w->marks ? &w->marks[m->slot * ((w->out + 127) / 128) + row / 128] : NULL;
    uint8_t known = mark ? __atomic_load_n(mark, __ATOMIC_RELAXED) : UNKNOWN;
    if (known != UNKNOWN)
        return known == PLAIN;
    bool plain = true;
    for (int64_t r = begin; r < end && plain; r++) {
        struct weight_row one = weight_row(w, m->slot, r);
        plain = fp8_is_plain(&one, m->in);
    }
    if (mark)
        __atomic_store_n(mark, plain ? PLAIN : OTHER, __ATOMIC_RELAXED);
    return plain;
}

static inline __attribute__((always_inline)) void dot_stretch(mh_format format, int tokens,
                                                              const struct matrix *m, int64_t begin,
                                                              int64_t count, const float *const *x,
                                                              float (*out)[STRETCH])
{
    const int most = ROWS / tokens;
    int64_t length = count / most, alone = length * most; /* of a stream; rows from here on */
    for (int64_t o = 0; o < length + count - alone; o++) {
        bool together = o < length, plain = true;
        int64_t first = together ? o : alone + o - length, step = together ? most : 1;
        int64_t jump = o + 1 < length ? 1 : count - length + 1; /* to the next stretch's */
        struct abreast w;
        float sums[ROWS];
        for (int64_t r = 0; r < step; r++) {
            int64_t at = m->first + begin + first + r * length;
            w.row[r] = weight_row(m->w, m->slot, at);
            w.then[r] = w.row[r].data + jump * m->w->row_stride[0];
            plain &= format != MH_FORMAT_FP8 || block_is_plain(m, at);
        }
        if (plain && together)
            dot_rows(format, most, tokens, &w, x, m->in, sums);
        else if (plain)
            dot_rows(format, 1, tokens, &w, x, m->in, sums);
        for (int64_t r = 0; r < step; r++)
            for (int t = 0; t < tokens; t++)
                out[t][first + r * length] =
                    plain ? sums[r * tokens + t] : dot_generally(&w.row[r], x[t], m->in);
    }
}

#define FOR_TOKENS(tokens)                                                                         \
    static void dots_##tokens(const struct matrix *m, int64_t begin, int64_t count,                \
                              const float *const *x, float(*out)[STRETCH])                         \
    {                                                                                              \
        switch (m->w->format) {                                                                    \
        case MH_FORMAT_F32:                                                                        \
            dot_stretch(MH_FORMAT_F32, tokens, m, begin, count, x, out);                           \
            break;                                                                                 \
        case MH_FORMAT_BF16:                                                                       \
            dot_stretch(MH_FORMAT_BF16, tokens, m, begin, count, x, out);                          \
            break;                                                                                 \
        case MH_FORMAT_F16:                                                                        \
            dot_stretch(MH_FORMAT_F16, tokens, m, begin, count, x, out);                           \
            break;                                                                                 \
        default:                                                                                   \
            dot_stretch(MH_FORMAT_FP8, tokens, m, begin, count, x, out);                           \
        }                                                                                          \
    }
FOR_TOKENS(1)
#if ROWS > 1
FOR_TOKENS(2)
FOR_TOKENS(4)
#endif

void K(dots)(const struct matrix *m, int64_t begin, int64_t count, const float *const *x,
             int64_t rows, float (*out)[STRETCH])
{
    for (int64_t i = 0; m->transposed && i < rows; i++)
        K(dots_columns)(m, begin, count, x[i], out[i]);
    if (m->transposed)
        return;
#if ROWS > 1
    for (; rows >= 4; rows -= 4, x += 4, out += 4)
        dots_4(m, begin, count, x, out);
    for (; rows >= 2; rows -= 2, x += 2, out += 2)
        dots_2(m, begin, count, x, out);
#endif
    for (; rows; rows--, x++, out++)
        dots_1(m, begin, count, x, out);
}
