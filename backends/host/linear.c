/*
 * linear.c: linear, linear_add, linear_swiglu, head_linear, embed. Numerics rules 1 and 2. A row of
 * weights is decoded once for four tokens.
 */
#include "decode.h"
#include "kernels.h"

#define TOKENS 4

/* dots[i] = row . x[i] for `tokens` <= 4 inputs. */
static void dot_tokens(const struct weight_row *row, const float *const x[TOKENS], int64_t tokens,
                       int64_t count, float dots[TOKENS])
{
    if (tokens == 1) {
        dots[0] = dot_weight(row, x[0], count);
        return;
    }
    float a[TOKENS][STRIPES] = {{0}}, w[STRIPES];
    for (int64_t k = 0; k < count; k += STRIPES) {
        int64_t n = count - k < STRIPES ? count - k : STRIPES;
        decode_columns(row, k, n, w);
        for (int64_t i = 0; i < tokens; i++)
            accumulate(a[i], x[i] + k, w, n);
    }
    for (int64_t i = 0; i < tokens; i++)
        dots[i] = fold(a[i]);
}

struct linear {
    const mh_tensor *y, *x, *residual; /* residual NULL: none */
    const mh_weight_view *w, *up;      /* up NULL: a plain product */
};

static void linear_row(const struct linear *l, int64_t o, int64_t t, int64_t tokens)
{
    const float *x[TOKENS];
    float dots[TOKENS], ups[TOKENS];
    for (int64_t i = 0; i < tokens; i++)
        x[i] = row1(l->x, t + i);
    struct weight_row row = weight_row(l->w, 0, o);
    dot_tokens(&row, x, tokens, l->w->in, dots);
    if (l->up) {
        row = weight_row(l->up, 0, o);
        dot_tokens(&row, x, tokens, l->w->in, ups);
    }
    for (int64_t i = 0; i < tokens; i++) {
        float value = l->up         ? swiglu(dots[i], ups[i])
                      : l->residual ? row1(l->residual, t + i)[o] + dots[i]
                                    : dots[i];
        row1(l->y, t + i)[o] = value;
    }
}

static void linear_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const struct linear *l = context;
    int64_t rows = l->y->shape[0];
    (void)thread;
    for (int64_t o = begin; o < end; o++)
        for (int64_t t = 0; t < rows; t += TOKENS)
            linear_row(l, o, t, rows - t < TOKENS ? rows - t : TOKENS);
}

static void run_linear(const struct host_run *run, const struct linear *l)
{
    spread(run, l->w->out, l->w->in * l->y->shape[0] * (l->up ? 2 : 1), linear_rows, l);
}

void K(linear)(const struct host_run *run, const mh_op *op)
{
    const mh_op_linear *o = (const void *)op;
    run_linear(run, &(struct linear){&o->y, &o->x, NULL, mh_view_weight(o->w), NULL});
}

void K(linear_add)(const struct host_run *run, const mh_op *op)
{
    const mh_op_linear_add *o = (const void *)op;
    run_linear(run, &(struct linear){&o->y, &o->x, &o->residual, mh_view_weight(o->w), NULL});
}

void K(linear_swiglu)(const struct host_run *run, const mh_op *op)
{
    const mh_op_linear_swiglu *o = (const void *)op;
    run_linear(
        run, &(struct linear){&o->y, &o->x, NULL, mh_view_weight(o->gate), mh_view_weight(o->up)});
}

/* ---- per-head projections ---- */

static void head_rows(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_head_linear *o = context;
    const mh_weight_view *w = mh_view_weight(o->w);
    int64_t heads = o->y.shape[1];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / heads, h = i % heads;
        const float *x = row2(&o->x, t, h);
        float *y = row2(&o->y, t, h);
        for (int64_t r = 0; r < o->row_count; r++) {
            struct weight_row row = weight_row(w, 0, h * o->head_rows + o->row_begin + r);
            y[r] = dot_weight(&row, x, w->in);
        }
    }
}

/* The dot runs down the rows: 64 columns side by side, each with its 64 stripes. */
void K(project_transposed)(const mh_weight_view *w, int64_t first_row, int64_t rows, const float *x,
                           float *y)
{
    for (int64_t c = 0; c < w->in; c += STRIPES) {
        int64_t n = w->in - c < STRIPES ? w->in - c : STRIPES;
        float a[STRIPES][STRIPES] = {{0}}, column[STRIPES] = {0};
        for (int64_t r = 0; r < rows; r++) {
            struct weight_row row = weight_row(w, 0, first_row + r);
            decode_columns(&row, c, n, column);
            for (int64_t j = 0; j < STRIPES; j++)
                a[r % STRIPES][j] = fmaf(x[r], column[j], a[r % STRIPES][j]);
        }
        /* Rule 2's fold of every column at once. */
        for (int h = STRIPES / 2; h; h /= 2)
            for (int s = 0; s < h; s++)
                for (int64_t j = 0; j < STRIPES; j++)
                    a[s][j] = a[s][j] + a[s + h][j];
        for (int64_t j = 0; j < n; j++)
            y[c + j] = a[0][j] + 0.0f;
    }
}

static void head_columns(void *context, int64_t begin, int64_t end, uint32_t thread)
{
    const mh_op_head_linear *o = context;
    int64_t heads = o->y.shape[1];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / heads, h = i % heads;
        K(project_transposed)
        (mh_view_weight(o->w), h * o->head_rows + o->row_begin, o->row_count, row2(&o->x, t, h),
         row2(&o->y, t, h));
    }
}

void K(head_linear)(const struct host_run *run, const mh_op *op)
{
    const mh_op_head_linear *o = (const void *)op;
    int64_t cost = mh_view_weight(o->w)->in * o->row_count;
    spread(run, o->y.shape[0] * o->y.shape[1], cost, o->transposed ? head_columns : head_rows, o);
}

/* ---- embedding ---- */

void K(embed)(const struct host_run *run, const mh_op *op)
{
    const mh_op_embed *o = (const void *)op;
    const mh_weight_view *table = mh_view_weight(o->table);
    (void)run;
    for (int64_t t = 0; t < o->y.shape[0]; t++) {
        int32_t token = index_at(&o->tokens, t);
        if (token < 0 || token >= table->out) {
            raise_fault(&o->fault);
            continue;
        }
        struct weight_row row = weight_row(table, 0, token);
        float *y = row1(&o->y, t);
        for (int64_t k = 0; k < table->in; k += STRIPES)
            decode_columns(&row, k, table->in - k < STRIPES ? table->in - k : STRIPES, y + k);
    }
}
