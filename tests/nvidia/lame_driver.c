/* lame_driver.c: every function of a driver library, none of which works; weak, so that
 * lame_start.c can put a better one in its place. */
#include <nvidia.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"
#define SYMBOL(need, result, field, symbol, version, args)                                         \
    __attribute__((visibility("default"), weak)) result lame_##field args __asm__(symbol);         \
    result lame_##field args                                                                       \
    {                                                                                              \
        return 999;                                                                                \
    }
#include <driver.def>
