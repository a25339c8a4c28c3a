from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import DataError, PluginError, TrainingStopped
from federated.parameters import Parameters, difference
from federated.plugin import ModelUpdate, TrainContext
from plugins.aggregation.weighted_mean import WeightedMean
from plugins.training import moments
from plugins.training.moments import Moments
from tests.federated.samples import peer
from tests.plugins.training import context, never

EXACT = WeightedMean(max_weight=1e9)


def pooled(parts: list[np.ndarray[tuple[int, int], np.dtype[np.float64]]], rounds: int = 2) -> Parameters:
    """What the members of a task with these data come to."""
    trainer = Moments(inputs=parts[0].shape[1])
    base = trainer.init(1)
    for number in range(1, rounds + 1):
        updates = []
        for index, x in enumerate(parts):
            result = trainer.train(base, (x, None), context(1, number))
            delta = difference(result.parameters, base)
            update = ModelUpdate(peer=peer(index), root=bytes([index]), delta=delta, examples=result.examples)
            updates.append(update)
        base = EXACT.aggregate(base, updates)
    return base


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.floats(-1e5, 1e5),
    st.floats(1e-3, 1e3),
    st.integers(0, 100),
)
def test_members_get_the_statistics_of_all_their_data_together(
    counts: list[int], shift: float, scale: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    parts = [shift + index + scale * generator.standard_normal((n, 3)) for index, n in enumerate(counts)]
    together = np.concatenate(parts)
    found = pooled(parts)
    assert found["mean"] == pytest.approx(together.mean(axis=0), rel=1e-9, abs=1e-9)
    assert found["variance"] == pytest.approx(together.var(axis=0), rel=1e-4, abs=1e-6)
    assert pooled(parts, 3)["variance"] == pytest.approx(together.var(axis=0), rel=1e-9, abs=1e-12)


def test_a_large_mean_does_not_drown_a_small_variance() -> None:
    parts = [np.array([[1e9 - 1], [1e9 + 1]]), np.array([[1e9]])]
    assert pooled(parts, 3)["variance"] == pytest.approx([2 / 3], rel=1e-6)


def test_examples_of_any_shape_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
    whole = Moments(inputs=6).train(Moments(inputs=6).init(1), (x, None), context())
    monkeypatch.setattr(moments, "BLOCK", 7)
    asked = []
    stop = TrainContext(round=1, seed=1, should_stop=lambda: bool(asked.append(1)))
    parts = Moments(inputs=6).train(Moments(inputs=6).init(1), (x, None), stop)
    assert len(asked) == 10
    assert parts.examples == whole.examples == 10
    assert parts.parameters["mean"].tolist() == x.reshape(10, 6).mean(axis=0).tolist()


def test_it_stops_when_it_is_told_to_and_measures_nothing() -> None:
    trainer = Moments(inputs=1)
    with pytest.raises(TrainingStopped):
        trainer.train(
            trainer.init(1), (np.ones((1, 1)), None), TrainContext(round=1, seed=1, should_stop=lambda: True)
        )
    assert trainer.evaluate(trainer.init(1), None) == {}
    assert not never()


def test_data_of_another_width_are_refused() -> None:
    trainer = Moments(inputs=2)
    with pytest.raises(DataError, match=r"x \(1, 3\) does not have 2 features a row: set trainer.inputs"):
        trainer.train(trainer.init(1), (np.ones((1, 3)), None), context())
    with pytest.raises(PluginError, match="setting inputs"):
        Moments(inputs=0)
