/*
 * plan.h: parts of the files that turn an op into launches of kernels/: which kernel, its grid, its
 * arguments in the order that the kernel lists them. Shapes, dtypes and bounds have been validated
 * by the core.
 */
#ifndef NVIDIA_PLAN_H
#define NVIDIA_PLAN_H

#include <string.h>

#include "nvidia.h"

/* ---- small parts ---- */

static inline uint32_t ceil_div(int64_t a, int64_t b)
{
    return (uint32_t)((a + b - 1) / b);
}

static inline void put(struct launch *l, uint64_t value)
{
    l->args[l->arg_count++] = value;
}

static inline void put_f32(struct launch *l, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    put(l, bits);
}

static inline uint64_t address(const mh_tensor *t)
{
    /* `supports` asks with tensors and weights that have no memory. */
    return t->buffer ? (uint64_t)(uintptr_t)mh_view_buffer(t->buffer)->handle + t->offset : 0;
}

/* The address of an optional tensor, 0 if it is absent. */
static inline uint64_t address_or_0(const mh_tensor *t)
{
    return t->rank ? address(t) : 0;
}

static inline void put_tensor(struct launch *l, const mh_tensor *t, uint32_t strides)
{
    put(l, address_or_0(t));
    for (uint32_t i = 0; i < strides; i++)
        put(l, t->rank ? (uint64_t)t->stride[i] : 0);
}

static inline uint64_t plane(const mh_weight_view *w, uint32_t p)
{
    return p < w->plane_count && w->buffer ? (uint64_t)(uintptr_t)w->buffer->handle + w->offset[p]
                                           : 0;
}

/* Data, row bytes, scales, row bytes of scales. */
static inline void put_weight(struct launch *l, const mh_weight_view *w)
{
    put(l, plane(w, 0));
    put(l, (uint64_t)w->row_stride[0]);
    put(l, plane(w, 1));
    put(l, w->plane_count > 1 ? (uint64_t)w->row_stride[1] : 0);
}

/* The same, an expert's bytes behind each row's. */
static inline void put_bank(struct launch *l, const mh_weight_view *w)
{
    put(l, plane(w, 0));
    put(l, (uint64_t)w->row_stride[0]);
    put(l, (uint64_t)w->expert_stride[0]);
    put(l, plane(w, 1));
    put(l, w->plane_count > 1 ? (uint64_t)w->row_stride[1] : 0);
    put(l, w->plane_count > 1 ? (uint64_t)w->expert_stride[1] : 0);
}

static inline struct launch *begin(struct launch *l, uint32_t kernel, uint32_t format)
{
    memset(l, 0, offsetof(struct launch, args));
    l->kernel = kernel;
    l->format = format;
    l->grid[0] = l->grid[1] = l->grid[2] = 1;
    l->block = 128;
    return l;
}

static inline void set_grid(struct launch *l, int64_t x, int64_t y, int64_t z)
{
    l->grid[0] = (uint32_t)x;
    l->grid[1] = (uint32_t)y;
    l->grid[2] = (uint32_t)z;
}

/* ---- alignment: what lets dot.inc read eight weights, and stage.inc four inputs, at once ---- */

static inline bool weights_aligned(const mh_weight_view *w)
{
    return w->in % 8 == 0; /* planes are aligned, rows dense */
}

static inline bool tensor_aligned(const mh_tensor *t, int64_t columns, uint64_t bytes)
{
    uint64_t bits = address(t);
    for (uint32_t i = 0; i + 1 < t->rank; i++)
        bits |= (uint64_t)t->stride[i];
    return bits % bytes == 0 && columns % 4 == 0;
}

static inline uint64_t alignment(const mh_weight_view *w, const mh_tensor *x)
{
    return (weights_aligned(w) ? 1 : 0) | (tensor_aligned(x, w->in, 16) ? 2 : 0);
}

/* ---- shapes of dot.inc's kernels ---- */

static inline uint64_t staged_bytes(int64_t columns, uint32_t tokens)
{
    return (uint64_t)(columns + 63) / 64 * 256 * tokens;
}

/* log2 of the tokens of a block: as many as there are, up to `most`, while two blocks still fit on
 * a multiprocessor. */
static inline uint32_t tokens_log2(const struct device *device, int64_t tokens, int64_t columns,
                                   uint32_t most)
{
    uint32_t log2 = 0;
    while (log2 < most && (1 << log2) < tokens &&
           staged_bytes(columns, 2u << log2) <= device->shared_optin / 2)
        log2++;
    return log2;
}

/* Warps of a block, four rows each: fewer where that gives every multiprocessor work. */
static inline uint32_t warps(const struct device *device, int64_t rows, int64_t others)
{
    uint32_t count = 8;
    while (count > 2 && ceil_div(rows, 4 * count) * others < device->multiprocessors)
        count /= 2;
    return count;
}

/* Columns that dot.inc asks into L2 before their use: what is on its way fits there beside the
 * rest. Rows in flight are all of them, or as many as the multiprocessors hold at a time. */
static inline uint64_t columns_ahead(const struct device *device, int64_t rows,
                                     const mh_weight_view *w)
{
    enum { IN_FLIGHT = 20 << 20, ROWS_HELD = 160 };
    int64_t held = (int64_t)device->multiprocessors * ROWS_HELD;
    int64_t bytes = IN_FLIGHT / (rows < 1 ? 1 : rows < held ? rows : held);
    return (uint64_t)(bytes * w->in / w->row_stride[0]) & ~UINT64_C(127);
}

/* ---- rows ---- */

/* A block's threads for a row: 64 at least, for the fold. */
static inline uint32_t row_threads(int64_t columns)
{
    uint32_t threads = 64;
    while (threads < 512 && threads < columns)
        threads *= 2;
    return threads;
}

/* ---- ops, by the file that plans them: each fills l[0], ... and returns how many ---- */

#define PLAN(name)                                                                                 \
    uint32_t plan_##name(const struct device *device, const mh_op_##name *o,                       \
                         const struct launch_memory *memory, struct launch *l);

#define MH_OP(value, NAME, name, kind, doc, operands) PLAN(name)
#include <moehal/ops.def>
#undef MH_OP
#undef PLAN

/* The launches of an op with MH_OP_FAST by the matrix units, and its scratch; 0: its exact ones
 * serve. */
uint32_t plan_fast(const struct device *device, const mh_op *op, const struct launch_memory *memory,
                   struct launch *l, uint64_t *scratch);

/* Bytes of scratch; 0 for ops without. */
uint64_t scratch_attention(const struct device *device, const mh_op_attention *o);

/* Pieces that two files need. */
void put_cache(struct launch *l, const mh_tensor *cache, const mh_tensor *positions,
               const mh_tensor *slots, const mh_tensor *pages, const mh_tensor *fault);
void put_mla_kv(struct launch *l, const mh_tensor *cache, const mh_tensor *kv,
                const mh_tensor *norm, const mh_tensor *table, float eps);
void put_router(struct launch *l, const mh_tensor *experts, const mh_tensor *weights,
                const mh_tensor *bias, int64_t count, const mh_router_rule *rule);
uint32_t plan_logits(const struct device *device, const mh_tensor *x, const mh_weight_view *w,
                     int64_t tokens, uint64_t logits, struct launch *l);

/* Defines plan_<name>. */
#define PLAN_OP(name)                                                                              \
    uint32_t plan_##name(                                                                          \
        const struct device *device __attribute__((unused)), const mh_op_##name *o,                \
        const struct launch_memory *memory __attribute__((unused)), struct launch *l)

#endif
