"""The attacks of the literature: formulas against the papers' numbers and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.adversaries.poisoning import ATTACKS, TELLING, Matrix, Scene, Vector, deviations, length

HONEST = np.array([[1.0, 2.0, -3.0], [3.0, 2.0, -1.0], [2.0, 8.0, -2.0], [2.0, 0.0, 2.0]])
OWN = np.array([3.0, -4.0, 0.0])


def nobody() -> Matrix:
    raise AssertionError("this attack needs no honest updates")


def lie(name: str, *, honest: Matrix = HONEST, members: int = 6, seed: int = 1, own: Vector = OWN) -> Vector:
    noise = np.random.RandomState(seed)
    scene = Scene(base={}, own=own, honest=lambda: honest, members=members, noise=noise)
    return ATTACKS[name].lie(scene)


def test_the_deviations_are_those_of_the_papers_example() -> None:
    """Baruch et al. 2019, section 3.3: 50 workers, 24 of them corrupted."""
    assert deviations(50, 26) == pytest.approx(1.43, abs=0.005)


@given(st.integers(1, 300), st.integers(0, 300))
def test_there_is_a_number_of_deviations_for_every_league(honest: int, liars: int) -> None:
    assert np.isfinite(deviations(honest + liars, honest))


def test_more_liars_need_fewer_honest_on_their_side() -> None:
    found = [deviations(20, 20 - liars) for liars in range(1, 10)]
    assert found == sorted(found)


def test_a_little_is_some_deviations_below_the_mean() -> None:
    found = lie("alie", members=6)  # two liars: of four honest ones two are to be further away
    mean, spread = HONEST.mean(axis=0), HONEST.std(axis=0)
    assert deviations(6, 4) == 0.0
    assert found == pytest.approx(mean, abs=5 * TELLING * length(mean))
    found = lie("alie", members=7)  # three liars, four of seven are a majority: one honest one is enough
    assert found == pytest.approx(mean - 0.6745 * spread, abs=5 * TELLING * length(mean) + 1e-3)


def test_inner_product_manipulation_goes_half_as_far_the_other_way() -> None:
    mean = HONEST.mean(axis=0)
    assert lie("ipm") == pytest.approx(-mean / 2, abs=5 * TELLING * length(mean))


@pytest.mark.parametrize("name", ["alie", "ipm"])
def test_liars_in_league_hand_in_nearly_the_same_and_not_the_same(name: str) -> None:
    one, other = lie(name, seed=1), lie(name, seed=2)
    assert 0 < length(one - other) < 5 * TELLING * length(one)
    assert (lie(name, seed=1) == one).all()


def test_a_flipped_sign_is_five_times_as_long() -> None:
    assert lie("sign").tolist() == [-15.0, 20.0, 0.0]


def test_noise_is_ten_times_as_long_and_has_no_direction() -> None:
    own = np.ones(4000)
    found = lie("gauss", own=own)
    assert length(found) == pytest.approx(10 * length(own), rel=0.05)
    assert abs(found @ own) < 0.05 * length(found) * length(own)


@pytest.mark.parametrize("name", ["sign", "gauss", "label-flip"])
def test_some_attacks_know_nothing_of_the_others(name: str) -> None:
    noise = np.random.RandomState(1)
    ATTACKS[name].lie(Scene(base={}, own=OWN, honest=nobody, members=6, noise=noise))


def test_flipped_labels_change_what_is_learnt_and_nothing_else() -> None:
    assert [name for name, attack in ATTACKS.items() if attack.flips] == ["label-flip"]
    assert (lie("label-flip") == OWN).all()
