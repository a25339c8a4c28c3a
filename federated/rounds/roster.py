"""Which members are there: who is waited for, and whether there are enough to decide anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import TYPE_CHECKING

from federated.manifest import RoundPolicy
from federated.rounds.capabilities import Capabilities
from federated.rounds.committee import Membership
from federated.rounds.pending import Pending

if TYPE_CHECKING:
    from random import Random

    from federated.rounds.fraud import Frauds

ROUNDING = 1e-9  # so that a share of 0.1 of 30 members is 3, whatever the last bit says


class Roster:
    """Members by their number. One is live when it was heard from, and is connected or was heard lately.

    A connection alone does not count: a peer that has only just started may not listen yet. Whoever
    is lost is not live until it is heard again, perhaps through others; for a while it is awaited all the
    same, so that a member that is started again at once misses nothing.

    Where members repeat themselves all the time, lately is a `window` of seconds. Where they are too many
    for that, the window is endless, and `turn` forgets those that said nothing for a whole round.
    Sets of members are integers with bit i set for member number i.
    """

    def __init__(self, me: int, *, window: float, grace: float) -> None:
        self._window = window  # seconds for which a member that is not connected counts as live
        self._grace = grace  # seconds for which a member that was live and is lost is awaited
        self._live = self._me = 1 << me
        self._look_at = inf  # before this no live member has been silent for too long
        self._turned_at = -inf
        self._lost: dict[int, float] = {}
        self._heard: dict[int, float] = {}
        self._connected: dict[int, bool] = {}

    def hear(self, member: int, now: float) -> bool:
        """A message by the member came in; whether it is back from being lost."""
        self._heard[member] = now
        if self._live >> member & 1:
            return False
        self._live |= 1 << member
        self._look_at = min(self._look_at, now + self._window)
        return self._lost.pop(member, None) is not None

    def connect(self, member: int) -> None:
        """There is a connection to the member."""
        self._connected[member] = True
        if member in self._heard:
            self._live |= 1 << member

    def lose(self, member: int, now: float) -> None:
        """The last connection to the member is gone."""
        self._connected.pop(member, None)
        if self._heard.pop(member, None) is not None:
            self._lost[member] = now
            self._live &= ~(1 << member) | self._me

    def turn(self, now: float) -> None:
        """A round begins: forgets the members without a connection that were silent in the last one."""
        self._forget(self._turned_at)
        self._turned_at = now

    def retain(self, members: int) -> None:
        """Forgets whoever is not among these."""
        for member in [*self._heard, *self._lost, *self._connected]:
            if not members >> member & 1:
                self._heard.pop(member, None)
                self._lost.pop(member, None)
                self._connected.pop(member, None)
        self._live &= members

    def is_live(self, member: int, now: float) -> bool:
        """Whether the member is there, as far as we know; we always are."""
        return bool(self.live(now) >> member & 1)

    def live(self, now: float) -> int:
        """The set of the members that are there."""
        if now > self._look_at:
            self._look_at = self._forget(now - self._window) + self._window
        return self._live

    def awaited(self, now: float) -> int:
        """The live members, and those lost so lately that they may be back at once."""
        found = self.live(now)
        if self._grace and self._lost:
            for member, since in self._lost.items():
                if now - since < self._grace:
                    found |= 1 << member
        return found

    def _forget(self, horizon: float) -> float:
        """Members without a connection that were last heard before it are not live; when the next was."""
        earliest = inf
        for member, heard in self._heard.items():
            if member not in self._connected:
                if heard < horizon:
                    self._live &= ~(1 << member) | self._me
                else:
                    earliest = min(earliest, heard)
        return earliest


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Our place in a task and its terms: what stays the same from round to round but for the members."""

    membership: Membership
    me: int
    sign: Callable[[bytes], bytes]
    rng: Random
    policy: RoundPolicy
    max_update: int  # bytes
    roster: Roster
    pending: Pending
    frauds: Frauds
    capabilities: Capabilities
    period: float  # seconds after which own messages are repeated
    is_drawn: bool  # whether each round has a committee; then only what is missed is said again

    @property
    def minimum(self) -> int:
        """The updates without which a round is skipped."""
        return minimum_of(self.policy, self.membership)


def minimum_of(policy: RoundPolicy, membership: Membership) -> int:
    """The updates without which a round of these members is skipped."""
    return max(1, ceil(policy.min_updates * membership.active.bit_count() - ROUNDING))
