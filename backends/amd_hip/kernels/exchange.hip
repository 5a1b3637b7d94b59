/*
 * exchange.hip: ranks write into each other's memory (mh_op_exchange).
 *
 * Bytes [begin, end) are cut into chunks, chunk c for workgroup c % blocks. A workgroup stores what
 * it sends of a chunk into the buffers of the others, then sets its flag for the chunk there, a
 * release for the whole system; it waits for the flags that it needs, acquires, and takes the bytes
 * from its own buffer. Flags hold the number of the operation and only grow, so that nothing is
 * ever reset.
 *
 * Two buffers take turns. Whoever stores into one in operation n has, in n - 1, had chunk 0's flag
 * of every rank, which that rank set after its operation n - 2, the last that read the buffer, was
 * over.
 *
 * What passes through once is not kept in caches. Launch: grid (blocks), blocks at most the chunks;
 * block 256 or 512.
 */
#include "exchange.hiph"

template <typename WORK> DEVICE void exchange(const exchange_arguments &a)
{
    u32 epoch = begin_operation(a);
    if (!epoch)
        return;
    WORK work = {{a, epoch}};
    if (do_chunks(a, work, chunks_of(a.end - a.begin, a.chunk)) && ends_operation(a))
        a.own->epoch = epoch;
}

/* ---- move ---- */

template <typename T> struct mover {
    operation o;

    /* The run of a chunk's bytes from `at` on that have one owner: its end. */
    METHOD u64 run(u64 at, u64 high, u32 &owner) const
    {
        const exchange_arguments &a = o.a;
        u64 row = at / a.row, end = (row + 1) * a.row;
        owner = a.owner;
        if (a.owner == EXCHANGE_BY_ROW)
            owner = (u32)row;
        if (a.owner == EXCHANGE_BY_EXPERT) {
            u32 expert = a.experts[row];
            owner = expert < a.expert_count ? a.owners[expert] : a.ranks; /* nobody's */
        }
        return end < high ? end : high;
    }
    METHOD void send_run(u64 at, u64 end) const
    {
        const exchange_arguments &a = o.a;
        for (u64 i = at + thread() * sizeof(T); i < end; i += a.threads * sizeof(T)) {
            T unit = load<T>(a.x + i);
            for (u32 r = o.next(a.rank); r != a.rank; r = o.next(r))
                store(buffers[r] + i - a.begin, unit);
            if (a.x != a.y)
                store(a.y + i, unit);
        }
    }
    METHOD void send(u32 c) const
    {
        bool tell = c == 0; /* which is signalled whatever is in it */
        u64 high = o.high(c), end;
        u32 owner;
        for (u64 at = o.low(c); at < high; at = end) {
            end = run(at, high, owner);
            if (owner == o.a.rank) {
                send_run(at, end);
                tell = true;
            }
        }
        if (tell)
            o.signal(c);
    }
    METHOD bool receive(u32 c) const
    {
        const exchange_arguments &a = o.a;
        u32 need = c ? 0 : o.others(), owner; /* chunk 0: that all have begun */
        u64 high = o.high(c), end;
        for (u64 at = o.low(c); at < high; at = end) {
            end = run(at, high, owner);
            need |= owner < a.ranks ? 1u << owner : 0;
        }
        if (!o.await(c, need & o.others()))
            return false;
        u64 from = buffers[a.rank] - a.begin;
        for (u64 at = o.low(c); at < high; at = end) {
            end = run(at, high, owner);
            if (owner == a.rank || owner >= a.ranks)
                continue;
            for (u64 i = at + thread() * sizeof(T); i < end; i += a.threads * sizeof(T))
                store(a.y + i, load<T>(from + i));
        }
        return true;
    }
};

KERNEL(512) exchange_move(exchange_arguments a)
{
    if (a.unit == 16)
        exchange<mover<uint4>>(a);
    else if (a.unit == 4)
        exchange<mover<u32>>(a);
    else
        exchange<mover<u16>>(a);
}

/* ---- sum ---- */

/* The float that is the even or odd half of a word of bf16. */
DEVICE float half_of(u32 word, int odd)
{
    return bits_to_float(odd ? word & 0xffff0000u : word << 16);
}

/* The floats of a unit T, added up. */
template <typename T, bool IS_BF16> struct sums {
    enum { WORDS = (sizeof(T) + 3) / 4, EACH = IS_BF16 ? 2 : 1 };
    float at[WORDS][EACH];

    static METHOD u32 word(const T &unit, int w)
    {
        if constexpr (WORDS == 1)
            return (u32)unit;
        else
            return unit[w];
    }
    METHOD void add(const T &unit, bool first)
    {
#pragma unroll
        for (int w = 0; w < WORDS; w++)
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                float v = IS_BF16 ? half_of(word(unit, w), i) : bits_to_float(word(unit, w));
                at[w][i] = first ? v : at[w][i] + v;
            }
    }
    METHOD T total() const
    {
        if constexpr (WORDS == 1)
            return (T)(IS_BF16 ? two_bf16(at[0][0], at[0][EACH - 1]) : float_to_bits(at[0][0]));
        else {
            T unit;
#pragma unroll
            for (int w = 0; w < WORDS; w++)
                unit[w] = IS_BF16 ? two_bf16(at[w][0], at[w][EACH - 1]) : float_to_bits(at[w][0]);
            return unit;
        }
    }
};

/* Piece r of x goes to rank r's buffer, at `stride` times this rank. begin, end and chunks are
 * offsets in a piece; the pieces end at `size`. */
template <typename T, bool IS_BF16> struct summer {
    operation o;

    /* Where what a chunk has of rank r's piece ends. */
    METHOD u64 end_of(u32 c, u32 rank) const
    {
        u64 piece = rank * o.a.row, left = piece < o.a.size ? o.a.size - piece : 0;
        return left < o.high(c) ? left : o.high(c);
    }
    METHOD void send(u32 c) const
    {
        const exchange_arguments &a = o.a;
        for (u32 r = o.next(a.rank); r != a.rank; r = o.next(r)) {
            u64 from = a.x + r * a.row, to = buffers[r] + a.rank * a.stride - a.begin;
            for (u64 i = o.low(c) + thread() * sizeof(T), end = end_of(c, r); i < end;
                 i += a.threads * sizeof(T))
                store(to + i, load<T>(from + i));
        }
        o.signal(c);
    }
    METHOD bool receive(u32 c) const
    {
        const exchange_arguments &a = o.a;
        if (!o.await(c, o.others()))
            return false;
        u64 own = a.x + a.rank * a.row, data = buffers[a.rank] - a.begin;
        for (u64 i = o.low(c) + thread() * sizeof(T), end = end_of(c, a.rank); i < end;
             i += a.threads * sizeof(T)) {
            sums<T, IS_BF16> s;
            for (u32 r = 0; r < a.ranks; r++)
                s.add(load<T>((r == a.rank ? own : data + r * a.stride) + i), r == 0);
            store(a.y + i, s.total());
        }
        return true;
    }
};

KERNEL(512) exchange_sum(exchange_arguments a)
{
    if (a.unit == 16) {
        if (a.bf16)
            exchange<summer<uint4, true>>(a);
        else
            exchange<summer<uint4, false>>(a);
    } else if (a.unit == 4) {
        if (a.bf16)
            exchange<summer<u32, true>>(a);
        else
            exchange<summer<u32, false>>(a);
    } else {
        exchange<summer<u16, true>>(a);
    }
}
