/* Global, flat, scratch, buffer and LDS accesses. */
#include "lanes.h"

bool VA_NAME(bind_memory)(struct va_insn *insn);

typedef uint32_t row[VA_LANES] __attribute__((aligned(64)));

/* What a row of the table moves: bytes, sign, half of the register. Kept in insn->simple and wb. */
struct shape {
    uint8_t bytes; /* of memory a lane */
    bool is_signed;
    uint8_t half; /* d16: 1 lower, 2 upper; 0: whole registers */
    bool store, atomic;
};

static struct shape shape_of(const struct va_insn *i)
{
    const char *n = va_rows[i->op].name;
    struct shape s = {.bytes = 4};
    s.store = strstr(n, "store") || strstr(n, "write");
    s.atomic = strstr(n, "atomic");
    s.half = strstr(n, "d16_hi") ? 2 : strstr(n, "d16") ? 1 : 0;
    s.is_signed =
        strstr(n, "sbyte") || strstr(n, "sshort") || strstr(n, "_i8") || strstr(n, "_i16");
    if (strstr(n, "byte") || strstr(n, "_u8") || strstr(n, "_i8") || strstr(n, "_b8"))
        s.bytes = 1;
    else if (strstr(n, "short") || strstr(n, "_u16") || strstr(n, "_i16") || strstr(n, "_b16"))
        s.bytes = 2;
    else if (strstr(n, "x4") || strstr(n, "_b128"))
        s.bytes = 16;
    else if (strstr(n, "x3") || strstr(n, "_b96"))
        s.bytes = 12;
    else if (strstr(n, "x2") || strstr(n, "_b64") || strstr(n, "_u64") || strstr(n, "_i64") ||
             strstr(n, "_f64"))
        s.bytes = 8;
    return s;
}

/* ---- moving lanes ---- */

static uint32_t loaded(uint32_t old, const void *p, struct shape s)
{
    uint32_t v = 0;
    memcpy(&v, p, s.bytes);
    if (s.is_signed)
        v = s.bytes == 1 ? (uint32_t)(int8_t)v : (uint32_t)(int16_t)v;
    if (s.half == 1)
        return (v & 0xffff) | (old & 0xffff0000);
    if (s.half == 2)
        return v << 16 | (old & 0xffff);
    return v;
}

/* Where a load's registers are to be written: the rows themselves, or those of a pending result. */
static uint32_t (*target(struct va_wave *w, const struct va_insn *i, bool vm, bool lgkm,
                         unsigned width))[VA_LANES]
{
    if (VA_LIKELY(!w->queue))
        return (uint32_t(*)[VA_LANES])va_row(w, i->d);
    struct va_pending *p = va_defer(w, i, vm, lgkm, false, i->d, width);
    memcpy(p->data, va_row(w, i->d), width * sizeof(row));
    return p->data;
}

static void note_store(struct va_wave *w, const struct va_insn *i, bool vm, bool lgkm)
{
    if (w->queue)
        va_defer(w, i, vm, lgkm, false, VA_NONE, 0);
}

/* The processor moves an aligned word at once, whatever other workgroups do to it meanwhile; the
 * thread sanitizer wants to be told, the compiler had better not: it moves rows of words. */
VA_INLINE uint32_t word_at(const void *p)
{
    uint32_t v;
#if defined(__SANITIZE_THREAD__)
    if (!((uintptr_t)p & 3))
        return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
#endif
    memcpy(&v, p, 4);
    return v;
}

VA_INLINE void put_word(void *p, uint32_t v)
{
#if defined(__SANITIZE_THREAD__)
    if (!((uintptr_t)p & 3)) {
        __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED);
        return;
    }
#endif
    memcpy(p, &v, 4);
}

/* One lane's registers from memory, or to it. */
VA_INLINE void move_lane(uint32_t (*d)[VA_LANES], int l, void *p, struct shape s)
{
    if (s.store) {
        if (s.bytes < 4) {
            uint32_t v = s.half == 2 ? d[0][l] >> 16 : d[0][l];
            memcpy(p, &v, s.bytes);
        } else {
            for (unsigned k = 0; k < s.bytes / 4u; k++)
                put_word((uint8_t *)p + 4 * k, d[k][l]);
        }
    } else if (s.bytes < 4) {
        d[0][l] = loaded(d[0][l], p, s);
    } else {
        for (unsigned k = 0; k < s.bytes / 4u; k++)
            d[k][l] = word_at((uint8_t *)p + 4 * k);
    }
}

/* ---- counting ---- */

static void touch(struct va_launch_state *s, uint64_t segment)
{
    uint64_t bit = segment - (s->range_base >> 6);
    if (bit >= s->range_bytes >> 6)
        return;
    uint8_t *byte = &s->touched[bit >> 3], one = (uint8_t)(1u << (bit & 7));
    if (!(__atomic_load_n(byte, __ATOMIC_RELAXED) & one))
        __atomic_fetch_or(byte, one, __ATOMIC_RELAXED);
}

/* All lanes, one after the other. */
static void count_run(struct va_wave *w, const struct va_insn *i, uint64_t low, unsigned bytes,
                      bool store)
{
    struct va_pc_count *c = &w->counts[i - w->insns];
    uint64_t total = (uint64_t)VA_LANES * bytes, end = (low + total - 1) >> 6;
    for (uint64_t k = low >> 6; k <= end; k++)
        touch(w->launch, k);
    c->bytes += total;
    c->segments64 += end - (low >> 6) + 1;
    c->segments128 += (end >> 1) - (low >> 7) + 1;
    c->ideal64 += total / 64;
    if (store)
        w->worker->store_bytes += total;
    else
        w->worker->load_bytes += total;
}

static void count_segments(struct va_wave *w, const struct va_insn *i, const uint64_t *at,
                           uint64_t mask, unsigned bytes, bool store, bool load)
{
    struct va_launch_state *s = w->launch;
    struct va_pc_count *c = &w->counts[i - w->insns];
    unsigned lanes = (unsigned)__builtin_popcountll(mask);
    uint64_t total = (uint64_t)lanes * bytes, last64 = UINT64_MAX, last128 = UINT64_MAX;
    uint64_t seen64[VA_LANES * 2], n64 = 0, n128 = 0;
    bool rising = true;
    for (uint64_t m = mask; m; m &= m - 1) {
        uint64_t a = at[__builtin_ctzll(m)], first = a >> 6, end = (a + bytes - 1) >> 6;
        for (uint64_t k = first; k <= end; k++) {
            if (k == last64)
                continue;
            rising &= last64 == UINT64_MAX || k > last64;
            last64 = k;
            seen64[n64 < VA_LANES * 2 ? n64++ : n64 - 1] = k;
        }
    }
    if (!rising) { /* sort, drop doubles */
        for (uint64_t x = 1; x < n64; x++) {
            uint64_t v = seen64[x], y = x;
            for (; y && seen64[y - 1] > v; y--)
                seen64[y] = seen64[y - 1];
            seen64[y] = v;
        }
        uint64_t kept = n64 ? 1 : 0;
        for (uint64_t x = 1; x < n64; x++)
            if (seen64[x] != seen64[kept - 1])
                seen64[kept++] = seen64[x];
        n64 = kept;
    }
    for (uint64_t x = 0; x < n64; x++) {
        if (seen64[x] >> 1 != last128)
            n128++;
        last128 = seen64[x] >> 1;
        touch(s, seen64[x]);
    }
    c->bytes += total;
    c->segments64 += n64;
    c->segments128 += n128;
    c->ideal64 += (total + 63) / 64;
    if (store)
        w->worker->store_bytes += total;
    if (load)
        w->worker->load_bytes += total;
}

/* ---- global memory ---- */

struct access {
    uint64_t at[VA_LANES];
    uint64_t mask, low, high; /* of the lowest and highest address */
    bool consecutive;         /* full, each lane right after the one before */
};

VA_INLINE void survey(struct access *a, unsigned bytes)
{
    uint64_t low = UINT64_MAX, high = 0, odd = 0;
    if (VA_LIKELY(a->mask == UINT64_MAX)) {
        uint64_t base = a->at[0];
        FOR_LANES
        {
            low = a->at[l] < low ? a->at[l] : low;
            high = a->at[l] > high ? a->at[l] : high;
            odd |= a->at[l] ^ (base + (uint64_t)l * bytes);
        }
        a->consecutive = !odd;
    } else {
        for (uint64_t m = a->mask; m; m &= m - 1) {
            uint64_t v = a->at[__builtin_ctzll(m)];
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        a->consecutive = false;
    }
    a->low = low;
    a->high = high;
}

static bool addresses(struct va_wave *w, const struct va_insn *i, struct access *a)
{
    int64_t offset = i->offset;
    a->mask = va_exec(w);
    if (!a->mask)
        return false;
    const uint32_t *v = va_row(w, i->a);
    if (i->c != VA_NONE) {
        uint64_t base = w->s64[i->c / 2] + (uint64_t)offset;
        FOR_LANES a->at[l] = base + v[l];
    } else {
        FOR_LANES a->at[l] = (v[l] | (uint64_t)v[l + VA_LANES] << 32) + (uint64_t)offset;
    }
    return true;
}

/* Whether every lane may access its bytes; finds the culprit otherwise. */
VA_INLINE void check_global(struct va_wave *w, const struct access *a, struct shape s)
{
    uint64_t extent = a->high - a->low + s.bytes;
    bool known = (a->low - w->recent[0].base < w->recent[0].size &&
                  extent <= w->recent[0].size - (a->low - w->recent[0].base)) ||
                 (a->low - w->recent[1].base < w->recent[1].size &&
                  extent <= w->recent[1].size - (a->low - w->recent[1].base));
    if (VA_LIKELY(known) || va_known_allocation(w, a->low, a->high, s.bytes, s.store))
        return;
    for (uint64_t m = a->mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        va_global(w, a->at[l], s.bytes, s.store, l);
    }
}

static void check_written(struct va_wave *w, const struct access *a, struct shape s)
{
    struct vc_map *map = w->launch->launch->map;
    if (s.store) {
        if (a->consecutive)
            vc_mark(map, a->low, a->high - a->low + s.bytes);
        else
            for (uint64_t m = a->mask; m; m &= m - 1)
                vc_mark(map, a->at[__builtin_ctzll(m)], s.bytes);
        return;
    }
    if (!(w->launch->checks & VA_CHECK_UNINITIALISED))
        return;
    if (a->consecutive &&
        vc_uninitialised(map, a->low, a->high - a->low + s.bytes) == a->high - a->low + s.bytes)
        return;
    for (uint64_t m = a->mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        uint64_t at = vc_uninitialised(map, a->at[l], s.bytes);
        if (at < s.bytes) {
            va_find(w, "uninitialised", l, a->at[l] + at, s.bytes - at, NULL,
                    "reads global memory that nothing has written");
            return;
        }
    }
}

static void move_global(struct va_wave *w, const struct va_insn *i, struct access *a,
                        struct shape s, bool flat)
{
    survey(a, s.bytes);
    check_global(w, a, s);
    check_written(w, a, s);
    if (VA_UNLIKELY(w->group->race != NULL))
        va_race_access(w, i, a->at, a->mask, s.bytes, s.store);
    if (w->launch->count && a->consecutive)
        count_run(w, i, a->low, s.bytes, s.store);
    else if (w->launch->count)
        count_segments(w, i, a->at, a->mask, s.bytes, s.store, !s.store);
    uint32_t(*d)[VA_LANES];
    if (s.store) {
        d = (uint32_t(*)[VA_LANES])va_row(w, i->b);
        note_store(w, i, true, flat);
    } else {
        d = target(w, i, true, flat, i->wd);
    }
    if (VA_LIKELY(a->consecutive && s.bytes == 4)) {
        if (s.store)
            memcpy((void *)(uintptr_t)a->low, d[0], sizeof(row));
        else
            memcpy(d[0], (void *)(uintptr_t)a->low, sizeof(row));
        return;
    }
    if (a->mask == UINT64_MAX && s.bytes == 16) {
        for (int l = 0; l < VA_LANES; l++)
            move_lane(d, l, (void *)(uintptr_t)a->at[l], s);
        return;
    }
    for (uint64_t m = a->mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        move_lane(d, l, (void *)(uintptr_t)a->at[l], s);
    }
}

static struct shape decoded(const struct va_insn *i)
{
    return (struct shape){.bytes = i->kinds[0],
                          .is_signed = i->kinds[1] & 1,
                          .half = i->kinds[1] >> 1 & 3,
                          .store = i->kinds[1] >> 3 & 1,
                          .atomic = i->kinds[1] >> 4 & 1};
}

static void run_global(struct va_wave *w, const struct va_insn *i)
{
    struct access a;
    if (addresses(w, i, &a))
        move_global(w, i, &a, decoded(i), false);
}

/* ---- scratch ---- */

static uint8_t *scratch_byte(struct va_wave *w, uint64_t at, int l)
{
    return w->scratch + ((at >> 2) * VA_LANES + (uint64_t)l) * 4 + (at & 3);
}

static void scratch_bounds(struct va_wave *w, uint64_t at, unsigned bytes, int l)
{
    if (at + bytes > w->scratch_bytes || at + bytes < at)
        va_fault(w, VA_STACK, "scratch", l, at, bytes,
                 "accesses %u bytes at %llu of scratch: a lane has %u", bytes,
                 (unsigned long long)at, w->scratch_bytes);
}

static void move_scratch_lane(struct va_wave *w, uint32_t (*d)[VA_LANES], uint64_t at, int l,
                              struct shape s)
{
    uint8_t bytes[16];
    scratch_bounds(w, at, s.bytes, l);
    if (s.store)
        move_lane(d, l, bytes, s);
    for (unsigned k = 0; k < s.bytes;) {
        unsigned n = 4 - ((unsigned)(at + k) & 3);
        n = n > s.bytes - k ? s.bytes - k : n;
        uint8_t *p = scratch_byte(w, at + k, l);
        if (s.store)
            memcpy(p, bytes + k, n);
        else
            memcpy(bytes + k, p, n);
        k += n;
    }
    if (!s.store)
        move_lane(d, l, bytes, s);
}

static void run_scratch(struct va_wave *w, const struct va_insn *i)
{
    struct shape s = decoded(i);
    uint64_t mask = va_exec(w);
    if (!mask)
        return;
    uint32_t base = (uint32_t)i->offset + (i->c == VA_NONE ? 0 : va_scalar(w, i, i->c));
    uint32_t(*d)[VA_LANES];
    w->worker->scratch_bytes += s.bytes * (uint64_t)__builtin_popcountll(mask);
    if (s.store) {
        d = (uint32_t(*)[VA_LANES])va_row(w, i->b);
        note_store(w, i, true, false);
    } else {
        d = target(w, i, true, false, i->wd);
    }
    if (i->a == VA_NONE && s.bytes >= 4 && !(base & 3)) {
        scratch_bounds(w, base, s.bytes, __builtin_ctzll(mask));
        for (unsigned k = 0; k < s.bytes / 4u; k++) {
            uint32_t *p = (uint32_t *)(void *)scratch_byte(w, base + 4 * k, 0);
            if (s.store)
                blend(p, p, d[k], mask);
            else
                blend(d[k], d[k], p, mask);
        }
        return;
    }
    const uint32_t *v = i->a == VA_NONE ? NULL : va_row(w, i->a);
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        move_scratch_lane(w, d, (uint32_t)(base + (v ? v[l] : 0)), l, s);
    }
}

/* ---- LDS ---- */

/* Banks of 4 bytes, 32 of them. Half the wave goes at a time with 4-byte accesses, less with wider.
 */
static unsigned lds_passes(const uint32_t *at, uint64_t mask, unsigned bytes)
{
    unsigned step = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8, words = bytes < 4 ? 1 : bytes / 4;
    unsigned passes = 0;
    for (unsigned first = 0; first < VA_LANES; first += step) {
        uint32_t held[32][32];
        uint8_t n[32] = {0}, most = 0;
        for (unsigned l = first; l < first + step; l++) {
            if (!(mask >> l & 1))
                continue;
            for (unsigned k = 0; k < words; k++) {
                uint32_t word = at[l] / 4 + k, bank = word & 31, x = 0;
                while (x < n[bank] && held[bank][x] != word)
                    x++;
                if (x == n[bank]) {
                    held[bank][n[bank]++] = word;
                    most = n[bank] > most ? n[bank] : most;
                }
            }
        }
        passes += most;
    }
    return passes;
}

/* Passes depend on where lanes are to each other: an instruction's last pattern is remembered. */
static void count_lds(struct va_wave *w, const struct va_insn *i, const uint32_t *at, uint64_t mask,
                      unsigned bytes, unsigned part)
{
    struct va_pc_count *c = &w->counts[i - w->insns];
    struct va_bank_memo *memo =
        &w->worker->banks[((uint64_t)(i - w->insns) * 2 + part) % VA_BANK_MEMOS];
    uint32_t different = 0, base = at[0] & 3; /* shifted by whole words, conflicts stay */
    FOR_LANES different |= memo->relative[l] ^ (at[l] - at[0] + base);
    if (different || memo->mask != mask || memo->bytes != bytes) {
        FOR_LANES memo->relative[l] = at[l] - at[0] + base;
        memo->mask = mask;
        memo->bytes = bytes;
        memo->passes = lds_passes(at, mask, bytes);
    }
    w->worker->lds_accesses++;
    c->lds_passes += memo->passes;
    c->lds_bytes += bytes * (uint64_t)__builtin_popcountll(mask);
}

static void check_lds(struct va_wave *w, const uint32_t *at, uint64_t mask, unsigned bytes,
                      int write)
{
    const struct va_group *g = w->group;
    bool watched = g->lds_written || g->marks;
    if (!watched && mask == UINT64_MAX) {
        uint32_t high = 0;
        FOR_LANES high = at[l] > high ? at[l] : high;
        if ((uint64_t)high + bytes <= g->lds_bytes)
            return;
    }
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        if (VA_UNLIKELY((uint64_t)at[l] + bytes > g->lds_bytes))
            va_fault(w, VA_ILLEGAL_ADDRESS, "lds-out-of-bounds", l, at[l], bytes,
                     "accesses %u bytes at %u of LDS: the workgroup has %u", bytes, at[l],
                     g->lds_bytes);
        if (watched)
            va_lds_check(w, at[l], bytes, write, l);
    }
}

static void lds_addresses(struct va_wave *w, const struct va_insn *i, uint32_t offset, uint32_t *at)
{
    const uint32_t *v = va_row(w, i->a);
    FOR_LANES at[l] = v[l] + offset;
}

static void move_lds(struct va_wave *w, const struct va_insn *i, uint32_t (*d)[VA_LANES],
                     const uint32_t *at, uint64_t mask, struct shape s, unsigned part)
{
    check_lds(w, at, mask, s.bytes, s.store);
    if (w->launch->count)
        count_lds(w, i, at, mask, s.bytes, part);
    uint8_t *lds = w->group->lds;
    if (mask == UINT64_MAX && s.bytes >= 4) { /* without a look at each lane's shape */
        for (unsigned k = 0; k < s.bytes / 4u; k++, lds += 4) {
            if (s.store)
                for (int l = 0; l < VA_LANES; l++)
                    memcpy(lds + at[l], &d[k][l], 4);
            else
                for (int l = 0; l < VA_LANES; l++)
                    memcpy(&d[k][l], lds + at[l], 4);
        }
        return;
    }
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        move_lane(d, l, lds + at[l], s);
    }
}

static void run_lds(struct va_wave *w, const struct va_insn *i)
{
    struct shape s = decoded(i);
    uint64_t mask = va_exec(w);
    uint32_t at[VA_LANES];
    if (!mask)
        return;
    lds_addresses(w, i, (uint32_t)i->offset, at);
    uint32_t(*d)[VA_LANES];
    if (s.store) {
        d = (uint32_t(*)[VA_LANES])va_row(w, i->b);
        note_store(w, i, false, true);
    } else {
        d = target(w, i, false, true, i->wd);
    }
    move_lds(w, i, d, at, mask, s, 0);
}

/* Two accesses in one instruction. */
static void run_lds2(struct va_wave *w, const struct va_insn *i)
{
    const char *name = va_rows[i->op].name;
    struct shape s = decoded(i);
    unsigned scale = s.bytes * (strstr(name, "st64") ? 64 : 1), width = s.bytes / 4;
    uint64_t mask = va_exec(w);
    uint32_t at[VA_LANES];
    if (!mask)
        return;
    uint32_t(*d)[VA_LANES] = NULL;
    if (s.store)
        note_store(w, i, false, true);
    else
        d = target(w, i, false, true, i->wd);
    row address;
    memcpy(address, va_row(w, i->a), sizeof address); /* the first result may overwrite it */
    for (unsigned k = 0; k < 2; k++) {
        uint32_t offset = ((uint32_t)i->offset >> 8 * k & 255) * scale;
        FOR_LANES at[l] = address[l] + offset;
        if (s.store)
            d = (uint32_t(*)[VA_LANES])va_row(w, k ? i->c : i->b);
        move_lds(w, i, d, at, mask, s, k);
        d += s.store ? 0 : width;
    }
}

static void run_addtid(struct va_wave *w, const struct va_insn *i)
{
    struct shape s = decoded(i);
    uint64_t mask = va_exec(w);
    uint32_t at[VA_LANES], base = (uint32_t)i->offset + (w->s[VA_M0] & 0xffff);
    if (!mask)
        return;
    FOR_LANES at[l] = base + 4 * (uint32_t)l;
    if (s.store)
        note_store(w, i, false, true);
    move_lds(w, i, s.store ? (uint32_t(*)[VA_LANES])va_row(w, i->b) : target(w, i, false, true, 1),
             at, mask, s, 0);
}

/* ---- across lanes, by way of LDS ---- */

static int swizzle_lane(uint32_t pattern, int l)
{
    int and = pattern & 31, or = pattern >> 5 & 31, xor = pattern >> 10 & 31, in = l & 31;
    if (pattern >= 0xe000) { /* as an FFT wants it: the lane's number reversed */
        int reversed = (in & 1) << 4 | (in & 2) << 2 | (in & 4) | (in & 8) >> 2 | in >> 4;
        return (l & 32) | (in & and) | reversed >> __builtin_popcount((unsigned)and);
    }
    if (pattern >= 0xc000) { /* rotated, within the lanes that `and` does not hold */
        int by = xor&1 ? - or : or ;
        return (l & 32) | (in & and) | ((in + by) & 31 & ~and);
    }
    if (pattern & 0x8000)
        return (l & ~3) | (int)(pattern >> 2 * (l & 3) & 3);
    return (l & 32) | (((in & and) | or) ^ xor);
}

static void run_exchange(struct va_wave *w, const struct va_insn *i)
{
    uint64_t mask = va_exec(w);
    row from, index, out = {0};
    bool forward = i->op == VA_DS_ds_permute_b32, swizzle = i->op == VA_DS_ds_swizzle_b32;
    memcpy(from, va_row(w, swizzle ? i->a : i->b), sizeof from);
    memcpy(index, va_row(w, i->a), sizeof index);
    for (int l = 0; l < VA_LANES; l++) {
        int other = swizzle ? swizzle_lane((uint32_t)i->offset, l)
                            : (int)((index[l] + (uint32_t)i->offset) / 4 & 63);
        if (forward) {
            if (mask >> l & 1)
                out[other] = from[l];
        } else if (mask >> other & 1) { /* lanes that are off give zeros */
            out[l] = from[other];
        }
    }
    uint32_t(*d)[VA_LANES] = target(w, i, false, true, 1);
    blend(d[0], d[0], out, mask);
}

/* ---- flat ---- */

enum where { GLOBAL, SHARED, PRIVATE };

static enum where where(uint64_t address)
{
    return address >> 32 == VA_SHARED_BASE >> 32    ? SHARED
           : address >> 32 == VA_PRIVATE_BASE >> 32 ? PRIVATE
                                                    : GLOBAL;
}

static void split(const struct access *a, uint64_t parts[3])
{
    for (uint64_t m = a->mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        parts[where(a->at[l])] |= 1ull << l;
    }
}

static void run_flat(struct va_wave *w, const struct va_insn *i)
{
    struct shape s = decoded(i);
    struct access a;
    uint64_t parts[3] = {0};
    if (!addresses(w, i, &a))
        return;
    split(&a, parts);
    if (parts[GLOBAL] == a.mask) {
        move_global(w, i, &a, s, true);
        return;
    }
    uint32_t(*d)[VA_LANES];
    if (w->group->race && parts[GLOBAL])
        va_race_access(w, i, a.at, parts[GLOBAL], s.bytes, s.store);
    if (s.store) {
        d = (uint32_t(*)[VA_LANES])va_row(w, i->b);
        note_store(w, i, true, true);
    } else {
        d = target(w, i, true, true, i->wd);
    }
    if (parts[GLOBAL]) {
        struct access part = a;
        part.mask = parts[GLOBAL];
        survey(&part, s.bytes);
        check_global(w, &part, s);
        check_written(w, &part, s);
        if (w->launch->count)
            count_segments(w, i, part.at, part.mask, s.bytes, s.store, !s.store);
        for (uint64_t m = part.mask; m; m &= m - 1) {
            int l = __builtin_ctzll(m);
            move_lane(d, l, (void *)(uintptr_t)part.at[l], s);
        }
    }
    if (parts[SHARED]) {
        uint32_t at[VA_LANES];
        FOR_LANES at[l] = (uint32_t)a.at[l];
        move_lds(w, i, d, at, parts[SHARED], s, 0);
    }
    for (uint64_t m = parts[PRIVATE]; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        move_scratch_lane(w, d, (uint32_t)a.at[l], l, s);
        w->worker->scratch_bytes += s.bytes;
    }
}

/* ---- buffers ---- */

/* Lanes whose bytes lie outside read zeros and write nothing. */
static uint64_t buffer_addresses(struct va_wave *w, const struct va_insn *i, struct access *a,
                                 unsigned bytes)
{
    uint64_t inside = 0;
    va_check_buffer(w, i);
    for (int l = 0; l < VA_LANES; l++)
        inside |= (uint64_t)va_buffer_address(w, i, l, bytes, &a->at[l]) << l;
    return inside;
}

static void run_buffer(struct va_wave *w, const struct va_insn *i)
{
    struct shape s = decoded(i);
    struct access a;
    uint64_t exec = va_exec(w);
    if (!exec)
        return;
    a.mask = exec & buffer_addresses(w, i, &a, s.bytes);
    uint32_t(*d)[VA_LANES];
    if (w->group->race && a.mask)
        va_race_access(w, i, a.at, a.mask, s.bytes, s.store);
    if (s.store) {
        d = (uint32_t(*)[VA_LANES])va_row(w, i->d);
        note_store(w, i, true, false);
    } else {
        d = target(w, i, true, false, i->wd);
        row zeros = {0};
        if (s.half) {
            for (uint64_t m = exec & ~a.mask; m; m &= m - 1) {
                int l = __builtin_ctzll(m);
                move_lane(d, l, zeros, s);
            }
        } else {
            for (unsigned k = 0; k < i->wd; k++)
                blend(d[k], d[k], zeros, exec & ~a.mask);
        }
    }
    if (!a.mask)
        return;
    survey(&a, s.bytes);
    check_global(w, &a, s);
    check_written(w, &a, s);
    if (w->launch->count)
        count_segments(w, i, a.at, a.mask, s.bytes, s.store, !s.store);
    for (uint64_t m = a.mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        move_lane(d, l, (void *)(uintptr_t)a.at[l], s);
    }
}

/* ---- straight into LDS: M0 says where, lane after lane ---- */

static void run_load_lds(struct va_wave *w, const struct va_insn *i)
{
    struct shape s = decoded(i);
    struct access a = {0};
    if (i->encoding == VA_SCRATCH)
        va_not_implemented(w, i);
    if (i->encoding == VA_MUBUF) {
        a.mask = va_exec(w);
        a.mask &= buffer_addresses(w, i, &a, s.bytes);
    } else if (!addresses(w, i, &a)) {
        return;
    }
    if (!a.mask)
        return;
    survey(&a, s.bytes);
    check_global(w, &a, s);
    check_written(w, &a, s);
    if (w->launch->count)
        count_segments(w, i, a.at, a.mask, s.bytes, false, true);
    if (w->group->race)
        va_race_access(w, i, a.at, a.mask, s.bytes, 0);
    uint32_t base = (w->s[VA_M0] & 0xfffc) + (uint32_t)i->offset;
    row value;
    uint32_t at[VA_LANES];
    for (int l = 0; l < VA_LANES; l++) {
        at[l] = base + 4 * (uint32_t)l;
        if (a.mask >> l & 1)
            value[l] = loaded(0, (void *)(uintptr_t)a.at[l], s);
    }
    check_lds(w, at, a.mask, 4, true);
    struct va_pending *p = w->queue ? va_defer(w, i, true, false, false, VA_NONE, 1) : NULL;
    if (p) {
        p->lds = true;
        p->mask = a.mask;
        memcpy(p->to, at, sizeof at);
        memcpy(p->data, value, sizeof value);
        return;
    }
    for (uint64_t m = a.mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        memcpy(w->group->lds + at[l], &value[l], 4);
    }
}

/* ---- cache control ---- */

static void run_ds_nop(struct va_wave *w, const struct va_insn *i)
{
    (void)w, (void)i;
}

static void run_fence(struct va_wave *w, const struct va_insn *i)
{
    if (w->group->race)
        va_race_fence(w, i);
    note_store(w, i, true, false);
    atomic_thread_fence(memory_order_seq_cst);
}

/* ---- binding ---- */

bool VA_NAME(bind_atomic)(struct va_insn *insn);

static bool bind_ds(struct va_insn *i)
{
    const char *n = va_rows[i->op].name;
    i->class = VA_CLASS_LDS;
    if (i->raw[0] >> 16 & 1 || strstr(n, "gws")) /* the global data share is gone */
        return false;
    if (i->op == VA_DS_ds_swizzle_b32 || i->op == VA_DS_ds_permute_b32 ||
        i->op == VA_DS_ds_bpermute_b32) {
        i->run = run_exchange;
        return true;
    }
    if (i->op == VA_DS_ds_nop) {
        i->run = run_ds_nop;
        return true;
    }
    if (i->op == VA_DS_ds_write_addtid_b32 || i->op == VA_DS_ds_read_addtid_b32) {
        i->run = run_addtid;
        return true;
    }
    if (!strncmp(n, "ds_read2", 8) || !strncmp(n, "ds_write2", 9)) {
        i->run = run_lds2;
        return true;
    }
    if (!strncmp(n, "ds_read_", 8) || !strncmp(n, "ds_write_", 9)) {
        i->run = run_lds;
        return true;
    }
    return VA_NAME(bind_atomic)(i);
}

bool VA_NAME(bind_memory)(struct va_insn *i)
{
    const char *n = va_rows[i->op].name;
    struct shape s = shape_of(i);
    i->kinds[0] = s.bytes;
    i->kinds[1] = (uint8_t)(s.is_signed | s.half << 1 | s.store << 3 | s.atomic << 4);
    i->store = s.store;
    i->class = i->encoding == VA_SCRATCH ? VA_CLASS_SCRATCH : VA_CLASS_GLOBAL;
    if (i->encoding == VA_DS)
        return bind_ds(i);
    if (i->encoding == VA_MTBUF || strstr(n, "format") || i->op == VA_MUBUF_buffer_store_lds_dword)
        return false;
    if (i->encoding == VA_MUBUF && i->b == VA_NONE) {
        i->run = run_fence;
        return true;
    }
    if (s.atomic)
        return VA_NAME(bind_atomic)(i);
    if (strstr(n, "_lds_") || (i->encoding == VA_MUBUF && i->raw[0] >> 16 & 1)) {
        i->run = run_load_lds;
        return true;
    }
    i->run = i->encoding == VA_MUBUF     ? run_buffer
             : i->encoding == VA_FLAT    ? run_flat
             : i->encoding == VA_SCRATCH ? run_scratch
                                         : run_global;
    return true;
}
