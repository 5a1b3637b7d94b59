/*
 * core_fast.h: operands of the fast profile's cases, and products judged by its bounds. Of FP8
 * weights a device may keep either definition: inputs and weights rounded to bf16, or inputs
 * rounded to e4m3 with a scale for 128 columns and weights as they are (docs/numerics.md).
 */
#ifndef CONFORMANCE_CORE_FAST_H
#define CONFORMANCE_CORE_FAST_H

#include "bounds.h"
#include "core.h"

enum { FAST_TERMS = 1120, FAST_TOKENS = 40 };

/* One buffer of the device, filled on the host and read back. */
struct memory {
    mh_buffer *buffer;
    char *image;
    uint64_t used, size;
};

bool memory_open(struct core *c, struct memory *m, uint64_t size);
mh_tensor fast_tensor(struct memory *m, mh_dtype dtype, uint32_t rank, int64_t a, int64_t b,
                      int64_t d);
/* Of integers from -8 to 8, or of values from -1 to 1. */
mh_tensor random_tensor(struct core *c, struct memory *m, uint32_t rank, int64_t a, int64_t b,
                        int64_t d, bool integers);
void *memory_at(const struct memory *m, const mh_tensor *t);

/* A bank of random weights and what its bytes mean, [experts, out, in]. */
struct bank {
    mh_weight *w;
    double *rounded; /* to bf16 */
    double *stored;
    int64_t out, in;
    mh_format format;
};

bool make_bank(struct core *c, struct bank *bank, mh_format format, int64_t experts, int64_t out,
               int64_t in, bool integers);

/* Runs the op with MH_OP_FAST and reads the memory back. */
bool fast_run(struct core *c, struct memory *m, mh_op *op);

/* A product [rows, columns], by each definition. */
struct judged {
    struct fast_product p[2]; /* bf16; e4m3 */
    float *got;
    double *exact[2], *energy[2];
    int64_t rows, columns;
    bool e4m3; /* the second counts too */
};

bool judged_open(struct core *c, struct judged *j, int64_t rows, int64_t columns);
/* One more row: x . weights, which begin at element `first` of the bank and lie step_out and
 * step_in elements apart; what the device gave, or NULL. */
void judged_add(struct judged *j, const struct bank *bank, const float *x, int64_t terms,
                int64_t first, int64_t step_out, int64_t step_in, const float *got);
bool judge(struct core *c, const struct judged *j, bool integers, const char *what);

#endif
