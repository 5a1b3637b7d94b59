/*
 * sample.cl: argmax and sampling, numerics rule 10. Groups: rows. Local memory: 4.5 KiB.
 *
 * Tokens are ordered by weight, descending, the lowest id first among equals, without sorting them:
 * a place in that order is found digit by digit, from histograms of weights' counts and sums. Sums
 * are integers, so that lanes may add in any order.
 */
#define DIGIT_BITS 8
#define BINS 256
#define DIGITS 4 /* of a weight, at most 2^30 */

KERNEL void argmax(TENSOR(int, y), TENSOR(const float, logits), const long count)
{
    local ulong space[LANES];
    long t = get_group_id(0);
    ulong most = 0;
    for (long i = LANE; i < count; i += LANES)
        most = max(most, ranked(ROW1(logits, t)[i], (int)i));
    most = GROUP_MAX(most, space);
    if (LANE == 0)
        *ROW1(y, t) = index_of_rank(most);
}

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

/* A histogram: tokens in a bin, and the sum of their weights in two halves, since 64-bit atomics
 * are an extension. */
typedef struct {
    uint count[BINS], low[BINS], high[BINS];
} histogram;

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

/* A place in the order: the weight of the token there, its number among those of that weight (from
 * 1), and the sum of the weights up to and with it. */
typedef struct {
    uint weight, number;
    ulong sum;
} place;

/* Where `wanted` tokens (by_count) or a sum of at least `wanted` is reached; it is. With `digits` 0
 * nothing is looked for. */
APART place find_place(global const uint *weights, long count, int digits, int by_count,
                       ulong wanted, local histogram *bins)
{
    uint prefix = 0;
    ulong tokens = 0, sum = 0; /* of all weights above the prefix */
    for (int digit = digits - 1; digit >= 0; digit--) {
        int shift = digit * DIGIT_BITS;
        SYNC();
        for (int i = LANE; i < BINS; i += LANES)
            bins->count[i] = bins->low[i] = bins->high[i] = 0;
        SYNC();
        for (long i = LANE; i < count; i += LANES) {
            uint w = weights[i];
            if (w && (digit == DIGITS - 1 || w >> (shift + DIGIT_BITS) == prefix))
                put(bins, w >> shift & (BINS - 1), w);
        }
        SYNC();
        int bin = BINS - 1;
        ulong more = bins->count[bin], weight = (ulong)bins->high[bin] << 32 | bins->low[bin];
        while (bin > 0 && (by_count ? tokens + more : sum + weight) < wanted) {
            tokens += more;
            sum += weight;
            bin--;
            more = bins->count[bin];
            weight = (ulong)bins->high[bin] << 32 | bins->low[bin];
        }
        prefix = prefix << DIGIT_BITS | (uint)bin;
    }
    place p = {prefix, 0, 0};
    if (digits)
        p.number = (uint)(by_count ? wanted - tokens : (wanted - sum + prefix - 1) / prefix);
    p.sum = sum + (ulong)p.number * prefix;
    return p;
}

/* The id of a place's token. Each lane looks through a stretch of its own. */
APART int token_at(global const uint *weights, long count, place p, local uint *found)
{
    long stretch = (count + LANES - 1) / LANES, begin = LANE * stretch;
    long end = min(begin + stretch, count);
    uint mine = 0;
    for (long i = begin; i < end; i++)
        mine += weights[i] == p.weight;
    found[LANE] = mine;
    SYNC();
    uint before = 0;
    for (int i = 0; i < LANE; i++)
        before += found[i];
    int token = -1; /* another lane has it */
    if (before < p.number && before + mine >= p.number)
        for (long i = begin; i < end; i++)
            if (weights[i] == p.weight && ++before == p.number)
                token = (int)i;
    return token;
}

/* The token, for the lane that finds it; -1 for the others. */
APART int sample_row(global const float *from, global const uint *with, global uint *weight,
                     long count, local ulong *space, local histogram *bins, local uint *found)
{
    float temperature = as_float(with[0]);
    uint top_p = with[1], top_k = with[2];
    ulong seed = with[4] | (ulong)with[5] << 32, counter = with[6] | (ulong)with[7] << 32;
    ulong best = 0, most = 0, used = 0, total = 0;
    float r = RCP(temperature);
    long weighed = temperature > 0 ? count : 0;
    for (long i = LANE; i < count; i += LANES) {
        float s = from[i] * r;
        best = max(best, ranked(from[i], (int)i));
        most = max(most, ranked(s, 0));
    }
    best = GROUP_MAX(best, space);
    most = GROUP_MAX(most, space);
    uint key = (uint)(most >> 32);
    float m = key == 0 ? -INFINITY : as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
    for (long i = LANE; i < weighed; i += LANES) {
        float s = from[i] * r;
        float p = exp_exact(s - m) * 0x1p30f;
        uint w = p == p ? (uint)p : 0;
        weight[i] = w;
        used += w != 0;
        total += w;
    }
    used = GROUP_SUM(used, space);
    total = GROUP_SUM(total, space);
    SYNC_GLOBAL();
    /* Not to be sampled: temperature 0, or nothing but NaN and infinities. */
    int greedy = !(temperature > 0) || used == 0;
    place chosen = {0, 0, 0};
    for (int step = 0; step < 3; step++) { /* the first k; the shortest prefix of p; the token */
        ulong product = top_p * total, wanted = top_k;
        int needed = top_k && top_k < used;
        if (step == 1) {
            wanted = max((product >> 16) + ((product & 65535) != 0), (ulong)1);
            needed = top_p < 65536;
        } else if (step == 2) {
            wanted = mul_hi(philox(seed, counter), total) + 1;
            needed = 1;
        }
        needed = needed && !greedy;
        chosen = find_place(weight, weighed, needed ? DIGITS : 0, step == 0, wanted, bins);
        total = needed ? chosen.sum : total;
    }
    int token = token_at(weight, weighed, chosen, found);
    if (greedy && LANE == 0)
        token = index_of_rank(best);
    return token;
}

KERNEL void sample(TENSOR(int, y), TENSOR(const float, logits), TENSOR(const uint, params),
                   TENSOR(uint, weights), const long count)
{
    local ulong space[LANES];
    local histogram bins;
    local uint found[LANES];
    long t = get_group_id(0);
    int token =
        sample_row(ROW1(logits, t), ROW1(params, t), ROW1(weights, t), count, space, &bins, found);
    if (token >= 0)
        *ROW1(y, t) = token;
}
