"""The observer of a run: everything that happens goes into the hash, the series and the invariants.

    rung ──→ Recorder ──→ TraceHash           equal hashes: the run went the same way
                     ├──→ Ledger, Operations, Rounds, Presence, Samples   what figures and plots are made of
                     ├──→ Violations          rules that were broken, at once
                     └──→ PubsubTrace         a file for go-libp2p-pubsub's tools, if one is wanted

Beside what rungs tell, whoever plans the load says what is to be expected: `began` and `entered`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from p2p.gossipsub.params import GossipsubParams
from sim.record.invariants import Violations
from sim.record.ledger import Ledger, Message
from sim.record.presence import Presence
from sim.record.series import Operations, Pending, PerSecond, Round, Rounds, Samples, Scores, short_hash
from sim.record.trace import TraceHash

if TYPE_CHECKING:
    from sim.heap import EventHeap
    from sim.record.pubsub_trace import PubsubTrace
    from sim.rung import Rung
    from sim.scenario.model import Scenario

SCORES_EVERY = 5.0  # virtual seconds between two looks at the scores
JUDGES = 64  # honest nodes whose scores are looked at: of a large network that is enough, and costs little
OVERGROWN = 5  # samples in a row: a heartbeat prunes, and comes once a second
EDGES = 1_000_000  # connections that are kept for the drawing
FORGOTTEN = ("twice", "commitment")  # rules that a member breaks unknowingly when its disk was lost meanwhile


class Traffic(Protocol):
    """What the network has counted: bytes by node."""

    @property
    def sent_by(self) -> Sequence[int]:
        """Bytes that each node sent."""

    @property
    def received_by(self) -> Sequence[int]:
        """Bytes that each node got."""


class Recorder:
    """Implements `sim.rung.Observer`, for one run.

    `honest(node)` is true of nodes whose word counts; `calm(begin, end)` of an interval in which nothing
    was wrong. `trace` is shared with the rung, which calls its `frame` for what arrives.
    """

    def __init__(
        self,
        heap: EventHeap,
        scenario: Scenario,
        *,
        honest: Callable[[int], bool],
        calm: Callable[[float, float], bool],
        events: PubsubTrace | None = None,
    ) -> None:
        self.heap, self.scenario, self.honest, self.calm = heap, scenario, honest, calm
        self.trace = TraceHash()
        self.ledger = Ledger(scenario.peers)
        self.presence = Presence(scenario.peers)
        self.operations, self.rounds, self.samples = Operations(), Rounds(), Samples()
        self.scores = Scores()
        self.longest_eclipse = 0.0  # seconds
        self._has_adversaries = bool(scenario.adversaries)
        self.duplicates, self.rejections = PerSecond(), PerSecond()
        self.connects, self.disconnects = PerSecond(), PerSecond()
        self.duplicates_of = array("Q", (0,)) * scenario.peers  # by node
        self.sent_by, self.received_by = array("Q"), array("Q")  # bytes by node, after `finish`
        self.accusations: dict[str, int] = {}  # by rule, of anybody
        self.waits: dict[str, int] = {}  # by reason
        self.graylistings = 0  # of adversaries, by honest nodes
        self.violations = Violations()
        self._events = events
        self._topics = sorted({load.topic for load in scenario.gossip})
        self._mesh_high = GossipsubParams().mesh_high
        self._scores_at = 0.0
        self._eclipsed: dict[tuple[int, str], float] = {}  # since when most of a mesh are adversaries
        self._overgrown: dict[tuple[int, str], tuple[Sequence[int], int]] = {}  # and samples in a row of it
        self._forgetful: dict[int, None] = {}  # nodes that lost their disks

    @property
    def trace_hash(self) -> str:
        """The hash of everything so far."""
        return self.trace.digest()

    # What whoever plans the load says

    def began(self, operation: int, node: int, kind: str, expected: bytes | None = None) -> None:
        """A DHT operation is handed to its node; `expected` is the value that a get should return."""
        wanted = None if expected is None else short_hash(expected)
        self.operations.pending[operation] = Pending(
            node=node, kind=kind, began=self.heap.now, expected=wanted
        )

    def entered(self, node: int, task: str) -> None:
        """The node is a member of the training task."""
        self.rounds.members.setdefault(task, {})[node] = None

    def lost_disk(self, node: int) -> None:
        """The node does not know any more what it said: it may commit itself to something else."""
        self._forgetful[node] = None

    def sample(self, rung: Rung) -> None:
        """Looks at the network as it is now: once per virtual second, between events."""
        samples, degrees, meshes = self.samples, [], []
        for node in range(self.scenario.peers):
            if rung.alive(node):
                degrees.append(len(rung.connected(node)))
                meshes += self._mesh_sizes(rung, node)
        if self.scenario.gossip and self.heap.now >= self._scores_at:
            self._scores_at = self.heap.now + SCORES_EVERY
            self._look_at_scores(rung)
        samples.times.append(self.heap.now)
        samples.running.append(len(degrees))
        samples.degree.add(degrees)
        samples.mesh.add(meshes)

    def finish(self, rung: Rung, traffic: Traffic) -> None:
        """Takes the last sample, the connections that are left and the bytes of each node."""
        if not self.samples.times or self.samples.times[-1] < self.heap.now:
            self.sample(rung)
        edges = self.samples.edges
        for node in range(self.scenario.peers):
            if rung.alive(node) and len(edges) < 2 * EDGES:
                edges.extend(end for other in rung.connected(node) if other > node for end in (node, other))
        self.sent_by, self.received_by = array("Q", traffic.sent_by), array("Q", traffic.received_by)
        if self._events is not None:
            self._events.flush()

    # What the rung says: sim.rung.Observer

    def started(self, node: int) -> None:
        """The node's process runs."""
        self.trace.note(self.heap.now, "started", node)
        self.presence.start(node, self.heap.now)

    def crashed(self, node: int) -> None:
        """The node's process is gone."""
        self.trace.note(self.heap.now, "crashed", node)
        self.presence.crash(node, self.heap.now)

    def connected(self, node: int, other: int) -> None:
        """`node` has a connection to `other`."""
        self.trace.note(self.heap.now, "connected", node, other)
        self.connects.add(self.heap.now)
        if self._events is not None:
            self._events.add_peer(self.heap.now, node, other)

    def disconnected(self, node: int, other: int) -> None:
        """`node` has no connection to `other` any more."""
        self.trace.note(self.heap.now, "disconnected", node, other)
        self.disconnects.add(self.heap.now)
        if self._events is not None:
            self._events.remove_peer(self.heap.now, node, other)

    def joined(self, node: int, topic: str) -> None:
        """The node's router joined the topic."""
        self.trace.note(self.heap.now, "joined", node, topic)
        self.presence.join(node, topic, self.heap.now)
        if self._events is not None:
            self._events.join(self.heap.now, node, topic)

    def left(self, node: int, topic: str) -> None:
        """The node's router left the topic."""
        self.trace.note(self.heap.now, "left", node, topic)
        self.presence.leave(node, topic)
        if self._events is not None:
            self._events.leave(self.heap.now, node, topic)

    def grafted(self, node: int, other: int, topic: str) -> None:
        """`other` is in the node's mesh of the topic."""
        self.trace.note(self.heap.now, "grafted", node, other, topic)
        if self._events is not None:
            self._events.graft(self.heap.now, node, other, topic)

    def pruned(self, node: int, other: int, topic: str) -> None:
        """`other` is in the node's mesh of the topic no more."""
        self.trace.note(self.heap.now, "pruned", node, other, topic)
        if self._events is not None:
            self._events.prune(self.heap.now, node, other, topic)

    def graylisted(self, node: int, other: int) -> None:
        """The node's router hears nothing from `other` any more."""
        self.trace.note(self.heap.now, "graylisted", node, other)
        if self.honest(node) and self.honest(other):
            seen = f"node {other} is not heard any more"
            self.violations.add(self.heap.now, node, "no honest node graylists another", seen)
        elif self.honest(node):
            self.graylistings += 1

    def published(self, node: int, topic: str, message_id: bytes, size: int) -> None:
        """The node published a message of `size` payload bytes."""
        now = self.heap.now
        self.trace.note(now, "published", node, topic, message_id, size)
        if self.ledger.find(message_id) is not None:
            if self.honest(node):
                self.violations.add(now, node, "a message id is used once", f"{message_id.hex()} on {topic}")
            return
        self.ledger.publish(message_id, topic, node, size, now)
        if self._events is not None:
            self._events.publish(now, node, topic, message_id)

    def delivered(self, node: int, topic: str, message_id: bytes, origin: int, received_from: int) -> None:
        """The node's application got a message for the first time."""
        now, message = self.heap.now, self.ledger.find(message_id)
        if message is None:
            message = self._unpublished(node, topic, message_id, origin)
        self.trace.delivery(now, node, message.number, origin, received_from)
        if not self.ledger.deliver(message, node, received_from, now, self.presence.since(node)):
            seen = f"message {message.ordinal} of node {origin} came again, from {received_from}"
            self.violations.add(now, node, "nobody gets a message twice", seen)
        if self._events is not None:
            self._events.deliver(now, node, topic, message_id, received_from)

    def duplicated(self, node: int, count: int) -> None:
        """The node received `count` copies of messages that it had."""
        self.trace.note(self.heap.now, "duplicated", node, count)
        self.duplicates.add(self.heap.now, count)
        self.duplicates_of[node] += count

    def rejected(self, node: int, count: int) -> None:
        """The node refused `count` messages."""
        self.trace.note(self.heap.now, "rejected", node, count)
        self.rejections.add(self.heap.now, count)

    def looked_up(
        self, node: int, operation: int, *, kind: str, ok: bool, seconds: float, hops: int, result: bytes
    ) -> None:
        """A DHT operation ended."""
        now = self.heap.now
        self.trace.note(now, "looked up", node, operation, kind, ok, seconds, hops, result)
        self.operations.add(
            operation, kind=kind, node=node, at=now, seconds=seconds, hops=hops, ok=ok, result=result
        )

    def finished_round(
        self,
        node: int,
        task: str,
        number: int,
        *,
        digest: bytes,
        skipped: bool,
        participants: int,
        measured: Mapping[str, float | None],
    ) -> None:
        """The node is through with a round."""
        now, parts = self.heap.now, [part for name in sorted(measured) for part in (name, measured[name])]
        self.trace.note(now, "finished round", node, task, number, digest, skipped, participants, *parts)
        if not self.honest(node):
            return
        fresh = Round(
            task=task,
            number=number,
            digest=digest,
            skipped=skipped,
            participants=participants,
            first=now,
            last=now,
        )
        known = self.rounds.rounds.setdefault((task, number), fresh)
        known.last = now
        known.reports += 1
        for name, values in (("accuracy", known.accuracy), ("loss", known.loss)):
            value = measured.get(name)
            if value is not None:
                values.append(value)
        if known.digest != digest:
            seen = f"round {number} of {task}: {digest.hex()[:12]} instead of {known.digest.hex()[:12]}"
            self.violations.add(now, node, "honest nodes agree on the model of every round", seen)

    def finished_task(self, node: int, task: str) -> None:
        """The node is through with the task."""
        self.trace.note(self.heap.now, "finished task", node, task)
        self.rounds.finished.setdefault(task, {})[node] = None

    def accused(self, node: int, other: int, rule: str) -> None:
        """The node says that `other` broke a rule."""
        self.trace.note(self.heap.now, "accused", node, other, rule)
        self.accusations[rule] = self.accusations.get(rule, 0) + 1
        excused = rule in FORGOTTEN and other in self._forgetful
        if self.honest(node) and self.honest(other) and not excused:
            seen = f"node {other} is accused of breaking the rule {rule}"
            self.violations.add(self.heap.now, node, "no honest node accuses another", seen)

    def waiting(self, node: int, reason: str) -> None:
        """The node cannot go on, or not as it should, and says why."""
        self.trace.note(self.heap.now, "waiting", node, reason)
        self.waits[reason] = self.waits.get(reason, 0) + 1

    def failed(self, node: int, error: BaseException) -> None:
        """A bug: an exception escaped from the node's own code."""
        seen = f"{type(error).__name__}: {error}"
        self.trace.note(self.heap.now, "failed", node, seen)
        self.violations.add(self.heap.now, node, "no exception escapes from a node", seen)

    def _unpublished(self, node: int, topic: str, message_id: bytes, origin: int) -> Message:
        """Takes in a message that its origin did not announce; honest nodes always do, -1 is none of them."""
        now = self.heap.now
        self.trace.note(now, "unpublished", topic, message_id, origin)
        if origin >= 0 and self.honest(origin):
            seen = f"{message_id.hex()} on {topic} in the name of node {origin}"
            self.violations.add(now, node, "nobody gets a message before it is published", seen)
        return self.ledger.publish(message_id, topic, origin, 0, now)

    def _note_eclipse(self, node: int, topic: str, mesh: Sequence[int]) -> None:
        """Keeps the longest time that more than half of an honest node's mesh were adversaries."""
        others = sum(not self.honest(other) for other in mesh)
        if 2 * others <= len(mesh) or self.heap.now < self.scenario.checks.eclipse_after:
            self._eclipsed.pop((node, topic), None)
            return
        since = self._eclipsed.setdefault((node, topic), self.heap.now)
        self.longest_eclipse = max(self.longest_eclipse, self.heap.now - since)

    def _look_at_scores(self, rung: Rung) -> None:
        """What honest nodes think of their peers, the honest ones and the others."""
        honest: list[float] = []
        adversaries: list[float] = []
        there = (node for node in range(self.scenario.peers) if self.honest(node) and rung.alive(node))
        for node in islice(there, JUDGES):
            for other, score in rung.scores(node).items():
                (honest if self.honest(other) else adversaries).append(score)
        self.scores.times.append(self.heap.now)
        self.scores.honest.add(honest)
        self.scores.adversaries.add(adversaries)

    def _mesh_sizes(self, rung: Rung, node: int) -> list[int]:
        """The node's meshes; one that stays above its bound while nothing is wrong is a violation."""
        now, sizes = self.heap.now, []
        for topic in self._topics:
            if not self.presence.listens(node, topic):
                continue
            mesh = rung.mesh(node, topic)
            size = len(mesh)
            sizes.append(size)
            if self._has_adversaries and self.honest(node):
                self._note_eclipse(node, topic, mesh)
            if size <= self._mesh_high:
                self._overgrown.pop((node, topic), None)
                continue
            before, samples = self._overgrown.get((node, topic), ([], 0))
            pruned = any(other not in mesh for other in before)  # and others came, who were many
            samples = 1 if pruned else samples + 1
            self._overgrown[node, topic] = (mesh, samples)
            if samples == OVERGROWN and self.honest(node) and self.calm(max(0.0, now - OVERGROWN), now):
                seen = f"{size} mesh peers of {topic} instead of {self._mesh_high} at most"
                self.violations.add(now, node, "a mesh above its bound is pruned", seen)
        return sizes
