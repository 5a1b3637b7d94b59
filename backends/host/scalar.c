/* scalar.c: products in plain C: the definition. */
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
             int64_t rows, const struct next *next, float (*out)[LONGEST])
{
    (void)next;
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

void K(prepare_inputs)(struct product_job *job, int64_t fewest, int64_t most)
{
    (void)job, (void)fewest, (void)most;
}

void K(multiply_items)(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct product_job *job = context;
    const struct product *p = job->p;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t g = i / job->stretches, o = i % job->stretches * STRETCH;
        int64_t count = p->out - o < STRETCH ? p->out - o : STRETCH;
        for (int which = 0; which < 2 && p->w[which]; which++)
            K(multiply_in_place)(job, which, g, o, count, NULL);
    }
}

int32_t K(argmax_row)(const float *logits, int64_t count)
{
    int32_t found = 0;
    uint32_t most = selection_key(logits[0]);
    for (int64_t i = 1; i < count; i++) {
        uint32_t key = selection_key(logits[i]);
        if (key > most) {
            most = key;
            found = (int32_t)i;
        }
    }
    return found;
}

void K(swiglu_row)(float *y, const float *gate, const float *up, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = swiglu(gate[i], up[i]);
}
