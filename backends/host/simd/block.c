/*
 * block.c: some rows times a matrix, too few for a panel to pay: a weight is decoded once for all
 * of them. Lanes are stripes; one part of them, a vector's, goes through all terms before the next
 * one, so that the inputs of a part stay in the first cache and rows x outputs sums fill the
 * registers. What comes next is fetched into the second cache all along. AVX-512 only: sixteen
 * registers hold too few sums to pay.
 */
#include "fold.h"
#include "in_place.h"

bool K(wants_order)(void)
{
    return LANES == 16;
}

void K(order)(mh_format format, float *to, const float *x, int64_t in)
{
    float last[STRIPES] = {0};
    for (int64_t k = 0; k < in; k += STRIPES) {
        const float *from = x + k;
        vf parts[STEP];
        if (in - k < STRIPES)
            from = memcpy(last, x + k, (size_t)(in - k) * 4);
        place_parts(format, from, parts);
        for (int part = 0; part < STEP; part++)
            v_store(to + k + part * LANES, parts[part]);
    }
}

#ifdef __AVX512F__

#define OUTPUTS 12 /* at a time: what waits for other parts stays in the first cache */
/* Bytes. What was fetched for a block may be gone, since Zen 4 keeps little of what nobody has
 * used: a row is asked for again when it is first read. */
#define AHEAD 2048

struct block {
    struct weight_row row[OUTPUTS];
    int64_t stride;                     /* bytes from row to row */
    const unsigned char *then[OUTPUTS]; /* read after this block */
    const float *x[PANEL_ROWS];
    int64_t in, count;
    float last[OUTPUTS][STRIPES];           /* the last in % 64 weights */
    vf sums[STEP][PANEL_ROWS - 1][OUTPUTS]; /* of parts 0 and 2, and 1 and 3; by fours of each */
};

/* One part of the outputs from o on; rows, outputs and whether it is an odd one are known when
 * compiling. */
static inline __attribute__((always_inline)) void
add_part(mh_format format, int rows, int outputs, struct block *b, int odd, int half, int64_t o)
{
    int64_t whole = b->in / STRIPES;
    int part = 2 * half + odd;
    int64_t stride = b->stride;
    const unsigned char *data =
        b->row[o].data + (by_fours(format) ? 0 : half * 32 * format_bytes(format));
    /* Of the rows that come next a quarter a part, as if they lay one after the other. */
    const int step = outputs * 16 * (int)format_bytes(format), lines = (step + 63) / 64;
    const unsigned char *then = b->then[o] + part * whole * step;
    const float *x[PANEL_ROWS];
    vf a[PANEL_ROWS][6];
    for (int r = 0; r < rows; r++) {
        x[r] = b->x[r] + part * LANES;
        for (int c = 0; c < outputs; c++)
            a[r][c] = v_zero();
    }
    for (int64_t i = 0; i < whole; i++, then += step, data += STRIPES * format_bytes(format)) {
        vf weights[6];
        __asm__("" : "+r"(stride)); /* no pointer for each output: there are too few registers */
#pragma GCC unroll 6
        for (int c = 0; c < outputs; c++)
            weights[c] = v_decode_part(format, data + c * stride, 0, by_fours(format) ? part : odd,
                                       v_scale_at(format, &b->row[o + c], i * STRIPES));
#pragma GCC unroll 6
        for (int c = 0; c < outputs && !odd; c++)
            __builtin_prefetch(data + AHEAD + c * stride, 0, 2);
#pragma GCC unroll 6
        for (int line = 0; line < lines; line++)
            __builtin_prefetch(then + step * line / lines, 0, 2);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vf value = v_load(x[r] + i * STRIPES);
            __asm__("" : "+v"(value)); /* loaded once, not by each fma */
#pragma GCC unroll 6
            for (int c = 0; c < outputs; c++)
                a[r][c] = v_fma(value, weights[c], a[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        vf *sums = b->sums[by_fours(format) ? part : odd][r] + o;
#pragma GCC unroll 6
        for (int c = 0; c < outputs; c++) {
            if (b->in > whole * STRIPES)
                a[r][c] = v_fma(v_load(x[r] + whole * STRIPES),
                                v_load(b->last[o + c] + part * LANES), a[r][c]);
            sums[c] = half && !by_fours(format) ? v_add(sums[c], a[r][c]) : a[r][c];
        }
    }
}

static inline __attribute__((always_inline)) void add_parts(mh_format format, int rows, int outputs,
                                                            struct block *b)
{
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++)
        for (int odd = 0; odd < 2; odd++) {
            int64_t o = 0;
            for (; o + outputs <= b->count; o += outputs)
                add_part(format, rows, outputs, b, odd, half, o);
            for (; o < b->count; o++)
                add_part(format, rows, 1, b, odd, half, o);
        }
}

#define FOR_ROWS(rows, outputs)                                                                    \
    static __attribute__((noinline)) void add_##rows(struct block *b)                              \
    {                                                                                              \
        switch (b->row[0].format) {                                                                \
        case MH_FORMAT_F32:                                                                        \
            add_parts(MH_FORMAT_F32, rows, outputs, b);                                            \
            break;                                                                                 \
        case MH_FORMAT_BF16:                                                                       \
            add_parts(MH_FORMAT_BF16, rows, outputs, b);                                           \
            break;                                                                                 \
        case MH_FORMAT_F16:                                                                        \
            add_parts(MH_FORMAT_F16, rows, outputs, b);                                            \
            break;                                                                                 \
        default:                                                                                   \
            add_parts(MH_FORMAT_FP8, rows, outputs, b);                                            \
        }                                                                                          \
    }
FOR_ROWS(4, 6)
FOR_ROWS(6, 4)
FOR_ROWS(8, 3)
_Static_assert(PANEL_ROWS <= 9, "more rows than there are kernels for");

/* The outputs from `begin` on, of `left` that the stretch has still; then come other rows of it, or
 * `next`'s. */
static void find_outputs(struct block *b, const struct matrix *m, int64_t begin, int64_t left,
                         const struct next *next)
{
    b->count = left < OUTPUTS ? left : OUTPUTS;
    b->stride = m->w->row_stride[0];
    for (int64_t o = 0; o < b->count; o++) {
        int64_t at = m->first + begin + o, after = o + OUTPUTS - left;
        b->row[o] = weight_row(m->w, m->slot, at);
        if (after < 0)
            b->then[o] = b->row[o].data + OUTPUTS * b->stride;
        else if (after < next->count)
            b->then[o] =
                weight_row(next->m.w, next->m.slot, next->m.first + next->begin + after).data;
        else
            b->then[o] = b->row[o].data;
        if (m->in % STRIPES)
            last_weights(m->w->format, &b->row[o], m->in, b->last[o]);
    }
}

/* Kernels take some numbers of rows only: the last one is repeated. */
void K(block_rows)(const struct matrix *m, int64_t begin, int64_t count, const float *const *x,
                   int64_t rows, const struct next *next, float (*out)[LONGEST])
{
    void (*add)(struct block * b) = rows > 6 ? add_8 : rows > 4 ? add_6 : add_4;
    struct block b;
    b.in = m->in;
    for (int64_t r = 0; r < PANEL_ROWS; r++)
        b.x[r] = x[r < rows ? r : rows - 1];
    for (int64_t o = 0; o < count; o += OUTPUTS) {
        find_outputs(&b, m, begin + o, count - o, next);
        add(&b);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < b.count; c += FOLDED) {
                float sums[FOLDED];
                const vf *const parts[] = {b.sums[0][r] + c, b.sums[1][r] + c, b.sums[2][r] + c,
                                           b.sums[3][r] + c};
                fold_parts(m->w->format, parts, sums);
                int64_t n = b.count - c < FOLDED ? b.count - c : FOLDED;
                memcpy(out[r] + o + c, sums, (size_t)n * 4);
            }
        for (int64_t c = 0; m->w->format == MH_FORMAT_FP8 && c < b.count; c++)
            for (int64_t r = 0; r < rows && !block_is_plain(m, m->first + begin + o + c); r++)
                out[r][o + c] = dot_generally(&b.row[c], x[r], m->in);
    }
}

#endif
