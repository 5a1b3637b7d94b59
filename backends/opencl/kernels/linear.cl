/*
 * linear.cl: linear, head_linear, embed, and what is fused with them: a residual, SwiGLU, rotation
 * of the query. Numerics rules 1, 2, 5 and 7. One program for each weight format.
 *
 * Few tokens, one a group: bound by memory; more of them are many.cl's. Groups: (blocks of `block`
 * rows, tokens, heads). A linear layer has one head; head h owns the rows from
 * h * head_rows + first on. With `up` the result is SwiGLU of both products; where out2 is not 0, y2
 * is the product with `up`, whose blocks come last. Local memory: 2.4 KiB (gpu).
 */
KERNEL void linear(TENSOR(float, y), TENSOR(const float, x), TENSOR(const float, residual),
                   const int has_residual, WEIGHT(w), WEIGHT(up), const int has_up, const long out,
                   const long in, const long head_rows, const long first, TENSOR(float, y2),
                   const long out2, const int block)
{
    local float results[MOST_ROWS], more[MOST_ROWS], space[ROWS_SPACE];
    long g = get_group_id(0), t = get_group_id(1), h = get_group_id(2);
    long blocks = (out + block - 1) / block, row = h * head_rows + first;
    int second = g >= blocks;
    long begin = (second ? g - blocks : g) * block, rows = second ? out2 : out;
    long last = row + rows - 1;
    global float *to = (second ? ROW2(y2, t, h) : ROW2(y, t, h)) + begin;
    rows_times(PICK_WEIGHT(second, w, up), PASS_WEIGHT(up), has_up, 0, row + begin, block, last, 0,
               row + begin + block, ROW2(x, t, h), in, results, more, space);
    for (long i = LANE; i < block && begin + i < rows; i += LANES) {
        float value = has_up ? swiglu_of(results[i], more[i]) : results[i];
        if (has_residual)
            value = ROW2(residual, t, h)[begin + i] + value;
        to[i] = value;
    }
}

/* Groups: (blocks of columns, tokens). */
KERNEL void embed(TENSOR(float, y), TENSOR(const int, tokens), WEIGHT(w), global uint *fault,
                  const long fault_at, const long vocabulary, const long size)
{
    long t = get_group_id(1), begin = (long)get_group_id(0) * 1024, end = min(begin + 1024, size);
    int token = *ROW1(tokens, t);
    if (token < 0 || token >= vocabulary) {
        raise_fault(fault + fault_at);
        return;
    }
    weight_row row = WEIGHT_ROW(w, 0, token);
    COLD for (long k = begin + LANE; k < end; k += LANES)
        ROW1(y, t)[k] = decode_one(row, k);
}

/* ---- projections down the rows: y[c] = dot over r of x[r] and w[row r, c], of COLUMNS a group ---- */

#define COLUMNS 64

#ifdef FORM_CPU
#define ROWS_AHEAD 48
#define COLUMN_SPACE 1

APART void store_columns(global float *y, long column, long columns, const float *values)
{
    COLD for (int i = 0; i < COLUMNS && column + i < columns; i++)
        y[column + i] = values[i];
}

/* Rows in turn, as memory has them: the stripes' sums are in the cache, and rule 2's fold comes
 * last. Prefetched are rows that come later, and behind the last one those of the next columns. */
APART void project(WEIGHT(w), long row, long rows, global const float *x, long column, long columns,
                   global float *y, local float *space)
{
    float sums[STRIPES * COLUMNS] __attribute__((aligned(64)));
    for (int i = 0; i < STRIPES * COLUMNS / WIDE; i++)
        VECTOR(, float, sums, i) = 0;
    for (long r = 0; r < rows; r++) {
        weight_row from = WEIGHT_ROW(w, 0, row + r);
        long later = (r + ROWS_AHEAD) % rows;
        weight_row ahead = WEIGHT_ROW(w, 0, row + later);
        float *sum = sums + r % STRIPES * COLUMNS;
#pragma unroll
        for (int line = 0; line < COLUMNS * WEIGHT_BYTES; line += 64)
            FETCH(ahead.data + (later > r ? column : column + COLUMNS) * WEIGHT_BYTES + line);
        if (column + COLUMNS <= columns)
#pragma unroll
            for (int j = 0; j < COLUMNS / WIDE; j++)
                VECTOR(, float, sum, j) =
                    fma((wide)x[r], decode(from, column + j * WIDE), VECTOR(, float, sum, j));
        else
            COLD for (int j = 0; column + j < columns; j++)
                sum[j] = fma(x[r], decode_one(from, column + j), sum[j]);
    }
    for (int half_size = STRIPES * COLUMNS / 2; half_size >= COLUMNS; half_size /= 2)
        for (int i = 0; i < half_size / WIDE; i++)
            VECTOR(, float, sums, i) =
                VECTOR(, float, sums, i) + VECTOR(, float, sums + half_size, i);
    for (int j = 0; j < COLUMNS / WIDE; j++)
        VECTOR(, float, sums, j) = VECTOR(, float, sums, j) + 0.0f;
    store_columns(y, column, columns, sums);
}
#else
#define COLUMN_SPACE (TEAMS * COLUMNS)

/* s[m] are sums of stripe LANE / TEAM + 8 m, of eight columns from `column` on; `aligned` is a
 * constant where it is called. */
__attribute__((always_inline)) void add_rows(WEIGHT(w), const int aligned, long row, long rows,
                                             global const float *x, long column, long columns,
                                             float8 *s)
{
    for (long begin = LANE / TEAM; begin < rows; begin += STRIPES) {
        weight_row from[TEAM];
        uint8 raw[TEAM];
#pragma unroll
        for (int m = 0; m < TEAM; m++) {
            from[m] = WEIGHT_ROW(w, 0, row + min(begin + m * TEAMS, rows - 1));
            raw[m] = aligned ? load_raw(WEIGHT_BYTES, from[m].data + WEIGHT_BYTES * column) : 0;
        }
        LOADED();
#pragma unroll
        for (int m = 0; m < TEAM; m++) {
            float8 some = aligned ? decode_raw(raw[m], from[m], column)
                                  : decode_some(from[m], column, columns - column);
            float8 more = fma((float8)x[min(begin + m * TEAMS, rows - 1)], some, s[m]);
            s[m] = begin + m * TEAMS < rows ? more : s[m];
        }
    }
}

/* A team has every eighth row, a lane eight columns: three levels of rule 2's fold are a lane's own,
 * the others are between teams. */
void project(WEIGHT(w), long row, long rows, global const float *x, long begin, long columns,
             global float *y, local float *space)
{
    long column = begin + LANE % TEAM * TEAM;
    float8 s[TEAM];
#pragma unroll
    for (int m = 0; m < TEAM; m++)
        s[m] = 0;
    if (is_aligned((size_t)w | (size_t)w_1 | (size_t)w_2 | (size_t)w_3 | w_data.s0 | w_data.s2) &&
        column + TEAM <= columns)
        add_rows(PASS_WEIGHT(w), 1, row, rows, x, column, columns, s);
    else
        add_rows(PASS_WEIGHT(w), 0, row, rows, x, column, columns, s);
    s[0] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    vstore8(s[0], LANE, space); /* as [teams][columns] */
    SYNC();
    if (begin + LANE < columns)
        y[begin + LANE] = fold_8(space + LANE, COLUMNS) + 0.0f;
}
#endif

/* Rule 7. */
APART void turn_pairs(global float *to, global const float *from, global const float *cosines,
                      global const float *sines, long pairs)
{
    COLD for (long i = LANE; i < pairs; i += LANES) {
        float x0 = from[2 * i], x1 = from[2 * i + 1];
        float a = x1 * sines[i], b = x1 * cosines[i];
        to[2 * i] = fma(x0, cosines[i], -a);
        to[2 * i + 1] = fma(x0, sines[i], b);
    }
}

/* y = [columns of x's first `rows` | the rest, rotated]; without a rest (rotary_size 0) the
 * projection alone. */
KERNEL void head_columns(TENSOR(float, y), TENSOR(const float, x), TENSOR(const float, angles),
                         TENSOR(const int, positions), WEIGHT(w), global uint *fault,
                         const long fault_at, const long columns, const long rows,
                         const long head_rows, const long first, const long rotary_size,
                         const long table_rows)
{
    local float space[COLUMN_SPACE];
    long t = get_group_id(1), h = get_group_id(2);
    global const float *from = ROW2(x, t, h);
    global float *to = ROW2(y, t, h);
    project(PASS_WEIGHT(w), h * head_rows + first, rows, from, get_group_id(0) * COLUMNS, columns,
            to, space);
    if (get_group_id(0) || !rotary_size)
        return;
    int position = *ROW1(positions, t);
    if (position < 0 || position >= table_rows) {
        raise_fault(fault + fault_at);
        return;
    }
    global const float *cosines = ROW1(angles, position);
    turn_pairs(to + columns, from + rows, cosines, cosines + rotary_size / 2, rotary_size / 2);
}
