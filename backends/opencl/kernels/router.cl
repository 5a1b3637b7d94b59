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
APART float sum_all(local const float *v, long count, local float *space)
{
    float a[STRIPES];
    COLD for (int j = 0; j < STRIPES; j++)
        a[j] = 0;
    COLD for (long k = 0; k < count; k++)
        a[k % STRIPES] = fma(v[k], 1.0f, a[k % STRIPES]);
    return fold_stripes(a);
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
APART float group_score(local const ulong *ranks, long begin, long end, int top2)
{
    ulong first = 0, second = 0;
    COLD for (long e = begin; e < end; e++) {
        ulong rank = ranks[e];
        second = rank > first ? first : max(second, rank);
        first = max(first, rank);
    }
    float score = value_of_key((uint)(first >> 32));
    return top2 && second ? score + value_of_key((uint)(second >> 32)) : score;
}

/* The largest logit's rank among a lane's. */
APART ulong most_of(global const float *from, long count)
{
    ulong most = 0;
    COLD for (long e = LANE; e < count; e += LANES)
        most = max(most, ranked(from[e], 0));
    return most;
}

APART void rate(local float *scores, global const float *from, float m, int softmax, long count)
{
    for (long e = LANE; e < count; e += LANES)
        scores[e] = softmax ? exp_exact(from[e] - m) : sigmoid(from[e]);
}

/* Softmax's scores times r; and the order of selection, which a bias changes. */
APART void rank(local ulong *ranks, local float *scores, int softmax, float r,
                global const float *bias, int has_bias, long count)
{
    COLD for (long e = LANE; e < count; e += LANES) {
        float score = softmax ? scores[e] * r : scores[e];
        scores[e] = score;
        ranks[e] = ranked(has_bias ? score + bias[e] : score, (int)e);
    }
}

/* Takes the experts of all but the best groups out of the order. */
APART void drop_groups(local ulong *ranks, local const uint *keys, long groups, long top, long size)
{
    COLD for (long g = LANE; g < groups; g += LANES) {
        uint key = keys[g];
        long better = 0;
        COLD for (long o = 0; o < groups; o++)
            better += keys[o] > key || (keys[o] == key && o < g);
        COLD for (long e = g * size; better >= top && e < (g + 1) * size; e++)
            ranks[e] = 0;
    }
}

APART ulong best_of(local const ulong *ranks, long count)
{
    ulong best = 0;
    COLD for (long e = LANE; e < count; e += LANES)
        best = max(best, ranks[e]);
    return best;
}

APART void scale_weights(global float *weights, long chosen, int normalise, float factor,
                         float scaling)
{
    COLD for (long j = LANE; j < chosen; j += LANES) {
        float w = weights[j];
        if (normalise)
            w = w * factor;
        weights[j] = w * scaling;
    }
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
    ulong most = most_of(from, count);
    most = GROUP_MAX(most, most_space);
    float m = value_of_key((uint)(most >> 32));
    rate(scores, from, m, softmax, count);
    SYNC();
    float r = RCP(sum_all(scores, count, space));
    rank(ranks, scores, softmax, r, ROW1(bias, 0), has_bias, count);
    SYNC();
    long size = grouped ? count / groups : 0, rated = grouped ? groups : 0;
    COLD for (long g = LANE; g < rated; g += LANES)
        group_keys[g] =
            selection_key(group_score(ranks, g * size, (g + 1) * size, group_rule == TOP2));
    SYNC();
    drop_groups(ranks, group_keys, rated, top_groups, size);
    SYNC();
    float sum = 0;
    COLD for (long j = 0; j < chosen; j++) {
        ulong best = best_of(ranks, count);
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
    scale_weights(ROW1(weights, t), chosen, normalise, factor, scaling);
}
