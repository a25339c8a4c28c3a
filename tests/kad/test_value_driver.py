"""Values through the driver, over hosts on an in-memory network."""

import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from p2p.errors import LocalProtocolError, StreamReset
from p2p.framing import DelimitedReader, encode_delimited
from p2p.kad import (
    PROTOCOL,
    InvalidRecord,
    OutdatedRecord,
    RecordNotFound,
    content_key,
    open_kad,
    open_value,
    public_key_key,
    sign_value,
)
from p2p.kad.driver import MAX_STREAMS, RECORDS_INTERVAL
from p2p.kad.query import REQUEST_DEADLINE
from p2p.kad.records import MAX_AGE
from p2p.kad.values import CORRECTIONS, REPUBLISH
from p2p.kad.wire import MAX_MESSAGE, FindNode, GetValue, Ping, PutValue, Record, decode, encode
from tests.support import connect, key_number, open_memory_hosts

VALUE = b"what everybody should know"
KEY = content_key(VALUE)
RECORD = Record(key=KEY, value=VALUE)
WALL = 1_700_000_000.0


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


def held(kads, key=KEY):
    """The value of each, or None."""
    records = [kad.store.get(key, trio.current_time()) for kad in kads]
    return [None if record is None else record.value for record in records]


class Server:
    """Answers every request by what `reply` makes of it; None resets the stream."""

    def __init__(self, reply):
        self.reply = reply
        self.requests = []

    async def __call__(self, stream):
        reader = DelimitedReader(stream, MAX_MESSAGE)
        while (data := await reader.receive()) is not None:
            self.requests.append(decode(data))
            reply = self.reply(self.requests[-1])
            if reply is None:
                stream.reset()
                return
            if reply is Ellipsis:
                await trio.sleep_forever()
            await stream.send_all(encode_delimited(encode(reply)))


async def test_a_value_is_put_and_got(autojump_clock):
    async with open_network(5, wall_clock=lambda: WALL) as (_, kads):
        assert await kads[0].put_value(KEY, VALUE) == 4
        assert held(kads) == [VALUE] * 5
        assert await kads[4].get_value(KEY) == VALUE
        assert kads[4].store.get(KEY, 0.0).received == b"2023-11-14T22:13:20.000000Z"


async def test_a_client_puts_and_gets_and_keeps_nothing_of_others(autojump_clock):
    async with (
        open_memory_hosts(2) as [one, other],
        open_kad(one, server=False) as client,
        open_kad(other) as server,
    ):
        await connect(one, other)
        await trio.sleep(0.01)
        assert await client.put_value(KEY, VALUE) == 1
        assert held([server]) == [VALUE]
        key, record = sign_value(key_number(9), "x", 1, b"v")
        assert await server.put_value(key, record) == 0
        assert await client.get_value(key, quorum=1) == record
        assert held([client], key) == [None]


async def test_public_keys_and_signed_values_travel(autojump_clock):
    async with open_network(3) as (hosts, kads):
        identity = key_number(1)
        assert await kads[0].put_value(public_key_key(hosts[0].peer_id), identity.public.encode()) == 2
        assert await kads[1].get_value(public_key_key(hosts[0].peer_id)) == identity.public.encode()
        for seq in (1, 2):
            key, record = sign_value(identity, "model", seq, b"%d" % seq)
            assert await kads[0].put_value(key, record) == 2
        assert open_value(key, await kads[2].get_value(key)).value == b"2"


async def test_nobody_has_a_value_that_was_not_put(autojump_clock):
    async with open_network(2) as (_, kads):
        with pytest.raises(RecordNotFound, match="nobody has"):
            await kads[0].get_value(KEY)


async def test_a_key_without_rules_and_a_wrong_value_are_refused_here_already(autojump_clock):
    async with open_network(1) as (_, [kad]):
        with pytest.raises(InvalidRecord):
            await kad.get_value(b"/unknown/key")
        with pytest.raises(InvalidRecord):
            await kad.put_value(KEY, b"something else")
        assert len(kad.store) == 0


async def test_an_older_value_than_ours_is_not_put(autojump_clock):
    async with open_network(2) as (_, kads):
        key, old = sign_value(key_number(1), "x", 1, b"old")
        _, new = sign_value(key_number(1), "x", 2, b"new")
        await kads[0].put_value(key, new)
        with pytest.raises(OutdatedRecord):
            await kads[1].put_value(key, old)


async def test_alone_we_hold_our_own_value(autojump_clock):
    async with open_network(1) as (_, [kad]):
        assert await kad.put_value(KEY, VALUE) == 0
        assert await kad.get_value(KEY) == VALUE


async def test_own_values_are_limited(autojump_clock, monkeypatch):
    monkeypatch.setattr("p2p.kad.values.MAX_OWN", 1)
    async with open_network(1) as (_, [kad]):
        await kad.put_value(KEY, VALUE)
        await kad.put_value(KEY, VALUE)
        with pytest.raises(LocalProtocolError, match="more than 1 values"):
            await kad.put_value(content_key(b"x"), b"x")


async def test_what_it_took_is_told(autojump_clock):
    async with open_network(4) as (_, kads):
        placed = await kads[0].place_value(KEY, VALUE)
        assert (len(placed.closest), placed.queries, placed.hops) == (3, 6, 1)
        found = await kads[1].find_value(KEY)
        assert (found.value, found.queries, found.hops) == (VALUE, 3, 0)
        assert (await kads[1].look_up(KEY)).queries == 3
        assert await kads[1].find_value(KEY, quorum=1) is not None


async def test_a_get_corrects_those_that_have_none_or_an_older_value(autojump_clock):
    async with open_network(4) as (_, kads):
        key, old = sign_value(key_number(1), "x", 1, b"old")
        _, new = sign_value(key_number(1), "x", 2, b"new")
        now = trio.current_time()
        kads[0].store.put(Record(key=key, value=old), None, now, WALL)
        kads[1].store.put(Record(key=key, value=old), None, now, WALL)
        kads[2].store.put(Record(key=key, value=new), None, now, WALL)
        assert await kads[0].get_value(key) == new
        await trio.sleep(1)
        assert held(kads, key) == [new] * 4


async def test_a_silent_peer_does_not_hold_up_the_value_of_a_get(autojump_clock):
    """The correction of a peer that does not answer a PUT runs behind."""
    async with open_memory_hosts(3) as [one, holder, silent], open_kad(one) as kad, open_kad(holder) as other:
        server = Server(lambda request: ... if isinstance(request, PutValue) else request)
        silent.handle(PROTOCOL, server)
        await connect(one, holder)
        await connect(one, silent)
        await trio.sleep(0.01)
        other.store.put(RECORD, None, 0.0, WALL)
        start = trio.current_time()
        assert await kad.get_value(KEY) == VALUE
        assert trio.current_time() - start < 1
        await trio.sleep(REQUEST_DEADLINE / 2)
        assert any(isinstance(request, PutValue) for request in server.requests)
        assert silent.peer_id in kad.table
        await trio.sleep(REQUEST_DEADLINE)
        assert silent.peer_id not in kad.table


async def test_waiting_corrections_are_few(autojump_clock):
    async with open_memory_hosts(3) as [one, holder, silent], open_kad(one) as kad, open_kad(holder) as other:
        silent.handle(PROTOCOL, Server(lambda request: ... if isinstance(request, PutValue) else request))
        await connect(one, holder)
        await connect(one, silent)
        await trio.sleep(0.01)
        values = [b"%d" % number for number in range(CORRECTIONS + 10)]
        for value in values:
            other.store.put(Record(key=content_key(value), value=value), None, 0.0, WALL)
            assert await kad.get_value(content_key(value)) == value
        assert kad._values._to_correct.statistics().current_buffer_used == CORRECTIONS


async def test_a_peer_that_refuses_a_value_is_asked_once_and_stays_in_the_table(autojump_clock):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        server = Server(lambda request: FindNode() if isinstance(request, FindNode) else None)
        other.handle(PROTOCOL, server)
        await connect(one, other)
        await trio.sleep(0.01)
        assert await kad.put_value(KEY, VALUE) == 0
        assert [type(request) for request in server.requests] == [FindNode, PutValue]
        assert other.peer_id in kad.table


@pytest.mark.parametrize(
    "echo", [Ping(), PutValue(key=KEY), PutValue(key=KEY, record=Record(key=KEY, value=b"x"))]
)
async def test_a_peer_that_echoes_something_else_did_not_take_the_value(autojump_clock, echo):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        other.handle(PROTOCOL, Server(lambda request: FindNode() if isinstance(request, FindNode) else echo))
        await connect(one, other)
        await trio.sleep(0.01)
        assert await kad.put_value(KEY, VALUE) == 0
        assert other.peer_id not in kad.table


async def test_a_silent_peer_costs_a_put_one_deadline(autojump_clock):
    async with open_memory_hosts(3) as [one, live, silent], open_kad(one) as kad, open_kad(live):
        silent.handle(PROTOCOL, Server(lambda request: FindNode() if isinstance(request, FindNode) else ...))
        await connect(one, live)
        await connect(one, silent)
        await trio.sleep(0.01)
        start = trio.current_time()
        assert await kad.put_value(KEY, VALUE) == 1
        assert trio.current_time() - start == pytest.approx(REQUEST_DEADLINE)


async def test_a_put_can_be_cancelled_at_any_step(autojump_clock):
    async with open_network(2) as (hosts, kads):
        await trio.sleep(60)
        muxed = hosts[0]._swarm.connections[hosts[1].peer_id].muxed
        for steps in itertools.count():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kads[0].put_value, KEY, VALUE)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                ended = not nursery.child_tasks
                nursery.cancel_scope.cancel()
            await trio.sleep(0.01)
            assert muxed.num_streams == 0
            if ended:
                break
        assert steps > 5
        assert held(kads) == [VALUE] * 2


@pytest.fixture
def hours(monkeypatch):
    """The seconds of an hour, of which the days of a value have fewer here: to idle for days is slow."""
    shorter = 36
    monkeypatch.setattr("p2p.kad.records.MAX_AGE", MAX_AGE / shorter)
    monkeypatch.setattr("p2p.kad.values.REPUBLISH", REPUBLISH / shorter)
    monkeypatch.setattr("p2p.kad.driver.RECORDS_INTERVAL", RECORDS_INTERVAL / shorter)
    return 3600 / shorter


async def test_our_values_outlive_two_days_and_those_of_the_gone_do_not(autojump_clock, hours):
    async with open_memory_hosts(3) as hosts, AsyncExitStack() as stack:
        async with AsyncExitStack() as gone:
            kads = [await stack.enter_async_context(open_kad(host)) for host in hosts[:2]]
            leaving = await gone.enter_async_context(open_kad(hosts[2]))
            for one, other in itertools.combinations(hosts, 2):
                await connect(one, other)
            await trio.sleep(0.01)
            await kads[0].put_value(KEY, VALUE)
            await leaving.put_value(content_key(b"x"), b"x")
        await trio.sleep(49 * hours)
        assert held(kads) == [VALUE] * 2
        assert held(kads, content_key(b"x")) == [None] * 2
        assert [len(kad.store) for kad in kads] == [1, 1]


async def test_our_values_are_put_again_after_22_hours_and_not_before(autojump_clock, hours):
    async with open_memory_hosts(2) as [one, other], open_kad(one, server=False) as kad:
        server = Server(lambda request: FindNode() if isinstance(request, FindNode) else request)
        other.handle(PROTOCOL, server)
        await connect(one, other)
        await trio.sleep(0.01)
        assert await kad.put_value(KEY, VALUE) == 1
        await trio.sleep(21.9 * hours)
        assert sum(isinstance(request, PutValue) for request in server.requests) == 1
        await trio.sleep(1.2 * hours)
        assert sum(isinstance(request, PutValue) for request in server.requests) == 2


async def test_a_newer_value_that_came_meanwhile_is_what_we_put_again(autojump_clock, hours):
    async with open_network(2) as (_, kads):
        key, old = sign_value(key_number(1), "x", 1, b"old")
        _, new = sign_value(key_number(1), "x", 2, b"new")
        await kads[0].put_value(key, old)
        await kads[1].put_value(key, new)
        await trio.sleep(150 * hours)
        assert held(kads, key) == [new] * 2


async def test_what_a_server_refuses_resets_the_stream_and_nothing_else(autojump_clock):
    async with open_memory_hosts(2) as [one, server], open_kad(server) as kad:
        await connect(one, server)
        for bad in [
            PutValue(key=b"/v/other", record=RECORD),
            PutValue(key=KEY, record=Record(key=KEY, value=b"poison")),
            PutValue(key=KEY),
        ]:
            stream = await one.open_stream(server.peer_id, [PROTOCOL])
            await stream.send_all(encode_delimited(encode(bad)))
            with pytest.raises(StreamReset):
                await stream.receive_some()
        assert len(kad.store) == 0
        stream = await one.open_stream(server.peer_id, [PROTOCOL])
        reader = DelimitedReader(stream, MAX_MESSAGE)
        for request in (PutValue(key=KEY, record=RECORD), GetValue(key=KEY)):
            await stream.send_all(encode_delimited(encode(request)))
            assert decode(await reader.receive()).record.value == VALUE


async def test_one_peer_has_a_limited_number_of_streams(autojump_clock):
    async with open_memory_hosts(2) as [one, server], open_kad(server):
        await connect(one, server)
        for _ in range(MAX_STREAMS):
            stream = await one.open_stream(server.peer_id, [PROTOCOL])
            await stream.send_all(encode_delimited(encode(Ping())))
            await stream.receive_some()
        stream = await one.open_stream(server.peer_id, [PROTOCOL])
        await stream.send_all(encode_delimited(encode(Ping())))
        with pytest.raises(StreamReset):
            await stream.receive_some()


async def test_a_better_value_that_came_during_a_get_is_not_replaced(autojump_clock):
    async with open_network(1) as (_, [kad]):
        key, old = sign_value(key_number(1), "x", 1, b"old")
        _, new = sign_value(key_number(1), "x", 2, b"new")
        kad.store.put(Record(key=key, value=new), None, 0.0, WALL)
        kad._values.hold(Record(key=key, value=old))
        assert held([kad], key) == [new]
