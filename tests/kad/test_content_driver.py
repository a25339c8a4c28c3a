"""Providers through the driver, over hosts on an in-memory network."""

import itertools
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

import pytest
import trio

from p2p.address import parse_address
from p2p.errors import LocalProtocolError
from p2p.framing import DelimitedReader, encode_delimited
from p2p.kad import PROTOCOL, open_kad, provider_key
from p2p.kad.content import MAX_DUE, MAX_SOUGHT, REPROVIDE
from p2p.kad.driver import RECORDS_INTERVAL, REFRESH_INTERVAL
from p2p.kad.providers import MAX_AGE
from p2p.kad.query import REQUEST_DEADLINE
from p2p.kad.responder import Reply, answer
from p2p.kad.wire import (
    MAX_MESSAGE,
    MAX_PROVIDER_KEY,
    AddProvider,
    FindNode,
    GetProviders,
    PeerEntry,
    decode,
    encode,
)
from tests.kad.peers import entry
from tests.support import connect, open_memory_hosts

KEY = provider_key(bytes(32))


@asynccontextmanager
async def open_network(count, **options):
    """(hosts, kads); everybody knows everybody."""
    async with AsyncExitStack() as stack:
        hosts = await stack.enter_async_context(open_memory_hosts(count))
        kads = [await stack.enter_async_context(open_kad(host, **options)) for host in hosts]
        for one, other in itertools.combinations(hosts, 2):
            await connect(one, other)
        await trio.sleep(0.01)
        yield hosts, kads


async def found(kad, key=KEY, limit=20):
    """All that a search finds."""
    async with kad.find_providers(key, limit) as providers:
        return [peer async for peer in providers]


def holders(kads, key=KEY):
    """Whom each names as a provider."""
    return [kad.providers.providers(key, trio.current_time()) for kad in kads]


class Server:
    """A member of the DHT that reads announcements, and answers the rest by what `reply` makes of it."""

    def __init__(self, reply=lambda request: request):
        self.reply = reply
        self.requests = []

    async def __call__(self, stream):
        reader = DelimitedReader(stream, MAX_MESSAGE)
        while (data := await reader.receive()) is not None:
            self.requests.append(decode(data))
            if isinstance(self.requests[-1], AddProvider):
                continue
            reply = self.reply(self.requests[-1])
            if reply is None:
                await trio.sleep_forever()
            await stream.send_all(encode_delimited(encode(reply)))

    def count(self, kind=AddProvider):
        return sum(isinstance(request, kind) for request in self.requests)


def silent_about_providers(request):
    return None if isinstance(request, GetProviders) else request


@asynccontextmanager
async def open_pair(reply=lambda request: request):
    """(a host, its Kad that serves nobody, the other host, the server that it is)."""
    server = Server(reply)
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        other.handle(PROTOCOL, server)
        await connect(one, other)
        await trio.sleep(0.01)
        yield one, kad, other, server


async def test_content_is_provided_and_its_providers_are_found(autojump_clock):
    async with open_network(5) as (hosts, kads):
        assert await found(kads[4]) == []
        assert await kads[0].provide(KEY) == 4
        assert holders(kads) == [[hosts[0].peer_id]] * 5
        assert await found(kads[4]) == [hosts[0].peer_id]
        assert await found(kads[0]) == []
        assert await kads[1].provide(KEY) == 4
        assert set(await found(kads[4])) == {hosts[0].peer_id, hosts[1].peer_id}
        assert len(await found(kads[4], limit=1)) == 1


async def test_a_provider_is_reached_by_who_did_not_know_it(autojump_clock):
    async with (
        open_memory_hosts(3) as [provider, middle, reader],
        open_kad(provider) as one,
        open_kad(middle),
        open_kad(reader, server=False) as other,
    ):
        await connect(provider, middle)
        await trio.sleep(0.01)
        assert await one.provide(KEY) == 1
        await connect(reader, middle)
        await trio.sleep(0.01)
        reader.peerstore.replace_addresses(provider.peer_id, [], 1.0)
        async with other.find_providers(KEY) as providers:
            async for peer in providers:
                assert peer == provider.peer_id
                assert await reader.ping(peer) >= 0


async def test_results_come_before_the_search_is_over(autojump_clock):
    async with open_memory_hosts(3) as [one, holder, silent], open_kad(one) as kad, open_kad(holder) as other:
        silent.handle(PROTOCOL, Server(lambda request: None))
        await connect(one, holder)
        await connect(one, silent)
        await trio.sleep(0.01)
        other.providers.provide(KEY)
        start = trio.current_time()
        async with kad.find_providers(KEY) as providers:
            assert await providers.receive() == holder.peer_id
            assert trio.current_time() - start < 1
            with pytest.raises(trio.EndOfChannel):
                await providers.receive()
            assert trio.current_time() - start == pytest.approx(REQUEST_DEADLINE, abs=0.1)


async def test_a_search_ends_with_its_body_and_leaves_nothing_behind(autojump_clock):
    async with open_pair(silent_about_providers) as (one, kad, other, server):
        await trio.sleep(5)
        muxed = one._swarm.connections[other.peer_id].muxed
        for error in (None, KeyError):
            with nullcontext() if error is None else pytest.raises(error):
                async with kad.find_providers(KEY):
                    await trio.sleep(1)
                    assert muxed.num_streams == 1
                    if error is not None:
                        raise error
            await trio.sleep(0.01)
            assert muxed.num_streams == 0
        assert server.count(GetProviders) == 2


async def test_who_wants_no_more_results_may_close_the_channel(autojump_clock):
    async with open_network(2) as (_, kads):
        await kads[0].provide(KEY)
        async with kads[1].find_providers(KEY) as providers:
            providers.close()
            await trio.sleep(1)


async def test_a_search_has_a_deadline(autojump_clock, monkeypatch):
    monkeypatch.setattr("p2p.kad.content.SEARCH_DEADLINE", 5.0)
    async with open_pair(silent_about_providers) as (_, kad, _, _):
        start = trio.current_time()
        assert await found(kad) == []
        assert trio.current_time() - start == pytest.approx(5.0)


async def test_a_provider_of_unknown_address_is_looked_up(autojump_clock):
    """Holders forget addresses after 30 minutes and providers after two days."""
    async with (
        open_memory_hosts(3) as [provider, middle, reader],
        open_kad(provider) as one,
        open_kad(middle) as kad,
        open_kad(reader, server=False) as other,
    ):
        await connect(provider, middle)
        await connect(reader, middle)
        await trio.sleep(0.01)
        assert await one.provide(KEY) == 1
        named = []

        def forgetful(request, requester, table, known, shelf):
            said = answer(request, requester, table, known, shelf)
            if isinstance(request, GetProviders):
                bare = tuple(PeerEntry(peer=e.peer, addresses=()) for e in said.message.providers)
                named.extend(e.peer for e in bare)
                return Reply(message=GetProviders(key=KEY, providers=(*bare, entry(77, addresses=0))))
            return said

        kad._answer = forgetful
        assert await found(other) == [provider.peer_id]
        assert provider.peer_id in named
        assert other._addresses(provider.peer_id)


async def test_a_liar_in_front_does_not_keep_the_provider_from_us(autojump_clock):
    def lie(request):
        if isinstance(request, GetProviders):
            return GetProviders(key=KEY, providers=tuple(entry(number) for number in range(40)))
        return request

    async with open_memory_hosts(3) as [one, liar, holder], open_kad(one) as kad, open_kad(holder) as other:
        liar.handle(PROTOCOL, Server(lie))
        await connect(one, liar)
        await connect(one, holder)
        await trio.sleep(0.01)
        other.providers.provide(KEY)
        results = await found(kad, limit=8)
        assert holder.peer_id in results[:3]
        assert len(results) == 8


async def test_a_key_or_a_limit_that_cannot_be_is_refused_here_already(autojump_clock):
    async with open_network(1) as (_, [kad]):
        for key in (b"", bytes(MAX_PROVIDER_KEY + 1)):
            with pytest.raises(LocalProtocolError, match="multihash"):
                await kad.provide(key)
            with pytest.raises(LocalProtocolError, match="multihash"):
                await found(kad, key)
        for limit in (0, MAX_SOUGHT + 1):
            with pytest.raises(LocalProtocolError, match="1 to 100"):
                await found(kad, limit=limit)


async def test_keys_to_provide_are_limited(autojump_clock, monkeypatch):
    monkeypatch.setattr("p2p.kad.content.MAX_PROVIDED", 1)
    async with open_network(1) as (_, [kad]):
        assert await kad.provide(KEY) == 0
        assert await kad.provide(KEY) == 0
        with pytest.raises(LocalProtocolError, match="more than 1 keys"):
            await kad.provide(b"other")
        kad.stop_providing(KEY)
        kad.stop_providing(KEY)
        assert await kad.provide(b"other") == 0


async def test_a_provider_that_listens_nowhere_is_announced_once_it_does(autojump_clock):
    async with open_pair() as (one, kad, _, server):
        listening = one.addresses
        one.addresses = list
        assert await kad.provide(KEY) == 0
        await trio.sleep(REFRESH_INTERVAL + 5)
        assert server.count() == 0
        one.addresses = listening
        await trio.sleep(REFRESH_INTERVAL)
        assert server.count() == 1


async def test_what_was_provided_alone_is_announced_to_the_first_peer(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one) as kad, open_kad(other) as server:
        assert await kad.provide(KEY) == 0
        await trio.sleep(5)
        await connect(one, other)
        await trio.sleep(5)
        assert holders([server]) == [[one.peer_id]]


async def test_a_peer_that_does_not_end_the_stream_is_not_reached_and_costs_one_deadline(autojump_clock):
    async with open_memory_hosts(3) as [one, live, silent], open_kad(one) as kad, open_kad(live):

        async def hold(stream):
            reader = DelimitedReader(stream, MAX_MESSAGE)
            request = decode(await reader.receive())
            if isinstance(request, AddProvider):
                await trio.sleep_forever()
            await stream.send_all(encode_delimited(encode(request)))

        silent.handle(PROTOCOL, hold)
        await connect(one, live)
        await connect(one, silent)
        await trio.sleep(0.01)
        start = trio.current_time()
        assert await kad.provide(KEY) == 1
        assert trio.current_time() - start == pytest.approx(REQUEST_DEADLINE)
        assert silent.peer_id not in kad.table


@pytest.mark.parametrize("ending", ["echo", "reset"])
async def test_a_peer_that_answers_an_announcement_or_resets_the_stream_was_reached(autojump_clock, ending):
    """As py-libp2p and js-libp2p do."""
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:

        async def serve(stream):
            reader = DelimitedReader(stream, MAX_MESSAGE)
            while (data := await reader.receive()) is not None:
                if isinstance(decode(data), AddProvider) and ending == "reset":
                    stream.reset()
                    return
                await stream.send_all(encode_delimited(data))

        other.handle(PROTOCOL, serve)
        await connect(one, other)
        await trio.sleep(0.01)
        assert await kad.provide(KEY) == 1
        assert other.peer_id in kad.table


async def test_an_announcement_has_no_reply_and_is_not_taken_in_anothers_name(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(other) as server:
        await connect(one, other)
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        own = PeerEntry(peer=one.peer_id, addresses=tuple(one.addresses()))
        for key, entries in ((KEY, (entry(3),)), (b"a", (own, entry(3))), (b"b", ())):
            await stream.send_all(encode_delimited(encode(AddProvider(key=key, providers=entries))))
        await stream.send_all(encode_delimited(encode(FindNode(key=b"x"))))
        await stream.send_eof()
        reader = DelimitedReader(stream, MAX_MESSAGE)
        assert isinstance(decode(await reader.receive()), FindNode)
        assert await reader.receive() is None
        assert [holders([server], key) for key in (KEY, b"a", b"b")] == [[[]], [[one.peer_id]], [[]]]


async def test_a_provision_can_be_cancelled_at_any_step(autojump_clock):
    async with open_network(2) as (hosts, kads):
        await trio.sleep(60)
        muxed = hosts[0]._swarm.connections[hosts[1].peer_id].muxed
        for steps in itertools.count():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kads[0].provide, KEY)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                ended = not nursery.child_tasks
                nursery.cancel_scope.cancel()
            await trio.sleep(0.01)
            assert muxed.num_streams == 0
            if ended:
                break
        assert steps > 5
        assert holders(kads) == [[hosts[0].peer_id]] * 2


@pytest.fixture
def hours(monkeypatch):
    """The seconds of an hour, of which the days of a record have fewer here: to idle for days is slow."""
    shorter = 36
    monkeypatch.setattr("p2p.kad.providers.MAX_AGE", MAX_AGE / shorter)
    monkeypatch.setattr("p2p.kad.content.REPROVIDE", REPROVIDE / shorter)
    monkeypatch.setattr("p2p.kad.driver.RECORDS_INTERVAL", RECORDS_INTERVAL / shorter)
    monkeypatch.setattr("p2p.kad.driver.REFRESH_INTERVAL", REFRESH_INTERVAL / shorter)
    return 3600 / shorter


async def test_content_is_announced_again_after_22_hours_until_it_is_provided_no_more(autojump_clock, hours):
    async with open_pair() as (_, kad, _, server):
        assert await kad.provide(KEY) == 1
        await trio.sleep(21.9 * hours)
        assert server.count() == 1
        await trio.sleep(0.5 * hours)
        assert server.count() == 2
        kad.stop_providing(KEY)
        assert holders([kad]) == [[]]
        await trio.sleep(30 * hours)
        assert server.count() == 2


async def test_content_that_is_given_up_while_it_is_announced_is_not_announced_again(autojump_clock, hours):
    async with open_pair() as (_, kad, _, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kad.provide, KEY)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            assert server.count() == 0
            kad.stop_providing(KEY)
        assert server.count() == 1
        await trio.sleep(50 * hours)
        assert server.count() == 1


async def test_what_is_provided_outlives_two_days_and_what_the_gone_provided_does_not(autojump_clock, hours):
    async with open_memory_hosts(3) as hosts, AsyncExitStack() as stack:
        async with AsyncExitStack() as gone:
            kads = [await stack.enter_async_context(open_kad(host)) for host in hosts[:2]]
            leaving = await gone.enter_async_context(open_kad(hosts[2]))
            for one, other in itertools.combinations(hosts, 2):
                await connect(one, other)
            await trio.sleep(0.01)
            await kads[0].provide(KEY)
            await leaving.provide(b"gone")
            assert holders(kads, b"gone") == [[hosts[2].peer_id]] * 2
        await trio.sleep(50 * hours)
        assert [len(kad.providers) for kad in kads] == [0, 1]
        assert holders(kads) == [[hosts[0].peer_id]] * 2
        assert kads[1].providers.addresses(hosts[2].peer_id, trio.current_time()) == ()


async def test_many_keys_that_are_due_do_not_hold_up_the_refreshes(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        for number in range(MAX_DUE + 10):
            assert await kad.provide(b"%d" % number) == 0
        server = Server()
        other.handle(PROTOCOL, server)
        await connect(one, other)
        await trio.sleep(10)
        assert server.count() == MAX_DUE
        await trio.sleep(REFRESH_INTERVAL)
        assert server.count() == MAX_DUE + 10


async def test_an_address_that_is_listened_on_is_what_is_announced(autojump_clock):
    async with open_pair() as (one, kad, _, server):
        await kad.provide(KEY)
        [announcement] = [request for request in server.requests if isinstance(request, AddProvider)]
        assert announcement == AddProvider(
            key=KEY, providers=(PeerEntry(peer=one.peer_id, addresses=(parse_address("/memory/1"),)),)
        )
