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
    uint32_t block; /* linear number, cut to 32 bits */
    uint32_t turn;  /* lanes of one instruction share it */
    uint8_t warp, lane;
    uint8_t first; /* the first lane of several in this turn; `lane` is the last */
    bool shared : 1;
    bool write : 1;
    bool update : 1;    /* an atomic read-modify-write */
    bool guess : 1;     /* a plain load whose value such a one will check */
    uint8_t strong : 2; /* 0 weak, else 1 + the scope reaches other blocks */
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

/* What one block knows of another. */
struct vn_known {
    uint64_t block;
    struct vn_clocks clocks;
};

struct vn_knowledge {
    struct vn_known *items;
    uint32_t count, capacity;
};

struct vn_race {   /* of a block */
    uint32_t base; /* clocks of this block's life begin here */
    uint32_t turn; /* of the access that is looked at */
    struct vn_clocks know[VN_MAX_WARPS], arrived[VN_BARRIERS], released[VN_MAX_WARPS],
        arrived_released[VN_BARRIERS];
    struct vn_knowledge foreign;
    struct vn_knowledge read[VN_MAX_WARPS]; /* by strong reads: known at the next fence */
    struct vn_word *words;                  /* of shared memory */
    uint32_t word_count;
};

/* Checks an access of lane to the words of [address, address + size), records it, or both. */
enum { VN_RACE_CHECK = 1, VN_RACE_RECORD = 2 };
void vn_race_words(struct vn_warp *w, struct vn_word *words, uint64_t address, uint32_t size,
                   uint32_t lane, int kind, bool shared, int steps);
/* A plain store ends what was before it: all lanes are checked before one is recorded. */
bool vn_race_in_two_steps(uint32_t mask, int kind);
void vn_clocks_join(struct vn_clocks *to, const struct vn_clocks *from);
void vn_knowledge_join(struct vn_knowledge *to, uint64_t block, const struct vn_clocks *clocks);

#endif
