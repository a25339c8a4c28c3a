"""Certificates by range: between two hosts on an in-memory network, and with servers that misbehave."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from federated.errors import StorageError
from federated.history import (
    _SERVERS,
    DEADLINE,
    MAX_CERTIFICATE,
    MAX_COUNT,
    MAX_STREAMS,
    MAX_STREAMS_PER_PEER,
    PROTOCOL,
    decode_request,
    encode_request,
    fetch_history,
    serve_history,
)
from federated.rounds.messages import Block, Certificate, Hello, Model
from federated.rounds.wire import encode_entry
from p2p.errors import (
    ConnectionLost,
    DialFailed,
    LocalProtocolError,
    MessageTooLarge,
    NegotiationFailed,
    P2PError,
    RemoteProtocolError,
    StreamReset,
)
from p2p.framing import DelimitedReader, encode_delimited
from p2p.peer_id import PeerId
from tests.support import connect, key_number, open_memory_hosts

TASK, OTHER = sha256(b"task").digest(), sha256(b"other").digest()
ROUNDS = 150


def certificate(number: int, task: bytes = TASK) -> Certificate:
    """The certificate of round `number`, of the size that 43 votes give it."""
    digest = sha256(b"%d" % number).digest()
    block = Block(
        task=task,
        parent=digest,
        round=number,
        base=digest,
        inputs=digest,
        participants=1,
        examples=1,
        model=Model(digest=digest, root=digest, size=1),
    )
    return Certificate(view=1, block=block, votes=tuple((voter, bytes(64)) for voter in range(43)))


CHAIN = tuple(certificate(number) for number in range(1, ROUNDS + 1))
ENCODED = [encode_entry(TASK, item) for item in CHAIN]


async def read(task, first, count):
    """The chain, whichever task is asked for."""
    return ENCODED[first - 1 : first - 1 + count]


@asynccontextmanager
async def open_pair():
    """(who asks, who is asked), connected."""
    async with open_memory_hosts(2) as (one, other):
        await connect(one, other)
        yield one, other


@asynccontextmanager
async def open_liar(answer):
    """(who asks, the id of a server that does what `answer(stream)` does after the request)."""

    async def serve(stream):
        await DelimitedReader(stream, 64).receive()
        await answer(stream)

    async with open_memory_hosts(2) as (one, other):
        other.handle(PROTOCOL, serve)
        await connect(one, other)
        yield one, other.peer_id


def send(*messages):
    """A server that sends these messages and is done."""

    async def answer(stream):
        for message in messages:
            await stream.send_all(encode_delimited(message))

    return answer


# The request


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**64 - 1), st.integers(1, MAX_COUNT))
def test_a_request_survives_the_wire(task, first, count):
    data = encode_request(task, first, count)
    assert len(data) == 41
    assert decode_request(data) == (task, first, count)


@given(st.binary(max_size=60) | st.binary(min_size=41, max_size=41))
def test_whatever_comes_is_a_request_or_a_protocol_error(data):
    with suppress(RemoteProtocolError):
        assert encode_request(*decode_request(data)) == data


@pytest.mark.parametrize(
    ("task", "first", "count"),
    [(TASK[1:], 1, 1), (TASK, 0, 1), (TASK, 1 << 64, 1), (TASK, 1, 0), (TASK, 1, MAX_COUNT + 1)],
)
async def test_a_range_that_cannot_be_is_refused_here_already(autojump_clock, task, first, count):
    async with open_memory_hosts(1) as (host,):
        with pytest.raises(LocalProtocolError):
            await fetch_history(host, host.peer_id, task, first, count)


# Between two hosts


@pytest.mark.parametrize(
    ("first", "count", "found"),
    [(1, 1, CHAIN[:1]), (10, MAX_COUNT, CHAIN[9:73]), (140, 20, CHAIN[139:]), (ROUNDS + 1, 5, ())],
)
async def test_certificates_come_by_range_as_far_as_there_are_any(autojump_clock, first, count, found):
    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            assert await fetch_history(one, other.peer_id, TASK, first, count) == found
            assert one.connection(other.peer_id).muxed.num_streams == 0


async def test_a_chain_is_fetched_over_a_window_of_many_answers(autojump_clock):
    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            chain = []
            while found := await fetch_history(one, other.peer_id, TASK, len(chain) + 1, MAX_COUNT):
                chain += found
            assert tuple(chain) == CHAIN


async def test_of_a_task_that_is_not_known_there_are_none(autojump_clock):
    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            assert await fetch_history(one, other.peer_id, OTHER, 1, 5) == ()


async def test_several_tasks_of_a_host_share_a_handler(autojump_clock):
    others = [encode_entry(OTHER, certificate(number, OTHER)) for number in (1, 2)]

    async def read_other(task, first, count):
        assert task == OTHER
        return others[first - 1 :]

    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            with serve_history(other, OTHER, read_other):
                assert await fetch_history(one, other.peer_id, TASK, 1, 1) == CHAIN[:1]
                assert len(await fetch_history(one, other.peer_id, OTHER, 1, 9)) == 2
                with (
                    pytest.raises(LocalProtocolError, match="served already"),
                    serve_history(other, TASK, read),
                ):
                    pass
            assert await fetch_history(one, other.peer_id, OTHER, 1, 9) == ()
            assert await fetch_history(one, other.peer_id, TASK, 2, 1) == CHAIN[1:2]
        with pytest.raises(NegotiationFailed):
            await fetch_history(one, other.peer_id, TASK, 1, 1)
        with serve_history(other, TASK, read):
            assert await fetch_history(one, other.peer_id, TASK, 1, 1) == CHAIN[:1]


async def test_two_hosts_of_a_process_serve_each_their_own(autojump_clock):
    async def nothing(task, first, count):
        return []

    async with open_pair() as (one, other):
        with serve_history(one, TASK, nothing), serve_history(other, TASK, read):
            assert await fetch_history(other, one.peer_id, TASK, 1, 1) == ()
            assert await fetch_history(one, other.peer_id, TASK, 1, 1) == CHAIN[:1]


async def test_a_source_that_returns_too_many_is_cut(autojump_clock):
    async def generous(task, first, count):
        return ENCODED

    async with open_pair() as (one, other):
        with serve_history(other, TASK, generous):
            assert await fetch_history(one, other.peer_id, TASK, 1, 3) == CHAIN[:3]
            stream = await one.open_stream(other.peer_id, [PROTOCOL])
            await stream.send_all(encode_delimited(encode_request(TASK, 1, 3)))
            reader = DelimitedReader(stream, MAX_CERTIFICATE)
            assert [await reader.receive() for _ in range(4)] == [*ENCODED[:3], None]


async def test_a_disk_that_fails_resets_the_stream_and_the_next_fetch_goes_on(autojump_clock):
    failures = [StorageError("no disk")]

    async def failing(task, first, count):
        if failures:
            raise failures.pop()
        return ENCODED[:1]

    async with open_pair() as (one, other):
        with serve_history(other, TASK, failing):
            with pytest.raises(StreamReset):
                await fetch_history(one, other.peer_id, TASK, 1, 1)
            assert await fetch_history(one, other.peer_id, TASK, 1, 1) == CHAIN[:1]


async def test_a_peer_that_nobody_knows_is_a_typed_error(autojump_clock):
    async with open_memory_hosts(1) as (host,):
        with pytest.raises(DialFailed):
            await fetch_history(host, PeerId.from_public_key(key_number(9).public), TASK, 1, 1)


async def test_a_fetch_can_be_cancelled_at_any_step(autojump_clock):
    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            muxed = one.connection(other.peer_id).muxed
            for steps in range(1000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fetch_history, one, other.peer_id, TASK, 1, MAX_COUNT)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    ended = not nursery.child_tasks
                    nursery.cancel_scope.cancel()
                await trio.sleep(0.01)
                assert muxed.num_streams == 0
                if ended:
                    break
            assert 3 < steps < 999


# Servers that misbehave


@pytest.mark.parametrize(
    "messages",
    [
        [b""],
        [b"\x80"],
        [ENCODED[0], ENCODED[0]],
        [ENCODED[1]],
        [ENCODED[0], ENCODED[2]],
        [encode_entry(OTHER, certificate(1, OTHER))],
        [encode_entry(TASK, Hello(round=1, base=bytes(32)))],
        [ENCODED[0], ENCODED[1][:-1]],
    ],
    ids=["empty", "no map", "again", "wrong round", "gap", "other task", "no certificate", "cut"],
)
async def test_a_liar_is_found_out(autojump_clock, messages):
    async with open_liar(send(*messages)) as (one, liar):
        with pytest.raises(RemoteProtocolError, match="history"):
            await fetch_history(one, liar, TASK, 1, 5)
        assert one.is_connected(liar)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=50) | st.sampled_from(ENCODED[:4]), max_size=5), st.integers(1, 4))
def test_whatever_a_server_sends_is_a_history_or_a_typed_error(messages, count):
    async def attempt():
        async with open_liar(send(*messages)) as (one, liar):
            with suppress(P2PError):
                found = await fetch_history(one, liar, TASK, 1, count)
                assert found == CHAIN[: len(found)]
                assert len(found) == min(count, len(messages))

    trio.run(attempt, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_an_oversized_certificate_is_refused_at_its_length(autojump_clock):
    async def answer(stream):
        await stream.send_all(b"\xff\xff\xff\x7f")
        await trio.sleep_forever()

    async with open_liar(answer) as (one, liar):
        start = trio.current_time()
        with pytest.raises(MessageTooLarge):
            await fetch_history(one, liar, TASK, 1, 5)
        assert trio.current_time() - start < 1


@pytest.mark.parametrize("beginning", [b"", encode_delimited(ENCODED[0]), b"\x90"])
async def test_a_silent_server_costs_one_deadline(autojump_clock, beginning):
    async def answer(stream):
        await stream.send_all(beginning)
        await trio.sleep_forever()

    async with open_liar(answer) as (one, liar):
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="within 20 s"):
            await fetch_history(one, liar, TASK, 1, 5)
        assert trio.current_time() - start == pytest.approx(DEADLINE)
        assert one.connection(liar).muxed.num_streams == 0


async def test_a_server_that_sends_byte_by_byte_costs_one_deadline(autojump_clock):
    async def answer(stream):
        for byte in encode_delimited(ENCODED[0]):
            await stream.send_all(bytes([byte]))
            await trio.sleep(1)

    async with open_liar(answer) as (one, liar):
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="within 20 s"):
            await fetch_history(one, liar, TASK, 1, 5)
        assert trio.current_time() - start == pytest.approx(DEADLINE)


async def test_an_endless_server_is_left_after_what_was_asked_for(autojump_clock):
    ended = trio.Event()

    async def answer(stream):
        try:
            while True:
                for message in ENCODED:
                    await stream.send_all(encode_delimited(message))
        except StreamReset:
            ended.set()

    async with open_liar(answer) as (one, liar):
        start = trio.current_time()
        assert await fetch_history(one, liar, TASK, 1, 2) == CHAIN[:2]
        await ended.wait()
        assert trio.current_time() - start < 1
        assert one.connection(liar).muxed.num_streams == 0
        assert one.is_connected(liar)


@pytest.mark.parametrize("ending", ["within", "reset"])
async def test_an_answer_that_breaks_off_is_a_lost_connection(autojump_clock, ending):
    async def answer(stream):
        await stream.send_all(encode_delimited(ENCODED[0]) + encode_delimited(ENCODED[1])[:50])
        if ending == "reset":
            stream.reset()

    async with open_liar(answer) as (one, liar):
        with pytest.raises(ConnectionLost):
            await fetch_history(one, liar, TASK, 1, 5)


# Clients that misbehave


@pytest.mark.parametrize("request_", [b"", bytes(40), bytes(41), bytes(42), bytes(1000)])
async def test_a_request_that_is_none_is_reset(autojump_clock, request_):
    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            stream = await one.open_stream(other.peer_id, [PROTOCOL])
            await stream.send_all(encode_delimited(request_))
            with pytest.raises(StreamReset):
                await stream.receive_some()
            assert await fetch_history(one, other.peer_id, TASK, 1, 1) == CHAIN[:1]


async def test_who_asks_nothing_is_answered_nothing(autojump_clock):
    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            stream = await one.open_stream(other.peer_id, [PROTOCOL])
            await stream.send_eof()
            assert await stream.receive_some() == b""


async def test_a_client_that_does_not_ask_or_read_is_served_for_one_deadline(autojump_clock):
    async with open_pair() as (one, other):
        with serve_history(other, TASK, read):
            start = trio.current_time()
            silent = await one.open_stream(other.peer_id, [PROTOCOL])
            with pytest.raises(StreamReset):
                await silent.receive_some()
            assert trio.current_time() - start == pytest.approx(DEADLINE, abs=0.1)


async def test_one_peer_has_a_bounded_number_of_streams_and_others_are_served(autojump_clock):
    assert MAX_STREAMS_PER_PEER * 2 <= MAX_STREAMS
    async with open_memory_hosts(3) as (one, server, another):
        await connect(one, server)
        await connect(another, server)
        with serve_history(server, TASK, read):
            for _ in range(MAX_STREAMS_PER_PEER):
                await one.open_stream(server.peer_id, [PROTOCOL])
            await wait_all_tasks_blocked()
            with pytest.raises(StreamReset):
                await fetch_history(one, server.peer_id, TASK, 1, 1)
            assert await fetch_history(another, server.peer_id, TASK, 1, 1) == CHAIN[:1]


async def test_a_host_that_is_gone_leaves_nothing_behind(autojump_clock):
    async with open_memory_hosts(1) as (host,):
        with serve_history(host, TASK, read):
            assert host in _SERVERS
        assert host not in _SERVERS
    gc.collect()
    assert len(_SERVERS) == 0
