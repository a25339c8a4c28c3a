"""Sessions have the median that was asked for; whoever leaves comes back."""

from __future__ import annotations

from random import Random

import pytest

from sim.director.churn import SHORTEST, span
from sim.scenario.model import Churn
from tests.sim.doubles import played


@pytest.mark.parametrize("kind", ["exponential", "lognormal", "weibull"])
@pytest.mark.parametrize("median", [5.0, 60.0])
def test_half_of_the_sessions_are_longer_than_the_median(kind: str, median: float) -> None:
    churn, rng = Churn.model_validate({"kind": kind}), Random(1)
    drawn = sorted(span(churn, median, rng) for _ in range(4000))
    assert 0.9 * median < drawn[2000] < 1.1 * median
    assert drawn[0] >= SHORTEST


@pytest.mark.parametrize("seed", range(5))
def test_everybody_who_leaves_comes_back_by_the_end_of_the_churn(seed: int) -> None:
    churn = {"session": 5, "absence": 5, "share": 0.5, "start": 4, "seconds": 30, "keep_disk": False}
    stage = played(seed, churn=[churn])
    crashes, starts = stage.rung.said("crash"), stage.rung.said("start")
    assert len(crashes) > 3
    assert len(starts) == 10 + len(crashes)
    assert all(stage.rung.running)
    assert all(4 <= at <= 34 for at, *_ in crashes)
    assert all(at <= 34 for at, *_ in starts)
    assert all(call[3:] == (False, False) for call in crashes)
    assert len({node for _, _, node, *_ in crashes}) <= 5
    assert not stage.trouble.calm(4, 4)
    assert stage.trouble.calm(44.1, 1000)


def test_a_share_of_nobody_is_no_trouble() -> None:
    stage = played(churn=[{"share": 0}])
    assert stage.rung.said("crash") == []
    assert stage.trouble.calm(10, 30)
