"""Numbers as whole levels of a scale that a block of them shares: 1, 4, 8 or 16 bits each.

    packed: a scale for each block, 2 bytes · the levels, the first in the lowest bits · zeros up to a byte

A scale is the upper half of a float32 (bfloat16), rounded up, so that no value of its block is beyond the
largest level. With one bit a level is a sign, and the scale is the mean magnitude. A level has at most 15
bits and a scale 8, so their product is exact in float32: the same bits on every machine.
Source of blocks with a scale each: Dettmers et al. 2022, "8-bit optimizers via block-wise quantization"; of
the sign with the mean: Karimireddy et al. 2019, "Error feedback fixes SignSGD".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from federated.errors import CodecError

Bits = Literal[1, 4, 8, 16]
Values = NDArray[np.float32]
Bytes = NDArray[np.uint8]

LARGEST = np.float32(
    2.0**100
)  # a magnitude that is not compressed any more; products with it stay in float32
SMALLEST = np.float32(2.0**-100)  # a scale below counts as 0: no product is subnormal
SCALE = 2  # bytes
AT_ONCE = 1 << 16  # values: what stays in the processor's cache
_SCALE_RANGE = [int(value.view(np.uint32)) >> 16 for value in (SMALLEST, LARGEST)]


@dataclass(frozen=True, slots=True)
class Levels:
    """How numbers are packed: `bits` for each, a scale for every `block` of them."""

    bits: Bits
    block: int

    def size(self, count: int) -> int:
        """The bytes of `count` numbers."""
        return self._scales(count) + -(-count * self.bits // 8)

    def pack(self, values: Values) -> Bytes:
        """The numbers in their fewest bytes; all are less than `LARGEST` in magnitude."""
        scales, levels = [], []
        for piece in self._pieces(values):
            scale = self._scale_of(piece)
            scales.append((scale.view(np.uint32) >> 16).astype("<u2"))
            levels.append(self._levels_of(piece, scale))
        if not levels:
            return np.empty(0, np.uint8)
        return np.concatenate([np.concatenate(scales).view(np.uint8), *levels])

    def unpack(self, packed: Bytes, count: int) -> Values:
        """The `count` numbers in `packed`, which has `size(count)` bytes.

        Raises `CodecError` with the rule `scale` (not a number, negative, or out of range) or `level` (one
        that does not exist, or bits behind the last).
        """
        split = self._scales(count)
        scales = packed[:split].view("<u2")
        fits = (scales >= _SCALE_RANGE[0]) & (scales <= _SCALE_RANGE[1]) | (scales == 0)
        if not fits.all():
            raise CodecError("scale", f"block {int(np.argmin(fits))} has a scale that is none")
        values = np.empty(count, np.float32)
        step = self._at_once()
        for start in range(0, count, step):
            stop = min(start + step, count)
            piece = packed[split + start * self.bits // 8 : split + -(-stop * self.bits // 8)]
            scale = scales[start // self.block : -(-stop // self.block)]
            wide = (scale.astype(np.uint32) << 16).view(np.float32)
            np.multiply(
                self._read(piece, stop - start), self._spread(wide, stop - start), out=values[start:stop]
            )
        return values

    @property
    def _top(self) -> int:
        """The largest level."""
        return 1 if self.bits == 1 else (1 << (self.bits - 1)) - 1

    @property
    def _dtype(self) -> np.dtype[Any]:
        """Of levels of 8 or 16 bits."""
        return np.dtype("<i2" if self.bits == 16 else np.int8)

    def _scales(self, count: int) -> int:
        return SCALE * -(-count // self.block)

    def _at_once(self) -> int:
        """A number of values that is whole blocks, and whole bytes."""
        return self.block * max(8, AT_ONCE // self.block // 8 * 8)

    def _pieces(self, values: Values) -> list[Values]:
        step = self._at_once()
        return [values[start : start + step] for start in range(0, values.size, step)]

    def _scale_of(self, piece: Values) -> Values:
        """The scale of each block, as float32 with an empty lower half."""
        starts = np.arange(0, piece.size, self.block)
        magnitude = np.abs(piece)
        wanted: Values
        if self.bits == 1:
            lengths = np.diff(starts, append=piece.size)
            wanted = (np.add.reduceat(magnitude.astype(np.float64), starts) / lengths).astype(np.float32)
        else:
            wanted = (np.maximum.reduceat(magnitude, starts) / self._top).astype(np.float32)
        scale = ((wanted.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
        scale[scale < SMALLEST] = 0
        return scale

    def _spread(self, scale: Values, count: int) -> Values:
        """The scale of each of `count` values."""
        return np.repeat(scale, self.block)[:count]

    def _levels_of(self, piece: Values, scale: Values) -> Bytes:
        """The levels of `piece`, packed."""
        if self.bits == 1:
            return np.packbits(piece >= 0, bitorder="little")
        levels: Values = piece / self._spread(np.where(scale > 0, scale, np.float32(1)), piece.size)
        np.rint(levels, out=levels)
        if self.bits != 4:
            return levels.astype(self._dtype).view(np.uint8)
        nibbles = np.zeros(piece.size + piece.size % 2, np.uint8)
        nibbles[: piece.size] = levels + 8
        return nibbles[::2] + nibbles[1::2] * np.uint8(16)

    def _read(self, packed: Bytes, count: int) -> NDArray[Any]:
        """The levels in `packed`. Raises `CodecError`."""
        if self.bits == 1:
            signs = np.unpackbits(packed, bitorder="little")
            self._check(not signs[count:].any())
            return signs[:count].view(np.int8) * np.int8(2) - np.int8(1)
        if self.bits == 4:
            nibbles = np.empty(2 * packed.size, np.int8)
            nibbles[::2], nibbles[1::2] = packed & 15, packed >> 4
            self._check(not nibbles[count:].any() and bool(nibbles[:count].all()))
            return nibbles[:count] - np.int8(8)
        levels = packed.view(self._dtype)
        self._check(not (levels < -self._top).any())
        return levels

    def _check(self, fine: bool) -> None:
        if not fine:
            raise CodecError("level", f"a level of {self.bits} bits is none")
