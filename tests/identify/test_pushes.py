from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2p.identify.pushes import MAX_IN_FLIGHT, PUSH_BURST, PUSH_RATE, PushPlanner, PushRate
from p2p.peer_id import PeerId


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def planner_with(count: int, *, limited: bool = False) -> PushPlanner:
    planner = PushPlanner()
    for number in range(count):
        planner.handle_connected(peer(number), limited=limited)
        planner.handle_identified(peer(number), takes_pushes=True)
    return planner


def test_a_peer_knows_what_was_true_when_it_came():
    planner = PushPlanner()
    planner.handle_changed()
    planner.handle_connected(peer(1), limited=False)
    planner.handle_identified(peer(1), takes_pushes=True)
    assert planner.start(0.0) == []
    assert planner.next_deadline(0.0) is None


def test_many_changes_are_one_push():
    planner = planner_with(2)
    for _ in range(5):
        planner.handle_changed()
    assert planner.start(0.0) == [peer(0), peer(1)]
    assert planner.start(0.0) == []


def test_what_changes_during_a_push_is_told_by_one_more():
    planner = planner_with(1)
    planner.handle_changed()
    assert planner.start(0.0) == [peer(0)]
    planner.handle_changed()
    planner.handle_changed()
    assert planner.start(0.0) == []
    planner.handle_done(peer(0))
    assert planner.start(0.0) == [peer(0)]
    planner.handle_done(peer(0))
    assert planner.start(0.0) == []


def test_a_change_before_the_peer_has_said_that_it_takes_pushes_is_not_lost():
    planner = PushPlanner()
    planner.handle_connected(peer(1), limited=False)
    planner.handle_changed()
    assert planner.start(0.0) == []
    planner.handle_identified(peer(1), takes_pushes=True)
    assert planner.start(0.0) == [peer(1)]


def test_a_peer_that_asked_after_the_change_needs_no_push():
    planner = planner_with(1)
    planner.handle_changed()
    planner.handle_told(peer(0))
    planner.handle_told(peer(7))
    assert planner.start(0.0) == []


def test_peers_without_the_protocol_and_peers_that_are_gone_get_none():
    planner = planner_with(2)
    planner.handle_identified(peer(0), takes_pushes=False)
    planner.handle_identified(peer(7), takes_pushes=True)
    planner.handle_disconnected(peer(1))
    planner.handle_changed()
    assert planner.start(0.0) == []


def test_pushes_at_once_are_bounded():
    planner = planner_with(MAX_IN_FLIGHT + 5, limited=True)
    planner.handle_changed()
    first = planner.start(0.0)
    assert len(first) == MAX_IN_FLIGHT
    assert planner.next_deadline(0.0) is None
    planner.handle_done(first[0])
    assert planner.next_deadline(0.0) == 0.0
    assert planner.start(0.0) == [peer(MAX_IN_FLIGHT)]


def test_a_peer_gets_no_more_pushes_than_it_would_let_through():
    planner = planner_with(1, limited=True)
    for _ in range(PUSH_BURST):
        planner.handle_changed()
        assert planner.start(5.0) == [peer(0)]
        planner.handle_done(peer(0))
    planner.handle_changed()
    assert planner.start(5.0) == []
    assert planner.next_deadline(5.0) == 5.0 + 1 / PUSH_RATE
    assert planner.start(5.0 + 1 / PUSH_RATE) == [peer(0)]


@given(st.lists(st.floats(0, 20), max_size=200))
def test_no_more_pushes_pass_than_burst_and_rate_allow(pauses):
    rate, now, taken = PushRate(), 0.0, 0
    for pause in pauses:
        now += pause
        taken += rate.take(now)
    assert taken <= PUSH_BURST + PUSH_RATE * now + 1e-6


@given(st.lists(st.tuples(st.sampled_from("cutgidx"), st.integers(0, 3)), max_size=60))
def test_every_peer_that_stays_is_told_in_the_end(steps):
    planner = PushPlanner()
    version, told, present, flying = 0, dict[int, int](), dict[int, bool](), set[int]()

    def start(now: float) -> None:
        for started in planner.start(now):
            number = int.from_bytes(started.raw[2:], "big")
            assert present[number]
            assert number not in flying
            flying.add(number)
            told[number] = version

    for now, (step, number) in enumerate(steps):
        match step:
            case "c":
                planner.handle_connected(peer(number), limited=True)
                present[number], told[number] = False, version
            case "u":
                planner.handle_changed()
                version += 1
            case "i" if number in present:
                planner.handle_identified(peer(number), takes_pushes=True)
                present[number] = True
            case "d":
                planner.handle_done(peer(number))
                flying.discard(number)
            case "x":
                planner.handle_disconnected(peer(number))
                present.pop(number, None)
        start(float(now))
    for round_ in range(5):
        for number in list(flying):
            planner.handle_done(peer(number))
            flying.discard(number)
        start(1e4 * (round_ + 1))
    assert all(told[number] == version for number, takes in present.items() if takes)
