"""What dishonest members hand in."""

from __future__ import annotations

import numpy as np
import pytest

from federated.parameters import Parameters, difference, l2_norm, non_finite, schema_of
from federated.plugin import TrainResult
from sim.adversaries import ROLES
from sim.adversaries.training import NOISE, flip_signs, make_nan, make_noise, ride_free

BASE: Parameters = {"w": np.ones((20, 30), np.float32), "n": np.arange(4, dtype=np.int64)}
LEARNT: Parameters = {"w": BASE["w"] + np.float32(0.25), "n": BASE["n"] + 1}
RESULT = TrainResult(parameters=LEARNT, examples=7, metrics={"loss": 1.0})


@pytest.mark.parametrize("name", [name for name, role in ROLES.items() if role.corrupt is not None])
def test_what_is_handed_in_has_the_shape_of_a_model_and_what_came_in_stays(name: str) -> None:
    corrupt = ROLES[name].corrupt
    assert corrupt is not None
    handed_in = corrupt(BASE, RESULT)
    assert schema_of(handed_in.parameters) == schema_of(BASE)
    assert (handed_in.examples, handed_in.metrics) == (7, {"loss": 1.0})
    assert (BASE["w"] == 1).all()
    assert (LEARNT["w"] == 1.25).all()
    assert not any(np.shares_memory(handed_in.parameters[key], BASE[key]) for key in BASE)


def test_flipped_signs_undo_what_was_learnt() -> None:
    handed_in = flip_signs(BASE, RESULT).parameters
    assert (handed_in["w"] == 0.75).all()
    assert (handed_in["n"] == BASE["n"] - 1).all()


def test_noise_is_large_and_the_same_for_the_same_update() -> None:
    once, again = (make_noise(BASE, RESULT).parameters for _ in range(2))
    assert all((once[key] == again[key]).all() for key in BASE)
    size = l2_norm(difference(once, BASE)) / l2_norm(difference(LEARNT, BASE))
    assert size == pytest.approx(NOISE, rel=0.1)
    other = TrainResult(parameters={**LEARNT, "w": BASE["w"] + np.float32(0.5)}, examples=7)
    assert (make_noise(BASE, other).parameters["w"] != once["w"]).any()


def test_a_free_rider_hands_in_the_model_as_it_was() -> None:
    handed_in = ride_free(BASE, RESULT).parameters
    assert all((handed_in[key] == BASE[key]).all() for key in BASE)


def test_nan_is_everywhere_where_it_can_be() -> None:
    handed_in = make_nan(BASE, RESULT).parameters
    assert np.isnan(handed_in["w"]).all()
    assert non_finite(handed_in) == "w"
    assert (handed_in["n"] == LEARNT["n"]).all()
