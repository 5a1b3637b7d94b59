/* Text as LLVM writes it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../machine.h"
#include "decode.h"

struct out {
    char *at;
    size_t left;
    unsigned operands;
};

static void put(struct out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct out *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(o->at, o->left, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= o->left)
        n = (int)o->left - 1;
    o->at += n;
    o->left -= (size_t)n;
}

static void separate(struct out *o)
{
    put(o, o->operands++ ? ", " : " ");
}

enum type { INTEGER, FLOAT, HALF, DOUBLE, SHORT };

static enum type type_of(const struct va_insn *i, int which)
{
    const char *name = va_rows[i->op].name;
    size_t n = strlen(name);
    unsigned width = which == 0 ? i->wa : which == 1 ? i->wb : i->wc;
    if (i->encoding <= VA_SMEM)
        return width == 2 ? DOUBLE : INTEGER;
    if (width == 2)
        return DOUBLE;
    if (which == 2 && (i->op == VA_VOP3_v_mad_u32_u16 || i->op == VA_VOP3_v_mad_i32_i16))
        return FLOAT;
    if (n > 4 && (!strcmp(name + n - 4, "_f16") || !strcmp(name + n - 4, "_i16") ||
                  !strcmp(name + n - 4, "_u16") || !strcmp(name + n - 4, "_b16")))
        return !strcmp(name + n - 4, "_f16") ? HALF : SHORT;
    return FLOAT;
}

static void registers(struct out *o, const char *file, unsigned first, unsigned width)
{
    if (width <= 1)
        put(o, "%s%u", file, first);
    else
        put(o, "%s[%u:%u]", file, first, first + width - 1);
}

static void constant(struct out *o, uint32_t code, enum type type)
{
    static const char *const floats[] = {"0.5", "-0.5", "1.0", "-1.0",
                                         "2.0", "-2.0", "4.0", "-4.0"};
    static const uint16_t halves[] = {0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000,
                                      0xc000, 0x4400, 0xc400, 0x3118};
    if (code <= 192)
        put(o, "%u", code - 128);
    else if (code <= 208)
        put(o, "-%u", code - 192);
    else if (type == SHORT)
        put(o, "0x%x", halves[code - 240]);
    else if (code < 248)
        put(o, "%s", floats[code - 240]);
    else
        put(o, "%s", type == DOUBLE ? "0.15915494309189532" : "0.15915494");
}

/* A value that could have been a constant is written like one. */
static void literal(struct out *o, const struct va_insn *i, enum type type)
{
    static const uint32_t floats[] = {0x3f000000, 0xbf000000, 0x3f800000, 0xbf800000, 0x40000000,
                                      0xc0000000, 0x40800000, 0xc0800000, 0x3e22f983};
    uint32_t v = i->literal;
    /* It is part of the instruction. */
    bool fixed = va_rows[i->op].flags & VA_SDST && i->encoding != VA_SOPK;
    if (!fixed && (type == HALF || type == SHORT)) {
        int16_t h = (int16_t)v;
        bool small = type == HALF && h >= -16 && h <= 64;
        put(o, small ? "%d" : "0x%x", small ? h : (int)(v & 0xffff));
        return;
    }
    if (!fixed && (int32_t)v >= -16 && (int32_t)v <= 64) {
        put(o, "%d", (int32_t)v);
        return;
    }
    for (uint32_t k = 0; !fixed && type != DOUBLE && k < 9; k++) {
        if (v == floats[k]) {
            constant(o, 240 + k, type);
            return;
        }
    }
    put(o, "0x%x", v);
}

static void operand(struct out *o, const struct va_insn *i, uint32_t code, unsigned width,
                    enum type type)
{
    static const char *const pairs[] = {"flat_scratch", "xnack_mask", "vcc"};
    if (code >= VA_A0) {
        registers(o, "a", code - VA_A0, width);
    } else if (code >= VA_V0) {
        registers(o, "v", code - VA_V0, width);
    } else if (code < 102) {
        registers(o, "s", code, width);
    } else if (code < 108) {
        if (width == 2)
            put(o, "%s", pairs[(code - 102) / 2]);
        else
            put(o, "%s_%s", pairs[(code - 102) / 2], code & 1 ? "hi" : "lo");
    } else if (code < 124) {
        registers(o, "ttmp", code - 108, width);
    } else if (code == VA_M0) {
        put(o, "m0");
    } else if (code < 128) {
        put(o, width == 2 ? "exec" : code & 1 ? "exec_hi" : "exec_lo");
    } else if (code == VA_LITERAL) {
        literal(o, i, type);
    } else if (code >= 235 && code <= 238) {
        static const char *const bases[] = {"src_shared_base", "src_shared_limit",
                                            "src_private_base", "src_private_limit"};
        put(o, "%s", bases[code - 235]);
    } else if (code >= 251 && code <= 253) {
        static const char *const flags[] = {"src_vccz", "src_execz", "src_scc"};
        put(o, "%s", flags[code - 251]);
    } else {
        constant(o, code, type);
    }
}

static void plain(struct out *o, const struct va_insn *i, uint32_t code, unsigned width,
                  enum type type)
{
    separate(o);
    operand(o, i, code, width, type);
}

/* A source with sign modifiers, or sext() of SDWA. */
static void source(struct out *o, const struct va_insn *i, int which, bool sext)
{
    uint16_t code = which == 0 ? i->a : which == 1 ? i->b : i->c;
    unsigned width = which == 0 ? i->wa : which == 1 ? i->wb : i->wc;
    bool neg = i->neg >> which & 1, abs = i->abs >> which & 1;
    bool immediate = code >= 128 && code < 256 && !(code > 208 && code < 240) &&
                     !(code > 248 && code < VA_LITERAL);
    separate(o);
    if (neg)
        put(o, immediate && !abs ? "neg(" : "-");
    if (abs)
        put(o, "|");
    if (sext)
        put(o, "sext(");
    operand(o, i, code, width, type_of(i, which));
    if (sext)
        put(o, ")");
    if (abs)
        put(o, "|");
    if (neg && immediate && !abs)
        put(o, ")");
}

static void results(struct out *o, const struct va_insn *i)
{
    static const char *const omods[] = {"", " mul:2", " mul:4", " div:2"};
    if (i->clamp)
        put(o, " clamp");
    put(o, "%s", omods[i->omod]);
}

static void array(struct out *o, const char *name, unsigned values, unsigned count)
{
    put(o, " %s:[", name);
    for (unsigned k = 0; k < count; k++)
        put(o, k ? ",%u" : "%u", values >> k & 1);
    put(o, "]");
}

static void waitcnt(struct out *o, uint32_t imm)
{
    uint32_t vm = (imm & 15) | (imm >> 14 & 3) << 4, exp = imm >> 4 & 7, lgkm = imm >> 8 & 15;
    bool all = vm == 63 && exp == 7 && lgkm == 15;
    const char *gap = " ";
    if (vm != 63 || all) {
        put(o, "%svmcnt(%u)", gap, vm);
        gap = " ";
    }
    if (exp != 7 || all)
        put(o, "%sexpcnt(%u)", gap, exp);
    if (lgkm != 15 || all)
        put(o, "%slgkmcnt(%u)", gap, lgkm);
}

static void hwreg(struct out *o, uint32_t imm)
{
    static const char *const names[] = {NULL,
                                        "HW_REG_MODE",
                                        "HW_REG_STATUS",
                                        "HW_REG_TRAPSTS",
                                        "HW_REG_HW_ID",
                                        "HW_REG_GPR_ALLOC",
                                        "HW_REG_LDS_ALLOC",
                                        "HW_REG_IB_STS",
                                        NULL,
                                        NULL,
                                        NULL,
                                        NULL,
                                        NULL,
                                        NULL,
                                        NULL,
                                        "HW_REG_SH_MEM_BASES",
                                        "HW_REG_TBA_LO",
                                        "HW_REG_TBA_HI",
                                        "HW_REG_TMA_LO",
                                        "HW_REG_TMA_HI",
                                        "HW_REG_XCC_ID",
                                        "HW_REG_SQ_PERF_SNAPSHOT_DATA",
                                        "HW_REG_SQ_PERF_SNAPSHOT_DATA1",
                                        "HW_REG_SQ_PERF_SNAPSHOT_PC_LO",
                                        "HW_REG_SQ_PERF_SNAPSHOT_PC_HI"};
    uint32_t id = imm & 63, offset = imm >> 6 & 31, width = (imm >> 11 & 31) + 1;
    separate(o);
    if (id < sizeof names / sizeof names[0] && names[id])
        put(o, "hwreg(%s", names[id]);
    else
        put(o, "hwreg(%u", id);
    if (offset || width != 32)
        put(o, ", %u, %u", offset, width);
    put(o, ")");
}

static void gpr_index(struct out *o, uint32_t modes)
{
    static const char *const names[] = {"SRC0", "SRC1", "SRC2", "DST"};
    const char *gap = "";
    separate(o);
    if (modes > 15) {
        put(o, "0x%x", modes);
        return;
    }
    put(o, "gpr_idx(");
    for (unsigned k = 0; k < 4; k++) {
        if (modes >> k & 1) {
            put(o, "%s%s", gap, names[k]);
            gap = ",";
        }
    }
    put(o, ")");
}

static void sopp(struct out *o, const struct va_insn *i)
{
    uint32_t imm = (uint16_t)i->offset;
    switch (i->op) {
    case VA_SOPP_s_waitcnt:
        waitcnt(o, imm);
        break;
    case VA_SOPP_s_set_gpr_idx_mode:
        gpr_index(o, imm);
        break;
    case VA_SOPP_s_sendmsg:
    case VA_SOPP_s_sendmsghalt: {
        static const char *const names[] = {NULL,
                                            "MSG_INTERRUPT",
                                            "MSG_GS",
                                            "MSG_GS_DONE",
                                            "MSG_SAVEWAVE",
                                            NULL,
                                            "MSG_STALL_WAVE_GEN",
                                            "MSG_HALT_WAVES",
                                            "MSG_ORDERED_PS_DONE",
                                            "MSG_EARLY_PRIM_DEALLOC",
                                            "MSG_GS_ALLOC_REQ",
                                            "MSG_GET_DOORBELL",
                                            "MSG_GET_DDID",
                                            NULL,
                                            NULL,
                                            "MSG_SYSMSG"};
        if (imm < 16 && names[imm] && imm != 2 && imm != 3 && imm != 15)
            put(o, " sendmsg(%s)", names[imm]);
        else if (imm & ~0x37fu)
            put(o, " %u", imm);
        else
            put(o, " sendmsg(%u, %u, %u)", imm & 15, imm >> 4 & 7, imm >> 8 & 3);
        break;
    }
    case VA_SOPP_s_endpgm:
        if (imm)
            put(o, " %u", imm);
        break;
    case VA_SOPP_s_wakeup:
    case VA_SOPP_s_barrier:
    case VA_SOPP_s_icache_inv:
    case VA_SOPP_s_ttracedata:
    case VA_SOPP_s_endpgm_saved:
    case VA_SOPP_s_set_gpr_idx_off:
    case VA_SOPP_s_endpgm_ordered_ps_done:
        break;
    case VA_SOPP_s_trap:
    case VA_SOPP_s_setkill:
    case VA_SOPP_s_sethalt:
    case VA_SOPP_s_sleep:
    case VA_SOPP_s_setprio:
    case VA_SOPP_s_incperflevel:
    case VA_SOPP_s_decperflevel:
    case VA_SOPP_s_nop:
        put(o, imm <= 64 ? " %u" : " 0x%x", imm);
        break;
    default:
        put(o, " %u", imm);
    }
}

static void sopk(struct out *o, const struct va_insn *i)
{
    uint32_t imm = (uint16_t)i->offset;
    if (i->op == VA_SOPK_s_setreg_b32) {
        hwreg(o, imm);
        plain(o, i, i->d, 1, INTEGER);
    } else if (i->op == VA_SOPK_s_setreg_imm32_b32) {
        hwreg(o, imm);
        put(o, ", ");
        literal(o, i, INTEGER);
    } else {
        plain(o, i, i->d, i->wd, INTEGER);
        if (i->op == VA_SOPK_s_getreg_b32)
            hwreg(o, imm);
        else if (i->op == VA_SOPK_s_call_b64 || i->op == VA_SOPK_s_cbranch_i_fork)
            put(o, ", %u", imm);
        else
            put(o, ", 0x%x", imm);
    }
}

static void scalar(struct out *o, const struct va_insn *i)
{
    if (i->encoding == VA_SOPP) {
        sopp(o, i);
    } else if (i->encoding == VA_SOPK) {
        sopk(o, i);
    } else {
        if (i->d != VA_NONE)
            plain(o, i, i->d, i->wd, INTEGER);
        if (i->a != VA_NONE)
            plain(o, i, i->a, i->wa, type_of(i, 0));
        if (i->op == VA_SOPC_s_set_gpr_idx_on)
            gpr_index(o, (uint32_t)i->offset);
        else if (i->b != VA_NONE)
            plain(o, i, i->b, i->wb, type_of(i, 1));
    }
}

static void smem(struct out *o, const struct va_insn *i)
{
    if (i->op == VA_SMEM_s_atc_probe || i->op == VA_SMEM_s_atc_probe_buffer)
        put(o, (i->raw[0] >> 6 & 127) <= 64 ? " %u" : " 0x%x", i->raw[0] >> 6 & 127), o->operands++;
    else if (i->d != VA_NONE && i->wd)
        plain(o, i, i->d, i->wd, INTEGER);
    if (i->a == VA_NONE)
        return;
    plain(o, i, i->a, i->wa, INTEGER);
    bool imm = i->raw[0] >> 17 & 1;
    if (i->b != VA_NONE) {
        plain(o, i, i->b, 1, INTEGER);
        if (imm)
            put(o, " offset:%s0x%x", i->offset < 0 ? "-" : "",
                (unsigned)(i->offset < 0 ? -i->offset : i->offset));
    } else {
        put(o, ", %s0x%x", i->offset < 0 ? "-" : "",
            (unsigned)(i->offset < 0 ? -i->offset : i->offset));
    }
    if (i->raw[0] >> 16 & 1 && (i->wd || !strncmp(va_rows[i->op].name, "s_store", 7)))
        put(o, " glc");
}

static void sdwa(struct out *o, const struct va_insn *i)
{
    static const char *const parts[] = {"BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3",
                                        "WORD_0", "WORD_1", "DWORD",  "?"};
    static const char *const unused[] = {"UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE", "?"};
    uint32_t w = i->raw[1];
    if (i->encoding != VA_VOPC && !va_reads_part(i->op))
        put(o, " dst_sel:%s dst_unused:%s", parts[w >> 8 & 7], unused[w >> 11 & 3]);
    put(o, " src0_sel:%s", parts[w >> 16 & 7]);
    if (i->b != VA_NONE)
        put(o, " src1_sel:%s", parts[w >> 24 & 7]);
}

static void dpp(struct out *o, const struct va_insn *i)
{
    uint32_t w = i->raw[1], c = w >> 8 & 511;
    if (c < 0x100)
        put(o, " quad_perm:[%u,%u,%u,%u]", c & 3, c >> 2 & 3, c >> 4 & 3, c >> 6);
    else if (c < 0x110)
        put(o, " row_shl:%u", c & 15);
    else if (c < 0x120)
        put(o, " row_shr:%u", c & 15);
    else if (c < 0x130)
        put(o, " row_ror:%u", c & 15);
    else if (c == 0x130)
        put(o, " wave_shl:1");
    else if (c == 0x134)
        put(o, " wave_rol:1");
    else if (c == 0x138)
        put(o, " wave_shr:1");
    else if (c == 0x13c)
        put(o, " wave_ror:1");
    else if (c == 0x140)
        put(o, " row_mirror");
    else if (c == 0x141)
        put(o, " row_half_mirror");
    else if (c < 0x144)
        put(o, " row_bcast:%u", c == 0x142 ? 15 : 31);
    else
        put(o, " row_newbcast:%u", c & 15);
    put(o, " row_mask:0x%x bank_mask:0x%x", w >> 28, w >> 24 & 15);
    if (w >> 19 & 1)
        put(o, " bound_ctrl:1");
}

/* op_sel of VOP3: one bit a source, then the destination's. */
static void vop3_opsel(struct out *o, const struct va_insn *i)
{
    unsigned sources = 1u + (i->b != VA_NONE) + (i->c != VA_NONE && va_rows[i->op].c);
    unsigned values = (i->opsel & ((1u << sources) - 1)) | (i->opsel >> 3 & 1) << sources;
    if (i->op == VA_VOP3_v_cvt_sr_fp8_f32 || i->op == VA_VOP3_v_cvt_sr_bf8_f32) {
        values = i->opsel;
        sources = 3;
    }
    if (i->opsel)
        array(o, "op_sel", values, sources + 1);
}

static void vector(struct out *o, const struct va_insn *i)
{
    const struct va_row *row = &va_rows[i->op];
    uint32_t w1 = i->raw[1];
    bool is_sdwa = i->extension == VA_IS_SDWA;
    if (i->d != VA_NONE)
        plain(o, i, i->d, i->wd, INTEGER);
    if (i->sd != VA_NONE)
        plain(o, i, i->sd, 2, INTEGER);
    if (i->a == VA_NONE)
        return;
    bool integer_sext = !(row->flags & (VA_ABS | VA_NEG));
    source(o, i, 0, is_sdwa && integer_sext && w1 >> 19 & 1);
    if (i->b != VA_NONE)
        source(o, i, 1, is_sdwa && (integer_sext || va_second_is_integer(i->op)) && w1 >> 27 & 1);
    bool accumulates = row->encoding == VA_VOP2 && i->c == i->d && i->b != VA_LITERAL;
    if (i->c != VA_NONE && !accumulates && i->op != VA_VOP3_v_writelane_b32 &&
        i->op != VA_VOP3_v_cvt_pkaccum_u8_f32)
        source(o, i, 2, false);
    if (i->encoding == VA_VOP3)
        vop3_opsel(o, i);
    results(o, i);
    if (is_sdwa)
        sdwa(o, i);
    else if (i->extension == VA_IS_DPP)
        dpp(o, i);
}

static void packed(struct out *o, const struct va_insn *i)
{
    const struct va_row *row = &va_rows[i->op];
    enum type t = type_of(i, 0) == HALF ? HALF : FLOAT;
    plain(o, i, i->d, i->wd, INTEGER);
    if (!strncmp(row->name, "v_fma_mix", 9)) {
        for (int k = 0; k < 3; k++)
            source(o, i, k, false);
    } else {
        plain(o, i, i->a, i->wa, t);
        if (i->b != VA_NONE)
            plain(o, i, i->b, i->wb, t);
        if (i->c != VA_NONE)
            plain(o, i, i->c, i->wc, t);
    }
    if (row->name[2] == 'm' || row->name[2] == 's') {
        if (!strncmp(row->name, "v_mfma", 6) || !strncmp(row->name, "v_smfmac", 8)) {
            if (i->abs)
                put(o, " cbsz:%u", i->abs);
            if (i->opsel)
                put(o, " abid:%u", i->opsel);
            if (i->neg && strstr(row->name, "f64"))
                array(o, "neg", i->neg, 3);
            else if (i->neg)
                put(o, " blgp:%u", i->neg);
            return;
        }
    }
    if (i->op == VA_VOP3P_v_accvgpr_read_b32 || i->op == VA_VOP3P_v_accvgpr_write_b32)
        return;
    unsigned n = 1u + (i->b != VA_NONE) + (i->c != VA_NONE), all = (1u << n) - 1;
    bool mix = !strncmp(row->name, "v_fma_mix", 9);
    if (i->opsel & all)
        array(o, "op_sel", i->opsel, n);
    if (mix ? (i->opsel_hi & all) != 0 : (i->opsel_hi & all) != all)
        array(o, "op_sel_hi", i->opsel_hi, n);
    if (i->neg & all && !mix)
        array(o, "neg_lo", i->neg, n);
    if (i->abs & all && !mix)
        array(o, "neg_hi", i->abs, n);
    if (i->clamp)
        put(o, " clamp");
}

static void cache_bits(struct out *o, bool sc0, bool nt, bool sc1)
{
    if (sc0)
        put(o, " sc0");
    if (nt)
        put(o, " nt");
    if (sc1)
        put(o, " sc1");
}

static bool power_of_two(uint32_t v)
{
    return v && !(v & (v - 1));
}

/* What becomes of each bit of the lane's number, the highest first: 0, 1, p: it stays, i: turned
 * over. */
static void swizzle_bits(struct out *o, uint32_t imm)
{
    uint32_t and = imm & 31, or = imm >> 5 & 31, xor = imm >> 10 & 31;
    uint32_t zeros = or ^xor, ones = (and | or) ^ xor;
    char text[6] = "";
    for (int k = 0; k < 5; k++) {
        bool zero = zeros >> (4 - k) & 1, one = ones >> (4 - k) & 1;
        text[k] = zero == one ? (zero ? '1' : '0') : one ? 'p' : 'i';
    }
    put(o, " offset:swizzle(BITMASK_PERM,\"%s\")", text);
}

static void swizzle(struct out *o, uint32_t imm)
{
    uint32_t and = imm & 31, or = imm >> 5 & 31, xor = imm >> 10 & 31;
    if (imm >> 8 == 0x80)
        put(o, " offset:swizzle(QUAD_PERM,%u,%u,%u,%u)", imm & 3, imm >> 2 & 3, imm >> 4 & 3,
            imm >> 6 & 3);
    else if (imm & 0x8000)
        put(o, " offset:%u", imm);
    else if (and == 31 && ! or &&power_of_two(xor))
        put(o, " offset:swizzle(SWAP,%u)", xor);
    else if (and == 31 && ! or &&xor&&power_of_two(xor+1))
        put(o, " offset:swizzle(REVERSE,%u)", xor+1);
    else if (and < 31 && power_of_two(32 - and) && or < 32 - and&&!xor)
        put(o, " offset:swizzle(BROADCAST,%u,%u)", 32 - and, or);
    else
        swizzle_bits(o, imm);
}

static void ds(struct out *o, const struct va_insn *i)
{
    const char *name = va_rows[i->op].name;
    uint32_t imm = (uint32_t)i->offset;
    if (i->d != VA_NONE)
        plain(o, i, i->d, i->wd, INTEGER);
    if (i->a != VA_NONE)
        plain(o, i, i->a, i->wa, INTEGER);
    if (i->b != VA_NONE)
        plain(o, i, i->b, i->wb, INTEGER);
    if (i->c != VA_NONE)
        plain(o, i, i->c, i->wc, INTEGER);
    bool two = strstr(name, "read2") || strstr(name, "write2") || strstr(name, "xchg2");
    if (two) {
        if (imm & 255)
            put(o, " offset0:%u", imm & 255);
        if (imm >> 8)
            put(o, " offset1:%u", imm >> 8);
    } else if (i->op == VA_DS_ds_swizzle_b32 && imm) {
        swizzle(o, imm);
    } else if (imm) {
        put(o, " offset:%u", imm);
    }
    if (!strncmp(name, "ds_gws", 6))
        put(o, " gds");
}

static void flat(struct out *o, const struct va_insn *i)
{
    bool result_first = i->d != VA_NONE;
    uint32_t w = i->raw[0];
    if (result_first)
        plain(o, i, i->d, i->wd, INTEGER);
    if (i->a != VA_NONE)
        plain(o, i, i->a, i->wa, INTEGER);
    else
        separate(o), put(o, "off");
    if (i->b != VA_NONE)
        plain(o, i, i->b, i->wb, INTEGER);
    if (i->encoding != VA_FLAT) {
        if (i->c != VA_NONE)
            plain(o, i, i->c, i->wc, INTEGER);
        else
            separate(o), put(o, "off");
    }
    if (i->offset)
        put(o, " offset:%d", i->offset);
    cache_bits(o, w >> 16 & 1, w >> 17 & 1, w >> 25 & 1);
}

static void buffer_format(struct out *o, uint32_t data, uint32_t number)
{
    static const char *const datas[] = {"INVALID",     "8",          "16",          "8_8",
                                        "32",          "16_16",      "10_11_11",    "11_11_10",
                                        "10_10_10_2",  "2_10_10_10", "8_8_8_8",     "32_32",
                                        "16_16_16_16", "32_32_32",   "32_32_32_32", "RESERVED_15"};
    static const char *const numbers[] = {"UNORM", "SNORM", "USCALED",    "SSCALED",
                                          "UINT",  "SINT",  "RESERVED_6", "FLOAT"};
    if (data == 1 && number == 0)
        return;
    put(o, " format:[");
    if (data != 1)
        put(o, "BUF_DATA_FORMAT_%s%s", datas[data], number ? "," : "");
    if (number)
        put(o, "BUF_NUM_FORMAT_%s", numbers[number]);
    put(o, "]");
}

static void buffer(struct out *o, const struct va_insn *i)
{
    uint32_t w = i->raw[0];
    bool typed = i->encoding == VA_MTBUF;
    if (i->b != VA_NONE) {
        if (i->d != VA_NONE)
            plain(o, i, i->d, i->wd, INTEGER);
        if (i->a != VA_NONE)
            plain(o, i, i->a, i->wa, INTEGER);
        else if (i->op != VA_MUBUF_buffer_store_lds_dword)
            separate(o), put(o, "off");
        plain(o, i, i->b, 4, INTEGER);
        plain(o, i, i->c, 1, INTEGER);
        if (typed)
            buffer_format(o, w >> 19 & 15, w >> 23 & 7);
        if (w >> 13 & 1)
            put(o, " idxen");
        if (w >> 12 & 1)
            put(o, " offen");
        if (i->offset)
            put(o, " offset:%d", i->offset);
    }
    if (i->op == VA_MUBUF_buffer_store_lds_dword)
        put(o, " lds");
    if (typed)
        cache_bits(o, w >> 14 & 1, i->raw[1] >> 22 & 1, i->raw[1] >> 21 & 1);
    else
        cache_bits(o, w >> 14 & 1, w >> 17 & 1, w >> 15 & 1);
    if (!typed && w >> 16 & 1 && i->op != VA_MUBUF_buffer_store_lds_dword)
        put(o, " lds");
}

void va_print(const struct va_insn *i, char *text, size_t size)
{
    struct out o = {text, size, 0};
    if (!size)
        return;
    if (i->op == VA_NO_OP) {
        put(&o, ".long 0x%08x", i->raw[0]);
        return;
    }
    const struct va_row *row = &va_rows[i->op];
    put(&o, "%s", row->name);
    if (i->extension == VA_IS_SDWA)
        put(&o, "_sdwa");
    else if (i->extension == VA_IS_DPP)
        put(&o, "_dpp");
    else if ((row->flags & VA_LONG || i->op == VA_VOP2_v_pk_fmac_f16) && row->encoding >= VA_VOP1 &&
             row->encoding <= VA_VOPC)
        put(&o, i->encoding == VA_VOP3 ? "_e64" : "_e32");
    switch (i->encoding) {
    case VA_SOP1:
    case VA_SOP2:
    case VA_SOPC:
    case VA_SOPK:
    case VA_SOPP:
        scalar(&o, i);
        break;
    case VA_SMEM:
        smem(&o, i);
        break;
    case VA_VOP3P:
        packed(&o, i);
        break;
    case VA_DS:
        ds(&o, i);
        break;
    case VA_FLAT:
    case VA_GLOBAL:
    case VA_SCRATCH:
        flat(&o, i);
        break;
    case VA_MUBUF:
    case VA_MTBUF:
        buffer(&o, i);
        break;
    default:
        vector(&o, i);
    }
}

unsigned va_disassemble(const uint32_t *words, size_t count, char *text, size_t size)
{
    struct va_insn insn;
    const char *why = "";
    va_decode(words, count, &insn, &why);
    if (insn.op == VA_NO_OP) {
        snprintf(text, size, "%s", why);
        return 0;
    }
    va_print(&insn, text, size);
    return insn.words;
}
