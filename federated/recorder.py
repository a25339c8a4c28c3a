"""Writes an audit trail behind the back of those who record: they never wait for the disk.

    record ──→ queue, bounded ──→ every second, in a worker thread: JsonLinesTrail.append, synced

While the disk fails the queue fills up and writing is tried again; what no longer fits is counted,
and the trail says how much is missing. What was recorded in the last second before a crash may be lost:
what must not be lost is in the journal.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio

from federated.audit import MAX_RECORDS, AuditTrail, JsonLinesTrail, NullTrail, Record
from federated.compute import Compute, ThreadCompute
from federated.errors import StorageError
from p2p.files import Files
from p2p.scope import open_scope

PERIOD = 1.0  # seconds in which records are collected for one write
MAX_QUEUE = 4096  # records that wait for the disk; some hundred rounds
CLOSE_GRACE = 1.0  # seconds to write what is left

logger = logging.getLogger(__name__)


class Recorder:
    """An `AuditTrail` in files; get it from `open_recorder`."""

    def __init__(self, files: Files, compute: Compute, wall_clock: Callable[[], float]) -> None:
        self.lost = 0  # records that found the queue full and that the trail does not tell of yet
        self._files = files
        self._compute = compute
        self._wall_clock = wall_clock
        self._queue: deque[Record] = deque()
        self._news = trio.Event()
        self._trail: JsonLinesTrail | None = None  # until it is opened
        self._failing = False

    def record(self, actor: str, action: str, target: str, outcome: str, body: Mapping[str, Any]) -> None:
        """As `AuditTrail.record`."""
        if len(self._queue) >= MAX_QUEUE:
            self.lost += 1
            return
        if self.lost:
            lost, self.lost = self.lost, 0
            self._queue.append(self._made("", "record", "audit", "lost", {"entries": lost}))
        self._queue.append(self._made(actor, action, target, outcome, body))
        self._news.set()

    def _made(self, actor: str, action: str, target: str, outcome: str, body: Mapping[str, Any]) -> Record:
        """A record of now."""
        now = int(self._wall_clock() * 1e9)
        return Record(time_ns=now, actor=actor, action=action, object=target, outcome=outcome, body=body)

    async def _run(self) -> None:
        """Writes what is recorded, for ever."""
        while True:
            await self._news.wait()
            await trio.sleep(PERIOD)
            self._news = trio.Event()
            if not await self._write():
                self._news.set()  # once more, after a period

    async def _write(self) -> bool:
        """Writes all that is queued; False when the disk fails."""
        try:
            while self._queue:
                await self._compute.run(lambda _: self._append_some())
        except StorageError as exc:
            if not self._failing:
                logger.warning("the audit trail waits for the disk: %s", exc)
            self._failing = True
            return False
        self._failing = False
        return True

    def _append_some(self) -> None:
        """Moves records from the queue to the trail, which is opened when that is still to be done.

        In the worker, whole or not at all: a caller that is cancelled need not know how far it came.
        """
        if self._trail is None:
            self._trail = JsonLinesTrail(self._files)
            if self._trail.damage is not None:
                logger.error("%s/%s", self._files, self._trail.damage)
                fault = {"fault": self._trail.damage}
                first = self._queue[0]
                self._queue.appendleft(
                    replace(first, actor="", action="resume", object="audit", outcome="damaged", body=fault)
                )
        batch = [self._queue.popleft() for _ in range(min(MAX_RECORDS, len(self._queue)))]
        try:
            self._trail.append(batch)
        except StorageError:
            self._queue.extendleft(reversed(batch))
            raise

    async def _close(self) -> None:
        """Writes what is left, as far as the disk and the time allow, and closes the file."""
        with trio.move_on_after(CLOSE_GRACE, shield=True):
            await self._write()
            await self._compute.run(lambda _: self._end())

    def _end(self) -> None:
        if self._trail is not None:
            self._trail.close()


@asynccontextmanager
async def open_recorder(
    files: Files | None, wall_clock: Callable[[], float] = time.time, compute: Compute | None = None
) -> AsyncIterator[AuditTrail]:
    """The audit trail in the folder `files`, written while the body runs; without files nothing is kept.

    `wall_clock` is in unix seconds.
    """
    if files is None:
        yield NullTrail()
        return
    recorder = Recorder(files, compute or ThreadCompute(), wall_clock)
    async with open_scope() as nursery:
        nursery.start_soon(recorder._run)
        try:
            yield recorder
        finally:
            nursery.cancel_scope.cancel()
            await recorder._close()
