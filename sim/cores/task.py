"""One member of a training task on this rung: the shipped round machine, with real work in modelled time.

    gossip ──→ Gate ──→ MessageReceived ─┐                 ┌─→ journal, checkpoint: until the disk lets them
    links ───→ PeerConnected, PeerLost ──┼→ RoundMachine ──┼─→ publish, report
    work ────→ Trained, Fetched, …  ─────┘    ↑ timer      └─→ train, fetch, validate, …: `work.py`

It does in calls what `federated.driver` does in tasks: one event at a time, its actions one after the other.
While the disk fails, or a model is measured, the events wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from federated.errors import CodecError, StorageError
from federated.plugin import PeerContext
from federated.rounds.actions import (
    Action,
    Adopt,
    Aggregate,
    Checkpoint,
    DigestMismatch,
    Fetch,
    FetchHistory,
    MembershipChanged,
    Misbehaved,
    Publish,
    Recompute,
    RoundFinished,
    StopTraining,
    TaskFinished,
    Train,
    Validate,
    WriteJournal,
)
from federated.rounds.committee import Membership
from federated.rounds.events import Event, HistoryFailed, MessageReceived, PeerConnected, PeerLost, Started
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import LIFETIME, Body, Message, Model
from federated.rounds.wire import encode
from federated.state import Restored, TaskState
from federated.workbench import prepare
from sim.adversaries.league import registry_of
from sim.cores.settings import STORAGE_RETRY, topic_of
from sim.cores.shared import Shared, SharedGate
from sim.cores.timer import Timer
from sim.cores.work import RoundWork

if TYPE_CHECKING:
    from p2p.gossipsub.events import PubsubMessage
    from p2p.peer_id import PeerId
    from sim.cores.node import Life


class Member:
    """A node's part in the task `name`, in one life. Raises `PluginError`, `DataError`, `InvalidInput`."""

    def __init__(self, life: Life, name: str, shared: Shared) -> None:
        world = life.world
        manifest, number = shared.manifest, life.number
        load = next(load for load in world.setup.scenario.task if load.name == name)
        peer = world.peers[number]
        self._life = life
        self._name = name
        self._shared = shared
        self._topic = topic_of(manifest)
        plugins = registry_of(world.role(number), world.league).load(manifest)
        index = manifest.peer_ids.index(peer)
        context = PeerContext(peer=peer, members=manifest.peer_ids, index=index, data_dir=None)
        bench = prepare(manifest, plugins, context)
        folder = life.files.sub("tasks").sub(manifest.task_id.hex())
        self._state = TaskState(folder, manifest.task_id, len(bench.initial))
        self._initial = bench.initial
        conspires = self._conspires if world.role(number).conspires else None
        snapshots, seconds = self._state.snapshots, load.train_seconds
        self._work = RoundWork(life, bench, shared, snapshots, seconds, self._durably, conspires)
        self._machine = self._open_machine(Restored())
        self._gate = SharedGate(shared, self._wall)
        self._timer = Timer(life, self._deadline, self._due)
        self._seq = int(self._wall() * 1e6)  # above all that an earlier process used
        self._events: deque[Event] = deque()
        self._actions: deque[Action] = deque()
        self._held = True  # something must end before the next action
        self._stuck = False  # the disk fails

    def start(self) -> None:
        """Listens, restores what an earlier life left, and goes through the rounds."""
        self._life.gossip.listen(self._topic, self._gate.judge, self._hear)
        self._durably(self._restore, self._started)

    def _open_machine(self, restored: Restored) -> RoundMachine:
        world, number = self._life.world, self._life.number
        manifest = self._shared.manifest
        return RoundMachine(
            manifest=manifest,
            peer=world.peers[number],
            sign=world.setup.keys[number].sign,
            rng=world.task_rng,
            verify=self._shared.verify,
            membership=restored.membership(Membership(manifest.task_id, manifest.peer_ids)),
        )

    def _conspires(self) -> bool:
        """Whether we and our like are a quorum of the committee."""
        panel, world = self._machine.panel, self._life.world
        if panel is None:
            return False
        roles = [world.role(world.numbers[peer]) for peer in panel.committee.members]
        return sum(role.conspires for role in roles) >= panel.committee.quorum

    def _restore(self) -> Restored:
        restored = self._state.restore()
        try:
            if restored.model is not None:
                self._work.decode(restored.model)
        except CodecError as exc:
            raise StorageError(f"the checkpoint holds no model of this task: {exc}") from exc
        return restored

    def _started(self, restored: Restored) -> None:
        self._work.add_model(self._initial, partial(self._add_current, restored))

    def _add_current(self, restored: Restored, initial: Model) -> None:
        if restored.model is None:
            self._begin(restored, initial, initial)
        else:
            self._work.add_model(restored.model, partial(self._begin, restored, initial))

    def _begin(self, restored: Restored, initial: Model, current: Model) -> None:
        """The first events: everything in them is at hand, here and for others."""
        self._work.turn(current)
        self._held = False
        self._machine = self._open_machine(restored)
        event = Started(
            initial=initial,
            certificate=restored.certificate,
            entries=restored.entries,
            history=restored.history,
        )
        self._events.appendleft(event)
        for other in self._life.connected():
            self._events.append(PeerConnected(peer=self._life.world.peers[other]))
        self._go_on()

    # What happens

    def connected(self, peer: PeerId, connected: bool) -> None:
        """A connection to `peer` came or went."""
        if self._machine.phase.value != "idle":  # else it is told at the start
            self.handle(PeerConnected(peer=peer) if connected else PeerLost(peer=peer))

    def handle(self, event: Event) -> None:
        """Tells the machine, when its turn comes."""
        self._events.append(event)
        self._go_on()

    def _hear(self, message: PubsubMessage) -> None:
        body = self._shared.decode(message.data).body
        if self._machine.phase.value != "idle":
            self.handle(MessageReceived(sender=message.sender, body=body))

    def _deadline(self) -> float | None:
        return None if self._held else self._machine.next_deadline()

    def _due(self, now: float) -> None:
        self._actions.extend(self._machine.handle_timer(now))
        self._go_on()

    def _go_on(self) -> None:
        """Carries out what is to be done, as long as nothing has to be waited for."""
        while not self._held and (self._actions or self._events):
            if self._actions:
                self._perform(self._actions.popleft())
            else:
                now = self._life.world.heap.now
                self._actions.extend(self._machine.handle(self._events.popleft(), now))
        if not self._held:
            self._timer.arm()

    # What is to be done

    def _perform(self, action: Action) -> None:
        match action:
            case WriteJournal(entries=entries):
                self._hold(partial(self._state.write, entries))
            case Checkpoint(certificate=certificate, chain=chain):
                model = self._work.model(certificate.block.model.digest)
                self._hold(partial(self._state.checkpoint, certificate, chain, model))
            case Publish(body=body):
                self._publish(body)
            case Train() | Fetch() | Validate() | Aggregate() | Adopt() | Recompute():
                self._work.begin(action, self.handle)
            case FetchHistory():
                self.handle(HistoryFailed())  # those that are behind are sent a few at a time
            case StopTraining():
                self._work.stop_training()
            case RoundFinished():
                self._finish_round(action)
            case _:
                self._tell(action)

    def _hold(self, call: Callable[[], None]) -> None:
        """Goes on when `call`, which touches the disk, has succeeded."""
        self._held = True
        self._durably(call, self._release)

    def _release(self, _: object = None) -> None:
        self._held = False
        self._go_on()

    def _publish(self, body: Body) -> None:
        self._seq += 1
        expiry = int(self._wall() + LIFETIME)
        message = Message(task=self._shared.manifest.task_id, seq=self._seq, expiry=expiry, body=body)
        self._life.gossip.publish(self._topic, encode(message))

    def _finish_round(self, action: RoundFinished) -> None:
        """Drops the work of the round, goes over to the new model, and reports when it is measured."""
        self._work.turn(action.model)
        self._held = True
        self._work.evaluate(partial(self._finished, action))

    def _finished(self, action: RoundFinished, measured: Mapping[str, float | None]) -> None:
        self._life.world.observer.finished_round(
            self._life.number,
            self._name,
            action.round,
            digest=action.model.digest,
            skipped=action.skipped,
            participants=len(action.participants),
            measured=measured,
        )
        self._release()

    def _tell(self, action: Action) -> None:
        observer, numbers = self._life.world.observer, self._life.world.numbers
        match action:
            case TaskFinished():
                observer.finished_task(self._life.number, self._name)
            case MembershipChanged(membership=membership):
                self._gate.turn(membership)
            case DigestMismatch(peer=peer):
                observer.accused(self._life.number, numbers[peer], "digest")
            case Misbehaved(peer=peer, rule=rule):
                observer.accused(self._life.number, numbers[peer], rule)

    # The disk

    def _durably(self, call: Callable[[], object], done: Callable[..., None]) -> None:
        """Hands the result of `call` to `done`; it is tried until the disk lets it succeed."""
        if not self._life.running:
            return
        try:
            result = call()
        except (StorageError, OSError) as exc:
            if not self._stuck:
                self._stuck = True
                self._life.world.observer.waiting(self._life.number, str(exc))
            heap = self._life.world.heap
            heap.plan(heap.now + STORAGE_RETRY, self._life.receive, self._durably, call, done)
            return
        self._stuck = False
        done(result)

    def _wall(self) -> float:
        return self._life.world.network.wall_clock(self._life.number)
