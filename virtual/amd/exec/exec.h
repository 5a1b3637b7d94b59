/* The state of a running grid. Internal to the machine.
 *
 * A worker (host thread) holds one or more workgroups; a workgroup holds waves; a wave holds its
 * vector registers as arrays of 64 lanes, and a scalar register file in which VCC, M0 and EXEC have
 * the places that their operand codes name. */
#ifndef VIRTUAL_AMD_EXEC_EXEC_H
#define VIRTUAL_AMD_EXEC_EXEC_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>

#include "../../common/race.h"
#include "../isa/decode.h"
#include "../machine.h"

#define VA_LIKELY(x) __builtin_expect(!!(x), 1)
#define VA_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define VA_INLINE static inline __attribute__((always_inline))

enum { VA_LANES = 64, VA_MAX_WAVES = 16, VA_ROWS = 512 };

/* Generic addresses of LDS and of scratch, as the apertures of hardware: no host address. */
#define VA_SHARED_BASE ((uint64_t)1 << 48 << 8)
#define VA_PRIVATE_BASE ((uint64_t)2 << 48 << 8)

/* Fields of MODE. */
enum {
    VA_MODE_ROUND32 = 3,
    VA_MODE_ROUND64 = 3 << 2,
    VA_MODE_DENORM32 = 3 << 4,
    VA_MODE_DENORM64 = 3 << 6,
    VA_MODE_DX10_CLAMP = 1 << 8,
    VA_MODE_IEEE = 1 << 9,
    VA_MODE_FP16_OVFL = 1 << 23,
    VA_MODE_GPR_IDX = 1 << 27,
    VA_MODE_USUAL = VA_MODE_DENORM32 | VA_MODE_DENORM64, /* of the bits that slow things down */
    VA_MODE_SLOW = VA_MODE_ROUND32 | VA_MODE_ROUND64 | VA_MODE_DENORM32 | VA_MODE_DENORM64 |
                   VA_MODE_FP16_OVFL | VA_MODE_GPR_IDX,
};

/* What an operand of a vector operation holds. */
enum va_kind { VA_K_NONE, VA_K_B32, VA_K_F32, VA_K_B16, VA_K_F16, VA_K_B64, VA_K_F64, VA_K_I64 };

struct va_code {
    _Atomic int references;
    uint64_t address, bytes;
    struct va_insn *insns; /* one a word, each as if an instruction began there */
    const struct va_isa *isa;
};

struct va_pc_count { /* per word of the text and worker */
    uint64_t issued, lanes;
    uint64_t bytes, segments64, segments128, ideal64;
    uint64_t lds_bytes, lds_passes;
};

/* A result that has not arrived: what s_waitcnt waits for. */
enum va_counter { VA_VM, VA_LGKM, VA_SCALAR };

struct va_pending {
    uint8_t vm, lgkm, scalar; /* counters that it is in */
    uint8_t width;
    uint8_t merge; /* d16: 1 the low half is written, 2 the high one */
    uint16_t code; /* first register, VA_NONE: a store */
    bool lds;      /* the data go to LDS */
    /* Of an access that is followed (race.c): its number, 0 if it is none. */
    uint32_t access;
    bool strong, releases; /* a load that may acquire; a write-back */
    uint64_t mask;
    uint32_t to[VA_LANES]; /* in LDS, of each lane */
    uint32_t bytes;
    const struct va_insn *insn;
    uint32_t (*data)[VA_LANES]; /* [width] */
};

enum { VA_QUEUE = 64, VA_PENDING_ROWS = 4 };

struct va_worker;
struct va_group;

struct va_wave {
    uint32_t (*v)[VA_LANES]; /* [VA_ROWS]: VGPRs, then AGPRs from 256 on */
    union {
        uint32_t s[128];
        uint64_t s64[64];
    };
    const struct va_insn *pc; /* the next instruction */
    const struct va_insn *now;
    struct va_pc_count *counts; /* of the text's first word */
    const struct va_insn *insns;
    uint64_t text, text_bytes;
    uint32_t scc, mode,
        gpr_index; /* gpr_index: of s_set_gpr_idx_*: index in 0-7, modes from 12 on */
    bool slow;     /* MODE asks for more than the simple paths give */
    bool leave;    /* the inner loop ends after this instruction */
    bool done, at_barrier;
    uint32_t index;
    uint32_t vgprs, agprs, sgprs; /* allocated */
    uint64_t start_exec;
    struct va_worker *worker;
    struct va_group *group;
    struct va_launch_state *launch;
    uint8_t *scratch; /* dword d of lane l at (d * 64 + l) * 4 */
    uint32_t scratch_bytes;
    struct {
        uint64_t base, size;
    } recent[2];
    uint32_t queue_count;
    struct va_pending *queue;         /* [VA_QUEUE], oldest first; NULL: results arrive at once */
    uint32_t (*queue_rows)[VA_LANES]; /* their data */
    uint64_t *defined;                /* [VA_ROWS]: lanes that were written; NULL: not checked */
    uint64_t defined_s[2];
    uint64_t turn;
    uint32_t access; /* of what is deferred next, see struct va_pending */
    bool access_strong, access_releases;
};

struct va_lds_mark { /* of a byte: who touched it since the last barrier */
    uint32_t epoch;
    uint16_t readers, writers, atomics; /* by wave */
    uint32_t insn;                      /* of the last access, in words from the text's beginning */
};

struct va_group {
    uint32_t id[3];
    uint64_t linear;
    struct va_launch_state *launch;
    struct va_worker *worker;
    struct va_wave *waves;
    uint32_t wave_count, live, waiting;
    uint8_t *lds;
    uint32_t lds_bytes;
    uint8_t *lds_written;
    struct va_lds_mark *marks;
    struct vr_block *race; /* NULL: global memory is not followed */
    uint32_t epoch;
    const struct va_insn *barrier_insn;
    uint32_t turn;
    uint64_t quanta;
    bool resident;
};

/* Of an instruction (both halves of those with two accesses): its last pattern of LDS addresses. */
struct va_bank_memo {
    uint64_t mask;
    uint32_t bytes, passes, relative[VA_LANES];
};

enum { VA_BANK_MEMOS = 128 };

struct va_worker {
    struct va_bank_memo banks[VA_BANK_MEMOS];
    struct va_launch_state *launch;
    int index;
    struct va_pc_count *counts;
    uint64_t load_bytes, store_bytes, scratch_bytes, atomics, barriers;
    uint64_t valu_flops, mfma_flops, lds_accesses;
    uint64_t random, clock;
    jmp_buf fail;
};

struct va_site {
    const char *check;
    const struct va_insn *insn;
};

struct va_launch_state {
    const struct va_launch *launch;
    const struct va_code *code;
    const struct va_insn *entry;
    const struct va_isa *isa;
    struct va_registers registers;
    struct va_worker *workers;
    uint64_t groups;
    _Atomic uint64_t next_group;
    uint64_t share;
    uint32_t lds_bytes, scratch_bytes, lanes, waves;
    _Atomic int status;
    struct va_fault fault;
    unsigned checks;
    bool count;
    uint64_t deadline_ns;
    uint64_t range_base, range_bytes;
    uint8_t *touched; /* a bit a 64-byte segment of the range */
    struct va_site sites[64];
    uint32_t site_count;
    uint64_t report_count;
    pthread_mutex_t lock;
    bool races; /* looked for in global memory */
    struct vr_launch race;
};

/* ---- registers ---- */

VA_INLINE uint64_t va_exec(const struct va_wave *w)
{
    return w->s64[VA_EXEC / 2];
}

/* Vector or accumulation register `code`. */
VA_INLINE uint32_t *va_row(const struct va_wave *w, uint32_t code)
{
    return w->v[code - VA_V0];
}

/* The 32 bits of a scalar source: a register, a constant or the literal. */
uint32_t va_scalar_constant(const struct va_wave *w, const struct va_insn *i, uint32_t code);

VA_INLINE uint32_t va_scalar(const struct va_wave *w, const struct va_insn *i, uint32_t code)
{
    return code < 128 ? w->s[code] : va_scalar_constant(w, i, code);
}

uint64_t va_scalar64(const struct va_wave *w, const struct va_insn *i, uint32_t code,
                     bool is_signed);

/* ---- the parts ---- */

/* One for each instruction set of the host. */
struct va_vector_op {
    va_lane_fn fn, saturating; /* saturating: with clamp, of integers */
    va_lane_fn wide;           /* of an f16 result: as f32, to be rounded as MODE says */
    uint8_t d, a, b, c;        /* enum va_kind */
    uint8_t flops, keeps;      /* keeps: the upper half of a 16-bit destination stays */
};

struct va_isa {
    const char *name;
    void (*run)(struct va_wave *w, uint64_t steps);
    /* Fills insn->run and what it needs; false: not implemented. */
    bool (*bind)(struct va_insn *insn);
};
const struct va_isa *va_isa_choose(void);

/* scalar.c, control.c: the same for all */
bool va_bind_scalar(struct va_insn *insn);
bool va_bind_control(struct va_insn *insn);

/* wait.c */
void va_wait(struct va_wave *w, unsigned vm, unsigned lgkm);
/* Where a load of `width` registers may put its data until it arrives; NULL: at once. */
struct va_pending *va_defer(struct va_wave *w, const struct va_insn *insn, bool vm, bool lgkm,
                            bool scalar, uint16_t code, unsigned width);
void va_check_pending(struct va_wave *w, const struct va_insn *insn);

/* defined.c */
void va_check_registers(struct va_wave *w, const struct va_insn *insn);

/* fault.c */
_Noreturn void va_fault(struct va_wave *w, enum va_status status, const char *check, int lane,
                        uint64_t address, uint64_t bytes, const char *format, ...)
    __attribute__((format(printf, 7, 8)));
void va_find(struct va_wave *w, const char *check, int lane, uint64_t address, uint64_t bytes,
             const struct va_insn *other, const char *format, ...)
    __attribute__((format(printf, 7, 8)));
_Noreturn void va_not_implemented(struct va_wave *w, const struct va_insn *insn);
uint64_t va_now_ns(void);

/* launch.c */
uint64_t va_random(struct va_worker *worker);

/* group.c */
void va_group_start(struct va_group *group, uint64_t linear);
bool va_group_run(struct va_group *group); /* false: it has ended */
void va_barrier(struct va_wave *w, const struct va_insn *insn);

/* race.c: if group->race. write: 0 load, 1 store, 2 atomic. */
void va_race_access(struct va_wave *w, const struct va_insn *insn, const uint64_t *at,
                    uint64_t mask, uint32_t bytes, int write);
void va_race_fence(struct va_wave *w, const struct va_insn *insn);
void va_race_released(struct va_wave *w, const struct va_insn *insn, uint32_t access);
void va_race_barrier(struct va_wave *w);
void va_race_join(struct va_wave *w);

/* address.c: the slow paths. write: 0 load, 1 store, 2 atomic. */
void *va_global(struct va_wave *w, uint64_t address, uint32_t bytes, int write, int lane);
bool va_known_allocation(struct va_wave *w, uint64_t low, uint64_t high, uint32_t bytes,
                         bool write);
void va_lds_check(struct va_wave *w, uint32_t at, uint32_t bytes, int write, int lane);
void va_touch(struct va_launch_state *s, uint64_t address, uint64_t bytes);
/* Refuses descriptors that spread or number the lanes' elements; else the address of lane's bytes;
 * false: they lie outside of the buffer. */
void va_check_buffer(struct va_wave *w, const struct va_insn *insn);
bool va_buffer_address(const struct va_wave *w, const struct va_insn *insn, int lane,
                       uint32_t bytes, uint64_t *address);

/* counters.c */
bool va_counters_collect(struct va_launch_state *s, int workers, struct va_counters *out);

#endif
