/* Who may touch what: the slow side of memory accesses. */
#include "exec.h"

void va_touch(struct va_launch_state *s, uint64_t address, uint64_t bytes)
{
    for (uint64_t k = address >> 6; k <= (address + bytes - 1) >> 6; k++) {
        uint64_t bit = k - (s->range_base >> 6);
        if (bit < s->range_bytes >> 6)
            __atomic_fetch_or(&s->touched[bit >> 3], (uint8_t)(1u << (bit & 7)), __ATOMIC_RELAXED);
    }
}

bool va_known_allocation(struct va_wave *w, uint64_t low, uint64_t high, uint32_t bytes, bool write)
{
    const struct va_launch *l = w->launch->launch;
    const struct vc_alloc *a = vc_find(l->map, low);
    (void)write;
    if (!vc_may_access(a, low, high - low + bytes, l->device))
        return false;
    w->recent[1] = w->recent[0];
    w->recent[0].base = a->base;
    w->recent[0].size = a->size;
    return true;
}

static const char *kind(int write)
{
    return write == 0 ? "reads" : write == 1 ? "writes" : "changes";
}

void *va_global(struct va_wave *w, uint64_t address, uint32_t bytes, int write, int lane)
{
    const struct va_launch *l = w->launch->launch;
    const struct vc_alloc *a = vc_find(l->map, address);
    if (VA_UNLIKELY(!vc_may_access(a, address, bytes, l->device))) {
        char where[200];
        bool mapped = a != NULL;
        vc_describe(l->map, address, where, sizeof where);
        if (w->launch->checks & VA_CHECK_BOUNDS || !mapped)
            va_fault(w, VA_ILLEGAL_ADDRESS, "out-of-bounds", lane, address, bytes,
                     "%s %u bytes at 0x%llx: %s", kind(write), bytes, (unsigned long long)address,
                     where);
    }
    if (write == 2 && address & (bytes - 1))
        va_fault(w, VA_MISALIGNED_ADDRESS, "misaligned", lane, address, bytes,
                 "atomic of %u bytes at 0x%llx", bytes, (unsigned long long)address);
    if (write)
        vc_mark(l->map, address, bytes);
    if (write != 1 && w->launch->checks & VA_CHECK_UNINITIALISED && !(write == 2)) {
        uint64_t at = vc_uninitialised(l->map, address, bytes);
        if (at < bytes)
            va_find(w, "uninitialised", lane, address + at, bytes - at, NULL,
                    "reads global memory that nothing has written");
    }
    return (void *)(uintptr_t)address;
}

static void race(struct va_wave *w, const struct va_lds_mark *m, uint32_t at, int write, int lane)
{
    uint16_t others = (uint16_t) ~(1u << w->index);
    va_find(w, "lds-race", lane, at, 1, w->insns + m->insn,
            "%s byte %u of LDS, which another wave %s at text + 0x%llx with no barrier between",
            kind(write), at,
            m->writers & others   ? "has written"
            : m->atomics & others ? "has changed"
                                  : "has read",
            m->insn * 4ull);
}

void va_lds_check(struct va_wave *w, uint32_t at, uint32_t bytes, int write, int lane)
{
    struct va_group *g = w->group;
    if (g->lds_written) {
        uint8_t *written = g->lds_written + at;
        if (write) {
            memset(written, 1, bytes);
        } else {
            for (uint32_t k = 0; k < bytes; k++)
                if (!written[k]) {
                    va_find(w, "uninitialised-lds", lane, at + k, bytes - k, NULL,
                            "reads byte %u of LDS, which nothing has written", at + k);
                    break;
                }
        }
    }
    if (!g->marks)
        return;
    uint16_t me = (uint16_t)(1u << w->index), others = (uint16_t)~me;
    for (uint32_t k = at; k < at + bytes; k++) {
        struct va_lds_mark *m = &g->marks[k];
        if (m->epoch != g->epoch)
            *m = (struct va_lds_mark){.epoch = g->epoch};
        /* Reads do not race with reads, nor atomics with atomics. */
        uint32_t minds = m->writers | (write == 0 ? 0 : m->readers) | (write == 2 ? 0 : m->atomics);
        if (minds & others) {
            race(w, m, k, write, lane);
            return;
        }
        uint16_t *set = write == 0 ? &m->readers : write == 1 ? &m->writers : &m->atomics;
        *set |= me;
        m->insn = (uint32_t)(w->now - w->insns);
    }
}

/* ---- buffers ---- */

static uint32_t stride_of(const uint32_t *descriptor)
{
    return descriptor[1] >> 16 & 0x3fff;
}

void va_check_buffer(struct va_wave *w, const struct va_insn *i)
{
    const uint32_t *r = &w->s[i->b];
    bool swizzled = r[1] >> 31 && stride_of(r), by_lane = r[3] >> 23 & 1;
    if (swizzled || by_lane)
        va_not_implemented(w, i);
}

bool va_buffer_address(const struct va_wave *w, const struct va_insn *i, int l, uint32_t bytes,
                       uint64_t *address)
{
    const uint32_t *r = &w->s[i->b];
    bool idxen = i->raw[0] >> 13 & 1, offen = i->raw[0] >> 12 & 1;
    uint32_t stride = stride_of(r), index = idxen ? va_row(w, i->a)[l] : 0;
    uint32_t offset = (uint32_t)i->offset + (offen ? va_row(w, i->a + idxen)[l] : 0);
    uint32_t soffset = va_scalar(w, i, i->c);
    uint64_t at = (uint64_t)index * stride + offset;
    *address = ((r[0] | (uint64_t)r[1] << 32) & 0xffffffffffff) + soffset + at;
    return stride && idxen ? index < r[2] && offset + bytes <= stride
                           : at + soffset + bytes <= r[2];
}
