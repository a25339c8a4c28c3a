"""What a node has of its own: its NAT and its clock; and what an outage costs a connection."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim.network.nat
from sim.network.clocks import EPOCH
from sim.network.nat import Nat
from sim.network.retransmission import LONGEST_WAIT, wait_after_outage
from sim.scenario.model import Nat as NatShare
from tests.sim.network.support import Wire


def test_nobody_has_a_nat_unless_there_are_some() -> None:
    assert Wire().network.reachable(0, 1)
    assert Wire().network.dialable(0)
    assert Nat((), 3, Random(1)).kind(2) == "open"


def test_nats_are_dealt_out_by_their_shares() -> None:
    nat = Nat((NatShare(kind="symmetric", share=0.3), NatShare(kind="full-cone", share=0.2)), 4000, Random(1))
    kinds = [nat.kind(node) for node in range(4000)]
    assert kinds.count("symmetric") / 4000 == pytest.approx(0.3, abs=0.03)
    assert kinds.count("full-cone") / 4000 == pytest.approx(0.2, abs=0.03)
    assert kinds.count("open") / 4000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "by_the_dialed", "by_others"),
    [("full-cone", True, True), ("restricted", True, False), ("symmetric", False, False)],
)
def test_who_dials_out_opens_a_way_in_as_far_as_the_nat_allows(
    kind: str, by_the_dialed: bool, by_others: bool
) -> None:
    nat = Nat((NatShare.model_validate({"kind": kind, "share": 1.0}),), 4, Random(1))
    assert not nat.dial(1, 0)
    assert not nat.dial(2, 0)
    assert nat.dial(0, 1) == (kind != "symmetric")  # 1 dialed too, and to 0
    assert nat.dial(1, 0) == by_the_dialed
    assert nat.dial(3, 0) == by_others


def test_a_nat_remembers_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.network.nat, "MAX_DIALED", 2)
    nat = Nat((NatShare(kind="restricted", share=1.0),), 9, Random(1))
    for other in (1, 2, 1, 3):
        nat.dial(0, other)
    assert [nat.dial(other, 0) for other in (1, 2, 3)] == [True, False, True]


def test_clocks_are_off_by_at_most_the_skew_and_jump() -> None:
    wire = Wire(nodes=50, clock_skew_ms=500)
    wire.run(10.0)
    off = [wire.network.wall_clock(node) - EPOCH - 10.0 for node in range(50)]
    assert all(abs(seconds) <= 0.5 for seconds in off)
    assert max(off) - min(off) > 0.8
    wire.network.jump_clock([3], -60.0)
    assert wire.network.wall_clock(3) == pytest.approx(EPOCH + 10.0 + off[3] - 60.0)
    assert wire.network.wall_clock(4) == pytest.approx(EPOCH + 10.0 + off[4])


@given(lasted=st.floats(0, 1e5))
def test_after_an_outage_the_sender_tries_again_soon(lasted: float) -> None:
    wait = wait_after_outage(lasted)
    assert 0 <= wait <= LONGEST_WAIT
    assert wait <= lasted + 0.2


@pytest.mark.parametrize(
    ("lasted", "wait"), [(0.0, 0.0), (0.1, 0.1), (0.3, 0.3), (1.0, 0.4), (3.0, 0.0), (4.0, 2.2), (7.0, 2.4)]
)
def test_attempts_double_their_distance(lasted: float, wait: float) -> None:
    assert wait_after_outage(lasted) == pytest.approx(wait)
