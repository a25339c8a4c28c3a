"""Latencies and places."""

from __future__ import annotations

from math import fsum
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import InvalidInput
from sim.network.geography import PRESETS, Geography
from sim.network.latency import latency_model, share_of_pair
from sim.scenario.model import Latency

KINDS: list[dict[str, Any]] = [
    {"kind": "constant", "ms": 20},
    {"kind": "uniform", "ms": 20, "max_ms": 80},
    {"kind": "lognormal", "ms": 50, "sigma": 0.5},
    {"kind": "matrix", "matrix": ((1, 30), (30, 2))},
    {"kind": "geo", "preset": "world"},
    {"kind": "geo", "preset": "europe"},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_latency_is_the_same_both_ways_whenever_it_is_asked(kind: dict[str, Any]) -> None:
    latency = latency_model(Latency(**kind), 50, Random(1))
    again = latency_model(Latency(**kind), 50, Random(1))
    pairs = [(one, other) for one in range(50) for other in range(one)]
    there = [latency(one, other) for one, other in pairs]
    assert there == [latency(other, one) for one, other in pairs]
    assert there == [again(one, other) for one, other in reversed(pairs)][::-1]
    assert all(0 < seconds < 1 for seconds in there)


def test_uniform_latencies_fill_their_range_and_lognormal_ones_have_their_median() -> None:
    pairs = [(one, other) for one in range(60) for other in range(one)]
    uniform = latency_model(Latency(kind="uniform", ms=20, max_ms=80), 60, Random(1))
    found = sorted(uniform(*pair) for pair in pairs)
    assert found[0] == pytest.approx(0.02, abs=0.001)
    assert found[-1] == pytest.approx(0.08, abs=0.001)
    lognormal = latency_model(Latency(kind="lognormal", ms=50, sigma=0.5), 60, Random(1))
    found = sorted(lognormal(*pair) for pair in pairs)
    assert found[len(found) // 2] == pytest.approx(0.05, rel=0.05)
    assert found[len(found) * 84 // 100] == pytest.approx(0.05 * 2.718**0.5, rel=0.1)


def test_another_seed_has_other_latencies() -> None:
    one, other = (latency_model(Latency(), 2, Random(seed)) for seed in (1, 2))
    assert one(0, 1) != other(0, 1)


def test_a_matrix_deals_out_its_regions_in_turn() -> None:
    latency = latency_model(Latency(kind="matrix", matrix=((1, 30), (30, 2))), 4, Random(1))
    assert [latency(*pair) for pair in [(0, 2), (1, 3), (0, 3)]] == pytest.approx([0.001, 0.002, 0.03])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "matrix"}, "as many columns"),
        ({"kind": "matrix", "matrix": ((1, 2), (2,))}, "as many columns"),
        ({"kind": "matrix", "matrix": ((1, 2), (3, 1))}, "symmetric"),
        ({"kind": "matrix", "matrix": ((-1,),)}, "not negative"),
        ({"kind": "geo", "preset": "mars"}, "europe, world"),
        ({"kind": "uniform", "ms": 50, "max_ms": 20}, "below ms"),
    ],
)
def test_latencies_that_make_no_sense_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        latency_model(Latency.model_construct(**{**Latency().model_dump(), **settings}), 4, Random(1))


@given(salt=st.integers(0, 2**64 - 1), one=st.integers(0, 20_000), other=st.integers(0, 20_000))
def test_the_share_of_a_pair_has_no_direction_and_is_inside_its_bounds(
    salt: int, one: int, other: int
) -> None:
    assert 0 < share_of_pair(salt, one, other) == share_of_pair(salt, other, one) < 1


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_is_a_whole_symmetric_matrix_with_sane_values(preset: Geography) -> None:
    size = len(preset.regions)
    assert len(set(preset.regions)) == size == len(preset.shares)
    assert [len(row) for row in preset.half] == list(range(1, size + 1))
    assert fsum(preset.shares) == pytest.approx(1)
    assert all(share > 0 for share in preset.shares)
    for one in range(size):
        for other in range(size):
            assert 5 <= preset.rtt_ms(one, other) == preset.rtt_ms(other, one) <= 400
            assert preset.rtt_ms(one, one) <= max(preset.rtt_ms(one, other), 15)


def test_the_nodes_live_where_the_shares_say() -> None:
    latency = latency_model(Latency(kind="geo", preset="world"), 2000, Random(1))
    here = sum(1 for other in range(1, 2000) if latency(0, other) == latency(0, 0))
    world = PRESETS["world"]
    home = min(range(12), key=lambda region: abs(world.rtt_ms(region, region) / 2000 - latency(0, 0)))
    assert here / 2000 == pytest.approx(world.shares[home], abs=0.04)
