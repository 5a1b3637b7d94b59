/*
 * arguments.h: the kernels' arguments, one struct a kernel, for both sides: the plans of ops_….c
 * fill them, kernels take them by value. Parts here, the structs beside the kernels: linear.h, ...
 * Sizes and strides are 64 bits; strides are in bytes.
 */
#ifndef AMD_ARGUMENTS_H
#define AMD_ARGUMENTS_H

typedef __INT64_TYPE__ i64;
typedef __UINT64_TYPE__ u64;
typedef __UINT32_TYPE__ u32;

/* A tensor: where it begins, and the bytes from one of its first two dimensions' to the next.
 * Absent: `at` is NULL. */
struct view {
    char *at;
    i64 row, mid;
};

/* A weight or a bank of experts: data and (FP8) scales, and bytes from row to row, expert to
 * expert. */
struct weight {
    const char *data, *scales;
    i64 row, scale_row, expert, scale_expert;
};

/* What a kernel writes to the fault word. */
enum { OUT_OF_MEMORY = 2, BAD_INDEX = 5 };

/* Weight formats and dtypes, as in moehal's .def files. */
enum { F32 = 1, F16 = 2, BF16 = 3, FP8 = 4 };

/* ALIGNED flags: rows of weights are whole eights; inputs may be read 16 bytes at a time. */
enum { ALIGNED_WEIGHTS = 1, ALIGNED_INPUTS = 2 };

#endif
