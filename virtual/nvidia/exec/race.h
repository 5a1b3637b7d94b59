/* Races by happens-before: vector clocks of the warps of a block, what a block knows of others, and
 * for each byte the last plain store and some of the loads and strong stores since. */
#ifndef VIRTUAL_NVIDIA_EXEC_RACE_H
#define VIRTUAL_NVIDIA_EXEC_RACE_H

#include "memory.h"

/* Two of a kind, of different warps or lanes, tell each race where only barriers of the whole block
 * and of a warp order things; the third reader helps where warps meet by twos. */
enum { VN_STORES = 2, VN_READERS = 3, VN_WATCHERS = 2 };

struct vn_event {   /* an access */
    uint32_t clock; /* of its warp; 0: none */
    uint32_t block; /* its number */
    uint32_t turn;  /* lanes of one instruction share it */
    uint8_t warp, lane;
    uint8_t first; /* the first lane of several in this turn; `lane` is the last */
    bool shared : 1;
    bool write : 1;
    bool update : 1;    /* an atomic read-modify-write */
    bool guess : 1;     /* a plain load whose value such a one will check */
    uint8_t strong : 2; /* 0 weak, else 1 + how far the scope reaches: enum vn_reach */
    const struct vn_insn *insn;
};

/* Of a byte, or of a word whose bytes are always touched together: the last plain store, and what
 * came since. Strong stores, which atomics are, do not race with each other: the last one does not
 * speak for those before it, as a plain store does; nor does a strong load, or one that is checked,
 * for a plain one. */
struct vn_cell {
    struct vn_event write, stores[VN_STORES], reads[VN_READERS], watches[VN_WATCHERS];
};

struct vn_word {
    bool split;
    struct vn_cell bytes[4]; /* [0] for all, unless split */
};

struct vn_clocks {
    uint32_t of[VN_MAX_WARPS];
};

enum vn_reach { VN_REACH_BLOCK, VN_REACH_DEVICE, VN_REACH_ALL };

/* A block's number: its device, and how many blocks that has run before. */
enum { VN_DEVICE_SHIFT = 28, VN_NUMBERS = (1 << VN_DEVICE_SHIFT) - 1 };

static inline uint32_t vn_device_of(uint32_t number)
{
    return number >> VN_DEVICE_SHIFT;
}

/* What one block knows of another. */
struct vn_known {
    uint32_t block;
    struct vn_clocks clocks;
};

/* What comes before: of each device the blocks below `over`, and of others what their clocks say.
 */
struct vn_knowledge {
    uint32_t over[VC_MAX_DEVICES]; /* numbers; 0: none, which no block has */
    struct vn_known *items;
    uint32_t count, capacity;
};

struct vn_race {   /* of a block */
    uint32_t base; /* clocks of this block's life begin here */
    uint32_t turn; /* of the access that is looked at */
    struct vn_clocks know[VN_MAX_WARPS], arrived[VN_BARRIERS], released[VN_MAX_WARPS],
        arrived_released[VN_BARRIERS];
    /* Of other blocks: what a warp knows; had read by strong reads, to be known at the next fence;
     * knew at its last release; and barriers bring together of both. */
    struct vn_knowledge foreign[VN_MAX_WARPS], read[VN_MAX_WARPS], told[VN_MAX_WARPS],
        met[VN_BARRIERS], met_told[VN_BARRIERS];
    struct vn_word *words; /* of shared memory */
    uint32_t word_count;
};

/* Checks an access of lane to the words of [address, address + size), records it, or both. */
enum { VN_RACE_CHECK = 1, VN_RACE_RECORD = 2 };
void vn_race_words(struct vn_warp *w, struct vn_word *words, uint64_t address, uint32_t size,
                   uint32_t lane, int kind, bool shared, int steps);
/* A plain store ends what was before it: all lanes are checked before one is recorded. */
bool vn_race_in_two_steps(uint32_t mask, int kind);
void vn_clocks_join(struct vn_clocks *to, const struct vn_clocks *from);
void vn_knowledge_join(struct vn_knowledge *to, uint32_t block, const struct vn_clocks *clocks);
void vn_knowledge_add(struct vn_knowledge *to, const struct vn_knowledge *from);
void vn_knowledge_copy(struct vn_knowledge *to, const struct vn_knowledge *from);
void vn_knowledge_clear(struct vn_knowledge *k);
bool vn_knows(const struct vn_knowledge *k, uint32_t block, uint32_t warp, uint32_t clock);
enum vn_reach vn_reach_of(const struct vn_insn *insn);
/* Whether an access of one block has the other in its scope. */
bool vn_reaches(enum vn_reach reach, uint32_t block, uint32_t other);
/* The other side of a race: of which launch it was. What it points to stays until it is told. */
void vn_global_race_party(const struct vn_event *e, struct vn_party *party);
void vn_global_race_told(void);

#endif
