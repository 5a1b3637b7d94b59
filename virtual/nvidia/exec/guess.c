/* Plain loads whose value a compare-and-swap checks: `old = *p; do ... while (atomicCAS(p, ...))`.
 * The load races with the atomics of others, as PTX has it, and does no harm: a stale value fails
 * the comparison. Found from the code, by the registers that moves connect. */
#include "exec.h"

enum { MOST = 16 };

struct registers {
    uint32_t codes[MOST], count;
};

static bool holds(const struct registers *r, uint32_t code)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->codes[i] == code)
            return true;
    }
    return false;
}

static bool moves(const struct vn_insn *i)
{
    return i->op == VN_OP_mov_u32 || i->op == VN_OP_mov_u64;
}

/* Adds what moves into the registers of r; both ways: what comes out of them too. */
static void follow(struct registers *r, const struct vn_insn *insns, uint32_t count, bool both_ways)
{
    for (uint32_t before = 0; before != r->count;) {
        before = r->count;
        for (uint32_t k = 0; k < count && r->count < MOST; k++) {
            const struct vn_insn *i = &insns[k];
            if (!moves(i))
                continue;
            if (holds(r, i->d) && !holds(r, i->a))
                r->codes[r->count++] = i->a;
            else if (both_ways && holds(r, i->a) && !holds(r, i->d))
                r->codes[r->count++] = i->d;
        }
    }
}

static bool loads(const struct vn_insn *i)
{
    return i->op >= VN_OP_ld_global_8 && i->op <= VN_OP_ld_generic_64 && i->vec == 1 &&
           !(i->q & 15);
}

void vn_mark_guesses(struct vn_insn *insns, uint32_t count)
{
    for (uint32_t k = 0; k < count; k++) {
        const struct vn_insn *cas = &insns[k];
        if (vn_ops[cas->op].cls != VN_CLASS_ATOMIC || cas->mode != VN_ATOM_CAS)
            continue;
        struct registers value = {{cas->b}, 1}, address = {{cas->a}, 1};
        follow(&value, insns, count, false);
        follow(&address, insns, count, true);
        for (uint32_t n = 0; n < count; n++) {
            struct vn_insn *i = &insns[n];
            if (loads(i) && holds(&value, i->d) && holds(&address, i->a) && i->imm == cas->imm)
                i->flags |= VN_GUESS;
        }
    }
}
