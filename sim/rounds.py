"""Scenario `rounds`: the members of one task, each a real round machine, some of which may crash.

Announcements go straight from member to member instead of through gossip. Checked at the end: every
member finished every round, all have the same model after each, and nobody accused an honest member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from federated.manifest import PluginRef, RoundPolicy, TaskManifest
from federated.rounds.committee import Verify, verify_signature
from federated.rounds.events import DigestMismatch, Misbehaved, RoundFinished
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from sim.heap import EventHeap
from sim.member import TRAINING, UPDATE_SIZE, Member
from sim.network import LinkModel, Network, Partition
from sim.report import Check, Figure, Result, Step, Trace

if TYPE_CHECKING:
    from random import Random

POLICY = RoundPolicy(train_deadline_s=10.0, phase_deadline_s=3.0)
PHASES = 8  # of a round, from SYNC to VOTE
JOINING = 1.0  # seconds in which the members come
DOWN = (1.0, 8.0)  # seconds from a crash to the restart, at least and at most
GRACE = 60.0  # seconds beyond what the deadlines allow, for the crashes and the catching up
BANDWIDTH = 10e6  # bytes a second of a fetch
UNREACHABLE = 5.0  # seconds until a fetch gives up on a holder behind a partition


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsSettings:
    """What to simulate. `crashes` times a random member is killed, and started again some seconds later."""

    peers: int
    rounds: int
    seed: int
    crashes: int = 0
    links: LinkModel = field(default_factory=LinkModel)
    partition: Partition | None = None

    @property
    def limit(self) -> float:
        """The virtual second at which the run ends even if members are behind."""
        held = self.partition.end if self.partition is not None else 0.0
        round_limit = POLICY.train_deadline_s + PHASES * POLICY.phase_deadline_s
        return self.rounds * round_limit + self.crashes * DOWN[1] + held + GRACE


def run_rounds(settings: RoundsSettings, rng: Random, step: Step) -> Result:
    """Simulates a task; `rng` is seeded by the caller and is the only source of randomness.

    `step` is told of every round when the first member is through with it.
    """
    return _Rounds(settings, rng, step).run()


class _Rounds:
    """One run: the members, the network between them, and what they came to."""

    def __init__(self, settings: RoundsSettings, rng: Random, step: Step) -> None:
        self.settings, self.rng, self.heap = settings, rng, EventHeap()
        self.verify: Verify = lru_cache(1 << 16)(verify_signature)  # all check the same signatures
        self._step = step
        self._trace = Trace()
        self._network = Network(self.heap, rng, settings.links, self._arrive, settings.partition)
        keys = [
            KeyPair.from_seed(settings.seed.to_bytes(16, "big") + number.to_bytes(16, "big"))
            for number in range(settings.peers)
        ]
        self._members = [Member(number, key, self) for number, key in enumerate(keys)]
        self._numbers = {member.peer_id: member.number for member in self._members}
        self.manifest = _manifest(settings, [member.peer_id for member in self._members])
        self._crash_rounds = sorted(rng.randrange(settings.rounds) for _ in range(settings.crashes))
        self._digests: list[dict[int, bytes]] = [
            {} for _ in range(settings.rounds)
        ]  # round → member → digest
        self._outcomes: list[RoundFinished] = []  # of the first member to finish each round
        self._catch_ups = 0
        self._accusations: list[str] = []

    def run(self) -> Result:
        """The whole run."""
        for member in self._members:
            self.heap.plan(self.rng.uniform(0.0, JOINING), partial(self._start, member))
        self._plan_crashes(0)
        while self.heap.now < self.settings.limit and not self._all_finished():
            self.heap.run(min(self.heap.now + 1.0, self.settings.limit))
        return Result(
            scenario="rounds",
            seed=self.settings.seed,
            peers=self.settings.peers,
            virtual_seconds=self.heap.now,
            events=self.heap.events,
            trace_hash=self._trace.digest(),
            figures=self._figures(),
            checks=self._checks(),
        )

    def _all_finished(self) -> bool:
        return all(member.finished for member in self._members)

    # Lives

    def _start(self, member: Member) -> None:
        self._trace.add(self.heap.now, "start", member.number)
        member.start()
        self._plan_connections(member, True)

    def _crash(self) -> None:
        alive = [member for member in self._members if member.alive]
        if alive:
            member = self.rng.choice(alive)
            self._trace.add(self.heap.now, "crash", member.number)
            member.crash()
            self._plan_connections(member, False)
            self.heap.plan(self.heap.now + self.rng.uniform(*DOWN), partial(self._start, member))

    def _plan_crashes(self, finished: int) -> None:
        """Crashes due in the round after `finished`: at some moment around its training."""
        for number in self._crash_rounds:
            if number == finished:
                self.heap.plan(self.heap.now + JOINING + self.rng.uniform(0.0, 2 * TRAINING), self._crash)

    def _plan_connections(self, member: Member, connected: bool) -> None:
        """Both ends see that connections to `member` opened, or that they are gone."""
        for other in self._members:
            if other is not member and other.alive:
                at = self.heap.now + self._network.latency(member.number, other.number)
                self.heap.plan(at, partial(self._connect, member, other, connected))

    def _connect(self, member: Member, other: Member, connected: bool) -> None:
        if other.alive and member.alive == connected:
            other.connected(member.peer_id, connected)
            if connected:
                member.connected(other.peer_id, True)

    # What members ask for

    def publish(self, source: int, data: bytes) -> None:
        """Sends an announcement to every other member."""
        for target in range(self.settings.peers):
            if target != source:
                self._network.send(source, target, data)

    def _arrive(self, source: int, target: int, data: bytes) -> None:
        self._trace.add(self.heap.now, "arrive", source, target, data)
        if self._members[target].alive:
            self._members[target].receive(self._members[source].peer_id, data)

    def fetch(self, source: int, root: bytes, holders: Sequence[PeerId]) -> tuple[float, bool]:
        """(seconds it takes, whether it succeeds) to get content from the first of `holders` that has it."""
        seconds = 0.0
        for holder in holders:
            member = self._members[self._numbers[holder]]
            partition = self.settings.partition
            if partition is not None and partition.holds(source, member.number, self.heap.now):
                seconds += UNREACHABLE
                continue
            seconds += 2 * self._network.latency(source, member.number)
            if member.alive and root in member.disk.blobs:
                self._network.bytes_sent += UPDATE_SIZE
                return seconds + UPDATE_SIZE / BANDWIDTH, True
        return seconds, False

    def finished_round(self, member: Member, event: RoundFinished) -> None:
        """A member is through with a round."""
        self._trace.add(self.heap.now, "round", member.number, event.round, event.model.digest)
        self._catch_ups += event.catch_up
        if event.round == len(self._outcomes) + 1:
            self._outcomes.append(event)
            self._plan_crashes(event.round)
            self._step(
                {
                    "time": self.heap.now,
                    "round": event.round,
                    "digest": event.model.digest.hex(),
                    "skipped": event.skipped,
                    "participants": len(event.participants),
                }
            )
        self._digests[event.round - 1][member.number] = event.model.digest

    def accused(self, member: Member, event: Misbehaved | DigestMismatch) -> None:
        """A member says that another one broke a rule; here all are honest."""
        self._trace.add(self.heap.now, "accuse", member.number, type(event).__name__)
        self._accusations.append(f"{type(event).__name__} in round {event.round}")

    # What came of it

    def _figures(self) -> dict[str, Figure]:
        counted = [outcome for outcome in self._outcomes if not outcome.skipped]
        took_part = sum(len(outcome.participants) for outcome in counted)
        return {
            "rounds": len(self._outcomes),
            "skipped": len(self._outcomes) - len(counted),
            "seconds_per_round": self.heap.now / max(1, len(self._outcomes)),
            "participants_per_round": took_part / max(1, len(counted)),
            "crashes": self.settings.crashes,
            "rounds_caught_up": self._catch_ups,
            "messages": self._network.messages_sent,
            "bytes_per_peer": self._network.bytes_sent / self.settings.peers,
        }

    def _checks(self) -> list[Check]:
        finished = sum(member.finished for member in self._members)
        split = [number for number, found in enumerate(self._digests, 1) if len(set(found.values())) > 1]
        return [
            Check(
                name="every member finishes",
                holds=finished == self.settings.peers and len(self._outcomes) == self.settings.rounds,
                seen=f"{finished} of {self.settings.peers}, {len(self._outcomes)} rounds",
            ),
            Check(
                name="all models are equal after each round",
                holds=not split,
                seen=f"not after rounds {split[:5]}" if split else "equal digests",
            ),
            Check(
                name="no honest member is accused",
                holds=not self._accusations,
                seen=", ".join(self._accusations[:3]) or "nobody",
            ),
        ]


def _manifest(settings: RoundsSettings, members: Sequence[PeerId]) -> TaskManifest:
    plugin = PluginRef(name="modelled")
    return TaskManifest(
        name="sim",
        seed=settings.seed,
        rounds=settings.rounds,
        members=tuple(str(member) for member in members),
        preprocessor=plugin,
        trainer=plugin,
        aggregator=plugin,
        validator=plugin,
        policy=POLICY,
    )
