"""Bytes to RPCs: whatever the cut, in order, and never more in a turn than others can wait for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import MessageTooLarge, RemoteProtocolError
from p2p.framing import encode_delimited
from p2p.gossipsub.inbound import MESSAGES_AT_ONCE, TURN, Inbound
from p2p.gossipsub.wire import MAX_RPC, Message, Rpc, Subscription, encode_rpc
from tests.gossipsub.support import signed

MESSAGES = [signed(1, "t", b"%d" % number) for number in range(3 * MESSAGES_AT_ONCE)]


def encoded(*rpcs: Rpc) -> bytes:
    return b"".join(encode_delimited(encode_rpc(rpc)) for rpc in rpcs)


def turn(inbound: Inbound) -> list[Rpc]:
    """What comes out before others must have their turn."""
    return list(iter(inbound.next_rpc, None))


def messages(rpcs: list[Rpc]) -> list[Message]:
    return [message for rpc in rpcs for message in rpc.messages]


def of_messages(*counts: int) -> list[Rpc]:
    """RPCs with so many messages each, all different."""
    ends = [sum(counts[:number]) for number in range(len(counts) + 1)]
    return [Rpc(messages=tuple(MESSAGES[start:end])) for start, end in pairwise(ends)]


@given(
    counts=st.lists(st.integers(0, 2 * MESSAGES_AT_ONCE + 1), max_size=3).filter(
        lambda counts: sum(counts) <= len(MESSAGES)
    ),
    cuts=st.lists(st.integers(1, 400)),
)
def test_all_messages_come_out_in_order_however_they_are_cut(counts: list[int], cuts: list[int]) -> None:
    data, inbound, found = encoded(*of_messages(*counts)), Inbound(), []
    for size in [*cuts, len(data)]:
        inbound.receive_data(data[:size])
        data = data[size:]
        turns = [turn(inbound)]
        while inbound.turn_over:
            inbound.start_turn(0.0)
            turns.append(turn(inbound))
        assert all(len(messages(rpcs)) <= MESSAGES_AT_ONCE for rpcs in turns)
        found += [message for rpcs in turns for message in messages(rpcs)]
    assert found == MESSAGES[: sum(counts)]
    assert not inbound.mid_message


def test_a_turn_ends_after_so_many_messages() -> None:
    inbound = Inbound()
    inbound.receive_data(encoded(*of_messages(*[1] * 20)))
    assert len(turn(inbound)) == MESSAGES_AT_ONCE
    assert inbound.turn_over
    assert inbound.next_rpc() is None
    inbound.start_turn(0.0)
    assert len(turn(inbound)) == 20 - MESSAGES_AT_ONCE
    assert not inbound.turn_over


def test_the_rest_of_a_large_rpc_waits_for_a_turn_that_has_room_for_it() -> None:
    inbound = Inbound()
    inbound.receive_data(encoded(*of_messages(1, MESSAGES_AT_ONCE + 5)))
    sizes = []
    while rpcs := turn(inbound):
        sizes.append([len(rpc.messages) for rpc in rpcs])
        inbound.start_turn(0.0)
    assert [count for rpcs in sizes for count in rpcs] == [1, MESSAGES_AT_ONCE, 5]
    assert all(sum(rpcs) <= MESSAGES_AT_ONCE for rpcs in sizes)


def test_a_long_rpc_takes_a_turn_whatever_is_in_it() -> None:
    wanted = Rpc(iwant=tuple(b"%040d" % number for number in range(1000)))
    inbound = Inbound()
    inbound.receive_data(encoded(wanted, *of_messages(1)))
    assert turn(inbound) == [wanted]
    assert inbound.turn_over
    inbound.start_turn(0.0)
    assert turn(inbound) == of_messages(1)


def test_an_unfinished_rpc_is_noticed() -> None:
    inbound = Inbound()
    assert not inbound.mid_message
    inbound.receive_data(encoded(*of_messages(1))[:-1])
    assert inbound.next_rpc() is None
    assert inbound.mid_message


@pytest.mark.parametrize(
    ("garbage", "error"),
    [(encode_delimited(b"\xff\xff"), RemoteProtocolError), (b"\x81\x80\x40", MessageTooLarge)],
)
def test_what_stands_in_front_of_garbage_comes_out_first(garbage: bytes, error: type[Exception]) -> None:
    assert MAX_RPC == 1 << 20
    inbound = Inbound()
    inbound.receive_data(encoded(*of_messages(1)) + garbage)
    assert inbound.next_rpc() == of_messages(1)[0]
    with pytest.raises(error):
        inbound.next_rpc()


def test_one_small_rpc_of_messages_is_taken_whole() -> None:
    inbound = Inbound()
    [rpc] = of_messages(1)
    assert inbound.receive_whole(encoded(rpc), 0.0) == rpc
    assert inbound.next_rpc() is None
    assert not inbound.mid_message


@pytest.mark.parametrize(
    "data",
    [
        encoded(*of_messages(1))[:-1],
        encoded(*of_messages(1, 1)),
        encoded(*of_messages(MESSAGES_AT_ONCE + 1)),
        encoded(Rpc(graft=("t",))),
        b"",
        b"\x81",
    ],
)
def test_anything_else_is_not_taken_whole(data: bytes) -> None:
    assert Inbound().receive_whole(data, 0.0) is None


def test_nothing_is_taken_whole_ahead_of_what_waits() -> None:
    first, second = (encoded(rpc) for rpc in of_messages(1, 1))
    inbound = Inbound()
    inbound.receive_data(first[:50])
    assert inbound.receive_whole(second, 0.0) is None
    inbound.receive_data(first[50:] + second)
    assert messages(turn(inbound)) == MESSAGES[:2]
    assert inbound.receive_whole(first, 0.0) is not None


def test_a_peer_that_says_little_in_a_turn_begins_it_anew() -> None:
    data, inbound = encoded(*of_messages(1)), Inbound()
    taken = [inbound.receive_whole(data, 0.0) for _ in range(MESSAGES_AT_ONCE + 1)]
    assert [rpc is None for rpc in taken] == [False] * MESSAGES_AT_ONCE + [True]
    assert inbound.receive_whole(data, TURN) is not None


def test_garbage_in_a_small_rpc_is_malformed() -> None:
    with pytest.raises(RemoteProtocolError):
        Inbound().receive_whole(b"\x83\x01\x12" + b"\xff" * 130, 0.0)


@given(cuts=st.lists(st.integers(1, 400)))
def test_what_is_skipped_is_never_decoded_and_what_follows_is_whole(cuts: list[int]) -> None:
    inbound = Inbound()
    begun = encoded(*of_messages(3))
    data = encode_delimited(b"no RPC at all") + encoded(*of_messages(MESSAGES_AT_ONCE + 1)) + begun[:50]
    for size in [*cuts, len(data)]:
        inbound.receive_data(data[:size])
        assert inbound.next_of_unheard(0.0) is None
        data = data[size:]
    assert inbound.next_rpc() is None
    assert not inbound.turn_over
    inbound.receive_data(begun[50:])
    assert messages(turn(inbound)) == MESSAGES[:3]


def subscriptions(*sizes: int) -> Rpc:
    """Subscriptions to topics of so many bytes."""
    return Rpc(subscriptions=tuple(Subscription(topic="t" * size, subscribe=True) for size in sizes))


def test_of_who_is_unheard_small_rpcs_of_subscriptions_come_out_a_few_in_a_turn() -> None:
    inbound, small, large = Inbound(), subscriptions(100), subscriptions(*[1000] * 9)
    inbound.receive_data(encoded(small, *of_messages(1), large, *[small] * MESSAGES_AT_ONCE))
    assert inbound.next_of_unheard(0.0) == small
    found = list(iter(lambda: inbound.next_of_unheard(TURN / 2), None))
    assert found == [small] * (MESSAGES_AT_ONCE - 1)
    assert inbound.turn_over
    assert inbound.next_of_unheard(TURN) == small
    assert inbound.next_of_unheard(TURN) is None
    assert not inbound.turn_over


def test_what_is_left_of_an_rpc_is_dropped_when_its_sender_is_not_heard_any_more() -> None:
    inbound = Inbound()
    inbound.receive_data(encoded(*of_messages(2 * MESSAGES_AT_ONCE)))
    assert len(messages(turn(inbound))) == MESSAGES_AT_ONCE
    assert inbound.next_of_unheard(TURN) is None
    assert not inbound.turn_over
    assert inbound.next_rpc() is None
