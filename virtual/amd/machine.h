/* The machine under the runtime: gfx942 machine code in, results of launches out.
 *
 * It knows nothing of ELF or of HIP's API: the loader puts code and data of a code object into
 * memory of the map, relocates them, and says here where the text is; the exports of libamdhip64
 * are built on that. Objects are immutable after creation and may be used by several threads; a
 * launch is one call that returns when the grid has ended.
 *
 * What the numbers mean (kernel descriptor, registers at the start of a wave, kernel arguments) is
 * in the LLVM project's "User Guide for AMDGPU Backend"; what instructions do, in AMD's "Instinct
 * MI300 Instruction Set Architecture". */
#ifndef VIRTUAL_AMD_MACHINE_H
#define VIRTUAL_AMD_MACHINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/memmap.h"
#include "../common/pool.h"
#include "../common/report.h"

/* ---- code ---- */

/* Decodes the instruction at words[0]; count words may be read. Writes its text as LLVM writes it
 * (branch targets as the signed offset in words) and returns its length in words: 1 to 3. 0: not an
 * instruction of gfx942; then text says why. */
unsigned va_disassemble(const uint32_t *words, size_t count, char *text, size_t size);

struct va_code;

/* The text of one code object: `bytes` bytes at `address` (both multiples of 4), which is where
 * waves see it (s_getpc_b64), in readable memory that stays as it is until the release. The
 * instructions are decoded here, once: later changes of the bytes are not seen. Whatever is no
 * instruction stops the wave that gets there, not this call. NULL: no memory, or not multiples. */
struct va_code *va_code_create(uint64_t address, uint64_t bytes);
struct va_code *va_code_retain(struct va_code *code);
void va_code_release(struct va_code *code); /* NULL is accepted */

/* A kernel, as its descriptor (64 bytes, amdhsa_kernel_descriptor_t) says it. */
struct va_kernel {
    const char *name;             /* in reports; borrowed */
    uint64_t entry;               /* address of the first instruction, inside the text */
    uint32_t rsrc1, rsrc2, rsrc3; /* compute_pgm_rsrc1, 2 and 3 */
    uint16_t properties;          /* kernel_code_properties: which SGPRs are set up */
    uint16_t preload;   /* kernarg_preload: length in bits 0-6, offset in bits 7-15, in dwords */
    uint32_t lds_bytes; /* group_segment_fixed_size */
    uint32_t scratch_bytes; /* private_segment_fixed_size, a lane */
    bool dynamic_stack;     /* of metadata or bit 11 of properties: more scratch is needed */
};

/* What the descriptor means, for occupancy and function attributes. */
struct va_registers {
    uint32_t vgprs, agprs; /* 32-bit registers a lane that the kernel may name */
    uint32_t total;        /* of the unified file, a lane: granules of 8 */
    uint32_t sgprs;        /* a wave */
};
void va_kernel_registers(const struct va_kernel *kernel, struct va_registers *registers);

/* ---- launches ---- */

enum va_status { /* with the hipError_t they become */
                 VA_OK,
                 VA_ILLEGAL_ADDRESS,     /* hipErrorIllegalAddress */
                 VA_MISALIGNED_ADDRESS,  /* hipErrorIllegalAddress */
                 VA_INVALID_PC,          /* hipErrorLaunchFailure */
                 VA_ILLEGAL_INSTRUCTION, /* hipErrorLaunchFailure: also one not implemented */
                 VA_REGISTER,            /* hipErrorLaunchFailure: one the kernel did not ask for */
                 VA_STACK,               /* hipErrorLaunchFailure: scratch beyond its size */
                 VA_TRAP,                /* hipErrorLaunchFailure: s_trap 2 */
                 VA_ASSERT,              /* hipErrorAssert: s_trap 1, of the debugger */
                 VA_DEADLOCK,            /* hipErrorLaunchTimeOut */
                 VA_TIMEOUT,             /* hipErrorLaunchTimeOut: time_limit_ms passed */
                 VA_STOPPED,             /* *stop was set */
                 VA_INVALID_CONFIGURATION, /* hipErrorInvalidConfiguration: workgroup, LDS */
                 VA_OUT_OF_MEMORY,         /* of the host; hipErrorOutOfMemory */
};

enum va_check {
    VA_CHECK_BOUNDS = 1 << 0,        /* off: only what would crash this process is caught */
    VA_CHECK_UNINITIALISED = 1 << 1, /* memory and LDS */
    VA_CHECK_REGISTERS = 1 << 2,     /* a use of a register that nothing was written to */
    VA_CHECK_LDS_RACES = 1 << 3,
    VA_CHECK_BARRIERS = 1 << 4,
    VA_CHECK_WAITS = 1 << 5, /* loads arrive as late as s_waitcnt allows; early uses are reported */
    VA_CHECK_DEFAULT = 63,
    VA_CHECK_GLOBAL_RACES = 1 << 6, /* between devices too, which then take turns */
};

enum va_schedule { VA_ROUND_ROBIN, VA_RANDOM, VA_ADVERSARIAL };

enum va_class { /* wave instructions are counted by class */
                VA_CLASS_VALU,
                VA_CLASS_SALU, /* branches and waits too */
                VA_CLASS_SMEM,
                VA_CLASS_MFMA,
                VA_CLASS_LDS,
                VA_CLASS_GLOBAL, /* global, flat and buffer */
                VA_CLASS_SCRATCH,
                VA_CLASS_COUNT
};
const char *va_class_name(enum va_class c);

struct va_pc_counters {           /* of one instruction */
    uint64_t pc;                  /* address */
    uint64_t instructions, lanes; /* times issued by a wave; sum of its active lanes */
    uint64_t global_bytes;
    uint64_t segments64, segments128; /* that the lanes of one access touch, added up */
    uint64_t ideal64;                 /* segments64 if its bytes were packed */
    uint64_t lds_bytes, lds_passes;   /* passes: one a wave access where no banks conflict */
};

struct va_counters {
    uint64_t wave_instructions, lane_instructions;
    uint64_t by_class[VA_CLASS_COUNT];
    uint64_t valu_flops, mfma_flops;  /* an fma is two; active lanes */
    uint64_t load_bytes, store_bytes; /* global memory, requested; atomics are both */
    uint64_t segments64, segments128, ideal64;
    uint64_t unique64, unique128; /* different segments that the launch touched */
    uint64_t lds_bytes, lds_accesses, lds_passes;
    uint64_t scratch_bytes, atomics, barriers;
    uint64_t pc_count;          /* instructions with any count */
    struct va_pc_counters *pcs; /* by rising pc; owned by the struct: va_counters_free */
};
void va_counters_free(struct va_counters *counters);

struct va_sinks { /* called one at a time, from any worker thread */
    void *context;
    /* code_line of a finding is the offset of the instruction in the text, in bytes; its text names
     * kernel, pc and instruction. */
    void (*report)(void *context, const struct vc_finding *finding);
};

struct va_launch {
    struct va_code *code;
    const struct va_kernel *kernel;
    uint32_t grid[3];           /* workgroups */
    uint32_t workgroup[3];      /* lanes; at most 1024 in all */
    uint32_t last_workgroup[3]; /* lanes of the last one in each direction, if the grid is not a
                                   multiple (0: as workgroup) */
    uint32_t dynamic_lds;
    uint64_t kernarg;  /* address of the arguments, hidden ones too, in memory of the map */
    uint64_t dispatch; /* address of the AQL packet, for kernels that ask; may be 0 */
    uint64_t queue;    /* likewise of amd_queue_t */
    uint64_t dispatch_id;
    bool cooperative; /* all workgroups are resident at once */
    struct vc_map *map;
    struct vg_pool *pool;   /* NULL: on this thread alone */
    unsigned device;        /* ordinal: what memory may be touched is by it */
    uint32_t scratch_limit; /* bytes a lane, with a dynamic stack; 0: 16 KiB */

    unsigned checks; /* VA_CHECK_* */
    bool count;      /* fill counters */
    bool count_pcs;
    enum va_schedule schedule;
    uint64_t seed;
    unsigned max_reports;           /* 0: 100 */
    uint64_t time_limit_ms;         /* 0: none */
    const _Atomic bool *stop;       /* may be NULL */
    struct va_sinks sinks;          /* members may be NULL */
    uint32_t after[VC_MAX_DEVICES]; /* for races: what of each device comes before, vr_reached */
};

struct va_fault { /* what ended the launch; zeros if nothing did */
    uint64_t pc;
    char text[400]; /* kernel, pc, instruction, what happened: one line */
};

/* counters and fault may be NULL. A failing check of the kind that hardware cannot see (races,
 * uninitialised reads, waits) only reports; what hardware would fault on, and what the machine does
 * not implement, ends the launch with its status. */
enum va_status va_execute(const struct va_launch *launch, struct va_counters *counters,
                          struct va_fault *fault);

#endif
