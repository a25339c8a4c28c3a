"""Tensors as safetensors bytes, in the one canonical form of each model.

8 bytes little-endian header length, a JSON header, the data. The header lists the tensors by dtype
and then by name, without metadata, padded with spaces to 8 bytes; offsets leave no gap. This is what
the reference writer makes of a plain dictionary, written out here so that a digest over the bytes
does not change with the version of a library. Anything else is refused: one model has one encoding,
and no loader that could run code ever sees bytes of a peer.
Source: https://github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from federated.errors import CodecError
from federated.parameters import Array, Parameters, Schema, TensorSpec, schema_difference, schema_of

__all__ = [
    "Parameters",
    "Schema",
    "TensorSpec",
    "decode",
    "decode_any",
    "encode",
    "encoded_size",
    "schema_of",
]

LENGTH_SIZE = 8  # bytes; safetensors, "Format"
ALIGNMENT = 8  # bytes; the data starts at a multiple of this
MAX_HEADER = 1 << 20  # bytes; 4096 tensors with long names take about 600 KiB (the format allows 100 MB)
MAX_TENSORS = 4096  # tensors; a large transformer has about 1000
MAX_RANK = 8  # dimensions of one tensor
MAX_EXTENT = (1 << 63) - 1  # bytes; numpy holds an empty array to this by its sides other than 0
NAME = re.compile(r"[A-Za-z0-9_./-]{1,256}")

# numpy name → safetensors name, in the order in which the reference writer sorts dtypes
DTYPES = {
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
}
NUMPY_NAMES = {code: name for name, code in DTYPES.items()}
RANKS = {name: rank for rank, name in enumerate(DTYPES)}


def encode(parameters: Mapping[str, Array]) -> bytes:
    """The canonical bytes of `parameters`. Raises `CodecError` for what no peer would accept."""
    schema, header = _form(schema_of(parameters))
    for spec in schema:
        if not NAME.fullmatch(spec.name) or len(spec.shape) > MAX_RANK or len(schema) > MAX_TENSORS:
            raise CodecError("schema", f"tensor {spec} is over the limits of the format")
    if len(header) > LENGTH_SIZE + MAX_HEADER:
        raise CodecError("schema", f"a header of {len(header)} bytes is over the limit of {MAX_HEADER}")
    arrays = (np.ascontiguousarray(parameters[spec.name], _little_endian(spec)) for spec in schema)
    return b"".join([header, *(array.reshape(-1).view(np.uint8).data for array in arrays)])


def encoded_size(schema: Schema) -> int:
    """The size in bytes of every update with this schema."""
    ordered, header = _form(schema)
    return len(header) + sum(_size(spec) for spec in ordered)


def decode(data: bytes, schema: Schema, limit: int) -> Parameters:
    """The tensors in `data`, which must have exactly this schema.

    Nothing is parsed or allocated before the size is checked. Raises `CodecError` with the rule:
    `size` (over `limit` or cut short), `header` (not safetensors), `schema` (other names, dtypes or
    shapes), `layout` (tensors that overlap, share bytes or leave a gap, or any other encoding than
    the canonical one). Values are not looked at; see `federated.parameters.non_finite`.
    """
    ordered, expected = _form(schema)
    if len(data) <= limit and data.startswith(expected):  # most of all are as they should be
        return _tensors(data, len(expected), ordered)
    header, entries, found = _open(data, limit)
    problem = schema_difference(found, schema)
    if problem is not None:
        raise CodecError("schema", problem)
    return _read(data, header, entries, _layout(schema))


def decode_any(data: bytes, limit: int) -> Parameters:
    """The tensors in `data`, whatever their names, dtypes and shapes; else as `decode`."""
    header, entries, found = _open(data, limit)
    too_large = next((spec for spec in found if _extent(spec) > MAX_EXTENT), None)
    if too_large is not None:
        raise CodecError("schema", f"tensor {too_large} is over the limits of the format")
    return _read(data, header, entries, _layout(found))


def _open(data: bytes, limit: int) -> tuple[bytes, dict[str, Any], Schema]:
    """(the header with its length, its entries by name, what they describe)."""
    if len(data) > limit:
        raise CodecError("size", f"{len(data)} bytes are over the limit of {limit}")
    header = _frame(data)
    entries = _entries(header)
    return header, entries, tuple(sorted(_spec(name, entry) for name, entry in entries.items()))


def _read(data: bytes, header: bytes, entries: Mapping[str, Any], ordered: Schema) -> Parameters:
    """The tensors behind a header that must be the canonical one of `ordered`."""
    _check_offsets(entries)
    if header != _header(ordered):
        raise CodecError("layout", "the header is not in its canonical form")
    return _tensors(data, len(header), ordered)


def _tensors(data: bytes, start: int, ordered: Schema) -> Parameters:
    """The tensors whose bytes begin at `start`."""
    if len(data) != start + sum(_size(spec) for spec in ordered):
        raise CodecError("size", f"{len(data) - start} bytes of data do not fill the tensors exactly")
    parameters: Parameters = {}
    for spec in ordered:
        count = math.prod(spec.shape)
        array = np.frombuffer(data, _little_endian(spec), count, start)
        parameters[spec.name] = array.reshape(spec.shape).astype(spec.dtype)
        start += _size(spec)
    return dict(sorted(parameters.items()))


@lru_cache(maxsize=16)
def _form(schema: Schema) -> tuple[Schema, bytes]:
    """(the tensors in the order in which their bytes stand, the header of what has this schema)."""
    ordered = _layout(schema)
    return ordered, _header(ordered)


def _layout(schema: Schema) -> Schema:
    """The tensors in the order in which their bytes stand."""
    unknown = next((spec for spec in schema if spec.dtype not in RANKS), None)
    if unknown is not None:
        raise CodecError("schema", f"tensor {unknown} has a dtype that does not travel")
    return tuple(sorted(schema, key=lambda spec: (RANKS[spec.dtype], spec.name)))


def _little_endian(spec: TensorSpec) -> np.dtype[Any]:
    return np.dtype(spec.dtype).newbyteorder("<")


def _size(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _extent(spec: TensorSpec) -> int:
    """Bytes of the tensor without its sides of length 0."""
    return math.prod(max(side, 1) for side in spec.shape) * np.dtype(spec.dtype).itemsize


def _header(ordered: Schema) -> bytes:
    entries, end = {}, 0
    for spec in ordered:
        start, end = end, end + _size(spec)
        entries[spec.name] = {
            "dtype": DTYPES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_SIZE, "little") + text


def _frame(data: bytes) -> bytes:
    """Length and header, cut from `data`."""
    if len(data) < LENGTH_SIZE:
        raise CodecError("header", f"{len(data)} bytes are too short for a header")
    length = int.from_bytes(data[:LENGTH_SIZE], "little")
    if length > MAX_HEADER:
        raise CodecError("header", f"a header of {length} bytes is over the limit of {MAX_HEADER}")
    if length > len(data) - LENGTH_SIZE:
        raise CodecError("header", f"the header of {length} bytes is cut short")
    return data[: LENGTH_SIZE + length]


def _entries(header: bytes) -> dict[str, Any]:
    """The header's JSON object. A tensor named twice is refused here."""
    try:
        entries = json.loads(header[LENGTH_SIZE:].decode("ascii"), object_pairs_hook=_no_duplicates)
    except CodecError:
        raise
    except (ValueError, RecursionError) as exc:
        raise CodecError("header", "not a safetensors header") from exc
    if not isinstance(entries, dict) or len(entries) > MAX_TENSORS:
        raise CodecError("header", f"not an object of at most {MAX_TENSORS} tensors")
    return entries


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise CodecError("header", "a name is given twice")
    return value


def _spec(name: str, entry: Any) -> TensorSpec:
    """The spec in one entry of the header, with every type and limit checked."""
    match entry:
        case {"dtype": str(code), "shape": [*shape], "data_offsets": [int(), int()]} if len(entry) == 3:
            dtype = NUMPY_NAMES.get(code)
        case _:
            raise CodecError("header", f"entry {name[:64]!r} does not describe a tensor")
    if dtype is None:
        raise CodecError("schema", f"tensor {name[:64]!r} has a dtype that does not travel")
    sides_fit = all(type(side) is int and side >= 0 for side in shape)
    if not NAME.fullmatch(name) or len(shape) > MAX_RANK or not sides_fit:
        raise CodecError("header", f"tensor {name[:64]!r} is over the limits of the format")
    return TensorSpec(name, dtype, tuple(shape))


def _check_offsets(entries: Mapping[str, Any]) -> None:
    """Refuses tensors that overlap, are aliases of one another, or leave a gap between them."""
    spans = sorted((*entry["data_offsets"], name) for name, entry in entries.items())
    for (_, end, name), (start, _, following) in pairwise([(0, 0, ""), *spans]):
        if start != end:
            where = "the start of the data" if not name else f"the end of {name}"
            raise CodecError("layout", f"tensor {following} starts at {start}, not at {where}, {end}")
