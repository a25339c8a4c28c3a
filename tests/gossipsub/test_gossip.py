from __future__ import annotations

import random

import pytest

from p2p.gossipsub.cache import MessageHistory, SeenCache
from p2p.gossipsub.gossip import MAX_ASKED, MAX_PROMISES, Gossip
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.wire import MAX_IDS
from tests.gossipsub.support import peer_number, signed

A, B, C, D = (peer_number(number) for number in range(1, 5))


def make_gossip() -> Gossip:
    return Gossip(GossipsubParams(), random.Random(0))


unseen = SeenCache(120.0)


def seen(*message_ids: bytes) -> SeenCache:
    cache = SeenCache(120.0)
    for message_id in message_ids:
        cache.add(message_id, 0.0)
    return cache


def some_ids(count: int, start: int = 0) -> list[bytes]:
    return [b"id%d" % number for number in range(start, start + count)]


def test_what_is_lacking_is_asked_for_once_of_a_peer() -> None:
    gossip = make_gossip()
    wanted = gossip.handle_ihave(A, [b"1", b"2", b"3", b"1"], seen(b"2"), 0.0)
    assert sorted(wanted) == [b"1", b"3"]
    assert gossip.handle_ihave(A, [b"1", b"4"], unseen, 0.0) == (b"4",)


def test_an_id_is_asked_of_a_few_peers_at_a_time() -> None:
    gossip = make_gossip()
    asked = [gossip.handle_ihave(peer, [b"1"], unseen, 0.0) for peer in (A, B, C, D)]
    assert asked == [(b"1",)] * MAX_ASKED + [()]


def test_a_peer_that_does_not_keep_its_promise_can_be_asked_again() -> None:
    gossip = make_gossip()
    gossip.handle_ihave(A, [b"1"], unseen, 0.0)
    gossip.handle_heartbeat(2.9)
    assert gossip.handle_ihave(A, [b"1"], unseen, 2.9) == ()
    gossip.handle_heartbeat(3.0)
    assert gossip.handle_ihave(A, [b"1"], unseen, 3.0) == (b"1",)


def test_a_message_that_arrived_is_owed_by_nobody() -> None:
    gossip = make_gossip()
    gossip.handle_ihave(A, [b"1"], unseen, 0.0)
    gossip.arrived(b"1")
    assert gossip.handle_ihave(A, [b"1"], unseen, 0.0) == (b"1",)


def test_an_ihave_flood_is_heeded_ten_times_a_heartbeat() -> None:
    gossip = make_gossip()
    answers = [gossip.handle_ihave(A, [b"%d" % number], unseen, 0.0) for number in range(12)]
    assert [len(answer) for answer in answers] == [1] * 10 + [0, 0]
    assert gossip.handle_ihave(B, [b"other"], unseen, 0.0) == (b"other",)
    gossip.remove(A)  # coming back changes nothing
    assert gossip.handle_ihave(A, [b"x"], unseen, 0.0) == ()
    gossip.handle_heartbeat(1.0)
    assert gossip.handle_ihave(A, [b"x"], unseen, 1.0) == (b"x",)


def test_a_peer_is_asked_for_a_bounded_number_of_ids_in_a_heartbeat() -> None:
    gossip = make_gossip()
    assert len(gossip.handle_ihave(A, some_ids(4000), unseen, 0.0)) == 4000
    assert len(gossip.handle_ihave(A, some_ids(4000, 4000), unseen, 0.0)) == 1000
    assert gossip.handle_ihave(A, [b"more"], unseen, 0.0) == ()


def test_a_truncated_request_is_a_random_choice() -> None:
    gossip = make_gossip()
    wanted = gossip.handle_ihave(A, some_ids(8000), unseen, 0.0)
    assert len(wanted) == 5000
    assert sorted(wanted) != sorted(some_ids(5000))


def test_promises_are_bounded() -> None:
    gossip = make_gossip()
    total = 0
    for number in range(1, 15):
        total += len(gossip.handle_ihave(peer_number(number), some_ids(5000, number * 5000), unseen, 0.0))
    assert total == MAX_PROMISES


def make_history(count: int) -> tuple[MessageHistory, list[bytes]]:
    history = MessageHistory(5, 3, 3)
    ids = some_ids(count)
    for message_id in ids:
        history.put(message_id, signed(1, "t", message_id))
    return history, ids


def test_a_request_is_answered_with_what_is_there() -> None:
    history, ids = make_history(3)
    found = make_gossip().handle_iwant(A, [*ids, ids[0], b"unknown"], history, 0.0)
    assert [message.data for message in found] == ids


def test_an_iwant_flood_gets_each_message_three_times() -> None:
    gossip = make_gossip()
    history, ids = make_history(2)
    answers = [gossip.handle_iwant(A, ids * 100, history, 0.0) for _ in range(100)]
    assert sum(map(len, answers)) == 2 * 3


def test_an_iwant_flood_of_unknown_ids_uses_up_its_budget() -> None:
    gossip = make_gossip()
    history, ids = make_history(1)
    assert gossip.handle_iwant(A, some_ids(5000, 100), history, 0.0) == ()
    assert gossip.handle_iwant(A, ids, history, 0.0) == ()
    assert len(gossip.handle_iwant(B, ids, history, 0.0)) == 1
    gossip.handle_heartbeat(1.0)
    assert len(gossip.handle_iwant(A, ids, history, 1.0)) == 1


@pytest.mark.parametrize("message_id", [b"short", b"long" * 100])
def test_a_refused_message_is_refused_for_three_seconds(message_id: bytes) -> None:
    gossip = make_gossip()
    gossip.handle_idontwant(A, [message_id], 0.0)
    assert gossip.refuses(A, message_id, 2.9)
    assert not gossip.refuses(A, message_id, 3.0)
    assert not gossip.refuses(A, b"other", 0.0)
    assert not gossip.refuses(B, message_id, 0.0)


def test_a_refused_message_is_not_sent_on_request_either() -> None:
    gossip = make_gossip()
    history, ids = make_history(2)
    gossip.handle_idontwant(A, ids[:1], 0.0)
    assert [message.data for message in gossip.handle_iwant(A, ids, history, 0.0)] == ids[1:]


def test_an_idontwant_flood_is_heeded_for_512_ids_a_heartbeat() -> None:
    gossip = make_gossip()
    ids = some_ids(600)
    gossip.handle_idontwant(A, ids[:500], 0.0)
    gossip.handle_idontwant(A, ids[500:], 0.0)
    assert sum(gossip.refuses(A, message_id, 0.0) for message_id in ids) == 512


def test_refusals_are_forgotten_with_time_and_with_the_peer() -> None:
    gossip = make_gossip()
    gossip.handle_idontwant(A, [b"1"], 0.0)
    gossip.handle_idontwant(A, [b"2"], 2.0)
    gossip.handle_heartbeat(3.0)
    assert [gossip.refuses(A, message_id, 2.0) for message_id in (b"1", b"2")] == [False, True]
    gossip.handle_heartbeat(5.0)
    gossip.handle_idontwant(B, [b"3"], 5.0)
    gossip.remove(B)
    assert not gossip.refuses(B, b"3", 5.0)
    assert not gossip._refusals


def test_gossip_goes_to_six_peers_or_a_quarter_of_them() -> None:
    gossip = make_gossip()
    peers = [peer_number(number) for number in range(1, 41)]
    assert len(gossip.choose_peers(peers[:3])) == 3
    assert len(gossip.choose_peers(peers[:20])) == 6
    assert len(gossip.choose_peers(peers)) == 10


def test_half_of_who_gets_gossip_are_the_best_and_nobody_gets_it_twice() -> None:
    gossip = make_gossip()
    peers = [peer_number(number) for number in range(1, 41)]
    chosen = gossip.choose_peers(peers, peers[30:])
    assert chosen[:5] == peers[30:35]
    assert len(set(chosen)) == len(chosen) == 10
    assert set(gossip.choose_peers(peers[:4], peers[3:4])) == set(peers[:4])


def test_more_recent_ids_than_a_peer_heeds_are_chosen_from_at_random() -> None:
    gossip = make_gossip()
    assert gossip.choose_ids(some_ids(MAX_IDS)) == tuple(some_ids(MAX_IDS))
    chosen = gossip.choose_ids(some_ids(2 * MAX_IDS))
    assert len(set(chosen)) == MAX_IDS
    assert sorted(chosen) != sorted(gossip.choose_ids(some_ids(2 * MAX_IDS)))


def test_a_request_of_which_nothing_came_is_a_broken_promise() -> None:
    gossip = make_gossip()
    gossip.handle_ihave(A, some_ids(4), unseen, 0.0)
    gossip.handle_ihave(B, some_ids(4), unseen, 0.0)
    gossip.handle_ihave(A, [b"later"], unseen, 1.0)
    assert gossip.handle_heartbeat(2.9) == {}
    gossip.arrived(b"id0")
    assert gossip.handle_heartbeat(3.0) == {A: 0.75, B: 0.75}
    assert gossip.handle_heartbeat(4.0) == {A: 1.0}
    assert gossip.handle_heartbeat(5.0) == {}
