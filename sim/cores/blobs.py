"""Blobs of one node on this rung: bytes by reference, whose way over the network takes its time.

    fetch ──→ at hand? ──→ holder after holder: dial, ask ──the blob's size──→ done(data)
                                                     └──has none, unreachable, silent──→ the next one

A blob's bytes are the same object at all nodes that have it; its root is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from p2p.blobs.wire import MAX_BLOB

if TYPE_CHECKING:
    from p2p.peer_id import PeerId
    from sim.cores.links import End
    from sim.cores.node import Life

REQUEST = 120  # bytes of a request, a stream opened for it included
OVERHEAD = 1.01  # frames, proofs and headers, of a blob's size
PATIENCE = 10.0  # seconds until the next holder is asked


class Blobs:
    """What one life has, and gets from others."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._files = life.files.sub("blobs")
        self._fetches: dict[Fetch, None] = {}

    def get(self, root: bytes) -> bytes | None:
        """The blob, if it is here, and whole."""
        try:
            data = self._files.read(root.hex(), 0, MAX_BLOB)
        except OSError:
            return None
        return data if self._life.world.root_of(data) == root else None

    def put(self, data: bytes) -> bytes:
        """Keeps a blob, and returns its root. Raises `OSError` as the disk does."""
        root = self._life.world.root_of(data)
        self._files.write(root.hex(), data)
        return root

    def discard(self, root: bytes) -> None:
        """Forgets a blob."""
        with suppress(OSError):
            self._files.remove(root.hex())

    def fetch(self, root: bytes, holders: Sequence[PeerId], done: Callable[[bytes | None], None]) -> None:
        """Gets a blob from here or from the first of `holders` that gives it; None when nobody does."""
        data = self.get(root)
        if data is not None:
            done(data)
            return
        fetch = Fetch(self._life, root, holders, partial(self._fetched, done))
        self._fetches[fetch] = None
        fetch.ask_next()

    def _fetched(self, done: Callable[[bytes | None], None], fetch: Fetch, data: bytes | None) -> None:
        self._fetches.pop(fetch, None)
        if data is not None:
            with suppress(OSError):  # then it is at hand all the same, and not for others
                self.put(data)
        done(data)

    def serve(self, end: End, fetch: Fetch, attempt: int) -> None:
        """A request arrived at this end."""
        data = self.get(fetch.root)
        size = REQUEST if data is None else int(len(data) * OVERHEAD)
        end.send(size, fetch.answered, attempt, data)

    def lose(self, end: End) -> None:
        """A connection broke: what was asked on it is asked of others."""
        for fetch in [fetch for fetch in self._fetches if fetch.end is end]:
            fetch.ask_next()


class Fetch:
    """One blob on its way."""

    def __init__(
        self,
        life: Life,
        root: bytes,
        holders: Sequence[PeerId],
        done: Callable[[Fetch, bytes | None], None],
    ) -> None:
        self.root = root
        self.end: End | None = None
        self._life = life
        self._holders = [peer for peer in holders if peer != life.world.peers[life.number]]
        self._done = done
        self._attempt = 0  # as many holders were asked

    def ask_next(self) -> None:
        """Asks the next holder, or gives up."""
        self.end = None
        if self._attempt >= len(self._holders):
            self._done(self, None)
            return
        number = self._life.world.numbers[self._holders[self._attempt]]
        self._attempt += 1
        heap = self._life.world.heap
        heap.plan(heap.now + PATIENCE, self._expire, self._attempt)
        self._life.links.dial(self._life, number, partial(self._dialed, number, self._attempt))

    def _dialed(self, number: int, attempt: int, connected: bool) -> None:
        if attempt != self._attempt:
            return
        end = self._life.ends.get(number) if connected else None
        server = None if end is None else end.remote.life.blobs
        if end is None or server is None:
            heap = self._life.world.heap
            heap.plan(heap.now, self._expire, attempt)
            return
        self.end = end
        end.send(REQUEST, server.serve, end.remote, self, attempt)

    def answered(self, attempt: int, data: bytes | None) -> None:
        """The holder's answer arrived; one that comes too late counts for nothing."""
        if attempt != self._attempt:
            return
        if data is None:
            self.ask_next()
        else:
            self._attempt = len(self._holders) + 1
            self.end = None
            self._done(self, data)

    def _expire(self, attempt: int) -> None:
        if self._life.running and attempt == self._attempt:
            self._life.receive(self.ask_next)
