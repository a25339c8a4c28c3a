"""What a run took."""

from __future__ import annotations

from typing import Any

import pytest

import sim.stopwatch
from sim.run import Progress
from sim.scenario.model import Scenario
from sim.stopwatch import Stopwatch, bare_heap_rate


def progress(at: float) -> Progress:
    return Progress(virtual_seconds=at, planned_seconds=20.0, events=int(100 * at))


def scenario(**parts: Any) -> Scenario:
    return Scenario.model_validate({"name": "x", "rung": "cores", "peers": 10, "settle": 5, **parts})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(sim.stopwatch.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(sim.stopwatch, "bare_heap_rate", lambda: 1000.0)
    return now


def test_speed_is_of_the_time_while_the_loads_were_on(clock: list[float]) -> None:
    watch = Stopwatch(scenario(gossip=[{"start": 4, "seconds": 10}]))
    for at in range(1, 20):
        clock[0] += 1.0 if 4 < at <= 14 else 0.1
        watch.progress(progress(at))
    figures = watch.figures(4321)
    assert figures["speed"] == 1.0
    assert figures["startup_seconds"] == pytest.approx(0.4)
    assert figures["wall_seconds"] == pytest.approx(10.9)
    assert (figures["events_per_second"], figures["bare_heap_events_per_second"]) == (396, 1000)
    assert (watch.virtual_seconds, watch.events) == (19.0, 1900)


def test_a_run_without_a_moment_of_load_has_no_speed(clock: list[float]) -> None:
    watch = Stopwatch(scenario())
    clock[0] += 1
    assert (watch.figures(10)["speed"], watch.figures(10)["startup_seconds"]) == (None, None)


def test_memory_is_the_peak_and_a_peer_s_share_is_of_what_came_since(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch(scenario())
    before = watch.rss
    sizes = iter([before + 5000, before + 20_000, before + 1000])

    class Process:
        @staticmethod
        def memory_info() -> Any:
            return type("Memory", (), {"rss": next(sizes)})

    monkeypatch.setattr(watch, "_process", Process)
    told: list[Progress] = []
    monkeypatch.setattr(watch, "_then", told.append)
    for at in (1, 2, 3):
        watch.progress(progress(at))
    figures = watch.figures(1)
    assert (figures["rss_bytes"], figures["bytes_per_peer"]) == (before + 20_000, 2000)
    assert [one.virtual_seconds for one in told] == [1, 2, 3]


def test_the_bare_heap_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.stopwatch, "BARE_EVENTS", 5000)
    assert bare_heap_rate() > 10_000
