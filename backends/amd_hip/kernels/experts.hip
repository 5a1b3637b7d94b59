/*
 * experts.hip: experts_gate_up, experts_down, their forms with shared experts, down and combine,
 * combine. Driven by the routing on the device. Rules 2, 5 and 9.
 *
 * A pair is a (token, slot). experts_t1 .. t8: a wave of pair p takes up to T pairs of the same
 * expert, itself the first, so that weights are read once for T tokens; waves of pairs that another
 * one took leave at once. Waves behind those of the pairs take T tokens of the shared experts.
 * Launch: grid (pairs + tokens / T, rows / 8), block 64: no LDS to speak of.
 *
 * down_combine: y[t] = h[t] + (shared[t] + sum over slots of weight * (down row . x[t, slot]));
 * shared[t] is given, or a row of the shared experts' weights . shared_x[t]. A row with an expert
 * that is not here is left untouched with a fault. A wave a term, the shared experts' or a slot's,
 * of eight rows; a work-item a row then adds the terms in the rule's order. Launch: grid (tokens,
 * rows / 8), block 64 * waves; dynamic LDS: eight floats a term.
 */
#include "dot.hiph"

#include "choice.hiph"

/* ---- grouped products ---- */

struct product {
    weight w, up;
    i64 expert, rows;
};

/* Eight rows of T inputs, to T outputs. */
template <int FORMAT, int T>
DEVICE void product_rows(const experts_arguments &a, const product &p, int count,
                         const float *const (&x)[T], float *const (&y)[T])
{
    i64 out = group_y() * 8 + row_of_lane();
    bool have = out < p.rows;
    i64 row = have ? out : p.rows - 1;
    floats<T> results = dot<FORMAT, T>(row_of(p.w, p.expert, row), x, a.columns, a.flags);
    if (p.up.data) {
        floats<T> up = dot<FORMAT, T>(row_of(p.up, p.expert, row), x, a.columns, a.flags);
#pragma unroll
        for (int t = 0; t < T; t++)
            results.at[t] = swiglu_of(results.at[t], up.at[t]);
    }
#pragma unroll
    for (int t = 0; t < T; t++)
        if (t < count && have && !lane_of_row())
            y[t][out] = results.at[t];
}

/* Pairs of the expert of `pair`, from that on: T at most go to taken[], `pair` in the places left.
 * Returns how many, 0 if another pair takes this one: every T-th of an expert's pairs takes. */
template <int T> DEVICE int take_pairs(const experts_arguments &a, i64 pair, int e, i64 (&taken)[T])
{
    i64 pairs = a.tokens * a.slots;
    int before = 0, count = 1;
#pragma unroll
    for (int t = 0; t < T; t++)
        taken[t] = pair;
    if (T == 1)
        return 1;
    for (i64 begin = 0; begin < pairs && count < T; begin += 64) {
        i64 other = begin + lane();
        bool same = other < pairs && expert_of(a.choice, other / a.slots, other % a.slots) == e;
        u64 earlier = __builtin_amdgcn_ballot_w64(same && other < pair);
        u64 later = __builtin_amdgcn_ballot_w64(same && other > pair);
        before += __builtin_popcountll(earlier);
        if (begin + 63 >= pair && before % T)
            return 0;
        while (later && count < T) {
            i64 found = begin + __builtin_ctzll(later);
            later &= later - 1;
#pragma unroll
            for (int t = 1; t < T; t++)
                taken[t] = t == count ? found : taken[t];
            count++;
        }
    }
    return count;
}

template <int FORMAT, int T> DEVICE void shared_product(const experts_arguments &a, i64 tile)
{
    const float *x[T];
    float *y[T];
    i64 left = a.tokens - tile * T;
    if (group_y() * 8 >= a.shared_rows)
        return;
#pragma unroll
    for (int t = 0; t < T; t++) {
        i64 token = tile * T + (t < left ? t : 0);
        x[t] = row_of<const float>(a.x, token);
        y[t] = row_of<float>(a.shared_y, token);
    }
    product_rows<FORMAT, T>(a, {a.shared_w, a.shared_up, 0, a.shared_rows},
                            left < T ? (int)left : T, x, y);
}

template <int FORMAT, int T> DEVICE void experts(const experts_arguments &a)
{
    i64 pair = group_x(), pairs = a.tokens * a.slots;
    if (pair >= pairs) {
        shared_product<FORMAT, T>(a, pair - pairs);
        return;
    }
    if (group_y() * 8 >= a.rows)
        return;
    int e = expert_of(a.choice, pair / a.slots, pair % a.slots);
    i64 expert = slot_of(a.choice, e), taken[T];
    if (expert == -2)
        raise_fault(a.choice.fault);
    if (expert < 0)
        return;
    int count = take_pairs<T>(a, pair, e, taken);
    if (!count)
        return;
    const float *x[T];
    float *y[T];
#pragma unroll
    for (int t = 0; t < T; t++) {
        i64 token = taken[t] / a.slots, slot = taken[t] % a.slots;
        x[t] = row_of<const float>(a.x, token, slot);
        y[t] = row_of<float>(a.y, token, slot);
    }
    product_rows<FORMAT, T>(a, {a.w, a.up, expert, a.rows}, count, x, y);
}

#define EXPERTS(name, format)                                                                      \
    KERNEL(64) name(experts_arguments a)                                                           \
    {                                                                                              \
        experts<format, TOKENS>(a);                                                                \
    }
#define TOKENS 1
FOR_FORMATS(EXPERTS, experts_t1)
#undef TOKENS
#define TOKENS 2
FOR_FORMATS(EXPERTS, experts_t2)
#undef TOKENS
#define TOKENS 4
FOR_FORMATS(EXPERTS, experts_t4)
#undef TOKENS
#define TOKENS 8
FOR_FORMATS(EXPERTS, experts_t8)
#undef TOKENS

/* ---- down and combine ---- */

extern LDS float terms[]; /* [term][8] */

/* Whether every expert of a token is here; raises the fault if not. */
DEVICE bool all_here(const choice &c, i64 token, i64 slots)
{
    bool here = true;
    for (i64 j = 0; j < slots; j++)
        here = slot_of(c, expert_of(c, token, j)) >= 0 && here;
    if (!here)
        raise_fault(c.fault);
    return here;
}

template <int FORMAT> DEVICE void down_combine(const down_combine_arguments &a)
{
    i64 token = group_x(), begin = group_y() * 8;
    i64 out = begin + row_of_lane(), row = out < a.rows ? out : a.rows - 1;
    if (!all_here(a.choice, token, a.slots))
        return;
    i64 count = a.slots + (a.shared_x.at ? 1 : 0);
    for (i64 j = wave(); j < count; j += a.waves) {
        bool shared = j == a.slots;
        const float *x[1] = {shared ? row_of<const float>(a.shared_x, token)
                                    : row_of<const float>(a.x, token, j)};
        i64 expert = shared ? 0 : slot_of(a.choice, expert_of(a.choice, token, j));
        weight_row w = shared ? row_of(a.shared_w, 0, row) : row_of(a.w, expert, row);
        floats<1> term = dot<FORMAT, 1>(w, x, shared ? a.shared_columns : a.columns,
                                        shared ? a.shared_flags : a.flags);
        if (!lane_of_row())
            terms[j * 8 + row_of_lane()] = term.at[0];
    }
    barrier();
    i64 k = thread();
    if (k >= 8 || begin + k >= a.rows)
        return;
    float acc = a.shared_x.at ? terms[a.slots * 8 + k]
                : a.shared.at ? row_of<const float>(a.shared, token)[begin + k]
                              : 0.0f;
    const float *weights = row_of<const float>(a.weights, token);
    for (i64 j = 0; j < a.slots; j++)
        acc = __builtin_fmaf(weights[j], terms[j * 8 + k], acc);
    row_of<float>(a.y, token)[begin + k] = row_of<const float>(a.h, token)[begin + k] + acc;
}

#define DOWN_COMBINE(name, format)                                                                 \
    KERNEL(1024) name(down_combine_arguments a)                                                    \
    {                                                                                              \
        down_combine<format>(a);                                                                   \
    }
FOR_FORMATS(DOWN_COMBINE, down_combine)

/* Launch: grid (tokens, columns / 256), block 256. */
KERNEL(256) combine(combine_arguments a)
{
    i64 token = group_x(), k = group_y() * 256 + thread();
    if (a.choice.experts.at && !all_here(a.choice, token, a.slots))
        return;
    if (k >= a.columns)
        return;
    float acc = a.shared.at ? row_of<const float>(a.shared, token)[k] : 0.0f;
    const float *weights = row_of<const float>(a.weights, token);
    for (i64 j = 0; j < a.slots; j++)
        acc = __builtin_fmaf(weights[j], row_of<const float>(a.e, token, j)[k], acc);
    row_of<float>(a.y, token)[k] = row_of<const float>(a.h, token)[k] + acc;
}
