from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from federated.audit import NullTrail
from federated.monitor import Metrics, MetricsUnavailable, Monitor
from federated.reports import (
    Report,
    certificate_reports,
    evidence_report,
    objection_report,
    reports_of,
    round_report,
    task_report,
)
from federated.rounds.actions import (
    Action,
    Adopt,
    CapabilityAnnounced,
    Checkpoint,
    DigestMismatch,
    DutyChanged,
    FetchHistory,
    MembershipChanged,
    Misbehaved,
    PhaseFinished,
    Publish,
    RoundFinished,
    WriteJournal,
)
from federated.rounds.changes import evidence_of, is_true, unpack_evidence
from federated.rounds.committee import Membership, verify_signature
from federated.rounds.events import Phase
from federated.rounds.messages import (
    NO_BLOCK,
    Accuse,
    Block,
    Capability,
    Certificate,
    Change,
    ChangeKind,
    Choice,
    Hello,
    Model,
    Proof,
    Propose,
    Vote,
    vote_bytes,
)
from p2p.keys import KeyPair
from tests.federated.samples import manifest, peer

MANIFEST = manifest()
TASK = MANIFEST.task_id
MODEL = Model(digest=b"d" * 32, root=b"r" * 32, size=10)
KEY = KeyPair.from_seed(bytes([2]) * 32)
ME, LIAR = peer(0), peer(2)


def vote(choice: Choice, block: bytes) -> Vote:
    signature = KEY.sign(vote_bytes(TASK, 2, 1, choice, block))
    return Vote(round=2, view=1, choice=choice, block=block, signature=signature)


EVIDENCE = evidence_of(LIAR, vote(Choice.FINALIZE, b"b" * 32), vote(Choice.NULLIFY, NO_BLOCK))
BLOCK = Block(
    task=TASK,
    parent=b"p" * 32,
    round=2,
    base=b"a" * 32,
    inputs=b"i" * 32,
    participants=0b1011,
    examples=3,
    model=MODEL,
    changes=(Change(kind=ChangeKind.EJECT, peer=LIAR, proof=b"e" * 32),),
)
CERTIFICATE = Certificate(view=3, block=BLOCK, votes=((0, bytes(64)), (1, bytes(64)), (2, bytes(64))))

CAPABILITY = Capability(
    round=2,
    steps_per_second=2.5,
    bytes_down=1e6,
    bytes_up=0.0,
    aggregate_bytes_per_second=1e9,
    memory=1 << 33,
    cores=4,
)
MEMBERSHIP = Membership(TASK, MANIFEST.peer_ids)
CHANGED = MembershipChanged(round=2, membership=MEMBERSHIP.apply(BLOCK.changes), changes=BLOCK.changes)


def finished(**changes: Any) -> RoundFinished:
    values = {
        "round": 2,
        "model": MODEL,
        "skipped": False,
        "participants": (peer(0), peer(1)),
        "refused": ((LIAR, "norm"),),
        "seconds": 1.5,
        "phases": {Phase.TRAIN: 1.0},
        "catch_up": False,
    }
    return RoundFinished(**{**values, **changes})


def phase(**changes: Any) -> PhaseFinished:
    values = {"round": 2, "phase": Phase.REVEAL, "seconds": 0.25, "answers": 3, "needed": 3}
    return PhaseFinished(**{**values, **changes})


class ListTrail:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, str, str]] = []

    def record(self, actor: str, action: str, target: str, outcome: str, body: Mapping[str, Any]) -> None:
        self.entries.append((actor, action, target, outcome))


def told(*actions: Action) -> list[Report]:
    return [report for action in actions for report in reports_of(MANIFEST, action)]


def test_the_journal_tells_of_proposals_votes_and_quorums() -> None:
    proof = Proof(round=2, view=1, choice=Choice.NOTARIZE, block=BLOCK.hash, votes=CERTIFICATE.votes)
    proposal = Propose(view=1, parent=0, block=BLOCK)
    cast = vote(Choice.NOTARIZE, BLOCK.hash)
    hello = Hello(round=2, base=bytes(32))
    block = BLOCK.hash.hex()
    where = {"task": TASK.hex(), "round": 2, "view": 1}
    assert told(WriteJournal(entries=(proposal, cast, proof, hello)), Publish(body=cast)) == [
        {"event": "proposal", **where, "block": block, "updates": 3, "changes": 1},
        {"event": "vote", **where, "choice": "notarize", "block": block},
        {"event": "quorum", **where, "choice": "notarize", "block": block, "votes": 3},
    ]


def test_a_checkpoint_tells_of_the_certificate_and_the_members() -> None:
    quorum, certificate, membership = told(Checkpoint(certificate=CERTIFICATE, chain=(CERTIFICATE,)), CHANGED)
    assert (quorum["event"], quorum["choice"], quorum["votes"]) == ("quorum", "finalize", 3)
    assert certificate == {
        "event": "certificate",
        "task": TASK.hex(),
        "round": 2,
        "view": 3,
        "block": BLOCK.hash.hex(),
        "parent": (b"p" * 32).hex(),
        "digest": MODEL.digest.hex(),
        "skipped": False,
        "updates": 3,
        "votes": 3,
        "changes": 1,
    }
    assert membership == {
        "event": "membership",
        "task": TASK.hex(),
        "round": 2,
        "change": "eject",
        "peer": str(LIAR),
        "proof": (b"e" * 32).hex(),
        "members": 2,
    }
    assert certificate_reports(CERTIFICATE)[1]["block"] == certificate["block"]


def test_evidence_is_told_so_that_anybody_can_check_it() -> None:
    [report] = told(WriteJournal(entries=(Accuse(evidence=EVIDENCE),)))
    assert (report["round"], report["view"], report["peer"]) == (2, 1, str(LIAR))
    assert [item["choice"] for item in report["votes"]] == ["nullify", "finalize"]
    found = unpack_evidence(bytes.fromhex(report["evidence"]))
    assert found == EVIDENCE
    assert is_true(TASK, found, verify_signature)
    assert evidence_report(found)["proof"] == report["proof"]


def test_what_happens_to_a_round_is_told() -> None:
    reports = told(
        phase(),
        Adopt(certificate=CERTIFICATE, holders=()),
        FetchHistory(first=2, count=8, holders=()),
        DigestMismatch(round=2, peer=LIAR, ours=b"o" * 32, theirs=b"t" * 32),
        Misbehaved(round=2, peer=LIAR, rule="commitment"),
        finished(),
    )
    assert [report["event"] for report in reports] == ["phase", "catch_up", "catch_up", "mismatch", "offence"]
    assert [report["fetched"] for report in reports[1:3]] == ["model", "certificates"]
    assert {report["round"] for report in reports} == {2}
    assert {report["task"] for report in reports} == {TASK.hex()}
    assert (reports[0]["answers"], reports[0]["needed"]) == (3, 3)
    assert reports[3]["theirs"] == (b"t" * 32).hex()
    assert reports[4]["rule"] == "commitment"


def test_what_members_can_do_and_who_need_not_is_told() -> None:
    capability, duty = told(
        CapabilityAnnounced(peer=ME, capability=CAPABILITY), DutyChanged(round=2, relieved=True)
    )
    rates = {"steps_per_second": 2.5, "bytes_down": 1e6, "bytes_up": 0.0, "aggregate_bytes_per_second": 1e9}
    head = {"event": "capability", "task": TASK.hex(), "round": 2, "peer": str(ME)}
    assert capability == {**head, **rates, "memory": 1 << 33, "cores": 4}
    assert duty == {"event": "duty", "task": TASK.hex(), "round": 2, "relieved": True}


def reports() -> list[Report]:
    """What a task may report, once each and the phase twice."""
    measured = {"accuracy": 0.75, "loss": 0.5}
    actions: list[Action] = [
        phase(),
        phase(phase=Phase.COMMIT, answers=1, needed=3),
        WriteJournal(
            entries=(
                Propose(view=1, parent=0, block=BLOCK),
                vote(Choice.NOTARIZE, BLOCK.hash),
                Accuse(evidence=EVIDENCE),
            )
        ),
        Adopt(certificate=CERTIFICATE, holders=()),
        FetchHistory(first=2, count=8, holders=()),
        Checkpoint(certificate=CERTIFICATE, chain=(CERTIFICATE,)),
        CHANGED,
        DigestMismatch(round=2, peer=LIAR, ours=b"o" * 32, theirs=b"t" * 32),
        Misbehaved(round=2, peer=LIAR, rule="commitment"),
        CapabilityAnnounced(peer=LIAR, capability=replace(CAPABILITY, bytes_up=9.0)),
        CapabilityAnnounced(peer=ME, capability=CAPABILITY),
        DutyChanged(round=2, relieved=True),
        DutyChanged(round=2, relieved=False),
    ]
    return [
        task_report(MANIFEST, "joined"),
        *told(*actions),
        task_report(MANIFEST, "waiting", "no space left"),
        objection_report(MANIFEST, 2, 0.5, None),
        round_report(MANIFEST, finished(), measured, 1000),
        round_report(MANIFEST, finished(round=3, catch_up=True, refused=()), {}, 1500),
        round_report(MANIFEST, finished(round=4, skipped=True, refused=()), {}, 1200),
    ]


def test_everything_passes_through_and_into_the_trail() -> None:
    passed: list[Report] = []
    trail = ListTrail()
    tell = Monitor("me").watch(trail, passed.append)
    for report in reports():
        tell(report)
    assert passed == reports()
    one, two = "round 2", "round 2 view 1"
    assert trail.entries == [
        ("me", "task", "sample", "joined"),
        ("me", "reveal phase", one, "complete"),
        ("me", "commit phase", one, "deadline"),
        ("me", "proposal", two, ""),
        ("me", "vote", two, "notarize"),
        (str(LIAR), "equivocation", two, "proven"),
        ("me", "catch_up", one, "model"),
        ("me", "catch_up", one, "certificates"),
        ("voters", "quorum", "round 2 view 3", "finalize"),
        ("voters", "certificate", "round 2 view 3", "certified"),
        ("voters", "membership", str(LIAR), "eject"),
        (str(LIAR), "model", one, "differs"),
        (str(LIAR), "offence", one, "commitment"),
        (str(LIAR), "capability", one, "announced"),
        (str(ME), "capability", one, "announced"),
        ("me", "duty", one, "relieved"),
        ("me", "duty", one, "taken up"),
        ("me", "task", "sample", "waiting"),
        ("me", "model", one, "loss"),
        (str(LIAR), "update", one, "norm"),
        ("me", "round", one, "computed"),
        ("me", "round", "round 3", "adopted"),
        ("me", "round", "round 4", "skipped"),
    ]


def test_metrics_are_what_a_prometheus_server_reads() -> None:
    monitor = Monitor(str(ME))
    tell = monitor.watch(NullTrail(), lambda report: None)
    for report in reports():
        tell(report)
    samples = {
        (
            sample.name,
            *(value for name, value in sorted(sample.labels.items()) if name != "task"),
        ): sample.value
        for family in text_string_to_metric_families(monitor.metrics())
        for sample in family.samples
        if sample.labels.get("task", TASK.hex()) == TASK.hex()
    }
    expected = {
        ("atcp_rounds_total", "certified"): 2,
        ("atcp_rounds_total", "skipped"): 1,
        ("atcp_round_seconds_count",): 2,
        ("atcp_round_seconds_sum",): 3.0,
        ("atcp_phase_seconds_count", "reveal"): 1,
        ("atcp_phase_seconds_bucket", "0.3", "reveal"): 1,
        ("atcp_phase_seconds_bucket", "0.1", "reveal"): 0,
        ("atcp_phase_deadlines_total", "commit"): 1,
        ("atcp_proposals_total",): 1,
        ("atcp_votes_total", "notarize"): 1,
        ("atcp_quorums_total", "finalize"): 1,
        ("atcp_views_total",): 3,
        ("atcp_membership_changes_total", "eject"): 1,
        ("atcp_members",): 2,
        ("atcp_evidence_total",): 1,
        ("atcp_offences_total", "commitment"): 1,
        ("atcp_refused_updates_total", "norm"): 1,
        ("atcp_mismatches_total",): 1,
        ("atcp_objections_total",): 1,
        ("atcp_catch_ups_total",): 1,
        ("atcp_relieved_rounds_total",): 1,
        ("atcp_steps_per_second",): 2.5,
        ("atcp_down_bytes_per_second",): 1e6,
        ("atcp_up_bytes_per_second",): 0.0,  # not that of another member
        ("atcp_aggregate_bytes_per_second",): 1e9,
        ("atcp_disk_waits_total",): 1,
        ("atcp_disk_waiting",): 1,
        ("atcp_round",): 4,
        ("atcp_participants",): 2,
        ("atcp_accuracy",): 0.75,
        ("atcp_loss",): 0.5,
        ("atcp_sent_bytes_total",): 1500,
    }
    assert {key: samples[key] for key in expected} == expected
    assert ("atcp_phase_deadlines_total", "reveal") not in samples


def test_privacy_and_contributions_are_metrics() -> None:
    monitor = Monitor(str(ME))
    tell = monitor.watch(NullTrail(), lambda report: None)
    worth = [(0.5, 0.1), (0.5, -0.1), (-0.5, None), (None, None)]
    peers = [{"peer": str(peer(0)), "gain": gain, "leave_one_out": left} for gain, left in worth]
    tell({"event": "quality", "task": TASK.hex(), "round": 1, "before": 2.0, "after": 1.0, "peers": peers})
    tell({"event": "task", "task": TASK.hex(), "name": "x", "state": "joined", "privacy": {"epsilon": 2.5}})
    lines = monitor.metrics().splitlines()
    label = f'task="{TASK.hex()}"'
    for worth_, count in (("helpful", 1.0), ("harmful", 2.0), ("unknown", 1.0)):
        assert f'atcp_contributions_total{{{label},worth="{worth_}"}} {count}' in lines
    assert f"atcp_epsilon{{{label}}} 2.5" in lines


def test_a_disk_that_works_again_is_seen() -> None:
    metrics = Metrics()
    metrics.count(task_report(MANIFEST, "waiting", "full"))
    metrics.count(task_report(MANIFEST, "joined"))
    assert f'atcp_disk_waiting{{task="{TASK.hex()}"}} 0.0' in metrics.text()
    assert f'atcp_disk_waits_total{{task="{TASK.hex()}"}} 1.0' in metrics.text()


def test_without_the_extra_metrics_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monitor, passed = Monitor("me"), list[Report]()
    monitor.watch(NullTrail(), passed.append)(reports()[0])
    assert len(passed) == 1
    with pytest.raises(MetricsUnavailable, match=r"atcp\[metrics\]"):
        monitor.metrics()
