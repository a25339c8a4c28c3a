"""What the members of a task say that they can do, and when this one says it.

Each member's newest announcement counts, one a round at most, for as long as it is a member. Our own is
published

    with the first Hello                        though perhaps nobody listens yet
    when a round begins, or is in progress      if it changed, at most once a round
    when a round begins                         in a small task, also if members have come since

Nobody can check what another one announces, so it only decides who does which work: a false one costs
whoever makes it, or a detour, but is never part of what is certified. A member that announces nothing
is taken to be able.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from federated.rounds.messages import Capability

if TYPE_CHECKING:
    from collections.abc import Mapping


class Capabilities:
    """The newest capability of each member, by its number; `me` is ours.

    `is_drawn` says that the members are too many to say everything again to each one who comes.
    """

    def __init__(self, me: int, *, is_drawn: bool) -> None:
        self._me = me
        self._is_drawn = is_drawn
        self._known: dict[int, Capability] = {}
        self._changed = False  # since our own was announced
        self._said = 0  # the round in which that was
        self._told = 0  # the members that were live then

    @property
    def known(self) -> Mapping[int, Capability]:
        """By member; ours is as we know it."""
        return self._known

    def hear(self, member: int, capability: Capability) -> bool:
        """Another member announces itself; whether that is news."""
        known = self._known.get(member)
        if known is not None and capability.round <= known.round:
            return False
        self._known[member] = capability
        return True

    def measure(self, capability: Capability) -> None:
        """Ours is this by now."""
        self._known[self._me] = capability
        self._changed = True

    def first(self, round_number: int) -> Capability | None:
        """What to announce before any round has begun; None when there is nothing, or one has."""
        own = self._known.get(self._me)
        return None if own is None or self._said else replace(own, round=round_number)

    def due(self, round_number: int, live: int) -> Capability | None:
        """What to announce in this round, to the members in the set `live`; None when there is no need."""
        own = self._known.get(self._me)
        strangers = 0 if self._is_drawn else live & ~self._told
        if own is None or round_number <= self._said or not (self._changed or strangers):
            return None
        self._said, self._told, self._changed = round_number, live, False
        return replace(own, round=round_number)

    def lose(self, member: int) -> None:
        """The member is lost, and forgets us if it stopped."""
        self._told &= ~(1 << member)

    def retain(self, members: int) -> None:
        """Forgets whoever is not in the set."""
        self._known = {member: known for member, known in self._known.items() if members >> member & 1}
