/*
 * case.h: op cases. A case is a row of the product op x format x sizes x layout x values x variant;
 * its name says all of it, so that one line repeats it: linear/bf16/T3.O65.I130/gaps/random/plain.
 */
#ifndef CONFORMANCE_CASE_H
#define CONFORMANCE_CASE_H

#include "conformance.h"

enum conf_layout {
    LAYOUT_DENSE,   /* every operand in a buffer of its own, from byte 0 */
    LAYOUT_GAPS,    /* one buffer; rows, and heads, apart */
    LAYOUT_SHIFTED, /* one buffer; offsets aligned to the element only, weights to the byte */
    LAYOUT_INPLACE, /* as gaps, outputs in place of an input where the op allows it */
    LAYOUTS
};

enum conf_values {
    VALUES_RANDOM,  /* -1 to 1 */
    VALUES_INTS,    /* small integers: sums are exact in any order */
    VALUES_SPECIAL, /* with NaN, infinities, zeros of both signs, denormals, the largest */
    VALUES_TINY,    /* products and results are denormal */
    VALUES_WIDE,    /* magnitudes from 2^-30 to 2^30: sums cancel */
    VALUES_TIES,    /* few different values */
    VALUES_KINDS
};

#define CASE_NAME 160

struct conf_case {
    mh_op_id op;
    mh_format format; /* of weights; 0: the op has none */
    mh_dtype dtype;   /* of the cache, or of copy, fill and cast; 0: neither */
    mh_dtype to;      /* cast's y */
    int64_t dim[128]; /* by letter of ops.def */
    enum conf_layout layout;
    enum conf_values values;
    uint32_t variant; /* of the op's list */
    uint64_t seed;
    char name[CASE_NAME];
};

/* How an op is tested. Letters are those of its operands in ops.def. */
struct op_rule {
    mh_op_id op;
    const char *letters; /* free sizes, in the order of the name */
    const char *const *variants;
    const char *sizes;       /* pools of sizes to draw from, one a letter: "T:rows I:deep ..." */
    const char *const *real; /* sizes of V3, V2-Lite, Moonlight: "T1.O576.I7168"; NULL-ended */
    uint32_t values;         /* bit v: these values make sense */
    const char *in_place;    /* "y=x": outputs of LAYOUT_INPLACE; NULL: none */
    /* Sizes that follow from the free ones; false: the combination is none. */
    bool (*derive)(struct conf_case *c);
};

extern const struct op_rule conf_rules[];
extern const uint32_t conf_rule_count;
const struct op_rule *conf_rule(mh_op_id op);

/* Is this what the op is tested with? Weights' format, dtype of the cache or of copy, fill and
 * cast, cast's y; 0: the op has no such thing. */
bool conf_takes_format(mh_op_id op, mh_format format, mh_dtype dtype, mh_dtype to);

/* The column of the matrix: "fp8", "bf16", "f32-bf16". */
const char *conf_format_name(const struct conf_case *c, char text[32]);
/* Writes c->name. */
void conf_case_name(struct conf_case *c);
/* The case of a name; false: there is none such. */
bool conf_case_parse(const char *name, struct conf_case *c);

/* The case with an op's sizes, format and kind, dense and random; false for copy, cast and fill,
 * whose cases are of other shapes. */
bool conf_case_of_op(const mh_op *op, struct conf_case *c);

/* Calls visit for every case of the suite, in order; non-zero ends it. */
int conf_enumerate(uint64_t seed, bool quick, int (*visit)(void *user, struct conf_case *c),
                   void *user);

/* A stream of numbers from a seed. */
struct conf_random {
    uint64_t state;
};
struct conf_random conf_random_of(uint64_t seed, const char *text);
uint64_t conf_draw(struct conf_random *r);
uint32_t conf_below(struct conf_random *r, uint32_t n);
float conf_uniform(struct conf_random *r); /* -1 to 1 */

#endif
