"""What the compressors of this package have in common: the tensors as one long row of numbers, and feedback.

    delta ─┬ small, or no floats ─────────────────────────────→ payload, as they are
           └ the others, by name: one row ─ + what is left ─→ packed: one array of bytes in the payload
                                   what was packed, unpacked again, is taken off: ─→ left for the next update

Error feedback: what a payload has left out is not lost but added to the next delta, so over the rounds
everything is sent. It is what the newest finished training left, whether its update came in time, late or
in a round that was skipped. How many bytes are packed follows from the schema alone: a payload of any other
size is refused.
Source: Karimireddy et al. 2019, "Error feedback fixes SignSGD and other gradient compression schemes".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import CodecError, PluginError
from federated.parameters import Parameters, Schema, TensorSpec, schema_difference, schema_of
from federated.plugin import Compressed
from plugins.compression.levels import LARGEST, Bytes, Values

PACKED = "_"  # the payload's array of bytes: a short name, for small models
LEFT = "left"  # of the state: what earlier payloads have left out
SMALL = 256  # numbers; a tensor with fewer is a bias or a norm: it costs little, and errors in it much
FLOATS = ("float32", "float64")

Small = Annotated[int, Field(ge=0)]
"""A setting: tensors with fewer numbers travel as they are."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which tensors of a delta are packed, one after the other, and which travel as they are."""

    packed: Schema
    plain: Schema

    @property
    def count(self) -> int:
        """How many numbers are packed."""
        return sum(math.prod(spec.shape) for spec in self.packed)

    def parts(self, values: Values) -> Iterator[tuple[TensorSpec, Values]]:
        """(a packed tensor, its part of the row `values` in its shape), a view of it."""
        start = 0
        for spec in self.packed:
            stop = start + math.prod(spec.shape)
            yield spec, values[start:stop].reshape(spec.shape)
            start = stop


class FlatCompressor(ABC):
    """A compressor of one row of numbers; a subclass says into which bytes."""

    kind = "compressor"

    def __init__(self, small: int, feedback: bool) -> None:
        """Tensors with fewer numbers than `small` travel as they are."""
        self.small = small
        self.feedback = feedback

    @abstractmethod
    def _size(self, layout: Layout) -> int:
        """How many bytes are packed."""

    @abstractmethod
    def _pack(self, values: Values, layout: Layout, state: Parameters, seed: int) -> tuple[Bytes, Parameters]:
        """(`values` as bytes, what to keep besides what is left)."""

    @abstractmethod
    def _unpack(self, packed: Bytes, layout: Layout) -> Values:
        """The row that `packed`, of the right size, stands for. Raises `CodecError` with the rule."""

    def _packs(self, spec: TensorSpec) -> bool:
        """Whether a tensor is packed."""
        return spec.dtype in FLOATS and math.prod(spec.shape) >= max(1, self.small)

    def compress(self, delta: Parameters, state: Parameters, seed: int) -> Compressed:
        """As `federated.plugin.Compressor.compress`. Raises `PluginError` for values beyond 2^100."""
        layout = self._layout(schema_of(delta))
        payload = {spec.name: delta[spec.name] for spec in layout.plain}
        if not layout.packed:
            return Compressed(payload=payload)
        with np.errstate(over="ignore"):  # refused below
            values = np.concatenate(
                [delta[spec.name].astype(np.float32).reshape(-1) for spec in layout.packed]
            )
            if LEFT in state:
                values += state[LEFT]
        _check_range(values, layout)
        payload[PACKED], kept = self._pack(values, layout, state, seed)
        if self.feedback:
            values -= self._unpack(payload[PACKED], layout)
            kept[LEFT] = values
        return Compressed(payload=payload, state=kept)

    def decompress(self, payload: Parameters, schema: Schema) -> Parameters:
        """As `federated.plugin.Compressor.decompress`; the rule of arrays that should not be is `schema`."""
        layout = self._layout(schema)
        expected = layout.plain
        if layout.packed:
            expected += (TensorSpec(PACKED, "uint8", (self._size(layout),)),)
        problem = schema_difference(schema_of(payload), expected)
        if problem is not None:
            raise CodecError("schema", problem)
        delta = {spec.name: payload[spec.name] for spec in layout.plain}
        if layout.packed:
            for spec, values in layout.parts(self._unpack(payload[PACKED], layout)):
                delta[spec.name] = values.astype(spec.dtype)
        return dict(sorted(delta.items()))

    def _layout(self, schema: Schema) -> Layout:
        ordered = sorted(schema)
        if any(spec.name == PACKED for spec in ordered):
            raise PluginError(f"tensor {PACKED} has the name of the packed ones")
        packed = tuple(spec for spec in ordered if self._packs(spec))
        return Layout(packed=packed, plain=tuple(spec for spec in ordered if not self._packs(spec)))


def _check_range(values: Values, layout: Layout) -> None:
    """Raises `PluginError` with the tensor that has a value which no scale is for."""
    if max(float(values.max()), -float(values.min())) < LARGEST:
        return
    for spec, part in layout.parts(values):
        if not (np.abs(part) < LARGEST).all():  # NaN is not less either
            raise PluginError(f"the update of {spec.name} is not finite, or beyond 2^100")
