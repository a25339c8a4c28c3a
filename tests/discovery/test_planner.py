import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.discovery.planner import (
    BACKOFF_MAX,
    JITTER,
    MAX_DIALS,
    MAX_FAILURES,
    MAX_TARGETS,
    MEET_AGAIN,
    SEARCH_FIRST,
    SEARCH_MAX,
    SEARCH_SOON,
    STABLE,
    Dial,
    DialEnded,
    Known,
    Planner,
    Search,
    Searched,
)
from p2p.events import PeerConnected, PeerDisconnected, PeerIdentified
from tests.kad.peers import peer

PROTOCOL = "/test/kad"
LOCAL, BOOTSTRAP = peer(0), peer(1)


def planner(*, bootstrap=(), target_peers=64, seed=1):
    return Planner(
        local=LOCAL,
        bootstrap=bootstrap,
        protocol=PROTOCOL,
        target_peers=target_peers,
        rng=random.Random(seed),
    )


def dials(actions):
    return [action.peer for action in actions if isinstance(action, Dial)]


def searches(actions):
    return Search() in actions


def come(plan, number, now, *, outbound=True, protocols=(PROTOCOL,)):
    """Peer `number` connects and says what it speaks."""
    actions = plan.handle(PeerConnected(peer=peer(number), outbound=outbound), now)
    return actions + plan.handle(PeerIdentified(peer=peer(number), protocols=protocols, agent=""), now)


def leave(plan, number, now):
    return plan.handle(PeerDisconnected(peer=peer(number)), now)


def fail(plan, number, now):
    return plan.handle(DialEnded(peer=peer(number), connected=False), now)


def fail_until_left_alone(plan, number, now):
    """Lets every dial of peer `number` fail; returns (how many there were, when the last one was)."""
    count = 0
    while plan.next_deadline() is not None:
        now = max(now, plan.next_deadline())
        for one in dials(plan.handle_timer(now)):
            assert one == peer(number)
            count += 1
            fail(plan, number, now)
    return count, now


# Bootstrap


def test_the_bootstrap_peer_is_dialed_at_once():
    plan = planner(bootstrap=[BOOTSTRAP])
    assert plan.next_deadline() == 0.0
    assert plan.handle_timer(0.0) == [Dial(peer=BOOTSTRAP)]
    assert plan.next_deadline() is None


def test_a_bootstrap_peer_is_retried_for_ever_with_growing_waits():
    plan, now, waits = planner(bootstrap=[BOOTSTRAP]), 0.0, []
    assert dials(plan.handle_timer(now)) == [BOOTSTRAP]
    for _ in range(30):
        fail(plan, 1, now)
        deadline = plan.next_deadline()
        waits.append(deadline - now)
        assert plan.handle_timer(deadline - 0.001) == []
        now = deadline
        assert dials(plan.handle_timer(now)) == [BOOTSTRAP]
    expected = [min(60.0, 2.0**n) for n in range(30)]
    assert all(base <= wait <= base * (1 + JITTER) for base, wait in zip(expected, waits, strict=True))
    assert len(set(waits)) == len(waits)


def test_we_do_not_dial_ourselves_as_bootstrap():
    assert planner(bootstrap=[LOCAL]).next_deadline() is None


def test_a_bootstrap_peer_is_met_once_although_enough_others_are_there():
    plan = planner(bootstrap=[BOOTSTRAP], target_peers=2)
    assert dials(come(plan, 2, 0.0)) == [BOOTSTRAP]
    come(plan, 3, 0.0)
    fail(plan, 1, 0.0)
    assert dials(plan.handle_timer(2.0)) == [BOOTSTRAP]


def test_a_lost_bootstrap_peer_is_redialed_while_peers_are_missing():
    plan = planner(bootstrap=[BOOTSTRAP], target_peers=2)
    come(plan, 1, 0.0)
    leave(plan, 1, 100.0)
    for _ in range(3 * MAX_FAILURES):
        deadline = plan.next_deadline()
        assert dials(plan.handle_timer(deadline)) == [BOOTSTRAP]
        fail(plan, 1, deadline)


def test_one_of_the_bootstrap_peers_is_met_again_although_there_are_enough_others():
    """Peers that were cut off together, and have each other, would never find the rest again."""
    plan = planner(bootstrap=[BOOTSTRAP, peer(2)], target_peers=2)
    plan.handle_timer(0.0)
    for number in (1, 2, 3, 4):
        come(plan, number, 0.0)
        if number < 3:
            plan.handle(DialEnded(peer=peer(number), connected=True), 0.0)
    leave(plan, 1, 100.0)
    assert plan.next_deadline() is None  # there is the other one
    leave(plan, 2, 200.0)
    deadline = plan.next_deadline()
    assert 200.0 + MEET_AGAIN <= deadline <= 200.0 + MEET_AGAIN * (1 + JITTER)
    assert sorted(dials(plan.handle_timer(deadline))) == sorted([BOOTSTRAP, peer(2)])
    fail(plan, 1, deadline)
    fail(plan, 2, deadline)
    later = plan.next_deadline()
    assert deadline < later <= deadline + 2.0
    assert dials(plan.handle_timer(later)) != []
    come(plan, 1, later)
    fail(plan, 2, later)
    assert plan.next_deadline() is None


# Dials


def test_at_most_eight_dials_run_at_once():
    plan = planner()
    first = dials(plan.handle(Known(peers=[peer(n) for n in range(1, 40)]), 0.0))
    assert len(first) == MAX_DIALS
    assert plan.next_deadline() is None
    second = dials(plan.handle(DialEnded(peer=first[0], connected=False), 0.0))
    assert len(second) == 1
    assert second[0] not in first


def test_we_never_dial_ourselves():
    assert planner().handle(Known(peers=[LOCAL]), 0.0) == []


def test_no_more_are_dialed_than_are_wanted():
    plan = planner(target_peers=3)
    come(plan, 50, 0.0)
    assert len(dials(plan.handle(Known(peers=[peer(n) for n in range(1, 40)]), 0.0))) == 2


def test_connected_peers_are_not_dialed():
    plan = planner()
    come(plan, 2, 0.0, outbound=False)
    assert dials(plan.handle(Known(peers=[peer(2)]), 0.0)) == []


def test_peers_with_different_rngs_dial_in_different_orders():
    everybody = Known(peers=[peer(n) for n in range(1, 40)])
    assert dials(planner(seed=1).handle(everybody, 0.0)) != dials(planner(seed=2).handle(everybody, 0.0))
    assert dials(planner(seed=1).handle(everybody, 0.0)) == dials(planner(seed=1).handle(everybody, 0.0))


def test_a_lost_peer_is_redialed_soon():
    plan = planner()
    come(plan, 2, 0.0)
    leave(plan, 2, STABLE)
    deadline = plan.next_deadline()
    assert STABLE + 1.0 <= deadline <= STABLE + 1.0 + JITTER
    assert dials(plan.handle_timer(deadline)) == [peer(2)]


def test_peers_that_we_were_connected_to_come_before_strangers():
    plan = planner()
    come(plan, 50, 0.0)
    strangers = dials(plan.handle(Known(peers=[peer(n) for n in range(1, 40)]), 0.0))
    leave(plan, 50, STABLE)
    assert dials(plan.handle_timer(STABLE + 2)) == []
    assert dials(plan.handle(DialEnded(peer=strangers[0], connected=False), STABLE + 2)) == [peer(50)]


def test_a_peer_that_drops_us_at_once_is_redialed_ever_less_often():
    plan, now, waits = planner(), 0.0, []
    for _ in range(MAX_FAILURES - 1):
        come(plan, 2, now)
        leave(plan, 2, now)
        deadline = plan.next_deadline()
        waits.append(deadline - now)
        now = deadline
        assert dials(plan.handle_timer(now)) == [peer(2)]
        plan.handle(DialEnded(peer=peer(2), connected=True), now)
    assert waits[-1] > 30
    come(plan, 2, now)
    leave(plan, 2, now)
    assert plan.next_deadline() is None


def test_a_dial_that_succeeds_counts_before_the_event_of_its_connection_comes():
    plan = planner(target_peers=1)
    plan.handle(Known(peers=[peer(2), peer(3)]), 0.0)
    [first] = [one for one in (peer(2), peer(3)) if plan._targets[one].dialing]
    assert plan.handle(DialEnded(peer=first, connected=True), 0.0) == []
    assert plan.connected() == [first]
    assert plan.next_deadline() is None
    assert plan.handle(PeerConnected(peer=first, outbound=True), 0.1) == []
    assert dials(plan.handle(PeerDisconnected(peer=first), 0.2)) != []


def test_a_dial_that_fails_after_the_peer_came_to_us_is_no_failure():
    plan = planner()
    plan.handle(Known(peers=[peer(2)]), 0.0)
    come(plan, 2, 0.0, outbound=False)
    fail(plan, 2, 0.0)
    assert plan._targets[peer(2)].failures == 0


# Giving up


def test_a_peer_is_left_alone_after_eight_failures():
    plan = planner()
    assert dials(plan.handle(Known(peers=[peer(2)]), 0.0)) == [peer(2)]
    fail(plan, 2, 0.0)
    count, when = fail_until_left_alone(plan, 2, 0.0)
    assert count + 1 == MAX_FAILURES
    assert 120 < when < 240


def test_that_it_is_in_the_peerstore_is_no_reason_to_dial_again():
    plan = planner()
    plan.handle(Known(peers=[peer(2)]), 0.0)
    fail(plan, 2, 0.0)
    _, when = fail_until_left_alone(plan, 2, 0.0)
    assert plan.handle(Known(peers=[peer(2)]), when + 1000) == []
    assert plan.next_deadline() is None


def test_a_mention_grants_one_more_try_but_not_more_than_one_a_minute():
    plan = planner()
    plan.handle(Known(peers=[peer(2)]), 0.0)
    fail(plan, 2, 0.0)
    _, when = fail_until_left_alone(plan, 2, 0.0)
    for _ in range(3):
        assert dials(plan.handle(Searched(heard=[peer(2)]), when + 1)) == []
        assert plan.next_deadline() >= when + BACKOFF_MAX
        when = plan.next_deadline()
        assert dials(plan.handle_timer(when)) == [peer(2)]
        fail(plan, 2, when)
        assert plan.next_deadline() is None


def test_a_peer_that_was_left_alone_and_comes_by_itself_is_dialed_again_when_lost():
    plan = planner()
    plan.handle(Known(peers=[peer(2)]), 0.0)
    fail(plan, 2, 0.0)
    _, when = fail_until_left_alone(plan, 2, 0.0)
    come(plan, 2, when, outbound=False)
    leave(plan, 2, when + STABLE)
    assert dials(plan.handle_timer(when + STABLE + 2)) == [peer(2)]


def test_loss_of_a_stranger_is_ignored():
    assert leave(planner(), 2, 0.0) == []


# Searches


def test_the_first_peer_that_serves_starts_a_search():
    assert searches(come(planner(), 2, 0.0))


def test_a_peer_that_does_not_serve_starts_none():
    plan = planner()
    assert not searches(come(plan, 2, 0.0, protocols=("/other",)))
    assert plan.next_deadline() is None


def test_the_return_of_a_bootstrap_peer_starts_a_search_at_once():
    plan = planner(bootstrap=[BOOTSTRAP])
    come(plan, 2, 0.0)
    plan.handle(Searched(heard=[]), 0.0)
    assert searches(come(plan, 1, 1.0))


def test_the_next_search_follows_soon_after_connections_that_one_led_to():
    plan, now = quiet_planner()
    come(plan, 3, now + 1)
    assert plan.next_deadline() == now + 1 + SEARCH_FIRST
    assert searches(plan.handle_timer(now + 1 + SEARCH_FIRST))
    plan.handle(Searched(heard=[]), now + 4)
    assert plan.next_deadline() <= now + 4 + SEARCH_FIRST * (1 + JITTER)


def quiet_planner():
    """A planner with two peers whose searches found nobody for long, and the time of the last one."""
    plan, now = planner(), 0.0
    come(plan, 2, now)
    come(plan, 4, now)
    for _ in range(8):
        plan.handle(Searched(heard=[]), now)
        now = plan.next_deadline()
        assert searches(plan.handle_timer(now))
    plan.handle(Searched(heard=[]), now)
    return plan, now


@pytest.mark.parametrize("change", [lambda *when: come(*when, outbound=False), leave])
def test_a_newcomer_or_a_loss_brings_a_search_soon(change):
    plan, now = quiet_planner()
    assert plan.next_deadline() >= now + SEARCH_MAX
    change(plan, 3 if change is not leave else 2, now + 1)
    assert not searches(plan.handle_timer(now + 1 + SEARCH_SOON - 0.1))
    assert searches(plan.handle_timer(now + 1 + SEARCH_SOON))


def test_identify_again_on_the_same_connection_changes_nothing():
    plan = planner()
    come(plan, 2, 0.0)
    plan.handle(Searched(heard=[]), 0.0)
    before = plan.next_deadline()
    assert plan.handle(PeerIdentified(peer=peer(2), protocols=(PROTOCOL,), agent=""), 0.1) == []
    assert plan.next_deadline() == before


def test_searches_that_find_nobody_come_ever_less_often_but_keep_coming():
    plan, now, waits = planner(), 0.0, []
    assert searches(come(plan, 2, now))
    for _ in range(10):
        plan.handle(Searched(heard=[]), now)
        deadline = plan.next_deadline()
        waits.append(deadline - now)
        now = deadline
        assert searches(plan.handle_timer(now))
    assert SEARCH_FIRST <= waits[0] <= SEARCH_FIRST * (1 + JITTER)
    assert all(SEARCH_MAX <= wait <= SEARCH_MAX * (1 + JITTER) for wait in waits[5:])


def test_there_is_one_search_at_a_time():
    plan = planner(bootstrap=[BOOTSTRAP])
    assert searches(come(plan, 2, 0.0))
    assert not searches(come(plan, 1, 0.0))
    assert searches(plan.handle(Searched(heard=[]), 0.5))


def test_there_is_no_search_at_the_target():
    plan = planner(target_peers=2)
    come(plan, 2, 0.0)
    plan.handle(Searched(heard=[]), 0.0)
    come(plan, 3, 0.0)
    assert plan.next_deadline() is None
    leave(plan, 3, 0.0)
    assert searches(plan.handle_timer(SEARCH_SOON))


def test_there_is_no_search_while_nobody_can_be_asked():
    plan = planner()
    come(plan, 2, 0.0)
    plan.handle(Searched(heard=[]), 0.0)
    leave(plan, 2, 0.0)
    assert not searches(plan.handle_timer(1e6))


def test_peers_heard_of_in_a_search_are_dialed():
    plan = planner()
    come(plan, 2, 0.0)
    assert dials(plan.handle(Searched(heard=[peer(3), LOCAL, peer(2)]), 0.0)) == [peer(3)]


# Bounds


def test_remembered_peers_are_bounded():
    plan = planner()
    plan.handle(Known(peers=[peer(n) for n in range(1, MAX_TARGETS + 100)]), 0.0)
    assert len(plan._targets) == MAX_TARGETS


def test_a_peer_that_was_left_alone_makes_room_for_one_heard_of():
    plan = planner()
    plan.handle(Known(peers=[peer(n) for n in range(1, MAX_TARGETS + 1)]), 0.0)
    hopeless = next(n for n in range(1, MAX_TARGETS + 1) if not plan._targets[peer(n)].dialing)
    plan._targets[peer(hopeless)].failures = MAX_FAILURES
    plan.handle(Known(peers=[peer(5000), peer(5001)]), 0.0)
    assert peer(hopeless) not in plan._targets
    assert peer(5000) in plan._targets
    assert peer(5001) not in plan._targets


def test_a_peer_that_connects_always_has_room():
    plan = planner()
    plan.handle(Known(peers=[peer(n) for n in range(1, MAX_TARGETS + 1)]), 0.0)
    come(plan, 5000, 0.0, outbound=False)
    assert peer(5000) in plan.connected()
    assert len(plan._targets) == MAX_TARGETS


def test_when_everybody_is_connected_one_more_goes_unnoticed(monkeypatch):
    monkeypatch.setattr("p2p.discovery.planner.MAX_TARGETS", 20)
    plan = planner()
    for number in range(1, 22):
        come(plan, number, 0.0, outbound=False)
    assert plan.connected() == [peer(number) for number in range(1, 21)]
    assert leave(plan, 21, 1.0) == []


steps = st.lists(
    st.tuples(st.sampled_from(["known", "come", "leave", "end", "searched", "time"]), st.integers(0, 30)),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(1, 12))
def test_whatever_happens_limits_hold_and_the_timer_makes_progress(history, target_peers):
    plan = planner(bootstrap=[BOOTSTRAP], target_peers=target_peers)
    now, dialing, searching, connected = 0.0, {}, False, set()

    def take(actions):
        nonlocal searching
        for action in actions:
            if isinstance(action, Dial):
                assert action.peer not in dialing
                assert action.peer not in connected
                assert action.peer != LOCAL
                dialing[action.peer] = None
            else:
                assert not searching
                searching = True
        assert len(dialing) <= MAX_DIALS
        deadline = plan.next_deadline()
        assert deadline is None or deadline > now

    take(plan.handle_timer(now))
    for step, number in history:
        if step == "known":
            take(plan.handle(Known(peers=[peer(n) for n in range(number)]), now))
        elif step == "come" and number:
            connected.add(peer(number))
            take(come(plan, number, now, outbound=number % 2 == 0))
        elif step == "leave":
            connected.discard(peer(number))
            take(leave(plan, number, now))
        elif step == "end" and dialing:
            one = list(dialing)[number % len(dialing)]
            del dialing[one]
            take(plan.handle(DialEnded(peer=one, connected=number % 3 == 0), now))
        elif step == "searched" and searching:
            searching = False
            take(plan.handle(Searched(heard=[peer(number)]), now))
        elif step == "time":
            now = max(now, plan.next_deadline() or now + number)
            take(plan.handle_timer(now))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_events_give_the_same_actions(seed):
    def history():
        plan = planner(bootstrap=[BOOTSTRAP], seed=seed)
        log = [plan.handle_timer(0.0), come(plan, 1, 0.1)]
        log.append(plan.handle(Searched(heard=[peer(n) for n in range(2, 30)]), 0.2))
        for number in range(2, 6):
            log.append([*fail(plan, number, 0.3)] if plan._targets[peer(number)].dialing else [])
        return log, plan.next_deadline()

    assert history() == history()
