/*
 * linear.hip: linear, linear_add, linear_swiglu, the per-head products of head_linear, norm_linear.
 * Rules 2, 5 and 6. A kernel for each weight format and for 1, 2, 4 and 8 tokens a wave.
 *
 * linear: y[t, o] = [residual +] dot(x[t], w[o]), or swiglu of that and the same with `up`. Launch:
 * grid (rows / 8, tokens / T, heads), block 64: no LDS. norm_linear: grid (rows of both weights /
 * 32), block 256; dynamic LDS: normed_bytes.
 */
#include "linear.h"

#include "norm.hiph"

template <int FORMAT, int T> DEVICE void linear(const linear_arguments &a)
{
    i64 out = group_x() * 8 + row_of_lane(), first = group_y() * T, head = group_z();
    bool have = out < a.rows;
    i64 row = head * a.head_rows + a.first_row + (have ? out : a.rows - 1);
    const float *x[T];
    for (int t = 0; t < T; t++)
        x[t] = row_of<const float>(a.x, first + t < a.tokens ? first + t : a.tokens - 1, head);
    floats<T> y = dot<FORMAT, T>(row_of(a.w, 0, row), x, a.columns, a.flags);
    if (a.up.data) {
        floats<T> up = dot<FORMAT, T>(row_of(a.up, 0, row), x, a.columns, a.flags);
        for (int t = 0; t < T; t++)
            y.at[t] = swiglu_of(y.at[t], up.at[t]);
    }
    if (!have || lane_of_row())
        return;
    for (int t = 0; t < T; t++)
        if (first + t < a.tokens) {
            float value = y.at[t];
            if (a.residual.at)
                value = row_of<const float>(a.residual, first + t)[out] + value;
            row_of<float>(a.y, first + t, head)[out] = value;
        }
}

#define LINEAR(name, format)                                                                       \
    KERNEL(64) name(linear_arguments a)                                                            \
    {                                                                                              \
        linear<format, TOKENS>(a);                                                                 \
    }
#define TOKENS 1
FOR_FORMATS(LINEAR, linear_t1)
#undef TOKENS
#define TOKENS 2
FOR_FORMATS(LINEAR, linear_t2)
#undef TOKENS
#define TOKENS 4
FOR_FORMATS(LINEAR, linear_t4)
#undef TOKENS
#define TOKENS 8
FOR_FORMATS(LINEAR, linear_t8)
#undef TOKENS

/* ---- norm first ---- */

template <int FORMAT, int T> DEVICE void norm_linear(const norm_linear_arguments &a)
{
    i64 all = a.rows + a.rows2;
    stage_normed<T>(a.normed, 0);
    i64 out = (group_x() * a.normed.waves + wave()) * 8 + row_of_lane();
    bool have = out < all, second = have && out >= a.rows;
    i64 row = !have ? 0 : second ? out - a.rows : out;
    weight_row w = second ? row_of(a.w2, 0, row) : row_of(a.w, 0, row);
    floats<T> y = normed_dot<FORMAT, T>(a.normed, 0, w, a.flags);
    if (!have || lane_of_row())
        return;
    for (int t = 0; t < T && t < a.normed.tokens; t++)
        (second ? row_of<float>(a.y2, t) : row_of<float>(a.y, t))[row] = y.at[t];
}

#define NORM_LINEAR(name, format)                                                                  \
    KERNEL(256) name(norm_linear_arguments a)                                                      \
    {                                                                                              \
        norm_linear<format, TOKENS>(a);                                                            \
    }
#define TOKENS 1
FOR_FORMATS(NORM_LINEAR, norm_linear_t1)
#undef TOKENS
#define TOKENS 2
FOR_FORMATS(NORM_LINEAR, norm_linear_t2)
#undef TOKENS
#define TOKENS 4
FOR_FORMATS(NORM_LINEAR, norm_linear_t4)
#undef TOKENS
#define TOKENS 8
FOR_FORMATS(NORM_LINEAR, norm_linear_t8)
