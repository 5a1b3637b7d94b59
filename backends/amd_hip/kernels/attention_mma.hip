/*
 * attention_mma.hip: absorbed latent attention by the matrix units, the fast profile, for a bf16
 * cache of 512 latent columns and 64 rotated ones.
 *
 * A wave takes 16 rows: heads of one token. Four waves share tiles of 16 keys in LDS, each tile
 * twice: as keys, S^T = K Q^T, and turned, O^T = V^T P^T, by v_mfma_f32_16x16x16_bf16. In both a
 * lane has the results of row lane % 16, so that maxima, sums and factors stay where they are, and
 * P leaves the first product as the second wants it. Queries and P are rounded to bf16, sums are
 * f32. Waves of other sequences than the tile's wait for their turn.
 *
 * With several parts a workgroup takes part_keys keys and leaves its sums in scratch; the last one
 * to arrive merges them. Launch: grid (parts, waves / 4), block 256.
 */
#include "dot.hiph"

#include "attention_mma.h"
#include "cache.hiph"

typedef short short4 __attribute__((ext_vector_type(4)));

enum { KEYS = 16, KEY_BLOCKS = MMA_WIDTH / 16, VALUE_BLOCKS = MMA_LATENT / 16 };
enum { QUADS = KEYS / 4, CHUNKS = MMA_WIDTH / 4, ITEMS = QUADS * CHUNKS, ROUNDS = 3 };

/* Blocks of 64 places of 8 bytes. A key block has 16 columns of 16 keys, a place 4 columns of a
 * key; a value block the same turned, a place 4 keys of a column. Sixteen lanes read or write at a
 * time: reads take 16 keys or columns of a block, writes go to four blocks, whose numbers keep them
 * apart. */
struct tile {
    uint2 keys[KEY_BLOCKS][64], values[VALUE_BLOCKS][64];
    i64 rows[2][KEYS]; /* bytes of the cache, of this tile and the next one */
    int slots[MMA_WAVES], lasts[MMA_WAVES];
};

DEVICE u32 key_place(u32 block, u32 key, u32 quad)
{
    return quad * 16 + (key ^ (quad << 2 | (block & 3)));
}

DEVICE u32 value_place(u32 block, u32 column, u32 quad)
{
    return quad * 16 + (column ^ (block & 3));
}

/* A wave's rows: 16 heads of a token. */
struct unit {
    i64 token, first_head;
    int slot, last; /* last key; -1: no rows, or nothing to attend to */
};

DEVICE unit unit_of(const attention_mma_arguments &a)
{
    i64 groups = (a.heads + MMA_ROWS - 1) / MMA_ROWS, index = group_y() * MMA_WAVES + wave();
    unit u = {index / groups, index % groups * MMA_ROWS, -1, -1};
    if (u.token >= a.tokens)
        return u;
    place p = place_of_row(a.cache, u.token);
    if (p.slot == -1)
        return u;
    bool ok = inside_table(a.cache, p);
    i64 last = p.position / a.cache.page_size;
    for (i64 column = lane(); ok && column <= last; column += 64)
        ok = page_found(a.cache, p.slot, column);
    if (__builtin_amdgcn_ballot_w64(!ok)) {
        raise_fault(a.cache.fault);
        return u;
    }
    u.slot = p.slot;
    u.last = p.position;
    return u;
}

DEVICE short4 four_bf16(float4 v)
{
    uint2 bits = {two_bf16(v[0], v[1]), two_bf16(v[2], v[3])};
    return __builtin_bit_cast(short4, bits);
}

/* ---- keys from the cache ---- */

/* What a work-item carries of a tile: of four keys four columns, in each round. */
struct cargo {
    uint2 rows[ROUNDS][4];
};

/* Where the rows of the tile from key `first` on are, for a later fetch; past the end the last one.
 */
DEVICE void find_rows(const attention_mma_arguments &a, int slot, u32 first, u32 last, tile &d)
{
    u32 key = first + thread();
    if (thread() < KEYS)
        d.rows[first / KEYS % 2][thread()] = cache_offset(a.cache, slot, key < last ? key : last);
}

DEVICE void fetch_tile(const attention_mma_arguments &a, u32 first, const tile &d, cargo &c)
{
#pragma unroll
    for (u32 i = 0; i < ROUNDS; i++) {
        u32 item = i * 256 + thread(), quad = item / CHUNKS, chunk = item % CHUNKS;
        if (item >= ITEMS)
            continue;
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            i64 row = d.rows[first / KEYS % 2][quad * 4 + k];
            c.rows[i][k] = *(const uint2 *)(a.cache.rows.at + row + chunk * 8);
        }
    }
}

DEVICE void put_tile(const cargo &c, tile &d)
{
#pragma unroll
    for (u32 i = 0; i < ROUNDS; i++) {
        u32 item = i * 256 + thread(), quad = item / CHUNKS, chunk = item % CHUNKS;
        if (item >= ITEMS)
            continue;
#pragma unroll
        for (u32 k = 0; k < 4; k++)
            d.keys[chunk / 4][key_place(chunk / 4, quad * 4 + k, chunk % 4)] = c.rows[i][k];
        if (chunk >= MMA_LATENT / 4)
            continue;
#pragma unroll
        for (u32 k = 0; k < 4; k++) { /* column k of the four, of all four keys */
            u32 by = k % 2 * 16;
            uint2 turned = {(c.rows[i][0][k / 2] >> by & 0xffff) | c.rows[i][1][k / 2] >> by << 16,
                            (c.rows[i][2][k / 2] >> by & 0xffff) | c.rows[i][3][k / 2] >> by << 16};
            d.values[chunk / 4][value_place(chunk / 4, chunk % 4 * 4 + k, quad)] = turned;
        }
    }
}

/* ---- a wave's work on a tile ---- */

struct sums {
    float4 o[VALUE_BLOCKS]; /* columns 16 i + 4 (lane / 16) .. + 3 of row lane % 16 */
    float top, sum;         /* sum: of this lane's keys */
};

DEVICE float over_keys(float value, bool largest)
{
    float other = of_xor<16>(value);
    value = largest ? __builtin_fmaxf(value, other) : value + other;
    other = of_lane(value, lane() ^ 32);
    return largest ? __builtin_fmaxf(value, other) : value + other;
}

DEVICE void scale_sums(sums &s, float by)
{
#pragma unroll
    for (int i = 0; i < VALUE_BLOCKS; i++)
        s.o[i] = s.o[i] * by;
    s.sum = s.sum * by;
}

/* `left`: keys of the tile, from its first on, that the rows may see. */
DEVICE void attend(const attention_mma_arguments &a, const short4 (&q)[KEY_BLOCKS], int left,
                   const tile &d, sums &s)
{
    u32 column = lane() % 16, quad = lane() / 16;
    float4 scores = {0, 0, 0, 0};
#pragma unroll
    for (u32 i = 0; i < KEY_BLOCKS; i++) {
        short4 keys = __builtin_bit_cast(short4, d.keys[i][key_place(i, column, quad)]);
        scores = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(keys, q[i], scores, 0, 0, 0);
    }
    float most = -1e30f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        scores[i] = (int)quad * 4 + i < left ? scores[i] * a.scale : -1e30f;
        most = __builtin_fmaxf(most, scores[i]);
    }
    most = __builtin_fmaxf(s.top, over_keys(most, true));
    if (__builtin_amdgcn_ballot_w64(most > s.top))
        scale_sums(s, __builtin_amdgcn_exp2f(s.top - most));
    s.top = most;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        scores[i] = (int)quad * 4 + i < left ? __builtin_amdgcn_exp2f(scores[i] - most) : 0.0f;
        s.sum = s.sum + scores[i];
    }
    short4 p = four_bf16(scores);
#pragma unroll
    for (u32 i = 0; i < VALUE_BLOCKS; i++) {
        short4 values = __builtin_bit_cast(short4, d.values[i][value_place(i, column, quad)]);
        s.o[i] = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(values, p, s.o[i], 0, 0, 0);
    }
}

/* ---- parts ---- */

DEVICE float *part_at(const attention_mma_arguments &a, u32 part)
{
    return a.parts + ((group_y() * a.part_count + part) * MMA_WAVES + wave()) * MMA_PART_FLOATS +
           lane();
}

DEVICE void store_part(const attention_mma_arguments &a, u32 part, const sums &s)
{
    float *to = part_at(a, part);
#pragma unroll
    for (int i = 0; i < VALUE_BLOCKS; i++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            to[(i * 4 + k) * 64] = s.o[i][k];
    to[MMA_LATENT * MMA_ROWS] = s.top;
    to[MMA_LATENT * MMA_ROWS + 64] = s.sum;
}

DEVICE void merge_part(const attention_mma_arguments &a, u32 part, sums &s)
{
    const float *from = part_at(a, part);
    float top = from[MMA_LATENT * MMA_ROWS], most = __builtin_fmaxf(s.top, top);
    float right = __builtin_amdgcn_exp2f(top - most);
    scale_sums(s, __builtin_amdgcn_exp2f(s.top - most));
    s.top = most;
    s.sum = s.sum + from[MMA_LATENT * MMA_ROWS + 64] * right;
#pragma unroll
    for (int i = 0; i < VALUE_BLOCKS; i++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            s.o[i][k] = s.o[i][k] + from[(i * 4 + k) * 64] * right;
}

DEVICE void store_rows(const attention_mma_arguments &a, const unit &u, const sums &s)
{
    i64 head = u.first_head + lane() % 16;
    if (u.last < 0 || head >= a.heads)
        return;
    float r = 1.0f / s.sum;
    float *y = row_of<float>(a.y, u.token, head) + lane() / 16 * 4;
#pragma unroll
    for (int i = 0; i < VALUE_BLOCKS; i++)
        *(float4 *)(y + i * 16) = s.o[i] * r;
}

/* ---- the kernel ---- */

/* The keys [first, end) of the waves' sequences, one sequence after the other. */
DEVICE void walk_keys(const attention_mma_arguments &a, const unit &u,
                      const short4 (&q)[KEY_BLOCKS], u32 first, u32 end, tile &d, sums &s)
{
    for (int turn = 0; turn < MMA_WAVES; turn++) {
        int slot = d.slots[turn], last = d.lasts[turn], seen = 0;
#pragma unroll
        for (int i = 0; i < MMA_WAVES; i++) {
            seen |= i < turn && d.lasts[i] >= 0 && d.slots[i] == slot;
            last = d.slots[i] == slot && d.lasts[i] > last ? d.lasts[i] : last;
        }
        if (d.lasts[turn] < 0 || seen || last < (int)first)
            continue;
        u32 stop = (u32)last + 1 < end ? (u32)last + 1 : end;
        cargo c;
        barrier();
        find_rows(a, slot, first, (u32)last, d);
        find_rows(a, slot, first + KEYS, (u32)last, d);
        barrier();
        fetch_tile(a, first, d, c);
        for (u32 key = first; key < stop; key += KEYS) {
            barrier();
            put_tile(c, d);
            find_rows(a, slot, key + 2 * KEYS, (u32)last, d);
            barrier();
            if (key + KEYS < stop)
                fetch_tile(a, key + KEYS, d, c);
            if (u.slot == slot && u.last >= (int)key)
                attend(a, q, u.last + 1 - (int)key, d, s);
        }
    }
}

KERNEL(256) attention_mma(attention_mma_arguments a)
{
    LDS static tile d;
    unit u = unit_of(a);
    if (!lane()) {
        d.slots[wave()] = u.slot;
        d.lasts[wave()] = u.last;
    }
    barrier();
    int last = -1;
#pragma unroll
    for (int i = 0; i < MMA_WAVES; i++)
        last = d.lasts[i] > last ? d.lasts[i] : last;
    u32 part = (u32)group_x(), first = part * a.part_keys;
    if (last < (int)first)
        return;
    short4 q[KEY_BLOCKS];
    i64 head = u.first_head + lane() % 16;
    const float *row = row_of<const float>(a.q, u.token < a.tokens ? u.token : 0,
                                           head < a.heads ? head : a.heads - 1);
#pragma unroll
    for (int i = 0; i < KEY_BLOCKS; i++)
        q[i] = four_bf16(*(const float4 *)(row + i * 16 + lane() / 16 * 4));
    sums s = {};
    s.top = -1e30f;
    walk_keys(a, u, q, first, first + a.part_keys, d, s);
    s.sum = over_keys(s.sum, false);
    u32 parts = (u32)last / a.part_keys + 1;
    if (parts > 1) {
        store_part(a, part, s);
        if (!last_group(a.counters + group_y(), parts))
            return;
        s = {};
        s.top = -1e30f;
        for (u32 i = 0; i < parts; i++)
            merge_part(a, i, s);
    }
    store_rows(a, u, s);
}
