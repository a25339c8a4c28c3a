"""kill -9 at every moment of a step of secure sums: `python -m tests.search.sums`.

As `tests.search.crashes`, with five members of which one may be bad: the first one, which holds shares, dies
before its n-th change of a file or message, for each n that there is, and is started again. Whatever it
opens, said or not, it may open nothing else in the same round; and the step must come to the mean of what was
dealt.

`python -m tests.search.sums --real` does the same to processes of this machine, with SIGKILL, and looks at
what they certify and reveal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import trio
from trio.testing import MockClock

from federated.manifest import STEP, RoundPolicy, SecureSums
from federated.sums import driver
from federated.sums.documents import Opening
from p2p.peer_id import PeerId
from tests.federated.lab import tiny_manifest
from tests.search.crashes import Contradiction, CrashLab, crash_in, processes, search

SUMS = SecureSums(range=8.0, holders=5)
POLICY = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0)
NEAR = 1e-6  # between the mean that was found and the one that should be

said: dict[tuple[int, PeerId], bytes] = {}


def note(number: int, author: PeerId, opening: Opening) -> bytes:
    """Encodes an opening. Raises `Contradiction` for another one than its author made before."""
    data = REAL(number, author, opening)
    if said.setdefault((number, author), data) != data:
        raise Contradiction(f"{author} opens two sums in round {number}")
    return data


REAL = driver.encode_opening


def run_step(deaths: Sequence[int], seed: int = 0) -> CrashLab:
    """One step on virtual time, in which the victim dies at these moments of its lives."""
    said.clear()
    driver.encode_opening = note
    manifest = tiny_manifest(5, rounds=3, sums=SUMS, policy=POLICY)
    try:
        lab = trio.run(crash_in, manifest, deaths, seed, clock=MockClock(autojump_threshold=0))
    finally:
        driver.encode_opening = REAL
    report = lab.rounds(2)[3]
    if report["sums"]["result"] != "opened":
        raise Contradiction(f"nothing is opened: {report['sums']}")
    expected = [abs(loss_without(index)) for index in range(5)]
    if report["sums"]["summed"] == 5:
        expected = [abs(loss_without(None))]
    if min(abs(report["loss"] - loss) for loss in expected) > NEAR:
        raise Contradiction(f"a loss of {report['loss']} is that of no mean")
    return lab


def loss_without(index: int | None) -> float:
    """How far from the mean of the points 0 to 4 the model is, when the member with that one is missing."""
    goals = [goal for goal in range(5) if goal != index]
    return 3 + (sum(goals) / len(goals) - 3) / 2 - 2


def main(words: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    changes = {"rounds": STEP, "sums": SUMS.model_dump()}
    return search(
        "tests.search.sums",
        __doc__,
        run_step,
        lambda: partial(processes().kill_at, peers=5, changes=changes),
        words,
    )


if __name__ == "__main__":
    sys.exit(main())
