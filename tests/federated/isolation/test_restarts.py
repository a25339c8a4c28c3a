from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federated.isolation.restarts import FIRST_DELAY, MAX_DELAY, Restarts


def test_the_first_failure_costs_no_time_and_those_after_it_more_and_more() -> None:
    restarts = Restarts()
    waits = []
    for now in range(0, 1000, 100):
        restarts.failed(float(now))
        waits.append(restarts.wait(float(now)))
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert restarts.wait(959.0) == 1.0
    assert restarts.wait(2000.0) == 0.0


def test_what_has_worked_fails_for_the_first_time() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.failed(0.0)
    restarts.succeeded()
    assert restarts.wait(0.0) == 0.0
    restarts.failed(0.0)
    assert restarts.wait(0.0) == 0.0
    restarts.failed(0.0)
    assert restarts.wait(0.0) == FIRST_DELAY


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=2000))
def test_a_wait_has_bounds(steps: list[float | None]) -> None:
    restarts, now = Restarts(), 0.0
    for step in steps:
        if step is None:
            restarts.failed(now)
        else:
            now += step
        assert 0.0 <= restarts.wait(now) <= MAX_DELAY
