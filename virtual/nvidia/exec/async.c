/* cp.async: the bytes are read when the instruction runs and land when somebody waits for their
 * group, which is the latest that the ISA allows. What touches them before is told. */
#include "memory.h"

#include <stdlib.h>

VN_HANDLER(cp_async)
{
    struct vn_addresses from;
    const struct vn_launch_state *s = w->launch;
    uint32_t size = insn->vec;
    vn_gather_addresses(w, insn->b, insn->flags & VN_ADDRESS64_B, (int32_t)(insn->imm >> 32), mask,
                        size, &from);
    vn_spread(&from, size);
    const void *pa = vn_at(w, insn->a);
    const uint32_t *left = insn->c == VN_NONE ? NULL : vn_at(w, insn->c);
    uint32_t ignored = insn->p == VN_NO_PRED ? 0 : w->pred[insn->p];
    uint32_t read = 0;
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        uint64_t to =
            insn->flags & VN_ADDRESS64 ? ((const uint64_t *)pa)[l] : ((const uint32_t *)pa)[l];
        uint32_t n = ignored >> l & 1 ? 0 : left ? left[l] : size;
        n = n > size ? size : n;
        to += (uint64_t)(int64_t)(int32_t)insn->imm;
        if (!(insn->flags & VN_ADDRESS64))
            to = (uint32_t)to;
        vn_shared(w, to, size, 1, l);
        if (w->async_count == w->async_capacity) {
            uint32_t capacity = w->async_capacity ? w->async_capacity * 2 : 256;
            struct vn_async *more = realloc(w->async, capacity * sizeof *more);
            if (!more)
                vn_fault(w, VN_OUT_OF_MEMORY, "invalid", NULL, mask, "no host memory for copies");
            w->async = more;
            w->async_capacity = capacity;
        }
        struct vn_async *copy = &w->async[w->async_count++];
        *copy = (struct vn_async){.insn = insn,
                                  .to = (uint32_t)to,
                                  .bytes = size,
                                  .lane = (uint8_t)l,
                                  .group = w->async_groups[l]};
        if (n) { /* a partial read is of n bytes from an address aligned to the whole */
            uint64_t at = from.at[l];
            struct vn_access access = {"global", "async copy", at, size, l};
            if (at & (size - 1))
                vn_fault(w, VN_MISALIGNED_ADDRESS, "misaligned", &access, 1u << l,
                         "misaligned access");
            for (uint32_t k = 0; k < n;) { /* n need not be a power of two */
                uint32_t piece = n - k >= 8 ? 8 : n - k >= 4 ? 4 : n - k >= 2 ? 2 : 1;
                memcpy(copy->data + k, vn_global(w, at + k, piece, 0, l), piece);
                k += piece;
            }
            read |= n == size ? 1u << l : 0;
        }
        w->block->async_pending++;
    }
    from.consecutive = from.consecutive && read == UINT32_MAX;
    from.same = from.same && read == mask;
    if (s->count && read)
        vn_count_access(w, insn, &from, read, size, false);
    if (s->checks & VN_CHECK_UNINITIALISED && read)
        vn_check_written(w, &from, read, size, false);
    if (s->checks & VN_CHECK_GLOBAL_RACES && read)
        vn_race_global(w, &from, read, size, VN_READ);
}

VN_HANDLER(cp_async_commit)
{
    (void)insn;
    for (uint32_t m = mask; m; m &= m - 1)
        w->async_groups[__builtin_ctz(m)]++;
}

/* Lands what lanes of mask have committed, except the newest `keep` groups; keep < 0: everything.
 */
static void land(struct vn_warp *w, uint32_t mask, int64_t keep)
{
    uint32_t kept = 0;
    struct vn_addresses a = {{0}, 0, 0, 0, false, false};
    for (uint32_t i = 0; i < w->async_count; i++) {
        struct vn_async *c = &w->async[i];
        bool mine = mask >> c->lane & 1;
        bool due = keep < 0 || (int64_t)c->group + keep < (int64_t)w->async_groups[c->lane];
        if (!mine || !due) {
            w->async[kept++] = *c;
            continue;
        }
        memcpy(w->block->shared + c->to, c->data, c->bytes);
        if (w->block->shared_unwritten)
            vn_mark_shared(w->block, c->to, c->bytes);
        if (w->block->race) {
            a.at[c->lane] = a.low = a.high = c->to;
            vn_race_shared(w, &a, 1u << c->lane, c->bytes, VN_WRITE);
        }
        w->block->async_pending--;
    }
    w->async_count = kept;
}

VN_HANDLER(cp_async_wait)
{
    if (w->async_count)
        land(w, mask, insn->imm);
}
