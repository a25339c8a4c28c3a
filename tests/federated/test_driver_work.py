from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from federated import codec, driver
from federated.messages import (
    Model,
)
from federated.round_events import Action, Adopt, Event, Fetch, PeerConnected, RoundFinished, Started
from federated.workbench import digest
from p2p.blobs import PROTOCOL as BLOBS
from p2p.blobs import blob_root
from p2p.errors import StreamReset
from p2p.peer_id import PeerId
from p2p.stream import Stream
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


@pytest.mark.parametrize("later", [FINISHED, None])
async def test_work_that_is_void_lets_go_of_its_holder_at_once(
    later: Action | None, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch when its round is over, an adoption when there is a later one."""
    holder = peer_number(2)
    fetch = Fetch(round=1, root=b"1" * 32, size=len(INITIAL), holders=(holder,))
    first: Action = fetch if later else adoption(1, holder)
    second = later or adoption(2)
    lab = Lab(tiny_manifest(3))
    monkeypatch.setattr(driver, "RoundMachine", lambda **_: Script(first, second))
    asked, let_go = trio.Event(), trio.Event()

    async def never_answers(stream: Stream) -> None:
        asked.set()
        try:
            while await stream.receive_some():
                pass
        except StreamReset:
            let_go.set()

    async with open_lab(lab) as nursery:
        silent = await nursery.start(start_idle, lab, 2)
        silent.host.unhandle(BLOBS)
        silent.host.handle(BLOBS, never_answers)
        await nursery.start(lab.run, 1)
        await asked.wait()
        start = trio.current_time()
        await nursery.start(start_idle, lab, 3)
        await let_go.wait()
        assert trio.current_time() - start < 1.0
