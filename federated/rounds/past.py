"""The models that the last rounds began with, and who took part in them: what late updates are judged by.

An update may count in a later round than it was trained for, `staleness` rounds behind the base, if its owner
took part in none of the rounds from that base on: then that training is all that it did meanwhile, and
nobody's work counts twice. Every member that follows the chain comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from federated.rounds.messages import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A model by its `digest`, and the set of the members that took part in a round since."""

    digest: bytes
    participants: int


class Past:
    """The newest rounds of the chain, as many as an update may be late."""

    def __init__(self, max_staleness: int) -> None:
        self._depth = max_staleness
        self._rounds: list[Base] = []  # oldest first, each with those of its own round

    def add(self, certificates: Iterable[Certificate]) -> None:
        """These are the next certificates of the chain."""
        blocks = [certificate.block for certificate in certificates]
        self._rounds += [Base(digest=block.base, participants=block.participants) for block in blocks]
        self._rounds = self._rounds[max(0, len(self._rounds) - self._depth) :]

    def bases(self, current: bytes) -> tuple[Base, ...]:
        """By staleness, the models that an update of the next round may build on; `current` is the first."""
        found, since = [Base(digest=current, participants=0)], 0
        for one in reversed(self._rounds):
            since |= one.participants
            found.append(Base(digest=one.digest, participants=since))
        return tuple(found)
