/*
 * reference.h: what an op case must come to, in f64 with running error bounds: each value carries
 * how far the rounding steps of docs/numerics.md may take it from the exact one. Integers and
 * copies are exact. It knows formulas, not orders of summation: those the vectors pin.
 */
#ifndef CONFORMANCE_REFERENCE_H
#define CONFORMANCE_REFERENCE_H

#include "build.h"

enum expect_kind {
    EXPECT_KEPT,    /* untouched */
    EXPECT_NUMBER,  /* within bound of value; NaN where value is NaN */
    EXPECT_BITS,    /* exactly these */
    EXPECT_ANYTHING /* beyond what bounds can say: overflow on the way */
};

struct expect {
    double value, bound;
    uint32_t bits;
    enum expect_kind kind;
    bool no_minus_zero; /* a zero is +0: rule 2's last addition sees to it */
};

struct conf_reference {
    struct conf_build *b;
    struct expect *of[BUILD_OPERANDS]; /* of written operands, row-major */
    bool fault;                        /* some index is out of range */
};

/* Computes everything; false if memory ran out. */
bool conf_reference_make(struct conf_reference *r, struct conf_build *b);
void conf_reference_free(struct conf_reference *r);

/* Compares the buffers after the op; false with the first difference in message. */
bool conf_reference_check(const struct conf_reference *r, uint8_t *const *after, char *message,
                          size_t size);

/* ---- for the files that hold the references ---- */

struct num {
    double v, b;
};

static inline struct num exactly(double v)
{
    return (struct num){v, 0};
}
struct num rounded(double v, double b); /* one more rounding to f32 */
struct num num_add(struct num a, struct num b);
struct num num_mul(struct num a, struct num b);
struct num num_exp(struct num a);
struct num num_rcp(struct num a);
struct num num_sqrt(struct num a);
struct num num_sigmoid(struct num a);
struct num num_swiglu(struct num gate, struct num up);
/* Rule 2 over `count` pairs. */
struct num num_dot(const struct num *x, const double *w, int64_t count);

/* Rule 6 on x[0 .. size), with the tensor `weight`; writes over x. `squares` is room for size. */
void num_norm(const struct conf_reference *r, const char *weight, struct num *x, int64_t size,
              float eps, double *squares);

/* The operand's expectations at an index. */
struct expect *expect_at(struct conf_reference *r, const char *operand, int64_t i, int64_t j,
                         int64_t k);
void expect_num(struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k,
                struct num n);
/* The same for what comes straight out of rule 2 or 3, which is never -0. */
void expect_sum(struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k,
                struct num n);
void expect_bits(struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k,
                 uint32_t bits);
double input(const struct conf_reference *r, const char *operand, int64_t i, int64_t j, int64_t k);
int32_t index_of(const struct conf_reference *r, const char *operand, int64_t i, int64_t j);
bool has(const struct conf_reference *r, const char *operand);
int64_t size_of(const struct conf_reference *r, char letter);

/* reference_choice.c: ops that choose */
void reference_argmax(struct conf_reference *r);
void reference_router(struct conf_reference *r);
void reference_sample(struct conf_reference *r);
/* What they choose is judged afterwards: several answers may be right within the bounds. */
bool check_router(const struct conf_reference *r, uint8_t *const *after, char *message,
                  size_t size);
bool check_sample(const struct conf_reference *r, uint8_t *const *after, char *message,
                  size_t size);

#endif
