/* The state of a running grid. Internal to the machine.
 *
 * A worker (host thread) holds one or more blocks; a block holds warps; a warp holds the registers
 * of 32 lanes as arrays by register. Lanes that share a pc and a frame run together as the active
 * group; the others wait with a pc of their own. */
#ifndef VIRTUAL_NVIDIA_EXEC_EXEC_H
#define VIRTUAL_NVIDIA_EXEC_EXEC_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>

#include "../../common/race.h"
#include "../ptx/module.h"
#include "../ptx/special.h"
#include "ops.h"

#define VN_LIKELY(x) __builtin_expect(!!(x), 1)
#define VN_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Generic addresses of shared and local memory: outside what the host ever maps low in memory. */
#define VN_SHARED_WINDOW ((uint64_t)0x10000000)
#define VN_LOCAL_WINDOW ((uint64_t)0x20000000)
#define VN_WINDOW_SIZE ((uint64_t)0x1000000)
/* Function addresses: never valid as data. */
#define VN_CODE_WINDOW ((uint64_t)0x0ec0de0000000000)

enum { VN_MAX_WARPS = 32, VN_MAX_DEPTH = 8192, VN_BARRIERS = 16 };

/* Which sectors a worker touched. Kept by the image for the next launch: making it costs more than
 * a small kernel. */
struct vn_maps {
    struct vn_maps *next;
    uint64_t *load, *store; /* a bit a sector of the range */
    uint8_t *touched;       /* a byte a MiB of it: 1 if any bit is set */
    uint64_t range_bytes;
};

struct vn_image {
    _Atomic(struct vn_maps *) spare; /* a list */
    struct vn_module *module;
    const struct vn_isa *isa;
    struct vc_map *map;
    uint64_t *addresses; /* of variables */
    uint8_t *constants;  /* broadcast, 256 bytes a slot */
    struct vn_image_code {
        struct vn_insn *insns; /* with handlers; ends with a trap that cannot be reached */
        struct vn_insn *fused; /* with bare mul and add made fma; NULL: none are */
    } * code;                  /* by function */
};

/* Per instruction and worker. A straight run of instructions is counted where it begins and taken
 * off behind its end: issued and lanes are sums over the instructions up to this one. */
struct vn_insn_counters {
    int64_t issued, lanes;
    uint64_t off;                   /* lanes that a guard kept out */
    uint64_t base, size;            /* the allocation in which its last access lay */
    uint64_t whole;                 /* accesses of all lanes to sectors in a row; */
    uint64_t bytes, sectors, ideal; /* of all others */
    uint64_t passes, divergences;
    uint64_t last;    /* where its last whole access was */
    uint32_t pattern; /* of its last access to shared memory */
};

struct vn_frame {
    uint32_t parent, lanes, function, depth; /* lanes: mask of those in it */
    const struct vn_insn *ret;
    uint32_t base32, base64, basep; /* bytes, bytes, words */
    uint32_t local;                 /* of this frame in a lane's local memory */
};

struct vn_worker;
struct vn_block;

struct vn_warp {
    uint8_t *base[VN_FILES];
    uint32_t *pred;
    const struct vn_insn *next, *limit;
    uint32_t active; /* the group that runs */
    uint32_t live;   /* lanes that have not exited */
    uint32_t frame;  /* of the group */
    const uint32_t *pool;
    struct vn_insn_counters *counters; /* of the function's first instruction */
    const struct vn_insn *code;
    struct vn_worker *worker;
    struct vn_block *block;
    struct vn_launch_state *launch;
    uint32_t index;   /* in the block */
    uint32_t waiting; /* lanes at a .sync that lacks others */
    uint32_t at_barrier;
    const struct vn_insn *partial; /* an aligned barrier that only some lanes have reached */
    uint32_t carry;                /* CC.CF */
    uint32_t ran;                  /* lanes that used up a quantum since the others last ran */
    const struct vn_insn *pc[32];  /* of lanes outside the active group */
    uint32_t lane_frame[32];
    uint32_t sync_mask[32]; /* of waiting lanes: whom they wait for */
    struct vn_frame *frames;
    uint32_t frame_count, frame_capacity;
    uint32_t barrier[32]; /* of lanes at one: its number */
    uint8_t *r32, *r64;   /* register stacks */
    uint32_t *preds;
    uint32_t size32, size64, sizep;
    uint8_t *local, *local_written;
    struct vn_async *async;
    uint32_t async_count, async_capacity;
    uint32_t async_groups[32]; /* committed groups, by lane */
    _Alignas(64) uint8_t specials[VN_SPECIAL_VECTORS][128];
};

/* A cp.async that has not been waited for. */
struct vn_async {
    const struct vn_insn *insn;
    uint64_t from;
    uint32_t to, bytes, zero_from; /* bytes from zero_from on are zeros */
    uint8_t lane;
    uint32_t group;
    uint8_t data[16];
};

struct vn_barrier {
    uint32_t arrived;            /* threads; a warp that comes whole counts as 32 */
    uint32_t expected;           /* threads; 0: all of the block that live */
    uint32_t popc;               /* of a reduction */
    bool any, all, open;         /* open: somebody has come */
    const struct vn_insn *insn;  /* of the first to arrive, */
    const struct vn_warp *first; /* and its warp */
    uint32_t first_function;
};

struct vn_block {
    uint32_t id[3];
    uint64_t linear;
    struct vn_launch_state *launch;
    struct vn_warp *warps;
    uint32_t warp_count, live_warps;
    uint8_t *shared;
    uint32_t shared_size;
    uint8_t *shared_written;   /* a byte a byte, if uninitialised reads are checked */
    uint32_t shared_unwritten; /* bytes; at 0 there is nothing to check */
    uint8_t *local_written;    /* likewise, of all lanes */
    struct vr_block *race;
    struct vn_barrier barriers[VN_BARRIERS];
    struct vn_worker *worker;
    uint32_t turn; /* the warp that runs next */
    uint64_t quanta;
    uint32_t async_pending; /* copies that nobody has waited for */
    bool resident;
};

/* How the addresses of 32 lanes in shared memory lie to each other, of which the passes over its
 * banks depend. Programs have few of them. */
struct vn_pattern {
    uint32_t size, passes; /* size: of an access, bytes; 0: a free place */
    bool row, same;        /* words in a row; one word for all */
    uint32_t relative[32];
};

enum { VN_PATTERNS = 32 };

struct vn_worker {
    struct vn_pattern patterns[VN_PATTERNS];
    uint32_t next_pattern;
    struct vn_maps *maps;
    struct vn_launch_state *launch;
    int index;
    struct vn_insn_counters *counters; /* of all functions, one array */
    uint64_t barriers, random, clock;
    uint64_t touched_first, touched_last; /* the pieces between which any is set */
    jmp_buf fail;                         /* an access that ends the launch */
};

struct vn_site { /* reported already */
    const char *check;
    uint32_t line;
};

struct vn_launch_state {
    const struct vn_launch *launch;
    const struct vn_image *image;
    const struct vn_code *code;
    const struct vn_insn *entry;
    uint8_t *params;
    uint64_t workspace; /* of a cooperative grid: its size and the word its blocks meet at */
    uint32_t threads, warps, shared_size, local_size;
    uint64_t blocks;
    struct vn_worker *workers;
    uint32_t share; /* blocks a worker, of a cooperative launch */
    _Atomic uint64_t next_block;
    const struct vn_isa *isa;
    _Atomic int status; /* enum vn_status: the first failure */
    uint64_t started_ns, deadline_ns;
    uint32_t *counter_base; /* by function: index of its first instruction's counters */
    uint64_t counter_count;
    struct vn_maps *maps; /* a list: the workers', and those left over */
    struct vn_site sites[64];
    uint32_t site_count;
    uint64_t report_count;
    unsigned checks;
    bool count, cooperative;
    struct vr_launch race; /* if global_races */
    bool global_races;
    pthread_mutex_t lock;             /* around sinks */
    uint64_t range_base, range_bytes; /* of the map */
    uint32_t static_shared;
};

/* ---- operands ---- */

static inline __attribute__((always_inline)) void *vn_at(const struct vn_warp *w, uint32_t code)
{
    return w->base[code & VN_FILE_MASK] + (code & ~VN_FILE_MASK);
}

/* Handlers set this to leave the inner loop after the instruction. */
static inline void vn_leave(struct vn_warp *w)
{
    w->limit = NULL;
}

/* The code of a function, as this launch wants it. */
static inline const struct vn_insn *vn_code_of(const struct vn_launch_state *s, uint32_t function)
{
    const struct vn_image_code *c = &s->image->code[function];
    return s->launch->fuse && c->fused ? c->fused : c->insns;
}

/* ---- the parts ---- */

/* loop.c, one for each instruction set */
typedef void (*vn_run_fn)(struct vn_warp *warp, uint64_t steps);
struct vn_isa {
    const char *name;
    vn_run_fn run;
    /* Adds the sectors of a MiB that the workers touched. */
    void (*sectors)(const struct vn_launch_state *s, int workers, uint64_t piece,
                    struct vn_counters *out);
    vn_handler handlers[VN_OP_COUNT];
};
const struct vn_isa *vn_isa_choose(void);

/* warp.c */
void vn_warp_start(struct vn_warp *w);
bool vn_warp_select(struct vn_warp *w); /* false: no lane can run */
void vn_warp_rotate(struct vn_warp *w); /* after a quantum */
void vn_branch(struct vn_warp *w, uint32_t taken, const struct vn_insn *target);
void vn_call(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask, uint32_t function);
void vn_return(struct vn_warp *w, uint32_t mask);
void vn_exit(struct vn_warp *w, uint32_t mask);
/* True if the lanes that `wanted` names are all here: mask then becomes all of them. Else the lanes
 * of mask wait. */
bool vn_sync(struct vn_warp *w, const struct vn_insn *insn, uint32_t *mask, uint32_t wanted);
void vn_enter_frame(struct vn_warp *w, uint32_t frame);
/* split.c: an exchange whose lanes are at different instructions. They go on behind them. */
void vn_exchange_split(struct vn_warp *w, uint32_t lanes);

/* fault.c: reports; those that hardware would make end the launch */
struct vn_access {
    const char *space, *kind; /* "global", "load" */
    uint64_t address, size;
    uint32_t lane;
};
_Noreturn void vn_fault(struct vn_warp *w, enum vn_status status, const char *check,
                        const struct vn_access *access, uint32_t lanes, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
void vn_find_report(struct vn_warp *w, const char *check, const struct vn_access *access,
                    uint32_t lanes, const struct vn_insn *other, const struct vn_warp *other_warp,
                    int other_lane, const char *format, ...) __attribute__((format(printf, 8, 9)));
/* The other party of a race, which may have ended: by the numbers of its block and thread. */
void vn_find_race(struct vn_warp *w, const char *check, const struct vn_access *access,
                  const struct vr_party *other);
void vn_find_divergence(struct vn_warp *w, const char *text, uint32_t lanes);
uint64_t vn_now_ns(void);

/* block.c */
void vn_barrier_arrive(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask);
void vn_divergent_barrier(struct vn_warp *w, const char *text);
void vn_barrier_exit(struct vn_warp *w);   /* lanes have exited */
bool vn_block_run(struct vn_block *block); /* false: done */
void vn_warp_specials(struct vn_warp *w, const struct vn_launch_state *s);
void vn_block_start(struct vn_block *block, uint64_t linear);

/* guess.c: flags such loads of a function */
void vn_mark_guesses(const struct vn_image *image, struct vn_insn *insns, uint32_t count);

/* counters.c */
bool vn_maps_create(struct vn_launch_state *s, int workers);
void vn_maps_release(struct vn_launch_state *s, int workers);
void vn_maps_destroy(struct vn_maps *maps);
bool vn_counters_collect(struct vn_launch_state *s, int workers, struct vn_counters *out);

uint64_t vn_random(struct vn_worker *worker); /* block.c */

/* race.c */
void vn_race_arrive(struct vn_warp *w, uint32_t id);
void vn_race_join(struct vn_warp *w, uint32_t id);
void vn_race_warp(struct vn_warp *w);
void vn_race_fence(struct vn_warp *w);

/* memory.c: the slow paths */
/* The host address of [address, address + size) for lane, or NULL after a fault. write: 0 load, 1
 * store, 2 atomic. */
void *vn_global(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane);
void *vn_shared(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane);
void *vn_local(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane);
void *vn_generic(struct vn_warp *w, uint64_t address, uint32_t size, int write, uint32_t lane,
                 enum vn_space *space);

#endif
