/* Integer and bit instructions against C that was written for this test from the ISA's definitions,
 * bit by bit or in wider arithmetic, on edge operands in all combinations and on random ones. */
#include "kit.h"

__extension__ typedef __int128 wide_t;
__extension__ typedef unsigned __int128 uwide_t;
typedef uint64_t (*reference_fn)(uint64_t a, uint64_t b, uint64_t c);

#define F(name, expr)                                                                              \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        (void)a, (void)b, (void)c;                                                                 \
        return (uint64_t)(expr);                                                                   \
    }
#define S16(x) ((int16_t)(x))
#define S32(x) ((int32_t)(x))
#define S64(x) ((int64_t)(x))
#define U16(x) ((uint16_t)(x))
#define U32(x) ((uint32_t)(x))

static uint64_t bit(uint64_t x, uint64_t i)
{
    return i < 64 ? x >> i & 1 : 0;
}
static uint64_t count_leading(uint64_t x, int bits)
{
    uint64_t n = 0;
    for (int i = bits - 1; i >= 0 && !bit(x, (uint64_t)i); i--)
        n++;
    return n;
}
static uint64_t count_ones(uint64_t x, int bits)
{
    uint64_t n = 0;
    for (int i = 0; i < bits; i++)
        n += bit(x, (uint64_t)i);
    return n;
}
static uint64_t reversed(uint64_t x, int bits)
{
    uint64_t r = 0;
    for (int i = 0; i < bits; i++)
        r |= bit(x, (uint64_t)i) << (bits - 1 - i);
    return r;
}
/* The highest bit that differs from the sign, or all ones. */
static uint64_t find_high(uint64_t x, int bits, bool is_signed, bool shift)
{
    uint64_t sign = is_signed ? bit(x, (uint64_t)bits - 1) : 0;
    for (int i = bits - 1; i >= 0; i--) {
        if (bit(x, (uint64_t)i) != sign)
            return (uint64_t)(shift ? bits - 1 - i : i);
    }
    return 0xffffffff;
}
static uint64_t extracted(uint64_t x, uint64_t pos, uint64_t len, int bits, bool is_signed)
{
    uint64_t r = 0, top = (uint64_t)bits - 1;
    pos &= 255;
    len &= 255;
    uint64_t last = pos + len - 1 < top ? pos + len - 1 : top;
    uint64_t sign = is_signed && len ? bit(x, last) : 0;
    for (uint64_t i = 0; i <= top; i++)
        r |= (i < len && pos + i <= top ? bit(x, pos + i) : sign) << i;
    return r;
}
static uint64_t mask_of(uint64_t pos, uint64_t len, bool wrap)
{
    uint64_t r = 0;
    pos = wrap ? pos & 31 : pos & 0xffffffff;
    len = wrap ? len & 31 : len & 0xffffffff;
    for (uint64_t i = 0; i < 32; i++)
        r |= (uint64_t)(i >= pos && i - pos < len) << i;
    return r;
}
static uint64_t permuted(uint64_t a, uint64_t b, uint64_t control)
{
    uint64_t r = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t s = control >> 4 * i & 15, byte = ((s & 4 ? b : a) >> 8 * (s & 3)) & 255;
        r |= (s & 8 ? (byte & 128 ? 255 : 0) : byte) << 8 * i;
    }
    return r;
}
static uint64_t funnel(uint64_t a, uint64_t b, uint64_t c, bool left, bool wrap)
{
    uint64_t n = U32(c);
    n = wrap ? n & 31 : n > 32 ? 32 : n;
    uwide_t both = (uwide_t)U32(b) << 32 | U32(a);
    return U32(left ? (both << n) >> 32 : both >> n);
}
static uint64_t table3(uint64_t a, uint64_t b, uint64_t c, unsigned table)
{
    uint64_t r = 0;
    for (uint64_t i = 0; i < 32; i++)
        r |= (uint64_t)(table >> (bit(a, i) * 4 + bit(b, i) * 2 + bit(c, i)) & 1) << i;
    return r;
}
static uint64_t dots(uint64_t a, uint64_t b, uint64_t c, bool a_signed, bool b_signed)
{
    int64_t sum = S32(c);
    for (int i = 0; i < 4; i++) {
        int64_t x = (int64_t)(a >> 8 * i & 255), y = (int64_t)(b >> 8 * i & 255);
        sum += (a_signed && x > 127 ? x - 256 : x) * (b_signed && y > 127 ? y - 256 : y);
    }
    return U32(sum);
}
static int64_t limited(wide_t x, int64_t low, int64_t high)
{
    return (int64_t)(x < low ? low : x > high ? high : x);
}
static int64_t shifted(int64_t x, uint64_t n, int bits)
{
    n = U32(n) >= (unsigned)bits ? (uint64_t)bits - 1 : U32(n);
    for (; n; n--) /* toward minus infinity */
        x = x < 0 ? -((-(x + 1)) / 2) - 1 : x / 2;
    return x;
}
static uint64_t up(uint64_t x, uint64_t n, int bits)
{
    return U32(n) >= (unsigned)bits ? 0 : x * ((uint64_t)1 << U32(n));
}
static uint64_t down(uint64_t x, uint64_t n, int bits)
{
    return U32(n) >= (unsigned)bits ? 0 : x / ((uint64_t)1 << U32(n));
}
static uint64_t inserted(uint64_t a, uint64_t b, uint64_t c, int bits)
{
    uint64_t pos = c & 255, len = c >> 8 & 255;
    for (uint64_t i = 0; i < len && pos + i < (uint64_t)bits; i++)
        b = (b & ~((uint64_t)1 << (pos + i))) | bit(a, i) << (pos + i);
    return b;
}

F(add, a + b)
F(sub, a - b)
F(add_sat, limited((wide_t)S32(a) + S32(b), INT32_MIN, INT32_MAX))
F(sub_sat, limited((wide_t)S32(a) - S32(b), INT32_MIN, INT32_MAX))
F(mul_lo, a *b)
F(mul_hi_u16, (uint64_t)U16(a) * U16(b) / 65536)
F(mul_hi_s16, shifted((int64_t)S16(a) * S16(b), 16, 64))
F(mul_hi_u32, (uwide_t)U32(a) * U32(b) / ((uint64_t)1 << 32))
F(mul_hi_s32, shifted((int64_t)S32(a) * S32(b), 32, 64))
F(mul_hi_u64, (uwide_t)a *b / ((uwide_t)1 << 64))
F(mul_hi_s64, (((wide_t)S64(a) * S64(b)) - (wide_t)(a * b)) / ((wide_t)1 << 64))
F(wide_u16, (uint64_t)U16(a) * U16(b))
F(wide_s16, (int64_t)S16(a) * S16(b))
F(wide_u32, (uint64_t)U32(a) * U32(b))
F(wide_s32, (int64_t)S32(a) * S32(b))
F(mad_lo, a *b + c)
F(mad_hi_u32, mul_hi_u32(a, b, 0) + c)
F(mad_hi_s32, mul_hi_s32(a, b, 0) + c)
F(mad_hi_sat, limited((wide_t)S32(mul_hi_s32(a, b, 0)) + S32(c), INT32_MIN, INT32_MAX))
F(mad_wide_s32, wide_s32(a, b, 0) + c)
F(mad_wide_u32, wide_u32(a, b, 0) + c)
F(mul24_lo_u, (a % (1 << 24)) * (b % (1 << 24)))
F(mul24_hi_u, (a % (1 << 24)) * (b % (1 << 24)) / 65536)
#define S24(x) ((int64_t)((x)&0xffffff) - ((x)&0x800000 ? 1 << 24 : 0))
F(mul24_lo_s, S24(a) * S24(b))
F(mul24_hi_s, shifted(S24(a) * S24(b), 16, 64))
F(sad_u32, U32(c) + (U32(a) > U32(b) ? U32(a) - U32(b) : U32(b) - U32(a)))
F(sad_s32,
  U32(c) + (uint64_t)(S32(a) > S32(b) ? (int64_t)S32(a) - S32(b) : (int64_t)S32(b) - S32(a)))
F(div_u32, U32(b) ? U32(a) / U32(b) : 0xffffffff)
F(div_s32, S32(b) ? (int64_t)S32(a) / S32(b) : -1)
F(rem_u32, U32(b) ? U32(a) % U32(b) : U32(a))
F(rem_s32, S32(b) ? (int64_t)S32(a) % S32(b) : S32(a))
F(div_u64, b ? a / b : UINT64_MAX)
F(div_s64, b ? (wide_t)S64(a) / S64(b) : -1)
F(rem_u64, b ? a % b : a)
F(rem_s64, b ? (wide_t)S64(a) % S64(b) : S64(a))
F(abs_s32, S32(a) < 0 ? -(int64_t)S32(a) : S32(a))
F(neg_s64, -(wide_t)S64(a))
F(min_s32, S32(a) < S32(b) ? a : b)
F(max_s32, S32(a) > S32(b) ? a : b)
F(min_u32, U32(a) < U32(b) ? a : b)
F(max_u64, a > b ? a : b)
F(min_s64, S64(a) < S64(b) ? a : b)
F(max_s16, S16(a) > S16(b) ? a : b)
F(and_, a &b)
F(or_, a | b)
F(xor_, a ^ b)
F(not_, ~a)
F(cnot, a == 0)
F(cnot32, U32(a) == 0)
F(shl16, up(U16(a), b, 16))
F(shl32, up(U32(a), b, 32))
F(shl64, up(a, b, 64))
F(shr_u16, down(U16(a), b, 16))
F(shr_u32, down(U32(a), b, 32))
F(shr_u64, down(a, b, 64))
F(shr_s16, shifted(S16(a), b, 16))
F(shr_s32, shifted(S32(a), b, 32))
F(shr_s64, shifted(S64(a), b, 64))
F(shf_l_wrap, funnel(a, b, c, true, true))
F(shf_l_clamp, funnel(a, b, c, true, false))
F(shf_r_wrap, funnel(a, b, c, false, true))
F(shf_r_clamp, funnel(a, b, c, false, false))
F(clz32, count_leading(a, 32))
F(clz64, count_leading(a, 64))
F(popc32, count_ones(a, 32))
F(popc64, count_ones(a, 64))
F(brev32, reversed(a, 32))
F(brev64, reversed(a, 64))
F(bfind_u32, find_high(a, 32, false, false))
F(bfind_s32, find_high(a, 32, true, false))
F(bfind_u64, find_high(a, 64, false, false))
F(bfind_s64, find_high(a, 64, true, false))
F(bfind_shift_u32, find_high(a, 32, false, true))
F(bfind_shift_s64, find_high(a, 64, true, true))
F(bfe_u32, extracted(a, b, c, 32, false))
F(bfe_s32, extracted(a, b, c, 32, true))
F(bfe_u64, extracted(a, b, c, 64, false))
F(bfe_s64, extracted(a, b, c, 64, true))
F(bfi32, inserted(a, b, c, 32))
F(bfi64, inserted(a, b, c, 64))
F(bmsk_clamp, mask_of(a, b, false))
F(bmsk_wrap, mask_of(a, b, true))
F(prmt, permuted(a, b, c))
F(lop3_96, table3(a, b, c, 0x96))
F(lop3_e8, table3(a, b, c, 0xe8))
F(lop3_1b, table3(a, b, c, 0x1b))
F(dp4a_uu, dots(a, b, c, false, false))
F(dp4a_ss, dots(a, b, c, true, true))
F(dp4a_su, dots(a, b, c, true, false))

/* Widths in bits of d, a, b, c (0: none). code NULL: the opcode with its operands. */
static const struct {
    const char *opcode;
    reference_fn reference;
    uint8_t d, a, b, c;
    const char *code;
} cases[] = {
    {"add.u16", add, 16, 16, 16, 0, NULL},
    {"add.u32", add, 32, 32, 32, 0, NULL},
    {"add.u64", add, 64, 64, 64, 0, NULL},
    {"add.sat.s32", add_sat, 32, 32, 32, 0, NULL},
    {"sub.s16", sub, 16, 16, 16, 0, NULL},
    {"sub.s64", sub, 64, 64, 64, 0, NULL},
    {"sub.sat.s32", sub_sat, 32, 32, 32, 0, NULL},
    {"mul.lo.s16", mul_lo, 16, 16, 16, 0, NULL},
    {"mul.lo.s32", mul_lo, 32, 32, 32, 0, NULL},
    {"mul.lo.u64", mul_lo, 64, 64, 64, 0, NULL},
    {"mul.hi.u16", mul_hi_u16, 16, 16, 16, 0, NULL},
    {"mul.hi.s16", mul_hi_s16, 16, 16, 16, 0, NULL},
    {"mul.hi.u32", mul_hi_u32, 32, 32, 32, 0, NULL},
    {"mul.hi.s32", mul_hi_s32, 32, 32, 32, 0, NULL},
    {"mul.hi.u64", mul_hi_u64, 64, 64, 64, 0, NULL},
    {"mul.hi.s64", mul_hi_s64, 64, 64, 64, 0, NULL},
    {"mul.wide.u16", wide_u16, 32, 16, 16, 0, NULL},
    {"mul.wide.s16", wide_s16, 32, 16, 16, 0, NULL},
    {"mul.wide.u32", wide_u32, 64, 32, 32, 0, NULL},
    {"mul.wide.s32", wide_s32, 64, 32, 32, 0, NULL},
    {"mad.lo.s32", mad_lo, 32, 32, 32, 32, NULL},
    {"mad.lo.u64", mad_lo, 64, 64, 64, 64, NULL},
    {"mad.hi.u32", mad_hi_u32, 32, 32, 32, 32, NULL},
    {"mad.hi.s32", mad_hi_s32, 32, 32, 32, 32, NULL},
    {"mad.hi.sat.s32", mad_hi_sat, 32, 32, 32, 32, NULL},
    {"mad.wide.s32", mad_wide_s32, 64, 32, 32, 64, NULL},
    {"mad.wide.u32", mad_wide_u32, 64, 32, 32, 64, NULL},
    {"mul24.lo.u32", mul24_lo_u, 32, 32, 32, 0, NULL},
    {"mul24.hi.u32", mul24_hi_u, 32, 32, 32, 0, NULL},
    {"mul24.lo.s32", mul24_lo_s, 32, 32, 32, 0, NULL},
    {"mul24.hi.s32", mul24_hi_s, 32, 32, 32, 0, NULL},
    {"sad.u32", sad_u32, 32, 32, 32, 32, NULL},
    {"sad.s32", sad_s32, 32, 32, 32, 32, NULL},
    {"div.u32", div_u32, 32, 32, 32, 0, NULL},
    {"div.s32", div_s32, 32, 32, 32, 0, NULL},
    {"rem.u32", rem_u32, 32, 32, 32, 0, NULL},
    {"rem.s32", rem_s32, 32, 32, 32, 0, NULL},
    {"div.u64", div_u64, 64, 64, 64, 0, NULL},
    {"div.s64", div_s64, 64, 64, 64, 0, NULL},
    {"rem.u64", rem_u64, 64, 64, 64, 0, NULL},
    {"rem.s64", rem_s64, 64, 64, 64, 0, NULL},
    {"abs.s32", abs_s32, 32, 32, 0, 0, NULL},
    {"neg.s64", neg_s64, 64, 64, 0, 0, NULL},
    {"min.s32", min_s32, 32, 32, 32, 0, NULL},
    {"max.s32", max_s32, 32, 32, 32, 0, NULL},
    {"min.u32", min_u32, 32, 32, 32, 0, NULL},
    {"max.u64", max_u64, 64, 64, 64, 0, NULL},
    {"min.s64", min_s64, 64, 64, 64, 0, NULL},
    {"max.s16", max_s16, 16, 16, 16, 0, NULL},
    {"and.b32", and_, 32, 32, 32, 0, NULL},
    {"or.b64", or_, 64, 64, 64, 0, NULL},
    {"xor.b16", xor_, 16, 16, 16, 0, NULL},
    {"not.b64", not_, 64, 64, 0, 0, NULL},
    {"cnot.b32", cnot32, 32, 32, 0, 0, NULL},
    {"cnot.b64", cnot, 64, 64, 0, 0, NULL},
    {"shl.b16", shl16, 16, 16, 32, 0, NULL},
    {"shl.b32", shl32, 32, 32, 32, 0, NULL},
    {"shl.b64", shl64, 64, 64, 32, 0, NULL},
    {"shr.u16", shr_u16, 16, 16, 32, 0, NULL},
    {"shr.u32", shr_u32, 32, 32, 32, 0, NULL},
    {"shr.u64", shr_u64, 64, 64, 32, 0, NULL},
    {"shr.s16", shr_s16, 16, 16, 32, 0, NULL},
    {"shr.s32", shr_s32, 32, 32, 32, 0, NULL},
    {"shr.s64", shr_s64, 64, 64, 32, 0, NULL},
    {"shf.l.wrap.b32", shf_l_wrap, 32, 32, 32, 32, NULL},
    {"shf.l.clamp.b32", shf_l_clamp, 32, 32, 32, 32, NULL},
    {"shf.r.wrap.b32", shf_r_wrap, 32, 32, 32, 32, NULL},
    {"shf.r.clamp.b32", shf_r_clamp, 32, 32, 32, 32, NULL},
    {"clz.b32", clz32, 32, 32, 0, 0, NULL},
    {"clz.b64", clz64, 32, 64, 0, 0, NULL},
    {"popc.b32", popc32, 32, 32, 0, 0, NULL},
    {"popc.b64", popc64, 32, 64, 0, 0, NULL},
    {"brev.b32", brev32, 32, 32, 0, 0, NULL},
    {"brev.b64", brev64, 64, 64, 0, 0, NULL},
    {"bfind.u32", bfind_u32, 32, 32, 0, 0, NULL},
    {"bfind.s32", bfind_s32, 32, 32, 0, 0, NULL},
    {"bfind.u64", bfind_u64, 32, 64, 0, 0, NULL},
    {"bfind.s64", bfind_s64, 32, 64, 0, 0, NULL},
    {"bfind.shiftamt.u32", bfind_shift_u32, 32, 32, 0, 0, NULL},
    {"bfind.shiftamt.s64", bfind_shift_s64, 32, 64, 0, 0, NULL},
    {"bfe.u32", bfe_u32, 32, 32, 32, 32, NULL},
    {"bfe.s32", bfe_s32, 32, 32, 32, 32, NULL},
    {"bfe.u64", bfe_u64, 64, 64, 32, 32, NULL},
    {"bfe.s64", bfe_s64, 64, 64, 32, 32, NULL},
    {"bfi.b32", bfi32, 32, 32, 32, 32,
     "shr.u32 c1, c, 8; and.b32 c, c, 255; and.b32 c1, c1, 255; bfi.b32 d, a, b, c, c1;"},
    {"bfi.b64", bfi64, 64, 64, 64, 32,
     "shr.u32 c1, c, 8; and.b32 c, c, 255; and.b32 c1, c1, 255; bfi.b64 d, a, b, c, c1;"},
    {"bmsk.clamp.b32", bmsk_clamp, 32, 32, 32, 0, NULL},
    {"bmsk.wrap.b32", bmsk_wrap, 32, 32, 32, 0, NULL},
    {"prmt.b32", prmt, 32, 32, 32, 32, NULL},
    {"lop3.b32 0x96", lop3_96, 32, 32, 32, 32, "lop3.b32 d, a, b, c, 0x96;"},
    {"lop3.b32 0xe8", lop3_e8, 32, 32, 32, 32, "lop3.b32 d, a, b, c, 0xe8;"},
    {"lop3.b32 0x1b", lop3_1b, 32, 32, 32, 32, "lop3.b32 d, a, b, c, 0x1b;"},
    {"dp4a.u32.u32", dp4a_uu, 32, 32, 32, 32, NULL},
    {"dp4a.s32.s32", dp4a_ss, 32, 32, 32, 32, NULL},
    {"dp4a.s32.u32", dp4a_su, 32, 32, 32, 32, NULL},
};
enum { CASES = sizeof cases / sizeof *cases, EDGES = 19, RANDOM = 3840, BLOCK = 256 };
enum { VALUES = EDGES * EDGES + RANDOM };

static const uint64_t edges[EDGES] = {
    0,         1,  2,   7,      8,      31,         32,         33,         63,
    64,        65, 255, 0x7fff, 0x8000, 0x7fffffff, 0x80000000, 0xffffffff, 0x8000000000000000u,
    UINT64_MAX};

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    uint64_t r = *state * 0x9e3779b97f4a7c15u;
    return r >> (r & 3) * 16; /* small ones too */
}

static char *kernels(void)
{
    char *text = malloc(CASES * 1200 + 1000);
    assert_non_null(text);
    size_t n = (size_t)sprintf(text, PTX_HEAD);
    for (int k = 0; k < CASES; k++) {
        uint8_t bits[4] = {cases[k].d, cases[k].a, cases[k].b, cases[k].c};
        n += (size_t)sprintf(
            text + n,
            ".visible .entry k%d(.param .u64 in, .param .u64 out) {\n.reg .b64 p, q, t; "
            ".reg .b32 i, j, c1; .reg .pred e;\n",
            k);
        for (int r = 0; r < 4; r++)
            n += (size_t)sprintf(text + n, ".reg .b%d %c;\n", bits[r] ? bits[r] : 32, "dabc"[r]);
        n += (size_t)sprintf(
            text + n,
            "ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 i, %%tid.x; mov.u32 j, "
            "%%ctaid.x; mad.lo.u32 i, j, %d, i; setp.ge.u32 e, i, %d; @e ret;\n"
            "mul.wide.u32 t, i, 24; add.u64 p, p, t; mul.wide.u32 t, i, 8; add.u64 q, q, t;\n",
            BLOCK, VALUES);
        for (int r = 1; r < 4; r++) {
            if (bits[r])
                n += (size_t)sprintf(text + n, "ld.global.b%d %c, [p + %d];\n", bits[r], "dabc"[r],
                                     8 * (r - 1));
        }
        if (cases[k].code)
            n += (size_t)sprintf(text + n, "%s\n", cases[k].code);
        else
            n += (size_t)sprintf(text + n, "%s d, a%s%s;\n", cases[k].opcode, bits[2] ? ", b" : "",
                                 bits[3] ? ", c" : "");
        n += (size_t)sprintf(text + n, "st.global.b%d [q], d; ret; }\n", bits[0]);
    }
    return text;
}

static void integers(void **state)
{
    (void)state;
    static uint64_t in[VALUES][3], none[VALUES];
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < VALUES; i++) {
        in[i][0] = i < EDGES * EDGES ? edges[i / EDGES] : random_next(&seed);
        in[i][1] = i < EDGES * EDGES ? edges[i % EDGES] : random_next(&seed);
        in[i][2] = i < EDGES * EDGES ? edges[i * 7 % EDGES] : random_next(&seed);
    }
    struct kit kit;
    char *text = kernels();
    kit_open(&kit, text);
    uint64_t from = kit_buffer(&kit, sizeof in, in), to = kit_buffer(&kit, sizeof none, none);
    for (int k = 0; k < CASES; k++) {
        char name[16];
        snprintf(name, sizeof name, "k%d", k);
        assert_int_equal(KIT_RUN(&kit, name, (VALUES + BLOCK - 1) / BLOCK, BLOCK, from, to), VN_OK);
        for (int i = 0; i < VALUES; i++) {
            uint64_t v[3];
            const uint8_t bits[3] = {cases[k].a, cases[k].b, cases[k].c};
            for (int r = 0; r < 3; r++)
                v[r] =
                    bits[r] && bits[r] < 64 ? in[i][r] & (((uint64_t)1 << bits[r]) - 1) : in[i][r];
            uint64_t keep = UINT64_MAX >> (64 - cases[k].d);
            uint64_t got = ((const uint64_t *)kit_host(to))[i] & keep;
            uint64_t want = cases[k].reference(v[0], v[1], v[2]) & keep;
            if (got != want)
                fail_msg("%s of 0x%llx, 0x%llx, 0x%llx: 0x%llx, not 0x%llx", cases[k].opcode,
                         (unsigned long long)v[0], (unsigned long long)v[1],
                         (unsigned long long)v[2], (unsigned long long)got,
                         (unsigned long long)want);
        }
    }
    kit_close(&kit);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(integers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
