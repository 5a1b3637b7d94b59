/* The slow side of memory: single lanes, faults, written bytes, sectors and banks. */
#include "memory.h"

static const char *const kinds[] = {"load", "store", "atomic"};

bool vn_find_allocation(struct vn_warp *w, const struct vn_insn *insn, uint64_t low, uint64_t high,
                        uint32_t size, bool store)
{
    struct vn_insn_counters *c = w->counters + (insn - w->code);
    struct vn_launch_state *s = w->launch;
    uint64_t params = (uint64_t)(uintptr_t)s->params;
    if (low - params < s->code->info.param_bytes) {
        return !store && high - params + size <= s->code->info.param_bytes;
    }
    const struct vc_alloc *a = vc_find(s->launch->map, low);
    if (!vc_may_access(a, low, high - low + size, s->launch->device))
        return false;
    if (a->kind != VC_HEAP) { /* what a kernel may free itself is looked up each time */
        c->base = a->base;
        c->size = a->size;
    }
    return true;
}

void *vn_global(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane)
{
    struct vn_launch_state *s = w->launch;
    struct vn_access access = {"global", kinds[write], address, size, lane};
    if (address & (size - 1))
        vn_fault(w, VN_MISALIGNED_ADDRESS, "misaligned", &access, 1u << lane, "misaligned access");
    uint64_t params = (uint64_t)(uintptr_t)s->params;
    if (address - params < s->code->info.param_bytes) {
        if (write)
            vn_fault(w, VN_ILLEGAL_ADDRESS, "read-only", &access, 1u << lane,
                     "the kernel's parameters are not writable");
        return (void *)(uintptr_t)address;
    }
    const struct vc_alloc *a = vc_find(s->launch->map, address);
    if (VN_LIKELY(vc_may_access(a, address, size, s->launch->device)))
        return (void *)(uintptr_t)address;
    if (address - VN_SHARED_WINDOW < VN_WINDOW_SIZE || address - VN_LOCAL_WINDOW < VN_WINDOW_SIZE)
        vn_fault(w, VN_INVALID_SPACE, "out-of-bounds", &access, 1u << lane,
                 "a shared or local address is used as a global one");
    bool inside = a && address >= a->base && address - a->base < a->size &&
                  size <= a->size - (address - a->base);
    if (inside && !__atomic_load_n((const uint8_t *)&a->live, __ATOMIC_RELAXED))
        vn_fault(w, VN_ILLEGAL_ADDRESS, "use-after-free", &access, 1u << lane,
                 "the memory has been freed");
    if (inside)
        vn_fault(w, VN_ILLEGAL_ADDRESS, "peer", &access, 1u << lane,
                 "device %u has no access to this memory", s->launch->device);
    vn_fault(w, VN_ILLEGAL_ADDRESS, "out-of-bounds", &access, 1u << lane, "out of bounds");
}

void *vn_shared(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane)
{
    struct vn_access access = {"shared", kinds[write], address, size, lane};
    if (address & (size - 1))
        vn_fault(w, VN_MISALIGNED_ADDRESS, "misaligned", &access, 1u << lane, "misaligned access");
    if (address > w->block->shared_size || size > w->block->shared_size - address)
        vn_fault(w, VN_ILLEGAL_ADDRESS, "out-of-bounds", &access, 1u << lane, "out of bounds");
    return w->block->shared + address;
}

void *vn_local(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane)
{
    struct vn_access access = {"local", kinds[write], address, size, lane};
    uint32_t room = w->launch->local_size;
    if (address & (size - 1))
        vn_fault(w, VN_MISALIGNED_ADDRESS, "misaligned", &access, 1u << lane, "misaligned access");
    if (address > room || size > room - address)
        vn_fault(w, VN_ILLEGAL_ADDRESS, "out-of-bounds", &access, 1u << lane, "out of bounds");
    return w->local + (uint64_t)room * lane + address;
}

void *vn_generic(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane,
                 enum vn_space *space)
{
    if (address - VN_SHARED_WINDOW < VN_WINDOW_SIZE) {
        *space = VN_SHARED;
        return vn_shared(w, address - VN_SHARED_WINDOW, size, write, lane);
    }
    if (address - VN_LOCAL_WINDOW < VN_WINDOW_SIZE) {
        *space = VN_LOCALSPACE;
        return vn_local(w, address - VN_LOCAL_WINDOW, size, write, lane);
    }
    *space = VN_GLOBAL;
    return vn_global(w, address, size, write, lane);
}

/* ---- written bytes ---- */

static void unwritten(struct vn_warp *w, uint64_t address, uint32_t size, uint32_t lane,
                      bool shared)
{
    struct vn_access access = {shared ? "shared" : "global", "load", address, size, lane};
    vn_find_report(w, "uninitialised", &access, 1u << lane, NULL, NULL, -1,
                   "read of memory that was never written");
}

static bool all_written(const uint8_t *written, const struct vn_addresses *a, uint32_t mask,
                        uint32_t size)
{
    uint64_t all = ~(uint64_t)0;
    if (size == 4 && mask == UINT32_MAX) {
        for (int l = 0; l < 32; l++) {
            uint32_t v;
            memcpy(&v, written + a->at[l], 4);
            all &= v | (uint64_t)v << 32;
        }
        return all == 0x0101010101010101u;
    }
    for (uint32_t m = mask; m; m &= m - 1) {
        const uint8_t *p = written + a->at[__builtin_ctz(m)];
        uint64_t v = 0x0101010101010101u;
        for (uint32_t k = 0; k < size; k += 8) {
            memcpy(&v, p + k, size < 8 ? size : 8);
            all &= v;
        }
    }
    return all == 0x0101010101010101u;
}

void vn_check_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                      bool shared)
{
    struct vc_map *map = w->launch->launch->map;
    if (!shared && a->consecutive) {
        uint64_t n = vc_uninitialised(map, a->low, 32 * size);
        if (n != 32 * size)
            unwritten(w, a->low + n / size * size, size, (uint32_t)(n / size), false);
        return;
    }
    if (!shared && a->same && vc_uninitialised(map, a->low, size) == size)
        return;
    if (shared && all_written(w->block->shared_written, a, mask, size))
        return;
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        uint64_t at = a->at[l];
        if (shared) {
            if (memchr(w->block->shared_written + at, 0, size)) {
                unwritten(w, at, size, l, true);
                return;
            }
        } else if (vc_uninitialised(map, at, size) != size) {
            unwritten(w, at, size, l, false);
            return;
        }
    }
}

void vn_mark_shared(struct vn_block *block, uint64_t at, uint32_t size)
{
    uint8_t *written = block->shared_written + at;
    if (!memchr(written, 0, size))
        return;
    for (uint32_t k = 0; k < size; k++) {
        block->shared_unwritten -= !written[k];
        written[k] = 1;
    }
}

void vn_mark_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                     bool shared)
{
    struct vc_map *map = w->launch->launch->map;
    if (!shared && a->consecutive) {
        vc_mark(map, a->low, 32 * size);
        return;
    }
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        if (shared)
            vn_mark_shared(w->block, a->at[l], size);
        else
            vc_mark(map, a->at[l], size);
    }
}

void vn_local_written(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,
                      bool store)
{
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        uint8_t *written = w->local_written + a->at[l];
        if (store) {
            memset(written, 1, size);
        } else if (memchr(written, 0, size)) {
            struct vn_access access = {"local", "load",
                                       a->at[l] - (uint64_t)l * w->launch->local_size, size, l};
            vn_find_report(w, "uninitialised", &access, 1u << l, NULL, NULL, -1,
                           "read of memory that was never written");
            return;
        }
    }
}

/* ---- sectors and banks ---- */

static void touch_sectors(struct vn_warp *w, uint64_t first, uint64_t last, bool store)
{
    struct vn_launch_state *s = w->launch;
    uint64_t offset = (first << 5) - s->range_base;
    if (offset >= s->range_bytes)
        return;
    uint64_t *map = store ? w->worker->maps->store : w->worker->maps->load;
    vn_touch_piece(w->worker, offset >> 20);
    for (uint64_t k = first; k <= last; k++) {
        uint64_t at = k - (s->range_base >> 5);
        map[at >> 6] |= (uint64_t)1 << (at & 63);
    }
    vn_touch_piece(w->worker, ((last << 5) - s->range_base) >> 20);
}

uint32_t vn_count_sectors(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask,
                          uint32_t size, bool store)
{
    if (a->consecutive || a->same || a->high - a->low < 32) {
        uint64_t first = a->low >> 5, last = (a->high + size - 1) >> 5;
        if (a->consecutive || last - first < 2) {
            touch_sectors(w, first, last, store);
            return (uint32_t)(last - first) + 1;
        }
    }
    uint64_t seen[64], count = 0;
    memset(seen, 0, sizeof seen);
    uint64_t before = 0;
    for (uint32_t m = mask; m; m &= m - 1) {
        uint64_t first = a->at[__builtin_ctz(m)] >> 5;
        uint64_t last = (a->at[__builtin_ctz(m)] + size - 1) >> 5;
        for (uint64_t k = first; k <= last; k++) {
            if (k == before)
                continue;
            before = k;
            uint32_t h = (uint32_t)(k * 0x9e3779b97f4a7c15u >> 58);
            while (seen[h] && seen[h] != k + 1)
                h = (h + 1) & 63;
            if (!seen[h]) {
                seen[h] = k + 1;
                count++;
                touch_sectors(w, k, k, store);
            }
        }
    }
    return (uint32_t)count;
}

uint32_t vn_count_passes(const struct vn_addresses *a, uint32_t mask, uint32_t size)
{
    /* Accesses of 8 and 16 bytes go in halves and quarters of the warp. */
    uint32_t lanes = size <= 4 ? 32 : size >= 16 ? 8 : 16, passes = 0;
    for (uint32_t first = 0; first < 32; first += lanes) {
        uint64_t low = ~(uint64_t)0, high = 0;
        for (uint32_t l = first; l < first + lanes; l++) {
            uint64_t at = mask >> l & 1 ? a->at[l] : ~(uint64_t)0;
            low = at < low ? at : low;
            at = mask >> l & 1 ? a->at[l] : 0;
            high = at > high ? at : high;
        }
        if (low > high)
            continue; /* no lane of the group takes part */
        if (high - low + size <= 128 && size <= 16) {
            passes++; /* 32 words in a row: one of each bank */
            continue;
        }
        uint32_t words[32][32], used[32] = {0}, most = 0;
        uint32_t group = mask >> first & (lanes == 32 ? UINT32_MAX : (1u << lanes) - 1);
        for (uint32_t m = group; m; m &= m - 1) {
            uint64_t at = a->at[first + (uint32_t)__builtin_ctz(m)];
            for (uint64_t word = at >> 2; word <= (at + size - 1) >> 2; word++) {
                uint32_t bank = word & 31, k = 0;
                while (k < used[bank] && words[bank][k] != (uint32_t)word)
                    k++;
                if (k == used[bank] && k < 32) {
                    words[bank][used[bank]++] = (uint32_t)word;
                    most = used[bank] > most ? used[bank] : most;
                }
            }
        }
        passes += most;
    }
    return passes;
}

const struct vn_pattern *vn_find_pattern(struct vn_worker *worker, struct vn_insn_counters *c,
                                         const uint32_t at[32], uint32_t size)
{
    for (uint32_t i = 0; i < VN_PATTERNS; i++) {
        if (vn_fits_pattern(&worker->patterns[i], at, size)) {
            c->pattern = i;
            return &worker->patterns[i];
        }
    }
    struct vn_pattern *p = &worker->patterns[c->pattern = worker->next_pattern++ % VN_PATTERNS];
    struct vn_addresses a;
    *p = (struct vn_pattern){.size = size, .row = true, .same = true};
    for (uint32_t l = 0; l < 32; l++) {
        a.at[l] = at[l];
        p->relative[l] = at[l] - at[0];
        p->row &= p->relative[l] == l * size;
        p->same &= !p->relative[l];
    }
    p->passes = vn_count_passes(&a, UINT32_MAX, size);
    return p;
}

/* A copy to these bytes has not been waited for: its bytes are not there yet. */
void vn_check_async(struct vn_warp *w, uint64_t address, uint32_t size, uint32_t lane,
                    const char *kind)
{
    const struct vn_block *b = w->block;
    if (!(w->launch->checks & VN_CHECK_ASYNC_COPY))
        return;
    for (uint32_t i = 0; i < b->warp_count; i++) {
        const struct vn_warp *owner = &b->warps[i];
        for (uint32_t k = 0; k < owner->async_count; k++) {
            const struct vn_async *c = &owner->async[k];
            if (address >= c->to + (uint64_t)c->bytes || c->to >= address + size)
                continue;
            struct vn_access access = {"shared", kind, address, size, lane};
            vn_find_report(
                w, "async-copy", &access, 1u << lane, c->insn, owner, c->lane,
                "the bytes of a cp.async (PTX line %u) are used before its group is waited for",
                c->insn->line);
            return;
        }
    }
}
