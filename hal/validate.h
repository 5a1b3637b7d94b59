/* validate.h: what validate.c and plain.c share. */
#ifndef VALIDATE_H
#define VALIDATE_H

#include "hal.h"

/* Bytes of a buffer that an operand reaches; weights, absent and empty tensors reach none. */
struct reach {
    const struct hal_operand *operand;
    const mh_buffer *buffer;
    uint64_t begin, end;
};

/* Not cleared as a whole: this is on the way of every op. Up to `question` given by hal_validate.
 */
struct checker {
    mh_device *device;
    mh_runtime *runtime;
    const mh_op *op;
    const struct hal_op_info *info;
    bool question;
    uint32_t generation; /* of the device */
    uint64_t seen;       /* bit d: dims[d] is known */
    int64_t dims[HAL_DIMS];
    struct reach reach[HAL_MAX_OPERANDS];
    uint32_t reach_count;
    uint32_t written; /* bit i: reach[i] is */
};

/* plain.c: all checks of the op's operands in one go for an op as nearly all are: nothing wrong, no
 * tensor empty, each stride covering what lies further in, no size or stride so large that a sum
 * overflows. Fills what follows `question`. False: look closer. */
bool hal_is_plain(struct checker *c);

#endif
