"""Whatever a stranger sends, at whatever stage: the listener lives on and nothing is left behind."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import psutil
import pytest
import trio

from p2p import noise
from p2p.address import parse_address
from p2p.errors import ConnectionLost, DialFailed, P2PError
from p2p.host import open_host
from p2p.multistream import select
from p2p.peer_id import PeerId
from p2p.ping import PROTOCOL
from p2p.transport import MemoryNetwork, MemoryTransport, TcpTransport
from p2p.transport.memory import memory_stream_pair
from p2p.yamux import PROTOCOL as YAMUX
from tests.support import connect, key_number, open_memory_host, upgrader

GUEST = key_number(2)
CUTS = [("noise", 1), ("tls", 7)]  # bytes between two cuts; tests/tls cuts its handshake after every byte


class CutStream:
    """A stream that dies after `limit` sent bytes."""

    def __init__(self, raw, limit):
        self.raw = raw
        self.left = limit

    def __getattr__(self, name):
        return getattr(self.raw, name)

    def send_nowait(self, data):
        if not self.left:
            self.raw.close()
            raise ConnectionLost("cut")
        taken = self.raw.send_nowait(bytes(data)[: self.left])
        self.left -= taken
        return taken

    async def send_all(self, data):
        while data:
            data = data[self.send_nowait(data) :]
            await self.raw.wait_writable()


async def talk(stream, host_id, security):
    """What a well-behaved dialer does: upgrade, then one ping."""
    muxed = await upgrader(GUEST, security=(security,)).upgrade_outbound(stream, host_id)

    async def refuse(inbound):
        inbound.reset()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxed.run, refuse)
        opened = await muxed.open_stream()
        await select(opened, [PROTOCOL])
        await opened.send_all(b"x" * 32)
        assert await opened.receive_some() == b"x" * 32
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def no_task_left_behind():
    """Checks that the block leaves as many tasks as it found, a while later."""
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    await trio.sleep(60)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def length_of_a_conversation(transport, host, security):
    stream = CutStream(await transport.dial(host.addresses()[0]), 1 << 30)
    await talk(stream, host.peer_id, security)
    return (1 << 30) - stream.left


@pytest.mark.parametrize(("security", "step"), CUTS)
async def test_a_conversation_cut_after_every_byte_costs_only_itself(security, step, autojump_clock):
    network = MemoryNetwork()
    transport = MemoryTransport(network)
    async with open_memory_host(network, 1) as host:
        async with no_task_left_behind():
            total = await length_of_a_conversation(transport, host, security)
            assert total > 400
            for limit in range(0, total, step):
                stream = CutStream(await transport.dial(host.addresses()[0]), limit)
                try:
                    await talk(stream, host.peer_id, security)
                except* P2PError:
                    pass
                await stream.aclose()
        async with open_memory_host(network, 3) as guest:
            await connect(guest, host)
            await guest.ping(host.peer_id)


@pytest.mark.parametrize(("security", "step"), CUTS)
async def test_an_answer_cut_after_every_byte_is_a_typed_error_for_the_dialer(security, step, autojump_clock):
    host_key = key_number(1)
    host_id = PeerId.from_public_key(host_key.public)
    limit = 0
    finished = False
    while not finished:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer(stream=CutStream(theirs, limit), raw=theirs):  # noqa: B008  # one a pass
                try:
                    await upgrader(host_key, security=(security,)).upgrade_inbound(stream)
                except P2PError:
                    await raw.aclose()

            try:
                await upgrader(GUEST, security=(security,)).upgrade_outbound(ours, host_id)
                finished = True
            except P2PError:
                limit += step
            await ours.aclose()
    assert limit > 200


STAGES = ("raw", "noise message", "secured", "muxed", "stream")


async def reach(stage, raw, host_id):
    """The stream on which `stage` begins, after a valid conversation up to there."""
    if stage == "raw":
        return raw
    await select(raw, [noise.PROTOCOL_ID])
    if stage == "noise message":
        return raw
    secure = await noise.secure_outbound(raw, GUEST, host_id)
    if stage == "secured":
        return secure
    await select(secure, [YAMUX])
    return secure


@pytest.mark.parametrize("stage", STAGES[:4])
async def test_random_bytes_at_every_stage_cost_only_their_connection(stage, autojump_clock):
    rng = random.Random(stage)
    network = MemoryNetwork()
    transport = MemoryTransport(network)
    async with open_memory_host(network, 1) as host:
        async with no_task_left_behind():
            for size in (1, 2, 7, 12, 13, 40, 100, 1000, 20_000, 100_000):
                for _ in range(3):
                    raw = await transport.dial(host.addresses()[0])
                    stream = await reach(stage, raw, host.peer_id)
                    with trio.move_on_after(30):
                        try:
                            await stream.send_all(rng.randbytes(size))
                            while await stream.receive_some():
                                pass
                        except P2PError:
                            pass
                    await raw.aclose()
        async with open_memory_host(network, 3) as guest:
            await connect(guest, host)


async def test_random_bytes_on_every_protocol_cost_only_their_stream(autojump_clock):
    rng = random.Random(5)
    network = MemoryNetwork()
    async with open_memory_host(network, 1) as host, open_memory_host(network, 2) as guest:
        await connect(guest, host)
        for protocol in guest.peerstore.protocols(host.peer_id):
            for size in (1, 31, 33, 1000, 100_000):
                stream = await guest.open_stream(host.peer_id, [protocol])
                with trio.move_on_after(60):
                    try:
                        await stream.send_all(rng.randbytes(size))
                        await stream.send_eof()
                        while await stream.receive_some():
                            pass
                    except P2PError:
                        pass
                stream.reset()
        await guest.ping(host.peer_id)
        assert host.is_connected(guest.peer_id)


async def test_no_socket_is_left_after_garbage_over_tcp():
    rng = random.Random(6)
    process = psutil.Process()
    transport = TcpTransport()
    async with open_host(key=key_number(1), listen=[parse_address("/ip4/127.0.0.1/tcp/0")]) as host:
        before = process.num_fds()
        for size in (0, 1, 20, 27, 60, 500, 5000, 70_000):
            raw = await transport.dial(host.addresses()[0])
            try:
                await raw.send_all(rng.randbytes(size))
                with trio.move_on_after(0.2):
                    while await raw.receive_some():
                        pass
            except P2PError:
                pass
            await raw.aclose()
        async with open_host(key=GUEST) as guest:
            await guest.connect(host.peer_id, host.addresses())
            await guest.ping(host.peer_id)
        while process.num_fds() > before:
            with host.events() as events:
                await events.receive()
        assert host.peers() in ([], [guest.peer_id])
        with pytest.raises(DialFailed):
            async with open_host(key=GUEST) as guest:
                await guest.connect(PeerId.from_public_key(key_number(7).public), host.addresses())
