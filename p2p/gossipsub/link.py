"""Our side of one peer: what is to be written, and the stream that it is written to.

    push → outbox → write_at_once ─── the stream takes it ───→ gone, without a task switch
                          └─ it does not, or too many in a row ─→ a task that writes until all is gone

`open` opens our stream and says so to the router; when it breaks it is opened again, ever more slowly.
While the stream works and takes what it is given, no task is there for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import trio

from p2p.address import ip_of
from p2p.errors import ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError
from p2p.gossipsub.events import Event, StreamLost, StreamOpened
from p2p.gossipsub.outbox import Outbox
from p2p.gossipsub.wire import VERSIONS, Rpc
from p2p.peer_id import PeerId
from p2p.stream import Stream
from p2p.waiter import Waiter

if TYPE_CHECKING:
    from p2p.host import Host

OPEN_TIMEOUT = 15.0  # seconds to open a stream on a connection
WRITE_TIMEOUT = 30.0  # seconds for one write; go
WRITES_AT_ONCE = 16  # within `BURST`, until a task has a turn: a burst then shares RPCs and system calls
BURST = 0.01  # seconds
REOPEN_FIRST = 1.0  # seconds before a stream that failed is opened again, doubling
REOPEN_MAX = 30.0  # seconds; a stream that lived longer starts anew

logger = logging.getLogger(__name__)


class Link:
    """The outbox of one peer and its stream; `handle` tells the router of the stream."""

    __slots__ = (
        "_again",
        "_burst_ends",
        "_delay",
        "_drained",
        "_dropped",
        "_gone",
        "_handle",
        "_host",
        "_left",
        "_nursery",
        "_opened_at",
        "_outbox",
        "_stream",
        "_taken",
        "_waiter",
        "_writing",
        "bytes_sent",
        "peer",
    )

    def __init__(
        self, host: Host, nursery: trio.Nursery, peer: PeerId, handle: Callable[[Event], object]
    ) -> None:
        self.peer = peer
        self.bytes_sent = 0
        self._host = host
        self._nursery = nursery
        self._handle = handle
        self._gone = False  # the peer is
        self._again = False  # do not wait for the back-off
        self._waiter = Waiter()  # of who backs off
        self._delay = REOPEN_FIRST  # seconds of the next back-off
        self._opened_at = -inf
        self._stream: Stream | None = None  # while it works
        self._outbox = Outbox()  # each stream starts with a new one
        self._dropped = 0  # messages, on streams that ended
        self._taken = b""  # out of the outbox, and not by the stream
        self._left = WRITES_AT_ONCE
        self._burst_ends = -inf  # when the count begins anew
        self._writing = False  # a task does
        self._drained = Waiter()

    @property
    def messages_dropped(self) -> int:
        """Messages that were not sent because the peer was too slow."""
        return self._dropped + self._outbox.messages_dropped

    def push(self, rpc: Rpc) -> None:
        """Queues an RPC, for `write_at_once`."""
        self._outbox.push(rpc)

    def write_at_once(self, now: float) -> None:
        """Writes what is queued as far as that goes without waiting; the rest is for a task."""
        stream = self._stream
        if self._writing or stream is None:
            return
        if now >= self._burst_ends:
            self._left, self._burst_ends = WRITES_AT_ONCE, now + BURST
        self._left -= 1
        try:
            while self._left >= 0:
                if not (data := self._outbox.data_to_send()):
                    return
                if not stream.send_nowait(data):
                    self._taken = data
                    break
                self.bytes_sent += len(data)
        except ConnectionLost:
            self._break_off()
            return
        self._writing = True
        self._nursery.start_soon(self._write, stream)

    async def _write(self, stream: Stream) -> None:
        """Writes what is queued, until nothing is or the stream broke."""
        try:
            while self._stream is stream and (data := self._taken or self._outbox.data_to_send()):
                self._taken = b""
                with trio.fail_after(WRITE_TIMEOUT):
                    await stream.send_all(data)
                self.bytes_sent += len(data)
        except (ConnectionLost, trio.TooSlowError) as exc:
            if self._stream is stream:
                logger.info("writing to %s: %s", self.peer, str(exc) or "it is too slow for pubsub")
                self._break_off()
        finally:
            if self._stream is stream:
                self._set_drained()

    def _break_off(self) -> None:
        """Our stream is over: a task sees to it, since this may be called from anywhere."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset()
            self._set_drained()
            self._nursery.start_soon(self._reopen)

    def retry(self) -> None:
        """The peer has changed: a stream that failed is worth another try."""
        self._again = True
        self._waiter.wake()

    async def open(self) -> None:
        """Opens our stream to the peer, however often that takes; also when it breaks, until `close`."""
        while not self._gone:
            try:
                await self._open_stream()
                return
            except (ConnectionLost, DialFailed, NegotiationFailed, RemoteProtocolError) as exc:
                logger.debug("pubsub stream to %s: %s", self.peer, exc)
            except trio.TooSlowError:
                logger.info("%s is too slow for pubsub", self.peer)
            await self._back_off()

    async def _reopen(self) -> None:
        if self._gone:
            return
        self._clear()
        self._handle(StreamLost(peer=self.peer))
        if trio.current_time() - self._opened_at > REOPEN_MAX:
            self._delay = REOPEN_FIRST
        await self._back_off()
        await self.open()

    async def _back_off(self) -> None:
        with trio.move_on_after(self._delay):
            while not (self._again or self._gone):
                await self._waiter.wait()
            self._again = False
        self._delay = min(2 * self._delay, REOPEN_MAX)

    async def _open_stream(self) -> None:
        """Opens our stream, and lets the router say what we subscribe to before anything else.

        The peer has no business writing on it; that it closes its side is its right.
        """
        if not self._host.is_connected(self.peer):
            raise ConnectionLost("not connected")  # and not for us to dial
        with trio.fail_after(OPEN_TIMEOUT):
            stream = await self._host.open_stream(self.peer, list(VERSIONS))
        if self._gone:  # meanwhile
            stream.reset()
            return
        self._stream, self._opened_at = stream, trio.current_time()
        connection = self._host.connection(self.peer)
        outbound = connection is not None and connection.outbound
        address = None if connection is None else ip_of(connection.remote_address)
        version = VERSIONS[stream.protocol]
        self._handle(StreamOpened(peer=self.peer, version=version, outbound=outbound, address=address))
        stream.watch(self._break_off)

    def close(self) -> None:
        """The peer is gone, or we are: nothing is written any more."""
        self._gone = True
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.reset()
        self._clear()
        self._waiter.wake()

    def _clear(self) -> None:
        """The stream is over, and what was queued for it."""
        self._dropped += self._outbox.messages_dropped
        self._outbox, self._taken, self._stream = Outbox(), b"", None
        self._set_drained()

    async def flush(self) -> None:
        """Returns when all that is queued is written, or lost with its stream."""
        while self._writing:
            await self._drained.wait()

    def _set_drained(self) -> None:
        self._writing, self._left = False, WRITES_AT_ONCE
        self._drained.wake()
