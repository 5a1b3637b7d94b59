/* Branches, calls, barriers, exchanges between lanes, and what reads the state of the machine. */
#include "../../common/turns.h"
#include "builtin.h"
#include "isa.h"

#include <sched.h>

VN_HANDLER(nop)
{
    (void)w, (void)insn, (void)mask;
}

VN_HANDLER(bra)
{
    vn_branch(w, mask, w->code + insn->imm);
}

VN_HANDLER(brx)
{
    const uint32_t *index = vn_at(w, insn->a);
    const struct vn_code *code = &w->launch->image->module->functions[w->frames[w->frame].function];
    int first = __builtin_ctz(mask);
    uint32_t same = 0;
    VN_LANES same |= index[l] == index[first] ? 1u << l : 0;
    same &= mask;
    if (index[first] >= insn->pool)
        vn_fault(w, VN_INVALID_PC, "invalid", NULL, same, "brx.idx takes %u of %u targets",
                 index[first], insn->pool);
    if (same != mask) { /* the others come back to this instruction */
        w->next = insn;
        uint32_t others = mask & ~same, active = w->active & ~mask;
        for (uint32_t m = others; m; m &= m - 1) {
            w->pc[__builtin_ctz(m)] = insn;
            w->lane_frame[__builtin_ctz(m)] = w->frame;
        }
        w->active = active | same;
        w->next = insn + 1;
        vn_leave(w);
    }
    vn_branch(w, same, w->code + code->targets[insn->imm + index[first]]);
    if (same != mask)
        vn_leave(w);
}

VN_HANDLER(call)
{
    vn_call(w, insn, mask, (uint32_t)insn->imm);
}

VN_HANDLER(call_indirect)
{
    const uint64_t *target = vn_at(w, insn->a);
    int first = __builtin_ctz(mask);
    uint32_t same = 0;
    for (int l = 0; l < 32; l++)
        same |= target[l] == target[first] ? 1u << l : 0;
    same &= mask;
    uint64_t index = (target[first] - VN_CODE_WINDOW) >> 4;
    if (target[first] < VN_CODE_WINDOW || target[first] & 15 ||
        index >= w->launch->image->module->function_count)
        vn_fault(w, VN_INVALID_PC, "invalid", NULL, same, "call of 0x%llx, which is no function",
                 (unsigned long long)target[first]);
    if (same != mask) {
        uint32_t rest = w->active & ~mask;
        for (uint32_t m = mask & ~same; m; m &= m - 1) {
            w->pc[__builtin_ctz(m)] = insn;
            w->lane_frame[__builtin_ctz(m)] = w->frame;
        }
        w->active = rest | same;
    }
    const struct vn_code *f = &w->launch->image->module->functions[index];
    if (!f->info.defined && f->builtin) {
        vn_builtin(w, insn, same, f->builtin);
        if (same != mask)
            vn_leave(w);
        return;
    }
    vn_call(w, insn, same, (uint32_t)index);
    if (same != mask)
        vn_leave(w);
}

VN_HANDLER(call_builtin)
{
    vn_builtin(w, insn, mask, (uint32_t)insn->imm);
}

VN_HANDLER(ret)
{
    (void)insn;
    vn_return(w, mask);
}

VN_HANDLER(exit)
{
    (void)insn;
    vn_exit(w, mask);
}

VN_HANDLER(trap)
{
    (void)insn;
    vn_fault(w, VN_TRAP, "trap", NULL, mask, "trap");
}

/* nanosleep: the other lanes of the warp come first, and what it waits for may be another device's
 * to do. */
VN_HANDLER(yield)
{
    (void)insn, (void)mask;
    vn_warp_rotate(w);
    sched_yield();
}

VN_HANDLER(special)
{
    uint64_t now = 0;
    switch (insn->mode) {
    case VN_CLOCK:
    case VN_CLOCK_HI:
    case VN_CLOCK64: /* instructions stand for cycles */
        now = w->worker->clock += 16;
        break;
    case VN_GLOBALTIMER:
    case VN_GLOBALTIMER_LO:
    case VN_GLOBALTIMER_HI:
        now = w->launch->global_races ? vc_turns_ns() : vn_now_ns();
        break;
    case VN_GRIDID:
        now = w->launch->launch->grid_id;
        break;
    }
    if (insn->mode == VN_CLOCK_HI || insn->mode == VN_GLOBALTIMER_HI)
        now >>= 32;
    if ((insn->d & VN_FILE_MASK) == VN_R64) {
        VN_BODY(u64, , now)
    } else {
        VN_BODY(u32, , now)
    }
}

VN_HANDLER(bfi_u32)
{
    const uint32_t *p = w->pool + insn->pool;
    const uint32_t *pa = vn_at(w, p[0]), *pb = vn_at(w, p[1]), *pos = vn_at(w, p[2]),
                   *len = vn_at(w, p[3]);
    VN_BODY(u32, , bfi64(pa[l], pb[l], pos[l], len[l], 32))
}
VN_HANDLER(bfi_u64)
{
    const uint32_t *p = w->pool + insn->pool;
    const uint64_t *pa = vn_at(w, p[0]), *pb = vn_at(w, p[1]);
    const uint32_t *pos = vn_at(w, p[2]), *len = vn_at(w, p[3]);
    VN_BODY(u64, , bfi64(pa[l], pb[l], pos[l], len[l], 64))
}

/* ---- barriers and exchanges ---- */

VN_HANDLER(bar)
{
    vn_barrier_arrive(w, insn, mask);
}

/* Brings the lanes that the mask operand names together. False: they wait, or some are to try
 * again. */
VN_INLINE bool together(struct vn_warp *w, const struct vn_insn *insn, uint32_t *mask,
                        uint32_t code)
{
    const uint32_t *wanted = vn_at(w, code);
    int first = __builtin_ctz(*mask);
    uint32_t want = wanted[first], same = UINT32_MAX;
    if ((code & VN_FILE_MASK) != VN_CONSTANT) {
        int32_t hits[32];
        for (int l = 0; l < 32; l++)
            hits[l] = wanted[l] == want ? -1 : 0;
        same = vn_bits(hits);
    }
    if (VN_UNLIKELY(*mask & ~(same & want))) {
        if (*mask & same & ~want)
            vn_fault(w, VN_ILLEGAL_INSTRUCTION, "invalid", NULL, *mask & same & ~want,
                     "a lane is not in the mask 0x%08x that it names", want);
        /* lanes with other masks: those of the first go ahead, the rest execute it again */
        uint32_t later = *mask & ~same;
        for (uint32_t m = later; m; m &= m - 1) {
            w->pc[__builtin_ctz(m)] = insn;
            w->lane_frame[__builtin_ctz(m)] = w->frame;
        }
        w->active &= ~later;
        *mask &= same;
        vn_leave(w);
    }
    return vn_sync(w, insn, mask, want);
}

VN_HANDLER(bar_warp)
{
    if (!together(w, insn, &mask, insn->a))
        return;
    if (w->block->race)
        vn_race_warp(w);
}

VN_HANDLER(activemask){VN_BODY(u32, , mask)}

VN_INLINE void permute(uint32_t to[32], const uint32_t from[32], const uint32_t source[32])
{
#ifdef __AVX512F__
    __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + 16);
    for (int l = 0; l < 32; l += 16)
        _mm512_storeu_si512(to + l,
                            _mm512_permutex2var_epi32(low, _mm512_loadu_si512(source + l), high));
#else
    for (int l = 0; l < 32; l++)
        to[l] = from[source[l]];
#endif
}

VN_HANDLER(shfl)
{
    const uint32_t *p = w->pool + insn->pool;
    if (!together(w, insn, &mask, p[2]))
        return;
    const uint32_t *pa = vn_at(w, insn->a), *pb = vn_at(w, p[0]), *pc = vn_at(w, p[1]);
    uint32_t *d = vn_at(w, insn->d);
    uint32_t source[32], value[32];
    int32_t valid[32];
#define SHUFFLE(j, in)                                                                             \
    for (int l = 0; l < 32; l++) {                                                                 \
        int segment = (int)(pc[l] >> 8 & 31), clamp = (int)(pc[l] & 31), b = (int)(pb[l] & 31);    \
        int low = l & segment, high = low | (clamp & ~segment), from_lane = (j);                   \
        (void)low, (void)high, (void)b;                                                            \
        source[l] = (uint32_t)((in) ? from_lane : l) & 31;                                         \
        valid[l] = (in) ? -1 : 0;                                                                  \
    }
    switch (insn->mode) {
    case 0:
        SHUFFLE(l - b, from_lane >= high)
        break;
    case 1:
        SHUFFLE(l + b, from_lane <= high)
        break;
    case 2:
        SHUFFLE(l ^ b, from_lane <= high)
        break;
    default:
        SHUFFLE(low | (b & ~segment & 31), from_lane <= high)
    }
#undef SHUFFLE
    permute(value, pa, source);
    if (mask != UINT32_MAX && w->launch->checks & VN_CHECK_UNINITIALISED) {
        uint32_t from = 0;
        for (uint32_t m = mask; m; m &= m - 1)
            from |= 1u << source[__builtin_ctz(m)];
        if (VN_UNLIKELY(from & ~mask))
            vn_find_report(w, "uninitialised", NULL, mask, NULL, NULL, -1,
                           "shfl reads lanes 0x%08x, which do not take part", from & ~mask);
    }
    VN_LANES d[l] = mask >> l & 1 ? value[l] : d[l];
    if (insn->p != VN_NO_PRED)
        w->pred[insn->p] = (w->pred[insn->p] & ~mask) | (vn_bits(valid) & mask);
}

VN_HANDLER(vote)
{
    if (!together(w, insn, &mask, insn->b))
        return;
    uint32_t p = w->pred[insn->q];
    p = (insn->flags & VN_PRED_NEGATED ? ~p : p) & mask;
    if (insn->mode == 3) {
        VN_BODY(u32, , p)
        return;
    }
    bool yes = insn->mode == 0 ? p == mask : insn->mode == 1 ? p != 0 : p == 0 || p == mask;
    if (insn->p != VN_NO_PRED)
        w->pred[insn->p] = (w->pred[insn->p] & ~mask) | (yes ? mask : 0);
}

VN_HANDLER(match)
{
    if (!together(w, insn, &mask, insn->b))
        return;
    uint64_t v[32];
    const void *a = vn_at(w, insn->a);
    bool constant = (insn->a & VN_FILE_MASK) == VN_R64 || insn->mode & 2;
    for (int l = 0; l < 32; l++)
        v[l] = constant ? ((const uint64_t *)a)[l] : ((const uint32_t *)a)[l];
    uint32_t *d = vn_at(w, insn->d), all = 0;
    for (uint32_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        uint32_t same = 0;
        for (uint32_t n = mask; n; n &= n - 1)
            same |= v[__builtin_ctz(n)] == v[l] ? n & -n : 0;
        if (insn->mode & 1)
            d[l] = same == mask ? mask : 0, all |= same == mask ? 1u << l : 0;
        else
            d[l] = same;
    }
    if (insn->p != VN_NO_PRED)
        w->pred[insn->p] = (w->pred[insn->p] & ~mask) | all;
}

VN_HANDLER(redux)
{
    if (!together(w, insn, &mask, insn->b))
        return;
    const uint32_t *a = vn_at(w, insn->a);
    bool is_signed = insn->mode & 8;
    uint32_t r = a[__builtin_ctz(mask)];
    for (uint32_t m = mask & (mask - 1); m; m &= m - 1) {
        uint32_t x = a[__builtin_ctz(m)];
        bool less = is_signed ? (int32_t)x < (int32_t)r : x < r;
        switch (insn->mode & 7) {
        case 0:
            r += x;
            break;
        case 1:
            r = less ? x : r;
            break;
        case 2:
            r = less ? r : x;
            break;
        case 3:
            r &= x;
            break;
        case 4:
            r |= x;
            break;
        default:
            r ^= x;
        }
    }
    VN_BODY(u32, , r)
}
