/* gemm.h: arguments of gemm.hip. */
#ifndef AMD_GEMM_H
#define AMD_GEMM_H

#include "experts.h"

/* A workgroup's rows of weights, and the inputs' columns that rows in scratch are padded to. */
enum { GEMM_ROWS = 128, GEMM_PADDING = 128 };

/* Rows for the matrix units: bf16, or FP8 with a scale for each 128 columns. The scales of the same
 * columns of all rows lie together: those of a head, or of an expert, one after the other. */
struct gemm_rows {
    char *at;
    float *scales;
    i64 row;              /* bytes from row to row, of one head */
    i64 head, scale_head; /* from head to head: bytes, floats */
    i64 scale_step;       /* from 128 columns to the next: floats */
};

#define GEMM_PADDED(columns) (((columns) + GEMM_PADDING - 1) / GEMM_PADDING * GEMM_PADDING)

struct gemm_input_arguments {
    struct view x;
    const float *norm; /* NULL: none */
    struct gemm_rows to;
    const u32 *places; /* of pairs, as gemm_group makes them; NULL: rows as they are */
    i64 columns;
    float inverse, eps; /* inverse: 1 / columns, rounded */
    u32 flags, slots;   /* ALIGNED_INPUTS; slots: with `places` */
};

/* Up to 64 or 128 places in an order of pairs, all of one expert: [first, end). */
struct gemm_tile {
    u32 expert, first, end, reserved;
};

struct gemm_group_arguments {
    struct choice choice;
    u32 *order, *places; /* of places, their pairs; of pairs, their places. places NULL: not made */
    struct gemm_tile *tiles;
    u32 pairs, slots, tile, tile_count;
};

struct gemm_arguments {
    struct view y, residual; /* mid: from slot to slot, or head to head */
    struct gemm_rows inputs;
    struct weight w, up; /* up.data NULL: no second matrix */
    const u32 *order;    /* of pairs, by `tiles`; NULL: rows as they are */
    const struct gemm_tile *tiles;
    i64 rows, columns;        /* of outputs, and of inputs */
    i64 head_rows, first_row; /* head h owns the rows from h * head_rows + first_row on */
    u32 tokens, slots, share; /* share: pairs that have one input; 0: inputs lie by place */
    u32 wide;                 /* whether 16 bytes of y and residual may be moved at once */
};

#endif
