"""What a task tells of its rounds, from a whole one to a peer that votes twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from federated.compute import Kind, ShouldStop
from federated.equivocation import TwoFaced
from federated.reports import Report
from federated.rounds.changes import is_true, unpack_evidence
from federated.rounds.committee import verify_signature
from p2p.gossipsub import open_gossipsub
from tests.federated import lab as lab_module
from tests.federated import tiny
from tests.federated.lab import Lab, ModelledCompute, assert_agreed, open_lab, peer_number, tiny_manifest

T = TypeVar("T")


def of(lab: Lab, number: int, event: str, round_number: int | None = None) -> list[Report]:
    """What member `number` reported under one name."""
    return [
        report
        for report in lab.reports[number]
        if report["event"] == event and round_number in (None, report.get("round"))
    ]


async def test_a_round_is_told_from_its_phases_to_its_certificate(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=2))
    async with open_lab(lab, 1, 2, 3, 4):
        await lab.until_finished(1, 2, 3, 4)
    certificates = [of(lab, number, "certificate") for number in (1, 2, 3, 4)]
    for number, (first, second) in enumerate(certificates, 1):
        assert (first["round"], second["round"]) == (1, 2)
        assert first["parent"] == lab.manifest.task_id.hex()
        assert second["parent"] == first["block"] == certificates[0][0]["block"]
        assert second["block"] == certificates[0][1]["block"]
        assert first["votes"] == 3
        assert first["digest"] == lab.rounds(number)[1]["digest"]
        votes = [report["choice"] for report in of(lab, number, "vote", 1)]
        assert votes == ["notarize", "finalize"]
        quorums = [report["choice"] for report in of(lab, number, "quorum", 1)]
        assert quorums == ["notarize", "finalize"]
        assert of(lab, number, "proposal", 1)[0]["block"] == first["block"]
        phases = {report["phase"]: report for report in of(lab, number, "phase", 1)}
        assert {"train", "commit", "reveal", "fetch", "validate", "aggregate", "vote"} == set(phases)
        assert (phases["reveal"]["answers"], phases["reveal"]["needed"]) == (4, 4)
        names = [report["event"] for report in lab.reports[number] if report.get("round") == 1]
        assert names.index("vote") < names.index("certificate") < names.index("round")


class Endless(ModelledCompute):
    """A training never ends; all else does."""

    async def run(self, job: Callable[[ShouldStop], T], kind: Kind = "other") -> T:
        if kind == "train":
            await trio.sleep_forever()
        return await super().run(job, kind)


async def test_a_phase_that_a_deadline_ends_says_who_was_missing(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, 1, 2, 3) as nursery:
        lab.compute = Endless
        await nursery.start(lab.run, 4)
        await lab.until_round(1, 1, 2, 3)
    [commit] = [report for report in of(lab, 1, "phase", 1) if report["phase"] == "commit"]
    assert (commit["answers"], commit["needed"]) == (3, 4)


async def test_a_member_that_has_no_update_is_not_missed(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(4, rounds=1))
    async with open_lab(lab, 1, 2, 3) as nursery:
        await nursery.start(lab_module.start_with, lab, 4, tiny.registry(pull="Raises"))
        await lab.until_round(1, 1, 2, 3)
    [commit] = [report for report in of(lab, 1, "phase", 1) if report["phase"] == "commit"]
    assert (commit["answers"], commit["needed"]) == (3, 3)


async def test_a_peer_that_votes_twice_is_told_of_with_evidence_and_ejected(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tiny_manifest(5, rounds=4))
    honest = (1, 2, 3, 4)
    async with open_lab(lab) as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(lab_module, "open_gossipsub", partial(open_gossipsub, make_router=TwoFaced))
            await nursery.start(lab.run, 5)
        for number in honest:
            await nursery.start(lab.run, number)
        await lab.until_round(4, *honest)
        await lab.until(lambda: bool(of(lab, 5, "task")) and of(lab, 5, "task")[-1]["state"] == "left")
    liar = peer_number(5)
    rounds = set()
    for number in honest:
        [change] = of(lab, number, "membership")
        assert (change["change"], change["peer"], change["members"]) == ("eject", str(liar), 4)
        rounds.add(change["round"])
        evidence = {report["proof"]: report for report in of(lab, number, "evidence")}[change["proof"]]
        found = unpack_evidence(bytes.fromhex(evidence["evidence"]))
        assert found.peer == liar
        assert is_true(lab.manifest.task_id, found, verify_signature)
        assert str(liar) not in lab.rounds(number)[4]["participants"]
    assert len(rounds) == 1
    assert of(lab, 5, "task")[-1]["reason"] == "ejected"
    assert_agreed(lab, 4)
