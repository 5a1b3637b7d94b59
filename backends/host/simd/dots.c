/*
 * dots.c: one or two rows times a matrix whose weights are read once, in place: what decode does.
 * Lanes are stripes. The stripes of ROWS dots fill the registers: for one row of activations as
 * many rows of weights are read side by side, for two half as many. Rows side by side are far
 * apart, each the next of a stream of its own, so that the hardware sees a few long streams, and
 * an input is one more. What is ahead is prefetched besides, since the hardware stops at each page;
 * no nearer than into the second cache, where more can be on its way (on Zen 4 a fifth more than
 * into the first).
 */
#include "fold.h"
#include "in_place.h"

#ifdef __AVX512F__
#define ROWS 4
#else
#define ROWS 1
#endif

/* Prefetched are the bytes `ahead`, one line of `step`. Zen 4's hardware brings every second line
 * of four streams of bf16 by itself, and to ask for it too is a tenth slower. */
struct fetch {
    int64_t ahead, step;
};

static inline struct fetch fetch_of(mh_format format, int tokens)
{
    if (format == MH_FORMAT_FP8)
        return (struct fetch){1792, 64};
    if (tokens == 2)
        return (struct fetch){3584, 64};
    return (struct fetch){1280, 128};
}

/* Sums of `rows` rows of weights times `tokens` inputs; both are known when compiling. Dot d is row
 * d / tokens times input d % tokens. */
struct sums {
    vf a[ROWS][STEP];
};

/* The last in % 64 terms. */
static inline __attribute__((always_inline)) void add_tail(struct sums *s, mh_format format,
                                                           int rows, int tokens,
                                                           const struct weight_row *row,
                                                           const float *const *x, int64_t in)
{
    for (int r = 0; r < rows; r++) {
        float w[STRIPES];
        last_weights(format, &row[r], in, w);
        for (int t = 0; t < tokens; t++)
            for (int j = 0; j < STEP; j++) {
                vf *a = &s->a[r * tokens + t][j];
                *a = v_fma(input_at(x[t], in, in / STRIPES, j), v_load(w + LANES * j), *a);
            }
    }
}

/* Rows of weights side by side, and those that come after them. */
struct abreast {
    struct weight_row row[ROWS];
    const unsigned char *then[ROWS];
};

static inline __attribute__((always_inline)) void fold_sums(mh_format format, struct sums *s,
                                                            float sums[ROWS])
{
#ifdef __AVX512F__
    vf part[STEP][ROWS];
    for (int j = 0; j < STEP; j++)
        for (int d = 0; d < ROWS; d++)
            part[j][d] = s->a[d][j];
    for (int j = 0; !by_fours(format) && j < 2; j++)
        for (int d = 0; d < ROWS; d++)
            part[j][d] = v_add(part[j][d], part[j + 2][d]);
    fold_parts(format, (const vf *const[]){part[0], part[1], part[2], part[3]}, sums);
#else
    (void)format;
    *sums = v_fold(s->a[0]);
#endif
}

/* sums[r * tokens + t]. FP8 is plain. */
static inline __attribute__((always_inline)) void dot_rows(mh_format format, int rows, int tokens,
                                                           const struct abreast *w,
                                                           const float *const *x, int64_t in,
                                                           float sums[ROWS])
{
    int64_t bytes = format_bytes(format), whole = in / STRIPES * STRIPES;
    const struct fetch fetch = fetch_of(format, tokens);
    int64_t turn = in - fetch.ahead / bytes; /* from there on what is ahead is of the rows after */
    int64_t k = 0;
    /* A loop that ends within a row lets memory wait; but FP8, which takes as long to multiply as
     * to read, is faster without a choice in its loop. */
    const int pieces = format == MH_FORMAT_FP8 ? 2 : 1;
    const unsigned char *here[ROWS], *there[ROWS];
    vf scale[ROWS];
    struct sums s;
    for (int d = 0; d < ROWS; d++)
        for (int j = 0; j < STEP; j++)
            s.a[d][j] = v_zero();
    for (int r = 0; r < rows; r++) {
        here[r] = w->row[r].data + fetch.ahead;
        there[r] = w->then[r] - turn * bytes;
        scale[r] = v_zero();
    }
    for (int piece = 0; piece < pieces; piece++) {
        int64_t stop = piece + 1 < pieces && turn < whole ? turn : whole;
        for (; k < stop; k += STRIPES) {
            vf value[STEP][2];
            for (int j = 0; j < STEP; j++)
                for (int t = 0; t < tokens; t++) {
                    value[j][t] = input_at(x[t], in, k / STRIPES, j);
                    if (rows > 1) /* loaded once, not by each fma */
                        __asm__("" : "+v"(value[j][t]));
                }
            if (k % 128 == 0) {
#pragma GCC unroll 4
                for (int r = 0; r < rows; r++)
                    scale[r] = v_scale_at(format, &w->row[r], k);
            }
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                bool inside = pieces == 1 ? k < turn : piece == 0;
                const unsigned char *next = (inside ? here[r] : there[r]) + k * bytes;
                vf weights[STEP];
                /* Not all rows' at once: Zen 4 drops what its queue has no room for. */
                if (r && format == MH_FORMAT_FP8)
                    __asm__("" : "+r"(next) : "v"(s.a[(r - 1) * tokens][0]));
                for (int64_t line = 0; line < STRIPES * bytes; line += fetch.step)
                    __builtin_prefetch(next + line, 0, 2);
                v_decode_parts(format, w->row[r].data, k, scale[r], weights);
#pragma GCC unroll 8
                for (int j = 0; j < STEP; j++)
                    for (int t = 0; t < tokens; t++)
                        s.a[r * tokens + t][j] =
                            v_fma(value[j][t], weights[j], s.a[r * tokens + t][j]);
            }
        }
    }
    if (in % STRIPES)
        add_tail(&s, format, rows, tokens, w->row, x, in);
    fold_sums(format, &s, sums);
}

/* The first row that stream r of `streams` reads of what comes next. */
static inline const unsigned char *next_stream(const struct next *next, int64_t r, int streams)
{
    return weight_row(next->m.w, next->m.slot,
                      next->m.first + next->begin + r * (next->count / streams))
        .data;
}

static inline __attribute__((always_inline)) void
dot_stretch(mh_format format, int tokens, const struct matrix *m, int64_t begin, int64_t count,
            const float *const *x, const struct next *next, float (*out)[LONGEST])
{
    const int most = ROWS / tokens;
    int64_t length = count / most, alone = length * most; /* of a stream; rows from here on */
    for (int64_t o = 0; o < length + count - alone; o++) {
        bool together = o < length, plain = true;
        int64_t first = together ? o : alone + o - length, step = together ? most : 1;
        struct abreast w;
        float sums[ROWS];
        for (int64_t r = 0; r < step; r++) {
            int64_t at = m->first + begin + first + r * length;
            w.row[r] = weight_row(m->w, m->slot, at);
            if (o + 1 == length && next->count)
                w.then[r] = next_stream(next, r, most);
            else
                w.then[r] = w.row[r].data + m->w->row_stride[0];
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
                              const float *const *x, const struct next *next,                      \
                              float(*out)[LONGEST])                                                \
    {                                                                                              \
        switch (m->w->format) {                                                                    \
        case MH_FORMAT_F32:                                                                        \
            dot_stretch(MH_FORMAT_F32, tokens, m, begin, count, x, next, out);                     \
            break;                                                                                 \
        case MH_FORMAT_BF16:                                                                       \
            dot_stretch(MH_FORMAT_BF16, tokens, m, begin, count, x, next, out);                    \
            break;                                                                                 \
        case MH_FORMAT_F16:                                                                        \
            dot_stretch(MH_FORMAT_F16, tokens, m, begin, count, x, next, out);                     \
            break;                                                                                 \
        default:                                                                                   \
            dot_stretch(MH_FORMAT_FP8, tokens, m, begin, count, x, next, out);                     \
        }                                                                                          \
    }
FOR_TOKENS(1)
#if ROWS > 1
FOR_TOKENS(2)
#endif

void K(dots)(const struct matrix *m, int64_t begin, int64_t count, const float *const *x,
             int64_t rows, const struct next *next, float (*out)[LONGEST])
{
    for (int64_t i = 0; m->transposed && i < rows; i++)
        K(dots_columns)(m, begin, count, x[i], out[i]);
    if (m->transposed)
        return;
#if ROWS > 1
    if (rows > 2) {
        K(block_rows)(m, begin, count, x, rows, next, out);
        return;
    }
    if (rows == 2) {
        dots_2(m, begin, count, x, next, out);
        return;
    }
#endif
    for (; rows; rows--, x++, out++)
        dots_1(m, begin, count, x, next, out);
}
