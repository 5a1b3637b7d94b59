/*
 * sample.cl: argmax and sampling, numerics rule 10. Local memory: 7.3 KiB.
 *
 * First `best` looks for the greatest logit of every stretch of a row, and clears a histogram of
 * the row; for a sampler `sample_weights` makes a stretch's weights and counts them there. Groups of
 * both: stretches, at most 64, and rows. Then `argmax` or `sample` chooses the row's token; groups:
 * rows.
 *
 * Tokens are ordered by weight, descending, the lowest id first among equals, without sorting them.
 * A place in that order is found from histograms of weights' counts and sums: the row's says in
 * which sixteenth of an octave it lies; tokens there are listed, and what is left of their weights
 * is looked through digit by digit. Then so are the ids of those that have the very weight. Sums
 * are integers, so that lanes may add in any order.
 */
#define DIGIT_BITS 9
#define BINS (1 << DIGIT_BITS)
#define SHARE (BINS / LANES)
#define LAST_ID 0x3FFFFu /* of the largest vocabulary that has sums of 48 bits */

/* A row of `head`: the histogram's counts, low and high halves of sums; then bests. */
#define BESTS (3 * BINS)

/* Loads that a lane has under way before it looks at any. */
#define BATCH 16

/* In front of a loop over a row: on a GPU the same. */
#if defined(FORM_CPU) || defined(PREFETCH)
#define MANY_LOADS
#else
#define MANY_LOADS _Pragma("unroll 8")
#endif

#ifdef FORM_CPU
/* The best of logits [begin, end), ranked. Keys as selection_key makes them, 16 at once. */
ulong best_between(global const float *from, long begin, long end)
{
    uint16 top = 0, at = (uint)begin;
    ulong most = 0;
    long i = begin;
    for (; i + WIDE <= end; i += WIDE) {
        float16 value = VECTOR(global const, float, from + i, 0) + 0.0f; /* -0 to +0 */
        uint16 sign = as_uint16(as_int16(value) >> 31) | 0x80000000u;
        uint16 key = (as_uint16(value) ^ sign) & as_uint16(value == value);
        int16 better = key > top;
        top = select(top, key, better);
        at = select(at, (uint16)(uint)i, better);
    }
    uint keys[WIDE], places[WIDE];
    VECTOR(, uint, keys, 0) = top;
    VECTOR(, uint, places, 0) = at;
    COLD for (int lane = 0; lane < WIDE; lane++)
        most = max(most, (ulong)keys[lane] << 32 | ~(places[lane] + (uint)lane));
    COLD for (; i < end; i++)
        most = max(most, ranked(from[i], (int)i));
    return most;
}
#else
ulong best_between(global const float *from, long begin, long end)
{
    ulong most = 0;
    MANY_LOADS for (long i = begin + LANE; i < end; i += LANES)
        most = max(most, ranked(from[i], (int)i));
    return most;
}
#endif

KERNEL void best(TENSOR(uint, head), TENSOR(const float, logits), const long count,
                 const long stretch)
{
    local ulong space[LANES];
    long s = get_group_id(0), t = get_group_id(1), begin = s * stretch;
    global uint *row = ROW1(head, t);
    for (long i = s * LANES + LANE; i < BESTS; i += get_num_groups(0) * LANES)
        row[i] = 0;
    ulong most = best_between(ROW1(logits, t), begin, min(begin + stretch, count));
    most = GROUP_MAX(most, space);
    if (LANE == 0)
        vstore2(as_uint2(most), s, row + BESTS);
}

/* The best of all stretches, for all lanes. */
ulong best_of_row(global const uint *row, long stretches, local ulong *space)
{
    ulong most = 0;
    for (long s = LANE; s < stretches; s += LANES)
        most = max(most, as_ulong(vload2(s, row + BESTS)));
    return GROUP_MAX(most, space);
}

KERNEL void argmax(TENSOR(int, y), TENSOR(const uint, head), const long stretches)
{
    local ulong space[LANES];
    long t = get_group_id(0);
    ulong most = best_of_row(ROW1(head, t), stretches, space);
    if (LANE == 0)
        *ROW1(y, t) = index_of_rank(most);
}

/* ---- histograms ---- */

/* Tokens in a bin, and the sum of their weights in two halves, since 64-bit atomics are an
 * extension. Behind the bins: each lane's share of them, together. */
typedef struct {
    uint count[BINS + LANES], low[BINS + LANES], high[BINS + LANES];
} histogram;

void clear(local histogram *bins)
{
    SYNC();
    for (int i = LANE; i < BINS; i += LANES)
        bins->count[i] = bins->low[i] = bins->high[i] = 0;
    SYNC();
}

void put(local histogram *bins, uint bin, uint weight)
{
#ifdef FORM_CPU
    uint before = bins->low[bin];
    bins->count[bin]++;
    bins->low[bin] = before + weight;
#else
    atomic_inc(&bins->count[bin]);
    uint before = atomic_add(&bins->low[bin], weight);
#endif
    if (before + weight < before)
#ifdef FORM_CPU
        bins->high[bin]++;
#else
        atomic_inc(&bins->high[bin]);
#endif
}

/* How many tokens are above a place, and the sum of their weights. */
typedef struct {
    ulong tokens, sum;
} above;

/* From bin `from` down, the one in which `wanted` tokens (by_count) or a sum of that are reached;
 * `to` if none before it is. */
int walk(local const histogram *bins, int from, int to, int by_count, ulong wanted, above *a)
{
    int bin = from;
    ulong more = bins->count[bin], sum = (ulong)bins->high[bin] << 32 | bins->low[bin];
    while (bin > to && (by_count ? a->tokens + more : a->sum + sum) < wanted) {
        a->tokens += more;
        a->sum += sum;
        bin--;
        more = bins->count[bin];
        sum = (ulong)bins->high[bin] << 32 | bins->low[bin];
    }
    return bin;
}

/* The same of all bins, for all lanes; first for shares, then in one. */
APART int find_bin(local histogram *bins, int by_count, ulong wanted, above *a)
{
    uint count = 0;
    ulong sum = 0;
    SYNC();
    for (int i = LANE * SHARE; i < (LANE + 1) * SHARE; i++) {
        count += bins->count[i];
        sum += (ulong)bins->high[i] << 32 | bins->low[i];
    }
    bins->count[BINS + LANE] = count;
    bins->low[BINS + LANE] = (uint)sum;
    bins->high[BINS + LANE] = (uint)(sum >> 32);
    SYNC();
    int share = walk(bins, BINS + LANES - 1, BINS, by_count, wanted, a) - BINS;
    return walk(bins, share * SHARE + SHARE - 1, share * SHARE, by_count, wanted, a);
}

/* A weight's bin in its row's histogram: its highest bit, and the four below. */
uint bin_of(uint weight)
{
    uint zeros = clz(weight);
    return (31 - zeros) * 16 + (weight << zeros >> 27 & 15);
}

APART void weigh_between(global const float *from, global uint *weight, long begin, long end,
                         float r, float m, local histogram *bins)
{
    MANY_LOADS for (long i = begin + LANE; i < end; i += LANES) {
        float s = from[i] * r;
        float p = exp_exact(s - m) * 0x1p30f;
        weight[i] = p == p ? (uint)p : 0;
    }
    for (long i = begin + LANE; i < end; i += LANES) {
        uint w = weight[i];
        if (w)
            put(bins, bin_of(w), w);
    }
}

KERNEL void sample_weights(TENSOR(uint, head), TENSOR(uint, weights), TENSOR(const float, logits),
                           TENSOR(const uint, params), const long count, const long stretch)
{
    local ulong space[LANES];
    local histogram bins;
    long s = get_group_id(0), t = get_group_id(1), begin = s * stretch;
    global uint *row = ROW1(head, t);
    global const float *from = ROW1(logits, t);
    ulong best = best_of_row(row, get_num_groups(0), space);
    float temperature = as_float(*ROW1(params, t)), r = RCP(temperature);
    long end = temperature > 0 ? min(begin + stretch, count) : begin;
    /* The best token has the greatest product too. Times 0, if the temperature is infinite, it may
     * be NaN where others are 0. */
    float m = r == 0 ? 0 : from[index_of_rank(best)] * r;
    clear(&bins);
    weigh_between(from, ROW1(weights, t), begin, end, r, m, &bins);
    SYNC();
    for (int i = LANE; i < BINS; i += LANES)
        if (bins.count[i]) {
            uint low = bins.low[i], before = atomic_add(&row[BINS + i], low);
            atomic_add(&row[i], bins.count[i]);
            atomic_add(&row[2 * BINS + i], bins.high[i] + (before + low < before));
        }
}

/* ---- places ---- */

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): two words of the block of (counter, 0). */
RARE ulong philox(ulong seed, ulong counter)
{
    uint x0 = (uint)counter, x1 = (uint)(counter >> 32), x2 = 0, x3 = 0;
    uint k0 = (uint)seed, k1 = (uint)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        ulong a = (ulong)0xD2511F53u * x0, b = (ulong)0xCD9E8D57u * x2;
        x0 = (uint)(b >> 32) ^ x1 ^ k0, x1 = (uint)b;
        x2 = (uint)(a >> 32) ^ x3 ^ k1, x3 = (uint)a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return x0 | (ulong)x1 << 32;
}

void enlist(global uint *list, local uint *listed, long id)
{
#ifdef FORM_CPU
    list[(*listed)++] = (uint)id;
#else
    list[atomic_inc(listed)] = (uint)id;
#endif
}

/* Lists the tokens whose weights are `low` or less than `span` above it. */
APART uint collect(global const uint *weights, long count, uint low, uint span, global uint *list,
                   local uint *listed)
{
    SYNC_GLOBAL(); /* the list before is read */
    if (LANE == 0)
        *listed = 0;
    SYNC();
    long i = LANE;
    for (; i + (BATCH - 1) * LANES < count; i += BATCH * LANES) {
        uint w[BATCH], hits = 0;
        _Pragma("unroll") for (int b = 0; b < BATCH; b++)
        {
            w[b] = weights[i + b * LANES] - low;
            hits |= w[b] < span;
        }
        if (hits)
            _Pragma("unroll") for (int b = 0; b < BATCH; b++) if (w[b] < span)
                enlist(list, listed, i + b * LANES);
    }
    for (; i < count; i += LANES)
        if (weights[i] - low < span)
            enlist(list, listed, i);
    SYNC_GLOBAL();
    return *listed;
}

/* Where `wanted` is reached among the tokens of a list, ordered by what their weights have above
 * `low`; with `low` 0 by id, those that have the weight `of`. Digits from `shift` down. */
APART uint find_key(global const uint *weights, global const uint *list, uint listed, uint low,
                    uint of, int shift, int by_count, ulong wanted, above *a,
                    local histogram *bins)
{
    uint prefix = 0;
    for (; shift >= 0; shift -= DIGIT_BITS) {
        clear(bins);
        for (uint i = LANE; i < listed; i += LANES) {
            uint id = list[i], w = weights[id], key = low ? w - low : LAST_ID - id;
            if ((low || w == of) && key >> shift >> DIGIT_BITS == prefix)
                put(bins, key >> shift & (BINS - 1), w);
        }
        prefix = prefix << DIGIT_BITS | (uint)find_bin(bins, by_count, wanted, a);
    }
    return prefix;
}

/* A place in the order: the weight of the token there, its number among those of that weight (from
 * 1), the sum of the weights up to and with it; and how many tokens are listed. */
typedef struct {
    uint weight, listed;
    ulong number, sum;
} place;

APART place find_place(global const uint *row, global const uint *weights, long count,
                       int by_count, ulong wanted, global uint *list, local histogram *bins,
                       local uint *listed)
{
    place p;
    above a = {0, 0};
    SYNC();
    for (int i = LANE; i < BINS; i += LANES) {
        bins->count[i] = row[i];
        bins->low[i] = row[BINS + i];
        bins->high[i] = row[2 * BINS + i];
    }
    int bin = find_bin(bins, by_count, wanted, &a), octave = bin / 16;
    uint low = (uint)((ulong)(16 + bin % 16) << octave >> 4);
    uint span = max(1u << octave >> 4, 1u);
    int shift = span > 1u << 2 * DIGIT_BITS ? 2 * DIGIT_BITS : span > BINS ? DIGIT_BITS : 0;
    p.listed = collect(weights, count, low, span, list, listed);
    p.weight =
        low + find_key(weights, list, p.listed, low, 0, shift, by_count, wanted, &a, bins);
    p.number = by_count ? wanted - a.tokens : (wanted - a.sum + p.weight - 1) / p.weight;
    p.sum = a.sum + p.number * p.weight;
    return p;
}

/* The token; -1 where there is none to be sampled: temperature 0, or nothing but NaN and
 * infinities. */
APART int sample_row(global const uint *row, global const uint *with, global const uint *weights,
                     long count, global uint *list, local ulong *space, local histogram *bins,
                     local uint *listed)
{
    uint top_p = with[1], top_k = with[2];
    ulong seed = with[4] | (ulong)with[5] << 32, counter = with[6] | (ulong)with[7] << 32;
    ulong used = 0, total = 0;
    for (int i = LANE; i < BINS; i += LANES) {
        used += row[i];
        total += (ulong)row[2 * BINS + i] << 32 | row[BINS + i];
    }
    used = GROUP_SUM(used, space);
    total = GROUP_SUM(total, space);
    place chosen = {0, 0, 0, 0};
    int after_k = top_p < 65536 ? 1 : 2, step = top_k && top_k < used ? 0 : after_k;
    step = used ? step : 3;
    while (step < 3) { /* the first k; the shortest prefix of p; the token */
        ulong product = top_p * total, wanted = top_k;
        if (step == 1)
            wanted = max((product >> 16) + ((product & 65535) != 0), (ulong)1);
        else if (step == 2)
            wanted = mul_hi(philox(seed, counter), total) + 1;
        chosen = find_place(row, weights, count, step == 0, wanted, list, bins, listed);
        total = chosen.sum;
        step = step == 0 ? after_k : step + 1;
    }
    above a = {0, 0};
    uint key = find_key(weights, list, chosen.listed, 0, chosen.weight,
                        used ? DIGIT_BITS : -1, 1, chosen.number, &a, bins);
    return used ? (int)(LAST_ID - key) : -1;
}

KERNEL void sample(TENSOR(int, y), TENSOR(const uint, params), TENSOR(const uint, head),
                   TENSOR(const uint, weights), TENSOR(uint, list), const long count,
                   const long stretches)
{
    local ulong space[LANES];
    local histogram bins;
    local uint listed;
    long t = get_group_id(0);
    global const uint *row = ROW1(head, t);
    ulong best = best_of_row(row, stretches, space);
    int token = sample_row(row, ROW1(params, t), ROW1(weights, t), count, ROW1(list, t), space,
                           &bins, &listed);
    if (LANE == 0)
        *ROW1(y, t) = token < 0 ? index_of_rank(best) : token;
}
