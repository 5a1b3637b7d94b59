/* Element-wise handlers, and predicates. */
#include "isa.h"

#define DEFINE_CMP(name, A, expr)                                                                  \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        const SLOT_##A *pa = vn_at(w, insn->a);                                                    \
        const SLOT_##A *pb = vn_at(w, insn->b);                                                    \
        int32_t hits[32];                                                                          \
        for (int l = 0; l < 32; l++) {                                                             \
            C_##A a = (C_##A)pa[l], b = (C_##A)pb[l];                                              \
            (void)b;                                                                               \
            hits[l] = (expr) ? -1 : 0;                                                             \
        }                                                                                          \
        vn_set_pred(w, insn, mask, vn_bits(hits));                                                 \
    }

#define VN_ONLY_ELEMENT
#define E1 DEFINE_E1
#define E2 DEFINE_E2
#define E3 DEFINE_E3
#define CMP DEFINE_CMP
#include "element.def"

static uint32_t source(const struct vn_warp *w, uint32_t p)
{
    return w->pred[p];
}

static void put(struct vn_warp *w, uint16_t p, uint32_t mask, uint32_t bits)
{
    w->pred[p] = (w->pred[p] & ~mask) | (bits & mask);
}

VN_HANDLER(and_pred)
{
    put(w, insn->p, mask, source(w, insn->q) & source(w, insn->pool));
}
VN_HANDLER(or_pred)
{
    put(w, insn->p, mask, source(w, insn->q) | source(w, insn->pool));
}
VN_HANDLER(xor_pred)
{
    put(w, insn->p, mask, source(w, insn->q) ^ source(w, insn->pool));
}
VN_HANDLER(not_pred)
{
    put(w, insn->p, mask, ~source(w, insn->q));
}
VN_HANDLER(mov_pred)
{
    put(w, insn->p, mask, source(w, insn->q));
}
VN_HANDLER(set_pred_const)
{
    put(w, insn->p, mask, insn->imm ? UINT32_MAX : 0);
}

VN_HANDLER(selp_u32)
{
    const uint32_t *pa = vn_at(w, insn->a), *pb = vn_at(w, insn->b);
    uint32_t p = source(w, insn->p);
    VN_BODY(u32, uint32_t a = pa[l]; uint32_t b = pb[l];, p >> l & 1 ? a : b)
}
VN_HANDLER(selp_u64)
{
    const uint64_t *pa = vn_at(w, insn->a), *pb = vn_at(w, insn->b);
    uint32_t p = source(w, insn->p);
    VN_BODY(u64, uint64_t a = pa[l]; uint64_t b = pb[l];, p >> l & 1 ? a : b)
}
