/* suite.h: what the parts of the suite share while it runs. */
#ifndef CONFORMANCE_SUITE_H
#define CONFORMANCE_SUITE_H

#include "build.h"
#include "reference.h"

/* One device, and buffers that op cases reuse. */
struct conf_side {
    mh_device *device;
    mh_stream *stream;
    mh_buffer *buffers[BUILD_OPERANDS];
    uint8_t *after[BUILD_OPERANDS]; /* what the buffers held after the op */
    uint64_t room[BUILD_OPERANDS];
};

struct conf_suite {
    mh_runtime *runtime;
    const struct conf_options *options;
    bool is_host; /* the device under test is the definition itself */
    struct conf_side device, host;
};

mh_status conf_side_open(struct conf_side *side, mh_runtime *runtime, const char *uri,
                         uint32_t placement, uint32_t threads);
void conf_side_close(struct conf_side *side);

/* run_case.c */
void conf_run_case(struct conf_suite *s, const struct conf_case *c, struct conf_result *result);

/* Runs the build's op on a side; what buffers hold afterwards is in side->after. `op` is filled. */
mh_status conf_side_run(struct conf_side *side, const struct conf_build *b, union conf_op *op,
                        mh_weight **weights);
mh_status conf_side_upload(struct conf_side *side, const struct conf_build *b);
mh_status conf_side_download(struct conf_side *side, const struct conf_build *b);

/* Every element the op may write is the same in both, bit for bit, but any NaN equals any NaN
 * (numerics rule 12). False with a message that calls the other `whose`. */
bool conf_same_bits(const struct conf_build *b, uint8_t *const *mine, uint8_t *const *other,
                    const char *whose, char *message, size_t size);

/* relations.c: on the definition, what must equal what else: a fused op its primitives, a row alone
 * the row among others. The side holds the op's results; false with a message. */
bool conf_check_relations(struct conf_side *side, const struct conf_build *b,
                          const union conf_op *op, char *message, size_t size);

#endif
