"""What the peers of a demo have reported so far about one task, and what follows from it (no I/O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from federated.rounds.changes import is_true, proof_hash, unpack_evidence
from federated.rounds.committee import verify_signature
from federated.rounds.messages import MessageError


@dataclass(slots=True, kw_only=True)
class Kill:
    """One kill -9: who, in the middle of which round, and the first round it trained in afterwards."""

    peer: str
    round: int
    back_in_round: int | None = None


@dataclass(slots=True, kw_only=True)
class Ejection:
    """Who is no member any more, by the certificate of which round.

    `evidence` is the two votes that exclude each other, in bytes, with their `votes` in words; both
    are None until somebody reported them. `proven` when both signatures are the peer's.
    """

    peer: str
    round: int
    proof: str
    evidence: str | None = None
    votes: list[dict[str, Any]] | None = None
    proven: bool = False


@dataclass(slots=True)
class RoundRecord:
    """One round as the peers reported it."""

    number: int
    digests: dict[str, str] = field(default_factory=dict)  # by peer
    blocks: dict[str, str] = field(default_factory=dict)  # that a certificate is for, by peer
    participants: list[str] = field(default_factory=list)
    accuracy: float | None = None
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    bytes_sent: int = 0  # by all peers since the start
    skipped: bool = False
    view: int = 0  # in which it was certified, at the first peer that reported
    votes: int = 0  # in that certificate

    @property
    def agreed(self) -> bool:
        """Whether everybody who reported this round reported the same model."""
        return len(set(self.digests.values())) == 1

    @property
    def certified(self) -> bool:
        """Whether there is a certificate, and everybody's is for the same block."""
        return len(set(self.blocks.values())) == 1

    @property
    def slowest_phase(self) -> str:
        """The phase that took longest at the first peer that reported."""
        return slowest(self.phases)


class Ledger:
    """The rounds, kills, ejections and bytes of the task whose id is `task`, and which people call `name`.

    `traffic` has the bytes that each life of each peer sent, for all tasks of a demo together.
    """

    def __init__(
        self,
        rounds: int,
        task: bytes = bytes(32),
        traffic: dict[tuple[str, int], int] | None = None,
        name: str = "",
    ) -> None:
        self.name = name
        self.rounds: dict[int, RoundRecord] = {}
        self.kills: list[Kill] = []
        self.ejections: dict[str, Ejection] = {}  # by peer
        self.finished: dict[str, None] = {}
        self.total_rounds = rounds
        self._task = task
        self._evidence: dict[str, Mapping[str, Any]] = {}  # by its hash
        self._traffic = {} if traffic is None else traffic

    def add_round(self, peer: str, life: int, event: Mapping[str, Any]) -> RoundRecord:
        """Takes a "round" event of `peer` in its `life`-th process."""
        record = self._record(event)
        record.digests[peer] = event["digest"]
        self._traffic[peer, life] = event["bytes_sent"]
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

    def add_certificate(self, peer: str, event: Mapping[str, Any]) -> None:
        """Takes a "certificate" event of `peer`."""
        record = self._record(event)
        record.blocks[peer] = event["block"]
        record.view, record.votes = record.view or event["view"], record.votes or event["votes"]

    def add_change(self, event: Mapping[str, Any]) -> Ejection | None:
        """Takes a "membership" event; the ejection, when it is one that was not known."""
        peer = event["peer"]
        if event["change"] != "eject" or peer in self.ejections:
            return None
        ejection = self.ejections[peer] = Ejection(peer=peer, round=event["round"], proof=event["proof"])
        self._prove(ejection)
        return ejection

    def add_evidence(self, event: Mapping[str, Any]) -> None:
        """Takes an "evidence" event."""
        self._evidence[event["proof"]] = event
        for ejection in self.ejections.values():
            self._prove(ejection)

    def _prove(self, ejection: Ejection) -> None:
        """Checks the evidence for an ejection, as anybody can, once it was reported."""
        event = self._evidence.get(ejection.proof)
        if event is None or ejection.proven:
            return
        ejection.evidence, ejection.votes = event["evidence"], event["votes"]
        packed = bytes.fromhex(event["evidence"])
        try:
            evidence = unpack_evidence(packed)
        except MessageError:
            return
        named = proof_hash(packed).hex() == ejection.proof and str(evidence.peer) == ejection.peer
        ejection.proven = named and is_true(self._task, evidence, verify_signature)

    def _record(self, event: Mapping[str, Any]) -> RoundRecord:
        return self.rounds.setdefault(event["round"], RoundRecord(event["round"]))

    @property
    def last_round(self) -> int:
        """The newest round that anybody finished."""
        return max((number for number, record in self.rounds.items() if record.digests), default=0)

    @property
    def accuracy(self) -> float | None:
        """Of the newest round that has one."""
        known = [record.accuracy for _, record in sorted(self.rounds.items()) if record.accuracy is not None]
        return known[-1] if known else None

    @property
    def bytes_sent(self) -> int:
        """By all peers, in all their lives."""
        return sum(self._traffic.values())

    @property
    def digests_agree(self) -> bool:
        """Whether every round was reported, and each with one digest."""
        return len(self.rounds) == self.total_rounds and all(record.agreed for record in self.rounds.values())

    @property
    def certified(self) -> int:
        """How many rounds have a certificate, the same for everybody."""
        return sum(record.certified for record in self.rounds.values())

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
