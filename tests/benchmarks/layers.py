"""Single layers of ours, without the rest of the stack: to set beside the limit of the same work."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2p import tls
from p2p.keys import KeyPair
from p2p.noise.handshake import Handshake
from p2p.transport.tcp import TcpStream
from tests.benchmarks.limits import SECONDS, child, per_second

WRITE = b"\1" * 65536


def noise_handshake() -> float:
    """Noise handshakes a second, both sides on one core, with what the primitives need and no sockets."""
    keys = [KeyPair.generate(), KeyPair.generate()]

    def shake() -> None:
        one, other = (
            Handshake(
                initiator=initiator,
                key=key,
                static=X25519PrivateKey.generate(),
                ephemeral=X25519PrivateKey.generate(),
            )
            for initiator, key in zip((True, False), keys, strict=True)
        )
        other.receive_data(one.data_to_send())
        one.receive_data(other.data_to_send())
        other.receive_data(one.data_to_send())

    return per_second(shake)


def tls_alone() -> float:
    """MB/s of our TLS over TCP between two processes, 64 KiB writes, without a muxer."""
    with child("tests.benchmarks.layers") as connection:
        return trio.run(_write, connection)


def _stream(connection: socket.socket) -> TcpStream:
    connection.setblocking(False)
    return TcpStream(connection)


async def _write(connection: socket.socket) -> float:
    stream = await tls.secure_outbound(_stream(connection), tls.TlsIdentity(KeyPair.generate()), None)
    sent, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        await stream.send_all(WRITE)
        sent += len(WRITE)
    await stream.send_all(b"\0")
    await stream.receive_some()
    return sent / (time.perf_counter() - start) / 1e6


async def _read(connection: socket.socket) -> None:
    stream = await tls.secure_inbound(_stream(connection), tls.TlsIdentity(KeyPair.generate()))
    while data := await stream.receive_some():
        if data[-1] == 0:
            await stream.send_all(b"\1")
            return


LAYERS: dict[str, dict[str, Callable[[], float]]] = {
    "handshakes": {"Noise handshake, both sides, per s": noise_handshake},
    "throughput": {"TLS alone, 64 KiB writes, MB/s": tls_alone},
}


if __name__ == "__main__":
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connected:
        trio.run(_read, connected)
