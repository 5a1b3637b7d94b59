/* What AMD's pseudocode of one lane does not say: exchanges between lanes, DPP and SDWA, tables,
 * the program counter, the machine's own registers. What is expected is written down here, from the
 * definitions in the CDNA 3 document. */
#include <math.h>

#include "../../../../virtual/amd/exec/exec.h"
#include "instruction.h"

enum { S20 = 20, VCC = 106, M0 = 124, EXEC = 126, V = 256, V8 = V + 8, V9 = V + 9, V10 = V + 10 };
enum { ONE = 129, TWO = 130, MODE_REGISTER = 1, STATUS_REGISTER = 2 };

#define CODE(encoding, name) va_rows[VA_##encoding##_##name].opcode
#define VOP1(name, d, a) (0x7e000000u | (uint32_t)(d) << 17 | CODE(VOP1, name) << 9 | (a))
#define VOP2(name, d, a, b)                                                                        \
    ((uint32_t)CODE(VOP2, name) << 25 | (uint32_t)(d) << 17 | ((b)&255u) << 9 | (a))
#define VOPC(name, a, b) (0x7c000000u | (uint32_t)CODE(VOPC, name) << 17 | ((b)&255u) << 9 | (a))
#define VOP3(name, d, a, b, c)                                                                     \
    0xd0000000u | (uint32_t)CODE(VOP3, name) << 16 | (d),                                          \
        (uint32_t)(a) | (uint32_t)(b) << 9 | (uint32_t)(c) << 18
#define SOP1(name, d, a) (0xbe800000u | (uint32_t)(d) << 16 | CODE(SOP1, name) << 8 | (a))
#define SOP2(name, d, a, b)                                                                        \
    (0x80000000u | (uint32_t)CODE(SOP2, name) << 23 | (uint32_t)(d) << 16 | (b) << 8 | (a))
#define SOPC(name, a, b) (0xbf000000u | (uint32_t)CODE(SOPC, name) << 16 | (b) << 8 | (a))
#define SOPP(name, imm) (0xbf800000u | (uint32_t)CODE(SOPP, name) << 16 | (uint16_t)(imm))
#define SOPK(name, d, imm)                                                                         \
    (0xb0000000u | (uint32_t)CODE(SOPK, name) << 23 | (uint32_t)(d) << 16 | (uint16_t)(imm))
#define DS(name, d, a, b, offset)                                                                  \
    0xd8000000u | (uint32_t)CODE(DS, name) << 17 | (offset),                                       \
        (uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(d) << 24

static const char *const no_name = "of test_lanes.c";
static struct registers *r;

static void run(bool scalar, uint32_t mode, const uint32_t *words, unsigned count)
{
    struct instruction i = {.scalar = scalar, .count = count, .mode = mode};
    struct va_fault fault;
    snprintf(i.name, sizeof i.name, "%s", no_name);
    assert_true(count <= sizeof i.words / sizeof i.words[0]);
    memcpy(i.words, words, count * sizeof words[0]);
    if (!instruction_run(&i, &fault))
        fail_msg("%s", fault.text);
}
#define RUN(scalar, ...)                                                                           \
    run(scalar, USUAL_MODE, (const uint32_t[]){__VA_ARGS__},                                       \
        sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

/* The address of word k of what ran last. */
static uint64_t address(bool scalar, unsigned k)
{
    return instruction_address(&(struct instruction){.scalar = scalar}, k);
}

static uint64_t noise(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void fill_lanes(uint64_t exec)
{
    r = instruction_registers();
    for (int k = 0; k < 8; k++)
        for (int l = 0; l < LANES; l++)
            r->in->vector.v[k][l] = (uint32_t)noise();
    r->in->vector.vcc = noise();
    r->in->vector.exec = exec;
}

static void fill_groups(void)
{
    r = instruction_registers();
    for (int g = 0; g < GROUPS; g++)
        for (int k = 0; k < 8; k++)
            r->in->scalar[g][k] = noise();
}

#define IN(k) (r->in->vector.v[(k)-8])    /* of v8 to v15 */
#define OUT(k) (r->out->vector.v[(k)-14]) /* of v14, v15 */

/* v14 is as expected in the active lanes, as it was in the others. */
static void check_lanes(const char *what, int number, const uint32_t *want, uint64_t written)
{
    for (int l = 0; l < LANES; l++) {
        uint32_t expected = written >> l & 1 ? want[l] : IN(14)[l];
        if (OUT(14)[l] != expected)
            fail_msg("%s 0x%x: lane %d: 0x%x, not 0x%x", what, (unsigned)number, l, OUT(14)[l],
                     expected);
    }
}

/* ---- a lane's value ---- */

void test_across_lanes(void **state)
{
    static const uint64_t masks[] = {UINT64_MAX, 1ull << 17 | 1ull << 40, 1ull << 63, 0, 0xf0};
    static const int lowest[] = {0, 17, 63, 0, 4};
    (void)state;
    for (int k = 0; k < 5; k++) {
        fill_lanes(masks[k]);
        RUN(false, VOP1(v_readfirstlane_b32, VCC, V8));
        assert_int_equal((uint32_t)r->out->vector.vcc, IN(8)[lowest[k]]);
        assert_int_equal(r->out->vector.vcc >> 32, r->in->vector.vcc >> 32);
    }
    for (uint32_t lane = 0; lane < 64; lane += 9) { /* whether it is active or not */
        fill_lanes(noise());
        RUN(false, VOP3(v_readlane_b32, VCC, V8, 128 + lane, 0));
        assert_int_equal((uint32_t)r->out->vector.vcc, IN(8)[lane]);
        RUN(false, SOP1(s_mov_b32, S20, 255), 64 * 5 + lane,
            VOP3(v_readlane_b32, VCC + 1, V9, S20, 0)); /* the number counts modulo 64 */
        assert_int_equal(r->out->vector.vcc >> 32, IN(9)[lane]);
        RUN(false, SOP1(s_mov_b32, S20, 255), 0x12345678,
            VOP3(v_writelane_b32, 14, S20, 128 + lane, 0));
        uint32_t want[LANES] = {0};
        want[lane] = 0x12345678;
        check_lanes("v_writelane_b32", (int)lane, want, 1ull << lane);
    }
    instruction_covered("v_readfirstlane_b32");
    instruction_covered("v_readlane_b32");
    instruction_covered("v_writelane_b32");
}

/* ---- DPP ---- */

enum { NOWHERE = -1 };

/* Where lane l reads, by DPP_CTRL. Rows have 16 lanes, banks 4. */
static int dpp_source(int control, int l)
{
    int row = l / 16, in_row = l % 16, n = control % 16;
    if (control <= 0xff) { /* quad_perm */
        int choice[4] = {control & 3, control >> 2 & 3, control >> 4 & 3, control >> 6};
        return l / 4 * 4 + choice[l % 4];
    }
    if (control >= 0x101 && control <= 0x10f) /* row_shl: toward lane 0 */
        return in_row + n > 15 ? NOWHERE : l + n;
    if (control >= 0x111 && control <= 0x11f) /* row_shr */
        return in_row < n ? NOWHERE : l - n;
    if (control >= 0x121 && control <= 0x12f) /* row_ror */
        return row * 16 + (in_row + 16 - n) % 16;
    if (control >= 0x150 && control <= 0x15f) /* row_newbcast */
        return row * 16 + n;
    switch (control) {
    case 0x130: /* wave_shl */
        return l == 63 ? NOWHERE : l + 1;
    case 0x134: /* wave_rol */
        return l == 63 ? 0 : l + 1;
    case 0x138: /* wave_shr */
        return l == 0 ? NOWHERE : l - 1;
    case 0x13c: /* wave_ror */
        return l == 0 ? 63 : l - 1;
    case 0x140: /* row_mirror */
        return row * 16 + (15 - in_row);
    case 0x141: /* row_half_mirror */
        return l / 8 * 8 + (7 - l % 8);
    case 0x142: /* row_bcast15: to the next row */
        return row == 0 ? NOWHERE : row * 16 - 1;
    default: /* row_bcast31: to rows 2 and 3 */
        return row < 2 ? NOWHERE : 31;
    }
}

static bool dpp_exists(int c)
{
    return c <= 0xff || (c >= 0x101 && c <= 0x12f && c % 16) || c == 0x130 || c == 0x134 ||
           c == 0x138 || c == 0x13c || (c >= 0x140 && c <= 0x143) || (c >= 0x150 && c <= 0x15f);
}

static float float_of(uint32_t v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t v;
    memcpy(&v, &f, 4);
    return v;
}

/* The first source's lanes, and which lanes are written. */
static uint64_t dpp_lanes(uint32_t word, const uint32_t *from, uint32_t *to)
{
    uint64_t exec = r->in->vector.exec, written = 0;
    unsigned row_mask = word >> 28, bank_mask = word >> 24 & 15, zero = word >> 19 & 1;
    for (int l = 0; l < LANES; l++) {
        int s = dpp_source((int)(word >> 8 & 0x1ff), l);
        bool valid = s != NOWHERE && exec >> s & 1;
        bool enabled = row_mask >> l / 16 & 1 && bank_mask >> l % 16 / 4 & 1;
        to[l] = valid ? from[s] : 0;
        if (exec >> l & 1 && enabled && (valid || zero))
            written |= 1ull << l;
    }
    return written;
}

static void dpp_case(uint32_t word)
{
    uint32_t moved[LANES], want[LANES];
    fill_lanes(noise() | noise());
    for (int l = 0; l < LANES; l++) { /* numbers for the sum of floats */
        IN(8)[l] = bits_of((float)(l * 37 % 91) - 45);
        IN(10)[l] = bits_of((float)(l * 11 % 29) - 14);
    }
    uint64_t written = dpp_lanes(word, IN(8), moved);
    RUN(false, VOP1(v_mov_b32, 14, 250), word | 8);
    check_lanes("v_mov_b32_dpp", (int)word, moved, written);
    for (int l = 0; l < LANES; l++)
        want[l] = moved[l] - IN(10)[l];
    RUN(false, VOP2(v_sub_u32, 14, 250, V10), word | 8);
    check_lanes("v_sub_u32_dpp", (int)word, want, written);
    for (int l = 0; l < LANES; l++) /* -|a| + |b| */
        want[l] = bits_of(-fabsf(float_of(moved[l])) + fabsf(float_of(IN(10)[l])));
    RUN(false, VOP2(v_add_f32, 14, 250, V10), word | 8 | 1 << 20 | 1 << 21 | 1 << 23);
    check_lanes("v_add_f32_dpp", (int)word, want, written);
    for (int l = 0; l < LANES; l++)
        want[l] = r->in->vector.vcc >> l & 1 ? IN(10)[l] : moved[l];
    RUN(false, VOP2(v_cndmask_b32, 14, 250, V10), word | 8);
    check_lanes("v_cndmask_b32_dpp", (int)word, want, written);
    RUN(false, VOP2(v_addc_co_u32, 14, 250, V10), word | 8);
    uint64_t carry = r->in->vector.vcc & ~written;
    for (int l = 0; l < LANES; l++) {
        uint64_t sum = (uint64_t)moved[l] + IN(10)[l] + (r->in->vector.vcc >> l & 1);
        want[l] = (uint32_t)sum;
        carry |= (sum >> 32) << l & written;
    }
    check_lanes("v_addc_co_u32_dpp", (int)word, want, written);
}

void test_dpp(void **state)
{
    (void)state;
    for (uint32_t control = 0; control < 0x160; control++) {
        if (!dpp_exists((int)control))
            continue;
        dpp_case(control << 8 | 0xff000000); /* every row and bank */
        dpp_case(control << 8 | 0xff000000 | 1 << 19);
        dpp_case(control << 8 | (uint32_t)noise() << 24);
        dpp_case(control << 8 | (uint32_t)noise() << 24 | 1 << 19);
    }
}

/* ---- SDWA ---- */

static uint32_t selected(uint32_t v, unsigned select, bool extend)
{
    static const unsigned at[] = {0, 8, 16, 24, 0, 16, 0}, size[] = {8, 8, 8, 8, 16, 16, 32};
    uint64_t part = v >> at[select] & ((1ull << size[select]) - 1);
    if (extend && part >> (size[select] - 1))
        part |= ~0ull << size[select];
    return (uint32_t)part;
}

/* unused: 0 zeros, 1 the sign upward and zeros downward, 2 as it was */
static uint32_t inserted(uint32_t v, unsigned select, unsigned unused, uint32_t old)
{
    static const unsigned at[] = {0, 8, 16, 24, 0, 16, 0}, size[] = {8, 8, 8, 8, 16, 16, 32};
    uint64_t mask = ((1ull << size[select]) - 1) << at[select];
    uint64_t part = (uint64_t)v << at[select] & mask;
    if (unused == 2)
        part |= old & ~mask;
    if (unused == 1 && part >> (at[select] + size[select] - 1) & 1)
        part |= ~0ull << (at[select] + size[select]);
    return (uint32_t)part;
}

static void sdwa_integers(unsigned s0, unsigned s1, unsigned to, unsigned unused, unsigned extend)
{
    uint32_t word =
        8 | to << 8 | unused << 11 | s0 << 16 | (extend & 1) << 19 | s1 << 24 | (extend >> 1) << 27;
    uint32_t want[LANES];
    uint64_t less = 0, exec = noise();
    fill_lanes(exec);
    for (int l = 0; l < LANES; l++) {
        uint32_t a = selected(IN(8)[l], s0, extend & 1), b = selected(IN(10)[l], s1, extend >> 1);
        want[l] = inserted(a + b, to, unused, IN(14)[l]);
        less |= (uint64_t)((int32_t)a < (int32_t)b) << l;
    }
    RUN(false, VOP2(v_add_u32, 14, 249, V10), word);
    check_lanes("v_add_u32_sdwa", (int)word, want, exec);
    RUN(false, VOPC(v_cmp_lt_i32, 249, V10), (word & ~0xff00u));
    assert_int_equal(r->out->vector.vcc, less & exec);
    for (int l = 0; l < LANES; l++)
        want[l] = inserted(selected(IN(8)[l], s0, extend & 1), to, unused, IN(14)[l]);
    RUN(false, VOP1(v_mov_b32, 14, 249), word & 0xffffff);
    check_lanes("v_mov_b32_sdwa", (int)word, want, exec);
    for (int l = 0; l < LANES; l++) {
        uint32_t a = selected(IN(8)[l], s0, extend & 1), b = selected(IN(10)[l], s1, extend >> 1);
        want[l] = inserted(r->in->vector.vcc >> l & 1 ? b : a, to, unused, IN(14)[l]);
    }
    if (extend) /* its sources are signed as floats are */
        return;
    RUN(false, VOP2(v_cndmask_b32, 14, 249, V10), word);
    check_lanes("v_cndmask_b32_sdwa", (int)word, want, exec);
}

/* Whole numbers below 2048 as f16. */
static uint32_t half_of(int n)
{
    int e = 0, m = n < 0 ? -n : n;
    if (!m)
        return 0;
    while (m >> (e + 1))
        e++;
    return (n < 0 ? 0x8000u : 0) | (uint32_t)(e + 15) << 10 | ((uint32_t)m << (10 - e) & 1023);
}

static void sdwa_halves(unsigned s0, unsigned s1, unsigned to, unsigned signs)
{
    uint32_t word = 8 | (4 + to) << 8 | 2 << 11 | (4 + s0) << 16 | (signs & 3) << 20 |
                    (4 + s1) << 24 | signs >> 2 << 28;
    uint32_t want[LANES];
    fill_lanes(UINT64_MAX);
    for (int l = 0; l < LANES; l++) {
        int a[2] = {l * 5 - 99, 77 - l * 3}, b[2] = {l - 20, 31 - l};
        IN(8)[l] = half_of(a[0]) | half_of(a[1]) << 16;
        IN(10)[l] = half_of(b[0]) | half_of(b[1]) << 16;
        int x = signs & 2 ? abs(a[s0]) : a[s0], y = signs & 8 ? abs(b[s1]) : b[s1];
        x = signs & 1 ? -x : x;
        y = signs & 4 ? -y : y;
        want[l] = inserted(half_of(x + y), 4 + to, 2, IN(14)[l]);
    }
    RUN(false, VOP2(v_add_f16, 14, 249, V10), word);
    check_lanes("v_add_f16_sdwa", (int)word, want, UINT64_MAX);
}

void test_sdwa(void **state)
{
    (void)state;
    for (unsigned s0 = 0; s0 < 7; s0++)
        for (unsigned s1 = 0; s1 < 7; s1++)
            for (unsigned extend = 0; extend < 4; extend++)
                sdwa_integers(s0, s1, (s0 + s1 + extend) % 7, (s0 + extend) % 3, extend);
    for (unsigned to = 0; to < 7; to++)
        for (unsigned unused = 0; unused < 3; unused++)
            sdwa_integers(to, 6 - to, to, unused, 3);
    for (unsigned k = 0; k < 128; k++)
        sdwa_halves(k & 1, k >> 1 & 1, k >> 2 & 1, k >> 3);
}

/* ---- LDS as an exchange ---- */

static void check_swizzle(uint32_t pattern, const int source[32])
{
    uint32_t want[LANES];
    fill_lanes(noise() | noise());
    uint64_t exec = r->in->vector.exec;
    for (int l = 0; l < LANES; l++) {
        int s = l / 32 * 32 + source[l % 32];
        want[l] = exec >> s & 1 ? IN(8)[s] : 0;
    }
    RUN(false, DS(ds_swizzle_b32, 14, 8, 0, pattern), SOPP(s_waitcnt, 0));
    check_lanes("ds_swizzle_b32", (int)pattern, want, exec);
}

void test_swizzle(void **state)
{
    /* AMD's table of lanes, counted from 1, of the patterns for an FFT. */
    static const struct {
        uint32_t mask;
        int from[32];
    } fft[] = {{0x00, {0x1,  0x11, 0x9,  0x19, 0x5,  0x15, 0xd,  0x1d, 0x3,  0x13, 0xb,
                       0x1b, 0x7,  0x17, 0xf,  0x1f, 0x2,  0x12, 0xa,  0x1a, 0x6,  0x16,
                       0xe,  0x1e, 0x4,  0x14, 0xc,  0x1c, 0x8,  0x18, 0x10, 0x20}},
               {0x10, {0x1,  0x9,  0x5,  0xd,  0x3,  0xb,  0x7,  0xf,  0x2,  0xa,  0x6,
                       0xe,  0x4,  0xc,  0x8,  0x10, 0x11, 0x19, 0x15, 0x1d, 0x13, 0x1b,
                       0x17, 0x1f, 0x12, 0x1a, 0x16, 0x1e, 0x14, 0x1c, 0x18, 0x20}}};
    int source[32];
    (void)state;
    for (int k = 0; k < 2; k++) {
        for (int l = 0; l < 32; l++)
            source[l] = fft[k].from[l] - 1;
        check_swizzle(0xe000 | fft[k].mask, source);
    }
    for (int l = 0; l < 32; l++) /* 0x1f: none */
        source[l] = l;
    check_swizzle(0xe01f, source);
    for (unsigned n = 0; n < 64; n++) { /* each lane n further, or back; 5 bits */
        for (int l = 0; l < 32; l++)
            source[l] = (n & 32 ? l + 32 - (int)(n & 31) : l + (int)n) % 32;
        check_swizzle(0xc000 | n << 5, source);
    }
    for (int l = 0; l < 32; l++) /* 2 further within quarters of 8 lanes */
        source[l] = l / 8 * 8 + (l + 2) % 8;
    check_swizzle(0xc000 | 2 << 5 | 0x18, source);
    for (unsigned quad = 0; quad < 256; quad += 5) {
        int of[4] = {quad & 3, quad >> 2 & 3, quad >> 4 & 3, quad >> 6 & 3};
        for (int l = 0; l < 32; l++)
            source[l] = l - l % 4 + of[l % 4];
        check_swizzle(0x8000 | quad, source);
    }
    for (unsigned bit = 1; bit < 32; bit <<= 1) { /* one bit at a time: kept, set, turned over */
        unsigned other = (unsigned)noise() & 31;
        for (int l = 0; l < 32; l++)
            source[l] = (int)(((unsigned)l & bit) | other) ^ (int)(bit ^ 31);
        check_swizzle(bit | other << 5 | (bit ^ 31) << 10, source);
    }
    instruction_covered("ds_swizzle_b32");
}

void test_permute(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 32; k++) {
        uint32_t want[LANES] = {0}, offset = k % 4 * 24;
        fill_lanes(k ? noise() | noise() : UINT64_MAX);
        uint64_t exec = r->in->vector.exec;
        for (int l = 0; l < LANES; l++) /* lanes that send: the highest wins */
            if (exec >> l & 1)
                want[(IN(8)[l] + offset) / 4 % 64] = IN(10)[l];
        RUN(false, DS(ds_permute_b32, 14, 8, 10, offset), SOPP(s_waitcnt, 0));
        check_lanes("ds_permute_b32", (int)k, want, exec);
        for (int l = 0; l < LANES; l++) { /* lanes that fetch: from one that is off, 0 */
            uint32_t from = (IN(8)[l] + offset) / 4 % 64;
            want[l] = exec >> from & 1 ? IN(10)[from] : 0;
        }
        RUN(false, DS(ds_bpermute_b32, 14, 8, 10, offset), SOPP(s_waitcnt, 0));
        check_lanes("ds_bpermute_b32", (int)k, want, exec);
    }
    instruction_covered("ds_permute_b32");
    instruction_covered("ds_bpermute_b32");
}

/* ---- moves ---- */

void test_moves(void **state)
{
    uint64_t exec = noise();
    (void)state;
    fill_lanes(exec);
    RUN(false, VOP1(v_swap_b32, 14, V8), SOP1(s_mov_b64, EXEC, 193), VOP1(v_mov_b32, 15, V8));
    check_lanes("v_swap_b32", 0, IN(8), exec);
    for (int l = 0; l < LANES; l++)
        assert_int_equal(OUT(15)[l], exec >> l & 1 ? IN(14)[l] : IN(8)[l]);
    fill_lanes(UINT64_MAX); /* v8 to a3, a3 to a5; both back */
    RUN(false, 0xd3d94003, 0x18000000 | V8, VOP1(v_accvgpr_mov_b32, 5, V + 3), 0xd3d8400e,
        0x18000103, 0xd3d8400f, 0x18000105);
    check_lanes("v_accvgpr_read_b32", 0, IN(8), UINT64_MAX);
    assert_memory_equal(OUT(15), IN(8), sizeof IN(8));
    exec = noise();
    fill_lanes(exec); /* a3 was written before under all lanes */
    RUN(false, SOP1(s_mov_b64, S20, EXEC), SOP1(s_mov_b64, EXEC, 193), 0xd3d94003, 0x18000000 | V9,
        SOP1(s_mov_b64, EXEC, S20), 0xd3d94003, 0x18000000 | V8, SOP1(s_mov_b64, EXEC, 193),
        0xd3d8400f, 0x18000103);
    for (int l = 0; l < LANES; l++)
        assert_int_equal(OUT(15)[l], exec >> l & 1 ? IN(8)[l] : IN(9)[l]);
    instruction_covered("v_swap_b32");
    instruction_covered("v_accvgpr_write_b32");
    instruction_covered("v_accvgpr_read_b32");
    instruction_covered("v_accvgpr_mov_b32");
}

/* ---- tables ---- */

static void test_offsets(void)
{
    static const float table[] = {0,      0.0625f,  0.125f,  0.1875f,  0.25f,   0.3125f,
                                  0.375f, 0.4375f,  -0.5f,   -0.4375f, -0.375f, -0.3125f,
                                  -0.25f, -0.1875f, -0.125f, -0.0625f};
    uint32_t want[LANES];
    fill_lanes(UINT64_MAX);
    for (int l = 0; l < LANES; l++)
        want[l] = bits_of(table[IN(8)[l] & 15]);
    RUN(false, VOP1(v_cvt_off_f32_i4, 14, V8));
    check_lanes("v_cvt_off_f32_i4", 0, want, UINT64_MAX);
    instruction_covered("v_cvt_off_f32_i4");
}

/* Results are LLVM's, which folds the intrinsic of constants. */
static void test_trig_preop(void)
{
    static const struct {
        uint64_t of;
        uint32_t segment;
        uint64_t want;
    } known[] = {
        {0x3ff0000000000000, 0, 0x3fe45f306dc9c882},  {0x3ff0000000000000, 1, 0x3c94a7f09d5f47d4},
        {0x3ff0000000000000, 2, 0x394a6ee06db14acc},  {0x3ff0000000000000, 5, 0x2f42371d2126e970},
        {0x3ff0000000000000, 17, 0x079d18fd9a797fa8}, {0x3ff0000000000000, 18, 0x0446ba93dd63f5f2},
        {0x3ff0000000000000, 19, 0x00ff17b3d0739f78}, {0x3ff0000000000000, 22, 0},
        {0x4350000000000000, 2, 0x394a6ee06db14acc},  {0x4370123456789abc, 0, 0x3fc17cc1b727220a},
        {0x4370123456789abc, 5, 0x2f11b8e909374b80},  {0x4370123456789abc, 17, 0x077463f669e5fea2},
        {0x7b00000000000000, 0, 0x10374f463f669e5f},  {0x7b00000000000000, 2, 0x098f2f8bd9e839ce},
        {0x7fefffffffffffff, 0, 0x0b43dd63f5f2f8bc},  {0x7fefffffffffffff, 1, 0x0809e839cfbc5294},
        {0x7fefffffffffffff, 2, 0x04b2ea6bfb5fb11f},  {0xc4f0000000000000, 0, 0x3e4727220a94fe13},
        {0xc4f0000000000000, 17, 0x05e3cbfd45aea4f6}, {0xc4f0000000000000, 31, 0}};
    enum { KNOWN = sizeof known / sizeof known[0] };
    fill_lanes(UINT64_MAX);
    for (unsigned l = 0; l < KNOWN; l++) {
        IN(8)[l] = (uint32_t)known[l].of;
        IN(9)[l] = (uint32_t)(known[l].of >> 32);
        IN(10)[l] = known[l].segment;
    }
    RUN(false, VOP3(v_trig_preop_f64, 14, V8, V10, 0));
    for (unsigned l = 0; l < KNOWN; l++) {
        uint64_t got = OUT(14)[l] | (uint64_t)OUT(15)[l] << 32;
        if (got != known[l].want)
            fail_msg("v_trig_preop_f64 of %llx, %u: %llx", (unsigned long long)known[l].of,
                     known[l].segment, (unsigned long long)got);
    }
    instruction_covered("v_trig_preop_f64");
}

/* Sums of |a - b| over bytes of which b's is not zero: four, each a byte further on in a. */
static void test_mqsad(void)
{
    fill_lanes(UINT64_MAX);
    for (int l = 0; l < LANES; l += 3)
        IN(10)[l] &= 0xff00ffff;
    for (int pair = 0; pair < 2; pair++) {
        /* v[20:23] gets v[12:15] added */
        RUN(false, VOP3(v_mqsad_u32_u8, 20, V8, V10, V + 12),
            VOP1(v_mov_b32, 14, V + 20 + 2 * pair), VOP1(v_mov_b32, 15, V + 21 + 2 * pair));
        for (int l = 0; l < LANES; l++)
            for (int k = 2 * pair; k < 2 * pair + 2; k++) {
                uint8_t a[8], b[4];
                uint32_t sum = IN(12 + k)[l];
                memcpy(a, &IN(8)[l], 4);
                memcpy(a + 4, &IN(9)[l], 4);
                memcpy(b, &IN(10)[l], 4);
                for (int n = 0; n < 4; n++)
                    sum += b[n] ? (uint32_t)abs(a[k + n] - b[n]) : 0;
                assert_int_equal(OUT(14 + k % 2)[l], sum);
            }
    }
    instruction_covered("v_mqsad_u32_u8");
}

void test_tables(void **state)
{
    (void)state;
    test_offsets();
    test_trig_preop();
    test_mqsad();
}

/* ---- the program counter ---- */

/* s12 is 1, or 2 if the branch after which that is set was not taken. */
#define TAKEN(...) SOP1(s_mov_b32, 12, ONE), __VA_ARGS__, SOP1(s_mov_b32, 12, TWO)
#define CHECK_TAKEN(name, condition, ...)                                                          \
    do {                                                                                           \
        RUN(true, TAKEN(__VA_ARGS__ SOPP(name, 1)));                                               \
        for (int g = 0; g < GROUPS; g++)                                                           \
            assert_int_equal((uint32_t)r->out->scalar[g][0], (condition) ? 1 : 2);                 \
        instruction_covered(#name);                                                                \
    } while (0)

static void test_branches(void)
{
    fill_groups();
    for (int g = 0; g < GROUPS; g++) {
        r->in->scalar[g][0] = g % 3 ? 1ull << (2 * g) : 0;
        r->in->scalar[g][3] = g % 2;
    }
#define SCC(g) (g % 2)
#define MASK(g) r->in->scalar[g][0]
    CHECK_TAKEN(s_branch, true, );
    CHECK_TAKEN(s_cbranch_scc0, !SCC(g), );
    CHECK_TAKEN(s_cbranch_scc1, SCC(g), );
    CHECK_TAKEN(s_cbranch_vccz, !MASK(g), SOP1(s_mov_b64, VCC, 8), );
    CHECK_TAKEN(s_cbranch_vccnz, MASK(g), SOP1(s_mov_b64, VCC, 8), );
    CHECK_TAKEN(s_cbranch_execz, !MASK(g), SOP1(s_mov_b64, EXEC, 8), );
    CHECK_TAKEN(s_cbranch_execnz, MASK(g), SOP1(s_mov_b64, EXEC, 8), );
    CHECK_TAKEN(s_cbranch_cdbgsys, false, ); /* no debugger is there */
    CHECK_TAKEN(s_cbranch_cdbguser, false, );
    CHECK_TAKEN(s_cbranch_cdbgsys_or_user, false, );
    CHECK_TAKEN(s_cbranch_cdbgsys_and_user, false, );
#undef SCC
#undef MASK
    /* backwards: 3, 2, 1 */
    RUN(true, SOP1(s_mov_b32, 12, 128), SOP1(s_mov_b32, S20, 131), SOP2(s_lshl_b32, 12, 12, 132),
        SOP2(s_or_b32, 12, 12, S20), SOP2(s_sub_u32, S20, S20, ONE), SOPC(s_cmp_lg_u32, S20, 128),
        SOPP(s_cbranch_scc1, -5));
    assert_int_equal((uint32_t)r->out->scalar[0][0], 0x321);
}

static void expect_pc(uint64_t want, const char *name)
{
    for (int g = 0; g < GROUPS; g++)
        if (r->out->scalar[g][0] != want)
            fail_msg("%s: 0x%llx, not 0x%llx", name, (unsigned long long)r->out->scalar[g][0],
                     (unsigned long long)want);
    instruction_covered(name);
}

void test_flow(void **state)
{
    (void)state;
    test_branches();
    RUN(true, SOP1(s_getpc_b64, 12, 0));
    expect_pc(address(true, 1), "s_getpc_b64");
    RUN(true, SOP1(s_getpc_b64, 12, 0), SOP2(s_add_u32, S20, 12, 144),
        SOP2(s_addc_u32, 21, 13, 128), SOP1(s_setpc_b64, 0, S20), SOP1(s_mov_b32, 12, TWO));
    expect_pc(address(true, 1), "s_setpc_b64");
    RUN(true, SOP1(s_getpc_b64, 12, 0), SOP2(s_add_u32, S20, 12, 144),
        SOP2(s_addc_u32, 21, 13, 128), SOP1(s_swappc_b64, 12, S20), SOP1(s_mov_b32, 12, TWO));
    expect_pc(address(true, 4), "s_swappc_b64");
    RUN(true, SOPK(s_call_b64, 12, 1), SOP1(s_mov_b32, 12, TWO));
    expect_pc(address(true, 1), "s_call_b64");
    RUN(true, SOPP(s_endpgm, 0)); /* nothing is stored */
    expect_pc(0, "s_endpgm");
    RUN(true, SOPP(s_endpgm_saved, 0));
    expect_pc(0, "s_endpgm_saved");
}

/* ---- registers by number ---- */

static void test_relative_scalars(void)
{
    fill_groups();
    RUN(true, SOP1(s_mov_b32, M0, TWO), SOP1(s_movrels_b32, 12, 8));
    for (int g = 0; g < GROUPS; g++)
        assert_int_equal((uint32_t)r->out->scalar[g][0], (uint32_t)r->in->scalar[g][1]);
    RUN(true, SOP1(s_mov_b32, M0, TWO), SOP1(s_movrels_b64, 12, 8));
    for (int g = 0; g < GROUPS; g++)
        assert_int_equal(r->out->scalar[g][0], r->in->scalar[g][1]);
    RUN(true, SOP1(s_mov_b32, M0, ONE), SOP1(s_movreld_b32, 12, 8));
    for (int g = 0; g < GROUPS; g++)
        assert_int_equal(r->out->scalar[g][0],
                         (uint32_t)r->in->scalar[g][2] | r->in->scalar[g][0] << 32);
    RUN(true, SOP1(s_mov_b32, M0, TWO), SOP1(s_movreld_b64, 10, 8));
    for (int g = 0; g < GROUPS; g++)
        assert_int_equal(r->out->scalar[g][0], r->in->scalar[g][0]);
    instruction_covered("s_movrels_b32");
    instruction_covered("s_movrels_b64");
    instruction_covered("s_movreld_b32");
    instruction_covered("s_movreld_b64");
}

void test_relative(void **state)
{
    uint32_t want[LANES];
    (void)state;
    test_relative_scalars();
    fill_lanes(UINT64_MAX); /* the first source one further: v9 - v10 */
    RUN(false, SOP1(s_mov_b32, S20, ONE), SOPC(s_set_gpr_idx_on, S20, 1),
        VOP2(v_sub_u32, 14, V8, V10), SOPP(s_set_gpr_idx_off, 0), VOP1(v_mov_b32, 15, V8));
    for (int l = 0; l < LANES; l++)
        want[l] = IN(9)[l] - IN(10)[l];
    check_lanes("s_set_gpr_idx_on", 1, want, UINT64_MAX);
    assert_memory_equal(OUT(15), IN(8), sizeof IN(8)); /* off again */
    /* then the second, two further; then the destination, five further */
    RUN(false, SOP1(s_mov_b32, S20, TWO), SOPC(s_set_gpr_idx_on, S20, 2),
        VOP2(v_sub_u32, 14, V8, V10), SOPP(s_set_gpr_idx_mode, 8), SOP1(s_set_gpr_idx_idx, 0, 133),
        VOP2(v_sub_u32, 10, V9, V10), SOPP(s_set_gpr_idx_off, 0));
    for (int l = 0; l < LANES; l++) {
        want[l] = IN(8)[l] - IN(12)[l];
        assert_int_equal(OUT(15)[l], IN(9)[l] - IN(10)[l]);
    }
    check_lanes("s_set_gpr_idx_on", 2, want, UINT64_MAX);
    /* Of those that the manual gives a meaning of their own there, none runs as if it were plain.
     */
    const uint32_t other[] = {VOP2(v_fmac_f32, 14, V8, 10), VOP2(v_lshlrev_b32, 14, V8, 10),
                              VOP2(v_cndmask_b32, 14, V8, 10), VOP1(v_readfirstlane_b32, 20, V8)};
    for (size_t k = 0; k < sizeof other / sizeof other[0]; k++) {
        struct instruction i = {.name = "relative",
                                .words = {SOPC(s_set_gpr_idx_on, 128, 1), other[k]},
                                .count = 2,
                                .mode = USUAL_MODE};
        struct va_fault fault;
        assert_false(instruction_run(&i, &fault));
        assert_non_null(strstr(fault.text, "not implemented"));
    }
    /* M0 has the index in bits 0-7, what it is for in 12-15; the rest stays */
    fill_groups();
    RUN(true, SOP1(s_mov_b32, M0, 8), SOPC(s_set_gpr_idx_on, 10, 9), SOPP(s_set_gpr_idx_off, 0),
        SOP1(s_mov_b32, 12, M0));
    for (int g = 0; g < GROUPS; g++)
        assert_int_equal((uint32_t)r->out->scalar[g][0],
                         ((uint32_t)r->in->scalar[g][0] & 0xffff0f00) |
                             (r->in->scalar[g][1] & 0xff) | 9 << 12);
    instruction_covered("s_set_gpr_idx_on");
    instruction_covered("s_set_gpr_idx_off");
    instruction_covered("s_set_gpr_idx_idx");
    instruction_covered("s_set_gpr_idx_mode");
}

/* A field of a hardware register. */
#define FIELD(id, shift, width) ((id) | (shift) << 6 | ((width)-1) << 11)

void test_machine_registers(void **state)
{
    (void)state;
    fill_groups();
    for (unsigned shift = 0; shift < 10; shift += 3) {
        unsigned width = shift + 2;
        RUN(true, SOPK(s_getreg_b32, 12, FIELD(MODE_REGISTER, shift, width)));
        for (int g = 0; g < GROUPS; g++)
            assert_int_equal((uint32_t)r->out->scalar[g][0],
                             USUAL_MODE >> shift & ((1u << width) - 1));
    }
    RUN(true, SOPK(s_setreg_imm32_b32, 0, FIELD(MODE_REGISTER, 4, 4)), 0x35,
        SOPK(s_getreg_b32, 12, FIELD(MODE_REGISTER, 0, 32)));
    for (int g = 0; g < GROUPS; g++)
        assert_int_equal((uint32_t)r->out->scalar[g][0], (USUAL_MODE & ~0xf0) | 0x50);
    RUN(true, SOPK(s_setreg_b32, 8, FIELD(MODE_REGISTER, 2, 3)),
        SOPK(s_getreg_b32, 12, FIELD(MODE_REGISTER, 0, 32)));
    for (int g = 0; g < GROUPS; g++)
        assert_int_equal((uint32_t)r->out->scalar[g][0],
                         (USUAL_MODE & ~0x1cu) | ((uint32_t)r->in->scalar[g][0] & 7) << 2);
    RUN(true, SOPC(s_cmp_lg_u32, 8, 8), SOPK(s_getreg_b32, 12, FIELD(STATUS_REGISTER, 0, 1)));
    assert_int_equal((uint32_t)r->out->scalar[0][0], 0); /* SCC */
    RUN(true, SOPC(s_cmp_eq_u32, 8, 8), SOPK(s_getreg_b32, 12, FIELD(STATUS_REGISTER, 0, 1)));
    assert_int_equal((uint32_t)r->out->scalar[0][0], 1);
    RUN(true, SOP1(s_mov_b64, EXEC, 128), SOP1(s_mov_b64, VCC, 193),
        SOPK(s_getreg_b32, 12, FIELD(STATUS_REGISTER, 9, 2)));
    assert_int_equal((uint32_t)r->out->scalar[0][0], 1); /* EXECZ, not VCCZ */
    /* what is set has an effect: 1 + 2^-24 rounded up */
    fill_lanes(UINT64_MAX);
    for (int l = 0; l < LANES; l++)
        IN(8)[l] = bits_of(0x1p-24f);
    RUN(false, SOPK(s_setreg_imm32_b32, 0, FIELD(MODE_REGISTER, 0, 2)), 1,
        VOP2(v_add_f32, 14, 242, V8), SOPK(s_setreg_imm32_b32, 0, FIELD(MODE_REGISTER, 0, 2)), 0,
        VOP2(v_add_f32, 15, 242, V8));
    assert_int_equal(OUT(14)[5], 0x3f800001);
    assert_int_equal(OUT(15)[5], 0x3f800000);
    instruction_covered("s_getreg_b32");
    instruction_covered("s_setreg_b32");
    instruction_covered("s_setreg_imm32_b32");
}

/* ---- what changes nothing that a kernel sees ---- */

#define NOTHING(encoding, name, word)                                                              \
    do {                                                                                           \
        fill_lanes(noise());                                                                       \
        RUN(false, word);                                                                          \
        check_lanes(#name, 0, IN(14), UINT64_MAX);                                                 \
        assert_int_equal(r->out->vector.vcc, r->in->vector.vcc);                                   \
        assert_int_equal(r->out->vector.exec, r->in->vector.exec);                                 \
        fill_groups();                                                                             \
        RUN(true, word);                                                                           \
        for (int g = 0; g < GROUPS; g++) {                                                         \
            assert_int_equal(r->out->scalar[g][0], r->in->scalar[g][2]);                           \
            assert_int_equal(r->out->scalar[g][1], (uint32_t)r->in->scalar[g][3] != 0);            \
        }                                                                                          \
        instruction_covered(#name);                                                                \
    } while (0)

void test_no_effect(void **state)
{
    (void)state;
    NOTHING(VOP1, v_nop, VOP1(v_nop, 0, 0));
    NOTHING(VOP1, v_clrexcp, VOP1(v_clrexcp, 0, 0));
    NOTHING(SOPP, s_nop, SOPP(s_nop, 7));
    NOTHING(SOPP, s_sleep, SOPP(s_sleep, 1));
    NOTHING(SOPP, s_wakeup, SOPP(s_wakeup, 0));
    NOTHING(SOPP, s_barrier, SOPP(s_barrier, 0));
    NOTHING(SOPP, s_waitcnt, SOPP(s_waitcnt, 0));
    NOTHING(SOPP, s_sethalt, SOPP(s_sethalt, 0));
    NOTHING(SOPP, s_setprio, SOPP(s_setprio, 3));
    NOTHING(SOPP, s_sendmsg, SOPP(s_sendmsg, 1));
    NOTHING(SOPP, s_icache_inv, SOPP(s_icache_inv, 0));
    NOTHING(SOPP, s_incperflevel, SOPP(s_incperflevel, 1));
    NOTHING(SOPP, s_decperflevel, SOPP(s_decperflevel, 1));
    NOTHING(SOPP, s_ttracedata, SOPP(s_ttracedata, 0));
}
