#include "bounds.h"

#include <math.h>
#include <stdio.h>

struct tile {
    double squares, sum, most;
    int64_t count;
};

static struct tile measure(const struct fast_product *p, int64_t row, int64_t rows, int64_t column,
                           int64_t columns)
{
    struct tile t = {0};
    for (int64_t r = row; r < row + rows; r++)
        for (int64_t c = column; c < column + columns; c++) {
            int64_t at = r * p->columns + c;
            double error = (double)p->got[at] - p->exact[at];
            /* Nothing times nothing is exactly nothing. */
            double e = error == 0 ? 0 : error / sqrt(p->energy[at]);
            t.squares += e * e;
            t.sum += e;
            t.most = fabs(e) > t.most || isnan(e) ? fabs(e) : t.most;
            t.count++;
        }
    return t;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

bool conf_fast_within(const struct fast_product *p, char *message, size_t size)
{
    /* 256 elements a tile where there are as many: few rows make wide tiles, and those at the edges
     * reach back inside, so that a mean is one of many. */
    int64_t rows = least(p->rows, FAST_TILE);
    int64_t columns = rows ? least(p->columns, FAST_TILE * FAST_TILE / rows) : 0;
    for (int64_t r = 0; rows && r < p->rows; r += rows)
        for (int64_t c = 0; columns && c < p->columns; c += columns) {
            int64_t row = least(r, p->rows - rows), column = least(c, p->columns - columns);
            struct tile t = measure(p, row, rows, column, columns);
            double rms = sqrt(t.squares / (double)t.count), mean = fabs(t.sum) / (double)t.count;
            bool within = rms <= FAST_RMS && t.most <= FAST_MOST && mean <= FAST_MEAN;
            if (within)
                continue;
            snprintf(message, size,
                     "tile at [%lld, %lld]: error of RMS %.3g, largest %.3g, mean %.3g, must be at "
                     "most %.3g, %.3g, %.3g of the root of the energy",
                     (long long)row, (long long)column, rms, t.most, mean, FAST_RMS, FAST_MOST,
                     FAST_MEAN);
            return false;
        }
    return true;
}
