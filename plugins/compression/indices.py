"""Which of many numbers are meant, in little more than the fewest bits possible.

The places are sorted, and cut in two: the lower bits are written as they are, and of the upper bits only by
how much they grow, as a one for each place and a zero for each step. A hundredth of the places takes 8.6 bits
each, where 8.1 are the least. Every set of places has one form, and every form has the same size.
Source: Elias 1974, "Efficient storage and retrieval by content and address of static files"; Fano 1971.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from federated.errors import CodecError

Places = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def packed_size(count: int, total: int) -> int:
    """The bytes of `count` places out of `total`; there are 1 to `total` of them."""
    low = _low_bits(count, total)
    return _bytes(count * low) + _bytes(_high_bits(count, total, low))


def pack(places: Places, total: int) -> Bytes:
    """The places, which grow from 0 to `total` - 1 at most."""
    count = places.size
    low = _low_bits(count, total)
    lower = (places[:, np.newaxis] >> np.arange(low)) & 1
    upper = np.zeros(_high_bits(count, total, low), np.uint8)
    upper[(places >> low) + np.arange(count)] = 1
    return np.concatenate(
        [np.packbits(bits.astype(np.uint8), bitorder="little") for bits in (lower.reshape(-1), upper)]
    )


def unpack(packed: Bytes, count: int, total: int) -> Places:
    """The `count` places in `packed`, which has `packed_size` bytes.

    Raises `CodecError` with the rule `indices` unless they grow, and all are below `total`.
    """
    low = _low_bits(count, total)
    split = _bytes(count * low)
    lower = _unpacked(packed[:split], count * low).reshape(count, low)
    (ones,) = np.nonzero(_unpacked(packed[split:], _high_bits(count, total, low)))
    if ones.size != count:
        raise CodecError("indices", f"{ones.size} indices instead of {count}")
    places: Places = (ones - np.arange(count)) << low
    for bit in range(low):
        places += lower[:, bit].astype(np.int64) << bit
    if places[-1] >= total or (np.diff(places) <= 0).any():
        raise CodecError("indices", f"the indices do not grow from 0 to less than {total}")
    return places


def _low_bits(count: int, total: int) -> int:
    """How many bits of a place are written as they are: as many as make the upper part the shortest."""
    return (total // count).bit_length() - 1


def _high_bits(count: int, total: int, low: int) -> int:
    return count + ((total - 1) >> low)


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _unpacked(packed: Bytes, bits: int) -> Bytes:
    """The bits of `packed`. Raises `CodecError` for any behind the last one."""
    found = np.unpackbits(packed, bitorder="little")
    if found[bits:].any():
        raise CodecError("indices", "there are bits behind the last index")
    return found[:bits]
