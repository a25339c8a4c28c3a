import itertools
from contextlib import AsyncExitStack

import pytest
import trio

from p2p.address import parse_address
from p2p.errors import ConnectionLost, LocalProtocolError, NegotiationFailed, StreamReset
from p2p.events import PeerDisconnected
from p2p.framing import DelimitedReader, encode_delimited
from p2p.kad import PROTOCOL, open_kad
from p2p.kad.distance import common_prefix_length, position
from p2p.kad.driver import IDLE_TIMEOUT, REFRESH_INTERVAL, SETTLE
from p2p.kad.query import REQUEST_DEADLINE
from p2p.kad.wire import (
    MAX_MESSAGE,
    AddProvider,
    FindNode,
    GetProviders,
    GetValue,
    K,
    PeerEntry,
    Ping,
    PutValue,
    Record,
    decode,
    encode,
)
from p2p.transport import MemoryNetwork
from tests.kad.peers import by_distance, peer
from tests.support import connect, open_memory_host, open_memory_hosts


async def ask(stream, *requests):
    """Sends requests on `stream`."""
    await stream.send_all(b"".join(encode_delimited(encode(request)) for request in requests))


async def next_reply(reader):
    data = await reader.receive()
    return None if data is None else decode(data)


async def settle():
    """Lets what was said now arrive everywhere; in virtual time that costs nothing."""
    await trio.sleep(0.01)


class Server:
    """A handler of the protocol that counts requests and does as it is told."""

    def __init__(self, reply=None):
        self.requests = 0
        self.reply = reply if reply is not None else FindNode()

    async def __call__(self, stream):
        reader = DelimitedReader(stream, MAX_MESSAGE)
        while await next_reply(reader) is not None:
            self.requests += 1
            await self.answer(stream)

    async def answer(self, stream):
        await ask(stream, self.reply)


class SilentServer(Server):
    async def answer(self, stream):
        await trio.sleep_forever()


class ClosingServer(Server):
    async def answer(self, stream):
        await stream.aclose()


class ForgetfulServer(Server):
    """Resets the stream of its first request."""

    async def answer(self, stream):
        if self.requests == 1:
            stream.reset()
        else:
            await super().answer(stream)


async def test_a_peer_is_found_through_another(autojump_clock):
    async with (
        open_memory_hosts(3) as [one, middle, other],
        open_kad(one) as kad,
        open_kad(middle),
        open_kad(other),
    ):
        await connect(one, middle)
        await connect(middle, other)
        await settle()
        assert one.peerstore.addresses(other.peer_id) == []
        assert await kad.find_peer(other.peer_id) == other.addresses()
        await one.connect(other.peer_id)


async def test_a_client_is_found_although_it_serves_nothing(autojump_clock):
    async with (
        open_memory_hosts(3) as [one, middle, other],
        open_kad(one) as kad,
        open_kad(middle) as middle_kad,
        open_kad(other, server=False) as client,
    ):
        await connect(one, middle)
        await connect(middle, other)
        await settle()
        assert middle_kad.table.peers() == [one.peer_id]
        assert client.table.peers() == [middle.peer_id]
        assert await kad.find_peer(other.peer_id) == other.addresses()
        with pytest.raises(NegotiationFailed):
            await one.open_stream(other.peer_id, [PROTOCOL])


async def test_a_connected_peer_is_found_without_a_look_up(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        server = Server()
        other.handle(PROTOCOL, server)
        await connect(one, other)
        assert await kad.find_peer(other.peer_id) == other.addresses()
        assert server.requests == 0


async def test_we_find_ourselves_and_nobody_finds_a_stranger(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one) as kad, open_kad(other):
        await connect(one, other)
        await settle()
        assert await kad.find_peer(one.peer_id) == one.addresses()
        assert await kad.find_peer(peer(1)) == []


async def test_the_closest_live_peers_are_found_and_their_addresses_kept(autojump_clock):
    async with AsyncExitStack() as stack:
        hosts = await stack.enter_async_context(open_memory_hosts(8))
        kads = [await stack.enter_async_context(open_kad(host)) for host in hosts]
        for host in hosts[1:]:
            await connect(hosts[1], host) if host is not hosts[1] else await connect(hosts[0], hosts[1])
        await settle()
        found = await kads[0].find_closest(b"key")
        assert found == by_distance([host.peer_id for host in hosts[1:]], b"key")
        assert all(hosts[0].peerstore.addresses(host.peer_id) == host.addresses() for host in hosts[1:])
        assert len(kads[0].table) == 7


async def test_look_ups_of_an_empty_table_find_nobody(autojump_clock):
    async with open_memory_hosts(1) as [host], open_kad(host) as kad:
        assert await kad.find_closest(b"key") == []
        assert await kad.refresh() == []


# Serving


async def test_one_stream_carries_many_requests(autojump_clock):
    async with open_memory_hosts(3) as [one, server, third], open_kad(server), open_kad(third):
        await connect(server, third)
        await settle()
        await connect(one, server)
        stream = await one.open_stream(server.peer_id, [PROTOCOL])
        reader = DelimitedReader(stream, MAX_MESSAGE)
        await ask(stream, FindNode(key=b"x"), Ping())
        await ask(stream, AddProvider(key=b"no reply"), GetValue(key=b"v"), GetProviders(key=b"p"))
        [found] = (await next_reply(reader)).closer
        assert (found.peer, list(found.addresses)) == (third.peer_id, third.addresses())
        assert await next_reply(reader) == Ping()
        assert await next_reply(reader) == GetValue(key=b"v", closer=(found,))
        assert await next_reply(reader) == GetProviders(key=b"p", closer=(found,))
        await stream.send_eof()
        assert await reader.receive() is None


@pytest.mark.parametrize(
    "request_bytes",
    [
        encode_delimited(encode(PutValue(key=b"k", record=Record(key=b"k", value=b"v")))),
        encode_delimited(b"\xff\xff\xff"),
        b"\xff\xff\xff\xff\x01",
    ],
    ids=["a value to keep", "garbage", "an announced 30 MB"],
)
async def test_what_we_do_not_take_resets_the_stream_and_nothing_else(autojump_clock, request_bytes):
    async with open_memory_hosts(2) as [one, server], open_kad(server):
        await connect(one, server)
        stream = await one.open_stream(server.peer_id, [PROTOCOL])
        await stream.send_all(request_bytes)
        with pytest.raises(StreamReset):
            await stream.receive_some()
        stream = await one.open_stream(server.peer_id, [PROTOCOL])
        await ask(stream, Ping())
        assert await next_reply(DelimitedReader(stream, MAX_MESSAGE)) == Ping()


async def test_a_stream_without_requests_is_reset_after_a_minute(autojump_clock):
    async with open_memory_hosts(2) as [one, server], open_kad(server):
        await connect(one, server)
        stream = await one.open_stream(server.peer_id, [PROTOCOL])
        reader = DelimitedReader(stream, MAX_MESSAGE)
        await trio.sleep(IDLE_TIMEOUT - 1)
        await ask(stream, Ping())
        assert await next_reply(reader) == Ping()
        start = trio.current_time()
        with pytest.raises(StreamReset):
            await reader.receive()
        assert trio.current_time() - start == pytest.approx(IDLE_TIMEOUT, abs=0.1)


async def test_the_handler_is_registered_once_and_gone_at_the_end(autojump_clock):
    async with open_memory_hosts(2) as [one, other]:
        async with open_kad(one):
            with pytest.raises(LocalProtocolError):
                async with open_kad(one):
                    pass
        await connect(other, one)
        with pytest.raises(NegotiationFailed):
            await other.open_stream(one.peer_id, [PROTOCOL])


# The table


async def test_only_peers_that_list_the_protocol_enter_the_table(autojump_clock):
    async with open_memory_hosts(3) as [one, server, other], open_kad(one) as kad, open_kad(server):
        await connect(one, server)
        await connect(one, other)
        await settle()
        assert kad.table.peers() == [server.peer_id]


async def test_a_peer_that_starts_and_stops_serving_comes_and_goes(autojump_clock):
    async with open_memory_hosts(2) as [one, server], open_kad(one) as kad:
        await connect(one, server)
        async with open_kad(server):
            await settle()
            assert kad.table.peers() == [server.peer_id]
        await settle()
        assert kad.table.peers() == []


async def test_an_event_subscription_that_is_cut_off_is_renewed(autojump_clock, monkeypatch):
    monkeypatch.setattr("p2p.host.EVENT_BUFFER", 8)
    async with open_memory_hosts(2) as [one, server], open_kad(server), open_kad(one) as kad:
        await settle()
        for _ in range(10):
            one._notify(PeerDisconnected(peer=peer(1)))
        await connect(one, server)
        await settle()
        assert kad.table.peers() == [server.peer_id]


async def test_a_peer_that_is_gone_leaves_the_table_with_the_first_look_up(autojump_clock, monkeypatch):
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as one, open_kad(one) as kad:
        async with open_memory_host(network, 2) as server, open_kad(server):
            await connect(one, server)
            await settle()
            assert len(kad.table) == 1
            monkeypatch.setattr(one.peerstore, "addresses", lambda peer: [])
            await server.disconnect(one.peer_id)
            assert await kad.find_closest(b"key") == []
            assert len(kad.table) == 0


@pytest.mark.parametrize("server", [ClosingServer(), Server(reply=Ping())], ids=["closes", "wrong type"])
async def test_a_server_that_misbehaves_leaves_the_table(autojump_clock, server):
    async with open_memory_hosts(2) as [one, bad], open_kad(one, server=False) as kad:
        bad.handle(PROTOCOL, server)
        await connect(one, bad)
        await settle()
        assert len(kad.table) == 1
        assert await kad.find_closest(b"key") == []
        assert len(kad.table) == 0


async def test_a_lost_stream_is_tried_once_more(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        server = ForgetfulServer()
        other.handle(PROTOCOL, server)
        await connect(one, other)
        await settle()
        assert await kad.find_closest(b"key") == [other.peer_id]
        assert server.requests == 2


async def test_a_silent_peer_costs_one_deadline_and_its_place(autojump_clock):
    async with open_memory_hosts(3) as [one, silent, live], open_kad(one) as kad, open_kad(live):
        silent.handle(PROTOCOL, SilentServer())
        await connect(one, silent)
        await connect(one, live)
        await settle()
        start = trio.current_time()
        assert await kad.find_closest(b"key") == [live.peer_id]
        assert trio.current_time() - start == pytest.approx(REQUEST_DEADLINE)
        assert kad.table.peers() == [live.peer_id]


async def test_a_look_up_can_be_cancelled_at_any_time(autojump_clock):
    async with open_memory_hosts(2) as [one, silent], open_kad(one, server=False) as kad:
        silent.handle(PROTOCOL, SilentServer())
        await connect(one, silent)
        await settle()
        with trio.move_on_after(3) as scope:
            await kad.find_closest(b"key")
        assert scope.cancelled_caught
        assert silent.peer_id in kad.table


async def test_a_look_up_cancelled_at_any_step_leaves_no_stream_behind(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one) as kad, open_kad(other):
        await connect(one, other)
        await trio.sleep(60)
        muxed = one._swarm.connections[other.peer_id].muxed
        ended = False
        for steps in itertools.count():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kad.find_closest, b"key")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                ended = not nursery.child_tasks
                nursery.cancel_scope.cancel()
            await settle()
            assert muxed.num_streams == 0
            if ended:
                break
        assert steps > 5
        assert await kad.find_closest(b"key") == [other.peer_id]


async def test_what_strangers_say_does_not_replace_what_a_connected_peer_said(autojump_clock):
    async with open_memory_hosts(3) as [one, liar, victim], open_kad(one) as kad, open_kad(victim):
        lies = (parse_address("/memory/666"),)
        reply = FindNode(closer=(PeerEntry(peer=victim.peer_id, addresses=lies),))
        liar.handle(PROTOCOL, Server(reply=reply))
        await connect(one, liar)
        await connect(one, victim)
        await settle()
        await kad.find_closest(b"key")
        assert one.peerstore.addresses(victim.peer_id) == victim.addresses()


async def test_a_dead_member_of_a_full_bucket_makes_room_for_a_newcomer(autojump_clock):
    async with open_memory_hosts(2) as [one, newcomer], open_kad(one) as kad, open_kad(newcomer):
        dead = fill_bucket(one, kad, newcomer.peer_id, K)
        await connect(one, newcomer)
        await settle()
        assert newcomer.peer_id in kad.table
        assert kad.table.peers() == [*dead[1:], newcomer.peer_id]


async def test_a_silent_member_of_a_full_bucket_makes_room_after_the_deadline(autojump_clock):
    async with open_memory_hosts(6) as hosts:
        one, silent, newcomer = three_with_a_bucket(hosts)
        async with open_kad(one) as kad, open_kad(newcomer):
            silent.handle(PROTOCOL, SilentServer())
            kad.table.handle_seen(silent.peer_id)
            one.peerstore.add_addresses(silent.peer_id, silent.addresses(), 60)
            fill_bucket(one, kad, newcomer.peer_id, K - 1)
            await connect(one, newcomer)
            await settle()
            assert newcomer.peer_id not in kad.table
            await trio.sleep(REQUEST_DEADLINE)
            assert newcomer.peer_id in kad.table
            assert silent.peer_id not in kad.table


@pytest.mark.parametrize("connected", [True, False])
async def test_a_live_member_of_a_full_bucket_stays_and_moves_to_its_end(autojump_clock, connected):
    async with open_memory_hosts(6) as hosts:
        one, old, newcomer = three_with_a_bucket(hosts)
        async with open_kad(one) as kad, open_kad(old), open_kad(newcomer):
            await connect(one, old)
            await settle()
            if not connected:
                await one._swarm.connections[old.peer_id].muxed.aclose()
                await settle()
            fill_bucket(one, kad, newcomer.peer_id, K - 1)
            await connect(one, newcomer)
            await settle()
            assert newcomer.peer_id not in kad.table
            assert kad.table.peers()[-1] == old.peer_id


async def test_a_member_waits_for_one_probe_and_few_members_wait(autojump_clock, monkeypatch):
    monkeypatch.setattr("p2p.kad.driver.PROBE_QUEUE", 2)
    async with open_memory_hosts(1) as [one], open_kad(one, server=False) as kad:
        oldest = []
        for bucket in range(3):
            in_bucket = [
                other for other in map(peer, range(9000)) if prefix_between(one.peer_id, other) == bucket
            ]
            oldest.append(fill_bucket(one, kad, in_bucket[0], K)[0])
            for newcomer in in_bucket[K : K + 5]:
                one.peerstore.set_protocols(newcomer, [PROTOCOL])
                kad._note(newcomer)
        assert list(kad._probing) == oldest[:2]
        await settle()
        assert kad._probing == {}
        assert [one in kad.table for one in oldest] == [False, False, True]


def three_with_a_bucket(hosts):
    """A host, and two others that are in the same bucket of its table."""
    one, *others = hosts
    far = [other for other in others if prefix_between(one.peer_id, other.peer_id) == 0]
    near = [other for other in others if prefix_between(one.peer_id, other.peer_id) == 1]
    return one, *(far if len(far) > 1 else near)[:2]


def prefix_between(one, other):
    return common_prefix_length(position(one.raw), position(other.raw))


def fill_bucket(host, kad, newcomer, count):
    """Puts `count` peers that nobody can reach into the bucket that `newcomer` belongs to."""
    bucket = prefix_between(host.peer_id, newcomer)
    same = (one for one in map(peer, range(5000)) if prefix_between(host.peer_id, one) == bucket)
    members = [next(same) for _ in range(count)]
    for member in members:
        kad.table.handle_seen(member)
    return members


# Refreshing


async def test_the_first_peer_brings_a_refresh_soon_and_then_every_ten_minutes(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False):
        server = Server()
        other.handle(PROTOCOL, server)
        await trio.sleep(100)
        await connect(one, other)
        await trio.sleep(SETTLE + 0.1)
        assert server.requests == 1
        await trio.sleep(REFRESH_INTERVAL - 1)
        assert server.requests == 1
        await trio.sleep(1)
        assert server.requests == 2


async def test_a_table_that_was_empty_again_is_refreshed_soon(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        server = Server()
        other.handle(PROTOCOL, server)
        await connect(one, other)
        await trio.sleep(SETTLE + 0.1)
        kad._drop(other.peer_id)
        kad._note(other.peer_id)
        await trio.sleep(SETTLE + 0.1)
        assert server.requests == 2


async def test_refreshes_at_the_same_time_are_one(autojump_clock):
    async with open_memory_hosts(3) as [one, other, third], open_kad(one, server=False) as kad:
        entry = PeerEntry(peer=third.peer_id, addresses=tuple(third.addresses()))
        server = Server(reply=FindNode(closer=(entry,)))
        other.handle(PROTOCOL, server)
        await connect(one, other)
        await settle()
        heard = []

        async def refresh():
            heard.append(await kad.refresh())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refresh)
            nursery.start_soon(refresh)
        assert heard == [[third.peer_id], [third.peer_id]]
        assert server.requests == 1


async def test_who_waits_for_a_refresh_that_is_cancelled_goes_on(autojump_clock):
    async with open_memory_hosts(2) as [one, silent], open_kad(one, server=False) as kad:
        silent.handle(PROTOCOL, SilentServer())
        await connect(one, silent)
        await settle()
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(2):
                nursery.start_soon(kad.refresh)
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        with trio.fail_after(REQUEST_DEADLINE + 1):
            assert await kad.refresh() == []


async def test_a_refresh_of_a_larger_network_looks_into_the_far_buckets(autojump_clock):
    async with AsyncExitStack() as stack:
        hosts = await stack.enter_async_context(open_memory_hosts(30))
        for host in hosts[1:]:
            await stack.enter_async_context(open_kad(host))
        hub = hosts[1]
        for host in hosts[2:]:
            await connect(hub, host)
        await settle()
        kad = await stack.enter_async_context(open_kad(hosts[0]))
        await connect(hosts[0], hub)
        await settle()
        heard = await kad.refresh()
        assert len(heard) > K + 2
        assert len(kad.table) > K + 2


async def test_closing_ends_everything_while_a_look_up_runs(autojump_clock):
    async with open_memory_hosts(2) as [one, silent]:
        silent.handle(PROTOCOL, SilentServer())
        await connect(one, silent)
        with trio.fail_after(5):
            async with open_kad(one, server=False):
                await trio.sleep(SETTLE + 1)


async def test_a_connection_that_ends_in_a_request_fails_it(autojump_clock):
    async with open_memory_hosts(2) as [one, silent], open_kad(one, server=False) as kad:
        silent.handle(PROTOCOL, SilentServer())
        await connect(one, silent)
        await settle()
        async with trio.open_nursery() as nursery:

            async def cut():
                await trio.sleep(1)
                await silent._swarm.connections[one.peer_id].muxed.aclose()

            nursery.start_soon(cut)
            with pytest.raises(ConnectionLost):
                await kad._client._exchange(silent.peer_id, FindNode(key=b"key"))
