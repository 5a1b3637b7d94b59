/* move.h: arguments of move.hip. */
#ifndef AMD_MOVE_H
#define AMD_MOVE_H

#include "arguments.h"

/* Four dimensions; missing ones lead, with size 1. */
struct move_arguments {
    char *y;
    const char *x;
    i64 y_stride[4], x_stride[4], size[4];
    u32 to, from;   /* dtypes, each F32 for any of four bytes; the same: moved as they are */
    u32 fill, bits; /* fill: every element becomes `bits`, nothing is read */
};

#endif
