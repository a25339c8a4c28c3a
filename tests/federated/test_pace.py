from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.pace import MARGIN, Pace
from federated.throttle import MAX_REST, SHARE, Throttle

seconds = st.floats(min_value=1e-3, max_value=10.0)


def test_nothing_is_known_before_the_first_training():
    pace = Pace()
    pace.observe(0, 3.0)  # a trainer that never asks has no steps
    assert pace.steps_within(60.0) is None


def test_what_fits_before_the_deadline_leaves_time_to_tell():
    pace = Pace()
    pace.observe(50, 10.0)
    assert pace.steps_within(60.0) == int(5 * 60 * MARGIN)
    assert pace.steps_within(0.01) == 1


def test_one_slow_training_is_not_the_pace():
    pace = Pace()
    for _ in range(20):
        pace.observe(100, 10.0)
    pace.observe(10, 10.0)
    assert 7 < pace.steps_per_second < 8
    for _ in range(20):
        pace.observe(10, 10.0)
    assert pace.steps_per_second == pytest.approx(1.0, rel=0.02)


def work(throttle: Throttle, steps: int, step: float, threads: float) -> tuple[float, float]:
    """(wall, processor) seconds of so many steps on so many threads at once, with the rests in between."""
    now = processor = 0.0
    for _ in range(steps):
        now += throttle.rest(now, processor)
        now, processor = now + step, processor + step * threads
    return now, processor


@given(seconds, st.integers(1, 64))
def test_a_trainer_that_takes_all_cores_leaves_some(step: float, cores: int):
    wall, processor = work(Throttle(cores), 200, step, cores)
    assert SHARE * 0.9 <= processor / (wall * cores) <= SHARE * 1.05


@given(seconds, st.integers(2, 64))
def test_one_thread_of_several_is_never_held_up(step: float, cores: int):
    wall, processor = work(Throttle(cores), 500, step, 1.0)
    assert wall == pytest.approx(processor)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), max_size=50))
def test_a_rest_is_bounded_whatever_the_clocks_say(times: list[tuple[float, float]]):
    throttle = Throttle(2)
    now = processor = 0.0
    for passed, taken in times:
        now, processor = now + passed, processor + taken
        assert 0.0 <= throttle.rest(now, processor) <= MAX_REST
