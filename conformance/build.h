/*
 * build.h: an op case as memory: images of every buffer before the op runs, views into them, and
 * images of the weights. What a device gets, and what references read, are these.
 */
#ifndef CONFORMANCE_BUILD_H
#define CONFORMANCE_BUILD_H

#include "case.h"

#define BUILD_OPERANDS 10
#define BUILD_WEIGHTS 4
#define GUARD 512 /* bytes before, between and behind operands; an op must leave them alone */

union conf_op {
    mh_op base;
#define MH_OP(value, NAME, name, kind, doc, operands) mh_op_##name name;
#include <moehal/ops.def>
#undef MH_OP
};

/* A tensor operand. `view.buffer` stays NULL: `buffer` counts the build's buffers. */
struct conf_operand {
    mh_operand info;
    mh_tensor view;
    uint32_t buffer;
};

struct conf_weight {
    mh_operand info;
    mh_format format;
    int64_t experts, out, in;
    uint8_t *memory; /* of the whole image */
    uint64_t mapped;
    uint8_t *data;   /* [experts, out, in], of any alignment */
    uint8_t *scales; /* FP8: f32 [experts, out blocks, in blocks] */
    int64_t keep;    /* every keep-th row holds values, the others zeros: images stay sparse */
};

struct conf_build {
    const struct conf_case *c;
    struct conf_random random;
    union conf_op op;
    struct conf_operand operands[BUILD_OPERANDS];
    uint32_t operand_count; /* tensors that are present */
    struct conf_weight weights[BUILD_WEIGHTS];
    uint32_t weight_count;
    uint8_t *image[BUILD_OPERANDS]; /* buffers before the op */
    uint64_t bytes[BUILD_OPERANDS];
    uint32_t buffer_count;
};

/* Fills *b; false if memory ran out. Free it either way. */
bool conf_build_make(struct conf_build *b, const struct conf_case *c);
void conf_build_free(struct conf_build *b);

/* NULL if the case has no such operand. */
struct conf_operand *conf_find(struct conf_build *b, const char *name);
struct conf_weight *conf_find_weight(struct conf_build *b, const char *name);

static inline int64_t conf_size(const struct conf_operand *o, uint32_t dim)
{
    return dim < o->view.rank ? o->view.shape[dim] : 1;
}

/* Elements of an operand, and the index of one: row-major. */
int64_t conf_count(const struct conf_operand *o);
/* Bytes from the beginning of the operand's buffer to element `index`. */
uint64_t conf_element(const struct conf_operand *o, int64_t index);
/* The value of an element of f32, f16 or bf16. */
double conf_decode(mh_dtype dtype, const void *bytes);
/* As the image has it; index by dimension. */
double conf_value(const struct conf_build *b, const struct conf_operand *o, int64_t i, int64_t j,
                  int64_t k);
int32_t conf_index(const struct conf_build *b, const struct conf_operand *o, int64_t i, int64_t j);
/* page_table, expert_map: what lies between and behind such a table's rows is a good index, so that
 * whoever looks one place too far finds something. */
bool conf_is_table(const char *name);
/* A row of a weight, decoded (rule 1): out[in]. */
void conf_weight_row(const struct conf_weight *w, int64_t expert, int64_t row, double *out);

/* Of a sparse image: a row (counted over all experts) that holds zeros. The first and last ones and
 * some between do not. */
static inline bool conf_row_is_zero(const struct conf_weight *w, int64_t row)
{
    return w->keep > 1 && row > 1 && row < w->experts * w->out - 2 && row % w->keep;
}

/* Writes the image into a weight of a device and seals it. */
mh_status conf_weight_create(const struct conf_weight *w, mh_device *device, bool write,
                             mh_weight **out);
/* The op with the given buffers and weights; buffers NULL for a question. */
void conf_op_for(const struct conf_build *b, mh_buffer *const *buffers, mh_weight *const *weights,
                 union conf_op *op);

#endif
