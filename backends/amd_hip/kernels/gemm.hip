/*
 * gemm.hip: products of many rows by the matrix units: the fast profile (docs/numerics.md) of
 * linear, linear_add, linear_swiglu, norm_linear, head_linear and the experts' products.
 *
 * Inputs are rounded once, by gemm_input_..., and lie row by row in scratch: bf16; for FP8 weights
 * FP8 with a scale for 128 columns. Weights are bf16 as they are; f32 and f16 are rounded to bf16
 * on their way into LDS; FP8 becomes the FNUZ form there, and each 128 columns' sum is scaled and
 * added up in f32. A GPU whose matrix units do not have that form rounds both to bf16.
 *
 * gemm_64, gemm_128: a workgroup has 128 rows of weights (64 outputs of swiglu: the rows of both
 * matrices) and 64 or 128 rows of inputs, 128 bytes of each at a time in LDS; its four waves have
 * 32 or 64 by 64 of them, as blocks of 16 by 16: v_mfma_f32_16x16x16_bf16 with the weights as the
 * first operand (FP8: v_mfma_f32_16x16x32_fp8_fp8), so that a lane's results are four outputs of
 * one input row. The 16 bytes c of row r lie at c ^ ((r ^ r / 4) & 7): eight lanes that read or
 * write at a time meet no bank twice. A lane's 16 bytes are two products' worth of K; which columns
 * those are does not matter, as long as weights and inputs agree. The next 128 bytes are on their
 * way in registers meanwhile.
 *
 * gemm_columns is gemm_128 for head_linear transposed, mla_query and mla_qkv: rows of weights are K
 * and turned on their way into LDS, all of them rounded to bf16.
 */
#include "dot.hiph"

#include "choice.hiph"
#include "gemm.h"

typedef short short4 __attribute__((ext_vector_type(4)));

/* What FP8 weights are multiplied as. A test takes FNUZ away, to see what other GPUs do. */
#if (defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__)) && !defined(WITHOUT_FNUZ)
#define HAS_FNUZ
enum { FNUZ = 5 /* beside F32, ... */, FP8_WEIGHTS = FNUZ, FP8_OPERANDS = FNUZ };
#else
enum { FNUZ = 5, FP8_WEIGHTS = FP8, FP8_OPERANDS = BF16 };
#endif

/* The place of a pair whose expert is not here. */
enum : u32 { NOWHERE = ~0u };

/* ---- inputs ---- */

/* Four columns of a row, normed if there is a norm; +0 behind its end. */
DEVICE float4 input_at(const gemm_input_arguments &a, const float *x, i64 k, float factor)
{
    float4 v = {0, 0, 0, 0};
    if (k + 4 <= a.columns && a.flags & ALIGNED_INPUTS)
        v = *(const float4 *)(x + k);
    else
        for (int i = 0; i < 4; i++)
            v[i] = k + i < a.columns ? x[k + i] : 0.0f;
    if (!a.norm)
        return v;
    float4 norm = {0, 0, 0, 0};
    if (k + 4 <= a.columns && a.flags & ALIGNED_INPUTS)
        norm = *(const float4 *)(a.norm + k);
    else
        for (int i = 0; i < 4; i++)
            norm[i] = k + i < a.columns ? a.norm[k + i] : 0.0f;
    return v * factor * norm;
}

/* 32 lanes' 128 columns: their scale is the least power of two s, 2^-126 at least, of which the
 * largest is at most 448. In the FNUZ form, whose values are half as large, that is x / 2s, 224 at
 * most. With the weights' half that makes 4s of the sums. */
DEVICE void put_fnuz(char *to, float *scales, i64 scale_step, i64 k, float4 v)
{
#ifdef HAS_FNUZ
    float most = 0;
    for (int i = 0; i < 4; i++)
        most = __builtin_fmaxf(most, __builtin_fabsf(v[i]));
    most = __builtin_fmaxf(most, of_xor<16>(most));
    most = __builtin_fmaxf(most, of_xor<8>(most));
    most = __builtin_fmaxf(most, of_xor<4>(most));
    most = __builtin_fmaxf(most, of_xor<2>(most));
    most = __builtin_fmaxf(most, of_xor<1>(most));
    /* most = f * 2^e, 1 <= f < 2; 448 = 1.75 * 2^8: s = 2^(e - 8), twice that where f > 1.75. */
    u32 bits = (float_to_bits(most) + 0x001fffff) & 0x7f800000;
    bits = bits < 0x04800000 ? 0x04800000 : bits > 0x7f000000 ? 0x7f000000 : bits;
    u32 scale = bits - 0x04000000;
    float back = bits_to_float(0x7e800000 - scale);
    int bytes = __builtin_amdgcn_cvt_pk_fp8_f32(v[0] * back, v[1] * back, 0, false);
    bytes = __builtin_amdgcn_cvt_pk_fp8_f32(v[2] * back, v[3] * back, bytes, true);
    *(int *)(to + k) = bytes;
    if (k % GEMM_PADDING == 0)
        scales[k / GEMM_PADDING * scale_step] = bits_to_float(scale + 0x01000000);
#endif
}

/* Row t of head j of x; or of slot j, to the pair's place if it has one. Launch: grid (tokens,
 * heads or slots), block 256. */
template <int FORMAT> DEVICE void gemm_input(const gemm_input_arguments &a)
{
    LDS static float factor;
    const float *x = row_of<const float>(a.x, group_x(), group_y());
    i64 row = group_x(), head = group_y();
    if (a.places) {
        row = a.places[row * a.slots + head];
        head = 0;
        if (row == NOWHERE)
            return;
    }
    char *to = a.to.at + row * a.to.row + head * a.to.head;
    float *scales = a.to.scales + row + head * a.to.scale_head;
    if (!wave()) {
        float r = a.norm ? norm_factor(sum_of_squares(x, a.columns), a.inverse, a.eps) : 1.0f;
        if (!lane())
            factor = r;
    }
    barrier();
    for (i64 k = thread() * 4; k < GEMM_PADDED(a.columns); k += 1024) {
        float4 v = input_at(a, x, k, factor);
        if (FORMAT == FNUZ)
            put_fnuz(to, scales, a.to.scale_step, k, v);
        else
            *(uint2 *)(to + k * 2) = uint2{two_bf16(v[0], v[1]), two_bf16(v[2], v[3])};
    }
}

KERNEL(256) gemm_input_bf16(gemm_input_arguments a)
{
    gemm_input<BF16>(a);
}

/* For FP8 weights whose rows are outputs. */
KERNEL(256) gemm_input_fp8(gemm_input_arguments a)
{
    gemm_input<FP8_OPERANDS>(a);
}

/* ---- pairs by expert ---- */

/* Of each expert of the bank: how many pairs it has, then the next one's place. */
extern LDS u32 places[];

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
 * order; those without pairs are empty. Pairs whose expert is elsewhere have no place; one out of
 * range neither, with a fault. Launch: one block of 1024; dynamic LDS: 4 bytes a resident expert.
 */
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
        u32 place = NOWHERE;
        if (slot >= 0) {
            place = __hip_atomic_fetch_add(&places[slot], 1u, __ATOMIC_RELAXED,
                                           __HIP_MEMORY_SCOPE_WORKGROUP);
            a.order[place] = pair;
        }
        if (a.places)
            a.places[pair] = place;
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

/* The row of inputs at a place, those past the end the last one. */
DEVICE u32 input_row(const gemm_arguments &a, const part &p, u32 place)
{
    place = place < p.end ? place : p.end - 1;
    return a.share ? a.order[place] / a.share : place;
}

/* A work-item moves 16 bytes of every 32nd row of a tile in LDS. */
enum { CHUNKS = 8, STEP_ROWS = 256 / CHUNKS, ROWS_EACH = GEMM_ROWS / STEP_ROWS };

DEVICE u32 place_of_chunk(u32 row, u32 chunk)
{
    return row * CHUNKS + (chunk ^ ((row ^ row >> 2) & 7));
}

/* Whether a NaN was among what has been rounded; then it must be done again, with care. */
struct nans {
    u64 lanes; /* of the wave, that have seen one */
    u32 bytes; /* FP8: in bits 7, 15, ... */
    METHOD void add(bool yes)
    {
        lanes |= __builtin_amdgcn_ballot_w64(yes);
    }
    METHOD bool any() const
    {
        return lanes || bytes & 0x80808080;
    }
};

/* Is one of them NaN? */
DEVICE bool unordered(float a, float b)
{
#if __clang_major__ < 16 /* ROCm 5.2's cannot put that comparison into a mask */
    return float_to_bits(a) << 1 > 0xff000000u || float_to_bits(b) << 1 > 0xff000000u;
#else
    return __builtin_isunordered(a, b);
#endif
}

/* Two that are bf16 already. */
DEVICE u32 two_cut(float low, float high)
{
    return __builtin_amdgcn_perm(float_to_bits(high), float_to_bits(low), 0x07060302);
}

DEVICE u32 two_rounded(float low, float high, nans &n)
{
    n.add(unordered(low, high));
    return two_plain_bf16(low, high);
}

template <int FORMAT> DEVICE uint4 rounded(const eight<FORMAT> &raw, nans &n)
{
    float v[8];
    raw.decode(v);
    return uint4{two_rounded(v[0], v[1], n), two_rounded(v[2], v[3], n), two_rounded(v[4], v[5], n),
                 two_rounded(v[6], v[7], n)};
}

template <int FORMAT> DEVICE uint4 rounded_with_care(const eight<FORMAT> &raw)
{
    float v[8];
    raw.decode(v);
    return uint4{two_bf16(v[0], v[1]), two_bf16(v[2], v[3]), two_bf16(v[4], v[5]),
                 two_bf16(v[6], v[7])};
}

/* f16 in fewer: x + 2^16 x ends where x as bf16 does, and is rounded there; 2^16 x is even there.
 * Of inf that makes NaN. */
DEVICE u32 two_rounded_f16(u32 bits, nans &n)
{
    float v[2] = {from_f16(bits), from_f16(bits >> 16)};
    for (int i = 0; i < 2; i++)
        v[i] = __builtin_fmaf(v[i], -65536.0f, v[i] * 65537.0f);
    n.add(unordered(v[0], v[1]));
    return two_cut(v[0], v[1]);
}

DEVICE uint4 rounded(const eight<F16> &raw, nans &n)
{
    return uint4{two_rounded_f16(raw.bits[0], n), two_rounded_f16(raw.bits[1], n),
                 two_rounded_f16(raw.bits[2], n), two_rounded_f16(raw.bits[3], n)};
}

DEVICE uint4 rounded(const eight<BF16> &raw, nans &)
{
    return raw.bits;
}

/* 16 elements of FP8. */
struct fp8_chunk {
    uint4 bytes;
    METHOD void load(const weight_row &w, i64 k)
    {
        bytes = fetch<false>((const uint4 *)(w.data + k));
    }
};

/* Four bytes from e4m3 to its FNUZ form: the same of half the value, but -0 is 0; and NaN is 0x80,
 * which is left to rounded_with_care. */
DEVICE u32 fnuz(u32 bytes, nans &n)
{
    u32 size = bytes & 0x7f7f7f7f;
    n.bytes |= size + 0x01010101;
    return ((size + 0x7f7f7f7f) & bytes & 0x80808080) | size;
}

DEVICE uint4 rounded(const fp8_chunk &raw, nans &n)
{
    return uint4{fnuz(raw.bytes[0], n), fnuz(raw.bytes[1], n), fnuz(raw.bytes[2], n),
                 fnuz(raw.bytes[3], n)};
}

DEVICE uint4 rounded_with_care(const fp8_chunk &raw)
{
    nans ignored = {};
    uint4 bits = rounded(raw, ignored);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u32 ones = ((raw.bytes[i] & 0x7f7f7f7f) + 0x01010101) >> 7 & 0x01010101;
        bits[i] = (bits[i] & ~(ones * 0xff)) | ones << 7;
    }
    return bits;
}

/* What 128 bytes of a row in LDS are, and a lane's 16 of them in memory. */
template <int FORMAT> struct format {
    enum { STEP = 64, CHUNK = 8 }; /* columns */
    typedef eight<FORMAT> raw;
    typedef uint2 four_bits;
};

template <> struct format<F32> {
    enum { STEP = 64, CHUNK = 8 };
    typedef eight<F32> raw;
    typedef float4 four_bits;
};

template <> struct format<FP8> {
    enum { STEP = 64, CHUNK = 8 };
    typedef eight<FP8> raw;
    typedef u32 four_bits;
};

template <> struct format<FNUZ> {
    enum { STEP = 128, CHUNK = 16 };
    typedef fp8_chunk raw;
};

/* Rows of weights in a workgroup: with `up`, of a wave's SPAN rows the first half are the first
 * matrix's, the others the second's of the same outputs. */
template <int FORMAT, int SPAN> struct weight_tile {
    weight_row rows[ROWS_EACH];
    typename format<FORMAT>::raw raw[ROWS_EACH];
    const float *scales, *up_scales; /* FNUZ: of the workgroup's 128 rows */
    float scale, up_scale;

    METHOD void find(const gemm_arguments &a, const part &p)
    {
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++) {
            u32 row = thread() / CHUNKS + (u32)i * STEP_ROWS, in = row % SPAN;
            bool up = a.up.data && in >= SPAN / 2;
            i64 at = a.up.data ? row / SPAN * (SPAN / 2) + in % (SPAN / 2) : row;
            rows[i] = row_of(up ? a.up : a.w, p.expert, p.row + (at < p.rows ? at : p.rows - 1));
        }
        scales = row_of(a.w, p.expert, p.row).scales;
        up_scales = a.up.data ? row_of(a.up, p.expert, p.row).scales : scales;
    }
    METHOD void fetch(const gemm_arguments &a, i64 step)
    {
        typedef format<FORMAT> f;
        i64 k = step * f::STEP + thread() % CHUNKS * f::CHUNK;
        bool have = k < a.columns;
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++) {
            raw[i] = {};
            if (have)
                raw[i].load(rows[i], k);
        }
        if (FORMAT == FNUZ) {
            scale = scales[step];
            up_scale = up_scales[step];
        }
    }
    METHOD void put(uint4 *to) const
    {
        nans n = {};
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++)
            *place(to, i) = rounded(raw[i], n);
        if (!n.any())
            return;
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++)
            *place(to, i) = rounded_with_care(raw[i]);
    }
    static METHOD uint4 *place(uint4 *tile, int i)
    {
        return tile + place_of_chunk(thread() / CHUNKS + (u32)i * STEP_ROWS, thread() % CHUNKS);
    }
};

/* Four elements of a row of weights. */
template <int FORMAT> struct four {
    typename format<FORMAT>::four_bits bits;
    METHOD void load(const char *row, i64 k)
    {
        bits = fetch<false>((const typename format<FORMAT>::four_bits *)row + k / 4);
    }
#ifdef HAS_FNUZ
    METHOD float4 decode_fnuz(float scale, nans &n) const
    {
        n.add(!(__builtin_fabsf(scale) < 0x1p126f)); /* its double must be a float */
        int half = (int)fnuz(bits, n);
        auto low = __builtin_amdgcn_cvt_pk_f32_fp8(half, false);
        auto high = __builtin_amdgcn_cvt_pk_f32_fp8(half, true);
        return float4{low[0], low[1], high[0], high[1]} * (2 * scale);
    }
#endif
    METHOD float4 decode(float scale, bool care, nans &n) const
    {
        if constexpr (FORMAT == F32) {
            return bits;
        } else if constexpr (FORMAT == FP8) {
#ifdef HAS_FNUZ
            if (!care)
                return decode_fnuz(scale, n);
#endif
            return float4{from_fp8(bits & 0xff), from_fp8(bits >> 8 & 0xff),
                          from_fp8(bits >> 16 & 0xff), from_fp8(bits >> 24)} *
                   scale;
        } else {
            return float4{from_16(bits[0]), from_16(bits[0] >> 16), from_16(bits[1]),
                          from_16(bits[1] >> 16)};
        }
    }
    static METHOD float from_16(u32 half)
    {
        return FORMAT == F16 ? from_f16(half) : from_bf16(half);
    }
};

/* Columns of a head's weights, which in LDS are rows of 64 of K: a work-item turns four columns of
 * eight rows. */
template <int FORMAT> struct column_tile {
    enum { COLUMNS = 4, ROWS = 8, ACROSS = GEMM_ROWS / COLUMNS };
    i64 first_row, column;
    four<FORMAT> raw[ROWS];
    float scale; /* FP8: of the eight rows' columns */
    float up_scale;

    METHOD void find(const gemm_arguments &a, const part &p)
    {
        first_row = p.head * a.head_rows + a.first_row;
        column = p.output + thread() % ACROSS * COLUMNS;
    }
    METHOD void fetch(const gemm_arguments &a, i64 step)
    {
        i64 row = step * 64 + thread() / ACROSS * ROWS;
        i64 left = column < a.rows ? a.columns - row : 0;
        weight_row w = row_of(a.w, 0, first_row + row);
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            raw[k] = {};
            if (k < left)
                raw[k].load(w.data + k * a.w.row, column);
        }
        if (FORMAT == FP8)
            scale = left > 0 ? w.scales[column / 128] : 0.0f;
    }
    METHOD void turn(uint4 *to, bool care, nans &n) const
    {
        float4 rows[ROWS];
#pragma unroll
        for (int k = 0; k < ROWS; k++)
            rows[k] = raw[k].decode(scale, care, n);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            uint4 bits;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float low = rows[2 * k][i], high = rows[2 * k + 1][i];
                bits[k] = FORMAT == BF16  ? two_cut(low, high)
                          : care          ? two_bf16(low, high)
                          : FORMAT == FP8 && FP8_WEIGHTS == FNUZ ? two_plain_bf16(low, high)
                                                               : two_rounded(low, high, n);
            }
            to[place_of_chunk(thread() % ACROSS * COLUMNS + (u32)i, thread() / ACROSS)] = bits;
        }
    }
    METHOD void put(uint4 *to) const
    {
        nans n = {};
        turn(to, false, n);
        if (n.any())
            turn(to, true, n);
    }
};

template <int FORMAT, int TOKENS> struct input_tile {
    enum { EACH = TOKENS / STEP_ROWS };
    const char *rows[EACH];
    uint4 raw[EACH];
    const float *scales; /* FNUZ: of row `lane` of the wave's 64 */
    float scale;

    METHOD void find(const gemm_arguments &a, const part &p, u32 x_first)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            u32 place = p.first + thread() / CHUNKS + (u32)i * STEP_ROWS;
            rows[i] = a.inputs.at + p.head * a.inputs.head +
                      (i64)input_row(a, p, place) * a.inputs.row + thread() % CHUNKS * 16;
        }
        if (FORMAT == FNUZ)
            scales = a.inputs.scales + p.head * a.inputs.scale_head +
                     input_row(a, p, p.first + x_first + lane());
    }
    METHOD void fetch(const gemm_arguments &a, i64 step)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            raw[i] = *(const uint4 *)(rows[i] + step * 128);
        if (FORMAT == FNUZ)
            scale = scales[step * a.inputs.scale_step];
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
    template <typename T> METHOD T at(int k) const /* 0 .. 3 */
    {
        uint2 bits = {half[k / 2][k % 2 * 2], half[k / 2][k % 2 * 2 + 1]};
        return __builtin_bit_cast(T, bits);
    }
};

template <int FORMAT> DEVICE float4 multiply(const operand &w, const operand &x, int k, float4 sum)
{
#ifdef HAS_FNUZ
    if (FORMAT == FNUZ)
        return __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(w.at<i64>(k), x.at<i64>(k), sum, 0, 0, 0);
#endif
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(w.at<short4>(k), x.at<short4>(k), sum, 0, 0,
                                                     0);
}

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

DEVICE void add_scaled(float4 &sums, float4 sum, float factor)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        sums[i] = __builtin_fmaf(sum[i], factor, sums[i]);
}

DEVICE float4 gated(float4 gate, float4 up)
{
    return float4{swiglu_of(gate[0], up[0]), swiglu_of(gate[1], up[1]), swiglu_of(gate[2], up[2]),
                  swiglu_of(gate[3], up[3])};
}

/* FORMAT: of the operands in LDS. */
template <typename WEIGHTS, int FORMAT, int TOKENS> DEVICE void gemm(const gemm_arguments &a)
{
    enum { SPAN = TOKENS / 2, W_BLOCKS = SPAN / 16, X_BLOCKS = 4, ACROSS = GEMM_ROWS / SPAN };
    LDS static uint4 w_tile[GEMM_ROWS * CHUNKS], x_tile[TOKENS * CHUNKS];
    part p;
    if (!find_part<TOKENS>(a, p))
        return;
    u32 w_first = wave() % ACROSS * SPAN, x_first = wave() / ACROSS * 64;
    WEIGHTS weights;
    input_tile<FORMAT, TOKENS> inputs;
    weights.find(a, p);
    inputs.find(a, p, x_first);
    weights.fetch(a, 0);
    inputs.fetch(a, 0);
    float4 sums[W_BLOCKS][X_BLOCKS] = {};
    i64 steps = (a.columns + format<FORMAT>::STEP - 1) / format<FORMAT>::STEP;
#pragma unroll 1
    for (i64 step = 0; step < steps; step++) {
        barrier();
        weights.put(w_tile);
        inputs.put(x_tile);
        float scale = weights.scale, up_scale = weights.up_scale, scales = inputs.scale;
        barrier();
        if (step + 1 < steps) {
            weights.fetch(a, step + 1);
            inputs.fetch(a, step + 1);
        }
        operand x[X_BLOCKS];
        float x_scale[X_BLOCKS];
#pragma unroll
        for (int i = 0; i < X_BLOCKS; i++) {
            x[i].read(x_tile, x_first + (u32)i * 16);
            if (FORMAT == FNUZ)
                x_scale[i] = of_lane(scales, (u32)i * 16 + lane() % 16);
        }
#pragma unroll
        for (int j = 0; j < W_BLOCKS; j++) {
            operand w;
            w.read(w_tile, w_first + (u32)j * 16);
            float4 sum[X_BLOCKS];
#pragma unroll
            for (int i = 0; i < X_BLOCKS; i++)
                sum[i] = FORMAT == FNUZ ? float4{0, 0, 0, 0} : sums[j][i];
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int i = 0; i < X_BLOCKS; i++)
                    sum[i] = multiply<FORMAT>(w, x[i], k, sum[i]);
#pragma unroll
            for (int i = 0; i < X_BLOCKS; i++)
                if (FORMAT == FNUZ)
                    add_scaled(sums[j][i], sum[i],
                               x_scale[i] * (j < W_BLOCKS / 2 ? scale : up_scale));
                else
                    sums[j][i] = sum[i];
        }
    }
#pragma unroll
    for (int i = 0; i < X_BLOCKS; i++) {
        u32 place = p.first + x_first + (u32)i * 16 + lane() % 16;
        if (place >= p.end)
            continue;
        output_row to;
        to.find(a, p, a.tiles ? a.order[place] : place);
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
 * the same weights run together; block 256. Two waves a SIMD leave 256 registers, with which clang
 * keeps the sums out of the accumulation registers, from where they would have to be moved. */
#define GEMM(name, format, tokens, ...)                                                            \
    KERNEL(256) __attribute__((amdgpu_waves_per_eu(2))) name(gemm_arguments a)                     \
    {                                                                                              \
        gemm<__VA_ARGS__, format, tokens>(a);                                                      \
    }
GEMM(gemm_64_f32, BF16, 64, weight_tile<F32, 32>)
GEMM(gemm_64_f16, BF16, 64, weight_tile<F16, 32>)
GEMM(gemm_64_bf16, BF16, 64, weight_tile<BF16, 32>)
GEMM(gemm_64_fp8, FP8_OPERANDS, 64, weight_tile<FP8_WEIGHTS, 32>)
GEMM(gemm_128_f32, BF16, 128, weight_tile<F32, 64>)
GEMM(gemm_128_f16, BF16, 128, weight_tile<F16, 64>)
GEMM(gemm_128_bf16, BF16, 128, weight_tile<BF16, 64>)
GEMM(gemm_128_fp8, FP8_OPERANDS, 128, weight_tile<FP8_WEIGHTS, 64>)
GEMM(gemm_columns_f32, BF16, 128, column_tile<F32>)
GEMM(gemm_columns_f16, BF16, 128, column_tile<F16>)
GEMM(gemm_columns_bf16, BF16, 128, column_tile<BF16>)
GEMM(gemm_columns_fp8, BF16, 128, column_tile<FP8>)
