from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federated.codec import (
    DTYPES,
    MAX_HEADER,
    MAX_TENSORS,
    decode,
    decode_any,
    encode,
    encoded_size,
    schema_of,
)
from federated.errors import CodecError
from federated.parameters import Parameters
from tests.federated.samples import model

LIMIT = 1 << 20

arrays = hnp.arrays(
    dtype=st.sampled_from([np.dtype(name) for name in DTYPES]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
names = st.from_regex(r"[A-Za-z0-9_./-]{1,12}", fullmatch=True)
parameter_sets = st.dictionaries(names, arrays, max_size=5)


def with_header(header: Any, data: bytes = b"\x00" * 32) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def refusal(data: bytes, like: Parameters | None = None, limit: int = LIMIT) -> CodecError:
    with pytest.raises(CodecError) as caught:
        decode(data, schema_of(model() if like is None else like), limit)
    return caught.value


def refusal_of_any(data: bytes, limit: int = LIMIT) -> CodecError:
    with pytest.raises(CodecError) as caught:
        decode_any(data, limit)
    return caught.value


@given(parameter_sets)
def test_what_is_encoded_is_decoded_to_the_same_bits(parameters: Parameters) -> None:
    data = encode(parameters)
    decoded = decode(data, schema_of(parameters), len(data))
    assert list(decoded) == sorted(parameters)
    assert schema_of(decoded) == schema_of(parameters)
    for name, array in parameters.items():
        assert decoded[name].tobytes() == array.tobytes()
        assert decoded[name].flags.writeable
    assert encoded_size(schema_of(parameters)) == len(data)
    assert encode(decode_any(data, len(data))) == data


@given(parameter_sets)
def test_the_reference_library_reads_and_writes_the_same_bytes(parameters: Parameters) -> None:
    data = encode(parameters)
    read = safetensors.numpy.load(data)
    assert schema_of(read) == schema_of(parameters)
    for name, array in parameters.items():
        assert read[name].tobytes() == array.tobytes()
    assert data == safetensors.numpy.save(dict(parameters))


def test_bytes_do_not_depend_on_the_order_of_the_dictionary_or_on_the_memory_layout() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = {"a": weight, "b": np.ones(1, np.float32)}
    second = {"b": np.ones(1, ">f4"), "a": np.asfortranarray(weight)}
    assert encode(first) == encode(second)


def test_bytes_are_fixed() -> None:
    assert encode({"w": np.array([1, -2], np.float32)}) == (
        b"\x38\0\0\0\0\0\0\0"
        + b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(0x38)
        + b"\0\0\x80?\0\0\0\xc0"
    )


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert refusal_of_any(data).rule in {"size", "header", "schema", "layout"}
    assert refusal(data).rule in {"size", "header", "schema", "layout"}


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_headers_are_refused(text: bytes) -> None:
    assert refusal(with_header(text)).rule in {"header", "schema", "layout"}


def test_every_changed_byte_of_the_header_is_refused_and_of_the_data_changes_values_only() -> None:
    data = encode(model(1.0))
    start = len(data) - 32
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[at] ^= flip
            if at < start:
                assert refusal(bytes(broken)).rule in {"header", "schema", "layout", "size"}
            else:
                assert encode(decode(bytes(broken), schema_of(model()), LIMIT)) == bytes(broken)


def test_every_truncation_is_refused() -> None:
    data = encode(model(1.0))
    for size in range(len(data)):
        assert refusal(data[:size]).rule in {"header", "size"}
    assert refusal(data + b"\0").rule == "size"


def test_size_is_checked_before_anything_is_parsed() -> None:
    data = encode(model())
    assert refusal(b"x" * 101, limit=100).rule == "size"
    assert decode(data, schema_of(model()), len(data))
    assert refusal(data, limit=len(data) - 1).rule == "size"


def test_header_over_its_limit_is_refused_before_parsing() -> None:
    data = (MAX_HEADER + 1).to_bytes(8, "little") + b"{" * (MAX_HEADER + 1)
    error = refusal(data, limit=len(data))
    assert error.rule == "header"
    assert "over the limit" in str(error)


def test_pickle_bytes_are_refused() -> None:
    assert refusal(pickle.dumps(model())).rule == "header"


def test_deeply_nested_header_is_refused() -> None:
    assert refusal(with_header(b"[" * 100_000)).rule == "header"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"bias": np.zeros(2, np.float32)}, r"weight float32\[3, 2\] is missing"),
        (model() | {"bias": np.zeros(3, np.float32)}, r"bias float32\[3\] should be bias float32\[2\]"),
        (model() | {"bias": np.zeros(2, np.float64)}, r"bias float64\[2\] should be bias float32\[2\]"),
        (model() | {"extra": np.zeros(1, np.int8)}, r"extra int8\[1\] is not part of the model"),
    ],
)
def test_another_schema_is_refused_in_words(other: Parameters, message: str) -> None:
    with pytest.raises(CodecError, match=f"^schema: tensor {message}") as caught:
        decode(encode(other), schema_of(model()), LIMIT)
    assert caught.value.rule == "schema"


PAIR = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}


def entry(start: Any, end: Any, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 4), "b": entry(0, 4)},  # alias
        {"a": entry(0, 4), "b": entry(2, 6)},  # overlap
        {"a": entry(0, 4), "b": entry(8, 12)},  # gap
        {"a": entry(4, 8), "b": entry(8, 12)},  # gap at the start
        {"a": entry(4, 8), "b": entry(0, 4)},  # another order
        {"b": entry(4, 8), "a": entry(0, 4)},  # another order of names
        {"a": entry(0, 4), "b": entry(4, 12)},  # longer than its shape
        {"a": entry(0, -4), "b": entry(-4, 4)},
        {"a": entry(False, 4), "b": entry(4, 8)},
        b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":'
        b'{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',  # a space more
    ],
)
def test_only_the_canonical_layout_is_accepted(header: Any) -> None:
    assert refusal(with_header(header, b"\0" * 8), PAIR).rule == "layout"
    assert refusal_of_any(with_header(header, b"\0" * 8)).rule == "layout"


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        {"__metadata__": {"x": "y"}, "a": entry(0, 4), "b": entry(4, 8)},
        {"a": entry(0, 4) | {"more": 1}, "b": entry(4, 8)},
        {"a": entry(0.0, 4), "b": entry(4, 8)},
        {"a": entry(0, 4, [True]), "b": entry(4, 8)},
        {"a": entry(0, 4, [1] * 9), "b": entry(4, 8)},
        {"a": entry(0, 4, [-1, -1]), "b": entry(4, 8)},
        {"a": entry(0, 4, dtype=3), "b": entry(4, 8)},
        {"a" * 257: entry(0, 4)},
        {"a b": entry(0, 4)},
        {"a": None},
        {f"t{number}": entry(0, 0, [0]) for number in range(MAX_TENSORS + 1)},
        "a string",
    ],
)
def test_malformed_header_is_refused(header: Any) -> None:
    assert refusal(with_header(header, b"\0" * 8), PAIR).rule == "header"
    assert refusal_of_any(with_header(header, b"\0" * 8)).rule == "header"


def test_unknown_dtype_is_refused() -> None:
    assert refusal(with_header({"a": entry(0, 4, dtype="F8_E4M3")}), PAIR).rule == "schema"


@pytest.mark.parametrize(
    "parameters",
    [
        {"a": np.zeros(1, np.complex64)},
        {"a": np.array([object()])},
        {"a": np.zeros((1,) * 9, np.float32)},
        {"a b": np.zeros(1, np.float32)},
        {"": np.zeros(1, np.float32)},
        {f"t{number}": np.zeros(0, np.int8) for number in range(MAX_TENSORS + 1)},
    ],
)
def test_what_no_peer_would_accept_is_not_encoded(parameters: Parameters) -> None:
    with pytest.raises(CodecError, match=r"^schema: "):
        encode(parameters)


def test_tensors_of_any_schema_have_the_size_that_their_header_says() -> None:
    data = encode(model(1.0))
    assert refusal_of_any(data, limit=len(data) - 1).rule == "size"
    for size in range(len(data)):
        assert refusal_of_any(data[:size]).rule in {"header", "size"}
    assert refusal_of_any(data + b"\0").rule == "size"


@pytest.mark.parametrize("shape", [[0, 1 << 63], [1 << 40, 0, 1 << 40], [0, 1 << 200]])
def test_an_empty_tensor_larger_than_arrays_can_be_is_refused(shape: list[int]) -> None:
    assert refusal_of_any(with_header({"a": entry(0, 0, shape)}, b"")).rule == "schema"
    fits = with_header({"a": entry(0, 0, [0, 1 << 60])}, b"")
    assert decode_any(fits, LIMIT)["a"].shape == (0, 1 << 60)


def test_a_header_that_nobody_reads_is_not_written() -> None:
    names = [f"{number:04}".ljust(256, "x") for number in range(MAX_TENSORS)]
    with pytest.raises(CodecError, match=r"^schema: a header of \d+ bytes is over the limit"):
        encode({name: np.zeros(0, np.int8) for name in names})
