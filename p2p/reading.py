"""Reading in a row: the loop of every `receive_each`, and the memory that the bytes pass through."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import trio

from p2p.scratch import Scratch

READ_AHEAD = 256 * 1024  # bytes read in a row; then handlers take them, while they are in the caches


class _ThreadScratch(threading.local):
    def __init__(self) -> None:
        self.scratch = Scratch()


_thread = _ThreadScratch()


def thread_scratch() -> Scratch:
    """The buffers that all connections of this thread share. A connection stays in its thread."""
    return _thread.scratch


class ReadableInto(Protocol):
    """Where bytes come from, into memory that is there already."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the beginning of `buffer`; how many bytes came, 0 at the end."""


async def receive_each(stream: ReadableInto, handle: Callable[[memoryview], None]) -> None:
    """Calls `handle` with every piece that comes from `stream`, until the end of the bytes.

    A piece is good during the call only. Other tasks run whenever `stream` has nothing, and at the
    latest after `READ_AHEAD` bytes. Raises what `receive_into` and `handle` raise. Cancelled, it has
    lost nothing.
    """
    buffer, unyielded = thread_scratch().received, 0
    while size := await stream.receive_into(buffer):
        handle(buffer[:size])
        if (unyielded := unyielded + size) >= READ_AHEAD:
            unyielded = 0
            await trio.lowlevel.checkpoint()
