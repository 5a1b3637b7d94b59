/* Handlers that round in a direction: the mode is changed around the lanes. Compiled with
 * -frounding-math, once: they are rare. */
#include <fenv.h>

#include "isa.h"

#define ROUND_BODY(R, D, SOURCES, expr)                                                            \
    SLOT_##D *d = vn_at(w, insn->d);                                                               \
    int old = fegetround();                                                                        \
    fesetround(R);                                                                                 \
    __asm__ volatile("" ::: "memory");                                                             \
    for (int l = 0; l < 32; l++) {                                                                 \
        SOURCES SLOT_##D vn_r = PUT_##D(expr);                                                     \
        if (mask >> l & 1)                                                                         \
            d[l] = vn_r;                                                                           \
    }                                                                                              \
    __asm__ volatile("" ::: "memory");                                                             \
    fesetround(old);

#define R1(name, cls, R, D, A, expr)                                                               \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        const SLOT_##A *pa = vn_at(w, insn->a);                                                    \
        ROUND_BODY(R, D, C_##A a = (C_##A)pa[l];, expr)                                            \
    }
#define R2(name, cls, R, T, expr)                                                                  \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        const SLOT_##T *pa = vn_at(w, insn->a), *pb = vn_at(w, insn->b);                           \
        ROUND_BODY(R, T, C_##T a = pa[l]; C_##T b = pb[l];, expr)                                  \
    }
#define R3(name, cls, R, T, expr)                                                                  \
    VN_HANDLER(name)                                                                               \
    {                                                                                              \
        const SLOT_##T *pa = vn_at(w, insn->a), *pb = vn_at(w, insn->b), *pc = vn_at(w, insn->c);  \
        ROUND_BODY(R, T, C_##T a = pa[l]; C_##T b = pb[l]; C_##T c = pc[l];, expr)                 \
    }
#include "rounded.def"
