/* Load and store handlers. */
#include "memory.h"

/* Where the bytes of the lanes are, if all accesses are good: else NULL, after a slow look at each
 * lane has found that they are (or ended the launch). */
enum where { GLOBAL, SHARED, LOCAL };

/* Whether the bytes lie where the instruction's last access did. */
VN_INLINE bool known_place(const struct vn_insn_counters *c, uint64_t low, uint64_t extent)
{
    uint64_t offset = low - c->base;
    return offset < c->size && extent <= c->size - offset;
}

VN_INLINE uint8_t *global_base(struct vn_warp *w, const struct vn_insn *insn,
                               struct vn_addresses *a, uint32_t mask, uint32_t size, bool store)
{
    const struct vn_insn_counters *c = w->counters + (insn - w->code);
    bool misaligned = a->bits & (size - 1);
    if (VN_UNLIKELY(misaligned || !known_place(c, a->low, a->high - a->low + size))) {
        if (misaligned || !vn_find_allocation(w, insn, a->low, a->high, size, store)) {
            vn_spread(a, size);
            for (uint32_t m = mask; m; m &= m - 1) {
                uint32_t l = (uint32_t)__builtin_ctz(m);
                vn_global(w, a->at[l], size, store, l);
            }
        }
    }
    return NULL;
}

VN_INLINE uint8_t *shared_base(struct vn_warp *w, struct vn_addresses *a, uint32_t mask,
                               uint32_t size, bool store)
{
    const struct vn_block *b = w->block;
    if (VN_UNLIKELY((a->bits & (size - 1)) || a->high + size > b->shared_size ||
                    a->high > UINT32_MAX)) {
        vn_spread(a, size);
        for (uint32_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m);
            vn_shared(w, a->at[l], size, store, l);
        }
    }
    return b->shared;
}

VN_INLINE void put_lane(void *d, uint32_t code, int l, const uint8_t *p, uint32_t bytes,
                        bool is_signed)
{
    uint64_t v = 0;
    memcpy(&v, p, bytes);
    if (is_signed)
        v = bytes == 1   ? (uint64_t)(int8_t)v
            : bytes == 2 ? (uint64_t)(int16_t)v
                         : (uint64_t)(int32_t)v;
    if ((code & VN_FILE_MASK) == VN_R64)
        ((uint64_t *)d)[l] = v;
    else
        ((uint32_t *)d)[l] = (uint32_t)v;
}

VN_INLINE const uint32_t *registers(const struct vn_warp *w, const struct vn_insn *insn,
                                    const uint32_t *one)
{
    return insn->vec == 1 ? one : w->pool + insn->pool;
}

/* Reads lanes from base + at. */
VN_INLINE void read_lanes(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                          const uint8_t *base, struct vn_addresses *a, uint32_t bytes)
{
    const uint32_t *regs = registers(w, insn, &insn->d);
    uint32_t vec = insn->vec;
    bool is_signed = insn->flags & VN_SIGNED && bytes < 8;
    if (a->consecutive && !is_signed && (bytes == 4 || bytes == 8)) {
        const uint8_t *p = base + a->at[0];
        bool fits = true;
        for (uint32_t k = 0; k < vec; k++)
            fits &= ((regs[k] & VN_FILE_MASK) == VN_R64) == (bytes == 8);
        if (VN_LIKELY(fits)) {
            if (bytes == 4 && vec == 1) {
                memcpy(vn_at(w, regs[0]), p, 128);
            } else if (bytes == 8 && vec == 1) {
                memcpy(vn_at(w, regs[0]), p, 256);
            } else if (bytes == 4) {
                for (uint32_t k = 0; k < vec; k++) {
                    uint32_t *d = vn_at(w, regs[k]);
                    const uint32_t *q = (const uint32_t *)(const void *)p + k;
                    if (vec == 4) {
                        VN_LANES d[l] = q[4 * l];
                    } else if (vec == 2) {
                        VN_LANES d[l] = q[2 * l];
                    } else {
                        VN_LANES d[l] = q[8 * l];
                    }
                }
            } else {
                for (uint32_t k = 0; k < vec; k++) {
                    uint64_t *d = vn_at(w, regs[k]);
                    const uint64_t *q = (const uint64_t *)(const void *)p + k;
                    for (int l = 0; l < 32; l++)
                        d[l] = q[vec * (uint32_t)l];
                }
            }
            return;
        }
    }
    vn_spread(a, bytes * vec);
    if (bytes == 4 && !is_signed) {
        for (uint32_t k = 0; k < vec; k++) {
            if ((regs[k] & VN_FILE_MASK) == VN_R64)
                goto general;
        }
        if (a->same && mask == UINT32_MAX) {
            const uint8_t *p = base + a->at[0];
            for (uint32_t k = 0; k < vec; k++) {
                uint32_t *d = vn_at(w, regs[k]), v;
                memcpy(&v, p + 4 * k, 4);
                VN_LANES d[l] = v;
            }
            return;
        }
        for (uint32_t k = 0; k < vec; k++) {
            uint32_t *d = vn_at(w, regs[k]);
            if (mask == UINT32_MAX) {
                const uint32_t *words = (const uint32_t *)(const void *)base + k;
                for (int l = 0; l < 32; l++)
                    d[l] = words[a->at[l] / 4];
            } else {
                for (uint32_t m = mask; m; m &= m - 1) {
                    int l = __builtin_ctz(m);
                    memcpy(&d[l], base + a->at[l] + 4 * k, 4);
                }
            }
        }
        return;
    }
general:
    for (uint32_t k = 0; k < vec; k++) {
        void *d = vn_at(w, regs[k]);
        for (uint32_t m = mask; m; m &= m - 1) {
            int l = __builtin_ctz(m);
            put_lane(d, regs[k], l, base + a->at[l] + k * bytes, bytes, is_signed);
        }
    }
}

VN_INLINE void write_lanes(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                           uint8_t *base, struct vn_addresses *a, uint32_t bytes)
{
    const uint32_t *regs = registers(w, insn, &insn->b);
    uint32_t vec = insn->vec;
    if (a->consecutive && vec == 1 && bytes == 4) {
        memcpy(base + a->at[0], vn_at(w, regs[0]), 128);
        return;
    }
    if (a->consecutive && vec == 1 && bytes == 8) {
        memcpy(base + a->at[0], vn_at(w, regs[0]), 256);
        return;
    }
    if (bytes == 4 && vec > 1 && a->consecutive) {
        for (uint32_t k = 0; k < vec; k++) {
            const uint32_t *s = vn_at(w, regs[k]);
            uint32_t *q = (uint32_t *)(void *)(base + a->at[0]) + k;
            if (vec == 4) {
                VN_LANES q[4 * l] = s[l];
            } else {
                for (int l = 0; l < 32; l++)
                    q[vec * (uint32_t)l] = s[l];
            }
        }
        return;
    }
    vn_spread(a, bytes * vec);
    for (uint32_t k = 0; k < vec; k++) {
        const void *s = vn_at(w, regs[k]);
        bool wide = (regs[k] & VN_FILE_MASK) == VN_R64 ||
                    (bytes == 8 && (regs[k] & VN_FILE_MASK) == VN_CONSTANT);
        for (uint32_t m = mask; m; m &= m - 1) {
            int l = __builtin_ctz(m);
            uint64_t v = wide ? ((const uint64_t *)s)[l] : ((const uint32_t *)s)[l];
            memcpy(base + a->at[l] + k * bytes, &v, bytes);
        }
    }
}

VN_INLINE void access_global(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                             struct vn_addresses *a, uint32_t bytes, bool store)
{
    uint32_t size = bytes * insn->vec;
    const struct vn_launch_state *s = w->launch;
    uint8_t *base = global_base(w, insn, a, mask, size, store);
    if (s->count)
        vn_count_access(w, insn, a, mask, size, store);
    if (VN_UNLIKELY(s->checks & VN_CHECK_GLOBAL_RACES))
        vn_spread(a, size);
    if (s->checks & VN_CHECK_GLOBAL_RACES && !insn->mode)
        vn_race_global(w, a, mask, size, insn->q & 15 ? VN_ATOMIC | (store ? 4 : 8) : store);
    if (store) {
        if (s->checks & VN_CHECK_UNINITIALISED)
            vn_mark_written(w, a, mask, size, false);
        write_lanes(w, insn, mask, base, a, bytes);
        if (s->checks & VN_CHECK_GLOBAL_RACES && !(insn->q & 15))
            vn_race_same_store(w, a, mask, size, base, registers(w, insn, &insn->b), bytes, false);
    } else {
        if (s->checks & VN_CHECK_UNINITIALISED)
            vn_check_written(w, a, mask, size, false);
        read_lanes(w, insn, mask, base, a, bytes);
    }
}

VN_INLINE void access_shared(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                             struct vn_addresses *a, uint32_t bytes, bool store)
{
    uint32_t size = bytes * insn->vec;
    const struct vn_launch_state *s = w->launch;
    uint8_t *base = shared_base(w, a, mask, size, store);
    if (s->count) {
        struct vn_insn_counters *c = w->counters + (insn - w->code);
        c->passes += size <= 4 && a->high - a->low < 128 ? 1
                     : a->consecutive                    ? size / 4
                                                         : vn_count_passes(a, mask, size);
    }
    if (w->block->async_pending || w->block->race || w->block->shared_unwritten)
        vn_spread(a, size);
    if (w->block->async_pending) {
        for (uint32_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m);
            vn_check_async(w, a->at[l], size, l, store ? "store" : "load");
        }
    }
    if (w->block->race)
        vn_race_shared(w, a, mask, size, insn->q & 15 ? VN_ATOMIC | (store ? 4 : 8) : store);
    if (store) {
        if (w->block->shared_unwritten)
            vn_mark_written(w, a, mask, size, true);
        write_lanes(w, insn, mask, base, a, bytes);
        if (w->block->race && s->checks & VN_CHECK_SHARED_RACES && !(insn->q & 15))
            vn_race_same_store(w, a, mask, size, base, registers(w, insn, &insn->b), bytes, true);
    } else {
        if (w->block->shared_unwritten)
            vn_check_written(w, a, mask, size, true);
        read_lanes(w, insn, mask, base, a, bytes);
    }
}

/* Local memory is one piece a lane. */
VN_INLINE void access_local(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                            struct vn_addresses *a, uint32_t bytes, bool store)
{
    uint32_t size = bytes * insn->vec, room = w->launch->local_size;
    vn_spread(a, size);
    if (VN_UNLIKELY((a->bits & (size - 1)) || a->high + size > room || a->high > UINT32_MAX)) {
        for (uint32_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m);
            vn_local(w, a->at[l], size, store, l);
        }
    }
    for (int l = 0; l < 32; l++)
        a->at[l] += (uint64_t)room * (uint32_t)l;
    a->consecutive = a->same = false;
    if (w->local_written)
        vn_local_written(w, a, mask, size, store);
    if (store)
        write_lanes(w, insn, mask, w->local, a, bytes);
    else
        read_lanes(w, insn, mask, w->local, a, bytes);
}

/* Generic: lanes may even differ in the space they mean. */
VN_INLINE void access_generic(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                              struct vn_addresses *a, uint32_t bytes, bool store)
{
    if (VN_LIKELY(a->low >= VN_LOCAL_WINDOW + VN_WINDOW_SIZE)) {
        access_global(w, insn, mask, a, bytes, store);
        return;
    }
    uint32_t shared = 0, local = 0;
    vn_spread(a, bytes * insn->vec);
    for (uint32_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        shared |= a->at[l] - VN_SHARED_WINDOW < VN_WINDOW_SIZE ? 1u << l : 0;
        local |= a->at[l] - VN_LOCAL_WINDOW < VN_WINDOW_SIZE ? 1u << l : 0;
    }
    uint32_t parts[3] = {mask & ~shared & ~local, shared, local};
    for (int k = 0; k < 3; k++) {
        if (!parts[k])
            continue;
        uint64_t window = k == 0 ? 0 : k == 1 ? VN_SHARED_WINDOW : VN_LOCAL_WINDOW;
        struct vn_addresses part = {.low = ~(uint64_t)0};
        bool whole = parts[k] == mask;
        for (int l = 0; l < 32; l++)
            part.at[l] = a->at[l] - window;
        for (uint32_t m = parts[k]; m; m &= m - 1) {
            uint64_t at = part.at[__builtin_ctz(m)];
            part.low = at < part.low ? at : part.low;
            part.high = at > part.high ? at : part.high;
            part.bits |= at;
        }
        part.consecutive = whole && a->consecutive;
        part.same = whole && a->same;
        if (k == 0)
            access_global(w, insn, parts[k], &part, bytes, store);
        else if (k == 1)
            access_shared(w, insn, parts[k], &part, bytes, store);
        else
            access_local(w, insn, parts[k], &part, bytes, store);
    }
}

/* The commonest access: all lanes, words in a row from the start of a sector, in the allocation of
 * the last time. False: it is not, and nothing has been done. */
VN_INLINE bool whole_global(struct vn_warp *w, const struct vn_insn *insn, uint64_t first,
                            uint32_t size, bool store)
{
    struct vn_launch_state *s = w->launch;
    struct vn_insn_counters *c = w->counters + (insn - w->code);
    if (first & 31 || s->checks & VN_CHECK_GLOBAL_RACES || !known_place(c, first, 32 * size))
        return false;
    uint8_t *at = (uint8_t *)(uintptr_t)first;
    if (s->checks & VN_CHECK_UNINITIALISED && !vc_page_written(s->launch->map, first, 32 * size))
        return false;
    if (s->count) {
        if (!vn_touch_word(w, first >> 5, size, store))
            return false;
        c->whole++;
    }
    if (store) {
        memcpy(at, vn_at(w, insn->b), 32 * size);
        return true;
    }
    memcpy(vn_at(w, insn->d), at, 32 * size);
    /* Loops go on as far as they went: no processor foresees strides of many pages. */
    uint64_t ahead = 2 * first - c->last;
    c->last = first;
    for (uint32_t k = 0; k < 32 * size; k += 64)
        __builtin_prefetch((const void *)(uintptr_t)(ahead + k));
    return true;
}

VN_INLINE void gather_words(uint32_t to[32], const uint32_t *base, const uint32_t at[32])
{
#ifdef __AVX512F__
    for (int l = 0; l < 32; l += 16)
        _mm512_storeu_si512(to + l, _mm512_i32gather_epi32(_mm512_loadu_si512(at + l), base, 1));
#else
    for (int l = 0; l < 32; l++)
        to[l] = base[at[l] / 4];
#endif
}

/* All lanes' words of shared memory, where nothing but their place is to be checked and that they
 * have been written. */
VN_INLINE bool whole_shared(struct vn_warp *w, const struct vn_insn *insn, uint32_t size,
                            bool store)
{
    const struct vn_block *b = w->block;
    struct vn_insn_counters *c = w->counters + (insn - w->code);
    const uint32_t *p = vn_at(w, insn->a), *regs = registers(w, insn, store ? &insn->b : &insn->d);
    uint32_t vec = insn->vec, bytes = size * vec, at[32], bad[32];
    if (insn->flags & VN_ADDRESS64 || b->async_pending || b->race || b->shared_size < bytes)
        return false;
    uint32_t last = b->shared_size - bytes, imm = (uint32_t)insn->imm;
    VN_LANES at[l] = p[l] + imm;
    VN_LANES bad[l] = (at[l] & (bytes - 1)) | (at[l] > last ? 1 : 0);
    if (VN_UNLIKELY(vn_any(bad)))
        return false;
    if (b->shared_unwritten) {
        for (uint32_t k = 0; k < vec; k++) {
            gather_words(bad, (const uint32_t *)(const void *)(b->shared_written + 4 * k), at);
            VN_LANES bad[l] ^= 0x01010101;
            if (vn_any(bad))
                return false;
        }
    }
    const struct vn_pattern *pattern = &w->worker->patterns[c->pattern];
    if (VN_UNLIKELY(!vn_fits_pattern(pattern, at, bytes)))
        pattern = vn_find_pattern(w->worker, c, at, bytes);
    c->passes += pattern->passes;
    for (uint32_t k = 0; k < vec; k++) {
        uint32_t *r = vn_at(w, regs[k]), *words = (uint32_t *)(void *)(b->shared + 4 * k);
        if (pattern->row && vec == 1) {
            memcpy(store ? &words[at[0] / 4] : r, store ? r : &words[at[0] / 4], 128);
        } else if (store) {
            for (int l = 0; l < 32; l++)
                words[at[l] / 4] = r[l];
        } else if (pattern->same) {
            VN_LANES r[l] = words[at[0] / 4];
        } else {
            gather_words(r, words, at);
        }
    }
    return true;
}

VN_INLINE bool whole_consecutive(struct vn_warp *w, const struct vn_insn *insn, uint32_t size,
                                 bool generic, bool store)
{
    uint64_t first;
    return vn_consecutive(w, insn->a, insn->flags & VN_ADDRESS64, insn->imm, size, &first) &&
           (!generic || first >= VN_LOCAL_WINDOW + VN_WINDOW_SIZE) &&
           whole_global(w, insn, first, size, store);
}

#define WHOLE_global(w, insn, size, store) whole_consecutive(w, insn, size, false, store)
#define WHOLE_generic(w, insn, size, store) whole_consecutive(w, insn, size, true, store)
#define WHOLE_shared(w, insn, size, store) whole_shared(w, insn, size, store)
#define WHOLE_local(w, insn, size, store) false

/* The slow half stands apart, so that the other needs no stack. */
#define ACCESS(name, space, bits, store)                                                           \
    static __attribute__((noinline)) void name##_any(struct vn_warp *w,                            \
                                                     const struct vn_insn *insn, uint32_t mask)    \
    {                                                                                              \
        struct vn_addresses a;                                                                     \
        vn_gather_addresses(w, insn->a, insn->flags &VN_ADDRESS64, insn->imm, mask,                \
                            (bits) / 8u * insn->vec, &a);                                          \
        access_##space(w, insn, mask, &a, (bits) / 8, store);                                      \
    }                                                                                              \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        if (insn->flags & VN_WHOLE && mask == UINT32_MAX &&                                        \
            WHOLE_##space(w, insn, (bits) / 8u, store))                                            \
            return;                                                                                \
        name##_any(w, insn, mask);                                                                 \
    }
#define WIDTHS(op, space, store)                                                                   \
    ACCESS(op##_##space##_8, space, 8, store)                                                      \
    ACCESS(op##_##space##_16, space, 16, store)                                                    \
    ACCESS(op##_##space##_32, space, 32, store)                                                    \
    ACCESS(op##_##space##_64, space, 64, store)
WIDTHS(ld, global, false)
WIDTHS(ld, shared, false)
WIDTHS(ld, local, false)
WIDTHS(ld, generic, false)
WIDTHS(st, global, true)
WIDTHS(st, shared, true)
WIDTHS(st, local, true)
WIDTHS(st, generic, true)

VN_HANDLER(ld_param)
{
    const uint8_t *p = w->launch->params + insn->imm;
    uint64_t v = 0;
    memcpy(&v, p, insn->vec);
    if (insn->mode && insn->vec < 8)
        v = insn->vec == 1   ? (uint64_t)(int8_t)v
            : insn->vec == 2 ? (uint64_t)(int16_t)v
                             : (uint64_t)(int32_t)v;
    if ((insn->d & VN_FILE_MASK) == VN_R64) {
        uint64_t *d = vn_at(w, insn->d);
        VN_LANES d[l] = mask >> l & 1 ? v : d[l];
    } else {
        uint32_t *d = vn_at(w, insn->d);
        VN_LANES d[l] = mask >> l & 1 ? (uint32_t)v : d[l];
    }
}

VN_HANDLER(param_address)
{
    uint64_t v = (uint64_t)(uintptr_t)(w->launch->params + insn->imm);
    VN_BODY(u64, , v)
}

VN_HANDLER(local_address_u64)
{
    uint64_t v = w->frames[w->frame].local + (uint64_t)insn->imm;
    VN_BODY(u64, , v)
}

VN_HANDLER(local_address_u32)
{
    uint32_t v = w->frames[w->frame].local + (uint32_t)insn->imm;
    VN_BODY(u32, , v)
}

/* A null pointer stays one. */
VN_HANDLER(cvta_shared)
{
    const uint64_t *a = vn_at(w, insn->a);
    VN_BODY(u64, , VN_SHARED_WINDOW + a[l])
}
VN_HANDLER(cvta_local)
{
    const uint64_t *a = vn_at(w, insn->a);
    VN_BODY(u64, , VN_LOCAL_WINDOW + a[l])
}
VN_HANDLER(cvta_to_shared)
{
    const uint64_t *a = vn_at(w, insn->a);
    VN_BODY(u64, , a[l] - VN_SHARED_WINDOW)
}
VN_HANDLER(cvta_to_local)
{
    const uint64_t *a = vn_at(w, insn->a);
    VN_BODY(u64, , a[l] - VN_LOCAL_WINDOW)
}

VN_HANDLER(isspacep)
{
    const uint64_t *a = vn_at(w, insn->a);
    uint32_t bits = 0;
    uint64_t params = (uint64_t)(uintptr_t)w->launch->params, n = w->launch->code->info.param_bytes;
    for (int l = 0; l < 32; l++) {
        bool shared = a[l] - VN_SHARED_WINDOW < VN_WINDOW_SIZE;
        bool local = a[l] - VN_LOCAL_WINDOW < VN_WINDOW_SIZE;
        bool param = a[l] - params < n;
        bool yes = insn->mode == VN_SHARED       ? shared
                   : insn->mode == VN_LOCALSPACE ? local
                   : insn->mode == VN_PARAM      ? param
                   : insn->mode == VN_GLOBAL     ? !shared && !local && !param
                                                 : false;
        bits |= yes ? 1u << l : 0;
    }
    if (insn->p != VN_NO_PRED)
        w->pred[insn->p] = (w->pred[insn->p] & ~mask) | (bits & mask);
}
