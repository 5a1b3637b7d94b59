/*
 * attention.cl: absorbed latent attention, decode and chunked prefill. Numerics rule 3: segments of
 * 256 keys, chunks of 64, merged from left to right; later keys are never read. Groups: (heads,
 * tokens). Local memory: 11.5 KiB; hence L at most MOST_LATENT.
 */
#define CHUNK 64
#define SEGMENT 256
#define MOST_LATENT 1024
#define KEYS 8 /* whose dots are folded at a time (gpu) */

typedef struct {
    global const uchar *memory;
    int is_bf16;
} keys_in;

float key_at(keys_in keys, long at)
{
    return keys.is_bf16 ? from_bf16(((global const ushort *)keys.memory)[at])
                        : ((global const float *)keys.memory)[at];
}

/* Softmax so far: maximum and sum; the weighted sum of latents lies in local memory. */
typedef struct {
    float m, l;
} part;

#ifdef FORM_CPU
#define SPACE 1

float16 keys_at(keys_in keys, long at)
{
    return keys.is_bf16
               ? as_float16(convert_uint16(vload16(0, (global const ushort *)keys.memory + at))
                            << 16)
               : vload16(0, (global const float *)keys.memory + at);
}

/* scores[i] = scale * q . key i */
APART void score(global const float *q, keys_in keys, local const long *rows, long count,
                 long width, float scale, local float *scores, local float *space)
{
    for (long i = 0; i < count; i++) {
        float16 a[4] = {0, 0, 0, 0};
        float stripes[STRIPES];
        long k = 0;
        for (; k + STRIPES <= width; k += STRIPES)
#pragma unroll
            for (int j = 0; j < 4; j++)
                a[j] = fma(vload16(j, q + k), keys_at(keys, rows[i] + k + 16 * j), a[j]);
#pragma unroll
        for (int j = 0; j < 4; j++)
            vstore16(a[j], j, stripes);
        for (int j = 0; k < width; j++, k++)
            stripes[j] = fma(q[k], key_at(keys, rows[i] + k), stripes[j]);
        scores[i] = fold_stripes(stripes) * scale;
    }
}

/* p[i] = exp(score - m), +0 for absent keys; their fold. */
APART float weigh(local const float *scores, float m, long count, local float *p,
                  local float *space)
{
    for (int i = 0; i < CHUNK; i++)
        p[i] = i < count ? exp_exact(scores[i] - m) : 0.0f;
    return fold_wide(vload16(0, p), vload16(1, p), vload16(2, p), vload16(3, p));
}

/* o = o * alpha, then the chain of fma over the chunk's keys. */
APART void gather(local float *o, int first, float alpha, local const float *p, keys_in keys,
                  local const long *rows, long count, long latent)
{
    long d = 0;
    for (; d + 64 <= latent; d += 64) {
        float16 a[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            a[j] = first ? (float16)0.0f : vload16(j, o + d) * alpha;
        for (long i = 0; i < count; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                a[j] = fma((float16)p[i], keys_at(keys, rows[i] + d + 16 * j), a[j]);
#pragma unroll
        for (int j = 0; j < 4; j++)
            vstore16(a[j], j, o + d);
    }
    for (; d < latent; d++) {
        float a = first ? 0.0f : o[d] * alpha;
        for (long i = 0; i < count; i++)
            a = fma(p[i], key_at(keys, rows[i] + d), a);
        o[d] = a;
    }
}

#else
#define SPACE (KEYS * STRIPES)

void score(global const float *q, keys_in keys, local const long *rows, long count, long width,
           float scale, local float *scores, local float *space)
{
    for (long begin = 0; begin < count; begin += KEYS) {
        float a[KEYS];
        int many = (int)min(count - begin, (long)KEYS);
#pragma unroll
        for (int i = 0; i < KEYS; i++)
            a[i] = 0;
        for (long k = LANE; k < width; k += STRIPES) {
            float x = q[k];
#pragma unroll
            for (int i = 0; i < KEYS; i++)
                a[i] = fma(x, key_at(keys, rows[begin + min(i, many - 1)] + k), a[i]);
        }
#pragma unroll
        for (int i = 0; i < KEYS; i++)
            space[i * STRIPES + LANE] = a[i];
        SYNC();
        for (int h = STRIPES / 2; h; h /= 2) {
            for (int i = LANE; i < KEYS * h; i += LANES) {
                int at = i / h * STRIPES + i % h;
                space[at] = space[at] + space[at + h];
            }
            SYNC();
        }
        if (LANE < many)
            scores[begin + LANE] = (space[LANE * STRIPES] + 0.0f) * scale;
        SYNC();
    }
}

float weigh(local const float *scores, float m, long count, local float *p, local float *space)
{
    float mine = LANE < count ? exp_exact(scores[LANE] - m) : 0.0f;
    p[LANE] = mine;
    return group_fold(mine, space);
}

void gather(local float *o, int first, float alpha, local const float *p, keys_in keys,
            local const long *rows, long count, long latent)
{
    for (long d = LANE; d < latent; d += LANES) {
        float a = first ? 0.0f : o[d] * alpha;
        for (long i = 0; i < count; i++)
            a = fma(p[i], key_at(keys, rows[i] + d), a);
        o[d] = a;
    }
}
#endif

/* Of two neighbouring parts; a lane's sums are its own. */
APART part merge(part left, part right, local float *o, local const float *more, long latent)
{
    float m = left.m > right.m ? left.m : right.m;
    float alpha = exp_exact(left.m - m), beta = exp_exact(right.m - m), scaled = right.l * beta;
    part both = {m, fma(left.l, alpha, scaled)};
    for (long d = LANE; d < latent; d += LANES) {
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

/* Over keys 0 to count - 1; the weighted sum is left in sums. */
APART part attend(global const float *q, keys_in keys, keys_at_pages at, long count, long width,
                  long latent, float scale, local float *sums, local float *scores, local float *p,
                  local float *space, local long *rows)
{
    part all = {0, 0}, segment = {0, 0};
    for (long begin = 0; begin < count; begin += CHUNK) {
        int first = begin % SEGMENT == 0, later = begin >= SEGMENT;
        long many = min(count - begin, (long)CHUNK);
        local float *o = later ? sums + MOST_LATENT : sums;
        part before = later ? segment : all;
        SYNC();
        for (long i = LANE; i < many; i += LANES) {
            long key = begin + i;
            rows[i] = at.view.s0 + at.pages[key / at.page_size * at.stride] * at.view.s1 +
                      key % at.page_size * at.view.s2;
        }
        SYNC();
        score(q, keys, rows, many, width, scale, scores, space);
        part now = {scores[0], 0};
        for (long i = 1; i < many; i++)
            now.m = scores[i] > now.m ? scores[i] : now.m;
        if (!first)
            now.m = before.m > now.m ? before.m : now.m;
        float alpha = first ? 0.0f : exp_exact(before.m - now.m);
        now.l = weigh(scores, now.m, many, p, space);
        if (!first)
            now.l = fma(before.l, alpha, now.l);
        gather(o, first, alpha, p, keys, rows, many, latent);
        if (later)
            segment = now;
        else
            all = now;
        if (later && (begin + CHUNK >= count || (begin + CHUNK) % SEGMENT == 0))
            all = merge(all, segment, sums, o, latent);
    }
    return all;
}

KERNEL void attention(TENSOR(float, y), TENSOR(const float, q), global const uchar *cache,
                      const long4 cache_view, const int is_bf16, const long pages,
                      const long page_size, TENSOR(const int, table), const long slots,
                      const long slot_pages, TENSOR(const int, positions),
                      TENSOR(const int, owners), global uint *fault, const long fault_at,
                      const long latent, const long width, const float scale)
{
    local float sums[2 * MOST_LATENT], scores[CHUNK], p[CHUNK], space[SPACE];
    local long rows[CHUNK];
    long h = get_group_id(0), t = get_group_id(1);
    int position = *ROW1(positions, t), slot = *ROW1(owners, t);
    keys_in keys = {cache, is_bf16};
    int there = slot >= 0 && slot < slots && position >= 0 && position / page_size < slot_pages;
    for (long i = 0; there && i <= position / page_size; i++) {
        int page = *ROW2(table, slot, i);
        there = page >= 0 && page < pages;
    }
    if (!there && slot != -1)
        raise_fault(fault + fault_at);
    if (!there)
        return;
    keys_at_pages at = {ROW1(table, slot), table_view.s2, page_size, cache_view};
    part all = attend(ROW2(q, t, h), keys, at, (long)position + 1, width, latent, scale, sums,
                      scores, p, space, rows);
    float r = RCP(all.l);
    for (long d = LANE; d < latent; d += LANES) {
        float scaled = sums[d] * r;
        ROW2(y, t, h)[d] = scaled + 0.0f;
    }
}
