/*
 * gemm.hip: products of many rows by the matrix units: the fast profile (docs/numerics.md) of
 * linear, linear_add, linear_swiglu, norm_linear, head_linear and the experts' products.
 *
 * Inputs are rounded once, by gemm_input_..., and lie row by row in scratch. Weights are bf16 as
 * they are; f32 and f16 are rounded to bf16 on their way into LDS.
 *
 * gemm_64, gemm_128: a workgroup has 128 rows of weights (64 outputs of swiglu: the rows of both
 * matrices) and 64 or 128 rows of inputs, 128 bytes of each at a time in LDS; its four waves have
 * 32 or 64 by 64 of them, as blocks of 16 by 16: v_mfma_f32_16x16x16_bf16 with the weights as the
 * first operand, so that a lane's results are four outputs of one input row. The 16 bytes c of row
 * r lie at c ^ (r & 7): eight lanes that read or write at a time meet no bank twice. A lane's 16
 * bytes are two products' worth of K; which columns those are does not matter, as long as weights
 * and inputs agree. The next 128 bytes are on their way in registers meanwhile.
 */
#include "dot.hiph"

#include "choice.hiph"
#include "gemm.h"

typedef short short4 __attribute__((ext_vector_type(4)));

/* ---- inputs ---- */

/* Row (t, j) of x, as row t * slots + j; +0 behind its end. Launch: grid (tokens, slots), block
 * 256. */
KERNEL(256) gemm_input_bf16(gemm_input_arguments a)
{
    LDS static float factor;
    const float *x = row_of<const float>(a.x, group_x(), group_y());
    char *to = a.to.at + (group_x() * a.slots + group_y()) * a.to.row;
    if (!wave()) {
        float r = a.norm ? norm_factor(sum_of_squares(x, a.columns), a.inverse, a.eps) : 1.0f;
        if (!lane())
            factor = r;
    }
    barrier();
    i64 padded = (a.columns + GEMM_PADDING - 1) / GEMM_PADDING * GEMM_PADDING;
    for (i64 k = thread() * 4; k < padded; k += 1024) {
        float4 v = {0, 0, 0, 0};
        if (k < a.columns) {
            v = *(const float4 *)(x + k);
            if (a.norm)
                for (int i = 0; i < 4; i++) {
                    float scaled = v[i] * factor;
                    v[i] = scaled * a.norm[k + i];
                }
        }
        *(uint2 *)(to + k * 2) = uint2{two_bf16(v[0], v[1]), two_bf16(v[2], v[3])};
    }
}

/* ---- pairs by expert ---- */

extern LDS u32
    places[]; /* of each expert of the bank: first its pairs, then the next one's place */

/* Sum of the values of this lane and those before it. */
DEVICE u32 running(u32 value)
{
#pragma unroll
    for (u32 by = 1; by < 64; by *= 2) {
        u32 before = (u32)__builtin_amdgcn_ds_bpermute((int)(lane() - by) * 4, (int)value);
        value += lane() >= by ? before : 0;
    }
    return value;
}

/* Tiles of experts in order, 64 experts a turn; returns how many. */
DEVICE u32 make_tiles(const gemm_group_arguments &a)
{
    u32 pairs = 0, tiles = 0;
    for (i64 base = 0; base < a.choice.resident; base += 64) {
        i64 expert = base + lane();
        bool have = expert < a.choice.resident;
        u32 count = have ? places[expert] : 0, here = (count + a.tile - 1) / a.tile;
        u32 pairs_here = running(count), tiles_here = running(here);
        u32 first = pairs + pairs_here - count, end = first + count;
        u32 at = tiles + tiles_here - here;
        if (have)
            places[expert] = first;
        for (; first < end; first += a.tile)
            a.tiles[at++] = {(u32)expert, first, end, 0};
        pairs += (u32)__builtin_amdgcn_readlane((int)pairs_here, 63);
        tiles += (u32)__builtin_amdgcn_readlane((int)tiles_here, 63);
    }
    return tiles;
}

DEVICE i64 slot_of_pair(const gemm_group_arguments &a, u32 pair)
{
    return slot_of(a.choice, expert_of(a.choice, pair / a.slots, pair % a.slots));
}

/* Pairs (token, slot) put in order by where their expert lies in the bank, and the tiles of that
 * order; those without pairs are empty. Pairs whose expert is elsewhere are left out; one out of
 * range too, with a fault. Launch: one block of 1024; dynamic LDS: 4 bytes a resident expert. */
KERNEL(1024) gemm_group(gemm_group_arguments a)
{
    LDS static u32 used;
    for (i64 e = thread(); e < a.choice.resident; e += 1024)
        places[e] = 0;
    barrier();
    for (u32 pair = thread(); pair < a.pairs; pair += 1024) {
        i64 slot = slot_of_pair(a, pair);
        if (slot >= 0)
            __hip_atomic_fetch_add(&places[slot], 1u, __ATOMIC_RELAXED,
                                   __HIP_MEMORY_SCOPE_WORKGROUP);
        if (slot == -2)
            raise_fault(a.choice.fault);
    }
    barrier();
    if (!wave()) {
        u32 tiles = make_tiles(a);
        if (!lane())
            used = tiles;
    }
    barrier();
    for (u32 tile = used + thread(); tile < a.tile_count; tile += 1024)
        a.tiles[tile] = {0, 0, 0, 0};
    for (u32 pair = thread(); pair < a.pairs; pair += 1024) {
        i64 slot = slot_of_pair(a, pair);
        if (slot >= 0)
            a.order[__hip_atomic_fetch_add(&places[slot], 1u, __ATOMIC_RELAXED,
                                           __HIP_MEMORY_SCOPE_WORKGROUP)] = pair;
    }
}

/* ---- products ---- */

/* What a workgroup works on. */
struct part {
    u32 expert, first, end; /* places of its inputs */
    i64 row, rows;          /* its first row of weights, and how many there are from there on */
    i64 output, head;
};

/* False: nothing. */
template <int TOKENS> DEVICE bool find_part(const gemm_arguments &a, part &p)
{
    p.expert = 0;
    p.first = (u32)group_x() * TOKENS;
    p.end = a.tokens;
    if (a.tiles) {
        gemm_tile tile = a.tiles[group_x()];
        p.expert = tile.expert;
        p.first = tile.first;
        p.end = tile.end;
    }
    p.head = group_z();
    p.output = group_y() * (a.up.data ? GEMM_ROWS / 2 : GEMM_ROWS);
    p.row = p.head * a.head_rows + a.first_row + p.output;
    p.rows = a.rows - p.output;
    return p.first < p.end;
}

/* The row of inputs and outputs at a place, those past the end the last one. */
DEVICE u32 row_at(const gemm_arguments &a, const part &p, u32 place)
{
    place = place < p.end ? place : p.end - 1;
    return a.tiles ? a.order[place] : place;
}

/* A work-item moves 16 bytes of every 32nd row of a tile in LDS. */
enum { CHUNKS = 8, STEP_ROWS = 256 / CHUNKS, ROWS_EACH = GEMM_ROWS / STEP_ROWS };

DEVICE u32 place_of_chunk(u32 row, u32 chunk)
{
    return row * CHUNKS + (chunk ^ (row & 7));
}

template <int FORMAT> DEVICE uint4 rounded(const eight<FORMAT> &raw)
{
    float v[8];
    raw.decode(v);
    uint4 bits;
    bool nan = false;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        bits[i] = two_plain_bf16(v[2 * i], v[2 * i + 1]);
        nan |= __builtin_isunordered(v[2 * i], v[2 * i + 1]);
    }
    if (nan)
        for (int i = 0; i < 4; i++)
            bits[i] = two_bf16(v[2 * i], v[2 * i + 1]);
    return bits;
}

DEVICE uint4 rounded(const eight<BF16> &raw)
{
    return raw.bits;
}

/* Rows of weights in a workgroup: with `up`, of a wave's SPAN rows the first half are the first
 * matrix's, the others the second's of the same outputs. */
template <int FORMAT, int SPAN> struct weight_tile {
    weight_row rows[ROWS_EACH];
    eight<FORMAT> raw[ROWS_EACH];

    METHOD void find(const gemm_arguments &a, const part &p)
    {
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++) {
            u32 row = thread() / CHUNKS + (u32)i * STEP_ROWS, in = row % SPAN;
            bool up = a.up.data && in >= SPAN / 2;
            i64 at = a.up.data ? row / SPAN * (SPAN / 2) + in % (SPAN / 2) : row;
            rows[i] = row_of(up ? a.up : a.w, p.expert, p.row + (at < p.rows ? at : p.rows - 1));
        }
    }
    METHOD void fetch(const gemm_arguments &a, i64 step)
    {
        i64 k = step * 64 + thread() % CHUNKS * 8;
        bool have = k < a.columns;
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++) {
            raw[i] = {};
            if (have)
                raw[i].load(rows[i], k);
        }
    }
    METHOD void put(uint4 *to) const
    {
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++)
            to[place_of_chunk(thread() / CHUNKS + (u32)i * STEP_ROWS, thread() % CHUNKS)] =
                rounded(raw[i]);
    }
};

template <int TOKENS> struct input_tile {
    enum { EACH = TOKENS / STEP_ROWS };
    const char *rows[EACH];
    uint4 raw[EACH];

    METHOD void find(const gemm_arguments &a, const part &p)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            u32 place = p.first + thread() / CHUNKS + (u32)i * STEP_ROWS;
            rows[i] = a.inputs.at + p.head * a.input_head +
                      (i64)(row_at(a, p, place) / a.share) * a.inputs.row + thread() % CHUNKS * 16;
        }
    }
    METHOD void fetch(i64 step)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            raw[i] = *(const uint4 *)(rows[i] + step * 128);
    }
    METHOD void put(uint4 *to) const
    {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            to[place_of_chunk(thread() / CHUNKS + (u32)i * STEP_ROWS, thread() % CHUNKS)] = raw[i];
    }
};

/* 16 rows of a tile, 128 bytes each: what a lane gives to four products. */
struct operand {
    uint4 half[2];
    METHOD void read(const uint4 *tile, u32 row)
    {
        half[0] = tile[place_of_chunk(row + lane() % 16, lane() / 16)];
        half[1] = tile[place_of_chunk(row + lane() % 16, lane() / 16 + 4)];
    }
    METHOD short4 at(int k) const /* 0 .. 3 */
    {
        uint2 bits = {half[k / 2][k % 2 * 2], half[k / 2][k % 2 * 2 + 1]};
        return __builtin_bit_cast(short4, bits);
    }
};

/* Where a row's outputs go, and what is added to them. */
struct output_row {
    float *y;
    const float *residual; /* NULL: nothing */

    METHOD void find(const gemm_arguments &a, const part &p, u32 row)
    {
        i64 token = row / a.slots, j = a.tiles ? row % a.slots : p.head;
        y = row_of<float>(a.y, token, j);
        residual = a.residual.at ? row_of<const float>(a.residual, token, j) : nullptr;
    }
    METHOD void put(const gemm_arguments &a, i64 output, float4 v) const
    {
        if (a.wide && output + 4 <= a.rows) {
            if (residual)
                v = *(const float4 *)(residual + output) + v;
            *(float4 *)(y + output) = v;
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (output + i < a.rows)
                y[output + i] = residual ? residual[output + i] + v[i] : v[i];
    }
};

DEVICE float4 gated(float4 gate, float4 up)
{
    return float4{swiglu_of(gate[0], up[0]), swiglu_of(gate[1], up[1]), swiglu_of(gate[2], up[2]),
                  swiglu_of(gate[3], up[3])};
}

template <int FORMAT, int TOKENS> DEVICE void gemm(const gemm_arguments &a)
{
    enum { SPAN = TOKENS / 2, W_BLOCKS = SPAN / 16, X_BLOCKS = 4, ACROSS = GEMM_ROWS / SPAN };
    LDS static uint4 w_tile[GEMM_ROWS * CHUNKS], x_tile[TOKENS * CHUNKS];
    part p;
    if (!find_part<TOKENS>(a, p))
        return;
    u32 w_first = wave() % ACROSS * SPAN, x_first = wave() / ACROSS * 64;
    weight_tile<FORMAT, SPAN> weights;
    input_tile<TOKENS> inputs;
    weights.find(a, p);
    inputs.find(a, p);
    weights.fetch(a, 0);
    inputs.fetch(0);
    float4 sums[W_BLOCKS][X_BLOCKS] = {};
    i64 steps = (a.columns + 63) / 64;
#pragma unroll 1
    for (i64 step = 0; step < steps; step++) {
        barrier();
        weights.put(w_tile);
        inputs.put(x_tile);
        barrier();
        if (step + 1 < steps) {
            weights.fetch(a, step + 1);
            inputs.fetch(step + 1);
        }
        operand x[X_BLOCKS];
#pragma unroll
        for (int i = 0; i < X_BLOCKS; i++)
            x[i].read(x_tile, x_first + (u32)i * 16);
#pragma unroll
        for (int j = 0; j < W_BLOCKS; j++) {
            operand w;
            w.read(w_tile, w_first + (u32)j * 16);
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int i = 0; i < X_BLOCKS; i++)
                    sums[j][i] = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(w.at(k), x[i].at(k),
                                                                           sums[j][i], 0, 0, 0);
        }
    }
#pragma unroll
    for (int i = 0; i < X_BLOCKS; i++) {
        u32 place = p.first + x_first + (u32)i * 16 + lane() % 16;
        if (place >= p.end)
            continue;
        output_row to;
        to.find(a, p, row_at(a, p, place));
        i64 output = p.output + (a.up.data ? w_first / 2 : w_first) + lane() / 16 * 4;
#pragma unroll
        for (int j = 0; j < W_BLOCKS; j++) {
            if (!a.up.data)
                to.put(a, output + j * 16, sums[j][i]);
            else if (j < W_BLOCKS / 2)
                to.put(a, output + j * 16, gated(sums[j][i], sums[W_BLOCKS / 2 + j][i]));
        }
    }
}

/* Launch: grid (tiles of inputs, tiles of outputs, heads), inputs fastest, so that workgroups with
 * the same weights run together; block 256. */
#define GEMM(name, format)                                                                         \
    KERNEL(256) name(gemm_arguments a)                                                             \
    {                                                                                              \
        gemm<format, TOKENS>(a);                                                                   \
    }
#define TOKENS 64
GEMM(gemm_64_f32, F32)
GEMM(gemm_64_f16, F16)
GEMM(gemm_64_bf16, BF16)
#undef TOKENS
#define TOKENS 128
GEMM(gemm_128_f32, F32)
GEMM(gemm_128_f16, F16)
GEMM(gemm_128_bf16, BF16)
