/* Execution: arithmetic against C, lanes that part and meet, exchanges, schedules, counters. */
#include <math.h>

#include "kit.h"

/* ---- integers against C ---- */

#define OPERATE(name, type, code)                                                                  \
    ".visible .entry " name "(.param .u64 pa, .param .u64 pb, .param .u64 po) {\n"                 \
    ".reg .b64 a, b, o, t; .reg .b32 i, x32, y32, z32; .reg .b64 x64, y64, z64; .reg .pred p;\n"   \
    "ld.param.u64 a, [pa]; ld.param.u64 b, [pb]; ld.param.u64 o, [po];\n"                          \
    "mov.u32 i, %ctaid.x; shl.b32 i, i, 7; mov.u32 x32, %tid.x; add.u32 i, i, x32;\n"              \
    "mul.wide.u32 t, i, 8; add.u64 a, a, t; add.u64 b, b, t; add.u64 o, o, t;\n"                   \
    "ld.global.u64 x64, [a]; ld.global.u64 y64, [b]; cvt.u32.u64 x32, x64; cvt.u32.u64 y32, "      \
    "y64;\n"                                                                                       \
    "mov.u64 z64, 0; mov.u32 z32, 0;\n" code "\n" type " ret; }\n"
#define OUT32 "cvt.u64.u32 z64, z32; st.global.u64 [o], z64;"
#define OUT64 "st.global.u64 [o], z64;"

static uint64_t mix(uint64_t *s)
{
    *s += 0x9e3779b97f4a7c15u;
    uint64_t z = *s;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    switch (z & 7) { /* edges are as likely as anything */
    case 0:
        return z >> 60;
    case 1:
        return 0 - (z >> 60);
    case 2:
        return (uint64_t)1 << (z >> 58);
    default:
        return z;
    }
}

static uint32_t reverse(uint32_t x)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1) << (31 - i);
    return r;
}

static uint32_t ones(uint64_t x)
{
    uint32_t n = 0;
    for (; x; x &= x - 1)
        n++;
    return n;
}

static uint32_t zeros(uint64_t x)
{
    uint32_t n = 64;
    for (; x; x >>= 1)
        n--;
    return n;
}

/* The upper half of a product, from four of 32 bits. */
static uint64_t high(uint64_t x, uint64_t y)
{
    uint64_t xl = x & 0xffffffff, xh = x >> 32, yl = y & 0xffffffff, yh = y >> 32;
    uint64_t middle = (xl * yl >> 32) + (xh * yl & 0xffffffff) + (xl * yh & 0xffffffff);
    return xh * yh + (xh * yl >> 32) + (xl * yh >> 32) + (middle >> 32);
}

static uint32_t field(uint32_t a, uint32_t pos, uint32_t len, bool sign)
{
    uint32_t r = 0, top = 0;
    for (uint32_t i = 0; i < len && i < 32; i++) {
        if (pos + i < 32) {
            r |= (a >> (pos + i) & 1) << i;
        }
    }
    if (sign && len) {
        uint32_t at = pos + len - 1 > 31 ? 31 : pos + len - 1;
        top = a >> at & 1;
        for (uint32_t i = 0; i < 32; i++) {
            if (i >= len || pos + i > 31)
                r = (r & ~(1u << i)) | top << i;
        }
    }
    return r;
}

struct integer_case {
    const char *name, *ptx;
    uint64_t (*expect)(uint64_t x, uint64_t y);
};

#define CASE(fn, ptx, expr)                                                                        \
    static uint64_t fn(uint64_t x64, uint64_t y64)                                                 \
    {                                                                                              \
        uint32_t x = (uint32_t)x64, y = (uint32_t)y64;                                             \
        (void)x, (void)y;                                                                          \
        return expr;                                                                               \
    }
#define INTEGERS(X)                                                                                \
    X(add32, OUT32, "add.u32 z32, x32, y32;", (uint32_t)(x + y))                                   \
    X(sub64, OUT64, "sub.s64 z64, x64, y64;", x64 - y64)                                           \
    X(mullo, OUT64, "mul.lo.u64 z64, x64, y64;", x64 *y64)                                         \
    X(mulhi_s, OUT32, "mul.hi.s32 z32, x32, y32;",                                                 \
      (uint32_t)(((int64_t)(int32_t)x * (int32_t)y) >> 32))                                        \
    X(mulhi_u64, OUT64, "mul.hi.u64 z64, x64, y64;", high(x64, y64))                               \
    X(wide, OUT64, "mul.wide.s32 z64, x32, y32;", (uint64_t)((int64_t)(int32_t)x * (int32_t)y))    \
    X(madwide, OUT64, "mad.wide.u32 z64, x32, y32, x64;", (uint64_t)x *y + x64)                    \
    X(divs, OUT32, "or.b32 y32, y32, 1; div.s32 z32, x32, y32;",                                   \
      (int32_t)(y | 1) == -1 ? 0u - x : (uint32_t)((int32_t)x / (int32_t)(y | 1)))                 \
    X(remu64, OUT64, "or.b64 y64, y64, 1; rem.u64 z64, x64, y64;", x64 % (y64 | 1))                \
    X(mins, OUT64, "min.s64 z64, x64, y64;", (int64_t)x64 < (int64_t)y64 ? x64 : y64)              \
    X(maxu, OUT32, "max.u32 z32, x32, y32;", x > y ? x : y)                                        \
    X(abs64, OUT64, "abs.s64 z64, x64;", (int64_t)x64 < 0 ? 0 - x64 : x64)                         \
    X(shl32, OUT32, "shl.b32 z32, x32, y32;", y > 31 ? 0 : (uint32_t)(x << y))                     \
    X(shrs, OUT32, "shr.s32 z32, x32, y32;", (uint32_t)((int32_t)x >> (y > 31 ? 31 : y)))          \
    X(shru64, OUT64, "shr.u64 z64, x64, y32;", y > 63 ? 0 : x64 >> y)                              \
    X(shf, OUT32, "shf.l.wrap.b32 z32, x32, y32, 9;", (uint32_t)(y << 9 | x >> 23))                \
    X(shfr, OUT32, "shf.r.clamp.b32 z32, x32, y32, 40;", y)                                        \
    X(bfeu, OUT32, "and.b32 z32, y32, 63; bfe.u32 z32, x32, z32, 7;", field(x, y & 63, 7, false))  \
    X(bfes, OUT32, "and.b32 z32, y32, 63; bfe.s32 z32, x32, z32, 11;", field(x, y & 63, 11, true)) \
    X(bfi, OUT32, "bfi.b32 z32, x32, y32, 5, 12;", (y & ~(0xfffu << 5)) | (x & 0xfff) << 5)        \
    X(brev, OUT32, "brev.b32 z32, x32;", reverse(x))                                               \
    X(clz64, OUT32, "clz.b64 z32, x64;", zeros(x64))                                               \
    X(popc, OUT32, "popc.b64 z32, x64;", ones(x64))                                                \
    X(prmt, OUT32, "prmt.b32 z32, x32, y32, 0x7531;",                                              \
      (x >> 8 & 0xff) | (x >> 24 & 0xff) << 8 | (y >> 8 & 0xff) << 16 | (y >> 24 & 0xff) << 24)    \
    X(lop3, OUT32, "lop3.b32 z32, x32, y32, 0x0f0f0f0f, 0xe8;",                                    \
      (x & y) | (x & 0x0f0f0f0f) | (y & 0x0f0f0f0f))                                               \
    X(dp4a, OUT32, "dp4a.s32.u32 z32, x32, y32, 7;",                                               \
      (uint32_t)((int8_t)x * (int)(y & 255) + (int8_t)(x >> 8) * (int)(y >> 8 & 255) +             \
                 (int8_t)(x >> 16) * (int)(y >> 16 & 255) + (int8_t)(x >> 24) * (int)(y >> 24) +   \
                 7))                                                                               \
    X(carry, OUT64,                                                                                \
      "cvt.u32.u64 x32, x64; cvt.u32.u64 y32, y64; add.cc.u32 x32, x32, y32; .reg .b32 h, g;"      \
      "shr.u64 z64, x64, 32; cvt.u32.u64 h, z64; shr.u64 z64, y64, 32; cvt.u32.u64 g, z64;"        \
      "addc.u32 h, h, g; mov.b64 z64, {x32, h};",                                                  \
      x64 + y64)                                                                                   \
    X(borrow, OUT64,                                                                               \
      ".reg .b32 h, g, e, f; mov.b64 {e, f}, x64; mov.b64 {h, g}, y64; sub.cc.u32 e, e, h;"        \
      "subc.u32 f, f, g; mov.b64 z64, {e, f};",                                                    \
      x64 - y64)                                                                                   \
    X(cvts8, OUT64, "cvt.s64.s8 z64, x32;", (uint64_t)(int64_t)(int8_t)x)                          \
    X(cvtsat, OUT32, "cvt.sat.u8.s32 z32, x32;", (int32_t)x<0 ? 0 : (int32_t)x> 255 ? 255 : x)     \
    X(selp, OUT64, "setp.lt.s64 p, x64, y64; selp.b64 z64, x64, y64, p;",                          \
      (int64_t)x64 < (int64_t)y64 ? x64 : y64)                                                     \
    X(set, OUT32, "set.gt.u32.u32 z32, x32, y32;", x > y ? 0xffffffff : 0)                         \
    X(sad, OUT32, "sad.u32 z32, x32, y32, 5;", (x > y ? x - y : y - x) + 5)

#define DEFINE(fn, out, ptx, expr) CASE(fn, ptx, expr)
INTEGERS(DEFINE)

static void integers(void **state)
{
    (void)state;
#define TEXT(fn, out, ptx, expr) OPERATE(#fn, out, ptx)
#define ROW(fn, out, ptx, expr) {#fn, ptx, fn},
    static const char text[] = PTX_HEAD INTEGERS(TEXT);
    static const struct integer_case cases[] = {INTEGERS(ROW)};
    enum { N = 128 * 64 };
    struct kit kit;
    kit_open(&kit, text);
    uint64_t *x = malloc(N * 8), *y = malloc(N * 8), seed = 1;
    for (int i = 0; i < N; i++) {
        x[i] = mix(&seed);
        y[i] = mix(&seed);
    }
    uint64_t a = kit_buffer(&kit, N * 8, x), b = kit_buffer(&kit, N * 8, y),
             o = kit_buffer(&kit, N * 8, NULL);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        assert_int_equal(KIT_RUN(&kit, cases[c].name, N / 128, 128, a, b, o), VN_OK);
        const uint64_t *z = kit_host(o);
        for (int i = 0; i < N; i++) {
            uint64_t want = cases[c].expect(x[i], y[i]);
            if (z[i] != want)
                fail_msg("%s: %016llx %016llx: %016llx, not %016llx", cases[c].ptx,
                         (unsigned long long)x[i], (unsigned long long)y[i],
                         (unsigned long long)z[i], (unsigned long long)want);
        }
    }
    free(x);
    free(y);
    kit_close(&kit);
}

/* ---- approximations, within PTX's bounds ---- */

static const char *approx = PTX_HEAD
    ".visible .entry k(.param .u64 pa, .param .u64 po) {\n"
    ".reg .b64 a, o, t; .reg .b32 i, n; .reg .f32 x, y;\n"
    "ld.param.u64 a, [pa]; ld.param.u64 o, [po]; mov.u32 i, %ctaid.x; mov.u32 n, %tid.x;\n"
    "mad.lo.u32 i, i, 128, n; mul.wide.u32 t, i, 4; add.u64 a, a, t; ld.global.f32 x, [a];\n"
    "mul.wide.u32 t, i, 32; add.u64 o, o, t;\n"
    "ex2.approx.f32 y, x; st.global.f32 [o], y; abs.f32 y, x; lg2.approx.f32 y, y; st.global.f32 "
    "[o+4], y;\n"
    "sin.approx.f32 y, x; st.global.f32 [o+8], y; cos.approx.f32 y, x; st.global.f32 [o+12], y;\n"
    "tanh.approx.f32 y, x; st.global.f32 [o+16], y; abs.f32 y, x; rsqrt.approx.f32 y, y; "
    "st.global.f32 [o+20], y;\n"
    "rcp.approx.f32 y, x; st.global.f32 [o+24], y; div.approx.f32 y, x, 0f40490fdb; st.global.f32 "
    "[o+28], y; ret; }\n";

static void near(const char *what, float x, float got, double want, double relative,
                 double absolute)
{
    double error = fabs((double)got - want);
    if (error > relative * fabs(want) + absolute)
        fail_msg("%s(%.9g) = %.9g, not %.9g", what, (double)x, (double)got, want);
}

static void approximations(void **state)
{
    (void)state;
    enum { N = 128 * 64 };
    struct kit kit;
    kit_open(&kit, approx);
    float *x = malloc(N * 4);
    uint64_t seed = 3;
    for (int i = 0; i < N; i++)
        x[i] = (float)ldexp((double)(int64_t)mix(&seed) * 0x1p-63, i % 5 - 2);
    uint64_t a = kit_buffer(&kit, N * 4, x), o = kit_buffer(&kit, N * 32, NULL);
    assert_int_equal(KIT_RUN(&kit, "k", N / 128, 128, a, o), VN_OK);
    const float(*y)[8] = kit_host(o);
    for (int i = 0; i < N; i++) {
        double d = x[i], m = fabs(d);
        if (m < 1e-30)
            continue;
        near("ex2", x[i], y[i][0], exp2(d), 0x1p-22, 0);
        near("lg2", x[i], y[i][1], log2(m), m > 0.5 && m < 2 ? 0 : 0x1p-22,
             m > 0.5 && m < 2 ? 0x1p-22 : 0x1p-24);
        near("sin", x[i], y[i][2], sin(d), 0, 0x1p-20);
        near("cos", x[i], y[i][3], cos(d), 0, 0x1p-20);
        near("tanh", x[i], y[i][4], tanh(d), 0x1p-11, 0);
        near("rsqrt", x[i], y[i][5], 1 / sqrt(m), 0x1p-22, 0);
        near("rcp", x[i], y[i][6], 1 / d, 0x1p-23, 0);
        near("div", x[i], y[i][7], d / 3.14159274101257324, 0x1p-22, 0);
    }
    free(x);
    kit_close(&kit);
}

/* ---- lanes that part and meet ---- */

static const char *lanes_text = PTX_HEAD
    ".extern .shared .align 4 .b8 dyn[];\n"
    /* Each lane goes round a loop as often as its number says; all meet behind it. */
    ".visible .entry loops(.param .u64 po) { .reg .b64 o, t; .reg .b32 i, n, m; .reg .pred p;\n"
    "ld.param.u64 o, [po]; mov.u32 i, %tid.x; mov.u32 n, 0; mov.u32 m, i;\n"
    "L: setp.eq.u32 p, m, 0; @p bra D; add.u32 n, n, m; sub.u32 m, m, 1; bra L;\n"
    "D: activemask.b32 m; mul.wide.u32 t, i, 8; add.u64 o, o, t; st.global.v2.u32 [o], {n, m}; "
    "ret; }\n"
    /* A lock that lanes of one warp take in turns: only fairness lets the holder through. */
    ".visible .entry lock(.param .u64 pl, .param .u64 pc) { .reg .b64 l, c; .reg .b32 x; .reg "
    ".pred p;\n"
    "ld.param.u64 l, [pl]; ld.param.u64 c, [pc];\n"
    "S: atom.global.cas.b32 x, [l], 0, 1; setp.ne.u32 p, x, 0; @p bra S; membar.gl;\n"
    "ld.volatile.global.u32 x, [c]; add.u32 x, x, 1; st.volatile.global.u32 [c], x; membar.gl;\n"
    "atom.global.exch.b32 x, [l], 0; ret; }\n"
    /* Recursion, different depths a lane. */
    ".func (.param .b32 r) fib(.param .b32 a) { .reg .b32 n, x, y; .reg .pred p; ld.param.u32 n, "
    "[a];\n"
    "setp.lt.u32 p, n, 2; @p bra E; sub.u32 x, n, 1; { .param .b32 q; .param .b32 s; st.param.b32 "
    "[q], x;\n"
    "call.uni (s), fib, (q); ld.param.b32 y, [s]; } sub.u32 x, n, 2; { .param .b32 q; .param .b32 "
    "s;\n"
    "st.param.b32 [q], x; call.uni (s), fib, (q); ld.param.b32 x, [s]; } add.u32 n, x, y;\n"
    "E: st.param.b32 [r], n; ret; }\n"
    ".visible .entry calls(.param .u64 po) { .reg .b64 o, t; .reg .b32 i, n; ld.param.u64 o, "
    "[po];\n"
    "mov.u32 i, %tid.x; and.b32 n, i, 15; { .param .b32 q; .param .b32 s; st.param.b32 [q], n;\n"
    "call (s), fib, (q); ld.param.b32 n, [s]; } mul.wide.u32 t, i, 4; add.u64 o, o, t; "
    "st.global.u32 [o], n; ret; }\n"
    /* Two halves of a warp at different shfl instructions: by the ISA they meet. */
    ".visible .entry meet(.param .u64 po) { .reg .b64 o, t; .reg .b32 i, n; .reg .pred p; "
    "ld.param.u64 o, [po];\n"
    "mov.u32 i, %tid.x; setp.lt.u32 p, i, 16; @p bra A;\n"
    "shfl.sync.bfly.b32 n, i, 16, 31, -1; bra J; A: shfl.sync.bfly.b32 n, i, 16, 31, -1;\n"
    "J: mul.wide.u32 t, i, 4; add.u64 o, o, t; st.global.u32 [o], n; ret; }\n"
    /* Half of a warp waits for the other half, which waits at a barrier that needs all. */
    ".visible .entry deadlock() { .reg .b32 i, n; .reg .pred p; mov.u32 i, %tid.x; setp.lt.u32 p, "
    "i, 16; @p bra A;\n"
    "bar.sync 0; ret; A: /* here */ bar.warp.sync -1; ret; }\n"
    ".visible .entry reduce(.param .u64 po) { .reg .b64 o; .reg .b32 i, a, b, c; .reg .pred p, q; "
    "ld.param.u64 o, [po];\n"
    "mov.u32 i, %tid.x; setp.lt.u32 p, i, 100; bar.red.popc.u32 a, 0, p; bar.red.and.pred q, 1, p; "
    "selp.u32 b, 1, 0, q;\n"
    "bar.red.or.pred q, 2, p; selp.u32 c, 1, 0, q; setp.ne.u32 p, i, 77; @p ret;\n"
    "st.global.u32 [o], a; st.global.u32 [o+4], b; st.global.u32 [o+8], c; ret; }\n"
    /* Producers arrive, one warp waits. */
    ".visible .entry arrive(.param .u64 po) { .reg .b64 o; .reg .b32 i, a; .reg .pred p; "
    "ld.param.u64 o, [po];\n"
    "mov.u32 i, %tid.x; setp.lt.u32 p, i, 32; @p bra W; shl.b32 a, i, 2; mov.u32 i, dyn; add.u32 "
    "a, a, i;\n"
    "st.shared.u32 [a], 5; bar.arrive 3, 128; ret;\n"
    "W: bar.sync 3, 128; ld.shared.u32 a, [dyn + 508]; setp.ne.u32 p, i, 0; @p ret; st.global.u32 "
    "[o], a; ret; }\n";

/* Calls through a register: each lane its own function, from a table in memory or from `mov`, with
 * results of several sizes; and one whose function is not what the prototype says. */
static const char *pointers_text = PTX_HEAD
    ".func (.param .b64 r) square(.param .b32 a, .param .b32 b) { .reg .b32 x, y; .reg .b64 z; "
    "ld.param.u32 x, [a]; ld.param.u32 y, [b]; mul.wide.u32 z, x, y; st.param.b64 [r], z; ret; }\n"
    ".func (.param .b64 r) less(.param .b32 a, .param .b32 b) { .reg .b32 x, y; .reg .b64 z; "
    "ld.param.u32 x, [a]; ld.param.u32 y, [b]; sub.u32 x, y, x; cvt.u64.u32 z, x; "
    "st.param.b64 [r], z; ret; }\n"
    ".func (.param .align 4 .b8 r[12]) spread(.param .b32 a) { .reg .b32 x; ld.param.u32 x, [a]; "
    "st.param.b32 [r], x; add.u32 x, x, x; st.param.b32 [r + 4], x; add.u32 x, x, x; "
    "st.param.b32 [r + 8], x; ret; }\n"
    ".global .u64 table[2] = {square, less};\n"
    /* o[i] = table[i & 1](i, 1000000) */
    ".visible .entry by_table(.param .u64 po) { .reg .b64 o, f, z, t; .reg .b32 i, k; "
    "ld.param.u64 o, [po]; mov.u32 i, %tid.x; and.b32 k, i, 1; mul.wide.u32 t, k, 8; "
    "mov.u64 f, table; add.u64 f, f, t; ld.global.u64 f, [f];\n"
    "{ .param .b32 q; .param .b32 c; .param .b64 s; st.param.b32 [q], i; st.param.b32 [c], "
    "1000000;\n"
    "P: .callprototype (.param .b64 _) _ (.param .b32 _, .param .b32 _);\n"
    "call (s), f, (q, c), P; ld.param.b64 z, [s]; }\n"
    "mul.wide.u32 t, i, 8; add.u64 o, o, t; st.global.u64 [o], z; ret; }\n"
    /* o[i] = 7 * i by a call all lanes make, with a list of targets */
    ".visible .entry by_name(.param .u64 po) { .reg .b64 o, f, t; .reg .b32 i, x, y, z; "
    "ld.param.u64 o, [po]; mov.u32 i, %tid.x; mov.u64 f, spread;\n"
    "{ .param .b32 q; .param .align 4 .b8 s[12]; st.param.b32 [q], i; T: .calltargets spread;\n"
    "call.uni (s), f, (q), T; ld.param.b32 x, [s]; ld.param.b32 y, [s + 4]; "
    "ld.param.b32 z, [s + 8]; }\n"
    "add.u32 x, x, y; add.u32 x, x, z; "
    "mul.wide.u32 t, i, 4; add.u64 o, o, t; st.global.u32 [o], x; ret; }\n"
    ".visible .entry other(.param .u64 po) { .reg .b64 f; .reg .b32 x; mov.u64 f, spread;\n"
    "{ .param .b32 q; .param .b32 s; st.param.b32 [q], 1;\n"
    "P: .callprototype (.param .b32 _) _ (.param .b32 _);\n"
    "call (s), f, (q), P; /* OTHER */ ld.param.b32 x, [s]; } ret; }\n"
    ".visible .entry nowhere(.param .u64 po) { .reg .b64 f; ld.param.u64 f, [po];\n"
    "P: .callprototype _ ();\ncall f, P; /* NOWHERE */ ret; }\n";

static void function_pointers(void **state)
{
    (void)state;
    struct kit kit;
    kit_open(&kit, pointers_text);
    uint64_t o = kit_buffer(&kit, 64 * 8, NULL);
    for (int s = 0; s < 3; s++) {
        kit.next.schedule = (enum vn_schedule)s;
        assert_int_equal(KIT_RUN(&kit, "by_table", 1, 64, o), VN_OK);
        for (uint32_t i = 0; i < 64; i++)
            assert_true(((const uint64_t *)kit_host(o))[i] ==
                        (i & 1 ? 1000000u - i : (uint64_t)i * 1000000));
        assert_int_equal(KIT_RUN(&kit, "by_name", 1, 64, o), VN_OK);
        for (uint32_t i = 0; i < 64; i++)
            assert_int_equal(((const uint32_t *)kit_host(o))[i], 7 * i);
    }
    assert_int_equal(kit.finding_count, 0);
    assert_int_equal(KIT_RUN(&kit, "other", 1, 32, o), VN_INVALID_PC);
    assert_int_equal(kit.findings[0].line, kit_line(pointers_text, "OTHER"));
    assert_non_null(strstr(kit.findings[0].text, "'spread'"));
    assert_int_equal(KIT_RUN(&kit, "nowhere", 1, 32, 0x1234), VN_INVALID_PC);
    assert_int_equal(kit.findings[0].line, kit_line(pointers_text, "NOWHERE"));
    assert_non_null(strstr(kit.findings[0].text, "0x1234"));
    kit_close(&kit);
}

/* Two warps meet at each of the sixteen barriers, named by a number or by a register. */
static void sixteen_barriers(void **state)
{
    (void)state;
    char text[8000];
    size_t n = (size_t)sprintf(
        text, PTX_HEAD ".visible .entry k(.param .u64 po) { .reg .b64 o; .reg .b32 i, x, b; "
                       ".reg .pred p, q; .shared .b32 s[16]; ld.param.u64 o, [po]; "
                       "mov.u32 i, %%tid.x; setp.eq.u32 p, i, 0; setp.eq.u32 q, i, 32;\n");
    for (int b = 0; b < 16; b++) {
        char name[20];
        snprintf(name, sizeof name, b % 2 ? "b" : "%d", b);
        n += (size_t)sprintf(text + n,
                             "mov.u32 b, %d; @p st.shared.u32 [s + %d], %d; bar.sync %s, 64; "
                             "@q ld.shared.u32 x, [s + %d]; @q st.global.u32 [o + %d], x;\n",
                             b, 4 * b, b + 100, name, 4 * b, 4 * b);
    }
    sprintf(text + n, "ret; }\n");
    struct kit kit;
    kit_open(&kit, text);
    uint64_t o = kit_buffer(&kit, 64, NULL);
    for (int s = 0; s < 3; s++) {
        kit.next.schedule = (enum vn_schedule)s;
        assert_int_equal(KIT_RUN(&kit, "k", 1, 64, o), VN_OK);
        assert_int_equal(kit.finding_count, 0);
        for (int b = 0; b < 16; b++)
            assert_int_equal(((const uint32_t *)kit_host(o))[b], b + 100);
    }
    kit_close(&kit);
}

/* Special registers of one thread, in the order of `names`, and what they must be for thread
 * (x, y, z) of block (bx, by) in a grid of 3 x 2 blocks of 8 x 4 x 2 threads. */
enum { SPECIALS = 34 };
static const char *const names[SPECIALS] = {"%tid.x",
                                            "%tid.y",
                                            "%tid.z",
                                            "%ntid.x",
                                            "%ntid.y",
                                            "%ntid.z",
                                            "%ctaid.x",
                                            "%ctaid.y",
                                            "%ctaid.z",
                                            "%nctaid.x",
                                            "%nctaid.y",
                                            "%nctaid.z",
                                            "%laneid",
                                            "%warpid",
                                            "%nwarpid",
                                            "%lanemask_eq",
                                            "%lanemask_le",
                                            "%lanemask_lt",
                                            "%lanemask_ge",
                                            "%lanemask_gt",
                                            "%dynamic_smem_size",
                                            "%total_smem_size",
                                            "%clusterid.x",
                                            "%nclusterid.y",
                                            "%cluster_ctaid.x",
                                            "%cluster_nctaid.x",
                                            "%cluster_ctarank",
                                            "%cluster_nctarank",
                                            "%envreg0",
                                            "%envreg31",
                                            "%smid",
                                            "%nsmid",
                                            "%clock",
                                            "%globaltimer_lo"};

static void specials(void **state)
{
    (void)state;
    char text[6000];
    size_t n = (size_t)sprintf(
        text,
        PTX_HEAD ".extern .shared .b8 dyn[];\n"
                 ".visible .entry k(.param .u64 po) { .reg .b64 o, t, c, d; .reg .b32 i, x, y; "
                 ".shared .b32 own[4]; ld.param.u64 o, [po];\n"
                 ".reg .pred p; mov.pred p, %%is_explicit_cluster; @p trap;\n"
                 "mov.u64 c, %%clock64; mov.u64 t, %%globaltimer; mov.u64 d, %%gridid;\n"
                 "mov.u32 i, %%ctaid.y; mad.lo.u32 i, i, 3, %%ctaid.x; mov.u32 x, own; "
                 "mov.u32 y, dyn;\n"
                 "mul.lo.u32 i, i, 64; mov.u32 x, %%tid.z; mad.lo.u32 x, x, 4, %%tid.y; "
                 "mad.lo.u32 x, x, 8, %%tid.x; add.u32 i, i, x; mul.wide.u32 t, i, %d; "
                 "add.u64 o, o, t;\n",
        4 * SPECIALS);
    for (int k = 0; k < SPECIALS; k++)
        n += (size_t)sprintf(text + n, "mov.u32 x, %s; st.global.u32 [o + %d], x;\n", names[k],
                             4 * k);
    sprintf(text + n, "ret; }\n");
    struct kit kit;
    kit_open(&kit, text);
    uint64_t o = kit_buffer(&kit, 6 * 64 * SPECIALS * 4, NULL);
    kit.next.grid[1] = 2;
    kit.next.block[1] = 4;
    kit.next.block[2] = 2;
    kit.next.dynamic_shared = 96;
    assert_int_equal(KIT_RUN(&kit, "k", 3, 8, o), VN_OK);
    const uint32_t *r = kit_host(o);
    for (uint32_t i = 0; i < 6 * 64; i++, r += SPECIALS) {
        uint32_t t = i % 64, b = i / 64, lane = t % 32;
        const uint32_t want[30] = {t % 8,
                                   t / 8 % 4,
                                   t / 32,
                                   8,
                                   4,
                                   2,
                                   b % 3,
                                   b / 3,
                                   0,
                                   3,
                                   2,
                                   1,
                                   lane,
                                   t / 32,
                                   64, /* as on hardware: the most there can be */
                                   1u << lane,
                                   UINT32_MAX >> (31 - lane),
                                   (1u << lane) - 1,
                                   UINT32_MAX << lane,
                                   lane == 31 ? 0 : UINT32_MAX << (lane + 1),
                                   96,
                                   256, /* 16 bytes, and 96 at the next 128 */
                                   b % 3,
                                   2,
                                   0,
                                   1,
                                   0,
                                   1,
                                   0,
                                   0};
        for (uint32_t k = 0; k < 30; k++) {
            if (r[k] != want[k])
                fail_msg("%s of thread %u of block %u is %u, not %u", names[k], t, b, r[k],
                         want[k]);
        }
        assert_true(r[30] < r[31]); /* %smid, %nsmid */
    }
    kit_close(&kit);
}

static void divergence(void **state)
{
    (void)state;
    struct kit kit;
    kit_open(&kit, lanes_text);
    uint64_t o = kit_buffer(&kit, 4096, NULL), zero[2] = {0, 0};
    static const enum vn_schedule schedules[] = {VN_ROUND_ROBIN, VN_RANDOM, VN_ADVERSARIAL};
    for (int s = 0; s < 6; s++) {
        kit.next.schedule = schedules[s % 3];
        kit.next.seed = (uint64_t)s;
        assert_int_equal(KIT_RUN(&kit, "loops", 1, 32, o), VN_OK);
        const uint32_t *r = kit_host(o);
        for (uint32_t i = 0; i < 32; i++) {
            assert_int_equal(r[2 * i], i * (i + 1) / 2);
            if (s == 0)
                assert_int_equal(r[2 * i + 1], 0xffffffff); /* all met again */
        }
        uint64_t l = kit_buffer(&kit, 16, zero);
        assert_int_equal(KIT_RUN(&kit, "lock", 4, 96, l, l + 8), VN_OK);
        assert_int_equal(((uint32_t *)kit_host(l))[2], 4 * 96);
        assert_int_equal(KIT_RUN(&kit, "calls", 1, 64, o), VN_OK);
        for (uint32_t i = 0; i < 64; i++) {
            static const uint32_t fib[] = {0,  1,  1,  2,  3,   5,   8,   13,
                                           21, 34, 55, 89, 144, 233, 377, 610};
            assert_int_equal(r[i], fib[i & 15]);
        }
        assert_int_equal(KIT_RUN(&kit, "meet", 1, 32, o), VN_OK);
        for (uint32_t i = 0; i < 32; i++)
            assert_int_equal(r[i], i ^ 16);
        assert_int_equal(KIT_RUN(&kit, "reduce", 1, 128, o), VN_OK);
        assert_int_equal(r[0], 100);
        assert_int_equal(r[1], 0);
        assert_int_equal(r[2], 1);
        kit.next.dynamic_shared = 512;
        assert_int_equal(KIT_RUN(&kit, "arrive", 1, 128, o), VN_OK);
        assert_int_equal(r[0], 5);
        kit.next.dynamic_shared = 0;
        assert_int_equal(kit.finding_count, 0);
    }
    kit_close(&kit);
}

static void deadlocks(void **state)
{
    (void)state;
    struct kit kit;
    kit_open(&kit, lanes_text);
    assert_int_equal(kit_run(&kit, "deadlock", 1, 32, 0, NULL), VN_DEADLOCK);
    const struct kit_finding *f = kit_found(&kit, "deadlock");
    assert_non_null(f);
    assert_non_null(strstr(f->text, "0xffff0000 at barrier 0"));
    assert_non_null(strstr(f->text, "0x0000ffff wait for 0xffffffff"));
    kit_close(&kit);
}

static void stops(void **state)
{
    (void)state;
    struct kit kit;
    kit_open(&kit, PTX_HEAD ".visible .entry spin() { L: bra L; }\n"
                            ".visible .entry trap() { trap; }\n");
    kit.next.time_limit_ms = 30;
    assert_int_equal(kit_run(&kit, "spin", 2, 64, 0, NULL), VN_TIMEOUT);
    _Atomic bool stop = true;
    kit.next.stop = &stop;
    kit.next.time_limit_ms = 0;
    assert_int_equal(kit_run(&kit, "spin", 2, 64, 0, NULL), VN_STOPPED);
    kit.next.stop = NULL;
    assert_int_equal(kit_run(&kit, "trap", 1, 1, 0, NULL), VN_TRAP);
    kit_close(&kit);
    kit_open(
        &kit, PTX_HEAD
        ".func f() { .local .b8 a[64]; call f; ret; }\n.visible .entry deep() { call f; ret; }\n");
    assert_int_equal(kit_run(&kit, "deep", 1, 32, 0, NULL), VN_STACK);
    kit_close(&kit);
}

/* ---- counters, exactly ---- */

static void counts(void **state)
{
    (void)state;
    struct kit kit;
    const char *text =
        PTX_HEAD ".visible .entry k(.param .u64 p) { .reg .b64 a, b, t; .reg .b32 i, s; .reg .f32 "
                 "x, y; .reg .pred q;\n"
                 ".shared .align 16 .b8 m[4096];\n"
                 "ld.param.u64 a, [p]; mov.u32 i, %tid.x; mul.wide.u32 t, i, 4; add.u64 b, a, t;\n"
                 "ld.global.f32 x, [b];\n" /* consecutive: 4 sectors a warp */
                 "mul.wide.u32 t, i, 64; add.u64 b, a, t;\n"
                 "ld.global.f32 y, [b];\n" /* strided: 32 sectors */
                 "fma.rn.f32 x, x, y, x; add.f32 x, x, y;\n"
                 "shl.b32 s, i, 7; mov.u32 i, m; add.u32 s, s, i;\n"
                 "st.shared.f32 [s], x;\n" /* all in bank 0: 32 passes */
                 "mov.u32 i, %tid.x; setp.lt.u32 q, i, 8; @q bra L;\n" /* 8 lanes part */
                 "atom.global.add.f32 y, [a + 4096], x;\n"
                 "L: ret; }\n";
    kit_open(&kit, text);
    static uint8_t zero[8192];
    uint64_t a = kit_buffer(&kit, sizeof zero, zero);
    kit.next.count_lines = true;
    assert_int_equal(KIT_RUN(&kit, "k", 1, 32, a), VN_OK);
    const struct vn_counters *c = &kit.counters;
    assert_int_equal(c->load_bytes, 2 * 128);
    assert_int_equal(c->load_sectors, 4 + 32);
    assert_int_equal(c->ideal_load_sectors, 4 + 4);
    assert_int_equal(c->unique_load_sectors,
                     34); /* 32 strided, every second of the first 4 again */
    assert_int_equal(c->shared_passes, 32);
    assert_int_equal(c->atomics, 24);
    assert_int_equal(c->divergences, 1);
    assert_int_equal(c->float_operations, 32 * 3);
    assert_int_equal(c->by_class[VN_CLASS_FLOAT], 2);
    assert_int_equal(c->store_sectors, 1);
    uint64_t issued = 0, lanes = 0;
    for (uint64_t i = 0; i < c->line_count; i++) {
        issued += c->lines[i].warp_instructions;
        lanes += c->lines[i].lane_instructions;
    }
    assert_int_equal(issued, c->warp_instructions);
    assert_int_equal(lanes, c->lane_instructions);
    /* the same launch again counts the same, whatever the one before left behind */
    uint64_t before = c->unique_sectors, all = c->lane_instructions;
    assert_int_equal(KIT_RUN(&kit, "k", 1, 32, a), VN_OK);
    assert_int_equal(kit.counters.unique_sectors, before);
    assert_int_equal(kit.counters.lane_instructions, all);
    kit_close(&kit);
}

static void fusing(void **state)
{
    (void)state;
    struct kit kit;
    kit_open(
        &kit, PTX_HEAD
        ".visible .entry k(.param .u64 p) { .reg .b64 a; .reg .f32 x, y, z, t, u, v, s; "
        "ld.param.u64 a, [p];\n"
        "ld.global.v2.f32 {x, y}, [a]; ld.global.f32 z, [a + 8];\n"
        "mul.f32 t, x, y; add.f32 u, t, z; st.global.f32 [a + 16], u;\n"       /* bare: may fuse */
        "mul.rn.f32 t, x, y; add.rn.f32 u, t, z; st.global.f32 [a + 20], u;\n" /* rounded: never */
        "mul.f32 t, x, y; sub.f32 u, z, t; st.global.f32 [a + 24], u;\n"
        "mul.f32 t, x, y; sub.f32 u, t, z; st.global.f32 [a + 28], u; ret; }\n");
    float x = 1.0f + 0x1p-12f, y = 1.0f + 0x1p-12f, z = -1.0f, in[8] = {x, y, z};
    uint64_t a = kit_buffer(&kit, sizeof in, in);
    const float *r = kit_host(a);
    volatile float product = x * y;
    for (int fuse = 0; fuse < 2; fuse++) {
        kit.next.fuse = fuse;
        assert_int_equal(KIT_RUN(&kit, "k", 1, 1, a), VN_OK);
        float apart = product + z, once = fmaf(x, y, z);
        assert_true(apart != once);
        assert_true(r[4] == (fuse ? once : apart));
        assert_true(r[5] == apart);
        assert_true(r[6] == (fuse ? fmaf(-x, y, z) : z - product));
        assert_true(r[7] == (fuse ? fmaf(x, y, -z) : product - z));
    }
    kit_close(&kit);
}

/* ---- litmus: what may and may not be seen ---- */

static void litmus(void **state)
{
    (void)state;
    const char *text = PTX_HEAD
        /* Message passing: if the flag is seen behind acquire, the data is too. */
        ".visible .entry mp(.param .u64 p) { .reg .b64 a; .reg .b32 b, f, d; .reg .pred q; "
        "ld.param.u64 a, [p];\n"
        "mov.u32 b, %ctaid.x; setp.eq.u32 q, b, 0; @q bra W;\n"
        "ld.acquire.gpu.global.u32 f, [a + 64]; ld.relaxed.gpu.global.u32 d, [a]; st.global.v2.u32 "
        "[a + 128], {f, d}; ret;\n"
        "W: st.relaxed.gpu.global.u32 [a], 1; st.release.gpu.global.u32 [a + 64], 1; ret; }\n"
        /* Store buffering with fence.sc: not both may read the old value. */
        ".visible .entry sb(.param .u64 p) { .reg .b64 a, w, r, o, t; .reg .b32 b, v; ld.param.u64 "
        "a, [p];\n"
        "mov.u32 b, %ctaid.x; mul.wide.u32 t, b, 64; add.u64 w, a, t; xor.b32 v, b, 1; "
        "mul.wide.u32 t, v, 64;\n"
        "add.u64 r, a, t; mul.wide.u32 t, b, 4; add.u64 o, a, t;\n"
        "st.relaxed.gpu.global.u32 [w], 1; fence.sc.gpu; ld.relaxed.gpu.global.u32 v, [r]; "
        "st.global.u32 [o + 128], v; ret; }\n";
    struct kit kit;
    kit_open(&kit, text);
    static const uint8_t zero[256];
    uint64_t a = kit_buffer(&kit, sizeof zero, zero);
    uint32_t *m = kit_host(a);
    kit.next.checks = VN_CHECK_BOUNDS;
    int seen[2] = {0, 0};
    for (int i = 0; i < 200; i++) {
        kit.next.schedule = i & 1 ? VN_ADVERSARIAL : VN_RANDOM;
        kit.next.seed = (uint64_t)i;
        memset(m, 0, sizeof zero);
        assert_int_equal(KIT_RUN(&kit, "mp", 2, 1, a), VN_OK);
        if (m[32])
            assert_int_equal(m[33], 1);
        seen[m[32]]++;
        memset(m, 0, sizeof zero);
        assert_int_equal(KIT_RUN(&kit, "sb", 2, 1, a), VN_OK);
        assert_true(m[32] || m[33]);
    }
    assert_true(seen[1] > 0);
    kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),         cmocka_unit_test(approximations),
        cmocka_unit_test(divergence),       cmocka_unit_test(function_pointers),
        cmocka_unit_test(sixteen_barriers), cmocka_unit_test(specials),
        cmocka_unit_test(deadlocks),        cmocka_unit_test(stops),
        cmocka_unit_test(counts),           cmocka_unit_test(fusing),
        cmocka_unit_test(litmus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
