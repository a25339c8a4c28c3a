from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from federated import codec, driver
from federated.rounds.actions import Action, Adopt, Fetch, RoundFinished, StopTraining, Train
from federated.rounds.events import AdoptFailed, Event, FetchFailed, PeerConnected, Phase, Started
from federated.rounds.messages import (
    Model,
)
from federated.work import RoundWork, Work
from federated.workbench import digest
from p2p.blobs import blob_root
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import (
    Lab,
    certified,
    open_lab,
    peer_number,
    start_idle,
    tiny_manifest,
)

# Work that nobody wants any more


class Script:
    """Stands in for the round machine: asks for one thing at the start, for another when member 3 comes."""

    phase = Phase.TRAIN

    def __init__(self, first: Action, second: Action) -> None:
        self._first = first
        self._second = second

    def handle(self, event: Event, now: float) -> list[Action]:
        match event:
            case Started():
                return [self._first]
            case PeerConnected(peer=peer) if peer == peer_number(3):
                return [self._second]
        return []

    def handle_all(self, events: Sequence[Event], now: float) -> list[Action]:
        return [action for event in events for action in self.handle(event, now)]

    def next_deadline(self) -> float | None:
        return None


INITIAL = codec.encode(tiny.Pull().init(3))
CURRENT = Model(digest=digest(INITIAL), root=blob_root(INITIAL), size=len(INITIAL))
FINISHED = RoundFinished(
    round=1,
    model=CURRENT,
    skipped=True,
    participants=(),
    refused=(),
    seconds=0.0,
    phases={},
    catch_up=False,
)


def adoption(number: int, *holders: PeerId) -> Adopt:
    model = Model(digest=bytes(32), root=bytes([number]) * 32, size=len(INITIAL))
    return Adopt(certificate=certified(model, number), holders=holders)


HOLDER = peer_number(2)
FETCH = Fetch(round=1, root=b"1" * 32, size=len(INITIAL), holders=(HOLDER,))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FETCH, FINISHED),
        (adoption(1, HOLDER), adoption(2)),
        (Train(round=1, base=CURRENT), StopTraining(round=1)),
    ],
)
async def test_work_that_is_void_ends_at_once(
    first: Action, second: Action, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch when its round is over, an adoption when there is a later one, training when it is too late."""
    begun, ended = trio.Event(), trio.Event()

    async def never_ends(work: RoundWork, action: Work) -> Event:
        if action != first:
            return AdoptFailed(round=2)
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    monkeypatch.setattr(driver, "RoundMachine", lambda **_: Script(first, second))
    monkeypatch.setattr(RoundWork, "perform", never_ends)
    lab = Lab(tiny_manifest(3))
    async with open_lab(lab) as nursery:
        await nursery.start(lab.run, 1)
        await begun.wait()
        start = trio.current_time()
        await nursery.start(start_idle, lab, 3)
        await ended.wait()
        assert trio.current_time() - start < 1.0


async def test_a_fetch_ends_with_its_phase(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = trio.Event()

    class Waiting(Script):
        def handle(self, event: Event, now: float) -> list[Action]:
            if event == FetchFailed(round=1, root=FETCH.root):
                failed.set()
            return super().handle(event, now)

    async def never_ends(work: RoundWork, action: Work) -> Event:
        await trio.sleep_forever()

    monkeypatch.setattr(driver, "RoundMachine", lambda **_: Waiting(FETCH, FINISHED))
    monkeypatch.setattr(RoundWork, "perform", never_ends)
    lab = Lab(tiny_manifest(3))
    async with open_lab(lab) as nursery:
        await nursery.start(lab.run, 1)
        start = trio.current_time()
        await failed.wait()
        passed = trio.current_time() - start
    assert passed == pytest.approx(lab.manifest.policy.phase_deadline_s, abs=0.5)
