/* prepare.cl: what kernel many (many.cl) wants first. */

APART void order_row(global float *to, global const float *from, long terms, long size)
{
    for (int s = LANE; s < STRIPES; s += LANES) {
        global float *stripe = to + reversed(s) * terms;
        for (long i = 0; i < terms; i++)
            stripe[i] = i * STRIPES + s < size ? from[i * STRIPES + s] : 0.0f;
    }
}

/* Rows of x, whole stripes of them, in the order that kernel `many` wants in the cpu form, and its
 * counter set to 0. Groups: (rows of a token, tokens). */
KERNEL void order(TENSOR(float, y), TENSOR(const float, x), global int *next, const long next_at,
                  const long size)
{
    long j = get_group_id(0), t = get_group_id(1);
    if (j + t == 0)
        next[next_at] = 0;
    order_row(ROW2(y, t, j), ROW2(x, t, j), (size + STRIPES - 1) / STRIPES, size);
}

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
