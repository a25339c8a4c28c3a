"""Lines carry no more than their bandwidth."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim.network.bandwidth
from sim.network.bandwidth import Bandwidth
from sim.scenario.model import NetworkSettings
from tests.sim.network.support import Wire

RATE = 1000  # bytes a second
MBIT = RATE * 8 / 1e6

any_sends = st.lists(
    st.tuples(st.floats(0, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3000)), max_size=30
)


def never_more_than_the_rate(through: list[tuple[float, int]]) -> bool:
    """Whether no window between two messages has more bytes in it than the rate allows."""
    through.sort()
    for first in range(len(through)):
        carried = 0
        for at, size in through[first + 1 :]:
            carried += size
            if carried > RATE * (at - through[first][0]) + 1e-6 * RATE:
                return False
    return True


@given(sends=any_sends)
def test_an_uplink_carries_at_most_its_bandwidth_in_any_window(
    sends: list[tuple[float, int, int, int]],
) -> None:
    lines = Bandwidth(NetworkSettings(up_mbit=MBIT), 4)
    through = [
        (lines.leave(0, target, size, at), size) for at, _, target, size in sorted(sends, key=lambda s: s[0])
    ]
    assert never_more_than_the_rate(through)


@pytest.mark.parametrize("line", ["link_mbit", "down_mbit", "weather"])
@given(sends=any_sends)
def test_a_line_carries_at_most_its_bandwidth_in_any_window(
    line: str, sends: list[tuple[float, int, int, int]]
) -> None:
    wire = Wire() if line == "weather" else Wire(**{line: MBIT})
    if line == "weather":
        wire.network.begin_weather(range(4), mbit=MBIT)
    for at, source, target, size in sends:
        wire.heap.plan(at, wire.send, source, target, size, size)
    wire.run()
    for target in range(4):
        for source in range(4):
            if line != "down_mbit":
                assert never_more_than_the_rate(
                    [(at, size) for at, by, to, size in wire if (by, to) == (source, target)]
                )
        if line == "down_mbit":
            assert never_more_than_the_rate([(at, size) for at, _, to, size in wire if to == target])


def test_an_uplink_is_shared_and_first_come_is_first_served() -> None:
    wire = Wire(up_mbit=MBIT)
    wire.send(0, 1, size=1000)
    wire.send(0, 2, size=500)
    wire.send(3, 2, size=100)
    assert wire.run() == [
        (pytest.approx(0.2), 3, 2, None),
        (pytest.approx(1.1), 0, 1, None),
        (pytest.approx(1.6), 0, 2, None),
    ]


def test_a_downlink_serves_in_the_order_of_arrival() -> None:
    wire = Wire(down_mbit=MBIT)
    wire.send(0, 3, "first", size=1000)
    wire.heap.plan(0.01, wire.send, 1, 3, "second", 100)
    assert [at for at, *_ in wire.run()] == pytest.approx([1.1, 1.2])


def test_the_slower_of_link_and_weather_counts() -> None:
    lines = Bandwidth(NetworkSettings(link_mbit=MBIT), 2)
    assert lines.leave(0, 1, 1000, 0.0, mbit=MBIT * 2) == pytest.approx(1.0)
    assert lines.leave(0, 1, 1000, 0.0, mbit=MBIT / 2) == pytest.approx(3.0)


def test_free_links_are_forgotten_and_busy_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.network.bandwidth, "MAX_BUSY_LINKS", 10)
    lines = Bandwidth(NetworkSettings(link_mbit=MBIT), 2)
    lines.leave(0, 0, 1_000_000, 0.0)
    times = [lines.leave(0, pair, 1000, 10.0 * pair) for pair in range(1, 50)]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert len(lines._link_free) <= 11
    assert lines.leave(0, 0, 1000, 500.0) == pytest.approx(1001.0)
