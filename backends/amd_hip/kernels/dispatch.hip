/*
 * dispatch.hip: tokens to the ranks that have their experts, and what became of them back
 * (mh_op_exchange; chunks, flags and turns as in exchange.hip).
 *
 * Dispatch. A chunk is of tokens, and has a fixed place in a part of the buffer that is its rank's:
 * first its choices, for each slot the expert if the reader has it or -1, then its rows. A row goes
 * once to each rank that needs it, and nothing has to be known for that. Where it belongs in y
 * depends on what all ranks before have: first of all every rank tells every other how many rows
 * each chunk has for it, a word with the operation's number beside the count, so that it needs no
 * flag. A reader has its own rows from x.
 *
 * Return. Slots have a fixed place in the buffer of the rank that they belong to. A workgroup of
 * the rank that has a row stores it there, and the operation's number as the slot's mark; flags are
 * a workgroup's. A rank waits for all of them, and takes what is marked.
 *
 * A row is moved by a team of `team` work-items, from a wave to a workgroup. Launch: grid (blocks);
 * block 256 or 512.
 */
#include "exchange.hiph"

enum { WAVE = 64, NOBODY = 0xffffffff };

DEVICE u64 ballot(bool yes)
{
    return __builtin_amdgcn_ballot_w64(yes);
}

/* The sum of all lanes' values. */
DEVICE u32 of_wave(u32 value)
{
    for (u32 other = WAVE / 2; other; other /= 2)
        value += __builtin_amdgcn_ds_bpermute((int)((lane() ^ other) * 4), (int)value);
    return value;
}

DEVICE u64 whole_units(u64 bytes)
{
    return (bytes + 15) & ~15ull;
}

/* A work-item's team, of a workgroup's or of all. */
struct teams {
    u32 index, count, mine;

    METHOD static teams of(const exchange_arguments &a, u32 team)
    {
        return {wave() * WAVE / team, a.threads / team, thread() % team};
    }
    METHOD teams of_all(const exchange_arguments &a) const
    {
        return {(u32)group_x() * count + index, count * a.blocks, mine};
    }
};

template <typename T> DEVICE void move_row(u64 from, u64 to, u64 width, u32 mine, u32 team)
{
    for (u64 i = mine * sizeof(T); i < width; i += team * sizeof(T))
        store(to + i, load<T>(from + i));
}

/* ---- dispatch ---- */

/* This rank's rows, of each source: all, those before the chunk (then: where they begin), those of
 * the chunk; and of all sources. */
LDS static u32 sums[EXCHANGE_RANKS], firsts[EXCHANGE_RANKS], heres[EXCHANGE_RANKS], total;

template <typename T> struct dispatcher {
    operation o;
    const dispatch_arguments &d;
    u32 turn;

    METHOD u32 all_chunks() const
    {
        u32 chunks = chunks_of(d.tokens, o.a.chunk);
        return chunks ? chunks : 1; /* of no tokens */
    }
    /* The rank that has the expert of a slot; a.ranks is nobody. */
    METHOD u32 owner(u64 slot, u32 &expert) const
    {
        expert = o.a.experts[slot];
        return expert < o.a.expert_count ? o.a.owners[expert] : o.a.ranks;
    }
    METHOD u64 place(u32 c, u32 rank) const
    {
        return rank * d.stride + c * (d.choice_bytes + o.a.chunk * whole_units(d.width));
    }
    METHOD exchange_memory *peer(u32 rank) const
    {
        return (exchange_memory *)o.a.own->ranks[rank];
    }

    /* What every chunk has for whom: a wave each, lane r for rank r. All of it is the first
     * workgroup's to tell, as others wait for it, some of which may begin only when the first have
     * ended. */
    METHOD void tell_counts() const
    {
        const exchange_arguments &a = o.a;
        for (u32 c = wave(), chunks = all_chunks(); c < chunks; c += a.threads / WAVE) {
            u64 low = c * a.chunk, high = low + a.chunk < d.tokens ? low + a.chunk : d.tokens;
            u32 count = 0, expert;
            for (u64 at = low * d.slots; at < high * d.slots; at += WAVE) {
                u32 r = a.ranks;
                if (at + lane() < high * d.slots)
                    r = owner(at + lane(), expert);
                for (u32 q = 0; q < a.ranks; q++) {
                    u32 found = (u32)__builtin_popcountll(ballot(r == q));
                    count += lane() == q ? found : 0;
                }
            }
            if (lane() < a.ranks)
                __hip_atomic_store(&peer(lane())->counts[turn & 1][a.rank][c],
                                   (u64)(o.epoch - d.part) << 32 | count, __ATOMIC_RELAXED, SYSTEM);
        }
    }
    METHOD void send_choices(u32 c) const
    {
        const exchange_arguments &a = o.a;
        u64 at = o.low(c) * d.slots, end = o.high(c) * d.slots, to = place(c, a.rank);
        for (u64 i = at + thread(); i < end; i += a.threads) {
            u32 expert, owned = owner(i, expert), r = a.rank;
            do {
                r = o.next(r);
                *(u32 *)(buffers[r] + to + 4 * (i - at)) = r == owned ? expert : NOBODY;
            } while (r != a.rank);
        }
    }
    METHOD void send(u32 c) const
    {
        const exchange_arguments &a = o.a;
        const teams t = teams::of(a, d.team);
        u64 low = o.low(c), high = o.high(c), rows = place(c, a.rank) + d.choice_bytes;
        if (d.choices)
            send_choices(c);
        for (u64 token = low + t.index; token < high; token += t.count) {
            u32 need = 0, expert; /* the ranks that have an expert of this token, a bit each */
            for (u64 j = 0; j < d.slots; j += WAVE) {
                u32 r = a.ranks;
                if (j + lane() < d.slots)
                    r = owner(token * d.slots + j + lane(), expert);
                for (u32 q = 0; q < a.ranks; q++)
                    need |= ballot(r == q) ? 1u << q : 0;
            }
            u64 from = a.x + token * a.row, to = rows + (token - low) * whole_units(d.width);
            for (u64 i = t.mine * sizeof(T); i < d.width; i += d.team * sizeof(T)) {
                T unit = load<T>(from + i);
                for (u32 r = o.next(a.rank); r != a.rank; r = o.next(r))
                    if (need >> r & 1)
                        store(buffers[r] + to + i, unit);
            }
        }
        o.signal(c);
    }

    /* False: a rank did not come. `at` is the chunk among all. */
    METHOD bool add_up(u32 at) const
    {
        const exchange_arguments &a = o.a;
        bool failed = false;
        for (u32 s = wave(); s < a.ranks; s += a.threads / WAVE) {
            u32 all = 0, before = 0, here = 0;
            for (u32 n = lane(), chunks = all_chunks(); n < chunks && !failed; n += WAVE) {
                const u64 *word = &a.own->counts[turn & 1][s][n];
                u32 count = 0;
                failed = !o.comes(s, o.epoch - d.part, [&] {
                    u64 now = __hip_atomic_load(word, __ATOMIC_RELAXED, SYSTEM);
                    count = (u32)now;
                    return (u32)(now >> 32);
                });
                all += count;
                before += n < at ? count : 0;
                here += n == at ? count : 0;
            }
            all = of_wave(all), before = of_wave(before), here = of_wave(here);
            if (!lane())
                sums[s] = all, firsts[s] = before, heres[s] = here;
        }
        if (!o.met(failed))
            return false;
        if (thread() < a.ranks) {
            u32 before = 0;
            for (u32 s = 0; s < thread(); s++)
                before += sums[s];
            firsts[thread()] += before;
            if (thread() + 1 == a.ranks)
                total = before + sums[thread()];
        }
        barrier();
        return true;
    }

    /* What there is not. */
    METHOD void blank() const
    {
        u32 first = total < d.most ? total : d.most, item = (u32)group_x() * o.a.threads + thread();
        if (!item) {
            *d.count = first;
            if (total > d.most)
                __atomic_store_n(d.fault, (u32)OUT_OF_MEMORY, __ATOMIC_RELAXED);
        }
        for (u64 n = first + item; n < d.most; n += o.a.blocks * o.a.threads) {
            d.source[3 * n] = d.source[3 * n + 1] = d.source[3 * n + 2] = NOBODY;
            d.arrived[n] = o.a.expert_count;
        }
    }
    METHOD void list(u32 c) const
    {
        const exchange_arguments &a = o.a;
        for (u32 s = wave(); s < a.ranks; s += a.threads / WAVE) {
            const u32 *choices = (const u32 *)(buffers[a.rank] + place(c, s));
            u64 end = (o.high(c) - o.low(c)) * d.slots;
            u32 first = firsts[s];
            for (u64 at = 0; at < end; at += WAVE) {
                u64 i = at + lane();
                u32 expert = i < end ? choices[i] : NOBODY;
                u64 has = ballot(expert < a.expert_count);
                u64 n = first + (u32)__builtin_popcountll(has & ((1ull << lane()) - 1));
                first += (u32)__builtin_popcountll(has);
                if (expert >= a.expert_count || n >= d.most)
                    continue;
                d.source[3 * n] = s;
                d.source[3 * n + 1] = (u32)(o.low(c) + i / d.slots);
                d.source[3 * n + 2] = (u32)(i % d.slots);
                d.arrived[n] = expert;
            }
        }
    }
    /* Rows of all sources, one after the other, dealt out to the teams. */
    METHOD void take_rows(u32 c) const
    {
        const exchange_arguments &a = o.a;
        const teams t = teams::of(a, d.team);
        u32 q = t.index, done = 0;
        for (u32 s = 0; s < a.ranks; s++) {
            u64 rows = buffers[a.rank] + place(c, s) + d.choice_bytes;
            u32 first = firsts[s] - done;
            for (done += heres[s]; q < done; q += t.count) {
                u64 n = first + q;
                if (n >= d.most)
                    continue;
                u64 token = d.source[3 * n + 1];
                u64 from = s == a.rank ? a.x + token * a.row
                                       : rows + (token - o.low(c)) * whole_units(d.width);
                move_row<T>(from, a.y + n * a.row, d.width, t.mine, d.team);
            }
        }
    }
    METHOD bool receive(u32 c) const
    {
        const exchange_arguments &a = o.a;
        if (!o.await(c, o.others()) || !add_up((u32)(a.begin / a.chunk) + c))
            return false;
        if (!d.part && c == (u32)group_x())
            blank();
        if (d.choices)
            list(c);
        barrier();
        take_rows(c);
        barrier();
        return true;
    }
};

template <typename T> DEVICE void dispatch(const dispatch_arguments &d)
{
    const exchange_arguments &a = d.e;
    u32 epoch = begin_operation(a), turn = a.own->turn,
        chunks = chunks_of(a.end - a.begin, a.chunk);
    if (!epoch)
        return;
    dispatcher<T> work = {{a, epoch}, d, turn};
    if (a.sends && !d.part && !group_x())
        work.tell_counts();
    if (!do_chunks(a, work, chunks ? chunks : 1) || !ends_operation(a))
        return;
    a.own->epoch = epoch;
    if (d.last)
        a.own->turn = turn + 1;
}

KERNEL(512) exchange_dispatch(dispatch_arguments d)
{
    if (d.e.unit == 16)
        dispatch<uint4>(d);
    else if (d.e.unit == 4)
        dispatch<u32>(d);
    else
        dispatch<u16>(d);
}

/* ---- return ---- */

template <typename T> struct returner {
    operation o;
    const return_arguments &d;

    /* A team looks at 64 items of [0, most) at a time, as far from each other as there are teams;
     * `wanted` says which are to be moved, `move` does it, with the lane that asked. */
    template <typename WANTED, typename MOVE>
    METHOD void for_each(const teams &t, u64 most, WANTED wanted, MOVE move) const
    {
        for (u64 at = t.index; at < most; at += WAVE * t.count) {
            u64 item = at + (u64)lane() * t.count, need = ballot(item < most && wanted(item));
            u32 count = (u32)__builtin_popcountll(need);
            /* So that not all begin with what goes to one rank. */
            u32 turned = count ? t.index % count : 0;
            while (need) {
                u64 from = need >> turned | (turned ? need << (WAVE - turned) : 0);
                u32 next = (u32)__builtin_ctzll(from) + turned & (WAVE - 1);
                next = __builtin_amdgcn_readfirstlane(next);
                need &= ~(1ull << next);
                move(at + (u64)next * t.count, next);
            }
        }
    }
    METHOD void send(const teams &t) const
    {
        const exchange_arguments &a = o.a;
        u32 rank = 0, place = 0; /* of the lane's row */
        for_each(
            t, d.most,
            [&](u64 n) {
                const u32 *from = d.source + 3 * n;
                rank = from[0];
                if (rank == NOBODY)
                    return false;
                if (rank >= a.ranks || from[1] >= d.tokens || from[2] >= d.slots) {
                    raise_fault(d.fault);
                    return false;
                }
                u64 slot = (u64)from[1] * d.slots + from[2];
                place = (u32)(slot - a.begin);
                return slot >= a.begin && slot < a.end;
            },
            [&](u64 n, u32 asked) {
                u32 to_rank = __builtin_amdgcn_readlane(rank, asked);
                u32 slot = __builtin_amdgcn_readlane(place, asked);
                u64 to = buffers[to_rank] + slot * whole_units(d.width);
                if (to_rank == a.rank)
                    to = a.y + (a.begin + slot) * a.row;
                else if (!t.mine)
                    ((exchange_memory *)a.own->ranks[to_rank])->marks[o.epoch & 1][slot] = o.epoch;
                move_row<T>(a.x + n * a.row, to, d.width, t.mine, d.team);
            });
        o.signal((u32)group_x());
    }
    METHOD bool receive(const teams &t) const
    {
        const exchange_arguments &a = o.a;
        const u32 *marks = a.own->marks[o.epoch & 1];
        bool failed = false;
        for (u32 i = thread(); i < a.ranks * a.blocks && !failed; i += a.threads)
            if (i / a.blocks != a.rank)
                failed = !o.came(i / a.blocks, i % a.blocks);
        if (!o.met(failed))
            return false;
        for_each(
            t, a.end - a.begin, [&](u64 slot) { return marks[slot] == o.epoch; },
            [&](u64 slot, u32) {
                move_row<T>(buffers[a.rank] + slot * whole_units(d.width),
                            a.y + (a.begin + slot) * a.row, d.width, t.mine, d.team);
            });
        return true;
    }
};

/* Either phase is a launch of its own: nobody waits for what begins later. */
template <typename T> DEVICE void give_back(const return_arguments &d)
{
    const exchange_arguments &a = d.e;
    u32 epoch = begin_operation(a);
    if (!epoch)
        return;
    const teams t = teams::of(a, d.team).of_all(a);
    returner<T> work = {{a, epoch}, d};
    if (a.sends)
        work.send(t);
    else if (work.receive(t) && ends_operation(a))
        a.own->epoch = epoch;
}

KERNEL(512) exchange_return(return_arguments d)
{
    if (d.e.unit == 16)
        give_back<uint4>(d);
    else if (d.e.unit == 4)
        give_back<u32>(d);
    else
        give_back<u16>(d);
}
