"""A network of round machines on one event heap: seeded delays, loss, duplicates, crashes, partitions.

Training, fetching and aggregating are instant or take a drawn time; a disk survives a crash. Every
message goes through the wire format. What must never happen is checked as it happens: two digests
certified for one round, a vote published before it is in the journal, a vote against an earlier one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256, sha512
from random import Random
from typing import Any

from federated.manifest import MAX_COMMITTEE, RoundPolicy, TaskManifest
from federated.rounds import wire
from federated.rounds.actions import (
    Action,
    Adopt,
    Aggregate,
    Audited,
    Checkpoint,
    DigestMismatch,
    Ejected,
    Fetch,
    FetchHistory,
    MembershipChanged,
    Misbehaved,
    Publish,
    Recompute,
    RoundFinished,
    StopTraining,
    TaskFinished,
    TaskLeft,
    Train,
    Validate,
    WriteJournal,
)
from federated.rounds.audits import list_fault
from federated.rounds.changes import Admission
from federated.rounds.committee import Membership
from federated.rounds.events import (
    AdoptFailed,
    Aggregated,
    Event,
    Fetched,
    FetchFailed,
    HistoryFailed,
    HistoryFetched,
    Input,
    MessageReceived,
    ModelAdopted,
    PeerConnected,
    PeerLost,
    Recomputed,
    Started,
    Trained,
    Validated,
    Verdict,
)
from federated.rounds.inputs import unpack_inputs
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import (
    Block,
    Body,
    Certificate,
    Choice,
    Join,
    Message,
    Model,
    Reveal,
    Vote,
)
from p2p.blobs import blob_root
from p2p.peer_id import PeerId
from tests.federated.samples import manifest, members

UPDATE_SIZE = 1000
MODEL_SIZE = 5000
INITIAL = Model(digest=sha256(b"initial").digest(), root=sha256(b"initial root").digest(), size=MODEL_SIZE)


def sign(peer: PeerId, data: bytes) -> bytes:
    """A stand-in for Ed25519 that is as easy to forge as to compute: nobody here forges."""
    return sha512(peer.raw + data).digest()


def verify(peer: PeerId, data: bytes, signature: bytes) -> bool:
    return sign(peer, data) == signature


def aggregate(base: bytes, inputs: Sequence[Input]) -> Model:
    """The model that any peer makes of the same base and inputs."""
    parts = b"".join(
        item.peer.raw + item.root + item.examples.to_bytes(8) + b"late" * item.staleness for item in inputs
    )
    digest = sha256(base + parts).digest()
    return Model(digest=digest, root=sha256(b"root" + digest).digest(), size=MODEL_SIZE)


@dataclass
class Disk:
    """What survives a crash."""

    certificate: Certificate | None = None
    before: Certificate | None = None  # the checkpoint before it: a crash may take the newest one
    history: list[Certificate] = field(default_factory=list)
    journal: list[Body] = field(default_factory=list)
    blobs: dict[bytes, bool] = field(default_factory=dict)
    models: dict[bytes, bool] = field(default_factory=lambda: {INITIAL.root: True})


@dataclass
class Node:
    """A peer: a machine while it runs, and a disk."""

    peer: PeerId
    number: int
    disk: Disk = field(default_factory=Disk)
    machine: RoundMachine | None = None
    life: int = 0
    base: Model = INITIAL
    waiting: list[Event] = field(default_factory=list)
    operations: int = 0  # journal writes, checkpoints and publications so far
    kill_after: int | None = None  # operations after which it dies
    trains: bool = True
    trained: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    finished: list[RoundFinished] = field(default_factory=list)
    notes: list[Action] = field(default_factory=list)
    audits: list[Audited] = field(default_factory=list)
    done: bool = False


class Network:
    """`count` peers with one task; `run` lets time pass."""

    def __init__(
        self,
        count: int,
        seed: int = 0,
        *,
        rounds: int = 3,
        delay: tuple[float, float] = (0.01, 0.05),
        loss: float = 0.0,
        duplicates: float = 0.0,
        training: tuple[float, float] = (0.1, 1.0),
        notice: tuple[float, float] = (0.0, 0.5),
        train_deadline_s: float = 4.0,
        phase_deadline_s: float = 2.0,
        quorum: float = 1.0,
        min_updates: float = 0.5,
        grace_s: float = 0.0,
        committee: int = MAX_COMMITTEE,
        max_staleness: int = 0,
        max_loss_rise: float | None = None,
    ) -> None:
        policy = RoundPolicy(
            train_deadline_s=train_deadline_s,
            phase_deadline_s=phase_deadline_s,
            quorum=quorum,
            min_updates=min_updates,
            grace_s=grace_s,
            max_staleness=max_staleness,
            max_loss_rise=max_loss_rise,
        )
        self.manifest: TaskManifest = manifest(
            members=members(count), rounds=rounds, policy=policy, committee=committee
        )
        self.rng = Random(seed)
        self.now = 0.0
        self.delay, self.loss, self.duplicates, self.training = delay, loss, duplicates, training
        self.notice = notice  # how long it takes to see that a connection came or went
        self.rule: Callable[[Node, Input], str | None] = lambda node, item: None
        self.aggregate: Callable[[Node, Aggregate], Event] = self.add_up
        self.lag: Callable[[Node, Action], float] = lambda node, action: 0.0
        self.recompute: Callable[[Node, Recompute], Recomputed] = self.compute_again
        self.lists: dict[bytes, bytes] = {}  # what was ever aggregated, by root
        self.blocked: Callable[[Node, bytes], bool] = lambda node, root: False
        self.lags = 0.0  # how likely a crash takes a checkpoint with it that is not on the disk yet
        self.together = 0.0  # seconds for which events wait for others, to be told at once
        self.tamper: Callable[[Node, Node, Body], Body | None] = lambda sender, to, body: body
        self.nodes = [Node(peer, number) for number, peer in enumerate(self.manifest.peer_ids)]
        self.admission: Admission | None = None
        self.serves = True  # whether peers give certificates to those that ask for a range
        self.certified: dict[int, bytes] = {}
        self.blocks: dict[int, Block] = {}
        self.memberships: dict[int, Membership] = {}  # after the rounds that changed it
        self.sent: list[tuple[float, int, Body]] = []
        self._votes: dict[tuple[int, int, int, Choice], bytes] = {}
        self._groups: list[int] = [0] * count
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = 0

    # time

    def at(self, when: float, what: Callable[[], object]) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, what))

    def after(self, span: tuple[float, float], what: Callable[[], None]) -> None:
        self.at(self.now + self.rng.uniform(*span), what)

    def run(self, until: Callable[[], bool], limit: float) -> None:
        """Lets time pass until it is so; fails when it is not by `limit`."""
        while not until():
            assert self._heap, f"nothing will ever happen again, at {self.now}"
            when, _, what = heapq.heappop(self._heap)
            assert when <= limit, f"not done by {limit}: {[self.state(node) for node in self.nodes]}"
            self.now = when
            what()

    def run_for(self, seconds: float) -> None:
        """Lets a span of time pass."""
        end = [False]
        self.at(self.now + seconds, partial(end.__setitem__, 0, True))
        self.run(lambda: end[0], self.now + seconds)

    def finish(self, within: float) -> None:
        """Runs until all live peers have finished the task."""
        self.run(lambda: all(node.done for node in self.alive()), self.now + within)

    def state(self, node: Node) -> str:
        machine = node.machine
        return "down" if machine is None else f"{machine.round}:{machine.phase.value}"

    def membership(self, rounds: int) -> Membership:
        """The members after so many rounds."""
        made = Membership(self.manifest.task_id, self.manifest.peer_ids)
        for number in range(1, rounds + 1):
            made = made.apply(self.blocks[number].changes)
        return made

    # faults

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.machine is not None]

    def start(self, *nodes: Node) -> None:
        """Starts peers, all of them when none is named, from their disks."""
        for node in nodes or self.nodes:
            if node.machine is not None:
                continue
            node.life += 1
            node.done = False
            node.waiting = []
            node.machine = RoundMachine(
                manifest=self.manifest,
                peer=node.peer,
                sign=partial(sign, node.peer),
                rng=self.rng,
                verify=verify,
                membership=self.membership(len(node.disk.history)),
                admission=self.admission,
            )
            node.base = node.disk.certificate.block.model if node.disk.certificate else INITIAL
            entries = [wire.encode_entry(self.manifest.task_id, entry) for entry in node.disk.journal]
            restored = tuple(wire.decode_entry(self.manifest.task_id, entry) for entry in entries)
            event = Started(
                initial=INITIAL,
                certificate=node.disk.certificate,
                entries=restored,
                history=tuple(node.disk.history),
            )
            self.tell(node, node.life, event)
            for other in self.alive():
                if other is not node and self._reaches(node, other):
                    self._notice(node, other, PeerConnected)
                    self._notice(other, node, PeerConnected)

    def ask(self, who: PeerId, credential: bytes) -> Node:
        """A peer that asks to join, and starts once it is a member; it knows the chain then."""
        node = Node(who, len(self.nodes))
        self.nodes.append(node)
        self._groups.append(0)
        self._ask(node, credential)
        return node

    def _ask(self, node: Node, credential: bytes) -> None:
        number = len(self.blocks)
        if self.membership(number).is_active(node.peer):
            best = max(self.nodes, key=lambda other: len(other.disk.history))
            node.disk.history = list(best.disk.history)
            self.start(node)
        else:
            self._publish(node, Join(round=number + 1, credential=credential))
            self.after((0.5, 1.0), partial(self._ask, node, credential))

    def kill(self, node: Node) -> None:
        if node.machine is not None:
            node.machine = None
            node.kill_after = None
            if self.rng.random() < self.lags:
                self._lose_checkpoint(node)
            for other in self.alive():
                if self._reaches(node, other):
                    self._notice(other, node, PeerLost)

    def _lose_checkpoint(self, node: Node) -> None:
        """The newest checkpoint was not on the disk yet; that of the last round is before it is reported."""
        disk = node.disk
        if disk.certificate is None or disk.certificate.round >= self.manifest.rounds:
            return
        disk.certificate = disk.before
        del disk.history[0 if disk.before is None else disk.before.round :]

    def divide(self, groups: Sequence[int]) -> None:
        """Splits the network into groups (by number, one for each peer), or heals it."""
        before, self._groups = self._groups, list(groups)
        for one in self.alive():
            for other in self.alive():
                was = before[one.number] == before[other.number]
                if one is not other and was != self._reaches(one, other):
                    self._notice(one, other, PeerLost if was else PeerConnected)

    def heal(self) -> None:
        self.divide([0] * len(self.nodes))

    def _reaches(self, one: Node, other: Node) -> bool:
        return self._groups[one.number] == self._groups[other.number]

    def _notice(self, node: Node, other: Node, event: type[PeerConnected] | type[PeerLost]) -> None:
        self.after(self.notice, partial(self.tell, node, node.life, event(peer=other.peer)))

    # what machines are told and ask for

    def tell(self, node: Node, life: int, event: Event) -> None:
        if node.machine is None or node.life != life:
            return
        if not self.together:
            self._carry_out(node, node.machine.handle(event, self.now))
            return
        if not node.waiting:
            self.at(self.now + self.together, partial(self._tell_all, node, life))
        node.waiting.append(event)

    def _tell_all(self, node: Node, life: int) -> None:
        if node.machine is not None and node.life == life:
            waiting, node.waiting = node.waiting, []
            self._carry_out(node, node.machine.handle_all(waiting, self.now))

    def _tick(self, node: Node, life: int, when: float) -> None:
        if node.machine is not None and node.life == life and node.machine.next_deadline() == when:
            actions = node.machine.handle_timer(self.now)
            following = node.machine.next_deadline()
            assert following is None or following > self.now, "the timer would spin"
            self._carry_out(node, actions)

    def _carry_out(self, node: Node, actions: Sequence[Action]) -> None:
        life = node.life
        for action in actions:
            if node.kill_after == node.operations and isinstance(action, WriteJournal | Checkpoint | Publish):
                self.kill(node)
            if node.life != life or node.machine is None:
                return
            self._do(node, action)
        if node.machine is not None:
            when = node.machine.next_deadline()
            if when is not None:
                self.at(max(when, self.now), partial(self._tick, node, life, when))

    def _do(self, node: Node, action: Action) -> None:
        reply = partial(self._reply, node, node.life, self.lag(node, action))
        match action:
            case WriteJournal(entries=entries):
                node.operations += 1
                node.disk.journal.extend(entries)
            case Checkpoint(certificate=certificate):
                node.operations += 1
                assert certificate.block.model.root in node.disk.models
                digest = certificate.block.model.digest
                known = self.certified.setdefault(certificate.round, digest)
                assert known == digest, f"two models are certified for round {certificate.round}"
                for link in action.chain:
                    assert self.blocks.setdefault(link.round, link.block) == link.block
                    if link.round > len(node.disk.history):
                        assert link.round == len(node.disk.history) + 1
                        node.disk.history.append(link)
                assert link == certificate
                node.disk.before, node.disk.certificate = node.disk.certificate, certificate
            case Publish(body=body):
                node.operations += 1
                self._publish(node, body)
            case Train(round=number, base=base):
                assert base == node.base
                node.trained.append(number)
                if node.trains:
                    self.after(self.training, partial(self.train, node, node.life, number))
            case Fetch(round=number, root=root, holders=holders):
                found = any(root in holder.disk.blobs for holder in self._reachable(node, holders))
                found = found and not self.blocked(node, root)
                if found:
                    node.disk.blobs[root] = True
                reply(Fetched(round=number, root=root) if found else FetchFailed(round=number, root=root))
            case Validate(round=number, input=item):
                assert item.root in node.disk.blobs
                reply(Validated(round=number, root=item.root, rule=self.rule(node, item)))
            case Aggregate(inputs=inputs):
                assert all(item.root in node.disk.blobs for item in inputs)
                root = blob_root(action.listed)
                self.lists[root] = action.listed
                node.disk.blobs[root] = True
                reply(self.aggregate(node, action))
            case Recompute():
                reply(self.recompute(node, action))
            case Adopt(certificate=certificate, holders=holders):
                root, number = certificate.block.model.root, certificate.round
                found = any(root in holder.disk.models for holder in self._reachable(node, holders))
                if found:
                    node.disk.models[root] = True
                reply(ModelAdopted(round=number) if found else AdoptFailed(round=number))
            case FetchHistory(first=first, count=count, holders=holders):
                others = self._reachable(node, holders)[1:] if self.serves else []
                found = [holder for holder in others if len(holder.disk.history) >= first]
                sent = tuple(found[0].disk.history[first - 1 : first - 1 + count]) if found else ()
                failed = HistoryFailed()
                reply(HistoryFetched(holder=found[0].peer, certificates=sent) if sent else failed)
            case MembershipChanged(round=number, membership=membership):
                known = self.memberships.setdefault(number, membership)
                assert known == membership, f"two memberships after round {number}"
                node.notes.append(action)
            case Ejected() | TaskLeft():
                node.notes.append(action)
                node.done |= isinstance(action, TaskLeft)
            case RoundFinished(model=model):
                node.base = model
                node.finished.append(action)
            case TaskFinished():
                node.done = True
            case StopTraining(round=number):
                node.stopped.append(number)
            case DigestMismatch() | Misbehaved():
                node.notes.append(action)
            case Audited():
                node.audits.append(action)
            case _:
                pass

    def _reachable(self, node: Node, holders: Sequence[PeerId]) -> list[Node]:
        by_peer = {item.peer: item for item in self.nodes}
        others = [by_peer[peer] for peer in holders]
        return [node, *(other for other in others if other.machine and self._reaches(node, other))]

    def _reply(self, node: Node, life: int, lag: float, event: Event) -> None:
        self.at(self.now + lag + self.rng.uniform(*self.delay), partial(self.tell, node, life, event))

    def train(self, node: Node, life: int, number: int) -> None:
        if node.life == life and node.machine is not None:
            root = sha256(node.peer.raw + bytes([number]) + self.rng.randbytes(8)).digest()
            node.disk.blobs[root] = True
            examples = 10 + node.number
            event = Trained(round=number, root=root, size=UPDATE_SIZE, examples=examples)
            self.tell(node, life, event)

    def add_up(self, node: Node, action: Aggregate) -> Aggregated:
        model = aggregate(node.base.digest, action.inputs)
        node.disk.models[model.root] = True
        return Aggregated(round=action.round, inputs=action.inputs, model=model)

    def compute_again(self, node: Node, action: Recompute) -> Recomputed:
        """What `action` comes to at a member that tells the truth."""
        block = action.certificate.block
        found = Recomputed(round=block.round, block=block.hash, verdict=Verdict.UNAVAILABLE)
        if not self._gather(node, [block.inputs], action.holders):
            return found
        inputs = unpack_inputs(self.lists[block.inputs], action.membership)
        rule = list_fault(inputs, action)
        if rule is None:
            for item in inputs:
                if not self._gather(node, [item.root], (item.peer, *action.holders)):
                    return found
            rules = [self.rule(node, item) for item in inputs]
            made = aggregate(action.base.digest, inputs)
            wrong = None if made == block.model else "digest"
            rule = next((one for one in [*rules, wrong] if one is not None), None)
        if rule is not None:
            node.disk.models[action.base.root] = True
        return replace(found, verdict=Verdict.AGREES if rule is None else Verdict.DIFFERS, rule=rule)

    def _gather(self, node: Node, roots: Sequence[bytes], holders: Sequence[PeerId]) -> bool:
        """Gets blobs from others; whether all are at hand."""
        holding = [holder.disk.blobs for holder in self._reachable(node, holders)]
        found = all(any(root in blobs for blobs in holding) for root in roots)
        found = found and not any(self.blocked(node, root) for root in roots)
        if found:
            node.disk.blobs |= dict.fromkeys(roots, True)
        return found

    def _publish(self, node: Node, body: Body) -> None:
        if isinstance(body, Vote):
            self._check_vote(node, body)
        message = Message(task=self.manifest.task_id, seq=node.operations, expiry=60, body=body)
        decoded = wire.decode(wire.encode(message))
        assert decoded == message
        self.sent.append((self.now, node.number, body))
        for other in self.nodes:
            if other is node or not self._reaches(node, other) or self.rng.random() < self.loss:
                continue
            tampered = self.tamper(node, other, decoded.body)
            if tampered is None:
                continue
            event = MessageReceived(sender=node.peer, body=tampered)
            for _ in range(2 if self.rng.random() < self.duplicates else 1):
                self.after(self.delay, partial(self._deliver, node, other, event))

    def _deliver(self, node: Node, other: Node, event: Event) -> None:
        if self._reaches(node, other):
            self.tell(other, other.life, event)

    def _check_vote(self, node: Node, vote: Vote) -> None:
        assert vote in node.disk.journal, "published before it was written"
        key = (node.number, vote.round, vote.view)
        assert self._votes.setdefault((*key, vote.choice), vote.block) == vote.block, "voted twice"
        both = all((*key, choice) in self._votes for choice in (Choice.NULLIFY, Choice.FINALIZE))
        assert not both, "nullified and finalized in one view"


def bodies(network: Network, kind: type[Any], number: int | None = None) -> list[Any]:
    """What was published of one kind, by one peer or by all."""
    found = [(sender, body) for _, sender, body in network.sent if isinstance(body, kind)]
    return [body for sender, body in found if number in (None, sender)]


def updates(network: Network, node: Node) -> dict[int, list[bytes]]:
    """The roots that a peer revealed, by round."""
    found: dict[int, list[bytes]] = {}
    for body in bodies(network, Reveal, node.number):
        roots = found.setdefault(body.round, [])
        if body.root not in roots:
            roots.append(body.root)
    return found
