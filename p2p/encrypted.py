"""An encrypted stream: any byte stream below, any finished security handshake within.

    receive_some: raw.receive_into ─► shared buffer ─► channel.open ─► shared buffer ─► the caller
    receive_each: raw.receive_each ─► shared buffer ─► channel.open ─► shared buffer ─► handle
    send_nowait:  blocks ─► channel.seal ─► shared buffer ─► raw.send_nowait ─► what is left: held

One task reads, one writes. The reader never sends: what the channel answers by itself (TLS alerts,
key updates) joins the bytes that are held, in the order in which the channel made them, and leaves
with the next `send_nowait` or `flush`, at the latest with `aclose` as far as that goes without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import trio

from p2p.errors import ConnectionLost, LocalProtocolError, P2PError, RemoteProtocolError
from p2p.keys import PublicKey
from p2p.peer_id import PeerId
from p2p.reading import thread_scratch
from p2p.stream import MAX_BLOCK, ByteStream, Data, SecureChannel
from p2p.turns import Turns

BLOCKS_PER_SEND = 4  # of `send_all`; more frames a system call gain nothing and leave the cache
MAX_ANSWERS = (
    16 * 1024
)  # bytes that the channel says by itself before any leaves; a TLS record, alerts are 24


class _Ended(Exception):
    """The channel ended before the bytes did: leaves the raw stream's `receive_each`."""


class EncryptedStream:
    """A `SecureStream` over `raw`, which belongs to it now.

    `surplus` is ciphertext that came behind the handshake. Raises `RemoteProtocolError` when that is
    no beginning of what the channel expects.
    """

    def __init__(
        self,
        raw: ByteStream,
        channel: SecureChannel,
        *,
        remote_key: PublicKey,
        early_muxer: str | None = None,
        surplus: Data = b"",
    ) -> None:
        self.remote_key = remote_key
        self.remote_peer = PeerId.from_public_key(remote_key)
        self.early_muxer = early_muxer
        self._raw = raw
        self._channel = channel
        self._scratch = thread_scratch()
        self._held = bytearray()  # ciphertext that has not left
        self._answers = 0  # bytes that the channel added to it
        self._unflushed = False  # a block was not sent whole
        self._flushing = False
        self._sending = False
        self._broken = False  # by a `send_all` that did not finish
        self._turns = Turns()
        self._reading = False
        self._failure = ""  # what the peer did wrong
        self._rest = memoryview(b"")  # plaintext that a reader did not take
        if surplus:
            self._rest = memoryview(bytes(self._open(memoryview(surplus))))

    async def receive_some(self, max_bytes: int | None = None) -> Data:
        """At least one byte and at most `max_bytes` (all that is there when None), or b"" at the end.

        It is good until the caller's next await. Raises `AuthenticationFailed` when somebody changed
        the bytes, `RemoteProtocolError`, also ever after, and `ConnectionLost` also when the stream
        ends within a frame. `LocalProtocolError` for a second reader and a `max_bytes` below 1.
        """
        if max_bytes is not None and max_bytes < 1:
            raise LocalProtocolError(f"max_bytes is {max_bytes}, it must be 1 or more")
        if self._reading:
            raise LocalProtocolError("another task is reading from this connection")
        self._reading = True
        try:
            if self._rest:
                await trio.lowlevel.checkpoint()
                return self._take(self._rest, max_bytes)
            plain = await self._receive()
        finally:
            self._reading = False
        if max_bytes is None or len(plain) <= max_bytes:
            return plain
        return self._take(memoryview(bytes(plain)), max_bytes)

    def _take(self, plain: memoryview, max_bytes: int | None) -> memoryview:
        taken = plain[:max_bytes]
        self._rest = plain[len(taken) :]
        return taken

    async def receive_each(self, handle: Callable[[Data], None]) -> None:
        """Calls `handle` with every piece of plaintext, until the end; a piece is good during the call only.

        Raises as `receive_some` does, and whatever `handle` raises, at once. Cancelled, it has lost
        nothing: what was not handled comes with the next call.
        """
        if self._reading:
            raise LocalProtocolError("another task is reading from this connection")
        self._reading = True
        try:
            if self._rest:
                plain, self._rest = self._rest, memoryview(b"")
                handle(plain)
            self._check_failure()
            if self._channel.ended:
                await trio.lowlevel.checkpoint()
            else:
                with suppress(_Ended):
                    await self._raw.receive_each(partial(self._open_for, handle))
                    self._check_whole()
        finally:
            self._reading = False

    def _open_for(self, handle: Callable[[Data], None], data: memoryview) -> None:
        """Hands on what `data` completes."""
        if plain := self._open(data):
            handle(plain)
        if self._channel.ended:
            raise _Ended

    async def _receive(self) -> Data:
        """The next plaintext, b"" at the end."""
        self._check_failure()
        while not self._channel.ended:
            buffer = self._scratch.received
            size = await self._raw.receive_into(buffer)
            if not size:
                self._check_whole()
                return b""
            if plain := self._open(buffer[:size]):
                return plain
        await trio.lowlevel.checkpoint()
        return b""

    def _check_failure(self) -> None:
        if self._failure:
            raise RemoteProtocolError(f"this connection failed before: {self._failure}")

    def _check_whole(self) -> None:
        """The bytes have ended: is it between two frames?"""
        if self._channel.mid_frame:
            raise ConnectionLost("the connection ended within an encrypted frame")

    def _open(self, data: memoryview) -> Data:
        try:
            return self._channel.open(data)
        except RemoteProtocolError as exc:
            self._failure = str(exc)
            raise
        finally:
            if answer := self._channel.data_to_send():
                self._hold_answer(answer)

    def _hold_answer(self, answer: Data) -> None:
        self._answers = self._answers + len(answer) if self._held else len(answer)
        if self._answers > MAX_ANSWERS:
            self._failure = "the peer asks for answers faster than they leave"
            raise RemoteProtocolError(self._failure)
        self._held += answer

    def send_nowait(self, blocks: Sequence[Data]) -> bool:
        """Encrypts `blocks`, of at most `MAX_BLOCK` bytes each, and sends what leaves without waiting.

        Whether all left; otherwise the rest is held, and `flush` must return before the next call.
        Raises `ConnectionLost`, and `LocalProtocolError` for a block that is too large, before the
        `flush`, and while another task is sending.
        """
        if self._sending or self._flushing:
            raise LocalProtocolError("another task is sending on this connection")
        if self._unflushed:
            raise LocalProtocolError("flush this connection before sending more")
        if self._broken:
            raise ConnectionLost("an earlier send on this connection did not finish")
        return self._send(blocks)

    def _send(self, blocks: Sequence[Data]) -> bool:
        sealed = memoryview(self._channel.seal(blocks))
        if not self._held or self._send_held():
            sealed = sealed[self._raw.send_nowait(sealed) :]
        if sealed:
            self._held += sealed
            self._unflushed = True
        return not self._unflushed

    def _send_held(self) -> bool:
        """Whether nothing is left, after sending what leaves without waiting."""
        if self._held:
            del self._held[: self._raw.send_nowait(self._held)]
        return not self._held

    async def flush(self) -> None:
        """Returns when everything given to `send_nowait` has left. A cancelled flush can be repeated.

        Raises `ConnectionLost`, and `LocalProtocolError` while another task is sending.
        """
        if self._sending or self._flushing:
            raise LocalProtocolError("another task is sending on this connection")
        self._flushing = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._flush()
        finally:
            self._flushing = False

    async def _flush(self) -> None:
        while not self._send_held():
            await self._raw.wait_writable()
        self._unflushed = False

    async def send_all(self, data: Data) -> None:
        """Sends `data` in full blocks, several a write.

        Raises `ConnectionLost`, also when an earlier `send_all` was cancelled: what came of it nobody
        knows, so nothing can follow. Raises `LocalProtocolError` while another task is sending.
        """
        if self._sending or self._flushing:
            raise LocalProtocolError("another task is sending on this connection")
        if self._broken:
            raise ConnectionLost("an earlier send on this connection did not finish")
        self._sending = True
        self._broken = True  # until all is out
        try:
            await self._turns.take()
            await self._flush()
            for blocks in _batches(memoryview(data)):
                if self._send(blocks):
                    await self._turns.take()
                else:
                    await self._flush()
            self._broken = False
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Closes the stream beneath, after a last attempt to send what is held. Safe to repeat."""
        with suppress(P2PError):
            self._send_held()
        await self._raw.aclose()


def _batches(data: memoryview) -> Iterator[list[memoryview]]:
    """`data` cut into full blocks and a rest, as many at a time as one send takes."""
    blocks = [data[at : at + MAX_BLOCK] for at in range(0, len(data), MAX_BLOCK)]
    for first in range(0, len(blocks), BLOCKS_PER_SEND):
        yield blocks[first : first + BLOCKS_PER_SEND]
