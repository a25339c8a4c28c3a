"""Matrix products with the same bits on every machine, at the speed of the ordinary ones.

A matrix product is fast and adds in an order of its own, by the processor at hand; so the numbers that it
gets are made such that no order matters. Each segment of `SEGMENT` numbers is rounded to a multiple of a
power of two u, `BITS` bits below the largest in it. Then a product is a whole number of u·u' of at most
2^(2·BITS), a sum of `SEGMENT` of them is at most 2^53, float64 holds all of these exactly, and every order
of summation, fused or not, on one thread or many, comes to the same. The sums of the segments are added
one after the other.

So the result is the exact one for numbers that are at most 2^-22 of their segment's largest away from those
given. Each row has a scale of its own: huge values in one cannot blur another. Source of the idea: Ozaki et
al. 2012, "Error-free transformations of matrix multiplication by using fast routines of matrix
multiplication".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = 21  # of each value
SEGMENT = 1 << 11  # values; 2 * BITS + 11 = 53, the bits of a float64
MANTISSA = 52  # bits after the point of a float64
LARGEST = 480  # the exponent of the largest value whose square, summed, is still in float64's range
SMALLEST = -400  # what is smaller counts as 0: the square of its unit would leave that range too

Matrix = NDArray[np.float64]


def round_segments(block: NDArray[np.float64]) -> bool:
    """Rounds each segment (the last axis) to multiples of its unit, in place, ties to even.

    False when a value is not finite or beyond 2^480. Adding a number whose last bit is the unit, and taking
    it away again, rounds as the processor does.
    """
    if not block.size:
        return True
    top = np.maximum(block.max(axis=-1), -block.min(axis=-1))
    if not (top < 2.0**LARGEST).all():  # NaN is not less either
        return False
    exponent = np.maximum(np.frexp(top)[1], SMALLEST)
    anchor = np.ldexp(1.5, exponent + (MANTISSA - BITS))[..., np.newaxis]
    block += anchor
    block -= anchor
    return True


def matmul(left: Matrix, right: Matrix) -> Matrix:
    """`left` @ `right`, for matrices of moderate size. Raises `OverflowError` for what is not finite."""
    result = np.zeros((len(left), right.shape[1]))
    for start in range(0, len(right), SEGMENT):
        rows = left[:, start : start + SEGMENT].copy()
        columns = right[start : start + SEGMENT].T.copy()
        if not (round_segments(rows) and round_segments(columns)):
            raise OverflowError("a matrix has values that are not finite, or far too large")
        result += rows @ columns.T
    return result
