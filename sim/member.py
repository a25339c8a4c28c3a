"""One member of a simulated task: a real round machine, a disk that survives crashes, modelled computing.

Training, validating and averaging are durations here, and a model is the hash of what went into it:
whoever averages the same updates on the same base gets the same model. Journal, votes, signatures and
the encoding of messages are real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from federated.manifest import TaskManifest
from federated.rounds import wire
from federated.rounds.committee import Verify
from federated.rounds.events import (
    Action,
    Adopt,
    AdoptFailed,
    Aggregate,
    Aggregated,
    Checkpoint,
    DigestMismatch,
    Event,
    Fetch,
    Fetched,
    FetchFailed,
    Inputs,
    MessageReceived,
    Misbehaved,
    ModelAdopted,
    PeerConnected,
    PeerLost,
    Publish,
    RoundFinished,
    Started,
    TaskFinished,
    Train,
    Trained,
    Validate,
    Validated,
    WriteJournal,
)
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import LIFETIME, Body, Certificate, Message, Model
from p2p.keys import KeyPair
from p2p.peer_id import PeerId
from sim.actor import Actor
from sim.heap import EventHeap

if TYPE_CHECKING:
    from random import Random

TRAINING = 2.0  # seconds of local work, the median over members and rounds
TRAINING_SPREAD = 0.3  # sigma of its log-normal distribution
VALIDATING = 0.01  # seconds to check one update
AGGREGATING = 0.05  # seconds to average all of them
UPDATE_SIZE = 40_000  # bytes of an update, and of a model


class World(Protocol):
    """What a member needs of the run around it."""

    heap: EventHeap
    rng: Random
    manifest: TaskManifest
    verify: Verify

    def publish(self, source: int, data: bytes) -> None:
        """Sends an announcement to every other member."""

    def fetch(self, source: int, root: bytes, holders: Sequence[PeerId]) -> tuple[float, bool]:
        """(seconds it takes, whether it succeeds) to get content from one of `holders`."""

    def finished_round(self, member: Member, event: RoundFinished) -> None:
        """A member is through with a round."""

    def accused(self, member: Member, event: Misbehaved | DigestMismatch) -> None:
        """A member says that another one broke a rule."""


@dataclass(slots=True)
class Disk:
    """What survives a crash."""

    blobs: dict[bytes, None] = field(default_factory=dict)
    journal: list[Body] = field(default_factory=list)
    certificate: Certificate | None = None


class Member:
    """Member `number` of the task, through all its lives."""

    def __init__(self, number: int, key: KeyPair, world: World) -> None:
        self.number = number
        self.peer_id = PeerId.from_public_key(key.public)
        self.disk = Disk()
        self.alive = False
        self.finished = False
        self._key = key
        self._world = world
        self._initial = _model(sha256(b"initial").digest())
        self._model = self._initial
        self._seq = 0
        self._actor: Actor[Event, Action] | None = None

    def start(self) -> None:
        """Begins, or begins anew from what is on the disk."""
        world = self._world
        machine = RoundMachine(
            manifest=world.manifest,
            peer=self.peer_id,
            sign=self._key.sign,
            rng=world.rng,
            verify=world.verify,
        )
        self._actor = Actor(machine, world.heap, self._perform)
        self.alive = True
        certificate = self.disk.certificate
        self._model = self._initial if certificate is None else certificate.block.model
        self.disk.blobs[self._model.root] = None
        entries = tuple(self.disk.journal)
        self._actor.handle(Started(initial=self._initial, certificate=certificate, entries=entries))

    def crash(self) -> None:
        """kill -9: only the disk stays."""
        self._life.stop()
        self.alive = False

    def connected(self, peer: PeerId, connected: bool) -> None:
        """A connection to `peer` came or went."""
        self._life.handle(PeerConnected(peer=peer) if connected else PeerLost(peer=peer))

    def receive(self, sender: PeerId, data: bytes) -> None:
        """An announcement of `sender` arrived."""
        message = wire.decode(data)
        if message.is_fresh(self._world.heap.now):
            self._life.handle(MessageReceived(sender=sender, body=message.body))

    @property
    def _life(self) -> Actor[Event, Action]:
        assert self._actor is not None, "the member was never started"
        return self._actor

    def _later(self, seconds: float, event: Event, root: bytes | None = None) -> None:
        """`event` comes after `seconds`, unless this life ends before; `root` is at hand then."""
        heap = self._world.heap
        heap.plan(heap.now + seconds, partial(self._arrive, self._life, event, root))

    def _arrive(self, actor: Actor[Event, Action], event: Event, root: bytes | None) -> None:
        if actor is self._actor and self.alive:
            if root is not None:
                self.disk.blobs[root] = None
            actor.handle(event)

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Publish(body=body):
                    self._publish(body)
                case WriteJournal(entries=entries):
                    self.disk.journal += entries
                case Checkpoint(certificate=certificate):
                    self.disk.certificate = certificate
                    self.disk.journal.clear()
                case RoundFinished(model=model):
                    self._model = model
                    self._world.finished_round(self, action)
                case TaskFinished():
                    self.finished = True
                case Misbehaved() | DigestMismatch():
                    self._world.accused(self, action)
                case _:
                    self._compute(action)

    def _compute(self, action: Action) -> None:
        """The actions that take time."""
        match action:
            case Train(round=number, base=base):
                seconds = TRAINING * self._world.rng.lognormvariate(0.0, TRAINING_SPREAD)
                root = _hash(b"update", self.peer_id.raw, number.to_bytes(8, "big"), base.digest)
                trained = Trained(round=number, root=root, size=UPDATE_SIZE, examples=100 + self.number)
                self._later(seconds, trained, root)
            case Fetch(round=number, root=root, holders=holders):
                seconds, found = self._fetch(root, holders)
                event = Fetched(round=number, root=root) if found else FetchFailed(round=number, root=root)
                self._later(seconds, event, root if found else None)
            case Validate(round=number, input=found):
                self._later(VALIDATING, Validated(round=number, root=found.root, rule=None))
            case Aggregate(round=number, inputs=inputs):
                model = _aggregate(self._model, inputs)
                self._later(AGGREGATING, Aggregated(round=number, inputs=inputs, model=model), model.root)
            case Adopt(certificate=certificate, holders=holders):
                root, number = certificate.block.model.root, certificate.round
                seconds, found = self._fetch(root, holders)
                self._later(
                    seconds,
                    ModelAdopted(round=number) if found else AdoptFailed(round=number),
                    root if found else None,
                )
            case _:
                pass  # the rest is for logs

    def _fetch(self, root: bytes, holders: Sequence[PeerId]) -> tuple[float, bool]:
        return (0.0, True) if root in self.disk.blobs else self._world.fetch(self.number, root, holders)

    def _publish(self, body: Body) -> None:
        self._seq += 1
        expiry = int(self._world.heap.now + LIFETIME)
        message = Message(task=self._world.manifest.task_id, seq=self._seq, expiry=expiry, body=body)
        self._world.publish(self.number, wire.encode(message))


def _hash(*parts: bytes) -> bytes:
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def _model(digest: bytes) -> Model:
    return Model(digest=digest, root=_hash(b"model", digest), size=UPDATE_SIZE)


def _aggregate(base: Model, inputs: Inputs) -> Model:
    """The model of these updates on this base."""
    parts = [part for item in inputs for part in (item.root, item.examples.to_bytes(8, "big"))]
    return _model(_hash(b"aggregate", base.digest, *parts))
