/* The parser: what it takes, and where and why it says no. */
#include <time.h>

#include "kit.h"

#define IN_KERNEL(code)                                                                            \
    PTX_HEAD ".visible .entry k(.param .u64 p, .param .u32 n) {\n"                                 \
             ".reg .pred p0, p1; .reg .b16 h<4>; .reg .b32 r<8>; .reg .b64 d<8>;\n"                \
             ".reg .f32 f<8>; .reg .f64 g<4>; .shared .align 16 .b8 s[64];\n" code "\nret; }\n"

static void accepts(const char *text)
{
    struct vn_diagnostic d = {0};
    struct vn_module *m = vn_module_parse(text, strlen(text), &d);
    if (!m)
        fail_msg("refused at %u:%u: %s\n%s", d.line, d.column, d.text, text);
    vn_module_release(m);
}

/* line 0: not checked */
static void refuses(const char *text, uint32_t line, const char *why)
{
    struct vn_diagnostic d = {0};
    struct vn_module *m = vn_module_parse(text, strlen(text), &d);
    vn_module_release(m);
    if (m)
        fail_msg("accepted:\n%s", text);
    if (line && d.line != line)
        fail_msg("line %u, not %u: %s\n%s", d.line, line, d.text, text);
    if (!strstr(d.text, why))
        fail_msg("'%s' does not say '%s'\n%s", d.text, why, text);
}

static void forms(void **state)
{
    (void)state;
    static const char *const good[] = {
        IN_KERNEL("add.u32 r1, r2, 3; add.s64 d1, d2, -1; add.rn.ftz.sat.f32 f1, f2, 0f3f800000;"),
        IN_KERNEL("add.ftz.rn.f32 f1, f2, f3; add.sat.ftz.rn.f32 f1, f2, 1.5;"), /* any order */
        IN_KERNEL(
            "mul.lo.u32 r1, r1, 1 * 256; sub.u32 r1, r2, 8 * 64 - 1; mov.u32 r3, (1 << 4) | 3;"),
        IN_KERNEL(
            "ld.global.nc.L1::no_allocate.L2::128B.v4.f32 {f1, f2, f3, f4}, [d1 + (2 * 8 + 16)];"),
        IN_KERNEL("ld.global.L1::evict_last.L2::cache_hint.u32 r1, [d1], d2;"),
        IN_KERNEL("st.global.L1::no_allocate.v2.b32 [d1 + -8], {r1, r2}; prefetch.global.L2 [d1];"),
        IN_KERNEL("ld.acquire.gpu.global.u32 r1, [d1]; st.release.sys.u32 [d1], r2; "
                  "ld.volatile.u32 r1, [d1];"),
        IN_KERNEL("setp.lt.and.f32 p0|p1, f1, f2, !p1; @!p0 bra L; L: selp.b32 r1, r2, 5, p0;"),
        IN_KERNEL(
            "{ .reg .u32 r1; L: add.u32 r1, r1, 1; bra L; } { L: bra L; }"), /* labels by scope */
        IN_KERNEL("mov.b64 {r1, r2}, d1; mov.b64 d1, {r1, r2}; mov.b32 r1, {h1, h2};"),
        IN_KERNEL("cp.async.cg.shared.global.L2::128B [r1], [d1], 16; cp.async.ca.shared.global "
                  "[r1], [d1], 4, r2;"
                  "cp.async.commit_group; cp.async.wait_group 1; cp.async.wait_all;"),
        IN_KERNEL("mov.u32 r1, s; ld.shared.u32 r1, [s + 4]; cvta.shared.u64 d1, d2; "
                  "cvta.to.global.u64 d1, d1;"),
        IN_KERNEL("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {r0, r1, r2, r3}, [r4];"),
        IN_KERNEL("mov.u32 r1, %pm0; mov.u64 d1, %pm7_64;"),
        IN_KERNEL("T: .branchtargets A, B; brx.idx r1, T; A: B: ret;"),
        IN_KERNEL("mov.u32 r1, %tid.x; mov.u64 d1, %clock64; mov.u32 r1, %lanemask_lt; mov.u32 r1, "
                  "WARP_SZ;"),
        IN_KERNEL(
            ".pragma \"nounroll\"; .reg .f32 q<8>; .reg .u32 q; mov.u32 q, 1; mov.f32 q7, f1;"),
        PTX_HEAD ".file 1 \"a.cu\"\n.global .align 4 .b8 t[8] = {1, 2, 0xff};\n.const .f32 c[2] = "
                 "{1.5, 0f40000000};"
                 ".global .u64 a = t; .global .u64 b[2] = {generic(t) + 4, 0};"
                 ".global .align 8 .b8 v[8] = {0xFF(t), 0xFF00(t), 0, 0, 0, 0, 0, 0};\n"
                 ".section .debug_str { .b8 1,2,3 }\n",
        PTX_HEAD ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n"
                 ".func (.reg .u32 r) f(.reg .u32 a) { mov.u32 r, a; ret; }\n"
                 ".entry k() .maxntid 128, 1, 1 .minnctapersm 2 { .reg .u32 x; call.uni (x), f, "
                 "(7); ret; }\n",
        PTX_HEAD "#line 7 \"x.inc\"\n.entry k() { ret; }\n",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        accepts(good[i]);
}

static void refusals(void **state)
{
    (void)state;
    refuses("", 1, "no PTX");
    refuses(".version 12.0\n", 1, "version");
    refuses(".version 8.0\n.entry k() { ret; }", 2, ".target");
    refuses(PTX_HEAD ".entry k() { ret; ", 4, "end of the text");
    refuses(IN_KERNEL("addd.u32 r1, r2, r3;"), 7, "unknown instruction 'addd'");
    refuses(IN_KERNEL("add.u32 r1, r2;"), 7, "3 operands");
    refuses(IN_KERNEL("add.u32 r1, r2, d3;"), 7, "does not fit");
    refuses(IN_KERNEL("add.f32 f1, f2, 1;"), 7, "integer constant");
    refuses(IN_KERNEL("add.u32 r1, r2, 1.0;"), 7, "float constant");
    refuses(IN_KERNEL("add.f32 r1, f2, f3;\n.reg .u32 u; add.f32 u, f1, f2;"), 8, "does not fit");
    refuses(IN_KERNEL("fma.f32 f1, f2, f3, f4;"), 7, "rounding");
    refuses(IN_KERNEL("add.rn.rz.f32 f1, f2, f3;"), 7, "exclude each other");
    refuses(IN_KERNEL("add.wide.u32 r1, r2, r3;"), 7, "'.wide' is not a modifier");
    refuses(IN_KERNEL("add.bogus.u32 r1, r2, r3;"), 7, "'.bogus'");
    refuses(IN_KERNEL("mov.u32 r1, r99;"), 7, "r99");
    refuses(IN_KERNEL("mov.u32 r1, %tid.q;"), 7, "%tid");
    refuses(IN_KERNEL("bra nowhere;"), 7, "nowhere");
    refuses(IN_KERNEL("L: L: ret;"), 7, "twice");
    refuses(IN_KERNEL("ld.global.u32 r1, [r2];"), 7, "32-bit");
    refuses(IN_KERNEL("ld.global.v3.u32 {r1,r2,r3}, [d1];"), 7, "'.v3'");
    refuses(IN_KERNEL("mov.b64 {}, d1;"), 7, "2 or 4 registers");
    refuses(IN_KERNEL("mov.b64 d1, {};"), 7, "2 or 4 registers");
    refuses(IN_KERNEL("ld.shared.nc.u32 r1, [r2];"), 7, ".nc");
    refuses(IN_KERNEL("ld.param.u64 d1, [n];"), 7, "outside");
    refuses(IN_KERNEL("tex.2d.v4.f32.f32 {f1,f2,f3,f4}, [t, {f1, f2}];"), 7, "");
    refuses(IN_KERNEL("wgmma.fence.sync.aligned;"), 7, "wgmma.fence.sync.aligned");
    refuses(IN_KERNEL("mbarrier.init.shared.b64 [r1], 1;"), 7, "mbarrier");
    refuses(IN_KERNEL("mma.sync.aligned.m16n8k16.row.row.f32.bf16.bf16.f32 {f0,f1,f2,f3}, "
                      "{r0,r1,r2,r3}, {r4,r5}, {f0,f1,f2,f3};"),
            7, ".row.col");
    refuses(IN_KERNEL("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {f0,f1,f2}, "
                      "{r0,r1,r2,r3}, {r4,r5}, {f0,f1,f2,f3};"),
            7, "4 registers");
    refuses(IN_KERNEL("cp.async.cg.shared.global [r1], [d1], 8;"), 7, "16");
    refuses(IN_KERNEL("bar.sync 16;"), 7, "0 to 15");
    refuses(IN_KERNEL("shl.u32 r1, r2, 3;"), 7, "'shl' is of bits");
    refuses(IN_KERNEL("popc.s64 r1, d2;"), 7, "'popc' is of bits");
    refuses(IN_KERNEL("bar.red.popc.u32 r1, 16, p0;"), 7, "0 to 15");
    refuses(IN_KERNEL("bar.arrive 1, 65;"), 7, "multiple of 32");
    refuses(IN_KERNEL("mov.u32 r1, %pm8;"), 7, "%pm8");
    refuses(IN_KERNEL("mov.u32 r1, 1 / 0;"), 7, "overflows");
    refuses(PTX_HEAD ".global .texref t;", 4, "textures");
    refuses(PTX_HEAD ".global .u32 x[4] = {1, 2, 3, 4, 5};", 4, "more initial values");
    refuses(PTX_HEAD ".global .b8 x = 300;", 4, "does not fit");
    refuses(PTX_HEAD ".entry k() { ret; }\n.entry k() { ret; }", 5, "twice");
    refuses(PTX_HEAD ".entry k() .maxntid 2048 { ret; }", 4, "2048");
    refuses(PTX_HEAD ".func f() { ret; } .entry k() { call g; ret; }", 4, "'g'");
    refuses(PTX_HEAD ".func f(.param .b32 a) { ret; }\n.entry k() { call f; ret; }", 5,
            "arguments");
    refuses(PTX_HEAD "/* open", 4, "comment");
}

static void columns(void **state)
{
    (void)state;
    const char *text = PTX_HEAD ".entry k() {\n    .reg .u32 r;\n    add.u32 r, r, %nothing;\n}\n";
    struct vn_diagnostic d;
    assert_null(vn_module_parse(text, strlen(text), &d));
    assert_int_equal(d.line, 6);
    assert_int_equal(d.column, 19);
}

/* What a call must agree with, by ptxas's verdict on each: a prototype, a list of targets, or the
 * function's own header. The error is at `^`. */
#define IN_CALLER(code)                                                                            \
    PTX_HEAD ".func (.param .b32 r) f(.param .b32 a) { ret; }\n"                                   \
             ".func (.param .f32 r) g(.param .align 4 .b8 a[12]) { ret; }\n"                       \
             ".entry k() { .reg .b32 x; .reg .b64 p; .reg .f32 e; .param .b32 a, b, r; "           \
             ".param .b64 w; .param .f32 s; .param .s32 i; .param .align 4 .b8 v[12];\n" code      \
             "\nret; }\n"
#define P(returns, params) "P: .callprototype " returns " _ " params ";\n"
#define B32 "(.param .b32 _)"

static void calls(void **state)
{
    (void)state;
    static const char *const good[] = {
        P(B32, B32) "call (r), p, (a), P; call.uni (r), p, (x), P; call (x), p, (5), P;",
        P(B32, B32) "call (s), p, (e), P; call (i), p, (s), P;", /* bits are any kind of number */
        P(B32, "(.param .align 4 .b8 _[12])") "call (r), p, (v), P;",
        P("", B32) "call p, (a), P;",
        P("", "") "call p, P;",
        P("", B32 ".noreturn") "call p, (a), P;",
        "T: .calltargets f;\ncall (r), p, (a), T;",
        "call (r), f, (a); call (s), g, (v);",
    };
    static const struct {
        const char *code, *why;
    } bad[] = {
        {P(B32, B32) "call (r), ^p, (a, b), P;", "2 arguments"},
        {P(B32, B32) "call (r), ^p, P;", "0 arguments"},
        {P(B32, "(.param .b32 _, .param .b32 _)") "call (r), ^p, (a), P;", "1 arguments"},
        {P(B32, B32) "call ^p, (a), P;", "0 results"},
        {P("", B32) "call (r), ^p, (a), P;", "1 results"},
        {P(B32, "(.param .b64 _)") "call (r), p, (^a), P;", "does not fit"},
        {P(B32, B32) "call (r), p, (^w), P;", "does not fit"},
        {P(B32, B32) "call (r), p, (^v), P;", "does not fit"},
        {P(B32, B32) "call (r), p, (^p), P;", "does not fit"},
        {P(B32, "(.param .s32 _)") "call (r), p, (^s), P;", "does not fit"},
        {P(B32, "(.param .f32 _)") "call (r), p, (^5), P;", "does not fit"},
        {P(B32, "(.param .align 4 .b8 _[8])") "call (r), p, (^v), P;", "does not fit"},
        {P(B32, "(.param .align 4 .b8 _[12])") "call (r), p, (^x), P;", "does not fit"},
        {P(B32, "(.param .align 8 .b8 _[12])") "call (r), p, (^v), P;", "aligned to 4"},
        {P("(.param .b64 _)", B32) "call (^r), p, (a), P;", "does not fit"},
        {"P: .callprototype (.param .b32 ^_, .param .b32 _) _ ();", "in .reg"},
        {"P: .callprototype (.param .b32 _) ^name ();", "'_' is expected"},
        {"call (r), ^p, (a);", "needs a prototype"},
        {"call (r), ^p, (a), Q;", "needs a prototype"},
        {"P: call (r), ^p, (a), P;", "needs a prototype"},
        {P(B32, B32) "call (r), f, (a), ^P;", "through a register"},
        {"T: .calltargets f, ^h;", "'h'"},
        {"T: .calltargets f;\ncall (r), ^p, (a, b), T;", "2 arguments"},
        {"T: .calltargets f, g;\ncall (r), p, (^a), T;", "does not fit"},
        {"call (r), ^f, (a, b);", "2 arguments"},
        {"call (r), f, (^w);", "does not fit"},
        {"call (^i), g, (v);", "does not fit"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[1000];
        snprintf(text, sizeof text, IN_CALLER("%s"), good[i]);
        accepts(text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[1000];
        uint32_t line = 1, column = 1;
        snprintf(text, sizeof text, IN_CALLER("%s"), bad[i].code);
        char *at = text;
        for (; *at != '^'; at++) {
            line += *at == '\n';
            column = *at == '\n' ? 1 : column + 1;
        }
        memmove(at, at + 1, strlen(at));
        refuses(text, line, bad[i].why);
        struct vn_diagnostic d;
        assert_null(vn_module_parse(text, strlen(text), &d));
        if (d.column != column)
            fail_msg("column %u, not %u: %s\n%s", d.column, column, d.text, text);
    }
}

/* Sizes that an attacker would choose: an error, quickly, and never a crash. */
static void hostile(void **state)
{
    (void)state;
    refuses(PTX_HEAD ".entry k() { .reg .b32 r<1048577>; ret; }", 4, "1048576");
    accepts(PTX_HEAD ".entry k() { .reg .b32 r<1048576>; mov.b32 r1048575, 1; ret; }");
    refuses(PTX_HEAD ".global .b64 a[1000000000][1000000000];", 4, "too large");
    refuses(PTX_HEAD ".shared .b8 a[300000];", 4, "shared");
    refuses(PTX_HEAD ".entry k() { .local .b8 a[600000]; ret; }", 4, "local");
    refuses(PTX_HEAD ".entry k(.param .b8 a[40000]) { ret; }", 4, "32764");
    static const char *const repeats[][4] = {
        /* head, repeated, tail, what is said */
        {PTX_HEAD ".entry k() { ", "{", "", "nested"},
        {PTX_HEAD ".entry k() { .reg .b32 r; mov.b32 r, ", "(", "1;", "nested"},
        {PTX_HEAD ".entry k() { .reg .b32 r; mov.b32 r, ", "-", "1;", "nested"},
        {PTX_HEAD ".entry k() { .reg .b32 r; mov.b32 r, ", "{", "", "nested"},
        {PTX_HEAD ".global .b8 a[4] = ", "{", "", "nested"},
        {PTX_HEAD ".entry k() { add", ".u32", " r;}", "more than"},
    };
    for (size_t i = 0; i < sizeof repeats / sizeof *repeats; i++) {
        size_t n = 20000, unit = strlen(repeats[i][1]);
        char *text = malloc(strlen(repeats[i][0]) + n * unit + strlen(repeats[i][2]) + 1);
        char *p = text + sprintf(text, "%s", repeats[i][0]);
        for (size_t k = 0; k < n; k++)
            p += sprintf(p, "%s", repeats[i][1]);
        sprintf(p, "%s", repeats[i][2]);
        refuses(text, 4, repeats[i][3]);
        free(text);
    }
    /* 3000 functions that call each other in a chain, and in a circle */
    char *text = malloc(400000), *p = text;
    p += sprintf(p, PTX_HEAD);
    for (int i = 3000; i >= 0; i--)
        p += i == 3000 ? sprintf(p, ".func f3000() { ret; }\n")
                       : sprintf(p, ".func f%d() { call f%d; ret; }\n", i, i + 1);
    sprintf(p, ".entry k() { call f0; ret; }\n");
    refuses(text, 0, "nested more than 2000 deep");
    free(text);
    accepts(PTX_HEAD ".func a(); .func b() { call a; ret; } .func a() { call b; ret; } .entry k() "
                     "{ call a; ret; }");
}

static void tables(void **state)
{
    (void)state;
    /* a .b8 table of 100 KB, and the time a module of that size takes */
    char *text = malloc(1 << 20), *p = text;
    p += sprintf(p, PTX_HEAD ".global .align 8 .b8 t[100000] = {");
    for (int i = 0; i < 100000; i++)
        p += sprintf(p, "%s%d", i ? "," : "", i & 255);
    p += sprintf(p, "};\n");
    struct kit kit;
    kit_open(&kit, text);
    assert_int_equal(vn_module_variable(kit.module, 0)->size, 100000);
    kit_close(&kit);
    free(text);
}

static void linking(void **state)
{
    (void)state;
    const char *a = PTX_HEAD
        ".extern .func (.param .b32 r) twice(.param .b32 x);\n.extern .global .u32 base;\n"
        ".visible .entry k() { .reg .u32 r; .param .b32 q; .param .b32 o; st.param.b32 [q], 4;"
        "call.uni (o), twice, (q); ld.param.b32 r, [o]; ret; }\n";
    const char *b = PTX_HEAD
        ".visible .global .u32 base = 9;\n.global .u32 mine;\n"
        ".visible .func (.param .b32 r) twice(.param .b32 x) { .reg .u32 v; ld.param.u32 v, [x];"
        " add.u32 v, v, v; st.param.u32 [r], v; ret; }\n";
    const char *c = PTX_HEAD ".global .u32 mine;\n.visible .entry other() { ret; }\n";
    struct vn_diagnostic d = {0};
    struct vn_module *m[3] = {vn_module_parse(a, strlen(a), &d), vn_module_parse(b, strlen(b), &d),
                              vn_module_parse(c, strlen(c), &d)};
    assert_non_null(m[0]);
    assert_non_null(m[1]);
    assert_non_null(m[2]);
    struct vn_module *all = vn_module_link((const struct vn_module *const *)m, 3, &d);
    if (!all)
        fail_msg("%u: %s", d.line, d.text);
    assert_int_equal(vn_module_functions(all), 3);
    assert_int_equal(vn_module_variables(all), 3); /* each file's own `mine`, and base */
    struct vn_module *twice = vn_module_link((const struct vn_module *const[]){m[1], m[1]}, 2, &d);
    assert_null(twice);
    assert_non_null(strstr(d.text, "twice"));
    /* alone, the first has externs that nothing defines */
    uint64_t addresses[4] = {0};
    assert_null(vn_image_create(m[0], NULL, addresses, &d));
    assert_non_null(strstr(d.text, "unresolved"));
    for (int i = 0; i < 3; i++)
        vn_module_release(m[i]);
    vn_module_release(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),   cmocka_unit_test(refusals), cmocka_unit_test(columns),
        cmocka_unit_test(calls),   cmocka_unit_test(hostile),  cmocka_unit_test(tables),
        cmocka_unit_test(linking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
