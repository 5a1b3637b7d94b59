/* Loads and stores, for the files compiled by instruction set: addresses of 32 lanes, checked together
 * where they lie in one allocation, one by one where they do not. */
#ifndef VIRTUAL_NVIDIA_EXEC_MEMORY_H
#define VIRTUAL_NVIDIA_EXEC_MEMORY_H

#include "isa.h"

/* Lanes' addresses, and their extent over the active ones. */
struct vn_addresses {
    uint64_t at[32];
    uint64_t low, high, bits; /* bits: OR of all, for alignment */
    bool consecutive, same;
};

VN_INLINE void vn_gather_addresses(const struct vn_warp *w, uint32_t code, bool wide, int64_t imm,
                                   uint32_t mask, uint32_t size, struct vn_addresses *out)
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
    uint64_t first = out->at[0], step = 0, differ = 0;
    if (VN_LIKELY(mask == UINT32_MAX)) {
        uint64_t low = ~(uint64_t)0, high = 0, bits = 0;
        for (int l = 0; l < 32; l++) {
            uint64_t a = out->at[l];
            step |= a ^ (first + (uint64_t)l * size);
            differ |= a ^ first;
        }
        out->consecutive = step == 0;
        out->same = differ == 0;
        if (out->consecutive) {
            out->low = first;
            out->high = first + 31 * size;
            out->bits = first;
            return;
        }
        for (int l = 0; l < 32; l++) {
            uint64_t a = out->at[l];
            low = a < low ? a : low;
            high = a > high ? a : high;
            bits |= a;
        }
        out->low = low;
        out->high = high;
        out->bits = bits;
        return;
    }
    uint64_t some = out->at[__builtin_ctz(mask)], low = some, high = some, bits = some;
    for (int l = 0; l < 32; l++) {
        uint64_t a = mask >> l & 1 ? out->at[l] : some;
        low = a < low ? a : low;
        high = a > high ? a : high;
        bits |= a;
    }
    out->low = low;
    out->high = high;
    out->bits = bits;
    out->consecutive = false;
    out->same = low == high;
}

/* memory.c */
/* Distinct 32-byte sectors, and their marks in the launch's map. */
uint32_t vn_count_sectors(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                          uint32_t size, bool store);
/* Passes over the 32 banks. */
uint32_t vn_count_passes(const struct vn_addresses *a, uint32_t mask, uint32_t size);
/* Whether [low, high + size) lies in one allocation that this device may use; remembers it. */
bool vn_find_allocation(struct vn_warp *w, uint64_t low, uint64_t high, uint32_t size, bool store);
void vn_check_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                      uint32_t size, bool shared);
void vn_mark_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                     bool shared);
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

void vn_race_strong(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, int kind,
                    bool shared);
void vn_race_same_store(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                        const uint8_t *base, const uint32_t *regs, uint32_t bytes, bool shared);

VN_INLINE void vn_count_access(struct vn_warp *w, const struct vn_insn *insn,
                               const struct vn_addresses *a, uint32_t mask, uint32_t size,
                               bool store)
{
    struct vn_insn_counters *c = w->counters + (insn - w->code);
    uint32_t lanes = (uint32_t)__builtin_popcount(mask);
    uint32_t sectors = vn_count_sectors(w, a, mask, size, store);
    c->bytes += lanes * size;
    c->sectors += sectors;
    c->ideal += (lanes * size + 31) / 32;
}

#endif
