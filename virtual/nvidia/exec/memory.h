/* Loads and stores, for the files compiled by instruction set: addresses of 32 lanes, checked
 * together where they lie in one allocation, one by one where they do not. */
#ifndef VIRTUAL_NVIDIA_EXEC_MEMORY_H
#define VIRTUAL_NVIDIA_EXEC_MEMORY_H

#include "isa.h"

/* Lanes' addresses, and their extent over the active ones. */
struct vn_addresses {
    uint64_t at[32];
    uint64_t low, high, bits; /* bits: OR of all, for alignment */
    bool consecutive, same;
};

/* Whether p[l] is p[0] + l * size in all lanes. */
VN_INLINE bool vn_in_steps64(const uint64_t p[32], uint64_t size)
{
#ifdef __AVX512F__
    __m512i at = _mm512_add_epi64(_mm512_set1_epi64((long long)p[0]),
                                  _mm512_mul_epu32(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0),
                                                   _mm512_set1_epi64((long long)size)));
    __m512i eight = _mm512_set1_epi64(8 * (long long)size), differ = _mm512_setzero_si512();
    for (int l = 0; l < 32; l += 8) {
        differ = _mm512_or_si512(differ, _mm512_xor_si512(at, _mm512_loadu_si512(p + l)));
        at = _mm512_add_epi64(at, eight);
    }
    return !_mm512_test_epi64_mask(differ, differ);
#else
    uint64_t differ = 0, first = p[0];
    for (int l = 0; l < 32; l++)
        differ |= p[l] ^ (first + (uint64_t)l * size);
    return !differ;
#endif
}

VN_INLINE bool vn_in_steps32(const uint32_t p[32], uint32_t size)
{
#ifdef __AVX512F__
    __m512i low =
        _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                           _mm512_set1_epi32((int)size));
    low = _mm512_add_epi32(low, _mm512_set1_epi32((int)p[0]));
    __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(16 * (int)size));
    __m512i differ = _mm512_or_si512(_mm512_xor_si512(low, _mm512_loadu_si512(p)),
                                     _mm512_xor_si512(high, _mm512_loadu_si512(p + 16)));
    return !_mm512_test_epi32_mask(differ, differ);
#else
    uint32_t differ = 0, first = p[0];
    for (int l = 0; l < 32; l++)
        differ |= p[l] ^ (first + (uint32_t)l * size);
    return !differ;
#endif
}

/* Whether all 32 addresses follow each other; *first is the lowest. */
VN_INLINE bool vn_consecutive(const struct vn_warp *w, uint32_t code, bool wide, int64_t imm,
                              uint32_t size, uint64_t *first)
{
    if (wide) {
        const uint64_t *p = vn_at(w, code);
        *first = p[0] + (uint64_t)imm;
        return vn_in_steps64(p, size);
    }
    const uint32_t *p = vn_at(w, code);
    *first = (uint32_t)(p[0] + (uint32_t)imm);
    return vn_in_steps32(p, size);
}

/* Consecutive addresses are kept as the first alone: this writes out the rest. */
VN_INLINE void vn_spread(struct vn_addresses *a, uint32_t size)
{
    if (!a->consecutive)
        return;
    for (int l = 0; l < 32; l++)
        a->at[l] = a->low + (uint64_t)l * size;
}

VN_INLINE void vn_addresses_from(struct vn_addresses *out, uint64_t first, uint32_t size)
{
    out->at[0] = out->low = out->bits = first;
    out->high = first + 31 * size;
    out->consecutive = true;
    out->same = false;
}

/* Addresses that do not all follow each other. */
VN_INLINE void vn_gather_scattered(const struct vn_warp *w, uint32_t code, bool wide, int64_t imm,
                                   uint32_t mask, struct vn_addresses *out)
{
    if (wide) {
        const uint64_t *p = vn_at(w, code);
        for (int l = 0; l < 32; l++)
            out->at[l] = p[l] + (uint64_t)imm;
    } else {
        const uint32_t *p = vn_at(w, code);
        for (int l = 0; l < 32; l++)
            out->at[l] = (uint32_t)(p[l] + (uint32_t)imm);
    }
    uint64_t some = out->at[__builtin_ctz(mask)], low = some, high = some, bits = some;
    if (mask == UINT32_MAX) {
        for (int l = 0; l < 32; l++) {
            uint64_t a = out->at[l];
            low = a < low ? a : low;
            high = a > high ? a : high;
            bits |= a;
        }
    } else {
        for (int l = 0; l < 32; l++) {
            uint64_t a = mask >> l & 1 ? out->at[l] : some;
            low = a < low ? a : low;
            high = a > high ? a : high;
            bits |= a;
        }
    }
    out->low = low;
    out->high = high;
    out->bits = bits;
    out->consecutive = false;
    out->same = low == high;
}

VN_INLINE void vn_gather_addresses(const struct vn_warp *w, uint32_t code, bool wide, int64_t imm,
                                   uint32_t mask, uint32_t size, struct vn_addresses *out)
{
    uint64_t first;
    if (VN_LIKELY(mask == UINT32_MAX) && vn_consecutive(w, code, wide, imm, size, &first))
        vn_addresses_from(out, first, size);
    else
        vn_gather_scattered(w, code, wide, imm, mask, out);
}

/* memory.c */
/* Distinct 32-byte sectors, and their marks in the launch's map. */
uint32_t vn_count_sectors(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                          uint32_t size, bool store);
/* Passes over the 32 banks. */
uint32_t vn_count_passes(const struct vn_addresses *a, uint32_t mask, uint32_t size);
/* The pattern of an access by all lanes, known or new. */
const struct vn_pattern *vn_find_pattern(struct vn_worker *worker, struct vn_insn_counters *c,
                                         const uint32_t at[32], uint32_t size);
/* Whether [low, high + size) lies in one allocation that this device may use; remembers it for the
 * instruction. */
bool vn_find_allocation(struct vn_warp *w, const struct vn_insn *insn, uint64_t low, uint64_t high,
                        uint32_t size, bool store);
void vn_check_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                      bool shared);
void vn_mark_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                     bool shared);
void vn_mark_shared(struct vn_block *block, uint64_t at, uint32_t size);
/* Local memory: checks a load, records a store; addresses are places in the warp's piece. */
void vn_local_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                      bool store);
void vn_check_async(struct vn_warp *w, uint64_t address, uint32_t size, uint32_t lane,
                    const char *kind);
/* race.c */
enum { VN_READ, VN_WRITE, VN_ATOMIC };
void vn_race_shared(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                    int kind);
void vn_race_global(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                    int kind);
void vn_race_same_store(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                        uint32_t size, const uint8_t *base, const uint32_t *regs, uint32_t bytes,
                        bool shared);

VN_INLINE void vn_touch_piece(struct vn_worker *worker, uint64_t piece)
{
    if (VN_LIKELY(worker->maps->touched[piece]))
        return;
    worker->maps->touched[piece] = 1;
    worker->touched_first = piece < worker->touched_first ? piece : worker->touched_first;
    worker->touched_last = piece > worker->touched_last ? piece : worker->touched_last;
}

VN_INLINE bool vn_fits_pattern(const struct vn_pattern *p, const uint32_t at[32], uint32_t size)
{
    uint32_t differ[32];
    VN_LANES differ[l] = (at[l] - at[0]) ^ p->relative[l];
    return p->size == size && !vn_any(differ);
}

/* Marks sectors in the launch's map, when they lie in one word of it. */
VN_INLINE bool vn_touch_word(struct vn_warp *w, uint64_t first, uint64_t n, bool store)
{
    struct vn_launch_state *s = w->launch;
    uint64_t offset = (first << 5) - s->range_base, at = offset >> 5;
    if (offset >= s->range_bytes || (at & 63) + n > 64)
        return false;
    const struct vn_maps *maps = w->worker->maps;
    uint64_t *word = (store ? maps->store : maps->load) + (at >> 6), known = *word;
    *word = known | ~(uint64_t)0 >> (64 - n) << (at & 63);
    if (VN_UNLIKELY(!known))
        vn_touch_piece(w->worker, offset >> 20);
    return true;
}

VN_INLINE void vn_count_access(struct vn_warp *w, const struct vn_insn *insn,
                               const struct vn_addresses *a, uint32_t mask, uint32_t size,
                               bool store)
{
    struct vn_insn_counters *c = w->counters + (insn - w->code);
    uint32_t lanes = (uint32_t)__builtin_popcount(mask);
    uint64_t first = a->low >> 5, last = (a->high + size - 1) >> 5;
    uint32_t sectors;
    if ((a->consecutive || last == first) && vn_touch_word(w, first, last - first + 1, store))
        sectors = (uint32_t)(last - first) + 1;
    else
        sectors = vn_count_sectors(w, a, mask, size, store);
    c->bytes += lanes * size;
    c->sectors += sectors;
    c->ideal += (lanes * size + 31) / 32;
}

#endif
