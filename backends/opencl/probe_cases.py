#!/usr/bin/env python3
"""Prints the probe's rows as C: three inputs and the right results, by exact rational arithmetic, so
that no compiler or processor has a say. Seeded; the same output everywhere."""
import random
from fractions import Fraction
from math import isqrt

ROWS = 512
ONE, INFINITY = 0x3F800000, 0x7F800000


def value_of(bits):
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    magnitude = (Fraction(fraction + (exponent and 0x800000))
                 * Fraction(2) ** (max(exponent, 1) - 150))
    return -magnitude if bits >> 31 else magnitude


def rounded(value, zero_sign=0):
    """Bits of the nearest f32, ties to even."""
    if value == 0:
        return zero_sign << 31
    sign, value = (1, -value) if value < 0 else (0, value)
    exponent = -149  # of the last place
    while value >= Fraction(2) ** (exponent + 24):
        exponent += 1
    scaled = value / Fraction(2) ** exponent
    whole = scaled.numerator // scaled.denominator
    rest = scaled - whole
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole & 1):
        whole += 1
    bits = whole if exponent == -149 else ((exponent + 149) << 23) + whole
    return sign << 31 | min(bits, 0x7F800000)


def root(value):
    """Bits of the nearest f32 of the square root."""
    shift = 400
    scaled = isqrt(int(value * 2 ** shift))  # floor of root(value) * 2^200, far beyond f32
    exact = scaled * scaled == value * 2 ** shift
    return rounded(Fraction(2 * scaled + (not exact), 2 ** (shift // 2 + 1)))


def finite(draw, low=0, high=0xFE, sign=True):
    return (draw.getrandbits(1) << 31 if sign else 0) | draw.randint(low, high) << 23 \
        | draw.getrandbits(23)


def row(draw, kind):
    a = finite(draw, sign=False)
    if kind == 0:    # anything
        b, c = finite(draw), finite(draw)
    elif kind == 1:  # products and sums that nearly cancel
        a, b = finite(draw, 110, 140, False), finite(draw, 110, 140)
        c = rounded(-value_of(a) * value_of(b)) + draw.randint(-2, 2)
    elif kind == 2:  # denormals come out
        a, b = finite(draw, 30, 70, False), finite(draw, 30, 70)
        c = finite(draw, 0, 2)
    elif kind == 3:  # denormals go in
        a, b, c = finite(draw, 0, 0, False), finite(draw, 0, 253), finite(draw, 0, 0)
    else:            # reciprocals are denormals
        a, b, c = finite(draw, 253, 254, False), finite(draw, 1, 100), finite(draw)
    return a or 1, b, c


def show(case):
    print("{" + ", ".join(f"0x{v:08X}" for v in case) + "},")


def main():
    draw = random.Random(20240229)
    print("/* in: a, b, c; then a * b, a + b, fma(a, b, c), a * b + c in two steps, 1 / a, sqrt(a) */")
    special = [(INFINITY, ONE, ONE, INFINITY, INFINITY, INFINITY, INFINITY, 0, INFINITY),
               (0, ONE, ONE, 0, ONE, ONE, ONE, INFINITY, 0),
               (1, ONE, ONE, 1, ONE, ONE, ONE, INFINITY, root(value_of(1)))]
    for case in special:
        show(case)
    count = 0
    while count < ROWS:
        a, b, c = row(draw, count % 5)
        x, y, z = value_of(a), value_of(b), value_of(c)
        product = rounded(x * y, b >> 31)
        results = [product, rounded(x + y), rounded(x * y + z), None, rounded(1 / x), root(x)]
        if product & 0x7FFFFFFF == 0x7F800000 or results[2] & 0x7FFFFFFF in (0, 0x7F800000):
            continue  # infinities and signs of zero are not what is asked
        results[3] = rounded(value_of(product) + z)
        if results[1] & 0x7FFFFFFF == 0 or results[3] & 0x7FFFFFFF == 0:
            continue
        show((a, b, c, *results))
        count += 1


main()
