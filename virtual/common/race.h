/* race.h: races by happens-before, for virtual GPUs of any vendor: vector clocks of the warps of a
 * block, what is known of other blocks, and for each byte the last plain store and some of the
 * loads and strong stores since.
 *
 * Launches of all devices share what is remembered of global memory. Devices take turns (turns.h)
 * while they run, so that an access and what is known of it are one step: who reads a flag's value
 * takes over what was published with that value, no more and no less. */
#ifndef VIRTUAL_RACE_H
#define VIRTUAL_RACE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "memmap.h"

enum { VR_WARPS = 32, VR_BARRIERS = 16 };

/* Two of a kind, of different warps or lanes, tell each race where only barriers of the whole block
 * and of a warp order things; the third reader helps where warps meet by twos. */
enum { VR_STORES = 2, VR_READERS = 3, VR_WATCHERS = 2 };

struct vr_event {   /* an access */
    uint32_t clock; /* of its warp; 0: none */
    uint32_t block; /* its number */
    uint32_t turn;  /* lanes of one instruction share it */
    uint8_t warp, lane;
    uint8_t first; /* the first lane of several in this turn; `lane` is the last */
    bool shared : 1;
    bool write : 1;
    bool update : 1;    /* an atomic read-modify-write */
    bool guess : 1;     /* a plain load whose value such a one will check */
    uint8_t strong : 2; /* 0 weak, else 1 + how far the scope reaches: enum vr_reach */
    const void *insn;
};

/* Of a byte, or of a word whose bytes are always touched together: the last plain store, and what
 * came since. Strong stores, which atomics are, do not race with each other: the last one does not
 * speak for those before it, as a plain store does; nor does a strong load, or one that is checked,
 * for a plain one. */
struct vr_cell {
    struct vr_event write, stores[VR_STORES], reads[VR_READERS], watches[VR_WATCHERS];
};

struct vr_word {
    bool split;
    struct vr_cell bytes[4]; /* [0] for all, unless split */
};

struct vr_clocks {
    uint32_t of[VR_WARPS];
};

enum vr_reach { VR_REACH_BLOCK, VR_REACH_DEVICE, VR_REACH_ALL };

/* A block's number: its device, and how many blocks that has run before. */
enum { VR_DEVICE_SHIFT = 28, VR_NUMBERS = (1 << VR_DEVICE_SHIFT) - 1 };

static inline uint32_t vr_device_of(uint32_t number)
{
    return number >> VR_DEVICE_SHIFT;
}

/* What one block knows of another. */
struct vr_known {
    uint32_t block;
    struct vr_clocks clocks;
};

/* What comes before: of each device the blocks below `over`, and of others what their clocks say.
 */
struct vr_knowledge {
    uint32_t over[VC_MAX_DEVICES]; /* numbers; 0: none, which no block has */
    struct vr_known *items;
    uint32_t count, capacity;
};

/* What a release carries: how far the own block's warps had come, and what was known of others. */
struct vr_message {
    struct vr_clocks clocks;
    struct vr_knowledge foreign;
};

/* What a warp has released to all devices, and besides to its own. */
enum { VR_FAR, VR_NEAR, VR_MESSAGES };

/* A launch whose accesses to global memory are followed. */
struct vr_launch {
    unsigned device;
    uint32_t first, count; /* its blocks' numbers */
    const void *code;      /* what its instructions are of, see vr_unload */
    const char *kernel;
    uint32_t grid[3], block[3];
    struct vr_knowledge *before; /* what each of its blocks knows when it begins */
};

struct vr_block {
    const struct vr_launch *launch; /* NULL: only the block's own memory */
    uint32_t number, warps;
    bool lockstep; /* lanes of a warp are one thread */
    uint32_t base; /* clocks of this block's life begin here */
    uint32_t turn; /* of the access that is looked at */
    struct vr_clocks know[VR_WARPS], arrived[VR_BARRIERS];
    /* Where accesses take time (vr_release_done): what a warp knows to be done. */
    struct vr_clocks done[VR_WARPS], arrived_done[VR_BARRIERS];
    /* Of other blocks: what a warp knows; had read by strong reads, to be known at the next fence.
     */
    struct vr_knowledge foreign[VR_WARPS], read[VR_WARPS], met[VR_BARRIERS];
    /* Its last releases, and what barriers bring together of them. */
    struct vr_message told[VR_WARPS][VR_MESSAGES], met_told[VR_BARRIERS][VR_MESSAGES];
    struct vr_word *words; /* of shared memory */
    uint32_t word_count;
};

/* What an instruction does. */
struct vr_access {
    const void *insn;
    bool shared, guess;         /* see struct vr_event */
    bool strong, reads, writes; /* an atomic does both */
    bool acquire, release;      /* by itself; else the next fence, or the last, does */
    enum vr_reach reach;        /* of a strong one */
};

/* Who does it. */
struct vr_warp {
    struct vr_block *block;
    uint32_t index;
    void *user; /* for vr_tell */
};

/* The other side of a race: of which launch it was. */
struct vr_party {
    bool apart;       /* not of the same launch; else only what follows `kernel` is set */
    const void *code; /* NULL: unloaded */
    const char *kernel;
    unsigned device;
    uint32_t grid[3], size[3]; /* of its launch and of a block */
    const void *insn;
    uint64_t block; /* in its launch */
    uint32_t warp, lane;
};

/* Is told of each race; a vendor's. What it is given stays until it returns. */
typedef void vr_tell(void *user, const struct vr_access *access, uint32_t lane, uint64_t address,
                     uint32_t size, const struct vr_party *other);

/* ---- launches ---- */

/* How far a device has come: a number that grows with its launches, and begins again some day. */
uint32_t vr_reached(unsigned device);
static inline uint32_t vr_later(uint32_t a, uint32_t b)
{
    return !b || (a && (int32_t)((a - b) << 4) > 0) ? a : b; /* 0: nothing yet */
}
/* In its device's turn. `l` has all but first and before; it comes after what `after` says of each
 * device, by the order of streams, events and the host's waits, as vr_reached told when that was
 * over. false: no memory. */
bool vr_launch_begin(struct vr_launch *l, const uint32_t after[VC_MAX_DEVICES]);
void vr_launch_end(struct vr_launch *l);
/* When a stream's commands ended, of the last ones: the newest first. */
struct vr_ends {
    struct {
        uint64_t ticket;
        uint32_t reached;
    } of[16];
};
void vr_ended(struct vr_ends *ends, uint64_t ticket, unsigned device);
/* Whoever waits for the ticket, of a stream of `device`, comes after what it stands for: `after` is
 * what comes before, of each device. */
void vr_wait_for(uint32_t after[VC_MAX_DEVICES], const struct vr_ends *ends, uint64_t ticket,
                 unsigned device);
/* Nothing runs: if all that ran comes before all that will, as `seen` by device tells, nothing of
 * it is remembered any more. */
void vr_forget(const uint32_t seen[VC_MAX_DEVICES]);
void vr_unload(const void *code);

/* ---- blocks ---- */

struct vr_block *vr_create(const struct vr_launch *launch, uint32_t shared_bytes);
void vr_destroy(struct vr_block *b);
void vr_start(struct vr_block *b, uint64_t linear, uint32_t warps);
void vr_end(struct vr_block *b);
/* Warps come to a barrier; when it opens each of those that wait joins, and it is cleared. */
void vr_arrive(struct vr_warp *w, uint32_t id);
void vr_join(struct vr_warp *w, uint32_t id);
void vr_clear(struct vr_block *b, uint32_t id);
/* Lanes of a warp meet. */
void vr_meet(struct vr_warp *w);
/* What was read before it counts now; what is written after it carries what came before. */
void vr_acquire(struct vr_warp *w, enum vr_reach reach);
void vr_release(struct vr_warp *w);
/* Where an access is done only later: a warp counts its accesses by vr_next, which gives the number
 * of the one before, and says which of them are done, all below a number; a barrier passes that on.
 * A release is of what is done, and reaches all devices or one. */
uint32_t vr_next(struct vr_warp *w);
void vr_done(struct vr_warp *w, uint32_t below);
void vr_release_done(struct vr_warp *w, enum vr_reach reach);

/* ---- accesses ---- */

/* Of lanes in `mask`, `size` bytes each: shared memory's addresses are offsets in it. */
void vr_touch(struct vr_warp *w, const struct vr_access *access, const uint64_t *at, uint64_t mask,
              uint32_t size, vr_tell *tell);

#endif
