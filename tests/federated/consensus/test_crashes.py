"""kill -9 at moments of a task, on disks in memory; all moments: `python -m tests.search.crashes`."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from federated.rounds.messages import NO_BLOCK, Choice, Reveal, Vote
from p2p.peer_id import PeerId
from tests.search.crashes import Contradiction, Ledger, crash_at
from tests.support import key_number


@pytest.mark.parametrize("moment", [8, 13, 17, 22])
async def test_a_member_that_is_killed_goes_on_and_contradicts_nothing(
    moment: int, autojump_clock: MockClock
) -> None:
    lab = await crash_at([moment, moment % 3], seed=moment)
    assert len(lab.died) == 2


@pytest.mark.parametrize("number", [1, 2])
async def test_a_member_that_is_killed_around_its_snapshot_makes_the_same_update(
    number: int, autojump_clock: MockClock
) -> None:
    alive = await crash_at([], grace=5.0)
    saved = f"write snapshot-0000000{number} durably"
    moment = alive.moments.index(saved)
    assert alive.snapshot(number + 1) != alive.snapshot(number)
    for later, death in ((0, saved), (1, "write into journal")):
        lab = await crash_at([moment + later], grace=5.0)
        assert lab.died == [death]
        assert lab.snapshot(number + 1) == alive.snapshot(number + 1)


def test_a_contradiction_is_heard() -> None:
    peer = PeerId.from_public_key(key_number(1).public)

    def vote(choice: Choice, block: bytes) -> Vote:
        return Vote(round=1, view=1, choice=choice, block=block, signature=b"")

    for first, second in [
        (vote(Choice.NOTARIZE, bytes(32)), vote(Choice.NOTARIZE, bytes([1]) * 32)),
        (vote(Choice.FINALIZE, bytes(32)), vote(Choice.NULLIFY, NO_BLOCK)),
        (_reveal(1), _reveal(2)),
    ]:
        ledger = Ledger()
        ledger.hear(peer, first)
        ledger.hear(peer, first)
        with pytest.raises(Contradiction):
            ledger.hear(peer, second)


def _reveal(number: int) -> Reveal:
    return Reveal(round=1, root=bytes([number]) * 32, size=1, nonce=bytes(32), examples=1)
