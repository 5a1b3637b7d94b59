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

static bool is_constant(uint32_t code)
{
    return (code & VN_FILE_MASK) == VN_CONSTANT;
}

static uint64_t constant(const struct vn_image *image, uint32_t code)
{
    const void *slot = image->constants + (size_t)(code >> 8) * 256;
    unsigned width = image->module->constant_widths[code >> 8];
    return width == 4 || width == 32 ? *(const uint32_t *)slot : *(const uint64_t *)slot;
}

/* Whether the load is of a place that one of the addresses + offset is: by the same register, or by
 * the name of a variable (`ld [x]` and `mov r, x; atom.cas [r]`). */
static bool same_place(const struct vn_image *image, const struct registers *addresses,
                       int64_t offset, const struct vn_insn *load)
{
    for (uint32_t i = 0; i < addresses->count; i++) {
        uint32_t code = addresses->codes[i];
        if (code == load->a && load->imm == offset)
            return true;
        if (is_constant(code) && is_constant(load->a) &&
            constant(image, code) + (uint64_t)offset ==
                constant(image, load->a) + (uint64_t)load->imm)
            return true;
    }
    return false;
}

static bool loads(const struct vn_insn *i)
{
    return i->op >= VN_OP_ld_global_8 && i->op <= VN_OP_ld_generic_64 && i->vec == 1 &&
           !(i->q & 15);
}

void vn_mark_guesses(const struct vn_image *image, struct vn_insn *insns, uint32_t count)
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
            if (loads(i) && holds(&value, i->d) && same_place(image, &address, cas->imm, i))
                i->flags |= VN_GUESS;
        }
    }
}
