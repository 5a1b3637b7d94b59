/*
 * rows.hip: rmsnorm (rule 6), add and swiglu (rule 5), embed (rule 1). Block 256, no LDS to speak
 * of. Launch: rmsnorm grid (rows); pointwise (columns / 256, rows, at most 65535); embed (rows,
 * columns / 512). In place where op.h allows it: a work-item reads what it writes.
 */
#include "rows.h"

#include "dot.hiph"

KERNEL(256) rmsnorm(rmsnorm_arguments a)
{
    i64 t = group_x();
    const float *x = row_of<const float>(a.x, t);
    if (a.residual.at) {
        const float *more = row_of<const float>(a.residual, t);
        float *sum = row_of<float>(a.sum, t);
        for (i64 k = thread(); k < a.columns; k += 256)
            sum[k] = x[k] + more[k];
        x = sum;
        barrier();
    }
    LDS static float factor;
    if (!wave()) {
        float sum = sum_of_squares(x, a.columns);
        if (!lane())
            factor = norm_factor(sum, a.inverse, a.eps);
    }
    barrier();
    float r = factor, *y = row_of<float>(a.y, t);
    for (i64 k = thread(); k < a.columns; k += 256) {
        float scaled = x[k] * r;
        y[k] = scaled * a.w[k];
    }
}

KERNEL(256) pointwise(pointwise_arguments a)
{
    i64 k = group_x() * 256 + thread();
    if (k >= a.columns)
        return;
    for (i64 t = group_y(); t < a.rows; t += 65535) {
        float left = row_of<const float>(a.a, t)[k], right = row_of<const float>(a.b, t)[k];
        row_of<float>(a.y, t)[k] = a.swiglu ? swiglu_of(left, right) : left + right;
    }
}

template <int FORMAT> DEVICE void embed(const embed_arguments &a)
{
    int token = *row_of<const int>(a.tokens, group_x());
    if (token < 0 || token >= a.vocabulary) {
        raise_fault(a.fault);
        return;
    }
    weight_row row = row_of(a.table, 0, token);
    float *y = row_of<float>(a.y, group_x());
    i64 begin = group_y() * 512, end = begin + 512 < a.columns ? begin + 512 : a.columns;
    for (i64 k = begin + thread(); k < end; k += 256)
        y[k] = decode_one<FORMAT>(row, k);
}

#define EMBED(name, format)                                                                        \
    KERNEL(256) name(embed_arguments a)                                                            \
    {                                                                                              \
        embed<format>(a);                                                                          \
    }
FOR_FORMATS(EMBED, embed)
