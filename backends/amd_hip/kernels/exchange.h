/* exchange.h: ranks that write into each other's memory (mh_op_exchange): its layout, arguments. */
#ifndef AMD_EXCHANGE_H
#define AMD_EXCHANGE_H

#include "arguments.h"

enum { EXCHANGE_RANKS = 32, EXCHANGE_CHUNKS = 256, EXCHANGE_DATA = 65536 };

/* Of a rank, on its device, where the others write too; at EXCHANGE_DATA two buffers follow, which
 * take turns. */
struct exchange_memory {
    u32 epoch;  /* operations that are over */
    u32 ticket; /* workgroups of this launch that are done */
    u32 dead;   /* a kernel has given up: nothing is done any more */
    u32 reserved;
    char *ranks[EXCHANGE_RANKS];                /* where their exchange memory is, and this one */
    u32 flags[EXCHANGE_RANKS][EXCHANGE_CHUNKS]; /* the newest operation whose bytes have come */
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

/* owner, beside a rank: row r is rank r's, or that of its expert's owner. */
#define EXCHANGE_BY_ROW 0xfffffffeu
#define EXCHANGE_BY_EXPERT 0xffffffffu

#endif
