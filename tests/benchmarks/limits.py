"""What this machine can do at all: the ciphers, the sockets, the handshake's primitives.

Each function is one figure, and runs for about `SECONDS`. Two-process figures start a child of this
module: `python -m tests.benchmarks.limits ROLE PORT`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import Struct

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.benchmarks.certificate import throw_away_contexts

SECONDS = 1.0  # of one measurement
BLOCK = 65519  # bytes of plaintext in one full noise message
FRAMES = 8  # noise messages a send
LENGTH = Struct(">H")
NONCE = Struct("<4xQ")
KEY = bytes(range(32))


def per_second(operation: Callable[[], object], seconds: float = SECONDS) -> float:
    """How often `operation` runs in a second."""
    operation()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(8):
            operation()
        count += 8
    return count / elapsed


def aead() -> float:
    """MB/s of ChaCha20-Poly1305 in place on one core, 64 KiB at a time."""
    cipher, plain, out = ChaCha20Poly1305(KEY), os.urandom(BLOCK), bytearray(BLOCK + 16)
    if hasattr(cipher, "encrypt_into"):
        return per_second(lambda: cipher.encrypt_into(bytes(12), plain, None, out)) * BLOCK / 1e6
    return per_second(lambda: cipher.encrypt(bytes(12), plain, None)) * BLOCK / 1e6


def handshake_floor() -> float:
    """Noise XX handshakes a second if only the primitives cost: both sides on one core.

    Each side makes two key pairs and does three exchanges, signs once and verifies once.
    """
    identity, message = Ed25519PrivateKey.generate(), os.urandom(56)
    signature, public = identity.sign(message), identity.public_key()
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()

    def one_side() -> None:
        for _ in range(2):
            X25519PrivateKey.generate().public_key().public_bytes_raw()
        mine = X25519PrivateKey.generate()
        for _ in range(3):
            mine.exchange(X25519PublicKey.from_public_bytes(other))
        identity.sign(message)
        public.verify(signature, message)

    return per_second(one_side) / 2


@contextmanager
def child(module: str, *arguments: str) -> Iterator[socket.socket]:
    """A connection to a child process that runs `module`; its last argument is the port to come to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", module, *arguments, str(listener.getsockname()[1])]
        with subprocess.Popen(command) as process:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                yield connection
            process.wait(10)


def blocking_echo() -> float:
    """32-byte round trips a second over two blocking sockets."""
    with child(__spec__.name, "echo") as connection:

        def exchange() -> None:
            connection.sendall(bytes(32))
            connection.recv(64)

        return per_second(exchange)


def _serve_echo(connection: socket.socket) -> None:
    while data := connection.recv(64):
        connection.sendall(data)


def noise_loop() -> float:
    """MB/s of noise frames over trio's sockets between two processes, with nothing around them."""
    with child(__spec__.name, "noise") as connection:
        return trio.run(_write_noise, connection)


async def _write_noise(connection: socket.socket) -> float:
    connection.setblocking(False)
    raw = trio.socket.from_stdlib_socket(connection)
    cipher, plain = ChaCha20Poly1305(KEY), os.urandom(BLOCK)
    out = bytearray(FRAMES * (BLOCK + 18))
    view = memoryview(out)
    frames, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for at in range(0, len(out), BLOCK + 18):
            LENGTH.pack_into(out, at, BLOCK + 16)
            cipher.encrypt_into(NONCE.pack(frames), plain, None, view[at + 2 : at + BLOCK + 18])
            frames += 1
        sent = 0
        while sent < len(view):
            sent += await raw.send(view[sent:])
    raw.shutdown(socket.SHUT_WR)
    await raw.recv(1)
    return frames * BLOCK / (time.perf_counter() - start) / 1e6


async def _read_noise(connection: socket.socket) -> None:
    connection.setblocking(False)
    raw = trio.socket.from_stdlib_socket(connection)
    cipher, frame = ChaCha20Poly1305(KEY), BLOCK + 18
    buffer, plain = bytearray(4 * frame), bytearray(BLOCK)
    view, filled, count = memoryview(buffer), 0, 0
    while got := await raw.recv_into(view[filled:]):
        filled += got
        at = 0
        while filled - at >= frame:
            cipher.decrypt_into(NONCE.pack(count), view[at + 2 : at + frame], None, plain)
            count += 1
            at += frame
        view[: filled - at] = bytes(view[at:filled])
        filled -= at
    await raw.send(b"\1")


def trio_tls() -> float:
    """MB/s of Python's ssl over trio between two processes, 64 KiB writes."""
    with child(__spec__.name, "tls") as connection:
        return trio.run(_write_tls, connection)


async def _write_tls(connection: socket.socket) -> float:
    connection.setblocking(False)
    raw = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
    _, client = throw_away_contexts()
    stream = trio.SSLStream(raw, client, https_compatible=True)
    data, sent = b"\1" * 65536, 0
    await stream.do_handshake()
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        await stream.send_all(data)
        sent += len(data)
    await stream.send_all(b"\0")
    await stream.receive_some(1)
    return sent / (time.perf_counter() - start) / 1e6


async def _read_tls(connection: socket.socket) -> None:
    connection.setblocking(False)
    raw = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
    server, _ = throw_away_contexts()
    stream = trio.SSLStream(raw, server, server_side=True, https_compatible=True)
    while data := await stream.receive_some(256 * 1024):
        if data[-1:] == b"\0":
            await stream.send_all(b"\1")
            return


LIMITS: dict[str, dict[str, Callable[[], float]]] = {  # figure of the nodes -> what bounds it
    "handshakes": {"its primitives alone, per s": handshake_floor},
    "echo": {"blocking echo, per s": blocking_echo},
    "throughput": {
        "ChaCha20-Poly1305, 64 KiB, MB/s": aead,
        "noise frames over trio, MB/s": noise_loop,
        "ssl over trio, MB/s": trio_tls,
    },
}


def main() -> None:
    """The child's side of a figure."""
    role, port = sys.argv[1], int(sys.argv[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if role == "echo":
            _serve_echo(connection)
        elif role == "noise":
            trio.run(_read_noise, connection)
        else:
            trio.run(_read_tls, connection)


if __name__ == "__main__":
    main()
