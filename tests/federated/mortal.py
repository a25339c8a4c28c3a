"""Processes that are killed at a moment of their work on the disk, and what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from p2p.files import Files
from sim.disk import SimDisk
from tests.search.deadly import DeadlyFiles


class Died(BaseException):
    """The process is killed."""


class Reaper:
    """Is called before each moment, and kills at those that it was told, counted from 0 over all lives."""

    def __init__(self, *deaths: int) -> None:
        self.moments: list[str] = []
        self._deaths = list(deaths)

    def kill_in(self, moments: int) -> None:
        """Kills once so many moments more have been lived."""
        self._deaths = [len(self.moments) + moments]

    def __call__(self, what: str = "") -> None:
        if self._deaths and len(self.moments) == self._deaths[0]:
            del self._deaths[0]
            raise Died
        self.moments.append(what)


class Trains(Protocol):
    """What is killed: it makes the update of one round after the other."""

    def train(self, number: int) -> Awaitable[bytes | None]: ...


async def assert_every_kill_is_survived(
    begin: Callable[[Files], Trains], expected: Sequence[bytes | None], kills: int = 1
) -> None:
    """Whenever a member is killed, it makes the `expected` updates: those of one that was not.

    `begin` starts a life on what the one before left on the disk; each is killed `kills` times, in a row.
    """
    moments, moment = list[str](), 0
    while moment <= len(moments):
        disk, reaper = SimDisk(random.Random(moment)), Reaper(*range(moment, moment + kills))
        found: list[bytes | None] = []
        life = begin(DeadlyFiles(disk.mount(), reaper))
        while len(found) < len(expected):
            try:
                found.append(await life.train(len(found) + 1))
            except Died:
                disk.crash()
                life = begin(DeadlyFiles(disk.mount(), reaper))
        assert found == expected
        moments, moment = reaper.moments, moment + 1
    assert moments[0] == "write snapshot-00000001 durably"
