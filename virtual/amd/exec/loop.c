/* The inner loop, and which handlers it finds. */
#include "lanes.h"

bool VA_NAME(bind_vector)(struct va_insn *insn);
bool VA_NAME(bind_memory)(struct va_insn *insn);
bool VA_NAME(bind_matrix)(struct va_insn *insn);

static void run(struct va_wave *w, uint64_t steps)
{
    const struct va_insn *base = w->insns;
    struct va_pc_count *counts = w->counts;
    uint64_t limit = w->text_bytes / 4;
    w->leave = false;
    while (steps-- && !w->leave) {
        const struct va_insn *i = w->pc;
        uint64_t at = (uint64_t)(i - base);
        w->now = i;
        if (VA_UNLIKELY(at >= limit)) {
            w->now = base + limit - 1;
            va_fault(w, VA_INVALID_PC, "invalid-pc", -1, w->text + at * 4, 0,
                     "runs past the end of the code");
        }
        if (VA_UNLIKELY(i->top_v > w->vgprs || i->top_a > w->agprs))
            va_fault(w, VA_REGISTER, "register", -1, 0, 0,
                     "names a register that the kernel did not ask for: it has v0-v%d and a0-a%d",
                     (int)w->vgprs - 1, (int)w->agprs - 1);
        w->pc = i + i->words;
        counts[at].issued++;
        counts[at].lanes += (uint64_t)__builtin_popcountll(va_exec(w));
        if (VA_UNLIKELY(w->queue_count))
            va_check_pending(w, i);
        if (VA_UNLIKELY(w->defined != NULL))
            va_check_registers(w, i);
        if (VA_UNLIKELY(w->slow) && w->mode & VA_MODE_GPR_IDX && !i->relative &&
            (i->class == VA_CLASS_VALU || i->class == VA_CLASS_MFMA))
            va_not_implemented(w, i);
        i->run(w, i);
    }
}

static bool bind(struct va_insn *i)
{
    switch (i->encoding) {
    case VA_VOP1:
    case VA_VOP2:
    case VA_VOPC:
    case VA_VOP3:
        return VA_NAME(bind_vector)(i);
    case VA_VOP3P:
        return strstr(va_rows[i->op].name, "mfma") || strstr(va_rows[i->op].name, "smfmac")
                   ? VA_NAME(bind_matrix)(i)
                   : VA_NAME(bind_vector)(i);
    case VA_DS:
    case VA_FLAT:
    case VA_GLOBAL:
    case VA_SCRATCH:
    case VA_MUBUF:
    case VA_MTBUF:
        return VA_NAME(bind_memory)(i);
    default:
        return va_bind_scalar(i);
    }
}

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
const struct va_isa VA_NAME(isa);
const struct va_isa VA_NAME(isa) = {TEXT(VA_ISA), run, bind};
