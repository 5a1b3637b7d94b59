/* Checks at the level of PTX: what each one finds, at which line, and what it leaves alone. */
#include "kit.h"

#define KERNEL(name, code)                                                                         \
    ".visible .entry " name                                                                        \
    "(.param .u64 p, .param .u64 q) {\n.reg .b64 a, b, t, t2; .reg .b32 i, x, y, z; "              \
    ".reg .pred c, d; .shared .align 16 .b8 s[512];\nld.param.u64 a, [p]; ld.param.u64 b, [q]; "   \
    "mov.u32 i, %tid.x; "                                                                          \
    "mul.wide.u32 t, i, 4; mul.lo.u32 y, i, 4; mov.u32 z, s; add.u32 z, z, y;\n" code "\nret; }\n"

static const char *text = PTX_HEAD KERNEL("over",
                                          "add.u64 t, a, t; st.global.u32 [t + 4], i; // OVER")
    KERNEL("byte", "add.u64 a, a, 1; ld.global.u8 x, [a]; ld.global.u16 x, [a]; // ODD") KERNEL(
        "cold", "add.u64 t, b, t; ld.global.u32 x, [t]; // COLD\nst.global.u32 [a], x;")
        KERNEL("vector", "ld.global.v4.u32 {x, y, x, y}, [b]; // VECTOR") KERNEL(
            "param", "mov.b64 t, p; cvta.param.u64 t, t; ld.u64 t2, [t]; st.u32 [t], i; // PARAM")
            KERNEL("race", "st.shared.u32 [z], i;\nxor.b32 y, y, 256; mov.u32 z, s; add.u32 z, z, "
                           "y; ld.shared.u32 x, [z]; // RACE")
                KERNEL("calm", "st.shared.u32 [z], i; bar.sync 0;\nxor.b32 y, y, 256; mov.u32 z, "
                               "s; add.u32 z, z, y; ld.shared.u32 x, [z];")
                    KERNEL("bytes",
                           "mov.u32 z, s; add.u32 z, z, i; st.shared.u8 [z], i; setp.ne.u32 c, "
                           "i, 0; @c bra L; \n"
                           "st.shared.u8 [z + 3], i; // BYTES\nL: mov.u32 x, 0;")
                        KERNEL(
                            "neighbours",
                            "mov.u32 z, s; add.u32 z, z, i; st.shared.u8 [z], i; "
                            "ld.shared.u8 x, [z]; st.shared.u8 [z], x;") KERNEL("same",
                                                                                "st.global.u32 "
                                                                                "[a], 1; // SAME")
                            KERNEL("different", "st.global.u32 [a], i; // DIFFERENT") KERNEL(
                                "blocks", "setp.ne.u32 c, i, 0; @c ret; ld.global.u32 x, [a]; // "
                                          "BLOCKS\nadd.u32 x, x, 1; st.global.u32 [a], x;")
                                KERNEL("atomics", "setp.ne.u32 c, i, 0; @c ret; "
                                                  "atom.global.add.u32 x, [a], 1;")
                                    KERNEL("narrow",
                                           "setp.ne.u32 c, i, 0; @c ret; "
                                           "atom.relaxed.cta.global.add.u32 x, [a], 1; // NARROW")
                                        KERNEL(
                                            "early",
                                            "mov.u32 z, s; cp.async.ca.shared.global [z], [a], 16; "
                                            "cp.async.commit_group;\n"
                                            "ld.shared.u32 x, [z]; // EARLY\ncp.async.wait_all;")
                                            KERNEL("parted",
                                                   "and.b32 x, i, 1; setp.eq.u32 c, x, 0; @c bra "
                                                   "L;\nbar.sync 0; // PARTED\nL: bar.sync 0;")
                                                KERNEL(
                                                    "late",
                                                    "and.b32 x, i, 1; setp.eq.u32 c, x, 0; @c bra "
                                                    "L; mov.u32 x, 7;\nL: bar.sync 0;");

static const struct {
    const char *kernel, *mark, *check; /* check NULL: nothing is found */
    uint32_t grid, block;
    enum vn_status status;
} cases[] = {
    {"over", "// OVER", "out-of-bounds", 1, 32, VN_ILLEGAL_ADDRESS},
    {"byte", "// ODD", "misaligned", 1, 32, VN_MISALIGNED_ADDRESS},
    {"cold", "// COLD", "uninitialised", 1, 32, VN_OK},
    {"vector", "// VECTOR", "uninitialised", 1, 1, VN_OK},
    {"param", "// PARAM", "read-only", 1, 1, VN_ILLEGAL_ADDRESS},
    {"race", "// RACE", "shared-race", 1, 128, VN_OK},
    {"calm", NULL, NULL, 1, 128, VN_OK},
    {"bytes", "// BYTES", "shared-race", 1, 32, VN_OK},
    {"neighbours", NULL, NULL, 1, 64, VN_OK},
    {"same", NULL, NULL, 1, 32, VN_OK},
    {"different", "// DIFFERENT", "global-race", 1, 32, VN_OK},
    {"blocks", "// BLOCKS", "global-race", 4, 32, VN_OK},
    {"atomics", NULL, NULL, 4, 32, VN_OK},
    {"narrow", "// NARROW", "global-race", 4, 32, VN_OK},
    {"early", "// EARLY", "async-copy", 1, 1, VN_OK},
    {"parted", "// PARTED", "barrier", 1, 64, VN_OK},
    {"late", NULL, NULL, 1, 64, VN_OK},
};

static void findings(void **state)
{
    (void)state;
    struct kit kit;
    static const uint8_t zero[128];
    kit_open(&kit, text);
    kit.next.checks = VN_CHECK_ALL;
    for (int schedule = 0; schedule < 3; schedule++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            uint64_t a = kit_buffer(&kit, 128, zero), b = kit_buffer(&kit, 128, NULL);
            kit.next.schedule = (enum vn_schedule)schedule;
            kit.next.seed = i;
            enum vn_status status =
                KIT_RUN(&kit, cases[i].kernel, cases[i].grid, cases[i].block, a, b);
            if (status != cases[i].status)
                fail_msg("%s ended with %d", cases[i].kernel, status);
            if (!cases[i].check) {
                if (kit.finding_count)
                    fail_msg("%s: %s: %s", cases[i].kernel, kit.findings[0].check,
                             kit.findings[0].text);
                continue;
            }
            const struct kit_finding *f = kit_found(&kit, cases[i].check);
            if (!f)
                fail_msg("%s: no %s", cases[i].kernel, cases[i].check);
            uint32_t line = kit_line(text, cases[i].mark);
            bool either = f->line == line || f->other_line == line; /* a race has two ends */
            if (!either)
                fail_msg("%s: line %u, not %u: %s", cases[i].kernel, f->line, line, f->text);
        }
    }
    kit_close(&kit);
}

/* The first load of a compare-and-swap loop is a race by the letter. It is told apart from one
 * whose value is used, and from one beside a plain store. */
static const char *loops = PTX_HEAD KERNEL(
    "add", "setp.ne.u32 c, i, 0; @c ret; ld.global.u32 x, [a]; // FIRST\nAGAIN: mov.u32 y, "
           "x; add.u32 z, y, 1; atom.global.cas.b32 x, [a], y, z; setp.ne.u32 c, x, y; @c "
           "bra AGAIN;")
    KERNEL("used", "setp.ne.u32 c, i, 0; @c ret; ld.global.u32 x, [a]; // USED\n"
                   "atom.global.add.u32 y, [a], x;")
        KERNEL("elsewhere", "setp.ne.u32 c, i, 0; @c ret; ld.global.u32 x, [a]; // ELSEWHERE\n"
                            "atom.global.cas.b32 y, [a + 4], x, 5; atom.global.add.u32 y, [a], 1;")
            KERNEL("stored", "setp.ne.u32 c, i, 0; @c ret; ld.global.u32 x, [a];\n"
                             "st.global.u32 [a], 7; // STORED\n"
                             "atom.global.cas.b32 y, [a], x, 5;");

static void guesses(void **state)
{
    (void)state;
    static const struct {
        const char *kernel, *mark;
        unsigned checks;
    } kinds[] = {{"add", NULL, VN_CHECK_ALL & ~VN_CHECK_CAS_LOADS},
                 {"add", "// FIRST", VN_CHECK_ALL},
                 {"used", "// USED", VN_CHECK_ALL & ~VN_CHECK_CAS_LOADS},
                 {"elsewhere", "// ELSEWHERE", VN_CHECK_ALL & ~VN_CHECK_CAS_LOADS},
                 {"stored", "// STORED", VN_CHECK_ALL & ~VN_CHECK_CAS_LOADS}};
    struct kit kit;
    static const uint8_t zero[128];
    kit_open(&kit, loops);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        uint64_t a = kit_buffer(&kit, 128, zero);
        kit.next.checks = kinds[i].checks;
        assert_int_equal(KIT_RUN(&kit, kinds[i].kernel, 4, 32, a, a), VN_OK);
        const struct kit_finding *f = kit_found(&kit, "global-race");
        if (!kinds[i].mark) {
            assert_int_equal(kit.finding_count, 0);
            assert_int_equal(*(const uint32_t *)kit_host(a), 4);
            continue;
        }
        if (!f)
            fail_msg("%s: no race is reported", kinds[i].kernel);
        uint32_t line = kit_line(loops, kinds[i].mark);
        if (f->line != line && f->other_line != line)
            fail_msg("%s: line %u, not %u: %s", kinds[i].kernel, f->line, line, f->text);
    }
    kit_close(&kit);
}

static void allocations(void **state)
{
    (void)state;
    struct kit kit;
    static const uint8_t zero[128];
    kit_open(&kit, text);
    uint64_t a = kit_buffer(&kit, 128, zero), b = kit_buffer(&kit, 128, zero);
    assert_int_equal(KIT_RUN(&kit, "over", 1, 32, a, b), VN_ILLEGAL_ADDRESS);
    const struct kit_finding *f = kit_found(&kit, "out-of-bounds");
    assert_non_null(f);
    assert_int_equal(f->thread, 31);
    assert_true(f->address == a + 128);
    assert_non_null(strstr(f->text, "128 bytes at"));
    assert_true(vc_free(kit.map, a));
    assert_int_equal(KIT_RUN(&kit, "same", 1, 32, a, b), VN_ILLEGAL_ADDRESS);
    assert_non_null(kit_found(&kit, "use-after-free"));
    /* another device's memory, without and with access */
    struct vc_alloc_info info = {
        .bytes = 128, .align = 256, .device = 1, .kind = VC_GLOBAL, .access = 2};
    uint64_t far = vc_alloc(kit.map, &info);
    assert_int_equal(KIT_RUN(&kit, "same", 1, 32, far, b), VN_ILLEGAL_ADDRESS);
    assert_non_null(kit_found(&kit, "peer"));
    vc_set_peer(kit.map, 0, 1, true);
    assert_int_equal(KIT_RUN(&kit, "same", 1, 32, far, b), VN_OK);
    kit_close(&kit);
}

static void off(void **state)
{
    (void)state;
    struct kit kit;
    kit_open(&kit, text);
    kit.next.checks = 0;
    uint64_t a = kit_buffer(&kit, 128, NULL), b = kit_buffer(&kit, 128, NULL);
    assert_int_equal(KIT_RUN(&kit, "cold", 1, 32, a, b), VN_OK);
    assert_int_equal(KIT_RUN(&kit, "race", 1, 128, a, b), VN_OK);
    assert_int_equal(kit.finding_count, 0);
    /* what hardware would fault on is caught all the same */
    assert_int_equal(KIT_RUN(&kit, "over", 1, 32, a, b), VN_ILLEGAL_ADDRESS);
    kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(findings),
        cmocka_unit_test(guesses),
        cmocka_unit_test(allocations),
        cmocka_unit_test(off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
