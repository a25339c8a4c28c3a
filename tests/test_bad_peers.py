"""A silent, a slow and a lying peer, met from both ends: each costs one typed error within the deadline.

The bad peer speaks honestly up to the stage where it turns bad. Whatever it does, an honest peer
beside it is served, nobody's connection changes, and no task, stream or warning is left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from p2p import multistream, noise, tls
from p2p.address import parse_address
from p2p.config import HostConfig
from p2p.errors import DialFailed, P2PError
from p2p.host import open_host
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from p2p.reading import receive_each
from p2p.transport import MemoryNetwork, MemoryTransport
from tests.support import connect, key_number, open_memory_host

HERE, HONEST, BAD = (key_number(number) for number in (1, 2, 3))
HERE_ADDRESS, HONEST_ADDRESS, BAD_ADDRESS = (parse_address(f"/memory/{number}") for number in (1, 2, 3))
BAD_ID = PeerId.from_public_key(BAD.public)
DEADLINE = 7.0  # seconds, of a dial and of an inbound upgrade


@dataclass(frozen=True)
class Security:
    """A security protocol as a bad peer uses it; `identity` is what its two functions call a key."""

    name: str
    protocol: str
    inbound: Callable[..., Awaitable[Any]]
    outbound: Callable[..., Awaitable[Any]]
    identity: Callable[[KeyPair], Any] = lambda key: key


SECURITY = [
    Security("noise", "/noise", noise.secure_inbound, noise.secure_outbound),
    Security("tls", "/tls/1.0.0", tls.secure_inbound, tls.secure_outbound, tls.TlsIdentity),
]


class Forger(KeyPair):
    """Claims to be `victim` and signs with a key of its own."""

    def __init__(self, victim: KeyPair) -> None:
        super().__init__(KeyPair.generate()._signer)
        self.public = victim.public


class Trickle:
    """A `ByteStream` that sends one byte a second."""

    def __init__(self, raw):
        self._raw = raw
        self._ready = False

    async def receive_some(self, max_bytes=None):
        return await self._raw.receive_some(max_bytes)

    async def receive_into(self, buffer):
        return await self._raw.receive_into(buffer)

    async def receive_each(self, handle):
        await receive_each(self, handle)

    def send_nowait(self, data):
        if not self._ready or not data:
            return 0
        self._ready = False
        return self._raw.send_nowait(bytes(data[:1]))

    async def wait_writable(self):
        await trio.sleep(1)
        self._ready = True

    async def send_all(self, data):
        for byte in bytes(data):
            await trio.sleep(1)
            await self._raw.send_all(bytes([byte]))

    async def aclose(self):
        await self._raw.aclose()


# How a bad peer goes on after the transport connection; `raw` is its end. "silent at" stages return.


async def say_nothing(raw, security, dialing):
    pass


async def stop_after_choosing_security(raw, security, dialing):
    await (multistream.select(raw, [security.protocol]) if dialing else _handle(raw, security.protocol))


async def stop_after_securing(raw, security, dialing, key=BAD):
    await stop_after_choosing_security(raw, security, dialing)
    if dialing:
        here = PeerId.from_public_key(HERE.public)
        return await security.outbound(raw, security.identity(key), here)
    return await security.inbound(raw, security.identity(key))


async def speak_slowly(raw, security, dialing):
    await stop_after_securing(Trickle(raw), security, dialing)


async def use_the_wrong_key(raw, security, dialing):
    """Dialed: we are somebody else than the id says. Dialing: we claim a key that is not ours."""
    await stop_after_securing(raw, security, dialing, Forger(HONEST) if dialing else key_number(9))


async def sign_wrongly(raw, security, dialing):
    await stop_after_securing(raw, security, dialing, Forger(BAD))


async def _handle(raw, protocol):
    await multistream.handle(raw, (protocol,).__contains__)


SILENT = [say_nothing, stop_after_choosing_security, stop_after_securing, speak_slowly]
LYING = [use_the_wrong_key, sign_wrongly]


async def misbehave(raw, behave, security, dialing):
    """Runs `behave`, then listens until the other side has had enough."""
    try:
        await behave(raw, security, dialing)
        while await raw.receive_some():
            pass
    except P2PError:
        pass
    await raw.aclose()


@asynccontextmanager
async def open_scene(security, caplog):
    """(network, our host, an honest host that is connected to it); checks what is left behind."""
    network = MemoryNetwork()
    config = HostConfig(dial_timeout=DEADLINE, upgrade_timeout=DEADLINE, security=(security.name,))
    transports = [MemoryTransport(network)]
    async with (
        open_host(key=HERE, listen=[HERE_ADDRESS], transports=transports, config=config) as here,
        open_memory_host(network, 2) as honest,
    ):
        await connect(honest, here)
        connection = here.connection(honest.peer_id)
        tasks = trio.lowlevel.current_statistics().tasks_living
        with caplog.at_level(logging.INFO, "p2p.swarm"):
            yield network, here, honest
        assert here.connection(honest.peer_id) is connection
        assert here.peers() == [honest.peer_id]
        assert not here._swarm._half_open
        await here.ping(honest.peer_id)
        await trio.sleep(DEADLINE)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("behave", SILENT + LYING, ids=lambda behave: behave.__name__)
@pytest.mark.parametrize("security", SECURITY, ids=lambda security: security.name)
async def test_a_bad_peer_that_we_dial_costs_one_typed_error(security, behave, autojump_clock, caplog):
    async with open_scene(security, caplog) as (network, here, honest), trio.open_nursery() as nursery:
        listener = await MemoryTransport(network).listen(BAD_ADDRESS)

        @nursery.start_soon
        async def answer():
            raw, _ = await listener.accept()
            await misbehave(raw, behave, security, dialing=False)

        nursery.start_soon(honest.ping, here.peer_id)
        start = trio.current_time()
        with pytest.raises(DialFailed) as caught:
            await here.connect(BAD_ID, [BAD_ADDRESS])
        elapsed = trio.current_time() - start
        if behave in LYING:
            assert elapsed == pytest.approx(0, abs=0.1)
            assert len(caught.value.reasons) == 1
        else:
            assert elapsed == pytest.approx(DEADLINE)
            assert caught.value.reasons == [f"{BAD_ADDRESS}: no answer", "gave up after 7 s"]
        await listener.aclose()


@pytest.mark.parametrize("behave", SILENT + LYING, ids=lambda behave: behave.__name__)
@pytest.mark.parametrize("security", SECURITY, ids=lambda security: security.name)
async def test_a_bad_peer_that_dials_us_costs_one_line(security, behave, autojump_clock, caplog):
    async with open_scene(security, caplog) as (network, here, honest), trio.open_nursery() as nursery:
        nursery.start_soon(here.ping, honest.peer_id)
        start = trio.current_time()
        raw = await MemoryTransport(network).dial(HERE_ADDRESS)
        await misbehave(raw, behave, security, dialing=True)
        elapsed = trio.current_time() - start
        await trio.testing.wait_all_tasks_blocked()  # until the host has said it
        assert elapsed == pytest.approx(0 if behave in LYING else DEADLINE, abs=1.0)
        [line] = [record.message for record in caplog.records if record.name == "p2p.swarm"]
        assert ("failed: " if behave in LYING else "is too slow") in line
