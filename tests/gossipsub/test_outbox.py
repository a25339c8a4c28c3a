from __future__ import annotations

from p2p.framing import DelimitedDecoder
from p2p.gossipsub.outbox import MAX_QUEUE, SEND_SIZE, Outbox
from p2p.gossipsub.wire import (
    MAX_RPC,
    MAX_UNWANTED_IDS,
    SPLIT_SIZE,
    IHave,
    Message,
    Prune,
    Rpc,
    Subscription,
    decode_rpc,
)
from tests.gossipsub.support import signed


def parse(data: bytes) -> list[Rpc]:
    decoder = DelimitedDecoder(MAX_RPC)
    decoder.receive_data(data)
    rpcs = [decode_rpc(message) for message in iter(decoder.next_event, None)]
    assert not decoder.mid_message
    return rpcs


def drain(outbox: Outbox) -> list[Rpc]:
    return parse(b"".join(iter(outbox.data_to_send, b"")))


def messages(rpcs: list[Rpc]) -> list[Message]:
    return [message for rpc in rpcs for message in rpc.messages]


def test_an_empty_outbox_has_nothing_to_send() -> None:
    assert Outbox().data_to_send() == b""


def test_control_of_several_rpcs_leaves_in_one_ahead_of_messages() -> None:
    outbox = Outbox()
    message = signed(1, "t", b"data")
    outbox.push(Rpc(messages=(message,)))
    outbox.push(Rpc(graft=("t",)))
    outbox.push(Rpc(subscriptions=(Subscription(topic="t", subscribe=True),), prune=(Prune(topic="u"),)))
    assert parse(outbox.data_to_send()) == [
        Rpc(
            subscriptions=(Subscription(topic="t", subscribe=True),), graft=("t",), prune=(Prune(topic="u"),)
        ),
        Rpc(messages=(message,)),
    ]


def test_the_last_word_on_a_topic_counts() -> None:
    outbox = Outbox()
    outbox.push(Rpc(subscriptions=(Subscription(topic="t", subscribe=True),), graft=("t", "u")))
    outbox.push(Rpc(subscriptions=(Subscription(topic="t", subscribe=False),), prune=(Prune(topic="t"),)))
    [rpc] = drain(outbox)
    assert rpc == Rpc(
        subscriptions=(Subscription(topic="t", subscribe=False),), graft=("u",), prune=(Prune(topic="t"),)
    )


def test_control_does_not_grow_with_repetition() -> None:
    outbox = Outbox()
    for _ in range(10_000):
        outbox.push(Rpc(prune=(Prune(topic="t", backoff=60),)))
    assert len(outbox.data_to_send()) < 20


def test_waiting_refusals_are_bounded_and_leave_ten_at_a_time() -> None:
    outbox = Outbox()
    for number in range(600):
        outbox.push(Rpc(idontwant=(b"%d" % number,)))
    rpcs = drain(outbox)
    assert all(len(rpc.idontwant) <= 10 for rpc in rpcs)
    ids = [message_id for rpc in rpcs for message_id in rpc.idontwant]
    assert ids == [b"%d" % number for number in range(600 - MAX_UNWANTED_IDS, 600)]


def test_small_messages_share_rpcs_and_are_not_dropped() -> None:
    outbox = Outbox()
    expected = [signed(1, "t", bytes(100), seqno) for seqno in range(2000)]
    for message in expected:
        outbox.push(Rpc(messages=(message,)))
    rpcs = drain(outbox)
    assert messages(rpcs) == expected
    assert len(rpcs) < 10
    assert outbox.messages_dropped == 0


def test_no_rpc_is_longer_than_rust_accepts_unless_one_message_is() -> None:
    outbox = Outbox()
    for seqno in range(10):
        outbox.push(Rpc(messages=(signed(1, "t", bytes(30_000), seqno),)))
    outbox.push(Rpc(messages=(signed(1, "t", bytes(200_000)),)))
    rpcs = drain(outbox)
    assert [len(rpc.messages) for rpc in rpcs] == [2] * 5 + [1]


def test_a_slow_peer_loses_gossip_first_then_its_oldest_messages_and_control_never() -> None:
    outbox = Outbox()
    outbox.push(Rpc(subscriptions=(Subscription(topic="t", subscribe=True),), graft=("t",)))
    for number in range(4):
        outbox.push(Rpc(ihave=(IHave(topic="t", ids=(b"%d" % number,)),)))
    large = [signed(1, "t", bytes(SPLIT_SIZE), seqno) for seqno in range(MAX_QUEUE + 5)]
    for message in large[:30]:
        outbox.push(Rpc(messages=(message,)))
    assert (outbox.gossip_dropped, outbox.messages_dropped) == (2, 0)
    for message in large[30:]:
        outbox.push(Rpc(messages=(message,)))
    assert (outbox.gossip_dropped, outbox.messages_dropped) == (4, 5)
    rpcs = drain(outbox)
    assert rpcs[0].graft == ("t",)
    assert messages(rpcs) == large[5:]


def test_a_gossip_flood_drops_the_oldest_gossip() -> None:
    outbox = Outbox()
    for number in range(MAX_QUEUE + 3):
        outbox.push(Rpc(iwant=(b"%d" % number,)))
    assert [rpc.iwant for rpc in drain(outbox)] == [(b"%d" % n,) for n in range(3, MAX_QUEUE + 3)]


def test_one_send_is_bounded_and_what_comes_meanwhile_overtakes_the_rest() -> None:
    outbox = Outbox()
    for seqno in range(20):
        outbox.push(Rpc(messages=(signed(1, "t", bytes(60_000), seqno),)))
    outbox.push(Rpc(iwant=(b"1",)))
    first = outbox.data_to_send()
    assert len(first) <= SEND_SIZE
    outbox.push(Rpc(graft=("t",)))
    rest = drain(outbox)
    assert rest[0].graft == ("t",)
    assert rest[-1].iwant == (b"1",)
    assert len(messages(parse(first))) + len(messages(rest)) == 20


def test_a_message_over_the_send_size_is_sent_alone() -> None:
    outbox = Outbox()
    outbox.push(Rpc(messages=(signed(1, "t", bytes(SEND_SIZE * 2)), signed(1, "t", b"small", 2))))
    assert [len(message.data) for message in messages(parse(outbox.data_to_send()))] == [SEND_SIZE * 2]
    assert [message.data for message in messages(parse(outbox.data_to_send()))] == [b"small"]
