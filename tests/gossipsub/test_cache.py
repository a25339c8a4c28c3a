from __future__ import annotations

from p2p.gossipsub.cache import MessageHistory, SeenCache
from tests.gossipsub.support import peer_number, signed

A, B = peer_number(1), peer_number(2)


def history(capacity: int = 1 << 20) -> MessageHistory:
    return MessageHistory(5, 3, 3, capacity)


def test_an_id_is_seen_until_its_time_is_over() -> None:
    seen = SeenCache(ttl=120.0)
    seen.add(b"id", 10.0)
    assert seen.contains(b"id", 129.9)
    assert not seen.contains(b"id", 130.0)
    assert not seen.contains(b"other", 10.0)


def test_a_repetition_does_not_prolong_an_id() -> None:
    seen = SeenCache(ttl=120.0)
    seen.add(b"id", 0.0)
    seen.add(b"id", 100.0)
    assert not seen.contains(b"id", 120.0)


def test_an_id_that_comes_back_after_its_time_is_seen_anew() -> None:
    seen = SeenCache(ttl=120.0)
    seen.add(b"id", 0.0)
    seen.add(b"id", 130.0)
    assert seen.contains(b"id", 249.0)


def test_a_full_seen_cache_forgets_the_oldest() -> None:
    seen = SeenCache(ttl=120.0, capacity=100)
    for number in range(150):
        seen.add(b"%d" % number, float(number) / 100)
    assert len(seen) == 100
    assert not seen.contains(b"49", 2.0)
    assert seen.contains(b"50", 2.0)


def test_expired_ids_take_no_memory() -> None:
    seen = SeenCache(ttl=10.0)
    for number in range(100):
        seen.add(b"%d" % number, float(number))
    assert len(seen) == 10
    seen.expire(1000.0)
    assert len(seen) == 0


def test_a_message_is_kept_for_five_heartbeats_and_advertised_for_three() -> None:
    cache = history()
    cache.put(b"id", signed(1, "t", b"data"))
    for beats in range(5):
        assert cache.advertised("t") == ([b"id"] if beats < 3 else [])
        assert len(cache) == 1
        cache.shift()
    assert len(cache) == 0
    assert cache.retransmit(b"id", A) is None


def test_only_messages_of_the_topic_are_advertised_newest_first() -> None:
    cache = history()
    cache.put(b"1", signed(1, "t", b""))
    cache.shift()
    cache.put(b"2", signed(1, "t", b""))
    cache.put(b"3", signed(1, "u", b""))
    assert cache.advertised("t") == [b"2", b"1"]
    assert cache.advertised("v") == []


def test_a_peer_gets_the_same_message_three_times_at_most() -> None:
    cache = history()
    message = signed(1, "t", b"data")
    cache.put(b"id", message)
    assert [cache.retransmit(b"id", A) for _ in range(5)] == [message] * 3 + [None] * 2
    assert cache.retransmit(b"id", B) == message


def test_history_holds_a_bounded_number_of_bytes() -> None:
    size = len(signed(1, "t", bytes(1000)).raw)
    cache = history(capacity=10 * size)
    for number in range(50):
        cache.put(b"%d" % number, signed(1, "t", bytes(1000)))
    assert len(cache) == 10
    assert cache.advertised("t") == [b"%d" % number for number in range(40, 50)]
    for _ in range(5):
        cache.shift()
    cache.put(b"large", signed(1, "t", bytes(9000)))
    assert len(cache) == 1
