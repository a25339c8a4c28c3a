from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2p.limits.connections import GRACE, MAX_TAGGED, SILENCE, ConnectionManager
from p2p.peer_id import PeerId
from tests.support import key_number

PEERS = [PeerId.from_public_key(key_number(number).public) for number in range(1, 13)]
LATER = 1000.0  # seconds: everybody's grace is over


def idle(peer):
    return 0


def manager_of(count, *, low=2, high=4, **settings):
    """A manager whose peers 0 … count-1 were opened a second apart."""
    manager = ConnectionManager(low_water=low, high_water=high, **settings)
    for second, peer in enumerate(PEERS[:count]):
        manager.handle_opened(peer, float(second))
    return manager


def test_nothing_is_trimmed_up_to_high_water():
    manager = manager_of(4)
    assert manager.next_deadline() is None
    assert manager.trim(LATER, idle) == []


def test_over_high_water_the_oldest_go_until_low_water_is_left():
    manager = manager_of(5)
    assert manager.trim(LATER, idle) == PEERS[:3]


def test_the_lowest_sum_of_tags_goes_first():
    manager = manager_of(5)
    manager.tag(PEERS[0], "dht", 5)
    manager.tag(PEERS[0], "mesh", 5)
    manager.tag(PEERS[1], "dht", 7)
    manager.tag(PEERS[4], "bad", -1)
    assert manager.value(PEERS[0]) == 10
    assert manager.trim(LATER, idle) == [PEERS[4], PEERS[2], PEERS[3]]


def test_a_tag_is_replaced_and_taken_away():
    manager = manager_of(1)
    manager.tag(PEERS[0], "dht", 5)
    manager.tag(PEERS[0], "dht", 6)
    assert manager.value(PEERS[0]) == 6
    manager.tag(PEERS[0], "mesh", 1)
    manager.untag(PEERS[0], "mesh")
    assert manager.value(PEERS[0]) == 6
    manager.untag(PEERS[0], "dht")
    manager.untag(PEERS[0], "dht")
    assert manager.value(PEERS[0]) == 0


def test_of_equally_useful_peers_those_without_streams_go_first():
    manager = manager_of(5)
    streams = {PEERS[0]: 2, PEERS[1]: 1}
    assert manager.trim(LATER, lambda peer: streams.get(peer, 0)) == [PEERS[2], PEERS[3], PEERS[4]]


def test_protected_peers_stay_until_the_last_protection_is_gone():
    manager = manager_of(5)
    manager.protect(PEERS[0], "mesh")
    manager.protect(PEERS[0], "bootstrap")
    assert manager.is_protected(PEERS[0])
    assert manager.trim(LATER, idle) == PEERS[1:4]
    assert manager.unprotect(PEERS[0], "mesh")
    assert not manager.unprotect(PEERS[0], "bootstrap")
    assert not manager.unprotect(PEERS[0], "bootstrap")
    assert not manager.is_protected(PEERS[0])
    assert PEERS[0] in manager.trim(2 * LATER, idle)


def test_where_all_are_protected_nothing_is_due():
    manager = manager_of(5)
    for peer in PEERS:
        manager.protect(peer, "mesh")
    assert manager.next_deadline() is None


def test_young_connections_are_left_alone():
    manager = manager_of(5)
    assert manager.next_deadline() == GRACE
    assert manager.trim(GRACE - 0.1, idle) == []
    assert manager.trim(GRACE + 1, idle) == PEERS[:2]


def test_between_two_trims_there_is_silence():
    manager = manager_of(5)
    manager.trim(LATER, idle)
    assert manager.next_deadline() == LATER + SILENCE
    assert manager.trim(LATER + SILENCE - 0.1, idle) == []
    assert manager.trim(LATER + SILENCE, idle) == PEERS[:3]


def test_a_connection_that_replaces_another_is_young():
    manager = manager_of(5)
    manager.handle_opened(PEERS[0], LATER)
    assert manager.trim(LATER, idle) == PEERS[1:4]


def test_tags_end_with_the_connection_and_protections_do_not():
    manager = manager_of(1)
    manager.tag(PEERS[0], "dht", 5)
    manager.protect(PEERS[0], "bootstrap")
    manager.handle_closed(PEERS[0])
    assert manager.value(PEERS[0]) == 0
    assert manager.is_protected(PEERS[0])


def test_tags_of_a_bounded_number_of_peers_are_kept():
    manager = ConnectionManager()
    strangers = [PeerId(b"\x12\x20" + number.to_bytes(32, "big")) for number in range(MAX_TAGGED + 1)]
    for peer in strangers:
        manager.tag(peer, "dht", 1)
    assert manager.value(strangers[0]) == 0
    assert manager.value(strangers[-1]) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "close", "tag", "protect", "unprotect", "trim"]),
        st.sampled_from(PEERS),
        st.floats(0, 30),
    ),
    max_size=120,
)


@given(STEPS)
def test_a_trim_names_only_old_unprotected_connections_and_leaves_enough(steps):
    manager, opened, now = ConnectionManager(low_water=2, high_water=3), {}, 0.0
    for what, peer, seconds in steps:
        now += seconds
        match what:
            case "open":
                manager.handle_opened(peer, now)
                opened[peer] = now
            case "close":
                manager.handle_closed(peer)
                opened.pop(peer, None)
            case "tag":
                manager.tag(peer, "x", int(seconds) - 10)
            case "protect":
                manager.protect(peer, "x")
            case "unprotect":
                manager.unprotect(peer, "x")
            case "trim":
                due = manager.next_deadline()
                victims = manager.trim(now, idle)
                assert bool(victims) == (due is not None and due <= now)
                assert len(opened) - len(victims) >= 2 or not victims
                for victim in victims:
                    assert not manager.is_protected(victim)
                    assert opened[victim] + GRACE <= now
                if victims:
                    assert manager.next_deadline() is None or manager.next_deadline() > now
