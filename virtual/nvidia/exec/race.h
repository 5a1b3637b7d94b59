/* Races by happens-before: vector clocks of the warps of a block, what a block knows of others, and
 * for each byte the last write and some of the reads since. */
#ifndef VIRTUAL_NVIDIA_EXEC_RACE_H
#define VIRTUAL_NVIDIA_EXEC_RACE_H

#include "memory.h"

enum { VN_READERS = 3 };

struct vn_event {   /* an access */
    uint32_t clock; /* of its warp; 0: none */
    uint32_t block; /* linear number, cut to 32 bits */
    uint8_t warp, lane, shared;
    uint8_t strong; /* 0 weak, else 1 + the scope reaches other blocks */
    bool update;    /* an atomic read-modify-write */
    bool guess;     /* a plain load whose value such a one will check */
    const struct vn_insn *insn;
};

struct vn_cell { /* of a byte, or of a word whose bytes are always touched together */
    struct vn_event write, reads[VN_READERS];
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
    struct vn_clocks know[VN_MAX_WARPS], arrived[VN_BARRIERS], released[VN_MAX_WARPS],
        arrived_released[VN_BARRIERS];
    struct vn_knowledge foreign;
    struct vn_knowledge read[VN_MAX_WARPS]; /* by strong reads: known at the next fence */
    struct vn_word *words;                  /* of shared memory */
    uint32_t word_count;
};

/* Whether the event comes before what warp w does now. */
bool vn_race_before(const struct vn_warp *w, uint32_t lane, const struct vn_event *e);
/* Checks an access to a byte or word and records it; true if it races with *other. */
bool vn_race_cell(struct vn_warp *w, struct vn_cell *cell, const struct vn_event *now, bool write,
                  struct vn_event *other);
/* The access in question, as an event of lane. */
struct vn_event vn_race_now(const struct vn_warp *w, uint32_t lane, int kind);
/* Applies fn's check to the words of [address, address + size). */
void vn_race_words(struct vn_warp *w, struct vn_word *words, uint64_t address, uint32_t size,
                   uint32_t lane, int kind, const char *check, const char *space);
void vn_clocks_join(struct vn_clocks *to, const struct vn_clocks *from);
void vn_knowledge_join(struct vn_knowledge *to, uint64_t block, const struct vn_clocks *clocks);

#endif
