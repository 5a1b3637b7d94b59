/*
 * experts.cl: grouped expert products. Numerics rules 2, 5 and 9. One program for each weight
 * format.
 *
 * Few tokens: a group has a block of rows of one slot of one token; more of them are many.cl's.
 * Local memory: 8.3 KiB (gpu).
 */
/* y[t, j] = w_e x, of x[t] (x_by_slot 0) or x[t, j]; with `up` SwiGLU of both products. Groups:
 * (blocks of rows, slots, tokens). */
KERNEL void experts_linear(TENSOR(float, y), TENSOR(const float, x), const int x_by_slot, SLOTS,
                           WEIGHT(w), WEIGHT(up), const int has_up, global uint *fault,
                           const long fault_at, const long out, const long in)
{
    local float results[BLOCK], more[BLOCK], space[TILE_SPACE];
    long begin = (long)get_group_id(0) * BLOCK, j = get_group_id(1), t = get_group_id(2);
    int slot = EXPERT(t, j);
    if (slot == -2)
        raise_fault(fault + fault_at);
    if (slot < 0)
        return;
    global const float *from = ROW2(x, t, x_by_slot ? j : 0);
    rows_times(PASS_WEIGHT(w), PASS_WEIGHT(up), has_up, slot, begin, BLOCK, out - 1, slot,
               begin + BLOCK, from, in, results, more, space);
    COLD for (long i = LANE; i < BLOCK && begin + i < out; i += LANES)
        ROW2(y, t, j)[begin + i] = has_up ? swiglu_of(results[i], more[i]) : results[i];
}

/* Groups: (blocks of rows, tokens): the slots of a token one after the other, as combine adds
 * them. */
KERNEL void experts_down_combine(TENSOR(float, y), TENSOR(const float, h), TENSOR(const float, x),
                                 TENSOR(const float, weights), TENSOR(const float, shared),
                                 const int has_shared, SLOTS, WEIGHT(w), global uint *fault,
                                 const long fault_at, const long out, const long in)
{
    local float results[BLOCK], sums[BLOCK], space[TILE_SPACE];
    long begin = (long)get_group_id(0) * BLOCK, t = get_group_id(1);
    for (long j = 0; j < slots; j++)
        if (EXPERT(t, j) < 0) {
            raise_fault(fault + fault_at);
            return;
        }
    COLD for (long i = LANE; i < BLOCK && begin + i < out; i += LANES)
        sums[i] = has_shared ? ROW1(shared, t)[begin + i] : 0.0f;
    for (long j = 0; j < slots; j++) {
        int slot = EXPERT(t, j), next = EXPERT(t, j + 1 < slots ? j + 1 : 0);
        rows_times(PASS_WEIGHT(w), PASS_WEIGHT(w), 0, slot, begin, BLOCK, out - 1, next,
                   j + 1 < slots ? begin : begin + BLOCK, ROW2(x, t, j), in, results, results,
                   space);
        COLD for (long i = LANE; i < BLOCK && begin + i < out; i += LANES)
            sums[i] = fma(ROW1(weights, t)[j], results[i], sums[i]);
    }
    COLD for (long i = LANE; i < BLOCK && begin + i < out; i += LANES)
        ROW1(y, t)[begin + i] = ROW1(h, t)[begin + i] + sums[i];
}
