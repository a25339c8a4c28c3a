"""Perf: how long so many bytes take to a peer, and so many back.

    client ── u64 big-endian: bytes wanted ── upload ── end ──→ server
    client ←── that many bytes, once the upload is over ── end ── server

A server is at everybody's service with its bandwidth, so it runs only where `open_perf` is called.
Source: libp2p/specs perf/perf.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.framing import receive_exactly
from p2p.limits import StreamLimit
from p2p.stream import Stream

if TYPE_CHECKING:
    from p2p.host import Host

PROTOCOL = "/perf/1.0.0"
HEADER = 8  # bytes
MAX_SIZE = 2**64 - 1  # bytes that the header can ask for
MAX_STREAMS = 8  # served at once, to all peers together; each holds one yamux window
MAX_PER_PEER = 2  # of them, so that one peer cannot keep the others out
IDLE_TIMEOUT = 10.0  # seconds in which nothing moves
DEADLINE = 120.0  # seconds of one measurement, whatever the client asked for
BLOCK = memoryview(bytes(64 * 1024))  # what is sent and, in size, read at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfResult:
    """Seconds of one measurement."""

    upload_seconds: float
    """Until the first answer: the server has all of the upload then."""
    download_seconds: float
    """From there to the end."""


class PerfService:
    """Lets others measure; whoever asks for too much gets what fits into the time."""

    def __init__(self) -> None:
        self._streams = StreamLimit(MAX_PER_PEER, MAX_STREAMS)

    async def serve(self, stream: Stream) -> None:
        """Takes an upload and sends what was asked for; resets the stream when its time is up."""
        with self._streams.admitted(stream) as admitted:
            if not admitted:
                return
            end = trio.current_time() + DEADLINE
            with trio.CancelScope(deadline=end) as scope:
                await _serve(stream, _IdleLimit(scope, end))
            if scope.cancelled_caught:
                stream.reset()


class _IdleLimit:
    """Moves the deadline of `scope` on, up to `end`, whenever something moved."""

    def __init__(self, scope: trio.CancelScope, end: float) -> None:
        self._scope = scope
        self._end = end
        self.moved()

    def moved(self) -> None:
        """The next `IDLE_TIMEOUT` begins now."""
        self._scope.deadline = min(trio.current_time() + IDLE_TIMEOUT, self._end)


async def _serve(stream: Stream, limit: _IdleLimit) -> None:
    wanted = int.from_bytes(await receive_exactly(stream, HEADER), "big")
    while await stream.receive_some(len(BLOCK)):
        limit.moved()
    while wanted:
        size = min(wanted, len(BLOCK))
        await stream.send_all(BLOCK[:size])
        wanted -= size
        limit.moved()
    await stream.send_eof()


@asynccontextmanager
async def open_perf(host: Host) -> AsyncIterator[PerfService]:
    """Lets every peer measure its connection to `host`, until the body ends."""
    service = PerfService()
    host.handle(PROTOCOL, service.serve)
    try:
        yield service
    finally:
        host.unhandle(PROTOCOL)


async def measure(stream: Stream, *, upload: int, download: int) -> PerfResult:
    """Seconds that `upload` bytes take to the peer and `download` bytes back, on a stream for `PROTOCOL`.

    The caller sets the deadline. Raises `ConnectionLost`, `RemoteProtocolError` when another number of
    bytes comes back, and `LocalProtocolError` for sizes that the protocol cannot say.
    """
    if not (0 <= upload <= MAX_SIZE and 0 <= download <= MAX_SIZE):
        raise LocalProtocolError(f"perf takes sizes from 0 to {MAX_SIZE} bytes")
    start = trio.current_time()
    await stream.send_all(download.to_bytes(HEADER, "big"))
    while upload:
        size = min(upload, len(BLOCK))
        await stream.send_all(BLOCK[:size])
        upload -= size
    await stream.send_eof()
    received = len(await stream.receive_some(len(BLOCK)))
    uploaded = trio.current_time()
    while received <= download and (data := await stream.receive_some(len(BLOCK))):
        received += len(data)
    if received != download:
        how = "more than" if received > download else f"{received} of"
        raise RemoteProtocolError(f"{stream.peer} answered perf with {how} {download} bytes")
    return PerfResult(upload_seconds=uploaded - start, download_seconds=trio.current_time() - uploaded)
