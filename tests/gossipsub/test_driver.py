from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2p.errors import LocalProtocolError, StreamReset
from p2p.framing import DelimitedReader, encode_delimited
from p2p.gossipsub import (
    GossipsubParams,
    Pubsub,
    PubsubMessage,
    Subscription,
    Verdict,
    open_gossipsub,
    sha256_message_id,
)
from p2p.gossipsub import rpc_pb2 as pb
from p2p.gossipsub.events import Action, Deliver, Published, SendRpc
from p2p.gossipsub.inbound import MESSAGES_AT_ONCE
from p2p.gossipsub.introductions import DIALS_AT_ONCE, MAX_INTRODUCED
from p2p.gossipsub.link import REOPEN_FIRST, REOPEN_MAX, WRITE_TIMEOUT, WRITES_AT_ONCE, Link
from p2p.gossipsub.router import Router
from p2p.gossipsub.subscription import SUBSCRIPTION_QUEUE
from p2p.gossipsub.wire import MAX_RPC, VERSIONS, Prune, Rpc, decode_rpc, encode_rpc
from p2p.gossipsub.wire import Subscription as Entry
from p2p.host import Host
from p2p.peer_id import PeerId
from p2p.peer_record import sign_record
from p2p.stream import Stream
from tests.gossipsub.support import SEQNO, signed
from tests.support import connect, key_number, open_memory_hosts

SUBSCRIBE = Rpc(subscriptions=(Entry(topic="t", subscribe=True),))


@asynccontextmanager
async def open_pubsubs(count: int) -> AsyncIterator[tuple[list[Host], list[Pubsub]]]:
    """Hosts with gossipsub, not connected to one another."""
    async with open_memory_hosts(count) as hosts, AsyncExitStack() as stack:
        yield hosts, [await stack.enter_async_context(open_gossipsub(host)) for host in hosts]


@asynccontextmanager
async def open_pair() -> AsyncIterator[tuple[Pubsub, Pubsub, Subscription]]:
    """Two that are connected and know of each other's subscription to t; the subscription of the second."""
    async with open_pubsubs(2) as (hosts, (one, other)):
        await connect(*hosts)
        with one.subscribe("t"), other.subscribe("t") as subscription:
            await one.wait_for_peers("t", 1)
            await other.wait_for_peers("t", 1)
            yield one, other, subscription


@asynccontextmanager
async def open_with_stranger() -> AsyncIterator[tuple[Pubsub, Host, Host]]:
    """(gossipsub, its host, a connected host without gossipsub): the test plays the other side."""
    async with open_memory_hosts(2) as (host, stranger), open_gossipsub(host) as pubsub:
        await connect(host, stranger)
        yield pubsub, host, stranger


class Script:
    """The other side of a stream: keeps what comes, and who opened it when."""

    def __init__(self, stranger: Host, protocols: Sequence[str] = ("/meshsub/1.1.0",)) -> None:
        self.opened: list[float] = []
        self.received: list[Rpc] = []
        self.heard = trio.Event()
        self._protocols = protocols
        for protocol in protocols:
            stranger.handle(protocol, self._serve)

    async def _serve(self, stream: Stream) -> None:
        self.opened.append(trio.current_time())
        await self.serve(stream)

    async def serve(self, stream: Stream) -> None:
        reader = DelimitedReader(stream, MAX_RPC)
        while (message := await reader.receive()) is not None:
            self.received.append(decode_rpc(message))
            self.heard.set()


class Deaf(Script):
    """Never reads."""

    async def serve(self, stream: Stream) -> None:
        await trio.sleep_forever()


class Hostile(Script):
    """Resets every stream at once."""

    async def serve(self, stream: Stream) -> None:
        stream.reset()


class Talkative(Script):
    """Writes on the stream that is not its own, then closes its side, and listens."""

    async def serve(self, stream: Stream) -> None:
        await stream.send_all(b"hello?")
        await stream.send_eof()
        await super().serve(stream)


async def say(stranger: Host, peer: PeerId, *rpcs: Rpc) -> Stream:
    """Opens a stream to `peer` and sends `rpcs`."""
    stream = await stranger.open_stream(peer, ["/meshsub/1.1.0"])
    await stream.send_all(b"".join(encode_delimited(encode_rpc(rpc)) for rpc in rpcs))
    return stream


async def receive(subscription: Subscription) -> PubsubMessage:
    return await subscription.__anext__()


# Between our own kind


async def test_a_message_travels_from_publisher_to_subscriber(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, subscription):
        message_id = one.publish("t", b"data")
        message = await receive(subscription)
        sender = one._host.peer_id
        assert (message.topic, message.data, message.id) == ("t", b"data", message_id)
        assert message.sender == message.received_from == sender
        assert other.peers("t") == other.mesh("t") == [sender]
        assert (one.counters.published, other.counters.delivered) == (1, 1)
        assert one.bytes_sent > len(b"data")


async def test_own_messages_are_not_delivered_to_own_subscriptions(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, subscription):
        other.publish("t", b"mine")
        one.publish("t", b"theirs")
        assert (await receive(subscription)).data == b"theirs"


async def test_messages_in_a_row_arrive_in_order_and_in_few_sends(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, _, subscription):
        expected = [b"%d" % number for number in range(200)]
        for data in expected:
            one.publish("t", data)
        assert [(await receive(subscription)).data for _ in expected] == expected
        assert one.messages_dropped == 0


async def test_ten_peers_on_a_line_all_get_every_message(autojump_clock: MockClock) -> None:
    async with open_pubsubs(10) as (hosts, pubsubs), AsyncExitStack() as stack:
        subscriptions = [stack.enter_context(pubsub.subscribe("t")) for pubsub in pubsubs]
        for pair in itertools.pairwise(hosts):
            await connect(*pair)
        for place, pubsub in enumerate(pubsubs):
            await pubsub.wait_for_peers("t", 1 if place in (0, 9) else 2)
        pubsubs[0].publish("t", b"small")
        pubsubs[9].publish("t", bytes(500_000))
        for subscription in subscriptions[1:9]:
            received = [await receive(subscription), await receive(subscription)]
            assert sorted(len(message.data) for message in received) == [5, 500_000]


async def test_gossipsub_opened_on_connected_hosts_finds_its_peers(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(2) as (host, other):
        await connect(host, other)
        async with open_gossipsub(host) as one, open_gossipsub(other) as two:
            with two.subscribe("t"):
                await one.wait_for_peers("t", 1)


async def test_waiting_for_peers_ends_when_enough_are_there(autojump_clock: MockClock) -> None:
    async with open_pubsubs(3) as (hosts, pubsubs):
        await pubsubs[0].wait_for_peers("t", 0)
        with pubsubs[1].subscribe("t"), pubsubs[2].subscribe("t"):
            await connect(hosts[0], hosts[1])
            await pubsubs[0].wait_for_peers("t", 1)
            with trio.move_on_after(60) as scope:
                await pubsubs[0].wait_for_peers("t", 2)
            assert scope.cancelled_caught
            await connect(hosts[0], hosts[2])
            await pubsubs[0].wait_for_peers("t", 2)
            assert set(pubsubs[0].peers("t")) == {hosts[1].peer_id, hosts[2].peer_id}


async def test_two_subscriptions_share_a_topic_until_both_end(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, first):
        with other.subscribe("t") as second:
            one.publish("t", b"1")
            assert (await receive(first)).data == (await receive(second)).data == b"1"
        one.publish("t", b"2")
        assert (await receive(first)).data == b"2"
        assert [message.data async for message in second] == []  # it ended with its body


async def test_the_end_of_the_last_subscription_is_told(autojump_clock: MockClock) -> None:
    async with open_pubsubs(2) as (hosts, (one, other)):
        await connect(*hosts)
        with one.subscribe("t"):
            with other.subscribe("t"):
                await one.wait_for_peers("t", 1)
            await trio.sleep(1)
            assert one.peers("t") == one.mesh("t") == []


async def test_a_slow_subscriber_loses_the_oldest_messages(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, _, subscription):
        for number in range(SUBSCRIPTION_QUEUE + 10):
            one.publish("t", b"%d" % number)
        await trio.sleep(1)
        assert subscription.dropped == 10
        assert (await receive(subscription)).data == b"10"


async def test_a_reader_keeps_up_with_a_burst(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, subscription):
        count = 10 * SUBSCRIPTION_QUEUE
        for number in range(count):
            one.publish("t", b"%d" % number)
        assert one.messages_dropped == 0
        async for message in subscription:
            if message.data == b"%d" % (count - 1):
                break
        assert (subscription.dropped, other.counters.delivered) == (0, count)


async def test_several_readers_share_a_subscription(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, _, subscription):
        found: list[bytes] = []

        async def read() -> None:
            found.append((await receive(subscription)).data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            one.publish("t", b"1")
            one.publish("t", b"2")
        assert sorted(found) == [b"1", b"2"]


async def test_a_reader_that_waits_ends_with_the_subscription(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(1) as [host], open_gossipsub(host) as pubsub, trio.open_nursery() as nursery:
        ended = trio.Event()

        async def read(subscription: Subscription) -> None:
            async for _ in subscription:
                pass
            ended.set()

        with pubsub.subscribe("t") as subscription:
            nursery.start_soon(read, subscription)
            await wait_all_tasks_blocked()
        with trio.fail_after(1):
            await ended.wait()


async def test_a_message_published_last_is_still_sent(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(2) as (host, other), open_gossipsub(other) as pubsub:
        with pubsub.subscribe("t") as subscription:
            await connect(host, other)
            async with open_gossipsub(host) as last:
                await last.wait_for_peers("t", 1)
                last.publish("t", b"goodbye")
            assert (await receive(subscription)).data == b"goodbye"
            assert not any(protocol in VERSIONS for protocol in host._handlers)


async def test_a_message_over_the_size_limit_is_our_own_mistake(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, _, subscription):
        with pytest.raises(LocalProtocolError):
            one.publish("t", bytes(MAX_RPC))
        one.publish("t", bytes(MAX_RPC - 500))
        assert len((await receive(subscription)).data) == MAX_RPC - 500


async def test_message_ids_and_parameters_are_those_that_were_given(autojump_clock: MockClock) -> None:
    async with (
        open_memory_hosts(1) as [host],
        open_gossipsub(
            host, GossipsubParams(max_message_size=300), message_id=sha256_message_id, seqno=SEQNO
        ) as pubsub,
    ):
        message_id = pubsub.publish("t", b"data")
        assert message_id == sha256_message_id(signed(1, "t", b"data", SEQNO))
        with pytest.raises(LocalProtocolError):
            pubsub.publish("t", bytes(300))


async def test_sequence_numbers_start_with_the_time(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(1) as [host]:
        starts = []
        for _ in range(2):
            async with open_gossipsub(host) as pubsub:
                starts.append(int.from_bytes(pubsub.publish("t", b"")[-8:], "big"))
        assert SEQNO < starts[0] < starts[1]


# Peers that come and go


async def test_a_peer_that_disconnects_is_forgotten_and_welcome_back(autojump_clock: MockClock) -> None:
    async with open_pubsubs(2) as (hosts, (one, other)):
        with one.subscribe("t"), other.subscribe("t") as subscription:
            for data in (b"first", b"second"):
                await connect(*hosts)
                await one.wait_for_peers("t", 1)
                await other.wait_for_peers("t", 1)
                one.publish("t", data)
                assert (await receive(subscription)).data == data
                await hosts[0]._swarm.connections[hosts[1].peer_id].muxed.aclose()
                await trio.sleep(1)
                assert one.peers("t") == other.peers("t") == []
                assert not one._links
                assert not one._inbound


async def test_a_stream_reset_does_not_end_pubsub(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, subscription):
        sender = one._host.peer_id
        for data in (b"1", b"2"):
            other._inbound[sender].reset()  # the host resets the stream that `one` writes to
            await wait_all_tasks_blocked()
            assert one.peers("t") == one.mesh("t") == []
            start = trio.current_time()
            await one.wait_for_peers("t", 1)
            assert trio.current_time() - start == pytest.approx(REOPEN_FIRST if data == b"1" else 2.0)
            one.publish("t", data)
            assert (await receive(subscription)).data == data
            await trio.sleep(5)
            assert one.mesh("t") == [other._host.peer_id]
            assert other.mesh("t") == [sender]


async def test_a_stream_that_always_fails_is_opened_again_ever_more_slowly(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (_, _, stranger):
        script = Hostile(stranger)
        await trio.sleep(120)
        waits = [later - earlier for earlier, later in itertools.pairwise(script.opened)]
        # the identify push with the new protocol came twice at most, each makes one wait end early
        assert [round(wait) for wait in waits[-5:]] == [4, 8, 16, 30, 30]
        assert waits[-1] <= REOPEN_MAX + 0.1


async def test_a_stream_that_lived_long_is_opened_again_quickly(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, _):
        for _ in range(3):
            await trio.sleep(2 * REOPEN_MAX)
            other._inbound[one._host.peer_id].reset()
            await wait_all_tasks_blocked()
            with trio.fail_after(REOPEN_FIRST + 0.1):
                await one.wait_for_peers("t", 1)


async def test_a_peer_that_is_identified_anew_is_tried_at_once(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        hostile = Hostile(stranger)
        await trio.sleep(20)
        stranger.unhandle("/meshsub/1.1.0")
        script = Script(stranger)
        with pubsub.subscribe("t"), trio.fail_after(0.5):
            await script.heard.wait()
        assert hostile.opened
        assert host.is_connected(stranger.peer_id)


async def test_a_peer_that_goes_while_our_stream_to_it_opens_is_not_greeted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_memory_hosts(2) as (host, other), open_gossipsub(host) as one, open_gossipsub(other):
        open_stream = host.open_stream

        async def open_too_late(peer: PeerId, protocols: Sequence[str]) -> Stream:
            stream = await open_stream(peer, protocols)
            one._forget(peer)
            return stream

        monkeypatch.setattr(host, "open_stream", open_too_late)
        await connect(host, other)
        await trio.sleep(1)
        assert not one._links
        assert one._router._peers.get(other.peer_id) is None


async def test_a_peer_without_pubsub_is_left_alone(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, _, _):
        await trio.sleep(5)
        assert not pubsub._links


async def test_a_peer_that_does_not_answer_holds_up_nobody(autojump_clock: MockClock) -> None:
    async with open_pubsubs(2) as (hosts, (one, other)), open_memory_hosts(1) as [lonely]:
        assert lonely.peers() == []
        await connect(*hosts)
        link = one._links[lonely.peer_id] = Link(hosts[0], one._nursery, lonely.peer_id, one._handle)
        one._nursery.start_soon(link.open)  # as if it had gone before it was noticed
        with other.subscribe("t") as subscription:
            await one.wait_for_peers("t", 1)
            await trio.sleep(100)
            one.publish("t", b"data")
            assert (await receive(subscription)).data == b"data"


# What others may do


async def test_our_stream_starts_with_our_topics_and_no_other_stream_is_written_to(
    autojump_clock: MockClock,
) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        script = Script(stranger)
        stream = await say(stranger, host.peer_id, SUBSCRIBE)
        with pubsub.subscribe("t"):
            await trio.sleep(10)
            pubsub.publish("t", b"data")
            with trio.move_on_after(60) as scope:
                await stream.receive_some()  # neither a byte nor an end
            assert scope.cancelled_caught
        assert script.received[0].subscriptions == SUBSCRIBE.subscriptions
        assert [message.data for rpc in script.received for message in rpc.messages] == [b"data"]
        assert len(script.opened) == 1


async def test_a_newer_stream_of_a_peer_replaces_the_older(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        with pubsub.subscribe("t") as subscription:
            older = await say(stranger, host.peer_id, SUBSCRIBE)
            await pubsub.wait_for_peers("t", 1)
            newer = await say(stranger, host.peer_id, SUBSCRIBE, Rpc(messages=(signed(2, "t", b"1"),)))
            assert (await receive(subscription)).data == b"1"
            with pytest.raises(StreamReset):
                await older.receive_some()
            rpc = Rpc(messages=(signed(2, "t", b"2", SEQNO + 1),))
            await newer.send_all(encode_delimited(encode_rpc(rpc)))
            assert (await receive(subscription)).data == b"2"


@pytest.mark.parametrize(
    "garbage",
    [
        encode_delimited(b"\xff\xff\xff"),
        encode_delimited(b"\x0a\x00" * 5001),
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        b"\x81\x80\x40",  # announces 1 MiB + 1
    ],
)
async def test_a_malformed_rpc_ends_its_stream_only(garbage: bytes, autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        with pubsub.subscribe("t") as subscription:
            stream = await say(stranger, host.peer_id, SUBSCRIBE)
            await pubsub.wait_for_peers("t", 1)
            await stream.send_all(garbage)
            with pytest.raises(StreamReset):
                await stream.receive_some()
            assert pubsub.peers("t") == [stranger.peer_id]
            await say(stranger, host.peer_id, Rpc(messages=(signed(2, "t", b"data"),)))
            assert (await receive(subscription)).data == b"data"


async def test_a_peer_that_closes_its_stream_has_said_its_last(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        stream = await say(stranger, host.peer_id, SUBSCRIBE)
        await stream.send_eof()
        await pubsub.wait_for_peers("t", 1)
        await wait_all_tasks_blocked()
        assert not pubsub._inbound
        assert await stream.receive_some() == b""


async def test_a_peer_that_writes_on_our_stream_and_closes_its_side_still_gets_messages(
    autojump_clock: MockClock,
) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        script = Talkative(stranger)
        await say(stranger, host.peer_id, SUBSCRIBE)
        await pubsub.wait_for_peers("t", 1)
        pubsub.publish("t", b"data")
        await trio.sleep(5)
        assert [message.data for rpc in script.received for message in rpc.messages] == [b"data"]
        assert len(script.opened) == 1


async def test_heartbeats_take_a_peer_back_when_its_backoff_is_over(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        with pubsub.subscribe("t"):
            stream = await say(stranger, host.peer_id, SUBSCRIBE)
            await pubsub.wait_for_peers("t", 1)
            await trio.sleep(1)
            await stream.send_all(encode_delimited(encode_rpc(Rpc(prune=(Prune(topic="t", backoff=2),)))))
            await trio.sleep(3.5)
            assert pubsub.mesh("t") == []
            await trio.sleep(2)
            assert pubsub.mesh("t") == [stranger.peer_id]


async def test_a_floodsub_peer_gets_messages(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        script = Script(stranger, ["/floodsub/1.0.0"])
        await say(stranger, host.peer_id, SUBSCRIBE)
        with pubsub.subscribe("t"):
            await pubsub.wait_for_peers("t", 1)
            pubsub.publish("t", b"data")
            await trio.sleep(5)
            assert pubsub.mesh("t") == []
        assert [message.data for rpc in script.received for message in rpc.messages] == [b"data"]
        assert not any(rpc.graft or rpc.prune or rpc.ihave for rpc in script.received)


async def test_the_newest_version_in_common_is_spoken(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        script = Script(stranger, ["/meshsub/1.0.0", "/meshsub/1.1.0"])
        await say(stranger, host.peer_id, SUBSCRIBE)
        with pubsub.subscribe("t"):
            await pubsub.wait_for_peers("t", 1)
        await trio.sleep(1)
        [prune] = [prune for rpc in script.received for prune in rpc.prune]
        assert prune.backoff == 10  # 1.0 knows no backoff


async def test_a_peer_that_reads_nothing_holds_up_nobody_and_is_reset(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(3) as (host, other, stranger), open_gossipsub(host) as one:
        deaf = Deaf(stranger)
        await connect(host, stranger)
        await say(stranger, host.peer_id, SUBSCRIBE)
        await one.wait_for_peers("t", 1)
        async with open_gossipsub(other) as two:
            await connect(host, other)
            with two.subscribe("t") as subscription:
                await one.wait_for_peers("t", 2)
                start = trio.current_time()
                for number in range(60):
                    one.publish("t", b"%d" % number + bytes(100_000))
                    await receive(subscription)
                assert trio.current_time() - start < 1
                assert one.messages_dropped > 0
                await trio.sleep(WRITE_TIMEOUT + 0.5)
                assert one.peers("t") == [other.peer_id]
                assert one.messages_dropped > 0
                await trio.sleep(5)
                assert len(deaf.opened) == 2


async def test_an_end_while_a_peer_reads_nothing_is_quick(autojump_clock: MockClock) -> None:
    async with open_memory_hosts(2) as (host, stranger):
        async with open_gossipsub(host) as pubsub:
            Deaf(stranger)
            await connect(host, stranger)
            await say(stranger, host.peer_id, SUBSCRIBE)
            await pubsub.wait_for_peers("t", 1)
            for number in range(20):
                pubsub.publish("t", b"%d" % number + bytes(100_000))
            await trio.sleep(1)
            start = trio.current_time()
        assert trio.current_time() - start <= 1


# Without tasks


class _Steps(trio.abc.Instrument):
    """Counts how often a task runs."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@asynccontextmanager
async def open_line(count: int) -> AsyncIterator[tuple[list[Pubsub], list[bytes]]]:
    """Peers in a row whose meshes are settled, and what the last of them gets."""
    got: list[bytes] = []
    async with open_pubsubs(count) as (hosts, pubsubs), AsyncExitStack() as stack:
        for pubsub in pubsubs[:-1]:
            stack.enter_context(pubsub.subscribe_each("t", lambda message: None))
        stack.enter_context(pubsubs[-1].subscribe_each("t", lambda message: got.append(message.data)))
        for pair in itertools.pairwise(hosts):
            await connect(*pair)
        await trio.sleep(5)
        yield pubsubs, got


async def test_a_message_passes_a_peer_within_one_step_of_one_task(autojump_clock: MockClock) -> None:
    async with open_line(4) as (pubsubs, got):
        steps = _Steps()
        trio.lowlevel.add_instrument(steps)
        pubsubs[0].publish("t", b"data")
        assert got == []
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
        assert got == [b"data"]
        readers = 3  # of a connection that carried the message: a step each, and this task's own two
        assert steps.count <= readers + 2


async def test_a_burst_shares_writes_and_arrives_in_order(autojump_clock: MockClock) -> None:
    async with open_line(2) as (pubsubs, got):
        for number in range(10 * WRITES_AT_ONCE):
            pubsubs[0].publish("t", b"%d" % number)
        [link] = pubsubs[0]._links.values()
        assert link._writing  # the rest is a task's
        await trio.sleep(0.1)
        assert got == [b"%d" % number for number in range(10 * WRITES_AT_ONCE)]
        assert not link._writing
        pubsubs[0].publish("t", b"one more")  # again without the task
        assert not link._writing


async def test_a_burst_of_one_peer_is_handled_in_turns(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        got: list[bytes] = []
        with pubsub.subscribe_each("t", lambda message: got.append(message.data)):
            messages = [signed(2, "t", b"%d" % number, SEQNO + number) for number in range(100)]
            stream = await say(stranger, host.peer_id, SUBSCRIBE)
            await wait_all_tasks_blocked()
            half = encode_delimited(encode_rpc(Rpc(messages=tuple(messages[:50]))))
            rest = [encode_delimited(encode_rpc(Rpc(messages=(message,)))) for message in messages[50:]]
            await stream.send_all(half + b"".join(rest))
            turns = [len(got)]
            while len(got) < 100:
                await trio.lowlevel.checkpoint()
                turns.append(len(got))
        assert got == [b"%d" % number for number in range(100)]
        # two steps of the others may have passed between two looks of this task
        assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 2 * MESSAGES_AT_ONCE


async def test_an_end_within_an_rpc_is_told(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        stream = await say(stranger, host.peer_id, SUBSCRIBE)
        await stream.send_all(b"\x05half")
        await stream.send_eof()
        with pytest.raises(StreamReset):
            await stream.receive_some()
        await pubsub.wait_for_peers("t", 1)  # what came before counts


async def test_what_the_router_decides_can_be_observed(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, _):
        seen: list[Action] = []
        one.observers.append(seen.extend)
        other.observers.append(seen.extend)
        one.publish("t", b"data")
        await wait_all_tasks_blocked()
        assert [type(action) for action in seen] == [Published, SendRpc, Deliver]


async def test_a_router_of_another_kind_can_take_its_place(autojump_clock: MockClock) -> None:
    class Mute(Router):
        def _take_actions(self) -> list[Action]:
            return [action for action in super()._take_actions() if not isinstance(action, SendRpc)]

    async with open_memory_hosts(2) as (host, other), open_gossipsub(host, make_router=Mute) as mute:
        async with open_gossipsub(other) as pubsub:
            await connect(host, other)
            with mute.subscribe("t"), pubsub.subscribe("t"):
                await mute.wait_for_peers("t", 1)
                assert pubsub.peers("t") == []


async def test_an_application_that_fails_costs_no_other_peer_the_message(
    autojump_clock: MockClock,
) -> None:
    async with open_line(3) as (pubsubs, got):
        failed: list[bytes] = []

        def fail(message: PubsubMessage) -> None:
            failed.append(message.data)
            raise KeyError(message.data)

        with pubsubs[1].subscribe_each("t", fail):
            pubsubs[0].publish("t", b"data")
            await wait_all_tasks_blocked()
        assert failed == got == [b"data"]


async def test_a_stream_that_breaks_under_a_write_is_opened_again(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, _, subscription):
        [link] = one._links.values()
        assert link._stream is not None
        link._stream.reset()  # nobody has noticed yet
        one.publish("t", b"lost")
        await one.wait_for_peers("t", 1)
        await trio.sleep(5)
        one.publish("t", b"data")
        got = [(await receive(subscription)).data]
        if got == [b"lost"]:  # the link noticed before it wrote
            got.append((await receive(subscription)).data)
        assert got[-1] == b"data"


# Validators


async def test_an_async_validator_is_refused(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, _, _):

        async def validator(message: PubsubMessage) -> Verdict:
            return Verdict.ACCEPT

        with pytest.raises(LocalProtocolError):
            one.add_validator("t", validator)  # type: ignore[arg-type]


async def test_a_validator_that_fails_is_logged_and_costs_one_message(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pair() as (one, other, subscription):

        def validator(message: PubsubMessage) -> Verdict:
            if message.data == b"poison":
                raise KeyError(message.data)
            return Verdict.REJECT if message.data == b"bad" else Verdict.ACCEPT

        other.add_validator("t", validator)
        for data in (b"poison", b"bad", b"good"):
            one.publish("t", data)
        assert (await receive(subscription)).data == b"good"
        assert (other.counters.ignored, other.counters.rejected) == (1, 1)
        [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "validator of t failed" in record.message


# Cancellation


@pytest.mark.parametrize("steps", range(0, 260, 9))
async def test_gossipsub_can_be_cancelled_at_any_point(steps: int) -> None:
    """Cancels the whole of it after so many rounds of the scheduler, while streams open and messages flow."""
    async with open_memory_hosts(2) as (host, other), open_gossipsub(other) as far:
        with far.subscribe("t"), trio.CancelScope() as scope:
            async with open_gossipsub(host) as pubsub, trio.open_nursery() as nursery:

                async def talk() -> None:
                    with pubsub.subscribe("t") as subscription:
                        nursery.start_soon(connect, host, other)
                        await pubsub.wait_for_peers("t", 1)
                        await far.wait_for_peers("t", 1)
                        while True:
                            pubsub.publish("t", bytes(100_000))
                            far.publish("t", b"data")
                            await receive(subscription)

                nursery.start_soon(talk)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert not any(protocol in VERSIONS for protocol in host._handlers)
        await wait_all_tasks_blocked()
        assert not pubsub._inbound


# Scores


async def test_an_application_sees_and_moves_scores(autojump_clock: MockClock) -> None:
    async with open_pair() as (one, other, subscription):
        [peer] = one.peers("t")
        assert other.scores().keys() == {one._host.peer_id}
        assert one.scores() == {peer: 0.0}
        one.set_application_score(peer, -90.0)
        assert one.score(peer) == -90.0
        assert one.graylisted() == [peer]
        await trio.sleep(2)
        assert one.mesh("t") == []
        one.publish("t", b"not for you")
        one.set_application_score(peer, 0.0)
        one.publish("t", b"data")
        assert (await receive(subscription)).data == b"data"
        assert one.graylisted() == []


async def test_a_graylisted_peer_is_not_even_decoded(autojump_clock: MockClock) -> None:
    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        with pubsub.subscribe("t") as subscription:
            stream = await say(stranger, host.peer_id, SUBSCRIBE)
            await pubsub.wait_for_peers("t", 1)
            pubsub.set_application_score(stranger.peer_id, -90.0)
            await stream.send_all(encode_delimited(b"\xff\xff"))  # would end the stream
            await stream.send_all(encode_delimited(encode_rpc(Rpc(messages=(signed(2, "t", b"lost"),)))))
            await trio.sleep(1)
            pubsub.set_application_score(stranger.peer_id, 0.0)
            await stream.send_all(encode_delimited(encode_rpc(Rpc(messages=(signed(2, "t", b"data", 7),)))))
            assert (await receive(subscription)).data == b"data"


async def test_a_graylisted_peer_says_its_topics_in_a_few_bytes(autojump_clock: MockClock) -> None:
    def to(*topics: str) -> bytes:
        entries = tuple(Entry(topic=topic, subscribe=True) for topic in topics)
        return encode_delimited(encode_rpc(Rpc(subscriptions=entries)))

    async with open_with_stranger() as (pubsub, host, stranger):
        Script(stranger)
        stream = await say(stranger, host.peer_id, SUBSCRIBE)
        await pubsub.wait_for_peers("t", 1)
        pubsub.set_application_score(stranger.peer_id, -90.0)
        await stream.send_all(to(*[f"{number:01000}" for number in range(10)]) + to("u") * 40 + to("w"))
        await pubsub.wait_for_peers("w", 1)
        assert pubsub.peers("u") == [stranger.peer_id]
        assert pubsub.peers(f"{1:01000}") == []
        pubsub.set_application_score(stranger.peer_id, 0.0)
        await stream.send_all(to("v"))
        await pubsub.wait_for_peers("v", 1)


async def test_a_rate_lets_silent_mesh_peers_lose_score_and_there_is_an_end_to_rates(
    autojump_clock: MockClock,
) -> None:
    async with open_pubsubs(1) as (_, (pubsub,)):
        for number in range(64):
            pubsub.expect_rate(f"t{number}", 10.0)
        with pytest.raises(LocalProtocolError, match="too many topics"):
            pubsub.expect_rate("one more", 10.0)
        pubsub.expect_rate("t0", 0.0)
        pubsub.expect_rate("one more", 10.0)


def introduction(*records: bytes) -> bytes:
    """An RPC with a PRUNE that names others."""
    infos = [pb.PeerInfo(record=record) for record in records]
    return encode_delimited(
        pb.RPC(control=pb.Control(prune=[pb.Prune(topic="t", peers=infos)])).SerializeToString()
    )


async def test_peers_that_a_trusted_one_names_are_dialed_and_nonsense_is_not(
    autojump_clock: MockClock,
) -> None:
    async with open_memory_hosts(4) as (host, stranger, friend, other), open_gossipsub(host) as pubsub:
        await connect(host, stranger)
        Script(stranger)
        good = sign_record(friend.key, 1, friend.addresses())
        forged = bytearray(sign_record(other.key, 1, other.addresses()).envelope)
        forged[-1] ^= 1
        nowhere = sign_record(key_number(77), 1, other.addresses())
        own = sign_record(host.key, 1, host.addresses())
        stream = await say(stranger, host.peer_id, SUBSCRIBE)
        names = introduction(good.envelope, good.envelope, bytes(forged), nowhere.envelope, own.envelope)
        with pubsub.subscribe("t"):
            await pubsub.wait_for_peers("t", 1)
            await stream.send_all(names)
            await trio.sleep(30)
            assert friend.peer_id not in host.peers()
            pubsub.set_application_score(stranger.peer_id, 10.0)
            await stream.send_all(names)
            with trio.fail_after(30):
                await host.wait_for_peer(friend.peer_id)
            await trio.sleep(60)
            assert host.peers() == [stranger.peer_id, friend.peer_id]
            assert not pubsub._introductions


async def test_no_more_introductions_wait_than_there_is_room_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialed: list[PeerId] = []

    async def hang(peer: PeerId) -> None:
        dialed.append(peer)
        await trio.sleep_forever()

    async with open_with_stranger() as (pubsub, host, _):
        monkeypatch.setattr(host, "connect", hang)
        records = [sign_record(key_number(number), 1, ()).envelope for number in range(100, 300)]
        pubsub._introductions.handle(records)
        await wait_all_tasks_blocked()
        assert len(pubsub._introductions) == MAX_INTRODUCED
        assert len(dialed) == DIALS_AT_ONCE
