/*
 * experts.cl: grouped expert products. Numerics rules 2, 5 and 9. One program for each weight
 * format.
 *
 * Few tokens: a group has `block` rows of one slot of one token; more of them are many.cl's.
 * Local memory: 2.4 KiB (gpu).
 */
/* y[t, j] = w_e x, of x[t] (x_by_slot 0) or x[t, j]; with `up` SwiGLU of both products. Groups:
 * (blocks of rows, slots, tokens). The groups of more slots have the blocks of the shared experts'
 * shared_out rows, of which shared_y is the same. */
KERNEL void experts_linear(TENSOR(float, y), TENSOR(const float, x), const int x_by_slot, SLOTS,
                           WEIGHT(w), WEIGHT(up), const int has_up, global uint *fault,
                           const long fault_at, const long out, const long in,
                           TENSOR(float, shared_y), WEIGHT(shared_w), WEIGHT(shared_up),
                           const long shared_out, const int block)
{
    local float results[MOST_ROWS], more[MOST_ROWS], space[ROWS_SPACE];
    long begin = (long)get_group_id(0) * block, j = get_group_id(1), t = get_group_id(2);
    long rows = out;
    int is_shared = j >= slots, slot = 0;
    if (is_shared) {
        begin += (j - slots) * get_num_groups(0) * block;
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
               slot, begin, block, rows - 1, slot, begin + block, from, in, results, more, space);
    for (long i = LANE; i < block && begin + i < rows; i += LANES)
        to[i] = has_up ? swiglu_of(results[i], more[i]) : results[i];
}

/* The slots of a token in turn, as combine adds them, to `shared`, or to its product with shared_w
 * where has_shared_w, or to nothing. Groups: (blocks of rows, tokens); gpu: (rows, tokens), and a
 * team has a product. */
KERNEL void experts_down_combine(TENSOR(float, y), TENSOR(const float, h), TENSOR(const float, x),
                                 TENSOR(const float, weights), TENSOR(const float, shared),
                                 const int has_shared, WEIGHT(shared_w), const int has_shared_w,
                                 const long shared_in, SLOTS, WEIGHT(w), global uint *fault,
                                 const long fault_at, const long out, const long in,
                                 const int block)
{
    local float results[MOST_ROWS], space[ROWS_SPACE];
    long t = get_group_id(1);
    for (long j = 0; j < slots; j++)
        if (EXPERT(t, j) < 0) {
            raise_fault(fault + fault_at);
            return;
        }
#ifdef FORM_CPU
    local float sums[MOST_ROWS];
    long begin = (long)get_group_id(0) * block;
    if (has_shared_w)
        rows_times(PASS_WEIGHT(shared_w), PASS_WEIGHT(shared_w), 0, 0, begin, block, out - 1, 0,
                   begin + block, ROW1(shared, t), shared_in, sums, sums, space);
    COLD for (long i = 0; i < block && begin + i < out && !has_shared_w; i++)
        sums[i] = has_shared ? ROW1(shared, t)[begin + i] : 0.0f;
    for (long j = 0; j < slots; j++) {
        int slot = EXPERT(t, j), next = EXPERT(t, j + 1 < slots ? j + 1 : 0);
        rows_times(PASS_WEIGHT(w), PASS_WEIGHT(w), 0, slot, begin, block, out - 1, next,
                   j + 1 < slots ? begin : begin + block, ROW2(x, t, j), in, results, results,
                   space);
        COLD for (long i = 0; i < block && begin + i < out; i++)
            sums[i] = fma(ROW1(weights, t)[j], results[i], sums[i]);
    }
    COLD for (long i = 0; i < block && begin + i < out; i++)
        ROW1(y, t)[begin + i] = ROW1(h, t)[begin + i] + sums[i];
#else
    long row = get_group_id(0), products = slots + has_shared_w;
    float sum = has_shared && !has_shared_w ? ROW1(shared, t)[row] : 0.0f;
    for (long first = 0; first < products; first += TEAMS) {
        long j = min(first + LANE / TEAM, products - 1) - has_shared_w;
        int is_shared = j < 0, slot = EXPERT(t, max(j, 0l));
        weight_row from =
            weight_row_of(PICK_WEIGHT(is_shared, w, shared_w), is_shared ? 0 : slot, row);
        fold_rows(team_dot(from, is_shared ? ROW1(shared, t) : ROW2(x, t, j),
                           is_shared ? shared_in : in),
                  results, space);
        for (long i = 0; i < TEAMS && first + i < products; i++) {
            j = first + i - has_shared_w;
            sum = j < 0 ? results[i] : fma(ROW1(weights, t)[j], results[i], sum);
        }
    }
    if (LANE == 0)
        ROW1(y, t)[row] = ROW1(h, t)[row] + sum;
#endif
}
