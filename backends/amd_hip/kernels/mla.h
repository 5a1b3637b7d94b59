/* mla.h: arguments of mla.hip and of the cache (cache.hiph). */
#ifndef AMD_MLA_H
#define AMD_MLA_H

#include "arguments.h"

/* The paged cache, and each row's place in it (layout: moehal/op.h). */
struct cache {
    struct view rows; /* row: from page to page, mid: from row to row */
    struct view positions, slots, table;
    u32 *fault;
    i64 pages, page_size, slot_count, slot_pages;
    u32 bf16, reserved; /* else f32 */
};

/* Rotation by position. */
struct angles {
    struct view table;
    i64 positions, size; /* of a row: cosines, then sines */
};

struct rope_arguments {
    struct view y, x, positions;
    struct angles angles;
    u32 *fault;
    i64 heads;
};

struct kv_write_arguments {
    struct cache cache;
    struct view latent, rope;
    i64 latent_size, rope_size;
};

/* What a cache row is made of: [latent | rope]. */
struct cache_row {
    struct view kv;
    const float *norm;
    i64 latent;
    float inverse, eps; /* inverse: 1 / latent, rounded */
};

struct mla_kv_arguments {
    struct cache cache; /* positions and fault: mla_query has them, too */
    struct angles angles;
    struct cache_row row;
};

struct head_columns_arguments {
    struct view y, x; /* mid: from head to head */
    struct weight w;
    i64 tokens, rows, columns;
    i64 head_rows, first_row;   /* head h owns the rows from h * head_rows + first_row on */
    struct mla_kv_arguments kv; /* kv.angles.table.at NULL: nothing is rotated */
    u32 flags, reserved;        /* ALIGNED_WEIGHTS */
};

#endif
