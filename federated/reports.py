"""The events that a task reports, as JSON objects: what a person or a program follows a peer by.

`reports_of` says what an action of the round machine is to those who follow; an action that was carried
out is reported, so whatever stands in the journal first is on the disk by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from federated.manifest import TaskManifest
from federated.rounds.actions import (
    Action,
    Adopt,
    Audited,
    CapabilityAnnounced,
    Checkpoint,
    DigestMismatch,
    DutyChanged,
    FetchHistory,
    MembershipChanged,
    Misbehaved,
    PhaseFinished,
    RoundFinished,
    WriteJournal,
)
from federated.rounds.changes import pack_evidence, proof_hash
from federated.rounds.messages import (
    Accuse,
    Body,
    Capability,
    Certificate,
    Change,
    Choice,
    Evidence,
    Proof,
    Propose,
    Vote,
)

if TYPE_CHECKING:
    from federated.privacy import Budget  # with numpy, which is for those who train
    from federated.quality import Quality

Report = dict[str, Any]


def task_report(manifest: TaskManifest, state: str, reason: str | None = None) -> Report:
    """`state` is "joined", "waiting" (for the disk or the blob store), "finished", "left" or "refused".

    `reason` is one line.
    """
    report = _head(manifest, "task") | {"name": manifest.name, "state": state}
    return report if reason is None else report | {"reason": reason}


def profile_report(profile: Mapping[str, Any]) -> Report:
    """What the report that a peer has joined says beside: what its data are like, where that is known."""
    return {"data": dict(profile)} if profile else {}


def training_report(metrics: Mapping[str, float | None]) -> Report:
    """What the report of a round says beside: what the trainer told of its newest training, if anything."""
    return {"training": dict(metrics)} if metrics else {}


def privacy_report(budget: Budget | None) -> Report:
    """What the reports of a private task say beside: what this peer's updates have given away so far."""
    return {} if budget is None else {"privacy": budget.report()}


def sums_report(step: Mapping[str, Any]) -> Report:
    """What the report of a round says beside in a task of secure sums: what the round was for."""
    return {"sums": dict(step)} if step else {}


def round_report(
    manifest: TaskManifest, action: RoundFinished, measured: Mapping[str, float | None], bytes_sent: int
) -> Report:
    """A round is over; `measured` has accuracy and loss, `bytes_sent` counts since the peer started."""
    return _head(manifest, "round") | {
        "round": action.round,
        "digest": action.model.digest.hex(),
        "skipped": action.skipped,
        "participants": [str(peer) for peer in action.participants],
        "refused": [{"peer": str(peer), "rule": rule} for peer, rule in action.refused],
        "late": [{"peer": str(peer), "rounds": rounds} for peer, rounds in action.late],
        "seconds": action.seconds,
        "phases": {phase.value: seconds for phase, seconds in action.phases.items()},
        "accuracy": measured.get("accuracy"),
        "loss": measured.get("loss"),
        "bytes_sent": bytes_sent,
        "catch_up": action.catch_up,
    }


def objection_report(manifest: TaskManifest, number: int, before: float, after: float | None) -> Report:
    """This peer does not vote for the round's model: by its held-out data the loss would rise so far.

    `after` is null where it would be no number.
    """
    return _head(manifest, "objection") | {"round": number, "before": before, "after": after}


def quality_report(manifest: TaskManifest, number: int, quality: Quality) -> Report:
    """What the updates of a round were worth by this peer's held-out data; null where it cannot say."""
    return _head(manifest, "quality") | {
        "round": number,
        "before": quality.before,
        "after": quality.after,
        "peers": [
            {"peer": str(item.peer), "gain": item.gain, "leave_one_out": item.leave_one_out}
            for item in quality.contributions
        ],
    }


def reports_of(manifest: TaskManifest, action: Action) -> list[Report]:
    """What there is to tell of an action that was carried out; `round_report` and `task_report` beside."""
    match action:
        case PhaseFinished():
            found = [_phase(action)]
        case WriteJournal(entries=entries):
            found = [report for entry in entries for report in _entry(entry)]
        case Checkpoint(chain=chain):
            found = [report for certificate in chain for report in certificate_reports(certificate)]
        case MembershipChanged(round=number, membership=membership, changes=changes):
            found = [_change(number, change, membership.active.bit_count()) for change in changes]
        case Adopt(certificate=certificate):
            found = [{"event": "catch_up", "round": certificate.round, "fetched": "model"}]
        case FetchHistory(first=first):
            found = [{"event": "catch_up", "round": first, "fetched": "certificates"}]
        case DigestMismatch(round=number, peer=peer, ours=ours, theirs=theirs):
            digests = {"ours": ours.hex(), "theirs": theirs.hex()}
            found = [{"event": "mismatch", "round": number, "peer": str(peer), **digests}]
        case Misbehaved(round=number, peer=peer, rule=rule):
            found = [{"event": "offence", "round": number, "peer": str(peer), "rule": rule}]
        case CapabilityAnnounced(peer=peer, capability=capability):
            found = [{"event": "capability", "peer": str(peer), **_capability(capability)}]
        case Audited(round=number, block=block, verdict=verdict, rule=rule):
            known = {"round": number, "block": block.hex(), "verdict": verdict.value}
            found = [{"event": "audit", **known, "rule": rule}]
        case DutyChanged(round=number, relieved=relieved):
            found = [{"event": "duty", "round": number, "relieved": relieved}]
        case _:
            found = []
    return [{"event": report["event"], "task": manifest.task_id.hex(), **report} for report in found]


def _phase(action: PhaseFinished) -> Report:
    return {
        "event": "phase",
        "round": action.round,
        "phase": action.phase.value,
        "seconds": action.seconds,
        "answers": action.answers,
        "needed": action.needed,
    }


def _capability(capability: Capability) -> Report:
    """Bytes, and rates a second; 0 where one is not known."""
    return {
        "round": capability.round,
        "steps_per_second": capability.steps_per_second,
        "bytes_down": capability.bytes_down,
        "bytes_up": capability.bytes_up,
        "aggregate_bytes_per_second": capability.aggregate_bytes_per_second,
        "memory": capability.memory,
        "cores": capability.cores,
    }


def _entry(entry: Body) -> list[Report]:
    """What an entry of the journal tells of the agreement: our votes, and the quorums that we learned of."""
    match entry:
        case Propose(view=view, block=block):
            where = {"round": entry.round, "view": view, "block": block.hash.hex()}
            updates = block.participants.bit_count()
            return [{"event": "proposal", **where, "updates": updates, "changes": len(block.changes)}]
        case Vote(view=view, choice=choice, block=voted):
            where = {"round": entry.round, "view": view, "choice": choice.name.lower()}
            return [{"event": "vote", **where, "block": voted.hex()}]
        case Proof(view=view, choice=choice, block=voted):
            return [_quorum(entry.round, view, choice, voted, len(entry.votes))]
        case Accuse(evidence=evidence):
            return [evidence_report(evidence)]
        case _:
            return []


def _quorum(number: int, view: int, choice: Choice, block: bytes, votes: int) -> Report:
    where = {"round": number, "view": view, "choice": choice.name.lower()}
    return {"event": "quorum", **where, "block": block.hex(), "votes": votes}


def certificate_reports(certificate: Certificate) -> list[Report]:
    """A round is decided: by its quorum, with its certificate."""
    block, number = certificate.block, certificate.round
    decided = {
        "event": "certificate",
        "round": number,
        "view": certificate.view,
        "block": block.hash.hex(),
        "parent": block.parent.hex(),
        "digest": block.model.digest.hex(),
        "skipped": block.skipped,
        "updates": block.participants.bit_count(),
        "votes": len(certificate.votes),
        "changes": len(block.changes),
    }
    quorum = _quorum(number, certificate.view, Choice.FINALIZE, block.hash, len(certificate.votes))
    return [quorum, decided]


def _change(number: int, change: Change, members: int) -> Report:
    """`members` are left, or there are as many now."""
    return {
        "event": "membership",
        "round": number,
        "change": change.kind.name.lower(),
        "peer": str(change.peer),
        "proof": change.proof.hex(),
        "members": members,
    }


def evidence_report(evidence: Evidence) -> Report:
    """Two votes that exclude each other; `evidence` is the bytes by which anybody can check them.

    See `federated.rounds.changes.unpack_evidence` and `is_true`; `proof` is their hash.
    """
    packed = pack_evidence(evidence)
    votes = (evidence.first, evidence.second)
    return {
        "event": "evidence",
        "round": evidence.first.round,
        "view": evidence.first.view,
        "peer": str(evidence.peer),
        "votes": [{"choice": vote.choice.name.lower(), "block": vote.block.hex()} for vote in votes],
        "proof": proof_hash(packed).hex(),
        "evidence": packed.hex(),
    }


def _head(manifest: TaskManifest, event: str) -> Report:
    return {"event": event, "task": manifest.task_id.hex()}
