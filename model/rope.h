/* rope.h: the rotary table, numerics rule 7. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include <stdint.h>

/* table[p] = cos of `half` angles, then their sin, for p = 0 .. positions - 1. inv is f64 [half].
 */
void mh_rope_table(const double *inv, int64_t half, double amplitude, int64_t positions,
                   float *table);

#endif
