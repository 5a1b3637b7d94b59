/*
 * attention.cl: absorbed latent attention, decode and chunked prefill. Numerics rule 3: segments of
 * 256 keys, chunks of 64, merged from left to right; later keys are never read. Groups: (blocks of
 * HEADS heads, tokens); of attention_part also its segments, of which each group has one.
 *
 * gpu: a head a group. A lane has eight neighbouring columns of a key; the weighted sums are in
 * registers, hence L at most MOST_LATENT. Local memory: 10.2 KiB.
 * cpu: four heads, so that a key that is read and decoded meets four queries; the last head stands
 * in for those behind it. What groups share otherwise is private here.
 */
#define CHUNK 64
#define SEGMENT 256
#define MOST_LATENT 1024
#define SUMS (2 * OUTPUTS) /* of a head: the whole, and a segment */

typedef struct {
    global const uchar *memory;
    int is_bf16, kind;
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
#define OUTPUTS MOST_LATENT
#define KIND_OF_KEYS(keys) 0
typedef float outputs; /* weighted sums that are side by side in a work-item */
#define EACH_OUTPUT(d, latent) COLD for (long d = 0; d < latent; d++)

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

APART void take(float *o, global const float *from, long latent)
{
    COLD for (long d = 0; d < latent; d++)
        o[d] = from[d];
}

APART void give(global float *to, const float *o, int scales, float r, long latent)
{
    COLD for (long d = 0; d < latent; d++) {
        float scaled = o[d] * r;
        to[d] = scales ? scaled + 0.0f : o[d];
    }
}

#else
#define HEADS 1
#define ABREAST 4 /* keys of a team */
#define STEPS 3   /* of 64 columns, and DEEP keys whose loads are on their way together */
#define DEEP 8
#define KEYS (ABREAST * TEAMS)
#define SPACE (KEYS * PITCH)
#define SHARED local
#define OUTPUTS (MOST_LATENT / LANES / TEAM)
typedef float8 outputs; /* of columns (i * LANES + LANE) * TEAM and the seven behind */
#define EACH_OUTPUT(i, latent) _Pragma("unroll") for (int i = 0; i < OUTPUTS; i++)

/* How eight numbers of a key are loaded: one by one, or as wide as their bytes say. */
#define ONE_BY_ONE 0
#define FLOATS 4
#define BF16S 2
#define KIND_OF_KEYS(keys) kind_of_keys(keys, keys##_view, is_bf16)

int kind_of_keys(global const uchar *memory, const long4 view, int is_bf16)
{
    long apart = view.s0 | view.s1 | view.s2;
    if ((size_t)memory % 16 || apart % (is_bf16 ? 8 : 4))
        return ONE_BY_ONE;
    return is_bf16 ? BF16S : FLOATS;
}

float8 some_of_key(keys_in keys, long at, long many)
{
    FIRST_OF_8(many, key_at(keys, at + i))
}

/* Eight numbers of a key from `at` on, of which it has `many` more. A `kind` is a constant where
 * these are called. */
__attribute__((always_inline)) uint8 raw_key(const int kind, keys_in keys, long at, long many)
{
    return kind ? load_raw(kind, keys.memory + kind * at) : as_uint8(some_of_key(keys, at, many));
}

__attribute__((always_inline)) float8 key_of_raw(const int kind, uint8 raw)
{
    return kind == BF16S ? bf16_of_raw(raw) : as_float8(raw);
}

/* Adds the terms of STEPS times eight columns from k on, or fewer steps; `all` is a constant too. */
__attribute__((always_inline)) void add_terms(const int kind, const int all, global const float *q,
                                              keys_in keys, const long *rows, long k, long steps,
                                              float8 *a)
{
    uint8 raw[STEPS][ABREAST];
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int i = 0; i < ABREAST; i++)
            raw[s][i] =
                raw_key(kind, keys, rows[i] + (all || s < steps ? k + s * STRIPES : k), TEAM);
    LOADED();
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        long at = all || s < steps ? k + s * STRIPES : k;
        float8 x = load_8(q + at);
#pragma unroll
        for (int i = 0; i < ABREAST; i++) {
            float8 more = fma(x, key_of_raw(kind, raw[s][i]), a[i]);
            a[i] = all || s < steps ? more : a[i];
        }
    }
}

/* Adds the terms of columns from k on as far as wide loads go; where that is. */
__attribute__((always_inline)) long add_columns(const int kind, global const float *q, keys_in keys,
                                                const long *rows, long k, long width, float8 *a)
{
    long steps = (width - k + STRIPES - TEAM) / STRIPES;
    for (; steps >= STEPS; steps -= STEPS, k += STEPS * STRIPES)
        add_terms(kind, 1, q, keys, rows, k, STEPS, a);
    if (steps > 0)
        add_terms(kind, 0, q, keys, rows, k, steps, a), k += steps * STRIPES;
    return k;
}

void score(global const float *const *q, keys_in keys, local const long *rows, long count,
           long width, float scale, local float *scores, local float *space)
{
    int kind = (size_t)q[0] % 16 ? ONE_BY_ONE : keys.kind;
    for (long begin = 0; begin < count; begin += KEYS) {
        float8 a[ABREAST];
        long mine[ABREAST], k = LANE % TEAM * TEAM;
#pragma unroll
        for (int i = 0; i < ABREAST; i++) {
            a[i] = 0;
            mine[i] = rows[min(begin + i * TEAMS + LANE / TEAM, count - 1)];
        }
        if (kind == FLOATS)
            k = add_columns(FLOATS, q[0], keys, mine, k, width, a);
        else if (kind == BF16S)
            k = add_columns(BF16S, q[0], keys, mine, k, width, a);
        for (; k < width; k += STRIPES)
#pragma unroll
            for (int i = 0; i < ABREAST; i++)
                a[i] = fma(load_some(q[0] + k, width - k),
                           some_of_key(keys, mine[i] + k, width - k), a[i]);
#pragma unroll
        for (int i = 0; i < ABREAST; i++)
            put_stripes(space + (i * TEAMS + LANE / TEAM) * PITCH, a[i]);
        fold_teams(space, KEYS);
        if (LANE < KEYS)
            scores[begin + LANE] = (fold_8(space + LANE * PITCH, FOLDED) + 0.0f) * scale;
        SYNC();
    }
}

/* Behind the last key its score lies again, up to a multiple of four. */
float most(local const float *scores, long count)
{
    float4 m = vload4(0, scores);
    for (long i = 1; 4 * i < count; i++) {
        float4 next = vload4(i, scores);
        m = next > m ? next : m;
    }
    float2 n = m.lo > m.hi ? m.lo : m.hi;
    return n.x > n.y ? n.x : n.y;
}

float weigh(local const float *scores, float m, long count, local float *p, local float *space)
{
    float mine = LANE < count ? exp_exact(scores[LANE] - m) : 0.0f;
    p[LANE] = mine;
    return group_fold(mine, space);
}

__attribute__((always_inline)) float8 add_keys(const int kind, float8 a, local const float *p,
                                               keys_in keys, local const long *rows, long count,
                                               long d, long many)
{
    long i = 0;
    for (; kind && i + DEEP <= count; i += DEEP) {
        uint8 raw[DEEP];
#pragma unroll
        for (int j = 0; j < DEEP; j++)
            raw[j] = raw_key(kind, keys, rows[i + j] + d, many);
        LOADED();
#pragma unroll
        for (int j = 0; j < DEEP; j++)
            a = fma((float8)p[i + j], key_of_raw(kind, raw[j]), a);
    }
    for (; i < count; i++)
        a = fma((float8)p[i], key_of_raw(kind, raw_key(kind, keys, rows[i] + d, many)), a);
    return a;
}

void gather(float8 *o, int first, const float *alpha, local const float *p, keys_in keys,
            local const long *rows, long count, long latent)
{
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++) {
        long d = (i * LANES + LANE) * TEAM;
        int kind = d + TEAM <= latent ? keys.kind : ONE_BY_ONE;
        float8 a = first ? (float8)0.0f : o[i] * (float8)alpha[0];
        if (d < latent && kind == FLOATS)
            a = add_keys(FLOATS, a, p, keys, rows, count, d, TEAM);
        else if (d < latent && kind == BF16S)
            a = add_keys(BF16S, a, p, keys, rows, count, d, TEAM);
        else if (d < latent)
            a = add_keys(ONE_BY_ONE, a, p, keys, rows, count, d, latent - d);
        o[i] = a;
    }
}

void take(float8 *o, global const float *from, long latent)
{
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++) {
        long d = (i * LANES + LANE) * TEAM;
        o[i] = d < latent ? load_some(from + d, latent - d) : 0;
    }
}

void give(global float *to, const float8 *o, int scales, float r, long latent)
{
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++) {
        float value[TEAM];
        float8 scaled = o[i] * (float8)r;
        vstore8(scales ? scaled + 0.0f : o[i], 0, value);
        long d = (i * LANES + LANE) * TEAM;
#pragma unroll
        for (int j = 0; j < TEAM; j++)
            if (d + j < latent)
                to[d + j] = value[j];
    }
}
#endif

/* Of two neighbouring parts; a lane's sums are its own. */
APART part merge(part left, part right, outputs *o, const outputs *more, long latent)
{
    float m = left.m > right.m ? left.m : right.m;
    float alpha = exp_exact(left.m - m), beta = exp_exact(right.m - m), scaled = right.l * beta;
    part both = {m, fma(left.l, alpha, scaled)};
    EACH_OUTPUT(i, latent) {
        outputs other = more[i] * (outputs)beta;
        o[i] = fma(o[i], (outputs)alpha, other);
    }
    return both;
}

/* The same of the first one. */
APART part begin_with(part first, outputs *o, const outputs *more, long latent)
{
    EACH_OUTPUT(i, latent)
        o[i] = more[i];
    return first;
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
                  long count, long width, long latent, float scale, part *all, outputs *sums,
                  SHARED float *scores, SHARED float *p, SHARED float *space, SHARED long *rows)
{
    part segment[HEADS];
    for (long begin = from; begin < count; begin += CHUNK) {
        int first = begin % SEGMENT == 0, later = begin >= from + SEGMENT;
        long many = min(count - begin, (long)CHUNK);
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
                m = segment[h].m > m ? segment[h].m : m;
            alpha[h] = first ? 0.0f : exp_exact(segment[h].m - m);
            float l = weigh(scores + h * CHUNK, m, many, p + h * CHUNK, space);
            segment[h].l = first ? l : fma(segment[h].l, alpha[h], l);
            segment[h].m = m;
        }
        gather(sums + OUTPUTS, first, alpha, p, keys, rows, many, latent);
        int ends = begin + CHUNK >= count || (begin + CHUNK) % SEGMENT == 0;
        COLD for (int h = 0; ends && h < HEADS; h++) {
            outputs *o = sums + h * SUMS, *more = o + OUTPUTS;
            if (later)
                all[h] = merge(all[h], segment[h], o, more, latent);
            else
                all[h] = begin_with(segment[h], o, more, latent);
        }
    }
}

KERNEL void attention(TENSOR(float, y), TENSOR(const float, q), global const uchar *cache,
                      const long4 cache_view, const int is_bf16, const long pages,
                      const long page_size, TENSOR(const int, table), const long slots,
                      const long slot_pages, TENSOR(const int, positions),
                      TENSOR(const int, owners), global uint *fault, const long fault_at,
                      const long heads, const long latent, const long width, const float scale,
                      const long step, const long first_segment, const int marks)
{
    outputs sums[HEADS * SUMS];
    SHARED float scores[HEADS * CHUNK], p[HEADS * CHUNK], space[SPACE];
    SHARED long rows[CHUNK];
    long begin = get_group_id(0) * HEADS, t = get_group_id(1);
    int position = *ROW1(positions, t), slot = *ROW1(owners, t);
    keys_in keys = {cache, is_bf16, KIND_OF_KEYS(cache)};
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
    if (!there && marks && get_group_id(2) == 0 && LANE == 0)
        ROW2(y, t, begin)[latent + 1] = 0;
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
        give(to, sums + h * SUMS, 0, 1.0f, latent);
        if (LANE == 0) {
            to[latent] = isnan(all[h].l) ? all[h].l : all[h].m + 0.0f;
            to[latent + 1] = all[h].l;
        }
    }
    COLD for (int h = 0; !step && h < HEADS && begin + h < heads; h++)
        give(ROW2(y, t, begin + h), sums + h * SUMS, 1, RCP(all[h].l), latent);
}

/* Segments that lie in memory as [o | m | l], from left to right: g of row t is in row g % parts *
 * tokens + t, at g / parts. Where rows are marked, one that has no keys has 0 in the first l.
 * Groups: (heads, tokens). */
KERNEL void attention_merge(TENSOR(float, y), TENSOR(const float, x), TENSOR(const int, positions),
                            global uint *fault, const long fault_at, const long tokens,
                            const long latent, const long parts, const long segments,
                            const int marked)
{
    long h = get_group_id(0), t = get_group_id(1);
    int position = *ROW1(positions, t);
    if (marked && ROW2(x, t, h)[latent + 1] == 0)
        return;
    if (position < 0 || position / SEGMENT >= parts * segments) {
        raise_fault(fault + fault_at);
        return;
    }
    outputs o[OUTPUTS], more[OUTPUTS];
    part all;
    COLD for (long g = 0; g <= position / SEGMENT; g++) {
        global const float *from = ROW2(x, g % parts * tokens + t, h) + g / parts * x_view.s3;
        part next = {from[latent], from[latent + 1]};
        take(more, from, latent);
        if (g)
            all = merge(all, next, o, more, latent);
        else
            all = begin_with(next, o, more, latent);
    }
    give(ROW2(y, t, h), o, 1, RCP(all.l), latent);
}
