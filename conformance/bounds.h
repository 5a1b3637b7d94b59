/*
 * bounds.h: the bounds of the fast profile (docs/numerics.md). A worst-case bound over the sum of
 * |x * w| would hide a lost expert; these go by the root of the sum of (x * w)^2, tile by tile.
 */
#ifndef CONFORMANCE_BOUNDS_H
#define CONFORMANCE_BOUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAST_TILE 16
#define FAST_RMS (1.5 / 512)     /* of an error in units of the root of energy */
#define FAST_MOST (6 * FAST_RMS) /* of the largest */
#define FAST_MEAN (FAST_RMS / 4) /* of the mean, with its sign */

/* A product [rows, columns] as a device computed it, against f64 over the same quantised operands;
 * energy is the sum of (x * w)^2 of each element. All row-major and dense. */
struct fast_product {
    int64_t rows, columns;
    const float *got;
    const double *exact, *energy;
};

/* Each tile of 16 x 16 (or as many elements, where there are fewer rows) within the bounds; false
 * with a message that names the first that is not. Products of different experts are judged apart,
 * so that a lost one is seen. */
bool conf_fast_within(const struct fast_product *p, char *message, size_t size);

#endif
