from __future__ import annotations

import dataclasses

import pytest

from p2p.errors import LocalProtocolError
from p2p.gossipsub.events import (
    Action,
    InboundOpened,
    Introduced,
    Join,
    Leave,
    PeerGone,
    Publish,
    Published,
    PubsubMessage,
    SendRpc,
    StreamLost,
    StreamOpened,
    ValidatorFailed,
    Verdict,
)
from p2p.gossipsub.params import GossipsubParams
from p2p.gossipsub.peers import MAX_TOPICS
from p2p.gossipsub.router import Router
from p2p.gossipsub.signing import sha256_message_id
from p2p.gossipsub.wire import (
    MAX_TOPIC,
    IHave,
    Prune,
    Rpc,
    Subscription,
    Version,
    decode_message,
    encode_message,
)
from p2p.peer_id import PeerId
from tests.gossipsub.support import (
    SEQNO,
    delivered,
    heartbeat,
    make_router,
    open_peer,
    peer_number,
    receive,
    sent,
    signed,
)

A, B, C = (peer_number(number) for number in (2, 3, 4))


def subscriptions(*topics: str, on: bool = True) -> tuple[Subscription, ...]:
    return tuple(Subscription(topic=topic, subscribe=on) for topic in topics)


def joined(peers: int = 3, topic: str = "t", **settings: object) -> Router:
    """Router 1, subscribed to `topic` as are the peers from 2 on, all in its mesh if it has place."""
    router = make_router(params=GossipsubParams(**settings))  # type: ignore[arg-type]
    router.handle(Join(topic=topic), 0.0)
    for number in range(2, 2 + peers):
        open_peer(router, number, [topic])
    return router


def control(actions: list[Action], peer: PeerId) -> Rpc:
    """The control that goes to `peer`, all of it in one RPC."""
    [rpc] = [rpc for rpc in sent(actions, peer) if not rpc.messages]
    return rpc


# Subscriptions


def test_a_new_stream_starts_with_the_list_of_our_topics() -> None:
    router = make_router()
    router.handle(Join(topic="t"), 0.0)
    router.handle(Join(topic="u"), 0.0)
    actions = router.handle(StreamOpened(peer=A, version=Version.V1_1, outbound=True), 0.0)
    assert sent(actions, A) == [Rpc(subscriptions=subscriptions("t", "u"))]


def test_a_new_stream_of_a_peer_without_topics_starts_with_nothing() -> None:
    assert make_router().handle(StreamOpened(peer=A, version=Version.V1_1, outbound=True), 0.0) == []


def test_joining_tells_everybody_and_grafts_the_subscribers() -> None:
    router = make_router()
    open_peer(router, 2, ["t"])
    open_peer(router, 3)
    open_peer(router, 4, ["t"], version=Version.FLOODSUB)
    actions = router.handle(Join(topic="t"), 0.0)
    assert sent(actions, A) == [Rpc(subscriptions=subscriptions("t"), graft=("t",))]
    assert sent(actions, B) == [Rpc(subscriptions=subscriptions("t"))]
    assert sent(actions, C) == [Rpc(subscriptions=subscriptions("t"))]
    assert router.mesh("t") == [A]
    assert router.subscribers("t") == [A, C]
    assert router.topics() == ["t"]
    assert router.handle(Join(topic="t"), 0.0) == []


def test_a_subscriber_is_grafted_at_once_while_the_mesh_is_small() -> None:
    router = joined(0)
    open_peer(router, 2)
    assert control(receive(router, A, Rpc(subscriptions=subscriptions("t"))), A).graft == ("t",)
    for number in range(3, 7):
        open_peer(router, number, ["t"])
    late = open_peer(router, 7)
    assert receive(router, late, Rpc(subscriptions=subscriptions("t"))) == []
    assert len(router.mesh("t")) == 5


def test_a_subscriber_that_we_cannot_write_to_yet_is_grafted_when_we_can() -> None:
    router = joined(0)
    assert receive(router, A, Rpc(subscriptions=subscriptions("t"))) == []
    assert router.subscribers("t") == []
    actions = router.handle(StreamOpened(peer=A, version=Version.V1_2, outbound=False), 1.0)
    assert sent(actions, A) == [Rpc(subscriptions=subscriptions("t"), graft=("t",))]
    assert router.subscribers("t") == [A]


def test_leaving_prunes_the_mesh_with_the_short_backoff_and_tells_everybody() -> None:
    router = joined(2)
    open_peer(router, 4)
    actions = router.handle(Leave(topic="t"), 0.0)
    gone = Rpc(subscriptions=subscriptions("t", on=False), prune=(Prune(topic="t", backoff=10),))
    assert sent(actions, A) == sent(actions, B) == [gone]
    assert sent(actions, C) == [Rpc(subscriptions=subscriptions("t", on=False))]
    assert router.mesh("t") == []
    assert router.handle(Leave(topic="t"), 0.0) == []


def test_rejoining_within_the_backoff_grafts_nobody() -> None:
    router = joined(2)
    router.handle(Leave(topic="t"), 0.0)
    router.handle(Join(topic="t"), 11.9)
    assert router.mesh("t") == []
    heartbeat(router)  # at 0.1 s
    router.handle_timer(12.0)
    assert router.mesh("t") == [A, B]


def test_a_peer_that_unsubscribes_leaves_the_mesh() -> None:
    router = joined(2)
    assert receive(router, A, Rpc(subscriptions=subscriptions("t", on=False))) == []
    assert router.mesh("t") == [B]
    assert router.subscribers("t") == [B]


def test_the_last_of_contradicting_subscriptions_counts() -> None:
    router = joined(0)
    open_peer(router, 2)
    both = subscriptions("t") + subscriptions("t", on=False)
    assert receive(router, A, Rpc(subscriptions=both)) == []
    assert router.subscribers("t") == []


def test_a_subscription_flood_is_kept_up_to_a_thousand_topics() -> None:
    router = make_router()
    open_peer(router, 2)
    names = [f"topic {number}" for number in range(3000)]
    receive(router, A, Rpc(subscriptions=subscriptions(*names)))
    assert sum(router.subscribers(name) == [A] for name in names) == MAX_TOPICS
    assert router.subscribers(names[MAX_TOPICS]) == []
    receive(router, A, Rpc(subscriptions=subscriptions(names[0], on=False)))
    receive(router, A, Rpc(subscriptions=subscriptions("another")))
    assert router.subscribers("another") == [A]


def test_topics_without_subscribers_leave_no_trace() -> None:
    router = make_router()
    open_peer(router, 2, [f"topic {number}" for number in range(100)])
    assert len(router._peers._subscribers) == 100
    router.handle(PeerGone(peer=A), 0.0)
    assert len(router._peers) == len(router._peers._subscribers) == 0
    router.handle(PeerGone(peer=A), 0.0)


@pytest.mark.parametrize("topic", ["", "x" * (MAX_TOPIC + 1)])
def test_a_topic_that_peers_would_not_keep_cannot_be_joined(topic: str) -> None:
    with pytest.raises(LocalProtocolError):
        make_router().handle(Join(topic=topic), 0.0)


# Streams that break


def test_a_broken_stream_takes_the_peer_out_of_the_mesh_until_it_is_back() -> None:
    router = joined(2)
    router.handle(StreamLost(peer=A), 0.0)
    assert router.mesh("t") == [B]
    assert router.subscribers("t") == [B]
    actions = router.handle(StreamOpened(peer=A, version=Version.V1_2, outbound=False), 1.0)
    assert sent(actions, A) == [Rpc(subscriptions=subscriptions("t"), graft=("t",))]
    assert router.mesh("t") == [B, A]


def test_a_member_that_comes_back_to_a_full_mesh_is_told_so() -> None:
    router = joined(1)
    router.handle(StreamLost(peer=A), 0.0)
    for number in range(3, 15):
        peer = open_peer(router, number, ["t"])
        receive(router, peer, Rpc(graft=("t",)))
    actions = router.handle(StreamOpened(peer=A, version=Version.V1_2, outbound=False), 1.0)
    assert control(actions, A).prune == (Prune(topic="t", backoff=60),)


def test_a_topic_left_while_a_stream_was_broken_is_taken_back_on_the_next() -> None:
    router = joined(1)
    router.handle(Join(topic="u"), 0.0)
    router.handle(StreamLost(peer=A), 0.0)
    router.handle(Leave(topic="t"), 0.0)
    actions = router.handle(StreamOpened(peer=A, version=Version.V1_2, outbound=False), 1.0)
    assert sent(actions, A) == [Rpc(subscriptions=subscriptions("t", on=False) + subscriptions("u"))]


def test_the_first_list_on_a_newer_stream_replaces_the_earlier_topics() -> None:
    router = joined(1)
    router.handle(InboundOpened(peer=A), 0.0)
    assert router.mesh("t") == [A]
    receive(router, A, Rpc(subscriptions=subscriptions("u")))
    assert router.mesh("t") == router.subscribers("t") == []
    assert router.subscribers("u") == [A]
    receive(router, A, Rpc(subscriptions=subscriptions("t")))
    assert router.subscribers("u") == router.subscribers("t") == [A]


def test_the_end_of_an_unknown_stream_changes_nothing() -> None:
    assert make_router().handle(StreamLost(peer=A), 0.0) == []


def test_a_peer_that_goes_leaves_every_mesh() -> None:
    router = joined(2)
    router.handle(PeerGone(peer=A), 0.0)
    assert router.mesh("t") == router.subscribers("t") == [B]


# GRAFT and PRUNE


def test_a_graft_is_accepted_and_counts_as_a_subscription() -> None:
    router = joined(0)
    open_peer(router, 2)
    assert receive(router, A, Rpc(graft=("t",))) == []
    assert router.mesh("t") == router.subscribers("t") == [A]


def test_a_graft_for_a_topic_that_we_did_not_join_is_ignored() -> None:
    router = joined(1)
    assert receive(router, A, Rpc(graft=("other",))) == []
    assert router.subscribers("other") == []


@pytest.mark.parametrize("version", [None, Version.FLOODSUB])
def test_a_graft_of_a_peer_that_cannot_be_in_a_mesh_is_ignored(version: Version | None) -> None:
    router = joined(0)
    if version is not None:
        open_peer(router, 2, version=version)
    assert receive(router, A, Rpc(graft=("t",))) == []
    assert router.mesh("t") == []


def test_a_graft_beyond_the_upper_bound_is_pruned_unless_we_dialed_the_peer() -> None:
    router = joined(0)
    for number in range(2, 14):
        receive(router, open_peer(router, number), Rpc(graft=("t",)))
    late = open_peer(router, 20)
    assert control(receive(router, late, Rpc(graft=("t",))), late).prune == (Prune(topic="t", backoff=60),)
    dialed = open_peer(router, 21, outbound=True)
    assert receive(router, dialed, Rpc(graft=("t",))) == []
    assert len(router.mesh("t")) == 13


def test_graft_spam_within_the_backoff_gets_a_few_prunes_and_then_nothing() -> None:
    router = joined(1)
    receive(router, A, Rpc(prune=(Prune(topic="t", backoff=60),)))
    for _ in range(4):  # the first may have crossed our PRUNE, the others are early
        actions = receive(router, A, Rpc(graft=("t",) * 1000), now=1.0)
        assert sent(actions, A) == [Rpc(prune=(Prune(topic="t", backoff=60),))]
    assert router.scores.is_graylisted(A)
    assert receive(router, A, Rpc(graft=("t",)), now=1.0) == []
    assert router.mesh("t") == []


def test_every_early_graft_starts_the_backoff_anew() -> None:
    router = joined(1)
    receive(router, A, Rpc(prune=(Prune(topic="t", backoff=60),)))
    assert control(receive(router, A, Rpc(graft=("t",)), now=58.9), A).prune
    assert control(receive(router, A, Rpc(graft=("t",)), now=118.8), A).prune
    assert receive(router, A, Rpc(graft=("t",)), now=178.8) == []
    assert router.mesh("t") == [A]


def test_a_graft_that_crossed_our_prune_is_no_fault_and_one_soon_after_is_two() -> None:
    scores = []
    for grafts in ((1.9,), (1.0, 1.1), (2.1,), (9.9,), (10.1,)):
        router = joined(1)
        receive(router, A, Rpc(prune=(Prune(topic="t"),)))
        for now in grafts:
            receive(router, A, Rpc(graft=("t",)), now=now)
        scores.append(router.scores._penalties.get(A, 0.0))
    assert scores == [0.0, 2.0, 2.0, 2.0, 1.0]


def test_who_restarts_knows_of_no_backoff_and_is_told_without_blame() -> None:
    router = joined(1)
    for restart in range(1, 8):  # as often as that within seconds
        receive(router, A, Rpc(prune=(Prune(topic="t", backoff=10),)), now=float(restart))
        router.handle(PeerGone(peer=A), restart + 0.1)
        open_peer(router, 2, ["t"], now=restart + 0.5)
        actions = receive(router, A, Rpc(graft=("t",)), now=restart + 0.6)
        assert sent(actions, A) == [Rpc(prune=(Prune(topic="t", backoff=10),))]  # the rest of it, rounded up
    assert router.scores.score(A) == 0.0
    assert receive(router, A, Rpc(graft=("t",)), now=17.7) == []
    assert router.mesh("t") == [A]


def test_who_restarts_before_its_end_is_noticed_is_told_without_blame() -> None:
    router = joined(1)
    for now in range(10, 20, 2):
        receive(router, A, Rpc(prune=(Prune(topic="t", backoff=60),)), now=now)
        router.handle(InboundOpened(peer=A), now + 0.5)
        assert control(receive(router, A, Rpc(graft=("t",)), now=now + 0.6), A).prune
    assert router.scores.score(A) == 0.0


def test_who_was_told_of_a_backoff_anew_has_to_obey_it() -> None:
    router = joined(1)
    receive(router, A, Rpc(prune=(Prune(topic="t", backoff=60),)))
    router.handle(PeerGone(peer=A), 1.0)
    open_peer(router, 2, ["t"], now=2.0)
    receive(router, A, Rpc(graft=("t",)), now=3.0)
    receive(router, A, Rpc(graft=("t",)), now=5.5)
    assert router.scores._penalties == {A: 2.0}


def test_a_graft_of_a_peer_with_too_many_topics_is_pruned() -> None:
    router = joined(0)
    open_peer(router, 2, [f"topic {number}" for number in range(MAX_TOPICS)])
    assert control(receive(router, A, Rpc(graft=("t",))), A).prune
    assert router.mesh("t") == []


def test_a_prune_with_backoff_2_to_the_64_minus_1_counts_as_an_hour() -> None:
    """CVE-2026-33040, CVE-2026-34219."""
    router = joined(1)
    assert receive(router, A, Rpc(prune=(Prune(topic="t", backoff=2**64 - 1),))) == []
    assert router.mesh("t") == []
    router.handle_timer(3601.9)
    assert router.mesh("t") == []
    router.handle_timer(3603.0)
    assert router.mesh("t") == [A]


def test_a_prune_for_an_unknown_topic_is_harmless() -> None:
    router = joined(1)
    assert receive(router, A, Rpc(prune=(Prune(topic="other"),))) == []
    assert router.mesh("t") == [A]


def test_a_peer_of_version_1_0_gets_no_backoff() -> None:
    router = joined(0)
    open_peer(router, 2, ["t"], version=Version.V1_0)
    assert control(router.handle(Leave(topic="t"), 0.0), A).prune == (Prune(topic="t"),)


# Heartbeat


def test_a_heartbeat_prunes_down_and_up_and_says_so() -> None:
    router = joined(0)
    peers = [open_peer(router, number, outbound=True) for number in range(2, 22)]
    for peer in peers:
        receive(router, peer, Rpc(graft=("t",)))
    actions = heartbeat(router)
    pruned = [peer for peer in peers if sent(actions, peer)]
    assert len(pruned) == 14
    assert all(control(actions, peer).prune == (Prune(topic="t", backoff=60),) for peer in pruned)
    for peer in router.mesh("t")[:3]:
        router.handle(PeerGone(peer=peer), 2.0)
    fresh = [open_peer(router, number) for number in range(30, 40)]
    for peer in fresh:
        receive(router, peer, Rpc(subscriptions=subscriptions("t")), 3.0)
    assert len(router.mesh("t")) == 5  # at once up to the lower bound; it is enough for the heartbeat


def test_heartbeats_come_every_second_and_end_when_there_is_nobody_and_nothing() -> None:
    router = make_router()
    assert router.next_deadline() is None
    assert router.handle_timer(5.0) == []
    router.handle(Join(topic="t"), 10.0)
    assert router.next_deadline() == 10.1
    assert router.handle_timer(10.0) == []
    heartbeat(router)
    assert router.next_deadline() is None
    open_peer(router, 2, now=20.0)
    assert router.next_deadline() == 20.1
    heartbeat(router)
    assert router.next_deadline() == 21.1
    router.handle_timer(30.0)  # late: those that were missed are not made up for
    assert router.next_deadline() == 31.0
    router.handle(PeerGone(peer=A), 30.5)
    heartbeat(router)
    assert router.next_deadline() is None


def test_a_message_published_to_nobody_is_forgotten_after_its_heartbeats() -> None:
    router = make_router()
    router.handle(Publish(topic="t", data=b"data"), 0.0)
    beats = 0
    while router.next_deadline() is not None:
        heartbeat(router)
        beats += 1
    assert beats == 5


def test_recent_messages_are_advertised_to_peers_outside_the_mesh() -> None:
    router = joined(10)
    outside = [peer_number(number) for number in range(7, 12)]
    assert not set(outside) & set(router.mesh("t"))
    receive(router, A, Rpc(messages=(signed(2, "t", b"data"),)))
    for _ in range(3):
        actions = heartbeat(router)
        advertised = [peer for peer in outside if sent(actions, peer)]
        assert advertised == outside
        [have] = control(actions, outside[0]).ihave
        assert have == IHave(topic="t", ids=(A.raw + SEQNO.to_bytes(8, "big"),))
        assert all(not sent(actions, peer) for peer in router.mesh("t"))
    assert heartbeat(router) == []


# Publishing


def test_our_own_messages_go_to_all_subscribers() -> None:
    router = joined(10)
    other = open_peer(router, 30, ["other"])
    actions = router.handle(Publish(topic="t", data=b"data"), 0.0)
    expected = signed(1, "t", b"data")
    assert actions[0] == Published(id=expected.origin + expected.seqno)
    for number in range(2, 12):
        assert sent(actions, peer_number(number)) == [Rpc(messages=(expected,))]
    assert sent(actions, other) == []
    assert delivered(actions) == []
    assert router.counters.published == 1


def test_sequence_numbers_increase_from_the_given_start() -> None:
    router = joined(1)
    ids = []
    for _ in range(3):
        [published, _] = router.handle(Publish(topic="t", data=b"same"), 0.0)
        assert isinstance(published, Published)
        ids.append(int.from_bytes(published.id[-8:], "big"))
    assert ids == [SEQNO, SEQNO + 1, SEQNO + 2]


def test_without_flood_publishing_our_messages_go_to_the_mesh() -> None:
    router = joined(10, flood_publish=False)
    flooded = open_peer(router, 30, ["t"], version=Version.FLOODSUB)
    actions = router.handle(Publish(topic="t", data=b"data"), 0.0)
    receivers = [action.peer for action in actions[1:]]  # type: ignore[union-attr]
    assert receivers == [*router.mesh("t"), flooded]
    assert len(receivers) == 6


def test_publishing_to_a_topic_that_we_did_not_join_uses_the_same_peers_for_a_while() -> None:
    router = make_router(params=GossipsubParams(flood_publish=False))
    for number in range(2, 22):
        open_peer(router, number, ["t"])
    first, second = (
        [action.peer for action in router.handle(Publish(topic="t", data=b"data"), now)[1:]]  # type: ignore[union-attr]
        for now in (0.0, 30.0)
    )
    assert first == second
    assert len(first) == 6
    actions = router.handle_timer(31.0)
    advertised = [action.peer for action in actions]  # type: ignore[union-attr]
    assert len(advertised) == 6
    assert not set(advertised) & set(first)
    assert router.subscribers("t")
    router.handle(Join(topic="t"), 32.0)
    assert router.mesh("t") == first


def test_peers_for_a_topic_that_we_did_not_join_are_forgotten_after_a_minute() -> None:
    router = make_router()
    open_peer(router, 2, ["t"])
    router.handle(Publish(topic="t", data=b"data"), 0.0)
    router.handle_timer(59.9)
    assert router._fanout.topics == ["t"]
    router.handle_timer(61.0)
    assert router._fanout.topics == []


def test_a_message_over_the_size_limit_is_not_published() -> None:
    router = joined(1, max_message_size=1000)
    with pytest.raises(LocalProtocolError):
        router.handle(Publish(topic="t", data=bytes(1000)), 0.0)
    assert router.counters.published == 0
    actions = router.handle(Publish(topic="t", data=bytes(800)), 0.0)
    assert sent(actions, A)


# Receiving


def test_a_message_is_delivered_and_forwarded_unchanged_to_the_mesh_but_not_back() -> None:
    router = joined(4)
    origin, sender, others = peer_number(2), peer_number(3), [peer_number(4), peer_number(5)]
    message = signed(2, "t", b"data")
    actions = receive(router, sender, Rpc(messages=(message,)))
    assert delivered(actions) == [b"data"]
    for peer in others:
        assert sent(actions, peer) == [Rpc(messages=(message,))]
    assert sent(actions, origin) == sent(actions, sender) == []
    assert router.counters.delivered == 1


def test_a_delivered_message_says_who_signed_it_and_who_brought_it() -> None:
    router = joined(2)
    [deliver] = [
        a for a in receive(router, B, Rpc(messages=(signed(2, "t", b"data"),))) if hasattr(a, "message")
    ]
    assert deliver.message == PubsubMessage(
        topic="t",
        data=b"data",
        sender=A,
        seqno=SEQNO.to_bytes(8, "big"),
        id=A.raw + SEQNO.to_bytes(8, "big"),
        received_from=B,
    )


def test_floodsub_peers_get_every_message_and_no_control() -> None:
    router = joined(1)
    flooded = open_peer(router, 30, ["t"], version=Version.FLOODSUB)
    assert router.mesh("t") == [A]
    message = signed(2, "t", bytes(5000))
    assert sent(receive(router, A, Rpc(messages=(message,))), flooded) == [Rpc(messages=(message,))]
    ihave = Rpc(ihave=(IHave(topic="t", ids=(b"x",)),), iwant=(A.raw + SEQNO.to_bytes(8, "big"),))
    assert receive(router, flooded, ihave) == []
    assert sent(heartbeat(router), flooded) == []


def test_a_duplicate_is_dropped_before_its_signature_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    router = joined(3)
    message = signed(2, "t", b"data")
    receive(router, A, Rpc(messages=(message, message)))

    def verify(message: object) -> None:
        raise AssertionError("a signature was verified")

    monkeypatch.setattr("p2p.gossipsub.intake.verify_message", verify)
    assert receive(router, B, Rpc(messages=(message,) * 10)) == []
    assert (router.counters.delivered, router.counters.duplicates) == (1, 11)


@pytest.mark.parametrize(
    "raw",
    [
        encode_message(origin=A.raw, data=b"", seqno=b"1234567", topic="t", signature=b"s" * 64),
        encode_message(origin=A.raw, data=b"", seqno=b"12345678", topic="t"),
        encode_message(origin=A.raw, data=bytes(3000), seqno=b"12345678", topic="t", signature=b"s" * 64),
    ],
)
def test_cheap_limits_come_before_the_signature(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2p.gossipsub.intake.verify_message", lambda message: pytest.fail("verified"))
    router = joined(2, max_message_size=2000)
    assert receive(router, A, Rpc(messages=(decode_message(raw),))) == []
    assert router.counters.rejected == 1


def test_messages_of_topics_that_we_did_not_join_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2p.gossipsub.intake.verify_message", lambda message: pytest.fail("verified"))
    router = joined(2)
    assert receive(router, A, Rpc(messages=(signed(2, "other", b"data"),))) == []


def test_a_forged_message_does_not_keep_the_true_one_out() -> None:
    """Whoever knows the next sequence number of somebody must not be able to silence it."""
    router = joined(3)
    true = signed(2, "t", bytes(2000))
    forged = dataclasses.replace(signed(3, "t", b"forged"), origin=true.origin, seqno=true.seqno)
    forged = decode_message(
        encode_message(
            origin=true.origin, data=bytes(1500), seqno=true.seqno, topic="t", signature=true.signature
        )
    )
    assert receive(router, B, Rpc(messages=(forged,))) == []  # no IDONTWANT either
    assert router.counters.rejected == 1
    assert delivered(receive(router, A, Rpc(messages=(true,)))) == [true.data]


def test_an_invalid_signature_flood_is_not_heard_after_ten_messages_and_leaves_no_trace() -> None:
    router = joined(3)
    true = signed(2, "t", b"data")
    for number in range(100):
        raw = encode_message(
            origin=true.origin,
            data=b"%d" % number,
            seqno=true.seqno,
            topic="t",
            signature=bytes(64),
        )
        assert receive(router, B, Rpc(messages=(decode_message(raw),))) == []
    assert router.counters.rejected < 10
    assert router.scores.graylisted() == [B]
    assert len(router._intake.seen) == len(router._history) == 0


def test_ihave_spam_is_answered_ten_times_a_heartbeat() -> None:
    router = joined(2)
    spam = [Rpc(ihave=(IHave(topic="t", ids=(b"%d" % number,)),)) for number in range(500)]
    answers = [rpc for entry in spam for rpc in sent(receive(router, A, entry), A)]
    assert [len(rpc.iwant) for rpc in answers] == [1] * 10


def test_idontwant_spam_fills_a_bounded_memory() -> None:
    router = joined(2)
    for number in range(100):
        ids = tuple(b"%d %d" % (number, place) for place in range(512))
        receive(router, A, Rpc(idontwant=ids))
    assert len(router._gossip._refusals[A]) == 512
    for _ in range(5):
        heartbeat(router)
    assert not router._gossip._refusals


def test_our_own_messages_coming_back_are_ignored() -> None:
    router = joined(2)
    [_, action, _] = router.handle(Publish(topic="t", data=b"data"), 0.0)
    back = receive(router, A, action.rpc)  # type: ignore[union-attr]
    old = receive(router, A, Rpc(messages=(signed(1, "t", b"of an earlier life", SEQNO - 5),)))
    assert back == old == []
    assert router.counters.delivered == router.counters.duplicates == 0


def test_with_content_ids_equal_data_is_one_message() -> None:
    router = make_router(message_id=sha256_message_id)
    router.handle(Join(topic="t"), 0.0)
    open_peer(router, 2, ["t"])
    first = receive(router, A, Rpc(messages=(signed(2, "t", b"data"),)))
    again = receive(router, A, Rpc(messages=(signed(3, "t", b"data"),)))
    assert (delivered(first), delivered(again)) == ([b"data"], [])
    router.handle(Publish(topic="t", data=b"mine"), 0.0)
    router.handle(Publish(topic="t", data=b"mine"), 0.0)
    assert len(router._history) == 2


def test_an_id_is_forgotten_after_two_minutes() -> None:
    router = joined(2)
    message = signed(2, "t", b"data")
    receive(router, A, Rpc(messages=(message,)), 0.0)
    assert delivered(receive(router, A, Rpc(messages=(message,)), 119.9)) == []
    assert delivered(receive(router, A, Rpc(messages=(message,)), 120.0)) == [b"data"]


# Validators


@pytest.mark.parametrize("verdict", [Verdict.REJECT, Verdict.IGNORE])
def test_a_message_that_the_validator_does_not_accept_goes_no_further(verdict: Verdict) -> None:
    router = joined(3)
    router.set_validator("t", lambda message: verdict)
    assert receive(router, A, Rpc(messages=(signed(2, "t", b"data"),))) == []
    assert receive(router, B, Rpc(messages=(signed(2, "t", b"data"),))) == []
    assert router.counters.rejected == (verdict is Verdict.REJECT)
    assert router.counters.ignored == (verdict is Verdict.IGNORE)
    assert router.counters.duplicates == 1
    assert router.scores.score(A) == -(verdict is Verdict.REJECT)  # which is not forgiven, if it is alone
    assert not any(rpc.ihave for peer in (A, B, C) for rpc in sent(heartbeat(router), peer))
    assert (A in router.mesh("t")) == (verdict is Verdict.IGNORE)


def test_a_validator_sees_the_verified_message_of_its_topic_only() -> None:
    router = joined(2)
    router.handle(Join(topic="u"), 0.0)
    seen: list[PubsubMessage] = []

    def validator(message: PubsubMessage) -> Verdict:
        seen.append(message)
        return Verdict.ACCEPT

    router.set_validator("t", validator)
    messages = (signed(2, "t", b"one"), signed(2, "u", b"two", SEQNO + 1))
    assert delivered(receive(router, A, Rpc(messages=messages))) == [b"one", b"two"]
    assert [message.data for message in seen] == [b"one"]


def test_a_validator_that_fails_costs_one_message() -> None:
    router = joined(3)

    def validator(message: PubsubMessage) -> Verdict:
        return Verdict.ACCEPT if message.data else Verdict[""]

    router.set_validator("t", validator)
    messages = (signed(2, "t", b""), signed(2, "t", b"fine", SEQNO + 1))
    actions = receive(router, A, Rpc(messages=messages))
    [failure] = [action for action in actions if isinstance(action, ValidatorFailed)]
    assert failure.topic == "t"
    assert isinstance(failure.error, KeyError)
    assert delivered(actions) == [b"fine"]
    assert router.counters.ignored == 1


def test_a_validator_that_returns_no_verdict_has_failed() -> None:
    router = joined(2)
    router.set_validator("t", lambda message: True)  # type: ignore[arg-type, return-value]
    [failure] = receive(router, A, Rpc(messages=(signed(2, "t", b"data"),)))
    assert isinstance(failure, ValidatorFailed)


# IHAVE, IWANT, IDONTWANT


def test_an_advertised_message_that_we_lack_is_asked_for() -> None:
    router = joined(2)
    known = signed(2, "t", b"known")
    receive(router, A, Rpc(messages=(known,)))
    ihave = (IHave(topic="t", ids=(b"new", known.origin + known.seqno)), IHave(topic="u", ids=(b"other",)))
    assert sent(receive(router, B, Rpc(ihave=ihave)), B) == [Rpc(iwant=(b"new",))]


def test_what_arrived_or_whoever_left_is_not_remembered_by_gossip() -> None:
    router = joined(3)
    message = signed(7, "t", b"data")
    receive(router, A, Rpc(ihave=(IHave(topic="t", ids=(message.origin + message.seqno,)),)))
    receive(router, A, Rpc(idontwant=(b"x",)))
    assert router._gossip._promises
    receive(router, B, Rpc(messages=(message,)))
    assert not router._gossip._promises
    assert router._gossip._refusals
    router.handle(PeerGone(peer=A), 0.0)
    assert not router._gossip._refusals


def test_a_peer_that_we_cannot_write_to_is_asked_for_nothing() -> None:
    router = joined(1)
    assert receive(router, C, Rpc(ihave=(IHave(topic="t", ids=(b"new",)),), iwant=(b"x",))) == []


def test_a_requested_message_is_sent_as_it_came() -> None:
    router = joined(2)
    message = signed(2, "t", b"data")
    receive(router, A, Rpc(messages=(message,)))
    wanted = Rpc(iwant=(message.origin + message.seqno, b"unknown"))
    assert sent(receive(router, B, wanted), B) == [Rpc(messages=(message,))]
    assert receive(router, B, Rpc(iwant=(b"unknown",))) == []


def test_iwant_spam_gets_a_message_three_times() -> None:
    router = joined(2)
    message = signed(2, "t", bytes(1000))
    receive(router, A, Rpc(messages=(message,)))
    spam = Rpc(iwant=(message.origin + message.seqno,) * 5)
    answers = [rpc for _ in range(200) for rpc in sent(receive(router, B, spam), B)]
    assert sum(len(rpc.messages) for rpc in answers) == 3


def test_a_large_message_is_refused_of_the_rest_of_the_mesh_before_it_is_forwarded() -> None:
    router = joined(2)
    old = open_peer(router, 5, ["t"], version=Version.V1_1)
    message = signed(7, "t", bytes(1024))
    actions = receive(router, A, Rpc(messages=(message,)))
    refusal = Rpc(idontwant=(message.origin + message.seqno,))
    assert sent(actions, B) == [refusal, Rpc(messages=(message,))]
    assert sent(actions, old) == [Rpc(messages=(message,))]
    assert sent(actions, A) == []


def test_a_small_message_is_not_refused() -> None:
    router = joined(2)
    message = signed(7, "t", b"small")
    assert sent(receive(router, A, Rpc(messages=(message,))), B) == [Rpc(messages=(message,))]


def test_a_message_that_a_peer_refused_is_not_forwarded_to_it() -> None:
    router = joined(3)
    message = signed(7, "t", bytes(5000))
    receive(router, B, Rpc(idontwant=(message.origin + message.seqno,)))
    actions = receive(router, A, Rpc(messages=(message,)))
    assert [rpc.messages for rpc in sent(actions, B)] == [()]  # our own refusal only
    assert sent(actions, C)[-1].messages == (message,)


# Scores


def lower(router: Router, peer: PeerId, score: float) -> None:
    router.scores.set_application_score(peer, score)
    assert router.scores.score(peer) == score


def test_of_who_is_graylisted_only_its_topics_are_heard() -> None:
    router = joined(2)
    lower(router, A, -81.0)
    message = signed(2, "t", b"data")
    everything = Rpc(
        subscriptions=subscriptions("u"),
        messages=(message,),
        graft=("t",),
        prune=(Prune(topic="t"),),
        ihave=(IHave(topic="t", ids=(b"id",)),),
        iwant=(b"id",),
        idontwant=(b"id",),
    )
    assert receive(router, A, everything) == []
    assert router.subscribers("u") == [A]
    assert A in router.mesh("t")  # until the heartbeat
    lower(router, A, -80.0)
    assert delivered(receive(router, A, Rpc(messages=(message,)))) == [b"data"]


def test_who_connects_while_it_is_graylisted_has_a_place_once_its_score_has_healed() -> None:
    router = joined(0)
    router.scores.handle_misbehaviour(A, 6.0, 0.0)
    open_peer(router, 2, ["t"], now=1.0)
    assert router.scores.is_graylisted(A)
    assert router.mesh("t") == []
    while router.scores.is_graylisted(A):
        heartbeat(router)
    assert (router.next_deadline() or 0.0) < 20.0
    while not router.mesh("t"):
        heartbeat(router)
    assert (router.next_deadline() or 0.0) < 70.0


def test_once_there_is_an_enemy_who_brought_something_hears_of_every_message() -> None:
    router = joined(5)  # fill the mesh
    others = [open_peer(router, number, ["t"]) for number in range(7, 57)]
    giver = others[20]
    router.scores.handle_first("other", giver, b"id", 0.0)
    for enemy in (False, True):
        if enemy:
            lower(router, others[0], -11.0)
        hearing = []
        for _ in range(10):
            now = router.next_deadline() or 0.0
            router.handle(Publish(topic="t", data=b"%r" % now), now)
            hearing.append(any(rpc.ihave for rpc in sent(router.handle_timer(now), giver)))
        assert all(hearing) is enemy


def test_gossip_goes_to_and_counts_of_nobody_below_its_threshold() -> None:
    for score, heeded in ((-10.0, True), (-10.1, False)):
        router = joined(0)
        for number in range(2, 4):
            open_peer(router, number)
        router.handle(Publish(topic="t", data=b"data"), 0.0)
        for peer in (A, B):
            receive(router, peer, Rpc(subscriptions=subscriptions("t"), prune=(Prune(topic="t"),)))
        receive(router, A, Rpc(prune=(Prune(topic="t"),)))
        receive(router, B, Rpc(prune=(Prune(topic="t"),)))
        lower(router, A, score)
        asked = sent(receive(router, A, Rpc(ihave=(IHave(topic="t", ids=(b"id",)),))), A)
        assert [rpc.iwant for rpc in asked] == ([(b"id",)] if heeded else [])
        message_id = peer_number(1).raw + SEQNO.to_bytes(8, "big")
        answers = sent(receive(router, A, Rpc(iwant=(message_id,))), A)
        assert [len(rpc.messages) for rpc in answers] == [1] * heeded
        actions = heartbeat(router)
        assert any(rpc.ihave for rpc in sent(actions, B))
        assert any(rpc.ihave for rpc in sent(actions, A)) == heeded


@pytest.mark.parametrize("flood", [True, False])
def test_what_we_publish_goes_to_nobody_below_the_threshold(flood: bool) -> None:
    router = joined(2, flood_publish=flood)
    floodsub = open_peer(router, 4, ["t"], version=Version.FLOODSUB)
    lower(router, A, -50.1)
    lower(router, floodsub, -50.1)
    actions = router.handle(Publish(topic="t", data=b"data"), 0.0)
    assert [action.peer for action in actions if isinstance(action, SendRpc)] == [B]
    message = signed(3, "t", b"data")
    assert sent(receive(router, B, Rpc(messages=(message,))), floodsub) == []
    lower(router, floodsub, -50.0)
    message = signed(3, "t", b"data", SEQNO + 1)
    assert len(sent(receive(router, B, Rpc(messages=(message,))), floodsub)) == 1


def test_a_score_below_zero_is_the_end_in_the_mesh_and_above_it_of_nothing() -> None:
    router = joined(3)
    lower(router, A, -0.1)
    assert control(heartbeat(router), A).prune == (Prune(topic="t", backoff=60),)
    assert router.mesh("t") == [B, C]


def test_introductions_are_taken_of_trusted_peers_only() -> None:
    prune = Prune(topic="t", records=(b"record",))
    for score, taken in ((9.9, False), (10.0, True)):
        router = joined(1)
        lower(router, A, score)
        actions = receive(router, A, Rpc(prune=(prune,)))
        assert actions == ([Introduced(records=(b"record",))] if taken else [])


def test_promises_that_are_never_kept_cost_the_mesh_within_three_heartbeats_of_the_first() -> None:
    router = joined(2)
    for second in range(8):
        ids = tuple(b"%d %d" % (second, number) for number in range(100))
        receive(router, A, Rpc(ihave=(IHave(topic="t", ids=ids),)), second + 0.5)
        heartbeat(router)
    assert router.scores.is_negative(A)  # the first was broken at 3.5 s
    assert router.mesh("t") == [B]
    for second in range(8, 12):
        receive(router, A, Rpc(ihave=(IHave(topic="t", ids=(b"%d" % second,)),)), second + 0.5)
        heartbeat(router)
    assert router.scores.is_graylisted(A)


def test_malformed_messages_and_bad_signatures_lower_the_score_and_copies_do_not() -> None:
    router = joined(2)
    message = signed(2, "t", b"data")
    for peer in (A, B, A, B):
        receive(router, peer, Rpc(messages=(message,)))
    assert not router.scores.is_negative(A)
    raw = encode_message(origin=message.origin, data=b"", seqno=b"short", topic="t", signature=b"s")
    receive(router, A, Rpc(messages=(decode_message(raw),)))
    assert router.scores.score(A) < 0
    own = signed(1, "t", b"ours")
    receive(router, B, Rpc(messages=(own,)))
    assert not router.scores.is_negative(B)


def test_who_reconnects_keeps_its_penalties() -> None:
    router = joined(2)
    for _ in range(10):
        router.scores.handle_invalid("t", A)
    router.handle(PeerGone(peer=A), 1.0)
    assert not router.scores.is_graylisted(A)
    open_peer(router, 2, ["t"], now=2.0)
    assert router.scores.is_graylisted(A)
    assert A not in router.mesh("t")


def test_mesh_peers_are_judged_by_what_they_bring_where_the_rate_is_known() -> None:
    router = joined(3)
    router.scores.expect_rate("t", 10.0)
    for second in range(12):
        for number in range(10):
            message = signed(9, "t", b"data", SEQNO + 10 * second + number)
            receive(router, A, Rpc(messages=(message,)), second + 0.1)
            receive(router, B, Rpc(messages=(message,)), second + 0.2)
        heartbeat(router)
    assert router.mesh("t") == [A, B]
    assert router.scores.is_negative(C)


def test_every_sixtieth_heartbeat_looks_for_better_peers() -> None:
    router = joined(6)
    for number in range(10, 14):
        peer = open_peer(router, number, ["t"])
        lower(router, peer, 0.9)
    sizes = []
    for _ in range(60):
        heartbeat(router)
        sizes.append(len(router.mesh("t")))
    assert sizes[:59] == [5] * 59
    assert sizes[59] == 7
