/*
 * harness.h: ops on the host device, in every form of its kernels. Tensors lie in one buffer with
 * gaps between rows; run() checks that an op changes nothing but its outputs.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <moehal/moehal.h>

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

/* The compiler's own f16: an oracle. */
__extension__ typedef _Float16 binary16;

struct harness {
    mh_runtime *runtime;
    mh_device *device;
    mh_stream *stream;
    mh_buffer *memory;
    unsigned char *base, *before;
    uint64_t used;
    uint64_t hash; /* of every output so far: equal for all forms and threads */
    uint32_t random;
    bool hostile_mode; /* ops are encoded under flush-to-zero, rounding toward zero */
    mh_weight *weights[64];
    void *images[64]; /* what they are made of, at odd addresses */
    int weight_count;
    mh_tensor fault;
};

/* NULL, with a line of output, where the processor lacks the form. */
struct harness *harness_open(const char *isa, uint32_t threads);
void harness_close(struct harness *h);
/* Forgets all tensors and weights; the next ones take their place. */
void harness_clear(struct harness *h);

/* Rows are `gap` elements apart from dense; values from -1 to 1 (F32), or zero. */
mh_tensor make(struct harness *h, mh_dtype dtype, int64_t gap, uint32_t rank, int64_t a, int64_t b,
               int64_t c);
float *f32_at(const struct harness *h, const mh_tensor *t, int64_t i, int64_t j, int64_t k);
int32_t *i32_at(const struct harness *h, const mh_tensor *t, int64_t i, int64_t j);
float uniform(struct harness *h); /* -1 to 1 */
uint32_t below(struct harness *h, uint32_t n);

/* A random weight, used in place at an odd address; *values: [experts, out, in] as f32, decoded by
 * the test's own formulas. Lives until harness_clear. */
mh_weight *make_weight(struct harness *h, mh_format format, int64_t experts, int64_t out,
                       int64_t in, float **values);

/* Encodes, waits, checks that only outputs changed, adds them to the hash; returns the fault word,
 * which is cleared before. `outputs` ends with a tensor of rank 0. */
uint32_t run(struct harness *h, const mh_op *op, const mh_tensor *outputs);
#define RUN(h, op, ...) run((h), &(op).base, (const mh_tensor[]){__VA_ARGS__, {0}})

/* Runs a test body for each form with 1, 2 (in hostile mode) and 3 threads; all hashes must
 * agree. The backend hands to its threads only ops of 32768 multiply-adds and more. */
void for_each_form(void (*body)(struct harness *h));

#endif
