"""Numbers as levels and places as bits: what comes back, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated.errors import CodecError
from plugins.compression import indices
from plugins.compression.levels import AT_ONCE, LARGEST, SMALLEST, Bits, Levels, Values

BITS: list[Bits] = [1, 4, 8, 16]
ANY = st.floats(-float(LARGEST) / 2, float(LARGEST) / 2, width=32)
ROWS = arrays(np.float32, st.integers(0, 70), elements=ANY | st.floats(-1, 1, width=32))


def half_steps(values: Values, levels: Levels) -> Values:
    """How far each number may be from what comes back: half a level, and what rounding adds."""
    found = []
    top = (1 << (levels.bits - 1)) - 1
    for start in range(0, values.size, levels.block):
        block = values[start : start + levels.block].astype(np.float64)
        scale = np.abs(block).max() / top * (1 + 2.0**-7)  # rounded up to 8 bits
        found.append(np.full(block.size, max(scale / 2 * (1 + 2.0**-6), top * float(SMALLEST))))
    return np.concatenate(found)


@given(ROWS, st.sampled_from(BITS[1:]), st.sampled_from([1, 8, 64]))
def test_no_number_comes_back_further_than_half_a_level_away(values: Values, bits: Bits, block: int) -> None:
    levels = Levels(bits, block)
    packed = levels.pack(values)
    assert packed.size == levels.size(values.size)
    found = levels.unpack(packed, values.size)
    if values.size:
        assert (np.abs(found.astype(np.float64) - values) <= half_steps(values, levels)).all()


@given(ROWS)
def test_with_one_bit_the_signs_and_the_mean_magnitudes_come_back(values: Values) -> None:
    levels = Levels(1, 8)
    found = levels.unpack(levels.pack(values), values.size)
    for start in range(0, values.size, 8):
        block, back = values[start : start + 8], found[start : start + 8]
        mean = float(np.abs(block.astype(np.float64)).mean())
        assert len(set(np.abs(back).tolist())) == 1
        assert abs(back[0]) == pytest.approx(mean, rel=2.0**-7, abs=float(SMALLEST))
        assert ((back > 0) == (block >= 0)).all() or back[0] == 0


def test_a_level_is_what_a_hand_computes() -> None:
    values = np.array([1.0, -0.5, 0.26, 0.0, 127.0], np.float32)
    packed = Levels(8, 4).pack(values)
    # 1/127 rounded up to 8 bits is 0x3C02 · 2^..., 1.0 is the bfloat16 0x3F80
    assert (
        packed.tobytes() == bytes.fromhex("023c 803f") + np.array([126, -63, 33, 0, 127], np.int8).tobytes()
    )
    assert Levels(4, 8).pack(np.array([7, -7, 1], np.float32)).tobytes() == bytes.fromhex("803f 1f 09")
    assert Levels(1, 8).pack(np.array([1, -1, 1], np.float32)).tobytes() == bytes.fromhex("803f 05")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("block", [8, 12, AT_ONCE])
def test_pieces_join_without_a_seam(bits: Bits, block: int) -> None:
    count = 8 * block + AT_ONCE + 3
    values = np.random.default_rng(1).standard_normal(count, np.float32)
    levels = Levels(bits, block)
    found = levels.unpack(levels.pack(values), count)
    whole = np.concatenate(
        [
            levels.unpack(levels.pack(values[at : at + block]), values[at : at + block].size)
            for at in range(0, count, block)
        ]
    )
    assert found.tobytes() == whole.tobytes()


def test_numbers_too_small_for_a_scale_are_zero() -> None:
    values = np.full(3, 1e-38, np.float32)
    for bits in BITS:
        levels = Levels(bits, 8)
        assert not levels.unpack(levels.pack(values), 3).any()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    "scale", ["7fc0", "7f80", "ff80", "bf80", "8000", "7f00", "7181", "0001", "0d7f"], ids=str
)
def test_a_scale_that_is_none_is_refused(bits: Bits, scale: str) -> None:
    levels = Levels(bits, 8)
    packed = levels.pack(np.ones(20, np.float32))
    packed[2:4] = np.frombuffer(bytes.fromhex(scale)[::-1], np.uint8)
    with pytest.raises(CodecError, match=r"^scale: block 1 has a scale that is none$"):
        levels.unpack(packed, 20)


@pytest.mark.parametrize(
    ("bits", "byte", "value"), [(1, -1, 0xF0), (4, -1, 0x81), (4, -2, 0x80), (8, -1, 0x80), (16, -1, 0x80)]
)
def test_a_level_that_does_not_exist_is_refused(bits: Bits, byte: int, value: int) -> None:
    levels = Levels(bits, 8)
    packed = levels.pack(np.ones(3, np.float32))
    packed[byte] = value
    if bits == 16:
        packed[byte - 1] = 0
    with pytest.raises(CodecError, match=r"^level: "):
        levels.unpack(packed, 3)


@given(st.data(), st.sampled_from(BITS), st.integers(1, 40))
def test_bytes_of_a_stranger_are_refused_or_stay_in_range(
    data: st.DataObject, bits: Bits, count: int
) -> None:
    levels = Levels(bits, 8)
    size = levels.size(count)
    packed = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    try:
        found = levels.unpack(packed, count)
    except CodecError as exc:
        rule = exc.rule
    else:
        rule = None
        assert found.shape == (count,)
        assert (np.abs(found) <= 2.0**115).all()
    assert rule in (None, "scale", "level")


@st.composite
def chosen(draw: Any) -> tuple[list[int], int]:
    total = draw(st.integers(1, 1000))
    return sorted(draw(st.sets(st.integers(0, total - 1), min_size=1, max_size=min(total, 50)))), total


@given(chosen())
def test_places_come_back(case: tuple[list[int], int]) -> None:
    places, total = case
    packed = indices.pack(np.array(places), total)
    assert packed.size == indices.packed_size(len(places), total)
    assert indices.unpack(packed, len(places), total).tolist() == places


@given(st.data(), st.integers(1, 20), st.integers(1, 300))
def test_bits_of_a_stranger_are_places_in_one_form_or_refused(
    data: st.DataObject, count: int, more: int
) -> None:
    total = count + more
    size = indices.packed_size(count, total)
    packed = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    try:
        found = indices.unpack(packed, count, total)
    except CodecError as exc:
        rule = exc.rule
    else:
        rule = None
        assert found[-1] < total
        assert (np.diff(found, prepend=-1) > 0).all()
        assert indices.pack(found, total).tobytes() == packed.tobytes()
    assert rule in (None, "indices")


@pytest.mark.parametrize(
    ("lower", "upper", "line"),
    [  # 3 places out of 12: two lower bits each, and five upper bits
        ([1, 1, 2], [1, 1, 1, 0, 0], "do not grow"),  # 1, 1, 2
        ([1, 0, 2], [1, 1, 1, 0, 0], "do not grow"),  # 1, 0, 2
        ([1, 2, 3], [1, 1, 0, 0, 0], "2 indices instead of 3"),
        ([1, 2, 3], [1, 1, 1, 1, 0], "4 indices instead of 3"),
        ([1, 2, 3], [1, 1, 1, 0, 0, 1], "bits behind"),
    ],
)
def test_places_that_are_none_are_refused(lower: list[int], upper: list[int], line: str) -> None:
    bits = [[place >> bit & 1 for place in lower for bit in range(2)], upper]
    packed = np.concatenate([np.packbits(row, bitorder="little") for row in bits])
    assert packed.size == indices.packed_size(3, 12)
    with pytest.raises(CodecError, match=line):
        indices.unpack(packed, 3, 12)


def test_a_place_behind_the_last_is_refused() -> None:
    packed = indices.pack(np.array([3, 7, 15]), 16)
    with pytest.raises(CodecError, match="do not grow from 0 to less than 14"):
        indices.unpack(packed, 3, 14)


def test_a_hundredth_of_the_places_takes_little_more_than_it_must() -> None:
    assert indices.packed_size(1000, 100_000) * 8 / 1000 < 8.6
