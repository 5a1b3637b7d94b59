/* Scalar operations: SOP1, SOP2, SOPK, SOPC. */
#include "exec.h"

uint32_t va_scalar_constant(const struct va_wave *w, const struct va_insn *i, uint32_t code)
{
    static const uint32_t floats[] = {0x3f000000, 0xbf000000, 0x3f800000, 0xbf800000, 0x40000000,
                                      0xc0000000, 0x40800000, 0xc0800000, 0x3e22f983};
    if (code <= 192)
        return code - 128;
    if (code <= 208)
        return 192 - code;
    if (code >= 240 && code <= 248)
        return floats[code - 240];
    switch (code) {
    case 235:
        return (uint32_t)(VA_SHARED_BASE >> 32);
    case 236:
        return (uint32_t)(VA_SHARED_BASE >> 32) | 0xffff;
    case 237:
        return (uint32_t)(VA_PRIVATE_BASE >> 32);
    case 238:
        return (uint32_t)(VA_PRIVATE_BASE >> 32) | 0xffff;
    case 251:
        return w->s64[VA_VCC / 2] == 0;
    case 252:
        return va_exec(w) == 0;
    case 253:
        return w->scc;
    default:
        return i->literal;
    }
}

uint64_t va_scalar64(const struct va_wave *w, const struct va_insn *i, uint32_t code,
                     bool is_signed)
{
    static const uint64_t doubles[] = {0x3fe0000000000000, 0xbfe0000000000000, 0x3ff0000000000000,
                                       0xbff0000000000000, 0x4000000000000000, 0xc000000000000000,
                                       0x4010000000000000, 0xc010000000000000, 0x3fc45f306dc9c882};
    if (code < 128)
        return w->s64[code / 2];
    if (code == 235 || code == 236)
        return VA_SHARED_BASE | (code == 236 ? 0xffffffff : 0);
    if (code == 237 || code == 238)
        return VA_PRIVATE_BASE | (code == 238 ? 0xffffffff : 0);
    if (code >= 240 && code <= 248)
        return doubles[code - 240];
    uint32_t v = va_scalar_constant(w, i, code);
    return code <= 208 || is_signed ? (uint64_t)(int32_t)v : v;
}

#define S32(k) va_scalar(w, i, i->k)
#define S64(k) va_scalar64(w, i, i->k, false)
#define I64(k) ((int64_t)va_scalar64(w, i, i->k, true))

/* Destinations. An odd EXEC half is an EXEC like any other: it lives in the file. */
#define PUT32(value) w->s[i->d] = (value)
#define PUT64(value) w->s64[i->d / 2] = (value)

#define OP(name) static void op_##name(struct va_wave *w, const struct va_insn *i)

/* Results of 32 or 64 bits; with _scc the flag is whether the result is not zero. */
#define U32(name, expr)                                                                            \
    OP(name)                                                                                       \
    {                                                                                              \
        uint32_t a = S32(a), b = i->b == VA_NONE ? 0 : S32(b);                                     \
        (void)b;                                                                                   \
        PUT32((uint32_t)(expr));                                                                   \
    }
#define U32_SCC(name, expr)                                                                        \
    OP(name)                                                                                       \
    {                                                                                              \
        uint32_t a = S32(a), b = i->b == VA_NONE ? 0 : S32(b), r = (uint32_t)(expr);               \
        (void)b;                                                                                   \
        PUT32(r);                                                                                  \
        w->scc = r != 0;                                                                           \
    }
#define U64(name, expr)                                                                            \
    OP(name)                                                                                       \
    {                                                                                              \
        uint64_t a = S64(a);                                                                       \
        uint64_t b = i->b == VA_NONE ? 0 : i->wb == 2 ? S64(b) : S32(b);                           \
        (void)b;                                                                                   \
        PUT64((uint64_t)(expr));                                                                   \
    }
#define U64_SCC(name, expr)                                                                        \
    OP(name)                                                                                       \
    {                                                                                              \
        uint64_t a = S64(a);                                                                       \
        uint64_t b = i->b == VA_NONE ? 0 : i->wb == 2 ? S64(b) : S32(b), r = (uint64_t)(expr);     \
        (void)b;                                                                                   \
        PUT64(r);                                                                                  \
        w->scc = r != 0;                                                                           \
    }
/* Of a 64-bit source to a 32-bit result. */
#define N64(name, expr, set)                                                                       \
    OP(name)                                                                                       \
    {                                                                                              \
        uint64_t a = S64(a);                                                                       \
        uint32_t r = (uint32_t)(expr);                                                             \
        PUT32(r);                                                                                  \
        if (set)                                                                                   \
            w->scc = r != 0;                                                                       \
    }
#define FLAG(name, expr, flag)                                                                     \
    OP(name)                                                                                       \
    {                                                                                              \
        uint32_t a = S32(a), b = S32(b), c = w->scc, r = (uint32_t)(expr);                         \
        (void)c;                                                                                   \
        w->scc = (flag);                                                                           \
        PUT32(r);                                                                                  \
    }

static uint32_t reverse32(uint32_t v)
{
    v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
    v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
    v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(v);
}

static uint64_t reverse64(uint64_t v)
{
    return (uint64_t)reverse32((uint32_t)v) << 32 | reverse32((uint32_t)(v >> 32));
}

static uint64_t quads(uint64_t v, unsigned bits, bool fill)
{
    uint64_t r = 0;
    for (unsigned k = 0; k < bits / 4; k++)
        if (v >> 4 * k & 15)
            r |= fill ? 15ull << 4 * k : 1ull << k;
    return r;
}

static uint32_t first_differing(uint64_t v, unsigned bits)
{
    for (unsigned k = 1; k < bits; k++)
        if ((v >> (bits - 1 - k) & 1) != (v >> (bits - 1) & 1))
            return k;
    return UINT32_MAX;
}

static uint64_t replicate(uint32_t v)
{
    uint64_t r = 0;
    for (unsigned k = 0; k < 32; k++)
        r |= (uint64_t)(v >> k & 1) * 3 << 2 * k;
    return r;
}

static int64_t field_signed(int64_t v, unsigned shift, unsigned width, unsigned bits)
{
    if (!width)
        return 0;
    v >>= shift;
    return width >= bits ? v : (int64_t)((uint64_t)v << (64 - width)) >> (64 - width);
}

U32(s_mov_b32, a)
U64(s_mov_b64, a)
OP(s_cmov_b32)
{
    if (w->scc)
        PUT32(S32(a));
}
OP(s_cmov_b64)
{
    if (w->scc)
        PUT64(S64(a));
}
U32_SCC(s_not_b32, ~a)
U64_SCC(s_not_b64, ~a)
U32_SCC(s_wqm_b32, quads(a, 32, true))
U64_SCC(s_wqm_b64, quads(a, 64, true))
U32(s_brev_b32, reverse32(a))
U64(s_brev_b64, reverse64(a))
U32_SCC(s_bcnt0_i32_b32, 32 - __builtin_popcount(a))
N64(s_bcnt0_i32_b64, 64 - __builtin_popcountll(a), true)
U32_SCC(s_bcnt1_i32_b32, __builtin_popcount(a))
N64(s_bcnt1_i32_b64, __builtin_popcountll(a), true)
U32(s_ff0_i32_b32, ~a ? __builtin_ctz(~a) : -1)
N64(s_ff0_i32_b64, ~a ? __builtin_ctzll(~a) : -1, false)
U32(s_ff1_i32_b32, a ? __builtin_ctz(a) : -1)
N64(s_ff1_i32_b64, a ? __builtin_ctzll(a) : -1, false)
U32(s_flbit_i32_b32, a ? __builtin_clz(a) : -1)
N64(s_flbit_i32_b64, a ? __builtin_clzll(a) : -1, false)
U32(s_flbit_i32, first_differing(a, 32))
N64(s_flbit_i32_i64, first_differing(a, 64), false)
U32(s_sext_i32_i8, (int32_t)(int8_t)a)
U32(s_sext_i32_i16, (int32_t)(int16_t)a)
U32(s_bitset0_b32, w->s[i->d] & ~(1u << (a & 31)))
U32(s_bitset1_b32, w->s[i->d] | 1u << (a & 31))
OP(s_bitset0_b64)
{
    PUT64(w->s64[i->d / 2] & ~(1ull << (S32(a) & 63)));
}
OP(s_bitset1_b64)
{
    PUT64(w->s64[i->d / 2] | 1ull << (S32(a) & 63));
}
U32_SCC(s_quadmask_b32, quads(a, 32, false))
U64_SCC(s_quadmask_b64, quads(a, 64, false))
U32_SCC(s_abs_i32, (int32_t)a < 0 ? -a : a)
OP(s_bitreplicate_b64_b32)
{
    PUT64(replicate(S32(a)));
}

#define SAVEEXEC(name, expr)                                                                       \
    OP(name)                                                                                       \
    {                                                                                              \
        uint64_t a = S64(a), e = va_exec(w), r = (expr);                                           \
        PUT64(e);                                                                                  \
        w->s64[VA_EXEC / 2] = r;                                                                   \
        w->scc = r != 0;                                                                           \
    }
SAVEEXEC(s_and_saveexec_b64, a &e)
SAVEEXEC(s_or_saveexec_b64, a | e)
SAVEEXEC(s_xor_saveexec_b64, a ^ e)
SAVEEXEC(s_andn2_saveexec_b64, a & ~e)
SAVEEXEC(s_orn2_saveexec_b64, a | ~e)
SAVEEXEC(s_nand_saveexec_b64, ~(a &e))
SAVEEXEC(s_nor_saveexec_b64, ~(a | e))
SAVEEXEC(s_xnor_saveexec_b64, ~(a ^ e))
SAVEEXEC(s_andn1_saveexec_b64, ~a &e)
SAVEEXEC(s_orn1_saveexec_b64, ~a | e)
#define WREXEC(name, expr)                                                                         \
    OP(name)                                                                                       \
    {                                                                                              \
        uint64_t a = S64(a), e = va_exec(w), r = (expr);                                           \
        w->s64[VA_EXEC / 2] = r;                                                                   \
        PUT64(r);                                                                                  \
        w->scc = r != 0;                                                                           \
    }
WREXEC(s_andn1_wrexec_b64, ~a &e)
WREXEC(s_andn2_wrexec_b64, a & ~e)

OP(s_movrels_b32)
{
    PUT32(w->s[(i->a + w->s[VA_M0]) & 127]);
}
OP(s_movrels_b64)
{
    PUT64(w->s64[((i->a + w->s[VA_M0]) & 127) / 2]);
}
OP(s_movreld_b32)
{
    w->s[(i->d + w->s[VA_M0]) & 127] = S32(a);
}
OP(s_movreld_b64)
{
    w->s64[((i->d + w->s[VA_M0]) & 127) / 2] = S64(a);
}

FLAG(s_add_u32, a + b, r < a)
FLAG(s_sub_u32, a - b, b > a)
FLAG(s_add_i32, a + b, (~(a ^ b) & (a ^ r)) >> 31)
FLAG(s_sub_i32, a - b, ((a ^ b) & (a ^ r)) >> 31)
FLAG(s_addc_u32, a + b + c, (uint64_t)a + b + c > UINT32_MAX)
FLAG(s_subb_u32, a - b - c, (uint64_t)b + c > a)
FLAG(s_min_i32, (int32_t)a < (int32_t)b ? a : b, (int32_t)a < (int32_t)b)
FLAG(s_min_u32, a < b ? a : b, a < b)
FLAG(s_max_i32, (int32_t)a >= (int32_t)b ? a : b, (int32_t)a >= (int32_t)b)
FLAG(s_max_u32, a >= b ? a : b, a >= b)
OP(s_cselect_b32)
{
    PUT32(w->scc ? S32(a) : S32(b));
}
OP(s_cselect_b64)
{
    PUT64(w->scc ? S64(a) : S64(b));
}
#define LOGIC(name, expr)                                                                          \
    U32_SCC(s_##name##_b32, expr)                                                                  \
    U64_SCC(s_##name##_b64, expr)
LOGIC(and, a &b)
LOGIC(or, a | b)
LOGIC(xor, a ^ b)
LOGIC(andn2, a & ~b)
LOGIC(orn2, a | ~b)
LOGIC(nand, ~(a &b))
LOGIC(nor, ~(a | b))
LOGIC(xnor, ~(a ^ b))
U32_SCC(s_lshl_b32, a << (b & 31))
U64_SCC(s_lshl_b64, a << (b & 63))
U32_SCC(s_lshr_b32, a >> (b & 31))
U64_SCC(s_lshr_b64, a >> (b & 63))
U32_SCC(s_ashr_i32, (int32_t)a >> (b & 31))
U64_SCC(s_ashr_i64, (int64_t)a >> (b & 63))
U32(s_bfm_b32, ((1u << (a & 31)) - 1) << (b & 31))
OP(s_bfm_b64)
{
    uint32_t a = S32(a), b = S32(b);
    PUT64(((1ull << (a & 63)) - 1) << (b & 63));
}
U32(s_mul_i32, a *b)
U32(s_mul_hi_u32, (uint64_t)a *b >> 32)
U32(s_mul_hi_i32, (uint64_t)((int64_t)(int32_t)a *(int32_t)b) >> 32)
U32_SCC(s_bfe_u32,
        (b >> 16 & 127) >= 32 ? a >> (b & 31) : a >> (b & 31) & ((1u << (b >> 16 & 31)) - 1))
U32_SCC(s_bfe_i32, field_signed((int32_t)a, b & 31, b >> 16 & 127, 32))
U64_SCC(s_bfe_u64,
        (b >> 16 & 127) >= 64 ? a >> (b & 63) : a >> (b & 63) & ((1ull << (b >> 16 & 63)) - 1))
U64_SCC(s_bfe_i64, field_signed((int64_t)a, b & 63, b >> 16 & 127, 64))
U32_SCC(s_absdiff_i32, (int32_t)(a - b) < 0 ? b - a : a - b)
FLAG(s_lshl1_add_u32, (a << 1) + b, ((uint64_t)a << 1) + b > UINT32_MAX)
FLAG(s_lshl2_add_u32, (a << 2) + b, ((uint64_t)a << 2) + b > UINT32_MAX)
FLAG(s_lshl3_add_u32, (a << 3) + b, ((uint64_t)a << 3) + b > UINT32_MAX)
FLAG(s_lshl4_add_u32, (a << 4) + b, ((uint64_t)a << 4) + b > UINT32_MAX)
U32(s_pack_ll_b32_b16, (a & 0xffff) | b << 16)
U32(s_pack_lh_b32_b16, (a & 0xffff) | (b & 0xffff0000))
U32(s_pack_hh_b32_b16, a >> 16 | (b & 0xffff0000))

#define COMPARE(name, type, expr)                                                                  \
    OP(name)                                                                                       \
    {                                                                                              \
        type a = (type)S32(a), b = (type)S32(b);                                                   \
        w->scc = (expr);                                                                           \
    }
#define COMPARES(t, type)                                                                          \
    COMPARE(s_cmp_eq_##t, type, a == b)                                                            \
    COMPARE(s_cmp_lg_##t, type, a != b)                                                            \
    COMPARE(s_cmp_gt_##t, type, a > b)                                                             \
    COMPARE(s_cmp_ge_##t, type, a >= b)                                                            \
    COMPARE(s_cmp_lt_##t, type, a < b)                                                             \
    COMPARE(s_cmp_le_##t, type, a <= b)
COMPARES(i32, int32_t)
COMPARES(u32, uint32_t)
COMPARE(s_bitcmp0_b32, uint32_t, !(a >> (b & 31) & 1))
COMPARE(s_bitcmp1_b32, uint32_t, a >> (b & 31) & 1)
OP(s_bitcmp0_b64)
{
    w->scc = !(S64(a) >> (S32(b) & 63) & 1);
}
OP(s_bitcmp1_b64)
{
    w->scc = S64(a) >> (S32(b) & 63) & 1;
}
OP(s_cmp_eq_u64)
{
    w->scc = S64(a) == S64(b);
}
OP(s_cmp_lg_u64)
{
    w->scc = S64(a) != S64(b);
}

#define K16 ((int32_t)i->offset)
OP(s_movk_i32)
{
    PUT32((uint32_t)K16);
}
OP(s_cmovk_i32)
{
    if (w->scc)
        PUT32((uint32_t)K16);
}
#define COMPAREK(name, op)                                                                         \
    OP(s_cmpk_##name##_i32)                                                                        \
    {                                                                                              \
        w->scc = (int32_t)w->s[i->d] op K16;                                                       \
    }                                                                                              \
    OP(s_cmpk_##name##_u32)                                                                        \
    {                                                                                              \
        w->scc = w->s[i->d] op(uint32_t)(uint16_t) K16;                                            \
    }
COMPAREK(eq, ==)
COMPAREK(lg, !=)
COMPAREK(gt, >)
COMPAREK(ge, >=)
COMPAREK(lt, <)
COMPAREK(le, <=)
OP(s_addk_i32)
{
    uint32_t a = w->s[i->d], b = (uint32_t)K16, r = a + b;
    PUT32(r);
    w->scc = (~(a ^ b) & (a ^ r)) >> 31;
}
OP(s_mulk_i32)
{
    PUT32(w->s[i->d] * (uint32_t)K16);
}

static const va_handler handlers[VA_OP_COUNT] = {
#define H1(name) [VA_SOP1_##name] = op_##name,
#define H2(name) [VA_SOP2_##name] = op_##name,
#define HC(name) [VA_SOPC_##name] = op_##name,
#define HK(name) [VA_SOPK_##name] = op_##name,
    H1(s_mov_b32) H1(s_mov_b64) H1(s_cmov_b32) H1(s_cmov_b64) H1(s_not_b32) H1(s_not_b64) H1(
        s_wqm_b32) H1(s_wqm_b64) H1(s_brev_b32) H1(s_brev_b64) H1(s_bcnt0_i32_b32)
        H1(s_bcnt0_i32_b64) H1(s_bcnt1_i32_b32) H1(s_bcnt1_i32_b64) H1(s_ff0_i32_b32) H1(s_ff0_i32_b64) H1(s_ff1_i32_b32) H1(
            s_ff1_i32_b64) H1(s_flbit_i32_b32) H1(s_flbit_i32_b64) H1(s_flbit_i32) H1(s_flbit_i32_i64)
            H1(s_sext_i32_i8) H1(s_sext_i32_i16) H1(s_bitset0_b32) H1(s_bitset0_b64) H1(s_bitset1_b32) H1(
                s_bitset1_b64) H1(s_and_saveexec_b64) H1(s_or_saveexec_b64) H1(s_xor_saveexec_b64)
                H1(s_andn2_saveexec_b64) H1(s_orn2_saveexec_b64) H1(s_nand_saveexec_b64) H1(
                    s_nor_saveexec_b64) H1(s_xnor_saveexec_b64) H1(s_andn1_saveexec_b64) H1(s_orn1_saveexec_b64)
                    H1(s_andn1_wrexec_b64) H1(s_andn2_wrexec_b64) H1(s_quadmask_b32) H1(
                        s_quadmask_b64) H1(s_movrels_b32) H1(s_movrels_b64) H1(s_movreld_b32) H1(s_movreld_b64)
                        H1(s_abs_i32) H1(s_bitreplicate_b64_b32) H2(s_add_u32) H2(s_sub_u32) H2(
                            s_add_i32) H2(s_sub_i32) H2(s_addc_u32)
                            H2(s_subb_u32) H2(s_min_i32) H2(s_min_u32) H2(s_max_i32) H2(s_max_u32) H2(
                                s_cselect_b32) H2(s_cselect_b64) H2(s_and_b32)
                                H2(s_and_b64) H2(s_or_b32) H2(
                                    s_or_b64) H2(s_xor_b32) H2(s_xor_b64) H2(s_andn2_b32) H2(s_andn2_b64)
                                    H2(s_orn2_b32) H2(s_orn2_b64) H2(s_nand_b32) H2(
                                        s_nand_b64) H2(s_nor_b32) H2(s_nor_b64) H2(s_xnor_b32) H2(s_xnor_b64)
                                        H2(s_lshl_b32) H2(s_lshl_b64) H2(s_lshr_b32) H2(
                                            s_lshr_b64) H2(s_ashr_i32) H2(s_ashr_i64) H2(s_bfm_b32) H2(s_bfm_b64)
                                            H2(s_mul_i32) H2(s_mul_hi_u32) H2(
                                                s_mul_hi_i32) H2(s_bfe_u32) H2(s_bfe_i32) H2(s_bfe_u64) H2(s_bfe_i64)
                                                H2(s_absdiff_i32) H2(s_lshl1_add_u32) H2(s_lshl2_add_u32) H2(
                                                    s_lshl3_add_u32) H2(s_lshl4_add_u32)
                                                    H2(s_pack_ll_b32_b16) H2(s_pack_lh_b32_b16) H2(
                                                        s_pack_hh_b32_b16) HC(s_cmp_eq_i32) HC(s_cmp_lg_i32)
                                                        HC(s_cmp_gt_i32) HC(s_cmp_ge_i32) HC(
                                                            s_cmp_lt_i32) HC(s_cmp_le_i32) HC(s_cmp_eq_u32)
                                                            HC(s_cmp_lg_u32) HC(s_cmp_gt_u32) HC(
                                                                s_cmp_ge_u32) HC(s_cmp_lt_u32)
                                                                HC(s_cmp_le_u32) HC(s_bitcmp0_b32) HC(
                                                                    s_bitcmp1_b32) HC(s_bitcmp0_b64)
                                                                    HC(s_bitcmp1_b64) HC(
                                                                        s_cmp_eq_u64) HC(s_cmp_lg_u64)
                                                                        HK(s_movk_i32) HK(s_cmovk_i32) HK(
                                                                            s_cmpk_eq_i32) HK(s_cmpk_lg_i32)
                                                                            HK(s_cmpk_gt_i32) HK(
                                                                                s_cmpk_ge_i32) HK(s_cmpk_lt_i32)
                                                                                HK(s_cmpk_le_i32) HK(
                                                                                    s_cmpk_eq_u32) HK(s_cmpk_lg_u32)
                                                                                    HK(s_cmpk_gt_u32) HK(
                                                                                        s_cmpk_ge_u32)
                                                                                        HK(s_cmpk_lt_u32) HK(
                                                                                            s_cmpk_le_u32)
                                                                                            HK(s_addk_i32)
                                                                                                HK(s_mulk_i32)};

bool va_bind_scalar(struct va_insn *insn)
{
    insn->class = VA_CLASS_SALU;
    if (handlers[insn->op]) {
        insn->run = handlers[insn->op];
        return true;
    }
    return va_bind_control(insn);
}
