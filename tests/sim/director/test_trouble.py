"""Calm is when nothing is wrong, and healed."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from sim.director.trouble import RECOVERY, Interval, Trouble

MOMENT = st.integers(0, 50).map(float)


def test_without_trouble_it_is_always_calm() -> None:
    assert Trouble().calm(0.0, 1000.0)


def test_trouble_lasts_until_it_is_healed() -> None:
    trouble = Trouble()
    trouble.note(10.0, 20.0, "hold")
    assert trouble.calm(0.0, 9.9)
    assert not trouble.calm(0.0, 10.0)
    assert not trouble.calm(20.0 + RECOVERY, 100.0)
    assert trouble.calm(20.1 + RECOVERY, 100.0)
    assert trouble.intervals == [Interval(begin=10.0, end=20.0 + RECOVERY, what="hold")]


def test_what_never_ends_is_never_healed() -> None:
    trouble = Trouble()
    trouble.note(10.0, inf, "hold")
    assert not trouble.calm(1e9, 1e9)


@given(st.lists(st.tuples(MOMENT, MOMENT)), MOMENT, MOMENT)
def test_calm_is_to_touch_no_interval(spans: list[tuple[float, float]], at: float, length: float) -> None:
    trouble = Trouble()
    for begin, seconds in spans:
        trouble.note(begin, begin + seconds, "hold", 1.0)
        trouble.calm(at, at)  # asking does not change the answer
    until = at + length
    wrong = [begin <= until and at <= begin + seconds + 1.0 for begin, seconds in spans]
    assert trouble.calm(at, until) == (not any(wrong))
    assert [interval.begin for interval in trouble.intervals] == sorted(begin for begin, _ in spans)
