/*
 * experts.cl: grouped expert products. Numerics rules 2, 5 and 9. One program for each weight
 * format.
 *
 * For few tokens: a group has a block of rows of one slot of one token. For many, kernel
 * group_slots sorts the slots by expert first (in scratch: begin[S + 1], then the slots), and a
 * group has a block of rows of one expert, for all its tokens: weights are read once. Local
 * memory: 8.3 KiB (gpu).
 */
#define SLOTS                                                                                      \
    TENSOR(const int, experts), TENSOR(const int, map), const int has_map, const long count,       \
        const long resident, const long slots

#define EXPERT(t, j) expert_slot(map, map_view, has_map, count, resident, *ROW2(experts, t, j))

/* y[t, j] = w_e x, of x[t] (x_by_slot 0) or x[t, j]; with `up` SwiGLU of both products. Groups:
 * (blocks of rows, slots, tokens). */
KERNEL void experts_linear(TENSOR(float, y), TENSOR(const float, x), const int x_by_slot, SLOTS,
                           WEIGHT(w), WEIGHT(up), const int has_up, global uint *fault,
                           const long fault_at, const long out, const long in)
{
    local float results[2 * ROWS], space[TILE_SPACE];
    long j = get_group_id(1), t = get_group_id(2);
    int slot = EXPERT(t, j);
    if (slot == -2)
        raise_fault(fault + fault_at);
    if (slot < 0)
        return;
    global const float *xs[] = {ROW2(x, t, x_by_slot ? j : 0)};
    for (int block = 0; block < ROW_TILES; block++) {
        long begin = (get_group_id(0) * ROW_TILES + block) * ROWS;
        weight_row rows[ROWS];
        if (begin >= out)
            return;
        for (int side = 0; side <= has_up; side++) {
            if (side)
                WEIGHT_ROWS(up, rows, slot, begin, out - 1);
            else
                WEIGHT_ROWS(w, rows, slot, begin, out - 1);
            tile_one(rows, xs, in, results + side * ROWS, space);
        }
        for (long r = LANE; r < ROWS && begin + r < out; r += LANES)
            ROW2(y, t, j)[begin + r] = has_up ? swiglu_of(results[r], results[ROWS + r])
                                              : results[r];
    }
}

/* Groups: (blocks of rows, tokens): the slots of a token one after the other, as combine adds
 * them. */
KERNEL void experts_down_combine(TENSOR(float, y), TENSOR(const float, h), TENSOR(const float, x),
                                 TENSOR(const float, weights), TENSOR(const float, shared),
                                 const int has_shared, SLOTS, WEIGHT(w), global uint *fault,
                                 const long fault_at, const long out, const long in)
{
    local float results[ROWS], sums[ROWS], space[TILE_SPACE];
    long t = get_group_id(1);
    for (long j = 0; j < slots; j++)
        if (EXPERT(t, j) < 0) {
            raise_fault(fault + fault_at);
            return;
        }
    for (int block = 0; block < ROW_TILES; block++) {
        long begin = (get_group_id(0) * ROW_TILES + block) * ROWS;
        if (begin >= out)
            return;
        for (long r = LANE; r < ROWS && begin + r < out; r += LANES)
            sums[r] = has_shared ? ROW1(shared, t)[begin + r] : 0.0f;
        for (long j = 0; j < slots; j++) {
            global const float *xs[] = {ROW2(x, t, j)};
            weight_row rows[ROWS];
            int slot = EXPERT(t, j);
            WEIGHT_ROWS(w, rows, slot, begin, out - 1);
            tile_one(rows, xs, in, results, space);
            for (long r = LANE; r < ROWS; r += LANES)
                sums[r] = fma(ROW1(weights, t)[j], results[r], sums[r]);
        }
        for (long r = LANE; r < ROWS && begin + r < out; r += LANES)
            ROW1(y, t)[begin + r] = ROW1(h, t)[begin + r] + sums[r];
    }
}

/* ---- many tokens ---- */

/* One group. lists = {begin[resident + 1], slots of expert 0, of expert 1, ...}; a slot is
 * t * slots + j. A lane has every LANES-th expert. */
KERNEL void group_slots(SLOTS, global int *lists, const long4 lists_view, global uint *fault,
                        const long fault_at, const long tokens)
{
    global int *begin = lists + lists_view.s0, *sorted = begin + resident + 1;
    for (long i = LANE; i < tokens * slots; i += LANES)
        if (EXPERT(i / slots, i % slots) == -2)
            atomic_xchg(fault + fault_at, BAD_INDEX);
    for (long s = LANE; s < resident; s += LANES) {
        int found = 0;
        for (long i = 0; i < tokens * slots; i++)
            found += EXPERT(i / slots, i % slots) == s;
        begin[s + 1] = found;
    }
    SYNC_GLOBAL();
    if (LANE == 0) {
        begin[0] = 0;
        for (long s = 0; s < resident; s++)
            begin[s + 1] += begin[s];
    }
    SYNC_GLOBAL();
    for (long s = LANE; s < resident; s += LANES) {
        int at = begin[s];
        for (long i = 0; i < tokens * slots; i++)
            if (EXPERT(i / slots, i % slots) == s)
                sorted[at++] = (int)i;
    }
}

/* As experts_linear. Groups: (blocks of rows, experts). */
KERNEL void experts_many(TENSOR(float, y), TENSOR(const float, x), const int x_by_slot,
                         TENSOR(const int, lists), const long slots, const long resident, WEIGHT(w),
                         WEIGHT(up), const int has_up, const long out, const long in)
{
    local float results[2 * ROWS * MANY], space[TILE_SPACE];
    global const int *begins = lists + lists_view.s0, *sorted = begins + resident + 1;
    long expert = get_group_id(1), last = begins[expert + 1] - 1;
    for (long n = begins[expert]; n <= last; n += MANY) {
        global const float *xs[MANY];
        for (int i = 0; i < MANY; i++) {
            int slot = sorted[min(n + i, last)];
            xs[i] = ROW2(x, slot / slots, x_by_slot ? slot % slots : 0);
        }
        for (int block = 0; block < ROW_TILES; block++) {
            long begin = (get_group_id(0) * ROW_TILES + block) * ROWS;
            weight_row rows[ROWS];
            if (begin >= out)
                break;
            for (int side = 0; side <= has_up; side++) {
                if (side)
                    WEIGHT_ROWS(up, rows, expert, begin, out - 1);
                else
                    WEIGHT_ROWS(w, rows, expert, begin, out - 1);
                tile_many(rows, xs, in, results + side * ROWS * MANY, space);
            }
            for (int i = LANE; i < ROWS * MANY; i += LANES) {
                long o = begin + i / MANY, at = n + i % MANY;
                if (o >= out || at > last)
                    continue;
                float value = results[i];
                if (has_up)
                    value = swiglu_of(value, results[ROWS * MANY + i]);
                ROW2(y, sorted[at] / slots, sorted[at] % slots)[o] = value;
            }
        }
    }
}
