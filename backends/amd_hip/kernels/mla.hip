/*
 * mla.hip: what lies around attention. Rules 1, 2, 6 and 7; block 64 everywhere.
 *
 * rope: grid (tokens, pairs of all heads / 64). In place, too: a lane reads what it writes.
 * kv_write, mla_kv: grid (tokens); no LDS. The cache's dtype is an argument.
 *
 * head_columns_t1, t2: head_linear transposed, mla_query and mla_qkv:
 * y[t, h, c] = sum over r of x[t, h, r] * w[row r of head h, c], and behind it the rotated part of
 * x; mla_qkv's cache rows as well. A wave has 64 columns of a head and T tokens. Eight lanes have
 * the eights of columns of a row (16 bytes of bf16 each), and the wave has eight rows at once: lane
 * g of those of a column has the stripes g, g + 8, ..., which it folds by itself, so that the last
 * three steps of rule 2's fold are between lanes. Launch: grid (columns / 64, heads, tokens / T),
 * one more group of columns where there is a rotated part, one more where there are cache rows
 * (head 0's); dynamic LDS: 4 T bytes a row.
 */
#include "dot.hiph"

#include "cache.hiph"

/* ---- rope, cache rows ---- */

KERNEL(64) rope(rope_arguments a)
{
    i64 t = group_x(), half = a.angles.size / 2;
    i64 i = group_y() * 64 + lane(), head = i / half, at = i % half;
    int position = *row_of<const int>(a.positions, t);
    if (position < 0 || position >= a.angles.positions) {
        raise_fault(a.fault);
        return;
    }
    if (head >= a.heads)
        return;
    pair turned = rotated(a.angles, position, row_of<const float>(a.x, t, head), at);
    float *y = row_of<float>(a.y, t, head);
    y[2 * at] = turned.x;
    y[2 * at + 1] = turned.y;
}

KERNEL(64) kv_write(kv_write_arguments a)
{
    i64 t = group_x();
    char *row = row_to_write(a.cache, place_of_row(a.cache, t), true);
    if (!row)
        return;
    const float *latent = row_of<const float>(a.latent, t), *rope = row_of<const float>(a.rope, t);
#pragma unroll 4
    for (i64 i = lane(); i < a.latent_size; i += 64)
        store_cache(a.cache, row, i, latent[i]);
    for (i64 i = lane(); i < a.rope_size; i += 64)
        store_cache(a.cache, row, a.latent_size + i, rope[i]);
}

/* A wave makes row t: latent normed, rope rotated. */
DEVICE void write_row(const mla_kv_arguments &a, i64 t)
{
    place p = place_of_row(a.cache, t);
    char *row = row_to_write(a.cache, p, p.position >= 0 && p.position < a.angles.positions);
    if (!row)
        return;
    const float *kv = row_of<const float>(a.row.kv, t);
    float factor = norm_factor(sum_of_squares(kv, a.row.latent), a.row.inverse, a.row.eps);
#pragma unroll 4
    for (i64 i = lane(); i < a.row.latent; i += 64) {
        float scaled = kv[i] * factor;
        store_cache(a.cache, row, i, scaled * a.row.norm[i]);
    }
    for (i64 i = lane(); i < a.angles.size / 2; i += 64) {
        pair turned = rotated(a.angles, p.position, kv + a.row.latent, i);
        store_cache(a.cache, row, a.row.latent + 2 * i, turned.x);
        store_cache(a.cache, row, a.row.latent + 2 * i + 1, turned.y);
    }
}

KERNEL(64) mla_kv(mla_kv_arguments a)
{
    write_row(a, group_x());
}

/* ---- products with a head's columns ---- */

extern LDS __attribute__((aligned(16))) float staged[]; /* [row][T] */

/* Eight columns of T tokens, as one lane has them. */
template <int T> struct block {
    float at[T][8];
};

struct columns {
    weight w;
    i64 first_row, rows; /* of the head */
    i64 column, columns; /* the lane's first, and all */
    bool whole;          /* eights may be loaded as they are */
};

template <int FORMAT> DEVICE void load_columns(const columns &p, i64 r, float (&out)[8])
{
    weight_row w = row_of(p.w, 0, p.first_row + r);
    if (p.whole) {
        eight<FORMAT> raw;
        raw.load(w, p.column);
        raw.decode(out);
    } else {
        decode_slowly<FORMAT>(w, p.column, p.columns, out);
    }
}

template <int FORMAT, int T> DEVICE void add_row(const columns &p, i64 r, block<T> &sums)
{
    float w[8];
    load_columns<FORMAT>(p, r, w);
#pragma unroll
    for (int t = 0; t < T; t++) {
        float x = staged[r * T + t];
#pragma unroll
        for (int i = 0; i < 8; i++)
            sums.at[t][i] = __builtin_fmaf(x, w[i], sums.at[t][i]);
    }
}

/* Node j of rule 2's fold, 2^LEVEL stripes of its level: a leaf at level 6. TERMS a stripe, or 0
 * for as many as there are rows. */
template <int FORMAT, int T, int LEVEL, int TERMS> struct node {
    static METHOD block<T> sum(const columns &p, i64 j)
    {
        block<T> left = node<FORMAT, T, LEVEL + 1, TERMS>::sum(p, j);
        block<T> right = node<FORMAT, T, LEVEL + 1, TERMS>::sum(p, j + (1 << LEVEL));
#pragma unroll
        for (int t = 0; t < T; t++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                left.at[t][i] = left.at[t][i] + right.at[t][i];
        return left;
    }
};

template <int FORMAT, int T, int TERMS> struct node<FORMAT, T, 6, TERMS> {
    static METHOD block<T> sum(const columns &p, i64 j)
    {
        block<T> sums = {};
        if (TERMS) {
#pragma unroll
            for (int i = 0; i < TERMS; i++)
                add_row<FORMAT, T>(p, j + 64 * i, sums);
        } else {
#pragma unroll 1
            for (i64 r = j; r < p.rows; r += 64)
                add_row<FORMAT, T>(p, r, sums);
        }
        return sums;
    }
};

/* The sum of the lanes' partial folds of eight columns; lane 8 g + c has that of column 8 c + g. In
 * each step a lane gives away the half of its columns that its partner keeps. */
DEVICE float fold_lanes(const float (&a)[8])
{
    u32 l = lane();
    float b[4], c[2];
#pragma unroll
    for (int i = 0; i < 4; i++)
        b[i] = choose(l & 32, a[4 + i], a[i]) + of_lane(choose(l & 32, a[i], a[4 + i]), l ^ 32);
#pragma unroll
    for (int i = 0; i < 2; i++)
        c[i] = choose(l & 16, b[2 + i], b[i]) + of_xor<16>(choose(l & 16, b[i], b[2 + i]));
    float sum = choose(l & 8, c[1], c[0]) + of_xor<8>(choose(l & 8, c[0], c[1]));
    return sum + 0.0f;
}

/* The rotated part of row t, head h. */
DEVICE void rotate_query(const head_columns_arguments &a, i64 t, i64 h)
{
    int position = *row_of<const int>(a.kv.cache.positions, t);
    if (position < 0 || position >= a.kv.angles.positions) {
        raise_fault(a.kv.cache.fault);
        return;
    }
    const float *x = row_of<const float>(a.x, t, h) + a.rows;
    float *y = row_of<float>(a.y, t, h) + a.columns;
    for (i64 i = lane(); i < a.kv.angles.size / 2; i += 64) {
        pair turned = rotated(a.kv.angles, position, x, i);
        y[2 * i] = turned.x;
        y[2 * i + 1] = turned.y;
    }
}

template <int FORMAT, int T> DEVICE void head_columns(const head_columns_arguments &a)
{
    i64 tile = group_x(), tiles = (a.columns + 63) / 64, h = group_y(), first = group_z() * T;
    if (tile >= tiles) {
        for (i64 t = first; t < first + T && t < a.tokens; t++)
            if (tile == tiles)
                rotate_query(a, t, h);
            else if (h == 0)
                write_row(a.kv, t);
        return;
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        const float *x = row_of<const float>(a.x, first + t < a.tokens ? first + t : first, h);
        for (i64 r = lane(); r < a.rows; r += 64)
            staged[r * T + t] = x[r];
    }
    barrier();
    i64 column = tile * 64 + lane() % 8 * 8;
    columns p = {a.w,       h * a.head_rows + a.first_row,   a.rows, column,
                 a.columns, (a.flags & ALIGNED_WEIGHTS) != 0};
    if (p.whole && column >= a.columns) /* a lane without columns looks at the first ones */
        p.column = 0;
    i64 g = lane() / 8;
    block<T> sums;
    if (p.whole && a.rows == 128) /* every DeepSeek model's heads */
        sums = node<FORMAT, T, 3, 2>::sum(p, g);
    else
        sums = node<FORMAT, T, 3, 0>::sum(p, g);
    i64 out = column + g;
#pragma unroll
    for (int t = 0; t < T; t++) {
        float y = fold_lanes(sums.at[t]);
        if (out < a.columns && first + t < a.tokens)
            row_of<float>(a.y, first + t, h)[out] = y;
    }
}

#define HEAD_COLUMNS(name, format)                                                                 \
    KERNEL(64) name(head_columns_arguments a)                                                      \
    {                                                                                              \
        head_columns<format, TOKENS>(a);                                                           \
    }
#define TOKENS 1
FOR_FORMATS(HEAD_COLUMNS, head_columns_t1)
#undef TOKENS
#define TOKENS 2
FOR_FORMATS(HEAD_COLUMNS, head_columns_t2)
