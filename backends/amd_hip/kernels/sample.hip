/*
 * sample.hip: argmax and sampling, rules 8 and 10. A workgroup of 1024 a row; launch: grid (rows).
 *
 * The rule's order, descending weight and lowest id, is descending entry = weight << 18 |
 * (2^18 - 1 - id), 49 bits. Every step of the rule asks for the same thing: the largest entry at
 * which a running sum from the top (of ones for top-k, of weights for top-p and for the draw)
 * reaches a goal. It is found digit by digit, from sums a digit in LDS: integers, so that lanes may
 * add in any order. Every lane looks at the same tokens throughout, so that it reads only weights
 * of its own.
 */
#include "common.hiph"

#include "rank.hiph"
#include "sample.h"

enum { THREADS = 1024, WAVES = THREADS / 64, ID_BITS = 18, BINS = 2048 };

/* ---- all lanes of the workgroup ---- */

enum { MAX = 0, SUM = 1 };

template <int WHICH> DEVICE u64 group_all(u64 value)
{
    LDS static u64 of_waves[WAVES];
    value = WHICH == MAX ? wave_max(value) : wave_sum(value);
    barrier();
    if (!lane())
        of_waves[wave()] = value;
    barrier();
    u64 all = of_waves[0];
    for (int i = 1; i < WAVES; i++)
        all = WHICH == MAX ? larger(all, of_waves[i]) : all + of_waves[i];
    return all;
}

DEVICE u32 largest_logit(const float *logits, i64 count)
{
    u64 best = 0;
#pragma unroll 4
    for (i64 i = thread(); i < count; i += THREADS)
        best = larger(best, ranked(logits[i], (u32)i));
    return index_of_rank(group_all<MAX>(best));
}

KERNEL(1024) argmax(argmax_arguments a)
{
    u32 best = largest_logit(row_of<const float>(a.logits, group_x()), a.count);
    if (!thread())
        *row_of<int>(a.y, group_x()) = (int)best;
}

/* ---- weights ---- */

struct weights {
    u32 *at;
    i64 count;
};

/* weight = u32(exp(s - largest) * 2^30), NaN weighs nothing. */
DEVICE void weigh(const weights &w, const float *logits, float temperature)
{
    float r = rcp(temperature), most = -__builtin_inff();
#pragma unroll 4
    for (i64 i = thread(); i < w.count; i += THREADS) {
        float s = logits[i] * r;
        most = __builtin_fmaxf(most, s);
    }
    /* The order of keys is that of floats, where there is no NaN. */
    u32 key = (u32)(group_all<MAX>(ranked(most, 0)) >> 32);
    most = bits_to_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
    for (i64 i = thread(); i < w.count; i += THREADS) {
        float s = logits[i] * r;
        float p = exp_exact(s - most) * 0x1p30f;
        w.at[i] = p == p ? (u32)p : 0;
    }
}

DEVICE u64 entry_of(u32 weight, i64 id)
{
    return (u64)weight << ID_BITS | ((1u << ID_BITS) - 1 - (u32)id);
}

/* The sum of the weights of entries from `floor` on; or how many of them are not zero. */
DEVICE u64 total_of(const weights &w, u64 floor, bool by_weight)
{
    u64 sum = 0;
    for (i64 i = thread(); i < w.count; i += THREADS) {
        u32 weight = w.at[i];
        if (weight && entry_of(weight, i) >= floor)
            sum += by_weight ? weight : 1;
    }
    return group_all<SUM>(sum);
}

/* ---- the search ---- */

struct found {
    u32 bin;
    u64 left; /* of the goal, in that bin */
};

/* Sums of the digit at `shift` among entries whose digits above are those of `prefix`. A lane adds
 * what falls into the same bin in a row by itself. */
DEVICE void sum_digits(const weights &w, u64 prefix, u32 shift, u32 bits, bool by_weight, u64 *bins)
{
    u32 run_bin = 0;
    u64 run = 0;
    for (i64 i = thread(); i < w.count; i += THREADS) {
        u32 weight = w.at[i];
        u64 entry = entry_of(weight, i);
        if (!weight || (entry ^ prefix) >> (shift + bits))
            continue;
        u32 bin = (u32)(entry >> shift) & ((1u << bits) - 1);
        if (bin != run_bin) {
            if (run)
                __hip_atomic_fetch_add(bins + run_bin, run, __ATOMIC_RELAXED,
                                       __HIP_MEMORY_SCOPE_WORKGROUP);
            run_bin = bin;
            run = 0;
        }
        run += by_weight ? weight : 1;
    }
    if (run)
        __hip_atomic_fetch_add(bins + run_bin, run, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
}

/* The bin at which the sum from the top reaches the goal; one wave. A lane has 32 bins, lane 0 the
 * highest. */
DEVICE void search_bins(const u64 *bins, u64 goal, found *result)
{
    const u64 *own = bins + BINS - 32 * (lane() + 1);
    u64 mine = 0;
    for (u32 i = 0; i < 32; i++)
        mine += own[(i + lane()) % 32]; /* without conflicts of banks */
    u64 upto = mine;
#pragma unroll
    for (u32 distance = 1; distance < 64; distance *= 2) {
        u64 other = of_lane(upto, lane() - distance);
        if (lane() >= distance)
            upto += other;
    }
    u64 above = upto - mine;
    if (above >= goal || upto < goal)
        return;
    u32 i = 31;
    for (; i > 0 && above + own[i] < goal; i--)
        above += own[i];
    *result = {BINS - 32 * (lane() + 1) + i, goal - above};
}

/* The largest entry at which the sum of those from the top on reaches the goal, which is at least 1
 * and at most the sum of all. */
DEVICE u64 find(const weights &w, u64 goal, bool by_weight)
{
    LDS static u64 bins[BINS];
    LDS static found here;
    static const u32 shifts[] = {38, 27, 16, 5, 0};
    u64 entry = 0;
#pragma unroll
    for (int digit = 0; digit < 5; digit++) {
        u32 shift = shifts[digit], bits = shift ? 11 : 5;
        barrier();
        for (u32 i = thread(); i < BINS; i += THREADS)
            bins[i] = 0;
        barrier();
        sum_digits(w, entry, shift, bits, by_weight, bins);
        barrier();
        if (!wave())
            search_bins(bins, goal, &here);
        barrier();
        goal = here.left;
        entry |= (u64)here.bin << shift;
    }
    return entry;
}

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): two words of the block of (counter, 0). */
DEVICE u64 philox(u64 seed, u64 counter)
{
    u32 x0 = (u32)counter, x1 = (u32)(counter >> 32), x2 = 0, x3 = 0;
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)0xD2511F53u * x0, b = (u64)0xCD9E8D57u * x2;
        x0 = (u32)(b >> 32) ^ x1 ^ k0;
        x1 = (u32)b;
        x2 = (u32)(a >> 32) ^ x3 ^ k1;
        x3 = (u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return x0 | (u64)x1 << 32;
}

struct params { /* mh_sampling */
    float temperature;
    u32 top_p, top_k, reserved;
    u64 seed, counter;
};

DEVICE u64 high_product(u64 a, u64 b)
{
    return (u64)((unsigned __int128)a * b >> 64);
}

/* A token by the rule's three steps; the weights' sum is not 0. */
DEVICE u32 draw(const weights &w, const params &p, u64 total)
{
    if (p.top_k && p.top_k < total_of(w, 0, false))
        total = total_of(w, find(w, p.top_k, false), true);
    if (p.top_p < 65536) { /* the shortest prefix, one token at least */
        u64 product = p.top_p * total, goal = (product >> 16) + ((product & 65535) != 0);
        total = total_of(w, find(w, goal ? goal : 1, true), true);
    }
    u64 entry = find(w, high_product(philox(p.seed, p.counter), total) + 1, true);
    return (1u << ID_BITS) - 1 - ((u32)entry & ((1u << ID_BITS) - 1));
}

KERNEL(1024) sample(sample_arguments a)
{
    i64 t = group_x();
    const float *logits = row_of<const float>(a.logits, t);
    const params p = *row_of<const params>(a.params, t);
    weights w = {row_of<u32>(a.weights, t), a.count};
    u64 total = 0;
    if (p.temperature > 0) {
        weigh(w, logits, p.temperature);
        total = total_of(w, 0, true);
    }
    /* Else nothing is to be drawn, or there is nothing but NaN and infinities. */
    u32 token = total ? draw(w, p, total) : largest_logit(logits, a.count);
    if (!thread())
        *row_of<int>(a.y, t) = (int)token;
}
