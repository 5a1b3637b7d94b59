/* Program counter, waits, barriers, hardware registers, scalar memory. */
#include <sched.h>
#include <time.h>

#include "../../common/turns.h"
#include "exec.h"

#define OP(name) static void op_##name(struct va_wave *w, const struct va_insn *i)

static uint64_t address_of(const struct va_wave *w, const struct va_insn *i)
{
    return w->text + (uint64_t)(i - w->insns) * 4;
}

static void jump(struct va_wave *w, uint64_t address)
{
    uint64_t offset = address - w->text;
    if (offset >= w->text_bytes || offset & 3)
        va_fault(w, VA_INVALID_PC, "invalid-pc", -1, address, 0,
                 "jumps to 0x%llx, outside of the code", (unsigned long long)address);
    w->pc = w->insns + offset / 4;
}

VA_INLINE void branch(struct va_wave *w, const struct va_insn *i, bool taken)
{
    if (!taken)
        return;
    const struct va_insn *to = i + 1 + i->offset;
    if (VA_UNLIKELY((uint64_t)(to - w->insns) >= w->text_bytes / 4))
        jump(w, address_of(w, i) + 4 + (uint64_t)((int64_t)i->offset * 4));
    w->pc = to;
}

OP(s_branch)
{
    branch(w, i, true);
}
OP(s_cbranch_scc0)
{
    branch(w, i, !w->scc);
}
OP(s_cbranch_scc1)
{
    branch(w, i, w->scc);
}
OP(s_cbranch_vccz)
{
    branch(w, i, !w->s64[VA_VCC / 2]);
}
OP(s_cbranch_vccnz)
{
    branch(w, i, w->s64[VA_VCC / 2]);
}
OP(s_cbranch_execz)
{
    branch(w, i, !va_exec(w));
}
OP(s_cbranch_execnz)
{
    branch(w, i, va_exec(w));
}
/* No debugger is ever attached. */
OP(s_nop)
{
    (void)w;
    (void)i;
}
/* The other waves come first, and what it waits for may be another device's to do. */
OP(s_sleep)
{
    (void)i;
    w->leave = true;
    sched_yield();
}
OP(s_endpgm)
{
    (void)i;
    w->done = w->leave = true;
}
OP(s_barrier)
{
    va_barrier(w, i);
}
OP(s_waitcnt)
{
    uint32_t imm = (uint16_t)i->offset;
    if (w->queue_count)
        va_wait(w, (imm & 15) | (imm >> 14 & 3) << 4, imm >> 8 & 15);
}
OP(s_trap)
{
    uint32_t id = (uint32_t)i->offset & 255;
    if (id == 1)
        va_fault(w, VA_ASSERT, "trap", -1, 0, 0, "debug trap (s_trap 1)");
    if (id == 2)
        va_fault(w, VA_TRAP, "trap", -1, 0, 0, "trap (s_trap 2: an abort or a failed assertion)");
    if (id != 3)
        va_fault(w, VA_TRAP, "trap", -1, 0, 0, "trap %u", id);
}
OP(s_sendmsg)
{
    uint32_t id = (uint32_t)i->offset & 15;
    if (id != 1 && id != 4 && id != 6 && id != 8 && id != 9 && id != 11) /* an interrupt at most */
        va_not_implemented(w, i);
}
OP(s_getpc_b64)
{
    w->s64[i->d / 2] = address_of(w, i) + 4;
}
OP(s_setpc_b64)
{
    jump(w, va_scalar64(w, i, i->a, false));
}
OP(s_swappc_b64)
{
    uint64_t to = va_scalar64(w, i, i->a, false);
    w->s64[i->d / 2] = address_of(w, i) + 4;
    jump(w, to);
}
OP(s_call_b64)
{
    w->s64[i->d / 2] = address_of(w, i) + 4;
    branch(w, i, true);
}

/* ---- hardware registers ---- */

static uint32_t read_register(struct va_wave *w, const struct va_insn *i, uint32_t id)
{
    switch (id) {
    case 1:
        return w->mode;
    case 2:
        return (w->scc & 1) | (va_exec(w) ? 0 : 1u << 9) | (w->s64[VA_VCC / 2] ? 0 : 1u << 10);
    case 3:
    case 7:
        return 0;
    case 4: /* wave, SIMD and compute unit */
        return (w->index & 15) | (w->index & 3) << 4 | (uint32_t)(w->group->linear % 40) << 8;
    case 5:
        return 0;
    case 6:
        return (w->group->lds_bytes + 511) / 512 << 12;
    case 15:
        return (uint32_t)(VA_SHARED_BASE >> 48) << 16 | (uint32_t)(VA_PRIVATE_BASE >> 48);
    case 20:
        return (uint32_t)(w->group->linear & 7); /* workgroups go round the eight dies */
    default:
        va_not_implemented(w, i);
    }
}

static void set_mode(struct va_wave *w, uint32_t mode)
{
    w->mode = mode;
    w->slow = (mode & VA_MODE_SLOW) != VA_MODE_USUAL;
}

static void write_register(struct va_wave *w, const struct va_insn *i, uint32_t value)
{
    uint32_t imm = (uint16_t)i->offset, id = imm & 63, shift = imm >> 6 & 31;
    uint32_t width = (imm >> 11 & 31) + 1;
    uint32_t mask = (width == 32 ? UINT32_MAX : (1u << width) - 1) << shift;
    if (id != 1 && id != 3)
        va_not_implemented(w, i);
    if (id == 1)
        set_mode(w, (w->mode & ~mask) | (value << shift & mask));
}

OP(s_getreg_b32)
{
    uint32_t imm = (uint16_t)i->offset, width = (imm >> 11 & 31) + 1;
    uint32_t v = read_register(w, i, imm & 63) >> (imm >> 6 & 31);
    w->s[i->d] = width == 32 ? v : v & ((1u << width) - 1);
}
OP(s_setreg_b32)
{
    write_register(w, i, w->s[i->d]);
}
OP(s_setreg_imm32_b32)
{
    write_register(w, i, i->literal);
}

/* ---- relative vector registers ---- */

OP(s_set_gpr_idx_on)
{
    w->gpr_index = va_scalar(w, i, i->a) & 255;
    w->gpr_index |= ((uint32_t)i->offset & 15) << 12;
    w->s[VA_M0] = (w->s[VA_M0] & ~0xf0ffu) | w->gpr_index;
    set_mode(w, w->mode | VA_MODE_GPR_IDX);
}
OP(s_set_gpr_idx_off)
{
    (void)i;
    set_mode(w, w->mode & ~(uint32_t)VA_MODE_GPR_IDX);
}
OP(s_set_gpr_idx_idx)
{
    w->gpr_index = (w->gpr_index & 0xf000) | (va_scalar(w, i, i->a) & 255);
    w->s[VA_M0] = (w->s[VA_M0] & ~0xffu) | (w->gpr_index & 255);
}
OP(s_set_gpr_idx_mode)
{
    w->gpr_index = (w->gpr_index & 255) | ((uint32_t)i->offset & 15) << 12;
    w->s[VA_M0] = (w->s[VA_M0] & ~0xf000u) | (w->gpr_index & 0xf000);
}

/* ---- scalar memory ---- */

/* The offset counts from the register as unsigned, from the instruction as signed. */
static uint64_t scalar_address(struct va_wave *w, const struct va_insn *i)
{
    uint64_t offset = (uint64_t)(int64_t)i->offset;
    if (i->b != VA_NONE)
        offset += va_scalar(w, i, i->b);
    return (w->s64[i->a / 2] + offset) & ~3ull;
}

static void deliver(struct va_wave *w, const struct va_insn *i, const uint32_t *data, unsigned n)
{
    struct va_pending *p = va_defer(w, i, false, true, true, i->d, n);
    for (unsigned k = 0; k < n; k++) {
        if (p)
            p->data[0][k] = data[k];
        else
            w->s[i->d + k] = data[k];
    }
}

OP(s_load)
{
    uint32_t data[16];
    uint64_t at = scalar_address(w, i);
    memcpy(data, va_global(w, at, i->wd * 4u, 0, -1), i->wd * 4u);
    if (w->group->race)
        va_race_access(w, i, &at, 1, i->wd * 4u, 0);
    deliver(w, i, data, i->wd);
}

OP(s_buffer_load)
{
    uint32_t data[16];
    uint64_t base = w->s64[i->a / 2] & 0xffffffffffff, offset = (uint64_t)(int64_t)i->offset;
    uint32_t stride = w->s[i->a + 1] >> 16 & 0x3fff, records = w->s[i->a + 2];
    uint64_t limit = stride ? (uint64_t)stride * records : records;
    if (i->b != VA_NONE)
        offset += va_scalar(w, i, i->b);
    offset &= ~3ull;
    for (unsigned k = 0; k < i->wd; k++) {
        data[k] = 0;
        if (offset + 4 * k + 4 <= limit)
            memcpy(&data[k], va_global(w, base + offset + 4 * k, 4, 0, -1), 4);
    }
    deliver(w, i, data, i->wd);
}

OP(s_dcache)
{
    (void)w;
    (void)i;
}

static uint64_t clock_ticks(const struct va_wave *w)
{
    struct timespec t;
    if (w->launch->races)
        return vc_turns_ns() / 10;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 100000000u + (uint64_t)t.tv_nsec / 10; /* 100 MHz */
}

/* Every instruction of the worker is a cycle. */
OP(s_memtime)
{
    uint64_t v = w->worker->clock;
    uint32_t data[2] = {(uint32_t)v, (uint32_t)(v >> 32)};
    deliver(w, i, data, 2);
}
OP(s_memrealtime)
{
    uint64_t v = clock_ticks(w);
    uint32_t data[2] = {(uint32_t)v, (uint32_t)(v >> 32)};
    deliver(w, i, data, 2);
}

static const va_handler handlers[VA_OP_COUNT] = {
#define HP(name) [VA_SOPP_##name] = op_##name,
#define H1(name) [VA_SOP1_##name] = op_##name,
#define HK(name) [VA_SOPK_##name] = op_##name,
    HP(s_branch) HP(s_cbranch_scc0) HP(s_cbranch_scc1) HP(s_cbranch_vccz) HP(s_cbranch_vccnz)
        HP(s_cbranch_execz) HP(s_cbranch_execnz) HP(s_nop) HP(s_sleep) HP(s_endpgm) HP(s_barrier)
            HP(s_waitcnt) HP(s_trap) HP(s_sendmsg) HP(s_set_gpr_idx_off)
                HP(s_set_gpr_idx_mode)[VA_SOPP_s_endpgm_saved] = op_s_endpgm,
    [VA_SOPP_s_wakeup] = op_s_nop,
    [VA_SOPP_s_sethalt] = op_s_nop,
    [VA_SOPP_s_setprio] = op_s_nop,
    [VA_SOPP_s_icache_inv] = op_s_nop,
    [VA_SOPP_s_incperflevel] = op_s_nop,
    [VA_SOPP_s_decperflevel] = op_s_nop,
    [VA_SOPP_s_ttracedata] = op_s_nop,
    [VA_SOPP_s_cbranch_cdbgsys] = op_s_nop,
    [VA_SOPP_s_cbranch_cdbguser] = op_s_nop,
    [VA_SOPP_s_cbranch_cdbgsys_or_user] = op_s_nop,
    [VA_SOPP_s_cbranch_cdbgsys_and_user] = op_s_nop,
    H1(s_getpc_b64) H1(s_setpc_b64) H1(s_swappc_b64) H1(s_set_gpr_idx_idx) HK(s_call_b64)
        HK(s_getreg_b32) HK(s_setreg_b32) HK(s_setreg_imm32_b32)[VA_SOPC_s_set_gpr_idx_on] =
            op_s_set_gpr_idx_on,
    [VA_SMEM_s_load_dword] = op_s_load,
    [VA_SMEM_s_load_dwordx2] = op_s_load,
    [VA_SMEM_s_load_dwordx4] = op_s_load,
    [VA_SMEM_s_load_dwordx8] = op_s_load,
    [VA_SMEM_s_load_dwordx16] = op_s_load,
    [VA_SMEM_s_buffer_load_dword] = op_s_buffer_load,
    [VA_SMEM_s_buffer_load_dwordx2] = op_s_buffer_load,
    [VA_SMEM_s_buffer_load_dwordx4] = op_s_buffer_load,
    [VA_SMEM_s_buffer_load_dwordx8] = op_s_buffer_load,
    [VA_SMEM_s_buffer_load_dwordx16] = op_s_buffer_load,
    [VA_SMEM_s_dcache_inv] = op_s_dcache,
    [VA_SMEM_s_dcache_wb] = op_s_dcache,
    [VA_SMEM_s_dcache_inv_vol] = op_s_dcache,
    [VA_SMEM_s_dcache_wb_vol] = op_s_dcache,
    [VA_SMEM_s_memtime] = op_s_memtime,
    [VA_SMEM_s_memrealtime] = op_s_memrealtime,
};

bool va_bind_control(struct va_insn *insn)
{
    if (insn->encoding == VA_SMEM)
        insn->class = VA_CLASS_SMEM;
    insn->run = handlers[insn->op];
    return insn->run;
}
