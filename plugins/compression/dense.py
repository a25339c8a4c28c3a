"""Every number with fewer bits: `int8`, `int4` and `sign`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from federated.parameters import Parameters
from federated.plugin import checked_settings
from plugins.compression.flat import SMALL, FlatCompressor, Layout, Small
from plugins.compression.levels import Bits, Bytes, Levels, Values

Block = Annotated[int, Field(ge=8, le=1 << 16)]
"""A setting: how many numbers share a scale of two bytes."""


class _Dense(FlatCompressor):
    def __init__(self, bits: Bits, block: int, small: int, feedback: bool) -> None:
        super().__init__(small, feedback)
        self.levels = Levels(bits, block)

    def _size(self, layout: Layout) -> int:
        return self.levels.size(layout.count)

    def _pack(self, values: Values, layout: Layout, state: Parameters, seed: int) -> tuple[Bytes, Parameters]:
        return self.levels.pack(values), {}

    def _unpack(self, packed: Bytes, layout: Layout) -> Values:
        return self.levels.unpack(packed, layout.count)


class Int8(_Dense):
    """255 levels for each block of numbers: a quarter of the bytes."""

    @checked_settings
    def __init__(self, *, block: Block = 64, small: Small = SMALL, feedback: bool = False) -> None:
        super().__init__(8, block, small, feedback)


class Int4(_Dense):
    """15 levels for each block of numbers: an eighth of the bytes."""

    @checked_settings
    def __init__(self, *, block: Block = 64, small: Small = SMALL, feedback: bool = False) -> None:
        super().__init__(4, block, small, feedback)


class Sign(_Dense):
    """The sign of each number, and the mean magnitude of each block: a 32nd of the bytes."""

    @checked_settings
    def __init__(self, *, block: Block = 1024, small: Small = SMALL, feedback: bool = True) -> None:
        super().__init__(1, block, small, feedback)
