/* dots_scalar.c: few rows times a matrix: the definition. */
#include "decode.h"
#include "product.h"

/* The dots run down the rows: up to 64 columns side by side, each with its 64 stripes. */
static void down_columns(const struct matrix *m, int64_t begin, int64_t count, const float *x,
                         float *out)
{
    float a[STRIPES][STRETCH] = {{0}}, column[STRIPES];
    for (int64_t r = 0; r < m->in; r++) {
        struct weight_row row = weight_row(m->w, m->slot, m->first + r);
        for (int64_t from = begin, to; from < begin + count; from = to) {
            int64_t block = from / STRIPES * STRIPES; /* decode_columns starts at such a border */
            to = block + STRIPES < begin + count ? block + STRIPES : begin + count;
            decode_columns(&row, block, to - block, column);
            for (int64_t c = from; c < to; c++)
                a[r % STRIPES][c - begin] =
                    fmaf(x[r], column[c - block], a[r % STRIPES][c - begin]);
        }
    }
    for (int64_t c = 0; c < count; c++) {
        float stripes[STRIPES];
        for (int s = 0; s < STRIPES; s++)
            stripes[s] = a[s][c];
        out[c] = fold(stripes);
    }
}

void K(dots)(const struct matrix *m, int64_t begin, int64_t count, const float *const *x,
             int64_t rows, float (*out)[STRETCH])
{
    for (int64_t i = 0; i < rows; i++) {
        if (m->transposed) {
            down_columns(m, begin, count, x[i], out[i]);
            continue;
        }
        for (int64_t o = 0; o < count; o++) {
            struct weight_row row = weight_row(m->w, m->slot, m->first + begin + o);
            out[i][o] = dot_weight(&row, x[i], m->in);
        }
    }
}
