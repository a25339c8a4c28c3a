"""Writes what routers do to a file that go-libp2p-pubsub's tools read (tracestat, trace2json).

Copies of a message that a node has are not in it: rungs report them as counts, and each would be an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from sim.record.wire import encode_event

EPOCH = 1_700_000_000 * 10**9  # nanoseconds since 1970 at which a run's clocks begin
BLOCK = 64 << 10  # bytes that are kept before they are written


class PubsubTrace:
    """A stream of events to a binary file. The caller opens and closes the file, and calls `flush` before."""

    def __init__(self, out: BinaryIO, peer_ids: Sequence[bytes]) -> None:
        self._out = out
        self._peer_ids = peer_ids
        self._pending = bytearray()

    def publish(self, now: float, node: int, topic: str, message_id: bytes) -> None:
        """The node published a message."""
        self._write("publish_message", now, node, message_id=message_id, topic=topic)

    def deliver(self, now: float, node: int, topic: str, message_id: bytes, received_from: int) -> None:
        """The node's application got a message."""
        sender = self._peer_ids[received_from] if received_from >= 0 else b""
        self._write("deliver_message", now, node, message_id=message_id, topic=topic, received_from=sender)

    def add_peer(self, now: float, node: int, other: int) -> None:
        """The node has a connection to `other`."""
        self._write("add_peer", now, node, peer_id=self._peer_ids[other])

    def remove_peer(self, now: float, node: int, other: int) -> None:
        """The node has no connection to `other` any more."""
        self._write("remove_peer", now, node, peer_id=self._peer_ids[other])

    def join(self, now: float, node: int, topic: str) -> None:
        """The node joined the topic."""
        self._write("join", now, node, topic=topic)

    def leave(self, now: float, node: int, topic: str) -> None:
        """The node left the topic."""
        self._write("leave", now, node, topic=topic)

    def graft(self, now: float, node: int, other: int, topic: str) -> None:
        """`other` is in the node's mesh."""
        self._write("graft", now, node, peer_id=self._peer_ids[other], topic=topic)

    def prune(self, now: float, node: int, other: int, topic: str) -> None:
        """`other` is in the node's mesh no more."""
        self._write("prune", now, node, peer_id=self._peer_ids[other], topic=topic)

    def flush(self) -> None:
        """Writes what is still kept."""
        self._out.write(self._pending)
        self._pending.clear()

    def _write(self, kind: str, now: float, node: int, **fields: bytes | str) -> None:
        at = EPOCH + round(now * 1e9)
        self._pending += encode_event(kind, self._peer_ids[node], at, **fields)
        if len(self._pending) >= BLOCK:
            self.flush()
