from __future__ import annotations

from federated.manifest import ByWork
from federated.rounds.messages import Change, ChangeKind
from federated.standing import CAPABILITY, MAX_REFUSED, Standing
from tests.federated.chains import Chain
from tests.federated.lab import peer_number, tiny_manifest

MANIFEST = tiny_manifest(4)


def test_a_task_that_has_not_begun() -> None:
    summary = Standing(MANIFEST).summary()
    assert (summary["state"], summary["round"], summary["rounds"]) == ("starting", 0, 6)
    assert list(summary["members"].values()) == ["active"] * 4
    assert summary["certificate"] is None


def test_what_is_reported_is_summed_up() -> None:
    standing = Standing(MANIFEST)
    bad, gone = str(peer_number(2)), str(peer_number(3))
    certificate = {"round": 1, "view": 2, "block": "b", "digest": "d", "skipped": False, "votes": 3}
    for report in (
        {"event": "task", "state": "joined"},
        {"event": "phase", "round": 1, "phase": "train", "seconds": 0.5, "answers": 4, "needed": 4},
        {"event": "certificate", **certificate},
        {"event": "membership", "round": 1, "change": "eject", "peer": bad, "proof": "00"},
        {"event": "membership", "round": 1, "change": "leave", "peer": gone, "proof": "00"},
        {"event": "membership", "round": 1, "change": "join", "peer": "new", "proof": "00"},
        {"event": "offence", "round": 1, "peer": bad, "rule": "equivocation"},
        {
            "event": "round",
            "round": 1,
            "refused": [{"peer": bad, "rule": "norm"}] * 2,
            "accuracy": 0.5,
            "loss": 1.0,
            "seconds": 2.0,
        },
        {"event": "vote"},
        {"event": "task", "state": "waiting", "reason": "disk full"},
    ):
        standing.handle(report)
    summary = standing.summary(disk=7)
    assert (summary["state"], summary["reason"], summary["disk_bytes"]) == ("waiting", "disk full", 7)
    assert summary["certificate"] == certificate
    assert summary["phase"]["answers"] == 4
    assert (summary["members"][bad], summary["members"][gone], summary["members"]["new"]) == (
        "ejected",
        "left",
        "active",
    )
    assert summary["refused"] == [
        {"peer": bad, "rule": "equivocation", "count": 1},
        {"peer": bad, "rule": "norm", "count": 2},
    ]
    assert (summary["round"], summary["accuracy"]) == (1, 0.5)
    assert not standing.is_over


def test_only_so_many_refusals_are_told_apart() -> None:
    standing = Standing(MANIFEST)
    for number in range(MAX_REFUSED + 5):
        standing.handle({"event": "offence", "round": 1, "peer": str(number), "rule": "norm"})
    assert len(standing.summary()["refused"]) == MAX_REFUSED


def test_after_a_start_it_knows_what_was_certified_before() -> None:
    chain = Chain(tiny_manifest(4, rounds=1))
    leaves = Change(kind=ChangeKind.LEAVE, peer=peer_number(1), proof=bytes(32))
    certificate = chain.add(b"model", [leaves])
    standing = Standing(chain.manifest)
    standing.restore(certificate, chain.head.membership)
    standing.restore(certificate, chain.head.membership)
    summary = standing.summary()
    assert summary["members"][str(peer_number(1))] == "gone"
    assert summary["certificate"]["digest"] == certificate.block.model.digest.hex()
    assert standing.is_over


def test_what_was_told_since_the_start_is_not_overwritten_by_what_was_before() -> None:
    manifest = tiny_manifest(4, admission=ByWork(kind="work", bits=8), max_members=8)
    chain, new, told, silent = Chain(manifest), peer_number(9), peer_number(1), peer_number(2)
    changes = [Change(kind=ChangeKind.JOIN, peer=new, proof=bytes(32))]
    changes += [Change(kind=ChangeKind.LEAVE, peer=peer, proof=bytes(32)) for peer in (told, silent)]
    certificate = chain.add(b"model", changes)
    standing = Standing(manifest)
    standing.handle({"event": "certificate", "round": 2, "digest": "newer"})
    standing.handle({"event": "membership", "change": "eject", "peer": str(told)})
    standing.restore(certificate, chain.head.membership)
    summary = standing.summary()
    assert (summary["round"], summary["certificate"]["digest"]) == (2, "newer")
    found = [summary["members"][str(peer)] for peer in (new, told, silent, peer_number(3))]
    assert found == ["active", "ejected", "gone", "active"]


def test_what_members_announced_is_kept_while_they_are_members() -> None:
    standing = Standing(MANIFEST)
    rates = dict.fromkeys(CAPABILITY, 1.0)
    first, second = str(peer_number(1)), str(peer_number(2))
    for peer in (first, second):
        standing.handle({"event": "capability", "round": 1, "peer": peer, **rates})
    standing.handle({"event": "capability", "round": 2, "peer": first, **rates, "cores": 8})
    standing.handle({"event": "membership", "round": 2, "change": "leave", "peer": second, "proof": "00"})
    assert standing.summary()["capabilities"] == {first: {**rates, "cores": 8}}
