"""The back-off of a fixed topology."""

from __future__ import annotations

from sim.redial import FIRST, LONGEST, Redial


def test_waits_double_up_to_the_longest_and_start_anew_with_a_connection() -> None:
    redial = Redial()
    assert [redial.wait() for _ in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST, LONGEST]
    redial.connected()
    assert redial.wait() == FIRST
