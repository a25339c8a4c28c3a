"""An update as the bytes that travel: its tensors as they are, or what the task's compressor makes of them.

    delta ─ compress ─→ payload ─ codec ─→ bytes ─ codec ─→ payload ─ decompress ─→ delta, nearly

A payload is tensors too, so the codec's bounds hold for it. What the compressor wants back at the next
update stays on this peer, in one snapshot with what the trainer wants, under names that it never sees.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federated import codec
from federated.errors import CodecError, PluginError
from federated.parameters import Array, Parameters, Schema, non_finite, schema_difference
from federated.plugin import Compressor

COMPRESSOR = "atcp.compressor/"  # how the names of a state's arrays begin that the compressor keeps


class Packing:
    """How the updates of a task travel: `schema` is that of a delta, `limit` in bytes of one on the wire."""

    def __init__(self, compressor: Compressor | None, schema: Schema, limit: int) -> None:
        self._compressor = compressor
        self._schema = schema
        self._limit = limit

    def try_out(self, sample: Parameters) -> None:
        """Packs and unpacks `sample`. Raises `PluginError` when it does not come back."""
        if self._compressor is None:
            return
        data, _ = self.pack(sample, {}, 0)
        try:
            self.unpack(data)
        except CodecError as exc:
            raise PluginError(f"it does not take what it makes: {exc}") from exc

    def check(self, delta: Parameters) -> None:
        """Raises `PluginError` for a delta that cannot be made smaller: nothing stands for NaN then."""
        if self._compressor is not None and (name := non_finite(delta)) is not None:
            raise PluginError(f"its update of {name} is not finite, and cannot be compressed")

    def pack(self, delta: Parameters, kept: Parameters, seed: int) -> tuple[bytes, Parameters]:
        """(what travels of `delta`, what the compressor wants back); `kept` is what it has kept before.

        Raises `PluginError`; without a compressor `CodecError`.
        """
        if self._compressor is None:
            return codec.encode(delta), {}
        made = self._compressor.compress(delta, kept, seed)
        check_state(made.state)
        try:
            data = codec.encode(made.payload)
        except CodecError as exc:
            raise PluginError(f"its payload: {exc}") from exc
        if len(data) > self._limit:
            raise PluginError(
                f"an update has {len(data)} bytes; raise max_update_bytes, which is {self._limit}"
            )
        return data, made.state

    def unpack(self, data: bytes) -> Parameters:
        """The delta in `data`. Raises `CodecError` for what is none, `PluginError`."""
        if self._compressor is None:
            return codec.decode(data, self._schema, self._limit)
        delta = self._compressor.decompress(codec.decode_any(data, self._limit), self._schema)
        problem = schema_difference(codec.schema_of(delta), self._schema)
        if problem is not None:
            raise PluginError(problem)
        return delta


def check_state(state: object) -> None:
    """Raises `PluginError` for what a plugin cannot get back."""
    if not isinstance(state, dict):
        raise PluginError(f"its state is a {type(state).__name__}, not a dictionary of arrays")
    for name, array in state.items():
        if not isinstance(name, str) or not codec.NAME.fullmatch(name):
            raise PluginError(f"its state has the name {name!r:.80}; letters, digits and _./- make one")
        if not isinstance(array, np.ndarray):
            raise PluginError(f"its state has a {type(array).__name__}, not an array, as {name}")
        if name.startswith(COMPRESSOR):
            raise PluginError(f"its state has the name {name}, of one that a compressor keeps")


def part(state: Mapping[str, Array]) -> tuple[Parameters, Parameters]:
    """(what of a state is the trainer's, what the compressor's, under its own names)."""
    own = {name: array for name, array in state.items() if not name.startswith(COMPRESSOR)}
    kept = {name.removeprefix(COMPRESSOR): array for name, array in state.items() if name not in own}
    return own, kept


def join(own: Mapping[str, Array], kept: Mapping[str, Array]) -> Parameters:
    """The state that `part` takes apart."""
    return {**own, **{COMPRESSOR + name: array for name, array in kept.items()}}
