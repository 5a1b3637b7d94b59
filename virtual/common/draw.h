/* draw.h: random choices that a seed repeats. */
#ifndef VIRTUAL_DRAW_H
#define VIRTUAL_DRAW_H

#include <stdatomic.h>
#include <stdint.h>

/* The next of a seed's numbers (splitmix64), for any thread; *drawn counts them, from 0. */
static inline uint64_t vc_draw(uint64_t seed, _Atomic uint64_t *drawn)
{
    uint64_t x = seed + (atomic_fetch_add(drawn, 1) + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

#endif
