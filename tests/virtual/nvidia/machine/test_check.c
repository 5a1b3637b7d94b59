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

/* Accesses of shared memory without a barrier between, by three warps: t is the thread's number, i
 * is set in the first lane of each warp, t0, t32 and t64 in those threads. Words [s] and [s + 4]
 * are 0. The race is between lines ONE and TWO, in whatever order the schedule has them. */
static const struct {
    const char *code;
    bool race;
    unsigned checks; /* 0: all but cas-loads */
} beside[] = {
    /* one thread stores, all count: the store may come first, last or between */
    {"@t0 st.shared.u32 [s], 5; // ONE\n@i red.shared.add.u32 [s], 1; // TWO", true, 0},
    {"@t64 st.shared.u32 [s], 5; // ONE\n@i red.shared.add.u32 [s], 1; // TWO", true, 0},
    {"@i red.shared.add.u32 [s], 1; // ONE\n@t0 st.shared.u32 [s], 5; // TWO", true, 0},
    {"@i red.shared.add.u32 [s], 1; // ONE\n@t64 st.shared.u32 [s], 5; // TWO", true, 0},
    {"@i atom.shared.exch.b32 x, [s], 1; // ONE\n@t32 ld.shared.u32 x, [s]; // TWO", true, 0},
    {"@t32 ld.shared.u32 x, [s]; // ONE\n@i atom.shared.max.u32 x, [s], x; // TWO", true, 0},
    /* lanes of one warp, which nothing orders either */
    {"@t0 st.shared.u32 [s], 5; // ONE\n@w red.shared.add.u32 [s], 1; // TWO", true, 0},
    {"@w red.shared.add.u32 [s], 1; // ONE\n@l31 st.shared.u32 [s], 5; // TWO", true, 0},
    {"@w ld.shared.u32 x, [s]; // ONE\n@l31 red.shared.add.u32 [s], 5; // TWO", true, 0},
    {"@w st.shared.u32 [s], 7; // ONE\n@l31 red.shared.add.u32 [s], 5; // TWO", true, 0},
    /* one instruction in two turns of a loop */
    {"mov.u32 x, 0;\nL: setp.eq.and.u32 c, x, t, w;\n@c st.shared.u32 [s], t; // ONE TWO\n"
     "add.u32 x, x, 1; setp.lt.u32 c, x, 4; @c bra L;",
     true, 0},
    /* some of the bytes; by another size, vector or address */
    {"@t0 st.shared.u8 [s + 3], 5; // ONE\n@i red.shared.add.u32 [s], 1; // TWO", true, 0},
    {"@t0 st.shared.u32 [s + 4], 5; // ONE\n@i atom.shared.add.u64 q, [s], 1; // TWO", true, 0},
    {"@t0 st.shared.v2.u32 [s], {x, x}; // ONE\n@i red.shared.add.u32 [s + 4], 1; // TWO", true, 0},
    {"@t0 st.u32 [g], 5; // ONE\n@i red.add.u32 [g], 1; // TWO", true, 0},
    {"@t0 st.shared.u8 [s + 2], 5;\n@i atom.shared.cas.b16 h, [s], h, h;", false, 0},
    {"@t0 st.shared.u8 [s + 1], 5; // ONE\n@i atom.shared.cas.b16 h, [s], h, h; // TWO", true, 0},
    {"@t0 st.shared.u32 [s + 4], 5;\n@i red.shared.add.u32 [s], 1;", false, 0},
    /* what other atomics and strong loads hide: the thread's own come between */
    {"@t0 ld.volatile.shared.u32 x, [s]; // ONE\n@t32 red.shared.add.u32 [s], 1;\n"
     "@t32 st.shared.u32 [s], 5; // TWO",
     true, 0},
    {"@t0 ld.shared.u32 x, [s]; // ONE\nsetp.ne.and.u32 c, t, 0, i;\n"
     "@c ld.volatile.shared.u32 x, [s];\n@c red.shared.add.u32 [s], 5; // TWO",
     true, 0},
    /* atomics alone, strong accesses beside them, and order by barriers: no race */
    {"red.shared.add.u32 [s], 1;\natom.shared.max.u32 x, [s], 7;\n"
     "atom.shared.cas.b32 x, [s], x, 3;",
     false, 0},
    {"@i red.shared.add.u32 [s], 1;\n@t0 st.volatile.shared.u32 [s], 5;\n"
     "@t32 ld.relaxed.cta.shared.u32 x, [s];\n@t64 st.release.cta.shared.u32 [s], 5;",
     false, 0},
    {"@t0 st.volatile.shared.u32 [s], 5; // ONE\n@t32 ld.shared.u32 x, [s]; // TWO", true, 0},
    {"@t0 st.shared.u32 [s], 5;\nbar.sync 0; red.shared.add.u32 [s], 1;\nbar.sync 0;\n"
     "ld.shared.u32 x, [s];",
     false, 0},
    {"@w red.shared.add.u32 [s], 1;\nbar.warp.sync 0xffffffff; @l31 st.shared.u32 [s], 5;", false,
     0},
    {"@t32 red.shared.add.u32 [s], 1;\n@t32 st.shared.u32 [s], 5;\n@t32 ld.shared.u32 x, [s];",
     false, 0},
    /* a load that a compare-and-swap checks, by the variable's name as nvcc has it */
    {"ld.shared.u32 x, [s];\nmov.u32 z, s;\nL: mov.u32 y, x; add.u32 x, y, 1; "
     "atom.shared.cas.b32 x, [z], y, x; setp.ne.u32 c, x, y; @c bra L;",
     false, 0},
    {"ld.shared.u32 x, [s]; // ONE\nmov.u32 z, s;\nL: mov.u32 y, x; add.u32 x, y, 1;\n"
     "atom.shared.cas.b32 x, [z], y, x; // TWO\nsetp.ne.u32 c, x, y; @c bra L;",
     true, VN_CHECK_ALL},
    {"ld.shared.u32 x, [s]; // ONE\nmov.u32 z, s;\nL: mov.u32 y, x; add.u32 x, y, 1;\n"
     "atom.shared.cas.b32 x, [z + 4], y, x;\nred.shared.add.u32 [s], 1; // TWO",
     true, 0},
    {"@t0 ld.shared.u32 x, [s]; // ONE\n@t32 atom.shared.cas.b32 y, [s], x, 1;\n"
     "@t32 st.shared.u32 [s], 5; // TWO",
     true, 0},
};

static const char *beside_head =
    PTX_HEAD ".visible .entry k() {\n.reg .b64 g, q; .reg .b32 t, x, y, z; .reg .b16 h; "
             ".reg .pred c, i, w, t0, t1, t32, t33, t64, l31; .shared .align 16 .b8 s[64];\n"
             "mov.u32 t, %tid.x; and.b32 x, t, 31; setp.eq.u32 i, x, 0; setp.lt.u32 w, t, 32; "
             "setp.eq.u32 t0, t, 0; setp.eq.u32 t32, t, 32; setp.eq.u32 t64, t, 64; "
             "setp.eq.u32 l31, t, 31; setp.eq.u32 t1, t, 1; setp.eq.u32 t33, t, 33; mov.b16 h, "
             "0;\ncvta.shared.u64 g, s; "
             "@t0 st.shared.v2.u32 [s], {0, 0}; bar.sync 0;\n";

static void one_beside(size_t at, const char *ptx)
{
    struct kit kit;
    kit_open(&kit, ptx);
    kit.next.checks = beside[at].checks ? beside[at].checks : VN_CHECK_ALL & ~VN_CHECK_CAS_LOADS;
    for (int schedule = 0; schedule < 9; schedule++) {
        kit.next.schedule = (enum vn_schedule)(schedule % 3);
        kit.next.seed = (uint64_t)schedule;
        assert_int_equal(kit_run(&kit, "k", 1, 96, 0, NULL), VN_OK);
        if (!beside[at].race) {
            if (kit.finding_count)
                fail_msg("%s: %s", beside[at].code, kit.findings[0].text);
            continue;
        }
        uint32_t one = kit_line(ptx, "ONE"), two = kit_line(ptx, "TWO");
        bool found = false;
        for (unsigned k = 0; k < kit.finding_count; k++) {
            const struct kit_finding *f = &kit.findings[k];
            assert_string_equal(f->check, "shared-race");
            found |= (f->line == one && f->other_line == two) ||
                     (f->line == two && f->other_line == one);
        }
        if (!found)
            fail_msg("schedule %d, %u findings, none between lines %u and %u:\n%s", schedule,
                     kit.finding_count, one, two, beside[at].code);
    }
    kit_close(&kit);
}

static void atomics_beside(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        char ptx[2000];
        snprintf(ptx, sizeof ptx, "%s%s\nret; }\n", beside_head, beside[i].code);
        one_beside(i, ptx);
    }
}

/* Random accesses of one word by threads of three warps, with barriers of the block and of warps:
 * a race is reported exactly where two of them are in conflict and no barrier orders them. */
enum { STEPS = 10, WHO = 8, WARP_BARRIER = 5, BLOCK_BARRIER };

static const struct { /* what a step does, and to what it is no race */
    const char *code;
    bool weak, writes;
} acts[] = {{"ld.shared.u32 x, [s]", true, false},
            {"st.shared.u32 [s], 7", true, true},
            {"ld.volatile.shared.u32 x, [s]", false, false},
            {"st.volatile.shared.u32 [s], 7", false, true},
            {"red.shared.add.u32 [s], 1", false, true},
            [WARP_BARRIER] = {"bar.warp.sync 0xffffffff", false, false},
            [BLOCK_BARRIER] = {"bar.sync 0", false, false}};

struct step {
    unsigned act, who;
};

/* Who takes part, as a predicate's name. */
static const char *const who_name[WHO] = {"t0", "t1", "l31", "t32", "t33", "t64", "i", "w"};

static bool takes_part(unsigned who, unsigned thread)
{
    static const unsigned one[] = {0, 1, 31, 32, 33, 64};
    return who < 6 ? thread == one[who] : who == 6 ? thread % 32 == 0 : thread < 32;
}

static bool conflicts(const struct step *a, const struct step *b)
{
    return (acts[a->act].writes || acts[b->act].writes) && (acts[a->act].weak || acts[b->act].weak);
}

/* Whether threads of steps[i] and steps[j], i <= j, race. */
static bool races(const struct step *steps, unsigned i, unsigned j)
{
    bool warps_met = i == j; /* lanes of one store agree on the value */
    if (steps[i].act >= WARP_BARRIER || steps[j].act >= WARP_BARRIER ||
        !conflicts(&steps[i], &steps[j]))
        return false;
    for (unsigned k = i; k < j; k++) {
        if (steps[k].act == BLOCK_BARRIER)
            return false;
        warps_met |= steps[k].act == WARP_BARRIER;
    }
    for (unsigned a = 0; a < 96; a++) {
        for (unsigned b = 0; b < 96; b++) {
            if (takes_part(steps[i].who, a) && takes_part(steps[j].who, b) && a != b &&
                (a / 32 != b / 32 || !warps_met))
                return true;
        }
    }
    return false;
}

static bool any_race(const struct step *steps)
{
    for (unsigned i = 0; i < STEPS; i++) {
        for (unsigned j = i; j < STEPS; j++) {
            if (races(steps, i, j))
                return true;
        }
    }
    return false;
}

/* Such that few steps before the last race: or there would be nothing left to find late. */
static void draw_steps(struct step *steps, uint64_t *seed)
{
    for (unsigned k = 0; k < STEPS; k++)
        steps[k] = (struct step){WARP_BARRIER, 0};
    for (unsigned k = 0; k < STEPS; k++) {
        for (int tries = k + 1 < STEPS ? 9 : 2; tries > 0; tries--) {
            *seed = *seed * 6364136223846793005u + 1442695040888963407u;
            bool barrier = *seed >> 61 == 0;
            steps[k].act =
                barrier ? WARP_BARRIER + (*seed >> 33) % 2 : (*seed >> 33) % WARP_BARRIER;
            steps[k].who = (*seed >> 40) % WHO;
            if (!any_race(steps))
                break;
        }
    }
}

static void random_accesses(void **state)
{
    (void)state;
    enum { ROUNDS = 400 };
    uint64_t seed = 7;
    unsigned count[2] = {0, 0};
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct step steps[STEPS];
        struct kit kit;
        char ptx[4000];
        draw_steps(steps, &seed);
        size_t n = (size_t)snprintf(ptx, sizeof ptx, "%s", beside_head);
        for (unsigned k = 0; k < STEPS; k++) {
            bool barrier = steps[k].act >= WARP_BARRIER;
            n += (size_t)snprintf(ptx + n, sizeof ptx - n, "%s%s %s;\n", barrier ? "" : "@",
                                  barrier ? "" : who_name[steps[k].who], acts[steps[k].act].code);
        }
        snprintf(ptx + n, sizeof ptx - n, "ret; }\n");
        bool wanted = any_race(steps);
        count[wanted]++;
        kit_open(&kit, ptx);
        for (int schedule = 0; schedule < 3; schedule++) {
            kit.next.schedule = (enum vn_schedule)schedule;
            kit.next.seed = round;
            assert_int_equal(kit_run(&kit, "k", 1, 96, 0, NULL), VN_OK);
            if (wanted != (kit_found(&kit, "shared-race") != NULL))
                fail_msg("schedule %d, %s:\n%s", schedule,
                         wanted ? "a race is not reported" : kit.findings[0].text, ptx);
        }
        kit_close(&kit);
    }
    assert_true(count[0] > ROUNDS / 5 && count[1] > ROUNDS / 5);
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
        cmocka_unit_test(findings),       cmocka_unit_test(guesses),
        cmocka_unit_test(atomics_beside), cmocka_unit_test(random_accesses),
        cmocka_unit_test(allocations),    cmocka_unit_test(off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
