/*
 * many.cl: several tokens times the rows of a matrix that are read once for all of them: linear
 * layers, heads, experts. Numerics rules 2 and 5. One program for each weight format.
 *
 * Group g of the matrix (a head, an expert) meets the tokens of its list, or all. An id is
 * t * slots + j: input x[t, j], or x[t] where x_by_slot is 0; result y[t, j]. Without lists the ids
 * of group g are those with j = g. With `up` the result is SwiGLU of both products.
 *
 * gpu: groups are (blocks of rows, steps among blocks of tokens, groups of the matrix). Local
 * memory: 9.3 KiB.
 * cpu: any number of work-items, each of which takes the next stretch of PANEL outputs until none
 * is left, and has a panel of its own: the stretch as f32, so laid out that lanes are outputs: by
 * stripe in the order of `reversed`, then by the stripe's terms. Inputs lie in that order too
 * (kernel order). So rule 2's fold is a binary counter: a sum of level n waits for its sibling.
 * With `down` outputs are columns of the group's `in` rows.
 */
#define MANY_ARGUMENTS                                                                             \
    TENSOR(float, y), TENSOR(const float, x), const int x_by_slot, TENSOR(const float, residual),  \
        const int has_residual, TENSOR(const int, lists), const int has_lists, WEIGHT(w),          \
        WEIGHT(up), const int has_up, const int down, TENSOR(float, panels), global int *next,     \
        const long next_at, const long groups, const long out, const long in,                      \
        const long head_rows, const long first, const long tokens, const long slots

/* Which ids a group has: `begin` to `last` of the list, or of the tokens. */
typedef struct {
    global const int *sorted; /* NULL: no list */
    long begin, last, g, slots;
} ids_of;

ids_of group_ids(TENSOR(const int, lists), int has_lists, long groups, long g, long tokens,
                 long slots)
{
    ids_of ids = {0, 0, tokens - 1, g, slots};
    if (has_lists) {
        global const int *begins = lists + lists_view.s0;
        ids.sorted = begins + groups + 1;
        ids.begin = begins[g];
        ids.last = begins[g + 1] - 1;
    }
    return ids;
}

long id_at(ids_of ids, long i)
{
    return ids.sorted ? ids.sorted[i] : i * ids.slots + ids.g;
}

#ifdef FORM_CPU
#define PANEL 48
#define ROWS 4

/* Of each quarter of two vectors in turn: words 0 and 1, words 2 and 3, the first pair of words,
 * the second. */
float16 low_words(float16 a, float16 b)
{
    return (float16)(a.s0, b.s0, a.s1, b.s1, a.s4, b.s4, a.s5, b.s5, a.s8, b.s8, a.s9, b.s9, a.sc,
                     b.sc, a.sd, b.sd);
}

float16 high_words(float16 a, float16 b)
{
    return (float16)(a.s2, b.s2, a.s3, b.s3, a.s6, b.s6, a.s7, b.s7, a.sa, b.sa, a.sb, b.sb, a.se,
                     b.se, a.sf, b.sf);
}

float16 low_pairs(float16 a, float16 b)
{
    long8 x = as_long8(a), y = as_long8(b);
    return as_float16((long8)(x.s0, y.s0, x.s2, y.s2, x.s4, y.s4, x.s6, y.s6));
}

float16 high_pairs(float16 a, float16 b)
{
    long8 x = as_long8(a), y = as_long8(b);
    return as_float16((long8)(x.s1, y.s1, x.s3, y.s3, x.s5, y.s5, x.s7, y.s7));
}

/* Floats from a stripe to the next: not a part of a page, so that stores spread over the cache. */
long panel_pitch(long in)
{
    return (in + STRIPES - 1) / STRIPES * PANEL + 16;
}

/* 16 columns of row i, of 16 rows of 64: quarters of four words by column, then by i % 4, so that
 * rows i, i + 4, i + 8 and i + 12 are one vector. */
void put_row(float16 v, int i, float16 *square)
{
    float4 *to = (float4 *)square + i % 4 * 4 + i / 4;
    to[0] = v.s0123;
    to[16] = v.s4567;
    to[32] = v.s89ab;
    to[48] = v.scdef;
}

/* Column j of such a square goes to stripe j of the panel. */
APART void turn(const float16 *square, global float *to, long pitch)
{
    for (ulong i = 0, bits4_reversed = 0xF7B3D591E6A2C480; i < 16;
         i++, bits4_reversed >>= 4, square += 4) {
        global float *stripe = to + (bits4_reversed & 15) * pitch;
        float16 a = square[0], b = square[1], c = square[2], d = square[3];
        float16 ab = low_words(a, b), cd = low_words(c, d);
        *(global float16 *)stripe = low_pairs(ab, cd);
        *(global float16 *)(stripe + 32 * pitch) = high_pairs(ab, cd);
        ab = high_words(a, b), cd = high_words(c, d);
        *(global float16 *)(stripe + 16 * pitch) = low_pairs(ab, cd);
        *(global float16 *)(stripe + 48 * pitch) = high_pairs(ab, cd);
    }
}

/* Outputs that are rows, from `row` on; `last` in the place of those behind it. Rows lie apart:
 * what comes two steps on is prefetched. */
APART void pack_rows(WEIGHT(w), long expert, long row, long last, long in, global float *panel)
{
    long pitch = panel_pitch(in);
    for (int r = 0; r < PANEL; r += 16) {
        weight_row rows[16];
        float16 square[STRIPES];
        global float *to = panel + r;
        for (int i = 0; i < 16; i++)
            rows[i] = WEIGHT_ROW(w, expert, min(row + r + i, last));
        for (long k = 0; k < in; k += STRIPES, to += PANEL) {
            for (int i = 0; i < 16; i++) {
#pragma unroll
                for (int line = 0; line < STRIPES * WEIGHT_BYTES; line += 64)
                    FETCH(rows[i].data + (k + 2 * STRIPES) * WEIGHT_BYTES + line);
                if (k + STRIPES <= in)
#pragma unroll
                    for (int j = 0; j < STRIPES; j += 16)
                        put_row(decode(rows[i], k + j), i, square + j);
                else
                    for (int j = 0; j < STRIPES; j += 16)
                        put_row(decode_columns(rows[i], k + j, in), i, square + j);
            }
            turn(square, to, pitch);
        }
    }
}

/* Outputs that are columns, from `column` on: a row of weights is a term of one stripe. */
APART void pack_columns(WEIGHT(w), long expert, long row, long in, long column, long columns,
                        global float *panel)
{
    long pitch = panel_pitch(in);
    for (long k = 0; k < (in + STRIPES - 1) / STRIPES * STRIPES; k++) {
        global float *to = panel + reversed(k % STRIPES) * pitch + k / STRIPES * PANEL;
        weight_row from = WEIGHT_ROW(w, expert, row + min(k, in - 1));
        for (int j = 0; j < PANEL; j += 16)
            VECTOR(global, float, to + j, 0) =
                k < in ? decode_columns(from, column + j, columns) : (float16)0.0f;
    }
}

#define EACH(DO) DO(0) DO(1) DO(2) DO(3)
#define BEGIN_SUMS(r) float16 a##r = 0, b##r = 0, c##r = 0;
#define ADD_TERMS(r)                                                                               \
    {                                                                                              \
        float16 value = x##r[i];                                                                   \
        a##r = fma(value, w0, a##r), b##r = fma(value, w1, b##r), c##r = fma(value, w2, c##r);     \
    }
#define ADD_WAITING(r)                                                                             \
    a##r = there[3 * r] + a##r, b##r = there[3 * r + 1] + b##r, c##r = there[3 * r + 2] + c##r;
#define WAIT(r) there[3 * r] = a##r, there[3 * r + 1] = b##r, there[3 * r + 2] = c##r;
#define NAME_INPUT(r) global const float *x##r = x[r];
#define GIVE(r)                                                                                    \
    VECTOR(, float, to, 3 * r) = a##r + 0.0f, VECTOR(, float, to, 3 * r + 1) = b##r + 0.0f,        \
                            VECTOR(, float, to, 3 * r + 2) = c##r + 0.0f;

#define FETCH_AHEAD(r) FETCH(ahead + r * ahead_pitch + line);

/* to[r] = the panel's outputs for input r, of ROWS: sums are named one by one, so that they are in
 * registers. ROWS rows of weights from `ahead` on are prefetched beside it, a part with each
 * stripe. */
APART void multiply(global const float *panel, long in, global const float *const *x, float *to,
                    global const uchar *ahead, long ahead_pitch)
{
    float16 waiting[6][3 * ROWS];
    long terms = (in + STRIPES - 1) / STRIPES, pitch = panel_pitch(in), i = 0;
    EACH(NAME_INPUT)
    for (int s = 0;; s++, panel += pitch) {
        int level = 0;
        global const float *w = panel;
        EACH(BEGIN_SUMS)
        for (long line = 0; line < terms * WEIGHT_BYTES; line += 64) {
            EACH(FETCH_AHEAD)
        }
        ahead += terms * WEIGHT_BYTES;
        for (long end = i + terms; i < end; i++, w += PANEL) {
            float16 w0 = VECTOR(global const, float, w, 0);
            float16 w1 = VECTOR(global const, float, w, 1);
            float16 w2 = VECTOR(global const, float, w, 2);
            EACH(ADD_TERMS)
        }
        for (; s >> level & 1; level++) {
            const float16 *there = waiting[level];
            EACH(ADD_WAITING)
        }
        if (level == 6) {
            EACH(GIVE)
            return;
        }
        float16 *there = waiting[level];
        EACH(WAIT)
    }
}

/* An input's results to where they belong; the second product's with the first one's. */
APART void finish(global float *y, global const float *residual, const float *from, int second,
                  long count)
{
    for (long o = 0; o < count; o++) {
        float value = second ? swiglu_of(y[o], from[o]) : from[o];
        y[o] = residual ? residual[o] + value : value;
    }
}

/* The first row of a stretch. */
weight_row stretch_row(WEIGHT(w), int has_lists, long item, long stretches, long head_rows,
                       long first)
{
    long g = item / stretches, begin = item % stretches * PANEL;
    return WEIGHT_ROW(w, has_lists ? g : 0, (has_lists ? 0 : g * head_rows + first) + begin);
}

KERNEL void many(MANY_ARGUMENTS)
{
    long stretches = (out + PANEL - 1) / PANEL, units = get_num_groups(0);
    global float *panel = ROW1(panels, get_group_id(0));
    for (long item = atomic_inc(next + next_at); item < groups * stretches;
         item = atomic_inc(next + next_at)) {
        long g = item / stretches, begin = item % stretches * PANEL;
        long expert = has_lists ? g : 0, row = has_lists ? 0 : g * head_rows + first;
        ids_of ids = group_ids(lists, lists_view, has_lists, groups, g, tokens, slots);
        for (int side = 0; side <= has_up && ids.begin <= ids.last; side++) {
            if (down)
                pack_columns(PASS_WEIGHT(w), expert, row, in, begin, out, panel);
            else
                pack_rows(PICK_WEIGHT(side, w, up), expert, row + begin, row + out - 1, in, panel);
            /* What is likely packed next: the other side's rows or, where work-items take as long
             * as each other, the stretch after theirs. */
            int ahead_up = side < has_up;
            long ahead_item = ahead_up ? item : min(item + units, groups * stretches - 1);
            long ahead_pitch = ahead_up ? up_data.s2 : w_data.s2;
            weight_row ahead = stretch_row(PICK_WEIGHT(ahead_up, w, up), has_lists, ahead_item,
                                           stretches, head_rows, first);
            for (long n = ids.begin; n <= ids.last;) {
                global const float *xs[ROWS];
                float results[ROWS * PANEL];
                for (int r = 0; r < ROWS; r++) {
                    long id = id_at(ids, min(n + r, ids.last));
                    xs[r] = ROW2(x, id / slots, x_by_slot ? id % slots : 0);
                }
                multiply(panel, in, xs, results,
                         ahead.data + min(n - ids.begin, (long)PANEL - ROWS) * ahead_pitch,
                         ahead_pitch);
                for (int r = 0; r < ROWS && n <= ids.last; r++, n++) {
                    long id = id_at(ids, n), t = id / slots, j = id % slots;
                    finish(ROW2(y, t, j) + begin, has_residual ? ROW2(residual, t, j) + begin : 0,
                           results + r * PANEL, side, min(out - begin, (long)PANEL));
                }
            }
        }
    }
}

#else
KERNEL void many(MANY_ARGUMENTS)
{
    local float results[SUMS], more[SUMS], space[TILE_SPACE];
    long g = get_group_id(2), begin = (long)get_group_id(0) * TILE_ROWS;
    long expert = has_lists ? g : 0, row = has_lists ? 0 : g * head_rows + first;
    ids_of ids = group_ids(lists, lists_view, has_lists, groups, g, tokens, slots);
    for (long n = ids.begin + (long)get_group_id(1) * MANY; n <= ids.last;
         n += (long)get_num_groups(1) * MANY) {
        global const float *xs[MANY];
        weight_row rows[TILE_ROWS];
        for (int i = 0; i < MANY; i++) {
            long id = id_at(ids, min(n + i, ids.last));
            xs[i] = ROW2(x, id / slots, x_by_slot ? id % slots : 0);
        }
        for (int side = 0; side <= has_up; side++) {
            for (int r = 0; r < TILE_ROWS; r++)
                rows[r] = weight_row_of(PICK_WEIGHT(side, w, up), expert,
                                        row + min(begin + r, out - 1));
            tile(rows, xs, in, side ? more : results, space);
        }
        for (int i = LANE; i < SUMS; i += LANES) {
            long o = begin + i / MANY, at = n + i % MANY;
            if (o >= out || at > ids.last)
                continue;
            long id = id_at(ids, at), t = id / slots, j = id % slots;
            float value = has_up ? swiglu_of(results[i], more[i]) : results[i];
            if (has_residual)
                value = ROW2(residual, t, j)[o] + value;
            ROW2(y, t, j)[o] = value;
        }
    }
}
#endif
