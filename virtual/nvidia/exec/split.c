/* Exchanges whose lanes have come to different instructions: the ISA lets them meet. What each lane
 * brings is gathered through its own instruction and frame, the result is computed once, and each
 * lane takes its own. */
#include "exec.h"

struct meeting {
    uint32_t lanes;
    uint64_t value[32];
    uint32_t b[32], c[32];
};

static const struct vn_insn *enter(struct vn_warp *w, uint32_t lane)
{
    vn_enter_frame(w, w->lane_frame[lane]);
    return w->pc[lane];
}

static uint64_t read_register(const struct vn_warp *w, uint32_t code, uint32_t lane, bool wide)
{
    const void *p = vn_at(w, code);
    return wide ? ((const uint64_t *)p)[lane] : ((const uint32_t *)p)[lane];
}

static void gather(struct vn_warp *w, struct meeting *m)
{
    for (uint32_t k = m->lanes; k; k &= k - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(k);
        const struct vn_insn *i = enter(w, l);
        if (i->op == VN_OP_vote) {
            uint32_t p = w->pred[i->q];
            m->value[l] = (i->flags & VN_PRED_NEGATED ? ~p : p) >> l & 1;
        } else {
            bool wide = (i->a & VN_FILE_MASK) == VN_R64 || (i->op == VN_OP_match && i->mode & 2);
            m->value[l] = read_register(w, i->a, l, wide);
        }
        if (i->op == VN_OP_shfl) {
            m->b[l] = (uint32_t)read_register(w, w->pool[i->pool], l, false);
            m->c[l] = (uint32_t)read_register(w, w->pool[i->pool + 1], l, false);
        }
    }
}

static uint32_t shuffled(const struct meeting *m, uint32_t mode, uint32_t lane, bool *valid)
{
    uint32_t segment = m->c[lane] >> 8 & 31, clamp = m->c[lane] & 31, b = m->b[lane] & 31;
    int l = (int)lane, low = (int)(lane & segment),
        high = (int)((uint32_t)low | (clamp & ~segment));
    int j = mode == 0   ? l - (int)b
            : mode == 1 ? l + (int)b
            : mode == 2 ? l ^ (int)b
                        : low | (int)(b & ~segment & 31);
    *valid = mode == 0 ? j >= high : j <= high;
    return (uint32_t)m->value[*valid ? j : l];
}

static uint32_t reduced(const struct meeting *m, uint32_t mode)
{
    uint32_t r = (uint32_t)m->value[__builtin_ctz(m->lanes)];
    for (uint32_t k = m->lanes & (m->lanes - 1); k; k &= k - 1) {
        uint32_t x = (uint32_t)m->value[__builtin_ctz(k)];
        bool less = mode & 8 ? (int32_t)x < (int32_t)r : x < r;
        uint32_t results[] = {r + x, less ? x : r, less ? r : x, r & x, r | x, r ^ x};
        r = results[mode & 7];
    }
    return r;
}

static void scatter(struct vn_warp *w, const struct meeting *m, uint32_t lane)
{
    const struct vn_insn *i = enter(w, lane);
    uint32_t result = 0, same = 0, votes = 0;
    bool p = false;
    for (uint32_t k = m->lanes; k; k &= k - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(k);
        same |= m->value[l] == m->value[lane] ? 1u << l : 0;
        votes |= m->value[l] & 1 ? 1u << l : 0;
    }
    switch (i->op) {
    case VN_OP_shfl:
        result = shuffled(m, i->mode, lane, &p);
        break;
    case VN_OP_vote:
        result = votes;
        p = i->mode == 0   ? votes == m->lanes
            : i->mode == 1 ? votes != 0
                           : votes == 0 || votes == m->lanes;
        break;
    case VN_OP_match:
        p = same == m->lanes;
        result = i->mode & 1 ? (p ? same : 0) : same;
        break;
    case VN_OP_redux:
        result = reduced(m, i->mode);
        break;
    default: /* bar.warp.sync */
        w->pc[lane] = i + 1;
        return;
    }
    if (i->d != VN_NONE)
        ((uint32_t *)vn_at(w, i->d))[lane] = result;
    if (i->p != VN_NO_PRED)
        w->pred[i->p] = (w->pred[i->p] & ~(1u << lane)) | (uint32_t)p << lane;
    w->pc[lane] = i + 1;
}

void vn_exchange_split(struct vn_warp *w, uint32_t lanes)
{
    struct meeting m = {.lanes = lanes};
    uint16_t op = w->pc[__builtin_ctz(lanes)]->op;
    if (op == VN_OP_mma || op == VN_OP_ldmatrix || op == VN_OP_stmatrix || op == VN_OP_movmatrix ||
        op == VN_OP_wmma_load || op == VN_OP_wmma_store) {
        w->next = w->pc[__builtin_ctz(lanes)] + 1;
        vn_fault(w, VN_ILLEGAL_INSTRUCTION, "invalid", NULL, lanes,
                 "lanes of a warp are at different matrix instructions");
    }
    if (op != VN_OP_bar_warp)
        gather(w, &m);
    for (uint32_t k = lanes; k; k &= k - 1)
        scatter(w, &m, (uint32_t)__builtin_ctz(k));
    if (w->block->race && op == VN_OP_bar_warp)
        vn_race_warp(w);
}
