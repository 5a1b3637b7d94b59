/*
 * fast_amx.c: products by AMX tiles: 16 rows of activations times 48 outputs, one tile of the first
 * and three of the second operand for three sums.
 */
#include <immintrin.h>

#include "../fast.h"
#include "fast_pack.h"

struct tile_config {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
};

static void enter(void)
{
    struct tile_config config = {.palette = 1};
    for (int t = 0; t < 7; t++)
        config.bytes[t] = 64, config.rows[t] = 16;
    __asm__ volatile("" ::"m"(config)); /* gcc's intrinsic names only its first bytes */
    _tile_loadconfig(&config);
}

static void leave(void)
{
    _tile_release();
}

static void multiply_rows(const char *panel, int64_t in, const uint16_t *x, int64_t rows,
                          struct ahead next, float (*out)[STRETCH])
{
    float whole[FAST_BLOCK][STRETCH], (*to)[STRETCH] = rows == FAST_BLOCK ? out : whole;
    int64_t pitch = fast_pitch(in);
    fetch(next);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (int64_t k = 0; k < pitch; k += FAST_TERMS, panel += 3 * 1024) {
        _tile_loadd(3, x + k, pitch * 2);
        _tile_loadd(4, panel, 64);
        _tile_dpbf16ps(0, 3, 4);
        _tile_loadd(5, panel + 1024, 64);
        _tile_dpbf16ps(1, 3, 5);
        _tile_loadd(6, panel + 2048, 64);
        _tile_dpbf16ps(2, 3, 6);
    }
    _tile_stored(0, &to[0][0], sizeof(to[0]));
    _tile_stored(1, &to[0][16], sizeof(to[0]));
    _tile_stored(2, &to[0][32], sizeof(to[0]));
    if (to == whole)
        memcpy(out, whole, (size_t)rows * sizeof(out[0]));
}

const struct host_fast host_fast_amx = {"amx",        4,         enter,        leave,
                                        fast_convert, fast_pack, multiply_rows};
