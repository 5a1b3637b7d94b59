/* decode.h: instructions of gfx942, out of words. */
#ifndef VIRTUAL_AMD_ISA_DECODE_H
#define VIRTUAL_AMD_ISA_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum va_encoding {
    VA_SOP1,
    VA_SOP2,
    VA_SOPK,
    VA_SOPC,
    VA_SOPP,
    VA_SMEM,
    VA_VOP1,
    VA_VOP2,
    VA_VOPC,
    VA_VOP3,
    VA_VOP3P,
    VA_DS,
    VA_FLAT,
    VA_GLOBAL,
    VA_SCRATCH,
    VA_MUBUF,
    VA_MTBUF,
    VA_ENCODINGS
};

enum va_op {
#define O(encoding, opcode, name, d, a, b, c, flags) VA_##encoding##_##name,
#include "opcodes.def"
#undef O
    VA_OP_COUNT,
    VA_NO_OP = VA_OP_COUNT
};

/* Flags of a row, as opcodes.def has them. */
enum {
    VA_ABS = 7,
    VA_NEG = 7 << 3,
    VA_CLAMP = 1 << 6,
    VA_OMOD = 1 << 7,
    VA_OPSEL = 15 << 8,
    VA_LONG = 1 << 12,
    VA_SDWA = 1 << 13,
    VA_DPP = 1 << 14,
    VA_SDST = 1 << 15,
};

struct va_row {
    const char *name;
    uint16_t opcode, flags;
    uint8_t encoding, d, a, b, c;
};
extern const struct va_row va_rows[VA_OP_COUNT];

/* Operand codes: 0-255 as in an 8-bit source field, vector registers, accumulation registers. */
enum {
    VA_VCC = 106,
    VA_M0 = 124,
    VA_EXEC = 126,
    VA_LITERAL = 255,
    VA_V0 = 256,
    VA_A0 = 512,
    VA_NONE = 0xffff
};

enum va_extension { VA_PLAIN, VA_IS_SDWA, VA_IS_DPP };

struct va_wave;
struct va_insn;
typedef void (*va_handler)(struct va_wave *w, const struct va_insn *insn);
typedef void (*va_lane_fn)(uint32_t *d, const uint32_t *a, const uint32_t *b, const uint32_t *c,
                           const struct va_wave *w);
typedef uint64_t (*va_compare_fn)(const uint32_t *a, const uint32_t *b);

struct va_insn {
    va_handler run;
    union { /* what `run` applies to the lanes, if anything */
        va_lane_fn fn;
        va_compare_fn compare;
        const void *form;
    };
    uint16_t op;       /* enum va_op, VA_NO_OP: not an instruction */
    uint8_t words;     /* length; 1 if it is none */
    uint8_t encoding;  /* as encoded: VA_VOP3 for the long form of a VOP2 row */
    uint8_t extension; /* enum va_extension */
    uint8_t clamp, omod;
    uint8_t neg, abs;        /* by source; VOP3P: neg_lo and neg_hi; matrix: blgp and cbsz */
    uint8_t opsel, opsel_hi; /* by source, bit 3 of opsel: destination; matrix: abid in opsel */
    uint8_t wd, wa, wb, wc;  /* widths, in registers */
    uint8_t simple;          /* a vector operation without modifiers, on whole registers */
    uint8_t relative;        /* one whose registers s_set_gpr_idx_on may move */
    uint16_t d, a, b, c;     /* operands */
    uint16_t sd;             /* scalar destination of VOP3 and of SDWA compares */
    uint16_t flops;          /* a lane */
    uint32_t literal;
    int32_t offset;        /* immediate offset, simm16, or the 8-bit pair of DS */
    uint32_t raw[3];       /* the words */
    uint16_t top_v, top_a; /* registers it names: one past the highest, 0: none */
    uint16_t top_s;
    uint8_t class, store; /* enum va_class; writes memory and gives nothing back */
    uint8_t kinds[4];     /* enum va_kind of d, a, b, c */
};

/* Fields of the words of memory instructions. */
static inline bool va_sc0(const struct va_insn *i)
{
    return i->raw[0] >> (i->encoding == VA_MUBUF || i->encoding == VA_MTBUF ? 14 : 16) & 1;
}

static inline bool va_sc1(const struct va_insn *i)
{
    return i->encoding == VA_MUBUF   ? i->raw[0] >> 15 & 1
           : i->encoding == VA_MTBUF ? i->raw[1] >> 21 & 1
                                     : i->raw[0] >> 25 & 1;
}

/* FP8 conversions select a part of the source by SDWA; their destination is always whole. */
static inline bool va_reads_part(uint16_t op)
{
    return op == VA_VOP1_v_cvt_f32_fp8 || op == VA_VOP1_v_cvt_f32_bf8 ||
           op == VA_VOP1_v_cvt_pk_f32_fp8 || op == VA_VOP1_v_cvt_pk_f32_bf8;
}

/* Of operations on real numbers: a set of classes, or an exponent. */
bool va_second_is_integer(uint16_t op);

/* Decodes words[0..count). insn->op is VA_NO_OP if that is no instruction; then *why is a reason.
 */
void va_decode(const uint32_t *words, size_t count, struct va_insn *insn, const char **why);

/* Its text, as LLVM's. */
void va_print(const struct va_insn *insn, char *text, size_t size);

#endif
