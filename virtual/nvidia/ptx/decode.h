/* From statements to instructions: the parts of the decoder. */
#ifndef VIRTUAL_NVIDIA_PTX_DECODE_H
#define VIRTUAL_NVIDIA_PTX_DECODE_H

#include "../exec/ops.h"
#include "modifiers.h"
#include "parser.h"
#include "special.h"

struct ptx_row; /* of the grammar */
typedef void (*ptx_decoder)(struct ptx_parser *parser, struct ptx_statement *s,
                            const struct ptx_row *row);

struct ptx_row {
    const char *opcode;
    uint64_t groups;     /* modifiers that may appear */
    uint64_t dropped;    /* of those: hints, and what every form means alike */
    uint8_t types;       /* how many types follow */
    const char *pattern; /* operands, see decode.c */
    const char *names; /* how types enter the op's name: 'u' sign does not matter, 'b' only bits may
                          be, 'k' kept */
    ptx_decoder decode;
};

extern const struct ptx_row ptx_rows[];
extern const uint32_t ptx_row_count;

/* How a register may differ from the instruction's type. */
enum ptx_fit { PTX_STRICT, PTX_WIDER };
/* Whether a register of type `reg` may stand where `want` is asked for. */
bool ptx_fits(enum ptx_type reg, enum ptx_type want, enum ptx_fit fit);

uint32_t ptx_source(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                    enum ptx_type type, enum ptx_fit fit);
uint32_t ptx_dest(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                  enum ptx_type type, enum ptx_fit fit);
uint16_t ptx_pred(struct ptx_parser *parser, struct ptx_operand *o);
void ptx_operands(struct ptx_parser *parser, struct ptx_statement *s, uint32_t least,
                  uint32_t most);
void ptx_expect_vector(struct ptx_parser *parser, struct ptx_operand *o, uint32_t count);
/* The address operand: code, imm and flags of i. Returns the space it lies in if a symbol says. */
enum vn_space ptx_memory(struct ptx_parser *parser, struct ptx_statement *s, struct ptx_operand *o,
                         enum vn_space space, uint32_t *code, int64_t *imm);
bool ptx_is(const struct ptx_statement *s, enum ptx_group group, const char *text);
/* An instruction that the virtual device does not have. */
_Noreturn void ptx_unsupported(struct ptx_parser *parser, const struct ptx_statement *s,
                               const char *why);
/* The canonical name: opcode, modifiers that matter, types. */
uint32_t ptx_named(struct ptx_parser *parser, struct ptx_statement *s, const struct ptx_row *row);

void ptx_decode_mov(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_cvt(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_setp(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_set(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_selp(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_logic(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_bfi(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_lop3(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_load(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_store(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_atom(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_cp(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_cvta(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_isspacep(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_fence(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_hint(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_bra(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_brx(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_call(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_plain(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_bar(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_shfl(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_vote(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_match(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_redux(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_ldmatrix(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_mma(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_wmma(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);
void ptx_decode_refused(struct ptx_parser *, struct ptx_statement *, const struct ptx_row *);

#endif
