"""Negotiation without waiting: what leaves when, and what a refusal does to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2p.errors import ConnectionLost, LocalProtocolError, NegotiationFailed, RemoteProtocolError, StreamReset
from p2p.multistream import handle, handle_lazily, select, select_lazily
from p2p.multistream.wire import HEADER, encode_line, first_proposal
from p2p.yamux import YamuxStream
from p2p.yamux.wire import ACK, FIN, INITIAL_WINDOW, RST, SYN, StreamErrorCode
from tests.byte_streams import cancel_at_each_await
from tests.yamux.connections import Node, Wire, echo, open_node, open_nodes, read_all
from tests.yamux.frames import DATA, WINDOW_UPDATE, Frame, encode

PROPOSAL = HEADER + encode_line("/p")
NA = encode_line("na")


async def serve_echo(stream: YamuxStream) -> None:
    assert await handle_lazily(stream, {"/p"}) == "/p"
    await echo(stream)


@asynccontextmanager
async def proposed() -> AsyncIterator[tuple[Node, Wire, YamuxStream]]:
    """A node that proposed /p lazily on stream 1, and the wire at its other end."""
    async with open_node(initiator=True) as (node, wire):
        stream = await node.open_stream()
        select_lazily(stream, "/p")
        yield node, wire, stream


@pytest.mark.parametrize("responder", [handle, handle_lazily])
@pytest.mark.parametrize("lazy", [True, False])
async def test_lazy_and_eager_sides_understand_each_other(autojump_clock, responder, lazy):
    async def serve(stream: YamuxStream) -> None:
        assert await responder(stream, ["/q", "/p"]) == "/p"
        await echo(stream)

    async with open_nodes(on_other=serve) as (one, _):
        stream = await one.open_stream()
        if lazy:
            select_lazily(stream, "/p")
            assert stream.protocol == "/p"
        else:
            assert await select(stream, ["/none", "/p"]) == "/p"
        await stream.send_all(b"hello")
        await stream.send_eof()
        assert await read_all(stream) == b"hello"


async def test_header_proposal_and_data_are_one_frame_and_one_write(autojump_clock):
    async with proposed() as (node, wire, stream):
        await stream.send_all(b"request")
        assert await wire.received() == [
            Frame(WINDOW_UPDATE, SYN, 1, 0),
            Frame(DATA, 0, 1, len(PROPOSAL) + 7, PROPOSAL + b"request"),
        ]
        assert len(node.end.writes) == 1


async def test_an_initiator_that_only_reads_sends_its_proposal(autojump_clock):
    async with proposed() as (_, wire, stream), trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        assert (await wire.received())[1].body == PROPOSAL
        await wire.send(encode(DATA, ACK, 1, body=PROPOSAL + b"news"))
        assert not nursery.child_tasks


async def test_an_initiator_that_closes_before_it_reads_sends_its_proposal(autojump_clock):
    async with proposed() as (_, wire, stream):
        await stream.aclose()
        frames = await wire.received()
        assert [(frame.flags, frame.body) for frame in frames] == [(SYN, b""), (0, PROPOSAL), (FIN, b"")]


async def test_an_initiator_that_does_nothing_sends_its_proposal(autojump_clock):
    async with proposed() as (_, wire, _):
        assert (await wire.received())[1].body == PROPOSAL


@pytest.mark.parametrize("cut", range(1, len(PROPOSAL) + 4))
async def test_an_answer_cut_anywhere_is_taken_off_the_data(autojump_clock, cut):
    answer = PROPOSAL + b"data"
    async with proposed() as (_, wire, stream), trio.open_nursery() as nursery:
        received = []

        async def receive() -> None:
            while len(b"".join(received)) < 4:
                received.append(await stream.receive_some())

        nursery.start_soon(receive)
        await wire.send(encode(DATA, ACK, 1, body=answer[:cut]))
        await wire.send(encode(DATA, 0, 1, body=answer[cut:]))
        assert b"".join(received) == b"data"


async def test_a_part_of_the_data_behind_the_answer_can_be_asked_for(autojump_clock):
    async with proposed() as (_, wire, stream):
        await wire.send(encode(DATA, ACK, 1, body=PROPOSAL + b"data"))
        assert await stream.receive_some(1) == b"d"
        assert await stream.receive_some(10) == b"ata"


async def test_the_bytes_of_the_answer_are_granted_again(autojump_clock):
    async with proposed() as (_, wire, stream):
        body = PROPOSAL + bytes(INITIAL_WINDOW - len(PROPOSAL))
        await wire.send(encode(DATA, ACK, 1, body=body))
        size = 0
        while size < INITIAL_WINDOW - len(PROPOSAL):
            size += len(await stream.receive_some())
        granted = [frame.length for frame in await wire.received() if frame.kind == WINDOW_UPDATE]
        assert sum(granted) == INITIAL_WINDOW


async def test_a_refusal_is_a_failed_negotiation_and_resets_the_stream(autojump_clock):
    async with proposed() as (_, wire, stream):
        await stream.send_all(b"request")
        await wire.received()
        await wire.send(encode(DATA, ACK, 1, body=HEADER + NA))
        with pytest.raises(NegotiationFailed, match="/p"):
            await stream.receive_some()
        assert await wire.received() == [Frame(WINDOW_UPDATE, RST, 1, StreamErrorCode.NEGOTIATION_FAILED)]
        for operation in (stream.receive_some(), stream.send_all(b"x")):
            with pytest.raises(StreamReset):
                await operation


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\nnothing here", HEADER + encode_line("/other")])
async def test_a_wrong_answer_is_the_peers_error(autojump_clock, answer):
    async with proposed() as (_, wire, stream):
        await wire.send(encode(DATA, ACK, 1, body=answer))
        with pytest.raises(RemoteProtocolError):
            await stream.receive_some()


@pytest.mark.parametrize("cut", [0, 1, 20, len(PROPOSAL) - 1])
async def test_an_end_before_the_answer_is_a_loss(autojump_clock, cut):
    async with proposed() as (_, wire, stream):
        await wire.send(encode(DATA, ACK | FIN, 1, body=PROPOSAL[:cut]))
        with pytest.raises(ConnectionLost, match="before it answered"):
            await stream.receive_some()


async def test_an_end_behind_the_answer_is_an_end(autojump_clock):
    async with proposed() as (_, wire, stream):
        await wire.send(encode(DATA, ACK | FIN, 1, body=PROPOSAL))
        assert await stream.receive_some() == b""


async def test_a_lazy_proposal_on_a_lost_connection_is_a_loss(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        stream = await node.open_stream()
        await node.connection.aclose()
        with pytest.raises(ConnectionLost):
            select_lazily(stream, "/p")


async def test_first_bytes_over_the_window_are_our_own_mistake(autojump_clock):
    async with open_node(initiator=True) as (node, _):
        stream = await node.open_stream()
        with pytest.raises(LocalProtocolError, match="window"):
            stream.send_soon(bytes(INITIAL_WINDOW + 1))


# --- the responder


async def test_our_answer_leaves_with_the_handlers_first_write(autojump_clock):
    async with open_node(serve_echo) as (_, wire):
        await wire.send(encode(DATA, SYN, 1, body=PROPOSAL + b"request"))
        assert await wire.received() == [
            Frame(WINDOW_UPDATE, ACK, 1, 0),
            Frame(DATA, 0, 1, len(PROPOSAL) + 7, PROPOSAL + b"request"),
        ]


async def test_our_answer_is_not_withheld_while_the_handler_waits(autojump_clock):
    async with open_node(serve_echo) as (_, wire):
        await wire.send(encode(DATA, SYN, 1, body=PROPOSAL))
        assert [frame.body for frame in await wire.received()] == [b"", PROPOSAL]


async def test_our_header_is_not_withheld_while_nothing_was_proposed(autojump_clock):
    async with open_node(serve_echo) as (_, wire):
        await wire.send(encode(WINDOW_UPDATE, SYN, 1))
        assert [frame.body for frame in await wire.received()] == [b"", HEADER]
        await wire.send(encode(DATA, 0, 1, body=PROPOSAL[:25]))
        await wire.send(encode(DATA, 0, 1, body=PROPOSAL[25:] + b"x"))
        assert b"".join(frame.body for frame in await wire.received()) == encode_line("/p") + b"x"


@pytest.mark.parametrize("cut", range(1, len(PROPOSAL) + 1))
async def test_a_proposal_cut_anywhere_is_understood(autojump_clock, cut):
    async with open_node(serve_echo) as (_, wire):
        await wire.send(encode(DATA, SYN, 1, body=PROPOSAL[:cut]))
        await wire.send(encode(DATA, 0, 1, body=PROPOSAL[cut:] + b"x"))
        assert b"".join(frame.body for frame in await wire.received()) == PROPOSAL + b"x"


async def test_a_proposal_that_is_refused_may_be_followed_by_another(autojump_clock):
    async with open_node(serve_echo) as (_, wire):
        await wire.send(encode(DATA, SYN, 1, body=HEADER + encode_line("/no") + encode_line("/p") + b"x"))
        assert (
            b"".join(frame.body for frame in await wire.received()) == HEADER + NA + encode_line("/p") + b"x"
        )


async def test_a_peer_that_is_gone_already_is_served_what_it_sent(autojump_clock):
    served = []

    async def serve(stream: YamuxStream) -> None:
        served.append(await handle_lazily(stream, lambda name: name == "/p"))
        served.append(await stream.receive_some())
        with pytest.raises(StreamReset):
            await stream.receive_some()

    async with open_node(serve) as (_, wire):
        await wire.send(encode(DATA, SYN, 1, body=PROPOSAL + b"last words"), encode(WINDOW_UPDATE, RST, 1))
        assert served == ["/p", b"last words"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER,
        PROPOSAL[:-1],
        b"x" * 40,
        HEADER + b"\x00",
        HEADER + b"\x01\n",
        HEADER + b"\x03/pp",
        HEADER + b"\x83\x00/p\n",
        HEADER + b"\x03\xff\xfe\n",
    ],
)
def test_only_a_plain_whole_proposal_is_taken_at_first_sight(data):
    assert first_proposal(data) is None
    assert first_proposal(PROPOSAL + data) == first_proposal(bytearray(PROPOSAL)) == ("/p", len(PROPOSAL))


# --- cancellation


@pytest.mark.parametrize("initiating", [True, False])
async def test_a_lazy_negotiation_can_be_cancelled_at_each_await(autojump_clock, initiating):
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        if initiating:
            async with open_nodes(on_other=serve_echo) as (one, other):
                stream = await one.open_stream()

                async def ask() -> None:
                    select_lazily(stream, "/p")
                    await stream.send_all(b"x")
                    assert await stream.receive_some() == b"x"

                yield ask
                stream.reset()
                await wait_all_tasks_blocked()
                assert one.connection.num_streams == other.connection.num_streams == 0
        else:
            async with open_node(initiator=True) as (node, wire):
                stream = await node.open_stream()
                await wire.send(encode(DATA, ACK, 1, body=HEADER))

                async def answer() -> None:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(wire.send, encode(DATA, 0, 1, body=encode_line("/p")))
                        await handle_lazily(stream, ["/p"])

                yield answer
                stream.reset()
                await wait_all_tasks_blocked()
                assert node.connection.num_streams == 0

    assert await cancel_at_each_await(world) >= 1
