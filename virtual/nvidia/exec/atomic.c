/* Atomics: lanes in order, each one operation of the host. */
#include "memory.h"

/* In global memory f32 sums flush subnormals; in shared memory they do not. */
enum { ATOM_F32_FTZ = 100 };

VN_INLINE uint64_t combine(uint32_t op, uint32_t type, uint64_t old, uint64_t b)
{
    switch (type) {
    case VN_ATOM_F32:
        return bits32(nan32(float32((uint32_t)old) + float32((uint32_t)b)));
    case ATOM_F32_FTZ:
        return bits32(nan32(ftz(ftz(float32((uint32_t)old)) + ftz(float32((uint32_t)b)))));
    case VN_ATOM_F64:
        return bits64(float64(old) + float64(b));
    case VN_ATOM_F16:
        return op == VN_ATOM_ADD ? half_add((uint32_t)old, (uint32_t)b)
                                 : half_minmax((uint32_t)old, (uint32_t)b, op == VN_ATOM_MIN, 0);
    case VN_ATOM_BF16:
        return op == VN_ATOM_ADD ? bf16_fma((uint32_t)old, 0x3f80, (uint32_t)b)
                                 : bf16_minmax((uint32_t)old, (uint32_t)b, op == VN_ATOM_MIN, 0);
    case VN_ATOM_F16X2:
    case VN_ATOM_BF16X2: {
        uint32_t one = type == VN_ATOM_F16X2 ? VN_ATOM_F16 : VN_ATOM_BF16;
        uint32_t x = (uint32_t)old, y = (uint32_t)b, r[2];
        for (int k = 0; k < 2; k++) {
            uint32_t xo = x >> 16 * k & 0xffff, yo = y >> 16 * k & 0xffff;
            if (one == VN_ATOM_F16)
                r[k] = op == VN_ATOM_ADD ? half_add(xo, yo)
                                         : half_minmax(xo, yo, op == VN_ATOM_MIN, 0);
            else
                r[k] = op == VN_ATOM_ADD ? bf16_fma(xo, 0x3f80, yo)
                                         : bf16_minmax(xo, yo, op == VN_ATOM_MIN, 0);
        }
        return pack(r[0], r[1]);
    }
    default:
        break;
    }
    bool less = type == VN_ATOM_S32   ? (int32_t)b < (int32_t)old
                : type == VN_ATOM_S64 ? (int64_t)b < (int64_t)old
                                      : b < old;
    switch (op) {
    case VN_ATOM_ADD:
        return old + b;
    case VN_ATOM_MIN:
        return less ? b : old;
    case VN_ATOM_MAX:
        return less ? old : b;
    case VN_ATOM_INC:
        return old >= b ? 0 : old + 1;
    case VN_ATOM_DEC:
        return old == 0 || old > b ? b : old - 1;
    case VN_ATOM_EXCH:
        return b;
    case VN_ATOM_AND:
        return old & b;
    case VN_ATOM_OR:
        return old | b;
    default:
        return old ^ b;
    }
}

VN_INLINE uint64_t load_operand(const void *p, uint32_t code, bool wide, int l)
{
    (void)code;
    return wide ? ((const uint64_t *)p)[l] : ((const uint32_t *)p)[l];
}

#define CAS_LOOP(T)                                                                                \
    T *at = (T *)p, old = __atomic_load_n(at, __ATOMIC_SEQ_CST);                                   \
    for (;;) {                                                                                     \
        T fresh = op == VN_ATOM_CAS ? (old == (T)b ? (T)c : old) : (T)combine(op, type, old, b);   \
        if (__atomic_compare_exchange_n(at, &old, fresh, false, __ATOMIC_SEQ_CST,                  \
                                        __ATOMIC_SEQ_CST))                                         \
            break;                                                                                 \
    }                                                                                              \
    return old;

static uint64_t atomic_2(void *p, uint32_t op, uint32_t type, uint64_t b, uint64_t c)
{
    CAS_LOOP(uint16_t)
}
static uint64_t atomic_4(void *p, uint32_t op, uint32_t type, uint64_t b, uint64_t c)
{
    if (op == VN_ATOM_ADD && (type == VN_ATOM_U32 || type == VN_ATOM_S32))
        return __atomic_fetch_add((uint32_t *)p, (uint32_t)b, __ATOMIC_SEQ_CST);
    CAS_LOOP(uint32_t)
}
static uint64_t atomic_8(void *p, uint32_t op, uint32_t type, uint64_t b, uint64_t c)
{
    if (op == VN_ATOM_ADD && type != VN_ATOM_F64)
        return __atomic_fetch_add((uint64_t *)p, b, __ATOMIC_SEQ_CST);
    CAS_LOOP(uint64_t)
}

enum { IN_GLOBAL, IN_SHARED, IN_GENERIC };

VN_INLINE void atomic_access(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                             int where)
{
    struct vn_addresses a;
    const struct vn_launch_state *s = w->launch;
    uint32_t size = insn->vec;
    vn_gather_addresses(w, insn->a, insn->flags & VN_ADDRESS64, insn->imm, mask, size, &a);
    vn_spread(&a, size);
    const void *pb = vn_at(w, insn->b), *pc = insn->c == VN_NONE ? NULL : vn_at(w, insn->c);
    void *d = insn->d == VN_NONE ? NULL : vn_at(w, insn->d);
    bool wide = size == 8;
    uint32_t shared = 0, order = insn->q & 15;
    if (order == VN_RELEASE || order == VN_ACQ_REL || order == VN_ACQUIRE)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    void *places[32];
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t l = (uint32_t)__builtin_ctz(m);
        enum vn_space space = where == IN_SHARED ? VN_SHARED : VN_GLOBAL;
        places[l] = where == IN_SHARED   ? vn_shared(w, a.at[l], size, 2, l)
                    : where == IN_GLOBAL ? vn_global(w, a.at[l], size, 2, l)
                                         : vn_generic(w, a.at[l], size, 2, l, &space);
        shared |= space == VN_SHARED ? 1u << l : 0;
    }
    if (where == IN_GENERIC && shared) {
        for (int l = 0; l < 32; l++)
            a.at[l] -= shared >> l & 1 ? VN_SHARED_WINDOW : 0;
        a.consecutive = a.same = false;
    }
    uint32_t global = mask & ~shared;
    if (global && where == IN_GENERIC) {
        for (uint32_t m = global; m; m &= m - 1)
            if (a.at[__builtin_ctz(m)] - VN_LOCAL_WINDOW < VN_WINDOW_SIZE)
                global &= ~(m & -m);
    }
    a.consecutive = a.consecutive && mask == UINT32_MAX;
    if (s->count && global) {
        vn_count_access(w, insn, &a, global, size, true);
    }
    if (s->count && shared) {
        (w->counters + (insn - w->code))->passes += vn_count_passes(&a, shared, size);
    }
    if (s->checks & VN_CHECK_UNINITIALISED) {
        if (global && !(insn->mode == VN_ATOM_EXCH)) {
            vn_check_written(w, &a, global, size, false);
            vn_mark_written(w, &a, global, size, false);
        } else if (global) {
            vn_mark_written(w, &a, global, size, false);
        }
        if (shared && w->block->shared_unwritten) {
            if (insn->mode != VN_ATOM_EXCH)
                vn_check_written(w, &a, shared, size, true);
            vn_mark_written(w, &a, shared, size, true);
        }
    }
    if (shared && w->block->race)
        vn_race_shared(w, &a, shared, size, VN_ATOMIC | 12);
    if (global && s->checks & VN_CHECK_GLOBAL_RACES)
        vn_race_global(w, &a, global, size, VN_ATOMIC | 12);
    for (uint32_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctz(m);
        uint64_t b = load_operand(pb, insn->b, wide, l),
                 c = pc ? load_operand(pc, insn->c, wide, l) : 0;
        uint32_t type = insn->p == VN_ATOM_F32 && !(shared >> l & 1) ? ATOM_F32_FTZ : insn->p;
        uint64_t old = size == 4   ? atomic_4(places[l], insn->mode, type, b, c)
                       : size == 8 ? atomic_8(places[l], insn->mode, insn->p, b, c)
                                   : atomic_2(places[l], insn->mode, insn->p, b, c);
        if (d && wide)
            ((uint64_t *)d)[l] = old;
        else if (d)
            ((uint32_t *)d)[l] = (uint32_t)old;
    }
}

VN_HANDLER(atom_global)
{
    atomic_access(w, insn, mask, IN_GLOBAL);
}
VN_HANDLER(atom_shared)
{
    atomic_access(w, insn, mask, IN_SHARED);
}
VN_HANDLER(atom_generic)
{
    atomic_access(w, insn, mask, IN_GENERIC);
}

VN_HANDLER(fence)
{
    (void)mask, (void)insn;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (w->block->race)
        vn_race_fence(w);
}
