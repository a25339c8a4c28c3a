"""A py-libp2p node under the control of a test: JSON commands on stdin, JSON events on stdout.

    python py_node.py [--transport tcp|ws] [--security noise|tls]

Runs in an environment of its own, with py-libp2p and without this project. The protocols and commands
are described in dialect.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.tools.utils import info_from_p2p_addr
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

ECHO = "/interop/echo/1.0.0"
DIGEST = "/interop/digest/1.0.0"
SLOW = "/interop/slow/1.0.0"
RESETTING = "/interop/resetting/1.0.0"
WAITING = "/interop/waiting/1.0.0"
BLOCK = 65536  # bytes of one write


def emit(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def receive_all(stream: Any) -> bytes:
    parts = []
    try:
        while part := await stream.read():  # read(n) would take a reset for the end
            parts.append(part)
    except StreamEOF:
        pass
    return b"".join(parts)


async def send_all(stream: Any, data: bytes) -> None:
    for start in range(0, len(data), BLOCK):
        await stream.write(data[start : start + BLOCK])


async def expect_reset(stream: Any) -> None:
    try:
        got = await receive_all(stream)
    except StreamReset:
        return
    raise AssertionError(f"the stream ended after {len(got)} bytes and was not reset")


async def exchange(stream: Any, data: bytes, expected: bytes) -> None:
    async def send() -> None:
        await send_all(stream, data)
        await stream.close_write()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        got = await receive_all(stream)
    if got != expected:
        raise AssertionError(f"{len(got)} bytes differ from the {len(expected)} expected")
    await stream.close()


class Node:
    def __init__(self, host: Any, nursery: trio.Nursery) -> None:
        self.host = host
        self.nursery = nursery
        self.pings = PingService(host)
        self.released = trio.Event()
        self.sent = False
        self.slow_done = trio.Event()
        self.slow_error: BaseException | None = None
        for protocol, handler in (
            (ECHO, self.serve_echo),
            (DIGEST, self.serve_digest),
            (SLOW, self.serve_slow),
            (RESETTING, self.serve_resetting),
            (WAITING, self.serve_waiting),
        ):
            host.set_stream_handler(protocol, handler)

    # What it serves

    async def serve_echo(self, stream: Any) -> None:
        try:
            while part := await stream.read():
                await stream.write(part)
        except StreamEOF:
            pass
        await stream.close()

    async def serve_digest(self, stream: Any) -> None:
        data = await receive_all(stream)
        await stream.write(hashlib.sha256(data).digest())
        await stream.close()

    async def serve_slow(self, stream: Any) -> None:
        await self.released.wait()
        await self.serve_digest(stream)

    async def serve_resetting(self, stream: Any) -> None:
        await stream.read(1)
        await stream.reset()

    async def serve_waiting(self, stream: Any) -> None:
        await stream.write(b"1")
        await expect_reset(stream)
        emit(event="reset-seen")

    # What it is told to do

    async def open(self, peer: str, protocol: str) -> Any:
        return await self.host.new_stream(ID.from_string(peer), [protocol])

    async def dial(self, addr: str) -> dict[str, Any]:
        info = info_from_p2p_addr(Multiaddr(addr))
        await self.host.connect(info)
        return {"peer": str(info.peer_id)}

    async def ping(self, peer: str) -> dict[str, Any]:
        [microseconds] = await self.pings.ping(ID.from_string(peer))
        return {"ms": microseconds / 1000}

    async def identify(self, peer: str) -> dict[str, Any]:
        stream = await self.open(peer, IDENTIFY)
        message = Identify()
        message.ParseFromString(await read_length_prefixed_protobuf(stream))
        await stream.close()
        return {
            "agent": message.agent_version,
            "protocols": list(message.protocols),
            "observed": str(Multiaddr(message.observed_addr)),
        }

    async def echo(self, peer: str, size: int) -> dict[str, Any]:
        data = os.urandom(size)
        await exchange(await self.open(peer, ECHO), data, data)
        return {}

    async def parallel(self, peer: str, streams: int, size: int) -> dict[str, Any]:
        opened: list[Any] = []

        async def open_one() -> None:
            opened.append(await self.open(peer, ECHO))

        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(open_one)
        async with trio.open_nursery() as nursery:
            for stream in opened:
                data = os.urandom(size)
                nursery.start_soon(exchange, stream, data, data)
        return {}

    async def half_close(self, peer: str, size: int) -> dict[str, Any]:
        data = os.urandom(size)
        await exchange(await self.open(peer, DIGEST), data, hashlib.sha256(data).digest())
        return {}

    async def be_reset(self, peer: str) -> dict[str, Any]:
        stream = await self.open(peer, RESETTING)
        await stream.write(b"1")
        await expect_reset(stream)
        return {}

    async def reset(self, peer: str) -> dict[str, Any]:
        stream = await self.open(peer, WAITING)
        await stream.read(1)
        await stream.reset()
        return {}

    async def slow_start(self, peer: str, size: int) -> dict[str, Any]:
        stream = await self.open(peer, SLOW)
        self.sent, self.slow_done, self.slow_error = False, trio.Event(), None
        self.nursery.start_soon(self._feed_slow, stream, os.urandom(size))
        return {}

    async def _feed_slow(self, stream: Any, data: bytes) -> None:
        try:
            await send_all(stream, data)
            self.sent = True
            await exchange(stream, b"", hashlib.sha256(data).digest())
        except Exception as exc:
            self.slow_error = exc
        self.slow_done.set()

    async def slow_sent(self) -> dict[str, Any]:
        return {"sent": self.sent}

    async def slow_finish(self) -> dict[str, Any]:
        await self.slow_done.wait()
        if self.slow_error is not None:
            raise self.slow_error
        return {}

    async def release(self) -> dict[str, Any]:
        self.released.set()
        self.released = trio.Event()
        return {}

    async def run_command(self, command: dict[str, Any]) -> None:
        ident, name = command.pop("id"), command.pop("cmd")
        try:
            answer = await getattr(self, name)(**command)
        except Exception as exc:
            cause: BaseException = exc
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            emit(event="answer", id=ident, error=f"{type(cause).__name__}: {cause}")
        else:
            emit(event="answer", id=ident, **answer)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=("tcp", "ws"), default="tcp")
    parser.add_argument("--security", choices=("noise", "tls"), default="noise")
    options = parser.parse_args()
    key = create_new_key_pair()
    security = {
        "noise": lambda: {NOISE: NoiseTransport(key, noise_privkey=create_noise_key_pair().private_key)},
        "tls": lambda: {TLS: TLSTransport(key)},
    }[options.security]()
    listen = Multiaddr("/ip4/127.0.0.1/tcp/0" + ("/ws" if options.transport == "ws" else ""))
    host = new_host(key_pair=key, sec_opt=security, listen_addrs=[listen])
    async with host.run(listen_addrs=[listen]), trio.open_nursery() as nursery:
        node = Node(host, nursery)
        own = str(host.get_id())
        addresses = [str(each).partition("/p2p/")[0] + f"/p2p/{own}" for each in host.get_addrs()]
        emit(event="ready", peer_id=own, addrs=addresses)
        async for line in trio.wrap_file(sys.stdin):
            nursery.start_soon(node.run_command, json.loads(line))
        os._exit(0)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    trio.run(main)
