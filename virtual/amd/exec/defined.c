/* Registers that nothing was written to. What is computed from one is as undefined as it is, lane
 * by lane; a report comes where it matters: in an address, a comparison, a scalar that is read out
 * of lanes, or data that go to global memory. */
#include "exec.h"

static uint64_t rows_defined(const struct va_wave *w, uint16_t code, unsigned width)
{
    uint64_t r = UINT64_MAX;
    if (code == VA_NONE || code < VA_V0)
        return r;
    for (unsigned k = 0; k < width; k++)
        r &= w->defined[code - VA_V0 + k];
    return r;
}

static bool scalars_defined(const struct va_wave *w, uint16_t code, unsigned width)
{
    for (unsigned k = 0; code < 128 && k < width; k++)
        if (!(w->defined_s[(code + k) / 64] >> (code + k) % 64 & 1))
            return false;
    return true;
}

static void define_scalars(struct va_wave *w, uint16_t code, unsigned width, bool defined)
{
    for (unsigned k = 0; code < 128 && k < width; k++) {
        uint64_t bit = 1ull << (code + k) % 64;
        uint64_t *word = &w->defined_s[(code + k) / 64];
        *word = defined ? *word | bit : *word & ~bit;
    }
}

static void define(struct va_wave *w, uint16_t code, unsigned width, uint64_t lanes,
                   uint64_t defined)
{
    for (unsigned k = 0; code != VA_NONE && code >= VA_V0 && k < width; k++) {
        uint64_t *row = &w->defined[code - VA_V0 + k];
        *row = (*row & ~lanes) | (defined & lanes);
    }
}

static void complain(struct va_wave *w, uint16_t code, uint64_t undefined, const char *use)
{
    va_find(w, "uninitialised-register", undefined ? __builtin_ctzll(undefined) : -1, 0, 0, NULL,
            "%s%u is %s: nothing has written it",
            code >= VA_A0   ? "a"
            : code >= VA_V0 ? "v"
                            : "s",
            code >= VA_A0   ? code - VA_A0
            : code >= VA_V0 ? code - VA_V0
                            : code,
            use);
}

/* An operand that must be defined in the active lanes. Said once: then it counts as defined. */
static void demand(struct va_wave *w, uint16_t code, unsigned width, uint64_t lanes,
                   const char *use)
{
    if (code == VA_NONE)
        return;
    if (code < VA_V0) {
        if (!scalars_defined(w, code, width)) {
            complain(w, code, 0, use);
            define_scalars(w, code, width, true);
        }
        return;
    }
    for (unsigned k = 0; k < width; k++) {
        uint64_t undefined = lanes & ~w->defined[code - VA_V0 + k];
        if (undefined) {
            complain(w, (uint16_t)(code + k), undefined, use);
            w->defined[code - VA_V0 + k] |= lanes;
        }
    }
}

static void memory(struct va_wave *w, const struct va_insn *i)
{
    uint64_t exec = va_exec(w);
    bool buffer = i->encoding == VA_MUBUF || i->encoding == VA_MTBUF;
    if (exec && !(i->op == VA_DS_ds_swizzle_b32))
        demand(w, i->a, i->wa, exec, "in an address");
    if (buffer)
        demand(w, i->b, i->wb, exec, "a buffer's descriptor");
    else if (i->encoding != VA_DS)
        demand(w, i->c, i->wc, exec, "in an address");
    if ((i->encoding == VA_GLOBAL || i->encoding == VA_FLAT) && exec)
        demand(w, i->b, i->wb, exec, "stored");
    if (!i->store)
        define(w, i->d, i->wd, exec, UINT64_MAX);
}

static void scalar(struct va_wave *w, const struct va_insn *i)
{
    if (i->encoding == VA_SMEM) {
        if (i->a != VA_NONE)
            demand(w, i->a, i->wa, 0, "in an address");
        define_scalars(w, i->d, i->wd, true);
        return;
    }
    bool defined = (i->a == VA_NONE || scalars_defined(w, i->a, i->wa)) &&
                   (i->b == VA_NONE || scalars_defined(w, i->b, i->wb));
    if (i->encoding == VA_SOPC && !defined) {
        demand(w, i->a, i->wa, 0, "compared");
        demand(w, i->b, i->wb, 0, "compared");
    }
    if (i->encoding != VA_SOPK || i->op == VA_SOPK_s_movk_i32 || i->op == VA_SOPK_s_getreg_b32)
        define_scalars(w, i->d, i->wd, defined || i->op == VA_SOP1_s_getpc_b64);
}

/* Each register of the result comes from one of each source. */
static void by_rows(struct va_wave *w, const struct va_insn *i)
{
    for (unsigned k = 0; k < i->wd; k++) {
        unsigned select = i->encoding != VA_VOP3P ? (k ? 7 : 0) : k ? i->opsel_hi : i->opsel;
        uint64_t r = UINT64_MAX;
        if (i->op == VA_VOP3P_v_pk_mov_b32) {
            r = rows_defined(w, (uint16_t)((k ? i->b : i->a) + (i->opsel >> k & 1)), 1);
        } else {
            r &= i->a == VA_NONE || i->a < VA_V0 ? r : w->defined[i->a - VA_V0 + (select & 1)];
            r &= i->b == VA_NONE || i->b < VA_V0 ? r : w->defined[i->b - VA_V0 + (select >> 1 & 1)];
            r &= i->c == VA_NONE || i->c < VA_V0 ? r : w->defined[i->c - VA_V0 + (select >> 2 & 1)];
        }
        define(w, (uint16_t)(i->d + k), 1, va_exec(w), r);
    }
}

static void vector(struct va_wave *w, const struct va_insn *i)
{
    uint64_t exec = va_exec(w), a = rows_defined(w, i->a, i->wa), b = rows_defined(w, i->b, i->wb);
    uint64_t c = rows_defined(w, i->c, i->wc);
    switch (i->op) {
    case VA_VOP1_v_readfirstlane_b32:
        if (exec)
            demand(w, i->a, 1, exec & -exec, "read out of a lane");
        define_scalars(w, i->d, 1, true);
        return;
    case VA_VOP3_v_readlane_b32: /* spills of scalars are read back as they are */
        define_scalars(w, i->d, 1, true);
        return;
    case VA_VOP3_v_writelane_b32:
        define(w, i->d, 1, 1ull << (va_scalar(w, i, i->b) & 63), UINT64_MAX);
        return;
    case VA_VOP2_v_cndmask_b32: {
        uint64_t mask = w->s64[i->c / 2];
        define(w, i->d, 1, exec, (a & ~mask) | (b & mask));
        return;
    }
    case VA_VOP1_v_mov_b64:
    case VA_VOP3P_v_pk_mov_b32:
    case VA_VOP3P_v_pk_fma_f32:
    case VA_VOP3P_v_pk_mul_f32:
    case VA_VOP3P_v_pk_add_f32:
        by_rows(w, i);
        return;
    case VA_VOP3_v_mad_u64_u32: /* low halves make the low half */
    case VA_VOP3_v_mad_i64_i32:
    case VA_VOP3_v_lshl_add_u64:
    case VA_VOP3_v_lshlrev_b64: {
        uint64_t low =
            rows_defined(w, i->a, 1) & rows_defined(w, i->b, 1) & rows_defined(w, i->c, 1);
        define(w, i->d, 2, exec, a & b & c);
        define(w, i->d, 1, exec, low);
        if (i->sd != VA_NONE)
            define_scalars(w, i->sd, 2, true);
        return;
    }
    default:
        break;
    }
    if (va_rows[i->op].encoding == VA_VOPC && i->extension == VA_PLAIN) {
        demand(w, i->a, i->wa, exec, "compared");
        demand(w, i->b, i->wb, exec, "compared");
        define_scalars(w, i->sd, 2, true);
        return;
    }
    if (i->extension != VA_PLAIN || i->class == VA_CLASS_MFMA)
        a = b = c = UINT64_MAX; /* other lanes, parts of registers: not followed */
    define(w, i->d, i->wd, i->class == VA_CLASS_MFMA ? UINT64_MAX : exec, a & b & c);
    if (i->sd != VA_NONE)
        define_scalars(w, i->sd, 2, true);
}

/* Where s_set_gpr_idx_on moves an operand; beyond the kernel's registers running it is a fault. */
static uint16_t moved(const struct va_wave *w, uint16_t code, int which)
{
    uint32_t to = code + (w->gpr_index & 255);
    bool moves = code >= VA_V0 && code < VA_A0 && w->gpr_index >> (12 + which) & 1;
    return moves && to - VA_V0 < w->vgprs ? (uint16_t)to : code;
}

void va_check_registers(struct va_wave *w, const struct va_insn *i)
{
    if (i->op == VA_NO_OP)
        return;
    struct va_insn relative;
    if (w->mode & VA_MODE_GPR_IDX && i->relative) {
        relative = *i;
        relative.a = moved(w, i->a, 0), relative.b = moved(w, i->b, 1);
        relative.c = moved(w, i->c, 2), relative.d = moved(w, i->d, 3);
        i = &relative;
    }
    if (i->encoding >= VA_DS)
        memory(w, i);
    else if (i->encoding <= VA_SMEM)
        scalar(w, i);
    else
        vector(w, i);
}
