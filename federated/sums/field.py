"""Arithmetic modulo the prime 2³¹ − 1, on arrays, and Shamir's sharing over it.

A product of two elements has 62 bits, so it fits into uint64, and 2³¹ is 1 modulo the prime, so a
reduction is a shift and an addition. All is exact: every machine comes to the same integers.
Source: Shamir, "How to Share a Secret", 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

PRIME = (1 << 31) - 1
KEY = 32  # bytes; of AES-256
BLOCK = 1 << 15  # elements worked on at a time: some arrays of them fit into a processor's cache

Elements = NDArray[np.uint32]
"""Elements of the field, each below `PRIME`."""

Wide = NDArray[np.uint64]
Draw = Callable[[int], Wide]
"""Gives so many elements of the field."""

_PRIME, _BITS = np.uint64(PRIME), np.uint64(31)


def uniform(key: bytes) -> Draw:
    """Draws elements, each as likely as the other, from the key stream of AES in counter mode.

    The same key gives the same ones. Raises `ValueError` for a key of another size than `KEY`.
    """
    if len(key) != KEY:
        raise ValueError(f"a key has {KEY} bytes, not {len(key)}")
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def draw(count: int) -> Wide:
        found = np.empty(count, np.uint64)
        filled = 0
        while filled < count:
            words = np.frombuffer(stream.update(bytes(4 * (count - filled))), "<u4") & np.uint32(PRIME)
            words = words[words != PRIME]  # so that none is likelier than another one
            found[filled : filled + words.size] = words
            filled += words.size
        return found

    return draw


def _fold(values: Wide) -> Wide:
    """The same values modulo the prime, below 2³⁴; below 2³² for those below 2⁶²."""
    return (values & _PRIME) + (values >> _BITS)


def reduced(values: Wide) -> Wide:
    """The same values modulo the prime, below it."""
    folded = _fold(_fold(values))
    return folded - _PRIME * (folded >= _PRIME)


def share(secrets: Elements, degree: int, points: Sequence[int], draw: Draw) -> list[Elements]:
    """For each point the values there of polynomials that are random but for their value at 0, the secret.

    Whoever has the values at up to `degree` points knows nothing of the secrets; one more tells them.
    """
    shares = [np.empty(secrets.size, np.uint32) for _ in points]
    for start in range(0, secrets.size, BLOCK):
        block = secrets[start : start + BLOCK].astype(np.uint64)
        rest = draw(degree * block.size).reshape(degree, block.size)
        for values, point in zip(shares, points, strict=True):
            result = np.zeros(block.size, np.uint64)
            for coefficients in (*rest, block):
                result = _fold(result * np.uint64(point) + coefficients)
            values[start : start + BLOCK] = reduced(result)
    return shares


def weights(points: Sequence[int], at: int) -> list[int]:
    """What each value counts of a polynomial that is known at these points, for its value `at` another one.

    The points are different. Source: Lagrange's formula.
    """
    found = []
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above = above * (at - other) % PRIME
                below = below * (point - other) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return found


def combine(arrays: Sequence[Elements], factors: Sequence[int]) -> Elements:
    """The sum of the arrays, each times its factor."""
    result = np.empty(arrays[0].size, np.uint32)
    for start in range(0, result.size, BLOCK):
        total = np.zeros(min(BLOCK, result.size - start), np.uint64)
        for array, factor in zip(arrays, factors, strict=True):
            total += _fold(array[start : start + BLOCK] * np.uint64(factor))
        result[start : start + BLOCK] = reduced(total)
    return result


def add(total: Elements, other: Elements) -> None:
    """Adds `other` to `total`, in its place."""
    for start in range(0, total.size, BLOCK):
        block = total[start : start + BLOCK]
        block[:] = reduced(block.astype(np.uint64) + other[start : start + BLOCK])


def inner(first: Elements, second: Elements) -> int:
    """The sum of the products."""
    total = 0
    for start in range(0, first.size, BLOCK):
        products = first[start : start + BLOCK].astype(np.uint64) * second[start : start + BLOCK]
        total += int(_fold(products).sum())
    return total % PRIME
