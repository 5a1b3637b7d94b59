/* Files that include this are compiled once for each instruction set; VN_ISA names it. */
#ifndef VIRTUAL_NVIDIA_EXEC_ISA_H
#define VIRTUAL_NVIDIA_EXEC_ISA_H

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "exec.h"
#include "arith.h"

#define VN_PASTE3(a, b, c) a##b##_##c
#define VN_PASTE(a, b, c) VN_PASTE3(a, b, c)
#define VN_H(name) VN_PASTE(vn_h_, VN_ISA, name)
#define VN_HANDLER(name)                                                                           \
    void VN_H(name)(struct vn_warp * w, const struct vn_insn *insn, uint32_t mask)

/* One expression serves all types of an op. */
#pragma GCC diagnostic ignored "-Wtype-limits"
#pragma GCC diagnostic ignored "-Wsign-compare"

/* Lanes are independent, and a destination is a source exactly or not at all. */
#define VN_LANES _Pragma("GCC ivdep") for (int l = 0; l < 32; l++)

#define OP(name, cls) VN_HANDLER(name);
#define E1(name, cls, D, A, expr) OP(name, cls)
#define E2(name, cls, D, A, B, expr) OP(name, cls)
#define E3(name, cls, D, A, B, C, expr) OP(name, cls)
#define CMP(name, A, expr) OP(name, INTEGER)
#include "element.def"
#include "ops.def"
#define R1(name, cls, R, D, A, expr) OP(name, cls)
#define R2(name, cls, R, T, expr) OP(name, cls)
#define R3(name, cls, R, T, expr) OP(name, cls)
#include "rounded.def"
#undef R1
#undef R2
#undef R3
#undef OP

/* How a type lies in its register: slot, C type. */
#define SLOT_u8 uint32_t
#define SLOT_s8 uint32_t
#define SLOT_u16 uint32_t
#define SLOT_s16 uint32_t
#define SLOT_u32 uint32_t
#define SLOT_s32 uint32_t
#define SLOT_f32 float
#define SLOT_u64 uint64_t
#define SLOT_s64 uint64_t
#define SLOT_f64 double
#define C_u8 uint8_t
#define C_s8 int8_t
#define C_u16 uint16_t
#define C_s16 int16_t
#define C_u32 uint32_t
#define C_s32 int32_t
#define C_f32 float
#define C_u64 uint64_t
#define C_s64 int64_t
#define C_f64 double
/* Signed narrow results extend over the slot. */
#define PUT_u8(x) (uint32_t)(uint8_t)(x)
#define PUT_s8(x) (uint32_t)(int32_t)(int8_t)(x)
#define PUT_u16(x) (uint32_t)(uint16_t)(x)
#define PUT_s16(x) (uint32_t)(int32_t)(int16_t)(x)
#define PUT_u32(x) (uint32_t)(x)
#define PUT_s32(x) (uint32_t)(x)
#define PUT_f32(x) (float)(x)
#define PUT_u64(x) (uint64_t)(x)
#define PUT_s64(x) (uint64_t)(int64_t)(x)
#define PUT_f64(x) (double)(x)

/* Files of rare instructions make do with one loop, to be compiled in half the time. */
#ifdef VN_ONE_LOOP
#define VN_BODY(D, SOURCES, expr)                                                                  \
    SLOT_##D *d = vn_at(w, insn->d);                                                               \
    (void)insn;                                                                                    \
    VN_LANES                                                                                       \
    {                                                                                              \
        SOURCES SLOT_##D vn_r = PUT_##D(expr);                                                     \
        d[l] = mask >> l & 1 ? vn_r : d[l];                                                        \
    }
#else
#define VN_BODY(D, SOURCES, expr)                                                                  \
    SLOT_##D *d = vn_at(w, insn->d);                                                               \
    (void)insn;                                                                                    \
    if (VN_LIKELY(mask == UINT32_MAX)) {                                                           \
        VN_LANES                                                                                   \
        {                                                                                          \
            SOURCES d[l] = PUT_##D(expr);                                                          \
        }                                                                                          \
    } else {                                                                                       \
        VN_LANES                                                                                   \
        {                                                                                          \
            SOURCES SLOT_##D vn_r = PUT_##D(expr);                                                 \
            d[l] = mask >> l & 1 ? vn_r : d[l];                                                    \
        }                                                                                          \
    }
#endif

#define DEFINE_E1(name, cls, D, A, expr)                                                           \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        const SLOT_##A *pa = vn_at(w, insn->a);                                                    \
        VN_BODY(D, C_##A a = (C_##A)pa[l];, expr)                                                  \
    }
#define DEFINE_E2(name, cls, D, A, B, expr)                                                        \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        const SLOT_##A *pa = vn_at(w, insn->a);                                                    \
        const SLOT_##B *pb = vn_at(w, insn->b);                                                    \
        VN_BODY(D, C_##A a = (C_##A)pa[l]; C_##B b = (C_##B)pb[l];, expr)                          \
    }
#define DEFINE_E3(name, cls, D, A, B, C, expr)                                                     \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        const SLOT_##A *pa = vn_at(w, insn->a);                                                    \
        const SLOT_##B *pb = vn_at(w, insn->b);                                                    \
        const SLOT_##C *pc = vn_at(w, insn->c);                                                    \
        VN_BODY(D, C_##A a = (C_##A)pa[l]; C_##B b = (C_##B)pb[l]; C_##C c = (C_##C)pc[l];, expr)  \
    }

/* A bit a lane, from words of all ones or zeros. */
VN_INLINE uint32_t vn_bits(const int32_t lanes[32])
{
    uint32_t bits = 0;
#if defined __AVX512DQ__
    for (int l = 0; l < 32; l += 16)
        bits |= (uint32_t)_mm512_movepi32_mask(_mm512_loadu_si512(lanes + l)) << l;
#elif defined __AVX2__
    for (int l = 0; l < 32; l += 8)
        bits |= (uint32_t)_mm256_movemask_ps(_mm256_loadu_ps((const float *)(lanes + l))) << l;
#else
    for (int l = 0; l < 32; l++)
        bits |= (uint32_t)(lanes[l] & 1) << l;
#endif
    return bits;
}

VN_INLINE bool vn_any(const uint32_t lanes[32])
{
#if defined __AVX512F__
    __m512i all = _mm512_or_si512(_mm512_loadu_si512(lanes), _mm512_loadu_si512(lanes + 16));
    return _mm512_test_epi32_mask(all, all);
#else
    uint32_t any = 0;
    for (int l = 0; l < 32; l++)
        any |= lanes[l];
    return any;
#endif
}

/* A comparison, then and, or, xor with the predicate in pool; q is the complement's. */
static inline void vn_set_pred(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask,
                               uint32_t bits)
{
    uint32_t other = ~bits;
    if (insn->mode) {
        uint32_t c = w->pred[insn->pool];
        if (insn->flags & VN_PRED_NEGATED)
            c = ~c;
        bits = insn->mode == 1 ? bits & c : insn->mode == 2 ? bits | c : bits ^ c;
        other = insn->mode == 1 ? other & c : insn->mode == 2 ? other | c : other ^ c;
    }
    if (insn->p != VN_NO_PRED)
        w->pred[insn->p] = (w->pred[insn->p] & ~mask) | (bits & mask);
    if (insn->q != VN_NO_PRED)
        w->pred[insn->q] = (w->pred[insn->q] & ~mask) | (other & mask);
}

#endif
