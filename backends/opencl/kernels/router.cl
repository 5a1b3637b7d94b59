/*
 * router.cl: the choice of experts, numerics rule 8. Groups: rows (tokens). At most MOST_EXPERTS
 * experts. Local memory: 9 KiB. Barriers stand outside every condition: not all drivers get those
 * inside right, even where a group agrees.
 */
#define MOST_EXPERTS 512
#define SIGMOID 1 /* MH_ROUTER_SIGMOID */
#define NO_GROUPS 0
#define TOP2 1

/* The value of a selection key; NaN of 0. */
float value_of_key(uint key)
{
    if (key == 0)
        return as_float(0x7FC00000u);
    return as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

#ifdef FORM_CPU
/* Rule 2's sum with w = 1. */
float sum_all(local const float *v, long count, local float *space)
{
    float a[STRIPES];
    for (int j = 0; j < STRIPES; j++)
        a[j] = 0;
    for (long k = 0; k < count; k++)
        a[k % STRIPES] = fma(v[k], 1.0f, a[k % STRIPES]);
    return fold_wide(vload16(0, a), vload16(1, a), vload16(2, a), vload16(3, a));
}
#else
float sum_all(local const float *v, long count, local float *space)
{
    float a = 0;
    for (long k = LANE; k < count; k += STRIPES)
        a = fma(v[k], 1.0f, a);
    return group_fold(a, space);
}
#endif

/* The sum of a group's two largest keys, or the largest. */
float group_score(local const ulong *ranks, long begin, long end, int top2)
{
    ulong first = 0, second = 0;
    for (long e = begin; e < end; e++) {
        ulong rank = ranks[e];
        second = rank > first ? first : max(second, rank);
        first = max(first, rank);
    }
    float score = value_of_key((uint)(first >> 32));
    return top2 && second ? score + value_of_key((uint)(second >> 32)) : score;
}

KERNEL void router(TENSOR(int, experts), TENSOR(float, weights), TENSOR(const float, logits),
                   TENSOR(const float, bias), const int has_bias, const long count,
                   const long chosen, const int scoring, const int group_rule, const long groups,
                   const long top_groups, const int normalise, const float scaling)
{
    local float scores[MOST_EXPERTS], space[STRIPES];
    local ulong ranks[MOST_EXPERTS], most_space[LANES];
    local uint group_keys[MOST_EXPERTS];
    long t = get_group_id(0);
    global const float *from = ROW1(logits, t);
    int softmax = scoring != SIGMOID, grouped = group_rule != NO_GROUPS;
    ulong most = 0;
    for (long e = LANE; e < count; e += LANES)
        most = max(most, ranked(from[e], 0));
    most = GROUP_MAX(most, most_space);
    float m = value_of_key((uint)(most >> 32));
    for (long e = LANE; e < count; e += LANES)
        scores[e] = softmax ? exp_exact(from[e] - m) : sigmoid(from[e]);
    SYNC();
    float r = RCP(sum_all(scores, count, space));
    for (long e = LANE; e < count; e += LANES) {
        float score = softmax ? scores[e] * r : scores[e];
        scores[e] = score;
        ranks[e] = ranked(has_bias ? score + ROW1(bias, 0)[e] : score, (int)e);
    }
    SYNC();
    long size = grouped ? count / groups : 0, rated = grouped ? groups : 0;
    for (long g = LANE; g < rated; g += LANES)
        group_keys[g] =
            selection_key(group_score(ranks, g * size, (g + 1) * size, group_rule == TOP2));
    SYNC();
    for (long g = LANE; g < rated; g += LANES) {
        uint key = group_keys[g];
        long better = 0;
        for (long o = 0; o < rated; o++)
            better += group_keys[o] > key || (group_keys[o] == key && o < g);
        for (long e = g * size; better >= top_groups && e < (g + 1) * size; e++)
            ranks[e] = 0;
    }
    SYNC();
    float sum = 0;
    for (long j = 0; j < chosen; j++) {
        ulong best = 0;
        for (long e = LANE; e < count; e += LANES)
            best = max(best, ranks[e]);
        best = GROUP_MAX(best, most_space);
        int e = index_of_rank(best);
        sum = j ? sum + scores[e] : scores[e];
        if (e % LANES == LANE) { /* the lane that looks at it */
            ranks[e] = 0;
            ROW1(experts, t)[j] = e;
            ROW1(weights, t)[j] = scores[e];
        }
    }
    SYNC_GLOBAL();
    float factor = normalise ? RCP(sum + 1e-20f) : 1.0f;
    for (long j = LANE; j < chosen; j += LANES) {
        float w = ROW1(weights, t)[j];
        if (normalise)
            w = w * factor;
        ROW1(weights, t)[j] = w * scaling;
    }
}
