"""kill -9 at every moment of a task: `python -m tests.search.crashes`.

Four members run the shipped driver, machines and journal on disks in memory and on virtual time. The
first one dies before its n-th change of a file or message, for each n that there is, also in the middle
of a write, and is started again with what its disk has kept. The task must come to its end, with one
model a round, and nobody may have said anything against what it said before.

`python -m tests.search.crashes --real` does the same to processes of this machine, with SIGKILL.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import trio
from trio.testing import MockClock

from federated.driver import Task, open_task, topic_of
from federated.manifest import PluginRef, RoundPolicy, TaskManifest
from federated.registry import Registry
from federated.rounds.messages import Body, Choice, Reveal, Vote
from federated.rounds.wire import decode
from federated.snapshots import Snapshot, Snapshots
from p2p.peer_id import PeerId
from sim.disk import SimDisk
from tests.federated import tiny
from tests.federated.lab import Lab, Member, open_lab, tiny_manifest
from tests.search.deadly import DeadlyFiles, DeadlyPubsub

MEMBERS = (1, 2, 3, 4)
VICTIM = 1
LISTENER = 9  # hears what all say, and takes no part
MODEL = 1000  # bytes, at most
DOWN = 0.3  # virtual seconds until it is started again


class Contradiction(AssertionError):
    """Somebody said what excludes an earlier word of the same member."""


@dataclass(slots=True)
class Ledger:
    """What everybody was heard to say."""

    votes: int = 0
    said: dict[object, object] = field(default_factory=dict)

    def hear(self, sender: PeerId, body: Body) -> None:
        """Raises `Contradiction`."""
        match body:
            case Reveal():
                self._once((sender, body.round), body)
            case Vote(round=number, view=view, choice=choice, block=block):
                self.votes += 1
                self._once((sender, number, view, choice), block)
                excluded = {Choice.NULLIFY: Choice.FINALIZE, Choice.FINALIZE: Choice.NULLIFY}.get(choice)
                if (sender, number, view, excluded) in self.said:
                    raise Contradiction(f"{sender} nullified and finalized view {view} of round {number}")

    def _once(self, key: object, value: object) -> None:
        if self.said.setdefault(key, value) != value:
            raise Contradiction(f"two different words about {key}")


class CrashLab(Lab):
    """A lab whose members have disks; the victim dies at the moments `deaths`, counted in each life."""

    def __init__(self, manifest: TaskManifest, deaths: Sequence[int], seed: int = 0) -> None:
        super().__init__(manifest)
        self.everybody = tuple(range(1, len(manifest.members) + 1))
        self.disks = {number: SimDisk(random.Random(seed)) for number in self.everybody}
        self.moments: list[str] = []  # of the life in progress
        self.died: list[str] = []
        self.death = trio.Event()
        self._deaths = list(deaths)
        self._dead = False

    def _open_task(
        self, member: Member, manifest: TaskManifest | None, plugins: Registry | None
    ) -> AbstractAsyncContextManager[Task]:
        number = member.number
        files: Any = self.disks[number].mount()
        pubsub: Any = member.pubsub
        if number == VICTIM:
            self.moments, self._dead, self.death = [], False, trio.Event()
            files = DeadlyFiles(files, self._tick)
            pubsub = DeadlyPubsub(pubsub, self._tick, lambda: self._dead)
        return open_task(
            member.host,
            pubsub,
            member.blobs,
            manifest or self.manifest,
            plugins or tiny.registry(),
            None,
            lambda event: self._report(number, event),
            files=files,
            compute=self.compute,
            rng=random.Random(number),
            wall_clock=self.wall_time,
        )

    def snapshot(self, number: int) -> Snapshot | None:
        """What the victim's disk has of its newest training before round `number`."""
        task = self.manifest.task_id
        folder = self.disks[VICTIM].mount().sub("tasks").sub(task.hex())
        return Snapshots(folder, task, MODEL).before(number)

    def _tick(self, what: str) -> None:
        """One more moment; at the n-th the disk is as a crash leaves it, and nothing is sent any more."""
        if self._deaths and len(self.moments) == self._deaths[0]:
            self.died.append(what)
            del self._deaths[0]
            self._dead = True
            self.disks[VICTIM].crash()
            self.death.set()
        self.moments.append(what)


async def _listen(lab: Lab, member: Member, ledger: Ledger) -> None:
    with member.pubsub.subscribe(topic_of(lab.manifest)) as subscription:
        async for message in subscription:
            ledger.hear(message.sender, decode(message.data).body)


async def crash_at(deaths: Sequence[int], seed: int = 0, rounds: int = 2, grace: float = 0.0) -> CrashLab:
    """Runs a task with a victim that dies at these moments of its lives; others wait `grace` seconds."""
    policy = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0, grace_s=grace)
    trainer = PluginRef(name="glides")
    manifest = tiny_manifest(len(MEMBERS), rounds=rounds, trainer=trainer, policy=policy)
    return await crash_in(manifest, deaths, seed)


async def crash_in(manifest: TaskManifest, deaths: Sequence[int], seed: int = 0) -> CrashLab:
    """Runs this task of `tests.federated.lab` with a victim that dies at these moments of its lives."""
    lab, ledger = CrashLab(manifest, deaths, seed), Ledger()
    async with open_lab(lab) as nursery:

        async def idle(*, task_status: trio.TaskStatus[Member]) -> None:
            await lab.run(LISTENER, idle=True, task_status=task_status)

        nursery.start_soon(_listen, lab, await nursery.start(idle), ledger)
        for number in lab.everybody:
            await nursery.start(lab.run, number)
        for _ in deaths:
            with trio.move_on_after(60.0):  # a life may be over before the moment comes
                await lab.death.wait()
            await lab.members[VICTIM].crash()
            await trio.sleep(DOWN)
            await nursery.start(lab.run, VICTIM)
        await lab.until_finished(*lab.everybody)
    digests = lab.digests()
    if any(len(found) != 1 for found in digests.values()) or len(digests) != manifest.rounds:
        raise Contradiction(f"models by round: {digests}")
    if not ledger.votes:
        raise Contradiction("nobody voted")
    return lab


def run_virtually(deaths: Sequence[int], seed: int = 0) -> CrashLab:
    """As `crash_at`, on virtual time."""
    return trio.run(crash_at, deaths, seed, clock=MockClock(autojump_threshold=0))


def main(words: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    return search("tests.search.crashes", __doc__, run_virtually, lambda: processes().kill_at, words)


def search(
    module: str,
    about: str | None,
    run: Callable[..., CrashLab],
    kill: Callable[[], Callable[..., Any]],
    words: Sequence[str] | None,
) -> int:
    """A program that dies at every moment of what `run(deaths, seed=)` does; its exit status.

    `kill` gives what does so with processes, for `tests.search.processes.run_all`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument(
        "--only", type=int, nargs="*", help="die at these moments of one life after the other"
    )
    parser.add_argument("--twice", action="store_true", help="die again early in the second life")
    parser.add_argument("--step", type=int, default=1, help="each n-th moment only")
    parser.add_argument("--real", action="store_true", help="processes and SIGKILL instead of virtual time")
    options = parser.parse_args(words)
    if options.real:
        return processes().run_all(options.only, options.step, kill(), module)
    if options.only:
        print(run(options.only).died)
        return 0
    started = time.perf_counter()
    moments = range(0, len(run(()).moments), options.step)
    failed = 0
    for moment in moments:
        deaths = [moment, moment % 23] if options.twice else [moment]
        try:
            run(deaths, seed=moment)
        except* (AssertionError, trio.TooSlowError) as group:
            failed += 1
            again = " ".join(map(str, deaths))
            print(f"moment {moment}: {group.exceptions}\nrepeat with: python -m {module} --only {again}")
    print(f"{len(moments)} moments, {failed} failed, {time.perf_counter() - started:.1f} s")
    return 1 if failed else 0


def processes() -> ModuleType:
    """The module that kills processes, which knows this one."""
    from tests.search import processes

    return processes


if __name__ == "__main__":
    sys.exit(main())
