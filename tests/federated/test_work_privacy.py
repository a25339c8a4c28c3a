"""No update leaves before it is counted, whenever the process is killed; none when the budget is spent."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import cast

from federated.compute import InlineCompute
from federated.manifest import DifferentialPrivacy, PluginRef
from federated.plugin import PeerContext
from federated.privacy import Budget, Ledger
from federated.rounds.actions import Train
from federated.rounds.events import Trained, TrainFailed
from federated.state import TaskState
from federated.storage import Disk, Shelf
from federated.work import RoundWork
from federated.workbench import Workbench, prepare
from p2p.blobs import Blobs
from p2p.files import Files
from sim.disk import SimDisk
from tests.federated import tiny
from tests.federated.lab import peer_number, tiny_manifest
from tests.federated.mortal import Died
from tests.federated.test_work import FakeBlobs, refuse
from tests.search.deadly import DeadlyFiles

POLICY = DifferentialPrivacy(clip=4.0, noise=4.0, delta=1e-5, epsilon=5.0)
AFFORDED = 4  # updates
MANIFEST = tiny_manifest(3, privacy=POLICY, trainer=PluginRef(name="glides"))


def bench(trainer: str = "Glides") -> Workbench:
    context = PeerContext(peer=peer_number(1), members=MANIFEST.peer_ids, index=0)
    return prepare(MANIFEST, tiny.registry(glides=trainer).load(MANIFEST), context)


@dataclass
class Seen:
    """What came out of a member, in all of its lives: everything that it put where others can fetch it."""

    disk: SimDisk
    first: bytes
    updates: dict[bytes, None] = field(default_factory=dict)

    def keep(self, data: bytes) -> None:
        if data != self.first:
            self.updates[data] = None
            counted = Ledger(self.disk.mount(), MANIFEST.task_id)
            counted.open()
            assert counted.count >= len(self.updates)
            assert POLICY.cost(len(self.updates)) <= POLICY.epsilon


class Watched(FakeBlobs):
    """Blobs of which `seen` gets each."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    async def keep(self, data: bytes, *, needed: bool = True) -> bytes:
        self.seen.keep(data)
        return await super().keep(data, needed=needed)


class Life:
    """One process of a member."""

    def __init__(self, files: Files, seen: Seen, rng: random.Random, trainer: str = "Glides") -> None:
        self.complaints: list[str] = []
        self._bench = bench(trainer)
        blobs, state = Watched(seen), TaskState(files, MANIFEST.task_id, len(self._bench.initial))
        state.restore()
        self.work = RoundWork(
            bench=self._bench,
            blobs=cast("Blobs", blobs),
            trainer=InlineCompute(),
            compute=InlineCompute(),
            shelf=cast("Shelf", blobs),
            disk=Disk(compute=InlineCompute(), tell=refuse),
            snapshots=state.snapshots,
            complain=self.complaints.append,
            budget=Budget(POLICY, state.ledger),
            entropy=rng.randbytes,
        )

    async def train(self, number: int) -> bool:
        """Whether round `number` got an update."""
        model = await self.work.add_model(self._bench.initial)
        await self.work.turn(model)
        event = await self.work.perform(Train(round=number, base=model))
        assert isinstance(event, Trained | TrainFailed)
        return isinstance(event, Trained)


async def test_no_update_leaves_uncounted_whenever_the_process_is_killed() -> None:
    assert POLICY.cost(AFFORDED) <= POLICY.epsilon < POLICY.cost(AFFORDED + 1)
    moments, moment = list[str](), 0
    while moment <= len(moments):
        disk, moments, deaths = SimDisk(random.Random(moment)), [], [moment]
        rng, seen = random.Random(moment), Seen(disk, bench().initial)

        def tick(what: str, moments: list[str] = moments, deaths: list[int] = deaths) -> None:
            if deaths and len(moments) == deaths[0]:
                del deaths[0]
                raise Died
            moments.append(what)

        life: Life | None = None
        trained, number = 0, 1
        while number <= AFFORDED + 2:
            try:
                life = life or Life(DeadlyFiles(disk.mount(), tick), seen, rng)
                trained += await life.train(number)
                number += 1
            except Died:
                disk.crash()
                life = None
        assert AFFORDED - 1 <= trained <= AFFORDED  # the one that died may have been counted
        assert life is not None
        assert len([line for line in life.complaints if "the privacy budget is spent" in line]) == 1
        moment += 1
    assert any(what == "write privacy durably" for what in moments)
    assert moments.index("write privacy durably") < moments.index("write snapshot-00000001 durably")


async def test_with_a_trainer_that_fails_nothing_is_spent() -> None:
    seen = Seen(SimDisk(random.Random(1)), bench().initial)
    life = Life(seen.disk.mount(), seen, random.Random(1), trainer="Raises")
    assert not await life.train(1)
    counted = Ledger(seen.disk.mount(), MANIFEST.task_id)
    counted.open()
    assert counted.count == 0
