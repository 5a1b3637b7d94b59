/* gemm.h: arguments of gemm.hip. */
#ifndef AMD_GEMM_H
#define AMD_GEMM_H

#include "experts.h"

/* A workgroup's rows of weights, and the inputs' columns that rows in scratch are padded to. */
enum { GEMM_ROWS = 128, GEMM_PADDING = 128 };

/* Rows for the matrix units, one after the other: bf16; or FP8, then a scale for 128 columns. */
struct gemm_rows {
    char *at;
    i64 row; /* bytes */
};

struct gemm_input_arguments {
    struct view x;
    const float *norm; /* NULL: none */
    struct gemm_rows to;
    i64 slots, columns;
    float inverse, eps; /* inverse: 1 / columns, rounded */
};

/* Up to 64 or 128 places in an order of pairs, all of one expert: [first, end). */
struct gemm_tile {
    u32 expert, first, end, reserved;
};

struct gemm_group_arguments {
    struct choice choice;
    u32 *order;
    struct gemm_tile *tiles;
    u32 pairs, slots, tile, tile_count;
};

struct gemm_arguments {
    struct view y, residual; /* mid: from slot to slot, or head to head */
    struct gemm_rows inputs; /* of a head */
    i64 input_head;          /* bytes from head to head */
    struct weight w, up;     /* up.data NULL: no second matrix */
    const u32 *order;        /* of pairs, by `tiles`; NULL: rows as they are */
    const struct gemm_tile *tiles;
    i64 rows, columns;
    i64 head_rows, first_row; /* head h owns the rows from h * head_rows + first_row on */
    u32 tokens, slots, share; /* share: pairs that have one input */
    u32 wide;                 /* whether 16 bytes of y and residual may be moved at once */
};

#endif
