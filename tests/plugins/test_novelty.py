from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.errors import PluginError
from federated.parameters import AGGREGATOR, Parameters
from federated.plugin import ModelUpdate, ModelValidator, Validator
from plugins.aggregation.server import FedAvgM
from plugins.validation.novelty import Novelty
from tests.federated.samples import peer

SIZE = 5000
RNG = np.random.default_rng(5)
ROWS = RNG.standard_normal((8, SIZE)).astype(np.float32)
BASE: Parameters = {"count": np.zeros((), np.int64), "w": np.zeros(SIZE, np.float32)}


def update(number: int, values: np.ndarray[Any, Any]) -> ModelUpdate:
    delta = {"count": np.array(1000, np.int64), "w": values.astype(np.float32)}
    return ModelUpdate(peer=peer(number), root=bytes([number]) * 32, delta=delta, examples=1)


def model(step: np.ndarray[Any, Any] | None = None) -> Parameters:
    """A model of `fedavgm`, which moved by `step`."""
    kept = FedAvgM(momentum=0.0).init(BASE)
    if step is not None:
        kept[f"{AGGREGATOR}v/w"] = step.astype(np.float32)
    return BASE | kept


def noisy(values: np.ndarray[Any, Any], share: float) -> np.ndarray[Any, Any]:
    return values + share * RNG.standard_normal(SIZE)


def judged(updates: Sequence[ModelUpdate], state: Parameters = BASE, **settings: Any) -> dict[int, str]:
    return {item.root[0]: rule for item, rule in Novelty(**settings).judge(updates, state)}


def test_it_is_a_validator_that_names_its_rules() -> None:
    assert isinstance(Novelty(), Validator)
    assert isinstance(Novelty(), ModelValidator)


def test_updates_of_their_own_pass() -> None:
    assert judged([update(number, row) for number, row in enumerate(ROWS)]) == {}
    assert judged([]) == {}


@pytest.mark.parametrize(
    "copy", [lambda row: noisy(row, 0.05), lambda row: 3 * row, lambda row: noisy(row / 9, 0.01)]
)
def test_near_duplicates_are_refused_but_for_the_first_by_root(copy: Any) -> None:
    updates = [update(4, ROWS[0]), update(7, copy(ROWS[0])), update(2, copy(ROWS[0])), update(5, ROWS[1])]
    assert judged(updates) == {4: "near-duplicate", 7: "near-duplicate"}
    assert {item.root[0] for item in Novelty().screen(updates)} == {4, 7}


def test_what_is_less_alike_than_the_setting_or_points_back_passes() -> None:
    updates = [update(1, ROWS[0]), update(2, noisy(ROWS[0], 0.05)), update(3, -ROWS[0])]
    assert judged(updates) == {2: "near-duplicate"}
    assert judged(updates, max_cosine=0.9999) == {}


def test_updates_of_zeros_are_nobodys_copy() -> None:
    zeros = np.zeros(SIZE)
    assert judged([update(1, zeros), update(2, zeros)], model(zeros), free_riders=True) == {}


def test_who_sends_the_last_step_back_is_a_free_rider() -> None:
    step = ROWS[:4].mean(axis=0)
    updates = [update(1, ROWS[5]), update(2, step), update(3, noisy(0.4 * step, 0.005)), update(4, ROWS[6])]
    assert judged(updates, model(step), free_riders=True) == {2: "free-rider", 3: "free-rider"}
    assert judged(updates, model(step)) == {3: "near-duplicate"}


def test_in_the_first_round_there_is_no_last_step() -> None:
    updates = [update(1, ROWS[5]), update(2, ROWS[6])]
    assert judged(updates, model(), free_riders=True) == {}


def test_free_riders_are_found_only_where_the_model_knows_the_last_step() -> None:
    Novelty(free_riders=True).init(model())
    Novelty().init(BASE)
    with pytest.raises(PluginError, match="setting free_riders: the aggregator does not keep the last step"):
        Novelty(free_riders=True).init(BASE)


@given(
    order=st.permutations(range(6)),
    copies=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4),
)
def test_the_order_of_the_updates_does_not_matter(order: list[int], copies: list[tuple[int, int]]) -> None:
    rows = ROWS[:6].copy()
    for source, target in copies:
        rows[target] = rows[source] * 2
    updates = [update(number, row) for number, row in enumerate(rows)]
    found = judged([updates[number] for number in order])
    assert found == judged(updates)
    kept = [number for number in range(6) if number not in found]
    assert len({tuple(rows[number] / np.abs(rows[number]).max()) for number in kept}) == len(kept)


def test_who_does_nothing_is_idle() -> None:
    check = Novelty(min_norm=0.1)
    assert check.check(update(1, np.zeros(SIZE)), BASE) is None  # the counter moves
    idle = ModelUpdate(peer=peer(1), root=b"1", delta={"w": np.full(4, 0.04)}, examples=1)
    assert check.check(idle, {}) == "idle"
    assert Novelty().check(idle, {}) is None


@pytest.mark.parametrize("settings", [{"max_cosine": 1.0}, {"max_cosine": 0.0}, {"min_norm": -1.0}])
def test_a_setting_out_of_range_is_named(settings: dict[str, float]) -> None:
    with pytest.raises(PluginError, match=f"^setting {next(iter(settings))}"):
        Novelty(**settings)
