"""Requests and their answers, between two hosts on an in-memory network."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, MessageTooLarge, NegotiationFailed, StreamReset
from p2p.framing import DelimitedReader, encode_delimited
from p2p.request_response import IDLE_TIMEOUT, MAX_STREAMS, request, responder
from tests.support import connect, open_memory_hosts

PROTOCOL = "/test/upper/1"


async def upper(peer, message):
    return message.upper()


async def ask(one, other, message=b"hello", max_answer=1024):
    return await request(one, other.peer_id, [PROTOCOL], message, max_answer=max_answer)


async def test_an_answer_comes_back_to_who_asked(autojump_clock):
    async with open_memory_hosts(2) as (one, other):
        asked_by = []

        async def answer(peer, message):
            asked_by.append(peer)
            return message.upper()

        other.handle(PROTOCOL, responder(answer, max_request=1024, timeout=5))
        await connect(one, other)
        assert [await ask(one, other), await ask(one, other, b"")] == [b"HELLO", b""]
        assert asked_by == [one.peer_id, one.peer_id]


async def test_one_stream_may_carry_several_requests(autojump_clock):
    async with open_memory_hosts(2) as (one, other):
        other.handle(PROTOCOL, responder(upper, max_request=1024, timeout=5))
        await connect(one, other)
        stream = await one.open_stream(other.peer_id, [PROTOCOL])
        await stream.send_all(encode_delimited(b"a") + encode_delimited(b"b"))
        await stream.send_eof()
        reader = DelimitedReader(stream, 16)
        assert [await reader.receive() for _ in range(3)] == [b"A", b"B", None]


async def test_a_peer_without_the_protocol_is_a_typed_error(autojump_clock):
    async with open_memory_hosts(2) as (one, other):
        await connect(one, other)
        with pytest.raises(NegotiationFailed):
            await ask(one, other)


async def test_a_handler_that_fails_resets_its_stream_and_nothing_else(autojump_clock):
    async with open_memory_hosts(2) as (one, other):

        async def answer(peer, message):
            if message == b"bad":
                raise ValueError("cannot")
            return message

        other.handle(PROTOCOL, responder(answer, max_request=1024, timeout=5))
        await connect(one, other)
        with pytest.raises(StreamReset):
            await ask(one, other, b"bad")
        assert await ask(one, other, b"good") == b"good"


async def test_a_handler_that_takes_too_long_resets_its_stream(autojump_clock):
    async with open_memory_hosts(2) as (one, other):

        async def answer(peer, message):
            await trio.sleep_forever()

        other.handle(PROTOCOL, responder(answer, max_request=1024, timeout=5))
        await connect(one, other)
        start = trio.current_time()
        with pytest.raises(StreamReset):
            await ask(one, other)
        assert trio.current_time() - start == pytest.approx(5, abs=0.1)


async def test_requests_and_answers_over_their_limits_are_refused(autojump_clock):
    async with open_memory_hosts(2) as (one, other):
        other.handle(PROTOCOL, responder(upper, max_request=10, timeout=5))
        await connect(one, other)
        with pytest.raises(StreamReset):
            await ask(one, other, bytes(11))
        with pytest.raises(MessageTooLarge):
            await ask(one, other, bytes(10), max_answer=9)
        assert await ask(one, other, b"still", max_answer=5) == b"STILL"


async def test_a_stream_that_ends_without_an_answer_is_a_lost_connection(autojump_clock):
    async with open_memory_hosts(2) as (one, other):

        async def close_at_once(stream):
            await stream.receive_some()

        other.handle(PROTOCOL, close_at_once)
        await connect(one, other)
        with pytest.raises(ConnectionLost, match="instead of answering"):
            await ask(one, other)


async def test_one_peer_has_a_bounded_number_of_streams_and_idle_ones_end(autojump_clock):
    async with open_memory_hosts(2) as (one, other):
        other.handle(PROTOCOL, responder(upper, max_request=16, timeout=5))
        await connect(one, other)
        start = trio.current_time()
        streams = [await one.open_stream(other.peer_id, [PROTOCOL]) for _ in range(MAX_STREAMS)]
        await wait_all_tasks_blocked()  # they are served before the next one comes
        with pytest.raises(StreamReset):
            await ask(one, other)
        for stream in streams:
            assert await stream.receive_some() == b""
        assert trio.current_time() - start >= IDLE_TIMEOUT
        assert await ask(one, other) == b"HELLO"
