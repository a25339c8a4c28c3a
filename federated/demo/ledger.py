"""What the peers of a demo have reported so far, and what follows from it (no I/O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Kill:
    """One kill -9: who, in the middle of which round, and the first round it trained in afterwards."""

    peer: str
    round: int
    back_in_round: int | None = None


@dataclass(slots=True)
class RoundRecord:
    """One round as the peers reported it."""

    number: int
    digests: dict[str, str] = field(default_factory=dict)  # by peer
    participants: list[str] = field(default_factory=list)
    accuracy: float | None = None
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    bytes_sent: int = 0  # by all peers since the start
    skipped: bool = False

    @property
    def agreed(self) -> bool:
        """Whether everybody who reported this round reported the same model."""
        return len(set(self.digests.values())) == 1

    @property
    def slowest_phase(self) -> str:
        """The phase that took longest at the first peer that reported."""
        return slowest(self.phases)


class Ledger:
    """The rounds, kills and bytes of one demo."""

    def __init__(self, rounds: int) -> None:
        self.rounds: dict[int, RoundRecord] = {}
        self.kills: list[Kill] = []
        self.finished: dict[str, None] = {}
        self.total_rounds = rounds
        self._bytes: dict[tuple[str, int], int] = {}  # by peer and life

    def add_round(self, peer: str, life: int, event: Mapping[str, Any]) -> RoundRecord:
        """Takes a "round" event of `peer` in its `life`-th process."""
        record = self.rounds.setdefault(event["round"], RoundRecord(event["round"]))
        record.digests[peer] = event["digest"]
        self._bytes[peer, life] = event["bytes_sent"]
        record.bytes_sent = max(record.bytes_sent, self.bytes_sent)
        if not event["catch_up"]:
            record.participants = event["participants"] or record.participants
            record.seconds = max(record.seconds, event["seconds"])
            record.phases = record.phases or dict(event["phases"])
        record.skipped = event["skipped"]
        if event["accuracy"] is not None:
            record.accuracy = event["accuracy"]
        for kill in self.kills:
            if kill.peer in record.participants and kill.round < record.number and kill.back_in_round is None:
                kill.back_in_round = record.number
        return record

    @property
    def last_round(self) -> int:
        """The newest round that anybody finished."""
        return max(self.rounds, default=0)

    @property
    def accuracy(self) -> float | None:
        """Of the newest round that has one."""
        known = [record.accuracy for _, record in sorted(self.rounds.items()) if record.accuracy is not None]
        return known[-1] if known else None

    @property
    def bytes_sent(self) -> int:
        """By all peers, in all their lives."""
        return sum(self._bytes.values())

    @property
    def digests_agree(self) -> bool:
        """Whether every round was reported, and each with one digest."""
        return len(self.rounds) == self.total_rounds and all(record.agreed for record in self.rounds.values())

    @property
    def slowest_phase(self) -> str:
        """The phase that took most time over all rounds."""
        total: dict[str, float] = {}
        for record in self.rounds.values():
            for name, seconds in record.phases.items():
                total[name] = total.get(name, 0.0) + seconds
        return slowest(total)


def slowest(phases: Mapping[str, float]) -> str:
    """The name of the phase that took longest; empty when there is none."""
    return max(phases, key=phases.__getitem__, default="")
