/* exchange.h: ranks that write into each other's memory (mh_op_exchange): its layout, arguments. */
#ifndef AMD_EXCHANGE_H
#define AMD_EXCHANGE_H

#include "arguments.h"

enum {
    EXCHANGE_RANKS = 32,
    EXCHANGE_CHUNKS = 256,
    EXCHANGE_SLOTS = 16384,
    EXCHANGE_DATA = 327680
};

/* Of a rank, on its device, where the others write too; at EXCHANGE_DATA two buffers follow, which
 * take turns. */
struct exchange_memory {
    u32 epoch;  /* operations that are over */
    u32 ticket; /* workgroups of this launch that are done */
    u32 dead;   /* a kernel has given up: nothing is done any more */
    u32 turn;   /* dispatches that are over */
    char *ranks[EXCHANGE_RANKS];                /* where their exchange memory is, and this one */
    u32 flags[EXCHANGE_RANKS][EXCHANGE_CHUNKS]; /* the newest operation whose bytes have come */
    /* Of a dispatch of two: number << 32 | rows that the chunk has for this rank. */
    u64 counts[2][EXCHANGE_RANKS][EXCHANGE_CHUNKS];
    u32 marks[2][EXCHANGE_SLOTS]; /* of a return of two: the newest that has a row for the slot */
};

/* Of a rank, on the host. */
struct exchange_host {
    u32 stop; /* set by the host: give up */
    u32 reserved;
    u64 fault; /* set by a kernel: 1 << 63 | rank << 32 | epoch */
};

/* x and y, addresses, as if they held all rows (or pieces) of the operation. */
struct exchange_arguments {
    struct exchange_memory *own;
    struct exchange_host *host;
    u64 timeout; /* in ticks of 10 ns */
    u64 capacity, begin, end, chunk, row, x, y;
    u32 rank, ranks, sends, receives, unit, blocks;
    /* move */
    const u32 *experts, *owners;
    u32 expert_count, owner;
    /* sum: bytes of all pieces, and from one rank's place in a buffer to the next */
    u64 size, stride;
    u32 bf16;
    u32 threads; /* of a workgroup */
};

/* begin, end, chunk and `tokens` are counted in tokens. x and y begin at the column that is moved. */
struct dispatch_arguments {
    struct exchange_arguments e;
    u64 tokens, slots, width, stride, choice_bytes;
    u32 *source, *arrived, *count, *fault;
    u32 most, choices, part, last, team, reserved;
};

/* begin and end are slots. */
struct return_arguments {
    struct exchange_arguments e;
    u64 width;
    const u32 *source;
    u32 *fault;
    u32 most, tokens, slots, team;
};

/* owner, beside a rank: row r is rank r's, or that of its expert's owner. */
#define EXCHANGE_BY_ROW 0xfffffffeu
#define EXCHANGE_BY_EXPERT 0xffffffffu

#endif
