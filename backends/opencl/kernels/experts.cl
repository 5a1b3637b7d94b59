/*
 * experts.cl: grouped expert products. Numerics rules 2, 5 and 9. One program for each weight
 * format.
 *
 * Few tokens: a group has a block of rows of one slot of one token; more of them are many.cl's.
 * Local memory: 8.3 KiB (gpu).
 */
/* y[t, j] = w_e x, of x[t] (x_by_slot 0) or x[t, j]; with `up` SwiGLU of both products. Groups:
 * (blocks of rows, slots, tokens). The groups of more slots have the blocks of the shared experts'
 * shared_out rows, of which shared_y is the same. */
KERNEL void experts_linear(TENSOR(float, y), TENSOR(const float, x), const int x_by_slot, SLOTS,
                           WEIGHT(w), WEIGHT(up), const int has_up, global uint *fault,
                           const long fault_at, const long out, const long in,
                           TENSOR(float, shared_y), WEIGHT(shared_w), WEIGHT(shared_up),
                           const long shared_out)
{
    local float results[BLOCK], more[BLOCK], space[TILE_SPACE];
    long begin = (long)get_group_id(0) * BLOCK, j = get_group_id(1), t = get_group_id(2);
    long rows = out;
    int is_shared = j >= slots, slot = 0;
    if (is_shared) {
        begin += (j - slots) * get_num_groups(0) * BLOCK;
        rows = shared_out;
    } else {
        slot = EXPERT(t, j);
    }
    if (slot == -2)
        raise_fault(fault + fault_at);
    if (slot < 0 || begin >= rows)
        return;
    global const float *from = ROW2(x, t, x_by_slot ? j : 0);
    global float *to = (is_shared ? ROW1(shared_y, t) : ROW2(y, t, j)) + begin;
    rows_times(PICK_WEIGHT(is_shared, w, shared_w), PICK_WEIGHT(is_shared, up, shared_up), has_up,
               slot, begin, BLOCK, rows - 1, slot, begin + BLOCK, from, in, results, more, space);
    COLD for (long i = LANE; i < BLOCK && begin + i < rows; i += LANES)
        to[i] = has_up ? swiglu_of(results[i], more[i]) : results[i];
}

/* Groups: (blocks of rows, tokens): the slots of a token one after the other, as combine adds
 * them, to `shared`, or to its product with shared_w where has_shared_w, or to nothing. */
KERNEL void experts_down_combine(TENSOR(float, y), TENSOR(const float, h), TENSOR(const float, x),
                                 TENSOR(const float, weights), TENSOR(const float, shared),
                                 const int has_shared, WEIGHT(shared_w), const int has_shared_w,
                                 const long shared_in, SLOTS, WEIGHT(w), global uint *fault,
                                 const long fault_at, const long out, const long in)
{
    local float results[BLOCK], sums[BLOCK], space[TILE_SPACE];
    long begin = (long)get_group_id(0) * BLOCK, t = get_group_id(1);
    for (long j = 0; j < slots; j++)
        if (EXPERT(t, j) < 0) {
            raise_fault(fault + fault_at);
            return;
        }
    if (has_shared_w)
        rows_times(PASS_WEIGHT(shared_w), PASS_WEIGHT(shared_w), 0, 0, begin, BLOCK, out - 1, 0,
                   begin + BLOCK, ROW1(shared, t), shared_in, sums, sums, space);
    COLD for (long i = LANE; i < BLOCK && begin + i < out && !has_shared_w; i += LANES)
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
