/*
 * router.hip: the choice of experts, rule 8. A wave routes a row; it needs ROUTE_BYTES of LDS.
 *
 * router: grid (tokens), block 64; dynamic LDS: ROUTE_BYTES.
 * norm_router_t1 .. t8: y = norm of T rows (norm.hiph), their logits eight experts a wave, and the
 * last workgroup routes them. Launch: grid (experts / (8 waves)), block 64 * waves; dynamic LDS:
 * the larger of NORMED_BYTES and a ROUTE_BYTES a wave.
 */
#include "norm.hiph"

#include "router.h"

#include "rank.hiph"

/* ---- a row ---- */

/* A wave's LDS. */
struct desk {
    u64 *ranks;    /* of what is still to be had; 0: out */
    float *scores; /* what weights are made from */
    u32 *groups;   /* their selection keys */
};

DEVICE desk desk_at(char *lds, i64 count)
{
    return {(u64 *)lds, (float *)(lds + 8 * count), (u32 *)(lds + 12 * count)};
}

DEVICE float value_of_rank(u64 rank)
{
    u32 key = (u32)(rank >> 32);
    if (!key)
        return __builtin_nanf("");
    return bits_to_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

DEVICE void score_softmax(const route &a, const float *logits, float *scores)
{
    float most = -__builtin_inff(), sum = 0;
    for (i64 e = lane(); e < a.count; e += 64)
        most = __builtin_fmaxf(most, logits[e]);
    most = wave_max(most);
    for (i64 e = lane(); e < a.count; e += 64) {
        float p = exp_exact(logits[e] - most);
        scores[e] = p;
        sum = sum + p;
    }
    float r = rcp(fold(sum));
    for (i64 e = lane(); e < a.count; e += 64)
        scores[e] = scores[e] * r;
}

/* A lane looks at the group's ranks: the sum of its two largest, or the largest. A group of one
 * expert has only that one. */
DEVICE float score_of_group(const route &a, const u64 *ranks, i64 size)
{
    u64 first = 0, second = 0;
    for (i64 i = 0; i < size; i++) {
        u64 rank = ranks[i];
        second = larger(second, rank < first ? rank : first);
        first = larger(first, rank);
    }
    float score = value_of_rank(first);
    return a.group_score == GROUPS_TOP2 && second ? score + value_of_rank(second) : score;
}

/* Groups that lose are taken out; of equal ones the first stays. */
DEVICE void drop_groups(const route &a, const desk &d)
{
    i64 size = a.count / a.groups;
    for (i64 g = lane(); g < a.groups; g += 64)
        d.groups[g] = selection_key(score_of_group(a, d.ranks + g * size, size));
    wave_sync();
    for (i64 e = lane(); e < a.count; e += 64) {
        i64 g = e / size, better = 0;
        u32 key = d.groups[g];
        for (i64 o = 0; o < a.groups; o++)
            better += d.groups[o] > key || (d.groups[o] == key && o < g);
        if (better >= a.top_groups)
            d.ranks[e] = 0;
    }
    wave_sync();
}

/* The slots' experts in turn; the sum of their scores. A lane takes out what it looks at, so that
 * no other has to be waited for. */
DEVICE float choose_experts(const route &a, const desk &d, int *experts)
{
    float sum = 0;
    for (i64 j = 0; j < a.slots; j++) {
        u64 best = 0;
        for (i64 e = lane(); e < a.count; e += 64)
            best = larger(best, d.ranks[e]);
        u32 e = index_of_rank(wave_max(best));
        sum = j ? sum + d.scores[e] : d.scores[e];
        if (e % 64 == lane()) {
            d.ranks[e] = 0;
            experts[j] = (int)e;
        }
    }
    return sum;
}

DEVICE void route_row(const route &a, i64 t, const float *logits, char *lds)
{
    desk d = desk_at(lds, a.count);
    if (a.softmax)
        score_softmax(a, logits, d.scores);
    for (i64 e = lane(); e < a.count; e += 64) {
        float score = a.softmax ? d.scores[e] : sigmoid(logits[e]);
        d.scores[e] = score;
        d.ranks[e] = ranked(a.bias ? score + a.bias[e] : score, (u32)e);
    }
    wave_sync();
    if (a.group_score != GROUPS_NONE)
        drop_groups(a, d);
    int *experts = row_of<int>(a.experts, t);
    float *weights = row_of<float>(a.weights, t);
    float sum = choose_experts(a, d, experts);
    float factor = rcp(sum + 1e-20f);
    for (i64 j = 0; j < a.slots; j++) {
        int e = experts[j];
        if (e % 64 != (int)lane()) /* the one that wrote it */
            continue;
        float w = a.normalise ? d.scores[e] * factor : d.scores[e];
        weights[j] = w * a.scaling;
    }
}

extern LDS __attribute__((aligned(16))) char desks[];

KERNEL(64) router(router_arguments a)
{
    route_row(a.route, group_x(), row_of<const float>(a.logits, group_x()), desks);
}

/* ---- norm first ---- */

template <int T> DEVICE void store_normed(const norm_router_arguments &a)
{
    i64 stride = normed_stride(a.normed.columns);
    for (int t = 0; t < T && t < a.normed.tokens; t++)
        for (i64 k = thread(); k < a.normed.columns; k += 64 * a.normed.waves)
            row_of<float>(a.y, t)[k] = normed_rows[t * stride + place_of<STAGED>(k)];
}

template <int FORMAT, int T> DEVICE void norm_router(const norm_router_arguments &a)
{
    stage_normed<T>(a.normed, 0);
    if (!group_x())
        store_normed<T>(a);
    i64 e = (group_x() * a.normed.waves + wave()) * 8 + row_of_lane();
    bool have = e < a.route.count;
    weight_row w = row_of(a.w, 0, have ? e : a.route.count - 1);
    floats<T> logits = normed_dot<FORMAT, T>(a.normed, 0, w, a.flags);
#pragma unroll
    for (int t = 0; t < T; t++)
        if (t < a.normed.tokens && have && !lane_of_row())
            row_of<float>(a.logits, t)[e] = logits.at[t];
    i64 groups = (a.route.count + 8 * a.normed.waves - 1) / (8 * a.normed.waves);
    if (!last_group(a.counter, (u32)groups))
        return;
    for (i64 t = wave(); t < a.normed.tokens; t += a.normed.waves)
        route_row(a.route, t, row_of<const float>(a.logits, t),
                  desks + wave() * ROUTE_BYTES(a.route.count));
}

#define NORM_ROUTER(name, format)                                                                  \
    KERNEL(256) name(norm_router_arguments a)                                                      \
    {                                                                                              \
        norm_router<format, TOKENS>(a);                                                            \
    }
#define TOKENS 1
FOR_FORMATS(NORM_ROUTER, norm_router_t1)
#undef TOKENS
#define TOKENS 2
FOR_FORMATS(NORM_ROUTER, norm_router_t2)
#undef TOKENS
#define TOKENS 4
FOR_FORMATS(NORM_ROUTER, norm_router_t4)
#undef TOKENS
#define TOKENS 8
FOR_FORMATS(NORM_ROUTER, norm_router_t8)
