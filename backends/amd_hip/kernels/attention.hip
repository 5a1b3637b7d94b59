/*
 * attention.hip: absorbed latent attention over the paged cache, rule 3. attention_h1 .. h8: a
 * workgroup takes T heads of a token, so that a key's row is read once for all of them, and a tile
 * of 512 latent columns. It goes by segments of 256 keys.
 *
 * Scores: eight lanes a key, dot.hiph with the cache row as weights and T queries as inputs.
 * Softmax: a wave a head, a lane a key of a chunk of 64. Values: a work-item has two columns of
 * every head, keys in ascending order.
 *
 * Two forms. Serial: a workgroup walks all segments and merges them in registers. Split: a
 * workgroup a segment; their results go to scratch, and the last of a token and group of heads to
 * arrive merges them from left to right. Both have the same bits. For attention_part a workgroup
 * takes one of the op's segments and leaves it unmerged; attention_merge merges such ones.
 *
 * Launch: grid (1 or segments, tiles * groups of T heads, tokens), block 256; dynamic LDS:
 * QUERY_BYTES.
 */
#include "dot.hiph"

#include "cache.hiph"
#include "rank.hiph"

#include "attention.h"

enum { THREADS = 256, WAVES = THREADS / 64, CHUNKS = SEGMENT / CHUNK };
enum { KEYS_STRIDE = SEGMENT + 8 }; /* eight heads of eight keys are in different banks */

extern LDS __attribute__((aligned(16))) float queries[]; /* T of them, STAGED */

/* What a workgroup knows of the segment at hand. */
template <int T> struct desk {
    i64 rows[SEGMENT];                                        /* bytes of the cache */
    __attribute__((aligned(16))) float keys[T * KEYS_STRIDE]; /* scores, then their exp */
    float factors[T][CHUNKS];                                 /* of each chunk's sums so far */
    float top[T], sum[T];                                     /* so far; split: of the segment */
    float left[T], right[T]; /* merge by: o = o * left + new * right */
    u32 found[WAVES];
};

/* Two columns of T heads. */
template <int T> struct pairs {
    float at[T][2];
};

struct job {
    i64 token, tile, first_head;
    int slot;
    u32 keys; /* position + 1 */
};

DEVICE i64 query_stride(const attention_arguments &a)
{
    return (a.width + 63) / 64 * 64;
}

/* Whether every page from column `first` up to the position's is there. */
template <int T>
DEVICE bool pages_found(const attention_arguments &a, const place &p, i64 first, desk<T> &d)
{
    bool ok = inside_table(a.cache, p);
    i64 last = p.position / a.cache.page_size;
    for (i64 column = first + thread(); ok && column <= last; column += THREADS)
        ok = page_found(a.cache, p.slot, column);
    u64 bad = __builtin_amdgcn_ballot_w64(!ok);
    if (!lane())
        d.found[wave()] = !bad;
    barrier();
    u32 all = 1;
#pragma unroll
    for (int i = 0; i < WAVES; i++)
        all &= d.found[i];
    return all;
}

template <int T> DEVICE void stage_queries(const attention_arguments &a, const job &j)
{
#pragma unroll
    for (int t = 0; t < T; t++) {
        i64 head = j.first_head + t < a.heads ? j.first_head + t : a.heads - 1;
        const float *q = row_of<const float>(a.q, j.token, head);
        for (i64 k = thread(); k < a.width; k += THREADS)
            queries[t * query_stride(a) + place_of<STAGED>(k)] = q[k];
    }
}

/* ---- scores ---- */

template <int DTYPE, int T>
DEVICE void score_keys(const attention_arguments &a, u32 count, desk<T> &d)
{
    const float *q[T];
#pragma unroll
    for (int t = 0; t < T; t++)
        q[t] = queries + t * query_stride(a);
    for (u32 first = wave() * 8; first < count; first += WAVES * 8) {
        u32 key = first + row_of_lane();
        weight_row row = {a.cache.rows.at + d.rows[key < count ? key : count - 1], nullptr};
        floats<T> s =
            dot<DTYPE, T, STAGED, true>(row, q, a.width, (a.flags | ALIGNED_INPUTS) & ~PAIRS);
        float mine = s.at[0]; /* lane t of the eight has head t's */
#pragma unroll
        for (int t = 1; t < T; t++)
            mine = choose(lane_of_row() == (u32)t, s.at[t], mine);
        if (key < count && lane_of_row() < T)
            d.keys[lane_of_row() * KEYS_STRIDE + key] = mine * a.scale;
    }
}

/* ---- softmax ---- */

/* The segment's chunks in turn, for a head. */
template <int T> DEVICE void weigh_keys(u32 head, u32 count, float &top, float &sum, desk<T> &d)
{
    for (u32 c = 0; c * CHUNK < count; c++) {
        float *at = d.keys + head * KEYS_STRIDE + c * CHUNK + lane();
        bool inside = c * CHUNK + lane() < count;
        float score = inside ? *at : -__builtin_inff();
        float most = wave_max(score), factor = 1.0f;
        if (c) {
            most = __builtin_fmaxf(top, most);
            factor = exp_exact(top - most);
        }
        float p = inside ? exp_exact(score - most) : 0.0f;
        if (inside)
            *at = p;
        float all = fold(p);
        sum = c ? __builtin_fmaf(sum, factor, all) : all;
        top = most;
        if (!lane())
            d.factors[head][c] = factor;
    }
}

/* The sums so far and the segment's become one. */
template <int T> DEVICE void merge_state(u32 head, float top, float sum, desk<T> &d)
{
    float most = __builtin_fmaxf(d.top[head], top);
    float left = exp_exact(d.top[head] - most), right = exp_exact(top - most);
    float scaled = sum * right;
    sum = __builtin_fmaf(d.sum[head], left, scaled);
    if (lane())
        return;
    d.left[head] = left;
    d.right[head] = right;
    d.top[head] = most;
    d.sum[head] = sum;
}

template <int T> DEVICE void softmax(u32 count, bool first, desk<T> &d)
{
    for (u32 head = wave(); head < T; head += WAVES) {
        float top = 0, sum = 0;
        weigh_keys<T>(head, count, top, sum, d);
        if (!first) {
            merge_state<T>(head, top, sum, d);
        } else if (!lane()) {
            d.top[head] = top;
            d.sum[head] = sum;
        }
    }
}

/* ---- values ---- */

template <int DTYPE> struct columns;

template <> struct columns<F32> {
    float at[2];
    METHOD void load(const char *row, i64 column, bool pairs, i64 latent)
    {
        const float *from = (const float *)row + column;
        if (pairs) {
            typedef float two __attribute__((ext_vector_type(2)));
            two both = *(const two *)from;
            at[0] = both[0];
            at[1] = both[1];
        } else {
            at[0] = from[0];
            at[1] = column + 1 < latent ? from[1] : 0.0f;
        }
    }
    METHOD float get(int i) const
    {
        return at[i];
    }
};

template <> struct columns<BF16> {
    u32 bits;
    METHOD void load(const char *row, i64 column, bool pairs, i64 latent)
    {
        const u16 *from = (const u16 *)row + column;
        if (pairs)
            bits = *(const u32 *)from;
        else
            bits = from[0] | (column + 1 < latent ? (u32)from[1] << 16 : 0);
    }
    METHOD float get(int i) const
    {
        return bits_to_float(i ? bits & 0xffff0000u : bits << 16);
    }
};

/* COUNT keys from `key` on, all loads before the first use. */
template <int DTYPE, int T, int COUNT>
DEVICE void add_keys(const attention_arguments &a, u32 key, i64 column, const desk<T> &d,
                     pairs<T> &o)
{
    columns<DTYPE> values[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        u64 row = (u64)d.rows[key + i]; /* the same for all lanes */
        u32 low = __builtin_amdgcn_readfirstlane((u32)row);
        u32 high = __builtin_amdgcn_readfirstlane((u32)(row >> 32));
        values[i].load(a.cache.rows.at + ((u64)high << 32 | low), column, a.flags & PAIRS,
                       a.latent);
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        float4 p;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float *from = d.keys + t * KEYS_STRIDE + key + i;
            if (COUNT == 1)
                p[0] = *from;
            else if (i % 4 == 0) /* `key` is a multiple of eight */
                p = *(const float4 *)from;
            o.at[t][0] = __builtin_fmaf(p[i % 4], values[i].get(0), o.at[t][0]);
            o.at[t][1] = __builtin_fmaf(p[i % 4], values[i].get(1), o.at[t][1]);
        }
    }
}

/* A chunk's keys from `key` on. */
template <int DTYPE, int T>
DEVICE void add_chunk(const attention_arguments &a, u32 key, u32 end, i64 column, const desk<T> &d,
                      pairs<T> &o)
{
#pragma unroll 1
    for (; key + 8 <= end; key += 8)
        add_keys<DTYPE, T, 8>(a, key, column, d, o);
#pragma unroll 1
    for (; key < end; key++)
        add_keys<DTYPE, T, 1>(a, key, column, d, o);
}

template <int DTYPE, int T>
DEVICE pairs<T> add_values(const attention_arguments &a, u32 count, i64 column, const desk<T> &d)
{
    pairs<T> o = {};
#pragma unroll 1
    for (u32 c = 0; c * CHUNK < count; c++) {
        if (c) {
#pragma unroll
            for (int t = 0; t < T; t++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    o.at[t][i] = o.at[t][i] * d.factors[t][c];
        }
        u32 end = (c + 1) * CHUNK;
        add_chunk<DTYPE, T>(a, c * CHUNK, end < count ? end : count, column, d, o);
    }
    return o;
}

template <int T> DEVICE void merge_values(const pairs<T> &more, const desk<T> &d, pairs<T> &o)
{
#pragma unroll
    for (int t = 0; t < T; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float scaled = more.at[t][i] * d.right[t];
            o.at[t][i] = __builtin_fmaf(o.at[t][i], d.left[t], scaled);
        }
}

/* A segment, to its end; `first`: nothing is merged with it. */
template <int DTYPE, int T>
DEVICE pairs<T> segment_values(const attention_arguments &a, const job &j, u32 segment, bool first,
                               i64 column, desk<T> &d)
{
    u32 begin = segment * SEGMENT, count = j.keys - begin < SEGMENT ? j.keys - begin : SEGMENT;
    barrier();
    if (thread() < count)
        d.rows[thread()] = cache_offset(a.cache, j.slot, begin + thread());
    barrier();
    score_keys<DTYPE, T>(a, count, d);
    barrier();
    softmax<T>(count, first, d);
    barrier();
    return add_values<DTYPE, T>(a, count, column, d);
}

template <int T>
DEVICE void store_result(const attention_arguments &a, const job &j, i64 column, const desk<T> &d,
                         const pairs<T> &o)
{
#pragma unroll
    for (int t = 0; t < T; t++) {
        float r = rcp(d.sum[t]);
        float *y = row_of<float>(a.y, j.token, j.first_head + t);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float scaled = o.at[t][i] * r;
            if (j.first_head + t < a.heads && column + i < a.latent)
                y[column + i] = scaled + 0.0f;
        }
    }
}

/* ---- segments side by side ---- */

DEVICE float *part_at(const attention_arguments &a, const job &j, int t, u32 segment)
{
    i64 tiles = (a.latent + TILE - 1) / TILE;
    i64 index = (j.token * a.heads + j.first_head + t) * tiles + j.tile;
    return a.parts + (index * a.segments + segment) * PART_FLOATS(a.latent);
}

/* `at` is the column inside the tile. */
template <int T>
DEVICE void store_part(const attention_arguments &a, const job &j, u32 segment, i64 at,
                       const desk<T> &d, const pairs<T> &o)
{
#pragma unroll
    for (int t = 0; t < T; t++) {
        if (j.first_head + t >= a.heads)
            continue;
        float *part = part_at(a, j, t, segment), *state = part + PART_FLOATS(a.latent) - 4;
        if (j.tile * TILE + at < a.latent) {
            part[at] = o.at[t][0];
            part[at + 1] = o.at[t][1]; /* there is room */
        }
        if (!thread()) {
            state[0] = d.top[t];
            state[1] = d.sum[t];
        }
    }
}

/* By what segments `first` .. first + 63 are merged, for a head: left factors in keys[0] .., right
 * ones in keys[64] .. */
template <int T>
DEVICE void part_factors(const attention_arguments &a, const job &j, int t, u32 first, u32 count,
                         desk<T> &d)
{
    bool inside = first + lane() < count;
    const float *state = part_at(a, j, t, inside ? first + lane() : 0) + PART_FLOATS(a.latent) - 4;
    float mine = inside ? state[0] : -__builtin_inff(), upto = mine;
#pragma unroll
    for (u32 distance = 1; distance < 64; distance *= 2) {
        float other = of_lane(upto, lane() - distance);
        upto = lane() >= distance ? __builtin_fmaxf(upto, other) : upto;
    }
    upto = first ? __builtin_fmaxf(upto, d.top[t]) : upto;
    float before = of_lane(upto, lane() - 1);
    before = lane() ? before : d.top[t];
    float left = exp_exact(before - upto), right = exp_exact(mine - upto);
    float scaled = state[1] * right, sum = d.sum[t];
    for (u32 i = 0; i < 64 && first + i < count; i++) {
        float l = of_lane(left, i), s = of_lane(scaled, i);
        sum = first + i ? __builtin_fmaf(sum, l, s) : of_lane(state[1], 0);
    }
    d.keys[t * KEYS_STRIDE + lane()] = left;
    d.keys[t * KEYS_STRIDE + 64 + lane()] = right;
    if (lane() == 63) {
        d.top[t] = upto;
        d.sum[t] = sum;
    }
}

template <int T>
DEVICE pairs<T> merge_parts(const attention_arguments &a, const job &j, u32 count, i64 at,
                            desk<T> &d)
{
    pairs<T> o = {};
    for (u32 first = 0; first < count; first += 64) {
        barrier();
        for (int t = (int)wave(); t < T; t += WAVES)
            if (j.first_head + t < a.heads)
                part_factors<T>(a, j, t, first, count, d);
        barrier();
        if (j.tile * TILE + at >= a.latent)
            continue;
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (j.first_head + t >= a.heads)
                continue;
#pragma unroll 4
            for (u32 s = first; s < first + 64 && s < count; s++) {
                const float *part = part_at(a, j, t, s) + at;
                float left = d.keys[t * KEYS_STRIDE + s - first];
                float right = d.keys[t * KEYS_STRIDE + 64 + s - first];
                float x = part[0] * right, y = part[1] * right;
                o.at[t][0] = s ? __builtin_fmaf(o.at[t][0], left, x) : part[0];
                o.at[t][1] = s ? __builtin_fmaf(o.at[t][1], left, y) : part[1];
            }
        }
    }
    return o;
}

/* ---- segments alone ---- */

/* [o | m | l]; m as op.h has it. */
template <int T>
DEVICE void store_segment(const attention_arguments &a, const job &j, i64 column, const desk<T> &d,
                          const pairs<T> &o)
{
#pragma unroll
    for (int t = 0; t < T; t++) {
        if (j.first_head + t >= a.heads)
            continue;
        float *y = row_of<float>(a.y, j.token, j.first_head + t);
        y = (float *)((char *)y + group_x() * a.y_segment);
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (column + i < a.latent)
                y[column + i] = o.at[t][i];
        if (!column) {
            float l = d.sum[t];
            y[a.latent] = l == l ? d.top[t] + 0.0f : l;
            y[a.latent + 1] = l;
        }
    }
}

/* ---- the kernel ---- */

template <int DTYPE, int T> DEVICE void attention(const attention_arguments &a)
{
    LDS static desk<T> d;
    i64 groups = (a.heads + T - 1) / T;
    job j = {group_z(), group_y() / groups, group_y() % groups * T, 0, 0};
    place p = place_of_row(a.cache, j.token);
    u32 segment = (u32)group_x(), first = 0;
    if (p.slot == -1)
        return;
    if (a.step) {
        segment = a.first + segment * a.step;
        first = segment * SEGMENT;
        if (inside_table(a.cache, p)) {
            if (first > (u32)p.position)
                return;
            if ((u32)p.position > first + SEGMENT - 1)
                p.position = (int)(first + SEGMENT - 1); /* only its keys are looked at */
        }
    } else if (segment && (p.position < 0 || segment > (u32)p.position / SEGMENT)) {
        return;
    }
    if (!pages_found<T>(a, p, first / (u32)a.cache.page_size, d)) {
        raise_fault(a.cache.fault);
        return;
    }
    j.slot = p.slot;
    j.keys = (u32)p.position + 1;
    i64 at = 2 * thread(), column = j.tile * TILE + at;
    i64 from = column < a.latent ? column : 0; /* without columns: the first ones */
    u32 count = (u32)p.position / SEGMENT + 1;
    stage_queries<T>(a, j);
    pairs<T> o = segment_values<DTYPE, T>(a, j, segment, true, from, d);
    if (a.step) {
        store_segment<T>(a, j, column, d, o);
        return;
    }
    if (a.segments == 1) {
        for (segment = 1; segment < count; segment++) {
            pairs<T> more = segment_values<DTYPE, T>(a, j, segment, false, from, d);
            merge_values<T>(more, d, o);
        }
    } else if (count > 1) {
        store_part<T>(a, j, segment, at, d, o);
        i64 tiles = (a.latent + TILE - 1) / TILE;
        if (!last_group(a.counters + j.token * tiles * groups + group_y(), count))
            return;
        o = merge_parts<T>(a, j, count, at, d);
        barrier(); /* the sums are known */
    }
    if (column < a.latent)
        store_result<T>(a, j, column, d, o);
}

#define ATTENTION(heads)                                                                           \
    KERNEL(256) attention_h##heads##_f32(attention_arguments a)                                    \
    {                                                                                              \
        attention<F32, heads>(a);                                                                  \
    }                                                                                              \
    KERNEL(256) attention_h##heads##_bf16(attention_arguments a)                                   \
    {                                                                                              \
        attention<BF16, heads>(a);                                                                 \
    }
ATTENTION(1)
ATTENTION(2)
ATTENTION(4)
ATTENTION(8)

/* Grid (tiles of columns, heads, tokens): a work-item has a column. Segment g of row t is in row g %
 * parts * tokens + t, at g / parts. */
KERNEL(256) attention_merge(attention_merge_arguments a)
{
    i64 t = group_z(), h = group_y(), column = group_x() * 256 + thread();
    int position = *row_of<const int>(a.positions, t);
    u32 count = (u32)position / SEGMENT + 1;
    if (position < 0 || (count - 1) / a.parts >= a.segments) {
        raise_fault(a.fault);
        return;
    }
    if (column >= a.latent)
        return;
    const char *at = (const char *)row_of<const float>(a.x, t, h);
    const float *from = (const float *)at;
    float o = from[column], m = from[a.latent], l = from[a.latent + 1];
    u32 part = 0;
    for (u32 g = 1; g < count; g++) {
        at += a.tokens * a.x.row;
        if (++part == a.parts) {
            part = 0;
            at += a.x_segment - a.parts * a.tokens * a.x.row;
        }
        from = (const float *)at;
        float most = __builtin_fmaxf(m, from[a.latent]);
        float left = exp_exact(m - most), right = exp_exact(from[a.latent] - most);
        float scaled = from[a.latent + 1] * right, other = from[column] * right;
        l = __builtin_fmaf(l, left, scaled);
        o = __builtin_fmaf(o, left, other);
        m = most;
    }
    float scaled = o * rcp(l);
    row_of<float>(a.y, t, h)[column] = scaled + 0.0f;
}
