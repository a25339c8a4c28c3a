"""A committee of liars among real members: what it certifies is found out from the bytes, and undone."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from federated.rounds.committee import Electorate, Membership
from tests.federated import tiny
from tests.federated.lab import Lab, open_lab, peer_number, start_with, tiny_manifest

COUNT, SEATS, ROUNDS = 12, 4, 5


def first_committee(lab: Lab) -> list[int]:
    """The members, by their number in the lab, that vote in round 1."""
    manifest = lab.manifest
    initial = bytes.fromhex(tiny.digest_of(tiny.Pull().init(manifest.seed)))
    members = Membership(manifest.task_id, manifest.peer_ids)
    drawn = Electorate(manifest.committee).panel(1, initial, members).committee.members
    return [number for number in range(1, COUNT + 1) if peer_number(number) in drawn]


async def test_a_model_that_a_lying_committee_made_is_taken_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    lab = Lab(tiny_manifest(COUNT, rounds=ROUNDS, committee=SEATS), tmp_path)
    liars = first_committee(lab)[:3]
    honest = [number for number in range(1, COUNT + 1) if number not in liars]
    async with open_lab(lab) as nursery:
        for number in range(1, COUNT + 1):
            plugins = tiny.registry(**{"weighted-mean": "OtherMean"}) if number in liars else tiny.registry()
            await nursery.start(start_with, lab, number, plugins)
        await lab.until_finished(*honest)
    digests = lab.digests()
    initial = tiny.digest_of(tiny.Pull().init(lab.manifest.seed))
    (number,) = [number for number in (2, 3) if digests[number] == [initial]]
    assert digests[1] != [initial]
    events = [event for member in honest for event in lab.reports[member]]
    verdicts = {
        (event["round"], event["verdict"], event["rule"]) for event in events if event["event"] == "audit"
    }
    assert (1, "differs", "digest") in verdicts
    voided = {
        (event["round"], event["peer"])
        for event in events
        if event["event"] == "membership" and event["change"] == "void"
    }
    assert voided == {(number, str(peer_number(liar))) for liar in liars}
    for member in honest:
        assert lab.rounds(member)[number]["skipped"] is False
        assert lab.rounds(member)[ROUNDS]["participants"]
