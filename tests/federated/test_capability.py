"""What a peer measures of itself, on a clock of the test."""

from __future__ import annotations

import time
from itertools import count

import pytest

from federated.capability import (
    BENCHMARK_ARRAYS,
    BENCHMARK_SIZE,
    CHANGE,
    MIN_AVERAGED,
    MIN_TRANSFER,
    Meter,
    benchmark,
)
from federated.compute import machine_size
from federated.pace import Pace

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def meter(clock: Clock, memory: int = 1 << 30, cores: int = 4) -> Meter:
    return Meter(clock, Pace(), memory=memory, cores=cores)


def fetch(measured: Meter, clock: Clock, size: int, seconds: float) -> None:
    with measured.down.expect(size):
        clock.now += seconds


def test_the_benchmark_counts_bytes_until_its_time_is_over() -> None:
    times = count(0.0, 0.03)
    rate = benchmark(lambda: next(times))  # over after the fourth repetition
    assert rate == pytest.approx(4 * BENCHMARK_ARRAYS * BENCHMARK_SIZE / 0.12)


def test_this_machine_has_something() -> None:
    assert benchmark(time.monotonic) > 0
    memory, cores = machine_size()
    assert memory > 0
    assert cores > 0


def test_transfers_one_after_the_other_are_averaged() -> None:
    clock = Clock()
    measured = meter(clock)
    assert measured.down.rate == 0.0
    fetch(measured, clock, MIB, 1.0)
    assert measured.down.rate == MIB
    for _ in range(20):
        fetch(measured, clock, MIB, 2.0)
    assert measured.down.rate == pytest.approx(MIB / 2, rel=0.01)


def test_transfers_at_the_same_time_share_the_line() -> None:
    clock = Clock()
    measured = meter(clock)
    with measured.down.expect(MIB), measured.down.expect(MIB), measured.down.expect(MIB):
        clock.now += 3.0
    assert measured.down.rate == MIB


def test_what_is_small_or_does_not_come_is_not_counted() -> None:
    clock = Clock()
    measured = meter(clock)
    fetch(measured, clock, MIN_TRANSFER - 1, 1.0)
    assert measured.down.rate == 0.0
    with pytest.raises(ZeroDivisionError), measured.down.expect(MIB):
        clock.now += 5.0
        fetch(measured, clock, MIN_TRANSFER, 1.0)
        clock.now += 5.0
        raise ZeroDivisionError
    assert measured.down.rate == MIN_TRANSFER
    fetch(measured, clock, MIB, 0.0)  # too quick for the clock
    assert measured.down.rate == MIN_TRANSFER


def test_averaging_is_measured_after_the_benchmark() -> None:
    clock = Clock()
    measured = meter(clock)
    measured.averaged(MIB)
    first = measured.news()
    assert first is not None
    assert first.aggregate_bytes_per_second == MIB
    with measured.averaging(MIN_AVERAGED - 1):  # so little tells nothing
        clock.now += 1.0
    assert measured.news() is None
    with measured.averaging(4 * MIN_AVERAGED):
        clock.now += 1.0
    second = measured.news()
    assert second is not None
    assert second.aggregate_bytes_per_second == pytest.approx(MIB + 0.3 * 3 * MIN_AVERAGED)


def test_the_busiest_seconds_tell_what_can_be_sent() -> None:
    clock = Clock()
    measured = meter(clock)

    def up(seconds: float, total: int) -> float | None:
        clock.now += seconds
        measured.sent(total)
        news = measured.news()
        return None if news is None else news.bytes_up

    assert up(0.5, MIB) == 0.0  # not a second yet; the first news
    assert up(0.5, 2 * MIB) == 2 * MIB
    assert up(10.0, 2 * MIB + 1) is None  # nobody asked
    assert up(1.0, 4 * MIB + 1) is None  # the same again
    assert up(1.0, 7 * MIB + 1) == 3 * MIB
    assert up(1.0, 7 * MIB + MIB // 2 + 1) == pytest.approx((3 - 0.3 * 2.5) * MIB)


def test_only_what_changed_enough_is_news() -> None:
    clock = Clock()
    pace = Pace()
    measured = Meter(clock, pace, memory=1 << 60, cores=1 << 20)
    first = measured.news()
    assert first is not None
    assert (first.round, first.steps_per_second, first.bytes_down) == (0, 0.0, 0.0)
    assert (first.memory, first.cores) == (1 << 50, 1 << 16)  # what the wire takes
    assert measured.news() is None
    pace.steps_per_second = 10.0
    assert measured.news() is not None
    pace.steps_per_second = 10.0 * CHANGE
    assert measured.news() is None
    pace.steps_per_second = 10.0 * CHANGE + 0.01
    assert measured.news() is not None
    pace.steps_per_second = 10.0
    assert measured.news() is not None  # down again, from what was told last
    pace.steps_per_second = 1e20
    found = measured.news()
    assert found is not None
    assert found.steps_per_second == 1e15
