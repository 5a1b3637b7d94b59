/* Extended-precision arithmetic: the carry bit of each lane. */
#include "isa.h"

/* in: the instruction adds the carry; out: it writes it. The sum is formed in twice the width,
 * where a borrow shows as a carry of the complement. */
#define CARRY(name, T, W, bits, in, out, low_sum)                                                  \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        T *d = vn_at(w, insn->d);                                                                  \
        const T *pa = vn_at(w, insn->a), *pb = vn_at(w, insn->b);                                  \
        const T *pc = insn->c == VN_NONE ? pa : vn_at(w, insn->c);                                 \
        uint32_t carry = 0;                                                                        \
        for (uint32_t m = mask; m; m &= m - 1) {                                                   \
            int l = __builtin_ctz(m);                                                              \
            T a = pa[l], b = pb[l], c = pc[l];                                                     \
            W cc = (in) ? w->carry >> l & 1 : 0;                                                   \
            (void)c;                                                                               \
            W s = (low_sum);                                                                       \
            d[l] = (T)s;                                                                           \
            carry |= s >> (bits)&1 ? 1u << l : 0;                                                  \
        }                                                                                          \
        if (out)                                                                                   \
            w->carry = (w->carry & ~mask) | carry;                                                 \
    }
#define FORMS(first, next, t, T, W, bits, sum)                                                     \
    CARRY(first##_cc_##t, T, W, bits, false, true, sum)                                            \
    CARRY(next##_##t, T, W, bits, true, false, sum)                                                \
    CARRY(next##_cc_##t, T, W, bits, true, true, sum)

FORMS(add, addc, u32, uint32_t, uint64_t, 32, (uint64_t)a + b + cc)
FORMS(add, addc, u64, uint64_t, uint128, 64, (uint128)a + b + cc)
FORMS(sub, subc, u32, uint32_t, uint64_t, 32, (uint64_t)a - b - cc)
FORMS(sub, subc, u64, uint64_t, uint128, 64, (uint128)a - b - cc)
FORMS(mad_lo, madc_lo, u32, uint32_t, uint64_t, 32, (uint64_t)(uint32_t)(a *b) + c + cc)
FORMS(mad_lo, madc_lo, u64, uint64_t, uint128, 64, (uint128)(uint64_t)(a *b) + c + cc)
FORMS(mad_hi, madc_hi, u32, uint32_t, uint64_t, 32, ((uint64_t)a * b >> 32) + c + cc)
FORMS(mad_hi, madc_hi, u64, uint64_t, uint128, 64,
      (uint128)(uint64_t)((uint128)a *b >> 64) + c + cc)
FORMS(mad_hi, madc_hi, s32, uint32_t, uint64_t, 32,
      (uint64_t)(uint32_t)((int64_t)(int32_t)a *(int32_t)b >> 32) + c + cc)
FORMS(mad_hi, madc_hi, s64, uint64_t, uint128, 64,
      (uint128)(uint64_t)((int128)(int64_t)a *(int64_t)b >> 64) + c + cc)
