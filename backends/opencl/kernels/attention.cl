/*
 * attention.cl: absorbed latent attention, decode and chunked prefill. Numerics rule 3: segments of
 * 256 keys, chunks of 64, merged from left to right; later keys are never read. Groups: (blocks of
 * HEADS heads, tokens); of attention_part also its segments, of which each group has one.
 *
 * gpu: a head a group. Local memory: 11.5 KiB; hence L at most MOST_LATENT.
 * cpu: four heads, so that a key that is read and decoded meets four queries; the last head stands
 * in for those behind it. What groups share otherwise is private here.
 */
#define CHUNK 64
#define SEGMENT 256
#define MOST_LATENT 1024
#define SUMS (2 * MOST_LATENT) /* of a head: the whole, and a segment */
#define KEYS 8                 /* whose dots are folded at a time (gpu) */

typedef struct {
    global const uchar *memory;
    int is_bf16;
} keys_in;

float key_at(keys_in keys, long at)
{
    return keys.is_bf16 ? from_bf16(((global const ushort *)keys.memory)[at])
                        : ((global const float *)keys.memory)[at];
}

/* Softmax so far: maximum and sum; the weighted sum of latents lies in `sums`. */
typedef struct {
    float m, l;
} part;

#ifdef FORM_CPU
#define HEADS 4
#define SPACE 1
#define SHARED

float16 keys_at(keys_in keys, long at)
{
    return keys.is_bf16
               ? as_float16(convert_uint16(VECTOR(global const, ushort, keys.memory + 2 * at, 0))
                            << 16)
               : VECTOR(global const, float, keys.memory + 4 * at, 0);
}

/* The columns from `k` on, less than STRIPES, and the fold. */
APART float rest_of_score(global const float *q, keys_in keys, long row, long k, long width,
                          float *stripes)
{
    COLD for (int j = 0; k < width; j++, k++)
        stripes[j] = fma(q[k], key_at(keys, row + k), stripes[j]);
    return fold_stripes(stripes);
}

/* scores[h][i] = scale * q[h] . key i; behind the last key its score again. */
APART void score(global const float *const *q, keys_in keys, const long *rows, long count,
                 long width, float scale, float *scores, float *space)
{
    for (long i = 0; i < count; i++) {
        float16 a[HEADS][4];
        long k = 0;
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                a[h][j] = 0;
        for (; k + STRIPES <= width; k += STRIPES)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float16 key = keys_at(keys, rows[i] + k + 16 * j);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
                    a[h][j] = fma(VECTOR(global const, float, q[h] + k, j), key, a[h][j]);
            }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float stripes[STRIPES];
            float dot;
            if (k == width) {
                dot = fold_wide(a[h][0], a[h][1], a[h][2], a[h][3]);
            } else {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    VECTOR(, float, stripes, j) = a[h][j];
                dot = rest_of_score(q[h], keys, rows[i], k, width, stripes);
            }
            scores[h * CHUNK + i] = dot * scale;
        }
    }
    COLD for (int h = 0; h < HEADS; h++)
        COLD for (long i = count; i < CHUNK; i++)
            scores[h * CHUNK + i] = scores[h * CHUNK + count - 1];
}

/* The largest of a head's scores; any where one is NaN, since all is NaN then. */
float most(const float *scores, long count)
{
    float16 a = VECTOR(const, float, scores, 0), b = VECTOR(const, float, scores, 1);
    float16 c = VECTOR(const, float, scores, 2), d = VECTOR(const, float, scores, 3);
    a = a > c ? a : c, b = b > d ? b : d, a = a > b ? a : b;
    float8 e = a.lo > a.hi ? a.lo : a.hi;
    float4 f = e.lo > e.hi ? e.lo : e.hi;
    float2 g = f.lo > f.hi ? f.lo : f.hi;
    return g.x > g.y ? g.x : g.y;
}

/* p[i] = exp(score - m), +0 for absent keys; their fold. */
APART float weigh(const float *scores, float m, long count, float *p, float *space)
{
    for (int i = 0; i < CHUNK; i++)
        p[i] = exp_exact(scores[i] - m);
    COLD for (int i = (int)count; i < CHUNK; i++)
        p[i] = 0;
    return fold_stripes(p);
}

/* o[h] = o[h] * alpha[h], then the chain of fma over the chunk's keys. */
APART void gather(float *o, int first, const float *alpha, const float *p, keys_in keys,
                  const long *rows, long count, long latent)
{
    long d = 0;
    for (; d + 64 <= latent; d += 64) {
        float16 a[HEADS][4];
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                a[h][j] = first ? (float16)0.0f
                                : VECTOR(, float, o + h * SUMS + d, j) * (float16)alpha[h];
        for (long i = 0; i < count; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float16 key = keys_at(keys, rows[i] + d + 16 * j);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
                    a[h][j] = fma((float16)p[h * CHUNK + i], key, a[h][j]);
            }
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                VECTOR(, float, o + h * SUMS + d, j) = a[h][j];
    }
    COLD for (; d < latent; d++)
        COLD for (int h = 0; h < HEADS; h++) {
            float a = first ? 0.0f : o[h * SUMS + d] * alpha[h];
            COLD for (long i = 0; i < count; i++)
                a = fma(p[h * CHUNK + i], key_at(keys, rows[i] + d), a);
            o[h * SUMS + d] = a;
        }
}

#else
#define HEADS 1
#define SPACE (KEYS * PITCH)
#define SHARED local

void score(global const float *const *q, keys_in keys, local const long *rows, long count,
           long width, float scale, local float *scores, local float *space)
{
    for (long begin = 0; begin < count; begin += KEYS) {
        float a[KEYS];
        int many = (int)min(count - begin, (long)KEYS);
#pragma unroll
        for (int i = 0; i < KEYS; i++)
            a[i] = 0;
        for (long k = LANE; k < width; k += STRIPES) {
            float x = q[0][k];
#pragma unroll
            for (int i = 0; i < KEYS; i++)
                a[i] = fma(x, key_at(keys, rows[begin + min(i, many - 1)] + k), a[i]);
        }
#pragma unroll
        for (int i = 0; i < KEYS; i++)
            space[i * PITCH + LANE] = a[i];
        fold_upper(space, KEYS);
        if (LANE < many)
            scores[begin + LANE] = (fold_8(space + LANE * PITCH, 1) + 0.0f) * scale;
        SYNC();
    }
}

float most(local const float *scores, long count)
{
    float m = scores[0];
    for (long i = 1; i < count; i++)
        m = scores[i] > m ? scores[i] : m;
    return m;
}

float weigh(local const float *scores, float m, long count, local float *p, local float *space)
{
    float mine = LANE < count ? exp_exact(scores[LANE] - m) : 0.0f;
    p[LANE] = mine;
    return group_fold(mine, space);
}

void gather(local float *o, int first, const float *alpha, local const float *p, keys_in keys,
            local const long *rows, long count, long latent)
{
    for (long d = LANE; d < latent; d += LANES) {
        float a = first ? 0.0f : o[d] * alpha[0];
        for (long i = 0; i < count; i++)
            a = fma(p[i], key_at(keys, rows[i] + d), a);
        o[d] = a;
    }
}
#endif

/* Of two neighbouring parts; a lane's sums are its own. */
APART part merge(part left, part right, SHARED float *o, SHARED const float *more, long latent)
{
    float m = left.m > right.m ? left.m : right.m;
    float alpha = exp_exact(left.m - m), beta = exp_exact(right.m - m), scaled = right.l * beta;
    part both = {m, fma(left.l, alpha, scaled)};
    COLD for (long d = LANE; d < latent; d += LANES) {
        float other = more[d] * beta;
        o[d] = fma(o[d], alpha, other);
    }
    return both;
}

/* Where the keys of a sequence lie. */
typedef struct {
    global const int *pages; /* a slot's row of the table */
    long stride, page_size;
    long4 view; /* of the cache */
} keys_at_pages;

/* Over keys `from`, where a segment begins, to count - 1; the weighted sums are left in sums, the sums
 * of weights in `all`. */
APART void attend(global const float *const *q, keys_in keys, keys_at_pages at, long from,
                  long count, long width, long latent, float scale, part *all, SHARED float *sums,
                  SHARED float *scores, SHARED float *p, SHARED float *space, SHARED long *rows)
{
    part segment[HEADS];
    for (long begin = from; begin < count; begin += CHUNK) {
        int first = begin % SEGMENT == 0, later = begin >= from + SEGMENT;
        long many = min(count - begin, (long)CHUNK);
        SHARED float *o = later ? sums + MOST_LATENT : sums;
        part *now = later ? segment : all;
        float alpha[HEADS];
        SYNC();
        COLD for (long i = LANE; i < many; i += LANES) {
            long key = begin + i;
            rows[i] = at.view.s0 + at.pages[key / at.page_size * at.stride] * at.view.s1 +
                      key % at.page_size * at.view.s2;
        }
        SYNC();
        score(q, keys, rows, many, width, scale, scores, space);
        COLD for (int h = 0; h < HEADS; h++) {
            float m = most(scores + h * CHUNK, many);
            if (!first)
                m = now[h].m > m ? now[h].m : m;
            alpha[h] = first ? 0.0f : exp_exact(now[h].m - m);
            float l = weigh(scores + h * CHUNK, m, many, p + h * CHUNK, space);
            now[h].l = first ? l : fma(now[h].l, alpha[h], l);
            now[h].m = m;
        }
        gather(o, first, alpha, p, keys, rows, many, latent);
        if (later && (begin + CHUNK >= count || (begin + CHUNK) % SEGMENT == 0))
            COLD for (int h = 0; h < HEADS; h++)
                all[h] = merge(all[h], segment[h], sums + h * SUMS, o + h * SUMS, latent);
    }
}

KERNEL void attention(TENSOR(float, y), TENSOR(const float, q), global const uchar *cache,
                      const long4 cache_view, const int is_bf16, const long pages,
                      const long page_size, TENSOR(const int, table), const long slots,
                      const long slot_pages, TENSOR(const int, positions),
                      TENSOR(const int, owners), global uint *fault, const long fault_at,
                      const long heads, const long latent, const long width, const float scale,
                      const long step, const long first_segment)
{
    SHARED float sums[HEADS * SUMS], scores[HEADS * CHUNK], p[HEADS * CHUNK], space[SPACE];
    SHARED long rows[CHUNK];
    long begin = get_group_id(0) * HEADS, t = get_group_id(1);
    int position = *ROW1(positions, t), slot = *ROW1(owners, t);
    keys_in keys = {cache, is_bf16};
    int there = slot >= 0 && slot < slots && position >= 0 && position / page_size < slot_pages;
    /* Of attention_part: keys of one segment alone. */
    long from = step ? (first_segment + (long)get_group_id(2) * step) * SEGMENT : 0;
    long count = step ? min((long)position + 1, from + SEGMENT) : (long)position + 1;
    if (there && from >= count)
        return;
    COLD for (long i = from / page_size; there && i <= (count - 1) / page_size; i++) {
        int page = *ROW2(table, slot, i);
        there = page >= 0 && page < pages;
    }
    if (!there && slot != -1)
        raise_fault(fault + fault_at);
    if (!there)
        return;
    keys_at_pages at = {ROW1(table, slot), table_view.s2, page_size, cache_view};
    global const float *queries[HEADS];
    part all[HEADS];
    COLD for (int h = 0; h < HEADS; h++)
        queries[h] = ROW2(q, t, min(begin + h, heads - 1));
    attend(queries, keys, at, from, count, width, latent, scale, all, sums, scores, p, space,
           rows);
    COLD for (int h = 0; step && h < HEADS && begin + h < heads; h++) {
        global float *to = ROW2(y, t, begin + h) + get_group_id(2) * y_view.s3;
        COLD for (long d = LANE; d < latent; d += LANES)
            to[d] = sums[h * SUMS + d];
        if (LANE == 0) {
            to[latent] = isnan(all[h].l) ? all[h].l : all[h].m + 0.0f;
            to[latent + 1] = all[h].l;
        }
    }
    COLD for (int h = 0; !step && h < HEADS && begin + h < heads; h++) {
        float r = RCP(all[h].l);
        COLD for (long d = LANE; d < latent; d += LANES) {
            float scaled = sums[h * SUMS + d] * r;
            ROW2(y, t, begin + h)[d] = scaled + 0.0f;
        }
    }
}

/* Segments that lie in memory as [o | m | l], from left to right: g of row t is in row g % parts *
 * tokens + t, at g / parts. Groups: (heads, tokens). */
KERNEL void attention_merge(TENSOR(float, y), TENSOR(const float, x), TENSOR(const int, positions),
                            global uint *fault, const long fault_at, const long tokens,
                            const long latent, const long parts, const long segments)
{
    long h = get_group_id(0), t = get_group_id(1);
    int position = *ROW1(positions, t);
    if (position < 0 || position / SEGMENT >= parts * segments) {
        raise_fault(fault + fault_at);
        return;
    }
    global float *to = ROW2(y, t, h);
    global const float *from = ROW2(x, t, h);
    float m = from[latent], l = from[latent + 1];
    COLD for (long d = LANE; d < latent; d += LANES)
        to[d] = from[d];
    COLD for (long g = 1; g <= position / SEGMENT; g++) {
        from = ROW2(x, g % parts * tokens + t, h) + g / parts * x_view.s3;
        float most = m > from[latent] ? m : from[latent];
        float alpha = exp_exact(m - most), beta = exp_exact(from[latent] - most);
        float scaled = from[latent + 1] * beta;
        l = fma(l, alpha, scaled);
        m = most;
        COLD for (long d = LANE; d < latent; d += LANES) {
            float other = from[d] * beta;
            to[d] = fma(to[d], alpha, other);
        }
    }
    float r = RCP(l);
    COLD for (long d = LANE; d < latent; d += LANES) {
        float scaled = to[d] * r;
        to[d] = scaled + 0.0f;
    }
}
