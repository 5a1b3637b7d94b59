/* attention.h: arguments of attention.hip. */
#ifndef AMD_ATTENTION_H
#define AMD_ATTENTION_H

#include "mla.h"

/* Keys of a segment and of a chunk (rule 3), and the latent columns of a workgroup. */
enum { SEGMENT = 256, CHUNK = 64, TILE = 512 };

/* Flags besides ALIGNED_...: columns of cache rows may be read in pairs. */
enum { PAIRS = 4 };

struct attention_arguments {
    struct cache cache;
    struct view y, q;
    float *parts;  /* scratch: see PART_FLOATS */
    u32 *counters; /* one a token and group of heads */
    i64 heads, latent, width;
    u32 segments; /* workgroups side by side; 1: a workgroup walks all segments */
    u32 flags;
    float scale;
    u32 reserved;
    /* Of attention_part: bytes from segment to segment of y, the first one, and how many to the
     * next; step 0: all, merged. */
    i64 y_segment;
    u32 first, step;
};

struct attention_merge_arguments {
    struct view y, x, positions;
    u32 *fault;
    i64 tokens, latent, x_segment; /* bytes */
    u32 parts, segments;           /* of x: of each part */
};

/* A segment's result for a head, a tile and a token: its columns, maximum, sum. */
#define PART_FLOATS(latent) (((latent) < TILE ? ((latent) + 3) / 4 * 4 : TILE) + 4)

/* Dynamic LDS of T queries. */
#define QUERY_BYTES(width, heads) (((width) + 63) / 64 * 256 * (heads))

#endif
