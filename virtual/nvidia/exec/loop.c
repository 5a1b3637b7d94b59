/* The inner loop, sums of what it touched, and the table of handlers of one instruction set. */
#include "isa.h"

#define VN_TABLE VN_PASTE(vn_isa_, VN_ISA, table)
#define VN_RUN VN_PASTE(vn_run_, VN_ISA, warp)
#define VN_SECTORS VN_PASTE(vn_count_, VN_ISA, sectors)

static void VN_RUN(struct vn_warp *w, uint64_t steps)
{
    do {
        const struct vn_insn *i = w->next;
        if (VN_UNLIKELY(i >= w->limit)) {
            if (!vn_warp_select(w))
                return;
            i = w->next;
        }
        /* Nothing changes the group within a run. */
        const struct vn_insn *end = i + (i->run < steps ? i->run : steps);
        end = end < w->limit ? end : w->limit;
        uint32_t active = w->active, lanes = (uint32_t)__builtin_popcount(active);
        struct vn_insn_counters *c = w->counters + (i - w->code), *after = c + (end - i);
        c->issued++;
        c->lanes += lanes;
        after->issued--;
        after->lanes -= lanes;
        steps -= (uint64_t)(end - i);
        do {
            uint32_t mask = active;
            w->next = i + 1;
            if (i->guard != VN_NO_PRED) {
                uint32_t p = w->pred[i->guard];
                mask &= i->flags & VN_GUARD_NEGATED ? ~p : p;
                w->counters[i - w->code].off += lanes - (uint32_t)__builtin_popcount(mask);
                if (!mask)
                    continue;
            }
            i->fn(w, i, mask);
        } while (++i != end);
    } while (steps);
}

/* Sectors of a piece of 1 MiB, which are 512 words of the map, over all workers. */
static void VN_SECTORS(const struct vn_launch_state *s, int workers, uint64_t piece,
                       struct vn_counters *out)
{
    uint64_t loads[512] = {0}, stores[512] = {0};
    for (int i = 0; i < workers; i++) {
        const struct vn_maps *m = s->workers[i].maps;
        if (!m->touched[piece])
            continue;
        for (int k = 0; k < 512; k++) {
            loads[k] |= m->load[piece * 512 + (uint64_t)k];
            stores[k] |= m->store[piece * 512 + (uint64_t)k];
        }
    }
    for (int k = 0; k < 512; k++) {
        out->unique_load_sectors += (uint64_t)__builtin_popcountll(loads[k]);
        out->unique_store_sectors += (uint64_t)__builtin_popcountll(stores[k]);
        out->unique_sectors += (uint64_t)__builtin_popcountll(loads[k] | stores[k]);
    }
}

#define OP(name, cls) [VN_OP_##name] = VN_H(name),
#define E1(name, cls, D, A, expr) OP(name, cls)
#define E2(name, cls, D, A, B, expr) OP(name, cls)
#define E3(name, cls, D, A, B, C, expr) OP(name, cls)
#define CMP(name, A, expr) OP(name, INTEGER)
#define R1(name, cls, R, D, A, expr) OP(name, cls)
#define R2(name, cls, R, T, expr) OP(name, cls)
#define R3(name, cls, R, T, expr) OP(name, cls)
extern const struct vn_isa VN_TABLE;
const struct vn_isa VN_TABLE = {.run = VN_RUN,
                                .sectors = VN_SECTORS,
                                .handlers = {
#include "element.def"
#include "ops.def"
#include "rounded.def"
                                }};
