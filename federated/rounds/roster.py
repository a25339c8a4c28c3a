"""Which members are there: who is waited for, and whether there are enough to decide anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from federated.manifest import RoundPolicy
from federated.rounds.committee import Committee

if TYPE_CHECKING:
    from random import Random

ROUNDING = 1e-9  # so that a share of 0.1 of 30 members is 3, whatever the last bit says


class Roster:
    """Members by their number. One is live when it was heard from, and is connected or was heard lately.

    A connection alone does not count: a peer that has only just started may not listen yet. Whoever
    is lost is not live until it is heard again, perhaps through others; for a while it is awaited all the
    same, so that a member that is started again at once misses nothing.
    """

    def __init__(self, size: int, me: int, *, window: float, grace: float) -> None:
        self._size = size
        self._me = me
        self._window = window  # seconds for which a member that is not connected counts as live
        self._grace = grace  # seconds for which a member that was live and is lost is awaited
        self._lost: dict[int, float] = {}
        self._heard: dict[int, float] = {}
        self._connected: dict[int, bool] = {}

    def hear(self, member: int, now: float) -> bool:
        """A message by the member came in; whether it is back from being lost."""
        self._heard[member] = now
        return self._lost.pop(member, None) is not None

    def connect(self, member: int) -> None:
        """There is a connection to the member."""
        self._connected[member] = True

    def lose(self, member: int, now: float) -> None:
        """The last connection to the member is gone."""
        self._connected.pop(member, None)
        if self._heard.pop(member, None) is not None:
            self._lost[member] = now

    def is_live(self, member: int, now: float) -> bool:
        """Whether the member is there, as far as we know; we always are."""
        heard = self._heard.get(member)
        if heard is None:
            return member == self._me
        return member in self._connected or now - heard <= self._window

    def live(self, now: float) -> list[int]:
        """The members that are there, ascending."""
        return [member for member in range(self._size) if self.is_live(member, now)]

    def awaited(self, now: float) -> list[int]:
        """The live members, and those lost so lately that they may be back at once; ascending."""
        back_soon = [member for member, since in self._lost.items() if now - since < self._grace]
        return sorted({*self.live(now), *back_soon})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Our place in a task and its terms: what stays the same from round to round."""

    committee: Committee
    me: int
    sign: Callable[[bytes], bytes]
    rng: Random
    policy: RoundPolicy
    max_update: int  # bytes
    roster: Roster
    period: float  # seconds after which own messages are repeated

    @property
    def minimum(self) -> int:
        """The updates without which a round is skipped."""
        return max(1, ceil(self.policy.min_updates * self.committee.size - ROUNDING))
