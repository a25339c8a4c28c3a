"""The compressors: what comes back, what is left for later, and what a stranger's payload can do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated import codec
from federated.errors import CodecError, PluginError
from federated.manifest import PluginRef
from federated.parameters import Parameters, schema_of
from federated.plugin import Compressor
from federated.registry import Registry
from plugins.compression.dense import Int4, Int8, Sign
from plugins.compression.flat import LEFT, PACKED, FlatCompressor
from plugins.compression.power_sgd import KEPT, PowerSGD
from plugins.compression.top_k import TopK, largest
from tests.architecture import ROOT
from tests.benchmarks import compression

MADE: dict[str, Callable[[], FlatCompressor]] = {
    "int8": lambda: Int8(small=8),
    "int8 with feedback": lambda: Int8(small=8, feedback=True),
    "int4": lambda: Int4(small=8, block=32),
    "int4 with feedback": lambda: Int4(small=8, feedback=True),
    "sign": lambda: Sign(small=8, block=16),
    "top-k": lambda: TopK(small=8, share=0.1, bits=8),
    "top-k of 16 bits": lambda: TopK(small=8, share=0.1, bits=16),
    "top-k of 1 bit": lambda: TopK(small=8, share=0.1, bits=1),
    "power-sgd": lambda: PowerSGD(small=8, rank=1),
    "power-sgd of rank 2": lambda: PowerSGD(small=8, rank=2),
}
FED_BACK = [name for name in MADE if name not in ("int8", "int4")]


@pytest.fixture(params=MADE)
def compressor(request: pytest.FixtureRequest) -> FlatCompressor:
    return MADE[request.param]()


def model(seed: int = 1, scale: float = 0.1) -> Parameters:
    """A delta with tensors of every sort."""
    generator = np.random.default_rng(seed)
    return {
        "bias": generator.standard_normal(5).astype(np.float32),
        "conv": (scale * generator.standard_normal((6, 4, 3))).astype(np.float32),
        "count": np.array(7),
        "double": scale * generator.standard_normal((7, 9)),
        "empty": np.zeros((0, 3), np.float32),
        "vector": (scale * generator.standard_normal(40)).astype(np.float32),
        "weight": (scale * generator.standard_normal((12, 10))).astype(np.float32),
    }


def row(delta: Parameters) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Everything in one row."""
    return np.concatenate([delta[name].astype(np.float64).reshape(-1) for name in sorted(delta)])


def sent(compressor: Compressor, delta: Parameters, state: Parameters, seed: int = 3) -> Parameters:
    made = compressor.compress(delta, state, seed)
    return compressor.decompress(made.payload, schema_of(delta))


def test_what_comes_back_has_the_schema_and_is_nearer_than_nothing(compressor: FlatCompressor) -> None:
    delta = model()
    before = codec.encode(delta)
    made = compressor.compress(delta, {}, 3)
    found = compressor.decompress(codec.decode_any(codec.encode(made.payload), 10_000), schema_of(delta))
    assert codec.encode(delta) == before
    assert schema_of(found) == schema_of(delta)
    assert list(found) == sorted(found)
    for name in ("bias", "count", "empty"):
        assert found[name].tobytes() == delta[name].tobytes()
    assert 0 < np.linalg.norm(row(found) - row(delta)) < 0.9 * np.linalg.norm(row(delta) * (row(delta) != 7))
    assert sum(array.nbytes for array in made.payload.values()) < 0.5 * row(delta).size * 4


def test_the_same_delta_makes_the_same_payload(compressor: FlatCompressor) -> None:
    first, again = (compressor.compress(model(), {}, 3) for _ in range(2))
    assert codec.encode(first.payload) == codec.encode(again.payload)
    assert codec.encode(first.state) == codec.encode(again.state)


@pytest.mark.parametrize("name", FED_BACK)
def test_what_is_left_out_is_sent_later(name: str) -> None:
    """The sum of what was sent stays within what is left of the sum of the deltas, and that does not grow."""
    compressor, state = MADE[name](), {}
    goal, total, lefts = np.zeros(1), np.zeros(1), []
    for seed in range(40):
        delta = model(seed, scale=0.1) if seed < 20 else model(0, scale=0.0)
        delta["double"] = delta["double"] + (0.02 if seed < 20 else 0.0)
        made = compressor.compress(delta, state, seed)
        goal = goal + row(delta)
        total = total + row(compressor.decompress(made.payload, schema_of(delta)))
        state = codec.decode_any(codec.encode(made.state), 100_000)  # as in a snapshot
        assert state[LEFT].dtype == np.float32
        lefts.append(float(np.linalg.norm(state[LEFT])))
        assert np.linalg.norm(goal - total) == pytest.approx(lefts[-1], rel=1e-3, abs=1e-4)
    assert lefts[-1] < 0.6 * lefts[19]


def test_without_feedback_nothing_is_kept() -> None:
    for made in (Int8(), Int4(), TopK(feedback=False, small=0), Sign(feedback=False, small=0)):
        assert made.compress(model(), {}, 1).state == {}


@given(arrays(np.float32, 60, elements=st.floats(-1e6, 1e6, width=32)), st.integers(1, 59))
def test_the_largest_are_those_that_sorting_finds(values: np.ndarray[Any, Any], count: int) -> None:
    expected = sorted(range(60), key=lambda place: (-abs(values[place]), place))[:count]
    assert largest(values, count).tolist() == sorted(expected)


def test_top_k_sends_the_largest_of_all_tensors() -> None:
    delta = {"a": np.arange(50, dtype=np.float32), "b": -np.arange(0, 100, 2, dtype=np.float32)}
    found = sent(TopK(share=0.05, bits=16, small=0), delta, {})
    assert not found["a"].any()
    assert np.flatnonzero(found["b"]).tolist() == [45, 46, 47, 48, 49]
    assert found["b"][45:] == pytest.approx([-90, -92, -94, -96, -98], rel=1e-4)


def test_a_matrix_of_the_rank_comes_back() -> None:
    left, right = np.random.default_rng(2).standard_normal((2, 30, 2)).astype(np.float32)
    delta = {"weight": left @ right.T}
    found = sent(PowerSGD(rank=2, small=0), delta, {})["weight"]
    assert found == pytest.approx(delta["weight"], abs=1e-2 * float(np.abs(delta["weight"]).max()))


def test_a_warm_start_finds_the_directions_of_the_updates() -> None:
    generator = np.random.default_rng(2)
    basis = np.linalg.qr(generator.standard_normal((40, 40)))[0]
    matrix = (basis * 0.7 ** np.arange(40)) @ np.linalg.qr(generator.standard_normal((40, 40)))[0]
    delta = {"weight": matrix.astype(np.float32)}
    compressor, state = PowerSGD(rank=4, small=0, feedback=False), Parameters()
    errors = []
    for _ in range(8):
        made = compressor.compress(delta, state, 1)
        state = made.state
        assert list(state) == [KEPT]
        back = compressor.decompress(made.payload, schema_of(delta))["weight"]
        errors.append(float(np.linalg.norm(back - matrix)))
    best = float(np.sqrt((0.49 ** np.arange(4, 40)).sum()))
    assert errors[0] > 1.1 * best
    assert errors[-1] < 1.01 * best


def test_a_matrix_of_zeros_does_not_end_the_search() -> None:
    compressor, state, found = PowerSGD(rank=1, small=0), Parameters(), []
    for value in (0.0, 0.0, 1.0, 1.0):
        delta = {"weight": np.full((20, 20), value, np.float32)}
        made = compressor.compress(delta, state, 1)
        state = made.state
        found.append(float(compressor.decompress(made.payload, schema_of(delta))["weight"].sum()))
    assert found[:2] == [0.0, 0.0]
    assert sum(found) == pytest.approx(800, rel=0.01)


def test_what_would_get_no_smaller_is_not_factored() -> None:
    delta = {"thin": np.ones((300, 2), np.float32), "wide": np.ones((20, 30), np.float32)}
    payload = PowerSGD(rank=2).compress(delta, {}, 1).payload
    assert sorted(payload) == [PACKED, "thin"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**100, -(2.0**100)])
def test_what_no_scale_is_for_is_named(compressor: FlatCompressor, value: float) -> None:
    delta = model()
    delta["weight"][3, 3] = value
    with pytest.raises(PluginError, match=r"^the update of weight is not finite, or beyond 2\^100$"):
        compressor.compress(delta, {}, 1)
    if compressor.feedback:
        made = compressor.compress(model(), {}, 1)
        made.state[LEFT][-1] = value
        with pytest.raises(PluginError, match=r"the update of (weight|vector)"):
            compressor.compress(model(), made.state, 1)


def test_a_tensor_with_the_name_of_the_packed_ones_is_refused(compressor: FlatCompressor) -> None:
    with pytest.raises(PluginError, match="tensor _ has the name of the packed ones"):
        compressor.compress({PACKED: np.ones(3, np.float32)}, {}, 1)


def test_a_model_of_small_tensors_travels_as_it_is() -> None:
    delta = {"bias": np.ones(3, np.float32), "count": np.array(3)}
    for compressor in (Int8(), TopK(), PowerSGD()):
        made = compressor.compress(delta, {}, 1)
        assert made.payload == delta
        assert made.state == {}
        assert compressor.decompress(made.payload, schema_of(delta)) == delta
        with pytest.raises(CodecError, match=r"tensor _ .* is not part of the model"):
            compressor.decompress({**delta, PACKED: np.zeros(0, np.uint8)}, schema_of(delta))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({PACKED: None}, "schema: tensor _ .* is missing"),
        ({"bias": None}, "schema: tensor bias .* is missing"),
        ({"more": np.zeros(3)}, "schema: tensor more .* is not part of the model"),
        ({"weight": np.zeros((12, 10), np.float32)}, "schema: tensor weight .* is not part"),
        ({"bias": np.zeros(6, np.float32)}, "schema: tensor bias .* should be"),
        ({PACKED: np.zeros(1 << 20, np.uint8)}, "schema: tensor _ .* should be"),
        ({PACKED: np.zeros(3, np.uint8)}, "schema: tensor _ .* should be"),
        ({PACKED: np.zeros((1, 3), np.uint8)}, "schema: tensor _ .* should be"),
        ({PACKED: np.zeros(3, np.int8)}, "schema: tensor _ .* should be"),
    ],
)
def test_a_payload_of_other_arrays_is_refused(
    compressor: FlatCompressor, change: dict[str, Any], line: str
) -> None:
    payload = {**compressor.compress(model(), {}, 1).payload, **change}
    changed = {name: array for name, array in payload.items() if array is not None}
    with pytest.raises(CodecError, match=line):
        compressor.decompress(changed, schema_of(model()))


@pytest.mark.parametrize("name", MADE)
@given(data=st.data())
def test_flipped_bytes_are_refused_or_come_back_finite(name: str, data: st.DataObject) -> None:
    compressor, schema = MADE[name](), schema_of(model())
    packed = compressor.compress(model(), {}, 1).payload
    wire = bytearray(codec.encode(packed))
    if data.draw(st.booleans(), label="anywhere"):
        for at in data.draw(st.lists(st.integers(0, len(wire) - 1), min_size=1, max_size=4)):
            wire[at] ^= data.draw(st.integers(1, 255))
    else:
        size = packed[PACKED].size
        packed[PACKED] = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
        wire = bytearray(codec.encode(packed))
    try:
        found = compressor.decompress(codec.decode_any(bytes(wire), len(wire)), schema)
    except CodecError as exc:
        rule = exc.rule
    else:
        rule = None
        assert schema_of(found) == schema
        assert all(np.isfinite(found[name]).all() for name in ("weight", "conv"))
    assert rule in (None, "header", "layout", "schema", "size", "scale", "level", "indices")


def test_factors_beyond_float32_are_refused() -> None:
    compressor, delta = PowerSGD(small=0, rank=1), {"weight": np.ones((20, 20), np.float32)}
    packed = compressor.compress(delta, {}, 1).payload[PACKED]
    packed[:2] = np.frombuffer(bytes.fromhex("8071"), np.uint8)  # 2^100, each
    with pytest.raises(CodecError, match="scale: the factors of weight are too large"):
        compressor.decompress({PACKED: packed}, schema_of(delta))


DIGESTS = {
    "int8": "ff2ad2f12b1a4642",
    "int4": "e1ae16553e150527",
    "sign": "2d132e3bca38f637",
    "top-k": "d3f3461a9112b593",
    "power-sgd of rank 2": "3f8f077cae3ad888",
}
PROGRAM = """
from tests.plugins.test_compression import digests
for name, digest in digests().items():
    print(name, digest, sep="=")
"""


def digests() -> dict[str, str]:
    """What payloads of a fixed generator's bytes come back as."""
    found = {}
    generator = np.random.Generator(np.random.PCG64(9))
    delta = {"weight": np.zeros((300, 200), np.float32)}
    for name in DIGESTS:
        compressor = MADE[name]()
        delta["weight"] = (generator.integers(-(1 << 20), 1 << 20, (300, 200)) / (1 << 22)).astype(np.float32)
        packed = compressor.compress(delta, {}, 1).payload[PACKED]
        if name.startswith("power"):  # made by the processor's own algebra: take the integers instead
            levels = generator.integers(-32767, 32767, packed.size // 2).astype("<i2").view(np.uint8)
            scales = 2 * -(-2 * 500 // 64)
            packed[scales:] = levels[: packed.size - scales]
            packed[:scales] = np.full(scales // 2, 0x3A7B, "<u2").view(np.uint8)
        found[name] = hashlib.sha256(
            codec.encode(compressor.decompress({PACKED: packed}, schema_of(delta)))
        ).hexdigest()[:16]
    return found


@pytest.mark.parametrize("threads", ["1", "4"])
def test_the_same_bits_come_back_on_every_machine(threads: str) -> None:
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | dict.fromkeys(names, threads),
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=150,
    )
    assert dict(line.split("=") for line in done.stdout.splitlines()) == DIGESTS


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("top-k", {"share": 0.6}, "setting share: Input should be less than or equal to 0.5"),
        ("top-k", {"share": 0}, "setting share: Input should be greater than 0"),
        ("top-k", {"bits": 5}, "setting bits: Input should be 1, 4, 8 or 16"),
        ("int8", {"block": 4}, "setting block: Input should be greater than or equal to 8"),
        ("int4", {"small": -1}, "setting small: Input should be greater than or equal to 0"),
        ("sign", {"feedback": 1}, "setting feedback: Input should be a valid boolean"),
        ("power-sgd", {"rank": 0}, "setting rank: Input should be greater than or equal to 1"),
        ("power-sgd", {"ranks": 1}, "unexpected keyword argument 'ranks'; it takes rank, small, feedback"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(name: str, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(PluginError) as caught:
        Registry().create("compressor", PluginRef(name=name, settings=settings))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_benchmark_compares_with_what_is_not_compressed(tmp_path: Path) -> None:
    out, picture = tmp_path / "table.json", tmp_path / "table.png"
    options = ["--seeds=2", "--rounds=3", "--epochs=1", "--parameters=20000"]
    assert compression.main(["int8", "top 2 %, 1 bit", *options, f"--json={out}", f"--plot={picture}"]) == 0
    table = json.loads(out.read_text())
    assert list(table["methods"]) == ["uncompressed", "int8", "top 2 %, 1 bit"]
    assert table["methods"]["uncompressed"]["points"] == 0
    assert 3.5 < table["methods"]["int8"]["ratio"] < 4
    assert table["methods"]["top 2 %, 1 bit"]["ratio"] > 100
    assert abs(table["methods"]["int8"]["points"]) < 1
    assert all(rate > 0 for rates in table["speeds"].values() for rate in rates.values())
    assert picture.read_bytes().startswith(b"\x89PNG")
