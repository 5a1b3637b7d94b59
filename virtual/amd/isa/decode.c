#include "decode.h"

#include <string.h>

const struct va_row va_rows[VA_OP_COUNT] = {
#define O(encoding, opcode, name, d, a, b, c, flags)                                               \
    {#name, opcode, flags, VA_##encoding, d, a, b, c},
#include "opcodes.def"
#undef O
};

enum { OPCODES = 1024 };

static const uint16_t op_of[VA_ENCODINGS][OPCODES] = {
#define O(encoding, opcode, name, d, a, b, c, flags)                                               \
    [VA_##encoding][opcode] = VA_##encoding##_##name + 1,
#include "opcodes.def"
#undef O
};

static uint32_t bits(uint32_t word, unsigned low, unsigned count)
{
    return word >> low & ((1u << count) - 1);
}

static bool lookup(struct va_insn *i, enum va_encoding encoding, uint32_t opcode)
{
    uint16_t op = opcode < OPCODES ? op_of[encoding][opcode] : 0;
    if (!op)
        return false;
    const struct va_row *row = &va_rows[op - 1];
    i->op = op - 1;
    i->encoding = encoding;
    i->wd = row->d;
    i->wa = row->a;
    i->wb = row->b;
    i->wc = row->c;
    return true;
}

/* Codes that a source field may hold; a pair or more of scalar registers begins at an even one. */
static bool source_good(uint32_t code, unsigned width)
{
    if (code >= VA_V0)
        return (code & 255) + width <= 256;
    if (code < 128) {
        if (code == 125 || (width > 1 && (code & 1)) || (width > 2 && (code & 3)))
            return false;
        if (code < 102)
            return code + width <= 102;
        return code >= 108 && code < 124 ? code + width <= 124
                                         : (width <= 2 && !(code == VA_M0 && width > 1));
    }
    return code <= 208 || (code >= 235 && code <= 238) || (code >= 240 && code <= 248) ||
           (code >= 251 && code <= 253) || code == VA_LITERAL;
}

static bool vector_good(uint16_t code, unsigned width)
{
    return code == VA_NONE || (code & 255u) + width <= 256;
}

static bool sdst_good(uint32_t code, unsigned width)
{
    return code < 128 && source_good(code, width);
}

static bool take_literal(struct va_insn *i, size_t count, bool needed)
{
    if (!needed)
        return true;
    if (count < i->words + 1u)
        return false;
    i->literal = i->raw[i->words++];
    return true;
}

static bool takes_immediate(uint16_t op)
{
    return op != VA_SOPP_s_wakeup && op != VA_SOPP_s_barrier && op != VA_SOPP_s_icache_inv &&
           op != VA_SOPP_s_ttracedata && op != VA_SOPP_s_endpgm_saved &&
           op != VA_SOPP_s_set_gpr_idx_off && op != VA_SOPP_s_endpgm_ordered_ps_done;
}

static bool decode_scalar(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0];
    uint32_t d = bits(w, 16, 7), a = bits(w, 0, 8), b = bits(w, 8, 8);
    bool good;
    i->words = 1;
    if (w >> 23 == 0x17f) { /* SOPP */
        i->offset = (int16_t)w;
        return lookup(i, VA_SOPP, bits(w, 16, 7)) && (!bits(w, 0, 16) || takes_immediate(i->op));
    }
    if (w >> 23 == 0x17e) {
        if (!lookup(i, VA_SOPC, d))
            return false;
        i->a = a;
        if (i->op == VA_SOPC_s_set_gpr_idx_on) {
            i->offset = (int32_t)b;
            return source_good(a, 1) && take_literal(i, count, a == VA_LITERAL);
        }
        i->b = b;
        return source_good(a, i->wa) && source_good(b, i->wb) &&
               take_literal(i, count, a == VA_LITERAL || b == VA_LITERAL);
    }
    if (w >> 23 == 0x17d) {
        if (!lookup(i, VA_SOP1, b))
            return false;
        good = !i->wd || sdst_good(d, i->wd);
        if (i->wd)
            i->d = d;
        if (i->wa)
            i->a = a;
        if (a >= 128 && (i->op == VA_SOP1_s_setpc_b64 || i->op == VA_SOP1_s_swappc_b64 ||
                         i->op == VA_SOP1_s_movrels_b32 || i->op == VA_SOP1_s_movrels_b64))
            return false;
        return good && (!i->wa || source_good(a, i->wa)) &&
               take_literal(i, count, i->wa && a == VA_LITERAL);
    }
    if (w >> 28 == 0xb) {
        if (!lookup(i, VA_SOPK, bits(w, 23, 5)))
            return false;
        i->offset = (int16_t)w;
        if (i->wd)
            i->d = d;
        return (!i->wd || sdst_good(d, i->wd)) &&
               take_literal(i, count, va_rows[i->op].flags & VA_SDST);
    }
    if (!lookup(i, VA_SOP2, bits(w, 23, 7)))
        return false;
    if (i->wd)
        i->d = d;
    i->a = a;
    i->b = b;
    return (!i->wd || sdst_good(d, i->wd)) && source_good(a, i->wa) && source_good(b, i->wb) &&
           take_literal(i, count, a == VA_LITERAL || b == VA_LITERAL);
}

static bool decode_smem(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0], w1 = i->raw[1];
    if (count < 2 || !lookup(i, VA_SMEM, bits(w, 18, 8)))
        return false;
    i->words = 2;
    i->d = bits(w, 6, 7);
    i->a = bits(w, 0, 6) * 2;
    if (!i->wa) {
        i->a = VA_NONE;
        if (!i->wd)
            i->d = VA_NONE;
        return !(w >> 17 & 1) && (!i->wd || sdst_good(i->d, i->wd));
    }
    bool imm = w >> 17 & 1, soffset = w >> 14 & 1;
    if (imm) {
        i->offset = (int32_t)(w1 << 11) >> 11;
        if (soffset)
            i->b = bits(w1, 25, 7);
    } else if (soffset) {
        i->b = bits(w1, 25, 7);
    } else {
        i->b = bits(w1, 0, 7);
    }
    if (i->b != VA_NONE) {
        i->wb = 1;
        if (!source_good(i->b, 1))
            return false;
    }
    if (i->op == VA_SMEM_s_atc_probe || i->op == VA_SMEM_s_atc_probe_buffer)
        i->wd = 0;
    return source_good(i->a, i->wa) && (!i->wd || (sdst_good(i->d, i->wd) && i->d < VA_M0));
}

/* Second operands and masks that the encoding implies. */
static void imply(struct va_insn *i)
{
    switch (i->op) {
    case VA_VOP2_v_cndmask_b32:
        i->c = VA_VCC;
        i->wc = 2;
        break;
    case VA_VOP2_v_addc_co_u32:
    case VA_VOP2_v_subb_co_u32:
    case VA_VOP2_v_subbrev_co_u32:
        i->c = i->sd = VA_VCC;
        i->wc = 2;
        break;
    case VA_VOP2_v_add_co_u32:
    case VA_VOP2_v_sub_co_u32:
    case VA_VOP2_v_subrev_co_u32:
        i->sd = VA_VCC;
        break;
    case VA_VOP2_v_fmac_f64:
    case VA_VOP2_v_fmac_f32:
    case VA_VOP2_v_mac_f16:
    case VA_VOP2_v_pk_fmac_f16:
    case VA_VOP2_v_dot2c_f32_f16:
    case VA_VOP2_v_dot2c_i32_i16:
    case VA_VOP2_v_dot4c_i32_i8:
    case VA_VOP2_v_dot8c_i32_i4:
        i->c = i->d;
        i->wc = i->wd;
        break;
    case VA_VOP2_v_fmamk_f32:
    case VA_VOP2_v_madmk_f16:
        i->c = i->b;
        i->wc = 1;
        i->b = VA_LITERAL;
        break;
    case VA_VOP2_v_fmaak_f32:
    case VA_VOP2_v_madak_f16:
        i->c = VA_LITERAL;
        i->wc = 1;
        break;
    default:
        break;
    }
}

bool va_second_is_integer(uint16_t op)
{
    const char *name = va_rows[op].name;
    return strstr(name, "_class_") || strstr(name, "_ldexp_");
}

static bool decode_sdwa(struct va_insn *i)
{
    uint32_t w = i->raw[1];
    i->extension = VA_IS_SDWA;
    i->words = 2;
    i->a = bits(w, 0, 8) + (w >> 23 & 1 ? 0 : VA_V0);
    if (i->b != VA_NONE)
        i->b = (i->b & 255) + (w >> 31 & 1 ? 0 : VA_V0);
    if (i->encoding == VA_VOPC) {
        i->sd = w >> 15 & 1 ? bits(w, 8, 7) : VA_VCC;
        if (!sdst_good(i->sd, 2))
            return false;
    } else {
        i->clamp = bits(w, 13, 1);
        i->omod = bits(w, 14, 2);
        if (bits(w, 8, 3) == 7 || bits(w, 11, 2) == 3)
            return false;
    }
    if (bits(w, 16, 3) == 7 || (i->b != VA_NONE && bits(w, 24, 3) == 7))
        return false;
    i->neg = bits(w, 20, 1) | bits(w, 28, 1) << 1;
    i->abs = bits(w, 21, 1) | bits(w, 29, 1) << 1;
    uint16_t f = va_rows[i->op].flags;
    if (va_reads_part(i->op) && (bits(w, 8, 5) != 6 || w >> 19 & 1))
        return false;
    for (unsigned k = 0; k < (i->b == VA_NONE ? 1 : 2); k++) {
        bool real = f & (VA_ABS | VA_NEG) && !(k && va_second_is_integer(i->op));
        if (real ? bits(w, 19 + 8 * k, 1) : (i->abs | i->neg) >> k & 1)
            return false;
    }
    if ((i->omod && !(f & VA_OMOD)) || (i->b == VA_NONE && bits(w, 24, 8)))
        return false;
    return source_good(i->a, 1) && (i->b == VA_NONE || source_good(i->b, 1));
}

static bool decode_dpp(struct va_insn *i)
{
    uint32_t w = i->raw[1], control = bits(w, 8, 9);
    i->extension = VA_IS_DPP;
    i->words = 2;
    i->a = bits(w, 0, 8) + VA_V0;
    i->neg = bits(w, 20, 1) | bits(w, 22, 1) << 1;
    i->abs = bits(w, 21, 1) | bits(w, 23, 1) << 1;
    uint16_t f = va_rows[i->op].flags;
    if (i->abs & ~(f & VA_ABS) || i->neg & ~(f >> 3 & 7))
        return false;
    if (!vector_good(i->a, i->wa))
        return false;
    if (i->wd > 1 || i->wa > 1) /* of 64 bits nothing else is exchanged */
        return control >= 0x150 && control < 0x160;
    bool known = control < 0x100 || (control > 0x100 && control < 0x110) ||
                 (control > 0x110 && control < 0x120) || (control > 0x120 && control < 0x130) ||
                 control == 0x130 || control == 0x134 || control == 0x138 || control == 0x13c ||
                 (control >= 0x140 && control <= 0x143) || (control >= 0x150 && control < 0x160);
    return known;
}

static bool decode_short_vector(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0];
    i->words = 1;
    i->a = bits(w, 0, 9);
    if (w >> 25 == 0x3f) {
        if (!lookup(i, VA_VOP1, bits(w, 9, 8)))
            return false;
        uint32_t d = bits(w, 17, 8);
        if (i->op == VA_VOP1_v_readfirstlane_b32) {
            i->d = d;
            if (!sdst_good(d, 1))
                return false;
        } else if (i->wd) {
            i->d = d + (i->op == VA_VOP1_v_accvgpr_mov_b32 ? VA_A0 : VA_V0);
        } else if (d) {
            return false;
        }
        if (i->op == VA_VOP1_v_accvgpr_mov_b32) {
            if (i->a < VA_V0)
                return false;
            i->a += VA_A0 - VA_V0;
        }
        if (!i->wa) {
            i->a = VA_NONE;
            return true;
        }
        if ((i->op == VA_VOP1_v_readfirstlane_b32 || i->op == VA_VOP1_v_swap_b32) && i->a < VA_V0)
            return false;
    } else if (w >> 25 == 0x3e) {
        if (!lookup(i, VA_VOPC, bits(w, 17, 8)))
            return false;
        i->b = bits(w, 9, 8) + VA_V0;
        i->sd = VA_VCC;
    } else {
        if (!lookup(i, VA_VOP2, bits(w, 25, 6)))
            return false;
        i->b = bits(w, 9, 8) + VA_V0;
        i->d = bits(w, 17, 8) + VA_V0;
    }
    uint16_t flags = va_rows[i->op].flags;
    if (!vector_good(i->d, i->wd) || !vector_good(i->b, i->wb))
        return false;
    if (i->a == 249 || i->a == 250) {
        if (!(flags & (i->a == 249 ? VA_SDWA : VA_DPP)) || count < 2)
            return false;
        bool good = i->a == 249 ? decode_sdwa(i) : decode_dpp(i);
        imply(i);
        return good;
    }
    imply(i);
    return source_good(i->a, i->wa) &&
           take_literal(i, count, i->a == VA_LITERAL || flags & VA_SDST);
}

static bool vop3_source(uint16_t *to, uint32_t code, unsigned width)
{
    if (!width)
        return code == 0;
    *to = code;
    return code != VA_LITERAL && source_good(code, width);
}

static bool decode_vop3(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0], w1 = i->raw[1], opcode = bits(w, 16, 10);
    if (count < 2)
        return false;
    bool found = opcode < 256   ? lookup(i, VA_VOPC, opcode)
                 : opcode < 320 ? lookup(i, VA_VOP2, opcode - 256)
                 : opcode < 448 ? lookup(i, VA_VOP1, opcode - 320)
                                : lookup(i, VA_VOP3, opcode);
    if (!found)
        return false;
    const struct va_row *row = &va_rows[i->op];
    if (opcode < 448 && !(row->flags & VA_LONG) && row->d) /* v_nop has one form of text */
        return false;
    i->encoding = VA_VOP3;
    i->words = 2;
    bool carries = i->op == VA_VOP2_v_add_co_u32 || i->op == VA_VOP2_v_sub_co_u32 ||
                   i->op == VA_VOP2_v_subrev_co_u32 || i->op == VA_VOP2_v_addc_co_u32 ||
                   i->op == VA_VOP2_v_subb_co_u32 || i->op == VA_VOP2_v_subbrev_co_u32;
    bool sdst = carries || (row->encoding == VA_VOP3 && row->flags & VA_SDST);
    uint32_t d = bits(w, 0, 8);
    if (row->encoding == VA_VOPC) {
        i->sd = d;
        if (!sdst_good(d, 2))
            return false;
    } else if (i->op == VA_VOP3_v_readlane_b32) {
        i->d = d;
        if (!sdst_good(d, 1))
            return false;
    } else if (i->wd) {
        i->d = d + VA_V0;
    } else if (d) {
        return false;
    }
    i->clamp = bits(w, 15, 1);
    i->omod = bits(w1, 27, 2);
    i->neg = bits(w1, 29, 3);
    if (sdst) {
        i->sd = bits(w, 8, 7);
        if (!sdst_good(i->sd, 2))
            return false;
    } else {
        i->abs = bits(w, 8, 3);
        i->opsel = bits(w, 11, 4);
    }
    uint16_t f = row->flags;
    /* Bits that mean nothing are free with three sources and with halves, else they are zero. */
    bool signs = f & (VA_ABS | VA_NEG), selects = f & VA_OPSEL;
    bool free_bits = (row->encoding == VA_VOP3 && row->c && (signs || selects)) ||
                     (selects && !signs) || i->op == VA_VOP3_v_cvt_pkaccum_u8_f32;
    if (selects && !row->c && !sdst && i->opsel & ~(f >> 8 & 15))
        return false;
    if ((i->clamp && !(f & VA_CLAMP)) || (i->omod && !(f & VA_OMOD)) ||
        (!free_bits && (i->abs & ~(f & VA_ABS) || i->neg & ~(f >> 3 & 7))))
        return false;
    i->abs &= f & VA_ABS;
    i->neg &= f >> 3 & 7;
    i->opsel &= f >> 8 & 15;
    if (row->encoding == VA_VOP2 || row->encoding == VA_VOP1)
        imply(i);
    bool reads_mask = i->op == VA_VOP2_v_cndmask_b32 || i->op == VA_VOP2_v_addc_co_u32 ||
                      i->op == VA_VOP2_v_subb_co_u32 || i->op == VA_VOP2_v_subbrev_co_u32;
    if (carries)
        i->sd = bits(w, 8, 7);
    uint32_t c = bits(w1, 18, 9);
    if (reads_mask) {
        i->c = c;
        if (!sdst_good(c, 2))
            return false;
    } else if (row->encoding == VA_VOP3 && row->c) {
        if (!vop3_source(&i->c, c, i->wc))
            return false;
    } else if (c) {
        return false;
    }
    if (i->op == VA_VOP3_v_readlane_b32) {
        if (bits(w1, 0, 9) < VA_V0 || bits(w1, 9, 9) >= VA_V0)
            return false;
    }
    if (i->op == VA_VOP3_v_writelane_b32) {
        if (bits(w1, 0, 9) >= VA_V0 || bits(w1, 9, 9) >= VA_V0)
            return false;
        i->c = i->d;
        i->wc = 1;
    }
    if (i->op == VA_VOP3_v_cvt_pkaccum_u8_f32) {
        i->c = i->d;
        i->wc = 1;
    }
    if (i->d != VA_NONE && i->d >= VA_V0 && !vector_good(i->d, i->wd))
        return false;
    return vop3_source(&i->a, bits(w1, 0, 9), i->wa) && vop3_source(&i->b, bits(w1, 9, 9), i->wb);
}

static bool is_matrix(const struct va_row *row)
{
    return !strncmp(row->name, "v_mfma", 6) || !strncmp(row->name, "v_smfmac", 8);
}

static bool decode_vop3p(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0], w1 = i->raw[1];
    if (count < 2 || !lookup(i, VA_VOP3P, bits(w, 16, 7)))
        return false;
    const struct va_row *row = &va_rows[i->op];
    i->words = 2;
    i->d = bits(w, 0, 8) + VA_V0;
    uint32_t a = bits(w1, 0, 9), b = bits(w1, 9, 9), c = bits(w1, 18, 9);
    i->neg = bits(w1, 29, 3);
    i->abs = bits(w, 8, 3);
    if (is_matrix(row)) {
        bool sparse = row->name[2] == 's';
        i->opsel = bits(w, 11, 4);
        uint16_t accumulate = w >> 15 & 1 ? VA_A0 - VA_V0 : 0;
        i->d += accumulate;
        if (a < VA_V0 || b < VA_V0 || (sparse && i->neg) || (sparse && c < VA_V0) ||
            !source_good(a, i->wa) || !source_good(b, i->wb) || !source_good(c, i->wc) ||
            c == VA_LITERAL || c < 128 || (c < VA_V0 && c > 248) || (i->d & 255) + i->wd > 256)
            return false;
        i->a = a + (w1 >> 27 & 1 ? VA_A0 - VA_V0 : 0);
        i->b = b + (w1 >> 28 & 1 ? VA_A0 - VA_V0 : 0);
        i->c = c < VA_V0 || sparse ? c : c + accumulate;
        return true;
    }
    i->opsel = bits(w, 11, 3);
    i->opsel_hi = bits(w1, 27, 2) | bits(w, 14, 1) << 2;
    i->clamp = bits(w, 15, 1);
    if (i->op == VA_VOP3P_v_accvgpr_read_b32 || i->op == VA_VOP3P_v_accvgpr_write_b32) {
        if (i->neg || i->abs || i->opsel || b || c)
            return false;
        bool read = i->op == VA_VOP3P_v_accvgpr_read_b32;
        if (read && a < VA_V0)
            return false;
        i->a = read ? a + VA_A0 - VA_V0 : a;
        if (!read)
            i->d += VA_A0 - VA_V0;
        return source_good(a, 1) && a != VA_LITERAL;
    }
    if (!i->wc && (i->neg & 4 || i->abs & 4 || i->opsel & 4))
        return false;
    return vector_good(i->d, i->wd) && vop3_source(&i->a, a, i->wa) &&
           vop3_source(&i->b, b, i->wb) && vop3_source(&i->c, c, i->wc);
}

static bool decode_ds(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0], w1 = i->raw[1];
    if (count < 2 || !lookup(i, VA_DS, bits(w, 17, 8)))
        return false;
    uint16_t file = w >> 25 & 1 ? VA_A0 : VA_V0;
    i->words = 2;
    i->offset = (int32_t)bits(w, 0, 16);
    if (i->wd)
        i->d = file + bits(w1, 24, 8);
    if (i->wa)
        i->a = VA_V0 + bits(w1, 0, 8);
    if (i->wb)
        i->b = file + bits(w1, 8, 8);
    if (i->wc)
        i->c = file + bits(w1, 16, 8);
    if (!strncmp(va_rows[i->op].name, "ds_gws", 6) && !(w >> 16 & 1))
        return false;
    if ((!i->wd && bits(w1, 24, 8)) || (!i->wa && bits(w1, 0, 8)) || (!i->wb && bits(w1, 8, 8)) ||
        (!i->wc && bits(w1, 16, 8)))
        return false;
    return vector_good(i->d, i->wd) && vector_good(i->b, i->wb) && vector_good(i->c, i->wc);
}

static bool decode_flat(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0], w1 = i->raw[1], segment = bits(w, 14, 2), saddr = bits(w1, 16, 7);
    if (count < 2 || segment == 3)
        return false;
    enum va_encoding encoding = segment == 0 ? VA_FLAT : segment == 1 ? VA_SCRATCH : VA_GLOBAL;
    if (!lookup(i, encoding, bits(w, 18, 7)))
        return false;
    const struct va_row *row = &va_rows[i->op];
    uint16_t file = w1 >> 23 & 1 ? VA_A0 : VA_V0;
    bool atomic = row->opcode >= 64, sc0 = w >> 16 & 1;
    i->words = 2;
    i->offset = segment ? (int32_t)(w << 19) >> 19 : (int32_t)bits(w, 0, 13);
    if (atomic && !sc0)
        i->wd = 0;
    if (row->opcode >= 38 && row->opcode <= 42 && file == VA_A0)
        return false; /* straight into LDS */
    if (i->wd)
        i->d = file + bits(w1, 24, 8);
    if (i->wb)
        i->b = file + bits(w1, 8, 8);
    i->a = VA_V0 + bits(w1, 0, 8);
    i->wa = 2;
    if (segment == 0) {
        if (saddr || w >> 13 & 1)
            return false;
    } else if (segment == 2) {
        if (w >> 13 & 1)
            return false;
        if (saddr != 0x7f) {
            i->wa = 1;
            i->c = saddr;
            i->wc = 2;
            if (!sdst_good(saddr, 2))
                return false;
        }
    } else {
        i->wa = 1;
        if (!(w >> 13 & 1)) {
            i->a = VA_NONE;
            i->wa = 0;
        }
        if (saddr != 0x7f) {
            i->c = saddr;
            i->wc = 1;
            if (!sdst_good(saddr, 1))
                return false;
        }
    }
    return vector_good(i->a, i->wa) && vector_good(i->d, i->wd) && vector_good(i->b, i->wb);
}

static bool decode_buffer(struct va_insn *i, size_t count)
{
    uint32_t w = i->raw[0], w1 = i->raw[1];
    bool typed = w >> 26 == 0x3a;
    if (count < 2 ||
        !lookup(i, typed ? VA_MTBUF : VA_MUBUF, typed ? bits(w, 15, 4) : bits(w, 18, 7)))
        return false;
    i->words = 2;
    if (!i->wd && !i->wa && i->op != VA_MUBUF_buffer_store_lds_dword) /* cache control */
        return !(w & 0x13000);
    uint16_t file = w1 >> 23 & 1 ? VA_A0 : VA_V0;
    bool lds = !typed && w >> 16 & 1;
    if (lds && !(i->op == VA_MUBUF_buffer_load_format_x || i->op == VA_MUBUF_buffer_load_ubyte ||
                 i->op == VA_MUBUF_buffer_load_sbyte || i->op == VA_MUBUF_buffer_load_ushort ||
                 i->op == VA_MUBUF_buffer_load_sshort || i->op == VA_MUBUF_buffer_load_dword ||
                 i->op == VA_MUBUF_buffer_store_lds_dword))
        return false;
    if (i->op == VA_MUBUF_buffer_store_lds_dword && (!lds || w & 0x3000))
        return false;
    if (lds && file == VA_A0)
        return false;
    i->offset = (int32_t)bits(w, 0, 12);
    if (i->wd && !lds)
        i->d = file + bits(w1, 8, 8);
    if (!i->wd || lds)
        i->wd = 0;
    i->wa = (w >> 12 & 1) + (w >> 13 & 1);
    if (i->wa)
        i->a = VA_V0 + bits(w1, 0, 8);
    i->b = bits(w1, 16, 5) * 4;
    i->wb = 4;
    i->c = bits(w1, 24, 8);
    i->wc = 1;
    return source_good(i->b, 4) && source_good(i->c, 1) && i->c != VA_LITERAL &&
           vector_good(i->d, i->wd) && vector_good(i->a, i->wa);
}

static void top(struct va_insn *i, uint16_t code, unsigned width)
{
    if (code == VA_NONE || !width)
        return;
    unsigned end = code + width;
    if (code >= VA_A0)
        i->top_a = end - VA_A0 > i->top_a ? (uint16_t)(end - VA_A0) : i->top_a;
    else if (code >= VA_V0)
        i->top_v = end - VA_V0 > i->top_v ? (uint16_t)(end - VA_V0) : i->top_v;
    else if (code < 102)
        i->top_s = end > i->top_s ? (uint16_t)end : i->top_s;
}

void va_decode(const uint32_t *words, size_t count, struct va_insn *i, const char **why)
{
    memset(i, 0, sizeof *i);
    i->d = i->a = i->b = i->c = i->sd = VA_NONE;
    for (size_t k = 0; k < 3 && k < count; k++)
        i->raw[k] = words[k];
    uint32_t w = i->raw[0];
    bool good = false;
    if (!count)
        good = false;
    else if (w >> 31 == 0)
        good = decode_short_vector(i, count);
    else if (w >> 30 == 2)
        good = decode_scalar(i, count);
    else if (w >> 26 == 0x30)
        good = decode_smem(i, count);
    else if (w >> 23 == 0x1a7)
        good = decode_vop3p(i, count);
    else if (w >> 26 == 0x34)
        good = decode_vop3(i, count);
    else if (w >> 26 == 0x36)
        good = decode_ds(i, count);
    else if (w >> 26 == 0x37)
        good = decode_flat(i, count);
    else if (w >> 26 == 0x38 || w >> 26 == 0x3a)
        good = decode_buffer(i, count);
    if (!good) {
        i->op = VA_NO_OP;
        i->words = 1;
        *why = !count                               ? "the text ends here"
               : w >> 26 == 0x35                    ? "interpolation: gfx942 has none"
               : w >> 26 == 0x31                    ? "exports: gfx942 has none"
               : w >> 26 == 0x3c || w >> 26 == 0x3d ? "images: gfx942 has none"
                                                    : "not an instruction of gfx942";
        return;
    }
    top(i, i->d, i->wd);
    top(i, i->a, i->wa);
    top(i, i->b, i->wb);
    top(i, i->c, i->wc);
    top(i, i->sd, 2);
}
