"""One training task on a host: tells the round machine what happens, carries out what it asks for.

    Link ──→ MessageReceived, … ─┐                 ┌─→ journal, checkpoint: awaited, in their order
    work ──→ Trained, Fetched, … ┴→ RoundMachine ──┼─→ publish, report
                                      ↑ timer      └─→ train, fetch, validate, aggregate, adopt:
                                                       tasks, whose results come back as events

One task owns the machine and carries out its actions one after the other, so nothing is published
before the journal entry in front of it is on the disk. While the disk fails it stands still there:
the task neither votes nor publishes, and goes on when the disk does. What takes long is done in
`federated.work`, where the arrays are.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from federated.capability import Meter, benchmark
from federated.compute import Compute, ThreadCompute, machine_size
from federated.errors import CodecError, StorageError
from federated.guard import Worsened
from federated.link import Exchange, Link, OverlayLink
from federated.manifest import MAX_UPDATE, TaskManifest
from federated.plugin import PeerContext
from federated.privacy import Budget
from federated.recomputing import Recomputing
from federated.registry import Registry
from federated.reports import (
    Report,
    objection_report,
    privacy_report,
    profile_report,
    quality_report,
    reports_of,
    round_report,
    sums_report,
    task_report,
    training_report,
)
from federated.rounds.actions import (
    Action,
    Adopt,
    Aggregate,
    Checkpoint,
    DigestMismatch,
    DutyChanged,
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
from federated.rounds.admission import Admissions
from federated.rounds.audits import outcome
from federated.rounds.committee import Membership, Verify, verify_signature
from federated.rounds.events import (
    Event,
    FetchFailed,
    LeaveWanted,
    Measured,
    Phase,
    Started,
    Verdict,
)
from federated.rounds.machine import RoundMachine
from federated.rounds.messages import Certificate
from federated.rounds.recent import Decided
from federated.state import Restored, TaskState
from federated.storage import Disk, Saver, Shelf
from federated.sums.driver import SumWork
from federated.work import RoundWork, Work
from federated.workbench import OpenBench, Workbench, open_bench
from p2p.blobs import Blobs
from p2p.errors import InvalidInput
from p2p.files import Files, FolderFiles
from p2p.gossipsub import Pubsub
from p2p.host import Host
from p2p.scope import open_scope

CLOSE_GRACE = 1.0  # seconds to finish the write that is under way

PATIENT = (Phase.TRAIN, Phase.AWAIT)  # while they last, nothing follows from what others say of the round

logger = logging.getLogger(__name__)


def topic_of(manifest: TaskManifest) -> str:
    """The topic on which the members of a task talk."""
    return f"/atcp/task/{manifest.task_id.hex()}/1"


class Task:
    """A task in progress; get it from `open_task`."""

    def __init__(
        self,
        *,
        link: Link,
        blobs: Exchange,
        manifest: TaskManifest,
        bench: Workbench,
        state: TaskState,
        compute: Callable[[], Compute],
        report: Callable[[Report], None],
        rng: random.Random,
        verify: Verify,
        nursery: trio.Nursery,
    ) -> None:
        self._link = link
        self._inbox = link.inbox
        self._manifest = manifest
        self._bench = bench
        self._state = state
        self._report = report
        self._verify = verify
        self._nursery = nursery
        self._compute, self._trainer, self._closer = compute(), compute(), compute()
        self._blobs = blobs
        self._disk = Disk(compute=self._compute, tell=self._tell_of_disk)
        budget = None if manifest.privacy is None else Budget(manifest.privacy, state.ledger)
        self._saver = Saver(state=state, disk=self._disk, compute=compute(), nursery=nursery)
        self._shelf = Shelf(store=blobs.store, disk=self._disk, owner=f"{manifest.task_id.hex()} {link.peer}")
        open_work: Callable[..., RoundWork] = RoundWork
        if manifest.sums is not None:
            open_work = partial(SumWork, manifest=manifest, pair=link.key, decided=self._decided)
        self._work = open_work(
            bench=bench,
            blobs=blobs,
            trainer=self._trainer,
            compute=self._compute,
            shelf=self._shelf,
            disk=self._disk,
            snapshots=state.snapshots,
            complain=self._complain,
            tell_spent=self._tell_spent,
            budget=budget,
            entropy=rng.randbytes,
            assessor=compute() if manifest.policy.quality_every else None,
            object_to=self._object,
        )
        self._budget = budget
        self._recomputing = Recomputing(bench=bench, blobs=blobs, compute=self._compute, shelf=self._shelf)
        self._rng = rng
        self.machine: RoundMachine | None = None  # once it is restored; to be looked at
        self._finished = trio.Event()
        self._left = trio.Event()
        self._scopes: list[trio.CancelScope] = []  # of this round's work
        self._training = self._adopting = trio.CancelScope()

    def _decided(self, number: int) -> Decided | None:
        """The certified block of a recent round."""
        return None if self.machine is None else self.machine.decided(number)

    async def wait_finished(self) -> None:
        """Returns once the last round is done; the task goes on for the members that are behind."""
        await self._finished.wait()

    async def leave(self) -> None:
        """Says that this peer leaves, and returns once the other members certified it."""
        await self._inbox.put(LeaveWanted())
        await self._left.wait()

    async def wait_left(self) -> None:
        """Returns once this peer is no member any more, of its own will or not."""
        await self._left.wait()

    async def _run(self) -> None:
        """Listens, restores what an earlier process left, and goes through the rounds."""
        with self._link.listen():
            machine, started = await self._start()
            self._report(
                task_report(self._manifest, "joined")
                | profile_report(self._bench.profile)
                | privacy_report(self._budget)
            )
            with self._link.follow(self._nursery, self._read_history):
                await self._perform(machine.handle(started, trio.current_time()))
                await self._measure()
                while True:
                    await self._perform(await self._next_actions(machine))

    async def _start(self) -> tuple[RoundMachine, Started]:
        """The machine and its first event: everything in it is at hand, here and for others."""
        restored = await self._disk.run(self._restore)
        machine = self.machine = self._open_machine(restored)
        initial = current = await self._work.add_model(self._bench.initial)
        if restored.model is not None:
            current = await self._work.add_model(restored.model)
        await self._work.turn(current)
        await self._open_meter()
        return machine, Started(
            initial=initial,
            certificate=restored.certificate,
            entries=restored.entries,
            history=restored.history,
        )

    def _open_machine(self, restored: Restored) -> RoundMachine:
        """The machine of a member. Raises `InvalidInput` when this peer is none any more."""
        manifest = self._manifest
        membership = restored.membership(Membership(manifest.task_id, manifest.peer_ids))
        self._link.turn(membership)
        return RoundMachine(
            manifest=manifest,
            peer=self._link.peer,
            sign=self._link.key.sign,
            rng=self._rng,
            verify=self._verify,
            membership=membership,
            admission=Admissions(manifest) if manifest.is_open else None,
        )

    def _restore(self) -> Restored:
        restored = self._state.restore()
        try:
            if restored.model is not None:
                self._bench.decode(restored.model)
        except CodecError as exc:
            raise StorageError(f"the checkpoint holds no model of this task: {exc}") from exc
        return restored

    # What happens

    async def _next_actions(self, machine: RoundMachine) -> list[Action]:
        """What the machine wants after the next events, or at its deadline."""
        events: Sequence[Event] = ()
        deadline = machine.next_deadline()
        with trio.move_on_at(math.inf if deadline is None else deadline):
            events = await self._inbox.receive(may_wait=machine.phase in PATIENT)
        now = trio.current_time()
        return machine.handle_all(events, now) if events else machine.handle_timer(now)

    # What is to be done

    async def _perform(self, actions: Sequence[Action]) -> None:
        """Carries out `actions`, one after the other."""
        for action in actions:
            match action:
                case WriteJournal(entries=entries):
                    await self._disk.run(partial(self._state.write, entries))
                case Checkpoint(certificate=certificate, chain=chain):
                    model = self._work.model(certificate.block.model.digest)
                    await self._saver.save(certificate, chain, model)
                    if certificate.round >= self._manifest.rounds:
                        await self._saver.wait()
                case Publish(body=body):
                    self._link.publish(body)
                case Fetch() | Validate() | Aggregate() | Adopt() if self._link.at_once:
                    await self._inbox.put(await self._result(action))
                case Train() | Fetch() | Validate() | Aggregate() | Adopt():
                    self._begin(action)
                case Recompute():
                    self._nursery.start_soon(self._recompute, action)
                case FetchHistory():
                    self._nursery.start_soon(self._link.fetch_history, action)
                case StopTraining():
                    self._training.cancel()
                case RoundFinished():
                    await self._finish_round(action)
                case TaskLeft():
                    await self._saver.wait()
                    self._tell(action)
                case _:
                    self._tell(action)
            for report in reports_of(self._manifest, action):
                self._report(report)

    def _begin(self, action: Work) -> None:
        """Starts work of this round; its result comes back as an event."""
        scope = trio.CancelScope()
        match action:
            case Train():
                self._training = scope
            case Adopt():
                self._adopting.cancel()
                self._adopting = scope
        if not isinstance(action, Train):  # which goes on until it is stopped
            self._scopes.append(scope)
        self._nursery.start_soon(self._do, action, scope)

    async def _do(self, action: Work, scope: trio.CancelScope) -> None:
        with scope:
            await trio.lowlevel.checkpoint_if_cancelled()  # its round may be over before it begins
            await self._inbox.put(await self._result(action))
        await self._measure()

    async def _open_meter(self) -> None:
        """Measures what this peer can do from now on, where time is the machine's."""
        if self._trainer.pace is None:
            return
        memory, cores = await self._compute.run(lambda _: machine_size())
        self._work.meter = Meter(time.monotonic, self._trainer.pace, memory=memory, cores=cores)
        self._work.meter.averaged(await self._compute.run(lambda _: benchmark(time.monotonic)))

    async def _benchmark(self) -> None:
        """Finds out whether this peer, which does not aggregate, is still too slow for it."""
        meter = self._work.meter
        if meter is not None:
            meter.averaged(await self._compute.run(lambda _: benchmark(time.monotonic)))
            await self._measure()

    async def _measure(self) -> None:
        """Tells the machine of what this peer can do, where that has changed."""
        meter = self._work.meter
        if meter is not None:
            meter.sent(self._blobs.bytes_sent)
            found = meter.news()
            if found is not None:
                await self._inbox.put(Measured(capability=found))

    async def _result(self, action: Work) -> Event:
        if self._link.at_once or not isinstance(action, Fetch):
            return await self._work.perform(action)
        with trio.move_on_after(self._manifest.policy.phase_deadline_s):
            return await self._work.perform(action)
        return FetchFailed(round=action.round, root=action.root)

    async def _recompute(self, action: Recompute) -> None:
        """Computes the block of an earlier round again; this round may be over before that is done."""
        found = outcome(action, Verdict.UNAVAILABLE)
        with trio.move_on_after(self._manifest.policy.phase_deadline_s):
            found = await self._recomputing.perform(action)
        await self._inbox.put(found)

    async def _read_history(self, task: bytes, first: int, count: int) -> Sequence[bytes]:
        """What others fetch."""
        return await self._saver.certificates(first, count)

    async def _finish_round(self, action: RoundFinished) -> None:
        """Drops the work of the round, goes over to the new model, and reports."""
        for scope in self._scopes:
            scope.cancel()
        self._scopes = []
        await self._work.turn(action.model)
        measured = {}
        with trio.move_on_after(self._manifest.policy.phase_deadline_s):
            measured = dict(await self._work.evaluate())
        self._report(
            round_report(self._manifest, action, measured, self._link.bytes_sent)
            | training_report(self._work.training)
            | sums_report(self._work.step(action))
            | privacy_report(self._budget)
        )
        every = self._manifest.policy.quality_every
        if every and action.round % every == 0:
            self._nursery.start_soon(self._assess, action.round)

    async def _assess(self, number: int) -> None:
        """Reports what the updates of a round were worth, while the next rounds go on."""
        found = await self._work.assess()
        if found is not None:
            self._report(quality_report(self._manifest, number, found))

    def _tell(self, action: Action) -> None:
        """Passes on what needs no deed."""
        match action:
            case TaskFinished():
                self._report(task_report(self._manifest, "finished"))
                self._finished.set()
            case TaskLeft(ejected=ejected):
                self._report(task_report(self._manifest, "left", "ejected" if ejected else None))
                self._left.set()
            case MembershipChanged(membership=membership):
                self._link.turn(membership)
            case DutyChanged(relieved=True):
                self._nursery.start_soon(self._benchmark)
            case DigestMismatch(round=number, peer=peer, ours=ours, theirs=theirs):
                logger.error(
                    "round %d: %s has the model %s, we have %s", number, peer, theirs.hex(), ours.hex()
                )
            case Misbehaved(round=number, peer=peer, rule=rule):
                logger.warning("round %d: %s broke the rule %s", number, peer, rule)

    def _complain(self, line: str) -> None:
        """Says what a plugin failed at; the task goes on."""
        self._report(task_report(self._manifest, "joined", line))

    def _object(self, number: int, reason: Worsened) -> None:
        """Says that this peer does not vote for the round's model."""
        self._report(objection_report(self._manifest, number, reason.before, reason.after))

    def _tell_spent(self, line: str) -> None:
        """Says that this peer may train no more."""
        self._report(task_report(self._manifest, "joined", line) | privacy_report(self._budget))

    def _tell_of_disk(self, failure: str | None) -> None:
        """Says that the disk fails, or that it does no more."""
        status = "joined" if failure is None else "waiting"
        self._report(task_report(self._manifest, status, failure))

    async def _close(self) -> None:
        """Closes the files behind the write that may be under way; the blobs may go."""
        self._shelf.clear()
        with trio.move_on_after(CLOSE_GRACE, shield=True):
            await self._saver.aclose()
        with trio.move_on_after(CLOSE_GRACE, shield=True):
            await self._closer.run(
                lambda _: self._bench.close()
            )  # whatever a plugin keeps the others busy with


@asynccontextmanager
async def open_task(
    host: Host,
    pubsub: Pubsub,
    blobs: Blobs,
    manifest: TaskManifest,
    registry: Registry,
    data_dir: Path | None,
    report: Callable[[Report], None],
    *,
    files: Files | None = None,
    compute: Callable[[], Compute] = ThreadCompute,
    bench: OpenBench = open_bench,
    rng: random.Random | None = None,
    wall_clock: Callable[[], float] = time.time,
    admitted: Sequence[Certificate] = (),
) -> AsyncIterator[Task]:
    """Takes part in a task while the body runs; its events go to `report`, see `federated.reports`.

    Votes and models are kept below `data_dir`, or in `files` instead; without them nothing survives the
    process, and it must not come back under the same identity. `compute` makes what runs the heavy work,
    `bench` where the plugins run (`federated.isolation`: those that work with data, in another process),
    `rng` hides updates until they are revealed and is the system's entropy by default, `wall_clock` (unix
    seconds) dates messages. Who is not in the manifest comes with the chain that `admitted` it, the first
    time. Raises `PluginError` and `DataError` when the task cannot run here, `InvalidInput` when this peer
    is not a member, `StorageError` when that cannot be read.
    """
    link = OverlayLink(host, pubsub, manifest, topic_of(manifest), wall_clock)
    task = open_task_on(
        link,
        blobs,
        manifest,
        registry,
        data_dir,
        report,
        files=files,
        compute=compute,
        bench=bench,
        rng=rng,
        admitted=admitted,
    )
    async with task as opened:
        yield opened


@asynccontextmanager
async def open_task_on(
    link: Link,
    blobs: Exchange,
    manifest: TaskManifest,
    registry: Registry,
    data_dir: Path | None,
    report: Callable[[Report], None],
    *,
    files: Files | None = None,
    compute: Callable[[], Compute] = ThreadCompute,
    rng: random.Random | None = None,
    verify: Verify = verify_signature,
    bench: OpenBench = open_bench,
    admitted: Sequence[Certificate] = (),
) -> AsyncIterator[Task]:
    """As `open_task`, on any network; `verify` checks votes, `bench` makes the workbench."""
    if files is None and data_dir is not None:
        files = FolderFiles(data_dir)
    folder = None if files is None else files.sub("tasks").sub(manifest.task_id.hex())
    members = Membership(manifest.task_id, manifest.peer_ids)
    if members.number(link.peer) is None:
        known = TaskState(folder, manifest.task_id, MAX_UPDATE, admitted)
        members = (await compute().run(lambda _: known.peek())).membership(members)
    index = members.number(link.peer)
    if index is None:
        raise InvalidInput(f"{link.peer} is not a member of the task {manifest.name}")
    context = PeerContext(peer=link.peer, members=members.members, index=index, data_dir=data_dir)
    plugins = await compute().run(lambda stop: bench(manifest, registry, context, stop))
    state = TaskState(folder, manifest.task_id, len(plugins.initial), admitted)
    async with open_scope() as nursery:
        task = Task(
            link=link,
            blobs=blobs,
            manifest=manifest,
            bench=plugins,
            state=state,
            compute=compute,
            report=report,
            rng=rng or random.SystemRandom(),
            verify=verify,
            nursery=nursery,
        )
        nursery.start_soon(task._run)
        try:
            yield task
        finally:
            nursery.cancel_scope.cancel()
            await task._close()
